"""The scenario of a user's own app: it is checked, deployed unchanged, invoked, and destroyed."""

from __future__ import annotations

import json
import os
import re
import shlex
import sys
import tempfile
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from importlib.metadata import version
from pathlib import Path
from typing import Any

from extended_dlc.asking.content import Content
from extended_dlc.rehearsal import own_models
from extended_dlc.rehearsal.assembly import Assembly, dlc_repository
from extended_dlc.rehearsal.base_image import stand_in as standin
from extended_dlc.rehearsal.base_image.stand_in import Parts
from extended_dlc.rehearsal.cdk import ACCOUNT, REGION
from extended_dlc.rehearsal.own_models import TinyModel
from extended_dlc.rehearsal.samples import TEXT, sample_for
from extended_dlc.rehearsal.services import STANDINS
from extended_dlc.rehearsal.stage import Stage
from extended_dlc.running import run

HUB = "hub-own"
"""The folder of the models, below the state folder."""

_SHOWN = 300
_REFUSED = re.compile(r"\b4\d\d\b")


@dataclass(frozen=True, kw_only=True)
class Wishes:
    """The caller's options for the app."""

    ignore: tuple[str, ...] = ()
    """Resource types that are only recorded."""

    models: Mapping[str, str] = field(default_factory=dict)
    """Hub ID to type, or TYPE:TASK."""

    fetch: bool = False
    """Whether endpoints load their models from the Hub itself."""


@dataclass(frozen=True, kw_only=True)
class Looked:
    """The findings in the app's templates."""

    assembly: Assembly
    models: tuple[TinyModel, ...]
    images: Mapping[str, Parts]
    """An image of AWS's to the packages of its stand-in."""

    by_name: tuple[str, ...]
    """Those of the images that a Dockerfile's FROM names itself."""

    regions: tuple[str, ...]


def play(stage: Stage, wishes: Wishes, *, keep: bool) -> None:
    looked = look(stage, wishes)
    if looked.assembly.needs_engine():
        stage.container_engine()
    start(stage, fetch=wishes.fetch)
    deploy(stage, looked, publish_all=keep)
    for region in looked.regions:
        _ask_all(stage, region, looked)
    if keep:
        stage.leave_up()
    else:
        stage.destroy()


def start(stage: Stage, *, fetch: bool = False) -> None:
    """Start the servers; with `fetch` containers use the Hub itself, or the caller's mirror of it."""
    (stage.state / HUB).mkdir(parents=True, exist_ok=True)
    if not fetch:
        stage.hub(HUB)
    address = os.environ.get("HF_ENDPOINT") if fetch else stage.hub_address
    stage.embedded_aws({"HF_ENDPOINT": address} if address else {})


def deploy(stage: Stage, looked: Looked, *, publish_all: bool = False) -> None:
    """Make the app's stand-ins and deploy it.

    :param publish_all: Whether AWS's registry also gets base images that are only built upon, for the doctor.
    """
    stage.regions = looked.regions
    if stage.has_engine:
        bases = _base_images(stage, looked)
        if looked.models:
            _models(stage, looked.models)
        stage.put_in_front({str(dlc_repository(image)): stand_in for image, stand_in in bases.items()}, looked.by_name)
        served = looked.assembly.images_run()
        _put_where_aws_has_them(
            stage, {image: stand_in for image, stand_in in bases.items() if publish_all or image in served}
        )
    stage.cdk("cdk bootstrap", "bootstrap", *(f"aws://{ACCOUNT}/{region}" for region in looked.regions))
    stage.cdk("cdk deploy", "deploy", "--all", "--require-approval=never", "--progress=events")


def look_through(assembly: Assembly, wishes: Wishes, known_context: Mapping[str, Any]) -> Looked:
    """The app's needs. Raises `ValueError` with everything that a rehearsal cannot provide."""
    problems = [*_unknown_types(assembly, wishes.ignore), *_other_accounts(assembly)]
    images = assembly.dlc_images()
    for image in images:
        if dlc_repository(image) not in STANDINS:
            problems.append(
                f"the image {image} cannot be pulled here, and there is no stand-in for {dlc_repository(image)}: take "
                f"one of {', '.join(STANDINS)} for the rehearsal"
            )
    models: list[TinyModel] = []
    if not wishes.fetch:
        try:
            models = own_models.of_type(assembly.hub_models(), given=wishes.models, looked_up=known_context)
        except ValueError as error:
            problems.append(str(error))
    if problems:
        raise ValueError("\n".join(problems))
    regions = dict.fromkeys(REGION if region == "unknown-region" else region for _, region in assembly.environments)
    return Looked(
        assembly=assembly,
        models=tuple(models),
        images={image: STANDINS[str(dlc_repository(image))] for image in images},
        by_name=tuple(image for image, by_name in images.items() if by_name),
        regions=tuple(regions) or (REGION,),
    )


def look(stage: Stage, wishes: Wishes) -> Looked:
    """Synthesize the app and check its templates before anything starts."""
    project = stage.project
    assert project is not None  # noqa: S101 - the caller ensures it
    with stage.report.step("synthesize the app and look through its templates") as step:
        out, log = stage.state / "look.out", stage.state / "logs" / "00-look.log"
        step.log = str(log)
        project.synthesize(out, log)
        assembly = Assembly.read(out)
        known = {**_lookups(project.folder), **project.known_context}
        if not wishes.fetch:
            known |= own_models.ask_about(assembly.hub_models(), given=wishes.models, looked_up=known)
        looked = look_through(assembly, wishes, known)
        if wishes.fetch and (reasons := own_models.out_of_reach(assembly.hub_models())):
            raise ValueError("\n".join(reasons))
        kinds = sum(len(names) for names in assembly.types().values())
        counts = {"template": len(assembly.templates), "resource": kinds, "type": len(assembly.types())}
        step.proof = "{}, {} of {}".format(*(f"{count} {noun}{'s' * (count != 1)}" for noun, count in counts.items()))
        if ignored := [name for name in wishes.ignore if name in assembly.types()]:
            step.proof += f"\nremembered only, and does nothing: {', '.join(ignored)}"
        return looked


def _lookups(folder: Path) -> dict[str, Any]:
    """The lookups that `extended-dlc prepare` wrote beside settings in this folder."""
    found: dict[str, Any] = {}
    for file in sorted(folder.glob("*.lookups.json")):
        content = json.loads(file.read_text("utf-8"))
        found |= content if isinstance(content, dict) else {}
    return found


def _unknown_types(assembly: Assembly, ignore: Iterable[str]) -> list[str]:
    from extended_dlc.rehearsal.embedded.resource_schemas import is_unknown  # moto is in the extra `rehearse` alone

    types = assembly.types()
    if strange := sorted(set(ignore) - set(types)):
        names = ", ".join(types)
        return [f"'--ignore' ({strange[0]}) is not a type of the app's resources: it has {names}"]
    lines = {name: f"  {name}: {', '.join(ids[:3])}{' …' if len(ids) > 3 else ''}" for name, ids in types.items()}
    problems = []
    if absent := sorted(name for name in types if is_unknown(name)):
        problems.append(
            "\n".join(["CloudFormation has these resource types in no region:", *(lines[name] for name in absent)])
            + f"\ncorrect their names; cfn-lint {version('cfn-lint')} has the list, and a newer one has newer types"
        )
    if unknown := sorted(set(types) - set(known_types()) - set(ignore) - set(absent)):
        way_out = " ".join(f"--ignore {name}" for name in unknown)
        head = "neither the embedded AWS nor moto's CloudFormation knows these resource types:"
        problems.append(
            "\n".join([head, *(lines[name] for name in unknown)])
            + f"\nwhere the rest can do without them, let them be remembered only: {way_out}"
        )
    return problems


def known_types() -> list[str]:
    """The types that the embedded AWS supports, from another process, because importing it changes moto."""
    with tempfile.TemporaryDirectory() as state:
        command = [sys.executable, "-m", "extended_dlc.rehearsal.embedded", "--types", f"--state={state}", "--port=1"]
        done = run(command)
    if done.returncode != 0:
        raise RuntimeError(f"the embedded AWS does not say which types it knows:\n{done.stderr[-1000:]}")
    found: list[str] = json.loads(done.stdout)
    return found


def _other_accounts(assembly: Assembly) -> list[str]:
    others = sorted({account for account, _ in assembly.environments} - {"unknown-account", ACCOUNT})
    if not others:
        return []
    return [
        f"the app's stacks name the account {others[0]}, and the embedded AWS is {ACCOUNT}: take the account of the "
        "environment (os.environ['CDK_DEFAULT_ACCOUNT']), or none"
    ]


def _base_images(stage: Stage, looked: Looked) -> dict[str, str]:
    """Make the stand-ins; returns each image of AWS's with its stand-in."""
    made: dict[Parts, str] = {}
    for parts in dict.fromkeys(looked.images.values()):
        made[parts] = stage.base_image(parts)
    return {image: made[parts] for image, parts in looked.images.items()}


def _models(stage: Stage, models: tuple[TinyModel, ...]) -> None:
    with stage.report.step("make tiny random models") as step:
        image = standin.make_standin(stage.engine, stage.state, say=stage.report.detail)
        reasons = own_models.make(stage.engine, image, stage.state / HUB, models, say=stage.report.detail)
        if reasons:
            lines = "\n".join(f"  {name}: {reason}" for name, reason in reasons.items())
            raise RuntimeError(
                f"no tiny model can be made in the place of these:\n{lines}\n"
                "take another type for the rehearsal (--model ID=TYPE), or the models themselves (--fetch)"
            )
        named = dict.fromkeys(f"{each.asked.id} ({each.kind})" for each in models)
        step.proof = f"{', '.join(named)}: random weights of each model's own type; the answers mean nothing"


def _put_where_aws_has_them(stage: Stage, bases: Mapping[str, str]) -> None:
    """Push the stand-ins to the embedded ECR as AWS's images: endpoints run them, and the doctor looks them up."""
    images = {image: stand_in for image, stand_in in bases.items() if "/" in image and image[:12].isdigit()}
    if not images:
        return
    with stage.report.step("put the stand-ins into AWS's own registry") as step:
        for image, stand_in in images.items():
            host, _, name = image.partition("/")
            repository, _, tag = name.partition("@")[0].partition(":")
            account, region = host[:12], host.split(".")[3]
            stage.client.make_public_repository(repository, account=account, region=region)
            stage.engine.push(stand_in, f"127.0.0.1:{stage.client.port}/{repository}:{tag}")
        step.proof = "\n".join(f"{image} is {stand_in}" for image, stand_in in images.items())


def _ask_all(stage: Stage, region: str, looked: Looked) -> None:
    """Invoke each endpoint with `extended-dlc ask`."""
    sagemaker = stage.client.service("sagemaker", region=region)
    endpoints = sagemaker.list_endpoints(MaxResults=100)["Endpoints"]
    for name in sorted(each["EndpointName"] for each in endpoints):
        found = sagemaker.list_inference_components(EndpointNameEquals=name)["InferenceComponents"]
        for component in [each["InferenceComponentName"] for each in found] or [None]:
            with stage.report.step(f"ask {component or name}") as step:
                model = _model_of(sagemaker, name, component, looked)
                step.proof = _ask(stage, region, name, component, model)


def _model_of(sagemaker: Any, endpoint: str, component: str | None, looked: Looked) -> TinyModel | None:
    """The model of an endpoint or component; None where it is not one of the tiny models."""
    if component is not None:
        found = sagemaker.describe_inference_component(InferenceComponentName=component)
        name = found.get("Specification", {}).get("ModelName")
    else:
        config = sagemaker.describe_endpoint(EndpointName=endpoint)["EndpointConfigName"]
        name = sagemaker.describe_endpoint_config(EndpointConfigName=config)["ProductionVariants"][0].get("ModelName")
    described = sagemaker.describe_model(ModelName=name) if name else {}
    container: Mapping[str, Any] = described.get("PrimaryContainer") or next(
        iter(described.get("Containers") or []), {}
    )
    values = set((container.get("Environment") or {}).values())
    alone = looked.models[0] if len(looked.models) == 1 else None
    return next((each for each in looked.models if each.asked.id in values), alone)


def _ask(stage: Stage, region: str, endpoint: str, component: str | None, model: TinyModel | None) -> str:
    """Run the command and return it with its output. Raises `RuntimeError` without a response.

    A request that the model's server refuses is reported and is no failure: only the app knows what its models accept.
    """
    sample = sample_for(model.model_type, model.task) if model else Content(text=TEXT)
    what = sample.text or sample.data.decode() if sample.content_type == "application/json" else ""
    if not what or len(what) > _SHOWN:
        file = stage.state / f"sample.{sample.content_type.rpartition('/')[2]}"
        file.write_bytes(sample.data)
        what = str(file)
    which = [f"--component={component}"] if component else []
    command = ["ask", endpoint, what, f"--region={region}", *which]
    program = [sys.executable, "-m", "extended_dlc", *command, "--json", "--timeout=300"]
    done = run(program, environment={**os.environ, **stage.environment()})
    shown = f"extended-dlc {shlex.join(command)}"
    try:
        result = json.loads(done.stdout)
    except ValueError:
        raise RuntimeError(f"{shown}\n{done.stderr.strip() or done.stdout.strip()}") from None
    if result["status"] == "answered":
        answer = (
            result["answer"] if isinstance(result["answer"], str) else json.dumps(result["answer"], ensure_ascii=False)
        )
        return f"{shown}\n→ {answer[:_SHOWN]}{'…' if len(answer) > _SHOWN else ''}"
    if _REFUSED.search(str(result["error"])):
        return f"{shown}\n→ the model's server refuses this request: {result['error'][:_SHOWN]}"
    raise RuntimeError(f"{shown}\n→ {result['error']}")
