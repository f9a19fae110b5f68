"""Checks for problems that stop a deployment; each names the problem and the next command.

The checks do not import the CDK, and change, build or pull nothing. A check without a result is Unknown, which is not a
Problem.
"""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Iterator, Sequence

from extended_dlc.doctor import account, engine, tools
from extended_dlc.doctor.findings import Check, Finding, Ok, Problem, Unknown
from extended_dlc.doctor.target import Target

__all__ = ["CHECKS", "Check", "Finding", "Ok", "Problem", "Target", "Unknown", "examine"]

CHECKS: tuple[Check, ...] = (
    Check("python", tools.python),
    Check("node", tools.node),
    Check("cdk", tools.cdk),
    Check("cdk-on-path", tools.cdk_on_path),
    Check("engine", engine.engine),
    Check("engine-setting", engine.engine_setting),
    Check("buildkit", engine.buildkit),
    Check("platform", engine.platform),
    Check("disk", engine.disk),
    Check("credentials", account.credentials),
    Check("bootstrap", account.bootstrap),
    Check("base-image", account.base_image),
    Check("quota", account.quota),
    Check("codebuild", account.codebuild),
    Check("scaled-type", account.scaled_type),
)

SECONDS = 8.0
"""Timeout of all checks together."""


def examine(
    target: Target, checks: Sequence[Check] = CHECKS, *, seconds: float = SECONDS
) -> Iterator[tuple[str, Finding]]:
    """Run the checks in parallel; yields names and findings in the order of the checks.

    A check without a result after `seconds` is Unknown; its thread is abandoned.
    """
    answers: dict[str, queue.Queue[Finding]] = {check.name: queue.Queue() for check in checks}
    deadline = time.monotonic() + seconds
    for check in checks:
        # Daemon threads, because a check that hangs, in a DNS lookup for instance, must not block the program's exit.
        threading.Thread(target=lambda check=check: answers[check.name].put(check(target)), daemon=True).start()
    for check in checks:
        try:
            yield check.name, answers[check.name].get(timeout=max(0.01, deadline - time.monotonic()))
        except queue.Empty:
            yield check.name, Unknown(f"there was no answer within {seconds:g} s")
