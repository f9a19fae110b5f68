"""`extended-dlc train` and a training's state machine on the embedded AWS: started, followed, stopped, failed."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from extended_dlc.cli import main
from extended_dlc.training.follow import Run
from extended_dlc.training.machine import Plan, definition
from tests.support.embedded import REGION, Aws, command, wait_for
from tests.support.training import BUCKET, request, role


def machine(aws: Aws, name: str, *requests: dict[str, Any]) -> str:
    """The construct's state machine with the test's jobs."""
    plan = Plan(partition="aws", name=name, requests=[*requests])
    made = aws.client("stepfunctions").create_state_machine(
        name=name, definition=json.dumps(definition(plan)), roleArn=role("states")
    )
    return str(made["stateMachineArn"])


def job(**more: Any) -> dict[str, Any]:
    output = {"S3OutputPath": f"s3://{BUCKET}/models", "CompressionType": "NONE"}
    defaults = {"HyperParameters": {"steps": "2"}, "OutputDataConfig": output}
    return {key: value for key, value in request("", **(defaults | more)).items() if key != "TrainingJobName"}


def on(instance_type: str) -> dict[str, Any]:
    return {"ResourceConfig": {"InstanceType": instance_type, "InstanceCount": 1, "VolumeSizeInGB": 10}}


def train(aws: Aws, *arguments: str) -> Result:
    return command(aws, "train", *arguments, EXTENDED_DLC_TRAIN_SECONDS="0.2")


def test_a_run_is_followed_to_its_artefact_with_log_and_metrics(training: Aws) -> None:
    done = train(training, machine(training, "good", job()))
    assert done.exit_code == 0, done.output
    lines = done.stdout.splitlines()
    (name,) = [line.split()[1] for line in lines if line.startswith("job ")]
    assert name.startswith("good-")
    assert "trains" in lines
    assert "  Completed on 1 x ml.m5.xlarge" in lines
    assert "  | begins at 0" in lines
    assert "  train:loss = 1.5" in lines
    assert lines[-1] == f"done: s3://{BUCKET}/models/{name}/output/model/"


def test_as_json_it_says_what_came_of_it_and_progress_beside_it(training: Aws) -> None:
    done = train(training, machine(training, "json", job()), "--json")
    result = json.loads(done.stdout)
    assert (result["status"], result["metrics"]) == ("SUCCEEDED", {"train:loss": 1.5})
    assert result["artifact"].endswith(f"/{result['jobs'][0]}/output/model/")
    assert "trains" in done.stderr.splitlines()


def test_a_run_that_fails_ends_with_the_containers_own_reason(training: Aws) -> None:
    done = train(training, machine(training, "bad", job(HyperParameters={"fail": "the data has no labels"})))
    assert done.exit_code == 1
    last = done.stdout.splitlines()[-1]
    assert last.startswith("failed: training bad-")
    assert last.endswith(": AlgorithmError: the data has no labels, exit code: 3")


def test_an_empty_channel_is_told_with_its_place(training: Aws) -> None:
    channels = [{**job()["InputDataConfig"][0]}]
    channels[0]["DataSource"] = {"S3DataSource": {"S3DataType": "S3Prefix", "S3Uri": f"s3://{BUCKET}/nothing/"}}
    done = train(training, machine(training, "empty", job(InputDataConfig=channels)))
    assert done.exit_code == 1
    assert f'No S3 objects found under S3 URL "s3://{BUCKET}/nothing/"' in done.stdout


def test_the_next_type_trains_where_sagemaker_is_short_of_the_first(training: Aws) -> None:
    arn = machine(training, "short", job(**on("ml.g5.xlarge")), job(**on("ml.g6.xlarge")))
    training.request("POST", "/_embedded/scenarios", json.dumps({"shortages": ["ml.g5.xlarge"]}).encode(), {})
    try:
        done = train(training, arn, "--json")
    finally:
        training.request("DELETE", "/_embedded/scenarios", b"", {})
    assert done.exit_code == 0, done.output
    assert len(json.loads(done.stdout)["jobs"]) == 2
    assert "  Completed on 1 x ml.g6.xlarge" in done.stderr.splitlines()


def test_a_failure_of_the_first_type_is_no_shortage(training: Aws) -> None:
    failing = job(HyperParameters={"fail": "wrong"}, **on("ml.g5.xlarge"))
    done = train(training, machine(training, "once", failing, job(**on("ml.g6.xlarge"))), "--json")
    assert done.exit_code == 1
    assert len(json.loads(done.stdout)["jobs"]) == 1


def test_a_run_is_left_and_stopped_with_its_job(training: Aws) -> None:
    arn = machine(training, "long", job(HyperParameters={"steps": "500", "pause": "0.2"}))
    started = train(training, arn, "--detach", "--json")
    execution = json.loads(started.stdout)["execution"]
    sagemaker = training.client("sagemaker")

    def jobs() -> list[str]:
        found = sagemaker.list_training_jobs(NameContains="long-")["TrainingJobSummaries"]
        return [each["TrainingJobStatus"] for each in found]

    wait_for(lambda: jobs() == ["InProgress"])
    second = train(training, arn)
    assert second.exit_code == 1
    assert f"({execution.rpartition(':')[2]}), and a second one would train beside it: follow it with" in second.stderr
    assert jobs() == ["InProgress"]
    done = train(training, arn, "--stop")
    assert (done.exit_code, done.stdout.strip()) == (0, f"stopped {execution}")
    wait_for(lambda: training.client("stepfunctions").describe_execution(executionArn=execution)["status"] == "ABORTED")
    none = train(training, arn, "--stop")
    assert none.exit_code == 1
    assert "no run of" in none.stderr
    for each in sagemaker.list_training_jobs(NameContains="long-")["TrainingJobSummaries"]:
        if each["TrainingJobStatus"] == "InProgress":
            sagemaker.stop_training_job(TrainingJobName=each["TrainingJobName"])


class Cloud:
    """One run that has ended, whose log has 100,000 lines on 11 pages, and what CloudWatch and SageMaker say of it."""

    def __init__(self) -> None:
        self.lines = [f"line {number}" for number in range(100_000)]
        self.lines[-2:] = ["\r 50%|##  | 5/10 [00:01]\r100%|####| 10/10 [00:02]", "caf\ufffd ends"]
        self.polls = 0

    def describe_execution(self, **_: Any) -> dict[str, Any]:
        self.polls += 1
        return {"status": "RUNNING" if self.polls < 3 else "SUCCEEDED", "output": "{}"}

    def get_paginator(self, _: str) -> Any:
        return self

    def paginate(self, **_: Any) -> list[dict[str, Any]]:
        output = json.dumps({"TrainingJobArn": "arn:aws:sagemaker:us-east-1:1:training-job/one"})
        return [{"events": [{"id": 1, "taskSubmittedEventDetails": {"output": output}}]}]

    def describe_training_job(self, **_: Any) -> dict[str, Any]:
        metrics = [{"MetricName": "loss", "Value": float("nan")}]
        return {"SecondaryStatus": "Training", "ResourceConfig": {}, "FinalMetricDataList": metrics}

    def describe_log_streams(self, **_: Any) -> dict[str, Any]:
        return {"logStreams": [{"logStreamName": "one/algo-1-1"}]}

    def get_log_events(self, *, nextToken: str = "0", **_: Any) -> dict[str, Any]:
        begin = int(nextToken)
        page = self.lines[begin : begin + 10_000]
        return {"events": [{"message": line} for line in page], "nextForwardToken": str(begin + len(page))}


def test_of_a_long_log_the_last_lines_are_said_and_a_metric_that_is_no_number_once() -> None:
    cloud, lines, bars = Cloud(), list[str](), list[str]()
    run = Run(arn="x", states=cloud, sagemaker=cloud, logs=cloud, say=lines.append, progress=bars.append, seconds=0.0)
    ended = run.follow()
    said = [line for line in lines if line.startswith("  | ")]
    assert said[0] == "  | … 99801 lines, which are in /aws/sagemaker/TrainingJobs, one/algo-1-1"
    assert (said[1], said[-1]) == ("  | line 99801", "  | caf\ufffd ends")
    assert [bar for bar in bars if "100 %" in bar]
    assert [line for line in lines if "loss" in line] == ["  loss = nan"]
    assert json.loads(json.dumps(ended, allow_nan=False))["metrics"] == {"loss": None}


SETTINGS = {
    "region": REGION,
    "image": {"transformers": "5.23.0"},
    "endpoints": {"bloom": {"model": "bloom"}},
}


@pytest.fixture
def settings(tmp_path: Path) -> Path:
    """Settings of a training whose script writes its inputs to a file."""
    (tmp_path / "code").mkdir()
    (tmp_path / "code" / "train.py").write_text(
        "import argparse, json, os\n"
        "parser = argparse.ArgumentParser()\n"
        "parser.add_argument('--epochs', type=int)\n"
        "epochs = parser.parse_args().epochs\n"
        "found = {'epochs': epochs, 'train': os.listdir(os.environ['SM_CHANNEL_TRAIN']), 'model': "
        "os.environ['HF_MODEL_ID']}\n"
        "open(os.path.join(os.environ['SM_MODEL_DIR'], 'found.json'), 'w').write(json.dumps(found))\n"
        "raise SystemExit(epochs == 9)\n"
    )
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "one.txt").write_text("x")
    training = {
        "endpoint": "bloom",
        "code": {"folder": str(tmp_path / "code")},
        "hyperparameters": {"epochs": 2},
        "channels": {"train": {"bucket": "my-data", "prefix": "train/"}},
    }
    file = tmp_path / "settings.json"
    file.write_text(json.dumps({**SETTINGS, "training": {"tune": training}}))
    return file


def here(settings: Path, *arguments: str) -> Result:
    given = ["train", "tune", f"--settings={settings}", "--local", f"--output={settings.parent / 'out'}", *arguments]
    return CliRunner().invoke(main, given)


def test_the_same_script_runs_on_this_machine_with_sagemakers_folders(settings: Path) -> None:
    done = here(settings, "--script", f"--channel=train={settings.parent / 'data'}", "--set=epochs=3", "--json")
    assert done.exit_code == 0, done.output
    result = json.loads(done.stdout)
    found = json.loads((Path(result["model"]) / "found.json").read_text())
    assert found == {"epochs": 3, "train": ["one.txt"], "model": "bigscience/bloom-560m"}
    again = here(settings, "--script", f"--channel=train={settings.parent / 'data'}", "--set=epochs=9")
    assert again.exit_code == 1
    assert "holds the model of an earlier run, with which the new one would be mixed: name another" in again.stderr
    other = settings.parent / "other"
    (other / "output").mkdir(parents=True)
    (other / "output" / "failure").write_text("the reason of an earlier run")
    channel = f"--channel=train={settings.parent / 'data'}"
    failed = here(settings, "--script", channel, "--set=epochs=9", f"--output={other}")
    assert failed.exit_code == 1
    assert "failed with exit code 1: its output above says why" in failed.stderr


def test_what_a_script_does_in_its_own_way_is_told(settings: Path) -> None:
    channel = f"--channel=train={settings.parent / 'data'}"
    unknown = here(settings, "--script", channel, "--set=epoch_count=3")
    assert unknown.exit_code == 1
    assert "'epoch_count' is no argument of train.py" in unknown.stderr
    script = settings.parent / "code" / "train.py"
    script.write_text("import os\nprint(os.environ['SM_MODEL_DIR'])\n")
    elsewhere = here(settings, "--script", channel)
    assert elsewhere.exit_code == 0, elsewhere.output
    assert f"done, and {settings.parent / 'out' / 'model'} is empty: let the script save its model" in elsewhere.stdout
    script.write_text("import os, signal\nos.kill(os.getpid(), signal.SIGKILL)\n")
    killed = here(settings, "--script", channel)
    assert (
        "failed with exit code -9: it was killed (SIGKILL), which happens most where memory runs out" in killed.stderr
    )
    script.write_text(
        "import os\nopen(os.environ['SM_OUTPUT_DIR'] + '/failure', 'w').write('no labels')\nraise SystemExit(4)\n"
    )
    assert "failed with exit code 4: no labels" in here(settings, "--script", channel).stderr
    inside = here(settings, "--script", channel, f"--output={script.parent / 'out'}")
    assert inside.exit_code == 1
    assert f"is in the code's folder ({script.parent}), all of which is packed and uploaded: name a" in inside.stderr
    nowhere = here(settings, "--script", channel, "--output=/proc/nowhere")
    assert nowhere.exit_code == 1
    assert "'--output' (/proc/nowhere) cannot be made" in nowhere.stderr
    both = here(settings, "--script", "--image=tuned:1", channel)
    assert both.exit_code == 2
    assert "--script runs in no container, and --image names one" in both.stderr


def test_what_a_script_prints_is_beside_the_json(settings: Path, capfd: pytest.CaptureFixture[str]) -> None:
    script = settings.parent / "code" / "train.py"
    script.write_text("import sys\nsys.stdout.buffer.write(b'caf\\xe9 0%|\\r 100%|\\n' * 1000)\n")
    done = here(settings, "--script", f"--channel=train={settings.parent / 'data'}", "--json")
    assert json.loads(done.stdout) == {"status": "SUCCEEDED", "exit_code": 0, "model": None}
    assert "is empty: let the script save its model" in done.stderr
    assert capfd.readouterr().out == ""


def test_a_script_that_hears_ctrl_c_may_save_before_it_ends(tmp_path: Path) -> None:
    (tmp_path / "code").mkdir()
    (tmp_path / "code" / "train.py").write_text(
        "import os, time\ntry:\n    print('trains', flush=True)\n    time.sleep(60)\nexcept KeyboardInterrupt:\n"
        "    time.sleep(0.6)\n    open(os.environ['SM_MODEL_DIR'] + '/saved', 'w').close()\n"
    )
    program = (
        "from pathlib import Path\nfrom extended_dlc.options.training import TrainingCode\n"
        "from extended_dlc.training.local import LocalTraining\n"
        "try:\n    LocalTraining(code=TrainingCode('code'), folder=Path('out')).run_script()\n"
        "except KeyboardInterrupt:\n    raise SystemExit(130)\n"
    )
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[3])}
    with subprocess.Popen(
        [sys.executable, "-c", program], cwd=tmp_path, env=environment, stdout=subprocess.PIPE, start_new_session=True
    ) as started:
        assert started.stdout is not None
        assert started.stdout.readline() == b"trains\n"
        os.killpg(started.pid, signal.SIGINT)
        assert started.wait(60) == 130
    assert (tmp_path / "out" / "model" / "saved").is_file()


def test_a_base_that_is_in_s3_on_aws_comes_from_a_folder_or_by_its_commit_from_the_hub(settings: Path) -> None:
    content = json.loads(settings.read_text())
    tune = content["training"]["tune"]
    del tune["endpoint"], tune["channels"]
    (settings.parent / "code" / "train.py").write_text(
        "import json, os\n"
        "told = {name: os.environ.get(name) for name in ('HF_MODEL_ID', 'HF_MODEL_REVISION', 'SM_CHANNEL_MODEL')}\n"
        "open(os.path.join(os.environ['SM_MODEL_DIR'], 'told.json'), 'w').write(json.dumps(list(told.values())))\n"
    )
    data, commit = str(settings.parent / "data"), "0" * 40
    cases: list[tuple[dict[str, Any], list[str], list[str | None]]] = [
        ({"kind": "mirrored"}, [], ["me/model", commit, None]),
        ({"kind": "mirrored"}, [f"--channel=model={data}"], [None, None, data]),
        ({"kind": "s3", "bucket": "my-models", "key": "mine/"}, [f"--channel=model={data}"], [None, None, data]),
    ]
    for number, (weights, given, expected) in enumerate(cases):
        tune["base_model"] = {"model": "me/model", "weights": weights, "revision": commit}
        if weights["kind"] == "s3":
            del tune["base_model"]["revision"]
        settings.write_text(json.dumps(content))
        done = here(settings, "--script", *given, f"--output={settings.parent / str(number)}")
        assert done.exit_code == 0, done.output
        assert json.loads((settings.parent / str(number) / "model" / "told.json").read_text()) == expected
    without = here(settings, "--script")
    assert "channel model of 'tune' is in S3: name a folder of this machine in its place" in without.stderr


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (
            ["--script"],
            "channel train of 'tune' is in S3: name a folder of this machine in its place, --channel train=",
        ),
        (["--script", "--channel=train=/nowhere"], "'--channel' (train=/nowhere) is no folder with files"),
        (["--script", "--channel=train"], "'--channel' (train) is no pair: write it as NAME=VALUE"),
    ],
)
def test_what_cannot_run_here_is_told_with_the_way_out(settings: Path, arguments: list[str], says: str) -> None:
    done = here(settings, *arguments)
    assert done.exit_code == 1
    assert says in done.stderr


def test_a_channel_of_empty_folders_is_refused_and_files_in_folders_are_taken(settings: Path) -> None:
    folder = settings.parent / "channel"
    (folder / "more").mkdir(parents=True)
    done = here(settings, "--script", f"--channel=train={folder}")
    assert (done.exit_code, "is no folder with files: correct the path" in done.stderr) == (1, True)
    (folder / "more" / "one.txt").write_text("x")
    done = here(settings, "--script", f"--channel=train={folder}")
    assert done.exit_code == 0, done.output


def test_without_an_image_the_container_is_asked_for(settings: Path) -> None:
    done = here(settings, f"--channel=train={settings.parent / 'data'}")
    assert done.exit_code == 1
    assert "no image: name one that is on this machine with --image" in done.stderr


def test_a_container_gets_what_sagemaker_gives_it(settings: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    engine = settings.parent / "engine"
    engine.write_text('#!/bin/sh\nprintf "%s\\n" "$@" > ' + str(settings.parent / "called") + "\n")
    engine.chmod(0o755)
    monkeypatch.setenv("CDK_DOCKER", str(engine))
    monkeypatch.setenv("HF_TOKEN", "hf_secret")
    done = here(settings, "--image=tuned:1", f"--channel=train={settings.parent / 'data'}")
    assert done.exit_code == 0, done.output
    called = (settings.parent / "called").read_text().splitlines()
    out = settings.parent / "out"
    assert called[:2] == ["run", "--rm"]
    assert called[-2:] == ["tuned:1", "train"]
    assert f"--volume={settings.parent / 'data'}:/opt/ml/input/data/train:ro" in called
    assert f"--volume={out / 'model'}:/opt/ml/model" in called
    assert "--env=HF_MODEL_ID=bigscience/bloom-560m" in called
    assert "--add-host=algo-1:127.0.0.1" in called  # the toolkit looks the name up before it begins
    assert "--env=HF_TOKEN" in called
    assert not [each for each in called if "hf_secret" in each]
    assert (out / "input" / "data" / "code" / "sourcedir.tar.gz").is_file()
    hyperparameters = json.loads((out / "input" / "config" / "hyperparameters.json").read_text())
    assert (hyperparameters["epochs"], hyperparameters["sagemaker_program"]) == ("2", "train.py")


def test_without_an_engine_the_way_out_is_told(settings: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CDK_DOCKER", "/nowhere/docker")
    done = here(settings, "--image=tuned:1", f"--channel=train={settings.parent / 'data'}")
    assert done.exit_code == 1
    assert "there is no container engine '/nowhere/docker'" in done.stderr


def test_a_name_that_is_no_training_is_told_with_those_there_are(settings: Path) -> None:
    done = CliRunner().invoke(main, ["train", "tun", f"--settings={settings}"])
    assert done.exit_code == 1
    assert "'tun' is no training of the settings; did you mean 'tune'?" in done.stderr
    done = CliRunner().invoke(main, ["train", "tune", f"--settings={settings}", "--stop", "--follow"])
    assert done.exit_code == 2
