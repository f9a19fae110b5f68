"""SageMaker's OpenAI-compatible route: chat completions of endpoints and inference components, with a bearer token.

`POST /endpoints/NAME[/inference-components/COMPONENT]/openai/v1/chat/completions` reaches the container at
`/v1/chat/completions`, and the response is streamed back (SageMaker developer guide, "Invoke endpoints with
OpenAI-compatible APIs"). The guide documents this one path: every other one below `openai/` is refused.

An error has OpenAI's form: `error` with `message`, `type` and `code`. Seen on AWS (stdapi-ai/stdapi.ai, its tests of
August 2026): the messages are InvokeEndpoint's, `ValidationError` is `invalid_request_error` and `validation_error`, an
error of the container is `server_error` and `model_error` with the container's own status, and the header that names a
component is refused on this route. The `type` of the other errors is a guess.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from urllib.parse import unquote

from moto.sagemaker.models import sagemaker_backends
from werkzeug.wrappers import Request, Response

from extended_dlc.rehearsal.embedded.bearer import TokenCaller, TokenRefused, caller_of
from extended_dlc.rehearsal.embedded.runtime import Refused, Runtime, ask, find_answering, find_serving_endpoint
from extended_dlc.rehearsal.embedded.sagemaker import find_endpoint

ROUTE = re.compile(
    r"/endpoints/(?P<name>[^/]+)(?:/inference-components/(?P<component>[^/]+))?/openai(?P<path>/.*)?", re.DOTALL
)
"""Every path below an endpoint's or a component's `openai/`."""

_CHAT = "/v1/chat/completions"
_COMPONENT_HEADER = "X-Amzn-SageMaker-Inference-Component"
_PASSED_ON = ("Content-Type", "Accept")


def respond(request: Request, runtime: Runtime, found: re.Match[str]) -> Response:
    """Respond to a request whose path matches `ROUTE`."""
    try:
        if request.method != "POST" or found["path"] != _CHAT:
            raise Refused(
                404,
                "UnknownOperationException",
                Message=f"{request.method} /openai{found['path'] or ''} is not served: SageMaker documents POST "
                f"/openai{_CHAT} and no other path. Reach the container's other routes through InvokeEndpoint.",
            )
        return _complete(request, runtime, unquote(found["name"]), found["component"] and unquote(found["component"]))
    except TokenRefused as refused:
        return _error(403, refused.code, str(refused))
    except Refused as refused:
        return _error(
            refused.original_status or refused.status,
            refused.code or "ValidationError",
            str(refused.members["Message"]),
        )


def _complete(request: Request, runtime: Runtime, name: str, component: str | None) -> Response:
    caller = caller_of(request.headers.get("Authorization", ""))
    body = runtime.read_body(request)
    caller.require(runtime.iam, "sagemaker:CallWithBearerToken", "*")
    _check_region(caller, name)
    if _COMPONENT_HEADER in request.headers:
        raise Refused(
            400,
            "ValidationError",
            Message=f"{_COMPONENT_HEADER} is not taken here: name the component in the path, "
            "/endpoints/NAME/inference-components/COMPONENT/openai/v1.",
        )
    prefix = f"arn:aws:sagemaker:{caller.region}:{caller.account_id}"
    caller.require(runtime.iam, "sagemaker:InvokeEndpoint", f"{prefix}:endpoint/{name.lower()}")
    if component is not None:
        caller.require(runtime.iam, "sagemaker:InvokeEndpoint", f"{prefix}:inference-component/{component}")
    endpoint = find_serving_endpoint(caller.account_id, caller.region, name)
    _, instance = find_answering(endpoint, component=component)
    headers = {key: value for key in _PASSED_ON if (value := request.headers.get(key)) is not None}
    answer = ask(endpoint, instance, _CHAT, body, headers, seconds=runtime.limits.seconds)
    kind = answer.headers.get("Content-Type", "application/octet-stream")
    if "Content-Length" in answer.headers:
        return Response(answer.read(), 200, content_type=kind)
    return Response(answer.pieces(), 200, content_type=kind, direct_passthrough=True)


def _check_region(caller: TokenCaller, name: str) -> None:
    """Refuse a token of another region: here one port serves all regions' hosts."""
    if find_endpoint(caller.account_id, caller.region, name) is not None:
        return
    if any(find_endpoint(caller.account_id, region, name) for region in list(sagemaker_backends[caller.account_id])):
        raise TokenRefused("InvalidSignature", "Credential should be scoped to a valid region. ")


def _error(status: int, code: str, message: str) -> Response:
    """An error in OpenAI's form; the code is AWS's error code in snake case."""
    kind = "server_error" if code == "ModelError" else "invalid_request_error"
    snake = re.sub(r"(?<=[a-z])(?=[A-Z])", "_", code).lower()
    content: Mapping[str, object] = {"error": {"message": message, "type": kind, "code": snake}}
    return Response(json.dumps(content), status, {"x-amzn-errortype": code}, mimetype="application/json")
