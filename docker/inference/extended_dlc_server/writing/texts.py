"""What the scheduler holds of its requests: tickets, and the texts that it writes for them."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from .generating import Generation, OnToken, Row


@dataclass(kw_only=True, eq=False)
class Writing:
    """A validated request for the scheduler."""

    asked: Sequence[Generation]
    """The generation of each prompt."""

    finish: Callable[[list[list[Row]]], Any]
    """Makes the result from the sequences of each prompt."""

    on_token: OnToken | None = None
    """Called for each token of a sequence, with the text that it adds."""

    adapter: str | None = None
    """The adapter that the request picks (`model/adapters.py`)."""


@dataclass(kw_only=True, eq=False)
class Ticket:
    """A request in progress."""

    writing: Writing
    job: Any
    """The worker's job, which knows whether a deadline has passed or the client has gone."""

    rows: list[list[Row]]
    waiting: deque[int]
    """The index of the prompt of each sequence that has not joined."""

    left: int
    """Sequences that are not complete."""

    open: int = 0
    """Sequences that have joined and are not complete."""

    begun: bool = False
    """Whether prefill has started for any of its prompts."""

    over: bool = False
    heard: bool = False
    """Whether any token has been generated."""

    @classmethod
    def of(cls, writing: Writing, job: Any) -> Ticket:
        """Make the ticket of a request of which no sequence has joined."""
        waiting = deque(number for number, asked in enumerate(writing.asked) for _ in range(asked.count))
        rows: list[list[Row]] = [[] for _ in writing.asked]
        return cls(writing=writing, job=job, rows=rows, waiting=waiting, left=len(waiting))


@dataclass(kw_only=True, eq=False)
class Text:
    """One sequence, with its state."""

    ticket: Ticket
    row: Row
    draw: Callable[[], float]
    processors: list[Any]
    prompt: list[int]
    least: int
    """Minimum number of new tokens: before it no EOS token may come."""

    singly: bool = False
    """Whether to prefill it alone, because a prefill together with others failed."""

    heard: float | None = None
    """When its newest token was generated."""

    @property
    def tokens(self) -> list[int]:
        """The prompt and the tokens generated so far."""
        return [*self.prompt, *self.row.tokens]

    @classmethod
    def of(cls, ticket: Ticket, row: Row, device: Any) -> Text:
        """Make the text of a row to which nothing is added yet."""
        asked = row.asked
        assert asked.tokens is not None  # noqa: S101 - prompts with images do not join the scheduler
        assert asked.plan is not None  # noqa: S101 - nor do arguments that only `generate` supports
        plan, prompt = asked.plan, asked.tokens
        return cls(
            ticket=ticket,
            row=row,
            draw=row.random().random,
            processors=[*plan.processors(), *asked.processors(), *plan.warpers(device)],
            prompt=prompt,
            least=max(plan.least, plan.shortest - len(prompt)) if asked.ends else 0,
        )


@dataclass(kw_only=True)
class Reading:
    """A prompt that is being prefilled in chunks; `tokens` are the remaining ones."""

    text: Text
    cache: Any
    tokens: list[int]
