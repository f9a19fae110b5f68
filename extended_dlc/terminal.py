"""What commands print: in colour and wrapped on a terminal, plain lines elsewhere.

Everything that a command says for people goes through here. On a terminal, lines are wrapped at its width and what is
wrong is bold and red; `NO_COLOR` takes the colour. In a pipe or a file there is neither colour nor wrapping: a line
stays a line, so that grep finds it. rich does colours and the live display; only this module imports it.
"""

from __future__ import annotations

import os
import re
import sys
import threading
import time
from collections.abc import Iterable, Mapping, Sequence
from functools import cached_property
from types import TracebackType
from typing import TYPE_CHECKING, Any, Literal, TextIO

if TYPE_CHECKING:
    from rich.console import Console
    from rich.text import Text

Style = Literal["", "title", "label", "problem", "warning", "ok", "unknown", "quiet"]

_STYLES = {
    "title": "bold",
    "label": "cyan",
    "problem": "bold red",
    "warning": "yellow",
    "ok": "green",
    "unknown": "yellow",
    "quiet": "dim",
}
NARROWEST = 40
"""Columns below which lines are not wrapped further."""

NEWS_SECONDS = 15.0
"""Between two lines that say that a step goes on, where no terminal shows it in place."""

_CONTROL = re.compile(r"\x1b\[[0-?]*[ -/]*[@-~]|\x1b\][^\x07\x1b]*(?:\x07|\x1b\\)|[\x00-\x08\x0b-\x1f\x7f-\x9f]")

_UNIT = re.compile(r" (?:ms|s|min|[KMG]i?B(?:/s)?)\b")
"""What stays on the line of the number before it."""


def plain(text: str) -> str:
    """The text without what a terminal would obey: colours, moves of the cursor, titles."""
    return _CONTROL.sub("", text)


def is_terminal(out: TextIO) -> bool:
    """Whether somebody looks at it: a terminal that can move its cursor, and says so in TERM."""
    return out.isatty() and os.environ.get("TERM", "") not in ("", "dumb", "unknown")


def has_colour(out: TextIO) -> bool:
    """Whether colours and bold are wanted: on a terminal, unless `CLICOLOR=0`, and where `FORCE_COLOR` is set.

    `NO_COLOR` wins over both; it takes the colours and leaves bold, which rich does
    (no-color.org, bixense.com/clicolors).
    """
    if any(os.environ.get(name, "0") not in ("", "0") for name in ("FORCE_COLOR", "CLICOLOR_FORCE")):
        return True
    return is_terminal(out) and os.environ.get("CLICOLOR") != "0"


def columns(out: TextIO) -> int | None:
    """How wide the terminal is; None where there is none, and lines are not wrapped."""
    if not out.isatty():
        return None
    try:
        width = int(os.environ.get("COLUMNS") or os.get_terminal_size(out.fileno()).columns)
    except (OSError, ValueError):
        width = 80
    return max(width or 80, NARROWEST)


class Screen:
    """One stream, as its reader can see it."""

    def __init__(self, out: TextIO | None = None, *, err: bool = False) -> None:
        """What is printed to `out`. Default: standard output, or with `err` standard error."""
        self.out: TextIO = out or (sys.stderr if err else sys.stdout)
        self.width = columns(self.out)
        self._has_colour = has_colour(self.out)

    @cached_property
    def console(self) -> Console:
        """rich's console on this stream."""
        from rich.console import Console
        from rich.theme import Theme

        return Console(
            file=self.out,
            width=self.width or 100_000,
            theme=Theme(_STYLES),
            highlight=False,
            markup=False,
            emoji=False,
            soft_wrap=True,
            force_terminal=self._has_colour,
            color_system="standard" if self._has_colour else None,
        )

    def line(self, text: str = "", style: Style = "", *, hang: int | None = 0) -> None:
        """One line, wrapped with `hang` columns before all but its first; with None a line that is to be copied."""
        self._print([(text, style)], hang)

    def title(self, text: str) -> None:
        """The head of what follows."""
        self.line(text, "title")

    def facts(self, facts: Mapping[str, str], *, indent: int = 0, width: int = 12) -> None:
        """A line for each fact, its name before it, and what goes on under where its text began."""
        for name, value in facts.items():
            label = f"{' ' * indent}{name:{width}} "
            self._print([(label, "label"), (value, "")], len(label))

    def list(self, title: str, entries: Sequence[str], style: Style) -> None:
        """A titled list."""
        self.line(title, style)
        for entry in entries:
            self._print([("  - ", style), (entry, "title" if style == "problem" else "")], 4)

    def finding(self, state: Style, word: str, name: str, message: str, remedy: str | None, *, width: int) -> None:
        """What one check found, with the way out below."""
        before = len(word.ljust(8)) + 1 + width + 1
        style: Style = "title" if state == "problem" else ""
        self._print([(f"{word:8} ", state), (f"{name:{width}} ", style), (message, style)], before)
        if remedy is not None:
            self._print([(" " * before + "→ ", "label"), (remedy, "label")], before + 2)

    def table(self, heads: Sequence[str], rows: Sequence[Sequence[str]], *, lead: int = 0) -> None:
        """Rows below their heads; where the terminal is too narrow, a block for each row, its `lead` cell first."""
        widths = [max(map(len, column)) for column in zip(heads, *rows, strict=True)]
        if self.width is None or sum(widths) + 2 * (len(widths) - 1) <= self.width:
            self._row(heads, widths, "title")
            for row in rows:
                self._row(row, widths, "")
            return
        for row in rows:
            self.line(row[lead], "title")
            rest = [
                f"{head.lower()} {cell}"
                for index, (head, cell) in enumerate(zip(heads, row, strict=True))
                if index != lead and cell != "-"
            ]
            self._print([("  ", ""), (", ".join(rest), "")], 2)

    def error(self, text: str) -> None:
        """What went wrong."""
        self._print([("Error: ", "problem"), (text, "title")], 0)

    def text(self, text: str, *, newline: bool = False) -> None:
        """A piece of somebody's text as it comes: without what the terminal would obey."""
        self.out.write((plain(text) if self.width else text) + ("\n" if newline else ""))
        self.out.flush()

    def _row(self, cells: Sequence[str], widths: Sequence[int], style: Style) -> None:
        self.line("  ".join(cell.ljust(width) for cell, width in zip(cells, widths, strict=True)).rstrip(), style)

    def _print(self, given: Iterable[tuple[str, Style]], hang: int | None) -> None:
        encoding = getattr(self.out, "encoding", None) or "utf-8"  # one that lacks a sign gets a question mark for it
        parts = [(text.encode(encoding, "replace").decode(encoding), style) for text, style in given]
        if self.width is None and not self._has_colour:
            self.out.write("".join(text for text, _ in parts).rstrip() + "\n")
            self.out.flush()
            return
        from rich.text import Text

        whole = Text.assemble(*((plain(text), style) for text, style in parts))
        lines = [whole] if hang is None or self.width is None else _wrapped(whole, self.width, hang)
        for line in lines:
            self.console.print(line, soft_wrap=True)


def _wrapped(whole: Text, width: int, hang: int) -> Iterable[Text]:
    """The text in lines that fit; a word that is longer than a line is cut."""
    from rich.text import Text

    for paragraph in whole.split("\n", allow_blank=True):
        rest, before = paragraph, Text()
        while rest.cell_len + before.cell_len > width:
            room = _characters(rest.plain, width - before.cell_len)
            cut = rest.plain.rfind(" ", 0 if before else hang, room + 1)
            if cut > 0 and _UNIT.match(rest.plain, cut) and rest.plain[cut - 1].isdigit():
                cut = rest.plain.rfind(" ", 0, cut)
            if cut <= 0 or not rest.plain[:cut].strip():
                cut = _break_in(rest.plain, room)
            head, rest = rest.divide([cut])
            head.rstrip()
            yield before + head
            rest = rest[len(rest.plain) - len(rest.plain.lstrip(" ")) :]
            before = Text(" " * min(hang, width // 2))
        rest.rstrip()
        yield before + rest


def _break_in(word: str, room: int) -> int:
    """Where a word that is longer than a line is cut: behind a sign in its second half, else where the line ends."""
    return next((at for at in range(room, room // 2, -1) if word[at - 1] in "/:-,=&"), room)


def _characters(text: str, cells: int) -> int:
    """How many characters of the text fit into so many cells, one at least: some take two."""
    from rich.cells import get_character_cell_size

    for index, each in enumerate(text):
        cells -= get_character_cell_size(each)
        if cells < 0:
            return max(index, 1)
    return len(text)


class Waiting:
    """A step that goes on: a spinner with its seconds on a terminal, a line now and then elsewhere.

    What is shown beside the step, the last line of a build for instance, comes by `detail`; what stays, by `say`.
    """

    def __init__(self, what: str, *, out: TextIO | None = None, every: float | None = None) -> None:
        """Wait for `what`, and say so on `out` each `every` seconds where no terminal shows it."""
        self._what = what
        self._screen = Screen(out)
        self._every = every if every is not None else news_seconds()
        self._began = self._shown_at = time.monotonic()
        self._detail = ""
        self._live: Any = None
        self._over = threading.Event()
        self._teller: threading.Thread | None = None
        self._lock = threading.RLock()  # a signal may come while it is held, and say something

    def __enter__(self) -> Waiting:
        """Begin to show it."""
        if is_terminal(self._screen.out):
            from rich.live import Live

            self._live = Live(self, console=self._screen.console, refresh_per_second=8, transient=True)
            self._live.start()
        else:
            self._teller = threading.Thread(target=self._tell, daemon=True)
            self._teller.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Take it away."""
        self._over.set()
        if self._live is not None:
            self._live.stop()
        if self._teller is not None:
            self._teller.join(5)

    def detail(self, text: str) -> None:
        """What it is at."""
        if text.strip():
            self._detail = plain(text).strip()

    def say(self, text: str, style: Style = "", *, hang: int | None = 0) -> None:
        """A line that stays, above what is shown."""
        with self._lock:
            self._shown_at = time.monotonic()
            self._screen.line(text, style, hang=hang)

    @property
    def seconds(self) -> float:
        """Since it began."""
        return time.monotonic() - self._began

    def __rich__(self) -> Text:
        """What is shown in place: one line."""
        from rich.text import Text

        mark = "⠋⠙⠹⠸⠼⠴⠦⠧⠇⠏"[int(time.monotonic() * 8) % 10]
        if (self._screen.out.encoding or "").lower().replace("-", "") != "utf8":
            mark = "|/-\\"[int(time.monotonic() * 8) % 4]
        shown = Text.assemble((f"{mark} ", "label"), self._what, (f" {_clock(self.seconds)} ", "label"))
        shown.append(self._detail, "quiet")
        shown.truncate((self._screen.width or 80) - 1, overflow="ellipsis")
        shown.no_wrap = True
        return shown

    def _tell(self) -> None:
        while not self._over.wait(min(1.0, self._every / 4)):
            with self._lock:
                if time.monotonic() - self._shown_at >= self._every:
                    self._shown_at = time.monotonic()
                    last = f": {self._detail}" if self._detail else ""
                    self._screen.line(f"          {self._what}: {_clock(self.seconds)} so far{last}"[:200])


class Passing:
    """A line that the next one replaces on a terminal; elsewhere a line now and then."""

    def __init__(self, out: TextIO, *, at_once: bool = False) -> None:
        """Show it on `out`; with `at_once` the first line is news elsewhere, too."""
        self._screen = Screen(out)
        self._in_place = is_terminal(out)
        self._every = news_seconds()
        self._shown_at = -float("inf") if at_once else time.monotonic()
        self._shown = False

    def show(self, text: str) -> None:
        """Show a line in the place of the last one."""
        out = self._screen.out
        if self._in_place:
            line = plain(text)
            out.write(f"\r\x1b[2K{line[: _characters(line, (self._screen.width or 80) - 1)]}")
            out.flush()
            self._shown = True
        elif time.monotonic() - self._shown_at >= self._every:
            self._shown_at = time.monotonic()
            self._screen.line(text)

    def clear(self) -> None:
        """Take the line away."""
        if self._shown:
            self._screen.out.write("\r\x1b[2K")
            self._screen.out.flush()
            self._shown = False


def news_seconds() -> float:
    """How often a pipe hears of a step that goes on."""
    return float(os.environ.get("EXTENDED_DLC_NEWS_SECONDS") or NEWS_SECONDS)


def _clock(seconds: float) -> str:
    whole = int(seconds)
    return f"{whole} s" if whole < 100 else f"{whole // 60} min {whole % 60:02} s"
