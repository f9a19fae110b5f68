"""`extended-dlc login`: which registries are logged in to, and what happens when that is not possible."""

from __future__ import annotations

import json
import os
import stat
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from werkzeug.serving import make_server

from extended_dlc.cli import main
from extended_dlc.images.registry_login import EcrRegistry, bases_to_pull, ecr_registries
from extended_dlc.rehearsal.hub import Hub
from tests.support.settings import decided

DLC = "763104351884.dkr.ecr.us-east-1.amazonaws.com"


def test_only_private_ecr_registries_want_a_login_and_each_once() -> None:
    references = [
        f"{DLC}/huggingface-pytorch-inference:1",
        f"{DLC}/huggingface-pytorch-training:2",
        "727897471807.dkr.ecr.cn-north-1.amazonaws.com.cn/x@sha256:0",
        "public.ecr.aws/deep-learning-containers/pytorch:2.13.0-cpu-amzn2023-sagemaker",
        "registry.example.com/763104351884.dkr.ecr.us-east-1.amazonaws.com/x",
        "localhost/x:1",
    ]
    assert ecr_registries(references) == [
        EcrRegistry(
            host="727897471807.dkr.ecr.cn-north-1.amazonaws.com.cn", account="727897471807", region="cn-north-1"
        ),
        EcrRegistry(host=DLC, account="763104351884", region="us-east-1"),
    ]


def base_images(settings: Any) -> list[str]:
    return list(bases_to_pull(decided(settings).decision))


def test_the_settings_say_which_base_is_pulled(shipped_settings: Any) -> None:
    (base,) = base_images(shipped_settings)
    assert base.startswith(f"{DLC}/huggingface-pytorch-inference:")
    shipped_settings["image"]["base_region"] = "eu-west-1"
    assert base_images(shipped_settings)[0].startswith("763104351884.dkr.ecr.eu-west-1.")
    shipped_settings["image"]["base"] = "ours:1"
    assert list(base_images(shipped_settings)) == ["ours:1"]


def test_an_image_that_is_not_built_wants_no_login_wherever_it_is(shipped_settings: Any) -> None:
    for image in ({"kind": "stock", "base": f"{DLC}/huggingface-pytorch-inference:1"}, {"kind": "stock"}):
        shipped_settings["image"] = image
        assert list(base_images(shipped_settings)) == []


@pytest.mark.parametrize(
    "broken", [{}, {"image": 1}, {"image": {}, "endpoints": []}, {"image": {}, "endpoints": {"a": 1}}]
)
def test_settings_that_say_too_little_are_left_to_synth(broken: Any) -> None:
    assert [base for base in base_images(broken) if not base.startswith("763104351884")] == []


@pytest.fixture
def engine(tmp_path: Path) -> Path:
    """A program in the engine's place that writes down what it is told: no registry of AWS's is in reach."""
    program = tmp_path / "engine"
    program.write_text(
        f"#!{sys.executable}\nimport json, pathlib, sys\n"
        f"pathlib.Path({str(tmp_path / 'called.json')!r}).write_text(json.dumps([sys.argv[1:], sys.stdin.read()]))\n"
    )
    program.chmod(program.stat().st_mode | stat.S_IXUSR)
    return program


def run(folder: Path, *arguments: str, **variables: str) -> subprocess.CompletedProcess[str]:
    environment = {key: value for key, value in os.environ.items() if not key.startswith(("AWS_", "EXTENDED_DLC"))}
    environment |= {"AWS_EC2_METADATA_DISABLED": "true", "AWS_SHARED_CREDENTIALS_FILE": os.devnull, **variables}
    return subprocess.run(
        [sys.executable, "-m", "extended_dlc", "login", *arguments],
        cwd=folder,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.fixture
def app(tmp_path: Path, shipped_settings: Any) -> Path:
    """A folder with the shipped cdk.json."""
    (tmp_path / "cdk.json").write_text(json.dumps({"context": {"extended-dlc": shipped_settings}}))
    return tmp_path


CREDENTIALS = {"AWS_ACCESS_KEY_ID": "testing", "AWS_SECRET_ACCESS_KEY": "testing"}


def test_the_engine_gets_the_token_on_standard_input_and_never_as_an_argument(
    app: Path, engine: Path, moto: str
) -> None:
    done = run(app, CDK_DOCKER=str(engine), AWS_ENDPOINT_URL=moto, **CREDENTIALS)
    assert done.returncode == 0, done.stderr
    arguments, password = json.loads((app / "called.json").read_text())
    assert arguments == ["login", "--username", "AWS", "--password-stdin", DLC]
    assert password
    assert password not in done.stdout + done.stderr


def test_variables_and_a_settings_file_decide_as_they_do_for_the_app(
    app: Path, engine: Path, moto: str, shipped_settings: Any
) -> None:
    (app / "other.yaml").write_text(
        "region: us-east-1\nimage: {transformers: 5.23.0}\nendpoints: {w: {model: whisper}}\n"
    )
    done = run(
        app,
        CDK_DOCKER=str(engine),
        AWS_ENDPOINT_URL=moto,
        EXTENDED_DLC_SETTINGS="other.yaml",
        EXTENDED_DLC_REGION="ap-south-1",
        **CREDENTIALS,
    )
    assert "is logged in to 763104351884.dkr.ecr.ap-south-1.amazonaws.com" in done.stderr


def test_constructs_of_ones_own_name_their_base(tmp_path: Path, engine: Path, moto: str) -> None:
    base = f"{DLC}/huggingface-pytorch-inference:2.6.0-transformers5.5.3-cpu-py312-ubuntu22.04"
    done = run(tmp_path, "--base", base, CDK_DOCKER=str(engine), AWS_ENDPOINT_URL=moto, **CREDENTIALS)
    assert f"is logged in to {DLC}" in done.stderr


def test_a_base_without_login_asks_neither_aws_nor_the_engine(tmp_path: Path, engine: Path) -> None:
    done = run(tmp_path, "--base", "public.ecr.aws/deep-learning-containers/pytorch:1", CDK_DOCKER=str(engine))
    assert done.returncode == 0
    assert done.stderr.startswith(
        "extended-dlc login: nothing to log in to: 'public.ecr.aws/deep-learning-containers/py"
    )
    assert not (tmp_path / "called.json").exists()


def test_without_credentials_it_says_so_and_stops_nothing(app: Path, engine: Path) -> None:
    done = run(app, CDK_DOCKER=str(engine))
    assert done.returncode == 0
    assert f"not logged in to {DLC}" in done.stderr
    assert "run 'aws configure' or 'aws sso login'" in done.stderr


def test_without_an_engine_it_says_so_and_stops_nothing(app: Path, moto: str) -> None:
    done = run(app, CDK_DOCKER="/nowhere/docker", AWS_ENDPOINT_URL=moto, **CREDENTIALS)
    assert done.returncode == 0
    assert "there is no container engine '/nowhere/docker'" in done.stderr


def test_an_engine_that_refuses_is_quoted_and_stops_nothing(app: Path, engine: Path, moto: str) -> None:
    engine.write_text("#!/bin/sh\ncat >/dev/null; echo 'Cannot connect to the Docker daemon' >&2; exit 1\n")
    done = run(app, CDK_DOCKER=str(engine), AWS_ENDPOINT_URL=moto, **CREDENTIALS)
    assert done.returncode == 0
    assert "login failed: Cannot connect to the Docker daemon" in done.stderr


def test_broken_settings_stop_nothing(tmp_path: Path) -> None:
    (tmp_path / "cdk.json").write_text("{")
    done = run(tmp_path)
    assert done.returncode == 0
    assert "the settings cannot be read" in done.stderr
    assert "Traceback" not in done.stderr


def test_a_vllm_image_needs_the_base_of_its_family(shipped_settings: dict[str, Any]) -> None:
    shipped_settings["image"]["family"] = "vllm"
    (base,) = base_images(shipped_settings)
    assert "/huggingface-vllm:" in base
    shipped_settings["image"]["transformers"] = "4.17.0"
    assert list(base_images(shipped_settings)) == []


# prepare


def test_prepare_notes_what_the_hub_says_of_unknown_models_and_goes_on_without_a_hub(
    tmp_path: Path, shipped_settings: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    hub = Hub(tmp_path / "hub")
    model = tmp_path / "hub" / "someone" / "x"
    model.mkdir(parents=True)
    (model / "config.json").write_text('{"model_type": "bert"}')
    shipped_settings["endpoints"] = {
        "a": {"model": "someone/x"},
        "b": {"model": "someone/absent"},
        "c": {"model": "bloom"},
    }
    (tmp_path / "mine.json").write_text(json.dumps(shipped_settings))
    command = ["prepare", "--settings", str(tmp_path / "mine.json")]
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")
    away = CliRunner().invoke(main, command)
    assert away.exit_code == 0
    assert "'someone/x' is not looked up: http://127.0.0.1:9 cannot be reached" in away.output
    assert "someone/absent" not in away.output, "one that is out of reach is asked once"
    assert not (tmp_path / "mine.lookups.json").exists()
    server = make_server("127.0.0.1", 0, hub)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    monkeypatch.setenv("HF_ENDPOINT", f"http://127.0.0.1:{server.server_port}")
    result = CliRunner().invoke(main, command)
    server.shutdown()
    assert "'someone/x' is looked up on the Hub" in result.output
    assert "'someone/absent' is not looked up: the Hub shows no model" in result.output
    noted = json.loads((tmp_path / "mine.lookups.json").read_text())
    assert [*noted] == ["extended-dlc:model:someone/x"]
    assert noted["extended-dlc:model:someone/x"]["model_type"] == "bert"
    assert not (tmp_path / "cdk.context.json").exists()


@pytest.mark.parametrize("broken", ["cdk.context.json", "mine.lookups.json"])
@pytest.mark.parametrize("command", ["prepare", "login"])
def test_what_runs_before_a_synth_never_stops_it(
    tmp_path: Path, shipped_settings: Any, monkeypatch: pytest.MonkeyPatch, command: str, broken: str
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "mine.json").write_text(json.dumps(shipped_settings))
    (tmp_path / broken).write_text("{")
    done = CliRunner().invoke(main, [command, "--settings", "mine.json"])
    assert (done.exit_code, done.exception) == (0, None)
    assert f"{broken} cannot be read" in done.output
