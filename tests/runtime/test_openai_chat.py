"""Chat completions by OpenAI's own client, with models that generate prescribed texts."""

from __future__ import annotations

import base64
import io
import json
import os
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from chain_models import make_chain

pytest.importorskip("transformers", reason="pip install -r tests/runtime/requirements.txt")

from .conftest import NEWEST

# As Qwen 3's: reasoning is the default, and tool calls have Hermes' form.
QWEN = """{%- for m in messages -%}
<|{{ m.role }}|>{% if m.reasoning_content %}<think>{{ m.reasoning_content }}</think>{% endif %}{{ m.content }}
{%- for call in m.tool_calls or [] %}<tool_call>{{ call.function.name }}{{ call.function.arguments | tojson }}
{%- endfor -%}
{%- endfor -%}
{%- if add_generation_prompt -%}
{%- if messages[-1].role == 'tool' %}<|heard|>
{%- elif opens %}<|opens|><think>
{%- elif tools %}<|tools|>
{%- elif enable_thinking is defined and enable_thinking is false %}<think></think><|plain|>
{%- else %}<|thinks|>
{%- endif -%}{%- endif -%}{# within <tool_call></tool_call> XML tags, <think> #}"""
MISTRAL = """{%- if messages[0].role == 'system' %}{{ raise_exception('no system role here') }}{% endif -%}
{%- for m in messages -%}
{%- for call in m.tool_calls or [] -%}
{%- if call.id | length != 9 %}{{ raise_exception('Tool call IDs should be alphanumeric strings with length 9!') }}
{%- endif -%}{%- endfor -%}
[{{ m.role }}]{{ m.content }}{%- endfor -%}
{%- if tools %}[AVAILABLE_TOOLS]{{ tools | length }}[INST]{% else %}[/INST]{% endif -%}{# '[TOOL_CALLS]' #}"""
MISTRAL_ANSWERS = {
    "defaults": {"role": "assistant"},
    "start_anchor_pattern": r"\[/?INST\]",
    "fields": {
        "tool_calls": {
            "open": "[TOOL_CALLS]",
            "close": "</s>",
            "content": "json",
            "transform": {"type": "function", "function": {"name": "{name}", "arguments": "{arguments}"}},
            "transform_each": True,
        },
        "content": {"close": "</s>", "content": "text"},
    },
}
USER = [{"role": "user", "content": "hi"}]
TOOL = {
    "type": "function",
    "function": {"name": "get_weather", "parameters": {"type": "object", "properties": {"city": {"type": "string"}}}},
}
CITY = ' "arguments": {"city": "Köln"}}\n'
PLAIN = {"extra_body": {"chat_template_kwargs": {"enable_thinking": False}}}


@pytest.fixture(scope="module")
def qwen(start_server, tmp_path_factory, release, kept_packages, server_path):
    special = ["<|plain|>", "<|thinks|>", "<|tools|>", "<|heard|>", "<|user|>", "<|assistant|>", "<|tool|>"]
    chains = [
        ("<|plain|>", "Hello", " you", ", and", " good", " day", "."),
        ("<|thinks|>", "<think>", "\nHm.\n", "</think>", "\n\nHi", " there."),
        ("<|tools|>", "I look.\n", "<tool_call>", '\n{"name": "get_weather",', CITY, "</tool_call>", "\n"),
        ("<|heard|>", "It is", " warm."),
        ("<|opens|>", "<think>"),
    ]
    folder = make_chain(tmp_path_factory.mktemp("qwen") / "model", chains, QWEN, special)
    packages = [str(kept_packages("llguidance-1.9.1", "llguidance==1.9.1", dependencies=False)), server_path]
    return start_server(folder, release, PYTHONPATH=os.pathsep.join(packages)).wait_until_ready()


@pytest.fixture(scope="module")
def mistral(start_server, tmp_path_factory, release):
    special = ["[TOOL_CALLS]", "[INST]", "[/INST]"]
    chains = [
        ("[INST]", "[TOOL_CALLS]", '[{"name": "get_weather",', ' "arguments": {"city": "Köln"}}]'),
        ("[/INST]", "Bonjour."),
    ]
    folder = make_chain(tmp_path_factory.mktemp("mistral") / "model", chains, MISTRAL, special)
    # the newest release reads this template; for the oldest the server has a table
    config = folder / "tokenizer_config.json"
    config.write_text(json.dumps({**json.loads(config.read_text()), "response_template": MISTRAL_ANSWERS}))
    return start_server(folder, release).wait_until_ready()


@pytest.fixture(scope="module")
def chat(openai_client, qwen):
    client = openai_client(qwen)
    return lambda **arguments: client("chat.completions.create", **{"model": "any", "messages": USER, **arguments})


def assembled(chunks):
    """Join the chunks of a stream into the message of each choice."""
    found = {}
    for chunk in chunks:
        for choice in chunk["choices"]:
            message = found.setdefault(choice["index"], {"content": "", "reasoning_content": "", "tool_calls": []})
            assert message.get("finish_reason") is None
            message["finish_reason"] = choice["finish_reason"]
            delta = choice["delta"]
            for name in ("content", "reasoning_content"):
                message[name] += delta.get(name) or ""
            for call in delta.get("tool_calls") or ():
                assert call["index"] == len(message["tool_calls"])
                message["tool_calls"].append(call["function"])
    return found


def test_an_answer_has_its_message_reason_and_usage(chat, release):
    answer = chat(temperature=0, **PLAIN)
    assert answer["object"] == "chat.completion"
    assert answer["model"] == "any"
    assert answer["system_fingerprint"] == f"transformers-{release}"
    (choice,) = answer["choices"]
    assert choice["message"]["content"] == "Hello you, and good day."
    assert (choice["message"]["role"], choice["finish_reason"]) == ("assistant", "stop")
    usage = answer["usage"]
    assert usage["completion_tokens"] == 7  # including the end token
    assert usage["total_tokens"] == usage["prompt_tokens"] + 7


def test_a_stream_says_the_same_and_ends_with_the_usage(chat):
    whole = chat(temperature=0, **PLAIN)
    chunks = chat(temperature=0, stream=True, stream_options={"include_usage": True}, **PLAIN)
    assert chunks[0]["choices"][0]["delta"] == {"role": "assistant", "content": ""}
    assert len({chunk["id"] for chunk in chunks}) == 1
    assert assembled(chunks)[0]["content"] == whole["choices"][0]["message"]["content"]
    assert assembled(chunks)[0]["finish_reason"] == "stop"
    assert chunks[-1]["choices"] == []
    assert chunks[-1]["usage"] == whole["usage"]
    assert len(chunks) > 6  # one chunk for each token


@pytest.mark.parametrize("name", ["max_tokens", "max_completion_tokens"])
def test_the_longest_answer_is_the_callers_to_say(chat, name):
    (choice,) = chat(**{name: 2}, **PLAIN)["choices"]
    assert (choice["message"]["content"], choice["finish_reason"]) == ("Hello you", "length")


@pytest.mark.parametrize("stop", ["good", ["nothing", "d g"]])
def test_an_answer_ends_before_a_stop(chat, stop):
    (choice,) = chat(stop=stop, **PLAIN)["choices"]
    expected = "Hello you, and good day.".partition(stop if isinstance(stop, str) else stop[1])[0]
    assert (choice["message"]["content"], choice["finish_reason"]) == (expected, "stop")
    streamed = assembled(chat(stop=stop, stream=True, **PLAIN))[0]
    assert (streamed["content"], streamed["finish_reason"]) == (expected, "stop")


def test_a_control_token_that_a_user_quotes_is_text_where_the_release_can(chat, qwen, release):
    quoted, letter = ([{"role": "user", "content": text}] for text in ("<|assistant|>", "x"))

    def invoked(messages):
        (line,) = qwen.lines_of(lambda: qwen.ask({"inputs": messages, "parameters": {"max_new_tokens": 1}}))
        return line["prompt_tokens"]

    more = len("<|assistant|>") - 1 if release == NEWEST else 0  # one letter is one token
    counts = [chat(messages=messages, max_tokens=1)["usage"]["prompt_tokens"] for messages in (letter, quoted)]
    assert counts[1] - counts[0] == more
    assert invoked(quoted) - invoked(letter) == more


def test_a_special_token_can_be_a_stop(chat):
    (choice,) = chat(stop="</s>", max_tokens=40, **PLAIN)["choices"]
    assert (choice["message"]["content"], choice["finish_reason"]) == ("Hello you, and good day.", "stop")


@pytest.mark.parametrize("temperature", [0, 0.4])
def test_several_answers_are_several_choices(chat, temperature):
    answer = chat(n=3, temperature=temperature, **PLAIN)
    assert [choice["index"] for choice in answer["choices"]] == [0, 1, 2]
    assert answer["usage"]["completion_tokens"] == 21
    streamed = assembled(chat(n=3, temperature=temperature, stream=True, **PLAIN))
    assert {index: one["content"] for index, one in streamed.items()} == dict.fromkeys(
        range(3), "Hello you, and good day."
    )


def test_logprobs_are_told_for_each_token(chat):
    (choice,) = chat(logprobs=True, top_logprobs=2, temperature=0, **PLAIN)["choices"]
    logprobs = choice["logprobs"]["content"]
    assert "".join(one["token"] for one in logprobs) == choice["message"]["content"]
    assert all(one["top_logprobs"][0]["token"] == one["token"] for one in logprobs)
    assert all(len(one["top_logprobs"]) == 2 and -0.01 < one["logprob"] <= 0 for one in logprobs)
    chunks = chat(logprobs=True, stream=True, temperature=0, **PLAIN)
    streamed = [one for chunk in chunks for one in (chunk["choices"][0]["logprobs"] or {}).get("content", ())]
    assert [one["token"] for one in streamed] == [one["token"] for one in logprobs]


def test_reasoning_is_given_apart_and_can_be_switched_off(chat):
    (choice,) = chat()["choices"]
    assert (choice["message"]["reasoning_content"], choice["message"]["content"]) == ("Hm.", "Hi there.")
    streamed = assembled(chat(stream=True))[0]
    assert (streamed["reasoning_content"], streamed["content"]) == ("Hm.", "Hi there.")
    for arguments in (PLAIN, {"reasoning_effort": "none"}):
        (choice,) = chat(**arguments)["choices"]
        assert "reasoning_content" not in choice["message"]
        assert choice["message"]["content"].startswith("Hello you")


def test_a_tool_is_called_and_its_result_heard(chat):
    (choice,) = chat(tools=[TOOL])["choices"]
    message = choice["message"]
    assert (message["content"], choice["finish_reason"]) == ("I look.", "tool_calls")
    (call,) = message["tool_calls"]
    assert call["function"]["name"] == "get_weather"
    assert json.loads(call["function"]["arguments"]) == {"city": "Köln"}
    result = {"role": "tool", "tool_call_id": call["id"], "content": "20 degrees"}
    (choice,) = chat(tools=[TOOL], messages=[*USER, message, result])["choices"]
    assert choice["message"]["content"] == "It is warm."


def test_a_stream_calls_tools_too(chat):
    streamed = assembled(chat(tools=[TOOL], stream=True))[0]
    assert (streamed["content"], streamed["finish_reason"]) == ("I look.", "tool_calls")
    (function,) = streamed["tool_calls"]
    assert (function["name"], json.loads(function["arguments"])) == ("get_weather", {"city": "Köln"})


def test_no_tool_is_called_where_none_may_be(chat):
    (choice,) = chat(tools=[TOOL], tool_choice="none", **PLAIN)["choices"]
    assert (choice["finish_reason"], choice["message"].get("tool_calls")) == ("stop", None)


ORDER = {
    "type": "object",
    "properties": {
        "city": {"enum": ["Köln", "Bonn"]},
        "days": {"type": "integer", "minimum": 1, "maximum": 9},
        "flags": {"type": "array", "items": {"type": "boolean"}, "maxItems": 2},
        "note": {"type": "string", "maxLength": 4},
    },
    "required": ["city", "days", "flags", "note"],
    "additionalProperties": False,
}


def check_order(text):
    made = json.loads(text)
    assert made.keys() == set(ORDER["required"])
    assert made["city"] in ("Köln", "Bonn")
    assert made["days"] in range(1, 10)
    assert len(made["flags"]) <= 2
    assert all(isinstance(flag, bool) for flag in made["flags"])
    assert len(made["note"]) <= 4


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("temperature", [0, 1.9])
def test_an_answer_keeps_to_a_schema(chat, stream, temperature):
    wanted = {"type": "json_schema", "json_schema": {"name": "order", "schema": ORDER, "strict": True}}
    made = chat(response_format=wanted, stream=stream, temperature=temperature, n=2, max_tokens=900)
    texts = (
        [one["content"] for one in assembled(made).values()]
        if stream
        else [choice["message"]["content"] for choice in made["choices"]]
    )
    assert len(texts) == 2
    for text in texts:
        check_order(text)


def test_a_schema_is_kept_to_after_the_reasoning(chat):
    wanted = {"type": "json_object", "value": ORDER}
    made = chat(
        response_format={"type": "json_schema", "json_schema": {"name": "order", "schema": ORDER}},
        max_tokens=900,
        extra_body={"chat_template_kwargs": {"opens": True}},
    )
    message = made["choices"][0]["message"]
    assert message["reasoning_content"] == "Hm."
    check_order(message["content"])
    check_order(chat(extra_body={"response_format": wanted}, max_tokens=900)["choices"][0]["message"]["content"])
    any_object = chat(response_format={"type": "json_object"}, max_tokens=30, logit_bias={"92": 100})
    assert any_object["choices"][0]["message"]["content"].startswith("{")


CLOSED = {"type": "function", "function": {"name": "order", "parameters": ORDER}}


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("choice", ["required", {"type": "function", "function": {"name": "order"}}])
def test_a_call_can_be_made_sure_of(chat, choice, stream):
    for tools in ([CLOSED], [TOOL, CLOSED] if choice != "required" else [CLOSED]):
        made = chat(tools=tools, tool_choice=choice, stream=stream, max_tokens=900, temperature=1.5)
        one = assembled(made)[0] if stream else made["choices"][0]
        assert one["finish_reason"] == "tool_calls"
        (function,) = one["tool_calls"] if stream else [call["function"] for call in one["message"]["tool_calls"]]
        assert function["name"] == "order"
        check_order(function["arguments"])


@pytest.mark.parametrize("stream", [False, True])
def test_a_grammar_of_tgi_is_kept_to(qwen, stream):
    for grammar, check in (
        ({"type": "json", "value": ORDER}, check_order),
        ({"type": "regex", "value": "(ja|nein){2}"}, lambda text: text in ("jaja", "janein", "neinja", "neinnein")),
    ):
        asked = {"max_new_tokens": 900, "return_full_text": False, "grammar": grammar, "do_sample": False}
        body = {"inputs": "hi", "parameters": asked, "stream": stream}
        answer = qwen.ask(body)
        assert answer.status == 200, answer.body
        made = json.loads(answer.body.strip().split(b"data: ")[-1]) if stream else answer.json[0]
        assert check(made["generated_text"]) is not False


@pytest.mark.parametrize(
    ("change", "param", "words"),
    [
        ({"response_format": {"type": "json_schema"}}, "response_format", "lacks 'json_schema.schema'"),
        (
            {"response_format": {"type": "json_schema", "json_schema": {"schema": {"type": "nonsense"}}}},
            "response_format",
            "nonsense",
        ),
        (
            {"response_format": {"type": "json_schema", "json_schema": {"schema": {"unevaluatedItems": 5}}}},
            "response_format",
            "unevaluatedItems",
        ),
        (
            {"response_format": {"type": "json_schema", "json_schema": {"schema": {"$ref": "http://127.0.0.1/x"}}}},
            "response_format",
            "simpler schema",
        ),
        ({"tools": [TOOL], "response_format": {"type": "json_object"}}, "response_format", "'tools'"),
        (
            {"tools": [TOOL], "tool_choice": {"type": "function", "function": {"name": "other"}}},
            "tool_choice",
            "get_weather",
        ),
        ({"tool_choice": "required"}, "tool_choice", "needs 'tools'"),
        ({"tools": [{"type": "function"}], "tool_choice": "required"}, "tools", "'name'"),
        ({"tools": [{"type": "function", "function": None}]}, "tools", "'name'"),
        ({"tools": [{"function": {"name": "f", "parameters": [1]}}], "tool_choice": "required"}, "tools", "an object"),
    ],
)
def test_what_cannot_be_kept_to_is_refused_by_name(chat, change, param, words):
    made = chat(**change)
    assert (made["raised"], made["error"]["param"]) == ("BadRequestError", param)
    assert words in made["error"]["message"]


def test_the_hubs_client_finds_the_chats_of_a_url(qwen):
    body = json.dumps({"messages": USER, "temperature": 0, "max_tokens": 1}).encode()
    choices = qwen.request("POST", "/v1/chat/completions", body).json["choices"]
    assert qwen.request("POST", "/invocations/v1/chat/completions", body).json["choices"] == choices


def test_without_the_package_schemas_are_refused_with_its_name(openai_client, mistral):
    client = openai_client(mistral)
    made = client("chat.completions.create", model="m", messages=USER, response_format={"type": "json_object"})
    assert (made["raised"], made["error"]["param"]) == ("BadRequestError", "response_format")
    assert "llguidance" in made["error"]["message"]
    made = client("chat.completions.create", model="m", messages=USER, tools=[TOOL], tool_choice="required")
    assert "llguidance" in made["error"]["message"]


def test_calls_that_are_marked_by_special_tokens_are_read(openai_client, mistral):
    client = openai_client(mistral)
    for stream in (False, True):
        made = client("chat.completions.create", model="m", messages=USER, tools=[TOOL], stream=stream)
        if stream:
            (function,) = assembled(made)[0]["tool_calls"]
        else:
            (call,) = made["choices"][0]["message"]["tool_calls"]
            assert len(call["id"]) == 9
            function = call["function"]
        assert (function["name"], json.loads(function["arguments"])) == ("get_weather", {"city": "Köln"})
    (choice,) = client("chat.completions.create", model="m", messages=USER)["choices"]
    assert choice["message"]["content"] == "Bonjour."


def test_what_the_template_refuses_is_the_callers_to_mend(openai_client, mistral):
    messages = [{"role": "system", "content": "be kind"}, *USER]
    made = openai_client(mistral)("chat.completions.create", model="m", messages=messages)
    assert (made["raised"], made["error"]["param"]) == ("BadRequestError", "messages")
    assert "no system role here" in made["error"]["message"]


def test_the_same_body_is_answered_on_invocations_and_by_route(qwen):
    body = {"messages": USER, "temperature": 0, "chat_template_kwargs": {"enable_thinking": False}}
    custom = "X-Amzn-SageMaker-Custom-Attributes"
    data, json_type = json.dumps(body).encode(), {"Content-Type": "application/json"}
    asked = [
        ("/v1/chat/completions", json_type),
        ("/invocations", json_type),
        ("/invocations", {custom: "route=/v1/chat/completions", **json_type}),
        ("/invocations", {custom: "accept_eula=true;route=/v1/chat/completions"}),
    ]
    answers = [qwen.request("POST", path, data, headers).json for path, headers in asked]
    for answer in answers:
        del answer["id"], answer["created"]
    assert answers[0]["choices"][0]["message"]["content"] == "Hello you, and good day."
    assert all(answer == answers[0] for answer in answers)
    bad = json.dumps({**body, "n": 0}).encode()
    errors = [qwen.request("POST", path, bad, headers) for path, headers in asked]
    assert [error.status for error in errors] == [400] * 4
    assert all(error.json == errors[0].json for error in errors)
    assert errors[0].json["error"].keys() == {"message", "type", "param", "code"}
    wrong = qwen.request("POST", "/invocations", data, {custom: "route=/v1/chat/complete"})
    assert wrong.error[:2] == (404, "no-such-path")


def test_what_changes_no_answer_is_passed_over(chat):
    more = {"user": "me", "metadata": {"a": "b"}, "store": False, "service_tier": "auto", "safety_identifier": "x"}
    more |= {"extra_body": {"sagemaker_base_url": "http://127.0.0.1"}}  # litellm sends this one to the model
    off = {"frequency_penalty": 0, "presence_penalty": 0, "response_format": {"type": "text"}, "logit_bias": {}}
    (choice,) = chat(**more, **off, prompt_cache_key="k", modalities=["text"], seed=1, parallel_tool_calls=True)[
        "choices"
    ]
    assert choice["message"]["content"] == "Hi there."


PICTURE = {"type": "image_url", "image_url": {"url": "http://127.0.0.1/cat.png"}}


@pytest.mark.parametrize(
    ("change", "param", "words"),
    [
        ({"temperature": 3}, "temperature", "from 0 to 2"),
        ({"n": 100}, "n", "from 1 to 16"),
        ({"extra_body": {"temprature": 0}}, "temprature", "did you mean 'temperature'"),
        ({"extra_body": {"max_output_tokens": 3}}, "max_output_tokens", "max_completion_tokens"),
        ({"extra_body": {"chat_template": "{{ 1 }}"}}, "chat_template", "loads code"),
        ({"extra_body": {"chat_template_kwargs": {"messages": []}}}, "chat_template_kwargs", "messages"),
        ({"messages": []}, "messages", "1 to 10000"),
        ({"messages": [{"role": "robot", "content": "x"}]}, "messages[0].role", "robot"),
        ({"messages": [{"role": "user"}]}, "messages[0].content", "is missing"),
        ({"messages": [{"role": "user", "content": [PICTURE]}]}, "messages[0].content[0]", "'text' only"),
        ({"messages": [*USER, {"role": "assistant", "tool_calls": [{}]}]}, "messages[1].tool_calls[0]", "arguments"),
        ({"tools": [{"type": "function", "function": {"name": "a b"}}]}, "tools", "letters"),
        ({"top_logprobs": 3}, "top_logprobs", "'logprobs': true"),
        ({"logit_bias": {"999999999": 1}}, "logit_bias", "token ids below"),
        ({"max_tokens": 10**6}, "max_tokens", "from 1 to 8192"),
        ({"max_tokens": 8000}, None, "4096 positions"),
        ({"messages": [{"role": "user", "content": "x" * 5000}]}, "messages", "'messages' has more than 4096 tokens"),
        ({"functions": []}, "functions", "send 'tools'"),
    ],
)
def test_what_cannot_be_done_is_refused_by_name(chat, change, param, words):
    made = chat(**change)
    assert (made["raised"], made["status"]) == ("BadRequestError", 400)
    assert made["error"]["param"] == param
    assert made["error"]["type"] == "invalid_request_error"
    assert (made["error"]["code"] == "context_length_exceeded") == ("positions" in words or "'messages' has" in words)
    assert words in made["error"]["message"]


def test_a_refusal_that_a_client_sends_back_is_what_the_assistant_said(chat):
    refused = {"role": "assistant", "content": None, "refusal": "I would rather not.", "annotations": []}
    said = {"role": "assistant", "content": "I would rather not."}
    made, other = (chat(messages=[*USER, answer, *USER], temperature=0) for answer in (refused, said))
    assert made["usage"]["prompt_tokens"] == other["usage"]["prompt_tokens"]
    assert made["choices"][0]["message"] == other["choices"][0]["message"]


def test_what_there_is_not_says_where_to_go(openai_client, qwen):
    client = openai_client(qwen)
    made = client("responses.create", model="m", input="hi")
    assert (made["raised"], made["status"]) == ("NotFoundError", 404)
    assert "/v1/chat/completions" in made["error"]["message"]
    made = client("images.generate", model="m", prompt="a cat")
    assert (made["raised"], made["error"]["code"]) == ("NotFoundError", "no-such-path")


def test_the_served_model_is_listed(openai_client, qwen):
    client = openai_client(qwen)
    (model,) = client("models.list")["data"]
    assert client("models.retrieve", model=model["id"]) == model
    assert client("models.retrieve", model="org/other")["raised"] == "NotFoundError"


def test_tools_are_refused_where_the_template_teaches_no_calls(openai_client, start_server, tmp_path_factory, release):
    chains, template = [("<|plain|>", "Hello.")], "{% for m in messages %}{{ m.content }}{% endfor %}<|plain|>"
    folder = make_chain(tmp_path_factory.mktemp("plain") / "model", chains, template)
    client = openai_client(start_server(folder, release).wait_until_ready())
    made = client("chat.completions.create", model="m", messages=USER, tools=[TOOL])
    assert (made["raised"], made["error"]["param"], made["error"]["code"]) == (
        "BadRequestError",
        "tools",
        "unsupported-tools",
    )
    assert "Hermes" in made["error"]["message"]
    (choice,) = client("chat.completions.create", model="m", messages=USER)["choices"]
    assert choice["message"]["content"] == "Hello."


def test_requests_of_different_lengths_share_batches_and_keep_theirs(qwen):
    def ask(most):
        body = {"messages": USER, "max_tokens": most, "chat_template_kwargs": {"enable_thinking": False}}
        return qwen.request("POST", "/v1/chat/completions", json.dumps(body).encode()).json

    pieces = ["Hello", " you", ", and", " good", " day", "."]
    with ThreadPoolExecutor(12) as pool:
        lengths = [4, 5, 6] * 8
        answers = list(pool.map(ask, lengths))
    for most, answer in zip(lengths, answers, strict=True):
        assert answer["choices"][0]["message"]["content"] == "".join(pieces[:most])
        assert answer["usage"]["completion_tokens"] == most
    batches = [json.loads(line)["batch"] for line in qwen.log.splitlines() if '"batch"' in line]
    assert max(batches) > 1


LLAVA = """{%- for m in messages -%}{{ m.role }}:{% for part in m.content -%}
{% if part.type == 'image' %}<image>{% else %}{{ part.text }}{% endif %}{% endfor %}{% endfor %} assistant:"""


@pytest.fixture(scope="module")
def looks(openai_client, start_server, tmp_path_factory, server_path):
    """A model that reads images in its messages, which the newest release has a pipeline for."""
    folder = tmp_path_factory.mktemp("llava") / "model"
    here = str(Path(__file__).parent)
    program = f"import sys; sys.path.insert(0, {here!r}); import pathlib, tiny_tasks; "
    program += f"tiny_tasks.make('image-text-to-text', pathlib.Path({str(folder)!r}))"
    subprocess.run([sys.executable, "-c", program], check=True, capture_output=True)
    config = folder / "processor_config.json"
    config.write_text(json.dumps({**json.loads(config.read_text()), "chat_template": LLAVA}))
    (folder / "chat_template.jinja").write_text(LLAVA)
    client = openai_client(start_server(folder).wait_until_ready())
    return lambda **arguments: client("chat.completions.create", **{"model": "any", "max_tokens": 5, **arguments})


def image(colour, name="PNG"):
    from PIL import Image

    file = io.BytesIO()
    Image.new("RGB", (40, 30), colour).save(file, name)
    encoded = base64.b64encode(file.getvalue()).decode()
    return {"type": "image_url", "image_url": {"url": f"data:image/{name.lower()};base64,{encoded}", "detail": "low"}}


def question(*parts):
    return [{"role": "system", "content": "look"}, {"role": "user", "content": [*parts, {"type": "text", "text": "?"}]}]


def test_images_are_read_in_messages(looks):
    def said(*parts):
        (choice,) = looks(messages=question(*parts), temperature=0, logprobs=True)["choices"]
        return [token["logprob"] for token in choice["logprobs"]["content"]]

    assert said(image("red")) == said(image("red"))
    assert said(image("red")) != said(image("blue"))
    assert looks(messages=question(image("red")))["usage"]["prompt_tokens"] > 16  # the image's tokens count
    assert looks(messages=question(image("red", "JPEG"), image("blue")), n=2)["choices"][1]["finish_reason"]
    streamed = assembled(looks(messages=question(image("red")), temperature=0, stream=True))[0]
    assert (
        streamed["content"] == looks(messages=question(image("red")), temperature=0)["choices"][0]["message"]["content"]
    )
    assert looks(messages=[{"role": "user", "content": "no image"}])["choices"]


@pytest.mark.parametrize(
    ("part", "words"),
    [
        (PICTURE, "this server fetches nothing"),
        ({"type": "image_url", "image_url": {"url": "file:///etc/passwd"}}, "this server fetches nothing"),
        ({"type": "image_url", "image_url": {"url": "data:image/png;base64,AAAA"}}, "image"),
        ({"type": "image_url", "image_url": "data:text/html,<b>"}, "base64"),
        ({"type": "video_url", "video_url": {"url": "data:,"}}, "'image_url'"),
        ({"type": "image", "image": "/etc/passwd"}, "'image_url'"),
    ],
)
def test_images_that_cannot_be_read_are_refused(looks, part, words):
    made = looks(messages=question(part))
    assert (made["raised"], made["status"]) == ("BadRequestError", 400)
    assert made["error"]["param"].startswith("messages")
    assert words in made["error"]["message"]


CHAIN = {f"d{number}": {"$ref": f"#/$defs/d{number + 1}"} for number in range(3000)}
NOT_COMPILED = {
    "a chain of references": {"$defs": {**CHAIN, "d3000": {"type": "string"}}, "$ref": "#/$defs/d0"},
    "an intersection": {"allOf": [{"type": "string", "pattern": f"[a-z]{{{n},1000}}{n}"} for n in range(40)]},
}


@pytest.mark.parametrize("schema", NOT_COMPILED)
def test_a_schema_that_cannot_be_compiled_is_refused_and_ends_nothing(qwen, chat, schema):
    wanted = {"type": "json_schema", "json_schema": {"name": "a", "schema": NOT_COMPILED[schema]}}
    made = chat(response_format=wanted)
    assert (made["raised"], made["error"]["param"]) == ("BadRequestError", "response_format")
    assert "simpler schema" in made["error"]["message"]
    as_text = {"type": "json", "value": json.dumps(NOT_COMPILED[schema])}
    assert "simpler schema" in qwen.ask({"inputs": "hi", "parameters": {"grammar": as_text}}).error[2]
    answered = chat(response_format={"type": "json_object"}, max_tokens=200, temperature=0)["choices"][0]
    assert answered["finish_reason"] == "length" or isinstance(json.loads(answered["message"]["content"]), dict)


def test_a_schema_that_takes_long_to_compile_does_not_keep_long_texts_out(qwen):
    """Texts in which reading takes long are read one after the other, while another process compiles."""
    slow = {"allOf": [{"type": "string", "pattern": f"[a-z]{{{n},1000}}{n}"} for n in range(1, 41)]}
    as_text = {"type": "json", "value": json.dumps(slow)}
    over = []

    def compile_it():
        assert "simpler schema" in qwen.ask({"inputs": "hi", "parameters": {"grammar": as_text}}).error[2]
        over.append("schema")

    with ThreadPoolExecutor(1) as other:
        compiled = other.submit(compile_it)
        time.sleep(0.3)
        assert qwen.ask({"inputs": "hi " * 3000}).status in (200, 400)
        over.append("text")
        compiled.result()
    assert over == ["text", "schema"]


def test_tokens_at_which_a_request_stops_end_a_text_where_its_schema_may_end(monkeypatch, models, kept_packages):
    monkeypatch.syspath_prepend(kept_packages("llguidance-1.9.1", "llguidance==1.9.1", dependencies=False))
    import torch
    from extended_dlc_server.errors import TakesLongError
    from extended_dlc_server.reading.constraints import Grammar
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(models / "bloom")
    with pytest.raises(TakesLongError) as first:
        Grammar({"const": 1}, "response_format")
    first.value.work()
    grammar = Grammar({"const": 1}, "response_format")
    prompt, one = tokenizer("a")["input_ids"], tokenizer("1", add_special_tokens=False)["input_ids"]
    scores = torch.zeros(1, len(tokenizer))
    for end in range(40, 45):
        allowed = grammar.processor(tokenizer, {end}, "")
        before = allowed(torch.tensor([prompt]), scores)
        assert not before[0, end].isfinite()
        assert before[0, one[0]].isfinite()
        after = allowed(torch.tensor([[*prompt, *one]]), scores)
        assert after.isfinite().nonzero().tolist() == [[0, end]]
        assert allowed(torch.tensor([[*prompt, *one, end]]), scores).isfinite().all()  # the padding of a batch
    assert len(tokenizer.__dict__["_of_llguidance"]) == 1


def test_a_chat_of_too_many_images_or_texts_is_refused_before_the_processor_reads_it(looks):
    many = looks(messages=question(*[image("red")] * 300))
    assert (many["raised"], many["status"]) == ("BadRequestError", 400)
    assert "300 images" in many["error"]["message"]
    long = looks(messages=[{"role": "user", "content": "a b c " * 2000}] * 20)
    assert (long["raised"], long["status"]) == ("BadRequestError", 400)
    assert long["error"]["code"] == "context_length_exceeded"
