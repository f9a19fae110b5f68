"""Where and how the extended image is built."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import TYPE_CHECKING, Literal
from urllib.parse import urlsplit

from extended_dlc.facts.limits import most
from extended_dlc.options._kinds import check_types
from extended_dlc.options._values import OptionError, is_token, require_known, require_length, within
from extended_dlc.options.network import Network

if TYPE_CHECKING:
    from aws_cdk import aws_codebuild as codebuild
    from aws_cdk import aws_iam as iam
    from aws_cdk import aws_s3 as s3
    from aws_cdk import aws_secretsmanager as secretsmanager

DOCKER_OUTPUT = "type=docker,oci-mediatypes=false"
"""The `--output` of every build by Docker. SageMaker refuses OCI manifests, and `type=docker` alone is none of Docker's
own media types any more: BuildKit 0.31 (Docker Engine 29.6) gives OCI's by default (moby/buildkit#6824 and #6844). An
older BuildKit knows the second key too; stores without it ignore it."""


@check_types
@dataclass(frozen=True, kw_only=True)
class LocalBuild:
    """Built by the container engine of the machine that runs `cdk deploy`.

    None of these options changes the image, so none of them changes its hash.
    """

    engine: Literal["docker", "podman"] = "docker"
    """Which engine `CDK_DOCKER` names. SageMaker refuses OCI manifests, so Docker is asked for its own media types
    (`--output type=docker,oci-mediatypes=false`); podman does not know that option and wants `BUILDAH_FORMAT=docker` in
    the environment of `cdk deploy` instead. Default: Docker."""

    pip_config: str | None = None
    """A pip configuration file that pip uses inside the build, for companies with a package index of their own. It is
    mounted as a build secret and stays in no layer. ValueError when there is no such file. Default: none."""

    ca_bundle: str | None = None
    """A file of certificates in PEM form that pip trusts inside the build, mounted as a build secret. ValueError when
    there is no such file. Default: the base image's own certificates."""

    def __post_init__(self) -> None:
        """Refuse files that are not there."""
        for option in ("pip_config", "ca_bundle"):
            file = getattr(self, option)
            if file is not None and not Path(file).is_file():
                raise OptionError(option, file, "is not a file: correct the path, or leave the option out")

    @property
    def outputs(self) -> list[str] | None:
        """The `--output` options of the build."""
        return [DOCKER_OUTPUT] if self.engine == "docker" else None

    @property
    def secrets(self) -> dict[str, str]:
        """The build secrets by their ids in the Dockerfile."""
        files = {"pip-config": self.pip_config, "ca-bundle": self.ca_bundle}
        return {name: f"src={Path(file).resolve()}" for name, file in files.items() if file is not None}


@check_types
@dataclass(frozen=True, kw_only=True)
class AllowedFinding:
    """A vulnerability that is accepted in an image until a date."""

    name: str
    """Its name, such as `CVE-2026-12345`."""

    until: str
    """The last day on which it is accepted, such as `2027-01-31`. ValueError for anything that is no date."""

    reason: str
    """Why it is accepted, for later readers of the settings."""

    def __post_init__(self) -> None:
        """Refuse dates and names that the build could not compare."""
        try:
            date.fromisoformat(self.until)
        except ValueError:
            raise OptionError("until", self.until, "must be a day, as 2027-01-31") from None
        if not re.fullmatch(r"[\w.-]+", self.name):
            raise OptionError("name", self.name, "must be the name of one vulnerability, as CVE-2026-12345")
        if not self.reason.strip():
            raise OptionError("reason", rule="must say why it is allowed")


@check_types
@dataclass(frozen=True, kw_only=True)
class ScanGate:
    """ECR's scan of an image, which decides whether the image is published.

    Each build waits for the scan; an image that does not pass stays in the repository, and nothing names it.
    """

    fail_on: Literal["LOW", "MEDIUM", "HIGH", "CRITICAL"] = "CRITICAL"
    """The lowest severity that fails the build; a finding of an unknown severity fails it too. Default: `CRITICAL`."""

    allow: Sequence[AllowedFinding] = ()
    """Findings that do not fail it, until their dates. Default: none."""


@check_types
@dataclass(frozen=True, kw_only=True)
class CloudBuild:
    """CodeBuild builds the image in the account of the stack: `cdk deploy` needs no container engine and no disk.

    The same context under the same hash as of `LocalBuild`, pushed straight to the image's repository. None of these
    options changes the image, so none of them changes its hash.
    """

    compute: Literal["small", "medium", "large", "xlarge", "2xlarge"] | None = None
    """CodeBuild's machine, with 64, 128, 128, 256 or 824 GB of disk (CodeBuild user guide, "Build environment
    compute modes and types"). New accounts have quota for `small`, if for any.
    Default: `small` for an image that computes with CPUs, `medium` for the larger ones."""

    timeout_minutes: int = 60
    """How long the build may take, 10 to 480 minutes. Default: 60."""

    network: Network | None = None
    """A VPC that the build runs in. Docker pulls the base and pushes the image through it: endpoints of ECR and S3, or
    a way to the internet. ValueError with `project`. Default: CodeBuild's own, with the internet."""

    proxy: str | None = None
    """Address of a proxy, as `http://proxy:3128`, for the package installer and AWS's API. Docker itself does not use
    it for pulls and pushes. ValueError for what is no address, or has a password. Default: none."""

    no_proxy: Sequence[str] = ()
    """Hosts to reach without the proxy. Default: none."""

    package_index: str | None = None
    """Address of a package index in place of PyPI. ValueError for one with a password. Default: PyPI."""

    code_artifact: str | None = None
    """A repository of CodeArtifact in the same account as the package index, as `domain/repository`; the build gets a
    token of its own. Default: none."""

    pip_config: secretsmanager.ISecret | None = None
    """A secret whose text is a pip configuration file, for example for an index with a password. Default: none."""

    ca_bundle: str | None = None
    """A file of certificates in PEM form that pip trusts inside the build. ValueError when there is no such file.
    Default: the base image's own certificates."""

    role: iam.IRole | None = None
    """The role of the build. It is granted what the build needs, unless it is imported as immutable. ValueError with
    `project`. Default: a new role with these rights alone."""

    gate: ScanGate | None = None
    """What ECR's scan may find in the image; the repository must scan on push, as new ones do. Default: no check."""

    parameters: Sequence[str] = ()
    """Parameters of Systems Manager that name the image by its digest after each build, as `/images/text`, or in
    another region `eu-west-1:/images/text`. The build writes them, and they stay when the stack is deleted. Default:
    none."""

    advanced_parameters: bool = False
    """Whether the parameters are advanced ones, which are billed and can be shared with other accounts. Default: no."""

    records: s3.IBucket | None = None
    """The bucket that keeps a bill of materials of each image that is built (CycloneDX, Python packages alone), named
    by the image's digest, and what changed in packages since the one before. Default: none; `ImageStack` has its own.
    """

    project: codebuild.IProject | None = None
    """The CodeBuild project that builds, privileged, on a Linux image with Docker, buildx and Python 3.9 or newer; its
    role is granted what the build needs. Default: a new one."""

    def __post_init__(self) -> None:
        """Refuse options that contradict each other, and passwords, which would be readable in the template."""
        for option in ("no_proxy", "parameters"):
            require_length(option, getattr(self, option))
        require_known("timeout_minutes", self.timeout_minutes, "it is converted into seconds")
        within("timeout_minutes", self.timeout_minutes, 10, 480, "CodeBuild ends a build after eight hours")
        for option in ("proxy", "package_index"):
            _check_address(option, getattr(self, option))
        if wrong := [each for each in self.no_proxy if not is_token(each) and not _HOST.fullmatch(each)]:
            raise OptionError(
                "no_proxy", wrong[0], "must be a host, a domain as .example.com, or a network, each alone"
            )
        if self.no_proxy and self.proxy is None:
            raise OptionError("no_proxy", ", ".join(self.no_proxy), "needs 'proxy': name it, or leave this out")
        indexes = [each for each in ("package_index", "code_artifact", "pip_config") if getattr(self, each) is not None]
        if len(indexes) > 1:
            raise OptionError(indexes[1], rule=f"and '{indexes[0]}' say both where packages come from: give one")
        artifact = self.code_artifact
        # The rights name the domain and the repository, so the '/' between them must be known; both may be tokens.
        names = artifact.split("/") if artifact is not None else ["domain", "repository"]
        if len(names) != 2 or not all(is_token(each) or re.fullmatch(r"[\w.-]+", each) for each in names):
            raise OptionError("code_artifact", artifact, "must be a domain and a repository, as domain/repository")
        for parameter in self.parameters:
            name = split_parameter(parameter)[1]
            if not is_token(parameter) and not re.fullmatch(r"(/[\w.-]+){1,15}", name, re.ASCII):
                raise OptionError("parameters", parameter, "must be the name of a parameter, as /images/text")
            if not is_token(parameter) and len(name) > most("parameter.name_characters"):
                characters = most("parameter.name_characters")
                rule = f"has {len(name)} characters, and Systems Manager takes {characters}: shorten it"
                raise OptionError("parameters", f"{name[:40]}…", rule)
            require_unreserved("parameters", split_parameter(parameter)[1])
        if self.ca_bundle is not None and not Path(self.ca_bundle).is_file():
            raise OptionError("ca_bundle", self.ca_bundle, "is not a file: correct the path, or leave the option out")
        for option in ("role", "network", "compute"):
            if self.project is not None and getattr(self, option) is not None:
                raise OptionError(option, rule="is for a new project: set it in the one that you give as 'project'")


_HOST = re.compile(r"[\w.*:/\[\]-]+", re.ASCII)


def require_unreserved(option: str, name: str) -> None:
    """Refuse names of parameters that Systems Manager refuses (its user guide, "Parameter name requirements")."""
    if re.match(r"/?(aws|ssm)", name, re.IGNORECASE):
        raise OptionError(option, name, "begins with 'aws' or 'ssm', which no parameter's name may: choose another")


def split_parameter(parameter: str) -> tuple[str, str]:
    """The region of a parameter, empty where it is not said, and its name; a CDK token's text may have colons."""
    found = re.fullmatch(r"(?:([a-z]{2}(?:-[a-z]+)+-\d):)?(.*)", parameter, re.DOTALL)
    assert found is not None  # noqa: S101 - the expression matches any text
    return found[1] or "", found[2]


def _check_address(option: str, address: str | None) -> None:
    if address is None or is_token(address):
        return
    parts = urlsplit(address)
    try:
        is_one = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except ValueError:  # of the port
        is_one = False
    if not is_one or not re.fullmatch(r"[!#-&(-~]+", address):  # printed characters but quotes and spaces
        raise OptionError(option, address, "must be an address that begins with http:// or https://")
    if parts.password is not None:
        raise OptionError(
            option,
            f"{parts.scheme}://…@{parts.hostname}",
            "has a password, which whoever reads the template would see: put a pip configuration into a secret and "
            "give it as 'pip_config'",
        )
    if parts.query or parts.fragment:
        raise OptionError(
            option,
            f"{parts.scheme}://{parts.hostname}…",
            "has a query, which may be a secret and which whoever reads the template would see: leave it out, or put "
            "a pip configuration into a secret and give it as 'pip_config'",
        )


Build = LocalBuild | CloudBuild
"""Where an image is built."""
