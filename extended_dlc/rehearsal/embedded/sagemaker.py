"""SageMaker: models, endpoint configurations and endpoints that store their requests and serve from containers.

`install` changes moto 5.2.5 in this process. Methods such as `create_model` serve both the API and CloudFormation, so
that both get the same refusals. It corrects these differences:

- moto stores a fixed part of each request: here Describe returns everything that Create was given (`_recorded`).
- moto's list of instance types ends in 2021: here the service model's list applies.
- moto has no `UpdateEndpoint`, and a new endpoint is in service at once: here `Endpoint` goes through Creating,
  Updating, Deleting and Failed, with a container behind it. An update resets counts and weights to the
  configuration's, unless it retains them.
- moto accepts any image: here `_check_image` refuses what SageMaker refuses.
"""

from __future__ import annotations

import functools
import io
import logging
import random
import shutil
import tarfile
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime, timezone
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import botocore.session
from moto.applicationautoscaling.models import applicationautoscaling_backends
from moto.core.responses import ActionResult, EmptyResult
from moto.core.utils import utcnow
from moto.ecr.models import Image, Repository
from moto.s3.models import s3_backends
from moto.sagemaker.exceptions import ValidationError
from moto.sagemaker.models import (
    FakeEndpoint,
    FakeEndpointConfig,
    SageMakerModelBackend,
    sagemaker_backends,
)
from moto.sagemaker.models import Model as MotoModel
from moto.sagemaker.responses import SageMakerResponse

from extended_dlc.facts.names import COMPONENT_LOGS, ENDPOINT_LOGS
from extended_dlc.rehearsal.embedded import ecr, scraping
from extended_dlc.rehearsal.embedded.container_logs import LogTarget, follow
from extended_dlc.rehearsal.embedded.hosting import STARTUP_SECONDS, Hosting, Instance, NotServing, Serve
from extended_dlc.rehearsal.embedded.iam import Iam
from extended_dlc.rehearsal.embedded.references import EcrReference
from extended_dlc.rehearsal.embedded.scenarios import Scenarios
from extended_dlc.rehearsal.embedded.sessions import environment_of_role
from extended_dlc.rehearsal.embedded.shapes import Refusal, parameters_of

Parameters = dict[str, Any]

PULL_ACTIONS = (
    "ecr:BatchGetImage",
    "ecr:GetDownloadUrlForLayer",
    "ecr:BatchCheckLayerAvailability",
    "ecr:GetAuthorizationToken",
)
"""The actions on an image that the role needs (SageMaker developer guide, roles, CreateModel API)."""

_log = logging.getLogger(__name__)


def request_of(operation: str, parameters: Parameters) -> Parameters:
    """An operation's parameters with the API's types. A template's properties that the operation lacks are dropped."""
    members = _service().operation_model(operation).input_shape.members
    return parameters_of("sagemaker", operation, {key: each for key, each in parameters.items() if key in members})


@functools.lru_cache(maxsize=1)
def _service() -> Any:
    return botocore.session.get_session().get_service_model("sagemaker")


def _recorded(base: Parameters, request: Parameters) -> Parameters:
    """A Describe response: moto's members and the whole request, except tags, which have their own API."""
    return {**base, **{key: value for key, value in request.items() if key != "Tags" and value not in (None, "")}}


# resources


class Model(MotoModel):
    """A model with the whole request of CreateModel."""

    def __init__(self, account_id: str, region_name: str, request: Parameters) -> None:
        super().__init__(
            account_id=account_id,
            region_name=region_name,
            model_name=request["ModelName"],
            execution_role_arn=request.get("ExecutionRoleArn", ""),
            primary_container=request.get("PrimaryContainer", {}),
            vpc_config=request.get("VpcConfig", {}),
            containers=request.get("Containers", []),
            tags=request.get("Tags", []),
        )
        self.request = request

    def is_created(self) -> bool:
        return True

    @property
    def response_object(self) -> Parameters:
        base = {"ModelArn": self.arn, "CreationTime": self.creation_time, "EnableNetworkIsolation": False}
        return _recorded(base, self.request)


class EndpointConfig(FakeEndpointConfig):
    """An endpoint configuration with the whole request of CreateEndpointConfig."""

    def __init__(self, account_id: str, region_name: str, request: Parameters) -> None:
        super().__init__(
            account_id=account_id,
            region_name=region_name,
            endpoint_config_name=request["EndpointConfigName"],
            production_variants=request["ProductionVariants"],
            async_inference_config=request.get("AsyncInferenceConfig", {}),
            data_capture_config=request.get("DataCaptureConfig", {}),
            tags=request.get("Tags", []),
            kms_key_id=request.get("KmsKeyId", ""),
        )
        self.request = request

    def is_created(self) -> bool:
        return True

    def validate_production_variants(self, production_variants: list[Parameters]) -> None:
        """`Door` has checked them already."""

    @property
    def response_object(self) -> Parameters:
        base = {"EndpointConfigArn": self.endpoint_config_arn, "CreationTime": self.creation_time}
        return _recorded({**base, "EnableNetworkIsolation": False}, self.request)


@dataclass(kw_only=True)
class Variant:
    """A production variant in service."""

    configuration: Parameters
    images: list[Parameters]
    instance: Instance | None
    instance_type: str | None = None
    """None for a variant without instances."""

    desired: Parameters = field(default_factory=dict)
    """The count and weight that an API call set later; they override the configuration's."""

    @property
    def name(self) -> str:
        return str(self.configuration["VariantName"])

    @property
    def weight(self) -> float:
        given = {"DesiredWeight": self.configuration.get("InitialVariantWeight", 1), **self.desired}
        return float(given["DesiredWeight"])

    @property
    def count(self) -> int:
        """The number of instances, of which one runs here; 0 where the variant has no instances."""
        given = {"DesiredInstanceCount": self.configuration.get("InitialInstanceCount", 0), **self.desired}
        return int(given["DesiredInstanceCount"])

    def retained(self, request: Parameters) -> Parameters:
        """What an update with `RetainAllVariantProperties` keeps of the variant."""
        if not request.get("RetainAllVariantProperties"):
            return {}
        left_out = {each["VariantPropertyType"] for each in request.get("ExcludeRetainedVariantProperties", ())}
        kept = {"DesiredInstanceCount": self.count, "DesiredWeight": self.weight}
        return {key: value for key, value in kept.items() if key not in left_out and value}

    def summary(self) -> Parameters:
        """The variant's part of the response of DescribeEndpoint."""
        given = self.configuration
        summary: Parameters = {
            "VariantName": self.name,
            "DeployedImages": self.images,
            "CurrentWeight": self.weight,
            "DesiredWeight": self.weight,
        }
        if self.count:
            summary |= {"CurrentInstanceCount": self.count, "DesiredInstanceCount": self.count}
        if given.get("InstancePools"):
            count = self.count or int(given.get("InitialInstanceCount", 1))
            summary["InstancePools"] = [{"InstanceType": self.instance_type, "CurrentInstanceCount": count}]
        if serverless := given.get("ServerlessConfig"):
            summary |= {"CurrentServerlessConfig": serverless, "DesiredServerlessConfig": serverless}
        for key in ("ManagedInstanceScaling", "RoutingConfig"):
            if key in given:
                summary[key] = given[key]
        return summary


class Endpoint(FakeEndpoint):
    """An endpoint with its status and its variants."""

    def __init__(self, account_id: str, region_name: str, request: Parameters) -> None:
        super().__init__(
            account_id=account_id,
            region_name=region_name,
            endpoint_name=request["EndpointName"],
            endpoint_config_name=request["EndpointConfigName"],
            production_variants=[],
            data_capture_config={},
            tags=request.get("Tags", []),
        )
        self.account_id = account_id
        self.region_name = region_name
        self.deployment_config: Parameters | None = None
        self.variants: list[Variant] = []
        self.async_config: Parameters | None = None
        """AsyncInferenceConfig; None for a synchronous endpoint."""

        self.endpoint_status = "Creating"
        self.settled = threading.Event()
        """Set while no operation is in progress."""

    def is_created(self) -> bool:
        return bool(self.endpoint_status == "InService")

    @property
    def config_request(self) -> Parameters:
        """The request of CreateEndpointConfig that it is in service with; empty where the configuration is gone."""
        configs = sagemaker_backends[self.account_id][self.region_name].endpoint_configs
        request: Parameters = getattr(configs.get(self.endpoint_config_name), "request", {})
        return request

    @property
    def response_object(self) -> Parameters:
        description: Parameters = {
            "EndpointName": self.endpoint_name,
            "EndpointArn": self.arn,
            "EndpointConfigName": self.endpoint_config_name,
            "ProductionVariants": [each.summary() for each in self.variants],
            "EndpointStatus": self.endpoint_status,
            "CreationTime": self.creation_time,
            "LastModifiedTime": self.last_modified_time,
        }
        if self.failure_reason:
            description["FailureReason"] = self.failure_reason
        if self.async_config is not None:
            description["AsyncInferenceConfig"] = self.async_config
        if self.deployment_config:
            description["LastDeploymentConfig"] = self.deployment_config
        return description

    def pick(self, name: str | None) -> Variant | None:
        """The variant that serves a request: the named one, or a random one by weight."""
        if name:
            return next((each for each in self.variants if each.name == name), None)
        if not self.variants:
            return None
        weights = [each.weight for each in self.variants]
        return random.choices(self.variants, weights if any(weights) else None)[0]  # noqa: S311 - no secret


# operations


@dataclass(kw_only=True)
class SageMaker:
    """SageMaker's control plane."""

    hosting: Hosting
    port: int
    models_folder: Path
    scenarios: Scenarios = field(default_factory=Scenarios)
    """Failures on request."""

    iam: Iam = field(default_factory=Iam)
    """Evaluates the roles' policies."""

    faster: float = 1
    """The factor by which a container's start-up time-out is shorter than the variant's."""

    _lock: threading.RLock = field(default_factory=threading.RLock)

    def create_model(self, backend: SageMakerModelBackend, parameters: Parameters) -> Model:
        """CreateModel."""
        request = request_of("CreateModel", parameters)
        for container in _containers(request):
            if image := container.get("Image"):
                self._check_image(backend, image)
                self._check_role(backend, request.get("ExecutionRoleArn", ""), image)
        model = Model(backend.account_id, backend.region_name, request)
        if model.model_name in backend._models:
            raise ValidationError(message=f'Cannot create already existing model "{model.arn}".')
        backend._models[model.model_name] = model
        return model

    def create_endpoint_config(self, backend: SageMakerModelBackend, parameters: Parameters) -> EndpointConfig:
        """CreateEndpointConfig."""
        request = request_of("CreateEndpointConfig", parameters)
        configuration = EndpointConfig(backend.account_id, backend.region_name, request)
        variants = [*request["ProductionVariants"], *request.get("ShadowProductionVariants", [])]
        for variant in variants:
            name = variant.get("ModelName")
            if name and name not in backend._models:
                arn = f"arn:aws:sagemaker:{backend.region_name}:{backend.account_id}:model/{name}"
                raise ValidationError(message=f'Could not find model "{arn}".')
        if configuration.endpoint_config_name in backend.endpoint_configs:
            arn = configuration.endpoint_config_arn
            raise ValidationError(message=f'Cannot create already existing endpoint configuration "{arn}".')
        backend.endpoint_configs[configuration.endpoint_config_name] = configuration
        return configuration

    def create_endpoint(self, backend: SageMakerModelBackend, parameters: Parameters) -> Endpoint:
        """CreateEndpoint; the endpoint is Creating when this returns."""
        request = request_of("CreateEndpoint", parameters)
        configuration = self._configuration(backend, request["EndpointConfigName"])
        with self._lock:
            endpoint = Endpoint(backend.account_id, backend.region_name, request)
            if endpoint.endpoint_name in backend.endpoints:
                raise ValidationError(message=f'Cannot create already existing endpoint "{endpoint.arn}".')
            backend.endpoints[endpoint.endpoint_name] = endpoint
        endpoint.deployment_config = request.get("DeploymentConfig")
        self._in_background(endpoint, lambda: self._bring_up(backend, endpoint, configuration))
        return endpoint

    def update_endpoint(self, backend: SageMakerModelBackend, parameters: Parameters) -> Endpoint:
        """UpdateEndpoint; when this returns, the endpoint is Updating and still serves the old configuration."""
        request = request_of("UpdateEndpoint", parameters)
        with self._lock:
            endpoint = self._settled(backend, request["EndpointName"])
            configuration = self._configuration(backend, request["EndpointConfigName"])
            _refuse_scaled_type(backend, endpoint, configuration)
            endpoint.settled.clear()
            endpoint.endpoint_status = "Updating"
            endpoint.failure_reason = None
        endpoint.deployment_config = request.get("DeploymentConfig") or endpoint.deployment_config
        self._in_background(endpoint, lambda: self._switch(backend, endpoint, configuration, request))
        return endpoint

    def update_weights_and_capacities(self, backend: SageMakerModelBackend, parameters: Parameters) -> Endpoint:
        """UpdateEndpointWeightsAndCapacities, with which Application Auto Scaling sets a count; effective at once."""
        request = request_of("UpdateEndpointWeightsAndCapacities", parameters)
        with self._lock:
            endpoint = self._settled(backend, request["EndpointName"])
            variants = {each.name: each for each in endpoint.variants}
            for each in request["DesiredWeightsAndCapacities"]:
                if each["VariantName"] not in variants:
                    raise ValidationError(
                        message=f'The variant name(s) "{each["VariantName"]}" is/are not present within endpoint '
                        f'configuration "{endpoint.endpoint_config_name}".'
                    )
            for each in request["DesiredWeightsAndCapacities"]:
                changes = {key: each[key] for key in ("DesiredInstanceCount", "DesiredWeight") if key in each}
                variants[each["VariantName"]].desired |= changes
        return endpoint

    def delete_endpoint(self, backend: SageMakerModelBackend, name: str) -> Endpoint:
        """DeleteEndpoint; when this returns, the endpoint is Deleting. It is gone when its containers are."""
        with self._lock:
            endpoint = self._settled(backend, name)
            endpoint.settled.clear()
            endpoint.endpoint_status = "Deleting"
        self._in_background(endpoint, lambda: self._take_down(backend, endpoint))
        return endpoint

    @staticmethod
    def _settled(backend: SageMakerModelBackend, name: str) -> Endpoint:
        """An endpoint without an operation in progress. Raises `ValidationError`."""
        endpoint = backend.endpoints.get(name)
        if not isinstance(endpoint, Endpoint):
            arn = FakeEndpoint.arn_formatter(name, backend.account_id, backend.region_name)
            raise ValidationError(message=f'Could not find endpoint "{arn}".')
        if not endpoint.settled.is_set():
            raise ValidationError(message=f'Cannot update in-progress endpoint "{endpoint.arn}".')
        return endpoint

    # background work of the operations

    def _in_background(self, endpoint: Endpoint, work: Callable[[], None]) -> None:
        def run() -> None:
            try:
                work()
            except Exception as error:  # an unexpected error must not leave the endpoint in a transitional status
                _log.exception("endpoint %s", endpoint.endpoint_name)
                endpoint.endpoint_status = "Failed"
                endpoint.failure_reason = f"Request to service failed: {error!r}"[:1024]  # type: ignore[assignment]
            finally:
                endpoint.last_modified_time = utcnow()  # naive like moto's times: lists compare them
                endpoint.settled.set()

        if self.hosting.launcher is None:
            run()
        else:
            threading.Thread(target=run, name=f"endpoint {endpoint.endpoint_name}", daemon=True).start()

    def _bring_up(self, backend: SageMakerModelBackend, endpoint: Endpoint, configuration: EndpointConfig) -> None:
        try:
            started = self._start(backend, endpoint, configuration)
        except NotServing as failure:
            endpoint.endpoint_status = "Failed"
            endpoint.failure_reason = str(failure)  # type: ignore[assignment]  # moto declares it None
            return
        endpoint.async_config = configuration.request.get("AsyncInferenceConfig")
        endpoint.variants = started
        endpoint.endpoint_status = "InService"

    def _switch(
        self, backend: SageMakerModelBackend, endpoint: Endpoint, configuration: EndpointConfig, request: Parameters
    ) -> None:
        old = endpoint.variants
        try:
            new = self._start(backend, endpoint, configuration)
        except NotServing as failure:
            # blue/green: the old fleet stays in service, and only FailureReason tells of the attempt
            if self.scenarios.silent_rollbacks:
                self.scenarios.meet("silent_rollbacks")
            endpoint.failure_reason = None if self.scenarios.silent_rollbacks else str(failure)  # type: ignore[assignment]
            endpoint.endpoint_status = "InService" if old else "Failed"
            return
        retained = {each.name: each.retained(request) for each in old}
        for variant in new:
            variant.desired = retained.get(variant.name, {})
        endpoint.variants = new
        endpoint.async_config = configuration.request.get("AsyncInferenceConfig")
        endpoint.endpoint_config_name = configuration.endpoint_config_name
        endpoint.failure_reason = None
        self._stop(old)
        endpoint.endpoint_status = "InService"

    def _take_down(self, backend: SageMakerModelBackend, endpoint: Endpoint) -> None:
        variants, endpoint.variants = endpoint.variants, []
        self._stop(variants)
        backend.endpoints.pop(endpoint.endpoint_name, None)

    def _start(self, backend: SageMakerModelBackend, endpoint: Endpoint, config: EndpointConfig) -> list[Variant]:
        started: list[Variant] = []
        try:
            for each in config.request["ProductionVariants"]:
                kind = self._find_capacity(each)
                started.append(self.start_variant(backend, endpoint.endpoint_name, each, config))
                started[-1].instance_type = kind
        except NotServing:
            self._stop(started)
            raise
        return started

    def _find_capacity(self, variant: Parameters) -> str | None:
        """The variant's instance type: its own, or that of its first instance pool with capacity.

        Raises `NotServing` where there is no capacity.
        """
        pools = sorted(variant.get("InstancePools", ()), key=lambda each: int(each["Priority"]))
        kinds = [each["InstanceType"] for each in pools] or [variant.get("InstanceType")]
        for kind in kinds:
            if not self.scenarios.is_short_of(kind):
                return None if kind is None else str(kind)
        raise NotServing(
            "Unable to provision requested ML compute capacity due to InsufficientInstanceCapacity error. Please retry "
            "using a different ML instance type or after some time."
        )

    def start_variant(
        self, backend: SageMakerModelBackend, endpoint: str, variant: Parameters, config: EndpointConfig | None = None
    ) -> Variant:
        """The variant or component with its healthy container. Raises `NotServing`.

        Without `config` the endpoint's current configuration applies.
        """
        used = config or backend.endpoint_configs.get(backend.endpoints[endpoint].endpoint_config_name)
        model = backend._models.get(variant.get("ModelName", ""))
        if not isinstance(model, Model):  # an endpoint of inference components has variants without a model
            return Variant(configuration=variant, images=[], instance=None)
        containers = _containers(model.request)
        images = [self._deployed(each["Image"]) for each in containers if each.get("Image")]
        if self.hosting.launcher is None:
            return Variant(configuration=variant, images=images, instance=None)
        if len(containers) != 1 or not images:
            raise NotServing("The embedded SageMaker serves models of one container with an image, and no others.")
        container = containers[0]
        role = str(model.request.get("ExecutionRoleArn", ""))
        has_instances = any(variant.get(key) for key in ("InstanceType", "InstancePools", "ServerlessConfig"))
        name = str(variant["VariantName"])
        log_target = LogTarget(
            account_id=backend.account_id,
            region=backend.region_name,
            group=f"{ENDPOINT_LOGS}/{endpoint}" if has_instances else f"{COMPONENT_LOGS}/{name}",
            variant=name,
            role=role,
        )
        serve = Serve(
            endpoint=endpoint,
            variant=str(variant["VariantName"]),
            image=self._pulled(container["Image"]),
            environment={
                **_credentials(role, backend.region_name),
                "AWS_REGION": backend.region_name,
                **container.get("Environment", {}),
            },
            on_log=lambda log: follow(log, log_target, self.iam, lambda each: str(each) in self.hosting.running()),
            model_folder=self._model_data(backend, model.model_name, container),
            startup_seconds=variant.get("ContainerStartupHealthCheckTimeoutInSeconds", STARTUP_SECONDS) / self.faster,
            scrape_seconds=scraping.interval(used.request, variant) if isinstance(used, EndpointConfig) else None,
        )
        return Variant(configuration=variant, images=images, instance=self.hosting.start(serve))

    def _stop(self, variants: list[Variant]) -> None:
        for each in variants:
            if each.instance:
                self.hosting.stop(each.instance)

    # images

    def _check_image(self, backend: SageMakerModelBackend, image: str) -> None:
        """Refuse an image of the account's ECR that is missing or has a manifest type that SageMaker does not take."""
        reference = EcrReference.parse(image, port=self.port)
        if reference is None or reference.account not in (None, backend.account_id):
            return
        found = ecr.resolve(reference)
        if found is None:
            raise ValidationError(message=f"Requested image {image} not found.")
        media_type = found[1].image_manifest_media_type
        if media_type != ecr.DOCKER_MANIFEST:
            raise ValidationError(
                message=f"Unsupported manifest media type {media_type} for image {image}. "
                "Ensure that valid manifest media type is used for specified image."
            )

    def _check_role(self, backend: SageMakerModelBackend, arn: str, image: str) -> None:
        """Refuse a role that may not pull the image, for example because its policy is created after the model."""
        reference = EcrReference.parse(image, port=self.port)
        if reference is None or reference.account is None or reference.region is None or not arn:
            return
        account_id, region = backend.account_id, backend.region_name
        role = self.iam.assume(arn, "sagemaker.amazonaws.com", account_id=account_id, region=region)
        repository = (
            f"arn:{backend.partition}:ecr:{reference.region}:{reference.account}:repository/{reference.repository}"
        )
        for action in PULL_ACTIONS:
            resource = repository if action != "ecr:GetAuthorizationToken" else "*"
            if not self.iam.decide(role, action, resource, {}, account_id=account_id, region=region).allowed:
                right = action.partition(":")[2]
                raise ValidationError(
                    message=f"Role '{arn}' does not have {right} permission for the image: '{image}'."
                )

    def _find(self, image: str) -> tuple[Repository, Image] | None:
        reference = EcrReference.parse(image, port=self.port)
        return ecr.resolve(reference) if reference else None

    def _pulled(self, image: str) -> str:
        if found := self._find(image):
            return f"127.0.0.1:{self.port}/{found[0].name}@{found[1].image_digest}"
        return image

    def _deployed(self, image: str) -> Parameters:
        deployed: Parameters = {"SpecifiedImage": image, "ResolutionTime": datetime.now(timezone.utc)}
        if found := self._find(image):
            deployed["ResolvedImage"] = f"{found[0].uri}@{found[1].image_digest}"
        return deployed

    # model data

    def _model_data(self, backend: SageMakerModelBackend, model: str, container: Parameters) -> Path | None:
        """Download the model data from S3 to a folder, which becomes `/opt/ml/model`."""
        source = container.get("ModelDataSource", {}).get("S3DataSource", {})
        url = container.get("ModelDataUrl") or source.get("S3Uri")
        if not url:
            return None
        self._require_data(backend, model, url)
        folder = self.models_folder / model
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        keys = _objects(backend, url)
        if not keys:
            raise NotServing(f"Failed to download model data from URL {url}: no such object.")
        if container.get("ModelDataUrl") or source.get("CompressionType") == "Gzip":
            _unpack(next(iter(keys.values())), folder)
        else:
            for name, content in keys.items():
                target = (folder / name).resolve()
                if not target.is_relative_to(folder.resolve()):
                    raise NotServing(f"Failed to download model data from URL {url}: {name} leaves the folder.")
                target.parent.mkdir(parents=True, exist_ok=True)
                target.write_bytes(content)
        return folder

    def _require_data(self, backend: SageMakerModelBackend, model: str, url: str) -> None:
        """Raise `NotServing` unless the model's role may read the data, and list it where the URL is a prefix."""
        account_id, region = backend.account_id, backend.region_name
        parts = urlsplit(url)
        bucket, key = f"arn:{backend.partition}:s3:::{parts.netloc}", parts.path.lstrip("/")
        arn = str(getattr(backend._models[model], "request", {}).get("ExecutionRoleArn", ""))
        try:
            role = self.iam.assume(arn, "sagemaker.amazonaws.com", account_id=account_id, region=region)
            if key.endswith("/"):
                listing = {"s3:prefix": key}
                self.iam.require(role, "s3:ListBucket", bucket, listing, account_id=account_id, region=region)
            for name in _objects(backend, url):
                resource = f"{bucket}/{key}{name}" if key.endswith("/") else f"{bucket}/{key}"
                self.iam.require(role, "s3:GetObject", resource, account_id=account_id, region=region)
        except Refusal as refusal:
            message = f"Failed to download model data from URL {url}: {refusal.message}"
            raise NotServing(message[:1024]) from None

    def _configuration(self, backend: SageMakerModelBackend, name: str) -> EndpointConfig:
        configuration = backend.endpoint_configs.get(name)
        if not isinstance(configuration, EndpointConfig):
            arn = FakeEndpointConfig.arn_formatter(name, backend.account_id, backend.region_name)
            raise ValidationError(message=f'Could not find endpoint configuration "{arn}".')
        return configuration


def _refuse_scaled_type(backend: SageMakerModelBackend, endpoint: Endpoint, new: EndpointConfig) -> None:
    """Refuse another instance type of a scalable target's variant ("Update endpoints that use automatic scaling")."""
    targets = applicationautoscaling_backends[backend.account_id][backend.region_name].targets
    scaled = targets.get("sagemaker:variant:DesiredInstanceCount", {})
    wanted = {each["VariantName"]: each.get("InstanceType") for each in new.request["ProductionVariants"]}
    for variant in endpoint.variants:
        before, after = variant.configuration.get("InstanceType"), wanted.get(variant.name)
        if f"endpoint/{endpoint.endpoint_name}/variant/{variant.name}" in scaled and before != after:
            raise ValidationError(
                message=f"Cannot update endpoint {endpoint.endpoint_name}: the instance type of variant {variant.name} "
                f"cannot change from {before} to {after} while it is registered as a scalable target with Application "
                "Auto Scaling. Deregister the scalable target first."
            )


def _containers(model: Parameters) -> list[Parameters]:
    return [model["PrimaryContainer"]] if model.get("PrimaryContainer") else list(model.get("Containers", []))


def _objects(backend: SageMakerModelBackend, url: str) -> dict[str, bytes]:
    """The objects at an S3 URL by their path below the prefix; a single object by its file name."""
    parts = urlsplit(url)
    prefix = parts.path.lstrip("/")
    bucket = s3_backends[backend.account_id][backend.partition].buckets.get(parts.netloc)
    found: dict[str, bytes] = {}
    if bucket is None:
        return found
    for key in list(bucket.keys):
        if key == prefix or (prefix.endswith("/") and key.startswith(prefix) and key != prefix):
            name = key.removeprefix(prefix) or key.rsplit("/", 1)[-1]
            found[name] = bucket.keys[key].value
    return found


def _unpack(archive: bytes, folder: Path) -> None:
    try:
        with tarfile.open(fileobj=io.BytesIO(archive), mode="r:gz") as tar:
            tar.extractall(folder, filter="data")
    except (tarfile.TarError, OSError, EOFError) as error:
        raise NotServing(f"Failed to extract model data: {error}") from None


def _credentials(role: str, region: str) -> dict[str, str]:
    """The environment with the credentials of a model's role. Raises `NotServing`."""
    try:
        return environment_of_role(role or None, region, "SageMaker", "sagemaker.amazonaws.com")
    except Refusal as refusal:
        raise NotServing(refusal.message) from None


def find_endpoint(account_id: str, region_name: str, name: str) -> Endpoint | None:
    endpoint = sagemaker_backends[account_id][region_name].endpoints.get(name)
    return endpoint if isinstance(endpoint, Endpoint) else None


def install(sagemaker: SageMaker) -> None:
    """Change moto's SageMaker in this process."""

    def create_model(self: SageMakerResponse) -> ActionResult:
        return ActionResult({"ModelArn": sagemaker.create_model(self.sagemaker_backend, self._get_params()).arn})

    def create_endpoint_config(self: SageMakerResponse) -> ActionResult:
        configuration = sagemaker.create_endpoint_config(self.sagemaker_backend, self._get_params())
        return ActionResult({"EndpointConfigArn": configuration.endpoint_config_arn})

    def create_endpoint(self: SageMakerResponse) -> ActionResult:
        return ActionResult({"EndpointArn": sagemaker.create_endpoint(self.sagemaker_backend, self._get_params()).arn})

    def update_endpoint(self: SageMakerResponse) -> ActionResult:
        return ActionResult({"EndpointArn": sagemaker.update_endpoint(self.sagemaker_backend, self._get_params()).arn})

    def update_endpoint_weights_and_capacities(self: SageMakerResponse) -> ActionResult:
        endpoint = sagemaker.update_weights_and_capacities(self.sagemaker_backend, self._get_params())
        return ActionResult({"EndpointArn": endpoint.arn})

    def delete_endpoint(self: SageMakerResponse) -> EmptyResult:
        sagemaker.delete_endpoint(self.sagemaker_backend, self._get_param("EndpointName"))
        return EmptyResult()

    def list_models(self: SageMakerResponse) -> ActionResult:
        asked = self._get_param("NameContains") or ""
        found = [each for name, each in list(self.sagemaker_backend._models.items()) if asked.lower() in name.lower()]
        return ActionResult({"Models": [each.response_object for each in found]})

    for operation in (
        create_model,
        list_models,
        create_endpoint_config,
        create_endpoint,
        update_endpoint,
        update_endpoint_weights_and_capacities,
        delete_endpoint,
    ):
        setattr(SageMakerResponse, operation.__name__, operation)
