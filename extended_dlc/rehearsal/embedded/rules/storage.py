"""Rules of S3 and ECR: names and policies of buckets, policies of repositories."""

from __future__ import annotations

import ipaddress
import json
import re
from collections.abc import Mapping
from typing import Any

from moto.ecr.exceptions import InvalidParameterException
from moto.ecr.policy_validation import EcrLifecyclePolicyValidator
from moto.utilities.utils import get_partition

from extended_dlc.rehearsal.embedded.calls import Parameters
from extended_dlc.rehearsal.embedded.rule import Rule, World
from extended_dlc.rehearsal.embedded.rules._policies import (
    absent_principal,
    as_list,
    readable_statements,
    statements_in,
)


def _bucket_policy(world: World, given: Parameters) -> str | None:
    if "Policy" not in given:  # a body that could not be read
        return None
    try:
        statements = list(statements_in(given["Policy"]))
    except ValueError:
        return "Policies must be valid JSON and the first byte must be '{'"
    bucket = f"arn:{get_partition(world.region)}:s3:::{given['Bucket']}"
    for each in statements:
        if "Principal" not in each and "NotPrincipal" not in each:
            return "Missing required field Principal"
        if absent_principal(world, each.get("Principal")):
            return "Invalid principal in policy"
        named = each.get("Resource", each.get("NotResource", ()))
        for resource in [named] if isinstance(named, str) else named:
            if resource not in ("*", bucket) and not resource.startswith((f"{bucket}/", f"{bucket}*")):
                return "Policy has invalid resource"
    return None


def _repository_policy(world: World, given: Parameters) -> str | None:
    try:
        if all("Principal" in each or "NotPrincipal" in each for each in statements_in(given["policyText"])):
            return None
    except ValueError:
        pass
    return "Invalid parameter at 'PolicyText' failed to satisfy constraint: 'Invalid repository policy provided'"


def _lifecycle(world: World, given: Parameters) -> str | None:
    try:
        EcrLifecyclePolicyValidator(given["lifecyclePolicyText"]).validate()
    except InvalidParameterException as fault:
        return str(fault.message)
    rules = json.loads(given["lifecyclePolicyText"])["rules"]
    wrong = _fault_of_lifecycle({each["rulePriority"]: each["selection"] for each in rules}, len(rules))
    return wrong and f"{EcrLifecyclePolicyValidator.INVALID_PARAMETER_ERROR_MESSAGE}{wrong}'"


def _fault_of_lifecycle(selections: Mapping[int, Mapping[str, Any]], count: int) -> str | None:
    """What is wrong with the rules' selections, by their priorities."""
    if len(selections) < count:
        return f"rulePriority must be unique: {', '.join(map(str, selections))}."
    for priority, each in selections.items():
        if each.get("tagStatus") == "tagged" and not (each.get("tagPrefixList") or each.get("tagPatternList")):
            return (
                f"tagPrefixList or tagPatternList is required with tagStatus tagged: the rule of priority {priority}."
            )
        if each.get("tagStatus") == "any" and priority < max(selections):
            return f"a rule with tagStatus any must have the greatest rulePriority, and has {priority}."
    return None


def _repository_actions(world: World, given: Parameters) -> str | None:
    for each in readable_statements(given["policyText"]):
        if any(action != "*" and not str(action).lower().startswith("ecr:") for action in as_list(each.get("Action"))):
            return (
                "Invalid parameter at 'PolicyText' failed to satisfy constraint: 'Invalid repository policy provided'"
            )
    return None


_BUCKET = re.compile(r"[a-z0-9](?!.*\.\.)[a-z0-9.-]{1,61}[a-z0-9]")


_BEFORE = ("xn--", "sthree-", "amzn-s3-demo-")


_AFTER = ("-s3alias", "--ol-s3", ".mrap", "--x-s3", "--table-s3")


def _bucket_name(world: World, given: Parameters) -> str | None:
    name = given["Bucket"]
    if _BUCKET.fullmatch(name) and not name.startswith(_BEFORE) and not name.endswith(_AFTER) and not _is_address(name):
        return None
    return "The specified bucket is not valid."


def _is_address(name: str) -> bool:
    try:
        ipaddress.IPv4Address(name)
    except ValueError:
        return False
    return True


RULES: tuple[Rule, ...] = (
    Rule(
        name="a bucket's policy",
        operations=("s3:PutBucketPolicy",),
        refuses="a policy that is no JSON, has no principal, names a role that is not there, or another bucket",
        source="S3 user guide, bucket policies; 'Policy has invalid resource' and 'Invalid principal in policy' stand "
        "in many public reports",
        check=_bucket_policy,
        code="MalformedPolicy",
    ),
    Rule(
        name="a repository's policy",
        operations=("ecr:SetRepositoryPolicy",),
        refuses="a policy that is no JSON or has no principal",
        source="ECR API reference, SetRepositoryPolicy; the words stand in many public reports",
        check=_repository_policy,
        code="InvalidParameterException",
    ),
    Rule(
        name="a lifecycle policy",
        operations=("ecr:PutLifecyclePolicy",),
        refuses="a policy without rules, rules without their members, two rules of one priority, tagged images "
        "without their tags, and a rule for any image before others",
        source="ECR user guide, lifecycle policy parameters; getmoto/moto, ecr/policy_validation.py: most words",
        check=_lifecycle,
        code="InvalidParameterException",
    ),
    Rule(
        name="actions of a repository's policy",
        operations=("ecr:SetRepositoryPolicy",),
        refuses="actions of another service than ECR",
        source="ECR API reference, SetRepositoryPolicy; the words are those of the row of a repository's policy",
        check=_repository_actions,
        code="InvalidParameterException",
    ),
    Rule(
        name="a bucket's name",
        operations=("s3:CreateBucket",),
        refuses="capitals, underscores, an address, two dots in a row, and the beginnings and ends that are reserved",
        source="S3 user guide, general purpose bucket naming rules; S3 API reference, InvalidBucketName",
        check=_bucket_name,
        code="InvalidBucketName",
    ),
)
