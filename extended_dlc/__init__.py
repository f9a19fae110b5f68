"""Extend an AWS Deep Learning Container and serve any Hugging Face Hub model with it on SageMaker.

The names load when they are first used, so that `extended_dlc.facts` and the command line never pay for the CDK.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from extended_dlc.build import LocalBuild
    from extended_dlc.endpoint import HuggingFaceEndpoint, InvokableEndpoint
    from extended_dlc.hosting import RealTime
    from extended_dlc.image import EcrImage, ExtendedDlc, PublishedImage, ServingImage, StockDlc
    from extended_dlc.inference_code import InferenceCode
    from extended_dlc.mirror import MirroredModel
    from extended_dlc.model import HubModel, PlacedModel, S3Model, ServedModel

_HOMES = {
    "EcrImage": "image",
    "ExtendedDlc": "image",
    "HubModel": "model",
    "HuggingFaceEndpoint": "endpoint",
    "InferenceCode": "inference_code",
    "InvokableEndpoint": "endpoint",
    "LocalBuild": "build",
    "MirroredModel": "mirror",
    "PlacedModel": "model",
    "PublishedImage": "image",
    "RealTime": "hosting",
    "S3Model": "model",
    "ServedModel": "model",
    "ServingImage": "image",
    "StockDlc": "image",
}

__all__ = [
    "EcrImage",
    "ExtendedDlc",
    "HubModel",
    "HuggingFaceEndpoint",
    "InferenceCode",
    "InvokableEndpoint",
    "LocalBuild",
    "MirroredModel",
    "PlacedModel",
    "PublishedImage",
    "RealTime",
    "S3Model",
    "ServedModel",
    "ServingImage",
    "StockDlc",
]
__version__ = "0.1.0"


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'extended_dlc' has no attribute '{name}'")
    return getattr(import_module(f"extended_dlc.{_HOMES[name]}"), name)


def __dir__() -> list[str]:
    return [*__all__, "__version__"]
