"""Tiny sentence-transformers repositories, and the vectors that sentence-transformers itself makes with them.

python make_sentence_models.py FOLDER [REPOSITORY …]     with sentence-transformers on the path

Writes FOLDER/NAME for each form, and FOLDER/reference.json: for each name (and each further repository, by its path) a
list of texts, parameters of a request, and vectors. Each further repository is asked in its own form.
"""

from __future__ import annotations

import json
import shutil
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[2] / "docker" / "inference"))

import tiny_models
import torch
import transformers
from sentence_transformers import CrossEncoder, SentenceTransformer
from sentence_transformers.sentence_transformer import modules

LAYERS = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 64}
TEXTS = [
    "hello",
    "The quick brown FOX jumps over the lazy dog while bloom and whisper are talking.",
    "Grüße, 42!",
    "amazon sagemaker serves hugging face models",
    "a",
]
PROMPTS = {"query": "find this: ", "document": "the text: ", "none": ""}


def make_bert(folder: Path) -> None:
    """BERT of 64 positions."""
    words = tiny_models._save_word_pieces(folder, "BertTokenizer")
    config = transformers.BertConfig(**LAYERS, vocab_size=len(words), max_position_embeddings=64, initializer_range=0.5)
    transformers.BertModel(config).save_pretrained(folder)


def _bytes(folder: Path, **more: object) -> dict[str, int]:
    """A byte-level tokenizer, and the settings of a configuration that follow from it."""
    tokenizer = tiny_models._text_tokenizer()
    settings = {"tokenizer_class": "PreTrainedTokenizerFast", "model_input_names": ["input_ids", "attention_mask"]}
    tiny_models._save_tokenizer(tokenizer, folder, {**settings, "model_max_length": 60, **more})
    roles = {f"{role}_id": tokenizer.token_to_id(tiny_models._ROLES[role]) for role in ("bos_token", "pad_token")}
    return {"vocab_size": tokenizer.get_vocab_size(), **roles, "eos_token_id": 2}


def make_roberta(folder: Path) -> None:
    """RoBERTa, whose positions begin behind the padding token's number."""
    config = transformers.RobertaConfig(
        **LAYERS, **_bytes(folder), max_position_embeddings=66, type_vocab_size=1, initializer_range=0.5
    )
    transformers.RobertaModel(config).save_pretrained(folder)


def make_llama(folder: Path) -> None:
    """A decoder, padded on the left."""
    config = transformers.LlamaConfig(**LAYERS, **_bytes(folder, padding_side="left"), initializer_range=0.5)
    transformers.LlamaModel(config).save_pretrained(folder)


def make_gpt2(folder: Path) -> None:
    """A model that counts its positions from the padding on the left: in a batch it answers differently."""
    sizes = {"n_embd": 32, "n_layer": 2, "n_head": 2, "n_positions": 64}
    config = transformers.GPT2Config(**sizes, **_bytes(folder, padding_side="left"), initializer_range=0.5)
    transformers.GPT2Model(config).save_pretrained(folder)


def make_t5(folder: Path) -> None:
    """The encoder of an encoder-decoder model."""
    sizes = {"d_model": 32, "d_kv": 16, "d_ff": 64, "num_layers": 2, "num_heads": 2}
    config = transformers.T5Config(**sizes, **_bytes(folder), initializer_factor=3.0)
    transformers.T5EncoderModel(config).save_pretrained(folder)


def pooled(mode: object, **options: object) -> list[torch.nn.Module]:
    """A pooling of token vectors with 32 numbers."""
    return [modules.Pooling(32, mode, **options)]


def forms() -> dict[str, tuple[object, list[torch.nn.Module], dict[str, object]]]:
    """Name -> the function that makes the model, the modules after it, and options of SentenceTransformer."""
    three = ("cls", "max", "weightedmean")
    residual = modules.Dense(16, 8, activation_function=torch.nn.GELU(), use_residual=True)
    prompts = {"prompts": PROMPTS}
    return {
        **{mode: (make_bert, pooled(mode), {}) for mode in modules.Pooling.POOLING_MODES},
        **{
            f"left-{mode}": (make_llama, pooled(mode), prompts) for mode in ("cls", "weightedmean", "lasttoken", "mean")
        },
        "joined": (make_bert, [*pooled(three), modules.Normalize()], {}),
        "dense": (make_bert, [*pooled("mean"), modules.Dense(32, 16), residual, modules.Normalize()], {}),
        "identity": (
            make_roberta,
            [*pooled("cls"), modules.Dense(32, 12, bias=False, activation_function=torch.nn.Identity())],
            {},
        ),
        "norm": (make_roberta, [*pooled("mean"), modules.LayerNorm(32), modules.Dropout(0.5)], {}),
        "of-tokens": (
            make_bert,
            [modules.Dense(32, 32, module_input_name="token_embeddings"), *pooled("max"), modules.Normalize()],
            {},
        ),
        "without-prompt": (make_bert, pooled(("mean", "cls"), include_prompt=False), prompts),
        "without-prompt-left": (make_llama, pooled(("mean", "lasttoken"), include_prompt=False), prompts),
        "default-prompt": (make_bert, pooled("mean"), {**prompts, "default_prompt_name": "query"}),
        "short": (make_bert, pooled("mean"), {"max_seq_length": 8}),
        "lower": (make_roberta, pooled("mean"), {"do_lower_case": True}),
        "minds-padding": (make_gpt2, pooled("mean"), {}),
        "t5": (make_t5, [*pooled("mean"), modules.Normalize()], {}),
    }


def cases(model: SentenceTransformer, name: str) -> list[dict[str, object]]:
    """Texts and parameters, with the vectors of sentence-transformers."""
    asked: list[tuple[dict[str, object], dict[str, object]]] = [
        ({}, {}),
        ({"normalize": True}, {"normalize_embeddings": True}),
        ({"dimensions": 8, "normalize": True}, {"truncate_dim": 8, "normalize_embeddings": True}),
    ]
    if "prompt" in name or name.startswith("left"):
        asked.append(({"prompt_name": "document"}, {"prompt_name": "document"}))
    asked.append(({"prompt": "about this: "}, {"prompt": "about this: "}))
    return [
        {
            "texts": TEXTS,
            "parameters": ours,
            # one by one, because padding would change the reference
            "vectors": [model.encode(text, **theirs).tolist() for text in TEXTS],
        }
        for ours, theirs in asked
    ]


def cross_encoders(folder: Path) -> dict[str, list[float]]:
    """Name -> scores of the texts for the first of them, by cross-encoders of the several activations."""
    identity, scores = torch.nn.Identity(), {}
    for name, activation in {"scored": None, "scored-raw": identity, "scored-raw-old": identity}.items():
        torch.manual_seed(len(name))
        target = folder / f"model-of-{name}"
        target.mkdir()
        words = tiny_models._save_word_pieces(target, "BertTokenizer")
        sizes = {"vocab_size": len(words), "max_position_embeddings": 64, "num_labels": 1}
        config = transformers.BertConfig(**LAYERS, **sizes, initializer_range=0.5)
        transformers.BertForSequenceClassification(config).save_pretrained(target)
        model = CrossEncoder(str(target), activation_fn=activation, device="cpu")
        if name.endswith("old"):  # as releases before 4 wrote it
            written = json.loads((target / "config.json").read_text())
            written["sbert_ce_default_activation_function"] = "torch.nn.modules.linear.Identity"
            (target / "config.json").write_text(json.dumps(written))
            target.rename(folder / name)
        else:
            model.save_pretrained(str(folder / name))
            shutil.copy(target / "tokenizer_config.json", folder / name)
        scores[name] = [float(model.predict([(TEXTS[1], text)])[0]) for text in TEXTS]
    return scores


def main(folder: Path, *further: str) -> None:
    """All forms."""
    reference = {}
    for name, (make, steps, options) in forms().items():
        torch.manual_seed(len(name))
        target = folder / f"model-of-{name}"
        target.mkdir()
        make(target)
        options = dict(options)
        length, lower = options.pop("max_seq_length", None), options.pop("do_lower_case", False)
        first = modules.Transformer(str(target), max_seq_length=length, do_lower_case=lower)
        model = SentenceTransformer(modules=[first, *steps], device="cpu", **options)
        model.save(str(folder / name), create_model_card=False)
        # unchanged, in the form that every release reads
        shutil.copy(target / "tokenizer_config.json", folder / name)
        config = json.loads((folder / name / "sentence_bert_config.json").read_text())
        if length or lower:  # as releases before 5.4 wrote them, beside the model
            config.update({"max_seq_length": length, "do_lower_case": lower})
            (folder / name / "sentence_bert_config.json").write_text(json.dumps(config))
        reference[name] = cases(SentenceTransformer(str(folder / name), device="cpu"), name)
    for path in further:
        reference[path] = cases(SentenceTransformer(path, device="cpu"), "")
    (folder / "reference.json").write_text(json.dumps(reference))
    (folder / "scores.json").write_text(json.dumps(cross_encoders(folder)))


if __name__ == "__main__":
    main(Path(sys.argv[1]), *sys.argv[2:])
