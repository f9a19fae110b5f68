"""The Lambda functions of a stack: the library makes its own here, and gives them and the CDK's the same options."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, cast

from aws_cdk import Duration, Stack
from aws_cdk import aws_iam as iam
from constructs import Construct, IConstruct

from extended_dlc.constructs.dependencies import depend_on_policies_alone
from extended_dlc.options.functions import Functions
from extended_dlc.programs import FUNCTIONS

if TYPE_CHECKING:
    from aws_cdk import aws_lambda as lambda_
    from aws_cdk import aws_logs as logs
    from aws_cdk import custom_resources as custom

    from extended_dlc.options.network import Network

_ATTRIBUTE = "_extended_dlc_functions"
_CALLER = "AWS679f53fac002430cb0da5b7982bd2287"
"""Id in the stack of the CDK's function for calls to AWS (`AwsCustomResource.PROVIDER_FUNCTION_UUID`)."""

_GROUP = "ExtendedDlcFunctionsGroup"

INTERFACES = (
    *("ec2:AssignPrivateIpAddresses", "ec2:CreateNetworkInterface", "ec2:DeleteNetworkInterface"),
    *("ec2:DescribeNetworkInterfaces", "ec2:DescribeSubnets", "ec2:UnassignPrivateIpAddresses"),
)
"""What Lambda does with the role of a function in a VPC (Lambda developer guide, "Giving Lambda functions access to
resources in an Amazon VPC"), as in AWS's own policy for it: Lambda chooses the interfaces."""

TRACES = ("xray:PutTelemetryRecords", "xray:PutTraceSegments")
"""What tracing does with a role (X-Ray developer guide); the actions support no resource."""


def let_functions(scope: Construct, functions: Functions) -> None:
    """Give these options to the functions of all stacks at and below `scope` that are defined from now on."""
    setattr(scope, _ATTRIBUTE, functions)


def functions_of(scope: IConstruct) -> Functions:
    """The options of the functions of a scope's stack: those of the nearest scope that has some."""
    for each in reversed(Stack.of(scope).node.scopes):
        found = getattr(each, _ATTRIBUTE, None)
        if isinstance(found, Functions):
            return found
    return Functions()


def new_function(
    scope: Construct,
    construct_id: str,
    *,
    description: str,
    handler: str,
    role: iam.Role,
    timeout: Duration,
    code: lambda_.Code | None = None,
    memory_mib: int | None = None,
    log_group: logs.ILogGroup | None = None,
    environment: Mapping[str, str] | None = None,
) -> lambda_.Function:
    """A function of the library.

    :param handler: Module and function, such as `proof.handle`.
    :param role: It keeps just the permissions that the caller gives it, and what the stack's options need.
    :param code: Default: the programs of `programs/functions`.
    """
    from aws_cdk import aws_lambda as lambda_

    function = lambda_.Function(
        scope,
        construct_id,
        description=description,
        # Given by its name, because the oldest supported CDK has no constant for it.
        runtime=lambda_.Runtime("python3.14", lambda_.RuntimeFamily.PYTHON, supports_inline_code=True),
        code=code or lambda_.Code.from_asset(str(FUNCTIONS), exclude=["__pycache__"]),
        handler=handler,
        timeout=timeout,
        memory_size=memory_mib,
        environment=environment,
        role=role.without_policy_updates(),
        log_group=log_group,
    )
    settle_function(function, role)
    return function


def call_aws(
    scope: Construct,
    construct_id: str,
    *,
    resource_type: str,
    call: custom.AwsSdkCall,
    allowed: iam.PolicyStatement,
) -> custom.AwsCustomResource:
    """A call to AWS in each deployment that creates or changes it, by the CDK's function."""
    from aws_cdk import custom_resources as custom

    resource = custom.AwsCustomResource(
        scope,
        construct_id,
        resource_type=resource_type,
        on_create=call,
        on_update=call,
        policy=custom.AwsCustomResourcePolicy.from_statements([allowed]),
        install_latest_aws_sdk=False,
    )
    function = Stack.of(scope).node.find_child(_CALLER)
    settle_function(function, cast(iam.Role, function.node.find_child("ServiceRole")))
    return resource


def settle_function(function: IConstruct, role: iam.IRole) -> None:
    """Give a function of the stack its options, and its role the permissions for these; again changes nothing."""
    from aws_cdk import aws_lambda as lambda_

    given = function if isinstance(function, lambda_.CfnFunction) else function.node.default_child
    resource = cast(lambda_.CfnFunction, given)
    depend_on_policies_alone(resource)
    options, kind = functions_of(function), lambda_.CfnFunction
    if options.reserved_concurrency is not None:
        resource.reserved_concurrent_executions = options.reserved_concurrency
    if options.tracing:
        resource.tracing_config = kind.TracingConfigProperty(mode="Active")
        _allow(role, TRACES)
    if options.network is not None:
        resource.vpc_config = _place(resource, options.network)
        _allow(role, INTERFACES)


def _allow(role: iam.IRole, actions: tuple[str, ...]) -> None:
    # The CDK leaves out a second statement of the same content.
    role.add_to_principal_policy(iam.PolicyStatement(actions=list(actions), resources=["*"]))


def _place(resource: lambda_.CfnFunction, network: Network) -> lambda_.CfnFunction.VpcConfigProperty:
    """The subnets and groups of a function, which waits for their way to the internet, if there is one."""
    from aws_cdk import aws_ec2 as ec2
    from aws_cdk import aws_lambda as lambda_

    stack = Stack.of(resource)
    subnets = network.subnets or network.vpc.select_subnets().subnets
    resource.node.add_dependency(*(each.internet_connectivity_established for each in subnets))
    groups = network.security_groups or [
        cast(ec2.SecurityGroup, stack.node.try_find_child(_GROUP))
        or ec2.SecurityGroup(stack, _GROUP, vpc=network.vpc, description="The functions of the stack")
    ]
    return lambda_.CfnFunction.VpcConfigProperty(
        subnet_ids=[each.subnet_id for each in subnets], security_group_ids=[each.security_group_id for each in groups]
    )
