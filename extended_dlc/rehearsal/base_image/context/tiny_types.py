"""Tiny models with random weights, of any type in this transformers release, with the Hub's file layout.

    python tiny_types.py FOLDER TYPE:TASK:SEED=PATH …      an empty TASK: the type's most usual one
    python tiny_types.py FOLDER adapter:BASE:SEED=PATH …   a LoRA adapter of the model at FOLDER/BASE

It runs beside `tiny_models.py`, which makes the types that this program cannot shrink (BLOOM, Whisper). For each model
that cannot be made it prints a line `PATH: reason`, makes the others, and exits with status 3.
"""

from __future__ import annotations

import json
import shutil
import sys
from importlib import import_module
from pathlib import Path
from typing import Any

_SIZES: dict[str, Any] = {
    **dict.fromkeys(
        ("hidden_size", "d_model", "n_embd", "embedding_size", "word_embed_proj_dim", "projection_dim"), 64
    ),
    **dict.fromkeys(("intermediate_size", "ffn_dim", "d_ff", "encoder_ffn_dim", "decoder_ffn_dim"), 128),
    **dict.fromkeys(("moe_intermediate_size", "shared_expert_intermediate_size"), 64),
    **dict.fromkeys(("num_hidden_layers", "num_layers", "num_decoder_layers", "n_layer", "n_layers"), 2),
    **dict.fromkeys(("encoder_layers", "decoder_layers"), 2),
    **dict.fromkeys(("num_attention_heads", "num_heads", "n_head", "n_heads"), 4),
    **dict.fromkeys(("encoder_attention_heads", "decoder_attention_heads"), 4),
    **dict.fromkeys(("num_key_value_heads", "num_kv_heads", "num_experts_per_tok"), 2),
    **dict.fromkeys(("head_dim", "d_kv", "qk_nope_head_dim", "qk_rope_head_dim", "v_head_dim"), 16),
    **dict.fromkeys(("q_lora_rank", "kv_lora_rank"), 32),
    **dict.fromkeys(("num_experts", "num_local_experts", "n_routed_experts"), 4),
    **dict.fromkeys(("n_group", "topk_group"), 1),
    # RoBERTa's position numbers start after the padding token's
    **dict.fromkeys(("max_position_embeddings", "n_positions", "max_source_positions", "max_target_positions"), 514),
    "image_size": 32,
    "patch_size": 8,
    # convolutions for speech, as in Wav2Vec2
    "conv_dim": [32, 32],
    "conv_kernel": [10, 8],
    "conv_stride": [8, 8],
    "num_feat_extract_layers": 2,
    "num_conv_pos_embeddings": 16,
    "num_conv_pos_embedding_groups": 2,
}
"""The values that make a configuration small, for each attribute that it has."""

_ROLES = {"unk_token": "<unk>", "bos_token": "<s>", "eos_token": "</s>", "pad_token": "<pad>", "mask_token": "<mask>"}
_LONGEST = 500
_LARGEST = 30_000_000
"""The largest number of weights of a tiny model."""
_INIT = 0.5

_PICTURE = "<image>"
"""The token of a picture in a text."""

_CHAT_TEMPLATE = (
    "{% for message in messages %}{{ message.role + ': ' }}"
    "{% if message.content is string %}{{ message.content }}{% else %}"
    "{% for part in message.content %}{{ part.text if part.type == 'text' else '<image>' }}{% endfor %}{% endif %}"
    "{{ '\\n' }}{% endfor %}{% if add_generation_prompt %}{{ 'assistant: ' }}{% endif %}"
)

_HEADS = {
    "audio-classification": ("AudioClassification",),
    "automatic-speech-recognition": ("SpeechSeq2Seq", "CTC"),
    "depth-estimation": ("DepthEstimation",),
    "feature-extraction": ("",),
    "fill-mask": ("MaskedLM",),
    "image-classification": ("ImageClassification",),
    "image-feature-extraction": ("",),
    "image-segmentation": ("SemanticSegmentation", "UniversalSegmentation", "ImageSegmentation"),
    "object-detection": ("ObjectDetection",),
    "question-answering": ("QuestionAnswering",),
    "sentence-embeddings": ("",),
    "sentence-similarity": ("",),
    "summarization": ("Seq2SeqLM",),
    "text-classification": ("SequenceClassification",),
    "text-generation": ("CausalLM",),
    "text-ranking": ("SequenceClassification",),
    "text2text-generation": ("Seq2SeqLM",),
    "token-classification": ("TokenClassification",),
    "translation": ("Seq2SeqLM",),
    "zero-shot-classification": ("SequenceClassification",),
    "zero-shot-image-classification": ("ZeroShotImageClassification",),
}
"""Task to the heads that serve it, as in `AutoModelFor…`; '' is the model without a head."""

_USUAL = (
    *("Seq2SeqLM", "SpeechSeq2Seq", "MaskedLM", "CausalLM", "ImageClassification", "CTC", "AudioClassification"),
    *("ObjectDetection", "DepthEstimation", "SemanticSegmentation", ""),
)
"""The heads for an unknown task; the first that exists for the type is taken."""


class CannotMake(Exception):
    """This program cannot make the model small."""


def make(folder: Path, model_type: str, task: str, seed: int) -> None:
    tiny_models, torch, transformers = map(import_module, ("tiny_models", "torch", "transformers"))
    by_hand = tiny_models.MAKERS.get(model_type)
    if by_hand is not None and task in ("", "text-generation", "automatic-speech-recognition"):
        by_hand(folder, seed)
        return
    if model_type == "llava" and task in ("", *_PICTURES_WITH_TEXT):
        _make_llava(folder, seed)
        return
    if task in _PICTURES_WITH_TEXT:
        raise CannotMake(
            f"type '{model_type}' reads pictures with text, for which a tiny 'llava' alone is made here (--model "
            "ID=llava); it answers the same requests"
        )
    tokenizer = tiny_models._byte_level_tokenizer(list(_ROLES.values()))
    config = _config(transformers, model_type, tokenizer, task)
    head = _head(transformers, config, task)
    with torch.device("meta"):
        weights = sum(each.numel() for each in head.from_config(config).parameters())
    if weights > _LARGEST:
        raise CannotMake(f"type '{model_type}' has {weights:,} weights at its smallest here")
    torch.manual_seed(seed)
    model = head.from_config(config)
    _speak(model, tokenizer, tiny_models)
    model.save_pretrained(folder)
    if not _save_processors(transformers, type(config), folder):
        template = {"chat_template": _CHAT_TEMPLATE} if "CausalLM" in type(model).__name__ else {}
        tiny_models._save_tokenizer(tokenizer, folder, {**_TOKENIZER, **template}, _ROLES)
    elif type(model).__name__.endswith("ForCTC"):
        _save_letters(transformers, folder)


def make_adapter(folder: Path, hub: Path, base: str, seed: int) -> None:
    """Write a LoRA adapter of the first linear layer in each block of `hub / base`, with random weights."""
    torch, transformers, safetensors = map(import_module, ("torch", "transformers", "safetensors.torch"))
    (architecture,) = json.loads((hub / base / "config.json").read_text())["architectures"]
    model = getattr(transformers, architecture).from_pretrained(hub / base)
    # GPT-2's linear layers, whose weights lie the other way round
    turned = import_module("transformers.pytorch_utils").Conv1D
    linear = {name: module for name, module in model.named_modules() if isinstance(module, (torch.nn.Linear, turned))}
    inside = [name for name in linear if any(part.isdigit() for part in name.split("."))]
    if not inside:
        raise CannotMake(f"{architecture} has no linear layers, which a LoRA adapter changes")
    last = inside[0].rpartition(".")[2]
    torch.manual_seed(seed)
    weights = {}
    for name in inside:
        if name.rpartition(".")[2] == last:
            shape = linear[name].weight.shape
            inputs, outputs = shape if isinstance(linear[name], turned) else reversed(shape)
            weights[f"base_model.model.{name}.lora_A.weight"] = torch.randn(4, inputs)
            weights[f"base_model.model.{name}.lora_B.weight"] = torch.randn(outputs, 4)
    safetensors.save_file(weights, folder / "adapter_model.safetensors")
    about: dict[str, Any] = {"peft_type": "LORA", "base_model_name_or_path": base, "target_modules": [last]}
    about |= {"task_type": None, "r": 4, "lora_alpha": 8, "bias": "none"}
    (folder / "adapter_config.json").write_text(json.dumps(about, indent=2))


_PICTURES_WITH_TEXT = ("any-to-any", "image-text-to-text")


def _make_llava(folder: Path, seed: int) -> None:
    """Make a LLaVA whose picture takes 17 tokens. The processor's files are written as repositories of the Hub have
    them, because releases disagree on its arguments.
    """
    tiny_models, torch, transformers = map(import_module, ("tiny_models", "torch", "transformers"))
    tokenizer = tiny_models._byte_level_tokenizer([*_ROLES.values(), _PICTURE])
    numbers = {f"{role}_id": tokenizer.token_to_id(token) for role, token in _ROLES.items() if role != "mask_token"}
    sizes = {"hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 2, "num_attention_heads": 4}
    text = transformers.LlamaConfig(
        **sizes, **numbers, vocab_size=tokenizer.get_vocab_size(), max_position_embeddings=514, initializer_range=_INIT
    )
    vision = transformers.CLIPVisionConfig(**sizes, image_size=32, patch_size=8)
    config = transformers.LlavaConfig(text_config=text, vision_config=vision, vision_feature_layer=-1)
    # the attribute's name before and after 4.51
    config.image_token_index = config.image_token_id = tokenizer.token_to_id(_PICTURE)
    torch.manual_seed(seed)
    model = transformers.LlavaForConditionalGeneration(config)
    _speak(model, tokenizer, tiny_models)
    model.save_pretrained(folder)
    named = {"processor_class": "LlavaProcessor"}
    processor = {"patch_size": 8, "vision_feature_select_strategy": "default", "num_additional_image_tokens": 1}
    edge = {"size": {"shortest_edge": 32}, "crop_size": {"height": 32, "width": 32}}
    for name, content in (
        ("processor_config", {**named, **processor, "image_token": _PICTURE}),
        ("preprocessor_config", {**named, **edge, "image_processor_type": "CLIPImageProcessor"}),
        ("chat_template", {"chat_template": _CHAT_TEMPLATE}),
    ):
        (folder / f"{name}.json").write_text(json.dumps(content, indent=2))
    settings = {**_TOKENIZER, **named, "chat_template": _CHAT_TEMPLATE}
    tiny_models._save_tokenizer(tokenizer, folder, settings, _ROLES, [_PICTURE])


_TOKENIZER = {
    "tokenizer_class": "PreTrainedTokenizerFast",
    "model_input_names": ["input_ids", "attention_mask"],
    "model_max_length": _LONGEST,
}


def _config(transformers: Any, model_type: str, tokenizer: Any, task: str) -> Any:
    """The type's configuration with all sizes made small."""
    try:
        default = transformers.AutoConfig.for_model(model_type)
    except ValueError:
        raise CannotMake(f"transformers {transformers.__version__} has no type '{model_type}'") from None
    sizes = _small(transformers, default)
    numbers = {f"{role}_id": tokenizer.token_to_id(token) for role, token in _ROLES.items() if role != "mask_token"}
    text = sizes.get("text_config", sizes)
    text.update(numbers, vocab_size=tokenizer.get_vocab_size())
    if getattr(default, "is_encoder_decoder", False):
        # random weights do not predict the end token, so only the length limit ends the text
        text.update(decoder_start_token_id=numbers["bos_token_id"], forced_eos_token_id=None)
    if _wants_timm(default):
        stages = {"embedding_size": 16, "hidden_sizes": [16] * 4, "depths": [1] * 4, "out_features": ["stage4"]}
        sizes.update(use_timm_backbone=False, backbone=None, backbone_config=transformers.ResNetConfig(**stages))
        sizes.update(use_pretrained_backbone=False, num_queries=4)
    if task == "zero-shot-classification":
        sizes["id2label"] = {0: "contradiction", 1: "entailment"}
        sizes["label2id"] = {"contradiction": 0, "entailment": 1}
    return type(default)(**sizes)


def _wants_timm(default: Any) -> bool:
    """Whether the type's backbone, as of DETR, is of the package timm by default, which no base image has."""
    inside = getattr(getattr(default, "backbone_config", None), "model_type", "")
    return getattr(default, "use_timm_backbone", False) or inside == "timm_backbone"


def _small(transformers: Any, default: Any) -> dict[str, Any]:
    """The arguments that make a configuration small, including its nested configurations."""
    base = transformers.PretrainedConfig
    sizes = {name: size for name, size in _SIZES.items() if _counts(default, name)}
    if "kv_lora_rank" in sizes:  # multi-head latent attention has one key for each head
        sizes["num_key_value_heads"] = sizes["num_attention_heads"]
    for name in ("initializer_range", "init_std", "initializer_factor"):
        if hasattr(default, name):
            sizes[name] = _INIT
    inside = {name: value for name, value in vars(default).items() if isinstance(value, base)}
    nested = {name: _small(transformers, value) for name, value in inside.items()}
    if "backbone_config" in nested:  # of any type, which its dict has to name
        nested["backbone_config"]["model_type"] = inside["backbone_config"].model_type
    return {**sizes, **nested}


def _counts(config: Any, name: str) -> bool:
    """Whether the configuration's attribute has the type of the value in `_SIZES`: a number or a list."""
    value = getattr(config, name, None)
    computed = getattr(type(config), name, None)
    if isinstance(computed, property) and computed.fset is None:
        return False
    return isinstance(value, (list, tuple)) if isinstance(_SIZES[name], list) else isinstance(value, int)


def _head(transformers: Any, config: Any, task: str) -> Any:
    """The auto class for the task, or for the type's most usual task."""
    wanted = _HEADS.get(task, _USUAL)
    if not getattr(config, "is_encoder_decoder", False) and wanted is _USUAL:
        wanted = _USUAL[2:]
    for name in wanted:
        auto = getattr(transformers, f"AutoModelFor{name}" if name else "AutoModel", None)
        if auto is not None and type(config) in auto._model_mapping:
            return auto
    raise CannotMake(f"type '{config.model_type}' has nothing for the task '{task}'")


def _speak(model: Any, tokenizer: Any, tiny_models: Any) -> None:
    """Make a text generation model predict only words of the corpus, and never the end token."""
    output = model.get_output_embeddings() if hasattr(model, "get_output_embeddings") else None
    weight = getattr(output, "weight", None)
    if weight is not None and weight.shape[0] == tokenizer.get_vocab_size():
        tiny_models._say_words_only(weight, tokenizer)


def _save_processors(transformers: Any, config: Any, folder: Path) -> bool:
    """Save the image processor or feature extractor, if the type has one; whether the model needs no tokenizer."""
    images = import_module("transformers.models.auto.image_processing_auto").IMAGE_PROCESSOR_MAPPING
    sounds = import_module("transformers.models.auto.feature_extraction_auto").FEATURE_EXTRACTOR_MAPPING
    if config in images:
        # the mapping has a class, a tuple (releases before 5), or a dict by backend
        found = images[config]
        several = list(found.values()) if isinstance(found, dict) else found if isinstance(found, tuple) else [found]
        square = {"height": 32, "width": 32}
        next(each for each in several if each is not None)(size=square, crop_size=square).save_pretrained(folder)
        return not hasattr(config(), "text_config")
    if config in sounds:
        sounds[config]().save_pretrained(folder)
        return True
    return False


def _save_letters(transformers: Any, folder: Path) -> None:
    """Save a vocabulary of letters, which CTC speech recognition predicts."""
    tokens = ["<pad>", "<s>", "</s>", "<unk>", "|", *"abcdefghijklmnopqrstuvwxyz'"]
    (folder / "vocab.json").write_text(json.dumps({token: number for number, token in enumerate(tokens)}))
    transformers.Wav2Vec2CTCTokenizer(str(folder / "vocab.json")).save_pretrained(folder)


def main(folder: Path, *wanted: str) -> int:
    """Make the named models and return the exit status."""
    status = 0
    for one in wanted:
        recipe, _, path = one.partition("=")
        model_type, task, seed = recipe.split(":")
        shutil.rmtree(folder / path, ignore_errors=True)
        (folder / path).mkdir(parents=True)
        try:
            if model_type == "adapter":
                make_adapter(folder / path, folder, task, int(seed))
            else:
                make(folder / path, model_type, task, int(seed))
        except Exception as error:  # the type needs its own way to be made
            shutil.rmtree(folder / path)
            print(f"{path}: {type(error).__name__}: {' '.join(str(error).split())[:300]}", file=sys.stderr)
            status = 3
    return status


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1]), *sys.argv[2:]))
