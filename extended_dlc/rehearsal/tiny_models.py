"""Tiny models with random weights, in the form in which the Hub has the real ones.

This file is also a program, `python tiny_models.py FOLDER`, that needs torch and transformers only. The rehearsal runs
it inside the stand-in image, so that neither is wanted on the host: keep the rest of the package out of its imports.
"""

from __future__ import annotations

import hashlib
import json
import sys
from collections.abc import Iterable
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from extended_dlc.rehearsal.engine import Engine

BLOOM = "bigscience/bloom-560m"
OTHER_BLOOM = "bigscience/bloom-1b1"
"""Made like `BLOOM` from another seed: the same prompt gets another answer."""
WHISPER = "openai/whisper-base"
BERT = "textattack/bert-base-uncased-SST-2"

NAMES = (BLOOM, OTHER_BLOOM, WHISPER, BERT)
"""The Hub ids; also the folders below the one that the program is given."""

_CORPUS = (
    "hello world , my name is a tiny model and this is all that I can say .",
    "amazon sagemaker serves hugging face models behind invocations and ping .",
    "the quick brown fox jumps over the lazy dog while bloom and whisper are talking .",
    "extend the container , deploy it with one command and ask the model for an answer .",
)
_SECONDS = 30  # of audio that Whisper hears at once


def make_models(engine: Engine, image: str, folder: Path) -> tuple[str, ...]:
    """Make the models in `folder`, inside a container of `image`, unless they are there; returns their Hub ids."""
    from extended_dlc.rehearsal.engine import LABEL

    script = Path(__file__).resolve()
    recipe = hashlib.sha256(script.read_bytes() + image.encode()).hexdigest()
    made = folder / ".made"
    if not (made.exists() and made.read_text() == recipe):
        folder.mkdir(parents=True, exist_ok=True)
        mounts = (f"--volume={script}:/tiny_models.py:ro", f"--volume={folder.resolve()}:/models")
        engine.call("run", "--rm", f"--label={LABEL}=models", *mounts, image, "python", "/tiny_models.py", "/models")
        made.write_text(recipe)
    return NAMES


def main(folder: Path) -> None:
    """Make all models below a folder."""
    make_bloom(folder / BLOOM, seed=1)
    make_bloom(folder / OTHER_BLOOM, seed=3)
    make_whisper(folder / WHISPER, seed=4)
    make_bert(folder / BERT, seed=5)


def make_bloom(folder: Path, *, seed: int) -> None:
    """Make a BLOOM of 127,000 weights, for text generation."""
    processors, torch, transformers = _libraries("tokenizers.processors", "torch", "transformers")
    special = ["<unk>", "<s>", "</s>", "<pad>"]
    tokenizer = _byte_level_tokenizer(special)
    tokenizer.post_processor = processors.ByteLevel(trim_offsets=False)
    _, bos, eos, pad = (tokenizer.token_to_id(token) for token in special)
    torch.manual_seed(seed)
    model = transformers.BloomForCausalLM(
        transformers.BloomConfig(
            vocab_size=tokenizer.get_vocab_size(),
            hidden_size=64,
            n_layer=2,
            n_head=4,
            initializer_range=1.0,  # far from the usual 0.02: at that, the answer repeats the prompt's last word
            bos_token_id=bos,
            eos_token_id=eos,
            pad_token_id=pad,
        )
    )
    _say_words_only(model.transformer.word_embeddings.weight, tokenizer)
    model.save_pretrained(folder)
    tokenizer.save(str(folder / "tokenizer.json"))
    names = {"unk_token": "<unk>", "bos_token": "<s>", "eos_token": "</s>", "pad_token": "<pad>"}
    _write_json(folder / "special_tokens_map.json", names)
    _write_json(
        folder / "tokenizer_config.json",
        {**names, "tokenizer_class": "BloomTokenizerFast", "add_prefix_space": False, "padding_side": "left"},
    )


def make_whisper(folder: Path, *, seed: int) -> None:
    """Make a multilingual Whisper of 181,000 weights, with the language, task and time tokens of the real one."""
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
    # the order is a contract: generate() takes every id after `<|notimestamps|>` for a time
    tokenizer.add_special_tokens([tokenizers.AddedToken(token, special=True, normalized=False) for token in special])
    tokenizer.add_tokens([tokenizers.AddedToken(token, special=False, normalized=False) for token in times])
    number = tokenizer.token_to_id

    torch.manual_seed(seed)
    tokens = {
        "bos_token_id": number(end),
        "eos_token_id": number(end),
        "pad_token_id": number(end),
        "decoder_start_token_id": number(start),
    }
    model = transformers.WhisperForConditionalGeneration(
        transformers.WhisperConfig(
            vocab_size=tokenizer.get_vocab_size(),
            num_mel_bins=80,
            d_model=32,
            encoder_layers=2,
            decoder_layers=2,
            encoder_attention_heads=2,
            decoder_attention_heads=2,
            encoder_ffn_dim=64,
            decoder_ffn_dim=64,
            max_source_positions=_SECONDS * 50,
            max_target_positions=448,
            init_std=0.5,
            **tokens,
        )
    )
    _say_words_only(model.model.decoder.embed_tokens.weight, tokenizer)
    # random weights know no end: a transcript ends here (the real model's limit is 448)
    limit = 40
    model.generation_config = transformers.GenerationConfig(
        **tokens,
        max_length=limit,
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
    model.save_pretrained(folder)
    transformers.WhisperFeatureExtractor(feature_size=80).save_pretrained(folder)
    tokenizer.save(str(folder / "tokenizer.json"))
    # the two files of the tokenizer without the tokenizers library
    tokenizer.model.save(str(folder))
    vocabulary = {token: index for token, index in tokenizer.get_vocab().items() if index >= words}
    _write_json(folder / "added_tokens.json", dict(sorted(vocabulary.items(), key=lambda pair: pair[1])))
    _write_json(folder / "normalizer.json", {})
    names = {"bos_token": end, "eos_token": end, "unk_token": end, "pad_token": end}
    _write_json(folder / "special_tokens_map.json", {**names, "additional_special_tokens": special})
    _write_json(
        folder / "tokenizer_config.json",
        {
            **names,
            "tokenizer_class": "WhisperTokenizer",
            "processor_class": "WhisperProcessor",
            "errors": "replace",
            "add_prefix_space": False,
            "model_max_length": 1024,
        },
    )


def make_bert(folder: Path, *, seed: int) -> None:
    """Make a BERT of 27,000 weights that calls a text positive or negative."""
    tokenizers, torch, transformers = _libraries("tokenizers", "torch", "transformers")
    special = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    letters = "abcdefghijklmnopqrstuvwxyz0123456789.,;:!?'-"
    words = sorted({word for line in _CORPUS for word in line.lower().split() if len(word) > 1})
    vocabulary = [*special, *letters, *(f"##{letter}" for letter in letters), *words]
    tokenizer = tokenizers.Tokenizer(
        tokenizers.models.WordPiece({word: index for index, word in enumerate(vocabulary)}, unk_token="[UNK]")  # noqa: S106
    )
    tokenizer.normalizer = tokenizers.normalizers.BertNormalizer(lowercase=True)
    tokenizer.pre_tokenizer = tokenizers.pre_tokenizers.BertPreTokenizer()
    tokenizer.post_processor = tokenizers.processors.BertProcessing(("[SEP]", 3), ("[CLS]", 2))
    torch.manual_seed(seed)
    model = transformers.BertForSequenceClassification(
        transformers.BertConfig(
            vocab_size=len(vocabulary),
            hidden_size=32,
            num_hidden_layers=2,
            num_attention_heads=4,
            intermediate_size=64,
            max_position_embeddings=128,
            initializer_range=0.5,
            id2label={0: "NEGATIVE", 1: "POSITIVE"},
            label2id={"NEGATIVE": 0, "POSITIVE": 1},
        )
    )
    model.save_pretrained(folder)
    tokenizer.save(str(folder / "tokenizer.json"))
    (folder / "vocab.txt").write_text("\n".join([*vocabulary, ""]))
    _write_json(
        folder / "tokenizer_config.json",
        {"tokenizer_class": "BertTokenizer", "do_lower_case": True, "model_max_length": 128},
    )


def _byte_level_tokenizer(special: list[str]) -> Any:
    """A byte-level BPE tokenizer, as BLOOM and Whisper have: any text can be encoded."""
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
    """Shorten the embeddings of all tokens but the corpus's words; special and time tokens get zero.

    The embeddings are the output layer too: short rows score near zero, and some word always scores more. So greedy
    decoding gives readable text and never an end token, whatever the random weights. Bytes keep a little length,
    since they are what an unknown prompt is made of.
    """
    (torch,) = _libraries("torch")
    vocabulary = tokenizer.get_vocab()
    words = {f"Ġ{word}" for line in _CORPUS for word in line.split() if word.isalpha()}  # Ġ: a space, byte-level
    markers = [index for token, index in vocabulary.items() if len(token) > 2 and token[0] + token[-1] == "<>"]
    with torch.no_grad():
        embeddings[[index for token, index in vocabulary.items() if token not in words]] /= 100
        embeddings[markers] = 0


def _libraries(*names: str) -> tuple[Any, ...]:
    """The libraries of the image; imported late and untyped, since the host has them or not."""
    return tuple(map(import_module, names))


def _write_json(file: Path, content: dict[str, Any]) -> None:
    file.write_text(json.dumps(content, indent=2, ensure_ascii=False) + "\n")


def _arguments(arguments: Iterable[str]) -> Path:
    given = list(arguments)
    if len(given) != 1:
        sys.exit("usage: python tiny_models.py FOLDER")
    return Path(given[0])


if __name__ == "__main__":
    main(_arguments(sys.argv[1:]))
