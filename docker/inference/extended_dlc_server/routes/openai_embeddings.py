"""`POST /v1/embeddings`, OpenAI's API: computes embeddings of texts or of token ids.

Besides OpenAI's fields it takes this server's parameters of embeddings (`prompt_name`, `pooling`, `normalize` …), which
OpenAI's clients send as `extra_body`.
"""

from __future__ import annotations

import base64
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from ..errors import RequestError, shown
from ..http.prepared import Incoming, Prepared, truncation_header
from ..json_text import encode_json
from ..model.embeddings import MOST_TEXTS, Text, Vectors
from ..reading.decoding import Decoded
from ..reading.openai_errors import BadFieldError
from ..reading.openai_fields import MODEL_NAME, PASSED_OVER, check_field, object_of, unknown_field
from ..reading.parameter_table import VECTORS

if TYPE_CHECKING:
    from ..model.model import Model

PARAMETERS = frozenset(VECTORS) - {"encoding_format"} | {"truncation"}
"""Fields that `/invocations` takes as parameters too. `encoding_format` has one more value here."""

FORMATS = ("float", "base64")


def prepare_embeddings(model: Model, incoming: Incoming) -> Prepared:
    if model.embeddings is None:
        raise RequestError(
            400,
            "wrong-task",
            f"this endpoint serves {model.task}, which makes no vectors of texts: ask a model of "
            "sentence-transformers, or one that is served for 'feature-extraction'",
        )
    document = object_of(incoming)
    texts = _texts(document.get("input"))
    wanted = document.get("encoding_format") or "float"
    if wanted not in FORMATS:
        raise BadFieldError(
            "bad-parameters",
            "encoding_format",
            f"'encoding_format' ({shown(wanted)}) must be one of: {', '.join(FORMATS)}",
        )
    parameters = {name: value for name, value in document.items() if name in PARAMETERS and value is not None}
    unknown = document.keys() - PARAMETERS - PASSED_OVER - {"input", "encoding_format", "model"}
    if unknown:
        raise unknown_field(min(unknown), ("input", "encoding_format", "model", *PARAMETERS))
    if isinstance(texts[0], list) and parameters.keys() & {"prompt", "prompt_name"}:
        raise BadFieldError(
            "bad-parameters", "prompt", "a prompt cannot stand in front of tokens: send texts in 'input'"
        )
    if model.embeddings.usual is not None:
        parameters.setdefault("pooling", model.embeddings.usual)
    named = document.get("model")
    named = check_field("model", named, MODEL_NAME) if isinstance(named, str) else None
    write = _writer(model.name if named is None else named, wanted)
    request = Decoded(inputs=texts, parameters=parameters, write=write)
    shared = model.prepare(request)
    return Prepared(
        answer=lambda copy: copy.answer(request),
        shared=shared,
        tokens=request.tokens,
        model=named,
        headers=lambda: truncation_header(request.cut),
    )


def _texts(given: Any) -> list[Text]:
    """Return a list of texts, or a list of lists of token ids."""
    if isinstance(given, str):
        return [given]
    if isinstance(given, list) and given:
        if all(isinstance(one, str) for one in given):
            texts: list[Text] = given
        elif _is_tokens(given):
            texts = [given]
        elif all(isinstance(one, list) and one and _is_tokens(one) for one in given):
            texts = given
        else:
            raise _no_input()
        if len(texts) > MOST_TEXTS:
            raise BadFieldError(
                "bad-inputs", "input", f"'input' has {len(texts)} texts: send at most {MOST_TEXTS:,} at once"
            )
        return texts
    raise _no_input()


def _is_tokens(value: list[Any]) -> bool:
    return all(type(one) is int for one in value)


def _no_input() -> BadFieldError:
    return BadFieldError(
        "bad-inputs",
        "input",
        "'input' must be a text, a list of texts, the numbers of a text's tokens, or a list of those",
    )


def _writer(model: str, encoding: str) -> Callable[[Any, Any], bytes]:
    """Return a function that formats embeddings as OpenAI's response body."""

    def write(vectors: Vectors, _: Any) -> bytes:
        data = [
            {"object": "embedding", "index": index, "embedding": _encoded(row) if encoding == "base64" else row}
            for index, row in enumerate(vectors.rows)
        ]
        usage = {"prompt_tokens": vectors.tokens, "total_tokens": vectors.tokens}
        return encode_json({"object": "list", "data": data, "model": model, "usage": usage})

    return write


def _encoded(row: Any) -> str:
    """Encode an embedding as base64 of little-endian float32."""
    return base64.b64encode(row.astype("<f4").tobytes()).decode()
