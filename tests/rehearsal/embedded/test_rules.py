"""The table of rules: for each row a request that AWS refuses, and a similar one that it accepts."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import boto3
import pytest
from botocore.config import Config
from botocore.exceptions import ClientError

from extended_dlc.rehearsal.embedded import fidelity
from extended_dlc.rehearsal.embedded.rules import RULES
from tests.rehearsal.embedded.rule_cases import (
    ANY,
    CASES,
    GZIP,
    IMAGE,
    IT,
    NONE,
    ROLE,
    TRUST,
    VPC,
    Case,
    Json,
    component,
    config,
    container,
    containers,
    inline,
    model,
    pools,
    stack,
    tracking,
    variant,
)
from tests.support.embedded import ACCOUNT, REGION, Aws, deploy, events, start


def test_every_rule_of_the_table_has_a_case_here_and_a_source() -> None:
    names = [rule.name for rule in RULES]
    assert len(set(names)) == len(names)
    assert {case.rule for case in CASES} == set(names)
    assert all(rule.source and rule.refuses for rule in RULES)


def test_the_page_of_what_is_refused_is_what_the_code_says() -> None:
    assert fidelity.FILE.read_text() == fidelity.page(), "make docs"


NAMES = {
    "create_model": "ModelName",
    "create_endpoint_config": "EndpointConfigName",
    "create_endpoint": "EndpointName",
    "create_inference_component": "InferenceComponentName",
    "put_metric_alarm": "AlarmName",
    "create_log_group": "logGroupName",
    "create_function": "FunctionName",
    "create_role": "RoleName",
    "create_state_machine": "name",
    "create_schedule": "Name",
    "create_training_job": "TrainingJobName",
    "create_project": "name",
    "create_policy": "PolicyName",
    "create_repository": "repositoryName",
    "create_secret": "Name",
    "create_stack": "StackName",
    "put_dashboard": "DashboardName",
    "put_rule": "Name",
    "put_metric_filter": "filterName",
    "put_parameter": "Name",
    "put_scaling_policy": "PolicyName",
    "put_scheduled_action": "ScheduledActionName",
}
SCALED = {
    "ServiceNamespace": "sagemaker",
    "ResourceId": "endpoint/scaled/variant/A",
    "ScalableDimension": "sagemaker:variant:DesiredInstanceCount",
}
OTHERS: dict[str, Json] = {
    "start_build": {"projectName": "rules"},
    "assume_role": {"RoleArn": f"{ROLE}-of-callers", "RoleSessionName": "rules"},
    "create_project": {
        "source": {"type": "S3", "location": "rules/source.zip"},
        "artifacts": {"type": "NO_ARTIFACTS"},
        "environment": {"type": "LINUX_CONTAINER", "image": "x", "computeType": "BUILD_GENERAL1_SMALL"},
    },
    "put_lifecycle_policy": {"repositoryName": "rules"},
    "set_topic_attributes": {"TopicArn": f"arn:aws:sns:{REGION}:{ACCOUNT}:rules"},
    "put_metric_filter": {"logGroupName": "rules"},
    "create_function": {"Runtime": "python3.12", "Handler": "a.b", "Code": {"ZipFile": b"x"}},
    "create_state_machine": {"definition": json.dumps({"StartAt": "S", "States": {"S": {"Type": "Succeed"}}})},
    "put_retention_policy": {"logGroupName": "rules"},
    "put_scaling_policy": SCALED,
    "put_scheduled_action": {**SCALED, "ScalableTargetAction": {"MinCapacity": 1}},
    "register_scalable_target": {**SCALED, "ResourceId": "endpoint/served/variant/A"},
    "set_repository_policy": {"repositoryName": "rules"},
    "put_metric_alarm": {
        "Namespace": "N",
        "MetricName": "M",
        "ComparisonOperator": "GreaterThanThreshold",
        "Threshold": 1,
        "Statistic": "Sum",
    },
}


@dataclass
class World:
    """An embedded AWS without containers, with the resources that the cases use."""

    aws: Aws
    keys: dict[str, str] = field(default_factory=dict)
    clients: dict[tuple[str, str, str], Any] = field(default_factory=dict)

    def client(self, service: str, region: str = REGION, role: str = "") -> Any:
        """A client of the administrator, or of a session of the role."""
        if (service, region, role) not in self.clients:
            key = {"AccessKeyId": "testing", "SecretAccessKey": "testing", "SessionToken": None}
            if role:
                key = self.client("sts").assume_role(RoleArn=role, RoleSessionName="rules")["Credentials"]
            self.clients[service, region, role] = boto3.client(
                service,
                region_name=region,
                endpoint_url=self.aws.url,
                aws_access_key_id=key["AccessKeyId"],
                aws_secret_access_key=key["SecretAccessKey"],
                aws_session_token=key["SessionToken"],
                config=Config(retries={"max_attempts": 1, "mode": "standard"}, parameter_validation=False),
            )
        return self.clients[service, region, role]

    def scenario(self, **wanted: Any) -> None:
        answer = self.aws.request("POST", "/_embedded/scenarios", json.dumps(wanted))
        assert answer.status == 200, answer.body

    def calm(self) -> None:
        self.aws.request("DELETE", "/_embedded/scenarios")

    def with_keys(self, value: Any) -> Any:
        """A part of a request with `key:NAME` replaced by the key's ARN."""
        if isinstance(value, dict):
            return {key: self.with_keys(each) for key, each in value.items()}
        return self.keys[value[4:]] if isinstance(value, str) and value.startswith("key:") else value

    def call(self, case: Case, request: Json, name: str) -> None:
        given = self.with_keys({**OTHERS.get(case.operation, {}), **copy.deepcopy(request)})
        given = {key: each for key, each in given.items() if each is not None}
        if case.operation in NAMES:
            given.setdefault(NAMES[case.operation], name)
        if case.operation == "update_endpoint":
            given.setdefault("EndpointName", "served")
        getattr(self.client(case.service, case.region, case.role), case.operation)(**given)


def key_policy(*statements: Json) -> str:
    root = {"Effect": "Allow", "Principal": {"AWS": f"arn:aws:iam::{ACCOUNT}:root"}, "Action": "kms:*", "Resource": "*"}
    return json.dumps({"Version": "2012-10-17", "Statement": [root, *statements]})


LOGS = {
    "Effect": "Allow",
    "Principal": {"Service": f"logs.{REGION}.amazonaws.com"},
    "Action": ["kms:Encrypt*", "kms:Decrypt*", "kms:ReEncrypt*", "kms:GenerateDataKey*", "kms:Describe*"],
    "Resource": "*",
    "Condition": {"ArnLike": {"kms:EncryptionContext:aws:logs:arn": f"arn:aws:logs:{REGION}:{ACCOUNT}:*"}},
}


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    running = start(tmp_path_factory.mktemp("state"), tmp_path_factory.mktemp("stub"))
    made = World(running)
    s3 = made.client("s3")
    s3.create_bucket(Bucket="rules")
    s3.put_object(Bucket="rules", Key="model.tar.gz", Body=b"x")
    elsewhere = made.client("s3", "eu-west-3")
    elsewhere.create_bucket(Bucket="rules-there", CreateBucketConfiguration={"LocationConstraint": "eu-west-3"})
    elsewhere.put_object(Bucket="rules-there", Key="model.tar.gz", Body=b"x")
    for region in (REGION, "eu-west-3"):
        made.client("sagemaker", region).create_model(ModelName="plain", **model())
    sagemaker = made.client("sagemaker")
    sagemaker.create_model(ModelName="in-vpc", **model(VpcConfig=VPC))
    sagemaker.create_model(ModelName="isolated", **model(EnableNetworkIsolation=True))
    sagemaker.create_model(ModelName="by-source", **container(ModelDataSource=GZIP))
    sagemaker.create_model(ModelName="several", **containers("a", "b"))
    shared = variant(ModelName=NONE)
    for name, given in {
        "four": config(variant(InitialInstanceCount=4)),
        "gone": config(),
        "gpu": config(variant(InstanceType="ml.g5.xlarge")),
        "other-name": config(variant("B")),
        "two-variants": config(variant(), variant("B")),
        "shared": config(shared, ExecutionRoleArn=ROLE),
    }.items():
        sagemaker.create_endpoint_config(EndpointConfigName=name, **given)
    for name, used in {"served": "four", "orphan": "gone", "scaled": "four", "shared": "shared"}.items():
        sagemaker.create_endpoint(EndpointName=name, EndpointConfigName=used)
    sagemaker.create_inference_component(InferenceComponentName="base", **component())
    sagemaker.delete_endpoint_config(EndpointConfigName="gone")  # SageMaker accepts it although it is in use
    alarm = OTHERS["put_metric_alarm"]
    made.client("cloudwatch").put_metric_alarm(AlarmName="rules", Period=60, EvaluationPeriods=1, **alarm)
    reads = {"Effect": "Allow", "Action": "s3:GetObject", "Resource": "*"}
    boundary = json.dumps({"Version": "2012-10-17", "Statement": [reads]})
    made.client("iam").create_policy(PolicyName="boundary", PolicyDocument=boundary)
    running.create_role(
        "execution-of-schedules", "scheduler.amazonaws.com", Kept=json.loads(inline()["PolicyDocument"])
    )
    running.create_role("execution-of-functions", "lambda.amazonaws.com")
    running.create_role("execution-of-projects", "codebuild.amazonaws.com")
    project = {**OTHERS["create_project"], "serviceRole": f"{ROLE}-of-projects"}
    made.client("codebuild").create_project(name="rules", **project)
    anybody = {"Effect": "Allow", "Action": "sts:AssumeRole", "Resource": "*"}
    running.create_role(
        "execution-of-callers",
        f"arn:aws:iam::{ACCOUNT}:root",
        P={"Version": "2012-10-17", "Statement": [anybody]},
    )
    running.create_role("execution-of-long-sessions", f"arn:aws:iam::{ACCOUNT}:root")
    made.client("iam").update_role(RoleName="execution-of-long-sessions", MaxSessionDuration=7_200)
    running.create_role("execution-of-many", "sagemaker.amazonaws.com")
    iam = made.client("iam")
    for number in range(10):
        iam.create_policy(PolicyName=f"p{number}", PolicyDocument=boundary)
        iam.attach_role_policy(RoleName="execution-of-many", PolicyArn=f"arn:aws:iam::{ACCOUNT}:policy/p{number}")
    running.create_role("execution-of-machines", "states.amazonaws.com")
    scaled = {**SCALED, "MinCapacity": 1, "MaxCapacity": 2}
    made.client("application-autoscaling").register_scalable_target(**scaled)
    made.client("logs").create_log_group(logGroupName="rules")
    made.client("ecr").create_repository(repositoryName="rules")
    made.client("sns").create_topic(Name="rules")
    kms = made.client("kms")
    policies = {"closed": key_policy(), "open": key_policy(LOGS), "disabled": key_policy(), "doomed": key_policy()}
    for name, policy in policies.items():
        made.keys[name] = kms.create_key(Policy=policy)["KeyMetadata"]["Arn"]
    kms.create_alias(AliasName="alias/mine", TargetKeyId=made.keys["open"])
    kms.disable_key(KeyId=made.keys["disabled"].rpartition("/")[2])
    kms.schedule_key_deletion(KeyId=made.keys["doomed"].rpartition("/")[2])
    stacks, handle = made.client("cloudformation"), {"TemplateBody": json.dumps({"Resources": IT})}
    for name in ("protected", "unprotected", "changed-set"):
        stacks.create_stack(StackName=name, EnableTerminationProtection=name == "protected", **handle)
    for name, more in {"without": stack(), "with": stack(capability="CAPABILITY_IAM")}.items():
        stacks.create_change_set(StackName="changed-set", ChangeSetName=name, **more)
    yield made
    running.stop()


@pytest.mark.parametrize("number", range(len(CASES)), ids=[f"{case.rule}: {case.match[:40]}" for case in CASES])
def test_what_aws_refuses_is_refused_and_the_nearest_that_it_takes_is_taken(world: World, number: int) -> None:
    case = CASES[number]
    if case.scenario:
        world.scenario(**case.scenario)
    try:
        with pytest.raises(ClientError, match=case.match) as caught:
            world.call(case, case.refused, f"refused-{number}")
        assert caught.value.response["Error"]["Code"] == case.code
        world.call(case, case.taken, f"taken-{number}")
    finally:
        world.calm()


TEMPLATES: dict[str, tuple[str, Json, str]] = {
    "alias": (
        "AWS::KMS::Alias",
        {"AliasName": "alias/of-template", "TargetKeyId": "00000000-0000-0000-0000-000000000000"},
        "does not exist",
    ),
    "bucket": ("AWS::S3::Bucket", {"BucketName": "xn--rules"}, "The specified bucket is not valid"),
    "function": (
        "AWS::Lambda::Function",
        {
            "Code": {"ZipFile": "x"},
            "Environment": {"Variables": {"AWS_REGION": "x"}},
            "Handler": "a.b",
            "Role": f"{ROLE}-of-functions",
            "Runtime": "python3.12",
        },
        "Reserved keys used in this request: AWS_REGION",
    ),
    "lifecycle": (
        "AWS::ECR::Repository",
        {"LifecyclePolicy": {"LifecyclePolicyText": json.dumps({"of": "x" * 100})}},
        "Lifecycle policy validation failure",
    ),
    "parameter": ("AWS::SSM::Parameter", {"Type": "String", "Value": "x" * 5_000}, "maximum parameter value of 4096"),
    "project": (
        "AWS::CodeBuild::Project",
        {
            "Artifacts": {"Type": "NO_ARTIFACTS"},
            "Environment": {"ComputeType": "BUILD_GENERAL1_SMALL", "Image": "x", "Type": "LINUX_CONTAINER"},
            "ServiceRole": ROLE,
            "Source": {"Type": "NO_SOURCE", "BuildSpec": "version: 0.2"},
        },
        "CodeBuild is not authorized to perform: sts:AssumeRole",
    ),
    "config": (
        "AWS::SageMaker::EndpointConfig",
        config(variant(InstanceType="ml.g5.xlarge", VolumeSizeInGB="100")),
        "VolumeSizeInGB is not supported for instance type ml.g5.xlarge of variant A",
    ),
    "retention": ("AWS::Logs::LogGroup", {"RetentionInDays": 2}, "#/RetentionInDays: 2 is not a valid enum value"),
    "repository": (
        "AWS::ECR::Repository",
        {"RepositoryPolicyText": {"Statement": [{"Effect": "Allow", "Action": "ecr:*"}]}},
        "Invalid repository policy provided",
    ),
    "key": (
        "AWS::KMS::Key",
        {"KeyPolicy": {"Statement": [{"Effect": "Allow", "Principal": {"Service": "logs.amazonaws.com"}, **ANY}]}},
        "will not allow you to update the key policy",
    ),
    "role": (
        "AWS::IAM::Role",
        {
            "AssumeRolePolicyDocument": json.loads(TRUST),
            "Policies": [{"PolicyName": "P", "PolicyDocument": json.loads(inline(size=11_000)["PolicyDocument"])}],
        },
        "Maximum policy size of 10240 bytes exceeded",
    ),
    "policy": (
        "AWS::IAM::Policy",
        {
            "PolicyName": "Q",
            "Roles": ["execution-of-schedules"],
            "PolicyDocument": json.loads(inline(size=11_000)["PolicyDocument"]),
        },
        "Maximum policy size of 10240 bytes exceeded for role execution-of-schedules",
    ),
    "subscription": (
        "AWS::SNS::Subscription",
        {"TopicArn": f"arn:aws:sns:{REGION}:{ACCOUNT}:absent", "Protocol": "email", "Endpoint": "a@b.example"},
        "Topic does not exist",
    ),
    "scaling": (
        "AWS::ApplicationAutoScaling::ScalingPolicy",
        {
            "PolicyName": "P",
            "ScalingTargetId": "endpoint/scaled/variant/A|sagemaker:variant:DesiredInstanceCount|sagemaker",
            **tracking("ECSServiceAverageCPUUtilization"),
        },
        "ECSServiceAverageCPUUtilization is not supported",
    ),
}


def test_a_template_meets_the_same_rules(world: World) -> None:
    for name, (kind, properties, message) in TEMPLATES.items():
        template = {"Resources": {"It": {"Type": kind, "Properties": properties}}}
        assert deploy(world.aws, f"ruled-{name}", template)["StackStatus"] == "ROLLBACK_COMPLETE", name
        reasons = [why for _, status, why in events(world.aws, f"ruled-{name}") if status == "CREATE_FAILED"]
        assert len(reasons) == 1
        assert message in reasons[0]


def test_a_role_s_inline_policies_and_a_function_s_enumerations_of_a_template_are_checked(world: World) -> None:
    role = {"Type": "AWS::IAM::Role", "Properties": {"AssumeRolePolicyDocument": json.loads(TRUST)}}
    faulty = [{"PolicyName": "P", "PolicyDocument": json.loads(inline(Resource="b/*")["PolicyDocument"])}]
    of_lambda = f"{ROLE}-of-functions"
    function = {"Code": {"ZipFile": "x"}, "Handler": "a.b", "Role": of_lambda, "Runtime": "python3.12"}
    machine = {"RoleArn": f"{ROLE}-of-machines", "DefinitionString": OTHERS["create_state_machine"]["definition"]}
    templates: dict[str, tuple[Json, str]] = {
        "policies": ({**role, "Properties": {**role["Properties"], "Policies": faulty}}, "must be in ARN format"),
        "architectures": (
            {"Type": "AWS::Lambda::Function", "Properties": {**function, "Architectures": ["amd64"]}},
            "#/Architectures/0: amd64 is not a valid enum value",
        ),
        "tracing": (
            {"Type": "AWS::Lambda::Function", "Properties": {**function, "TracingConfig": {"Mode": "On"}}},
            "#/TracingConfig/Mode: On is not a valid enum value",
        ),
        "kind": (
            {"Type": "AWS::StepFunctions::StateMachine", "Properties": {**machine, "StateMachineType": "FAST"}},
            "#/StateMachineType: FAST is not a valid enum value",
        ),
        "state": (
            {"Type": "AWS::Events::Rule", "Properties": {"ScheduleExpression": "rate(1 day)", "State": "ON"}},
            "#/State: ON is not a valid enum value",
        ),
    }
    for name, (resource, message) in templates.items():
        assert (
            deploy(world.aws, f"formed-{name}", {"Resources": {"It": resource}})["StackStatus"] == "ROLLBACK_COMPLETE"
        )
        assert any(message in why for _, _, why in events(world.aws, f"formed-{name}")), name


def test_cloudformation_repeats_what_is_throttled_and_waits_for_a_new_role(world: World) -> None:
    trusted = {"AssumeRolePolicyDocument": json.loads(TRUST)}
    served = {"ExecutionRoleArn": {"Fn::GetAtt": ["Role", "Arn"]}, "PrimaryContainer": {"Image": IMAGE}}
    resources = {
        "Role": {"Type": "AWS::IAM::Role", "Properties": trusted},
        "Model": {"Type": "AWS::SageMaker::Model", "Properties": served},
    }
    world.scenario(throttled={"sagemaker:CreateModel": 10}, role_seconds=0.5)
    assert deploy(world.aws, "repeated", {"Resources": resources})["StackStatus"] == "CREATE_COMPLETE"
    world.scenario(throttled={"sagemaker:CreateModel": 11}, role_seconds=0)
    assert deploy(world.aws, "throttled", {"Resources": resources})["StackStatus"] == "ROLLBACK_COMPLETE"
    met = json.loads(world.aws.request("GET", "/_embedded/scenarios").body)["met"]
    assert met["throttled: sagemaker:CreateModel"] == 21
    assert met["role_seconds"] >= 1
    world.calm()


# scenarios


def test_too_many_calls_are_refused_as_often_as_asked_and_sdks_repeat_them(world: World) -> None:
    describe: Callable[..., Any] = world.client("sagemaker").describe_endpoint
    world.scenario(throttled={"sagemaker:DescribeEndpoint": 1})
    assert describe(EndpointName="served")["EndpointName"] == "served"  # at the client's second attempt
    world.scenario(throttled={"sagemaker:DescribeEndpoint": 2})
    with pytest.raises(ClientError, match="Rate exceeded") as caught:
        describe(EndpointName="served")
    assert caught.value.response["Error"]["Code"] == "ThrottlingException"
    assert describe(EndpointName="served")["EndpointName"] == "served"
    world.calm()


def test_a_role_that_is_new_is_not_known_for_some_seconds(world: World) -> None:
    world.aws.create_role("newcomer", "sagemaker.amazonaws.com")
    arn = f"arn:aws:iam::{ACCOUNT}:role/newcomer"
    world.scenario(role_seconds=3600)
    with pytest.raises(ClientError, match=f"Could not assume role {arn}"):
        world.client("sagemaker").create_model(ModelName="newcomer", **model(ExecutionRoleArn=arn))
    world.calm()
    world.client("sagemaker").create_model(ModelName="newcomer", **model(ExecutionRoleArn=arn))


def test_a_type_in_short_supply_fails_the_endpoint_and_a_pool_goes_on_to_the_next(world: World) -> None:
    sagemaker = world.client("sagemaker")
    world.scenario(shortages=["ml.m5.2xlarge"])
    for name, given in {
        "scarce": config(variant(InstanceType="ml.m5.2xlarge")),
        "pooled": config(pools(("ml.m5.xlarge", 2), ("ml.m5.2xlarge", 1))),
        "scarce-pool": config(pools(("ml.m5.2xlarge", 1))),
    }.items():
        sagemaker.create_endpoint_config(EndpointConfigName=name, **given)
        sagemaker.create_endpoint(EndpointName=name, EndpointConfigName=name)
    for name in ("scarce", "scarce-pool"):
        described = sagemaker.describe_endpoint(EndpointName=name)
        assert described["EndpointStatus"] == "Failed"
        assert "InsufficientInstanceCapacity" in described["FailureReason"]
    described = sagemaker.describe_endpoint(EndpointName="pooled")
    assert described["EndpointStatus"] == "InService"
    (pool,) = described["ProductionVariants"][0]["InstancePools"]
    assert (pool["InstanceType"], pool["CurrentInstanceCount"]) == ("ml.m5.xlarge", 1)
    world.calm()


def test_a_scenario_that_there_is_not_is_refused_with_those_that_there_are(world: World) -> None:
    answer = world.aws.request("POST", "/_embedded/scenarios", '{"shortage": []}')
    assert answer.status == 400
    assert b"there is no scenario 'shortage': silent_rollbacks, shortages" in answer.body
