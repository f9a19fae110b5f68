"""The parts that need no model: settings, tasks, audio, encoding, threads, and the steps of the image's build."""

from __future__ import annotations

import ast
import json
import sys
from pathlib import Path

import pytest

np = pytest.importorskip("numpy", reason="pip install -r tests/runtime/requirements.txt")

import bytecode  # noqa: E402 - conftest.py has put the image's folder on the path
import install  # noqa: E402
import prove  # noqa: E402
from extended_dlc_server import errors, settings  # noqa: E402
from extended_dlc_server.json_text import Encoded, encode_json  # noqa: E402
from extended_dlc_server.machine import cpu, padding  # noqa: E402
from extended_dlc_server.reading import audio, decoding, tasks  # noqa: E402

MAPPINGS = {
    "MODEL_FOR_SPEECH_SEQ_2_SEQ_MAPPING_NAMES": {"whisper": "WhisperForConditionalGeneration"},
    "MODEL_FOR_CTC_MAPPING_NAMES": {"wav2vec2": "Wav2Vec2ForCTC"},
    "MODEL_FOR_CAUSAL_LM_MAPPING_NAMES": {"bloom": "BloomForCausalLM"},
    "MODEL_FOR_SEQ_TO_SEQ_CAUSAL_LM_MAPPING_NAMES": {"t5": "T5ForConditionalGeneration"},
    "MODEL_FOR_SEQUENCE_CLASSIFICATION_MAPPING_NAMES": {"bloom": "BloomForSequenceClassification"},
    "MODEL_MAPPING_NAMES": {"bert": "BertModel", "funnel": ("FunnelModel", "FunnelBaseModel")},
}


def test_an_empty_environment_gets_the_defaults():
    assert settings.read_settings({}) == settings.Settings()


def test_every_problem_of_the_environment_is_told_at_once():
    wrong = {
        "SAGEMAKER_BIND_TO_PORT": "99999",
        "EXTENDED_DLC_QUEUE_LENGTH": "-1",
        "EXTENDED_DLC_MAX_BODY_MB": "2.5",
        "HF_TRUST_REMOTE_CODE": "perhaps",
    }
    with pytest.raises(errors.StartError) as raised:
        settings.read_settings(wrong)
    for name, value in wrong.items():
        assert f"{name} ('{value}') must be" in str(raised.value)


def test_the_token_is_not_in_the_representation():
    read = settings.read_settings({"HF_API_TOKEN": "hf_verysecret"})
    assert read.token == "hf_verysecret"
    assert "hf_verysecret" not in repr(read)


def test_hf_token_wins_over_the_stock_name():
    assert settings.read_settings({"HF_TOKEN": "new", "HF_API_TOKEN": "old"}).token == "new"


def test_the_model_folder_is_a_valid_model_id():
    assert settings.read_settings({"HF_MODEL_ID": "/opt/ml/model"}).model_id is None


@pytest.mark.parametrize(
    ("architecture", "task"),
    [
        ("WhisperForConditionalGeneration", "automatic-speech-recognition"),
        ("Wav2Vec2ForCTC", "automatic-speech-recognition"),
        ("BloomForCausalLM", "text-generation"),
        ("T5ForConditionalGeneration", "text2text-generation"),
        ("BloomForSequenceClassification", "text-classification"),
        ("FunnelBaseModel", "feature-extraction"),
        ("SomebodysOwnForCausalLM", "text-generation"),
    ],
)
def test_the_task_is_read_from_the_architecture(architecture, task):
    assert tasks.infer_task({"architectures": [architecture]}, MAPPINGS) == task


@pytest.mark.parametrize("config", [{}, {"architectures": None}, {"architectures": ["Mystery"]}])
def test_a_task_that_cannot_be_known_is_asked_for(config):
    with pytest.raises(errors.StartError, match="Set HF_TASK"):
        tasks.infer_task(config, MAPPINGS)


INSTALLED = ("text-generation", "text-classification", "video-classification", "translation")


@pytest.mark.parametrize(
    ("task", "says"),
    [
        ("summarization", r"was removed from transformers in 5\.0\.0, and this image has 5\.23\.0"),
        ("question-answering", r"was removed from transformers in 5\.3\.0"),
        ("video-classification", "reads files or URLs only"),
        ("text-generatoin", "did you mean 'text-generation'?"),
        ("juggling", "is not a task of transformers"),
    ],
)
def test_a_task_that_is_not_there_says_why(task, says):
    with pytest.raises(errors.StartError, match=says):
        tasks.check_task(task, INSTALLED, {}, "5.23.0")


def test_aliases_and_language_pairs_are_tasks():
    assert tasks.check_task("sentiment-analysis", INSTALLED, {"sentiment-analysis": "text-classification"}, "5") == (
        "text-classification"
    )
    assert tasks.check_task("translation_en_to_de", INSTALLED, {}, "4.46.3") == "translation_en_to_de"
    assert tasks.kind_of("translation_en_to_de") is tasks.Kind.TEXT


@pytest.mark.parametrize(("rate", "channels", "width"), [(16_000, 1, 2), (44_100, 2, 2), (8_000, 1, 1), (48_000, 2, 3)])
def test_a_wav_keeps_its_tone_through_decoding(tone, monkeypatch, rate, channels, width):
    monkeypatch.setattr(audio.shutil, "which", lambda program: None)
    samples = audio.decode_audio(tone(1, rate, channels, width), rate=16_000, max_seconds=5)
    assert samples.dtype == np.float32
    assert samples.size == 16_000
    assert np.argmax(np.abs(np.fft.rfft(samples))) == 440
    assert np.max(np.abs(samples)) == pytest.approx(0.5, abs=0.03)


def test_ffmpeg_decodes_to_the_same_samples(tone, monkeypatch, ffmpeg_folder):
    monkeypatch.setenv("PATH", str(ffmpeg_folder))
    samples = audio.decode_audio(tone(1, 44_100, 2), rate=16_000, max_seconds=5)
    assert np.argmax(np.abs(np.fft.rfft(samples[:16_000]))) == 440


@pytest.mark.parametrize("kind", [tasks.Kind.IMAGE, tasks.Kind.AUDIO])
@pytest.mark.parametrize("inputs", ["https://example.com/x", "/etc/hostname", "cat.png"])
def test_no_string_is_fetched(kind, inputs):
    expected = decoding.Expected(task="some-task", kind=kind)
    with pytest.raises(errors.RequestError, match="URLs and paths are not fetched") as raised:
        decoding.decode(json.dumps({"inputs": inputs}).encode(), "application/json", expected)
    assert raised.value.status == 400


@pytest.mark.parametrize("key", ["url", "path", "image"])
def test_no_image_of_a_chat_is_fetched(key):
    expected = decoding.Expected(task="image-text-to-text", kind=tasks.Kind.IMAGE_AND_TEXT)
    chat = [{"role": "user", "content": [{"type": "image", key: "http://169.254.169.254/"}]}]
    with pytest.raises(errors.RequestError, match="not fetched"):
        decoding.decode(json.dumps({"inputs": chat}).encode(), None, expected)


def test_results_of_any_kind_become_json():
    result = {"array": np.arange(3), "number": np.float32(0.5), np.int64(1): (True, None), "nan": float("nan")}
    assert json.loads(encode_json(result)) == {
        "array": [0, 1, 2],
        "number": 0.5,
        "1": [True, None],
        "nan": None,
    }
    assert encode_json({"text": "\ud800"}) == b'{"text": "?"}'
    assert json.loads(encode_json([Encoded({"a": [1, "\ud800"]}), {"b": Encoded(2)}])) == [{"a": [1, "?"]}, {"b": 2}]
    assert json.loads(encode_json(["\ud800", Encoded({"a": 1})])) == ["?", {"a": 1}]
    assert json.loads(encode_json({"big": 2**64})) == {"big": 2**64}


@pytest.mark.parametrize(
    ("files", "quota"),
    [
        ({"cpu.max": "150000 100000"}, 1.5),
        ({"cpu.max": "max 100000"}, None),
        ({"cpu/cpu.cfs_quota_us": "200000", "cpu/cpu.cfs_period_us": "100000"}, 2),
        ({"cpu/cpu.cfs_quota_us": "-1", "cpu/cpu.cfs_period_us": "100000"}, None),
        ({}, None),
    ],
)
def test_the_quota_of_the_container_limits_the_threads(tmp_path, monkeypatch, files, quota):
    for name, text in files.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(text)
    monkeypatch.setattr(cpu.os, "sched_getaffinity", lambda process: set(range(64)))
    assert cpu.usable_cpus(tmp_path) == (64 if quota is None else 2)


def test_a_cpu_that_multiplies_bfloat16_says_so_among_its_flags(tmp_path):
    file = tmp_path / "cpuinfo"
    assert not cpu.multiplies_bfloat16(file)
    file.write_text("processor: 0\nflags\t\t: fpu avx512_bf16 amx_bf16 amx_tile\n")
    assert cpu.multiplies_bfloat16(file)
    file.write_text("flags\t\t: fpu avx512_bf16 avx512f\n")
    assert cpu.multiplies_bfloat16(file)
    file.write_text("model name: not amx_bf16 at all\nflags\t\t: fpu avx512f bf16\n")
    assert not cpu.multiplies_bfloat16(file)


def test_a_thread_count_that_is_set_wins():
    environment = {"OMP_NUM_THREADS": "3"}
    cpu.set_thread_count(environment)
    defaults = {"GOMP_SPINCOUNT": "50000", "RAYON_NUM_THREADS": "3", "TOKENIZERS_PARALLELISM": "true"}
    assert environment == {"OMP_NUM_THREADS": "3", **defaults}
    environment["TOKENIZERS_PARALLELISM"] = "false"
    cpu.set_thread_count(environment)
    assert environment == {"OMP_NUM_THREADS": "3", **defaults, "TOKENIZERS_PARALLELISM": "false"}


def test_how_threads_wait_is_left_to_one_who_says_it():
    environment = {"OMP_NUM_THREADS": "3", "OMP_WAIT_POLICY": "PASSIVE"}
    cpu.set_thread_count(environment)
    assert "GOMP_SPINCOUNT" not in environment


class Kernel:
    """The counters of a kernel with four cores: `idle` of them are idle, and this process uses `used`."""

    def __init__(self, monkeypatch, file):
        self.file, self.now, self.used, self.idle, self.busy = file, 100.0, 0.0, 0.0, 0.0
        monkeypatch.setattr(cpu.os, "sched_getaffinity", lambda process: {0, 1, 2, 3})
        monkeypatch.setattr(cpu.time, "monotonic", lambda: self.now)
        monkeypatch.setattr(cpu.time, "process_time", lambda: self.used)
        self.spend(0, used=0, idle=0)

    def spend(self, seconds, *, used, idle, counts=True):
        self.now, self.used = self.now + seconds, self.used + used * seconds
        if counts:
            self.idle, self.busy = self.idle + idle * seconds, self.busy + (4 - idle) * seconds
        # cores outside this container do not count
        lines = [f"cpu{core} {self.busy * 25:.0f} 0 0 {self.idle * 25:.0f} 0 0 0 0 0 0" for core in range(4)]
        self.file.write_text("\n".join(["cpu  9 9 9 9 9 9 9 9 9 9", *lines, "cpu4 1 0 0 99999 0 0 0 0 0 0", "intr 1"]))


@pytest.mark.parametrize(
    ("used", "idle", "threads"),
    [(0, 4, 4), (3.9, 0, 4), (2.7, 0, 2), (1.8, 0.1, 2), (1, 3, 4), (0, 0, 1), (0.5, 1.3, 2), (3.3, 0.6, 4)],
)
def test_an_inference_has_as_many_threads_as_there_are_cores_that_nobody_else_uses(
    monkeypatch, tmp_path, used, idle, threads
):
    monkeypatch.setattr(cpu, "_TICKS", 100)
    kernel = Kernel(monkeypatch, tmp_path / "stat")
    cores = cpu.FreeCores(4, kernel.file)
    assert cores.look() == 4
    kernel.spend(1, used=used, idle=idle)
    assert cores.look() == threads
    kernel.spend(0.1, used=4, idle=0)
    assert cores.look() == threads  # the interval is too short for a new measurement
    kernel.spend(2, used=4, idle=0)
    assert cores.look() == 4


def test_who_cannot_see_what_cores_do_uses_all_threads(monkeypatch, tmp_path):
    kernel = Kernel(monkeypatch, tmp_path / "stat")
    cores = cpu.FreeCores(4, kernel.file)
    kernel.spend(1, used=1, idle=0, counts=False)
    assert cores.look() == 4
    kernel.file.unlink()
    kernel.spend(0, used=1, idle=0)
    missing = cpu.FreeCores(4, tmp_path / "missing")
    kernel.spend(1, used=1, idle=0)
    assert missing.look() == 4


@pytest.mark.parametrize(
    ("lengths", "spare", "expected"),
    [
        ([0, 0, 0], 0, [0, 1, 2]),  # without padding
        ([10, 500, 12, 11], 64, [0, 3, 2]),
        ([10, 500, 12, 11], 4096, [0, 3, 2, 1]),
        ([500, 10, 480, 12], 64, [0, 2]),
        ([1000, 970, 950, 900], 64, [0, 1, 2, 3]),  # an eighth may be padding, whatever `spare` is
        ([20000, 5], 100_000, [0]),  # limited by `_BATCH_TOKENS`
        ([7], 64, [0]),
        ([8, 8, 8, 8, 8, 8], 64, [0, 1, 2, 3]),  # limited by `most`
    ],
)
def test_what_runs_in_one_batch_needs_little_padding(lengths, spare, expected):
    assert padding.together(lengths, 4, spare) == expected


@pytest.mark.parametrize("spare", [64, 4096])
def test_every_text_is_in_one_batch(spare):
    lengths = [(number * 37) % 500 + 1 for number in range(100)]
    made = list(padding.batches(lengths, 32, spare))
    assert sorted(index for batch in made for index in batch) == list(range(100))
    padded = sum(max(lengths[index] for index in batch) * len(batch) for batch in made)
    assert padded - sum(lengths) <= max(spare * len(made), sum(lengths) / 7)
    assert len(made) <= (20 if spare == 64 else 8)


BASE = {"torch": "2.6.0+cu124", "nvidia-cublas-cu12": "12.4", "numpy": "1.26.4", "diffusers": "0.33.1", "flask": "3"}


def test_the_base_keeps_torch_cuda_and_numpy():
    assert install.constraints(BASE) == ["numpy==1.26.4", "nvidia-cublas-cu12==12.4", "torch==2.6.0+cu124"]


def test_the_stock_toolkit_stays_and_keeps_its_setuptools():
    lines = install.constraints({**BASE, "sagemaker-inference": "1.10", "sagemaker-huggingface-inference-toolkit": "2"})
    assert "setuptools<82" in lines
    assert "sagemaker-huggingface-inference-toolkit==2" in lines


def test_neighbours_that_are_there_move_along_and_no_others():
    assert install.requirements("5.23.0", BASE) == ["transformers==5.23.0", "diffusers>=0.38,<0.43"]
    assert install.requirements("4.57.6", BASE) == ["transformers==4.57.6", "diffusers"]


def test_a_base_of_awss_own_gets_what_one_of_hugging_face_has():
    plain = {"torch": "2.14.0", "pillow": "12.3.0", "protobuf": "6.33.6"}
    assert install.lacking(plain) == ["accelerate==1.15.0", "peft==0.21.2", "sentencepiece"]
    assert install.lacking({**plain, "transformers": "5.5.3"}) == []


def test_ffmpeg_comes_from_a_wheel_only_where_a_native_server_would_lack_it(monkeypatch):
    def has_wheel(server: str) -> bool:
        return install.FFMPEG in install.packages("5.24.0", server, BASE, ())

    monkeypatch.setattr(install, "find_ffmpeg", lambda: None)
    assert [server for server in ("native", "training", "stock", "vllm") if has_wheel(server)] == ["native"]
    monkeypatch.setattr(install, "find_ffmpeg", lambda: "/usr/local/bin/ffmpeg")
    assert not has_wheel("native")


def test_an_ffmpeg_beside_the_python_is_found_and_one_that_does_not_run_fails_the_proof(tmp_path, monkeypatch):
    monkeypatch.setattr(sys, "executable", str(tmp_path / "python"))
    monkeypatch.setenv("PATH", str(tmp_path / "empty"))
    assert "it is not there" in next(prove.audio_can_be_decoded())
    program = tmp_path / "ffmpeg"
    program.write_text("#!/bin/sh\nexit 3\n")
    program.chmod(0o755)
    assert install.find_ffmpeg() == str(program)
    assert "exit status 3" in next(prove.audio_can_be_decoded())
    program.write_text("#!/bin/sh\n")
    assert not list(prove.audio_can_be_decoded())


@pytest.mark.parametrize("asked", ["latest", "5.*", ">=5", ""])
def test_only_an_exact_release_is_installed(asked):
    with pytest.raises(SystemExit, match="must be an exact release"):
        install.main(asked)


@pytest.mark.parametrize(
    ("output", "says"),
    [
        ("ERROR: Ignored the following versions that require a different python version: 5.23.0 Requires-Python", "Py"),
        ("ERROR: No matching distribution found for transformers==5.23.0", "has no transformers 5.23.0"),
        ("SSL: CERTIFICATE_VERIFY_FAILED", "ca-bundle"),
        ("ERROR: ResolutionImpossible", "may not be replaced"),
    ],
)
def test_pips_failures_are_put_in_plain_words(output, says):
    assert says in install.explain(output, "5.23.0")


def test_the_secrets_of_a_build_reach_pip(tmp_path):
    assert "PIP_CERT" not in set(install.pip_environment(tmp_path)) - set(install.os.environ)
    for name in ("pip-config", "ca-bundle"):
        (tmp_path / name).touch()
    environment = install.pip_environment(tmp_path)
    assert environment["PIP_CONFIG_FILE"] == str(tmp_path / "pip-config")
    assert environment["PIP_CERT"] == str(tmp_path / "ca-bundle")


def test_a_model_type_that_is_not_known_fails_the_proof():
    pytest.importorskip("transformers", reason="pip install -r tests/runtime/requirements.txt")
    assert list(prove.model_types_are_known("5.23.0", "bloom,whisper")) == []
    (problem,) = prove.model_types_are_known("5.23.0", "bloom,from-the-future")
    assert "does not know model type 'from-the-future'" in problem


def test_a_replaced_torch_fails_the_proof():
    (problem,) = prove.the_base_keeps_its_torch({**install.installed(), "torch": "1.0"})
    assert problem.startswith("torch was 1.0 in the base and is ")


def test_bytecode_loses_docstrings_that_nothing_reads():
    tree = ast.parse(
        'def f():\n    """Gone."""\n\n@deco\nclass C:\n    """Kept."""\n\n@add_doc\ndef g():\n    """Kept."""\n'
        'class D:\n    """Gone."""\n\nclass DConfig:\n    """Kept: decorators of other classes read it."""\n'
    )
    bytecode.drop_docstrings(tree)
    assert "Gone" not in ast.unparse(tree)
    assert ast.unparse(tree).count("Kept") == 3


def test_bytecode_is_used_whatever_the_time_of_the_file(tmp_path, monkeypatch):
    import importlib
    import os

    source = tmp_path / "timeless_module.py"
    source.write_text("value = 1\n")
    assert bytecode.write_bytecode(source) > 0
    source.write_text("value = 2\n")
    os.utime(source, (0, 0))
    monkeypatch.syspath_prepend(str(tmp_path))
    assert importlib.import_module("timeless_module").value == 1


def test_of_what_a_process_imported_the_layer_and_the_images_own_modules_are_compiled(tmp_path, monkeypatch):
    import importlib

    for folder in ("own", "others"):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / f"{folder}_module.py").write_text("")
        monkeypatch.syspath_prepend(str(tmp_path / folder))
        importlib.import_module(f"{folder}_module")
    importlib.import_module("transformers")
    base = prove.install.installed()
    assert list(prove.start_up(base, tmp_path / "own")) == [tmp_path / "own" / "own_module.py"]
    newer = {name: release for name, release in base.items() if name != "transformers"}
    added = list(prove.start_up(newer, tmp_path / "own"))
    assert {path.parent.name for path in added} >= {"own", "transformers"}
    assert tmp_path / "others" / "others_module.py" not in added


def test_the_dockerfile_builds_with_old_engines():
    """podman 4.3 knows no heredocs and no `COPY --link`; a syntax line needs a registry."""
    text = (Path(prove.__file__).parent / "Dockerfile").read_text()
    assert "<<" not in text
    assert "--link" not in text
    assert "# syntax" not in text


def test_the_proof_reads_the_pins_of_the_server(monkeypatch, tmp_path):
    """These tests are installed from the same file; a comment behind a pin is no part of the version."""
    assert list(prove.server_requirements_are_the_pinned_ones()) == []
    (tmp_path / "requirements.txt").write_text("# why\nuvicorn==0.1.0  # because\n")
    monkeypatch.setattr(prove.install, "HERE", tmp_path)
    (problem,) = prove.server_requirements_are_the_pinned_ones()
    assert "instead of 0.1.0: something" in problem
