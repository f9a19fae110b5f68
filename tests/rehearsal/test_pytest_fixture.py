"""The pytest fixture in a user's conftest.py: a project outside this one, with the real CDK CLI."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]

APP = """
import aws_cdk as cdk
from aws_cdk import aws_sqs as sqs

app = cdk.App()
stack = cdk.Stack(app, "Mine", env=cdk.Environment(region="eu-west-1"))
queue = sqs.Queue(stack, "Queue", queue_name=app.node.try_get_context("name"))
cdk.CfnOutput(stack, "QueueUrl", value=queue.queue_url)
app.synth()
"""

TESTS = f"""
import pytest

APP = "{sys.executable} app.py"


def test_the_queue_takes_messages(rehearsal):
    outputs = rehearsal.deploy(APP, context={{"name": "orders"}})
    assert outputs["Mine"]["QueueUrl"].endswith("/orders")
    sqs = rehearsal.client("sqs")
    sqs.send_message(QueueUrl=outputs["Mine"]["QueueUrl"], MessageBody="hello")
    (message,) = sqs.receive_message(QueueUrl=outputs["Mine"]["QueueUrl"])["Messages"]
    assert message["Body"] == "hello"
    assert rehearsal.environment["AWS_REGION"] == "eu-west-1"


def test_an_app_that_cannot_be_synthesized_says_why(rehearsal):
    with pytest.raises(RuntimeError, match="what is wrong"):
        rehearsal.deploy("echo what is wrong; exit 1")
"""


@pytest.mark.thorough
def test_somebodys_tests_deploy_their_app_with_the_real_cli(tmp_path: Path) -> None:
    (tmp_path / "app.py").write_text(APP)
    (tmp_path / "conftest.py").write_text("from extended_dlc.rehearsal.pytest_fixture import rehearsal as rehearsal\n")
    (tmp_path / "test_mine.py").write_text(TESTS)
    (tmp_path / "node_modules").symlink_to(ROOT / "node_modules")
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", f"--rootdir={tmp_path}", str(tmp_path)]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "2 passed" in done.stdout
    logs = sorted(each.name for each in (tmp_path / ".rehearsal" / "logs").iterdir())
    assert any("cdk-deploy" in each for each in logs)
    assert not (tmp_path / ".rehearsal" / "engine.json").exists(), "no container engine was needed"
