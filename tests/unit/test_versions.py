"""The library under the releases of Node that are maintained, beside the one that the suite runs on."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

from maintain.versions import NODES, SMALL, environment, node


def test_an_example_synthesises_to_the_same_template_under_each_node(tmp_path: Path) -> None:
    runs = {}
    for version in NODES:
        program = node(version)
        printed = subprocess.run([program, "--version"], capture_output=True, text=True, check=True).stdout
        assert printed.strip() == f"v{version}"
        runs[version] = subprocess.Popen(
            [sys.executable, SMALL],
            env=environment(tmp_path / version, program),
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
    templates = []
    for version, run in runs.items():
        output, _ = run.communicate(timeout=300)
        assert run.returncode == 0, output
        (template,) = (tmp_path / version).glob("*.template.json")
        templates.append(json.loads(template.read_text()))
    assert any(each["Type"] == "AWS::SageMaker::Endpoint" for each in templates[0]["Resources"].values())
    assert all(each == templates[0] for each in templates)
