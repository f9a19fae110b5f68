"""Requests that arrive together run together, and nobody can tell by the answer."""

from __future__ import annotations

import asyncio
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import pytest

pytest.importorskip("numpy", reason="pip install -r tests/runtime/requirements.txt")

from extended_dlc_server import batching, errors, worker

GREEDY = {"max_new_tokens": 6, "do_sample": False}
WORDS = ["hello", "the quick brown fox", "a", "grüße", "amazon sagemaker serves models", "ping", "x y z", "1 2 3 4 5 6"]


def letters(count):
    """A prompt of that many tokens: the tiny tokenizers count letters."""
    return {"inputs": "x" * count, "parameters": GREEDY}


def at_once(server, bodies):
    with ThreadPoolExecutor(len(bodies)) as pool:
        return list(pool.map(server.ask, bodies))


# the worker, without a model


class Recorder:
    """Runs batches of numbers, and notes them."""

    def __init__(self, *, queue_length=100, most=4, fails=()):
        self.batches, self.fails, self.most = [], fails, most
        self.hold = threading.Event()
        self.worker = worker.Worker(lambda: [self], queue_length=queue_length)
        self.worker.start()
        while self.worker.state is worker.State.LOADING:
            time.sleep(0.001)

    def run(self, items):
        self.batches.append(list(items))
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
    """Results of (number, key) pairs that have all queued while something else ran."""

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
        ([{"a": 1.0, "b": "x"}], [{"a": 1.001, "b": "x"}], True),
        ([{"a": 1.0}], [{"a": 1.2}], False),
        ([{"a": "x"}], [{"a": "y"}], False),
        ([[1.0, 2.0]], [[1.0]], False),
        ({"a": 1}, {"b": 1}, False),
        (float("nan"), 1.0, False),
    ],
)
def test_answers_are_compared_by_their_meaning(one, other, same):
    assert batching._same(one, other) is same


# real models: each answer equals the one that was given alone


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


@pytest.mark.parametrize(
    ("task", "more"), [("feature-extraction", {}), ("token-classification", {}), ("fill-mask", {})]
)
def test_other_text_tasks_are_the_same_together(start_server, models, release, task, more):
    # the tasks share BERT's body; the heads that the classifier lacks are random, and seeded by nothing: one process
    server = start_server("bert-classifier", HF_TASK=task).wait_until_ready()
    mask = " [MASK]" if task == "fill-mask" else ""
    bodies = [{"inputs": word + mask} for word in WORDS]
    alone = [server.ask(body).json for body in bodies]
    together = [answer.json for answer in at_once(server, bodies * 3)]
    assert all(batching._same(one, other) for one, other in zip(alone * 3, together, strict=True))
    assert "requests run one by one" not in server.log
    assert server.stop() == 0


def test_a_batch_really_runs_and_a_bad_neighbour_fails_alone(misbehaving):
    """While one request sleeps for 3 s others queue; a prompt of 50 letters raises in this model."""
    sleeper = threading.Thread(target=misbehaving.ask, args=(letters(70),))
    sleeper.start()
    time.sleep(0.5)
    bodies = [letters(count) for count in (33, 35, 50, 37)]
    before = misbehaving.log.count("a batch of 4 failed")
    answers = at_once(misbehaving, bodies)
    sleeper.join()
    assert [answer.status for answer in answers] == [200, 200, 500, 200]
    assert misbehaving.log.count("a batch of 4 failed") == before + 1
    for body, answer in zip(bodies, answers, strict=True):
        if answer.status == 200:
            assert answer.json[0]["generated_text"].startswith(body["inputs"])


def test_sixteen_clients_are_faster_together(bloom):
    def seconds(**more):
        parameters = {**GREEDY, "max_new_tokens": 24, "min_new_tokens": 24, **more}
        bodies = [{"inputs": "hello", "parameters": parameters}] * 32
        started = time.monotonic()
        with ThreadPoolExecutor(16) as pool:
            assert {answer.status for answer in pool.map(bloom.ask, bodies)} == {200}
        return time.monotonic() - started

    # a repeated token counts the padding too: these run one by one
    assert seconds() < seconds(repetition_penalty=1.01) / 1.5


def test_a_model_that_does_not_mind_its_padding_runs_one_by_one(start_server, models, tmp_path):
    """The proof at the start: such a model would answer something else in a batch."""
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
