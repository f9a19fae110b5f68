"""Tiny random models and adapters in the stand-in for the Hub, each of the type of one of the app's."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from extended_dlc import files
from extended_dlc.facts.catalog import version
from extended_dlc.facts.compat import find_model_type, near_model_type
from extended_dlc.facts.models import context_key, know_model
from extended_dlc.models.hub_lookup import HUB, HubOutOfReach, LookupFailed, ask_hub
from extended_dlc.rehearsal.assembly import HubModelAsked
from extended_dlc.rehearsal.base_image import stand_in as standin
from extended_dlc.rehearsal.engine import LABEL, Engine
from extended_dlc.rehearsal.tiny_models import PROGRAM
from extended_dlc.running import run

_TYPES = Path(__file__).parent / "base_image" / "context" / "tiny_types.py"
_HUB_SECONDS = 5
_NEWEST = "5.24.0"
"""The transformers release for types that the stand-in's own release does not have."""


@dataclass(frozen=True, kw_only=True)
class TinyModel:
    """A tiny model or adapter in place of one of the Hub; an adapter has the type and the task of its base."""

    asked: HubModelAsked
    model_type: str
    task: str

    @property
    def order(self) -> str:
        """What the program is asked to make."""
        seed = int(hashlib.sha256(self.asked.id.encode()).hexdigest()[:6], 16)
        what = f"adapter:{self.asked.base}" if self.asked.base else f"{self.model_type}:{self.task}"
        return f"{what}:{seed}={self.asked.id}"

    @property
    def kind(self) -> str:
        """What it is, for the report."""
        return f"adapter of {self.asked.base}" if self.asked.base else self.model_type


def of_type(
    asked: Iterable[HubModelAsked], *, given: Mapping[str, str], looked_up: Mapping[str, Any]
) -> list[TinyModel]:
    """The tiny model for each. Raises `ValueError` with the models whose type is unknown.

    :param given: `--model`: ID to type, or TYPE:TASK.
    :param looked_up: The results of `extended-dlc lookup` and `prepare`.
    """
    asked = list(asked)
    found: list[TinyModel] = []
    unknown: list[str] = []
    for each in asked:
        if each.base:
            continue
        said, _, said_task = given.get(each.id, "").partition(":")
        facts = know_model(each.id, looked_up=looked_up.get(context_key(each.id)), revision=each.revision or None)
        model_type = said or facts.model_type
        if model_type is None:
            unknown.append(f"  {each.id}")
        elif find_model_type(model_type) is None:
            near = near_model_type(model_type)
            unknown.append(f"  {each.id}: no release of transformers that is known here has '{model_type}'{near}")
        else:
            found.append(TinyModel(asked=each, model_type=model_type, task=said_task or each.task or facts.task or ""))
    bases = {each.asked.id: each for each in found}
    found += [replace(bases[each.base], asked=each) for each in asked if each.base in bases]
    if strange := sorted(set(given) - {each.id for each in asked}):
        ids = ", ".join(sorted({each.id for each in asked})) or "none"
        raise ValueError(f"'--model' ({strange[0]}) is not a model of the app: it asks for {ids}")
    if unknown:
        raise ValueError(
            "\n".join(["the type of these models is not known, so that no tiny one can stand in for them:", *unknown])
            + "\nname it with --model ID=TYPE (as my/model=llama, or with a task my/model=llama:text-generation), look "
            "it up where the Hub is in reach (extended-dlc lookup ID), or take the models themselves (--fetch)"
        )
    return found


def ask_about(
    asked: Iterable[HubModelAsked], *, given: Mapping[str, str], looked_up: Mapping[str, Any]
) -> dict[str, Any]:
    """The Hub's facts about models whose type is unknown here, where the Hub is reachable."""
    found: dict[str, Any] = {}
    for each in asked:
        key = context_key(each.id)
        facts = know_model(each.id, looked_up=looked_up.get(key), revision=each.revision or None)
        if each.base or each.id in given or facts.model_type is not None:
            continue
        try:
            found[key] = _ask(each)
        except HubOutOfReach:
            break
        except LookupFailed:  # `of_type` reports it with the others whose type is unknown
            continue
    return found


def out_of_reach(asked: Iterable[HubModelAsked]) -> list[str]:
    """The reasons why these models cannot be got from the Hub, where `--fetch` asks for them."""
    reasons = []
    for each in asked:
        if each.base:  # what is asked about is in a model's config.json, which an adapter lacks
            continue
        try:
            _ask(each)
        except HubOutOfReach as error:
            return [f"'--fetch' gets the models from the Hub: {error}; or leave it out for tiny stand-ins"]
        except LookupFailed as error:
            reasons.append(str(error))
    return reasons


def _ask(asked: HubModelAsked) -> dict[str, Any]:
    return ask_hub(
        asked.id,
        revision=asked.revision or None,
        endpoint=os.environ.get("HF_ENDPOINT") or HUB,
        token=os.environ.get("HF_TOKEN") or None,
        timeout=_HUB_SECONDS,
    )


def make(
    engine: Engine, image: str, hub: Path, models: Iterable[TinyModel], *, say: Callable[[str], None]
) -> dict[str, str]:
    """Make the models below `hub` in a container of `image`, unless they exist.

    Returns the reasons of those that cannot be made, by their IDs.
    """
    hub.mkdir(parents=True, exist_ok=True)
    reasons: dict[str, str] = {}
    older: list[TinyModel] = []
    newer: list[TinyModel] = []
    for model in {each.asked.id: each for each in models}.values():
        known = find_model_type(model.model_type)
        is_newer = known is not None and version(known.first) > version(standin.DLC_4_51_3.transformers)
        (newer if is_newer else older).append(model)
    for some, releases in ((older, None), (newer, _NEWEST)):
        todo = [each for each in some if not _is_made(hub, each)]
        if not todo:
            continue
        more = _newer_transformers(engine, image, hub.parent, releases, say) if releases else ()
        reasons |= _run(engine, image, hub, todo, more)
        for each in todo:
            if each.asked.id not in reasons:
                (hub / each.asked.id / ".made").write_text(_stamp(each))
    for each in models:
        if each.asked.revision and each.asked.id not in reasons:
            revision = hub / f"{each.asked.id}@{each.asked.revision}"
            shutil.rmtree(revision, ignore_errors=True)
            shutil.copytree(hub / each.asked.id, revision)
    return reasons


def _run(engine: Engine, image: str, hub: Path, models: list[TinyModel], more: tuple[str, ...]) -> dict[str, str]:
    """Run the program; returns the reasons of the models that it could not make."""
    mounts = [f"--volume={file}:/program/{file.name}:ro" for file in (PROGRAM, _TYPES)]
    program = ("python", "/program/tiny_types.py", "/models", *(each.order for each in models))
    script = 'errors=/tmp/errors; "$@" 2>$errors; status=$?; cat $errors; [ $status = 3 ] || exit $status'
    output = engine.call(
        *("run", "--rm", "--network=none", f"--label={LABEL}={hub.parent}", *mounts, *more),
        *(f"--volume={hub.resolve()}:/models", "--entrypoint=sh", image, "-c", script, "sh", *program),
    )
    ids = {each.asked.id for each in models}
    lines = (line.rpartition("\r")[2].partition(": ") for line in output.splitlines())
    return {name: reason for name, _, reason in lines if name in ids}


def _newer_transformers(
    engine: Engine, image: str, state: Path, release: str, say: Callable[[str], None]
) -> tuple[str, ...]:
    """The options of `run` that mount a newer transformers beside the image's torch; it is downloaded once."""
    python = engine.call(
        "run", "--rm", "--entrypoint=python", image, "-c", "import sys; print('%d.%d' % sys.version_info[:2])"
    ).strip()
    folder = state / "models" / f"transformers-{release}-py{python}"
    if not (folder / ".made").exists():
        say(f"getting transformers {release}, which makes models of newer types")
        command = [
            *standin.pip_command(),
            "install",
            "--quiet",
            f"--target={folder}",
            "--upgrade",
            "--only-binary=:all:",
        ]
        target = standin.pip_target(python) or [f"--python-version={python}"]
        done = run([*command, *target, f"transformers=={release}"])
        if done.returncode != 0:
            raise RuntimeError(f"pip cannot get transformers {release}: {done.stderr.strip()[-500:]}")
        files.write(folder / ".made", release)
    return (f"--volume={folder.resolve()}:/newer:ro", "--env=PYTHONPATH=/newer")


def _is_made(hub: Path, model: TinyModel) -> bool:
    made = hub / model.asked.id / ".made"
    return made.exists() and made.read_text("utf-8") == _stamp(model)


def _stamp(model: TinyModel) -> str:
    return hashlib.sha256(
        json.dumps([PROGRAM.read_text("utf-8"), _TYPES.read_text("utf-8"), model.order]).encode()
    ).hexdigest()
