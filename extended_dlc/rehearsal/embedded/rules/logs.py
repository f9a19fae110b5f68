"""Rules of CloudWatch Logs: log groups, metric filters and searches."""

from __future__ import annotations

from moto.logs.models import logs_backends
from moto.utilities.utils import get_partition

from extended_dlc.rehearsal.embedded import log_patterns
from extended_dlc.rehearsal.embedded.calls import Parameters
from extended_dlc.rehearsal.embedded.iam import resource_policy
from extended_dlc.rehearsal.embedded.policies import Policies, Request, evaluate
from extended_dlc.rehearsal.embedded.rule import Rule, World

_RETENTIONS = (
    *(1, 3, 5, 7, 14, 30, 60, 90, 120, 150, 180, 365, 400, 545, 731, 1096, 1827, 2192, 2557, 2922, 3288, 3653),
)


def _retention(world: World, given: Parameters) -> str | None:
    days = given["retentionInDays"]
    return None if days in _RETENTIONS else f"retentionInDays {days} must be one of {', '.join(map(str, _RETENTIONS))}."


def _log_group_name(world: World, given: Parameters) -> str | None:
    name = given["logGroupName"]
    return f"Log groups starting with AWS/ are reserved for AWS: {name}." if name.startswith("aws/") else None


_MOST_DIMENSIONS = 3


def _dimensions(world: World, given: Parameters) -> str | None:
    for each in given["metricTransformations"]:
        dimensions = each.get("dimensions") or {}
        if dimensions and each.get("defaultValue") is not None:
            return "Invalid metric transformation: dimensions and default value are mutually exclusive properties."
        if dimensions and not given["filterPattern"].strip().startswith(("{", "[")):
            return "The specified filter pattern does not support dimensions"
        if len(dimensions) > _MOST_DIMENSIONS:
            return f"A metric filter has at most {_MOST_DIMENSIONS} dimensions: {', '.join(dimensions)}."
    return None


def _log_group_key(world: World, given: Parameters) -> str | None:
    key = given.get("kmsKeyId")
    if not key:
        return None
    partition = get_partition(world.region)
    group = f"arn:{partition}:logs:{world.region}:{world.account_id}:log-group:{given['logGroupName']}"
    policy = resource_policy(key, world.account_id, world.region)
    if world.fault_of_key(key):
        policy = None
    for action in ("kms:Encrypt", "kms:Decrypt", "kms:ReEncryptFrom", "kms:GenerateDataKey", "kms:DescribeKey"):
        request = Request(
            action=action,
            resource=key,
            service=f"logs.{world.region}.amazonaws.com",
            context={"kms:EncryptionContext:aws:logs:arn": group},
        )
        if policy is None or not evaluate(request, Policies(resource=policy)).allowed:
            return f"The specified KMS key does not exist or is not allowed to be used with Arn '{group}'"
    return None


def _metric_pattern(world: World, given: Parameters) -> str | None:
    return "Invalid metric filter pattern" if _filter_pattern(world, given) else None


def _filter_pattern(world: World, given: Parameters) -> str | None:
    try:
        log_patterns.read(given.get("filterPattern") or "")
    except log_patterns.InvalidPattern as fault:
        return str(fault)
    return None


def _streams(world: World, given: Parameters) -> str | None:
    if given.get("logStreamNames") and given.get("logStreamNamePrefix"):
        return "LogStreamNamePrefix and LogStreamNames cannot both be specified."
    return None


def _filtered_group(world: World, given: Parameters) -> str | None:
    if given["logGroupName"] in logs_backends[world.account_id][world.region].groups:
        return None
    return "The specified log group does not exist."


RULES: tuple[Rule, ...] = (
    Rule(
        name="a key for a log group",
        operations=("logs:CreateLogGroup", "logs:AssociateKmsKey"),
        refuses="a key that is not there or is disabled, or whose policy does not let CloudWatch Logs use it for this "
        "group",
        source="CloudWatch Logs API reference, CreateLogGroup; CloudWatch Logs user guide, encrypt log data: the key "
        "policy; the words stand in many public reports",
        check=_log_group_key,
        code="InvalidParameterException",
    ),
    Rule(
        name="a log group's name",
        operations=("logs:CreateLogGroup",),
        refuses="a name that begins with aws/",
        source="CloudWatch Logs API reference, CreateLogGroup: names can't start with the string aws/",
        check=_log_group_name,
        code="InvalidParameterException",
        own_words=True,
    ),
    Rule(
        name="a metric filter's dimensions",
        operations=("logs:PutMetricFilter",),
        refuses="more than three dimensions, dimensions beside a default value, and with a pattern that is neither "
        "JSON nor delimited",
        source="CloudWatch Logs API reference, MetricTransformation; "
        "aws-solutions-library-samples/guidance-for-claude-code-with-amazon-bedrock#632, "
        "aws-cloudformation/aws-cloudformation-resource-providers-logs#64: the words",
        check=_dimensions,
        code="InvalidParameterException",
    ),
    Rule(
        name="retention of a log group",
        operations=("logs:PutRetentionPolicy",),
        refuses="a number of days that CloudWatch Logs does not offer",
        source="CloudWatch Logs API reference, PutRetentionPolicy retentionInDays",
        check=_retention,
        code="InvalidParameterException",
        own_words=True,
    ),
    Rule(
        name="a metric filter's pattern",
        operations=("logs:PutMetricFilter",),
        refuses="a pattern whose brace, bracket or quotation mark is not closed",
        source="CloudWatch Logs user guide, filter pattern syntax; aws/aws-cdk#15047: refused",
        check=_metric_pattern,
        code="InvalidParameterException",
        own_words=True,
    ),
    Rule(
        name="a filter pattern",
        operations=("logs:FilterLogEvents",),
        refuses="a pattern whose brace, bracket or quotation mark is not closed, and a term with other characters than "
        "letters, digits and underscores without quotation marks",
        source="CloudWatch Logs user guide, filter pattern syntax; aws/aws-toolkit-jetbrains#3219, lucagrulla/cw#181, "
        "jorgebastida/awslogs#210: the words",
        check=_filter_pattern,
        code="InvalidParameterException",
    ),
    Rule(
        name="streams of a search",
        operations=("logs:FilterLogEvents",),
        refuses="names of streams beside a prefix of them",
        source="CloudWatch Logs API reference, FilterLogEvents logStreamNamePrefix",
        check=_streams,
        code="InvalidParameterException",
        own_words=True,
    ),
    Rule(
        name="a metric filter's group",
        operations=("logs:PutMetricFilter",),
        refuses="a log group that is not there",
        source="CloudWatch Logs API reference, PutMetricFilter ResourceNotFoundException; getmoto/moto, logs: the "
        "words",
        check=_filtered_group,
        code="ResourceNotFoundException",
    ),
)
