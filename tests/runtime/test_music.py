"""Music by text: a tiny random MusicGen takes the parameters that the Hub's clients send, within its positions."""

from __future__ import annotations

import pytest
from extended_dlc_server.errors import RequestError
from extended_dlc_server.reading.parameter_table import Limits
from extended_dlc_server.reading.parameters import Parameters

torch = pytest.importorskip("torch", reason="pip install -r tests/runtime/requirements.txt")
transformers = pytest.importorskip("transformers", reason="pip install -r tests/runtime/requirements.txt")

SAMPLES_A_TOKEN = 8 * 5 * 4
POSITIONS = 16


@pytest.fixture(scope="module")
def music(tmp_path_factory):
    from tokenizers import Tokenizer, models, pre_tokenizers

    text = transformers.T5Config(vocab_size=300, d_model=16, d_kv=4, d_ff=32, num_layers=1, num_heads=2)
    sound = transformers.EncodecConfig(
        target_bandwidths=[1.5],
        sampling_rate=8000,
        num_filters=4,
        upsampling_ratios=[8, 5, 4],
        codebook_size=64,
        codebook_dim=16,
        hidden_size=16,
        num_lstm_layers=1,
    )
    codes = {"vocab_size": 64, "num_codebooks": 2, "pad_token_id": 64, "bos_token_id": 64}
    sizes = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "ffn_dim": 32}
    decoder = transformers.MusicgenDecoderConfig(**codes, **sizes, max_position_embeddings=POSITIONS)
    parts = {"text_encoder": text.to_dict(), "audio_encoder": sound.to_dict(), "decoder": decoder.to_dict()}
    torch.manual_seed(1)
    model = transformers.MusicgenForConditionalGeneration(transformers.MusicgenConfig(**parts))
    model.generation_config.update(max_length=20, guidance_scale=3.0, decoder_start_token_id=64, pad_token_id=64)
    folder = tmp_path_factory.mktemp("music")
    model.save_pretrained(folder)
    letters = {letter: index for index, letter in enumerate(sorted(pre_tokenizers.ByteLevel.alphabet()))}
    backend = Tokenizer(models.BPE(vocab=letters, merges=[]))
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    names = ["input_ids", "attention_mask"]
    transformers.PreTrainedTokenizerFast(
        tokenizer_object=backend, pad_token="</s>", eos_token="</s>", model_input_names=names
    ).save_pretrained(folder)
    return transformers.pipeline("text-to-audio", model=str(folder))


SENT = (
    ({"max_new_tokens": 5}, 5),
    ({"max_new_tokens": 5, "do_sample": False, "guidance_scale": 1.5}, 5),
    ({"generation_parameters": {"max_new_tokens": 5, "do_sample": True, "temperature": 0.5, "top_k": 5}}, 5),
    ({"generate_kwargs": {"max_new_tokens": 5}, "top_p": 0.9, "do_sample": True, "typical_p": 0.9}, 5),
    ({"temperature": 0, "max_length": 7}, 6),
    ({"max_new_tokens": POSITIONS - 1, "use_cache": True}, POSITIONS - 1),
)


def test_parameters_of_generation_are_taken_within_the_positions_of_the_decoder(music):
    parameters = Parameters(music, "text-to-audio", Limits(input_tokens=512, new_tokens=8192, vocabulary=300))
    for sent, tokens in SENT:
        made = music("hello", **parameters.check(sent))
        # the codebooks are delayed against each other, which takes a token for each but the first
        assert made["audio"].shape[-1] == (tokens - 1) * SAMPLES_A_TOKEN, sent
    for sent, says in (
        ({"max_new_tokens": POSITIONS}, f"from 1 to {POSITIONS - 1}"),
        ({"max_length": POSITIONS + 1}, f"from 1 to {POSITIONS}"),
        ({"repetition_penalty": 1.1}, "those of sound come in several"),
        ({"num_return_sequences": 2}, "a text gets one sound"),
    ):
        with pytest.raises(RequestError) as refused:
            parameters.check(sent)
        assert says in refused.value.message
