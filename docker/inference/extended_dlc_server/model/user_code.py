"""The user's `code/inference.py`, called as sagemaker-huggingface-inference-toolkit 2.6.0 calls it.

Its `handler_service.py` defines the functions and their arguments, `mms/context.py` of multi-model-server `context`.
"""

from __future__ import annotations

import asyncio
import importlib
import inspect
import json
import logging
import sys
import threading
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..answering.encoding import encode
from ..errors import RequestError, StartError, panics_are_errors, shown_text
from ..json_text import encode_json, listed
from ..machine.device_errors import explain_device
from ..reading.attributes import HEADER as ATTRIBUTES
from ..reading.decoding import decode
from ..reading.images import ImageDecoder
from ..reading.negotiation import Form, choose_form

if TYPE_CHECKING:
    from .model import Model

log = logging.getLogger(__name__)

_ARGUMENTS = {"model_fn": 1, "input_fn": 2, "predict_fn": 2, "output_fn": 2, "transform_fn": 4}
"""Name -> number of arguments, not counting an optional `context` at the end."""


class Headers(dict[str, str]):
    """Request headers with case-insensitive names."""

    def __getitem__(self, name: str) -> str:
        return super().__getitem__(name.lower())

    def __contains__(self, name: object) -> bool:
        return super().__contains__(str(name).lower())

    def get(self, name: str, default: Any = None) -> Any:
        return super().get(name.lower(), default)


@dataclass(frozen=True, kw_only=True)
class RawRequest:
    """A request before decoding."""

    body: bytes
    headers: Headers


@dataclass(frozen=True, kw_only=True)
class Reply:
    """A whole response."""

    body: bytes
    content_type: str
    status: int = 200
    headers: Mapping[str, str] = field(default_factory=dict)
    """Additional headers that the user's code set."""


class RequestProcessor:
    """One request, as multi-model-server hands it to user code."""

    def __init__(self, headers: Headers) -> None:
        self._headers = headers
        self.status: int | None = None
        self.response: dict[str, str] = {}

    def get_request_properties(self) -> Headers:
        return self._headers

    def get_request_property(self, key: str) -> str | None:
        value: str | None = self._headers.get(key)
        return value

    def report_status(self, code: int, reason_phrase: str | None = None) -> None:
        self.status = code

    def add_response_property(self, key: str, value: str) -> None:
        self.response[key.lower()] = value


class Context:
    """The `context` argument: those parts of multi-model-server's context that have a meaning here."""

    def __init__(self, model_dir: str, gpu: int | None) -> None:
        """`request_processor` is empty while the model loads."""
        self.model_name = "model"
        self.manifest: dict[str, Any] = {}
        self.system_properties = {
            **{"model_dir": model_dir, "gpu_id": gpu, "batch_size": 1},
            **{"server_name": "extended-dlc", "server_version": ""},
        }
        self.request_processor: list[RequestProcessor] = []
        self.metrics = _NoMetrics()

    def get_request_header(self, idx: int, key: str) -> str | None:
        return self.request_processor[idx].get_request_property(key)

    def get_all_request_header(self, idx: int) -> Headers:
        return self.request_processor[idx].get_request_properties()

    def set_response_content_type(self, idx: int, value: str) -> None:
        self.set_response_header(idx, "content-type", value)

    def set_response_header(self, idx: int, key: str, value: str) -> None:
        self.request_processor[idx].add_response_property(key, value)

    def set_response_status(self, code: int = 200, phrase: str = "", idx: int = 0) -> None:
        self.request_processor[idx].report_status(code, phrase)


class _NoMetrics:
    """Accepts multi-model-server's `add_time`, `add_counter` and so on, and discards the values."""

    def __getattr__(self, name: str) -> Callable[..., None]:
        if not name.startswith("add_"):
            raise AttributeError(name)
        return lambda *args, **kwargs: None


@dataclass(frozen=True, kw_only=True)
class Hooks:
    """The functions that the user's module defines."""

    module: str
    """Path of the module, for messages."""

    functions: Mapping[str, Callable[..., Any]]

    with_context: frozenset[str]
    """Names of the functions that take `context`."""

    def call(self, name: str, context: Context, *arguments: Any) -> Any:
        """Call a function; if it is async, wait for its result."""
        extra = (context,) if name in self.with_context else ()
        return _awaited(self.functions[name](*arguments, *extra))


_loops = threading.local()


def _awaited(value: Any) -> Any:
    """Return the result of a coroutine, or a list of what an async generator yields.

    Each thread keeps one event loop, since objects such as an HTTP client's session work on one loop only.
    """
    if not inspect.isawaitable(value) and not isinstance(value, AsyncIterator):
        return value
    if not hasattr(_loops, "loop"):
        _loops.loop = asyncio.new_event_loop()

    async def wait() -> Any:
        if isinstance(value, AsyncIterator):
            return [one async for one in value]
        return await value

    return _awaited(_loops.loop.run_until_complete(wait()))


def load_hooks(program: Path) -> Hooks:
    """Import the module with its folder first on the path, and check what it defines."""
    sys.path.insert(0, str(program.parent))
    try:
        module = importlib.import_module(program.stem)
    except Exception as error:
        log.exception("the user's code cannot be imported")
        raise StartError(
            f"{program} cannot be imported ({type(error).__name__}: {error}): the log has the trace; a package that "
            "is missing belongs into code/requirements.txt"
        ) from error
    functions = {name: found for name in _ARGUMENTS if (found := getattr(module, name, None)) is not None}
    if "transform_fn" in functions and functions.keys() & {"input_fn", "predict_fn", "output_fn"}:
        raise StartError(
            f"{program} defines transform_fn, which replaces input_fn, predict_fn and output_fn: keep either"
        )
    with_context = set()
    for name, function in functions.items():
        takes, least = len(inspect.signature(function).parameters), _ARGUMENTS[name]
        if takes not in (least, least + 1):
            raise StartError(
                f"{name} of {program} must take {least} arguments, or {least + 1} with context, not {takes}"
            )
        if takes > least:
            with_context.add(name)
    log.info("%s defines %s", program, ", ".join(functions) or "none of the functions that are called")
    return Hooks(module=str(program), functions=functions, with_context=frozenset(with_context))


class UserModel:
    """A model behind the user's functions; the toolkit's defaults replace those that are not defined."""

    def __init__(self, hooks: Hooks, context: Context, model: Any, native: Model | None) -> None:
        """`model` is what model_fn returned, or without a model_fn the pipeline of `native`."""
        self._hooks, self._context, self._model, self._native = hooks, context, model, native
        self.task = native.task if native else "user-code"

    def transform(self, request: RawRequest) -> Reply:
        """Answer one request with the user's functions."""
        processor = RequestProcessor(request.headers)
        self._context.request_processor = [processor]
        sent = request.headers.get("content-type") or "application/json"
        media = sent.partition(";")[0].strip().lower()
        accept = request.headers.get("accept") or "*/*"
        # as in the toolkit, only exactly "*/*" is replaced; of a list, the first type becomes the content type below
        accept = "application/json" if accept == "*/*" else accept
        data: Any = request.body
        if media in ("application/json", "text/csv"):
            try:
                data = request.body.decode()
            except ValueError:
                raise RequestError(400, "malformed-text", "the body is not valid UTF-8: send UTF-8 text") from None
        try:
            result = self._run(data, media, accept, request)
        except Exception as error:
            explained = explain_device(error)
            if explained is None:
                raise
            raise explained from error
        body, content_type = result if isinstance(result, tuple) and len(result) == 2 else (result, None)
        headers = dict(processor.response)
        content_type = headers.pop("content-type", None) or content_type or accept.split(",")[0].partition(";")[0]
        with _explaining_results():
            sent = _bytes_of(body)
        return Reply(body=sent, content_type=str(content_type), status=processor.status or 200, headers=headers)

    def _run(self, data: Any, media: str, accept: str, request: RawRequest) -> Any:
        has = self._hooks.functions.keys()
        if "transform_fn" in has:
            return self._call("transform_fn", self._model, data, media, accept)
        task = self._native.expected.task if self._native else ""
        form = None if "output_fn" in has else choose_form(accept, task)
        prediction = self._predict(data, media, request)
        if form is None:
            return self._call("output_fn", prediction, accept)
        with _explaining_results():
            return encode(prediction, form, task), form.content_type

    def _predict(self, data: Any, media: str, request: RawRequest) -> Any:
        has = self._hooks.functions.keys()
        if self._native and not has & {"input_fn", "predict_fn"}:
            # no user code runs before the pipeline, so the request is validated as without user code
            attributes = request.headers.get(ATTRIBUTES, "")
            decoded = decode(
                request.body, request.headers.get("content-type"), self._native.expected, attributes=attributes
            )
            if decoded.form is Form.EVENTS:
                raise RequestError(400, "cannot-stream", "user code has no stream: leave 'stream' away")
            return self._native.predict(decoded)
        data = self._call("input_fn", data, media) if "input_fn" in has else _default_input(data, media)
        return (
            self._call("predict_fn", data, self._model) if "predict_fn" in has else _default_predict(data, self._model)
        )

    def _call(self, name: str, *arguments: Any) -> Any:
        try:
            with panics_are_errors():
                return self._hooks.call(name, self._context, *arguments)
        except Exception as error:
            # attributes of multi-model-server's PredictionException and of sagemaker-inference's errors
            status = getattr(error, "error_code", None) or getattr(error, "status_code", None)
            if isinstance(status, int) and 400 <= status <= 599:
                message = str(getattr(error, "message", None) or error)
            elif isinstance(error, ValueError) or (name == "input_fn" and isinstance(error, (KeyError, TypeError))):
                status, message = 400, f"{name} refuses this request: {type(error).__name__}: {error}"
            else:
                raise
            log.info("%s raised %r", name, error)
            raise RequestError(status, "user-code", message) from error


def _bytes_of(body: Any) -> bytes:
    """Convert the user's result to a body: text, bytes, an iterator of these, or a value for JSON."""
    if isinstance(body, Iterator):
        body = listed(body)
        if body and all(isinstance(part, (str, bytes, bytearray)) for part in body):
            body = b"".join(part.encode("utf-8", "replace") if isinstance(part, str) else part for part in body)
    if isinstance(body, str):
        return body.encode("utf-8", "replace")
    return bytes(body) if isinstance(body, (bytes, bytearray)) else encode_json(body)


@contextmanager
def _explaining_results() -> Iterator[None]:
    """500 with the reason for a result that cannot be converted to a body."""
    try:
        yield
    except (TypeError, ValueError, RecursionError) as error:
        log.exception("what the user's code returned cannot be sent")
        raise RequestError(
            500,
            "user-code",
            f"what the user's code returned cannot be sent ({shown_text(error)}): return text, bytes, or what JSON has",
        ) from error


def _default_predict(data: Any, model: Any) -> Any:
    """As the toolkit does, pass `inputs` and `parameters`, or the whole object, to the model unchanged."""
    if not isinstance(data, dict):
        return model(data)
    data = dict(data)
    inputs = data.pop("inputs", data)
    parameters = data.pop("parameters", None) or {}
    try:
        return model(inputs, **parameters)
    except (ValueError, TypeError) as error:
        raise RequestError(400, "refused-by-model", f"the model refuses this request: {error}") from error


def _default_input(data: Any, media: str) -> Any:
    """Decode as the toolkit does, which validates nothing, and accept any audio type."""
    if media == "application/json":
        try:
            return json.loads(data)
        except (ValueError, RecursionError) as error:
            raise RequestError(400, "malformed-json", f"the body is not valid JSON ({error})") from None
    if media == "text/csv":
        return _default_csv(data)
    if media == "text/plain":
        return {"inputs": data.decode("utf-8", "replace")}
    if media.startswith("image/"):
        return {"inputs": ImageDecoder().decode(data)}
    if media.startswith(("audio/", "video/")) or media == "application/octet-stream":
        return {"inputs": data}
    raise RequestError(
        415, "unsupported-content-type", f"content type '{media}' needs an input_fn in the user's code: it has none"
    )


def _default_csv(text: str) -> dict[str, Any]:
    import csv
    import io

    try:
        rows = list(csv.DictReader(io.StringIO(text, newline=""), strict=True))
    except (csv.Error, ValueError) as error:
        raise RequestError(400, "malformed-csv", f"the body is not valid CSV ({error})") from None
    if not rows or not rows[0].keys() & {"inputs", "question", "context"}:
        raise RequestError(400, "malformed-csv", "the CSV must have a first line with 'inputs', or 'question,context'")
    return {"inputs": [row["inputs"] for row in rows] if "inputs" in rows[0] else rows}
