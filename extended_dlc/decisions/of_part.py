"""Decisions for a variant or a component: its model, its instances and its container's environment."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial

from extended_dlc.decisions.access import check_access, check_network, check_serverless_data
from extended_dlc.decisions.environment import check_variables, variable_notes
from extended_dlc.decisions.found import Finder, Found
from extended_dlc.decisions.image import ImageDecision
from extended_dlc.decisions.packages import check_packages
from extended_dlc.decisions.part import Part
from extended_dlc.decisions.sizing import Fit, Load, Spread, check_fit, choose_disk, choose_timeouts, fit
from extended_dlc.decisions.start import Start, estimate_start
from extended_dlc.decisions.vllm import vllm_variables
from extended_dlc.facts.catalog import DlcImage
from extended_dlc.facts.checks import check_environment
from extended_dlc.facts.compat import (
    bases_for,
    check_model_type,
    find_model_type,
    inference_ami_version,
    near_model_type,
)
from extended_dlc.facts.gpus import check_gpu
from extended_dlc.facts.instances import Instance, check_image_runs_on
from extended_dlc.facts.limits import most
from extended_dlc.facts.models import is_named
from extended_dlc.facts.tasks import CHAT_TASKS, check_task
from extended_dlc.options._values import is_token
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


@dataclass(frozen=True)
class PartDecider:
    """Decides for one part."""

    part: Part
    image: ImageDecision
    region: str | None
    load: Load
    found: Found

    @property
    def model(self) -> Finder:
        """The collector for refusals and notes on the model."""
        return self.found.at(self.part.place, self.part.who)

    @property
    def hosting(self) -> Finder:
        """The collector for refusals and notes on the instances."""
        return self.found.at(self.part.hosting_place, self.part.who)

    def decide(self) -> PartDecision:
        """Decide for the part; refusals and notes go to `found`."""
        part, facts = self.part, self.part.model.facts
        self._check_model()
        self._check_network()
        for instance in part.instances:
            self._check_instance(instance)
        if isinstance(part.hosting, Serverless):
            self._check_serverless()
        told = self._vllm()
        self._check_environment(told or {})
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
                self.hosting.note("size", note)
        volumes = [disk.volume_gb for disk in disks]
        first = part.instances[0] if part.instances else None
        start = None
        if first is not None and not isinstance(part.hosting, Serverless):
            start = estimate_start(facts.size, first, from_hub=not from_s3)
            self.model.note("start", start.proposal, level="info", setting="weights")
        given = part.hosting if isinstance(part.hosting, Instances) else None
        return PartDecision(
            part=part,
            image=self.image,
            task=self._task,
            vllm=told,
            startup_timeout_seconds=(given.startup_timeout_seconds or timeouts.startup) if given else None,
            download_timeout_seconds=(given.download_timeout_seconds or timeouts.download) if given else None,
            # All types share one size: none if one of them has local storage.
            volume_gb=(given.volume_gb or (volumes[0] if None not in volumes else None)) if given else None,
            host_image=self._host_image(),
            fits=tuple(fit(facts, each, spread=self._spread, load=self._load) for each in part.instances),
            start=start,
            asked=self._is_asked(told is not None),
            chats=self._chats(is_vllm=told is not None),
        )

    # the model

    def _check_model(self) -> None:
        model, facts, image, finder = self.part.model, self.part.model.facts, self.image, self.model
        finder.check(
            "model",
            facts.model_id,
            lambda: check_access(
                gated=facts.gated, token=model.token, from_hub=model.source == "hub", licence=facts.licence
            ),
        )
        self._note_the_unknown()
        self._note_what_moves()
        self._check_type()
        if model.token and image.server == "stock":
            finder.refuse(
                "token",
                None,
                "the model's token is a secret that the stock server does not read: take the native server "
                "(ExtendedDlc(transformers=…)), or let MirroredModel copy the weights with it",
                setting="weights.token_secret",
                whole=True,
            )
        task = self._task
        if task is not None and model.code is None and image.kind in ("extended", "stock") and image.family != "vllm":
            note = finder.ask("task", task, lambda: check_task(task, image.transformers, image.server))
            finder.note("task", note, setting="task")
        if model.code is not None and image.kind == "extended" and image.transformers and image.server:
            for requirement in model.code.read_requirements():
                notes = finder.ask(
                    "requirements",
                    requirement.text,
                    partial(check_packages, [requirement.text], image.transformers, image.server),
                    setting="weights.requirements",
                )
                for note in notes or ():
                    finder.note("requirements", note, setting="weights.requirements")
        in_china = self.region is not None and self.region.startswith("cn-")
        if in_china and model.source == "hub" and "HF_ENDPOINT" not in self.part.environment:
            finder.note(
                "hub-in-china",
                f"huggingface.co is out of reach in {self.region} as a rule, and a container fetches "
                f"'{facts.model_id}' from it: set HF_ENDPOINT in 'environment' to a mirror of the Hub that is in "
                "reach, or bring the weights by S3Model",
            )

    def _note_what_moves(self) -> None:
        """Note a revision that can move, and the model's licence."""
        model, name = self.part.model, self.part.model.facts.model_id
        if model.source != "hub":
            return
        # Code that changes is a greater risk than weights that change.
        what = "run other code" if model.trust_remote_code else "serve other weights"
        if model.revision is None:
            known = model.facts.revision
            commit = (
                f"revision={known}, which was looked up" if known else "the commit of the model's page as revision="
            )
            self.model.note(
                "unpinned-revision",
                f"model '{name}' has no revision: a container that starts later may {what}; pass {commit}",
                setting="revision",
            )
        elif not is_token(model.revision) and not re.fullmatch(r"[0-9a-f]{40}", model.revision):
            self.model.note(
                "unpinned-revision",
                f"revision '{model.revision}' of model '{name}' is no commit and can move: a container that starts "
                f"later may then {what}; pass the commit's 40 digits as revision=",
                setting="revision",
            )
        if (licence := model.licence or model.facts.licence) is not None:
            self.model.note("licence", f"model '{name}' is under the licence {licence}", level="info", setting="model")

    def _check_type(self) -> None:
        """Refuse a model type that the transformers release of the image, or of its requirements, does not have."""
        model, image = self.part.model, self.image
        kind = model.facts.model_type
        release, name = image.transformers, None
        if image.kind == "stock" and image.base is not None:
            name = image.base.rpartition("/")[2]
            if model.code is not None:
                base = image.base
                injected = self.model.ask(
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
        self.model.check(
            "model",
            model.facts.model_id,
            lambda: check_model_type(kind, release, image=name),
            setting="model",
            whole=True,
        )

    def _note_the_unknown(self) -> None:
        """Note the unknown facts of a Hub model, and the command that looks them up."""
        facts = self.part.model.facts
        if self.part.model.source not in ("hub", "mirrored") or facts.model_id is None or is_named(facts.model_id):
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
            self.model.note(
                "unknown-model",
                f"nobody here knows of '{facts.model_id}' its {_and(unknown)}, so that is not checked: "
                f"run 'extended-dlc lookup {facts.model_id}', which asks the Hub",
                setting="model",
            )
        if kind is not None and find_model_type(kind) is None:
            self.model.note(
                "model-type",
                f"'{kind}' is in no release read here{near_model_type(kind)}: it is not checked",
                setting="model_type",
            )

    def _check_network(self) -> None:
        endpoint, model = self.part.endpoint, self.part.model
        notes = self.model.ask(
            "network_isolation",
            None,
            lambda: check_network(
                isolated=endpoint.network_isolation,
                from_hub=model.source == "hub",
                token=model.token,
                requirements=model.code is not None and "code/requirements.txt" in model.code.files(),
                way_out=endpoint.way_out if endpoint.network else None,
            ),
        )
        for note in notes or ():
            self.model.note("no-way-out", note, setting="network")

    # the instances

    def _check_instance(self, instance: Instance) -> None:
        image, finder, name = self.image, self.hosting, instance.name
        if instance.accelerator == "unknown":
            finder.note(
                "instance-type",
                "'instance_type' is a CDK token: that SageMaker hosts on it, and that it has the memory, the "
                "accelerator and the driver that the model and the image need, is not checked",
                setting="instance_type",
            )
            return
        serverless = isinstance(self.part.hosting, Serverless)
        option, value = ("memory_mb", instance.memory_mib) if serverless else ("instance_type", name)
        because = self._because(instance)

        def runs() -> None:
            try:
                check_image_runs_on(instance, image.accelerator)
            except ValueError as error:
                raise ValueError(f"{error}{because}") from None

        if not finder.check("hosting" if serverless else option, name, runs):
            return
        if self.region is not None and instance.is_offered(self.region) is False:
            finder.note(
                "not-offered",
                f"EC2 does not offer {name.removeprefix('ml.')} in {self.region}, so SageMaker will hardly host on it "
                "there: take another type or region, or see your quotas for it",
                setting=option,
            )
        self._check_gpu(instance)
        note = finder.ask(
            option,
            value,
            lambda: check_fit(
                self.part.model.facts, instance, spread=self._spread, load=self._load, region=self.region
            ),
        )
        finder.note("memory", note, setting=option)

    def _because(self, instance: Instance) -> str:
        """Why the image has another accelerator than the instance, as the end of an error; empty if it has not."""
        asked, accelerator = self.part.image, self.image.accelerator
        if accelerator in (None, instance.accelerator):
            return ""
        if asked.base is not None:
            return f" (image.base is built for {accelerator})"
        if self.image.family == "vllm":
            return " (image.family is vllm)"
        if asked.accelerator is not None and asked.settled_for is None:
            return f" (image.accelerator is {accelerator})"
        other = asked.settled_for or self.image.accelerator_of
        return f" (the image is made for {accelerator}, which {other} computes with)"

    def _check_gpu(self, instance: Instance) -> None:
        image, finder = self.image, self.hosting
        if not instance.gpus:
            return
        if image.kind == "ecr" and image.cuda is None:
            finder.note(
                "cuda",
                "nothing says which CUDA the image has, so SageMaker's own driver is used, with which images for CUDA "
                "12 and newer do not start on several types: give cuda=, as cu124",
            )
        if image.kind == "other" or (image.kind != "ecr" and image.tag is None) or image.cuda is None:
            return
        extended = image.transformers if image.kind == "extended" else None

        def bases() -> list[DlcImage]:
            if image.kind == "ecr":
                return []
            return bases_for(extended, image.family or "inference", image.server or "native")

        torch = image.tag.torch if image.tag else None
        notes = finder.ask(
            "instance_type",
            instance.name,
            lambda: check_gpu(instance, cuda=image.cuda, torch=torch, bases=bases, region=self.region),
        )
        finder.number("gpu", notes, setting="instance_type")

    def _host_image(self) -> str | None:
        unknown = any(instance.accelerator == "unknown" for instance in self.part.instances)
        if isinstance(self.part.hosting, Serverless) or unknown:
            return None
        names = [instance.name for instance in self.part.instances]
        return self.hosting.ask(
            "instance_type", ", ".join(names), lambda: inference_ami_version(self.image.cuda, names)
        )

    def _check_serverless(self) -> None:
        model, facts = self.part.model, self.part.model.facts
        self.hosting.note(
            "serverless-image",
            f"Serverless takes images of {most('serverless.image_gb')} GB at most, and nothing is known of this one's "
            "size, which AWS does not publish. Once it is in ECR, aws ecr describe-images says imageSizeInBytes, "
            "packed; if SageMaker refuses it, take RealTime or Async",
        )
        disk = most("serverless.disk_gb")
        if facts.size is not None and facts.size > disk * 1e9:
            self.hosting.refuse(
                "hosting",
                "Serverless",
                f"has {disk} GB of disk, and the model's files are {facts.size / 1e9:,.1f} GB: take RealTime or Async",
                setting="kind",
            )
        if model.source in ("files", "mirrored"):
            self.model.check(
                "model",
                "files in S3 as they are",
                lambda: check_serverless_data(archive=False),
                setting="weights",
            )

    # the container's environment

    def _vllm(self) -> dict[str, str] | None:
        """Environment variables for vLLM, if it serves."""
        asked, family = self.part.endpoint.vllm, self.image.family
        if asked is not None and family == "inference":
            self.model.refuse(
                "vllm",
                None,
                'needs an image whose server is vLLM: pass family="vllm" to ExtendedDlc, or leave it out',
            )
            return None
        serving = asked or (VllmServing() if family == "vllm" else None)
        if serving is None:
            return None
        return self.model.ask("vllm", None, lambda: vllm_variables(serving, self.part, self.part.instances))

    def _check_environment(self, told: Mapping[str, str]) -> None:
        environment = self.part.environment
        reserved = {**self.part.model.variables, **dict.fromkeys(told, "VllmServing (vllm=) or the model")}
        # The message does not show the values: one may be a secret.
        self.model.check("environment", None, lambda: check_environment(environment, reserved=reserved))
        self.model.check("environment", None, lambda: check_variables(environment, self.image))
        self.model.number("environment", variable_notes(environment, self.image), setting="environment")

    @property
    def _task(self) -> str | None:
        """The task to set: the container infers it, but AWS's server takes speech models for others."""
        model = self.part.model
        return model.task or (model.facts.task if model.facts.is_speech else None)

    def _chats(self, *, is_vllm: bool) -> bool:
        model, hosting = self.part.model, self.part.endpoint.hosting
        if not isinstance(hosting, (RealTime, Components)):
            return False
        task = model.task or model.facts.task
        if is_vllm:  # vLLM serves no other tasks
            return task is None or task in CHAT_TASKS
        # The user's code can take any form of request.
        return task in CHAT_TASKS and model.code is None and self.image.server != "stock"

    @property
    def _spread(self) -> Spread:
        """AWS's server uses one GPU; this project's spreads a larger model over all, and so may the user's code."""
        return "one" if self.image.server == "stock" and self.part.model.code is None else "all"

    @property
    def _load(self) -> Load:
        return Load(
            context=self.load.context, batch=self.load.batch, dtype=self.part.environment.get("EXTENDED_DLC_DTYPE")
        )

    # the proof

    def _is_asked(self, speaks_openai: bool) -> bool:
        """Whether the deployment sends a test request; adds a note if it should and no request is known."""
        proof, model = self.part.endpoint.verify, self.part.model
        if not isinstance(proof, Proof):
            return False
        if proof.request is not None or speaks_openai:
            return True
        task = model.facts.task
        # The user's code, or an unknown server, may need another form of request.
        answers_tasks = model.code is None and self.image.kind != "ecr"
        if not proof.optional:
            return self.model.ask("verify", None, lambda: bool(proof.properties_for(task))) is not None
        if not (proof.knows(task) and answers_tasks):
            self.model.note(
                "not-asked",
                "the deployment is not proved by a request, because none is known for "
                + (f"the task '{task}'" if task else "a model whose task is not known at synth")
                + ' with this image and code: give one to \'verify\', as Proof(request={"inputs": "Hello"})',
                level="info",
                setting="verify",
            )
            return False
        return True


def _and(words: Sequence[str]) -> str:
    return ", ".join(words[:-1]) + f" and {words[-1]}" if len(words) > 1 else words[0]
