"""`Functions`: VPC, concurrency and tracing of each Lambda function of a stack, by the library and by the settings."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from aws_cdk import App, Environment, Stack, Stage
from aws_cdk.assertions import Template

from extended_dlc import (
    Functions,
    HuggingFaceEndpoint,
    PlatformDefaults,
    StockDlc,
)
from extended_dlc.app.define import define_stacks, read_app
from extended_dlc.app.read import SettingsError

EXAMPLE = Path(__file__).parents[2] / "examples" / "training" / "classification"
ENV = Environment(account="123456789012", region="us-east-1")

Json = dict[str, Any]


def of_type(template: Json, kind: str) -> dict[str, Json]:
    return {name: each for name, each in template["Resources"].items() if each["Type"] == kind}


def test_without_the_option_functions_are_as_aws_runs_them_and_the_nearest_scope_decides() -> None:
    app = App()
    PlatformDefaults(functions=Functions(tracing=True, reserved_concurrency=1)).apply(app)
    plain = Stage(app, "Plain")
    PlatformDefaults(functions=Functions()).apply(plain)
    stacks = [Stack(scope, "Team", env=ENV) for scope in (app, plain)]
    for each in stacks:
        HuggingFaceEndpoint(each, "Endpoint", model="gpt2", image=StockDlc(transformers="4.51.3"))
    traced, template = (Template.from_stack(each).to_json() for each in stacks)
    (function,) = of_type(traced, "AWS::Lambda::Function").values()
    assert function["Properties"]["TracingConfig"] == {"Mode": "Active"}
    (function,) = of_type(template, "AWS::Lambda::Function").values()
    assert not {"VpcConfig", "ReservedConcurrentExecutions", "TracingConfig"} & set(function["Properties"])
    assert of_type(template, "AWS::EC2::SecurityGroup") == {}
    text = json.dumps(template)
    assert "xray:" not in text
    assert "ec2:CreateNetworkInterface" not in text
    for make, message in (
        (lambda: Functions(reserved_concurrency=0), r"'reserved_concurrency' \(0\) must be 1 or more: 0 would stop"),
        (
            lambda: Functions(network="vpc-1"),
            r"'network' \('vpc-1'\) is a text and must be a Network, as N",
        ),  # type: ignore[arg-type]
        (lambda: PlatformDefaults(functions=True), r"'functions' \(True\) is True and must be a Functions"),  # type: ignore[arg-type]
    ):
        with pytest.raises(ValueError, match=message):
            make()


def test_the_settings_place_the_functions_of_both_stacks(tmp_path: Path) -> None:
    content: Json = {
        "name": "private",
        "region": "us-east-1",
        "image": {"transformers": "5.24.0"},
        "endpoints": {"tuned": {"model": "bloom"}},
        "training": {"tuned": {"endpoint": "tuned", "code": {"folder": str(EXAMPLE)}}},
        "functions": {
            "network": {"vpc": "vpc-1", "subnets": ["subnet-1", "subnet-2"], "security_groups": ["sg-1"]},
            "reserved_concurrency": 3,
            "tracing": True,
        },
    }
    settings = tmp_path / "settings.json"
    settings.write_text(json.dumps(content))
    app = App(context={"settings": str(settings)})
    stacks = define_stacks(app, read_app(app))
    assert stacks.training is not None
    for stack in (stacks.endpoints, stacks.training):
        functions = of_type(Template.from_stack(stack).to_json(), "AWS::Lambda::Function")
        assert functions
        for name, function in functions.items():
            properties = function["Properties"]
            assert properties["VpcConfig"] == {
                "SubnetIds": ["subnet-1", "subnet-2"],
                "SecurityGroupIds": ["sg-1"],
            }, name
            assert (properties["ReservedConcurrentExecutions"], properties["TracingConfig"]) == (3, {"Mode": "Active"})
    content["functions"] = {"reserved_concurrency": 0, "tracign": True}
    settings.write_text(json.dumps(content))
    with pytest.raises(SettingsError) as refused:
        read_app(App(context={"settings": str(settings)}))
    assert "functions.tracign: is not a setting; did you mean 'tracing'?" in str(refused.value)
    assert "functions.reserved_concurrency (0): must be 1 or more: 0 would stop the function" in str(refused.value)
