"""Extend an AWS Deep Learning Container and serve any Hugging Face Hub model with it on SageMaker.

The names load when they are first used, so that `extended_dlc.facts` and the command line never pay for the CDK.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from extended_dlc.constructs.nag import acknowledge_nag
    from extended_dlc.constructs.network import PrivateAccess
    from extended_dlc.constructs.platform_defaults import PlatformDefaults
    from extended_dlc.endpoint.endpoint import HuggingFaceEndpoint
    from extended_dlc.endpoint.invokable import InvokableEndpoint
    from extended_dlc.endpoint.schedule import Switch
    from extended_dlc.images.image import EcrImage, ExtendedDlc, StockDlc
    from extended_dlc.images.image_stack import ImageStack
    from extended_dlc.images.published import PublishedImage, ServingImage
    from extended_dlc.models.mirrored import MirroredDataset, MirroredModel
    from extended_dlc.models.model import HubModel, PlacedModel, S3Model, ServedModel
    from extended_dlc.options.build import AllowedFinding, CloudBuild, LocalBuild, ScanGate
    from extended_dlc.options.capture import DataCapture
    from extended_dlc.options.code import InferenceCode
    from extended_dlc.options.functions import Functions
    from extended_dlc.options.hosting import Async, Component, Components, RealTime, Serverless, Variant
    from extended_dlc.options.monitoring import Metrics, Monitoring
    from extended_dlc.options.network import Network
    from extended_dlc.options.placement import Consolidation, Placement, PrefixAware
    from extended_dlc.options.proof import Proof
    from extended_dlc.options.rollout import AllAtOnce, Canary, Linear, Rolling
    from extended_dlc.options.scaling import (
        BacklogScaling,
        ConcurrencyScaling,
        CopyConcurrencyScaling,
        CopyScaling,
        InvocationScaling,
        ProvisionedScaling,
        ScheduledCapacity,
    )
    from extended_dlc.options.schedule import ByHand, OfficeHours
    from extended_dlc.options.sharing import ImageVersion, Readers, Rebuilds
    from extended_dlc.options.training import EvaluationGate, S3Data, TrainingCode, TrainingInstances, TrainingSchedule
    from extended_dlc.options.vllm import VllmServing
    from extended_dlc.training.job import TrainingJob
    from extended_dlc.training.model import TrainedModel

_HOMES = {
    "AllAtOnce": "options.rollout",
    "AllowedFinding": "options.build",
    "Async": "options.hosting",
    "BacklogScaling": "options.scaling",
    "ByHand": "options.schedule",
    "Canary": "options.rollout",
    "CloudBuild": "options.build",
    "Component": "options.hosting",
    "Components": "options.hosting",
    "ConcurrencyScaling": "options.scaling",
    "Consolidation": "options.placement",
    "CopyConcurrencyScaling": "options.scaling",
    "CopyScaling": "options.scaling",
    "DataCapture": "options.capture",
    "EcrImage": "images.image",
    "EvaluationGate": "options.training",
    "ExtendedDlc": "images.image",
    "Functions": "options.functions",
    "HubModel": "models.model",
    "HuggingFaceEndpoint": "endpoint.endpoint",
    "ImageStack": "images.image_stack",
    "ImageVersion": "options.sharing",
    "InferenceCode": "options.code",
    "InvocationScaling": "options.scaling",
    "InvokableEndpoint": "endpoint.invokable",
    "Linear": "options.rollout",
    "LocalBuild": "options.build",
    "Metrics": "options.monitoring",
    "MirroredDataset": "models.mirrored",
    "MirroredModel": "models.mirrored",
    "Monitoring": "options.monitoring",
    "Network": "options.network",
    "OfficeHours": "options.schedule",
    "PlacedModel": "models.model",
    "Placement": "options.placement",
    "PlatformDefaults": "constructs.platform_defaults",
    "PrefixAware": "options.placement",
    "PrivateAccess": "constructs.network",
    "Proof": "options.proof",
    "ProvisionedScaling": "options.scaling",
    "PublishedImage": "images.published",
    "Readers": "options.sharing",
    "RealTime": "options.hosting",
    "Rebuilds": "options.sharing",
    "Rolling": "options.rollout",
    "S3Data": "options.training",
    "S3Model": "models.model",
    "ScanGate": "options.build",
    "ScheduledCapacity": "options.scaling",
    "ServedModel": "models.model",
    "Serverless": "options.hosting",
    "ServingImage": "images.published",
    "StockDlc": "images.image",
    "Switch": "endpoint.schedule",
    "TrainedModel": "training.model",
    "TrainingCode": "options.training",
    "TrainingInstances": "options.training",
    "TrainingJob": "training.job",
    "TrainingSchedule": "options.training",
    "Variant": "options.hosting",
    "VllmServing": "options.vllm",
    "acknowledge_nag": "constructs.nag",
}

__all__ = [
    "AllAtOnce",
    "AllowedFinding",
    "Async",
    "BacklogScaling",
    "ByHand",
    "Canary",
    "CloudBuild",
    "Component",
    "Components",
    "ConcurrencyScaling",
    "Consolidation",
    "CopyConcurrencyScaling",
    "CopyScaling",
    "DataCapture",
    "EcrImage",
    "EvaluationGate",
    "ExtendedDlc",
    "Functions",
    "HubModel",
    "HuggingFaceEndpoint",
    "ImageStack",
    "ImageVersion",
    "InferenceCode",
    "InvocationScaling",
    "InvokableEndpoint",
    "Linear",
    "LocalBuild",
    "Metrics",
    "MirroredDataset",
    "MirroredModel",
    "Monitoring",
    "Network",
    "OfficeHours",
    "PlacedModel",
    "Placement",
    "PlatformDefaults",
    "PrefixAware",
    "PrivateAccess",
    "Proof",
    "ProvisionedScaling",
    "PublishedImage",
    "Readers",
    "RealTime",
    "Rebuilds",
    "Rolling",
    "S3Data",
    "S3Model",
    "ScanGate",
    "ScheduledCapacity",
    "ServedModel",
    "Serverless",
    "ServingImage",
    "StockDlc",
    "Switch",
    "TrainedModel",
    "TrainingCode",
    "TrainingInstances",
    "TrainingJob",
    "TrainingSchedule",
    "Variant",
    "VllmServing",
    "acknowledge_nag",
]
__version__ = "0.1.0"


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'extended_dlc' has no attribute '{name}'")
    return getattr(import_module(f"extended_dlc.{_HOMES[name]}"), name)


def __dir__() -> list[str]:
    return [*__all__, "__version__"]
