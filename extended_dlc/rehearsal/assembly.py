"""What an app needs from a rehearsal: the resource types, models and images in the templates of its synth."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from extended_dlc.decisions.environment import hub_adapters

_DLC = re.compile(
    r"(?:\d{12}\.dkr\.ecr\.[a-z0-9-]+\.amazonaws\.com(?:\.cn)?|public\.ecr\.aws/deep-learning-containers)"
    r"/(?P<repository>[a-z0-9][\w./-]*):(?P<tag>[\w.-]+)(?:@sha256:[0-9a-f]{64})?"
)
"""An image of a private registry with a literal account ID, or of AWS's public DLC registry."""

_FROM = re.compile(r"^\s*FROM\s+(?:--\S+\s+)*(\S+)", re.IGNORECASE | re.MULTILINE)
_MIRRORED = re.compile(r"--model=([\w./-]+)(?: --revision=([\w./-]+))?")
_CONTAINERS = ("AWS::SageMaker::Endpoint", "AWS::SageMaker::InferenceComponent", "AWS::StepFunctions::StateMachine")
_MODEL_VARIABLES = ("HF_MODEL_ID", "SM_VLLM_MODEL", "SM_HF_MODEL_ID")
_REVISION_VARIABLES = ("HF_MODEL_REVISION", "SM_VLLM_REVISION", "HF_REVISION")


@dataclass(frozen=True, kw_only=True, order=True)
class HubModelAsked:
    """A model of the Hub, as a container's environment names it."""

    id: str
    revision: str = ""
    """Empty for `main`."""

    task: str = ""
    """Empty where it is not set."""

    base: str = ""
    """The Hub ID of the model that this is an adapter of. Empty for a model."""


@dataclass(frozen=True, kw_only=True)
class Assembly:
    """The templates in the output folder of a synth."""

    folder: Path
    templates: Mapping[str, Mapping[str, Any]]
    """By the file's path in the folder, with the templates of stages and nested stacks."""

    environments: tuple[tuple[str, str], ...]
    """The account and region of each stack; `unknown-account` or `unknown-region` where the app does not set them."""

    @classmethod
    def read(cls, folder: Path) -> Assembly:
        """Read the output folder of a synth."""
        files = sorted({*folder.rglob("*.template.json"), *folder.rglob("*.nested.template.json")})
        found = {str(file.relative_to(folder)): json.loads(file.read_text("utf-8")) for file in files}
        return cls(folder=folder, templates=found, environments=tuple(dict.fromkeys(_environments(folder))))

    def types(self) -> dict[str, list[str]]:
        """Each resource type, with the logical IDs of its resources."""
        found: dict[str, list[str]] = {}
        for template in self.templates.values():
            for name, resource in template.get("Resources", {}).items():
                found.setdefault(str(resource.get("Type")), []).append(name)
        return dict(sorted(found.items()))

    def hub_models(self) -> tuple[HubModelAsked, ...]:
        """The models and adapters of the Hub that containers load, and the models that are mirrored."""
        found: dict[HubModelAsked, None] = {}
        for template in self.templates.values():
            for values in _objects(template.get("Resources", {})):
                name = next((values[each] for each in _MODEL_VARIABLES if isinstance(values.get(each), str)), "")
                if name and not name.startswith(("/", "s3:", ".")):
                    revision = next((str(values[each]) for each in _REVISION_VARIABLES if values.get(each)), "")
                    found[HubModelAsked(id=name, revision=revision, task=str(values.get("HF_TASK", "")))] = None
                    texts = {key: value for key, value in values.items() if isinstance(value, str)}
                    for adapter, at in hub_adapters(texts).values():
                        found[HubModelAsked(id=adapter, revision=at or "", base=name)] = None
            for name, revision in _MIRRORED.findall(json.dumps(template)):
                found[HubModelAsked(id=name, revision=revision)] = None
        return tuple(sorted(found))

    def dlc_images(self) -> dict[str, bool]:
        """AWS's images that are run or are base images; True where a Dockerfile names the image itself, in its FROM."""
        found: dict[str, bool] = {}
        for file in self.folder.rglob("*.assets.json"):
            for asset in json.loads(file.read_text("utf-8")).get("dockerImages", {}).values():
                source = asset.get("source", {})
                found |= {str(value): False for value in (source.get("dockerBuildArgs") or {}).values()}
                folder = file.parent / str(source.get("directory", ""))
                dockerfile = folder / (source.get("dockerFile") or "Dockerfile")
                if dockerfile.is_file():
                    found |= dict.fromkeys(_FROM.findall(dockerfile.read_text(errors="replace")), True)
        found = {**dict.fromkeys(self.images_run(), False), **found}
        return {name: by_name for name, by_name in found.items() if dlc_repository(name)}

    def images_run(self) -> set[str]:
        """The images of containers, where the template has the whole reference as a string."""
        resources = (template.get("Resources", {}) for template in self.templates.values())
        named = (each.get("Image") or each.get("TrainingImage") for each in _objects(list(resources)))
        return {image for image in named if isinstance(image, str)}

    def needs_engine(self) -> bool:
        """Whether an image is built or a container runs."""
        builds = any(
            json.loads(file.read_text("utf-8")).get("dockerImages") for file in self.folder.rglob("*.assets.json")
        )
        return builds or any(name in self.types() for name in _CONTAINERS)


def dlc_repository(image: str) -> str | None:
    """The repository of an image of AWS's, such as `huggingface-pytorch-inference`; None for any other image."""
    found = _DLC.fullmatch(image)
    return found["repository"] if found else None


def _environments(folder: Path) -> Iterator[tuple[str, str]]:
    """The account and region of each stack of a cloud assembly and of its nested assemblies."""
    manifest = folder / "manifest.json"
    content = json.loads(manifest.read_text("utf-8")) if manifest.is_file() else {}
    for artifact in content.get("artifacts", {}).values():
        if artifact.get("type") == "aws:cloudformation:stack":
            account, _, region = str(artifact["environment"]).removeprefix("aws://").partition("/")
            yield account, region
        elif artifact.get("type") == "cdk:cloud-assembly":
            yield from _environments(folder / artifact["properties"]["directoryName"])


def _objects(value: Any) -> Iterator[Mapping[str, Any]]:
    """All objects inside a part of a template."""
    if isinstance(value, Mapping):
        yield value
    for each in value.values() if isinstance(value, Mapping) else value if isinstance(value, list) else ():
        yield from _objects(each)
