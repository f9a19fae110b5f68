"""The app's settings: read from `cdk.json`, a file or `-c` values, typed, or one report of everything that is wrong."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any, Literal, get_args, get_origin

from pydantic import BaseModel, Field, Tag, ValidationError
from pydantic_core import ErrorDetails

from extended_dlc.facts._tables import did_you_mean
from extended_dlc.facts.catalog import VLLM, read_tag, repository_of
from extended_dlc.facts.checks import check_endpoint_name, check_release
from extended_dlc.facts.combinations import check_serverless_data, check_zero_instances
from extended_dlc.facts.compat import Family, Server, check_model_type, check_pair, check_vllm, pick_base, pick_vllm
from extended_dlc.facts.hub import known_model_type
from extended_dlc.facts.instances import Instance, check_image_runs_on, find_instance
from extended_dlc.facts.models import know_model
from extended_dlc.facts.sizing import Load, check_fit
from extended_dlc.facts.stock import pick_stock
from extended_dlc.facts.tasks import check_task
from stacks.hosting import (
    HOSTINGS,
    INSTANCE_SCALINGS,
    ROLLOUTS,
    ComponentsSettings,
    DataCaptureSettings,
    HostingSettings,
    NetworkSettings,
    RealTimeSettings,
    RolloutSettings,
    ServerlessSettings,
)
from stacks.models import WEIGHTS, HubWeightsSettings, MirroredWeightsSettings, ModelSettings, S3WeightsSettings
from stacks.operating import SCHEDULES, VERIFICATIONS, MonitoringSettings, ScheduleSettings, Verify, VerifySettings
from stacks.sections import Section as _Section
from stacks.sections import checked as _checked
from stacks.sections import kind_of as _kind_of
from stacks.sections import one_of as _one_of

CONTEXT_KEY = "extended-dlc"
OVERRIDES = ("model", "transformers", "instance_type", "region")


class SettingsError(Exception):
    """Everything that is wrong with the settings, one problem a line."""


def _check_stack_name(name: str) -> None:
    if not re.fullmatch(r"[A-Za-z][A-Za-z0-9-]{0,127}", name):
        raise ValueError("cannot be the name of a stack: use letters, digits and hyphens, a letter first")


def _check_region(region: str) -> None:
    if not region:
        raise ValueError("is not named, and the CDK CLI has none: write it as 'us-east-1', or set AWS_REGION")
    if not re.fullmatch(r"[a-z]{2,4}(-[a-z]+)+-\d+", region):
        raise ValueError("is not an AWS region: write it as 'us-east-1'")


def _check_file(path: str) -> None:
    if not Path(path).is_file():
        raise ValueError("is not a file: correct the path, or leave the option out")


File = Annotated[str, _checked(_check_file)]


class BuildSettings(_Section):
    """How the image is built; nothing here changes the image."""

    engine: Literal["docker", "podman"] = "docker"
    """The container engine that `CDK_DOCKER` names. Default: Docker."""

    pip_config: File | None = None
    """A pip configuration file for the build, where packages come from an index of one's own. Default: none."""

    ca_bundle: File | None = None
    """A file of certificates that pip trusts in the build. Default: the base image's own."""


class ExtendedImageSettings(_Section):
    """A Deep Learning Container extended with a transformers release; one image for all endpoints."""

    kind: Literal["extended"] = "extended"

    transformers: Annotated[str, _checked(check_release)]
    """The exact transformers release to install, as `5.23.0`."""

    base: str | None = None
    """Reference of the image to extend. Default: the newest Hugging Face PyTorch inference DLC that can carry the
    release."""

    base_region: str | None = None
    """Region of the registry that the default base is pulled from. Default: the region that is deployed to."""

    family: Family | None = None
    """The image family: `inference`, or `vllm` for text models over several GPUs. Default: what `base` says; without it
    `vllm` where the first endpoint's model generates text and is too large for one of its instance's GPUs."""

    rebuild: str | None = None
    """Any text; a new one builds the image again, to pick up a base that was patched in place. Default: none."""

    model_types: list[str] = []
    """Model types that the image promises to know, as `["bloom", "whisper"]`: the build fails when its transformers
    does not. Default: none."""

    server: Literal["native", "stock"] = "native"
    """The server that answers: `native`, this project's own, or `stock`, the one in the base. Default: native."""

    build: BuildSettings = BuildSettings()
    """How the image is built. Default: by Docker, with its ordinary configuration."""


class StockImageSettings(_Section):
    """The Deep Learning Container as AWS publishes it, with its stock server."""

    kind: Literal["stock"]

    transformers: Annotated[str, _checked(check_release)] | None = None
    """Release of transformers in the image, one that AWS has an image with. Default: the newest."""

    base: str | None = None
    """Reference of the image itself, as of a mirror; instead of `transformers`. Default: AWS's own."""

    base_region: str | None = None
    """Region of the registry that AWS's image is pulled from. Default: the region that is deployed to."""


class EcrImageSettings(_Section):
    """An image that is in an ECR repository already."""

    kind: Literal["ecr"]

    repository: str
    """Name of the repository in the same account and region, or the ARN of another account's."""

    tag: str
    """Tag of the image, or a digest that begins with `sha256:`."""

    accelerator: Literal["cpu", "gpu"] | None = None
    """What it computes with. Default: not known, and not checked."""

    cuda: str | None = None
    """Its CUDA, as `cu124`, which decides on the driver of the host. Default: SageMaker's own driver."""


_IMAGES: dict[str, type[_Section]] = {
    "extended": ExtendedImageSettings,
    "stock": StockImageSettings,
    "ecr": EcrImageSettings,
}


_image_kind = _kind_of("extended")


ImageSettings = Annotated[
    Annotated[ExtendedImageSettings, Tag("extended")]
    | Annotated[StockImageSettings, Tag("stock")]
    | Annotated[EcrImageSettings, Tag("ecr")],
    _one_of(_IMAGES, _image_kind),
]


class VllmSettings(_Section):
    """How vLLM serves the model; more of its options go into `environment`, as `SM_VLLM_MAX_NUM_SEQS`."""

    tensor_parallel_size: Annotated[int, Field(ge=1)] | None = None
    """Over how many GPUs each layer goes. Default: all GPUs of the instance."""

    max_model_len: Annotated[int, Field(ge=1)] | None = None
    """Tokens of a request, prompt and answer. Default: what the model was trained for."""

    gpu_memory_utilization: Annotated[float, Field(gt=0, le=1)] | None = None
    """The share of each GPU's memory that it takes, above 0 to 1. Default: vLLM's own, 0.9."""

    dtype: str | None = None
    """Number format of the weights: `auto`, `float16`, `bfloat16` …. Default: the model's."""

    quantization: str | None = None
    """How the weights are quantised: `awq`, `gptq`, `fp8` …. Default: what the model's config.json says."""

    enforce_eager: bool = False
    """Whether to do without CUDA graphs: slower, and a little less memory."""

    tool_call_parser: str | None = None
    """The parser of the model's tool calls, as `hermes`, which lets the model choose tools. Default: it cannot."""


class EndpointSettings(ModelSettings):
    """One endpoint."""

    vllm: VllmSettings | None = None
    """How vLLM serves it, where the image is of that family. Default: with vLLM's own choices, over all GPUs."""

    hosting: HostingSettings = RealTimeSettings()
    """How it is hosted, by its `kind`. Default: `real-time`, one `ml.m5.xlarge`."""

    rollout: RolloutSettings | None = None
    """How an update goes over to new instances, by its `kind`. Default: all at once, without a bake."""

    network: NetworkSettings | None = None
    """The VPC that its containers are in. Default: SageMaker's own, with access to the internet."""

    network_isolation: bool = False
    """Whether containers can open no connection at all; not for weights that they download from the Hub."""

    encryption_key: str | None = None
    """ARN of the key for volumes, captured data, asynchronous answers and new topics. Default: AWS's own keys."""

    data_capture: DataCaptureSettings | None = None
    """What of the requests and answers is written to S3. Default: nothing."""

    monitoring: MonitoringSettings | None = None
    """How it is watched. Default: not at all, and SageMaker keeps the log for ever."""

    verify: Verify = VerifySettings(optional=True)
    """What proves each deployment: a request, as `{}`; with `true` only that SageMaker can run the image and serves the
    configuration that was deployed, which a request includes; `false`: nothing. Default: `{"optional": true}`, a
    request where one is known for the model."""

    role: str | None = None
    """ARN of the role of its containers, which you grant what they need. Default: a new one."""

    role_path: str | None = None
    """Path of the new role, as `/speech/`. Default: `/`."""

    permissions_boundary: str | None = None
    """ARN of the policy that bounds the new role. Default: none."""

    def models(self) -> dict[str, ModelSettings]:
        """The models that it serves by their places in it: its own, and those that components name."""
        parts = self.hosting.components if isinstance(self.hosting, ComponentsSettings) else {}
        named = {key: each for key, each in parts.items() if each.model is not None}
        return {"": self, **{f".hosting.components.{key}": each for key, each in named.items()}}


class Settings(_Section):
    """Everything that the app deploys."""

    name: Annotated[str, _checked(_check_stack_name)] = "extended-dlc"
    """Name of the stack and first part of each endpoint's name, to deploy several copies. Default: `extended-dlc`."""

    region: Annotated[str, Field(validate_default=True), _checked(_check_region)] = ""
    """Region to deploy to. Default: the one that the CDK CLI deploys to, as AWS_REGION or the profile says."""

    image: ImageSettings
    """The image that all endpoints share, by its `kind`. Default: `extended`."""

    endpoints: Annotated[dict[str, EndpointSettings], Field(min_length=1)]
    """The endpoints by their ids; an endpoint's name is `<name>-<id>`."""

    schedule: ScheduleSettings | None = None
    """Who turns the endpoints off and on, by its `kind`. Default: nobody."""

    tags: dict[str, str] = {}
    """Tags of everything that can have some. Default: none."""


_KINDS: dict[str, Mapping[str, type[_Section]]] = {
    "image": _IMAGES,
    "weights": WEIGHTS,
    "hosting": HOSTINGS,
    "rollout": ROLLOUTS,
    "scaling": INSTANCE_SCALINGS,
    "schedule": SCHEDULES,
    "verify": VERIFICATIONS,
}
"""The sections that a `kind` decides on."""


def read_settings(context: Mapping[str, Any], *, cli_region: str | None = None) -> Settings:
    """The settings in the app's context; `SettingsError` with all their problems.

    `context["extended-dlc"]` holds them, or `context["settings"]` names a JSON or YAML file that does;
    `context["model"]`, `["transformers"]`, `["instance_type"]` and `["region"]` override single values.

    :param cli_region: The region of settings that name none.
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
    if not merged.get("region") and cli_region:
        merged["region"] = cli_region
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
        return json.loads(text) if path.suffix == ".json" else _read_yaml(text)
    except ValueError as error:
        raise SettingsError(f"settings file {path} is not valid: {error}; write JSON (.json) or YAML") from None


def _read_yaml(text: str) -> Any:
    import yaml  # no other settings need it

    try:
        return yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise ValueError(str(error)) from None


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
            # what is said of a model belongs to the one that was named with it
            endpoint.update(model=overrides["model"], revision=None, model_type=None, parameters=None, task=None)
            endpoint.pop("weights", None)
            endpoint.pop("trust_remote_code", None)
        else:
            problems.append(
                f"-c model={overrides['model']}: goes to the one endpoint there is, and the settings have "
                f"{len(endpoints)}: change 'endpoints' instead"
            )
    return merged


def _explain(detail: ErrorDetails, raw: Any) -> str:
    """One of pydantic's errors in the words of the house."""
    place = [str(part) for part in detail["loc"]]
    for section, kinds in _KINDS.items():
        after = place.index(section) + 1 if section in place else 0
        if after and place[after : after + 1] and place[after] in kinds:
            del place[after]  # pydantic names the kind that it tried
    path = ".".join(place)
    match detail["type"]:
        case "missing":
            return f"{path}: field required"
        case "extra_forbidden":
            return f"{path}: is not a setting{did_you_mean(place[-1], _siblings(place[:-1], raw))}"
        case "value_error":
            error = detail["ctx"]["error"]
            value = "" if isinstance(detail["input"], dict) else f" ({detail['input']})"
            return f"{path}{value}: {error}"
        case _:
            message = detail["msg"][0].lower() + detail["msg"][1:]
            return f"{path}: {message}, got {json.dumps(detail['input'], default=str)}"


def _siblings(place: list[str], raw: Any) -> list[str]:
    """The settings that exist at a place."""
    section: type[BaseModel] = Settings
    for part in place:
        raw = raw.get(part) if isinstance(raw, Mapping) else None
        if section is Settings and part == "image":
            section = _IMAGES[_image_kind(raw)]
        elif section is Settings and part == "schedule":
            section = SCHEDULES.get(_kind_of("office-hours")(raw), section)
        elif issubclass(section, ModelSettings) and part in section.model_fields and part in _KINDS:
            kind = _kind_of(getattr(section.model_fields[part].default, "kind", ""))
            section = _KINDS[part].get(kind(raw), section)
        elif part in section.model_fields:
            annotation: Any = section.model_fields[part].annotation
            if get_origin(annotation) is dict:  # of sections by their ids
                annotation = get_args(annotation)[1]
            if isinstance(annotation, type) and issubclass(annotation, BaseModel):
                section = annotation
    return sorted(section.model_fields)


def _contradictions(raw: Mapping[str, Any]) -> Iterator[str]:
    """What is wrong between settings that are each valid; a section that is not valid is passed over."""
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
    yield from _components_that_cannot_be(str(name), endpoints)
    yield from _proofs_without_a_request(endpoints)
    yield from _hostings_that_cannot_be(endpoints, raw.get("region"))
    image = _section(_IMAGES.get(_image_kind(raw.get("image")), ExtendedImageSettings), raw.get("image"))
    region = raw.get("region")
    if image is None:
        return
    accelerators: list[str] = []
    yield from _instances_that_do_not_fit(image, endpoints, accelerators)
    base: str | None = None
    try:
        base = _base(image, accelerators, region if isinstance(region, str) else None)
    except ValueError as error:
        given = getattr(image, "transformers", None)
        yield f"image.transformers ({given}): {error}"
    yield from _models_that_do_not_load(image, base, endpoints)
    yield from _models_that_do_not_fit(image, base, endpoints)


def _components_that_cannot_be(name: str, endpoints: Mapping[str, EndpointSettings]) -> Iterator[str]:
    """Components whose names SageMaker refuses, and an endpoint's model that none of them serves."""
    for key, hosting in [(key, each.hosting) for key, each in endpoints.items()]:
        if not isinstance(hosting, ComponentsSettings):
            continue
        for part in hosting.components:
            called = f"{name}-{key}-{part}"
            try:
                check_endpoint_name(called)
            except ValueError as error:
                yield f"endpoints.{key}.hosting.components.{part}: it would be called '{called}', which {error}"
        if all(part.model is not None for part in hosting.components.values()):
            yield f"endpoints.{key}.model ({endpoints[key].model}): no component serves it: leave 'model' out of one"


def _hostings_that_cannot_be(endpoints: Mapping[str, EndpointSettings], region: object) -> Iterator[str]:
    """Hostings that SageMaker refuses for the weights, or in the region."""
    for key, endpoint in endpoints.items():
        hosting, weights = endpoint.hosting, endpoint.weights
        if isinstance(hosting, ServerlessSettings):
            as_they_are = isinstance(weights, S3WeightsSettings) and weights.key.endswith("/")
            try:
                check_serverless_data(archive=not (as_they_are or isinstance(weights, MirroredWeightsSettings)))
            except ValueError as error:
                yield f"endpoints.{key}.weights ({weights.kind}): {error}"
        if isinstance(hosting, ComponentsSettings) and hosting.minimum == 0 and isinstance(region, str):
            try:
                check_zero_instances(region)
            except ValueError as error:
                yield f"endpoints.{key}.hosting.minimum (0): {error}"


def _instances(endpoint: EndpointSettings) -> list[Instance]:
    """What the endpoint computes with, the preferred type first."""
    if isinstance(endpoint.hosting, ServerlessSettings):
        return [replace(find_instance("ml.m5.large"), name="serverless")]
    types = endpoint.hosting.instance_type
    return [find_instance(name) for name in ([types] if isinstance(types, str) else types)]


def _instances_that_do_not_fit(
    image: Any, endpoints: Mapping[str, EndpointSettings], accelerators: list[str]
) -> Iterator[str]:
    """Instances that the image does not run on; fills in what the others compute with."""
    base = getattr(image, "base", None)
    tag = read_tag(base) if base else None
    accelerator: str | None = tag.accelerator if tag else getattr(image, "accelerator", None)
    source = f"image.base is built for {accelerator}" if tag else f"image.accelerator is {accelerator}"
    if getattr(image, "family", None) == "vllm":
        accelerator, source = "gpu", "image.family is vllm"
    for key, instance in [(key, each) for key, endpoint in endpoints.items() for each in _instances(endpoint)]:
        try:
            check_image_runs_on(instance, accelerator)
        except ValueError as error:
            because = f" ({source})" if accelerator not in (None, instance.accelerator) else ""
            yield f"endpoints.{key}.hosting.instance_type ({instance.name}): {error}{because}"
            continue
        accelerators.append(instance.accelerator)
        if accelerator is None and isinstance(image, ExtendedImageSettings):
            accelerator, source = instance.accelerator, f"the image is made for endpoints.{key}, {instance.name}"


def _base(image: Any, accelerators: list[str], region: str | None) -> str | None:
    """The DLC behind the image, where the settings say; ValueError where there is none that does it."""
    region = getattr(image, "base_region", None) or region
    if isinstance(image, ExtendedImageSettings):
        if image.base is not None:
            if image.family == "vllm" or repository_of(image.base) == VLLM:
                check_vllm(image.base, image.transformers)
            else:
                check_pair(image.base, image.transformers, image.server)
            return image.base
        if image.family == "vllm" and region:
            return pick_vllm(image.transformers, region).uri
        if accelerators and region:
            return pick_base(image.transformers, accelerators[0], region, image.server).uri
    if isinstance(image, StockImageSettings):
        if image.base is not None and image.transformers is not None:
            raise ValueError("and 'base' both name the image: give one of them")
        if image.base is None and accelerators and region:
            return pick_stock(image.transformers, accelerators[0], region).uri(region)
        return image.base
    return None


def _models_that_do_not_load(image: Any, base: str | None, endpoints: Mapping[str, EndpointSettings]) -> Iterator[str]:
    """Models whose type the image's transformers is known not to have."""
    tag = read_tag(base) if base else None
    extended = isinstance(image, ExtendedImageSettings)
    release = image.transformers if extended else tag.transformers if tag else None
    for place, model in [
        (f"{key}{at}", model) for key, each in endpoints.items() for at, model in each.models().items()
    ]:
        model_type = model.model_type or known_model_type(model.model)
        code = model.weights.inference_code() if isinstance(model.weights, HubWeightsSettings) else None
        injected = not extended and code is not None and code.requirement("transformers") is not None
        if release is None or model_type is None or injected:  # what is injected is judged where its image is
            continue
        try:
            check_model_type(model_type, release, image=None if extended or base is None else base.rpartition("/")[2])
        except ValueError as error:
            yield f"endpoints.{place}.model ({model.model}): {error}"


def _models_that_do_not_fit(image: Any, base: str | None, endpoints: Mapping[str, EndpointSettings]) -> Iterator[str]:
    """Instances that are too small for the model, and tasks that nothing in the image serves."""
    tag = read_tag(base) if base else None
    release = getattr(image, "transformers", None) or (tag.transformers if tag else None)
    server: Server | None = "stock" if isinstance(image, StockImageSettings) else getattr(image, "server", None)
    for key, endpoint, at, served in [
        (key, each, at, model) for key, each in endpoints.items() for at, model in each.models().items()
    ]:
        weights = served.weights
        if isinstance(weights, HubWeightsSettings) and weights.inference_code() is not None:
            continue  # what code of one's own does with them is not known
        named = isinstance(weights, HubWeightsSettings | MirroredWeightsSettings)
        model = know_model(served.model if named else None, parameters=served.parameters)
        load = Load(dtype=(served.environment or endpoint.environment).get("EXTENDED_DLC_DTYPE"))
        if not isinstance(endpoint.hosting, ServerlessSettings):
            for instance in _instances(endpoint):
                try:
                    check_fit(model, instance, spread="one" if server == "stock" else "all", load=load)
                except ValueError as error:
                    yield f"endpoints.{key}.hosting.instance_type ({instance.name}): {error}"
        if served.task is not None:
            try:
                check_task(served.task, release, server)
            except ValueError as error:
                yield f"endpoints.{key}{at}.task ({served.task}): {error}"


def _proofs_without_a_request(endpoints: Mapping[str, EndpointSettings]) -> Iterator[str]:
    """Proofs of a task that nobody knows a request for; one without a task may be known by its model."""
    for key, endpoint in endpoints.items():
        for at, served in endpoint.models().items():
            verify = endpoint.verify
            if isinstance(verify, VerifySettings) and not verify.optional and served.task is not None:
                try:
                    verify.build().properties_for(served.task)
                except ValueError as error:
                    yield f"endpoints.{key}{at}: {error}"


def _section(kind: type[Any], raw: Any) -> Any:
    try:
        return kind.model_validate(raw)
    except ValidationError:
        return None
