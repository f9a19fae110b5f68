"""The settings make what they say."""

import json
from pathlib import Path

import aws_cdk as cdk
import pytest
from aws_cdk.assertions import Template

from extended_dlc.app.define import define_stacks, read_app

ROOT = Path(__file__).parents[1]


def test_each_endpoint_of_the_settings_is_there(monkeypatch: pytest.MonkeyPatch) -> None:
    """As many as settings.json names."""
    monkeypatch.chdir(ROOT)
    settings = json.loads((ROOT / "settings.json").read_text(encoding="utf-8"))
    app = cdk.App(context=json.loads((ROOT / "cdk.json").read_text(encoding="utf-8"))["context"])
    stacks = define_stacks(app, read_app(app))
    Template.from_stack(stacks.endpoints).resource_count_is("AWS::SageMaker::Endpoint", len(settings["endpoints"]))
