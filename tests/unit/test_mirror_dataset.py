"""The copy of a data set: its own addresses on the Hub, and all of its files."""

from __future__ import annotations

import hashlib
import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from aws_cdk import App, Environment, Stack
from aws_cdk import aws_secretsmanager as secretsmanager
from click.testing import CliRunner

from extended_dlc import MirroredDataset, MirroredModel
from extended_dlc.cli import main
from extended_dlc.programs import copy_model as _mirror_copy
from tests.support.settings import decided

COMMIT = "0123456789abcdef0123456789abcdef01234567"
FILES = {"data/one.parquet": b"rows", "sounds/a.wav": b"RIFF", "README.md": b"# Card", ".gitattributes": b"lfs"}


class _Hub(BaseHTTPRequestHandler):
    """A data set, and a model of the same name with other files."""

    def do_GET(self) -> None:
        path = self.path.partition("?")[0]
        if path == f"/api/datasets/me/set/tree/{COMMIT}":
            listed = [
                {
                    "type": "file",
                    "path": name,
                    "size": len(content),
                    "oid": hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest(),
                }
                for name, content in FILES.items()
            ]
            return self._answer(json.dumps(listed).encode())
        if path == f"/api/datasets/me/gated/revision/{COMMIT}":
            return self._answer(json.dumps({"sha": COMMIT, "gated": "manual", "cardData": {"license": "mit"}}).encode())
        name = path.removeprefix(f"/datasets/me/set/resolve/{COMMIT}/")
        return self._answer(FILES[name]) if name in FILES else self.send_error(404)

    def _answer(self, content: bytes) -> None:
        first, _, last = self.headers.get("Range", "bytes=0-").removeprefix("bytes=").partition("-")
        part = content[int(first) : int(last) + 1 if last else None]
        self.send_response(206 if last else 200)
        self.send_header("Content-Length", str(len(part)))
        self.end_headers()
        self.wfile.write(part)

    def log_message(self, *_: object) -> None:
        """Nothing is logged."""


@pytest.fixture
def hub() -> Iterator[str]:
    server = ThreadingHTTPServer(("127.0.0.1", 0), _Hub)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()


def test_sounds_and_cards_are_copied_and_hidden_files_are_not(hub: str) -> None:
    files = _mirror_copy.Hub(hub, "me/set", COMMIT, None, "dataset").files()
    assert [file.path for file in files] == ["README.md", "data/one.parquet", "sounds/a.wav"]


def test_a_file_is_read_at_the_data_sets_address_and_has_its_hash(hub: str) -> None:
    client = _mirror_copy.Hub(hub, "me/set", COMMIT, None, "dataset")
    for file in client.files():
        content = client.read(file, 0, file.size)
        hasher = file.hasher()
        hasher.update(content)
        assert content == FILES[file.path]
        assert file.is_content(hasher)


def test_without_its_kind_a_data_set_is_no_model(hub: str) -> None:
    with pytest.raises(_mirror_copy.CopyError, match="check model and commit; a private or gated model needs a token"):
        _mirror_copy.Hub(hub, "me/set", COMMIT, None).files()


def test_a_gated_data_set_or_model_whose_copy_has_no_token_is_refused_once_the_hub_was_asked(
    hub: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "train.py").write_text("")
    channel = {"kind": "hub", "dataset": "me/gated", "revision": COMMIT}
    base = {"model": "me/model", "weights": {"kind": "mirrored"}, "revision": COMMIT}
    tune = {"code": {"folder": str(tmp_path)}, "channels": {"train": channel}, "base_model": base}
    settings = {
        "region": "us-east-1",
        "image": {"transformers": "5.23.0"},
        "endpoints": {"bloom": {"model": "bloom"}},
        "training": {"tune": tune},
    }
    assert decided(settings).problems == (), "what nobody knows is not wrong"
    file = tmp_path / "mine.json"
    file.write_text(json.dumps(settings))
    monkeypatch.setenv("HF_ENDPOINT", hub)
    done = CliRunner().invoke(main, ["prepare", f"--settings={file}"])
    assert "'me/gated' is looked up on the Hub" in done.output
    assert "'me/model' is not looked up: the Hub shows no model 'me/model'" in done.output
    noted = json.loads((tmp_path / "mine.lookups.json").read_text())
    expected = {"asked": COMMIT, "revision": COMMIT, "gated": True, "licence": "mit"}
    assert noted == {"extended-dlc:dataset:me/gated": expected}
    noted["extended-dlc:model:me/model"] = {"asked": COMMIT, "revision": COMMIT, "gated": True}
    refused = decided(settings, noted).problems
    rule = "is private or gated on the Hub, and its copy has no token: agree to its terms on its page, put a token of"
    assert [line[: line.index(": is")] for line in refused] == [
        "training.tune.channels.train.dataset (me/gated)",
        "training.tune.base_model (me/model)",
    ]
    assert all(rule in line for line in refused)
    channel["token_secret"] = base["weights"]["token_secret"] = "hub-token"  # type: ignore[index]
    assert decided(settings, noted).problems == ()
    stack = Stack(App(context=noted), "Test", env=Environment(region="us-east-1"))
    with pytest.raises(ValueError, match=rf"'dataset' \(me/gated\) {rule} .* S3Data\(bucket, 'prefix/'\)"):
        MirroredDataset(stack, "Data", dataset="me/gated", revision=COMMIT)
    with pytest.raises(ValueError, match=rf"'model' \(me/model\) {rule} .* S3Model\(bucket, 'prefix/'\)"):
        MirroredModel(stack, "Model", model="me/model", revision=COMMIT)
    secret = secretsmanager.Secret.from_secret_name_v2(stack, "Token", "hub-token")
    MirroredDataset(stack, "Copied", dataset="me/gated", revision=COMMIT, token=secret)
