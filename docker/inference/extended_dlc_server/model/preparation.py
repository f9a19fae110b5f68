"""Validates the requests to a loaded pipeline, on any thread and without inference."""

from __future__ import annotations

from typing import Any

from ..errors import RequestError
from ..reading.chats import Chats, RenderTime, is_chat
from ..reading.decoding import Decoded
from ..reading.image_tokens import TASKS as WITH_IMAGES
from ..reading.image_tokens import check_resizing
from ..reading.images import points_at_once
from ..reading.lengths import Lengths
from ..reading.parameter_table import Limits
from ..reading.parameters import Parameters
from ..reading.tgi import take_wishes
from ..settings import Settings
from .embeddings import Embeddings

_REQUIRED = {
    **dict.fromkeys(
        (
            *("zero-shot-audio-classification", "zero-shot-classification", "zero-shot-image-classification"),
            "zero-shot-object-detection",
        ),
        "candidate_labels",
    )
}


class Preparation:
    """The parameters, chats and lengths that requests to one pipeline may have."""

    def __init__(self, pipeline: Any, task: str, settings: Settings) -> None:
        """Read from the pipeline what requests may hold."""
        self._pipeline, self._task = pipeline, task
        self.lengths = Lengths(pipeline, task, settings)
        if task in WITH_IMAGES:
            _count_what_is_read(pipeline, self.lengths)
        self.chats = Chats(pipeline.tokenizer) if task == "text-generation" else None
        limits = Limits(
            input_tokens=self.lengths.limits.input_tokens,
            new_tokens=self.lengths.limits.new_tokens,
            all_tokens=self.lengths.limits.all_tokens,
            vocabulary=self.lengths.ids.vocabulary,
            template_variables=self.chats.variables if self.chats else frozenset(),
        )
        self.parameters = Parameters(pipeline, task, limits)

    def prepare(self, request: Decoded, embeddings: Embeddings | None) -> None:
        """Validate a request and arrange its parameters for the pipeline, or for `embeddings` where it asks for them.

        400 for invalid parameters, for inputs that are too long, and for chats without a chat template.
        """
        arguments = self.parameters.check(request.parameters)
        required = _REQUIRED.get(self._task)
        if required and not arguments.get(required):
            raise RequestError(
                400, "bad-parameters", f"the parameter '{required}' is missing: {self._task} cannot do without it"
            )
        prompt = request.inputs
        if self.chats is not None:
            request.inputs = self.chats.check(request.inputs)
            prompt = self._rendered(self.chats, request.inputs, arguments)
        if embeddings is not None and embeddings.check(arguments, request.inputs):
            request.cut = self.lengths.fit_cut(request.inputs, arguments, embeddings.most_tokens)
        else:
            if "image_processor_kwargs" in arguments:
                check_resizing(request.inputs, arguments["image_processor_kwargs"], self._pipeline.image_processor)
            if self._task == "mask-generation":
                arguments["points_per_batch"] = points_at_once(request.inputs, arguments.get("points_per_batch"))
            kept, lost = arguments.pop("truncate", None), 0
            if kept is not None:
                request.inputs, lost = self.lengths.keep_end(request.inputs, kept)
                prompt = request.inputs
            request.inputs, request.cut = self.lengths.fit(request.inputs, prompt, arguments)
            request.cut += lost
        request.wishes = take_wishes(arguments)
        if request.wishes.details and not is_one(request.inputs, arguments):
            raise RequestError(
                400, "bad-parameters", "'details' are of one answer: send one text or one chat, and no beams"
            )
        request.arguments = arguments

    def _rendered(self, chats: Chats, inputs: Any, arguments: dict[str, Any]) -> Any:
        """Apply the chat template to chats, for their number of tokens; return texts unchanged."""
        variables = {**arguments.pop("chat_template_kwargs", {})}
        encoding = arguments.get("tokenizer_encode_kwargs", {})
        variables.update({name: value for name, value in encoding.items() if name in chats.variables})
        chat = isinstance(inputs, list) and not isinstance(inputs[0], str)
        if variables and not (chat and "tokenizer_encode_kwargs" in self.parameters.table):
            reason = "the transformers release of this image passes none on" if chat else "'inputs' is no chat"
            raise RequestError(400, "bad-parameters", f"variables of the chat template have no effect: {reason}")
        if variables:
            arguments["tokenizer_encode_kwargs"] = {**encoding, **variables}
        if not chat:
            return inputs
        if isinstance(inputs[0], dict):
            return chats.render_to_count(inputs, arguments, variables)
        left = RenderTime()
        return [chats.render_to_count(one, arguments, variables, left) for one in inputs]


def is_one(inputs: Any, arguments: dict[str, Any]) -> bool:
    """Whether the answer is one sequence without beam search."""
    several = any(arguments.get(name) not in (None, 1) for name in ("num_return_sequences", "num_beams"))
    return not several and (isinstance(inputs, str) or is_chat(inputs))


def _count_what_is_read(pipeline: Any, lengths: Lengths) -> None:
    """Wrap `_forward` to check the length of a prompt after the processor has added its image tokens."""
    forward = pipeline._forward

    def counted(model_inputs: Any, **options: Any) -> Any:
        generation = dict(options.get("generate_kwargs") or {})
        lengths.check_expanded(model_inputs, generation)
        return forward(model_inputs, **({**options, "generate_kwargs": generation} if generation else options))

    pipeline._forward = counted
