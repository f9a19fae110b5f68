"""litellm: `sagemaker/` and `sagemaker_chat/` through InvokeEndpoint, `openai/` by the port and SageMaker's path."""

from __future__ import annotations

import json
from typing import Any

import litellm
from calls import INVOKE, OPENAI, ORDER, PORT, SAID, TOOL, Asked, Calls, check, check_order, main

CALLS = Calls("litellm")
USER = [{"role": "user", "content": "hi"}]
CHAT_ONLY = "AWS documents chat completions alone on this path"


def said(made: Any) -> str:
    """The text of a response, which must be valid as litellm's own type."""
    litellm.ModelResponse.model_validate(made.model_dump())
    text = made.choices[0].message.content
    check(isinstance(text, str) and text, made)
    return str(text)


def of_stream(made: Any) -> str:
    """The text of a stream."""
    chunks = list(made)
    check(len(chunks) > 2, chunks)
    return "".join(chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices)


def tools(**to: Any) -> None:
    message = litellm.completion(messages=USER, tools=[TOOL], **to).choices[0].message
    (call,) = message.tool_calls
    check(json.loads(call.function.arguments) == {"city": "Köln"}, call)
    result = {"role": "tool", "tool_call_id": call.id, "content": "20 degrees"}
    check(said(litellm.completion(messages=[*USER, message, result], tools=[TOOL], **to)) == "It is warm.", call)


def schema(**to: Any) -> None:
    wanted = {"type": "json_schema", "json_schema": {"name": "order", "schema": ORDER, "strict": True}}
    check_order(said(litellm.completion(messages=USER, response_format=wanted, max_tokens=200, **to)))


def vectors(**to: Any) -> None:
    made = litellm.embedding(input=["hello", "a fox"], **to)
    found = [one["embedding"] for one in made.data]
    check([len(one) for one in found] == [32, 32], made)


def generate(**to: Any) -> None:
    """All parameters that `sagemaker/` maps; it sends `n` as `best_of`."""
    said(litellm.completion(messages=USER, max_tokens=8, **to))
    said(litellm.completion(messages=USER, max_tokens=8, temperature=0, stop=["dog"], top_p=0.9, n=1, **to))


def chat(**to: Any) -> None:
    check(said(litellm.completion(messages=USER, max_tokens=20, temperature=0, **to)) == SAID, to)
    check(said(litellm.completion(messages=USER, max_tokens=20, stop=["good"], top_p=0.9, n=1, **to)) == SAID[:15], to)


def program(asked: Asked) -> None:

    def sagemaker(model: str, *, streams: bool = False) -> dict[str, Any]:
        path = "invocations-response-stream" if streams else "invocations"
        url = f"{asked.aws}/endpoints/{model.rpartition('/')[2]}/{path}"
        return {"model": model, "aws_region_name": asked.region, "sagemaker_base_url": url, "num_retries": 0}

    text, chats = "sagemaker/text", "sagemaker_chat/chat"
    CALLS.try_it(
        f"`completion('{text}')`, with `stop`, `temperature=0`, `n`", INVOKE, lambda: generate(**sagemaker(text))
    )
    CALLS.try_it(
        f"`completion('{text}', stream=True)`",
        INVOKE,
        lambda: check(
            of_stream(litellm.completion(messages=USER, max_tokens=8, stream=True, **sagemaker(text, streams=True))),
            text,
        ),
    )
    CALLS.try_it(f"`completion('{chats}')`", INVOKE, lambda: chat(**sagemaker(chats)))
    CALLS.try_it(
        f"`completion('{chats}', stream=True)`",
        INVOKE,
        lambda: check(
            of_stream(litellm.completion(messages=USER, stream=True, **sagemaker(chats, streams=True))) == SAID, chats
        ),
    )
    CALLS.try_it(f"`completion('{chats}', tools=…)`", INVOKE, lambda: tools(**sagemaker(chats)))
    for model in ("sagemaker/embed", "sagemaker/openai/embed"):
        # the name after `openai/` selects the body's form; boto3 finds the embedded AWS by AWS_ENDPOINT_URL
        CALLS.try_it(
            f"`embedding('{model}')`",
            INVOKE,
            lambda model=model: vectors(model=model, aws_region_name=asked.region),
        )
    for way in (PORT, OPENAI):
        key, base = (
            ("none", f"{asked.container_url('chat')}/v1") if way == PORT else (asked.token, asked.openai("chat"))
        )
        to = {"model": "openai/any", "api_base": base, "api_key": key, "num_retries": 0}
        CALLS.try_it("`completion('openai/…')`", way, lambda to=to: chat(**to))
        CALLS.try_it(
            "`completion('openai/…', stream=True)`",
            way,
            lambda to=to: check(of_stream(litellm.completion(messages=USER, stream=True, **to)) == SAID, to),
        )
        CALLS.try_it("`completion('openai/…', tools=…)`", way, lambda to=to: tools(**to))
        CALLS.try_it("`completion('openai/…', response_format=…)`", way, lambda to=to: schema(**to))
        base = f"{asked.container_url('embed')}/v1" if way == PORT else asked.openai("embed")
        to = {**to, "api_base": base}
        refused = {} if way == PORT else {"refused": "UnknownOperation|not served|NotFound", "why": CHAT_ONLY}
        CALLS.try_it("`embedding('openai/…')`", way, lambda to=to: vectors(**to), **refused)


if __name__ == "__main__":
    litellm.suppress_debug_info = True
    main(program)
