"""Checks a part's model: access, revision, type, task, requirements, and the way to the Hub."""

from __future__ import annotations

import re
from collections.abc import Sequence
from functools import partial

from extended_dlc.decisions.access import check_access, check_copy, check_network, copy_notes
from extended_dlc.decisions.asked import OF_HUB
from extended_dlc.decisions.deciding import Deciding
from extended_dlc.decisions.environment import ADAPTERS, hub_adapters
from extended_dlc.decisions.packages import check_packages
from extended_dlc.facts.compat import check_model_type, find_model_type, near_model_type
from extended_dlc.facts.models import is_named
from extended_dlc.facts.tasks import check_task
from extended_dlc.options._values import is_token


def check_model(about: Deciding) -> None:
    """Refuse a model that the image cannot serve, and note what is unknown or can change."""
    model, facts = about.part.model, about.part.model.facts
    about.model.check(
        "model",
        facts.model_id,
        lambda: check_access(
            gated=facts.gated, token=model.token, from_hub=model.source == "hub", licence=facts.licence
        ),
    )
    if model.source == "mirrored":
        about.model.check(
            "model",
            facts.model_id,
            lambda: check_copy(gated=facts.gated, token=model.copy_token, kept="S3Model"),
        )
        if model.copy_token is not None:  # of settings; the construct of a copy notes these itself
            licence = model.licence or facts.licence
            for kind, text in copy_notes(called=facts.called, licence=licence, region=about.region):
                about.model.note(kind, text, level="info" if kind == "licence" else "warning", setting="model")
    _note_the_unknown(about)
    _note_what_moves(about)
    _check_type(about)
    _check_token(about)
    _check_task(about)
    _check_adapters(about)
    _check_requirements(about)
    _note_china(about)
    _check_network(about)


def _note_the_unknown(about: Deciding) -> None:
    """Note the unknown facts of a Hub model, and the command that looks them up."""
    facts = about.part.model.facts
    if about.part.model.source not in OF_HUB or facts.model_id is None or is_named(facts.model_id):
        return
    unknown = [
        what
        for what, value in (
            ("model type", facts.model_type),
            ("size", facts.size),
            ("whether it is gated", facts.gated),
        )
        if value is None
    ]
    kind = facts.model_type
    if unknown:
        about.model.note(
            "unknown-model",
            f"nobody here knows of '{facts.model_id}' its {_and(unknown)}, so that is not checked: "
            f"run 'extended-dlc lookup {facts.model_id}', which asks the Hub",
            setting="model",
        )
    if kind is not None and find_model_type(kind) is None:
        about.model.note(
            "model-type",
            f"'{kind}' is in no release read here{near_model_type(kind)}: it is not checked",
            setting="model_type",
        )


def _note_what_moves(about: Deciding) -> None:
    """Note a revision that can move, and the model's licence."""
    model = about.part.model
    if model.source != "hub":
        return
    # Code that changes is a greater risk than weights that change.
    what = "run other code" if model.trust_remote_code else "serve other weights"
    if model.revision is None:
        known = model.facts.revision
        commit = f"revision={known}, which was looked up" if known else "the commit of the model's page as revision="
        about.model.note(
            "unpinned-revision",
            f"{model.facts.called} has no revision: a container that starts later may {what}; pass {commit}",
            setting="revision",
        )
    elif not is_token(model.revision) and not re.fullmatch(r"[0-9a-f]{40}", model.revision):
        about.model.note(
            "unpinned-revision",
            f"revision '{model.revision}' of {model.facts.called} is no commit and can move: a container that starts "
            f"later may then {what}; pass the commit's 40 digits as revision=",
            setting="revision",
        )
    if (licence := model.licence or model.facts.licence) is not None:
        about.model.note(
            "licence", f"{model.facts.called} is under the licence {licence}", level="info", setting="model"
        )


def _check_type(about: Deciding) -> None:
    """Refuse a model type that the transformers release of the image, or of its requirements, does not have."""
    model, image = about.part.model, about.image
    kind = model.facts.model_type
    release, name = image.transformers, None
    if image.kind == "stock" and image.base is not None:
        name = image.base.rpartition("/")[2]
        if model.code is not None:
            base = image.base
            injected = about.model.ask(
                "requirements",
                None,
                lambda: model.code.release_on_stock(base) if model.code else None,
                setting="weights.requirements",
                whole=True,
            )
            if injected is not None:
                release, name = injected, None
    if kind is None or release is None or image.kind not in ("extended", "stock", "ecr"):
        return
    about.model.check(
        "model",
        model.facts.model_id,
        lambda: check_model_type(kind, release, image=name),
        setting="model",
        whole=True,
    )


def _check_token(about: Deciding) -> None:
    if about.part.model.token and about.image.server == "stock":
        about.model.refuse(
            "token",
            None,
            "the model's token is a secret that the stock server does not read: take the native server "
            "(ExtendedDlc(transformers=…)), or let MirroredModel copy the weights with it",
            setting="weights.token_secret",
            whole=True,
        )


def _check_task(about: Deciding) -> None:
    task, image, code = about.task, about.image, about.part.model.code
    if task is not None and code is None and image.kind in ("extended", "stock") and image.family != "vllm":
        note = about.model.ask("task", task, lambda: check_task(task, image.transformers, image.server))
        about.model.note("task", note, setting="task")


def _check_adapters(about: Deciding) -> None:
    """Refuse adapters of the Hub that the container cannot get or name, and note revisions that can move."""
    model, adapters = about.part.model, hub_adapters(about.part.environment)
    if adapters and model.source == "mirrored":
        about.model.refuse(
            "environment",
            ADAPTERS,
            "names adapters on the Hub, which the containers of a mirrored model never ask: serve the model by "
            "HubModel, or by S3Model with the adapters in adapters/NAME/ beside its weights",
        )
    if model.facts.model_id in adapters:
        about.model.refuse(
            "environment",
            ADAPTERS,
            f"names an adapter '{model.facts.model_id}', which is the model itself: give the adapter another name",
        )
    moving = [
        name
        for name, (_, revision) in adapters.items()
        if revision is None or not re.fullmatch(r"[0-9a-f]{40}", revision)
    ]
    if moving:
        about.model.note(
            "unpinned-adapter",
            f"the adapters {_and(moving)} of {ADAPTERS} have no commit: a container that starts later may serve other "
            "weights; write NAME=ID@COMMIT with the commit's 40 digits",
            setting="environment",
        )


def _check_requirements(about: Deciding) -> None:
    code, image, finder = about.part.model.code, about.image, about.model
    if code is not None and image.kind == "extended" and image.transformers and image.server:
        for requirement in code.read_requirements():
            notes = finder.ask(
                "requirements",
                requirement.text,
                partial(check_packages, [requirement.text], image.transformers, image.server),
                setting="weights.requirements",
            )
            for note in notes or ():
                finder.note("requirements", note, setting="weights.requirements")


def _note_china(about: Deciding) -> None:
    model = about.part.model
    in_china = about.region is not None and about.region.startswith("cn-")
    if in_china and model.source == "hub" and "HF_ENDPOINT" not in about.part.environment:
        about.model.note(
            "hub-in-china",
            f"huggingface.co is out of reach in {about.region} as a rule, and a container fetches "
            f"{model.facts.called} from it: set HF_ENDPOINT in 'environment' to a mirror of the Hub that is in "
            "reach, or bring the weights by S3Model",
        )


def _check_network(about: Deciding) -> None:
    endpoint, model = about.part.endpoint, about.part.model
    notes = about.model.ask(
        "network_isolation",
        None,
        lambda: check_network(
            isolated=endpoint.network_isolation,
            from_hub=model.source == "hub",
            token=model.token,
            requirements=model.code is not None and "code/requirements.txt" in model.code.files(),
            adapters=bool(hub_adapters(about.part.environment)),
            way_out=endpoint.way_out if endpoint.network else None,
        ),
    )
    for note in notes or ():
        about.model.note("no-way-out", note, setting="network")


def _and(words: Sequence[str]) -> str:
    return ", ".join(words[:-1]) + f" and {words[-1]}" if len(words) > 1 else words[0]
