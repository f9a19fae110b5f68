"""Groups of commands, which print errors in this project's format and suggest the nearest command."""

from __future__ import annotations

import errno
import json
import os
import sys
from collections.abc import Sequence
from contextlib import suppress
from typing import Any, NoReturn

import click

from extended_dlc.cli.exit_codes import FAILED, STOPPED
from extended_dlc.facts._tables import did_you_mean
from extended_dlc.running import signals_end_as_ctrl_c


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
        """Run a command; its errors go to standard error, wrapped and in colour where that is a terminal.

        With --json, an error is a JSON document on standard output, too.
        """
        if not standalone_mode:
            return super().main(args, prog_name, standalone_mode=False, **more)
        words = list(sys.argv[1:] if args is None else args)
        try:
            with signals_end_as_ctrl_c():
                status = super().main(args, prog_name, standalone_mode=False, **more)
        except click.exceptions.NoArgsIsHelpError as error:
            error.show()
            sys.exit(error.exit_code)
        except click.ClickException as error:
            self._fail(error, words)
        except OSError as error:
            _drop_unwritten()
            self._fail(click.ClickException(_words(error)), words)
        except click.Abort as error:
            why = error.__cause__ or error.__context__  # click hides what ended a question
            stopped = isinstance(why, KeyboardInterrupt)
            if why is not None and error.__cause__ is None:
                click.echo(err=True)  # the question's line is not ended
            said = "stopped" if stopped else "nothing was done"
            click.echo(said, err=True)
            self._answer(words, status=said if stopped else "failed", error=said)
            sys.exit(STOPPED if stopped else FAILED)
        sys.exit(status if isinstance(status, int) else 0)

    def _fail(self, error: click.ClickException, words: Sequence[str]) -> NoReturn:
        _show(error)
        self._answer(words, status="failed", error=error.format_message())
        sys.exit(error.exit_code)

    def _answer(self, words: Sequence[str], **content: str) -> None:
        """Print a JSON document where the command was called with the flag --json."""
        command: click.Command | None = self
        context = click.Context(self)
        rest = iter(words)
        while isinstance(command, click.Group) and (name := next(rest, None)) is not None:
            command = command.get_command(context, name)
        flags = [each for each in (command.params if command else ()) if "--json" in each.opts]
        if flags and getattr(flags[0], "is_flag", False) and "--json" in rest:
            with suppress(OSError):  # which may be what the error is about
                click.echo(json.dumps(content, ensure_ascii=False))


def _drop_unwritten() -> None:
    """Where standard output takes nothing, Python is not to try again when it ends."""
    try:
        sys.stdout.flush()
    except OSError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _words(error: OSError) -> str:
    """What was wrong with which file."""
    reason = error.strerror or str(error)
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        reason += ": free some, and run the command again"
    return f"{error.filename}: {reason[:1].lower()}{reason[1:]}" if error.filename else reason


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
