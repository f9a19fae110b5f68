"""Continuous batching: each text equals that of the request alone, whatever joins and leaves the batch."""

from __future__ import annotations

import asyncio
import random
import time
import types

import pytest
import torch
import transformers
from extended_dlc_server.machine.worker import State, Worker, took_too_long
from extended_dlc_server.model import pipeline_texts
from extended_dlc_server.reading.decoding import Decoded
from extended_dlc_server.writing import beginnings
from extended_dlc_server.writing import scheduler as scheduling
from extended_dlc_server.writing.choosing import Chance, choose, plan_of
from extended_dlc_server.writing.generating import Generation, generate
from extended_dlc_server.writing.row_cache import new_cache
from extended_dlc_server.writing.scheduler import Scheduler
from extended_dlc_server.writing.step_proof import CannotShareStepsError
from extended_dlc_server.writing.texts import Writing
from tokenizers import Tokenizer, models, pre_tokenizers

torch.set_num_threads(1)  # tiny models gain nothing from more

SMALL = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4}
LLAMA = {**SMALL, "intermediate_size": 64, "num_key_value_heads": 2}
KINDS = {
    "bloom": {"hidden_size": 32, "n_layer": 2, "n_head": 4},
    "falcon": SMALL,
    "gemma2": {**LLAMA, "head_dim": 8, "sliding_window": 16},
    "gpt2": {"n_embd": 32, "n_layer": 2, "n_head": 4, "n_positions": 256},
    "gpt_neox": {**SMALL, "intermediate_size": 64},
    "gpt_oss": {**LLAMA, "head_dim": 8, "num_local_experts": 4, "num_experts_per_tok": 2, "sliding_window": 16},
    "llama": LLAMA,
    "mistral": {**LLAMA, "sliding_window": 16},
    "mixtral": {**LLAMA, "num_local_experts": 4},
    "opt": {**SMALL, "ffn_dim": 64, "word_embed_proj_dim": 32, "max_position_embeddings": 256},
    "qwen2": LLAMA,
}
"""Model type -> a small configuration, with attention windows shorter than the texts."""

WITH_STATES = {
    "mamba": {"hidden_size": 32, "num_hidden_layers": 2, "state_size": 8},
    "rwkv": {"hidden_size": 32, "num_hidden_layers": 2},
}


class Job:
    """The job of a client that waits."""

    def __init__(self):
        self.batch, self.has_left, self.result = 0, False, None
        self.queued = time.perf_counter()

    def is_over(self, now):
        return self.has_left


def tokenizer():
    words = {f"w{number}": number for number in range(500)}
    made = Tokenizer(models.WordLevel(words, unk_token="w0"))
    made.pre_tokenizer = pre_tokenizers.Whitespace()
    return transformers.PreTrainedTokenizerFast(tokenizer_object=made, unk_token="w0", eos_token="w1", pad_token="w1")


def pipeline(kind, options):
    torch.manual_seed(0)
    ids = {"eos_token_id": 1, "pad_token_id": 1, "bos_token_id": 1}
    config = transformers.AutoConfig.for_model(kind, vocab_size=500, **options, **ids)
    config.use_cache = True
    model = transformers.AutoModelForCausalLM.from_config(config).eval()
    for weight in model.parameters():
        if weight.dim() > 1:
            weight.data.mul_(3)  # otherwise all tokens are about as likely, and rounding decides
    return types.SimpleNamespace(model=model, tokenizer=tokenizer())


def scheduler(pipe, *, memory=10**8, most=8):
    made = Scheduler(pipe, most=most, memory=lambda: memory, longest=200)
    made.prove(list(range(2, 20)))
    return made


@pytest.fixture(scope="module")
def llama():
    return pipeline("llama", LLAMA)


def prompt(length, seed=0):
    numbers = random.Random(f"{length}/{seed}")
    return [numbers.randrange(2, 500) for _ in range(length)]


def asked(pipe, tokens, most=12, *, arguments=None, **more):
    arguments = arguments or {"do_sample": False}
    plan = plan_of(pipe.model.generation_config, arguments)
    assert plan is not None
    return Generation(tokens=tokens, arguments=arguments, plan=plan, most=most, ends=frozenset([1]), **more)


def written(steps, generations, *, every=1):
    """The results, with another request joining each `every` steps."""
    waiting, jobs, step = list(generations), [], 0
    while waiting or steps.is_busy:
        if waiting and steps.has_room() and step % every == 0:
            jobs.append(Job())
            steps.add(Writing(asked=[waiting.pop(0)], finish=lambda made: [row.tokens for row in made[0]]), jobs[-1])
        for job, result in steps.step():
            job.result = result
        step += 1
        assert step < 2000
    return [job.result for job in jobs]


def alone(pipe, generations):
    return [[row.tokens for row in generate(pipe, [one])[0]] for one in generations]


@pytest.mark.filterwarnings("error::FutureWarning", "error::DeprecationWarning")
@pytest.mark.parametrize("kind", KINDS)
def test_texts_that_join_and_leave_are_those_of_the_model_alone(kind):
    pipe = pipeline(kind, KINDS[kind])
    wishes = [{}, {"repetition_penalty": 1.2}, {"min_new_tokens": 8}, {"no_repeat_ngram_size": 2}]
    texts = [
        asked(pipe, prompt(length), 8 + 4 * number, arguments={"do_sample": False, **wishes[number % 4]})
        for number, length in enumerate((5, 70, 30, 9, 100, 12, 3, 90))
    ]
    assert written(scheduler(pipe), texts, every=3) == alone(pipe, texts)


@pytest.mark.parametrize("kind", WITH_STATES)
def test_a_model_with_states_instead_of_keys_says_why_it_cannot(kind):
    pipe = pipeline(kind, WITH_STATES[kind])
    with pytest.raises(CannotShareStepsError, match=r"\w+ \w+"):
        scheduler(pipe)


def test_a_model_that_does_not_mind_its_padding_cannot(llama, monkeypatch):
    forward = llama.model.model.forward
    monkeypatch.setattr(
        llama.model.model,
        "forward",
        lambda *arguments, attention_mask=None, **more: forward(*arguments, **more),
    )
    with pytest.raises(CannotShareStepsError, match="differ"):
        scheduler(llama)


def test_a_model_that_generates_in_its_own_way_cannot(llama):
    class Own(type(llama.model)):
        def generate(self, *arguments, **more):
            return super().generate(*arguments, **more)

    custom = Own(llama.model.config)
    with pytest.raises(CannotShareStepsError, match="of its own"):
        scheduler(types.SimpleNamespace(model=custom, tokenizer=llama.tokenizer))


def test_a_beginning_that_is_known_is_not_read_again(llama):
    steps = scheduler(llama)
    common = prompt(80)
    texts = [asked(llama, [*common, *prompt(5, seed)]) for seed in range(4)]
    read = []
    forward = llama.model.model.forward

    def counted(*arguments, input_ids=None, **more):
        read.append(input_ids.numel())
        return forward(*arguments, input_ids=input_ids, **more)

    expected = alone(llama, texts)
    llama.model.model.forward = counted
    try:
        assert written(steps, texts) == expected
        assert written(steps, texts[:1]) == expected[:1]
    finally:
        del llama.model.model.forward
    assert sum(one for one in read if one > 4) < 85 + 4 * 20 + 40  # the whole prompt once, then the different ends


def test_what_is_kept_is_bounded_and_what_was_of_no_use_longest_goes_first(monkeypatch):
    cache = new_cache()
    cache.begin([100])
    for layer in range(2):
        cache.update(torch.rand(1, 2, 100, 8), torch.rand(1, 2, 100, 8), layer)
    cache.added(100)
    size = 80 * cache.token_bytes
    kept = beginnings.Beginnings(3 * size)
    texts = [prompt(80, seed) for seed in range(4)]
    for text in texts[:3]:
        kept.keep(text, cache, 0)
    length, cached = kept.longest([*texts[0], 7], ())
    assert (length, kept.bytes) == (80, 3 * size)
    found, row = cached
    assert torch.equal(found.buffers[1][0][row], cache.buffers[1][0][0, :, :80])
    kept.keep(texts[3], cache, 0)
    assert [kept.longest([*text, 7], ())[0] for text in texts] == [80, 0, 80, 80]
    kept.keep([*texts[3], 9], cache, 0)  # it includes the shorter one
    assert (kept.longest([*texts[3], 9, 7], ())[0], kept.longest(texts[3], ())[0]) == (81, 79)
    assert kept.bytes <= 3 * size
    monkeypatch.setattr(beginnings, "MOST", 2)
    kept.keep(prompt(64, 9), cache, 0)
    assert sum(kept.longest([*text, 7], ())[0] > 0 for text in (*texts, prompt(64, 9))) == 2
    kept.clear()
    assert (kept.bytes, kept.longest([*texts[3], 7], ())) == (0, (0, None))


def test_what_does_not_fit_into_the_memory_waits_or_is_read_again(llama):
    texts = [asked(llama, prompt(20, seed), 60) for seed in range(6)]
    whole = scheduler(llama)
    bytes_of_token = whole.running.token_bytes
    tight = scheduler(llama, memory=bytes_of_token * 360)  # enough for three short texts, not for long ones
    assert written(tight, texts) == written(whole, texts) == alone(llama, texts)


def test_a_long_prompt_is_read_in_pieces_and_short_ones_overtake_it(llama):
    steps = scheduler(llama)
    steps.prefill.piece = 16
    long, short, job, other = asked(llama, prompt(150)), asked(llama, prompt(6), 3), Job(), Job()
    steps.add(Writing(asked=[long], finish=lambda made: "long"), job)
    steps.step()
    steps.add(Writing(asked=[short], finish=lambda made: "short"), other)
    order = []
    while steps.is_busy:
        order += [result for _, result in steps.step()]
    assert order == ["short", "long"]


def test_a_long_list_is_not_in_the_way_of_others(llama):
    steps = scheduler(llama)
    many = [asked(llama, prompt(10, seed), 30) for seed in range(100)]
    one, list_job, job, order = asked(llama, prompt(7), 5), Job(), Job(), []
    steps.add(Writing(asked=many, finish=lambda made: made), list_job)
    steps.step()
    assert steps.has_room()
    steps.add(Writing(asked=[one], finish=lambda made: made), job)
    taken = 0
    while steps.is_busy:
        for ended, ended.result in steps.step():
            order.append((ended, taken))
        taken += 1
    assert [ended for ended, _ in order] == [job, list_job]
    assert order[0][1] < 10
    done = [[row.tokens for row in rows] for rows in list_job.result]
    assert done[:3] + done[-3:] == alone(llama, many[:3] + many[-3:])


def test_who_leaves_frees_its_place_and_the_others_go_on(llama):
    steps = scheduler(llama)
    texts = [asked(llama, prompt(9, seed), 30) for seed in range(3)]
    jobs = [Job() for _ in texts]
    for text, job in zip(texts, jobs, strict=True):
        steps.add(Writing(asked=[text], finish=lambda made: made[0][0].tokens), job)
    for _ in range(4):
        steps.step()
    jobs[0].has_left = True
    ended = []
    while steps.is_busy:
        ended += steps.step()
    results = {id(job): result for job, result in ended}
    assert str(results[id(jobs[0])]) == str(took_too_long())
    assert [[results[id(job)]] for job in jobs[1:]] == alone(llama, texts[1:])


def test_the_failure_of_one_is_its_own(llama):
    def broken():
        def refuse(tokens, scores):
            if tokens.shape[1] > 12:
                raise ValueError("no more")
            return scores

        return refuse

    steps = scheduler(llama)
    texts = [asked(llama, prompt(10), 20, grammar=broken), asked(llama, prompt(11), 20)]
    bad, good = written(steps, texts)
    assert isinstance(bad, ValueError)
    assert [good] == alone(llama, texts[1:])


def test_no_memory_ends_one_request_and_not_the_others(llama, monkeypatch):
    steps = scheduler(llama)
    texts = [asked(llama, prompt(10, seed), 20) for seed in range(3)]
    expected = alone(llama, texts)
    forward = llama.model.model.forward

    def small(*arguments, input_ids=None, **more):
        if input_ids.shape == (3, 1):
            raise RuntimeError("CUDA out of memory. Tried to allocate 2 GiB")
        return forward(*arguments, input_ids=input_ids, **more)

    monkeypatch.setattr(llama.model.model, "forward", small)
    *fine, last = written(steps, texts)
    assert fine == expected[:2]
    assert last.status == 507


def test_a_text_without_numbers_is_refused_and_spoils_no_other(llama, monkeypatch):
    steps = scheduler(llama)
    texts = [asked(llama, prompt(10, seed), 20) for seed in range(3)]
    expected = alone(llama, texts)
    forward = llama.model.model.forward

    def poisoned(*arguments, input_ids=None, **more):
        made = forward(*arguments, input_ids=input_ids, **more)
        if input_ids.shape == (3, 1):
            made.last_hidden_state[0] = float("nan")
            for layer in steps.running.cache.buffers.values():
                for buffer in layer:
                    buffer[0] = float("nan")
        return made

    monkeypatch.setattr(llama.model.model, "forward", poisoned)
    bad, *fine = written(steps, texts)
    assert bad.status == 400
    assert fine == expected[1:]
    monkeypatch.undo()
    more = [asked(llama, prompt(length, 9), 10) for length in (40, 4)]
    assert written(steps, more) == alone(llama, more)


def test_a_seed_gives_the_same_text_whoever_is_beside_it(llama):
    wish = {"do_sample": True, "temperature": 1.5, "top_k": 0, "top_p": 0.9}
    mine = asked(llama, prompt(10), 20, arguments=wish, seed=7)
    others = [asked(llama, prompt(length), 15, arguments=wish) for length in (4, 30)]
    steps = scheduler(llama)
    (first,) = written(steps, [mine])
    assert written(steps, [others[0], mine, others[1]])[1] == first
    assert written(steps, [asked(llama, prompt(10), 20, arguments=wish, seed=8)]) != [first]


def test_several_sequences_of_a_prompt_differ_and_are_repeatable(llama):
    wish = {"do_sample": True, "temperature": 2.0}
    steps = scheduler(llama)
    (first,), (again,) = (written(steps, [asked(llama, prompt(10), 9, arguments=wish, seed=3, count=3)]) for _ in "ab")
    assert first == again
    assert len({tuple(row) for row in first}) == 3


@pytest.mark.parametrize(
    ("chance", "likely"),
    [
        (Chance(), [0.4, 0.3, 0.2, 0.1]),
        (Chance(top_k=2), [4 / 7, 3 / 7, 0, 0]),
        (Chance(top_p=0.65), [4 / 7, 3 / 7, 0, 0]),
        (Chance(min_p=0.6), [4 / 7, 3 / 7, 0, 0]),
        (Chance(temperature=0.5), [16 / 30, 9 / 30, 4 / 30, 1 / 30]),
        (Chance(top_k=3, top_p=0.5), [4 / 7, 3 / 7, 0, 0]),
    ],
)
@pytest.mark.parametrize("size", [4, 5000])
def test_tokens_are_drawn_as_often_as_they_are_likely(chance, likely, size):
    scores = torch.full((1, size), -30.0)
    token_ids = [3, 0, 2, 1]
    for token_id, share in zip(token_ids, [0.4, 0.3, 0.2, 0.1], strict=True):
        scores[0, token_id] = torch.tensor(share).log()
    draws = [(number + 0.5) / 1000 for number in range(1000)]
    drawn = choose(scores.expand(1000, size), [chance] * 1000, draws)
    assert [drawn.count(token_id) / 1000 for token_id in token_ids] == pytest.approx(likely, abs=0.002)


def test_a_flat_choice_among_many_reaches_all_of_them():
    scores = torch.zeros((2000, 3000))
    drawn = choose(scores, [Chance(), Chance(top_p=0.5)] * 1000, [(number + 0.5) / 2000 for number in range(2000)])
    assert len(set(drawn[0::2])) > 900
    assert len(set(drawn[1::2])) > 450


@pytest.mark.parametrize("size", [4, 5000])
def test_a_token_without_probability_is_never_drawn_and_a_rows_token_does_not_depend_on_others(size):
    scores = torch.randn((200, size), generator=torch.Generator().manual_seed(1)) * 3
    scores[:, [0, -1]] = float("-inf")
    wishes = [
        *(Chance(), Chance(top_p=0.9), Chance(top_k=3), Chance(top_k=size - 1, top_p=0.99), Chance(min_p=0.01), None),
        *(Chance(temperature=50.0, top_p=0.999), Chance(temperature=50.0)),
    ]
    chances = [wishes[row % len(wishes)] for row in range(200)]
    draws = [(0.0, 1 - 2**-53, 0.3, 0.7, 0.999)[row % 5] for row in range(200)]
    together = choose(scores, chances, draws)
    assert not {0, size - 1} & set(together)
    assert together == [choose(scores[row : row + 1], [chances[row]], [draws[row]])[0] for row in range(200)]


def test_what_the_scheduler_does_not_know_is_left_to_generate():
    config = transformers.GenerationConfig()
    known = [{}, {"max_new_tokens": 5, "do_sample": True, "typical_p": 0.5}, {"sequence_bias": [[[3], 1.0]]}]
    unknown = [{"num_beams": 2}, {"guidance_scale": 2.0}, {"max_time": 1.0}, {"stop_strings": ["a"]}, {"new_one": 1}]
    assert all(plan_of(config, one) is not None for one in known)
    assert [plan_of(config, one) for one in unknown] == [None] * len(unknown)


class PanicException(BaseException):
    """What a Rust library raises when it gives up, by its name."""


def test_the_panic_of_a_library_ends_one_request_and_not_the_process(llama, monkeypatch):
    def gives_up():
        def give_up(tokens, scores):
            raise PanicException

        return give_up

    bad, good = written(
        scheduler(llama), [asked(llama, prompt(10), 20, grammar=gives_up), asked(llama, prompt(11), 20)]
    )
    assert "gave up" in str(bad)
    assert [good] == alone(llama, [asked(llama, prompt(11), 20)])


def test_no_memory_to_choose_tokens_ends_one_request_and_not_the_process(llama, monkeypatch):
    steps = scheduler(llama)
    texts = [asked(llama, prompt(10, seed), 20) for seed in range(3)]
    expected = alone(llama, texts)
    original = scheduling.next_tokens

    def short(texts, scores):
        if len(texts) == 3:
            raise RuntimeError("DefaultCPUAllocator: can't allocate memory")
        return original(texts, scores)

    monkeypatch.setattr(scheduling, "next_tokens", short)
    *fine, last = written(steps, texts)
    assert fine == expected[:2]
    assert last.status == 507
    monkeypatch.undo()
    assert written(steps, texts) == expected


def test_a_request_that_cannot_join_fails_alone():
    class Steps:
        most, is_busy = 4, False

        def has_room(self, more=0):
            return True

        def add(self, writing, job):
            raise ValueError("no such text")

    async def ask():
        worker = Worker(lambda: [types.SimpleNamespace(steps=Steps())], queue_length=4)
        worker.start()
        while not worker.is_ready:
            await asyncio.sleep(0.01)
        for _ in range(2):
            with pytest.raises(ValueError, match="no such text"):
                await asyncio.wait_for(worker.submit(lambda _: None, writing=object()).future, 5)
        return worker.state

    assert asyncio.run(ask()) is State.READY


@pytest.mark.parametrize("least", [{"top_p": 0.0}, {"temperature": 1e-40, "top_k": 0}])
def test_what_leaves_the_most_likely_token_alone_is_greedy(llama, least):
    text = asked(llama, prompt(10), 12, arguments={"do_sample": True, **least})
    assert written(scheduler(llama), [text]) == alone(llama, [asked(llama, prompt(10), 12)])


def test_a_list_with_very_many_prompts_is_left_to_the_pipeline(llama, monkeypatch):
    monkeypatch.setattr(pipeline_texts, "MOST_PROMPTS", 3)
    pipe = transformers.TextGenerationPipeline(model=llama.model, tokenizer=llama.tokenizer)
    texts = pipeline_texts.PipelineTexts(pipe, lambda result, request: b"")

    def asked(inputs):
        return texts.request(Decoded(inputs=inputs, arguments={"max_new_tokens": 2, "do_sample": False}))

    assert len(asked(["w5 w6"] * 3).asked) == 3
    assert asked(["w5 w6"] * 4) is None
    assert len(asked("w5 w6").asked) == 1
