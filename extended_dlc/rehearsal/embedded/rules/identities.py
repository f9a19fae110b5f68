"""Rules of IAM and STS: roles, policies, their sizes, and the duration of sessions."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import Any

from moto.iam.exceptions import MalformedPolicyDocument
from moto.iam.models import iam_backends
from moto.iam.policy_validation import IAMPolicyDocumentValidator
from moto.sts.models import sts_backends
from moto.utilities.utils import get_partition

from extended_dlc.rehearsal.embedded.calls import Parameters
from extended_dlc.rehearsal.embedded.rule import Rule, World
from extended_dlc.rehearsal.embedded.rules._policies import (
    absent_principal,
    as_list,
    readable_statements,
    roles_of,
    statements_in,
)


def _boundary(world: World, given: Parameters) -> str | None:
    arn = given.get("PermissionsBoundary")
    if not arn or arn in iam_backends[world.account_id][arn.split(":")[1]].managed_policies:
        return None
    return f"Scope ARN: {arn} does not exist or is not attachable."


def _trust_of(given: Parameters) -> str:
    """The trust policy of CreateRole or UpdateAssumeRolePolicy."""
    return str(given.get("AssumeRolePolicyDocument") or given["PolicyDocument"])


def _trust(world: World, given: Parameters) -> str | None:
    try:
        statements = list(statements_in(_trust_of(given)))
    except ValueError:
        return "This policy contains invalid Json"
    for each in statements:
        for field in ("Principal", "Action"):
            if field not in each and f"Not{field}" not in each:
                return f"Missing required field {field}"
        if "Resource" in each:
            return "Has prohibited field Resource"
        if absent := absent_principal(world, each.get("Principal")):
            return f'Invalid principal in policy: "AWS":"{absent}"'
    return None


def _role_by_case(world: World, given: Parameters) -> str | None:
    name = given["RoleName"]
    same = [each for each in roles_of(world) if each.lower() == name.lower() and each != name]
    return f"Role with name {name} already exists." if same else None


def _inline_policy(world: World, given: Parameters) -> str | None:
    try:
        statements = list(statements_in(given["PolicyDocument"]))
    except ValueError:
        return "Syntax errors in policy."
    if any("Principal" in each or "NotPrincipal" in each for each in statements):
        return "Policy document should not specify a principal."
    return None


def _size(document: Any) -> int:
    """The characters of a policy that count: all but white space."""
    text = document if isinstance(document, str) else json.dumps(document)
    return len(re.sub(r"\s", "", text))


def _inline_size(world: World, given: Parameters) -> str | None:
    role = roles_of(world).get(given["RoleName"])
    others = [each for name, each in role.policies.items() if name != given["PolicyName"]] if role else []
    if sum(_size(each) for each in (*others, given["PolicyDocument"])) <= _INLINE_CHARACTERS:
        return None
    return f"Maximum policy size of {_INLINE_CHARACTERS} bytes exceeded for role {given['RoleName']}"


def _trust_size(world: World, given: Parameters) -> str | None:
    if _size(_trust_of(given)) <= _TRUST_CHARACTERS:
        return None
    return f"Cannot exceed quota for ACLSizePerRole: {_TRUST_CHARACTERS}"


def _managed_size(world: World, given: Parameters) -> str | None:
    if _size(given["PolicyDocument"]) <= _MANAGED_CHARACTERS:
        return None
    return f"Cannot exceed quota for PolicySize: {_MANAGED_CHARACTERS}"


def _attached(world: World, given: Parameters) -> str | None:
    role = roles_of(world).get(given["RoleName"])
    attached = set(role.managed_policies) - {given["PolicyArn"]} if role else set()
    return f"Cannot exceed quota for PoliciesPerRole: {_POLICIES}" if len(attached) >= _POLICIES else None


_POLICIES = 10
"""Managed policies of a role, without an increase (IAM user guide, quotas)."""


_MANAGED_CHARACTERS = 6_144
"""Of a managed policy (IAM user guide, quotas)."""


_INLINE_CHARACTERS = 10_240
"""Of all inline policies of a role (IAM user guide, quotas)."""


_TRUST_CHARACTERS = 2_048
"""Of a role's trust policy (IAM user guide, quotas)."""


def _grammar(world: World, given: Parameters) -> str | None:
    try:
        IAMPolicyDocumentValidator(given["PolicyDocument"]).validate()
    except MalformedPolicyDocument as fault:
        return str(fault.description if hasattr(fault, "description") else fault.message)
    for each in readable_statements(given["PolicyDocument"]):
        if not re.fullmatch(r"[0-9A-Za-z]*", each.get("Sid", "")):
            return (
                f"Statement IDs (SID) must be alpha-numeric. Check that your input satisfies the regular expression "
                f"[0-9A-Za-z]*: {each['Sid']}"
            )
    return None


_PRINCIPALS = ("AWS", "CanonicalUser", "Federated", "Service")


_SERVICE = re.compile(r"[\w-]+(\.[\w-]+)*\.(amazonaws\.com(\.cn)?|amazon\.com|aws\.internal)")


_TRUSTED = ("sts:assumerole", "sts:tagsession", "sts:setsourceidentity", "sts:setcontext", "sts:*")


def _trust_grammar(world: World, given: Parameters) -> str | None:
    for each in readable_statements(given.get("AssumeRolePolicyDocument") or given.get("PolicyDocument")):
        principal = each.get("Principal", {})
        for kind, names in principal.items() if isinstance(principal, Mapping) else ():
            if kind not in _PRINCIPALS:
                return f'Invalid principal in policy: "{kind}"'
            for name in as_list(names):
                if kind == "Service" and not _SERVICE.fullmatch(name):
                    return f'Invalid principal in policy: "SERVICE":"{name}"'
        if any(not str(action).lower().startswith(_TRUSTED) for action in as_list(each.get("Action"))):
            return "AssumeRole policy may only specify STS AssumeRole actions."
    return None


def _session_duration(world: World, given: Parameters) -> str | None:
    role = world.find_role(given["RoleArn"])
    longest = int(getattr(role, "max_session_duration", None) or 3_600)
    if role is None or int(given.get("DurationSeconds", 0)) <= longest:
        return None
    return "The requested DurationSeconds exceeds the MaxSessionDuration set for this role."


_CHAINED_SECONDS = 3_600


def _chained_duration(world: World, given: Parameters) -> str | None:
    backend = sts_backends[world.account_id][get_partition(world.region)]
    chained = world.caller and backend.get_assumed_role_from_access_key(world.caller.access_key)
    if not chained or int(given.get("DurationSeconds", 0)) <= _CHAINED_SECONDS:
        return None
    return "The requested DurationSeconds exceeds the 1 hour session limit for roles assumed by role chaining."


RULES: tuple[Rule, ...] = (
    Rule(
        name="permissions boundary exists",
        operations=("iam:CreateRole", "iam:PutRolePermissionsBoundary"),
        refuses="a boundary that is no policy of the account",
        source="IAM API reference, CreateRole NoSuchEntity; hashicorp/terraform-provider-aws, issues: the words",
        check=_boundary,
        code="NoSuchEntity",
    ),
    Rule(
        name="trust policy",
        operations=("iam:CreateRole", "iam:UpdateAssumeRolePolicy"),
        refuses="a trust policy that is no JSON, has no principal, or names a resource",
        source="IAM API reference, CreateRole MalformedPolicyDocument; IAM user guide, grammar of the policy language; "
        "getmoto/moto, iam/policy_validation.py: the words",
        check=_trust,
        code="MalformedPolicyDocument",
    ),
    Rule(
        name="inline policy",
        operations=("iam:PutRolePolicy",),
        refuses="an inline policy that is no JSON, and one with a principal",
        source="IAM user guide, policy elements: Principal; PutRolePolicy MalformedPolicyDocument; getmoto/moto, "
        "iam/policy_validation.py: the words",
        check=_inline_policy,
        code="MalformedPolicyDocument",
    ),
    Rule(
        name="a role's name",
        operations=("iam:CreateRole",),
        refuses="a name that differs from another role's only in upper and lower case",
        source="IAM API reference, CreateRole RoleName: 'Names are not distinguished by case'; EntityAlreadyExists: "
        "documentation alone; getmoto/moto, iam/models.py: the words",
        check=_role_by_case,
        code="EntityAlreadyExists",
    ),
    Rule(
        name="size of inline policies",
        operations=("iam:PutRolePolicy",),
        refuses="inline policies of a role of more than 10,240 characters in all, white space apart",
        source="IAM user guide, quotas; aws/aws-cdk, issues: 'Maximum policy size of 10240 bytes exceeded for role'",
        check=_inline_size,
        code="LimitExceeded",
    ),
    Rule(
        name="size of a trust policy",
        operations=("iam:CreateRole", "iam:UpdateAssumeRolePolicy"),
        refuses="a trust policy of more than 2,048 characters, white space apart",
        source="IAM user guide, quotas; hashicorp/terraform-provider-aws, issues: 'ACLSizePerRole: 2048'",
        check=_trust_size,
        code="LimitExceeded",
    ),
    Rule(
        name="size of a managed policy",
        operations=("iam:CreatePolicy", "iam:CreatePolicyVersion"),
        refuses="a managed policy of more than 6,144 characters, white space apart",
        source="IAM user guide, quotas; hashicorp/terraform-provider-aws, issues: 'Cannot exceed quota for PolicySize'",
        check=_managed_size,
        code="LimitExceeded",
    ),
    Rule(
        name="a role's managed policies",
        operations=("iam:AttachRolePolicy",),
        refuses="more than ten managed policies of a role, the quota without an increase",
        source="IAM user guide, quotas; hashicorp/terraform-provider-aws, issues: 'PoliciesPerRole: 10'",
        check=_attached,
        code="LimitExceeded",
    ),
    Rule(
        name="a policy's grammar",
        operations=("iam:PutRolePolicy", "iam:CreatePolicy", "iam:CreatePolicyVersion"),
        refuses="statements without actions or resources, resources that are no ARN, elements, effects, versions and "
        "operators that there are not, and a Sid twice or with other characters than letters and digits",
        source="IAM user guide, grammar of the policy language; getmoto/moto, iam/policy_validation.py: the words",
        check=_grammar,
        code="MalformedPolicyDocument",
    ),
    Rule(
        name="a trust policy's grammar",
        operations=("iam:CreateRole", "iam:UpdateAssumeRolePolicy"),
        refuses="a kind of principal that there is not, a service that is no domain of AWS, and actions other than "
        "those of sts that assume a role",
        source="IAM user guide, policy elements: Principal; getmoto/moto, iam/policy_validation.py and public reports: "
        "the words",
        check=_trust_grammar,
        code="MalformedPolicyDocument",
    ),
    Rule(
        name="a session's duration",
        operations=("sts:AssumeRole",),
        refuses="a session that is longer than its role allows",
        source="STS API reference, AssumeRole DurationSeconds; kreuzwerker/awsu#27: the words",
        check=_session_duration,
        code="ValidationError",
    ),
    Rule(
        name="a chained session's duration",
        operations=("sts:AssumeRole",),
        refuses="a session of more than one hour that another role's session asks for",
        source="IAM user guide, role chaining; 99designs/aws-vault#263: the words",
        check=_chained_duration,
        code="ValidationError",
    ),
)
