"""The models that the clients call: `python models.py FOLDER TASK …`, with the release that will serve them.

tests/runtime and docker/inference, whose modules make tiny models, are on the path.

It writes FOLDER/TASK for each task of the release, and `chat` (a model with prescribed texts, with tools and
reasoning), `text` (a random BLOOM), `embed` (a sentence-transformers repository) and `whisper`, and prints their names.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

import chain_models
import tiny_models
import tiny_tasks

# Tool calls in Hermes' form, and reasoning where it is requested.
TEMPLATE = """{%- for m in messages -%}
<|{{ m.role }}|>{{ m.content }}
{%- for call in m.tool_calls or [] %}<tool_call>{{ call.function.name }}{{ call.function.arguments | tojson }}
{%- endfor -%}
{%- endfor -%}
{%- if add_generation_prompt -%}
{%- if messages[-1].role == 'tool' %}<|heard|>
{%- elif tools %}<|tools|>
{%- elif enable_thinking is defined and enable_thinking %}<|thinks|>
{%- else %}<|plain|>
{%- endif -%}{%- endif -%}{# within <tool_call></tool_call> XML tags; <think></think> #}"""
ROLES = ["system", "user", "assistant", "tool"]
CITY = ' "arguments": {"city": "Köln"}}\n'
CHAINS = [
    ("<|plain|>", "Hello", " you", ", and", " good", " day", "."),
    ("<|thinks|>", "<think>", "\nHm.\n", "</think>", "\n\nHi", " there."),
    ("<|tools|>", "I look.\n", "<tool_call>", '\n{"name": "get_weather",', CITY, "</tool_call>", "\n"),
    ("<|heard|>", "It is", " warm."),
]


def make_chat(folder: Path) -> None:
    """A model with a chat template."""
    special = [f"<|{name}|>" for name in ("plain", "thinks", "tools", "heard", *ROLES)]
    chain_models.make_chain(folder, CHAINS, TEMPLATE, special)


def make_embed(folder: Path) -> None:
    """BERT with the normalised mean of its tokens."""
    import torch
    import transformers

    folder.mkdir()
    words = tiny_models._save_word_pieces(folder, "BertTokenizer")
    torch.manual_seed(1)
    sizes = {**tiny_tasks.LAYERS, "vocab_size": len(words), "max_position_embeddings": 64}
    transformers.BertModel(transformers.BertConfig(**sizes, initializer_range=0.5)).save_pretrained(folder)
    kinds = {"": "Transformer", "1_Pooling": "Pooling", "2_Normalize": "Normalize"}
    modules = [
        {"idx": index, "name": str(index), "path": path, "type": f"sentence_transformers.models.{kind}"}
        for index, (path, kind) in enumerate(kinds.items())
    ]
    for path in list(kinds)[1:]:
        (folder / path).mkdir()
    written = {
        "modules.json": modules,
        "sentence_bert_config.json": {"max_seq_length": 64, "do_lower_case": False},
        "config_sentence_transformers.json": {"prompts": {"query": "find: "}, "default_prompt_name": None},
        "1_Pooling/config.json": {"word_embedding_dimension": 32, "pooling_mode_mean_tokens": True},
    }
    for name, content in written.items():
        (folder / name).write_text(json.dumps(content))


def _join_pieces(file: Path) -> None:
    """Set the decoder that joins word pieces, because groups of tokens are returned as words."""
    written = json.loads(file.read_text())
    file.write_text(json.dumps({**written, "decoder": {"type": "WordPiece", "prefix": "##", "cleanup": True}}))


def main(folder: Path, *tasks: str) -> None:
    """Make all models."""
    from transformers.pipelines import SUPPORTED_TASKS, TASK_ALIASES

    make_chat(folder / "chat")
    make_embed(folder / "embed")
    for name, make in (("text", tiny_models.make_bloom), ("whisper", tiny_models.make_whisper)):
        (folder / name).mkdir()
        make(folder / name, 1)
    has = {*SUPPORTED_TASKS, *TASK_ALIASES}
    present = [task for task in tasks if task in has]
    for task in present:
        tiny_tasks.make(task, folder / task)
        if task == "token-classification":
            _join_pieces(folder / task / "tokenizer.json")
    print(json.dumps(["chat", "embed", "text", "whisper", *present]))


if __name__ == "__main__":
    main(Path(sys.argv[1]), *sys.argv[2:])
