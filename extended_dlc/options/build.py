"""Where and how the extended image is built."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from extended_dlc.options._values import OptionError

DOCKER_OUTPUT = "type=docker,oci-mediatypes=false"
"""The `--output` of every build by Docker. SageMaker refuses OCI manifests, and `type=docker` alone is none of Docker's
own media types any more: BuildKit 0.31 (Docker Engine 29.6) gives OCI's by default (moby/buildkit#6824 and #6844). An
older BuildKit knows the second key too; stores without it ignore it."""


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
