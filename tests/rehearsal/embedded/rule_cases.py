"""The requests of the table of rules: for each row one that AWS refuses, and a similar one that it accepts."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import Any

from tests.support.embedded import ACCOUNT, REGION

Json = dict[str, Any]

ROLE = f"arn:aws:iam::{ACCOUNT}:role/execution"
IMAGE = "registry.invalid/x:1"
GZIP = {"S3DataSource": {"S3Uri": "s3://rules/model.tar.gz", "S3DataType": "S3Object", "CompressionType": "Gzip"}}
VPC = {"SecurityGroupIds": ["sg-1"], "Subnets": ["subnet-1"]}
SERVERLESS = {"MemorySizeInMB": 1024, "MaxConcurrency": 2}
NEEDS = {"MinMemoryRequiredInMb": 1024}
NONE = object()
"""Removes a member."""

CROSS = {"MaxInvocationsPerSecondPerInstance": 1, "MaxCrossRegionPercentPerEndpoint": 1}


def gzipped(key: str) -> Json:
    return {"S3DataSource": {**GZIP["S3DataSource"], "S3Uri": f"s3://rules/{key}"}}


PREFIX: Json = {"PrefixLength": 1024, "ConcurrencyThreshold": 8}


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
    role: str = ""
    """The role whose session makes the calls; without one the administrator makes them."""


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


def partitioned(accelerators: int) -> Json:
    needs = {**NEEDS, "NumberOfAcceleratorDevicesRequired": accelerators, "AcceleratorPartitionType": "mig-3g.40gb"}
    return component(Specification={"ModelName": "plain", "ComputeResourceRequirements": needs})


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
        "prefix-aware routing",
        config(
            variant(
                RoutingConfig={"RoutingStrategy": "PREFIX_AWARE", "PrefixAwareRoutingConfig": {"PrefixLength": 1024}}
            )
        ),
        config(variant(RoutingConfig={"RoutingStrategy": "PREFIX_AWARE", "PrefixAwareRoutingConfig": PREFIX})),
        "ConcurrencyThreshold is required",
    ),
    of_config(
        "prefix-aware routing",
        config(variant(RoutingConfig={"RoutingStrategy": "RANDOM", "PrefixAwareRoutingConfig": PREFIX})),
        config(variant(RoutingConfig={"RoutingStrategy": "RANDOM"})),
        "only supported with",
    ),
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
        "was non-unique within the request",
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
        {**inline(size=10_200), "PolicyName": "Q"},  # with what the role has already
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
        {"ResourceId": "endpoint/shared/variant/A", "MinCapacity": 1},
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
        {"kmsKeyId": "key:closed"},
        {"kmsKeyId": "key:open"},
        "does not exist or is not allowed to be used with Arn",
        service="logs",
        code="InvalidParameterException",
    ),
]


# what a request names elsewhere

DATA = {"S3DataType": "S3Prefix", "S3Uri": "s3://rules/model"}


def channel(*, mode: str | None = None, **source: Any) -> list[Json]:
    """The input of a training job with one channel."""
    given = {"ChannelName": "train", "DataSource": {"S3DataSource": {**DATA, **source}}}
    return [{**given, **({"InputMode": mode} if mode else {})}]


def adapter(base: str = "base", **more: Any) -> Json:
    given = {"Container": {"ArtifactUrl": "s3://rules/model.tar.gz"}, "BaseInferenceComponentName": base, **more}
    return component(Specification={key: value for key, value in given.items() if value is not NONE})


def asynchronous(**more: Any) -> Json:
    return {"AsyncInferenceConfig": {"OutputConfig": {"S3OutputPath": "s3://rules/out", **more}}}


def of_job(rule: str, refused: Json, taken: Json, match: str) -> Case:
    return Case(rule, "create_training_job", job(**refused), job(**taken), match)


def scaled(resource: str, **more: Any) -> Json:
    return {"ResourceId": resource, "MinCapacity": 1, "MaxCapacity": 2, **more}


def of_component(resource: str) -> Json:
    return scaled(resource, ScalableDimension="sagemaker:inference-component:DesiredCopyCount")


def secured(key: str, kind: str = "KMS") -> Json:
    return {"encryptionConfiguration": {"encryptionType": kind, **({"kmsKey": key} if key else {})}}


CASES += [
    Case(
        "model data exists",
        "create_inference_component",
        adapter(Container={"ArtifactUrl": "s3://rules/absent.tar.gz"}),
        adapter(),
        "Could not find model data at s3://rules/absent.tar.gz",
    ),
    Case(
        "model data exists",
        "create_model",
        container(AdditionalModelDataSources=[{"ChannelName": "draft", **gzipped("absent.tar.gz")}]),
        container(AdditionalModelDataSources=[{"ChannelName": "draft", **gzipped("model.tar.gz")}]),
        "Could not find model data at s3://rules/absent.tar.gz",
    ),
    of_job(
        "training data exists",
        {"InputDataConfig": channel(S3Uri="s3://rules/nothing")},
        {"InputDataConfig": channel()},
        'No S3 objects found under S3 URL "s3://rules/nothing" given in input data source',
    ),
    of_job(
        "training data exists",
        {"InputDataConfig": channel(S3Uri="https://s3.us-east-1.amazonaws.com/no-such/model")},
        {"InputDataConfig": channel(S3Uri="https://s3.us-east-1.amazonaws.com/rules/model")},
        'permissions on bucket "no-such"',
    ),
    of_job(
        "augmented manifests",
        {"InputDataConfig": channel(S3DataType="AugmentedManifestFile", S3Uri="s3://rules/model.tar.gz")},
        {"InputDataConfig": channel(S3DataType="AugmentedManifestFile", S3Uri="s3://rules/model.tar.gz", mode="Pipe")},
        "needs the input mode Pipe: it is File",
    ),
    of_job(
        "buckets exist",
        {"OutputDataConfig": {"S3OutputPath": "s3://no-such/out"}},
        {},
        "bucket does not exist: s3://no-such/out",
    ),
    of_job(
        "buckets exist",
        {"CheckpointConfig": {"S3Uri": "s3://no-such/checkpoints"}},
        {"CheckpointConfig": {"S3Uri": "s3://rules/checkpoints"}},
        "bucket does not exist: s3://no-such/checkpoints",
    ),
    Case(
        "one region",
        "create_model",
        container(ModelDataUrl="s3://rules-there/model.tar.gz"),
        container(ModelDataUrl="s3://rules/model.tar.gz"),
        "is in eu-west-3: it must be in us-east-1",
    ),
    of_job(
        "one region",
        {"InputDataConfig": channel(S3Uri="s3://rules-there/model")},
        {"InputDataConfig": channel()},
        "is in eu-west-3: it must be in us-east-1",
    ),
    Case(
        "one region",
        "create_model",
        container(Image=f"{ACCOUNT}.dkr.ecr.eu-west-3.amazonaws.com/rules:1"),
        model(),
        "The image .*rules:1 is in eu-west-3",
    ),
    of_config(
        "keys can be used",
        config(KmsKeyId="alias/absent"),
        config(KmsKeyId="alias/mine"),
        "KmsKeyId alias/absent cannot be used: Alias .*:alias/absent is not found",
    ),
    of_config(
        "keys can be used",
        config(**asynchronous(KmsKeyId="key:disabled")),
        config(**asynchronous(KmsKeyId="key:open")),
        "is disabled",
    ),
    of_job(
        "keys can be used",
        {"OutputDataConfig": {"S3OutputPath": "s3://rules/out", "KmsKeyId": "key:doomed"}},
        {"OutputDataConfig": {"S3OutputPath": "s3://rules/out", "KmsKeyId": "alias/aws/s3"}},
        "is pending deletion",
    ),
    Case(
        "a repository's key",
        "create_repository",
        secured("00000000-0000-0000-0000-000000000000"),
        secured("key:open"),
        "key/00000000-0000-0000-0000-000000000000' does not exist",
        service="ecr",
        code="KmsException",
    ),
    Case(
        "a repository's encryption",
        "create_repository",
        secured("key:open", "AES256"),
        secured("", "AES256"),
        "a kmsKey needs the encryption type KMS",
        service="ecr",
        code="InvalidParameterException",
    ),
    Case(
        "an alias's key",
        "create_alias",
        {"AliasName": "alias/doomed", "TargetKeyId": "key:doomed"},
        {"AliasName": "alias/disabled", "TargetKeyId": "key:disabled"},
        "is pending deletion",
        service="kms",
        code="NotFoundException",
    ),
    Case(
        "an alias's name",
        "create_alias",
        {"AliasName": "alias/aws/mine", "TargetKeyId": "key:open"},
        {"AliasName": "alias/awsome", "TargetKeyId": "key:open"},
        "alias/aws/mine is reserved for keys of AWS",
        service="kms",
        code="NotAuthorizedException",
    ),
    of_scaling(
        "what is scaled exists",
        "register_scalable_target",
        scaled("endpoint/absent/variant/A"),
        scaled("endpoint/scaled/variant/A"),
        "Endpoint absent of endpoint/absent/variant/A not found",
    ),
    of_scaling(
        "what is scaled exists",
        "register_scalable_target",
        scaled("endpoint/scaled/variant/B"),
        scaled("endpoint/scaled/variant/A"),
        "Variant B of endpoint/scaled/variant/B not found: the endpoint has A",
    ),
    of_scaling(
        "what is scaled exists",
        "register_scalable_target",
        of_component("inference-component/absent"),
        scaled("endpoint/scaled/variant/A"),
        "Inference component absent not found",
    ),
    Case("an adapter", "create_inference_component", adapter("absent"), adapter(), "Could not find base inference"),
    Case(
        "an adapter",
        "create_inference_component",
        adapter(ComputeResourceRequirements=NEEDS),
        adapter(),
        "ComputeResourceRequirements is not allowed for an adapter",
    ),
    Case(
        "an adapter",
        "create_inference_component",
        adapter(Container=NONE),
        adapter(),
        "needs the ArtifactUrl of its Container",
    ),
]

# SageMaker

CASES += [
    of_config(
        "shadow variants exclude",
        config(ShadowProductionVariants=[variant("B")], **asynchronous()),
        config(ShadowProductionVariants=[variant("B")]),
        "AsyncInferenceConfig is not supported with ShadowProductionVariants",
    ),
    of_config(
        "shadow variants exclude",
        config(ShadowProductionVariants=[variant("B", InstanceType="ml.inf1.xlarge")]),
        config(ShadowProductionVariants=[variant("B")]),
        "Instance type ml.inf1.xlarge of variant B",
    ),
    of_config(
        "shadow variants exclude",
        config(ShadowProductionVariants=[variant("B", ModelName="several")]),
        config(ShadowProductionVariants=[variant("B")]),
        "The model of variant B hosts several models",
    ),
    of_config(
        "initial instances",
        config(variant(InitialInstanceCount=NONE)),
        config(
            variant(ModelName=NONE, InitialInstanceCount=NONE, ManagedInstanceScaling=MANAGED), ExecutionRoleArn=ROLE
        ),
        "InitialInstanceCount is required for variant A",
    ),
    of_config(
        "other regions' requests",
        config(CrossRegionTrafficConfig=CROSS, **asynchronous()),
        config(CrossRegionTrafficConfig=CROSS),
        "CrossRegionTrafficConfig is not supported with AsyncInferenceConfig",
    ),
    Case(
        "an endpoint's name",
        "create_endpoint",
        {"EndpointName": "SERVED", "EndpointConfigName": "four"},
        {"EndpointConfigName": "four"},
        "Cannot create already existing endpoint .*/served",
    ),
    Case(
        "a component's partition",
        "create_inference_component",
        partitioned(2),
        partitioned(1),
        "AcceleratorPartitionType needs NumberOfAcceleratorDevicesRequired 1: it is 2",
    ),
    of_job(
        "a training job's algorithm",
        {"AlgorithmSpecification": {"TrainingImage": IMAGE, "AlgorithmName": "mine", "TrainingInputMode": "File"}},
        {},
        "either a TrainingImage or an AlgorithmName",
    ),
    of_job(
        "a training job's time",
        {"StoppingCondition": {"MaxRuntimeInSeconds": 28 * 86_400 + 1}},
        {"StoppingCondition": {"MaxRuntimeInSeconds": 28 * 86_400}},
        "which are 28 days",
    ),
]

# the services around it

LONG = {"Version": "2012-10-17", "Statement": [{"Effect": "Allow", "Action": "s3:GetObject", "Resource": "*"}]}


def granting(principal: str, action: str, **changed: Any) -> str:
    """A resource's policy that allows a role an action."""
    allowed = {"Effect": "Allow", "Principal": {"AWS": principal}, "Action": action, "Resource": "*", **changed}
    return json.dumps({"Version": "2012-10-17", "Statement": [allowed]})


def managed(size: int) -> Json:
    """A managed policy of about this many characters."""
    statement = {**LONG["Statement"][0], "Resource": f"arn:aws:s3:::{'b' * size}/*"}
    return {"PolicyDocument": json.dumps({**LONG, "Statement": [statement]})}


def lifecycle(*rules_of: tuple[int, Json]) -> Json:
    counted: Json = {"countType": "imageCountMoreThan", "countNumber": 5}
    rules = [
        {"rulePriority": priority, "selection": {**counted, **selection}, "action": {"type": "expire"}}
        for priority, selection in rules_of
    ]
    return {"lifecyclePolicyText": json.dumps({"rules": rules})}


EVERY, UNTAGGED, TAGGED = {"tagStatus": "any"}, {"tagStatus": "untagged"}, {"tagPrefixList": ["v"]}


def stepping(*bounds: tuple[float | None, float | None]) -> Json:
    names = ("MetricIntervalLowerBound", "MetricIntervalUpperBound")
    steps: list[Json] = [
        {"ScalingAdjustment": 1, **{name: one for name, one in zip(names, each, strict=True) if one is not None}}
        for each in bounds
    ]
    given = {"AdjustmentType": "ChangeInCapacity", "StepAdjustments": steps}
    return {"PolicyType": "StepScaling", "StepScalingPolicyConfiguration": given}


def alarm(**changed: Any) -> Json:
    given = {"Period": 60, "EvaluationPeriods": 1, **changed}
    return {key: None if value is NONE else value for key, value in given.items()}


ANY_METRIC = {"MetricName": NONE, "Namespace": NONE, "Statistic": NONE, "Period": NONE}
QUERIES = [{"Id": "a", "Expression": "1"}]


def counting(**more: Any) -> Json:
    made = {"metricName": "M", "metricNamespace": "N", "metricValue": "1", **more}
    return {"filterPattern": "{ $.a = 1 }", "metricTransformations": [made]}


def machine(**states: Json) -> Json:
    given = {"StartAt": "A", "States": {"A": {"Type": "Pass", "End": True}, **states}}
    return {"definition": json.dumps(given), "roleArn": f"{ROLE}-of-machines"}


HANDLE = "AWS::CloudFormation::WaitConditionHandle"
IT: Json = {"It": {"Type": HANDLE}}


def described(value: Any, **sections: Json) -> Json:
    """A template with this value in a resource."""
    return {"Resources": {"It": {"Type": HANDLE, "Metadata": {"Value": value}}}, **sections}


WITH: Json = {
    "Conditions": {"Yes": {"Fn::Equals": ["a", "a"]}},
    "Mappings": {"Map": {"Key": {"Value": "x"}}},
    "Parameters": {"Given": {"Type": "String", "Default": "x"}},
}
TEMPLATES: list[tuple[str, Json, Json, str]] = [
    (
        "a template's resources",
        {"Resources": IT, "Output": {}},
        {"Resources": IT, "Outputs": {}},
        "properties .Output.",
    ),
    ("a template's resources", {"Resources": {}}, {"Resources": IT}, "At least one Resources member must be defined"),
    ("a template's resources", {"Resources": {"It": {}}}, {"Resources": IT}, "./Resources/It. Every Resources object"),
    (
        "a template's resources",
        {"Resources": {"It": {"Type": "SNS::Topic"}}},
        {"Resources": IT},
        "Unrecognized resource types: .SNS::Topic.",
    ),
    *(
        (
            "a template's resources",
            {"Resources": {**IT, "A": {"Type": refused}}},
            {"Resources": {**IT, "A": {"Type": taken}}},
            f"Unrecognized resource types: .{refused}.",
        )
        for refused, taken in (
            ("AWS::SNS::Topik", "AWS::SNS::Topic"),
            ("AWS::DeviceFarm::Projects", "AWS::DeviceFarm::Project"),  # of one region alone, and not of the first
            ("AWS::Cdk::Metadata", "AWS::CDK::Metadata"),
            ("AWS::Acme::Thing", "Acme::Some::Thing"),
        )
    ),
    *(
        ("a template's outputs", {"Resources": IT, "Outputs": refused}, {"Resources": IT, "Outputs": taken}, match)
        for refused, taken, match in (
            ({"One": {"Description": "x"}}, {"One": {"Value": "x"}}, "must contain a Value object"),
            ({"One": {"Value": ["x"]}}, {"One": {"Value": {"Fn::Join": ["", ["x"]]}}}, "must evaluate to a String"),
            ({"One-1": {"Value": "x"}}, {"One1": {"Value": "x"}}, "Outputs name 'One-1' is non alphanumeric"),
            (
                {"One": {"Value": "x", "Export": {"Name": "a_b"}}},
                {"One": {"Value": "x", "Export": {"Name": "a-b:c"}}},
                "Output One is malformed. The Name field of every Export member must",
            ),
            (
                {"One": {"Value": "x", "Export": {"Name": {"Fn::Sub": "a-${It}"}}}},
                {"One": {"Value": "x", "Export": {"Name": {"Fn::Sub": "a-${AWS::StackName}"}}}},
                "Export must not depend on any resources",
            ),
            (
                {key: {"Value": "x", "Export": {"Name": "twice"}} for key in ("One", "Two")},
                {key: {"Value": "x", "Export": {"Name": key}} for key in ("One", "Two")},
                "contains duplicate Export names: .twice.",
            ),
        )
    ),
    *(
        ("a template's parameters and form", {"Resources": IT, **refused}, {"Resources": IT, **taken}, match)
        for refused, taken, match in (
            (
                {"AWSTemplateFormatVersion": "2012-10-17"},
                {"AWSTemplateFormatVersion": "2010-09-09"},
                "unsupported value for AWSTemplateFormatVersion",
            ),
            ({"Description": "x" * 1025}, {"Description": "x" * 1024}, "length is greater than 1024"),
            *(
                (
                    {"Parameters": {"P": {**wrong, "Default": "x"}}},
                    {"Parameters": {"P": {**right, "Default": "x"}}},
                    match,
                )
                for wrong, right, match in (
                    ({"Type": "Text"}, {"Type": "String"}, "Unrecognized parameter type: Text"),
                    ({"Type": "List<Text>"}, {"Type": "List<String>"}, "Unrecognized parameter type: List<Text>"),
                    (
                        {"Type": "String", "Pattern": "x"},
                        {"Type": "String", "AllowedPattern": "x"},
                        "Invalid template parameter property 'Pattern'",
                    ),
                )
            ),
            (
                {"Parameters": {"P": {"Type": "CommaDelimitedList", "Default": ["x"]}}},
                {"Parameters": {"P": {"Type": "CommaDelimitedList", "Default": "x"}}},
                "Every Default member must be a string",
            ),
            ({"Parameters": {"P_1": {"Type": "String", "Default": "x"}}}, {}, "Parameter name P_1 is non alphanumeric"),
        )
    ),
    *(
        (
            "a template's functions",
            {"Resources": {"A": {"Type": "AWS::SNS::Topic"}}, "Outputs": {"One": {"Value": {"Fn::GetAtt": refused}}}},
            {"Resources": {"A": {"Type": "AWS::SNS::Topic"}}, "Outputs": {"One": {"Value": {"Fn::GetAtt": taken}}}},
            "every Fn::GetAtt object requires two non-empty parameters",
        )
        for refused, taken in ((["A"], ["A", "TopicName"]), (["A", ""], ["A", "TopicArn"]))
    ),
    (
        "a template's parameters and form",
        described(None),
        described("x"),
        "./Resources/It/Metadata/Value. 'null' values are not allowed",
    ),
    *(
        (rule, described(refused, **WITH), described(taken, **WITH), match)
        for rule, refused, taken, match in (
            (
                "a template's functions",
                {"Fn::Joins": ["", []]},
                {"Fn::Join": ["", []]},
                "unsupported function: Fn::Joins",
            ),
            (
                "a template's functions",
                {"Fn::If": ["Yes", "a"]},
                {"Fn::If": ["Yes", "a", "b"]},
                "Fn::If requires a list argument with three elements",
            ),
            (
                "a template's functions",
                {"Fn::Join": [["x"]]},
                {"Fn::Join": ["-", ["x"]]},
                "every Fn::Join object requires two parameters",
            ),
            (
                "a template's functions",
                {"Fn::Select": [2, ["a", "b"]]},
                {"Fn::Select": ["1", ["a", "b"]]},
                "Fn::Select cannot select nonexistent value at index 2",
            ),
            (
                "a template's functions",
                {"Fn::FindInMap": ["Maps", "Key", "Value"]},
                {"Fn::FindInMap": ["Map", "Key", "Value"]},
                "Mapping named 'Maps' is not present",
            ),
            (
                "a template's functions",
                {"Fn::FindInMap": ["Map", "Key", "Other"]},
                {"Fn::FindInMap": ["Map", "Key", "Value"]},
                "Unable to get mapping for Map::Key::Other",
            ),
            (
                "a template's functions",
                {"Fn::FindInMap": ["Map", "Key"]},
                {"Fn::Sub": "x"},
                "requires three parameters",
            ),
            ("a template's references", {"Ref": "Gone"}, {"Ref": "Given"}, ".Gone. in the Resources block"),
            ("a template's references", {"Ref": "AWS::Account"}, {"Ref": "AWS::AccountId"}, ".AWS::Account. in the"),
            ("a template's references", {"Fn::Sub": "${Gone}"}, {"Fn::Sub": "${Given}-${!Gone}"}, ".Gone. in the"),
            (
                "a template's references",
                {"Fn::Sub": ["${Gone}", {"Here": "x"}]},
                {"Fn::Sub": ["${Gone}", {"Gone": "x"}]},
                ".Gone. in the",
            ),
            ("a template's references", {"Fn::GetAtt": ["Given", "Arn"]}, {"Ref": "Given"}, ".Given. in the Resources"),
            (
                "a template's references",
                {"Fn::If": ["No", "a", "b"]},
                {"Fn::If": ["Yes", "a", "b"]},
                "unresolved condition dependency No in Fn::If",
            ),
        )
    ),
    (
        "a template's references",
        {"Resources": IT, "Outputs": {"One": {"Value": {"Ref": "Gone"}}}},
        {"Resources": IT, "Outputs": {"One": {"Value": {"Ref": "It"}}}},
        ".Gone. in the Outputs block",
    ),
    (
        "a template's references",
        {"Resources": IT, "Conditions": {"A": {"Fn::Equals": [{"Ref": "It"}, "a"]}}},
        {"Resources": IT, "Conditions": {"A": {"Fn::Equals": [{"Ref": "AWS::Region"}, "a"]}}},
        "Unresolved dependencies .It.. Cannot reference resources in the Conditions block",
    ),
    (
        "a template's references",
        {"Resources": {"It": {"Type": HANDLE, "Condition": "No"}}, **WITH},
        {"Resources": {"It": {"Type": HANDLE, "Condition": "Yes"}}, **WITH},
        "Unresolved condition dependency No in the Resources block",
    ),
    (
        "a template's references",
        {"Resources": IT, "Conditions": {"A": {"Fn::Not": [{"Condition": "B"}]}}},
        {"Resources": IT, "Conditions": {"A": {"Fn::Not": [{"Condition": "B"}]}, "B": {"Fn::Equals": ["a", "b"]}}},
        "Unresolved condition dependency B in the Conditions block",
    ),
]
TOPIC = f"arn:aws:sns:{REGION}:{ACCOUNT}:rules"


def trusting(**changed: Any) -> str:
    return json.dumps({**json.loads(TRUST), "Statement": [{**json.loads(TRUST)["Statement"][0], **changed}]})


def querying(name: str, expression: str | None = None) -> Json:
    metric = {"Metric": {"Namespace": "N", "MetricName": "M"}, "Period": 60, "Stat": "Sum"}
    queries: list[Json] = [{"Id": name, "MetricStat": metric, "ReturnData": expression is None}]
    return {**ANY_METRIC, "Metrics": [*queries, *([{"Id": "e1", "Expression": expression}] if expression else [])]}


def stack(kind: str = "AWS::IAM::Role", *, capability: str | None = None, **properties: Any) -> Json:
    resource = {"Type": kind, "Properties": {"AssumeRolePolicyDocument": json.loads(TRUST), **properties}}
    given = {"TemplateBody": json.dumps({"Resources": {"It": resource}})}
    return {**given, **({"Capabilities": [capability]} if capability else {})}


def of_service(rule: str, service: str, operation: str, refused: Json, taken: Json, match: str, code: str) -> Case:
    return Case(rule, operation, refused, taken, match, service=service, code=code)


PARAMETER = {"Type": "String", "Value": "x"}

CASES += [
    *(
        of_service(
            "a bucket's name",
            "s3",
            "create_bucket",
            {"Bucket": refused},
            {"Bucket": taken},
            "The specified bucket is not valid",
            "InvalidBucketName",
        )
        for refused, taken in (
            ("Rules", "rules-1"),
            ("ru_les", "ru-les"),
            ("192.168.0.1", "192.168.0.1.a"),
            ("ru..les", "ru.les"),
            ("xn--rules", "xn-rules"),
            ("rules-s3alias", "rules-s3aliases"),
        )
    ),
    of_service(
        "a function's limits",
        "lambda",
        "create_function",
        {"Role": f"{ROLE}-of-functions", "Timeout": 901},
        {"Role": f"{ROLE}-of-functions", "Timeout": 900},
        "Value '901' at 'timeout' failed to satisfy constraint: Member must have value less than or equal to 900",
        "ValidationException",
    ),
    of_service(
        "a function's runtime",
        "lambda",
        "create_function",
        {"Role": f"{ROLE}-of-functions", "Handler": None},
        {"Role": f"{ROLE}-of-functions"},
        "Runtime and Handler are mandatory parameters",
        "InvalidParameterValueException",
    ),
    of_service(
        "a function's environment",
        "lambda",
        "create_function",
        {"Role": f"{ROLE}-of-functions", "Environment": {"Variables": {"AA": "x" * 2_080, "BB": "x" * 2_000}}},
        {"Role": f"{ROLE}-of-functions", "Environment": {"Variables": {"AA": "x" * 2_070, "BB": "x" * 2_000}}},
        "exceeded the 4KB limit",
        "InvalidParameterValueException",
    ),
    of_service(
        "a function's environment",
        "lambda",
        "create_function",
        {"Role": f"{ROLE}-of-functions", "Environment": {"Variables": {"AWS_REGION": "x"}}},
        {"Role": f"{ROLE}-of-functions", "Environment": {"Variables": {"AWS_REGIONS": "x"}}},
        "Reserved keys used in this request: AWS_REGION",
        "InvalidParameterValueException",
    ),
    of_service(
        "a parameter's value",
        "ssm",
        "put_parameter",
        {**PARAMETER, "Value": "x" * 4_097},
        {**PARAMETER, "Value": "x" * 4_097, "Tier": "Advanced"},
        "Standard tier parameters support a maximum parameter value of 4096 characters",
        "ValidationException",
    ),
    of_service(
        "a parameter's value",
        "ssm",
        "put_parameter",
        {**PARAMETER, "Value": "{{ssm:other}}"},
        {**PARAMETER, "Value": "{ssm:other}"},
        "can't nest another parameter",
        "ValidationException",
    ),
    of_service(
        "a secret",
        "secretsmanager",
        "create_secret",
        {"SecretString": "x", "SecretBinary": b"x"},
        {"SecretString": "x"},
        "both a binary secret value and a string secret value",
        "ValidationException",
    ),
    of_service(
        "a secret",
        "secretsmanager",
        "create_secret",
        {"Name": "a secret", "SecretString": "x"},
        {"Name": "a/secret", "SecretString": "x"},
        "Invalid name",
        "ValidationException",
    ),
    of_service(
        "a session's duration",
        "sts",
        "assume_role",
        {"DurationSeconds": 3_601},
        {"DurationSeconds": 3_600},
        "The requested DurationSeconds exceeds the MaxSessionDuration",
        "ValidationError",
    ),
    Case(
        "a chained session's duration",
        "assume_role",
        {"RoleArn": f"{ROLE}-of-long-sessions", "DurationSeconds": 3_601},
        {"RoleArn": f"{ROLE}-of-long-sessions", "DurationSeconds": 3_600},
        "exceeds the 1 hour session limit for roles assumed by role chaining",
        service="sts",
        code="ValidationError",
        role=f"{ROLE}-of-callers",
    ),
    Case(
        "a session's duration",
        "assume_role",
        {"RoleArn": f"{ROLE}-of-long-sessions", "DurationSeconds": 7_201},
        {"RoleArn": f"{ROLE}-of-long-sessions", "DurationSeconds": 7_200},
        "The requested DurationSeconds exceeds the MaxSessionDuration",
        service="sts",
        code="ValidationError",
    ),
    of_service(
        "a state machine's definition",
        "stepfunctions",
        "create_state_machine",
        machine(A={"Type": "Pass", "Next": "C"}, B={"Type": "Pass", "End": True}),
        machine(A={"Type": "Pass", "Next": "B"}, B={"Type": "Pass", "End": True}),
        "Missing 'Next' target: C at /States/A/Next, MISSING_TRANSITION_TARGET: State \"B\" is not reachable",
        "InvalidDefinition",
    ),
    of_service(
        "a state machine's definition",
        "stepfunctions",
        "create_state_machine",
        machine(A={"Type": "Parallel", "End": True, "Branches": [{"StartAt": "I", "States": {}}]}),
        machine(
            A={
                "Type": "Parallel",
                "End": True,
                "Branches": [{"StartAt": "I", "States": {"I": {"Type": "Pass", "End": True}}}],
            }
        ),
        r"These fields are required: \[StartAt, States\] at /States/A/Branches",
        "InvalidDefinition",
    ),
    of_service(
        "a stack's capabilities",
        "cloudformation",
        "create_stack",
        stack(),
        stack(capability="CAPABILITY_IAM"),
        r"Requires capabilities : \[CAPABILITY_IAM\]",
        "InsufficientCapabilitiesException",
    ),
    of_service(
        "a stack's capabilities",
        "cloudformation",
        "create_stack",
        stack(RoleName="named", capability="CAPABILITY_IAM"),
        stack(RoleName="named", capability="CAPABILITY_NAMED_IAM"),
        r"Requires capabilities : \[CAPABILITY_NAMED_IAM\]",
        "InsufficientCapabilitiesException",
    ),
    of_service(
        "a change set's capabilities",
        "cloudformation",
        "execute_change_set",
        {"StackName": "changed-set", "ChangeSetName": "without"},
        {"StackName": "changed-set", "ChangeSetName": "with"},
        r"Requires capabilities : \[CAPABILITY_IAM\]",
        "InsufficientCapabilitiesException",
    ),
    of_service(
        "a template's size",
        "cloudformation",
        "create_stack",
        stack("AWS::SNS::Topic", DisplayName="x" * 51_200),
        stack("AWS::CloudFormation::WaitConditionHandle", Long="x" * 50_000),
        "'templateBody' failed to satisfy constraint: Member must have length less than or equal to 51200",
        "ValidationError",
    ),
    *(
        of_service(
            "a template's size",
            "cloudformation",
            "create_stack",
            *(
                {"TemplateBody": json.dumps({"Resources": IT, section: {f"A{n}": each for n in range(count)}})}
                for count in (201, 200)
            ),
            f"Number of {section.lower()}, 201, is greater than maximum allowed, 200",
            "ValidationError",
        )
        for section, each in (("Outputs", {"Value": "x"}), ("Parameters", {"Type": "String", "Default": "x"}))
    ),
    of_service(
        "a stack's protection",
        "cloudformation",
        "delete_stack",
        {"StackName": "protected"},
        {"StackName": "unprotected"},
        r"Stack \[protected\] cannot be deleted while TerminationProtection is enabled",
        "ValidationError",
    ),
    of_service(
        "size of a managed policy",
        "iam",
        "create_policy",
        managed(6_144),
        managed(5_900),
        "Cannot exceed quota for PolicySize: 6144",
        "LimitExceeded",
    ),
    of_service(
        "a role's managed policies",
        "iam",
        "attach_role_policy",
        {"RoleName": "execution-of-many", "PolicyArn": f"arn:aws:iam::{ACCOUNT}:policy/boundary"},
        {"RoleName": "execution", "PolicyArn": f"arn:aws:iam::{ACCOUNT}:policy/boundary"},
        "Cannot exceed quota for PoliciesPerRole: 10",
        "LimitExceeded",
    ),
    of_service(
        "trust policy",
        "iam",
        "update_assume_role_policy",
        {"RoleName": "execution-of-many", "PolicyDocument": TRUST.replace("Principal", "Principle")},
        {"RoleName": "execution-of-many", "PolicyDocument": TRUST},
        "Missing required field Principal",
        "MalformedPolicyDocument",
    ),
    of_service(
        "a role's name",
        "iam",
        "create_role",
        {"RoleName": "EXECUTION", "AssumeRolePolicyDocument": TRUST},
        {"RoleName": "EXECUTION-2", "AssumeRolePolicyDocument": TRUST},
        "Role with name EXECUTION already exists",
        "EntityAlreadyExists",
    ),
    of_service(
        "a key's policy",
        "kms",
        "create_key",
        {"Policy": granting(f"{ROLE}-2", "kms:*")},
        {"Policy": granting(ROLE, "kms:*")},
        "Policy contains a statement with one or more invalid principals",
        "MalformedPolicyDocumentException",
    ),
    *(
        of_service(
            "a bucket's policy",
            "s3",
            "put_bucket_policy",
            {"Bucket": "rules", "Policy": granting(ROLE, "s3:GetObject", **changed)},
            {"Bucket": "rules", "Policy": granting(ROLE, "s3:GetObject", Resource="arn:aws:s3:::rules/*")},
            match,
            "MalformedPolicy",
        )
        for changed, match in (
            ({"Resource": "arn:aws:s3:::ruler/*"}, "Policy has invalid resource"),
            ({"Principal": {"AWS": f"{ROLE}-2"}}, "Invalid principal in policy"),
        )
    ),
    of_service(
        "a topic's policy",
        "sns",
        "set_topic_attributes",
        {"AttributeName": "Policy", "AttributeValue": json.dumps(LONG)},
        {"AttributeName": "Policy", "AttributeValue": granting(ROLE, "sns:Publish")},
        "Invalid parameter: Policy Error: null",
        "InvalidParameter",
    ),
    of_schedule(
        "a schedule's times", {"ScheduleExpressionTimezone": "Mars/One"}, "Invalid ScheduleExpressionTimezone Mars/One"
    ),
    of_schedule("a schedule's times", {"StartDate": 2_000, "EndDate": 1_000}, "StartDate must come before the EndDate"),
    of_service(
        "a project's role",
        "codebuild",
        "create_project",
        {"serviceRole": ROLE},
        {"serviceRole": f"{ROLE}-of-projects"},
        f"CodeBuild is not authorized to perform: sts:AssumeRole on {ROLE}",
        "InvalidInputException",
    ),
    of_service(
        "a build's variables",
        "codebuild",
        "start_build",
        {"environmentVariablesOverride": [{"name": "A", "value": "x" * 4097}]},
        {"environmentVariablesOverride": [{"name": "A", "value": "x" * 4096}]},
        "EnvironmentVariable should be at most 4096 characters",
        "InvalidInputException",
    ),
    *(
        of_service(
            "a lifecycle policy",
            "ecr",
            "put_lifecycle_policy",
            lifecycle(*refused),
            lifecycle(*taken),
            match,
            "InvalidParameterException",
        )
        for refused, taken, match in (
            ([(1, UNTAGGED), (1, EVERY)], [(1, UNTAGGED), (2, EVERY)], "Lifecycle policy validation failure"),
            ([(1, EVERY), (2, UNTAGGED)], [(2, EVERY), (1, UNTAGGED)], "must have the greatest rulePriority"),
            ([(1, {"tagStatus": "tagged"})], [(1, {**TAGGED, "tagStatus": "tagged"})], "is required with tagStatus"),
        )
    ),
    of_scaling(
        "steps",
        "put_scaling_policy",
        stepping((0, 10), (20, None)),
        stepping((0, 10), (10, None)),
        "must not overlap, and must have no gap",
    ),
    of_alarm(
        "an alarm's metric",
        alarm(**{**ANY_METRIC, "Statistic": "Sum"}, Metrics=QUERIES),
        alarm(**ANY_METRIC, Metrics=QUERIES),
        "Statistic is not allowed with Metrics",
    ),
    of_alarm("an alarm's threshold", alarm(Threshold=NONE), alarm(), "Threshold is required for an alarm"),
    of_alarm(
        "an alarm's threshold",
        alarm(ComparisonOperator="LessThanLowerThreshold"),
        alarm(ComparisonOperator="LessThanThreshold"),
        "LessThanLowerThreshold needs a ThresholdMetricId",
    ),
    of_alarm(
        "an alarm's statistic",
        alarm(Statistic=NONE, ExtendedStatistic="p1000"),
        alarm(Statistic=NONE, ExtendedStatistic="p99.9"),
        "p1000 for parameter ExtendedStatistic is not supported",
    ),
    of_alarm(
        "an alarm of a query", alarm(EvaluationInterval=60), alarm(), "EvaluationInterval is required with Evaluation"
    ),
    of_service(
        "a dashboard",
        "cloudwatch",
        "put_dashboard",
        {"DashboardBody": "widgets"},
        {"DashboardBody": '{"widgets": []}'},
        "must be a valid JSON object",
        "InvalidParameterInput",
    ),
    of_service(
        "a log group's name",
        "logs",
        "create_log_group",
        {"logGroupName": "aws/rules"},
        {"logGroupName": "/aws/rules"},
        "reserved for AWS: aws/rules",
        "InvalidParameterException",
    ),
    *(
        of_service(
            "a metric filter's dimensions",
            "logs",
            "put_metric_filter",
            refused,
            counting(dimensions={"a": "$.a"}),
            match,
            "InvalidParameterException",
        )
        for refused, match in (
            (
                counting(dimensions={"a": "$.a"}, defaultValue=0.0),
                "dimensions and default value are mutually exclusive",
            ),
            ({**counting(dimensions={"a": "$.a"}), "filterPattern": "ERROR"}, "pattern does not support dimensions"),
            (counting(dimensions=dict.fromkeys("abcd", "$.a")), "at most 3 dimensions: a, b, c, d"),
        )
    ),
    *(
        Case(
            "a policy's grammar",
            "put_role_policy",
            inline(**changed),
            inline(Sid="Reads1", Resource=["arn:aws:s3:::a/*"]),
            match,
            service="iam",
            code="MalformedPolicyDocument",
        )
        for changed, match in (
            ({"Resource": "bucket/*"}, "Resource bucket/\\* must be in ARN format"),
            ({"Action": "GetObject"}, "must be prefaced by a vendor"),
            ({"Condition": {"StringEqual": {"aws:username": "x"}}}, "Syntax errors in policy"),
            ({"Sid": "a-b"}, "must be alpha-numeric"),
        )
    ),
    *(
        Case(
            "a trust policy's grammar",
            "create_role",
            {"AssumeRolePolicyDocument": trusting(**changed)},
            {"AssumeRolePolicyDocument": trusting(Action=["sts:AssumeRole", "sts:TagSession"])},
            match,
            service="iam",
            code="MalformedPolicyDocument",
        )
        for changed, match in (
            ({"Action": "lambda:InvokeFunction"}, "may only specify STS AssumeRole actions"),
            ({"Principal": {"Service": "lambda"}}, 'Invalid principal in policy: "SERVICE":"lambda"'),
            ({"Principal": {"Services": "lambda.amazonaws.com"}}, 'Invalid principal in policy: "Services"'),
        )
    ),
    of_service(
        "actions of a repository's policy",
        "ecr",
        "set_repository_policy",
        {"policyText": granting("*", "s3:GetObject")},
        {"policyText": granting("*", "ecr:BatchGetImage")},
        "Invalid repository policy provided",
        "InvalidParameterException",
    ),
    *(
        of_service(
            "a rule's schedule",
            "events",
            "put_rule",
            {"ScheduleExpression": expression},
            {"ScheduleExpression": "cron(0 8 ? * MON-FRI *)"},
            "Parameter ScheduleExpression is not valid",
            "ValidationException",
        )
        for expression in ("rate(1 days)", "rate(2 day)", "cron(0 8 * * ?)", "cron(0 8 * * * *)")
    ),
    of_schedule("a schedule's days", {"ScheduleExpression": "cron(0 8 * * * *)"}, "Invalid Schedule Expression"),
    of_alarm("an alarm's expressions", alarm(**querying("M1")), alarm(**querying("m1")), "invalid id M1"),
    of_alarm(
        "an alarm's expressions",
        alarm(**querying("m1", "m2 * 2")),
        alarm(**querying("m1", "FILL(m1, 0)")),
        "e1 uses m2",
    ),
    of_alarm(
        "an alarm's actions", alarm(AlarmActions=["topic"]), alarm(AlarmActions=[TOPIC]), "Invalid arn syntax: topic"
    ),
    of_service(
        "streams of a search",
        "logs",
        "filter_log_events",
        {"logGroupName": "rules", "logStreamNames": ["a"], "logStreamNamePrefix": "a"},
        {"logGroupName": "rules", "logStreamNamePrefix": "a"},
        "cannot both be specified",
        "InvalidParameterException",
    ),
    *(
        of_service(
            "a filter pattern",
            "logs",
            "filter_log_events",
            {"logGroupName": "rules", "filterPattern": pattern},
            {"logGroupName": "rules", "filterPattern": f'"{pattern.replace(chr(34), "")}"'},
            match,
            "InvalidParameterException",
        )
        for pattern, match in (
            ("{ $.a = 1", "If a filter pattern starts with '{' it must end with '}'"),
            ("me@example.com", "Invalid filter pattern"),
            ('"open', "Invalid filter pattern"),
        )
    ),
    *(
        of_service(
            "a metric filter's pattern",
            "logs",
            "put_metric_filter",
            {**counting(), "filterPattern": pattern},
            {**counting(), "filterPattern": '{ $.a = "b" }'},
            "Invalid metric filter pattern",
            "InvalidParameterException",
        )
        for pattern in ("{ $.a = ", "[a, b", '"ERROR')
    ),
    of_service(
        "a metric filter's group",
        "logs",
        "put_metric_filter",
        {**counting(), "logGroupName": "absent"},
        counting(),
        "The specified log group does not exist",
        "ResourceNotFoundException",
    ),
    of_service(
        "a parameter's pattern",
        "ssm",
        "put_parameter",
        {"Type": "String", "Value": "a1", "AllowedPattern": "^[0-9]+$"},
        {"Type": "String", "Value": "11", "AllowedPattern": "^[0-9]+$"},
        "cannot be validated against allowedPattern",
        "ParameterPatternMismatchException",
    ),
    *(
        of_service(
            "a subscription's address",
            "sns",
            "subscribe",
            {"TopicArn": TOPIC, "Protocol": protocol, "Endpoint": endpoint},
            {"TopicArn": TOPIC, "Protocol": "email", "Endpoint": "a@b.example"},
            match,
            "InvalidParameter",
        )
        for protocol, endpoint, match in (
            ("mail", "a@b.example", "Does not support this protocol string: mail"),
            ("email", "nobody", "Endpoint nobody"),
            ("https", "http://a.example", "Endpoint http://a.example"),
        )
    ),
    of_service(
        "a subscription's topic",
        "sns",
        "subscribe",
        {"TopicArn": f"{TOPIC}-absent", "Protocol": "email", "Endpoint": "a@b.example"},
        {"TopicArn": TOPIC, "Protocol": "email", "Endpoint": "a@b.example"},
        "Topic does not exist",
        "NotFound",
    ),
    of_service(
        "an alias's prefix",
        "kms",
        "create_alias",
        {"AliasName": "mine-too", "TargetKeyId": "key:open"},
        {"AliasName": "alias/mine-too", "TargetKeyId": "key:open"},
        "Alias must start with the prefix",
        "ValidationException",
    ),
    *(
        of_service(
            "a dashboard's widgets",
            "cloudwatch",
            "put_dashboard",
            {"DashboardBody": json.dumps({"widgets": [widget]})},
            {
                "DashboardBody": json.dumps(
                    {"widgets": [{"type": "text", "width": 24, "properties": {"markdown": "x"}}]}
                )
            },
            match,
            "InvalidParameterInput",
        )
        for widget, match in (
            ({"type": "graph", "properties": {}}, "/widgets/0/type must be one of"),
            ({"type": "text"}, "/widgets/0/properties is required"),
            ({"type": "text", "width": 25, "properties": {}}, "within a grid of 24 columns"),
        )
    ),
    *(
        of_service(
            "a state machine's states",
            "stepfunctions",
            "create_state_machine",
            {"definition": machine(A=state)["definition"], "roleArn": f"{ROLE}-of-machines"},
            {**machine(), "roleArn": f"{ROLE}-of-machines"},
            match,
            "InvalidDefinition",
        )
        for state, match in (
            ({"Type": "Job", "End": True}, "Value is not one of .* at /States/A/Type"),
            ({"Type": "Pass"}, "required: .Next. or .End."),
            ({"Type": "Choice"}, "required: .Choices. at /States/A"),
        )
    ),
    *(
        of_service(
            rule,
            "cloudformation",
            operation,
            {"TemplateBody": json.dumps(refused)},
            {"TemplateBody": json.dumps(taken)},
            match,
            "ValidationError",
        )
        for operation in ("create_stack", "validate_template")
        for rule, refused, taken, match in TEMPLATES
    ),
    *(
        of_service(
            "a template's resources",
            "cloudformation",
            "create_stack",
            {"TemplateBody": json.dumps({"Resources": {name: {"Type": HANDLE, **changed}}})},
            {"TemplateBody": json.dumps({"Resources": {"It": {"Type": HANDLE, "DeletionPolicy": "Retain"}}})},
            match,
            "ValidationError",
        )
        for name, changed, match in (
            ("It-1", {}, "Resource name It-1 is non alphanumeric"),
            ("It", {"Propertys": {}}, "Invalid template resource property 'Propertys'"),
            ("It", {"DependsOn": ["Other"]}, "Unresolved resource dependencies .Other."),
            ("It", {"DeletionPolicy": "Keep"}, "Unrecognized DeletionPolicy Keep for resource It"),
        )
    ),
]
