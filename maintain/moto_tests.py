"""Runs moto's own tests for SageMaker, CloudFormation and ECR against the embedded AWS: `make moto-tests`.

The tests are those of the installed release, from its source distribution on PyPI, in .cache/moto-tests; nothing of
them is in this repository. They run in moto's server mode, with the embedded AWS as the server. Where it differs from
moto on purpose, a test of moto fails: `moto_differences.json` has each such test in a group with its reason and with
words of the failure. A failure that is in no group, one with other words, and a named test that passes are faults.

    python -m maintain.moto_tests [--only EXPRESSION] [--write FILE]
"""

from __future__ import annotations

import argparse
import importlib.metadata
import json
import os
import re
import shutil
import subprocess
import sys
import tarfile
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from extended_dlc.rehearsal.processes import Servers

LISTED = Path(__file__).with_name("moto_differences.json")
CACHE = Path(__file__).parents[1] / ".cache" / "moto-tests"

FILES = (
    "tests/test_cloudformation/test_cloudformation_depends_on.py",
    "tests/test_cloudformation/test_cloudformation_multi_accounts.py",
    "tests/test_cloudformation/test_cloudformation_nested_stacks.py",
    "tests/test_cloudformation/test_cloudformation_stack_crud.py",
    "tests/test_cloudformation/test_cloudformation_stack_integration.py",
    "tests/test_cloudformation/test_cloudformation_stack_policies.py",
    "tests/test_cloudformation/test_conditions.py",
    "tests/test_cloudformation/test_import_value.py",
    "tests/test_cloudformation/test_validate.py",
    "tests/test_ecr/test_ecr.py",
    "tests/test_ecr/test_ecr_cloudformation.py",
    "tests/test_ecr/test_ecr_layers.py",
    "tests/test_ecr/test_ecr_scanning_config.py",
    "tests/test_ecr/test_list_images_filters.py",
    "tests/test_sagemaker",
)
"""The tests of the three folders, without those of moto's own parts, of findings that a test puts in on another port,
and of custom resources, whose functions moto runs in Docker."""

ADAPTED = (
    (r"\"test_stack(\w*)\"", lambda found: f'"test-stack{found[1].replace("_", "-")}"'),
    (r"test_stack(?=-Event)", lambda found: "test-stack"),
    (r"non_existent_stack", lambda found: "non-existent-stack"),
    (r"test_stack(_?\w*)(?=[/'}\"{])", lambda found: f"test-stack{found[1].replace('_', '-')}"),
    (r"(resource_name\})_stack", lambda found: f"{found[1]}-stack"),
    (r"(?<=[\"'])update_stack_\w+(?=[\"'-])", lambda found: found[0].replace("_", "-")),
    (r"(StackName=\")(\w+)\"", lambda found: f'{found[1]}{found[2].replace("_", "-")}"'),
    (r"s3://MyBucket/", lambda found: "s3://my-bucket/"),
    (r"s3://output-bucket", lambda found: "s3://my-bucket"),
    (
        r"arn:aws:sagemaker:[^:\"]+:000000000000:(?:x-x/(?:foobar|barfoo)|training-job/blah)(?:-\{i\}|2)?",
        lambda found: "arn:aws:iam::123456789012:role/FakeRole",
    ),
    (r"\.ecr\.us-east-2\.", lambda found: ".ecr.us-east-1."),
)
"""What is written otherwise in the copy that runs, because AWS takes no such names; what the tests ask is the same."""

_PLUGIN = Path(__file__).with_name("outcomes_of_moto_tests.py")


@dataclass(frozen=True, kw_only=True)
class Group:
    """Tests of moto that fail for one reason."""

    reason: str
    words: str
    """A part of each failure's message."""

    tests: list[str]


def groups() -> list[Group]:
    """The named differences."""
    return [Group(**each) for each in json.loads(LISTED.read_text())]


def faults(outcomes: Mapping[str, str | None], named: list[Group], *, all_ran: bool) -> Iterator[str]:
    """What the groups and the outcomes of the tests do not agree on."""
    group_of = {test: group for group in named for test in group.tests}
    if len(group_of) < sum(len(group.tests) for group in named):
        yield "a test is in two groups"
    for test, failure in sorted(outcomes.items()):
        group = group_of.get(test)
        if failure is not None and group is None:
            yield f"{test} fails, and is no named difference: {failure[:300]}"
        elif failure is not None and group is not None and group.words not in failure:
            yield f"{test} fails otherwise than named ('{group.words}'): {failure[:300]}"
        elif failure is None and group is not None:
            yield f"{test} passes, and is named a difference: {group.reason}"
    for test in sorted(set(group_of) - set(outcomes)) if all_ran else ():
        yield f"{test} is named a difference, and is no test of moto's"


def fetch() -> Path:
    """The folder with moto's tests, and with what they import beside moto."""
    version = importlib.metadata.version("moto")
    folder = CACHE / f"moto-{version}"
    if not (folder / "tests").is_dir():
        CACHE.mkdir(parents=True, exist_ok=True)
        pip = [sys.executable, "-m", "pip"]
        download = ["download", "--quiet", "--no-deps", "--no-binary=moto", f"--dest={CACHE}", f"moto=={version}"]
        subprocess.run([*pip, *download], check=True)  # noqa: S603 - own arguments
        with tarfile.open(CACHE / f"moto-{version}.tar.gz") as archive:
            archive.extractall(CACHE, filter="data")
    if not (CACHE / "site").is_dir():
        install = [sys.executable, "-m", "pip", "install", "--quiet", f"--target={CACHE / 'site'}", "freezegun"]
        subprocess.run(install, check=True)  # noqa: S603 - own arguments
    return folder


def run(moto: Path, only: str) -> dict[str, str | None]:
    """The tests that ran, with the failure of each that failed."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        servers = Servers(folder / "state")
        port = servers.port("aws")
        url = f"http://localhost:{port}"
        options = (f"--state={folder / 'state'}", f"--port={port}")
        servers.start("aws", "extended_dlc.rehearsal.embedded", *options, ready=f"{url}/v2/")
        try:
            return _outcomes(moto, folder, url, only)
        finally:
            servers.stop()


def _copy(moto: Path, folder: Path) -> None:
    """Copy what the tests need, with names that AWS takes."""
    for name in ("__init__.py", "conftest.py", "markers.py", *(f"test_{each}" for each in _FOLDERS)):
        source, target = moto / "tests" / name, folder / "tests" / name
        if source.is_dir():
            shutil.copytree(source, target)
        else:
            target.parent.mkdir(exist_ok=True)
            shutil.copy(source, target)
    for file in (folder / "tests").rglob("*.py"):
        text = file.read_text()
        for pattern, written in ADAPTED:
            text = re.sub(pattern, written, text)
        file.write_text(text)


_FOLDERS = ("cloudformation", "ecr", "sagemaker")


def _outcomes(moto: Path, folder: Path, url: str, only: str) -> dict[str, str | None]:
    record, blobs = folder / "outcomes.jsonl", folder / "state" / "blobs" / "sha256"
    record.touch()
    shutil.copy(_PLUGIN, folder)
    _copy(moto, folder)
    environment = {
        **os.environ,
        "TEST_SERVER_MODE": "true",
        "TEST_SERVER_MODE_ENDPOINT": url,
        "AWS_DEFAULT_REGION": "us-east-1",
        "MOTO_TESTS_URL": url,
        "MOTO_TESTS_OUTCOMES": str(record),
        "MOTO_TESTS_BLOBS": str(blobs),
        "PYTHONPATH": os.pathsep.join([str(folder), str(CACHE / "site")]),
    }
    arguments = ["-q", "--tb=no", "-p", "no:cacheprovider", "-p", _PLUGIN.stem, "-o", "addopts="]
    arguments += ["--continue-on-collection-errors", *(["-k", only] if only else [])]
    command = [sys.executable, "-m", "pytest", *arguments, *FILES]
    done = subprocess.run(command, cwd=folder, env=environment, check=False)  # noqa: S603 - own arguments
    outcomes: dict[str, str | None] = {}
    for line in record.read_text().splitlines():
        test, failure = json.loads(line)
        outcomes[test] = failure or outcomes.get(test)
    if not outcomes:
        raise SystemExit(f"no test of moto's ran: pytest ended with {done.returncode}")
    return outcomes


def main() -> int:
    """Run the tests, and compare their failures with the named differences."""
    parser = argparse.ArgumentParser(prog="python -m maintain.moto_tests", description="moto's tests, against ours")
    parser.add_argument("--only", default="", help="pytest's -k")
    parser.add_argument("--write", type=Path, help="file for the failures as JSON")
    options = parser.parse_args()
    outcomes = run(fetch(), options.only)
    failed = {test: failure for test, failure in outcomes.items() if failure is not None}
    if options.write:
        options.write.write_text(json.dumps(failed, indent=1, sort_keys=True))
    found = list(faults(outcomes, groups(), all_ran=not options.only))
    print("\n".join(found))
    print(f"{len(outcomes)} tests of moto's, {len(failed)} differ, {len(found)} faults")
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
