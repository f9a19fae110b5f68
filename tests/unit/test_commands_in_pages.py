"""Each command that a page shows is one that can be typed: it is parsed against the real command line."""

from __future__ import annotations

import json
import re
import shlex
from collections.abc import Iterator
from pathlib import Path

import click
import pytest
from botocore import xform_name
from botocore.session import Session

from extended_dlc.app.read import OVERRIDES
from extended_dlc.cli import main
from extended_dlc.facts._tables import did_you_mean
from extended_dlc.platform.settings import ImagesSettings

ROOT = Path(__file__).parents[2]
PAGES = sorted(
    [
        *(ROOT / name for name in ("README.md", "CONTRIBUTING.md", "SECURITY.md", "benchmarks/README.md")),
        *(ROOT / "docs").rglob("*.md"),
        *(ROOT / "docker").rglob("README.md"),
        *(ROOT / "examples").rglob("README.md"),
        *(ROOT / "extended_dlc" / "app" / "template").rglob("*.md"),
    ]
)
MAKEFILE = (ROOT / "Makefile").read_text()
TARGETS = set(re.findall(r"^([a-z-]+):", MAKEFILE, flags=re.MULTILINE))
PROGRAM_OF_TARGET = {
    "attack": "tests/attack/conftest.py",
    "bench": "benchmarks/serving.py",
    "clients": "tests/clients/__main__.py",
    "matrix": "benchmarks/matrix.py",
    "soak": "benchmarks/soak.py",
}
"""Which program gets a target's ARGS."""

COMMAND_OF_TARGET = {"doctor": "doctor", "rehearse": "rehearse", "smoke-aws": "smoke"}
CDK_OPTIONS = {
    *(
        "--all",
        "--app",
        "--force",
        "--parameters",
        "--role-arn",
        "--reset",
        "--hotswap",
        "--exclusively",
        "--quiet",
        "-c",
    ),
    *("--require-approval", "--no-rollback", "--outputs-file", "--context", "-q", "--no-previous-parameters"),
}
"""Options of the CDK's own command line that pages may name."""

AWS_OWN = {
    ("s3", "rm"),
    ("s3", "cp"),
    ("s3", "sync"),
    ("logs", "tail"),
    ("configure", "list-profiles"),
    ("sso", "login"),
}
"""What the AWS CLI has besides the operations of the services."""

OF_REQUESTS = {"clients", "fidelity", "openai", "parameters", "security", "smoke", "toolkit"}
"""Pages about requests and answers, not about settings."""

AWS_GLOBAL = {"region", "profile", "output", "query", "endpoint-url", "cli-binary-format", "recursive", "follow"}


def spoken(page: Path) -> Iterator[str]:
    """The commands of a page: lines of its code blocks, and code in its sentences."""
    text = re.sub(r"<!--.*?-->", "", page.read_text(), flags=re.DOTALL)
    for block in re.findall(r"^```(?:bash|console)?\n(.*?)^```", text, flags=re.DOTALL | re.MULTILINE):
        for line in re.sub(r"\\\n\s*", "", block).splitlines():
            yield from line.split(" && ")
    prose = re.sub(r"^```.*?^```", "", text, flags=re.DOTALL | re.MULTILINE)
    for code in re.findall(r"`([^`]+)`", prose):
        yield from " ".join(code.split()).split(" && ")


def commands(program: str) -> list[tuple[str, list[str]]]:
    """The arguments of each command of a program, with the page that shows it."""
    found = []
    for page in PAGES:
        for line in spoken(page):
            line = line.removeprefix("$ ").removeprefix(".venv/bin/")
            # "extended-dlc server 0.1.0 with …" is a line of the container's log
            if line.startswith(f"{program} ") and not line.startswith("extended-dlc server "):
                shown = re.sub(r"<[a-z][^>]*>", "PLACEHOLDER", re.sub(r"[\[\]]", " ", line).replace("…", "DOTS"))
                words = shlex.split(shown, comments=True)
                found.append((f"{page.relative_to(ROOT)}: {line}", words[1:]))
    return found


def is_placeholder(word: str) -> bool:
    return not re.search(r"[a-z]", word) or "DOTS" in word


def faults(words: list[str], command: click.Command = main) -> Iterator[str]:
    """What the command line would not take."""
    rest = list(words)
    while isinstance(command, click.Group) and rest and not rest[0].startswith("-"):
        name = rest.pop(0)
        if is_placeholder(name):
            return
        found = command.get_command(click.Context(command), name)
        if found is None:
            yield f"there is no command {name}{did_you_mean(name, command.list_commands(click.Context(command)))}"
            return
        command = found
    options = {name: each for each in command.params for name in (*each.opts, *each.secondary_opts)}
    options = {name: each for name, each in options.items() if name.startswith("-")}
    most = sum(1 if each.nargs > 0 else 99 for each in command.params if isinstance(each, click.Argument))
    given = 0
    while rest:
        word, _, value = rest.pop(0).partition("=")
        if word in (">", "|", "#", ";"):
            break
        if not re.match(r"--?[a-z]", word):
            given += 1
            continue
        option = options.get(word)
        if option is None:
            if word not in ("--help", "--version"):
                yield f"{command.name} has no option {word}{did_you_mean(word, list(options))}"
            continue
        if isinstance(option, click.Option) and not option.is_flag and not value and rest:
            value = rest.pop(0)
        choices = option.type.choices if isinstance(option.type, click.Choice) else ()
        if choices and value and not is_placeholder(value) and not set(value.split("|")) <= set(choices):
            yield f"{word} is never {value}"
    if given > most:
        yield f"{command.name} takes {most} arguments, and is given {given}"


def test_each_command_of_ours_has_the_commands_options_and_choices_that_pages_show() -> None:
    found = commands("extended-dlc")
    assert len(found) > 60
    assert [f"{where}: {fault}" for where, words in found for fault in faults(words)] == []


@pytest.mark.parametrize(
    ("line", "fault"),
    [
        ("plan --modle=x", "plan has no option --modle; did you mean '--model'?"),
        ("plann", "there is no command plann; did you mean 'plan'?"),
        ("rehearse --scenario play", "--scenario is never play"),
        ("lock a b", "lock takes 0 arguments, and is given 2"),
    ],
)
def test_what_cannot_be_typed_is_found(line: str, fault: str) -> None:
    assert list(faults(line.split())) == [fault]


def test_each_target_of_make_is_there_and_takes_what_pages_give_it() -> None:
    found = commands("make")
    assert len(found) > 20
    wrong = []
    for where, words in found:
        targets = [word for word in words if "=" not in word]
        wrong += [
            f"{where}: no target {name}" for name in targets if re.fullmatch(r"[a-z-]+", name) and name not in TARGETS
        ]
        for name, value in (word.split("=", 1) for word in words if "=" in word):
            if (
                f"$({name})" not in MAKEFILE
                and f"$(or $({name})," not in MAKEFILE
                and f"$(if $({name})" not in MAKEFILE
            ):
                wrong.append(f"{where}: no target looks at {name}")
            if name == "SCENARIO":
                wrong += [f"{where}: {fault}" for fault in faults(["rehearse", "--scenario", value])]
            if name == "ARGS" and targets[0] in COMMAND_OF_TARGET:
                region = ["REGION"] if targets[0] == "smoke-aws" else []
                given = [COMMAND_OF_TARGET[targets[0]], *region, *shlex.split(value)]
                wrong += [f"{where}: {fault}" for fault in faults(given)]
            if name == "ARGS" and targets[0] in PROGRAM_OF_TARGET:
                program = (ROOT / PROGRAM_OF_TARGET[targets[0]]).read_text()
                options = [word for word in shlex.split(value) if word.startswith("--")]
                wrong += [f"{where}: no option {word}" for word in options if f'"{word}"' not in program]
    assert wrong == []


def test_each_command_of_the_cdk_names_options_keys_and_files_that_are_there() -> None:
    found = [*commands("npx cdk"), *commands("cdk")]
    assert len(found) > 10
    wrong = []
    for where, words in found:
        for before, word in zip(["", *words], words, strict=False):
            if before in ("-c", "--context"):
                key, _, value = word.partition("=")
                is_ours = key in OVERRIDES or key == "settings" or ":" in key or is_placeholder(key)
                wrong += [] if is_ours else [f"{where}: the app has no key {key}"]
                if key == "settings" and "/" in value and not (ROOT / value).is_file():
                    wrong.append(f"{where}: there is no {value}")
            elif word.startswith("-") and word not in CDK_OPTIONS:
                wrong.append(f"{where}: {word} is not known of the CDK's command line")
    assert wrong == []


def test_each_operation_and_option_of_the_aws_cli_is_one_of_its_service() -> None:
    session = Session()
    found = commands("aws")
    assert len(found) >= 5
    wrong = []
    for where, (service, operation, *rest) in ((where, words) for where, words in found if len(words) > 1):
        if (service, operation) in AWS_OWN:
            continue
        model = session.get_service_model(service)
        names = {xform_name(name, "-"): name for name in model.operation_names}
        if operation not in names:
            wrong.append(f"{where}: {service} has no {operation}")
            continue
        shape = model.operation_model(names[operation]).input_shape
        members = {xform_name(name, "-") for name in shape.members} if shape else set()
        options = [word.removeprefix("--").partition("=")[0] for word in rest if re.match(r"--[a-z]", word)]
        wrong += [f"{where}: no option --{name}" for name in options if name not in members | AWS_GLOBAL]
    assert wrong == []


def test_each_key_of_settings_that_a_page_shows_is_one_of_the_schema() -> None:
    schemas = [
        json.loads((ROOT / "extended_dlc" / "app" / "settings.schema.json").read_text()),
        ImagesSettings.model_json_schema(),
    ]
    known = {"stack", *(key for schema in schemas for key in _keys(schema))}
    wrong, seen = [], 0
    # elsewhere such members are those of requests and answers
    for page in (each for each in PAGES if each.parent == ROOT / "docs" and each.stem not in OF_REQUESTS):
        for code in re.findall(r"`(\{?\"[^`]*\"\s*:[^`]*)`", page.read_text()):
            if "kind" not in code and not re.match(r'"[a-z_]+": ', code):
                continue
            for key in re.findall(r'"([\w-]+)"\s*:', code):
                seen += 1
                if key not in known:
                    wrong.append(f"{page.relative_to(ROOT)}: {code}: {key}")
    assert seen > 10
    assert wrong == []


def _keys(schema: object) -> Iterator[str]:
    if isinstance(schema, dict):
        properties = schema.get("properties")
        if isinstance(properties, dict):
            yield from properties
        for each in schema.values():
            yield from _keys(each)
    elif isinstance(schema, list):
        for each in schema:
            yield from _keys(each)
