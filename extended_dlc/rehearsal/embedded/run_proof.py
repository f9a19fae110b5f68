"""`Custom::ExtendedDlcProof`: this project's Lambda function runs as a process of this machine."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
from http.server import BaseHTTPRequestHandler, HTTPServer
from typing import Any

from extended_dlc.programs import FUNCTIONS
from extended_dlc.rehearsal.embedded.iam import Iam
from extended_dlc.rehearsal.embedded.references import EcrReference
from extended_dlc.rehearsal.embedded.resources import CustomHandler, CustomResourceFailed, Properties, Wish

_LAMBDA = """
import json, os, sys
import proof
class Context:
    invoked_function_arn = os.environ["FUNCTION"]
    def get_remaining_time_in_millis(self):
        return 900_000
proof.WAIT_SECONDS = 0.2
proof.handle(json.load(sys.stdin), Context())
"""
"""Calls the handler as Lambda does, without a time-out, and polls often, because little has to be waited for."""


def prove(*, port: int, iam: Iam) -> CustomHandler:
    """Returns a handler that runs the function against this server, with the function's role where it is known."""

    def handle(kind: str, wish: Wish) -> Properties:
        image = EcrReference.parse(wish.properties.get("Image", ""), port=port)
        if image is not None and image.account not in (None, wish.account_id):
            return {}  # other accounts' registries are not here, and the embedded SageMaker takes their images
        function = str(wish.properties.get("ServiceToken", ""))
        with _Answers() as answers:
            event = {
                "RequestType": kind,
                "ResponseURL": answers.url,
                "StackId": wish.stack_id,
                "RequestId": "00000000-0000-0000-0000-000000000000",
                "LogicalResourceId": wish.logical_id,
                "ResourceProperties": _as_text(wish.properties),
            }
            environment = {
                **os.environ,
                **{"AWS_ENDPOINT_URL": f"http://localhost:{port}", "AWS_REGION": wish.region},
                **iam.environment_of_function(function, wish.account_id, wish.region),
                **{"AWS_DEFAULT_REGION": wish.region, "PYTHONPATH": str(FUNCTIONS), "FUNCTION": function},
            }
            done = subprocess.run(  # noqa: S603 - what CloudFormation would run
                [sys.executable, "-c", _LAMBDA],
                input=json.dumps(event),
                env=environment,
                capture_output=True,
                text=True,
                check=False,
            )
        if answers.given is None:
            raise CustomResourceFailed(f"the function gave no answer: {done.stderr.strip()}")
        answer = json.loads(answers.given)
        if answer["Status"] != "SUCCESS":
            raise CustomResourceFailed(answer["Reason"])
        return dict(answer.get("Data", {}))

    return handle


class _Answers:
    """Receives the response in place of S3's presigned URL."""

    def __init__(self) -> None:
        self.given: bytes | None = None
        answers = self

        class Handler(BaseHTTPRequestHandler):
            def do_PUT(self) -> None:
                answers.given = self.rfile.read(int(self.headers["Content-Length"]))
                self.send_response(200)
                self.send_header("Content-Length", "0")
                self.end_headers()

            def log_message(self, format: str, *arguments: Any) -> None:
                """Suppress http.server's lines on stderr."""

        self._server = HTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self._server.server_port}/answer"

    def __enter__(self) -> _Answers:
        threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True).start()
        return self

    def __exit__(self, *error: object) -> None:
        self._server.shutdown()
        self._server.server_close()


def _as_text(value: Any) -> Any:
    """The properties as CloudFormation passes them to a custom resource: numbers and booleans become strings."""
    if isinstance(value, dict):
        return {key: _as_text(each) for key, each in value.items()}
    if isinstance(value, list):
        return [_as_text(each) for each in value]
    return str(value).lower() if isinstance(value, bool) else str(value)
