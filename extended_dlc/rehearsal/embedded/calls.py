"""API calls as the embedded AWS reads them from HTTP: the service, the operation, the parameters and the caller.

A request is parsed with botocore's service models and moto's parsers, the same ones that moto uses afterwards.
"""

from __future__ import annotations

import io
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from botocore.exceptions import UnknownServiceError
from botocore.model import OperationModel, OperationNotFoundError
from moto.core.parse import PROTOCOL_PARSERS, UNDEFINED
from moto.core.request import Request as MotoRequest
from moto.core.request import determine_request_protocol
from moto.core.routing import get_service_router
from moto.core.utils import get_service_model
from moto.iam.models import get_account_id_from
from werkzeug.exceptions import NotFound

Parameters = dict[str, Any]
Environ = dict[str, Any]

_SIGNED = re.compile(r"AWS4-HMAC-SHA256 Credential=(?P<key>[^/]+)/\d+/(?P<region>[^/]+)/(?P<service>[^/]+)/")
_FORM = "application/x-www-form-urlencoded"
_LARGEST_BODY = 16 * 1024 * 1024
"""Larger bodies hold no parameters of a control plane, so they are not read here."""

_SERVICES = {"airflow": "mwaa", "elasticloadbalancing": "elbv2", "monitoring": "cloudwatch", "states": "stepfunctions"}
"""Signing name to botocore's service name, where the two differ."""

_UNREAD = ("s3",)
"""Services whose request bodies are files: the operation and the path are parsed, the body is not."""

_QUERY = {"continuation-token": "ContinuationToken", "prefix": "Prefix"}
"""Of these services the other parts of the query that are read, and their parameters."""

_DOCUMENTS = {"policy": "Policy"}
"""Of these services the parts of the query whose requests have a document as their body, and its parameter."""


@dataclass(frozen=True, kw_only=True)
class Caller:
    """The account, region and access key that signed a request."""

    account_id: str
    region: str
    access_key: str
    session_token: str | None

    @staticmethod
    def of(environ: Environ) -> Caller | None:
        """None for a request without a signature."""
        found = _SIGNED.match(environ.get("HTTP_AUTHORIZATION", ""))
        if found is None:
            return None
        return Caller(
            account_id=get_account_id_from(found["key"]),
            region=found["region"],
            access_key=found["key"],
            session_token=environ.get("HTTP_X_AMZ_SECURITY_TOKEN"),
        )


@dataclass(frozen=True, kw_only=True)
class Call:
    """One API call."""

    service: str
    """botocore's name of the service."""

    operation: str
    parameters: Parameters
    """With the names and types of the API."""

    account_id: str
    region: str
    caller: Caller | None = None
    """The signer; None where a service of AWS makes the call for the account."""

    problem: str | None = None
    """Why the parameters could not be parsed."""

    template: bool = False
    """Whether a resource of a CloudFormation template makes the call."""

    @property
    def model(self) -> OperationModel:
        return get_service_model(self.service).operation_model(self.operation)

    def __str__(self) -> str:
        return f"{self.service}:{self.operation}"


def read_call(environ: Environ) -> Call | None:
    """The API call of a signed HTTP request; None where botocore does not know the operation."""
    caller = Caller.of(environ)
    signed = _SIGNED.match(environ.get("HTTP_AUTHORIZATION", ""))
    if caller is None or signed is None:
        return None
    service = _SERVICES.get(signed["service"], signed["service"])
    if service == "sagemaker" and environ.get("PATH_INFO", "").startswith("/endpoints/"):
        service = "sagemaker-runtime"
    try:
        model = get_service_model(service)
    except UnknownServiceError:
        return None
    body = _body(environ, service)
    request = MotoRequest({**environ, "wsgi.input": io.BytesIO(body)})
    found = _operation(model, request)
    if found is None:
        return None
    name, uri = found
    parameters, problem = _parameters(model, name, request, body, uri)
    return Call(
        service=service,
        operation=name,
        parameters=parameters,
        account_id=caller.account_id,
        region=caller.region,
        caller=caller,
        problem=problem,
    )


def _body(environ: Environ, service: str) -> bytes:
    """The request's body; the stream is put back, so that it can be read again."""
    length = environ.get("CONTENT_LENGTH") or "0"
    unread = service in _UNREAD and environ.get("QUERY_STRING", "").partition("=")[0] not in _DOCUMENTS
    if unread or service == "sagemaker-runtime" or not length.isdigit() or int(length) > _LARGEST_BODY:
        return b""
    body: bytes = environ["wsgi.input"].read(int(length))
    environ["wsgi.input"] = io.BytesIO(body)
    return body


def _operation(model: Any, request: MotoRequest) -> tuple[str, Mapping[str, Any]] | None:
    """The operation's name, and the parameters in the path."""
    if target := request.headers.get("X-Amz-Target"):
        name = str(target).rsplit(".", 1)[-1]
    elif str(request.content_type or "").startswith(_FORM) and model.protocol in ("query", "ec2", "json"):
        name = str(request.values.get("Action", ""))
    else:
        try:
            operation, uri = get_service_router(model.service_name).match(request)
        except (NotFound, NotImplementedError, OperationNotFoundError):
            return None
        return str(operation.name), uri
    return (name, {}) if name in model.operation_names else None


def _parameters(
    model: Any, name: str, request: MotoRequest, body: bytes, uri: Mapping[str, Any]
) -> tuple[Parameters, str | None]:
    """The parameters with the API's names, or the reason why they cannot be parsed."""
    operation = model.operation_model(name)
    if operation.input_shape is None:
        return {}, None
    if model.service_name in _UNREAD:
        query = {name: request.args[key] for key, name in _QUERY.items() if key in request.args}
        documents = {name: body.decode(errors="replace") for key, name in _DOCUMENTS.items() if key in request.args}
        return {**query, **uri, **(documents if body else {})}, None
    try:
        protocol = determine_request_protocol(model, request.content_type)
        if protocol == "json":  # unchanged: moto's parser turns some strings into numbers
            read = json.loads(body or b"{}")
            return (read, None) if isinstance(read, dict) else ({}, "the request is no JSON object")
        parsed = PROTOCOL_PARSERS[protocol](operation).parse(
            {
                "method": request.method,
                # parsing a form that is meant for a container would consume it, and it could not be passed on
                "values": request.values if protocol in ("query", "ec2") else request.args,
                "headers": request.headers,
                "body": body,
                "url_path": request.path,
                "url_params": dict(uri),
            }
        )
    except NotImplementedError:
        return dict(uri), None
    except (ValueError, TypeError, AttributeError, KeyError) as error:
        return {}, f"the request cannot be read: {error}"
    found = {key: value for key, value in parsed.items() if value is not UNDEFINED} if parsed else {}
    if model.service_name == "sagemaker-runtime" and "Body" in operation.input_shape.required_members:
        found["Body"] = body  # the body is not read here, and it may be empty
    return found, None
