"""The steps of the image's targets `stock` and `vllm`: the base's own server beside another transformers release.

Those of AWS's old images run on Python 3.8.
"""

from __future__ import annotations

import ast
from pathlib import Path

# conftest.py has put the image's folder on the path
import install
import prove
import pytest

IMAGE = Path(prove.__file__).parent


@pytest.mark.parametrize("name", ["install.py", "prove.py", "bytecode.py", "tiny_models.py"])
def test_its_steps_are_written_in_python_3_8(name: str) -> None:
    tree = ast.parse((IMAGE / name).read_text(), feature_version=(3, 8))
    assert any(isinstance(node, ast.ImportFrom) and node.module == "__future__" for node in tree.body)


def test_a_base_without_the_server_is_refused_before_anything_is_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(install, "installed", lambda: {"torch": "2.6.0"})
    with pytest.raises(SystemExit, match=r"no stock server \(sagemaker-huggingface-inference-toolkit\): choose"):
        install.main("4.57.6", server="stock")


def test_a_base_without_vllm_is_refused_before_anything_is_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(install, "installed", lambda: {"torch": "2.11.0"})
    with pytest.raises(SystemExit, match="BASE_IMAGE has no vLLM for its 'python3': choose a huggingface-vllm image"):
        install.main("5.24.0", server="vllm")


def test_vllm_torch_and_cuda_stay_and_the_rest_may_move() -> None:
    base = {"vllm": "0.29.0", "torch": "2.11.0", "nvidia-cublas": "13.1", "flashinfer-python": "0.5", "tokenizers": "1"}
    assert install.constraints(base) == [
        "flashinfer-python==0.5",
        "nvidia-cublas==13.1",
        "torch==2.11.0",
        "vllm==0.29.0",
    ]
    (problem,) = prove.the_base_keeps_its_torch({**install.installed(), "vllm": "0.29.0"})
    assert problem.startswith("vllm was 0.29.0 in the base and is gone now")


@pytest.mark.parametrize("server", ["native", "stock", "vllm"])
def test_each_server_gets_its_own_requirements(server: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    commands: list[list[str]] = []

    def run(command: list[str]) -> tuple[int, str]:
        commands.append(list(command))
        return 0, ""

    base = {"torch": "1.10.2", "vllm": "0.29.0", "peft": "0.18", install.TOOLKIT: "2.0.0"}
    monkeypatch.setattr(install, "installed", lambda: base)
    monkeypatch.setattr(install, "RECORD", tmp_path / "base.json")
    monkeypatch.setattr(install, "complaints", lambda: [])
    monkeypatch.setattr(install, "find_ffmpeg", lambda: "/usr/bin/ffmpeg")
    monkeypatch.setattr(install, "_run", run)
    install.main("4.24.0", server=server, along=["huggingface_hub<0.26"])
    (command,) = commands
    assert "transformers==4.24.0" in command
    assert ("huggingface_hub<0.26" in command) == (server == "stock")
    assert ("--requirement" in command) == (server == "native")
    assert ("peft" in command) == (server != "vllm")  # with transformers below 5 the base's peft stays


def test_the_arguments_are_those_of_the_dockerfile() -> None:
    dockerfile = (IMAGE / "Dockerfile").read_text()
    assert 'install.py --server=stock "${TRANSFORMERS_VERSION}" "${STOCK_REQUIREMENTS}"' in dockerfile
    assert install.arguments().parse_args(["--server=stock", "4.24.0"]).server == "stock"
    assert 'install.py --server=vllm "${TRANSFORMERS_VERSION}"' in dockerfile
    assert install.arguments().parse_args(["--server=vllm", "5.24.0"]).server == "vllm"
    assert install.arguments().parse_args(["5.23.0"]).server == "native"


def test_the_native_target_is_the_last_and_so_the_default() -> None:
    stages = [line.split()[-1] for line in (IMAGE / "Dockerfile").read_text().splitlines() if line.startswith("FROM")]
    assert stages == ["base", "stock", "vllm", "native"]


def test_a_server_that_cannot_be_imported_fails_the_proof_with_the_way_out(tmp_path: Path) -> None:
    """This environment has no stock server, which is an ImportError, as in the build."""
    (problem,) = prove.stock_server_answers(tmp_path)
    assert "does not start with this transformers (ModuleNotFoundError" in problem
    assert 'the native server (server="native")' in problem


def test_a_vllm_that_cannot_be_imported_fails_the_proof_with_the_way_out() -> None:
    (problem,) = prove.vllm_can_be_imported("5.24.0")
    assert "cannot be imported with transformers 5.24.0" in problem
    assert problem.endswith("choose a newer base, or an older transformers release")
