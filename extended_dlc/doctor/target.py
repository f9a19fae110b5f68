"""The deployment that the checks are about."""

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

    Settings may be incomplete or absent, as in apps without them: checks ignore what they do not contain.
    """

    folder: Path
    settings: Mapping[str, Any]
    file: Path | None = None
    """The file of the settings; None for `cdk.json`."""

    engine: str
    """Name or path of the engine's program, as for the CDK CLI."""

    aws: Aws = field(default_factory=lambda: Aws())

    @functools.cached_property
    def _read(self) -> Read:
        from extended_dlc.app.settings import read  # half of the checks do not need it

        known = known_models(self.file, self.folder)
        return read(Raw(origin="the settings", content=dict(self.settings)), looked_up=known)

    @property
    def decision(self) -> Decision | None:
        """The app's decision for the settings; None if they are invalid or incomplete."""
        return self._read.decision if self._read.settings is not None else None

    @property
    def builds(self) -> bool:
        """Whether an image is built on this machine. True if the settings do not tell."""
        image = self.settings.get("image")
        if not isinstance(image, Mapping):
            return True
        build = image.get("build")
        in_cloud = isinstance(build, Mapping) and build.get("kind") == "cloud"
        return image.get("kind", "extended") == "extended" and not in_cloud

    @property
    def region(self) -> str | None:
        """The region of the deployment: that of the settings, or else of the AWS configuration."""
        region = self.settings.get("region")
        return str(region) if region else self.aws.region

    @property
    def bases(self) -> list[str]:
        """The base images to pull."""
        return list(self._read.bases) if self._read.settings is not None else []

    @property
    def instances(self) -> dict[str, int]:
        """The number of instances of each type; for a fleet with several types only its first one counts."""
        counts: dict[str, int] = {}
        for _, fleets in self._fleets:
            for fleet in fleets:
                first = fleet.instance_types[0]
                counts[first] = counts.get(first, 0) + fleet.instances
        return counts

    @property
    def builds_in_cloud(self) -> bool:
        """Whether the image is built by a CodeBuild project that the deployment creates."""
        image = self.settings.get("image")
        build = image.get("build") if isinstance(image, Mapping) else None
        return isinstance(build, Mapping) and build.get("kind") == "cloud" and not build.get("project")

    @property
    def mirrors(self) -> bool:
        """Whether weights are copied from the Hub to S3 by a CodeBuild project that the deployment creates."""
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
        """The fleets of each endpoint with instances, by its name: the main variant's and those of further variants."""
        for decided in self.decision.endpoints if self.decision else ():
            hosting = decided.endpoint.hosting
            if isinstance(hosting, Instances):
                yield str(decided.endpoint.name), [hosting, *other_variants(hosting)]

    @property
    def needs_gpu(self) -> bool:
        """Whether an endpoint has GPU instances."""
        parts = [part for each in (self.decision.endpoints if self.decision else ()) for part in each.parts]
        return any(instance.gpus for part in parts for instance in part.part.instances)

    @functools.cached_property
    def cdk_json(self) -> Mapping[str, Any]:
        """The app's cdk.json; empty if it is missing or unreadable."""
        return _object(self.folder / "cdk.json")

    @functools.cached_property
    def pinned_cdk(self) -> str | None:
        """The CDK CLI release that the app's package.json pins."""
        package = _object(self.folder / "package.json")
        for section in ("devDependencies", "dependencies"):
            pinned = package.get(section)
            if isinstance(pinned, Mapping) and "aws-cdk" in pinned:
                return str(pinned["aws-cdk"]).lstrip("^~=v")
        return None


class Aws:
    """The caller's AWS account; clients have short timeouts and no retries."""

    def __init__(self) -> None:
        self._lock = threading.Lock()

    @functools.cached_property
    def _session(self) -> Any:
        # Imported here, because half of the checks do not need it.
        import boto3

        return boto3.Session()

    @property
    def region(self) -> str | None:
        """The region of the AWS configuration."""
        with self._lock:
            region: str | None = self._session.region_name
        return region

    def client(self, service: str, region: str | None) -> Any:
        """A client. The lock is needed because sessions are not thread-safe; all clients share the credentials."""
        from botocore.config import Config

        quick = Config(connect_timeout=2, read_timeout=4, retries={"total_max_attempts": 1})
        with self._lock:
            return self._session.client(service, region_name=region, config=quick)


def _sections(settings: object, name: str) -> Iterator[Mapping[str, Any]]:
    """All sections with a name, at any depth, as in endpoints, variants and components."""
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
        content = json.loads(file.read_text("utf-8"))
    except (OSError, ValueError):
        return {}
    return content if isinstance(content, Mapping) else {}
