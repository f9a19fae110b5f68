"""The table of routes: who reads a request, by its path, by `route=` beside the body, or by the body's own fields.

A new interface is one row of `ROUTES` and, where its body can be told by its fields, one of `SHAPES`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from ..errors import RequestError, shown
from ..reading.openai_errors import openai_body
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
    """Who reads the requests of one path."""

    prepare: Callable[[Model, Incoming], Prepared]
    """Reads and checks a request, on any thread but the model's."""

    error_body: Callable[[RequestError], Mapping[str, Any]] = RequestError.body
    """How errors are written there."""


INVOCATIONS = "/invocations"
EMBEDDINGS = "/v1/embeddings"
SPEECH = "/v1/audio/speech"
EMBEDDING_TASKS = ("feature-extraction", "sentence-embeddings")

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
"""Path -> who reads what is posted there."""

SHAPES: tuple[tuple[frozenset[str], str], ...] = (
    (frozenset({"messages"}), "/v1/chat/completions"),
    (frozenset({"prompt"}), "/v1/completions"),
    (frozenset({"input", "voice"}), SPEECH),
    (frozenset({"input"}), EMBEDDINGS),
    (frozenset({"query", "documents"}), "/v1/rerank"),
    (frozenset({"query", "texts"}), "/rerank"),
)
"""Fields of a JSON object without `inputs` -> path whose requests have them all. The first that fits is taken."""


def choose(incoming: Incoming) -> Route:
    """The route of a request."""
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
        # elsewhere it is 'inputs' with a letter missing
        if path != EMBEDDINGS or incoming.expected.task in EMBEDDING_TASKS:
            return ROUTES[path]
    return ROUTES[INVOCATIONS]


def error_body(route: Route | None, path: str, error: RequestError) -> Mapping[str, Any]:
    """An error as the clients of its route, or of its path where that has none, read it."""
    if route is not None:
        return route.error_body(error)
    return openai_body(error) if path.startswith("/v1/") else error.body()


def no_such_route(method: str, path: str) -> RequestError:
    """The answer to a request that no route has."""
    allowed = {"/ping": "GET", METRICS: "GET", OPENAPI: "GET", MODELS: "GET", **dict.fromkeys(ROUTES, "POST")}
    if path in allowed:
        return RequestError(405, "method-not-allowed", f"{path} takes {allowed[path]}, not {method}")
    known = ", ".join(f"{verb} {name}" for name, verb in allowed.items())
    return RequestError(404, "no-such-path", f"this server has {known}")
