"""`GET /openapi.json`: the routes of this server and their requests, as an OpenAPI 3.1 document.

Parameters and fields come from the tables that validate requests, so the document cannot diverge from them. A container
serves one task: its document describes that task's body, and only the routes that the task supports.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from .. import __version__
from ..model.embeddings import MOST_TEXTS
from ..model.served import Served
from ..reading.negotiation import offers
from ..reading.openai_fields import MODEL_NAME, PASSED_OVER, chat_fields, completion_fields
from ..reading.parameter_table import OF_THE_HUB
from ..reading.parameter_types import Choice, Type, object_schema, or_null
from ..reading.roles import ROLES
from ..reading.tasks import Kind
from . import metrics, openai_speech, rerank, transcriptions
from .openai_embeddings import FORMATS, PARAMETERS
from .openai_models import PATH as MODELS

PATH = "/openapi.json"

Json = dict[str, Any]


def document(served: Served) -> Json:
    paths: Json = {path: {"get": operation} for path, operation in _GETS.items()}
    for path, body in BODIES.items():
        content = body(served)
        if content is not None:
            paths[path] = {"post": _asked(path, content, served)}
    return {
        "openapi": "3.1.0",
        "info": {
            "title": f"extended-dlc server: {served.task}",
            "version": __version__,
            "description": "What is null is not given. Whatever stands nowhere here is refused by name.",
        },
        "paths": paths,
        "components": {"schemas": {"Error": _ERROR, "OpenAIError": _OPENAI_ERROR, **_components(served)}},
    }


def _components(served: Served) -> Json:
    """Return the schema of parameters, which the bodies of several routes share."""
    if served.kind is None:
        return {}
    table = {name: rule for name, rule in served.parameters.items() if name not in OF_THE_HUB}
    parameters = object_schema(table)
    same = {"$ref": "#/components/schemas/Parameters/properties/generate_kwargs"}
    properties = {**parameters["properties"], **{name: same for name in OF_THE_HUB if name in served.parameters}}
    return {"Parameters": {**parameters, "properties": dict(sorted(properties.items()))}}


# the request body of each route


def _invocations(served: Served) -> Json:
    if served.kind is None:  # the user's input_fn decodes any body
        return {"*/*": {"schema": {}}}
    options = {"options": {"description": "Of Hugging Face's own service; passed over."}}
    stream = {"stream": {"type": ["boolean", "null"]}} if served.task == "text-generation" else {}
    beside = {"inputs": inputs_schema(served), "parameters": {"$ref": "#/components/schemas/Parameters"}, **stream}
    whole = {"type": "object", "properties": {**beside, **options}, "required": ["inputs"]}
    content = {"application/json": {"schema": whole}}
    match served.kind:
        case Kind.TEXT if not served.task.endswith("question-answering"):
            content["text/plain"] = {"schema": {"type": "string"}}
        case Kind.AUDIO | Kind.IMAGE:
            content["application/octet-stream"] = {"schema": {"type": "string", "format": "binary"}}
            form = {"file": {"type": "string", "format": "binary"}, "parameters": beside["parameters"]}
            content["multipart/form-data"] = {"schema": {"type": "object", "properties": form, "required": ["file"]}}
        case _:
            pass
    return content


def inputs_schema(served: Served) -> Json:
    """Return the schema of `inputs`. `inputs.py` checks more, such as that columns have equal lengths."""
    text: Json = {"type": "string"}
    texts: Json = {"type": "array", "items": text, "minItems": 1}
    file: Json = {"type": "string", "contentEncoding": "base64", "description": "A file, or a data: URI of it."}
    match served.task:
        case "feature-extraction" | "sentence-embeddings":
            pair = _object(source_sentence=text, sentences=texts)
            return {"anyOf": [text, texts, *([pair] if served.embeds else [])]}
        case "question-answering":
            one = _object(question={"anyOf": [text, texts]}, context={"anyOf": [text, texts]})
        case "table-question-answering":
            cells = {"type": "array", "items": {"type": ["string", "number", "boolean", "null"]}, "minItems": 1}
            columns = {"type": "object", "additionalProperties": cells, "minProperties": 1}
            rows = {"type": "array", "items": {"type": "object"}, "minItems": 1}
            one = _object(table={"anyOf": [columns, rows]}, query={"anyOf": [text, texts]})
        case "text-classification":
            one = {"anyOf": [text, _object(text=text, text_pair=text, optional=("text_pair",))]}
        case "text-generation" | "text-to-audio":
            chat: Json = {"type": "array", "items": _message(images=False), "minItems": 1}
            return {"anyOf": [text, texts, chat, {"type": "array", "items": chat, "minItems": 1}]}
        case "document-question-answering" | "visual-question-answering":
            boxes = {"word_boxes": {"type": "array"}} if served.task.startswith("document") else {}
            one = _object(image=file, question=text, **boxes, optional=("word_boxes",))
        case "image-text-to-text" | "any-to-any":
            sound = {"audio": file} if served.task == "any-to-any" else {}
            files = {"anyOf": [file, {"type": "array", "items": file, "minItems": 1}]}
            one = _object(text={"anyOf": [text, texts]}, images=files, **sound, optional=("images", "audio"))
            chat = {"type": "array", "items": _message(images=True), "minItems": 1}
            return {"anyOf": [one, chat]}
        case "decision":
            one = _object(state={}, questions={"type": "object"}, assets={"type": "object"}, optional=("assets",))
        case _ if served.kind is Kind.AUDIO:
            return file
        case _:
            one = file if served.kind is Kind.IMAGE else text
    return {"anyOf": [one, {"type": "array", "items": one, "minItems": 1}]}


def _message(*, images: bool) -> Json:
    texts: Json = {"type": "object", "properties": {"type": {"const": "text"}, "text": {"type": "string"}}}
    image: Json = {"type": "object", "properties": {"type": {"const": "image"}, "image": {"type": "string"}}}
    parts = {"type": "array", "items": {"anyOf": [texts, image]} if images else texts}
    content = {"anyOf": [{"type": "string"}, parts, {"type": "null"}]}
    properties = {"role": {"type": "string"}, "content": content}
    return {"type": "object", "properties": properties, "required": ["role", "content"]}


def _chat(served: Served) -> Json | None:
    if served.limits is None:
        return None
    parts = ["text", "refusal", *(["image_url", "input_audio"] if served.images_in_chats else [])]
    part = {"type": "object", "properties": {"type": {"enum": parts}}, "required": ["type"]}
    content = {"anyOf": [{"type": "string"}, {"type": "array", "items": part, "minItems": 1}, {"type": "null"}]}
    properties = {"role": {"enum": list(ROLES)}, "content": content, "tool_calls": {"type": ["array", "null"]}}
    message = {"type": "object", "properties": properties, "required": ["role"]}
    messages = {"type": "array", "items": message, "minItems": 1}
    return _json({"messages": messages}, chat_fields(served.limits), "messages")


def _completion(served: Served) -> Json | None:
    if served.limits is None or served.images_in_chats:
        return None
    token = {"type": "integer", "minimum": 0, "maximum": max(0, served.limits.vocabulary - 1)}
    tokens = {"type": "array", "items": token, "minItems": 1}
    several = {"type": "array", "items": {"anyOf": [{"type": "string"}, tokens]}, "minItems": 1}
    prompt = {"anyOf": [{"type": "string"}, tokens, several]}
    return _json({"prompt": prompt}, completion_fields(served.limits), "prompt")


def _embeddings(served: Served) -> Json | None:
    if not served.embeds:
        return None
    text: Json = {"type": "string"}
    tokens = {"type": "array", "items": {"type": "integer"}, "minItems": 1}
    several = {"type": "array", "items": {"anyOf": [text, tokens]}, "minItems": 1, "maxItems": MOST_TEXTS}
    table = {name: rule for name, rule in served.parameters.items() if name in PARAMETERS}
    table |= {"encoding_format": Choice(FORMATS), "model": MODEL_NAME}
    return _json({"input": {"anyOf": [text, tokens, several]}}, table, "input")


def _rerank(served: Served) -> Json | None:
    if not served.reranks:
        return None
    text: Json = {"type": "string"}
    one = {"anyOf": [text, _object(text=text)]}
    bodies = [
        _body({field: {"type": "array", "items": one, "minItems": 1, "maxItems": MOST_TEXTS}}, table, field, "query")
        for field, table in (
            ("documents", {**rerank.OF_BOTH, **rerank.OF_DOCUMENTS}),
            ("texts", {**rerank.OF_BOTH, **rerank.OF_TEXTS}),
        )
    ]
    return {"application/json": {"schema": {"anyOf": bodies}}}


def _speech(served: Served) -> Json | None:
    if served.task != "text-to-audio":
        return None
    table = {name: rule for name, rule in openai_speech.FIELDS.items() if name != "input"}
    return _json({"input": openai_speech.FIELDS["input"].schema()}, table, "input")


def _transcription(served: Served) -> Json | None:
    if served.task != "automatic-speech-recognition":
        return None
    times = {"type": "array", "items": {"enum": list(transcriptions.GRANULARITIES)}}
    more = {
        "file": {"type": "string", "format": "binary"},
        "response_format": or_null({"enum": list(transcriptions.FORMATS)}),
        "timestamp_granularities[]": times,
    }
    return {"multipart/form-data": {"schema": _body(more, transcriptions.FIELDS, "file")}}


BODIES: Mapping[str, Callable[[Served], Json | None]] = {
    "/invocations": _invocations,
    "/v1/chat/completions": _chat,
    "/v1/completions": _completion,
    "/v1/embeddings": _embeddings,
    "/v1/audio/speech": _speech,
    transcriptions.TRANSCRIPTIONS: _transcription,
    transcriptions.TRANSLATIONS: _transcription,
    **dict.fromkeys(("/rerank", "/v1/rerank", "/v2/rerank"), _rerank),
}
"""Path -> function that returns the request body by content type, or None if the task does not support the path."""


# parts of the OpenAPI document


def _object(*, optional: tuple[str, ...] = (), **properties: Json) -> Json:
    """Return the schema of an object with these properties and no others."""
    needed = [name for name in properties if name not in optional]
    return {"type": "object", "properties": properties, "required": needed, "additionalProperties": False}


def _body(more: Json, table: Mapping[str, Type], *needed: str) -> Json:
    """Return the schema of an object with the fields of a table, and the ignored fields that clients add."""
    passed_over: Json = {name: {"description": "Changes no answer; passed over."} for name in sorted(PASSED_OVER)}
    made = object_schema(table, more)
    return {**made, "properties": {**made["properties"], **passed_over}, "required": list(needed)}


def _json(more: Json, table: Mapping[str, Type], *needed: str) -> Json:
    return {"application/json": {"schema": _body(more, table, *needed)}}


def _asked(path: str, content: Json, served: Served) -> Json:
    """Return the POST operation of a path: its request body and its responses."""
    error = "OpenAIError" if path != "/invocations" else "Error"
    refused = {"application/json": {"schema": {"$ref": f"#/components/schemas/{error}"}}}
    answers = [form.value for form in offers(served.task)] if path == "/invocations" and served.kind else []
    return {
        "operationId": path.strip("/").replace("/", "_"),
        "requestBody": {"required": True, "content": content},
        "responses": {
            "200": {"description": "The answer.", "content": {one: {} for one in answers or ["*/*"]}},
            "4XX": {"description": "What the caller can change.", "content": refused},
            "5XX": {"description": "What only the server's operator can change.", "content": refused},
        },
    }


def _get(what: str, content: str = "application/json", *, path_parameter: str = "", failures: Json) -> Json:
    operation: Json = {"responses": {"200": {"description": what, "content": {content: {}}}, **failures}}
    if path_parameter:
        operation["parameters"] = [
            {"name": path_parameter, "in": "path", "required": True, "schema": {"type": "string"}}
        ]
    return operation


_ERROR: Json = _object(error=_object(code={"type": "string"}, message={"type": "string"}))
_OPENAI_ERROR: Json = _object(
    error=_object(
        message={"type": "string"}, type={"type": "string"}, param={"type": ["string", "null"]}, code={"type": "string"}
    )
)
_FAILED: Json = {"description": "Not so.", "content": {"application/json": {}}}
_GETS: Mapping[str, Json] = {
    "/ping": _get("The model answers.", failures={"503": _FAILED, "500": _FAILED}),
    metrics.PATH: _get("What the server counts, for Prometheus.", "text/plain", failures={}),
    PATH: _get("This document.", failures={"503": _FAILED, "500": _FAILED}),
    MODELS: _get("The model that is served.", failures={}),
    f"{MODELS}/{{model}}": _get("The model of this name.", path_parameter="model", failures={"404": _FAILED}),
}
"""Path -> its GET operation."""
