"""SageMaker's training jobs: `IMAGE train` runs in a container with SageMaker's files, signals and outputs.

`install` changes moto 5.2.5 in this process, whose jobs are complete at once and run nothing. Here a job is a thread:
it downloads the channels, runs one container for each host, synchronizes the checkpoints with S3, and follows logs and
metrics. It ends the containers at the time limit, when the job is stopped or when its spot capacity is interrupted, and
uploads the outputs.
"""

from __future__ import annotations

import functools
import logging
import math
import os
import re
import secrets
import shutil
import subprocess
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import datetime, timezone
from pathlib import Path

from moto.cloudwatch.models import cloudwatch_backends
from moto.core.responses import ActionResult, EmptyResult
from moto.logs.models import logs_backends
from moto.sagemaker.exceptions import ResourceInUseException, ValidationError
from moto.sagemaker.models import FakeTrainingJob, SageMakerModelBackend
from moto.sagemaker.responses import SageMakerResponse

from extended_dlc.rehearsal.embedded.hosting import Container, Containers
from extended_dlc.rehearsal.embedded.sagemaker import SageMaker, request_of
from extended_dlc.rehearsal.embedded.sessions import environment_of_role
from extended_dlc.rehearsal.embedded.training_files import (
    BadInput,
    Bucket,
    Checkpoints,
    Parameters,
    download_channels,
    upload_outputs,
    write_configuration,
)
from extended_dlc.rehearsal.engine import LABEL, EngineError

LOGS = "/aws/sagemaker/TrainingJobs"
"""The log group of all jobs, and the namespace of their metrics."""

STOP_SECONDS = 120.0
"""Seconds between SIGTERM and SIGKILL, for stopped jobs and interrupted spot capacity ("Use Managed Spot Training")."""

_LOOK_SECONDS = 0.25
_MESSAGES = {
    "Starting": "Preparing the instances for training",
    "Downloading": "Downloading input data",
    "Training": "Training image download completed. Training in progress.",
    "Uploading": "Uploading generated training model",
    "Stopping": "Stopping the training job",
    "Interrupted": "Training job interrupted: spot capacity was taken away. Waiting for capacity.",
    "Completed": "Training job completed",
    "Failed": "Training job failed",
    "Stopped": "Training job stopped",
    "MaxRuntimeExceeded": "Training job runtime exceeded MaxRuntimeInSeconds provided",
}
_OUT_OF_MEMORY = (
    "Please use an instance type with more memory, or reduce the size of job data processed on an instance."
)

_log = logging.getLogger(__name__)


def _now() -> datetime:
    return datetime.now(timezone.utc)


@dataclass(kw_only=True)
class TrainingJob:
    """A training job. moto's list of jobs reads some of its attributes."""

    account_id: str
    region_name: str
    request: Parameters
    training_job_status: str = "InProgress"
    failure_reason: str | None = None
    model_artifacts: str | None = None
    creation_time: datetime = field(default_factory=_now)
    last_modified_time: datetime = field(default_factory=_now)
    training_start_time: datetime | None = None
    training_end_time: datetime | None = None
    transitions: list[Parameters] = field(default_factory=list)
    metrics: dict[str, tuple[float, datetime]] = field(default_factory=dict)
    stop_asked: threading.Event = field(default_factory=threading.Event)
    interrupted: threading.Event = field(default_factory=threading.Event)
    notice_seconds: float = STOP_SECONDS
    """Seconds between SIGTERM and SIGKILL."""

    ended: threading.Event = field(default_factory=threading.Event)

    @property
    def training_job_name(self) -> str:
        return str(self.request["TrainingJobName"])

    @property
    def arn(self) -> str:
        return str(FakeTrainingJob.arn_formatter(self.training_job_name, self.account_id, self.region_name))

    @property
    def tags(self) -> list[dict[str, str]]:
        return list(self.request.get("Tags") or ())

    @property
    def secondary_status(self) -> str:
        return str(self.transitions[-1]["Status"]) if self.transitions else "Starting"

    def enter(self, status: str, message: str | None = None) -> None:
        """Change to a secondary status."""
        now = _now()
        if self.transitions:
            self.transitions[-1].setdefault("EndTime", now)
        self.transitions.append(
            {"Status": status, "StartTime": now, "StatusMessage": message or _MESSAGES.get(status, status)}
        )
        self.last_modified_time = now

    def end(self, status: str, secondary: str, reason: str | None = None) -> None:
        self.enter(secondary, reason)
        now = _now()
        self.transitions[-1]["EndTime"] = now
        self.failure_reason = reason[:1024] if reason else None
        self.training_end_time = self.last_modified_time = now
        self.training_job_status = status
        self.ended.set()

    @property
    def response_object(self) -> Parameters:
        described = {key: value for key, value in self.request.items() if key != "Tags" and value is not None}
        described |= {
            "TrainingJobArn": self.arn,
            "TrainingJobStatus": self.training_job_status,
            "SecondaryStatus": self.secondary_status,
            "SecondaryStatusTransitions": list(self.transitions),
            "CreationTime": self.creation_time,
            "LastModifiedTime": self.last_modified_time,
            "EnableNetworkIsolation": bool(self.request.get("EnableNetworkIsolation")),
            "EnableManagedSpotTraining": bool(self.request.get("EnableManagedSpotTraining")),
            "EnableInterContainerTrafficEncryption": bool(self.request.get("EnableInterContainerTrafficEncryption")),
            "FinalMetricDataList": [
                {"MetricName": name, "Value": value, "Timestamp": when} for name, (value, when) in self.metrics.items()
            ],
        }
        if self.model_artifacts:
            described["ModelArtifacts"] = {"S3ModelArtifacts": self.model_artifacts}
        if self.failure_reason:
            described["FailureReason"] = self.failure_reason
        if self.training_start_time:
            described["TrainingStartTime"] = self.training_start_time
            seconds = int(((self.training_end_time or _now()) - self.training_start_time).total_seconds())
            described |= {"TrainingTimeInSeconds": seconds, "BillableTimeInSeconds": seconds}
        if self.training_end_time:
            described["TrainingEndTime"] = self.training_end_time
        return described


@dataclass(kw_only=True)
class Training:
    """The control plane of training jobs."""

    control: SageMaker
    folder: Path
    """The containers' files while they run."""

    logs: Path
    short_of: Callable[[str | None], bool] = lambda instance_type: False
    """Whether an instance type has no capacity."""

    _jobs: dict[str, TrainingJob] = field(default_factory=dict)
    _closing: threading.Event = field(default_factory=threading.Event)
    _threads: list[threading.Thread] = field(default_factory=list)

    # operations

    def create(self, backend: SageMakerModelBackend, parameters: Parameters) -> TrainingJob:
        """CreateTrainingJob; the job is InProgress when this returns."""
        request = request_of("CreateTrainingJob", parameters)
        job = TrainingJob(account_id=backend.account_id, region_name=backend.region_name, request=request)
        _check(request)
        if image := request["AlgorithmSpecification"].get("TrainingImage"):
            self.control._check_image(backend, image)
        if job.training_job_name in backend.training_jobs:
            raise ResourceInUseException(
                message="Training job names must be unique within an AWS account and region, and a training job with "
                f"this name already exists ({job.arn})"
            )
        backend.training_jobs[job.training_job_name] = job  # type: ignore[assignment]  # it has what moto reads
        self._jobs[job.training_job_name] = job
        job.enter("Starting")
        thread = threading.Thread(target=self._run, args=(job,), name=f"training {job.training_job_name}", daemon=True)
        self._threads.append(thread)
        thread.start()
        return job

    def find(self, backend: SageMakerModelBackend, name: str) -> TrainingJob:
        """DescribeTrainingJob."""
        job = backend.training_jobs.get(name)
        if not isinstance(job, TrainingJob):
            # SageMaker's code for it is the general one (sagemaker-python-sdk, session.py looks for both)
            raise ValidationError(message="Requested resource not found.")
        return job

    def stop(self, backend: SageMakerModelBackend, name: str) -> None:
        """StopTrainingJob: the containers get SIGTERM."""
        job = self.find(backend, name)
        if job.training_job_status != "InProgress":
            raise ValidationError(
                message=f"The request was rejected because the training job is in status {job.training_job_status}."
            )
        job.training_job_status = "Stopping"
        job.enter("Stopping")
        job.stop_asked.set()

    def interrupt(self, name: str, seconds: float = STOP_SECONDS) -> bool:
        """Interrupt a running job's spot capacity. False where the job has ended or has none."""
        job = self._jobs.get(name)
        if job is None or job.ended.is_set() or not job.request.get("EnableManagedSpotTraining"):
            return False
        job.notice_seconds = seconds
        job.interrupted.set()
        return True

    def running(self) -> list[str]:
        """The jobs that have not ended."""
        return [name for name, job in list(self._jobs.items()) if not job.ended.is_set()]

    def close(self) -> None:
        self._closing.set()
        for thread in self._threads:
            thread.join(timeout=60)

    # the run of a job

    def _run(self, job: TrainingJob) -> None:
        try:
            self._train(job)
        except BadInput as error:
            job.end("Failed", "Failed", str(error))
        except Exception as error:  # an unexpected error must not leave the job in progress
            _log.exception("training job %s", job.training_job_name)
            job.end("Failed", "Failed", f"InternalServerError: We encountered an internal error: {error!r}")
        finally:
            shutil.rmtree(self.folder / job.training_job_name, ignore_errors=True)

    def _train(self, job: TrainingJob) -> None:
        launcher = self.control.hosting.launcher
        if not isinstance(launcher, Containers):
            raise BadInput("InternalServerError: the embedded AWS runs without a container engine")
        kind = job.request["ResourceConfig"].get("InstanceType", "")
        if self.short_of(kind):
            raise BadInput(
                "CapacityError: Unable to provision requested ML compute capacity. Please retry using a different ML "
                f"instance type. ({kind})"
            )
        attempt = _Attempt(job=job, training=self, launcher=launcher)
        while (end := attempt.run()) == "Interrupted":
            job.interrupted.clear()
            job.enter("Interrupted")
            job.enter("Starting")
        if job.stop_asked.is_set() and end != "Failed":
            end = "Stopped"
        job.end("Stopped" if end == "MaxRuntimeExceeded" else end, end, attempt.reason if end == "Failed" else None)

    @property
    def is_closing(self) -> bool:
        """Whether all jobs have to end now."""
        return self._closing.is_set()


def _check(request: Parameters) -> None:
    """Refuse what SageMaker refuses beyond the shapes."""
    condition = request.get("StoppingCondition") or {}
    runs, waits = condition.get("MaxRuntimeInSeconds", 86_400), condition.get("MaxWaitTimeInSeconds")
    if request.get("EnableManagedSpotTraining"):
        if waits is None or waits < runs:
            raise ValidationError(
                message="Invalid MaxWaitTimeInSeconds. It must be present and be greater than or equal to "
                "MaxRuntimeInSeconds"
            )
    elif waits is not None:
        raise ValidationError(
            message="MaxWaitTimeInSeconds above 0 is not allowed when EnableManagedSpotTraining is false"
        )
    names = [channel["ChannelName"] for channel in request.get("InputDataConfig") or ()]
    if len(set(names)) != len(names):
        raise ValidationError(message="Duplicate channel name in InputDataConfig")
    if not request["AlgorithmSpecification"].get("TrainingImage"):
        raise ValidationError(message="AlgorithmSpecification must have a TrainingImage or an AlgorithmName")


@dataclass(kw_only=True)
class _Attempt:
    """One run of a job's containers; an interrupted job has another."""

    job: TrainingJob
    training: Training
    launcher: Containers
    reason: str | None = None
    """Why the attempt failed."""

    @functools.cached_property
    def _s3(self) -> Bucket:
        return Bucket(self.job.account_id)

    @functools.cached_property
    def _hosts(self) -> list[str]:
        return [f"algo-{number + 1}" for number in range(self.job.request["ResourceConfig"].get("InstanceCount", 1))]

    @functools.cached_property
    def _checkpoints(self) -> Checkpoints | None:
        config = self.job.request.get("CheckpointConfig")
        return Checkpoints(self._folder("checkpoints"), config["S3Uri"], self._s3) if config else None

    @functools.cached_property
    def _work(self) -> Path:
        return self.training.folder / self.job.training_job_name

    def _folder(self, *names: str) -> Path:
        return self._work.joinpath(*names)

    def run(self) -> str:
        """The final secondary status: Completed, Failed, Stopped, MaxRuntimeExceeded or Interrupted."""
        job, request = self.job, self.job.request
        job.enter("Downloading")
        shutil.rmtree(self._work, ignore_errors=True)
        for number, host in enumerate(self._hosts):
            for name in ("input/data", "model", "output/data"):
                self._folder(host, name).mkdir(parents=True)
            write_configuration(self._folder(host, "input/config"), request, self._hosts, host, "lo")
            download_channels(
                self._folder(host, "input/data"),
                request,
                self._s3,
                host=number,
                hosts=len(self._hosts),
                region=job.region_name,
            )
        if self._checkpoints:
            self._checkpoints.restore()
        image = self.training.control._pulled(request["AlgorithmSpecification"]["TrainingImage"])
        try:
            self.launcher.engine.call("pull", "--quiet", image, timeout=1800)
        except EngineError as error:
            raise BadInput(f"ClientError: Cannot pull the training image '{image}': {error}") from None
        job.enter("Training")
        job.training_start_time = job.training_start_time or _now()
        started = int(time.time() * 1000)
        readers = [_Reader(job=job, host=host, log=self._log(host), stream=f"{host}-{started}") for host in self._hosts]
        containers = [self._start(image, number, host) for number, host in enumerate(self._hosts)]
        try:
            end = self._watch(containers, readers)
        finally:
            self._stop(containers, 0)
            for reader in readers:
                reader.read(last=True)
            if self._checkpoints:
                self._checkpoints.send()
        if end == "Interrupted":
            return end
        job.enter("Uploading")
        folders = {"model": [self._folder(host, "model") for host in self._hosts]}
        folders["data"] = [self._folder(host, "output/data") for host in self._hosts]
        artifacts = upload_outputs(request, folders, self._s3, model=end != "Failed")
        job.model_artifacts = artifacts if end != "Failed" else None
        return end

    def _watch(self, containers: list[Container], readers: list[_Reader]) -> str:
        """Wait until the containers end or have to be stopped."""
        limit = self.job.request.get("StoppingCondition", {}).get("MaxRuntimeInSeconds", 86_400)
        deadline = time.monotonic() + limit
        while True:
            for reader in readers:
                reader.read()
            if self._checkpoints:
                self._checkpoints.send()
            codes = [container.exit_code() for container in containers]
            if any(codes):  # the failure of one host ends all of them
                self._stop(containers, STOP_SECONDS)
                self.reason = self._failure(codes)
                return "Failed"
            if None not in codes:
                return "Completed"
            for asked, end in (
                (self.training.is_closing, "Stopped"),
                (self.job.stop_asked.is_set(), "Stopped"),
                (self.job.interrupted.is_set(), "Interrupted"),
                (time.monotonic() > deadline, "MaxRuntimeExceeded"),
            ):
                if asked:
                    self._stop(containers, 0 if self.training.is_closing else self.job.notice_seconds)
                    return end
            time.sleep(_LOOK_SECONDS)

    def _failure(self, codes: list[int | None]) -> str:
        """SageMaker's message: the content of the failure file and the exit code."""
        number = next(each for each, code in enumerate(codes) if code)
        file = self._folder(self._hosts[number], "output", "failure")
        said = file.read_text(errors="replace")[:900] if file.is_file() else ""
        if not said and codes[number] == 137:
            said = _OUT_OF_MEMORY
        return f"AlgorithmError: {said}, exit code: {codes[number]}"

    def _log(self, host: str) -> Path:
        return self.training.logs / f"training.{self.job.training_job_name}.{host}.log"

    def _start(self, image: str, number: int, host: str) -> Container:
        """Run `IMAGE train` for one host."""
        request, launcher = self.job.request, self.launcher
        name = f"extended-dlc-{secrets.token_hex(6)}"
        volumes = {"/opt/ml/input": "input", "/opt/ml/model": "model", "/opt/ml/output": "output"}
        mounts = [f"--volume={self._folder(host, each).absolute()}:{path}" for path, each in volumes.items()]
        if self._checkpoints:
            path = request["CheckpointConfig"].get("LocalPath", "/opt/ml/checkpoints")
            mounts.append(f"--volume={self._folder('checkpoints').absolute()}:{path}")
        environment = {
            **launcher.platform_environment,
            **self._platform(),
            **(request.get("Environment") or {}),
        }
        network = "none" if request.get("EnableNetworkIsolation") else "host"
        algorithm = request["AlgorithmSpecification"]
        entry = algorithm.get("ContainerEntrypoint") or []
        command = [
            launcher.engine.program,
            "run",
            f"--name={name}",
            f"--label={LABEL}={launcher.owner}",
            f"--network={network}",
            "--log-driver=none",
            *(f"--add-host={each}:127.0.0.{index + 1}" for index, each in enumerate(self._hosts)),
            *mounts,
            *(f"--env={key}={value}" for key, value in environment.items()),
            *([f"--entrypoint={entry[0]}"] if entry else []),
            image,
            *entry[1:],
            *(algorithm.get("ContainerArguments") or ([] if entry else ["train"])),
        ]
        log = self._log(host)
        with log.open("ab") as output:
            process = subprocess.Popen(  # noqa: S603 - a list of arguments, no shell
                command,
                env={**os.environ, **launcher.engine.environment},
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,  # Ctrl-C must not reach the container directly
            )
        return Container(engine=launcher.engine, name=name, port=0, log=log, process=process)

    def _platform(self) -> Mapping[str, str]:
        """The platform's environment variables: the job, the region, and the credentials of the job's role."""
        job = self.job
        return {
            "TRAINING_JOB_NAME": job.training_job_name,
            "TRAINING_JOB_ARN": job.arn,
            "AWS_REGION": job.region_name,
            "AWS_DEFAULT_REGION": job.region_name,
            "AWS_ENDPOINT_URL": f"http://localhost:{self.training.control.port}",
            "AWS_EC2_METADATA_DISABLED": "true",
            **environment_of_role(job.request["RoleArn"], job.region_name, "SageMaker", "sagemaker.amazonaws.com"),
        }

    def _stop(self, containers: list[Container], seconds: float) -> None:
        threads = [threading.Thread(target=container.stop, args=(seconds,)) for container in containers]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()


@dataclass(kw_only=True)
class _Reader:
    """Follows one host's log: copies lines to CloudWatch Logs, and numbers to the job's metrics."""

    job: TrainingJob
    host: str
    log: Path
    stream: str
    _at: int | None = None

    @functools.cached_property
    def _definitions(self) -> list[tuple[str, re.Pattern[str]]]:
        found = self.job.request["AlgorithmSpecification"].get("MetricDefinitions") or ()
        return [(each["Name"], re.compile(each["Regex"])) for each in found]

    def read(self, *, last: bool = False) -> None:
        """Process the new complete lines; with `last` also an incomplete one."""
        if self._at is None:
            self._at = 0 if not self.log.exists() else self._start_at()
            self._make_stream()
        if not self.log.exists():
            return
        with self.log.open("rb") as file:
            file.seek(self._at)
            content = file.read()
        if not last:
            content = content[: content.rfind(b"\n") + 1]
        if not content:
            return
        self._at += len(content)
        now = int(time.time() * 1000)
        # a progress bar overwrites its line: only the last state counts
        lines = [line.rsplit("\r", 1)[-1] for line in content.decode(errors="replace").split("\n")]
        events = [{"timestamp": now, "message": line} for line in lines if line.strip()]
        if events:
            backend = logs_backends[self.job.account_id][self.job.region_name]
            backend.put_log_events(LOGS, self._stream_name, events)
        for event in events:
            self._measure(str(event["message"]))

    def _start_at(self) -> int:
        """The start of this attempt: the file has the output of earlier ones."""
        return self.log.stat().st_size

    @property
    def _stream_name(self) -> str:
        return f"{self.job.training_job_name}/{self.stream}"

    def _make_stream(self) -> None:
        backend = logs_backends[self.job.account_id][self.job.region_name]
        if LOGS not in backend.groups:
            backend.create_log_group(LOGS, {})
        backend.ensure_log_stream(LOGS, self._stream_name)

    def _measure(self, line: str) -> None:
        backend = cloudwatch_backends[self.job.account_id][self.job.region_name]
        for name, pattern in self._definitions:
            for found in pattern.findall(line):
                try:
                    value = float(found if isinstance(found, str) else found[0])
                except ValueError:
                    continue
                if not math.isfinite(value):  # CloudWatch takes neither NaN nor infinity
                    continue
                now = _now()
                self.job.metrics[name] = (value, now)
                dimensions = [{"Name": "TrainingJobName", "Value": self.job.training_job_name}]
                datum = {"MetricName": name, "Value": value, "Timestamp": now, "Dimensions": dimensions}
                backend.put_metric_data(LOGS, [datum])


def install(training: Training) -> None:
    """Change moto's SageMaker in this process."""

    def create_training_job(self: SageMakerResponse) -> ActionResult:
        return ActionResult({"TrainingJobArn": training.create(self.sagemaker_backend, self._get_params()).arn})

    def describe_training_job(self: SageMakerResponse) -> ActionResult:
        job = training.find(self.sagemaker_backend, self._get_param("TrainingJobName"))
        return ActionResult(job.response_object)

    def stop_training_job(self: SageMakerResponse) -> EmptyResult:
        training.stop(self.sagemaker_backend, self._get_param("TrainingJobName"))
        return EmptyResult()

    for operation in (create_training_job, describe_training_job, stop_training_job):
        setattr(SageMakerResponse, operation.__name__, operation)
