"""SageMaker's Python SDK 3, whose `sagemaker.core` (the package sagemaker-core) calls endpoints."""

from __future__ import annotations

import json
import urllib.request

from calls import INVOKE, OPENAI, ROUTE, SAID, Asked, Calls, check, main, tone
from sagemaker.core.resources import Endpoint
from sagemaker.core.token_generator import generate_token

CALLS = Calls("sagemaker 3")
CHAT = {"messages": [{"role": "user", "content": "hi"}], "max_tokens": 20}


def program(asked: Asked) -> None:
    """Make its calls for existing endpoints."""

    def get() -> None:
        endpoint = Endpoint.get("chat", region=asked.region)
        endpoint.wait_for_status("InService", timeout=10)
        endpoint.refresh()
        check(endpoint.endpoint_status == "InService", endpoint)

    def invoke() -> None:
        text = json.dumps({"inputs": "hello world", "parameters": {"max_new_tokens": 8}})
        made = Endpoint.get("text", region=asked.region).invoke(text, content_type="application/json")
        check(json.loads(made.body.read())[0]["generated_text"], made)

    def chat() -> None:
        made = Endpoint.get("chat", region=asked.region).invoke(json.dumps(CHAT), content_type="application/json")
        check(json.loads(made.body.read())["choices"][0]["message"]["content"] == SAID, made)

    def sound() -> None:
        made = Endpoint.get("whisper", region=asked.region).invoke(tone(), content_type="audio/wav")
        check("text" in json.loads(made.body.read()), made)

    def route() -> None:
        made = Endpoint.get("embed", region=asked.region).invoke(
            json.dumps({"input": "hello"}),
            content_type="application/json",
            custom_attributes="route=/v1/embeddings",
        )
        check(len(json.loads(made.body.read())["data"]) == 1, made)

    def stream() -> None:
        body = json.dumps({**CHAT, "stream": True})
        made = Endpoint.get("chat", region=asked.region).invoke_with_response_stream(
            body, content_type="application/json"
        )
        check(b"[DONE]" in b"".join(part["PayloadPart"]["Bytes"] for part in made.body), made)

    def token() -> None:
        headers = {"Authorization": f"Bearer {generate_token(region=asked.region)}", "Content-Type": "application/json"}
        url = f"{asked.openai('chat')}/chat/completions"
        with urllib.request.urlopen(urllib.request.Request(url, json.dumps(CHAT).encode(), headers)) as answer:
            check(json.load(answer)["choices"][0]["message"]["content"] == SAID, answer)

    CALLS.try_it("`Endpoint.get`, `wait_for_status`, `refresh`", INVOKE, get)
    CALLS.try_it("`Endpoint.invoke`", INVOKE, invoke)
    CALLS.try_it("`Endpoint.invoke` of a chat", INVOKE, chat)
    CALLS.try_it("`Endpoint.invoke` of a sound", INVOKE, sound)
    CALLS.try_it("`Endpoint.invoke` of OpenAI's embeddings", ROUTE, route)
    CALLS.try_it(
        "`Endpoint.invoke_with_response_stream`",
        INVOKE,
        stream,
        refused="EventStream",
        why="the SDK's own fault: it reads boto3's stream as if it were a dictionary",
    )
    CALLS.try_it("`token_generator.generate_token`, and a request of one's own", OPENAI, token)


if __name__ == "__main__":
    main(program)
