"""cdk-nag's findings in the library's constructs, each with the reason why it stays.

`python -m extended_dlc.facts.nag > docs/nag.md` writes the documentation.
"""

from __future__ import annotations

import fnmatch
import functools
from collections.abc import Iterable
from dataclasses import dataclass

from extended_dlc.facts._tables import table

PACKS = ("NIST.800.53.R5", "HIPAA.Security", "PCI.DSS.321")
"""The packs that use the same rule names."""


@dataclass(frozen=True, kw_only=True)
class Finding:
    """The findings in one resource of one construct."""

    of: str
    """The class of the construct; `Stack` for constructs that the library puts directly into the stack."""

    path: str
    """The resource's path below the construct, with `*` for any part of it."""

    rules: tuple[str, ...]
    """Names with the pack, such as `AwsSolutions-CB4`; names without a pack are of all `PACKS`. For a rule with several
    findings in a resource, brackets contain the findings' pattern, with `*` for any text; `=*` is a literal `*`."""

    reason: str

    def fits(self, of: str, path: str) -> bool:
        """Whether it applies to a resource of the construct."""
        return self.of == of and fnmatch.fnmatchcase(path, self.path)

    def ids(self, found: Iterable[str]) -> list[str]:
        """The ids of the rules, each with its pack, and with the resource's findings that the rules' patterns match.

        :param found: Findings such as `Resource::*`.
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
    """All rows of the table."""
    rows = table("nag")["findings"]
    return tuple(Finding(**{**row, "rules": tuple(row["rules"])}) for row in rows)


def listed() -> str:
    """The table as a page of the documentation."""
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
