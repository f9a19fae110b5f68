"""The training scenario: a model is trained despite an interruption, and then served; another one is refused.

The state machine's real definition runs, and starts containers of the extended training image.
"""

from __future__ import annotations

import json
import shutil
import tempfile
import time
import urllib.request
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from extended_dlc.rehearsal.base_image.stand_in import DLC_4_51_3, TRAINING_5_3_0
from extended_dlc.rehearsal.client import Answer
from extended_dlc.rehearsal.services import NAME
from extended_dlc.rehearsal.stage import Stage
from extended_dlc.rehearsal.tiny_models import BLOOM, OTHER_BLOOM

SENTENCE = "the quick brown fox jumps over the lazy dog while bloom and whisper are talking ."
"""The training data: words that the tiny models can generate."""

DATA = "extended-dlc-rehearsal-data"
SENTENCES = "sentences/"
"""The bucket and the prefix of the training's channel."""

PROMPT = "the quick brown"
REQUEST = {"inputs": PROMPT, "parameters": {"max_new_tokens": 9, "do_sample": False}}

WORST_LOSS = 3.0
"""The evaluation gate's bound; the untrained model's loss is above ten."""

SHORT_OF = "ml.c5.2xlarge"
"""The training's first instance type, which has no capacity; the endpoint runs on another."""

STEPS = 600
"""The training steps, 10 ms each; its first container is killed when its first checkpoint is seen in S3, after 50."""

HOST_STEPS = 20
"""The training steps of two hosts."""

ONE_THREAD = {"OMP_NUM_THREADS": "1"}
"""For tiny models on a machine that builds and serves beside them: more threads than free cores wait for each other."""


def play(stage: Stage, *, keep: bool) -> None:
    stage.container_engine()
    stage.embedded_aws()
    serving = stage.base_image(DLC_4_51_3)
    training = stage.base_image(TRAINING_5_3_0)
    stage.models()
    stage.hub()
    transformers = stage.app_settings["image"]["transformers"]
    image = stage.extended(serving, transformers)
    with _code() as folder:
        settings = _training(stage, _training_image(stage, training, transformers), folder)
        settings["channels"] = {"train": {"bucket": DATA, "prefix": SENTENCES}}
        stage.bootstrap(image)
        endpoints = {"bloom": stage.endpoint(BLOOM)}
        stage.deploy(
            "cdk deploy: both images, the endpoint, and what trains its model",
            image=image,
            endpoints=endpoints,
            training={"bloom": settings},
        )
        before = _answers(stage, "the model of the Hub answers")
        _has_no_data(stage)
        _learns(stage)
        after = _answers(stage, "the same endpoint says the sentence that it was taught")
        if _score(after) <= _score(before):
            raise RuntimeError(f"the endpoint answers {after.text!r} after the training, and {before.text!r} before")
        _is_refused(stage)
        _answers(stage, "the endpoint stays as it was", like=after)
        if keep:
            stage.leave_up()
        else:
            stage.destroy()


COMPONENTS: dict[str, Any] = {
    "kind": "components",
    "instance_type": "ml.m5.4xlarge",
    "maximum": 1,
    "components": {
        "trained": {"memory_mb": 2048},
        "other": {"memory_mb": 2048, "model": OTHER_BLOOM},
    },
}
"""Two models on the same instances, of which one is trained."""


def play_hosts(stage: Stage, *, keep: bool) -> None:
    """One training on two hosts, which torchrun connects over two loopback addresses; a component serves its result."""
    stage.container_engine()
    stage.embedded_aws()
    serving = stage.base_image(DLC_4_51_3)
    training = stage.base_image(TRAINING_5_3_0)
    stage.models()
    stage.hub()
    transformers = stage.app_settings["image"]["transformers"]
    image = stage.extended(serving, transformers)
    with _code() as folder:
        settings = _training(stage, _training_image(stage, training, transformers), folder)
        del settings["gate"]
        settings |= {
            "hyperparameters": {"max_steps": HOST_STEPS, "batch_size": 4, "learning_rate": 0.02, "epochs": HOST_STEPS},
            "instances": {"instance_type": "ml.m5.2xlarge", "count": 2, "distribution": "torchrun"},
        }
        stage.bootstrap(image)
        stage.deploy(
            "cdk deploy: an endpoint of components, and a training of one of them on two hosts",
            image=image,
            endpoints={"bloom": stage.endpoint(BLOOM, hosting=COMPONENTS)},
            training={"bloom": settings},
        )
        before = _components(stage)
        artifact = _trains_on_two_hosts(stage)
        _has_gone_over(stage, before, artifact)
        if keep:
            stage.leave_up()
        else:
            stage.destroy()


def _trains_on_two_hosts(stage: Stage) -> str:
    """One run on two hosts; returns its artifact."""
    with stage.report.step("two hosts train one model") as step:
        done = _finish(stage, _start(stage, {}))
        if done["status"] != "SUCCEEDED":
            raise RuntimeError(f"the run {done['status']}: {done.get('error')}: {done.get('cause')}")
        (job,) = stage.client.service("sagemaker").list_training_jobs()["TrainingJobSummaries"]
        name = job["TrainingJobName"]
        metrics = stage.client.service("sagemaker").describe_training_job(TrainingJobName=name)["FinalMetricDataList"]
        epochs = {each["MetricName"]: each["Value"] for each in metrics}["epoch"]
        # eight sentences, four on each host, are one step an epoch; a single host would need two
        if epochs != HOST_STEPS:
            raise RuntimeError(f"{HOST_STEPS} steps were {epochs:g} epochs: each host of {name} trained by itself")
        step.proof = (
            f"{name}: algo-1 and algo-2 made {HOST_STEPS} steps of four sentences each, which are {epochs:g} epochs of "
            "eight"
        )
        return str(json.loads(done["output"])["artifact"])


def _components(stage: Stage) -> dict[str, tuple[str, str]]:
    """What each component serves, and its answer."""
    sagemaker, runtime = stage.client.service("sagemaker"), stage.client.service("sagemaker-runtime")
    endpoint = f"{NAME}-bloom"
    found = {}
    for component in COMPONENTS["components"]:
        name = f"{endpoint}-{component}"
        described = sagemaker.describe_inference_component(InferenceComponentName=name)
        answer = runtime.invoke_endpoint(
            EndpointName=endpoint,
            InferenceComponentName=name,
            Body=json.dumps(REQUEST).encode(),
            ContentType="application/json",
        )
        text = json.loads(answer["Body"].read())[0]["generated_text"]
        found[component] = described["Specification"]["ModelName"], text
    return found


def _has_gone_over(stage: Stage, before: Mapping[str, tuple[str, str]], artifact: str) -> None:
    """Check that the trained component serves the artifact, and that the other one is as it was."""
    with stage.report.step("a component goes over to what was trained, and the other stays") as step:
        after = _components(stage)
        model, text = after["trained"]
        described = stage.client.service("sagemaker").describe_model(ModelName=model)
        loads = described["PrimaryContainer"]["ModelDataSource"]["S3DataSource"]["S3Uri"]
        if loads != artifact or text == before["trained"][1] or after["other"] != before["other"]:
            raise RuntimeError(f"the components serve {after}, and served {before}; the artifact is {artifact}")
        step.proof = (
            f"{before['trained'][1]!r} before, {text!r} after, from {artifact}; the other: {after['other'][1]!r}"
        )


@contextmanager
def _code() -> Iterator[Path]:
    """The language model example, with the scenario's sentence as its data."""
    with tempfile.TemporaryDirectory(prefix="extended-dlc-training-") as made:
        folder = Path(made) / "code"
        ignored = shutil.ignore_patterns("__pycache__", "data")
        shutil.copytree(_example(), folder, ignore=ignored)
        (folder / "data").mkdir()
        (folder / "data" / "train.jsonl").write_bytes(_sentences())
        yield folder


def _sentences() -> bytes:
    return (f"{json.dumps({'text': SENTENCE})}\n" * 8).encode()


def _example() -> Path:
    here = Path(__file__).parents[2] / "examples" / "training" / "causal_lm_lora"
    if not here.is_dir():
        raise ValueError(f"the scenario trains with an example that is not here ({here}): run it in a checkout")
    return here


def _training(stage: Stage, image: dict[str, Any], folder: Path) -> dict[str, Any]:
    """Settings of a training, as the app accepts them anywhere."""
    return {
        "endpoint": "bloom",
        "image": {"kind": "extended", **image},
        "code": {"folder": str(folder)},
        "adapter": "merged",
        "hyperparameters": {"max_steps": STEPS, "save_steps": 50, "learning_rate": 0.02, "epochs": 100},
        "instances": {"instance_type": [SHORT_OF, "ml.m5.2xlarge"], "spot": True, "checkpoints": True},
        "gate": {"metric": "eval_loss", "at_most": WORST_LOSS},
        "environment": {"HF_ENDPOINT": stage.hub_address, **ONE_THREAD},
    }


def _training_image(stage: Stage, base: str, transformers: str) -> dict[str, Any]:
    """Settings of the training image; its build proves the type that is trained here, and no others."""
    return stage.extended(base, transformers, family="training", model_types=["bloom"])


def _has_no_data(stage: Stage) -> None:
    """One run without data: the container refuses it; then the data is uploaded."""
    with stage.report.step("a channel without a file is refused when the container starts") as step:
        s3 = stage.client.service("s3")
        s3.create_bucket(Bucket=DATA)
        s3.put_object(Bucket=DATA, Key=SENTENCES)  # an empty folder, as S3's console makes one
        done = _finish(stage, _start(stage, {}))
        says = "channel 'train' has no file in /opt/ml/input/data/train: upload its files below the S3 prefix"
        if done.get("error") != "JobFailed" or says not in done["cause"] or "Traceback" in done["cause"]:
            raise RuntimeError(f"the run {done['status']}: {done.get('error')}: {done.get('cause')}")
        step.proof = str(done["cause"])
        s3.put_object(Bucket=DATA, Key=f"{SENTENCES}train.jsonl", Body=_sentences())


def _learns(stage: Stage) -> None:
    """One run: no capacity for the first instance type, an interruption on the second, then the model is served."""
    with stage.report.step("a run: a shortage, an interruption, the gate, and the endpoint goes over") as step:
        _embedded(stage, "scenarios", {"shortages": [SHORT_OF]})
        execution = _start(stage, {})
        job = _interrupt(stage)
        done = _finish(stage, execution)
        if done["status"] != "SUCCEEDED":
            raise RuntimeError(f"the run {done['status']}: {done.get('error')}: {done.get('cause')}")
        described = stage.client.service("sagemaker").describe_training_job(TrainingJobName=job)
        statuses = [each["Status"] for each in described["SecondaryStatusTransitions"]]
        losses, steps = _logged(stage, job)
        if "Interrupted" not in statuses or losses[-1] > losses[0] / 2:
            raise RuntimeError(f"{job} went through {', '.join(statuses)}, with losses {losses}")
        if not 0 < steps[1] < STEPS:
            raise RuntimeError(f"the second container of {job} made {steps[1]} of {STEPS} steps: it did not resume")
        step.proof = (
            f"{job}: loss {losses[0]:g} to {losses[-1]:g}; {' → '.join(statuses)}; the second container made "
            f"{steps[1]} of {STEPS} steps; then {json.loads(done['output'])['artifact']} is served"
        )


def _is_refused(stage: Stage) -> None:
    """Check that the gate refuses an untrained model, given as the artifact of an earlier run."""
    with stage.report.step("a model that has learnt nothing is refused by the gate") as step:
        live = _served(stage)
        bucket, _, key = live.removeprefix("s3://").partition("/")
        artifact = f"{key.split('/')[0]}/untrained/output/model/"
        s3 = stage.client.service("s3")
        for file in sorted((stage.state / "hub" / BLOOM).iterdir()):
            if file.is_file() and file.suffix != ".bin":
                s3.put_object(Bucket=bucket, Key=artifact + file.name, Body=file.read_bytes())
        done = _finish(stage, _start(stage, {"artifact": f"s3://{bucket}/{artifact}"}))
        if done["status"] != "FAILED" or done.get("error") != "GateRefused":
            raise RuntimeError(f"the run {done['status']}: {done.get('error')}: {done.get('cause')}")
        if _served(stage) != live:
            raise RuntimeError(f"the endpoint serves {_served(stage)} after the refusal, and {live} before")
        step.proof = str(done["cause"])


def _start(stage: Stage, given: dict[str, Any]) -> str:
    states = stage.client.service("stepfunctions")
    (machine,) = states.list_state_machines()["stateMachines"]
    started = states.start_execution(stateMachineArn=machine["stateMachineArn"], input=json.dumps(given))
    return str(started["executionArn"])


def _finish(stage: Stage, execution: str, seconds: float = 600) -> dict[str, Any]:
    """The execution after it has ended."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        found: dict[str, Any] = stage.client.service("stepfunctions").describe_execution(executionArn=execution)
        if found["status"] != "RUNNING":
            return found
        time.sleep(0.5)
    raise RuntimeError(
        f"the run {execution} has not ended in {seconds:g} s; its jobs' logs are in {stage.state / 'logs'}"
    )


def _interrupt(stage: Stage, seconds: float = 120) -> str:
    """Kill a job's container after the first complete checkpoint; returns the job's name."""
    deadline = time.monotonic() + seconds
    sagemaker, s3 = stage.client.service("sagemaker"), stage.client.service("s3")
    while time.monotonic() < deadline:
        for job in sagemaker.list_training_jobs(StatusEquals="InProgress")["TrainingJobSummaries"]:
            name = job["TrainingJobName"]
            config = sagemaker.describe_training_job(TrainingJobName=name).get("CheckpointConfig")
            if config is None:
                continue
            bucket, _, prefix = config["S3Uri"].removeprefix("s3://").partition("/")
            keys = [each["Key"] for each in s3.list_objects_v2(Bucket=bucket, Prefix=prefix).get("Contents", ())]
            if any(key.endswith("/trainer_state.json") for key in keys):
                # without AWS's two minutes of notice, in which the script, which does not see the notice, would finish
                _embedded(stage, f"training-jobs/{name}/interruption?seconds=0", None)
                return str(name)
        time.sleep(0.1)
    raise RuntimeError(f"no job wrote a checkpoint in {seconds:g} s; its log is in {stage.state / 'logs'}")


def _logged(stage: Stage, job: str) -> tuple[list[float], list[int]]:
    """All losses in a job's logs, and their number in each of its containers."""
    logs = stage.client.service("logs")
    group = "/aws/sagemaker/TrainingJobs"
    streams = logs.describe_log_streams(logGroupName=group, logStreamNamePrefix=f"{job}/")["logStreams"]
    losses: list[float] = []
    steps = []
    for stream in sorted(streams, key=lambda each: each["logStreamName"]):
        events = logs.get_log_events(logGroupName=group, logStreamName=stream["logStreamName"])["events"]
        found = [line.split("'loss': ")[1].split(",")[0] for each in events if "'loss': " in (line := each["message"])]
        losses += [float(each.strip("'")) for each in found]
        steps.append(len(found))
    return losses, steps


def _served(stage: Stage) -> str:
    """The model artifact that the endpoint's stack serves."""
    (stack,) = stage.client.service("cloudformation").describe_stacks(StackName=NAME)["Stacks"]
    values = [each["ParameterValue"] for each in stack["Parameters"] if each["ParameterValue"].startswith("s3://")]
    return str(values[0]) if values else ""


def _answers(stage: Stage, name: str, *, like: Answer | None = None) -> Answer:
    with stage.report.step(name) as step:
        answer = stage.client.generate("bloom", REQUEST)
        step.proof = f"{answer.shown(REQUEST)}; {_score(answer)} words of the sentence"
        if like is not None and (answer.text, answer.model) != (like.text, like.model):
            raise RuntimeError(f"the endpoint answers {answer}, and answered {like}")
        return answer


def _score(answer: Answer) -> int:
    """The number of the sentence's words that follow the prompt in order."""
    wanted, said = SENTENCE.removeprefix(PROMPT).split(), answer.text.removeprefix(PROMPT).split()
    return next(
        (count for count, (one, other) in enumerate(zip(wanted, said, strict=False)) if one != other), len(said)
    )


def _embedded(stage: Stage, path: str, body: dict[str, Any] | None) -> None:
    """Call an endpoint of the embedded AWS that AWS does not have."""
    request = urllib.request.Request(
        f"http://127.0.0.1:{stage.client.port}/_embedded/{path}",
        data=json.dumps(body).encode() if body is not None else b"",
        method="POST",
    )
    with urllib.request.urlopen(request, timeout=10):  # noqa: S310 - a loopback address
        pass
