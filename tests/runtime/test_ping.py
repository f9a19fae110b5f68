"""SageMaker's limits for `/ping` (connected within 250 ms, answered within 2 s) whatever goes on, and long speech."""

from __future__ import annotations

import contextlib
import io
import json
import os
import shutil
import socket
import subprocess
import sys
import threading
import time
import wave

import pytest

np = pytest.importorskip("numpy", reason="pip install -r tests/runtime/requirements.txt")

CONNECTED, ANSWERED = 1.0, 2.0
RATE = 16_000


@contextlib.contextmanager
def all_cores_busy():
    """Run a process for each core that only computes."""
    busy = [subprocess.Popen([sys.executable, "-c", "while True: pass"]) for _ in os.sched_getaffinity(0)]
    try:
        yield
    finally:
        for process in busy:
            process.kill()
            process.wait()


def pings_while(server, goes_on, seconds=120):
    """Ping each 100 ms while `goes_on(statuses)`; return the statuses, and assert that none was late."""
    statuses = []
    end = time.monotonic() + seconds
    while goes_on(statuses) and time.monotonic() < end:
        started = time.monotonic()
        with socket.create_connection(("127.0.0.1", server.port)):
            assert time.monotonic() - started < CONNECTED
        statuses.append(server.ping(timeout=ANSWERED))
        assert time.monotonic() - started < ANSWERED
        time.sleep(0.1)
    return statuses


def listens(server):
    with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", server.port)):
        return True
    return False


def test_ping_is_quick_while_the_model_loads_on_a_busy_machine(start_server):
    with all_cores_busy():
        server = start_server("bloom")
        while not listens(server):
            time.sleep(0.05)
        *loading, ready = pings_while(server, lambda so_far: 200 not in so_far)
    assert ready == 200
    assert set(loading) == {503}
    assert len(loading) > 5
    assert server.stop() == 0


@pytest.fixture(scope="module")
def brief_whisper(models, tmp_path_factory):
    """A Whisper that generates few tokens per window, so that ten minutes of sound take seconds."""
    folder = tmp_path_factory.mktemp("brief") / "whisper"
    shutil.copytree(models / "whisper", folder)
    config = folder / "generation_config.json"
    config.write_text(json.dumps({**json.loads(config.read_text()), "max_length": 5}))
    return folder


@pytest.fixture(scope="module")
def directly(brief_whisper):
    """The pipeline's text of samples, with timestamps where long sound needs them."""
    torch = pytest.importorskip("torch", reason="pip install -r tests/runtime/requirements.txt")
    from transformers import pipeline

    whisper = pipeline("automatic-speech-recognition", model=str(brief_whisper))

    def transcribe(samples):
        options = {"return_timestamps": True} if samples.size > 30 * RATE else {}
        threads = torch.get_num_threads()
        torch.set_num_threads(1)  # as in the server
        try:
            return whisper({"raw": samples / np.float32(32768), "sampling_rate": RATE}, **options)["text"]
        finally:
            torch.set_num_threads(threads)

    return transcribe


def noise(seconds):
    """Samples, and the WAV file that holds them."""
    samples = np.random.default_rng(1).normal(0, 3000, seconds * RATE).astype("<i2")
    file = io.BytesIO()
    with wave.open(file, "wb") as sound:
        sound.setparams((1, 2, RATE, 0, "NONE", ""))
        sound.writeframes(samples.tobytes())
    return samples.astype(np.float32), file.getvalue()


@pytest.fixture(scope="module")
def server(start_server, brief_whisper):
    return start_server(brief_whisper).wait_until_ready()


@pytest.mark.parametrize("seconds", [1, 29, 31])
def test_speech_of_any_length_has_the_direct_answer_by_default(server, directly, seconds):
    samples, file = noise(seconds)
    assert server.ask(file, "audio/wav").json == {"text": directly(samples)}


@pytest.mark.thorough
def test_ping_is_quick_during_ten_minutes_of_speech_which_get_the_direct_answer(server, directly):
    samples, file = noise(600)
    answers = []
    speech = threading.Thread(target=lambda: answers.append(server.ask(file, "audio/wav", timeout=300)))
    speech.start()
    with all_cores_busy():
        statuses = pings_while(server, lambda _: speech.is_alive(), seconds=4)
    statuses += pings_while(server, lambda _: speech.is_alive())
    speech.join()
    assert set(statuses) == {200}
    assert len(statuses) > 10
    assert answers[0].json == {"text": directly(samples)}
