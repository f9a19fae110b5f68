"""The openai package: to the container's port, through InvokeEndpoint, and by SageMaker's OpenAI path."""

from __future__ import annotations

import base64
import io
import json
import struct
import wave
from collections.abc import Callable
from typing import Any, Literal

import httpx2
import openai
import pydantic
from calls import INVOKE, OPENAI, ORDER, PORT, ROUTE, SAID, TOOL, Asked, Calls, check, check_order, main, tone
from through_sagemaker import ThroughSageMaker

CALLS = Calls("openai")
USER: list[Any] = [{"role": "user", "content": "hi"}]
CHAT_ONLY = "AWS documents chat completions alone on this path"


class Order(pydantic.BaseModel):
    """What `parse` makes of an answer."""

    model_config = {"extra": "forbid"}
    city: Literal["Köln", "Bonn"]
    days: int = pydantic.Field(ge=1, le=9)


def valid(made: Any) -> Any:
    """Validate a response with the client's own type, because the client does not."""
    type(made).model_validate(made.to_dict())
    return made


def plain(client: openai.OpenAI) -> None:
    made = valid(client.chat.completions.create(model="any", messages=USER, max_tokens=20, temperature=0))
    check(made.choices[0].message.content == SAID and made.choices[0].finish_reason == "stop", made)
    check(made.usage.total_tokens == made.usage.prompt_tokens + made.usage.completion_tokens, made.usage)


def parameters(client: openai.OpenAI) -> None:
    made = valid(
        client.chat.completions.create(
            **{
                "model": "any",
                "messages": [{"role": "system", "content": "be brief"}, *USER],
                "max_completion_tokens": 20,
            },
            **{"top_p": 0.9, "seed": 7, "n": 2, "frequency_penalty": 0.1, "presence_penalty": 0.1, "user": "me"},
            **{"stop": ["good"], "logprobs": True, "top_logprobs": 2},
        )
    )
    check([one.message.content for one in made.choices] == ["Hello you, and "] * 2, made)
    check(len(made.choices[0].logprobs.content[0].top_logprobs) == 2, made)


def reasoning(client: openai.OpenAI) -> None:
    thinking = {"chat_template_kwargs": {"enable_thinking": True}}
    made = valid(client.chat.completions.create(model="any", messages=USER, extra_body=thinking))
    message = made.choices[0].message
    check((message.reasoning_content, message.content) == ("Hm.", "Hi there."), made)


def streamed(client: openai.OpenAI) -> None:
    options: Any = {"include_usage": True}
    chunks = [
        valid(chunk)
        for chunk in client.chat.completions.create(model="any", messages=USER, stream=True, stream_options=options)
    ]
    check("".join(chunk.choices[0].delta.content or "" for chunk in chunks[:-1]) == SAID, chunks)
    check(chunks[-1].usage.completion_tokens == 7 and len(chunks) > 6, chunks)


def tools(client: openai.OpenAI) -> None:
    asked: dict[str, Any] = {"model": "any", "tools": [TOOL]}
    message = valid(client.chat.completions.create(messages=USER, **asked)).choices[0].message
    (call,) = message.tool_calls
    check(json.loads(call.function.arguments) == {"city": "Köln"}, call)
    result = {"role": "tool", "tool_call_id": call.id, "content": "20 degrees"}
    made = valid(client.chat.completions.create(messages=[*USER, message, result], **asked))
    check(made.choices[0].message.content == "It is warm.", made)


def streamed_tools(client: openai.OpenAI) -> None:
    asked: Any = {"model": "any", "messages": USER, "tools": [TOOL]}
    with client.chat.completions.stream(**asked) as stream:
        for _ in stream:
            pass
        (choice,) = stream.get_final_completion().choices
    (call,) = choice.message.tool_calls
    check((choice.finish_reason, json.loads(call.function.arguments)) == ("tool_calls", {"city": "Köln"}), choice)


def schema(client: openai.OpenAI) -> None:
    wanted: Any = {"type": "json_schema", "json_schema": {"name": "order", "schema": ORDER, "strict": True}}
    made = valid(client.chat.completions.create(model="any", messages=USER, response_format=wanted, max_tokens=200))
    check_order(made.choices[0].message.content)


def parsed(client: openai.OpenAI) -> None:
    made = client.chat.completions.parse(model="any", messages=USER, response_format=Order, max_tokens=200)
    check(isinstance(made.choices[0].message.parsed, Order), made)


def completions(client: openai.OpenAI) -> None:
    made = valid(client.completions.create(model="any", prompt="hello world", max_tokens=8, temperature=0, logprobs=2))
    several = valid(client.completions.create(model="any", prompt=["hello world", "a"], max_tokens=8, temperature=0))
    check([one.text for one in several.choices][:1] == [made.choices[0].text], several)


def streamed_completions(client: openai.OpenAI) -> None:
    asked: dict[str, Any] = {"model": "any", "prompt": "hello world", "max_tokens": 8, "temperature": 0}
    whole = client.completions.create(**asked)
    chunks = list(client.completions.create(stream=True, **asked))
    check("".join(chunk.choices[0].text for chunk in chunks) == whole.choices[0].text, chunks)


def embeddings(client: openai.OpenAI) -> None:
    made = valid(client.embeddings.create(model="any", input=["hello", "the quick fox"], encoding_format="float"))
    check([one.index for one in made.data] == [0, 1] and made.usage.prompt_tokens > 0, made.usage)
    check(all(abs(sum(x * x for x in one.embedding) - 1) < 1e-4 for one in made.data), made.data)
    packed = valid(client.embeddings.create(model="any", input="hello"))  # in base64, the client's default
    check(all(abs(a - b) < 1e-6 for a, b in zip(packed.data[0].embedding, made.data[0].embedding, strict=True)), packed)
    raw = client.embeddings.create(model="any", input="hello", encoding_format="base64").data[0].embedding
    check(struct.unpack("<f", base64.b64decode(raw)[:4])[0] == packed.data[0].embedding[0], raw)
    short = client.embeddings.create(model="any", input="hello", dimensions=8)
    check(len(short.data[0].embedding) == 8, short)


def models(client: openai.OpenAI) -> None:
    (model,) = client.models.list().data
    check(valid(client.models.retrieve(model.id)).id == model.id, model)


def responses(client: openai.OpenAI) -> None:
    client.responses.create(model="any", input="hi")


FILE = ("a.wav", tone(2), "audio/wav")


def transcribe(**arguments: Any) -> Callable[[openai.OpenAI], None]:
    def call(client: openai.OpenAI) -> None:
        made = client.audio.transcriptions.create(model="whisper-1", file=FILE, language="de", **arguments)
        if arguments.get("response_format") in ("text", "srt", "vtt"):
            check(isinstance(made, str), made)
        else:
            valid(made)
        if arguments.get("response_format") == "verbose_json":
            check(made.duration == 2 and made.segments and made.words is not None, made)

    return call


def translate(client: openai.OpenAI) -> None:
    valid(client.audio.translations.create(model="whisper-1", file=FILE, prompt="hello", temperature=0))


def speak(client: openai.OpenAI) -> None:
    made = client.audio.speech.create(model="any", voice="alloy", input="hello world", response_format="wav")
    with wave.open(io.BytesIO(made.read())) as audio:
        check(audio.getnframes() > 0, audio)


SPEECH = {
    "`audio.transcriptions.create`": transcribe(),
    **{
        f"`audio.transcriptions.create(response_format={form!r})`": transcribe(response_format=form)
        for form in ("text", "srt", "vtt")
    },
    "`audio.transcriptions.create(response_format='verbose_json')` with words": transcribe(
        response_format="verbose_json", timestamp_granularities=["word", "segment"]
    ),
    "`audio.translations.create`": translate,
}
CHATS = {
    "`chat.completions.create`": plain,
    "`chat.completions.create` with twelve parameters": parameters,
    "`chat.completions.create` with reasoning": reasoning,
    "`chat.completions.create(stream=True)` with usage": streamed,
    "`chat.completions.create(tools=…)`, called and answered": tools,
    "`chat.completions.stream(tools=…)`": streamed_tools,
    "`chat.completions.create(response_format=…)`, a JSON schema": schema,
    "`chat.completions.parse`": parsed,
}
OTHERS: dict[str, tuple[str, dict[str, Callable[[openai.OpenAI], None]]]] = {
    "text": (
        "v1",
        {"`completions.create`": completions, "`completions.create(stream=True)`": streamed_completions},
    ),
    "embed": ("v1", {"`embeddings.create`, floats, base64, dimensions": embeddings}),
    "whisper": ("v1", SPEECH),
    "text-to-audio": ("v1", {"`audio.speech.create`": speak}),
}
# requests whose body alone, without `route=`, selects the route
TOLD_BY_SHAPE = ("`completions", "`embeddings", "`audio.transcriptions.create(response_format")


def program(asked: Asked) -> None:
    """Make every call in every way."""
    through = {
        way: httpx2.Client(transport=ThroughSageMaker(asked.aws, asked.region, by_route=way == ROUTE))
        for way in (INVOKE, ROUTE)
    }

    def client(endpoint: str, way: str) -> openai.OpenAI:
        keys: dict[str, Any] = {"max_retries": 0, "timeout": 120, "api_key": "none"}
        if way == PORT:
            return openai.OpenAI(base_url=f"{asked.container_url(endpoint)}/v1", **keys)
        if way == OPENAI:
            return openai.OpenAI(**{**keys, "base_url": asked.openai(endpoint), "api_key": asked.token})
        return openai.OpenAI(base_url=f"http://sagemaker/{endpoint}/v1", http_client=through[way], **keys)

    for call, made in CHATS.items():
        for way in (PORT, INVOKE, ROUTE, OPENAI):
            CALLS.try_it(call, way, made, client("chat", way))
    for endpoint, (_, calls) in OTHERS.items():
        for call, made in calls.items():
            _other(call, made, endpoint, client)
    call, why = "`models.list`, `models.retrieve`", "InvokeEndpoint posts"
    CALLS.try_it(call, PORT, models, client("chat", PORT))
    for way in (INVOKE, ROUTE):
        CALLS.not_so(call, way, why)
    CALLS.try_it(call, OPENAI, models, client("chat", OPENAI), refused="NotFound", why=CHAT_ONLY)
    call, why = "`responses.create`", "a container keeps nothing for the next request: chat completions"
    for way in (PORT, ROUTE):
        CALLS.try_it(call, way, responses, client("chat", way), refused="chat/completions", why=why)
    CALLS.not_so(call, INVOKE, "the same body as embeddings'")
    CALLS.try_it(call, OPENAI, responses, client("chat", OPENAI), refused="NotFound", why=CHAT_ONLY)


def _other(
    call: str,
    made: Callable[[openai.OpenAI], None],
    endpoint: str,
    client: Callable[[str, str], openai.OpenAI],
) -> None:
    for way in (PORT, ROUTE):
        CALLS.try_it(call, way, made, client(endpoint, way))
    if call.startswith(TOLD_BY_SHAPE):
        CALLS.try_it(call, INVOKE, made, client(endpoint, INVOKE))
    else:
        CALLS.not_so(call, INVOKE, "the body does not say which route it is for: `route=`")
    CALLS.try_it(call, OPENAI, made, client(endpoint, OPENAI), refused="NotFound", why=CHAT_ONLY)


if __name__ == "__main__":
    main(program)
