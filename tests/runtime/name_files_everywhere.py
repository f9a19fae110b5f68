"""Ask a tiny model of every task with URLs and paths in each place of its inputs, and print what came of it.

One line of JSON for each try: the task, where the name stood, how far the request came, and what was opened for it. The
same is tried without the first wall, where the pipeline itself gets the names. Run by `test_media_walls.py`.
"""

from __future__ import annotations

import base64
import copy
import json
import logging
import os
import socket
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import tiny_tasks
from ask_every_task import image, request_of
from extended_dlc_server.errors import RequestError, StartError
from extended_dlc_server.model.loading import load_pipelines
from extended_dlc_server.model.model import Model
from extended_dlc_server.reading.decoding import decode
from extended_dlc_server.settings import Settings

opened: list[str] = []
OTHER_SHAPES = ("url", "path", "image_url", "video", "videos", "audio", "image", "images")


def watch(secret: Path, port: int) -> None:
    """Note each file of that name and each connection to that port, whoever opens it."""

    def hook(event: str, arguments: tuple[Any, ...]) -> None:
        if event == "open" and str(arguments[0]) == str(secret):
            opened.append("file")
        if event == "socket.connect" and str(port) in str(arguments[1:]):
            opened.append("connection")

    sys.addaudithook(hook)


def places(value: Any, put: Any) -> Iterator[tuple[str, Any]]:
    """Yield the value with `put` in place of each of its parts, and `put` itself, each with its path."""
    yield "", put
    parts = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, part in parts:
        for path, changed in places(part, put):
            whole = copy.copy(value)
            whole[key] = changed
            yield f".{key}{path}", whole


def tries(inputs: Any, name: str) -> Iterator[tuple[str, Any]]:
    """Yield inputs with the name in each place, in chats, and in fields of pipelines that the server does not have."""
    yield from places(inputs, name)
    yield from ((f"{path}[]", changed) for path, changed in places(inputs, [name]))
    part = {"type": "text", "text": "hello"}
    for shape in OTHER_SHAPES:
        for named in (name, {"url": name}):
            chat = [{"role": "user", "content": [part, {"type": shape.removesuffix("s"), shape: named}]}]
            yield f"chat.{shape}", chat
            yield from ((f"{path}.chat.{shape}", changed) for path, changed in places(inputs, chat))
            yield from ((f"{path}.chats.{shape}", changed) for path, changed in places(inputs, [chat]))
        if isinstance(inputs, dict):
            yield f"more.{shape}", {**inputs, shape: name}


def through_the_server(model: Model, asked: dict[str, Any], inputs: Any) -> None:
    request = decode(json.dumps({**asked, "inputs": inputs}).encode(), None, model.expected)
    model.answer(request)


def by_the_pipeline_alone(model: Model, asked: dict[str, Any], inputs: Any) -> None:
    if isinstance(inputs, dict) and model.task in ("image-text-to-text", "any-to-any"):
        model.pipeline(**inputs, max_new_tokens=1)
    else:
        model.pipeline(inputs, **asked["parameters"])


def outcome(way: Callable[..., None], model: Model, asked: dict[str, Any], inputs: Any) -> dict[str, Any]:
    opened.clear()
    try:
        way(model, asked, copy.deepcopy(inputs))
        came_to = "answered"
    except RequestError as error:
        came_to = f"{error.status} {error.code}"
    except Exception as error:  # what the pipeline makes of it, without the first wall
        came_to = type(error).__name__
    return {"way": way.__name__, "outcome": came_to, "opened": list(opened)}


def main(folder: Path, tasks: list[str]) -> None:
    secret = folder / "secret.png"
    secret.write_bytes(base64.b64decode(image()))
    listener = socket.create_server(("127.0.0.1", 0))
    port = listener.getsockname()[1]

    def refuse() -> None:
        while True:
            listener.accept()[0].close()

    threading.Thread(target=refuse, daemon=True).start()
    names = (str(secret), f"file://{secret}", f"http://127.0.0.1:{port}/a.png")
    watch(secret, port)
    for task in tasks:
        tiny_tasks.make(task, folder / task)
        try:
            (model,) = load_pipelines(Settings(model_folder=folder / task, task=task))
        except StartError:
            continue
        asked = request_of(task)
        for name in names:
            for path, inputs in tries(asked["inputs"], name):
                for way in (through_the_server, by_the_pipeline_alone):
                    row = outcome(way, model, asked, inputs)
                    print(json.dumps({"task": task, "place": path, "name": name, **row}), flush=True)


if __name__ == "__main__":
    os.environ["OMP_NUM_THREADS"] = "1"
    logging.disable()
    import transformers
    from transformers.pipelines import PIPELINE_REGISTRY

    transformers.logging.set_verbosity_error()
    wanted = [task for task in sorted(PIPELINE_REGISTRY.supported_tasks) if task != "video-classification"]
    main(Path(sys.argv[1]), sys.argv[2:] or wanted)
