"""Code in an archive, and weights that stay on the Hub, in the stock server: the workaround without repackaging."""

from __future__ import annotations

import json
import shutil
import sys
import threading
import zipfile
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
sys.path.insert(0, str(ROOT / "benchmarks"))

from candidates import Stock  # noqa: E402 - where the stock server is put together

from extended_dlc import InferenceCode  # noqa: E402

HOOK = """
import os, sys
sys.path.append(os.environ["PIP_TARGET"])
import injected

def predict_fn(data, model):
    return {"injected": injected.VERSION, "labels": model(data["inputs"])}
"""


@pytest.fixture
def hub(models: Path, tmp_path: Path) -> Iterator[str]:
    """The address of the Hub's stand-in, with one model."""
    serving = pytest.importorskip("werkzeug.serving", reason="pip install extended-dlc[rehearse]")
    from extended_dlc.rehearsal import hub as application

    shutil.copytree(models / "bert-classifier", tmp_path / "hub" / "tiny" / "bert")
    stand_in = application.Hub(tmp_path / "hub", log=lambda line: None)
    server = serving.make_server("127.0.0.1", 0, stand_in, threaded=True)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()


def make_wheel(folder: Path) -> None:
    """A wheel of a package that is installed nowhere else."""
    folder.mkdir()
    with zipfile.ZipFile(folder / "injected-1.0-py3-none-any.whl", "w") as wheel:
        wheel.writestr("injected.py", "VERSION = '1.0'\n")
        wheel.writestr("injected-1.0.dist-info/METADATA", "Metadata-Version: 2.1\nName: injected\nVersion: 1.0\n")
        wheel.writestr("injected-1.0.dist-info/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
        wheel.writestr("injected-1.0.dist-info/RECORD", "")


def test_the_stock_server_installs_the_requirements_and_runs_the_code_beside_a_model_of_the_hub(
    hub: str, tmp_path: Path
) -> None:
    make_wheel(tmp_path / "wheels")
    (tmp_path / "code").mkdir()
    (tmp_path / "code" / "inference.py").write_text(HOOK)
    archive = tmp_path / "model"
    for name, content in InferenceCode(str(tmp_path / "code"), requirements=["injected==1.0"]).files().items():
        (archive / name).parent.mkdir(parents=True, exist_ok=True)
        (archive / name).write_bytes(content)
    installed = tmp_path / "installed"
    stock = Stock(
        archive,
        "text-classification",
        workers=1,
        threads=1,
        HF_MODEL_ID="tiny/bert",
        HF_ENDPOINT=hub,
        HF_HUB_OFFLINE="0",
        # pip must not install into the tests' environment
        PIP_TARGET=str(installed),
        PIP_NO_INDEX="1",
        PIP_FIND_LINKS=str(tmp_path / "wheels"),
    )
    try:
        answer = json.loads(stock.wait_for_answer(json.dumps({"inputs": "hello"}).encode()))
    finally:
        stock.stop()
    assert answer["injected"] == "1.0"
    assert [label["label"] for label in answer["labels"]] in (["NEGATIVE"], ["POSITIVE"])
