"""The platform scenario: CodeBuild builds an image in one account, and an endpoint in another one uses it.

The image's repository has a policy for the product team's account, and the SSM parameter that names the image is shared
with it. A third account, which the policy forgets, is refused.
"""

from __future__ import annotations

import json
import shlex
import sys
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from extended_dlc import files
from extended_dlc.rehearsal.accounts import Account, open_account
from extended_dlc.rehearsal.base_image.stand_in import DLC_4_51_3
from extended_dlc.rehearsal.cdk import ACCOUNT, REGION, Cdk
from extended_dlc.rehearsal.host_pip import host_pip
from extended_dlc.rehearsal.stage import Stage
from extended_dlc.rehearsal.tiny_models import BLOOM

REQUEST: dict[str, Any] = {"inputs": "Hello, my name is", "parameters": {"max_new_tokens": 12, "do_sample": False}}
SECRET = "pip-config"  # noqa: S105 - the name of a secret

IMAGES = """
import json
from aws_cdk import App, Environment, Stack, aws_secretsmanager as secretsmanager
from extended_dlc import CloudBuild, ImageStack, ImageVersion, Readers
given = json.loads({given!r})
secret, ca_bundle = given.pop("secret"), given.pop("ca_bundle")
app = App()
env = Environment(account="{account}", region="{region}")
home = Stack(app, "Secrets", env=env)
pip = secretsmanager.Secret.from_secret_complete_arn(home, "Pip", secret) if secret else None
build = CloudBuild(ca_bundle=ca_bundle, pip_config=pip)
readers = Readers(accounts=[{products!r}])
images = {{"text": ImageVersion(accelerator="cpu", **given)}}
ImageStack(app, "Images", env=env, images=images, readers=readers, build=build)
app.synth()
"""
"""The platform team's app."""

LARGER = """
from aws_cdk import App, Stack
from extended_dlc import EcrImage, HuggingFaceEndpoint, PlatformDefaults
app = App()
PlatformDefaults(message="ask #ml-platform", instance_types=["ml.m5.*"], own_images=False).apply(app)
stack = Stack(app, "Search")
image = EcrImage.from_parameter(stack, "Image", {parameter!r})
endpoint = HuggingFaceEndpoint(stack, "Bloom", model="bloom", image=image)
endpoint.config.add_property_override("ProductionVariants.0.InstanceType", "ml.p4d.24xlarge")
app.synth()
"""
"""A product team's app that takes a larger instance by an escape hatch."""

PRODUCTS, FORGOTTEN = "222222222222", "333333333333"
"""The account of the product team, and one that the platform team does not know."""


def play(stage: Stage, *, keep: bool) -> None:
    stage.container_engine()
    stage.embedded_aws()
    base = stage.base_image(DLC_4_51_3)
    stage.models()
    stage.hub()
    transformers = stage.app_settings["image"]["transformers"]
    stage.bootstrap(stage.extended(base, transformers))
    secret = _keep_pip_config(stage)
    products = _open_products(stage)

    _deploy_images(stage, "cdk deploy the images: CodeBuild builds and pushes", base, transformers, secret, rebuild="1")
    parameter = f"/images/text/inference/{transformers}/cpu"
    first = _named(stage, "a parameter names the image by its digest", parameter)
    _forgotten(stage, "an account that the repository's policy forgets is refused", first)
    image = {"kind": "ecr", "parameter": f"arn:aws:ssm:{REGION}:{ACCOUNT}:parameter{parameter}"}
    stage.synth_refuses(
        "known at synth: the image of this name computes with CPUs",
        image=image,
        endpoints={"bloom": stage.endpoint(BLOOM, hosting={"kind": "real-time", "instance_type": "ml.g5.xlarge"})},
        because="is built for cpu",
    )
    _guarded(stage, "a rule of the platform's ends the synth of a product team's app", image["parameter"])
    _deploy_endpoint(stage, "cdk deploy an endpoint on it, in the product team's account", products, image)
    _answers(stage, "the endpoint answers from that image", products, first)

    _deploy_images(stage, "cdk deploy the images again, built anew", base, transformers, secret, rebuild="2")
    second = _named(stage, "the parameter moved on", parameter, unlike=first)
    _recorded(stage, "both images have a bill of materials", first, second)
    _answers(stage, "the endpoint stays with what it has until it is deployed", products, first)
    _deploy_endpoint(stage, "cdk deploy the endpoint again", products, image)
    _answers(stage, "the endpoint followed the parameter", products, second)
    if keep:
        stage.leave_up()
        return
    _run(stage, "cdk destroy the endpoint", _of_account(stage, products), "destroy", "--all", "--force")


def _open_products(stage: Stage) -> Account:
    """The product team's account, bootstrapped."""
    with stage.report.step("open the product team's account") as step:
        products = open_account(stage.client, PRODUCTS)
        step.proof = str(products.service("sts").get_caller_identity()["Arn"])
    command = ("bootstrap", f"aws://{PRODUCTS}/{REGION}")
    _run(stage, "cdk bootstrap the product team's account", _of_account(stage, products), *command)
    return products


def _of_account(stage: Stage, account: Account) -> Cdk:
    """The CDK CLI with the credentials of an account."""
    cli = stage.cli()
    # the CLI caches accounts by access key
    variables: Mapping[str, str] = {**account.environment, "CDK_HOME": str(stage.state / f"cdk-home-{account.number}")}
    return replace(cli, more={**cli.more, **variables})


def _run(stage: Stage, name: str, cli: Cdk, *arguments: str) -> None:
    """Run a command of the CDK CLI as a step."""
    with stage.report.step(name) as step:
        log = stage.log_of(arguments[0])
        step.log = str(log)
        cli.run(*arguments, log=log, each_line=stage.report.detail)


def _guarded(stage: Stage, name: str, parameter: str) -> None:
    """Synthesise an app that the platform's rules refuse."""
    file = stage.state / "larger.py"
    files.write(file, LARGER.format(parameter=parameter))
    with stage.report.step(name) as step:
        command = f"--app={shlex.quote(sys.executable)} {shlex.quote(str(file))}"
        cli = replace(stage.cli(), options=(command,), settings=None)
        said: list[str] = []
        try:
            cli.run("synth", "--quiet", log=stage.log_of("synth"), each_line=said.append)
        except RuntimeError:
            step.proof = next((line.strip() for line in said if "ask #ml-platform" in line), "")
        if "(ml.p4d.24xlarge) is none of the platform's" not in step.proof:
            raise RuntimeError("cdk synth did not refuse the instance type: " + " ".join(said[-5:]))


def _deploy_endpoint(stage: Stage, name: str, account: Account, image: Mapping[str, Any]) -> None:
    """Deploy the app of the product team."""
    stage._write_settings(image, {"bloom": stage.endpoint(BLOOM)})
    _run(stage, name, _of_account(stage, account), "deploy", "--all", "--require-approval=never")


def _forgotten(stage: Stage, name: str, image: str) -> None:
    """Ask for the image's manifest from an account that is no reader."""
    from botocore.exceptions import ClientError

    with stage.report.step(name) as step:
        repository, _, digest = image.partition("/")[2].partition("@")
        ecr = open_account(stage.client, FORGOTTEN).service("ecr")
        try:
            ecr.batch_get_image(registryId=ACCOUNT, repositoryName=repository, imageIds=[{"imageDigest": digest}])
        except ClientError as error:
            step.proof = str(error)
            if error.response["Error"]["Code"] != "AccessDeniedException":
                raise
        else:
            raise RuntimeError(f"{FORGOTTEN} could read {image}, and no policy lets it")


def _keep_pip_config(stage: Stage) -> str | None:
    """The ARN of a secret with this machine's pip configuration; None where pip needs none."""
    pip = host_pip(stage.state / "pip")
    if pip.pip_config is None:
        return None
    secrets = stage.client.service("secretsmanager")
    made = secrets.create_secret(Name=SECRET, SecretString=Path(pip.pip_config).read_text("utf-8"))
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
    files.write(file, IMAGES.format(given=json.dumps(given), account=ACCOUNT, region=REGION, products=PRODUCTS))
    command = f"--app={shlex.quote(sys.executable)} {shlex.quote(str(file))}"
    cli = replace(stage.cli(), options=(command,), settings=None)
    _run(stage, name, cli, "deploy", "Images", "--require-approval=never")


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


def _answers(stage: Stage, name: str, account: Account, image: str) -> None:
    """Invoke the endpoint, and check that it runs the image that the parameter named."""
    with stage.report.step(name) as step:
        endpoint = f"{stage.client.name}-bloom"
        asked = {"EndpointName": endpoint, "Body": json.dumps(REQUEST).encode(), "ContentType": "application/json"}
        reply = json.loads(account.service("sagemaker-runtime").invoke_endpoint(**asked)["Body"].read())
        text = str(reply[0]["generated_text"])
        described = account.service("sagemaker").describe_endpoint(EndpointName=endpoint)
        (deployed,) = described["ProductionVariants"][0]["DeployedImages"]
        step.proof = f"{text!r}\nfrom {deployed['ResolvedImage']}"
        if deployed["ResolvedImage"].rpartition("@")[2] != image.rpartition("@")[2]:
            raise RuntimeError(f"the endpoint runs {deployed['ResolvedImage']}, and was to run {image}")
        if not text.startswith(REQUEST["inputs"]) or text == REQUEST["inputs"]:
            raise RuntimeError(f"no text was generated: {reply}")
