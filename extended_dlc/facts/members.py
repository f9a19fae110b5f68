"""Each writable property of an endpoint's resources: the option that sets it, or why none does.

`python -m extended_dlc.facts.members > docs/members.md` writes the documentation.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass

from extended_dlc.facts._tables import table

RESOURCES = ("CfnModel", "CfnEndpointConfig", "CfnEndpoint", "CfnInferenceComponent")
"""The classes of `aws_cdk.aws_sagemaker` whose properties are listed."""


@dataclass(frozen=True, kw_only=True)
class Member:
    """One property of a resource or of one of its property types."""

    member: str
    """Such as `CfnModel.ContainerDefinition.environment`."""

    option: str | None = None
    """The option that sets it."""

    reason: str | None = None
    """Why no option sets it."""


@functools.cache
def members() -> tuple[Member, ...]:
    """All rows of the table."""
    return tuple(Member(**row) for row in table("members")["members"])


def listed() -> str:
    """The table as a page of the documentation."""
    lines = [
        "# What of SageMaker's resources can be set",
        "",
        "Each writable member of `CfnModel`, `CfnEndpointConfig`, `CfnEndpoint` and `CfnInferenceComponent` in",
        "`aws_cdk.aws_sagemaker`, and of their property types: the option that sets it, or why there is none. What is",
        "missing here can be set by `endpoint.config.add_property_override(…)`, as on any resource of the CDK.",
    ]
    for resource in RESOURCES:
        lines += ["", f"## {resource}", "", "| member | option, or why there is none |", "|---|---|"]
        for each in members():
            name = each.member.removeprefix(f"{resource}.")
            if name != each.member:
                lines.append(f"| `{name}` | {each.option or f'none: {each.reason}'} |")
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    print(listed(), end="")
