"""What can go wrong, each with the words for whoever can put it right."""

from __future__ import annotations


class StartError(Exception):
    """The server cannot start as configured: the message names the setting, its value, the rule and the way out."""


class CannotAnswerError(StartError):
    """The model is loaded and fails at its first inference."""


class RequestError(Exception):
    """A request gets no result: an HTTP status, a code for programs and a message for people."""

    def __init__(self, status: int, code: str, message: str) -> None:
        """Keep the three parts; `status` is 4xx for what the caller can change and 5xx for what only we can."""
        super().__init__(message)
        self.status = status
        self.code = code
        self.message = message

    def body(self) -> dict[str, dict[str, str]]:
        """The one shape of every error body."""
        return {"error": {"code": self.code, "message": self.message}}
