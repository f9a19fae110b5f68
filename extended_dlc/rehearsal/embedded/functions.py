"""Lambda functions in Python: the uploaded code runs in a process of this machine with the credentials of its role.

`install` changes moto 5.2.5 in this process, because moto runs functions in container images that are not available.
"""

from __future__ import annotations

import io
import json
import os
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path
from typing import Any

from moto.awslambda.models import LambdaFunction

from extended_dlc.rehearsal.embedded.sessions import environment_of_role

_PROGRAM = """
import importlib, json, sys, time, traceback
module, _, name = sys.argv[1].rpartition(".")
seconds = float(sys.argv[2])
started = time.monotonic()
class Context:
    invoked_function_arn = sys.argv[3]
    function_name = sys.argv[3].rsplit(":", 1)[-1]
    aws_request_id = "00000000-0000-0000-0000-000000000000"
    def get_remaining_time_in_millis(self):
        return int((seconds - (time.monotonic() - started)) * 1000)
event = json.load(sys.stdin)
answers = sys.stdout
sys.stdout = sys.stderr
try:
    answer = {"answer": getattr(importlib.import_module(module.replace("/", ".")), name)(event, Context())}
except BaseException as error:
    traceback.print_exc()
    answer = {"error": {"errorMessage": str(error), "errorType": type(error).__name__, "stackTrace": []}}
json.dump(answer, answers)
"""
"""Calls the handler as the Lambda runtime does."""


def install(*, port: int) -> None:
    """Change moto's Lambda in this process."""

    def invoke(self: LambdaFunction, event: Any = None) -> tuple[str, bool, str]:
        return run(self, {} if event is None else event, port=port)

    LambdaFunction._invoke_lambda = invoke  # type: ignore[method-assign]


def run(function: LambdaFunction, event: Any, *, port: int) -> tuple[str, bool, str]:
    """The handler's result as JSON, whether it is an error, and the function's log."""
    if not str(function.run_time).startswith("python"):
        return _failed(f"the embedded Lambda runs Python, and {function.function_name} is {function.run_time}")
    region = function.region
    environment = {
        **os.environ,
        **function.environment_vars,
        "AWS_ENDPOINT_URL": f"http://localhost:{port}",
        "AWS_REGION": region,
        "AWS_DEFAULT_REGION": region,
        "AWS_EC2_METADATA_DISABLED": "true",
        **environment_of_role(function.role, region, function.function_name[:64], "lambda.amazonaws.com"),
    }
    with tempfile.TemporaryDirectory() as folder:
        with zipfile.ZipFile(io.BytesIO(function.code_bytes)) as archive:
            archive.extractall(folder)
        environment["PYTHONPATH"] = folder
        program = [sys.executable, "-c", _PROGRAM, str(function.handler), str(function.timeout), function.function_arn]
        try:
            done = subprocess.run(  # noqa: S603 - the function that the deployment uploaded
                program,
                input=event if isinstance(event, str) else json.dumps(event),
                env=environment,
                cwd=Path(folder),
                capture_output=True,
                text=True,
                check=False,
                timeout=float(function.timeout),
            )
        except subprocess.TimeoutExpired:
            return _failed(f"Task timed out after {function.timeout} seconds", "Sandbox.Timedout")
    if done.returncode != 0 or not done.stdout:
        return _failed(f"Runtime exited with error: {done.stderr.strip()[-500:]}", "Runtime.ExitError")
    answer = json.loads(done.stdout)
    if "error" in answer:
        return json.dumps(answer["error"]), True, done.stderr
    return json.dumps(answer["answer"]), False, done.stderr


def _failed(message: str, kind: str = "Runtime.Unsupported") -> tuple[str, bool, str]:
    return json.dumps({"errorMessage": message, "errorType": kind}), True, message
