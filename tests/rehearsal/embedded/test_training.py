"""Training jobs and state machines of the embedded AWS, with an engine that runs processes instead of containers."""

from __future__ import annotations

import io
import json
import tarfile
import time
import urllib.request
from typing import Any

import pytest
from botocore.exceptions import ClientError

from tests.support.embedded import Aws, deploy, events, wait_for
from tests.support.training import BUCKET, channel, new_function, request, role


def described(aws: Aws, name: str) -> dict[str, Any]:
    found: dict[str, Any] = aws.client("sagemaker").describe_training_job(TrainingJobName=name)
    return found


def ended(aws: Aws, name: str) -> dict[str, Any]:
    wait_for(lambda: described(aws, name)["TrainingJobStatus"] not in ("InProgress", "Stopping"), 40)
    return described(aws, name)


def run(aws: Aws, name: str, **more: Any) -> dict[str, Any]:
    aws.client("sagemaker").create_training_job(**request(name, **more))
    return ended(aws, name)


def archive(aws: Aws, key: str) -> dict[str, bytes]:
    content = aws.client("s3").get_object(Bucket=BUCKET, Key=key)["Body"].read()
    with tarfile.open(fileobj=io.BytesIO(content), mode="r:gz") as packed:
        return {each.name: packed.extractfile(each).read() for each in packed if each.isfile()}  # type: ignore[union-attr]


def logged(aws: Aws, name: str) -> list[str]:
    client = aws.client("logs")
    group = "/aws/sagemaker/TrainingJobs"
    streams = client.describe_log_streams(logGroupName=group, logStreamNamePrefix=f"{name}/")["logStreams"]
    return [
        event["message"]
        for stream in streams
        for event in client.get_log_events(logGroupName=group, logStreamName=stream["logStreamName"])["events"]
    ]


def test_a_job_gets_its_files_and_leaves_model_output_metrics_and_log(training: Aws) -> None:
    done = run(training, "whole", Environment={"MY_VARIABLE": "seen"}, HyperParameters={"steps": "2"})
    assert done["TrainingJobStatus"] == done["SecondaryStatus"] == "Completed"
    assert done["ModelArtifacts"]["S3ModelArtifacts"] == f"s3://{BUCKET}/out/whole/output/model.tar.gz"
    model = archive(training, "out/whole/output/model.tar.gz")
    # a prefix that ends with '/' is a folder: data/train-not is another
    assert json.loads(model["weights.json"]) == ["train/more/two.txt", "train/one.txt"]
    assert json.loads(archive(training, "out/whole/output/output.tar.gz")["metrics.json"]) == {"eval_loss": 0.5}
    (metric,) = done["FinalMetricDataList"]
    assert (metric["MetricName"], metric["Value"]) == ("train:loss", 1.5)
    assert [each["Status"] for each in done["SecondaryStatusTransitions"]] == [
        *("Starting", "Downloading", "Training", "Uploading", "Completed")
    ]
    lines = logged(training, "whole")
    assert "arguments ['train'] whole seen" in lines
    assert "network host" in lines
    points = training.client("cloudwatch").list_metrics(Namespace="/aws/sagemaker/TrainingJobs")["Metrics"]
    assert {"Name": "TrainingJobName", "Value": "whole"} in [one for each in points for one in each["Dimensions"]]
    listed = training.client("sagemaker").list_training_jobs(NameContains="whole")["TrainingJobSummaries"]
    assert [each["TrainingJobStatus"] for each in listed] == ["Completed"]


def test_a_model_can_stay_files_and_an_isolated_job_has_no_network(training: Aws) -> None:
    output = {"S3OutputPath": f"s3://{BUCKET}/files/", "CompressionType": "NONE"}
    done = run(training, "files", OutputDataConfig=output, EnableNetworkIsolation=True)
    assert done["ModelArtifacts"]["S3ModelArtifacts"] == f"s3://{BUCKET}/files/files/output/model/"
    keys = [each["Key"] for each in training.client("s3").list_objects_v2(Bucket=BUCKET, Prefix="files/")["Contents"]]
    # only the model can be uploaded uncompressed
    model = [f"files/files/output/model/{name}" for name in ("config.json", "model.safetensors", "weights.json")]
    assert keys == [*model, "files/files/output/output.tar.gz"]
    assert "network none" in logged(training, "files")


def test_a_script_that_fails_says_why_in_the_jobs_reason(training: Aws) -> None:
    done = run(training, "fails", HyperParameters={"fail": "the data has no labels"})
    assert done["TrainingJobStatus"] == done["SecondaryStatus"] == "Failed"
    assert done["FailureReason"] == "AlgorithmError: the data has no labels, exit code: 3"
    assert "ModelArtifacts" not in done


def test_a_manifest_of_objects_that_are_not_there_fails_before_a_container_runs(training: Aws) -> None:
    manifest = json.dumps([{"prefix": f"s3://{BUCKET}/"}])
    training.client("s3").put_object(Bucket=BUCKET, Key="empty.manifest", Body=manifest.encode())
    source = {"S3DataType": "ManifestFile", "S3Uri": f"s3://{BUCKET}/empty.manifest"}
    given = {**channel("train", ""), "DataSource": {"S3DataSource": source}}
    done = run(training, "empty", InputDataConfig=[given])
    assert done["FailureReason"].startswith("ClientError: Data download failed:No S3 objects found under S3 URL")
    assert [each["Status"] for each in done["SecondaryStatusTransitions"]] == ["Starting", "Downloading", "Failed"]


def test_a_job_that_is_stopped_hears_sigterm_and_keeps_what_it_wrote(training: Aws) -> None:
    client = training.client("sagemaker")
    client.create_training_job(**request("stopped", HyperParameters={"steps": "100", "pause": "0.2"}))
    wait_for(lambda: bool(described(training, "stopped")["FinalMetricDataList"]))
    client.stop_training_job(TrainingJobName="stopped")
    done = ended(training, "stopped")
    assert done["TrainingJobStatus"] == done["SecondaryStatus"] == "Stopped"
    assert "SIGTERM heard" in logged(training, "stopped")
    assert archive(training, "out/stopped/output/model.tar.gz")["stopped"] == b"yes"


def test_a_job_that_takes_too_long_ends_and_is_no_failure(training: Aws) -> None:
    limits = {"MaxRuntimeInSeconds": 1}
    done = run(training, "long", StoppingCondition=limits, HyperParameters={"steps": "100", "pause": "0.2"})
    assert (done["TrainingJobStatus"], done["SecondaryStatus"]) == ("Stopped", "MaxRuntimeExceeded")


def test_a_spot_job_whose_capacity_goes_resumes_from_its_checkpoints(training: Aws) -> None:
    training.client("sagemaker").create_training_job(
        **request(
            "spot",
            EnableManagedSpotTraining=True,
            StoppingCondition={"MaxRuntimeInSeconds": 600, "MaxWaitTimeInSeconds": 1200},
            CheckpointConfig={"S3Uri": f"s3://{BUCKET}/checkpoints/spot"},
            HyperParameters={"steps": "8", "pause": "0.5"},
        )
    )
    client = training.client("s3")
    prefix = {"Bucket": BUCKET, "Prefix": "checkpoints/spot/"}
    wait_for(lambda: client.list_objects_v2(**prefix).get("KeyCount", 0) >= 2)
    assert training.request("POST", "/_embedded/training-jobs/spot/interruption?seconds=5").status == 204
    done = ended(training, "spot")
    assert done["TrainingJobStatus"] == "Completed"
    statuses = [each["Status"] for each in done["SecondaryStatusTransitions"]]
    assert statuses.index("Interrupted") < statuses.index("Starting", 1)
    begun = [int(line.split()[-1]) for line in logged(training, "spot") if line.startswith("begins at")]
    assert sorted(begun)[0] == 0
    assert sorted(begun)[1] >= 2  # not from the beginning
    assert len(client.list_objects_v2(**prefix)["Contents"]) == 8
    assert "stopped" not in archive(training, "out/spot/output/model.tar.gz")  # the first container wrote that one
    assert training.request("POST", "/_embedded/training-jobs/spot/interruption").status == 404  # the job has ended


@pytest.mark.parametrize(
    ("more", "message"),
    [
        ({"EnableManagedSpotTraining": True}, "Invalid MaxWaitTimeInSeconds"),
        (
            {"StoppingCondition": {"MaxRuntimeInSeconds": 60, "MaxWaitTimeInSeconds": 60}},
            "MaxWaitTimeInSeconds above 0 is not allowed",
        ),
        ({"InputDataConfig": [channel("a", "data/"), channel("a", "data/")]}, "Duplicate channel name"),
    ],
)
def test_what_no_shape_says_is_refused(training: Aws, more: dict[str, Any], message: str) -> None:
    with pytest.raises(ClientError, match=message):
        training.client("sagemaker").create_training_job(**request("refused", **more))


# ---- state machines ----


HANDLER = """
import json, boto3
def handle(event, context):
    if event["do"] == "raise":
        raise ValueError("no such thing")
    arn = boto3.client("sts").get_caller_identity()["Arn"]
    return {"caller": arn, "loss": event["loss"], "accepted": event["loss"] < 2}
"""


@pytest.fixture(scope="module")
def function(training: Aws) -> str:
    return new_function(training, "judge", HANDLER)


def machine(name: str, states: dict[str, Any], first: str) -> dict[str, Any]:
    definition = json.dumps({"StartAt": first, "States": states})
    properties = {"StateMachineName": name, "RoleArn": role("states"), "DefinitionString": definition}
    resource = {"Type": "AWS::StepFunctions::StateMachine", "Properties": properties}
    arn = {"Value": {"Fn::GetAtt": ["Machine", "Arn"]}}
    return {"Resources": {"Machine": resource}, "Outputs": {"Arn": arn}}


def execute(aws: Aws, arn: str, **given: Any) -> dict[str, Any]:
    client = aws.client("stepfunctions")
    started = client.start_execution(stateMachineArn=arn, input=json.dumps(given))["executionArn"]
    wait_for(lambda: client.describe_execution(executionArn=started)["status"] != "RUNNING", 60)
    found: dict[str, Any] = client.describe_execution(executionArn=started)
    return found


def test_a_state_machine_trains_asks_a_function_and_waits_for_both(training: Aws, function: str) -> None:
    job = {key: value for key, value in request("x").items() if key != "TrainingJobName"}
    states = {
        "Train": {
            "Type": "Task",
            "Resource": "arn:aws:states:::sagemaker:createTrainingJob.sync",
            "Parameters": {**job, "TrainingJobName.$": "$.name"},
            "ResultSelector": {
                "artifact.$": "$.ModelArtifacts.S3ModelArtifacts",
                "loss.$": "$.FinalMetricDataList[0].Value",
            },
            "Next": "Pause",
        },
        "Pause": {"Type": "Wait", "Seconds": 600, "Next": "Judge"},
        "Judge": {
            "Type": "Task",
            "Resource": "arn:aws:states:::lambda:invoke",
            "Parameters": {"FunctionName": function, "Payload": {"do": "judge", "loss.$": "$.loss"}},
            "ResultPath": "$.judged",
            "Next": "Look",
        },
        "Look": {
            "Type": "Task",
            "Resource": "arn:aws:states:::aws-sdk:s3:getObjectTagging",
            "Parameters": {"Bucket": BUCKET, "Key": "data/train/one.txt"},
            "ResultPath": "$.tags",
            "End": True,
        },
    }
    stack = deploy(training, "machine", machine("trains", states, "Train"))
    assert stack["StackStatus"] == "CREATE_COMPLETE", events(training, "machine")
    arn = stack["Outputs"][0]["OutputValue"]
    begun = time.monotonic()
    done = execute(training, arn, name="by-states")
    assert done["status"] == "SUCCEEDED", (done.get("error"), done.get("cause"))
    assert time.monotonic() - begun < 60  # ten minutes of Wait states are a second here
    output = json.loads(done["output"])
    assert output["artifact"] == f"s3://{BUCKET}/out/by-states/output/model.tar.gz"
    judged = output["judged"]["Payload"]
    assert judged["accepted"] is True
    assert judged["loss"] == 1.0
    assert ":assumed-role/function/" in judged["caller"]
    changed = machine("trains", {"Done": {"Type": "Pass", "Result": {"new": True}, "End": True}}, "Done")
    assert deploy(training, "machine", changed, update=True)["StackStatus"] == "UPDATE_COMPLETE"
    assert json.loads(execute(training, arn)["output"]) == {"new": True}
    training.client("cloudformation").delete_stack(StackName="machine")
    wait_for(lambda: not training.client("stepfunctions").list_state_machines()["stateMachines"])


def test_a_job_that_fails_is_the_tasks_error_with_its_description_as_the_cause(training: Aws) -> None:
    job = {key: value for key, value in request("x").items() if key != "TrainingJobName"}
    task = {
        "Type": "Task",
        "Resource": "arn:aws:states:::sagemaker:createTrainingJob.sync",
        "Parameters": {**job, "TrainingJobName.$": "$.name", "HyperParameters": {"fail": "no labels"}},
        "Catch": [{"ErrorEquals": ["States.TaskFailed"], "ResultPath": "$.failed", "Next": "Parse"}],
        "End": True,
    }
    states = {
        "Train": task,
        "Parse": {"Type": "Pass", "Parameters": {"cause.$": "States.StringToJson($.failed.Cause)"}, "End": True},
    }
    client = training.client("stepfunctions")
    arn = client.create_state_machine(
        name="fails", definition=json.dumps({"StartAt": "Train", "States": states}), roleArn=role("states")
    )["stateMachineArn"]
    cause = json.loads(execute(training, arn, name="fails-in-states")["output"])["cause"]
    assert cause["FailureReason"] == "AlgorithmError: no labels, exit code: 3"
    assert isinstance(cause["CreationTime"], int)
    plain = {"Train": {key: value for key, value in task.items() if key != "Catch"}}
    arn = client.create_state_machine(
        name="again", definition=json.dumps({"StartAt": "Train", "States": plain}), roleArn=role("states")
    )["stateMachineArn"]
    taken = execute(training, arn, name="fails-in-states")  # a job's name can be used only once
    assert (taken["status"], taken["error"]) == ("FAILED", "SageMaker.ResourceInUseException"), taken.get("cause")


def test_a_shortage_is_the_jobs_reason(training: Aws) -> None:
    body = json.dumps({"shortages": ["ml.m5.4xlarge"]}).encode()
    address = f"{training.url}/_embedded/scenarios"
    urllib.request.urlopen(urllib.request.Request(address, data=body, method="POST"))
    try:
        resources = {"InstanceType": "ml.m5.4xlarge", "InstanceCount": 1, "VolumeSizeInGB": 10}
        done = run(training, "short", ResourceConfig=resources)
    finally:
        urllib.request.urlopen(urllib.request.Request(address, method="DELETE"))
    assert done["FailureReason"].startswith("CapacityError: Unable to provision requested ML compute capacity")


def test_a_function_that_raises_is_an_error_of_the_task(training: Aws, function: str) -> None:
    answer = training.client("lambda").invoke(FunctionName=function, Payload=b'{"do": "raise"}')
    assert answer["FunctionError"]
    error = json.loads(answer["Payload"].read())
    assert (error["errorType"], error["errorMessage"]) == ("ValueError", "no such thing")


def test_work_folders_are_removed(training: Aws) -> None:
    assert (training.state / "training").is_dir()  # other tests of this file have run jobs
    wait_for(lambda: not list((training.state / "training").iterdir()))
