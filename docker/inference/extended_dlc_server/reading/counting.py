"""How many tokens a text has, found out without holding the model's thread up, or the memory."""

from __future__ import annotations

import threading
from typing import Any

MOST_CHARACTERS = 64
"""Characters a token of the limit, beyond which a text is refused uncounted: runs of spaces make few tokens."""

_PIECE = 8192
"""Characters that are tokenized at a time: some 5 ms, for which the model's thread may have to wait."""


class Counter:
    """Counts the tokens of a text without holding the model's thread up, or the memory."""

    def __init__(self, tokenizer: Any) -> None:
        """A fast tokenizer breaks where two threads set and read its options: they take turns from now on."""
        self._tokenizer = tokenizer
        self._lock = threading.RLock()  # one of the two methods below calls the other in older releases
        self._backend: Any = getattr(tokenizer, "backend_tokenizer", None)
        self.special, self.special_of_pair = (
            _special_tokens(tokenizer, pair=False),
            _special_tokens(tokenizer, pair=True),
        )
        # a tokenizer in Python takes ten times as long for each letter
        self._letters = MOST_CHARACTERS if self._backend is not None else MOST_CHARACTERS // 8
        if self._backend is not None:
            for name in ("_encode_plus", "_batch_encode_plus"):
                if hasattr(tokenizer, name):
                    setattr(tokenizer, name, self._one_at_a_time(getattr(tokenizer, name)))

    def _one_at_a_time(self, encode: Any) -> Any:
        def locked(*arguments: Any, **options: Any) -> Any:
            with self._lock:
                return encode(*arguments, **options)

        return locked

    @staticmethod
    def upper_bound(text: str) -> int:
        """A number that the tokens do not exceed: no tokenizer makes more of ASCII than its characters, and one.

        Elsewhere a letter may become 18 (NFKC of U+FDFA), and each of them three bytes.
        """
        return len(text) + 1 if text.isascii() else 54 * len(text) + 1

    def count(self, text: str, most: int) -> int:
        """Tokens without special ones; any number above `most` stands for all that are larger."""
        if len(text) > self._letters * max(most, 1):
            return max(most, 0) + 2
        if len(text) <= _PIECE:
            return len(self._encode(text))
        tokens = pieces = 0
        for start in range(0, len(text), _PIECE):
            tokens += len(self._encode(text[start : start + _PIECE]))
            pieces += 1
            # where two pieces meet, a token may have become two
            if tokens - 2 * pieces > most:
                return most + 2
        return tokens if tokens + 2 * pieces <= most else len(self._encode(text))

    def largest(self, text: str) -> int:
        """The largest id of a text that is not too long."""
        return max(self._encode(text), default=0)

    def cut(self, text: str, most: int, side: str = "") -> tuple[str, int]:
        """The longest part of a text that has at most so many tokens, and about how many are lost.

        It is cut at the tokenizer's side unless told.
        """
        side = side or getattr(self._tokenizer, "truncation_side", "right")
        reach = self._letters * max(most, 1)
        rest = max(0, len(text) - reach)
        text = text[-reach:] if side == "left" else text[:reach]
        tokens = self.count(text, len(text))
        low, high = 0, len(text)
        if self._backend is not None and tokens > most:
            with self._lock:
                self._forget_options()
                offsets = self._backend.encode(text, add_special_tokens=False).offsets
            low = high = len(text) - offsets[-most][0] if side == "left" else offsets[most - 1][1]
        while low < high:  # a slow tokenizer does not say where its tokens end
            middle = (low + high + 1) // 2
            part = text[len(text) - middle :] if side == "left" else text[:middle]
            low, high = (middle, high) if len(self._encode(part)) <= most else (low, middle - 1)
        kept = text[len(text) - low :] if side == "left" else text[:low]
        return kept, max(1, tokens - most + rest // 4)

    def encode(self, text: str, *, special: bool) -> list[int]:
        """The tokens of a text that is not too long, as the tokenizer makes them of a prompt."""
        found: list[int] = self._tokenizer(text, add_special_tokens=special)["input_ids"]
        return found

    def _forget_options(self) -> None:
        """What the last request has asked of the tokenizer, such as a truncation, stays set in it."""
        self._backend.no_truncation()
        self._backend.no_padding()
        self._backend.encode_special_tokens = bool(getattr(self._tokenizer, "split_special_tokens", False))

    def _encode(self, text: str) -> list[int]:
        if self._backend is None:
            # not encode, which takes the text for a table in older releases of TAPAS
            ids: list[int] = self._tokenizer.convert_tokens_to_ids(self._tokenizer.tokenize(text))
            return ids
        # a batch of one, for which the interpreter is free meanwhile
        encode = getattr(self._backend, "encode_batch_fast", self._backend.encode_batch)
        with self._lock:
            self._forget_options()
            found: list[int] = encode([text], add_special_tokens=False)[0].ids
        return found


def _special_tokens(tokenizer: Any, *, pair: bool) -> int:
    """How many tokens the tokenizer puts around a text, or around two."""
    try:
        return int(tokenizer.num_special_tokens_to_add(pair=pair))
    except ValueError:  # TAPAS has none for a question without its table
        return 0
