"""The rows of the table of rules for the services around SageMaker: scaling, alarms, logs, schedules, roles, keys."""

from __future__ import annotations

import itertools
import json
import math
import re
import zoneinfo
from collections.abc import Iterator, Mapping
from datetime import datetime
from typing import Any

from moto.applicationautoscaling.models import applicationautoscaling_backends
from moto.ecr.exceptions import InvalidParameterException
from moto.ecr.policy_validation import EcrLifecyclePolicyValidator
from moto.iam.models import iam_backends
from moto.utilities.utils import get_partition

from extended_dlc.rehearsal.embedded.calls import Parameters
from extended_dlc.rehearsal.embedded.iam import resource_policy
from extended_dlc.rehearsal.embedded.policies import Policies, Request, evaluate, matches, statements_of
from extended_dlc.rehearsal.embedded.rule import Rule, World
from extended_dlc.rehearsal.embedded.scaling import RECORDED_DIMENSIONS

# roles


def _boundary(world: World, given: Parameters) -> str | None:
    arn = given.get("PermissionsBoundary")
    if not arn or arn in iam_backends[world.account_id][arn.split(":")[1]].managed_policies:
        return None
    return f"Scope ARN: {arn} does not exist or is not attachable."


def _statements(text: Any) -> Iterator[Mapping[str, Any]]:
    """The statements of a policy's text. Raises `ValueError` where it is no policy."""
    document = json.loads(text)
    if not isinstance(document, Mapping):
        raise ValueError(text)
    found = document.get("Statement", [])
    yield from [found] if isinstance(found, Mapping) else found


def _trust_of(given: Parameters) -> str:
    """The trust policy of CreateRole or UpdateAssumeRolePolicy."""
    return str(given.get("AssumeRolePolicyDocument") or given["PolicyDocument"])


def _trust(world: World, given: Parameters) -> str | None:
    try:
        statements = list(_statements(_trust_of(given)))
    except ValueError:
        return "This policy contains invalid Json"
    for each in statements:
        for field in ("Principal", "Action"):
            if field not in each and f"Not{field}" not in each:
                return f"Missing required field {field}"
        if "Resource" in each:
            return "Has prohibited field Resource"
        if absent := _absent_principal(world, each.get("Principal")):
            return f'Invalid principal in policy: "AWS":"{absent}"'
    return None


def _roles(world: World) -> Mapping[str, Any]:
    """The account's roles by their names."""
    return {each.name: each for each in iam_backends[world.account_id][get_partition(world.region)].roles.values()}


def _absent_principal(world: World, principal: Any) -> str | None:
    """A role of the account that a policy names, and that does not exist."""
    named = principal.get("AWS", ()) if isinstance(principal, Mapping) else ()
    known = {each.arn for each in _roles(world).values()}
    for each in [named] if isinstance(named, str) else named:
        if f":iam::{world.account_id}:role/" in each and each not in known:
            return str(each)
    return None


def _role_by_case(world: World, given: Parameters) -> str | None:
    name = given["RoleName"]
    same = [each for each in _roles(world) if each.lower() == name.lower() and each != name]
    return f"Role with name {name} already exists." if same else None


def _inline_policy(world: World, given: Parameters) -> str | None:
    try:
        statements = list(_statements(given["PolicyDocument"]))
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
    role = _roles(world).get(given["RoleName"])
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
    role = _roles(world).get(given["RoleName"])
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


# roles of services, schedules


_RATE = re.compile(r"rate\((\d+) (minute|hour|day)s?\)")
_AT = re.compile(r"at\(\d{4}-\d{2}-\d{2}T\d{2}:\d{2}:\d{2}\)")
_CRON = re.compile(r"cron\(([^()]*)\)")
_CRON_BOUNDS = ((0, 59), (0, 23), (1, 31), (1, 12), (0, 7), (1970, 2199))
"""Of the six fields: minutes, hours, day of the month, month, day of the week, year."""


def _is_schedule(expression: str) -> bool:
    """Whether an expression is a time, a rate, or six cron fields whose numbers are within their bounds."""
    if found := _RATE.fullmatch(expression):
        return int(found[1]) > 0
    if _AT.fullmatch(expression):
        return True
    found = _CRON.fullmatch(expression)
    fields = found[1].split() if found else []
    return len(fields) == len(_CRON_BOUNDS) and all(
        least <= int(number) <= most
        for field, (least, most) in zip(fields, _CRON_BOUNDS, strict=True)
        for number in re.findall(r"(?<![/\w])\d+(?!\w)", field)
    )


def _schedule_expression(world: World, given: Parameters) -> str | None:
    expression = given["ScheduleExpression"]
    return None if _is_schedule(expression) else f"Invalid Schedule Expression {expression}."


def _schedule_role(world: World, given: Parameters) -> str | None:
    # aws:SourceArn is the schedule's group (EventBridge Scheduler user guide, "Confused deputy prevention")
    prefix = f"arn:{get_partition(world.region)}:scheduler:{world.region}:{world.account_id}"
    source = f"{prefix}:schedule-group/{given.get('GroupName', 'default')}"
    if world.trusts(given["Target"]["RoleArn"], "scheduler.amazonaws.com", source=source):
        return None
    return "The execution role you provide must allow AWS EventBridge Scheduler to assume the role."


def _machine_role(world: World, given: Parameters) -> str | None:
    arn = given.get("roleArn")
    # aws:SourceArn is the state machine (Step Functions developer guide, "Cross-service confused deputy prevention")
    prefix = f"arn:{get_partition(world.region)}:states:{world.region}:{world.account_id}"
    source = given.get("stateMachineArn") or f"{prefix}:stateMachine:{given.get('name', 'embedded')}"
    if arn is None or world.trusts(arn, "states.amazonaws.com", source=source):
        return None
    return (
        "Neither the global service principal states.amazonaws.com, nor the regional one is authorized to assume the "
        "provided role."
    )


def _function_role(world: World, given: Parameters) -> str | None:
    if given.get("Role") is None or world.trusts(given["Role"], "lambda.amazonaws.com"):
        return None
    return "The role defined for the function cannot be assumed by Lambda."


def _project_role(world: World, given: Parameters) -> str | None:
    arn = given.get("serviceRole")
    # aws:SourceArn is the project (CodeBuild user guide, "Cross-service confused deputy prevention")
    prefix = f"arn:{get_partition(world.region)}:codebuild:{world.region}:{world.account_id}"
    if arn is None or world.trusts(arn, "codebuild.amazonaws.com", source=f"{prefix}:project/{given['name']}"):
        return None
    return f"CodeBuild is not authorized to perform: sts:AssumeRole on {arn}"


def _schedule_window(world: World, given: Parameters) -> str | None:
    window = given["FlexibleTimeWindow"]
    if (window["Mode"] == "FLEXIBLE") == ("MaximumWindowInMinutes" in window):
        return None
    return "MaximumWindowInMinutes is required for the mode FLEXIBLE, and not allowed for OFF."


def _schedule_times(world: World, given: Parameters) -> str | None:
    zone = given.get("ScheduleExpressionTimezone")
    if zone and zone not in zoneinfo.available_timezones():
        return f"Invalid ScheduleExpressionTimezone {zone}."
    begin, end = given.get("StartDate"), given.get("EndDate")
    if begin is None or end is None or _seconds(begin) < _seconds(end):
        return None
    return "The StartDate must come before the EndDate."


def _seconds(when: Any) -> float:
    """A time of a request, or of a template, in seconds."""
    if isinstance(when, (int, float)):
        return float(when)
    made = when if isinstance(when, datetime) else datetime.fromisoformat(str(when).replace("Z", "+00:00"))
    return made.timestamp()


# keys and repositories


def _key_policy(world: World, given: Parameters) -> str | None:
    if not given.get("Policy"):
        return None
    try:
        statements = list(_statements(given["Policy"]))
    except ValueError:
        return "Policy is not a valid JSON document."
    if any(_absent_principal(world, each.get("Principal")) for each in statements):
        return "Policy contains a statement with one or more invalid principals."
    if given.get("BypassPolicyLockoutSafetyCheck"):
        return None
    partition = get_partition(world.region)
    arn = f"arn:{partition}:kms:{world.region}:{world.account_id}:key/new"
    root = f"arn:{partition}:iam::{world.account_id}:root"
    for principal in (root, *(each.arn for each in _roles(world).values())):
        request = Request(action="kms:PutKeyPolicy", resource=arn, principal=principal)
        allowing = (each for each in statements_of(json.loads(given["Policy"])) if each["Effect"] == "Allow")
        if any(matches(each, request, with_principal=True) for each in allowing):
            return None
    return "The new key policy will not allow you to update the key policy in the future."


def _bucket_policy(world: World, given: Parameters) -> str | None:
    if "Policy" not in given:  # a body that could not be read
        return None
    try:
        statements = list(_statements(given["Policy"]))
    except ValueError:
        return "Policies must be valid JSON and the first byte must be '{'"
    bucket = f"arn:{get_partition(world.region)}:s3:::{given['Bucket']}"
    for each in statements:
        if "Principal" not in each and "NotPrincipal" not in each:
            return "Missing required field Principal"
        if _absent_principal(world, each.get("Principal")):
            return "Invalid principal in policy"
        named = each.get("Resource", each.get("NotResource", ()))
        for resource in [named] if isinstance(named, str) else named:
            if resource not in ("*", bucket) and not resource.startswith((f"{bucket}/", f"{bucket}*")):
                return "Policy has invalid resource"
    return None


def _topic_policy(world: World, given: Parameters) -> str | None:
    if given.get("AttributeName") != "Policy":
        return None
    try:
        if all("Principal" in each or "NotPrincipal" in each for each in _statements(given.get("AttributeValue"))):
            return None
    except (TypeError, ValueError):
        pass
    return "Invalid parameter: Policy Error: null"


def _repository_policy(world: World, given: Parameters) -> str | None:
    try:
        if all("Principal" in each or "NotPrincipal" in each for each in _statements(given["policyText"])):
            return None
    except ValueError:
        pass
    return "Invalid parameter at 'PolicyText' failed to satisfy constraint: 'Invalid repository policy provided'"


def _lifecycle(world: World, given: Parameters) -> str | None:
    try:
        EcrLifecyclePolicyValidator(given["lifecyclePolicyText"]).validate()
    except InvalidParameterException as fault:
        return str(fault.message)
    priorities = [each["rulePriority"] for each in json.loads(given["lifecyclePolicyText"])["rules"]]
    if len(set(priorities)) == len(priorities):
        return None
    template = EcrLifecyclePolicyValidator.INVALID_PARAMETER_ERROR_MESSAGE
    return f"{template}rulePriority must be unique: {', '.join(map(str, priorities))}.'"


# scaling


def _capacity(world: World, given: Parameters) -> str | None:
    least, most = given.get("MinCapacity"), given.get("MaxCapacity")
    if least is not None and most is not None and least > most:
        return "Maximum capacity cannot be less than minimum capacity"
    return None


def _is_registered(world: World, given: Parameters) -> bool:
    """Whether the scalable target exists; True for the dimensions whose targets are only recorded here."""
    dimension = given["ScalableDimension"]
    targets = applicationautoscaling_backends[world.account_id][world.region].targets
    return dimension in RECORDED_DIMENSIONS or given["ResourceId"] in targets.get(dimension, {})


def _first_capacity(world: World, given: Parameters) -> str | None:
    missing = [each for each in ("MinCapacity", "MaxCapacity") if given.get(each) is None]
    if not missing or _is_registered(world, given):
        return None
    return f"{missing[0]} is required when registering a new scalable target."


def _target_exists(world: World, given: Parameters) -> str | None:
    if _is_registered(world, given):
        return None
    return (
        f"No scalable target registered for service namespace: {given['ServiceNamespace']}, resource ID: "
        f"{given['ResourceId']}, scalable dimension: {given['ScalableDimension']}"
    )


_CONFIGURATIONS = {
    "StepScaling": "StepScalingPolicyConfiguration",
    "TargetTrackingScaling": "TargetTrackingScalingPolicyConfiguration",
}
_METRICS_OF = {
    "sagemaker:inference-component:DesiredCopyCount": "SageMakerInferenceComponent",
    "sagemaker:variant:DesiredInstanceCount": "SageMakerVariant",
    "sagemaker:variant:DesiredProvisionedConcurrency": "SageMakerVariantProvisionedConcurrencyUtilization",
}
"""How the names of a dimension's predefined metrics begin."""


def _scaling_policy(world: World, given: Parameters) -> str | None:
    kind = given.get("PolicyType")
    for each, member in _CONFIGURATIONS.items():
        if (kind == each) != bool(given.get(member)):
            return f"{member} is required for the policy type {each}, and for no other; the type is {kind}."
    tracked = given.get("TargetTrackingScalingPolicyConfiguration")
    if not tracked:
        return None
    predefined = tracked.get("PredefinedMetricSpecification")
    if bool(predefined) == bool(tracked.get("CustomizedMetricSpecification")):
        return "Specify either a predefined metric or a customized metric."
    metric, dimension = (predefined or {}).get("PredefinedMetricType", ""), given["ScalableDimension"]
    if predefined and not metric.startswith(_METRICS_OF.get(dimension, "")):
        return f"The predefined metric {metric} is not supported for the scalable dimension {dimension}."
    return None


def _steps(world: World, given: Parameters) -> str | None:
    stepped = given.get("StepScalingPolicyConfiguration")
    if not stepped:
        return None
    steps = stepped.get("StepAdjustments") or ()
    if not stepped.get("AdjustmentType") or not steps:
        return "AdjustmentType and StepAdjustments are required for a new step scaling policy."
    bounds = [
        (each.get("MetricIntervalLowerBound", -math.inf), each.get("MetricIntervalUpperBound", math.inf))
        for each in steps
    ]
    if any(lower >= upper for lower, upper in bounds):
        return "The upper bound of a step must be greater than its lower bound."
    ordered = sorted(bounds)
    if any(upper != lower for (_, upper), (lower, _) in itertools.pairwise(ordered)):
        return "The ranges of the step adjustments must not overlap, and must have no gap."
    exact = stepped["AdjustmentType"] == "ExactCapacity"
    if exact and any(each["ScalingAdjustment"] < 0 for each in steps):
        return "ScalingAdjustment must not be negative where the AdjustmentType is ExactCapacity."
    return None


def _scheduled_scaling(world: World, given: Parameters) -> str | None:
    expression, zone = given.get("Schedule"), given.get("Timezone")
    if expression is not None and not _is_schedule(expression):
        return f"Schedule expression {expression} is invalid: it must be at(), rate() or cron() of six fields."
    if not {"MinCapacity", "MaxCapacity"} & set(given.get("ScalableTargetAction") or {}):
        return "At least one of minimum capacity and maximum capacity should be provided"
    return f"The time zone {zone} is invalid." if zone and zone not in zoneinfo.available_timezones() else None


# alarms and logs


def _alarm_window(world: World, given: Parameters) -> str | None:
    period, periods = given.get("Period"), given.get("EvaluationPeriods", 1)
    if period is None:
        return None
    if period not in (10, 20, 30) and (period < 1 or period % 60):
        return f"Period {period} must be 10, 20, 30 or a multiple of 60."
    longest = 7 * 86_400 if period >= 3_600 else 86_400
    if period * periods > longest:
        return (
            f"Metrics cannot be checked across more than {'seven days' if longest > 86_400 else 'a day'} "
            "(EvaluationPeriods * Period must be <= "
            f"{longest})."
        )
    points = given.get("DatapointsToAlarm")
    if points is not None and points > periods:
        return "DatapointsToAlarm must be less than or equal to EvaluationPeriods"
    return None


def _alarm_metric(world: World, given: Parameters) -> str | None:
    metric, queries = given.get("MetricName"), given.get("Metrics") or ()
    if not given.get("EvaluationCriteria") and bool(metric) == bool(queries):
        return "Specify either MetricName or Metrics."
    if metric and bool(given.get("Statistic")) == bool(given.get("ExtendedStatistic")):
        return "Specify either Statistic or ExtendedStatistic with MetricName, and not both."
    if metric and given.get("Period") is None:
        return "Period is required with MetricName."
    if queries and sum(each.get("ReturnData", True) is not False for each in queries) != 1:
        return "Exactly one element of the Metrics list should have ReturnData set to true."
    beside = [each for each in _OF_ONE_METRIC if given.get(each)] if queries else []
    return f"{beside[0]} is not allowed with Metrics: each query has its own." if beside else None


_OF_ONE_METRIC = ("Namespace", "Dimensions", "Period", "Unit", "Statistic", "ExtendedStatistic")
_OF_BANDS = (*("LessThanLowerOrGreaterThanUpperThreshold", "LessThanLowerThreshold", "GreaterThanUpperThreshold"),)
"""The comparisons with what an anomaly detection model expects."""

_EXTENDED = re.compile(
    r"(?:p|tm|tc|ts|wm)(?:100|\d{1,2})(?:\.\d{1,10})?|IQM|PR\([^():]*:[^():]*\)|(?:TC|TM|TS|WM)\([^():]*:[^():]*\)"
)


def _threshold(world: World, given: Parameters) -> str | None:
    if given.get("EvaluationCriteria"):
        return None
    operator, band = given.get("ComparisonOperator"), given.get("ThresholdMetricId")
    if not operator or given.get("EvaluationPeriods") is None:
        return "ComparisonOperator and EvaluationPeriods are required with MetricName and with Metrics."
    if (operator in _OF_BANDS) != bool(band):
        return f"ComparisonOperator {operator} needs a ThresholdMetricId, or excludes it: it is {band}."
    if (given.get("Threshold") is None) != bool(band):
        return "Threshold is required for an alarm with a static threshold, and for no other."
    return None


def _statistics(world: World, given: Parameters) -> str | None:
    extended, few = given.get("ExtendedStatistic"), given.get("EvaluateLowSampleCountPercentile")
    if extended and not _EXTENDED.fullmatch(extended):
        return f"The value {extended} for parameter ExtendedStatistic is not supported."
    if few and few not in ("evaluate", "ignore"):
        return f"EvaluateLowSampleCountPercentile {few} must be evaluate or ignore."
    return None


def _criteria(world: World, given: Parameters) -> str | None:
    criteria, interval = given.get("EvaluationCriteria"), given.get("EvaluationInterval")
    if bool(criteria) != (interval is not None):
        return "EvaluationInterval is required with EvaluationCriteria, and not allowed without."
    if interval is not None and interval not in (10, 20, 30) and interval % 60:
        return f"EvaluationInterval {interval} must be 10, 20, 30 or a multiple of 60."
    beside = [each for each in _WITHOUT_CRITERIA if given.get(each)] if criteria else []
    return f"{beside[0]} is not allowed with EvaluationCriteria." if beside else None


_WITHOUT_CRITERIA = (
    *_OF_ONE_METRIC,
    *("MetricName", "Metrics", "Threshold", "ComparisonOperator", "ThresholdMetricId", "EvaluationPeriods"),
    "DatapointsToAlarm",
)


def _dashboard(world: World, given: Parameters) -> str | None:
    name = given["DashboardName"]
    if not re.fullmatch(r"[A-Za-z0-9_-]{1,255}", name):
        return f"The DashboardName {name[:40]} must have 1 to 255 characters of A-Z, a-z, 0-9, - and _."
    try:
        body = json.loads(given["DashboardBody"])
    except ValueError:
        return "The field DashboardBody must be a valid JSON object"
    return None if isinstance(body, Mapping) else "The field DashboardBody must be a valid JSON object"


_MISSING_DATA = ("breaching", "notBreaching", "ignore", "missing")


def _missing_data(world: World, given: Parameters) -> str | None:
    missing = given.get("TreatMissingData")
    if not missing or missing in _MISSING_DATA:
        return None
    return f"TreatMissingData {missing} must be one of {', '.join(_MISSING_DATA)}."


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


# the table

RULES: tuple[Rule, ...] = (
    Rule(
        name="capacity",
        operations=("application-autoscaling:RegisterScalableTarget",),
        refuses="a least capacity above the greatest",
        source="Application Auto Scaling API reference, RegisterScalableTarget MaxCapacity: documentation alone",
        check=_capacity,
    ),
    Rule(
        name="an alarm's window",
        operations=("cloudwatch:PutMetricAlarm",),
        refuses="a period that is no multiple of 60 s, a window above a day (above seven, for periods of an hour and "
        "more), and more datapoints than periods",
        source="CloudWatch API reference, PutMetricAlarm Period, EvaluationPeriods, DatapointsToAlarm; "
        "hashicorp/terraform#24070: the words of the last",
        check=_alarm_window,
        code="ValidationError",
    ),
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
        name="a schedule's times",
        operations=("scheduler:CreateSchedule", "scheduler:UpdateSchedule"),
        refuses="an unknown time zone, and an end that is not after the start",
        source="EventBridge Scheduler API reference, CreateSchedule ScheduleExpressionTimezone, StartDate, EndDate",
        check=_schedule_times,
        own_words=True,
    ),
    Rule(
        name="a schedule's expression",
        operations=("scheduler:CreateSchedule", "scheduler:UpdateSchedule"),
        refuses="an expression that is no at(), rate() or cron() of six fields within their bounds",
        source="EventBridge Scheduler API reference, CreateSchedule ScheduleExpression; localstack/localstack#9284",
        check=_schedule_expression,
    ),
    Rule(
        name="a schedule's role",
        operations=("scheduler:CreateSchedule", "scheduler:UpdateSchedule"),
        refuses="a role that is not there, or does not let EventBridge Scheduler assume it for this account",
        source="aws/aws-sdk-js-v3#6494: the words",
        check=_schedule_role,
    ),
    Rule(
        name="a state machine's role",
        operations=("stepfunctions:CreateStateMachine", "stepfunctions:UpdateStateMachine"),
        refuses="a role that is not there, or does not let Step Functions assume it for this account",
        source="the words stand in many public reports, such as aws/aws-cdk, issues",
        check=_machine_role,
        code="AccessDeniedException",
    ),
    Rule(
        name="a function's role",
        operations=("lambda:CreateFunction", "lambda:UpdateFunctionConfiguration"),
        refuses="a role that is not there, or does not let Lambda assume it",
        source="hashicorp/terraform-provider-aws, internal/service/lambda: it repeats on these words",
        check=_function_role,
        code="InvalidParameterValueException",
    ),
    Rule(
        name="a project's role",
        operations=("codebuild:CreateProject", "codebuild:UpdateProject"),
        refuses="a role that is not there, or does not let CodeBuild assume it for this account",
        source="CodeBuild user guide, troubleshooting: 'CodeBuild is not authorized to perform: sts:AssumeRole'",
        check=_project_role,
        code="InvalidInputException",
    ),
    Rule(
        name="a schedule's window",
        operations=("scheduler:CreateSchedule", "scheduler:UpdateSchedule"),
        refuses="a flexible window without its length, and a length without a flexible window",
        source="EventBridge Scheduler API reference, FlexibleTimeWindow",
        check=_schedule_window,
        own_words=True,
    ),
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
        name="a bucket's policy",
        operations=("s3:PutBucketPolicy",),
        refuses="a policy that is no JSON, has no principal, names a role that is not there, or another bucket",
        source="S3 user guide, bucket policies; 'Policy has invalid resource' and 'Invalid principal in policy' stand "
        "in many public reports",
        check=_bucket_policy,
        code="MalformedPolicy",
    ),
    Rule(
        name="a topic's policy",
        operations=("sns:SetTopicAttributes",),
        refuses="a policy that is no JSON or has no principal",
        source="SNS API reference, SetTopicAttributes InvalidParameter; the words stand in many public reports",
        check=_topic_policy,
        code="InvalidParameter",
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
        refuses="a policy without rules, rules without their members, and two rules of one priority",
        source="ECR user guide, lifecycle policy parameters; getmoto/moto, ecr/policy_validation.py: most words",
        check=_lifecycle,
        code="InvalidParameterException",
    ),
    Rule(
        name="first capacity",
        operations=("application-autoscaling:RegisterScalableTarget",),
        refuses="a new target without its least or its greatest capacity",
        source="Application Auto Scaling API reference, RegisterScalableTarget MinCapacity, MaxCapacity",
        check=_first_capacity,
        own_words=True,
    ),
    Rule(
        name="scalable target exists",
        operations=("application-autoscaling:PutScalingPolicy",),
        refuses="a policy of a target that was not registered",
        source="Application Auto Scaling API reference, PutScalingPolicy ObjectNotFoundException; "
        "ansible/ansible#40237: the words",
        check=_target_exists,
        code="ObjectNotFoundException",
    ),
    Rule(
        name="scheduled target exists",
        operations=("application-autoscaling:PutScheduledAction",),
        refuses="a scheduled action of a target that was not registered",
        source="Application Auto Scaling API reference, PutScheduledAction ObjectNotFoundException: documentation "
        "alone; the words are PutScalingPolicy's",
        check=_target_exists,
        code="ObjectNotFoundException",
        in_templates=False,  # a template's target has its actions with it
    ),
    Rule(
        name="scaling policy",
        operations=("application-autoscaling:PutScalingPolicy",),
        refuses="a policy without its type's configuration, without exactly one metric, and with another's metric",
        source="Application Auto Scaling API reference, PutScalingPolicy; PredefinedMetricSpecification",
        check=_scaling_policy,
        own_words=True,
    ),
    Rule(
        name="steps",
        operations=("application-autoscaling:PutScalingPolicy",),
        refuses="a step policy without its type or steps, and steps that overlap or leave a gap",
        source="Application Auto Scaling API reference, StepScalingPolicyConfiguration, StepAdjustment",
        check=_steps,
        own_words=True,
    ),
    Rule(
        name="scheduled action",
        operations=("application-autoscaling:PutScheduledAction",),
        refuses="an expression that is no at(), rate() or cron(), an unknown time zone, and no capacity",
        source="Application Auto Scaling API reference, PutScheduledAction; "
        "aws-cloudformation/community-registry-extensions#255: the words of the last",
        check=_scheduled_scaling,
        own_words=True,
    ),
    Rule(
        name="an alarm's metric",
        operations=("cloudwatch:PutMetricAlarm",),
        refuses="a metric or its members beside queries, neither, two statistics or none, no period, and not exactly "
        "one result",
        source="CloudWatch API reference, PutMetricAlarm MetricName, Metrics, Statistic, Period; MetricDataQuery",
        check=_alarm_metric,
        code="ValidationError",
        own_words=True,
    ),
    Rule(
        name="an alarm's threshold",
        operations=("cloudwatch:PutMetricAlarm",),
        refuses="no threshold or periods, both a number and a band, and a comparison of the other kind",
        source="CloudWatch API reference, PutMetricAlarm Threshold, ThresholdMetricId, ComparisonOperator",
        check=_threshold,
        code="ValidationError",
        own_words=True,
    ),
    Rule(
        name="an alarm's statistic",
        operations=("cloudwatch:PutMetricAlarm",),
        refuses="an extended statistic of another form, and another treatment of few samples than the two",
        source="CloudWatch API reference, PutMetricAlarm ExtendedStatistic, EvaluateLowSampleCountPercentile",
        check=_statistics,
        code="ValidationError",
        own_words=True,
    ),
    Rule(
        name="an alarm of a query",
        operations=("cloudwatch:PutMetricAlarm",),
        refuses="EvaluationCriteria without an interval or beside a metric's members, and an interval without them",
        source="CloudWatch API reference, PutMetricAlarm EvaluationCriteria, EvaluationInterval",
        check=_criteria,
        code="ValidationError",
        own_words=True,
    ),
    Rule(
        name="a dashboard",
        operations=("cloudwatch:PutDashboard",),
        refuses="a name with other characters, and a body that is no JSON object",
        source="CloudWatch API reference, PutDashboard DashboardName, DashboardBody",
        check=_dashboard,
        code="InvalidParameterInput",
        own_words=True,
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
        name="an alarm's missing data",
        operations=("cloudwatch:PutMetricAlarm",),
        refuses="another treatment of missing data than the four",
        source="CloudWatch API reference, PutMetricAlarm TreatMissingData",
        check=_missing_data,
        code="ValidationError",
        own_words=True,
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
)
