"""Training jobs of an embedded AWS, and what they run."""

from __future__ import annotations

import io
import stat
import sys
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from extended_dlc.rehearsal.engine import Engine
from tests.support.embedded import ACCOUNT, Aws, Image, start, uri

BUCKET = "training-jobs"


def role(name: str) -> str:
    return f"arn:aws:iam::{ACCOUNT}:role/{name}"


def channel(name: str, key: str) -> dict[str, Any]:
    source = {"S3DataType": "S3Prefix", "S3Uri": f"s3://{BUCKET}/{key}", "S3DataDistributionType": "FullyReplicated"}
    return {"ChannelName": name, "DataSource": {"S3DataSource": source}}


def request(name: str, **more: Any) -> dict[str, Any]:
    return {
        "TrainingJobName": name,
        "RoleArn": role("job"),
        "AlgorithmSpecification": {
            "TrainingImage": uri("train", "1"),
            "TrainingInputMode": "File",
            "MetricDefinitions": [{"Name": "train:loss", "Regex": "'loss': '?([0-9.]+)"}],
        },
        "InputDataConfig": [channel("train", "data/train/")],
        "OutputDataConfig": {"S3OutputPath": f"s3://{BUCKET}/out"},
        "ResourceConfig": {"InstanceType": "ml.m5.xlarge", "InstanceCount": 1, "VolumeSizeInGB": 10},
        "StoppingCondition": {"MaxRuntimeInSeconds": 600},
        **more,
    }


SCRIPT = """
import json, os, signal, sys, time
from pathlib import Path
ml = {name: Path(os.environ["ML_" + name.upper()]) for name in ("input", "model", "output")}
told = json.loads((ml["input"] / "config/hyperparameters.json").read_text())
print("arguments", sys.argv[1:], os.environ["TRAINING_JOB_NAME"], os.environ.get("MY_VARIABLE"), flush=True)
print("network", os.environ["STUB_NETWORK"], flush=True)
checkpoints = Path(os.environ["ML_CHECKPOINTS"]) if "ML_CHECKPOINTS" in os.environ else None
first = 0
if checkpoints and (done := sorted(checkpoints.glob("step-*"))):
    first = len(done)
print("begins at", first, flush=True)
def stopped(*_):
    print("SIGTERM heard", flush=True)
    (ml["model"] / "stopped").write_text("yes")
    sys.exit(0)
signal.signal(signal.SIGTERM, stopped)
for step in range(first, int(told.get("steps", 3))):
    print("{'loss': '%.2f'}" % (3.0 / (step + 1)), flush=True)
    if checkpoints:
        (checkpoints / f"step-{step}").write_text(str(step))
    time.sleep(float(told.get("pause", 0)))
if "fail" in told:
    (ml["output"] / "failure").write_text(told["fail"])
    sys.exit(3)
data = ml["input"] / "data"
found = sorted(str(each.relative_to(data)) for each in data.rglob("*") if each.is_file())
(ml["model"] / "weights.json").write_text(json.dumps(found))
model = data / "model" / "config.json"
measured = json.loads(model.read_text()) if model.is_file() else {"eval_loss": 0.5}
if "unreadable" in measured:
    (ml["output"] / "failure").write_text("KeyError: " + measured["unreadable"])
    sys.exit(1)
(ml["output"] / "data" / "metrics.json").write_text(json.dumps(measured))
(ml["model"] / "model.safetensors").write_bytes(b"")
(ml["model"] / "config.json").write_text(json.dumps({"eval_loss": float(told.get("reaches", 0.5))}))
"""


STUB = """
import os, pathlib, signal, subprocess, sys
state, script = pathlib.Path(os.environ["STUB_STATE"]), os.environ["STUB_SCRIPT"]
verb, arguments = sys.argv[1], sys.argv[2:]
if verb == "run":
    given = dict(a.removeprefix("--env=").split("=", 1) for a in arguments if a.startswith("--env="))
    for each in (a.removeprefix("--volume=") for a in arguments if a.startswith("--volume=")):
        host, _, inside = each.rpartition(":")
        given["ML_" + inside.rsplit("/", 1)[-1].upper()] = host
    given["STUB_NETWORK"] = next(a.removeprefix("--network=") for a in arguments if a.startswith("--network="))
    name = next(a.removeprefix("--name=") for a in arguments if a.startswith("--name="))
    (state / name).write_text(str(os.getpid()))
    last = max(i for i, a in enumerate(arguments) if a.startswith("--"))
    os.execve(sys.executable, [sys.executable, script, *arguments[last + 2:]], {**os.environ, **given})
elif verb == "stop":
    os.kill(int((state / arguments[-1]).read_text()), signal.SIGTERM)
"""


@contextmanager
def training_aws(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Aws]:
    """An embedded AWS with an image, a role and data."""
    folder = tmp_path_factory.mktemp("training-engine")
    script, program = folder / "script.py", folder / "engine"
    script.write_text(SCRIPT)
    program.write_text(f"#!{sys.executable}\n{STUB}")
    program.chmod(program.stat().st_mode | stat.S_IXUSR)
    engine = Engine(program=str(program), environment={"STUB_STATE": str(folder), "STUB_SCRIPT": str(script)})
    engine.save(folder / "engine.json")
    running = start(tmp_path_factory.mktemp("training-state"), folder, f"--engine={folder / 'engine.json'}")
    running.client("ecr").create_repository(repositoryName="train")
    assert Image("training").push(running, "train", "1").status == 201
    s3 = running.client("s3")
    s3.create_bucket(Bucket=BUCKET)
    for name in ("data/train/one.txt", "data/train/more/two.txt", "data/train-not/three.txt"):
        s3.put_object(Bucket=BUCKET, Key=name, Body=b"x")
    statement = {
        "Effect": "Allow",
        "Action": ["s3:*", "ecr:*", "logs:*", "sagemaker:*", "iam:PassRole", "lambda:*", "cloudformation:*", "sns:*"],
        "Resource": "*",
    }
    policy = {"Version": "2012-10-17", "Statement": [statement]}
    for name, service in (("job", "sagemaker"), ("states", "states"), ("function", "lambda")):
        running.create_role(name, f"{service}.amazonaws.com", all=policy)
    yield running
    running.stop()


def new_function(aws: Aws, name: str, source: str) -> str:
    """Make a Lambda function of one module whose `handle` answers; returns its ARN."""
    code = io.BytesIO()
    with zipfile.ZipFile(code, "w") as packed:
        packed.writestr("index.py", source)
    made = aws.client("lambda").create_function(
        FunctionName=name,
        Runtime="python3.12",
        Role=role("function"),
        Handler="index.handle",
        Code={"ZipFile": code.getvalue()},
        Timeout=30,
    )
    return str(made["FunctionArn"])
