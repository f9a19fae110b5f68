"""Decisions for a variant or a component: its model, its instances and its container's environment."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from extended_dlc.decisions.deciding import Deciding
from extended_dlc.decisions.environment import check_variables, variable_notes
from extended_dlc.decisions.image import ImageDecision
from extended_dlc.decisions.of_instance import check_instance, check_serverless, host_image
from extended_dlc.decisions.of_model import check_model
from extended_dlc.decisions.part import Part
from extended_dlc.decisions.sizing import Fit, choose_disk, choose_timeouts, fit
from extended_dlc.decisions.start import Start, estimate_start
from extended_dlc.decisions.vllm import vllm_variables
from extended_dlc.facts.checks import check_environment
from extended_dlc.facts.compat import find_model_type, near_model_type
from extended_dlc.facts.tasks import CHAT_TASKS
from extended_dlc.options.hosting import Components, Instances, RealTime, Serverless
from extended_dlc.options.proof import Proof
from extended_dlc.options.vllm import VllmServing


@dataclass(frozen=True, kw_only=True)
class PartDecision:
    """The decisions for a variant or a component."""

    part: Part
    image: ImageDecision
    task: str | None
    """The task to set in the container; None if the container infers it."""

    vllm: Mapping[str, str] | None
    """Environment variables for vLLM; None with another server."""

    startup_timeout_seconds: int | None
    download_timeout_seconds: int | None
    volume_gb: int | None
    host_image: str | None
    """`InferenceAmiVersion`; None leaves SageMaker's default."""

    fits: tuple[Fit, ...]
    """Whether the model fits, for each instance type."""

    start: Start | None
    """The estimate of a start; None if unknown, and for serverless."""

    asked: bool
    """Whether the deployment sends it a test request."""

    chats: bool
    """Whether its task, server and hosting are known to answer chat completions in real time; a model without a chat
    template still refuses them."""

    @property
    def needs(self) -> str:
        """The transformers releases that have the model's type, in words."""
        kind = self.part.model.facts.model_type
        if kind is None:
            return "not known: say model_type, or run extended-dlc lookup MODEL"
        known = find_model_type(kind)
        if known is None:
            return f"not known for '{kind}', which no release read here has{near_model_type(kind)}"
        until = "or newer" if known.last is None else f"to {known.last}"
        return f"transformers {known.first} {until}, for '{kind}'"


def decide_part(about: Deciding) -> PartDecision:
    """Decide for the part; refusals and notes go to `found`."""
    part, facts = about.part, about.part.model.facts
    check_model(about)
    for instance in part.instances:
        check_instance(about, instance)
    if isinstance(part.hosting, Serverless):
        check_serverless(about)
    variables = _vllm(about)
    _check_environment(about, variables or {})
    from_s3 = part.model.source != "hub"
    timeouts = choose_timeouts(
        facts.size,
        from_s3=from_s3,
        as_files=part.model.source in ("files", "mirrored"),
        own_storage=bool(part.instances) and all(each.local_storage_gb for each in part.instances),
    )
    disks = [] if isinstance(part.hosting, Serverless) else [choose_disk(facts.size, i) for i in part.instances]
    if not isinstance(part.hosting, Serverless):
        for note in (*timeouts.notes, *(note for disk in disks for note in disk.notes)):
            about.hosting.note("size", note)
    volumes = [disk.volume_gb for disk in disks]
    first = part.instances[0] if part.instances else None
    start = None
    if first is not None and not isinstance(part.hosting, Serverless):
        start = estimate_start(facts.size, first, from_hub=not from_s3)
        about.model.note("start", start.proposal, level="info", setting="weights")
    given = part.hosting if isinstance(part.hosting, Instances) else None
    return PartDecision(
        part=part,
        image=about.image,
        task=about.task,
        vllm=variables,
        startup_timeout_seconds=(given.startup_timeout_seconds or timeouts.startup) if given else None,
        download_timeout_seconds=(given.download_timeout_seconds or timeouts.download) if given else None,
        # All types share one size: none if one of them has local storage.
        volume_gb=(given.volume_gb or (volumes[0] if None not in volumes else None)) if given else None,
        host_image=host_image(about),
        fits=tuple(fit(facts, each, spread=about.spread, load=about.load_with_dtype) for each in part.instances),
        start=start,
        asked=_is_asked(about, variables is not None),
        chats=_chats(about, is_vllm=variables is not None),
    )


def _vllm(about: Deciding) -> dict[str, str] | None:
    """Environment variables for vLLM, if it serves."""
    asked, family = about.part.endpoint.vllm, about.image.family
    if asked is not None and family == "inference":
        about.model.refuse(
            "vllm",
            None,
            'needs an image whose server is vLLM: pass family="vllm" to ExtendedDlc, or leave it out',
        )
        return None
    serving = asked or (VllmServing() if family == "vllm" else None)
    if serving is None:
        return None
    return about.model.ask("vllm", None, lambda: vllm_variables(serving, about.part, about.part.instances))


def _check_environment(about: Deciding, variables: Mapping[str, str]) -> None:
    environment = about.part.environment
    reserved = {**about.part.model.variables, **dict.fromkeys(variables, "VllmServing (vllm=) or the model")}
    # The message does not show the values: one may be a secret.
    about.model.check("environment", None, lambda: check_environment(environment, reserved=reserved))
    about.model.check("environment", None, lambda: check_variables(environment, about.image))
    about.model.number("environment", variable_notes(environment, about.image), setting="environment")


def _chats(about: Deciding, *, is_vllm: bool) -> bool:
    model, hosting = about.part.model, about.part.endpoint.hosting
    if not isinstance(hosting, (RealTime, Components)):
        return False
    task = model.task or model.facts.task
    if is_vllm:  # vLLM serves no other tasks
        return task is None or task in CHAT_TASKS
    # The user's code can take any form of request.
    return task in CHAT_TASKS and model.code is None and about.image.server != "stock"


def _is_asked(about: Deciding, speaks_openai: bool) -> bool:
    """Whether the deployment sends a test request; adds a note if it should and no request is known."""
    proof, model = about.part.endpoint.verify, about.part.model
    if not isinstance(proof, Proof):
        return False
    if proof.request is not None or speaks_openai:
        return True
    task = model.facts.task
    # The user's code, or an unknown server, may need another form of request.
    answers_tasks = model.code is None and about.image.kind != "ecr"
    if not proof.optional:
        return about.model.ask("verify", None, lambda: bool(proof.properties_for(task))) is not None
    if not (proof.knows(task) and answers_tasks):
        about.model.note(
            "not-asked",
            "the deployment is not proved by a request, because none is known for "
            + (f"the task '{task}'" if task else "a model whose task is not known at synth")
            + ' with this image and code: give one to \'verify\', as Proof(request={"inputs": "Hello"})',
            level="info",
            setting="verify",
        )
        return False
    return True
