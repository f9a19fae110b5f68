"""The commands that send a request to a deployed endpoint, for the outputs of the stack."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from aws_cdk import Stack

from extended_dlc import HuggingFaceEndpoint
from extended_dlc.facts.models import SPEECH

_PROMPT = "Hello, my name is"


def commands(served: Any, endpoint: HuggingFaceEndpoint, *, component: str | None) -> Mapping[str, tuple[str, str]]:
    """Each command with what it is, by the name of its output.

    :param served: The settings of the model that answers.
    :param component: Its component, of an endpoint of components.
    """
    parts = endpoint.decision.parts
    speech = next((each for each in parts if each.part.name == component), parts[0]).task == SPEECH
    region, name = Stack.of(endpoint).region, endpoint.endpoint_name
    which = f" --component {component}" if component else ""
    what = "--sample" if speech else f'"{_PROMPT}"'
    found = {"Ask": (f"extended-dlc ask {name} {what}{which} --region {region}", f"Asks {served.model}")}
    said = json.dumps({"prompt": _PROMPT, "max_tokens": 20} if endpoint.speaks_openai else {"inputs": _PROMPT})
    if endpoint.bucket is not None:
        kind, file = ("audio/wav", "speech.wav") if speech else ("application/json", "request.json")
        url = endpoint.bucket.s3_url_for_object(f"{name}/input/{file}")
        upload = f"aws s3 cp {file} {url}" if speech else f"echo '{said}' | aws s3 cp - {url}"
        command = (
            f"{upload} --region {region} && aws sagemaker-runtime invoke-endpoint-async --region {region} "
            f"--endpoint-name {name} --content-type {kind} --input-location {url}"
        )
        return {**found, "Invoke": (command, f"Sends {served.model} a request, by the AWS CLI 1 or 2")}
    if speech:
        command = _invoke(region, name, component, "--content-type audio/wav --body fileb://speech.wav")
        return {**found, "Invoke": (command, f"Sends {served.model} speech.wav, by the AWS CLI 1 or 2")}
    body = f"--body '{said}'"
    second = _invoke(
        region, name, component, f"--content-type application/json --cli-binary-format raw-in-base64-out {body}"
    )
    first = _invoke(region, name, component, f"--content-type application/json {body}")
    return {
        **found,
        "Invoke": (second, f"Sends {served.model} a request, by the AWS CLI 2"),
        # The AWS CLI 1 does not know --cli-binary-format, and sends every body as it is.
        "AwsCli1": (first, f"Sends {served.model} a request, by the AWS CLI 1"),
    }


def _invoke(region: str, name: str, component: str | None, payload: str) -> str:
    which = f"--inference-component-name {component} " if component else ""
    return (
        f"aws sagemaker-runtime invoke-endpoint --region {region} --endpoint-name {name} {which}{payload} /dev/stdout"
    )
