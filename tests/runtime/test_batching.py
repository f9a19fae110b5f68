"""Requests that arrive together run in one batch, which does not change their answers."""

from __future__ import annotations

import asyncio
import gc
import io
import json
import threading
import time
import wave
import weakref
from collections import deque
from concurrent.futures import ThreadPoolExecutor

import pytest

pytest.importorskip("numpy", reason="pip install -r tests/runtime/requirements.txt")

from extended_dlc_server import errors
from extended_dlc_server.machine import worker
from extended_dlc_server.model import batching, speech
from extended_dlc_server.writing import comparing

GREEDY = {"max_new_tokens": 6, "do_sample": False}
WORDS = ["hello", "the quick brown fox", "a", "grüße", "amazon sagemaker serves models", "ping", "x y z", "1 2 3 4 5 6"]


def letters(count):
    """A prompt of that many tokens: the tiny tokenizers count letters."""
    return {"inputs": "x" * count, "parameters": GREEDY}


def at_once(server, bodies):
    with ThreadPoolExecutor(len(bodies)) as pool:
        return list(pool.map(server.ask, bodies))


def largest_batch(server):
    lines = [json.loads(line) for line in server.log.splitlines() if line.startswith('{"event"')]
    return max(line.get("batch", 0) for line in lines)


# the worker, without a model


class Recorder:
    """A stand-in for a model: runs batches of numbers, and records them."""

    def __init__(self, *, queue_length=100, most=4, fails=(), seconds=0.0):
        self.batches, self.fails, self.most, self.seconds = [], fails, most, seconds
        self.hold = threading.Event()
        self.worker = worker.Worker(lambda: [self], queue_length=queue_length)
        self.worker.start()
        while self.worker.state is worker.State.LOADING:
            time.sleep(0.001)

    def run(self, items):
        self.batches.append(list(items))
        time.sleep(self.seconds)
        if set(items) & set(self.fails):
            raise ValueError("one of them")
        return [item * 10 if item != 7 else errors.RequestError(406, "seven", "no") for item in items]

    def submit(self, item, key="same"):
        shared = None if key is None else worker.Shared(key=key, item=item, most=self.most, run=Recorder.run)

        def alone(copy):
            (result,) = copy.run([item])
            return result

        return self.worker.submit(alone, shared).future

    def busy(self):
        return self.worker.submit(lambda _: self.hold.wait(5)).future


def ask_together(recorder, items, cancel=()):
    """Queue (number, key) pairs while another job runs; return their results."""

    async def ask():
        busy = recorder.busy()
        await asyncio.sleep(0.05)
        futures = [recorder.submit(*item) for item in items]
        for index in cancel:
            futures[index].cancel()
        recorder.hold.set()
        await busy
        return await asyncio.gather(*futures, return_exceptions=True)

    return asyncio.run(ask())


def test_what_has_queued_runs_together_and_each_gets_its_own_result():
    recorder = Recorder()
    assert ask_together(recorder, [(number, "same") for number in (1, 2, 3)]) == [10, 20, 30]
    assert recorder.batches == [[1, 2, 3]]


def test_different_keys_never_mix_and_the_oldest_goes_first():
    recorder = Recorder()
    asked = [(1, "a"), (2, "b"), (3, None), (4, "a"), (5, "b"), (6, None)]
    assert ask_together(recorder, asked) == [10, 20, 30, 40, 50, 60]
    assert recorder.batches == [[1, 4], [2, 5], [3], [6]]


def test_garbage_collection_leaves_what_was_loaded_alone():
    """A full collection looks through all objects of transformers: 0.1 s in which no request is answered."""
    recorder, later = Recorder(), [[]]
    looked_through = {id(one) for one in gc.get_objects()}
    assert id(later) in looked_through
    assert id(recorder) not in looked_through


def test_garbage_is_not_left_until_there_is_a_quarter_of_what_was_loaded():
    loaded = [[] for _ in range(500_000)]
    gc.collect()
    recorder, full = Recorder(), gc.get_stats()[2]["collections"]
    in_use: deque[list] = deque(maxlen=300)
    for _ in range(200_000):
        cycle: list = []
        cycle.append(cycle)
        in_use.append(cycle)
    assert gc.get_stats()[2]["collections"] > full
    assert (len(loaded), recorder.batches) == (500_000, [])


def test_a_batch_has_a_largest_size():
    recorder = Recorder(most=2)
    ask_together(recorder, [(number, "same") for number in (1, 2, 3, 4, 5)])
    assert recorder.batches == [[1, 2], [3, 4], [5]]


def test_one_bad_input_fails_alone():
    recorder = Recorder(fails={2})
    first, second, third = ask_together(recorder, [(1, "same"), (2, "same"), (3, "same")])
    assert (first, third) == (10, 30)
    assert isinstance(second, ValueError)
    assert recorder.batches == [[1, 2, 3], [1], [2], [3]]


def test_one_answer_that_cannot_be_written_fails_alone_and_nothing_runs_twice():
    recorder = Recorder()
    first, second = ask_together(recorder, [(1, "same"), (7, "same")])
    assert first == 10
    assert second.status == 406
    assert recorder.batches == [[1, 7]]


def test_what_a_failed_request_held_is_free_before_anybody_looks_for_garbage():
    class Large:
        pass

    recorder, held = Recorder(), []

    def fail(_):
        large = Large()
        held.append(weakref.ref(large))
        try:
            raise MemoryError
        except MemoryError as error:
            raise errors.RequestError(507, "out-of-memory", "no") from error

    async def ask():
        job = recorder.worker.submit(fail)
        with pytest.raises(errors.RequestError):
            await job.future

    gc.disable()
    try:
        asyncio.run(ask())
        deadline = time.monotonic() + 5
        while held[0]() is not None and time.monotonic() < deadline:
            time.sleep(0.01)
        is_free = held[0]() is None
    finally:
        gc.enable()
    assert is_free


def test_who_has_left_is_not_computed_for():
    recorder = Recorder()
    ask_together(recorder, [(1, "same"), (2, "same"), (3, "same")], cancel=[1])
    assert recorder.batches == [[1, 3]]


def test_an_idle_worker_waits_for_nobody():
    recorder = Recorder()

    async def ask():
        started = time.perf_counter()
        assert await recorder.submit(1) == 10
        return time.perf_counter() - started

    assert min(asyncio.run(ask()) for _ in range(5)) < 0.02


def test_a_full_queue_is_refused():
    recorder = Recorder(queue_length=2)

    async def ask():
        busy = recorder.busy()
        await asyncio.sleep(0.05)
        kept = [recorder.submit(1), recorder.submit(2)]
        with pytest.raises(errors.RequestError, match="are waiting already"):
            recorder.submit(3)
        recorder.hold.set()
        await busy
        return await asyncio.gather(*kept)

    assert asyncio.run(ask()) == [10, 20]


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        ([{"a": 1.0, "b": "x"}], [{"a": 1.009, "b": "x"}], True),
        ([{"a": 1.0}], [{"a": 1.02}], False),
        ([{"a": 100.0}], [{"a": 100.9}], True),
        ([{"a": 0.001}], [{"a": 0.002}], True),
        ([0.0, 100.0], [0.9, 100.0], True),  # a sum of large terms that is small by chance
        ([0.0, 100.0], [1.1, 100.0], False),
        ([float("-inf"), 1.0], [float("-inf"), 1.0], True),
        ([float("-inf"), 1.0], [1.0, 1.0], False),
        ([{"a": "x"}], [{"a": "y"}], False),
        ([[1.0, 2.0]], [[1.0]], False),
        ({"a": 1}, {"b": 1}, False),
        (float("nan"), 1.0, False),
    ],
)
def test_answers_are_compared_by_their_meaning(one, other, same):
    assert comparing.same(one, other, 0.01) is same


# real models: each answer equals that of the request alone


def test_generated_texts_are_the_same_together(bloom):
    bodies = [{"inputs": word, "parameters": GREEDY} for word in WORDS]
    alone = [bloom.ask(body).json for body in bodies]
    for _ in range(3):
        assert [answer.json for answer in at_once(bloom, bodies)] == alone
    assert "requests run one by one" not in bloom.log


def test_different_parameters_at_once_are_each_obeyed(bloom):
    bodies = [
        {"inputs": word, "parameters": {**GREEDY, "max_new_tokens": tokens, "min_new_tokens": tokens, **more}}
        for word in WORDS[:3]
        for tokens in (2, 5)
        for more in ({}, {"return_full_text": False}, {"repetition_penalty": 1.3})
    ]
    alone = [bloom.ask(body).json for body in bodies]
    assert [answer.json for answer in at_once(bloom, bodies)] == alone


def test_labels_and_scores_are_the_same_together(bert):
    bodies = [{"inputs": word, "parameters": more} for word in WORDS for more in ({}, {"top_k": 2})]
    alone = [bert.ask(body).json for body in bodies]
    together = [answer.json for answer in at_once(bert, bodies)]
    for one, other in zip(alone, together, strict=True):
        assert [row["label"] for row in one] == [row["label"] for row in other]
        assert [row["score"] for row in one] == pytest.approx([row["score"] for row in other], abs=1e-5)
    assert largest_batch(bert) > 1


@pytest.mark.parametrize(
    "task",
    ["feature-extraction", "token-classification", "fill-mask", "zero-shot-classification", "question-answering"],
)
def test_other_text_tasks_are_the_same_together(start_server, task):
    # the classifier lacks the heads of other tasks, which are initialised at random, without a seed: one process
    release = ["4.46.3"] if task == "question-answering" else []  # the newest has no such task
    server = start_server(
        "bert-classifier", *release, HF_TASK=task, EXTENDED_DLC_ALLOW_INCOMPLETE="true"
    ).wait_until_ready()
    bodies = [{"inputs": word} for word in WORDS]
    if task == "fill-mask":
        bodies = [{"inputs": f"{word} [MASK]"} for word in WORDS]
    elif task == "zero-shot-classification":
        bodies = [{"inputs": word, "parameters": {"candidate_labels": ["one", "another", "third"]}} for word in WORDS]
    elif task == "question-answering":
        bodies = [{"inputs": {"question": word, "context": f"{word} and so on"}} for word in WORDS]
    alone = [server.ask(body).json for body in bodies]
    together = [answer.json for answer in at_once(server, bodies * 3)]
    assert all(comparing.same(one, other, 0.002) for one, other in zip(alone * 3, together, strict=True))
    assert "requests run one by one" not in server.log
    assert largest_batch(server) > 1
    assert server.stop() == 0


def test_clips_are_transcribed_the_same_together(whisper, tone):
    clips = [tone(seconds) for seconds in (1, 2.5, 4, 29)]
    timed = {"X-Amzn-SageMaker-Custom-Attributes": "return_timestamps=true"}

    def ask(clip, headers):
        return whisper.request("POST", "/invocations", clip, {"Content-Type": "audio/wav", **headers}).json

    requests = [(clip, headers) for clip in clips for headers in ({}, timed, {})]
    alone = [ask(*request) for request in requests]
    with ThreadPoolExecutor(len(requests)) as pool:
        assert list(pool.map(lambda request: ask(*request), requests)) == alone
    assert "requests run one by one" not in whisper.log
    assert largest_batch(whisper) > 1


def noise(*seconds):
    """Clips of which no two sound the same."""
    import numpy as np

    random = np.random.default_rng(0)
    samples = [random.normal(size=int(16_000 * each)).astype(np.float32) for each in seconds]
    return [{"raw": each, "sampling_rate": 16_000} for each in samples]


def as_wav(clip):
    file = io.BytesIO()
    with wave.open(file, "wb") as audio:
        audio.setnchannels(1)
        audio.setsampwidth(2)
        audio.setframerate(clip["sampling_rate"])
        audio.writeframes((clip["raw"] * 5000).astype("<i2").tobytes())
    return file.getvalue()


def test_clips_longer_than_whispers_window_are_transcribed_the_same_together(whisper):
    """Each clip has as many windows as its own timestamps lead to; segments and timestamps are the same, too."""
    clips = [as_wav(clip) for clip in noise(31, 33, 40)]

    def ask(clip, attributes):
        headers = {"Content-Type": "audio/wav", "X-Amzn-SageMaker-Custom-Attributes": attributes}
        return whisper.request("POST", "/invocations", clip, headers).json

    forms = (f"{more};max_new_tokens=40" for more in ("language=de", "return_timestamps=true"))
    requests = [(clip, attributes) for attributes in forms for clip in clips]
    alone = [ask(*request) for request in requests]
    assert len({answer["text"] for answer in alone}) == len(requests)
    assert all("chunks" in answer for answer in alone[len(clips) :])
    with ThreadPoolExecutor(len(requests)) as pool:
        assert list(pool.map(lambda request: ask(*request), requests)) == alone
    lines = [json.loads(line) for line in whisper.log.splitlines() if line.startswith('{"event"')]
    assert max(line["batch"] for line in lines if line.get("audio_seconds", 0) > 30) > 1
    assert "a batch of" not in whisper.log


@pytest.mark.parametrize(
    ("seconds", "parameters"),
    [
        (31, {"return_timestamps": False}),
        (31, {"chunk_length_s": 30}),
        (1, {"return_timestamps": "word"}),
        (1, {"generate_kwargs": {"temperature": [0.0, 0.5]}}),
        (1, {"generate_kwargs": {"language": ["de", "fr"]}}),
        (1, {"chunk_length_s": 10}),
    ],
)
def test_speech_that_a_batch_would_change_runs_alone(transcriber, seconds, parameters):
    (audio,) = noise(seconds)
    assert transcriber.key(audio, {"generate_kwargs": {"language": "de"}}) is not None
    assert transcriber.key(audio, parameters) is None


@pytest.mark.parametrize("name", ["language", "task", "do_sample", "num_beams"])
def test_speech_with_a_parameter_of_generate_shares_a_batch(whisper, name):
    """Whichever way the release's pipeline takes the parameter."""
    value = {"language": "de", "task": "translate", "do_sample": False, "num_beams": 1}[name]
    headers = {"Content-Type": "audio/wav", "X-Amzn-SageMaker-Custom-Attributes": f"{name}={json.dumps(value)}"}
    clips, before = [as_wav(clip) for clip in noise(1, 2, 3, 4)] * 3, len(whisper.log.splitlines())
    with ThreadPoolExecutor(len(clips)) as pool:
        answers = list(pool.map(lambda clip: whisper.request("POST", "/invocations", clip, headers), clips))
    assert {answer.status for answer in answers} == {200}, answers
    lines = [json.loads(line) for line in whisper.log.splitlines()[before:] if line.startswith('{"event"')]
    assert max(line["batch"] for line in lines) > 1


def test_long_clips_share_a_batch_with_those_of_similar_length_only(transcriber):
    window, just_longer, minute, longer, four = noise(30.005, 30.02, 60, 61, 120)
    assert transcriber.key(window, {}) == transcriber.key(noise(1)[0], {})
    assert transcriber.key(just_longer, {}) == transcriber.key(minute, {})
    assert transcriber.key(longer, {}) == transcriber.key(four, {})
    assert len({transcriber.key(clip, {}) for clip in (window, minute, four)}) == 3


def test_a_batch_of_long_clips_holds_about_an_hour(transcriber):
    assert [transcriber.most(clip) for clip in noise(30, 60, 600, 1500)] == [8, 8, 6, 2]
    silent = {"raw": range(16_000 * 7200), "sampling_rate": 16_000}
    assert transcriber.most(silent) == 1


@pytest.mark.parametrize(
    ("name", "value", "shortest_alone"),
    [
        ("condition_on_prev_tokens", True, 1),
        ("no_speech_threshold", 0.6, 1),
        ("no_timestamps_token_id", None, 31),  # without timestamp tokens it uses chunks, which are not batched
    ],
)
def test_a_model_that_hears_in_another_way_hears_alone(transcriber, monkeypatch, name, value, shortest_alone):
    monkeypatch.setattr(transcriber._generation_config, name, value, raising=False)
    shared = [seconds for seconds in (1, 31) if transcriber.key(noise(seconds)[0], {}) is not None]
    assert shared == [seconds for seconds in (1, 31) if seconds < shortest_alone]


@pytest.fixture(scope="module")
def transcriber(models):
    from transformers import pipeline

    found = batching.Batching(
        pipeline("automatic-speech-recognition", str(models / "whisper")), "automatic-speech-recognition", 8
    )
    found.prove()
    assert found.size == 8
    return found


@pytest.mark.parametrize("seconds", [(1, 3, 2, 7), (31, 47, 40)])
def test_speech_that_is_searched_with_beams_runs_together(transcriber, monkeypatch, seconds):
    """Up to transformers 4.57 beams are the default: each clip's text equals that of the clip alone."""
    config = transcriber._generation_config
    for name, value in {"num_beams": 5, "suppress_tokens": [], "begin_suppress_tokens": []}.items():
        monkeypatch.setattr(config, name, value)
    clips = noise(*seconds)
    assert len({transcriber.key(clip, {}) for clip in clips}) == 1
    assert transcriber.key(clips[0], {}) is not None
    alone = [speech.transcribe(transcriber._pipeline, clip, {}) for clip in clips]
    assert len({each["text"] for each in alone}) > 1
    assert transcriber.call(clips, {}) == alone


def test_beams_share_what_is_heard(models, monkeypatch):
    """Each beam has its own text, and the encoded sound is copied for none of them."""
    from transformers import pipeline
    from transformers.cache_utils import EncoderDecoderCache

    copied = []
    reorder = EncoderDecoderCache.reorder_cache
    monkeypatch.setattr(
        EncoderDecoderCache, "reorder_cache", lambda cache, beams: copied.append(cache) or reorder(cache, beams)
    )
    task, asked = "automatic-speech-recognition", {"generate_kwargs": {"num_beams": 5, "max_new_tokens": 12}}
    plain, sharing = (pipeline(task, str(models / "whisper")) for _ in range(2))
    clips = noise(1, 3, 2)
    expected = [speech.transcribe(plain, clip, asked) for clip in clips]
    assert len({each["text"] for each in expected}) > 1
    assert len(copied) >= 12
    copied.clear()
    speech.share_what_is_heard(sharing.model)
    assert [speech.transcribe(sharing, clip, asked) for clip in clips] == expected
    assert speech.transcribe_together(sharing, clips, asked) == expected
    assert not copied


def test_images_of_all_sizes_run_together(models, tmp_path):
    from PIL import Image
    from transformers import ViTConfig, ViTForImageClassification, ViTImageProcessor, pipeline

    sizes = {"hidden_size": 32, "intermediate_size": 64, "image_size": 32, "patch_size": 8, "num_hidden_layers": 2}
    ViTForImageClassification(ViTConfig(**sizes, num_attention_heads=2, num_labels=3)).save_pretrained(tmp_path)
    ViTImageProcessor(size={"height": 32, "width": 32}).save_pretrained(tmp_path)
    ask = pipeline("image-classification", str(tmp_path))
    found = batching.Batching(ask, "image-classification", 8)
    found.prove()
    assert found.size == 8
    images = [Image.linear_gradient("L").resize(size).convert("RGB") for size in ((64, 64), (99, 40), (8, 8))]
    assert len({found.key(image, {"top_k": 2}) for image in images}) == 1
    assert comparing.same([ask(image) for image in images], found.call(images, {}), 0.002)


@pytest.mark.parametrize("norm", ["group", "layer"])
def test_sounds_run_together_only_at_one_length_where_the_model_minds_its_padding(models, tmp_path, norm):
    """wav2vec2's first models take no attention mask, and normalize over the padding too."""
    import numpy as np
    import torch
    from transformers import Wav2Vec2Config, Wav2Vec2FeatureExtractor, Wav2Vec2ForSequenceClassification, pipeline

    torch.manual_seed(0)
    sizes = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 2}
    convolutions = {"conv_dim": (32, 32), "conv_stride": (5, 4), "conv_kernel": (10, 8), "num_feat_extract_layers": 2}
    positions = {"num_conv_pos_embeddings": 16, "num_conv_pos_embedding_groups": 2}
    kind = {"feat_extract_norm": norm, "do_stable_layer_norm": norm == "layer", "num_labels": 3}
    config = Wav2Vec2Config(**sizes, **convolutions, **positions, **kind, initializer_range=0.5)
    Wav2Vec2ForSequenceClassification(config).save_pretrained(tmp_path)
    Wav2Vec2FeatureExtractor(return_attention_mask=norm == "layer").save_pretrained(tmp_path)
    found = batching.Batching(pipeline("audio-classification", str(tmp_path)), "audio-classification", 8)
    found.prove()
    assert found.size == 8
    short, long = ({"raw": np.zeros(length, np.float32), "sampling_rate": 16_000} for length in (12_000, 16_000))
    assert (found.key(short, {}) == found.key(long, {})) is (norm == "layer")


@pytest.mark.parametrize("task", ["image-classification", "object-detection"])
def test_several_images_of_one_request_run_alone(tmp_path, task):
    """Images of object-detection share a batch only if they have one size, which a list has not."""
    from extended_dlc_server.model.loading import load_model
    from extended_dlc_server.reading.decoding import Decoded
    from extended_dlc_server.settings import Settings
    from PIL import Image

    from tests.runtime import tiny_tasks

    tiny_tasks.make(task, tmp_path / "m")
    (model,) = load_model(Settings(model_folder=tmp_path / "m", task=task))
    images = [Image.new("RGB", (40, 30)), Image.new("RGB", (30, 40))]
    one, several = Decoded(inputs=images[0], parameters={}), Decoded(inputs=images, parameters={})
    assert model.prepare(one) is not None
    assert model.prepare(several) is None
    assert len(json.loads(model.answer(several))) == 2


def test_a_run_after_a_batch_waits_for_those_who_come_again():
    """Four clients send one request after the other; each batch takes 50 ms."""
    recorder = Recorder(most=8, seconds=0.05)

    async def client():
        for _ in range(5):
            await recorder.submit(1)
            await asyncio.sleep(0.002)

    async def ask():
        await asyncio.gather(*(client() for _ in range(4)))

    asyncio.run(ask())
    assert [len(batch) for batch in recorder.batches][-4:] == [4, 4, 4, 4]


def test_one_client_never_waits_not_even_after_others(monkeypatch):
    monkeypatch.setattr(worker, "longest_wait", lambda run: 5)
    recorder = Recorder(seconds=0.02)

    async def ask():
        started = time.monotonic()
        for _ in range(10):
            await recorder.submit(1)
        return time.monotonic() - started

    assert asyncio.run(ask()) < 1.5


def test_a_run_waits_no_longer_than_it_may(monkeypatch):
    """One of two clients sends no further request: the other waits the maximum time once."""
    monkeypatch.setattr(worker, "longest_wait", lambda run: 0.3)
    recorder = Recorder(seconds=0.02)

    async def ask():
        await asyncio.gather(recorder.submit(1), recorder.submit(2), recorder.submit(3))
        times = []
        for _ in range(2):
            started = time.monotonic()
            await recorder.submit(1)
            times.append(time.monotonic() - started)
        return times

    waited, not_any_more = asyncio.run(ask())
    assert 0.2 < waited < 1
    assert not_any_more < 0.2


def test_a_batch_really_runs_and_a_bad_neighbour_fails_alone(misbehaving):
    """While one request sleeps for 3 s others queue; a prompt of 50 letters raises in this model."""
    sleeper = threading.Thread(target=misbehaving.ask, args=(letters(70),))
    sleeper.start()
    time.sleep(0.5)
    bodies = [letters(count) for count in (33, 35, 50, 37)]
    before = misbehaving.log.count("a batch of 4 failed")
    answers = at_once(misbehaving, bodies)
    sleeper.join()
    assert [answer.status for answer in answers] == [200, 200, 400, 200]
    assert misbehaving.log.count("a batch of 4 failed") == before + 1
    for body, answer in zip(bodies, answers, strict=True):
        if answer.status == 200:
            assert answer.json[0]["generated_text"].startswith(body["inputs"])


def test_sixteen_clients_are_faster_than_one_whatever_each_of_them_asks_for(bloom):
    wishes = [{}, {"repetition_penalty": 1.2}, {"do_sample": True, "temperature": 0.7}, {"seed": 3, "do_sample": True}]
    bodies = [
        {"inputs": "hello", "parameters": {**GREEDY, "max_new_tokens": 16 + number, "min_new_tokens": 16, **wish}}
        for number in range(8)
        for wish in wishes
    ]

    def seconds(clients):
        started = time.monotonic()
        with ThreadPoolExecutor(clients) as pool:
            assert {answer.status for answer in pool.map(bloom.ask, bodies)} == {200}
        return time.monotonic() - started

    assert seconds(16) < seconds(1) / 1.5


def test_a_model_that_does_not_mind_its_padding_runs_one_by_one(start_server, models, tmp_path):
    """The proof at the start finds that this model answers differently in a batch."""
    folder = tmp_path / "careless"
    folder.mkdir()
    for file in (models / "misbehaving").iterdir():
        (folder / file.name).write_bytes(file.read_bytes())
    (folder / "misbehaving.py").write_text(
        "from transformers import BloomForCausalLM\n\n\nclass Misbehaving(BloomForCausalLM):\n"
        "    def forward(self, *args, attention_mask=None, **kwargs):\n"
        "        import torch\n"
        "        mask = None if attention_mask is None else torch.ones_like(attention_mask)\n"
        "        return super().forward(*args, attention_mask=mask, **kwargs)\n"
    )
    server = start_server(folder, HF_TRUST_REMOTE_CODE="true").wait_until_ready()
    assert "in a batch this model answers differently" in server.log
    bodies = [{"inputs": word, "parameters": GREEDY} for word in WORDS]
    alone = [server.ask(body).json for body in bodies]
    assert [answer.json for answer in at_once(server, bodies)] == alone
    assert server.stop() == 0
