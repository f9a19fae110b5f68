"""Tiny models that generate prescribed texts: each token is followed by a fixed one, whatever comes before it.

A Llama whose layers add nothing: the embedding of a token is a unit vector, and the head has the next token's in its
place. The tokenizer has a token for each piece of text that is to be said.
"""

from __future__ import annotations

import itertools
import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any


def make_chain(folder: Path, chains: Iterable[tuple[str, ...]], template: str, special: Iterable[str] = ()) -> Path:
    """A model that continues a chain of pieces from the first one to its end, and then stops.

    Pieces are tokens of their own; those in `special` are special ones, which decoding leaves out.
    """
    import torch
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers
    from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

    vocabulary = {letter: index for index, letter in enumerate(sorted(pre_tokenizers.ByteLevel.alphabet()))}
    backend = Tokenizer(models.BPE(vocab=vocabulary, merges=[]))
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = decoders.ByteLevel()
    tokenizer: Any = PreTrainedTokenizerFast(
        tokenizer_object=backend,
        bos_token="<s>",
        eos_token="</s>",
        pad_token="<pad>",
        clean_up_tokenization_spaces=False,
    )
    chains, special = list(chains), list(special)
    pieces = dict.fromkeys(piece for chain in chains for piece in chain)
    tokenizer.add_special_tokens({"additional_special_tokens": special})
    tokenizer.add_tokens([piece for piece in pieces if piece not in special])
    tokenizer.chat_template = template
    size = len(tokenizer)
    config = LlamaConfig(
        vocab_size=size,
        hidden_size=size + size % 2,
        intermediate_size=8,
        num_hidden_layers=1,
        num_attention_heads=1,
        max_position_embeddings=4096,
        tie_word_embeddings=False,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )
    model = LlamaForCausalLM(config)
    follows = dict.fromkeys(range(size), tokenizer.eos_token_id)
    for chain in chains:
        ids = [tokenizer.convert_tokens_to_ids(piece) for piece in chain]
        follows.update(itertools.pairwise(ids))
    with torch.no_grad():
        for name, weight in model.named_parameters():
            if name.endswith(("o_proj.weight", "down_proj.weight", "lm_head.weight", "embed_tokens.weight")):
                weight.zero_()
        for token, following in follows.items():
            model.model.embed_tokens.weight[token, token] = 1.0
            # with 1.0, a request that samples would hear another token once in 80,000, which fails a run of the clients
            # now and then
            model.lm_head.weight[following, token] = 4.0
    model.generation_config.eos_token_id = tokenizer.eos_token_id
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    tokenizer_config = folder / "tokenizer_config.json"
    # a name that the oldest release knows, and the template where it reads it
    written = {
        **json.loads(tokenizer_config.read_text()),
        "tokenizer_class": "PreTrainedTokenizerFast",
        "chat_template": template,
    }
    tokenizer_config.write_text(json.dumps(written))
    return folder
