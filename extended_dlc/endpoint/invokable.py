"""An endpoint as its callers see it: a CDK resource with a name, grants, metrics and connections."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, cast

import jsii
from aws_cdk import Annotations, Arn, ArnFormat, Names, Resource, Stack
from aws_cdk import aws_iam as iam
from aws_cdk import aws_sagemaker as sagemaker
from constructs import Construct

from extended_dlc.constructs.helpers import Connectable, DeploymentTarget, target_of
from extended_dlc.endpoint.bearer import base_url
from extended_dlc.endpoint.metrics import EndpointMetrics
from extended_dlc.facts.checks import check_endpoint_name
from extended_dlc.facts.names import ENDPOINT_LOGS
from extended_dlc.options._kinds import check_types
from extended_dlc.options._values import OptionError, is_token, require

if TYPE_CHECKING:
    from aws_cdk import aws_ec2 as ec2
    from aws_cdk.interfaces.aws_sagemaker import EndpointReference

INVOKE_ACTIONS = (
    "sagemaker:InvokeEndpoint",
    "sagemaker:InvokeEndpointAsync",
    "sagemaker:InvokeEndpointWithResponseStream",
)

TOKEN_ACTION = "sagemaker:CallWithBearerToken"  # noqa: S105 - an action


@jsii.implements(sagemaker.IEndpoint, iam.IGrantable, Connectable)
class InvokableEndpoint(Resource, EndpointMetrics):
    """A reference to an endpoint by its name, with what callers need. It is an `aws_sagemaker.IEndpoint`."""

    @check_types
    def __init__(self, scope: Construct, construct_id: str, *, endpoint_name: str | None = None) -> None:
        """Refer to the endpoint of this name in the stack's account and region.

        :param endpoint_name: ValueError when it cannot be a name. A CDK token is taken as it is, which an annotation
            notes. Default: made from the construct's path, at most 63 characters, the same at each synth.
        """
        super().__init__(scope, construct_id)
        if endpoint_name is None:
            endpoint_name = Names.unique_resource_name(
                self, max_length=63, separator="-", allowed_special_characters="-"
            ).lower()
        if not isinstance(endpoint_name, str):
            raise OptionError(
                "endpoint_name", repr(endpoint_name), "must be a text, or a CDK token of one: pass Token.as_string(…)"
            )
        require("endpoint_name", endpoint_name, check_endpoint_name)
        self._refer(endpoint_name, target_of(self))
        if is_token(endpoint_name):
            Annotations.of(self).add_info_v2(
                "extended-dlc:endpoint-name",
                "'endpoint_name' is a CDK token and is not checked: it has to be at most 63 letters, digits and "
                "hyphens, in small letters, because SageMaker writes it so in the ARN that policies are compared with",
            )

    def _refer(
        self,
        name: str,
        target: DeploymentTarget,
        *,
        role: iam.IRole | None = None,
        security_groups: Sequence[ec2.ISecurityGroup] = (),
    ) -> None:
        """Set the attributes that callers use."""
        self._endpoint_name, self._at = name, target
        self._principal = role
        self._security_groups = tuple(security_groups)

    # existing endpoints

    @staticmethod
    @check_types
    def from_endpoint_name(scope: Construct, construct_id: str, endpoint_name: str) -> InvokableEndpoint:
        """Import an existing endpoint of the stack's account and region by its name."""
        return InvokableEndpoint(scope, construct_id, endpoint_name=endpoint_name)

    @staticmethod
    @check_types
    def from_endpoint_arn(scope: Construct, construct_id: str, endpoint_arn: str) -> InvokableEndpoint:
        """Import an existing endpoint, in the account and region of its ARN."""
        return _ImportedEndpoint(scope, construct_id, endpoint_arn=endpoint_arn)

    @staticmethod
    @check_types
    def from_endpoint_attributes(
        scope: Construct,
        construct_id: str,
        *,
        endpoint_arn: str,
        role: iam.IRole | None = None,
        security_groups: Sequence[ec2.ISecurityGroup] = (),
    ) -> InvokableEndpoint:
        """Import an existing endpoint with its role and security groups.

        :param endpoint_arn: Its ARN. ValueError for one of something else.
        :param role: The role of its containers, which `grant_principal` then is. Default: not known.
        :param security_groups: Those of its containers, for `connections`. Default: none.
        """
        return _ImportedEndpoint(
            scope, construct_id, endpoint_arn=endpoint_arn, role=role, security_groups=security_groups
        )

    # name and ARN

    @property
    def endpoint_name(self) -> str:
        """The endpoint's name, known at synth where it was given as a text or made from the construct's path."""
        return self._endpoint_name

    @property
    def endpoint_arn(self) -> str:
        """The endpoint's ARN, made from its name, so that its users do not depend on the endpoint resource."""
        # SageMaker writes the name in lower case in the ARN.
        return self._arn(self.endpoint_name if is_token(self.endpoint_name) else self.endpoint_name.lower())

    @property
    def endpoint_ref(self) -> EndpointReference:
        """The reference for CDK constructs that take an `IEndpointRef`."""
        from aws_cdk.interfaces.aws_sagemaker import EndpointReference

        return EndpointReference(endpoint_arn=self.endpoint_arn)

    @property
    def openai_base_url(self) -> str | None:
        """The base URL for OpenAI clients that send chat completions with a bearer token.

        SageMaker serves no other of OpenAI's routes below it (SageMaker developer guide, "Invoke endpoints with
        OpenAI-compatible APIs").
        """
        return self._openai_base_url()

    # grants and connections

    @property
    def grant_principal(self) -> iam.IPrincipal:
        """The role of the containers; for an imported endpoint without one, a principal that takes no grants."""
        if self._principal is not None:
            return self._principal.grant_principal
        return cast(iam.IPrincipal, iam.UnknownPrincipal(resource=self))

    @property
    def connections(self) -> ec2.Connections:
        """The security groups of the containers. ValueError without a `Network`: then there are no groups."""
        from aws_cdk import aws_ec2 as ec2

        if not self._security_groups:
            raise OptionError(
                "connections",
                rule="needs an endpoint in a VPC, and this one has no security group: pass network= to it, or "
                "security_groups= to from_endpoint_attributes",
            )
        return ec2.Connections(security_groups=list(self._security_groups))

    @check_types
    def grant_invoke(self, grantee: iam.IGrantable) -> iam.Grant:
        """Let `grantee` send real-time, streaming and asynchronous requests."""
        return self.grant(grantee, *INVOKE_ACTIONS)

    @check_types
    def grant_invoke_with_token(self, grantee: iam.IGrantable) -> iam.Grant:
        """Let `grantee` send requests and make bearer tokens for them, as OpenAI clients need.

        A token carries all permissions of its signer, so grant this to a role that has no others. IAM supports only the
        resource `*` for `sagemaker:CallWithBearerToken`; the grant of `grant_invoke` limits what a token can invoke.
        """
        signs = iam.Grant.add_to_principal(grantee=grantee, actions=[TOKEN_ACTION], resource_arns=["*"])
        return self.grant_invoke(grantee).combine(signs)

    @check_types
    def grant_describe(self, grantee: iam.IGrantable) -> iam.Grant:
        """Let `grantee` read the endpoint's state."""
        return self.grant(grantee, "sagemaker:DescribeEndpoint")

    @check_types
    def grant_update_weights_and_capacities(self, grantee: iam.IGrantable) -> iam.Grant:
        """Let `grantee` change the variants' weights and their numbers of instances."""
        return self.grant(grantee, "sagemaker:DescribeEndpoint", "sagemaker:UpdateEndpointWeightsAndCapacities")

    @check_types
    def grant_read_logs(self, grantee: iam.IGrantable) -> iam.Grant:
        """Let `grantee` read what the containers log."""
        group = self._at.arn("logs", f"log-group:{ENDPOINT_LOGS}/{self.endpoint_name}")
        actions = ["DescribeLogStreams", "FilterLogEvents", "GetLogEvents", "StartLiveTail", "StartQuery"]
        return iam.Grant.add_to_principal(
            grantee=grantee, actions=[f"logs:{each}" for each in actions], resource_arns=[group, f"{group}:*"]
        )

    @check_types
    def grant(self, grantee: iam.IGrantable, *actions: str) -> iam.Grant:
        """Allow `grantee` these actions on the endpoint, such as `sagemaker:DescribeEndpoint`."""
        # Depending on the caller, IAM compares a policy with the name as given or as it stands in the ARN.
        arns = sorted({self.endpoint_arn, self._arn(self.endpoint_name)})
        return iam.Grant.add_to_principal(grantee=grantee, actions=list(actions), resource_arns=arns)

    def _arn(self, name: str) -> str:
        return self._at.arn("sagemaker", f"endpoint/{name}")

    def _openai_base_url(self, component: str | None = None) -> str:
        host = f"https://runtime.sagemaker.{self._at.region}.{self._at.stack.url_suffix}"
        return base_url(self.endpoint_name, host=host, component=component)


class _ImportedEndpoint(InvokableEndpoint):
    """An endpoint by its ARN, which may be in another account or region than the stack."""

    def __init__(
        self,
        scope: Construct,
        construct_id: str,
        *,
        endpoint_arn: str,
        role: iam.IRole | None = None,
        security_groups: Sequence[ec2.ISecurityGroup] = (),
    ) -> None:
        require("endpoint_arn", endpoint_arn, _check_arn)
        Resource.__init__(self, scope, construct_id, environment_from_arn=endpoint_arn)
        found = Arn.split(endpoint_arn, ArnFormat.SLASH_RESOURCE_NAME)
        target = DeploymentTarget(
            Stack.of(self), str(found.partition), str(found.region or self.env.region), str(found.account or "")
        )
        self._refer(str(found.resource_name), target, role=role, security_groups=security_groups)

    @property
    def _metrics_at(self) -> Mapping[str, str]:
        known = {"account": self._at.account, "region": self._at.region}
        return {name: value for name, value in known.items() if value and not is_token(value)}


def _check_arn(arn: object) -> None:
    parts = arn.split(":", 5) if isinstance(arn, str) else []
    whole = len(parts) == 6 and parts[2] == "sagemaker" and parts[3] and re.fullmatch(r"\d{12}", parts[4])
    if not whole or not parts[5].startswith("endpoint/"):
        raise ValueError(
            "is no endpoint's ARN: write arn:aws:sagemaker:REGION:ACCOUNT:endpoint/NAME, or use from_endpoint_name"
        )
    check_endpoint_name(parts[5].partition("/")[2])
