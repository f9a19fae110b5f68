"""The program that copies a model from the Hub to S3, run as in CodeBuild, with the Hub's stand-in and moto's S3.

`EXTENDED_DLC_MIRROR_MB=2000` makes the weights that large, as for the figures in benchmarks/.
"""

from __future__ import annotations

import hashlib
import json
import os
import random
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import boto3
import pytest
from moto.s3.models import FakeBucket
from moto.server import ThreadedMotoServer
from werkzeug.serving import make_server

from extended_dlc.programs import copy_model as _mirror_copy
from extended_dlc.rehearsal import hub
from extended_dlc.rehearsal.embedded.run_copy import take_for_tls

MEGABYTES = int(os.environ.get("EXTENDED_DLC_MIRROR_MB", "48"))
BUCKET = "extended-dlc-models-123456789012-us-east-1"
PART = max(5, MEGABYTES // 32) * 1024 * 1024  # moto reads the whole object for each requested part
CREDENTIALS = {
    "AWS_ACCESS_KEY_ID": "testing",
    "AWS_SECRET_ACCESS_KEY": "testing",
    "AWS_REGION": "us-east-1",
    "AWS_DEFAULT_REGION": "us-east-1",
    "AWS_EC2_METADATA_DISABLED": "true",
}


@dataclass
class Copying:
    """A stand-in for the Hub, an S3, and a receiver of the copy's signal."""

    hub_address: str
    aws: str
    model: Path
    requests: list[dict[str, Any]]
    signals: list[dict[str, Any]]
    waiting: str
    spoilt: list[int] = field(default_factory=list)
    """How many more responses with large files get a wrong byte."""

    refused: dict[str, int] = field(default_factory=dict)
    """File to the HTTP status with which it is refused."""

    without_ranges: bool = False
    """Whether the Hub ignores the Range header."""

    slow: list[float] = field(default_factory=list)
    """Seconds that each response with a large part takes."""

    @property
    def commit(self) -> str:
        return hub.Snapshot(model="acme/big", folder=self.model, private=False).commit()

    @property
    def prefix(self) -> str:
        return f"models/acme/big/{self.commit}/"

    @property
    def s3(self) -> Any:
        return boto3.client(
            "s3",
            endpoint_url=self.aws,
            region_name="us-east-1",
            aws_access_key_id="testing",
            aws_secret_access_key="testing",
        )

    def start(self, *more: str, threads: int = 4) -> subprocess.Popen[str]:
        arguments = {
            **{"model": "acme/big", "revision": self.commit, "bucket": BUCKET, "prefix": self.prefix},
            **{"make-bucket-in": "123456789012", "threads": threads, "part-mib": PART // 1024**2},
            **{"signal": self.waiting},
        }
        program = Path(_mirror_copy.__file__)
        return subprocess.Popen(
            # as in CodeBuild: one file without its package
            [sys.executable, "-I", str(program), *(f"--{name}={value}" for name, value in arguments.items()), *more],
            env={**os.environ, **CREDENTIALS, "AWS_ENDPOINT_URL": self.aws, "HF_ENDPOINT": self.hub_address},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )

    def run(self, *more: str, threads: int = 4) -> tuple[int, str]:
        process = self.start(*more, threads=threads)
        output, _ = process.communicate(timeout=500)
        return process.returncode, output

    def weights_read(self) -> int:
        """The bytes of weights that the Hub has sent since the last call."""
        total = sum(line["bytes"] for line in self.requests if line["path"].endswith(".safetensors"))
        self.requests.clear()
        return int(total)

    def hash_in_s3(self, path: str) -> str:
        digest = hashlib.sha256()
        for piece in self.s3.get_object(Bucket=BUCKET, Key=self.prefix + path)["Body"].iter_chunks(1024**2):
            digest.update(piece)
        return digest.hexdigest()

    def keys(self) -> set[str]:
        found = self.s3.list_objects_v2(Bucket=BUCKET).get("Contents", ())
        return {entry["Key"].removeprefix("models/acme/big/") for entry in found}

    def left_uncompared(self) -> list[str]:
        return [key for key in self.keys() if key.startswith("unverified/")]


def hash_of(file: Path) -> str:
    digest = hashlib.sha256()
    with file.open("rb") as content:
        while piece := content.read(1024**2):
            digest.update(piece)
    return digest.hexdigest()


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("hub")
    folder = root / "acme" / "big"
    folder.mkdir(parents=True)
    (folder / "config.json").write_text('{"model_type": "bloom"}')
    (folder / "empty.txt").touch()
    (folder / "pytorch_model.bin").write_bytes(b"the same weights again, as a pickle")
    (folder / "tf_model.h5").write_bytes(b"another framework's")
    source = random.Random(1)
    with (folder / "model.safetensors").open("wb") as file:
        for _ in range(MEGABYTES):
            file.write(source.randbytes(1_000_000))
    return folder


@pytest.fixture
def copying(weights: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Copying]:
    signals: list[dict[str, Any]] = []
    requests: list[dict[str, Any]] = []

    class Waiting(BaseHTTPRequestHandler):
        def do_PUT(self) -> None:
            signals.append(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))
            # the presigned URL's signature allows no other Content-Type
            assert not self.headers["Content-Type"]
            self.send_response(200)
            self.end_headers()

        def log_message(self, *_: Any) -> None:
            pass

    waiting = HTTPServer(("127.0.0.1", 0), Waiting)
    real = hub.Hub(weights.parents[1], log=lambda line: requests.append(json.loads(line)))
    found = Copying("", "", weights, requests, signals, f"http://127.0.0.1:{waiting.server_port}/signal")

    def application(environ: dict[str, Any], start_response: Any) -> Iterable[bytes]:
        status = found.refused.get(environ["PATH_INFO"].rpartition("/")[2])
        if status is not None:
            start_response(f"{status} Refused", [("X-Error-Message", "not today"), ("Retry-After", "0")])
            return [b""]
        if found.without_ranges:
            environ.pop("HTTP_RANGE", None)
        answer = real(environ, start_response)
        if not environ["PATH_INFO"].endswith(".safetensors"):
            return answer
        if found.slow:
            time.sleep(found.slow[0])
        if found.spoilt and found.spoilt[0]:
            found.spoilt[0] -= 1
            content = bytearray(b"".join(answer))
            content[len(content) // 2] ^= 1
            return [bytes(content)]
        return answer

    server = make_server("127.0.0.1", 0, application, threaded=True, request_handler=hub._Handler)
    found.hub_address = f"http://127.0.0.1:{server.port}"
    monkeypatch.setattr(FakeBucket, "get_permission", FakeBucket.get_permission)  # the test's end restores it
    take_for_tls()
    aws = ThreadedMotoServer(port=0)
    aws.start()
    host, port = aws.get_host_and_port()
    found.aws = f"http://{host}:{port}"
    boto3.client("s3", endpoint_url=found.aws, region_name="us-east-1")  # loads its models before the time is measured
    threads = [threading.Thread(target=one.serve_forever, daemon=True) for one in (server, waiting)]
    for thread in threads:
        thread.start()
    yield found
    for one in (server, waiting):
        one.shutdown()
        one.server_close()
    from moto.backends import get_backend

    get_backend("s3").reset()
    aws.stop()


def test_what_torch_needs_is_copied_once_and_the_second_run_copies_nothing(copying: Copying) -> None:
    code, output = copying.run()
    assert code == 0, output
    assert copying.keys() == {f"{copying.commit}.json", *(f"{copying.commit}/{name}" for name in NEEDED)}
    assert copying.hash_in_s3("model.safetensors") == hash_of(copying.model / "model.safetensors")
    assert copying.signals[0]["Status"] == "SUCCESS"
    assert copying.weights_read() == MEGABYTES * 1_000_000
    blocked = copying.s3.get_public_access_block(Bucket=BUCKET)["PublicAccessBlockConfiguration"]
    assert all(blocked.values())

    code, output = copying.run()
    assert code == 0, output
    assert "0 of them to copy" in output
    assert copying.weights_read() == 0
    assert "copied 0.00 GB" in copying.signals[1]["Reason"]


NEEDED = ("config.json", "empty.txt", "model.safetensors")


def test_a_copy_that_was_killed_goes_on_with_the_part_it_was_at(copying: Copying) -> None:
    copying.slow.append(0.05)
    process = copying.start(threads=2)
    parts = -(-MEGABYTES * 1_000_000 // PART)
    until = time.monotonic() + 300
    while uploaded_parts(copying) < parts // 3:
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < until
        time.sleep(0.02)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    kept = uploaded_parts(copying)
    assert parts // 3 <= kept < parts
    copying.slow.clear()
    copying.requests.clear()

    code, output = copying.run()
    assert code == 0, output
    assert f"goes on after {kept} of {parts} parts" in output
    assert copying.weights_read() <= MEGABYTES * 1_000_000 - (kept - 1) * PART
    assert copying.hash_in_s3("model.safetensors") == hash_of(copying.model / "model.safetensors")


def uploaded_parts(copying: Copying) -> int:
    try:
        uploads = copying.s3.list_multipart_uploads(Bucket=BUCKET).get("Uploads", ())
    except copying.s3.exceptions.NoSuchBucket:
        return 0
    return sum(
        len(copying.s3.list_parts(Bucket=BUCKET, Key=one["Key"], UploadId=one["UploadId"]).get("Parts", ()))
        for one in uploads
    )


def test_a_corrupted_byte_is_found_and_the_file_copied_again(copying: Copying) -> None:
    copying.spoilt.append(1)
    code, output = copying.run()
    assert code == 0, output
    assert "model.safetensors has another hash in S3 than the Hub lists: removed" in output
    assert copying.hash_in_s3("model.safetensors") == hash_of(copying.model / "model.safetensors")


def test_a_file_that_arrives_wrong_every_time_fails_the_deployment_and_is_not_kept(copying: Copying) -> None:
    copying.spoilt.append(1000)
    code, _ = copying.run()
    assert code == 1
    (signal_sent,) = copying.signals
    assert signal_sent["Status"] == "FAILURE"
    assert "model.safetensors arrived 2 times with another hash than the Hub lists" in signal_sent["Reason"]
    assert copying.keys() == {f"{copying.commit}.json", f"{copying.commit}/config.json", f"{copying.commit}/empty.txt"}


def test_a_large_file_has_no_key_before_it_is_compared_and_then_it_comes_whole(copying: Copying) -> None:
    """A bucket with versioning keeps every object that could be read even for a moment."""
    copying.s3.create_bucket(Bucket=BUCKET)
    copying.s3.put_bucket_versioning(Bucket=BUCKET, VersioningConfiguration={"Status": "Enabled"})
    copying.spoilt.append(1)
    code, output = copying.run()
    assert code == 0, output
    versions = copying.s3.list_object_versions(Bucket=BUCKET)["Versions"]
    keys = [each["Key"] for each in versions]
    assert keys.count(f"{copying.prefix}model.safetensors") == 1
    assert keys.count(f"unverified/{copying.prefix}model.safetensors") == 2
    assert copying.left_uncompared() == []
    assert copying.hash_in_s3("model.safetensors") == hash_of(copying.model / "model.safetensors")


@pytest.mark.parametrize("right", [True, False])
def test_what_a_killed_run_left_uncompared_is_compared_and_not_believed(copying: Copying, right: bool) -> None:
    content = bytearray((copying.model / "model.safetensors").read_bytes())
    content[0] ^= 0 if right else 1
    copying.s3.create_bucket(Bucket=BUCKET)
    copying.s3.put_object(Bucket=BUCKET, Key=f"unverified/{copying.prefix}model.safetensors", Body=bytes(content))
    code, output = copying.run()
    assert code == 0, output
    assert copying.weights_read() == (0 if right else MEGABYTES * 1_000_000)
    assert copying.hash_in_s3("model.safetensors") == hash_of(copying.model / "model.safetensors")
    assert copying.left_uncompared() == []


def test_the_bucket_takes_tls_alone_and_forgets_what_was_left_and_keeps_what_its_owner_added(copying: Copying) -> None:
    copying.s3.create_bucket(Bucket=BUCKET)
    theirs = {
        "Sid": "Own",
        "Effect": "Allow",
        "Principal": {"AWS": "123456789012"},
        "Action": "s3:Get*",
        "Resource": "*",
    }
    copying.s3.put_bucket_policy(Bucket=BUCKET, Policy=json.dumps({"Version": "2012-10-17", "Statement": [theirs]}))
    rule = {"ID": "own", "Status": "Enabled", "Filter": {"Prefix": "old/"}, "Expiration": {"Days": 1}}
    copying.s3.put_bucket_lifecycle_configuration(Bucket=BUCKET, LifecycleConfiguration={"Rules": [rule]})
    for _ in range(2):
        assert copying.run()[0] == 0
    tls, kept = json.loads(copying.s3.get_bucket_policy(Bucket=BUCKET)["Policy"])["Statement"]
    assert (tls["Effect"], tls["Principal"], tls["Action"]) == ("Deny", "*", "s3:*")
    assert tls["Resource"] == [f"arn:aws:s3:::{BUCKET}", f"arn:aws:s3:::{BUCKET}/*"]
    assert tls["Condition"] == {"Bool": {"aws:SecureTransport": "false"}}
    assert kept == theirs
    rules = {each["ID"]: each for each in copying.s3.get_bucket_lifecycle_configuration(Bucket=BUCKET)["Rules"]}
    assert set(rules) == {"forgotten", "unverified", "own"}
    assert rules["forgotten"]["AbortIncompleteMultipartUpload"] == {"DaysAfterInitiation": 7}
    assert (rules["unverified"]["Filter"], rules["unverified"]["Expiration"]) == (
        {"Prefix": "unverified/"},
        {"Days": 7},
    )


@pytest.mark.parametrize(("file", "status"), [("config.json", 404), ("model.safetensors", 403)])
def test_a_file_that_cannot_be_had_is_named_with_its_status(copying: Copying, file: str, status: int) -> None:
    copying.refused[file] = status
    assert copying.run()[0] == 1
    assert f"{file} cannot be had: the Hub answers {status} for http" in copying.signals[0]["Reason"]
    assert "(not today)" in copying.signals[0]["Reason"]
    assert copying.keys().isdisjoint({f"{copying.commit}/{file}"})


@pytest.mark.parametrize("status", [429, 500, 503])
def test_a_hub_that_is_busy_is_asked_again_and_named_at_last(
    copying: Copying, status: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    waited: list[float] = []
    monkeypatch.setattr(time, "sleep", waited.append)
    client = _mirror_copy.Hub(copying.hub_address, "acme/big", copying.commit, None)
    (config, *_) = client.files()
    copying.refused["config.json"] = status
    with pytest.raises(
        _mirror_copy.CopyError, match=rf"config.json cannot be had: the Hub answers {status} .* 5 attempts"
    ):
        client.read(config, 0, config.size)
    assert waited == [1, 2, 4, 8]


def test_a_server_that_knows_no_ranges_is_not_read_to_its_end(
    copying: Copying, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(time, "sleep", lambda _: None)
    client = _mirror_copy.Hub(copying.hub_address, "acme/big", copying.commit, None)
    config = client.files()[0]
    copying.without_ranges = True
    with pytest.raises(_mirror_copy.CopyError, match="the Hub sends more than the 3 bytes asked for"):
        client.read(config, 2, 3)


def test_an_object_that_was_changed_in_s3_is_copied_again(copying: Copying) -> None:
    assert copying.run()[0] == 0
    copying.s3.put_object(Bucket=BUCKET, Key=f"{copying.prefix}config.json", Body=b'{"model_type": "other"}')
    code, output = copying.run()
    assert code == 0
    assert "1 of them to copy" in output
    body = copying.s3.get_object(Bucket=BUCKET, Key=f"{copying.prefix}config.json")["Body"].read()
    assert body == (copying.model / "config.json").read_bytes()


def test_who_waits_is_told_of_a_model_that_is_not_there(copying: Copying) -> None:
    code, _ = copying.run("--model=acme/none")
    assert code == 1
    assert copying.signals[0]["Status"] == "FAILURE"
    assert "the Hub answers 401" in copying.signals[0]["Reason"]
    assert "needs a token" in copying.signals[0]["Reason"]


def test_the_time_is_up_before_codebuild_kills_it(copying: Copying) -> None:
    copying.slow.append(0.3)
    code, _ = copying.run("--seconds=1", threads=1)
    assert code == 1
    assert "the time is up: deploy again, which goes on where this ends" in copying.signals[0]["Reason"]


def test_a_host_whose_address_begins_like_the_hubs_gets_no_token() -> None:
    seen: list[str | None] = []

    class Answer(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            seen.append(self.headers["Authorization"])
            self.send_response(200)
            self.end_headers()

        def log_message(self, *_: object) -> None:
            pass

    server = HTTPServer(("127.0.0.1", 0), Answer)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    address = f"http://127.0.0.1:{server.server_port}"
    try:
        for endpoint in (address[:-1], address):
            _mirror_copy.Hub(endpoint, "acme/big", "main", "hf_token")._get(f"{address}/next")
    finally:
        server.shutdown()
        server.server_close()
    assert seen == [None, "Bearer hf_token"]
