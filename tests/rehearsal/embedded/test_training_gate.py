"""The state machine from a model to the endpoint's stack: the gate beside the live model, and the way back.

The definition, the function and the jobs run; a stack with a parameter stands in for the endpoint's.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from extended_dlc.programs.functions import gate
from extended_dlc.training.machine import GoOver, Plan, definition
from extended_dlc.training.model import UNTRAINED
from tests.support.embedded import Aws, deploy, wait_for
from tests.support.training import BUCKET, new_function, request, role

STACK = "serving"
TEMPLATE = {
    "Parameters": {"Artifact": {"Type": "String", "Default": UNTRAINED}},
    "Resources": {"Served": {"Type": "AWS::SNS::Topic", "Properties": {"DisplayName": {"Ref": "Artifact"}}}},
}


@pytest.fixture(scope="module")
def function(training: Aws) -> str:
    return new_function(training, "gate", Path(gate.__file__).read_text())


@pytest.fixture
def serving(training: Aws) -> Iterator[Aws]:
    assert deploy(training, STACK, TEMPLATE)["StackStatus"] == "CREATE_COMPLETE"
    yield training
    training.client("cloudformation").delete_stack(StackName=STACK)


def machine(aws: Aws, function: str, name: str, judged: dict[str, Any], **arguments: str) -> str:
    def job(**more: Any) -> dict[str, Any]:
        return {key: value for key, value in request("", **more).items() if key != "TrainingJobName"}

    trains = {"S3OutputPath": f"s3://{BUCKET}/models", "CompressionType": "NONE"}
    measures = {"S3OutputPath": f"s3://{BUCKET}/evaluations"}
    plan = Plan(
        partition="aws",
        name=name,
        requests=[job(HyperParameters=arguments, OutputDataConfig=trains)],
        evaluations=[job(HyperParameters={"steps": "0"}, OutputDataConfig=measures, InputDataConfig=[])],
        evaluations_uri=f"s3://{BUCKET}/evaluations/",
        function=function,
        look={"Models": f"s3://{BUCKET}/models/", "Stack": STACK, "Parameter": "Artifact", "Serving": "5.24.0"},
        gate={"metric": "eval_loss", "margin": 0, **judged},
        beside_live=True,
        goes=GoOver(
            stack=STACK,
            parameter="Artifact",
            parameters=[{"ParameterKey": "Artifact", "ParameterValue.$": "$.look.artifact"}],
        ),
    )
    made = aws.client("stepfunctions").create_state_machine(
        name=name, definition=json.dumps(definition(plan)), roleArn=role("states")
    )
    return str(made["stateMachineArn"])


def run(aws: Aws, arn: str, **given: Any) -> dict[str, Any]:
    client = aws.client("stepfunctions")
    execution = client.start_execution(stateMachineArn=arn, input=json.dumps(given))["executionArn"]
    wait_for(lambda: client.describe_execution(executionArn=execution)["status"] != "RUNNING", 60)
    found: dict[str, Any] = client.describe_execution(executionArn=execution)
    return found


def served(aws: Aws) -> str:
    (stack,) = aws.client("cloudformation").describe_stacks(StackName=STACK)["Stacks"]
    return str(stack["Parameters"][0]["ParameterValue"])


def model(aws: Aws, name: str, **measures: Any) -> str:
    """A model of an earlier run, with what its evaluation writes."""
    prefix = f"models/{name}/output/model/"
    for file, content in (("config.json", json.dumps(measures).encode()), ("model.safetensors", b"")):
        aws.client("s3").put_object(Bucket=BUCKET, Key=prefix + file, Body=content)
    return f"s3://{BUCKET}/{prefix}"


@pytest.mark.parametrize(
    ("bound", "live", "new"),
    [
        pytest.param({"at_most": 3.0}, 2.0, 2.5, id="loss"),
        pytest.param({"at_least": 0.2}, 0.9, 0.5, id="accuracy", marks=pytest.mark.thorough),
    ],
)
def test_a_worse_model_is_refused_beside_the_live_one_and_an_earlier_one_is_gone_back_to(
    serving: Aws, function: str, bound: dict[str, float], live: float, new: float
) -> None:
    name = next(iter(bound)).replace("_", "-")
    worse = machine(serving, function, f"worse-{name}", bound, reaches=str(new))
    first = run(serving, worse)
    assert first["status"] == "SUCCEEDED", (first.get("error"), first.get("cause"))
    earlier = json.loads(first["output"])["artifact"]
    assert (json.loads(first["output"])["before"], served(serving)) == ("", earlier)

    better = run(serving, machine(serving, function, f"better-{name}", bound, reaches=str(live)))
    assert better["status"] == "SUCCEEDED", (better.get("error"), better.get("cause"))
    assert json.loads(better["output"])["before"] == earlier

    refused = run(serving, worse)
    assert (refused["status"], refused["error"]) == ("FAILED", "GateRefused")
    assert (
        refused["cause"]
        == f"eval_loss is {new:g} and worse than the live model's {live:g}: the endpoint stays as it is"
    )
    assert served(serving) == json.loads(better["output"])["artifact"]

    # every model that the gate has replaced was measured worse: beside the live one, none could be gone back to
    back = run(serving, worse, artifact=earlier)
    assert back["status"] == "SUCCEEDED", (back.get("error"), back.get("cause"))
    assert served(serving) == earlier


@pytest.mark.thorough
def test_a_model_that_is_no_measurement_leaves_the_endpoint_and_says_what_was_measured(
    serving: Aws, function: str
) -> None:
    judges = machine(serving, function, "judges", {"at_most": 3.0}, reaches="2")
    for measures, says in (
        ({"eval_loss": float("nan")}, "the evaluation's 'eval_loss' is NaN, and no number: the model cannot be judged"),
        ({"loss": 1}, "the evaluation's metrics.json has no 'eval_loss', but loss: name one of those"),
        ({"eval_loss": 3.5}, "eval_loss is 3.5 and must be at most 3: the endpoint stays as it is"),
    ):
        done = run(serving, judges, artifact=model(serving, "odd", **measures))
        assert (done["error"], done["cause"]) == ("GateRefused", says)
    assert served(serving) == UNTRAINED


@pytest.mark.thorough
def test_a_live_model_that_cannot_be_measured_any_more_is_named_as_what_failed(serving: Aws, function: str) -> None:
    judges = machine(serving, function, "beside", {"at_most": 3.0}, reaches="2")
    old = model(serving, "old", eval_loss=1)
    assert run(serving, judges, artifact=old)["status"] == "SUCCEEDED"
    model(serving, "old", unreadable="'bloom'")
    done = run(serving, judges)
    assert (done["status"], done["error"]) == ("FAILED", "JobFailed")
    assert done["cause"].startswith("evaluation of the live model beside-")
    assert done["cause"].endswith(": AlgorithmError: KeyError: 'bloom', exit code: 1")
    assert served(serving) == old
