"""The valid `inputs` of each task: each field is text, a file in base64 or plain data, and nothing else."""

from __future__ import annotations

import base64
import io
import json
import struct
import time
import zlib

import pytest

pytest.importorskip("numpy", reason="pip install -r tests/runtime/requirements.txt")
pytest.importorskip("PIL", reason="pip install -r tests/runtime/requirements.txt")

from extended_dlc_server import errors
from extended_dlc_server.machine import memory
from extended_dlc_server.reading import decoding, forms, tasks


def pixels():
    """A PNG with one pixel, in base64."""

    def chunk(name, data):
        return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))

    head = chunk(b"IHDR", struct.pack(">IIBBBBB", 1, 1, 8, 2, 0, 0, 0))
    data = b"\x89PNG\r\n\x1a\n" + head + chunk(b"IDAT", zlib.compress(bytes(4))) + chunk(b"IEND", b"")
    return base64.b64encode(data).decode()


IMAGE = pixels()
NAMES = ("http://127.0.0.1:1/cat.png", "/etc/hostname", "file:///etc/hostname")
CHAT = [{"role": "user", "content": [{"type": "image", "image": IMAGE}, {"type": "text", "text": "What is it?"}]}]
QUESTIONS = {"polite": {"type": "noul", "instructions": "Is it polite?"}}


def read(task, inputs):
    """The inputs as the model of a task gets them."""
    expected = decoding.Expected(task=task, kind=tasks.KINDS[task])
    return decoding.decode(json.dumps({"inputs": inputs}).encode(), None, expected).inputs


def refusal(task, inputs):
    with pytest.raises(errors.RequestError) as raised:
        read(task, inputs)
    assert raised.value.status == 400
    return raised.value.message


@pytest.mark.parametrize(
    ("task", "inputs"),
    [
        ("image-text-to-text", {"text": "hello"}),
        ("image-text-to-text", {"text": ["a", "b"]}),
        ("any-to-any", {"text": "hello"}),
        ("text-classification", {"text": "a", "text_pair": "b"}),
        ("text-classification", [{"text": "a"}, {"text": "b", "text_pair": "c"}]),
        ("question-answering", {"question": "who?", "context": "me"}),
        ("question-answering", {"question": ["who?", "what?"], "context": ["me", "it"]}),
        ("question-answering", [{"question": "who?", "context": "me"}]),
        ("table-question-answering", {"table": {"a": ["1"], "b": ["2"]}, "query": ["one?", "two?"]}),
        ("decision", {"state": {"deep": [{"text": "hi"}, 1, None, True]}, "questions": QUESTIONS}),
        ("decision", {"state": "a", "questions": {"b": {"type": "choice", "criteria": {"c": None, "d": {"e": 1}}}}}),
        ("decision", {"state": "a", "questions": {"b": {"type": "score", "criteria": ["c", "d"]}}}),
    ],
)
def test_what_a_task_takes_goes_through_as_it_is(task, inputs):
    assert read(task, inputs) == inputs


@pytest.mark.parametrize("inputs", [CHAT, [CHAT, CHAT], {"text": CHAT}, {"text": [CHAT]}])
@pytest.mark.parametrize("task", ["image-text-to-text", "any-to-any"])
def test_the_images_of_a_chat_are_decoded_wherever_the_chat_stands(task, inputs):
    chat = read(task, inputs)
    chat = chat[0] if isinstance(chat[0], list) else chat
    image, text = chat[0]["content"]
    assert image["image"].size == (1, 1)
    assert text == {"type": "text", "text": "What is it?"}


def test_a_turn_without_content_is_taken_beside_its_tool_calls():
    calls = [{"function": {"name": "f", "arguments": {"a": 1}}}]
    turns = read("image-text-to-text", [{"role": "assistant", "content": None, "tool_calls": calls}])
    assert turns == [{"role": "assistant", "content": "", "tool_calls": calls}]


def test_a_table_may_be_rows_and_its_cells_numbers():
    rows = {"table": [{"name": "a", "age": 1}, {"name": "b", "age": None}], "query": "who?"}
    assert read("table-question-answering", rows)["table"] == {"name": ["a", "b"], "age": ["1", ""]}


def test_words_keep_their_boxes():
    asked = {"question": "who?", "word_boxes": [["me", [0, 1.0, 1000, 10]]]}
    assert read("document-question-answering", asked) == {"question": "who?", "word_boxes": [("me", [0, 1, 1000, 10])]}


def test_images_of_a_decision_stand_where_their_names_do():
    asked = {"state": "is img-1 a cat?", "questions": QUESTIONS, "assets": {"img-1": {"data_base64": IMAGE}}}
    assert read("decision", asked)["assets"]["img-1"].size == (1, 1)
    assert "65 places" in refusal("decision", {**asked, "state": "img-1 " * 65})
    assert "names that stand" in refusal("decision", {**asked, "assets": {"": IMAGE}})


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize(
    ("task", "inputs"),
    [
        ("image-classification", lambda name: name),
        ("image-classification", lambda name: [IMAGE, name]),
        ("image-classification", lambda name: {"image": name}),
        ("image-text-to-text", lambda name: {"images": name, "text": "a"}),
        ("image-text-to-text", lambda name: {"images": [[name]], "text": "a"}),
        ("image-text-to-text", lambda name: {"text": [{"role": "user", "content": [{"type": "image", "url": name}]}]}),
        (
            "image-text-to-text",
            lambda name: {"text": [[{"role": "user", "content": [{"type": "image", "url": name}]}]]},
        ),
        ("image-text-to-text", lambda name: {"text": {"type": "image", "url": name}}),
        ("image-text-to-text", lambda name: [{"role": "user", "content": {"type": "image", "url": name}}]),
        ("image-text-to-text", lambda name: [{"role": "user", "content": [{"type": "image", "image": {"url": name}}]}]),
        ("image-text-to-text", lambda name: [{"role": "user", "content": [{"type": "image_url", "image_url": name}]}]),
        ("image-text-to-text", lambda name: [{"role": "user", "content": [{"type": "video", "video": name}]}]),
        ("image-text-to-text", lambda name: [{"role": "user", "content": [{"type": "audio", "audio": name}]}]),
        ("image-text-to-text", lambda name: [{"role": "user", "content": "a", "image": name}]),
        ("any-to-any", lambda name: {"text": "a", "audio": [name]}),
        ("any-to-any", lambda name: {"text": "a", "videos": name}),
        ("any-to-any", lambda name: [{"role": "user", "content": [{"type": "audio", "path": name}]}]),
        ("text-to-audio", lambda name: [{"role": "0", "content": [{"type": "audio", "path": name}]}]),
        ("text-to-audio", lambda name: [[{"role": "0", "content": [{"type": "audio", "url": name}]}]]),
        ("document-question-answering", lambda name: {"image": name, "question": "a"}),
        ("visual-question-answering", lambda name: [{"image": {"path": name}, "question": "a"}]),
        ("decision", lambda name: {"state": "a", "questions": QUESTIONS, "assets": {"cat": {"data_base64": name}}}),
        ("decision", lambda name: {"state": "a", "questions": QUESTIONS, "assets": {"cat": {"path": name}}}),
        ("decision", lambda name: name),
        ("table-question-answering", lambda name: {"table": name, "query": "a"}),
        ("table-question-answering", lambda name: name),
        ("question-answering", lambda name: name),
    ],
)
def test_a_name_of_a_file_is_refused_wherever_it_stands(task, inputs, name):
    assert refusal(task, inputs(name))


@pytest.mark.parametrize(
    ("task", "inputs", "says"),
    [
        ("text-classification", {"text": "a", "padding": "max_length", "max_length": 10**8}, "'text', 'text_pair'"),
        ("text-classification", {"text_pair": "a"}, "lacks 'text'"),
        ("text-classification", {"text": ["a"]}, "must be text"),
        ("feature-extraction", [{"text": "a"}], "text or a list of texts"),
        ("question-answering", {"question": "a"}, "lacks 'context'"),
        ("question-answering", {"question": ["a", "b"], "context": ["c"]}, "a context for each question"),
        ("question-answering", {"question": ["a"], "context": "c"}, "a context for each question"),
        ("question-answering", {"question": " ", "context": "c"}, "is empty"),
        ("table-question-answering", {"table": {"a": ["1"], "b": []}, "query": "a"}, "all of one length"),
        ("table-question-answering", {"table": [{"a": 1}, {"b": 1}], "query": "a"}, "the same columns"),
        ("table-question-answering", {"table": [[1], [2]], "query": "a"}, "the same columns"),
        ("table-question-answering", {"table": {"a": [[1]]}, "query": "a"}, "must be text"),
        ("table-question-answering", {"table": {"a": ["1"]}, "query": []}, "empty list"),
        ("document-question-answering", {"question": "a"}, "lacks 'image'"),
        ("document-question-answering", {"question": ["a"], "image": IMAGE}, "must be text"),
        ("document-question-answering", {"question": "a", "word_boxes": []}, "1 to 10,000 words"),
        ("document-question-answering", {"question": "a", "word_boxes": [["a", [0, 0, 9]]]}, "pairs such as"),
        ("document-question-answering", {"question": "a", "word_boxes": [["a", [0, 0, 1001, 9]]]}, "from 0 to 1000"),
        ("document-question-answering", {"question": "a", "word_boxes": [["a", [0, 0, float("nan"), 9]]]}, "0 to 1000"),
        ("document-question-answering", {"question": "a", "word_boxes": [["a", [9, 0, 1, 9]]]}, "before its left"),
        ("image-text-to-text", {"images": IMAGE}, "lacks 'text'"),
        ("image-text-to-text", {"images": [], "text": "a"}, "empty list"),
        ("image-text-to-text", {"images": [None], "text": "a"}, "base64"),
        ("image-text-to-text", {"text": 3}, "must be text, not 3"),
        ("image-text-to-text", {"images": IMAGE, "text": CHAT}, "images stand in its messages"),
        ("image-text-to-text", [{"role": "user", "content": [{"type": "image"}]}], "in base64 beside 'type'"),
        ("image-text-to-text", [{"role": "user", "content": [{"type": "text", "text": "\ud800"}]}], "surrogate"),
        ("decision", {"state": "a", "questions": {}}, "a question by each name"),
        ("decision", {"state": "a", "questions": {"b": {"type": ["noul"]}}}, "noul, choice, score"),
        ("decision", {"state": "a", "questions": {"b": {"type": "score", "criteria": {}}}}, "criteria in a list"),
        ("decision", {"state": "\ud800", "questions": QUESTIONS}, "surrogate"),
        ("keypoint-matching", [IMAGE, [IMAGE]], "base64"),
        ("automatic-speech-recognition", ["a"], "base64"),
    ],
)
def test_what_is_wrong_is_said_with_its_place_and_what_is_right(task, inputs, says):
    assert says in refusal(task, inputs)


@pytest.mark.parametrize(
    ("task", "around"),
    [
        ("feature-extraction", lambda deep: deep),
        ("text-generation", lambda deep: [{"role": "user", "content": deep}]),
        ("decision", lambda deep: {"state": deep, "questions": QUESTIONS}),
        ("image-text-to-text", lambda deep: [{"role": "user", "content": None, "tool_calls": deep}]),
    ],
)
def test_nesting_has_a_bottom(task, around):
    deep = "a"
    for _ in range(500):
        deep = [deep]
    assert refusal(task, around(deep))
    assert read(task, around(["a"]))


def test_messages_repeat_little_of_what_was_sent():
    long = "x" * 100_000
    for inputs in ({long: 1}, {"text": {long: long}}, [{"role": "user", "content": [{"type": long}]}]):
        assert len(refusal("image-text-to-text", inputs)) < 500


@pytest.mark.parametrize("charset", ["punycode", "idna", "unicode_escape", "utf-7", "zlib", "a\0b", "x" * 300])
def test_a_charset_that_nobody_writes_in_is_415_at_once(charset):
    expected = decoding.Expected(task="feature-extraction", kind=tasks.Kind.TEXT)
    started = time.process_time()
    with pytest.raises(errors.RequestError) as raised:
        decoding.decode(b"a-" + b"b" * 1_000_000, f"text/plain; charset={charset}", expected)
    assert raised.value.status == 415
    assert time.process_time() - started < 1


@pytest.mark.parametrize("charset", ["latin-1", "windows-1252", "shift-jis", "gb18030", "big5", "utf-16", "UTF8"])
def test_a_charset_that_people_write_in_is_read(charset):
    expected = decoding.Expected(task="feature-extraction", kind=tasks.Kind.TEXT)
    assert decoding.decode("abc".encode(charset), f"text/plain; charset={charset}", expected).inputs == "abc"


def test_a_field_of_a_form_may_have_any_name_in_utf_8():
    body = 'X\r\n--b\r\nContent-Disposition: form-data; name="größe"\r\nContent-Type: täxt\r\n\r\n1\r\n--b--\r\n'
    (part,) = forms.parse_form(body.encode(), "multipart/form-data; boundary=b")
    assert (part.name, part.content_type) == ("größe", "täxt")
    with pytest.raises(errors.RequestError, match="not UTF-8"):
        forms.parse_form(body.encode("latin-1"), "multipart/form-data; boundary=b")


def test_a_question_beside_a_file_is_text_whatever_it_looks_like():
    expected = decoding.Expected(task="document-question-answering", kind=tasks.Kind.IMAGE_AND_TEXT)
    parts = {
        "file": base64.b64decode(IMAGE),
        "question": b"[1, 2]",
        "word_boxes": b'[["a", [0, 0, 1, 1]]]',
        "top_k": b"2",
    }
    body = io.BytesIO()
    for name, data in parts.items():
        more = '; filename="a.png"' if name == "file" else ""
        body.write(f'--b\r\nContent-Disposition: form-data; name="{name}"{more}\r\n\r\n'.encode() + data + b"\r\n")
    decoded = decoding.decode(body.getvalue() + b"--b--\r\n", "multipart/form-data; boundary=b", expected)
    assert (decoded.inputs["question"], decoded.inputs["word_boxes"]) == ("[1, 2]", [("a", [0, 0, 1, 1])])
    assert decoded.parameters == {"top_k": 2}


def test_whatever_json_comes_in_is_read_or_the_callers_fault():
    hypothesis = pytest.importorskip("hypothesis", reason="pip install hypothesis")
    st = hypothesis.strategies
    leaves = st.sampled_from([IMAGE, *NAMES, "\ud800", "user", "text", "image", "audio", "noul", 1e400, 10**400])
    leaves |= st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5)
    names = ["image", "images", "text", "text_pair", "question", "context", "table", "query", "state", "questions"]
    names += [
        "assets",
        "word_boxes",
        "role",
        "content",
        "type",
        "url",
        "base64",
        "audio",
        "criteria",
        "data_base64",
        "",
    ]
    values = st.recursive(
        leaves, lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.sampled_from(names), inner, max_size=4)
    )
    parts = st.dictionaries(st.sampled_from(["type", "text", "image", "url", "audio"]), values, max_size=3)
    messages = st.fixed_dictionaries({"role": values, "content": st.lists(parts, max_size=3) | values})
    words = st.lists(st.tuples(values, st.lists(st.integers(-1, 1001) | values, max_size=5)), max_size=3)
    shapes = st.one_of(
        values,
        st.lists(messages, max_size=3),
        st.fixed_dictionaries({"text": st.lists(messages, max_size=3) | values}, optional={"images": values}),
        st.fixed_dictionaries({"question": values}, optional={"image": values, "word_boxes": words, "context": values}),
        st.fixed_dictionaries({"state": values, "questions": values}, optional={"assets": values}),
        st.fixed_dictionaries({"table": st.dictionaries(st.text(), st.lists(leaves)) | values, "query": values}),
    )

    refused = []

    @hypothesis.settings(
        max_examples=300, deadline=None, database=None, suppress_health_check=list(hypothesis.HealthCheck)
    )
    @hypothesis.given(shapes)
    def ask(inputs):
        body = json.dumps({"inputs": inputs}).encode()
        for task, kind in tasks.KINDS.items():
            room = memory.Room(1 << 28, "images and sounds")
            try:
                with memory.Share(room) as share:
                    decoding.decode(body, None, decoding.Expected(task=task, kind=kind), share=share)
            except errors.RequestError as error:
                refused.append(error)
            assert room.left == room.size

    ask()
    assert {error.status for error in refused} <= {400, 413}
    assert max(len(error.message) for error in refused) < 700
