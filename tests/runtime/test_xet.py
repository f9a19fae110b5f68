"""Large files come by Xet, through the real `hf_xet`, and are verified as all others are.

`huggingface_hub` depends on `hf_xet` on the machines of SageMaker, x86-64 and ARM.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
from pathlib import Path

import pytest

pytest.importorskip("hf_xet", reason="pip install -r tests/runtime/requirements.txt")

IMAGE = Path(__file__).parents[2] / "docker" / "inference"
SIZE = 3_000_000
PROGRAM = """
import json, logging
from pathlib import Path
from extended_dlc_server.errors import StartError
from extended_dlc_server.files import downloads, parts, verified, weights
from extended_dlc_server.files.complete import Incomplete
from extended_dlc_server.settings import Settings
logging.basicConfig(level=logging.WARNING)
parts.PART, parts.IN_PARTS, downloads.FOLLOWED = 256 * 1024, 1024 * 1024, 1024 * 1024
downloads.time.sleep = lambda seconds: None
again = []
downloads.hash_of = lambda file, kind: again.append(file.stat().st_size) or verified.hash_of(file, kind)
try:
    settings = Settings(model_folder=Path("/nothing"), model_id="tiny/large")
    found = weights.find_weights(settings, Incomplete(allowed=False))
    print(json.dumps({"folder": str(found.folder), "again": again}))
except StartError as error:
    print(json.dumps({"error": str(error)}))
"""


@pytest.fixture(scope="module")
def content() -> bytes:
    head = json.dumps({"w": {"dtype": "U8", "shape": [SIZE], "data_offsets": [0, SIZE]}}).encode()
    return len(head).to_bytes(8, "little") + head + os.urandom(SIZE)


@pytest.fixture
def xet(tmp_path, content):
    serving = pytest.importorskip("werkzeug.serving", reason="pip install extended-dlc[rehearse]")
    from extended_dlc.rehearsal import hub
    from tests.support.xet import Xet

    folder = tmp_path / "hub" / "tiny" / "large"
    folder.mkdir(parents=True)
    (folder / "config.json").write_text('{"model_type": "bert"}')
    (folder / "model.safetensors").write_bytes(content)
    xet = Xet(hub.Hub(tmp_path / "hub"))
    server = serving.make_server("127.0.0.1", 0, xet, threaded=True)
    xet.hub, xet.storage = f"http://127.0.0.1:{server.port}", f"http://localhost:{server.port}"
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield xet
    server.shutdown()


@pytest.fixture
def start(xet, tmp_path):
    """Downloads the model as the server does at its start."""

    def start(**more: str):
        environment = {
            **{"PATH": os.environ["PATH"], "HOME": str(tmp_path), "PYTHONPATH": str(IMAGE), "HF_ENDPOINT": xet.hub},
            **{"HF_HOME": str(tmp_path / "cache"), "HF_TOKEN": "hf_rehearsal", "HF_HUB_DISABLE_TELEMETRY": "1"},
            **{"HF_XET_CLIENT_RETRY_BASE_DELAY": "1ms", "HF_XET_CLIENT_RETRY_MAX_ATTEMPTS": "1"},
            **more,
        }
        done = subprocess.run(
            [sys.executable, "-c", PROGRAM], env=environment, capture_output=True, text=True, timeout=120, check=False
        )
        assert done.returncode == 0, done.stderr[-2000:]
        return {**json.loads(done.stdout.splitlines()[-1]), "log": done.stderr}

    return start


@pytest.mark.parametrize("versions", [("v2", "v1"), ("v1",)])
def test_a_large_file_comes_by_xet_and_is_hashed_as_it_comes(xet, start, content, versions):
    xet.versions = versions
    found = start()
    assert (Path(found["folder"]) / "model.safetensors").read_bytes() == content
    assert len(content) not in found["again"]  # the file was not read again
    assert len(xet.requests("/xorb/")) == 6
    assert not [path for method, path, _ in xet.asked if method == "GET" and path.endswith(".safetensors")]


def test_the_hubs_token_stays_with_the_hub(xet, start):
    start()
    assert xet.requests("/api/models/tiny/large/xet-read-token")[0][1] == "Bearer hf_rehearsal"
    assert {given for _, given in xet.requests("/cas/")} == {"Bearer xet-0"}
    assert {given for _, given in xet.requests("/xorb/")} == {""}


def test_storage_that_sends_something_else_once_is_asked_once_more(xet, start, content):
    flip(xet, times=1)
    found = start()
    assert "is not what the Hub lists: downloading it once more" in found["log"]
    assert (Path(found["folder"]) / "model.safetensors").read_bytes() == content


def test_storage_that_sends_something_else_is_refused_and_nothing_of_it_is_kept(xet, start, content):
    flip(xet, times=2)
    assert "model.safetensors of tiny/large is not the file that the Hub lists" in start()["error"]
    found = start()  # the storage is right now
    assert (Path(found["folder"]) / "model.safetensors").read_bytes() == content


def test_storage_out_of_reach_names_the_way_around_it_which_works(xet, start, content):
    xet.broken = lambda path: 403
    assert "HF_HUB_DISABLE_XET=1" in start()["error"]
    found = start(HF_HUB_DISABLE_XET="1")
    assert (Path(found["folder"]) / "model.safetensors").read_bytes() == content


def flip(xet, times: int) -> None:
    """Change a bit of the fourth xorb, as many times as it is asked for."""
    serve, left = xet._xorb, [times]

    def other(path, environ, start_response):
        body = bytearray(b"".join(serve(path, environ, start_response)))
        if path.endswith("/3") and left[0]:
            left[0] -= 1
            body[100] ^= 1
        return [bytes(body)]

    xet._xorb = other
