"""`extended-dlc plan`."""

from __future__ import annotations

import dataclasses
import json
import shutil
import sys
import textwrap
from typing import TYPE_CHECKING, Any

import click

from extended_dlc.app.read import Raw, SettingsError
from extended_dlc.cli._settings import decided, override_options, raw_settings
from extended_dlc.facts.gpus import built_for, pick_host_image
from extended_dlc.facts.instances import Instance
from extended_dlc.facts.sizing import DEFAULT_CONTEXT, Fit, Load, gib
from extended_dlc.facts.start import Start, minutes
from extended_dlc.options.hosting import Instances

if TYPE_CHECKING:
    from extended_dlc.app.settings import Read
    from extended_dlc.decisions.decide import Decision
    from extended_dlc.decisions.of_part import PartDecision


@click.command()
@click.option("--settings", type=click.Path(dir_okay=False), help="Settings of the app. Default: those in cdk.json.")
@override_options
@click.option("--context-length", type=click.IntRange(min=1), help="Tokens of a request. Default: 2048.")
@click.option("--batch", type=click.IntRange(min=1), help="Requests that run together. Default: 1.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def plan(
    settings: str | None, context_length: int | None, batch: int | None, as_json: bool, **overrides: str | None
) -> None:
    """Show what cdk deploy would do, and why, without AWS and before anything is built.

    Reads the settings in ./cdk.json, or in the file that --settings or EXTENDED_DLC_SETTINGS names, and puts the
    options in their places, as -c does for the app; without a cdk.json, --model, --transformers and --region will do.
    What extended-dlc lookup found is read from ./cdk.context.json. Ends with status 1 when something would be refused.
    """
    try:
        raw = raw_settings(settings, overrides=overrides)
    except SettingsError as error:
        if overrides["model"] is None or not str(error).startswith("there is no"):
            raise click.ClickException(f"{error}; or give --model, --transformers and --region") from None
        raw = _of_options(overrides)
    load = Load(context=context_length or DEFAULT_CONTEXT, batch=batch or 1)
    found = decided(raw, load=load)
    if as_json:
        click.echo(json.dumps(as_data(found), indent=2, default=str))
    else:  # to a file or a pipe a line stays one line
        width = shutil.get_terminal_size().columns if sys.stdout.isatty() else None
        click.echo("\n".join(line for each in _table(found) for line in _wrapped(each, width)))
    raise SystemExit(1 if found.problems else 0)


def _of_options(overrides: dict[str, str | None]) -> Raw:
    """Settings of one endpoint, where no file holds any."""
    hosting = {"instance_type": overrides["instance_type"]} if overrides["instance_type"] else {}
    content = {
        "region": overrides["region"] or "",
        "image": {"transformers": overrides["transformers"]} if overrides["transformers"] else {},
        "endpoints": {"model": {"model": overrides["model"], "hosting": hosting}},
    }
    return Raw(origin="the command line", content=content)


def as_data(found: Read) -> dict[str, Any]:
    """The decision as JSON has it."""
    decision = found.decision
    return {
        "region": found.settings.region if found.settings else found.raw.content.get("region"),
        "image": _image_data(decision) if decision else None,
        "endpoints": [_part_data(key, part) for key, part in (_parts(decision) if decision else ())],
        "warnings": [note.line for note in decision.notes] if decision else [],
        "problems": list(found.problems),
    }


def _parts(decision: Decision) -> list[tuple[str, PartDecision]]:
    """Each part of each endpoint, by the words for it."""
    return [
        (" ".join(filter(None, (endpoint.endpoint.place.removeprefix("endpoints."), part.part.who))), part)
        for endpoint in decision.endpoints
        for part in endpoint.parts
    ]


def _image_data(decision: Decision) -> dict[str, Any]:
    image = decision.image
    first = next((part for _, part in _parts(decision)), None)
    host = pick_host_image(image.cuda, first.part.instances[:1] if first else ())
    torch = image.tag.torch if image.tag else None
    folder = f"docker/{image.family or 'inference'}"
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
        "host": f"driver {host.driver}; {host.system}, supported until {host.supported_until}" if host else "",
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
        "fit": dataclasses.asdict(fits) if fits else None,
        "start": dataclasses.asdict(part.start) if part.start else None,
        "startup_timeout_seconds": part.startup_timeout_seconds,
        "volume_gb": part.volume_gb,
    }


def _table(found: Read) -> list[str]:
    decision = found.decision
    lines: list[str] = []
    if decision is not None:
        image = _image_data(decision)
        lines += _lines(
            f"image ({image['kind']})",
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
        )
        for key, part in _parts(decision):
            lines += ["", *_lines(f"endpoint {key}", _endpoint(part))]
    notes = [note.line for note in decision.notes if note.level == "warning"] if decision else []
    for title, entries in (("warnings", notes), ("problems", found.problems)):
        if entries:
            lines += ["", title, *(f"  - {entry}" for entry in entries)]
    return lines


def _host(image: dict[str, Any]) -> str:
    return f"{image['host_image']} ({image['host']})" if image["host_image"] else "SageMaker's default"


def _endpoint(part: PartDecision) -> dict[str, str]:
    model = part.part.model.facts
    size = f"{model.parameters:,} parameters" if model.parameters else "size not known"
    size += f", {model.dtype}" if model.dtype else ""
    timeout, volume = part.startup_timeout_seconds, part.volume_gb
    return {
        "model": f"{model.model_id or 'not from the Hub'} ({size})",
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
    """The kind of hosting, with how many instances of which types."""
    kind, fleet = type(part.part.endpoint.hosting).__name__, part.part.hosting
    if not isinstance(fleet, Instances):
        return kind
    return f"{kind}, {fleet.instances} x {' or '.join(fleet.instance_types)}"


def _start(start: Start | None) -> dict[str, str]:
    """The start's sum, and a line for each of its parts."""
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
    if fits.weights is None or fits.there is None:
        return fits.why
    return _bar(fits, fits.weights, fits.there)


def _bar(fits: Fit, weights: int, there: int) -> str:
    """How full the memory gets: weights #, requests =, working room -, free dots; what is too much is behind the ]."""
    needed = weights + fits.cache + fits.working
    scale = 40 / max(needed, there)
    filled = ("#" * round(weights * scale)).ljust(round((weights + fits.cache) * scale), "=")
    room = round(there * scale)
    bar = filled.ljust(round(needed * scale), "-").ljust(room, ".")
    return f"[{bar[:room]}]{bar[room:]} {gib(needed)} of {gib(there)}, {fits.verdict}: {fits.why}"


def _lines(title: str, facts: dict[str, str]) -> list[str]:
    return [title, *(f"  {name:12} {value}" for name, value in facts.items())]


def _wrapped(line: str, width: int | None) -> list[str]:
    """The line in as many as the terminal's width asks for, what goes on under where its text began."""
    if width is None or len(line) <= width:
        return [line]
    text = len(line) - len(line.lstrip(" -"))  # of a warning
    hang = 15 if line.startswith("  ") and line[14:15] == " " and line[15:16] != " " else text
    return textwrap.wrap(line, max(width, 40), subsequent_indent=" " * hang, break_on_hyphens=False)
