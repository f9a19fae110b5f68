"""Large files are downloaded in parts, and are complete and as the Hub lists them, whatever happens to a part."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
import threading
import time
from pathlib import Path
from types import SimpleNamespace

import pytest

pytest.importorskip("huggingface_hub", reason="pip install -r tests/runtime/requirements.txt")

from extended_dlc_server.files.verified import Following, Listed

SIZE, PART = 3_000_000, 256 * 1024
PROGRAM = f"""
import json, logging, sys
from pathlib import Path
from extended_dlc_server.files import downloads, parts, verified, weights
from extended_dlc_server.files.complete import Incomplete
from extended_dlc_server.settings import Settings
logging.basicConfig(level=logging.WARNING)
parts.PART, parts.IN_PARTS, downloads.FOLLOWED = {PART}, {4 * PART}, {4 * PART}
parts._PAUSES = (0, 0.1, 0.1)
again = []
downloads.hash_of = lambda file, kind: again.append(file.stat().st_size) or verified.hash_of(file, kind)
found = weights.find_weights(Settings(model_folder=Path("/nothing"), model_id="tiny/large"), Incomplete(allowed=False))
blobs = [file.name for file in (found.folder.parents[1] / "blobs").iterdir()]
print(json.dumps({{"folder": str(found.folder), "blobs": blobs, "again": again}}))
"""


class Hub:
    """The stand-in for the Hub: large files come from another host name, and tests can change its responses."""

    def __init__(self, root: Path, make_server, application) -> None:
        self.asked: list[tuple[str, str, str, bool]] = []
        self.hooks: list = []
        self._serve = application.Hub(root)
        self.server = make_server("127.0.0.1", 0, self, threaded=True)
        threading.Thread(target=self.server.serve_forever, daemon=True).start()

    def __call__(self, environ, start_response):
        method, path, given = environ["REQUEST_METHOD"], environ["PATH_INFO"], environ.get("HTTP_RANGE", "")
        self.asked.append((method, path, given, "HTTP_AUTHORIZATION" in environ))
        if path.startswith("/cdn/"):
            for hook in self.hooks:
                if (answer := hook(environ, start_response)) is not None:
                    return answer
            environ = {**environ, "PATH_INFO": path.removeprefix("/cdn")}
            return self._serve(environ, start_response)
        if path.endswith(".safetensors"):
            location = f"http://localhost:{self.server.server_port}/cdn{path}"
            return self._serve(
                environ, lambda status, headers: start_response("302 Found", self._to(location, headers))
            )
        return self._serve(environ, start_response)

    @staticmethod
    def _to(location, headers):
        kept = [(name, value) for name, value in headers if name.lower() not in ("location", "content-length")]
        return [*kept, ("Location", location), ("Content-Length", "0")]

    @property
    def ranges(self) -> list[str]:
        return [given for method, path, given, _ in self.asked if method == "GET" and path.startswith("/cdn/")]


@pytest.fixture(scope="module")
def weights_file() -> bytes:
    head = json.dumps({"w": {"dtype": "U8", "shape": [SIZE], "data_offsets": [0, SIZE]}}).encode()
    return len(head).to_bytes(8, "little") + head + os.urandom(SIZE)


@pytest.fixture
def hub(tmp_path, weights_file):
    serving = pytest.importorskip("werkzeug.serving", reason="pip install extended-dlc[rehearse]")
    from extended_dlc.rehearsal import hub as application

    folder = tmp_path / "hub" / "tiny" / "large"
    folder.mkdir(parents=True)
    (folder / "config.json").write_text('{"model_type": "bert"}')
    (folder / "model.safetensors").write_bytes(weights_file)
    stand_in = Hub(tmp_path / "hub", serving.make_server, application)
    yield stand_in
    stand_in.server.shutdown()


@pytest.fixture
def download(hub, tmp_path, server_path, weights_file):
    """Makes the server download the model; returns the result, and whether the file is the right one."""

    def download():
        environment = {
            **{"PATH": os.environ["PATH"], "HOME": str(tmp_path), "PYTHONPATH": server_path},
            **{"HF_ENDPOINT": f"http://127.0.0.1:{hub.server.server_port}", "HF_HOME": str(tmp_path / "cache")},
            "HF_TOKEN": "hf_rehearsal",
        }
        done = subprocess.run(
            [sys.executable, "-c", PROGRAM], env=environment, capture_output=True, text=True, timeout=120, check=False
        )
        assert done.returncode == 0, done.stderr[-2000:]
        found = json.loads(done.stdout.splitlines()[-1])
        assert (Path(found["folder"]) / "model.safetensors").read_bytes() == weights_file
        assert not [name for name in found["blobs"] if "." in name]
        return {**found, "log": done.stderr}

    return download


def test_a_large_file_comes_in_parts_and_is_hashed_as_it_comes(hub, download, weights_file):
    found = download()
    starts = sorted(int(given.removeprefix("bytes=").partition("-")[0]) for given in hub.ranges)
    assert starts == list(range(0, len(weights_file), PART))
    assert len(weights_file) not in found["again"]  # the file was not read again
    assert not any(token for _, path, _, token in hub.asked if path.startswith("/cdn/"))  # the CDN is another host


def test_a_part_that_fails_is_asked_for_again(hub, download):
    failed = []

    def fail_twice(environ, start_response):
        if environ.get("HTTP_RANGE", "").startswith(f"bytes={PART * 2}-") and len(failed) < 2:
            failed.append(environ)
            start_response("503 Slow Down" if len(failed) == 1 else "403 Forbidden", [("Content-Length", "0")])
            return []
        return None

    hub.hooks.append(fail_twice)
    download()
    assert len(failed) == 2
    assert len(hub.ranges) == len(set(hub.ranges)) + 2
    located = [path for method, path, _, _ in hub.asked if method == "HEAD" and path.endswith(".safetensors")]
    assert len(located) >= 2  # located again, because the signed URL may have expired


def test_a_server_without_parts_sends_the_whole(hub, download):
    def whole(environ, start_response):
        environ.pop("HTTP_RANGE", None)

    hub.hooks.append(whole)
    assert download()
    assert sum(1 for given in hub.ranges if given) == 0 or len(hub.ranges) <= 3


def test_parts_that_make_another_file_are_not_kept(hub, download):
    """The second download, of the whole file, is right."""

    def flip(environ, start_response):
        if environ.get("HTTP_RANGE", "").startswith(f"bytes={PART}-"):
            start_response("206 Partial Content", [("Content-Range", f"bytes {PART}-{2 * PART - 1}/{total}")])
            return [bytes(PART)]
        return None

    total = next(Path(hub._serve._root).rglob("model.safetensors")).stat().st_size
    hub.hooks.append(flip)
    assert "is not what the Hub lists: downloading it once more" in download()["log"]


def test_what_the_hub_offers_by_xet_is_left_to_its_client_where_the_image_has_it(tmp_path, monkeypatch):
    import huggingface_hub
    from extended_dlc_server.files import parts
    from huggingface_hub import file_download

    listing = Listed(size=parts.IN_PARTS, kind="sha256", digest="0" * 64)
    metadata = SimpleNamespace(etag=listing.digest, size=listing.size, location="https://cdn/x", xet_file_data=object())
    monkeypatch.setattr(huggingface_hub, "get_hf_file_metadata", lambda url, token: metadata)
    asked: list[tuple[int, int]] = []
    monkeypatch.setattr(parts, "_fetch_all", lambda source, size, target: asked.append((size, target)))

    def fetch():
        return parts.fetch("tiny/large", "model.safetensors", "0" * 40, None, listing, tmp_path)

    monkeypatch.setattr(file_download, "is_xet_available", lambda: True)
    assert not fetch()
    assert asked == []
    monkeypatch.setattr(file_download, "is_xet_available", lambda: False)
    assert fetch()
    assert len(asked) == 1


def test_a_file_that_is_written_in_several_places_is_hashed_as_far_as_it_is_whole(tmp_path):
    """Xet's client writes files in this way."""
    content = os.urandom(4_000_000)
    digest = hashlib.sha256(content).hexdigest()
    file = tmp_path / f"{digest}.incomplete"
    with Following(tmp_path, Listed(size=len(content), kind="sha256", digest=digest)) as following:
        with file.open("wb") as opened:
            opened.truncate(len(content))
            for start in (2_000_000, 1_000_000, 3_000_000, 0):
                os.pwrite(opened.fileno(), content[start : start + 1_000_000], start)
                time.sleep(0.1)
        assert following.digest() == digest
