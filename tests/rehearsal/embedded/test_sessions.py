"""Users, sessions of roles and grants of keys: what they may do is what AWS says, or they are refused here."""

from __future__ import annotations

import functools
import json
from collections.abc import Callable
from typing import Any

import boto3
import pytest
from botocore.exceptions import ClientError
from moto.sts.models import sts_backends

from extended_dlc.rehearsal.embedded.calls import Call, Caller
from extended_dlc.rehearsal.embedded.iam import Iam
from extended_dlc.rehearsal.embedded.shapes import Refusal
from tests.support.embedded import ACCOUNT, REGION, Aws

Json = dict[str, Any]


def client(aws: Aws, service: str, key: Json) -> Any:
    """A client with a key of a user or of a session."""
    return boto3.client(
        service,
        region_name=REGION,
        endpoint_url=aws.url,
        aws_access_key_id=key["AccessKeyId"],
        aws_secret_access_key=key["SecretAccessKey"],
        aws_session_token=key.get("SessionToken"),
    )


def account_role(aws: Aws, name: str, **policies: Json) -> str:
    """A role that everybody of the account may assume, with tags and for up to 12 hours."""
    trust = allow("sts:AssumeRole", "sts:TagSession", Principal={"AWS": f"arn:aws:iam::{ACCOUNT}:root"})
    role = aws.client("iam").create_role(
        RoleName=name, AssumeRolePolicyDocument=json.dumps(trust), Tags=[{"Key": "team", "Value": "none"}]
    )
    for policy, document in policies.items():
        aws.client("iam").put_role_policy(RoleName=name, PolicyName=policy, PolicyDocument=json.dumps(document))
    return str(role["Role"]["Arn"])


def allow(*actions: str, **more: Any) -> Json:
    return {"Version": "2012-10-17", "Statement": [{"Effect": "Allow", "Action": [*actions], **more}]}


def refusal(call: Callable[..., Any], **given: Any) -> str:
    """The code and the message of a refused call."""
    with pytest.raises(ClientError) as caught:
        call(**given)
    error = caught.value.response["Error"]
    return f"{error['Code']}: {error['Message']}"


def test_a_session_has_its_tags_and_is_limited_by_the_managed_policies_that_it_names(aws: Aws) -> None:
    of_team = allow("s3:ListAllMyBuckets", Resource="*", Condition={"StringEquals": {"aws:PrincipalTag/team": "a"}})
    role = account_role(aws, "of-team", P=of_team, Q=allow("sts:AssumeRole", Resource="*"))
    other = account_role(aws, "of-team-too", P=of_team)
    sts = aws.client("sts")

    def buckets(key: Json) -> Callable[..., Any]:
        return client(aws, "s3", key).list_buckets

    tagged = {"RoleArn": role, "RoleSessionName": "one", "Tags": [{"Key": "team", "Value": "a"}]}
    assert buckets(sts.assume_role(**tagged)["Credentials"])()["Buckets"] is not None
    untagged = sts.assume_role(RoleArn=role, RoleSessionName="two")["Credentials"]
    assert "because no identity-based policy allows the s3:ListAllMyBuckets action" in refusal(buckets(untagged))
    limited = sts.assume_role(**tagged, PolicyArns=[{"arn": "arn:aws:iam::aws:policy/AmazonSQSReadOnlyAccess"}])
    assert "because no session policy allows" in refusal(buckets(limited["Credentials"]))
    # a tag is handed on to the next session only where it is said to be
    for handed_on in ([], ["team"]):
        first = sts.assume_role(**tagged, TransitiveTagKeys=handed_on)["Credentials"]
        second = client(aws, "sts", first).assume_role(RoleArn=other, RoleSessionName="two")["Credentials"]
        if handed_on:
            buckets(second)()
        else:
            assert "no identity-based policy" in refusal(buckets(second))


def test_a_user_has_its_tags_and_groups_and_only_active_keys(aws: Aws) -> None:
    iam = aws.client("iam")
    iam.create_user(UserName="tagged", Path="/people/", Tags=[{"Key": "team", "Value": "a"}])
    condition = {"StringEquals": {"aws:PrincipalTag/team": "a", "aws:PrincipalType": "User"}}
    iam.create_group(GroupName="team-a")
    document = json.dumps(allow("s3:ListAllMyBuckets", Resource="*", Condition=condition))
    iam.put_group_policy(GroupName="team-a", PolicyName="P", PolicyDocument=document)
    key = iam.create_access_key(UserName="tagged")["AccessKey"]
    s3 = client(aws, "s3", key)
    assert "user/people/tagged is not authorized" in refusal(s3.list_buckets)
    iam.add_user_to_group(GroupName="team-a", UserName="tagged")
    s3.list_buckets()
    iam.update_access_key(UserName="tagged", AccessKeyId=key["AccessKeyId"], Status="Inactive")
    assert refusal(s3.list_buckets).startswith("InvalidAccessKeyId")
    assert refusal(client(aws, "sts", key).assume_role, RoleArn="x" * 20, RoleSessionName="xx").startswith(
        "InvalidClientTokenId"
    )
    iam.delete_access_key(UserName="tagged", AccessKeyId=key["AccessKeyId"])
    assert refusal(client(aws, "ecr", key).describe_repositories).startswith("UnrecognizedClientException")


@pytest.mark.parametrize(("seconds", "code"), [(900, ""), (-1, "ExpiredTokenException")])
def test_a_session_ends_with_its_duration(seconds: int, code: str) -> None:
    session = sts_backends[ACCOUNT]["aws"].assume_role(
        region_name=REGION,
        role_session_name="one",
        role_arn=f"arn:aws:iam::{ACCOUNT}:role/gone",
        policy="",
        duration=seconds,
        external_id="",
    )
    caller = Caller(
        account_id=ACCOUNT, region=REGION, access_key=session.access_key_id, session_token=session.session_token
    )
    call = Call(
        service="ecr",
        operation="GetAuthorizationToken",
        parameters={},
        account_id=ACCOUNT,
        region=REGION,
        caller=caller,
    )
    with pytest.raises(Refusal) as refused:  # a session whose role is gone has no rights
        Iam().check(call)
    assert refused.value.code == (code or "AccessDeniedException")


def test_keys_of_what_is_not_evaluated_are_not_handed_out(aws: Aws) -> None:
    sts, role = aws.client("sts"), f"arn:aws:iam::{ACCOUNT}:role/any"
    assert "use AssumeRole or CreateAccessKey" in refusal(sts.get_session_token)
    assert "use AssumeRole or CreateAccessKey" in refusal(sts.get_federation_token, Name="any")
    token = {"RoleArn": role, "RoleSessionName": "any", "WebIdentityToken": "x" * 20}
    assert "use AssumeRole or CreateAccessKey" in refusal(sts.assume_role_with_web_identity, **token)
    bounded = {"UserName": "bounded", "PermissionsBoundary": "arn:aws:iam::aws:policy/ReadOnlyAccess"}
    assert "give it to a role" in refusal(aws.client("iam").create_user, **bounded)


def test_a_grant_of_a_key_allows_its_operations_within_its_constraints(aws: Aws) -> None:
    kms, every = aws.client("kms"), allow("kms:*", Resource="*")
    closed = allow("kms:*", Resource="*", Principal={"AWS": f"arn:aws:iam::{ACCOUNT}:user/nobody"})
    key = kms.create_key(Policy=json.dumps(closed), BypassPolicyLockoutSafetyCheck=True)["KeyMetadata"]["KeyId"]
    kms.create_alias(AliasName="alias/granted", TargetKeyId=key)
    role = account_role(aws, "grantee", P=every)
    session = aws.client("sts").assume_role(RoleArn=role, RoleSessionName="one")["Credentials"]
    data_key = functools.partial(client(aws, "kms", session).generate_data_key, KeySpec="AES_256")
    assert "because no resource-based policy allows the kms:GenerateDataKey action" in refusal(data_key, KeyId=key)
    constraints: list[tuple[str, list[Json], list[Json]]] = [
        ("EncryptionContextSubset", [{"a": "1"}, {"a": "1", "b": "2"}], [{}, {"a": "2"}]),
        ("EncryptionContextEquals", [{"a": "1"}], [{}, {"a": "1", "b": "2"}]),
    ]
    for name, granted, refused in constraints:
        operations = ["GenerateDataKey", "DescribeKey"]
        grant = kms.create_grant(
            KeyId=key, GranteePrincipal=role, Operations=operations, Constraints={name: {"a": "1"}}
        )
        for context in granted:
            data_key(KeyId="alias/granted", EncryptionContext=context)
        for context in refused:
            assert "AccessDenied" in refusal(data_key, KeyId=key, EncryptionContext=context)
        client(aws, "kms", session).describe_key(KeyId=key)  # it has no context, so no constraint
        assert "AccessDenied" in refusal(client(aws, "kms", session).get_key_policy, KeyId=key, PolicyName="default")
        kms.revoke_grant(KeyId=key, GrantId=grant["GrantId"])
    assert "AccessDenied" in refusal(data_key, KeyId=key, EncryptionContext={"a": "1"})
