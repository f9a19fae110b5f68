"""`CloudBuild`: the same image under the same hash, by a project that may do what it needs, and who waits for it."""

from __future__ import annotations

import json
import tarfile
from pathlib import Path
from typing import Any

import pytest
from aws_cdk import App, Environment, Stack
from aws_cdk import aws_codebuild as codebuild
from aws_cdk import aws_ec2 as ec2
from aws_cdk import aws_iam as iam
from aws_cdk import aws_secretsmanager as secretsmanager
from aws_cdk.assertions import Annotations, Match, Template

from extended_dlc import CloudBuild, ExtendedDlc, HubModel, HuggingFaceEndpoint, LocalBuild, Network
from extended_dlc.app.read import Raw
from extended_dlc.app.settings import read
from extended_dlc.programs.build_image import check_findings, hint, newest_tag

BASE = (
    "763104351884.dkr.ecr.us-east-1.amazonaws.com/huggingface-pytorch-inference"
    ":2.6.0-transformers5.5.3-cpu-py312-ubuntu22.04-v1.2"
)


def image_in(stack: Stack, **options: Any) -> ExtendedDlc:
    return ExtendedDlc(stack, "Image", **{"transformers": "5.23.0", "base": BASE, **options})


def start_of(template: Template) -> dict[str, Any]:
    (start,) = template.find_resources("Custom::ExtendedDlcBuild").values()
    pieces = start["Properties"]["Create"]["Fn::Join"][1]
    call: dict[str, Any] = json.loads("".join(piece if isinstance(piece, str) else "*" for piece in pieces))
    assert call["outputPaths"] == ["build.id"]
    parameters: dict[str, Any] = call["parameters"]
    return parameters


def test_the_cloud_builds_what_this_machine_would_under_the_same_hash_and_nothing_is_copied(stack: Stack) -> None:
    image = image_in(stack, build=CloudBuild())
    HuggingFaceEndpoint(stack, "Bloom", model=HubModel("bloom"), image=image, verify=False)
    local = image_in(Stack(App(), "Local", env=Environment(region="us-east-1")), build=LocalBuild())
    tag = local.image_uri.rpartition(":")[2]
    assert image.image_uri.endswith(f":{tag}")
    template = Template.from_stack(stack)
    template.resource_count_is("Custom::CDKECRDeployment", 0)
    start = start_of(template)
    variables = {each["name"]: each["value"] for each in start["environmentVariablesOverride"]}
    assert f"--build-arg=BASE_IMAGE={BASE}" in variables["ARGUMENTS"]
    assert f"--tag={tag}" in variables["ARGUMENTS"]
    assert (start["timeoutInMinutesOverride"], "--seconds=3480" in variables["ARGUMENTS"]) == (60, True)
    # the Model waits for the signal, whose condition waits for a machine too
    (name,) = template.find_resources("AWS::CloudFormation::WaitCondition")
    (wait,) = template.find_resources("AWS::CloudFormation::WaitCondition").values()
    assert int(wait["Properties"]["Timeout"]) == 3600 + 1800
    (model,) = template.find_resources("AWS::SageMaker::Model").values()
    assert name in model["DependsOn"]
    project = {"Environment": {"ComputeType": "BUILD_GENERAL1_SMALL", "PrivilegedMode": True}}
    template.has_resource_properties("AWS::CodeBuild::Project", project)
    app = stack.node.root
    assert isinstance(app, App)
    manifest = json.loads((Path(app.synth().directory) / "Test.assets.json").read_text())
    assert not manifest.get("dockerImages")


def test_the_build_may_pull_its_base_and_push_its_image_and_takes_what_it_is_given(tmp_path: Path) -> None:
    stack = Stack(App(), "Test", env=Environment(region="us-east-1"))
    bundle = tmp_path / "ca.pem"
    bundle.write_text("-----BEGIN CERTIFICATE-----\n")
    vpc = ec2.Vpc(stack, "Vpc")
    build = CloudBuild(
        compute="large",
        timeout_minutes=90,
        network=Network(vpc=vpc),
        proxy="http://proxy:3128",
        no_proxy=["amazonaws.com"],
        code_artifact="acme/pypi",
        ca_bundle=str(bundle),
    )
    image_in(stack, build=build)
    template = Template.from_stack(stack)
    policies = json.dumps(template.find_resources("AWS::IAM::Policy"))
    assert ":ecr:us-east-1:763104351884:repository/huggingface-pytorch-inference" in policies
    assert "sts:GetServiceBearerToken" in policies
    assert '"ecr:*"' not in policies
    template.has_resource_properties("AWS::CodeBuild::Project", {"VpcConfig": Match.any_value()})
    start = start_of(template)
    variables = {each["name"]: each["value"] for each in start["environmentVariablesOverride"]}
    assert (variables["HTTPS_PROXY"], variables["NO_PROXY"]) == ("http://proxy:3128", "amazonaws.com")
    assert "--code-artifact=acme/pypi" in variables["ARGUMENTS"]
    assert "--ca-bundle=s3://" in variables["ARGUMENTS"]
    given = Stack(App(), "Given", env=Environment(region="us-east-1"))
    secret = secretsmanager.Secret.from_secret_name_v2(given, "Pip", "pip-config")
    project = codebuild.Project.from_project_name(given, "Ours", "ours")
    image_in(given, build=CloudBuild(project=project, pip_config=secret))
    Template.from_stack(given).resource_count_is("AWS::CodeBuild::Project", 0)
    assert start_of(Template.from_stack(given))["projectName"] == "ours"


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"compute": "huge"}, r"'compute' \(huge\) must be one of small, medium"),
        ({"timeout_minutes": 5}, r"'timeout_minutes' \(5\) must be from 10 to 480"),
        ({"proxy": "proxy:3128"}, r"'proxy' \(proxy:3128\) must be an address"),
        ({"package_index": "https://me:secret@index/simple"}, r"'package_index' \(https://…@index\) has a password"),
        ({"no_proxy": ["x"]}, r"'no_proxy' \(x\) needs 'proxy'"),
        ({"package_index": "https://a/simple", "code_artifact": "a/b"}, "say both where packages come from"),
        ({"code_artifact": "acme"}, r"'code_artifact' \(acme\) must be a domain and a repository"),
        ({"ca_bundle": "/nowhere"}, r"'ca_bundle' \(/nowhere\) is not a file"),
        *(
            ({"proxy": wrong}, r"(?s)'proxy' .* must be an address that begins with http")
            for wrong in (
                "http://proxy:99999",
                "http://pro xy",
                "http://proxy:1\nX: y",
                " http://proxy:1",
                "http://p'x",
            )
        ),
        *(
            ({"proxy": "http://p:1", "no_proxy": [wrong]}, r"'no_proxy' .* must be a host, a domain")
            for wrong in ("", "a b", "a,b", "x;y")
        ),
        ({"package_index": "https://index/simple?token=abc"}, r"'package_index' \(https://index…\) has a query, which"),
        ({"package_index": "https://index/simple --pre"}, r"'package_index' .* must be an address"),
        *(({"parameters": [wrong]}, "must be the name of a parameter") for wrong in ("/a//b", "/", "/é", "/a" * 16)),
        ({"parameters": ["/" + "a" * 1100]}, r"'parameters' \(/a{39}…\) has 1101 characters"),
    ],
)
def test_what_contradicts_itself_is_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        CloudBuild(**options)


def project_of(stack: Stack, **environment: Any) -> codebuild.Project:
    spec = codebuild.BuildSpec.from_object({"version": "0.2"})
    return codebuild.Project(stack, "Ours", environment=codebuild.BuildEnvironment(**environment), build_spec=spec)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (lambda s: {"project": project_of(s)}, r"'project' \(Test/Ours\) is not privileged, which Docker needs"),
        (
            lambda s: {
                "project": project_of(s, build_image=codebuild.LinuxArmBuildImage.AMAZON_LINUX_2023_STANDARD_3_0)
            },
            r"'project' \(Test/Ours\) runs on ARM_CONTAINER, and",
        ),
        (
            lambda s: {
                "project": codebuild.Project.from_project_arn(
                    s, "P", "arn:aws:codebuild:eu-west-1:123456789012:project/p"
                )
            },
            r"'project' \(in eu-west-1\) is in another region than its user, us-east-1: name one there",
        ),
        (lambda s: {"parameters": ["/a", "us-east-1:/a"]}, r"'parameters' \(us-east-1:/a\) is named twice"),
        (
            lambda s: {"parameters": [f"/images/number-{number:03}" for number in range(100)]},
            r"'build' \(\d+ characters\) says more than the 4096 characters",
        ),
    ],
)
def test_what_codebuild_would_refuse_is_refused_at_synth(stack: Stack, options: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        image_in(stack, build=CloudBuild(**options(stack)))


@pytest.mark.parametrize("kind", [ec2.SubnetType.PRIVATE_ISOLATED, ec2.SubnetType.PUBLIC])
def test_a_build_in_subnets_without_a_way_out_is_annotated(stack: Stack, kind: ec2.SubnetType) -> None:
    subnets = [ec2.SubnetConfiguration(name="Only", subnet_type=kind)]
    vpc = ec2.Vpc(stack, "Vpc", max_azs=1, nat_gateways=0, subnet_configuration=subnets)
    image_in(stack, build=CloudBuild(network=Network(vpc=vpc)))
    Annotations.from_stack(stack).has_warning(
        "/Test/Image", Match.string_like_regexp("the subnets of the build are isolated or public")
    )


def test_a_lock_travels_in_a_file_because_a_variable_takes_4096_characters(stack: Stack, tmp_path: Path) -> None:
    lock = tmp_path / "extended-dlc.lock"
    lines = [
        f"transformers==5.23.0 --hash=sha256:{'a' * 64}",
        *(f"p{n}==1 --hash=sha256:{'b' * 64}" for n in range(90)),
    ]
    lock.write_text("\n".join(["# extended-dlc lock", *lines]))
    image = image_in(stack, build=CloudBuild(), lock=str(lock))
    local = image_in(Stack(App(), "Local", env=Environment(region="us-east-1")), build=LocalBuild(), lock=str(lock))
    assert image.image_uri.rpartition(":")[2] == local.image_uri.rpartition(":")[2]
    HuggingFaceEndpoint(stack, "Bloom", model=HubModel("bloom"), image=image, verify=False)
    start = start_of(Template.from_stack(stack))
    (said,) = (each["value"] for each in start["environmentVariablesOverride"] if each["name"] == "ARGUMENTS")
    assert len(said) < 3400
    assert "--build-arg-file=LOCK=.lock" in said
    app = stack.node.root
    assert isinstance(app, App)
    found = []
    for file in filter(tarfile.is_tarfile, filter(Path.is_file, Path(app.synth().directory).rglob("asset.*"))):
        with tarfile.open(file) as archive:
            found += [archive.extractfile(name).read().decode() for name in archive.getnames() if name == ".lock"]  # type: ignore[union-attr]
    assert [text.splitlines() for text in found] == [lines]


def test_a_given_project_brings_its_role_and_its_machine(stack: Stack) -> None:
    project = codebuild.Project.from_project_name(stack, "Ours", "ours")
    role = iam.Role.from_role_arn(stack, "Role", "arn:aws:iam::123456789012:role/ours")
    with pytest.raises(ValueError, match="'role' is for a new project"):
        CloudBuild(project=project, role=role)
    with pytest.raises(ValueError, match="'compute' is for a new project"):
        CloudBuild(project=project, compute="small")


def test_settings_that_build_in_the_cloud_pull_no_base_here(shipped_settings: dict[str, Any]) -> None:
    assert len(read(Raw(origin="the settings", content=shipped_settings)).bases) == 1
    shipped_settings["image"]["build"] = {"kind": "cloud", "compute": "medium"}
    found = read(Raw(origin="the settings", content=shipped_settings))
    assert (found.problems, found.bases) == ((), ())
    shipped_settings["image"]["build"] = {"kind": "cloud", "compute": "huge", "engine": "podman"}
    problems = read(Raw(origin="the settings", content=shipped_settings)).problems
    assert any(each.startswith('image.build.compute ("huge"): must be') for each in problems)
    assert any(each.startswith("image.build.engine: is not a setting") for each in problems)


def test_the_gate_refuses_by_severity_and_what_is_allowed_is_allowed_until_its_day() -> None:
    found = [("CVE-1", "LOW"), ("CVE-2", "HIGH"), ("CVE-3", "CRITICAL"), ("CVE-3", "CRITICAL"), ("CVE-4", "NEW-WORD")]
    allowed = ("CVE-2:2026-11-28", "CVE-3:2026-11-27")
    refused = list(check_findings(found, fail_on="HIGH", allowed=allowed, today="2026-11-28"))
    # of a severity that nobody knows the gate lets nothing pass
    assert refused == ["CVE-3 (CRITICAL; it was allowed until 2026-11-27)", "CVE-4 (NEW-WORD)"]


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("pull access denied: no basic auth credentials", "let it pull the base"),
        ("dial tcp 1.2.3.4:443: i/o timeout", "VPC needs a way"),
        ("toomanyrequests: Rate exceeded", "mirror the base"),
        ("something else", ""),
    ],
)
def test_what_a_log_says_comes_with_what_to_do(line: str, said: str) -> None:
    assert said in hint(["before", line])


@pytest.mark.parametrize(
    ("tag", "others", "newer"),
    [
        ("2.6.0-transformers4.51.3-gpu-py312-cu124-ubuntu22.04", ["-v2.0"], None),
        ("2.6.0-gpu-py312-cu124-ubuntu22.04-ec2", ["2.9.0-gpu-py313-cu130-ubuntu24.04-sagemaker", "2.8-cpu-ec2"], None),
        (
            "2.6.0-transformers4.51.3-gpu-py312-cu124-ubuntu22.04",
            [
                "2.6.0-transformers5.5.3-cpu-py312-ubuntu22.04",
                "2.6.0-transformers5.5.3-gpu-py312-cu126-ubuntu22.04-v1.0",
                "2.6.0-transformers5.5.3-gpu-py312-cu126-ubuntu22.04",
                "2.6.0-transformers4.55.0-gpu-py312-cu126-ubuntu22.04",
                "latest",
            ],
            "2.6.0-transformers5.5.3-gpu-py312-cu126-ubuntu22.04",
        ),
        (
            "2.9.0-cpu-py312-ubuntu22.04-sagemaker",
            ["2.10.0-cpu-py313-amzn2023-sagemaker"],
            "2.10.0-cpu-py313-amzn2023-sagemaker",
        ),
    ],
)
def test_a_newer_base_is_of_a_newer_release_for_the_same_device_and_use(
    tag: str, others: list[str], newer: str | None
) -> None:
    listed = [tag, *(f"{tag}{each}" if each.startswith("-") else each for each in others)]
    assert newest_tag(tag, listed) == newer
