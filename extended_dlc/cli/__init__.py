"""The command line: `extended-dlc COMMAND`.

Each command's module is imported when the command is called, so that no command loads another's libraries.
"""

from __future__ import annotations

from importlib import import_module

import click

import extended_dlc
from extended_dlc.cli._groups import Main

_COMMANDS = (
    "ask",
    "catalog",
    "check",
    "completion",
    "doctor",
    "init",
    "login",
    "lock",
    "lookup",
    "plan",
    "prepare",
    "rehearse",
    "sbom",
    "schema",
    "smoke",
    "token",
    "train",
)


class _Commands(Main):
    """The commands: each is a function in a module of the same name."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(_COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in _COMMANDS:
            return None
        command: click.Command = getattr(import_module(f"extended_dlc.cli.{cmd_name}"), cmd_name)
        return command


@click.group(cls=_Commands, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 120})
@click.version_option(extended_dlc.__version__, prog_name="extended-dlc")
def main() -> None:
    """Extend an AWS Deep Learning Container and deploy any Hugging Face Hub model with it."""
