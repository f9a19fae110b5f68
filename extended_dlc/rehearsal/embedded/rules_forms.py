"""The rows of the table of rules about the form of what a request holds: policies, expressions, bodies, templates."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from moto.iam.exceptions import MalformedPolicyDocument
from moto.iam.policy_validation import IAMPolicyDocumentValidator
from moto.logs.models import logs_backends
from moto.sns.models import sns_backends

from extended_dlc.rehearsal.embedded import log_patterns, template_forms
from extended_dlc.rehearsal.embedded.calls import Parameters
from extended_dlc.rehearsal.embedded.rule import Check, Rule, World
from extended_dlc.rehearsal.embedded.rules_services import template_of

# policies


def _statements(text: Any) -> list[Mapping[str, Any]]:
    """The statements of a policy's text; none where it is no policy, which other rows refuse."""
    try:
        found = json.loads(text).get("Statement", [])
    except (AttributeError, TypeError, ValueError):
        return []
    return [each for each in ([found] if isinstance(found, Mapping) else found) if isinstance(each, Mapping)]


def _list(value: Any) -> list[Any]:
    return list(value) if isinstance(value, (list, tuple)) else [] if value is None else [value]


def _grammar(world: World, given: Parameters) -> str | None:
    try:
        IAMPolicyDocumentValidator(given["PolicyDocument"]).validate()
    except MalformedPolicyDocument as fault:
        return str(fault.description if hasattr(fault, "description") else fault.message)
    for each in _statements(given["PolicyDocument"]):
        if not re.fullmatch(r"[0-9A-Za-z]*", each.get("Sid", "")):
            return (
                f"Statement IDs (SID) must be alpha-numeric. Check that your input satisfies the regular expression "
                f"[0-9A-Za-z]*: {each['Sid']}"
            )
    return None


_PRINCIPALS = ("AWS", "CanonicalUser", "Federated", "Service")
_SERVICE = re.compile(r"[\w-]+(\.[\w-]+)*\.(amazonaws\.com(\.cn)?|amazon\.com|aws\.internal)")
_TRUSTED = ("sts:assumerole", "sts:tagsession", "sts:setsourceidentity", "sts:setcontext", "sts:*")


def _trust(world: World, given: Parameters) -> str | None:
    for each in _statements(given.get("AssumeRolePolicyDocument") or given.get("PolicyDocument")):
        principal = each.get("Principal", {})
        for kind, names in principal.items() if isinstance(principal, Mapping) else ():
            if kind not in _PRINCIPALS:
                return f'Invalid principal in policy: "{kind}"'
            for name in _list(names):
                if kind == "Service" and not _SERVICE.fullmatch(name):
                    return f'Invalid principal in policy: "SERVICE":"{name}"'
        if any(not str(action).lower().startswith(_TRUSTED) for action in _list(each.get("Action"))):
            return "AssumeRole policy may only specify STS AssumeRole actions."
    return None


def _repository_actions(world: World, given: Parameters) -> str | None:
    for each in _statements(given["policyText"]):
        if any(action != "*" and not str(action).lower().startswith("ecr:") for action in _list(each.get("Action"))):
            return (
                "Invalid parameter at 'PolicyText' failed to satisfy constraint: 'Invalid repository policy provided'"
            )
    return None


# expressions


def _rate_or_cron(world: World, given: Parameters) -> str | None:
    expression = given.get("ScheduleExpression")
    if expression is None:
        return None
    rate = re.fullmatch(r"rate\(([1-9]\d*) (minute|hour|day)(s?)\)", expression)
    if rate and (int(rate[1]) == 1) != bool(rate[3]):
        return None
    cron = re.fullmatch(r"cron\((\S+ \S+ \S+ \S+ \S+ \S+)\)", expression)
    if cron and (cron[1].split()[2] == "?") != (cron[1].split()[4] == "?"):
        return None
    return "Parameter ScheduleExpression is not valid."


def _two_days(world: World, given: Parameters) -> str | None:
    expression = given.get("ScheduleExpression", "")
    fields = expression.removeprefix("cron(").removesuffix(")").split() if expression.startswith("cron(") else []
    if len(fields) == 6 and (fields[2] == "?") == (fields[4] == "?"):
        return f"Invalid Schedule Expression {expression}."
    return None


def _expressions(world: World, given: Parameters) -> str | None:
    queries = given.get("Metrics") or ()
    names = {each.get("Id", "") for each in queries}
    for each in queries:
        if not re.fullmatch(r"[a-z][A-Za-z0-9_]*", each.get("Id", "")):
            return f"Metrics list contains the invalid id {each.get('Id')}: it must begin with a lower-case letter."
        expression = re.sub(r"'[^']*'|\"[^\"]*\"", "", each.get("Expression", ""))
        if expression.lstrip().upper().startswith("SELECT"):
            continue
        if absent := sorted(set(re.findall(r"(?<![\w.])[a-z]\w*", expression)) - names):
            return f"The expression of {each['Id']} uses {absent[0]}, which is no Id of the Metrics list."
    return None


def _actions(world: World, given: Parameters) -> str | None:
    for member in ("AlarmActions", "OKActions", "InsufficientDataActions"):
        for each in given.get(member) or ():
            if not re.fullmatch(r"arn:[\w-]+:[\w-]+:[\w-]*:\w*:.+", each):
                return f"Invalid arn syntax: {each}"
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


def _allowed_pattern(world: World, given: Parameters) -> str | None:
    pattern, value = given.get("AllowedPattern"), given.get("Value", "")
    try:
        if not pattern or re.search(pattern, value):
            return None
    except re.error:
        return None
    return f"Parameter value, cannot be validated against allowedPattern: {pattern}"


# addresses

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


def _alias(world: World, given: Parameters) -> str | None:
    if given["AliasName"].startswith("alias/"):
        return None
    return (
        'Alias must start with the prefix "alias/". Please see https://docs.aws.amazon.com/kms/latest/developerguide/'
    )


# bodies

_WIDGETS = ("alarm", "custom", "explorer", "log", "metric", "text")
_WIDTH = 24


def _widgets(world: World, given: Parameters) -> str | None:
    try:
        body = json.loads(given["DashboardBody"])
    except ValueError:
        return None
    widgets = body.get("widgets", []) if isinstance(body, Mapping) else []
    for number, each in enumerate(widgets):
        where = f"The dashboard body is invalid: /widgets/{number}"
        if each.get("type") not in _WIDGETS:
            return f"{where}/type must be one of {', '.join(_WIDGETS)}."
        if not isinstance(each.get("properties"), Mapping):
            return f"{where}/properties is required."
        if not 1 <= each.get("width", 1) <= _WIDTH or not 0 <= each.get("x", 0) < _WIDTH:
            return f"{where} must be within a grid of {_WIDTH} columns."
    return None


_STATES = ("Choice", "Fail", "Map", "Parallel", "Pass", "Succeed", "Task", "Wait")


def _states(world: World, given: Parameters) -> str | None:
    try:
        faults = list(_faults(json.loads(given.get("definition") or "{}"), ""))
    except (AttributeError, ValueError):  # the row of definitions refuses what is no machine
        return None
    return f"Invalid State Machine Definition: 'SCHEMA_VALIDATION_FAILED: {', '.join(faults)}'" if faults else None


def _faults(machine: Mapping[str, Any], path: str) -> Iterator[str]:
    for name, state in machine.get("States", {}).items():
        here, kind = f"{path}/States/{name}", state.get("Type")
        if kind not in _STATES:
            yield f"Value is not one of {', '.join(_STATES)} at {here}/Type"
        elif kind == "Choice" and not state.get("Choices"):
            yield f"These fields are required: [Choices] at {here}"
        elif kind not in ("Choice", "Fail", "Succeed") and bool(state.get("Next")) == bool(state.get("End")):
            yield f"These fields are required: [Next] or [End], and not both, at {here}"
        inner = [*state.get("Branches", ()), *(state[each] for each in ("ItemProcessor", "Iterator") if each in state)]
        for each in inner:
            yield from _faults(each, here)


# templates


def _of_template(find: Callable[[Mapping[str, Any]], str | None]) -> Check:
    """A check of the request's template, where it can be read."""

    def check(world: World, given: Parameters) -> str | None:
        template = template_of(world, given)
        return find(template) if template else None

    return check


_TEMPLATES = tuple(
    f"cloudformation:{name}"
    for name in ("CreateStack", "UpdateStack", "CreateChangeSet", "ValidateTemplate", "GetTemplateSummary")
)
"""The operations that read a template."""


# the table

RULES: tuple[Rule, ...] = (
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
        check=_trust,
        code="MalformedPolicyDocument",
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
        name="a rule's schedule",
        operations=("events:PutRule",),
        refuses="what is no rate (1 minute, 2 minutes) and no cron of six fields with one ? for the day",
        source="EventBridge user guide, cron and rate expressions; getmoto/moto, events/models.py: the words",
        check=_rate_or_cron,
    ),
    Rule(
        name="a schedule's days",
        operations=("scheduler:CreateSchedule", "scheduler:UpdateSchedule"),
        refuses="a cron with both a day of the month and a day of the week, or with neither",
        source="EventBridge Scheduler user guide, cron-based schedules: 'you must use a ? in the other'; "
        "localstack/localstack#9284: the words",
        check=_two_days,
    ),
    Rule(
        name="an alarm's expressions",
        operations=("cloudwatch:PutMetricAlarm",),
        refuses="an Id that does not begin with a lower-case letter, and an expression of an Id that is not there",
        source="CloudWatch API reference, MetricDataQuery Id, Expression",
        check=_expressions,
        code="ValidationError",
        own_words=True,
    ),
    Rule(
        name="an alarm's actions",
        operations=("cloudwatch:PutMetricAlarm",),
        refuses="an action that is no ARN",
        source="CloudWatch API reference, PutMetricAlarm AlarmActions; hashicorp/terraform#19015: refused",
        check=_actions,
        code="ValidationError",
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
    Rule(
        name="an alias's prefix",
        operations=("kms:CreateAlias",),
        refuses="a name that does not begin with alias/",
        source="KMS API reference, CreateAlias AliasName; getmoto/moto, kms/responses.py: the words",
        check=_alias,
    ),
    Rule(
        name="a dashboard's widgets",
        operations=("cloudwatch:PutDashboard",),
        refuses="a widget without a type that there is, without properties, or outside the 24 columns",
        source="CloudWatch API reference, dashboard body structure and syntax",
        check=_widgets,
        code="InvalidParameterInput",
        own_words=True,
    ),
    Rule(
        name="a state machine's states",
        operations=("stepfunctions:CreateStateMachine", "stepfunctions:UpdateStateMachine"),
        refuses="a state of a type that there is not, without a Next or an End, and a Choice without Choices",
        source="Amazon States Language, states; Step Functions API reference, InvalidDefinition",
        check=_states,
        code="InvalidDefinition",
        own_words=True,
    ),
    Rule(
        name="a template's resources",
        operations=_TEMPLATES,
        refuses="sections that there are not, no resource, a resource without a type, with one of another form or with "
        "one of AWS's that CloudFormation has in no region, an output without a value, a logical ID with other "
        "characters than letters and digits, attributes and deletion policies that there are not, and a DependsOn of "
        "what is not there",
        source="CloudFormation user guide, template sections, resource attributes; cfn-lint's copy of the registry: "
        "the types; serverless/serverless#2474, #4745, Versent/cfn-check#3, JulieElkinsAWS/CFtemplates#1, "
        "aws-samples/aws-iot-chat-example#1, aws/aws-cli#7226: the words of most",
        check=_of_template(template_forms.fault_of_sections),
        code="ValidationError",
    ),
    Rule(
        name="a template's functions",
        operations=_TEMPLATES,
        refuses="an intrinsic function that there is not, an Fn::If without three arguments, and a mapping or a key of "
        "one that is not there",
        source="CloudFormation template reference, intrinsic functions; aws/aws-cli#2746, cloudtools/troposphere#479, "
        "zalando-stups/senza, docs: the words of most",
        check=_of_template(template_forms.fault_of_functions),
        code="ValidationError",
    ),
    Rule(
        name="a template's references",
        operations=_TEMPLATES,
        refuses="a reference to a parameter, a resource or a condition that is not there, and to a resource in the "
        "Conditions",
        source="CloudFormation template reference, Ref, Fn::GetAtt, Fn::Sub, Conditions; serverless/serverless#4745, "
        "aws-cloudformation/cfn-lint#99, aws/aws-cdk#26560: the words of most",
        check=_of_template(template_forms.fault_of_references),
        code="ValidationError",
    ),
)
