"""The models behind the Hub's stand-in: tiny, random, under the names of real ones.

`docker/inference/tiny_models.py` makes them; it runs inside the stand-in image, so that neither torch nor transformers
is wanted on this machine.
"""

from __future__ import annotations

import hashlib
from pathlib import Path

from extended_dlc.rehearsal import files
from extended_dlc.rehearsal.engine import LABEL, Engine

BLOOM = "bigscience/bloom-560m"
OTHER_BLOOM = "bigscience/bloom-1b1"
"""Made like `BLOOM` from another seed: the same prompt gets another answer."""
WHISPER = "openai/whisper-base"
BERT = "textattack/bert-base-uncased-SST-2"
BLOOM_COPY = "example/a-copy-of-bloom"
"""`BLOOM` under a name that does not tell its type."""
SMOLLM3 = "HuggingFaceTB/SmolLM3-3B"
"""Of model type `smollm3`, which transformers has from 4.53.0 on."""

RECIPES = {
    BLOOM: "bloom:1",
    BLOOM_COPY: "bloom:1",
    OTHER_BLOOM: "bloom:3",
    WHISPER: "whisper:4",
    BERT: "bert-classifier:5",
    SMOLLM3: "smollm3:6",
}
"""Hub id (also the folder below the one that is given) -> kind and seed."""

_PACKAGE = Path(__file__).parents[1]
# beside the package in a checkout, inside it in a wheel; `constructs/helpers.py` knows it too, and imports the CDK
PROGRAM = next(
    program
    for folder in (_PACKAGE, _PACKAGE.parent)
    if (program := folder / "docker" / "inference" / "tiny_models.py").is_file()
)
"""The program that makes them."""


def make_models(engine: Engine, image: str, folder: Path) -> tuple[str, ...]:
    """Make the models in `folder`, inside a container of `image`, unless they are there; returns their Hub ids."""
    orders = [f"{recipe}={name}" for name, recipe in RECIPES.items()]
    stamp = hashlib.sha256("\n".join([PROGRAM.read_text(), image, *orders]).encode()).hexdigest()
    made = folder / ".made"
    if not (made.exists() and made.read_text() == stamp):
        folder.mkdir(parents=True, exist_ok=True)
        mounts = (f"--volume={PROGRAM}:/tiny_models.py:ro", f"--volume={folder.resolve()}:/models")
        program = ("python", "/tiny_models.py", "/models", *orders)
        engine.call("run", "--rm", f"--label={LABEL}={folder.parent}", *mounts, image, *program)
        files.write(made, stamp)
    return tuple(RECIPES)
