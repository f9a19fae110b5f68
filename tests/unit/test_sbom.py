"""`extended-dlc sbom`: what it writes is CycloneDX, by CycloneDX's own library, and what changed since is said."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner
from cyclonedx.schema import SchemaVersion
from cyclonedx.validation.json import JsonStrictValidator

from extended_dlc.cli import main
from extended_dlc.programs.build_image import SCOPE, property_of

IMAGE = "registry/text:cafe"


@pytest.fixture
def engine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A container engine whose one image has the packages of this Python, and logs a line at its start."""
    program = tmp_path / "engine"
    program.write_text(
        f"#!{sys.executable}\nimport os, sys\n"
        f"assert sys.argv[1:6] == ['run', '--rm', '--network=none', '--entrypoint=/bin/sh', {IMAGE!r}], sys.argv\n"
        f"os.environ['PATH'] = {str(Path(sys.executable).parent)!r} + os.pathsep + os.environ['PATH']\n"
        "print('the entry point of a base may print something', flush=True)\n"
        "os.execvp('sh', ['sh', *sys.argv[6:]])\n"
    )
    program.chmod(0o755)
    monkeypatch.setenv("CDK_DOCKER", str(program))
    return program


def test_the_bill_of_an_image_is_cyclonedx_and_lists_each_package_once(engine: Path, tmp_path: Path) -> None:
    done = CliRunner().invoke(main, ["sbom", IMAGE])
    assert done.exit_code == 0, done.output
    assert JsonStrictValidator(SchemaVersion.V1_6).validate_str(done.stdout) is None
    bill = json.loads(done.stdout)
    assert property_of(bill, "scope") == SCOPE
    assert property_of(bill, "python") == sys.version.split()[0]
    names = [each["name"] for each in bill["components"]]
    assert {"boto3", "aws-cdk-lib"} <= set(names)
    assert len(names) == len(set(names))
    earlier = tmp_path / "earlier.json"
    (boto3,) = [each for each in bill["components"] if each["name"] == "boto3"]
    now, boto3["purl"], boto3["version"] = boto3["version"], "pkg:pypi/boto3@1.0", "1.0"
    bill["components"] = [each for each in bill["components"] if each["name"] != "pydantic"]
    earlier.write_text(json.dumps(bill))
    file = tmp_path / "sbom.json"
    done = CliRunner().invoke(main, ["sbom", IMAGE, f"--output={file}", f"--since={earlier}"])
    assert (done.exit_code, f"{file}: {len(names)} packages of {IMAGE}" in done.output) == (0, True)
    assert f"packages since {IMAGE}: 1 changed, 1 added, 0 removed" in done.stderr
    assert f"  boto3 1.0 -> {now}" in done.stderr
    earlier.write_text("[]")
    done = CliRunner().invoke(main, ["sbom", IMAGE, f"--since={earlier}"])
    assert (done.exit_code, "is no bill of materials" in done.output) == (1, True)


def test_an_engine_that_says_no_is_quoted_with_the_way_out(engine: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    engine.write_text(f"#!{sys.executable}\nimport sys\nsys.exit('denied: no basic auth credentials')\n")
    done = CliRunner().invoke(main, ["sbom", IMAGE])
    assert done.exit_code == 1
    assert "denied: no basic auth" in done.output
    assert "extended-dlc login" in done.output
    engine.write_text(f"#!{sys.executable}\nprint('hello')\n")
    assert "does not list its packages" in CliRunner().invoke(main, ["sbom", IMAGE]).output
    monkeypatch.setenv("CDK_DOCKER", "/nowhere/docker")
    done = CliRunner().invoke(main, ["sbom", IMAGE])
    assert (done.exit_code, "name your engine in CDK_DOCKER" in done.output) == (1, True)
