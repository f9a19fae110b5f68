"""The whole decision for the app's settings, before anything is synthesised: `make_plan`."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any, TypeVar

from extended_dlc.facts.catalog import VLLM, DlcImage, read_tag, repository_of
from extended_dlc.facts.checks import check_environment, check_model_id, check_release, model_id
from extended_dlc.facts.combinations import check_access
from extended_dlc.facts.compat import (
    Family,
    Server,
    bases_for,
    check_model_type,
    check_pair,
    check_vllm,
    find_model_type,
    find_release,
    inference_ami_version,
    near_model_type,
    pick_base,
    pick_vllm,
)
from extended_dlc.facts.gpus import built_for, check_gpu, pick_host_image
from extended_dlc.facts.instances import Instance, check_image_runs_on, find_instance
from extended_dlc.facts.models import ModelFacts, context_key, know_model
from extended_dlc.facts.sizing import Fit, Load, Spread, check_fit, check_volume, choose_disk, choose_timeouts, fit
from extended_dlc.facts.start import Start, estimate_start
from extended_dlc.facts.stock import pick_stock
from extended_dlc.facts.tasks import check_task

T = TypeVar("T")

DEFAULT_INSTANCE_TYPE = "ml.m5.xlarge"


@dataclass(frozen=True, kw_only=True)
class Findings:
    """What is wrong, and what should be known; each with the setting that it is about."""

    problems: list[str] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)

    def ask(self, path: str, value: object, decision: Callable[[], T]) -> T | None:
        """What a decision comes to; where it refuses, None, and a problem more."""
        try:
            return decision()
        except ValueError as error:
            self.problems.append(f"{path} ({value}): {error}")
            return None

    def warn(self, path: str, note: str | None) -> None:
        """A warning more, where there is one."""
        if note is not None:
            self.warnings.append(f"{path}: {note}")


@dataclass(frozen=True, kw_only=True)
class ImagePlan:
    """Which image serves, and why."""

    kind: str
    base: str | None
    """Reference of the image that is extended, or that serves as it is; None where there is none or nobody knows."""

    why: str
    transformers: str | None
    server: Server | None
    """Which server answers; None for an image of one's own."""

    layer: tuple[str, ...]
    """What goes onto the base, as far as the release's wheel says."""

    tag: str
    accelerator: str | None
    host_image: str | None
    """`InferenceAmiVersion` on the first instance type; None leaves SageMaker's default."""

    host: str
    """That host image in words: its driver, and how long its system is supported."""

    cuda: str | None
    torch: str | None
    gpus: str | None
    """Which GPUs the image has code for, in words; None where nobody knows, and for a CPU."""

    family: Family


@dataclass(frozen=True, kw_only=True)
class EndpointPlan:
    """What an endpoint runs on, and how the model goes there."""

    endpoint: str
    model: ModelFacts
    needs: str
    """Which transformers the model's type needs."""

    hosting: str
    instance: Instance | None
    fit: Fit | None
    start: Start | None
    """What a start takes; None where nobody knows the instance, and serverless."""

    startup_timeout_seconds: int | None
    volume_gb: int | None


@dataclass(frozen=True, kw_only=True)
class Plan:
    """All of it."""

    region: str | None
    image: ImagePlan
    endpoints: tuple[EndpointPlan, ...]
    warnings: tuple[str, ...]
    problems: tuple[str, ...]


def make_plan(
    settings: Mapping[str, Any], context: Mapping[str, Any] | None = None, *, load: Load | None = None
) -> Plan:
    """What the app decides with these settings (as in cdk.json) and looked-up models (as in cdk.context.json).

    What is no setting, and what this does not know, is passed over: `cdk synth` has the last word.
    """
    found = Findings()
    region = str(settings.get("region") or "")
    if not region:
        found.problems.append("region: there is none, and images are published by region: give one")
    endpoints = {key: _section(value) for key, value in _section(settings.get("endpoints")).items()}
    if not endpoints:
        found.problems.append("endpoints: there is none: give a model")
    instances = {
        key: _instances(f"endpoints.{key}.hosting", _section(each.get("hosting")), found)
        for key, each in endpoints.items()
    }
    first = next((each[0] for each in instances.values() if each), None)
    image = _plan_image(_section(settings.get("image")), first, region, found)
    plans = tuple(
        _Endpoint(key, raw, instances[key], image, region, context or {}, load, found).plan()
        for key, raw in endpoints.items()
    )
    return Plan(
        region=region or None,
        image=image,
        endpoints=plans,
        warnings=tuple(dict.fromkeys(found.warnings)),
        problems=tuple(dict.fromkeys(found.problems)),
    )


def _section(raw: object) -> Mapping[str, Any]:
    return raw if isinstance(raw, Mapping) else {}


def _text(raw: object) -> str | None:
    return None if raw is None or raw == "" else str(raw)


def _instances(path: str, hosting: Mapping[str, Any], found: Findings) -> list[Instance]:
    """What an endpoint may run on, the preferred one first."""
    if hosting.get("kind") == "serverless":
        memory = hosting.get("memory_mb", 6144)
        return [replace(find_instance("ml.m5.large"), name="serverless", vcpu=None, memory_mib=memory)]
    given = hosting.get("instance_type", DEFAULT_INSTANCE_TYPE)
    names = [str(name) for name in (given if isinstance(given, list) else [given])]
    asked = (found.ask(f"{path}.instance_type", name, partial(find_instance, name)) for name in names)
    return [instance for instance in asked if instance is not None]


# -- the image ---------------------------------------------------------------------------------------------------------


def _plan_image(raw: Mapping[str, Any], instance: Instance | None, region: str, found: Findings) -> ImagePlan:
    kind = str(raw.get("kind", "extended"))
    transformers, given = _text(raw.get("transformers")), _text(raw.get("base"))
    region = _text(raw.get("base_region")) or region
    accelerator = "gpu" if instance is not None and instance.accelerator == "gpu" else "cpu"
    server: Server | None = None
    layer: tuple[str, ...] = ()
    base, why, tag = None, "it is an image of yours", _text(raw.get("tag")) or "not known"
    vllm = False
    if kind == "extended":
        server = "stock" if raw.get("server") == "stock" else "native"
        vllm = raw.get("family") == "vllm" or repository_of(given or "") == VLLM
        base, why = _extended_base(given, transformers, accelerator, region, None if vllm else server, found)
        layer = (f"transformers=={transformers}",) if vllm else _layer(transformers, server)
        folder = "docker/vllm" if vllm else "docker/inference"
        tag = f"made at synth: a hash of {folder} and the build's arguments"
    elif kind == "stock":
        server, tag = "stock", "AWS's own"
        base, why = _stock_base(given, transformers, accelerator, region, found)
    facts = read_tag(base) if base else None
    cuda, torch = (facts.cuda, facts.torch) if facts else (_text(raw.get("cuda")), None)
    host = pick_host_image(cuda, [instance] if instance else [])
    if kind == "stock":
        transformers = facts.transformers if facts else None
    if kind == "extended" and facts is not None and facts.moving and not raw.get("rebuild"):
        found.warn("image.base", "AWS patches what is behind this tag: a digest or a -vM.m tag stays what it is")
    return ImagePlan(
        kind=kind,
        base=base,
        why=why,
        transformers=transformers,
        server=server,
        layer=layer,
        tag=tag,
        accelerator=facts.accelerator if facts else _text(raw.get("accelerator")),
        host_image=host.inference_ami_version if host else None,
        host=f"driver {host.driver}; {host.system}, supported until {host.supported_until}" if host else "",
        cuda=cuda,
        torch=torch,
        gpus=built_for(cuda, torch),
        family="vllm" if vllm else "inference",
    )


def _extended_base(
    given: str | None, transformers: str | None, accelerator: str, region: str, server: Server | None, found: Findings
) -> tuple[str | None, str]:
    """The base and why, for the native or the stock server; for None of the vLLM family."""
    if transformers is None:
        found.problems.append("image.transformers: there is none: give an exact release, as 5.23.0")
        return given, "it was given" if given else "no release was asked for"
    path = "image.transformers"

    def decide() -> tuple[str | None, str, tuple[str, ...]]:
        check_release(transformers)
        if given is not None:
            notes = check_pair(given, transformers, server) if server else check_vllm(given, transformers)
            return given, "it was given", notes
        if not region:
            return None, "no region was given", ()
        choice = pick_base(transformers, accelerator, region, server) if server else pick_vllm(transformers, region)
        return choice.uri, choice.why, choice.notes

    base, why, notes = found.ask(path, transformers, decide) or (given, "none was found", ())
    for note in notes:
        found.warn(path, note)
    return base, why


def _stock_base(
    given: str | None, transformers: str | None, accelerator: str, region: str, found: Findings
) -> tuple[str | None, str]:
    if given is not None or not region:
        return given, "it was given" if given else "no region was given"
    why = "AWS publishes it with this release" if transformers else "the newest that AWS publishes"
    uri = found.ask(
        "image.transformers", transformers, lambda: pick_stock(transformers, accelerator, region).uri(region)
    )
    return uri, why if uri else "none was found"


def _layer(transformers: str | None, server: Server) -> tuple[str, ...]:
    try:
        release = find_release(transformers) if transformers else None
    except ValueError:  # the base's decision has said so
        return ()
    ranges = [f"transformers=={transformers}"] if transformers else []
    if release is not None:
        for package in ("huggingface_hub", "tokenizers", "safetensors"):
            accepted = getattr(release, package)
            ranges += [f"{package}{accepted}"] if accepted else []
    return (*ranges, "this project's server" if server == "native" else "nothing else: the base's server stays")


# -- an endpoint -------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Endpoint:
    """One endpoint's decisions."""

    key: str
    raw: Mapping[str, Any]
    instances: list[Instance]
    image: ImagePlan
    region: str
    context: Mapping[str, Any]
    load: Load | None
    found: Findings

    def plan(self) -> EndpointPlan:
        path = f"endpoints.{self.key}"
        model, from_hub, token = self._model(path)
        hosting = _section(self.raw.get("hosting"))
        self._check_model(path, model, from_hub, token)
        for instance in self.instances:
            self._check_instance(f"{path}.hosting.instance_type", instance, model)
        names = [instance.name for instance in self.instances]
        self.found.ask(
            f"{path}.hosting.instance_type",
            ", ".join(names),
            lambda: inference_ami_version(self.image.cuda, [name for name in names if name != "serverless"]),
        )
        timeouts = choose_timeouts(model.size, from_s3=not from_hub)
        disks = [choose_disk(model.size, instance) for instance in self.instances]
        for note in (*timeouts.notes, *(note for disk in disks for note in disk.notes)):
            self.found.warn(f"{path}.hosting", note)
        volumes = [disk.volume_gb for disk in disks] or [None]
        volume = hosting.get("volume_gb")
        if isinstance(volume, int):
            for instance in self.instances:
                self.found.ask(f"{path}.hosting.volume_gb", volume, partial(check_volume, volume, instance))
        serverless = hosting.get("kind") == "serverless"
        count = (
            ""
            if serverless
            else f", {hosting.get('instances', 1)} x {' or '.join(each.name for each in self.instances)}"
        )
        first = self.instances[0] if self.instances else None
        start = estimate_start(model.size, first, from_hub=from_hub) if first and not serverless else None
        self.found.warn(f"{path}.weights", start.proposal if start else None)
        return EndpointPlan(
            endpoint=self.key,
            model=model,
            needs=_needs(model.model_type, self.image.transformers),
            hosting=f"{hosting.get('kind', 'real-time')}{count}",
            instance=first,
            fit=fit(model, first, spread=self._spread, load=self._load) if first else None,
            start=start,
            startup_timeout_seconds=None if serverless else hosting.get("startup_timeout_seconds") or timeouts.startup,
            volume_gb=volume or (volumes[0] if None not in volumes else None),
        )

    def _model(self, path: str) -> tuple[ModelFacts, bool, bool]:
        """What is known of the model, whether the container downloads it, and whether it has a token."""
        raw, weights = self.raw, _section(self.raw.get("weights"))
        from_hub = weights.get("kind", "hub") == "hub"
        name = _text(raw.get("model"))
        if name is None:
            self.found.problems.append(f"{path}.model: there is none: give the model's id on the Hub")
        else:
            name = model_id(name)
            self.found.ask(f"{path}.model", name, partial(check_model_id, name))
        parameters = raw.get("parameters")
        model = know_model(
            name,
            looked_up=self.context.get(context_key(name or "")),
            revision=_text(raw.get("revision")),
            model_type=_text(raw.get("model_type")),
            parameters=parameters if isinstance(parameters, int) else None,
            task=_text(raw.get("task")),
        )
        if from_hub and not raw.get("revision"):
            self.found.warn(f"{path}.revision", "there is none: a container that starts later may serve other weights")
        return model, from_hub, bool(weights.get("token_secret"))

    def _check_model(self, path: str, model: ModelFacts, from_hub: bool, token: bool) -> None:
        image, found = self.image, self.found
        name = model.model_id
        found.ask(
            f"{path}.model",
            name,
            lambda: check_access(gated=model.gated, token=token, from_hub=from_hub, licence=model.licence),
        )
        if (kind := model.model_type) is not None:
            stock = image.base.rpartition("/")[2] if image.base and image.kind == "stock" else None
            found.ask(f"{path}.model", name, lambda: check_model_type(kind, image.transformers, image=stock))
            if find_model_type(kind) is None:
                found.warn(f"{path}.model_type", f"'{kind}' is in no release read here{near_model_type(kind)}")
        if (task := _text(self.raw.get("task"))) is not None:
            note = found.ask(f"{path}.task", task, lambda: check_task(task, image.transformers, image.server))
            found.warn(path, note)
        environment = {key: str(value) for key, value in _section(self.raw.get("environment")).items()}
        try:
            check_environment(environment, reserved={})
        except ValueError as error:  # the values stay out of the message: one may be a secret
            found.problems.append(f"{path}.environment: {error}")

    def _check_instance(self, path: str, instance: Instance, model: ModelFacts) -> None:
        found, name = self.found, instance.name
        found.ask(path, name, lambda: check_image_runs_on(instance, self.image.accelerator))
        for note in found.ask(path, name, partial(self._check_gpu, instance)) or ():
            found.warn(path, note)
        found.warn(path, found.ask(path, name, partial(self._check_fit, model, instance)))

    def _check_gpu(self, instance: Instance) -> tuple[str, ...]:
        image = self.image
        extended = image.transformers if image.kind == "extended" else None

        def bases() -> list[DlcImage]:
            return [] if image.kind == "ecr" else bases_for(extended, image.family, image.server or "native")

        return check_gpu(instance, cuda=image.cuda, torch=image.torch, bases=bases, region=self.region or None)

    def _check_fit(self, model: ModelFacts, instance: Instance) -> str | None:
        return check_fit(model, instance, spread=self._spread, load=self._load, region=self.region or None)

    @property
    def _spread(self) -> Spread:
        """As in the constructs: AWS's server puts a model on one GPU, unless code of the user's own loads it."""
        code = _section(self.raw.get("weights"))
        return "one" if self.image.server == "stock" and not (code.get("code") or code.get("requirements")) else "all"

    @property
    def _load(self) -> Load:
        told = _text(_section(self.raw.get("environment")).get("EXTENDED_DLC_DTYPE"))
        return replace(self.load or Load(), dtype=told)


def _needs(model_type: str | None, transformers: str | None) -> str:
    if model_type is None:
        return "not known: say model_type, or run extended-dlc lookup MODEL"
    known = find_model_type(model_type)
    if known is None:
        return f"not known for '{model_type}', which no release read here has"
    needs = (
        f"transformers {known.first} or newer" if known.last is None else f"transformers {known.first} to {known.last}"
    )
    return f"{needs}, for '{model_type}'"
