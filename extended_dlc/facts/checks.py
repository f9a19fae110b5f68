"""Checks of values before anything is built or billed.

Each check returns nothing or raises a `ValueError` whose text completes "`<option>` (<value>) …": the broken rule, then
what to change. The app's settings and the constructs use the same checks.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

from extended_dlc.facts.limits import most

_MODEL_PART = re.compile(r"[A-Za-z0-9_]([A-Za-z0-9._-]*[A-Za-z0-9_])?")
_RELEASE = re.compile(r"\d+\.\d+\.\d+")
_ENDPOINT_NAME = re.compile(r"[a-zA-Z0-9](-*[a-zA-Z0-9]){0,62}")
_ENVIRONMENT_KEY = re.compile(r"[a-zA-Z_][a-zA-Z0-9_]*")
_HUB_TOKEN = re.compile(r"(?<![A-Za-z0-9])hf_[A-Za-z0-9]{16,}")
_TOKEN_KEYS = ("HF_TOKEN", "HF_API_TOKEN", "HUGGING_FACE_HUB_TOKEN")

MOST_TAGS = 50
"""The limit of tags on a resource (SageMaker API reference, AddTags; most services have the same)."""

_ALIASES = {"bloom": "bigscience/bloom-560m", "whisper": "openai/whisper-base"}


def model_id(name: str) -> str:
    """The Hub id of a name: `bloom` and `whisper` are aliases of the tutorial's models; other names are unchanged."""
    return _ALIASES.get(name, name)


def is_same_model(one: str, other: str) -> bool:
    """Whether two Hub ids are of one model: the Hub takes any case, and old models also without their namespace."""
    one, other = one.lower(), other.lower()
    if ("/" in one) == ("/" in other):
        return one == other
    return one.rpartition("/")[2] == other.rpartition("/")[2]


def rule_of_case(name: str, other: str) -> str:
    """Why two endpoints cannot have names that differ by case only (SageMaker API reference, CreateEndpoint)."""
    first, second = sorted((name, other))
    return f"is taken: '{first}' and '{second}' differ by case only, and SageMaker takes the two for one: rename one"


def holds_hub_token(text: str) -> bool:
    """Whether a text has a token of the Hub in it."""
    return _HUB_TOKEN.search(text) is not None


def check_model_id(text: str) -> None:
    """Refuse a text that is not a Hub id, `name` or `namespace/name` (huggingface_hub `validate_repo_id`)."""
    parts = text.split("/")
    well_formed = len(parts) <= 2 and all(_MODEL_PART.fullmatch(part) for part in parts)
    if not well_formed or len(text) > 96 or "--" in text or ".." in text or text.endswith(".git"):
        raise ValueError(
            "is not a Hub model id: write it as on the model's page, 'namespace/name', in letters, digits, '-', '_' "
            "and '.', at most 96 characters, without '--' and '..'"
        )


def check_commit(text: str) -> None:
    """Refuse a revision that is not a commit: only a commit always has the same files."""
    if not re.fullmatch(r"[0-9a-f]{40}", text):
        raise ValueError(
            "is not a commit, and the files of a tag or a branch can change after the copy: take the commit's 40 "
            "digits from the model's page"
        )


def check_release(text: str) -> None:
    """Refuse a release that is not exact: the same settings must give the same image."""
    if not _RELEASE.fullmatch(text):
        from extended_dlc.facts.releases import releases  # only needed for the message

        newest = next(reversed(releases()))
        way_out = f"write all three numbers, as '5.23.0'; the newest that is known here is '{newest}'"
        raise ValueError(f"is not an exact transformers release: {way_out}")


def check_endpoint_name(text: str) -> None:
    """Refuse a name that does not match the pattern of SageMaker's API."""
    if not _ENDPOINT_NAME.fullmatch(text):
        raise ValueError(
            "cannot be an endpoint name: use letters, digits and hyphens between them, at most 63 characters"
        )


def check_environment(environment: Mapping[str, str], *, reserved: Mapping[str, str]) -> None:
    """Refuse an environment that exceeds SageMaker's limits or contains a Hub token.

    `reserved` maps the variables that the caller sets itself to the option that sets them.
    """
    numbers = [key for key, value in environment.items() if not isinstance(value, str)]
    if numbers:
        raise ValueError(f"'{numbers[0]}' is a CDK token of a number: pass one of a text, as Token.as_string(…)")
    problems = []
    for key, value in environment.items():
        if not _ENVIRONMENT_KEY.fullmatch(key):
            problems.append(f"'{key}' cannot be the name of a variable: use letters, digits and '_', no digit first")
        if key in reserved:
            problems.append(f"'{key}' is set by {reserved[key]}: set it there")
        if key in _TOKEN_KEYS or holds_hub_token(value):
            # Of a reference, CloudFormation puts the token itself into the model.
            how = "would hold the" if "{{resolve:" in value or "${Token[" in value else "holds a literal"
            problems.append(
                f"'{key}' {how} Hub token, which everyone who may describe the model can read: remove it "
                "and revoke the token; a public model needs none, for others a secret holds it"
            )
        each = most("environment.bytes")
        if len(key.encode()) > each or len(value.encode()) > each:
            problems.append(f"'{key}' is over SageMaker's {each} bytes for a name or a value: shorten it")
    entries = most("environment.entries")
    if len(environment) + len(reserved) > entries:
        ours = f" with our {len(reserved)}" if reserved else ""
        problems.append(f"has {len(environment)} variables, SageMaker takes {entries}{ours}: remove some")
    total = sum(len(key.encode()) + len(value.encode()) for key, value in environment.items())
    if total > most("environment.total_bytes"):
        problems.append("is over SageMaker's 32 KB in total: move large values into the model or the image")
    if problems:
        raise ValueError("; ".join(problems))


def check_tags(tags: Mapping[str, str]) -> None:
    """Refuse tags that AWS refuses (AWS Tagging guide, "Tag naming limits and requirements"), or too many of them."""
    if len(tags) > MOST_TAGS:
        raise ValueError(f"has {len(tags)} tags, and AWS takes {MOST_TAGS} of a resource: remove some")
    for key, value in tags.items():
        if key.lower().startswith("aws:"):
            raise ValueError(f"has '{key[:40]}', and keys that begin with 'aws:' are AWS's own: rename it")
        if not 1 <= len(key) <= 128:
            raise ValueError(f"has '{key[:40]}', a key of {len(key)} characters, and AWS takes 1 to 128: change it")
        if len(value) > 256:
            raise ValueError(f"has '{key}', with a value of {len(value)} characters, and AWS takes 256: shorten it")
        if not all(re.fullmatch(r"[\w\s+\-=._:/@]*", text) for text in (key, value)):
            raise ValueError(f"has '{key}', and a tag takes letters, digits, spaces and + - = . _ : / @: change it")
