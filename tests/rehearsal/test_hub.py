"""The stand-in for the Hub, called by the real huggingface_hub."""

from __future__ import annotations

import hashlib
import http.client
import json
import signal
import subprocess
import sys
import threading
import urllib.error
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
from werkzeug.serving import make_server

from extended_dlc.rehearsal import hub

huggingface_hub = pytest.importorskip("huggingface_hub", reason="pip install huggingface_hub")

WEIGHTS = bytes(range(256)) * 4000
CONFIG = {"model_type": "bloom", "architectures": ["BloomForCausalLM"]}


@dataclass
class Running:
    address: str
    root: Path
    lines: list[dict[str, Any]] = field(default_factory=list)

    def api(self, token: str | bool = False) -> Any:
        return huggingface_hub.HfApi(endpoint=self.address, token=token)

    def raw(self, path: str, **headers: str) -> tuple[int, bytes, Any]:
        """One request with its path unchanged, because HTTP clients normalise dots."""
        connection = http.client.HTTPConnection(urlsplit(self.address).netloc, timeout=10)
        connection.request("GET", path, headers=headers)
        answer = connection.getresponse()
        body = answer.read()
        connection.close()
        return answer.status, body, answer.headers


def write_model(folder: Path, *, weights: bytes = WEIGHTS) -> None:
    (folder / "onnx").mkdir(parents=True)
    (folder / "config.json").write_text(json.dumps(CONFIG))
    (folder / "model.safetensors").write_bytes(weights)
    (folder / "onnx" / "model.onnx").write_bytes(b"graph")


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Running]:
    root = tmp_path / "hub"
    write_model(root / "bigscience" / "bloom-560m")
    write_model(root / "bigscience" / "bloom-560m@v2", weights=b"other")
    write_model(root / "acme" / "secret")
    (root / "acme" / "secret" / ".private").touch()
    (tmp_path / "outside.txt").write_text("not for everyone")
    running = Running("", root)
    app = hub.Hub(root, log=lambda line: running.lines.append(json.loads(line)))
    wsgi = make_server("127.0.0.1", 0, app, threaded=True, request_handler=hub._Handler)
    running.address = f"http://127.0.0.1:{wsgi.port}"
    thread = threading.Thread(target=wsgi.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    yield running
    wsgi.shutdown()
    thread.join()
    wsgi.server_close()


def test_a_snapshot_brings_every_file_as_it_is(server: Running, tmp_path: Path) -> None:
    folder = Path(server.api().snapshot_download("bigscience/bloom-560m", cache_dir=tmp_path / "cache"))
    assert (folder / "model.safetensors").read_bytes() == WEIGHTS
    assert json.loads((folder / "config.json").read_text()) == CONFIG
    assert (folder / "onnx" / "model.onnx").read_bytes() == b"graph"
    assert folder.name == server.api().model_info("bigscience/bloom-560m").sha


def test_a_second_snapshot_downloads_nothing(server: Running, tmp_path: Path) -> None:
    server.api().snapshot_download("bigscience/bloom-560m", cache_dir=tmp_path / "cache")
    server.lines.clear()
    server.api().snapshot_download("bigscience/bloom-560m", cache_dir=tmp_path / "cache")
    assert server.lines
    assert not [line for line in server.lines if line["method"] == "GET" and "/resolve/" in line["path"]]


def test_model_info_tells_what_the_model_is(server: Running) -> None:
    info = server.api().model_info("bigscience/bloom-560m", files_metadata=True)
    assert info.id == "bigscience/bloom-560m"
    assert info.private is False
    assert info.config == CONFIG | {}
    assert {one.rfilename: one.size for one in info.siblings}["model.safetensors"] == len(WEIGHTS)


@pytest.mark.parametrize(
    ("recursive", "expected"),
    [
        (True, {"config.json", "model.safetensors", "onnx", "onnx/model.onnx"}),
        (False, {"config.json", "model.safetensors", "onnx"}),
    ],
)
def test_the_tree_lists_folders_and_goes_below_them_only_when_asked(
    server: Running, recursive: bool, expected: set[str]
) -> None:
    tree = server.api().list_repo_tree("bigscience/bloom-560m", recursive=recursive)
    assert {entry.path for entry in tree} == expected


def test_paths_info_knows_large_files_by_their_sha256(server: Running) -> None:
    found = server.api().get_paths_info("bigscience/bloom-560m", ["model.safetensors", "config.json", "absent"])
    by_path = {one.path: one for one in found}
    assert set(by_path) == {"model.safetensors", "config.json"}
    assert by_path["model.safetensors"].lfs.sha256 == hashlib.sha256(WEIGHTS).hexdigest()
    assert by_path["config.json"].lfs is None
    body = (server.root / "bigscience/bloom-560m/config.json").read_bytes()
    assert by_path["config.json"].blob_id == hashlib.sha1(b"blob %d\0" % len(body) + body).hexdigest()


def test_a_range_gives_that_part_and_a_range_beyond_the_end_is_refused(server: Running) -> None:
    path = "/bigscience/bloom-560m/resolve/main/model.safetensors"
    status, body, headers = server.raw(path, Range="bytes=1000-1999")
    assert (status, body) == (206, WEIGHTS[1000:2000])
    assert headers["Content-Range"] == f"bytes 1000-1999/{len(WEIGHTS)}"
    assert server.raw(path, Range=f"bytes={len(WEIGHTS) - 10}-")[:2] == (206, WEIGHTS[-10:])
    assert server.raw(path, Range=f"bytes={len(WEIGHTS)}-")[0] == 416


def test_revisions_by_name_and_by_commit_differ_from_main(server: Running, tmp_path: Path) -> None:
    api = server.api()
    main, other = (api.model_info("bigscience/bloom-560m", revision=name).sha for name in ("main", "v2"))
    assert main != other
    for revision in ("v2", other):
        file = api.hf_hub_download(
            "bigscience/bloom-560m", "model.safetensors", revision=revision, cache_dir=tmp_path / revision
        )
        assert Path(file).read_bytes() == b"other"


def test_a_changed_file_makes_another_commit(server: Running) -> None:
    before = server.api().model_info("bigscience/bloom-560m").sha
    (server.root / "bigscience/bloom-560m/config.json").write_text("{}")
    assert server.api().model_info("bigscience/bloom-560m").sha != before


def test_absent_things_raise_the_errors_of_the_real_hub(server: Running, tmp_path: Path) -> None:
    from huggingface_hub import errors

    api = server.api()
    with pytest.raises(errors.RepositoryNotFoundError):
        api.model_info("bigscience/absent")
    with pytest.raises(errors.RevisionNotFoundError):
        api.model_info("bigscience/bloom-560m", revision="v9")
    with pytest.raises(errors.EntryNotFoundError):
        api.hf_hub_download("bigscience/bloom-560m", "absent.json", cache_dir=tmp_path)


def test_a_private_model_is_for_those_with_the_token(server: Running, tmp_path: Path) -> None:
    from huggingface_hub import errors

    for token in (False, "hf_wrong"):
        with pytest.raises(errors.RepositoryNotFoundError):
            server.api(token).model_info("acme/secret")
        with pytest.raises(errors.RepositoryNotFoundError):
            server.api(token).hf_hub_download("acme/secret", "config.json", cache_dir=tmp_path)
    assert server.api(hub.TOKEN).model_info("acme/secret").private is True
    file = server.api(hub.TOKEN).hf_hub_download("acme/secret", "config.json", cache_dir=tmp_path)
    assert json.loads(Path(file).read_text()) == CONFIG
    assert server.api(hub.TOKEN).whoami()["name"] == "rehearsal"


def test_the_log_tells_that_a_token_was_sent_but_not_which(server: Running) -> None:
    server.api(hub.TOKEN).model_info("acme/secret")
    assert [line["token"] for line in server.lines] == [True]
    assert hub.TOKEN not in json.dumps(server.lines)


@pytest.mark.parametrize(
    "path",
    [
        "/bigscience/bloom-560m/resolve/main/../../../../outside.txt",
        "/bigscience/bloom-560m/resolve/main/%2e%2e/%2e%2e/%2e%2e/outside.txt",
        "/bigscience/bloom-560m/resolve/main/..%2f..%2f..%2foutside.txt",
        "/bigscience/bloom-560m/resolve/main//etc/passwd",
        "/bigscience/bloom-560m/resolve/main/link.txt",
        "/bigscience/bloom-560m/resolve/main/linked/outside.txt",
        "/bigscience/bloom-560m/resolve/../config.json",
        "/bigscience/../resolve/main/outside.txt",
        "/../hub/resolve/main/outside.txt",
        "/%2e%2e/%2e%2e/resolve/main/outside.txt",
        "/bigscience/linked/resolve/main/outside.txt",
        "/api/models/../..",
        "/api/models/bigscience/linked",
        "/api/models/bigscience/bloom-560m/tree/main/../..",
        "/acme/secret/resolve/main/.private",
    ],
)
def test_no_path_leads_out_of_the_root_or_to_a_hidden_file(server: Running, path: str) -> None:
    model = server.root / "bigscience/bloom-560m"
    (model / "link.txt").symlink_to(server.root.parent / "outside.txt")
    (model / "linked").symlink_to(server.root.parent)
    (server.root / "bigscience/linked").symlink_to(server.root.parent)
    status, body, _ = server.raw(path, Authorization=f"Bearer {hub.TOKEN}")
    assert status in (401, 404)
    assert b"not for everyone" not in body


def test_the_program_serves_on_loopback_only_and_ends_cleanly_on_sigterm(tmp_path: Path) -> None:
    write_model(tmp_path / "bigscience" / "bloom-560m")
    command = [sys.executable, "-m", "extended_dlc.rehearsal.hub", f"--root={tmp_path}", "--port=0"]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    try:
        assert process.stdout
        address = process.stdout.readline().split()[-1]
        assert address.startswith("http://127.0.0.1:")
        with urllib.request.urlopen(f"{address}/api/models/bigscience/bloom-560m", timeout=10) as answer:
            assert json.load(answer)["id"] == "bigscience/bloom-560m"
        with pytest.raises(urllib.error.HTTPError, match="401"):
            urllib.request.urlopen(f"{address}/api/models/bigscience/absent", timeout=10)
        process.send_signal(signal.SIGTERM)
        output, errors = process.communicate(timeout=10)
    finally:
        process.kill()
        process.wait()
    assert process.returncode == 0
    assert errors == ""
    assert [json.loads(line)["status"] for line in output.splitlines()] == [200, 401]


def test_the_program_says_which_folder_is_missing(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        hub.main([f"--root={tmp_path / 'absent'}", "--port=0"])
    assert f"{tmp_path / 'absent'} is not a folder" in capsys.readouterr().err
