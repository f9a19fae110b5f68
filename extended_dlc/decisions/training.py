"""Decides on a training job: its refusals and notes."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Literal

from extended_dlc.decisions.access import check_copy
from extended_dlc.decisions.asked import OF_HUB, ModelAsked
from extended_dlc.decisions.found import Finder, Found
from extended_dlc.decisions.script import check_hyperparameters
from extended_dlc.decisions.script_source import launched_by
from extended_dlc.decisions.training_fit import fit_training, implied_arguments, is_sharded, smallest_for_training
from extended_dlc.facts.catalog import version
from extended_dlc.facts.checks import check_environment, holds_hub_token, is_same_model
from extended_dlc.facts.compat import check_model_type
from extended_dlc.facts.instances import Instance
from extended_dlc.facts.limits import check_limit, most
from extended_dlc.options._values import is_token
from extended_dlc.options.training import (
    EvaluationGate,
    HyperParameter,
    TrainingCode,
    TrainingInstances,
    as_argument,
)

Adapter = Literal["merged", "beside"]
"""Whether a LoRA adapter that the script saves is merged into the base, or served beside it."""

NAME_LENGTH = 50
"""Longest prefix of a job's name: SageMaker takes 63 characters, and each run adds a hyphen and twelve digits."""

MODEL_CHANNEL = "model"
"""Name of the input channel for weights in S3."""

CODE_CHANNEL = "code"
"""Name of the input channel with the code for a container without a network, which cannot download it."""

_COMMIT = re.compile(r"[0-9a-f]{40}")
_CHANNEL = re.compile(r"(?!\.+$)[A-Za-z0-9._-]{1,64}")
_OWN_CHANNELS = {MODEL_CHANNEL: "the base model's weights", CODE_CHANNEL: "the script, where it comes as a channel"}
_REPEATED_TWICE = re.compile(r"(?<!\\)\((?:\?:)?(?:\[(?:\\.|[^\]\\])+\]|\\.|[^\\()\[\]])[+*]\)[+*]")
"""As `([0-9]+)*`: a group of nothing but one repetition, which is repeated itself."""

_JOB_NAME = re.compile(r"[a-zA-Z0-9](-*[a-zA-Z0-9])*")
VARIABLES = {
    "HF_MODEL_ID": "base_model",
    "HF_MODEL_REVISION": "base_model",
    "HF_TOKEN_SECRET_ARN": "the base_model's token",
    "HF_TASK": "the base_model's task",
    "HF_HUB_OFFLINE": "network_isolation or a base_model in S3",
    "EXTENDED_DLC_MERGE_ADAPTER": "adapter",
}
"""The environment variables that a training sets -> the option that sets each."""


@dataclass(frozen=True, kw_only=True)
class TrainingAsked:
    """The options of a training."""

    section: str = ""
    """Its section in the settings: `training.speech`."""

    name: str
    code: TrainingCode
    hyperparameters: Mapping[str, HyperParameter] = field(default_factory=dict)
    channels: Sequence[str] = ()
    model: ModelAsked | None = None
    instances: TrainingInstances
    adapter: Adapter | None = None
    gate: EvaluationGate | None = None
    registry: str | None = None
    environment: Mapping[str, str] = field(default_factory=dict)
    metrics: Mapping[str, str] = field(default_factory=dict)
    transformers: str | None = None
    """The transformers release in the training image; None if unknown."""

    serving: str | None = None
    """The transformers release in the image of the endpoint that serves the result."""

    served_base: str | None = None
    """The Hub id of the model that the endpoint serves before the first training."""

    served_revision: str | None = None

    serves: bool = False
    isolated: bool = False
    own_groups: bool = False
    """Whether it runs in security groups of the user's, whose rules are not known here."""

    image_training: bool | None = None
    """Whether it is a training image; None if unknown."""


def decide_training(asked: TrainingAsked, found: Found) -> None:
    """Collect the refusals and notes of a training in `found`."""
    finder = found.at(asked.section)
    _check_names(asked, finder)
    _check_model(asked, finder)
    _check_releases(asked, finder)
    _check_script(asked, finder)
    _check_gate(asked, finder)
    _check_hosts(asked, finder)
    for instance in asked.instances.found:
        _check_instance(asked, instance, finder)


def arguments_of(hyperparameters: Mapping[str, HyperParameter]) -> dict[str, str]:
    """The hyperparameters as texts, as SageMaker takes them."""
    return {name: as_argument(value) for name, value in hyperparameters.items()}


def _check_names(asked: TrainingAsked, finder: Finder) -> None:
    if not is_token(asked.name) and (not _JOB_NAME.fullmatch(asked.name) or len(asked.name) > NAME_LENGTH):
        finder.refuse(
            "job_name",
            asked.name,
            f"must be letters, digits and hyphens between them, at most {NAME_LENGTH}, because each run adds 13 "
            f"characters and SageMaker takes {most('training.name')}: write another",
            setting="",
        )
    registry = asked.registry
    if registry is not None and not is_token(registry) and not (_JOB_NAME.fullmatch(registry) and len(registry) <= 63):
        finder.refuse(
            "registry",
            registry,
            "cannot be the name of a group of the model registry: use letters, digits and hyphens between them, at "
            "most 63 characters",
        )
    _check_channels(asked, finder)
    _check_hyperparameters(asked, finder)
    finder.check("metrics", None, lambda: check_limit("training.metrics", len(asked.metrics)))
    for name, pattern in asked.metrics.items():
        if not name or len(name) > 255:
            finder.refuse("metrics", name[:40] or "''", "must be a name of 1 to 255 characters: write it as 'loss'")
        finder.check("metrics", name, partial(_check_metric, pattern))
    finder.check("environment", None, lambda: check_environment(asked.environment, reserved=VARIABLES))
    for name in asked.environment:
        if name.startswith("SM_"):
            finder.refuse("environment", name, "is set by the toolkit for the script whatever stands here: remove it")


def _check_channels(asked: TrainingAsked, finder: Finder) -> None:
    for channel in asked.channels:
        if not _CHANNEL.fullmatch(channel):
            rule = "must be letters, digits and . _ -, at most 64 and not dots alone: it becomes a folder"
            finder.refuse("channels", channel, rule)
        if channel in _OWN_CHANNELS:
            finder.refuse("channels", channel, f"is the folder of {_OWN_CHANNELS[channel]}: call the channel otherwise")
    taken: dict[str, str] = {}
    for channel in asked.channels:
        if (other := taken.setdefault(channel.upper(), channel)) != channel:
            rule = f"and '{other}' are one variable of the script, SM_CHANNEL_{channel.upper()}: rename one"
            finder.refuse("channels", channel, rule)
    count = len(asked.channels) + (asked.model is not None and asked.model.source != "hub")
    if count > most("training.channels"):
        finder.refuse("channels", str(count), f"are more than SageMaker's {most('training.channels')}: merge some")


def _check_hyperparameters(asked: TrainingAsked, finder: Finder) -> None:
    for key, value in arguments_of(asked.hyperparameters).items():
        if key.startswith("sagemaker_"):
            finder.refuse("hyperparameters", key, "is one of those that SageMaker's own programs are told: remove it")
        if not key:
            finder.refuse("hyperparameters", "''", "is no name of an argument: write it as 'epochs'")
        if holds_hub_token(value):
            finder.refuse(
                "hyperparameters",
                key,
                "holds a literal Hub token, which everyone who may describe the job can read: remove it and revoke the "
                "token; with token= of the HubModel, a secret's token is the script's HF_TOKEN",
            )
        if len(key) > 256 or len(value) > 2500:
            finder.refuse(
                "hyperparameters",
                key[:40],
                "is too long, as name (256 characters) or value (2500): put it into a file of the code's folder",
            )
    # SageMaker adds five of its own.
    finder.check(
        "hyperparameters",
        None,
        lambda: check_limit("training.hyperparameters", len(asked.hyperparameters) + 5),
    )


def _check_metric(pattern: str) -> None:
    if is_token(pattern):
        return
    if len(pattern) > 500:
        raise ValueError("has an expression of more than SageMaker's 500 characters: shorten it")
    if repeated := _REPEATED_TWICE.search(pattern):
        raise ValueError(
            f"has an expression that repeats a repetition ({repeated[0]}), which takes forever on a long line without "
            "a match: repeat once"
        )
    try:
        groups = re.compile(pattern).groups
    except re.error as error:
        raise ValueError(f"has no regular expression ({error}): write one as 'loss: ([0-9.]+)'") from None
    if groups != 1:
        raise ValueError(f"has an expression with {groups} groups: put the number, and nothing else, into one")


def _check_model(asked: TrainingAsked, finder: Finder) -> None:
    model = asked.model
    if model is None:
        if asked.adapter is not None:
            finder.refuse("adapter", asked.adapter, "needs to know its base: name it as base_model")
        return
    _check_served_base(asked, model, finder)
    if model.facts.gated and not model.token and model.source == "hub":
        finder.refuse(
            "base_model",
            model.facts.model_id,
            "is gated: agree to its terms on its page and pass the secret with your token "
            "(HubModel(…, token=secret)), or copy it once with MirroredModel",
        )
    if model.source == "mirrored":
        finder.check(
            "base_model",
            model.facts.model_id,
            lambda: check_copy(gated=model.facts.gated, token=model.copy_token, kept="S3Model"),
        )
    if model.source == "archive":
        finder.refuse(
            "base_model",
            "an archive",
            "is not unpacked for a training: unpack it in S3 and name the prefix, S3Model(bucket, 'prefix/')",
        )
    if asked.isolated and model.source == "hub":
        finder.refuse(
            "network_isolation",
            "True",
            "leaves the container no way to the Hub, where the base model is: copy it with MirroredModel",
        )
    if model.facts.model_type is not None and asked.transformers is not None:
        kind, release = model.facts.model_type, asked.transformers
        finder.check("base_model", model.facts.model_id, lambda: check_model_type(kind, release), whole=True)
    _note_the_unknown(model, finder)


def _check_served_base(asked: TrainingAsked, model: ModelAsked, finder: Finder) -> None:
    """Compare the base of an adapter that is loaded beside the model of an endpoint with that model."""
    base, served = model.facts.model_id, asked.served_revision
    if asked.adapter != "beside" or asked.served_base is None or base is None:
        return
    if not is_same_model(base, asked.served_base):
        finder.refuse(
            "base_model",
            base,
            f"is not the model that the endpoint serves, '{asked.served_base}', beside which the adapter would be "
            "loaded: train on that one, serve this one, or merge the adapter (adapter='merged')",
            setting="base_model",
        )
    elif model.revision != served and all(_COMMIT.fullmatch(each or "") for each in (model.revision, served)):
        finder.refuse(
            "base_model",
            f"{base} at {model.revision}",
            f"is not the revision that the endpoint serves, '{served}', beside which the adapter would be loaded: "
            "give both the same revision, or merge the adapter (adapter='merged')",
            setting="base_model",
        )


def _note_the_unknown(model: ModelAsked, finder: Finder) -> None:
    """Note a revision that can move, and a size that nobody knows."""
    if model.source == "hub" and model.revision is None:
        finder.note(
            "training-revision",
            f"'{model.facts.model_id}' is trained from what its branch 'main' points at when a run starts: name the "
            "commit as revision, and each run starts from the same weights",
        )
    if model.source in OF_HUB and model.facts.model_id is not None and model.facts.parameters is None:
        finder.note(
            "training-size",
            f"nobody here knows how many weights '{model.facts.model_id}' has, so that it is not checked whether the "
            f"instances hold them: say parameters= of it, or run 'extended-dlc lookup {model.facts.model_id}', which "
            "asks the Hub",
            setting="base_model",
        )


def _check_releases(asked: TrainingAsked, finder: Finder) -> None:
    """Check releases: a model saved by a newer release may work differently, or not at all, with an older one."""
    if asked.image_training is False:
        finder.refuse(
            "image",
            None,
            "serves models and does not train them: pass ExtendedDlc(family='training', …)",
            whole=True,
        )
    if asked.transformers is None or asked.serving is None:
        return
    trains, serves = version(asked.transformers), version(asked.serving)
    if trains[0] > serves[0]:
        finder.refuse(
            "transformers",
            asked.transformers,
            f"trains with a newer major release than the endpoint's image has ({asked.serving}), which does not read "
            f"all of what this one writes: give the endpoint's image transformers {asked.transformers}, or train with "
            f"{asked.serving}",
            setting="image.transformers",
        )
    elif trains > serves:
        finder.note(
            "training-release",
            f"transformers {asked.transformers} trains and {asked.serving} serves, which is older: a model type or an "
            f"option that is new in between fails at the start of the endpoint; give both images {asked.transformers}",
            setting="image.transformers",
        )


def _check_script(asked: TrainingAsked, finder: Finder) -> None:
    finder.check(
        "hyperparameters",
        None,
        lambda: check_hyperparameters(
            asked.code, asked.code.entry_point, asked.hyperparameters, transformers=asked.transformers
        ),
    )
    launched = launched_by(asked.code, asked.code.entry_point)
    if launched is not None and asked.instances.distribution == "torchrun":
        finder.note(
            "training-launcher",
            f"{asked.code.entry_point} starts {launched} itself, and distribution='torchrun' starts "
            f"{asked.code.entry_point} once for each GPU, each of which would start it: name {launched} as the entry "
            "point, or say distribution='script' (None on one instance)",
            setting="instances.distribution",
        )


def _check_gate(asked: TrainingAsked, finder: Finder) -> None:
    gate = asked.gate
    if gate is None:
        return
    at = Finder(finder.found, f"{finder.section}.gate".lstrip("."), finder.who)
    if not asked.serves:
        at.refuse(
            "gate",
            gate.metric,
            "decides whether a model is served, and the training has nothing that serves it: pass serves=, the "
            "endpoint's TrainedModel, or leave the gate out",
            setting="",
        )
    at.check("entry_point", gate.entry_point, lambda: asked.code.require(gate.entry_point, "entry_point"))
    for channel in gate.channels:
        if channel not in asked.channels:
            way_out = (
                f"has {', '.join(asked.channels)}: name one of those" if asked.channels else "has none: add it there"
            )
            at.refuse("channels", channel, f"is no channel of the training, which {way_out}")
    arguments = gate.hyperparameters or {}
    at.check(
        "hyperparameters",
        None,
        lambda: check_hyperparameters(asked.code, gate.entry_point, arguments, transformers=asked.transformers),
    )


def _check_hosts(asked: TrainingAsked, finder: Finder) -> None:
    count = asked.instances.count
    if asked.own_groups and not is_token(count) and count > 1:
        finder.note(
            "training-security-groups",
            f"{count} instances train together and connect to each other: allow inbound traffic among the members of "
            "the security groups that network= names, or leave the groups out for a new one that does",
            setting="network",
        )


def _check_instance(asked: TrainingAsked, instance: Instance, finder: Finder) -> None:
    """Check that the model's weights, gradients and optimizer states fit."""
    if asked.model is None or asked.model.facts.parameters is None:
        return
    facts = asked.model.facts
    arguments = implied_arguments(asked.code, asked.code.entry_point) | arguments_of(asked.hyperparameters)
    is_adapter, torchrun = asked.adapter is not None, asked.instances.distribution == "torchrun"
    fits = partial(
        fit_training,
        facts,
        adapter=is_adapter,
        arguments=arguments,
        instances=1 if is_token(asked.instances.count) else asked.instances.count,
        torchrun=torchrun,
    )
    fit = fits(instance)
    if fit.verdict in ("fits", "unknown"):
        return
    enough = smallest_for_training(lambda each: fits(each).verdict == "fits", instance.accelerator)
    ways = [f"take {' or '.join(enough)}"] if enough else []
    ways += [] if is_adapter else ["train a LoRA adapter (adapter='merged')"]
    if instance.accelerator == "gpu" and not is_sharded(arguments, torchrun):
        ways += ["shard it (distribution='torchrun' with the hyperparameter fsdp)"]
    name = facts.model_id or "the model"
    if fit.verdict == "too small":
        finder.refuse(
            "instance_type",
            instance.name,
            f"cannot train {name}: {fit.why}: {', '.join(ways)}; if the size is not right, say parameters= of the "
            "base model",
            setting="instances.instance_type",
        )
    else:
        finder.note(
            "training-memory",
            f"{name} may be too large to train on {instance.name}: {fit.why}: if it runs out of memory, "
            f"{', '.join(ways)}, or load it in 16 bits",
            setting="instances.instance_type",
        )
