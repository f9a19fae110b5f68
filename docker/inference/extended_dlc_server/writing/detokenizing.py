"""Incremental detokenization."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import Any

_MOST_PENDING = 16
"""Tokens that may wait for the rest of a character, which has at most four bytes. Each step decodes all of them."""


class Detokenizer:
    """Decodes tokens one by one, up to the first stop string."""

    def __init__(
        self,
        tokenizer: Any,
        *,
        stops: Sequence[str] = (),
        keep: frozenset[int] | None = frozenset(),
        context: Sequence[int] = (),
    ) -> None:
        """Special tokens are left out of the text, except those in `keep`; None keeps all."""
        self._tokenizer, self._stops = tokenizer, stops
        self._dropped = frozenset() if keep is None else special_ids(tokenizer) - keep
        self._tokens = [token for token in context if token not in self._dropped]
        self._before, self._read = 0, len(self._tokens)
        self._held = ""
        self.whole = ""
        """The text so far, without what is held back."""
        self.stopped = False

    def add(self, token: int) -> str:
        """Return the new text; incomplete characters and possible beginnings of a stop string are held back."""
        if token not in self._dropped:
            self._tokens.append(token)
            self._held += self._new()
        return self._certain(last=False)

    def keep(self, token: int) -> None:
        """Add a token without decoding it: its text is only needed at the end."""
        if token not in self._dropped:
            self._tokens.append(token)

    def rest(self) -> str:
        """Return the text that was held back, at the end of the sequence."""
        had = self._decode(self._tokens[self._before : self._read])
        self._held += self._decode(self._tokens[self._before :])[len(had) :]
        self._read = len(self._tokens)
        return self._certain(last=True)

    def _certain(self, *, last: bool) -> str:
        found = [(self._held.find(stop), -len(stop)) for stop in self._stops if stop in self._held]
        if found:
            self.stopped = True
            sure, self._held = self._held[: min(found)[0]], ""
        else:
            kept = 0 if last else most_begun(self._held, self._stops)
            cut = len(self._held) - kept
            sure, self._held = self._held[:cut], self._held[cut:]
        self.whole += sure
        return sure

    def _new(self) -> str:
        """Decode new tokens together with the ones before, since spaces and characters depend on them."""
        had = self._decode(self._tokens[self._before : self._read])
        text = self._decode(self._tokens[self._before :])
        is_whole = len(text) > len(had) and not text.endswith("\ufffd")
        if not is_whole and len(self._tokens) - self._read < _MOST_PENDING:
            return ""
        self._before, self._read = self._read, len(self._tokens)
        return text[len(had) :]

    def _decode(self, tokens: list[int]) -> str:
        text = self._tokenizer.decode(tokens, skip_special_tokens=False, clean_up_tokenization_spaces=False)
        return str(text)


@functools.lru_cache(maxsize=8)
def special_ids(tokenizer: Any) -> frozenset[int]:
    """Return the ids of a tokenizer's special tokens, which take 4 us for each of them to look up."""
    return frozenset(tokenizer.all_special_ids)


def most_begun(text: str, marks: Sequence[str]) -> int:
    """Return how many characters at the end of the text may begin one of the marks."""
    longest = max(map(len, marks), default=0) - 1
    for length in range(min(longest, len(text)), 0, -1):
        end = text[-length:]
        if any(mark.startswith(end) for mark in marks):
            return length
    return 0
