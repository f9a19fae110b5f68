"""What cdk-nag finds in the library's own constructs, each with the reason why it stays.

`python -m extended_dlc.facts.nag > docs/nag.md` prints the list for people.
"""

from __future__ import annotations

import fnmatch
import functools
from collections.abc import Iterable
from dataclasses import dataclass

from extended_dlc.facts._tables import table

PACKS = ("NIST.800.53.R5", "HIPAA.Security", "PCI.DSS.321")
"""The packs that share the names of their rules."""


@dataclass(frozen=True, kw_only=True)
class Finding:
    """What is found in one resource of one construct."""

    of: str
    """The class of the construct; `Stack` for what the library puts into the stack of its constructs."""

    path: str
    """The resource's path below the construct, with `*` for any part of it."""

    rules: tuple[str, ...]
    """With the pack in front, as `AwsSolutions-CB4`; without, as those of `PACKS`. Of a rule that has several findings
    in a resource those that fit what is in brackets, with `*` for any text; `=*` is an asterisk alone."""

    reason: str

    def fits(self, of: str, path: str) -> bool:
        """Whether it is about a resource."""
        return self.of == of and fnmatch.fnmatchcase(path, self.path)

    def ids(self, found: Iterable[str]) -> list[str]:
        """The ids of the rules, each with its pack, and of those of the findings in a resource that the rules name.

        :param found: As `Resource::*`.
        """
        ids: list[str] = []
        for rule in self.rules:
            name, has_findings, pattern = rule.removesuffix("]").partition("[")
            if has_findings:
                ids += [f"{name}[{each}]" for each in found if _names(pattern, each)]
            else:
                ids += [name] if "-" in name else [f"{pack}-{name}" for pack in PACKS]
        return ids


def _names(pattern: str, finding: str) -> bool:
    kind, _, text = pattern.partition("::")
    if text.startswith("="):
        return finding == f"{kind}::{text[1:]}"
    return finding != f"{kind}::*" and fnmatch.fnmatchcase(finding, pattern)


@functools.cache
def findings() -> tuple[Finding, ...]:
    """All of them."""
    rows = table("nag")["findings"]
    return tuple(Finding(**{**row, "rules": tuple(row["rules"])}) for row in rows)


def listed() -> str:
    """The list as a page of the documentation."""
    lines = [
        "# What cdk-nag finds, and why it stays",
        "",
        "`acknowledge_nag(app)` tells cdk-nag of these, in constructs of this library alone: by the resource's path",
        "and by the rule. What is found in your own constructs stays found. A rule without a pack is that of NIST",
        "800-53 R5, HIPAA and PCI DSS 3.2.1; brackets say which findings of a rule, with `*` for any text and `=*`",
        "for `*` alone.",
        "",
        "| in | resource | rules | why |",
        "|---|---|---|---|",
    ]
    for each in findings():
        rules = ", ".join(f"`{rule}`" for rule in each.rules)
        lines.append(f"| `{each.of}` | `{each.path}` | {rules} | {each.reason} |")
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    print(listed(), end="")
