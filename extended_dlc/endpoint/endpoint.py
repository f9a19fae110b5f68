"""The endpoint itself: role, Model, EndpointConfig and Endpoint."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from aws_cdk import aws_iam as iam
from constructs import Construct

from extended_dlc.constructs.helpers import require_other_name
from extended_dlc.constructs.network import Placement, place_in
from extended_dlc.constructs.platform_rules import check_models, settle
from extended_dlc.constructs.principals import container_role
from extended_dlc.endpoint.capture import data_capture_config
from extended_dlc.endpoint.config import queue
from extended_dlc.endpoint.deploy import (
    deploy,
    endpoint_config,
    place_components,
    prove,
    scale_parts,
    switched_by,
    watch_over,
)
from extended_dlc.endpoint.given import EndpointOptions, settle_hosting
from extended_dlc.endpoint.invokable import InvokableEndpoint
from extended_dlc.endpoint.parts import PartMaker, settle_role_of_prover
from extended_dlc.endpoint.rights import grant_components, grant_shell, volume_key
from extended_dlc.images.decided import annotate, notes_of_image
from extended_dlc.images.published import ServingImage
from extended_dlc.models.model import HubModel, ServedModel
from extended_dlc.options._kinds import check_types
from extended_dlc.options._values import OptionError
from extended_dlc.options.hosting import MAIN_VARIANT, Async, Components, Hosting, RealTime

if TYPE_CHECKING:
    from aws_cdk import aws_kms as kms
    from aws_cdk import aws_s3 as s3
    from aws_cdk import aws_sagemaker as sagemaker
    from aws_cdk import aws_sns as sns

    from extended_dlc.decisions.of_endpoint import EndpointDecision
    from extended_dlc.endpoint.monitoring import Watch
    from extended_dlc.endpoint.schedule import Switch
    from extended_dlc.options.capture import DataCapture
    from extended_dlc.options.monitoring import Metrics, Monitoring
    from extended_dlc.options.network import Network
    from extended_dlc.options.proof import Proof
    from extended_dlc.options.rollout import Rollout
    from extended_dlc.options.schedule import ByHand, OfficeHours
    from extended_dlc.options.vllm import VllmServing

__all__ = ["HuggingFaceEndpoint", "InvokableEndpoint"]


class HuggingFaceEndpoint(InvokableEndpoint):
    """A SageMaker endpoint that serves a model of the Hub's or of your own.

    The Model and the EndpointConfig have no names of their own: any change replaces them, and the Endpoint goes over to
    the new ones in place, under the same name.
    """

    @check_types
    def __init__(
        self,
        scope: Construct,
        construct_id: str,
        *,
        model: ServedModel | str,
        image: ServingImage,
        hosting: Hosting | None = None,
        rollout: Rollout | None = None,
        environment: Mapping[str, str] | None = None,
        vllm: VllmServing | None = None,
        endpoint_name: str | None = None,
        role: iam.IRole | None = None,
        role_path: str | None = None,
        permissions_boundary: iam.IManagedPolicy | None = None,
        network: Network | None = None,
        network_isolation: bool = False,
        encryption_key: kms.IKey | None = None,
        data_capture: DataCapture | None = None,
        metrics: Metrics | None = None,
        monitoring: Monitoring | None = None,
        schedule: OfficeHours | ByHand | Switch | None = None,
        verify: Proof | bool = True,
    ) -> None:
        """Define the endpoint.

        :param model: Which weights it serves: `HubModel`, `S3Model`, `MirroredModel` or `TrainedModel`; a text is a
            `HubModel`'s id.
        :param image: The image whose server answers, as `ExtendedDlc`.
        :param hosting: What it runs on: `RealTime`, `Async`, `Serverless` or `Components`. Default: `RealTime()`, one
            `ml.m5.xlarge`.
        :param rollout: How an update goes over to new instances: `AllAtOnce`, `Canary`, `Linear` or `Rolling`.
            ValueError for one that SageMaker does not know for the hosting. Default: all at once, without a bake.
        :param environment: More environment variables for the container. ValueError for what SageMaker refuses, for a
            variable that `model` sets and for a literal Hub token. Default: none.
        :param vllm: How vLLM serves it. ValueError for an image that is known to have another server; an `EcrImage` or
            `StockDlc` with it is taken for one of vLLM. Default: `VllmServing()` with an image of the vLLM family.
        :param endpoint_name: The endpoint's name, unique in account and region, as for `InvokableEndpoint`. Default:
            made from the construct's path, at most 63 characters, the same at each synth.
        :param role: What the container may do. The Model waits for it; it is granted what the endpoint uses where it
            can be changed. Default: a new role with just that.
        :param role_path: Path of the new role, as `/speech/`, and of the role of the stack's proofs. ValueError with
            `role`. Default: `/`.
        :param permissions_boundary: What the new role can never exceed, and the one of the proof's function. ValueError
            with `role`. Default: none.
        :param network: The VPC that the containers are in. ValueError with `Serverless`. Default: SageMaker's own, with
            access to the internet.
        :param network_isolation: Whether containers can open no connection at all. ValueError for weights that come
            from the Hub, and with `Serverless`. Default: they can, unless the model needs none.
        :param encryption_key: Key for the volumes of instance types that have some, for captured data, asynchronous
            answers and their new topics; for `monitoring`'s logs and new topic too, where the app makes the key's
            policy. Default: keys of AWS's own.
        :param data_capture: What of the requests and answers SageMaker writes to S3. ValueError with `Serverless`.
            Default: nothing.
        :param metrics: What SageMaker publishes beside the metrics that every endpoint has, and how often. Default:
            SageMaker's own, which asks the container's `GET /metrics` every minute.
        :param monitoring: The log group, alarms and dashboard; the alarms roll updates back if `rollout` names none.
            Default: none, and SageMaker keeps the log for ever.
        :param schedule: Who turns the endpoint off and on again: `OfficeHours` or `ByHand`, or a `Switch` of the stack
            that several endpoints share. Default: nobody, and it is there until the stack is deleted.
        :param verify: What proves each deployment. A `Proof` also asks the model. Default: True, SageMaker can run the
            image, and serves the configuration that was deployed and not one that it has rolled back to; no request is
            sent. False: nothing.
        """
        super().__init__(scope, construct_id, endpoint_name=endpoint_name)
        options = EndpointOptions(
            model=HubModel(model) if isinstance(model, str) else model,
            image=image,
            hosting=RealTime() if hosting is None else hosting,
            rollout=rollout,
            environment=environment,
            vllm=vllm,
            role=role,
            role_path=role_path,
            permissions_boundary=permissions_boundary,
            network=network,
            network_isolation=network_isolation,
            encryption_key=encryption_key,
            data_capture=data_capture,
            metrics=metrics,
            monitoring=monitoring,
            schedule=schedule,
            verify=verify,
        )
        self._build(settle(self, options))
        require_other_name(self, endpoint_name)

    def _build(self, options: EndpointOptions) -> None:
        """Build in this order: role, Models, EndpointConfig, monitoring, Endpoint, components, scaling, proofs."""
        decision = options.decide(self)
        annotate(self, notes_of_image(decision.notes, None))
        self.decision: EndpointDecision
        """The decisions for its parts."""
        self.decision, *_ = decision.endpoints
        check_models(self, self.decision)
        self.hosting: Hosting = settle_hosting(options.hosting, self.decision)
        path, boundary = options.role_path, options.permissions_boundary
        self.role: iam.IRole = container_role(self, options.role, self.endpoint_name, path=path, boundary=boundary)
        placed = place_in(self, options.network, role=self.role) if options.network else Placement()
        self._refer(self.endpoint_name, self._at, role=self.role, security_groups=placed.security_groups)
        if options.verify:
            settle_role_of_prover(self, path=path, boundary=boundary)
        parts = list(PartMaker(self, options, self.decision.parts, decision.notes, placed.vpc_config).make())
        self.model: sagemaker.CfnModel = parts[0].model
        self.speaks_openai: bool = parts[0].home is self and parts[0].speaks_openai
        """Whether it takes requests in OpenAI's format, because vLLM serves it."""
        key = options.encryption_key
        self._queue = queue(self, self.hosting, name=self.endpoint_name, role=self.role, key=key)
        self.capture_bucket: s3.IBucket | None
        self.capture_bucket, capture = data_capture_config(self, options.data_capture, key)
        self.config: sagemaker.CfnEndpointConfig = endpoint_config(
            self,
            parts,
            queue=self._queue.config if self._queue else None,
            capture=capture,
            metrics=options.metrics,
            key_arn=volume_key(key, self.hosting, self.role),
            vpc=placed.vpc_config,
        )
        self.watch: Watch | None = watch_over(self, parts, options.monitoring, key) if options.monitoring else None
        self.endpoint: sagemaker.CfnEndpoint = deploy(self, parts, options.rollout)
        self.node.default_child = self.endpoint  # which `apply_removal_policy` and escape hatches are about
        self.components: Mapping[str, sagemaker.CfnInferenceComponent] = place_components(self, parts, options.rollout)
        """The inference components by name; empty unless the hosting is `Components`."""
        scalings = scale_parts(self, parts)
        if self.watch is not None:
            self.endpoint.node.add_dependency(self.watch.log_group, *self.watch.component_logs.values())
        proofs = prove(self, parts, options.verify, after=scalings)
        following = [*scalings, *self.components.values(), *proofs]
        self.switch: Switch | None = switched_by(self, options.schedule, with_endpoint=following)

    @property
    def openai_base_url(self) -> str | None:
        """The base URL for OpenAI clients; None where the endpoint is known not to answer chat completions there.

        That is with `Async`, `Serverless` and `Components` (see `openai_base_urls`), AWS's own server, user code, and
        tasks other than text generation and image-text-to-text. A model without a chat template refuses chats.
        """
        if isinstance(self.hosting, Components) or not self._chats[MAIN_VARIANT]:
            return None
        return self._openai_base_url()

    @property
    def openai_base_urls(self) -> Mapping[str, str]:
        """The base URL of each component that answers chats, by its name; empty unless hosting is `Components`."""
        return {name: self._openai_base_url(name) for name in self.components if self._chats[name]}

    @property
    def bucket(self) -> s3.IBucket | None:
        """The bucket for the requests and responses of an asynchronous endpoint; None for other hostings."""
        return self._queue.bucket if self._queue else None

    @property
    def success_topic(self) -> sns.ITopic | None:
        """The topic that is notified of each asynchronous response, if there is one."""
        return self._queue.success_topic if self._queue else None

    @property
    def error_topic(self) -> sns.ITopic | None:
        """The topic that is notified of each asynchronous failure, if there is one."""
        return self._queue.error_topic if self._queue else None

    @check_types
    def grant_invoke(self, grantee: iam.IGrantable) -> iam.Grant:
        """Let `grantee` send requests, and use the bucket for them where the endpoint is asynchronous."""
        if self._queue is not None:
            self._queue.grant_use(grantee)
        grant = super().grant_invoke(grantee)
        grant_components(self, grantee, self.components)
        return grant

    @check_types
    def grant_invoke_with_token(self, grantee: iam.IGrantable) -> iam.Grant:
        """As `InvokableEndpoint.grant_invoke_with_token`; ValueError with `Async`, which takes no bearer tokens."""
        if isinstance(self.hosting, Async):
            raise OptionError(
                "grant_invoke_with_token",
                rule="is for endpoints that answer at once, and this one is Async: use grant_invoke",
            )
        return super().grant_invoke_with_token(grantee)

    @check_types
    def grant_shell(self, grantee: iam.IGrantable) -> iam.Grant:
        """Let `grantee` open a shell in a container, and close it: `aws ssm start-session --target
        sagemaker-endpoint:ENDPOINT_VARIANT_INSTANCE-ID`. ValueError without `ssm_access`.
        """
        return grant_shell(self, self.hosting, grantee)

    @property
    def _chats(self) -> Mapping[str, bool]:
        """Whether each of its parts is known to answer chats, by the part's name."""
        return {part.part.name: part.chats for part in self.decision.parts}
