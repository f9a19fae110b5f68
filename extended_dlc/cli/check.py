"""`extended-dlc check`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import click

from extended_dlc.cli._settings import looked_up
from extended_dlc.cli.exit_codes import FAILED, OK
from extended_dlc.decisions.packages import tell_package
from extended_dlc.decisions.sizing import smallest_instances
from extended_dlc.facts.catalog import INFERENCE, dlc_images
from extended_dlc.facts.checks import check_model_id, check_release, model_id
from extended_dlc.facts.compat import ModelType, check_model_type, find_model_type, find_release, near_model_type
from extended_dlc.facts.gpus import built_for
from extended_dlc.facts.models import ModelFacts, context_key, know_model
from extended_dlc.facts.releases import releases
from extended_dlc.facts.tasks import check_task
from extended_dlc.terminal import Screen


@click.command()
@click.argument("model")
@click.option("--config", type=click.Path(dir_okay=False, exists=True), help="The model's config.json.")
@click.option("--model-type", help="The model's model_type, where nothing else says it.")
@click.option(
    "--parameters", type=click.IntRange(min=1), help="The model's number of parameters, where nothing else says it."
)
@click.option("--task", help="The pipeline task that the model is for.")
@click.option("--transformers", help="A release to check it against. Default: the newest known here.")
@click.option("--with", "packages", multiple=True, metavar="PACKAGE==RELEASE", help="A package installed beside it.")
@click.option("--region", help="Where the instances are to be.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def check(
    model: str,
    config: str | None,
    model_type: str | None,
    parameters: int | None,
    task: str | None,
    transformers: str | None,
    packages: tuple[str, ...],
    region: str | None,
    as_json: bool,
) -> None:
    """Tell what MODEL needs: releases, an image, memory, instances.

    From its name (BLOOM and Whisper), from ./cdk.context.json after extended-dlc lookup, and from its config.json. Ends
    with status 1 when the release is known not to do.
    """
    name = model_id(model)
    try:
        check_model_id(name)
    except ValueError as error:
        raise click.ClickException(f"'{name}' {error}") from None
    try:
        facts = know_model(
            name,
            looked_up=looked_up().get(context_key(name)),
            config=_read(config) if config else None,
            model_type=model_type,
            parameters=parameters,
            task=task,
        )
    except ValueError as error:
        raise click.ClickException(str(error)) from None
    release = transformers or next(reversed(releases()))
    compatibility, wrong = _packages(packages, release)
    problems = [*_problems(facts, release), *wrong]
    answer = {**_answer(facts, release, region), "packages": compatibility, "problems": problems}
    if as_json:
        click.echo(json.dumps(answer, indent=2))
    else:
        _print(facts, answer)
    raise SystemExit(FAILED if problems else OK)


def _answer(facts: ModelFacts, release: str, region: str | None) -> dict[str, Any]:
    """The known facts of the model, and the decisions that follow from them."""
    known = find_model_type(facts.model_type or "")
    newest = dlc_images(INFERENCE, accelerator="gpu")[-1]
    return {
        "model": facts.model_id,
        "model_type": facts.model_type,
        "task": facts.task,
        "parameters": facts.parameters,
        "dtype": facts.dtype,
        "licence": facts.licence,
        "gated": facts.gated,
        "needs": {"first": known.first, "last": known.last} if known else None,
        "transformers": release,
        "aws_images": _aws_images(known),
        "smallest": {kind: list(smallest_instances(facts, kind, region=region)) for kind in ("cpu", "gpu")},
        "gpus": built_for(newest.cuda, newest.torch),
        "smallest_parallel": list(smallest_instances(facts, "gpu", spread="all", region=region)),
    }


def _read(config: str) -> dict[str, Any]:
    try:
        content = json.loads(Path(config).read_text("utf-8-sig"))
    except (OSError, ValueError) as error:
        raise ValueError(f"'--config' ({config}) cannot be read: {error}; give the model's config.json") from None
    if not isinstance(content, dict):
        raise ValueError(f"'--config' ({config}) holds no object: give the model's config.json")
    return content


def _problems(facts: ModelFacts, release: str) -> list[str]:
    """The problems of the model with this release."""
    try:
        check_release(release)
    except ValueError as error:  # other checks need a valid release
        return [f"transformers '{release[:50]}' {error}"]
    problems = []
    for what, check in (
        (f"transformers {release} ", lambda: find_release(release)),
        ("", lambda: check_model_type(facts.model_type or "", release)),
        (f"'{facts.task}' ", lambda: check_task(facts.task, release, "native") if facts.task else None),
    ):
        try:
            check()
        except ValueError as error:
            problems.append(f"{what}{error}")
    return problems


def _packages(packages: tuple[str, ...], release: str) -> tuple[dict[str, str], list[str]]:
    """The compatibility of each package with the release as text, and the problems of incompatible ones."""
    compatibility, problems = {}, []
    for package in packages:
        try:
            compatibility[package] = tell_package(package, release)
        except ValueError as error:
            problems.append(f"'{package}' {error}")
    return compatibility, problems


def _aws_images(known: ModelType | None) -> list[str]:
    """AWS's images whose transformers has the model type, the newest last."""
    images = dlc_images(INFERENCE) if known else []
    return [image.tag for image in images if known and image.transformers and _knows(known, image.transformers)]


def _knows(known: ModelType, transformers: str) -> bool:
    try:
        check_model_type(known.model_type, transformers)
    except ValueError:
        return False
    return True


def _print(facts: ModelFacts, answer: dict[str, Any]) -> None:
    screen, known = Screen(), find_model_type(facts.model_type or "")
    for problem in answer["problems"]:
        screen.finding("problem", "problem", "", problem, None, width=3)
    if answer["problems"]:
        screen.line()
    if known is not None:
        until = f" to {known.last}" if known.last else " or newer"
        needs = f"transformers {known.first}{until}"
    elif facts.model_type is None:
        needs = "not known: give --config, or run extended-dlc lookup MODEL"
    else:
        needs = f"not known: no release read here has '{facts.model_type}'{near_model_type(facts.model_type)}"
    images = answer["aws_images"]
    if images:
        image = f"AWS's own does: {images[-1]} (StockDlc), or an extended one"
    else:
        image = "an extended one (ExtendedDlc): no image of AWS's has it" if known else "not known"
    smallest = {kind: ", ".join(names) for kind, names in answer["smallest"].items()}
    lines = {
        "model": facts.model_id or "",
        "type": facts.model_type or "not known",
        "needs": needs,
        "image": image,
        "task": facts.task or "found out in the container",
        "parameters": f"{facts.parameters:,}" if facts.parameters else "not known",
        "format": facts.dtype or "not known",
        "on a CPU": smallest["cpu"] or "none",
        "on a GPU": smallest["gpu"] or f"no single one; in parallel (vLLM) {', '.join(answer['smallest_parallel'])}",
        "GPUs": f"{answer['gpus']}, with the newest Hugging Face base",
        "licence": facts.licence or "not known",
        "gated": "not known" if facts.gated is None else "yes: it needs a token" if facts.gated else "no",
    }
    if not facts.size:
        lines["on a CPU"] = lines["on a GPU"] = "not known: give --parameters, or run extended-dlc lookup MODEL"
    screen.facts(lines)
    for package, what in answer["packages"].items():
        screen.facts({"package": f"{package}: {what}"})
