"""`extended-dlc train --local`: a training on this machine, by its script or in its container."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from extended_dlc.app.read import SettingsError
from extended_dlc.cli._settings import decided, require_training
from extended_dlc.cli.exit_codes import FAILED, OK
from extended_dlc.images.registry_login import engine_program
from extended_dlc.terminal import Screen

if TYPE_CHECKING:
    from extended_dlc.cli.train import Options
    from extended_dlc.training.local import LocalTraining


def _settings(options: Options) -> Any:
    """The settings; raises `SettingsError` if they have problems."""
    raw = options.raw()
    require_training(options.name, raw)
    found = decided(raw)
    if found.settings is None or found.problems:
        raise SettingsError(found.report)
    return found.settings


def _local_channels(options: Options) -> dict[str, Path]:
    """The folders of this machine that stand for channels."""
    channels = {key: Path(folder) for key, folder in _pairs("--channel", options.channel).items()}
    for key, folder in channels.items():
        if not any(files for _, _, files in os.walk(folder, followlinks=True)):
            raise click.ClickException(f"'--channel' ({key}={folder}) is no folder with files: correct the path")
    return channels


def train_locally(options: Options) -> int:
    """Run the training's script or container; returns the exit code of the command."""
    from extended_dlc.app.training import base_of
    from extended_dlc.decisions.script import check_hyperparameters
    from extended_dlc.decisions.training import MODEL_CHANNEL
    from extended_dlc.training.local import LocalTraining

    name, settings = options.name, _settings(options)
    section = settings.training[name]
    channels = _local_channels(options)
    base = base_of(section, settings.endpoints)
    kind = base.weights.kind if base is not None else None
    wanted = {*section.channels, *([MODEL_CHANNEL] if kind == "s3" else [])}
    if missing := sorted(wanted - set(channels)):
        raise click.ClickException(
            f"channel {', '.join(missing)} of '{name}' is in S3: name a folder of this machine in its place, "
            f"--channel {missing[0]}=FOLDER"
        )
    environment = _environment(section, base, from_hub=MODEL_CHANNEL not in channels, merges=not options.script)
    training = LocalTraining(
        code=section.code.into_option(),
        hyperparameters={**(section.hyperparameters or {}), **_pairs("--set", options.given)},
        channels=channels,
        environment=environment,
        folder=Path(options.output or f"{name}-local"),
    )
    stdout = 2 if options.as_json else None  # the script's lines go beside the JSON
    try:
        check_hyperparameters(training.code, training.program, training.hyperparameters, transformers=None)
        if options.script:
            code = training.run_script(stdout=stdout)
        else:
            code = training.run_container(engine_program(), _image(options.image), stdout=stdout)
    except ValueError as error:
        raise click.ClickException(str(error)) from None
    _tell_end(training, code, as_json=options.as_json)
    return OK if code == 0 else FAILED


def _tell_end(training: LocalTraining, code: int, *, as_json: bool) -> None:
    """Say what came of a training on this machine."""
    model = training.folder / "model"
    if as_json:
        saved = str(model) if training.has_model() else None
        status = "SUCCEEDED" if code == 0 else "FAILED"
        click.echo(json.dumps({"status": status, "exit_code": code, "model": saved}, indent=2))
    if code != 0:
        Screen(err=True).line(f"failed with exit code {code}: {training.why(code)}", "problem")
    elif not training.has_model():
        Screen(err=as_json).line(
            f"done, and {model} is empty: let the script save its model to the folder that SM_MODEL_DIR names, or "
            "SageMaker loses it with the machine",
            "problem",
        )
    elif not as_json:
        Screen().line(f"done: {model}", "ok")


def _environment(section: Any, base: Any, *, from_hub: bool, merges: bool) -> dict[str, str]:
    """The variables of the script; a base that is mirrored on AWS comes from the Hub here, by the same commit."""
    variables: dict[str, str | None] = {"HF_TASK": base.task if base is not None else None}
    if base is not None and from_hub:
        variables |= {"HF_MODEL_ID": base.model, "HF_MODEL_REVISION": base.revision}
    if merges and section.adapter == "merged":
        variables["EXTENDED_DLC_MERGE_ADAPTER"] = "true"
    return {name: value for name, value in variables.items() if value is not None} | (section.environment or {})


def _image(image: str | None) -> str:
    if image is None:
        raise click.ClickException(
            "no image: name one that is on this machine with --image, as the local name of what 'cdk deploy' has built "
            "(docker image ls), or take --script, which runs the script with this Python"
        )
    return image


def _pairs(option: str, given: tuple[str, ...]) -> dict[str, str]:
    found = {}
    for each in given:
        key, equals, value = each.partition("=")
        if not (key and equals):
            raise click.ClickException(f"'{option}' ({each}) is no pair: write it as NAME=VALUE")
        found[key] = value
    return found
