"""The formats of tool calls that models generate, recognized by the text of their chat templates."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

_LETTERS_OF_AN_ID = 9
"""Length of a tool call id for Mistral: its templates reject other lengths."""


@dataclass(frozen=True, kw_only=True)
class Call:
    """One tool call."""

    name: str
    arguments: str
    """A JSON object, encoded."""


Schemas = Mapping[str, Any]
"""Name of a tool -> JSON schema of its parameters."""


@dataclass(frozen=True, kw_only=True)
class CallForm:
    """One format of tool calls in a text."""

    name: str
    opens: str
    """Tag before calls; empty if the whole answer is a call."""

    closes: str = ""
    """Tag after calls; empty if they extend to the next `opens`, or to the end of the answer."""

    read: Callable[[str, Schemas], list[Call]]
    """Parses the text between the tags; `ValueError` if it has no calls."""

    arguments: str = ""
    """Name of the field with the arguments in a call's JSON; empty if the format is not JSON."""

    wrapped: bool = False
    """Whether the JSON is a list of calls."""

    recognise: Callable[[str], bool]
    """Whether a chat template uses this format."""

    @property
    def is_json(self) -> bool:
        """Whether a call is a JSON object."""
        return bool(self.arguments)


def form_of(template: str) -> CallForm | None:
    """Return the format of a chat template, or None if it is unknown."""
    return next((form for form in FORMS if form.recognise(template)), None)


def schemas_of(tools: Sequence[Mapping[str, Any]]) -> Schemas:
    functions = [tool["function"] for tool in tools]
    return {function["name"]: function.get("parameters") or {} for function in functions}


def json_call(value: Any, arguments: Sequence[str] = ("arguments", "parameters")) -> Call:
    """Make a call from an object with a name and arguments."""
    if isinstance(value, dict) and isinstance(value.get("function"), dict):
        value = value["function"]
    if not isinstance(value, dict) or not isinstance(value.get("name"), str):
        raise ValueError("no name")
    given: Any = next((value[name] for name in arguments if name in value), {})
    if isinstance(given, str):
        given = json.loads(given)
    if not isinstance(given, dict):
        raise ValueError("the arguments are no object")
    return Call(name=value["name"], arguments=json.dumps(given, ensure_ascii=False))


def _hermes(body: str, schemas: Schemas) -> list[Call]:
    """`{"name": …, "arguments": {…}}`, as Hermes, Qwen 2.5 and Qwen 3 write it."""
    value = json.loads(body)
    return [json_call(one) for one in (value if isinstance(value, list) else [value])]


_FUNCTION = re.compile(r"<function=([^>\n]+)>(.*?)(?:</function>|\Z)", re.DOTALL)
_PARAMETER = re.compile(r"<parameter=([^>\n]+)>(.*?)(?:</parameter>|(?=<parameter=)|\Z)", re.DOTALL)


def _qwen_function(body: str, schemas: Schemas) -> list[Call]:
    """`<function=NAME><parameter=NAME>value</parameter></function>`, as Qwen 3 Coder and Qwen 3.5 write it."""
    calls = []
    for function in _FUNCTION.finditer(body):
        name = function[1].strip()
        types = _properties(schemas.get(name))
        arguments = {
            found[1].strip(): _typed(found[2].removeprefix("\n").removesuffix("\n"), types.get(found[1].strip()))
            for found in _PARAMETER.finditer(function[2])
        }
        calls.append(Call(name=name, arguments=json.dumps(arguments, ensure_ascii=False)))
    if not calls:
        raise ValueError("no function")
    return calls


_GLM_ARGUMENT = re.compile(r"<arg_key>(.*?)</arg_key>\s*<arg_value>(.*?)</arg_value>", re.DOTALL)


def _glm(body: str, schemas: Schemas) -> list[Call]:
    """`NAME<arg_key>…</arg_key><arg_value>…</arg_value>`, as GLM 4.5 and newer write it."""
    name = body.partition("<arg_key>")[0].strip()
    if not name:
        raise ValueError("no name")
    types = _properties(schemas.get(name))
    arguments = {
        found[1].strip(): _typed(found[2], types.get(found[1].strip())) for found in _GLM_ARGUMENT.finditer(body)
    }
    return [Call(name=name, arguments=json.dumps(arguments, ensure_ascii=False))]


def _typed(text: str, schema: Any) -> Any:
    """Convert an argument from text: it stays a string if the schema allows one, and is parsed as JSON otherwise."""
    if "string" in _types(schema):
        return text
    try:
        return json.loads(text)
    except ValueError:
        lowered = text.strip().lower()
        return {"true": True, "false": False, "none": None}.get(lowered, text)


def _types(schema: Any) -> set[str]:
    """Return the types that a JSON schema allows."""
    if not isinstance(schema, dict):
        return set()
    found = {one for one in _several(schema.get("type")) if isinstance(one, str)}
    for choice in (*_several(schema.get("anyOf")), *_several(schema.get("oneOf"))):
        found |= _types(choice)
    return found


def _several(value: Any) -> list[Any]:
    return value if isinstance(value, list) else [value]


def _properties(schema: Any) -> Mapping[str, Any]:
    """Return the properties of a tool's parameters, whose schema the client has written."""
    found = schema.get("properties") if isinstance(schema, dict) else None
    return found if isinstance(found, dict) else {}


def _mistral(body: str, schemas: Schemas) -> list[Call]:
    """A list of objects after `[TOOL_CALLS]`, or since 2025 `NAME[ARGS]{…}`, with `[CALL_ID]…` before `[ARGS]`."""
    name, has_arguments, rest = body.partition("[ARGS]")
    if has_arguments:
        arguments, _ = json.JSONDecoder().raw_decode(rest.strip())
        return [json_call({"name": name.partition("[CALL_ID]")[0].strip(), "arguments": arguments})]
    values, _ = json.JSONDecoder().raw_decode(body.strip())
    calls = [json_call(value) for value in (values if isinstance(values, list) else [values])]
    if not calls:
        raise ValueError("an empty list")
    return calls


def _llama(body: str, schemas: Schemas) -> list[Call]:
    """`{"name": …, "parameters": {…}}` as the whole answer; several calls are separated by semicolons."""
    decoder, calls, rest = json.JSONDecoder(), [], body.strip()
    while rest:
        value, end = decoder.raw_decode(rest)
        call = json_call(value, ("parameters", "arguments"))
        if call.name not in schemas:
            raise ValueError("no tool of that name")
        calls.append(call)
        rest = rest[end:].lstrip("; \n\t")
    if not calls:
        raise ValueError("no call")
    return calls


FORMS = (
    CallForm(
        name="glm",
        opens="<tool_call>",
        closes="</tool_call>",
        read=_glm,
        recognise=lambda template: "<arg_key>" in template and "<tool_call>" in template,
    ),
    CallForm(
        name="qwen-function",
        opens="<tool_call>",
        closes="</tool_call>",
        read=_qwen_function,
        recognise=lambda template: "<function=" in template and "<tool_call>" in template,
    ),
    CallForm(
        name="hermes",
        opens="<tool_call>",
        closes="</tool_call>",
        read=_hermes,
        arguments="arguments",
        recognise=lambda template: "<tool_call>" in template,
    ),
    CallForm(
        name="mistral",
        opens="[TOOL_CALLS]",
        read=_mistral,
        arguments="arguments",
        wrapped=True,
        recognise=lambda template: "[TOOL_CALLS]" in template,
    ),
    CallForm(
        name="llama",
        opens="",
        read=_llama,
        arguments="parameters",
        recognise=lambda template: "<|python_tag|>" in template or '"parameters": dictionary of argument' in template,
    ),
)
"""The first match is used, so the more specific formats come first."""


def call_id(form: CallForm | None, random: str) -> str:
    """Make the id of a call from random letters."""
    return random[:_LETTERS_OF_AN_ID] if form is not None and form.name == "mistral" else f"call_{random[:24]}"
