"""A CDK token in each option: it reaches the template as a reference, or is refused by the option's name."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import aws_cdk as cdk
import pytest
from aws_cdk import Stack
from aws_cdk import aws_ecr as ecr
from aws_cdk import aws_s3 as s3

import extended_dlc
from extended_dlc import (
    _HOMES,
    AllAtOnce,
    Async,
    BacklogScaling,
    Canary,
    CloudBuild,
    Component,
    Components,
    ConcurrencyScaling,
    Consolidation,
    CopyConcurrencyScaling,
    CopyScaling,
    DataCapture,
    EcrImage,
    EvaluationGate,
    ExtendedDlc,
    HubModel,
    HuggingFaceEndpoint,
    ImageStack,
    ImageVersion,
    InferenceCode,
    InvocationScaling,
    InvokableEndpoint,
    Linear,
    LocalBuild,
    Metrics,
    MirroredDataset,
    MirroredModel,
    Monitoring,
    OfficeHours,
    Placement,
    PrefixAware,
    Proof,
    ProvisionedScaling,
    Readers,
    RealTime,
    Rebuilds,
    Rolling,
    S3Data,
    S3Model,
    ScheduledCapacity,
    Serverless,
    StockDlc,
    TrainedModel,
    TrainingCode,
    TrainingInstances,
    TrainingJob,
    TrainingSchedule,
    Variant,
    VllmServing,
)
from extended_dlc.app.described import described
from extended_dlc.options._values import OptionError, holds_token
from tests.support.stacks import ACCOUNT, ENV, new_stack

COMMIT = "a" * 40
PARAMETER = "Later"


def endpoint(stack: Stack, **options: Any) -> None:
    HuggingFaceEndpoint(stack, "E", **{"model": "openai/whisper-base", "image": StockDlc(), **options})


def real_time(stack: Stack, **options: Any) -> None:
    endpoint(stack, hosting=RealTime(**options))


def extended(stack: Stack, **options: Any) -> ExtendedDlc:
    return ExtendedDlc(stack, "Image", **{"transformers": "5.23.0", **options})


def of_components(stack: Stack, component: Mapping[str, Any], **options: Any) -> None:
    first = Component(**{"name": "one", "memory_mb": 1024, **component})
    endpoint(stack, hosting=Components(**{"maximum": 2, "components": [first], **options}))


def training(stack: Stack, **options: Any) -> None:
    code = Path(str(stack.node.get_context("code")))
    image = ExtendedDlc(stack, "TrainingImage", transformers="5.5.3", family="training", accelerator="gpu")
    TrainingJob(stack, "T", **{"code": TrainingCode(str(code)), "image": image, **options})


def gated(stack: Stack, **options: Any) -> None:
    bound = {} if {"at_most", "at_least"} & options.keys() else {"at_most": 1}
    weights = TrainedModel(stack, "Weights", first=HubModel("openai/whisper-base", COMMIT))
    endpoint(stack, model=weights, image=extended(stack))
    training(stack, serves=weights, gate=EvaluationGate(**{"metric": "loss", **bound, **options}))


def images(stack: Stack, **options: Any) -> None:
    made = {"text": ImageVersion(transformers="5.23.0", accelerator="gpu")}
    ImageStack(stack.node.root, "Images", env=ENV, **{"images": made, **options})


def bucket(stack: Stack) -> s3.IBucket:
    return s3.Bucket.from_bucket_name(stack, "Bucket", "given-bucket")


def repository(stack: Stack) -> ecr.IRepository:
    return ecr.Repository.from_repository_name(stack, "Given", "given")


def needs(options: Mapping[str, Any], option: str, **others: Any) -> Mapping[str, Any]:
    """The options that one of them needs beside itself."""
    return {**(others if option in options else {}), **options}


def scaled_at(stack: Stack, options: Mapping[str, Any]) -> None:
    times = [ScheduledCapacity(**{"schedule": "rate(1 day)", "minimum": 1, **options})]
    real_time(stack, scaling=InvocationScaling(maximum=3, requests_per_second=2, schedules=times))


Use = Callable[[Stack, dict[str, Any]], object]

USES: Mapping[type, Use] = {
    AllAtOnce: lambda stack, o: endpoint(stack, rollout=AllAtOnce(**o)),
    Async: lambda stack, o: endpoint(stack, hosting=Async(**o)),
    BacklogScaling: lambda stack, o: endpoint(stack, hosting=Async(scaling=BacklogScaling(**{"maximum": 3, **o}))),
    Canary: lambda stack, o: endpoint(stack, rollout=Canary(**o)),
    CloudBuild: lambda stack, o: endpoint(
        stack, image=extended(stack, build=CloudBuild(**needs(o, "no_proxy", proxy="http://proxy:3128")))
    ),
    Component: of_components,
    Components: lambda stack, o: of_components(stack, {}, **o),
    ConcurrencyScaling: lambda stack, o: real_time(
        stack, scaling=ConcurrencyScaling(**{"maximum": 3, "concurrent_requests": 2, **o})
    ),
    Consolidation: lambda stack, o: of_components(stack, {}, consolidation=Consolidation(**o)),
    CopyConcurrencyScaling: lambda stack, o: of_components(
        stack, {"scaling": CopyConcurrencyScaling(**{"maximum": 3, "concurrent_requests": 2, **o})}
    ),
    CopyScaling: lambda stack, o: of_components(
        stack, {"scaling": CopyScaling(**{"maximum": 3, "requests_per_second": 2, **o})}
    ),
    DataCapture: lambda stack, o: endpoint(stack, data_capture=DataCapture(**o)),
    EcrImage: lambda stack, o: endpoint(
        stack, image=EcrImage(**{"repository": repository(stack), "tag_or_digest": "1", **o})
    ),
    EvaluationGate: lambda stack, o: gated(stack, **o),
    ExtendedDlc: lambda stack, o: endpoint(stack, image=extended(stack, **o)),
    HubModel: lambda stack, o: endpoint(stack, model=HubModel(**{"id": "openai/whisper-base", **o})),
    HuggingFaceEndpoint: lambda stack, o: endpoint(stack, **o),
    ImageStack: lambda stack, o: images(stack, **o),
    InferenceCode: lambda stack, o: endpoint(stack, model=HubModel("openai/whisper-base", code=InferenceCode(**o))),
    InvocationScaling: lambda stack, o: real_time(
        stack, scaling=InvocationScaling(**{"maximum": 3, "requests_per_second": 2, **o})
    ),
    InvokableEndpoint: lambda stack, o: InvokableEndpoint(stack, "I", **o).grant_invoke(
        cdk.aws_iam.Role(stack, "Role", assumed_by=cdk.aws_iam.AccountRootPrincipal())
    ),
    Linear: lambda stack, o: endpoint(stack, rollout=Linear(**o)),
    LocalBuild: lambda stack, o: endpoint(stack, image=extended(stack, build=LocalBuild(**o))),
    Metrics: lambda stack, o: endpoint(stack, metrics=Metrics(**o)),
    MirroredDataset: lambda stack, o: training(
        stack,
        channels={"train": MirroredDataset(stack, "M", **{"dataset": "nyu-mll/glue", "revision": COMMIT, **o})},
    ),
    MirroredModel: lambda stack, o: endpoint(
        stack, model=MirroredModel(stack, "M", **{"model": "openai/whisper-base", "revision": COMMIT, **o})
    ),
    Monitoring: lambda stack, o: endpoint(stack, monitoring=Monitoring(**o)),
    OfficeHours: lambda stack, o: endpoint(stack, schedule=OfficeHours(**{"start": "08:00", "end": "18:00", **o})),
    Proof: lambda stack, o: endpoint(stack, verify=Proof(**needs(o, "tolerance", expected=1))),
    Placement: lambda stack, o: of_components(stack, {"placement": Placement(**{"strategy": "spread", **o})}),
    PrefixAware: lambda stack, o: real_time(
        stack, instances=2, routing=PrefixAware(**{"prefix_length": 2048, "concurrency": 4, **o})
    ),
    ProvisionedScaling: lambda stack, o: endpoint(
        stack,
        hosting=Serverless(provisioned_concurrency=1, scaling=ProvisionedScaling(**{"maximum": 3, **o})),
    ),
    Readers: lambda stack, o: images(stack, readers=Readers(**o)),
    RealTime: lambda stack, o: real_time(stack, **o),
    Rebuilds: lambda stack, o: images(stack, rebuilds=Rebuilds(**o)),
    Rolling: lambda stack, o: endpoint(stack, rollout=Rolling(**o)),
    S3Data: lambda stack, o: training(
        stack, channels={"train": S3Data(**{"bucket": bucket(stack), "prefix": "data/", **o})}
    ),
    S3Model: lambda stack, o: endpoint(stack, model=S3Model(**{"bucket": bucket(stack), "key": "weights/", **o})),
    ScheduledCapacity: scaled_at,
    Serverless: lambda stack, o: endpoint(
        stack, hosting=Serverless(**needs(o, "max_concurrency", provisioned_concurrency=2))
    ),
    StockDlc: lambda stack, o: endpoint(stack, image=StockDlc(**o)),
    TrainingInstances: lambda stack, o: training(
        stack, instances=TrainingInstances(**needs(o, "max_wait_seconds", spot=True, checkpoints=True))
    ),
    TrainingJob: lambda stack, o: training(stack, **o),
    TrainingSchedule: lambda stack, o: training(stack, schedule=TrainingSchedule(**{"expression": "rate(1 day)", **o})),
    Variant: lambda stack, o: real_time(stack, variants=[Variant(**{"name": "second", **o})]),
    VllmServing: lambda stack, o: endpoint(
        stack,
        model="Qwen/Qwen3-8B",
        image=extended(stack, family="vllm"),
        hosting=RealTime(instance_type="ml.g5.2xlarge"),
        vllm=VllmServing(**o),
    ),
}
"""How each class of options comes into an app, with one of its options set."""

WITHOUT: Mapping[str, str] = {
    "AllowedFinding": "its date and name are compared by the build",
    "Functions": "its one number is that of a Lambda function, by way of `PlatformDefaults`",
    "ImageVersion": "as of `ExtendedDlc`",
    "PlatformDefaults": "a rule is compared at synth",
    "PlacedModel": "what a model of a user's own class gives, as a construct takes it",
    "PrivateAccess": "names of services are those of a table",
    "PublishedImage": "what an image of a user's own class gives, as a construct takes it",
    "Switch": "names of a stack's resources and parameters",
    "TrainingCode": "a folder",
}
"""Classes with options of which no test below puts a token into an app, and why."""


def cases() -> Iterator[tuple[type, str, str]]:
    """The class, the option and the kind of token, for each option that is a text, a number or several of these."""
    for kind in USES:
        for option in described(_HOMES[kind.__name__], kind.__name__):
            for token in _tokens_for(option.annotation):
                yield kind, option.name, token


def _tokens_for(annotation: str) -> tuple[str, ...]:
    mapping = re.search(r"Mapping\[(\w+), (\w+)", annotation)
    if mapping is not None:
        keys = {"str": "epochs", "AlarmName": "model-latency", "ContainerAlarmName": "waiting"}
        return (
            (f"{mapping[1] and keys[mapping[1]]}={mapping[2]}",) if mapping[1] in keys and mapping[2] in _VALUES else ()
        )
    if re.search(r"Sequence\[.*\bstr\b", annotation):
        return ("list", "elements")
    if re.search(r"\b(int|float|Interval)\b", annotation):
        return ("number",)
    return ("text",) if re.search(r"\b(str|Any)\b", annotation) else ()


_VALUES = ("str", "float", "HyperParameter")


def value(stack: Stack, token: str) -> Any:
    kinds = {"number": "Number", "float": "Number", "list": "CommaDelimitedList"}
    name, _, inner = token.rpartition("=")
    parameter = cdk.CfnParameter(stack, PARAMETER, type=kinds.get(inner, "String"))
    read = {"Number": "value_as_number", "CommaDelimitedList": "value_as_list"}
    given = getattr(parameter, read.get(parameter.type, "value_as_string"))
    return {name: given} if name else [given] if token == "elements" else given


def refused(make: Callable[[], object]) -> str:
    """The refusal of an option; empty where it is taken."""
    try:
        make()
    except ValueError as error:
        return str(error)
    return ""


@pytest.mark.thorough  # an app for each of some 250 options
@pytest.mark.parametrize(("kind", "option", "token"), list(cases()))
def test_a_token_reaches_the_template_or_is_refused_by_the_options_name(
    kind: type, option: str, token: str, tmp_path: Path
) -> None:
    for name in ("train.py", "evaluate.py"):
        (tmp_path / name).write_text("")
    app = cdk.App(context={"code": str(tmp_path)})
    scope: Stack = new_stack(app, account=ACCOUNT)
    given = value(scope, token)
    if refusal := refused(lambda: USES[kind](scope, {option: given})):
        assert re.match(rf"'(\w+\.)*{option}['.]", refusal)
        assert not re.search(r"oken\[|e\+289", refusal)
        return
    templates = json.dumps([each.template for each in app.synth().stacks])
    # A token whose text was cut, changed or computed with stays in the template as it is in Python.
    assert not re.search(r"e\+2[89]\d|oken\[", templates, re.IGNORECASE)
    assert PARAMETER in templates.replace(f'"{PARAMETER}": {{"Type"', ""), "the token is lost"


def test_each_class_of_options_has_its_tokens_tried_or_a_reason() -> None:
    with_options = {
        name
        for name in _HOMES
        if isinstance(getattr(extended_dlc, name), type)
        and any(_tokens_for(each.annotation) for each in described(_HOMES[name], name))
    }
    assert with_options == {kind.__name__ for kind in USES} | WITHOUT.keys()


@pytest.fixture(scope="module")
def later() -> tuple[str, float, list[str]]:
    scope = cdk.Stack(cdk.App(), "Tokens")
    text, number = cdk.CfnParameter(scope, "A"), cdk.CfnParameter(scope, "B", type="Number")
    return text.value_as_string, number.value_as_number, cdk.Token.as_list(cdk.Fn.ref("C"))


def test_what_a_synth_computes_or_builds_with_must_be_known(later: tuple[str, Any, list[str]], stack: Stack) -> None:
    text, number, several = later
    refused: Mapping[str, Callable[[], object]] = {
        "requests_per_second": lambda: InvocationScaling(maximum=2, requests_per_second=number),
        "safety_factor": lambda: CopyScaling(maximum=2, requests_per_second=1, safety_factor=number),
        "alarms.model-latency": lambda: Monitoring(alarms={"model-latency": number}),
        "container_alarms.waiting": lambda: Monitoring(container_alarms={"waiting": number}),
        "name": lambda: Variant(name=text),
        "request": lambda: Proof(request={"inputs": [text]}),
        "requirements": lambda: InferenceCode(requirements=[f"transformers=={text}"]),
        "parameters": lambda: HubModel("gpt2", parameters=number),
        "model_type": lambda: S3Model(bucket(stack), "weights/", model_type=text),
        "cuda": lambda: EcrImage(repository(stack), "1", cuda=text),
        "rebuild": lambda: extended(stack, rebuild=text),
        "region": lambda: StockDlc(region=text),
    }
    for option, make in refused.items():
        with pytest.raises(OptionError, match=rf"'{option}' \(a CDK token\) must be known at synth, because .+: pass"):
            make()
    lists: Mapping[str, Callable[[], object]] = {
        "alarms": lambda: Canary(alarms=several),
        "accounts": lambda: Readers(accounts=several),
        "parameters": lambda: CloudBuild(parameters=several),
        "no_proxy": lambda: CloudBuild(proxy="http://proxy", no_proxy=several),
    }
    for option, make in lists.items():
        with pytest.raises(OptionError, match=rf"'{option}' \(a CDK token\) must be a list whose length is known"):
            make()
    for option, make in {
        "start": lambda: OfficeHours(start=text, end="18:00"),
        "key": lambda: S3Model(bucket(cdk.Stack()), text),
        "code_artifact": lambda: CloudBuild(code_artifact=text),
    }.items():
        with pytest.raises(OptionError, match=rf"'{option}' \(a CDK token\) (must be|is neither) a"):
            make()


def test_what_is_only_passed_on_may_be_a_token(later: tuple[str, Any, list[str]], stack: Stack) -> None:
    text, number, _ = later
    ScheduledCapacity(schedule=text, minimum=number, timezone=text)
    TrainingSchedule(expression=text, timezone=text)
    OfficeHours(start="08:00", end="18:00", timezone=text)
    Rebuilds(schedule=text, timezone=text)
    Metrics(interval_seconds=number)
    VllmServing(gpu_memory_utilization=number)
    CloudBuild(code_artifact=f"{text}/python", parameters=[f"eu-west-1:/images/{text}", text])
    S3Model(bucket(stack), f"{text}/weights/")
    assert holds_token({"a": [1, {"b": text}]})
    assert not holds_token({"a": [1, {"b": "text"}], "c": Path("folder")})


def test_a_model_whose_id_is_a_token_is_not_called_none(stack: Stack) -> None:
    endpoint(stack, model=HubModel(cdk.CfnParameter(stack, "Model").value_as_string))
    warnings = cdk.assertions.Annotations.from_stack(stack).find_warning("*", cdk.assertions.Match.any_value())
    said = [str(each.entry.data) for each in warnings]
    assert any("the model has no revision" in each for each in said)
    assert not any("None" in each for each in said)


def test_the_memory_of_serverless_may_be_a_token(stack: Stack) -> None:
    memory = cdk.CfnParameter(stack, "Memory", type="Number")
    endpoint(stack, hosting=Serverless(memory_mb=memory.value_as_number))  # type: ignore[arg-type]
    (config,) = cdk.assertions.Template.from_stack(stack).find_resources("AWS::SageMaker::EndpointConfig").values()
    (variant,) = config["Properties"]["ProductionVariants"]
    assert variant["ServerlessConfig"]["MemorySizeInMB"] == {"Ref": "Memory"}


def test_a_parameters_name_is_not_cut_at_a_tokens_colon(stack: Stack) -> None:
    name = cdk.Fn.join("", ["/", cdk.Aws.STACK_NAME])
    extended(stack, accelerator="cpu", build=CloudBuild(parameters=[name]))
    policies = json.dumps(cdk.assertions.Template.from_stack(stack).find_resources("AWS::IAM::Policy"))
    assert "Token[" not in policies
    assert '":parameter/", {"Ref": "AWS::StackName"}' in policies
