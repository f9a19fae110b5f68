"""The proof after a deployment: SageMaker can run the image and serves the configuration, and the model answers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import TYPE_CHECKING, Any

from aws_cdk import BootstraplessSynthesizer, CustomResource, Duration, RemovalPolicy, Stack
from aws_cdk import aws_iam as iam
from aws_cdk import aws_lambda as lambda_
from aws_cdk import aws_logs as logs
from constructs import Construct

from extended_dlc.constructs.functions import new_function
from extended_dlc.constructs.helpers import stack_of, target_of
from extended_dlc.facts.names import COMPONENT_LOGS, ENDPOINT_LOGS
from extended_dlc.options.hosting import MAIN_VARIANT
from extended_dlc.options.proof import Proof
from extended_dlc.programs import FUNCTIONS

if TYPE_CHECKING:
    from extended_dlc.endpoint.endpoint import InvokableEndpoint
    from extended_dlc.images.published import Pulled
    from extended_dlc.options.hosting import Component


class Prover(Construct):
    """The Lambda function that does the proofs of a stack, and its role; there is one per stack."""

    @classmethod
    def of(cls, scope: Construct) -> Prover:
        """The prover of the scope's stack, which is made at the first call."""
        return _prover_in(stack_of(scope))

    def __init__(self, scope: Construct, construct_id: str) -> None:
        """Internal: use `Prover.of(scope)`."""
        super().__init__(scope, construct_id)
        log_group = logs.LogGroup(
            self, "Log", retention=logs.RetentionDays.ONE_MONTH, removal_policy=RemovalPolicy.DESTROY
        )
        self.role = iam.Role(self, "Role", assumed_by=iam.ServicePrincipal("lambda.amazonaws.com"))
        log_group.grant_write(self.role)
        self._allow(["cloudformation:DescribeStacks"], [Stack.of(self).stack_id])
        code = None
        if isinstance(Stack.of(self).synthesizer, BootstraplessSynthesizer):  # it supports no assets
            code = lambda_.Code.from_inline((FUNCTIONS / "proof.py").read_text("utf-8"))
        self._function = new_function(
            self,
            "Function",
            description="Checks images and configurations, and asks endpoints until they answer",
            handler="index.handle" if code else "proof.handle",
            role=self.role,
            timeout=Duration.minutes(15),  # Lambda's maximum; a proof goes on in another invocation
            code=code,
            log_group=log_group,
        )
        self._arn = self._function.function_arn
        self._going_on: iam.Policy | None = None

    def image(self, scope: Construct, *, pulled_from: Pulled, uri: str, architecture: str) -> CustomResource:
        """The proof that SageMaker can run an image; resources that use the image depend on it."""
        pulled_from.grant_pull(self.role)
        named = {"x86_64": "amd64"}.get(architecture, architecture)  # the name in image manifests
        return self._prove(scope, "ImageCheck", {"Check": "image", "Image": uri, "Architecture": named})

    def endpoint(
        self,
        scope: Construct,
        *,
        proof: Proof | None,
        endpoint: InvokableEndpoint,
        config_name: str,
        variants: Sequence[str],
        task: str | None,
        queue: str | None,
    ) -> CustomResource:
        """The proof that an endpoint serves its current configuration, and answers; it must depend on the endpoint.

        :param proof: The request that it has to answer; None to send none.
        :param queue: S3 location of the requests of an asynchronous endpoint.
        """
        self._allow_looking(endpoint, log=f"{ENDPOINT_LOGS}/{endpoint.endpoint_name}", asks=proof is not None)
        # A changed image, model, environment or instance type changes the config's name, and so runs the proof again.
        properties = self._asked(proof, endpoint=endpoint, config_name=config_name, task=task)
        if proof is not None:
            properties["Variants"] = list(variants)
            if queue is not None:
                properties["Input"] = f"{queue}/proof"
        return self._prove(scope, "Check", properties)

    def component(
        self,
        scope: Construct,
        *,
        component: Component,
        model_name: str,
        proof: Proof | None,
        endpoint: InvokableEndpoint,
        config_name: str,
        task: str | None,
    ) -> CustomResource:
        """The proof that a component serves its current model, and answers; it must depend on the component."""
        name = component.name
        self._allow_looking(endpoint, log=f"{COMPONENT_LOGS}/{name}", asks=proof is not None)
        self._allow(
            ["sagemaker:DescribeInferenceComponent"], target_of(self).sagemaker_arns("inference-component", name)
        )
        requirements = {
            "MinMemoryRequiredInMb": component.memory_mb,
            "NumberOfCpuCoresRequired": component.cpu_cores,
            "NumberOfAcceleratorDevicesRequired": component.accelerators,
        }
        properties = {
            **self._asked(proof, endpoint=endpoint, config_name=config_name, task=task),
            "Component": name,
            # A changed image, model or environment makes another Model, and so runs the proof again.
            "Model": model_name,
            "Requirements": {key: value for key, value in requirements.items() if value is not None},
        }
        if proof is not None:
            properties["Variants"] = [MAIN_VARIANT]
        return self._prove(scope, "Check", properties)

    @staticmethod
    def _asked(
        proof: Proof | None, *, endpoint: InvokableEndpoint, config_name: str, task: str | None
    ) -> dict[str, Any]:
        properties = {"Check": "endpoint", "EndpointName": endpoint.endpoint_name, "ConfigName": config_name}
        if proof is None:
            return properties
        return {**properties, "TimeoutMinutes": proof.timeout_minutes, **proof.properties_for(task)}

    def _allow_looking(self, endpoint: InvokableEndpoint, *, log: str, asks: bool) -> None:
        """Let the function read the endpoint's state and the containers' log, and send requests where it `asks`."""
        if asks:
            endpoint.grant_invoke(self.role)
            self._let_it_go_on()
        endpoint.grant(self.role, "sagemaker:DescribeEndpoint")
        arn = target_of(self).arn("logs", f"log-group:{log}")
        self._allow(["logs:DescribeLogStreams", "logs:GetLogEvents"], [arn, f"{arn}:*"])

    def _prove(self, scope: Construct, construct_id: str, properties: Mapping[str, Any]) -> CustomResource:
        resource = CustomResource(
            scope,
            construct_id,
            service_token=self._arn,
            resource_type="Custom::ExtendedDlcProof",
            properties=dict(properties),
        )
        # This includes the role's policies, which are separate resources.
        resource.node.add_dependency(self.role, *([self._going_on] if self._going_on else []))
        return resource

    def _let_it_go_on(self) -> None:
        """Let the function invoke itself: an answer may take longer than its 15 minutes."""
        if self._going_on is None:
            # A separate policy: the function depends on the role's default policy, which therefore cannot name it.
            self._going_on = iam.Policy(self, "GoOn", roles=[self.role])
            self._going_on.add_statements(iam.PolicyStatement(actions=["lambda:InvokeFunction"], resources=[self._arn]))

    def _allow(self, actions: Sequence[str], resources: Sequence[str]) -> None:
        self.role.add_to_principal_policy(iam.PolicyStatement(actions=list(actions), resources=list(resources)))


@lru_cache(maxsize=8)  # each endpoint of a stack asks twice, and each question to the CDK goes to another process
def _prover_in(stack: Stack) -> Prover:
    found = stack.node.try_find_child("ExtendedDlcProver")
    return found if isinstance(found, Prover) else Prover(stack, "ExtendedDlcProver")
