"""Endpoints in stacks of the tests, and what their templates hold."""

from __future__ import annotations

from typing import Any

from aws_cdk import Stack
from aws_cdk.assertions import Template

from extended_dlc import (
    HubModel,
    HuggingFaceEndpoint,
    StockDlc,
)

IMAGE = "registry.example.com/huggingface-pytorch-inference:2.6.0-transformers4.51.3-{}-py312-{}ubuntu22.04-v2.0"


CPU = IMAGE.format("cpu", "")


GPU = IMAGE.format("gpu", "cu124-")


Json = dict[str, Any]


def endpoint_in(stack: Stack, construct_id: str = "Bloom", *, base: str = CPU, **options: Any) -> HuggingFaceEndpoint:
    """An endpoint on an image that is not built, so that nothing is staged."""
    given = {"model": HubModel("bloom", revision="a" * 40), "image": StockDlc(base=base), "endpoint_name": "bloom"}
    return HuggingFaceEndpoint(stack, construct_id, **{**given, **options})


def properties(stack: Stack, kind: str, match: str = "") -> Json:
    found = Template.from_stack(stack).find_resources(kind)
    (only,) = [each for name, each in found.items() if name.startswith(match)]
    return dict(only["Properties"])


def config(stack: Stack) -> Json:
    return properties(stack, "AWS::SageMaker::EndpointConfig")


def variant(stack: Stack) -> Json:
    (only,) = config(stack)["ProductionVariants"]
    return dict(only)


def statements(stack: Stack, role: str = "BloomRole") -> list[Json]:
    document = properties(stack, "AWS::IAM::Policy", role)["PolicyDocument"]
    return list(document["Statement"])


def allowed(stack: Stack, action: str, role: str = "BloomRole") -> Any:
    """The resource that the role may do this to."""
    (found,) = [each for each in statements(stack, role) if action in each["Action"]]
    return found["Resource"]
