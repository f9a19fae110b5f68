"""What `extended-dlc ask` sends, reads and says, without an endpoint."""

from __future__ import annotations

import json
import os
import struct
import threading
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from botocore.exceptions import ClientError
from click.testing import CliRunner
from urllib3.exceptions import ProtocolError

from extended_dlc.asking import content
from extended_dlc.asking.errors import AskError, ModelRefused, explained
from extended_dlc.asking.reading import Events, shown
from extended_dlc.asking.sending import _unbroken
from extended_dlc.asking.target import LIMITS, Hosting, Target, check_size
from extended_dlc.cli import main
from extended_dlc.cli.ask import _content
from extended_dlc.rehearsal.speech import tone_wav


def png() -> bytes:
    head = b"IHDR" + struct.pack(">IIBBBBB", 1, 1, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + struct.pack(">I", 13) + head + struct.pack(">I", zlib.crc32(head))


@pytest.mark.parametrize(
    ("data", "name", "kind"),
    [
        (tone_wav(seconds=0.01), "standard input", "audio/wav"),
        (tone_wav(seconds=0.01), "wrong.mp3", "audio/wav"),
        (png(), "standard input", "image/png"),
        (b"RIFF\x10\0\0\0WEBPVP8 ", "-", "image/webp"),
        (b"\xff\xd8\xff\xe0\0\x10JFIF", "-", "image/jpeg"),
        (b"ID3\x04\0\0\0\0\0\0", "-", "audio/mpeg"),
        (b"\0\0\0 ftypM4A \0\0\0\0", "-", "audio/mp4"),
        (b"BM\x3a\0\0\0\0\0\0\0\x36", "-", "image/bmp"),
        (b"BMW is a maker of cars", "-", None),
        (b"ID3 trees are learned greedily", "-", None),
        (b"????WAVE", "-", None),
        (b"\0\1\2\3", "speech.AMR", "audio/amr"),
        (b"a,b", "table.csv", "text/csv"),
        (b"plain", "notes.txt", None),
    ],
)
def test_a_file_is_told_by_its_first_bytes_and_then_by_its_name(data: bytes, name: str, kind: str | None) -> None:
    assert content.media_type(data, name) == kind


def test_text_stays_text_and_an_object_of_json_is_the_body_as_it_is() -> None:
    assert content.of_bytes("Grüße\n".encode(), "a.txt", content_type=None).text == "Grüße"
    assert content.of_text('"quoted" words').text == '"quoted" words'
    assert content.of_text("[1]").text == "[1]"
    given = content.of_text('{"inputs": "a"}')
    assert (given.text, given.data, given.content_type) == (None, b'{"inputs": "a"}', "application/json")
    body = content.plain(given, {}, stream=True)
    assert (body.data, body.streams) == (b'{"inputs": "a"}', False)
    assert content.plain(content.of_text('{"inputs": "a", "stream": true}'), {}, stream=True).streams


@pytest.mark.parametrize("kind", [None, "application/json", "application/json; charset=utf-8"])
def test_a_json_file_that_is_none_is_refused_before_it_is_sent(kind: str | None) -> None:
    with pytest.raises(AskError, match=r"'body\.json' is not JSON .*line 1 column"):
        content.of_bytes(b"{oops", "body.json", content_type=kind)


def test_what_nothing_tells_is_refused_with_the_option_that_says_it() -> None:
    with pytest.raises(AskError, match=r"'data\.bin' is neither text .* --content-type audio/wav"):
        content.of_bytes(b"\xfe\xfa\0\1", "data.bin", content_type=None)
    assert content.of_bytes(b"\xfe\xfa", "data.bin", content_type="audio/amr").content_type == "audio/amr"


def test_parameters_are_json_where_they_are_and_texts_otherwise() -> None:
    given = ("a=5", "b=true", "c=de", 'd={"x": [1]}', "e=", "f=a=b", "g.h.i=0.5", "g.j=null", "k=NaN")
    assert content.parameters(given) == {
        "a": 5,
        "b": True,
        "c": "de",
        "d": {"x": [1]},
        "e": "",
        "f": "a=b",
        "g": {"h": {"i": 0.5}, "j": None},
        "k": "NaN",
    }


@pytest.mark.parametrize(
    ("given", "words"),
    [
        (("max_new_tokens",), r"'-p' \('max_new_tokens'\) is no pair: write it as -p NAME=VALUE"),
        (("=5",), "is no pair"),
        (("a..b=5",), "is no pair"),
        (("a=1", "a.b=2"), r"'-p' \('a\.b=2'\) goes below 'a', which has a value"),
        (("a.b=2", "a=1"), r"'-p' \('a=1'\) is given twice"),
    ],
)
def test_a_parameter_that_is_none_is_refused_by_its_text(given: tuple[str, ...], words: str) -> None:
    with pytest.raises(AskError, match=words):
        content.parameters(given)


def test_parameters_go_where_the_kind_of_body_has_them() -> None:
    def sent(body: content.Body) -> Any:
        return json.loads(body.data)

    text, values = content.of_text("Hello"), {"seed": 1}
    assert sent(content.plain(text, values, stream=False)) == {"inputs": "Hello", "parameters": values}
    assert sent(content.plain(text, {}, stream=False)) == {"inputs": "Hello"}
    message = {"role": "user", "content": "Hello"}
    assert sent(content.chat(text, values, stream=True)) == {"messages": [message], "seed": 1, "stream": True}
    assert sent(content.completion(text, values, stream=False)) == {"prompt": "Hello", "seed": 1}
    given = content.of_text('{"inputs": "a", "parameters": {"top_k": 2, "seed": 0}}')
    assert sent(content.plain(given, values, stream=False))["parameters"] == {"top_k": 2, "seed": 1}
    assert sent(content.plain(content.of_text('{"messages": []}'), values, stream=False)) == {"messages": [], **values}
    sound = content.plain(content.of_bytes(png(), "-", content_type=None), {"language": "dé"}, stream=True)
    assert (sound.data, sound.attributes, sound.streams) == (png(), '{"language": "d\\u00e9"}', False)
    with pytest.raises(AskError, match="beside a file SageMaker takes 1024"):
        content.plain(content.Content(data=b"x", content_type="audio/wav"), {"prompt": "x" * 1024}, stream=False)
    with pytest.raises(AskError, match=r"a chat is a text here, and this is image/png: leave --chat out"):
        content.chat(content.Content(data=png(), content_type="image/png"), {}, stream=False)


@pytest.mark.parametrize(
    ("hosting", "said"),
    [
        ("real-time", r"25\.0 MB and a real-time endpoint takes 25\.0 MB: .* Async"),
        ("serverless", r"4\.0 MB and a serverless endpoint takes 4\.0 MB: .* RealTime"),
        ("async", r"1,024\.0 MB and an asynchronous endpoint takes 1,024\.0 MB"),
    ],
)
def test_a_request_over_its_hostings_limit_is_refused_and_one_at_it_is_not(hosting: Hosting, said: str) -> None:
    target = Target(endpoint="e", region="us-east-1", hosting=hosting)
    check_size(target, LIMITS[hosting])
    with pytest.raises(AskError, match=said + ".*nothing was sent"):
        check_size(target, LIMITS[hosting] + 1)


def refusal(code: str, message: str, **more: Any) -> AskError:
    error = ClientError({"Error": {"Code": code, "Message": message}, **more}, "InvokeEndpoint")
    return explained(error, endpoint="e", region="eu-west-1")


def test_an_error_is_what_was_said_and_what_to_do() -> None:
    original = json.dumps({"error": {"code": "bad-parameters", "message": "'max_tokns' is no parameter"}})
    refused = refusal("ModelError", "Received …", OriginalStatusCode=400, OriginalMessage=original)
    assert str(refused) == "the model's server refuses the request (400): 'max_tokns' is no parameter"
    group = "arn:aws:logs:eu-west-1:1:log-group:/aws/sagemaker/Endpoints/e"
    failed = refusal("ModelError", "…", OriginalStatusCode=500, OriginalMessage="[not json", LogStreamArn=group)
    assert str(failed) == (
        "the model's server has failed (500): [not json: aws logs tail /aws/sagemaker/Endpoints/e --since 10m "
        "--region eu-west-1 shows its log"
    )
    late = refusal("ModelError", "…", OriginalStatusCode=0, OriginalMessage="Your invocation timed out while waiting.")
    assert "host it as Async" in str(late)
    arn = "arn:aws:sagemaker:eu-west-1:1:endpoint/e"
    words = f"User: arn:aws:iam::1:user/u is not authorized to perform: sagemaker:InvokeEndpoint on resource: {arn} b"
    assert str(refusal("AccessDeniedException", words)).startswith(
        f"the credentials lack the permission sagemaker:InvokeEndpoint on {arn}: add it to their policy"
    )
    assert "log in again" in str(refusal("ExpiredTokenException", "The security token has expired"))
    assert "(ValidationError): odd" in str(refusal("ValidationError", "odd"))


def test_the_texts_of_a_stream_are_found_in_pieces_of_any_size() -> None:
    tokens = [
        {"index": 1, "token": {"id": 1, "text": " héllo", "special": False}, "generated_text": None},
        {"index": 2, "token": {"id": 2, "text": "</s>", "special": True}, "generated_text": " héllo"},
    ]
    chat = [{"choices": [{"delta": each}]} for each in ({"role": "assistant"}, {"content": "Hi"}, {"content": " you"})]
    for events, expected in (
        (tokens, " héllo"),
        ([*chat, {"choices": [], "usage": {}}], "Hi you"),
        ([{"choices": [{"text": "a"}]}, {"choices": [{"text": "b"}]}], "ab"),
    ):
        body = b"".join(b"data: " + json.dumps(each, ensure_ascii=False).encode() + b"\n\n" for each in events)
        body += b"data: [DONE]\n\n"
        for size in (1, 7, len(body)):
            pieces = [body[start : start + size] for start in range(0, len(body), size)]
            assert "".join(Events().texts(pieces)) == expected


@pytest.mark.parametrize(
    "event", [b'event: error\ndata: {"error": {"message": "out of luck"}}\n\n', b'data: {"error": "out of luck"}']
)
def test_an_error_in_a_stream_is_no_text(event: bytes) -> None:
    with pytest.raises(ModelRefused, match="ended the answer: out of luck"):
        list(Events().texts([b'data: {"token": {"text": "a"}}\n\n', event]))


@pytest.mark.parametrize(
    ("answer", "seen"),
    [
        ('[{"generated_text": "Hi"}]', "Hi"),
        ('{"text": " words"}', " words"),
        ('{"choices": [{"message": {"content": "Hi"}}], "usage": {}}', "Hi"),
        ('{"choices": [{"text": "Hi"}]}', "Hi"),
        ('{"text": "a", "chunks": []}', '{"text": "a", "chunks": []}'),
        ('[{"label": "a", "score": 1.0}]', '[{"label": "a", "score": 1.0}]'),
        ('[{"generated_text": "a"}, {"generated_text": "b"}]', '[{"generated_text": "a"}, {"generated_text": "b"}]'),
        ('{"choices": [{"message": {"content": "", "tool_calls": [{}]}}]}',) * 2,
    ],
)
def test_the_one_text_of_an_answer_is_shown_and_everything_else_as_it_came(answer: str, seen: str) -> None:
    assert shown(answer.encode(), "application/json") == seen


def test_a_picture_is_not_shown() -> None:
    assert shown(png(), "image/png") is None


@pytest.mark.parametrize(
    ("arguments", "status", "words"),
    [
        (["e"], 2, "give one of TEXT, FILE, - and --sample"),
        (["e", "a", "--sample"], 2, "give one of TEXT, FILE, - and --sample"),
        (["-p", "x", "e", "a"], 1, "'-p' ('x') is no pair"),
        (["e", "absent.wav"], 1, "there is no file 'absent.wav'"),
        (["a b", "Hello"], 1, "NAME ('a b')"),
        (["e", "Hello", "--component", "a/b"], 1, "--component ('a/b')"),
    ],
)
def test_a_call_that_cannot_be_is_refused_before_aws_is_asked(arguments: list[str], status: int, words: str) -> None:
    done = CliRunner().invoke(main, ["ask", *arguments])
    assert done.exit_code == status
    assert words in done.stderr
    assert "Traceback" not in done.output


def test_a_folder_is_no_file(tmp_path: Path) -> None:
    done = CliRunner().invoke(main, ["ask", "e", str(tmp_path)])
    assert (done.exit_code, done.stderr) == (1, f"Error: '{tmp_path}' is a folder: name a file in it\n")


@pytest.mark.parametrize(
    ("name", "data", "words"),
    [
        ("empty.txt", b"", "'empty.txt' is empty"),
        ("lines.txt", b"\n\n", "'lines.txt' is empty"),
        ("nan.json", b'{"a": NaN}', "is not JSON (JSON has no NaN)"),
        ("deep.json", b"[" * 100_000, "is not JSON (it is nested too deeply)"),
        ("utf16.txt", "\ufeffhi".encode("utf-16-le"), "is text in UTF-16: save it in UTF-8"),
    ],
)
def test_a_file_that_no_model_can_answer_is_refused_before_aws_is_asked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, data: bytes, words: str
) -> None:
    (tmp_path / name).write_bytes(data)
    monkeypatch.chdir(tmp_path)
    done = CliRunner().invoke(main, ["ask", "e", name])
    assert done.exit_code == 1
    assert words in done.stderr
    by_input = CliRunner().invoke(main, ["ask", "e", "-"], input=b"")
    assert "'standard input' is empty" in by_input.stderr


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ([""], "the text is empty"),
        (["absent.txt"], "there is no file 'absent.txt'"),
        (["./absent"], "there is no file './absent'"),
        (["folder.txt"], "'folder.txt' is a folder"),
        (["Hello", "--output", "nowhere/answer"], "'--output' (nowhere/answer) is in a folder that does not exist"),
        (["Hello", "--content-type", "sound"], "'--content-type' ('sound') is no media type"),
        (["Hello", "--content-type", "audio/wav\r\nX: y"], "is no media type"),
        (["Hello", "--region", "mars"], "Unknown region: 'mars'. No partition found for provided region_name: aws"),
    ],
)
def test_a_slip_of_the_user_is_said_before_aws_is_asked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, arguments: list[str], words: str
) -> None:
    (tmp_path / "folder.txt").mkdir()
    monkeypatch.chdir(tmp_path)
    done = CliRunner().invoke(main, ["ask", "e", *arguments])
    assert done.exit_code == 1
    assert words in done.stderr


def test_a_pipe_is_read_as_a_file_is(tmp_path: Path) -> None:
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    writer = threading.Thread(target=pipe.write_bytes, args=(png(),))
    writer.start()
    assert _content(str(pipe), None).content_type == "image/png"
    writer.join()


def test_values_that_json_cannot_hold_stay_texts() -> None:
    deep = "[" * 100_000
    found = content.parameters(["a=1e999", "b=NaN", "c=[1, true, null]", 'd={"e": {"f": 1.5}}', "g=True", f"h={deep}"])
    assert found == {"a": "1e999", "b": "NaN", "c": [1, True, None], "d": {"e": {"f": 1.5}}, "g": "True", "h": deep}


@pytest.mark.parametrize(
    ("events", "ended"),
    [
        (b'data: {"token": {"text": "a"}, "generated_text": null}\n\n', False),
        (b'data: {"token": {"text": "a"}, "generated_text": "a"}\n\n', True),
        (b'data: {"choices": [{"delta": {"content": "a"}, "finish_reason": null}]}\n\n', False),
        (b'data: {"choices": [{"delta": {}, "finish_reason": "length"}]}\n\n', True),
        (b'data: {"choices": [{"text": "a"}]}\n\ndata: [DONE]\n\n', True),
        (b"data: words of another server\n\n", True),
    ],
)
def test_a_stream_that_is_cut_off_is_no_whole_answer(events: bytes, ended: bool) -> None:
    parsed = Events()
    list(parsed.texts([events]))
    assert parsed.ended is ended


def test_a_connection_that_breaks_in_a_stream_is_no_traceback() -> None:
    def broken() -> Iterator[Any]:
        yield {"PayloadPart": {"Bytes": b"a"}}
        raise ProtocolError("Connection broken: IncompleteRead(5 bytes read)")

    with pytest.raises(ModelRefused, match=r"the stream ended early: the connection broke .* ask again"):
        list(_unbroken(broken()))


@pytest.mark.parametrize(
    ("code", "message", "words"),
    [
        ("InvalidSignatureException", "Signature expired: 20261129T000000Z is now earlier than", "clock is wrong"),
        ("SignatureDoesNotMatch", "Signature not yet current: 2026", "clock is wrong"),
        ("RequestTimeTooSkewed", "The difference between the request time", "clock is wrong"),
        ("InvalidClientTokenId", "The security token included in the request is invalid", "log in again"),
        ("ThrottledException", "Rate exceeded", "is busy"),
        ("InternalFailure", "", "is busy"),
    ],
)
def test_what_passes_and_what_is_wrong_here_are_told_apart(code: str, message: str, words: str) -> None:
    error = ClientError({"Error": {"Code": code, "Message": message}}, "InvokeEndpoint")
    assert words in str(explained(error, endpoint="e", region="us-east-1"))
