"""An assistant's text is parsed by the marks of its model's template, as a whole or in pieces."""

from __future__ import annotations

import json

import pytest
from extended_dlc_server.writing.replies import Content, MarkedReply, Reasoning, TemplateReply, thinking_of
from extended_dlc_server.writing.tool_calls import Call, call_id, form_of, schemas_of

WEATHER = {
    "type": "function",
    "function": {
        "name": "get_weather",
        "parameters": {
            "type": "object",
            "properties": {
                "city": {"type": "string"},
                "days": {"type": "integer"},
                "metric": {"type": ["boolean", "null"]},
                "zip": {"anyOf": [{"type": "string"}, {"type": "null"}]},
            },
        },
    },
}
SCHEMAS = schemas_of([WEATHER])
# the parts of published models' templates that write tool calls
TEMPLATES = {
    "hermes": "return a json object with function name and arguments within <tool_call></tool_call> XML tags:\\n"
    '<tool_call>\\n{"name": <function-name>, "arguments": <args-json-object>}\\n</tool_call>',
    "qwen-function": "<tool_call>\\n<function=example_function_name>\\n<parameter=example_parameter_1>\\nvalue_1\\n"
    "</parameter>\\n</function>\\n</tool_call>",
    "glm": "<tool_call>{function-name}\\n<arg_key>{arg-key-1}</arg_key>\\n<arg_value>{arg-value-1}</arg_value>\\n"
    "</tool_call>",
    "mistral": "{{ '[TOOL_CALLS]' }}{{ tool_call.function|tojson }}",
    "llama": 'Respond in the format {"name": function name, "parameters": dictionary of argument name and its value}.',
}
CALLS = [
    ("hermes", '<tool_call>\n{"name": "get_weather", "arguments": {"city": "Köln", "days": 3}}\n</tool_call>'),
    (
        "qwen-function",
        QWEN := "<tool_call>\n<function=get_weather>\n<parameter=city>\nKöln\n</parameter>\n"
        "<parameter=days>\n3\n</parameter>\n</function>\n</tool_call>",
    ),
    (
        "glm",
        "<tool_call>get_weather\n<arg_key>city</arg_key>\n<arg_value>Köln</arg_value>\n"
        "<arg_key>days</arg_key>\n<arg_value>3</arg_value>\n</tool_call>",
    ),
    ("mistral", '[TOOL_CALLS] [{"name": "get_weather", "arguments": {"city": "Köln", "days": 3}}]'),
    ("mistral", '[TOOL_CALLS]get_weather[ARGS]{"city": "Köln", "days": 3}'),
    ("mistral", '[TOOL_CALLS]get_weather[CALL_ID]abcdefghi[ARGS]{"city": "Köln", "days": 3}'),
    ("llama", '{"name": "get_weather", "parameters": {"city": "Köln", "days": 3}}'),
    ("llama", '<|python_tag|>{"name": "get_weather", "parameters": {"city": "Köln", "days": 3}}'),
]


def taken_apart(text, form=None, thinking=None, begun=False, size=None):
    """Reasoning, content and tool calls of a text that arrives in pieces of `size` characters."""
    reply = MarkedReply(form_of(TEMPLATES[form]) if form else None, thinking, SCHEMAS, begun=begun)
    size = size or len(text) or 1
    pieces = [piece for start in range(0, len(text), size) for piece in reply.feed(text[start : start + size])]
    pieces += reply.end()
    return sorted_out(pieces)


def sorted_out(pieces):
    return (
        "".join(piece.text for piece in pieces if isinstance(piece, Reasoning)),
        "".join(piece.text for piece in pieces if isinstance(piece, Content)),
        [(piece.name, json.loads(piece.arguments)) for piece in pieces if isinstance(piece, Call)],
    )


@pytest.mark.parametrize("name", TEMPLATES)
def test_each_form_is_told_by_the_templates_own_words(name):
    assert form_of(TEMPLATES[name]).name == name


def test_a_template_without_calls_has_no_form():
    assert form_of("{% for message in messages %}{{ message.content }}{% endfor %}") is None
    assert form_of("<｜tool▁calls▁begin｜>") is None


@pytest.mark.parametrize("size", [None, 1, 3, 7])
@pytest.mark.parametrize(("form", "text"), CALLS)
def test_a_published_call_is_read_however_it_is_cut(form, text, size):
    assert taken_apart(text, form, size=size) == ("", "", [("get_weather", {"city": "Köln", "days": 3})])


@pytest.mark.parametrize("size", [None, 1, 4])
@pytest.mark.parametrize(
    ("form", "text"),
    [(form, text) for form, text in CALLS if form != "llama"],
)
def test_what_is_said_before_calls_is_content(form, text, size):
    said, calls = f"I look.\n\n{text}", [("get_weather", {"city": "Köln", "days": 3})]
    assert taken_apart(said, form, size=size) == ("", "I look.", calls)


@pytest.mark.parametrize("size", [None, 1])
@pytest.mark.parametrize(
    ("form", "text"),
    [
        (
            "hermes",
            '<tool_call>{"name": "a", "arguments": {}}</tool_call>\n<tool_call>\n{"name": "b", "arguments": {}}',
        ),
        ("mistral", '[TOOL_CALLS] [{"name": "a", "arguments": {}}, {"name": "b", "arguments": {}}]'),
        ("mistral", "[TOOL_CALLS]a[ARGS]{}[TOOL_CALLS]b[ARGS]{}"),
        (
            "qwen-function",
            "<tool_call><function=a></function></tool_call><tool_call><function=b>\n</function></tool_call>",
        ),
    ],
)
def test_several_calls_keep_their_order(form, text, size):
    assert taken_apart(text, form, size=size)[2] == [("a", {}), ("b", {})]


def test_several_calls_of_llama_stand_one_after_the_other():
    call = '{"name": "get_weather", "parameters": {}}'
    assert taken_apart(f"{call}; {call}", "llama")[2] == [("get_weather", {})] * 2


def test_values_of_qwens_form_have_the_types_of_the_tool():
    body = "".join(
        f"<parameter={name}>\n{value}\n</parameter>"
        for name, value in [
            ("city", "12"),
            ("days", "12"),
            ("metric", "True"),
            ("zip", "null"),
            ("other", '{"a": [1]}'),
        ]
    )
    ((_, arguments),) = taken_apart(f"<tool_call><function=get_weather>{body}</function></tool_call>", "qwen-function")[
        2
    ]
    assert arguments == {"city": "12", "days": 12, "metric": True, "zip": "null", "other": {"a": [1]}}


@pytest.mark.parametrize("size", [None, 1])
@pytest.mark.parametrize(
    ("form", "text"),
    [
        ("hermes", "<tool_call>\nnot JSON\n</tool_call> and more"),
        ("hermes", "a < b and <tool_box>"),
        ("llama", '{"name": "unknown", "parameters": {}}'),
        ("llama", '{"answer": 42}'),
        ("llama", "no { call"),
        ("mistral", "[TOOL_CALLS] no list"),
        ("mistral", "[TOOL"),
    ],
)
def test_what_is_no_call_stays_content(form, text, size):
    assert taken_apart(text, form, size=size) == ("", text, [])


@pytest.mark.parametrize("size", [None, 1, 5])
def test_reasoning_is_given_apart(size):
    marks = thinking_of("{{ '<think>\\n' + reasoning_content + '\\n</think>' }}")
    assert taken_apart("<think>\nWell.\n\nYes.\n</think>\n\nHello you.", None, marks, size=size)[:2] == (
        "Well.\n\nYes.",
        "Hello you.",
    )
    assert taken_apart("Well.\n</think>\n\nHello.", None, marks, begun=True, size=size)[:2] == ("Well.", "Hello.")
    assert taken_apart("<think>never ends", None, marks, size=size)[:2] == ("never ends", "")
    assert taken_apart("Hello <think>", None, marks, size=size)[:2] == ("", "Hello <think>")


@pytest.mark.parametrize("size", [None, 1, 5])
def test_calls_may_follow_reasoning(size):
    marks = thinking_of("<think></think>")
    text = '<think>\nHm.\n</think>\n\n<tool_call>\n{"name": "a", "arguments": {}}\n</tool_call>'
    assert taken_apart(text, "hermes", marks, size=size) == ("Hm.", "", [("a", {})])
    text = '<think>Hm.</think>\n{"name": "get_weather", "parameters": {}}'
    assert taken_apart(text, "llama", marks, size=size) == ("Hm.", "", [("get_weather", {})])


@pytest.mark.parametrize("size", [None, 1])
def test_a_text_without_marks_is_content_to_the_last_space(size):
    assert taken_apart("  a <think> b </think>\n ", size=size) == ("", "  a <think> b </think>\n ", [])


def test_ids_are_as_the_models_template_takes_them():
    random = "0123456789abcdef" * 2
    assert call_id(form_of(TEMPLATES["mistral"]), random) == "012345678"
    assert call_id(form_of(TEMPLATES["hermes"]), random).startswith("call_0123")


# as `transformers serve` has it for Qwen 3
QWEN_3 = {
    "defaults": {"role": "assistant"},
    "start_anchor": "<|im_start|>assistant\n",
    "fields": {
        "reasoning_content": {"open": "<think>", "close": "</think>", "content": "text"},
        "tool_calls": {
            "open_pattern": r"\s*<tool_call>",
            "close": "</tool_call>",
            "repeats": True,
            "content": "json",
            "transform": {"type": "function", "function": "{content}"},
        },
        "content": {"close_pattern": r"\s*(?:<\|im_end\|>|<\|endoftext\|>)", "content": "text"},
    },
}
CALL = '<tool_call>\n{"name": "get_weather", "arguments": {"days": 3}}\n</tool_call>'


@pytest.mark.parametrize("size", [1, 5, 1000])
@pytest.mark.parametrize(
    ("prompt", "text", "expected"),
    [
        (
            "",
            f"<think>\nHm.\n</think>\n\nI look.\n{CALL}<|im_end|>",
            ("Hm.", "I look.", [("get_weather", {"days": 3})]),
        ),
        ("<think>\n", "Hm.\n</think>\n\nHello  you.<|im_end|>", ("Hm.", "Hello  you.", [])),
        ("", "Hello.<|im_end|>", ("", "Hello.", [])),
        ("", "<tool_call>\nnot JSON\n</tool_call> and more<|im_end|>", None),
    ],
)
def test_a_tokenizer_may_say_how_its_answers_are_taken_apart(prompt, text, expected, size):
    parsing = pytest.importorskip("transformers.utils.chat_parsing", reason="from transformers 5.13 on")
    reply = TemplateReply(
        parsing.ResponseParser(QWEN_3, prefix=f"<|im_start|>user\nhi<|im_end|><|im_start|>assistant\n{prompt}")
    )
    pieces = [piece for start in range(0, len(text), size) for piece in reply.feed(text[start : start + size])]
    found = sorted_out([*pieces, *reply.end()])
    if expected is None:
        assert "not JSON" in found[1]
        assert found[2] == []
    else:
        assert found == expected
