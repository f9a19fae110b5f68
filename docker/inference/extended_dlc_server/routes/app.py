"""The server's ASGI application. The table of the POST routes is in `routes.py`."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import logging
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from ..errors import RequestError, TakesLongError
from ..http import request_log
from ..http.exchange import ClientGoneError, Exchange, Pace, Receive, Scope, Send, unread_answers
from ..http.prepared import Incoming, Prepared
from ..json_text import encode_json
from ..machine.device_errors import explain_device
from ..machine.ending import EndedError, running
from ..machine.freed import FreedMemory
from ..machine.memory import Room, Share, container_bytes
from ..machine.worker import Shared, State, Worker, queue_full, took_too_long, unavailable, waited_too_long
from ..model.model import Model
from ..model.served import Served
from ..model.user_code import Headers, RawRequest, Reply, UserModel
from ..reading.tasks import Kind
from ..settings import Settings
from ..writing.streaming import Emit, LastEvent, Outbox, Unread, event
from ..writing.texts import Writing
from .metrics import CONTENT_TYPE, Metrics
from .metrics import PATH as METRICS
from .openai_models import PATH as MODELS
from .openai_models import models_at
from .openapi import PATH as OPENAPI
from .openapi import document
from .routes import INVOCATIONS, ROUTES, choose, error_body, no_such_route

log = logging.getLogger(__name__)

MOST_DECODED = 16
"""Most decoded requests in memory, except short texts: a few kilobytes can decode to an hour of silence.

Enough for each of eight copies of a model to find its next request decoded.
"""

MOST_BODIES = 16
"""All bodies in memory together may take this many times the largest body.

SageMaker would time out on requests that wait behind so many.
"""

MEDIA_SHARE = 4
"""Decoded images and audio of all requests may take 1/4 of the container's memory."""


BYTES_A_SECOND = 100_000_000
"""How fast large bodies of text are read while other requests are answered: this takes a quarter of a core."""

SHORT_BODY = 4 * 1024
"""Bytes of a text up to which handing it to a thread would take longer than decoding it."""

FEW_PARTS = 64
"""Commas and lines up to which the same holds for a list or CSV: tokenizing each of its texts takes 0.1 ms."""

LAST_MOMENT_SECONDS = 0.1
"""Between the last event of a stream and the end of the work that made it."""

UNLOGGED = ("/ping", METRICS)
"""Paths that SageMaker polls, which are left out of the log and the metrics."""


class App:
    """The ASGI application in front of a worker."""

    def __init__(self, settings: Settings, worker: Worker[Model | UserModel]) -> None:
        """The worker may still be loading the model."""
        self._settings = settings
        self._worker = worker
        self._admitted = 0
        self._freed = FreedMemory()
        self._decoded = asyncio.Semaphore(MOST_DECODED)
        # One thread per decoded request: a request that waits for memory must not block those that have theirs.
        self._readers = ThreadPoolExecutor(MOST_DECODED + 1, "reader")
        self._media = Room(container_bytes() // MEDIA_SHARE, "images and sounds")
        self._parser = asyncio.Lock()
        self._apart = asyncio.Lock()
        self._pace = Pace(BYTES_A_SECOND)
        self._outbox = Outbox()
        self._metrics = Metrics(worker)
        self._document: bytes | None = None
        self._bodies = Room(MOST_BODIES * settings.max_body_bytes, "bodies")

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        exchange = Exchange(scope, receive, send)
        try:
            await self._route(exchange)
        except ClientGoneError:
            exchange.code = "client-gone"
        except Exception as error:
            await _tell(exchange, error)
        finally:
            exchange.let_go(self._bodies)
        if exchange.path not in UNLOGGED:
            self._metrics.count(exchange)
            model = self._worker.model
            request_log.write(exchange, model.task if model else "", self._settings.metrics_namespace)

    async def tidy_up(self) -> None:
        """Return memory to the system whenever the server becomes idle, including that of preparing requests."""
        await self._freed.watch(lambda: not self._admitted, self._readers)

    async def _route(self, exchange: Exchange) -> None:
        if exchange.path.startswith(f"{INVOCATIONS}/v1/"):  # InferenceClient appends /v1/chat/completions to its URL
            exchange.path = exchange.path.removeprefix(INVOCATIONS)
        match exchange.method, exchange.path:
            case "GET" | "HEAD", "/ping":
                await exchange.respond(200, self._ping())
            case "GET" | "HEAD", path if path == METRICS:
                await exchange.respond(200, self._metrics.written(), CONTENT_TYPE)
            case "GET" | "HEAD", path if path == MODELS or path.startswith(f"{MODELS}/"):
                model = self._worker.model
                adapters = model.adapters.names if isinstance(model, Model) and model.adapters else ()
                await exchange.respond(200, encode_json(models_at(path, self._settings.served_name, adapters)))
            case "GET" | "HEAD", path if path == OPENAPI:
                await exchange.respond(200, self._described())
            case "POST", path if path in ROUTES:
                exchange.route = ROUTES[path]
                await self._invoke(exchange)
            case method, path:
                raise no_such_route(method, path)

    def _ping(self) -> bytes:
        match self._worker.state:
            case State.READY:
                return encode_json({"status": "ready"})
            case State.LOADING:
                raise unavailable(State.LOADING)
            case State.FAILED:
                raise RequestError(500, "model-failed", f"the model cannot answer: {self._worker.failure}")

    def _described(self) -> bytes:
        """Return the OpenAPI document of the served model, cached."""
        if self._document is None:
            model = self._worker.model
            if model is None:
                raise unavailable(self._worker.state)
            served = model.served if isinstance(model, Model) else Served(task=model.task, kind=None)
            self._document = encode_json(document(served))
        return self._document

    async def _invoke(self, exchange: Exchange) -> None:
        model = self._worker.model
        texts = isinstance(model, Model) and model.expected.kind is Kind.TEXT
        # A request that is alone is read at full speed.
        pace = self._pace if texts and self._admitted else None
        limit, seconds = self._settings.max_body_bytes, self._settings.body_seconds
        body = await exchange.read_body(limit, seconds, self._bodies, pace)
        model = self._worker.model
        if model is None or self._worker.state is not State.READY:
            raise unavailable(self._worker.state)
        # Requests being decoded count too: otherwise a burst of audio would fill the memory before the queue is full.
        if self._admitted > self._settings.queue_length:
            raise queue_full(self._settings.queue_length)
        self._admitted += 1
        self._freed.note_use()
        try:
            if isinstance(model, UserModel):
                await self._ask_user_code(exchange, body, model)
                return
            is_text = model.expected.kind is Kind.TEXT
            if is_text and len(body) <= SHORT_BODY and body.count(b",") + body.count(b"\n") <= FEW_PARTS:
                try:
                    prepared = _prepare(model, body, exchange)
                except TakesLongError as first:
                    await self._do_first(exchange, first.work)
                else:
                    await self._ask_model(exchange, prepared)
                    return
            while True:
                try:
                    await self._decode_and_ask(exchange, body, model, is_text=is_text)
                    return
                except TakesLongError as first:
                    await self._do_first(exchange, first.work)
        finally:
            self._admitted -= 1

    async def _decode_and_ask(self, exchange: Exchange, body: bytes, model: Model, *, is_text: bool) -> None:
        """Prepare a request on another thread, then run it."""
        await self._decoded.acquire()
        with contextlib.ExitStack() as held:
            held.callback(self._decoded.release)
            share = held.enter_context(Share(self._media))
            # Texts are prepared one at a time: several threads would only compete with `/ping` for the GIL.
            async with self._parser if is_text else contextlib.nullcontext():
                loop = asyncio.get_running_loop()
                deadline = exchange.began + self._settings.answer_seconds
                wanted = functools.partial(_prepare_while_wanted, deadline, model, body, exchange, share)
                prepared = await loop.run_in_executor(self._readers, wanted)
            if is_text:  # a text takes no more than its body, which counts until the end
                held.close()
            await self._ask_model(exchange, prepared, held.close)

    async def _do_first(self, exchange: Exchange, work: Callable[[], object]) -> None:
        """Do what takes long, one at a time, while others are prepared."""
        async with self._apart:
            if exchange.gone.done():
                raise ClientGoneError
            if time.monotonic() > exchange.began + self._settings.answer_seconds:
                raise waited_too_long()
            await asyncio.get_running_loop().run_in_executor(self._readers, work)

    async def _ask_model(
        self, exchange: Exchange, prepared: Prepared, release: Callable[[], None] = lambda: None
    ) -> None:
        """Run a prepared request, and send its response; `release` frees what the model needs no longer after it."""
        exchange.audio_seconds = prepared.audio_seconds
        if prepared.stream:
            await self._stream(exchange, prepared, prepared.stream, release)
            return
        assert prepared.answer is not None  # noqa: S101 - a request has one of the two
        writing = prepared.writing(None) if prepared.writing else None
        answer = await self._result(exchange, prepared.answer, prepared.shared, writing)
        exchange.tokens = prepared.tokens
        await exchange.respond(200, answer, prepared.content_type, prepared.headers())

    async def _ask_user_code(self, exchange: Exchange, body: bytes, model: UserModel) -> None:
        """Pass the raw request to the user's functions, which decode and encode."""
        request = RawRequest(body=body, headers=Headers(exchange.headers))
        reply: Reply = await self._result(exchange, lambda copy: copy.transform(request))
        await exchange.respond(reply.status, reply.body, reply.content_type, reply.headers)

    async def _result(
        self,
        exchange: Exchange,
        work: Callable[[Any], Any],
        shared: Shared | None = None,
        writing: Writing | None = None,
    ) -> Any:
        """Return the work's result. If the client disconnects first, drop it from the queue or end it."""
        deadline = exchange.began + self._settings.answer_seconds
        exchange.job = self._worker.submit(work, shared, writing=writing, deadline=deadline)
        future = exchange.job.future

        def leave(_: object) -> None:
            future.cancel()

        exchange.gone.add_done_callback(leave)
        try:
            return await future
        except asyncio.CancelledError:
            if exchange.gone.done():
                raise ClientGoneError from None
            raise
        finally:
            exchange.gone.remove_done_callback(leave)
            future.cancel()

    async def _stream(
        self,
        exchange: Exchange,
        prepared: Prepared,
        stream: Callable[[Any, Emit, threading.Event], int],
        release: Callable[[], None],
    ) -> None:
        """Forward events from the model's thread. An error before the first event is sent with its own status."""
        events: asyncio.Queue[bytes | None] = asyncio.Queue()
        gone = threading.Event()
        unread = Unread(unread_answers())
        emit = self._outbox.to(events, asyncio.get_running_loop(), unread, exchange.abort)
        deadline = exchange.began + self._settings.stream_seconds
        writing = prepared.writing(emit) if prepared.writing else None
        exchange.job = self._worker.submit(lambda copy: stream(copy, emit, gone), writing=writing, deadline=deadline)
        future = exchange.job.future

        def end(_: object) -> None:
            events.put_nowait(None)

        future.add_done_callback(lambda _: release())  # the client may take long to read the rest
        future.add_done_callback(end)
        exchange.gone.add_done_callback(end)
        last, is_whole = None, False
        try:
            while (made := await events.get()) is not None:
                if writing is None and events.empty():  # one token can make several events
                    last = self._metrics.stream_goes_on(exchange, last)
                await exchange.send_event(made)
                unread.remove(len(made))
                is_whole = isinstance(made, LastEvent)
            if is_whole and not future.done():  # clients leave on it, a moment before the work that made it is done
                await asyncio.wait([future], timeout=LAST_MOMENT_SECONDS)
            if not future.done():
                raise ClientGoneError
            prepared.tokens.generated = future.result()
            exchange.tokens = prepared.tokens
            await exchange.end_events()
        finally:
            gone.set()
            unread.end()
            exchange.gone.remove_done_callback(end)
            future.cancel()


def _prepare(model: Model, body: bytes, exchange: Exchange, share: Share | None = None) -> Prepared:
    """Choose the route, then parse and validate the request, without running the model."""
    headers = exchange.headers
    if headers.get("content-encoding", "").strip().lower() not in ("", "identity"):
        raise RequestError(415, "unsupported-content-encoding", "a compressed body is not taken: send it as it is")
    incoming = Incoming(path=exchange.path, body=body, headers=headers, expected=model.expected, share=share)
    exchange.route = choose(incoming)
    prepared = exchange.route.prepare(model, incoming)
    return model.adapters.picked(prepared) if model.adapters else prepared


def _prepare_while_wanted(deadline: float, model: Model, body: bytes, exchange: Exchange, share: Share) -> Prepared:
    """Call `_prepare`, but stop at the deadline or when the client has gone: 100,000 texts take seconds to check."""
    if time.monotonic() > deadline:  # the deadline has passed while other requests were prepared
        raise waited_too_long()
    try:
        with running(lambda: exchange.gone.done() or time.monotonic() > deadline):
            return _prepare(model, body, exchange, share)
    except EndedError:
        raise ClientGoneError if exchange.gone.done() else took_too_long() from None


async def _tell(exchange: Exchange, error: Exception) -> None:
    """Send an error as a response, or as the last event of a stream that has begun."""
    if not isinstance(error, RequestError):
        explained = explain_device(error)
        error = explained if isinstance(explained, RequestError) else error
    if not isinstance(error, RequestError):
        log.error("a request failed", exc_info=error)
        error = RequestError(500, "internal-error", "this request failed inside the server: its log says why")
    exchange.code, exchange.failed = error.code, error.status
    body = error_body(exchange.route, exchange.path, error)
    if exchange.status:
        await exchange.send_event(event(body, "error"))
        await exchange.end_events()
    else:
        await exchange.respond(error.status, encode_json(body))
