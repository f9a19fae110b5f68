"""The proof after a deployment: the image is one that SageMaker runs, and the endpoint answers a real request."""

from __future__ import annotations

import base64
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from aws_cdk import CustomResource, Duration, RemovalPolicy, Stack
from aws_cdk import aws_iam as iam
from aws_cdk import aws_lambda as lambda_
from aws_cdk import aws_logs as logs
from aws_cdk import custom_resources as custom
from constructs import Construct

from extended_dlc._private import place_of, within
from extended_dlc.hosting import MAIN_VARIANT

if TYPE_CHECKING:
    from extended_dlc.endpoint import InvokableEndpoint
    from extended_dlc.image import ServingImage

FUNCTIONS = Path(__file__).parent / "functions"

_TEXT = "Hello"
_JSON: Mapping[str, Any] = {
    "feature-extraction": {"inputs": _TEXT},
    "question-answering": {"inputs": {"question": "Who is it?", "context": "It is Ada."}},
    "text-classification": {"inputs": _TEXT},
    "text-generation": {"inputs": _TEXT, "parameters": {"max_new_tokens": 8}},
    "token-classification": {"inputs": _TEXT},
    "zero-shot-classification": {"inputs": _TEXT, "parameters": {"candidate_labels": ["greeting", "farewell"]}},
}
_SAMPLES: Mapping[str, tuple[str, str]] = {
    "audio-classification": ("audio", "audio/wav"),
    "automatic-speech-recognition": ("audio", "audio/wav"),
    "depth-estimation": ("image", "image/png"),
    "image-classification": ("image", "image/png"),
    "image-feature-extraction": ("image", "image/png"),
    "image-segmentation": ("image", "image/png"),
    "object-detection": ("image", "image/png"),
}


@dataclass(frozen=True, kw_only=True)
class Proof:
    """What the endpoint has to answer before its deployment counts as one.

    A failure fails the deployment, which CloudFormation then rolls back, and the reason has the container's last lines.
    """

    request: Any = None
    """The request: bytes as they are, anything else as JSON; each of `Components` gets it. Default: the smallest of the
    model's task, as a prompt, a second of silence or a small picture; ValueError for a task that has none, or that
    nobody knows at synth."""

    content_type: str | None = None
    """The request's content type. Default: `application/json`; with bytes it has to be said."""

    accept: str = "application/json"
    """What the answer shall be. Default: `application/json`."""

    expect: str | None = None
    """Text that the answer must have in it. Default: any answer will do."""

    timeout_minutes: int = 30
    """How long SageMaker and the endpoint may take together, 1 to 59 min (a custom resource waits an hour at most).
    Default: 30 min."""

    def __post_init__(self) -> None:
        """Refuse what cannot be sent."""
        within("timeout_minutes", self.timeout_minutes, 1, 59, "CloudFormation waits an hour at most")
        if isinstance(self.request, bytes) and self.content_type is None:
            raise ValueError("'content_type' (not given) must say what the bytes of 'request' are, as audio/wav")

    def properties_for(self, task: str | None) -> dict[str, Any]:
        """The properties of the request, for `functions/proof.py`."""
        if self.request is None and task is not None and task in _SAMPLES:
            sample, content_type = _SAMPLES[task]
            return self._properties(content_type, Sample=sample)
        if self.request is None and task not in _JSON:
            known = f"no request is known for '{task}'" if task else "the model's task is not known at synth"
            raise ValueError(f"'verify' needs a request, because {known}: say the task, or Proof's request")
        body = _JSON[task or ""] if self.request is None else self.request
        content = body if isinstance(body, bytes) else json.dumps(body).encode()
        return self._properties("application/json", Body=base64.b64encode(content).decode())

    def _properties(self, content_type: str, **what: str) -> dict[str, Any]:
        properties = {"ContentType": self.content_type or content_type, "Accept": self.accept, **what}
        return properties | ({"Expect": self.expect} if self.expect else {})


class Prover(Construct):
    """The functions behind the proofs of a stack, and their role; there is one a stack."""

    @classmethod
    def of(cls, scope: Construct) -> Prover:
        """The one of the stack that the scope is in."""
        stack = Stack.of(scope)
        found = stack.node.try_find_child("ExtendedDlcProver")
        return found if isinstance(found, Prover) else cls(stack, "ExtendedDlcProver")

    def __init__(self, scope: Construct, construct_id: str) -> None:
        """Use `of`."""
        super().__init__(scope, construct_id)
        log_group = logs.LogGroup(
            self, "Log", retention=logs.RetentionDays.ONE_MONTH, removal_policy=RemovalPolicy.DESTROY
        )
        self.role = iam.Role(self, "Role", assumed_by=iam.ServicePrincipal("lambda.amazonaws.com"))
        log_group.grant_write(self.role)
        self._allow(["cloudformation:DescribeStacks"], [Stack.of(self).stack_id])
        on_event, is_complete = (
            lambda_.Function(
                self,
                construct_id,
                description=description,
                runtime=lambda_.Runtime.PYTHON_3_13,
                code=lambda_.Code.from_asset(str(FUNCTIONS), exclude=["__pycache__"]),
                handler=f"proof.{handler}",
                timeout=Duration.minutes(5),  # a request may take one, with each of several variants
                role=self.role.without_policy_updates(),
                log_group=log_group,
            )
            for construct_id, handler, description in (
                ("OnEvent", "on_event", "Checks images, and sends asynchronous requests"),
                ("IsComplete", "is_complete", "Asks endpoints, until they answer"),
            )
        )
        self._provider = custom.Provider(
            self,
            "Provider",
            on_event_handler=on_event,
            is_complete_handler=is_complete,
            query_interval=Duration.seconds(15),
            total_timeout=Duration.minutes(60),
            disable_waiter_state_machine_logging=True,
        )

    def image(self, scope: Construct, *, image: ServingImage, uri: str, architecture: str) -> CustomResource:
        """The proof that SageMaker can run an image; what uses the image waits for it."""
        image.grant_pull(self.role)
        named = {"x86_64": "amd64"}.get(architecture, architecture)  # as images call it
        return self._prove(scope, "ImageProof", {"Check": "image", "Image": uri, "Architecture": named})

    def endpoint(
        self,
        scope: Construct,
        *,
        proof: Proof,
        endpoint: InvokableEndpoint,
        config_name: str,
        variants: Sequence[str],
        task: str | None,
        queue: str | None,
    ) -> CustomResource:
        """The proof that an endpoint answers, with its present configuration; to be ordered after the endpoint.

        :param queue: Location in S3 of the requests of an asynchronous endpoint.
        """
        self._allow_asking(endpoint, log=f"/aws/sagemaker/Endpoints/{endpoint.endpoint_name}")
        properties = {
            # another image, model, environment or instance type is another configuration, which is proved again
            **self._request(proof, endpoint=endpoint, config_name=config_name, task=task),
            "Variants": list(variants),
        }
        if queue is not None:
            properties["Input"] = f"{queue}/proof"
        return self._prove(scope, "Proof", properties)

    def component(
        self,
        scope: Construct,
        *,
        name: str,
        model_name: str,
        proof: Proof,
        endpoint: InvokableEndpoint,
        config_name: str,
        task: str | None,
    ) -> CustomResource:
        """The proof that a component answers, with its present model; to be ordered after the component."""
        self._allow_asking(endpoint, log=f"/aws/sagemaker/InferenceComponents/{name}")
        self._allow(["sagemaker:DescribeInferenceComponent"], place_of(self).component_arns(name))
        properties = {
            **self._request(proof, endpoint=endpoint, config_name=config_name, task=task),
            "Variants": [MAIN_VARIANT],
            "Component": name,
            # another image, model or environment is another Model, which is proved again
            "Model": model_name,
        }
        return self._prove(scope, "Proof", properties)

    @staticmethod
    def _request(proof: Proof, *, endpoint: InvokableEndpoint, config_name: str, task: str | None) -> dict[str, Any]:
        return {
            "Check": "endpoint",
            "EndpointName": endpoint.endpoint_name,
            "ConfigName": config_name,
            "TimeoutMinutes": proof.timeout_minutes,
            **proof.properties_for(task),
        }

    def _allow_asking(self, endpoint: InvokableEndpoint, *, log: str) -> None:
        """Requests to the endpoint, its state and the containers' log."""
        endpoint.grant_invoke(self.role)
        endpoint.grant(self.role, "sagemaker:DescribeEndpoint")
        arn = place_of(self).arn("logs", f"log-group:{log}")
        self._allow(["logs:DescribeLogStreams", "logs:GetLogEvents"], [arn, f"{arn}:*"])

    def _prove(self, scope: Construct, construct_id: str, properties: Mapping[str, Any]) -> CustomResource:
        resource = CustomResource(
            scope,
            construct_id,
            service_token=self._provider.service_token,
            resource_type="Custom::ExtendedDlcProof",
            properties=dict(properties),
        )
        resource.node.add_dependency(self.role)  # with its policy, which CloudFormation makes beside it
        return resource

    def _allow(self, actions: Sequence[str], resources: Sequence[str]) -> None:
        self.role.add_to_principal_policy(iam.PolicyStatement(actions=list(actions), resources=list(resources)))
