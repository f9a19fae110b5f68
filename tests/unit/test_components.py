"""Inference components in a template, beside the names that AWS documents, and what is refused.

Names and figures are those of the SageMaker developer guide, "Deploy models for real-time inference", "Scale an
endpoint to zero instances" and "Amazon SageMaker AI metrics in Amazon CloudWatch".
"""

from __future__ import annotations

import base64
import json
from collections.abc import Callable
from typing import Any

import pytest
from aws_cdk import App, Environment, Stack
from aws_cdk import aws_ec2 as ec2
from aws_cdk import aws_iam as iam
from aws_cdk import aws_s3 as s3
from aws_cdk.assertions import Annotations, Match, Template

from extended_dlc import (
    ByHand,
    Canary,
    Component,
    Components,
    Consolidation,
    CopyConcurrencyScaling,
    CopyScaling,
    ExtendedDlc,
    HubModel,
    Monitoring,
    Network,
    Placement,
    PrefixAware,
    Proof,
    Rolling,
    S3Model,
    ScheduledCapacity,
)
from tests.support.hosting import CPU, GPU, allowed, config, endpoint_in, properties, statements, variant

Json = dict[str, Any]

WHISPER = HubModel("openai/whisper-base", revision="b" * 40)
COPIES = CopyScaling(minimum=0, maximum=2, requests_per_second=2, scale_out_seconds=60)


def shared(*components: Component, **options: Any) -> Components:
    given = components or (Component(name="Text", memory_mb=4096), Component(name="b", memory_mb=512, model=WHISPER))
    return Components(**{"maximum": 2, "components": given, **options})


def wake_ups(stack: Stack) -> list[Json]:
    found = Template.from_stack(stack).find_resources(
        "AWS::ApplicationAutoScaling::ScalingPolicy", {"Properties": {"PolicyType": "StepScaling"}}
    )
    return [each["Properties"]["StepScalingPolicyConfiguration"] for each in found.values()]


def test_that_a_change_puts_scaled_copies_back_is_said(stack: Stack) -> None:
    scaled = Component(name="scaled", memory_mb=512, copies=2, scaling=COPIES)
    endpoint_in(stack, hosting=shared(scaled, Component(name="fixed", memory_mb=512)))
    said = Match.string_like_regexp("puts scaled to 2, whatever scaling has made of it: set 'copies'")
    Annotations.from_stack(stack).has_warning("*", said)


def test_the_instances_have_a_role_and_no_model_and_may_all_go(stack: Stack) -> None:
    endpoint_in(stack, hosting=shared(minimum=0, volume_gb=80))
    assert variant(stack) == {
        "VariantName": "AllTraffic",
        "InstanceType": "ml.m5.xlarge",
        "InitialInstanceCount": 1,
        "VolumeSizeInGB": 80,
        "ManagedInstanceScaling": {"Status": "ENABLED", "MinInstanceCount": 0, "MaxInstanceCount": 2},
        "RoutingConfig": {"RoutingStrategy": "LEAST_OUTSTANDING_REQUESTS"},
    }
    assert config(stack)["ExecutionRoleArn"]["Fn::GetAtt"][1] == "Arn"


def test_each_model_is_a_component_of_its_own_that_waits_for_the_endpoint(stack: Stack) -> None:
    text = Component(
        name="Text",
        memory_mb=4096,
        cpu_cores=0.5,
        copies=2,
        startup_timeout_seconds=1200,
        download_timeout_seconds=600,
    )
    endpoint = endpoint_in(stack, hosting=shared(text, Component(name="Speech", memory_mb=512, model=WHISPER)))
    found = Template.from_stack(stack).find_resources("AWS::SageMaker::InferenceComponent").values()
    first, second = (each["Properties"] for each in found)
    model = first["Specification"].pop("ModelName")
    assert first == {
        "InferenceComponentName": "Text",
        "EndpointName": "bloom",
        "VariantName": "AllTraffic",
        "RuntimeConfig": {"CopyCount": 2},
        "Specification": {
            "ComputeResourceRequirements": {"MinMemoryRequiredInMb": 4096, "NumberOfCpuCoresRequired": 0.5},
            "StartupParameters": {
                "ContainerStartupHealthCheckTimeoutInSeconds": 1200,
                "ModelDataDownloadTimeoutInSeconds": 600,
            },
        },
    }
    assert second["Specification"]["ModelName"] != model
    assert [each["DependsOn"] for each in found] == [[stack.get_logical_id(endpoint.endpoint)]] * 2
    assert [*endpoint.components] == ["Text", "Speech"]
    models = Template.from_stack(stack).find_resources("AWS::SageMaker::Model").values()
    names = [each["Properties"]["PrimaryContainer"]["Environment"]["HF_MODEL_ID"] for each in models]
    assert sorted(names) == ["bigscience/bloom-560m", "openai/whisper-base"]


def test_where_copies_go_and_what_instances_keep_of_them(stack: Stack) -> None:
    text = Component(
        name="Text", memory_mb=4096, cached=True, placement=Placement(strategy="binpack", zone_imbalance=1)
    )
    hosting = shared(
        text,
        maximum=4,
        routing=PrefixAware(prefix_length=2048, concurrency=16),
        consolidation=Consolidation(step=2),
    )
    endpoint_in(stack, hosting=hosting)
    specification = properties(stack, "AWS::SageMaker::InferenceComponent")["Specification"]
    assert specification["DataCacheConfig"] == {"EnableCaching": True}
    assert specification["SchedulingConfig"] == {
        "PlacementStrategy": "BINPACK",
        "AvailabilityZoneBalance": {"EnforcementMode": "PERMISSIVE", "MaxImbalance": 1},
    }
    found = variant(stack)
    assert found["ManagedInstanceScaling"]["ScaleInPolicy"] == {
        "Strategy": "CONSOLIDATION",
        "MaximumStepSize": 2,
        "CooldownInMinutes": 20,
    }
    assert found["RoutingConfig"] == {
        "RoutingStrategy": "PREFIX_AWARE",
        "PrefixAwareRoutingConfig": {"PrefixLength": 2048, "ConcurrencyThreshold": 16},
    }


def test_components_reserve_gpus_and_the_hosts_driver_is_that_of_the_image(stack: Stack) -> None:
    text = Component(name="Text", memory_mb=8192, accelerators=1)
    endpoint_in(stack, base=GPU, hosting=shared(text, instance_type="ml.g5.12xlarge"))
    found = properties(stack, "AWS::SageMaker::InferenceComponent")["Specification"]["ComputeResourceRequirements"]
    assert found == {"MinMemoryRequiredInMb": 8192, "NumberOfAcceleratorDevicesRequired": 1}
    assert variant(stack)["InferenceAmiVersion"] == "al2-ami-sagemaker-inference-gpu-3-1"


def test_copies_follow_the_requests_that_each_works_on_down_to_none(stack: Stack) -> None:
    scaling = CopyConcurrencyScaling(minimum=0, maximum=4, concurrent_requests=8)
    endpoint_in(stack, hosting=shared(Component(name="Text", memory_mb=512, scaling=scaling)))
    target = properties(stack, "AWS::ApplicationAutoScaling::ScalableTarget")
    assert target["ScalableDimension"] == "sagemaker:inference-component:DesiredCopyCount"
    tracking = next(
        each["Properties"]["TargetTrackingScalingPolicyConfiguration"]
        for each in Template.from_stack(stack).find_resources("AWS::ApplicationAutoScaling::ScalingPolicy").values()
        if each["Properties"]["PolicyType"] == "TargetTrackingScaling"
    )
    metric = "SageMakerInferenceComponentConcurrentRequestsPerCopyHighResolution"
    assert tracking["PredefinedMetricSpecification"] == {"PredefinedMetricType": metric}
    assert tracking["TargetValue"] == 8
    (wake_up,) = wake_ups(stack)
    assert wake_up["StepAdjustments"] == [{"MetricIntervalLowerBound": 0, "ScalingAdjustment": 1}]


def test_copies_follow_the_requests_a_minute_that_each_gets(stack: Stack) -> None:
    office = ScheduledCapacity(schedule="cron(0 8 ? * MON-FRI *)", minimum=1)
    scaling = CopyScaling(maximum=4, requests_per_second=2, schedules=[office])
    endpoint_in(stack, hosting=shared(Component(name="Text", memory_mb=512, scaling=scaling)))
    target = properties(stack, "AWS::ApplicationAutoScaling::ScalableTarget")
    actions = target.pop("ScheduledActions")
    assert target == {
        "ServiceNamespace": "sagemaker",
        "ResourceId": "inference-component/Text",
        "ScalableDimension": "sagemaker:inference-component:DesiredCopyCount",
        "MinCapacity": 1,
        "MaxCapacity": 4,
    }
    assert [each["ScalableTargetAction"] for each in actions] == [{"MinCapacity": 1}]
    policy = properties(stack, "AWS::ApplicationAutoScaling::ScalingPolicy")
    assert policy["TargetTrackingScalingPolicyConfiguration"] == {
        "PredefinedMetricSpecification": {"PredefinedMetricType": "SageMakerInferenceComponentInvocationsPerCopy"},
        "TargetValue": 2 * 0.5 * 60,
        "ScaleInCooldown": 300,
        "ScaleOutCooldown": 300,
    }
    assert wake_ups(stack) == []


def test_a_request_that_finds_no_copy_wakes_one(stack: Stack) -> None:
    endpoint_in(stack, hosting=shared(Component(name="Text", memory_mb=512, scaling=COPIES), minimum=0))
    assert wake_ups(stack) == [
        {
            "AdjustmentType": "ChangeInCapacity",
            "MetricAggregationType": "Maximum",
            "Cooldown": 60,
            "StepAdjustments": [{"MetricIntervalLowerBound": 0, "ScalingAdjustment": 1}],
        }
    ]
    alarm = properties(stack, "AWS::CloudWatch::Alarm")
    assert alarm.pop("AlarmActions")[0]["Ref"].startswith("BloomComponentsTextScalingWakeUp")
    assert alarm == {
        "AlarmDescription": "Requests to Text fail because no copy runs",
        "Namespace": "AWS/SageMaker",
        "MetricName": "NoCapacityInvocationFailures",
        "Dimensions": [{"Name": "InferenceComponentName", "Value": "Text"}],
        "Statistic": "Maximum",
        "Period": 30,
        "EvaluationPeriods": 1,
        "DatapointsToAlarm": 1,
        "Threshold": 1,
        "ComparisonOperator": "GreaterThanOrEqualToThreshold",
        "TreatMissingData": "missing",
    }


def test_a_scaled_component_does_not_pin_the_variants_of_the_endpoint(stack: Stack) -> None:
    endpoint_in(stack, hosting=shared(Component(name="Text", memory_mb=512, scaling=COPIES)))
    assert "RetainAllVariantProperties" not in properties(stack, "AWS::SageMaker::Endpoint")
    target = Template.from_stack(stack).find_resources("AWS::ApplicationAutoScaling::ScalableTarget").values()
    assert [each["DependsOn"][0].startswith("BloomComponentsTextComponent") for each in target] == [True]


def test_whoever_may_invoke_may_name_each_component(stack: Stack) -> None:
    caller = iam.Role(stack, "Caller", assumed_by=iam.ServicePrincipal("lambda.amazonaws.com"))
    endpoint_in(stack, hosting=shared()).grant_invoke(caller)
    _, components = statements(stack, "Caller")
    names = [each["Fn::Join"][1][-1] for each in components["Resource"]]
    assert names == [":inference-component/Text", ":inference-component/text", ":inference-component/b"]
    assert components["Action"] == ["sagemaker:InvokeEndpoint", "sagemaker:InvokeEndpointWithResponseStream"]


def test_each_component_that_answers_chats_has_a_base_url_for_openais_clients(stack: Stack) -> None:
    talks = HubModel("org/talks", "a" * 40, task="text-generation")
    hears = HubModel("org/hears", "a" * 40, task="automatic-speech-recognition")
    hosting = shared(
        Component(name="talks", memory_mb=512, model=talks), Component(name="hears", memory_mb=512, model=hears)
    )
    image = ExtendedDlc(stack, "Image", transformers="5.23.0", base=CPU)
    endpoint = endpoint_in(stack, hosting=hosting, image=image)
    assert endpoint.openai_base_url is None
    (name, url), *others = endpoint.openai_base_urls.items()
    assert (name, others) == ("talks", [])
    path = stack.resolve(url)["Fn::Join"][1][-1]
    assert path == f"/endpoints/{endpoint.endpoint_name}/inference-components/talks/openai/v1"
    caller = iam.Role(stack, "Caller", assumed_by=iam.ServicePrincipal("lambda.amazonaws.com"))
    endpoint.grant_invoke_with_token(caller)
    assert next(each["Action"] for each in statements(stack, "Caller")) == "sagemaker:CallWithBearerToken"


def test_a_components_metric_has_its_name_alone(stack: Stack) -> None:
    metric = endpoint_in(stack, hosting=shared()).metric("ModelLatency", component="Text", statistic="p99")
    assert (metric.namespace, metric.dimensions) == ("AWS/SageMaker", {"InferenceComponentName": "Text"})


def test_the_role_may_write_the_log_of_each_component(stack: Stack) -> None:
    endpoint_in(stack, hosting=shared())
    groups = [each["Fn::Join"][1][-1].rpartition("log-group:")[2] for each in allowed(stack, "logs:PutLogEvents")]
    assert "/aws/sagemaker/InferenceComponents/Text" in groups
    assert "/aws/sagemaker/InferenceComponents/b:*" in groups


def test_the_network_of_components_is_the_endpoints(stack: Stack) -> None:
    endpoint_in(stack, hosting=shared(), network=Network(vpc=ec2.Vpc(stack, "Vpc")))
    assert len(config(stack)["VpcConfig"]["Subnets"]) == 2


def test_the_endpoint_is_isolated_where_all_its_models_are(stack: Stack) -> None:
    weights = S3Model(s3.Bucket.from_bucket_name(stack, "Weights", "weights"), "bloom/")
    isolated = Component(name="Own", memory_mb=512, model=weights)
    endpoint_in(stack, hosting=shared(isolated), model=weights, network_isolation=True)
    assert config(stack)["EnableNetworkIsolation"] is True


def test_the_endpoint_is_not_isolated_where_a_model_comes_from_the_hub(stack: Stack) -> None:
    weights = S3Model(s3.Bucket.from_bucket_name(stack, "Weights", "weights"), "bloom/")
    endpoint_in(
        stack, hosting=shared(Component(name="Own", memory_mb=512, model=weights), Component(name="Hub", memory_mb=512))
    )
    assert "EnableNetworkIsolation" not in config(stack)


def test_the_switch_turns_components_off_with_their_endpoint(stack: Stack) -> None:
    endpoint_in(stack, hosting=shared(Component(name="Text", memory_mb=512, scaling=COPIES)), schedule=ByHand())
    resources = Template.from_stack(stack).to_json()["Resources"].values()
    switched = {each["Type"] for each in resources if "Condition" in each}
    assert switched == {
        "AWS::ApplicationAutoScaling::ScalableTarget",
        "AWS::ApplicationAutoScaling::ScalingPolicy",
        "AWS::CloudWatch::Alarm",
        "AWS::SageMaker::Endpoint",
        "AWS::SageMaker::InferenceComponent",
        "Custom::ExtendedDlcProof",
    }


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"copies": 0}, r"'copies' \(0\) must be 1 or more: a component is made with a copy; CopyScaling takes it to"),
        ({"memory_mb": 127}, r"'memory_mb' \(127\) must be 128 or more"),
        ({"cpu_cores": 0.2}, r"'cpu_cores' \(0.2\) must be 0.25 or more"),
        ({"accelerators": 0}, r"'accelerators' \(0\) must be 1 or more: leave it out"),
        ({"startup_timeout_seconds": 59}, r"'startup_timeout_seconds' \(59\) must be from 60 to 3600"),
        ({"copies": 3, "scaling": COPIES}, r"'copies' \(3\) must be between what 'scaling' may choose \(1 to 2\)"),
        ({"name": "a b"}, r"'name' \(a b\) cannot be an endpoint name"),
    ],
)
def test_a_component_that_cannot_be_is_refused(options: Json, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Component(**{"name": "Text", "memory_mb": 512, **options})


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Placement(strategy="near"), r"'strategy' \(near\) must be one of spread, binpack"),
        (lambda: Placement(strategy="spread", zone_imbalance=101), r"'zone_imbalance' \(101\) must be from 0 to 100"),
        (lambda: Consolidation(step=0), r"'step' \(0\) must be from 1 to 100"),
        (lambda: Consolidation(cooldown_minutes=4), r"'cooldown_minutes' \(4\) must be from 5 to 1440"),
        (lambda: PrefixAware(prefix_length=100, concurrency=1), r"'prefix_length' \(100\) must be from 1024 to 65536"),
        (lambda: PrefixAware(prefix_length=1024, concurrency=0), r"'concurrency' \(0\) must be from 1 to 1024"),
        (
            lambda: shared(routing="sticky"),
            r"'routing' \(sticky\) must be one of least-outstanding-requests, random, or Prefix",
        ),
        (
            lambda: CopyConcurrencyScaling(maximum=2, concurrent_requests=0),
            r"'concurrent_requests' \(0\) must be above 0",
        ),
    ],
)
def test_a_placement_that_sagemaker_refuses_is_refused(make: Callable[[], object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"components": []}, r"'components' \(none\) must be one or more"),
        ({"components": [Component(name="A", memory_mb=512)] * 2}, "'components' has two of the name 'A': rename one"),
        ({"minimum": 3}, r"'minimum' \(3\) must be from 0 to 2: raise maximum"),
        ({"instances": 3}, r"'instances' \(3\) must be from 1 to 2"),
        (
            {"instance_type": ["ml.m5.large", "ml.m5.xlarge"]},
            r"'instance_type' \(ml.m5.large, ml.m5.xlarge\) must be one type",
        ),
        (
            {"components": [Component(name="A", memory_mb=20000)]},
            r"'components.A.memory_mb' \(20000\) is more than ml.m5.xlarge has \(16384\): take less",
        ),
        (
            {"components": [Component(name="A", memory_mb=512, accelerators=1)]},
            r"'components.A.accelerators' \(1\) is more than ml.m5.xlarge has \(0\)",
        ),
        (
            {"instance_type": "ml.g5.12xlarge"},
            r"'components.Text.accelerators' \(none\) must be from 1 to 4 on ml.g5.12xlarge",
        ),
    ],
)
def test_components_that_no_instance_has_room_for_are_refused(options: Json, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        shared(**options)


def test_a_component_has_as_many_variables_as_any_model(stack: Stack) -> None:
    """SageMaker's 16 are for a container that a component has instead of a model (API reference)."""

    def with_variables(count: int) -> Components:
        variables = {f"KEY_{number}": "x" for number in range(count)}
        return shared(Component(name="Text", memory_mb=512, environment=variables))

    endpoint_in(stack, "Many", hosting=with_variables(60), endpoint_name="many")
    with pytest.raises(ValueError, match=r"'environment' has 101"):
        endpoint_in(stack, hosting=with_variables(101))


def zero_in(region: str | None) -> Stack:
    stack = Stack(App(), "Test", env=Environment(region=region) if region else None)
    endpoint_in(stack, hosting=shared(minimum=0))
    return stack


def test_no_instance_is_refused_where_sagemaker_refuses_it_with_the_way_out() -> None:
    with pytest.raises(ValueError, match=r"'minimum' \(0\) is refused by SageMaker in eu-west-3 .*take minimum=1"):
        zero_in("eu-west-3")
    stack = Stack(App(), "Test", env=Environment(region="eu-west-3"))
    endpoint_in(stack, hosting=shared(minimum=1))


@pytest.mark.parametrize(("region", "said"), [("eu-central-1", "eu-central-1"), (None, "its region")])
def test_no_instance_is_annotated_where_nobody_knows(region: str | None, said: str) -> None:
    note = Match.string_like_regexp(f"components in {said} is not known")
    Annotations.from_stack(zero_in(region)).has_warning("*", note)


def test_no_instance_is_fine_where_somebody_saw_it() -> None:
    said = Match.string_like_regexp("the fewest instances of components")
    assert not Annotations.from_stack(zero_in("us-east-1")).find_warning("*", said)


def test_what_components_do_not_have_is_refused_with_the_way_out(stack: Stack) -> None:
    with pytest.raises(ValueError, match=r"'rollout' \(Canary\) is for variants, and .* batches of copies: take Roll"):
        endpoint_in(stack, "C", hosting=shared(), rollout=Canary())


def test_each_component_is_updated_a_batch_of_copies_at_a_time_and_the_endpoint_has_no_policy(stack: Stack) -> None:
    endpoint_in(stack, hosting=shared(), rollout=Rolling(percent=50, rollback_percent=100, alarms=["slow"]))
    found = Template.from_stack(stack).find_resources("AWS::SageMaker::InferenceComponent").values()
    assert [each["Properties"]["DeploymentConfig"] for each in found] == [
        {
            "RollingUpdatePolicy": {
                "MaximumBatchSize": {"Type": "CAPACITY_PERCENT", "Value": 50},
                "RollbackMaximumBatchSize": {"Type": "CAPACITY_PERCENT", "Value": 100},
                "WaitIntervalInSeconds": 300,
            },
            "AutoRollbackConfiguration": {"Alarms": [{"AlarmName": "slow"}]},
        }
    ] * 2
    assert "DeploymentConfig" not in properties(stack, "AWS::SageMaker::Endpoint")


def watched(stack: Stack, *, hosting: Components | None = None, **options: Any) -> dict[str, Json]:
    """The alarms of a watched endpoint of components by their names."""
    endpoint = endpoint_in(stack, hosting=hosting or shared(), **{"monitoring": Monitoring(), **options})
    resources = Template.from_stack(stack).to_json()["Resources"]
    assert endpoint.watch is not None
    found = endpoint.watch.alarms.items()
    return {name: resources[stack.get_logical_id(alarm.node.default_child)]["Properties"] for name, alarm in found}  # type: ignore[arg-type]


def dimensions(alarm: Json) -> Json:
    return {each["Name"]: each["Value"] for each in alarm.get("Dimensions", ())}


@pytest.mark.parametrize(
    ("name", "metric", "namespace", "statistic", "threshold"),
    [
        ("client-errors", "Invocation4XXErrors", "AWS/SageMaker", "Average", 0.25),
        ("server-errors", "Invocation5XXErrors", "AWS/SageMaker", "Average", 0.01),
        ("model-latency", "ModelLatency", "AWS/SageMaker", "p99", 30_000_000),
        ("overhead", "OverheadLatency", "AWS/SageMaker", "p99", 5_000_000),
        ("idle", "Invocations", "AWS/SageMaker", "Sum", 1),
        ("memory", "MemoryUtilizationNormalized", "/aws/sagemaker/InferenceComponents", "Maximum", 90),
        ("gpu", "GPUUtilizationNormalized", "/aws/sagemaker/InferenceComponents", "Average", 95),
        ("gpu-memory", "GPUMemoryUtilizationNormalized", "/aws/sagemaker/InferenceComponents", "Maximum", 95),
    ],
)
def test_a_component_is_watched_by_what_sagemaker_publishes_of_it(
    stack: Stack, name: str, metric: str, namespace: str, statistic: str, threshold: float
) -> None:
    text = Component(name="Text", memory_mb=8192, accelerators=2)
    found = watched(stack, base=GPU, hosting=shared(text, instance_type="ml.g5.12xlarge"))
    alarm = found[f"Text/{name}"]
    assert (alarm["MetricName"], alarm["Namespace"]) == (metric, namespace)
    assert alarm.get("Statistic", alarm.get("ExtendedStatistic")) == statistic
    assert alarm["Threshold"] == pytest.approx(threshold)
    assert dimensions(alarm) == {"InferenceComponentName": "Text"}
    assert alarm["AlarmDescription"].startswith("bloom/Text: ")


def test_each_component_has_alarms_and_the_disk_is_that_of_the_instances_they_share(stack: Stack) -> None:
    found = watched(stack)
    each = ["client-errors", "server-errors", "model-latency", "overhead", "idle", "memory"]
    assert [*found] == ["disk", *(f"Text/{name}" for name in each), *(f"b/{name}" for name in each)]
    assert dimensions(found["disk"]) == {"EndpointName": "bloom", "VariantName": "AllTraffic"}


def test_only_a_component_that_always_has_a_copy_can_be_idle(stack: Stack) -> None:
    sleeper = Component(name="Sleeper", memory_mb=512, scaling=COPIES)
    found = watched(stack, hosting=shared(sleeper, Component(name="Awake", memory_mb=512)))
    assert [name for name in found if name.endswith("idle")] == ["Awake/idle"]


def test_a_component_s_log_is_there_before_sagemaker_would_make_it(stack: Stack) -> None:
    watched(stack)
    template = Template.from_stack(stack)
    groups = template.find_resources("AWS::Logs::LogGroup", {"Properties": {"LogGroupName": Match.any_value()}})
    names = {each["Properties"]["LogGroupName"] for each in groups.values()}
    assert names == {
        f"/aws/sagemaker/{each}" for each in ("Endpoints/bloom", *(f"InferenceComponents/{c}" for c in ("Text", "b")))
    }
    (endpoint,) = template.find_resources("AWS::SageMaker::Endpoint").values()
    assert groups.keys() <= {*endpoint["DependsOn"]}


def test_what_runs_out_of_memory_is_counted_in_the_logs_of_our_server_s_components_alone(stack: Stack) -> None:
    ours = Component(name="Own", memory_mb=512, image=ExtendedDlc(stack, "Image", transformers="5.23.0"))
    found = watched(stack, hosting=shared(ours, Component(name="Stock", memory_mb=512)))
    alarm = found["Own/out-of-memory"]
    assert (alarm["Namespace"], alarm["MetricName"]) == ("ExtendedDlc/bloom/Own", "OutOfMemory")
    assert not {"out-of-memory", "queue-full", "Stock/out-of-memory", "Stock/queue-full"} & found.keys()
    filters = Template.from_stack(stack).find_resources("AWS::Logs::MetricFilter").values()
    counted = {each["Properties"]["MetricTransformations"][0]["MetricNamespace"] for each in filters}
    assert counted == {"ExtendedDlc/bloom/Own"}


def test_a_component_s_own_alarms_roll_its_update_back_unless_the_rollout_names_others(stack: Stack) -> None:
    watched(stack, rollout=Rolling())
    resources = Template.from_stack(stack).to_json()["Resources"]
    components = [each for each in resources.values() if each["Type"] == "AWS::SageMaker::InferenceComponent"]
    for component in components:
        properties_ = component["Properties"]
        rollback = properties_["DeploymentConfig"]["AutoRollbackConfiguration"]["Alarms"]
        alarms = [resources[each["AlarmName"]["Ref"]]["Properties"] for each in rollback]
        assert [each["MetricName"] for each in alarms] == ["Invocation5XXErrors", "ModelLatency"]
        name = {"InferenceComponentName": properties_["InferenceComponentName"]}
        assert [dimensions(each) for each in alarms] == [name, name]
    other = Stack()
    endpoint_in(other, hosting=shared(), monitoring=Monitoring(), rollout=Rolling(alarms=["theirs"]))
    found = Template.from_stack(other).find_resources("AWS::SageMaker::InferenceComponent").values()
    named = [each["Properties"]["DeploymentConfig"]["AutoRollbackConfiguration"]["Alarms"] for each in found]
    assert named == [[{"AlarmName": "theirs"}]] * 2


def test_the_dashboard_shows_each_component_by_its_name(stack: Stack) -> None:
    watched(stack)
    body = json.dumps(properties(stack, "AWS::CloudWatch::Dashboard"))
    for metric in ("InvocationsPerCopy", "ModelLatency", "MemoryUtilizationNormalized", "CPUUtilizationNormalized"):
        for name in ("Text", "b"):
            assert f'{metric}\\",\\"InferenceComponentName\\",\\"{name}' in body
    assert "GPUUtilization" not in body


def proofs(stack: Stack) -> dict[str, Json]:
    """The proofs of the components by their names."""
    found = Template.from_stack(stack).find_resources("Custom::ExtendedDlcProof").values()
    return {name: each for each in found if (name := each["Properties"].get("Component"))}


def test_each_component_is_proved_by_a_request_of_its_own_model_s_task(stack: Stack) -> None:
    text = Component(name="Text", memory_mb=4096, scaling=COPIES)
    speech = Component(name="Speech", memory_mb=512, model=WHISPER)
    model = HubModel("bloom", revision="a" * 40, task="text-generation")
    endpoint = endpoint_in(stack, hosting=shared(text, speech), model=model, verify=Proof())
    found = proofs(stack)
    assert [*found] == ["Text", "Speech"]
    assert json.loads(base64.b64decode(found["Text"]["Properties"]["Body"]))["inputs"] == "Hello"
    assert found["Speech"]["Properties"]["Sample"] == "audio"
    component = properties(stack, "AWS::SageMaker::InferenceComponent", "BloomComponentsText")
    assert found["Text"]["Properties"]["Model"] == component["Specification"]["ModelName"]
    before = {stack.get_logical_id(each) for each in endpoint.components.values()}
    assert before <= {*found["Text"]["DependsOn"]}
    assert [each for each in found["Text"]["DependsOn"] if "ScalingTarget" in each]


def test_the_proof_may_ask_the_components_and_read_their_logs(stack: Stack) -> None:
    endpoint_in(stack, hosting=shared(), verify=Proof(request={"inputs": "Hello"}))
    statements_ = statements(stack, "ExtendedDlcProverRole")
    allowed_ = {
        action: json.dumps(each["Resource"])
        for each in statements_
        for action in ([each["Action"]] if isinstance(each["Action"], str) else each["Action"])
    }
    assert "inference-component/b" in allowed_["sagemaker:DescribeInferenceComponent"]
    assert "inference-component/b" in allowed_["sagemaker:InvokeEndpoint"]
    assert "/aws/sagemaker/InferenceComponents/b" in allowed_["logs:GetLogEvents"]
