"""SageMaker's inference components, which moto lacks: each is stored as requested and has one container.

A component is InService or Failed when CreateInferenceComponent returns. The copy count is only recorded: one container
answers for all copies, and with zero copies requests are refused as SageMaker refuses them.
"""

from __future__ import annotations

from datetime import datetime, timezone
from typing import Any

from moto.core.responses import ActionResult, EmptyResult
from moto.sagemaker.exceptions import ValidationError
from moto.sagemaker.models import SageMakerModelBackend, sagemaker_backends
from moto.sagemaker.responses import SageMakerResponse

from extended_dlc.rehearsal.embedded.hosting import NotServing
from extended_dlc.rehearsal.embedded.resources import Properties, Record, ResourceFailed, Wish
from extended_dlc.rehearsal.embedded.sagemaker import SageMaker, Variant, request_of

_made: dict[tuple[str, str, str], Properties] = {}
"""(account, region, name) to the response of DescribeInferenceComponent."""

_serving: dict[tuple[str, str, str], Variant] = {}
"""(account, region, name) to the component's container."""


def _key(backend: SageMakerModelBackend, name: str) -> tuple[str, str, str]:
    return backend.account_id, backend.region_name, name


def exists(backend: SageMakerModelBackend, name: str) -> bool:
    """Whether there is an inference component of this name."""
    return _key(backend, name) in _made


def find_serving(account_id: str, region: str, endpoint: str, name: str) -> tuple[Variant | None, int]:
    """The container of the endpoint's component, and the number of its copies."""
    key = (account_id, region, name)
    found = _made.get(key)
    if found is None or found["EndpointName"] != endpoint:
        return None, 0
    return _serving.get(key), found["RuntimeConfig"]["CurrentCopyCount"]


def _arn(backend: SageMakerModelBackend, name: str) -> str:
    return f"arn:aws:sagemaker:{backend.region_name}:{backend.account_id}:inference-component/{name}"


def create(control: SageMaker, backend: SageMakerModelBackend, parameters: Properties) -> Properties:
    """CreateInferenceComponent."""
    request = request_of("CreateInferenceComponent", parameters)
    name, endpoint = request["InferenceComponentName"], request["EndpointName"]
    if _key(backend, name) in _made:
        raise ValidationError(message=f'Cannot create already existing inference component "{_arn(backend, name)}".')
    if endpoint not in backend.endpoints:
        raise ValidationError(message=f'Could not find endpoint "{endpoint}".')
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
    _serve(control, backend, name)
    return describe(backend, name)


def _serve(control: SageMaker, backend: SageMakerModelBackend, name: str, *, before: Properties | None = None) -> None:
    """Replace the component's container by one of its current model; the status is Failed if it does not start.

    `before` is the specification to which a silent rollback returns.
    """
    found, key = describe(backend, name), _key(backend, name)
    specification = found["Specification"]
    startup = specification.get("StartupParameters", {})
    variant = {"VariantName": name, "ModelName": specification.get("ModelName", ""), **startup}
    try:
        started = control.start_variant(backend, found["EndpointName"], variant)
    except NotServing as failure:
        if before is not None and control.scenarios.silent_rollbacks:
            control.scenarios.meet("silent_rollbacks")
            found["Specification"] = before
            return
        found |= {"InferenceComponentStatus": "Failed", "FailureReason": str(failure)}
        return
    _stop(control, key)
    _serving[key] = started
    found["InferenceComponentStatus"] = "InService"
    found.pop("FailureReason", None)


def _stop(control: SageMaker, key: tuple[str, str, str]) -> None:
    old = _serving.pop(key, None)
    if old is not None and old.instance is not None:
        control.hosting.stop(old.instance)


def set_copies(backend: SageMakerModelBackend, name: str, copies: int) -> Properties:
    """UpdateInferenceComponentRuntimeConfig."""
    found = describe(backend, name)
    found["RuntimeConfig"] = {"DesiredCopyCount": copies, "CurrentCopyCount": copies}
    return found


def describe(backend: SageMakerModelBackend, name: str) -> Properties:
    """DescribeInferenceComponent."""
    if (found := _made.get(_key(backend, name))) is None:
        raise ValidationError(message=f'Could not find inference component "{_arn(backend, name)}".')
    return found


_SUMMARY = (
    *("CreationTime", "InferenceComponentArn", "InferenceComponentName", "EndpointArn", "EndpointName"),
    *("VariantName", "InferenceComponentStatus", "LastModifiedTime"),
)


def summaries(backend: SageMakerModelBackend, endpoint: str | None) -> list[Properties]:
    """ListInferenceComponents, optionally of one endpoint; there is only one page."""
    found = [each for key, each in _made.items() if key[:2] == (backend.account_id, backend.region_name)]
    return [
        {key: each[key] for key in _SUMMARY if key in each}
        for each in found
        if endpoint in (None, each["EndpointName"])
    ]


def delete(control: SageMaker, backend: SageMakerModelBackend, name: str) -> None:
    """DeleteInferenceComponent."""
    describe(backend, name)
    _stop(control, _key(backend, name))
    del _made[_key(backend, name)]


def _check_model(backend: SageMakerModelBackend, request: Properties) -> None:
    model = request["Specification"].get("ModelName")
    if model is not None and model not in backend._models:
        raise ValidationError(message=f'Could not find model "{model}".')


def make(control: SageMaker, wish: Wish) -> Any:
    """CreateInferenceComponent."""
    made = create(control, _backend(wish), {**wish.properties, "InferenceComponentName": wish.name})
    return _record(made, wish)


def change(control: SageMaker, wish: Wish) -> Any:
    """UpdateInferenceComponent."""
    backend = _backend(wish)
    request = request_of("UpdateInferenceComponent", {**wish.properties, "InferenceComponentName": wish.name})
    _check_model(backend, request)
    found = describe(backend, wish.name)
    served, found["Specification"] = found["Specification"], request["Specification"]
    set_copies(backend, wish.name, request["RuntimeConfig"]["CopyCount"])
    if served != request["Specification"]:
        _serve(control, backend, wish.name, before=served)
    if deployment := request.get("DeploymentConfig"):
        found["LastDeploymentConfig"] = deployment
    found["LastModifiedTime"] = datetime.now(timezone.utc)
    return _record(found, wish)


def _record(found: Properties, wish: Wish) -> Record:
    """The CloudFormation resource. Raises `ResourceFailed` where the component is Failed."""
    record = Record(found["InferenceComponentArn"], wish.properties)
    if found["InferenceComponentStatus"] == "Failed":
        raise ResourceFailed(found["FailureReason"], record)
    return record


def _backend(wish: Wish) -> SageMakerModelBackend:
    return sagemaker_backends[wish.account_id][wish.region]


def install(control: SageMaker) -> None:
    """Add the operations to moto's SageMaker."""

    def create_inference_component(self: SageMakerResponse) -> ActionResult:
        made = create(control, self.sagemaker_backend, self._get_params())
        return ActionResult({"InferenceComponentArn": made["InferenceComponentArn"]})

    def describe_inference_component(self: SageMakerResponse) -> ActionResult:
        return ActionResult(describe(self.sagemaker_backend, self._get_param("InferenceComponentName")))

    def list_inference_components(self: SageMakerResponse) -> ActionResult:
        wanted = self._get_params().get("EndpointNameEquals")
        return ActionResult({"InferenceComponents": summaries(self.sagemaker_backend, wanted)})

    def delete_inference_component(self: SageMakerResponse) -> EmptyResult:
        delete(control, self.sagemaker_backend, self._get_param("InferenceComponentName"))
        return EmptyResult()

    def update_inference_component_runtime_config(self: SageMakerResponse) -> ActionResult:
        wanted = self._get_params()
        copies = wanted["DesiredRuntimeConfig"]["CopyCount"]
        changed = set_copies(self.sagemaker_backend, wanted["InferenceComponentName"], copies)
        return ActionResult({"InferenceComponentArn": changed["InferenceComponentArn"]})

    for operation in (
        create_inference_component,
        describe_inference_component,
        list_inference_components,
        delete_inference_component,
        update_inference_component_runtime_config,
    ):
        setattr(SageMakerResponse, operation.__name__, operation)
