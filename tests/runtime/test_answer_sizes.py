"""The response to a small request may neither fill the memory nor occupy the model for long."""

from __future__ import annotations

import json
import time
from types import SimpleNamespace

import pytest

pytest.importorskip("transformers", reason="pip install -r tests/runtime/requirements.txt")

import numpy as np
import torch
from extended_dlc_server.errors import RequestError
from extended_dlc_server.json_text import encode_json
from extended_dlc_server.machine import ending
from extended_dlc_server.model import answer_sizes
from extended_dlc_server.model.loading import load_model
from extended_dlc_server.reading.decoding import Decoded
from extended_dlc_server.settings import Settings
from PIL import Image
from transformers.utils import ModelOutput

from tests.runtime import tiny_tasks

MOST = 100_000
PIXELS = Image.new("RGB", (40, 30))
REQUESTS = {
    "feature-extraction": ("hello world", 100, {}),
    "fill-mask": ("hello [MASK]", 200, {}),
    "image-classification": (PIXELS, 300, {}),
    "image-feature-extraction": (PIXELS, 20, {}),
    "text-classification": ("hello", 250, {"top_k": None}),
    "token-classification": ("hello world", 200, {}),
    "zero-shot-classification": ("hello", 100, {"candidate_labels": ["a" * 500, "b" * 500]}),
}
"""Task -> an input, the number of such inputs with a response above 100 KB, and parameters."""


@pytest.fixture
def load(tmp_path, monkeypatch):
    monkeypatch.setattr(answer_sizes, "container_bytes", lambda: MOST * answer_sizes.ANSWER_SHARE)

    def load(task, make=None):
        (make or (lambda folder: tiny_tasks.make(task, folder)))(tmp_path / "m")
        (model,) = load_model(Settings(model_folder=tmp_path / "m", task=task))
        return model

    return load


def ask(model, inputs, is_over=lambda: False, **parameters):
    with ending.running(is_over):
        return json.loads(model.answer(Decoded(inputs=inputs, parameters=parameters)))


@pytest.mark.parametrize("task", REQUESTS)
def test_what_many_inputs_are_answered_with_is_given_up_where_it_is_too_much(load, task):
    one, many, parameters = REQUESTS[task]
    model = load(task)
    assert ask(model, one, **parameters)
    assert ask(model, [one, one], **parameters)
    with pytest.raises(RequestError, match="send fewer inputs") as raised:
        ask(model, [one] * many, **parameters)
    assert (raised.value.status, raised.value.code) == (413, "answer-too-large")
    assert ask(model, [one, one], **parameters)  # each request is counted from zero


def make_mask_filler(folder):
    """BERT with 3,000 words and 512 positions."""
    import tiny_models
    import transformers

    folder.mkdir()
    words = tiny_models._save_word_pieces(folder, "BertTokenizer")
    vocabulary = folder / "vocab.txt"
    if vocabulary.exists():
        vocabulary.write_text("\n".join([*words, *(f"word{number}" for number in range(3000))]))
        for name in ("tokenizer.json",):
            (folder / name).unlink(missing_ok=True)
    sizes = {**tiny_tasks.LAYERS, "max_position_embeddings": 512}
    transformers.BertForMaskedLM(transformers.BertConfig(vocab_size=len(words) + 3000, **sizes)).save_pretrained(folder)


def test_all_tokens_for_each_of_many_masks_are_refused_before_they_are_made(load):
    model = load("fill-mask", make_mask_filler)
    assert len(ask(model, "hello [MASK]", top_k=20)) == 20
    started = time.process_time()
    with pytest.raises(RequestError, match="'top_k'"):
        ask(model, "[MASK]" * 300, top_k=3000)
    assert time.process_time() - started < 5


def test_thousands_of_tokens_for_a_mask_end_with_the_one_who_asked(load, monkeypatch):
    monkeypatch.setattr(answer_sizes, "container_bytes", lambda: 10**12)
    (model,) = (load("fill-mask", make_mask_filler),)
    started, asked = time.process_time(), []

    def is_over():
        asked.append(None)
        return len(asked) > 100

    with pytest.raises(ending.EndedError):
        ask(model, "[MASK]" * 300, is_over, top_k=3000)
    assert time.process_time() - started < 10


def test_scores_of_each_class_as_large_as_the_image_are_refused_before_they_are_made(load, monkeypatch):
    model = load("image-segmentation")
    assert ask(model, PIXELS)
    with pytest.raises(RequestError, match="a smaller image"):
        ask(model, Image.new("RGB", (1000, 1000)))


def test_masks_are_weighed_before_each_becomes_an_image(monkeypatch):
    """The pipeline of mask-generation makes a list of all masks that it found."""
    from transformers.models.sam import image_processing_pil_sam as sam

    monkeypatch.setattr(sam, "_rle_to_mask", sam._rle_to_mask)
    answer_sizes._weigh_masks(type("Processor", (), {"__module__": sam.__name__})(), MOST)
    runs = {"size": [70, 100], "counts": [2_000, 5_000]}
    with ending.running(lambda: False):
        assert [sam._rle_to_mask(runs).sum() for _ in range(2)] == [5_000] * 2
        with pytest.raises(RequestError, match="a smaller image"):
            sam._rle_to_mask(runs)


def test_a_depth_is_refused_before_it_has_the_size_of_its_image(load, monkeypatch):
    monkeypatch.setattr(answer_sizes, "container_bytes", lambda: 10 * MOST * answer_sizes.ANSWER_SHARE)
    model = load("depth-estimation")
    scale, scaled = model.pipeline.image_processor.post_process_depth_estimation, []
    monkeypatch.setattr(
        model.pipeline.image_processor,
        "post_process_depth_estimation",
        lambda made, sizes: scaled.append(sizes) or scale(made, sizes),
    )
    assert len(ask(model, [PIXELS, PIXELS])) == 2
    with pytest.raises(RequestError, match="a smaller image"):
        ask(model, Image.new("RGB", (200, 200)))
    assert len(scaled) == 2


@pytest.mark.parametrize(
    ("task", "made", "options", "fits"),
    [
        ("feature-extraction", [torch.zeros(1, 20, 50)], {}, True),
        ("feature-extraction", [torch.zeros(1, 50, 50)], {}, False),
        (
            "image-feature-extraction",
            ModelOutput(all=torch.zeros(1, 50, 50), pooler_output=torch.zeros(1, 50)),
            {},
            False,
        ),
        (
            *("image-feature-extraction", ModelOutput(all=torch.zeros(1, 50, 50), pooler_output=torch.zeros(1, 50))),
            *({"pool": True}, True),
        ),
        ("image-to-image", {"reconstruction": torch.zeros(1, 3, 100, 100)}, {}, True),
        ("image-to-image", {"reconstruction": torch.zeros(1, 3, 200, 200)}, {}, False),
    ],
)
def test_what_is_to_be_answered_is_weighed_as_the_model_makes_it(task, made, options, fits):
    with ending.running(lambda: False):
        if fits:
            answer_sizes._BEFORE[task](None, made, MOST, options)
            return
        with pytest.raises(RequestError) as raised:
            answer_sizes._BEFORE[task](None, made, MOST, options)
    assert (raised.value.status, raised.value.code) == (413, "answer-too-large")


def test_masks_of_segments_are_weighed_one_by_one():
    """There may be one mask for each label of the model, each as large as the image."""
    module = SimpleNamespace(Image=Image)
    answer_sizes._weigh_segment_masks(module, MOST)
    answer_sizes._weigh_segment_masks(module, 1)  # a second copy of the model does not wrap the functions again
    mask = np.zeros((200, 200), np.uint8)
    with ending.running(lambda: False):
        assert [module.Image.fromarray(mask).size for _ in range(2)] == [(200, 200)] * 2
        with pytest.raises(RequestError, match="a smaller image"):
            module.Image.fromarray(mask)
    assert module.Image.open is Image.open


def test_so_few_points_are_read_at_once_that_their_masks_fit():
    """Each point has three masks, which are scaled to the size of the image before most of them are dropped."""
    read = []
    pipeline = SimpleNamespace(
        model=SimpleNamespace(config=SimpleNamespace(mask_decoder_config=SimpleNamespace(num_multimask_outputs=3))),
        preprocess=lambda image, points_per_batch, **options: read.append((points_per_batch, options)),
    )
    answer_sizes._upscale_few_masks(pipeline, 10 * 3 * 8 * 40 * 30)
    for points in (64, 5, None):
        pipeline.preprocess(PIXELS, points_per_batch=points, crops_n_layers=1)
    pipeline.preprocess(Image.new("RGB", (10, 10)))
    assert read == [*((points, {"crops_n_layers": 1}) for points in (10, 5, 10)), (64, {})]
    with pytest.raises(RequestError, match="a smaller image"):
        pipeline.preprocess(Image.new("RGB", (400, 300)))


@pytest.mark.parametrize(
    "value",
    [
        [[0.123456789] * 500] * 30,
        [{"entity": "LABEL_1", "score": np.float32(0.5), "word": "hello", "start": 0, "end": 5}] * 1000,
        {"audio": np.linspace(0, 1, 20_000, dtype=np.float32), "sampling_rate": 16_000},
        torch.rand(3, 50, 70),
        [np.zeros((100, 100), bool)] * 5,
        ["x" * 10_000, None, True, 3],
    ],
)
def test_an_answer_weighs_what_is_written_of_it_and_no_more_than_some_times_that(value):
    written = len(encode_json(value))
    assert written <= answer_sizes.weight(value) < 15 * written + 1000
