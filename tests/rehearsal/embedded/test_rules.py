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
from tests.support.embedded import ACCOUNT, REGION, Aws, deploy, events, start

Json = dict[str, Any]

ROLE = f"arn:aws:iam::{ACCOUNT}:role/execution"
IMAGE = "registry.invalid/x:1"
GZIP = {"S3DataSource": {"S3Uri": "s3://rules/model.tar.gz", "S3DataType": "S3Object", "CompressionType": "Gzip"}}
VPC = {"SecurityGroupIds": ["sg-1"], "Subnets": ["subnet-1"]}
SERVERLESS = {"MemorySizeInMB": 1024, "MaxConcurrency": 2}
NEEDS = {"MinMemoryRequiredInMb": 1024}
NONE = object()
"""Removes a member."""


def variant(name: str = "A", **changed: Any) -> Json:
    made = {"VariantName": name, "ModelName": "plain", "InstanceType": "ml.m5.xlarge", "InitialInstanceCount": 1}
    return {key: value for key, value in {**made, **changed}.items() if value is not NONE}


def serverless(name: str = "A", **changed: Any) -> Json:
    given = {"InstanceType": NONE, "InitialInstanceCount": NONE, "ServerlessConfig": SERVERLESS, **changed}
    return variant(name, **given)


def config(*variants: Json, **more: Any) -> Json:
    return {"ProductionVariants": list(variants) or [variant()], **more}


def model(**more: Any) -> Json:
    return {"ExecutionRoleArn": ROLE, "PrimaryContainer": {"Image": IMAGE}, **more}


def container(**more: Any) -> Json:
    return model(PrimaryContainer={"Image": IMAGE, **more})


def rolling(size: float, kind: str = "CAPACITY_PERCENT") -> Json:
    batch = {"Type": kind, "Value": size}
    return {"RollingUpdatePolicy": {"MaximumBatchSize": batch, "WaitIntervalInSeconds": 0}}


def blue_green(kind: str = "ALL_AT_ONCE", *, longest: int | None = None, wait: int = 0, **sizes: int) -> Json:
    routing: Json = {"Type": kind, "WaitIntervalInSeconds": wait}
    routing |= {name: {"Type": "CAPACITY_PERCENT", "Value": size} for name, size in sizes.items()}
    policy: Json = {"TrafficRoutingConfiguration": routing}
    return {"BlueGreenUpdatePolicy": {**policy, **({"MaximumExecutionTimeoutInSeconds": longest} if longest else {})}}


@dataclass
class Case:
    """The two requests of a row."""

    rule: str
    operation: str
    refused: Json
    taken: Json
    match: str
    service: str = "sagemaker"
    region: str = REGION
    code: str = "ValidationException"
    scenario: Json = field(default_factory=dict)


def of_config(rule: str, refused: Json, taken: Json, match: str, **more: Any) -> Case:
    return Case(rule, "create_endpoint_config", refused, taken, match, **more)


def of_update(rule: str, refused: Json, taken: Json, match: str) -> Case:
    return Case(rule, "update_endpoint", refused, taken, match)


def component(**more: Any) -> Json:
    return {
        "EndpointName": "shared",
        "VariantName": "A",
        "RuntimeConfig": {"CopyCount": 1},
        "Specification": {"ModelName": "plain", "ComputeResourceRequirements": NEEDS},
        **more,
    }


def in_container(entries: int) -> Json:
    environment = {f"N{number}": "x" for number in range(entries)}
    inner = {"Image": IMAGE, "Environment": environment}
    return component(Specification={"Container": inner, "ComputeResourceRequirements": NEEDS})


def containers(*names: str | None, **more: Any) -> Json:
    named = [{"Image": IMAGE, **({"ContainerHostname": each} if each else {})} for each in names]
    return {"ExecutionRoleArn": ROLE, "Containers": named, **more}


def job(**more: Any) -> Json:
    return {
        "RoleArn": ROLE,
        "AlgorithmSpecification": {"TrainingImage": IMAGE, "TrainingInputMode": "File"},
        "OutputDataConfig": {"S3OutputPath": "s3://rules/out"},
        "ResourceConfig": {"InstanceType": "ml.m5.xlarge", "InstanceCount": 1, "VolumeSizeInGB": 10},
        "StoppingCondition": {"MaxRuntimeInSeconds": 60},
        **more,
    }


def schedule(**more: Any) -> Json:
    target = {"Arn": "arn:aws:scheduler:::aws-sdk:cloudformation:updateStack", "RoleArn": f"{ROLE}-of-schedules"}
    return {
        "ScheduleExpression": "cron(0 8 ? * MON-FRI *)",
        "FlexibleTimeWindow": {"Mode": "OFF"},
        "Target": target,
        **more,
    }


def tracking(metric: str = "SageMakerVariantInvocationsPerInstance", **more: Any) -> Json:
    given = {"TargetValue": 1.0, "PredefinedMetricSpecification": {"PredefinedMetricType": metric}}
    return {"PolicyType": "TargetTrackingScaling", "TargetTrackingScalingPolicyConfiguration": given, **more}


def of_scaling(rule: str, operation: str, refused: Json, taken: Json, match: str, **more: Any) -> Case:
    return Case(rule, operation, refused, taken, match, service="application-autoscaling", **more)


def of_alarm(rule: str, refused: Json, taken: Json, match: str) -> Case:
    code = "ValidationError"
    return Case(rule, "put_metric_alarm", refused, taken, match, service="cloudwatch", code=code)


def of_schedule(rule: str, refused: Json, match: str) -> Case:
    return Case(rule, "create_schedule", schedule(**refused), schedule(), match, service="scheduler")


def inline(size: int = 0, **more: Any) -> Json:
    """An inline policy that has about this many characters."""
    of_action = {"Effect": "Allow", "Action": "s3:GetObject", "Resource": [f"arn:aws:s3:::{'b' * size}/*"], **more}
    document = {"Version": "2012-10-17", "Statement": [of_action]}
    return {"RoleName": "execution-of-schedules", "PolicyName": "P", "PolicyDocument": json.dumps(document)}


def pools(*pairs: tuple[str, int]) -> Json:
    return variant(InstanceType=NONE, InstancePools=[{"InstanceType": kind, "Priority": each} for kind, each in pairs])


TRUST = json.dumps(
    {
        "Version": "2012-10-17",
        "Statement": [
            {"Effect": "Allow", "Principal": {"Service": "sagemaker.amazonaws.com"}, "Action": "sts:AssumeRole"}
        ],
    }
)
ANY = {"Action": "kms:*", "Resource": "*"}
MANAGED = {"Status": "ENABLED", "MinInstanceCount": 1, "MaxInstanceCount": 2}
GPU_IMAGE = "al2-ami-sagemaker-inference-gpu-3-1"

CASES = [
    Case("role exists", "create_model", model(ExecutionRoleArn=f"{ROLE}-2"), model(), "Could not assume role"),
    of_config(
        "role exists",
        config(variant(ModelName=NONE), ExecutionRoleArn=f"{ROLE}-2"),
        config(variant(ModelName=NONE), ExecutionRoleArn=ROLE),
        "Could not assume role",
    ),
    Case(
        "model data exists",
        "create_model",
        container(ModelDataUrl="s3://rules/absent.tar.gz"),
        container(ModelDataUrl="s3://rules/model.tar.gz"),
        "Could not find model data at s3://rules/absent.tar.gz",
    ),
    Case(
        "model data exists",
        "create_model",
        container(ModelDataSource={"S3DataSource": {**GZIP["S3DataSource"], "S3Uri": "s3://no-such/model.tar.gz"}}),
        container(ModelDataSource=GZIP),
        "Could not find model data at s3://no-such/model.tar.gz",
    ),
    Case(
        "model data's form",
        "create_model",
        container(ModelDataSource={"S3DataSource": {**GZIP["S3DataSource"], "S3DataType": "S3Prefix"}}),
        container(ModelDataSource=GZIP),
        "must end with a forward slash",
    ),
    Case(
        "size of the environment",
        "create_model",
        container(Environment={f"N{number}": "x" * 1000 for number in range(33)}),
        container(Environment={f"N{number}": "x" * 1000 for number in range(32)}),
        "the limit is 32768",
    ),
    Case(
        "one kind of containers",
        "create_model",
        model(Containers=[{"Image": IMAGE}]),
        model(),
        "either PrimaryContainer or Containers",
    ),
    of_config("variant names", config(variant(), variant()), config(variant(), variant("B")), "Duplicate variant"),
    of_config(
        "shadow variants",
        config(variant(), variant("B"), ShadowProductionVariants=[variant("C")]),
        config(variant(), ShadowProductionVariants=[variant("C")]),
        "one shadow variant",
    ),
    of_config(
        "host image and instance type",
        config(variant(InferenceAmiVersion=GPU_IMAGE)),
        config(variant(InferenceAmiVersion=GPU_IMAGE, InstanceType="ml.g5.xlarge")),
        "not supported for instance type ml.m5.xlarge",
    ),
    of_config(
        "host image and instance type",
        config(variant(InferenceAmiVersion=GPU_IMAGE, InstanceType="ml.p6-b200.48xlarge")),
        config(
            variant(InferenceAmiVersion="al2023-ami-sagemaker-inference-gpu-4-1", InstanceType="ml.p6-b200.48xlarge")
        ),
        "not supported for instance type ml.p6-b200.48xlarge",
    ),
    of_config(
        "volume and local storage",
        config(variant(InstanceType="ml.g5.xlarge", VolumeSizeInGB=100)),
        config(variant(InstanceType="ml.m5.xlarge", VolumeSizeInGB=100)),
        "VolumeSizeInGB is not supported for instance type ml.g5.xlarge",
    ),
    of_config(
        "volume key and local storage",
        config(variant(InstanceType="ml.m5d.xlarge"), KmsKeyId="alias/mine"),
        config(variant(), KmsKeyId="alias/mine"),
        "KmsKeyId is not supported for instance type ml.m5d.xlarge",
    ),
    of_config("serverless excludes", config(serverless(), variant("B")), config(serverless()), "one production"),
    of_config(
        "serverless excludes",
        config(serverless(ModelName="in-vpc")),
        config(serverless()),
        "VpcConfig of model in-vpc is not supported",
    ),
    of_config(
        "serverless excludes",
        config(serverless(ModelName="isolated")),
        config(serverless()),
        "EnableNetworkIsolation is not supported",
    ),
    of_config(
        "serverless excludes",
        config(
            serverless(),
            DataCaptureConfig={
                "InitialSamplingPercentage": 1,
                "DestinationS3Uri": "s3://rules/x",
                "CaptureOptions": [{"CaptureMode": "Input"}],
            },
        ),
        config(serverless()),
        "DataCaptureConfig is not supported",
    ),
    of_config("serverless excludes", config(serverless(VolumeSizeInGB=5)), config(serverless()), "VolumeSizeInGB"),
    of_config(
        "serverless sizes",
        config(serverless(ServerlessConfig={**SERVERLESS, "MemorySizeInMB": 1500})),
        config(serverless(ServerlessConfig={**SERVERLESS, "MemorySizeInMB": 2048})),
        "1 GB increments",
    ),
    of_config(
        "serverless sizes",
        config(serverless(ServerlessConfig={**SERVERLESS, "ProvisionedConcurrency": 3})),
        config(serverless(ServerlessConfig={**SERVERLESS, "ProvisionedConcurrency": 2})),
        "less than or equal to MaxConcurrency 2",
    ),
    of_config(
        "serverless model data",
        config(serverless(ModelName="by-source")),
        config(serverless()),
        "ModelDataSource of model by-source",
    ),
    of_config("something to run on", config(variant(InstanceType=NONE)), config(variant()), "needs an InstanceType"),
    of_config(
        "instance pools differ",
        config(pools(("ml.m5.xlarge", 1), ("ml.m5.2xlarge", 1))),
        config(pools(("ml.m5.xlarge", 1), ("ml.m5.2xlarge", 2))),
        "must differ in Priority",
    ),
    of_config(
        "managed instance scaling",
        config(variant(ManagedInstanceScaling=MANAGED)),
        config(variant(ModelName=NONE, ManagedInstanceScaling=MANAGED), ExecutionRoleArn=ROLE),
        "only supported for inference component endpoints",
    ),
    of_config(
        "scale to zero by region",
        config(
            variant(ModelName=NONE, ManagedInstanceScaling={**MANAGED, "MinInstanceCount": 0}), ExecutionRoleArn=ROLE
        ),
        config(variant(ModelName=NONE, ManagedInstanceScaling=MANAGED), ExecutionRoleArn=ROLE),
        "Min instance count needs to be greater than 0",
        region="eu-west-3",
    ),
    of_config(
        "role of components",
        config(variant(ModelName=NONE)),
        config(variant(ModelName=NONE), ExecutionRoleArn=ROLE),
        "ExecutionRoleArn is required",
    ),
    of_config(
        "buckets exist",
        config(AsyncInferenceConfig={"OutputConfig": {"S3OutputPath": "s3://no-such/out"}}),
        config(AsyncInferenceConfig={"OutputConfig": {"S3OutputPath": "s3://rules/out"}}),
        "bucket does not exist: s3://no-such/out",
    ),
    of_update(
        "rolling batch",
        {"EndpointConfigName": "four", "DeploymentConfig": rolling(3, "INSTANCE_COUNT")},
        {"EndpointConfigName": "four", "DeploymentConfig": rolling(2, "INSTANCE_COUNT")},
        "3 .INSTANCE_COUNT. is 75% of variant A, and must be 5% to 50%",
    ),
    of_update(
        "rolling batch",
        {"EndpointConfigName": "four", "DeploymentConfig": rolling(4)},
        {"EndpointConfigName": "four", "DeploymentConfig": rolling(5)},
        "must be 5% to 50%",
    ),
    of_update(
        "canary",
        {"EndpointConfigName": "four", "DeploymentConfig": blue_green("CANARY", CanarySize=51)},
        {"EndpointConfigName": "four", "DeploymentConfig": blue_green("CANARY", CanarySize=50)},
        "at most 50%",
    ),
    of_update(
        "linear step",
        {"EndpointConfigName": "four", "DeploymentConfig": blue_green("LINEAR", LinearStepSize=9)},
        {"EndpointConfigName": "four", "DeploymentConfig": blue_green("LINEAR", LinearStepSize=10)},
        "must be 10% to 50%",
    ),
    of_update(
        "size of the routing",
        {"EndpointConfigName": "four", "DeploymentConfig": blue_green("CANARY")},
        {"EndpointConfigName": "four", "DeploymentConfig": blue_green("CANARY", CanarySize=10)},
        "CanarySize is required",
    ),
    of_update(
        "one update policy",
        {"EndpointConfigName": "four", "DeploymentConfig": {**blue_green(), **rolling(10)}},
        {"EndpointConfigName": "four", "DeploymentConfig": rolling(10)},
        "only one of",
    ),
    of_update(
        "rolling excludes",
        {"EndpointConfigName": "two-variants", "DeploymentConfig": rolling(10)},
        {"EndpointConfigName": "four", "DeploymentConfig": rolling(10)},
        "several production variants",
    ),
    of_update(
        "variant names of an update",
        {"EndpointConfigName": "other-name", "DeploymentConfig": blue_green()},
        {"EndpointConfigName": "four", "DeploymentConfig": blue_green()},
        "must have the same variant name",
    ),
    of_update(
        "alarms exist",
        {
            "EndpointConfigName": "four",
            "DeploymentConfig": {**blue_green(), "AutoRollbackConfiguration": {"Alarms": [{"AlarmName": "absent"}]}},
        },
        {
            "EndpointConfigName": "four",
            "DeploymentConfig": {**blue_green(), "AutoRollbackConfiguration": {"Alarms": [{"AlarmName": "rules"}]}},
        },
        "Alarm absent of AutoRollbackConfiguration was not found",
    ),
    of_update(
        "time of an update",
        {"EndpointConfigName": "four", "DeploymentConfig": blue_green(longest=600, wait=600)},
        {"EndpointConfigName": "four", "DeploymentConfig": blue_green(longest=601, wait=600)},
        "must be larger than the waits",
    ),
    of_update(
        "present configuration",
        {"EndpointName": "orphan", "EndpointConfigName": "four"},
        {"EndpointConfigName": "four"},
        "Could not find endpoint configuration .*endpoint-config/gone",
    ),
    of_update(
        "retained properties",
        {
            "EndpointConfigName": "four",
            "RetainAllVariantProperties": True,
            "ExcludeRetainedVariantProperties": [{"VariantPropertyType": "DataCaptureConfig"}],
        },
        {
            "EndpointConfigName": "four",
            "RetainAllVariantProperties": True,
            "ExcludeRetainedVariantProperties": [{"VariantPropertyType": "DesiredWeight"}],
        },
        "DataCaptureConfig is not currently supported",
    ),
    Case(
        "a variant's capacity once",
        "update_endpoint_weights_and_capacities",
        {"EndpointName": "served", "DesiredWeightsAndCapacities": [{"VariantName": "A"}, {"VariantName": "A"}]},
        {"EndpointName": "served", "DesiredWeightsAndCapacities": [{"VariantName": "A"}]},
        "more than once",
    ),
    Case(
        "quota",
        "create_endpoint",
        {"EndpointConfigName": "gpu"},
        {"EndpointConfigName": "four"},
        "'ml.g5.xlarge for endpoint usage' is 0 Instances, with current utilization of 0 .* a request delta of 1",
        code="ResourceLimitExceeded",
        scenario={"quotas": {"ml.g5.xlarge": 0}},
    ),
    Case("a component's environment", "create_inference_component", in_container(17), in_container(16), "up to 16"),
    Case(
        "a component's variant",
        "create_inference_component",
        component(VariantName="B"),
        component(),
        "Could not find variant B",
    ),
    Case(
        "a component's model",
        "create_inference_component",
        component(Specification={"ModelName": "plain", "Container": {"Image": IMAGE}}),
        component(),
        "and not both",
    ),
    Case(
        "role exists",
        "create_model",
        model(ExecutionRoleArn=f"{ROLE}-of-schedules"),
        model(),
        "allows principal 'sagemaker.amazonaws.com' to assume the role",
    ),
    Case("role exists", "create_training_job", job(RoleArn=f"{ROLE}-2"), job(), "Could not assume role"),
    Case("names of containers", "create_model", containers("a", None), containers("a", "b"), "every container"),
    Case("names of containers", "create_model", containers("a", "a"), containers(None, None), "must be unique: a, a"),
    Case(
        "names of containers",
        "create_model",
        containers(None, None, InferenceExecutionConfig={"Mode": "Direct"}),
        containers("a", "b", InferenceExecutionConfig={"Mode": "Direct"}),
        "the Mode is Direct",
    ),
    Case(
        "data of several models",
        "create_model",
        container(Mode="MultiModel", ModelDataSource=GZIP),
        container(Mode="SingleModel", ModelDataSource=GZIP),
        "not supported for containers of Mode MultiModel",
    ),
    Case(
        "tags",
        "create_model",
        model(Tags=[{"Key": "a", "Value": "1"}, {"Key": "a", "Value": "2"}]),
        model(Tags=[{"Key": "a", "Value": "1"}, {"Key": "A", "Value": "1"}]),
        "Tag keys must be unique per resource: a",
    ),
    Case(
        "tags",
        "create_training_job",
        job(Tags=[{"Key": "aws:a", "Value": "1"}]),
        job(Tags=[{"Key": "laws:a", "Value": "1"}]),
        "keys that begin with aws: are reserved",
    ),
    Case(
        "a component's copies",
        "create_inference_component",
        component(RuntimeConfig={"CopyCount": 0}),
        component(),
        "copy count an integer larger than 0",
    ),
    Case(
        "a component's resources",
        "create_inference_component",
        component(Specification={"ModelName": "plain"}),
        component(),
        "ComputeResourceRequirements is required",
    ),
    Case(
        "a component's resources",
        "create_inference_component",
        component(
            Specification={
                "ModelName": "plain",
                "ComputeResourceRequirements": {**NEEDS, "MaxMemoryRequiredInMb": 1023},
            }
        ),
        component(
            Specification={
                "ModelName": "plain",
                "ComputeResourceRequirements": {**NEEDS, "MaxMemoryRequiredInMb": 1024},
            }
        ),
        "must be at least MinMemoryRequiredInMb 1024",
    ),
    Case(
        "a component's endpoint",
        "create_inference_component",
        component(EndpointName="served"),
        component(),
        "can host no inference components",
    ),
    Case(
        "a training job's volume",
        "create_training_job",
        job(ResourceConfig={"InstanceType": "ml.m5.xlarge", "InstanceCount": 1}),
        job(ResourceConfig={"InstanceType": "ml.g5.xlarge", "InstanceCount": 1}),
        "VolumeSizeInGB is required for instance type ml.m5.xlarge",
    ),
    Case(
        "a training job's volume",
        "create_training_job",
        job(ResourceConfig={"InstanceType": "ml.g5.xlarge", "InstanceCount": 1, "VolumeKmsKeyId": "alias/mine"}),
        job(
            ResourceConfig={
                "InstanceType": "ml.m5.xlarge",
                "InstanceCount": 1,
                "VolumeSizeInGB": 10,
                "VolumeKmsKeyId": "alias/mine",
            }
        ),
        "VolumeKmsKeyId is not supported for instance type ml.g5.xlarge",
    ),
    Case(
        "inline policy",
        "put_role_policy",
        inline(Principal="*"),
        inline(),
        "Policy document should not specify a principal",
        service="iam",
        code="MalformedPolicyDocument",
    ),
    Case(
        "size of inline policies",
        "put_role_policy",
        {**inline(size=10_000), "PolicyName": "Q"},  # with what the role has already
        {**inline(size=9_000), "PolicyName": "Q"},
        "Maximum policy size of 10240 bytes exceeded for role execution-of-schedules",
        service="iam",
        code="LimitExceeded",
    ),
    Case(
        "size of a trust policy",
        "create_role",
        {"AssumeRolePolicyDocument": TRUST.replace('"Effect"', f'"Sid": "{"a" * 2000}", "Effect"')},
        {"AssumeRolePolicyDocument": TRUST.replace('"Effect"', f'"Sid": "{"a" * 1800}", "Effect"')},
        "Cannot exceed quota for ACLSizePerRole: 2048",
        service="iam",
        code="LimitExceeded",
    ),
    Case(
        "trust policy",
        "create_role",
        {"AssumeRolePolicyDocument": TRUST.replace('{"Service": "sagemaker.amazonaws.com"}', f'{{"AWS": "{ROLE}-2"}}')},
        {"AssumeRolePolicyDocument": TRUST.replace('{"Service": "sagemaker.amazonaws.com"}', f'{{"AWS": "{ROLE}"}}')},
        'Invalid principal in policy: "AWS":".*execution-2"',
        service="iam",
        code="MalformedPolicyDocument",
    ),
    of_schedule("a schedule's expression", {"ScheduleExpression": "cron(0 24 * * ? *)"}, "Invalid Schedule Expression"),
    of_schedule("a schedule's expression", {"ScheduleExpression": "every day"}, "Invalid Schedule Expression every"),
    of_schedule(
        "a schedule's role",
        {"Target": {**schedule()["Target"], "RoleArn": ROLE}},
        "must allow AWS EventBridge Scheduler to assume the role",
    ),
    of_schedule(
        "a schedule's window", {"FlexibleTimeWindow": {"Mode": "FLEXIBLE"}}, "MaximumWindowInMinutes is required"
    ),
    Case(
        "a state machine's role",
        "create_state_machine",
        {"roleArn": ROLE},
        {"roleArn": f"{ROLE}-of-machines"},
        "is authorized to assume the provided role",
        service="stepfunctions",
        code="AccessDeniedException",
    ),
    Case(
        "a function's role",
        "create_function",
        {"Role": ROLE},
        {"Role": f"{ROLE}-of-functions"},
        "The role defined for the function cannot be assumed by Lambda",
        service="lambda",
        code="InvalidParameterValueException",
    ),
    Case(
        "a key's policy",
        "create_key",
        {"Policy": json.dumps({"Version": "2012-10-17", "Statement": [{**json.loads(TRUST)["Statement"][0], **ANY}]})},
        {},
        "will not allow you to update the key policy in the future",
        service="kms",
        code="MalformedPolicyDocumentException",
    ),
    Case(
        "a repository's policy",
        "set_repository_policy",
        {"policyText": json.dumps({"Version": "2012-10-17", "Statement": [{"Effect": "Allow", "Action": "ecr:*"}]})},
        {"policyText": json.dumps({"Statement": [{"Effect": "Allow", "Principal": "*", "Action": "ecr:*"}]})},
        "Invalid repository policy provided",
        service="ecr",
        code="InvalidParameterException",
    ),
    of_scaling(
        "first capacity",
        "register_scalable_target",
        {"ResourceId": "endpoint/unscaled/variant/A", "MinCapacity": 1},
        {"ResourceId": "endpoint/scaled/variant/A", "MinCapacity": 1},
        "MaxCapacity is required when registering",
    ),
    of_scaling(
        "scalable target exists",
        "put_scaling_policy",
        tracking(ResourceId="endpoint/unscaled/variant/A"),
        tracking(),
        "No scalable target registered for service namespace: sagemaker, resource ID: endpoint/unscaled/variant/A",
        code="ObjectNotFoundException",
    ),
    of_scaling(
        "scheduled target exists",
        "put_scheduled_action",
        {"ResourceId": "endpoint/unscaled/variant/A"},
        {},
        "No scalable target registered for service namespace: sagemaker, resource ID: endpoint/unscaled/variant/A",
        code="ObjectNotFoundException",
    ),
    of_scaling("scaling policy", "put_scaling_policy", {"PolicyType": "StepScaling"}, tracking(), "is required for"),
    of_scaling(
        "scaling policy",
        "put_scaling_policy",
        tracking("ECSServiceAverageCPUUtilization"),
        tracking("SageMakerVariantConcurrentRequestsPerModelHighResolution"),
        "ECSServiceAverageCPUUtilization is not supported for the scalable dimension",
    ),
    of_scaling(
        "scaling policy",
        "put_scaling_policy",
        tracking(TargetTrackingScalingPolicyConfiguration={"TargetValue": 1.0}),
        tracking(),
        "either a predefined metric or a customized metric",
    ),
    of_scaling(
        "scheduled action",
        "put_scheduled_action",
        {"Schedule": "every day"},
        {"Schedule": "cron(0 8 ? * MON-FRI *)", "Timezone": "Europe/Zurich"},
        "Schedule expression every day is invalid",
    ),
    of_scaling(
        "scheduled action",
        "put_scheduled_action",
        {"Schedule": "rate(1 day)", "Timezone": "Mars/One"},
        {"Schedule": "rate(1 day)"},
        "The time zone Mars/One is invalid",
    ),
    of_alarm(
        "an alarm's metric",
        {"Period": 60, "EvaluationPeriods": 1, "ExtendedStatistic": "p90"},
        {"Period": 60, "EvaluationPeriods": 1},
        "either Statistic or ExtendedStatistic",
    ),
    of_alarm(
        "an alarm's metric",
        {"Period": 60, "EvaluationPeriods": 1, "Metrics": [{"Id": "a", "Expression": "1"}]},
        {"Period": 60, "EvaluationPeriods": 1},
        "either MetricName or Metrics",
    ),
    of_alarm(
        "an alarm's missing data",
        {"Period": 60, "EvaluationPeriods": 1, "TreatMissingData": "sometimes"},
        {"Period": 60, "EvaluationPeriods": 1, "TreatMissingData": "notBreaching"},
        "sometimes must be one of breaching",
    ),
    Case(
        "retention of a log group",
        "put_retention_policy",
        {"retentionInDays": 2},
        {"retentionInDays": 3},
        "retentionInDays 2 must be one of 1, 3, 5",
        service="logs",
        code="InvalidParameterException",
    ),
    Case(
        "capacity",
        "register_scalable_target",
        {"MinCapacity": 3, "MaxCapacity": 2},
        {"MinCapacity": 2, "MaxCapacity": 3},
        "Maximum capacity cannot be less than minimum capacity",
        service="application-autoscaling",
    ),
    Case(
        "an alarm's window",
        "put_metric_alarm",
        {"Period": 3600, "EvaluationPeriods": 169},
        {"Period": 3600, "EvaluationPeriods": 168},
        "more than seven days",
        service="cloudwatch",
        code="ValidationError",
    ),
    Case(
        "an alarm's window",
        "put_metric_alarm",
        {"Period": 90, "EvaluationPeriods": 1},
        {"Period": 120, "EvaluationPeriods": 1},
        "multiple of 60",
        service="cloudwatch",
        code="ValidationError",
    ),
    Case(
        "permissions boundary exists",
        "create_role",
        {"AssumeRolePolicyDocument": TRUST, "PermissionsBoundary": f"arn:aws:iam::{ACCOUNT}:policy/absent"},
        {"AssumeRolePolicyDocument": TRUST, "PermissionsBoundary": f"arn:aws:iam::{ACCOUNT}:policy/boundary"},
        "policy/absent does not exist or is not attachable",
        service="iam",
        code="NoSuchEntity",
    ),
    Case(
        "trust policy",
        "create_role",
        {"AssumeRolePolicyDocument": TRUST.replace("Principal", "Principle")},
        {"AssumeRolePolicyDocument": TRUST},
        "Missing required field Principal",
        service="iam",
        code="MalformedPolicyDocument",
    ),
    Case(
        "a key for a log group",
        "create_log_group",
        {"kmsKeyId": "closed"},
        {"kmsKeyId": "open"},
        "does not exist or is not allowed to be used with Arn",
        service="logs",
        code="InvalidParameterException",
    ),
]


def test_every_rule_of_the_table_has_a_case_here_and_a_source() -> None:
    assert {case.rule for case in CASES} == {rule.name for rule in RULES}
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
    "put_scaling_policy": "PolicyName",
    "put_scheduled_action": "ScheduledActionName",
}
SCALED = {
    "ServiceNamespace": "sagemaker",
    "ResourceId": "endpoint/scaled/variant/A",
    "ScalableDimension": "sagemaker:variant:DesiredInstanceCount",
}
OTHERS: dict[str, Json] = {
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
    clients: dict[tuple[str, str], Any] = field(default_factory=dict)

    def client(self, service: str, region: str = REGION) -> Any:
        if (service, region) not in self.clients:
            self.clients[service, region] = boto3.client(
                service,
                region_name=region,
                endpoint_url=self.aws.url,
                aws_access_key_id="testing",
                aws_secret_access_key="testing",
                config=Config(retries={"max_attempts": 1, "mode": "standard"}, parameter_validation=False),
            )
        return self.clients[service, region]

    def scenario(self, **wanted: Any) -> None:
        answer = self.aws.request("POST", "/_embedded/scenarios", json.dumps(wanted))
        assert answer.status == 200, answer.body

    def calm(self) -> None:
        self.aws.request("DELETE", "/_embedded/scenarios")

    def call(self, case: Case, request: Json, name: str) -> None:
        given = {**OTHERS.get(case.operation, {}), **copy.deepcopy(request)}
        if case.operation in NAMES:
            given[NAMES[case.operation]] = name
        if case.operation == "update_endpoint":
            given.setdefault("EndpointName", "served")
        if "kmsKeyId" in given:
            given["kmsKeyId"] = self.keys[given["kmsKeyId"]]
        getattr(self.client(case.service, case.region), case.operation)(**given)


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
    for region in (REGION, "eu-west-3"):
        made.client("sagemaker", region).create_model(ModelName="plain", **model())
    sagemaker = made.client("sagemaker")
    sagemaker.create_model(ModelName="in-vpc", **model(VpcConfig=VPC))
    sagemaker.create_model(ModelName="isolated", **model(EnableNetworkIsolation=True))
    sagemaker.create_model(ModelName="by-source", **container(ModelDataSource=GZIP))
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
    running.create_role("execution-of-machines", "states.amazonaws.com")
    scaled = {**SCALED, "MinCapacity": 1, "MaxCapacity": 2}
    made.client("application-autoscaling").register_scalable_target(**scaled)
    made.client("logs").create_log_group(logGroupName="rules")
    made.client("ecr").create_repository(repositoryName="rules")
    kms = made.client("kms")
    for name, policy in {"closed": key_policy(), "open": key_policy(LOGS)}.items():
        made.keys[name] = kms.create_key(Policy=policy)["KeyMetadata"]["Arn"]
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
    "config": (
        "AWS::SageMaker::EndpointConfig",
        config(variant(InstanceType="ml.g5.xlarge", VolumeSizeInGB="100")),
        "VolumeSizeInGB is not supported for instance type ml.g5.xlarge of variant A",
    ),
    "retention": ("AWS::Logs::LogGroup", {"RetentionInDays": 2}, "retentionInDays 2 must be one of"),
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
