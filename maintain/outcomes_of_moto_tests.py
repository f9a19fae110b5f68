"""A plug-in for pytest that writes the outcome of each of moto's own tests; `maintain/moto_tests.py` copies it there.

It also gives the account what those tests name and never create: a role, data, the layers of images.
"""

from __future__ import annotations

import json
import os
import urllib.parse
import urllib.request
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

_URL = os.environ["MOTO_TESTS_URL"]
_OUTCOMES, _BLOBS = (Path(os.environ[f"MOTO_TESTS_{name}"]) for name in ("OUTCOMES", "BLOBS"))


def _ask(
    service: str, method: str, path: str, body: bytes = b"", kind: str = "application/x-www-form-urlencoded"
) -> None:
    headers = {
        "Authorization": f"AWS4-HMAC-SHA256 Credential=testing/20260101/us-east-1/{service}/aws4_request, "
        "SignedHeaders=host, Signature=0",
        "Content-Type": kind,
    }
    request = urllib.request.Request(_URL + path, body, headers, method=method)  # noqa: S310 - our own server
    urllib.request.urlopen(request)  # noqa: S310


def _ask_iam(**given: str) -> None:
    _ask("iam", "POST", "/", urllib.parse.urlencode({**given, "Version": "2010-05-08"}).encode())


def _policy(**statement: Any) -> str:
    return json.dumps({"Version": "2012-10-17", "Statement": [{"Effect": "Allow", **statement}]})


def _prepare() -> None:
    if "test_sagemaker" not in os.environ.get("PYTEST_CURRENT_TEST", ""):
        return
    trust = _policy(Principal={"Service": "sagemaker.amazonaws.com"}, Action="sts:AssumeRole")
    everything = _policy(Action="*", Resource="*")
    _ask_iam(Action="CreateRole", RoleName="FakeRole", AssumeRolePolicyDocument=trust)
    _ask_iam(Action="PutRolePolicy", RoleName="FakeRole", PolicyName="P", PolicyDocument=everything)
    _ask("s3", "PUT", "/my-bucket")
    folder = "sagemaker/DEMO-breast-cancer-prediction/"
    for key in ("model.tar.gz", f"{folder}/train/data", f"{folder}/validation/data"):
        _ask("s3", "PUT", f"/my-bucket/{key}", b"x", "binary/octet-stream")


def _push_layers(params: dict[str, Any], **_: Any) -> None:
    try:
        body = json.loads(params.get("imageManifest", ""))
        parts = [body["config"], *body["layers"]] if "config" in body else []
    except (ValueError, KeyError, TypeError):
        return
    for part in parts:
        (_BLOBS / part["digest"].removeprefix("sha256:")).touch()


def _add_container(params: dict[str, Any], **_: Any) -> None:
    if not params.keys() & {"PrimaryContainer", "Containers"}:
        params["PrimaryContainer"] = {"Image": "registry.invalid/x:1"}


def _acknowledge(params: dict[str, Any], **_: Any) -> None:
    params.setdefault("Capabilities", ["CAPABILITY_NAMED_IAM"])


_BEFORE: Mapping[str, Callable[..., None]] = {
    "ecr.PutImage": _push_layers,
    "sagemaker.CreateModel": _add_container,
    "cloudformation.CreateChangeSet": _acknowledge,
    "cloudformation.CreateStack": _acknowledge,
    "cloudformation.UpdateStack": _acknowledge,
}
"""What a request gets before it is sent."""


def pytest_configure(config: Any) -> None:
    """Adapt the requests of boto3's default session, and prepare the account after each reset."""
    import boto3
    from moto.core import models

    boto3.setup_default_session()
    session: Any = boto3.DEFAULT_SESSION
    for operation, adapt in _BEFORE.items():
        session.events.register(f"before-parameter-build.{operation}", adapt)
    mock: Any = models.ServerModeMockAWS
    reset = mock.reset

    def reset_and_prepare(self: Any) -> None:
        reset(self)
        _prepare()

    mock.reset = reset_and_prepare


def _write(test: str, failure: str | None) -> None:
    with _OUTCOMES.open("a") as file:
        file.write(json.dumps([test, failure]) + "\n")


def pytest_collectreport(report: Any) -> None:
    """Write a file that could not be read."""
    if report.failed:
        _write(report.nodeid, str(report.longrepr))


def pytest_runtest_logreport(report: Any) -> None:
    """Write the message of a failure, or that a test passed."""
    if report.failed:
        crash = getattr(report.longrepr, "reprcrash", None)
        _write(report.nodeid, crash.message if crash else str(report.longrepr))
    elif report.passed and report.when == "call":
        _write(report.nodeid, None)
