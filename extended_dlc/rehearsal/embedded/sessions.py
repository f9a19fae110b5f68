"""Sessions of roles for what AWS runs with a role: containers, functions, state machines."""

from __future__ import annotations

from moto.iam.models import iam_backends
from moto.sts.models import sts_backends


def credentials_of_role(arn: str | None, region: str, session: str) -> dict[str, str]:
    """A boto3 client's arguments with a role's credentials; the administrator's where this IAM has no such role."""
    account = arn.split(":")[4] if arn else ""
    known = bool(account) and any(role.arn == arn for role in iam_backends[account]["aws"].roles.values())
    if arn is None or not known:
        return {"aws_access_key_id": "testing", "aws_secret_access_key": "testing"}
    taken = sts_backends[account]["aws"].assume_role(
        region_name=region, role_session_name=session, role_arn=arn, policy="", duration=3600, external_id=""
    )
    return {
        "aws_access_key_id": taken.access_key_id,
        "aws_secret_access_key": taken.secret_access_key,
        "aws_session_token": taken.session_token,
    }


def environment_of_role(arn: str | None, region: str, session: str) -> dict[str, str]:
    """The same credentials as environment variables."""
    return {name.upper(): value for name, value in credentials_of_role(arn, region, session).items()}
