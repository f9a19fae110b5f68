"""Forms as requests, and answers in other forms than JSON."""

from __future__ import annotations

import csv
import io
import json
import time
import tracemalloc

import pytest

pytest.importorskip("numpy", reason="pip install -r tests/runtime/requirements.txt")

from extended_dlc_server import errors
from extended_dlc_server.reading import decoding, forms, negotiation, tasks

BOUNDARY = "xYzZy"
FORM = f"multipart/form-data; boundary={BOUNDARY}"
GREEDY = {"max_new_tokens": 3, "do_sample": False}


def form(*parts, end=f"--{BOUNDARY}--\r\n"):
    """A form; each part is (header parameters, content, content type or None)."""
    body = b""
    for parameters, content, *content_type in parts:
        content = content if isinstance(content, bytes) else content.encode()
        head = f"--{BOUNDARY}\r\nContent-Disposition: form-data; {parameters}\r\n"
        head += f"Content-Type: {content_type[0]}\r\n" if content_type else ""
        body += head.encode() + b"\r\n" + content + b"\r\n"
    return body + end.encode()


def field(name, value):
    return f'name="{name}"', value


def file(content, content_type="audio/wav", name="file"):
    return f'name="{name}"; filename="a.bin"', content, content_type


def accept(server, body, accepted, content_type="application/json"):
    data = json.dumps(body).encode() if isinstance(body, dict) else body
    return server.request("POST", "/invocations", data, {"Content-Type": content_type, "Accept": accepted})


# forms, without a server


def test_a_form_is_split_into_its_parts():
    content = bytes(range(256)) + b"\r\n--xYzZ\r\n\r\n--" + b"\r\n"  # almost a delimiter
    first, second = forms.parse_form(b"preamble\r\n" + form(file(content), field("a", "b")) + b"epilogue", FORM)
    assert (first.name, first.is_file, first.content_type, first.data) == ("file", True, "audio/wav", content)
    assert (second.name, second.is_file, second.content_type, second.data) == ("a", False, None, b"b")


def test_the_boundary_may_be_quoted_and_hold_odd_characters():
    body = form(field("a", "b")).replace(BOUNDARY.encode(), b"=_( :?")
    assert forms.parse_form(body, 'Multipart/Form-Data; charset=utf-8; boundary="=_( :?"')[0].data == b"b"


def test_an_empty_field_is_a_field():
    assert forms.parse_form(form(field("a", "")), FORM)[0].data == b""


@pytest.mark.parametrize(
    ("body", "content_type"),
    [
        (form(field("a", "b")), "multipart/form-data"),
        (form(field("a", "b")), "multipart/form-data; boundary="),
        (form(field("a", "b")), f"multipart/form-data; boundary={'x' * 71}"),
        (form(field("a", "b")), "multipart/form-data; boundary=other"),
        (b"", FORM),
        (b"--xYzZy", FORM),
        (b"--xYzZy\r\n", FORM),
        (form(field("a", "b"), end=""), FORM),
        (form(field("a", "b"))[:-20], FORM),
        (form(("no-name=1", "b")), FORM),
        (form(field("a", "b")).replace(b"form-data", b"attachment"), FORM),
        (form((f'name="{"x" * 9000}"', "b")), FORM),
        (form(*[field(f"a{number}", "b") for number in range(65)]), FORM),
    ],
)
def test_what_is_no_form_is_400(body, content_type):
    with pytest.raises(errors.RequestError, match="not a valid form") as raised:
        forms.parse_form(body, content_type)
    assert (raised.value.status, raised.value.code) == (400, "malformed-form")


@pytest.mark.parametrize("filling", [b"\r\n--xYzZ", b"\r\n\r\n", b"\r\n--", b"\r", bytes(8)])
def test_a_large_form_takes_little_time_and_one_copy(filling):
    content = filling * (8_000_000 // len(filling))
    body = form(file(content))
    tracemalloc.start()
    started = time.process_time()
    assert len(forms.parse_form(body, FORM)[0].data) == len(content)
    assert time.process_time() - started < 2
    assert tracemalloc.get_traced_memory()[1] < 1.2 * len(content)
    tracemalloc.stop()


QUESTION = decoding.Expected(task="question-answering", kind=tasks.Kind.TEXT)
CLASSIFY = decoding.Expected(task="text-classification", kind=tasks.Kind.TEXT)


def test_csv_is_a_list_of_inputs():
    decoded = decoding.decode(b'inputs\r\n"a, b"\r\nc\r\n', "text/csv", CLASSIFY)
    assert decoded.inputs == ["a, b", "c"]
    decoded = decoding.decode(b"context,question\nhier,wo?\n", "text/csv; charset=utf-8", QUESTION)
    assert decoded.inputs == [{"context": "hier", "question": "wo?"}]


@pytest.mark.parametrize(
    "body", [b"a text\n", b"inputs\n", b"inputs,more\na,b\n", b"inputs\na,b\n", b'inputs\n"a', b"question\na\n", b"\n"]
)
def test_csv_without_its_columns_is_400(body):
    with pytest.raises(errors.RequestError) as raised:
        decoding.decode(body, "text/csv", CLASSIFY)
    assert raised.value.status == 400
    assert raised.value.code in ("malformed-csv", "empty-body")


@pytest.mark.parametrize(
    ("accepted", "form"),
    [
        ("", "JSON"),
        ("*/*", "JSON"),
        ("application/*", "JSON"),
        ("text/plain", "TEXT"),
        ("Text/Plain; charset=utf-8", "TEXT"),
        ("text/plain;q=0.5, application/json;q=0.4", "TEXT"),
        ("text/plain, */*", "TEXT"),
        ("text/html, application/xhtml+xml, */*;q=0.8", "JSON"),
        ("application/json;q=0, */*", "TEXT"),
        ("text/*", "TEXT"),
        ("application/json, text/csv", "JSON"),
    ],
)
def test_accept_is_read_as_http_says(accepted, form):
    assert negotiation.choose_form(accepted, "text-generation").name == form


@pytest.mark.parametrize("accepted", ["image/png", "text/plain;q=0", "application/x-npy, text/html", "*/*;q=0"])
def test_what_is_not_offered_is_406(accepted):
    with pytest.raises(errors.RequestError, match="application/json") as raised:
        negotiation.choose_form(accepted, "text-generation")
    assert raised.value.status == 406


# with a server


def test_whisper_takes_openais_form(whisper, tone):
    task = {"Content-Type": "audio/wav", "X-Amzn-SageMaker-Custom-Attributes": "task=transcribe"}
    plain = whisper.request("POST", "/invocations", tone(), task).json["text"]
    fields = [field("model", "whisper-1"), field("language", "de"), field("temperature", "0")]
    answer = whisper.ask(form(file(tone()), *fields), FORM)
    assert answer.status == 200, answer.body
    assert set(answer.json) == {"text"}
    answer = whisper.ask(form(file(tone(), "application/x-unknown"), field("response_format", "text")), FORM)
    assert answer.content_type == "text/plain; charset=utf-8"
    assert answer.body.decode() == f"{plain.strip()}\n"


def test_a_form_with_a_field_of_openais_alone_is_a_request_for_a_transcript(whisper, tone):
    """InvokeEndpoint has one path, so that the interface follows from the body."""
    fields = [field("response_format", "verbose_json"), field("language", "de")]
    answer = whisper.ask(form(file(tone(2)), *fields), FORM)
    assert answer.status == 200, answer.body
    assert (answer.json["task"], answer.json["language"], answer.json["duration"]) == ("transcribe", "german", 2)
    assert whisper.ask(form(file(tone()), field("response_format", "vtt")), FORM).body.startswith(b"WEBVTT")
    assert whisper.ask(form(file(tone()), field("prompt", "Hello")), FORM).status == 200
    refused = whisper.ask(form(file(tone()), field("response_format", "docx")), FORM)
    assert refused.json["error"]["param"] == "response_format"


def test_a_temperature_makes_whisper_sample(whisper, tone):
    answers = {whisper.ask(form(file(tone()), field("temperature", "2")), FORM).body for _ in range(4)}
    assert len(answers) > 1
    assert all(b'"text"' in answer for answer in answers)


@pytest.mark.parametrize(
    ("name", "value", "says"),
    [
        ("temperature", "hot", "from 0 to 2"),
        ("temperature", "3", "from 0 to 2"),
        ("langage", "de", "did you mean 'language'?"),
        ("parameters", "[1]", "JSON object"),
    ],
)
def test_a_field_that_means_nothing_here_is_400(whisper, tone, name, value, says):
    status, _, message = whisper.ask(form(file(tone()), field(name, value)), FORM).error
    assert status == 400
    assert says in message


def test_a_form_needs_exactly_one_file(whisper, tone):
    assert whisper.ask(form(field("language", "de")), FORM).error[:2] == (400, "missing-inputs")
    assert whisper.ask(form(file(tone()), file(tone())), FORM).error[:2] == (400, "malformed-form")
    assert whisper.ask(form(file(b"")), FORM).error[:2] == (400, "empty-body")
    assert whisper.ask(form(field("inputs", "http://127.0.0.1/a.wav")), FORM).error[:2] == (400, "bad-inputs")


def test_a_form_asks_a_text_model_too(bloom):
    wanted = bloom.ask({"inputs": "hello", "parameters": GREEDY}).json
    one_by_one = form(field("inputs", "hello"), field("max_new_tokens", "3"), field("do_sample", "false"))
    assert bloom.ask(one_by_one, FORM).json == wanted
    together = form(file("hello", "text/plain"), field("parameters", json.dumps(GREEDY)))
    assert bloom.ask(together, FORM).json == wanted


def test_an_answer_may_be_plain_text(bloom, whisper, tone):
    request = {"inputs": "hello", "parameters": GREEDY}
    answer = accept(bloom, request, "text/plain")
    assert (answer.status, answer.content_type) == (200, "text/plain; charset=utf-8")
    assert answer.body.decode() == bloom.ask(request).json[0]["generated_text"]
    heard = accept(whisper, tone(), "text/plain", "audio/wav")
    assert heard.body.decode() == whisper.ask(tone(), "audio/wav").json["text"]


def test_several_texts_are_no_plain_text(bloom):
    answer = accept(bloom, {"inputs": ["one", "two"], "parameters": GREEDY}, "text/plain")
    assert answer.error[:2] == (406, "not-acceptable")
    assert answer.content_type == "application/json"


def test_a_classifier_reads_and_writes_csv(bert):
    answer = accept(bert, b"inputs\nfine\nawful\n", "text/csv", "text/csv")
    assert (answer.status, answer.content_type) == (200, "text/csv; charset=utf-8")
    rows = list(csv.DictReader(io.StringIO(answer.body.decode())))
    wanted = bert.ask({"inputs": ["fine", "awful"]}).json
    assert [(row["label"], float(row["score"])) for row in rows] == [(row["label"], row["score"]) for row in wanted]
    all_labels = accept(bert, {"inputs": ["fine", "awful"], "parameters": {"top_k": 2}}, "text/csv")
    rows = list(csv.DictReader(io.StringIO(all_labels.body.decode())))
    assert [row["input"] for row in rows] == ["0", "0", "1", "1"]


def test_a_form_of_answer_that_the_task_lacks_is_406(bert, whisper, tone):
    assert accept(bert, {"inputs": "fine"}, "text/plain").error[:2] == (406, "not-acceptable")
    status, _, message = accept(whisper, tone(), "text/csv", "audio/wav").error
    assert status == 406
    assert "application/json, text/plain" in message
