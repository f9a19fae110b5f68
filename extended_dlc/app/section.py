"""Sections of the settings, which are converted into the library's options."""

from __future__ import annotations

import types
import typing
from collections.abc import Callable, Mapping, Sequence
from typing import Annotated, Any, ClassVar, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Discriminator, Field, Tag, create_model, model_validator

from extended_dlc.app.described import Described, described, summary

Find = Callable[["Section", str], Mapping[str, Any]]
"""Looks up what a section's settings name, in AWS or on the Hub: the values of options, by their names. It gets the
section and its path below the endpoint, such as `hosting.variants.0`."""


def nothing(section: Section, path: str) -> Mapping[str, Any]:
    """Look up nothing, where the options are only checked."""
    return {}


class Section(BaseModel):
    """A part of the settings: it accepts no unknown keys and no value of another type."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, defer_build=True)

    module: ClassVar[str] = ""
    """The library's module that describes it, such as `options.hosting`."""

    made: ClassVar[str] = ""
    """The library's class that it is converted into; empty for a section of the app's own."""

    found: ClassVar[frozenset[str]] = frozenset()
    """The settings that are no options: what they name is looked up, and given to an option."""

    unnamed: ClassVar[Mapping[str, str]] = {}
    """What an option needs to be checked, and only gets from its place in the settings: a name."""

    renamed: ClassVar[Mapping[str, str]] = {}
    """Setting -> option, where their names differ."""

    def into_option(self, find: Find = nothing, path: str = "", **given: Any) -> Any:
        """The library's object, with what is looked up; ValueError for what it refuses."""
        import extended_dlc

        given |= find(self, path)
        options = {
            self.renamed.get(name, name): _built(getattr(self, name), find, f"{path}.{name}".lstrip("."))
            for name in self.model_fields_set - self.found - {"kind", *given}
        }
        return getattr(extended_dlc, self.made)(**options, **given)

    @model_validator(mode="after")
    def _is_accepted(self) -> Section:
        """Let the library check the options."""
        if self.module.startswith("options."):
            self.into_option(nothing, "", **self.unnamed)
        return self


def _built(value: Any, find: Find, path: str) -> Any:
    if isinstance(value, list):
        return [_built(each, find, f"{path}.{number}") for number, each in enumerate(value)]
    if isinstance(value, _ById):
        # what they are called, `find` knows
        return [each.into_option(find, f"{path}.{key}", name=key) for key, each in value.items()]
    return value.into_option(find, path) if isinstance(value, Section) else value


class _ById(dict[str, Section]):
    """Sections by their ids, which are a list to the library."""


def by_id(section: type[Section], check: Callable[[Any], object]) -> Any:
    """The type of a setting that holds sections by their ids, which must pass a check."""
    return Annotated[dict[Annotated[str, checked(check)], section], AfterValidator(_ById)]  # type: ignore[valid-type]


def checked(check: Callable[[Any], object]) -> AfterValidator:
    """A value that must pass a check of the facts."""

    def run(value: Any) -> Any:
        check(value)
        return value

    return AfterValidator(run)


def kind_of(default: str) -> Callable[[Any], str]:
    """The default `kind` of a section."""

    def kind(raw: Any) -> str:
        return str(raw.get("kind", default) if isinstance(raw, Mapping) else getattr(raw, "kind", default))

    return kind


def one_of(sections: Mapping[str, type[Section]], kind: Callable[[Any], str]) -> Any:
    """One of several sections, by its kind; the error for an unknown kind lists them."""
    names = ", ".join(f"'{each}'" for each in sections)
    decides = Discriminator(kind, custom_error_type="kind", custom_error_message=f"kind must be one of {names}")
    union: Any = typing.Union[tuple(Annotated[section, Tag(name)] for name, section in sections.items())]  # noqa: UP007
    return Annotated[union, decides]


class _Unknown:
    """A type of the CDK, or of the library's constructs: no setting has it."""


class _Modules:
    """Stands for the CDK's modules in an annotation: `s3.IBucket`."""

    def __getattr__(self, name: str) -> type[_Unknown]:
        return _Unknown


_NAMES: dict[str, Any] = {
    "Any": Any,
    "Literal": Literal,
    "Mapping": Mapping,
    "Sequence": Sequence,
    **dict.fromkeys(("cloudwatch", "ec2", "ecr", "iam", "kms", "logs", "s3", "secretsmanager", "sns"), _Modules()),
    **dict.fromkeys(("ServedModel", "ServingImage", "Schedule", "RemovalPolicy", "InferenceCode"), _Unknown),
}


class Sections:
    """Makes sections of the library's classes, one of each."""

    def __init__(self, names: Mapping[str, Any], kinds: Mapping[str, Mapping[str, str]], defaults: Mapping[str, str]):
        """Know what annotations mean.

        :param names: What else stands in annotations: the library's own aliases.
        :param kinds: Alias of several classes -> their kinds -> their classes.
        :param defaults: Alias, or setting -> the kind of a section that says none.
        """
        self._names = {**_NAMES, **names}
        self._kinds, self._defaults = kinds, defaults
        self.made: dict[str, type[Section]] = {}
        self.by_kind: dict[str, Mapping[str, type[Section]]] = {}
        """Alias -> kind -> section."""

    def make(
        self,
        module: str,
        name: str,
        *,
        kind: str | None = None,
        without: Sequence[str] = (),
        instead: Mapping[str, tuple[Any, Any]] | None = None,
        renamed: Mapping[str, str] | None = None,
        found: Sequence[str] = (),
        base: type[Section] = Section,
    ) -> type[Section]:
        """The section of a class.

        :param kind: What it is called where there are several. Default: there is one.
        :param without: Options that are no settings.
        :param instead: Settings in place of options, or besides them: type and field.
        :param renamed: Option -> the setting's name.
        :param found: Which of `instead` are looked up.
        """
        renamed, instead = renamed or {}, instead or {}
        fields: dict[str, Any] = {}
        if kind is not None:
            # only one of several kinds may leave it out: a schema without a kind would fit them all
            fields["kind"] = (Literal[kind], Field(default=kind) if self._is_default(name, kind) else Field())
        for option in described(module, name):
            if option.name in without or option.name in instead:
                continue
            fields[renamed.get(option.name, option.name)] = (self._type(option), _field(option))
        fields |= instead
        made = create_model(
            f"{name}Settings", __base__=base, __doc__=summary(module, name), __module__=__name__, **fields
        )
        made.module, made.made = module, name
        made.found = base.found | frozenset(found)
        made.renamed = {setting: option for option, setting in renamed.items()}
        self.made[name] = made
        return made

    def _is_default(self, name: str, kind: str) -> bool:
        """Whether a class is what a section without a kind describes."""
        aliases = [alias for alias, classes in self._kinds.items() if name in classes.values()]
        return kind in (map(self._defaults.get, aliases) if aliases else self._defaults.values())

    def _type(self, option: Described) -> Any:
        """The type of a setting: that of the option, without the CDK's types."""
        annotation = eval(option.annotation, {"__builtins__": {}}, _Names(self, self._names))  # noqa: S307 - our own source
        found = self._setting(annotation)
        if found is None:
            raise TypeError(
                f"'{option.name}' ({option.annotation}) is no setting by itself: name it in instead= or without="
            )
        return found

    def _setting(self, annotation: Any) -> Any:
        origin, arguments = typing.get_origin(annotation), typing.get_args(annotation)
        if annotation is _Unknown:
            return None
        if origin in (typing.Union, types.UnionType):
            parts = [found for each in arguments if (found := self._setting(each)) is not None]
            if all(part is type(None) for part in parts):
                return None
            return typing.Union[tuple(parts)]  # noqa: UP007
        if origin is not None and isinstance(origin, type) and issubclass(origin, Mapping):
            return dict[str, self._setting(arguments[1])]  # type: ignore[misc]
        if origin is not None and isinstance(origin, type) and issubclass(origin, Sequence):
            return list[self._setting(arguments[0])]  # type: ignore[misc]
        return annotation

    def named(self, name: str) -> Any:
        """What a name of the library's in an annotation stands for: a section, or one of several."""
        if name in self._kinds:
            sections = {kind: self.made[each] for kind, each in self._kinds[name].items()}
            self.by_kind[name] = sections
            return one_of(sections, kind_of(self._defaults.get(name, "")))
        return self.made[name]


class _Names(dict[str, Any]):
    """The names in annotations: types, and the sections that are made already."""

    def __init__(self, sections: Sections, names: Mapping[str, Any]) -> None:
        super().__init__(names, str=str, int=int, float=float, bool=bool, bytes=bytes)
        self._sections = sections

    def __missing__(self, name: str) -> Any:
        try:
            return self._sections.named(name)
        except KeyError:
            raise NameError(f"'{name}' is neither a type nor a section that was made before") from None


def _field(option: Described) -> Any:
    text = option.text or None
    if option.required:
        return Field(description=text)
    default = option.default
    if isinstance(default, tuple):
        default = list(default)
    return Field(default=default, description=text)
