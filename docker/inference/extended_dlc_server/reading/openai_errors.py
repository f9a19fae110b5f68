"""Errors in the format of OpenAI's API, by which its clients choose the exception to raise."""

from __future__ import annotations

from typing import Any

from ..errors import RequestError

_TYPES = {
    404: "not_found_error",
    408: "timeout_error",
    429: "rate_limit_error",
}


_TOO_LONG = "This model's maximum context length is exceeded: "
"""OpenAI's message for this error: clients search for it and for the code, and agents then shorten their chats."""


class BadFieldError(RequestError):
    """An invalid field of a request."""

    def __init__(self, code: str, param: str, message: str) -> None:
        """`param` is the field's name."""
        super().__init__(400, code, message)
        self.param = param


def openai_body(error: RequestError) -> dict[str, Any]:
    """`{"error": {"message", "type", "param", "code"}}`."""
    kind = _TYPES.get(error.status, "invalid_request_error" if error.status < 500 else "server_error")
    too_long = error.code == "inputs-too-long"
    return {
        "error": {
            "message": f"{_TOO_LONG}{error.message}" if too_long else error.message,
            "type": kind,
            "param": getattr(error, "param", None),
            "code": "context_length_exceeded" if too_long else error.code,
        }
    }
