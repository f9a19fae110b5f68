"""Rules of SNS: policies of topics, and subscriptions."""

from __future__ import annotations

import re
from collections.abc import Mapping

from moto.sns.models import sns_backends

from extended_dlc.rehearsal.embedded.calls import Parameters
from extended_dlc.rehearsal.embedded.rule import Rule, World
from extended_dlc.rehearsal.embedded.rules._policies import statements_in


def _topic_policy(world: World, given: Parameters) -> str | None:
    if given.get("AttributeName") != "Policy":
        return None
    try:
        if all("Principal" in each or "NotPrincipal" in each for each in statements_in(given.get("AttributeValue"))):
            return None
    except (TypeError, ValueError):
        pass
    return "Invalid parameter: Policy Error: null"


_PROTOCOLS: Mapping[str, str] = {
    "application": r"arn:.+",
    "email": r"[^@\s]+@[^@\s]+",
    "email-json": r"[^@\s]+@[^@\s]+",
    "firehose": r"arn:.+",
    "http": r"http://.+",
    "https": r"https://.+",
    "lambda": r"arn:.+",
    "sms": r"\+?[\d ()-]+",
    "sqs": r"arn:.+",
}


def _subscription(world: World, given: Parameters) -> str | None:
    protocol, endpoint = given.get("Protocol", ""), given.get("Endpoint", "")
    if protocol not in _PROTOCOLS:
        return f"Invalid parameter: Does not support this protocol string: {protocol}"
    return None if re.fullmatch(_PROTOCOLS[protocol], endpoint) else f"Invalid parameter: Endpoint {endpoint}"


def _topic(world: World, given: Parameters) -> str | None:
    arn = given["TopicArn"]
    region, account = (arn.split(":") + [""] * 5)[3:5]
    if account != world.account_id or arn in sns_backends[account][region].topics:
        return None
    return "Topic does not exist"


RULES: tuple[Rule, ...] = (
    Rule(
        name="a topic's policy",
        operations=("sns:SetTopicAttributes",),
        refuses="a policy that is no JSON or has no principal",
        source="SNS API reference, SetTopicAttributes InvalidParameter; the words stand in many public reports",
        check=_topic_policy,
        code="InvalidParameter",
    ),
    Rule(
        name="a subscription's address",
        operations=("sns:Subscribe",),
        refuses="a protocol that there is not, and an address of another form than its protocol's",
        source="SNS API reference, Subscribe Protocol, Endpoint, InvalidParameter",
        check=_subscription,
        code="InvalidParameter",
        own_words=True,
    ),
    Rule(
        name="a subscription's topic",
        operations=("sns:Subscribe",),
        refuses="a topic of the account that is not there",
        source="SNS API reference, Subscribe NotFound; getmoto/moto, sns/exceptions.py: the words",
        check=_topic,
        code="NotFound",
    ),
)
