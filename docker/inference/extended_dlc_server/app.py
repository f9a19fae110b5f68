"""The two routes, as a plain ASGI application."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable, Mapping, MutableMapping
from typing import Any

from .attributes import HEADER as CUSTOM_ATTRIBUTES
from .decoding import decode
from .encoding import encode_json
from .errors import RequestError
from .model import Model
from .settings import MEGABYTE, Settings
from .worker import State, Worker, queue_full, unavailable

log = logging.getLogger(__name__)

Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]

JSON = "application/json"
_DISCARD_BYTES = 100 * MEGABYTE
"""How much of a body over the limit is read away, so that its sender reads our answer instead of a broken pipe."""


class ClientGoneError(Exception):
    """The client closed the connection: nobody is there to answer."""


class App:
    """`GET /ping` and `POST /invocations` in front of a worker."""

    def __init__(self, settings: Settings, worker: Worker[Model]) -> None:
        """The worker may still be loading."""
        self._settings = settings
        self._worker = worker
        self._admitted = 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one HTTP request."""
        started = time.perf_counter()
        taken, status, content_type = 0, 200, JSON
        try:
            match scope["method"], scope["path"]:
                case "GET" | "HEAD", "/ping":
                    status, body = self._ping()
                case "POST", "/invocations":
                    data = await self._read_body(scope, receive)
                    taken = len(data)
                    body, content_type = await self._answer(data, _headers(scope), receive)
                case method, path:
                    raise _no_such_route(method, path)
        except ClientGoneError:
            log.info("%s %s: the client left after %.0f ms", scope["method"], scope["path"], _ms(started))
            return
        except RequestError as error:
            status, body, content_type = error.status, encode_json(error.body()), JSON
        except Exception:
            log.exception("a request failed")
            ours = RequestError(500, "internal-error", "this request failed inside the server: its log says why")
            status, body, content_type = ours.status, encode_json(ours.body()), JSON
        await _respond(send, status, body, content_type)
        if scope["path"] != "/ping":
            log.info(
                "%s %s %d, %d bytes in, %d bytes out, %.0f ms",
                *(scope["method"], scope["path"], status, taken, len(body), _ms(started)),
            )

    def _ping(self) -> tuple[int, bytes]:
        match self._worker.state:
            case State.READY:
                return 200, encode_json({"status": "ready"})
            case State.LOADING:
                raise unavailable(State.LOADING)
            case State.FAILED:
                raise RequestError(500, "model-failed", f"the model cannot answer: {self._worker.failure}")

    async def _answer(self, data: bytes, headers: Mapping[str, str], receive: Receive) -> tuple[bytes, str]:
        model = self._worker.model
        if model is None or self._worker.state is not State.READY:
            raise unavailable(self._worker.state)
        # decoding counts as waiting, else a burst of audio would fill the memory before the queue is asked
        if self._admitted > self._settings.queue_length:
            raise queue_full(self._settings.queue_length)
        self._admitted += 1
        try:
            said = {"attributes": headers.get(CUSTOM_ATTRIBUTES, ""), "accept": headers.get("accept", "")}
            request = await asyncio.to_thread(decode, data, headers.get("content-type"), model.expected, **said)
            body = await _or_client_gone(self._worker.submit(lambda owned: owned.answer(request)), receive)
            return body, request.form.content_type
        finally:
            self._admitted -= 1

    async def _read_body(self, scope: Scope, receive: Receive) -> bytes:
        limit = self._settings.max_body_bytes
        too_large = RequestError(
            413,
            "body-too-large",
            f"the body is larger than {limit // MEGABYTE} MB: send less at once, or raise EXTENDED_DLC_MAX_BODY_MB",
        )
        headers = _headers(scope)
        announced = headers.get("content-length", "")
        waits = headers.get("expect", "").lower() == "100-continue"
        if announced.isdigit() and int(announced) > limit and (waits or int(announced) > _DISCARD_BYTES):
            raise too_large
        chunks: list[bytes] = []
        size = 0
        while True:
            message = await receive()
            if message["type"] == "http.disconnect":
                raise ClientGoneError
            chunk = message.get("body", b"")
            size += len(chunk)
            if size <= limit:
                chunks.append(chunk)
            elif size > max(limit, _DISCARD_BYTES):
                raise too_large
            else:
                chunks.clear()
            if not message.get("more_body"):
                break
        if size > limit:
            raise too_large
        return b"".join(chunks)


async def _or_client_gone(future: asyncio.Future[bytes], receive: Receive) -> bytes:
    """The result, unless the client leaves first: then the work is dropped if it has not begun."""
    gone = asyncio.ensure_future(receive())
    either: set[asyncio.Future[Any]] = {future, gone}
    try:
        await asyncio.wait(either, return_when=asyncio.FIRST_COMPLETED)
        if not future.done():
            raise ClientGoneError
        return future.result()
    finally:
        gone.cancel()
        future.cancel()


async def _respond(send: Send, status: int, body: bytes, content_type: str) -> None:
    headers = [(b"content-type", content_type.encode()), (b"content-length", str(len(body)).encode())]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body})


def _headers(scope: Scope) -> Mapping[str, str]:
    return {name.decode("latin-1").lower(): value.decode("latin-1") for name, value in scope["headers"]}


def _no_such_route(method: str, path: str) -> RequestError:
    allowed = {"/ping": "GET", "/invocations": "POST"}.get(path)
    if allowed:
        return RequestError(405, "method-not-allowed", f"{path} takes {allowed}, not {method}")
    return RequestError(404, "no-such-path", "this server has GET /ping and POST /invocations")


def _ms(started: float) -> float:
    return (time.perf_counter() - started) * 1000
