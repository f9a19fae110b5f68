"""What SageMaker publishes beside its usual metrics, and alarms that ask it in PromQL, in a template."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import botocore.session
import pytest
from aws_cdk import Stack
from aws_cdk import aws_iam as iam
from aws_cdk import aws_s3 as s3
from aws_cdk.assertions import Annotations, Match, Template

from extended_dlc import (
    Async,
    ByHand,
    Canary,
    Component,
    Components,
    ExtendedDlc,
    HubModel,
    HuggingFaceEndpoint,
    Metrics,
    Monitoring,
    RealTime,
    S3Model,
    Serverless,
    StockDlc,
    Variant,
)
from extended_dlc.endpoint.dashboard import QUERIES
from extended_dlc.options.monitoring import CONTAINER_ALARMS

BASE = "registry.example.com/huggingface-pytorch-inference:2.6.0-transformers4.51.3-cpu-py312-ubuntu22.04-v2.0"

Json = dict[str, Any]


def endpoint(stack: Stack, *, own_server: bool = True, **options: Any) -> HuggingFaceEndpoint:
    image: Any = ExtendedDlc(stack, "Image", transformers="5.23.0", base=BASE) if own_server else StockDlc(base=BASE)
    model = HubModel("bigscience/bloom-560m", revision="a" * 40)
    return HuggingFaceEndpoint(stack, "Bloom", endpoint_name="bloom", model=model, image=image, **options)


def metrics_of(stack: Stack) -> Any:
    (config,) = Template.from_stack(stack).find_resources("AWS::SageMaker::EndpointConfig").values()
    return config["Properties"].get("MetricsConfig")


def queries(stack: Stack) -> dict[str, str]:
    """PromQL alarms: their queries by their ids."""
    found = Template.from_stack(stack).find_resources("AWS::CloudWatch::Alarm")
    asked = {key: each["Properties"].get("EvaluationCriteria") for key, each in found.items()}
    return {key: each["PromQLCriteria"]["Query"] for key, each in asked.items() if each}


# MetricsConfig


SHARED = Components(maximum=1, components=[Component(name="text", memory_mb=2048)])


@pytest.mark.parametrize("hosting", [None, Async(), Serverless(), SHARED])
def test_without_a_word_sagemakers_own_defaults_hold(stack: Stack, hosting: Any) -> None:
    endpoint(stack, hosting=hosting)
    assert metrics_of(stack) is None


def test_what_is_said_is_in_the_configuration_and_nothing_else(stack: Stack) -> None:
    endpoint(stack, metrics=Metrics(detailed=False))
    assert metrics_of(stack) == {"EnableDetailedObservability": False}


def test_all_of_it(stack: Stack) -> None:
    endpoint(stack, metrics=Metrics(detailed=True, enhanced=True, interval_seconds=10))
    assert metrics_of(stack) == {
        "EnableDetailedObservability": True,
        "EnableEnhancedMetrics": True,
        "MetricPublishFrequencyInSeconds": 10,
    }


def test_metrics_of_which_nothing_is_said_are_none(stack: Stack) -> None:
    endpoint(stack, metrics=Metrics())
    assert metrics_of(stack) is None


@pytest.mark.parametrize("seconds", [0, 1, 15, 600])
def test_another_interval_is_refused_with_those_that_there_are(seconds: Any) -> None:
    with pytest.raises(
        ValueError, match=rf"'interval_seconds' \({seconds}\) must be one of: 10, 30, 60, 120, 180, 240, 300"
    ):
        Metrics(interval_seconds=seconds)


def test_the_intervals_are_those_of_the_service_model() -> None:
    shape = botocore.session.get_session().get_service_model("sagemaker").shape_for("MetricsConfig")
    text = shape.members["MetricPublishFrequencyInSeconds"].documentation
    listed = re.search(r"Valid values:(.*?)\.", text)
    assert listed is not None
    for seconds in map(int, re.findall(r"\d+", listed[1])):
        assert Metrics(interval_seconds=seconds).interval_seconds == seconds  # type: ignore[arg-type]


def test_a_serverless_endpoint_is_told_that_they_are_not_described_for_it(stack: Stack) -> None:
    endpoint(stack, hosting=Serverless(), metrics=Metrics(detailed=True))
    assert metrics_of(stack) == {"EnableDetailedObservability": True}
    Annotations.from_stack(stack).has_warning("*", Match.string_like_regexp("'metrics' is described for real-time"))


# alarms in PromQL


def test_alarms_on_the_containers_metrics_ask_for_this_endpoint(stack: Stack) -> None:
    made = endpoint(stack, monitoring=Monitoring(container_alarms={"waiting": 16, "cache": 90, "failures": 0}))
    labels = '"aws.sagemaker.endpoint.name"="bloom","aws.sagemaker.variant.name"="AllTraffic"'
    assert sorted(queries(stack).values()) == [
        f'60 * sum(rate(extended_dlc_requests_total{{{labels},status="5xx"}}[5m])) > 0',
        f"max(extended_dlc_kv_cache_usage_perc{{{labels}}}) > 0.9",
        f"max(extended_dlc_num_requests_waiting{{{labels}}}) > 16",
    ]
    assert made.watch is not None
    assert set(made.watch.container_alarms) == {"waiting", "cache", "failures"}
    assert not set(made.watch.alarms) & {"waiting", "cache", "failures"}


def test_none_of_them_is_there_unless_it_is_named(stack: Stack) -> None:
    endpoint(stack, monitoring=Monitoring())
    assert queries(stack) == {}


def test_none_of_them_rolls_an_update_back(stack: Stack) -> None:
    monitoring = Monitoring(container_alarms={"failures": 0, "waiting": 1})
    endpoint(stack, hosting=RealTime(instances=2), rollout=Canary(), monitoring=monitoring)
    template = Template.from_stack(stack)
    (deployed,) = template.find_resources("AWS::SageMaker::Endpoint").values()
    named = json.dumps(deployed["Properties"]["DeploymentConfig"]["AutoRollbackConfiguration"])
    assert "ServerErrors" in named
    assert not [key for key in queries(stack) if key in named]


def test_each_variant_and_component_is_asked_for_by_its_name(stack: Stack) -> None:
    variants = RealTime(variants=[Variant(name="Next", weight=1)])
    endpoint(stack, hosting=variants, monitoring=Monitoring(container_alarms={"waiting": 1}))
    found = "".join(queries(stack).values())
    assert '"aws.sagemaker.variant.name"="AllTraffic"' in found
    assert '"aws.sagemaker.variant.name"="Next"' in found


def test_a_component_is_asked_for_by_its_name(stack: Stack) -> None:
    made = endpoint(stack, hosting=SHARED, monitoring=Monitoring(container_alarms={"waiting": 1}))
    (query,) = queries(stack).values()
    assert '"aws.sagemaker.inference_component.name"="text"' in query
    assert "variant" not in query
    assert made.watch is not None
    assert list(made.watch.container_alarms) == ["text/waiting"]


def test_they_tell_the_topic_and_go_with_the_endpoint(stack: Stack) -> None:
    monitoring = Monitoring(container_alarms={"waiting": 1}, alarm_topic="new")
    endpoint(stack, monitoring=monitoring, schedule=ByHand())
    found = Template.from_stack(stack).find_resources(
        "AWS::CloudWatch::Alarm", {"Properties": {"EvaluationCriteria": Match.any_value()}}
    )
    (alarm,) = found.values()
    assert alarm["Condition"]
    assert len(alarm["Properties"]["AlarmActions"]) == len(alarm["Properties"]["OKActions"]) == 1
    assert alarm["Properties"]["EvaluationInterval"] == 60


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"metrics": Metrics(detailed=False)}, r"'metrics.detailed' \(false\) publishes nothing that"),
        ({"hosting": Serverless()}, "'monitoring.container_alarms' does not go with Serverless"),
        ({"own_server": False}, "ask what this project's own server tells, and no container has it"),
    ],
)
def test_alarms_on_what_nobody_publishes_are_refused(stack: Stack, options: Json, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        endpoint(stack, monitoring=Monitoring(container_alarms={"waiting": 1}), **options)


def test_an_alarm_that_is_none_is_refused_with_the_nearest() -> None:
    with pytest.raises(ValueError, match="'container_alarms' \\(wating\\) is no alarm; did you mean 'waiting'"):
        Monitoring(container_alarms={"wating": 1})  # type: ignore[dict-item]
    with pytest.raises(ValueError, match=r"'container_alarms.waiting' \(-1\) must be 0 or more"):
        Monitoring(container_alarms={"waiting": -1})


def test_the_queries_name_metrics_that_the_server_has() -> None:
    code = (Path(__file__).parents[2] / "docker/inference/extended_dlc_server/routes/metrics.py").read_text()
    for query in [*(kind.query for kind in CONTAINER_ALARMS.values()), *QUERIES.values()]:
        for name in re.findall(r"extended_dlc_(\w+)", query):
            assert f'"{name.removesuffix("_total")}"' in code, name


# the dashboard


def test_the_dashboard_says_how_to_ask_the_containers_metrics(stack: Stack) -> None:
    endpoint(stack, monitoring=Monitoring())
    (board,) = Template.from_stack(stack).find_resources("AWS::CloudWatch::Dashboard").values()
    text = json.dumps(board["Properties"]["DashboardBody"])
    assert "extended_dlc_num_requests_waiting" in text
    for namespace in ("AWS/SageMaker", "/aws/sagemaker/Endpoints"):
        assert namespace in text


@pytest.mark.parametrize("options", [{"own_server": False}, {"hosting": Serverless()}])
def test_a_dashboard_without_those_metrics_does_not_name_them(stack: Stack, options: Json) -> None:
    endpoint(stack, monitoring=Monitoring(), **options)
    (board,) = Template.from_stack(stack).find_resources("AWS::CloudWatch::Dashboard").values()
    assert "extended_dlc_" not in json.dumps(board["Properties"]["DashboardBody"])


# a metric of each of SageMaker's namespaces


@pytest.mark.parametrize(
    ("name", "component", "namespace"),
    [
        ("Invocations", None, "AWS/SageMaker"),
        ("ModelLatency", "text", "AWS/SageMaker"),
        ("CPUUtilization", None, "/aws/sagemaker/Endpoints"),
        ("GPUMemoryUtilization", None, "/aws/sagemaker/Endpoints"),
        ("DiskUtilization", None, "/aws/sagemaker/Endpoints"),
        ("MemoryUtilizationNormalized", "text", "/aws/sagemaker/InferenceComponents"),
        ("GPUReservation", "text", "/aws/sagemaker/InferenceComponents"),
        ("ServerlessProvisionedConcurrencyUtilization", None, "AWS/SageMaker"),
        ("ConcurrentRequestsPerModel", None, "AWS/SageMaker"),
    ],
)
def test_a_metric_is_in_the_namespace_where_sagemaker_publishes_it(
    stack: Stack, name: str, component: str | None, namespace: str
) -> None:
    found = endpoint(stack).metric(name, component=component)
    assert (found.namespace, found.metric_name) == (namespace, name)
    wanted = {"InferenceComponentName": "text"} if component else {"EndpointName": "bloom", "VariantName": "AllTraffic"}
    assert found.dimensions == wanted


# a shell


CHANNELS = {f"ssmmessages:{verb}{kind}Channel" for verb in ("Create", "Open") for kind in ("Control", "Data")}


def actions(stack: Stack) -> set[str]:
    found = Template.from_stack(stack).find_resources("AWS::IAM::Policy").values()
    statements = [one for each in found for one in each["Properties"]["PolicyDocument"]["Statement"]]
    listed = [one["Action"] for one in statements]
    return {one for each in listed for one in (each if isinstance(each, list) else [each])}


@pytest.mark.parametrize(
    "hosting",
    [
        RealTime(ssm_access=True),
        Async(ssm_access=True),
        RealTime(variants=[Variant(name="Next", ssm_access=True)]),
        Components(maximum=1, components=[Component(name="a", memory_mb=512)], ssm_access=True),
    ],
)
def test_the_role_lets_the_agent_of_a_shell_speak(stack: Stack, hosting: Any) -> None:
    made = endpoint(stack, hosting=hosting)
    person = iam.Role(stack, "Person", assumed_by=iam.AccountRootPrincipal())
    made.grant_shell(person)
    assert actions(stack) >= CHANNELS | {"ssm:StartSession", "ssm:TerminateSession"}


def test_without_a_shell_nobody_has_rights_to_one(stack: Stack) -> None:
    made = endpoint(stack)
    assert not any(each.startswith("ssm") for each in actions(stack))
    with pytest.raises(ValueError, match="'grant_shell' needs instances with 'ssm_access'"):
        made.grant_shell(iam.Role(stack, "Person", assumed_by=iam.AccountRootPrincipal()))


def test_a_shell_in_an_isolated_container_is_annotated(stack: Stack) -> None:
    bucket = s3.Bucket.from_bucket_name(stack, "Bucket", "weights")
    model = S3Model(bucket, "bloom/", model_type="bloom")
    image = ExtendedDlc(stack, "Image", transformers="5.23.0", base=BASE)
    HuggingFaceEndpoint(
        stack, "Bloom", model=model, image=image, hosting=RealTime(ssm_access=True), network_isolation=True
    )
    Annotations.from_stack(stack).has_warning("*", Match.string_like_regexp("'ssm_access' opens no shell"))
