"""The options of an endpoint, with the types of values that each option takes."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields, replace
from typing import TYPE_CHECKING, Any, TypeVar

from constructs import Construct

from extended_dlc.decisions.asked import EndpointAsked
from extended_dlc.decisions.decide import Decision, decide
from extended_dlc.decisions.of_endpoint import EndpointDecision, volume_gb
from extended_dlc.images.decided import image_asked, model_asked, parts_asked, refuse, region_of, way_out
from extended_dlc.images.published import ServingImage
from extended_dlc.models.model import ServedModel
from extended_dlc.options._values import OptionError
from extended_dlc.options.capture import DataCapture
from extended_dlc.options.hosting import (
    MAIN_VARIANT,
    Async,
    Components,
    Hosting,
    Instances,
    RealTime,
    Serverless,
)
from extended_dlc.options.monitoring import Metrics, Monitoring
from extended_dlc.options.network import Network
from extended_dlc.options.proof import Proof
from extended_dlc.options.rollout import AllAtOnce, Canary, Linear, Rolling, Rollout
from extended_dlc.options.schedule import ByHand, OfficeHours
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

    def __post_init__(self) -> None:
        """Refuse values of a type that an option does not take."""
        for each in fields(self):
            is_right, wanted = _KINDS[each.name]
            value = getattr(self, each.name)
            is_left_out = value is None and "None" in str(each.type)
            if not is_left_out and not is_right(value):
                # The message does not show the values of environment variables: one may be a secret.
                shown = "…" if each.name == "environment" else repr(value)[:80]
                raise OptionError(each.name, shown, f"is {_kind(value)} and must be {wanted}")

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


def _with(*members: str) -> Callable[[object], bool]:
    """Recognize objects of the CDK and of user-defined classes by their attributes."""
    return lambda value: not isinstance(value, type) and all(hasattr(value, name) for name in members)


def _of(*kinds: type) -> Callable[[object], bool]:
    return lambda value: isinstance(value, kinds)


def _is_schedule(value: object) -> bool:
    return isinstance(value, (OfficeHours, ByHand)) or hasattr(value, "turns")


_KINDS: Mapping[str, tuple[Callable[[object], bool], str]] = {
    "model": (_with("place_for"), "a HubModel, S3Model or MirroredModel, or the id of a model on the Hub as a text"),
    "image": (_with("publish_for", "grant_pull"), 'an ExtendedDlc, StockDlc or EcrImage, as StockDlc(base="…")'),
    "hosting": (
        _of(RealTime, Async, Serverless, Components),
        'a RealTime, Async, Serverless or Components, as RealTime(instance_type="ml.g5.xlarge")',
    ),
    "rollout": (_of(AllAtOnce, Canary, Linear, Rolling), "an AllAtOnce, Canary, Linear or Rolling"),
    "environment": (_of(Mapping), "a mapping of texts to texts"),
    "vllm": (_of(VllmServing), "a VllmServing"),
    "role": (_with("role_arn"), 'an iam.IRole, as iam.Role.from_role_arn(self, "Role", "arn:…")'),
    "role_path": (_of(str), "a text, as /speech/"),
    "permissions_boundary": (
        _with("managed_policy_arn"),
        'an iam.IManagedPolicy, as iam.ManagedPolicy.from_managed_policy_arn(self, "Boundary", "arn:…")',
    ),
    "network": (_of(Network), "a Network, as Network(vpc=vpc)"),
    "network_isolation": (_of(bool), "True or False"),
    "encryption_key": (_with("key_arn"), 'a kms.IKey, as kms.Key.from_key_arn(self, "Key", "arn:…")'),
    "data_capture": (_of(DataCapture), "a DataCapture"),
    "metrics": (_of(Metrics), "a Metrics"),
    "monitoring": (_of(Monitoring), "a Monitoring"),
    "schedule": (_is_schedule, "an OfficeHours, a ByHand or a Switch"),
    "verify": (_of(Proof, bool), "a Proof, True or False"),
}
"""What each option takes: the check of a value, and the text for the error message."""


def _kind(value: object) -> str:
    name = type(value).__name__
    if isinstance(value, type):
        return f"the class {value.__name__} itself, without '()',"
    return {"str": "a text", "dict": "a mapping", "list": "a list", "NoneType": "None"}.get(
        name, f"of the class {name}"
    )


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
