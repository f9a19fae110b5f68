"""Completions of a prompt by OpenAI's own client, with a random model; a pipeline has the greedy text."""

from __future__ import annotations

import pytest

pytest.importorskip("transformers", reason="pip install -r tests/runtime/requirements.txt")


@pytest.fixture(scope="module")
def complete(openai_client, bloom):
    client = openai_client(bloom)
    return lambda **arguments: client("completions.create", **{"model": "any", "max_tokens": 12, **arguments})


def likeliest(bloom, text, tokens):
    parameters = {"max_new_tokens": tokens, "do_sample": False, "return_full_text": False}
    (answer,) = bloom.ask({"inputs": text, "parameters": parameters}).json
    return answer["generated_text"]


@pytest.mark.parametrize("prompt", ["hello world", "grüße 🙂", "a"])
def test_without_temperature_it_is_the_likeliest_text(bloom, complete, prompt):
    answer = complete(prompt=prompt, temperature=0)
    (choice,) = answer["choices"]
    assert choice["text"].strip() == likeliest(bloom, prompt, 12).strip()
    assert choice["finish_reason"] == ("stop" if answer["usage"]["completion_tokens"] < 12 else "length")
    chunks = complete(prompt=prompt, temperature=0, stream=True, stream_options={"include_usage": True})
    assert "".join(one["choices"][0]["text"] for one in chunks[:-1]) == choice["text"]
    assert chunks[-2]["choices"][0]["finish_reason"] == choice["finish_reason"]
    assert chunks[-1]["usage"] == answer["usage"]


def test_several_prompts_are_answered_in_their_order(complete):
    alone = [complete(prompt=prompt, temperature=0)["choices"][0]["text"] for prompt in ("hello", "the quick")]
    answer = complete(prompt=["hello", "the quick"], temperature=0)
    assert [choice["text"] for choice in answer["choices"]] == alone
    assert [choice["index"] for choice in answer["choices"]] == [0, 1]
    assert complete(prompt=["hello", "the quick"], stream=True)["error"]["param"] == "prompt"


def test_a_prompt_may_be_tokens(complete):
    tokens = complete(prompt="hello world", temperature=0, logprobs=0, max_tokens=3)
    answer = complete(prompt=[[40, 41, 42], [40, 41]], temperature=0, max_tokens=2)
    assert (len(answer["choices"]), answer["usage"]["prompt_tokens"]) == (2, 5)
    assert complete(prompt=[40, 41, 42], temperature=0, max_tokens=2)["choices"][0] == answer["choices"][0]
    assert complete(prompt=[10**6])["error"]["param"] == "prompt"
    assert tokens["usage"]["completion_tokens"] == 3


def test_a_seed_repeats_an_answer_and_nobody_elses(complete):
    first, again = (complete(prompt="hello", temperature=1.5, seed=7)["choices"][0]["text"] for _ in range(2))
    assert first == again
    others = {complete(prompt="hello", temperature=1.5, seed=seed)["choices"][0]["text"] for seed in range(5)}
    assert len(others) > 1
    between = []
    for _ in range(4):  # an unseeded request after a seeded one differs each time
        complete(prompt="hello", temperature=1.5, seed=7)
        between.append(complete(prompt="hello", temperature=1.5)["choices"][0]["text"])
    assert len(set(between)) > 1


def test_logprobs_are_those_of_the_model(bloom, complete):
    (choice,) = complete(prompt="hello", temperature=0, logprobs=3, max_tokens=5)["choices"]
    logprobs = choice["logprobs"]
    assert "".join(logprobs["tokens"]) == choice["text"]
    assert logprobs["text_offset"] == [
        sum(map(len, logprobs["tokens"][:index])) for index in range(len(logprobs["tokens"]))
    ]
    for token, score, top in zip(logprobs["tokens"], logprobs["token_logprobs"], logprobs["top_logprobs"], strict=True):
        assert top[token] == pytest.approx(score)
        assert max(top.values()) == pytest.approx(score)
    # logprobs are those of the model at another temperature, too
    (drawn,) = complete(prompt="hello", temperature=2, logprobs=0, max_tokens=1, seed=3)["choices"]
    same = drawn["logprobs"]["tokens"] == logprobs["tokens"][:1]
    assert same == (drawn["logprobs"]["token_logprobs"][0] == pytest.approx(logprobs["token_logprobs"][0]))


def test_penalties_and_biases_change_what_is_said(complete):
    plain = complete(prompt="hello", temperature=0, logprobs=0, max_tokens=12)["choices"][0]
    tokens = plain["logprobs"]["tokens"]
    punished = complete(
        prompt="hello", temperature=0, logprobs=0, max_tokens=12, frequency_penalty=2, presence_penalty=2
    )
    new = punished["choices"][0]["logprobs"]["tokens"]
    assert len(new) - len(set(new)) <= len(tokens) - len(set(tokens))
    ids = complete(prompt="hello", temperature=0, max_tokens=1, logit_bias={"45": 100, "0": -100})
    other = complete(prompt="hello", temperature=0, max_tokens=1, logit_bias={"50": 100})
    assert ids["choices"][0]["text"] != other["choices"][0]["text"]


def test_a_completion_ends_before_a_stop(bloom, complete):
    text = complete(prompt="hello", temperature=0, max_tokens=40)["choices"][0]["text"]
    stop = [word for word in text.split() if len(word) > 2][2]
    (choice,) = complete(prompt="hello", temperature=0, max_tokens=40, stop=[stop])["choices"]
    assert choice["text"] == text[: text.index(stop)]
    assert choice["finish_reason"] == "stop"
    chunks = complete(prompt="hello", temperature=0, max_tokens=40, stop=[stop], stream=True)
    assert "".join(chunk["choices"][0]["text"] for chunk in chunks) == choice["text"]


def test_a_benchmark_can_have_as_many_tokens_as_it_wants(complete):
    answer = complete(prompt="hello", max_tokens=50, extra_body={"ignore_eos": True, "min_tokens": 50})
    assert answer["usage"]["completion_tokens"] == 50
    assert answer["choices"][0]["finish_reason"] == "length"


@pytest.mark.parametrize(
    ("change", "param"),
    [
        ({"echo": True}, "echo"),
        ({"suffix": "x"}, "suffix"),
        ({"best_of": 3}, "best_of"),
        ({"logprobs": 6}, "logprobs"),
        ({"prompt": ""}, "prompt"),
        ({"prompt": [[]]}, "prompt"),
        ({"prompt": ["a", 5]}, "prompt"),
        ({"extra_body": {"messages": []}}, "messages"),
    ],
)
def test_what_cannot_be_done_is_refused_by_name(complete, change, param):
    made = complete(**{"prompt": "hello", **change})
    assert (made["raised"], made["error"]["param"]) == ("BadRequestError", param)


def test_a_failure_in_the_middle_of_a_stream_reaches_the_client(openai_client, misbehaving):
    client = openai_client(misbehaving)
    made = client("completions.create", model="m", prompt="x" * 50, max_tokens=5)
    assert (made["raised"], made["error"]["code"]) == ("BadRequestError", "refused-by-model")
    assert (
        client("completions.create", model="m", prompt="xxx", max_tokens=2)["choices"][0]["finish_reason"] == "length"
    )


def test_a_chat_without_a_template_is_told_so(openai_client, bloom, bert):
    messages = [{"role": "user", "content": "hi"}]
    made = openai_client(bloom)("chat.completions.create", model="m", messages=messages)
    assert (made["raised"], made["error"]["param"]) == ("BadRequestError", "messages")
    assert "no chat template" in made["error"]["message"]
    made = openai_client(bert)("chat.completions.create", model="m", messages=messages)
    assert (made["raised"], made["error"]["code"]) == ("BadRequestError", "wrong-task")


def test_the_log_counts_tokens_of_streams_too(bloom, complete):
    """OpenAI's client closes the connection at the last event, before the model's thread has ended."""

    def stream():
        for _ in range(20):
            complete(prompt="hello", max_tokens=4, temperature=0, stream=True)

    lines = bloom.lines_of(stream, 20)
    assert {line["path"] for line in lines} == {"/v1/completions"}
    assert {line.get("code") for line in lines} == {None}
    assert all(line["prompt_tokens"] > 0 for line in lines)
    assert all(0 < line["generated_tokens"] <= 4 for line in lines)
