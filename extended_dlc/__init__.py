"""Extend an AWS Deep Learning Container and serve any Hugging Face Hub model with it on SageMaker.

The names load when they are first used, so that `extended_dlc.facts` and the command line never pay for the CDK.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from extended_dlc.build import LocalBuild
    from extended_dlc.capture import DataCapture
    from extended_dlc.endpoint import HuggingFaceEndpoint, InvokableEndpoint
    from extended_dlc.hosting import Async, Component, Components, RealTime, Serverless, Variant
    from extended_dlc.image import (
        EcrImage,
        ExtendedDlc,
        PublishedImage,
        ServingImage,
        StockDlc,
    )
    from extended_dlc.inference_code import InferenceCode
    from extended_dlc.mirror import MirroredModel
    from extended_dlc.model import HubModel, PlacedModel, S3Model, ServedModel
    from extended_dlc.monitoring import Monitoring
    from extended_dlc.network import Network, PrivateAccess
    from extended_dlc.rollout import AllAtOnce, Canary, Linear, Rolling
    from extended_dlc.scaling import (
        BacklogScaling,
        ConcurrencyScaling,
        CopyScaling,
        InvocationScaling,
        ProvisionedScaling,
        ScheduledCapacity,
    )
    from extended_dlc.schedule import ByHand, OfficeHours, Switch
    from extended_dlc.verify import Proof
    from extended_dlc.vllm import VllmServing

_HOMES = {
    "AllAtOnce": "rollout",
    "Async": "hosting",
    "BacklogScaling": "scaling",
    "ByHand": "schedule",
    "Canary": "rollout",
    "Component": "hosting",
    "Components": "hosting",
    "ConcurrencyScaling": "scaling",
    "CopyScaling": "scaling",
    "DataCapture": "capture",
    "EcrImage": "image",
    "ExtendedDlc": "image",
    "HubModel": "model",
    "HuggingFaceEndpoint": "endpoint",
    "InferenceCode": "inference_code",
    "InvocationScaling": "scaling",
    "InvokableEndpoint": "endpoint",
    "Linear": "rollout",
    "LocalBuild": "build",
    "MirroredModel": "mirror",
    "Monitoring": "monitoring",
    "Network": "network",
    "OfficeHours": "schedule",
    "PlacedModel": "model",
    "PrivateAccess": "network",
    "Proof": "verify",
    "ProvisionedScaling": "scaling",
    "PublishedImage": "image",
    "RealTime": "hosting",
    "Rolling": "rollout",
    "S3Model": "model",
    "ScheduledCapacity": "scaling",
    "ServedModel": "model",
    "Serverless": "hosting",
    "ServingImage": "image",
    "StockDlc": "image",
    "Switch": "schedule",
    "Variant": "hosting",
    "VllmServing": "vllm",
}

__all__ = [
    "AllAtOnce",
    "Async",
    "BacklogScaling",
    "ByHand",
    "Canary",
    "Component",
    "Components",
    "ConcurrencyScaling",
    "CopyScaling",
    "DataCapture",
    "EcrImage",
    "ExtendedDlc",
    "HubModel",
    "HuggingFaceEndpoint",
    "InferenceCode",
    "InvocationScaling",
    "InvokableEndpoint",
    "Linear",
    "LocalBuild",
    "MirroredModel",
    "Monitoring",
    "Network",
    "OfficeHours",
    "PlacedModel",
    "PrivateAccess",
    "Proof",
    "ProvisionedScaling",
    "PublishedImage",
    "RealTime",
    "Rolling",
    "S3Model",
    "ScheduledCapacity",
    "ServedModel",
    "Serverless",
    "ServingImage",
    "StockDlc",
    "Switch",
    "Variant",
    "VllmServing",
]
__version__ = "0.1.0"


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'extended_dlc' has no attribute '{name}'")
    return getattr(import_module(f"extended_dlc.{_HOMES[name]}"), name)


def __dir__() -> list[str]:
    return [*__all__, "__version__"]
