"""The models of the stand-in for the Hub: tiny, with random weights, under the IDs of real models.

`docker/inference/tiny_models.py` makes them inside the stand-in image, so that this machine needs neither torch nor
transformers.
"""

from __future__ import annotations

import hashlib
from pathlib import Path

from extended_dlc import files
from extended_dlc.rehearsal.engine import LABEL, Engine

BLOOM = "bigscience/bloom-560m"
OTHER_BLOOM = "bigscience/bloom-1b1"
"""`BLOOM` with another seed: the same prompt gives another text."""
WHISPER = "openai/whisper-base"
BERT = "textattack/bert-base-uncased-SST-2"
BLOOM_COPY = "example/a-copy-of-bloom"
"""`BLOOM` under an ID that does not reveal its type."""
SMOLLM3 = "HuggingFaceTB/SmolLM3-3B"
"""Model type `smollm3`, which transformers has from 4.53.0 on."""

RECIPES = {
    BLOOM: "bloom:1",
    BLOOM_COPY: "bloom:1",
    OTHER_BLOOM: "bloom:3",
    WHISPER: "whisper:4",
    BERT: "bert-classifier:5",
    SMOLLM3: "smollm3:6",
}
"""Hub ID, which is also the folder's path, to kind and seed."""

_PACKAGE = Path(__file__).parents[1]
# beside the package in a checkout, inside it in a wheel; not imported from `constructs/helpers.py`, which needs the CDK
PROGRAM = next(
    program
    for folder in (_PACKAGE, _PACKAGE.parent)
    if (program := folder / "docker" / "inference" / "tiny_models.py").is_file()
)
"""The program that makes the models."""


def make_models(engine: Engine, image: str, folder: Path) -> tuple[str, ...]:
    """Make the models in `folder`, in a container of `image`, unless they exist; returns their Hub IDs."""
    orders = [f"{recipe}={name}" for name, recipe in RECIPES.items()]
    stamp = hashlib.sha256("\n".join([PROGRAM.read_text("utf-8"), image, *orders]).encode()).hexdigest()
    made = folder / ".made"
    if not (made.exists() and made.read_text("utf-8") == stamp):
        folder.mkdir(parents=True, exist_ok=True)
        mounts = (f"--volume={PROGRAM}:/tiny_models.py:ro", f"--volume={folder.resolve()}:/models")
        program = ("python", "/tiny_models.py", "/models", *orders)
        engine.call("run", "--rm", f"--label={LABEL}={folder.parent}", *mounts, image, *program)
        files.write(made, stamp)
    return tuple(RECIPES)
