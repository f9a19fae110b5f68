"""The rows of the table of rules for S3, Lambda, the Parameter Store, secrets, sessions, machines and stacks."""

from __future__ import annotations

import ipaddress
import json
import re
from collections.abc import Collection, Iterator, Mapping
from typing import Any

from moto.cloudformation.models import Stack, cloudformation_backends
from moto.cloudformation.utils import get_stack_from_s3_url
from moto.sts.models import sts_backends
from moto.utilities.utils import get_partition

from extended_dlc.rehearsal.embedded.calls import Parameters
from extended_dlc.rehearsal.embedded.rule import Rule, World

# buckets

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


# functions

_LONGEST_NAME = 64
_LONGEST_RUN = 900
_MOST_MEMORY = 10_240
_MOST_STORAGE = 10_240
_ENVIRONMENT_BYTES = 4_096
_RESERVED = frozenset(
    {
        "_HANDLER",
        "_X_AMZN_TRACE_ID",
        "AWS_ACCESS_KEY",
        "AWS_ACCESS_KEY_ID",
        "AWS_DEFAULT_REGION",
        "AWS_EXECUTION_ENV",
        "AWS_LAMBDA_FUNCTION_MEMORY_SIZE",
        "AWS_LAMBDA_FUNCTION_NAME",
        "AWS_LAMBDA_FUNCTION_VERSION",
        "AWS_LAMBDA_INITIALIZATION_TYPE",
        "AWS_LAMBDA_LOG_GROUP_NAME",
        "AWS_LAMBDA_LOG_STREAM_NAME",
        "AWS_LAMBDA_RUNTIME_API",
        "AWS_REGION",
        "AWS_SECRET_ACCESS_KEY",
        "AWS_SESSION_TOKEN",
        "LAMBDA_RUNTIME_DIR",
        "LAMBDA_TASK_ROOT",
    }
)
"""Of Lambda itself (Lambda developer guide, "Defined runtime environment variables")."""


def _function_limits(world: World, given: Parameters) -> str | None:
    bounds = {
        "functionName": (len(given["FunctionName"].rpartition(":")[2]), _LONGEST_NAME, "length"),
        "timeout": (given.get("Timeout", 0), _LONGEST_RUN, "value"),
        "memorySize": (given.get("MemorySize", 0), _MOST_MEMORY, "value"),
        "ephemeralStorage.size": (given.get("EphemeralStorage", {}).get("Size", 0), _MOST_STORAGE, "value"),
    }
    if given.get("CapacityProviderConfig"):  # of instances of the account's own, which have other limits
        return None
    for member, (size, most, what) in bounds.items():
        if size > most:
            return (
                f"1 validation error detected: Value '{size}' at '{member}' failed to satisfy constraint: Member must "
                f"have {what} less than or equal to {most}"
            )
    return None


def _runtime(world: World, given: Parameters) -> str | None:
    if given.get("PackageType") == "Image" or (given.get("Runtime") and given.get("Handler")):
        return None
    return "Runtime and Handler are mandatory parameters for functions created with deployment packages."


def _function_environment(world: World, given: Parameters) -> str | None:
    variables = given.get("Environment", {}).get("Variables", {})
    begin = "Lambda was unable to configure your environment variables because the environment variables you have "
    if reserved := sorted(_RESERVED & set(variables)):
        return (
            f"{begin}provided contains reserved keys that are currently not supported for modification. Reserved keys "
            f"used in this request: {', '.join(reserved)}"
        )
    written = json.dumps(variables, ensure_ascii=False, separators=(",", ":"))
    if len(written.encode()) <= _ENVIRONMENT_BYTES:
        return None
    return f"{begin}provided exceeded the 4KB limit. String measured: {written}"


# parameters, secrets, sessions

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


# state machines

_BROKEN = "Invalid State Machine Definition: '"


def _definition(world: World, given: Parameters) -> str | None:
    text = given.get("definition")
    if text is None:  # an update of the role alone
        return None
    try:
        machine = json.loads(text)
    except ValueError:
        return f"{_BROKEN}INVALID_JSON_DESCRIPTION: the definition is no JSON'"
    if not isinstance(machine, Mapping):
        return f"{_BROKEN}SCHEMA_VALIDATION_FAILED: the definition is no JSON object'"
    faults = list(_faults_of_machine(machine, ""))
    return f"{_BROKEN}{', '.join(faults)}'" if faults else None


def _faults_of_machine(machine: Mapping[str, Any], path: str) -> Iterator[str]:
    """What is wrong with a machine's transitions, and with those of the machines inside its states."""
    states, first = machine.get("States"), machine.get("StartAt")
    if not isinstance(states, Mapping) or not states or not isinstance(first, str):
        yield f"SCHEMA_VALIDATION_FAILED: These fields are required: [StartAt, States] at {path or '/'}"
        return
    targets = {f"{path}/StartAt": first}
    for name, state in states.items():
        here = f"{path}/States/{name}"
        targets.update((f"{here}/{member}", target) for member, target in _targets(state))
        for below, inner in _inside(state):
            yield from _faults_of_machine(inner, f"{here}/{below}")
    for below, target in targets.items():
        if target not in states:
            yield f"MISSING_TRANSITION_TARGET: Missing 'Next' target: {target} at {below}"
    for name in states:
        if name not in targets.values():
            yield f'MISSING_TRANSITION_TARGET: State "{name}" is not reachable. at {path}/States/{name}'


def _targets(state: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """The places in a state that name the next one, and the names."""
    for member in ("Next", "Default"):
        if member in state:
            yield member, state[member]
    for several in ("Catch", "Choices"):
        for number, each in enumerate(state.get(several, ())):
            if "Next" in each:
                yield f"{several}[{number}]/Next", each["Next"]


def _inside(state: Mapping[str, Any]) -> Iterator[tuple[str, Mapping[str, Any]]]:
    """The machines inside a state, with their places."""
    for number, branch in enumerate(state.get("Branches", ())):
        yield f"Branches[{number}]", branch
    for member in ("ItemProcessor", "Iterator"):
        if isinstance(state.get(member), Mapping):
            yield member, state[member]


# stacks

_IDENTITIES = frozenset(
    f"AWS::IAM::{each}"
    for each in (
        *("AccessKey", "Group", "InstanceProfile", "ManagedPolicy", "Policy", "Role", "User", "UserToGroupAddition"),
    )
)
"""The types that CreateStack Capabilities lists."""

_NAMES = ("GroupName", "InstanceProfileName", "ManagedPolicyName", "RoleName", "UserName")
_MOST_RESOURCES = 500
_TEMPLATE_BYTES = 51_200


def template_of(world: World, given: Parameters) -> Mapping[str, Any]:
    """The template of a request; empty where it has none or cannot be read, which the operation itself refuses."""
    text: Any = given.get("TemplateBody")
    if given.get("UsePreviousTemplate"):
        text = getattr(_stack(world, given), "template", None)
    try:
        if url := given.get("TemplateURL"):
            text = get_stack_from_s3_url(url, account_id=world.account_id, partition=get_partition(world.region))
        parsed = Stack.parse_template(text) if text else {}
    except Exception:  # moto raises those of two parsers
        return {}
    return parsed if isinstance(parsed, Mapping) else {}


def _stack(world: World, given: Parameters) -> Stack | None:
    stacks = cloudformation_backends[world.account_id][world.region].stacks.values()
    return next((each for each in list(stacks) if given.get("StackName") in (each.name, each.stack_id)), None)


def _capabilities(world: World, given: Parameters) -> str | None:
    return _unacknowledged(template_of(world, given), given.get("Capabilities") or ())


def _capabilities_of_change_set(world: World, given: Parameters) -> str | None:
    # CreateChangeSet takes what its execution refuses (aws/serverless-application-model#51)
    name, stack = given["ChangeSetName"], given.get("StackName")
    for each in list(cloudformation_backends[world.account_id][world.region].change_sets.values()):
        found = name == each.change_set_id or (
            name == each.change_set_name and stack in (None, each.stack.name, each.stack.stack_id)
        )
        if found:
            return _unacknowledged(each.template_dict, getattr(each, CAPABILITIES, ()))
    return None


CAPABILITIES = "extended_dlc_capabilities"
"""The attribute of a change set with the capabilities of its request."""


def capabilities_of(template: Mapping[str, Any]) -> list[str]:
    """The capability that a template needs for its identities, if it has any."""
    resources = template.get("Resources") or {}
    identities = [each for each in resources.values() if isinstance(each, Mapping) and each.get("Type") in _IDENTITIES]
    if any(set(_NAMES) & set(each.get("Properties") or ()) for each in identities):
        return ["CAPABILITY_NAMED_IAM"]
    return ["CAPABILITY_IAM"] if identities else []


def _unacknowledged(template: Mapping[str, Any], acknowledged: Collection[str]) -> str | None:
    needed = capabilities_of(template)
    if not needed or {*needed, "CAPABILITY_NAMED_IAM"} & set(acknowledged):
        return None
    return f"Requires capabilities : [{needed[0]}]"


def _template_size(world: World, given: Parameters) -> str | None:
    body = given.get("TemplateBody")
    if isinstance(body, str) and len(body.encode()) > _TEMPLATE_BYTES:
        return (
            f"1 validation error detected: Value '{body[:40]}...' at 'templateBody' failed to satisfy constraint: "
            f"Member must have length less than or equal to {_TEMPLATE_BYTES}"
        )
    count = len(template_of(world, given).get("Resources") or {})
    if count <= _MOST_RESOURCES:
        return None
    return f"Template format error: Number of resources, {count}, is greater than maximum allowed, {_MOST_RESOURCES}"


def _protected(world: World, given: Parameters) -> str | None:
    stack = _stack(world, given)
    if stack is None or not stack.enable_termination_protection:
        return None
    return f"Stack [{stack.name}] cannot be deleted while TerminationProtection is enabled"


# the table

_FUNCTIONS = ("lambda:CreateFunction", "lambda:UpdateFunctionConfiguration")
_STACKS = ("cloudformation:CreateStack", "cloudformation:UpdateStack", "cloudformation:CreateChangeSet")
_MACHINES = ("stepfunctions:CreateStateMachine", "stepfunctions:UpdateStateMachine")

RULES: tuple[Rule, ...] = (
    Rule(
        name="a bucket's name",
        operations=("s3:CreateBucket",),
        refuses="capitals, underscores, an address, two dots in a row, and the beginnings and ends that are reserved",
        source="S3 user guide, general purpose bucket naming rules; S3 API reference, InvalidBucketName",
        check=_bucket_name,
        code="InvalidBucketName",
    ),
    Rule(
        name="a function's limits",
        operations=_FUNCTIONS,
        refuses="a name of more than 64 characters, more than 900 s, 10,240 MB of memory or of storage",
        source="Lambda API reference, CreateFunction FunctionName, Timeout; Lambda developer guide, quotas",
        check=_function_limits,
    ),
    Rule(
        name="a function's runtime",
        operations=("lambda:CreateFunction",),
        refuses="a function that is no image, without a runtime or a handler",
        source="Lambda API reference, CreateFunction Runtime, Handler: required for a .zip file archive",
        check=_runtime,
        code="InvalidParameterValueException",
        own_words=True,
    ),
    Rule(
        name="a function's environment",
        operations=_FUNCTIONS,
        refuses="more than 4 KB of variables, and variables that are Lambda's own",
        source="Lambda developer guide, environment variables, quotas; "
        "github-aws-runners/terraform-aws-github-runner#3594: the words of the first",
        check=_function_environment,
        code="InvalidParameterValueException",
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
    Rule(
        name="a state machine's definition",
        operations=_MACHINES,
        refuses="a definition that is no JSON, a transition to a state that is not there, a state that none leads to",
        source="Step Functions API reference, InvalidDefinition; localstack/localstack#11978, floci-io/floci#2786: the "
        "words, measured in accounts",
        check=_definition,
        code="InvalidDefinition",
    ),
    Rule(
        name="a stack's capabilities",
        operations=("cloudformation:CreateStack", "cloudformation:UpdateStack"),
        refuses="a template with identities without CAPABILITY_IAM, and with their names without CAPABILITY_NAMED_IAM",
        source="CloudFormation API reference, CreateStack Capabilities; envato/stack_master#138: the words",
        check=_capabilities,
        code="InsufficientCapabilitiesException",
    ),
    Rule(
        name="a change set's capabilities",
        operations=("cloudformation:ExecuteChangeSet",),
        refuses="a change set with identities that was created without the capability for them",
        source="aws/serverless-application-model#51: at ExecuteChangeSet, with the words",
        check=_capabilities_of_change_set,
        code="InsufficientCapabilitiesException",
    ),
    Rule(
        name="a template's size",
        operations=_STACKS,
        refuses="a TemplateBody of more than 51,200 bytes, and more than 500 resources",
        source="CloudFormation API reference, CreateStack TemplateBody; CloudFormation user guide, quotas",
        check=_template_size,
        code="ValidationError",
    ),
    Rule(
        name="a stack's protection",
        operations=("cloudformation:DeleteStack",),
        refuses="the deletion of a stack whose termination protection is on",
        source="CloudFormation user guide, protect stacks from being deleted; ekristen/aws-nuke#821: the words",
        check=_protected,
        code="ValidationError",
    ),
)
