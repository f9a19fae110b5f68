"""`extended-dlc plan`."""

from __future__ import annotations

import dataclasses
import json
import shutil
import sys
import textwrap
from pathlib import Path
from typing import Any

import click

from extended_dlc.cli._settings import raw_settings
from extended_dlc.facts.instances import Instance
from extended_dlc.facts.plan import EndpointPlan, Plan, make_plan
from extended_dlc.facts.sizing import DEFAULT_CONTEXT, Fit, Load, gib
from extended_dlc.facts.start import Start, minutes


@click.command()
@click.option("--settings", type=click.Path(dir_okay=False), help="Settings of the app. Default: those in cdk.json.")
@click.option("--model", help="Model of the one endpoint, as bigscience/bloom-560m.")
@click.option("--transformers", help="Release in the image, as 5.23.0.")
@click.option("--instance-type", help="Instance type of all endpoints, as ml.g5.xlarge.")
@click.option("--region", help="Region to deploy to.")
@click.option("--context-length", type=click.IntRange(min=1), help="Tokens of a request. Default: 2048.")
@click.option("--batch", type=click.IntRange(min=1), help="Requests that run together. Default: 1.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def plan(
    settings: str | None,
    model: str | None,
    transformers: str | None,
    instance_type: str | None,
    region: str | None,
    context_length: int | None,
    batch: int | None,
    as_json: bool,
) -> None:
    """Show what the app would decide, and why, without AWS and before anything is built.

    Reads the settings in ./cdk.json, or in the file that --settings or EXTENDED_DLC_SETTINGS names, and puts the
    options in their places, as -c does for the app; without a cdk.json, --model, --transformers and --region will do.
    What extended-dlc lookup found is read from ./cdk.context.json. Ends with status 1 when something would be refused.
    """
    try:
        raw = raw_settings(settings)
    except FileNotFoundError as error:
        if model is None:
            raise click.ClickException(
                f"there is no {error.filename}: go to the folder of the app (cd), name the settings (--settings), or "
                "give --model, --transformers and --region"
            ) from None
        raw = {"image": {}, "endpoints": {"model": {}}}
    except (OSError, ValueError) as error:
        raise click.ClickException(f"the settings cannot be read: {error}") from None
    try:
        _override(raw, model=model, transformers=transformers, instance_type=instance_type, region=region)
        context = looked_up()
    except ValueError as error:
        raise click.ClickException(str(error)) from None
    load = Load(context=context_length or DEFAULT_CONTEXT, batch=batch or 1)
    found = make_plan(raw, context, load=load)
    if as_json:
        click.echo(json.dumps(dataclasses.asdict(found), indent=2))
    else:  # to a file or a pipe a line stays one line
        width = shutil.get_terminal_size().columns if sys.stdout.isatty() else None
        click.echo("\n".join(line for each in _table(found) for line in _wrapped(each, width)))
    raise SystemExit(1 if found.problems else 0)


def looked_up(folder: Path = Path()) -> dict[str, Any]:
    """What cdk.context.json holds; nothing where there is none."""
    try:
        context = json.loads((folder / "cdk.context.json").read_text())
    except FileNotFoundError:
        return {}
    except ValueError as error:
        raise ValueError(f"cdk.context.json cannot be read: {error}") from None
    return context if isinstance(context, dict) else {}


def _override(raw: dict[str, Any], *, model: str | None, **values: str | None) -> None:
    """The options in the places where the app puts its `-c` values."""
    endpoints = raw.get("endpoints")
    each = [one for one in endpoints.values() if isinstance(one, dict)] if isinstance(endpoints, dict) else []
    if values["region"]:
        raw["region"] = values["region"]
    image = raw.setdefault("image", {})
    if values["transformers"] and isinstance(image, dict):
        image["transformers"] = values["transformers"]
    if values["instance_type"]:
        for endpoint in each:
            endpoint["hosting"] = {**(endpoint.get("hosting") or {}), "instance_type": values["instance_type"]}
    if model:
        if len(each) != 1:
            raise ValueError(
                f"'--model' ({model}) goes to the one endpoint there is, and the settings have {len(each)}: change "
                "'endpoints' instead"
            )
        each[0].update(model=model, revision=None, model_type=None, task=None, parameters=None)


def _table(found: Plan) -> list[str]:
    image = found.image
    lines = _lines(
        f"image ({image.kind})",
        {
            "base": image.base or "none",
            "why": image.why,
            "transformers": image.transformers or "not known",
            "layer": ", ".join(image.layer) or "none",
            "tag": image.tag,
            **({"GPUs": image.gpus or "not known"} if image.accelerator == "gpu" else {}),
            "host image": f"{image.host_image} ({image.host})" if image.host_image else "SageMaker's default",
        },
    )
    for endpoint in found.endpoints:
        lines += ["", *_lines(f"endpoint {endpoint.endpoint}", _endpoint(endpoint))]
    for title, entries in (("warnings", found.warnings), ("problems", found.problems)):
        if entries:
            lines += ["", title, *(f"  - {entry}" for entry in entries)]
    return lines


def _endpoint(endpoint: EndpointPlan) -> dict[str, str]:
    model, instance = endpoint.model, endpoint.instance
    size = f"{model.parameters:,} parameters" if model.parameters else "size not known"
    size += f", {model.dtype}" if model.dtype else ""
    timeout, volume = endpoint.startup_timeout_seconds, endpoint.volume_gb
    return {
        "model": f"{model.model_id or 'not from the Hub'} ({size})",
        "needs": endpoint.needs,
        "task": model.task or "found out in the container",
        "hosting": endpoint.hosting,
        "instance": "none" if instance is None else _instance(instance),
        "memory": _memory(endpoint.fit),
        **_start(endpoint.start),
        "time-out": "SageMaker's own" if timeout is None else f"{timeout} s to start",
        "volume": "SageMaker's own, or the type's storage" if volume is None else f"{volume} GB",
    }


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
