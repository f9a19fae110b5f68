"""Sessions of roles for what AWS runs with a role: containers, functions, state machines."""

from __future__ import annotations

from moto.sts.models import sts_backends
from moto.utilities.utils import get_partition

from extended_dlc.rehearsal.embedded.trust import assumable


def credentials_of_role(
    arn: str | None, region: str, session: str, service: str, *, source: str = ""
) -> dict[str, str]:
    """A boto3 client's arguments with a role's credentials; the administrator's without a role.

    Raises `Refusal` where the account has no such role, or the role does not let the service assume it.
    """
    if arn is None:
        return {"aws_access_key_id": "testing", "aws_secret_access_key": "testing"}
    account = arn.split(":")[4]
    assumable(arn, service, account_id=account, region=region, source=source)
    taken = sts_backends[account][get_partition(region)].assume_role(
        region_name=region, role_session_name=session, role_arn=arn, policy="", duration=3600, external_id=""
    )
    return {
        "aws_access_key_id": taken.access_key_id,
        "aws_secret_access_key": taken.secret_access_key,
        "aws_session_token": taken.session_token,
    }


def environment_of_role(arn: str | None, region: str, session: str, service: str) -> dict[str, str]:
    """The same credentials as environment variables."""
    return {name.upper(): value for name, value in credentials_of_role(arn, region, session, service).items()}
