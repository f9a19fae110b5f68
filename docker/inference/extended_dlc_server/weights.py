"""The model's files: where they are, what `config.json` says, and why a model could not be made of them."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from .errors import StartError
from .settings import Settings


@dataclass(frozen=True, kw_only=True)
class Weights:
    """A folder with a model's files, and where they are from."""

    folder: Path
    """What `from_pretrained` gets."""

    name: str
    """What the log calls them: the Hub id, or the folder."""

    def config(self) -> dict[str, Any]:
        """`config.json` as it stands, which an unknown model type does not keep from being read."""
        try:
            config = json.loads((self.folder / "config.json").read_text(encoding="utf-8"))
        except (OSError, ValueError) as error:
            raise StartError(f"config.json of {self.name} cannot be read: {error}") from error
        return dict(config)


def find_weights(settings: Settings) -> Weights:
    """SageMaker's folder if it holds a model, otherwise what is downloaded from the Hub."""
    if settings.model_source != settings.model_id:
        return Weights(folder=settings.model_folder, name=str(settings.model_folder))
    from huggingface_hub import snapshot_download

    other_frameworks = ["*.h5", "*.msgpack", "*.ot", "*.onnx", "*.tflite"]
    try:
        folder = snapshot_download(
            settings.model_source,
            revision=settings.revision,
            token=settings.token,
            ignore_patterns=other_frameworks,
        )
    except Exception as error:
        raise StartError(f"{settings.model_id} cannot be downloaded: {type(error).__name__}: {error}") from error
    return Weights(folder=Path(folder), name=settings.model_source)


def why_not_loaded(error: Exception, name: str, version: str) -> str:
    """What to change so that transformers can make a model of these files."""
    text = str(error)
    if "trust_remote_code" in text:
        return f"{name} brings Python code of its own: set HF_TRUST_REMOTE_CODE to 'true' if you trust it ({text})"
    if isinstance(error, KeyError) or "does not recognize this architecture" in text:
        return f"transformers {version} does not know the model type of {name}: build the image with a newer release"
    return f"{name} cannot be loaded with transformers {version}: {type(error).__name__}: {text}"
