"""`POST /invocations`: `inputs` and `parameters`, as in Hugging Face's pipelines and containers."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ..http.prepared import Incoming, Prepared, truncation_header
from ..reading.attributes import HEADER
from ..reading.decoding import decode
from ..reading.negotiation import Form

if TYPE_CHECKING:
    from ..model.model import Model


def prepare_invocation(model: Model, incoming: Incoming) -> Prepared:
    request = decode(
        incoming.body,
        incoming.content_type,
        model.expected,
        attributes=incoming.headers.get(HEADER, ""),
        accept=incoming.headers.get("accept", ""),
        share=incoming.share,
        parsed=lambda: incoming.document,
    )
    sound = request.inputs if isinstance(request.inputs, dict) and "raw" in request.inputs else None
    shared = model.prepare(request)
    writing = model.joins(request)
    if request.form is Form.EVENTS:
        model.check_stream(request)
        return Prepared(
            stream=lambda copy, emit, gone: copy.stream(request, emit, gone),
            writing=writing,
            tokens=request.tokens,
            model=request.wishes.adapter,
        )
    return Prepared(
        answer=lambda copy: copy.answer(request),
        shared=shared,
        writing=writing,
        content_type=request.form.content_type,
        headers=lambda: truncation_header(request.cut),
        tokens=request.tokens,
        model=request.wishes.adapter,
        audio_seconds=None if sound is None else round(sound["raw"].size / sound["sampling_rate"], 2),
    )
