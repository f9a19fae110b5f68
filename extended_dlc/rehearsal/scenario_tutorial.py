"""The tutorial scenario: AWS's own image is deployed and fails at the first request; the extended image responds.

"Unlock the latest transformer models with Amazon SageMaker" (2022) deployed BLOOM, which transformers has from 4.20 on,
on an image with 4.17. Where the engine can pull a Python 3.8 image, the scenario uses those releases; elsewhere it uses
two current releases with the same relation.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from extended_dlc.rehearsal.base_image import stand_in as standin
from extended_dlc.rehearsal.base_image.stand_in import Parts
from extended_dlc.rehearsal.cdk import REGION
from extended_dlc.rehearsal.stage import Stage
from extended_dlc.rehearsal.tiny_models import BLOOM_COPY, SMOLLM3

AWS_ACCOUNT = "763104351884"
"""The account of the DLCs' registry."""
REPOSITORY = "huggingface-pytorch-inference"
REQUEST = {"inputs": "Hello, my name is", "parameters": {"max_new_tokens": 12, "do_sample": False}}


@dataclass(frozen=True, kw_only=True)
class Pair:
    """A base image with a release that is too old for a model, and the release that its stock server can be given."""

    base: Parts
    model: str
    """A Hub ID without the model's type: `bigscience/bloom-…` alone would be refused at synth."""
    model_type: str
    first: str
    """The first transformers release with the type."""
    extended: str
    native: bool
    """Whether the native server runs on this base as well."""
    proof: str
    """The proof's text: which releases are the tutorial's, and what stands in for the rest."""


TUTORIAL = Pair(
    base=standin.DLC_4_17_0,
    model=BLOOM_COPY,
    model_type="bloom",
    first="4.20.0",
    extended="4.24.0",
    native=False,
    proof=(
        "the tutorial's own releases: transformers 4.17.0, torch 1.10.2 and Python 3.8 in the base, 4.24.0 in the "
        "extended image, BLOOM\nstand-ins: the base (made from the DLC's PyPI parts, without a GPU), the weights "
        "(random), AWS and the Hub"
    ),
)
TODAY = Pair(
    base=standin.DLC_4_51_3,
    model=SMOLLM3,
    model_type="smollm3",
    first="4.53.0",
    extended="4.57.6",
    native=True,
    proof=(
        "releases of today in place of the tutorial's, since no Python 3.8 image can be pulled here: transformers "
        "4.51.3 for 4.17.0, 4.57.6 for 4.24.0, SmolLM3 (first in 4.53.0) for BLOOM (first in 4.20.0)\n"
        "stand-ins: the base (made from the DLC's PyPI parts), the weights (random), AWS and the Hub"
    ),
)


def play(stage: Stage, *, keep: bool) -> None:
    stage.container_engine()
    stage.embedded_aws()
    pair = _choose(stage)
    base = stage.base_image(pair.base)
    published = _put_where_aws_has_it(stage, base)
    stage.models()
    stage.hub()
    stock = {"kind": "stock", "base": published}
    extended = stage.extended(base, pair.extended, server="stock")
    stage.bootstrap(extended)

    stage.synth_refuses(
        f"known at synth: with the model's type in the settings, {pair.base.transformers} is refused",
        image=stock,
        endpoints=_endpoint(stage, pair, model_type=pair.model_type),
        because=f"cannot load model type '{pair.model_type}': needs >= {pair.first}",
    )
    # with the default `verify`, the deployment itself would invoke the model and fail
    with stage.hub_away():
        stage.deploy(
            "cdk deploy AWS's own image, the type not told, nothing looked up and nothing asked: it succeeds",
            image=stock,
            endpoints=_endpoint(stage, pair, verify=False),
        )
    _first_request_fails(stage, pair)

    stage.deploy(
        f"cdk deploy the image extended with transformers {pair.extended}, AWS's server kept",
        image=extended,
        endpoints=_endpoint(stage, pair, model_type=pair.model_type),
    )
    _the_same_request_is_answered(stage, "the same request is answered")

    if pair.native:
        newest = stage.app_settings["image"]["transformers"]
        stage.deploy(
            f"cdk deploy it with transformers {newest} and the native server",
            image=stage.extended(base, newest, server="native"),
            endpoints=_endpoint(stage, pair, model_type=pair.model_type),
        )
        _the_same_request_is_answered(stage, "the same request is answered by the native server")

    if keep:
        stage.leave_up()
    else:
        stage.destroy()


def _choose(stage: Stage) -> Pair:
    with stage.report.step("choose the releases") as step:
        pair = TUTORIAL if standin.can_have(stage.engine, str(TUTORIAL.base.python)) else TODAY
        step.proof = pair.proof
        return pair


def _put_where_aws_has_it(stage: Stage, base: str) -> str:
    """Push the base to the embedded ECR as AWS's image; returns its reference there."""
    with stage.report.step("put it into AWS's own registry") as step:
        stage.client.make_public_repository(REPOSITORY, account=AWS_ACCOUNT)
        tag = base.rpartition(":")[2]
        stage.engine.push(base, f"127.0.0.1:{stage.client.port}/{REPOSITORY}:{tag}")
        published = f"{AWS_ACCOUNT}.dkr.ecr.{REGION}.amazonaws.com/{REPOSITORY}:{tag}"
        step.proof = f"{published}, in the embedded ECR"
        return published


def _endpoint(stage: Stage, pair: Pair, **more: Any) -> dict[str, Any]:
    """The tutorial's endpoint with its model and task."""
    return {"model": stage.endpoint(pair.model, task="text-generation", **more)}


def _first_request_fails(stage: Stage, pair: Pair) -> None:
    """The tutorial's problem: the endpoint is InService, but the model cannot be loaded."""
    from botocore.exceptions import ClientError

    with stage.report.step("the first request fails") as step:
        status = stage.client.status("model")
        try:
            answer = stage.client.generate("model", REQUEST)
        except ClientError as error:
            code, message = error.response["Error"]["Code"], error.response.get("OriginalMessage", "")
            step.proof = f"the endpoint is {status}\n{REQUEST}\n→ {code}: {' '.join(message.split())}"
            if code != "ModelError" or pair.model_type not in message:
                raise RuntimeError(f"it failed for another reason: {error}") from None
        else:
            raise RuntimeError(f"transformers {pair.base.transformers} answered, and was to be too old: {answer}")


def _the_same_request_is_answered(stage: Stage, name: str) -> None:
    with stage.report.step(name) as step:
        step.proof = stage.client.generate("model", REQUEST).shown(REQUEST)
