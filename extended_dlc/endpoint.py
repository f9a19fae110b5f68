"""The endpoint itself: role, Model, EndpointConfig and Endpoint."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, TypeVar

from aws_cdk import CustomResource, IResolvable, Names
from aws_cdk import aws_iam as iam
from aws_cdk import aws_sagemaker as sagemaker
from constructs import Construct

from extended_dlc import _sources
from extended_dlc._asked import annotate, image_asked, model_asked, parts_asked, refuse, region_of, way_out
from extended_dlc._config import (
    Queue,
    inference_component,
    managed_variant,
    metrics_config,
    production_variant,
    queue,
)
from extended_dlc._private import place_of
from extended_dlc.bearer import base_url
from extended_dlc.capture import data_capture_config, grant_key
from extended_dlc.decisions.asked import EndpointAsked
from extended_dlc.decisions.decide import decide
from extended_dlc.decisions.of_endpoint import EndpointDecision, deadlines, volume_gb
from extended_dlc.decisions.of_part import PartDecision
from extended_dlc.decisions.part import other_variants
from extended_dlc.decisions.vllm import COMPLETION, vllm_variables
from extended_dlc.facts.checks import check_endpoint_name
from extended_dlc.facts.combinations import check_serverless_data
from extended_dlc.facts.names import COMPONENT_LOGS, ENDPOINT_LOGS, REQUEST_METRICS
from extended_dlc.image import EcrImage, ExtendedDlc, PublishedImage, ServingImage, StockDlc, notes_of_image
from extended_dlc.model import HubModel, PlacedModel, ServedModel
from extended_dlc.network import vpc_config
from extended_dlc.options._values import OptionError, is_token, require, told
from extended_dlc.options.capture import DataCapture
from extended_dlc.options.hosting import (
    MAIN_VARIANT,
    Async,
    Components,
    Hosting,
    Instances,
    RealTime,
    Serverless,
    find_instances,
)
from extended_dlc.options.network import Network
from extended_dlc.options.rollout import Rolling, Rollout
from extended_dlc.options.scaling import Scaling
from extended_dlc.options.vllm import VllmServing
from extended_dlc.rollout import deployment_config
from extended_dlc.scaling import scale

if TYPE_CHECKING:
    from aws_cdk import aws_cloudwatch as cloudwatch
    from aws_cdk import aws_kms as kms
    from aws_cdk import aws_s3 as s3
    from aws_cdk import aws_sns as sns

    from extended_dlc.monitoring import Watch
    from extended_dlc.options.monitoring import Metrics, Monitoring
    from extended_dlc.options.proof import Proof
    from extended_dlc.schedule import Schedule, Switch

INVOKE_ACTIONS = (
    "sagemaker:InvokeEndpoint",
    "sagemaker:InvokeEndpointAsync",
    "sagemaker:InvokeEndpointWithResponseStream",
)


TOKEN_ACTION = "sagemaker:CallWithBearerToken"  # noqa: S105 - an action


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
        if is_token(endpoint_name):
            raise OptionError(
                "endpoint_name",
                "a CDK token",
                "must be known at synth, because policies and alarms are made of it: pass a plain string",
            )
        require("endpoint_name", endpoint_name, check_endpoint_name)
        self.endpoint_name: str = endpoint_name

    @property
    def endpoint_arn(self) -> str:
        """The endpoint's ARN, made from its name, so that nothing that uses it has to wait for the endpoint."""
        # SageMaker writes the name in lower case in the ARN
        return self._arn(self.endpoint_name.lower())

    @property
    def openai_base_url(self) -> str | None:
        """What clients of OpenAI take as their base URL, to send chat completions with a bearer token.

        SageMaker serves no other of OpenAI's routes below it (SageMaker developer guide, "Invoke endpoints with
        OpenAI-compatible APIs").
        """
        return self._openai_base_url()

    def grant_invoke(self, grantee: iam.IGrantable) -> iam.Grant:
        """Let `grantee` send requests: answered at once, streamed, and asynchronous."""
        return self.grant(grantee, *INVOKE_ACTIONS)

    def grant_invoke_with_token(self, grantee: iam.IGrantable) -> iam.Grant:
        """Let `grantee` send requests, and make bearer tokens that do so: what clients of OpenAI need.

        A token stands for all rights of who signs it, so give these to a role that has no others. AWS takes no
        resource but `*` for `sagemaker:CallWithBearerToken`; what a token can invoke is what `grant_invoke` names.
        """
        signs = iam.Grant.add_to_principal(grantee=grantee, actions=[TOKEN_ACTION], resource_arns=["*"])
        return self.grant_invoke(grantee).combine(signs)

    def grant(self, grantee: iam.IGrantable, *actions: str) -> iam.Grant:
        """Let `grantee` do these to the endpoint, as `sagemaker:DescribeEndpoint`."""
        # a policy is compared with the name as it was given and as it stands in the ARN, depending on the caller
        arns = sorted({self.endpoint_arn, self._arn(self.endpoint_name)})
        return iam.Grant.add_to_principal(grantee=grantee, actions=list(actions), resource_arns=arns)

    def metric(
        self, name: str, *, variant: str = MAIN_VARIANT, statistic: str = "Average", component: str | None = None
    ) -> cloudwatch.Metric:
        """One of SageMaker's metrics of a variant, a value a minute: of its requests, as `ModelLatency` (in µs), or of
        its instances, as `CPUUtilization`, which are in another of CloudWatch's namespaces.

        :param component: Name of the component that it is about, of an endpoint of `Components`. Default: none.
        :param name: As in the SageMaker developer guide, "Amazon SageMaker AI metrics in Amazon CloudWatch".
        :param statistic: As CloudWatch calls it: `Sum`, `Average`, `p99`.
        """
        from extended_dlc.monitoring import namespace_of, request_metric

        return request_metric(
            name,
            endpoint_name=self.endpoint_name,
            variant=variant,
            statistic=statistic,
            namespace=namespace_of(name, component=component is not None),
            component=component,
        )

    def metric_invocations(self, *, variant: str = MAIN_VARIANT) -> cloudwatch.Metric:
        """How many requests a variant gets. Asynchronous endpoints do not publish it."""
        return self.metric("Invocations", variant=variant, statistic="Sum")

    def metric_client_errors(self, *, variant: str = MAIN_VARIANT) -> cloudwatch.Metric:
        """How many requests the container refuses (4xx)."""
        return self.metric("Invocation4XXErrors", variant=variant, statistic="Sum")

    def metric_server_errors(self, *, variant: str = MAIN_VARIANT) -> cloudwatch.Metric:
        """How many requests fail in the container (5xx)."""
        return self.metric("Invocation5XXErrors", variant=variant, statistic="Sum")

    def metric_model_latency(self, *, variant: str = MAIN_VARIANT, statistic: str = "p99") -> cloudwatch.Metric:
        """How long requests take in the container, in microseconds."""
        return self.metric("ModelLatency", variant=variant, statistic=statistic)

    def metric_overhead_latency(self, *, variant: str = MAIN_VARIANT, statistic: str = "p99") -> cloudwatch.Metric:
        """How long requests take in SageMaker outside the container, in microseconds; not of asynchronous endpoints."""
        return self.metric("OverheadLatency", variant=variant, statistic=statistic)

    def _arn(self, name: str) -> str:
        return place_of(self).arn("sagemaker", f"endpoint/{name}")

    def _openai_base_url(self, component: str | None = None) -> str:
        place = place_of(self)
        host = f"https://runtime.sagemaker.{place.region}.{place.stack.url_suffix}"
        return base_url(self.endpoint_name, host=host, component=component)


class HuggingFaceEndpoint(InvokableEndpoint):
    """A SageMaker endpoint that serves a model of the Hub's or of your own.

    The Model and the EndpointConfig have no names of their own: any change replaces them, and the Endpoint goes over to
    the new ones in place, under the same name.
    """

    def __init__(
        self,
        scope: Construct,
        construct_id: str,
        *,
        model: ServedModel,
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
        schedule: Schedule | None = None,
        verify: Proof | bool = True,
    ) -> None:
        """Define the endpoint.

        :param model: Which weights it serves: `HubModel`, `S3Model` or `MirroredModel`.
        :param image: The image whose server answers, as `ExtendedDlc`.
        :param hosting: What it runs on: `RealTime`, `Async`, `Serverless` or `Components`. Default: `RealTime()`, one
            `ml.m5.xlarge`.
        :param rollout: How an update goes over to new instances: `AllAtOnce`, `Canary`, `Linear` or `Rolling`.
            ValueError for one that SageMaker does not know for the hosting. Default: all at once, without a bake.
        :param environment: More environment variables for the container. ValueError for what SageMaker refuses, for a
            variable that `model` sets and for a literal Hub token. Default: none.
        :param vllm: How vLLM serves it. ValueError for an image that is known to have another server; an `EcrImage` or
            `StockDlc` with it is taken for one of vLLM. Default: `VllmServing()` with an image of the vLLM family.
        :param endpoint_name: The endpoint's name, unique in account and region, as for `InvokableEndpoint`.
        :param role: What the container may do. The Model waits for it; it is granted what the endpoint uses where it
            can be changed. Default: a new role with just that.
        :param role_path: Path of the new role, as `/speech/`. ValueError with `role`. Default: `/`.
        :param permissions_boundary: What the new role can never exceed, and the one of the proof's function. ValueError
            with `role`. Default: none.
        :param network: The VPC that the containers are in. ValueError with `Serverless`. Default: SageMaker's own, with
            access to the internet.
        :param network_isolation: Whether containers can open no connection at all. ValueError for weights that come
            from the Hub, and with `Serverless`. Default: they can, unless the model needs none.
        :param encryption_key: Key for the volumes of instance types that have some, for captured data, asynchronous
            answers and new topics. Default: keys of AWS's own.
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
        hosting, asked = hosting or RealTime(), image_asked(image)
        decision = decide(
            asked,
            [
                EndpointAsked(
                    model=model_asked(self, model),
                    image=asked,
                    hosting=hosting,
                    parts=parts_asked(self, hosting),
                    environment=environment or {},
                    vllm=vllm,
                    rollout=rollout,
                    network=network is not None,
                    way_out=way_out(network) if network else None,
                    subnets=len(network.subnets or network.vpc.select_subnets().subnet_ids) if network else None,
                    network_isolation=network_isolation,
                    data_capture=data_capture is not None,
                    metrics=metrics,
                    container_alarms=bool(monitoring and monitoring.container_alarms),
                    encryption_key=encryption_key is not None,
                    role=role is not None,
                    role_path=role_path is not None,
                    permissions_boundary=permissions_boundary is not None,
                    verify=verify,
                )
            ],
            region=region_of(self),
        )
        refuse(decision)
        annotate(self, notes_of_image(decision.notes, None))
        self._image_notes = [note for note in decision.notes if note.place.startswith("image")]
        self._decided, *_ = decision.endpoints
        self._parts = {part.part.name: part for part in self._decided.parts}
        self.hosting: Hosting = _settled(hosting, self._decided)
        self._network_isolation = network_isolation
        self._is_proved = bool(verify)
        self._log_requests: set[Construct] = set()
        self._speak_openai: set[Construct] = set()
        self._vllm = vllm
        self.speaks_openai = False
        """Whether its requests are OpenAI's, because vLLM answers them."""
        self.role = role or self._new_role(role_path, permissions_boundary)
        self._vpc = vpc_config(self, network, role=self.role) if network else None
        self._homes: dict[str, Construct] = {MAIN_VARIANT: self}
        self._models: dict[str, sagemaker.CfnModel] = {}
        if self._is_proved and permissions_boundary is not None:
            from extended_dlc.verify import Prover

            # an account that wants a boundary on one new role wants it on each
            iam.PermissionsBoundary.of(Prover.of(self)).apply(permissions_boundary)
        variants = self._serve_each(model=model, image=image)
        self.model, *_ = self._models.values()
        self._queue: Queue | None = None
        if isinstance(self.hosting, Async):
            self._queue = queue(self, self.hosting, name=self.endpoint_name, role=self.role, key=encryption_key)
        self.capture_bucket: s3.IBucket | None = None
        capture = None
        if data_capture is not None:
            self.capture_bucket, capture = data_capture_config(
                self, data_capture, name=self.endpoint_name, role=self.role, key=encryption_key
            )
        self.config = self._configure(variants, capture=capture, metrics=metrics, key=encryption_key)
        self.watch = self._watch(monitoring) if monitoring else None
        self.endpoint = self._deploy(rollout)
        self.components = self._place_components(rollout)
        """The inference components by name; none but with `Components`."""
        self._scalings = self._scale_each()
        if self.watch is not None:
            self.endpoint.node.add_dependency(self.watch.log_group, *self.watch.component_logs.values())
        proofs = self._prove(None if verify is True else verify) if verify else []
        self.switch = self._switched_by(schedule, proofs) if schedule else None

    @property
    def openai_base_url(self) -> str | None:
        """What clients of OpenAI take as their base URL; None where the endpoint is known not to answer chats there.

        That is so with `Async` and `Serverless`, with `Components` (`openai_base_urls` has theirs), with AWS's own
        server, with code of your own and with a task other than text generation and image-text-to-text. Without a chat
        template in its tokenizer a model refuses chats.
        """
        if isinstance(self.hosting, Components) or not self._parts[MAIN_VARIANT].chats:
            return None
        return self._openai_base_url()

    @property
    def openai_base_urls(self) -> Mapping[str, str]:
        """The same for each component that answers chats, by its name; empty but with `Components`."""
        return {name: self._openai_base_url(name) for name in self.components if self._parts[name].chats}

    @property
    def bucket(self) -> s3.IBucket | None:
        """Where an asynchronous endpoint takes requests from and puts answers; None for the other kinds."""
        return self._queue.bucket if self._queue else None

    @property
    def success_topic(self) -> sns.ITopic | None:
        """The topic that is told of each asynchronous answer, if there is one."""
        return self._queue.success_topic if self._queue else None

    @property
    def error_topic(self) -> sns.ITopic | None:
        """The topic that is told of each asynchronous failure, if there is one."""
        return self._queue.error_topic if self._queue else None

    def grant_invoke(self, grantee: iam.IGrantable) -> iam.Grant:
        """Let `grantee` send requests, and put them into the bucket and fetch answers where the endpoint has one."""
        if self._queue is not None:
            self._queue.grant_use(grantee)
        grant = super().grant_invoke(grantee)
        if self.components:
            # a request to a component is compared with its ARN too
            arns = [arn for name in self.components for arn in place_of(self).component_arns(name)]
            actions = [each for each in INVOKE_ACTIONS if not each.endswith("Async")]
            iam.Grant.add_to_principal(grantee=grantee, actions=actions, resource_arns=arns)
        return grant

    def grant_invoke_with_token(self, grantee: iam.IGrantable) -> iam.Grant:
        """Let `grantee` send requests, and make bearer tokens that do so: what clients of OpenAI need.

        As `InvokableEndpoint.grant_invoke_with_token`; ValueError with `Async`, which no token can ask.
        """
        if isinstance(self.hosting, Async):
            raise OptionError(
                "grant_invoke_with_token",
                rule="is for endpoints that answer at once, and this one is Async: use grant_invoke",
            )
        return super().grant_invoke_with_token(grantee)

    def grant_shell(self, grantee: iam.IGrantable) -> iam.Grant:
        """Let `grantee` open a shell in a container, and close it: `aws ssm start-session --target
        sagemaker-endpoint:ENDPOINT_VARIANT_INSTANCE-ID`. ValueError without `ssm_access`.
        """
        if not self._has_ssm_access:
            raise OptionError("grant_shell", rule="needs instances with 'ssm_access': set it in the hosting")
        sessions = place_of(self).arn("ssm", "session/*")
        ends = iam.Grant.add_to_principal(grantee=grantee, actions=["ssm:TerminateSession"], resource_arns=[sessions])
        return self.grant(grantee, "ssm:StartSession").combine(ends)

    @staticmethod
    def from_endpoint_name(scope: Construct, construct_id: str, endpoint_name: str) -> InvokableEndpoint:
        """An endpoint that is there already, for whoever calls it: its ARN, `grant_invoke` and `openai_base_url`."""
        return InvokableEndpoint(scope, construct_id, endpoint_name=endpoint_name)

    def _new_role(self, path: str | None, boundary: iam.IManagedPolicy | None) -> iam.Role:
        return iam.Role(
            self,
            "Role",
            assumed_by=_sources.sagemaker(self),
            description=f"What the containers of {self.endpoint_name} may do",
            path=path,
            permissions_boundary=boundary,
        )

    def _serve(
        self, scope: Construct, part: PartDecision, *, model: ServedModel, image: ServingImage
    ) -> sagemaker.CfnModel:
        """The Model of a part, in `scope`."""
        hosting = part.part.hosting
        if isinstance(model, HubModel):
            facts = part.part.model.facts
            model = replace(model, model_type=facts.model_type, task=part.task)
        published = self._publish(image, part, model)
        image.grant_pull(self.role)
        if scope is self:
            self._grant_observability(self.role)
        placed = model.place_for(scope, self.role)
        told = dict(self._vllm_variables(part, published) or {})
        if told:
            self._speak_openai.add(scope)
            self.speaks_openai = self in self._speak_openai
        data: sagemaker.CfnModel.ModelDataSourceProperty | IResolvable | None = placed.data
        archive = None
        if isinstance(hosting, Serverless):
            data, archive = None, _archive_for_serverless(placed)
        if published.logs_requests:  # the native server's own
            told.update(deadlines(self.hosting))
            self._log_requests.add(scope)
        served = sagemaker.CfnModel(
            scope,
            "Model",
            execution_role_arn=self.role.role_arn,
            primary_container=sagemaker.CfnModel.ContainerDefinitionProperty(
                image=published.uri,
                environment={**placed.environment, **told, **part.part.environment},
                model_data_source=data,
                model_data_url=archive,
            ),
            vpc_config=self._vpc,
            enable_network_isolation=placed.isolated or self._network_isolation or None,
        )
        if self._is_proved:
            from extended_dlc.verify import Prover

            architecture = part.part.instances[0].architecture
            proof = Prover.of(self).image(scope, image=image, uri=published.uri, architecture=architecture)
            if published.ready is not None:
                proof.node.add_dependency(published.ready)
            served.node.add_dependency(proof)
        # SageMaker looks at the image and at the role's rights when the Model is created
        served.node.add_dependency(self.role)
        for ready in (published.ready, placed.ready):
            if ready is not None:
                served.node.add_dependency(ready)
        return served

    def _publish(self, image: ServingImage, part: PartDecision, model: ServedModel) -> PublishedImage:
        """The part's image; one of the user's own checks for itself that it runs on each type."""
        if isinstance(image, (ExtendedDlc, StockDlc, EcrImage)):
            return image.publish_decided(self, part.image, self._image_notes)
        published, *_ = [image.publish_for(self, instance=each, model=model) for each in part.part.instances]
        return published

    def _vllm_variables(self, part: PartDecision, published: PublishedImage) -> Mapping[str, str] | None:
        """What vLLM is told; an image of the user's own says only when it is published that vLLM serves in it."""
        if part.vllm is not None or published.family != "vllm":
            return part.vllm
        return vllm_variables(self._vllm or VllmServing(), part.part, part.part.instances)

    def _serve_each(
        self, *, model: ServedModel, image: ServingImage
    ) -> list[sagemaker.CfnEndpointConfig.ProductionVariantProperty]:
        """A Model for each variant or component, and the variants as the EndpointConfig has them.

        Another variant has a Model of its own, because its image can differ by the type alone.
        """
        if isinstance(self.hosting, Components):
            self._grant_observability(self.role)
            home = Construct(self, "Components")
            for part in self.hosting.components:
                self._homes[part.name] = Construct(home, part.name)
                self._models[part.name] = self._serve(
                    self._homes[part.name],
                    self._parts[part.name],
                    model=part.model or model,
                    image=part.image or image,
                )
            return [managed_variant(self.hosting, cudas=[part.image.cuda for part in self._decided.parts])]
        self._models[MAIN_VARIANT] = self._serve(self, self._parts[MAIN_VARIANT], model=model, image=image)
        weight = self.hosting.weight if isinstance(self.hosting, RealTime) else 1
        variants = [self._variant(self.hosting, MAIN_VARIANT, weight)]
        others = other_variants(self.hosting)
        home = Construct(self, "Variants") if others else self
        for each in others:
            self._homes[each.name] = Construct(home, each.name)
            self._models[each.name] = self._serve(
                self._homes[each.name],
                self._parts[each.name],
                model=each.model or model,
                image=each.image or image,
            )
            variants.append(self._variant(each, each.name, each.weight))
        return variants

    def _configure(
        self,
        variants: Sequence[sagemaker.CfnEndpointConfig.ProductionVariantProperty],
        *,
        capture: sagemaker.CfnEndpointConfig.DataCaptureConfigProperty | None,
        metrics: Metrics | None,
        key: kms.IKey | None,
    ) -> sagemaker.CfnEndpointConfig:
        """The EndpointConfig; with components it says what their models have no say in."""
        shadows = 1 if isinstance(self.hosting, RealTime) and self.hosting.shadow else 0
        shared = isinstance(self.hosting, Components)
        config = sagemaker.CfnEndpointConfig(
            self,
            "Config",
            production_variants=variants[: len(variants) - shadows],
            shadow_production_variants=variants[-1:] if shadows else None,
            async_inference_config=self._queue.config if self._queue else None,
            data_capture_config=capture,
            **metrics_config(metrics),
            kms_key_id=self._volume_key(key),
            execution_role_arn=self.role.role_arn if shared else None,
            vpc_config=sagemaker.CfnEndpointConfig.VpcConfigProperty(
                security_group_ids=self._vpc.security_group_ids, subnets=self._vpc.subnets
            )
            if shared and self._vpc
            else None,
            enable_network_isolation=all(each.enable_network_isolation for each in self._models.values()) or None
            if shared
            else None,
        )
        if shared:
            config.node.add_dependency(self.role)
        return config

    def _deploy(self, rollout: Rollout | None) -> sagemaker.CfnEndpoint:
        """The Endpoint, whose updates leave the number of instances to what scales it."""
        counted = self._scaled() and not isinstance(self.hosting, Serverless | Components)
        return sagemaker.CfnEndpoint(
            self,
            "Endpoint",
            endpoint_name=self.endpoint_name,
            endpoint_config_name=self.config.attr_endpoint_config_name,
            deployment_config=deployment_config(rollout, own=self.watch.rollback_alarms() if self.watch else ())
            if rollout and not isinstance(self.hosting, Components)
            else None,
            # an update would put the number of instances back to the config's; weights shall follow it. The capture
            # cannot be asked for: DataCaptureConfig is "not currently supported" (SageMaker API, VariantProperty)
            retain_all_variant_properties=True if counted else None,
            exclude_retained_variant_properties=[
                sagemaker.CfnEndpoint.VariantPropertyProperty(variant_property_type="DesiredWeight")
            ]
            if counted
            else None,
        )

    def _place_components(self, rollout: Rollout | None) -> dict[str, sagemaker.CfnInferenceComponent]:
        parts = self.hosting.components if isinstance(self.hosting, Components) else ()
        return {
            part.name: inference_component(
                self._homes[part.name],
                part,
                endpoint=self.endpoint,
                endpoint_name=self.endpoint_name,
                model_name=self._models[part.name].attr_model_name,
                rollout=rollout if isinstance(rollout, Rolling) else None,
                own=self.watch.rollback_alarms(part.name) if self.watch else (),
            )
            for part in parts
        }

    def _scale_each(self) -> list[Construct]:
        """What scales the variants or components that scale."""
        homes = []
        for name, scaling in self._scaled().items():
            homes.append(Construct(self._homes[name], "Scaling"))
            after = self.components.get(name, self.endpoint)
            scale(homes[-1], scaling, endpoint_name=self.endpoint_name, variant=name, after=after)
        return homes

    def _switched_by(self, schedule: Schedule | Switch, proofs: Sequence[Construct]) -> Switch:
        """The switch that turns off and on what cannot be there without the endpoint."""
        from extended_dlc.schedule import Switch

        if not isinstance(schedule, Switch):
            schedule = Switch(self, "Switch", schedule=schedule, what=self.endpoint_name)
        watch = self.watch.of_use_with_endpoint if self.watch else ()
        schedule.turns(self.endpoint, *self._scalings, *self.components.values(), *watch, *proofs)
        return schedule

    def _watch(self, monitoring: Monitoring) -> Watch:
        # loaded with the first endpoint that is watched: CloudWatch's and the log's classes take long to load
        from extended_dlc.monitoring import Watch

        return Watch(
            self,
            "Watch",
            monitoring=monitoring,
            endpoint_name=self.endpoint_name,
            hosting=self.hosting,
            variants={MAIN_VARIANT: self.hosting, **{each.name: each for each in other_variants(self.hosting)}},
            log_requests=[name for name, home in self._homes.items() if home in self._log_requests],
        )

    def _prove(self, proof: Proof | None) -> list[CustomResource]:
        """The proofs of the endpoint, or of each of its components, which come last."""
        from extended_dlc.verify import Prover

        prover, config_name = Prover.of(self), self.config.attr_endpoint_config_name

        def request_for(names: Sequence[str]) -> Proof | None:
            if proof is None or proof.request is not None:
                return proof
            if self._homes[names[0]] in self._speak_openai:
                return replace(proof, request=COMPLETION)
            return proof if all(self._parts[name].asked for name in names) else None

        if isinstance(self.hosting, Components):
            proofs = [
                prover.component(
                    self._homes[each.name],
                    component=each,
                    model_name=self._models[each.name].attr_model_name,
                    proof=request_for([each.name]),
                    endpoint=self,
                    config_name=config_name,
                    task=self._parts[each.name].part.model.facts.task,
                )
                for each in self.hosting.components
            ]
        else:
            shadow = self.hosting.shadow if isinstance(self.hosting, RealTime) else None
            asked = [name for name in self._homes if shadow is None or name != shadow.name]
            proofs = [
                prover.endpoint(
                    self,
                    proof=request_for(asked),
                    endpoint=self,
                    config_name=config_name,
                    variants=asked,
                    task=self._parts[MAIN_VARIANT].part.model.facts.task,
                    queue=self.bucket.s3_url_for_object(f"{self.endpoint_name}/input") if self.bucket else None,
                )
            ]
        for proved in proofs:
            proved.node.add_dependency(self.endpoint, *self.components.values(), *self._scalings)
        return proofs

    def _variant(
        self, hosting: Instances | Serverless, name: str, weight: float
    ) -> sagemaker.CfnEndpointConfig.ProductionVariantProperty:
        model_name, host_image = self._models[name].attr_model_name, self._parts[name].host_image
        return production_variant(hosting, name=name, weight=weight, model_name=model_name, host_image=host_image)

    def _scaled(self) -> dict[str, Scaling]:
        """How each variant scales that does, by its name."""
        scaled: dict[str, Scaling | None] = {each.name: each.scaling for each in other_variants(self.hosting)}
        if isinstance(self.hosting, Components):
            scaled = {each.name: each.scaling for each in self.hosting.components}
        else:
            scaled = {MAIN_VARIANT: self.hosting.scaling, **scaled}
        return {name: scaling for name, scaling in scaled.items() if scaling is not None}

    def _volume_key(self, key: kms.IKey | None) -> str | None:
        """The key for the volumes, where all types have one; what the role needs to use the key anywhere is granted."""
        if key is None:
            return None
        grant_key(key, self.role)
        if isinstance(self.hosting, Serverless):
            return None
        fleets: list[Instances] = [self.hosting, *other_variants(self.hosting)]
        instances = [instance for fleet in fleets for instance in find_instances(fleet)]
        if any(each.local_storage_gb for each in instances):
            return None
        self.role.add_to_principal_policy(
            iam.PolicyStatement(
                actions=["kms:CreateGrant"],
                resources=[key.key_arn],
                conditions={"Bool": {"kms:GrantIsForAWSResource": "true"}},
            )
        )
        return key.key_arn

    def _grant_observability(self, role: iam.IRole) -> None:
        """Logs and metrics, of this endpoint alone (SageMaker developer guide, roles, CreateModel API)."""
        group = f"{ENDPOINT_LOGS}/{self.endpoint_name}"
        groups, namespaces = [group], [ENDPOINT_LOGS, REQUEST_METRICS]
        if isinstance(self.hosting, Components):
            groups += [f"{COMPONENT_LOGS}/{each.name}" for each in self.hosting.components]
            namespaces.append(COMPONENT_LOGS)
        log_groups = [place_of(self).arn("logs", f"log-group:{each}") for each in groups]
        # as grants: a statement that is made and added costs four calls to the CDK's process, a grant costs one
        iam.Grant.add_to_principal(
            grantee=role,
            actions=["logs:CreateLogGroup", "logs:CreateLogStream", "logs:DescribeLogStreams", "logs:PutLogEvents"],
            resource_arns=[arn for each in log_groups for arn in (each, f"{each}:*")],
        )
        iam.Grant.add_to_principal(
            grantee=role,
            actions=["cloudwatch:PutMetricData"],
            resource_arns=["*"],  # CloudWatch has no resources for it; the condition narrows it
            conditions={"StringEquals": {"cloudwatch:namespace": namespaces}},
        )
        if self._has_ssm_access:
            # the agent's own, which has no resources (SageMaker developer guide, "Access containers through SSM")
            channels = [
                f"ssmmessages:{verb}{kind}Channel" for verb in ("Create", "Open") for kind in ("Control", "Data")
            ]
            iam.Grant.add_to_principal(grantee=role, actions=channels, resource_arns=["*"])

    @property
    def _has_ssm_access(self) -> bool:
        fleets = [] if isinstance(self.hosting, Serverless) else [self.hosting, *other_variants(self.hosting)]
        return any(each.ssm_access for each in fleets)


Fleet = TypeVar("Fleet", bound=Instances)


def _settled(hosting: Hosting, decided: EndpointDecision) -> Hosting:
    """The hosting with time-outs and volume where the user gave none."""
    parts = {part.part.name: part for part in decided.parts}

    def settled(fleet: Fleet, name: str) -> Fleet:
        return replace(
            fleet,
            startup_timeout_seconds=parts[name].startup_timeout_seconds,
            download_timeout_seconds=parts[name].download_timeout_seconds,
            volume_gb=parts[name].volume_gb,
        )

    if isinstance(hosting, Serverless):
        return hosting
    if isinstance(hosting, Components):
        components = tuple(
            replace(
                each,
                startup_timeout_seconds=parts[each.name].startup_timeout_seconds,
                download_timeout_seconds=parts[each.name].download_timeout_seconds,
            )
            for each in hosting.components
        )
        return replace(hosting, components=components, volume_gb=volume_gb(hosting, decided))
    if isinstance(hosting, RealTime):
        hosting = replace(
            hosting,
            variants=tuple(settled(each, each.name) for each in hosting.variants),
            shadow=settled(hosting.shadow, hosting.shadow.name) if hosting.shadow else None,
        )
    return settled(hosting, MAIN_VARIANT)


def _archive_for_serverless(placed: PlacedModel) -> str | None:
    """The address of the model's archive, if there is one; ValueError for model data in any other form."""
    if placed.data is None:
        return None
    source = getattr(placed.data, "s3_data_source", None)  # a trained model's is a condition, and never an archive
    known = source if isinstance(source, sagemaker.CfnModel.S3DataSourceProperty) else None
    archive = known.s3_uri if known is not None and known.compression_type == "Gzip" else None
    told("model", "files in S3 as they are", lambda: check_serverless_data(archive=archive is not None))
    return archive
