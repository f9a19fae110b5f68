"""Tiny random models with tokenizers, made on the spot: the proof and the tests ask them, no download needed.

The files are in the layouts that transformers 4.46 and 5.x both read.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

SPECIALS = ("<unk>", "<s>", "</s>", "<pad>")
WHISPER_SPECIALS = (
    *("<|endoftext|>", "<|startoftranscript|>", "<|en|>", "<|de|>", "<|translate|>", "<|transcribe|>"),
    *("<|startoflm|>", "<|startofprev|>", "<|nospeech|>", "<|notimestamps|>"),
)
SEED = 0


def make_bloom(folder: Path) -> None:
    """A text generator."""
    from transformers import BloomConfig, BloomForCausalLM

    tokenizer = _byte_level(SPECIALS)
    _seed()
    config = BloomConfig(vocab_size=tokenizer.get_vocab_size(), **_BLOOM)
    BloomForCausalLM(config).save_pretrained(folder)
    _save_tokenizer(tokenizer, folder, "BloomTokenizerFast", dict(zip(_ROLES, SPECIALS, strict=True)))


def make_bloom_classifier(folder: Path) -> None:
    """A text classifier that shares BLOOM's code."""
    from transformers import BloomConfig, BloomForSequenceClassification

    tokenizer = _byte_level(SPECIALS)
    _seed()
    config = BloomConfig(
        vocab_size=tokenizer.get_vocab_size(),
        **_BLOOM,
        **_LABELS,
    )
    BloomForSequenceClassification(config).save_pretrained(folder)
    _save_tokenizer(tokenizer, folder, "BloomTokenizerFast", dict(zip(_ROLES, SPECIALS, strict=True)))


def make_bert_classifier(folder: Path) -> None:
    """A text classifier that takes at most 64 tokens."""
    from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors
    from transformers import BertConfig, BertForSequenceClassification

    letters = "abcdefghijklmnopqrstuvwxyz"
    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *letters, *(f"##{letter}" for letter in letters)]
    vocabulary = {word: number for number, word in enumerate(words)}
    tokenizer = Tokenizer(models.WordPiece(vocabulary, unk_token="[UNK]"))  # noqa: S106 - no password
    tokenizer.normalizer = normalizers.BertNormalizer()
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.post_processor = processors.BertProcessing(("[SEP]", 3), ("[CLS]", 2))
    _seed()
    config = BertConfig(
        vocab_size=len(words),
        hidden_size=32,
        num_hidden_layers=2,
        num_attention_heads=4,
        intermediate_size=64,
        max_position_embeddings=64,
        **_LABELS,
    )
    BertForSequenceClassification(config).save_pretrained(folder)
    (folder / "vocab.txt").write_text("\n".join(words) + "\n")
    roles = {"pad_token": "[PAD]", "unk_token": "[UNK]", "cls_token": "[CLS]", "sep_token": "[SEP]"}
    _save_tokenizer(tokenizer, folder, "BertTokenizerFast", {**roles, "mask_token": "[MASK]"})


def make_whisper(folder: Path) -> None:
    """A speech recogniser with languages and timestamps, as the multilingual Whisper releases have them."""
    from transformers import (
        GenerationConfig,
        WhisperConfig,
        WhisperFeatureExtractor,
        WhisperForConditionalGeneration,
    )

    tokenizer = _byte_level(())
    letters = tokenizer.get_vocab_size()
    stamps = [f"<|{number * 0.02:.2f}|>" for number in range(1501)]
    tokenizer.add_special_tokens(list(WHISPER_SPECIALS))
    tokenizer.add_tokens(stamps)
    number = {token: letters + index for index, token in enumerate((*WHISPER_SPECIALS, *stamps))}
    end, start = number["<|endoftext|>"], number["<|startoftranscript|>"]
    unwanted = [number[token] for token in WHISPER_SPECIALS if number[token] != end]
    roles = {"bos_token_id": end, "eos_token_id": end, "pad_token_id": end, "decoder_start_token_id": start}
    size = letters + len(number)
    _seed()
    model = WhisperForConditionalGeneration(
        WhisperConfig(
            vocab_size=size,
            d_model=16,
            encoder_layers=2,
            decoder_layers=2,
            encoder_attention_heads=2,
            decoder_attention_heads=2,
            encoder_ffn_dim=32,
            decoder_ffn_dim=32,
            **roles,
        )
    )
    model.generation_config = GenerationConfig(
        **roles,
        # the pipeline's own default is 256 tokens and five beams
        max_new_tokens=16,
        begin_suppress_tokens=[end],
        suppress_tokens=unwanted,
        no_timestamps_token_id=number["<|notimestamps|>"],
        prev_sot_token_id=number["<|startofprev|>"],
        is_multilingual=True,
        lang_to_id={"<|en|>": number["<|en|>"], "<|de|>": number["<|de|>"]},
        task_to_id={"transcribe": number["<|transcribe|>"], "translate": number["<|translate|>"]},
        alignment_heads=[[0, 0], [1, 1]],
        max_initial_timestamp_index=50,
    )
    model.save_pretrained(folder)
    WhisperFeatureExtractor(feature_size=80).save_pretrained(folder)
    vocabulary = {token: index for token, index in tokenizer.get_vocab().items() if index <= end}
    (folder / "vocab.json").write_text(json.dumps(vocabulary))
    (folder / "merges.txt").write_text("#version: 0.2\n")
    _save_tokenizer(
        tokenizer,
        folder,
        "WhisperTokenizerFast",
        dict.fromkeys(("bos_token", "eos_token", "pad_token", "unk_token"), "<|endoftext|>"),
    )


MAKERS: Mapping[str, Callable[[Path], None]] = {
    "bloom": make_bloom,
    "bloom-classifier": make_bloom_classifier,
    "bert-classifier": make_bert_classifier,
    "whisper": make_whisper,
}
"""Name -> what writes the model's files into an existing folder."""

_ROLES = ("unk_token", "bos_token", "eos_token", "pad_token")
_BLOOM: dict[str, Any] = {
    **{"hidden_size": 32, "n_layer": 2, "n_head": 4},
    **{"unk_token_id": 0, "bos_token_id": 1, "eos_token_id": 2, "pad_token_id": 3},
}
_LABELS: dict[str, Any] = {
    "id2label": {0: "NEGATIVE", 1: "POSITIVE"},
    "label2id": {"NEGATIVE": 0, "POSITIVE": 1},
}


def _byte_level(specials: tuple[str, ...]) -> Any:
    """A tokenizer whose tokens are single bytes, which needs no training."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers

    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    vocabulary = {token: number for number, token in enumerate((*specials, *alphabet))}
    tokenizer = Tokenizer(models.BPE(vocabulary, []))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    if specials:
        tokenizer.add_special_tokens(list(specials))
    return tokenizer


def _save_tokenizer(tokenizer: Any, folder: Path, kind: str, roles: dict[str, str]) -> None:
    tokenizer.save(str(folder / "tokenizer.json"))
    (folder / "special_tokens_map.json").write_text(json.dumps(roles))
    (folder / "tokenizer_config.json").write_text(json.dumps({"tokenizer_class": kind, **roles}, indent=1))


def _seed() -> None:
    import torch

    torch.manual_seed(SEED)


def main(folder: Path) -> None:
    """Make all of them, each in a folder of its own name."""
    for name, make in MAKERS.items():
        (folder / name).mkdir(parents=True)
        make(folder / name)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
