"""What went wrong with a request, in a sentence, and the next thing to do."""

from __future__ import annotations

import json
import re
from typing import Any

_SHOWN = 1500
"""Characters of a server's message that are shown."""

NO_COPY = "no capacity to process this request"
"""Of the ValidationError that a component without a copy answers with: the request wakes one."""


class AskError(Exception):
    """A request without an answer."""

    def __init__(self, message: str, hint: str = "") -> None:
        """Say what is wrong, and what to do about it."""
        super().__init__(f"{message}: {hint}" if hint else message)
        self.message = message
        self.hint = hint


class ModelRefused(AskError):
    """The container's own refusal, with the status that it gave."""

    def __init__(self, status: int, message: str, hint: str = "") -> None:
        super().__init__(message, hint)
        self.status = status


class Stopped(AskError):
    """Ctrl-C while it waited."""


def code_of(error: Any) -> str:
    """The code of an AWS error, as `ValidationError`."""
    return str(error.response.get("Error", {}).get("Code", ""))


def message_of(error: Any) -> str:
    return str(error.response.get("Error", {}).get("Message", "")) or str(error)


def is_denied(error: Any) -> bool:
    """Whether a right is missing."""
    return code_of(error).startswith("AccessDenied")


def explained(error: Any, *, endpoint: str, region: str) -> AskError:
    """What an AWS error of a request means."""
    code, message = code_of(error), message_of(error)
    if code == "ModelError":
        return _model_error(error.response, region)
    if is_denied(error):
        return denied(message)
    if code in ("ExpiredToken", "ExpiredTokenException", "UnrecognizedClientException", "InvalidSignatureException"):
        return AskError(f"AWS does not take the credentials ({message})", "log in again, or name another --profile")
    if "asynchronous endpoint" in message:
        return AskError(
            message, "this command sees that where its credentials have sagemaker:DescribeEndpoint, which they have not"
        )
    if "Variant" in message and "not found" in message:
        return AskError(message, f"aws sagemaker describe-endpoint --endpoint-name {endpoint} shows its variants")
    if code in ("Throttling", "ThrottlingException", "ServiceUnavailable"):
        return AskError(f"SageMaker is busy ({code}: {message})", "ask again in a moment")
    status = error.response.get("ResponseMetadata", {}).get("HTTPStatusCode")
    return AskError(f"SageMaker refuses the request ({code or status}): {message}")


def denied(message: str) -> AskError:
    found = re.search(r"not authorized to perform: (\S+?)(?: on resource: (\S+))?(?: |$)", message)
    if found is None:
        return AskError(f"AWS denies access ({message})", "ask with credentials that may invoke the endpoint")
    action, resource = found[1], found[2] or "*"
    return AskError(
        f"the credentials lack the right {action} on {resource}",
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
    """The sentence in a server's error body, of this project's form, OpenAI's or another; else the body, cut."""
    try:
        content = json.loads(text)
    except ValueError:
        return text[:_SHOWN]
    found = words_in(content)
    return (found or text)[:_SHOWN]


def words_in(content: Any) -> str | None:
    """The message of an error as JSON; None where it has none."""
    if isinstance(content, str):
        return content
    if not isinstance(content, dict):
        return None
    for key in ("error", "message", "detail"):
        if key in content and (found := words_in(content[key])):
            return found
    return None
