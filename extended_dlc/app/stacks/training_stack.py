"""The trainings of the settings, each with its state machine."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from aws_cdk import CfnOutput, Duration, RemovalPolicy, Stack, Tags
from aws_cdk import aws_s3 as s3
from constructs import Construct

from extended_dlc import ExtendedDlc, MirroredDataset, S3Data, ServingImage, TrainingJob
from extended_dlc.app.aws_names import output_name
from extended_dlc.app.read import SettingsError
from extended_dlc.app.schema import HubChannel
from extended_dlc.app.settings import Read
from extended_dlc.app.stacks.endpoint_stack import EndpointStack
from extended_dlc.app.stacks.lookups import Lookups, find_image, note_lookups, place_functions
from extended_dlc.app.training import Around, base_of, training_image
from extended_dlc.decisions.asked import ImageAsked


class TrainingStack(Stack):
    """What trains the endpoints' models; it is deployed after the endpoints, and updates their stack."""

    def __init__(
        self, scope: Construct, construct_id: str, *, read: Read, endpoints: EndpointStack, **kwargs: Any
    ) -> None:
        """Define each training of settings that were read.

        `SettingsError` for what only the constructs find wrong with them.
        """
        super().__init__(scope, construct_id, **kwargs)
        assert read.settings is not None  # noqa: S101 - by EndpointStack
        self._settings, self._endpoints = read.settings, endpoints
        self._images: dict[ImageAsked, ServingImage] = {}
        self._around = Around.of(read)
        note_lookups(self, read.looked_up)
        place_functions(self, read.settings)
        for tag, value in read.settings.tags.items():
            Tags.of(self).add(tag, value)
        self.node.add_dependency(endpoints)
        self.jobs: dict[str, TrainingJob] = {}
        for key, section in read.settings.training.items():
            try:
                self.jobs[key] = self._job(key, section)
            except ValueError as error:
                # The report of the settings should have found this; the message is a sentence all the same.
                raise SettingsError(f"the settings are not valid:\n  training.{key}: {error}") from error

    def _job(self, key: str, section: Any) -> TrainingJob:
        name = f"{self._settings.name}-{key}"
        lookups = TrainingLookups(self, key, name)
        base = base_of(section, self._settings.endpoints)
        job = TrainingJob(
            self,
            key,
            image=self._image(section),
            base_model=lookups.model(f"{key}Base", base) if base is not None else None,  # type: ignore[arg-type]
            channels={channel: lookups.channel(channel, each) for channel, each in section.channels.items()},
            serves=self._endpoints.trained.get(section.endpoint),
            tags=self._settings.tags,
            job_name=name,
            **lookups.common_options(section),
        )
        output = CfnOutput(
            self,
            f"{key}StateMachine",
            value=job.state_machine.state_machine_arn,
            description=f"Trains: extended-dlc train {key}",
        )
        output.override_logical_id(output_name(f"{key}StateMachine"))
        return job

    def _image(self, section: Any) -> ServingImage:
        """The image of a training; trainings that ask for the same share one."""
        asked = training_image(section, self._around)
        if asked not in self._images:
            self._images[asked] = self._new_image(asked, section.image)
        return self._images[asked]

    def _new_image(self, asked: ImageAsked, section: Any) -> ServingImage:
        number = len(self._images) or ""
        if section is not None and section.kind == "ecr":
            return find_image(Construct(self, f"Given{number}"), section)
        options: dict[str, Any] = {}
        if section is not None:
            options = {name: getattr(section, name) for name in section.model_fields_set - {"kind", "build"}}
        given = section.build if section is not None else getattr(self._settings.image, "build", None)
        build: Any = given
        options |= {
            "transformers": asked.transformers,
            "family": "training",
            "base_region": asked.base_region,
            "build": Lookups(self, f"Image{number}", self._settings.name).build(build),
        }
        return ExtendedDlc(self, f"Image{number}", **options, removal_policy=RemovalPolicy.DESTROY)


@dataclass(frozen=True)
class TrainingLookups(Lookups):
    """Looks up what one training's settings name."""

    def channel(self, name: str, section: Any) -> S3Data | MirroredDataset:
        """A channel of the settings."""
        given = (
            s3.Bucket.from_bucket_name(self.scope, f"{self.key}{name}Bucket", section.bucket)
            if section.bucket is not None
            else None
        )
        if not isinstance(section, HubChannel):
            assert given is not None  # noqa: S101 - required by the schema
            return S3Data(given, section.prefix)
        from aws_cdk import aws_codebuild as codebuild

        project = section.project
        return MirroredDataset(
            self.scope,
            f"{self.key}{name}",
            dataset=section.dataset,
            revision=section.revision,
            token=self._secret(f"{self.key}{name}Token", section.token_secret),
            bucket=given,
            project=codebuild.Project.from_project_name(self.scope, f"{self.key}{name}Project", project)
            if project
            else None,
            timeout=Duration.minutes(section.timeout_minutes),
        )
