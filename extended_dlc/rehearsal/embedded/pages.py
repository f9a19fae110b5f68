"""Tokens of pages: a token that no earlier response gave is refused, as the services refuse it.

moto ignores most of them, or answers from the beginning, or fails. What is refused is known by the shapes: a list's
operation takes a token by one of a few names and gives the next by one of them. The code is that of the error which
the service's model has for it, else the service's code of an invalid request.
"""

from __future__ import annotations

import functools
import html
import json
import re
import threading
from collections.abc import Callable, Iterable
from typing import Any

from botocore.model import OperationModel, StringShape, StructureShape
from moto.core.utils import get_service_model
from werkzeug.wrappers import Response

from extended_dlc.rehearsal.embedded.calls import Call, Environ
from extended_dlc.rehearsal.embedded.shapes import CHECKED, Refusal

_TAKEN = ("ContinuationToken", "Marker", "NextToken", "nextToken")
_GIVEN = ("ContinuationToken", "Marker", "NextContinuationToken", "NextMarker", "NextToken", "nextToken")
_OF_LOGS = ("nextBackwardToken", "nextForwardToken")
"""GetLogEvents gives two tokens, one for each direction."""

_INVALID = re.compile(r"Invalid(Next|Pagination|Continuation)?(Token|Marker)(Exception)?|PaginationException")


@functools.cache
def names_of(service: str, operation: str) -> tuple[str, tuple[str, ...]] | None:
    """The parameter with the token, and the members of the response with the next; None for what is no such list."""
    model: OperationModel = get_service_model(service).operation_model(operation)
    taken, given = model.input_shape, model.output_shape
    if not isinstance(taken, StructureShape) or not isinstance(given, StructureShape):
        return None
    names = [name for name in _TAKEN if isinstance(taken.members.get(name), StringShape)]
    if service == "s3":  # a marker of S3 is a key, and may be any
        names = [name for name in names if name == "ContinuationToken"]
    members = tuple(name for name in (*_GIVEN, *_OF_LOGS) if name in given.members)
    return (names[0], members) if names and members else None


_CODES = {**CHECKED, "lambda": "InvalidParameterValueException", "s3": "InvalidArgument", "sns": "InvalidParameter"}
"""The error code where the service's model has none for tokens (each API reference, errors of the lists)."""


def _code(service: str, operation: str) -> str:
    model = get_service_model(service).operation_model(operation)
    named = (each.metadata.get("error", {}).get("code", each.name) for each in model.error_shapes)
    return next((name for name in named if _INVALID.fullmatch(name)), _CODES.get(service, "ValidationException"))


class Pages:
    """The tokens that responses gave."""

    def __init__(self) -> None:
        self._given: set[tuple[str, str, str, str]] = set()
        self._lock = threading.Lock()

    def check(self, call: Call) -> None:
        """Raise `Refusal` for a token that no response of the operation gave."""
        names = names_of(call.service, call.operation)
        token = call.parameters.get(names[0]) if names else None
        if names is None or token is None:
            return
        with self._lock:
            known = (call.account_id, call.region, str(call), str(token)) in self._given
        if not known:
            raise Refusal(_code(call.service, call.operation), f"The specified {names[0]} is invalid: {token}")

    def respond(
        self, call: Call, answer: Callable[..., Iterable[bytes]], environ: Environ, start: Callable[..., Any]
    ) -> Iterable[bytes]:
        """Respond, and note the tokens of the response."""
        names = names_of(call.service, call.operation)
        if names is None:
            return answer(environ, start)
        response = Response.from_app(answer, environ, buffered=True)
        with self._lock:
            for token in _tokens(response.get_data(as_text=True), names[1]):
                self._given.add((call.account_id, call.region, str(call), token))
        return response(environ, start)


def _tokens(body: str, names: tuple[str, ...]) -> list[str]:
    """The tokens in a response of JSON or XML."""
    if body.startswith("{"):
        try:
            content = json.loads(body)
        except ValueError:
            return []
        return [str(content[name]) for name in names if content.get(name)]
    found = re.findall(rf"<({'|'.join(names)})>([^<]+)</", body)
    return [html.unescape(token) for _, token in found]
