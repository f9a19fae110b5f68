"""Token counts of texts, with bounded time on the tokenizer's lock and bounded memory."""

from __future__ import annotations

import threading
from typing import Any

MOST_CHARACTERS = 64
"""Characters per allowed token above which a text is rejected without counting: runs of spaces are few tokens."""

_PIECE = 8192
"""Characters that are tokenized at a time: about 5 ms, for which the model's thread may have to wait."""


class Counter:
    """Counts the tokens of texts in pieces, so that the model's thread waits only briefly."""

    def __init__(self, tokenizer: Any) -> None:
        """Add a lock to a fast tokenizer: it breaks when two threads set and read its options at the same time."""
        self._tokenizer = tokenizer
        self._lock = threading.RLock()  # reentrant: in older releases, one of the methods below calls the other
        self._backend: Any = getattr(tokenizer, "backend_tokenizer", None)
        self.special, self.special_of_pair = (
            _special_tokens(tokenizer, pair=False),
            _special_tokens(tokenizer, pair=True),
        )
        # a tokenizer in Python takes ten times as long per character
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
        """Return an upper bound on the number of tokens: for ASCII, the number of characters plus one.

        Other characters may become 18 (NFKC of U+FDFA), each of which has three bytes.
        """
        return len(text) + 1 if text.isascii() else 54 * len(text) + 1

    def count(self, text: str, most: int) -> int:
        """Count tokens, without special tokens; a result above `most` only means that there are more than `most`."""
        if len(text) > self._letters * max(most, 1):
            return max(most, 0) + 2
        if len(text) <= _PIECE:
            return len(self._encode(text))
        tokens = pieces = 0
        for start in range(0, len(text), _PIECE):
            tokens += len(self._encode(text[start : start + _PIECE]))
            pieces += 1
            # at the border of two pieces, a token may have become two
            if tokens - 2 * pieces > most:
                return most + 2
        return tokens if tokens + 2 * pieces <= most else len(self._encode(text))

    def largest(self, text: str) -> int:
        """Return the largest token id of a text whose length has been checked."""
        return max(self._encode(text), default=0)

    def cut(self, text: str, most: int, side: str = "") -> tuple[str, int]:
        """Truncate a text to at most `most` tokens; return it with an estimate of the tokens cut off.

        The default for `side` is the tokenizer's `truncation_side`.
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
        while low < high:  # a slow tokenizer does not return offsets
            middle = (low + high + 1) // 2
            part = text[len(text) - middle :] if side == "left" else text[:middle]
            low, high = (middle, high) if len(self._encode(part)) <= most else (low, middle - 1)
        kept = text[len(text) - low :] if side == "left" else text[:low]
        return kept, max(1, tokens - most + rest // 4)

    def encode(self, text: str, *, special: bool) -> list[int]:
        """Tokenize a prompt whose length has been checked."""
        found: list[int] = self._tokenizer(text, add_special_tokens=special)["input_ids"]
        return found

    def _forget_options(self) -> None:
        """Reset options that a former call has left in the tokenizer, such as truncation."""
        self._backend.no_truncation()
        self._backend.no_padding()
        self._backend.encode_special_tokens = bool(getattr(self._tokenizer, "split_special_tokens", False))

    def _encode(self, text: str) -> list[int]:
        if self._backend is None:
            # not `encode`, which in older releases takes the text for a table with TAPAS
            ids: list[int] = self._tokenizer.convert_tokens_to_ids(self._tokenizer.tokenize(text))
            return ids
        # a batch of one, because it releases the GIL
        encode = getattr(self._backend, "encode_batch_fast", self._backend.encode_batch)
        with self._lock:
            self._forget_options()
            found: list[int] = encode([text], add_special_tokens=False)[0].ids
        return found


def _special_tokens(tokenizer: Any, *, pair: bool) -> int:
    """Return the number of special tokens that the tokenizer adds to a text, or to a pair."""
    try:
        return int(tokenizer.num_special_tokens_to_add(pair=pair))
    except ValueError:  # TAPAS does not support a question without a table
        return 0
