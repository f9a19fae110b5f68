"""The README: every command in it is run, here or in a place that is named here."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
from pathlib import Path
from typing import Any

import aws_cdk as cdk
import pytest
from aws_cdk import aws_iam as iam
from aws_cdk.assertions import Template

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text()

RUN_ELSEWHERE = {
    "make setup": ".ci/run",
    "make rehearse": ".ci/run",
    "make rehearse SCENARIO=tutorial": ".ci/run",
    "source .venv/bin/activate": "Makefile",
    "npx cdk bootstrap": "extended_dlc/rehearsal/stage.py",
    "npx cdk deploy --all": "extended_dlc/rehearsal/stage.py",
    "npx cdk destroy --all": "extended_dlc/rehearsal/stage.py",
    "make wheel": "tests/package/test_wheel.py",
    "pip install dist/*.whl": "tests/package/test_wheel.py",
}
"""Commands that CI runs as they stand, or whose words a test or the rehearsal puts together."""


def commands() -> list[str]:
    blocks = re.findall(r"```bash\n(.*?)```", README, re.DOTALL)
    return [line for block in blocks for line in block.strip().splitlines()]


WITH_SETTINGS = [command for command in commands() if " -c " in command]


def test_every_command_is_known_to_be_run_somewhere() -> None:
    assert set(commands()) == set(RUN_ELSEWHERE) | set(WITH_SETTINGS)
    assert len(WITH_SETTINGS) >= 3
    for command, file in RUN_ELSEWHERE.items():
        text = (ROOT / file).read_text()
        last = [word for word in command.split() if not word.startswith("-")][-1]
        assert last.split("/")[0] in text, f"{file} no longer runs '{command}'"


@pytest.mark.parametrize("command", WITH_SETTINGS)
def test_a_deployment_with_other_settings_synthesises(command: str, tmp_path: Path) -> None:
    """The command as it stands, with `synth` in the place of `deploy`: building and deploying is the rehearsal's."""
    words = shlex.split(command.replace("deploy --all", "synth"))
    assert words[:3] == ["npx", "cdk", "synth"]
    environment = {
        **os.environ,
        "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
        "CDK_OUTPUT": str(tmp_path),
        "AWS_EC2_METADATA_DISABLED": "true",
        "AWS_SHARED_CREDENTIALS_FILE": os.devnull,
        "CDK_DISABLE_CLI_TELEMETRY": "1",
    }
    done = subprocess.run([*words, "--quiet"], cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert (tmp_path / "EndpointStack.template.json").exists()


def test_the_construct_in_the_readme_synthesises_and_grants_its_caller() -> None:
    (block,) = re.findall(r"```python\n(.*?)```", README, re.DOTALL)
    names: dict[str, Any] = {}
    exec(block, names)
    app = cdk.App()
    other = cdk.Stack(app, "Caller", env=cdk.Environment(region="us-east-1"))
    caller = iam.Role(other, "Role", assumed_by=iam.AccountRootPrincipal())
    stack = names["Speech"](app, "Speech", caller=caller, env=cdk.Environment(region="us-east-1"))
    template = Template.from_stack(stack)
    template.resource_count_is("AWS::SageMaker::Endpoint", 2)
    template.resource_count_is("AWS::ECR::Repository", 1)
    assert "sagemaker:InvokeEndpoint" in str(Template.from_stack(other).to_json())


def test_the_construct_in_the_guide_synthesises() -> None:
    (block,) = re.findall(r"```python\n(.*?)```", (ROOT / "docs" / "constructs.md").read_text(), re.DOTALL)
    names: dict[str, Any] = {}
    exec(block, names)
    stack = names["Classifier"](cdk.App(), "Guide", env=cdk.Environment(region="us-east-1"))
    Template.from_stack(stack).resource_count_is("AWS::SageMaker::Endpoint", 1)


def test_every_file_and_heading_that_a_page_links_to_is_there() -> None:
    pages = [
        ROOT / "README.md",
        *(page for at in ("docs", "docker", "benchmarks") for page in (ROOT / at).rglob("*.md")),
    ]
    for page in pages:
        for link in re.findall(r"\]\(([^)\s]+)\)", page.read_text()):
            name, _, heading = link.partition("#")
            target = page.parent / name if name else page
            if "://" not in link:
                assert target.exists(), f"{page}: {link}"
                assert not heading or heading in headings(target), f"{page}: {link}"


def headings(page: Path) -> set[str]:
    """What GitHub calls the headings of a page in links."""
    titles = re.findall(r"^#+ (.+)$", page.read_text(), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for title in titles}
