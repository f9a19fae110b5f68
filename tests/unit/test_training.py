"""The training construct: what a job is told, who may do what, and how its result comes to the endpoint."""

from __future__ import annotations

import json
import re
import tarfile
from pathlib import Path
from typing import Any

import aws_cdk as cdk
import pytest
from aws_cdk import App, NestedStack, Stack
from aws_cdk import aws_ec2 as ec2
from aws_cdk import aws_ecr as ecr
from aws_cdk import aws_iam as iam
from aws_cdk import aws_kms as kms
from aws_cdk import aws_s3 as s3
from aws_cdk import aws_secretsmanager as secretsmanager
from aws_cdk.assertions import Annotations, Match, Template
from cdk_nag import AwsSolutionsChecks
from cfnlint.api import lint

from extended_dlc import (
    Component,
    Components,
    EcrImage,
    EvaluationGate,
    ExtendedDlc,
    HubModel,
    HuggingFaceEndpoint,
    MirroredDataset,
    MirroredModel,
    Network,
    S3Data,
    S3Model,
    Serverless,
    StockDlc,
    TrainedModel,
    TrainingCode,
    TrainingInstances,
    TrainingJob,
    TrainingSchedule,
)
from tests.support.stacks import new_stack

ROOT = Path(__file__).parents[2]
Json = dict[str, Any]
COMMIT = "0123456789abcdef0123456789abcdef01234567"
BLOOM = HubModel("bigscience/bloom-560m", revision=COMMIT, task="text-generation")
SCRIPT = """
import argparse
parser = argparse.ArgumentParser()
parser.add_argument("--epochs", type=int)
parser.parse_args()
"""


@pytest.fixture
def code(tmp_path: Path) -> TrainingCode:
    """A folder with two scripts."""
    for name in ("train.py", "evaluate.py"):
        (tmp_path / name).write_text(SCRIPT)
    (tmp_path / "requirements.txt").write_text("jiwer\n")
    return TrainingCode(str(tmp_path))


def training_image(stack: Stack) -> EcrImage:
    return EcrImage(ecr.Repository.from_repository_name(stack, "Training", "training"), "1")


def data(stack: Stack, prefix: str = "train/") -> S3Data:
    return S3Data(s3.Bucket.from_bucket_name(stack, f"Data{prefix[:-1]}", "my-data"), prefix)


def job_in(stack: Stack, code: TrainingCode, **options: Any) -> TrainingJob:
    given = {"image": training_image(stack), "base_model": BLOOM, **options}
    return TrainingJob(stack, "Train", code=code, **given)


def served(stack: Stack, **options: Any) -> TrainedModel:
    """A model that is trained, with its endpoint."""
    weights = TrainedModel(stack, "Weights", first=BLOOM, **options)
    image = ExtendedDlc(stack, "Image", transformers="5.23.0", accelerator="cpu")
    HuggingFaceEndpoint(stack, "Bloom", model=weights, image=image)
    return weights


def text(value: Any) -> str:
    """A value of a template, with the names of what it refers to in the places of references."""
    if isinstance(value, dict):
        if "Fn::Join" in value:
            return str(value["Fn::Join"][0].join(text(each) for each in value["Fn::Join"][1]))
        if "Ref" in value:
            return f"<{value['Ref']}>"
        return f"<{'.'.join(value['Fn::GetAtt'])}>" if "Fn::GetAtt" in value else "<>"
    return str(value)


def states_of(stack: Stack) -> Json:
    (machine,) = Template.from_stack(stack).find_resources("AWS::StepFunctions::StateMachine").values()
    states: Json = json.loads(text(machine["Properties"]["DefinitionString"]))["States"]
    return states


def rights_of(stack: Stack, role: str) -> dict[str, list[str]]:
    """Action -> resources."""
    found: dict[str, list[str]] = {}
    for name, policy in Template.from_stack(stack).find_resources("AWS::IAM::Policy").items():
        for statement in policy["Properties"]["PolicyDocument"]["Statement"] if name.startswith(role) else ():
            resources = statement["Resource"]
            actions = statement["Action"]
            for action in [actions] if isinstance(actions, str) else actions:
                arns = [text(each) for each in (resources if isinstance(resources, list) else [resources])]
                found.setdefault(action, []).extend(arns)
    return found


def test_a_job_is_told_code_arguments_and_folders_in_sagemakers_words(stack: Stack, code: TrainingCode) -> None:
    job_in(stack, code, hyperparameters={"epochs": 3}, channels={"train": data(stack)}, job_name="tune")
    states = states_of(stack)
    assert list(states)[:3] == ["Train1", "TrainFailed", "Trained"]
    assert states["Train1"]["Resource"].endswith(":states:::sagemaker:createTrainingJob.sync")
    request = states["Train1"]["Parameters"]
    assert request["TrainingJobName.$"].startswith("States.Format('tune-{}', ")
    assert request["AlgorithmSpecification"]["TrainingImage"].endswith("/training:1")
    arguments = request["HyperParameters"]
    assert all(isinstance(value, str) for value in arguments.values())
    assert (arguments["epochs"], arguments["sagemaker_program"]) == ("3", "train.py")
    assert arguments["sagemaker_submit_directory"].startswith("s3://")
    assert arguments["sagemaker_submit_directory"].endswith(".tar.gz")
    assert "sagemaker_torch_distributed_enabled" not in arguments
    (channel,) = request["InputDataConfig"]
    assert (channel["ChannelName"], channel["DataSource"]["S3DataSource"]["S3Uri"]) == ("train", "s3://my-data/train/")
    assert request["OutputDataConfig"]["CompressionType"] == "NONE"
    assert request["Environment"] == {
        "HF_MODEL_ID": "bigscience/bloom-560m",
        "HF_MODEL_REVISION": COMMIT,
        "HF_TASK": "text-generation",
    }
    assert request["ResourceConfig"]["InstanceType"] == "ml.g5.xlarge"
    assert request["StoppingCondition"] == {"MaxRuntimeInSeconds": 86400}
    assert "EnableManagedSpotTraining" not in request
    assert "CheckpointConfig" not in request


def test_the_code_is_packed_as_the_toolkit_unpacks_it(code: TrainingCode) -> None:
    app = App()
    stack = new_stack(app, "Test")
    job_in(stack, code)
    (archive,) = Path(app.synth().directory).glob("asset.*.tar.gz")
    with tarfile.open(archive) as packed:
        assert packed.getnames() == ["evaluate.py", "requirements.txt", "train.py"]


def test_several_instances_are_started_by_torchrun(stack: Stack, code: TrainingCode) -> None:
    job_in(stack, code, instances=TrainingInstances(count=2, distribution="torchrun"))
    request = states_of(stack)["Train1"]["Parameters"]
    assert request["HyperParameters"]["sagemaker_torch_distributed_enabled"] == "true"
    assert request["ResourceConfig"]["InstanceCount"] == 2


def test_a_script_that_starts_the_processes_itself_runs_once_on_each_instance(stack: Stack, code: TrainingCode) -> None:
    job_in(stack, code, instances=TrainingInstances(count=2, distribution="script"))
    request = states_of(stack)["Train1"]["Parameters"]
    assert "sagemaker_torch_distributed_enabled" not in request["HyperParameters"]
    assert request["ResourceConfig"]["InstanceCount"] == 2


def test_spot_capacity_waits_and_each_run_keeps_checkpoints_of_its_own(stack: Stack, code: TrainingCode) -> None:
    instances = TrainingInstances(spot=True, checkpoints=True, max_runtime_seconds=3600)
    job_in(stack, code, instances=instances, job_name="tune")
    request = states_of(stack)["Train1"]["Parameters"]
    assert request["EnableManagedSpotTraining"] is True
    assert request["StoppingCondition"] == {"MaxRuntimeInSeconds": 3600, "MaxWaitTimeInSeconds": 7200}
    assert request["CheckpointConfig"]["LocalPath"] == "/opt/ml/checkpoints"
    assert "/checkpoints/tune/{}/', $$.Execution.Name)" in request["CheckpointConfig"]["S3Uri.$"]
    rights = rights_of(stack, "TrainRole")
    assert any(arn.endswith("/checkpoints/tune/*") for arn in rights["s3:DeleteObject"])


def test_the_next_type_is_tried_where_sagemaker_is_short_and_nowhere_else(stack: Stack, code: TrainingCode) -> None:
    job_in(stack, code, instances=TrainingInstances(instance_type=["ml.g5.xlarge", "ml.g6.xlarge", "ml.g4dn.xlarge"]))
    states = states_of(stack)
    types = [states[f"Train{n}"]["Parameters"]["ResourceConfig"]["InstanceType"] for n in (1, 2, 3)]
    assert types == ["ml.g5.xlarge", "ml.g6.xlarge", "ml.g4dn.xlarge"]
    (caught,) = states["Train1"]["Catch"]
    assert (caught["ErrorEquals"], caught["Next"]) == (["States.ALL"], "Train1Short")
    short = states["Train1Short"]
    assert {choice["Next"] for choice in short["Choices"]} == {"Train2"}
    assert any(choice["StringMatches"] == "*CapacityError*" for choice in short["Choices"])
    assert short["Default"] == "TrainFailed"
    assert states["TrainFailed"]["Next"] == "Why"
    assert states["Train3"]["Catch"][0]["Next"] == "TrainFailed"


def test_a_run_that_failed_says_the_containers_own_reason(stack: Stack, code: TrainingCode) -> None:
    job_in(stack, code)
    states = states_of(stack)
    assert states["ReadReason"]["Parameters"] == {"job.$": "States.StringToJson($.failed.Cause)"}
    assert states["JobFailed"]["CausePath"].endswith("$.failed.job.FailureReason)")
    assert states["JobStopped"]["CausePath"].endswith("$.failed.job.SecondaryStatus)")


def test_an_isolated_container_gets_its_code_as_a_channel_and_no_hub(stack: Stack, code: TrainingCode) -> None:
    base = MirroredModel(stack, "Base", model="bloom", revision=COMMIT)
    job_in(stack, code, base_model=base, network_isolation=True)
    request = states_of(stack)["Train1"]["Parameters"]
    channels = {each["ChannelName"]: each["DataSource"]["S3DataSource"]["S3Uri"] for each in request["InputDataConfig"]}
    archive = channels["code"].rpartition("/")[2]
    assert request["HyperParameters"]["sagemaker_submit_directory"] == f"/opt/ml/input/data/code/{archive}"
    assert channels["model"].endswith(f"/models/bigscience/bloom-560m/{COMMIT}/")
    assert request["EnableNetworkIsolation"] is True
    assert request["Environment"] == {"HF_HUB_OFFLINE": "1"}


def test_a_data_set_of_the_hub_is_copied_once_and_waited_for(stack: Stack, code: TrainingCode) -> None:
    channel = MirroredDataset(stack, "Glue", dataset="nyu-mll/glue", revision=COMMIT)
    job_in(stack, code, channels={"train": channel})
    template = Template.from_stack(stack)
    (start,) = template.find_resources("Custom::ExtendedDlcMirror").values()
    assert "--kind=dataset" in text(start["Properties"]["Create"])
    (request,) = [states_of(stack)["Train1"]["Parameters"]["InputDataConfig"][0]["DataSource"]["S3DataSource"]]
    assert request["S3Uri"].endswith(f"/datasets/nyu-mll/glue/{COMMIT}/")
    (wait,) = template.find_resources("AWS::CloudFormation::WaitCondition")
    (machine,) = template.find_resources("AWS::StepFunctions::StateMachine").values()
    assert wait in machine["DependsOn"]


def test_the_containers_may_read_their_data_and_write_their_own_results(stack: Stack, code: TrainingCode) -> None:
    job_in(stack, code, channels={"train": data(stack)}, job_name="tune")
    rights = rights_of(stack, "TrainRole")
    read = [arn for arn in rights["s3:GetObject"] if "cdk-" not in arn and "<>" not in arn]
    assert read == ["arn:<AWS::Partition>:s3:::my-data/train/*"]
    (written,) = rights["s3:PutObject"]
    assert written.endswith("/models/tune-*")
    assert rights["cloudwatch:PutMetricData"] == ["*"]
    assert not [action for action in rights if action.startswith(("sagemaker:", "iam:"))]


def test_the_state_machine_starts_jobs_of_this_name_alone(stack: Stack, code: TrainingCode) -> None:
    job_in(stack, code, job_name="tune")
    rights = rights_of(stack, "TrainStateMachineRole")
    (jobs,) = rights["sagemaker:CreateTrainingJob"]
    assert jobs.endswith(":training-job/tune-*")
    assert rights["iam:PassRole"][0].startswith("<TrainRole")
    assert "cloudformation:UpdateStack" not in rights
    assert "lambda:InvokeFunction" not in rights
    assert Template.from_stack(stack).find_resources("AWS::Lambda::Function") == {}


def test_names_with_capitals_are_granted_in_both_forms_that_sagemaker_writes(stack: Stack, code: TrainingCode) -> None:
    job_in(stack, code, job_name="MyTune", serves=served(stack), registry="MyModels")
    rights = rights_of(stack, "TrainStateMachineRole")
    jobs = [each.rpartition(":")[2] for each in rights["sagemaker:CreateTrainingJob"]]
    assert jobs == ["training-job/MyTune-*", "training-job/mytune-*"]
    packages = {each.rpartition(":")[2] for each in rights["sagemaker:CreateModelPackage"]}
    assert packages == {
        *("model-package-group/MyModels", "model-package-group/mymodels"),
        *("model-package/MyModels/*", "model-package/mymodels/*"),
    }


def test_who_may_start_runs_may_follow_and_stop_those_of_this_state_machine_alone(
    stack: Stack, code: TrainingCode
) -> None:
    role = iam.Role(stack, "Operator", assumed_by=iam.ServicePrincipal("ec2.amazonaws.com"))
    job_in(stack, code).grant_start(role)
    (policy,) = (
        Template.from_stack(stack)
        .find_resources(
            "AWS::IAM::Policy", {"Properties": {"Roles": [{"Ref": stack.get_logical_id(role.node.default_child)}]}}
        )
        .values()
    )
    followed, started = policy["Properties"]["PolicyDocument"]["Statement"]
    assert followed["Action"] == ["states:DescribeExecution", "states:GetExecutionHistory", "states:StopExecution"]
    assert json.dumps(followed["Resource"]).count("execution:") == 1
    assert started["Action"] == ["states:StartExecution", "states:ListExecutions"]
    assert "Train" in started["Resource"]["Ref"]


def test_the_token_of_a_gated_base_is_a_secret_that_the_container_reads(stack: Stack, code: TrainingCode) -> None:
    token = secretsmanager.Secret.from_secret_name_v2(stack, "Token", "hub-token")
    job_in(stack, code, base_model=HubModel("me/gated", revision=COMMIT, token=token))
    environment = states_of(stack)["Train1"]["Parameters"]["Environment"]
    assert "secret:hub-token" in environment["HF_TOKEN_SECRET_ARN"]
    assert "secretsmanager:GetSecretValue" in rights_of(stack, "TrainRole")


def test_key_network_and_tags_are_handed_on(stack: Stack, code: TrainingCode) -> None:
    vpc = ec2.Vpc(stack, "Vpc")
    key = kms.Key(stack, "Key")
    instances = TrainingInstances(instance_type=["ml.m5.xlarge", "ml.m5.2xlarge"])
    job_in(stack, code, network=Network(vpc=vpc), encryption_key=key, tags={"team": "speech"}, instances=instances)
    request = states_of(stack)["Train1"]["Parameters"]
    assert len(request["VpcConfig"]["Subnets"]) == 2
    assert request["ResourceConfig"]["VolumeKmsKeyId"].startswith("<Key")
    assert request["Tags"] == [{"Key": "team", "Value": "speech"}]
    assert "ec2:CreateNetworkInterface" in rights_of(stack, "TrainRole")
    assert "sagemaker:AddTags" in rights_of(stack, "TrainStateMachineRole")


def test_each_right_of_a_training_is_in_the_docs_with_its_reason(stack: Stack, code: TrainingCode) -> None:
    token = secretsmanager.Secret.from_secret_name_v2(stack, "Token", "hub-token")
    job_in(
        stack,
        code,
        serves=served(stack),
        base_model=HubModel("bigscience/bloom-560m", revision=COMMIT, token=token),
        channels={"train": data(stack)},
        instances=TrainingInstances(spot=True, checkpoints=True),
        network=Network(vpc=ec2.Vpc(stack, "Vpc")),
        encryption_key=kms.Key(stack, "Key"),
        tags={"team": "speech"},
        gate=EvaluationGate(metric="loss", at_most=1),
        registry="models",
        schedule=TrainingSchedule(expression="rate(7 days)"),
        on_change=True,
    )
    _, _, section = (ROOT / "docs" / "training.md").read_text().partition("## Rights")
    rows = [row.split("|")[1:-1] for row in section.partition("\n## ")[0].splitlines() if row.startswith("|")][2:]
    assert all(may.strip() and because.strip() for _, may, because in rows)
    reasons: dict[str, set[str]] = {}
    role = ""
    for who, may, _ in rows:
        role = who.strip() or role
        reasons.setdefault(role, set()).update(re.findall(r"`(\w+:\w+)`", may))
    roles = {
        "TrainRole": "the containers' (`Role`)",
        "TrainStateMachineRole": "the state machine's",
        "TrainJudgeRole": "the function's (`JudgeRole`)",
        "TrainStart": "the schedule's, and the deployment's with `on_change`",
        "SchedulerRole": "the schedule's, and the deployment's with `on_change`",
    }
    for role, row in roles.items():
        assert set(rights_of(stack, role)) == reasons[row], role


def test_the_endpoint_may_decrypt_what_the_training_encrypts_with_its_own_key(stack: Stack, code: TrainingCode) -> None:
    job_in(stack, code, serves=served(stack), encryption_key=kms.Key(stack, "Key"))
    (granted,) = rights_of(stack, "BloomRole")["kms:Decrypt"]
    output = states_of(stack)["Train1"]["Parameters"]["OutputDataConfig"]
    assert output["KmsKeyId"] == granted
    assert rights_of(stack, "TrainJudgeRole")["kms:Decrypt"] == [granted]


def test_a_key_that_would_make_the_endpoint_wait_for_its_training_is_refused(code: TrainingCode) -> None:
    app = App()
    first, second = (new_stack(app, name) for name in ("First", "Second"))
    weights = served(first)
    said = (
        r"'encryption_key' \(Second/Key\) is in the training's stack, .* the endpoint's, First, .* make the key in that"
    )
    with pytest.raises(ValueError, match=said):
        job_in(second, code, serves=weights, encryption_key=kms.Key(second, "Key"))
    arn = "arn:aws:kms:us-east-1:123456789012:key/0f1e2d3c-0000-4000-8000-000000000000"
    third = new_stack(app, "Third")
    job_in(third, code, serves=weights, encryption_key=kms.Key.from_key_arn(third, "Given", arn))
    assert rights_of(first, "BloomRole")["kms:Decrypt"] == [arn]


def test_the_hosts_of_a_training_in_a_vpc_may_connect_to_each_other_and_one_host_gets_no_such_rule(
    code: TrainingCode,
) -> None:
    def stack_with(count: int, *given: str) -> Stack:
        stack = new_stack()
        groups = [ec2.SecurityGroup.from_security_group_id(stack, each, each) for each in given]
        instances = TrainingInstances(count=count, distribution="torchrun")
        job_in(stack, code, network=Network(vpc=ec2.Vpc(stack, "Vpc"), security_groups=groups), instances=instances)
        return stack

    template = Template.from_stack(stack_with(3))
    (group,) = template.find_resources("AWS::EC2::SecurityGroup")
    (rule,) = template.find_resources("AWS::EC2::SecurityGroupIngress").values()
    members = {"Fn::GetAtt": [group, "GroupId"]}
    assert (rule["Properties"]["GroupId"], rule["Properties"]["SourceSecurityGroupId"]) == (members, members)
    assert rule["Properties"]["IpProtocol"] == "-1"
    Template.from_stack(stack_with(1)).resource_count_is("AWS::EC2::SecurityGroupIngress", 0)
    said = Match.string_like_regexp("2 instances train together .* allow inbound traffic among the members")
    given = stack_with(2, "sg-0123456789abcdef0")
    Template.from_stack(given).resource_count_is("AWS::EC2::SecurityGroupIngress", 0)
    Annotations.from_stack(given).has_warning("/Test/Train", said)
    Annotations.from_stack(stack_with(1, "sg-0123456789abcdef0")).has_no_warning("/Test/Train", said)


def test_tags_that_aws_would_refuse_at_the_first_job_are_refused(stack: Stack, code: TrainingCode) -> None:
    with pytest.raises(ValueError, match=r"^'tags' has 'aws:team', and keys that begin with 'aws:' are AWS's own"):
        job_in(stack, code, tags={"aws:team": "speech"})


def test_types_with_storage_of_their_own_take_no_key_for_a_volume(stack: Stack, code: TrainingCode) -> None:
    job_in(stack, code, encryption_key=kms.Key(stack, "Key"))
    assert "VolumeKmsKeyId" not in states_of(stack)["Train1"]["Parameters"]["ResourceConfig"]


def test_it_runs_by_the_clock_and_when_what_it_is_made_of_changes(stack: Stack, code: TrainingCode) -> None:
    clock = TrainingSchedule(expression="cron(0 3 ? * SUN *)", timezone="Europe/Berlin")
    job_in(stack, code, schedule=clock, on_change=True, hyperparameters={"epochs": 3})
    template = Template.from_stack(stack)
    template.has_resource_properties(
        "AWS::Scheduler::Schedule",
        {"ScheduleExpression": "cron(0 3 ? * SUN *)", "ScheduleExpressionTimezone": "Europe/Berlin"},
    )
    (start,) = template.find_resources("Custom::ExtendedDlcTrainingStart").values()
    call = text(start["Properties"]["Update"])
    assert '"action":"startExecution"' in call
    assert '\\"epochs\\":\\"3\\"' in call, "other hyperparameters are another call"


def test_without_those_it_runs_on_demand_alone(stack: Stack, code: TrainingCode) -> None:
    job_in(stack, code)
    template = Template.from_stack(stack)
    template.resource_count_is("AWS::Scheduler::Schedule", 0)
    template.resource_count_is("Custom::ExtendedDlcTrainingStart", 0)


# -- to the endpoint ---------------------------------------------------------------------------------------------------


def test_an_endpoint_serves_its_first_model_until_one_was_accepted(stack: Stack) -> None:
    served(stack)
    template = Template.from_stack(stack)
    (model,) = template.find_resources("AWS::SageMaker::Model").values()
    container = model["Properties"]["PrimaryContainer"]
    (condition,) = [name for name in template.to_json()["Conditions"] if name.startswith("WeightsIsTrained")]
    no_value = {"Ref": "AWS::NoValue"}
    first = {"Fn::If": [condition, no_value, "bigscience/bloom-560m"]}
    assert container["Environment"]["HF_MODEL_ID"] == first
    assert container["Environment"]["HF_MODEL_REVISION"]["Fn::If"][1] == no_value
    assert container["Environment"]["HF_TASK"] == "text-generation"
    is_trained, trained, untrained = container["ModelDataSource"]["Fn::If"]
    assert (is_trained, untrained) == (condition, no_value)
    assert trained["S3DataSource"]["S3DataType"] == "S3Prefix"
    (parameter,) = [name for name in template.to_json()["Parameters"] if name.startswith("WeightsArtifact")]
    assert trained["S3DataSource"]["S3Uri"] == {"Ref": parameter}


def test_the_endpoint_may_read_trained_models_and_nothing_else_of_the_bucket(stack: Stack) -> None:
    served(stack)
    read = rights_of(stack, "BloomRole")["s3:GetObject"]
    assert len(read) == 1
    assert read[0].endswith("/models/*")


def test_an_accepted_model_becomes_the_parameter_of_the_endpoints_stack(stack: Stack, code: TrainingCode) -> None:
    weights = served(stack)
    job_in(stack, code, serves=weights)
    states = states_of(stack)
    assert states["Begin"]["Choices"] == [{"Variable": "$.artifact", "IsPresent": True, "Next": "Look"}]
    update = states["GoOver"]
    assert update["Resource"].endswith(":states:::aws-sdk:cloudformation:updateStack")
    parameters = {each.pop("ParameterKey"): each for each in update["Parameters"]["Parameters"]}
    (ours,) = [key for key in parameters if key.startswith("WeightsArtifact")]
    assert parameters.pop(ours) == {"ParameterValue.$": "$.look.artifact"}
    assert parameters == {"BootstrapVersion": {"UsePreviousValue": True}}
    assert update["Parameters"]["UsePreviousTemplate"] is True
    assert states["LookAtStack"]["Resource"].endswith(":aws-sdk:cloudformation:describeStacks")
    assert states["EndpointStays"]["Type"] == "Fail"
    look = states["Look"]["Parameters"]["Payload"]
    assert (look["Serving"], look["Stack"], look["Parameter"]) == ("5.23.0", "Test", ours)
    rights = rights_of(stack, "TrainStateMachineRole")
    assert rights["cloudformation:UpdateStack"] == [
        "arn:<AWS::Partition>:cloudformation:us-east-1:<AWS::AccountId>:stack/Test/*"
    ]


def test_the_gate_measures_the_new_model_and_where_that_is_enough_the_live_one(
    stack: Stack, code: TrainingCode
) -> None:
    gate = EvaluationGate(metric="eval_loss", at_most=3.0, hyperparameters={"epochs": 1})
    channels = {"train": data(stack), "test": data(stack, "test/")}
    job_in(stack, code, serves=served(stack), gate=gate, channels=channels)
    states = states_of(stack)
    evaluate = states["Evaluate1"]["Parameters"]
    places = {each["ChannelName"]: each["DataSource"]["S3DataSource"] for each in evaluate["InputDataConfig"]}
    assert places["model"]["S3Uri.$"] == "$.look.artifact"
    assert places["test"]["S3Uri"] == "s3://my-data/test/"
    assert "train" not in places
    assert evaluate["HyperParameters"]["sagemaker_program"] == "evaluate.py"
    assert evaluate["OutputDataConfig"]["S3OutputPath"].endswith("/evaluations")
    assert evaluate["OutputDataConfig"]["CompressionType"] == "GZIP"
    live = states["EvaluateLive1"]["Parameters"]["InputDataConfig"]
    assert live[0]["DataSource"]["S3DataSource"]["S3Uri.$"] == "$.look.live"
    assert states["Judge"]["Parameters"]["Payload"]["Gate"] == {"metric": "eval_loss", "at_most": 3, "margin": 0}
    assert states["IsAccepted"]["Choices"][0]["Next"] == "HasLive"
    assert states["HasLive"]["Default"] == "EvaluateLive1"
    assert states["HasLive"]["Choices"][0] == {"Variable": "$.job", "IsPresent": False, "Next": "GoOver"}
    assert states["IsAsGood"]["Choices"][0]["Next"] == "GoOver"
    assert states["Refused"]["CausePath"] == "$.judged.refused"


def test_each_accepted_model_is_a_package_with_the_endpoints_image(stack: Stack, code: TrainingCode) -> None:
    job_in(stack, code, serves=served(stack), registry="bloom-models")
    states = states_of(stack)
    package = states["Register"]
    assert package["Resource"].endswith(":aws-sdk:sagemaker:createModelPackage")
    (container,) = package["Parameters"]["InferenceSpecification"]["Containers"]
    assert container["ModelDataSource"]["S3DataSource"]["S3Uri.$"] == "$.look.artifact"
    assert "<ImageRepository" in container["Image"]
    assert package["Next"] == "GoOver"
    assert container["Environment"] == {"HF_TASK": "text-generation"}
    Template.from_stack(stack).has_resource_properties(
        "AWS::SageMaker::ModelPackageGroup", {"ModelPackageGroupName": "bloom-models"}
    )


def test_the_package_of_an_adapter_names_the_base_beside_which_it_is_loaded(stack: Stack, code: TrainingCode) -> None:
    job_in(stack, code, serves=served(stack, adapter=True), adapter="beside", registry="bloom-models")
    (container,) = states_of(stack)["Register"]["Parameters"]["InferenceSpecification"]["Containers"]
    assert container["Environment"] == {
        "HF_MODEL_ID": "bigscience/bloom-560m",
        "HF_MODEL_REVISION": COMMIT,
        "HF_TASK": "text-generation",
    }


def test_an_adapter_is_merged_by_the_image_or_served_beside_its_base(code: TrainingCode) -> None:
    merged, beside = (new_stack() for _ in range(2))
    job_in(merged, code, serves=served(merged), adapter="merged")
    environment = states_of(merged)["Train1"]["Parameters"]["Environment"]
    assert environment["EXTENDED_DLC_MERGE_ADAPTER"] == "true"
    job_in(beside, code, serves=served(beside, adapter=True), adapter="beside")
    assert "EXTENDED_DLC_MERGE_ADAPTER" not in states_of(beside)["Train1"]["Parameters"]["Environment"]
    (model,) = Template.from_stack(beside).find_resources("AWS::SageMaker::Model").values()
    assert model["Properties"]["PrimaryContainer"]["Environment"]["HF_MODEL_ID"] == "bigscience/bloom-560m"
    looked = [states_of(each)["Look"]["Parameters"]["Payload"] for each in (merged, beside)]
    assert [(each.get("Base"), each.get("Revision")) for each in looked] == [
        (None, None),
        ("bigscience/bloom-560m", COMMIT),
    ]


def test_the_training_may_be_in_a_stack_of_its_own(code: TrainingCode) -> None:
    app = App()
    first, second = (new_stack(app, name) for name in ("First", "Second"))
    weights = served(first)
    TrainingJob(second, "Train", code=code, image=training_image(second), base_model=BLOOM, serves=weights)
    app.synth()
    update = states_of(second)["GoOver"]["Parameters"]
    assert update["StackName"] == "First"
    (ours,) = [each for each in update["Parameters"] if "ParameterValue.$" in each]
    assert ours["ParameterKey"] in Template.from_stack(first).to_json()["Parameters"]


REFUSED: dict[str, tuple[dict[str, Any], str]] = {
    "gate without endpoint": (
        {"gate": EvaluationGate(metric="loss", at_most=1)},
        "'gate' is for models that go on to an endpoint: pass serves=",
    ),
    "registry without endpoint": ({"registry": "x"}, "'registry' is for models that go on to an endpoint"),
    "unknown argument": (
        {"hyperparameters": {"epoch_count": 3}},
        r"'hyperparameters': 'epoch_count' is no argument of train.py: remove it, or add it to the parser",
    ),
    "a set of Sagemaker's": ({"hyperparameters": {"sagemaker_program": "x"}}, "SageMaker's own programs are told"),
    "name": ({"job_name": "a" * 51}, r"'job_name' \(a+\) must be letters, .* at most 50, .*: write another"),
    "no name": ({"job_name": ""}, r"'job_name' \(\) must be letters, .*: write another"),
    "a token": (
        {"environment": {"HF_TOKEN": "hf_abcdefghijklmnopqrst"}},
        "holds a literal Hub token, .* remove it",
    ),
    "a token as an argument": (
        {"hyperparameters": {"epochs": "hf_abcdefghijklmnopqrst"}},
        r"'hyperparameters' \(epochs\) holds a literal Hub token, .* a secret's token is the script's HF_TOKEN",
    ),
    "an argument without a name": ({"hyperparameters": {"": 3}}, r"'hyperparameters' \(''\) is no name of an argument"),
    "own variable": ({"environment": {"HF_MODEL_ID": "x"}}, "'HF_MODEL_ID' is set by base_model: set it there"),
    "metric": ({"metrics": {"loss": "loss"}}, r"'metrics' \(loss\) has an expression with 0 groups"),
    "isolated": ({"network_isolation": True}, r"'network_isolation' \(True\) leaves .* MirroredModel"),
    "role": (
        {"role_path": "/x/", "role": iam.Role.from_role_arn(Stack(), "Given", "arn:aws:iam::111111111111:role/x")},
        "'role_path' is for the new role",
    ),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_cannot_be_is_refused_with_the_way_out(stack: Stack, code: TrainingCode, name: str) -> None:
    options, message = REFUSED[name]
    with pytest.raises(ValueError, match=message):
        job_in(stack, code, **options)


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("..", r"must be letters, digits and \. _ -, at most 64 and not dots alone"),
        ("my data", "must be letters, digits"),
        ("model", "is the folder of the base model's weights: call the channel otherwise"),
        ("code", "is the folder of the script, where it comes as a channel: call the channel otherwise"),
    ],
)
def test_a_channel_whose_folder_is_anothers_is_refused(stack: Stack, code: TrainingCode, name: str, says: str) -> None:
    with pytest.raises(ValueError, match=rf"'channels' \({re.escape(name)}\) {says}"):
        job_in(stack, code, channels={name: data(stack)})


def test_channels_of_one_variable_and_variables_of_the_toolkit_are_refused(stack: Stack, code: TrainingCode) -> None:
    both = {"Data": data(stack), "data": data(stack, "other/")}
    with pytest.raises(
        ValueError, match=r"'channels' \(data\) and 'Data' are one variable of the script, SM_CHANNEL_DATA"
    ):
        job_in(stack, code, channels=both)
    with pytest.raises(ValueError, match=r"'environment' \(SM_MODEL_DIR\) is set by the toolkit for the script"):
        job_in(Stack(App(), "Other"), code, environment={"SM_MODEL_DIR": "/opt/elsewhere"})


def test_an_image_that_serves_trains_nothing(stack: Stack, code: TrainingCode) -> None:
    with pytest.raises(ValueError, match=r"'image' \(StockDlc\) serves models: pass ExtendedDlc\(family='training'"):
        job_in(stack, code, image=StockDlc(transformers="4.51.3"))
    with pytest.raises(ValueError, match=r"serves models and does not train them: pass ExtendedDlc\(family='training'"):
        job_in(new_stack(name="Other"), code, image=extended(stack, "5.23.0"))


def extended(stack: Stack, transformers: str, **options: Any) -> ExtendedDlc:
    return ExtendedDlc(stack, "Other", transformers=transformers, accelerator="gpu", **options)


def test_a_trainer_newer_by_a_major_release_is_refused_and_one_by_a_minor_noted(code: TrainingCode) -> None:
    def with_release(serving: str) -> Stack:
        stack = new_stack()
        weights = TrainedModel(stack, "Weights", first=BLOOM)
        image = ExtendedDlc(stack, "Image", transformers=serving, accelerator="cpu")
        HuggingFaceEndpoint(stack, "Bloom", model=weights, image=image)
        trains = extended(stack, "5.23.0", family="training")
        TrainingJob(stack, "Train", code=code, image=trains, base_model=BLOOM, serves=weights)
        return stack

    with pytest.raises(ValueError, match=r"newer major release than the endpoint's image has \(4.51.3\)"):
        with_release("4.51.3")
    said = Match.string_like_regexp("transformers 5.23.0 trains and 5.13.1 serves, which is older")
    Annotations.from_stack(with_release("5.13.1")).has_warning("/Test/Train", said)
    nothing = Match.string_like_regexp("trains and .* serves, which is older")
    Annotations.from_stack(with_release("5.23.0")).has_no_warning("/Test/Train", nothing)


def test_a_model_that_no_endpoint_serves_cannot_be_gone_over_to(stack: Stack, code: TrainingCode) -> None:
    with pytest.raises(ValueError, match=r"'serves' \(Test/Weights\) is served by no endpoint: define the"):
        job_in(stack, code, serves=TrainedModel(stack, "Weights", first=BLOOM))


def test_a_component_goes_over_to_a_trained_model_and_a_serverless_endpoint_is_refused(
    stack: Stack, code: TrainingCode
) -> None:
    weights = TrainedModel(stack, "Weights", first=BLOOM)
    image = ExtendedDlc(stack, "Image", transformers="5.23.0", accelerator="cpu")
    other = HubModel("bigscience/bloom-1b1", revision=COMMIT)
    parts = [Component(name="bloom", memory_mb=4096), Component(name="tuned", memory_mb=4096, model=weights)]
    hosting = Components(instance_type="ml.m5.4xlarge", components=parts, maximum=1)
    HuggingFaceEndpoint(stack, "Both", model=other, image=image, hosting=hosting)
    job_in(stack, code, serves=weights)
    template = Template.from_stack(stack)
    (parameter,) = [name for name in template.to_json()["Parameters"] if name.startswith("WeightsArtifact")]
    models = template.find_resources("AWS::SageMaker::Model")
    (trained,) = [name for name, each in models.items() if parameter in json.dumps(each)]
    components = template.find_resources("AWS::SageMaker::InferenceComponent").values()
    names = {
        each["Properties"]["Specification"]["ModelName"]["Fn::GetAtt"][0]: each["Properties"]["InferenceComponentName"]
        for each in components
    }
    assert names.pop(trained) == "tuned"
    assert list(names.values()) == ["bloom"]
    assert states_of(stack)["Look"]["Parameters"]["Payload"]["Stack"] == "Test"
    another = TrainedModel(stack, "Another", first=BLOOM)
    said = r"'model' \(a TrainedModel\) does not go with Serverless, .* take RealTime, Async or Components"
    with pytest.raises(ValueError, match=said):
        HuggingFaceEndpoint(stack, "Small", model=another, image=image, hosting=Serverless(memory_mb=6144))


def test_an_adapter_beside_another_base_is_refused(stack: Stack, code: TrainingCode) -> None:
    weights = served(stack, adapter=True)
    with pytest.raises(ValueError, match=r"'base_model' \(me/other\) is not the model that the endpoint serves"):
        job_in(stack, code, serves=weights, adapter="beside", base_model=HubModel("me/other", revision=COMMIT))
    for number, base in enumerate(
        (
            HubModel("bigscience/bloom-560m", revision="1" * 40),
            MirroredModel(stack, "Mirrored", model="bigscience/bloom-560m", revision="1" * 40),
        )
    ):
        with pytest.raises(ValueError, match=r"560m at 1{40}\) is not the revision that the endpoint serves, '0123"):
            job_in(new_stack(name=f"At{number}"), code, serves=weights, adapter="beside", base_model=base)
    # the Hub takes any case of an id, and nobody knows here of which commit a branch is
    for name, revision in (("Same", COMMIT), ("Branch", "main")):
        same = HubModel("BigScience/BLOOM-560m", revision=revision)
        job_in(new_stack(name=name), code, serves=weights, adapter="beside", base_model=same)
    with pytest.raises(ValueError, match=r"'adapter' \(merged\) does not go with the TrainedModel"):
        job_in(new_stack(name="Two"), code, serves=weights, adapter="merged")


def test_a_model_in_a_nested_stack_whose_parent_would_put_the_first_one_back_is_refused(stack: Stack) -> None:
    said = (
        r"'first' \(in the nested stack Test/Below\) is a parameter of its stack, .*: define the endpoint in a stack of"
    )
    with pytest.raises(ValueError, match=said):
        TrainedModel(NestedStack(stack, "Below"), "Weights", first=BLOOM)


def test_a_first_model_in_an_archive_or_in_s3_beside_an_adapter_is_refused(stack: Stack) -> None:
    bucket = s3.Bucket.from_bucket_name(stack, "B", "models")
    with pytest.raises(ValueError, match=r"'first' \(an archive\) is packed"):
        TrainedModel(stack, "One", first=S3Model(bucket, "model.tar.gz"))
    with pytest.raises(ValueError, match=r"'adapter' \(True\) is loaded beside a model of the Hub"):
        TrainedModel(stack, "Two", first=S3Model(bucket, "model/"), adapter=True)


# -- the whole template ------------------------------------------------------------------------------------------------

REASONS = {
    "AwsSolutions-IAM5[Resource::*]": "actions that have no resources: log-in to ECR, metrics, log delivery, X-Ray",
    "AwsSolutions-IAM5[Resource::arn:<AWS::Partition>:logs:": "SageMaker and Lambda name the log streams",
    "AwsSolutions-IAM5[Resource::arn:<AWS::Partition>:s3:::my-data/": "a channel is what is below a prefix",
    "AwsSolutions-IAM5[Resource::arn:<AWS::Partition>:s3:::<WeightsBucket": "the endpoint reads whichever was accepted",
    "AwsSolutions-IAM5[Resource::<WeightsBucket": "models, checkpoints and measurements are below prefixes",
    "AwsSolutions-IAM5[Resource::arn:<AWS::Partition>:sagemaker:us-east-1:<AWS::AccountId>:training-job/": "a run's "
    "name ends in random digits",
    "AwsSolutions-IAM5[Resource::arn:<AWS::Partition>:sagemaker:us-east-1:<AWS::AccountId>:model-package/": "versions "
    "get their numbers when they are made",
    "AwsSolutions-IAM5[Resource::arn:<AWS::Partition>:cloudformation:us-east-1:<AWS::AccountId>:stack/Test/": "a "
    "stack's ARN ends in a random id",
    "AwsSolutions-IAM5[Resource::<TrainStateMachine": "who starts a run follows its executions",
    "AwsSolutions-IAM4[Policy::arn:<AWS::Partition>:iam::aws:policy/service-role/AWSLambdaBasicExecutionRole]": "the "
    "CDK's own function for calls at a deployment",
    "AwsSolutions-L1": "the CDK's own function for calls at a deployment",
    "AwsSolutions-SF2": "a run is one job after another, each with its log: there is nothing to trace",
    "AwsSolutions-S1": "who wants access logs gives a bucket with them",
}
"""What cdk-nag may find, by its beginning, and why it stays."""


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> tuple[App, Path]:
    """A training with all its parts, checked by cdk-nag."""
    folder = tmp_path_factory.mktemp("whole")
    (folder / "code").mkdir()
    for name in ("train.py", "evaluate.py"):
        (folder / "code" / name).write_text(SCRIPT)
    app = App(outdir=str(folder / "out"))
    stack = new_stack(app, "Test")
    weights = served(stack)
    TrainingJob(
        stack,
        "Train",
        code=TrainingCode(str(folder / "code")),
        image=training_image(stack),
        base_model=BLOOM,
        hyperparameters={"epochs": 3},
        channels={"train": data(stack), "test": data(stack, "test/")},
        instances=TrainingInstances(instance_type=["ml.g5.xlarge", "ml.g6.xlarge"], spot=True, checkpoints=True),
        serves=weights,
        gate=EvaluationGate(metric="eval_loss", at_most=3.0),
        registry="models",
        schedule=TrainingSchedule(expression="rate(7 days)"),
        on_change=True,
    )
    cdk.Validations.of(app).add_plugins(AwsSolutionsChecks(app))
    with pytest.raises(RuntimeError, match="AwsSolutions"):
        app.synth()
    return app, folder / "out"


def test_cdk_nag_finds_nothing_without_a_reason(whole: tuple[App, Path]) -> None:
    report = json.loads((whole[1] / "validation-report.json").read_text())
    found = {each["ruleName"] for plugin in report["pluginReports"] for each in plugin["violations"]}
    assert found
    assert sorted(each for each in found if not each.startswith(tuple(REASONS))) == []


def test_cfn_lint_finds_no_error_in_the_template(whole: tuple[App, Path]) -> None:
    template = (whole[1] / "Test.template.json").read_text()
    assert json.loads(template)["Resources"], "a template with nothing in it passes every linter"
    errors = [str(match) for match in lint(template, regions=["us-east-1"]) if match.rule.severity == "error"]
    assert errors == []


def test_every_state_is_reached_and_every_way_ends(whole: tuple[App, Path]) -> None:
    template = json.loads((whole[1] / "Test.template.json").read_text())
    (machine,) = [r for r in template["Resources"].values() if r["Type"] == "AWS::StepFunctions::StateMachine"]
    definition = json.loads(text(machine["Properties"]["DefinitionString"]))
    states = definition["States"]
    following = {
        name: {
            *([state["Next"]] if "Next" in state else []),
            *([state["Default"]] if "Default" in state else []),
            *(each["Next"] for each in [*state.get("Catch", ()), *state.get("Choices", ())]),
        }
        for name, state in states.items()
    }
    assert {each for names in following.values() for each in names} <= set(states)
    reached, looking = set(), [definition["StartAt"]]
    while looking:
        name = looking.pop()
        if name not in reached:
            reached.add(name)
            looking += following[name]
    assert reached == set(states)
    assert {name for name in states if not following[name]} == {
        *("Done", "NotServed", "Refused", "NotUpdated", "EndpointStays", "JobFailed", "JobStopped", "NotStarted")
    }
