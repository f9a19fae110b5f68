"""Parameters that do not travel in the body: the custom attributes."""

from __future__ import annotations

import json

import pytest

pytest.importorskip("numpy", reason="pip install -r tests/runtime/requirements.txt")

from extended_dlc_server import errors
from extended_dlc_server.reading import attributes

CUSTOM = "X-Amzn-SageMaker-Custom-Attributes"


def ask(server, body, content_type, attributes):
    headers = {"Content-Type": content_type, CUSTOM: attributes}
    return server.request("POST", "/invocations", body, headers)


@pytest.mark.parametrize(
    ("value", "parameters"),
    [
        ("", {}),
        ("c000b4f9-df62-4c85-a0bf-7c525f9104a4", {}),
        (
            '{"language": "de", "generate_kwargs": {"num_beams": 2}}',
            {"language": "de", "generate_kwargs": {"num_beams": 2}},
        ),
        ("language=de", {"language": "de"}),
        (" language = de ; top_k=3;", {"language": "de", "top_k": 3}),
        (
            'flag=true;labels=["a","b"];half=0.5;nothing=null',
            {"flag": True, "labels": ["a", "b"], "half": 0.5, "nothing": None},
        ),
        ("hypothesis_template=a = b", {"hypothesis_template": "a = b"}),
        ("empty=", {"empty": ""}),
    ],
)
def test_custom_attributes_are_an_object_or_pairs(value, parameters):
    assert attributes.parse_attributes(value, parameters) == parameters


@pytest.mark.parametrize(
    "value",
    [
        "accept_eula=true;top_k=3",
        "accept_eula=true;c000b4f9-df62-4c85-a0bf-7c525f9104a4;top_k=3",
        "trace_id=1; trace_id=2; top_k = 3; a=b=c;=;;",
        '{"top_k": 3, "accept_eula": true, "session": {"id": 5}}',
    ],
)
def test_what_is_no_parameter_is_the_callers_own(value):
    assert attributes.parse_attributes(value, {"top_k"}) == {"top_k": 3}


@pytest.mark.parametrize("value", ["{", '{"a": 1} x', "a=1;a=2", "{" * 900])
def test_malformed_attributes_are_400_and_told_the_syntax(value):
    with pytest.raises(errors.RequestError, match="send a JSON object") as raised:
        attributes.parse_attributes(value, {"a"})
    assert (raised.value.status, raised.value.code) == (400, "malformed-attributes")


def test_attributes_reach_the_model_beside_plain_text(bloom):
    many = "max_new_tokens=9;min_new_tokens=9;do_sample=false"
    few = json.dumps({"max_new_tokens": 2, "do_sample": False})
    long = ask(bloom, b"hello", "text/plain", many).json[0]["generated_text"]
    short = ask(bloom, b"hello", "text/plain", few).json[0]["generated_text"]
    assert long.startswith(short)
    assert len(long) > len(short)


def test_attributes_reach_whisper_beside_raw_audio(whisper, tone):
    answer = ask(whisper, tone(), "audio/wav", "return_timestamps=true;language=de")
    assert answer.status == 200, answer.body
    assert "chunks" in answer.json
    status, _, message = ask(whisper, tone(), "audio/wav", "language=klingon").error
    assert status == 400
    assert "klingon" in message


def test_attributes_are_checked_as_other_parameters_are(bloom):
    assert ask(bloom, b"hello", "text/plain", "max_new_tokens=-2").error[:2] == (400, "bad-parameters")
    assert ask(bloom, b"hello", "text/plain", "max_new_tokens=2;max_new_tokens=3").error[1] == "malformed-attributes"


@pytest.mark.parametrize("value", ["accept_eula=true", "trace_id=abc;accept_eula=true;4f9-df62", "custom_generate=a/b"])
def test_who_adds_words_of_his_own_is_answered(bloom, value):
    asked = f"{value};max_new_tokens=2;do_sample=false"
    answer = ask(bloom, b"hello", "text/plain", asked)
    assert answer.json == ask(bloom, b"hello", "text/plain", "max_new_tokens=2;do_sample=false").json
    assert (
        ask(bloom, b'{"inputs": "hello", "parameters": {"max_new_tokens": 2}}', "application/json", value).status == 200
    )


def test_a_parameter_with_two_values_is_refused(bloom):
    body = b'{"inputs": "hello", "parameters": {"max_new_tokens": 2}}'
    status, code, message = ask(bloom, body, "application/json", "max_new_tokens=3").error
    assert (status, code) == (400, "bad-parameters")
    assert "'max_new_tokens' is given twice" in message
    assert ask(bloom, body, "application/json", "max_new_tokens=2;do_sample=false").status == 200


def test_a_tracking_id_is_no_parameter(bloom):
    body = b'{"inputs": "hello", "parameters": {"max_new_tokens": 2}}'
    assert ask(bloom, body, "application/json", "c000b4f9-df62-4c85-a0bf-7c525f9104a4").status == 200
