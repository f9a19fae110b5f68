"""Whisper by another engine: CTranslate2, which faster-whisper and WhisperX run on, beside transformers.

    python benchmarks/speech_engines.py [--rounds 5] [--json FILE]

The same weights (random, of whisper-tiny's sizes), converted; one window and a batch of eight, greedy, 32 tokens. CPU
seconds of one thread, not of the clock, so that other work on the machine counts little; ratios within a round.
"""

from __future__ import annotations

import argparse
import json
import shutil
import statistics
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from candidates import IMAGE, kept_packages
from models import FOLDER, model
from ratios import spread

ENGINE = "ctranslate2==4.8.5"
TOKENS = 32
BATCHES = (1, 8)
START = ["<|startoftranscript|>", "<|en|>", "<|transcribe|>", "<|notimestamps|>"]


def engine() -> Any:
    """The module, imported from a folder with this package alone."""
    sys.path.insert(0, str(kept_packages(ENGINE, ENGINE)))
    import ctranslate2

    return ctranslate2


def converted(module: Any, source: Path) -> Path:
    """The model's weights in CTranslate2's format."""
    folder = FOLDER / f"{source.name}-{ENGINE}"
    if not folder.is_dir():
        shutil.rmtree(f"{folder}.new", ignore_errors=True)
        module.converters.TransformersConverter(str(source)).convert(f"{folder}.new", quantization="float32")
        Path(f"{folder}.new").rename(folder)
    return folder


def ours(source: Path, dtype: str, features: Any) -> Callable[[int], Any]:
    """`generate` of transformers with a padded batch, as the in-image server calls it."""
    import torch
    import transformers

    torch.set_num_threads(1)
    sys.path.insert(0, str(IMAGE))
    from extended_dlc_server.model.speech import share_what_is_heard

    made = transformers.WhisperForConditionalGeneration.from_pretrained(source, dtype=getattr(torch, dtype)).eval()
    share_what_is_heard(made)
    heard = torch.tensor(features, dtype=made.dtype)

    def run(size: int) -> Any:
        with torch.inference_mode():
            return made.generate(
                heard[:size], language="en", task="transcribe", num_beams=1, do_sample=False,
                max_new_tokens=TOKENS, min_new_tokens=TOKENS,
            )  # fmt: skip

    return run


def theirs(
    module: Any, folder: Path, precision: str, features: Any, start: Sequence[int], end: int
) -> Callable[[int], Any]:
    """The same batch with CTranslate2."""
    made = module.models.Whisper(str(folder), device="cpu", compute_type=precision, intra_threads=1, inter_threads=1)

    def run(size: int) -> Any:
        heard = module.StorageView.from_array(features[:size])
        found = made.generate(
            heard, [list(start)] * size, beam_size=1, max_length=2 * TOKENS, suppress_tokens=[end],
        )  # fmt: skip
        lengths = {len(one.sequences_ids[0]) for one in found}
        if lengths != {TOKENS}:
            raise RuntimeError(f"wrote {lengths} tokens and not {TOKENS}")
        return found

    return run


def main() -> None:
    """Measure each engine and precision, round by round."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    import numpy as np
    import transformers

    module, source = engine(), model("whisper-448")
    extractor = transformers.AutoFeatureExtractor.from_pretrained(source)
    tokenizer = transformers.AutoTokenizer.from_pretrained(source)
    noise = np.random.default_rng(1).normal(size=(max(BATCHES), 16_000 * 10)).astype(np.float32)
    features = np.asarray(
        extractor(list(noise), sampling_rate=16_000, return_tensors="np")["input_features"], np.float32
    )
    folder, start = converted(module, source), tokenizer.convert_tokens_to_ids(START)
    candidates = {
        "transformers, float32": ours(source, "float32", features),
        "transformers, bfloat16": ours(source, "bfloat16", features),
        "CTranslate2, float32": theirs(module, folder, "float32", features, start, tokenizer.eos_token_id),
        "CTranslate2, int8": theirs(module, folder, "int8", features, start, tokenizer.eos_token_id),
    }
    kept: dict[str, list[float]] = {}
    for number in range(-1, options.rounds):  # the first one warms up
        for size in BATCHES:
            for name, run in list(candidates.items())[:: 1 if number % 2 else -1]:
                began = time.process_time()
                run(size)
                if number >= 0:
                    kept.setdefault(f"{name}, {size}", []).append(time.process_time() - began)
    for size in BATCHES:
        beside = kept[f"transformers, float32, {size}"]
        for name in candidates:
            times = kept[f"{name}, {size}"]
            ratios = [one / other for one, other in zip(times, beside, strict=True)]
            took = f"{statistics.median(times):6.3f} s"
            print(f"{size} at once  {name:24} {took}  beside transformers, float32: {spread(ratios)}")
    if options.json:
        options.json.write_text(json.dumps(kept, indent=1) + "\n")


if __name__ == "__main__":
    main()
