"""Calls of langchain, llama-index, strands-agents and haystack."""

from __future__ import annotations

import json
from typing import Any

from calls import INVOKE, OPENAI, ORDER, PORT, SAID, Asked, Calls, check, check_order, main
from haystack_integrations.components.generators.amazon_sagemaker import SagemakerGenerator
from langchain_aws.chat_models.sagemaker_endpoint import ChatModelContentHandler, ChatSagemakerEndpoint
from langchain_aws.llms.sagemaker_endpoint import LLMContentHandler, SagemakerEndpoint
from langchain_core.messages import AIMessage, AIMessageChunk, BaseMessage
from langchain_core.tools import tool as langchain_tool
from langchain_openai import ChatOpenAI, OpenAI, OpenAIEmbeddings
from llama_index.core.llms import ChatMessage
from llama_index.embeddings.sagemaker_endpoint import SageMakerEmbedding
from llama_index.llms.sagemaker_endpoint import SageMakerLLM
from strands import Agent
from strands import tool as strands_tool
from strands.models.openai import OpenAIModel
from strands.models.sagemaker import SageMakerAIModel

CHAT_ONLY = "AWS documents chat completions alone on this path"
UNKNOWN_PATH = {"refused": "NotFound|UnknownOperation|not served", "why": CHAT_ONLY}


# langchain

AWS = Calls("langchain-aws")


class OfText(LLMContentHandler):
    """A handler as in langchain's documentation, for responses and for the lines of streams."""

    content_type = "application/json"
    accepts = "application/json"

    def transform_input(self, prompt: str, model_kwargs: dict[str, Any]) -> bytes:
        return json.dumps({"inputs": prompt, "parameters": model_kwargs}).encode()

    def transform_output(self, output: Any) -> str:
        return str(json.loads(output.read())[0]["generated_text"])


class OfStream(OfText):
    """The lines of a stream in TGI's form."""

    def transform_input(self, prompt: str, model_kwargs: dict[str, Any]) -> bytes:
        return json.dumps({"inputs": prompt, "parameters": model_kwargs, "stream": True}).encode()

    def transform_output(self, output: Any) -> str:
        line = output.decode().strip()
        return str(json.loads(line.removeprefix("data:"))["token"]["text"]) if line.startswith("data:") else ""


class OfChat(ChatModelContentHandler):
    """A chat's request, and OpenAI's responses and chunks."""

    content_type = "application/json"
    accepts = "application/json"

    def transform_input(self, prompt: list[dict[str, Any]], model_kwargs: dict[str, Any]) -> bytes:
        return json.dumps({"messages": prompt, **model_kwargs}).encode()

    def transform_output(self, output: Any) -> BaseMessage:
        if isinstance(output, bytes):
            line = output.decode().strip().removeprefix("data:").strip()
            if not line or line == "[DONE]":
                return AIMessageChunk(content="")
            chunk = json.loads(line)["choices"][0]["delta"]
            return AIMessageChunk(content=chunk.get("content") or "")
        return AIMessage(content=json.loads(output.read())["choices"][0]["message"]["content"])


def langchain_aws(asked: Asked) -> None:
    """Texts and chats through InvokeEndpoint."""
    to = {"region_name": asked.region, "endpoint_url": asked.aws}
    llm = SagemakerEndpoint(
        endpoint_name="text",
        content_handler=OfText(),
        model_kwargs={"max_new_tokens": 8, "temperature": 0, "stop": ["dog"], "return_full_text": False},
        **to,
    )
    AWS.try_it("`SagemakerEndpoint.invoke`", INVOKE, lambda: check(llm.invoke("hello world"), "no text"))
    streams = SagemakerEndpoint(
        endpoint_name="text", content_handler=OfStream(), model_kwargs={"max_new_tokens": 8}, streaming=True, **to
    )
    AWS.try_it(
        "`SagemakerEndpoint.stream`", INVOKE, lambda: check(len(list(streams.stream("hello world"))) > 2, "no parts")
    )
    chat = ChatSagemakerEndpoint(
        endpoint_name="chat",
        content_handler=OfChat(),
        model_kwargs={"max_tokens": 20, "temperature": 0},
        region_name=asked.region,
        base_url=asked.aws,
    )
    AWS.try_it("`ChatSagemakerEndpoint.invoke`", INVOKE, lambda: check(chat.invoke("hi").content == SAID, "other"))
    streaming = ChatSagemakerEndpoint(
        endpoint_name="chat",
        content_handler=OfChat(),
        model_kwargs={"max_tokens": 20, "stream": True},
        region_name=asked.region,
        base_url=asked.aws,
    )

    def stream() -> None:
        parts = [part.content for part in streaming.stream("hi")]
        check("".join(map(str, parts)) == SAID and len(parts) > 5, parts)

    AWS.try_it("`ChatSagemakerEndpoint.stream`", INVOKE, stream)


@langchain_tool
def get_weather(city: str) -> str:
    """The weather of a city."""
    return f"20 degrees in {city}"


LANGCHAIN = Calls("langchain-openai")


def langchain_openai(asked: Asked) -> None:
    """OpenAI's classes with another base URL."""
    for way in (PORT, OPENAI):

        def to(endpoint: str, way: str = way) -> dict[str, Any]:
            base = f"{asked.container_url(endpoint)}/v1" if way == PORT else asked.openai(endpoint)
            key = "none" if way == PORT else asked.token
            return {"base_url": base, "api_key": key, "max_retries": 0, "model": "any"}

        chat = ChatOpenAI(temperature=0, **to("chat"))
        LANGCHAIN.try_it("`ChatOpenAI.invoke`", way, lambda chat=chat: _langchain_invoke(chat))
        LANGCHAIN.try_it("`ChatOpenAI.stream`", way, lambda chat=chat: _langchain_stream(chat))
        LANGCHAIN.try_it("`ChatOpenAI.bind_tools`", way, lambda chat=chat: _langchain_tools(chat))
        LANGCHAIN.try_it("`ChatOpenAI.with_structured_output`", way, lambda chat=chat: _langchain_schema(chat))
        refused = {} if way == PORT else UNKNOWN_PATH
        LANGCHAIN.try_it(
            "`OpenAI.invoke`",
            way,
            lambda: check(OpenAI(max_tokens=8, **to("text")).invoke("hello world"), "no text"),
            **refused,
        )
        embed = OpenAIEmbeddings(check_embedding_ctx_length=False, **to("embed"))
        LANGCHAIN.try_it(
            "`OpenAIEmbeddings(check_embedding_ctx_length=False)`",
            way,
            lambda embed=embed: check(
                [len(one) for one in embed.embed_documents(["hello", "fox"])] == [32, 32], "other"
            ),
            **refused,
        )


def _langchain_invoke(chat: ChatOpenAI) -> None:
    made = chat.invoke("hi")
    check(made.content == SAID and made.usage_metadata["output_tokens"] == 7, made)


def _langchain_stream(chat: ChatOpenAI) -> None:
    parts = list(chat.stream("hi"))
    check("".join(str(part.content) for part in parts) == SAID and len(parts) > 5, parts)


def _langchain_tools(chat: ChatOpenAI) -> None:
    bound = chat.bind_tools([get_weather])
    made = bound.invoke("hi")
    (call,) = made.tool_calls
    check(call["args"] == {"city": "Köln"}, made)
    heard = bound.invoke([("user", "hi"), made, get_weather.invoke(call)])
    check(heard.content == "It is warm.", heard)
    streamed = None
    for part in bound.stream("hi"):
        streamed = part if streamed is None else streamed + part
    check(streamed.tool_calls[0]["args"] == {"city": "Köln"}, streamed)


def _langchain_schema(chat: ChatOpenAI) -> None:
    made = chat.with_structured_output({"title": "order", **ORDER}, method="json_schema").invoke("hi", max_tokens=200)
    check_order(json.dumps(made))


# llama-index

LLAMA = Calls("llama-index")


def llama_index(asked: Asked) -> None:
    """The LLM and embeddings of llama-index through InvokeEndpoint."""
    llm = SageMakerLLM(
        endpoint_name="text", aws_region_name=asked.region, temperature=0.5, model_kwargs={"max_new_tokens": 8}
    )
    LLAMA.try_it("`SageMakerLLM.complete`", INVOKE, lambda: check(llm.complete("hello world").text, "no text"))
    LLAMA.try_it(
        "`SageMakerLLM.chat`", INVOKE, lambda: check(llm.chat([ChatMessage(content="hi")]).message.content, "no text")
    )
    LLAMA.try_it(
        "`SageMakerLLM.stream_complete`",
        INVOKE,
        lambda: check(list(llm.stream_complete("hello world"))[-1].text, "no text"),
    )
    LLAMA.try_it(
        "`SageMakerLLM.stream_chat`",
        INVOKE,
        lambda: check(list(llm.stream_chat([ChatMessage(content="hi")]))[-1].message.content, "no text"),
    )
    embed = SageMakerEmbedding(endpoint_name="embed", region_name=asked.region)
    LLAMA.try_it(
        "`SageMakerEmbedding.get_text_embedding`",
        INVOKE,
        lambda: check(len(embed.get_text_embedding("hello")) == 32, "other"),
    )
    LLAMA.try_it(
        "`SageMakerEmbedding.get_text_embedding_batch`",
        INVOKE,
        lambda: check([len(one) for one in embed.get_text_embedding_batch(["a", "b"])] == [32, 32], "other"),
    )
    LLAMA.try_it(
        "`SageMakerEmbedding.get_query_embedding`",
        INVOKE,
        lambda: check(len(embed.get_query_embedding("hello")) == 32, "other"),
    )


# strands

STRANDS = Calls("strands-agents")


def strands(asked: Asked) -> None:
    """An agent that calls a tool and gets its result, with both of its models."""

    def sagemaker(*, stream: bool) -> SageMakerAIModel:
        # without it a stream has no usage, as with OpenAI
        usage = {"additional_args": {"stream_options": {"include_usage": True}}} if stream else {}
        endpoint = {"endpoint_name": "chat", "region_name": asked.region}
        return SageMakerAIModel(endpoint, {"max_tokens": 100, "stream": stream, **usage})

    def openai(way: str) -> OpenAIModel:
        base = f"{asked.container_url('chat')}/v1" if way == PORT else asked.openai("chat")
        key = "none" if way == PORT else asked.token
        return OpenAIModel(client_args={"base_url": base, "api_key": key}, model_id="any", params={"max_tokens": 100})

    for stream in (True, False):
        name = f"`SageMakerAIModel(stream={stream})`"
        STRANDS.try_it(name, INVOKE, lambda stream=stream: _agent(sagemaker(stream=stream)))
        STRANDS.try_it(f"{name} with a tool", INVOKE, lambda stream=stream: _agent_with_tool(sagemaker(stream=stream)))
    for way in (PORT, OPENAI):
        STRANDS.try_it("`OpenAIModel`", way, lambda way=way: _agent(openai(way)))
        STRANDS.try_it("`OpenAIModel` with a tool", way, lambda way=way: _agent_with_tool(openai(way)))


def _agent(model: Any) -> None:
    made = Agent(model=model, callback_handler=None, system_prompt="be brief")("hi")
    check(str(made).strip() == SAID and made.stop_reason == "end_turn", made)
    check(made.metrics.accumulated_usage["outputTokens"] > 0, made.metrics)


def _agent_with_tool(model: Any) -> None:
    asked = []

    @strands_tool
    def get_weather(city: str) -> str:
        """The weather of a city."""
        asked.append(city)
        return "20 degrees"

    made = Agent(model=model, tools=[get_weather], callback_handler=None)("hi")
    check(asked == ["Köln"] and str(made).strip() == "It is warm.", (asked, str(made)))


# haystack

HAYSTACK = Calls("haystack")


def haystack(asked: Asked) -> None:
    """The generator, with the attribute in its documentation."""
    for name, attributes in (("", {}), ("aws_custom_attributes={'accept_eula': True}", {"accept_eula": True})):
        generator = SagemakerGenerator(
            model="text", aws_custom_attributes=attributes, generation_kwargs={"max_new_tokens": 8}
        )
        HAYSTACK.try_it(
            f"`SagemakerGenerator({name})`",
            INVOKE,
            lambda generator=generator: check(generator.run("hello world")["replies"][0], "no text"),
        )


def program(asked: Asked) -> None:
    for each in (langchain_aws, langchain_openai, llama_index, strands, haystack):
        each(asked)


if __name__ == "__main__":
    main(program)
