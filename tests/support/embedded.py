"""An embedded AWS of the tests: started, asked, and filled with images."""

from __future__ import annotations

import gzip
import hashlib
import http.client
import io
import json
import os
import signal
import socket
import stat
import subprocess
import sys
import tarfile
import time
import urllib.parse
import urllib.request
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import boto3
from botocore.config import Config
from click.testing import CliRunner, Result

from extended_dlc.cli import main
from extended_dlc.rehearsal.engine import Engine

ACCOUNT = "123456789012"
REGION = "us-east-1"

DOCKER = "application/vnd.docker.distribution.manifest.v2+json"
OCI = "application/vnd.oci.image.manifest.v1+json"
INDEX = "application/vnd.oci.image.index.v1+json"

EVERYTHING = {"Version": "2012-10-17", "Statement": [{"Effect": "Allow", "Action": "*", "Resource": "*"}]}
"""The policy of an administrator."""

# What the container of an endpoint is here: a program that the stub engine runs. What it does is in its environment.
SERVER = """
import http.server, os, signal, sys, time
behaviour = os.environ.get("BEHAVIOUR", "")
print("serving with", sys.argv[1:], "as", os.environ.get("GREETING"), flush=True)
signal.signal(signal.SIGTERM, lambda *_: os._exit(0))
if behaviour == "crash":
    sys.exit("cannot load the model: out of luck")
started = time.monotonic()

class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_GET(self):
        if behaviour == "slow-ping":
            time.sleep(5)
        ready = time.monotonic() - started > float(os.environ.get("LOADING", "0"))
        self.answer(503 if behaviour == "never-ready" or not ready else 200, b"")

    def do_POST(self):
        body = self.rfile.read(int(self.headers.get("Content-Length", "0")))
        if body.startswith(b"error "):
            self.answer(int(body[6:]), b'{"error": "on request"}')
        elif body == b"sleep":
            time.sleep(30)
        elif body.startswith(b"pause "):
            began = time.monotonic()
            time.sleep(float(body[6:]))
            self.answer(200, b"%f %f" % (began, time.monotonic()))
        elif body == b"exit":
            os._exit(7)
        elif body == b"stream":
            self.stream([b"one ", b"two ", b"three"])
        elif body == b'{"inputs": "in events"}' and "text/event-stream" in self.headers.get("Accept", ""):
            event = b'data: {"token": {"text": "%s"}}\\n\\n'
            self.stream([event % word for word in (b"eins ", b"zwei ", b"drei")])
        else:
            text = "{} {} {}".format(os.environ.get("GREETING"), self.headers.get("Content-Type"), len(body))
            if self.path != "/invocations":
                text += " at " + self.path
            self.answer(200, text.encode(), {"X-Amzn-SageMaker-Custom-Attributes": "seen", "X-Private": "no"})

    def stream(self, parts):
        self.send_response(200)
        self.send_header("Content-Type", "text/event-stream")
        self.send_header("Transfer-Encoding", "chunked")
        self.end_headers()
        for part in parts:
            self.wfile.write(b"%x\\r\\n%s\\r\\n" % (len(part), part))
            self.wfile.flush()
            time.sleep(0.2)
        self.wfile.write(b"0\\r\\n\\r\\n")

    def answer(self, status, body, headers={}):
        self.send_response(status)
        self.send_header("Content-Type", "text/plain")
        self.send_header("Content-Length", str(len(body)))
        for key, value in headers.items():
            self.send_header(key, value)
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_):
        pass

http.server.ThreadingHTTPServer(("127.0.0.1", int(os.environ["SAGEMAKER_BIND_TO_PORT"])), Handler).serve_forever()
"""


# A container engine's command line as far as the embedded AWS uses it, over processes: no engine is needed to test
# what is ours. It pulls as an engine does, by digest from the registry, and refuses what it cannot get.
STUB_ENGINE = """
import json, os, pathlib, signal, subprocess, sys, time, urllib.request
state, server = pathlib.Path(os.environ["STUB_STATE"]), os.environ["STUB_SERVER"]
verb, arguments = sys.argv[1], sys.argv[2:]
with (state / "calls.jsonl").open("a") as calls:
    calls.write(json.dumps(sys.argv[1:]) + "\\n")
if verb == "pull":
    host, _, rest = arguments[-1].partition("/")
    name, _, digest = rest.partition("@")
    accept = {"Accept": "application/vnd.docker.distribution.manifest.v2+json"}
    try:
        urllib.request.urlopen(urllib.request.Request(f"http://{host}/v2/{name}/manifests/{digest}", headers=accept))
    except OSError as error:
        sys.exit(f"initializing source {arguments[-1]}: {error}")
elif verb == "run":
    given = dict(a.removeprefix("--env=").split("=", 1) for a in arguments if a.startswith("--env="))
    name = next(a.removeprefix("--name=") for a in arguments if a.startswith("--name="))
    (state / name).write_text(str(os.getpid()))
    image = max(i for i, a in enumerate(arguments) if a.startswith("--"))
    os.execve(sys.executable, [sys.executable, server, *arguments[image + 2:]], {**os.environ, **given})
elif verb == "stop":
    pid = int((state / arguments[-1]).read_text())
    os.kill(pid, signal.SIGTERM)
elif verb in ("ps", "rm", "kill"):
    pass
else:
    sys.exit(f"unknown command {verb}")
"""


@dataclass
class Aws:
    """A running embedded AWS."""

    port: int
    state: Path
    process: subprocess.Popen[str]
    stub: Path
    clients: dict[tuple[Any, ...], Any] = field(default_factory=dict)

    @property
    def url(self) -> str:
        return f"http://localhost:{self.port}"

    def client(self, service: str, **options: Any) -> Any:
        """A client; the same for the same question, because each takes a tenth of a second to make."""
        key = (service, *sorted(options.items()))
        if key not in self.clients:
            self.clients[key] = self._new_client(service, **options)
        return self.clients[key]

    def _new_client(self, service: str, **options: Any) -> Any:
        return boto3.client(
            service,
            endpoint_url=self.url,
            region_name=REGION,
            aws_access_key_id="testing",
            aws_secret_access_key="testing",
            config=Config(retries={"max_attempts": 1, "mode": "standard"}, **options),
        )

    def create_role(self, name: str, trusted: str, **policies: Any) -> str:
        """A role that a service or an ARN's owner may assume, with inline policies; its ARN."""
        whom = {"AWS" if trusted.startswith("arn:") else "Service": trusted}
        principal = {"Effect": "Allow", "Principal": whom, "Action": "sts:AssumeRole"}
        trust = json.dumps({"Version": "2012-10-17", "Statement": [principal]})
        form = {"Action": "CreateRole", "Version": "2010-05-08", "RoleName": name, "AssumeRolePolicyDocument": trust}
        self.form("iam", form)
        for policy, document in policies.items():
            given = {"RoleName": name, "PolicyName": policy, "PolicyDocument": json.dumps(document)}
            self.form("iam", {"Action": "PutRolePolicy", "Version": "2010-05-08", **given})
        return f"arn:aws:iam::{ACCOUNT}:role/{name}"

    def form(self, service: str, form: dict[str, str]) -> Answer:
        """A request of AWS's query protocol without a client, which takes long to make."""
        headers = {
            "Authorization": f"AWS4-HMAC-SHA256 Credential=testing/20260101/{REGION}/{service}/aws4_request, "
            "SignedHeaders=host, Signature=0",
            "Content-Type": "application/x-www-form-urlencoded",
        }
        answer = self.request("POST", "/", urllib.parse.urlencode(form), headers)
        assert answer.status == 200, answer.body
        return answer

    def left(self) -> dict[str, list[str]]:
        with urllib.request.urlopen(f"{self.url}/_embedded/left") as response:
            found: dict[str, list[str]] = json.load(response)
            return found

    def engine_calls(self, verb: str) -> list[list[str]]:
        calls = [json.loads(line) for line in (self.stub / "calls.jsonl").read_text().splitlines()]
        return [call[1:] for call in calls if call[0] == verb]

    def request(
        self, method: str, path: str, body: Any = None, headers: dict[str, str] | None = None, **options: Any
    ) -> Answer:
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=30)
        connection.request(method, path, body=body, headers=headers or {}, **options)
        response = connection.getresponse()
        content = response.read()
        connection.close()
        return Answer(response.status, {key.lower(): value for key, value in response.getheaders()}, content)

    def stop(self) -> int:
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(timeout=30)


@dataclass
class Answer:
    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def code(self) -> str:
        return str(json.loads(self.body)["errors"][0]["code"])

    @property
    def message(self) -> str:
        return str(json.loads(self.body)["errors"][0]["message"])


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def start(state: Path, stub: Path, *options: str, port: int | None = None) -> Aws:
    """Start the server as the rehearsal does, and wait for its line."""
    port = port or free_port()
    process = subprocess.Popen(
        [sys.executable, "-m", "extended_dlc.rehearsal.embedded", f"--state={state}", f"--port={port}", *options],
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    line = process.stdout.readline()
    assert json.loads(line)["port"] == port
    running = Aws(port, state, process, stub)
    running.create_role("execution", "sagemaker.amazonaws.com", Everything=EVERYTHING)
    return running


def stub_engine(folder: Path) -> Path:
    """The file of an engine that runs processes in place of containers."""
    server, program = folder / "server.py", folder / "engine"
    server.write_text(SERVER)
    program.write_text(f"#!{sys.executable}\n{STUB_ENGINE}")
    program.chmod(program.stat().st_mode | stat.S_IXUSR)
    (folder / "calls.jsonl").touch()
    engine = Engine(program=str(program), environment={"STUB_STATE": str(folder), "STUB_SERVER": str(server)})
    engine.save(folder / "engine.json")
    return folder / "engine.json"


def digest(content: bytes) -> str:
    return f"sha256:{hashlib.sha256(content).hexdigest()}"


@dataclass
class Image:
    """An image of one layer with one file."""

    content: str
    media_type: str = DOCKER

    @property
    def layer(self) -> bytes:
        archive = io.BytesIO()
        with tarfile.open(fileobj=archive, mode="w") as tar:
            entry = tarfile.TarInfo("content")
            entry.size = len(self.content)
            tar.addfile(entry, io.BytesIO(self.content.encode()))
        return gzip.compress(archive.getvalue(), mtime=0)

    @property
    def configuration(self) -> bytes:
        return json.dumps({"architecture": "amd64", "os": "linux", "config": {}, "rootfs": {"type": "layers"}}).encode()

    @property
    def manifest(self) -> bytes:
        def part(kind: str, content: bytes) -> dict[str, Any]:
            return {"mediaType": kind, "size": len(content), "digest": digest(content)}

        kinds = {
            DOCKER: (
                "application/vnd.docker.container.image.v1+json",
                "application/vnd.docker.image.rootfs.diff.tar.gzip",
            ),
            OCI: ("application/vnd.oci.image.config.v1+json", "application/vnd.oci.image.layer.v1.tar+gzip"),
        }[self.media_type]
        body = {
            "schemaVersion": 2,
            "mediaType": self.media_type,
            "config": part(kinds[0], self.configuration),
            "layers": [part(kinds[1], self.layer)],
        }
        return json.dumps(body).encode()

    def push(self, aws: Aws, repository: str, tag: str) -> Answer:
        """Push as an engine does: each blob that is absent, then the manifest."""
        for blob in (self.layer, self.configuration):
            if aws.request("HEAD", f"/v2/{repository}/blobs/{digest(blob)}").status == 200:
                continue
            begun = aws.request("POST", f"/v2/{repository}/blobs/uploads/")
            if begun.status != 202:
                return begun
            done = aws.request("PUT", f"{begun.headers['location']}?digest={digest(blob)}", blob)
            assert done.status == 201, done
        return aws.request("PUT", f"/v2/{repository}/manifests/{tag}", self.manifest, {"Content-Type": self.media_type})


def uri(repository: str, tag: str) -> str:
    """An image as a template names it."""
    return f"{ACCOUNT}.dkr.ecr.{REGION}.amazonaws.com/{repository}:{tag}"


def wait_for(condition: Callable[[], bool], seconds: float = 20) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it did not come about"
        time.sleep(0.05)


def deploy(
    aws: Aws, name: str, template: dict[str, Any], *, update: bool = False, role: str | None = None
) -> dict[str, Any]:
    """Create or update a stack, as the administrator or with CloudFormation's role, and give its end."""
    client = aws.client("cloudformation")
    call = client.update_stack if update else client.create_stack
    given = {"StackName": name, **_template_of(aws, name, template), "Capabilities": ["CAPABILITY_NAMED_IAM"]}
    call(**given, **({"RoleARN": role} if role else {}))
    return settled(aws, name)


_LARGEST_BODY = 51_200
"""Bytes of a TemplateBody; a larger template has to be in S3."""


def _template_of(aws: Aws, name: str, template: dict[str, Any]) -> dict[str, str]:
    """A template as a request has it: itself, or where it is in S3."""
    body = json.dumps(template)
    if len(body.encode()) <= _LARGEST_BODY:
        return {"TemplateBody": body}
    s3 = aws.client("s3")
    s3.create_bucket(Bucket="templates-of-tests")
    s3.put_object(Bucket="templates-of-tests", Key=name, Body=body.encode())
    return {"TemplateURL": f"https://s3.{REGION}.amazonaws.com/templates-of-tests/{name}"}


def execution_role(aws: Aws) -> str:
    """CloudFormation's role as the CDK's bootstrap makes it; it stays with a stack, for a schedule's updates too."""
    return aws.create_role("cfn-exec-role", "cloudformation.amazonaws.com", Everything=EVERYTHING)


def settled(aws: Aws, name: str) -> dict[str, Any]:
    client = aws.client("cloudformation")
    deadline = time.monotonic() + 30
    while True:
        stack: dict[str, Any] = client.describe_stacks(StackName=name)["Stacks"][0]
        if not stack["StackStatus"].endswith("IN_PROGRESS"):
            return stack
        assert time.monotonic() < deadline, stack
        time.sleep(0.1)


def events(aws: Aws, name: str) -> list[tuple[str, str, str]]:
    """A stack's events, oldest first, as (logical id, status, reason)."""
    pages = aws.client("cloudformation").get_paginator("describe_stack_events").paginate(StackName=name)
    return [
        (each["LogicalResourceId"], each["ResourceStatus"], each.get("ResourceStatusReason", ""))
        for each in reversed([each for page in pages for each in page["StackEvents"]])
    ]


def client_environment(aws: Aws) -> dict[str, str]:
    """The variables with which AWS's clients use the embedded AWS, and no settings file of this machine."""
    return {
        "AWS_ENDPOINT_URL": aws.url,
        "AWS_ACCESS_KEY_ID": "testing",
        "AWS_SECRET_ACCESS_KEY": "testing",
        "AWS_REGION": REGION,
        "AWS_DEFAULT_REGION": REGION,
        "AWS_EC2_METADATA_DISABLED": "true",
        "AWS_CONFIG_FILE": os.devnull,
        "AWS_SHARED_CREDENTIALS_FILE": os.devnull,
    }


def command(aws: Aws, *arguments: str, given: bytes | None = None, **environment: str | None) -> Result:
    """Run `extended-dlc` without this machine's AWS settings; None in `environment` removes a variable."""
    without: dict[str, str | None] = {key: None for key in os.environ if key.startswith("AWS_")}
    runner = CliRunner(env={**without, **client_environment(aws), **environment})
    return runner.invoke(main, arguments, input=given)


def cdk_environment(aws: Aws, folder: Path) -> dict[str, str]:
    """What the CDK CLI needs to meet the embedded AWS, and nothing of the machine's own AWS settings."""
    kept = {key: value for key, value in os.environ.items() if not key.startswith(("AWS_", "CDK_"))}
    return kept | {
        **client_environment(aws),
        "CDK_HOME": str(folder),
        "CDK_VALIDATION": "false",
        "CDK_DISABLE_CLI_TELEMETRY": "1",
        "NODE_NO_WARNINGS": "1",
        "JSII_SILENCE_WARNING_END_OF_LIFE_NODE_VERSION": "20",
        "COLUMNS": "200",
        "NO_COLOR": "1",
    }
