"""The command line: `extended-dlc COMMAND`.

Each command's module is imported when the command is called, so that no command loads another's libraries.
"""

from __future__ import annotations

from importlib import import_module

import click

import extended_dlc
from extended_dlc.cli._groups import Main

_SECTIONS = {
    "Begin": {
        "init": "Write a new project: an app, its settings, a test.",
        "rehearse": "Deploy an app on this machine, with no AWS account.",
    },
    "Choose": {
        "plan": "Show what cdk deploy would do, and why.",
        "check": "Tell what a model needs: releases, image, instances.",
        "lookup": "Ask the Hugging Face Hub about a model.",
        "catalog": "List and search the images of AWS to extend.",
        "schema": "Print the JSON Schema of the settings.",
    },
    "Deploy": {
        "doctor": "Find what would stop a deployment, and the way out.",
        "login": "Log in to the registry of the base image.",
        "prepare": "Look up models and log in, before each synth.",
        "lock": "Pin what the image installs, with hashes.",
        "sbom": "List the packages in an image.",
        "smoke": "Deploy to AWS, ask, destroy. This costs money.",
    },
    "Use": {
        "ask": "Ask an endpoint, and print its answer as it comes.",
        "token": "Print an address and a key for OpenAI's clients.",
        "train": "Start a training, and follow it to its end.",
    },
    "More": {"completion": "Print the completion script of a shell."},
}
"""The commands by what they are for, each in words that fit on a line of 80 columns."""

_COMMANDS = {name: what for section in _SECTIONS.values() for name, what in section.items()}


class _Commands(Main):
    """The commands: each is a function in a module of the same name."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return sorted(_COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in _COMMANDS:
            return None
        command: click.Command = getattr(import_module(f"extended_dlc.cli.{cmd_name}"), cmd_name)
        command.short_help = _COMMANDS[cmd_name]
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the commands by what they are for; no module of a command is loaded for it."""
        for title, section in _SECTIONS.items():
            with formatter.section(title):
                formatter.write_dl([(f"{name:10}", what) for name, what in section.items()])


@click.group(cls=_Commands, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 120})
@click.version_option(extended_dlc.__version__, prog_name="extended-dlc")
def main() -> None:
    """Extend an AWS Deep Learning Container and deploy any Hugging Face Hub model with it."""
