"""Checks that files are a complete model that transformers can load, with the same messages for S3 and the Hub."""

from __future__ import annotations

import json
import logging
import re
import zipfile
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from contextlib import suppress
from fnmatch import fnmatch
from pathlib import Path, PurePosixPath
from typing import Any

from ..errors import StartError

log = logging.getLogger(__name__)

# The files that from_pretrained looks for, in its order. An index lists the shards of the weights.
_MODELS = ("model.safetensors", "model.safetensors.index.json", "pytorch_model.bin", "pytorch_model.bin.index.json")
ADAPTERS = ("adapter_model.safetensors", "adapter_model.bin")
ADAPTER_CONFIG = "adapter_config.json"
SERVED = "adapters"
"""The folder in the model folder with a sub-folder for each adapter that is served beside the model."""


VOCABULARIES = (
    *("tokenizer.json", "vocab.json", "vocab.txt", "tokenizer.model", "spiece.model", "sentencepiece.bpe.model"),
    *("spm.model", "source.spm", "tekken.json"),
)
"""Names of the main file of most tokenizers."""

TORCH = (".safetensors", ".bin", ".pt", ".pth", ".ckpt")
"""File name suffixes of PyTorch weights."""

_SHARD = re.compile(r"(.+)-\d+-of-\d+(\.safetensors|\.bin)")
_STATE = ("optimizer.", "random_states", "rng_state", "scaler.", "scheduler.", "training_args.")
"""How the files begin that a training writes beside the weights, to go on from them."""

_SETTINGS = ("generation_config.json", "preprocessor_config.json", "processor_config.json", "tokenizer_config.json")
"""Small files without which transformers goes on, and answers otherwise."""

_LFS = b"version https://git-lfs.github.com/spec/"
_POINTER_BYTES = 1024
"""The largest pointer file that git-lfs accepts."""

ALLOW = "EXTENDED_DLC_ALLOW_INCOMPLETE"


class Incomplete:
    """Collects what the model lacks. The first entry fails the start, unless incomplete models are allowed."""

    def __init__(self, *, allowed: bool) -> None:
        self._allowed = allowed
        self._lacks: list[str] = []

    def add(self, lack: str) -> None:
        """Raise `StartError`, or collect the entry if incomplete models are allowed."""
        if not self._allowed:
            raise StartError(f"{lack}. To serve it as it is, set {ALLOW} to 'true'")
        if lack not in self._lacks:
            self._lacks.append(lack)

    def tell(self, name: str) -> None:
        """Log in one line everything that the model lacks."""
        if self._lacks:
            log.error("%s is served although it is not complete (%s): %s", name, ALLOW, "; ".join(self._lacks))


def some(names: Iterable[str], most: int = 4) -> str:
    """Format the first names, and the number of the others."""
    names = sorted(names)
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(names[:most]) + more


def pick(names: Collection[str], read: Callable[[str], Mapping[str, Any]]) -> list[str]:
    """Return the weight files that from_pretrained would load, safetensors before pickles; empty if there are none."""
    picked: list[str] = []
    for alternatives in (_MODELS, ADAPTERS):
        for name in [name for name in alternatives if name in names][:1]:
            picked.append(name)
            if name.endswith(".index.json"):
                picked += sorted(set(read(name).get("weight_map", {}).values()))
    return picked


def has_weights(names: Collection[str]) -> bool:
    """Whether the files include a model's weights; those of an adapter do not count."""
    return any(name in names for name in _MODELS)


def names_in(folder: Path) -> list[str]:
    """Return the relative paths of the model's files in three levels of a folder, without hidden ones.

    `code/` and the adapters beside the model are left out.
    """
    if not folder.is_dir():
        return []
    files = [file for pattern in ("*", "*/*", "*/*/*") for file in folder.glob(pattern) if file.is_file()]
    names = (file.relative_to(folder).as_posix() for file in files)
    return sorted(name for name in names if not name.startswith(("code/", f"{SERVED}/", ".")))


_CHOOSE = "choose the repository that it was made from, with safetensors"
_OTHER_FORMATS = {
    "*.gguf": f"its weights as GGUF, the format of llama.cpp, and no others: {_CHOOSE}, or serve it with llama.cpp",
    "consolidated*": (
        "its weights in the form of their authors ({}), and none of transformers': choose the repository whose name "
        "ends in '-hf' or the like, or convert them with the script that transformers has beside the model's code"
    ),
    "*.distcp": (
        "a checkpoint in the shards of torch.distributed ({}), and no weights: merge them with 'accelerate "
        "merge-weights', or train with fsdp_state_dict_type: FULL_STATE_DICT"
    ),
    "zero_to_fp32.py": (
        "a checkpoint in the shards of DeepSpeed, and no weights: run {} in it, or train with "
        "stage3_gather_16bit_weights_on_model_save"
    ),
    "*.h5": f"its weights for TensorFlow ({{}}), and none for PyTorch: {_CHOOSE}",
    "*.msgpack": f"its weights for Flax ({{}}), and none for PyTorch: {_CHOOSE}",
    "*.onnx": f"its weights for ONNX Runtime ({{}}), and none for PyTorch: {_CHOOSE}",
    "*.tar.gz": "an archive ({}) in the place of its files: pack the files themselves, or deliver that archive",
    "*.zip": "an archive ({}) in the place of its files: pack the files themselves",
}
"""Pattern of the files of a model that transformers does not load -> what it has, and the way out."""


def why_no_model(names: Iterable[str], name: str) -> str | None:
    """Explain why transformers cannot load a model from these files, and what to do; None if it can."""
    names = list(names)
    top = {path for path in names if "/" not in path}
    if "model_index.json" in top and not has_weights(top):
        return (
            f"{name} is a pipeline of diffusers (model_index.json), which makes images and the like and is none of "
            "transformers: load it in model_fn of code/inference.py, with diffusers in code/requirements.txt"
        )
    of_adapter = [ADAPTER_CONFIG in top, any(file in top for file in ADAPTERS)]
    if any(of_adapter) and not all(of_adapter):
        return _half_an_adapter(name, has_config=of_adapter[0])
    if any(of_adapter) or (has_weights(top) and "config.json" in top):
        return None
    if has_weights(top):
        return (
            f"{name} has weights and no config.json, without which nobody knows what model they are of: put the "
            "config.json beside them that save_pretrained writes"
        )
    below = sorted({str(PurePosixPath(path).parent) for path in names if "/" in path and _is_model(path)})
    if below:
        first = min(below, key=lambda path: path.count("/"))
        also = f" (and {len(below) - 1} more)" if len(below) > 1 else ""
        return (
            f"{name} holds no whole model, but {first}/ in it does{also}. Pack the archive from inside that folder, "
            f"let the S3 prefix end with '{first}/', or choose the repository that has it at the top"
        )
    if any(_may_be_weights(path) for path in top if not path.startswith("consolidated")):
        return None
    for pattern, what in _OTHER_FORMATS.items():
        if found := [path for path in names if fnmatch(path, pattern)]:
            return f"{name} has {what.format(found[0])}"
    return (
        f"{name} has no weights for PyTorch (model.safetensors, pytorch_model.bin): choose a repository that has, or "
        "convert them with save_pretrained"
    )


def _may_be_weights(path: str) -> bool:
    return path.endswith(TORCH) and not path.startswith(_STATE)


def _is_model(path: str) -> bool:
    return PurePosixPath(path).name in ("config.json", ADAPTER_CONFIG, *_MODELS)


def _half_an_adapter(name: str, *, has_config: bool) -> str:
    present, missing = (
        (ADAPTER_CONFIG, " or ".join(ADAPTERS)) if has_config else ("an adapter's weights", ADAPTER_CONFIG)
    )
    return (
        f"{name} has {present} and no {missing}: deliver both or, where the adapter is merged into the model, neither"
    )


def weight_files(folder: Path, name: str) -> list[Path]:
    """Return the weight files of a folder; raise `StartError` if one is missing or must not be loaded."""
    names = {file.name for file in folder.iterdir()}
    picked = pick(names, lambda index: read_json(folder / index, name))
    if missing := sorted(set(picked) - names):
        raise StartError(f"{name} is not complete: {', '.join(missing[:3])} of {len(picked)} files is missing")
    check_pickles(picked, name)
    return [folder / file for file in picked]


def check_pickles(picked: Sequence[str], name: str) -> None:
    """Refuse pickles with a torch that is too old, before the download: transformers would refuse them after it."""
    pickles = [file for file in picked if file.endswith(".bin")]
    if not pickles:
        return
    import torch
    from transformers.utils import import_utils

    check = getattr(import_utils, "check_torch_load_is_safe", None)  # older releases load pickles without a check
    try:
        if check is not None:
            check()
    except ValueError as error:
        raise StartError(
            f"{name} has its weights in {pickles[0]}, a pickle, which transformers loads with torch 2.6 or newer only "
            f"(CVE-2025-32434), and this image has torch {torch.__version__}: choose a revision or a repository with "
            "safetensors, convert them with save_pretrained, or extend a newer base image"
        ) from error


def read_json(file: Path, name: str) -> dict[str, Any]:
    try:
        read = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise StartError(f"{file.name} of {name} cannot be read: {error}") from error
    if not isinstance(read, dict):
        raise StartError(
            f"{file.name} of {name} cannot be read: it holds no JSON object, deliver the one that save_pretrained wrote"
        )
    return read


def check_contents(folder: Path, picked: Sequence[str], name: str) -> None:
    """Raise `StartError` for git-lfs pointers, and for weights that are truncated or have unusual names."""
    for file in sorted(folder.iterdir()):
        if file.is_file() and file.stat().st_size <= _POINTER_BYTES and _head(file, len(_LFS)) == _LFS:
            raise StartError(
                f"{file.name} of {name} is a git-lfs pointer, a text of {file.stat().st_size} bytes that stands for "
                "the real file: run 'git lfs install' and 'git lfs pull' where it was cloned, and deliver or upload "
                "the files again"
            )
    for file in (folder / one for one in _SETTINGS):
        if file.is_file() and (why := not_json(file)):
            raise StartError(f"{file.name} of {name} is no JSON ({why}): deliver or upload it again")
    if not picked and not _names_its_weights(folder / "config.json"):
        other = min(file.name for file in folder.iterdir() if _may_be_weights(file.name))
        if shard := _SHARD.fullmatch(other):
            raise StartError(
                f"{name} has {other} and no {shard[1]}{shard[2]}.index.json, which says what is in each shard: deliver "
                "it too, as save_pretrained writes it"
            )
        raise StartError(
            f"{name} has no model.safetensors or pytorch_model.bin, which are the names that transformers loads, but "
            f"{other}: write the model with save_pretrained, or load that file in model_fn of code/inference.py"
        )
    for path in picked:
        reason = None
        if path.endswith(".safetensors"):
            reason = _broken_safetensors(folder / path)
        elif path.endswith(".bin"):
            reason = _broken_pickle(folder / path)
        if reason:
            raise StartError(
                f"{path} of {name} is not whole: {reason}. Deliver or upload it again, and compare its size with that "
                "of the file that was saved"
            )


def not_json(file: Path) -> str | None:
    """Explain why a file is no JSON; None if it is."""
    try:
        json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        return str(error)
    return None


def _names_its_weights(config: Path) -> bool:
    """Whether config.json names a weight file, which newer releases of transformers load."""
    with suppress(OSError, ValueError, AttributeError):
        return bool(json.loads(config.read_text(encoding="utf-8")).get("transformers_weights"))
    return False


def stored_types(files: Iterable[Path]) -> dict[str, str]:
    """Return name -> type (`F32`, `I8`, `F8_E4M3`) of the weights in safetensors files that were checked."""
    return {
        name: row["dtype"]
        for file in files
        if file.suffix == ".safetensors"
        for name, row in _header(file).items()
        if name != "__metadata__"
    }


def _header(file: Path) -> dict[str, Any]:
    with file.open("rb") as opened:
        length = int.from_bytes(opened.read(8), "little")
        return dict(json.loads(opened.read(length)))


def _broken_safetensors(file: Path) -> str | None:
    """Compare the file's size with the end of the last tensor in its header; None if they match."""
    size = file.stat().st_size
    length = int.from_bytes(_head(file, 8), "little")
    if size < 8 or length > size - 8:
        return f"its {size} bytes are no safetensors file, or only its beginning"
    try:
        header = _header(file)
        end = max((row["data_offsets"][1] for key, row in header.items() if key != "__metadata__"), default=0)
    except (ValueError, TypeError, KeyError, AttributeError, IndexError):
        return "its header is no table of weights, as a safetensors file has it"
    needed = 8 + length + end
    return None if size == needed else f"it has {size} bytes and its header speaks of {needed}"


def _broken_pickle(file: Path) -> str | None:
    """Explain why a file is no complete output of torch.save: a ZIP archive, or before torch 1.6 a plain pickle.

    A ZIP archive has its table of contents at its end, so a truncated one is recognized.
    """
    head = _head(file, 2)
    if head == b"PK" and not zipfile.is_zipfile(file):
        return f"its {file.stat().st_size} bytes are only the beginning of what torch.save wrote"
    if head not in (b"PK", b"\x80\x02"):
        return f"its {file.stat().st_size} bytes are no file that torch.save wrote"
    return None


def _head(file: Path, length: int) -> bytes:
    with file.open("rb") as opened:
        return opened.read(length)
