"""Reranking, in two request formats: that of Cohere and Jina, and that of Text Embeddings Inference.

A body with `documents` has the first format, one with `texts` the second, whatever the path. Both responses are sorted
by descending score.
"""

from __future__ import annotations

import uuid
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from ..errors import RequestError, shown
from ..http.prepared import Incoming, Prepared, truncation_header
from ..json_text import encode_json
from ..model.embeddings import MOST_TEXTS
from ..reading.openai_errors import BadFieldError
from ..reading.openai_fields import MODEL_NAME, PASSED_OVER, check_field, object_of, unknown_field
from ..reading.parameter_table import DIRECTIONS
from ..reading.parameter_types import Flag, Text, Type, Whole

if TYPE_CHECKING:
    from ..model.model import Model

_LONGEST_QUERY = 100_000
OF_DOCUMENTS: Mapping[str, Type] = {
    "top_n": Whole(1, 1_000_000),
    "return_documents": Flag(),
}
OF_TEXTS: Mapping[str, Type] = {"raw_scores": Flag(), "return_text": Flag()}
OF_BOTH: Mapping[str, Type] = {
    "model": MODEL_NAME,
    "query": Text(_LONGEST_QUERY, 1),
    "truncate": Flag(),
    "truncation_direction": DIRECTIONS,
}


@dataclass(frozen=True, kw_only=True)
class _Ask:
    """A parsed request of either format."""

    query: str
    texts: list[str]
    options: Mapping[str, Any]
    of_documents: bool
    model: str


def prepare_rerank(model: Model, incoming: Incoming) -> Prepared:
    if model.reranker is None:
        raise RequestError(
            400,
            "wrong-task",
            f"this endpoint serves {model.task}, and texts are scored for a query by a cross-encoder: a model for "
            "text-classification with one label",
        )
    ask = _read(object_of(incoming), model.name)
    cut = model.fit_pairs(ask.query, ask.texts, cuts=ask.options.get("truncate", True))
    prepared = Prepared(headers=lambda: truncation_header(cut), model=ask.model)

    def answer(copy: Model) -> bytes:
        assert copy.reranker is not None  # noqa: S101 - every copy has what the first has
        scores, tokens = copy.reranker.scores(
            ask.query,
            ask.texts,
            raw=ask.options.get("raw_scores", False),
            side=ask.options.get("truncation_direction", "").lower(),
        )
        prepared.tokens.prompt = tokens
        return encode_json(_written(ask, scores, tokens))

    prepared.answer = answer
    return prepared


def _read(document: dict[str, Any], served: str) -> _Ask:
    of_documents = "documents" in document
    field = "documents" if of_documents else "texts"
    table = {**OF_BOTH, **(OF_DOCUMENTS if of_documents else OF_TEXTS)}
    options: dict[str, Any] = {}
    for name, value in document.items():
        if name == field or name in PASSED_OVER or value is None:
            continue
        if name not in table:
            raise unknown_field(name, (field, *table))
        options[name] = check_field(name, value, table[name])
    if "query" not in options:
        raise BadFieldError("bad-inputs", "query", "'query' is missing: send the text that the others are to answer")
    return _Ask(
        query=options.pop("query"),
        texts=_texts(document.get(field), field),
        of_documents=of_documents,
        model=options.pop("model", None) or served,
        options=options,
    )


def _texts(given: Any, field: str) -> list[str]:
    """Return the texts; some clients send objects with a member `text` instead of strings."""
    texts = []
    for one in given if isinstance(given, list) else []:
        text = one.get("text") if isinstance(one, dict) else one
        if not isinstance(text, str):
            raise BadFieldError("bad-inputs", field, f"'{field}' must be a list of texts, and {shown(one)} is none")
        texts.append(text)
    if not 0 < len(texts) <= MOST_TEXTS:
        raise BadFieldError("bad-inputs", field, f"'{field}' must be a list of 1 to {MOST_TEXTS:,} texts")
    return texts


def _written(ask: _Ask, scores: list[float], tokens: int) -> Any:
    """Return the response, sorted by descending score."""
    ranking = sorted(range(len(scores)), key=scores.__getitem__, reverse=True)
    if not ask.of_documents:
        text = ask.options.get("return_text", False)
        return [
            {"index": index, "score": scores[index], **({"text": ask.texts[index]} if text else {})}
            for index in ranking
        ]
    has_documents = ask.options.get("return_documents", True)
    results = [
        {
            "index": index,
            "relevance_score": scores[index],
            **({"document": {"text": ask.texts[index]}} if has_documents else {}),
        }
        for index in ranking[: ask.options.get("top_n")]
    ]
    usage = {"prompt_tokens": tokens, "total_tokens": tokens}
    return {"id": f"rerank-{uuid.uuid4().hex}", "model": ask.model, "results": results, "usage": usage}
