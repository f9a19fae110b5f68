"""Bounds on the time and the memory that reading a request and sending its answer may take."""

from __future__ import annotations

import asyncio
import contextlib
import http.client
import io
import json
import socket
import struct
import tempfile
import time
import tracemalloc
import zlib

import pytest
from extended_dlc_server.errors import RequestError
from extended_dlc_server.http import exchange
from extended_dlc_server.machine import children, ending, memory
from extended_dlc_server.reading import attributes, audio, forms, images, inputs, negotiation
from extended_dlc_server.reading.parameter_types import JsonObject
from extended_dlc_server.reading.tasks import Kind
from extended_dlc_server.writing import choosing, tool_calls
from extended_dlc_server.writing.detokenizing import Detokenizer
from extended_dlc_server.writing.streaming import Outbox, Unread

LONG = 60_000
"""Characters of a header, nearly as many as a head may have."""


@pytest.mark.parametrize(
    "read",
    [
        lambda: forms.parse_form(b"", 'multipart/form-data; boundary=x; y="' + ";" * LONG),
        lambda: forms.parse_form(b"", "multipart/form-data" + "; x=1" * (LONG // 5)),
        lambda: forms.parse_form(b"", 'multipart/form-data; y="' + "\\" * LONG),
        lambda: forms.parse_form(b"", "multipart/form-data;" + " " * LONG + "=x"),
        lambda: negotiation.choose_form("application/json;" * (LONG // 17), "zero-shot-classification"),
        lambda: negotiation.choose_form("application/json;" + "; " * (LONG // 2), "zero-shot-classification"),
        lambda: attributes.refuse_long_texts(b'{"inputs":"' + b"a" * 3_000_000 + b'\\"' * 20_000, b'"', 524_288),
    ],
)
def test_what_is_read_takes_time_in_proportion_to_its_length(read):
    began = time.process_time()
    with contextlib.suppress(RequestError):
        read()
    assert time.process_time() - began < 0.5


def test_a_form_of_many_semicolons_in_the_heads_of_its_parts_is_read_at_once():
    head = b'Content-Disposition: form-data; name="' + b";" * 8000 + b'"'
    body = b"".join(b"--x\r\n" + head + b"\r\n\r\na\r\n" for _ in range(60)) + b"--x--"
    began = time.process_time()
    assert len(forms.parse_form(body, "multipart/form-data; boundary=x")) == 60
    assert time.process_time() - began < 0.5


@pytest.mark.parametrize(
    ("head", "name", "is_file"),
    [
        (b'form-data; name="a; filename=b"', "a; filename=b", False),
        (b'Form-Data; NAME="a\\"b\\\\"', 'a"b\\', False),
        (b"form-data;name=a;filename*=UTF-8''x.wav", "a", True),
        (b'form-data; name="a";\r\n filename="x.wav"', "a", True),
        ('form-data; name="größe"; filename=""'.encode(), "größe", True),
        (b'form-data; name="a"; name="b"', "a", False),
    ],
)
def test_the_head_of_a_part_is_read_as_the_standard_has_it(head, name, is_file):
    body = b"--x\r\nContent-Type: audio/wav\r\nContent-Disposition: " + head + b"\r\n\r\ndata\r\n--x--\r\n"
    (part,) = forms.parse_form(body, 'multipart/form-data; charset=utf-8; Boundary="x"')
    assert (part.name, part.is_file, part.content_type, part.data) == (name, is_file, "audio/wav", b"data")


@pytest.mark.parametrize("head", [b"form-data", b"attachment; name=a", b'form-data; filename="a"', b"name=a"])
def test_a_part_that_is_no_field_is_refused(head):
    with pytest.raises(RequestError, match="Content-Disposition"):
        forms.parse_form(b"--x\r\nContent-Disposition: " + head + b"\r\n\r\n\r\n--x--", "form; boundary=x")


@pytest.mark.parametrize(
    ("accept", "form"),
    [
        ("application/json;profile=hub", negotiation.Form.HUB),
        ('text/csv;q=0.1, Application/JSON; q=1; Profile="HUB"', negotiation.Form.HUB),
        ("application/json;profile=github", negotiation.Form.JSON),
        ("application/json, text/plain;profile=hub", negotiation.Form.JSON),
    ],
)
def test_the_profile_of_the_hub_is_a_parameter_of_json(accept, form):
    assert negotiation.choose_form(accept, "zero-shot-classification") is form


def test_the_names_of_a_decisions_images_are_counted_in_its_texts_within_bounds():
    expected = inputs.Expected(task="decision", kind=Kind.IMAGE_AND_TEXT)
    names = {f"n{number}": "" for number in range(3000)}
    asked = {"state": ["text"] * 30_000, "questions": {"q": {"type": "noul"}}, "assets": names}
    began = time.process_time()
    with pytest.raises(RequestError, match="3000 images") as raised:
        inputs.read_inputs(asked, expected)
    assert raised.value.status == 400
    assert time.process_time() - began < 1


def test_events_that_nobody_reads_take_room_until_their_stream_ends():
    room = memory.Room(200_000, "answers")
    one, other = Unread(room), Unread(room)
    assert all(one.add(1000) for _ in range(60))
    assert room.left == room.size  # what a connection's buffers hold anyway does not count
    assert all(one.add(1000) for _ in range(100))
    assert room.left == 200_000 - 160_000 + 65_536
    assert other.add(60_000)
    assert not other.add(150_000)
    one.remove(100_000)
    assert room.left == room.size
    assert other.add(150_000)
    other.end()
    one.end()
    assert room.left == room.size
    assert one.add(10**9)  # the rest of a stream whose client has gone
    assert room.left == room.size


def test_a_stream_that_nobody_reads_is_ended_and_its_connection_is_closed():
    closed = []

    async def main():
        queue, loop = asyncio.Queue(), asyncio.get_running_loop()
        emit = Outbox().to(queue, loop, Unread(memory.Room(100_000, "answers")), lambda: closed.append(True))
        for _ in range(16):
            emit(b"x" * 10_000)
        with pytest.raises(RequestError) as raised:
            emit(b"x" * 10_000)
        assert raised.value.code == "client-gone"
        await asyncio.sleep(0.01)
        return queue.qsize()

    assert asyncio.run(main()) == 16
    assert closed == [True]


def test_what_one_request_has_made_does_not_count_for_what_comes_after_it():
    with ending.running(lambda: False):
        assert ending.made_so_far(10) == 10
    assert ending.made_so_far(0) == 0  # a health check runs after the request that was its reason


def test_plans_of_long_arguments_are_not_kept():
    plans = choosing.Plans(lambda arguments: None)
    for seed in range(20):
        assert plans.of({"sequence_bias": [[[seed], 1.0]] * 1000}) is None
    assert plans.of({"top_k": 3}) is None
    assert len(plans._made) == 1


class Bytes:
    """A tokenizer of bytes that notes how many tokens it decodes."""

    all_special_ids = ()

    def __init__(self):
        self.most = 0

    def decode(self, tokens, **_):
        self.most = max(self.most, len(tokens))
        return bytes(tokens).decode("utf-8", "replace")


def test_halves_of_characters_do_not_make_each_step_longer_than_the_one_before():
    tokenizer = Bytes()
    text = Detokenizer(tokenizer)
    for _ in range(500):
        text.add(0xE2)
    for token in "ok €".encode():
        text.add(token)
    text.rest()
    assert tokenizer.most < 50
    assert text.whole == "\ufffd" * 500 + "ok €"


@pytest.mark.parametrize("value", [[1], "a", 5, True])
def test_the_parameters_of_a_tool_are_an_object(value):
    with pytest.raises(ValueError, match="must be an object"):
        JsonObject().check(value)


@pytest.mark.parametrize(
    "schema",
    [{"properties": [1]}, {"properties": {"a": {"type": [{}]}}}, {"properties": {"a": {"anyOf": 5}}}, [], None],
)
def test_a_call_is_read_whatever_the_schema_of_its_tool(schema):
    body = "<function=f><parameter=a>1</parameter></function>"
    (call,) = tool_calls._qwen_function(body, {"f": schema})
    assert json.loads(call.arguments) == {"a": 1}
    (call,) = tool_calls._glm("f<arg_key>a</arg_key><arg_value>1</arg_value>", {"f": schema})
    assert json.loads(call.arguments) == {"a": 1}


def test_a_child_ends_once_nobody_waits_for_it():
    began = time.monotonic()
    with pytest.raises(ending.EndedError), ending.running(lambda: time.monotonic() > began + 0.2):
        children.run(["/bin/sleep", "30"], seconds=30, output=lambda _: None)
    assert time.monotonic() - began < 10


def test_a_child_reads_its_input_where_nothing_can_be_written(monkeypatch):
    def full(*_, **__):
        raise OSError(28, "No space left on device")

    for temporary in (tempfile.TemporaryFile, full):
        monkeypatch.setattr(tempfile, "TemporaryFile", temporary)
        said = bytearray()
        with children.input_of(b"data") as source:
            code, _ = children.run(["/bin/cat", "/dev/stdin"], seconds=10, stdin=source, output=said.extend)
        assert (code, said) == (0, b"data")


def tiff_of_tags(count, size):
    """A TIFF file of 8 x 8 pixels whose many tags are all the same `size` bytes."""
    tags = [(256, 3, 1, 8), (257, 3, 1, 8), (258, 3, 1, 8), (259, 3, 1, 1), (262, 3, 1, 1), (273, 4, 1, 8)]
    tags += [(277, 3, 1, 1), (278, 3, 1, 8), (279, 4, 1, 64)]
    tags += [(number, 1, size, 8) for number in range(40_000, 40_000 + count)]
    directory = struct.pack("<H", len(tags)) + b"".join(struct.pack("<HHII", *tag) for tag in tags) + bytes(4)
    return b"II*\0" + struct.pack("<I", 8 + size) + bytes(size) + directory


def png_of_tags(count, size):
    """A PNG file whose EXIF data has many tags."""
    image = pytest.importorskip("PIL.Image")
    file, exif = io.BytesIO(), tiff_of_tags(count, size)
    image.new("RGB", (8, 8)).save(file, "PNG")
    data, chunk = file.getvalue(), b"eXIf" + exif
    return data[:33] + struct.pack(">I", len(exif)) + chunk + struct.pack(">I", zlib.crc32(chunk)) + data[33:]


@pytest.mark.filterwarnings("ignore:Tag data larger")
@pytest.mark.parametrize("make", [tiff_of_tags, png_of_tags])
def test_tags_of_an_image_that_are_all_the_same_bytes_take_no_memory(make):
    """Releases of Pillow before 12.3 read each of them, 500 MB of a file of 160 KB; newer ones pass over them."""
    pytest.importorskip("PIL")
    from extended_dlc_server.reading.images import ImageDecoder

    data = make(5000, 100_000)
    assert ImageDecoder().decode(make(3, 100)).size == (8, 8)
    tracemalloc.start()
    with contextlib.suppress(RequestError):
        ImageDecoder().decode(data)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 20_000_000


@pytest.mark.parametrize("sample", [float("nan"), float("inf"), 3e38, -1e20])
def test_samples_that_are_no_numbers_are_refused(sample, ffmpeg_folder, monkeypatch):
    """A model answers them with scores that are no numbers."""
    monkeypatch.setenv("PATH", str(ffmpeg_folder), prepend=":")
    with pytest.raises(RequestError, match="no numbers") as raised:
        audio.decode_audio(float_wav([0.5, sample] * 100), rate=16_000, max_seconds=60)
    assert raised.value.status == 400
    assert audio.decode_audio(float_wav([0.5, 2.0] * 100), rate=16_000, max_seconds=60).tolist() == [0.5, 2.0] * 100


def float_wav(samples):
    """A WAV file of 32-bit floats."""
    data = struct.pack(f"<{len(samples)}f", *samples)
    head = struct.pack("<4sIHHIIHH", b"fmt ", 16, 3, 1, 16_000, 64_000, 4, 32) + struct.pack("<4sI", b"data", len(data))
    return struct.pack("<4sI4s", b"RIFF", 4 + len(head) + len(data), b"WAVE") + head + data


def jpeg_of_scans(more):
    """A progressive JPEG whose last scan is repeated: each takes 14 bytes, and the time for all pixels once more."""
    from PIL import Image

    file = io.BytesIO()
    Image.new("L", (2000, 2000), 128).save(file, "JPEG", progressive=True)
    end = file.getvalue()[:-2]
    return end + end[end.rindex(b"\xff\xda") :] * more + b"\xff\xd9"


def test_a_jpeg_of_many_scans_is_refused_before_they_are_decoded():
    began = time.process_time()
    with pytest.raises(RequestError, match="more than 100 scans"):
        images.ImageDecoder().decode(jpeg_of_scans(5000))
    assert time.process_time() - began < 1
    film = b"\0\0\0\x18ftypmp42" + b"\xff\xda" * 200
    assert images.ImageDecoder().decode(jpeg_of_scans(20) + film).size == (2000, 2000)


def small_image(format):
    from PIL import Image

    file = io.BytesIO()
    Image.new("RGB", (8, 8)).save(file, format)
    return file.getvalue()


def profiles():
    data = b"iCCPa\0\0" + zlib.compress(bytes(1_000_000), 9)
    chunk = struct.pack(">I", len(data) - 4) + data + struct.pack(">I", zlib.crc32(data))
    png = small_image("PNG")
    return png[:33] + chunk * 2000 + png[33:]


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (profiles, "more than 10 color profiles"),
        (lambda: b"\xff\xd8" + b"\xff" * 20_000_000 + small_image("JPEG")[2:], "too many parts"),
        (lambda: b"\xff\xd8" + b"\xff\xfe\0\2" * 3_000_000 + small_image("JPEG")[2:], "too many parts"),
    ],
)
def test_the_parts_of_an_image_are_limited(make, words):
    data = make()
    began = time.process_time()
    with pytest.raises(RequestError, match=words):
        images.ImageDecoder().decode(data)
    assert time.process_time() - began < 2


def test_a_list_of_images_is_refused_before_all_of_them_are_opened():
    image = pytest.importorskip("PIL.Image")
    from extended_dlc_server.reading.images import ImageDecoder

    file = io.BytesIO()
    image.new("L", (1, 1)).save(file, "PNG")
    with memory.Share(memory.Room(1_000_000, "images and sounds")) as share:
        decoder = ImageDecoder(share)
        for _ in range(61):
            decoder.open(file.getvalue())
        with pytest.raises(RequestError) as raised:
            decoder.open(file.getvalue())
    assert (raised.value.status, raised.value.code) == (413, "image-too-large")
    with ending.running(lambda: True), pytest.raises(ending.EndedError):
        ImageDecoder().open(file.getvalue())


def test_long_prompts_that_are_streamed_do_not_keep_others_out(bloom):
    streamed = {
        "inputs": "hello " * 900,
        "stream": True,
        "parameters": {"max_new_tokens": 3000, "min_new_tokens": 3000},
    }
    body = json.dumps(streamed).encode()
    head = f"POST /invocations HTTP/1.1\r\nHost: x\r\nContent-Length: {len(body)}\r\n\r\n".encode()
    with contextlib.ExitStack() as stack:
        address = "127.0.0.1", bloom.port
        held = [stack.enter_context(socket.create_connection(address, timeout=20)) for _ in range(20)]
        for connection in held:
            connection.sendall(head + body)
        assert all(connection.recv(12) == b"HTTP/1.1 200" for connection in held)
        asked = {"inputs": "hello " * 900, "parameters": {"max_new_tokens": 1}}
        assert bloom.ask(asked, timeout=20).status == 200
        assert not any(connection.recv(1 << 22).endswith(b"0\r\n\r\n") for connection in held)


@pytest.mark.parametrize(
    ("content_type", "body"),
    [
        ("application/json", b'\xef\xbb\xbf{"inputs": ["hi"], "parameters": {"max_new_tokens": 1}}'),
        ("text/csv", b"\xef\xbb\xbfinputs\r\nhi\r\n"),
        ("text/csv; charset=utf-16", "inputs\nhi\n".encode("utf-16")),
    ],
)
def test_a_body_may_begin_with_the_mark_that_windows_programs_write(bloom, content_type, body):
    headers = {"Content-Type": content_type, "Content-Encoding": "Identity"}
    headers["X-Amzn-SageMaker-Custom-Attributes"] = "" if b"parameters" in body else "max_new_tokens=1"
    ((answer,),) = bloom.request("POST", "/invocations", body, headers).json
    assert answer["generated_text"].startswith("hi")


def test_a_request_to_upgrade_is_answered_as_any_other(bloom):
    """Java's HTTP client asks for HTTP/2 in each of its requests."""
    body = json.dumps({"inputs": "hi", "parameters": {"max_new_tokens": 1}}).encode()
    upgrade = b"Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAEAAEAAAAIAAAABAAMAAABk\r\n"
    head = b"POST /invocations HTTP/1.1\r\nHost: x\r\n%bContent-Length: %d\r\n\r\n" % (upgrade, len(body))
    with socket.create_connection(("127.0.0.1", bloom.port), timeout=20) as connection:
        for _ in range(2):
            connection.sendall(head + body)
            response = http.client.HTTPResponse(connection)
            response.begin()
            assert (response.status, b"generated_text" in response.read()) == (200, True)


def test_a_body_that_stands_still_is_given_up_where_another_wants_its_memory(monkeypatch):
    monkeypatch.setattr(exchange, "STALLED_SECONDS", 0.05)
    room = memory.Room(250_000, "bodies")

    def begin(size, *, more):
        messages, scope = asyncio.Queue(), {"method": "POST", "path": "/", "headers": []}
        messages.put_nowait({"type": "http.request", "body": bytes(size), "more_body": more})
        one = exchange.Exchange({**scope, "extensions": {exchange.GONE: None}}, messages.get, None)
        return asyncio.ensure_future(one.read_body(10**6, 60, room))

    async def main():
        still = begin(200_000, more=True)
        await asyncio.sleep(0.01)
        with pytest.raises(RequestError) as raised:  # the other has not stood still for long
            await begin(100_000, more=False)
        assert raised.value.status == 429
        assert await begin(60_000, more=False)  # small ones need no memory
        await asyncio.sleep(0.1)
        assert len(await begin(100_000, more=False)) == 100_000
        with pytest.raises(RequestError, match="stands still") as raised:
            await still
        assert (raised.value.status, raised.value.code) == (408, "body-too-slow")
        assert room.left == 150_000  # what was read is held until its request is over

    asyncio.run(main())
