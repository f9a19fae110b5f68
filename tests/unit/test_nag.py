"""cdk-nag's packs over every example and a stack with everything: each finding has its reason, or is the user's."""

from __future__ import annotations

import json
import re
import runpy
from pathlib import Path
from typing import Any

import aws_cdk as cdk
import cdk_nag
import pytest
from aws_cdk import aws_ec2 as ec2
from aws_cdk import aws_kms as kms
from aws_cdk import aws_s3 as s3

import extended_dlc
from extended_dlc import (
    Async,
    BacklogScaling,
    CloudBuild,
    Component,
    Components,
    DataCapture,
    ExtendedDlc,
    Functions,
    HubModel,
    HuggingFaceEndpoint,
    InvocationScaling,
    MirroredDataset,
    MirroredModel,
    Monitoring,
    Network,
    OfficeHours,
    PlatformDefaults,
    PrivateAccess,
    Proof,
    RealTime,
    TrainedModel,
    TrainingCode,
    TrainingJob,
)
from extended_dlc.app.define import define_stacks, read_app
from extended_dlc.constructs.functions import INTERFACES, TRACES
from extended_dlc.constructs.nag import _found
from extended_dlc.facts.nag import findings, listed
from extended_dlc.platform.__main__ import define
from extended_dlc.platform.settings import read_images
from tests.support.cfn_lint import double_dependencies
from tests.support.stacks import ENV

Json = dict[str, Any]

ROOT = Path(__file__).parents[2]
PACKS = (
    cdk_nag.AwsSolutionsChecks,
    cdk_nag.NIST80053R5Checks,
    cdk_nag.HIPAASecurityChecks,
    cdk_nag.PCIDSS321Checks,
)


class Loaded(cdk.Stack):
    """Endpoints with all that they can have."""

    def __init__(self, scope: cdk.App, construct_id: str) -> None:
        super().__init__(scope, construct_id, env=ENV)
        vpc = ec2.Vpc(self, "Vpc", max_azs=2)
        PlatformDefaults(functions=Functions(network=Network(vpc=vpc), reserved_concurrency=1, tracing=True)).apply(
            self
        )
        self.key = kms.Key(self, "Key", enable_key_rotation=True)
        image = ExtendedDlc(self, "Image", transformers="5.24.0", accelerator="cpu", immutable_tags=True)

        def endpoint(name: str, model: object, hosting: object, **options: object) -> HuggingFaceEndpoint:
            return HuggingFaceEndpoint(
                self,
                name,
                model=model,
                image=image,
                hosting=hosting,
                network=Network(vpc=vpc),
                encryption_key=self.key,
                verify=Proof(),
                monitoring=Monitoring(alarm_topic="new", container_alarms={"waiting": 5}),
                data_capture=DataCapture(),
                **options,
            )

        first = endpoint(
            "RealTime",
            HubModel("bigscience/bloom-560m", task="text-generation"),
            RealTime(scaling=InvocationScaling(minimum=1, maximum=2, requests_per_second=1), ssm_access=True),
            schedule=OfficeHours(start="08:00", end="18:00", timezone="UTC"),
        )
        endpoint(
            "Queued",
            "openai/whisper-base",
            Async(
                success_topic="new",
                error_topic="new",
                scaling=BacklogScaling(minimum=0, maximum=2, backlog_per_instance=3),
            ),
        )
        component = Component(name="one", memory_mb=1024)
        endpoint("Shared", "openai/whisper-base", Components(maximum=2, components=[component]))
        # bare: what a key and a topic would have done is found
        HuggingFaceEndpoint(
            self,
            "Bare",
            model=MirroredModel(self, "Mirror", model="bloom", revision="a" * 40),
            image=image,
            hosting=Async(success_topic="new", scaling=BacklogScaling(minimum=0, maximum=2, backlog_per_instance=3)),
            monitoring=Monitoring(),
        )
        trained = TrainedModel(self, "Trained", first=HubModel("gpt2", task="text-generation"))
        HuggingFaceEndpoint(
            self, "Told", model=trained, image=image, verify=False, monitoring=Monitoring(alarm_topic="new")
        )
        MirroredDataset(self, "Dataset", dataset="nyu-mll/glue", revision="a" * 40)
        code = TrainingCode(str(ROOT / "examples" / "training" / "classification"))
        trainer = ExtendedDlc(self, "Trainer", transformers="5.24.0", family="training")
        TrainingJob(self, "Train", code=code, image=trainer, on_change=True)
        TrainingJob(self, "Judged", code=code, image=trainer, serves=trained)
        PrivateAccess(self, "Private", vpc=vpc)
        ExtendedDlc(self, "Cloud", transformers="5.24.0", accelerator="cpu", build=CloudBuild())
        # the user's own: not for the library to give a reason for
        s3.Bucket(self, "Words", enforce_ssl=True).grant_read(first)


@pytest.fixture(scope="module")
def app(tmp_path_factory: pytest.TempPathFactory) -> cdk.App:
    """Every example, and the loaded stack."""
    app = cdk.App(outdir=str(tmp_path_factory.mktemp("out")))
    examples = ROOT / "examples"
    for file in sorted([*examples.glob("hosting/*.py"), *examples.glob("operating/*.py"), examples / "own_stack.py"]):
        defined = runpy.run_path(str(file), run_name="example").values()
        for kind in [each for each in defined if isinstance(each, type) and issubclass(each, cdk.Stack)]:
            if kind is not cdk.Stack:
                kind(app, file.stem.replace("_", "-"), env=ENV)
    for file in sorted(examples.glob("*.yaml")):
        read = read_app(cdk.App(context={"settings": str(file)}))
        define_stacks(cdk.Stage(app, file.stem, env=ENV), read)  # type: ignore[arg-type]
    define(app, read_images(str(examples / "platform" / "images.yaml")))
    Loaded(app, "Loaded")
    return app


OWN = re.compile(r"[^/]+/(Vpc/.*|Caller/.*|Errors/.*|Words/.*|Key/.*)")
"""Resources of the examples' own, and of the loaded stack's."""


def test_every_finding_has_its_reason_or_is_the_users_own(app: cdk.App) -> None:
    extended_dlc.acknowledge_nag(app)
    cdk.Validations.of(app).add_plugins(*[pack(app) for pack in PACKS])
    with pytest.raises(RuntimeError):
        app.synth()
    report = json.loads((Path(app.outdir) / "validation-report.json").read_text())
    assert len(report["pluginReports"]) == len(PACKS)
    found = {
        (each["ruleName"], construct["constructPath"])
        for plugin in report["pluginReports"]
        for each in plugin["violations"]
        for construct in each["violatingConstructs"]
    }
    ours = sorted(each for each in found if not OWN.fullmatch(each[1]))
    # what the user lets the containers' role do is in its policy, and stays found
    role = "Loaded/RealTime/Role/DefaultPolicy/Resource"
    granted = [rule for rule, path in ours if path == role]
    assert {rule for rule in granted if "Action::" in rule} == {
        "AwsSolutions-IAM5[Action::s3:GetBucket*]",
        "AwsSolutions-IAM5[Action::s3:GetObject*]",
        "AwsSolutions-IAM5[Action::s3:List*]",
    }
    assert [rule for rule in granted if "Resource::" in rule and "Words" not in rule] == []
    assert [each for each in ours if each[1] != role] == [], "fix it, or give the reason in facts/data/nag.json"


def test_no_reason_is_given_for_what_is_not_there(app: cdk.App) -> None:
    used = {finding for _, finding in _found(app)}
    assert [each for each in findings() if each not in used] == []
    assert (ROOT / "docs" / "nag.md").read_text() == listed(), "run python -m extended_dlc.facts.nag > docs/nag.md"


def test_no_template_has_a_dependency_twice(app: cdk.App) -> None:
    # as the first test has synthesised them
    files = sorted(Path(app.outdir).rglob("*.template.json"))
    assert len(files) > 15
    found = [f"{file.stem}: {each}" for file in files for each in double_dependencies(json.loads(file.read_text()))]
    assert found == [], "a resource that names its role: depend_on_policies_alone"


def test_every_function_of_a_stack_has_the_vpc_the_concurrency_the_tracing_and_the_rights_for_them(
    app: cdk.App,
) -> None:
    # as the first test has synthesised it
    resources: Json = json.loads((Path(app.outdir) / "Loaded.template.json").read_text())["Resources"]
    functions = {name: each for name, each in resources.items() if each["Type"] == "AWS::Lambda::Function"}
    made = ("ExtendedDlcProver", "ImageCopyOnce", "CustomCDKECRDeployment", "AWS679f", "JudgedJudge")
    assert sorted(next(each for each in made if name.startswith(each)) for name in functions) == sorted(made)
    policies = {name: each for name, each in resources.items() if each["Type"] == "AWS::IAM::Policy"}
    (group,) = [name for name in resources if name.startswith("ExtendedDlcFunctionsGroup")]
    for name, function in functions.items():
        properties = function["Properties"]
        assert len(properties["VpcConfig"]["SubnetIds"]) == 2, name
        assert properties["VpcConfig"]["SecurityGroupIds"] == [{"Fn::GetAtt": [group, "GroupId"]}], name
        assert properties["ReservedConcurrentExecutions"] == 1, name
        assert properties["TracingConfig"] == {"Mode": "Active"}, name
        role, _ = properties["Role"]["Fn::GetAtt"]
        allowed = {
            action
            for each in policies.values()
            if {"Ref": role} in each["Properties"]["Roles"]
            for statement in each["Properties"]["PolicyDocument"]["Statement"]
            if statement["Resource"] == "*" and isinstance(statement["Action"], list)
            for action in statement["Action"]
        }
        assert {*INTERFACES, *TRACES} <= allowed, name
        # Lambda refuses a function in a VPC whose role may not make interfaces yet
        assert set(function["DependsOn"]) & set(policies), name
    machines = [each for each in resources.values() if each["Type"] == "AWS::StepFunctions::StateMachine"]
    assert [each["Properties"]["TracingConfiguration"] for each in machines] == [{"Enabled": True}] * 2


def test_the_endpoints_key_reaches_logs_and_topics_with_what_the_services_need(app: cdk.App) -> None:
    loaded = app.node.find_child("Loaded")
    assert isinstance(loaded, Loaded)
    # as the first test has synthesised it: another synth would ask the packs again
    template = json.loads((Path(app.outdir) / "Loaded.template.json").read_text())["Resources"]
    key = {"Fn::GetAtt": [loaded.get_logical_id(loaded.key.node.default_child), "Arn"]}  # type: ignore[arg-type]
    logs = {
        name: each["Properties"].get("KmsKeyId")
        for name, each in template.items()
        if each["Type"] == "AWS::Logs::LogGroup" and "Watch" in name and not name.startswith(("Bare", "Told"))
    }
    assert len(logs) == 4
    assert all(each == key for each in logs.values())
    topics = [
        each["Properties"].get("KmsMasterKeyId")
        for name, each in template.items()
        if each["Type"] == "AWS::SNS::Topic" and not name.startswith(("Bare", "Told"))
    ]
    assert topics == [key] * 5
    (policy,) = [each["Properties"]["KeyPolicy"] for each in template.values() if each["Type"] == "AWS::KMS::Key"]
    services = [each["Principal"].get("Service") for each in policy["Statement"]]
    assert "cloudwatch.amazonaws.com" in services
    assert sum("logs." in json.dumps(each) for each in services) == 3
