"""What decisions come to besides their result: refusals and notes, each with its place."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Literal, TypeVar

from extended_dlc.options._values import OptionError

T = TypeVar("T")


@dataclass(frozen=True, kw_only=True)
class Refusal:
    """An option that cannot be taken."""

    place: str
    """The section of the settings that it stands in: `endpoints.bloom.hosting`."""

    option: str
    """Its name in the library, as `instance_type`."""

    value: str | None
    rule: str
    """What is wrong and what to do, as the end of a sentence about option and value."""

    setting: str | None = None
    """Its name in the settings, where that is another: `weights.token_secret`; empty for the section itself."""

    who: str = ""
    """The variant or component that it is about, in words."""

    whole: bool = False
    """Whether the rule is a sentence without option and value in front."""

    @property
    def path(self) -> str:
        """Where it stands in the settings: `endpoints.bloom.hosting.instance_type`."""
        return ".".join(filter(None, (self.place, self.option if self.setting is None else self.setting)))

    @property
    def line(self) -> str:
        """For the report of the settings: `endpoints.bloom.hosting.instance_type (ml.m5.large): …`."""
        return f"{self.path}: {self.rule}" if self.value is None else f"{self.path} ({self.value}): {self.rule}"

    @property
    def sentence(self) -> str:
        """For an error of a construct: `'instance_type' (ml.m5.large) …`."""
        who = f"{self.who}: " if self.who else ""
        if self.whole:
            return f"{who}{self.rule}"
        if self.value is None:
            colon = ":" if self.rule.startswith("'") else ""
            return f"{who}'{self.option}'{colon} {self.rule}"
        return f"{who}'{self.option}' ({self.value}) {self.rule}"


@dataclass(frozen=True, kw_only=True)
class Note:
    """Something that the user should know and that stops nothing."""

    place: str
    kind: str
    """The last part of the annotation's id, `extended-dlc:<kind>`, by which it can be acknowledged."""

    text: str
    level: Literal["warning", "info"] = "warning"
    setting: str | None = None
    """The setting that it is about, where there is one."""

    @property
    def line(self) -> str:
        return f"{'.'.join(filter(None, (self.place, self.setting)))}: {self.text}"


@dataclass
class Found:
    """Collects them."""

    refusals: list[Refusal] = field(default_factory=list)
    notes: list[Note] = field(default_factory=list)

    def at(self, place: str, who: str = "") -> Finder:
        """What is found at a place of the settings."""
        return Finder(self, place, who)


@dataclass(frozen=True)
class Finder:
    """Collects what is found at one place."""

    found: Found
    place: str
    who: str = ""

    def ask(
        self,
        option: str,
        value: object,
        decision: Callable[[], T],
        *,
        setting: str | None = None,
        whole: bool = False,
    ) -> T | None:
        """What a decision comes to; where it refuses, None, and a refusal more."""
        try:
            return decision()
        except OptionError as error:
            # the decision knows the option better
            self.refuse(error.option, error.value, error.rule, setting=setting, whole=whole)
        except ValueError as error:
            self.refuse(option, None if value is None else str(value), str(error), setting=setting, whole=whole)
        return None

    def check(
        self,
        option: str,
        value: object,
        check: Callable[[], None],
        *,
        setting: str | None = None,
        whole: bool = False,
    ) -> bool:
        """Whether a check passes; where it does not, a refusal more."""

        def passes() -> bool:
            check()
            return True

        return self.ask(option, value, passes, setting=setting, whole=whole) is not None

    def refuse(
        self, option: str, value: str | None, rule: str, *, setting: str | None = None, whole: bool = False
    ) -> None:
        refusal = Refusal(
            place=self.place, option=option, value=value, rule=rule, setting=setting, who=self.who, whole=whole
        )
        if refusal not in self.found.refusals:
            self.found.refusals.append(refusal)

    def note(
        self,
        kind: str,
        text: str | None,
        *,
        level: Literal["warning", "info"] = "warning",
        setting: str | None = None,
    ) -> None:
        """A note more, where there is one."""
        if text is not None:
            note = Note(place=self.place, kind=kind, text=text, level=level, setting=setting)
            if note not in self.found.notes:
                self.found.notes.append(note)

    def number(self, kind: str, texts: Iterable[str] | None, *, setting: str | None = None) -> None:
        """Notes that can be several: each gets a number in its kind."""
        for number, text in enumerate(texts or ()):
            self.note(f"{kind}-{number}", text, setting=setting)
