"""The reference of the settings, for people and for editors: `python -m extended_dlc.app.reference`.

Writes docs/settings.md and the JSON Schema, both from the sections; `make docs` calls it.
"""

from __future__ import annotations

import json
import types
import typing
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from pydantic.fields import FieldInfo
from pydantic_core import PydanticUndefined

from extended_dlc.app.described import described
from extended_dlc.app.read import OVERRIDES, SETTINGS_VARIABLE
from extended_dlc.app.schema import (
    CHANNELS,
    IMAGES,
    SECTIONS,
    WEIGHTS,
    Component,
    Endpoint,
    ModelSection,
    Network,
    Proof,
    Settings,
    Training,
)
from extended_dlc.app.section import Section

FILE = Path(__file__).parents[2] / "docs" / "settings.md"
SCHEMA = Path(__file__).parent / "settings.schema.json"

_HEAD = """# Settings of the app

Generated from the library's options by `make docs`; change it there.

The settings stand in `cdk.json` under `context.extended-dlc`. `-c settings=FILE` reads them from a JSON or YAML file
instead. Name the JSON Schema at the head of the file, and an editor completes and checks it: `"$schema":
"…/extended_dlc/app/settings.schema.json"` in JSON, `# yaml-language-server: $schema=…` in YAML; `extended-dlc schema`
prints it. Single values can be overridden on the command line, or by an environment variable:

| | | |
|---|---|---|
{overrides}

`{settings}` names the file, as `-c settings=` does. `extended-dlc login` sees the variables and not the `-c` values,
because the CDK CLI runs it before it hands those over; so the base image comes from the registry of the region in the
settings, and `-c region=` moves the deployment alone. `extended-dlc plan` has the same overrides as options.
"""


def _describe() -> None:
    """Add the docstrings to the app's own settings, which only the reference needs."""
    sections: list[type[Section]] = [Settings, Network, ModelSection, *WEIGHTS.values(), *CHANNELS.values()]
    for section in sections:
        texts = {option.name: option.text for option in described("app.schema", section.__name__)}
        for each in (section, *_below(section)):
            for name, field in each.model_fields.items():
                field.description = field.description or texts.get(name) or None
    rebuilt: list[type[Section]] = [ModelSection, *_below(ModelSection), Settings]
    for section in rebuilt:
        section.model_rebuild(force=True)


def _below(section: type[Section]) -> Iterator[type[Section]]:
    for each in section.__subclasses__():
        yield each
        yield from _below(each)


def reference() -> str:
    """The whole document."""
    _describe()
    rows = [f"| `-c {each.key}=…` | `{each.variable}` | {each.what} |" for each in OVERRIDES.values()]
    head = _HEAD.format(overrides="\n".join(rows), settings=SETTINGS_VARIABLE)
    return "\n".join([head, *(line for title, section in sections() for line in _section(title, section))])


def schema() -> str:
    """The JSON Schema of a settings file."""
    _describe()
    found = Settings.model_json_schema(mode="validation")
    found["properties"]["$schema"] = {"type": "string", "description": "This schema."}
    found = {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "Settings of extended-dlc",
        **{key: value for key, value in found.items() if key not in ("title", "$schema")},
    }
    return json.dumps(found, indent=1, ensure_ascii=False) + "\n"


def sections() -> Iterator[tuple[str, type[Section]]]:
    """All sections, each with its title."""
    made, of = SECTIONS.made, SECTIONS.by_kind
    yield "The whole", Settings
    yield from ((f"`image`, kind `{kind}`", section) for kind, section in IMAGES.items())
    yield from ((f"`image.build`, kind `{kind}`", section) for kind, section in of["Build"].items())
    yield "`image.build.gate`", made["ScanGate"]
    yield "`image.build.gate.allow`", made["AllowedFinding"]
    yield "`endpoints.<id>`", Endpoint
    yield "`endpoints.<id>.vllm`", made["VllmServing"]
    yield from ((f"`endpoints.<id>.weights`, kind `{kind}`", section) for kind, section in WEIGHTS.items())
    yield from ((f"`endpoints.<id>.hosting`, kind `{kind}`", section) for kind, section in of["Hosting"].items())
    yield "`endpoints.<id>.hosting.variants` and `.shadow`", made["Variant"]
    yield "`endpoints.<id>.hosting.components.<id>`", Component
    yield "`endpoints.<id>.hosting.components.<id>.placement`", made["Placement"]
    yield "`endpoints.<id>.hosting.routing`", made["PrefixAware"]
    yield "`endpoints.<id>.hosting.consolidation`", made["Consolidation"]
    for kind, section in of["InstanceScaling"].items():
        yield f"`scaling` of kind `real-time`, kind `{kind}`", section
    yield "`scaling` of kind `async`", made["BacklogScaling"]
    yield "`scaling` of kind `serverless`", made["ProvisionedScaling"]
    for kind, section in of["CopiesScaling"].items():
        yield f"`scaling` of components, kind `{kind}`", section
    yield "`scaling.schedules`", made["ScheduledCapacity"]
    yield from ((f"`endpoints.<id>.rollout`, kind `{kind}`", section) for kind, section in of["Rollout"].items())
    yield "`endpoints.<id>.network`", Network
    yield "`endpoints.<id>.data_capture`", made["DataCapture"]
    yield "`endpoints.<id>.metrics`", made["Metrics"]
    yield "`endpoints.<id>.monitoring`", made["Monitoring"]
    yield "`endpoints.<id>.verify`", Proof
    yield from ((f"`schedule`, kind `{kind}`", section) for kind, section in of["Schedule"].items())
    yield "`functions`", made["Functions"]
    yield "`training.<id>`", Training
    yield "`training.<id>.code`", made["TrainingCode"]
    yield from ((f"`training.<id>.channels.<name>`, kind `{kind}`", section) for kind, section in CHANNELS.items())
    yield "`training.<id>.instances`", made["TrainingInstances"]
    yield "`training.<id>.gate`", made["EvaluationGate"]
    yield "`training.<id>.schedule`", made["TrainingSchedule"]


def _section(title: str, section: type[Section]) -> Iterator[str]:
    yield f"## {title}\n"
    yield f"{_one_line(section.__doc__)}\n"
    yield "| setting | values | what it is |"
    yield "|---|---|---|"
    for name, field in section.model_fields.items():
        required = " (required)" if field.is_required() else ""
        yield f"| `{name}`{required} | {_values(field)} | {_description(field)} |"
    yield ""


def _values(field: FieldInfo) -> str:
    """The values that a setting accepts."""
    options = [_kind(option) for option in _options(field.annotation)]
    limits = [f"{word} {value}" for limit in field.metadata for word, value in _bounds(limit)]
    return ", ".join([" or ".join(dict.fromkeys(options)), *limits])


def _options(annotation: Any) -> list[Any]:
    if typing.get_origin(annotation) is typing.Annotated:
        return _options(typing.get_args(annotation)[0])
    if typing.get_origin(annotation) in (typing.Union, types.UnionType):
        return [option for part in typing.get_args(annotation) for option in _options(part)]
    return [annotation]


def _kind(option: Any) -> str:
    if typing.get_origin(option) is typing.Literal:
        return " or ".join(f"`{value}`" for value in typing.get_args(option))
    if (origin := typing.get_origin(option)) in (dict, list):
        return "object" if origin is dict else _list(typing.get_args(option)[0])
    if isinstance(option, type) and issubclass(option, Section):
        return "section"
    return {
        Any: "any value",
        str: "text",
        bool: "`true` or `false`",
        int: "whole number",
        float: "number",
        type(None): "`null`",
    }[option]


def _list(of: Any) -> str:
    if isinstance(of, type) and issubclass(of, Section):
        return "list of sections"
    return "list of texts" if of is str else f"list of {_kind(of)}"


def _bounds(limit: Any) -> Iterator[tuple[str, int]]:
    for name, word in (("ge", "at least"), ("le", "at most")):
        if (value := getattr(limit, name, None)) is not None:
            yield word, value


def _description(field: FieldInfo) -> str:
    text = _one_line(field.description) or "Which kind it is."
    # An exception in Python is an error in the report here.
    text = text.replace("ValueError", "An error")
    default = field.default
    if default in (PydanticUndefined, None) or "Default" in text or isinstance(default, Section):
        return text
    return f"{text} Default: `{json.dumps(default)}`."


def _one_line(text: str | None) -> str:
    return " ".join((text or "").split()).replace("|", "\\|")


if __name__ == "__main__":
    FILE.write_text(reference())
    SCHEMA.write_text(schema())
