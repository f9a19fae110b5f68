"""The refusals and notes of decisions, each with its place in the settings."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Literal, TypeVar

from extended_dlc.options._values import OptionError

T = TypeVar("T")


@dataclass(frozen=True, kw_only=True)
class Refusal:
    """An option with an invalid value."""

    section: str
    """Its section in the settings: `endpoints.bloom.hosting`."""

    option: str
    """Its name in the library, such as `instance_type`."""

    value: str | None
    rule: str
    """What is wrong and what to do, as the end of a sentence about option and value."""

    setting: str | None = None
    """Its name in the settings if that differs: `weights.token_secret`; empty for the section itself."""

    who: str = ""
    """The variant or component, in words."""

    whole: bool = False
    """Whether the rule is a whole sentence, to be shown without option and value."""

    @property
    def path(self) -> str:
        """Its path in the settings: `endpoints.bloom.hosting.instance_type`."""
        return ".".join(filter(None, (self.section, self.option if self.setting is None else self.setting)))

    @property
    def line(self) -> str:
        """The line in the report of the settings: `endpoints.bloom.hosting.instance_type (ml.m5.large): …`."""
        return f"{self.path}: {self.rule}" if self.value is None else f"{self.path} ({self.value}): {self.rule}"

    @property
    def sentence(self) -> str:
        """The message of a construct's error: `'instance_type' (ml.m5.large) …`."""
        who = f"{self.who}: " if self.who else ""
        if self.whole:
            return f"{who}{self.rule}"
        if self.value is None:
            colon = ":" if self.rule.startswith("'") else ""
            return f"{who}'{self.option}'{colon} {self.rule}"
        return f"{who}'{self.option}' ({self.value}) {self.rule}"


@dataclass(frozen=True, kw_only=True)
class Note:
    """A warning or information for the user that does not stop the deployment."""

    section: str
    kind: str
    """The last part of the annotation's id, `extended-dlc:<kind>`, by which it can be acknowledged."""

    text: str
    level: Literal["warning", "info"] = "warning"
    setting: str | None = None
    """The setting that it is about, if any."""

    @property
    def line(self) -> str:
        return f"{'.'.join(filter(None, (self.section, self.setting)))}: {self.text}"


@dataclass
class Found:
    """Collects refusals and notes."""

    refusals: list[Refusal] = field(default_factory=list)
    notes: list[Note] = field(default_factory=list)

    def at(self, section: str, who: str = "") -> Finder:
        """A collector for one place of the settings."""
        return Finder(self, section, who)


@dataclass(frozen=True)
class Finder:
    """Collects refusals and notes for one place of the settings."""

    found: Found
    section: str
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
        """The result of a decision; None, and an added refusal, where it raises ValueError."""
        try:
            return decision()
        except OptionError as error:
            # An OptionError names the exact option.
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
        """Whether a check passes; adds a refusal if it does not."""

        def passes() -> bool:
            check()
            return True

        return self.ask(option, value, passes, setting=setting, whole=whole) is not None

    def refuse(
        self, option: str, value: str | None, rule: str, *, setting: str | None = None, whole: bool = False
    ) -> None:
        refusal = Refusal(
            section=self.section, option=option, value=value, rule=rule, setting=setting, who=self.who, whole=whole
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
        """Add a note, unless the text is None."""
        if text is not None:
            note = Note(section=self.section, kind=kind, text=text, level=level, setting=setting)
            if note not in self.found.notes:
                self.found.notes.append(note)

    def number(self, kind: str, texts: Iterable[str] | None, *, setting: str | None = None) -> None:
        """Add several notes, each with a number in its kind."""
        for number, text in enumerate(texts or ()):
            self.note(f"{kind}-{number}", text, setting=setting)
