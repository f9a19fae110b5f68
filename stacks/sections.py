"""What the sections of the settings are made of."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, ClassVar

from pydantic import AfterValidator, BaseModel, ConfigDict, Discriminator, model_validator


class Section(BaseModel):
    """A part of the settings: nothing in it that is not a setting, and every value of its type."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, use_attribute_docstrings=True)


def checked(check: Any) -> AfterValidator:
    """A value that a check of the facts has to pass."""

    def run(value: Any) -> Any:
        check(value)
        return value

    return AfterValidator(run)


def kind_of(default: str) -> Callable[[Any], str]:
    """The `kind` of a section that may leave it out."""

    def kind(raw: Any) -> str:
        return str(raw.get("kind", default) if isinstance(raw, Mapping) else getattr(raw, "kind", default))

    return kind


def one_of(kinds: Mapping[str, type[BaseModel]], kind: Callable[[Any], str]) -> Discriminator:
    """What decides between sections of several kinds; the error for another kind names them."""
    names = ", ".join(f"'{each}'" for each in kinds)
    return Discriminator(kind, custom_error_type="kind", custom_error_message=f"kind must be one of {names}")


class Mirror(Section):
    """A section that says what one object of the library is told; the library checks it, and knows the defaults."""

    made: ClassVar[str]
    """The object's class, a public name of the library."""

    resources: ClassVar[frozenset[str]] = frozenset()
    """The settings that name something in AWS: the stack looks it up and hands it over."""

    simple: ClassVar[frozenset[str]] = frozenset()
    """The settings that need no other check than their type's, so that reading them loads no CDK."""

    def build(self, **given: Any) -> Any:
        """The object, with what the stack has looked up; ValueError for what it refuses."""
        import extended_dlc

        named = self.model_fields_set - self.resources - {"kind", *given}
        return getattr(extended_dlc, self.made)(**{name: _built(getattr(self, name)) for name in named}, **given)

    @model_validator(mode="after")
    def _is_accepted(self) -> Mirror:
        if self.model_fields_set - self.simple - {"kind"}:
            self.build()
        return self


def _built(value: Any) -> Any:
    if isinstance(value, list):
        return [_built(each) for each in value]
    return value.build() if isinstance(value, Mirror) else value
