"""The parts of an endpoint: variants, a shadow variant or components, each with its Model."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import TYPE_CHECKING

from aws_cdk import IResolvable
from aws_cdk import aws_iam as iam
from aws_cdk import aws_sagemaker as sagemaker
from constructs import Construct

from extended_dlc.constructs.dependencies import depend_on_policies_alone
from extended_dlc.decisions.access import check_serverless_data
from extended_dlc.decisions.found import Note
from extended_dlc.decisions.of_endpoint import deadlines
from extended_dlc.decisions.of_part import PartDecision
from extended_dlc.decisions.part import other_variants
from extended_dlc.decisions.vllm import vllm_variables
from extended_dlc.endpoint.config import production_variant
from extended_dlc.endpoint.rights import grant_observability
from extended_dlc.images.image import EcrImage, ExtendedDlc, StockDlc
from extended_dlc.images.published import PublishedImage, Pulled, ServingImage
from extended_dlc.models.model import HubModel, PlacedModel, ServedModel
from extended_dlc.options._values import naming_option
from extended_dlc.options.hosting import MAIN_VARIANT, Component, Components, Hosting, RealTime, Serverless, Variant
from extended_dlc.options.scaling import Scaling
from extended_dlc.options.vllm import VllmServing

if TYPE_CHECKING:
    from extended_dlc.endpoint.endpoint import HuggingFaceEndpoint
    from extended_dlc.endpoint.given import EndpointOptions

_Variant = sagemaker.CfnEndpointConfig.ProductionVariantProperty


@dataclass(frozen=True, kw_only=True)
class ServedPart:
    """A variant, a shadow variant or a component of an endpoint."""

    decision: PartDecision
    home: Construct
    """The scope of its Model and its scaling."""

    model: sagemaker.CfnModel
    runs_on: Hosting | Variant | Component
    logs_requests: bool
    """Whether its server logs each request as a line of JSON."""

    speaks_openai: bool
    """Whether vLLM answers its requests."""

    is_shadow: bool = False

    @property
    def name(self) -> str:
        """Name of the variant or the component."""
        return self.decision.part.name

    @property
    def component(self) -> Component | None:
        """The options of the component; None for a variant."""
        return self.runs_on if isinstance(self.runs_on, Component) else None

    @property
    def scaling(self) -> Scaling | None:
        """Its scaling options, if it has some."""
        return None if isinstance(self.runs_on, Components) else self.runs_on.scaling

    @property
    def task(self) -> str | None:
        """The task of its model, as far as it is known."""
        return self.decision.part.model.facts.task

    def production_variant(self) -> _Variant:
        """The variant's property in the EndpointConfig."""
        hosting = self.runs_on
        assert not isinstance(hosting, (Component, Components))  # noqa: S101 - their variant has no model
        weight = hosting.weight if isinstance(hosting, (RealTime, Variant)) else 1
        return production_variant(
            hosting,
            name=self.name,
            weight=weight,
            model_name=self.model.attr_model_name,
            host_image=self.decision.host_image,
        )


@dataclass(frozen=True)
class PartMaker:
    """Makes the parts of an endpoint, each with its Model and with the role's permissions for it."""

    endpoint: HuggingFaceEndpoint
    options: EndpointOptions
    decisions: Sequence[PartDecision]
    notes: Sequence[Note]
    vpc: sagemaker.CfnModel.VpcConfigProperty | None

    @property
    def _hosting(self) -> Hosting:
        return self.endpoint.hosting

    @cached_property
    def _image_notes(self) -> Sequence[Note]:
        return [note for note in self.notes if note.section.startswith("image")]

    @cached_property
    def _decided(self) -> Mapping[str, PartDecision]:
        return {each.part.name: each for each in self.decisions}

    def make(self) -> Iterator[ServedPart]:
        """The parts, the main variant first.

        Each further variant has its own Model, because another instance type can need another image.
        """
        endpoint, hosting, options = self.endpoint, self._hosting, self.options
        if isinstance(hosting, Components):
            grant_observability(endpoint, hosting)
            home = Construct(endpoint, "Components")
            for each in hosting.components:
                yield self._part(Construct(home, each.name), each.name, each, each.model, each.image)
            return
        yield self._part(endpoint, MAIN_VARIANT, hosting, options.model, options.image)
        others = other_variants(hosting)
        home = Construct(endpoint, "Variants") if others else endpoint
        for variant in others:
            yield self._part(Construct(home, variant.name), variant.name, variant, variant.model, variant.image)

    def _part(
        self,
        home: Construct,
        name: str,
        runs_on: Hosting | Variant | Component,
        model: ServedModel | None,
        image: ServingImage | None,
    ) -> ServedPart:
        part, image = self._decided[name], image or self.options.image
        model = self._settled(model or self.options.model, part)
        published = self._publish(image, part, model)
        pulled_from = published.pulled_from or image
        pulled_from.grant_pull(self.endpoint.role)
        if home is self.endpoint:
            grant_observability(self.endpoint, self._hosting)
        placed = model.place_for(home, self.endpoint.role)
        variables = dict(self._vllm_variables(part, published) or {})
        speaks_openai = bool(variables)
        if published.logs_requests:  # this project's server
            variables.update(deadlines(self._hosting))
        served = self._model(home, part, placed, published.uri, variables)
        if self.options.verify:
            self._prove_image(home, served, part, pulled_from, published)
        # CreateModel checks the image and the role's permissions.
        served.node.add_dependency(self.endpoint.role)
        depend_on_policies_alone(served)
        for ready in (published.ready, placed.ready):
            if ready is not None:
                served.node.add_dependency(ready)
        return ServedPart(
            decision=part,
            home=home,
            model=served,
            runs_on=runs_on,
            logs_requests=published.logs_requests,
            speaks_openai=speaks_openai,
            is_shadow=isinstance(self._hosting, RealTime) and runs_on is self._hosting.shadow,
        )

    @staticmethod
    def _settled(model: ServedModel, part: PartDecision) -> ServedModel:
        """A Hub model completed with its model type and its decided task."""
        if not isinstance(model, HubModel):
            return model
        return replace(model, model_type=part.part.model.facts.model_type, task=part.task)

    def _model(
        self, home: Construct, part: PartDecision, placed: PlacedModel, uri: str, variables: Mapping[str, str]
    ) -> sagemaker.CfnModel:
        """The Model of a part."""
        data: sagemaker.CfnModel.ModelDataSourceProperty | IResolvable | None = placed.data
        archive = None
        if isinstance(part.part.hosting, Serverless):
            data, archive = None, _archive_for_serverless(placed)
        return sagemaker.CfnModel(
            home,
            "Model",
            execution_role_arn=self.endpoint.role.role_arn,
            primary_container=sagemaker.CfnModel.ContainerDefinitionProperty(
                image=uri,
                environment={**placed.environment, **variables, **part.part.environment},
                model_data_source=data,
                model_data_url=archive,
            ),
            vpc_config=self.vpc,
            enable_network_isolation=placed.isolated or self.options.network_isolation or None,
        )

    def _prove_image(
        self,
        home: Construct,
        served: sagemaker.CfnModel,
        part: PartDecision,
        pulled_from: Pulled,
        published: PublishedImage,
    ) -> None:
        """Make the Model depend on the proof that SageMaker can run the image."""
        from extended_dlc.endpoint.prover import Prover

        architecture = part.part.instances[0].architecture
        proof = Prover.of(self.endpoint).image(
            home, pulled_from=pulled_from, uri=published.uri, architecture=architecture
        )
        if published.ready is not None:
            proof.node.add_dependency(published.ready)
        served.node.add_dependency(proof)

    def _publish(self, image: ServingImage, part: PartDecision, model: ServedModel) -> PublishedImage:
        """Publish the part's image; a user-defined image class checks by itself that it runs on each type."""
        if isinstance(image, (ExtendedDlc, StockDlc, EcrImage)):
            return image.publish_decided(self.endpoint, part.image, self._image_notes)
        published, *_ = [image.publish_for(self.endpoint, instance=each, model=model) for each in part.part.instances]
        return published

    def _vllm_variables(self, part: PartDecision, published: PublishedImage) -> Mapping[str, str] | None:
        """vLLM's environment variables; a user-defined image class tells only when published that it runs vLLM."""
        if part.vllm is not None or published.family != "vllm":
            return part.vllm
        return vllm_variables(self.options.vllm or VllmServing(), part.part, part.part.instances)


def settle_role_of_prover(endpoint: Construct, *, path: str | None, boundary: iam.IManagedPolicy | None) -> None:
    """Set the path and the boundary on the prover's role: an account that requires them does so of each new role.

    The stack's endpoints share this role, which has the path of the first endpoint that names one.
    """
    from extended_dlc.endpoint.prover import Prover

    if boundary is not None:
        iam.PermissionsBoundary.of(Prover.of(endpoint)).apply(boundary)
    if path is not None:
        role = Prover.of(endpoint).role.node.default_child
        if isinstance(role, iam.CfnRole) and role.path is None:
            role.path = path


def _archive_for_serverless(placed: PlacedModel) -> str | None:
    """The S3 URI of the model's archive, if there is one; ValueError for model data in any other form."""
    if placed.data is None:
        return None
    source = getattr(placed.data, "s3_data_source", None)  # for a trained model a condition, never an archive
    known = source if isinstance(source, sagemaker.CfnModel.S3DataSourceProperty) else None
    archive = known.s3_uri if known is not None and known.compression_type == "Gzip" else None
    naming_option("model", "files in S3 as they are", lambda: check_serverless_data(archive=archive is not None))
    return archive
