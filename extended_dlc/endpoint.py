"""The endpoint itself: role, Model, EndpointConfig and Endpoint."""

from __future__ import annotations

from collections.abc import Mapping

from aws_cdk import Annotations, ArnFormat, Names, Stack, Token
from aws_cdk import aws_iam as iam
from aws_cdk import aws_sagemaker as sagemaker
from constructs import Construct

from extended_dlc._private import require
from extended_dlc.facts.checks import check_endpoint_name, check_environment
from extended_dlc.facts.compat import inference_ami_version
from extended_dlc.facts.instances import find_instance
from extended_dlc.hosting import RealTime
from extended_dlc.image import ServingImage
from extended_dlc.model import HubModel

VARIANT = "AllTraffic"
"""Name of the one production variant: what SageMaker's own SDK calls it, so dashboards and scripts fit."""

INVOKE_ACTIONS = (
    "sagemaker:InvokeEndpoint",
    "sagemaker:InvokeEndpointAsync",
    "sagemaker:InvokeEndpointWithResponseStream",
)


class InvokableEndpoint(Construct):
    """An endpoint by its name: what a caller needs of it."""

    def __init__(self, scope: Construct, construct_id: str, *, endpoint_name: str | None = None) -> None:
        """Refer to the endpoint of this name in the stack's account and region.

        :param endpoint_name: ValueError when it cannot be a name, or is a CDK token. Default: made from the construct's
            path, at most 63 characters, the same at each synth.
        """
        super().__init__(scope, construct_id)
        if endpoint_name is None:
            endpoint_name = Names.unique_resource_name(
                self, max_length=63, separator="-", allowed_special_characters="-"
            ).lower()
        if Token.is_unresolved(endpoint_name):
            raise ValueError(
                "'endpoint_name' (a CDK token) must be known at synth, because policies and alarms are made of it: "
                "pass a plain string"
            )
        require("endpoint_name", endpoint_name, check_endpoint_name)
        self.endpoint_name: str = endpoint_name

    @property
    def endpoint_arn(self) -> str:
        """The endpoint's ARN, made from its name, so that nothing that uses it has to wait for the endpoint."""
        # SageMaker writes the name in lower case in the ARN
        return self._arn(self.endpoint_name.lower())

    def grant_invoke(self, grantee: iam.IGrantable) -> iam.Grant:
        """Let `grantee` send requests: answered at once, streamed, and asynchronous."""
        # a policy is compared with the name as it was given and as it stands in the ARN, depending on the caller
        arns = sorted({self.endpoint_arn, self._arn(self.endpoint_name)})
        return iam.Grant.add_to_principal(grantee=grantee, actions=list(INVOKE_ACTIONS), resource_arns=arns, scope=self)

    def _arn(self, name: str) -> str:
        return Stack.of(self).format_arn(service="sagemaker", resource="endpoint", resource_name=name)


class HuggingFaceEndpoint(InvokableEndpoint):
    """A SageMaker endpoint that serves a Hub model from an image of ours.

    The Model and the EndpointConfig have no names of their own: any change replaces them, and the Endpoint goes over to
    the new ones in place, under the same name.
    """

    def __init__(
        self,
        scope: Construct,
        construct_id: str,
        *,
        model: HubModel,
        image: ServingImage,
        hosting: RealTime | None = None,
        environment: Mapping[str, str] | None = None,
        endpoint_name: str | None = None,
        role: iam.IRole | None = None,
    ) -> None:
        """Define the endpoint.

        :param model: Which weights it serves.
        :param image: The image whose server answers, as `ExtendedDlc`.
        :param hosting: What it runs on. Default: `RealTime()`, one `ml.m5.xlarge`.
        :param environment: More environment variables for the container. ValueError for what SageMaker refuses, for a
            variable that `model` sets and for a literal Hub token. Default: none.
        :param endpoint_name: The endpoint's name, unique in account and region, as for `InvokableEndpoint`.
        :param role: What the container may do. The Model waits for it; it is granted the image, its logs and its
            metrics where it can be changed. Default: a new role with just that.
        """
        super().__init__(scope, construct_id, endpoint_name=endpoint_name)
        hosting = hosting or RealTime()
        variables = dict(environment or {})
        try:
            check_environment(variables, reserved=HubModel.variables)
        except ValueError as error:  # the values stay out of the message: one may be a secret
            raise ValueError(f"'environment': {error}") from None
        if model.revision is None:
            Annotations.of(self).add_warning_v2(
                "extended-dlc:unpinned-revision",
                f"model '{model.id}' has no revision: a container that starts later may serve other weights; pass the "
                "commit of the model's page as revision=",
            )
        published = image.publish_for(self, instance=find_instance(hosting.instance_type), model=model)
        self.role = role or self._new_role()
        image.grant_pull(self.role)
        self._grant_observability(self.role)

        self.model = sagemaker.CfnModel(
            self,
            "Model",
            execution_role_arn=self.role.role_arn,
            primary_container=sagemaker.CfnModel.ContainerDefinitionProperty(
                image=published.uri, environment={**model.environment(), **variables}
            ),
        )
        # SageMaker looks at the image and at the role's rights when the Model is created
        self.model.node.add_dependency(self.role)
        if published.ready is not None:
            self.model.node.add_dependency(published.ready)
        self.config = sagemaker.CfnEndpointConfig(
            self,
            "Config",
            production_variants=[
                sagemaker.CfnEndpointConfig.ProductionVariantProperty(
                    variant_name=VARIANT,
                    model_name=self.model.attr_model_name,
                    instance_type=hosting.instance_type,
                    initial_instance_count=hosting.instances,
                    initial_variant_weight=1,
                    container_startup_health_check_timeout_in_seconds=hosting.startup_timeout_seconds,
                    # the driver that the image's CUDA wants: with an older one the container dies without a log
                    inference_ami_version=inference_ami_version(published.cuda),
                )
            ],
        )
        self.endpoint = sagemaker.CfnEndpoint(
            self,
            "Endpoint",
            endpoint_name=self.endpoint_name,
            endpoint_config_name=self.config.attr_endpoint_config_name,
        )

    @staticmethod
    def from_endpoint_name(scope: Construct, construct_id: str, endpoint_name: str) -> InvokableEndpoint:
        """An endpoint that is there already, for whoever calls it: its ARN and `grant_invoke`."""
        return InvokableEndpoint(scope, construct_id, endpoint_name=endpoint_name)

    def _new_role(self) -> iam.Role:
        return iam.Role(
            self,
            "Role",
            assumed_by=iam.ServicePrincipal("sagemaker.amazonaws.com"),
            description=f"What the containers of {self.endpoint_name} may do",
        )

    def _grant_observability(self, role: iam.IRole) -> None:
        """Logs and metrics, of this endpoint alone (SageMaker developer guide, roles, CreateModel API)."""
        group = f"/aws/sagemaker/Endpoints/{self.endpoint_name}"
        log_group = Stack.of(self).format_arn(
            service="logs", resource="log-group", resource_name=group, arn_format=ArnFormat.COLON_RESOURCE_NAME
        )
        role.add_to_principal_policy(
            iam.PolicyStatement(
                actions=["logs:CreateLogGroup", "logs:CreateLogStream", "logs:DescribeLogStreams", "logs:PutLogEvents"],
                resources=[log_group, f"{log_group}:*"],
            )
        )
        role.add_to_principal_policy(
            iam.PolicyStatement(
                actions=["cloudwatch:PutMetricData"],
                resources=["*"],  # CloudWatch has no resources for it; the condition narrows it
                conditions={"StringEquals": {"cloudwatch:namespace": ["/aws/sagemaker/Endpoints", "AWS/SageMaker"]}},
            )
        )
