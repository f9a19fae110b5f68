"""The rehearsal's stand-in for the Hugging Face Hub: folders of models, served to the real `huggingface_hub`.

`ROOT/organisation/name` is a model at revision `main`; `ROOT/organisation/name@v2` is its revision `v2`. Each revision
also has a commit: that of its name, where it is one, else a hash of its files. A model whose folder holds a file
`.private` wants the token, and with `.gated` only its files do; no file whose name starts with a dot is served. The
client reaches it through `HF_ENDPOINT`.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import re
import signal
import sys
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from werkzeug.exceptions import HTTPException
from werkzeug.serving import WSGIRequestHandler, make_server
from werkzeug.utils import send_file
from werkzeug.wrappers import Request, Response

if TYPE_CHECKING:
    from _typeshed.wsgi import StartResponse, WSGIEnvironment

TOKEN = "hf_rehearsal"  # noqa: S105 - opens nothing but this stand-in
"""The token for private models, unless another is given."""

_NAME = r"[A-Za-z0-9_][A-Za-z0-9_.-]*"
_MODEL = rf"(?P<model>(?:{_NAME}/)?{_NAME})"
_REVISION = r"(?P<revision>refs/[^/]+/[^/]+|[^/]+)"
_API = re.compile(rf"/api/models/{_MODEL}(?:/(?P<view>revision|tree|paths-info)/{_REVISION}(?:/(?P<path>.*))?)?")
_RESOLVE = re.compile(rf"/{_MODEL}/resolve/{_REVISION}/(?P<path>.+)")
# the Hub stores these outside git, with another hash
_LARGE = re.compile(r"\.(bin|safetensors|h5|msgpack|onnx|pt|pth|gguf|tar\.gz|zip)$")
_COMMIT = re.compile(r"@([0-9a-f]{40})$")
_LONG_AGO = "2026-01-01T00:00:00.000Z"


class Refusal(Exception):
    """An error response, which `huggingface_hub` turns into an exception by the code in `X-Error-Code`."""

    def __init__(self, status: int, code: str, message: str) -> None:
        super().__init__(message)
        self.status = status
        self.code = code


@dataclass(frozen=True, kw_only=True)
class Snapshot:
    """One revision of a model."""

    model: str
    folder: Path
    private: bool

    def files(self) -> dict[str, Path]:
        """Path in the model to file, sorted, without links that lead out of the folder."""
        inside = self.folder.resolve()
        found = {}
        for file in sorted(self.folder.rglob("*")):
            path = file.relative_to(self.folder)
            hidden = any(part.startswith(".") for part in path.parts)
            if file.is_file() and not hidden and file.resolve().is_relative_to(inside):
                found[path.as_posix()] = file
        return found

    def commit(self) -> str:
        """The commit of the folder's name, else forty hexadecimal digits that change with any file."""
        if named := _COMMIT.search(self.folder.name):
            return named[1]
        lines = [f"{path} {_hash(file, 'git')}" for path, file in self.files().items()]
        return hashlib.sha1("\n".join(lines).encode()).hexdigest()  # noqa: S324 - as git does


class Hub:
    """The WSGI application."""

    def __init__(self, root: Path, *, token: str = TOKEN, log: Callable[[str], object] = lambda line: None) -> None:
        """Serve the models below `root`; each response is logged with `log` as a line of JSON."""
        self._root = root.resolve()
        self._token = token
        self._log = log

    def __call__(self, environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        request = Request(environ)
        try:
            response = self._answer(request)
        except Refusal as refusal:
            headers = {"X-Error-Code": refusal.code, "X-Error-Message": str(refusal)}
            response = _json({"error": str(refusal)}, refusal.status, headers)
        except HTTPException as error:  # for example a range that the file does not have
            response = Response.force_type(error.get_response(environ), environ)
        line = {
            "time": round(time.time(), 3),
            "method": request.method,
            "path": request.path,
            "status": response.status_code,
            "bytes": response.content_length or 0,
            "range": request.headers.get("Range"),
            "token": bool(request.authorization),
            "client": request.headers.get("User-Agent", "")[:200],
        }
        self._log(json.dumps(line))
        return response(environ, start_response)

    def _answer(self, request: Request) -> Response:
        if request.path == "/api/whoami-v2":
            if not self._knows(request):
                raise Refusal(401, "", "Invalid username or password.")
            return _json({"type": "user", "name": "rehearsal", "fullname": "rehearsal", "orgs": [], "auth": {}})
        if found := _API.fullmatch(request.path):
            snapshot = self._snapshot(request, found["model"], found["revision"])
            if found["view"] == "tree":
                return _tree(snapshot, (found["path"] or "").strip("/"), request.args.get("recursive", ""))
            if found["view"] == "paths-info":
                return _paths_info(snapshot, request)
            return _model_info(snapshot)
        if found := _RESOLVE.fullmatch(request.path):
            snapshot = self._snapshot(request, found["model"], found["revision"])
            if (self._root / snapshot.model / ".gated").exists() and not self._knows(request):
                raise Refusal(403 if request.authorization else 401, "GatedRepo", "Access to model is restricted")
            return _file(snapshot, found["path"], request)
        raise Refusal(404, "", f"{request.path} is nothing that this stand-in for the Hub has")

    def _knows(self, request: Request) -> bool:
        given = request.authorization
        return given is not None and given.type == "bearer" and given.token == self._token

    def _snapshot(self, request: Request, model: str, revision: str | None) -> Snapshot:
        main = self._root / model
        # no part of an ID starts with a dot, so only a link could lead out of the root
        known = main.is_dir() and main.resolve().is_relative_to(self._root)
        private = (main / ".private").exists()
        if not known or (private and not self._knows(request)):
            # like the Hub: without a log-in a private model looks like a missing one
            raise Refusal(404 if request.authorization else 401, "RepoNotFound", "Repository not found")
        named = {folder.name.partition("@")[2]: folder for folder in main.parent.glob(f"{main.name}@*")}
        snapshots = {
            name: Snapshot(model=model, folder=folder, private=private)
            for name, folder in {"main": main, **named}.items()
            if folder.is_dir() and folder.resolve().is_relative_to(self._root)
        }
        revision = revision or "main"
        for name, snapshot in snapshots.items():
            if revision in (name, snapshot.commit()):
                return snapshot
        raise Refusal(404, "RevisionNotFound", f"Invalid rev id: {revision}")


def _model_info(snapshot: Snapshot) -> Response:
    siblings = []
    for path, file in snapshot.files().items():
        entry = _entry(path, file)
        large = (
            {"lfs": {"sha256": entry["lfs"]["oid"], "size": entry["size"], "pointerSize": 134}}
            if "lfs" in entry
            else {}
        )
        siblings.append({"rfilename": path, "size": entry["size"], "blobId": entry["oid"], **large})
    config = snapshot.files().get("config.json")
    content = json.loads(config.read_text("utf-8")) if config else {}
    return _json(
        {
            "_id": snapshot.commit()[:24],
            "id": snapshot.model,
            "modelId": snapshot.model,
            "author": snapshot.model.partition("/")[0],
            "sha": snapshot.commit(),
            "lastModified": _LONG_AGO,
            "createdAt": _LONG_AGO,
            "private": snapshot.private,
            "gated": False,
            "disabled": False,
            "downloads": 0,
            "likes": 0,
            "library_name": "transformers",
            "tags": ["transformers"],
            "config": {key: content[key] for key in ("architectures", "model_type") if key in content},
            "siblings": siblings,
        }
    )


def _tree(snapshot: Snapshot, below: str, asked: str) -> Response:
    recursive = asked.lower() in ("true", "1")
    inside = {
        path: file for path, file in snapshot.files().items() if not below or path.startswith(f"{below.rstrip('/')}/")
    }
    if below and not inside:
        raise Refusal(404, "EntryNotFound", f"{below} does not exist on this revision")
    start = len(below) + 1 if below else 0
    entries: dict[str, dict[str, Any]] = {}
    for path, file in inside.items():
        ends = [index for index, letter in enumerate(path) if letter == "/" and index >= start]
        for end in ends if recursive else ends[:1]:
            folder = path[:end]
            oid = hashlib.sha1(folder.encode()).hexdigest()  # noqa: S324 - any name will do
            entries.setdefault(folder, {"type": "directory", "oid": oid, "size": 0, "path": folder})
        if recursive or not ends:
            entries[path] = _entry(path, file)
    return _json(list(entries.values()))


def _paths_info(snapshot: Snapshot, request: Request) -> Response:
    if request.is_json:
        body = request.get_json()
        wanted = body.get("paths", []) if isinstance(body, dict) else []
    else:
        wanted = request.form.getlist("paths")
    wanted = [wanted] if isinstance(wanted, str) else wanted
    return _json([_entry(path, file) for path, file in snapshot.files().items() if path in wanted])


def _entry(path: str, file: Path) -> dict[str, Any]:
    size = file.stat().st_size
    entry: dict[str, Any] = {"type": "file", "oid": _hash(file, "git"), "size": size, "path": path}
    if _LARGE.search(path):
        entry["lfs"] = {"oid": _hash(file, "sha256"), "size": size, "pointerSize": 134}
    return entry


def _file(snapshot: Snapshot, path: str, request: Request) -> Response:
    file = snapshot.files().get(path)
    if file is None:
        raise Refusal(404, "EntryNotFound", f"{path} does not exist on this revision")
    large = bool(_LARGE.search(path))
    etag = _hash(file, "sha256" if large else "git")
    response = send_file(
        file, request.environ, mimetype="application/octet-stream", download_name=file.name, etag=etag, max_age=0
    )
    response.headers["X-Repo-Commit"] = snapshot.commit()
    response.headers["Accept-Ranges"] = "bytes"
    if large:
        response.headers["X-Linked-Etag"] = f'"{etag}"'
        response.headers["X-Linked-Size"] = str(file.stat().st_size)
    return response


def _json(content: object, status: int = 200, headers: dict[str, str] | None = None) -> Response:
    return Response(json.dumps(content), status, headers, mimetype="application/json")


def _hash(file: Path, kind: str) -> str:
    stat = file.stat()
    return _hash_of_state(file, kind, stat.st_mtime_ns, stat.st_size)


@lru_cache(maxsize=4096)
def _hash_of_state(file: Path, kind: str, changed: int, size: int) -> str:
    """A file's hash: as a git blob, or the SHA-256 by which the Hub addresses large files."""
    # SHA-1 as in git; it protects nothing
    digest = hashlib.sha256() if kind == "sha256" else hashlib.sha1(b"blob %d\0" % size)  # noqa: S324
    with file.open("rb") as content:
        while piece := content.read(1024 * 1024):
            digest.update(piece)
    return digest.hexdigest()


class _Handler(WSGIRequestHandler):
    """Disables the request log, which `Hub` writes."""

    def log_request(self, code: int | str = "-", size: int | str = "-") -> None:
        """Suppress werkzeug's line."""


def _port(text: str) -> int:
    port = int(text)
    if not 0 <= port <= 65535:
        raise argparse.ArgumentTypeError(f"{port} is not a port: give one from 0 (any free one) to 65535")
    return port


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="python -m extended_dlc.rehearsal.hub", description=__doc__)
    parser.add_argument("--root", type=Path, required=True, help="folder of the models: ROOT/organisation/name")
    parser.add_argument("--port", type=_port, required=True, help="loopback port; 0 takes any free one")
    parser.add_argument("--token", default=TOKEN, help=f"token for private models (default: {TOKEN})")
    given = parser.parse_args(arguments)
    if not given.root.is_dir():
        parser.error(f"--root: {given.root} is not a folder")
    hub = Hub(given.root, token=given.token, log=lambda line: print(line, flush=True))
    server = make_server("127.0.0.1", given.port, hub, threaded=True, request_handler=_Handler)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    print(f"serving {given.root} on http://127.0.0.1:{server.port}", flush=True)
    try:
        server.serve_forever()
    except KeyboardInterrupt:
        pass
    finally:
        server.server_close()


if __name__ == "__main__":
    main()
