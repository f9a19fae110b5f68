"""Write tiny models for the attacks: `python models.py FOLDER NAME…`, each into a folder of its name.

Beside those of `tests/runtime/tiny_tasks.py`: chats, and models of every way to know positions, because a position that
a model has no row for ends a process with a GPU.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[2] / "docker" / "inference"))
sys.path.insert(0, str(Path(__file__).parents[2] / "tests" / "runtime"))

import tiny_models
import tiny_tasks
import torch
import transformers

NAMES = {"unk_token": "<unk>", "bos_token": "<s>", "eos_token": "</s>"}
ROBERTA = {**NAMES, "pad_token": "<pad>", "mask_token": "<mask>", "cls_token": "<s>", "sep_token": "</s>"}
SMALL = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 2}

TEMPLATE = (
    "{% if messages[0]['role'] == 'system' %}{{ raise_exception('no system role here') }}{% endif %}"
    "{% for m in messages %}{% if (m['role'] == 'user') != (loop.index0 % 2 == 0) %}"
    "{{ raise_exception('roles must alternate') }}{% endif %}{{ m['role'] + ': ' + m['content'] + '\n' }}{% endfor %}"
    "assistant:{% if enable_thinking is defined and not enable_thinking %}<none>{% endif %}"
)
"""Like those of Gemma and Qwen3 together: strict about roles, text only, with a variable of its own."""

PARTS = (
    "{% for m in messages %}{{ m['role'] }}: {% if m['content'] is string %}{{ m['content'] }}{% else %}"
    "{% for part in m['content'] %}{% if part['type'] == 'image' %}<image>{% else %}{{ part['text'] }}{% endif %}"
    "{% endfor %}{% endif %}\n{% endfor %}assistant:"
)


def letters(folder: Path, names: dict[str, str], **settings: Any) -> int:
    """A tokenizer for which an unknown letter is a token; returns its size."""
    tokenizer = tiny_models._byte_level_tokenizer(list(names.values()))
    kinds = {"tokenizer_class": "PreTrainedTokenizerFast", "model_input_names": ["input_ids", "attention_mask"]}
    tiny_models._save_tokenizer(tokenizer, folder, {**kinds, **settings}, names)
    return int(tokenizer.get_vocab_size())


def chat(folder: Path) -> None:
    """A Llama with a strict chat template."""
    words = letters(folder, {**NAMES, "pad_token": "<pad>"}, chat_template=TEMPLATE)
    torch.manual_seed(1)
    config = transformers.LlamaConfig(
        vocab_size=words, initializer_range=0.5, bos_token_id=1, eos_token_id=2, pad_token_id=3, **SMALL
    )
    transformers.LlamaForCausalLM(config).save_pretrained(folder)


def gpt2(folder: Path) -> None:
    """A model with a table of 64 positions for prompt and answer together."""
    words = letters(folder, {**NAMES, "pad_token": "<pad>"})
    torch.manual_seed(1)
    sizes = {"n_positions": 64, "n_embd": 32, "n_layer": 2, "n_head": 2}
    config = transformers.GPT2Config(vocab_size=words, bos_token_id=1, eos_token_id=2, initializer_range=0.5, **sizes)
    transformers.GPT2LMHeadModel(config).save_pretrained(folder)


def roberta(folder: Path, head: str, **more: Any) -> None:
    """A model with 62 usable positions in a table of 64, and a tokenizer without a limit."""
    words = letters(folder, ROBERTA)
    torch.manual_seed(1)
    config = transformers.RobertaConfig(
        vocab_size=words, max_position_embeddings=64, pad_token_id=1, bos_token_id=0, eos_token_id=2, **SMALL, **more
    )
    getattr(transformers, head)(config).save_pretrained(folder)


def ctc(folder: Path) -> None:
    """A Wav2Vec2 that writes letters (CTC)."""
    vocabulary = {token: index for index, token in enumerate(["<pad>", "<s>", "</s>", "<unk>", "|", *"abcdefghijkl"])}
    (folder / "vocab.json").write_text(json.dumps(vocabulary))
    transformers.Wav2Vec2CTCTokenizer(str(folder / "vocab.json")).save_pretrained(folder)
    transformers.Wav2Vec2FeatureExtractor().save_pretrained(folder)
    torch.manual_seed(1)
    config = transformers.Wav2Vec2Config(**{**tiny_tasks.WAV2VEC, "vocab_size": len(vocabulary)})
    transformers.Wav2Vec2ForCTC(config).save_pretrained(folder)


def csm(folder: Path) -> None:
    """A CSM, whose pipeline passes all parameters on to `generate`."""
    words = letters(folder, {**NAMES, "pad_token": "<pad>"})
    sizes = {**SMALL, "head_dim": 16, "num_key_value_heads": 2}
    codec = transformers.MimiConfig(
        **{**SMALL, "num_quantizers": 4, "codebook_size": 32, "codebook_dim": 16, "num_filters": 4, "head_dim": 16},
        **{
            "num_key_value_heads": 2,
            "vector_quantization_hidden_dimension": 16,
            "num_semantic_quantizers": 1,
            "upsample_groups": 32,
        },
    )
    config = transformers.CsmConfig(
        **{**sizes, "text_vocab_size": words, "vocab_size": 35, "num_codebooks": 4, "codebook_pad_token_id": 33},
        **{"codebook_eos_token_id": 0, "bos_token_id": 1, "eos_token_id": 2, "pad_token_id": 3, "audio_token_id": 5},
        **{"audio_eos_token_id": 6, "max_position_embeddings": 256},
        depth_decoder_config={
            **{**sizes, "num_codebooks": 4, "vocab_size": 35, "backbone_hidden_size": 32},
            **{"max_position_embeddings": 5},
        },
        codec_config=codec.to_dict(),
    )
    torch.manual_seed(1)
    transformers.CsmForConditionalGeneration(config).save_pretrained(folder)


def llava(folder: Path) -> None:
    """A LLaVA with a chat template."""
    tiny_tasks.make_llava(folder)
    (folder / "chat_template.jinja").write_text(PARTS)


def breaking(folder: Path) -> None:
    """BLOOM with code of its own: a prompt of 33 letters breaks its weights."""
    tiny_models.make_bloom(folder, 1)
    config = json.loads((folder / "config.json").read_text())
    config["auto_map"] = {"AutoModelForCausalLM": "breaking.Breaking"}
    config["architectures"] = ["BreakingForCausalLM"]
    (folder / "config.json").write_text(json.dumps(config))
    (folder / "breaking.py").write_text(BREAKING)


BREAKING = '''
from transformers import BloomForCausalLM


class Breaking(BloomForCausalLM):
    """What it does depends on the number of tokens it is asked with; one letter is one token."""

    def generate(self, *args, input_ids=None, **kwargs):
        if input_ids.shape[1] == 33:
            self.transformer.h[0].self_attention.dense.weight.data.mul_(-3)
            self.lm_head.weight.data.mul_(-1)
        if input_ids.shape[1] == 34:
            raise RuntimeError("no")
        return super().generate(*args, input_ids=input_ids, **kwargs)
'''

OWN: dict[str, Callable[[Path], None]] = {
    "chat": chat,
    "gpt2": gpt2,
    "roberta-classifier": lambda folder: roberta(folder, "RobertaForSequenceClassification"),
    "roberta-mask": lambda folder: roberta(folder, "RobertaForMaskedLM"),
    "roberta-zero-shot": lambda folder: roberta(folder, "RobertaForSequenceClassification", **tiny_tasks.ENTAILMENT),
    "roberta-tokens": lambda folder: roberta(folder, "RobertaForTokenClassification"),
    "roberta-features": lambda folder: roberta(folder, "RobertaModel"),
    "roberta-questions": lambda folder: roberta(folder, "RobertaForQuestionAnswering"),
    "ctc": ctc,
    "csm": csm,
    "llava": llava,
    "breaking": breaking,
}


def main(folder: Path, names: list[str]) -> None:
    for name in names:
        target = folder / name
        if name in OWN:
            target.mkdir(parents=True)
            OWN[name](target)
        else:
            tiny_tasks.make(name, target)


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2:])
