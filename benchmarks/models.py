"""What the benchmarks ask, and whom: fixed texts, sounds made from nothing, and models with random weights."""

from __future__ import annotations

import io
import json
import math
import random
import struct
import subprocess
import sys
import wave
from pathlib import Path

from candidates import CACHE, IMAGE

FOLDER = CACHE / "benchmark-models"

GENERATE = {"max_new_tokens": 32, "min_new_tokens": 32, "do_sample": False}
"""The parameters of text generation."""

WHISPER_TINY = {
    **{"d_model": 384, "encoder_layers": 4, "decoder_layers": 4, "encoder_attention_heads": 6},
    **{"decoder_attention_heads": 6, "encoder_ffn_dim": 1536, "decoder_ffn_dim": 1536},
}

# name -> kind in tiny_models.py, and sizes in place of the tiny ones
_RECIPES: dict[str, tuple[str, dict[str, int]]] = {
    "bloom-tiny": ("bloom", {}),
    # 100 million weights, most of them in the layers: a vocabulary of 512 words costs next to nothing
    "bloom-medium": ("bloom", {"hidden_size": 832, "n_layer": 12, "n_head": 13}),
    "bert-tiny": ("bert-classifier", {"max_position_embeddings": 512}),
    "bert-medium": (
        "bert-classifier",
        {
            "hidden_size": 832,
            "num_hidden_layers": 12,
            "num_attention_heads": 13,
            "intermediate_size": 3328,
            "max_position_embeddings": 512,
        },
    ),
    "whisper-tiny": ("whisper", {}),
    # the sizes of openai/whisper-tiny, which has 39 million weights with its larger vocabulary
    "whisper-medium": ("whisper", WHISPER_TINY),
    # and its number of positions
    "whisper-448": ("whisper", {**WHISPER_TINY, "max_target_positions": 448}),
}


def model(name: str) -> Path:
    """The model's folder, made once."""
    folder = FOLDER / name
    if not (folder / "made").is_file():
        kind, sizes = _RECIPES[name]
        subprocess.run([sys.executable, IMAGE / "tiny_models.py", FOLDER, f"{kind}:1={name}"], check=True)
        if sizes:
            _grow(folder, sizes)
        (folder / "made").touch()
    return folder


def precision(name: str) -> str:
    """The precision that our server chooses for a model on this CPU."""
    sys.path.insert(0, str(IMAGE))
    from extended_dlc_server.machine.cpu import multiplies_bfloat16
    from extended_dlc_server.machine.devices import AUTO, choose_devices

    size = (model(name) / "model.safetensors").stat().st_size
    cpu = multiplies_bfloat16()
    return choose_devices(
        (), size=size, stored="float32", configured=AUTO, has_accelerate=False, cpu_multiplies_bfloat16=cpu
    ).dtype


def _grow(folder: Path, sizes: dict[str, int]) -> None:
    """The same kind of model in another size, with its tokenizer as it is."""
    import torch
    import transformers

    config = transformers.AutoConfig.from_pretrained(folder)
    config.update({**sizes, "initializer_range": 0.02, "init_std": 0.02})
    torch.manual_seed(1)
    grown = getattr(transformers, config.architectures[0])(config)
    if (folder / "generation_config.json").is_file():
        grown.generation_config = transformers.GenerationConfig.from_pretrained(folder)
    grown.save_pretrained(folder)
    (folder / "pytorch_model.bin").unlink()  # the tiny model's


def texts(tokens: int) -> list[str]:
    """Sixteen texts of so many tokens each (8, 32, 128); models of BERT's kind add two of their own."""
    fixed: dict[str, list[str]] = json.loads((Path(__file__).parent / "inputs" / "texts.json").read_text())
    return fixed[str(tokens)]


def sound(seconds: int) -> bytes:
    """A WAV file, 16 kHz, mono: a tone that wanders, and some noise. The same bytes on every machine."""
    rate = 16_000
    noise = random.Random(seconds)
    phase, samples = 0.0, []
    for index in range(seconds * rate):
        phase += 2 * math.pi * (220 + 200 * math.sin(index / rate)) / rate
        samples.append(int(8000 * math.sin(phase)) + noise.randrange(-500, 500))
    file = io.BytesIO()
    with wave.open(file, "wb") as audio:
        audio.setnchannels(1)
        audio.setsampwidth(2)
        audio.setframerate(rate)
        audio.writeframes(struct.pack(f"<{len(samples)}h", *samples))
    return file.getvalue()


def sound_file(seconds: int) -> Path:
    """The path of a file with these bytes."""
    FOLDER.mkdir(parents=True, exist_ok=True)
    file = FOLDER / f"{seconds}s.wav"
    if not file.is_file():
        file.write_bytes(sound(seconds))
    return file
