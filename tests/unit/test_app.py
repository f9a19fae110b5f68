"""The app as the CDK CLI runs it: `python app.py` in a process of its own."""

from __future__ import annotations

import filecmp
import json
import os
import re
import shlex
import subprocess
import sys
import tarfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import aws_cdk as cdk
import pytest
from aws_cdk.assertions import Annotations, Match, Template
from cfnlint.api import lint

from extended_dlc.cli.ask import ask
from stacks.endpoint_stack import EndpointStack
from tests.support.settings import read

ROOT = Path(__file__).parents[2]


def synth(out: Path, context: dict[str, Any]) -> subprocess.CompletedProcess[str]:
    """Run the app with this context beside the repository's own, as the CDK CLI hands it over."""
    shipped = json.loads((ROOT / "cdk.json").read_text())["context"]
    environment = {**os.environ, "CDK_OUTDIR": str(out), "CDK_CONTEXT_JSON": json.dumps({**shipped, **context})}
    return subprocess.run(
        [sys.executable, "app.py"], cwd=ROOT, env=environment, capture_output=True, text=True, check=False
    )


def test_two_synths_are_byte_equal(tmp_path: Path, shipped_settings: Any) -> None:
    for name in ("one", "two"):
        done = synth(tmp_path / name, {"extended-dlc": shipped_settings})
        assert done.returncode == 0, done.stderr
        assert (done.stdout, done.stderr) == ("", ""), "a synth of the shipped settings says nothing"
        for file in (tmp_path / name).glob("*.json"):
            assert not re.search("aws:cdk:(info|warning|error)", file.read_text()), f"{file.name} has an annotation"
    names = sorted(str(file.relative_to(tmp_path / "one")) for file in (tmp_path / "one").rglob("*") if file.is_file())
    assert "EndpointStack.template.json" in names
    assert filecmp.cmpfiles(tmp_path / "one", tmp_path / "two", names, shallow=False) == (names, [], [])


def test_the_feature_flags_are_those_that_the_library_recommends() -> None:
    (library,) = Path(cdk.__file__).with_name("_jsii").glob("aws-cdk-lib@*.jsii.tgz")
    with tarfile.open(library) as archive:
        member = next(each for each in archive if each.name == "package/recommended-feature-flags.json")
        recommended = json.load(archive.extractfile(member))  # type: ignore[arg-type]
    shipped = json.loads((ROOT / "cdk.json").read_text())["context"]
    assert {key: value for key, value in shipped.items() if key.startswith("@aws-cdk")} == recommended


def test_synth_imports_nothing_that_the_settings_do_not_use(tmp_path: Path, shipped_settings: Any) -> None:
    shipped_settings["image"] = {"kind": "stock", "transformers": "4.51.3"}
    probe = "import runpy, sys; runpy.run_path('app.py');"
    probe += "print(*sorted({'cdk_ecr_deployment', 'yaml', 'boto3', 'moto', 'click', 'rich'} & set(sys.modules)))"
    environment = {
        **os.environ,
        "CDK_OUTDIR": str(tmp_path),
        "CDK_CONTEXT_JSON": json.dumps({"extended-dlc": shipped_settings}),
    }
    done = subprocess.run(
        [sys.executable, "-c", probe], cwd=ROOT, env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "EndpointStack.template.json").exists()
    assert done.stdout.strip() == ""


def test_the_imports_that_run_at_the_same_time_have_no_module_in_common() -> None:
    """Modules of a circle that two threads import at once could be seen half-made."""
    imported = [
        _run(f"import jsii, sys; before = set(sys.modules); import {module}; print(*set(sys.modules) - before)").split()
        for module in ("aws_cdk", "extended_dlc.app.settings")
    ]
    assert "aws_cdk._jsii" in imported[0]
    assert "pydantic" in imported[1]
    assert not {*imported[0]} & {*imported[1]}


def test_a_program_of_the_settings_leaves_the_collector_as_it_was() -> None:
    assert _run("import gc, extended_dlc.app.define; print(gc.isenabled())") == "True"
    assert _run("import gc; gc.disable(); import extended_dlc.app.define; print(gc.isenabled())") == "False"


def test_a_cdk_that_does_not_start_is_said_once(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-c", "import extended_dlc.app.define"],
        env={**os.environ, "JSII_NODE": str(tmp_path / "none")},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 1
    assert done.stderr.count("FileNotFoundError") == 1


def _run(code: str) -> str:
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.strip()


def test_wrong_settings_end_in_a_report_without_a_traceback(tmp_path: Path, shipped_settings: Any) -> None:
    shipped_settings["image"]["transfomers"] = shipped_settings["image"].pop("transformers")
    done = synth(tmp_path / "out", {"extended-dlc": shipped_settings})
    assert done.returncode == 1
    assert "Traceback" not in done.stderr
    assert "image.transformers: field required" in done.stderr
    assert "image.transfomers: is not a setting; did you mean 'transformers'?" in done.stderr
    assert not (tmp_path / "out" / "EndpointStack.template.json").exists()


def app_of(endpoints: Mapping[str, str]) -> cdk.App:
    found = read(
        {
            "extended-dlc": {
                "region": "us-east-1",
                "image": {"transformers": "5.23.0"},
                "endpoints": {key: {"model": model} for key, model in endpoints.items()},
            }
        }
    )
    app = cdk.App()
    EndpointStack(app, "EndpointStack", read=found, env=cdk.Environment(region="us-east-1"))
    return app


@pytest.fixture(scope="module")
def several() -> cdk.App:
    """The app with two endpoints, synthesised once."""
    return app_of({"bloom": "bloom", "whisper": "whisper"})


def test_a_stack_of_many_endpoints_has_no_more_outputs_than_cloudformation_takes() -> None:
    app = app_of({f"bloom{number}": "bloom" for number in range(45)})
    stack = app.node.find_child("EndpointStack")
    assert isinstance(stack, cdk.Stack)
    outputs = Template.from_stack(stack).to_json()["Outputs"]
    assert len(outputs) == 200
    assert sum(name.endswith("Name") for name in outputs) == 45
    said = Annotations.from_stack(stack).find_info("*", Match.string_like_regexp("a stack has at most 200 outputs"))
    assert len(said) == 1


def test_the_outputs_say_what_was_deployed_and_how_to_ask_it(several: cdk.App) -> None:
    template = Template.from_stack(several.node.find_child("EndpointStack"))
    outputs = {name: output["Value"] for name, output in template.to_json()["Outputs"].items()}
    of_whisper = {"whisperName", "whisperAsk", "whisperInvoke"}
    of_bloom = {"bloomName", "bloomAsk", "bloomInvoke", "bloomAwsCli1", "bloomOpenAIBaseUrl"}
    assert set(outputs) == {"ImageUri", *of_bloom, *of_whisper}
    assert outputs["bloomOpenAIBaseUrl"]["Fn::Join"][1][-1] == "/endpoints/extended-dlc-bloom/openai/v1"
    assert outputs["bloomName"] == "extended-dlc-bloom"
    assert "--endpoint-name extended-dlc-bloom --content-type application/json" in outputs["bloomInvoke"]
    assert "--cli-binary-format raw-in-base64-out" in outputs["bloomInvoke"]
    assert outputs["bloomAwsCli1"] == outputs["bloomInvoke"].replace(" --cli-binary-format raw-in-base64-out", "")
    assert "--endpoint-name extended-dlc-whisper --content-type audio/wav" in outputs["whisperInvoke"]
    assert outputs["whisperAsk"] == "extended-dlc ask extended-dlc-whisper --sample --region us-east-1"
    for name in ("bloomAsk", "whisperAsk"):
        program, *words = shlex.split(outputs[name])
        with ask.make_context(program, words[1:]) as parsed:
            assert parsed.params["name"] == outputs[name.replace("Ask", "Name")]
            assert parsed.params["what"] == {"bloomAsk": "Hello, my name is", "whisperAsk": None}[name]


def test_the_repository_goes_with_the_stack(several: cdk.App) -> None:
    Template.from_stack(several.node.find_child("EndpointStack")).has_resource(
        "AWS::ECR::Repository", {"DeletionPolicy": "Delete", "Properties": {"EmptyOnDelete": True}}
    )


def test_cfn_lint_finds_no_error_in_the_template(several: cdk.App) -> None:
    folder = Path(several.synth().directory)
    template = (folder / "EndpointStack.template.json").read_text()
    assert json.loads(template)["Resources"], "a template with nothing in it passes every linter"
    errors = [str(match) for match in lint(template, regions=["us-east-1"]) if match.rule.severity == "error"]
    assert errors == []
