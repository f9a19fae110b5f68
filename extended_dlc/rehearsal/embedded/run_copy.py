"""`Custom::ExtendedDlcMirror` without CodeBuild: the project's copy program runs as a process of this machine.

The copy is complete when the custom resource is, so the wait condition of the stack has nothing left to wait for.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from moto.iam.access_control import IAMPolicy, PermissionResult
from moto.s3.models import FakeBucket, s3_backends

from extended_dlc.rehearsal.embedded.iam import Iam
from extended_dlc.rehearsal.embedded.resources import (
    CustomHandler,
    CustomResourceFailed,
    Properties,
    Record,
    Wish,
    answer_of_call,
)
from extended_dlc.rehearsal.embedded.rules.programs import fault_of_build


def take_for_tls() -> None:
    """Make moto treat each request to S3 as one over TLS, as requests to AWS are.

    moto applies a Deny without its Condition, so a bucket policy that enforces TLS would refuse every caller.
    """

    def get_permission(bucket: FakeBucket, action: str, resource: str) -> PermissionResult:
        policy = json.loads(bucket.policy or '{"Statement": []}')
        without_tls = {"Bool": {"aws:SecureTransport": "false"}}
        policy["Statement"] = [each for each in policy["Statement"] if each.get("Condition") != without_tls]
        return IAMPolicy(json.dumps(policy)).is_action_permitted(action, resource)

    FakeBucket.get_permission = get_permission  # type: ignore[method-assign,assignment]


_roles: dict[tuple[str, str, str], str] = {}
"""(account, region, project name) to the role of the project's builds."""


def role_of_build(wish: Wish, project: str, iam: Iam) -> str | None:
    """The role of a known project's builds. Raises `Refusal` unless the function's role may start one."""
    role = _roles.get((wish.account_id, wish.region, project))
    if role is not None:
        arn = f"arn:aws:codebuild:{wish.region}:{wish.account_id}:project/{project}"
        token = str(wish.properties.get("ServiceToken", ""))
        iam.require_of_function(token, [("codebuild:StartBuild", arn)], account_id=wish.account_id, region=wish.region)
    return role


def variables_of(build: Properties) -> dict[str, str]:
    """The variables of a StartBuild of a custom resource. Raises `CustomResourceFailed` for what CodeBuild refuses."""
    if fault := fault_of_build(build):
        raise CustomResourceFailed(fault)
    return {entry["name"]: str(entry["value"]) for entry in build["environmentVariablesOverride"]}


def program_of(wish: Wish, variables: Mapping[str, str]) -> bytes:
    """The build's program, from the S3 object that the deployment uploaded."""
    where = urlsplit(variables["PROGRAM"])
    program = s3_backends[wish.account_id]["aws"].get_object(where.netloc, where.path.lstrip("/"))
    if program is None:
        raise CustomResourceFailed(f"the build failed: {variables['PROGRAM']} is not there")
    content: bytes = program.value
    return content


def environment_of_build(wish: Wish, role: str | None, iam: Iam, *, port: int) -> dict[str, str]:
    """The environment of a build: the embedded AWS's address and the role's credentials."""
    return {
        **os.environ,
        **{"AWS_ENDPOINT_URL": f"http://localhost:{port}", "AWS_REGION": wish.region},
        **iam.environment(role, "codebuild.amazonaws.com", account_id=wish.account_id, region=wish.region),
        **{"AWS_DEFAULT_REGION": wish.region},
    }


def make_project(wish: Wish) -> Any:
    """CreateProject."""
    _roles[wish.account_id, wish.region, wish.name] = str(wish.properties.get("ServiceRole", ""))
    arn = f"arn:aws:codebuild:{wish.region}:{wish.account_id}:project/{wish.name}"
    return Record(wish.name, wish.properties, {"Arn": arn})


def forget_project(wish: Wish, model: Any) -> None:
    """DeleteProject."""
    _roles.pop((wish.account_id, wish.region, wish.name), None)


def copy_model(*, port: int, iam: Iam) -> CustomHandler:
    """Returns a handler that runs the custom resource's build, with the role of its CodeBuild project where known."""
    take_for_tls()

    def handle(kind: str, wish: Wish) -> Properties:
        if kind == "Delete":
            return {}
        call = json.loads(wish.properties[kind])
        build = call["parameters"]
        role = role_of_build(wish, build["projectName"], iam)
        variables = variables_of(build)
        program = program_of(wish, variables)
        environment = environment_of_build(wish, role, iam, port=port)
        with tempfile.TemporaryDirectory() as folder:
            file = Path(folder) / "copy_model.py"
            file.write_bytes(program)
            done = subprocess.run(  # noqa: S603 - the program that the deployment uploaded
                [sys.executable, str(file), *variables["ARGUMENTS"].split()],
                env=environment,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                text=True,
                check=False,
            )
        if done.returncode != 0:
            raise CustomResourceFailed(f"the build failed: {done.stdout.strip().splitlines()[-1]}")
        return answer_of_call(call, {"build": started(build, wish)})

    return handle


def started(build: Properties, wish: Wish) -> Properties:
    """StartBuild's response, which repeats most of the request (CodeBuild API reference, Build)."""
    number = f"{build['projectName']}:00000000-0000-0000-0000-000000000000"
    return {
        "id": number,
        "arn": f"arn:aws:codebuild:{wish.region}:{wish.account_id}:build/{number}",
        "buildStatus": "IN_PROGRESS",
        "currentPhase": "QUEUED",
        "projectName": build["projectName"],
        "source": {"type": build["sourceTypeOverride"], "buildspec": build["buildspecOverride"]},
        "environment": {"environmentVariables": build["environmentVariablesOverride"]},
        "timeoutInMinutes": build["timeoutInMinutesOverride"],
    }
