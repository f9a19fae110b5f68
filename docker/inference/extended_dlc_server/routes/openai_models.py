"""`GET /v1/models`, and what there is not: `POST /v1/responses`."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

from ..errors import RequestError, shown
from ..http.prepared import Incoming, Prepared

if TYPE_CHECKING:
    from ..model.model import Model

PATH = "/v1/models"

_STARTED = int(time.time())


def models_at(path: str, served: str) -> dict[str, Any]:
    """What is served, or below that path the model of a name; 404 where it is another."""
    wanted = path.removeprefix(PATH).removeprefix("/")
    if wanted not in ("", served):
        raise RequestError(
            404, "model_not_found", f"{shown(wanted)} is not served here, '{served}' is (and requests may name any)"
        )
    about = {"id": served, "object": "model", "created": _STARTED, "owned_by": "extended-dlc"}
    return about if wanted else {"object": "list", "data": [about]}


def refuse_responses(model: Model, incoming: Incoming) -> Prepared:
    """A response would have to be kept for the next request: containers of an endpoint keep nothing."""
    raise RequestError(
        404,
        "no-such-path",
        "this server has no /v1/responses: send the messages to /v1/chat/completions, as client.chat.completions does",
    )
