"""Who makes a request: the user or the role's session that a key belongs to, with its policies.

Keys that `CreateAccessKey` and `AssumeRole` returned here are known, with their secrets and policies. Every other key,
such as the rehearsal's own, belongs to the account's administrator: its secret is unknown, and it may do everything.

`install` changes moto 5.2.5 in this process: a session keeps its tags and the managed policies that limit it, which
moto forgets, and what would return keys of an identity that is not evaluated here is refused.
"""

from __future__ import annotations

import functools
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime, timezone
from typing import Any, NoReturn, cast

from botocore.credentials import Credentials
from moto.core.responses import ActionResult
from moto.iam.aws_managed_policies import aws_managed_policies_data
from moto.iam.models import AWSManagedPolicy, IAMBackend, Role, User, iam_backends
from moto.iam.responses import IamResponse
from moto.sts.models import AssumedRole, sts_backends
from moto.sts.responses import TokenResponse
from moto.utilities.utils import get_partition

from extended_dlc.rehearsal.embedded.policies import Document, known_part
from extended_dlc.rehearsal.embedded.trust import document_of, find_role

AWS_POLICY = ":iam::aws:policy/"
"""Part of the ARN of a managed policy of AWS's own."""


class InvalidKey(ValueError):
    """A key of this IAM that is not valid any more, or was used without its session token or with another one."""


class ExpiredKey(InvalidKey):
    """A key of a session that has ended."""


@dataclass(frozen=True, kw_only=True)
class Principal:
    """A user or role with its policies."""

    arn: str
    """The ARN of the user or role, as policies name it."""

    session: str
    """The ARN as error messages name it."""

    identity: Sequence[Document]
    boundary: Document | None = None
    limits: Sequence[Document] = ()
    """The session policies."""

    tags: Mapping[str, str] = field(default_factory=dict)
    user_id: str = ""
    """The value of `aws:userid`."""

    source: str = ""
    """The session's source identity."""

    credentials: Credentials | None = None
    """What signs its requests."""

    @property
    def type(self) -> str:
        """The value of `aws:PrincipalType`."""
        return "User" if ":user/" in self.arn else "AssumedRole"


def find_principal(account_id: str, region: str, access_key: str, session_token: str | None) -> Principal | None:
    """The owner of a key; None for a key that this IAM did not create. Raises `InvalidKey`."""
    partition = get_partition(region)
    backend = iam_backends[account_id][partition]
    session = sts_backends[account_id][partition].get_assumed_role_from_access_key(access_key)
    if session is not None:
        if session_token != session.session_token:
            raise InvalidKey(access_key)
        if session.expiration.replace(tzinfo=timezone.utc) < datetime.now(timezone.utc):
            raise ExpiredKey(access_key)
        return _of_session(session, account_id, region)
    key = backend.access_keys.get(access_key)
    if key is None or key.user_name is None:
        if access_key in _known:
            raise InvalidKey(access_key)
        return None
    _known.add(access_key)
    if session_token is not None or key.status != "Active":
        raise InvalidKey(access_key)
    return _of_user(backend, backend.get_user(key.user_name), Credentials(access_key, key.secret_access_key))


_known: set[str] = set()
"""The keys of users that were used, so that one that was deleted is not taken for a key of the administrator."""


def administrator(account_id: str, region: str) -> Principal:
    """The account's administrator, to whom every key belongs that this IAM did not create."""
    arn = f"arn:{get_partition(region)}:iam::{account_id}:user/administrator"
    everything = {"Statement": [{"Effect": "Allow", "Action": "*", "Resource": "*"}]}
    return Principal(arn=arn, session=arn, identity=[everything], user_id="AIDAADMINISTRATOR")


def principal_of_role(role: Role, account_id: str, region: str, *, session: str) -> Principal:
    """A session of a role."""
    partition = get_partition(region)
    boundary = role.permissions_boundary_arn
    found = iam_backends[account_id][partition].managed_policies.get(boundary) if boundary else None
    return Principal(
        arn=role.arn,
        session=f"arn:{partition}:sts::{account_id}:assumed-role/{role.name}/{session}",
        identity=[*map(document_of, role.policies.values()), *map(_attached, role.managed_policies.values())],
        tags=tags_of(role.tags),
        user_id=f"{role.id}:{session}",
        # a boundary that does not exist allows nothing
        boundary=(document_of(_default_of(found)) if found else {"Statement": []}) if boundary else None,
    )


def _of_session(session: AssumedRole, account_id: str, region: str) -> Principal:
    role = find_role(account_id, region, session.role_arn)
    if role is None:
        return Principal(arn=session.role_arn, session=session.arn, identity=())
    made = principal_of_role(role, account_id, region, session=session.session_name)
    asked = _asked(session)
    named = [managed_policy(account_id, region, str(each["arn"])) for each in asked.get("PolicyArns") or ()]
    return replace(
        made,
        limits=[*([document_of(session.policy)] if session.policy else []), *map(_attached, named)],
        tags={**made.tags, **asked.get("Tags", {})},
        source=asked.get("SourceIdentity") or "",
        credentials=Credentials(session.access_key_id, session.secret_access_key, session.session_token),
    )


def _of_user(backend: IAMBackend, user: User, credentials: Credentials) -> Principal:
    owners = [user, *backend.get_groups_for_user(user.name)]
    return Principal(
        arn=user.arn,
        session=user.arn,
        identity=[each for owner in owners for each in _documents(owner)],
        tags=tags_of(backend.list_user_tags(user.name)),
        user_id=user.id,
        credentials=credentials,
    )


def _documents(owner: Any) -> Iterator[Document]:
    """The inline and attached policies of a user or a group."""
    yield from map(document_of, owner.policies.values())
    yield from map(_attached, owner.managed_policies.values())


def _attached(policy: Any) -> Document:
    document = document_of(_default_of(policy))
    return known_part(document) if AWS_POLICY in policy.arn else document


def _default_of(policy: Any) -> Any:
    return next(each.document for each in policy.versions if each.is_default)


def managed_policy(account_id: str, region: str, arn: str) -> Any:
    """A managed policy by its ARN; AWS's own policies are created when they are first asked for. Raises `KeyError`."""
    policies = iam_backends[account_id][get_partition(region)].managed_policies
    name = arn.rpartition("/")[2]
    if AWS_POLICY in arn and arn not in policies and name in _of_aws():
        made = AWSManagedPolicy.from_data(name, account_id, region, dict(_of_aws()[name]))
        policies[made.arn] = made
    return policies[arn]


@functools.cache
def _of_aws() -> Mapping[str, Any]:
    content: Mapping[str, Any] = json.loads(aws_managed_policies_data)
    return content


def tags_of(given: Any) -> dict[str, str]:
    """Tags in each of the forms that services have: a mapping, or a list of pairs in upper or lower case."""
    if isinstance(given, Mapping):
        return {str(key): str(value) for key, value in given.items()}
    pairs = [{key.lower(): value for key, value in each.items()} for each in given or () if isinstance(each, Mapping)]
    return {str(each["key"]): str(each.get("value", "")) for each in pairs if "key" in each}


_ASKED = "parameters_of_assume_role"
"""The attribute of moto's session with the parameters that moto forgets."""

_NOT_HERE = (*("assume_role_with_saml", "assume_role_with_web_identity", "get_federation_token", "get_session_token"),)
"""Operations of STS whose keys would have an identity that is not evaluated here."""


def _asked(session: AssumedRole | None) -> Mapping[str, Any]:
    found: Mapping[str, Any] = getattr(session, _ASKED, {})
    return found


def _asked_of(response: TokenResponse) -> Mapping[str, Any]:
    """The parameters of AssumeRole, with what a session hands on to the next (IAM user guide, "Session tags")."""
    before = _asked(response.backend.get_assumed_role_from_access_key(response.get_access_key()))
    handed_on = before.get("TransitiveTagKeys", ())
    tags = {key: value for key, value in before.get("Tags", {}).items() if key in handed_on}
    return {
        "PolicyArns": response._get_param("PolicyArns"),
        "SourceIdentity": before.get("SourceIdentity") or response._get_param("SourceIdentity"),
        "Tags": {**tags_of(response._get_param("Tags")), **tags},
        "TransitiveTagKeys": [*handed_on, *(response._get_param("TransitiveTagKeys") or ())],
    }


def install() -> None:
    """Change moto's STS and IAM in this process."""
    assume = TokenResponse.assume_role
    create = IamResponse.create_user

    def assume_role(self: TokenResponse) -> ActionResult:
        made = assume(self)
        setattr(cast(dict[str, Any], made.result)["Credentials"], _ASKED, _asked_of(self))
        return made

    def create_user(self: IamResponse) -> ActionResult:
        if self._get_param("PermissionsBoundary"):
            raise NotImplementedError("the permissions boundary of a user is not evaluated: give it to a role")
        return create(self)

    def refuse(self: TokenResponse) -> NoReturn:
        raise NotImplementedError("the keys of this session are not evaluated: use AssumeRole or CreateAccessKey")

    TokenResponse.assume_role = assume_role  # type: ignore[method-assign]
    IamResponse.create_user = create_user  # type: ignore[method-assign]
    for name in _NOT_HERE:
        setattr(TokenResponse, name, refuse)
