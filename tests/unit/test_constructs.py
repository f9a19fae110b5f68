"""The constructs in a stack of their own: what the template says, and what is refused."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
from aws_cdk import App, CfnParameter, Environment, RemovalPolicy, Stack
from aws_cdk import aws_ecr as ecr
from aws_cdk import aws_iam as iam
from aws_cdk.assertions import Annotations, Match, Template

from extended_dlc import (
    Async,
    EcrImage,
    ExtendedDlc,
    HubModel,
    HuggingFaceEndpoint,
    InferenceCode,
    LocalBuild,
    RealTime,
    Serverless,
    StockDlc,
)

BASE = "registry.example.com/huggingface-pytorch-inference:2.6.0-transformers5.5.3-cpu-py312-ubuntu22.04-v1.2"


def image_in(stack: Stack, **options: Any) -> ExtendedDlc:
    return ExtendedDlc(stack, "Image", **{"transformers": "5.23.0", "base": BASE, **options})


def endpoint_in(stack: Stack, construct_id: str = "Bloom", **options: Any) -> HuggingFaceEndpoint:
    image = options.pop("image", None) or stack.node.try_find_child("Image") or image_in(stack)
    return HuggingFaceEndpoint(stack, construct_id, **{"model": HubModel("bloom"), "image": image, **options})


def resource(template: Template, kind: str, match: str = "") -> tuple[str, dict[str, Any]]:
    (found,) = [(name, r) for name, r in template.find_resources(kind).items() if name.startswith(match)]
    return found


def test_the_logical_ids_are_what_they_were(stack: Stack) -> None:
    """Ids are public: another id replaces the endpoint of everyone who upgrades."""
    endpoint_in(stack)
    ids = Template.from_stack(stack).to_json()["Resources"]
    kinds = {name: r["Type"] for name, r in ids.items() if r["Type"].startswith(("AWS::SageMaker", "AWS::ECR", "Cust"))}
    assert kinds == {
        "ImageRepositoryD8036990": "AWS::ECR::Repository",
        "ImageCopyCustomResourceC6E264B1": "Custom::CDKECRDeployment",
        "BloomModelFD5979C8": "AWS::SageMaker::Model",
        "BloomConfig2434FACC": "AWS::SageMaker::EndpointConfig",
        "BloomEndpoint3A2DF70B": "AWS::SageMaker::Endpoint",
        "BloomImageCheckEA79B462": "Custom::ExtendedDlcProof",
        "BloomCheck78012C84": "Custom::ExtendedDlcProof",
    }


def test_the_model_waits_for_the_image_and_for_the_roles_rights(stack: Stack) -> None:
    endpoint_in(stack)
    template = Template.from_stack(stack)
    policy, _ = resource(template, "AWS::IAM::Policy", "BloomRole")
    copy, _ = resource(template, "Custom::CDKECRDeployment")
    _, model = resource(template, "AWS::SageMaker::Model")
    assert {policy, copy} <= set(model["DependsOn"])


def test_model_and_config_have_no_names_and_the_endpoint_has_one_known_at_synth(stack: Stack) -> None:
    endpoint = endpoint_in(stack)
    template = Template.from_stack(stack)
    template.has_resource_properties("AWS::SageMaker::Model", {"ModelName": Match.absent()})
    template.has_resource_properties("AWS::SageMaker::EndpointConfig", {"EndpointConfigName": Match.absent()})
    template.has_resource_properties("AWS::SageMaker::Endpoint", {"EndpointName": endpoint.endpoint_name})
    assert re.fullmatch(r"[a-z0-9](-*[a-z0-9]){0,62}", endpoint.endpoint_name)


def test_the_container_is_told_its_model_and_nothing_that_was_not_given(stack: Stack) -> None:
    model = HubModel("whisper", revision="abc", task="automatic-speech-recognition")
    endpoint_in(stack, model=model, environment={"MORE": "1"})
    _, found = resource(Template.from_stack(stack), "AWS::SageMaker::Model")
    assert found["Properties"]["PrimaryContainer"]["Environment"] == {
        "HF_MODEL_ID": "openai/whisper-base",
        "HF_MODEL_REVISION": "abc",
        "HF_TASK": "automatic-speech-recognition",
        "MORE": "1",
    }


def test_the_hosting_reaches_the_config(stack: Stack) -> None:
    endpoint_in(stack, hosting=RealTime(instance_type="ml.c5.xlarge", instances=3, startup_timeout_seconds=1200))
    Template.from_stack(stack).has_resource_properties(
        "AWS::SageMaker::EndpointConfig",
        {
            "ProductionVariants": [
                Match.object_like(
                    {
                        "InstanceType": "ml.c5.xlarge",
                        "InitialInstanceCount": 3,
                        "ContainerStartupHealthCheckTimeoutInSeconds": 1200,
                    }
                )
            ]
        },
    )


def test_two_endpoints_share_one_image_and_one_copy(stack: Stack) -> None:
    image = image_in(stack)
    endpoint_in(stack, "Bloom", image=image)
    endpoint_in(stack, "Whisper", image=image, model=HubModel("whisper"))
    template = Template.from_stack(stack)
    template.resource_count_is("AWS::SageMaker::Endpoint", 2)
    template.resource_count_is("Custom::CDKECRDeployment", 1)
    template.resource_count_is("AWS::ECR::Repository", 1)


def test_two_images_in_a_stack_share_the_copying_function_and_each_grants_its_own_repository(stack: Stack) -> None:
    for name in ("First", "Second"):
        ExtendedDlc(stack, name, transformers="5.23.0", base=BASE)
    template = Template.from_stack(stack)
    template.resource_count_is("AWS::Lambda::Function", 1)
    _, policy = resource(template, "AWS::IAM::Policy", "ImageCopyRole")
    pushes = [
        statement["Resource"]
        for statement in policy["Properties"]["PolicyDocument"]["Statement"]
        if "ecr:PutImage" in statement["Action"]
    ]
    arns = {
        arn["Fn::GetAtt"][0]
        for resources in pushes
        for arn in (resources if isinstance(resources, list) else [resources])
    }
    assert arns == set(template.find_resources("AWS::ECR::Repository"))


def test_the_copying_function_may_not_touch_everything(stack: Stack) -> None:
    image_in(stack)
    template = Template.from_stack(stack)
    _, policy = resource(template, "AWS::IAM::Policy", "ImageCopyRole")
    everywhere = [s for s in policy["Properties"]["PolicyDocument"]["Statement"] if s["Resource"] == "*"]
    assert [s["Action"] for s in everywhere] == ["ecr:GetAuthorizationToken"], "the one action that has no resources"
    _, function = resource(template, "AWS::Lambda::Function")
    assert function["Properties"]["MemorySize"] == 3008


@pytest.mark.parametrize("managed", [False, True])
def test_the_copies_of_a_stack_have_one_log_that_no_name_of_the_stack_can_take_away(managed: bool) -> None:
    """CloudFormation shortens a function's name, and with it that of the log group that Lambda would make.

    With the flag the CDK makes that one too, and keeps it when the stack is deleted.
    """
    stack = Stack(App(context={"@aws-cdk/aws-lambda:useCdkManagedLogGroup": managed}), "Test")
    for name in ("First", "Second"):
        ExtendedDlc(stack, name, transformers="5.23.0", base=BASE)
    template = Template.from_stack(stack)
    log, group = resource(template, "AWS::Logs::LogGroup")
    assert group["DeletionPolicy"] == "Delete"
    assert "LogGroupName" not in group["Properties"]
    _, function = resource(template, "AWS::Lambda::Function")
    assert function["Properties"]["LoggingConfig"] == {"LogGroup": {"Ref": log}}
    _, policy = resource(template, "AWS::IAM::Policy", "ImageCopyRole")
    rights = [each for each in policy["Properties"]["PolicyDocument"]["Statement"] if "logs:" in str(each["Action"])]
    assert [each["Resource"] for each in rights] == [{"Fn::GetAtt": [log, "Arn"]}]


@pytest.mark.parametrize("managed", [False, True])
def test_the_function_that_leaves_copies_out_has_no_log_of_its_own_either(managed: bool) -> None:
    stack = Stack(App(context={"@aws-cdk/aws-lambda:useCdkManagedLogGroup": managed}), "Test")
    repository = ecr.Repository(stack, "Kept", image_tag_mutability=ecr.TagMutability.IMMUTABLE)
    ExtendedDlc(stack, "Image", transformers="5.23.0", base=BASE, repository=repository)
    template = Template.from_stack(stack)
    log, _ = resource(template, "AWS::Logs::LogGroup")
    functions = template.find_resources("AWS::Lambda::Function").values()
    assert [each["Properties"]["LoggingConfig"] for each in functions] == [{"LogGroup": {"Ref": log}}] * 2


def test_the_role_is_limited_to_this_image_these_logs_and_these_metrics(stack: Stack) -> None:
    endpoint = endpoint_in(stack)
    _, policy = resource(Template.from_stack(stack), "AWS::IAM::Policy", "BloomRole")
    statements = policy["Properties"]["PolicyDocument"]["Statement"]
    unlimited = [s for s in statements if s["Resource"] == "*" and "Condition" not in s]
    assert [s["Action"] for s in unlimited] == ["ecr:GetAuthorizationToken"]
    actions = {
        action for s in statements for action in ([s["Action"]] if isinstance(s["Action"], str) else s["Action"])
    }
    assert not {action for action in actions if action.startswith(("s3:", "sagemaker:", "iam:"))}
    (logs,) = [s for s in statements if "logs:PutLogEvents" in s["Action"]]
    assert f"/aws/sagemaker/Endpoints/{endpoint.endpoint_name}" in str(logs["Resource"])


def test_a_callers_policy_names_the_endpoint_and_all_three_ways_to_invoke_it(stack: Stack) -> None:
    endpoint = endpoint_in(stack, endpoint_name="Speech-EU")
    caller = iam.Role(stack, "Caller", assumed_by=iam.AccountRootPrincipal())
    endpoint.grant_invoke(caller)
    _, policy = resource(Template.from_stack(stack), "AWS::IAM::Policy", "Caller")
    (statement,) = policy["Properties"]["PolicyDocument"]["Statement"]
    assert set(statement["Action"]) == {
        "sagemaker:InvokeEndpoint",
        "sagemaker:InvokeEndpointAsync",
        "sagemaker:InvokeEndpointWithResponseStream",
    }
    names = [arn["Fn::Join"][1][-1].rpartition(":")[2] for arn in statement["Resource"]]
    assert sorted(names) == ["endpoint/Speech-EU", "endpoint/speech-eu"], "as given, and as SageMaker writes its ARN"


def test_a_callers_tokens_need_one_more_right_which_knows_no_resource(stack: Stack) -> None:
    caller = iam.Role(stack, "Caller", assumed_by=iam.AccountRootPrincipal())
    grant = endpoint_in(stack, endpoint_name="chats").grant_invoke_with_token(caller)
    _, policy = resource(Template.from_stack(stack), "AWS::IAM::Policy", "Caller")
    token, invoke = policy["Properties"]["PolicyDocument"]["Statement"]
    assert (token["Effect"], token["Action"], token["Resource"]) == ("Allow", "sagemaker:CallWithBearerToken", "*")
    assert "sagemaker:InvokeEndpoint" in invoke["Action"]
    assert invoke["Resource"] != "*"
    assert len(grant.principal_statements) == 2


def test_an_imported_endpoints_callers_get_the_same(stack: Stack) -> None:
    endpoint = HuggingFaceEndpoint.from_endpoint_name(stack, "There", "chats")
    endpoint.grant_invoke_with_token(iam.Role(stack, "Caller", assumed_by=iam.AccountRootPrincipal()))
    _, policy = resource(Template.from_stack(stack), "AWS::IAM::Policy", "Caller")
    actions = [each["Action"] for each in policy["Properties"]["PolicyDocument"]["Statement"]]
    assert actions[0] == "sagemaker:CallWithBearerToken"
    assert "sagemaker:InvokeEndpoint" in actions[1]


def test_the_base_url_for_openais_clients_follows_region_and_partition(stack: Stack) -> None:
    endpoint = HuggingFaceEndpoint.from_endpoint_name(stack, "There", "Chats")
    assert stack.resolve(endpoint.openai_base_url) == {
        "Fn::Join": [
            "",
            ["https://runtime.sagemaker.us-east-1.", {"Ref": "AWS::URLSuffix"}, "/endpoints/Chats/openai/v1"],
        ]
    }


@pytest.mark.parametrize(
    ("options", "chats"),
    [
        ({"model": HubModel("org/talks", "a" * 40, task="text-generation")}, True),
        ({"model": HubModel("org/sees", "a" * 40, task="image-text-to-text")}, True),
        ({"model": HubModel("org/hears", "a" * 40, task="automatic-speech-recognition")}, False),
        ({"model": HubModel("org/unknown", "a" * 40)}, False),
        ({"model": HubModel("org/talks", "a" * 40, task="text-generation"), "hosting": Async()}, False),
        ({"model": HubModel("org/talks", "a" * 40, task="text-generation"), "hosting": Serverless()}, False),
    ],
)
def test_an_endpoint_has_a_base_url_for_openais_clients_if_it_is_known_to_answer_chats(
    stack: Stack, options: dict[str, Any], chats: bool
) -> None:
    endpoint = endpoint_in(stack, **options)
    assert (endpoint.openai_base_url is not None) == chats
    assert endpoint.openai_base_urls == {}


def test_code_of_ones_own_and_awss_server_answer_as_they_like(stack: Stack) -> None:
    code = InferenceCode(requirements=["pydub"])
    model = HubModel("org/talks", "a" * 40, task="text-generation", code=code)
    assert endpoint_in(stack, "Own", model=model).openai_base_url is None
    stock = StockDlc(transformers="4.51.3")
    model = HubModel("org/talks", "a" * 40, task="text-generation")
    assert endpoint_in(stack, "Stock", model=model, image=stock).openai_base_url is None


def test_no_token_asks_an_asynchronous_endpoint(stack: Stack) -> None:
    caller = iam.Role(stack, "Caller", assumed_by=iam.AccountRootPrincipal())
    with pytest.raises(ValueError, match="'grant_invoke_with_token' is for endpoints that answer at once"):
        endpoint_in(stack, hosting=Async()).grant_invoke_with_token(caller)


def test_the_repository_scans_keeps_tagged_images_and_is_retained(stack: Stack) -> None:
    image_in(stack)
    _, repository = resource(Template.from_stack(stack), "AWS::ECR::Repository")
    assert repository["DeletionPolicy"] == "Retain"
    properties = repository["Properties"]
    assert properties["ImageScanningConfiguration"] == {"ScanOnPush": True}
    assert properties["ImageTagMutability"] == "MUTABLE"
    rules = properties["LifecyclePolicy"]["LifecyclePolicyText"]
    assert '"tagStatus":"untagged"' in rules
    assert '"countNumber":14' in rules
    assert '"tagStatus":"tagged"' not in rules
    assert '"tagStatus":"any"' not in rules


def test_a_repository_to_be_destroyed_takes_its_images_along(stack: Stack) -> None:
    image_in(stack, removal_policy=RemovalPolicy.DESTROY)
    template = Template.from_stack(stack)
    template.has_resource("AWS::ECR::Repository", {"DeletionPolicy": "Delete", "Properties": {"EmptyOnDelete": True}})


def test_a_given_repository_is_used_and_none_is_made(stack: Stack) -> None:
    repository = ecr.Repository.from_repository_name(stack, "Ours", "platform/models")
    image_in(stack, repository=repository)
    template = Template.from_stack(stack)
    template.resource_count_is("AWS::ECR::Repository", 0)
    _, copy = resource(template, "Custom::CDKECRDeployment")
    assert "/platform/models:" in str(copy["Properties"]["DestImage"])


def test_a_given_role_is_used_and_none_is_made(stack: Stack) -> None:
    role = iam.Role.from_role_arn(stack, "Ours", "arn:aws:iam::123456789012:role/ours", mutable=False)
    endpoint_in(stack, role=role)
    template = Template.from_stack(stack)
    template.has_resource_properties("AWS::SageMaker::Model", {"ExecutionRoleArn": role.role_arn})
    assert not [name for name in template.find_resources("AWS::IAM::Role") if name.startswith("Bloom")]


def asset_of(stack: Stack) -> dict[str, Any]:
    app = stack.node.root
    assert isinstance(app, App)
    folder = Path(app.synth().directory)
    ((key, image),) = json.loads((folder / f"{stack.artifact_id}.assets.json").read_text())["dockerImages"].items()
    tag = next(iter(image["destinations"].values()))["imageTag"]
    return {**image["source"], "tag": tag, "name": key.removesuffix(f"-{tag}")}


def test_the_image_is_built_for_amd64_with_docker_media_types_and_the_pins_as_arguments(stack: Stack) -> None:
    image = image_in(stack, rebuild="2026-11")
    source = asset_of(stack)
    assert source["platform"] == "linux/amd64"
    assert source["name"] == "extended-dlc-inference", "AppStagingSynthesizer makes a repository of this name"
    assert source["dockerOutputs"] == ["type=docker,oci-mediatypes=false"]
    assert source["dockerBuildArgs"] == {"BASE_IMAGE": BASE, "TRANSFORMERS_VERSION": "5.23.0", "REBUILD": "2026-11"}
    assert image.image_uri.endswith(f":{source['tag']}")


def tag_with(**options: Any) -> str:
    stack = Stack(App(), "Test", env=Environment(region="us-east-1"))
    image_in(stack, **options)
    return str(asset_of(stack)["tag"])


def test_the_tag_follows_what_is_built_and_not_how(tmp_path: Path) -> None:
    pip_config = tmp_path / "pip.conf"
    pip_config.write_text("[global]\n")
    tag = tag_with()
    assert tag_with() == tag
    assert tag_with(build=LocalBuild(engine="podman", pip_config=str(pip_config))) == tag
    others = [tag_with(transformers="5.5.3"), tag_with(rebuild="2026-11"), tag_with(base=BASE.replace("v1.2", "v1.3"))]
    assert len({tag, *others}) == 4


def test_podman_gets_no_output_option_and_the_files_of_the_build_become_secrets(stack: Stack, tmp_path: Path) -> None:
    bundle = tmp_path / "ca.pem"
    bundle.write_text("")
    image_in(stack, build=LocalBuild(engine="podman", ca_bundle=str(bundle)))
    source = asset_of(stack)
    assert "dockerOutputs" not in source
    assert source["dockerBuildSecrets"] == {"ca-bundle": f"src={bundle}"}


def test_without_a_base_the_first_endpoints_instance_decides(stack: Stack) -> None:
    image = ExtendedDlc(stack, "Image", transformers="5.23.0")
    endpoint_in(stack, image=image, hosting=RealTime(instance_type="ml.g5.xlarge"))
    assert "-gpu-" in asset_of(stack)["dockerBuildArgs"]["BASE_IMAGE"]


def test_an_image_cannot_serve_both_cpu_and_gpu(stack: Stack) -> None:
    image = ExtendedDlc(stack, "Image", transformers="5.23.0")
    endpoint_in(stack, "Gpu", image=image, hosting=RealTime(instance_type="ml.g5.xlarge"))
    with pytest.raises(
        ValueError, match=r"'instance_type' \(ml\.m5\.xlarge\) computes with cpu and the image is built for gpu"
    ):
        endpoint_in(stack, "Cpu", image=image)


def test_an_image_that_no_one_uses_is_an_error_at_synth_with_the_way_out() -> None:
    app = App()
    ExtendedDlc(Stack(app, "Test", env=Environment(region="us-east-1")), "Image", transformers="5.23.0")
    with pytest.raises(RuntimeError, match="pass accelerator='cpu' or 'gpu', or define an endpoint that uses it"):
        app.synth()


def test_an_accelerator_publishes_the_image_without_an_endpoint(stack: Stack) -> None:
    ExtendedDlc(stack, "Image", transformers="5.23.0", accelerator="gpu")
    assert "-gpu-" in asset_of(stack)["dockerBuildArgs"]["BASE_IMAGE"]


def test_a_stack_without_a_region_takes_a_given_base() -> None:
    image = image_in(Stack(App(), "Test"))
    assert image.image_uri


def test_a_moving_base_is_annotated_unless_a_rebuild_text_is_given(stack: Stack) -> None:
    moving = BASE.removesuffix("-v1.2")
    image_in(stack, base=moving)
    Annotations.from_stack(stack).has_warning("/Test/Image", Match.string_like_regexp("can change without a change"))
    other = Stack(App(), "Other")
    image_in(other, base=moving, rebuild="2026-11")
    Annotations.from_stack(other).has_no_warning("*", Match.any_value())


def test_an_unpinned_model_is_annotated_and_a_pinned_one_is_not(stack: Stack) -> None:
    endpoint_in(stack, "Loose")
    endpoint_in(stack, "Pinned", model=HubModel("bloom", revision="a" * 40))
    found = Annotations.from_stack(stack)
    found.has_warning("/Test/Loose", Match.string_like_regexp("has no revision"))
    found.has_no_warning("/Test/Pinned", Match.any_value())


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda s: image_in(s, transformers="5.23"), r"'transformers' \(5\.23\) is not an exact transformers release"),
        (lambda s: image_in(s, transformers="4.45.2"), r"'transformers' \(4\.45\.2\) is older than the native server"),
        (lambda s: image_in(s, accelerator="gpu"), r"'accelerator' \(gpu\) contradicts base"),
        (
            lambda s: ExtendedDlc(s, "I", transformers="5.23.0", accelerator="cpu", base_region="mars-1"),
            r"'transformers' \(5\.23\.0\) has no base in 'mars-1'",
        ),
        (lambda s: HubModel("a b"), r"'id' \(a b\) is not a Hub model id"),
        (lambda s: RealTime(instances=0), r"'instances' \(0\) must be 1 or more"),
        (lambda s: RealTime(instance_type="ml.g5.xlrage"), r"did you mean 'ml\.g5\.xlarge'\?"),
        (lambda s: RealTime(startup_timeout_seconds=59), r"'startup_timeout_seconds' \(59\) must be from 60 to 3600"),
        (lambda s: LocalBuild(ca_bundle="/nowhere"), r"'ca_bundle' \(/nowhere\) is not a file"),
        (
            lambda s: [endpoint_in(s, each, endpoint_name=each) for each in ("Chats", "chats")],
            r"'endpoint_name' \(chats\) is taken: 'Chats' and 'chats' differ by case only, and SageMaker takes the two",
        ),
        (
            lambda s: [endpoint_in(s, each, endpoint_name="chats") for each in ("One", "Two")],
            r"'endpoint_name' \(chats\) is the name of Test/One too",
        ),
        (lambda s: endpoint_in(s, endpoint_name="a_b"), r"'endpoint_name' \(a_b\) cannot be an endpoint name"),
        (
            lambda s: endpoint_in(s, endpoint_name=CfnParameter(s, "Name")),
            r"'endpoint_name' \(<aws_cdk\.CfnParameter .*\) must be a text, or a CDK token of one: pass Token",
        ),
        (
            lambda s: endpoint_in(s, environment={"HF_API_TOKEN": "x"}),
            r"'environment': 'HF_API_TOKEN' holds a literal Hub token, which everyone who may describe",
        ),
        (
            lambda s: endpoint_in(s, environment={"HF_TOKEN": "{{resolve:secretsmanager:hub:SecretString}}"}),
            r"'HF_TOKEN' would hold the Hub token, which everyone who may describe the model can read",
        ),
        (lambda s: endpoint_in(s, environment={"HF_TASK": "x"}), r"'HF_TASK' is set by the model's task: set it there"),
        (lambda s: endpoint_in(s, hosting=RealTime(instance_type="ml.inf2.xlarge")), r"computes with neuron"),
    ],
)
def test_bad_input_is_refused_with_the_option_the_value_and_the_way_out(stack: Stack, make: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make(stack)


def test_a_refused_token_is_not_repeated_in_the_error(stack: Stack) -> None:
    token = "hf_" + "a" * 30
    with pytest.raises(ValueError, match="literal Hub token") as error:
        endpoint_in(stack, environment={"X": token})
    assert token not in str(error.value)


def test_values_that_are_known_only_at_deployment_pass(stack: Stack) -> None:
    parameter = CfnParameter(stack, "Count", type="Number")
    endpoint_in(
        stack, environment={"COUNT": parameter.value_as_string}, hosting=RealTime(instances=parameter.value_as_number)
    )
    Template.from_stack(stack).has_resource_properties(
        "AWS::SageMaker::Model",
        {"PrimaryContainer": {"Environment": Match.object_like({"COUNT": {"Ref": "Count"}})}},
    )


def test_a_stock_image_is_pulled_from_awss_registry_and_needs_no_repository_or_copy(stack: Stack) -> None:
    endpoint_in(stack, image=StockDlc(transformers="4.51.3"))
    template = Template.from_stack(stack)
    template.resource_count_is("AWS::ECR::Repository", 0)
    template.resource_count_is("Custom::CDKECRDeployment", 0)
    _, model = resource(template, "AWS::SageMaker::Model")
    assert model["Properties"]["PrimaryContainer"]["Image"] == (
        "763104351884.dkr.ecr.us-east-1.amazonaws.com/huggingface-pytorch-inference:"
        "2.6.0-transformers4.51.3-cpu-py312-ubuntu22.04"
    )
    _, policy = resource(template, "AWS::IAM::Policy", "BloomRole")
    (pull,) = [s for s in policy["Properties"]["PolicyDocument"]["Statement"] if "ecr:BatchGetImage" in s["Action"]]
    assert "763104351884:repository/huggingface-pytorch-inference" in str(pull["Resource"])


def test_a_stock_image_without_a_release_is_the_newest_for_the_instance(stack: Stack) -> None:
    endpoint_in(stack, image=StockDlc(), hosting=RealTime(instance_type="ml.g5.xlarge"))
    _, model = resource(Template.from_stack(stack), "AWS::SageMaker::Model")
    assert model["Properties"]["PrimaryContainer"]["Image"].endswith("transformers5.5.3-gpu-py312-cu124-ubuntu22.04")


def test_a_stock_image_that_is_too_old_for_the_model_is_refused_at_synth(stack: Stack) -> None:
    old = r"transformers 4\.17\.0 in huggingface-pytorch-inference:1\.10\.2-.*needs >= 4\.20"
    with pytest.raises(ValueError, match=old):
        endpoint_in(stack, image=StockDlc(transformers="4.17.0"))


def test_a_mirror_of_a_stock_image_is_judged_by_its_tag(stack: Stack) -> None:
    mirror = StockDlc(base="registry.example.com/mirror:1.10.2-transformers4.17.0-cpu-py38-ubuntu20.04")
    with pytest.raises(ValueError, match=r"cannot load model type 'whisper': needs >= 4\.23\.0"):
        endpoint_in(stack, image=mirror, model=HubModel("whisper"))
    endpoint_in(stack, "Bert", image=mirror, model=HubModel("bert-base-uncased", model_type="bert"))
    policies = Template.from_stack(stack).find_resources("AWS::IAM::Policy")
    assert policies
    assert "ecr:" not in str(policies), "a registry that is not AWS's knows none of its permissions"


def test_an_image_of_another_account_is_served_as_it_is(stack: Stack) -> None:
    arn = "arn:aws:ecr:us-east-1:210987654321:repository/platform/models"
    repository = ecr.Repository.from_repository_arn(stack, "Shared", arn)
    endpoint_in(stack, image=EcrImage(repository, "sha256:" + "0" * 64))
    template = Template.from_stack(stack)
    _, model = resource(template, "AWS::SageMaker::Model")
    assert "210987654321.dkr.ecr.us-east-1." in str(model["Properties"]["PrimaryContainer"]["Image"])
    assert "/platform/models@sha256:000" in str(model["Properties"]["PrimaryContainer"]["Image"])
    _, policy = resource(template, "AWS::IAM::Policy", "BloomRole")
    assert arn in str(policy)


def test_a_published_image_for_another_accelerator_is_refused(stack: Stack) -> None:
    repository = ecr.Repository.from_repository_name(stack, "Ours", "ours")
    with pytest.raises(ValueError, match=r"computes with cpu and the image is built for gpu"):
        endpoint_in(stack, image=EcrImage(repository, "1", accelerator="gpu"))


def test_the_host_image_fits_the_images_cuda_and_is_left_out_for_cpu_and_cuda_11(stack: Stack) -> None:
    gpu = RealTime(instance_type="ml.g4dn.xlarge")
    repository = ecr.Repository.from_repository_name(stack, "Ours", "ours")
    expected = {
        "Cuda124": (ExtendedDlc(stack, "Image124", transformers="5.23.0", accelerator="gpu"), gpu, "gpu-3-1"),
        "Cuda130": (EcrImage(repository, "1", cuda="cu130"), gpu, "gpu-4-1"),
        "Cuda117": (StockDlc(transformers="4.26.0"), gpu, None),
        "Cpu": (StockDlc(transformers="4.51.3"), RealTime(), None),
        "Unknown": (EcrImage(repository, "1"), gpu, None),
    }
    for name, (image, hosting, _) in expected.items():
        endpoint_in(stack, name, image=image, hosting=hosting)
    configs = Template.from_stack(stack).find_resources("AWS::SageMaker::EndpointConfig")
    for name, (_, _, ami) in expected.items():
        (config,) = [c for logical_id, c in configs.items() if logical_id.startswith(f"{name}Config")]
        found = config["Properties"]["ProductionVariants"][0].get("InferenceAmiVersion")
        assert (found is None) if ami is None else found.endswith(ami), name


def test_a_caller_in_another_stack_needs_only_the_endpoints_name(stack: Stack) -> None:
    endpoint = HuggingFaceEndpoint.from_endpoint_name(stack, "Speech", "speech")
    endpoint.grant_invoke(iam.Role(stack, "Caller", assumed_by=iam.AccountRootPrincipal()))
    template = Template.from_stack(stack)
    template.resource_count_is("AWS::SageMaker::Endpoint", 0)
    assert "endpoint/speech" in str(resource(template, "AWS::IAM::Policy", "Caller"))


def test_the_stock_server_on_an_extended_image_is_another_target_of_the_same_dockerfile(stack: Stack) -> None:
    base = "x/y:1.10.2-transformers4.17.0-gpu-py38-cu113-ubuntu20.04"
    image_in(stack, base=base, transformers="4.24.0", server="stock")
    source = asset_of(stack)
    assert source["dockerBuildTarget"] == "stock"
    assert source["dockerBuildArgs"]["STOCK_REQUIREMENTS"] == "huggingface_hub<0.26"


def test_the_base_that_was_picked_is_explained(stack: Stack) -> None:
    ExtendedDlc(stack, "Image", transformers="4.57.6", accelerator="cpu")
    found = Annotations.from_stack(stack)
    found.has_info("/Test/Image", Match.string_like_regexp("is the newest cpu base in us-east-1"))


def test_a_release_that_came_after_our_data_is_allowed_with_a_warning(stack: Stack) -> None:
    ExtendedDlc(stack, "Image", transformers="99.0.0", accelerator="cpu")
    found = Annotations.from_stack(stack)
    found.has_warning("/Test/Image", Match.string_like_regexp("99.0.0 is newer than"))


def test_model_types_become_a_promise_that_the_build_proves(stack: Stack) -> None:
    image_in(stack, model_types=["whisper", "bloom"])
    assert asset_of(stack)["dockerBuildArgs"]["MODEL_TYPES"] == "bloom,whisper"


def test_a_model_type_that_cannot_be_promised_is_refused(stack: Stack) -> None:
    with pytest.raises(ValueError, match="cannot load model type 'transfo-xl': it left after 4"):
        image_in(stack, model_types=["transfo-xl"])
