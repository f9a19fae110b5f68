"""The app's settings: read from `cdk.json`, a file or `-c` values, typed, or one report of everything that is wrong."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

import yaml
from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError
from pydantic_core import ErrorDetails

from extended_dlc.facts._tables import did_you_mean
from extended_dlc.facts.catalog import default_base, read_tag
from extended_dlc.facts.checks import (
    check_endpoint_name,
    check_environment,
    check_model_id,
    check_release,
    check_server,
    model_id,
)
from extended_dlc.facts.instances import check_image_runs_on, find_instance

CONTEXT_KEY = "extended-dlc"
OVERRIDES = ("model", "transformers", "instance_type", "region")


class SettingsError(Exception):
    """Everything that is wrong with the settings, one problem a line."""


def _checked(check: Any) -> AfterValidator:
    def run(value: Any) -> Any:
        check(value)
        return value

    return AfterValidator(run)


def _check_environment(environment: dict[str, str]) -> None:
    check_environment(
        environment,
        reserved={"HF_MODEL_ID": "'model'", "HF_MODEL_REVISION": "'revision'", "HF_TASK": "'task'"},
    )


def _check_file(path: str) -> None:
    if not Path(path).is_file():
        raise ValueError("is not a file: correct the path, or leave the option out")


ModelId = Annotated[str, AfterValidator(model_id), _checked(check_model_id)]
Environment = Annotated[dict[str, str], _checked(_check_environment)]
File = Annotated[str, _checked(_check_file)]


class _Section(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)


class BuildSettings(_Section):
    """How the image is built; nothing here changes the image."""

    engine: Literal["docker", "podman"] = "docker"
    """The container engine that `CDK_DOCKER` names. Default: Docker."""

    pip_config: File | None = None
    """A pip configuration file for the build, where packages come from an index of one's own. Default: none."""

    ca_bundle: File | None = None
    """A file of certificates that pip trusts in the build. Default: the base image's own."""


class ImageSettings(_Section):
    """The one image that all endpoints share."""

    transformers: Annotated[str, _checked(check_release)]
    """The exact transformers release to install, as `5.23.0`; 4.46.0 or newer."""

    base: str | None = None
    """Reference of the image to extend. Default: the newest Hugging Face PyTorch inference DLC that fits."""

    base_region: str | None = None
    """Region of the registry that the default base is pulled from. Default: the region that is deployed to."""

    rebuild: str | None = None
    """Any text; a new one builds the image again, to pick up a base that was patched in place. Default: none."""

    server: Literal["native"] = "native"
    """The server in the image. Default: this project's own."""

    build: BuildSettings = BuildSettings()
    """How the image is built. Default: by Docker, with its ordinary configuration."""


class RealTimeSettings(_Section):
    """Instances that run all the time."""

    kind: Literal["real-time"] = "real-time"
    instance_type: Annotated[str, _checked(find_instance)] = "ml.m5.xlarge"
    """SageMaker's name of the instance type. Default: `ml.m5.xlarge`."""

    instances: Annotated[int, Field(ge=1)] = 1
    """How many instances. Default: 1."""

    startup_timeout_seconds: Annotated[int, Field(ge=60, le=3600)] = 900
    """How long a container may take to its first healthy answer, 60 to 3600 s. Default: 900."""


class EndpointSettings(_Section):
    """One endpoint."""

    model: ModelId
    """Hub id of the model; `bloom` and `whisper` stand for bigscience/bloom-560m and openai/whisper-base."""

    revision: str | None = None
    """Commit, tag or branch. Default: what `main` points at when a container starts, which is annotated."""

    task: str | None = None
    """Name of the transformers pipeline. Default: inferred from the model's own configuration."""

    environment: Environment = {}
    """More environment variables for the container. Default: none."""

    hosting: RealTimeSettings = RealTimeSettings()
    """How it is hosted. Default: one `ml.m5.xlarge`."""


class Settings(_Section):
    """Everything that the app deploys."""

    name: Annotated[str, _checked(check_endpoint_name)] = "extended-dlc"
    """Name of the stack and first part of each endpoint's name, to deploy several copies. Default: `extended-dlc`."""

    region: str
    """Region to deploy to."""

    image: ImageSettings
    """The image that all endpoints share."""

    endpoints: Annotated[dict[str, EndpointSettings], Field(min_length=1)]
    """The endpoints by their ids; an endpoint's name is `<name>-<id>`."""

    @property
    def accelerator(self) -> Literal["cpu", "gpu"]:
        """What the instances of all endpoints compute with."""
        first = next(iter(self.endpoints.values()))
        return "gpu" if find_instance(first.hosting.instance_type).accelerator == "gpu" else "cpu"


def read_settings(context: Mapping[str, Any]) -> Settings:
    """The settings in the app's context; `SettingsError` with all their problems.

    `context["extended-dlc"]` holds them, or `context["settings"]` names a JSON or YAML file that does;
    `context["model"]`, `["transformers"]`, `["instance_type"]` and `["region"]` override single values.
    """
    if file := context.get("settings"):
        origin, raw = str(file), _read_file(Path(file))
    else:
        origin, raw = f"context.{CONTEXT_KEY} of cdk.json", context.get(CONTEXT_KEY)
    overrides = {key: context[key] for key in OVERRIDES if context.get(key) is not None}
    if not isinstance(raw, Mapping):
        raise SettingsError(f"{origin} holds no settings: write an object with 'region', 'image' and 'endpoints'")
    problems: list[str] = []
    merged = _with_overrides(raw, overrides, problems)
    settings: Settings | None = None
    try:
        settings = Settings.model_validate(merged)
    except ValidationError as error:
        problems += [_explain(detail, merged) for detail in error.errors()]
    problems += _contradictions(merged)
    if problems or settings is None:
        given = "".join(f" with -c {key}={value}" for key, value in overrides.items())
        raise SettingsError("\n".join([f"{origin}{given} is not valid:", *(f"  {problem}" for problem in problems)]))
    return settings


def _read_file(path: Path) -> Any:
    try:
        text = path.read_text()
    except OSError as error:
        raise SettingsError(f"settings file {path} cannot be read: {error.strerror}; correct -c settings=") from None
    try:
        return json.loads(text) if path.suffix == ".json" else yaml.safe_load(text)
    except (json.JSONDecodeError, yaml.YAMLError) as error:
        raise SettingsError(f"settings file {path} is not valid: {error}; write JSON (.json) or YAML") from None


def _with_overrides(raw: Mapping[str, Any], overrides: Mapping[str, str], problems: list[str]) -> dict[str, Any]:
    """A copy of the raw settings with the `-c` values in their places."""
    merged: dict[str, Any] = json.loads(json.dumps(raw, default=str))
    endpoints = merged.get("endpoints")
    endpoints = endpoints if isinstance(endpoints, dict) else {}
    if "region" in overrides:
        merged["region"] = overrides["region"]
    if "transformers" in overrides and isinstance(merged.setdefault("image", {}), dict):
        merged["image"]["transformers"] = overrides["transformers"]
    if "instance_type" in overrides:
        for endpoint in endpoints.values():
            if isinstance(endpoint, dict) and isinstance(endpoint.setdefault("hosting", {}), dict):
                endpoint["hosting"]["instance_type"] = overrides["instance_type"]
    if "model" in overrides:
        if len(endpoints) == 1 and isinstance(endpoint := next(iter(endpoints.values())), dict):
            # a revision and a task belong to the model that was named with them
            endpoint.update(model=overrides["model"], revision=None, task=None)
        else:
            problems.append(
                f"-c model={overrides['model']}: goes to the one endpoint there is, and the settings have "
                f"{len(endpoints)}: change 'endpoints' instead"
            )
    return merged


def _explain(detail: ErrorDetails, raw: Any) -> str:
    """One of pydantic's errors in the words of the house."""
    place = [str(part) for part in detail["loc"]]
    path = ".".join(place)
    match detail["type"]:
        case "missing":
            return f"{path}: field required"
        case "extra_forbidden":
            return f"{path}: is not a setting{did_you_mean(place[-1], _siblings(place[:-1]))}"
        case "value_error":
            error = detail["ctx"]["error"]
            value = "" if isinstance(detail["input"], dict) else f" ({detail['input']})"
            return f"{path}{value}: {error}"
        case _:
            message = detail["msg"][0].lower() + detail["msg"][1:]
            return f"{path}: {message}, got {json.dumps(detail['input'], default=str)}"


def _siblings(place: list[str]) -> list[str]:
    """The settings that exist at a place."""
    section: Any = Settings
    for part in place:
        if part in section.model_fields:
            annotation = section.model_fields[part].annotation
            section = (
                annotation if isinstance(annotation, type) and issubclass(annotation, _Section) else EndpointSettings
            )
    return sorted(section.model_fields)


def _contradictions(raw: Mapping[str, Any]) -> Iterator[str]:
    """What is wrong between settings that are each valid; a section that is not valid is passed over."""
    image = _section(ImageSettings, raw.get("image"))
    given = raw.get("endpoints")
    endpoints = {
        key: endpoint
        for key, value in (given.items() if isinstance(given, Mapping) else ())
        if (endpoint := _section(EndpointSettings, value))
    }
    name = raw.get("name", "extended-dlc")
    for key in given if isinstance(given, Mapping) else ():
        try:
            check_endpoint_name(f"{name}-{key}")
        except ValueError as error:
            yield f"endpoints.{key}: its endpoint would be called '{name}-{key}', which {error}"
    if image is None:
        return
    try:
        check_server(image.transformers, image.base)
    except ValueError as error:
        yield f"image.transformers ({image.transformers}): {error}"
    tag = read_tag(image.base) if image.base else None
    accelerator: str | None = tag.accelerator if tag else None
    source = f"image.base is built for {accelerator}"
    for key, endpoint in endpoints.items():
        instance = find_instance(endpoint.hosting.instance_type)
        try:
            check_image_runs_on(instance, accelerator)
        except ValueError as error:
            because = f" ({source})" if accelerator not in (None, instance.accelerator) else ""
            yield f"endpoints.{key}.hosting.instance_type ({instance.name}): {error}{because}"
            continue
        if accelerator is None:
            accelerator, source = instance.accelerator, f"the image is made for endpoints.{key}, {instance.name}"
    region = image.base_region or raw.get("region")
    if image.base is None and accelerator is not None and isinstance(region, str):
        try:
            default_base(accelerator, region)
        except ValueError as error:
            yield f"{'image.base_region' if image.base_region else 'region'} ({region}): {error}"


def _section(kind: type[Any], raw: Any) -> Any:
    try:
        return kind.model_validate(raw)
    except ValidationError:
        return None
