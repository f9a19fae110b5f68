"""SageMaker's inference components, which moto does not have: kept as they were given, without containers."""

from __future__ import annotations

from datetime import datetime, timezone
from typing import Any

from moto.core.responses import ActionResult, EmptyResult
from moto.sagemaker.exceptions import ValidationError
from moto.sagemaker.models import SageMakerModelBackend, sagemaker_backends
from moto.sagemaker.responses import SageMakerResponse

from extended_dlc.rehearsal.embedded.resources import Properties, Record, Wish
from extended_dlc.rehearsal.embedded.sagemaker import request_of

_made: dict[tuple[str, str, str], Properties] = {}
"""Account, region and name -> what DescribeInferenceComponent says."""


def _key(backend: SageMakerModelBackend, name: str) -> tuple[str, str, str]:
    return backend.account_id, backend.region_name, name


def _arn(backend: SageMakerModelBackend, name: str) -> str:
    return f"arn:aws:sagemaker:{backend.region_name}:{backend.account_id}:inference-component/{name}"


def create(backend: SageMakerModelBackend, parameters: Properties) -> Properties:
    """CreateInferenceComponent."""
    request = request_of("CreateInferenceComponent", parameters)
    name, endpoint = request["InferenceComponentName"], request["EndpointName"]
    if _key(backend, name) in _made:
        raise ValidationError(message=f'Cannot create already existing inference component "{_arn(backend, name)}".')
    if endpoint not in backend.endpoints:
        raise ValidationError(message=f'Could not find endpoint "{endpoint}".')
    if request["RuntimeConfig"]["CopyCount"] == 0:
        raise ValidationError(message="CopyCount must be at least 1 when an inference component is created.")
    _check_model(backend, request)
    now = datetime.now(timezone.utc)
    copies = request.pop("RuntimeConfig")["CopyCount"]
    _made[_key(backend, name)] = {
        **request,
        "InferenceComponentArn": _arn(backend, name),
        "EndpointArn": backend.endpoints[endpoint].arn,
        "InferenceComponentStatus": "InService",
        "RuntimeConfig": {"DesiredCopyCount": copies, "CurrentCopyCount": copies},
        "CreationTime": now,
        "LastModifiedTime": now,
    }
    return describe(backend, name)


def describe(backend: SageMakerModelBackend, name: str) -> Properties:
    """DescribeInferenceComponent."""
    if (found := _made.get(_key(backend, name))) is None:
        raise ValidationError(message=f'Could not find inference component "{_arn(backend, name)}".')
    return found


def delete(backend: SageMakerModelBackend, name: str) -> None:
    """DeleteInferenceComponent."""
    describe(backend, name)
    del _made[_key(backend, name)]


def _check_model(backend: SageMakerModelBackend, request: Properties) -> None:
    model = request["Specification"].get("ModelName")
    if model is not None and model not in backend._models:
        raise ValidationError(message=f'Could not find model "{model}".')


class InferenceComponentType:
    """`AWS::SageMaker::InferenceComponent`: all but its name and its endpoint changes in place."""

    def name_property(self) -> str | None:
        """What names it."""
        return "InferenceComponentName"

    def replaces(self, changed: set[str]) -> bool:
        """By name or endpoint."""
        return bool(changed & {"InferenceComponentName", "EndpointName"})

    def create(self, wish: Wish) -> Any:
        """CreateInferenceComponent."""
        made = create(_backend(wish), {**wish.properties, "InferenceComponentName": wish.name})
        return Record(made["InferenceComponentArn"], wish.properties)

    def update(self, wish: Wish, model: Any, old: Properties) -> Any:
        """UpdateInferenceComponent."""
        backend = _backend(wish)
        request = request_of("UpdateInferenceComponent", {**wish.properties, "InferenceComponentName": wish.name})
        _check_model(backend, request)
        found = describe(backend, wish.name)
        copies = request["RuntimeConfig"]["CopyCount"]
        found["Specification"] = request["Specification"]
        found["RuntimeConfig"] = {"DesiredCopyCount": copies, "CurrentCopyCount": copies}
        if deployment := request.get("DeploymentConfig"):
            found["LastDeploymentConfig"] = deployment
        found["LastModifiedTime"] = datetime.now(timezone.utc)
        return Record(model.physical_resource_id, wish.properties)

    def delete(self, wish: Wish, model: Any, *, rollback: bool) -> None:
        """DeleteInferenceComponent."""
        delete(_backend(wish), wish.name)


def _backend(wish: Wish) -> SageMakerModelBackend:
    return sagemaker_backends[wish.account_id][wish.region]


def install() -> None:
    """Give moto's SageMaker the operations."""

    def create_inference_component(self: SageMakerResponse) -> ActionResult:
        made = create(self.sagemaker_backend, self._get_params())
        return ActionResult({"InferenceComponentArn": made["InferenceComponentArn"]})

    def describe_inference_component(self: SageMakerResponse) -> ActionResult:
        return ActionResult(describe(self.sagemaker_backend, self._get_param("InferenceComponentName")))

    def delete_inference_component(self: SageMakerResponse) -> EmptyResult:
        delete(self.sagemaker_backend, self._get_param("InferenceComponentName"))
        return EmptyResult()

    for operation in (create_inference_component, describe_inference_component, delete_inference_component):
        setattr(SageMakerResponse, operation.__name__, operation)
