"""`extended-dlc schema`."""

from __future__ import annotations

from pathlib import Path

import click

import extended_dlc


@click.command()
@click.option("--path", is_flag=True, help="Print where the file is, instead of what is in it.")
def schema(path: bool) -> None:
    """Print the JSON Schema of the app's settings, by which an editor completes and checks them.

    Name the file at the head of yours: "$schema" in JSON, "# yaml-language-server: $schema=…" in YAML.
    """
    file = Path(extended_dlc.__file__).parent / "app" / "settings.schema.json"
    click.echo(str(file) if path else file.read_text("utf-8"), nl=path)
