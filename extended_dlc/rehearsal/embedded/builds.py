"""`Custom::ExtendedDlcBuild` without CodeBuild: the project's build program runs as a process of this machine.

It builds with the rehearsal's container engine and pushes to the embedded registry. The program's signal is received
while the custom resource is created, so the wait condition of the stack has nothing left to wait for.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

from extended_dlc.rehearsal.embedded.iam import Iam
from extended_dlc.rehearsal.embedded.resources import (
    CustomHandler,
    CustomResourceFailed,
    Properties,
    Wish,
    answer_of_call,
)
from extended_dlc.rehearsal.embedded.run_copy import (
    environment_of_build,
    program_of,
    role_of_build,
    started,
    variables_of,
)
from extended_dlc.rehearsal.engine import Engine


def build_image(*, port: int, iam: Iam, engine: Engine | None) -> CustomHandler:
    """Returns a handler that runs the custom resource's build with the role of its CodeBuild project."""

    def handle(kind: str, wish: Wish) -> Properties:
        if kind == "Delete":
            return {}
        call = json.loads(wish.properties[kind])
        build = call["parameters"]
        variables = variables_of(build)
        role = role_of_build(wish, build["projectName"], iam)
        environment = environment_of_build(wish, role, iam, port=port)
        run(program_of(wish, variables), variables, environment, port=port, engine=engine)
        return answer_of_call(call, {"build": started(build, wish)})

    return handle


_DOCKER = """#!{python}
import os, re, sys
registry = re.compile(r"\\b\\d{{12}}[.]dkr[.]ecr[.][a-z0-9-]+[.]amazonaws[.]com([.]cn)?/")
given = [registry.sub("127.0.0.1:{port}/", each) for each in sys.argv[1:]]
if given[0] == "login":
    sys.exit(0 if sys.stdin.read() else "no password")
os.execvp("{engine}", ["{engine}", *given])
"""
"""A wrapper of the engine's CLI: it replaces each ECR registry's host by the embedded registry's, and skips `login`."""


def _docker(folder: Path, engine: str, port: int) -> Path:
    program = folder / ("podman" if "podman" in engine else "docker")
    program.write_text(_DOCKER.format(python=sys.executable, port=port, engine=engine))
    program.chmod(0o755)
    return program


def run(
    program: bytes, variables: Properties, environment: dict[str, str], *, port: int, engine: Engine | None
) -> None:
    """Run the program, which sends a signal. Raises `CustomResourceFailed` with the signal's reason where it failed."""
    with tempfile.TemporaryDirectory() as folder, _hearing() as (address, heard):
        file = Path(folder) / "build_image.py"
        file.write_bytes(program)
        done = subprocess.run(  # noqa: S603 - the program that the deployment uploaded
            [sys.executable, str(file)],
            env={
                **environment,
                **(engine.environment if engine else {}),
                **{name: str(value) for name, value in variables.items()},
                "CDK_DOCKER": str(_docker(Path(folder), engine.program if engine else "docker", port)),
                "SIGNAL": address,
            },
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            check=False,
        )
    (signal,) = heard or [{"Status": "FAILURE", "UniqueId": "build", "Reason": done.stdout[-1000:], "Data": ""}]
    if signal["Status"] != "SUCCESS":
        raise CustomResourceFailed(
            f"WaitCondition received failed message: '{signal['Reason']}' for uniqueId: {signal['UniqueId']}"
        )


@contextmanager
def _hearing() -> Iterator[tuple[str, list[dict[str, str]]]]:
    """An HTTP server that receives CloudFormation signals: its URL, and the list of the signals received."""
    heard: list[dict[str, str]] = []
    server = ThreadingHTTPServer(("127.0.0.1", 0), _handler(heard.append))
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}/signal", heard
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def _handler(hear: Callable[[dict[str, str]], None]) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        """Receives the PUT of a CloudFormation signal."""

        def do_PUT(self) -> None:
            hear(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))
            self.send_response(200)
            self.send_header("Content-Length", "0")
            self.end_headers()

        def log_message(self, *arguments: Any) -> None:
            """Suppress http.server's lines on stderr."""

    return Handler
