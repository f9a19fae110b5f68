"""The pages for newcomers and the files of GitHub: what they say can be run."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import yaml
from aws_cdk import App, Environment, Stack
from aws_cdk import aws_secretsmanager as secretsmanager
from aws_cdk.assertions import Template

import extended_dlc

ROOT = Path(__file__).parents[2]
WORKFLOWS = sorted((ROOT / ".github" / "workflows").glob("*.yml"))
BASE = (
    "763104351884.dkr.ecr.us-east-1.amazonaws.com/huggingface-pytorch-inference"
    ":1.10.2-transformers4.17.0-cpu-py38-ubuntu20.04"
)


def test_the_code_of_the_migration_page_synthesises() -> None:
    stack = Stack(App(), "Migrated", env=Environment(region="us-east-1"))
    names: dict[str, Any] = {name: getattr(extended_dlc, name) for name in extended_dlc.__all__}
    names |= {"self": stack, "secretsmanager": secretsmanager, "BASE": BASE, "COMMIT": "a" * 40}
    blocks = re.findall(r"```python\n(.*?)```", (ROOT / "docs" / "migration.md").read_text(), flags=re.DOTALL)
    assert len(blocks) == 3
    for block in blocks:
        exec(block, names)  # our own page
    Template.from_stack(stack).resource_count_is("AWS::SageMaker::Endpoint", 4)


def test_workflows_pin_actions_by_commit_take_no_rights_and_call_what_there_is() -> None:
    targets = set(re.findall(r"^([a-z./-]+):", (ROOT / "Makefile").read_text(), flags=re.MULTILINE))
    assert len(WORKFLOWS) == 4
    for file in WORKFLOWS:
        workflow = yaml.safe_load(file.read_text())
        assert workflow["permissions"] == {}
        for job in workflow["jobs"].values():
            assert "timeout-minutes" in job
            for step in job["steps"]:
                if "uses" in step:
                    assert re.fullmatch(r"[\w-]+/[\w-]+@[0-9a-f]{40}", step["uses"]), step
                called = re.findall(r"^make ([a-z./ -]+)$", step.get("run", ""))
                assert all(target in targets for line in called for target in line.split()), step


def test_the_links_of_the_pages_lead_somewhere() -> None:
    for page in ("migration", "cost", "security", "platform"):
        text = (ROOT / "docs" / f"{page}.md").read_text()
        for link in re.findall(r"\]\(([^)#]*)(?:#[^)]*)?\)", text):
            if link and "://" not in link:
                assert (ROOT / "docs" / link).resolve().exists(), f"{page}: {link}"
