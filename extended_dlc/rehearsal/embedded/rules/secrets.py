"""Rules of KMS, Secrets Manager and the Parameter Store: keys, secrets and parameters."""

from __future__ import annotations

import json
import re

from moto.utilities.utils import get_partition

from extended_dlc.rehearsal.embedded.calls import Parameters
from extended_dlc.rehearsal.embedded.policies import Request, matches, statements_of
from extended_dlc.rehearsal.embedded.rule import Rule, World
from extended_dlc.rehearsal.embedded.rules._policies import absent_principal, roles_of, statements_in


def _key_policy(world: World, given: Parameters) -> str | None:
    if not given.get("Policy"):
        return None
    try:
        statements = list(statements_in(given["Policy"]))
    except ValueError:
        return "Policy is not a valid JSON document."
    if any(absent_principal(world, each.get("Principal")) for each in statements):
        return "Policy contains a statement with one or more invalid principals."
    if given.get("BypassPolicyLockoutSafetyCheck"):
        return None
    partition = get_partition(world.region)
    arn = f"arn:{partition}:kms:{world.region}:{world.account_id}:key/new"
    root = f"arn:{partition}:iam::{world.account_id}:root"
    for principal in (root, *(each.arn for each in roles_of(world).values())):
        request = Request(action="kms:PutKeyPolicy", resource=arn, principal=principal)
        allowing = (each for each in statements_of(json.loads(given["Policy"])) if each["Effect"] == "Allow")
        if any(matches(each, request, with_principal=True) for each in allowing):
            return None
    return "The new key policy will not allow you to update the key policy in the future."


def _allowed_pattern(world: World, given: Parameters) -> str | None:
    pattern, value = given.get("AllowedPattern"), given.get("Value", "")
    try:
        if not pattern or re.search(pattern, value):
            return None
    except re.error:
        return None
    return f"Parameter value, cannot be validated against allowedPattern: {pattern}"


def _alias_prefix(world: World, given: Parameters) -> str | None:
    if given["AliasName"].startswith("alias/"):
        return None
    return (
        'Alias must start with the prefix "alias/". Please see https://docs.aws.amazon.com/kms/latest/developerguide/'
    )


_STANDARD_CHARACTERS = 4_096


_ADVANCED_CHARACTERS = 8_192


def _parameter_value(world: World, given: Parameters) -> str | None:
    value, tier = given["Value"], given.get("Tier", "Standard")
    if tier == "Standard" and len(value) > _STANDARD_CHARACTERS:
        return (
            f"Standard tier parameters support a maximum parameter value of {_STANDARD_CHARACTERS} characters. To "
            "create a larger parameter value, upgrade the parameter to use the advanced-parameter tier."
        )
    if len(value) > _ADVANCED_CHARACTERS:
        return f"The parameter value has {len(value)} characters: the maximum is {_ADVANCED_CHARACTERS}."
    return 'Parameter value can\'t nest another parameter. Do not use "{{}}" in the value.' if "{{" in value else None


def _secret(world: World, given: Parameters) -> str | None:
    name = given.get("Name")
    if name is not None and not re.fullmatch(r"[A-Za-z0-9/_+=.@!-]+", name):
        return (
            "Invalid name. Must be a valid name containing alphanumeric characters, or any of the following: -/_+=.@!"
        )
    if given.get("SecretString") is not None and given.get("SecretBinary") is not None:
        return "You can't specify both a binary secret value and a string secret value in the same secret."
    return None


RULES: tuple[Rule, ...] = (
    Rule(
        name="a key's policy",
        operations=("kms:CreateKey", "kms:PutKeyPolicy"),
        refuses="a key policy that is no JSON, names an absent role, or lets nobody of the account change it",
        source="KMS API reference, CreateKey Policy, BypassPolicyLockoutSafetyCheck; the words of the last two "
        "stand in many public reports",
        check=_key_policy,
        code="MalformedPolicyDocumentException",
    ),
    Rule(
        name="a parameter's pattern",
        operations=("ssm:PutParameter",),
        refuses="a value that its AllowedPattern does not allow",
        source="Systems Manager API reference, PutParameter ParameterPatternMismatchException",
        check=_allowed_pattern,
        code="ParameterPatternMismatchException",
        own_words=True,
    ),
    Rule(
        name="an alias's prefix",
        operations=("kms:CreateAlias",),
        refuses="a name that does not begin with alias/",
        source="KMS API reference, CreateAlias AliasName; getmoto/moto, kms/responses.py: the words",
        check=_alias_prefix,
    ),
    Rule(
        name="a parameter's value",
        operations=("ssm:PutParameter",),
        refuses="more than 4 KB in the standard tier, more than 8 KB, and a value that refers to a parameter",
        source="Systems Manager API reference, PutParameter Value; aws/aws-sdk-net#3157: the words of the first",
        check=_parameter_value,
    ),
    Rule(
        name="a secret",
        operations=("secretsmanager:CreateSecret",),
        refuses="a name with other characters, and a text beside a binary",
        source="Secrets Manager API reference, CreateSecret Name, SecretString, SecretBinary",
        check=_secret,
        own_words=True,
    ),
)
