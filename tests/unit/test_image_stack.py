"""`ImageStack`: who may pull, what is named, what is built again; and the stacks that take its images."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from aws_cdk import App, DefaultStackSynthesizer, Environment, Stack, Stage, pipelines
from aws_cdk import aws_sns as sns
from aws_cdk.assertions import Match, Template

from extended_dlc import (
    AllowedFinding,
    CloudBuild,
    EcrImage,
    ExtendedDlc,
    HubModel,
    HuggingFaceEndpoint,
    ImageStack,
    ImageVersion,
    Readers,
    RealTime,
    Rebuilds,
    ScanGate,
)
from extended_dlc.app.read import Raw, SettingsError
from extended_dlc.app.settings import read
from extended_dlc.platform.__main__ import define
from extended_dlc.platform.settings import read_images
from extended_dlc.rehearsal.embedded.policies import Policies, Request, evaluate

ROOT = Path(__file__).parents[2]
IMAGES, WORKLOAD = "111111111111", "222222222222"
GATE = ScanGate(fail_on="HIGH", allow=[AllowedFinding(name="CVE-2026-1", until="2027-01-31", reason="not reached")])


def text_of(value: Any) -> str:
    """A value of a template with `*` for what only the deployment knows."""
    if isinstance(value, dict) and "Fn::Join" in value:
        separator, pieces = value["Fn::Join"]
        return str(separator).join(piece if isinstance(piece, str) else "*" for piece in pieces)
    return str(value)


def test_images_are_published_for_accounts_and_an_organisation_in_each_region_and_built_again() -> None:
    app = App()
    home = Stack(app, "Home", env=Environment(account=IMAGES, region="us-east-1"))
    stack = ImageStack(
        app,
        "Images",
        env=Environment(account=IMAGES, region="us-east-1"),
        images={
            "text": ImageVersion(transformers="5.23.0", accelerator="gpu"),
            "speech": ImageVersion(transformers="5.23.0", accelerator="cpu"),
        },
        readers=Readers(accounts=[WORKLOAD], organisation="o-abcdefghij"),
        regions=["eu-west-1"],
        rebuilds=Rebuilds(schedule="cron(0 3 ? * SUN *)", failure_topic=sns.Topic(home, "Failed")),
        build=CloudBuild(gate=GATE),
    )
    listing = [
        json.dumps(statement["Resource"])
        for policy in Template.from_stack(stack).find_resources("AWS::IAM::Policy").values()
        for statement in policy["Properties"]["PolicyDocument"]["Statement"]
        if statement["Action"] == "ecr:ListImages"
    ]
    assert len(listing) == 2
    assert all("763104351884:repository/huggingface-pytorch-inference" in each for each in listing), listing
    assert stack.parameters["speech"] == "/images/speech/inference/5.23.0/cpu"
    assert stack.parameters["text"].startswith("/images/text/inference/5.23.0/cu1")
    template = Template.from_stack(stack)
    template.has_resource(
        "AWS::ECR::Repository",
        {
            "DeletionPolicy": "Retain",
            "Properties": {
                "RepositoryName": "images/text",
                "ImageScanningConfiguration": {"ScanOnPush": True},
                "LifecyclePolicy": Match.absent(),
                "RepositoryPolicyText": {
                    "Statement": [
                        {"Sid": "Accounts", "Principal": {"AWS": Match.any_value()}, "Effect": "Allow"},
                        {
                            "Sid": "Organisation",
                            "Principal": {"AWS": "*"},
                            "Condition": {"StringEquals": {"aws:PrincipalOrgID": "o-abcdefghij"}},
                        },
                    ]
                },
            },
        },
    )
    actions = {
        action
        for repository in template.find_resources("AWS::ECR::Repository").values()
        for statement in repository["Properties"]["RepositoryPolicyText"]["Statement"]
        for action in statement["Action"]
    }
    assert actions == {"ecr:BatchCheckLayerAvailability", "ecr:BatchGetImage", "ecr:GetDownloadUrlForLayer"}
    starts = [
        text_of(each["Properties"]["Create"]) for each in template.find_resources("Custom::ExtendedDlcBuild").values()
    ]
    (speech,) = [each for each in starts if "/images/speech/" in each]
    for said in (
        "--fail-on=HIGH --allow=CVE-2026-1:2027-01-31",
        "--parameter=us-east-1:/images/speech/inference/5.23.0/cpu",
        "--parameter=eu-west-1:/images/speech/inference/5.23.0/cpu",
        "--advanced-parameters",
    ):
        assert said in speech
    writes = json.dumps(template.find_resources("AWS::IAM::Policy"))
    assert ":ssm:eu-west-1:111111111111:parameter/images/speech/inference/5.23.0/cpu" in writes
    template.resource_count_is("AWS::RAM::ResourceShare", 2)
    schedules = template.find_resources("AWS::Scheduler::Schedule").values()
    targets = [text_of(each["Properties"]["Target"]["Input"]) for each in schedules]
    assert len(targets) == 2
    assert all('"Name":"REBUILD","Value":"<aws.scheduler.scheduled-time>"' in each for each in targets)
    # nobody waits for a rebuild
    assert not any('"Name":"SIGNAL"' in each for each in targets)
    template.resource_count_is("AWS::Events::Rule", 2)
    # ECR copies what is pushed after the replication is configured
    (replication,) = template.find_resources("AWS::ECR::ReplicationConfiguration")
    waits = template.find_resources("AWS::CloudFormation::WaitCondition").values()
    assert all(replication in each["DependsOn"] for each in waits)
    other_region = Template.from_stack(app.node.find_child("Images-eu-west-1"))  # type: ignore[arg-type]
    (copies,) = other_region.find_resources("AWS::ECR::RepositoryCreationTemplate").values()
    assert copies["Properties"]["AppliedFor"] == ["REPLICATION"]
    assert "o-abcdefghij" in text_of(copies["Properties"]["RepositoryPolicy"])


@pytest.fixture
def workload() -> Stack:
    return Stack(App(), "Workload", env=Environment(account=WORKLOAD, region="us-east-1"))


def endpoint_on(stack: Stack, image: EcrImage, model: str = "bloom", **options: Any) -> Template:
    HuggingFaceEndpoint(stack, "Endpoint", model=HubModel(model), image=image, verify=False, **options)
    return Template.from_stack(stack)


def test_an_endpoint_follows_a_parameter_and_is_checked_against_what_its_name_says(workload: Stack) -> None:
    name = "/images/text/inference/5.23.0/cu124"
    image = EcrImage.from_parameter(workload, "Image", name)
    template = endpoint_on(workload, image, hosting=RealTime(instance_type="ml.g5.xlarge"))
    (parameter,) = [key for key, each in template.to_json()["Parameters"].items() if each.get("Default") == name]
    template.has_resource_properties("AWS::SageMaker::Model", {"PrimaryContainer": {"Image": {"Ref": parameter}}})
    # the driver of the host follows from the CUDA in the name
    variant = {"InferenceAmiVersion": "al2-ami-sagemaker-inference-gpu-3-1"}
    config = {"ProductionVariants": [Match.object_like(variant)]}
    template.has_resource_properties("AWS::SageMaker::EndpointConfig", config)
    arns = [
        text_of(statement["Resource"])
        for policy in template.find_resources("AWS::IAM::Policy").values()
        for statement in policy["Properties"]["PolicyDocument"]["Statement"]
        if "ecr:BatchGetImage" in statement["Action"]
    ]
    assert arns == ["arn:*:ecr:*:*:repository/images/text"]
    with pytest.raises(ValueError, match=r"computes with cpu and the image is built for gpu"):
        endpoint_on(Stack(App(), "Cpu"), image)
    old = EcrImage.from_parameter(Stack(App(), "Old"), "Image", "/images/text/inference/4.46.0/cpu")
    with pytest.raises(ValueError, match=r"qwen3"):
        HuggingFaceEndpoint(
            Stack(App(), "New"), "Endpoint", model=HubModel("Qwen/Qwen3-0.6B", model_type="qwen3"), image=old
        )


def test_a_parameter_of_another_account_is_read_by_its_arn_and_one_may_be_looked_up(workload: Stack) -> None:
    arn = f"arn:aws:ssm:us-east-1:{IMAGES}:parameter/images/speech/inference/5.23.0/cpu"
    template = endpoint_on(workload, EcrImage.from_parameter(workload, "Image", arn))
    assert arn in [each.get("Default") for each in template.to_json()["Parameters"].values()]
    stays = Stack(App(), "Stays", env=Environment(account=WORKLOAD, region="us-east-1"))
    name = "/images/speech/inference/5.23.0/cpu"
    uri = f"{IMAGES}.dkr.ecr.us-east-1.amazonaws.com/images/speech@sha256:{'0' * 64}"
    stays.node.set_context(f"ssm:account={WORKLOAD}:parameterName={name}:region=us-east-1", uri)
    found = endpoint_on(stays, EcrImage.from_lookup(stays, "Image", name))
    found.has_resource_properties("AWS::SageMaker::Model", {"PrimaryContainer": {"Image": uri}})
    assert f":ecr:us-east-1:{IMAGES}:repository/images/speech" in json.dumps(found.find_resources("AWS::IAM::Policy"))
    with pytest.raises(ValueError, match=r"is an ARN, and the CDK looks up parameters of the stack's own account"):
        EcrImage.from_lookup(stays, "Other", arn)
    with pytest.raises(ValueError, match=r"'cuda' \(cu130\) contradicts the parameter's name, which says cu124"):
        EcrImage.from_parameter(stays, "Wrong", "/images/text/inference/5.23.0/cu124", cuda="cu130")


def images(**options: Any) -> ImageStack:
    version = ImageVersion(transformers="5.23.0", accelerator="cpu")
    return ImageStack(
        App(), "Images", **{"env": Environment(region="us-east-1"), "images": {"text": version}, **options}
    )


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: images(images={}), r"'images' is empty"),
        (lambda: images(prefix="ssm-images"), r"'prefix' \(ssm-images\) begins with 'aws' or 'ssm'"),
        (lambda: images(images={"Text": ImageVersion(transformers="5.23.0")}), r"'images' \(Text\) must be small"),
        (lambda: images(images={"text": ImageVersion(transformers="5.23.0")}), r"'accelerator' is not known"),
        (lambda: images(images={"t": ImageVersion(transformers="5.23", accelerator="cpu")}), r"is not an exact"),
        (lambda: images(regions=["eu-west-1"]), r"'regions' \(eu-west-1\) needs a stack whose account"),
        (lambda: Readers(), r"'accounts' and 'organisation' are both empty"),
        (lambda: Readers(accounts=[f"{n:012}" for n in range(257)]), r"'accounts' \(257 accounts\) are more than"),
        (lambda: Readers(accounts=["123"]), r"'accounts' \(123\) must be the number"),
        (lambda: Readers(organisation="acme"), r"'organisation' \(acme\) must be the id"),
        (lambda: Rebuilds(schedule="weekly"), r"'schedule' \(weekly\) is not a schedule: write it as"),
        (lambda: Rebuilds(schedule="rate(1 days)"), r"'schedule' \(rate\(1 days\)\) is no rate: write 'rate\(1 day\)'"),
        (lambda: AllowedFinding(name="CVE-1", until="soon", reason="x"), r"'until' \(soon\) must be a day"),
        (lambda: AllowedFinding(name="CVE-1", until="2027-01-31", reason=" "), r"'reason' must say why"),
        (lambda: CloudBuild(parameters=["text"]), r"'parameters' \(text\) must be the name of a parameter"),
        (lambda: CloudBuild(parameters=["/AWS/x"]), r"'parameters' \(/AWS/x\) begins with 'aws' or 'ssm'"),
        (lambda: CloudBuild(parameters=["eu-west-1:/ssm/x"]), r"'parameters' \(/ssm/x\) begins with 'aws' or 'ssm'"),
    ],
)
def test_what_cannot_be_published_is_refused(make: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make()


def test_settings_name_an_image_by_its_parameter_and_are_decided_by_its_name(shipped_settings: dict[str, Any]) -> None:
    (endpoint,) = shipped_settings["endpoints"].values()
    shipped_settings["image"] = {"kind": "ecr", "parameter": "/images/text/inference/4.46.0/cpu"}
    assert read(Raw(origin="the settings", content=shipped_settings)).problems == ()
    endpoint |= {"model": "Qwen/Qwen3-0.6B", "model_type": "qwen3", "revision": None}
    (problem,) = read(Raw(origin="the settings", content=shipped_settings)).problems
    assert "qwen3" in problem
    shipped_settings["image"]["tag"] = "latest"
    problem, *_ = read(Raw(origin="the settings", content=shipped_settings)).problems
    assert problem == "image.tag (latest): and 'parameter' both name the image: give one of them"
    shipped_settings["image"] = {"kind": "ecr", "tag": "latest"}
    problem, *_ = read(Raw(origin="the settings", content=shipped_settings)).problems
    assert problem == "image.repository: is required, unless 'parameter' names the image"


def test_an_image_account_and_a_workload_account_are_two_stages_of_one_pipeline_with_a_qualifier_of_their_own() -> None:
    app = App()
    pipeline_stack = Stack(app, "Pipeline", env=Environment(account=IMAGES, region="us-east-1"))
    source = pipelines.CodePipelineSource.git_hub("a/b", "main")
    synth = pipelines.ShellStep("Synth", input=source, commands=["true"])
    pipeline = pipelines.CodePipeline(pipeline_stack, "Deploy", synth=synth, cross_account_keys=True)
    publish = Stage(pipeline_stack, "Publish", env=Environment(account=IMAGES, region="us-east-1"))
    version = ImageVersion(transformers="5.23.0", accelerator="cpu")
    qualified = DefaultStackSynthesizer(qualifier="acme")
    shared = ImageStack(
        publish, "Images", images={"text": version}, readers=Readers(accounts=[WORKLOAD]), synthesizer=qualified
    )
    serve = Stage(pipeline_stack, "Serve", env=Environment(account=WORKLOAD, region="us-east-1"))
    team = Stack(serve, "Team", synthesizer=DefaultStackSynthesizer(qualifier="acme"))
    arn = f"arn:aws:ssm:us-east-1:{IMAGES}:parameter{shared.parameters['text']}"
    image = EcrImage.from_parameter(team, "Image", arn)
    first = HuggingFaceEndpoint(team, "First", model=HubModel("bloom"), image=image, verify=False)
    built = ExtendedDlc(team, "Own", transformers="5.23.0", accelerator="cpu")
    second = HuggingFaceEndpoint(team, "Second", model=HubModel("bloom"), image=built, verify=False)
    assert first.endpoint_name != second.endpoint_name
    pipeline.add_stage(publish)
    pipeline.add_stage(serve)
    published, served = Template.from_stack(shared), Template.from_stack(team)
    assert "cdk-acme-assets-111111111111-us-east-1" in json.dumps(published.to_json())
    assert f"cdk-acme-container-assets-{WORKLOAD}-us-east-1" in json.dumps(served.to_json())
    assert "hnb659fds" not in json.dumps([published.to_json(), served.to_json()])
    Template.from_stack(pipeline_stack).resource_count_is("AWS::CodePipeline::Pipeline", 1)


def test_settings_in_a_file_publish_the_same_and_all_that_is_wrong_with_them_is_said(tmp_path: Path) -> None:
    app = App()
    stack = define(app, read_images(str(ROOT / "examples" / "platform" / "images.yaml")))
    assert [each.node.id for each in app.node.children if isinstance(each, Stack)] == ["Images", "Images-eu-west-1"]
    assert stack.parameters["speech"] == "/images/speech/inference/5.24.0/cpu"
    template = Template.from_stack(stack)
    template.resource_count_is("AWS::Scheduler::Schedule", 2)
    builds = template.find_resources("Custom::ExtendedDlcBuild").values()
    assert all("--fail-on=CRITICAL" in text_of(each["Properties"]["Create"]) for each in builds)
    file = tmp_path / "images.json"
    wrong = {"region": "us-east-1", "images": {"text": {"transfomers": "5.24.0"}}, "readers": {"accounts": ["1"]}}
    file.write_text(json.dumps(wrong))
    with pytest.raises(SettingsError) as raised:
        read_images(str(file))
    lines = str(raised.value).splitlines()
    assert "  images.text.transformers: field required" in lines
    assert any("images.text.transfomers: is not a setting; did you mean 'transformers'?" in line for line in lines)
    assert any("readers.accounts (1): must be the number of an account" in line for line in lines)


def test_another_account_pulls_where_both_its_own_policy_and_that_of_an_image_stack_allow_it() -> None:
    """The policy of an `ImageStack`'s repository; an account that was forgotten in it is refused."""

    def policy_for(readers: Readers) -> dict[str, Any]:
        images = {"text": ImageVersion(transformers="5.24.0", accelerator="cpu")}
        env = Environment(account="111111111111", region="us-east-1")
        stack = ImageStack(App(), "Images", env=env, images=images, readers=readers)
        (repository,) = Template.from_stack(stack).find_resources("AWS::ECR::Repository").values()
        found: dict[str, Any] = repository["Properties"]["RepositoryPolicyText"]
        for statement in found["Statement"]:
            principal = statement["Principal"]["AWS"]
            if principal != "*":
                parts = [part if isinstance(part, str) else "aws" for part in principal["Fn::Join"][1]]
                statement["Principal"] = {"AWS": "".join(parts)}
        return found

    arn = "arn:aws:ecr:us-east-1:111111111111:repository/images/text"
    reads = {"Statement": {"Effect": "Allow", "Action": "ecr:BatchGetImage", "Resource": arn}}

    def decide(
        account: str, document: dict[str, Any] | None, *identity: dict[str, Any], organisation: str = "o-zzzzzzzzzz"
    ) -> str:
        request = Request(
            action="ecr:BatchGetImage",
            resource=arn,
            principal=f"arn:aws:iam::{account}:role/endpoint",
            context={"aws:PrincipalOrgID": organisation},
        )
        found = evaluate(request, Policies(identity=identity, resource=document, owner="111111111111"))
        return found.reason or "allowed"

    named = policy_for(Readers(accounts=["222222222222"]))
    nobody = "because no resource-based policy allows the ecr:BatchGetImage action"
    assert decide("222222222222", named, reads) == "allowed"
    assert decide("222222222222", named) == "because no identity-based policy allows the ecr:BatchGetImage action"
    assert decide("333333333333", named, reads) == nobody
    assert decide("222222222222", None, reads) == nobody
    assert decide("111111111111", None, reads) == "allowed"
    organised = policy_for(Readers(organisation="o-abcdefghij"))
    assert decide("333333333333", organised, reads, organisation="o-abcdefghij") == "allowed"
    assert decide("333333333333", organised, reads) == nobody
    from moto.ecr.models import ecr_backends  # imported here, because it takes a second

    from extended_dlc.rehearsal.embedded.iam import Iam, Principal

    ecr = ecr_backends["111111111111"]["us-east-1"]
    ecr.create_repository("images/text", None, {}, None, "MUTABLE", [])
    reader = "arn:aws:iam::222222222222:role/endpoint"
    principal = Principal(arn=reader, session=reader, identity=[reads])
    target = {"account_id": "222222222222", "region": "us-east-1"}
    assert not Iam().decide(principal, "ecr:BatchGetImage", arn, {}, **target).allowed
    ecr.set_repository_policy("111111111111", "images/text", json.dumps(named))
    assert Iam().decide(principal, "ecr:BatchGetImage", arn, {}, **target).allowed
    ecr.delete_repository("images/text", force=True)


REGIONS = [f"ap-east-{number}" for number in range(6)]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"keys": ["a/b", "a-b"]}, r"'images' \(a-b\) and 'a/b' differ in signs alone: rename one"),
        ({"regions": ["ireland"]}, r"'regions' \(ireland\) is no region: write it as eu-west-1"),
        (
            {"regions": ["cn-north-1"]},
            r"'regions' \(cn-north-1\) is of the partition aws-cn, and ECR replicates within",
        ),
        (
            {"regions": [f"eu-west-{n}" for n in range(10)] + [f"eu-east-{n}" for n in range(10)] + REGIONS},
            r"26 regions",
        ),
        ({"keys": ["a" * 250]}, r"'images' \(a{40}…\) makes a name of over 256 characters"),
    ],
)
def test_names_that_aws_or_the_cdk_would_refuse_are_refused_by_their_options(
    options: dict[str, Any], message: str
) -> None:
    version = ImageVersion(transformers="5.23.0", accelerator="cpu")
    images = dict.fromkeys(options.pop("keys", ["text"]), version)
    with pytest.raises(ValueError, match=message):
        ImageStack(App(), "Images", images=images, env=Environment(account=IMAGES, region="us-east-1"), **options)


@pytest.mark.parametrize("take", [EcrImage.from_parameter, EcrImage.from_lookup])
@pytest.mark.parametrize("name", ["", "images/text", "/a b", "/images/text/", "arn:aws:s3:::images"])
def test_what_is_no_name_of_a_parameter_is_refused(take: Callable[..., EcrImage], name: str) -> None:
    stack = Stack(App(), "Team", env=Environment(account=WORKLOAD, region="us-east-1"))
    with pytest.raises(ValueError, match=r"'parameter' \(.*\) is no (name|ARN) of a parameter: write it "):
        take(stack, "Image", name)
