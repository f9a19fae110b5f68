"""Make small models, whole and broken, or load some as the server does and print what came of each. Run by tests.

python load_each.py make FOLDER             or             python load_each.py load [NAME=TASK=FOLDER …]

One process for many models, since importing transformers takes longer than all of them.
"""

from __future__ import annotations

import json
import logging
import os
import shutil
import sys
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[2] / "docker" / "inference"))

import tiny_models
import tiny_tasks

ROBERTA = {"max_position_embeddings": 66, "pad_token_id": 1, "bos_token_id": 0, "eos_token_id": 2}
ROPE = {"rope_type": "linear", "rope_theta": 500.0, "factor": 4.0}
OLD_ROPE = {"rope_theta": 500.0, "rope_scaling": {"rope_type": "linear", "factor": 4.0}}


def save(folder: Path, model: str, config: Any, seed: int = 4) -> None:
    """A random model of that class."""
    import torch
    import transformers

    torch.manual_seed(seed)
    getattr(transformers, model)(config).save_pretrained(folder)


def bert(folder: Path, model: str, **more: Any) -> None:
    """BERT with a tokenizer."""
    import transformers

    folder.mkdir(parents=True)
    words = tiny_models._save_word_pieces(folder, "BertTokenizer")
    sizes = {**tiny_tasks.LAYERS, "max_position_embeddings": 64, "initializer_range": 0.5}
    save(folder, model, transformers.BertConfig(vocab_size=len(words), **sizes, **more))


def bytes_tokenizer(folder: Path, kind: str) -> int:
    """A tokenizer of bytes; returns how many tokens it has."""
    folder.mkdir(parents=True)
    tokenizer = tiny_models._byte_level_tokenizer(["<s>", "<pad>", "</s>", "<unk>", "<mask>"])
    roles = {"unk": "<unk>", "bos": "<s>", "eos": "</s>", "pad": "<pad>", "mask": "<mask>", "cls": "<s>", "sep": "</s>"}
    names = {f"{role}_token": token for role, token in roles.items()}
    settings = {"tokenizer_class": kind, "model_max_length": 64, "model_input_names": ["input_ids", "attention_mask"]}
    tiny_models._save_tokenizer(tokenizer, folder, settings, names)
    return int(tokenizer.get_vocab_size())


def roberta(folder: Path, model: str, kind: str = "Roberta") -> None:
    """RoBERTa, or XLM-R, which is the same under another name."""
    import transformers

    size = bytes_tokenizer(folder, "PreTrainedTokenizerFast")
    config = getattr(transformers, f"{kind}Config")(vocab_size=size, **tiny_tasks.LAYERS, **ROBERTA)
    save(folder, f"{kind}{model}", config)


def wav2vec2(folder: Path, model: str) -> None:
    """wav2vec2 with letters."""
    import transformers

    folder.mkdir(parents=True)
    letters = ["<pad>", "<s>", "</s>", "<unk>", "|", *"abcdefghijklmnopqrstuvwxyz '"]
    (folder / "vocab.json").write_text(json.dumps({letter: number for number, letter in enumerate(letters[:32])}))
    (folder / "tokenizer_config.json").write_text('{"tokenizer_class": "Wav2Vec2CTCTokenizer"}')
    save(folder, model, transformers.Wav2Vec2Config(**tiny_tasks.WAV2VEC))
    transformers.Wav2Vec2FeatureExtractor().save_pretrained(folder)


def llama(folder: Path, model: str = "LlamaForCausalLM", **more: Any) -> None:
    """Llama with a tokenizer."""
    import transformers

    size = bytes_tokenizer(folder, "PreTrainedTokenizerFast")
    save(folder, model, transformers.LlamaConfig(vocab_size=size, **tiny_tasks.LAYERS, initializer_range=0.5, **more))


def blip(folder: Path, model: str) -> None:
    """BLIP, whose head is tied inside its decoder, with all files of its processor."""
    import transformers

    folder.mkdir(parents=True)
    words = tiny_models._save_word_pieces(folder, "BertTokenizer")
    sizes = {**tiny_tasks.LAYERS, "encoder_hidden_size": 32, "max_position_embeddings": 64, "initializer_range": 0.5}
    roles = {"bos_token_id": 2, "eos_token_id": 3, "sep_token_id": 3, "pad_token_id": 0}
    text = {**sizes, **roles, "vocab_size": len(words)}
    vision = {**tiny_tasks.VISION, "initializer_range": 0.5}
    save(folder, model, transformers.BlipConfig(text_config=text, vision_config=vision, projection_dim=16))
    names = ["input_ids", "attention_mask"]
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder, model_input_names=names)
    images = transformers.BlipImageProcessor(**tiny_tasks.SQUARE)
    transformers.BlipProcessor(images, tokenizer).save_pretrained(folder)
    images.save_pretrained(folder)  # for the oldest release; the newest has it in the processor's file


def change(folder: Path, source: Path, change_weights: Any) -> None:
    """A copy with other weights."""
    from safetensors.torch import load_file, save_file

    shutil.copytree(source, folder)
    save_file(change_weights(load_file(folder / "model.safetensors")), folder / "model.safetensors", {"format": "pt"})


def one_nan(weights: Any) -> Any:
    """The weights, with one number of the head broken."""
    head = next(name for name in ("lm_head.weight", "classifier.weight") if name in weights)
    weights[head].view(-1)[0] = float("nan")
    return weights


def without(folder: Path, source: Path, *names: str) -> None:
    """A copy without some files."""
    shutil.copytree(source, folder, ignore=shutil.ignore_patterns(*names))


def make(root: Path) -> None:
    """All models."""
    import transformers

    for name in ("Model", "ForMaskedLM", "ForPreTraining", "ForTokenClassification", "ForSequenceClassification"):
        bert(root / f"Bert{name}", f"Bert{name}")
    bert(root / "three-labels", "BertForSequenceClassification", num_labels=3)
    for name in ("Model", "ForMaskedLM", "ForSequenceClassification"):
        roberta(root / f"Roberta{name}", name)
    roberta(root / "XLMRobertaForMaskedLM", "ForMaskedLM", "XLMRoberta")
    for name in ("ForCTC", "ForSequenceClassification", "ForPreTraining"):
        wav2vec2(root / f"Wav2Vec2{name}", f"Wav2Vec2{name}")
    tiny_models.make_whisper(root / "whisper", 1)
    tiny_models.make_bloom(root / "bloom", 1)
    llama(root / "llama")
    rope = {"rope_parameters": ROPE} if hasattr(transformers.LlamaConfig(), "rope_parameters") else OLD_ROPE
    llama(root / "llama-encoder", "LlamaModel", **rope)
    make_stretched(root)
    # the names of weight norm before torch 2.1, and those of after
    old, new = ("weight_g", "weight_v"), ("parametrizations.weight.original0", "parametrizations.weight.original1")
    for name, (these, those) in {"old-names": (new, old), "new-names": (old, new)}.items():
        change(
            root / name,
            root / "Wav2Vec2ForCTC",
            lambda weights, these=these, those=those: {
                key.replace(these[0], those[0]).replace(these[1], those[1]): value for key, value in weights.items()
            },
        )
    change(
        root / "compiled", root / "BertForMaskedLM", lambda weights: {f"_orig_mod.{k}": v for k, v in weights.items()}
    )
    change(
        root / "a-layer-less", root / "BertForMaskedLM", lambda w: {k: v for k, v in w.items() if "layer.1." not in k}
    )
    change(
        root / "not-a-number",
        root / "BertForSequenceClassification",
        lambda w: {k: v * float("nan") for k, v in w.items()},
    )
    for name in ("BertForSequenceClassification", "BertForTokenClassification"):
        change(root / f"{name}-of-one-nan", root / name, one_nan)
    change(root / "llama-of-one-nan", root / "llama", one_nan)
    change(root / "llama-of-nan", root / "llama", lambda w: {k: v * float("nan") for k, v in w.items()})
    without(root / "two-labels", root / "three-labels")
    config = json.loads((root / "two-labels" / "config.json").read_text())
    config.pop("id2label"), config.pop("label2id")
    (root / "two-labels" / "config.json").write_text(json.dumps(config))
    without(root / "whisper-tuned", root / "whisper", "generation_config.json")
    words = ("tokenizer.json", "tokenizer_config.json", "special_tokens_map.json")
    without(root / "bert-wordless", root / "BertForSequenceClassification", "vocab.txt", *words)
    without(root / "bloom-wordless", root / "bloom", *words)
    without(root / "letterless", root / "Wav2Vec2ForCTC", "vocab.json")
    make_adapters(root)
    make_misread(root)
    head, table = "text_decoder.cls.predictions.decoder.weight", "text_decoder.bert.embeddings.word_embeddings.weight"
    for name in ("BlipForConditionalGeneration", "BlipForQuestionAnswering"):
        blip(root / name, name)
        change(root / f"{name}-whole", root / name, lambda w: {**w, head: w[table].clone()})
        change(root / f"{name}-head", root / f"{name}-whole", lambda w: {k: v for k, v in w.items() if k != table})
        without(root / f"{name}-untied", root / name)
        config = json.loads((root / name / "config.json").read_text())
        config["tie_word_embeddings"] = config["text_config"]["tie_word_embeddings"] = False
        (root / f"{name}-untied" / "config.json").write_text(json.dumps(config))
    without(root / "unheard", root / "Wav2Vec2ForCTC", "preprocessor_config.json")
    processors = {"Wav2Vec2ForCTC": transformers.Wav2Vec2Processor, "whisper": transformers.WhisperProcessor}
    for name, processor in processors.items():  # releases from 5 on write one file
        without(root / f"{name}-processor", root / name, "preprocessor_config.json")
        processor.from_pretrained(root / name).save_pretrained(root / f"{name}-processor")


def make_stretched(root: Path) -> None:
    """Text encoders whose rotary positions were stretched after the pretraining, in the way of their releases."""
    import transformers

    is_new = hasattr(transformers.LlamaConfig(), "rope_parameters")
    short, long = [1.0] * 8, [1.0, 2.0, 3.0, 4.0, 1.0, 1.0, 1.5, 2.0]
    ways = {
        "llama-yarn": ("Llama", {"rope_type": "yarn", "factor": 4.0}, 64),
        "llama-yarn-stretched": ("Llama", {"rope_type": "yarn", "factor": 4.0}, 16),
        "phi3": ("Phi3", {"rope_type": "longrope", "short_factor": short, "long_factor": long}, 2),
        "granite": ("Granite", {"rope_type": "linear", "factor": 4.0}, None),
    }
    for name, (kind, scaling, length) in ways.items():
        size = bytes_tokenizer(root / name, "PreTrainedTokenizerFast")
        sizes = {**tiny_tasks.LAYERS, "max_position_embeddings": 64, "initializer_range": 0.5, "vocab_size": size}
        roles = {"bos_token_id": 0, "eos_token_id": 2, "pad_token_id": 1}
        pretrained = {} if length is None else {"original_max_position_embeddings": length}
        if is_new:
            rope = {"rope_parameters": {"rope_theta": 77.0, **scaling, **pretrained}}
        else:
            rope = {"rope_theta": 77.0, "rope_scaling": scaling}
            if kind == "Phi3":
                rope = {**rope, **pretrained, "rope_scaling": {"type": scaling.pop("rope_type"), **scaling}}
        config = getattr(transformers, f"{kind}Config")(**sizes, **roles, **rope)
        save(root / name, f"{kind}Model", config)


def configure(folder: Path, source: Path, **changed: Any) -> None:
    """A copy of a model, with another configuration."""
    without(folder, source)
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | changed))


def make_misread(root: Path) -> None:
    """Models whose files have more than transformers reads, or otherwise."""
    import torch
    from safetensors.torch import load_file

    configure(root / "own-head", root / "llama", tie_word_embeddings=True)
    without(root / "own-head-pickled", root / "own-head", "model.safetensors")
    torch.save(load_file(root / "llama" / "model.safetensors"), root / "own-head-pickled" / "pytorch_model.bin")
    change(
        root / "tied-twice",
        root / "own-head",
        lambda w: {**w, "lm_head.weight": w["model.embed_tokens.weight"].clone()},
    )
    classifier = root / "BertForSequenceClassification"
    fewer = {"num_hidden_layers": 1}
    configure(root / "a-layer-more", root / "BertForMaskedLM", **fewer)
    change(root / "whole-numbers", classifier, lambda w: {k: v.to(torch.int8) for k, v in w.items()})
    unknown = {"quantization_config": {"quant_method": "of-tomorrow"}}
    change(
        root / "floats-of-8-bits",
        root / "llama",
        lambda w: {k: v.to(torch.float8_e4m3fn) if "mlp" in k else v for k, v in w.items()},
    )
    configure(root / "unknown-quantization", root / "floats-of-8-bits", **unknown)
    configure(root / "unknown-activation", root / "llama", hidden_act="of-tomorrow")
    configure(root / "package-lacking", root / "llama", quantization_config={"quant_method": "aqlm"})
    configure(root / "setfit", root / "BertModel")
    (root / "setfit" / "config_setfit.json").write_text("{}")
    code = {"AutoModelForSequenceClassification": "modeling_own.Own"}
    configure(root / "own-code", classifier, model_type="of-its-own", auto_map=code)
    configure(root / "broken-tokenizer", root / "llama")
    (root / "broken-tokenizer" / "tokenizer.json").write_text("{")
    without(root / "a-pickle", classifier, "model.safetensors")
    torch.save({"classifier.weight": print}, root / "a-pickle" / "pytorch_model.bin")


def make_adapters(root: Path) -> None:
    """Adapters of `llama` and of `BertForMaskedLM`, written by hand, and the weights that they come to."""
    import torch

    torch.manual_seed(9)
    layer, rank = "model.layers.1.self_attn.q_proj", 4
    down, up = torch.randn(rank, 32), torch.randn(32, rank)
    described = {"peft_type": "LORA", "r": rank, "lora_alpha": 8, "target_modules": [layer], "bias": "none"}
    lora = {f"base_model.model.{layer}.lora_A.weight": down, f"base_model.model.{layer}.lora_B.weight": up}
    write_adapter(root / "lora", lora, {**described, "task_type": "CAUSAL_LM"})
    change(root / "merged", root / "llama", lambda w: {**w, f"{layer}.weight": w[f"{layer}.weight"] + 2 * up @ down})
    without(root / "lora-beside", root / "llama")
    for file in (root / "lora").iterdir():
        shutil.copy(file, root / "lora-beside" / file.name)
    stranger = {name.replace("layers.1", "layers.7"): value for name, value in lora.items()}
    write_adapter(root / "lora-of-another", stranger, {**described, "task_type": "CAUSAL_LM"})
    without(root / "lora-without-weights", root / "lora-beside", "adapter_model.safetensors")
    head = {
        "base_model.model.classifier.weight": torch.randn(3, 32),
        "base_model.model.classifier.bias": torch.randn(3),
    }
    query = "bert.encoder.layer.0.attention.self.query"
    lora = {f"base_model.model.{query}.lora_A.weight": down, f"base_model.model.{query}.lora_B.weight": up}
    pooler = {
        "base_model.model.bert.pooler.dense.weight": torch.randn(32, 32),
        "base_model.model.bert.pooler.dense.bias": torch.randn(32),
    }
    described = {**described, "task_type": "SEQ_CLS", "target_modules": [query]}
    whole = {**described, "modules_to_save": ["classifier", "pooler"]}
    write_adapter(root / "lora-with-head", {**lora, **head, **pooler}, whole)
    write_adapter(root / "lora-without-head", lora, described)
    config = json.loads((root / "BertForMaskedLM" / "config.json").read_text())
    labels = {str(number): f"LABEL_{number}" for number in range(3)}
    config.update(architectures=["BertForSequenceClassification"], id2label=labels)
    config["label2id"] = {label: int(number) for number, label in labels.items()}
    for name in ("lora-with-head", "lora-without-head"):
        (root / name / "config.json").write_text(json.dumps(config))


def write_adapter(folder: Path, weights: dict[str, Any], config: dict[str, Any]) -> None:
    """As peft writes one."""
    from safetensors.torch import save_file

    folder.mkdir()
    save_file(weights, folder / "adapter_model.safetensors")
    (folder / "adapter_config.json").write_text(json.dumps({"base_model_name_or_path": "tiny/base", **config}))


class Lines(logging.Handler):
    """Keeps what the server's own loggers say above INFO."""

    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self.lines: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.lines.append(f"{record.levelname} {record.getMessage()}")


def load(name: str, task: str, folder: str) -> dict[str, Any]:
    """Load one model; return its answer or refusal, and the lines of the log."""
    import numpy as np
    from extended_dlc_server.errors import StartError
    from extended_dlc_server.json_text import encode_json
    from extended_dlc_server.model.loading import load_pipelines
    from extended_dlc_server.settings import read_settings
    from PIL import Image

    lines = Lines()
    logging.getLogger("extended_dlc_server").addHandler(lines)
    base = Path(folder).parent if Path(folder).name == "model" else None
    environment = {key: value for key, value in os.environ.items() if key.startswith(("HF_", "EXTENDED_DLC_"))}
    if base is None:
        base = Path(os.environ["SCRATCH"]) / name
        base.mkdir(parents=True, exist_ok=True)
        if not (base / "model").exists():
            (base / "model").symlink_to(folder)
    try:
        settings = read_settings(
            {**environment, "SAGEMAKER_BASE_DIR": str(base), **({"HF_TASK": task} if task else {})}
        )
        _ = settings.model_source
        (model,) = load_pipelines(settings)
    except StartError as error:
        return {"name": name, "refused": str(error), "lines": lines.lines}
    finally:
        logging.getLogger("extended_dlc_server").removeHandler(lines)
    if model.task in ("automatic-speech-recognition", "audio-classification"):
        noise = np.random.default_rng(1).standard_normal(16_000).astype(np.float32)
        answer = json.loads(encode_json(model.pipeline({"raw": noise, "sampling_rate": 16_000})))
        return {"name": name, "task": model.task, "answer": answer, "lines": lines.lines}
    if model.task in ("image-to-text", "image-text-to-text", "visual-question-answering"):
        pixels = np.random.default_rng(1).integers(0, 255, (40, 40, 3)).astype(np.uint8)
        asked: dict[str, Any] = {"image": Image.fromarray(pixels), "question": "hello world"}
        if model.task == "image-to-text":
            asked = {"inputs": asked["image"], "max_new_tokens": 8}
        elif model.task == "image-text-to-text":
            asked = {"images": asked["image"], "text": "hello", "max_new_tokens": 8}
        answer = json.loads(encode_json(model.pipeline(**asked)))
        return {"name": name, "task": model.task, "answer": answer, "lines": lines.lines}
    text = (
        f"hello {getattr(model.pipeline.tokenizer, 'mask_token', '')}" if model.task == "fill-mask" else "hello world"
    )
    options = {"max_new_tokens": 8, "do_sample": False} if model.task == "text-generation" else {}
    answer = json.loads(encode_json(model.pipeline(text, **options)))
    return {"name": name, "task": model.task, "answer": answer, "lines": lines.lines}


if __name__ == "__main__":
    os.environ["OMP_NUM_THREADS"] = "1"
    if sys.argv[1] == "make":
        make(Path(sys.argv[2]))
    else:
        import transformers

        transformers.logging.set_verbosity_error()
        for case in sys.argv[2:]:
            print(json.dumps(load(*case.split("="))), flush=True)
