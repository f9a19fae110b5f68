"""Good requests, with both ends of the transformers range."""

from __future__ import annotations

import base64
import json
import shutil
import subprocess
from pathlib import Path

import pytest

GREEDY = {"max_new_tokens": 5, "do_sample": False}


def test_bloom_continues_a_prompt(bloom):
    answer = bloom.ask({"inputs": "hello", "parameters": GREEDY})
    assert answer.status == 200
    assert answer.content_type == "application/json"
    assert answer.json[0]["generated_text"].startswith("hello")


def test_greedy_answers_repeat(bloom):
    request = {"inputs": "hello", "parameters": GREEDY}
    assert bloom.ask(request).body == bloom.ask(request).body


def test_parameters_reach_the_model(bloom):
    alone = {**GREEDY, "return_full_text": False, "min_new_tokens": 5}
    (result,) = bloom.ask({"inputs": "hello", "parameters": alone}).json
    assert not result["generated_text"].startswith("hello")
    several = {"inputs": "hello", "parameters": {**GREEDY, "do_sample": True, "num_return_sequences": 3}}
    assert len(bloom.ask(several).json) == 3


def test_several_prompts_get_as_many_answers(bloom):
    assert len(bloom.ask({"inputs": ["one", "two"], "parameters": GREEDY}).json) == 2


@pytest.mark.parametrize(
    "content_type", ["application/json; charset=utf-8", "Application/JSON;charset=UTF-8", "application/ld+json", None]
)
def test_json_is_known_by_any_spelling(bloom, content_type):
    assert bloom.ask({"inputs": "hello", "parameters": GREEDY}, content_type).status == 200


def test_the_charset_of_json_counts(bloom):
    body = json.dumps({"inputs": "héllo", "parameters": GREEDY}, ensure_ascii=False)
    answer = bloom.ask(body.encode("latin-1"), "application/json; charset=latin-1")
    assert answer.json[0]["generated_text"].startswith("héllo")


def test_plain_text_is_a_prompt(bloom):
    assert bloom.ask("grüße".encode(), "text/plain; charset=utf-8").json[0]["generated_text"].startswith("grüße")


def test_chat_messages_follow_the_models_template(start_server, models, tmp_path, release):
    folder = tmp_path / "chat"
    folder.mkdir()
    for file in (models / "bloom").iterdir():
        (folder / file.name).write_bytes(file.read_bytes())
    config = json.loads((folder / "tokenizer_config.json").read_text())
    config["chat_template"] = "{% for m in messages %}<{{ m.role }}>{{ m.content }}{% endfor %}<assistant>"
    (folder / "tokenizer_config.json").write_text(json.dumps(config))
    server = start_server(folder, release).wait_until_ready()
    answer = server.ask({"inputs": [{"role": "user", "content": "hi"}], "parameters": GREEDY})
    assert answer.status == 200, answer.body
    *_, last = answer.json[0]["generated_text"]
    assert last["role"] == "assistant"
    assert server.stop() == 0


def test_a_classifier_answers_with_labels_and_scores(bert):
    answer = bert.ask({"inputs": "fine", "parameters": {"top_k": 2}})
    assert {row["label"] for row in answer.json} == {"NEGATIVE", "POSITIVE"}
    assert sum(row["score"] for row in answer.json) == pytest.approx(1)


def test_a_bloom_classifier_needs_no_task_setting(start_server, release):
    server = start_server("bloom-classifier", release).wait_until_ready()
    assert server.ask({"inputs": "fine"}).json[0]["label"] in ("NEGATIVE", "POSITIVE")
    assert server.stop() == 0


@pytest.mark.parametrize("content_type", ["audio/wav", "audio/x-wav", "AUDIO/WAVE", "application/octet-stream"])
def test_whisper_transcribes_a_wav_whatever_it_is_called(whisper, tone, content_type):
    answer = whisper.ask(tone(), content_type)
    assert answer.status == 200, answer.body
    assert set(answer.json) == {"text"}


@pytest.mark.parametrize(("rate", "channels", "width"), [(8_000, 1, 1), (44_100, 2, 2), (48_000, 2, 3), (16_000, 2, 4)])
def test_any_rate_and_stereo_are_taken(whisper, tone, rate, channels, width):
    assert whisper.ask(tone(1, rate, channels, width), "audio/wav").status == 200


@pytest.mark.parametrize(
    ("extension", "content_type", "options"),
    [
        ("mp3", "audio/mpeg", ()),
        ("flac", "audio/x-flac", ()),
        ("ogg", "application/ogg", ()),
        ("webm", "audio/webm", ()),
        # the index of an MP4 file stands at its end unless told otherwise: ffmpeg has to seek
        ("m4a", "audio/mp4", ()),
        ("mp4", "video/mp4", ("-movflags", "+faststart")),
    ],
)
def test_what_ffmpeg_reads_is_taken(whisper, tone, ffmpeg_folder, tmp_path, extension, content_type, options):
    target = tmp_path / f"tone.{extension}"
    subprocess.run(
        [ffmpeg_folder / "ffmpeg", "-loglevel", "error", "-i", "pipe:0", *options, target], input=tone(), check=True
    )
    answer = whisper.ask(target.read_bytes(), content_type)
    assert answer.status == 200, answer.body
    assert "text" in answer.json


def test_audio_in_base64_can_carry_parameters(whisper, tone):
    encoded = base64.b64encode(tone()).decode()
    answer = whisper.ask({"inputs": encoded, "parameters": {"return_timestamps": True}})
    assert answer.status == 200, answer.body
    assert "chunks" in answer.json
    assert whisper.ask({"inputs": f"data:audio/wav;base64,{encoded}"}).json.keys() == {"text"}


@pytest.mark.parametrize("where", ["beside", "below generate_kwargs"])
def test_language_and_task_reach_whisper(whisper, tone, where):
    encoded = base64.b64encode(tone()).decode()
    options = {"language": "de", "task": "translate"}
    parameters = options if where == "beside" else {"generate_kwargs": options}
    assert whisper.ask({"inputs": encoded, "parameters": parameters}).status == 200
    wrong = {**options, "language": "klingon"}
    parameters = wrong if where == "beside" else {"generate_kwargs": wrong}
    status, _, message = whisper.ask({"inputs": encoded, "parameters": parameters}).error
    assert status == 400
    assert "klingon" in message


@pytest.mark.parametrize("seconds", [29, 31])
def test_audio_longer_than_whispers_window_needs_no_setting(whisper, tone, seconds):
    answer = whisper.ask(tone(seconds), "audio/wav")
    assert answer.status == 200, answer.body
    assert set(answer.json) == {"text"}


def test_long_audio_is_heard_to_its_end(whisper, tone, release):
    def starts(seconds: int) -> list[float]:
        encoded = base64.b64encode(tone(seconds)).decode()
        answer = whisper.ask({"inputs": encoded, "parameters": {"return_timestamps": True}})
        return [chunk["timestamp"][0] for chunk in answer.json["chunks"]]

    assert len(starts(65)) > len(starts(29))
    if release != "4.46.3":  # 4.46.3 starts at 0 again in each window
        assert max(starts(65)) > 30


def test_a_wav_needs_no_ffmpeg(start_server, tone):
    server = start_server("whisper", ffmpeg=False).wait_until_ready()
    for audio in (tone(), tone(1, 44_100, 2), tone(1, 8_000, 1, 1), tone(1, 48_000, 2, 3)):
        assert server.ask(audio, "audio/wav").status == 200
    status, code, message = server.ask(b"ID3" + bytes(500), "audio/mpeg").error
    assert (status, code) == (400, "undecodable-audio")
    assert "no ffmpeg" in message
    assert server.stop() == 0


def test_the_hub_is_asked_for_the_revision_and_the_token_stays_secret(start_server, models, tmp_path, release):
    werkzeug = pytest.importorskip("werkzeug.serving", reason="pip install extended-dlc[rehearse]")
    import threading

    from extended_dlc.rehearsal.hub import TOKEN, Hub

    shutil.copytree(models / "bloom", tmp_path / "tiny" / "bloom@v2")
    (tmp_path / "tiny" / "bloom").mkdir()
    (tmp_path / "tiny" / "bloom" / ".private").touch()
    asked: list[str] = []
    hub = werkzeug.make_server("127.0.0.1", 0, Hub(tmp_path, log=asked.append), threaded=True)
    threading.Thread(target=hub.serve_forever, daemon=True).start()
    try:
        server = start_server(
            None,
            release,
            HF_MODEL_ID="tiny/bloom",
            HF_MODEL_REVISION="v2",
            HF_API_TOKEN=TOKEN,
            HF_ENDPOINT=f"http://127.0.0.1:{hub.server_port}",
        ).wait_until_ready()
        assert server.ask({"inputs": "hello", "parameters": GREEDY}).status == 200
    finally:
        hub.shutdown()
    assert any("v2" in line for line in asked)
    assert TOKEN not in server.log
    assert server.stop() == 0


def test_weights_in_the_model_folder_win_over_the_hub(start_server):
    server = start_server("bloom", HF_MODEL_ID="nobody/nothing", HF_HUB_OFFLINE="1").wait_until_ready()
    assert server.stop() == 0


def test_the_image_has_no_module_that_shadows_others():
    """`docker/` must not be a package: it would hide the Docker SDK."""
    image = Path(__file__).parents[2] / "docker"
    assert not (image / "__init__.py").exists()
    assert not (image / "inference" / "__init__.py").exists()
