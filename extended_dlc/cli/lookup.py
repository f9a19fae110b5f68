"""`extended-dlc lookup`."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path

import click

from extended_dlc import files
from extended_dlc.cli._settings import looked_up
from extended_dlc.facts.checks import check_model_id, model_id
from extended_dlc.facts.models import context_key, dataset_key
from extended_dlc.models.hub_lookup import HUB, LookupFailed, ask_hub, ask_hub_of_dataset
from extended_dlc.terminal import Screen, Waiting


@click.command()
@click.argument("model")
@click.option("--revision", help="Commit, tag or branch. Default: main.")
@click.option("--dataset", is_flag=True, help="MODEL is a data set, as of a training's channel.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def lookup(model: str, revision: str | None, dataset: bool, as_json: bool) -> None:
    """Ask the Hub about MODEL and note its answer in ./cdk.context.json.

    Type, task, size, commit, licence, and whether it is gated: what a synth decides by, which itself asks nobody.
    Commit the file. HF_ENDPOINT names another address of the Hub, HF_TOKEN holds your token for a gated or private
    model; the token goes into no file.
    """
    name = model if dataset else model_id(model)
    ask = ask_hub_of_dataset if dataset else ask_hub
    try:
        check_model_id(name)
        context = looked_up()
    except ValueError as error:
        raise click.ClickException(f"'{name}' {error}") from None
    try:
        with Waiting(f"asking the Hub for {name}", out=sys.stderr):
            answer = ask(
                name,
                revision=revision,
                endpoint=os.environ.get("HF_ENDPOINT") or HUB,
                token=os.environ.get("HF_TOKEN") or None,
            )
    except LookupFailed as error:
        raise click.ClickException(str(error)) from None
    context[dataset_key(name) if dataset else context_key(name)] = answer
    files.write(Path("cdk.context.json"), json.dumps(context, indent=2, sort_keys=True) + "\n")
    if as_json:
        click.echo(json.dumps({"dataset" if dataset else "model": name, **answer}, indent=2))
        return
    screen = Screen()
    screen.facts(
        {key.replace("_", " "): _words(value) for key, value in answer.items() if value is not None},
        width=25,
    )
    screen.line("noted in cdk.context.json", "ok")


def _words(value: object) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    return f"{value:,}" if isinstance(value, int) else str(value)
