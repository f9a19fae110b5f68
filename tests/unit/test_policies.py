"""The evaluator of policies: who is allowed what, and what it does not understand."""

from __future__ import annotations

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
    ],
)
def test_every_condition_has_to_hold(condition: Json, context: Json, expected: bool | None) -> None:
    request = ask("s3:ListBucket", BUCKET, **context)
    if expected is None:
        with pytest.raises(NotUnderstood, match="the variable"):
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


@pytest.mark.parametrize(
    ("document", "what"),
    [
        (policy("s3:GetObjct"), "IAM has none that is called so"),
        (policy("sagemkaer:*"), "no such service is known"),
        (policy("s3:GetObject", Condition={"StringMatches": {"s3:prefix": "a"}}), "operator StringMatches"),
        (policy("s3:ListBucket", Condition={"StringEquals": {"s3:prefx": "a"}}), "no service sends it"),
        (policy("s3:GetObject", Condition={"StringEquals": {"s3:prefix": "a"}}), "s3:GetObject never has it"),
        (policy("s3:GetObject", Resources=["*"]), "element Resources"),
        (policy("s3:GetObject", effect="allow"), "the effect 'allow'"),
        ({"Statement": [], "Statements": []}, "element Statements"),
    ],
)
def test_what_is_not_understood_is_an_error(document: Json, what: str) -> None:
    with pytest.raises(NotUnderstood, match=what):
        allowed(ask(), document)
