"""Describes the endpoint: its hosting, and the variant or component that answers."""

from __future__ import annotations

import difflib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from extended_dlc.asking.errors import AskError, is_denied, message_of

Hosting = Literal["real-time", "serverless", "async"]

LIMITS: Mapping[str, int] = {"real-time": 25 * 1024**2, "serverless": 4 * 1024**2, "async": 1024**3}
"""Largest request, in bytes ("Amazon SageMaker AI endpoints and quotas")."""

_DOES_NOT_ANSWER = ("Creating", "Failed", "OutOfService", "Deleting")
_LISTED = 8


@dataclass(frozen=True, kw_only=True)
class Target:
    """The endpoint that a request goes to."""

    endpoint: str
    region: str
    hosting: Hosting = "real-time"
    component: str | None = None
    variant: str | None = None
    output: str | None = None
    """S3 prefix of an asynchronous endpoint's responses."""

    is_vllm: bool = False
    """Whether vLLM answers, which takes requests in OpenAI's format."""

    note: str | None = None
    """What could not be described, for lack of permissions."""

    @property
    def streams(self) -> bool:
        """Whether SageMaker hands on a response in pieces, which it does for real-time endpoints only."""
        return self.hosting == "real-time"

    @property
    def limit(self) -> int:
        """The largest request, in bytes."""
        return LIMITS[self.hosting]


def check_size(target: Target, size: int) -> None:
    """Refuse a request that is too large for SageMaker, before it is sent."""
    if size <= target.limit:
        return
    ways = {
        "real-time": "make it smaller, or host the model as Async, which takes 1 GB",
        "serverless": "make it smaller, or host the model as RealTime, which takes 25 MB, or as Async (1 GB)",
        "async": "make it smaller",
    }
    kind = {"async": "an asynchronous"}.get(target.hosting, f"a {target.hosting}")
    raise AskError(
        f"the request has {_megabytes(size)} and {kind} endpoint takes {_megabytes(target.limit)}",
        f"{ways[target.hosting]}; nothing was sent",
    )


def _megabytes(size: int) -> str:
    return f"{size / 1024**2:,.1f} MB"


def find_target(
    sagemaker: Any, endpoint: str, *, region: str, component: str | None, variant: str | None, looks_at_model: bool
) -> Target:
    """Describe the endpoint; raises `AskError` for one that cannot answer. Missing permissions only leave a note.

    :param looks_at_model: Whether the request depends on the server, so that the Model must be described.
    """
    from botocore.exceptions import ClientError

    given: dict[str, Any] = {"endpoint": endpoint, "region": region, "component": component, "variant": variant}
    try:
        config_name = _config_name(sagemaker, endpoint, region)
        config = sagemaker.describe_endpoint_config(EndpointConfigName=config_name)
    except ClientError as error:
        if not is_denied(error):
            raise
        return Target(**given, note=f"not looked at how it is hosted: {message_of(error)}")
    variants = config.get("ProductionVariants", [])
    chosen = _variant(endpoint, variants, variant)
    note = None
    model = chosen.get("ModelName")
    try:
        if component is not None or not model:
            given["component"], model = _component(sagemaker, endpoint, component)
        is_vllm = looks_at_model and bool(model) and _is_vllm(sagemaker, str(model))
    except ClientError as error:
        if not is_denied(error):
            raise
        is_vllm, note = False, f"not looked at what answers in it: {message_of(error)}"
    queue = config.get("AsyncInferenceConfig")
    hosting: Hosting = "async" if queue else "serverless" if chosen.get("ServerlessConfig") else "real-time"
    output = (queue or {}).get("OutputConfig", {}).get("S3OutputPath")
    return Target(**given, hosting=hosting, output=output, is_vllm=is_vllm, note=note)


def _config_name(sagemaker: Any, endpoint: str, region: str) -> str:
    """The name of the endpoint's EndpointConfig; raises `AskError` if the endpoint cannot answer."""
    from botocore.exceptions import ClientError

    try:
        found = sagemaker.describe_endpoint(EndpointName=endpoint)
    except ClientError as error:
        if "Could not find" not in message_of(error):
            raise
        raise AskError(f"there is no endpoint '{endpoint}' in {region}", _others(sagemaker, endpoint)) from None
    status = found["EndpointStatus"]
    if status in _DOES_NOT_ANSWER:
        reason = f": {found['FailureReason']}" if found.get("FailureReason") else ""
        way_out = {
            "Creating": "wait until it is InService: aws sagemaker wait endpoint-in-service --endpoint-name "
            f"{endpoint} --region {region}",
            "Deleting": "deploy it again",
        }.get(
            status,
            f"aws logs tail /aws/sagemaker/Endpoints/{endpoint} --region {region} shows its log; deploy it again",
        )
        raise AskError(f"the endpoint '{endpoint}' is {status} and answers nothing{reason}", way_out)
    return str(found["EndpointConfigName"])


def _others(sagemaker: Any, endpoint: str) -> str:
    """The hint for an unknown endpoint: similar names, else all existing ones."""
    from botocore.exceptions import BotoCoreError, ClientError

    try:
        found = sagemaker.list_endpoints(MaxResults=100, SortBy="CreationTime", SortOrder="Descending")["Endpoints"]
    except (ClientError, BotoCoreError):
        return "correct the name, or pass --region"
    names = [each["EndpointName"] for each in found]
    near = difflib.get_close_matches(endpoint, names, n=3) or [each for each in names if endpoint in each][:3]
    if near:
        return f"did you mean {_listed(near)}? Or pass another --region"
    if names:
        return f"there are {_listed(names)}; or pass another --region"
    return "it has none at all: deploy one, or pass another --region"


def _listed(names: Sequence[str]) -> str:
    more = f" and {len(names) - _LISTED} more" if len(names) > _LISTED else ""
    return ", ".join(f"'{each}'" for each in names[:_LISTED]) + more


def _variant(endpoint: str, variants: Sequence[Mapping[str, Any]], wanted: str | None) -> Mapping[str, Any]:
    if wanted is None:
        return variants[0] if variants else {}
    for each in variants:
        if each["VariantName"] == wanted:
            return each
    names = [each["VariantName"] for each in variants]
    raise AskError(f"'--variant' ('{wanted}') is none of '{endpoint}'", f"it has {_listed(names)}")


def _component(sagemaker: Any, endpoint: str, wanted: str | None) -> tuple[str, str | None]:
    """The component that answers, and its Model."""
    from botocore.exceptions import ClientError

    try:
        pages = sagemaker.get_paginator("list_inference_components").paginate(EndpointNameEquals=endpoint)
        names = sorted(each["InferenceComponentName"] for page in pages for each in page["InferenceComponents"])
    except ClientError as error:
        if not is_denied(error) or wanted is None:
            raise
        names = [wanted]
    if not names:
        missing = "does not serve components" if wanted else "has neither a model nor a component yet"
        raise AskError(f"'{endpoint}' {missing}", "leave --component out" if wanted else "deploy a component")
    if wanted is None and len(names) > 1:
        raise AskError(f"'{endpoint}' has several components", f"say which with --component: {_listed(names)}")
    name = wanted or names[0]
    if name not in names:
        raise AskError(f"'--component' ('{name}') is none of '{endpoint}'", f"it has {_listed(names)}")
    found = sagemaker.describe_inference_component(InferenceComponentName=name)
    status = found["InferenceComponentStatus"]
    if status in ("Creating", "Failed", "Deleting"):
        reason = f": {found['FailureReason']}" if found.get("FailureReason") else ""
        raise AskError(
            f"the component '{name}' is {status} and answers nothing{reason}",
            "wait until it is InService" if status == "Creating" else "deploy it again",
        )
    return name, found.get("Specification", {}).get("ModelName")


def _is_vllm(sagemaker: Any, model: str) -> bool:
    found = sagemaker.describe_model(ModelName=model)
    container: Mapping[str, Any] = found.get("PrimaryContainer") or next(iter(found.get("Containers") or []), {})
    environment = container.get("Environment") or {}
    return "huggingface-vllm" in container.get("Image", "") or any(key.startswith("SM_VLLM_") for key in environment)
