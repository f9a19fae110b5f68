"""What the settings name in AWS and on the Hub, as the constructs take it.

What a lookup needs of the CDK is imported by it: most settings name nothing, and each module takes time to load.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from aws_cdk import Duration, Stack
from aws_cdk import aws_ecr as ecr
from aws_cdk import aws_iam as iam
from aws_cdk import aws_s3 as s3
from constructs import Construct

from extended_dlc import EcrImage, HubModel, S3Model, ServedModel
from extended_dlc.app.asked import model_type_asked
from extended_dlc.app.schema import HubWeights, LocalWeights, ModelSection, S3Weights
from extended_dlc.app.section import Section
from extended_dlc.facts.models import DATASET_KEY, MODEL_KEY
from extended_dlc.options.sharing import IMAGE_FACTS

if TYPE_CHECKING:
    from aws_cdk import aws_kms as kms
    from aws_cdk import aws_secretsmanager as secretsmanager

    from extended_dlc.options.build import Build


def note_lookups(stack: Stack, looked_up: Mapping[str, Any]) -> None:
    """Let the constructs of a stack know what the Hub said of models and data sets."""
    for key, answer in looked_up.items():
        if key.startswith((MODEL_KEY, DATASET_KEY)) and stack.node.try_get_context(key) is None:
            stack.node.set_context(key, answer)


def place_functions(stack: Stack, settings: Any) -> None:
    """Give the functions of a stack the options of the settings, if these have some."""
    if settings.functions is not None:
        from extended_dlc.constructs.functions import let_functions

        let_functions(stack, settings.functions.into_option(Lookups(stack, "Functions-", settings.name).find))


def find_repository(scope: Construct, named: str) -> ecr.IRepository:
    """The repository of an image that is published already, by its name or ARN."""
    by_arn = named.startswith("arn:")
    find = ecr.Repository.from_repository_arn if by_arn else ecr.Repository.from_repository_name
    return find(scope, "Published", named)


def find_image(scope: Construct, section: Any) -> EcrImage:
    """An image that is published already, by its repository or by a parameter that names it."""
    facts = {name: getattr(section, name) for name in IMAGE_FACTS}
    if section.parameter is not None:
        return EcrImage.from_parameter(scope, "Published", section.parameter, **facts)
    return EcrImage(find_repository(scope, section.repository), section.tag, **facts)


@dataclass(frozen=True)
class Lookups:
    """Looks up what one endpoint's settings name, below the stack."""

    scope: Construct
    key: str
    name: str
    """The endpoint's full name."""

    def options(self, section: Any) -> dict[str, Any]:
        """The options of `HuggingFaceEndpoint` that the settings give."""
        verify = section.verify
        proof = verify if isinstance(verify, bool) else verify.into_option(self.find, "verify")
        return self.common_options(section) | {"verify": proof}

    def common_options(self, section: Any) -> dict[str, Any]:
        """The options that the section of an endpoint or a training gives, its network, key, role and boundary too."""
        given = {name: getattr(section, name) for name in section.model_fields_set - section.found}
        found = {
            name: value.into_option(self.find, name) if isinstance(value, Section) else value
            for name, value in given.items()
            if value is not None
        }
        if section.network is not None:
            found["network"] = self._network(section.network)
        if section.encryption_key is not None:
            found["encryption_key"] = self._kms_key("Key", section.encryption_key)
        if section.role is not None:
            found["role"] = iam.Role.from_role_arn(self.scope, f"{self.key}GivenRole", section.role, mutable=False)
        if section.permissions_boundary is not None:
            found["permissions_boundary"] = iam.ManagedPolicy.from_managed_policy_arn(
                self.scope, f"{self.key}Boundary", section.permissions_boundary
            )
        return found

    def build(self, section: Any) -> Build | None:
        """Where an image is built."""
        found: Build | None = section.into_option(self.find) if section is not None else None
        return found

    def components(self, section: Any) -> Mapping[str, Any]:
        """The settings of the models that are served, by their components; without components under ''."""
        parts = getattr(section.hosting, "components", None)
        if parts is None:
            return {"": section}
        return {part: each if each.model is not None else section for part, each in parts.items()}

    def find(self, section: Section, path: str) -> Mapping[str, Any]:
        """The constructs that a section of an endpoint names."""
        settings: Any = section
        match section.made:
            case "Async":
                return {
                    **self._bucket("bucket", settings.bucket, "AnswersBucket"),
                    **self._topic("success_topic", settings.success_topic, "_success_topic"),
                    **self._topic("error_topic", settings.error_topic, "_error_topic"),
                }
            case "CloudBuild":
                return self._build(settings)
            case "Functions":
                return {} if settings.network is None else {"network": self._network(settings.network)}
            case "DataCapture":
                return self._bucket("bucket", settings.bucket, "CaptureBucket")
            case "Monitoring":
                keys = {"log_key": settings.log_key, "topic_key": settings.topic_key}
                ids = {"log_key": "LogKey", "topic_key": "TopicKey"}
                return {
                    **self._topic("alarm_topic", settings.alarm_topic, "AlarmTopic"),
                    **{option: self._kms_key(ids[option], arn) for option, arn in keys.items() if arn},
                }
            case "Variant" | "Component":
                part = path.rpartition(".")[2]
                is_component = section.made == "Component"
                found: dict[str, Any] = {"name": f"{self.name}-{part}"} if is_component else {}
                if settings.model is not None:
                    suffix = f"Component{part}" if is_component else f"Variant{settings.name}"
                    found["model"] = self.model(f"{self.key}{suffix}", settings)
                return found
        return {}

    def model(self, key: str, settings: ModelSection) -> ServedModel:
        """A model of the settings."""
        weights: Any = settings.weights
        common: Any = {
            "task": settings.task,
            "trust_remote_code": settings.trust_remote_code,
            "parameters": settings.parameters,
        }
        if isinstance(weights, S3Weights):
            bucket = s3.Bucket.from_bucket_name(self.scope, f"{key}Bucket", weights.bucket)
            return S3Model(bucket, weights.key, model_type=model_type_asked(settings), **common)
        if isinstance(weights, LocalWeights):
            return S3Model.from_local(weights.folder, model_type=settings.model_type, **common)
        common |= {"model_type": settings.model_type, "token": self._secret(f"{key}Token", weights.token_secret)}
        if isinstance(weights, HubWeights):
            return HubModel(settings.model, settings.revision, code=weights.inference_code(), **common)
        from aws_cdk import aws_codebuild as codebuild

        from extended_dlc import MirroredModel

        project, bucket_name = weights.project, weights.bucket
        return MirroredModel(
            self.scope,
            f"{key}Weights",
            model=settings.model,
            revision=str(settings.revision),
            bucket=s3.Bucket.from_bucket_name(self.scope, f"{key}Bucket", bucket_name) if bucket_name else None,
            project=codebuild.Project.from_project_name(self.scope, f"{key}Project", project) if project else None,
            timeout=Duration.minutes(weights.timeout_minutes),
            **common,
        )

    def _build(self, settings: Any) -> dict[str, Any]:
        from aws_cdk import aws_codebuild as codebuild

        found: dict[str, Any] = {}
        if settings.network is not None:
            found["network"] = self._network(settings.network)
        if settings.pip_config is not None:
            found["pip_config"] = self._secret(f"{self.key}PipConfig", settings.pip_config)
        if settings.role is not None:
            found["role"] = iam.Role.from_role_arn(self.scope, f"{self.key}BuildRole", settings.role, mutable=False)
        if settings.project is not None:
            home = f"{self.key}BuildProject"
            found["project"] = codebuild.Project.from_project_name(self.scope, home, settings.project)
        if settings.records is not None:
            found["records"] = s3.Bucket.from_bucket_name(self.scope, f"{self.key}Records", settings.records)
        return found

    def _secret(self, construct_id: str, named: str | None) -> secretsmanager.ISecret | None:
        if named is None:
            return None
        from aws_cdk import aws_secretsmanager as secretsmanager

        if named.startswith("arn:"):
            return secretsmanager.Secret.from_secret_complete_arn(self.scope, construct_id, named)
        return secretsmanager.Secret.from_secret_name_v2(self.scope, construct_id, named)

    def _kms_key(self, construct_id: str, arn: str) -> kms.IKey:
        from aws_cdk import aws_kms as kms

        return kms.Key.from_key_arn(self.scope, f"{self.key}{construct_id}", arn)

    def _bucket(self, option: str, named: str | None, construct_id: str) -> dict[str, Any]:
        if named is None:
            return {}
        return {option: s3.Bucket.from_bucket_name(self.scope, f"{self.key}{construct_id}", named)}

    def _topic(self, option: str, named: str | None, construct_id: str) -> dict[str, Any]:
        if named is None:
            return {}
        if named == "new":
            return {option: named}
        from aws_cdk import aws_sns as sns

        return {option: sns.Topic.from_topic_arn(self.scope, f"{self.key}{construct_id}", named)}

    def _network(self, network: Any) -> Any:
        from aws_cdk import aws_ec2 as ec2

        from extended_dlc import Network

        home = Construct(self.scope, f"{self.key}Network")
        return Network(
            # The subnets are named one by one, and nothing reads their zones.
            vpc=ec2.Vpc.from_vpc_attributes(home, "Vpc", vpc_id=network.vpc, availability_zones=["unknown"]),
            subnets=[ec2.Subnet.from_subnet_id(home, each, each) for each in network.subnets],
            security_groups=[
                ec2.SecurityGroup.from_security_group_id(home, each, each) for each in network.security_groups
            ],
        )
