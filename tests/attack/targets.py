"""The targets: a server for each kind of task, with its control request and its malicious requests."""

from __future__ import annotations

import base64
import io
import struct
import wave
import zlib
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from tests.runtime.conftest import NEWEST, OLDEST

Body = dict[str, Any]


@dataclass(frozen=True, kw_only=True)
class Target:
    """A server with one tiny model."""

    model: str
    task: str
    control: Body
    """A request with one answer, asked again after each attack."""

    release: str = NEWEST
    in_short: bool = False
    """Whether `--minutes` includes it."""

    costly: tuple[Body, ...] = ()
    """Requests that ask for more time or memory than there is."""

    wrong: tuple[Body, ...] = ()
    """Requests with a mistake of the caller."""

    environment: dict[str, str] = field(default_factory=dict)


def png(size: tuple[int, int] = (40, 30), mode: str = "RGB") -> str:
    from PIL import Image

    file = io.BytesIO()
    Image.new(mode, size).save(file, "PNG")
    return base64.b64encode(file.getvalue()).decode()


def blank(width: int, height: int) -> str:
    """A PNG with one bit per pixel: 90 million pixels are 11 KB."""

    def chunk(name: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))

    rows = zlib.compress(bytes((1 + (width + 7) // 8) * height), 9)
    head = struct.pack(">IIBBBBB", width, height, 1, 0, 0, 0, 0)
    data = b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", rows) + chunk(b"IEND", b"")
    return base64.b64encode(data).decode()


def wav(seconds: float, rate: int = 16_000, width: int = 2) -> str:
    file = io.BytesIO()
    with wave.open(file, "wb") as sound:
        sound.setparams((1, width, rate, 0, "NONE", ""))
        sound.writeframes(bytes(range(1, 1 + width)) * int(seconds * rate))
    return base64.b64encode(file.getvalue()).decode()


USER = {"role": "user", "content": "hello"}
GREEDY = {"max_new_tokens": 4, "do_sample": False}
LABELS = {"candidate_labels": ["a cat", "a dog"]}
MANY_LABELS = {"candidate_labels": [f"label {number}" for number in range(500)]}
WRITE_ON = {"max_new_tokens": 8192, "min_new_tokens": 8192, "do_sample": False}
THIN, WIDE, LARGE = blank(1, 300_000), blank(300_000, 1), blank(9_400, 9_400)


def words(count: int, word: str = "hello") -> list[Any]:
    return [[word, [0, 0, 10, 10]]] * count


def asked(inputs: Any, **parameters: Any) -> Body:
    return {"inputs": inputs, "parameters": parameters}


def generation_bombs(inputs: Any) -> tuple[Body, ...]:
    return (
        asked(inputs, **WRITE_ON),
        asked(inputs, **{**WRITE_ON, "num_beams": 64}),
        asked(inputs, **{**WRITE_ON, "encoder_no_repeat_ngram_size": 2, "no_repeat_ngram_size": 2}),
        asked(inputs, **{**WRITE_ON, "bad_words_ids": [[number, *[1] * 63] for number in range(300)]}),
        asked(inputs, **{**WRITE_ON, "stop_strings": ["never " * 30] * 16}),
        asked(inputs, max_new_tokens=8, num_beams=64, num_return_sequences=64),
        asked(inputs, max_new_tokens=8, do_sample=True, num_return_sequences=64),
    )


_VISION = ({"inputs": THIN}, {"inputs": WIDE}, {"inputs": LARGE}, {"inputs": [png()] * 3000})
_IMAGE_MISTAKES = (asked("hello"), asked({"image": png()}), asked(""), asked([[[png()]]]))
NOUL = {"type": "noul", "instructions": "Is it polite?"}
_SEQ2SEQ = (
    asked("hello " * 9, max_length=200, min_length=190),
    asked("hello " * 9, max_length=200, min_length=190, num_beams=4),
    asked(["hello"] * 5000, max_new_tokens=60, min_new_tokens=60),
)
_TEXT_MISTAKES = (
    asked(None),
    asked({}),
    asked([]),
    asked([None]),
    asked([[]]),
    asked(3),
    asked([["a"], "b"]),
    asked({"a": "b"}),
    asked("x" * 200_000),
    asked("é中\U0001f600" * 20_000),
    asked([[[[[[[[[[[[[[[[[[["deep"]]]]]]]]]]]]]]]]]]]),
)

TARGETS = {
    "text-generation": Target(
        model="text-generation",
        task="text-generation",
        control=asked("hello my name", **GREEDY),
        in_short=True,
        costly=(
            *generation_bombs("hello"),
            asked("x " * 4000, max_new_tokens=8, num_beams=64),
            asked("x " * 4000, max_new_tokens=2),
            asked(["hello"] * 100_000, **GREEDY),
        ),
        wrong=(*_TEXT_MISTAKES, asked([USER], **GREEDY)),
    ),
    "chat": Target(
        model="chat",
        task="text-generation",
        control=asked([USER], **GREEDY),
        costly=(
            *generation_bombs([USER]),
            asked([[USER]] * 100_000, **GREEDY),
            asked([USER], **GREEDY, tools=[{"a": [1] * 7000}] * 100),
            asked([{"role": "user", "content": "a" * 3_000_000}]),
        ),
        wrong=(
            asked([{"role": "system", "content": "x"}, USER]),
            asked([USER, USER]),
            asked([{"role": "user"}]),
            asked([{"role": "user", "content": None}]),
            asked([USER, {"role": "assistant", "content": None, "tool_calls": []}, {"role": "tool", "content": "x"}]),
            asked([{"role": "user", "content": {"a": 1}}]),
            asked([{"role": "user", "content": [{"type": "image", "url": "http://127.0.0.1:1/"}]}]),
            asked([{"role": ["user"], "content": "x"}]),
            asked([USER, "x"]),
            asked([{}]),
            asked([USER], tools=["a"]),
            asked([USER], chat_template_kwargs={"messages": []}),
            asked([USER], chat_template_kwargs={"chat_template": "{{ 1 }}"}),
            asked("hello", chat_template_kwargs={"enable_thinking": False}),
        ),
    ),
    "gpt2": Target(
        model="gpt2",
        task="text-generation",
        control=asked("hello my name", **GREEDY),
        costly=(
            asked("x" * 60, max_new_tokens=4, num_beams=64),
            asked(["x" * 60] * 10_000, max_new_tokens=4, num_beams=64),
        ),
        wrong=(
            asked("y" * 70),
            asked("y" * 60, max_new_tokens=40),
            asked("hello", max_length=120),
            asked("y" * 40, prefix="z" * 40, max_new_tokens=2),
            asked("é" * 40, max_new_tokens=2),
        ),
    ),
    "text-classification": Target(
        model="roberta-classifier",
        task="text-classification",
        control=asked("hello my name"),
        costly=(
            asked("a", padding="max_length", max_length=62),
            asked(["hello"] * 100_000),
            asked([{"text": "a", "text_pair": "b"}] * 100_000),
        ),
        wrong=(
            *_TEXT_MISTAKES,
            asked("a", padding="max_length", max_length=100_000_000),
            asked("a", padding=True, pad_to_multiple_of=100_000_000),
            asked([["x" * 50, "y" * 50]]),
            asked({"text": "x" * 50, "text_pair": "y" * 50}),
            asked("a" * 40, truncation=True, max_length=4, stride=10),
            asked("a", return_all_scores=True),
        ),
    ),
    "fill-mask": Target(
        model="roberta-mask",
        task="fill-mask",
        control=asked("hello <mask> name"),
        costly=(
            asked(["<mask>" * 60] * 2000, top_k=400),
            asked("<mask>", targets=["a" * 200] * 1000),
            asked(["<mask>"] * 100_000),
        ),
        wrong=(
            *_TEXT_MISTAKES,
            asked("no mask at all"),
            asked([["no mask"]]),
            asked("<mask>" + "x" * 70),
            asked("<mask>", tokenizer_kwargs={"padding": "max_length", "max_length": 100_000_000}),
            asked("<mask>" + "x" * 40, tokenizer_kwargs={"truncation": True, "max_length": 4, "stride": 10}),
            asked("<mask>", targets=[]),
            asked("<mask>", targets=[""]),
        ),
    ),
    "zero-shot-classification": Target(
        model="roberta-zero-shot",
        task="zero-shot-classification",
        control=asked("hello my name", **LABELS),
        costly=(
            asked(["hello"] * 3000, **MANY_LABELS),
            asked("hello", candidate_labels=",".join("ab" * 3000)),
        ),
        wrong=(
            *_TEXT_MISTAKES,
            asked("hello"),
            asked("hello", candidate_labels=[]),
            asked("hello", candidate_labels=","),
            asked("hello", **LABELS, hypothesis_template="{:300000000}"),
            asked("hello", **LABELS, hypothesis_template="{0.__class__}"),
            asked("hello", **LABELS, hypothesis_template="{} {}"),
            asked("hello", candidate_labels=["hello world my name is " * 3, "中" * 40], hypothesis_template="{}"),
        ),
    ),
    "token-classification": Target(
        model="roberta-tokens",
        task="token-classification",
        control=asked("hello my name"),
        costly=(asked(["hello " * 9] * 100_000), asked("hello " * 300, stride=60, aggregation_strategy="simple")),
        wrong=(
            *_TEXT_MISTAKES,
            asked([["x" * 50, "y" * 50]]),
            asked("hello", grouped_entities=True),
            asked("hello", stride=10),
        ),
    ),
    "feature-extraction": Target(
        model="roberta-features",
        task="feature-extraction",
        control=asked("hello my name"),
        costly=(asked(["x" * 60] * 100_000), asked(["x" * 60] * 400_000)),
        wrong=(
            *_TEXT_MISTAKES,
            asked("x", tokenize_kwargs={"truncation": True, "max_length": 4, "stride": 10}),
            asked("x" * 40, tokenize_kwargs={"padding": True, "pad_to_multiple_of": 10**8}),
        ),
    ),
    "speech": Target(
        model="automatic-speech-recognition",
        task="automatic-speech-recognition",
        control=asked(wav(1), max_new_tokens=6, do_sample=False),
        in_short=True,
        costly=(
            asked(wav(1), max_new_tokens=440, num_beams=64),
            asked(wav(400, rate=4000, width=1), return_timestamps=True, num_beams=16),
            asked(wav(400, rate=4000, width=1), chunk_length_s=1, stride_length_s=[0.49, 0.49]),
            asked(wav(3500, rate=4000, width=1)),
            asked(wav(1), temperature=[0.1, 0.2, 0.4], logprob_threshold=0, num_beams=8, do_sample=True),
        ),
        wrong=(
            asked(wav(2000, rate=1, width=1)),
            asked(wav(1, rate=3999)),
            asked(wav(0)),
            asked("hello"),
            asked([wav(1)]),
            asked({"raw": [0.0], "sampling_rate": 16_000}),
            asked({"path": "/etc/hostname"}),
            asked(wav(1), chunk_length_s=0.0001),
            asked(wav(1), language="klingon"),
            asked(wav(1), task="sing"),
            asked(wav(1), prompt_ids=[1, 2]),
            asked(wav(1), max_length=100_000),
        ),
    ),
    "ctc": Target(
        model="ctc",
        task="automatic-speech-recognition",
        control=asked(wav(1)),
        costly=(
            asked(wav(400, rate=4000, width=1)),
            asked(wav(400, rate=4000, width=1), chunk_length_s=1, stride_length_s=[0.49, 0.49]),
        ),
        wrong=(asked(wav(0.0001)), asked(wav(0.002)), asked(wav(1), max_new_tokens=3), asked(wav(0))),
    ),
    "image-classification": Target(
        model="image-classification",
        task="image-classification",
        control=asked(png()),
        costly=_VISION,
        wrong=(asked("hello"), asked([[png()]]), asked({"image": png()}), asked(png((1, 300), "L")), asked("")),
    ),
    "zero-shot-image-classification": Target(
        model="zero-shot-image-classification",
        task="zero-shot-image-classification",
        control=asked(png(), **LABELS),
        costly=(
            asked(THIN, **LABELS),
            asked(WIDE, **LABELS),
            asked(LARGE, **LABELS),
            asked([png()] * 300, **MANY_LABELS),
        ),
        wrong=(asked(png()), asked(png(), candidate_labels=["中" * 24]), asked(png(), candidate_labels=["x" * 1000])),
    ),
    "image-text-to-text": Target(
        model="llava",
        task="image-text-to-text",
        control=asked({"images": png(), "text": "<image>hello"}, **GREEDY),
        in_short=True,
        costly=(
            *generation_bombs({"images": png(), "text": "<image>hello"}),
            asked({"images": THIN, "text": "<image>"}, **GREEDY),
            asked({"images": [png()] * 3000, "text": "<image>" * 3000}, **GREEDY),
            asked({"images": [png()] * 3000, "text": ["<image>"] * 3000}, **GREEDY),
            asked({"images": png(), "text": "<image>" + "hello " * 6000}, **GREEDY),
            asked([{"role": "user", "content": "z" * 1500}] * 100, **GREEDY),
            asked([[{"role": "user", "content": [{"type": "image", "image": png()}]}]] * 500, **GREEDY),
        ),
        wrong=(
            asked({"images": png(), "text": "no place"}),
            asked({"text": "<image>"}),
            asked({"images": [png()] * 2, "text": "<image>"}),
            asked({"images": png()}),
            asked([{"role": "user", "content": None}]),
            asked([{"role": "user", "content": [{"type": "video", "video": "x"}]}]),
            asked([{"role": "user", "content": [{"type": "image", "image": "http://127.0.0.1:1/"}]}]),
            asked({"text": [{"role": "user", "content": [{"type": "image", "url": "http://127.0.0.1:1/"}]}]}),
        ),
    ),
    "text-to-audio": Target(
        model="csm",
        task="text-to-audio",
        control={"inputs": "hello", "parameters": {"generate_kwargs": {"max_new_tokens": 2, "do_sample": False}}},
        costly=(
            {"inputs": "hello", "parameters": {"generate_kwargs": {"max_new_tokens": 8192, "min_new_tokens": 8192}}},
            {"inputs": "x " * 4000, "parameters": {"forward_params": {"max_new_tokens": 8192}}},
            {"inputs": ["hello"] * 50_000},
        ),
        wrong=(
            *_TEXT_MISTAKES,
            asked("hi", forward_params={"custom_generate": "a/b", "trust_remote_code": True}),
            asked("hi", preprocess_params={"voice_preset": "/etc/passwd"}),
            asked([USER]),
            asked([{"role": "user", "content": [{"type": "audio", "url": "http://127.0.0.1:1/"}]}]),
        ),
    ),
    "vits": Target(
        model="text-to-audio",
        task="text-to-audio",
        control=asked("hello"),
        costly=(asked("hello " * 1300), asked(["hello"] * 50_000)),
        wrong=(*_TEXT_MISTAKES, asked("hi", forward_params={"speaker_id": 99_999}), asked("hi", forward_params=3)),
    ),
    "document-question-answering": Target(
        model="document-question-answering",
        task="document-question-answering",
        control=asked({"question": "who", "word_boxes": words(3)}),
        costly=(
            asked({"question": "who", "word_boxes": words(10_000)}, doc_stride=1),
            asked({"question": "who", "word_boxes": words(10_000)}, max_seq_len=64, doc_stride=32),
            asked({"question": "w " * 14, "word_boxes": words(10_000, "ab")}, max_seq_len=64, doc_stride=32),
            asked({"question": "who", "word_boxes": words(2_000, "ab " * 16)}, max_seq_len=64, doc_stride=60),
            asked({"question": "who", "image": THIN, "word_boxes": words(1)}),
        ),
        wrong=(
            asked({"question": "who", "word_boxes": words(300)}, max_seq_len=16, doc_stride=10),
            asked({"question": "who", "word_boxes": words(300)}, max_seq_len=10, doc_stride=10),
            asked({"question": "who", "word_boxes": words(300)}, max_seq_len=1, doc_stride=1),
            asked({"question": "w " * 600, "word_boxes": words(3)}),
            asked({"question": "who"}),
            asked({"question": ["who"], "word_boxes": words(1)}),
            asked({"question": "who", "word_boxes": [["a", [0, 0, 10**400, 0]]]}),
            asked({"question": "who", "word_boxes": [["a", [9, 9, 1, 1]]]}),
            asked({"question": "who", "word_boxes": words(3)}, tesseract_config="-c debug_file=/tmp/x"),
            asked({"question": "who", "image": png()}),
        ),
    ),
    "table-question-answering": Target(
        model="table-question-answering",
        task="table-question-answering",
        control=asked({"query": "who", "table": {"name": ["a", "b"], "age": ["1", "2"]}}),
        costly=(
            asked({"query": "who", "table": {"a": ["1"] * 100_000}}, truncation="drop_rows_to_fit"),
            asked({"query": "who", "table": {f"c{number}": ["1"] for number in range(30_000)}}),
            asked({"query": ["who"] * 100_000, "table": {"a": ["1"]}}),
        ),
        wrong=(
            asked({"query": "who", "table": {"a": [10**400, None, True, 1.5]}}),
            asked({"query": "who", "table": {"a": ["1e400", "inf", "-inf"]}}),
            asked({"query": "who " * 600, "table": {"a": ["1"]}}),
            asked({"query": "who", "table": {}}),
            asked({"query": "", "table": {"a": ["1"]}}),
        ),
    ),
    "image-segmentation": Target(
        model="image-segmentation",
        task="image-segmentation",
        control=asked(png()),
        costly=(
            asked(blank(4000, 4000)),
            asked([png()] * 3000),
            asked(THIN),
            asked(blank(4000, 40), subtask="semantic"),
        ),
        wrong=(*_IMAGE_MISTAKES, asked(LARGE), asked(png(), subtask="panoptic"), asked(png(), threshold=2)),
    ),
    "object-detection": Target(
        model="object-detection",
        task="object-detection",
        control=asked(png(), threshold=0),
        costly=(*_VISION, asked([png()] * 3000, threshold=0)),
        wrong=(*_IMAGE_MISTAKES, asked(png(), threshold=-1)),
    ),
    "depth-estimation": Target(
        model="depth-estimation",
        task="depth-estimation",
        control=asked(png()),
        costly=(asked(blank(2000, 2000)), asked([blank(600, 600)] * 11), asked([png()] * 3000), asked(THIN)),
        wrong=(*_IMAGE_MISTAKES, asked(LARGE)),
    ),
    "image-feature-extraction": Target(
        model="image-feature-extraction",
        task="image-feature-extraction",
        control=asked(png()),
        costly=(
            *_VISION,
            asked(LARGE, image_processor_kwargs={"do_resize": False}),
            asked(blank(2000, 2000), image_processor_kwargs={"do_resize": False}),
            asked(blank(30, 3000), image_processor_kwargs={"size": {"shortest_edge": 2048}}),
            asked([png()] * 100, image_processor_kwargs={"size": {"height": 2048, "width": 2048}}),
        ),
        wrong=(*_IMAGE_MISTAKES, asked(png(), image_processor_kwargs={"size": {"height": 0, "width": 1}})),
    ),
    "keypoint-matching": Target(
        model="keypoint-matching",
        task="keypoint-matching",
        control=asked([png(), png((60, 40))]),
        costly=(asked([blank(6000, 6000)] * 2), asked([THIN, WIDE]), asked([[png(), png()]] * 1000)),
        wrong=(*_IMAGE_MISTAKES, asked([png()]), asked([png()] * 3)),
    ),
    "zero-shot-object-detection": Target(
        model="zero-shot-object-detection",
        task="zero-shot-object-detection",
        control=asked(png(), **LABELS, threshold=0),
        costly=(asked(LARGE, **MANY_LABELS), asked([png()] * 100, **MANY_LABELS), asked(THIN, **LABELS)),
        wrong=(asked(png()), asked(png(), candidate_labels=["x" * 1000]), asked(png(), **LABELS, threshold=7)),
    ),
    "audio-classification": Target(
        model="audio-classification",
        task="audio-classification",
        control=asked(wav(1)),
        costly=(asked(wav(400, rate=4000, width=1)), asked(wav(3500, rate=4000, width=1))),
        wrong=(asked(wav(0)), asked(wav(0.0001)), asked("hello"), asked([wav(1)]), asked(wav(1), top_k=0)),
    ),
    "zero-shot-audio-classification": Target(
        model="zero-shot-audio-classification",
        task="zero-shot-audio-classification",
        control=asked(wav(1), **LABELS),
        costly=(asked(wav(400, rate=4000, width=1), **MANY_LABELS), asked(wav(3500, rate=4000, width=1), **LABELS)),
        wrong=(asked(wav(1)), asked(wav(0), **LABELS), asked(wav(1), candidate_labels=["x" * 1000])),
    ),
    "decision": Target(
        model="decision",
        task="decision",
        control=asked({"state": "hello", "questions": {"polite": NOUL}}),
        costly=(
            asked({"state": "hello " * 3000, "questions": {"polite": NOUL}}),
            asked({"state": "hello", "questions": {f"q{number}": NOUL for number in range(3000)}}),
            asked([{"state": "hello", "questions": {"polite": NOUL}}] * 20_000),
        ),
        wrong=(
            asked("hello"),
            asked({"state": "hello", "questions": {}}),
            asked({"state": "hello", "questions": {"a": {"type": "choice", "criteria": []}}}),
            asked({"state": "hello", "questions": {"a": {"type": "choice", "criteria": {}}}}),
            asked({"state": "hello", "questions": {"a": {"type": "score", "criteria": []}}}),
            asked({"state": "hello", "questions": {"a": NOUL}, "assets": {"hello": "http://127.0.0.1:1/"}}),
        ),
    ),
    "text-generation, oldest": Target(
        model="text-generation",
        task="text-generation",
        release=OLDEST,
        control=asked("hello my name", **GREEDY),
        costly=generation_bombs("hello"),
        wrong=_TEXT_MISTAKES,
    ),
    "question-answering, oldest": Target(
        model="roberta-questions",
        task="question-answering",
        release=OLDEST,
        control=asked({"question": "who", "context": "hello world"}),
        costly=(
            asked({"question": "who", "context": "x" * 1900}, max_seq_len=60, doc_stride=56),
            asked({"question": "who", "context": "x" * 1900}, max_seq_len=60, doc_stride=1, top_k=1000),
            asked({"question": ["who"] * 3000, "context": ["x" * 1900] * 3000}),
        ),
        wrong=(
            asked({"question": "who", "context": "x" * 1900}, max_seq_len=16, doc_stride=12),
            asked({"question": "who", "context": "x" * 500}, max_seq_len=4, doc_stride=4),
            asked({"question": "w" * 60, "context": "x" * 500}, max_question_len=60, max_seq_len=62),
            asked({"question": "", "context": "x"}),
            asked({"question": "who", "context": "x" * 10_000}),
        ),
    ),
    "summarization, oldest": Target(
        model="summarization",
        task="summarization",
        release=OLDEST,
        control=asked("hello my name", **GREEDY),
        costly=_SEQ2SEQ,
        wrong=(*_TEXT_MISTAKES, asked("hello", decoder_start_token_id=10**6)),
    ),
    "image-to-text, oldest": Target(
        model="image-to-text",
        task="image-to-text",
        release=OLDEST,
        control=asked(png(), **GREEDY),
        costly=(asked(png(), **WRITE_ON), asked(THIN, **GREEDY), asked(png(), max_new_tokens=300, min_new_tokens=300)),
        wrong=(asked(png(), prompt="x " * 300), asked("hello")),
    ),
    "image-to-image, oldest": Target(
        model="image-to-image",
        task="image-to-image",
        release=OLDEST,
        control=asked(png()),
        costly=(asked(blank(2000, 2000)), asked([png()] * 3000), asked(THIN), asked(blank(20, 2000))),
        wrong=(*_IMAGE_MISTAKES, asked(LARGE)),
    ),
    "visual-question-answering, oldest": Target(
        model="visual-question-answering",
        task="visual-question-answering",
        release=OLDEST,
        control=asked({"image": png(), "question": "who"}),
        costly=(
            asked({"image": LARGE, "question": "who"}),
            asked({"image": THIN, "question": "who"}),
            asked([{"image": png(), "question": "who"}] * 1000, top_k=10_000),
        ),
        wrong=(
            asked({"image": png(), "question": ""}),
            asked({"image": png(), "question": "who " * 300}),
            asked({"image": "http://127.0.0.1:1/", "question": "who"}),
            asked({"question": "who"}),
        ),
    ),
    "speech, oldest": Target(
        model="automatic-speech-recognition",
        task="automatic-speech-recognition",
        release=OLDEST,
        control=asked(wav(1), max_new_tokens=6, do_sample=False),
        costly=(asked(wav(400, rate=4000, width=1), chunk_length_s=1, stride_length_s=[0.49, 0.49]),),
        wrong=(asked(wav(1), max_length=100_000), asked(wav(1), language="klingon")),
    ),
}


def places(value: Any, put: Any) -> Iterator[Any]:
    """Yield the value with `put` in place of each of its parts, and `put` itself."""
    yield put
    parts = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, part in list(parts):
        for changed in places(part, put):
            whole = dict(value) if isinstance(value, dict) else list(value)
            whole[key] = changed
            yield whole
