"""`python -m extended_dlc.rehearsal.embedded --state DIR --port N`: runs the embedded AWS until SIGTERM or Ctrl-C."""

from __future__ import annotations

import argparse
import json
import logging
import os
import signal
import sys
import threading
from contextlib import suppress
from pathlib import Path

from extended_dlc.rehearsal.engine import LABEL, Engine, EngineError


def main(arguments: list[str] | None = None) -> int:
    options = _parser().parse_args(arguments)
    state: Path = options.state.absolute()
    (state / "logs").mkdir(parents=True, exist_ok=True)
    logging.basicConfig(
        filename=state / "logs" / "embedded.log", level=logging.INFO, format="%(asctime)s %(name)s %(message)s"
    )
    # moto reads MOTO_PORT when it is imported
    os.environ.setdefault("MOTO_PORT", str(options.port))

    from extended_dlc.rehearsal.embedded.hosting import Containers
    from extended_dlc.rehearsal.embedded.known import known_types
    from extended_dlc.rehearsal.embedded.runtime import Limits
    from extended_dlc.rehearsal.embedded.scenarios import Scenarios
    from extended_dlc.rehearsal.embedded.server import EmbeddedAws, serve

    launcher = None
    owner = str(state)
    if options.engine:
        engine = Engine.load(options.engine)
        if engine is None:
            _parser().error(f"--engine ({options.engine}) is no file of an engine: let the rehearsal write it")
        with suppress(EngineError):  # the containers of an earlier run that was killed
            engine.remove_containers(f"{LABEL}={owner}")
        launcher = Containers(engine=engine, owner=owner, platform_environment=dict(options.container_env))
    limits = Limits(body_bytes=options.invoke_bytes, seconds=options.invoke_seconds)
    app = EmbeddedAws(
        state=state,
        port=options.port,
        launcher=launcher,
        limits=limits,
        scenarios=Scenarios.of(options.scenarios),
        faster=options.faster,
    )
    if options.types:
        print(json.dumps(known_types(app.types)))
        app.close()
        return 0
    server = serve(app, port=options.port)

    def stop(signum: int, frame: object) -> None:
        threading.Thread(target=server.shutdown).start()

    for each in (signal.SIGTERM, signal.SIGINT):
        signal.signal(each, stop)
    ready = state / "ready.json"
    line = json.dumps({"port": options.port, "pid": os.getpid()})
    ready.write_text(line)
    print(line, flush=True)
    try:
        server.serve_forever(poll_interval=0.1)
    finally:
        ready.unlink(missing_ok=True)
        app.close()
        server.server_close()
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m extended_dlc.rehearsal.embedded", description=__doc__)
    parser.add_argument("--state", type=Path, required=True, help="folder for blobs (kept between runs) and logs")
    parser.add_argument("--port", type=int, required=True, help="loopback port")
    parser.add_argument("--engine", type=Path, help="file of Engine.save; without it endpoints have no container")
    parser.add_argument("--types", action="store_true", help="print the known resource types, and serve nothing")
    parser.add_argument(
        "--container-env",
        type=_pair,
        action="append",
        default=[],
        metavar="NAME=VALUE",
        help="environment that the platform gives to each endpoint's container; the model's own wins",
    )
    parser.add_argument(
        "--scenarios", type=json.loads, default={}, metavar="JSON", help="failures on request, as a JSON object"
    )
    parser.add_argument(
        "--faster", type=float, default=1, help="by how much a container's start-up time-out is shorter, for tests"
    )
    parser.add_argument("--invoke-seconds", type=float, default=60, help="longest invocation")
    parser.add_argument("--invoke-bytes", type=int, default=25 * 1024 * 1024, help="largest request body")
    return parser


def _pair(text: str) -> tuple[str, str]:
    name, separator, value = text.partition("=")
    if not separator:
        raise argparse.ArgumentTypeError(f"'{text}' must be NAME=VALUE")
    return name, value


if __name__ == "__main__":
    sys.exit(main())
