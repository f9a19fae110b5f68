"""The text of tokens that come one by one."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any


class Detokenizer:
    """The text of tokens that come one by one, up to one of the texts at which it stops."""

    def __init__(
        self,
        tokenizer: Any,
        *,
        stops: Sequence[str] = (),
        keep: frozenset[int] | None = frozenset(),
        context: Sequence[int] = (),
    ) -> None:
        """Special tokens have no text, but for those in `keep` (all where it is None)."""
        self._tokenizer, self._stops = tokenizer, stops
        special = frozenset(tokenizer.all_special_ids)
        self._dropped = frozenset() if keep is None else special - keep
        self._tokens = [token for token in context if token not in self._dropped]
        self._before, self._read = 0, len(self._tokens)
        self._held = ""
        self.whole = ""
        """All that is certain so far."""
        self.stopped = False

    def add(self, token: int) -> str:
        """What the token adds: nothing while a character has come in part only, or what may become a stop."""
        if token not in self._dropped:
            self._tokens.append(token)
            self._held += self._new()
        return self._certain(last=False)

    def keep(self, token: int) -> None:
        """One more token, whose text nobody asks for before the end."""
        if token not in self._dropped:
            self._tokens.append(token)

    def rest(self) -> str:
        """What was held back: nothing follows."""
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
        """Decoded together with the tokens before it, since spaces and characters depend on them."""
        had = self._decode(self._tokens[self._before : self._read])
        text = self._decode(self._tokens[self._before :])
        if len(text) <= len(had) or text.endswith("\ufffd"):
            return ""
        self._before, self._read = self._read, len(self._tokens)
        return text[len(had) :]

    def _decode(self, tokens: list[int]) -> str:
        text = self._tokenizer.decode(tokens, skip_special_tokens=False, clean_up_tokenization_spaces=False)
        return str(text)


def most_begun(text: str, marks: Sequence[str]) -> int:
    """How many characters at the end of the text may be the beginning of one of the marks."""
    longest = max(map(len, marks), default=0) - 1
    for length in range(min(longest, len(text)), 0, -1):
        end = text[-length:]
        if any(mark.startswith(end) for mark in marks):
            return length
    return 0
