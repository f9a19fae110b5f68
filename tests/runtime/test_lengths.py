"""Inputs that are too long, and unknown tokens, are refused before the model runs, by one rule for all tasks."""

from __future__ import annotations

import json
import time

import pytest

pytest.importorskip("transformers", reason="pip install -r tests/runtime/requirements.txt")

import tiny_models
import torch
import transformers
from extended_dlc_server.errors import RequestError
from extended_dlc_server.model.loading import load_model
from extended_dlc_server.reading.counting import MOST_CHARACTERS
from extended_dlc_server.reading.decoding import Decoded
from extended_dlc_server.settings import Settings

SIZES = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4}
ROLES = {
    **{"unk_token": "<unk>", "bos_token": "<s>", "eos_token": "</s>", "pad_token": "<pad>", "mask_token": "<mask>"},
    **{"cls_token": "<s>", "sep_token": "</s>"},
}
SPECIAL = ["<s>", "<pad>", "</s>", "<unk>", "<mask>"]


def save(folder, model, tokenizer_class, **settings):
    """A model with a tokenizer for which a letter is a token."""
    folder.mkdir()
    tokenizer = tiny_models._byte_level_tokenizer(SPECIAL)
    torch.manual_seed(1)
    model(tokenizer.get_vocab_size()).save_pretrained(folder)
    tiny_models._save_tokenizer(tokenizer, folder, {"tokenizer_class": tokenizer_class, **settings}, ROLES)
    return folder


def roberta(words):
    """A model with 62 usable positions of 64: RoBERTa counts them from the padding id on."""
    config = transformers.RobertaConfig(
        vocab_size=words, max_position_embeddings=64, pad_token_id=1, bos_token_id=0, eos_token_id=2, **SIZES
    )
    return transformers.RobertaForSequenceClassification(config)


def gpt2(words):
    sizes = {"n_positions": 64, "n_embd": 32, "n_layer": 2, "n_head": 4}
    config = transformers.GPT2Config(vocab_size=words, bos_token_id=0, eos_token_id=2, **sizes)
    return transformers.GPT2LMHeadModel(config)


def loaded(folder, task=None, **settings):
    (model,) = load_model(Settings(model_folder=folder, task=task, **settings))
    return model


@pytest.fixture(scope="module")
def classifier(tmp_path_factory):
    return loaded(save(tmp_path_factory.mktemp("models") / "roberta", roberta, "PreTrainedTokenizerFast"))


@pytest.fixture(scope="module")
def writer(tmp_path_factory):
    return loaded(save(tmp_path_factory.mktemp("models") / "gpt2", gpt2, "PreTrainedTokenizerFast"))


def ask(model, inputs, **parameters):
    return json.loads(model.answer(Decoded(inputs=inputs, parameters=parameters)))


def refused(model, inputs, **parameters):
    with pytest.raises(RequestError) as raised:
        model.answer(Decoded(inputs=inputs, parameters=parameters))
    assert raised.value.status == 400
    return raised.value


def test_a_text_may_fill_the_usable_positions_and_no_more(classifier):
    room = 62 - classifier.pipeline.tokenizer.num_special_tokens_to_add()
    for length in (1, room - 1, room):
        assert ask(classifier, "x" * length)
    for length in (room + 1, 64, 66, 500, 10**6):
        assert refused(classifier, "x" * length).code == "inputs-too-long"


def test_truncation_is_honoured_and_said(classifier):
    room = 62 - classifier.pipeline.tokenizer.num_special_tokens_to_add()
    request = Decoded(inputs="x" * 200, parameters={"truncation": True})
    assert json.loads(classifier.answer(request)) == ask(classifier, "x" * room)
    assert request.cut == 200 - room
    assert ask(classifier, "x" * 10**6, truncation=True) == ask(classifier, "x" * room)
    assert ask(classifier, "xyz", truncation=True, max_length=room) == ask(classifier, "xyz")
    assert refused(classifier, "x" * 200, truncation=False).code == "inputs-too-long"


def test_a_long_text_is_given_up_early(classifier):
    started = time.process_time()
    refused(classifier, "fox dog " * 3_000_000)
    refused(classifier, ["x", "fox dog " * 3_000_000])
    refused(classifier, " " * 3_000_000)
    assert time.process_time() - started < 1


def test_every_text_of_a_list_and_both_of_a_pair_are_looked_at(classifier):
    assert refused(classifier, ["x", "x" * 70]).code == "inputs-too-long"
    assert refused(classifier, {"text": "x", "text_pair": "x" * 70}).code == "inputs-too-long"
    assert ask(classifier, {"text": "x", "text_pair": "y"})


def test_a_pair_shares_the_positions(classifier):
    tokenizer = classifier.pipeline.tokenizer
    room = 62 - tokenizer.num_special_tokens_to_add(pair=True)
    assert ask(classifier, {"text": "x" * 5, "text_pair": "y" * (room - 5)})
    assert refused(classifier, {"text": "x" * 6, "text_pair": "y" * (room - 5)}).code == "inputs-too-long"
    cut = Decoded(inputs={"text": "x" * 500, "text_pair": "y" * 5}, parameters={"truncation": True})
    whole = {"text": "x" * (room - 5), "text_pair": "y" * 5}
    assert json.loads(classifier.answer(cut)) == ask(classifier, whole)
    assert cut.inputs == whole


def test_many_long_texts_are_cut_in_one_go(classifier):
    started = time.process_time()
    request = Decoded(inputs=["x" * 100 + str(number) for number in range(3000)], parameters={"truncation": True})
    classifier.prepare(request)
    assert time.process_time() - started < 10
    assert {len(text) for text in request.inputs} == {62 - classifier.pipeline.tokenizer.num_special_tokens_to_add()}


def test_prompt_and_new_tokens_share_the_positions(writer):
    assert ask(writer, "x" * 60, max_new_tokens=4)
    error = refused(writer, "x" * 60, max_new_tokens=5)
    assert "64" in error.message
    assert "max_new_tokens" in error.message
    assert refused(writer, "x" * 10, max_length=65).code == "inputs-too-long"
    assert refused(writer, "x" * 65).code == "inputs-too-long"
    assert refused(writer, "x", max_new_tokens=100).code in ("bad-parameters", "inputs-too-long")


def test_a_default_that_has_no_positions_is_made_shorter(writer):
    """The pipeline's default are 256 new tokens."""
    (answer,) = ask(writer, "x" * 10, do_sample=False)
    assert answer["generated_text"].startswith("x" * 10)


def test_what_a_request_may_have_by_default_is_known_from_the_start(writer, monkeypatch):
    """Looking through the whole configuration takes longer than counting a short text's tokens."""

    def walk(*_):
        raise AssertionError("asked at each request")

    monkeypatch.setattr(type(writer.pipeline.model.generation_config), "to_diff_dict", walk)
    request = Decoded(inputs="x" * 10, parameters={})
    writer.prepare(request)
    assert request.arguments["max_new_tokens"] == 64 - 10


def test_settings_narrow_the_limits(tmp_path):
    model = loaded(save(tmp_path / "m", gpt2, "PreTrainedTokenizerFast"), max_input_tokens=8, max_new_tokens=3)
    assert ask(model, "x" * 8, max_new_tokens=3)
    assert refused(model, "x" * 9, max_new_tokens=3).code == "inputs-too-long"
    assert "from 1 to 3" in refused(model, "x", max_new_tokens=4).message


def test_a_token_that_the_model_has_no_row_for_is_400(tmp_path):
    """As after tokens were added without resizing the model: on a GPU such a token would end the process."""
    folder = save(tmp_path / "m", lambda words: gpt2(words - 1), "PreTrainedTokenizerFast")
    model = loaded(folder)
    word = model.pipeline.tokenizer.decode([len(model.pipeline.tokenizer) - 1])
    assert ask(model, "x", max_new_tokens=1)
    assert "tokenizer has more tokens" in refused(model, word * 3, max_new_tokens=1).message


def test_two_threads_may_tokenize(classifier):
    """A fast tokenizer panics ("Already borrowed") where one thread sets its padding while another one reads."""
    from concurrent.futures import ThreadPoolExecutor

    counter = classifier.preparation.lengths.counter
    with ThreadPoolExecutor(4) as pool:
        counts = [pool.submit(counter.count, "x y" * 2000, 100_000) for _ in range(200)]
        for index in range(200):
            classifier.pipeline.tokenizer(["x", "xyz"], padding=bool(index % 2))
    assert {count.result() for count in counts} == {6000}


def test_pieces_count_as_the_whole(classifier):
    counter = classifier.preparation.lengths.counter
    text = "grüße aus Köln " * 4000
    assert counter.count(text, 10**6) >= len(text)
    assert counter.count(text, 100) > 100
    assert counter.count("x" * (MOST_CHARACTERS * 10 + 1), 10) > 10


def test_a_placeholder_without_an_image_is_400(tmp_path):
    """Each placeholder is replaced by the tokens of an image."""
    from PIL import Image

    from tests.runtime import tiny_tasks

    tiny_tasks.make("image-text-to-text", tmp_path / "m")
    model = loaded(tmp_path / "m", task="image-text-to-text")
    image = Image.new("RGB", (40, 40))
    assert ask(model, {"images": image, "text": "<image>hello"}, max_new_tokens=1)
    assert "once for each image" in refused(model, {"images": image, "text": "<image>" * 2000}).message


@pytest.fixture(scope="module")
def seeing(tmp_path_factory):
    """A LLaVA with 40 positions, of which an image takes 16."""
    from tests.runtime import tiny_tasks

    folder = tmp_path_factory.mktemp("models") / "llava"
    tiny_tasks.make("image-text-to-text", folder)
    return loaded(folder, task="image-text-to-text", max_input_tokens=40)


def with_images(count, text="", chat=False):
    from PIL import Image

    images = [Image.new("RGB", (40, 40))] * count
    if not chat:
        return {"images": images, "text": "<image>" * count + text}
    parts = [{"type": "image", "image": image} for image in images]
    return [{"role": "user", "content": [*parts, {"type": "text", "text": text}]}]


@pytest.mark.parametrize("chat", [False, True])
def test_images_count_as_the_tokens_that_they_become(seeing, chat):
    request = Decoded(inputs=with_images(2, "hello", chat), parameters={"max_new_tokens": 1})
    seeing.prepare(request)
    with pytest.raises(RequestError, match="the 3 images of 'inputs' take 48 tokens and the model takes 40") as raised:
        seeing.prepare(Decoded(inputs=with_images(3, "hello", chat), parameters={}))
    assert (raised.value.status, raised.value.code) == (400, "inputs-too-long")
    with pytest.raises(RequestError, match="tokens and the model takes"):
        seeing.prepare(Decoded(inputs=with_images(2, "x" * 20, chat), parameters={}))


def test_images_of_a_processor_that_does_not_say_are_counted_before_the_model(seeing, monkeypatch):
    monkeypatch.delattr(type(seeing.pipeline.processor), "_get_num_multimodal_tokens")
    assert ask(seeing, with_images(2, "hello"), max_new_tokens=1)
    assert "48 tokens with those of its images" in refused(seeing, with_images(3), max_new_tokens=1).message


def test_images_prompt_and_new_tokens_share_the_positions(seeing, monkeypatch):
    monkeypatch.setattr(seeing.preparation.lengths.limits, "positions", 40)
    assert ask(seeing, with_images(2, "hello"), max_new_tokens=3)
    assert ask(seeing, with_images(2, "hello"), generate_kwargs={"max_new_tokens": 3})
    assert "40 positions for both" in refused(seeing, with_images(2, "hello"), max_new_tokens=10).message
    assert ask(seeing, with_images(2, "hello"))  # by default 256, of which there are positions for 3


def test_thousands_of_images_are_refused_unread(seeing):
    assert "at most 256" in refused(seeing, with_images(257)).message


@pytest.mark.parametrize(
    ("size", "options", "fits"),
    [
        ((9000, 9000), {"do_resize": False}, False),
        ((1500, 1500), {"do_resize": False}, True),
        ((9000, 9000), {"do_resize": True}, True),
        ((9000, 9000), {"size": {"height": 2048, "width": 2048}}, True),
        ((100, 9000), {"size": {"shortest_edge": 2048}}, False),
        ((9000, 100), {"size": {"shortest_edge": 400}}, False),
        ((100, 9000), {"size": {"shortest_edge": 2048, "longest_edge": 2048}}, True),
        ((9000, 9000), {"do_normalize": False}, True),
    ],
)
def test_an_image_is_no_larger_as_the_model_gets_it_than_a_request_may_ask_for(size, options, fits):
    from types import SimpleNamespace

    from extended_dlc_server.reading.image_tokens import check_resizing

    image = SimpleNamespace(width=size[0], height=size[1], size=size, getpixel=None)
    processor = SimpleNamespace(size={"height": 224, "width": 224})
    if fits:
        check_resizing([image], options, processor)
        return
    with pytest.raises(RequestError, match="'do_resize'") as raised:
        check_resizing([image], options, processor)
    assert raised.value.status == 413


def test_a_token_that_a_tokenizer_puts_in_by_itself_is_400_where_the_model_has_no_row(tmp_path):
    """TAPAS has a token for empty cells, and takes "nan" and control characters as such cells."""
    from tests.runtime import tiny_tasks

    tiny_tasks.make("table-question-answering", tmp_path / "m")
    model = loaded(tmp_path / "m", task="table-question-answering")
    tables = [{"a": [cell, "1"], "b": ["x", "y"]} for cell in ("nan", "\0", " ")]
    assert ask(model, {"query": "how many", "table": {"a": ["1", "2"]}})
    for table in tables:
        assert "tokenizer has more tokens" in refused(model, {"query": "how many", "table": table}).message
    # a model whose vocabulary has the token
    model.pipeline.model.resize_token_embeddings(len(model.pipeline.tokenizer))
    model.preparation.lengths.ids.vocabulary = len(model.pipeline.tokenizer)
    for table in tables:
        assert "cells" in ask(model, {"query": "how many", "table": table})


def test_a_code_that_the_codec_does_not_know_is_400(tmp_path):
    """A speech model has more codes than its codec, and may generate them."""
    from tests.attack import models

    (tmp_path / "m").mkdir()
    models.csm(tmp_path / "m")
    model = loaded(tmp_path / "m", task="text-to-audio")
    codec = model.pipeline.model.codec_model
    size = codec.config.codebook_size
    assert codec.decode(torch.full((1, 4, 2), size - 1)).audio_values.numel()
    with pytest.raises(RequestError, match=f"its codec does not know, which has {size}") as raised:
        codec.decode(torch.full((1, 4, 2), size))
    assert raised.value.status == 400


def test_a_model_with_a_part_for_texts_and_one_for_sounds_is_read_by_the_first():
    import transformers
    from extended_dlc_server.reading.positions import text_config

    parts = {
        "text_encoder": transformers.T5Config(d_model=24).to_dict(),
        "audio_encoder": transformers.EncodecConfig().to_dict(),
        "decoder": transformers.MusicgenDecoderConfig(pad_token_id=0, bos_token_id=0).to_dict(),
    }
    assert text_config(transformers.MusicgenConfig(**parts)).hidden_size == 24
    assert text_config(transformers.BertConfig(hidden_size=36)).hidden_size == 36
