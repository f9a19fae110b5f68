"""The platform scenario: CodeBuild builds an image, an SSM parameter names it, and an endpoint uses it.

The image and the endpoint are stacks of two apps in one account, because the embedded CloudFormation cannot read a
parameter of another account.
"""

from __future__ import annotations

import json
import shlex
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

from extended_dlc.rehearsal import files
from extended_dlc.rehearsal.base_image.stand_in import DLC_4_51_3
from extended_dlc.rehearsal.cdk import ACCOUNT, REGION
from extended_dlc.rehearsal.host_pip import host_pip
from extended_dlc.rehearsal.stage import Stage
from extended_dlc.rehearsal.tiny_models import BLOOM

REQUEST: dict[str, Any] = {"inputs": "Hello, my name is", "parameters": {"max_new_tokens": 12, "do_sample": False}}
SECRET = "pip-config"  # noqa: S105 - the name of a secret

IMAGES = """
import json
from aws_cdk import App, Environment, Stack, aws_secretsmanager as secretsmanager
from extended_dlc import CloudBuild, ImageStack, ImageVersion
given = json.loads({given!r})
secret, ca_bundle = given.pop("secret"), given.pop("ca_bundle")
app = App()
env = Environment(account="{account}", region="{region}")
home = Stack(app, "Secrets", env=env)
pip = secretsmanager.Secret.from_secret_complete_arn(home, "Pip", secret) if secret else None
build = CloudBuild(ca_bundle=ca_bundle, pip_config=pip)
ImageStack(app, "Images", env=env, images={{"text": ImageVersion(accelerator="cpu", **given)}}, build=build)
app.synth()
"""
"""The platform team's app."""


def play(stage: Stage, *, keep: bool) -> None:
    stage.container_engine()
    stage.embedded_aws()
    base = stage.base_image(DLC_4_51_3)
    stage.models()
    stage.hub()
    transformers = stage.app_settings["image"]["transformers"]
    stage.bootstrap(stage.extended(base, transformers))
    secret = _keep_pip_config(stage)

    _deploy_images(stage, "cdk deploy the images: CodeBuild builds and pushes", base, transformers, secret, rebuild="1")
    parameter = f"/images/text/inference/{transformers}/cpu"
    first = _named(stage, "a parameter names the image by its digest", parameter)
    image = {"kind": "ecr", "parameter": parameter}
    stage.synth_refuses(
        "known at synth: the image of this name computes with CPUs",
        image=image,
        endpoints={"bloom": stage.endpoint(BLOOM, hosting={"kind": "real-time", "instance_type": "ml.g5.xlarge"})},
        because="is built for cpu",
    )
    stage.deploy("cdk deploy an endpoint on it", image=image, endpoints={"bloom": stage.endpoint(BLOOM)})
    _answers(stage, "the endpoint answers from that image", first)

    _deploy_images(stage, "cdk deploy the images again, built anew", base, transformers, secret, rebuild="2")
    second = _named(stage, "the parameter moved on", parameter, unlike=first)
    _recorded(stage, "both images have a bill of materials", first, second)
    _answers(stage, "the endpoint stays with what it has until it is deployed", first)
    stage.deploy("cdk deploy the endpoint again", image=image, endpoints={"bloom": stage.endpoint(BLOOM)})
    _answers(stage, "the endpoint followed the parameter", second)
    if keep:
        stage.leave_up()
        return
    stage.cdk("cdk destroy the endpoint", "destroy", "--all", "--force")


def _keep_pip_config(stage: Stage) -> str | None:
    """The ARN of a secret with this machine's pip configuration; None where pip needs none."""
    pip = host_pip(stage.state / "pip")
    if pip.pip_config is None:
        return None
    secrets = stage.client.service("secretsmanager")
    made = secrets.create_secret(Name=SECRET, SecretString=Path(pip.pip_config).read_text())
    return str(made["ARN"])


def _deploy_images(stage: Stage, name: str, base: str, transformers: str, secret: str | None, *, rebuild: str) -> None:
    """Deploy the platform team's app."""
    given = {
        "transformers": transformers,
        "base": base,
        "rebuild": rebuild,
        "secret": secret,
        "ca_bundle": host_pip(stage.state / "pip").ca_bundle,
    }
    file = stage.state / "images.py"
    files.write(file, IMAGES.format(given=json.dumps(given), account=ACCOUNT, region=REGION))
    with stage.report.step(name) as step:
        log = stage.state / "logs" / f"{len(stage.report.steps):02}-cdk-images.log"
        step.log = str(log)
        command = f"--app={shlex.quote(sys.executable)} {shlex.quote(str(file))}"
        cli = replace(stage._cdk_cli(), options=(command,), settings=None)
        cli.run("deploy", "Images", "--require-approval=never", log=log, each_line=stage.report.detail)


def _named(stage: Stage, name: str, parameter: str, *, unlike: str | None = None) -> str:
    with stage.report.step(name) as step:
        found: Any = stage.client.service("ssm").get_parameter(Name=parameter)
        value = str(found["Parameter"]["Value"])
        step.proof = f"{parameter} is {value}"
        if "@sha256:" not in value or value == unlike:
            raise RuntimeError(f"{parameter} names {value}, after {unlike}")
        return value


def _recorded(stage: Stage, name: str, first: str, second: str) -> None:
    """Read the second image's bill of materials, and what changed since the first."""
    with stage.report.step(name) as step:
        stacks = stage.client.service("cloudformation").describe_stacks(StackName="Images")["Stacks"]
        outputs = {each["OutputKey"]: each["OutputValue"] for each in stacks[0]["Outputs"]}
        s3 = stage.client.service("s3")
        at, _, digest = second.partition("/")[2].partition("@")

        def read(kind: str) -> dict[str, Any]:
            key = f"{at}/{digest.replace(':', '-')}.{kind}.json"
            content: dict[str, Any] = json.loads(s3.get_object(Bucket=outputs["RecordsBucket"], Key=key)["Body"].read())
            return content

        bill, changes = read("cdx"), read("changes")
        packages = {each["name"]: each["version"] for each in bill["components"]}
        step.proof = f"{len(packages)} packages, transformers {packages.get('transformers')}; since {changes['from']}"
        if changes["from"].rpartition("@")[2] != first.rpartition("@")[2] or "torch" not in packages:
            raise RuntimeError(f"the bill of {second} is {bill}, and its changes are {changes}")


def _answers(stage: Stage, name: str, image: str) -> None:
    """Invoke the endpoint, and check that it runs the image that the parameter named."""
    with stage.report.step(name) as step:
        reply = stage.client.invoke("bloom", json.dumps(REQUEST).encode(), "application/json")
        text = str(reply[0]["generated_text"])
        sagemaker = stage.client.service("sagemaker")
        described = sagemaker.describe_endpoint(EndpointName=f"{stage.client.name}-bloom")
        (deployed,) = described["ProductionVariants"][0]["DeployedImages"]
        step.proof = f"{text!r}\nfrom {deployed['ResolvedImage']}"
        if deployed["ResolvedImage"].rpartition("@")[2] != image.rpartition("@")[2]:
            raise RuntimeError(f"the endpoint runs {deployed['ResolvedImage']}, and was to run {image}")
        if not text.startswith(REQUEST["inputs"]) or text == REQUEST["inputs"]:
            raise RuntimeError(f"no text was generated: {reply}")
