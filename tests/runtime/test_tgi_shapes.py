"""The requests and responses of Hugging Face's text-generation servers (TGI), for their clients."""

from __future__ import annotations

import http.client
import json

import pytest

pytest.importorskip("transformers", reason="pip install -r tests/runtime/requirements.txt")

GREEDY = {"do_sample": False, "clean_up_tokenization_spaces": False}


def ask(server, text="hello", tokens=12, **parameters):
    answer = server.ask({"inputs": text, "parameters": {"max_new_tokens": tokens, **parameters}})
    assert answer.status == 200, answer.body
    return answer.json[0]


def stream(server, body):
    connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=60)
    connection.request(
        "POST", "/invocations", json.dumps({**body, "stream": True}), {"Content-Type": "application/json"}
    )
    lines = connection.getresponse().read().split(b"\n\n")
    connection.close()
    return [json.loads(line.removeprefix(b"data: ")) for line in lines if line]


def word_of(text):
    """A word in the middle of a text."""
    return [word for word in text.split() if len(word) > 2][2]


@pytest.mark.parametrize("name", ["stop", "stop_sequences"])
@pytest.mark.parametrize("several", [True, False])
def test_a_generation_ends_with_a_stop(bloom, name, several):
    whole = ask(bloom, tokens=60, return_full_text=False, **GREEDY)["generated_text"]
    word = word_of(whole)
    stops = ["never", word] if several else word
    made = ask(bloom, tokens=60, return_full_text=False, **GREEDY, **{name: stops})["generated_text"]
    assert made == whole[: whole.index(word) + len(word)]


def test_no_stop_is_none(bloom):
    assert ask(bloom, stop=[], **GREEDY) == ask(bloom, **GREEDY)


def test_an_option_that_litellm_sends_along_is_passed_over(bloom):
    assert ask(bloom, sagemaker_base_url="http://127.0.0.1", **GREEDY) == ask(bloom, **GREEDY)
    refused = bloom.ask({"inputs": "hello", "parameters": {"base_url": "http://127.0.0.1"}})
    assert refused.error[:2] == (400, "unknown-parameter")


def test_a_temperature_of_0_is_the_likeliest_text(bloom):
    likeliest = ask(bloom, **GREEDY)["generated_text"]
    same = {"clean_up_tokenization_spaces": False}
    assert ask(bloom, temperature=0, **same)["generated_text"] == likeliest
    assert ask(bloom, temperature=0, do_sample=True, **same)["generated_text"] == likeliest
    assert ask(bloom, generate_kwargs={"temperature": 0}, **same)["generated_text"] == likeliest


@pytest.mark.parametrize("name", ["generation_parameters", "generate_parameters", "generate_kwargs"])
def test_parameters_of_generate_have_the_hubs_names_too(bloom, name):
    body = {"inputs": "hello", "parameters": {name: {"max_new_tokens": 3, "do_sample": False}}}
    assert bloom.ask(body).json == [ask(bloom, tokens=3, do_sample=False)]


def test_a_seed_repeats_a_text(bloom):
    drawn = {"do_sample": True, "temperature": 1.9}
    assert len({ask(bloom, seed=5, **drawn)["generated_text"] for _ in range(3)}) == 1
    assert len({ask(bloom, seed=seed, **drawn)["generated_text"] for seed in range(4)}) > 1
    assert len({ask(bloom, **drawn)["generated_text"] for _ in range(4)}) > 1  # requests without a seed still differ


def test_details_tell_of_each_token(bloom):
    plain = ask(bloom, return_full_text=False, **GREEDY)
    answer = ask(bloom, return_full_text=False, details=True, decoder_input_details=False, **GREEDY)
    assert answer["generated_text"] == plain["generated_text"]
    details = answer["details"]
    assert (details["finish_reason"], details["generated_tokens"], details["seed"]) == ("length", 12, None)
    assert "".join(token["text"] for token in details["tokens"]).strip() == plain["generated_text"].strip()
    assert all(token["logprob"] <= 0 and token["special"] is False for token in details["tokens"])
    answer = ask(bloom, top_n_tokens=3, seed=1, **GREEDY)["details"]
    assert answer["seed"] == 1
    for token, top in zip(answer["tokens"], answer["top_tokens"], strict=True):
        assert len(top) == 3
        assert top[0] == token or top[0]["logprob"] == pytest.approx(token["logprob"])


def test_the_prompt_is_cut_at_its_beginning(bloom):
    text = "the quick brown fox jumps over the lazy dog while bloom and whisper are talking"
    body = {"inputs": text, "parameters": {"max_new_tokens": 3, "truncate": 4, "do_sample": False}}
    connection = http.client.HTTPConnection("127.0.0.1", bloom.port, timeout=60)
    connection.request("POST", "/invocations", json.dumps(body), {"Content-Type": "application/json"})
    response = connection.getresponse()
    (made,) = json.loads(response.read())
    connection.close()
    assert any(made["generated_text"].startswith(text[start:]) for start in range(len(text) // 2, len(text) - 3))
    assert response.headers["X-Amzn-SageMaker-Custom-Attributes"].startswith("truncated_tokens=")
    chat = {"inputs": [{"role": "user", "content": "hi"}], "parameters": {"truncate": 4}}
    assert bloom.ask(chat).status == 400


def test_what_means_nothing_here_is_passed_over(bloom):
    none = {"best_of": 1, "watermark": False, "grammar": None, "adapter_id": None, "top_n_tokens": 0}
    assert ask(bloom, **none, **GREEDY) == ask(bloom, **GREEDY)
    body = {"inputs": "hello", "parameters": GREEDY, "options": {"use_cache": False}}
    assert bloom.ask(body).status == 200


def test_a_penalty_keeps_tokens_from_coming_again(bloom):
    def tokens(**more):
        return [token["id"] for token in ask(bloom, tokens=30, details=True, **GREEDY, **more)["details"]["tokens"]]

    plain = tokens()
    assert len(set(plain)) < len(plain)  # a tiny model repeats itself
    assert len(set(tokens(frequency_penalty=2.0))) >= len(set(plain))


def test_the_last_event_of_a_stream_has_token_text_and_details(bloom):
    events = stream(bloom, {"inputs": "hello", "parameters": {"max_new_tokens": 5, "seed": 3, **GREEDY}})
    assert len(events) == 5
    assert events[-1]["token"]["id"] is not None
    assert events[-1]["generated_text"] == ask(bloom, tokens=5, **GREEDY)["generated_text"]
    assert events[-1]["details"]["generated_tokens"] == 5
    assert events[-1]["details"]["seed"] == 3


@pytest.mark.parametrize(
    ("parameters", "words"),
    [
        ({"best_of": 2}, "best_of"),
        ({"watermark": True}, "watermark"),
        ({"decoder_input_details": True}, "decoder_input_details"),
        ({"details": True, "num_beams": 2}, "no beams"),
        ({"truncate": 0}, "truncate"),
        ({"adapter_id": "someone/adapter"}, "adapter_id"),
    ],
)
def test_what_cannot_be_done_is_refused_by_name(bloom, parameters, words):
    status, _, message = bloom.ask({"inputs": "hello", "parameters": parameters}).error
    assert (status, words in message) == (400, True)
