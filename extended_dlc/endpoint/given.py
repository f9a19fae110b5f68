"""The options of an endpoint, with the types of values that each option takes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, TypeVar

from constructs import Construct

from extended_dlc.decisions.asked import EndpointAsked
from extended_dlc.decisions.decide import Decision, decide
from extended_dlc.decisions.of_endpoint import EndpointDecision, volume_gb
from extended_dlc.images.decided import image_asked, model_asked, parts_asked, refuse, region_of, way_out
from extended_dlc.images.published import ServingImage
from extended_dlc.models.model import ServedModel
from extended_dlc.options.capture import DataCapture
from extended_dlc.options.hosting import (
    MAIN_VARIANT,
    Components,
    Hosting,
    Instances,
    RealTime,
    Serverless,
)
from extended_dlc.options.monitoring import Metrics, Monitoring
from extended_dlc.options.network import Network
from extended_dlc.options.proof import Proof
from extended_dlc.options.rollout import Rollout
from extended_dlc.options.vllm import VllmServing

if TYPE_CHECKING:
    from aws_cdk import aws_iam as iam
    from aws_cdk import aws_kms as kms

    from extended_dlc.endpoint.schedule import Schedule


@dataclass(frozen=True, kw_only=True)
class EndpointOptions:
    """The options of `HuggingFaceEndpoint`, which describes them."""

    model: ServedModel
    image: ServingImage
    hosting: Hosting
    rollout: Rollout | None
    environment: Mapping[str, str] | None
    vllm: VllmServing | None
    role: iam.IRole | None
    role_path: str | None
    permissions_boundary: iam.IManagedPolicy | None
    network: Network | None
    network_isolation: bool
    encryption_key: kms.IKey | None
    data_capture: DataCapture | None
    metrics: Metrics | None
    monitoring: Monitoring | None
    schedule: Schedule | None
    verify: Proof | bool

    def decide(self, scope: Construct) -> Decision:
        """Decide all that follows from the options; raises ValueError with the first refusal."""
        asked, network = image_asked(self.image), self.network
        endpoint = EndpointAsked(
            model=model_asked(scope, self.model),
            image=asked,
            hosting=self.hosting,
            parts=parts_asked(scope, self.hosting),
            environment=self.environment or {},
            vllm=self.vllm,
            rollout=self.rollout,
            network=network is not None,
            way_out=way_out(network) if network else None,
            subnets=len(network.subnets or network.vpc.select_subnets().subnet_ids) if network else None,
            network_isolation=self.network_isolation,
            data_capture=self.data_capture is not None,
            metrics=self.metrics,
            container_alarms=bool(self.monitoring and self.monitoring.container_alarms),
            encryption_key=self.encryption_key is not None,
            role=self.role is not None,
            role_path=self.role_path is not None,
            permissions_boundary=self.permissions_boundary is not None,
            verify=self.verify,
        )
        decision = decide(asked, [endpoint], region=region_of(scope))
        refuse(decision)
        return decision


Fleet = TypeVar("Fleet", bound=Instances)


def settle_hosting(hosting: Hosting, decided: EndpointDecision) -> Hosting:
    """The hosting with the decided timeouts and volume sizes."""
    parts = {part.part.name: part for part in decided.parts}

    def timeouts(name: str) -> dict[str, Any]:
        part = parts[name]
        return {
            "startup_timeout_seconds": part.startup_timeout_seconds,
            "download_timeout_seconds": part.download_timeout_seconds,
        }

    def settled(fleet: Fleet, name: str) -> Fleet:
        return replace(fleet, **timeouts(name), volume_gb=parts[name].volume_gb)

    if isinstance(hosting, Serverless):
        return hosting
    if isinstance(hosting, Components):
        components = tuple(replace(each, **timeouts(each.name)) for each in hosting.components)
        return replace(hosting, components=components, volume_gb=volume_gb(hosting, decided))
    if isinstance(hosting, RealTime):
        hosting = replace(
            hosting,
            variants=tuple(settled(each, each.name) for each in hosting.variants),
            shadow=settled(hosting.shadow, hosting.shadow.name) if hosting.shadow else None,
        )
    return settled(hosting, MAIN_VARIANT)
