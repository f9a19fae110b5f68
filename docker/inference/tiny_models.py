"""Creates tiny models with random weights and the files of real Hub repositories, without a download.

    python tiny_models.py FOLDER                                  one of each kind, each in a folder of its kind's name
    python tiny_models.py FOLDER bloom:1=bigscience/bloom-560m …   KIND:SEED=PATH, only these

The image's last build step and the tests use them, and the rehearsal serves them in place of the Hub. The program needs
torch and transformers 4.20 or newer, and runs on Python 3.8, which the oldest base images have. It uses only the parts
of transformers that a kind needs. Old releases (from 4.17) and new ones can read its files.
"""

from __future__ import annotations

import json
import sys
from importlib import import_module
from pathlib import Path
from typing import Any

_CORPUS = (
    "hello world , my name is a tiny model and this is all that I can say .",
    "amazon sagemaker serves hugging face models behind invocations and ping .",
    "the quick brown fox jumps over the lazy dog while bloom and whisper are talking .",
    "extend the container , deploy it with one command and ask the model for an answer .",
)
_SECONDS = 30  # Whisper's audio window
_LABELS = {"id2label": {0: "NEGATIVE", 1: "POSITIVE"}, "label2id": {"NEGATIVE": 0, "POSITIVE": 1}}
_ROLES = {"unk_token": "<unk>", "bos_token": "<s>", "eos_token": "</s>", "pad_token": "<pad>"}


def make_bloom(folder: Path, seed: int) -> None:
    """A text generator of 127,000 weights."""
    torch, transformers = _libraries("torch", "transformers")
    tokenizer = _text_tokenizer()
    torch.manual_seed(seed)
    model = transformers.BloomForCausalLM(_bloom_config(tokenizer))
    _say_words_only(model.transformer.word_embeddings.weight, tokenizer)
    _save_model(model, folder)
    _save_tokenizer(tokenizer, folder, {"tokenizer_class": "BloomTokenizerFast", "padding_side": "left"})


def make_bloom_classifier(folder: Path, seed: int) -> None:
    """A text classifier that shares BLOOM's code."""
    torch, transformers = _libraries("torch", "transformers")
    tokenizer = _text_tokenizer()
    torch.manual_seed(seed)
    _save_model(transformers.BloomForSequenceClassification(_bloom_config(tokenizer, **_LABELS)), folder)
    _save_tokenizer(tokenizer, folder, {"tokenizer_class": "BloomTokenizerFast", "padding_side": "left"})


def make_smollm3(folder: Path, seed: int) -> None:
    """A text generator of a type that transformers knows from 4.53.0 on, created with any release that has Llama.

    Its weights have Llama's names and shapes; only the configuration differs.
    """
    torch, transformers = _libraries("torch", "transformers")
    tokenizer = _text_tokenizer()
    numbers = {f"{role}_id": tokenizer.token_to_id(_ROLES[role]) for role in ("bos_token", "eos_token", "pad_token")}
    sizes = {"vocab_size": tokenizer.get_vocab_size(), "hidden_size": 64, "intermediate_size": 128}
    layers = {"num_hidden_layers": 2, "num_attention_heads": 4, "num_key_value_heads": 2}
    torch.manual_seed(seed)
    config = transformers.LlamaConfig(**sizes, **layers, **numbers, tie_word_embeddings=True, initializer_range=0.5)
    model = transformers.LlamaForCausalLM(config)
    _say_words_only(model.model.embed_tokens.weight, tokenizer)
    _save_model(model, folder)
    changes = {"model_type": "smollm3", "architectures": ["SmolLM3ForCausalLM"], "no_rope_layers": [1, 0]}
    _write_json(folder / "config.json", {**json.loads((folder / "config.json").read_text()), **changes})
    _save_tokenizer(tokenizer, folder, {"tokenizer_class": "PreTrainedTokenizerFast"})


def make_whisper(folder: Path, seed: int) -> None:
    """A multilingual Whisper of 181,000 weights, with the language, task and time tokens of the real one."""
    tokenizers, torch, transformers, whisper = _libraries(
        "tokenizers", "torch", "transformers", "transformers.models.whisper.tokenization_whisper"
    )
    languages = [f"<|{code}|>" for code in whisper.LANGUAGES]
    tasks = ["<|translate|>", "<|transcribe|>"]
    end, start, unspoken, previous = "<|endoftext|>", "<|startoftranscript|>", "<|notimestamps|>", "<|startofprev|>"
    special = [end, start, *languages, *tasks, "<|startoflm|>", previous, "<|nospeech|>", unspoken]
    times = [f"<|{step * 0.02:.2f}|>" for step in range(_SECONDS * 50 + 1)]
    tokenizer = _byte_level_tokenizer([])
    words = tokenizer.get_vocab_size()
    # The order matters: generate() treats every token id after `<|notimestamps|>` as a timestamp.
    tokenizer.add_special_tokens([tokenizers.AddedToken(token, special=True, normalized=False) for token in special])
    tokenizer.add_tokens([tokenizers.AddedToken(token, special=False, normalized=False) for token in times])
    number = tokenizer.token_to_id
    roles = ("bos_token", "eos_token", "pad_token")
    tokens = {**{f"{role}_id": number(end) for role in roles}, "decoder_start_token_id": number(start)}
    sizes = {"vocab_size": tokenizer.get_vocab_size(), "num_mel_bins": 80, "d_model": 32}
    lengths = {"max_source_positions": _SECONDS * 50, "max_target_positions": 448}
    each = {"layers": 2, "attention_heads": 2, "ffn_dim": 64}
    halves = {f"{half}_{name}": value for half in ("encoder", "decoder") for name, value in each.items()}
    torch.manual_seed(seed)
    config = transformers.WhisperConfig(**sizes, **halves, **lengths, init_std=0.5, **tokens)
    model = transformers.WhisperForConditionalGeneration(config)
    _say_words_only(model.model.decoder.embed_tokens.weight, tokenizer)
    model.generation_config = transformers.GenerationConfig(
        **tokens,
        max_length=40,  # random weights generate no end token, so stop here (the real model's limit is 448)
        begin_suppress_tokens=[number(end)],
        suppress_tokens=[number(token) for token in special[1:] if token != unspoken],
        is_multilingual=True,
        lang_to_id={token: number(token) for token in languages},
        task_to_id={token.strip("<|>"): number(token) for token in tasks},
        no_timestamps_token_id=number(unspoken),
        prev_sot_token_id=number(previous),
        max_initial_timestamp_index=50,
        alignment_heads=[[0, 0], [1, 1]],
        return_timestamps=False,
    )
    _save_model(model, folder)
    transformers.WhisperFeatureExtractor(feature_size=80).save_pretrained(folder)
    # the files of the slow tokenizer, which does not use the tokenizers library
    tokenizer.model.save(str(folder))
    vocabulary = {token: index for token, index in tokenizer.get_vocab().items() if index >= words}
    _write_json(folder / "added_tokens.json", dict(sorted(vocabulary.items(), key=lambda pair: pair[1])))
    _write_json(folder / "normalizer.json", {})
    names = dict.fromkeys(("bos_token", "eos_token", "unk_token", "pad_token"), end)
    kinds = {"tokenizer_class": "WhisperTokenizer", "processor_class": "WhisperProcessor", "errors": "replace"}
    _save_tokenizer(tokenizer, folder, {**kinds, "model_max_length": 1024}, names, special)


def make_bert_classifier(folder: Path, seed: int) -> None:
    """A BERT text classifier of 25,000 weights with the labels positive and negative, for at most 64 tokens."""
    torch, transformers = _libraries("torch", "transformers")
    vocabulary = _save_word_pieces(folder, "BertTokenizer")
    sizes = {"vocab_size": len(vocabulary), "hidden_size": 32, "intermediate_size": 64, "max_position_embeddings": 64}
    layers = {"num_hidden_layers": 2, "num_attention_heads": 4}
    torch.manual_seed(seed)
    config = transformers.BertConfig(**sizes, **layers, **_LABELS, initializer_range=0.5)
    _save_model(transformers.BertForSequenceClassification(config), folder)


def _save_word_pieces(folder: Path, tokenizer_class: str) -> list[str]:
    """Save a tokenizer like BERT's; return its vocabulary."""
    (tokenizers,) = _libraries("tokenizers")
    special = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    letters = "abcdefghijklmnopqrstuvwxyz0123456789.,;:!?'-"
    words = sorted({word for line in _CORPUS for word in line.lower().split() if len(word) > 1})
    vocabulary = [*special, *letters, *(f"##{letter}" for letter in letters), *words]
    numbers = {word: index for index, word in enumerate(vocabulary)}
    tokenizer = tokenizers.Tokenizer(tokenizers.models.WordPiece(numbers, unk_token="[UNK]"))  # noqa: S106 - no secret
    tokenizer.normalizer = tokenizers.normalizers.BertNormalizer(lowercase=True)
    tokenizer.pre_tokenizer = tokenizers.pre_tokenizers.BertPreTokenizer()
    tokenizer.post_processor = tokenizers.processors.BertProcessing(("[SEP]", 3), ("[CLS]", 2))
    (folder / "vocab.txt").write_text("\n".join([*vocabulary, ""]))
    names = {f"{token.strip('[]').lower()}_token": token for token in special}
    settings = {"tokenizer_class": tokenizer_class, "do_lower_case": True, "model_max_length": 64}
    _save_tokenizer(tokenizer, folder, settings, names)
    return vocabulary


MAKERS = {
    "bloom": make_bloom,
    "bloom-classifier": make_bloom_classifier,
    "bert-classifier": make_bert_classifier,
    "whisper": make_whisper,
}
"""Kind -> function that writes such a model into an existing folder; every release from 4.46 on can read these."""

_LATER = {"smollm3": make_smollm3}


def _bloom_config(tokenizer: Any, **more: Any) -> Any:
    (transformers,) = _libraries("transformers")
    numbers = {f"{role}_id": tokenizer.token_to_id(_ROLES[role]) for role in ("bos_token", "eos_token", "pad_token")}
    sizes = {"vocab_size": tokenizer.get_vocab_size(), "hidden_size": 64, "n_layer": 2, "n_head": 4}
    # 1.0 instead of the usual 0.02, with which the output repeats the last word of the prompt.
    return transformers.BloomConfig(**sizes, **numbers, initializer_range=1.0, **more)


def _text_tokenizer() -> Any:
    (processors,) = _libraries("tokenizers.processors")
    tokenizer = _byte_level_tokenizer(list(_ROLES.values()))
    tokenizer.post_processor = processors.ByteLevel(trim_offsets=False)
    return tokenizer


def _byte_level_tokenizer(special: list[str]) -> Any:
    """Return a byte-level BPE tokenizer, as BLOOM and Whisper have: it can encode any text."""
    (tokenizers,) = _libraries("tokenizers")
    tokenizer = tokenizers.Tokenizer(tokenizers.models.BPE())
    tokenizer.pre_tokenizer = tokenizers.pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = tokenizers.decoders.ByteLevel()
    alphabet = sorted(tokenizers.pre_tokenizers.ByteLevel.alphabet())
    trainer = tokenizers.trainers.BpeTrainer(
        vocab_size=512, special_tokens=special, initial_alphabet=alphabet, show_progress=False
    )
    tokenizer.train_from_iterator(_CORPUS, trainer)
    return tokenizer


def _say_words_only(embeddings: Any, tokenizer: Any) -> None:
    """Scale down the embeddings of all tokens except the corpus's words; special and timestamp tokens get zero.

    The embeddings are tied to the output layer: small rows have logits near zero, and some word always has a higher
    one. So greedy decoding gives readable text and never an end token, for any random weights. The byte tokens are not
    zero, because unknown prompts consist of them.
    """
    (torch,) = _libraries("torch")
    vocabulary = tokenizer.get_vocab()
    words = {f"Ġ{word}" for line in _CORPUS for word in line.split() if word.isalpha()}  # Ġ: a space, byte-level
    markers = [index for token, index in vocabulary.items() if len(token) > 2 and token[0] + token[-1] == "<>"]
    with torch.no_grad():
        embeddings[[index for token, index in vocabulary.items() if token not in words]] /= 100
        embeddings[markers] = 0


def _save_model(model: Any, folder: Path) -> None:
    """Save the weights in two formats, like Hub repositories of 2022: releases before 4.25 read pytorch_model.bin."""
    (torch,) = _libraries("torch")
    model.save_pretrained(folder)
    torch.save(model.state_dict(), folder / "pytorch_model.bin")


def _save_tokenizer(
    tokenizer: Any,
    folder: Path,
    settings: dict[str, Any],
    names: dict[str, str] | None = None,
    special: list[str] | None = None,
) -> None:
    names = _ROLES if names is None else names
    content = json.loads(tokenizer.to_str())
    if "merges" in content["model"]:
        # Newer releases of tokenizers write merges as pairs, which older ones cannot read; both read strings.
        merges = [pair if isinstance(pair, str) else " ".join(pair) for pair in content["model"]["merges"]]
        content["model"]["merges"] = merges
    _write_json(folder / "tokenizer.json", content)
    _write_json(
        folder / "special_tokens_map.json", {**names, **({"additional_special_tokens": special} if special else {})}
    )
    _write_json(folder / "tokenizer_config.json", {**names, "add_prefix_space": False, **settings})


def _libraries(*names: str) -> tuple[Any, ...]:
    """Import libraries of the image, late and untyped, because a developer's machine may lack them."""
    return tuple(map(import_module, names))


def _write_json(file: Path, content: dict[str, Any]) -> None:
    file.write_text(json.dumps(content, indent=2, ensure_ascii=False) + "\n")


def main(folder: Path, *wanted: str) -> None:
    """Create the models given as `KIND:SEED=PATH`, or one of each kind."""
    for one in wanted or [f"{kind}:1={kind}" for kind in MAKERS]:
        recipe, _, path = one.partition("=")
        kind, _, seed = recipe.partition(":")
        (folder / path).mkdir(parents=True, exist_ok=True)
        {**MAKERS, **_LATER}[kind](folder / path, int(seed))


if __name__ == "__main__":
    if len(sys.argv) < 2:
        sys.exit("usage: python tiny_models.py FOLDER [KIND:SEED=PATH ...]")
    main(Path(sys.argv[1]), *sys.argv[2:])
