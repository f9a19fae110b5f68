"""Groups of commands, which print errors in this project's format and suggest the nearest command."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import Any

import click

from extended_dlc.cli.exit_codes import FAILED, STOPPED
from extended_dlc.facts._tables import did_you_mean


class CommandNeeded(click.ClickException):
    """An error whose way out is one command, which is printed in one piece to be copied."""

    def __init__(self, message: str, command: str) -> None:
        """The error, and the command to type."""
        super().__init__(message)
        self.command = command


class Group(click.Group):
    """A group that suggests the nearest command for an unknown one."""

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """The command of these arguments; a usage error with the nearest name if there is none."""
        try:
            return super().resolve_command(ctx, args)
        except click.UsageError:
            known = self.list_commands(ctx)
            way_out = did_you_mean(args[0], known) or f": there are {', '.join(known)}"
            raise click.UsageError(f"there is no command '{args[0][:50]}'{way_out}", ctx) from None


class Main(Group):
    """The group of all commands, which ends with the exit statuses of `extended_dlc.cli.exit_codes`."""

    def main(  # type: ignore[override]  # click has an overload for each value of standalone_mode
        self, args: Sequence[str] | None = None, prog_name: str | None = None, standalone_mode: bool = True, **more: Any
    ) -> Any:
        """Run a command; its errors go to standard error, wrapped and in colour where that is a terminal."""
        if not standalone_mode:
            return super().main(args, prog_name, standalone_mode=False, **more)
        try:
            status = super().main(args, prog_name, standalone_mode=False, **more)
        except click.exceptions.NoArgsIsHelpError as error:
            error.show()
            sys.exit(error.exit_code)
        except click.ClickException as error:
            _show(error)
            sys.exit(error.exit_code)
        except click.Abort as error:
            stopped = isinstance(error.__cause__, KeyboardInterrupt)
            click.echo("stopped" if stopped else "nothing was done", err=True)
            sys.exit(STOPPED if stopped else FAILED)
        sys.exit(status if isinstance(status, int) else 0)


def _show(error: click.ClickException) -> None:
    from extended_dlc.terminal import Screen

    screen = Screen(err=True)
    if isinstance(error, click.UsageError) and error.ctx is not None:
        screen.line(error.ctx.get_usage())
        screen.line(f"Try '{error.ctx.command_path} --help' for help.", "quiet")
        screen.line()
    screen.error(error.format_message())
    if isinstance(error, CommandNeeded):
        screen.line(f"  {error.command}", hang=None)
