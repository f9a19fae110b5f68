"""`CloudBuild` as constructs: the CodeBuild project, its permissions, the build context and the wait condition."""

from __future__ import annotations

import hashlib
import json
import shlex
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from aws_cdk import Annotations, App, Aws, CfnWaitCondition, Duration, Stack
from aws_cdk import aws_codebuild as codebuild
from aws_cdk import aws_ecr as ecr
from aws_cdk import aws_ecr_assets as assets
from aws_cdk import aws_iam as iam
from constructs import Construct

from extended_dlc.constructs.archive import Uploaded, upload_archive, upload_file
from extended_dlc.constructs.codebuild import LONGEST_SECONDS, QUEUE_SECONDS, build_spec, start_and_wait
from extended_dlc.constructs.helpers import require_same, target_of
from extended_dlc.constructs.principals import trust_builds_of_account
from extended_dlc.facts.limits import most
from extended_dlc.images.decided import way_out
from extended_dlc.images.places import PULL
from extended_dlc.images.registry_login import ecr_registries
from extended_dlc.options._values import OptionError
from extended_dlc.options.build import CloudBuild, ScanGate, split_parameter
from extended_dlc.options.network import Network

PROGRAM = Path(__file__).parents[1] / "programs" / "build_image.py"

SPEC = build_spec(
    [
        'aws s3 cp --quiet "$PROGRAM" build_image.py',
        "python3 -c 'import boto3' || python3 -m pip install --quiet boto3",
        "python3 build_image.py",
    ],
    "the image was not built: see the log of the build in CodeBuild",
)


@dataclass(frozen=True, kw_only=True)
class Context:
    """A Docker build context: the files of a `DockerImageAsset`, and its hash."""

    hash: str
    files: Mapping[str, Path]
    folder: tempfile.TemporaryDirectory[str] = field(repr=False)
    """The folder of the files, which is deleted with this object."""


def context_of(scope: Construct, options: Mapping[str, Any]) -> Context:
    """The build context of a `DockerImageAsset` with these options, without adding the asset to the deployment.

    The asset is staged in a separate app, so that the CDK computes hash and files as it does for a local build.
    """
    scratch = tempfile.TemporaryDirectory(prefix="extended-dlc-context-")
    context = {**scope.node.get_all_context(), "aws:cdk:disable-stack-trace": True}
    app = App(outdir=scratch.name, context=context, auto_synth=False, analytics_reporting=False)
    asset = assets.DockerImageAsset(Stack(app, "Context"), "Asset", **options)
    staged = Path(scratch.name) / f"asset.{asset.asset_hash}"
    files = {str(file.relative_to(staged)): file for file in sorted(staged.rglob("*")) if file.is_file()}
    return Context(hash=asset.asset_hash, files=files, folder=scratch)


@dataclass(frozen=True, kw_only=True)
class CloudBuilt:
    """An image that a deployment builds with CodeBuild."""

    tag: str
    ready: CfnWaitCondition
    project: codebuild.IProject
    arguments: str
    """The program's command line, for scheduled rebuilds."""

    program: str


def build_in_cloud(
    scope: Construct,
    build: CloudBuild,
    *,
    asset: Mapping[str, Any],
    base: str,
    accelerator: str | None,
    repository: ecr.IRepository,
) -> CloudBuilt:
    """Make the deployment start the build, which pushes the image, and wait for it.

    :param asset: The options of the `DockerImageAsset` that a local build would make.
    """
    context = context_of(scope, asset)
    told, files = _docker_arguments(asset["build_args"], context)
    uploaded = upload_archive(scope, files)
    program = upload_file(scope, PROGRAM)
    if build.project is not None:
        _require_docker(build.project, scope)
    require_same("account", "role", build.role, scope, "CodeBuild takes a role of its own account: name one there")
    project = build.project or _new_project(scope, build, accelerator)
    seconds = build.timeout_minutes * 60
    # Checks and parameters are part of the key: an allow-list that lost an entry must check the image again.
    checks = [*_checks(build.gate), *_parameters(scope, build.parameters, project)]
    arguments = [
        f"--context=s3://{uploaded.bucket}/{uploaded.key}",
        f"--file={asset.get('file') or 'Dockerfile'}",
        *([f"--target={asset['target']}"] if asset.get("target") else []),
        *told,
        f"--repository={repository.repository_uri}",
        f"--tag={context.hash}",
        f"--seconds={seconds - 120}",  # the program stops itself first, and reports it
        *_options(scope, build, project),
        *checks,
        *(["--advanced-parameters"] if build.advanced_parameters else []),
        *_records(build, project, repository),
    ]
    grant_build(project, base=base, repository=repository, reads=(uploaded, program))
    said = _said(arguments)
    at = f"s3://{program.bucket}/{program.key}"
    what = [context.hash, *build.parameters, *_checks(build.gate), scope.node.path]
    key = hashlib.sha256(json.dumps(what).encode()).hexdigest()[:8]
    ready = start_and_wait(
        scope,
        project,
        resource_type="Custom::ExtendedDlcBuild",
        spec=SPEC,
        variables={"PROGRAM": at, "ARGUMENTS": said, **proxy_variables(build)},
        key=key,
        physical_id=f"{context.hash}-{key}",
        seconds=seconds,
    )
    return CloudBuilt(tag=context.hash, ready=ready, project=project, arguments=said, program=at)


def _said(arguments: Sequence[str]) -> str:
    """The program's command line; `OptionError` where no variable of CodeBuild holds it."""
    said = " ".join(shlex.quote(each) for each in arguments)
    if len(said) > _MOST_SAID:
        characters = most("codebuild.variable_characters")
        raise OptionError(
            "build",
            f"{len(said)} characters",
            f"says more than the {characters} characters that CodeBuild takes in a variable: name fewer 'parameters', "
            "or allow fewer findings in 'gate'",
        )
    return said


def _require_docker(project: codebuild.IProject, scope: Construct) -> None:
    """Refuse a project that cannot run Docker for the image, as far as that is known at synth."""
    require_same("account", "project", project, scope, "name one there")
    require_same("region", "project", project, scope, "name one there")
    made = project.node.default_child
    environment = made.environment if isinstance(made, codebuild.CfnProject) else None
    if not isinstance(environment, codebuild.CfnProject.EnvironmentProperty):
        return
    if environment.type not in _LINUX:
        rule = f"runs on {environment.type}, and the image is built on Linux with x86 processors: take a Linux image"
        raise OptionError("project", project.node.path, rule)
    if environment.privileged_mode is False:
        raise OptionError(
            "project", project.node.path, "is not privileged, which Docker needs: make it with privileged=True"
        )


_LINUX = ("LINUX_CONTAINER", "LINUX_GPU_CONTAINER", "LINUX_EC2")

_MOST_SAID = 3400
"""The longest command line in the template, whose tokens can be longer once they are resolved."""

_LOCK_FILE = ".lock"


def _docker_arguments(given: Mapping[str, str], context: Context) -> tuple[list[str], Mapping[str, Path]]:
    """The program's arguments for Docker's, and the files of the context, with the lock, which is long, as one more."""
    files = dict(context.files)
    told = [f"--build-arg={name}={value}" for name, value in given.items() if name != "LOCK"]
    if "LOCK" in given:
        files[_LOCK_FILE] = Path(context.folder.name) / "lock"
        files[_LOCK_FILE].write_text(given["LOCK"])
        told.append(f"--build-arg-file=LOCK={_LOCK_FILE}")
    return told, files


def _checks(gate: ScanGate | None) -> list[str]:
    """Arguments for the scan that decides whether the image is published."""
    if gate is None:
        return []
    allowed = sorted(f"{each.name}:{each.until}" for each in gate.allow)
    return [f"--fail-on={gate.fail_on}", *(f"--allow={each}" for each in allowed)]


def _parameters(scope: Construct, parameters: Sequence[str], project: codebuild.IProject) -> list[str]:
    """Arguments for the SSM parameters that name the image; the build is allowed to write them."""
    target = target_of(scope)
    options: list[str] = []
    for each in parameters:
        region, name = split_parameter(each)
        region = region or target.region
        if f"--parameter={region}:{name}" in options:
            raise OptionError("parameters", each, "is named twice: leave one out")
        if project.role is not None:
            arn = f"arn:{target.partition}:ssm:{region}:{target.account}:parameter{name}"
            _allow(project, ["ssm:PutParameter"], [arn])
        options.append(f"--parameter={region}:{name}")
    return options


def _records(build: CloudBuild, project: codebuild.IProject, repository: ecr.IRepository) -> list[str]:
    """Arguments for bills of materials; the build may read and write those of its own repository."""
    if build.records is None:
        return []
    if project.role is not None:  # None for a project imported by name
        objects = build.records.arn_for_objects(f"{repository.repository_name}/*")
        _allow(project, ["s3:GetObject", "s3:PutObject"], [objects])
        # Without this right S3 calls an object that is not there yet a forbidden one.
        _allow(project, ["s3:ListBucket"], [build.records.bucket_arn])
        if build.records.encryption_key is not None:
            build.records.encryption_key.grant_encrypt_decrypt(project)
    return [f"--records={build.records.bucket_name}"]


def proxy_variables(build: CloudBuild) -> dict[str, str]:
    """The proxy's environment variables, for calls to AWS's API."""
    if build.proxy is None:
        return {}
    return {"HTTP_PROXY": build.proxy, "HTTPS_PROXY": build.proxy, "NO_PROXY": ",".join(build.no_proxy)}


def _options(scope: Construct, build: CloudBuild, project: codebuild.IProject) -> list[str]:
    """Arguments of the program for the sources of packages; the project is granted access to them."""
    options = []
    if build.proxy is not None:
        options += [f"--proxy={build.proxy}", f"--no-proxy={','.join(build.no_proxy)}"]
    if build.package_index is not None:
        options.append(f"--package-index={build.package_index}")
    if build.pip_config is not None:
        if project.role is not None:  # None for a project imported by name
            build.pip_config.grant_read(project)
        options.append(f"--pip-config-secret={build.pip_config.secret_arn}")
    if build.code_artifact is not None:
        _grant_code_artifact(scope, build.code_artifact, project)
        options.append(f"--code-artifact={build.code_artifact}")
    if build.ca_bundle is not None:
        bundle = upload_file(scope, Path(build.ca_bundle))
        _allow(project, ["s3:GetObject"], [f"arn:{Aws.PARTITION}:s3:::{bundle.bucket}/{bundle.key}"])
        options.append(f"--ca-bundle=s3://{bundle.bucket}/{bundle.key}")
    return options


def _grant_code_artifact(scope: Construct, named: str, project: codebuild.IProject) -> None:
    domain, _, _ = named.partition("/")
    target = target_of(scope)
    _allow(project, ["codeartifact:GetAuthorizationToken"], [target.arn("codeartifact", f"domain/{domain}")])
    reads = ["codeartifact:GetRepositoryEndpoint", "codeartifact:ReadFromRepository"]
    _allow(project, reads, [target.arn("codeartifact", f"repository/{named}")])
    bearer = {"StringEquals": {"sts:AWSServiceName": "codeartifact.amazonaws.com"}}
    _allow(project, ["sts:GetServiceBearerToken"], ["*"], conditions=bearer)


def grant_build(
    project: codebuild.IProject, *, base: str, repository: ecr.IRepository, reads: Sequence[Uploaded]
) -> None:
    """Let the build read its files, pull its base, and push to the repository.

    A project that was imported by its name gets no grants, because its role is not known.
    """
    if project.role is None:
        return
    _allow(project, ["s3:GetObject"], [f"arn:{Aws.PARTITION}:s3:::{each.bucket}/{each.key}" for each in reads])
    for arn in _repositories_of(base):
        _allow(project, list(PULL), [arn])
    repository.grant_pull_push(project)
    _allow(project, ["ecr:DescribeImages", "ecr:DescribeImageScanFindings"], [repository.repository_arn])


def grant_listing(project: codebuild.IProject, *, base: str) -> None:
    """Let the build list the tags of its base's repository; nothing for a project that was imported by its name."""
    if project.role is not None:
        for arn in _repositories_of(base):
            _allow(project, ["ecr:ListImages"], [arn])


def _repositories_of(base: str) -> list[str]:
    """The ARN of the repository of a base; none for a base in another registry than ECR."""
    name = base.partition("/")[2].partition("@")[0].partition(":")[0]
    registries = ecr_registries([base])
    return [f"arn:{Aws.PARTITION}:ecr:{each.region}:{each.account}:repository/{name}" for each in registries]


def _allow(
    project: codebuild.IProject,
    actions: list[str],
    resources: list[str],
    conditions: Mapping[str, Any] | None = None,
) -> None:
    statement = iam.PolicyStatement(actions=actions, resources=resources, conditions=conditions)
    project.grant_principal.add_to_principal_policy(statement)


def _note_way_out(scope: Construct, network: Network) -> None:
    """Note subnets without a way out. CodeBuild's network interfaces have no public address (its user guide, "VPC")."""
    if way_out(network, has_address=False) is False:
        Annotations.of(scope).add_warning_v2(
            "extended-dlc:no-way-out",
            "the subnets of the build are isolated or public, and a build reaches the internet from neither: take "
            "subnets with a NAT gateway, or let a package index and endpoints of ECR, S3 and CloudWatch Logs be there",
        )


def _new_project(scope: Construct, build: CloudBuild, accelerator: str | None) -> codebuild.Project:
    compute = build.compute or ("small" if accelerator == "cpu" else "medium")
    network: dict[str, Any] = {}
    if build.network is not None:
        from aws_cdk import aws_ec2 as ec2

        network["vpc"] = build.network.vpc
        _note_way_out(scope, build.network)
        if build.network.subnets:
            network["subnet_selection"] = ec2.SubnetSelection(subnets=list(build.network.subnets))
        if build.network.security_groups:
            network["security_groups"] = list(build.network.security_groups)
    project = codebuild.Project(
        scope,
        "Project",
        description="Builds an extended Deep Learning Container and pushes it to its repository",
        environment=codebuild.BuildEnvironment(
            build_image=codebuild.LinuxBuildImage.STANDARD_7_0,
            compute_type=_COMPUTE[compute],
            privileged=True,  # Docker runs in it
        ),
        # Layers of the base and its packages, where CodeBuild happens to run on the same machine again.
        cache=codebuild.Cache.local(codebuild.LocalCacheMode.DOCKER_LAYER),
        build_spec=codebuild.BuildSpec.from_object(SPEC),
        timeout=Duration.seconds(LONGEST_SECONDS),
        queued_timeout=Duration.seconds(QUEUE_SECONDS),
        grant_report_group_permissions=False,  # a build of an image has no test reports
        role=build.role,
        **network,
    )
    if build.role is None:
        trust_builds_of_account(scope, project.role)
    return project


_COMPUTE = {
    "small": codebuild.ComputeType.SMALL,
    "medium": codebuild.ComputeType.MEDIUM,
    "large": codebuild.ComputeType.LARGE,
    "xlarge": codebuild.ComputeType.X_LARGE,
    "2xlarge": codebuild.ComputeType.X2_LARGE,
}
