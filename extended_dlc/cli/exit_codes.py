"""The exit statuses of commands: one table, which the commands, docs/exit-codes.md and a test read."""

from __future__ import annotations

from dataclasses import dataclass

OK = 0
FAILED = 1
USAGE = 2
LEFT = 3
STOPPED = 130


@dataclass(frozen=True, kw_only=True)
class Status:
    """One exit status."""

    code: int
    name: str
    meaning: str
    commands: str
    """Details for single commands."""


STATUSES = (
    Status(
        code=OK,
        name="done",
        meaning="The command did what it was asked, or found nothing wrong.",
        commands="`doctor`: something may be unknown. `prepare` and `login` always end so: a synth follows.",
    ),
    Status(
        code=FAILED,
        name="failed",
        meaning="Something is wrong, or a value is refused; the last lines say what, and what to do.",
        commands="`plan`: `cdk synth` would refuse the settings. `check`: the release is known not to do. "
        "`doctor`: there is a problem. `catalog search`, `catalog list`: nothing was found. `ask`: no answer. `train`: "
        "the run failed, or the gate refused the model. `rehearse`, `smoke`: a step failed, and nothing is left.",
    ),
    Status(
        code=USAGE,
        name="wrong usage",
        meaning="The command line cannot be read: an option or argument is missing, unknown, or none of its choices; "
        "nothing was done.",
        commands="",
    ),
    Status(
        code=LEFT,
        name="something is left",
        meaning="`smoke` alone: something that costs is left in the account; the message names it.",
        commands="`extended-dlc smoke REGION --destroy` removes it.",
    ),
    Status(
        code=STOPPED,
        name="stopped",
        meaning="Ctrl-C or SIGTERM ended the command, which took down what it had started.",
        commands="`train`: the run on AWS may go on; the message says so.",
    ),
)


def page() -> str:
    rows = [f"| {each.code} | {each.name} | {each.meaning} | {each.commands} |" for each in STATUSES]
    return "\n".join(
        [
            "# Exit codes",
            "",
            "Generated from `extended_dlc/cli/exit_codes.py` by `make docs`; change it there.",
            "",
            "Every command of `extended-dlc` ends with one of these:",
            "",
            "| status | | what it says | more |",
            "|---|---|---|---|",
            *rows,
            "",
            "With `--json` a command prints one JSON document on standard output whatever its status, and says",
            "everything else on standard error.",
            "",
        ]
    )
