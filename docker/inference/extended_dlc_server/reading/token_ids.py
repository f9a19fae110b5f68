"""Refuses tokens that the model has no row for: an index error on a CPU, and the end of the process on a GPU."""

from __future__ import annotations

from typing import Any

from ..errors import RequestError
from .counting import Counter


class TokenIds:
    """The tokens that a model knows."""

    def __init__(self, model: Any, tokenizer: Any, counter: Counter | None) -> None:
        """Read the size of the vocabulary from the model's embeddings."""
        try:
            embedding = model.get_input_embeddings()
        except (AttributeError, NotImplementedError):  # models of images and audio
            embedding = None
        self.vocabulary = getattr(embedding, "num_embeddings", 0) or len(tokenizer or ()) or 10**6
        self.unknown = tokenizer is not None and len(tokenizer) > self.vocabulary
        """Whether the tokenizer has tokens that the model does not know."""
        self._counter = counter
        if self.unknown and embedding is not None:  # the tokenizer may also add unknown ids as special tokens
            embedding.register_forward_pre_hook(lambda _, arguments: self._check_rows(arguments[0]))

    def check_text(self, text: str) -> None:
        """400 for a text with a token that the model does not know."""
        if self.unknown and self._counter is not None:
            self._check_largest(self._counter.largest(text))

    def check_numbers(self, tokens: list[int]) -> None:
        """400 for an input of tokens with one that the model does not know."""
        if max(tokens) >= self.vocabulary or min(tokens) < 0:
            raise RequestError(
                400,
                "bad-inputs",
                f"the input has the token {max(tokens)}, and the model knows those from 0 to {self.vocabulary - 1}: "
                "send tokens of its own tokenizer, or texts",
            )

    def _check_rows(self, tokens: Any) -> None:
        if tokens.numel():
            self._check_largest(int(tokens.max()))

    def _check_largest(self, largest: int) -> None:
        if largest >= self.vocabulary:
            raise RequestError(
                400,
                "bad-inputs",
                f"'inputs' has the token {largest}, and the model knows those below {self.vocabulary}: its tokenizer "
                "has more tokens than it, leave out what is special to it",
            )


def check_codes(model: Any) -> None:
    """Wrap the `decode` of audio codecs to reject codes out of range, since a model may generate special tokens.

    A request can cause that with `suppress_tokens`; on a GPU, a code out of range ends the process.
    """

    def checked(decode: Any, size: int) -> Any:
        def look(codes: Any, *arguments: Any, **options: Any) -> Any:
            if codes.numel() and int(codes.max()) >= size:
                raise RequestError(
                    400,
                    "refused-by-model",
                    f"the model has written a code for sound that its codec does not know, which has {size}: send "
                    "another text, or fewer parameters of the generation",
                )
            return decode(codes, *arguments, **options)

        return look

    for module in model.modules():
        size = getattr(module, "codebook_size", None)
        if isinstance(size, int) and callable(getattr(module, "decode", None)):
            module.decode = checked(module.decode, size)
