"""`extended-dlc completion`."""

from __future__ import annotations

import click
from click.shell_completion import get_completion_class

SHELLS = ("bash", "zsh", "fish")


@click.command()
@click.argument("shell", type=click.Choice(SHELLS))
@click.pass_context
def completion(ctx: click.Context, shell: str) -> None:
    """Print what SHELL evaluates to complete commands and options with the Tab key.

    bash, in ~/.bashrc: eval "$(extended-dlc completion bash)". zsh, in ~/.zshrc after compinit: eval "$(extended-dlc
    completion zsh)". fish: extended-dlc completion fish > ~/.config/fish/completions/extended-dlc.fish.
    """
    made = get_completion_class(shell)
    if made is None:
        raise click.ClickException(f"click knows no completion for {shell}: update it (pip install -U click)")
    click.echo(made(ctx.find_root().command, {}, "extended-dlc", "_EXTENDED_DLC_COMPLETE").source())
