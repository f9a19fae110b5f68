"""The output of endpoints' containers in CloudWatch Logs, in the group that SageMaker uses, for `aws logs tail`.

SageMaker creates the group, if it does not exist, and a stream for each container, with the model's role. Where the
role lacks the permissions, the endpoint serves without logs.
"""

from __future__ import annotations

import logging
import secrets
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from moto.logs.models import logs_backends
from moto.utilities.utils import get_partition

from extended_dlc.rehearsal.embedded.iam import Iam
from extended_dlc.rehearsal.embedded.shapes import Refusal

_PAUSE = 0.2
_GRACE_SECONDS = 2.0
"""How long after its start a container may be missing from the list of running ones."""

_log = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class LogTarget:
    """The log group of one container."""

    account_id: str
    region: str
    group: str
    variant: str
    role: str
    """ARN of the model's role."""

    @property
    def arn(self) -> str:
        return f"arn:{get_partition(self.region)}:logs:{self.region}:{self.account_id}:log-group:{self.group}"


def follow(log: Path, target: LogTarget, iam: Iam, is_up: Callable[[Path], bool]) -> None:
    """Copy new lines of the file to CloudWatch Logs until the container has ended."""
    stream = f"{target.variant}/i-{secrets.token_hex(8)}"
    try:
        backend = _open(target, stream, iam)
    except Refusal as refusal:
        _log.warning("no log of %s: %s", target.group, refusal.message)
        return
    threading.Thread(
        target=_copy, args=(log, target, stream, backend, is_up), name=f"log {stream}", daemon=True
    ).start()


def _open(target: LogTarget, stream: str, iam: Iam) -> Any:
    """The logs backend, with the group and the stream created. Raises `Refusal`."""
    backend = logs_backends[target.account_id][target.region]
    role = iam.assume(target.role, "sagemaker.amazonaws.com", account_id=target.account_id, region=target.region)

    def require(action: str, resource: str) -> None:
        iam.require(role, action, resource, account_id=target.account_id, region=target.region)

    if target.group not in backend.groups:
        require("logs:CreateLogGroup", target.arn)
        backend.create_log_group(target.group, {})
    require("logs:DescribeLogStreams", target.arn)
    require("logs:CreateLogStream", target.arn)
    require("logs:PutLogEvents", f"{target.arn}:log-stream:{stream}")
    backend.create_log_stream(target.group, stream)
    return backend


def _copy(log: Path, target: LogTarget, stream: str, backend: Any, is_up: Callable[[Path], bool]) -> None:
    started, rest = time.monotonic(), b""
    with log.open("rb") as file:
        while True:
            over = time.monotonic() - started > _GRACE_SECONDS and not is_up(log)
            read = file.read()
            *lines, rest = (rest + read).split(b"\n")
            if over and rest:
                lines, rest = [*lines, rest], b""
            now = int(time.time() * 1000)
            events = [{"timestamp": now, "message": line.decode(errors="replace")} for line in lines if line]
            if events:
                if target.group not in backend.groups:  # the group was deleted with its stack
                    return
                backend.put_log_events(target.group, stream, events)
            if over:
                return
            time.sleep(_PAUSE)
