"""An endpoint among other constructs of the CDK: `examples/citizen.py` synthesised once, and what it is made of."""

from __future__ import annotations

import inspect
import json
import re
import runpy
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import aws_cdk as cdk
import boto3
import pytest
from aws_cdk import aws_cloudwatch as cloudwatch
from aws_cdk import aws_ec2 as ec2
from aws_cdk import aws_ecr as ecr
from aws_cdk import aws_iam as iam
from aws_cdk import aws_s3 as s3
from aws_cdk import aws_sagemaker as sagemaker
from aws_cdk.assertions import Template

from extended_dlc import (
    _HOMES,
    Async,
    Component,
    Components,
    DataCapture,
    EcrImage,
    EvaluationGate,
    ExtendedDlc,
    HubModel,
    HuggingFaceEndpoint,
    InferenceCode,
    InvokableEndpoint,
    MirroredModel,
    Monitoring,
    Network,
    OfficeHours,
    RealTime,
    S3Data,
    S3Model,
    StockDlc,
    TrainedModel,
    TrainingCode,
    TrainingInstances,
    TrainingJob,
    VllmServing,
    acknowledge_nag,
)
from extended_dlc.app.described import described
from extended_dlc.facts.members import RESOURCES, listed, members
from extended_dlc.options.hosting import MAIN_VARIANT
from extended_dlc.programs.functions import copy_once
from tests.support.cfn_lint import double_dependencies
from tests.support.stacks import ACCOUNT, ENV, new_stack

EXAMPLE = Path(__file__).parents[2] / "examples" / "citizen.py"
GPU_BASE = "registry.example.com/huggingface-pytorch-inference:2.6.0-transformers5.5.3-gpu-py312-cu124-ubuntu22.04-v1.2"

Json = dict[str, Any]


@pytest.fixture(scope="module")
def templates(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Json]:
    """The templates of the example's stacks by their names."""
    out = tmp_path_factory.mktemp("out")
    app = cdk.App(outdir=str(out))
    runpy.run_path(str(EXAMPLE), run_name="example")["build"](app)
    return {stack.stack_name: stack.template for stack in app.synth().stacks}


def of_type(template: Json, kind: str) -> dict[str, Json]:
    found = {name: each["Properties"] for name, each in template["Resources"].items() if each["Type"] == kind}
    assert found, kind
    return found


def text(value: Any) -> str:
    """A value of a template as one text, without what CloudFormation joins it with."""
    if isinstance(value, dict) and "Fn::Join" in value:
        return "".join(map(text, value["Fn::Join"][1]))
    return value if isinstance(value, str) else json.dumps(value)


ARNS = {
    "CallersOfElsewhere": ":sagemaker:eu-west-1:111111111111:endpoint/bloom",
    "CallersOfAnothers": ":sagemaker:us-east-1:222222222222:endpoint/bloom",
    "CallersOfImported": ":sagemaker:eu-west-1:333333333333:endpoint/theirs",
    "CallersOfNamed": ':sagemaker:us-east-1:111111111111:endpoint/{"Fn::ImportValue": "EndpointName"}',
}


@pytest.mark.parametrize("stack", ["Callers", *ARNS])
def test_an_api_a_state_machine_and_events_take_the_endpoint_wherever_it_is(
    templates: dict[str, Json], stack: str
) -> None:
    template = templates[stack]
    (method,) = of_type(template, "AWS::ApiGateway::Method").values()
    (machine,) = of_type(template, "AWS::StepFunctions::StateMachine").values()
    (rule,) = of_type(template, "AWS::Events::Rule").values()
    policies = [json.dumps(each) for each in of_type(template, "AWS::IAM::Policy").values()]
    assert "/invocations" in text(method["Integration"]["Uri"])
    assert "sagemaker:updateEndpoint" in text(machine["DefinitionString"])
    assert len(rule["Targets"]) == 2
    assert any("sagemaker:InvokeEndpoint" in each for each in policies)
    (watched,) = rule["EventPattern"]["resources"]
    assert text(watched).endswith(ARNS.get(stack, text(watched)))


def test_what_cloudformation_knows_later_reaches_the_template(templates: dict[str, Json]) -> None:
    (endpoint,) = of_type(templates["Serving"], "AWS::SageMaker::Endpoint").values()
    (config,) = of_type(templates["Serving"], "AWS::SageMaker::EndpointConfig").values()
    name = text(endpoint["EndpointName"])
    assert name.startswith("bloom-")
    assert "SsmParameterValue" in name
    (variant,) = config["ProductionVariants"]
    assert (variant["InstanceType"], variant["InitialInstanceCount"]) == ("ml.g5.xlarge", {"Ref": "Count"})
    names = [
        text(each.get("LogGroupName", "")) for each in of_type(templates["Serving"], "AWS::Logs::LogGroup").values()
    ]
    (group,) = [each for each in names if "Endpoints" in each]
    assert group == f"/aws/sagemaker/Endpoints/{name}"


def test_the_containers_have_connections_and_are_a_principal(templates: dict[str, Json]) -> None:
    (ingress,) = of_type(templates["Serving"], "AWS::EC2::SecurityGroupIngress").values()
    assert "BloomSecurityGroup" in text(ingress["SourceSecurityGroupId"])
    policies = of_type(templates["Serving"], "AWS::IAM::Policy")
    (role,) = [json.dumps(each) for name, each in policies.items() if name.startswith("BloomRole")]
    assert "s3:GetObject*" in role


def test_an_image_is_published_beside_each_endpoint_that_another_region_or_account_has(
    templates: dict[str, Json],
) -> None:
    for stack in ("Serving", "Elsewhere", "Anothers"):
        (repository,) = of_type(templates[stack], "AWS::ECR::Repository")
        (model,) = of_type(templates[stack], "AWS::SageMaker::Model").values()
        assert repository in text(model["PrimaryContainer"]["Image"])
        policies = of_type(templates[stack], "AWS::IAM::Policy")
        (role,) = [json.dumps(each) for name, each in policies.items() if name.startswith("BloomRole")]
        assert repository in role
        (copy,) = of_type(templates[stack], "Custom::CDKECRDeployment").values()
        assert copy["ServiceToken"]["Fn::GetAtt"][0].startswith("ImageCopyOnce")
    tags = {
        text(each["PrimaryContainer"]["Image"]).rpartition(":")[2]
        for stack in ("Serving", "Elsewhere", "Anothers")
        for each in of_type(templates[stack], "AWS::SageMaker::Model").values()
    }
    assert len(tags) == 1, "one build serves all"


def test_no_dependency_is_there_twice_but_what_the_cdks_own_constructs_of_the_user_make(
    templates: dict[str, Json],
) -> None:
    for stack, template in templates.items():
        for each in double_dependencies(template):
            assert each.startswith(("Machine", "AWSb4cf1abd4e4f4bc699441af7ccd9ec37")), (stack, each)


def test_an_endpoint_and_an_import_are_resources_of_the_cdk() -> None:
    stack = new_stack(account=ACCOUNT)
    arn = "arn:aws:sagemaker:eu-west-1:222222222222:endpoint/Bloom"
    imported = InvokableEndpoint.from_endpoint_arn(stack, "Imported", arn)
    assert (imported.env.account, imported.env.region) == ("222222222222", "eu-west-1")
    assert (imported.endpoint_name, imported.endpoint_arn) == ("Bloom", arn.lower())
    assert imported.endpoint_ref.endpoint_arn == arn.lower()
    metric = imported.metric_invocations()
    assert (metric.account, metric.region) == ("222222222222", "eu-west-1")
    by_name = InvokableEndpoint.from_endpoint_name(stack, "ByName", "bloom").metric_invocations()
    assert (by_name.account, by_name.region) == (None, None)
    taken: sagemaker.IEndpoint = imported
    grantable: iam.IGrantable = imported
    connectable: ec2.IConnectable = imported
    assert taken is grantable is connectable
    role = iam.Role(stack, "Role", assumed_by=iam.AccountRootPrincipal())
    with_role = InvokableEndpoint.from_endpoint_attributes(stack, "Own", endpoint_arn=arn, role=role)
    assert with_role.grant_principal is role.grant_principal
    assert with_role.grant_read_logs(role).success
    with pytest.raises(ValueError, match=r"'connections' needs an endpoint in a VPC"):
        _ = imported.connections
    with pytest.raises(ValueError, match=r"'endpoint_arn' \(arn:aws:s3:::x\) is no endpoint's ARN"):
        InvokableEndpoint.from_endpoint_arn(stack, "Wrong", "arn:aws:s3:::x")
    for wrong in ("arn:aws:sagemaker::111122223333:endpoint/x", "arn:aws:sagemaker:eu-west-1:1:endpoint/x"):
        with pytest.raises(ValueError, match="is no endpoint's ARN: write arn:aws:sagemaker:REGION:ACCOUNT"):
            InvokableEndpoint.from_endpoint_arn(stack, "Wrong", wrong)
    token = InvokableEndpoint.from_endpoint_arn(stack, "Token", cdk.Fn.import_value("Arn"))
    assert "arn" in str(stack.resolve(token.endpoint_arn))
    assert token.metric_invocations().region is None


METRICS = {
    "invocations": ("Invocations", "AWS/SageMaker"),
    "invocations_per_instance": ("InvocationsPerInstance", "AWS/SageMaker"),
    "client_errors": ("Invocation4XXErrors", "AWS/SageMaker"),
    "server_errors": ("Invocation5XXErrors", "AWS/SageMaker"),
    "model_errors": ("InvocationModelErrors", "AWS/SageMaker"),
    "mid_stream_errors": ("MidStreamErrors", "AWS/SageMaker"),
    "model_latency": ("ModelLatency", "AWS/SageMaker"),
    "overhead_latency": ("OverheadLatency", "AWS/SageMaker"),
    "first_chunk_latency": ("FirstChunkLatency", "AWS/SageMaker"),
    "model_setup_time": ("ModelSetupTime", "AWS/SageMaker"),
    "concurrent_requests": ("ConcurrentRequestsPerModel", "AWS/SageMaker"),
    "processing_time": ("TotalProcessingTime", "AWS/SageMaker"),
    "cpu_utilization": ("CPUUtilization", "/aws/sagemaker/Endpoints"),
    "memory_utilization": ("MemoryUtilization", "/aws/sagemaker/Endpoints"),
    "gpu_utilization": ("GPUUtilization", "/aws/sagemaker/Endpoints"),
    "gpu_memory_utilization": ("GPUMemoryUtilization", "/aws/sagemaker/Endpoints"),
    "disk_utilization": ("DiskUtilization", "/aws/sagemaker/Endpoints"),
    "backlog_size": ("ApproximateBacklogSize", "AWS/SageMaker"),
    "backlog_size_per_instance": ("ApproximateBacklogSizePerInstance", "AWS/SageMaker"),
    "backlog_age": ("ApproximateAgeOfOldestRequest", "AWS/SageMaker"),
    "backlog_without_capacity": ("HasBacklogWithoutCapacity", "AWS/SageMaker"),
}


def test_each_metric_has_its_namespace_its_dimensions_and_takes_metric_options() -> None:
    stack = cdk.Stack(cdk.App(), "Test")
    endpoint = InvokableEndpoint.from_endpoint_name(stack, "Named", "bloom")
    options = cloudwatch.MetricOptions(period=cdk.Duration.minutes(7), statistic="p42", label="mine")
    for method, (name, namespace) in METRICS.items():
        metric = getattr(endpoint, f"metric_{method}")(options=options)
        assert (metric.metric_name, metric.namespace) == (name, namespace)
        assert (metric.period.to_minutes(), metric.statistic, metric.label) == (7, "p42", "mine")
        dimensions = {"EndpointName": "bloom"} | ({} if "backlog" in method else {"VariantName": MAIN_VARIANT})
        assert metric.dimensions == dimensions, method
    mapping: Any = {"period": cdk.Duration.minutes(7)}  # as the CDK's own methods take it
    assert endpoint.metric_invocations(options=mapping).period.to_minutes() == 7
    copy = endpoint.metric_cpu_utilization(component="small")
    assert (copy.metric_name, copy.dimensions) == ("CPUUtilizationNormalized", {"InferenceComponentName": "small"})
    assert endpoint.metric_invocations_per_copy("small").dimensions == {"InferenceComponentName": "small"}


def test_a_list_of_instance_types_that_only_cloudformation_knows_is_refused() -> None:
    types = cdk.Token.as_list({"Ref": "Types"})
    with pytest.raises(ValueError, match=r"'instance_type' is a CDK token of a list.*Fn\.select"):
        RealTime(instance_type=types)


@pytest.mark.parametrize("wrong", [None, "app"])
def test_reasons_for_cdk_nag_are_given_below_a_construct(wrong: Any) -> None:
    with pytest.raises(ValueError, match=r"'scope' .* must be a construct, as the app or a stack"):
        acknowledge_nag(wrong)


def test_an_image_is_published_in_an_agnostic_stack_beside_one_of_a_known_region() -> None:
    app = cdk.App()
    image = ExtendedDlc(
        cdk.Stack(app, "Known", env=cdk.Environment(region="eu-central-1")),
        "Image",
        transformers="5.24.0",
        accelerator="cpu",
    )
    agnostic = cdk.Stack(app, "Agnostic")
    HuggingFaceEndpoint(agnostic, "Speech", model="openai/whisper-base", image=image)
    found = Template.from_stack(agnostic)
    found.resource_count_is("AWS::ECR::Repository", 1)


def test_an_instance_type_is_a_name_a_type_of_ec2_or_a_token() -> None:
    stack = new_stack()
    token = cdk.CfnParameter(stack, "Type").value_as_string
    mixed = RealTime(instance_type=[ec2.InstanceType("c5.xlarge"), "ml.m5.xlarge"])
    assert mixed.instance_types == ("ml.c5.xlarge", "ml.m5.xlarge")
    assert TrainingInstances(instance_type=ec2.InstanceType("g5.xlarge")).instance_types == ("ml.g5.xlarge",)
    assert EvaluationGate(metric="loss", at_most=1, instance_type=ec2.InstanceType("g5.xlarge")).instance_type == (
        "ml.g5.xlarge"
    )
    image = ExtendedDlc(stack, "Image", transformers="5.23.0", base=GPU_BASE)
    endpoint = HuggingFaceEndpoint(
        stack,
        "Token",
        model="bigscience/bloom-560m",
        image=image,
        hosting=RealTime(instance_type=token),
        monitoring=Monitoring(),
    )
    HuggingFaceEndpoint(
        stack,
        "Shared",
        model="bigscience/bloom-560m",
        image=image,
        hosting=Components(instance_type=token, maximum=2, components=[Component(name="one", memory_mb=1024)]),
    )
    variant = stack.resolve(endpoint.config.production_variants)[0]
    assert (variant["instanceType"], variant.get("inferenceAmiVersion")) == ({"Ref": "Type"}, None)
    with pytest.raises(
        ValueError, match=r"say accelerator='cpu' or 'gpu' \(ExtendedDlc\), or name the image with base="
    ):
        HuggingFaceEndpoint(stack, "Unknown", model="gpt2", image=StockDlc(), hosting=RealTime(instance_type=token))
    with pytest.raises(ValueError, match=r"'instance_type' \(a CDK token\) does not say how many GPUs there are"):
        HuggingFaceEndpoint(
            stack,
            "Vllm",
            model="Qwen/Qwen3-8B",
            image=ExtendedDlc(stack, "VllmImage", transformers="5.23.0", family="vllm"),
            hosting=RealTime(instance_type=token),
            vllm=VllmServing(),
        )
    with pytest.raises(ValueError, match=r"'instance_type' \(a CDK token\) must be a text"):
        TrainingInstances(instance_type=token)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"model": 3}, r"'model' \(3\) is a number and must be a HubModel"),
        ({"image": "a/b:c"}, r"'image' \('a/b:c'\) is a text and must be an ExtendedDlc, StockDlc or EcrImage"),
        ({"hosting": "ml.g5.xlarge"}, r"'hosting' \('ml\.g5\.xlarge'\) is a text and must be a RealTime"),
        ({"hosting": {}}, r"'hosting' \(\{\}\) is a mapping and must be a RealTime"),
        ({"role": "arn:x"}, r"'role' \('arn:x'\) is a text and must be an iam\.IRole, as iam\.Role\.from_role_arn"),
        ({"encryption_key": "arn:x"}, r"must be a kms\.IKey, as kms\.Key\.from_key_arn"),
        ({"network": "vpc-1"}, r"must be a Network, as Network\(vpc=vpc\)"),
        ({"environment": [("HF_TOKEN", "hf_secret")]}, r"'environment' is a list and must be a mapping"),
        ({"verify": "x"}, r"must be a Proof, True or False"),
        ({"verify": None}, r"'verify' \(None\) is None and must be a Proof, True or False"),
        ({"image": StockDlc}, r"'image' .* is the class StockDlc itself, without '\(\)', and must be an ExtendedDlc"),
        ({"hosting": RealTime}, r"'hosting' .* is the class RealTime itself"),
        ({"rollout": "canary"}, r"must be an AllAtOnce, Canary, Linear or Rolling"),
        ({"environment": {"PORT": cdk.Token.as_number({"Ref": "Port"})}}, r"'PORT' is a CDK token of a number"),
        ({"schedule": "9 to 5"}, r"must be an OfficeHours, a ByHand or a Switch"),
    ],
)
def test_a_value_of_another_kind_gets_a_sentence(stack: cdk.Stack, options: Json, message: str) -> None:
    given = {"model": "gpt2", "image": StockDlc(), **options}
    with pytest.raises(ValueError, match=message):
        HuggingFaceEndpoint(stack, "Wrong", **given)


def test_a_stack_for_any_region_and_account_works_by_default() -> None:
    app = cdk.App()
    stack = cdk.Stack(app, "Speech")
    image = ExtendedDlc(stack, "Image", transformers="5.24.0")
    HuggingFaceEndpoint(stack, "Whisper", model="openai/whisper-base", image=image)
    HuggingFaceEndpoint(
        stack,
        "Stock",
        model="gpt2",
        image=StockDlc(),
        endpoint_name=f"stock-{cdk.Aws.STACK_NAME}",
        schedule=OfficeHours(start="08:00", end="18:00", timezone="Europe/Berlin"),
    )
    synthesised = app.synth().get_stack_by_name("Speech")
    assert any("base_region= names another one" in str(each.entry.data) for each in synthesised.messages)
    template = synthesised.template
    accounts = template["Mappings"]["ExtendedDlcRegistries"]
    assert accounts["eu-west-1"] == {"account": "763104351884"}
    (stock,) = [each for name, each in of_type(template, "AWS::SageMaker::Model").items() if name.startswith("Stock")]
    assert "Fn::FindInMap" in text(stock["PrimaryContainer"]["Image"])
    described = [each.get("Description", "") for each in template["Parameters"].values()]
    assert all(isinstance(each, str) and "Token[" not in each for each in described)


def test_an_image_that_sagemaker_cannot_pull_is_refused() -> None:
    stack = new_stack(account=ACCOUNT, region="eu-west-1")
    repository = ecr.Repository.from_repository_arn(stack, "R", "arn:aws:ecr:us-east-1:111111111111:repository/x")
    base = (
        "763104351884.dkr.ecr.us-east-1.amazonaws.com/huggingface-pytorch-inference:2.6.0-transformers5.5.3-cpu-py312"
    )
    for image, message in (
        (StockDlc(region="us-east-1"), r"'region' \(us-east-1\) is in another region than the endpoint, eu-west-1"),
        (StockDlc(base=base), r"'base' \(763104351884\.dkr.*\) is in another region than the endpoint, eu-west-1"),
        (EcrImage(repository, "1"), r"'image' \(in us-east-1\) is in another region .* have ECR replicate"),
    ):
        with pytest.raises(ValueError, match=message):
            HuggingFaceEndpoint(stack, "Wrong", model="gpt2", image=image)
        stack.node.try_remove_child("Wrong")
    with pytest.raises(ValueError, match=r"'immutable_tags' is for the new repository"):
        ExtendedDlc(stack, "Image", transformers="5.24.0", repository=repository, immutable_tags=True)


def test_what_sagemaker_does_not_take_from_another_account_or_region_is_refused() -> None:
    stack = new_stack(account=ACCOUNT, region="eu-west-1")
    foreign = iam.Role.from_role_arn(stack, "Foreign", "arn:aws:iam::222222222222:role/speech")
    with pytest.raises(ValueError, match=r"'role' \(in 222222222222\) is in another account than its user, 1{12}"):
        HuggingFaceEndpoint(stack, "OfRole", model="gpt2", image=StockDlc(), role=foreign)
    far = s3.Bucket.from_bucket_attributes(stack, "Far", bucket_name="far-bucket", region="us-east-1")
    with pytest.raises(ValueError, match=r"'bucket' \(in us-east-1\) is in another region than its user"):
        HuggingFaceEndpoint(stack, "OfBucket", model=S3Model(far, "weights/"), image=StockDlc())


def test_what_lies_in_another_region_is_no_channel_and_no_model_there() -> None:
    app, account = cdk.App(), ACCOUNT
    here = new_stack(app, "Here", account=account, region="eu-west-1")
    far = new_stack(app, "Far", account=account)
    whisper = HubModel("openai/whisper-base", revision="b" * 40)
    beyond = r"\(in us-east-1\) is in another region than its user, eu-west-1"
    mirrored = MirroredModel(far, "Mirrored", model="openai/whisper-base", revision="b" * 40)
    with pytest.raises(ValueError, match=rf"'model' {beyond}: make a MirroredModel there, too"):
        HuggingFaceEndpoint(here, "OfMirror", model=mirrored, image=StockDlc())
    trained = TrainedModel(far, "Trained", first=whisper)
    with pytest.raises(ValueError, match=rf"'model' {beyond}: make the TrainedModel beside the endpoint"):
        HuggingFaceEndpoint(here, "OfTraining", model=trained, image=StockDlc())
    bucket = s3.Bucket.from_bucket_attributes(here, "Data", bucket_name="far-data", region="us-east-1")
    with pytest.raises(ValueError, match=rf"'channels.train' {beyond}: copy the files to a bucket there"):
        TrainingJob(
            here,
            "Job",
            image=ExtendedDlc(here, "Image", family="training", transformers="5.24.0"),
            code=TrainingCode(str(EXAMPLE.parent / "training" / "classification")),
            base_model=whisper,
            channels={"train": S3Data(bucket, "train/")},
        )


def test_an_image_of_another_stage_is_published_in_the_endpoints_stack() -> None:
    app, env = cdk.App(), ENV
    shared = cdk.Stack(cdk.Stage(app, "Shared", env=env), "Images")
    image = ExtendedDlc(shared, "Image", transformers="5.24.0", accelerator="cpu")
    serving = cdk.Stack(cdk.Stage(app, "Production", env=env), "Serving")
    HuggingFaceEndpoint(serving, "Speech", model="openai/whisper-base", image=image)
    app.synth()
    Template.from_stack(serving).resource_count_is("AWS::ECR::Repository", 1)


@pytest.mark.parametrize("is_of_app", [True, False])
def test_one_synthesizer_may_be_that_of_the_app_or_of_several_stacks(is_of_app: bool) -> None:
    acme = cdk.DefaultStackSynthesizer(qualifier="acme", bucket_prefix="speech/")
    app = cdk.App(default_stack_synthesizer=acme) if is_of_app else cdk.App()
    for name in ("One", "Two"):
        stack = cdk.Stack(app, name, synthesizer=None if is_of_app else acme)
        HuggingFaceEndpoint(
            stack,
            "Bloom",
            model=HubModel("bigscience/bloom-560m", code=InferenceCode(requirements=["nltk==3.9"])),
            image=StockDlc(),
            schedule=OfficeHours(start="08:00", end="18:00"),
        )
    for synthesised in app.synth().stacks:
        (model,) = of_type(synthesised.template, "AWS::SageMaker::Model").values()
        source = model["PrimaryContainer"]["ModelDataSource"]["S3DataSource"]["S3Uri"]
        assert re.search(r"cdk-acme-assets-.*/speech/\w+\.tar\.gz", json.dumps(source))
        whole = json.dumps(synthesised.template)
        assert "cdk-bootstrap/acme/version" in whole
        assert not re.search("hnb659fds|AWS::CloudFormation::Stack", whole)


def test_the_subnets_of_an_imported_vpc_may_be_one_list_of_cloudformations(stack: cdk.Stack) -> None:
    vpc = ec2.Vpc.from_vpc_attributes(
        stack,
        "Imported",
        vpc_id=cdk.Fn.import_value("Vpc"),
        availability_zones=["us-east-1a", "us-east-1b"],
        private_subnet_ids=cdk.Fn.split(",", cdk.Fn.import_value("Subnets"), 2),
    )
    whole = ec2.Vpc.from_vpc_attributes(
        stack,
        "Whole",
        vpc_id=cdk.Fn.import_value("Vpc"),
        availability_zones=cdk.Fn.get_azs(),
        private_subnet_ids=cdk.Token.as_list(cdk.Fn.split(",", cdk.Fn.import_value("Subnets"))),
    )
    for name, given in {"Counted": vpc, "OneList": whole}.items():
        HuggingFaceEndpoint(stack, name, model="gpt2", image=StockDlc(), network=Network(vpc=given))
    models = of_type(Template.from_stack(stack).to_json(), "AWS::SageMaker::Model")
    subnets = {name[:7]: each["VpcConfig"]["Subnets"] for name, each in models.items()}
    assert subnets["OneList"] == {"Fn::Split": [",", {"Fn::ImportValue": "Subnets"}]}
    assert len(subnets["Counted"]) == 2


def test_connections_of_an_endpoint_are_its_security_groups(stack: cdk.Stack) -> None:
    vpc = ec2.Vpc(stack, "Vpc", max_azs=2)
    given = ec2.SecurityGroup(stack, "Given", vpc=vpc)
    endpoint = HuggingFaceEndpoint(
        stack,
        "Private",
        model="openai/whisper-base",
        image=StockDlc(),
        hosting=Async(),
        network=Network(vpc=vpc, security_groups=[given]),
    )
    assert endpoint.connections.security_groups == [given]
    assert endpoint.grant_principal is endpoint.role.grant_principal
    endpoint.apply_removal_policy(cdk.RemovalPolicy.RETAIN)
    Template.from_stack(stack).has_resource("AWS::SageMaker::Endpoint", {"DeletionPolicy": "Retain"})


# what of SageMaker's resources can be set


def members_of(resource: type) -> Iterator[str]:
    """The writable members of a resource and of its property types, as the installed CDK has them."""
    for name in sorted(set(inspect.signature(resource.__init__).parameters) - {"self", "scope", "id"}):
        yield f"{resource.__name__}.{name}"
    for kind in dir(resource):
        if kind.endswith("Property"):
            for name in set(inspect.signature(getattr(resource, kind).__init__).parameters) - {"self"}:
                yield f"{resource.__name__}.{kind.removesuffix('Property')}.{name}"


def test_every_member_of_sagemakers_resources_is_an_option_or_has_its_reason() -> None:
    existing = {each for name in RESOURCES for each in members_of(getattr(sagemaker, name))}
    rows = members()
    assert {each.member for each in rows} == existing, "another aws-cdk-lib: extend facts/data/members.json"
    assert all(bool(each.option) != bool(each.reason) for each in rows)
    page = EXAMPLE.parents[1] / "docs" / "members.md"
    assert page.read_text() == listed(), "run python -m extended_dlc.facts.members > docs/members.md"


def test_each_option_of_the_list_has_the_name_that_it_is_given_there() -> None:
    looked = 0
    for each in members():
        for names, kind in re.findall(r"((?:\w+(?:, | and ))*\w+) of ([A-Z]\w+)", each.option or ""):
            known = {option.name for option in described(_HOMES[kind], kind)}
            assert set(re.split(", | and ", names)) <= known, each.member
            looked += 1
    assert looked > 40


def test_what_sagemaker_has_besides_reaches_the_config(stack: cdk.Stack) -> None:
    reservation = "arn:aws:sagemaker:us-east-1:111111111111:training-plan/mine"
    HuggingFaceEndpoint(
        stack,
        "Queued",
        model="openai/whisper-base",
        image=StockDlc(),
        hosting=Async(
            capacity_reservation=reservation,
            provision_timeout_seconds=600,
            success_topic="new",
            answers_in_topics=True,
        ),
        data_capture=DataCapture(json_content_types=["application/json"], csv_content_types=["text/csv"]),
    )
    (properties,) = of_type(Template.from_stack(stack).to_json(), "AWS::SageMaker::EndpointConfig").values()
    (variant,) = properties["ProductionVariants"]
    assert variant["CapacityReservationConfig"]["MlReservationArn"] == reservation
    assert variant["VariantInstanceProvisionTimeoutInSeconds"] == 600
    notified = properties["AsyncInferenceConfig"]["OutputConfig"]["NotificationConfig"]
    assert notified["IncludeInferenceResponseIn"] == ["SUCCESS_NOTIFICATION_TOPIC"]
    assert properties["DataCaptureConfig"]["CaptureContentTypeHeader"] == {
        "JsonContentTypes": ["application/json"],
        "CsvContentTypes": ["text/csv"],
    }
    for make, message in (
        (
            lambda: RealTime(capacity_reservation="arn:aws:s3:::x"),
            r"'capacity_reservation' .* is no ARN of",
        ),
        (lambda: RealTime(provision_timeout_seconds=1), r"'provision_timeout_seconds' \(1\) must be from 300 to 3600"),
        (lambda: Async(answers_in_topics=True), r"'answers_in_topics' \(True\) needs a topic"),
        (lambda: DataCapture(json_content_types=["json"]), r"'json_content_types' \(json\) is no content type"),
    ):
        with pytest.raises(ValueError, match=message):
            make()


# the function that leaves a copy out


class Recorder(BaseHTTPRequestHandler):
    """Takes what is sent to CloudFormation and to Lambda."""

    got: list[tuple[str, Json]]

    def _take(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"] or 0))
        self.got.append((self.path, json.loads(body)))
        self.send_response(202)
        self.send_header("Content-Length", "0")
        self.end_headers()

    do_PUT = do_POST = _take

    def log_message(self, *arguments: object) -> None:
        pass


@pytest.fixture
def recorder() -> Iterator[tuple[str, list[tuple[str, Json]]]]:
    got: list[tuple[str, Json]] = []
    server = HTTPServer(("127.0.0.1", 0), type("Mine", (Recorder,), {"got": got}))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}", got
    server.shutdown()
    server.server_close()


def test_a_copy_is_left_out_where_the_tag_has_the_digest_or_is_immutable(
    moto: str, recorder: tuple[str, list[tuple[str, Json]]], monkeypatch: pytest.MonkeyPatch
) -> None:
    address, got = recorder
    for name, value in {
        "AWS_ACCESS_KEY_ID": "test",
        "AWS_SECRET_ACCESS_KEY": "test",
        "AWS_DEFAULT_REGION": "us-east-1",
        "AWS_ENDPOINT_URL_ECR": moto,
        "AWS_ENDPOINT_URL_LAMBDA": address,
        "COPIER": "copier",
    }.items():
        monkeypatch.setenv(name, value)
    client = boto3.client("ecr")

    def push(repository: str, tag: str, what: str, mutability: str = "MUTABLE") -> None:
        if not any(each["repositoryName"] == repository for each in client.describe_repositories()["repositories"]):
            client.create_repository(repositoryName=repository, imageTagMutability=mutability)
        layers = [{"mediaType": "x", "size": 1, "digest": f"sha256:{what}"}]
        manifest = {"schemaVersion": 2, "mediaType": copy_once._MEDIA_TYPES[0], "layers": layers, "config": layers[0]}
        client.put_image(repositoryName=repository, imageTag=tag, imageManifest=json.dumps(manifest))

    push("assets", "a", "one")
    push("assets", "b", "two")
    push("mutable", "a", "one")
    push("mutable", "b", "other")
    push("kept", "b", "other", "IMMUTABLE")

    def asked(destination: str, tag: str, request: str = "Update") -> str:
        del got[:]
        where = "docker://123456789012.dkr.ecr.us-east-1.amazonaws.com"
        event = {
            "RequestType": request,
            "ResponseURL": f"{address}/answer",
            **dict.fromkeys(("StackId", "RequestId", "LogicalResourceId", "PhysicalResourceId"), "x"),
            "ResourceProperties": {"SrcImage": f"{where}/assets:{tag}", "DestImage": f"{where}/{destination}:{tag}"},
        }
        copy_once.handle(event, None)
        ((path, body),) = got
        if path == "/answer":
            assert (body["Status"], body["PhysicalResourceId"]) == ("SUCCESS", "x")
            return "left out"
        assert path == "/2015-03-31/functions/copier/invocations"
        assert body == event
        return "copied"

    assert asked("mutable", "a") == "left out"
    assert asked("mutable", "b") == "copied"
    assert asked("kept", "b") == "left out"
    assert asked("kept", "a") == "copied"
    assert asked("kept", "a", "Delete") == "left out"
