"""A model starts with all of its trained weights or not at all, whichever release wrote the files."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("torch", reason="pip install -r tests/runtime/requirements.txt")

from extended_dlc_server import errors, settings
from extended_dlc_server.files import complete, configuration, verified, weights
from extended_dlc_server.model import loaded

from .conftest import NEWEST, OLDEST

PROGRAM = Path(__file__).parent / "load_each.py"
PEFT = {NEWEST: ("peft==0.21.2", "accelerate==1.15.0"), OLDEST: ("peft==0.13.2", "accelerate==1.1.1")}
CACHE = Path(__file__).parents[2] / ".cache"

PLAIN = {
    "BertModel": ["feature-extraction"],
    "BertForMaskedLM": ["fill-mask", "feature-extraction"],
    "BertForPreTraining": ["fill-mask"],
    "BertForTokenClassification": ["token-classification"],
    "BertForSequenceClassification": ["text-classification"],
    "RobertaModel": ["feature-extraction"],
    "RobertaForMaskedLM": ["fill-mask", "feature-extraction"],
    "RobertaForSequenceClassification": ["text-classification"],
    "XLMRobertaForMaskedLM": ["fill-mask", "feature-extraction"],
    "Wav2Vec2ForCTC": ["automatic-speech-recognition"],
    "old-names": ["automatic-speech-recognition"],
    "new-names": ["automatic-speech-recognition"],
    "Wav2Vec2ForSequenceClassification": ["audio-classification"],
    "whisper": [""],
    "whisper-tuned": [""],
    "whisper-processor": [""],
    "Wav2Vec2ForCTC-processor": [""],
    "bloom": [""],
    "llama": [""],
    "llama-encoder": ["feature-extraction"],
    "tied-twice": [""],
}
BROKEN = {
    ("BertModel", "text-classification"): "classifier.bias, classifier.weight",
    ("BertForMaskedLM", "token-classification"): "lacks weights from which token-classification computes its answer",
    ("BertForMaskedLM", "text-classification"): "bert.pooler.dense.bias",
    ("Wav2Vec2ForPreTraining", "automatic-speech-recognition"): "lm_head.bias, lm_head.weight",
    ("compiled", "fill-mask"): "and 4",
    ("a-layer-less", "fill-mask"): "bert.encoder.layer.1.",
    ("a-layer-more", "fill-mask"): "weights of layers that its config.json leaves out: bert.encoder.layer.1.",
    ("a-layer-more", "feature-extraction"): "weights of layers that its config.json leaves out: bert.encoder.layer.1.",
    ("whole-numbers", ""): "is quantized, and its config.json names no quantization that transformers",
    ("unknown-quantization", ""): "is quantized",
    ("setfit", ""): "is a classifier of SetFit",
    ("unknown-activation", ""): "cannot be loaded with transformers",
    ("package-lacking", ""): "name it in code/requirements.txt",
    ("own-code", "text-classification"): "set HF_TRUST_REMOTE_CODE",
    ("broken-tokenizer", ""): "tokenizer.json of",
    ("a-pickle", ""): "pickles that hold more than weights",
    ("not-a-number", ""): "every number of the first answer",
    ("llama-of-nan", ""): "every number of the first answer",
    ("llama-of-one-nan", ""): "a number of the first answer",
    ("BertForSequenceClassification-of-one-nan", ""): "a number of the first answer",
    ("BertForTokenClassification-of-one-nan", ""): "a number of the first answer",
    ("two-labels", ""): "classifier.weight (3x32 in the checkpoint, 2x32 by config.json)",
    ("bert-wordless", ""): "tokenizer",
    ("bloom-wordless", ""): "has no tokenizer",
    ("letterless", ""): "has no tokenizer",
    ("unheard", ""): "has no preprocessor_config.json",
    ("lora-without-weights", ""): "has adapter_config.json and no adapter_model.safetensors",
    ("lora-beside", ""): "has an adapter of tiny/base, which peft applies, and this image has no peft",
    ("lora", ""): "has an adapter of tiny/base, which peft applies, and this image has no peft",
}


def run(server_path: str, *arguments: object, **environment: str) -> str:
    done = subprocess.run(
        [sys.executable, PROGRAM, *map(str, arguments)],
        env={"PATH": os.environ["PATH"], "HOME": os.environ["HOME"], "PYTHONPATH": server_path, **environment},
        capture_output=True,
        text=True,
        timeout=600,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return done.stdout


@pytest.fixture(scope="module")
def made(tmp_path_factory) -> Path:
    """A folder with the models, written by the newest release."""
    folder = tmp_path_factory.mktemp("made")
    run("", "make", folder)
    return folder


@pytest.fixture(scope="module")
def made_by_the_oldest(overlay, tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("made")
    run(str(overlay), "make", folder)
    return folder


@pytest.fixture(scope="module")
def load(made, server_path, tmp_path_factory):
    """Loads models in one process: (name, task) -> the answer or the refusal."""

    def load(
        *cases: tuple[str, str], path: str = "", root: Path = made, **environment: str
    ) -> dict[tuple[str, str], dict[str, Any]]:
        named = {f"{number}": case for number, case in enumerate(cases)}
        given = [f"{number}={task}={root / name}" for number, (name, task) in named.items()]
        scratch = tmp_path_factory.mktemp("scratch")
        python_path = os.pathsep.join(filter(None, [path, server_path]))
        printed = run(python_path, "load", *given, SCRATCH=str(scratch), **environment)
        return {named[row["name"]]: row for row in map(json.loads, printed.splitlines())}

    return load


@pytest.fixture(scope="module", params=["made", "made_by_the_oldest"])
def outcomes(request, load):
    root = request.getfixturevalue(request.param)
    return load(*[(name, task) for name, tasks in PLAIN.items() for task in tasks], *BROKEN, root=root)


@pytest.fixture(scope="module")
def peft(release) -> str:
    """A folder with peft, for the front of PYTHONPATH."""
    folder = CACHE / f"peft-{release}"
    if not folder.is_dir():
        unfinished = folder.with_name(f"{folder.name}.{os.getpid()}")
        command = [sys.executable, "-m", "pip", "install", "-q", "--no-deps", "--target", unfinished, "psutil"]
        if subprocess.run([*command, *PEFT[release]], check=False).returncode:
            pytest.skip(f"needs {' and '.join(PEFT[release])} from the package index")
        try:
            unfinished.rename(folder)
        except OSError:  # another test process has made it in the meantime
            assert folder.is_dir()
    return str(folder)


def test_plain_models_start_without_a_word(outcomes):
    for name, tasks in PLAIN.items():
        for task in tasks:
            row = outcomes[name, task]
            assert row.get("answer"), row
            assert row["lines"] == [], row


def test_the_names_of_weight_norm_do_not_change_what_is_heard(outcomes):
    task = "automatic-speech-recognition"
    heard = [outcomes[name, task]["answer"]["text"] for name in ("Wav2Vec2ForCTC", "old-names", "new-names")]
    assert heard[0]
    assert len(set(heard)) == 1


def test_what_the_answer_needs_and_nobody_delivered_is_refused_by_name(outcomes):
    for case, says in BROKEN.items():
        assert says in outcomes[case].get("refused", "started"), case


TIED = {
    NEWEST: [("BlipForConditionalGeneration", "image-text-to-text")],
    OLDEST: [
        ("BlipForConditionalGeneration", "image-to-text"),
        ("BlipForQuestionAnswering", "visual-question-answering"),
    ],
}


def test_a_weight_that_the_decoder_inside_a_model_ties_is_there_under_either_name(load, release):
    """The newest release saves one of two tied weights; the oldest only ties the heads of whole models."""
    cases = TIED[release]
    ends = ("-whole", "", "-head", "-untied")
    rows = load(*[(f"{name}{end}", task) for name, task in cases for end in ends])
    for name, task in cases:
        whole, *tied, untied = (rows[f"{name}{end}", task] for end in ends)
        assert whole.get("answer"), whole
        for row in tied:
            assert row.get("answer") == whole["answer"], row
            assert row["lines"] == []
        assert "text_decoder.cls.predictions.decoder.weight" in untied.get("refused", ""), untied


def test_a_head_that_the_configuration_ties_away_is_used_or_refused(load, release):
    """Releases from 5 on keep both weights where the files have both; the oldest drops the head."""
    rows = load(*[(name, "") for name in ("llama", "own-head", "own-head-pickled")])
    trained, *others = rows.values()
    for row in others:
        if release == NEWEST:
            assert row["answer"] == trained["answer"]
        else:
            assert "two weights where its config.json speaks of one" in row["refused"]
            assert "lm_head.weight" in row["refused"]


ROTARY = ["llama-encoder", "llama-yarn", "phi3", "granite"]


def test_rotary_positions_of_any_release_are_what_they_were(load, made, overlay, release, tmp_path_factory):
    """The newest release wrote the models; the oldest has other names for these settings."""
    other = run(
        os.pathsep.join([*([str(overlay)] if release == NEWEST else []), str(PROGRAM.parents[2] / "docker/inference")]),
        "load",
        *[f"{name}=feature-extraction={made / name}" for name in ROTARY],
        SCRATCH=str(tmp_path_factory.mktemp("scratch")),
    )
    expected = {row["name"]: row for row in map(json.loads, other.splitlines())}
    for (name, _), row in load(*[(name, "feature-extraction") for name in ROTARY]).items():
        assert "answer" in row, row
        assert row["answer"][0][-1] == pytest.approx(expected[name]["answer"][0][-1], abs=1e-4), name


def test_rotary_positions_that_the_oldest_release_would_stretch_otherwise_are_refused(load, release):
    case = "llama-yarn-stretched", "feature-extraction"
    row = load(case)[case]
    lost = "rope_parameters.original_max_position_embeddings (16). Build the image with that release"
    assert row.get("answer") if release == NEWEST else lost in row["refused"]


def test_an_incomplete_model_starts_where_that_is_allowed_with_one_line_that_names_it(load):
    cases = {
        ("BertModel", "text-classification"): "classifier.bias, classifier.weight",
        ("two-labels", ""): "classifier.weight (3x32",
        ("not-a-number", ""): "every number of the first answer",
        ("lora-beside", ""): "adapter of tiny/base",
    }
    for case, row in load(*cases, EXTENDED_DLC_ALLOW_INCOMPLETE="true").items():
        assert row.get("answer"), row
        (line,) = [line for line in row["lines"] if line.startswith("ERROR")]
        assert "is served although it is not complete (EXTENDED_DLC_ALLOW_INCOMPLETE)" in line
        assert cases[case] in line


def test_an_adapter_beside_the_weights_is_merged_into_them(load, peft):
    beside, merged, plain = ("lora-beside", ""), ("merged", ""), ("llama", "")
    rows = load(beside, merged, plain, path=peft)
    assert rows[beside]["answer"] == rows[merged]["answer"] != rows[plain]["answer"]


class Hub:
    """The stand-in for the Hub, which can damage a response as networks do."""

    def __init__(self, root, make_server, application):
        self.faults, self.asked = {}, []
        self._serve = application.Hub(root)
        self.server = make_server("127.0.0.1", 0, self, threaded=True)
        threading.Thread(target=self.server.serve_forever, daemon=True).start()

    def __call__(self, environ, start_response):
        path = environ["PATH_INFO"]
        self.asked.append((environ["REQUEST_METHOD"], path))
        fault = next((fault for end, fault in self.faults.items() if path.endswith(end)), None)
        return (fault or self._serve_well)(environ, start_response)

    def _serve_well(self, environ, start_response):
        return self._serve(environ, start_response)

    def flip(self, times):
        """Change one byte of the body, in so many responses."""
        left = [times]

        def serve(environ, start_response):
            body = bytearray(b"".join(self._serve(environ, start_response)))
            if environ["REQUEST_METHOD"] == "GET" and left[0]:
                left[0] -= 1
                body[-1] ^= 1
            return [bytes(body)]

        return serve

    @staticmethod
    def fail(environ, start_response):
        start_response("410 Gone", [("content-length", "0")])
        return []

    @property
    def address(self):
        return f"http://127.0.0.1:{self.server.server_port}"

    def downloads(self, name):
        return sum(method == "GET" and path.endswith(name) for method, path in self.asked)


@pytest.fixture
def hub(made, tmp_path):
    serving = pytest.importorskip("werkzeug.serving", reason="pip install extended-dlc[rehearse]")
    from extended_dlc.rehearsal import hub as application

    root = tmp_path / "hub"
    for name, source in {"base": "llama", "lora": "lora", "encoder": "BertForMaskedLM", "bert": "BertModel"}.items():
        shutil.copytree(made / source, root / "tiny" / name)
    for name in ("lora-with-head", "lora-without-head"):
        shutil.copytree(made / name, root / "tiny" / name)
        config = json.loads((root / "tiny" / name / "adapter_config.json").read_text())
        (root / "tiny" / name / "adapter_config.json").write_text(
            json.dumps({**config, "base_model_name_or_path": "tiny/encoder"})
        )
    stand_in = Hub(root, serving.make_server, application)
    stand_in.root = root
    yield stand_in
    stand_in.server.shutdown()


@pytest.fixture
def ask(hub, server_path, tmp_path):
    """Loads one model in a new process, because huggingface_hub reads its environment once."""

    def ask(folder: Path | None = None, *, path: str = "", **environment: str) -> dict[str, Any]:
        base = tmp_path / f"base-{len(list(tmp_path.glob('base-*')))}"
        (base / "model").mkdir(parents=True)
        if folder is not None:
            shutil.copytree(folder, base / "model", dirs_exist_ok=True)
        given = {"HF_ENDPOINT": hub.address, "HF_HOME": str(tmp_path / "cache"), **environment}
        python_path = os.pathsep.join(filter(None, [path, server_path]))
        task = given.pop("HF_TASK", "")
        printed = run(python_path, "load", f"x={task}={base / 'model'}", **given)
        return dict(json.loads(printed))

    return ask


@pytest.mark.thorough
def test_an_adapter_finds_its_base_on_the_hub(ask, load, made, peft):
    expected = load(("merged", ""))["merged", ""]["answer"]
    assert ask(made / "lora", path=peft)["answer"] == expected
    assert ask(made / "lora", path=peft, HF_MODEL_ID="tiny/base")["answer"] == expected
    assert ask(path=peft, HF_MODEL_ID="tiny/lora")["answer"] == expected


def test_adapters_of_the_hub_stay_beside_the_model_or_are_refused_by_name(ask, made, peft):
    row = ask(path=peft, HF_MODEL_ID="tiny/base", EXTENDED_DLC_ADAPTERS="one=tiny/lora, two=tiny/lora@main")
    assert row["answer"]
    assert row["lines"] == []
    refused = ask(made / "llama", path=peft, EXTENDED_DLC_ADAPTERS="one=tiny/lora, two=tiny/none")["refused"]
    assert "an adapter of EXTENDED_DLC_ADAPTERS ('tiny/none') is not on the Hub" in refused


def test_an_adapter_brings_the_head_of_its_task_or_is_refused(ask, peft):
    row = ask(path=peft, HF_MODEL_ID="tiny/lora-with-head")
    assert row["task"] == "text-classification"
    assert row["answer"][0]["label"] in ("LABEL_0", "LABEL_1", "LABEL_2")
    refused = ask(path=peft, HF_MODEL_ID="tiny/lora-without-head")["refused"]
    assert "classifier." in refused  # the newest peft names one of the two
    assert "classifier.weight" in refused


def test_an_adapter_of_another_model_is_refused(ask, made, peft):
    refused = ask(made / "lora-of-another", path=peft)["refused"]
    assert "lacks weights: base_model.model.model.layers.1.self_attn" in refused


def test_an_adapter_of_the_hub_without_peft_names_its_base_and_the_way_out(ask, hub):
    refused = ask(HF_MODEL_ID="tiny/lora")["refused"]
    assert "tiny/lora has an adapter of tiny/base" in refused
    assert "name peft in code/requirements.txt" in refused
    assert not any("tiny/base" in path for _, path in hub.asked)


def test_a_flipped_byte_is_downloaded_once_more_and_then_refused_by_name(ask, hub):
    hub.faults["model.safetensors"] = hub.flip(times=1)
    row = ask(HF_MODEL_ID="tiny/bert", HF_TASK="feature-extraction")
    assert row["answer"]
    assert row["lines"] == [
        "WARNING model.safetensors of tiny/bert is not what the Hub lists: downloading it once more"
    ]
    hub.faults["config.json"] = hub.flip(times=99)
    refused = ask(HF_MODEL_ID="tiny/base")["refused"]
    # every file with this suffix is changed, and which one is checked first varies
    assert "config.json of tiny/base is not the file that the Hub lists, and was not at the second" in refused
    assert "git blob id is" in refused


def test_a_file_that_cannot_be_had_is_named_with_its_status_and_leaves_no_model_in_the_cache(ask, hub):
    hub.faults["model.safetensors"] = hub.fail
    refused = ask(HF_MODEL_ID="tiny/bert", HF_TASK="feature-extraction")["refused"]
    assert refused.startswith("model.safetensors of tiny/bert cannot be downloaded (410)")
    offline = ask(HF_MODEL_ID="tiny/bert", HF_TASK="feature-extraction", HF_HUB_OFFLINE="1")["refused"]
    assert "HF_HUB_OFFLINE is set and the cache in " in offline


def test_what_was_verified_before_is_not_read_again_and_serves_offline(ask, hub, tmp_path):
    for how in ({}, {}, {"HF_HUB_OFFLINE": "1"}):
        assert ask(HF_MODEL_ID="tiny/bert", HF_TASK="feature-extraction", **how)["answer"]
    assert hub.downloads("model.safetensors") == 1
    (notes,) = (tmp_path / "cache").rglob(".extended-dlc-verified.json")
    assert len(json.loads(notes.read_text())["right"]) >= 3
    (snapshot,) = (tmp_path / "cache" / "hub" / "models--tiny--bert" / "snapshots").iterdir()
    (snapshot / "tokenizer.json").unlink()
    refused = ask(HF_MODEL_ID="tiny/bert", HF_TASK="feature-extraction", HF_HUB_OFFLINE="1")["refused"]
    assert "holds only a part of tiny/bert: tokenizer.json is missing" in refused


SAFETENSORS = b"\2\0\0\0\0\0\0\0{}"
POINTER = b"version https://git-lfs.github.com/spec/v1\noid sha256:" + b"0" * 64 + b"\nsize 1234567\n"
CONFIG = b'{"model_type": "bert"}'
KINDS = {
    "git-lfs pointer": ({"config.json": CONFIG, "model.safetensors": POINTER}, "git lfs pull"),
    "a pointer beside the weights": (
        {"config.json": CONFIG, "model.safetensors": SAFETENSORS, "spiece.model": POINTER},
        r"spiece\.model of .* is a git-lfs pointer",
    ),
    "diffusers": ({"model_index.json": b"{}", "unet/config.json": b"{}"}, "is a pipeline of diffusers"),
    "gguf": ({"config.json": CONFIG, "model-Q4.gguf": b"GGUF"}, "has its weights as GGUF"),
    "gguf without a config": ({"model-Q4.gguf": b"GGUF"}, "has its weights as GGUF"),
    "deeper": ({"bert/config.json": CONFIG, "bert/model.safetensors": SAFETENSORS}, "but bert/ in it does"),
    "deeper, beside a config": ({"config.json": CONFIG, "last/model.safetensors": SAFETENSORS}, "but last/ in it does"),
    "cut short": ({"config.json": CONFIG, "model.safetensors": b"\xff\0\0\0\0\0\0\0{"}, "is not whole: its 9 bytes"),
    "cut behind its head": (
        {
            "config.json": CONFIG,
            "model.safetensors": b'\x3f\0\0\0\0\0\0\0{"a":{"dtype":"F32","shape":[99],"data_offsets":[0,396]}}      ',
        },
        "its header speaks of",
    ),
    "cut pickle": ({"config.json": CONFIG, "pytorch_model.bin": b"PK\3\4abc"}, "only the beginning of what torch.save"),
    "a page": ({"config.json": CONFIG, "pytorch_model.bin": b"<html>"}, "no file that torch.save wrote"),
    "no config": ({"model.safetensors": SAFETENSORS}, r"has weights and no config\.json"),
    "another name": ({"config.json": CONFIG, "weights.safetensors": SAFETENSORS}, "but weights.safetensors"),
    "no index": (
        {"config.json": CONFIG, "model-00001-of-00002.safetensors": SAFETENSORS},
        r"no model\.safetensors\.index\.json, which says what is in each shard",
    ),
    "the form of Mistral": (
        {"params.json": b"{}", "consolidated.safetensors": SAFETENSORS},
        "in the form of their authors",
    ),
    "shards of FSDP": ({"config.json": CONFIG, "pytorch_model_fsdp_0/__0_0.distcp": b"x"}, "accelerate merge-weights"),
    "shards of DeepSpeed": (
        {"config.json": CONFIG, "zero_to_fp32.py": b"", "optimizer.pt": b"PK"},
        r"run zero_to_fp32\.py in it",
    ),
    "an archive": ({"model.tar.gz.zip": b"PK"}, "an archive"),
    "other frameworks": ({"config.json": CONFIG, "onnx/model.onnx": b"x"}, "weights for ONNX Runtime"),
    "state of a training": ({"config.json": CONFIG, "optimizer.pt": b"PK"}, "has no weights for PyTorch"),
    "no settings": (
        {"config.json": CONFIG, "model.safetensors": SAFETENSORS, "generation_config.json": b"{"},
        r"generation_config\.json of .* is no JSON",
    ),
    "TensorFlow": ({"config.json": CONFIG, "tf_model.h5": b"x"}, r"for TensorFlow \(tf_model\.h5\)"),
    "half an adapter": ({"adapter_model.safetensors": SAFETENSORS}, r"has an adapter's weights and no adapter_config"),
}


def write(folder: Path, files: dict[str, bytes]) -> None:
    for name, content in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(content)


@pytest.fixture(scope="module")
def kinds(tmp_path_factory):
    """All kinds of files on a stand-in for the Hub, with huggingface_hub in this process."""
    serving = pytest.importorskip("werkzeug.serving", reason="pip install extended-dlc[rehearse]")
    from extended_dlc.rehearsal import hub as application

    root = tmp_path_factory.mktemp("kinds")
    for name, (files, _) in KINDS.items():
        write(root / "tiny" / name.replace(" ", "-").replace(",", ""), files)
    stand_in = Hub(root, serving.make_server, application)
    yield stand_in
    stand_in.server.shutdown()


@pytest.mark.parametrize("kind", KINDS)
def test_files_that_are_no_model_are_called_what_they_are_wherever_they_come_from(kind, kinds, tmp_path, monkeypatch):
    from huggingface_hub import constants, hf_api

    files, says = KINDS[kind]
    write(tmp_path / "model", files)
    with pytest.raises(errors.StartError, match=says) as delivered:
        weights.find_weights(settings.Settings(model_folder=tmp_path / "model"))
    here = {
        "HF_HUB_CACHE": str(tmp_path / "cache"),
        "ENDPOINT": kinds.address,
        "HUGGINGFACE_CO_URL_TEMPLATE": kinds.address + "/{repo_id}/resolve/{revision}/{filename}",
    }
    for name, value in here.items():
        monkeypatch.setattr(constants, name, value)
    monkeypatch.setattr(hf_api, "ENDPOINT", kinds.address, raising=False)
    monkeypatch.setenv("HF_HOME", str(tmp_path))
    model_id = "tiny/" + kind.replace(" ", "-").replace(",", "")
    with pytest.raises(errors.StartError, match=says) as downloaded:
        weights.find_weights(settings.Settings(model_id=model_id, model_folder=tmp_path / "none"))
    words = str(delivered.value).removeprefix("no model to serve: ").replace(str(tmp_path / "model"), model_id)
    assert words == str(downloaded.value)


def test_a_delivered_model_is_not_forgotten_beside_one_of_the_hub(tmp_path):
    write(tmp_path, KINDS["deeper"][0])
    with pytest.raises(errors.StartError, match=r"HF_MODEL_ID \('a/b'\) would be served instead .* bert/ in it does"):
        weights.find_weights(settings.Settings(model_id="a/b", model_folder=tmp_path))


def test_weights_under_a_name_that_the_configuration_gives_are_not_refused(tmp_path):
    write(tmp_path, {"config.json": b'{"transformers_weights": "own.safetensors"}', "own.safetensors": SAFETENSORS})
    assert weights.find_weights(settings.Settings(model_folder=tmp_path)).folder == tmp_path


def test_a_configuration_that_is_a_list_is_refused(tmp_path):
    write(tmp_path, {"config.json": b"[]", "model.safetensors": SAFETENSORS})
    found = weights.find_weights(settings.Settings(model_folder=tmp_path))
    with pytest.raises(errors.StartError, match=r"config\.json of .* holds no JSON object"):
        found.config()


def test_layers_that_predict_further_ahead_are_not_missed():
    from types import SimpleNamespace

    import torch

    def model(**configured):
        config = SimpleNamespace(**configured)
        config.get_text_config = lambda: config
        names = ["model.layers.0.mlp.weight", "model.layers.1.mlp.weight", "model.norm.weight"]
        parameters = [(name, torch.zeros(1)) for name in names]
        return SimpleNamespace(config=config, base_model_prefix="model", named_parameters=lambda: parameters)

    report = {"unexpected_keys": ["layers.2.mlp.weight", "model.layers.2.enorm.weight", "head.2.weight"]}
    assert loaded.left_out(model(), report) == ["layers.2.mlp.weight"]
    assert loaded.left_out(model(num_nextn_predict_layers=1), report) == []


def test_a_model_with_two_configurations_of_text_is_not_refused():
    """MusicGen has one for the text that it reads, and one for the codes that it writes."""
    import torch
    import transformers

    small = {"hidden_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2, "ffn_dim": 32, "vocab_size": 64}
    config = transformers.MusicgenConfig(
        text_encoder=transformers.T5Config(d_model=32, d_ff=32, num_layers=1, num_heads=2, vocab_size=64).to_dict(),
        audio_encoder=transformers.EncodecConfig(num_filters=4, hidden_size=16, codebook_size=64).to_dict(),
        decoder=transformers.MusicgenDecoderConfig(**small).to_dict(),
    )
    with pytest.raises(ValueError, match="Multiple valid text configs"):
        config.get_text_config()
    with torch.device("meta"):
        model = transformers.MusicgenForConditionalGeneration(config)
    assert loaded.left_out(model, {}) == []
    (layer, *_) = (name for name, _ in model.decoder.named_parameters() if ".layers.0." in name)
    beyond = f"decoder.{layer}".replace(".layers.0.", ".layers.7.")
    assert loaded.left_out(model, {"unexpected_keys": [beyond]}) == [beyond]


def test_a_large_file_is_hashed_while_it_is_written(tmp_path):
    content = os.urandom(3_000_000)
    listing = verified.Listed(size=len(content), kind="sha256", digest="ab" * 32)
    part = tmp_path / f"{listing.digest}.1234.incomplete"
    with verified.Following(tmp_path, listing) as following:
        with part.open("wb") as opened:
            for start in range(0, len(content), 1_000_000):
                opened.write(content[start : start + 1_000_000])
                opened.flush()
        part.rename(tmp_path / listing.digest)
        assert following.digest() == verified.hash_of(tmp_path / listing.digest, "sha256")
    with verified.Following(tmp_path, verified.Listed(size=9, kind="sha256", digest="cd" * 32)) as following:
        assert following.digest() is None


READ_BY_LLAMA = frozenset({"rope_theta", "rope_scaling", "hidden_size", "sliding_window", "use_sliding_window"})
LLAMA3 = {"rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0}


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ({"rope_parameters": {"rope_type": "default", "rope_theta": 5e5}}, {"rope_theta": 5e5}),
        ({"rope_parameters": {"rope_theta": 5e5, **LLAMA3}}, {"rope_theta": 5e5, "rope_scaling": LLAMA3}),
        ({"dtype": "bfloat16"}, {"torch_dtype": "bfloat16"}),
        ({"layer_types": ["full_attention"] * 2, "sliding_window": None}, {"sliding_window": None}),
        (
            {"text_config": {"model_type": "llama", "dtype": "float16"}},
            {"text_config": {"model_type": "llama", "torch_dtype": "float16"}},
        ),
    ],
)
def test_what_a_newer_release_calls_otherwise_is_translated(given, expected):
    done = configuration.translate({"model_type": "llama", **given}, lambda kind: READ_BY_LLAMA)
    assert done.config == {"model_type": "llama", **expected}
    assert done.lost == []


@pytest.mark.parametrize(
    "given",
    [
        {"rope_parameters": {"full_attention": {"rope_theta": 1e6}, "sliding_attention": {"rope_theta": 1e4}}},
        {"rope_parameters": {"rope_type": "of-tomorrow", "rope_theta": 1e4}},
        {"rope_parameters": {"rope_theta": 1e4, "partial_rotary_factor": 0.5}},
        {"layer_types": ["sliding_attention", "full_attention"], "sliding_window": 8},
        {"layer_types": ["full_attention"] * 2, "sliding_window": 8},
        {"layer_types": ["linear_attention", "full_attention"]},
    ],
)
def test_what_changes_the_answer_and_cannot_be_said_is_lost(given):
    done = configuration.translate({"model_type": "llama", **given}, lambda kind: READ_BY_LLAMA)
    assert len(done.lost) == 1
    assert done.lost[0].startswith(next(iter(given)))


def test_other_fields_of_a_newer_release_are_named_unless_they_say_nothing():
    config = {
        "model_type": "llama",
        "of_tomorrow": 3,
        "nothing": None,
        "hidden_size": 8,
        "transformers_version": "6.0.0",
    }
    assert configuration.translate(config, lambda kind: READ_BY_LLAMA).unread == ["of_tomorrow"]
    assert configuration.written_by_newer(config, "5.23.0")
    assert not configuration.written_by_newer({"transformers_version": "5.24.0"}, "5.23.0")
    assert not configuration.written_by_newer({}, "5.23.0")


def test_a_tied_weight_and_a_position_number_are_not_invented():
    import torch

    model = torch.nn.Module()
    model.inner, model.head = torch.nn.Linear(2, 2), torch.nn.Linear(2, 2)
    model.tied = torch.nn.Linear(2, 2)
    model.tied.weight = model.inner.weight
    model.register_buffer("position_ids", torch.arange(3))
    model.norm = torch.nn.BatchNorm1d(2)
    missing = ["tied.weight", "head.weight", "position_ids", "norm.running_mean", "norm.num_batches_tracked"]
    assert set(loaded.invented(model, {"missing_keys": missing})) == {"head.weight", "norm.running_mean"}


def test_an_expert_that_the_first_request_does_not_reach_counts_as_read():
    import torch

    model = torch.nn.Linear(1, 1)
    names = {"experts.3.weight": torch.zeros(2), "pooler.weight": torch.zeros(2)}
    assert loaded.read_by_the_answer(names, model, lambda: [1.0]) == ["experts.3.weight"]


def test_a_weight_counts_as_read_where_the_text_and_attention_hide_what_it_changes():
    """A text is the same while its scores differ, and scaled_dot_product_attention makes zeros of a NaN."""
    import torch

    class Writer(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.norm, self.unused = torch.nn.LayerNorm(8, bias=False), torch.nn.LayerNorm(8, bias=False)

        def forward(self, values):
            attended = torch.nn.functional.scaled_dot_product_attention(self.norm(values), values, values)
            return {"logits": attended.nan_to_num() + values}

    torch.manual_seed(1)
    writer, values = Writer(), torch.randn(1, 1, 4, 8)
    names = {"norm.weight": writer.norm.weight, "unused.weight": writer.unused.weight}

    def ask():
        writer(values)
        return "the same text"

    assert loaded.read_by_the_answer(names, writer, ask) == ["norm.weight"]


def test_many_names_are_cut():
    assert complete.some(list("fedcba")) == "a, b, c, d and 2 more"
