"""What CloudFormation knows of a resource type: how to create, update, replace and delete one."""

from __future__ import annotations

import copy
import json
import logging
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

import moto.logs.models  # moto's list of resource types has those whose module is loaded
import moto.secretsmanager.models  # noqa: F401
from moto.cloudformation import parsing
from moto.core.common_models import CloudFormationModel
from moto.ecr.models import ECRBackend, ecr_backends
from moto.ecr.models import Repository as EcrRepository
from moto.iam.models import Role, iam_backends
from moto.s3.models import s3_backends
from moto.sagemaker.models import SageMakerModelBackend, sagemaker_backends

from extended_dlc.facts.limits import most
from extended_dlc.rehearsal.embedded import ecr
from extended_dlc.rehearsal.embedded.door import Door
from extended_dlc.rehearsal.embedded.iam import Iam, attach_policy
from extended_dlc.rehearsal.embedded.references import EcrReference
from extended_dlc.rehearsal.embedded.sagemaker import Endpoint, EndpointConfig, Model, SageMaker
from extended_dlc.rehearsal.embedded.shapes import Refusal
from extended_dlc.rehearsal.embedded.store import BlobStore

Properties = dict[str, Any]

_log = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class Wish:
    """What a template asks of one resource."""

    account_id: str
    region: str
    stack_id: str
    logical_id: str
    type: str
    name: str
    """The physical name: the template's, or one made for this resource."""

    properties: Properties
    """With every intrinsic function resolved."""


class ResourceFailed(Exception):
    """A resource could not be made, but something of it exists that a rollback must delete."""

    def __init__(self, message: str, model: Any) -> None:
        super().__init__(message)
        self.message = message
        self.model = model


class ResourceType(Protocol):
    """How CloudFormation handles one type. A model is whatever has `physical_resource_id` and `get_cfn_attribute`."""

    def name_property(self) -> str | None:
        """The property that gives the physical name."""

    def replaces(self, changed: set[str]) -> bool:
        """Whether a change of these properties needs another resource instead of an update."""

    def create(self, wish: Wish) -> Any:
        """Make it and return its model."""

    def update(self, wish: Wish, model: Any, old: Properties) -> Any:
        """Change it in place and return its model."""

    def delete(self, wish: Wish, model: Any, *, rollback: bool) -> None:
        """Delete it."""


@dataclass
class Record:
    """A resource that exists in a stack's record only: moto has no such service, or needs none for the rehearsal."""

    physical_resource_id: str
    properties: Properties
    data: Properties = field(default_factory=dict)

    def get_cfn_attribute(self, name: str) -> Any:
        """An attribute: what a handler returned, a property of that name, or the physical id."""
        return self.data.get(name, self.properties.get(name, self.physical_resource_id))


class Recorded:
    """A type that moto does not know. CloudFormation in moto skips it with its references; here it is remembered.

    `AWS::S3::BucketPolicy` is among them on purpose: moto applies a Deny without its Condition, so that a policy which
    enforces TLS would lock every caller out.
    """

    def name_property(self) -> str | None:
        """Unknown, so none."""
        return None

    def replaces(self, changed: set[str]) -> bool:
        """Never."""
        return False

    def create(self, wish: Wish) -> Any:
        """Remember it."""
        return Record(wish.name, wish.properties)

    def update(self, wish: Wish, model: Any, old: Properties) -> Any:
        """Remember the new properties."""
        return Record(model.physical_resource_id, wish.properties)

    def delete(self, wish: Wish, model: Any, *, rollback: bool) -> None:
        """Forget it, which the stack does."""


@dataclass(frozen=True)
class MotoType:
    """A type as moto implements it."""

    model: type[CloudFormationModel]

    def name_property(self) -> str | None:
        """What moto says."""
        return self.model.cloudformation_name_type() or None

    def replaces(self, changed: set[str]) -> bool:
        """A new physical name means a new resource; all else moto updates in its own way."""
        name = self.name_property()
        return name is not None and name in changed

    def create(self, wish: Wish) -> Any:
        """Create it in moto."""
        template = self._json(wish)
        if name := self.name_property():
            template["Properties"].setdefault(name, wish.name)  # some of moto's models look for it here alone
        identity = {"LogicalId": wish.logical_id, "StackId": wish.stack_id, "ResourceType": wish.type}
        return self.model.create_from_cloudformation_json(wish.name, template, wish.account_id, wish.region, **identity)

    def update(self, wish: Wish, model: Any, old: Properties) -> Any:
        """Update it in moto, or make it anew under its name where moto cannot."""
        if hasattr(self.model.update_from_cloudformation_json, "__isabstractmethod__"):
            self.delete(wish, model, rollback=False)
            return self.create(wish)
        updated = self.model.update_from_cloudformation_json(
            original_resource=model,
            new_resource_name=wish.name,
            cloudformation_json=self._json(wish),
            account_id=wish.account_id,
            region_name=wish.region,
        )
        return updated or model

    def delete(self, wish: Wish, model: Any, *, rollback: bool) -> None:
        """Delete it in moto, which has two ways to say so."""
        if hasattr(model, "delete"):
            try:
                model.delete(wish.account_id, wish.region)
            except TypeError:  # some models have a `delete` of another signature, for another purpose
                pass
            else:
                return
        self.model.delete_from_cloudformation_json(
            getattr(model, "physical_resource_id", wish.name), self._json(wish), wish.account_id, wish.region
        )

    @staticmethod
    def _json(wish: Wish) -> dict[str, Any]:
        return {"Type": wish.type, "Properties": copy.deepcopy(wish.properties)}


class IamRole(MotoType):
    """`AWS::IAM::Role`: moto's update changes the description alone."""

    def __init__(self) -> None:
        super().__init__(Role)  # type: ignore[type-abstract]  # moto leaves abstract methods in all its models

    def create(self, wish: Wish) -> Any:
        """Attach the managed policies too, which moto leaves out."""
        role = super().create(wish)
        for arn in wish.properties.get("ManagedPolicyArns", ()):
            attach_policy(wish.account_id, wish.region, role.name, arn)
        return role

    def delete(self, wish: Wish, model: Any, *, rollback: bool) -> None:
        """Detach the managed policies of the template first."""
        for arn in set(wish.properties.get("ManagedPolicyArns", ())) & set(model.managed_policies):
            iam_backends[wish.account_id]["aws"].detach_role_policy(arn, model.name)
        super().delete(wish, model, rollback=rollback)

    def update(self, wish: Wish, model: Any, old: Properties) -> Any:
        """Bring trust, inline and managed policies up to date too."""
        backend = iam_backends[wish.account_id]["aws"]
        new = wish.properties
        if (trust := new.get("AssumeRolePolicyDocument")) is not None:
            model.assume_role_policy_document = trust if isinstance(trust, str) else json.dumps(trust)
        model.description = new.get("Description", "")
        for policy in old.get("Policies", ()):
            model.policies.pop(policy["PolicyName"], None)
        for policy in new.get("Policies", ()):
            document = policy["PolicyDocument"]
            text = document if isinstance(document, str) else json.dumps(document)
            backend.put_role_policy(model.name, policy["PolicyName"], text)
        for arn in set(old.get("ManagedPolicyArns", ())) - set(new.get("ManagedPolicyArns", ())):
            backend.detach_role_policy(arn, model.name)
        for arn in set(new.get("ManagedPolicyArns", ())) - set(old.get("ManagedPolicyArns", ())):
            attach_policy(wish.account_id, wish.region, model.name, arn)
        return model


class EcrRepositoryType:
    """`AWS::ECR::Repository`: moto's loses policies, ignores `EmptyOnDelete`, and renames at updates."""

    def name_property(self) -> str | None:
        """What names it."""
        return "RepositoryName"

    def replaces(self, changed: set[str]) -> bool:
        """By name or encryption (CloudFormation resource reference)."""
        return bool(changed & {"RepositoryName", "EncryptionConfiguration"})

    def create(self, wish: Wish) -> Any:
        """CreateRepository, and the policies."""
        given = wish.properties
        backend = self._backend(wish)
        repository = backend.create_repository(
            repository_name=wish.name.lower(),
            registry_id=None,
            encryption_config=_camel(given.get("EncryptionConfiguration")),
            image_scan_config=_camel(_booleans(given.get("ImageScanningConfiguration"))),
            image_tag_mutability=given.get("ImageTagMutability", "MUTABLE"),
            image_tag_mutability_exclusion_filters=self._filters(given),
            tags=given.get("Tags", []),
        )
        self._policies(wish, repository)
        return repository

    def update(self, wish: Wish, model: Any, old: Properties) -> Any:
        """Mutability, scanning, policies."""
        given = wish.properties
        model._update_image_tag_mutability(given.get("ImageTagMutability", "MUTABLE"), self._filters(given))
        scanning = _booleans(given.get("ImageScanningConfiguration")) or {"ScanOnPush": False}
        model.image_scanning_configuration = _camel(scanning)
        self._policies(wish, model)
        return model

    def delete(self, wish: Wish, model: Any, *, rollback: bool) -> None:
        """DeleteRepository, by force if `EmptyOnDelete` says so."""
        force = str(wish.properties.get("EmptyOnDelete", False)).lower() == "true"
        self._backend(wish).delete_repository(model.name, force=force)

    @staticmethod
    def _backend(wish: Wish) -> ECRBackend:
        return ecr_backends[wish.account_id][wish.region]

    @staticmethod
    def _filters(given: Properties) -> Any:
        return EcrRepository._convert_cfn_mutability_exclusion_filters(given.get("ImageTagMutabilityExclusionFilters"))

    @staticmethod
    def _policies(wish: Wish, repository: EcrRepository) -> None:
        repository.lifecycle_policy = wish.properties.get("LifecyclePolicy", {}).get("LifecyclePolicyText")
        policy = wish.properties.get("RepositoryPolicyText")
        repository.policy = json.dumps(policy) if isinstance(policy, dict) else policy


@dataclass(frozen=True)
class SageMakerModelType:
    """`AWS::SageMaker::Model`: every change but of tags replaces it."""

    sagemaker: SageMaker

    def name_property(self) -> str | None:
        """What names it."""
        return "ModelName"

    def replaces(self, changed: set[str]) -> bool:
        """All but tags."""
        return bool(changed - {"Tags"})

    def create(self, wish: Wish) -> Any:
        """CreateModel."""
        return self.sagemaker.create_model(_sagemaker(wish), {**wish.properties, "ModelName": wish.name})

    def update(self, wish: Wish, model: Model, old: Properties) -> Any:
        """Tags."""
        model.tags = wish.properties.get("Tags", [])
        return model

    def delete(self, wish: Wish, model: Model, *, rollback: bool) -> None:
        """DeleteModel."""
        _sagemaker(wish).delete_model(model.model_name)


@dataclass(frozen=True)
class SageMakerEndpointConfigType:
    """`AWS::SageMaker::EndpointConfig`: every change but of tags replaces it."""

    sagemaker: SageMaker

    def name_property(self) -> str | None:
        """What names it."""
        return "EndpointConfigName"

    def replaces(self, changed: set[str]) -> bool:
        """All but tags."""
        return bool(changed - {"Tags"})

    def create(self, wish: Wish) -> Any:
        """CreateEndpointConfig."""
        parameters = {**wish.properties, "EndpointConfigName": wish.name}
        return self.sagemaker.create_endpoint_config(_sagemaker(wish), parameters)

    def update(self, wish: Wish, model: EndpointConfig, old: Properties) -> Any:
        """Tags."""
        model.tags = wish.properties.get("Tags", [])
        return model

    def delete(self, wish: Wish, model: EndpointConfig, *, rollback: bool) -> None:
        """DeleteEndpointConfig."""
        _sagemaker(wish).delete_endpoint_config(model.endpoint_config_name)


@dataclass(frozen=True)
class SageMakerEndpointType:
    """`AWS::SageMaker::Endpoint`: another configuration updates it in place; CloudFormation waits until it serves."""

    sagemaker: SageMaker

    def name_property(self) -> str | None:
        """What names it."""
        return "EndpointName"

    def replaces(self, changed: set[str]) -> bool:
        """By name alone."""
        return "EndpointName" in changed

    def create(self, wish: Wish) -> Any:
        """CreateEndpoint, and wait."""
        parameters = {**wish.properties, "EndpointName": wish.name}
        endpoint = self.sagemaker.create_endpoint(_sagemaker(wish), parameters)
        endpoint.settled.wait()
        if endpoint.endpoint_status != "InService":
            raise ResourceFailed(str(endpoint.failure_reason), endpoint)
        return endpoint

    def update(self, wish: Wish, model: Endpoint, old: Properties) -> Any:
        """UpdateEndpoint, and wait; a rollback finds the old configuration serving and has nothing to do."""
        model.tags = wish.properties.get("Tags", [])
        if model.endpoint_config_name == wish.properties["EndpointConfigName"]:
            return model
        parameters = {**wish.properties, "EndpointName": model.endpoint_name}
        self.sagemaker.update_endpoint(_sagemaker(wish), parameters)
        model.settled.wait()
        if model.failure_reason or model.endpoint_status != "InService":
            raise ResourceFailed(str(model.failure_reason), model)
        return model

    def delete(self, wish: Wish, model: Endpoint, *, rollback: bool) -> None:
        """DeleteEndpoint, and wait for the containers' end."""
        self.sagemaker.delete_endpoint(_sagemaker(wish), model.endpoint_name).settled.wait()


def _sagemaker(wish: Wish) -> SageMakerModelBackend:
    return sagemaker_backends[wish.account_id][wish.region]


CustomHandler = Callable[[str, Wish], Properties]
"""Does what a custom resource's Lambda function does: `(request type, wish)` to the attributes it returns."""


@dataclass(frozen=True)
class CustomResource:
    """A custom resource, by a handler in this process in place of the Lambda function, or as a record without one."""

    handler: CustomHandler | None

    def name_property(self) -> str | None:
        """The handler names it."""
        return None

    def replaces(self, changed: set[str]) -> bool:
        """Only another provider does."""
        return "ServiceToken" in changed

    def create(self, wish: Wish) -> Any:
        """Run the handler's Create."""
        return Record(wish.name, wish.properties, self._run("Create", wish, wish.name))

    def update(self, wish: Wish, model: Any, old: Properties) -> Any:
        """Run the handler's Update."""
        known = model.physical_resource_id
        return Record(known, wish.properties, self._run("Update", wish, known))

    def delete(self, wish: Wish, model: Any, *, rollback: bool) -> None:
        """Run the handler's Delete."""
        self._run("Delete", wish, model.physical_resource_id)

    def _run(self, kind: str, wish: Wish, physical_id: str) -> Properties:
        """The attributes that the handler returns; CustomResourceFailed when it fails or answers too much."""
        if self.handler is None:
            return {}
        try:
            data = self.handler(kind, wish)
        except CustomResourceFailed as error:
            _check_response(wish, physical_id, Status="FAILED", Reason=str(error), Data={})
            raise CustomResourceFailed(
                f"Received response status [FAILED] from custom resource. Message returned: {error}"
            ) from None
        _check_response(wish, physical_id, Status="SUCCESS", Reason="SUCCESS", Data=data)
        return data


class CustomResourceFailed(Exception):
    """A custom resource's handler answered FAILED, or with more than CloudFormation takes."""


def _check_response(wish: Wish, physical_id: str, **answer: Any) -> None:
    """Refuse a response object that CloudFormation refuses, whether it tells a success or a failure."""
    response = {
        "StackId": wish.stack_id,
        "RequestId": "00000000-0000-0000-0000-000000000000",
        "LogicalResourceId": wish.logical_id,
        "PhysicalResourceId": physical_id,
        **answer,
    }
    # as JavaScript writes it, which the CDK's handlers are made of
    written = json.dumps(response, ensure_ascii=False, separators=(",", ":"))
    if len(written.encode()) > most("custom_resource.response_bytes"):
        raise CustomResourceFailed("Response object is too long.")


def answer_of_call(call: Mapping[str, Any], answer: Any) -> Properties:
    """What the CDK's handler of an AwsCustomResource returns of an API's answer: flat, and only the `outputPaths`."""
    flat = dict(_flat(answer))
    paths = call.get("outputPaths")
    return flat if paths is None else {key: each for key, each in flat.items() if key.startswith(tuple(paths))}


def _flat(value: Any, path: str = "") -> Iterator[tuple[str, Any]]:
    if isinstance(value, Mapping | list):
        pairs = value.items() if isinstance(value, Mapping) else enumerate(value)
        for key, each in pairs:
            yield from _flat(each, f"{path}.{key}" if path else str(key))
    else:
        yield path, value


_READS = ("ecr:GetAuthorizationToken", "ecr:BatchGetImage", "ecr:GetDownloadUrlForLayer")
_WRITES = (
    "ecr:GetAuthorizationToken",
    "ecr:BatchCheckLayerAvailability",
    "ecr:InitiateLayerUpload",
    "ecr:UploadLayerPart",
    "ecr:CompleteLayerUpload",
    "ecr:PutImage",
)
"""What the copying program asks of ECR (ECR user guide, "Required IAM permissions for pushing an image")."""


def _may_copy(iam: Iam, wish: Wish, source: EcrReference, target: EcrReference) -> None:
    """Raise `Refusal` unless the function's role may read the one repository and write the other."""
    needs = []
    for reference, actions in ((source, _READS), (target, _WRITES)):
        account, region = reference.account or wish.account_id, reference.region or wish.region
        arn = f"arn:aws:ecr:{region}:{account}:repository/{reference.repository}"
        needs += [(action, "*" if action == "ecr:GetAuthorizationToken" else arn) for action in actions]
    token = str(wish.properties.get("ServiceToken", ""))
    iam.require_of_function(token, needs, account_id=wish.account_id, region=wish.region)


def copy_image(blobs: BlobStore, iam: Iam, *, port: int) -> CustomHandler:
    """`Custom::CDKECRDeployment` (cdk-ecr-deployment): copies an image between repositories, again at each update."""

    def handle(kind: str, wish: Wish) -> Properties:
        if kind == "Delete":
            return {}
        source = EcrReference.parse(wish.properties["SrcImage"], port=port)
        target = EcrReference.parse(wish.properties["DestImage"], port=port)
        if source is None or target is None:
            raise CustomResourceFailed(
                "copy image failed: the embedded ECR copies between ECR repositories only, not from "
                f"{wish.properties['SrcImage']} to {wish.properties['DestImage']}"
            )
        try:
            _may_copy(iam, wish, source, target)
        except Refusal as refusal:
            raise CustomResourceFailed(f"copy image failed: denied: {refusal.message}") from None
        found = ecr.resolve(source)
        if found is None:
            raise CustomResourceFailed(
                f"copy image failed: reading manifest {source.digest or source.tag} in {source.repository}: "
                "manifest unknown: Requested image not found"
            )
        repository = ecr.repository_of(target)
        if repository is None:
            raise CustomResourceFailed(
                f"copy image failed: name unknown: The repository with name '{target.repository}' does not exist in "
                f"the registry with id '{wish.account_id}'"
            )
        manifest = found[1].image_manifest.encode()
        try:
            ecr.push(repository, manifest, found[1].image_manifest_media_type, target.tag, blobs)
        except ecr.Refused as error:
            raise CustomResourceFailed(f"copy image failed: writing manifest: {error}") from None
        return {}

    return handle


def empty_bucket(kind: str, wish: Wish) -> Properties:
    """`Custom::S3AutoDeleteObjects`: empties the bucket that is to be deleted."""
    buckets = s3_backends[wish.account_id]["aws"].buckets
    if kind == "Delete" and (bucket := buckets.get(wish.properties["BucketName"])):
        bucket.keys.clear()
    return {}


def empty_repository(kind: str, wish: Wish) -> Properties:
    """`Custom::ECRAutoDeleteImages`: empties the repository that is to be deleted."""
    repositories = ecr_backends[wish.account_id][wish.region].repositories
    if kind == "Delete" and (repository := repositories.get(wish.properties["RepositoryName"])):
        repository.images.clear()
    return {}


@dataclass(frozen=True)
class ResourceTypes:
    """Every type, by name."""

    own: Mapping[str, ResourceType]
    custom: Mapping[str, CustomHandler]
    door: Door
    """Lets in what a template asks of the services."""

    def __getitem__(self, name: str) -> ResourceType:
        """The type: one of ours, a custom resource, moto's, or a record."""
        if name in self.own:
            return self.own[name]
        if name.startswith("Custom::") or name == "AWS::CloudFormation::CustomResource":
            return CustomResource(self.custom.get(name))
        if model := parsing.get_model_map().get(name):
            return MotoType(model)
        _log.warning("%s is recorded only: the embedded AWS has no such service", name)
        return Recorded()


def resource_types(
    sagemaker: SageMaker, blobs: BlobStore, others: Mapping[str, ResourceType], *, door: Door, port: int
) -> ResourceTypes:
    """The types of the embedded CloudFormation: those of this module, and others."""
    parsing.get_model_list.cache_clear()
    parsing.get_model_map.cache_clear()
    return ResourceTypes(
        door=door,
        own={
            **others,
            "AWS::CDK::Metadata": Recorded(),
            "AWS::ECR::Repository": EcrRepositoryType(),
            "AWS::IAM::Role": IamRole(),
            "AWS::S3::BucketPolicy": Recorded(),
            "AWS::SageMaker::Endpoint": SageMakerEndpointType(sagemaker),
            "AWS::SageMaker::EndpointConfig": SageMakerEndpointConfigType(sagemaker),
            "AWS::SageMaker::Model": SageMakerModelType(sagemaker),
        },
        custom={
            "Custom::CDKECRDeployment": copy_image(blobs, door.iam, port=port),
            "Custom::ECRAutoDeleteImages": empty_repository,
            "Custom::S3AutoDeleteObjects": empty_bucket,
        },
    )


def _camel(given: Mapping[str, Any] | None) -> Any:
    """A CloudFormation structure with the API's lower-case first letters."""
    return {key[0].lower() + key[1:]: value for key, value in given.items()} if given else None


def _booleans(given: Mapping[str, Any] | None) -> dict[str, Any] | None:
    return {key: str(value).lower() == "true" for key, value in given.items()} if given else None
