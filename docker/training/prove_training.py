"""The training image's last build step: tests the image, then compiles what its test has imported. Runs on Python 3.10.

    python prove_training.py 5.24.0 bloom,whisper

Every failed check is printed with what to change; the build then fails.
"""

from __future__ import annotations

import importlib
import importlib.util
import json
import os
import re
import shutil
import sys
import tempfile
import traceback
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import install
import prove
from bytecode import compile_modules

PACKAGES = ("accelerate", "datasets", "evaluate", "jiwer", "peft", "soundfile", "trl")

OWN = install.HERE.parent / "training"
"""The folder of the module that the toolkit calls."""

MODELS = {"bert": "bert-classifier", "bloom": "bloom", "whisper": "whisper", "smollm3": "smollm3"}
"""Model type -> kind in `tiny_models.py`, for the types that can be tested without a download."""


def packages_can_be_imported() -> Iterator[str]:
    """Check that the packages of training scripts can be imported with this transformers."""
    for name in PACKAGES:
        try:
            importlib.import_module(name)
        except Exception as error:
            yield (
                f"{name} cannot be imported with this transformers ({type(error).__name__}: {error}): choose a newer "
                "release, or a newer base"
            )
    try:
        from trl import SFTTrainer  # noqa: F401 - trl imports its classes lazily
    except Exception as error:
        yield f"trl has no SFTTrainer with this transformers ({type(error).__name__}: {error}): choose a newer release"


def the_entry_point_is_still_there() -> Iterator[str]:
    """Check `train`, which SageMaker starts and the toolkit installs, and the modules that it imports."""
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", os.defpath)])
    if shutil.which("train", path=path) is None:
        yield f"the program 'train' of {install.TRAINING_TOOLKIT} is gone from the path: choose another base"
    for name in ("sagemaker_training.trainer", os.environ.get("SAGEMAKER_TRAINING_MODULE", "").partition(":")[0]):
        try:
            importlib.import_module(name or "extended_dlc_training")
        except Exception as error:
            yield f"{name} cannot be imported ({type(error).__name__}: {error}): choose another base"
    base = os.environ.get("EXTENDED_DLC_BASE_TRAINING_MODULE", "").partition(":")[0]
    if base and importlib.util.find_spec(base) is None:
        yield f"the base's own training module {base} is gone: choose another base, or another release"


def tiny_models_learn(folder: Path) -> Iterator[str]:
    """Check that one step of the Trainer changes the weights of each tiny random model and saves them."""
    for made in sorted(folder.iterdir()):
        try:
            train_one_step(made, made / "trained")
        except Exception as error:
            traceback.print_exc()
            yield f"a tiny {made.name} cannot be trained ({error}): this pair of base and transformers does not work"


def train_one_step(source: Path, target: Path) -> None:
    """Train a model of `tiny_models.py` for one step; raise `RuntimeError` if its weights stay the same."""
    import torch
    from transformers import Trainer, TrainingArguments

    model, example = _load(source)
    before = [parameter.detach().clone() for parameter in model.parameters()]
    arguments = TrainingArguments(
        output_dir=str(target),
        max_steps=1,
        per_device_train_batch_size=2,
        learning_rate=0.01,
        report_to=[],
        save_strategy="no",
        use_cpu=True,
        remove_unused_columns=False,
        disable_tqdm=True,
    )
    trainer = Trainer(model=model, args=arguments, train_dataset=[example, example])
    trainer.train()
    trainer.save_model()
    if not any(not torch.equal(old, new) for old, new in zip(before, model.parameters(), strict=True)):
        raise RuntimeError("its weights are the same after a step")


def _load(source: Path) -> tuple[Any, dict[str, Any]]:
    """Load a model, and return it with one training example."""
    import torch
    import transformers

    configuration = transformers.AutoConfig.from_pretrained(source)
    if configuration.model_type == "whisper":
        model = transformers.WhisperForConditionalGeneration.from_pretrained(source)
        return model, {"input_features": torch.zeros(80, 3000), "labels": torch.tensor([1, 2, 3])}
    tokenizer = transformers.AutoTokenizer.from_pretrained(source)
    tokens = torch.tensor(tokenizer("hello world , my name is")["input_ids"])
    if configuration.architectures[0].endswith("ForSequenceClassification"):
        model = transformers.AutoModelForSequenceClassification.from_pretrained(source)
        return model, {"input_ids": tokens, "labels": torch.tensor(1)}
    model = transformers.AutoModelForCausalLM.from_pretrained(source)
    return model, {"input_ids": tokens, "labels": tokens.clone()}


def _orders(model_types: str) -> list[str]:
    """Return the tiny models of the requested types, or if there are none, one of each common kind."""
    from transformers.models.auto.configuration_auto import CONFIG_MAPPING

    asked = [kind for name in model_types.split(",") if (kind := MODELS.get(name)) and name in CONFIG_MAPPING]
    return [f"{kind}:1={kind}" for kind in asked or ("bert-classifier", "bloom", "whisper")]


def main(asked: str, model_types: str = "") -> None:
    """Run the checks, or exit saying what to change."""
    record = json.loads(install.RECORD.read_text())
    before: dict[str, str] = record["installed"]
    with tempfile.TemporaryDirectory() as folder:
        if not prove.runs(str(install.HERE / "tiny_models.py"), folder, *_orders(model_types)):
            sys.exit(
                "the tiny models for the proof cannot be made (see above): this pair of base and transformers fails"
            )
        problems = [
            *prove.transformers_is_the_promised_one(asked),
            *prove.the_base_keeps_its_torch(before),
            *prove.pip_has_no_new_complaints(record["complaints"]),
            *prove.model_types_are_known(asked, model_types),
            *packages_can_be_imported(),
            *the_entry_point_is_still_there(),
            *tiny_models_learn(Path(folder)),
        ]
        if not problems:
            # the layer is installed without bytecode, and a container can often not write any: without this, each
            # process of a training would compile the packages anew
            compile_modules(prove.start_up(before, OWN))
            checks = f"[*p.packages_can_be_imported(), *p.tiny_models_learn(p.Path({folder!r}))]"
            again = f"import sys, prove_training as p; sys.exit(any({checks}))"
            if not prove.runs("-c", again):
                problems.append("the bytecode that was written does not work (see above): report it to the project")
    problems += prove.neighbours_can_be_imported(before)
    if problems:
        sys.exit("\nthe image does not keep its promises:\n  " + "\n  ".join(problems))
    print(f"proved: transformers {asked} trains on torch {before['torch']}, model types: {model_types or 'none asked'}")


if __name__ == "__main__":
    main(sys.argv[1], re.sub(r"\s", "", sys.argv[2]) if len(sys.argv) > 2 else "")
