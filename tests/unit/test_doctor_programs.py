"""`extended-dlc doctor` and the programs that `cdk deploy` runs: Python, Node.js, the CDK CLI."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest

from extended_dlc.app.new_project import NewProject
from extended_dlc.doctor import Target, tools
from tests.support.doctor import (
    ROOT,
    Programs,
    app,
    assert_ok,
    assert_problem,
    assert_unknown,
    says,
    target,
)


def cdk_json(folder: Path, app: str) -> Target:
    (folder / "cdk.json").write_text(json.dumps({"app": app}))
    return target(folder)


def test_python_with_the_cdk_library_is_fine(tmp_path: Path) -> None:
    assert_ok(tools.python(cdk_json(tmp_path, f"{sys.executable} app.py")), r"^3\.\d+\.\d+ with aws-cdk-lib$")


def test_python_that_is_too_old_is_named(tmp_path: Path, path: Programs) -> None:
    path("python3", "print('3.9.18 True')")
    assert_problem(
        tools.python(cdk_json(tmp_path, "python3 app.py")),
        r"is Python 3\.9\.18, too old: 3\.10",
        r"install Python 3\.10",
    )


def test_a_python_of_another_age_altogether_is_named(tmp_path: Path, path: Programs) -> None:
    path("python", "sys.exit('ImportError: No module named util')")
    assert_problem(
        tools.python(cdk_json(tmp_path, "python app.py")), "not a Python that works .*No module", r"Python 3\.10"
    )


def test_a_virtual_environment_that_was_not_activated_is_named(tmp_path: Path, path: Programs) -> None:
    path("python3", "print('3.12.1 False')")
    (tmp_path / "Makefile").touch()
    assert_problem(
        tools.python(cdk_json(tmp_path, "python3 app.py")), "has no aws-cdk-lib", r"source \.venv/bin/activate"
    )
    (tmp_path / "Makefile").unlink()
    assert_problem(tools.python(cdk_json(tmp_path, "python3 app.py")), "has no aws-cdk-lib", "install -r requirements")


def test_no_python_on_the_path_is_named_and_another_starter_is_unknown(tmp_path: Path, path: Programs) -> None:
    assert_problem(tools.python(cdk_json(tmp_path, "python3 app.py")), "there is no python3", "install Python")
    assert_unknown(tools.python(cdk_json(tmp_path, "poetry run python app.py")), "started by poetry")


@pytest.mark.parametrize(("release", "old"), [("v20.0.0", True), ("v22.1.0", False), ("v24.11.1", False)])
def test_a_node_that_works_is_fine_and_an_old_one_is_said_in_one_line(
    tmp_path: Path, path: Programs, release: str, old: bool
) -> None:
    path("node", says(__version=release).replace("__version", "--version"))
    assert_ok(tools.node(target(tmp_path)), f"{release}; it is past its end of life" if old else release)
    said = "Node.js 20 is past its end of life: install Node.js 22 or newer (https://nodejs.org), then: node --version"
    assert tools.old_node() == (said if old else None)


def test_an_old_node_and_none_are_named(tmp_path: Path, path: Programs) -> None:
    assert_problem(tools.node(target(tmp_path)), r"there is no Node\.js", r"install Node\.js 22")
    path("node", "print('v18.20.4')")
    assert_problem(tools.node(target(tmp_path)), r"v18\.20\.4 is too old", r"install Node\.js 22")


def test_the_cli_that_this_checkout_pins_is_fine() -> None:
    if not (ROOT / "node_modules" / ".bin" / "cdk").exists():
        pytest.skip("the CDK CLI is not installed: run `make setup`")
    assert_ok(tools.cdk(target(ROOT)), r"^2\.\d+\.\d+$")


@pytest.mark.parametrize(
    ("printed", "problem"),
    [
        ("3.0.0 (build 4f3efd4)", r"3\.0\.0 was published by accident .*#38113"),
        ("2.1147.9 (build abc)", r"2\.1147\.9, older than 2\.1148\.1, which package\.json pins"),
        ("1.204.0 (build abc)", r"1\.204\.0, and the app is made for 2\.x"),
    ],
)
def test_a_wrong_cli_is_named_in_node_modules_and_on_the_path(
    tmp_path: Path, path: Programs, printed: str, problem: str
) -> None:
    path("cdk", f"print({printed!r})", into=tmp_path / "node_modules" / ".bin")
    assert_problem(tools.cdk(app(tmp_path)), problem, "^npm ci$")
    path("cdk", f"print({printed!r})")
    assert_problem(tools.cdk_on_path(app(tmp_path)), problem, r"npx cdk.*npm install --global aws-cdk@2\.1148\.1")


def test_a_newer_cli_of_the_same_major_is_fine(tmp_path: Path, path: Programs) -> None:
    path("cdk", "print('2.1200.0 (build abc)')")
    assert_ok(tools.cdk_on_path(app(tmp_path)), r"2\.1200\.0")


def test_no_cli_is_a_problem_in_node_modules_alone(tmp_path: Path, path: Programs) -> None:
    assert_problem(tools.cdk(app(tmp_path)), "no CDK CLI in node_modules", "^npm ci$")
    assert_ok(tools.cdk_on_path(app(tmp_path)), "^none")


def test_in_a_new_project_the_cli_that_it_pins_is_installed(tmp_path: Path, path: Programs) -> None:
    NewProject().write(tmp_path / "new")
    assert_problem(tools.cdk(target(tmp_path / "new")), "no CDK CLI in node_modules", "^npm install$")


def test_in_a_folder_that_pins_none_the_one_on_the_path_decides(tmp_path: Path, path: Programs) -> None:
    assert_problem(tools.cdk(target(tmp_path)), "no CDK CLI", "npm install aws-cdk@2")
    path("cdk", "print('2.1000.0 (build abc)')")
    assert_ok(tools.cdk(target(tmp_path)), "see cdk-on-path")
    assert_ok(tools.cdk_on_path(target(tmp_path)), r"2\.1000\.0")
