"""Facts that two programs need which cannot import each other: each pair is compared here."""

from __future__ import annotations

import importlib.util
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import boto3
import pytest

from extended_dlc.facts.catalog import version
from extended_dlc.facts.names import COMPONENT_LOGS, ENDPOINT_LOGS
from extended_dlc.facts.releases import find_task, releases
from extended_dlc.models.hub_lookup import weight_files
from extended_dlc.programs import copy_model as _mirror_copy
from extended_dlc.programs.functions import proof
from extended_dlc.rehearsal.cdk import without_settings
from extended_dlc.smoke import SmokeTest

DOCKER = Path(__file__).parents[2] / "docker"
EXAMPLES = Path(__file__).parents[2] / "examples"
PINNED = re.compile(r'([\w.-]+/[\w.-]+)"?,?\s+revision(?:: |=")([0-9a-f]{40})')
"""A model and the commit after it, in YAML and in Python."""


@pytest.fixture(scope="module")
def server() -> Iterator[str]:
    """The server's package, whose modules can be imported."""
    sys.path.insert(0, str(DOCKER / "inference"))
    yield "extended_dlc_server"
    sys.path.remove(str(DOCKER / "inference"))


def module(name: str) -> Any:
    return importlib.import_module(name)


def program(path: Path) -> ModuleType:
    """A program of an image, imported by its path."""
    spec = importlib.util.spec_from_file_location(path.stem, path)
    assert spec is not None
    assert spec.loader is not None
    found = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(found)
    return found


NAMES = ("numpy", "torch", "torchtext", "nvidia-cublas-cu12", "flash-attn", "pytorch-triton", "triton", "cuda-python")


def test_what_the_build_never_replaces_a_container_s_start_does_not_replace_either(
    server: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    install = program(DOCKER / "inference" / "install.py")
    requirements = module(f"{server}.machine.requirements")

    class Found:
        version = "1.0"

        def __init__(self, name: str) -> None:
            self.metadata = {"Name": name}

    asked = [*NAMES, "NumPy", "nvidia_cudnn_cu12", "transformers", "requests", "torchvision-extra"]
    monkeypatch.setattr(requirements, "distributions", lambda: [Found(name) for name in asked])
    at_start = {name for name, _ in requirements._protected()}
    canonical = {name: re.sub(r"[-_.]+", "-", name).lower() for name in asked}
    assert at_start == {name for name in asked if install.PROTECTED.fullmatch(canonical[name])}
    assert at_start == {*NAMES, "NumPy", "nvidia_cudnn_cu12"}


@pytest.mark.parametrize(
    ("secret", "token"),
    [
        ("hf_abc", "hf_abc"),
        (" hf_abc\n", "hf_abc"),
        ('{"HF_TOKEN": "hf_abc"}', "hf_abc"),
        ('{"token": "hf_abc", "more": 1}', "hf_abc"),
        ('{"HF_TOKEN": "hf_a", "token": "hf_b"}', "hf_a"),
        ('{"password": "hf_abc"}', None),
        ('{"HF_TOKEN": 5}', None),
        ("{broken", None),
        ("two words", None),
        ("", None),
    ],
)
def test_a_secret_holds_the_token_in_the_same_forms_for_the_server_and_the_mirror(
    server: str, monkeypatch: pytest.MonkeyPatch, secret: str, token: str | None
) -> None:
    class SecretsManager:
        def get_secret_value(self, SecretId: str) -> Any:
            return {"SecretString": secret}

    monkeypatch.setattr(boto3, "client", lambda *_, **__: SecretsManager())
    read = module(f"{server}.machine.secret").read_token
    refuses = module(f"{server}.errors").StartError
    if token is None:
        with pytest.raises(refuses, match="holds no token"):
            read("arn:aws:secretsmanager:us-east-1:111111111111:secret:x")
        with pytest.raises(_mirror_copy.CopyError, match="holds no token"):
            _mirror_copy.read_token("x")
    else:
        assert read("arn:aws:secretsmanager:us-east-1:111111111111:secret:x") == token
        assert _mirror_copy.read_token("x") == token


REPOSITORY = (
    *("config.json", "tokenizer.json", "tokenizer_config.json", "spiece.model", "chat_template.jinja", "vocab.txt"),
    *("model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors", "model.safetensors.index.json"),
    *("pytorch_model.bin", "tf_model.h5", "flax_model.msgpack", "model.onnx", "weights.nemo", "graph.pb", "q4.gguf"),
    *("README.md", "demo.ipynb", "plot.png", "sample.wav", "video.mp4", "paper.pdf"),
    *("1_Pooling/config.json", "2_Dense/model.safetensors", "modules.json"),
)


def test_the_mirror_copies_nothing_that_the_server_never_loads_and_all_that_it_does(server: str) -> None:
    downloads = module(f"{server}.files.downloads")
    assert _mirror_copy.NEVER == downloads._NEVER
    files = [_mirror_copy.File(path, 1, None, "x") for path in REPOSITORY]
    copied = {path for path in REPOSITORY if _mirror_copy._is_needed(path, files)}
    assert copied == {
        path
        for path in REPOSITORY
        if Path(path).suffix not in downloads._NEVER and path != "pytorch_model.bin"  # beside safetensors
    }
    assert {*weight_files(REPOSITORY)} <= copied


def test_the_tasks_that_left_are_the_ones_that_the_facts_say(server: str) -> None:
    """The server names the release that removed a task, the facts the last one that had it."""
    for task, removed in module(f"{server}.reading.tasks").REMOVED.items():
        spans = find_task(task)
        assert spans, task
        assert spans[0].last is not None, task
        later = [release for release in releases() if version(release) > version(spans[0].last)]
        assert version(spans[0].last) < version(str(removed)) <= version(later[0]), task


def test_the_proof_looks_into_the_log_groups_that_are_made() -> None:
    source = Path(str(proof.__file__)).read_text()
    assert f'f"{ENDPOINT_LOGS}/' in source
    assert f'f"{COMPONENT_LOGS}/' in source


def test_a_smoke_test_and_a_rehearsal_leave_the_same_of_the_caller_s_settings(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EXTENDED_DLC_MODEL", "x/y")
    monkeypatch.setenv("EXTENDED_DLC_ANYTHING", "1")
    monkeypatch.setenv("AWS_PROFILE", "mine")
    test = SmokeTest.__new__(SmokeTest)
    test.state, test.region = Path("/tmp"), "us-east-1"
    inherited = test._environment()
    assert "EXTENDED_DLC_MODEL" not in inherited
    assert "EXTENDED_DLC_ANYTHING" not in inherited
    assert set(without_settings({"AWS_PROFILE": "mine", "EXTENDED_DLC_X": "1"})) == {"AWS_PROFILE"}
    assert inherited["AWS_PROFILE"] == "mine"


def test_a_commit_in_the_examples_is_one_models_alone() -> None:
    """A commit that is copied from another model's entry is found by no synth, only by the Hub at the deployment."""
    models: dict[str, set[str]] = {}
    for file in [*EXAMPLES.rglob("*.py"), *EXAMPLES.rglob("*.yaml")]:
        for model, commit in PINNED.findall(file.read_text()):
            models.setdefault(commit, set()).add(model)
    assert len(models) > 3
    assert [(commit, found) for commit, found in models.items() if len(found) > 1] == []
