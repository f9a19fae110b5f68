"""Where the model's files come from: SageMaker's folder, the Hub, or its cache."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import threading
import time
from collections import namedtuple
from pathlib import Path

import pytest

pytest.importorskip("numpy", reason="pip install -r tests/runtime/requirements.txt")

from extended_dlc_server import errors, settings
from extended_dlc_server.files import cache, complete, downloads, weights

NO_WEIGHTS = b"\2\0\0\0\0\0\0\0{}"  # a safetensors file of ten bytes
NOT_THERE = "http://127.0.0.1:9"  # the discard port: nothing listens


class Hub:
    """The stand-in for the Hub with a few models, and a record of its requests."""

    def __init__(self, root, models, make_server, application):
        self._lines, self._busy = [], ["429 Too Many Requests", "503 Service Unavailable"]
        self.token = application.TOKEN
        for name in ("public", "private", "gated"):
            shutil.copytree(models / "bert-classifier", root / "tiny" / name)
            (root / "tiny" / name / f".{name}").touch()
        shutil.copytree(models / "misbehaving", root / "tiny" / "own-code")
        other = root / "tiny" / "public"
        for file in ("tf_model.h5", "onnx/model.onnx", "training_args.bin", "README.md"):
            (other / file).parent.mkdir(exist_ok=True)
            (other / file).write_bytes(b"x" * 1000)
        (other / "extra" / "deep").mkdir(parents=True)
        (other / "extra" / "deep" / "a[1].json").write_text("{}")
        pickled = root / "tiny" / "pickled"
        shutil.copytree(models / "bert-classifier", pickled)
        (pickled / "model.safetensors").unlink()  # pytorch_model.bin stays
        flax = root / "tiny" / "flax"
        shutil.copytree(models / "bert-classifier", flax)
        (flax / "model.safetensors").rename(flax / "flax_model.msgpack")
        (flax / "pytorch_model.bin").unlink()
        newer = root / "tiny" / "public@v2"
        newer.mkdir()
        (newer / "config.json").write_text('{"model_type": "bert", "revision": "the second"}')
        (newer / "model.safetensors").write_bytes(NO_WEIGHTS)
        self._serve = application.Hub(root, log=lambda line: self._lines.append(json.loads(line)))
        self.server = make_server("127.0.0.1", 0, self, threaded=True)
        threading.Thread(target=self.server.serve_forever, daemon=True).start()

    def __call__(self, environ, start_response):
        """Respond as the stand-in, except that one revision gets 429 and 503 at first."""
        if environ["PATH_INFO"].endswith("/revision/v2") and self._busy:
            start_response(self._busy.pop(), [("content-length", "0")])
            return []
        return self._serve(environ, start_response)

    @property
    def address(self):
        return f"http://127.0.0.1:{self.server.server_port}"

    @property
    def asked(self):
        """The paths of all requests."""
        return [line["path"] for line in self._lines]

    def downloaded(self, model):
        """The files whose content was requested."""
        start = f"/tiny/{model}/resolve/"
        return {
            line["path"].removeprefix(start).partition("/")[2]
            for line in self._lines
            if line["path"].startswith(start) and line["method"] == "GET"
        }


@pytest.fixture(scope="module")
def hub(models, tmp_path_factory):
    serving = pytest.importorskip("werkzeug.serving", reason="pip install extended-dlc[rehearse]")
    from extended_dlc.rehearsal import hub as application

    stand_in = Hub(tmp_path_factory.mktemp("hub"), models, serving.make_server, application)
    yield stand_in
    stand_in.server.shutdown()


@pytest.fixture(scope="module")
def online(start_server, hub, release, tmp_path_factory):
    """A server that has loaded the public model, and the cache that it filled."""
    cache = tmp_path_factory.mktemp("cache")
    environment = {"HF_MODEL_ID": "tiny/public", "HF_ENDPOINT": hub.address, "HF_HOME": str(cache)}
    return start_server(None, release, **environment).wait_until_ready(), cache


def test_only_what_the_pipeline_needs_is_downloaded(online, hub):
    server, cache = online
    assert server.ask({"inputs": "fine"}).status == 200
    got = hub.downloaded("public")
    assert {"config.json", "model.safetensors", "extra/deep/a[1].json"} <= got
    assert not got & {"pytorch_model.bin", "tf_model.h5", "onnx/model.onnx", "training_args.bin", "README.md"}
    assert list(cache.glob("hub/models--tiny--public/snapshots/*/model.safetensors"))


@pytest.mark.parametrize("model", ["public", "pickled"])
def test_a_start_asks_for_the_model_and_for_nothing_else(start_server, hub, release, tmp_path, model):
    before = len(hub.asked)
    environment = {"HF_MODEL_ID": f"tiny/{model}", "HF_ENDPOINT": hub.address, "HF_HOME": str(tmp_path)}
    server = start_server(None, release, **environment).wait_until_ready()
    assert server.ask({"inputs": "fine"}).status == 200
    assert server.stop() == 0
    asked = hub.asked[before:]
    assert asked
    assert [path for path in asked if not path.startswith((f"/api/models/tiny/{model}", f"/tiny/{model}/"))] == []


def test_who_wants_the_hub_to_know_still_can(start_server, hub, tmp_path):
    before = len(hub.asked)
    environment = {"HF_MODEL_ID": "tiny/public", "HF_ENDPOINT": hub.address, "HF_HOME": str(tmp_path)}
    start_server(None, HF_HUB_DISABLE_TELEMETRY="0", **environment).wait_until_ready()
    assert "/api/agent-harnesses" in hub.asked[before:]


def test_the_log_tells_what_is_downloaded_and_how_fast(online):
    server, cache = online
    assert f"files of tiny/public, 0.1 MB, to {cache}/hub/models--tiny--public" in server.log
    assert " MB a second" in server.log
    assert "it/s" not in server.log


def test_a_filled_cache_serves_without_a_network(start_server, online, release):
    _, cache = online
    offline = {"HF_HUB_OFFLINE": "1"}, {"HF_ENDPOINT": NOT_THERE}
    started = [start_server(None, release, HF_MODEL_ID="tiny/public", HF_HOME=str(cache), **how) for how in offline]
    for server in started:
        server.wait_until_ready()
        assert server.ask({"inputs": "fine"}).status == 200
        assert "tiny/public is from the cache" in server.log
        assert server.stop() == 0


def test_code_of_a_repository_on_the_hub_runs_where_it_is_trusted(start_server, hub, release):
    environment = {"HF_MODEL_ID": "tiny/own-code", "HF_TRUST_REMOTE_CODE": "true", "HF_ENDPOINT": hub.address}
    server = start_server(None, release, **environment).wait_until_ready()
    assert server.ask({"inputs": "x" * 30, "parameters": {"max_new_tokens": 2}}).status == 507  # by its `generate`
    assert server.stop() == 0


def test_a_model_that_cannot_be_had_says_why(start_server, hub, release):
    """All at once, because each process stays for five seconds after its failure."""
    wrong, good = {"HF_TOKEN": "hf_wrong"}, {"HF_TOKEN": hub.token}
    gated = f"tiny/gated is gated: ask for access on {hub.address}/tiny/gated"
    cases = [
        ({"HF_MODEL_ID": "tiny/absent", **good}, "HF_MODEL_ID ('tiny/absent') is not on the Hub, or it is private and"),
        ({"HF_MODEL_ID": "tiny/private"}, "private and wants a token: give a token by HF_TOKEN or HF_TOKEN_SECRET_ARN"),
        ({"HF_MODEL_ID": "tiny/private", **wrong}, "is private and the token may not read it"),
        ({"HF_MODEL_ID": "tiny/gated"}, f"{gated} and give a token by HF_TOKEN"),
        ({"HF_MODEL_ID": "tiny/gated", **wrong}, f"{gated} with the account of the token"),
        (
            {"HF_MODEL_ID": "tiny/public", "HF_MODEL_REVISION": "v9"},
            "HF_MODEL_REVISION ('v9') is no branch, tag or commit of tiny/public",
        ),
        ({"HF_MODEL_ID": "tiny/flax"}, "tiny/flax has its weights for Flax (flax_model.msgpack), and none for PyTorch"),
        ({"HF_MODEL_ID": "tiny/public", "HF_HUB_OFFLINE": "1"}, "HF_HUB_OFFLINE is set and the cache in "),
        ({"HF_MODEL_ID": "tiny/public", "HF_ENDPOINT": NOT_THERE}, f"cannot be downloaded from {NOT_THERE} and is in"),
    ]
    started = [(start_server(None, release, **{"HF_ENDPOINT": hub.address, **case}), says) for case, says in cases]
    for server, says in started:
        server.wait_for_status(500, 40)
        assert server.process.wait(10) == 1, server.log
        assert says in server.log
        assert "Traceback" not in server.log
        assert "hf_wrong" not in server.log


def test_the_revision_is_what_is_downloaded_though_the_hub_is_busy(hub, release, overlay, tmp_path):
    """In a new process, because huggingface_hub reads its environment once."""
    program = (
        "import logging; logging.basicConfig(level='INFO')\n"
        "from extended_dlc_server import settings\nfrom extended_dlc_server.files import weights\n"
        "found = weights.find_weights(settings.Settings(model_id='tiny/public', revision='v2'))\n"
        "print(found.name, found.config()['revision'], found.size)\n"
    )
    path = [str(overlay)] if release == "4.46.3" else []
    done = subprocess.run(
        [sys.executable, "-c", program],
        env={
            "HF_ENDPOINT": hub.address,
            "HF_HOME": str(tmp_path),
            "PYTHONPATH": os.pathsep.join([*path, str(Path(weights.__file__).parents[2])]),
        },
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.stdout == "tiny/public at v2 the second 10\n", done.stderr


def test_a_long_download_tells_how_far_it_is(tmp_path, monkeypatch, caplog):
    caplog.set_level("INFO")
    monkeypatch.setattr(downloads, "PROGRESS_SECONDS", 0.05)
    folders = tmp_path / "models--a--b", tmp_path / "blobs"  # a repository's, and that of Xet for all repositories
    with downloads._progress(folders, files=2, needed=4 * 1024**2, model_id="a/b"):
        for folder in folders:
            folder.mkdir()
            (folder / "part.incomplete").write_bytes(b"x" * 1024**2)
        deadline = time.monotonic() + 5
        while "downloaded 2.0 MB of 4.0 MB, " not in caplog.text and time.monotonic() < deadline:
            time.sleep(0.02)
    assert "downloading 2 files of a/b, 4.0 MB, to " in caplog.text
    assert "downloaded 2.0 MB of 4.0 MB, " in caplog.text
    assert "downloaded 4.0 MB in " in caplog.text


@pytest.fixture
def in_this_process(monkeypatch, hub, tmp_path):
    """huggingface_hub in this process, with the stand-in and an empty cache."""
    from huggingface_hub import constants, hf_api

    for name, value in {"HF_HUB_CACHE": str(tmp_path / "hub"), "ENDPOINT": hub.address}.items():
        monkeypatch.setattr(constants, name, value)
    monkeypatch.setattr(hf_api, "ENDPOINT", hub.address, raising=False)
    monkeypatch.setenv("HF_HOME", str(tmp_path))
    return lambda model, **more: weights.find_weights(settings.Settings(model_id=model, model_folder=tmp_path, **more))


Disk = namedtuple("Disk", "total used free")


def test_a_disk_that_is_too_small_is_found_out_before_the_download(in_this_process, hub, monkeypatch):
    monkeypatch.setattr(downloads.shutil, "disk_usage", lambda folder: Disk(10, 10, 1000))
    with pytest.raises(
        errors.StartError, match=r"needs 0\.1 MB of disk and .* 0\.0 MB free: give the endpoint a larger"
    ):
        in_this_process("tiny/pickled")
    assert hub.downloaded("pickled") == set()


def test_pickles_under_an_old_torch_are_refused_before_the_download(in_this_process, hub, monkeypatch):
    from transformers.utils import import_utils

    monkeypatch.setattr(import_utils, "is_torch_greater_or_equal", lambda version: False)
    with pytest.raises(errors.StartError, match=r"tiny/pickled has its weights in pytorch_model\.bin, a pickle"):
        in_this_process("tiny/pickled")
    assert hub.downloaded("pickled") == set()


def test_a_function_that_makes_the_model_gets_pickles_too_and_no_adapters(start_server, hub, tmp_path):
    code = tmp_path / "code"
    code.mkdir()
    (code / "inference.py").write_text(
        "import os\n\ndef model_fn(folder):\n    return sorted(os.listdir(folder))\n\n"
        "def transform_fn(model, data, content_type, accept):\n    return model\n"
    )
    named = {"HF_MODEL_ID": "tiny/public", "EXTENDED_DLC_ADAPTERS": "sql=tiny/sql"}
    server = start_server(tmp_path, HF_ENDPOINT=hub.address, **named).wait_until_ready()
    assert "inference.py answers, and adapters are not served beside own code: load them in its model_fn" in server.log
    names = server.ask({"inputs": "x"}).json
    assert {"config.json", "model.safetensors", "pytorch_model.bin", "training_args.bin"} <= set(names)
    assert "tf_model.h5" not in names
    assert server.stop() == 0


def test_shards_are_those_that_the_index_names():
    index = {"weight_map": {"a": "part-2.safetensors", "b": "part-1.safetensors", "c": "part-2.safetensors"}}
    names = ["model.safetensors.index.json", "pytorch_model.bin", "part-1.safetensors", "adapter_model.bin"]
    assert complete.pick(names, {"model.safetensors.index.json": index}.__getitem__) == [
        *("model.safetensors.index.json", "part-1.safetensors", "part-2.safetensors"),
        "adapter_model.bin",
    ]
    assert complete.pick(["tf_model.h5", "notes.bin"], dict) == []


def test_a_folder_with_a_shard_missing_is_named(tmp_path):
    (tmp_path / "config.json").write_text("{}")
    (tmp_path / "model.safetensors.index.json").write_text(
        '{"weight_map": {"a": "1.safetensors", "b": "2.safetensors"}}'
    )
    (tmp_path / "1.safetensors").write_bytes(NO_WEIGHTS)
    with pytest.raises(errors.StartError, match=r"is not complete: 2\.safetensors"):
        weights.find_weights(settings.Settings(model_folder=tmp_path))
    (tmp_path / "2.safetensors").write_bytes(NO_WEIGHTS)
    assert weights.find_weights(settings.Settings(model_folder=tmp_path)).size == 2 * len(NO_WEIGHTS)


def test_a_model_one_folder_too_deep_says_how_to_pack_it(tmp_path):
    (tmp_path / "bloom").mkdir()
    (tmp_path / "bloom" / "config.json").write_text("{}")
    with pytest.raises(errors.StartError, match=r"bloom/ in it does\. Pack the archive from inside that folder"):
        _ = settings.Settings(model_folder=tmp_path).model_source


@pytest.mark.parametrize("text", ["{", "[1]", "\x00"])
def test_a_broken_config_is_named(tmp_path, text):
    (tmp_path / "config.json").write_text(text)
    (tmp_path / "model.safetensors").write_bytes(NO_WEIGHTS)
    found = weights.find_weights(settings.Settings(model_folder=tmp_path))
    with pytest.raises(errors.StartError, match=r"config\.json of .* cannot be read"):
        found.config()


class Disks:
    """Folders with simulated numbers of free bytes, as on separate disks."""

    def __init__(self, free, home, monkeypatch):
        monkeypatch.setenv("HOME", str(home))
        self._free = {home: free.pop("home"), **{home.parent / name: room for name, room in free.items()}}
        for folder in self._free:
            folder.mkdir(exist_ok=True)
        self._device = {folder: number for number, folder in enumerate(self._free)}
        real = os.stat

        def stat(path, **options):
            found = real(path, **options)
            number = self._device.get(Path(path))
            return found if number is None else os.stat_result([*found[:2], number, *found[3:]])

        monkeypatch.setattr(cache.shutil, "disk_usage", lambda folder: Disk(0, 0, self._free[Path(folder)]))
        monkeypatch.setattr(Path, "stat", lambda path, **options: stat(path, **options))
        self.others = list(self._free)[1:]


@pytest.mark.parametrize(
    ("free", "given", "expected"),
    [
        ({"home": 10, "tmp": 90, "ml": 50}, {}, "tmp/huggingface"),
        ({"home": 10, "tmp": 20, "ml": 50}, {}, "ml/huggingface"),
        ({"home": 99, "tmp": 90, "ml": 50}, {}, None),
        ({"home": 10, "tmp": 90, "ml": 50}, {"HF_HUB_CACHE": "/mine"}, None),
        ({"home": 10, "tmp": 90, "ml": 50}, {"HF_HOME": "/mine"}, "/mine"),
    ],
)
def test_the_cache_goes_to_the_disk_with_the_most_room(tmp_path, monkeypatch, free, given, expected):
    disks = Disks(free, tmp_path / "home", monkeypatch)
    environment = dict(given)
    cache.place_cache(environment, "a/b", disks.others)
    assert environment.get("HF_HOME") == (expected and str(tmp_path / expected))


def test_a_model_in_the_default_cache_stays_there(tmp_path, monkeypatch):
    disks = Disks({"home": 10, "tmp": 90}, tmp_path / "home", monkeypatch)
    (tmp_path / "home" / ".cache" / "huggingface" / "hub" / "models--a--b").mkdir(parents=True)
    environment = {}
    cache.place_cache(environment, "a/b", disks.others)
    assert environment == {}


def placed(user, others, **environment):
    """HF_HOME after another user has run `place_cache`; the error's message if there is no writable folder."""
    program = (
        "import os, sys; from pathlib import Path; from extended_dlc_server import errors\n"
        "from extended_dlc_server.files import cache\n"
        "os.setgroups([]); os.setgid(user := int(sys.argv[1])); os.setuid(user)\n"  # may not read this Python
        "try: cache.place_cache(os.environ, 'a/b', [Path(other) for other in sys.argv[2:]])\n"
        "except errors.StartError as error: sys.exit(str(error))\n"
        "print(os.environ.get('HF_HOME', ''))"
    )
    done = subprocess.run(
        [sys.executable, "-c", program, str(user), *map(str, others)],
        env={"PYTHONPATH": str(Path(weights.__file__).parents[2]), "PATH": os.environ["PATH"], **environment},
        capture_output=True,
        text=True,
        check=False,
        cwd="/",
    )
    return done.stdout.strip() or done.stderr


@pytest.fixture
def shared_folder(tmp_path):
    """A folder on this disk that every user may write, unlike pytest's."""
    import tempfile

    if os.getuid() != 0:
        pytest.skip("needs root, to become another user")
    with tempfile.TemporaryDirectory() as folder:
        os.chmod(folder, 0o777)
        yield Path(folder)


@pytest.mark.parametrize("home", ["/root", "/nonexistent", "", None])
def test_a_default_cache_that_cannot_be_written_has_no_room(shared_folder, home):
    environment = {} if home is None else {"HOME": home}
    assert placed(54321, [shared_folder], **environment) == f"{shared_folder}/huggingface"
    assert placed(54321, ["/usr", shared_folder], **environment) == f"{shared_folder}/huggingface"


def test_where_nothing_can_be_written_the_message_says_what_to_give(shared_folder):
    for environment in ({"HOME": "/root"}, {"HOME": "/root", "HF_HOME": "/root/mine"}):
        said = placed(54321, ["/usr", "/nonexistent"], **environment)
        assert "can be written by user 54321" in said or "cannot be written by user 54321" in said
        assert "HF_HOME" in said
        assert "volume" in said


def test_a_named_cache_wins_and_a_home_that_can_be_written_stays(shared_folder):
    assert placed(54321, [shared_folder], HOME="/root", HF_HOME=str(shared_folder)) == str(shared_folder)
    assert placed(54321, [], HOME=str(shared_folder)) == ""
    # HF_HUB_CACHE for the weights, and HF_HOME for the other files of huggingface_hub
    others = {"HOME": "/root", "HF_HUB_CACHE": str(shared_folder)}
    assert placed(54321, [shared_folder], **others) == f"{shared_folder}/huggingface"
