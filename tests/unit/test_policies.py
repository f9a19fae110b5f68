"""The evaluator of policies: who is allowed what, and what it does not understand."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest

from extended_dlc.rehearsal.embedded.policies import NotUnderstood, Policies, Request, evaluate

Json = dict[str, Any]

ROLE = "arn:aws:iam::123456789012:role/mine"
BUCKET = "arn:aws:s3:::mine"
KEY = "arn:aws:kms:us-east-1:123456789012:key/1"


def policy(*actions: str, resource: Any = "*", effect: str = "Allow", **more: Any) -> Json:
    statement: Json = {"Effect": effect, "Action": list(actions), "Resource": resource, **more}
    return {"Version": "2012-10-17", "Statement": [{key: each for key, each in statement.items() if each is not None}]}


def ask(action: str = "s3:GetObject", resource: str = f"{BUCKET}/a/b", **context: Any) -> Request:
    named = {key.replace("__", ":"): value for key, value in context.items()}
    return Request(action=action, resource=resource, principal=ROLE, context=named)


def allowed(request: Request, *identity: Json, **more: Any) -> bool:
    return evaluate(request, Policies(identity=identity, **more)).allowed


@pytest.mark.parametrize(
    ("document", "expected"),
    [
        (policy("s3:GetObject"), True),
        (policy("S3:getobject"), True),
        (policy("s3:Get*"), True),
        (policy("*"), True),
        (policy("s3:PutObject"), False),
        (policy("s3:GetObject", resource=f"{BUCKET}/a/*"), True),
        (policy("s3:GetObject", resource=f"{BUCKET}/?/b"), True),
        (policy("s3:GetObject", resource=f"{BUCKET}/[a]/b"), False),  # a shell's pattern is none of IAM's
        (policy("s3:GetObject", resource=BUCKET), False),
        (policy("s3:GetObject", resource="arn:aws:*:mine/a/b"), False),  # no wildcard reaches over a colon
        (policy("s3:GetObject", resource=None, NotResource=[f"{BUCKET}/c/*"]), True),
        (policy("s3:GetObject", resource=None, NotResource=[f"{BUCKET}/a/*"]), False),
        (policy("s3:GetObject", resource="arn:aws:s3"), True),  # what is left out of an ARN is a wildcard
        (policy("s3:GetObject", resource="arn:aws:sqs"), False),
        (policy("s3:Get*", "dynamodb:GetItem"), True),  # a service whose actions are not known here
        (policy("dynamodb:*"), False),
        (policy("s3:GetObject", resource=f"{BUCKET}/${{*}}/b"), False),  # a star itself
        (policy("s3:GetObject", resource=f"{BUCKET}/${{aws:username, 'a'}}/b"), True),
        (policy("s3:GetObject", resource=f"{BUCKET}/${{aws:username, 'c'}}/b"), False),
    ],
)
def test_actions_and_resources_are_compared_as_iam_does(document: Json, expected: bool) -> None:
    assert allowed(ask(), document) is expected


def test_what_is_left_out_of_the_actions_is_not_allowed() -> None:
    everything_else = {"Statement": {"Effect": "Allow", "NotAction": "s3:GetObject", "Resource": "*"}}
    assert not allowed(ask(), everything_else)
    assert allowed(ask("s3:PutObject"), everything_else)


def test_a_denial_wins_wherever_it_is() -> None:
    denial = policy("s3:*", effect="Deny")
    decision = evaluate(ask(), Policies(identity=[policy("*"), denial]))
    assert decision.reason == "with an explicit deny in an identity-based policy"
    assert not allowed(ask(), policy("*"), boundary=denial)
    assert not allowed(ask(), policy("*"), organisation=[policy("*"), denial])
    resource = policy("s3:*", effect="Deny", resource=None, Principal="*")
    assert not allowed(ask(), policy("*"), resource=resource)


@pytest.mark.parametrize(
    ("condition", "context", "expected"),
    [
        ({"StringEquals": {"s3:prefix": "a"}}, {"s3__prefix": "a"}, True),
        ({"StringEquals": {"s3:prefix": ["b", "a"]}}, {"S3__Prefix": "a"}, True),
        ({"StringEquals": {"s3:prefix": "a"}}, {}, False),
        ({"StringEqualsIfExists": {"s3:prefix": "a"}}, {}, True),
        ({"StringNotEquals": {"s3:prefix": "a"}}, {}, True),
        ({"StringLike": {"s3:prefix": "a/*"}}, {"s3__prefix": "a/b/c"}, True),
        ({"StringLike": {"s3:prefix": "a/*"}}, {"s3__prefix": "a"}, False),
        ({"Bool": {"aws:SecureTransport": "false"}}, {"aws__SecureTransport": True}, False),
        ({"Null": {"s3:prefix": "true"}}, {}, True),
        ({"ForAnyValue:StringEquals": {"aws:TagKeys": ["a"]}}, {"aws__TagKeys": ["b", "a"]}, True),
        ({"ForAllValues:StringEquals": {"aws:TagKeys": ["a"]}}, {"aws__TagKeys": ["b", "a"]}, False),
        ({"ArnLike": {"aws:SourceArn": "arn:aws:s3:*:1:*"}}, {"aws__SourceArn": "arn:aws:s3:us:1:x:y"}, True),
        ({"StringEquals": {"s3:prefix": "a"}, "Bool": {"aws:SecureTransport": "true"}}, {"s3__prefix": "a"}, False),
        ({"StringEquals": {"aws:PrincipalTag/team": "${aws:username}"}}, {"aws__PrincipalTag/team": "x"}, None),
        ({"StringLike": {"s3:prefix": "a?c"}}, {"s3__prefix": "abc"}, True),
        ({"StringLike": {"s3:prefix": "a?c"}}, {"s3__prefix": "ac"}, False),
        ({"StringLike": {"s3:prefix": "a${?}c"}}, {"s3__prefix": "abc"}, False),
        ({"StringLike": {"s3:prefix": "${aws:username}/*"}}, {"s3__prefix": "b/c", "aws__username": "*"}, False),
        ({"StringEquals": {"s3:prefix": "${aws:username}"}}, {"s3__prefix": "*", "aws__username": "*"}, True),
        ({"StringNotEqualsIgnoreCase": {"s3:prefix": "A"}}, {"s3__prefix": "a"}, False),
        ({"StringNotLikeIfExists": {"s3:prefix": "a*"}}, {"s3__prefix": "ab"}, False),
        ({"NumericNotEquals": {"s3:max-keys": "10"}}, {"s3__max-keys": "10"}, False),
        ({"NumericLessThanEqualsIfExists": {"s3:max-keys": "10"}}, {}, True),
        ({"Null": {"s3:prefix": "false"}}, {}, False),
        ({"Null": {"s3:prefix": ["true", "false"]}}, {}, True),
        ({"BoolIfExists": {"aws:SecureTransport": "true"}}, {}, True),
        ({"ForAllValues:StringEquals": {"aws:TagKeys": ["a"]}}, {}, True),
        ({"ForAnyValue:StringEquals": {"aws:TagKeys": ["a"]}}, {}, False),
        ({"ForAnyValue:StringNotEquals": {"aws:TagKeys": ["a"]}}, {}, False),
        ({"ForAnyValue:StringNotEquals": {"aws:TagKeys": ["a"]}}, {"aws__TagKeys": ["a", "b"]}, True),
        ({"ForAllValues:StringNotLike": {"aws:TagKeys": ["a*"]}}, {"aws__TagKeys": ["ab", "b"]}, False),
        ({"ArnEquals": {"aws:SourceArn": "*"}}, {"aws__SourceArn": "arn:aws:s3:us:1:x:y"}, True),
        ({"ArnNotLike": {"aws:SourceArn": "arn:aws:s3:*:2:*"}}, {"aws__SourceArn": "arn:aws:s3:us:1:x"}, True),
        ({"ArnLike": {"aws:SourceArn": "arn:aws:s3:*"}}, {"aws__SourceArn": "arn:aws:s3:us:1:x"}, None),
        ({"IpAddress": {"aws:SourceIp": ["10.0.0.0/8", "127.0.0.1"]}}, {"aws__SourceIp": "127.0.0.1"}, True),
        ({"NotIpAddress": {"aws:SourceIp": "127.0.0.0/8"}}, {"aws__SourceIp": "127.0.0.1"}, False),
        ({"NotIpAddress": {"aws:SourceIp": "10.0.0.0/8"}}, {}, True),
        (
            {"StringEquals": {"s3:prefix": "${aws:PrincipalTag/team}"}},
            {"s3__prefix": "a", "aws__PrincipalTag/team": "a"},
            True,
        ),
        (
            {"StringEquals": {"s3:prefix": "${aws:PrincipalTag/team}"}},
            {"s3__prefix": "a", "aws__PrincipalTag/team": "b"},
            False,
        ),
    ],
)
def test_every_condition_has_to_hold(condition: Json, context: Json, expected: bool | None) -> None:
    request = ask("s3:ListBucket", BUCKET, **context)
    if expected is None:
        with pytest.raises(NotUnderstood, match=r"the variable|the ARN arn:aws:s3:"):
            allowed(request, policy("s3:ListBucket", Condition=condition))
    else:
        assert allowed(request, policy("s3:ListBucket", Condition=condition)) is expected


def test_boundaries_sessions_and_organisations_limit_and_give_nothing() -> None:
    reads, writes = policy("s3:GetObject"), policy("s3:PutObject")
    for name, limit in {"boundary": writes, "session": [writes], "organisation": [writes]}.items():
        assert not allowed(ask(), policy("*"), **{name: limit})
        assert allowed(ask("s3:PutObject"), policy("*"), **{name: limit})
        assert not allowed(ask(), writes, **{name: reads if name == "boundary" else [reads]})


def test_a_resource_s_policy_gives_to_whom_it_names_and_leaves_an_account_to_its_own_policies() -> None:
    def of(principal: Any) -> Json:
        return policy("s3:GetObject", resource=f"{BUCKET}/*", Principal=principal)

    assert allowed(ask(), resource=of({"AWS": ROLE}))
    assert not allowed(ask(), resource=of({"AWS": "arn:aws:iam::123456789012:role/other"}))
    assert not allowed(ask(), resource=of({"AWS": "arn:aws:iam::123456789012:root"}))
    assert not allowed(ask(), resource=of({"Service": "s3.amazonaws.com"}))
    service = Request(action="s3:GetObject", resource=f"{BUCKET}/a", service="s3.amazonaws.com")
    assert evaluate(service, Policies(resource=of({"Service": "s3.amazonaws.com"}))).allowed


def test_a_key_has_to_allow_or_to_leave_it_to_the_account() -> None:
    request, identity = ask("kms:Decrypt", KEY), policy("kms:Decrypt")
    root = policy("kms:*", Principal={"AWS": "arn:aws:iam::123456789012:root"})
    other = policy("kms:*", Principal={"AWS": "arn:aws:iam::123456789012:role/other"})
    assert allowed(request, identity, resource=root, resource_decides=True)
    assert not allowed(request, resource=root, resource_decides=True)
    assert not allowed(request, identity, resource=other, resource_decides=True)


def test_what_a_session_or_a_user_is_given_itself_no_boundary_or_session_policy_takes() -> None:
    session, user = "arn:aws:sts::123456789012:assumed-role/mine/now", "arn:aws:iam::123456789012:user/me"
    writes = policy("s3:PutObject")

    def given(principal: str, request: Request, **more: Any) -> bool:
        document = policy("s3:GetObject", resource=f"{BUCKET}/*", Principal={"AWS": principal})
        return evaluate(request, Policies(resource=document, **more)).allowed

    of_session = replace(ask(), session=session)
    of_user = replace(ask(), principal=user)
    assert given(session, of_session)
    assert not given(session, replace(of_session, session=f"{session}-other"))
    assert given(session, of_session, boundary=writes, session=[writes])
    assert given(user, of_user, boundary=writes)
    assert not given(ROLE, of_session, boundary=writes)  # a role's ARN is limited
    assert not given(ROLE, of_session, session=[writes])
    assert not given(session, of_session, organisation=[writes])  # an organization's policies limit all of these
    assert not given(session, of_session, boundary=policy("s3:*", effect="Deny"))


def test_across_accounts_both_sides_have_to_allow_and_limits_count() -> None:
    def across(*identity: Json, principal: str = "123456789012", **more: Any) -> bool:
        resource = policy("s3:GetObject", Principal={"AWS": principal})
        return allowed(ask(), *identity, **{"owner": "999999999999", "resource": resource, **more})

    reads = policy("s3:GetObject")
    assert across(reads)
    assert not across()
    assert not across(reads, resource=None)
    assert not across(reads, boundary=policy("s3:PutObject"))
    assert not across(principal=ROLE)


def test_a_value_that_is_not_known_here_is_an_error_only_where_it_decides() -> None:
    request = replace(ask(), unknown=("aws:resourcetag/", "s3:authtype"))
    tagged = policy("s3:GetObject", Condition={"StringEquals": {"aws:ResourceTag/a": "b"}})
    with pytest.raises(NotUnderstood, match="aws:ResourceTag/a: its value at s3:GetObject is not known here"):
        allowed(request, tagged)
    assert allowed(request, tagged, policy("s3:GetObject"))
    with pytest.raises(NotUnderstood, match="aws:ResourceTag/a"):
        allowed(request, policy("*"), policy("s3:*", effect="Deny", Condition={"Null": {"aws:ResourceTag/a": "true"}}))
    other = {"StringEquals": {"aws:ResourceTag/a": "b"}, "Bool": {"aws:SecureTransport": "true"}}
    assert not allowed(request, policy("s3:GetObject", Condition=other))  # the other condition has decided
    with pytest.raises(NotUnderstood, match="the variable"):
        allowed(request, policy("s3:GetObject", resource=f"{BUCKET}/${{s3:authType, 'a'}}/b"))


@pytest.mark.parametrize(
    ("document", "what"),
    [
        (policy("s3:GetObjct"), "IAM has none that is called so"),
        (policy("sagemkaer:*"), "no such service is known"),
        (policy("s3:GetObject", Condition={"StringMatches": {"s3:prefix": "a"}}), "operator StringMatches"),
        (policy("s3:ListBucket", Condition={"StringEquals": {"s3:prefx": "a"}}), "no service sends it"),
        (policy("s3:GetObject", Condition={"StringEquals": {"s3:prefix": "a"}}), "s3:GetObject never has it"),
        (policy("s3:GetObject", Condition={"NullIfExists": {"s3:prefix": "true"}}), "operator NullIfExists"),
        (
            policy("s3:GetObject", Condition={"ForAllValues:Null": {"aws:TagKeys": "true"}}),
            "operator ForAllValues:Null",
        ),
        (policy("s3:GetObject", Condition={"BinaryEquals": {"aws:userid": "eA=="}}), "operator BinaryEquals"),
        (policy("s3:GetObject", Condition={"DateLessThan": {"aws:EpochTime": "x"}}), "the date x of a condition"),
        (policy("s3:GetObject", Condition={"NumericEquals": {"aws:EpochTime": "1a"}}), "the number 1a of a condition"),
        (policy("s3:GetObject", Condition={"IpAddress": {"aws:SourceIp": "localhost"}}), "an address of a condition"),
        ({**policy("s3:GetObject", resource=f"{BUCKET}/${{*}}"), "Version": "2008-10-17"}, "where it is no variable"),
        ({"Version": "2012-10-17"}, "without the element Statement"),
        (policy("s3:GetObject", Condition={"Bool": {"aws:SourceVpcs": "a"}}), "no service sends it"),
        (policy("s3:GetObject", Condition={"Bool": {"aws:PrincipalOrg": "a"}}), "no service sends it"),
        (policy("s3:GetObject", Resources=["*"]), "element Resources"),
        (policy("s3:GetObject", effect="allow"), "the effect 'allow'"),
        ({"Statement": [], "Statements": []}, "element Statements"),
    ],
)
def test_what_is_not_understood_is_an_error(document: Json, what: str) -> None:
    with pytest.raises(NotUnderstood, match=what):
        allowed(ask(aws__EpochTime=1_700_000_000, aws__SourceIp="127.0.0.1"), document)


@pytest.fixture
def far_away(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Another zone than UTC on this machine: a date without a zone is one of UTC all the same."""
    with monkeypatch.context() as patched:
        patched.setenv("TZ", "Pacific/Auckland")
        time.tzset()
        yield
    time.tzset()


@pytest.mark.parametrize(
    ("condition", "expected"),
    [
        ({"DateGreaterThan": {"aws:CurrentTime": "2023-11-14T22:13:19Z"}}, True),
        ({"DateGreaterThan": {"aws:CurrentTime": "2023-11-14T22:13:20Z"}}, False),
        ({"DateGreaterThanEquals": {"aws:CurrentTime": "1700000000"}}, True),
        ({"DateLessThan": {"aws:CurrentTime": "2023-11-15"}}, True),
        ({"DateLessThan": {"aws:CurrentTime": "2023-11-15T00:00:00+02:00"}}, False),
        ({"DateLessThanEquals": {"aws:EpochTime": "2023-11-14T22:13:20"}}, True),
        ({"DateEquals": {"aws:EpochTime": ["1", "1700000000"]}}, True),
        ({"DateNotEquals": {"aws:EpochTime": "1700000000"}}, False),
        ({"DateLessThanIfExists": {"aws:TokenIssueTime": "2020-01-01T00:00:00Z"}}, True),
        ({"NumericGreaterThan": {"aws:EpochTime": "1699999999.5"}}, True),
        ({"NumericLessThan": {"aws:EpochTime": "1700000000"}}, False),
    ],
)
def test_dates_are_compared_in_both_of_their_forms(condition: Json, expected: bool, far_away: None) -> None:
    asked = ask(aws__CurrentTime="2023-11-14T22:13:20+00:00", aws__EpochTime=1_700_000_000)
    assert allowed(asked, policy("s3:GetObject", Condition=condition)) is expected


def test_whom_a_resource_s_policy_leaves_out_is_not_guessed() -> None:
    all_but_me = policy("s3:GetObject", effect="Deny", NotPrincipal={"AWS": ROLE})
    with pytest.raises(NotUnderstood, match="NotPrincipal: use a condition on aws:PrincipalArn"):
        allowed(ask(), policy("*"), resource=all_but_me)
