"""Rules of Lambda and CodeBuild: functions and projects."""

from __future__ import annotations

import json

from moto.utilities.utils import get_partition

from extended_dlc.rehearsal.embedded.calls import Parameters
from extended_dlc.rehearsal.embedded.rule import Rule, World

_VARIABLE = 4096


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


def fault_of_build(given: Parameters) -> str | None:
    """What CodeBuild refuses in the variables of StartBuild."""
    values = (str(each.get("value", "")) for each in given.get("environmentVariablesOverride", ()))
    if any(len(each) > _VARIABLE for each in values):
        return f"EnvironmentVariable should be at most {_VARIABLE} characters"
    return None


def _build_variables(world: World, given: Parameters) -> str | None:
    return fault_of_build(given)


_FUNCTIONS = ("lambda:CreateFunction", "lambda:UpdateFunctionConfiguration")

RULES: tuple[Rule, ...] = (
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
        name="a build's variables",
        operations=("codebuild:StartBuild",),
        refuses="a variable with a value of more than 4,096 characters",
        source="wolfeidau/buildkite-serverless-agent#35: the words",
        check=_build_variables,
        code="InvalidInputException",
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
)
