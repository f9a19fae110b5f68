"""Checks environment variables: names that an image's server does not read, and values that it does not accept."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

from extended_dlc.facts._tables import did_you_mean, table
from extended_dlc.options._values import is_token

if TYPE_CHECKING:
    from extended_dlc.decisions.image import ImageDecision

OWN_PREFIX = "EXTENDED_DLC_"

ADAPTERS = "EXTENDED_DLC_ADAPTERS"
"""The variable that names adapters on the Hub, which requests may pick."""

_STOCK = re.compile(r"(MMS_|SAGEMAKER_MODEL_SERVER_|SAGEMAKER_TS_|SM_VLLM_|TS_)\w+")
"""Variables of multi-model-server, TorchServe and vLLM's entry point in AWS's images, which this server ignores."""

_INSTEAD = {
    "HF_MODEL_TRUST_REMOTE_CODE": "the model's trust_remote_code",
    "SAGEMAKER_MODEL_SERVER_TIMEOUT": "EXTENDED_DLC_ANSWER_SECONDS",
    "SAGEMAKER_MODEL_SERVER_WORKERS": "EXTENDED_DLC_BATCH_SIZE (one process batches all requests)",
    "MMS_DEFAULT_RESPONSE_TIMEOUT": "EXTENDED_DLC_ANSWER_SECONDS",
    "MMS_MAX_REQUEST_SIZE": "EXTENDED_DLC_MAX_BODY_MB",
    "TS_DEFAULT_RESPONSE_TIMEOUT": "EXTENDED_DLC_ANSWER_SECONDS",
    "TS_MAX_REQUEST_SIZE": "EXTENDED_DLC_MAX_BODY_MB",
}


def server_variables() -> Mapping[str, Mapping[str, Any]]:
    """The variables that this project's server reads, each with its valid values (`data/server_variables.json`)."""
    rows: list[Mapping[str, Any]] = table("server_variables")["variables"]
    return {row["variable"]: row for row in rows}


def adapters_named(value: str) -> Iterator[tuple[str, str, str | None]]:
    """The name, the Hub id and the revision of each adapter in the variable's value, which is not checked here."""
    for each in value.split(","):
        name, _, named = each.strip().rpartition("=")
        model_id, _, revision = named.partition("@")
        if model_id.strip():
            yield name, model_id.strip(), revision or None


def hub_adapters(environment: Mapping[str, str]) -> Mapping[str, tuple[str, str | None]]:
    """The adapters of the Hub that the variables name: name -> Hub id and revision; empty where a token names them."""
    value = environment.get(ADAPTERS, "")
    return {} if is_token(value) else {name: (model_id, at) for name, model_id, at in adapters_named(value)}


def check_variables(environment: Mapping[str, str], image: ImageDecision) -> None:
    """Refuse variables that the image's server is known not to read, and values that stop it at start."""
    if problems := list(_problems(environment, image)):
        raise ValueError("; ".join(problems))


def variable_notes(environment: Mapping[str, str], image: ImageDecision) -> Iterator[str]:
    """Notes on suspicious variables where the server is not known."""
    if image.kind not in ("ecr", "other"):
        return
    for name in environment:
        if name.startswith(OWN_PREFIX) and name not in server_variables():
            yield f"'{name}' is no variable of this project's server{did_you_mean(name, server_variables())}"


def _problems(environment: Mapping[str, str], image: ImageDecision) -> Iterator[str]:
    for name, value in environment.items():
        if image.is_native:
            yield from _for_ours(name, value)
        elif image.kind in ("extended", "stock") and name.startswith(OWN_PREFIX) and name in server_variables():
            server = "vLLM's server" if image.family == "vllm" else "AWS's server"
            if name != "EXTENDED_DLC_DTYPE" or image.family == "vllm":
                yield f"'{name}' is read by this project's server, and {server} answers here: remove it"


def _for_ours(name: str, value: str) -> Iterator[str]:
    known = server_variables()
    if name in _INSTEAD or _STOCK.fullmatch(name):
        instead = f": set {_INSTEAD[name]} instead" if name in _INSTEAD else ": remove it"
        yield f"'{name}' is read by AWS's servers, and this project's answers here{instead}"
    elif name.startswith(OWN_PREFIX) and name not in known:
        yield f"'{name}' is read by nobody{did_you_mean(name, known) or ': remove it'}"
    elif name in known and value.strip() and not is_token(value) and (rule := _broken(known[name], value.strip())):
        yield f"'{name}' ({value[:40]}) {rule}"


def _broken(row: Mapping[str, Any], value: str) -> str | None:
    """The rule that a value breaks; None if the server accepts the value."""
    match row["takes"]:
        case "whole number":
            least, most = row["least"], row["most"]
            if not re.fullmatch(r"[0-9]{1,9}", value) or not least <= int(value) <= most:
                return f"must be a whole number from {least} to {most}"
        case "yes or no":
            if value.lower() not in row["values"]:
                return "must be 'true' or 'false'"
        case "one of":
            if value not in row["values"]:
                return f"must be one of {', '.join(row['values'])}"
        case "adapters":
            parsed = [re.fullmatch(row["pattern"], one.strip(), re.ASCII) for one in value.split(",")]
            names = {one[1] for one in parsed if one}
            if len(names) < len(parsed) or len(names) > row["most"]:
                return (
                    f"must be at most {row['most']} adapters of different names, such as "
                    "'sql=someone/sql-lora, poems=someone/poems-lora@main'"
                )
        case "namespace":
            if not re.fullmatch(row["pattern"], value):
                return "must be a CloudWatch namespace: at most 255 letters, digits and . - _ / # :"
    return None
