"""The server: routes requests to the registry, the runtime or moto, which implements the other APIs."""

from __future__ import annotations

import io
import json
import logging
import re
import threading
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, unquote
from xml.sax.saxutils import escape

from moto.cloudformation.models import cloudformation_backends
from moto.iam.models import iam_backends
from moto.logs.models import logs_backends
from moto.moto_server.werkzeug_app import DomainDispatcherApplication, create_backend_app
from moto.s3.models import s3_backends
from moto.sagemaker.models import sagemaker_backends
from moto.ssm.models import ssm_backends
from werkzeug.serving import BaseWSGIServer, WSGIRequestHandler, make_server
from werkzeug.wrappers import Request, Response

from extended_dlc.rehearsal.embedded import (
    clock,
    cloudformation,
    components,
    ecr,
    functions,
    identities,
    log_patterns,
    openai_route,
    sagemaker,
    states,
    web_pages,
)
from extended_dlc.rehearsal.embedded.asynchronous import Queues
from extended_dlc.rehearsal.embedded.builds import build_image
from extended_dlc.rehearsal.embedded.calls import Caller
from extended_dlc.rehearsal.embedded.door import Door
from extended_dlc.rehearsal.embedded.hosting import Hosting, Launcher
from extended_dlc.rehearsal.embedded.iam import Iam
from extended_dlc.rehearsal.embedded.pages import Pages
from extended_dlc.rehearsal.embedded.registry import Registry
from extended_dlc.rehearsal.embedded.resource_table import resource_types
from extended_dlc.rehearsal.embedded.run_copy import copy_model
from extended_dlc.rehearsal.embedded.run_proof import prove
from extended_dlc.rehearsal.embedded.runtime import Limits, Refused, Runtime
from extended_dlc.rehearsal.embedded.scenarios import ROUTE as SCENARIOS
from extended_dlc.rehearsal.embedded.scenarios import Scenarios
from extended_dlc.rehearsal.embedded.store import BlobStore
from extended_dlc.rehearsal.embedded.training import STOP_SECONDS, Training
from extended_dlc.rehearsal.embedded.training import install as install_training

_INVOCATION = re.compile(
    r"/endpoints/(?P<name>[^/]+)/(?P<operation>invocations|invocations-response-stream|async-invocations)"
)
_INTERRUPTION = re.compile(r"/_embedded/training-jobs/(?P<name>[^/]+)/interruption")
"""A POST interrupts the job's spot capacity, with `seconds` between SIGTERM and SIGKILL."""

_DEATH = re.compile(r"/_embedded/containers/(?P<name>[^/]+)/death")
_FORM = "application/x-www-form-urlencoded"

_log = logging.getLogger(__name__)

Environ = dict[str, Any]


class EmbeddedAws:
    """The embedded AWS as a WSGI application."""

    def __init__(
        self,
        *,
        state: Path,
        port: int,
        launcher: Launcher | None,
        limits: Limits,
        scenarios: Scenarios | None = None,
        faster: float = 1,
    ) -> None:
        blobs = BlobStore(state / "blobs")
        self._scenarios = scenarios or Scenarios()
        self.hosting = Hosting(launcher, state / "logs", scenarios=self._scenarios)
        iam = Iam(record=state / "logs" / "rights.jsonl")
        self._door = Door(scenarios=self._scenarios, iam=iam, pages=Pages())
        control = sagemaker.SageMaker(
            hosting=self.hosting,
            port=port,
            models_folder=state / "models",
            scenarios=self._scenarios,
            iam=iam,
            faster=faster,
        )
        identities.install()
        log_patterns.install()
        ecr.install(port=port, blobs=blobs)
        sagemaker.install(control)
        components.install(control)
        self.training = Training(
            control=control,
            folder=state / "training",
            logs=state / "logs",
            short_of=self._scenarios.is_short_of,
        )
        install_training(self.training)
        states.install(port=port)
        functions.install(port=port)
        custom = {
            "Custom::ExtendedDlcBuild": build_image(port=port, iam=iam, engine=getattr(launcher, "engine", None)),
            "Custom::ExtendedDlcMirror": copy_model(port=port, iam=iam),
            "Custom::ExtendedDlcProof": prove(port=port, iam=iam),
        }
        self.types = resource_types(control, blobs, custom, door=self._door, port=port)
        cloudformation.install(cloudformation.Operations(self.types))
        self._port = port
        self._registry = Registry(blobs)
        self._runtime = Runtime(limits=limits, iam=iam)
        self._queues = Queues(iam)
        self._moto = DomainDispatcherApplication(create_backend_app)
        self._requests = (state / "logs" / "requests.jsonl").open("a", buffering=1)
        self._lock = threading.Lock()

    def __call__(self, environ: Environ, start_response: Callable[..., Any]) -> Iterable[bytes]:
        """Respond to one request, and log it."""
        started = time.monotonic()
        action = _action(environ)

        def noting_start(status: str, headers: list[tuple[str, str]], *rest: Any) -> Any:
            self._note(environ, action, status, time.monotonic() - started)
            return start_response(status, headers, *rest)

        try:
            found = web_pages.refuse(environ) or self._door.refuse(environ)
            if isinstance(found, Response):
                return found(environ, noting_start)
            answer = self._answer(environ)
            if found is None:
                return answer(environ, noting_start)
            return self._door.pages.respond(found, answer, environ, noting_start)
        except Exception as error:  # moto does not catch its own errors, and SDKs retry a 500 for 40 s
            _log.exception("%s %s %s", environ["REQUEST_METHOD"], environ.get("PATH_INFO"), action)
            return _fault(environ, error)(environ, noting_start)

    def _answer(self, environ: Environ) -> Callable[..., Iterable[bytes]]:
        request = Request(environ)
        caller = Caller.of(environ)
        if request.path == SCENARIOS:
            return self._scenarios.respond(request)
        if request.method == "POST" and (found := _DEATH.fullmatch(request.path)):
            return Response(f"{self.hosting.kill(unquote(found['name']))}\n")
        if found := clock.ROUTE.fullmatch(request.path):
            return clock.respond(request, unquote(found["name"]), port=self._port)
        if found := _INTERRUPTION.fullmatch(request.path):
            done = self.training.interrupt(unquote(found["name"]), float(request.args.get("seconds", STOP_SECONDS)))
            return Response(status=204 if done else 404)
        if request.path == "/_embedded/left":
            return Response(json.dumps(self.left(), indent=2), mimetype="application/json")
        if found := openai_route.ROUTE.fullmatch(request.path):
            return openai_route.respond(request, self._runtime, found)
        if caller is None and (request.path == "/v2" or request.path.startswith("/v2/")):
            return self._registry.respond(request)
        if request.method == "POST" and (found := _INVOCATION.fullmatch(request.path)):
            return self._invoke(request, caller, unquote(found["name"]), found["operation"])
        return self._moto

    def _invoke(self, request: Request, caller: Caller | None, name: str, operation: str) -> Response:
        """One of the runtime's three operations, which require a signed request."""
        if caller is None:
            message = "Missing Authentication Token"
            return self._runtime.refuse(Refused(403, "MissingAuthenticationTokenException", message=message))
        account_id, region = caller.account_id, caller.region
        if operation == "async-invocations":
            return self._queues.respond(request, self._runtime, account_id=account_id, region=region, name=name)
        stream = operation == "invocations-response-stream"
        return self._runtime.respond(request, account_id=account_id, region=region, name=name, stream=stream)

    def _note(self, environ: Environ, action: str, status: str, seconds: float) -> None:
        line = {
            "time": round(time.time(), 3),
            "method": environ["REQUEST_METHOD"],
            "path": environ.get("PATH_INFO", ""),
            "action": action,
            "status": int(status.split(" ", 1)[0]),
            "ms": round(seconds * 1000),
        }
        with self._lock:
            self._requests.write(json.dumps(line) + "\n")

    def left(self) -> dict[str, list[str]]:
        """The resources that exist, by service, to check a clean-up."""
        found: dict[str, list[str]] = {
            "stacks": [stack.name for backend in _all(cloudformation_backends) for stack in backend.stacks.values()],
            "models": [name for backend in _all(sagemaker_backends) for name in backend._models],
            "endpoint-configs": [name for backend in _all(sagemaker_backends) for name in backend.endpoint_configs],
            "endpoints": [name for backend in _all(sagemaker_backends) for name in backend.endpoints],
            "repositories": [name for backend in ecr.backends() for name in backend.repositories],
            "buckets": [name for backend in _all(s3_backends) for name in backend.buckets],
            "roles": [role.name for backend in _all(iam_backends) for role in backend.roles.values()],
            "log-groups": [name for backend in _all(logs_backends) for name in backend.groups],
            "parameters": [name for backend in _all(ssm_backends) for name in getattr(backend, "_parameters", ())],
            "containers": self.hosting.running(),
            "training-jobs": self.training.running(),
        }
        return {kind: sorted(names) for kind, names in found.items()}

    def close(self) -> None:
        self._queues.close()
        self.training.close()
        self.hosting.close()
        self._requests.close()


def _fault(environ: Environ, error: Exception) -> Response:
    """An internal error, of this project or of moto, as a client error in the form of the request's protocol."""
    code = "NotImplemented" if isinstance(error, NotImplementedError) else "EmbeddedAwsFault"
    message = f"The embedded AWS cannot do this: {error!r}"
    headers = {"x-amzn-errortype": code}
    target = environ.get("HTTP_X_AMZ_TARGET")
    if not target and "/s3/" in environ.get("HTTP_AUTHORIZATION", ""):
        body = f"<Error><Code>{code}</Code><Message>{escape(message)}</Message></Error>"
        return Response(body, 400, headers, mimetype="application/xml")
    if str(environ.get("CONTENT_TYPE", "")).startswith(_FORM):
        inner = f"<Type>Sender</Type><Code>{code}</Code><Message>{escape(message)}</Message>"
        return Response(f"<ErrorResponse><Error>{inner}</Error></ErrorResponse>", 400, headers, mimetype="text/xml")
    return Response(json.dumps({"__type": code, "message": message}), 400, headers, mimetype="application/json")


def _all(backends: Any) -> list[Any]:
    return [backend for account in list(backends.values()) for backend in list(account.values())]


def _action(environ: Environ) -> str:
    """The API action from the target header or a form, whose stream is put back so that it can be read again."""
    if target := environ.get("HTTP_X_AMZ_TARGET"):
        return str(target).rsplit(".", 1)[-1]
    length = environ.get("CONTENT_LENGTH") or "0"
    if str(environ.get("CONTENT_TYPE", "")).startswith(_FORM) and length.isdigit():
        body = environ["wsgi.input"].read(int(length))
        environ["wsgi.input"] = io.BytesIO(body)
        return str(parse_qs(body[:65_536].decode(errors="replace")).get("Action", [""])[0])
    return ""


class _Handler(WSGIRequestHandler):
    """Logs no requests to the terminal: `requests.jsonl` has them."""

    def log(self, type: str, message: str, *arguments: Any) -> None:
        if type == "error" and "Bad request version" not in message % arguments:  # podman tries TLS first
            _log.error(message, *arguments)


def serve(app: EmbeddedAws, *, port: int) -> BaseWSGIServer:
    """A server on the loopback interface with one thread a request; it does not serve yet."""
    return make_server("127.0.0.1", port, app, threaded=True, request_handler=_Handler)
