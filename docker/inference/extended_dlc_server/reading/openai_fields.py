"""The fields of requests to the OpenAI-compatible routes, with their types and bounds.

Additional fields of vLLM, SGLang and Hugging Face's servers are included where they have the same meaning here. Other
fields are rejected by name, except those that clients send by default and that change no answer (`PASSED_OVER`).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

from ..errors import RequestError, shown
from .openai_errors import BadFieldError
from .parameter_table import CLIENTS_OWN, Limits
from .parameter_table import REFUSED as REFUSED_PARAMETERS
from .parameter_types import AnyOf, Choice, Flag, Group, Json, JsonObject, List, Number, Text, Type, Whole, unknown

if TYPE_CHECKING:
    from ..http.prepared import Incoming

MOST_CHOICES = 16
"""Maximum of `n`: each answer is a row of the model's batch."""

MOST_LIKELY = 20
"""Maximum of `top_logprobs`, as at OpenAI."""

MOST_BIASES = 1000
"""Maximum number of tokens in `logit_bias`."""

MODEL_NAME = Text(2000)
"""Type of `model`, which answers repeat."""

SMALLEST_TEMPERATURE = 0.01
"""Lower temperatures mean greedy decoding, because scores would overflow in half precision."""

PASSED_OVER = frozenset(
    {
        *("metadata", "prediction", "prompt_cache_key", "prompt_cache_options", "prompt_cache_retention"),
        *("safety_identifier", "service_tier", "store", "user", *CLIENTS_OWN),
    }
)
"""Ignored fields, about billing, caches and tracing."""

_OF_OURS: Mapping[str, str] = {
    **{name: why for name, why in REFUSED_PARAMETERS.items() if not why.startswith("send ")},
    "best_of": "send 'n': all answers are given",
    "do_sample": "send 'temperature', which is 0 for the likeliest text",
    "max_new_tokens": "send 'max_tokens'",
    "num_return_sequences": "send 'n'",
    "parameters": "send its names beside the others",
    "stop_sequences": "send 'stop'",
    "stop_strings": "send 'stop'",
}
_ONE_MODEL = "this server writes text only"
_NOT_HERE = "this server searches nothing"
REFUSED: Mapping[str, str] = {
    "audio": _ONE_MODEL,
    "modalities": _ONE_MODEL,
    "web_search_options": _NOT_HERE,
    "functions": "send 'tools'",
    "function_call": "send 'tool_choice'",
    "input": "this is a field of /v1/responses and /v1/embeddings: send 'messages'",
    "instructions": "send a message with the role 'system'",
    "max_output_tokens": "send 'max_completion_tokens'",
    "suffix": "this server continues texts and fills no gaps",
    "use_beam_search": "send 'inputs' and 'parameters' with 'num_beams' to /invocations",
    "guided_json": "send 'response_format'",
    "guided_regex": "send 'response_format' with a schema that has a 'pattern'",
    "guided_choice": "send 'response_format' with a schema that has an 'enum'",
    "chat_template": REFUSED_PARAMETERS["chat_template"],
    "tool_prompt": "say it in a message with the role 'system'",
    "verbosity": "say it in a message",
}
"""Name -> why it is rejected, or what to send instead."""

_STOP = AnyOf((Text(200, 1), List(Text(200, 1), 16, 0)))
_FUNCTION = Group(
    {"name": Text(64, 1, r"[\w.:-]+", "letters, digits, '_', '-', '.' and ':'"), "description": Text(20_000)}
    | {"parameters": JsonObject(), "strict": Flag()}
)
_SCHEMA = Group({"name": Text(64, 1), "description": Text(20_000), "schema": Json(), "strict": Flag()})


def sampling_fields(limits: Limits) -> dict[str, Type]:
    """Return the fields about generation, which chats and completions share."""
    token = Whole(0, max(0, limits.vocabulary - 1))
    return {
        "model": MODEL_NAME,
        "max_tokens": Whole(1, limits.new_tokens),
        "min_tokens": Whole(0, limits.new_tokens),
        "temperature": Number(0, 2),
        "top_p": Number(0, 1, above=True),
        "top_k": Whole(-1, max(1, limits.vocabulary)),
        "min_p": Number(0, 1),
        "typical_p": Number(0, 1, above=True),
        "repetition_penalty": Number(0, 100, above=True),
        "frequency_penalty": Number(-2, 2),
        "presence_penalty": Number(-2, 2),
        "logit_bias": Biases(limits.vocabulary),
        "seed": Whole(-(2**63), 2**63 - 1),
        "n": Whole(1, MOST_CHOICES),
        "stop": _STOP,
        "stop_token_ids": List(token, 64, 0),
        "ignore_eos": Flag(),
        "stream": Flag(),
        "stream_options": Group(
            {"include_usage": Flag(), "include_obfuscation": Flag(), "continuous_usage_stats": Choice((False,))}
        ),
    }


def chat_fields(limits: Limits) -> dict[str, Type]:
    """Return the fields of a chat completion, except `messages`."""
    variables = dict.fromkeys(limits.template_variables, Json(depth=8, most=1000))
    return {
        **sampling_fields(limits),
        "max_completion_tokens": Whole(1, limits.new_tokens),
        "logprobs": Flag(),
        "top_logprobs": Whole(0, MOST_LIKELY),
        "tools": List(Group({"type": Choice(("function",)), "function": _FUNCTION}), 128, 0),
        "tool_choice": AnyOf(
            (
                Choice(("auto", "none", "required")),
                Group({"type": Choice(("function",)), "function": Group({"name": Text(64, 1)})}),
            )
        ),
        "parallel_tool_calls": Flag(),
        "response_format": Group(
            {"type": Choice(("text", "json_object", "json_schema")), "json_schema": _SCHEMA, "value": Json()}
        ),
        "modalities": List(Choice(("text",)), 1),
        "reasoning_effort": Choice(("none", "minimal", "low", "medium", "high", "xhigh")),
        "chat_template_kwargs": Group(variables, REFUSED_PARAMETERS),
        "documents": List(Json(), 1000),
        "continue_final_message": Flag(),
        "add_generation_prompt": Flag(),
    }


def completion_fields(limits: Limits) -> dict[str, Type]:
    """Return the fields of a completion, except `prompt`."""
    return {
        **sampling_fields(limits),
        "best_of": Whole(1, MOST_CHOICES),
        "logprobs": Whole(0, 5),
        "echo": Choice((False,)),
    }


class Biases:
    """An object of token ids, as strings, and the bias that is added to the score of each."""

    def __init__(self, vocabulary: int) -> None:
        self._vocabulary = vocabulary

    def check(self, value: Any) -> dict[int, float]:
        """Return token id -> bias."""
        rule = f"must be an object of at most {MOST_BIASES} token ids below {self._vocabulary} with numbers to +-100"
        if not isinstance(value, dict) or len(value) > MOST_BIASES:
            raise ValueError(rule)
        number = Number(-100, 100)
        for name in value:
            if not (isinstance(name, str) and name.isdecimal() and len(name) < 10 and int(name) < self._vocabulary):
                raise ValueError(rule)
        return {int(name): number.check(bias) for name, bias in value.items()}

    def schema(self) -> dict[str, Any]:
        """Return an object schema by token ids; the upper bound is only in its description."""
        return {
            "type": "object",
            "propertyNames": {"pattern": "^[0-9]{1,9}$"},
            "additionalProperties": Number(-100, 100).schema(),
            "maxProperties": MOST_BIASES,
            "description": f"Token, below {self._vocabulary} -> what is added to its score.",
        }


def object_of(incoming: Incoming) -> dict[str, Any]:
    """Return the JSON object in the body; 415 or 400 if there is none."""
    if not incoming.is_json:
        raise RequestError(
            415, "unsupported-content-type", f"{incoming.path} takes a JSON object: send it as application/json"
        )
    document = incoming.document
    if not isinstance(document, dict):
        raise RequestError(400, "malformed-json", "the body must be a JSON object")
    return document


def check_fields(document: Mapping[str, Any], table: Mapping[str, Type], main: str) -> dict[str, Any]:
    """Validate each field by its type; 400 names the first that is unknown or invalid.

    `main` is the main field, such as `messages`, which is validated elsewhere. A null field counts as missing.
    """
    checked: dict[str, Any] = {}
    for name, value in document.items():
        if value is None or name == main or name in PASSED_OVER:
            continue
        rule = table.get(name)
        if rule is None:
            message = unknown(name, {*table, main}, {**_OF_OURS, **REFUSED}).message
            raise BadFieldError("unknown-field", name[:100], message.replace("parameter", "field", 1))
        try:
            checked[name] = check_field(name, value, rule)
        except BadFieldError:
            raise
        except RequestError as error:  # from a nested field
            raise BadFieldError(error.code, name, f"'{name}': {error.message}") from None
    return checked


def check_field(name: str, value: Any, rule: Type, *, sent: Any = None) -> Any:
    """Validate a field by its type; 400 names it with its value.

    :param sent: The original value in the request, if `value` was converted from it.
    """
    try:
        return rule.check(value)
    except ValueError as error:
        said = value if sent is None else sent
        raise BadFieldError("bad-parameters", name, f"'{name}' ({shown(said)}) {error}") from None


def unknown_field(name: str, known: Iterable[str]) -> BadFieldError:
    """Make the error for an unknown field, with the names of the known ones."""
    names = ", ".join(sorted(known))
    return BadFieldError("unknown-field", name, f"{shown(name)} is not a field of this request, which has: {names}")


def stops_of(fields: Mapping[str, Any]) -> tuple[str, ...]:
    """Return the stop strings."""
    stop = fields.get("stop", ())
    return (stop,) if isinstance(stop, str) else tuple(stop)


def sampling_of(fields: Mapping[str, Any], config: Any) -> dict[str, Any]:
    """Convert the sampling fields to arguments of `generate`.

    The defaults are those of the model's generation_config.json, then those of OpenAI: sampling from all tokens.
    """
    defaults = config.to_diff_dict()
    chosen: dict[str, Any] = {
        argument: fields[name]
        for name, argument in {"min_tokens": "min_new_tokens", "repetition_penalty": "repetition_penalty"}.items()
        if name in fields
    }
    if "logit_bias" in fields:
        chosen["sequence_bias"] = [[[token], bias] for token, bias in fields["logit_bias"].items() if bias]
        if not chosen["sequence_bias"]:
            del chosen["sequence_bias"]
    usual = defaults.get("temperature")  # older releases write null into generation_config.json
    temperature = fields.get("temperature", 1.0 if usual is None else usual)
    if temperature < SMALLEST_TEMPERATURE:
        return {**chosen, "do_sample": False}
    top_k = fields.get("top_k", defaults.get("top_k") or 0)
    return {
        **chosen,
        "do_sample": True,
        "temperature": float(temperature),
        "top_p": float(fields.get("top_p", defaults.get("top_p") or 1.0)),
        "top_k": max(0, top_k),
        **{name: fields[name] for name in ("min_p", "typical_p") if name in fields},
    }
