"""`extended-dlc prepare`."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import click

from extended_dlc import files
from extended_dlc.app.read import Raw, SettingsError, lookups_file, read_lookups
from extended_dlc.cli._settings import decided, raw_settings
from extended_dlc.decisions.asked import OF_HUB
from extended_dlc.decisions.decide import Decision
from extended_dlc.doctor.tools import old_node
from extended_dlc.facts.models import context_key, dataset_key, is_named
from extended_dlc.images.registry_login import LoginFailed, ecr_registries, engine_program, log_in
from extended_dlc.models.hub_lookup import HUB, HubOutOfReach, LookupFailed, ask_hub, ask_hub_of_dataset
from extended_dlc.terminal import Screen, Waiting

SECONDS = 5
"""Timeout of a Hub request, so that an unreachable Hub does not delay the synth."""


@click.command()
@click.option("--settings", type=click.Path(dir_okay=False), help="Settings of the app. Default: those in cdk.json.")
def prepare(settings: str | None) -> None:
    """Do what a synth cannot: look up models that this package does not know, and log in to the base image's registry.

    The CDK CLI runs it before each synth ("build" in cdk.json). What the Hub says is noted beside the settings, in a
    file that the app reads in the same synth; commit it. Always ends with status 0; what it cannot do, it says.
    """
    try:
        raw = raw_settings(settings)
        found = decided(raw)
        if look_up(raw, found.decision, found.settings):
            found = decided(raw)
    except (SettingsError, OSError) as error:
        Screen(err=True).line(f"extended-dlc prepare: {error}; cdk synth says more", "warning")
        return
    log_in_to(found.bases, quiet=True)
    if old := old_node():
        Screen(err=True).line(f"extended-dlc prepare: {old}", "warning")


def look_up(raw: Raw, decision: Decision, settings: Any) -> bool:
    """Look up each unknown model and data set of the settings on the Hub, and stop if the Hub is unreachable.

    Returns whether new facts were written; raises `OSError` if they cannot be written.
    """
    screen = Screen(err=True)
    known = read_lookups(raw.file)
    found: dict[str, Any] = {}
    wanted = [(context_key(name), ask_hub, name, revision) for name, revision in _unknown(decision)]
    for key, ask, name, revision in [*wanted, *_of_trainings(settings, known)]:
        if key in found:
            continue
        try:
            found[key] = ask(
                name,
                revision=revision,
                endpoint=os.environ.get("HF_ENDPOINT") or HUB,
                token=os.environ.get("HF_TOKEN") or None,
                timeout=SECONDS,
            )
        except LookupFailed as error:
            screen.line(f"extended-dlc prepare: '{name}' is not looked up: {error}", "warning")
            if isinstance(error, HubOutOfReach):
                break
            continue
        screen.line(f"extended-dlc prepare: '{name}' is looked up on the Hub")
    if found:
        files.write(lookups_file(raw.file), json.dumps({**known, **found}, indent=2, sort_keys=True) + "\n")
    return bool(found)


def _unknown(decision: Decision) -> list[tuple[str, str | None]]:
    """The Hub models with unknown facts, each with its revision, without duplicates."""
    noted = {note.section for note in decision.notes if note.kind == "unknown-model"}
    parts = [part.part for endpoint in decision.endpoints for part in endpoint.parts]
    return list(
        dict.fromkeys(
            (str(part.model.facts.model_id), part.model.revision)
            for part in parts
            if part.section in noted and not part.model.facts.revision
        )
    )


def _of_trainings(
    settings: Any, known: Mapping[str, Any]
) -> Iterator[tuple[str, Callable[..., dict[str, Any]], str, str | None]]:
    """The base models and data sets of trainings of which nothing is known, with what asks the Hub about each."""
    from extended_dlc.app.schema import HubChannel  # it imports pydantic, which `--help` does not need

    for section in (settings.training if settings is not None else {}).values():
        base = section.base_model
        of_hub = base is not None and base.weights.kind in OF_HUB
        if of_hub and context_key(base.model) not in known and not is_named(base.model):
            yield context_key(base.model), ask_hub, base.model, base.revision
        for each in section.channels.values():
            if isinstance(each, HubChannel) and dataset_key(each.dataset) not in known:
                yield dataset_key(each.dataset), ask_hub_of_dataset, each.dataset, each.revision


def log_in_to(bases: tuple[str, ...], *, quiet: bool = False) -> dict[str, str | None]:
    """Log the engine in to the private ECR registries of these images; returns host -> None, or the error.

    :param quiet: Do not print successful logins.
    """
    screen = Screen(err=True)
    engine = engine_program()
    done: dict[str, str | None] = {}
    for registry in ecr_registries(bases):
        try:
            with Waiting(f"logging {engine} in to {registry.host}", out=sys.stderr):
                log_in(registry, engine)
            done[registry.host] = None
            if not quiet:
                screen.line(f"extended-dlc login: {engine} is logged in to {registry.host}", "ok")
        except LoginFailed as error:
            done[registry.host] = str(error)
            screen.line(
                f"extended-dlc login: not logged in to {registry.host}, from which the base image comes: {error}.",
                "warning",
            )
            screen.line(
                "  A synth works without; to build the image, run 'extended-dlc login' again before 'cdk deploy'.",
                hang=2,
            )
    return done
