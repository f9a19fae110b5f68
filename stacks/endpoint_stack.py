"""One image and the endpoints that it serves."""

from __future__ import annotations

import json
from typing import Any

from aws_cdk import CfnOutput, Duration, RemovalPolicy, Stack, Tags
from aws_cdk import aws_codebuild as codebuild
from aws_cdk import aws_ecr as ecr
from aws_cdk import aws_s3 as s3
from aws_cdk import aws_secretsmanager as secretsmanager
from constructs import Construct

from extended_dlc import (
    ByHand,
    EcrImage,
    ExtendedDlc,
    HubModel,
    HuggingFaceEndpoint,
    LocalBuild,
    MirroredModel,
    OfficeHours,
    S3Model,
    ServedModel,
    ServingImage,
    StockDlc,
    Switch,
)
from extended_dlc.facts.hub import known_model_type
from stacks.hosting import ComponentsSettings
from stacks.models import HubWeightsSettings, LocalWeightsSettings, ModelSettings, S3WeightsSettings
from stacks.options import endpoint_options
from stacks.settings import EcrImageSettings, EndpointSettings, Settings, StockImageSettings


class EndpointStack(Stack):
    """What `cdk deploy` deploys."""

    def __init__(self, scope: Construct, construct_id: str, *, settings: Settings, **kwargs: Any) -> None:
        """Define the image and each endpoint of the settings."""
        super().__init__(scope, construct_id, **kwargs)
        for tag, value in settings.tags.items():
            Tags.of(self).add(tag, value)
        self.image = self._image(settings)
        self.switch = self._switch(settings.schedule.build()) if settings.schedule else None
        self.endpoints = {
            key: self._endpoint(key, endpoint, name=f"{settings.name}-{key}")
            for key, endpoint in settings.endpoints.items()
        }
        if isinstance(self.image, ExtendedDlc):  # whose family and base the first endpoint decides
            CfnOutput(self, "ImageUri", value=self.image.image_uri, description="The extended image")

    def _switch(self, schedule: OfficeHours | ByHand) -> Switch:
        """One switch for all: two stack updates at the same minute would get in each other's way."""
        switch = Switch(self, "Switch", schedule=schedule, what="each endpoint")
        switch.parameter.override_logical_id("EndpointEnabled")
        return switch

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
            family=image.family,
            server=image.server,
            model_types=image.model_types,
            rebuild=image.rebuild,
            build=LocalBuild(
                engine=image.build.engine, pip_config=image.build.pip_config, ca_bundle=image.build.ca_bundle
            ),
            # the images can be built again from these settings: `cdk destroy` leaves nothing that costs
            removal_policy=RemovalPolicy.DESTROY,
        )

    def _model(self, key: str, settings: ModelSettings) -> ServedModel:
        weights = settings.weights
        common: Any = {"task": settings.task, "trust_remote_code": settings.trust_remote_code}
        known_type = settings.model_type or known_model_type(settings.model)
        if isinstance(weights, S3WeightsSettings):
            bucket = s3.Bucket.from_bucket_name(self, f"{key}Bucket", weights.bucket)
            return S3Model(bucket, weights.key, model_type=known_type, **common)
        if isinstance(weights, LocalWeightsSettings):
            return S3Model.from_local(weights.folder, model_type=settings.model_type, **common)
        token = self._secret(f"{key}Token", weights.token_secret) if weights.token_secret else None
        common |= {"model_type": settings.model_type, "token": token}
        if isinstance(weights, HubWeightsSettings):
            return HubModel(
                settings.model,
                settings.revision,
                parameters=settings.parameters,
                code=weights.inference_code(),
                **common,
            )
        project, bucket_name = weights.project, weights.bucket
        return MirroredModel(
            self,
            f"{key}Weights",
            model=settings.model,
            revision=str(settings.revision),
            bucket=s3.Bucket.from_bucket_name(self, f"{key}Bucket", bucket_name) if bucket_name else None,
            project=codebuild.Project.from_project_name(self, f"{key}Project", project) if project else None,
            timeout=Duration.minutes(weights.timeout_minutes),
            **common,
        )

    def _secret(self, construct_id: str, named: str) -> secretsmanager.ISecret:
        if named.startswith("arn:"):
            return secretsmanager.Secret.from_secret_complete_arn(self, construct_id, named)
        return secretsmanager.Secret.from_secret_name_v2(self, construct_id, named)

    def _endpoint(self, key: str, settings: EndpointSettings, *, name: str) -> HuggingFaceEndpoint:
        parts = settings.hosting.components if isinstance(settings.hosting, ComponentsSettings) else {}
        named = {part: each for part, each in parts.items() if each.model is not None}
        models = {part: self._model(f"{key}Component{part}", each) for part, each in named.items()}
        endpoint = HuggingFaceEndpoint(
            self,
            key,
            model=self._model(key, settings),
            image=self.image,
            environment=settings.environment,
            endpoint_name=name,
            schedule=self.switch,
            **endpoint_options(self, key, settings, name=name, models=models),
        )
        self._output(key, "Name", endpoint.endpoint_name, f"Endpoint of {settings.model}")
        for part in parts or [""]:  # a request to components says which
            served = named.get(part, settings)
            command = _invoke_command(served, endpoint, component=f"{name}-{part}" if part else None)
            self._output(key, f"Invoke{part}", command, f"Sends {served.model} a request")
        return endpoint

    def _output(self, key: str, name: str, value: str, description: str) -> None:
        """An output that reads well on the command line: `bloomInvoke`, without the hash of its path."""
        output = CfnOutput(self, f"{key}{name}", value=value, description=description)
        output.override_logical_id("".join(filter(str.isalnum, f"{key}{name}")))


def _invoke_command(settings: ModelSettings, endpoint: HuggingFaceEndpoint, *, component: str | None) -> str:
    """A command that is ready to paste: a prompt, or a sound file where the model is known to want one."""
    if endpoint.speaks_openai:
        body = json.dumps({"prompt": "Hello, my name is", "max_tokens": 20})
    else:
        body = json.dumps({"inputs": "Hello, my name is"})
    speech = settings.task == "automatic-speech-recognition" or "whisper" in settings.model.lower()
    if speech:
        payload = "--content-type audio/wav --body fileb://speech.wav"
    else:
        payload = f"--content-type application/json --cli-binary-format raw-in-base64-out --body '{body}'"
    if endpoint.bucket is not None:
        kind, name = ("audio/wav", "speech.wav") if speech else ("application/json", "request.json")
        place = endpoint.bucket.s3_url_for_object(f"{endpoint.endpoint_name}/input/{name}")
        return (
            f"aws s3 cp {name} {place} && aws sagemaker-runtime invoke-endpoint-async --region "
            f"{Stack.of(endpoint).region} --endpoint-name {endpoint.endpoint_name} --content-type {kind} "
            f"--input-location {place}"
        )
    which = f"--inference-component-name {component} " if component else ""
    return (
        f"aws sagemaker-runtime invoke-endpoint --region {Stack.of(endpoint).region} "
        f"--endpoint-name {endpoint.endpoint_name} {which}{payload} /dev/stdout"
    )
