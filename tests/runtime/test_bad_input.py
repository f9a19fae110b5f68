"""Bad requests: the right status, a body that says what to change, and a server that goes on serving."""

from __future__ import annotations

import base64
import socket

import pytest

WELL = {"inputs": "hello", "parameters": {"max_new_tokens": 2}}


@pytest.fixture(autouse=True)
def goes_on_serving(request):
    """After each test, whatever it sent, the next good request is answered."""
    yield
    if "bloom" in request.fixturenames:
        assert request.getfixturevalue("bloom").ask(WELL).status == 200


@pytest.mark.parametrize(
    ("body", "code", "says"),
    [
        (b"{", "malformed-json", "not valid JSON"),
        (b'{"inputs": "a"} x', "malformed-json", "not valid JSON"),
        (b"\xff\xfe", "malformed-text", "UTF-8"),
        (b"[" * 100_000, "malformed-json", ""),
        (b"{" * 10, "malformed-json", "inputs"),
        (b"{}", "missing-inputs", "'inputs'"),
        (b"[]", "missing-inputs", "'inputs'"),
        (b'"text"', "missing-inputs", "'inputs'"),
        (b'{"input": "a"}', "missing-inputs", "'inputs'"),
        (b'{"inputs": null}', "missing-inputs", "'inputs'"),
        (b'{"inputs": []}', "missing-inputs", "'inputs'"),
        (b'{"inputs": 3}', "bad-inputs", "text"),
        (b'{"inputs": ["a", 3]}', "bad-inputs", "text"),
        (b'{"inputs": {"a": "b"}}', "bad-inputs", "text"),
        (b'{"inputs": "a", "max_new_tokens": 3}', "unknown-field", "'max_new_tokens'"),
        (b'{"inputs": "a", "parameters": []}', "bad-parameters", "object"),
        (b"", "empty-body", "empty"),
        (b"  \n", "empty-body", "empty"),
    ],
)
def test_a_body_that_is_no_request_is_400(bloom, body, code, says):
    status, got, message = bloom.ask(body).error
    assert (status, got) == (400, code)
    assert says in message


@pytest.mark.parametrize(
    "content_type",
    ["text/markdown", "image/png", "audio/wav", "application/octet-stream", "nonsense", "application/x-npy"],
)
def test_a_content_type_that_the_task_does_not_take_is_415(bloom, content_type):
    status, code, message = bloom.ask(b"hello", content_type).error
    assert (status, code) == (415, "unsupported-content-type")
    assert content_type in message
    assert "application/json" in message


def test_an_unknown_charset_is_415(bloom):
    assert bloom.ask(b"{}", "application/json; charset=klingon").error[0] == 415


@pytest.mark.parametrize(
    ("parameters", "says"),
    [
        ({"max_new_toks": 3}, "'max_new_toks' is not known to this model; did you mean 'max_new_tokens'?"),
        ({"nonsense": 1}, "'nonsense'"),
        ({"language": "en"}, "'language'"),
        ({"generate_kwargs": {"nonsense": 1}}, "'nonsense'"),
        ({"custom_generate": "someone/code", "trust_remote_code": True}, "'custom_generate' is not taken: "),
        ({"trust_remote_code": True}, "'trust_remote_code' is not taken: "),
        ({"assistant_model": "someone/model"}, "'assistant_model' is not taken: "),
        ({"num_workers": 4}, "'num_workers' is not taken: "),
    ],
)
def test_an_unknown_or_unsafe_parameter_is_named(bloom, parameters, says):
    status, code, message = bloom.ask({"inputs": "a", "parameters": parameters}).error
    assert (status, code) == (400, "unknown-parameter")
    assert says in message


@pytest.mark.parametrize(
    "parameters", [{"max_new_tokens": -1}, {"temperature": "hot", "do_sample": True}, {"max_new_tokens": "many"}]
)
def test_a_value_out_of_its_bounds_is_400(bloom, parameters):
    status, code, message = bloom.ask({"inputs": "a", "parameters": parameters}).error
    assert (status, code) == (400, "bad-parameters"), message


def test_chat_without_a_template_is_400(bloom):
    status, _, message = bloom.ask({"inputs": [{"role": "user", "content": "hi"}]}).error
    assert status == 400
    assert "no chat template" in message


def test_an_unknown_parameter_of_a_classifier_is_named(bert):
    status, _, message = bert.ask({"inputs": "a", "parameters": {"max_new_tokens": 3}}).error
    assert status == 400
    assert "'max_new_tokens'" in message


def test_a_text_beyond_the_models_positions_is_400(bert):
    status, code, message = bert.ask({"inputs": "a " * 100}).error
    assert (status, code) == (400, "inputs-too-long")
    assert "the model takes 62" in message  # 64, of which two are special tokens
    assert bert.ask({"inputs": "a " * 100, "parameters": {"truncation": True, "max_length": 64}}).status == 200
    assert bert.ask({"inputs": "a"}).status == 200


@pytest.mark.parametrize("body", [b"no audio at all", b"RIFF1234WAVEfmt ", b"ID3" + bytes(2000)])
def test_undecodable_audio_is_400(whisper, tone, body):
    status, code, message = whisper.ask(body, "audio/mpeg").error
    assert (status, code) == (400, "undecodable-audio")
    assert "wav, mp3" in message
    assert whisper.ask(tone(), "audio/wav").status == 200


def test_audio_without_samples_is_400(whisper, tone):
    assert whisper.ask(tone(0), "audio/wav").error[:2] == (400, "undecodable-audio")


@pytest.mark.parametrize(
    "inputs",
    ["http://127.0.0.1:1/a.wav", "/etc/hostname", "file:///etc/hostname", "a.wav"],
)
def test_a_string_is_never_fetched_as_audio(whisper, inputs):
    status, code, message = whisper.ask({"inputs": inputs}).error
    assert (status, code) == (400, "bad-inputs")
    assert "URLs and paths are not fetched" in message


def test_a_playlist_cannot_make_ffmpeg_open_something_else(whisper, tone, tmp_path):
    """HLS and concat files name other files, which ffmpeg would read for the sender."""
    secret = tmp_path / "secret.wav"
    secret.write_bytes(tone())
    playlists = [
        f"#EXTM3U\n#EXT-X-TARGETDURATION:1\n#EXTINF:1,\nfile://{secret}\n#EXT-X-ENDLIST\n",
        f"ffconcat version 1.0\nfile '{secret}'\n",
    ]
    for playlist in playlists:
        assert whisper.ask(playlist.encode(), "audio/x-mpegurl").error[:2] == (400, "undecodable-audio")


def test_json_that_is_not_an_object_is_400_for_audio_too(whisper):
    assert whisper.ask(b"[1]").error[:2] == (400, "missing-inputs")
    assert whisper.ask({"inputs": {"raw": [0.1], "sampling_rate": 16000}}).error[:2] == (400, "bad-inputs")
    assert whisper.ask(b"text", "text/plain").error[0] == 415


def test_unknown_parameters_of_whisper_are_named(whisper, tone):
    body = {"inputs": base64.b64encode(tone()).decode(), "parameters": {"langage": "de"}}
    status, _, message = whisper.ask(body).error
    assert status == 400
    assert "did you mean 'language'?" in message


def test_unknown_paths_and_methods_are_told(bloom):
    assert bloom.request("GET", "/").error[:2] == (404, "no-such-path")
    assert bloom.request("GET", "/invocations").error[:2] == (405, "method-not-allowed")
    assert bloom.request("POST", "/ping", b"").error[:2] == (405, "method-not-allowed")


def test_limits_are_settings(start_server, tone):
    server = start_server(
        "whisper", EXTENDED_DLC_MAX_BODY_MB="1", EXTENDED_DLC_MAX_AUDIO_SECONDS="5"
    ).wait_until_ready()
    status, code, message = server.ask(bytes(2_000_000), "audio/wav").error
    assert (status, code) == (413, "body-too-large")
    assert "EXTENDED_DLC_MAX_BODY_MB" in message
    for audio in (tone(6), tone(6, 8_000)):  # the first is decoded by the standard library, the second by ffmpeg
        status, code, message = server.ask(audio, "audio/wav").error
        assert (status, code) == (413, "audio-too-long")
        assert "EXTENDED_DLC_MAX_AUDIO_SECONDS" in message
    assert server.ask(tone(5), "audio/wav").status == 200
    assert server.stop() == 0


def test_a_body_without_a_length_is_limited_too(start_server, bloom):
    with socket.create_connection(("127.0.0.1", bloom.port)) as connection:
        connection.settimeout(20)
        head = "POST /invocations HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n"
        connection.sendall(head.encode())
        megabyte = b"%x\r\n%b\r\n" % (1 << 20, bytes(1 << 20))
        for _ in range(26):
            connection.sendall(megabyte)
        connection.sendall(b"0\r\n\r\n")
        assert b" 413 " in connection.recv(1000).splitlines()[0]


def test_a_client_that_announces_too_much_is_told_before_it_sends(bloom):
    with socket.create_connection(("127.0.0.1", bloom.port)) as connection:
        connection.settimeout(20)
        head = "POST /invocations HTTP/1.1\r\nHost: x\r\nContent-Length: 99999999\r\nExpect: 100-continue\r\n\r\n"
        connection.sendall(head.encode())
        assert b" 413 " in connection.recv(1000).splitlines()[0]
