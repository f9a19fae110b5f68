"""`PlatformDefaults`: what a platform gives and refuses, and the roles of everything below an app."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from aws_cdk import App, CfnParameter, CfnResource, Environment, NestedStack, Stack, Stage
from aws_cdk import aws_ec2 as ec2
from aws_cdk import aws_ecr as ecr
from aws_cdk import aws_iam as iam
from aws_cdk import aws_kms as kms
from aws_cdk import aws_logs as logs
from aws_cdk import aws_s3 as s3
from aws_cdk import aws_sagemaker as sagemaker
from aws_cdk.assertions import Match, Template

from extended_dlc import (
    CloudBuild,
    Component,
    Components,
    EcrImage,
    EvaluationGate,
    ExtendedDlc,
    HubModel,
    HuggingFaceEndpoint,
    InvocationScaling,
    MirroredModel,
    Monitoring,
    Network,
    PlatformDefaults,
    Proof,
    RealTime,
    S3Model,
    ScheduledCapacity,
    Serverless,
    StockDlc,
    TrainedModel,
    TrainingCode,
    TrainingInstances,
    TrainingJob,
    Variant,
)
from tests.support.stacks import new_stack

BOUNDARY = "arn:aws:iam::123456789012:policy/ml-boundary"


def endpoint_under(rules: PlatformDefaults, **options: Any) -> Template:
    app = App()
    rules.apply(app)
    stack = new_stack(app, "Team")
    given = {"model": HubModel("bloom"), "image": StockDlc(transformers="4.51.3"), "verify": False, **options}
    if given["model"] == "s3":
        given["model"] = S3Model(s3.Bucket.from_bucket_name(stack, "Models", "models"), "bloom/")
    if given["image"] == "ecr":
        given["image"] = EcrImage(ecr.Repository.from_repository_name(stack, "Images", "images"), "1")
    if given["model"] == "token":
        given["model"] = HubModel(CfnParameter(stack, "Id").value_as_string)
    HuggingFaceEndpoint(stack, "Endpoint", **given)
    return Template.from_stack(stack)


def test_endpoints_get_the_platforms_vpc_key_monitoring_and_proof_and_roles_its_boundary_path_and_names() -> None:
    app = App()
    shared = new_stack(app, "Shared", account="123456789012")
    vpc = ec2.Vpc.from_vpc_attributes(
        shared, "Vpc", vpc_id="vpc-1", availability_zones=["a", "b"], private_subnet_ids=["subnet-1", "subnet-2"]
    )
    PlatformDefaults(
        network=Network(vpc=vpc),
        encryption_key=kms.Key.from_key_arn(shared, "Key", "arn:aws:kms:us-east-1:123456789012:key/1"),
        monitoring=Monitoring(),
        proof=Proof(optional=True),
        permissions_boundary=iam.ManagedPolicy.from_managed_policy_arn(shared, "Boundary", BOUNDARY),
        role_path="/ml/",
        role_name_prefix="acme-ml-",
        log_retention_days=90,
        tags={"cost-centre": "42"},
    ).apply(app)
    stack = new_stack(app, "Team", account="123456789012")
    local = ExtendedDlc(stack, "Local", transformers="5.23.0", accelerator="cpu")
    ExtendedDlc(stack, "Cloud", transformers="5.23.0", accelerator="cpu", build=CloudBuild())
    weights = MirroredModel(stack, "Weights", model="bloom", revision="a" * 40)
    HuggingFaceEndpoint(stack, "Endpoint", model=weights, image=local)
    logs.CfnLogGroup(stack, "Kept")
    logs.CfnLogGroup(stack, "Own", retention_in_days=7)
    template = Template.from_stack(stack)
    roles = template.find_resources("AWS::IAM::Role")
    # the copy's, the build's, the endpoint's, the mirror's and the CDK's own
    for made in ("ImageCopyRole", "CloudProjectRole", "EndpointRole", "WeightsProjectRole", "AWS679f"):
        assert any(name.startswith(made) for name in roles)
    names = []
    for role in roles.values():
        properties = role["Properties"]
        assert (properties["PermissionsBoundary"], properties["Path"]) == (BOUNDARY, "/ml/")
        names.append(json.dumps(properties["RoleName"]))
    assert all("acme-ml-" in each for each in names)
    assert len(set(names)) == len(roles) >= 5
    template.has_resource_properties("AWS::SageMaker::Model", {"VpcConfig": {"Subnets": ["subnet-1", "subnet-2"]}})
    template.has_resource_properties("AWS::SageMaker::EndpointConfig", {"KmsKeyId": Match.any_value()})
    proofs = template.find_resources("Custom::ExtendedDlcProof").values()
    assert any("Body" in each["Properties"] for each in proofs), [each["Properties"] for each in proofs]
    template.has_resource_properties("AWS::Logs::LogGroup", {"RetentionInDays": 90})
    template.has_resource_properties("AWS::Logs::LogGroup", {"RetentionInDays": 7})
    tag = {"Key": "cost-centre", "Value": "42"}
    template.has_resource_properties("AWS::SageMaker::Model", {"Tags": Match.array_with([tag])})


ASK = "ask #ml-platform"
ONE = Component(name="one", memory_mb=1024)
WEEKDAYS = InvocationScaling(
    maximum=2, requests_per_second=10, schedules=[ScheduledCapacity(schedule="cron(0 8 ? * MON-FRI *)", maximum=9)]
)


@pytest.mark.parametrize(
    ("rules", "options", "message"),
    [
        (
            {"instance_types": ["ml.m5.*", "ml.m6i.xlarge"]},
            {"hosting": RealTime(instance_type=["ml.m5.large", "ml.m6i.large"])},
            r"'instance_type' \(ml\.m6i\.large\) is none of the platform's: ml\.m5\.\*, ml\.m6i\.xlarge: ask #ml-",
        ),
        (
            {"organisations": ["mistralai"]},
            {},
            r"'model' \(bigscience/bloom-560m\) is of 'bigscience', and the platform takes models of mistralai: ask",
        ),
        (
            {"licences": ["apache-2.0"]},
            {},
            r"'model' \(bigscience/bloom-560m\) is under 'bigscience-bloom-rail-1\.0', and the platform takes apache",
        ),
        (
            {"licences": ["apache-2.0"]},
            {"model": HubModel("acme/unheard", model_type="bloom")},
            r"is under a licence that nobody knows here \(say licence=\)",
        ),
        (
            {"greatest_hourly_price": 1, "prices": {"ml.m5.xlarge": 0.25}},
            {"hosting": RealTime(scaling=InvocationScaling(maximum=5, requests_per_second=10))},
            r"'hosting' \(1\.25 an hour\) costs more than 1 an hour with all its instances: ask #ml-platform",
        ),
        ({"proof": Proof(optional=True)}, {}, r"'verify' \(False\) leaves the endpoint unproved"),
        ({"proof": Proof()}, {"verify": Proof(optional=True)}, r"'verify' \(optional\) may ask nothing"),
        (
            {"instance_types": ["ml.m5.*"]},
            {"hosting": RealTime(shadow=Variant(name="beside", instance_type="ml.m6i.large"))},
            r"'instance_type' \(ml\.m6i\.large\) is none of the platform's",
        ),
        (
            {"instance_types": ["ml.m5.*"]},
            {"hosting": Components(instance_type="ml.m6i.large", components=[ONE], maximum=1)},
            r"'instance_type' \(ml\.m6i\.large\) is none of the platform's",
        ),
        (
            {"organisations": ["mistralai"]},
            {
                "model": HubModel("mistralai/a"),
                "hosting": RealTime(variants=[Variant(name="b", model=HubModel("evil/b"))]),
            },
            r"'model' \(evil/b\) is of 'evil'",
        ),
        (
            {"organisations": ["bigscience"]},
            {"image": "ecr", "environment": {"EXTENDED_DLC_ADAPTERS": "a=bigscience/a, b=evil/b@main"}},
            r"'model' \(evil/b\) is of 'evil'",
        ),
        (
            {"licences": ["apache-2.0"]},
            {"model": HubModel("bloom", licence="apache-2.0")},
            r"is under 'bigscience-bloom-rail-1\.0'",
        ),
        ({"own_models": False}, {"model": "s3"}, r"'model' \(files\) is no model of the Hub"),
        (
            {"organisations": ["bigscience"]},
            {"model": "s3", "environment": {"HF_MODEL_ID": "evil/b"}},
            r"'model' \(evil/b\) is of 'evil'",
        ),
        (
            {"organisations": ["mistralai"]},
            {"model": "token"},
            r"'model' \(a token\) is known only when it is deployed",
        ),
        (
            {"greatest_hourly_price": 1, "prices": {"ml.m5.large": 0.1}},
            {},
            r"'instance_type' \(ml\.m5\.xlarge\) has no price in the platform's prices",
        ),
        (
            {"greatest_hourly_price": 1, "prices": {"ml.m5.xlarge": 0.25}},
            {"hosting": RealTime(scaling=WEEKDAYS)},
            r"'hosting' \(2\.25 an hour\) costs more than 1 an hour",
        ),
    ],
)
def test_what_a_platform_does_not_allow_is_refused_at_synth_in_its_own_words(
    rules: dict[str, Any], options: dict[str, Any], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        endpoint_under(PlatformDefaults(message=ASK, **rules), **options)


def test_what_a_platform_allows_passes_and_the_nearest_rules_win() -> None:
    rules = PlatformDefaults(
        instance_types=["ml.m5.*"],
        organisations=["bigscience"],
        licences=["bigscience-bloom-rail-1.0"],
        greatest_hourly_price=1,
        prices={"ml.m5.xlarge": 0.25},
    )
    endpoint_under(rules, hosting=RealTime(instances=4)).resource_count_is("AWS::SageMaker::Endpoint", 1)
    app = App()
    PlatformDefaults(instance_types=["ml.m5.*"], replaceable=True).apply(app)
    stage = Stage(app, "Research", env=Environment(region="us-east-1"))
    PlatformDefaults(instance_types=["ml.g5.*"]).apply(stage)
    hosting = RealTime(instance_type="ml.g5.xlarge")
    image = StockDlc(transformers="4.51.3")
    HuggingFaceEndpoint(Stack(stage, "Team"), "E", model=HubModel("bloom"), image=image, hosting=hosting)
    team = new_stack(app, "Own")
    PlatformDefaults(own_images=False).apply(team)
    with pytest.raises(ValueError, match=r"'image' \(ExtendedDlc\) is built by yourself: take an image"):
        ExtendedDlc(team, "Image", transformers="5.23.0", family="training")
    other = new_stack(app, "Other")
    PlatformDefaults(network=Network(vpc=ec2.Vpc(other, "Vpc"))).apply(other)
    with pytest.raises(ValueError, match=r"'hosting' \(Serverless\) can be in no VPC"):
        HuggingFaceEndpoint(other, "E", model=HubModel("bloom"), image=image, hosting=Serverless())


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"role_path": "ml"}, r"'role_path' \(ml\) must begin and end with a slash"),
        ({"role_name_prefix": "a" * 21}, r"'role_name_prefix' .* must be 1 to 20"),
        ({"log_retention_days": 42}, r"'log_retention_days' \(42\) must be one of 1, 3, 5"),
        ({"greatest_hourly_price": 5}, r"'greatest_hourly_price' \(5\) needs 'prices'"),
    ],
)
def test_rules_that_could_not_be_enforced_are_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        PlatformDefaults(**options)


def test_rules_of_a_scope_below_come_on_top_and_rules_after_an_endpoint_are_refused() -> None:
    app = App()
    PlatformDefaults(message=ASK, instance_types=["ml.m5.*"], monitoring=Monitoring()).apply(app)
    stack = new_stack(app, "Team")
    PlatformDefaults().apply(stack)
    PlatformDefaults(instance_types=["ml.*"]).apply(app)
    image = StockDlc(transformers="4.51.3")
    with pytest.raises(ValueError, match=r"'instance_type' \(ml\.m6i\.large\) is none of the platform's: ml\.m5"):
        HuggingFaceEndpoint(stack, "E", model="bloom", image=image, hosting=RealTime(instance_type="ml.m6i.large"))
    made = HuggingFaceEndpoint(stack, "Made", model="bloom", image=image, verify=False)
    assert made.watch is not None, "a default of the scope above, which the nearer rules have none of"
    with pytest.raises(ValueError, match=r"'scope' \(Team\) has Team/E already"):
        PlatformDefaults(instance_types=["ml.*"], replaceable=True).apply(stack)


def test_a_training_its_gate_and_its_base_model_keep_to_the_rules(tmp_path: Path) -> None:
    app = App()
    rules: dict[str, Any] = {"instance_types": ["ml.g5.*"], "licences": ["apache-2.0"], "greatest_hourly_price": 3}
    PlatformDefaults(message=ASK, prices={"ml.g5.xlarge": 1.4, "ml.g5.2xlarge": 1.5}, **rules).apply(app)
    stack = new_stack(app, "Team")
    for script in ("train.py", "evaluate.py"):
        (tmp_path / script).write_text("")
    whisper = HubModel("openai/whisper-tiny")
    weights = TrainedModel(stack, "Weights", first=whisper)
    hosting = RealTime(instance_type="ml.g5.xlarge")
    HuggingFaceEndpoint(stack, "E", model=weights, image=StockDlc(transformers="4.51.3"), hosting=hosting)
    image = ExtendedDlc(stack, "Image", transformers="5.23.0", family="training")
    given = {"code": TrainingCode(str(tmp_path)), "image": image, "base_model": whisper}

    def refused(number: int, message: str, **options: Any) -> None:
        with pytest.raises(ValueError, match=message):
            TrainingJob(stack, f"Job{number}", **{**given, **options})

    refused(1, r"\(ml\.m5\.large\) is none of the", instances=TrainingInstances(instance_type="ml.m5.large"))
    gate = EvaluationGate(metric="loss", at_most=1, instance_type="ml.p4d.24xlarge")
    refused(2, r"\(ml\.p4d\.24xlarge\) is none of the", gate=gate, serves=weights)
    refused(3, r"'model' \(bigscience/bloom-560m\) is under 'bigscience-bloom-rail", base_model=HubModel("bloom"))
    three = TrainingInstances(instance_type="ml.g5.xlarge", count=3, distribution="torchrun")
    refused(4, r"'hosting' \(4\.2 an hour\) costs more than 3", instances=three)
    refused(
        5,
        r"'model' \(evil/b\) is under a licence that nobody knows",
        base_model=None,
        environment={"HF_MODEL_ID": "evil/b"},
    )


def test_what_tokens_escape_hatches_and_other_constructs_made_is_refused_in_the_finished_templates() -> None:
    app = App()
    names = new_stack(app, "Names", account="123456789012")
    PlatformDefaults(
        message=ASK,
        instance_types=["ml.m5.*"],
        organisations=["bigscience"],
        proof=Proof(),
        greatest_hourly_price=1,
        prices={"ml.m5.xlarge": 0.25, "ml.m5.2xlarge": 0.5},
        permissions_boundary=iam.ManagedPolicy.from_managed_policy_arn(names, "Boundary", BOUNDARY),
    ).apply(app)
    stack = new_stack(app, "Team", account="123456789012")
    image = EcrImage(ecr.Repository.from_repository_name(stack, "Images", "images"), "1", accelerator="cpu")

    def endpoint(name: str, scope: Stack = stack, **options: Any) -> HuggingFaceEndpoint:
        return HuggingFaceEndpoint(scope, name, model=HubModel("bloom"), image=image, **options)

    def type_of(name: str, **options: Any) -> RealTime:
        return RealTime(instance_type=CfnParameter(stack, name, **options).value_as_string)

    endpoint("Right")
    endpoint("RightChoice", hosting=type_of("Choice", allowed_values=["ml.m5.xlarge", "ml.m5.2xlarge"]))
    endpoint("AnyType", hosting=type_of("Any"))
    endpoint("WrongChoice", hosting=type_of("Wrong", allowed_values=["ml.m5.xlarge", "ml.g5.xlarge"]))
    endpoint("Larger").config.add_property_override("ProductionVariants.0.InstanceType", "ml.p5.48xlarge")
    pools = [{"InstanceType": "ml.m5.xlarge"}, {"InstanceType": "ml.p4d.24xlarge"}]
    endpoint("Pools").config.add_property_override("ProductionVariants.0.InstancePools", pools)
    endpoint("More").config.add_property_override("ProductionVariants.0.InitialInstanceCount", 5)
    scaled = endpoint("Scaled", hosting=RealTime(scaling=InvocationScaling(maximum=2, requests_per_second=9)))
    target = scaled.node.find_child("Scaling").node.find_child("Target")
    assert isinstance(target, CfnResource)
    target.add_property_override("MaxCapacity", 40)
    endpoint("Other").model.add_property_override("PrimaryContainer.Environment.HF_MODEL_ID", "evil/b")
    endpoint("Foreign").config.add_property_override("ProductionVariants.0.ModelName", "somebody-elses")
    endpoint("Unproved").node.try_remove_child("Check")
    below = NestedStack(stack, "Below")
    endpoint("Nested", below).config.add_property_override("ProductionVariants.0.InstanceType", "ml.g6.xlarge")
    sagemaker.CfnEndpoint(stack, "Bare", endpoint_config_name="made-by-hand")
    role = iam.Role(stack, "Free", assumed_by=iam.ServicePrincipal("lambda.amazonaws.com"))
    iam.PermissionsBoundary.of(role).clear()
    job = {
        "Resource": "arn:aws:states:::sagemaker:createTrainingJob",
        "ResourceConfig": {"InstanceType": "ml.trn1.2xlarge"},
    }
    CfnResource(
        stack, "Machine", type="AWS::StepFunctions::StateMachine", properties={"DefinitionString": json.dumps(job)}
    )
    job["ResourceConfig"] = {"InstanceType.$": "$.type"}
    CfnResource(
        stack, "Chooses", type="AWS::StepFunctions::StateMachine", properties={"DefinitionString": json.dumps(job)}
    )
    CfnResource(
        stack, "Notebook", type="AWS::SageMaker::NotebookInstance", properties={"InstanceType": "ml.p3.2xlarge"}
    )
    with pytest.raises(RuntimeError) as refused:
        app.synth()
    found = [line.partition("/")[2] for line in str(refused.value).splitlines() if ASK in line]
    expected = {
        "AnyType": "'instance_type' (a token) is known only when it is deployed",
        "WrongChoice": "(ml.g5.xlarge) is none of the platform's: ml.m5.*",
        "Larger": "(ml.p5.48xlarge) is none of the platform's",
        "Pools": "(ml.p4d.24xlarge) is none of the platform's",
        "More": "'hosting' (1.25 an hour) costs more than 1 an hour",
        "Scaled": "'hosting' (10 an hour) costs more than 1 an hour",
        "Other": "'model' (evil/b) is of 'evil'",
        "Foreign": "'model' (somebody-elses) is a Model that this endpoint's construct did not make",
        "Unproved": "leaves the endpoint unproved",
        "Below/Nested": "(ml.g6.xlarge) is none of the platform's",
        "Bare": "'AWS::SageMaker::Endpoint' (Bare) is made without HuggingFaceEndpoint",
        "Free": "has not the platform's permissions boundary",
        "Machine": "(ml.trn1.2xlarge) is none of the platform's",
        "Chooses": "'instance_type' (a token) is known only",
        "Notebook": "(ml.p3.2xlarge) is none of the platform's",
    }
    for start, message in expected.items():
        assert any(line.startswith(start) and message in line for line in found), (start, found)
    assert not [line for line in found if line.startswith("Right")], found


def test_only_the_platforms_images_are_used_however_they_are_named() -> None:
    app = App()
    PlatformDefaults(message=ASK, images=["/images/*", "111111111111.dkr.ecr.*"]).apply(app)
    stack = new_stack(app, "Team", account="222222222222")
    arn = "arn:aws:ssm:us-east-1:{}:parameter/images/text/inference/5.24.0/cpu"
    looked_up = EcrImage.from_lookup(stack, "LookedUp", "/images/text/inference/5.24.0/cpu")
    theirs = ecr.Repository.from_repository_arn(stack, "Theirs", "arn:aws:ecr:us-east-1:111111111111:repository/a")
    others = ecr.Repository.from_repository_arn(stack, "Others", "arn:aws:ecr:us-east-1:333333333333:repository/a")
    images: dict[str, Any] = {
        "Named": EcrImage.from_parameter(stack, "Image", "/images/text/inference/5.24.0/cpu"),
        "Pulled": EcrImage(theirs, "1", accelerator="cpu"),
        "NotYet": looked_up,
        "WrongAccount": EcrImage(others, "1", accelerator="cpu"),
        "WrongName": EcrImage.from_parameter(stack, "Own", arn.format("222222222222")),
        "WrongStock": StockDlc(transformers="4.51.3"),
        "WrongBuilt": ExtendedDlc(stack, "Built", transformers="5.24.0", accelerator="cpu", build=CloudBuild()),
    }
    for name, image in images.items():
        HuggingFaceEndpoint(stack, name, model="bloom", image=image, verify=False)
    with pytest.raises(RuntimeError) as refused:
        app.synth()
    found = [line.partition("/")[2] for line in str(refused.value).splitlines() if ASK in line]
    assert len(found) == 4, found
    assert all(line.startswith("Wrong") and "is none of the platform's: /images/*, 1111" in line for line in found), (
        found
    )


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"instance_types": ["g5.*"]}, r"'instance_types' \(g5\.\*\) is no type of SageMaker's: write ml\.g5\.\*"),
        ({"prices": {"g5.xlarge": 1}}, r"'prices' \(g5\.xlarge\) is no type of SageMaker's"),
        ({"prices": {"ml.g5.xlarge": -1}}, r"'prices' \(-1\) must be 0 or more: correct that of ml\.g5\.xlarge"),
        (
            {"organisations": ["bigscience/bloom"]},
            r"'organisations' \(bigscience/bloom\) is a model: write bigsc",
        ),
        ({"tags": {"": "x"}}, r"'tags' has '', a key of 0 characters"),
        ({"tags": {"aws:team": "x"}}, r"'tags' has 'aws:team', and keys that begin with 'aws:' are AWS's own"),
        ({"tags": {"team": "x" * 257}}, r"'tags' has 'team', with a value of 257 characters, and AWS takes 256"),
        ({"tags": {"team#": "x"}}, r"'tags' has 'team#', and a tag takes letters"),
        ({"tags": {f"t{number}": "x" for number in range(51)}}, r"'tags' has 51 tags, and AWS takes 50"),
    ],
)
def test_a_rule_that_could_match_nothing_is_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        PlatformDefaults(**options)
    PlatformDefaults(instance_types=["*.g5.xlarge", "ml.m5.*"], prices={"ml.m5.xlarge": 0}, tags={"team": "x"})
