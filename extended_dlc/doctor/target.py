"""What is about to be deployed, and from where."""

from __future__ import annotations

import functools
import json
import threading
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from extended_dlc.app.read import Raw, known_models
from extended_dlc.decisions.decide import Decision
from extended_dlc.decisions.part import other_variants
from extended_dlc.options.hosting import Instances

if TYPE_CHECKING:
    from extended_dlc.app.settings import Read


@dataclass(frozen=True, kw_only=True)
class Target:
    """A deployment: the folder of the app, its settings, and the container engine that builds its image.

    Settings may be incomplete or absent, as in other people's apps: what they do not say, no check asks about.
    """

    folder: Path
    settings: Mapping[str, Any]
    file: Path | None = None
    """Where the settings are from; None for `cdk.json`."""

    engine: str
    """Name or path of the engine's program, as the CDK CLI takes it."""

    aws: Aws = field(default_factory=lambda: Aws())

    @functools.cached_property
    def _read(self) -> Read:
        from extended_dlc.app.settings import read  # half of the checks do without

        known = known_models(self.file, self.folder)
        return read(Raw(origin="the settings", content=dict(self.settings)), looked_up=known)

    @property
    def decision(self) -> Decision | None:
        """What the app decides with the settings; None where they are wrong or say too little."""
        return self._read.decision if self._read.settings is not None else None

    @property
    def builds(self) -> bool:
        """Whether an image is built on this machine. True where the settings do not say."""
        image = self.settings.get("image")
        if not isinstance(image, Mapping):
            return True
        build = image.get("build")
        in_cloud = isinstance(build, Mapping) and build.get("kind") == "cloud"
        return image.get("kind", "extended") == "extended" and not in_cloud

    @property
    def region(self) -> str | None:
        """The region that is deployed to: that of the settings, or else of the caller's AWS configuration."""
        region = self.settings.get("region")
        return str(region) if region else self.aws.region

    @property
    def bases(self) -> list[str]:
        """The images that are extended."""
        return list(self._read.bases) if self._read.settings is not None else []

    @property
    def instances(self) -> dict[str, int]:
        """How many instances of each type the endpoints ask for, of several types the one that is tried first."""
        counts: dict[str, int] = {}
        for _, fleets in self._fleets:
            for fleet in fleets:
                first = fleet.instance_types[0]
                counts[first] = counts.get(first, 0) + fleet.instances
        return counts

    @property
    def builds_in_cloud(self) -> bool:
        """Whether the image is built by a project of CodeBuild that the deployment makes."""
        image = self.settings.get("image")
        build = image.get("build") if isinstance(image, Mapping) else None
        return isinstance(build, Mapping) and build.get("kind") == "cloud" and not build.get("project")

    @property
    def mirrors(self) -> bool:
        """Whether weights are copied from the Hub to S3 by a build of a project that the deployment makes."""
        return any(
            each.get("kind") == "mirrored" and not each.get("project")
            for each in _sections(self.settings.get("endpoints"), "weights")
        )

    @property
    def endpoint_types(self) -> dict[str, list[str]]:
        """The instance types of each endpoint, by its name."""
        return {
            name: list(dict.fromkeys(each for fleet in fleets for each in fleet.instance_types))
            for name, fleets in self._fleets
        }

    @property
    def _fleets(self) -> Iterator[tuple[str, list[Instances]]]:
        """The instances of each endpoint that has some, by its name: its own and those of more variants."""
        for decided in self.decision.endpoints if self.decision else ():
            hosting = decided.endpoint.hosting
            if isinstance(hosting, Instances):
                yield str(decided.endpoint.name), [hosting, *other_variants(hosting)]

    @property
    def needs_gpu(self) -> bool:
        """Whether an endpoint computes with GPUs."""
        parts = [part for each in (self.decision.endpoints if self.decision else ()) for part in each.parts]
        return any(instance.gpus for part in parts for instance in part.part.instances)

    @functools.cached_property
    def cdk_json(self) -> Mapping[str, Any]:
        """The app's cdk.json; empty where there is none, or none that can be read."""
        return _object(self.folder / "cdk.json")

    @functools.cached_property
    def pinned_cdk(self) -> str | None:
        """The release of the CDK CLI that the app's package.json pins."""
        package = _object(self.folder / "package.json")
        for section in ("devDependencies", "dependencies"):
            pinned = package.get(section)
            if isinstance(pinned, Mapping) and "aws-cdk" in pinned:
                return str(pinned["aws-cdk"]).lstrip("^~=v")
        return None


class Aws:
    """The caller's AWS account, asked with short timeouts and without repetition."""

    def __init__(self) -> None:
        self._lock = threading.Lock()

    @functools.cached_property
    def _session(self) -> Any:
        # imported here: half of the checks do without
        import boto3

        return boto3.Session()

    @property
    def region(self) -> str | None:
        """The region of the caller's configuration."""
        with self._lock:
            region: str | None = self._session.region_name
        return region

    def client(self, service: str, region: str | None) -> Any:
        """A client; sessions are for one thread at a time, and the credentials are looked up once."""
        from botocore.config import Config

        quick = Config(connect_timeout=2, read_timeout=4, retries={"total_max_attempts": 1})
        with self._lock:
            return self._session.client(service, region_name=region, config=quick)


def _sections(settings: object, name: str) -> Iterator[Mapping[str, Any]]:
    """All sections of a name, in endpoints, variants and components alike."""
    if isinstance(settings, Mapping):
        for key, each in settings.items():
            if key == name and isinstance(each, Mapping):
                yield each
            yield from _sections(each, name)
    elif isinstance(settings, list):
        for each in settings:
            yield from _sections(each, name)


def _object(file: Path) -> Mapping[str, Any]:
    try:
        content = json.loads(file.read_text())
    except (OSError, ValueError):
        return {}
    return content if isinstance(content, Mapping) else {}
