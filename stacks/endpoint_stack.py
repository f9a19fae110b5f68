"""One image and the endpoints that it serves."""

from __future__ import annotations

import json
from typing import Any

from aws_cdk import CfnOutput, RemovalPolicy, Stack
from aws_cdk import aws_ecr as ecr
from constructs import Construct

from extended_dlc import (
    EcrImage,
    ExtendedDlc,
    HubModel,
    HuggingFaceEndpoint,
    LocalBuild,
    RealTime,
    ServingImage,
    StockDlc,
)
from stacks.settings import EcrImageSettings, EndpointSettings, Settings, StockImageSettings


class EndpointStack(Stack):
    """What `cdk deploy` deploys."""

    def __init__(self, scope: Construct, construct_id: str, *, settings: Settings, **kwargs: Any) -> None:
        """Define the image and each endpoint of the settings."""
        super().__init__(scope, construct_id, **kwargs)
        self.image = self._image(settings)
        if isinstance(self.image, ExtendedDlc):
            CfnOutput(self, "ImageUri", value=self.image.image_uri, description="The extended image")
        self.endpoints = {
            key: self._endpoint(key, endpoint, name=f"{settings.name}-{key}")
            for key, endpoint in settings.endpoints.items()
        }

    def _image(self, settings: Settings) -> ServingImage:
        image = settings.image
        if isinstance(image, StockImageSettings):
            return StockDlc(transformers=image.transformers, base=image.base, region=image.base_region)
        if isinstance(image, EcrImageSettings):
            named = image.repository.startswith("arn:")
            lookup = ecr.Repository.from_repository_arn if named else ecr.Repository.from_repository_name
            repository = lookup(self, "Published", image.repository)
            return EcrImage(repository, image.tag, accelerator=image.accelerator, cuda=image.cuda)
        return ExtendedDlc(
            self,
            "Image",
            transformers=image.transformers,
            base=image.base,
            base_region=image.base_region,
            accelerator=settings.accelerator,
            server=image.server,
            model_types=image.model_types,
            rebuild=image.rebuild,
            build=LocalBuild(
                engine=image.build.engine, pip_config=image.build.pip_config, ca_bundle=image.build.ca_bundle
            ),
            # the images can be built again from these settings: `cdk destroy` leaves nothing that costs
            removal_policy=RemovalPolicy.DESTROY,
        )

    def _endpoint(self, key: str, settings: EndpointSettings, *, name: str) -> HuggingFaceEndpoint:
        endpoint = HuggingFaceEndpoint(
            self,
            key,
            model=HubModel(
                settings.model,
                revision=settings.revision,
                task=settings.task,
                model_type=settings.model_type,
            ),
            image=self.image,
            hosting=RealTime(
                instance_type=settings.hosting.instance_type,
                instances=settings.hosting.instances,
                startup_timeout_seconds=settings.hosting.startup_timeout_seconds,
            ),
            environment=settings.environment,
            endpoint_name=name,
        )
        self._output(key, "Name", endpoint.endpoint_name, f"Endpoint of {settings.model}")
        self._output(key, "Invoke", _invoke_command(settings, endpoint), f"Sends {settings.model} a request")
        return endpoint

    def _output(self, key: str, name: str, value: str, description: str) -> None:
        """An output that reads well on the command line: `bloomInvoke`, without the hash of its path."""
        output = CfnOutput(self, f"{key}{name}", value=value, description=description)
        output.override_logical_id(f"{''.join(filter(str.isalnum, key))}{name}")


def _invoke_command(settings: EndpointSettings, endpoint: HuggingFaceEndpoint) -> str:
    """A command that is ready to paste: a prompt, or a sound file where the model is known to want one."""
    speech = settings.task == "automatic-speech-recognition" or "whisper" in settings.model.lower()
    if speech:
        payload = "--content-type audio/wav --body fileb://speech.wav"
    else:
        body = json.dumps({"inputs": "Hello, my name is"})
        payload = f"--content-type application/json --cli-binary-format raw-in-base64-out --body '{body}'"
    return (
        f"aws sagemaker-runtime invoke-endpoint --region {Stack.of(endpoint).region} "
        f"--endpoint-name {endpoint.endpoint_name} {payload} /dev/stdout"
    )
