"""`plan`, `check` and `lookup`: as a user sees them, against the shipped settings and a stand-in for the Hub."""

from __future__ import annotations

import fcntl
import json
import os
import pty
import re
import struct
import subprocess
import sys
import termios
import threading
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result
from werkzeug.serving import make_server

from extended_dlc.cli import main
from extended_dlc.facts.releases import releases
from extended_dlc.models.hub_lookup import LookupFailed, ask_hub, weight_files
from extended_dlc.rehearsal.hub import Hub
from tests.support.settings import plan_of

ROOT = Path(__file__).parents[2]
TOKEN = "hf_opensnothing"


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, shipped_settings: dict[str, Any]) -> Path:
    """A folder with the shipped settings, to stand in."""
    (tmp_path / "cdk.json").write_text(json.dumps({"context": {"extended-dlc": shipped_settings}}))
    monkeypatch.chdir(tmp_path)
    return tmp_path


def run(*arguments: str) -> Result:
    return CliRunner().invoke(main, arguments)


def answer(*arguments: str) -> Any:
    return json.loads(run(*arguments, "--json").stdout)


# plan


def test_the_shipped_settings_make_a_plan_without_a_problem(folder: Path) -> None:
    result = run("plan")
    assert result.exit_code == 0, result.output
    for line in (
        "transformers 5.24.0",
        "needs        transformers 4.20.0 or newer, for 'bloom'",
        "instance     ml.m5.xlarge: 4 vCPU, 16.0 GiB",
        "3.7 GiB of 16.0 GiB, fits: 559,214,592 parameters x 4 bytes (float32) are 2.1 GiB",
        "time-out     660 s to start",
        "volume       32 GB",
        "and the newest of its family",
        "tag          made at synth",
    ):
        assert line in result.output


def test_the_plan_is_the_same_in_json(folder: Path) -> None:
    plan = answer("plan", "--instance-type", "ml.g5.xlarge")
    assert plan["image"]["base"].endswith(
        "huggingface-pytorch-inference:2.6.0-transformers5.5.3-gpu-py312-cu124-ubuntu22.04"
    )
    assert plan["image"]["host_image"] == "al2-ami-sagemaker-inference-gpu-3-1"
    (endpoint,) = plan["endpoints"]
    assert (endpoint["endpoint"], endpoint["instance"]["name"], endpoint["fit"]["verdict"]) == (
        "model",
        "ml.g5.xlarge",
        "fits",
    )
    assert endpoint["fit"]["available"] == endpoint["fit"]["there"] == 22888 * 1024**2
    assert endpoint["volume_gb"] is None
    assert plan["problems"] == []


def test_what_synth_would_refuse_is_a_problem_and_ends_with_status_1(folder: Path) -> None:
    result = run("plan", "--model", "bigscience/bloom", "--instance-type", "ml.g5.xlarge")
    assert result.exit_code == 1
    assert "endpoints.model.hosting.instance_type (ml.g5.xlarge): cannot hold bigscience/bloom" in result.output
    assert "serve it with the vLLM family and tensor parallelism over 8 GPUs of 80.0 GiB" in result.output


def test_all_problems_are_named_at_once(folder: Path, shipped_settings: dict[str, Any]) -> None:
    shipped_settings["image"]["transformers"] = "5.0.0"
    shipped_settings["endpoints"]["model"].update(
        model="google-t5/t5-small",
        task="summarization",
        model_type="mega",
        environment={"X": "hf_abcdefghijklmnopqrstuvwx"},
    )
    plan = plan_of(shipped_settings)
    problems = "\n".join(plan["problems"])
    assert (
        "endpoints.model.task (summarization): is no task of transformers 5.0.0: it was removed after 4.57.6"
        in problems
    )
    assert "cannot load model type 'mega': it left after" in problems
    assert "endpoints.model.environment: 'X' holds a literal Hub token" in problems
    assert "abcdefghijklmnop" not in problems


def test_a_model_type_that_nobody_knows_is_a_warning_with_the_near_one(
    folder: Path, shipped_settings: dict[str, Any]
) -> None:
    shipped_settings["endpoints"]["model"].update(model="someone/x", model_type="blom")
    plan = plan_of(shipped_settings)
    assert plan["problems"] == []
    assert any("'blom' is in no release read here; did you mean 'bloom'?" in warning for warning in plan["warnings"])


def test_longer_and_more_requests_can_be_planned_for(folder: Path) -> None:
    options = ("plan", "--model", "bigscience/bloom-7b1", "--instance-type", "ml.g5.xlarge")
    assert answer(*options)["endpoints"][0]["fit"]["verdict"] == "fits"
    more = answer(*options, "--batch", "16")
    assert more["endpoints"][0]["fit"]["verdict"] == "tight"
    assert more["problems"] == []
    assert any("may be too large for ml.g5.xlarge" in warning for warning in more["warnings"])


def test_a_plan_needs_no_settings_where_the_options_say_enough(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    plan = answer("plan", "--model", "whisper", "--transformers", "5.23.0", "--region", "eu-west-1")
    assert plan["problems"] == []
    assert plan["endpoints"][0]["model"]["task"] == "automatic-speech-recognition"


def test_without_settings_and_options_it_says_what_to_give(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert "there is no cdk.json: go to the folder of the app (cd)" in run("plan").output
    monkeypatch.setenv("AWS_REGION", "eu-west-1")
    done = run("plan", "--model", "whisper", "--json")
    newest = next(reversed(releases()))
    assert done.stderr == f"no cdk.json here: planned for transformers {newest} in eu-west-1\n"
    found = json.loads(done.stdout)
    assert (found["problems"], found["region"], found["image"]["transformers"]) == ([], "eu-west-1", newest)


def test_what_the_options_say_of_the_model_is_planned_with(folder: Path) -> None:
    given = ("plan", "--model", "acme/own", "--model-type", "llama", "--parameters", "9000000000")
    assert "cannot hold acme/own: 9,000,000,000 parameters" in answer(*given)["problems"][0]
    assert answer(*given, "--task", "text-generatio")["problems"][0].startswith("endpoints.model.task (text-generatio)")
    (folder / "cdk.json").write_text("{}")
    assert run("plan", "--parameters", "1").exit_code in (1, 2)


def test_what_is_wrong_is_said_once_and_all_at_once(folder: Path) -> None:
    wrong = answer("plan", "--region", "mars-1", "--transformers", "latest", "--instance-type", "ml.m5.xlrge")
    assert [problem.split(" ")[0] for problem in wrong["problems"]] == [
        "region",
        "endpoints.model.hosting.instance_type",
        "image.transformers",
    ]


def test_the_kinds_of_image_are_planned_as_they_are(folder: Path, shipped_settings: dict[str, Any]) -> None:
    stock = plan_of({**shipped_settings, "image": {"kind": "stock", "transformers": "4.51.3"}})
    assert [stock["image"][key] for key in ("transformers", "server", "layer")] == ["4.51.3", "stock", []]
    custom = plan_of({**shipped_settings, "image": {"kind": "ecr", "repository": "mine", "tag": "1", "cuda": "cu130"}})
    assert [custom["image"][key] for key in ("base", "transformers")] == [None, None]
    assert custom["image"]["host_image"] == "al2023-ami-sagemaker-inference-gpu-4-1"
    assert stock["problems"] == custom["problems"] == []
    old = plan_of({**shipped_settings, "image": {"kind": "stock", "transformers": "4.17.0"}}, {})
    assert "cannot load model type 'bloom': needs >= 4.20.0" in old["problems"][0]


def test_a_plan_imports_neither_the_cdk_nor_boto3() -> None:
    probe = (
        "import sys\n"
        "from click.testing import CliRunner; from extended_dlc.cli import main\n"
        "assert CliRunner().invoke(main, ['plan']).exit_code == 0\n"
        "sys.exit(bool({'aws_cdk', 'boto3', 'jsii', 'rich'} & set(sys.modules)))"
    )
    assert subprocess.run([sys.executable, "-c", probe], cwd=ROOT, check=False).returncode == 0


@pytest.mark.parametrize("command", [["--help"], ["catalog", "list"], ["check", "bloom"]])
def test_what_reads_no_settings_imports_no_pydantic_either(command: list[str]) -> None:
    probe = (
        "import sys\n"
        "from click.testing import CliRunner; from extended_dlc.cli import main\n"
        f"assert CliRunner().invoke(main, {command!r}).exit_code == 0\n"
        "sys.exit(bool({'aws_cdk', 'boto3', 'jsii', 'pydantic'} & set(sys.modules)))"
    )
    assert subprocess.run([sys.executable, "-c", probe], cwd=ROOT, check=False).returncode == 0


# a start


def start_of(model: str, instance_type: str = "ml.m5.xlarge", **endpoint: Any) -> dict[str, Any]:
    """The plan's start for one endpoint, with its warnings."""
    image = {"transformers": "5.23.0"}
    asked = {"model": model, "hosting": {"instance_type": instance_type}, **endpoint}
    plan = plan_of({"region": "us-east-1", "image": image, "endpoints": {"one": asked}})
    (one,) = plan["endpoints"]
    phases = {phase["name"]: phase for phase in one["start"]["phases"]} if one["start"] else {}
    return {"start": one["start"], "phases": phases, "warnings": "\n".join(plan["warnings"])}


def test_each_minute_of_a_start_has_its_part_and_what_is_assumed_says_so(folder: Path) -> None:
    lines = run("plan").output.splitlines()
    first = next(index for index, line in enumerate(lines) if line.startswith("  start        about 5 min"))
    parts = lines[first + 1 : first + 6]
    assert [part.split()[0] for part in parts] == ["machine", "pull", "download", "load", "warm-up"]
    assert all("assumed" in part or "128 MiB/s" in part for part in parts)
    assert "1.1 GB of weights from the Hub at 50 MB/s" in parts[2]
    start = answer("plan")["endpoints"][0]["start"]
    assert sum(phase["seconds"] for phase in start["phases"]) == 180 + 20 + 23 + 12 + 60


def test_a_download_is_no_faster_than_the_network_of_the_instance() -> None:
    slow, fast = (start_of("bigscience/bloom-560m", name)["phases"] for name in ("ml.t2.medium", "ml.m5.24xlarge"))
    assert slow["pull"]["seconds"] > fast["pull"]["seconds"] == 20
    assert "(the network of ml.t2.medium)" in slow["pull"]["why"]
    assert "(assumed)" in fast["pull"]["why"]


MIRRORED: dict[str, Any] = {"weights": {"kind": "mirrored"}, "revision": "a" * 40}


def test_weights_in_s3_and_storage_of_its_own_shorten_a_start() -> None:
    hub, s3 = (
        start_of("bigscience/bloom-7b1", weights={"kind": kind}, revision="a" * 40)["phases"]
        for kind in ("hub", "mirrored")
    )
    assert s3["download"]["seconds"] < hub["download"]["seconds"]
    assert "from S3" in s3["download"]["why"]
    small = start_of("bigscience/bloom-7b1", "ml.g5.2xlarge")["phases"]
    assert small["load"]["seconds"] < hub["load"]["seconds"]


def test_an_s3_prefix_is_proposed_for_weights_that_take_long_and_are_on_the_hub() -> None:
    large = start_of("bigscience/bloom", "ml.p4de.24xlarge")
    said = "one.weights: each start downloads 352.5 GB from the Hub, about 118 min, and an S3 prefix takes about 29 min"
    assert said in large["warnings"]
    assert (
        start_of("bigscience/bloom", "ml.p4de.24xlarge", weights={"kind": "mirrored"}, revision="a" * 40)["start"][
            "proposal"
        ]
        is None
    )
    assert start_of("bigscience/bloom-560m")["start"]["proposal"] is None
    assert start_of("bigscience/bloom-560m", parameters=7_400_000_000)["start"]["proposal"] is None
    assert start_of("bigscience/bloom-560m", parameters=7_600_000_000)["start"]["proposal"] is not None


def test_what_depends_on_a_size_that_nobody_knows_is_not_known(folder: Path) -> None:
    start = start_of("someone/x")["start"]
    assert [phase["name"] for phase in start["phases"] if phase["seconds"] is None] == ["download", "load"]
    assert start["proposal"] is None
    assert "and what the model's size adds" in run("plan", "--model", "someone/x").output


def test_nothing_is_estimated_of_a_serverless_start() -> None:
    assert start_of("bigscience/bloom-560m", hosting={"kind": "serverless"})["start"] is None


@pytest.mark.parametrize("columns", [60, 100])
def test_on_a_terminal_no_line_is_wider_than_it(folder: Path, columns: int) -> None:
    """A terminal of this width, as a shell has one."""
    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 40, columns, 0, 0))
    environment = {key: value for key, value in os.environ.items() if key not in ("COLUMNS", "LINES", "NO_COLOR")}
    environment["TERM"] = "xterm"
    command = [sys.executable, "-m", "extended_dlc", "plan", "--model", "bigscience/bloom"]
    process = subprocess.Popen(command, stdout=theirs, stderr=theirs, env={**environment, "PYTHONPATH": str(ROOT)})
    os.close(theirs)
    output = b""
    with suppress(OSError):  # a terminal whose last program has gone
        while piece := os.read(ours, 65536):
            output += piece
    os.close(ours)
    process.wait(30)
    assert b"\x1b[1;31mproblems" in output
    lines = re.sub(r"\x1b\[[0-9;]*m", "", output.decode()).splitlines()
    assert max(map(len, lines)) <= columns
    whole = "".join(run("plan", "--model", "bigscience/bloom").output.split())
    assert "".join("".join(lines).split()) == whole


# check


def test_check_tells_what_a_model_needs(folder: Path) -> None:
    result = run("check", "bloom")
    assert result.exit_code == 0, result.output
    assert "needs        transformers 4.20.0 or newer" in result.output
    assert "on a GPU     ml." in result.output
    answered = answer("check", "bigscience/bloom")
    assert answered["smallest"]["gpu"] == []
    assert answered["smallest_parallel"][0] == "ml.p4de.24xlarge"


def test_check_reads_a_config_file(folder: Path) -> None:
    (folder / "config.json").write_text(json.dumps({"model_type": "qwen3", "architectures": ["Qwen3ForCausalLM"]}))
    answered = answer("check", "someone/mine", "--config", "config.json")
    assert (answered["model_type"], answered["needs"]["first"]) == ("qwen3", "4.51.0")
    (folder / "config.json").write_text("[]")
    assert "holds no object: give the model's config.json" in run("check", "x/y", "--config", "config.json").output


def test_check_refuses_a_release_that_does_not_know_the_model(folder: Path) -> None:
    result = run("check", "bloom", "--transformers", "4.17.0")
    assert result.exit_code == 1
    assert "transformers 4.17.0 cannot load model type 'bloom': needs >= 4.20.0" in result.output
    assert run("check", "bloom", "--transformers", "4.20.1").exit_code == 0
    assert "was withdrawn there" in run("check", "bloom", "--transformers", "4.57.0").output


def test_check_refuses_a_package_that_the_release_does_not_take(folder: Path) -> None:
    result = run("check", "bloom", "--transformers", "5.23.0", "--with", "tokenizers==0.20.0", "--with", "pydub")
    assert result.exit_code == 1
    assert "'tokenizers==0.20.0' does not go with transformers 5.23.0, which asks for" in result.output
    assert "package      pydub: not checked: name one release" in result.output
    assert "problem  " in result.output.splitlines()[0], "what is wrong comes first"


def test_check_says_when_it_knows_nothing(folder: Path) -> None:
    result = run("check", "someone/something")
    assert result.exit_code == 0
    assert "needs        not known: give --config, or run extended-dlc lookup MODEL" in result.output
    assert "on a GPU     not known: give --parameters" in result.output


# lookup


def safetensors(path: Path, numbers: int, dtype: str = "BF16") -> None:
    """A file of the format with one tensor of two-byte numbers."""
    header = json.dumps({"w": {"dtype": dtype, "shape": [numbers], "data_offsets": [0, 2 * numbers]}}).encode()
    path.write_bytes(struct.pack("<Q", len(header)) + header + bytes(2 * numbers))


@pytest.fixture(scope="module")
def hub(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The address of a Hub with a public and a private model."""
    root = tmp_path_factory.mktemp("hub")
    config = {
        "model_type": "qwen3",
        "architectures": ["Qwen3ForCausalLM"],
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "hidden_size": 64,
        "max_position_embeddings": 512,
    }
    for name in ("tiny/qwen", "tiny/secret"):
        model = root / name
        model.mkdir(parents=True)
        (model / "config.json").write_text(json.dumps(config))
        safetensors(model / "model-00001-of-00002.safetensors", 1000)
        safetensors(model / "model-00002-of-00002.safetensors", 500)
        (model / "flax_model.msgpack").write_bytes(bytes(77))
    (root / "tiny" / "secret" / ".private").touch()
    server = make_server("127.0.0.1", 0, Hub(root, token=TOKEN), threaded=True)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.port}"
    server.shutdown()
    server.server_close()


def test_the_hub_tells_type_size_and_commit(hub: str) -> None:
    facts = ask_hub("tiny/qwen", endpoint=hub)
    assert (facts["model_type"], facts["parameters"], facts["dtype"]) == ("qwen3", 1500, "bfloat16")
    assert (facts["gated"], facts["context"]) == (False, 512)
    assert facts["cache_elements_per_token"] == 2 * 2 * 64
    assert len(facts["revision"]) == 40
    headers = 2 * (8 + len(json.dumps({"w": {"dtype": "BF16", "shape": [1000], "data_offsets": [0, 2000]}})))
    assert facts["weight_bytes"] == pytest.approx(3000 + headers, abs=4)


def test_lookup_writes_what_check_and_plan_read(hub: str, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_ENDPOINT", hub)
    (folder / "cdk.context.json").write_text('{"availability-zones": ["a"]}')
    result = run("lookup", "tiny/qwen")
    assert result.exit_code == 0, result.output
    context = json.loads((folder / "cdk.context.json").read_text())
    assert context["availability-zones"] == ["a"]
    assert context["extended-dlc:model:tiny/qwen"]["parameters"] == 1500
    answered = answer("check", "tiny/qwen")
    assert (answered["model_type"], answered["parameters"], answered["gated"]) == ("qwen3", 1500, False)
    plan = answer("plan", "--model", "tiny/qwen", "--transformers", "4.46.3")
    assert "cannot load model type 'qwen3': needs >= 4.51.0" in plan["problems"][0]


def test_a_private_model_is_looked_up_with_a_token_which_goes_nowhere(
    hub: str, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_ENDPOINT", hub)
    refused = run("lookup", "tiny/secret")
    assert refused.exit_code == 1
    assert "the Hub shows no model 'tiny/secret' (HTTP 401)" in refused.output
    assert not (folder / "cdk.context.json").exists()
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    answered = answer("lookup", "tiny/secret")
    assert answered["gated"] is True
    assert TOKEN not in (folder / "cdk.context.json").read_text()
    plan = answer("plan", "--model", "tiny/secret")
    assert "is private or gated on the Hub, and the container has no token" in plan["problems"][0]


def test_a_hub_that_is_not_there_or_has_no_such_revision_is_said(hub: str) -> None:
    with pytest.raises(LookupFailed, match=r"cannot be reached .*HF_ENDPOINT"):
        ask_hub("tiny/qwen", endpoint="http://127.0.0.1:1")
    with pytest.raises(LookupFailed, match="no such revision"):
        ask_hub("tiny/qwen", revision="v9", endpoint=hub)


def test_the_weights_are_those_that_transformers_loads() -> None:
    both = ["model.safetensors", "pytorch_model.bin", "onnx/model.safetensors", "model.safetensors.index.json"]
    assert weight_files(both) == ["model.safetensors"]
    assert weight_files(["pytorch_model-00001-of-00002.bin", "training_args.bin"]) == [
        "pytorch_model-00001-of-00002.bin"
    ]
    assert weight_files(["README.md"]) == []


def test_the_plan_of_a_vllm_image_names_its_base_and_its_own_layer() -> None:
    endpoint = {"model": "bigscience/bloom", "hosting": {"instance_type": "ml.p4de.24xlarge"}}
    image = {"family": "vllm", "transformers": "5.23.0"}
    plan = plan_of({"region": "us-east-1", "image": image, "endpoints": {"bloom": endpoint}})
    assert plan["problems"] == []
    assert "/huggingface-vllm:" in plan["image"]["base"]
    assert plan["image"]["layer"] == ["transformers==5.23.0"]
    assert "docker/inference" in plan["image"]["tag"]
