"""One image and the endpoints that it serves."""

from __future__ import annotations

from typing import Any

from aws_cdk import Annotations, CfnOutput, RemovalPolicy, Stack, Tags
from constructs import Construct

from extended_dlc import (
    ByHand,
    ExtendedDlc,
    HuggingFaceEndpoint,
    OfficeHours,
    ServedModel,
    ServingImage,
    StockDlc,
    Switch,
    TrainedModel,
)
from extended_dlc.app.aws_names import output_name
from extended_dlc.app.read import SettingsError
from extended_dlc.app.schema import Settings
from extended_dlc.app.settings import Read
from extended_dlc.app.stacks.commands import commands
from extended_dlc.app.stacks.lookups import Lookups, find_image, note_lookups, place_functions
from extended_dlc.decisions.decide import Decision
from extended_dlc.facts.limits import most


class EndpointStack(Stack):
    """The stack that `cdk deploy` deploys: an image and its endpoints."""

    def __init__(self, scope: Construct, construct_id: str, *, read: Read, **kwargs: Any) -> None:
        """Define the image and each endpoint of settings that were read, as it was decided for all of them.

        `SettingsError` for settings that are not valid, and for what only the constructs find wrong with them.
        """
        if read.problems or read.settings is None:
            raise SettingsError(read.report)
        settings, decision = read.settings, read.decision
        super().__init__(scope, construct_id, **kwargs)
        note_lookups(self, read.looked_up)
        place_functions(self, settings)
        for tag, value in settings.tags.items():
            Tags.of(self).add(tag, value)
        self.image = self._image(settings, decision)
        schedule: Any = settings.schedule
        self.switch = self._switch(schedule.into_option()) if schedule is not None else None
        self.endpoints = {}
        self.trained: dict[str, TrainedModel] = {}
        """The models that trainings replace, by the ids of their endpoints."""
        self._left = most("stack.outputs") - len(settings.endpoints) - 1
        for key in settings.endpoints:
            try:
                self.endpoints[key] = self._endpoint(key, settings)
            except ValueError as error:  # The decision should have found this; the message is a sentence all the same.
                raise SettingsError(f"the settings are not valid:\n  endpoints.{key}: {error}") from error
        if isinstance(self.image, ExtendedDlc):
            CfnOutput(self, "ImageUri", value=self.image.image_uri, description="The extended image")

    def _switch(self, schedule: OfficeHours | ByHand) -> Switch:
        """One switch for all endpoints: CloudFormation refuses a second update of the stack at the same time."""
        switch = Switch(self, "Switch", schedule=schedule, what="each endpoint")
        switch.parameter.override_logical_id("EndpointEnabled")
        return switch

    def _image(self, settings: Settings, decision: Decision) -> ServingImage:
        """The image; family and accelerator are what all endpoints together decide, whatever their order."""
        image: Any = settings.image
        decided = decision.image
        base_region = decided.base_region
        match image.kind:
            case "stock":
                return StockDlc(transformers=image.transformers, base=image.base, region=base_region)
            case "ecr":
                return find_image(self, image)
        options = {name: getattr(image, name) for name in image.model_fields_set - {"kind", "build"}}
        return ExtendedDlc(
            self,
            "Image",
            **{
                **options,
                "base_region": base_region,
                "family": decided.family,
                "accelerator": decided.accelerator,
                "build": Lookups(self, "Image", settings.name).build(image.build),
            },
            # the images can be built again from these settings: `cdk destroy` leaves nothing that costs
            removal_policy=RemovalPolicy.DESTROY,
        )

    def _endpoint(self, key: str, settings: Settings) -> HuggingFaceEndpoint:
        name = f"{settings.name}-{key}"
        section: Any = settings.endpoints[key]
        lookups = Lookups(self, key, name)
        endpoint = HuggingFaceEndpoint(
            self,
            key,
            model=self._model(key, section, settings, lookups),
            image=self.image,
            endpoint_name=name,
            schedule=self.switch,
            **lookups.options(section),
        )
        self._output(key, "Name", endpoint.endpoint_name, f"Endpoint of {section.model}")
        parts = lookups.components(section)
        for part, served in parts.items():  # A request to an endpoint of components names the component.
            found = commands(served, endpoint, component=f"{name}-{part}" if part else None)
            for output, (command, description) in found.items():
                self._output(key, f"{output}{part}", command, description)
            url = endpoint.openai_base_urls.get(f"{name}-{part}") if part else endpoint.openai_base_url
            if url is not None:
                what = f"Base URL for clients of OpenAI, if {served.model} has a chat template: extended-dlc token"
                self._output(key, f"OpenAIBaseUrl{part}", url, what)
        return endpoint

    def _model(self, key: str, section: Any, settings: Settings, lookups: Lookups) -> ServedModel:
        """The endpoint's model; one that a training replaces is so from the first deployment on."""
        model = lookups.model(key, section)
        trainings: Any = settings.training
        training = next((each for each in trainings.values() if each.endpoint == key), None)
        if training is None:
            return model
        first: Any = model
        self.trained[key] = TrainedModel(self, f"{key}Trained", first=first, adapter=training.adapter == "beside")
        return self.trained[key]

    def _output(self, key: str, name: str, value: str, description: str) -> None:
        """Add an output. Where a stack has no room for all, each endpoint still has the one with its name."""
        if name != "Name":
            if self._left == 0:
                self._left = -1
                Annotations.of(self).add_info_v2(
                    "extended-dlc:outputs",
                    f"the outputs of '{key}' and of those after it have no commands, because a stack has at most "
                    f"{most('stack.outputs')} outputs: ask with 'extended-dlc ask NAME'",
                )
            if self._left < 0:
                return
            self._left -= 1
        output = CfnOutput(self, f"{key}{name}", value=value, description=description)
        output.override_logical_id(output_name(f"{key}{name}"))
