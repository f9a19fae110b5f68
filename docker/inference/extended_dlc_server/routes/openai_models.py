"""`GET /v1/models`, and the refusal of `POST /v1/responses`."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from ..errors import RequestError, shown
from ..http.prepared import Incoming, Prepared

if TYPE_CHECKING:
    from ..model.model import Model

PATH = "/v1/models"

_STARTED = int(time.time())


def models_at(path: str, served: str, adapters: Sequence[str] = ()) -> dict[str, Any]:
    """Return the model and its adapters, or one of them by the name in the path; raise 404 for another name."""
    wanted = path.removeprefix(PATH).removeprefix("/")
    about = {"object": "model", "created": _STARTED, "owned_by": "extended-dlc"}
    known = {served: {"id": served, **about}, **{name: {"id": name, **about, "parent": served} for name in adapters}}
    if not wanted:
        return {"object": "list", "data": list(known.values())}
    if wanted not in known:
        names = ", ".join(f"'{name}'" for name in known)
        raise RequestError(
            404, "model_not_found", f"{shown(wanted)} is not served here, {names} is (and requests may name any)"
        )
    return known[wanted]


def refuse_responses(model: Model, incoming: Incoming) -> Prepared:
    """Raise 404: the Responses API keeps state between requests, and an endpoint's containers keep none."""
    raise RequestError(
        404,
        "no-such-path",
        "this server has no /v1/responses: send the messages to /v1/chat/completions, as client.chat.completions does",
    )
