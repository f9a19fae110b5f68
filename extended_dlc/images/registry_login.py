"""Logs the container engine in to the registries of base images.

`cdk deploy` logs in only to the registry that it pushes to, and AWS's registries of base images need a login too. It
does not import the CDK, because it runs before every synth.
"""

from __future__ import annotations

import base64
import os
import re
import shutil
import subprocess
from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from extended_dlc.decisions.decide import Decision

_ECR = re.compile(r"(?P<host>(?P<account>\d{12})\.dkr\.ecr\.(?P<region>[a-z0-9-]+)\.[a-z0-9.-]+)/.+")


class LoginFailed(Exception):
    """A registry refused the login or was unreachable; the message ends with what to do."""


@dataclass(frozen=True, kw_only=True, order=True)
class EcrRegistry:
    """A private registry of Amazon ECR."""

    host: str
    account: str
    region: str


def ecr_registries(references: Iterable[str]) -> list[EcrRegistry]:
    """The private ECR registries of image references, each once; other registries need no AWS login."""
    found = (_ECR.fullmatch(reference) for reference in references)
    return sorted({EcrRegistry(**match.groupdict()) for match in found if match})


def bases_to_pull(decision: Decision) -> tuple[str, ...]:
    """The base of an image that is built on this machine; none where no image is built or the base is not known."""
    if decision.image.kind != "extended" or decision.image.base is None:
        return ()
    return (decision.image.base,)


def log_in(registry: EcrRegistry, engine: str) -> None:
    """Log `engine` in to a registry with the caller's AWS credentials; raises `LoginFailed` with what to do."""
    program = shutil.which(engine)
    if program is None:
        raise LoginFailed(no_engine(engine))
    user, password = _token(registry)
    done = subprocess.run(  # noqa: S603 - a list of arguments, no shell; the password goes through standard input
        [program, "login", "--username", user, "--password-stdin", registry.host],
        input=password,
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode != 0:
        reason = (done.stderr or done.stdout).strip().splitlines()[-1:] or ["no reason given"]
        raise LoginFailed(f"{engine} login failed: {reason[0]}; see that the engine runs ({engine} info)")


def _token(registry: EcrRegistry) -> tuple[str, str]:
    # Imported here, because most calls find no registry to log in to.
    import boto3
    from botocore.config import Config
    from botocore.exceptions import BotoCoreError, ClientError

    quick = Config(connect_timeout=5, read_timeout=10, retries={"total_max_attempts": 2})
    try:
        ecr = boto3.Session(region_name=registry.region).client("ecr", config=quick)
        answer = ecr.get_authorization_token(registryIds=[registry.account])
    except (BotoCoreError, ClientError) as error:
        name = type(error).__name__
        if name in ("NoCredentialsError", "PartialCredentialsError", "CredentialRetrievalError", "TokenRetrievalError"):
            raise LoginFailed("no AWS credentials: run 'aws configure' or 'aws sso login', then try again") from None
        raise LoginFailed(f"{error}; your credentials need ecr:GetAuthorizationToken") from None
    user, _, password = base64.b64decode(answer["authorizationData"][0]["authorizationToken"]).decode().partition(":")
    return user, password


def engine_program() -> str:
    """The container engine that the CDK CLI uses."""
    return os.environ.get("CDK_DOCKER") or "docker"


def no_engine(program: str, reason: str | None = None) -> str:
    """That a container engine cannot be run, with the way out."""
    why = f" ({reason})" if reason else ""
    return f"there is no container engine '{program}'{why}: install Docker, or name yours in CDK_DOCKER"
