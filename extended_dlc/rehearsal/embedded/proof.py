"""`Custom::ExtendedDlcProof` in place of the CDK's provider: our own handlers, as a process of this machine."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import extended_dlc
from extended_dlc.rehearsal.embedded.resources import CustomHandler, CustomResourceFailed, Properties, Wish

_FUNCTIONS = Path(extended_dlc.__file__).parent / "functions"

_PROVIDER = """
import json, sys, time
import proof
event = json.load(sys.stdin)
try:
    event.update(proof.on_event(event, None))
    while not proof.is_complete(event, None)["IsComplete"]:
        time.sleep(0.2)
except Exception as error:
    sys.exit(str(error))
"""
"""What the CDK's provider does with its two handlers."""


def prove(*, port: int) -> CustomHandler:
    """Runs the handlers against this server."""

    def handle(kind: str, wish: Wish) -> Properties:
        event = {
            "RequestType": kind,
            "StackId": wish.stack_id,
            "LogicalResourceId": wish.logical_id,
            "ResourceProperties": _as_text(wish.properties),
        }
        environment = {
            **os.environ,
            **{"AWS_ENDPOINT_URL": f"http://localhost:{port}", "AWS_REGION": wish.region},
            **{"AWS_ACCESS_KEY_ID": "testing", "AWS_SECRET_ACCESS_KEY": "testing", "AWS_DEFAULT_REGION": wish.region},
            "PYTHONPATH": str(_FUNCTIONS),
        }
        done = subprocess.run(  # noqa: S603 - what CloudFormation would run
            [sys.executable, "-c", _PROVIDER],
            input=json.dumps(event),
            env=environment,
            capture_output=True,
            text=True,
            check=False,
        )
        if done.returncode != 0:
            raise CustomResourceFailed(done.stderr.strip())
        return {}

    return handle


def _as_text(value: Any) -> Any:
    """As CloudFormation hands properties to a custom resource: each number and boolean is text."""
    if isinstance(value, dict):
        return {key: _as_text(each) for key, each in value.items()}
    if isinstance(value, list):
        return [_as_text(each) for each in value]
    return str(value).lower() if isinstance(value, bool) else str(value)
