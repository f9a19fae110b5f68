"""SageMaker's Python SDK 2: its predictors, serializers and deserializers."""

from __future__ import annotations

import json
from typing import Any

import boto3
import numpy
import sagemaker
from calls import INVOKE, ROUTE, SAID, Asked, Calls, check, main, tone
from sagemaker.deserializers import CSVDeserializer, JSONDeserializer, NumpyDeserializer, StringDeserializer
from sagemaker.huggingface import HuggingFacePredictor
from sagemaker.iterators import LineIterator
from sagemaker.predictor import Predictor
from sagemaker.serializers import CSVSerializer, DataSerializer, JSONSerializer

CALLS = Calls("sagemaker 2")
TEXT = {"inputs": "hello world", "parameters": {"max_new_tokens": 8}}


def program(asked: Asked) -> None:
    """Call each predictor."""
    session = sagemaker.Session(boto3.Session(region_name=asked.region))

    def predictor(name: str, serializer: Any = None, deserializer: Any = None) -> Predictor:
        reads, writes = serializer or JSONSerializer(), deserializer or JSONDeserializer()
        return Predictor(name, sagemaker_session=session, serializer=reads, deserializer=writes)

    def hugging_face() -> None:
        made = HuggingFacePredictor("text", sagemaker_session=session).predict(TEXT)
        check(made[0]["generated_text"], made)

    def eula() -> None:
        made = predictor("text").predict(TEXT, custom_attributes="accept_eula=true")
        check(made[0]["generated_text"], made)

    def chat() -> None:
        made = predictor("chat").predict({"messages": [{"role": "user", "content": "hi"}], "max_tokens": 20})
        check(made["choices"][0]["message"]["content"] == SAID, made)

    def stream() -> None:
        parts = predictor("text").predict_stream({**TEXT, "stream": True}, iterator=LineIterator)
        lines = [json.loads(line[5:]) for line in map(_text, parts) if line.startswith("data:")]
        check(len(lines) > 2 and lines[-1]["generated_text"], lines)

    def csv() -> None:
        made = predictor("text", CSVSerializer(), CSVDeserializer(accept="text/csv")).predict("inputs\nhello world")
        check(len(made) == 2, made)

    def array() -> None:
        made = predictor("embed", None, NumpyDeserializer()).predict({"inputs": ["hello", "fox"]})
        check(isinstance(made, numpy.ndarray) and made.shape == (2, 32), made)

    def sound(content_type: str) -> None:
        made = predictor("whisper", DataSerializer(content_type)).predict(tone())
        check(isinstance(made["text"], str), made)

    def text() -> None:
        made = predictor("text", None, StringDeserializer(accept="text/plain")).predict(TEXT)
        check(isinstance(made, str) and made, made)

    def route() -> None:
        body = {"input": ["hello", "fox"]}
        made = predictor("embed").predict(body, custom_attributes="route=/v1/embeddings")
        check(len(made["data"]) == 2, made)

    for name, made in {
        "`HuggingFacePredictor.predict`": hugging_face,
        "`Predictor.predict(custom_attributes='accept_eula=true')`": eula,
        "`Predictor.predict` of a chat": chat,
        "`Predictor.predict_stream`": stream,
        "`CSVSerializer`, `CSVDeserializer`": csv,
        "`NumpyDeserializer`": array,
        "`StringDeserializer`": text,
    }.items():
        CALLS.try_it(name, INVOKE, made)
    for content_type in ("audio/x-audio", "audio/wav", "file-path/raw-bytes"):
        CALLS.try_it(f"`DataSerializer({content_type!r})`", INVOKE, sound, content_type)
    CALLS.try_it("`Predictor.predict` of OpenAI's embeddings", ROUTE, route)


def _text(line: bytes | str) -> str:
    return line.decode() if isinstance(line, bytes) else line


if __name__ == "__main__":
    main(program)
