"""What the package shows, and what importing it costs."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

import extended_dlc
from extended_dlc.app.described import described


def test_every_public_name_loads_and_is_declared_for_type_checkers() -> None:
    tree = ast.parse(Path(extended_dlc.__file__).read_text())
    declared = {
        alias.name
        for node in ast.walk(tree)
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("extended_dlc.")
        for alias in node.names
    }
    assert declared == set(extended_dlc.__all__)
    for name in extended_dlc.__all__:
        assert getattr(extended_dlc, name).__name__ == name


def test_every_option_says_what_it_is_and_what_it_is_by_default() -> None:
    read = 0
    for name, home in extended_dlc._HOMES.items():
        if isinstance(getattr(extended_dlc, name), type):
            for option in described(home, name):
                assert option.text, f"{name}.{option.name} has no text"
                assert option.required or "Default: " in option.text, f"{name}.{option.name} says no default"
                read += 1
    assert read > 300


def test_an_unknown_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="no attribute 'Nope'"):
        extended_dlc.Nope  # noqa: B018


@pytest.mark.parametrize(
    "module", ["extended_dlc", "extended_dlc.cli", "extended_dlc.facts.catalog", "extended_dlc.facts.checks"]
)
def test_facts_and_command_line_do_not_import_the_cdk(module: str) -> None:
    probe = f"import sys, {module}; sys.exit('aws_cdk' in sys.modules or 'boto3' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", probe], check=False).returncode == 0


def test_the_commands_of_the_command_line_do_not_import_the_cdk_at_start() -> None:
    probe = (
        "import sys; from click.testing import CliRunner; from extended_dlc.cli import main;"
        "result = CliRunner().invoke(main, ['--help']); assert result.exit_code == 0, result.output;"
        "sys.exit('aws_cdk' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", probe], check=False).returncode == 0
