"""Follows a run of a training: its states, its training jobs, their logs and metrics."""

from __future__ import annotations

import json
import math
import re
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

from extended_dlc.facts.names import TRAINING_LOGS

SECONDS = 5.0
"""The polling interval in seconds."""

MOST_LINES = 200
"""The number of log lines of a stream that one poll reports, the newest; CloudWatch has those before them."""

_PROGRESS = re.compile(r"(\d{1,3})%\|[^|]*\|\s*([\d.]+/[\d.]+)?")
"""A progress bar of tqdm, as Trainer prints it."""

_WHAT = {
    "Train": "trains",
    "Look": "looks at the artefact",
    "Evaluate": "measures the new model",
    "EvaluateLive": "measures the live model",
    "Judge": "judges",
    "JudgeBeside": "judges beside the live model",
    "Register": "registers the model",
    "GoOver": "updates the endpoint's stack",
    "WaitForOthers": "waits for another update of the endpoint's stack",
    "WaitForStack": "waits for the endpoint",
    "LookAtStack": "waits for the endpoint",
    "WhyItStays": "asks why the endpoint stays",
}
"""The states that are reported, without their numbers, with the texts for them."""


@dataclass(kw_only=True)
class Run:
    """One execution of a training's state machine."""

    arn: str
    states: Any
    """A boto3 client of Step Functions."""

    sagemaker: Any
    logs: Any
    say: Callable[[str], None] = print
    progress: Callable[[str], None] = lambda line: None
    """Shows a line that the next one may replace; an empty one removes it."""

    seconds: float = SECONDS
    status: str = "RUNNING"
    jobs: list[str] = field(default_factory=list)
    """The names of the run's training jobs, the newest last."""

    metrics: dict[str, float] = field(default_factory=dict)
    _said: str = ""
    _seen: set[int] = field(default_factory=set)
    _secondary: str = ""
    _next: dict[str, str | None] = field(default_factory=dict)

    def follow(self) -> dict[str, Any]:
        """Report what happens until the run ends; returns its result."""
        while True:
            described = self.states.describe_execution(executionArn=self.arn)
            self._look()
            if described["status"] != "RUNNING":
                self.progress("")
                return self._ended(described)
            time.sleep(self.seconds)

    def stop(self) -> None:
        """Stop the run and its current job."""
        self.states.stop_execution(executionArn=self.arn, error="Stopped", cause="stopped by extended-dlc train")

    def _ended(self, described: dict[str, Any]) -> dict[str, Any]:
        self.status = described["status"]
        output = json.loads(described.get("output") or "{}")
        return {
            "execution": self.arn,
            "status": self.status,
            "error": described.get("error"),
            "cause": described.get("cause"),
            "artifact": output.get("artifact") if isinstance(output, dict) else None,
            "before": output.get("before") or None if isinstance(output, dict) else None,
            "jobs": self.jobs,
            "metrics": {key: value if math.isfinite(value) else None for key, value in self.metrics.items()},
        }

    def _look(self) -> None:
        """Report new events."""
        for event in self._events():
            entered = event.get("stateEnteredEventDetails")
            if entered is not None:
                self._enter(entered["name"])
            submitted = event.get("taskSubmittedEventDetails") or event.get("taskSucceededEventDetails")
            if submitted is not None and (name := _job_of(submitted.get("output") or "")) and name not in self.jobs:
                self.jobs.append(name)
                self._secondary = ""
                self.say(f"job {name}")
        if self.jobs:
            self._look_at_job(self.jobs[-1])

    def _events(self) -> Iterator[dict[str, Any]]:
        pages = self.states.get_paginator("get_execution_history").paginate(executionArn=self.arn)
        for event in (event for page in pages for event in page["events"]):
            if event["id"] not in self._seen:
                self._seen.add(event["id"])
                yield event

    def _enter(self, name: str) -> None:
        what = _WHAT.get(name.rstrip("0123456789"))
        if what is not None and what != self._said:
            self._said = what
            self.say(what)

    def _look_at_job(self, name: str) -> None:
        job = self.sagemaker.describe_training_job(TrainingJobName=name)
        if job["SecondaryStatus"] != self._secondary:
            self._secondary = job["SecondaryStatus"]
            kind = job["ResourceConfig"].get("InstanceType", "")
            self.say(f"  {self._secondary} on {job['ResourceConfig'].get('InstanceCount', 1)} x {kind}")
        self._tell_log(name)
        for metric in job.get("FinalMetricDataList", ()):
            key, value = metric["MetricName"], metric["Value"]
            if str(self.metrics.get(key)) != str(value):  # NaN differs from itself
                self.metrics[key] = value
                self.say(f"  {key} = {value:g}")

    def _tell_log(self, name: str) -> None:
        """Report the new lines of each host; a progress bar stays on one line."""
        for stream in self._streams(name):
            split = (line for message in self._messages(stream) for line in re.split(r"[\r\n]+", message))
            lines = [line.rstrip() for line in split if line.strip()]
            host = f"{stream.rpartition('/')[2].partition('-1')[0]}: " if len(self._next) > 1 else ""
            if len(lines) > MOST_LINES:
                self.say(f"  | {host}… {len(lines) - MOST_LINES} lines, which are in {TRAINING_LOGS}, {stream}")
            for line in lines[-MOST_LINES:]:
                self._tell_line(line, host)

    def _messages(self, stream: str) -> Iterator[str]:
        """What a stream got since the last poll."""
        while True:
            token = self._next.get(stream)
            given = {"nextToken": token} if token else {}
            found = self.logs.get_log_events(
                logGroupName=TRAINING_LOGS, logStreamName=stream, startFromHead=True, **given
            )
            yield from (event["message"] for event in found["events"])
            self._next[stream] = found["nextForwardToken"]
            if self._next[stream] == token:  # CloudWatch's sign of the end
                return

    def _streams(self, name: str) -> list[str]:
        try:
            found = self.logs.describe_log_streams(logGroupName=TRAINING_LOGS, logStreamNamePrefix=f"{name}/")
        except self.logs.exceptions.ResourceNotFoundException:  # no job has logged yet
            return []
        return [stream["logStreamName"] for stream in found["logStreams"]]

    def _tell_line(self, line: str, host: str) -> None:
        bar = _PROGRESS.search(line)
        if bar is not None:
            self.progress(_bar(int(bar[1]), bar[2] or ""))
        else:
            self.say(f"  | {host}{line}")


def _bar(percent: int, steps: str) -> str:
    done = min(percent, 100) // 5
    return f"  [{'#' * done}{'.' * (20 - done)}] {percent} % {steps}".rstrip()


def _job_of(output: str) -> str | None:
    """The name of the training job that a task started."""
    try:
        arn = json.loads(output).get("TrainingJobArn")
    except (ValueError, AttributeError):
        return None
    return str(arn).rpartition("/")[2] if arn else None
