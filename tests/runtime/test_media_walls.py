"""The defences behind the first check: loaders that open nothing, memory limits for media, and limited children."""

from __future__ import annotations

import base64
import io
import json
import os
import shutil
import struct
import subprocess
import sys
import tempfile
import threading
import time
import types
import zlib
from pathlib import Path

import pytest

pytest.importorskip("numpy", reason="pip install -r tests/runtime/requirements.txt")

import numpy as np
from extended_dlc_server import errors
from extended_dlc_server.machine import children, memory
from extended_dlc_server.reading import audio, images, jpeg_2000, loaders

ROOT = Path(__file__).parents[2]
MEGABYTE = 1024 * 1024


def image_bytes(size=(20, 10), form="PNG", mode="RGB", **options):
    image = pytest.importorskip("PIL.Image", reason="pip install -r tests/runtime/requirements.txt")
    file = io.BytesIO()
    image.new(mode, size).save(file, form, **options)
    return file.getvalue()


def bits(width, height):
    """A PNG with one bit per pixel, all 0."""

    def chunk(name, data):
        return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))

    pixels = zlib.compress(bytes((1 + (width + 7) // 8) * height), 9)
    head = struct.pack(">IIBBBBB", width, height, 1, 0, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", pixels) + chunk(b"IEND", b"")


# memory for what requests decode to


def test_images_of_a_request_take_their_room_at_once_and_keep_what_they_became():
    room = memory.Room(100 * MEGABYTE, "images and sounds")
    with memory.Share(room) as share:
        images.ImageDecoder(share).decode(image_bytes((1000, 1000)))
        assert share.held == 4_000_000
        assert room.left == room.size - 4_000_000
    assert room.left == room.size


def test_a_request_larger_than_all_of_the_room_is_413_and_no_pixel_of_it_is_decoded():
    room = memory.Room(10 * MEGABYTE, "images and sounds")
    with memory.Share(room) as share, pytest.raises(errors.RequestError, match="10 MB") as raised:
        images.ImageDecoder(share).decode(image_bytes((2000, 2000)))
    assert (raised.value.status, raised.value.code) == (413, "image-too-large")
    assert room.left == room.size


def test_a_request_waits_for_the_room_of_others_and_is_429_where_that_takes_too_long(monkeypatch):
    room = memory.Room(10 * MEGABYTE, "images and sounds")
    first = memory.Share(room)
    first.take(9 * MEGABYTE, "image-too-large")
    threading.Timer(0.2, first.keep, [0]).start()
    with memory.Share(room) as second:
        images.ImageDecoder(second).decode(image_bytes((500, 500)))  # after the first share has ended
        monkeypatch.setattr(memory, "PATIENCE", 0.05)
        with memory.Share(room) as third, pytest.raises(errors.RequestError) as raised:
            third.take(10 * MEGABYTE, "image-too-large")
    assert (raised.value.status, raised.value.code) == (429, "queue-full")
    assert room.left == room.size


def test_who_holds_a_part_does_not_wait_for_more():
    room = memory.Room(10 * MEGABYTE, "images and sounds")
    with memory.Share(room) as one, memory.Share(room) as other:
        one.take(4 * MEGABYTE, "audio-too-long")
        other.take(4 * MEGABYTE, "audio-too-long")
        started = time.monotonic()
        with pytest.raises(errors.RequestError, match="fill the 10 MB"):
            one.take(4 * MEGABYTE, "audio-too-long")
        assert time.monotonic() - started < 4
    assert room.left == room.size


def test_room_goes_back_whatever_becomes_of_the_request():
    room = memory.Room(10 * MEGABYTE, "images and sounds")
    broken = image_bytes((500, 500))[:300]
    with memory.Share(room) as share, pytest.raises(errors.RequestError, match="cannot be decoded"):
        images.ImageDecoder(share).decode(broken)
    assert room.left == room.size


def test_the_sound_of_a_request_is_counted_while_ffmpeg_makes_it(ffmpeg_folder, monkeypatch):
    silence = ("-f", "lavfi", "-i", "anullsrc=r=16000:cl=mono", "-t", "600", "-f", "flac", "pipe:1")
    flac = subprocess.run([ffmpeg_folder / "ffmpeg", "-loglevel", "error", *silence], capture_output=True, check=True)
    monkeypatch.setenv("PATH", str(ffmpeg_folder))
    small, large = memory.Room(20 * MEGABYTE, "images and sounds"), memory.Room(60 * MEGABYTE, "images and sounds")
    with memory.Share(small) as share, pytest.raises(errors.RequestError, match="20 MB") as raised:
        audio.decode_audio(flac.stdout, rate=16_000, max_seconds=3600, share=share)
    assert (raised.value.status, raised.value.code) == (413, "audio-too-long")
    with memory.Share(large) as share:
        samples = audio.decode_audio(flac.stdout, rate=16_000, max_seconds=3600, share=share)
        assert share.held == samples.nbytes == 600 * 16_000 * 4
        with memory.Share(large) as other, pytest.raises(errors.RequestError, match="other requests") as raised:
            audio.decode_audio(flac.stdout, rate=16_000, max_seconds=3600, share=other)
    assert raised.value.status == 429
    assert (small.left, large.left) == (small.size, large.size)


def test_a_wav_takes_what_its_head_says(tone):
    room = memory.Room(MEGABYTE, "images and sounds")
    with memory.Share(room) as share:
        samples = audio.decode_audio(tone(2), rate=16_000, max_seconds=10, share=share)
        assert share.held == samples.nbytes == 128_000
        with pytest.raises(errors.RequestError, match="1 MB"):
            audio.decode_audio(tone(9), rate=16_000, max_seconds=10, share=share)


def test_memory_that_runs_out_while_decoding_is_no_fault_of_the_file(monkeypatch):
    image = pytest.importorskip("PIL.Image", reason="pip install -r tests/runtime/requirements.txt")

    def fail(*_):
        raise MemoryError

    monkeypatch.setattr(image.Image, "convert", fail)
    with pytest.raises(MemoryError):
        images.ImageDecoder().decode(image_bytes(mode="L"))


# files with a wrong description of themselves


@pytest.mark.parametrize("rate", [0, 1, 3999, 384_001, 2**32 - 1])
@pytest.mark.parametrize("kind", [1, 3, 0xFFFE])
def test_a_wav_of_a_rate_that_no_sound_has_is_400(rate, kind):
    """The formats are PCM, float and extensible; ffmpeg decodes the last two."""
    head = struct.pack("<4sIHHIIHH", b"fmt ", 16, kind, 1, rate, rate * 4 % 2**32, 4, 32)
    wav = b"RIFF" + struct.pack("<I", 4000) + b"WAVE" + head + b"data" + struct.pack("<I", 4000) + bytes(4000)
    with pytest.raises(errors.RequestError, match="samples a second") as raised:
        audio.decode_audio(wav, rate=16_000, max_seconds=3600)
    assert (raised.value.status, raised.value.code) == (400, "undecodable-audio")


def test_other_containers_have_no_such_rate_either(ffmpeg_folder, monkeypatch):
    monkeypatch.setenv("PATH", str(ffmpeg_folder))
    sun = struct.pack(">4sIIIII", b".snd", 24, 4000, 3, 100, 1) + bytes(4000)
    with pytest.raises(errors.RequestError, match="100 samples a second"):
        audio.decode_audio(sun, rate=16_000, max_seconds=3600)


@pytest.mark.parametrize("size", [(300, 300), (9000, 9000)])
def test_an_icon_is_as_small_as_its_directory_says(size):
    inner = bits(*size)
    icon = b"\0\0\1\0\1\0" + struct.pack("<BBBBHHII", 16, 16, 0, 0, 1, 32, len(inner), 22) + inner
    with pytest.raises(errors.RequestError, match="256 x 256"):
        images.ImageDecoder().decode(icon)
    assert images.ImageDecoder().decode(image_bytes((64, 64), "ICO")).size == (64, 64)


def test_a_tiff_counts_what_its_tiles_decode_to():
    """An image of 16 x 16 in one tile of 30,000 x 30,000, all of which would be decoded."""
    entries = {256: 16, 257: 16, 258: 8, 259: 8, 262: 1, 277: 1, 322: 30_000, 323: 30_000, 324: 200, 325: 40}
    head = b"II*\0" + struct.pack("<IH", 8, len(entries))
    tags = b"".join(struct.pack("<HHII", tag, 4, 1, value) for tag, value in entries.items())
    with pytest.raises(errors.RequestError, match="million pixels") as raised:
        images.ImageDecoder().decode((head + tags + bytes(4)).ljust(200, b"\0") + zlib.compress(bytes(9999)))
    assert (raised.value.status, raised.value.code) == (413, "image-too-large")


def test_text_that_is_compressed_in_an_image_does_not_grow():
    png = bits(8, 8)
    bomb = b"zTXtx\0\0" + zlib.compress(bytes(50 * MEGABYTE), 9)
    chunk = struct.pack(">I", len(bomb) - 4) + bomb + struct.pack(">I", zlib.crc32(bomb))
    with pytest.raises(errors.RequestError) as raised:
        images.ImageDecoder().decode(png[:33] + chunk + png[33:])
    assert raised.value.code == "undecodable-image"


@pytest.mark.parametrize(
    "exif", [b"", b"Exif\0\0", b"Exif\0\0MM\0*\0\0\0\x08\xff\xff", b"Exif\0\0II*\0" + b"\xff" * 60, b"x" * 99]
)
def test_metadata_that_cannot_be_read_says_nothing(exif):
    ops = pytest.importorskip("PIL.ImageOps", reason="pip install -r tests/runtime/requirements.txt")
    read = images.ImageDecoder().decode(image_bytes(form="JPEG", exif=exif))
    assert (read.size, read.info) == ((20, 10), {})
    assert ops.exif_transpose(read).size == (20, 10)  # as transformers' loader does


def test_an_image_stands_upright_as_its_camera_was_held():
    image = pytest.importorskip("PIL.Image", reason="pip install -r tests/runtime/requirements.txt")
    exif = image.Exif()
    exif[0x0112] = 6
    read = images.ImageDecoder().decode(image_bytes(form="JPEG", exif=exif))
    assert read.size == (10, 20)


# child processes


@pytest.fixture
def sh():
    """Runs a script as a child and returns what it prints."""

    def run(script, seconds=5):
        said = bytearray()
        children.run(["/bin/sh", "-c", script], seconds=seconds, output=said.extend)
        return said.decode()

    return run


def test_a_child_has_limits_and_nothing_of_our_environment(sh, monkeypatch):
    monkeypatch.setenv("HF_TOKEN", "hf_secret")
    limits = sh("ulimit -t; ulimit -v; ulimit -n; ulimit -c; cat /proc/self/oom_score_adj; cat /proc/self/environ")
    assert limits.split()[:5] == ["5", str(children.MEMORY_BYTES // 1024), str(children.OPEN_FILES), "0", "1000"]
    assert "hf_secret" not in limits


def test_a_child_of_root_has_no_rights(sh):
    if os.geteuid() != 0 or shutil.which("setpriv") is None:
        pytest.skip("this process is not root, or the system has no setpriv")
    said = sh("id -u; id -G; grep -E 'CapPrm|CapEff|NoNewPrivs' /proc/self/status; cat /etc/shadow 2>&1").split()
    assert said[:2] == ["65534", "65534"]
    assert said[2:8] == ["CapPrm:", "0" * 16, "CapEff:", "0" * 16, "NoNewPrivs:", "1"]
    assert "denied" in said[-1]


def test_a_child_that_takes_too_long_ends_with_all_that_it_started(sh):
    with pytest.raises(TimeoutError):
        sh("sleep 61.7 & sleep 61.7", seconds=1)

    def are_running():
        commands = [path.read_bytes() for path in Path("/proc").glob("[0-9]*/cmdline") if path.exists()]
        return any(b"61.7" in command for command in commands)

    deadline = time.monotonic() + 5  # a process that is killed ends when it is next scheduled
    while are_running() and time.monotonic() < deadline:
        time.sleep(0.01)
    assert not are_running()


def test_a_child_that_takes_too_much_memory_fails_alone(sh):
    program = f"{sys.executable} -c 'bytes(3 << 30); print(1)' 2>/dev/null || echo failed"
    assert sh(program).split() == ["failed"]


def test_a_child_that_complains_for_ever_is_listened_to():
    code, said = children.run(["/bin/sh", "-c", "seq 300000 >&2; exit 3"], seconds=20, output=lambda _: None)
    assert code == 3
    assert said.startswith(b"1\n2\n")
    assert said.endswith(b"300000\n")
    assert len(said) <= 2 * children.MOST_SAID + MEGABYTE


def test_a_child_that_complains_beyond_all_measure_is_ended(sh):
    with pytest.raises(children.NoisyError):
        sh("yes >&2", seconds=60)


def test_a_sound_of_errors_only_is_refused_soon(ffmpeg_folder, monkeypatch):
    """An AMR file may have a frame in each byte, and for each that is none ffmpeg writes two lines."""
    monkeypatch.setenv("PATH", str(ffmpeg_folder))
    monkeypatch.setattr(children, "MOST_ERRORS", 100_000)
    with pytest.raises(errors.RequestError, match="too many errors") as raised:
        audio.decode_audio(b"#!AMR\n" + b"\x7c" * 1_000_000, rate=16_000, max_seconds=3600)
    assert raised.value.status == 400


def test_a_rate_that_no_sound_has_is_refused_before_it_is_resampled(monkeypatch, tmp_path):
    """A child that says what ffmpeg says of its input, and is then busy for longer than this test may take."""
    program = tmp_path / "ffmpeg"
    line = "[info]   Stream #0:0: Audio: pcm_s16be, 1073741824 Hz, mono, s16"
    program.write_text(f"#!/bin/sh\necho '{line}' >&2; exec sleep 60\n")
    program.chmod(0o755)
    for folder in (tmp_path, *tmp_path.parents[:2]):
        folder.chmod(0o755)  # readable for a user without permissions
    monkeypatch.setenv("PATH", f"{tmp_path}{os.pathsep}{os.environ['PATH']}")
    began = time.monotonic()
    with pytest.raises(errors.RequestError, match="1073741824 samples a second"):
        audio.decode_audio(b".snd", rate=16_000, max_seconds=10)
    assert time.monotonic() - began < 30


def test_an_index_at_the_end_of_a_file_is_found(ffmpeg_folder, monkeypatch, tmp_path):
    file = tmp_path / "a.m4a"
    tone = ("-f", "lavfi", "-i", "sine=d=3", "-c:a", "aac")
    subprocess.run([ffmpeg_folder / "ffmpeg", "-loglevel", "error", *tone, file], check=True)
    data = file.read_bytes()
    assert data.find(b"moov") > data.find(b"mdat")
    monkeypatch.setenv("PATH", str(ffmpeg_folder))
    samples = audio.decode_audio(data, rate=16_000, max_seconds=10)
    assert samples.dtype == np.float32
    assert samples.size == pytest.approx(3 * 16_000, abs=1100)


@pytest.mark.parametrize("mode", ["RGB", "L", "RGBA"])
def test_jpeg_2000_is_decoded_in_a_process_of_its_own(mode, monkeypatch):
    """Its decoder lets no other thread run, for seconds."""
    image = pytest.importorskip("PIL.Image", reason="pip install -r tests/runtime/requirements.txt")
    file = io.BytesIO()
    drawn = image.radial_gradient("L").resize((60, 40)).convert(mode)
    turned = drawn.getexif()
    turned[0x0112] = 6
    drawn.save(file, "JPEG2000", exif=turned)
    with image.open(io.BytesIO(file.getvalue())) as alone:
        expected = images._upright(alone.convert("RGB"))
    made = images.ImageDecoder().decode(file.getvalue())
    assert (made.mode, made.size, made.tobytes()) == ("RGB", expected.size, expected.tobytes())
    for broken in (file.getvalue()[:-50], file.getvalue()[:200]):
        with pytest.raises(errors.RequestError, match="cannot be decoded"):
            images.ImageDecoder().decode(broken)
    monkeypatch.setattr(jpeg_2000, "SECONDS", 0)
    with pytest.raises(errors.RequestError, match="takes more than 0 s"):
        images.ImageDecoder().decode(file.getvalue())


def test_a_request_has_a_limited_number_of_images(monkeypatch):
    monkeypatch.setattr(images, "MOST_FILES", 3)
    decoder = images.ImageDecoder()
    for _ in range(3):
        decoder.open(image_bytes())
    with pytest.raises(errors.RequestError, match="at most 3 images") as raised:
        decoder.open(image_bytes())
    assert raised.value.status == 413


@pytest.fixture
def pytesseract(tmp_path, monkeypatch):
    """A stand-in for pytesseract: only the function that runs the program has the real signature and names."""
    module = types.ModuleType("pytesseract.pytesseract")
    module.tesseract_cmd = "tesseract"
    module.TesseractNotFoundError = FileNotFoundError
    module.TesseractError = type("TesseractError", (RuntimeError,), {})
    module.run_tesseract = lambda **_: pytest.fail("without limits")
    monkeypatch.setitem(sys.modules, module.__name__, module)
    program = tmp_path / "tesseract"
    program.write_text('#!/bin/sh\n(ulimit -v; ulimit -t; id -u; echo "$@") >&2; exit 3\n')
    program.chmod(0o755)
    for folder in (tmp_path, *tmp_path.parents[:2]):
        folder.chmod(0o755)  # readable for a user without permissions
    monkeypatch.setenv("PATH", f"{tmp_path}{os.pathsep}{os.environ['PATH']}")
    return module


def test_tesseract_runs_within_the_limits_of_a_child(pytesseract):
    loaders.limit_tesseract()
    with pytest.raises(pytesseract.TesseractError) as raised:
        pytesseract.run_tesseract(
            input_filename="in.png",
            output_filename_base="out",
            extension="tsv",
            lang="eng+deu",
            config="-c tessedit_create_tsv=1 ",
            nice=0,
            timeout=0,
        )
    code, said = raised.value.args
    memory_limit, seconds, user, *arguments = said.split()
    assert (code, int(memory_limit), int(seconds)) == (3, children.MEMORY_BYTES // 1024, loaders.TESSERACT_SECONDS)
    assert user == ("65534" if os.geteuid() == 0 and shutil.which("setpriv") else str(os.geteuid()))
    assert arguments == ["in.png", "out", "-l", "eng+deu", "-c", "tessedit_create_tsv=1"]


def test_a_language_that_tesseract_lacks_is_named(pytesseract, tmp_path):
    (tmp_path / "tesseract").write_text("#!/bin/sh\necho \"Failed loading language '$4'\" >&2; exit 1\n")
    loaders.limit_tesseract()
    with pytest.raises(errors.RequestError, match="none of the languages 'deu' in this image: leave 'lang' out"):
        pytesseract.run_tesseract("in.png", "out", "tsv", lang="deu")
    with pytest.raises(pytesseract.TesseractError):
        pytesseract.run_tesseract("in.png", "out", "tsv")


@pytest.mark.thorough
@pytest.mark.skipif(not shutil.which("tesseract"), reason="apt-get install tesseract-ocr")
def test_the_real_tesseract_takes_no_options_of_a_request(start_server, tmp_path, kept_packages):
    import tiny_tasks
    from PIL import Image, ImageDraw, ImageFont

    tiny_tasks.make("document-question-answering", tmp_path / "model")
    page, file = Image.new("RGB", (600, 200), "white"), io.BytesIO()
    ImageDraw.Draw(page).text((20, 60), "Invoice 12345 Berlin", fill="black", font=ImageFont.load_default(40))
    page.save(file, "PNG")
    inputs = {"image": base64.b64encode(file.getvalue()).decode(), "question": "who"}
    packages = kept_packages("pytesseract-0.3.13", "pytesseract==0.3.13", dependencies=False)
    server = start_server(
        tmp_path / "model",
        HF_TASK="document-question-answering",
        PATH=os.environ["PATH"],
        PYTHONPATH=os.pathsep.join((str(ROOT / "docker" / "inference"), str(packages))),
    ).wait_until_ready()
    (answer,) = server.ask({"inputs": inputs}).json
    assert answer["answer"] in "Invoice 12345 Berlin"
    written = tmp_path / "written"
    for parameters in (
        {"lang": f"eng -c debug_file={written}"},
        {"lang": f"eng --user-words {written}"},
        {"lang": "-c"},
        {"lang": "../eng"},
        {"lang": "klingon"},
        {"tesseract_config": f"-c debug_file={written}"},
    ):
        answer = server.ask({"inputs": inputs, "parameters": parameters})
        assert answer.error[0] == 400, parameters
    assert not written.exists()
    assert not list(Path(tempfile.gettempdir()).glob("tess_*"))


# the second wall


@pytest.fixture(scope="module")
def tried(server_path, tmp_path_factory):
    """The outcome of each attempt to name a file or a URL, in each part of the inputs of each task."""
    pytest.importorskip("torch", reason="pip install -r tests/runtime/requirements.txt")
    done = subprocess.run(
        [sys.executable, Path(__file__).parent / "name_files_everywhere.py", tmp_path_factory.mktemp("names")],
        env={**os.environ, "PYTHONPATH": server_path},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return [json.loads(line) for line in done.stdout.splitlines()]


def test_no_name_is_opened_wherever_it_stands_and_whoever_lets_it_through(tried):
    assert len({row["task"] for row in tried}) > 15
    assert [row for row in tried if row["opened"]] == []


def test_what_names_a_file_is_the_callers_fault(tried):
    outcomes = {row["outcome"] for row in tried if row["way"] == "through_the_server"}
    assert all(outcome == "answered" or outcome.startswith("400 ") for outcome in outcomes), outcomes
    images = [row for row in tried if row["way"] == "through_the_server" and row["task"] == "image-classification"]
    assert {row["outcome"] for row in images} == {"400 bad-inputs"}


def test_the_wall_holds_where_the_first_one_is_missing(tried):
    alone = [row for row in tried if row["way"] == "by_the_pipeline_alone" and row["place"] == ""]
    for task in ("image-classification", "automatic-speech-recognition", "audio-classification", "depth-estimation"):
        assert {row["outcome"] for row in alone if row["task"] == task} == {"400 bad-inputs"}, task
