"""Explains errors of requests, with the next step."""

from __future__ import annotations

import json
import re
from typing import Any

from extended_dlc.facts import clock

_SHOWN = 1500
"""Longest part of a server's message that is shown, in characters."""

NO_COPY = "no capacity to process this request"
"""Part of the ValidationError for a component without a copy; the request starts a copy."""


class AskError(Exception):
    """A request failed."""

    def __init__(self, message: str, hint: str = "") -> None:
        """Take the error and, as a hint, the next step."""
        super().__init__(f"{message}: {hint}" if hint else message)
        self.message = message
        self.hint = hint


class ModelRefused(AskError):
    """The container returned an error, with its HTTP status."""

    def __init__(self, status: int, message: str, hint: str = "") -> None:
        super().__init__(message, hint)
        self.status = status


class Stopped(AskError):
    """The user pressed Ctrl-C during the wait."""


_BUSY = (
    *("InternalDependencyException", "InternalFailure", "RequestLimitExceeded", "ServiceUnavailable", "SlowDown"),
    *("Throttling", "ThrottledException", "ThrottlingException", "TooManyRequestsException"),
)
"""Codes for what passes by itself."""

_NOT_TAKEN = (
    *("ExpiredToken", "ExpiredTokenException", "IncompleteSignature", "InvalidClientTokenId"),
    *("InvalidSignatureException", "SignatureDoesNotMatch", "UnrecognizedClientException"),
)
"""Codes for credentials that AWS does not accept."""


def unreachable(error: Exception) -> AskError:
    """The explanation of a request that got no answer."""
    said = str(error).rstrip(".")
    if clock.is_wrong(said):
        return AskError(f"AWS cannot be asked: {said}", clock.REMEDY)
    return AskError(f"AWS cannot be asked: {said}", "check the network, a proxy (HTTPS_PROXY), and the region")


def code_of(error: Any) -> str:
    """The code of an AWS error, such as `ValidationError`."""
    return str(error.response.get("Error", {}).get("Code", ""))


def message_of(error: Any) -> str:
    return str(error.response.get("Error", {}).get("Message", "")) or str(error)


def is_denied(error: Any) -> bool:
    """Whether a permission is missing."""
    return code_of(error).startswith("AccessDenied")


def explained(error: Any, *, endpoint: str, region: str) -> AskError:
    """The explanation of an AWS error of a request."""
    code, message = code_of(error), message_of(error)
    if code == "ModelError":
        return _model_error(error.response, region)
    if is_denied(error):
        return denied(message)
    if clock.is_wrong(f"{code} {message}"):
        return AskError(f"this machine's clock is wrong ({message})", clock.REMEDY)
    if code in _NOT_TAKEN:
        return AskError(f"AWS does not take the credentials ({message})", "log in again, or name another --profile")
    if "asynchronous endpoint" in message:
        return AskError(
            message, "this command sees that where its credentials have sagemaker:DescribeEndpoint, which they have not"
        )
    if "Variant" in message and "not found" in message:
        return AskError(message, f"aws sagemaker describe-endpoint --endpoint-name {endpoint} shows its variants")
    if code in _BUSY:
        return AskError(f"SageMaker is busy ({code}: {message})", "ask again in a moment")
    status = error.response.get("ResponseMetadata", {}).get("HTTPStatusCode")
    return AskError(f"SageMaker refuses the request ({code or status}): {message}")


def denied(message: str) -> AskError:
    found = re.search(r"not authorized to perform: (\S+?)(?: on resource: (\S+))?(?: |$)", message)
    if found is None:
        return AskError(f"AWS denies access ({message})", "ask with credentials that may invoke the endpoint")
    action, resource = found[1], found[2] or "*"
    return AskError(
        f"the credentials lack the permission {action} on {resource}",
        "add it to their policy (endpoint.grant_invoke(role) in the stack does)"
        + ("; --no-stream needs sagemaker:InvokeEndpoint alone" if action.endswith("WithResponseStream") else ""),
    )


def _model_error(response: Any, region: str) -> ModelRefused:
    status = int(response.get("OriginalStatusCode") or 0)
    original = str(response.get("OriginalMessage") or response.get("Error", {}).get("Message", ""))
    said = servers_words(original)
    if 400 <= status < 500:
        return ModelRefused(status, f"the model's server refuses the request ({status}): {said}")
    if "timed out" in original:
        return ModelRefused(
            status,
            said.rstrip("."),
            "an answer in one piece may take 60 s: ask for a shorter one or a stream, or host it as Async",
        )
    group = str(response.get("LogStreamArn") or "").partition(":log-group:")[2].partition(":")[0]
    hint = f"aws logs tail {group} --since 10m --region {region} shows its log" if group else ""
    return ModelRefused(status, f"the model's server has failed ({status or 'no answer'}): {said}", hint)


def servers_words(text: str) -> str:
    """The message in a server's error body, in this project's, OpenAI's or another format; else the truncated body."""
    try:
        content = json.loads(text)
    except ValueError:
        return text[:_SHOWN]
    found = words_in(content)
    return (found or text)[:_SHOWN]


def words_in(content: Any) -> str | None:
    """The message in a JSON error; None without one."""
    if isinstance(content, str):
        return content
    if not isinstance(content, dict):
        return None
    for key in ("error", "message", "detail"):
        if key in content and (found := words_in(content[key])):
            return found
    return None
