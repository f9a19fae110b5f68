"""Transcriptions, translations and speech by OpenAI's API."""

from __future__ import annotations

import io
import json
import re
import wave
from types import SimpleNamespace

import pytest

pytest.importorskip("numpy", reason="pip install -r tests/runtime/requirements.txt")

from extended_dlc_server import errors
from extended_dlc_server.answering import segments, sound_files, subtitles
from extended_dlc_server.routes import transcriptions

TRANSCRIPTIONS, TRANSLATIONS = "/v1/audio/transcriptions", "/v1/audio/translations"
BOUNDARY = "a-boundary"


def form(server, path, file, *fields):
    """A form with a file, and pairs of a name and a value."""
    parts = []
    if file is not None:
        head = 'Content-Disposition: form-data; name="file"; filename="a.wav"\r\nContent-Type: audio/wav'
        parts.append(head.encode() + b"\r\n\r\n" + file)
    parts += [f'Content-Disposition: form-data; name="{name}"\r\n\r\n{value}'.encode() for name, value in fields]
    body = b"".join(f"--{BOUNDARY}\r\n".encode() + part + b"\r\n" for part in parts) + f"--{BOUNDARY}--\r\n".encode()
    return server.request(
        "POST", path, body, {"Content-Type": f"multipart/form-data; boundary={BOUNDARY}"}, timeout=120
    )


@pytest.fixture(scope="module")
def clip(tone):
    return tone(2)


@pytest.fixture(scope="module")
def ctc(start_server, tmp_path_factory):
    """A tiny wav2vec 2.0, which writes letters (CTC)."""
    import torch
    import transformers

    folder = tmp_path_factory.mktemp("ctc")
    letters = ["<pad>", "<s>", "</s>", "<unk>", "|", *"abcdefghijklmnopqrstuvwxyz"]
    (folder / "vocab.json").write_text(json.dumps({letter: number for number, letter in enumerate(letters)}))
    transformers.Wav2Vec2CTCTokenizer(folder / "vocab.json").save_pretrained(folder)
    transformers.Wav2Vec2FeatureExtractor().save_pretrained(folder)
    torch.manual_seed(3)
    config = transformers.Wav2Vec2Config(
        **{"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 64},
        **{"conv_dim": (32, 32), "conv_kernel": (10, 8), "conv_stride": (8, 8), "num_feat_extract_layers": 2},
        **{"num_conv_pos_embeddings": 16, "num_conv_pos_embedding_groups": 2, "vocab_size": len(letters)},
        initializer_range=0.5,
    )
    transformers.Wav2Vec2ForCTC(config).save_pretrained(folder)
    return start_server(folder).wait_until_ready()


def test_the_text_is_that_of_invocations_in_json_and_bare(whisper, clip):
    task = {"Content-Type": "audio/wav", "X-Amzn-SageMaker-Custom-Attributes": "task=transcribe"}
    text = whisper.request("POST", "/invocations", clip, task).json["text"].strip()
    answer = form(whisper, TRANSCRIPTIONS, clip, ("model", "whisper-1"))
    assert answer.json == {"text": text, "usage": {"type": "duration", "seconds": 2}}
    bare = form(whisper, TRANSCRIPTIONS, clip, ("model", "any"), ("response_format", "text"))
    assert (bare.body.decode(), bare.content_type) == (f"{text}\n", "text/plain; charset=utf-8")
    body = {"Content-Type": f"multipart/form-data; boundary={BOUNDARY}"}
    route = {"X-Amzn-SageMaker-Custom-Attributes": f"route={TRANSCRIPTIONS}"}
    raw = (
        b'--a-boundary\r\nContent-Disposition: form-data; name="file"; filename="a"\r\n\r\n'
        + clip
        + b"\r\n--a-boundary--"
    )
    assert whisper.request("POST", "/invocations", raw, {**body, **route}).json == answer.json


def test_verbose_json_has_everything_that_openais_has_and_subtitles_the_same_times(whisper, clip):
    verbose = form(whisper, TRANSCRIPTIONS, clip, ("response_format", "verbose_json"), ("language", "German")).json
    assert set(verbose) == {"task", "language", "duration", "text", "usage", "segments"}
    assert (verbose["task"], verbose["language"], verbose["duration"]) == ("transcribe", "german", 2.0)
    assert verbose["segments"]
    for number, one in enumerate(verbose["segments"]):
        assert one["id"] == number
        assert 0 <= one["start"] <= one["end"] <= 2
        assert len(one["tokens"]) > 2
        assert one["avg_logprob"] < 0
        assert 0 < one["no_speech_prob"] < 1
        assert one["compression_ratio"] > 0
        assert (one["temperature"], one["seek"]) == (0, 0)
    spoken = "".join(one["text"] for one in verbose["segments"]).split()
    assert spoken == verbose["text"].split()
    srt = form(whisper, TRANSCRIPTIONS, clip, ("response_format", "srt"), ("language", "de"))
    assert srt.content_type == "text/plain; charset=utf-8"
    blocks = [block.split("\n") for block in srt.body.decode().strip().split("\n\n")]
    assert [block[0] for block in blocks] == [str(number) for number in range(1, len(verbose["segments"]) + 1)]
    assert all(re.fullmatch(r"00:00:\d\d,\d{3} --> 00:00:\d\d,\d{3}", block[1]) for block in blocks)
    assert [block[2].split() for block in blocks] == [one["text"].split() for one in verbose["segments"]]
    vtt = form(whisper, TRANSCRIPTIONS, clip, ("response_format", "vtt"), ("language", "de"))
    assert vtt.content_type == "text/vtt; charset=utf-8"
    assert vtt.body.decode().startswith("WEBVTT\n\n00:0")
    assert vtt.body.decode().count("-->") == len(verbose["segments"])


def test_the_language_is_heard_where_nobody_says_it_and_a_translation_is_english(whisper, clip):
    heard = form(whisper, TRANSCRIPTIONS, clip, ("response_format", "verbose_json")).json
    assert heard["language"] in {"afrikaans", "english", "german"} or heard["language"].isalpha()
    again = form(
        whisper, TRANSCRIPTIONS, clip, ("response_format", "verbose_json"), ("language", heard["language"])
    ).json
    assert [one["avg_logprob"] for one in again["segments"]] == pytest.approx(
        [one["avg_logprob"] for one in heard["segments"]], abs=1e-4
    )
    translated = form(whisper, TRANSLATIONS, clip, ("response_format", "verbose_json")).json
    assert (translated["task"], translated["language"]) == ("translate", "english")
    plain = form(whisper, TRANSLATIONS, clip).json["text"]
    assert (
        plain
        == whisper.request(
            "POST",
            "/invocations",
            clip,
            {"Content-Type": "audio/wav", "X-Amzn-SageMaker-Custom-Attributes": "task=translate"},
        )
        .json["text"]
        .strip()
    )


def test_words_have_times_beside_segments_or_alone(whisper, clip):
    verbose = ("response_format", "verbose_json")
    words = form(whisper, TRANSCRIPTIONS, clip, verbose, ("timestamp_granularities[]", "word")).json
    assert "segments" not in words
    assert words["words"]
    for one in words["words"]:
        assert set(one) == {"word", "start", "end"}
        assert 0 <= one["start"] <= one["end"] <= 2
    both = [verbose, ("timestamp_granularities[]", "word"), ("timestamp_granularities[]", "segment")]
    answer = form(whisper, TRANSCRIPTIONS, clip, *both).json
    assert answer["words"] == words["words"]
    assert answer["segments"]


def test_a_prompt_is_heard_before_and_not_repeated(whisper, clip):
    without = form(whisper, TRANSCRIPTIONS, clip).json["text"]
    prompted = form(whisper, TRANSCRIPTIONS, clip, ("prompt", "fox fox fox hello world")).json["text"]
    assert prompted != without
    assert "hello world" not in prompted
    assert form(whisper, TRANSCRIPTIONS, clip, ("prompt", "a word " * 1000)).status == 200
    assert form(whisper, TRANSCRIPTIONS, clip, ("temperature", "0.4")).status == 200


@pytest.mark.parametrize(
    ("fields", "param", "words"),
    [
        ([("response_format", "docx")], "response_format", "must be one of: json, text, srt, verbose_json, vtt"),
        ([("temperature", "2")], "temperature", "must be a number from 0 to 1"),
        ([("language", "klingon")], "language", "must be one of: af, am, ar"),
        ([("prompt", "<|translate|> a")], "prompt", "disallowed special token"),
        ([("timestamp_granularities[]", "word")], "timestamp_granularities", "needs 'response_format' verbose_json"),
        (
            [("response_format", "verbose_json"), ("timestamp_granularities[]", "char")],
            "timestamp_granularities",
            "must be one of: segment, word",
        ),
        ([("stream", "true")], "stream", "has no answer in parts"),
        ([("hotwords", "a")], "hotwords", "is not a field of this request"),
        ([("language", "de"), ("language", "en")], "language", "more than one field"),
    ],
)
def test_what_cannot_be_transcribed_is_refused_by_name(whisper, clip, fields, param, words):
    error = form(whisper, TRANSCRIPTIONS, clip, *fields).json["error"]
    assert error["param"] == param
    assert words in error["message"]


def test_what_is_no_form_and_no_sound_is_refused(whisper, bloom, clip):
    assert form(whisper, TRANSCRIPTIONS, None, ("model", "a")).json["error"]["param"] == "file"
    assert form(whisper, TRANSCRIPTIONS, b"no sound").json["error"]["code"] == "undecodable-audio"
    raw = whisper.request("POST", TRANSCRIPTIONS, clip, {"Content-Type": "audio/wav"})
    assert (raw.status, raw.json["error"]["code"]) == (415, "unsupported-content-type")
    other = form(bloom, TRANSCRIPTIONS, clip)
    assert (other.status, other.json["error"]["code"]) == (400, "wrong-task")


def test_a_model_that_spells_letters_does_what_it_can(ctc, clip):
    text = ctc.ask(clip, "audio/wav").json["text"].strip()
    assert text
    assert form(ctc, TRANSCRIPTIONS, clip).json["text"] == text
    assert form(ctc, TRANSCRIPTIONS, clip, ("response_format", "text")).body.decode() == f"{text}\n"
    asked = [("response_format", "verbose_json"), ("timestamp_granularities[]", "word")]
    words = form(ctc, TRANSCRIPTIONS, clip, *asked).json
    assert (words["text"], words["language"]) == (text, "")
    assert [one["word"] for one in words["words"]] == text.split()
    for path, fields, param in (
        (TRANSCRIPTIONS, [("response_format", "srt")], "response_format"),
        (TRANSCRIPTIONS, [("response_format", "verbose_json")], "response_format"),
        (TRANSCRIPTIONS, [("prompt", "a")], "prompt"),
        (TRANSCRIPTIONS, [("language", "en")], "language"),
        (TRANSLATIONS, [], "model"),
    ):
        assert form(ctc, path, clip, *fields).json["error"]["param"] == param


@pytest.mark.parametrize(
    ("lacks", "fields", "param"),
    [
        ("no_timestamps_token_id", {"response_format": "srt"}, "response_format"),
        ("no_timestamps_token_id", {"response_format": "verbose_json"}, "response_format"),
        (
            "alignment_heads",
            {"response_format": "verbose_json", "timestamp_granularities": ["word"]},
            "timestamp_granularities",
        ),
        ("is_multilingual", {"language": "de"}, "language"),
    ],
)
def test_what_a_whispers_own_configuration_lacks_is_refused_by_name(lacks, fields, param):
    config = {"no_timestamps_token_id": 5, "alignment_heads": [[0, 0]], "is_multilingual": True}
    config[lacks] = False if lacks == "is_multilingual" else None
    generation = SimpleNamespace(**config, lang_to_id={"<|de|>": 1})
    pipeline = SimpleNamespace(type="seq2seq_whisper", model=SimpleNamespace(generation_config=generation))
    with pytest.raises(errors.RequestError) as raised:
        transcriptions._check_model(SimpleNamespace(pipeline=pipeline), transcriptions._ask(fields, "transcribe"))
    assert raised.value.param == param


# without a model


def test_subtitles_are_written_as_whisper_writes_them():
    parts = [segments.Segment(0.0, 1.2345, " Hello\nthere "), segments.Segment(3599.9999, 3723.04, "a --> b")]
    assert subtitles.srt(parts) == (
        "1\n00:00:00,000 --> 00:00:01,234\nHello there\n\n2\n01:00:00,000 --> 01:02:03,040\na -> b\n\n"
    )
    assert subtitles.vtt(parts) == (
        "WEBVTT\n\n00:00.000 --> 00:01.234\nHello there\n\n01:00:00.000 --> 01:02:03.040\na -> b\n\n"
    )


def test_segments_have_both_times_within_the_clip_and_a_text():
    chunks = [
        {"timestamp": (0.0, 1.0), "text": " one"},
        {"timestamp": (1.0, 1.5), "text": " "},
        {"timestamp": (2.0, 9.0), "text": " two"},
        {"timestamp": (2.5, None), "text": " three"},
    ]
    found = segments.segments_of({"chunks": chunks}, 3.0)
    assert [(one.start, one.end, one.text) for one in found] == [(0, 1, " one"), (2, 3, " two"), (2.5, 3, " three")]
    assert segments.segments_of({"text": "a"}, 3.0) == []


def test_segments_are_scored_in_windows_that_hold_them():
    times = [(0, 12), (12, 29), (29, 41), (50, 70), (70, 79.5), (79.5, 100)]
    parts = [segments.Segment(float(start), float(end), "a") for start, end in times]
    windows = [(start, [(one.start, one.end) for one in held]) for start, held in segments._windows(parts, 30)]
    assert windows == [
        (0.0, [(0, 12), (12, 29)]),
        (29.0, [(29, 41)]),
        (50.0, [(50, 70), (70, 79.5)]),
        (79.5, [(79.5, 100)]),
    ]


# speech


@pytest.fixture(scope="module")
def speaker(start_server, tmp_path_factory):
    """A tiny VITS of four voices."""
    import tiny_tasks

    folder = tmp_path_factory.mktemp("speech") / "vits"
    kept = dict(tiny_tasks.VITS)
    tiny_tasks.VITS.update(num_speakers=4, speaker_embedding_size=16)
    try:
        tiny_tasks.make("text-to-audio", folder)
    finally:
        tiny_tasks.VITS.clear()
        tiny_tasks.VITS.update(kept)
    return start_server(folder, HF_TASK="text-to-audio").wait_until_ready()


def say(server, **fields):
    body = json.dumps({"model": "tts-1", "input": "hello world", "voice": "alloy", **fields}).encode()
    return server.request("POST", "/v1/audio/speech", body, {"Content-Type": "application/json"})


@pytest.mark.parametrize(
    ("form", "content_type", "begins"),
    [
        ("wav", "audio/wav", b"RIFF"),
        ("flac", "audio/flac", b"fLaC"),
        ("mp3", "audio/mpeg", b"ID3"),
        ("opus", "audio/ogg", b"OggS"),
        ("aac", "audio/aac", b"\xff"),
        ("pcm", "audio/pcm", b""),
    ],
)
def test_a_text_is_spoken_into_each_kind_of_file(speaker, form, content_type, begins):
    answer = say(speaker, response_format=form)
    assert (answer.status, answer.content_type) == (200, content_type), answer.body[:300]
    assert answer.body.startswith(begins)
    assert len(answer.body) > 100


def test_the_body_tells_the_interface_where_there_is_one_path(speaker):
    body = json.dumps({"input": "hello", "voice": "alloy", "response_format": "wav"}).encode()
    answer = speaker.request("POST", "/invocations", body, {"Content-Type": "application/json"})
    assert (answer.status, answer.content_type, answer.body[:4]) == (200, "audio/wav", b"RIFF")


def test_the_usual_file_is_mp3_and_a_wav_has_the_rate_of_the_model(speaker):
    assert say(speaker).content_type == "audio/mpeg"
    with wave.open(io.BytesIO(say(speaker, response_format="wav").body)) as file:
        assert (file.getframerate(), file.getnchannels(), file.getsampwidth()) == (16_000, 1, 2)
        assert file.getnframes() > 100
    assert say(speaker, voice="3", speed=1.0, stream_format="audio").status == 200


@pytest.mark.parametrize(
    ("fields", "param", "words"),
    [
        ({"input": ""}, "input", "'input'"),
        ({"input": None}, "input", "'input' is missing"),
        ({"response_format": "midi"}, "response_format", "must be one of"),
        ({"speed": 2}, "speed", "at its own speed"),
        ({"voice": "my-aunt"}, "voice", "or a number from 0 to 3"),
        ({"voice": "4"}, "voice", "is none of this model's"),
        ({"voice": "v2/en_speaker_1"}, "voice", "is none of this model's"),
        ({"instructions": "whisper"}, "instructions", "is not a field of this request"),
        ({"stream_format": "sse"}, "stream_format", "'stream_format'"),
    ],
)
def test_what_cannot_be_spoken_is_refused_by_name(speaker, fields, param, words):
    answer = say(speaker, **fields)
    assert answer.status == 400
    assert answer.json["error"]["param"] == param
    assert words in answer.json["error"]["message"]


def test_without_ffmpeg_there_are_wav_and_pcm(monkeypatch):
    monkeypatch.setattr(sound_files, "_known_encoders", frozenset)
    assert sound_files.formats.__wrapped__() == ("wav", "pcm")


def test_a_model_that_does_not_speak_says_so(bloom):
    assert say(bloom).json["error"]["code"] == "wrong-task"


def test_samples_of_any_rate_and_number_of_channels_become_one_channel():
    import numpy as np

    stereo = np.stack([np.full(16_000, 0.5), np.full(16_000, -0.25)])
    pcm = np.frombuffer(sound_files.write_sound(stereo, 16_000, "pcm"), "<i2")
    assert len(pcm) == sound_files.PCM_RATE
    assert abs(int(pcm[len(pcm) // 2]) - 0.125 * 32_767) < 50
    loud = np.frombuffer(sound_files.write_sound(np.array([2.0, -2.0, np.nan]), 24_000, "pcm"), "<i2")
    assert loud.tolist() == [32_767, -32_767, 0]
