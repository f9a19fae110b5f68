"""`extended-dlc plan`."""

from __future__ import annotations

import dataclasses
import json
from datetime import date
from typing import TYPE_CHECKING, Any

import click

from extended_dlc.app.read import Raw, SettingsError
from extended_dlc.cli._settings import cli_region, decided, override_options, raw_settings
from extended_dlc.cli.exit_codes import FAILED, OK
from extended_dlc.decisions.sizing import DEFAULT_CONTEXT, Fit, Load, gib
from extended_dlc.decisions.start import Start, minutes
from extended_dlc.facts.gpus import built_for, pick_host_image
from extended_dlc.facts.instances import Instance
from extended_dlc.facts.releases import releases
from extended_dlc.options.hosting import Instances
from extended_dlc.terminal import Screen

if TYPE_CHECKING:
    from extended_dlc.app.settings import Read
    from extended_dlc.decisions.decide import Decision
    from extended_dlc.decisions.of_part import PartDecision


@click.command()
@click.option("--settings", type=click.Path(dir_okay=False), help="Settings of the app. Default: those in cdk.json.")
@override_options
@click.option("--model-type", help="The model's model_type, where nothing else says it.")
@click.option(
    "--parameters", type=click.IntRange(min=1), help="The model's number of parameters, where nothing else says it."
)
@click.option("--task", help="The pipeline task that the model is for.")
@click.option("--context-length", type=click.IntRange(min=1), help="Tokens of a request. Default: 2048.")
@click.option("--batch", type=click.IntRange(min=1), help="Requests that run together. Default: 1.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def plan(
    settings: str | None,
    model_type: str | None,
    parameters: int | None,
    task: str | None,
    context_length: int | None,
    batch: int | None,
    as_json: bool,
    **overrides: str | None,
) -> None:
    """Show what cdk deploy would do, and why, without AWS and before anything is built.

    Reads the settings in ./cdk.json, or in the file that --settings or EXTENDED_DLC_SETTINGS names, and puts the
    options in their places, as -c does for the app; without a cdk.json, --model will do.
    What extended-dlc lookup found is read from ./cdk.context.json. Ends with status 1 when something would be refused.
    """
    try:
        raw = raw_settings(settings, overrides=overrides)
    except SettingsError as error:
        if overrides["model"] is None or not str(error).startswith("there is no"):
            begin = "; or give --model, or begin with extended-dlc init" if str(error).startswith("there is no") else ""
            raise click.ClickException(f"{error}{begin}") from None
        raw = _of_options(overrides)
    _say_of_model(raw.content, {"model_type": model_type, "parameters": parameters, "task": task})
    load = Load(context=context_length or DEFAULT_CONTEXT, batch=batch or 1)
    found = decided(raw, load=load)
    if as_json:
        click.echo(json.dumps(as_data(found), indent=2, default=str))
    else:
        _print(found)
    raise SystemExit(FAILED if found.problems else OK)


def _of_options(overrides: dict[str, str | None]) -> Raw:
    """Settings of one endpoint from the options, without a file; other values are extended-dlc init's defaults."""
    hosting = {"instance_type": overrides["instance_type"]} if overrides["instance_type"] else {}
    release = overrides["transformers"] or next(reversed(releases()))
    region = overrides["region"] or cli_region() or "us-east-1"
    content = {
        "region": region,
        "image": {"transformers": release},
        "endpoints": {"model": {"model": overrides["model"], "hosting": hosting}},
    }
    Screen(err=True).line(f"no cdk.json here: planned for transformers {release} in {region}", "quiet")
    return Raw(origin="the command line", content=content)


def _say_of_model(content: dict[str, Any], said: dict[str, Any]) -> None:
    """Put the options about the model into the settings of the only endpoint."""
    given = {key: value for key, value in said.items() if value is not None}
    if not given:
        return
    endpoints = content.get("endpoints")
    first = next(iter(endpoints.values()), None) if isinstance(endpoints, dict) and len(endpoints) == 1 else None
    if not isinstance(first, dict):
        options = ", ".join(f"--{key.replace('_', '-')}" for key in given)
        raise click.UsageError(f"{options} are about the one endpoint that there is: change the settings instead")
    first.update(given)


def as_data(found: Read) -> dict[str, Any]:
    """The decision for the JSON output."""
    decision = found.decision
    return {
        "region": found.settings.region if found.settings else found.raw.content.get("region"),
        "image": _image_data(decision),
        "endpoints": [_part_data(key, part) for key, part in _parts(decision)],
        "warnings": [note.line for note in decision.notes],
        "problems": list(found.problems),
    }


def _parts(decision: Decision) -> list[tuple[str, PartDecision]]:
    """Each part of each endpoint, with its name in words."""
    return [
        (" ".join(filter(None, (endpoint.endpoint.section.removeprefix("endpoints."), part.part.who))), part)
        for endpoint in decision.endpoints
        for part in endpoint.parts
    ]


def _image_data(decision: Decision) -> dict[str, Any]:
    image = decision.image
    first = next((part for _, part in _parts(decision)), None)
    host = pick_host_image(image.cuda, first.part.instances[:1] if first else ())
    torch = image.tag.torch if image.tag else None
    folder = "docker/training" if image.family == "training" else "docker/inference"
    return {
        "kind": image.kind,
        "base": image.base,
        "base_region": image.base_region,
        "why": image.why,
        "family": image.family,
        "transformers": image.transformers,
        "server": {"vllm": "vllm", "training": None}.get(image.family or "", image.server),
        "layer": list(image.layer),
        "tag": {
            "extended": f"made at synth: a hash of {folder} and the build's arguments",
            "stock": "AWS's own",
        }.get(image.kind, "as it was given"),
        "accelerator": image.accelerator,
        "cuda": image.cuda,
        "torch": torch,
        "gpus": built_for(image.cuda, torch),
        "host_image": host.inference_ami_version if host else None,
        "host": f"driver {host.driver}; {host.system}, {host.support(date.today())}" if host else "",
    }


def _part_data(key: str, part: PartDecision) -> dict[str, Any]:
    fits = part.fits[0] if part.fits else None
    return {
        "endpoint": key,
        "model": dataclasses.asdict(part.part.model.facts),
        "needs": part.needs,
        "task": part.task,
        "hosting": _hosting(part),
        "instance": dataclasses.asdict(part.part.instances[0]) if part.part.instances else None,
        "instances": [instance.name for instance in part.part.instances],
        # `there` is the former name of `available`: keys of the JSON stay
        "fit": {**dataclasses.asdict(fits), "there": fits.available} if fits else None,
        "start": dataclasses.asdict(part.start) if part.start else None,
        "startup_timeout_seconds": part.startup_timeout_seconds,
        "volume_gb": part.volume_gb,
    }


def _print(found: Read) -> None:
    """Print the problems, then the warnings, then the decision."""
    screen = Screen()
    decision = found.decision
    if found.problems:
        screen.list("problems", found.problems, "problem")
        screen.line()
    notes = [note.line for note in decision.notes if note.level == "warning"]
    if notes:
        screen.list("warnings", notes, "warning")
        screen.line()
    _print_decision(screen, decision)
    if found.problems:
        count = len(found.problems)
        screen.line()
        screen.line(f"cdk synth would refuse this: {count} problem{'s' if count > 1 else ''}, above", "problem")


def _print_decision(screen: Screen, decision: Decision) -> None:
    image = _image_data(decision)
    screen.title(f"image ({image['kind']})")
    screen.facts(
        {
            "base": image["base"] or "none",
            "why": image["why"],
            **({"family": image["family"]} if image["family"] else {}),
            "transformers": image["transformers"] or "not known",
            "layer": ", ".join(image["layer"]) or "none",
            "tag": image["tag"],
            **({"GPUs": image["gpus"] or "not known"} if image["accelerator"] == "gpu" else {}),
            "host image": _host(image),
        },
        indent=2,
    )
    for key, part in _parts(decision):
        screen.line()
        screen.title(f"endpoint {key}")
        screen.facts(_endpoint(part), indent=2)


def _host(image: dict[str, Any]) -> str:
    return f"{image['host_image']} ({image['host']})" if image["host_image"] else "SageMaker's default"


def _endpoint(part: PartDecision) -> dict[str, str]:
    model = part.part.model.facts
    size = f"{model.parameters:,} parameters" if model.parameters else "size not known"
    size += f", {model.dtype}" if model.dtype else ""
    timeout, volume = part.startup_timeout_seconds, part.volume_gb
    return {
        "model": f"{model.model_id or 'not from the Hub'} ({size})",
        "licence": model.licence or "not known",
        "needs": part.needs,
        "task": part.task or model.task or "found out in the container",
        "hosting": _hosting(part),
        "instance": _instance(part.part.instances[0]) if part.part.instances else "none",
        "memory": _memory(part.fits[0] if part.fits else None),
        **_start(part.start),
        "time-out": "SageMaker's own" if timeout is None else f"{timeout} s to start",
        "volume": "SageMaker's own, or the type's storage" if volume is None else f"{volume} GB",
    }


def _hosting(part: PartDecision) -> str:
    """The kind of hosting, with the number and types of instances."""
    kind, fleet = type(part.part.endpoint.hosting).__name__, part.part.hosting
    if not isinstance(fleet, Instances):
        return kind
    return f"{kind}, {fleet.instances} x {' or '.join(fleet.instance_types) or 'no instance type'}"


def _start(start: Start | None) -> dict[str, str]:
    """The estimated time of a start, and a line for each phase."""
    if start is None:
        return {"start": "not estimated"}
    unknown = ", and what the model's size adds" if any(phase.seconds is None for phase in start.phases) else ""
    parts = {f"  {phase.name}": f"{minutes(phase.seconds)}: {phase.why}" for phase in start.phases}
    return {"start": f"about {minutes(start.seconds)}{unknown}", **parts}


def _instance(instance: Instance) -> str:
    memory = "memory not known" if instance.memory_mib is None else gib(instance.memory_mib * 1024**2)
    gpus = f", {instance.gpus} x {gib(instance.gpu_memory_mib * 1024**2)} of GPU" if instance.gpus else ""
    cores = f"{instance.vcpu} vCPU, " if instance.vcpu else ""
    return f"{instance.name}: {cores}{memory}{gpus}"


def _memory(fits: Fit | None) -> str:
    if fits is None:
        return "not known"
    if fits.weights is None or fits.available is None:
        return fits.why
    return _bar(fits, fits.weights, fits.available)


def _bar(fits: Fit, weights: int, available: int) -> str:
    """A bar of memory use: weights #, requests =, working memory -, free dots; any excess is after the ]."""
    needed = weights + fits.cache + fits.working
    scale = 40 / max(needed, available)
    filled = ("#" * round(weights * scale)).ljust(round((weights + fits.cache) * scale), "=")
    room = round(available * scale)
    bar = filled.ljust(round(needed * scale), "-").ljust(room, ".")
    return f"[{bar[:room]}]{bar[room:]} {gib(needed)} of {gib(available)}, {fits.verdict}: {fits.why}"
