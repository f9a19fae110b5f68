"""Requests and responses in the form of Hugging Face's own clients and the SageMaker SDK."""

from __future__ import annotations

import base64
import io
import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("transformers", reason="pip install -r tests/runtime/requirements.txt")

from extended_dlc_server import errors
from extended_dlc_server.answering import encoding
from extended_dlc_server.reading import decoding, negotiation, tasks

CLASSIFY = decoding.Expected(task="zero-shot-classification", kind=tasks.Kind.TEXT)
SOUND = decoding.Expected(task="automatic-speech-recognition", kind=tasks.Kind.AUDIO)
PICTURE = decoding.Expected(task="image-classification", kind=tasks.Kind.IMAGE)
QUESTION = decoding.Expected(task="visual-question-answering", kind=tasks.Kind.IMAGE_AND_TEXT)
DOCUMENT = decoding.Expected(task="document-question-answering", kind=tasks.Kind.IMAGE_AND_TEXT)
UNTYPED = [None, "application/x-www-form-urlencoded", "file-path/raw-bytes", "binary/octet-stream"]


def picture(name="PNG"):
    from PIL import Image

    file = io.BytesIO()
    Image.linear_gradient("L").convert("RGB").resize((32, 24)).save(file, name)
    return file.getvalue()


@pytest.mark.parametrize("content_type", UNTYPED)
@pytest.mark.parametrize("name", ["PNG", "JPEG", "WEBP", "BMP"])
def test_bytes_without_a_content_type_are_a_picture_where_pictures_are_served(content_type, name):
    assert decoding.decode(picture(name), content_type, PICTURE).inputs.size == (32, 24)
    body = json.dumps({"inputs": base64.b64encode(picture(name)).decode()}).encode()
    assert decoding.decode(b"  " + body, content_type, PICTURE).inputs.size == (32, 24)


@pytest.mark.parametrize("content_type", UNTYPED)
def test_bytes_without_a_content_type_are_a_sound_where_sounds_are_served(tone, content_type):
    assert decoding.decode(tone(), content_type, SOUND).inputs["raw"].size == 16_000


def test_text_without_a_content_type_is_json():
    assert decoding.decode(b'{"inputs": "hi"}', "application/x-www-form-urlencoded", CLASSIFY).inputs == "hi"
    with pytest.raises(errors.RequestError, match="not valid JSON"):
        decoding.decode(b"hi", None, CLASSIFY)


def test_bytes_that_are_called_json_are_told_their_own_content_type(tone):
    with pytest.raises(errors.RequestError, match=r"audio/\*") as raised:
        decoding.decode(tone(), "application/json", SOUND)
    assert raised.value.code == "malformed-text"


@pytest.mark.parametrize(
    "encode",
    [
        base64.urlsafe_b64encode,
        lambda data: base64.urlsafe_b64encode(data).rstrip(b"="),
        lambda data: base64.b64encode(data).rstrip(b"="),
        lambda data: b"data:image/png;base64," + base64.b64encode(data),
    ],
)
def test_base64_may_be_that_of_urls(encode):
    data = picture() + bytes(range(250, 256)) * 3  # with both characters in which the two alphabets differ
    body = json.dumps({"inputs": encode(data).decode()}).encode()
    assert decoding.decode(body, "application/json", PICTURE).inputs.size == (32, 24)


@pytest.mark.parametrize("text", ["http://127.0.0.1/x.png", "a", "abcde", "_" * 5, "ab=c", "é"])
def test_what_is_no_base64_is_still_refused(text):
    with pytest.raises(errors.RequestError, match="not fetched"):
        decoding.decode(json.dumps({"inputs": text}).encode(), None, PICTURE)


def test_options_of_the_hubs_own_service_are_passed_over():
    body = {"inputs": "hi", "options": {"use_cache": False, "wait_for_model": True}}
    assert decoding.decode(json.dumps(body).encode(), None, CLASSIFY).inputs == "hi"
    with pytest.raises(errors.RequestError, match="'option'"):
        decoding.decode(b'{"inputs": "hi", "option": {}}', None, CLASSIFY)


def test_a_question_may_stand_beside_its_image():
    image = base64.b64encode(picture()).decode()
    body = {"inputs": image, "parameters": {"top_k": 2}, "question": "what?", "image": image}
    decoded = decoding.decode(json.dumps(body).encode(), None, QUESTION)
    assert (decoded.inputs["question"], decoded.inputs["image"].size) == ("what?", (32, 24))
    assert decoded.parameters == {"top_k": 2}


def test_the_words_of_a_document_may_be_a_parameter():
    words = [["hello", [0, 0, 10, 10]]]
    body = {"inputs": {"image": base64.b64encode(picture()).decode(), "question": "what?"}}
    decoded = decoding.decode(json.dumps({**body, "parameters": {"word_boxes": words}}).encode(), None, DOCUMENT)
    assert decoded.inputs["word_boxes"] == [("hello", [0, 0, 10, 10])]
    assert decoded.parameters == {}


@pytest.mark.parametrize(
    ("accepted", "task", "form"),
    [
        ("image/*", "depth-estimation", "PNG"),
        ("image/png", "image-to-image", "PNG"),
        ("image/png, application/json;q=0.5", "image-to-image", "PNG"),
        ("application/json", "image-to-image", "JSON"),
        ("*/*", "depth-estimation", "JSON"),
        ("application/x-npy", "feature-extraction", "NPY"),
        ("application/json; profile=hub", "zero-shot-classification", "HUB"),
        ('text/csv;q=0.1, application/json;q=1;profile="hub"', "zero-shot-classification", "HUB"),
        ("application/json; profile=hub", "text-classification", "JSON"),
        ("application/json; profile=other", "zero-shot-classification", "JSON"),
    ],
)
def test_answers_come_as_they_are_accepted(accepted, task, form):
    assert negotiation.choose_form(accepted, task).name == form


def test_several_images_are_no_file():
    with pytest.raises(errors.RequestError, match="more than one image"):
        encoding.encode([{"a": 1}, {"b": 2}], negotiation.Form.PNG, "depth-estimation")


def test_zero_shot_in_the_hubs_form_is_a_list_of_labels():
    result = {"sequence": "x", "labels": ["a", "b"], "scores": [0.75, 0.25]}
    labels = [{"label": "a", "score": 0.75}, {"label": "b", "score": 0.25}]
    encode = encoding.encode
    assert json.loads(encode(result, negotiation.Form.HUB, CLASSIFY.task)) == labels
    assert json.loads(encode([result, result], negotiation.Form.HUB, CLASSIFY.task)) == [labels, labels]


def test_features_come_as_an_array_of_numpy():
    rows = [np.arange(6, dtype=np.float32).reshape(1, 2, 3)]
    made = np.load(io.BytesIO(encoding.encode(rows, negotiation.Form.NPY, "feature-extraction")), allow_pickle=False)
    assert (made.dtype, made.shape) == (np.float32, (1, 1, 2, 3))
    with pytest.raises(errors.RequestError, match="several lengths") as raised:
        encoding.encode([np.ones((1, 2)), np.ones((1, 3))], negotiation.Form.NPY, "feature-extraction")
    assert raised.value.status == 406


def test_a_depth_is_answered_as_an_image(start_server, tmp_path, release, server_path):
    program = f"import sys; sys.path.insert(0, {str(Path(__file__).parent)!r}); import tiny_tasks, pathlib; "
    program += f"tiny_tasks.make('depth-estimation', pathlib.Path({str(tmp_path / 'model')!r}))"
    subprocess.run([sys.executable, "-c", program], check=True, capture_output=True, env={"PYTHONPATH": server_path})
    server = start_server(tmp_path / "model", release, HF_TASK="depth-estimation").wait_until_ready()
    answer = server.request("POST", "/invocations", picture(), {"Accept": "image/*"})
    assert (answer.status, answer.content_type) == (200, "image/png"), answer.body
    assert answer.body.startswith(b"\x89PNG")
    plain = server.request("POST", "/invocations", picture()).json
    assert base64.b64decode(plain["depth"]) == answer.body
