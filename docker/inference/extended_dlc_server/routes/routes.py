"""The table of routes. A request's route is chosen by its path, by the custom attribute `route`, or by its fields.

A new API is one row of `ROUTES` and, if its body can be recognized by its fields, one row of `SHAPES`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from ..errors import RequestError, shown
from ..reading.openai_errors import openai_body
from ..reading.tasks import EMBEDDING_TASKS
from .invocations import prepare_invocation
from .metrics import PATH as METRICS
from .openai_chat import prepare_chat
from .openai_completions import prepare_completion
from .openai_embeddings import prepare_embeddings
from .openai_models import PATH as MODELS
from .openai_models import refuse_responses
from .openai_speech import prepare_speech
from .openapi import PATH as OPENAPI
from .rerank import prepare_rerank
from .transcriptions import (
    TRANSCRIPTIONS,
    TRANSLATIONS,
    asks_for_a_transcript,
    prepare_transcription,
    prepare_translation,
)

if TYPE_CHECKING:
    from ..http.prepared import Incoming, Prepared
    from ..model.model import Model


@dataclass(frozen=True, kw_only=True)
class Route:
    """The functions that handle the requests of one path."""

    prepare: Callable[[Model, Incoming], Prepared]
    """Parses and validates a request, on any thread but the model's."""

    error_body: Callable[[RequestError], Mapping[str, Any]] = RequestError.body
    """Returns the JSON body of an error response."""


INVOCATIONS = "/invocations"
EMBEDDINGS = "/v1/embeddings"
SPEECH = "/v1/audio/speech"

ROUTES: Mapping[str, Route] = {
    INVOCATIONS: Route(prepare=prepare_invocation),
    "/v1/chat/completions": Route(prepare=prepare_chat, error_body=openai_body),
    "/v1/completions": Route(prepare=prepare_completion, error_body=openai_body),
    "/v1/responses": Route(prepare=refuse_responses, error_body=openai_body),
    EMBEDDINGS: Route(prepare=prepare_embeddings, error_body=openai_body),
    SPEECH: Route(prepare=prepare_speech, error_body=openai_body),
    TRANSCRIPTIONS: Route(prepare=prepare_transcription, error_body=openai_body),
    TRANSLATIONS: Route(prepare=prepare_translation, error_body=openai_body),
    **dict.fromkeys(("/rerank", "/v1/rerank", "/v2/rerank"), Route(prepare=prepare_rerank, error_body=openai_body)),
}
"""Path -> route of its POST requests."""

SHAPES: tuple[tuple[frozenset[str], str], ...] = (
    (frozenset({"messages"}), "/v1/chat/completions"),
    (frozenset({"prompt"}), "/v1/completions"),
    (frozenset({"input", "voice"}), SPEECH),
    (frozenset({"input"}), EMBEDDINGS),
    (frozenset({"query", "documents"}), "/v1/rerank"),
    (frozenset({"query", "texts"}), "/rerank"),
)
"""Required fields -> path, for JSON objects without `inputs`. The first row whose fields are all present applies."""


def choose(incoming: Incoming) -> Route:
    """Return the route of a request."""
    if incoming.path != INVOCATIONS:
        return ROUTES[incoming.path]
    named = incoming.attributes.get("route")
    if isinstance(named, str) and named.startswith("/"):
        if named not in ROUTES:
            raise RequestError(
                404, "no-such-path", f"the attribute route ({shown(named)}) must be one of: {', '.join(sorted(ROUTES))}"
            )
        return ROUTES[named]
    if asks_for_a_transcript(incoming):
        return ROUTES[TRANSCRIPTIONS]
    if incoming.is_json and isinstance(incoming.document, dict) and "inputs" not in incoming.document:
        names = incoming.document.keys()
        path = next((path for fields, path in SHAPES if fields <= names), INVOCATIONS)
        # For other tasks, 'input' is more likely a misspelled 'inputs'.
        if path != EMBEDDINGS or incoming.expected.task in EMBEDDING_TASKS:
            return ROUTES[path]
    return ROUTES[INVOCATIONS]


def error_body(route: Route | None, path: str, error: RequestError) -> Mapping[str, Any]:
    """Return an error's JSON body in the format of its route or, without a route, of its path."""
    if route is not None:
        return route.error_body(error)
    return openai_body(error) if path.startswith("/v1/") else error.body()


def no_such_route(method: str, path: str) -> RequestError:
    """Return the error for an unknown path (404) or method (405)."""
    allowed = {"/ping": "GET", METRICS: "GET", OPENAPI: "GET", MODELS: "GET", **dict.fromkeys(ROUTES, "POST")}
    if path in allowed:
        return RequestError(405, "method-not-allowed", f"{path} takes {allowed[path]}, not {method}")
    known = ", ".join(f"{verb} {name}" for name, verb in allowed.items())
    return RequestError(404, "no-such-path", f"this server has {known}")
