"""Finds the model's files and its adapters: in SageMaker's model folder, or by download from the Hub."""

from __future__ import annotations

import logging
import pickle
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path, PurePosixPath
from typing import Any

from ..errors import StartError
from ..settings import ADAPTER_NAME, MOST_ADAPTERS, Settings
from .adapters import Adapter, require_peft, without_adapter
from .complete import (
    ADAPTER_CONFIG,
    SERVED,
    TORCH,
    VOCABULARIES,
    Incomplete,
    check_contents,
    has_weights,
    names_in,
    not_json,
    read_json,
    weight_files,
    why_no_model,
)
from .downloads import readable, snapshot_of
from .sentence_modules import MODULES

log = logging.getLogger(__name__)

_NAMED = ("HF_MODEL_ID", "HF_MODEL_REVISION")
_NAMED_ADAPTER = ("an adapter of EXTENDED_DLC_ADAPTERS", "a revision in EXTENDED_DLC_ADAPTERS")
"""What names a repository and its revision."""


@dataclass(frozen=True, kw_only=True)
class Weights:
    """A folder with a model's files, and their origin."""

    folder: Path
    """The folder that `from_pretrained` gets."""

    name: str
    """The name in log and error messages: the Hub id and revision, or the folder."""

    adapter: Adapter | None = None
    """The adapter to merge into the loaded model. Default: none."""

    def config(self) -> dict[str, Any]:
        """Return `config.json` as JSON, which also works for a model type that transformers does not know.

        An adapter's `config.json` takes precedence: its head can have other labels than the base's.
        """
        return read_json(self.config_folder / "config.json", self.name)

    @property
    def config_folder(self) -> Path:
        has_one = self.adapter is not None and (self.adapter.folder / "config.json").is_file()
        return self.adapter.folder if self.adapter and has_one else self.folder

    @property
    def modules_folder(self) -> Path:
        """The folder of the sentence-transformers files: an adapter may come with those of its training."""
        has_one = self.adapter is not None and (self.adapter.folder / MODULES).is_file()
        return self.adapter.folder if self.adapter and has_one else self.folder

    @property
    def tokenizer_folder(self) -> Path:
        """The folder of the tokenizer: an adapter may come with the one of its training."""
        return self.adapter.folder if self.adapter and self.adapter.has_tokenizer else self.folder

    def files(self) -> list[Path]:
        """Return the weight files; raise `StartError` if one is missing or must not be loaded."""
        return weight_files(self.folder, self.name)

    def check(self) -> None:
        """Raise `StartError` unless the files are a complete model, judged by their names, headers and sizes."""
        if why := why_no_model(names_in(self.folder), self.name):
            raise StartError(why)
        check_contents(self.folder, [file.name for file in self.files()], self.name)

    def described(self) -> str:
        """Return name, folder and size for the log."""
        location = "" if str(self.folder) == self.name else f" in {self.folder}"
        adapter = f" with the adapter {self.adapter.name}" if self.adapter else ""
        return f"{self.name}{location}, {readable(self.size)} of weights{adapter}"

    @property
    def size(self) -> int:
        """Bytes of the weight files: about the memory that the weights take in their stored precision."""
        return sum(file.stat().st_size for file in self.files() if file.suffix in TORCH)


def find_weights(settings: Settings, incomplete: Incomplete | None = None, *, every_file: bool = False) -> Weights:
    """Find the model in SageMaker's folder, or else download it from the Hub.

    `every_file` is for a `model_fn`, which may open any file. Otherwise the files are checked to be a complete model,
    an adapter gets its base model, and anything missing goes to `incomplete`.
    """
    folder = settings.model_folder
    delivered = Weights(folder=folder, name=str(folder))
    if every_file:
        return (
            delivered if settings.model_folder_holds_a_model else _from_hub(settings.model_source, settings, every_file)
        )
    incomplete = incomplete or Incomplete(allowed=settings.allow_incomplete)
    if settings.model_id is None or settings.model_folder_holds_a_model or settings.model_folder_holds_an_adapter:
        _ = settings.model_source  # raises the error message for a folder without a model
        delivered.check()
        return _with_base(delivered, settings, incomplete)
    if settings.program_file is None and (why := _forgotten(folder)):
        raise StartError(f"HF_MODEL_ID ('{settings.model_id}') would be served instead of what was delivered: {why}")
    return _with_base(_from_hub(settings.model_id, settings, every_file), settings, incomplete)


def _forgotten(folder: Path) -> str | None:
    """Explain why a model in the folder would be ignored; None if there is none."""
    names = names_in(folder)
    return (
        why_no_model(names, str(folder))
        if any(name.endswith((*TORCH, "config.json", ".gguf")) for name in names)
        else None
    )


def _with_base(found: Weights, settings: Settings, incomplete: Incomplete) -> Weights:
    """Return the weights, or for an adapter its base model with the adapter."""
    if not (found.folder / ADAPTER_CONFIG).is_file():
        return found
    adapter = Adapter(folder=found.folder, name=found.name, config=read_json(found.folder / ADAPTER_CONFIG, found.name))
    can_apply = require_peft(adapter, incomplete)
    if has_weights(names_in(found.folder)):
        folder = Path(tempfile.mkdtemp(prefix="model-without-adapter-"))
        base = Weights(folder=without_adapter(found.folder, folder), name=found.name)
    else:
        given = settings.model_id if found.folder == settings.model_folder else None
        wanted = given or adapter.base
        if wanted is None:
            raise StartError(
                f"{adapter.name} is an adapter and its base ('{adapter.config.get('base_model_name_or_path')}') is not "
                "a model of the Hub: set HF_MODEL_ID to the base and deliver the adapter in the model folder, or "
                "deliver the base's files beside the adapter's"
            )
        if given and adapter.base and given != adapter.base:
            log.warning("the adapter was trained on %s and goes onto %s (HF_MODEL_ID)", adapter.base, given)
        revision = settings.revision if given else adapter.revision
        named = (
            _NAMED if given else (f"the base of the adapter {adapter.name}", f"the revision in its {ADAPTER_CONFIG}")
        )
        base = _from_hub(wanted, replace(settings, revision=revision), False, named)
        if (base.folder / ADAPTER_CONFIG).is_file():
            raise StartError(
                f"{base.name}, the base of the adapter {adapter.name}, is an adapter itself: merge it into its own "
                "base (merge_and_unload), and name the result"
            )
    if not can_apply:
        return base
    log.info("the adapter %s goes onto %s", adapter.name, base.name)
    return replace(base, adapter=adapter)


def _from_hub(model_id: str, settings: Settings, every_file: bool, named: tuple[str, str] = _NAMED) -> Weights:
    folder, name = snapshot_of(model_id, settings, every_file, named)
    return Weights(folder=folder, name=name)


def find_adapters(settings: Settings, incomplete: Incomplete) -> list[Adapter]:
    """Find the adapters to serve beside the model: in the model folder's `adapters/`, and those of the Hub."""
    folder = settings.model_folder / SERVED
    inside = sorted(one for one in folder.iterdir() if one.is_dir()) if folder.is_dir() else []
    sources: list[tuple[str, Callable[[], Weights]]] = []
    for one in inside:
        if not ADAPTER_NAME.fullmatch(one.name):
            raise StartError(f"{one} is named by no name of an adapter: up to 64 letters, digits, '.', '_' and '-'")
        sources.append((one.name, partial(Weights, folder=one, name=str(one))))
    for named in settings.adapters:
        of_it = replace(settings, revision=named.revision)
        sources.append((named.name, partial(_from_hub, named.model_id, of_it, False, _NAMED_ADAPTER)))
    names = [name for name, _ in sources]
    if twice := [name for name in (settings.served_name, *names) if [settings.served_name, *names].count(name) > 1]:
        raise StartError(f"'{twice[0]}' would be the name of two models or adapters: give one of them another name")
    if len(sources) > MOST_ADAPTERS:
        raise StartError(f"{len(sources)} adapters are more than the {MOST_ADAPTERS} that one container serves")
    found = [_served_adapter(name, source(), settings) for name, source in sources]
    return found if found and require_peft(found[0], incomplete) else []


def _served_adapter(name: str, found: Weights, settings: Settings) -> Adapter:
    found.check()
    if not (found.folder / ADAPTER_CONFIG).is_file():
        raise StartError(f"{found.name} is no adapter, but a whole model: serve it by an endpoint of its own")
    adapter = Adapter(folder=found.folder, name=name, config=read_json(found.folder / ADAPTER_CONFIG, found.name))
    if settings.model_id and adapter.base and adapter.base != settings.model_id:
        log.warning("the adapter %s was trained on %s and is served with %s", name, adapter.base, settings.model_id)
    return adapter


def why_not_loaded(error: Exception, weights: Weights, version: str) -> str:
    """Explain why transformers could not load these files, and what to change."""
    name, text = weights.name, str(error)
    if "load tokenizer" in text or "backend tokenizer" in text or _is_about_tokenizers(error):
        folder = weights.tokenizer_folder
        present = [name for name in VOCABULARIES if (folder / name).is_file()]
        if not present:
            return (
                f"{name} has no tokenizer ({', '.join(VOCABULARIES[:3])} …), and nothing can be asked without: deliver "
                "the files too that tokenizer.save_pretrained writes"
            )
        return (
            f"the tokenizer of {name} cannot be made of {', '.join(present)} with transformers {version} "
            f"({type(error).__name__}: {text.splitlines()[0] if text else ''}): deliver all files that "
            "tokenizer.save_pretrained writes, or build the image with the release that wrote them"
        )
    if any(part in text for part in ("feature extractor", "image processor", "preprocessor_config.json")):
        return (
            f"{name} has no preprocessor_config.json, without which sounds and images cannot be read: deliver the "
            f"files too that processor.save_pretrained writes ({text.partition('. If you were')[0]})"
        )
    if "trust_remote_code" in text:
        return f"{name} brings Python code of its own: set HF_TRUST_REMOTE_CODE to 'true' if you trust it ({text})"
    if isinstance(error, ImportError):
        return (
            f"{name} needs a package that this image lacks ({text.splitlines()[0] if text else type(error).__name__}): "
            "name it in code/requirements.txt, or choose a repository with weights that need none"
        )
    if "does not recognize this architecture" in text or (isinstance(error, KeyError) and not _knows_type_of(weights)):
        if "auto_map" in weights.config():
            return (
                f"{name} brings Python code of its own, and transformers {version} does not know its model type: set "
                "HF_TRUST_REMOTE_CODE to 'true' if you trust it, or build the image with a release that knows the type"
            )
        return f"transformers {version} does not know the model type of {name}: build the image with a newer release"
    if "Unknown quantization" in text:
        return (
            f"{name} is quantized by a method that transformers {version} does not know: build the image with a newer "
            f"release, or choose the weights of before ({text.partition(' - ')[0]})"
        )
    if any(isinstance(one, pickle.UnpicklingError) for one in _chain(error)):
        return (
            f"{name} has pickles that hold more than weights, and torch does not open those: convert them where you "
            "trust them (from_pretrained, save_pretrained), or choose a repository with safetensors"
        )
    if broken := _broken_json(weights):
        return broken
    return f"{name} cannot be loaded with transformers {version}: {type(error).__name__}: {text}"


def _knows_type_of(weights: Weights) -> bool:
    from transformers.models.auto.configuration_auto import CONFIG_MAPPING

    return weights.config().get("model_type") in CONFIG_MAPPING


def _chain(error: BaseException | None) -> Iterator[BaseException]:
    """Yield an error and those that it was raised for."""
    while error is not None:
        yield error
        error = error.__cause__ or error.__context__


def _broken_json(weights: Weights) -> str | None:
    """Name the first file of settings that is no JSON: the error of a library tells the place and not the file."""
    for file in sorted(weights.folder.glob("*.json")):
        if why := not_json(file):
            return f"{file.name} of {weights.name} is no JSON ({why}): deliver or upload it again"
    return None


def _is_about_tokenizers(error: Exception) -> bool:
    """Whether a tokenizer module raised the error: older releases raise obscure ones if a file is missing."""
    trace, last = error.__traceback__, ""
    while trace is not None:
        last, trace = trace.tb_frame.f_code.co_filename, trace.tb_next
    return "tokeniz" in PurePosixPath(last).name
