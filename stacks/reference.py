"""Writes docs/settings.md from the types in `stacks.settings`: `python -m stacks.reference`."""

from __future__ import annotations

import json
import types
import typing
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from pydantic import BaseModel
from pydantic.fields import FieldInfo
from pydantic_core import PydanticUndefined

from stacks.hosting import (
    AllAtOnceSettings,
    AsyncSettings,
    BacklogScalingSettings,
    CanarySettings,
    ComponentSettings,
    ComponentsSettings,
    ConcurrencyScalingSettings,
    CopyScalingSettings,
    DataCaptureSettings,
    InvocationScalingSettings,
    LinearSettings,
    NetworkSettings,
    ProvisionedScalingSettings,
    RealTimeSettings,
    RollingSettings,
    ScheduledCapacitySettings,
    ServerlessSettings,
    VariantSettings,
)
from stacks.models import HubWeightsSettings, LocalWeightsSettings, MirroredWeightsSettings, S3WeightsSettings
from stacks.operating import ByHandSettings, MonitoringSettings, OfficeHoursSettings, VerifySettings
from stacks.settings import (
    BuildSettings,
    EcrImageSettings,
    EndpointSettings,
    ExtendedImageSettings,
    Settings,
    StockImageSettings,
    VllmSettings,
)

FILE = Path(__file__).parents[1] / "docs" / "settings.md"

_SECTIONS: list[tuple[str, type[BaseModel]]] = [
    ("The whole", Settings),
    ("`image`, kind `extended`", ExtendedImageSettings),
    ("`image.build`", BuildSettings),
    ("`image`, kind `stock`", StockImageSettings),
    ("`image`, kind `ecr`", EcrImageSettings),
    ("`endpoints.<id>`", EndpointSettings),
    ("`endpoints.<id>.vllm`", VllmSettings),
    ("`endpoints.<id>.weights`, kind `hub`", HubWeightsSettings),
    ("`endpoints.<id>.weights`, kind `mirrored`", MirroredWeightsSettings),
    ("`endpoints.<id>.weights`, kind `s3`", S3WeightsSettings),
    ("`endpoints.<id>.weights`, kind `local`", LocalWeightsSettings),
    ("`endpoints.<id>.hosting`, kind `real-time`", RealTimeSettings),
    ("`endpoints.<id>.hosting.variants` and `.shadow`", VariantSettings),
    ("`endpoints.<id>.hosting`, kind `async`", AsyncSettings),
    ("`endpoints.<id>.hosting`, kind `serverless`", ServerlessSettings),
    ("`endpoints.<id>.hosting`, kind `components`", ComponentsSettings),
    ("`endpoints.<id>.hosting.components.<id>`", ComponentSettings),
    ("`scaling` of kind `real-time`, kind `invocations`", InvocationScalingSettings),
    ("`scaling` of kind `real-time`, kind `concurrency`", ConcurrencyScalingSettings),
    ("`scaling` of kind `async`", BacklogScalingSettings),
    ("`scaling` of kind `serverless`", ProvisionedScalingSettings),
    ("`scaling` of components", CopyScalingSettings),
    ("`scaling.schedules`", ScheduledCapacitySettings),
    ("`endpoints.<id>.rollout`, kind `all-at-once`", AllAtOnceSettings),
    ("`endpoints.<id>.rollout`, kind `canary`", CanarySettings),
    ("`endpoints.<id>.rollout`, kind `linear`", LinearSettings),
    ("`endpoints.<id>.rollout`, kind `rolling`", RollingSettings),
    ("`endpoints.<id>.network`", NetworkSettings),
    ("`endpoints.<id>.data_capture`", DataCaptureSettings),
    ("`endpoints.<id>.monitoring`", MonitoringSettings),
    ("`endpoints.<id>.verify`", VerifySettings),
    ("`schedule`, kind `office-hours`", OfficeHoursSettings),
    ("`schedule`, kind `by-hand`", ByHandSettings),
]

_HEAD = """# Settings of the app

Generated from `stacks/` by `make docs`; change it there.

The settings stand in `cdk.json` under `context.extended-dlc`. `-c settings=FILE` reads them from a JSON or YAML file
instead. Four values can be overridden on the command line:

| | |
|---|---|
| `-c model=…` | the model of the one endpoint there is; its revision, type and task are forgotten |
| `-c transformers=…` | the release in the image |
| `-c instance_type=…` | the instance type of all endpoints |
| `-c region=…` | the region |

Each of these, and `settings`, can also be given as an environment variable, `EXTENDED_DLC_SETTINGS`,
`EXTENDED_DLC_REGION` and so on. `extended-dlc login` sees the variables and not the `-c` values, because the CDK CLI
runs it before it hands those over.
"""


def reference() -> str:
    """The whole document."""
    return "\n".join([_HEAD, *(line for title, section in _SECTIONS for line in _section(title, section))])


def _section(title: str, section: type[BaseModel]) -> Iterator[str]:
    yield f"## {title}\n"
    yield f"{_one_line(section.__doc__)}\n"
    yield "| setting | values | what it is |"
    yield "|---|---|---|"
    for name, field in section.model_fields.items():
        required = " (required)" if field.is_required() else ""
        yield f"| `{name}`{required} | {_values(field)} | {_description(field)} |"
    yield ""


def _values(field: FieldInfo) -> str:
    """The values that a setting takes."""
    annotation: Any = field.annotation
    options = [_kind(option) for option in _options(annotation)]
    limits = [f"{type(limit).__name__} {value}" for limit in field.metadata for value in _bounds(limit)]
    words = {"Ge": "at least", "Le": "at most"}
    limits = [f"{words[limit.split()[0]]} {limit.split()[1]}" for limit in limits]
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
    if isinstance(option, type) and issubclass(option, BaseModel):
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
    if isinstance(of, type) and issubclass(of, BaseModel):
        return "list of sections"
    return "list of texts" if of is str else f"list of {_kind(of)}"


def _bounds(limit: Any) -> list[int]:
    return [value for name in ("ge", "le") if (value := getattr(limit, name, None)) is not None]


def _description(field: FieldInfo) -> str:
    text = _one_line(field.description) or "Which kind it is."
    default = field.default
    if default in (PydanticUndefined, None) or "Default" in text or isinstance(default, BaseModel):
        return text
    return f"{text} Default: `{json.dumps(default)}`."


def _one_line(text: str | None) -> str:
    return " ".join((text or "").split()).replace("|", "\\|")


if __name__ == "__main__":
    FILE.write_text(reference())
