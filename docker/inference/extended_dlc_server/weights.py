"""The model's files: SageMaker's folder, or what the pipeline needs of a repository of the Hub.

huggingface_hub is imported late: it reads its environment once, and a model that is here already does not need it.
"""

from __future__ import annotations

import glob
import json
import logging
import os
import shutil
import tempfile
import threading
import time
from collections.abc import Callable, Collection, Iterator, Mapping, MutableMapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

from .errors import StartError
from .settings import MEGABYTE, Settings

log = logging.getLogger(__name__)

WORKERS = 8
"""Files that are downloaded at a time."""

PROGRESS_SECONDS = 10
"""Between two lines of the log about a download."""

# What from_pretrained looks for, in its order; an index names the files that it stands for.
_MODELS = ("model.safetensors", "model.safetensors.index.json", "pytorch_model.bin", "pytorch_model.bin.index.json")
_ADAPTERS = ("adapter_model.safetensors", "adapter_model.bin")

_CACHES = {"HF_HUB_CACHE": "", "HUGGINGFACE_HUB_CACHE": "", "HF_HOME": "hub", "XDG_CACHE_HOME": "huggingface/hub"}
"""What names the place of the Hub's cache, the one that wins first, and the folder in it."""

_TORCH = (".safetensors", ".bin", ".pt", ".pth", ".ckpt")
_NEVER = frozenset(
    {
        # other frameworks and runtimes
        *(".gguf", ".h5", ".mlmodel", ".msgpack", ".nemo", ".onnx", ".onnx_data", ".ot", ".pb", ".tflite"),
        # pages and samples
        *(".flac", ".gif", ".ipynb", ".jpeg", ".jpg", ".md", ".mp3", ".mp4", ".pdf", ".png", ".svg", ".wav", ".webp"),
    }
)


@dataclass(frozen=True, kw_only=True)
class Weights:
    """A folder with a model's files, and where they are from."""

    folder: Path
    """What `from_pretrained` gets."""

    name: str
    """What the log calls them: the Hub id and revision, or the folder."""

    def config(self) -> dict[str, Any]:
        """`config.json` as it stands, which an unknown model type does not keep from being read."""
        return _read_json(self.folder / "config.json", self.name)

    def files(self) -> list[Path]:
        """Those that hold the weights; `StartError` where one is missing or of a kind that may not be loaded."""
        names = {file.name for file in self.folder.iterdir()}
        picked = pick(names, lambda index: _read_json(self.folder / index, self.name))
        if missing := sorted(set(picked) - names):
            raise StartError(f"{self.name} is not complete: {', '.join(missing[:3])} of {len(picked)} files is missing")
        _check_format(picked, self.name)
        return [self.folder / name for name in picked]

    def described(self) -> str:
        """For people: the name, where it is, and how large."""
        place = "" if str(self.folder) == self.name else f" in {self.folder}"
        return f"{self.name}{place}, {_readable(self.size)} of weights"

    @property
    def size(self) -> int:
        """Bytes of the weights, which is about what they take in memory in their own precision."""
        return sum(file.stat().st_size for file in self.files() if file.suffix in _TORCH)


def find_weights(settings: Settings, *, every_file: bool = False) -> Weights:
    """SageMaker's folder if it holds a model, otherwise the Hub's files: all for a `model_fn`, which may open any."""
    if settings.model_source != settings.model_id:
        weights = Weights(folder=settings.model_folder, name=str(settings.model_folder))
    else:
        weights = _from_hub(settings.model_source, settings, every_file)
    if not every_file:
        weights.files()
    return weights


def pick(names: Collection[str], read: Callable[[str], Mapping[str, Any]]) -> list[str]:
    """The files that from_pretrained would load of these, safetensors before pickles; none where it knows none."""
    picked: list[str] = []
    for alternatives in (_MODELS, _ADAPTERS):
        for name in [name for name in alternatives if name in names][:1]:
            picked.append(name)
            if name.endswith(".index.json"):
                picked += sorted(set(read(name).get("weight_map", {}).values()))
    return picked


def place_cache(environment: MutableMapping[str, str], model_id: str | None, others: Sequence[Path]) -> None:
    """Let the Hub's cache be on the disk with the most room: SageMaker mounts an instance's own below /tmp.

    A place that the environment names wins, and so does the default one where it has the model already. One that cannot
    be written (a read-only root, another user's home, a user without one) has no room. To be called before anybody
    imports huggingface_hub, which reads its environment once; `model_id` is None where nothing need be downloaded.
    """
    named = next((name for name in _CACHES if environment.get(name)), None)
    if named:
        cache = Path(os.path.expanduser(environment[named])) / _CACHES[named]
        if model_id and not os.path.isdir(_folder_in(cache, model_id)) and not _can_be_written(cache):
            raise StartError(
                f"{named} ('{environment[named]}') cannot be written by user {os.getuid()} and lacks {model_id}: "
                "name a folder of a volume that this user can write, or leave it out"
            )
    if environment.get("HF_HOME") or environment.get("XDG_CACHE_HOME"):
        return
    # a relative path where the user has no home
    default = Path(os.path.expanduser("~/.cache/huggingface"))
    is_usable = default.is_absolute() and _can_be_written(default) and _can_be_written(default / "hub")
    holds_it = default.is_absolute() and model_id and os.path.isdir(_folder_in(default / "hub", model_id))
    if holds_it or (is_usable and named):
        return
    roomiest, most = (default, shutil.disk_usage(_existing(default)).free) if is_usable else (None, -1)
    for folder in filter(_can_be_written, others):
        there = _existing(folder)
        free = shutil.disk_usage(there).free
        if free > most and not (is_usable and there.stat().st_dev == _existing(default).stat().st_dev):
            roomiest, most = folder / "huggingface", free
    if roomiest is not None and roomiest != default:
        environment["HF_HOME"] = str(roomiest)
    elif roomiest is None and model_id and not named:
        tried = ", ".join(map(str, (default, *others)))
        raise StartError(
            f"no folder for the files of {model_id} can be written by user {os.getuid()} (tried: {tried}): mount a "
            "volume that this user can write, and name it by HF_HOME"
        )


def why_not_loaded(error: Exception, name: str, version: str) -> str:
    """What to change so that transformers can make a model of these files."""
    text = str(error)
    if "trust_remote_code" in text:
        return f"{name} brings Python code of its own: set HF_TRUST_REMOTE_CODE to 'true' if you trust it ({text})"
    if isinstance(error, KeyError) or "does not recognize this architecture" in text:
        return f"transformers {version} does not know the model type of {name}: build the image with a newer release"
    return f"{name} cannot be loaded with transformers {version}: {type(error).__name__}: {text}"


def _from_hub(model_id: str, settings: Settings, every_file: bool) -> Weights:
    os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")  # they draw on a terminal
    from huggingface_hub import HfApi, try_to_load_from_cache
    from huggingface_hub.errors import HfHubHTTPError

    name = f"{model_id} at {settings.revision}" if settings.revision else model_id
    try:
        api = HfApi(token=settings.token)
        info = _patiently(lambda: api.model_info(model_id, revision=settings.revision, files_metadata=True, timeout=30))
        sizes = {file.rfilename: file.size or 0 for file in info.siblings or ()}
        folder = _download(sizes, info.sha, settings, every_file)
    except StartError:
        raise
    except Exception as error:
        if isinstance(error, HfHubHTTPError) and not _is_passing(error):
            raise StartError(_why_refused(error, settings)) from error
        # also with HF_HUB_OFFLINE, where the client raises an error of its own instead of asking
        config = try_to_load_from_cache(model_id, "config.json", revision=settings.revision)
        if not isinstance(config, str):
            raise StartError(_why_out_of_reach(error, name)) from error
        log.info("%s is from the cache (%s)", name, type(error).__name__)
        folder = os.path.dirname(config)
    return Weights(folder=Path(folder), name=name)


def _download(sizes: Mapping[str, int], commit: str, settings: Settings, every_file: bool) -> str:
    """The folder with what is needed of these files, once all of it is there."""
    from huggingface_hub import constants, hf_hub_download, snapshot_download, try_to_load_from_cache

    model_id = settings.model_source

    def read(index: str) -> dict[str, Any]:
        path = _patiently(lambda: hf_hub_download(model_id, index, revision=commit, token=settings.token))
        return _read_json(Path(path), model_id)

    picked = pick(sizes, read)
    if not every_file:
        _check_format(picked, model_id)
        if not any(name.endswith(_TORCH) for name in sizes):
            raise StartError(
                f"{model_id} has no weights for PyTorch (model.safetensors, pytorch_model.bin): choose a repository "
                "that has, or convert them with save_pretrained"
            )
    wanted = [name for name in sizes if name in picked or not _dispensable(name, bool(picked), settings, every_file)]
    absent = [name for name in wanted if not isinstance(try_to_load_from_cache(model_id, name, revision=commit), str)]
    needed = sum(sizes[name] for name in absent)
    cache = Path(constants.HF_HUB_CACHE)
    _require_room(cache, needed, model_id)
    with _progress(_folder_in(cache, model_id), len(absent), needed, model_id):
        folder: str = _patiently(
            lambda: snapshot_download(
                model_id,
                revision=settings.revision,  # and not the commit: a later start without a network looks for this
                token=settings.token,
                allow_patterns=[glob.escape(name) for name in wanted],
                max_workers=WORKERS,
            )
        )
    return folder


def _dispensable(name: str, has_weights: bool, settings: Settings, every_file: bool) -> bool:
    """Whether a file that is none of the picked weights can stay on the Hub."""
    path = PurePosixPath(name)
    if path.suffix.lower() in _NEVER:
        return True
    if every_file or not has_weights:
        return False
    if settings.trust_remote_code:  # which may open others
        return len(path.parts) == 1 and path.suffix in (".safetensors", ".bin")
    return path.suffix in _TORCH


def _check_format(picked: Sequence[str], name: str) -> None:
    """Refuse before the download what transformers refuses after it: pickles under a torch that is too old."""
    pickles = [file for file in picked if file.endswith(".bin")]
    if not pickles:
        return
    import torch
    from transformers.utils import import_utils

    check = getattr(import_utils, "check_torch_load_is_safe", None)  # older releases load them
    try:
        if check is not None:
            check()
    except ValueError as error:
        raise StartError(
            f"{name} has its weights in {pickles[0]}, a pickle, which transformers loads with torch 2.6 or newer only "
            f"(CVE-2025-32434), and this image has torch {torch.__version__}: choose a revision or a repository with "
            "safetensors, convert them with save_pretrained, or extend a newer base image"
        ) from error


def _require_room(cache: Path, needed: int, model_id: str) -> None:
    there = _existing(cache)
    free = shutil.disk_usage(there).free
    if needed > free:
        raise StartError(
            f"{model_id} needs {_readable(needed)} of disk and {there}, the roomiest place or the one that HF_HOME "
            f"names, has {_readable(free)} free: give the endpoint a larger volume or an instance type with a larger "
            "disk of its own, or deliver the weights from S3"
        )


@contextmanager
def _progress(folder: Path, files: int, needed: int, model_id: str) -> Iterator[None]:
    """Lines of the log about a download: its beginning, how far it is now and then, its end."""
    if not files:
        log.info("%s is in the cache: %s", model_id, folder)
        yield
        return
    log.info("downloading %d files of %s, %s, to %s", files, model_id, _readable(needed), folder)
    began, before, over = time.monotonic(), _bytes_in(folder), threading.Event()

    def watch() -> None:
        while not over.wait(PROGRESS_SECONDS):
            got = max(0, _bytes_in(folder) - before)
            rate = _readable(got / (time.monotonic() - began))
            log.info("downloaded %s of %s, %s a second", _readable(got), _readable(needed), rate)

    threading.Thread(target=watch, name="progress", daemon=True).start()
    try:
        yield
    finally:
        over.set()
    seconds = time.monotonic() - began
    log.info("downloaded %s in %.1f s, %s a second", _readable(needed), seconds, _readable(needed / seconds))


def _patiently(work: Callable[[], Any]) -> Any:
    """Try again when the Hub has too much to do: all instances of an endpoint ask at once."""
    for pause in (1, 5):
        try:
            return work()
        except Exception as error:
            if not _is_passing(error):
                raise
            log.info("the Hub is busy, trying again in %d s: %s", pause, error)
            time.sleep(pause)
    return work()


def _is_passing(error: Exception) -> bool:
    status = getattr(getattr(error, "response", None), "status_code", None)
    return isinstance(status, int) and (status == 429 or status >= 500)


def _why_refused(error: Exception, settings: Settings) -> str:
    from huggingface_hub import constants
    from huggingface_hub.errors import GatedRepoError, RepositoryNotFoundError, RevisionNotFoundError

    model_id = settings.model_source
    give = "give a token by HF_TOKEN or HF_TOKEN_SECRET_ARN"
    if isinstance(error, GatedRepoError):
        rest = "with the account of the token" if settings.token else f"and {give} of that account"
        return f"{model_id} is gated: ask for access on {constants.ENDPOINT}/{model_id} {rest}"
    if isinstance(error, RevisionNotFoundError):
        return (
            f"HF_MODEL_REVISION ('{settings.revision}') is no branch, tag or commit of {model_id}: choose one that "
            f"{constants.ENDPOINT}/{model_id} lists, or leave it out for the main branch"
        )
    if isinstance(error, RepositoryNotFoundError):
        rest = "the token may not read it" if settings.token else f"wants a token: {give}"
        return f"HF_MODEL_ID ('{model_id}') is not on the Hub, or it is private and {rest}"
    if getattr(getattr(error, "response", None), "status_code", None) == 401:
        return f"the Hub does not know the token for {model_id}: it may have expired, {give} that is valid"
    return f"{model_id} cannot be downloaded: {type(error).__name__}: {error}"


def _why_out_of_reach(error: Exception, name: str) -> str:
    from huggingface_hub import constants

    if constants.HF_HUB_OFFLINE:
        return (
            f"HF_HUB_OFFLINE is set and the cache in {constants.HF_HUB_CACHE} does not hold {name}: build an image "
            "with a filled HF_HOME, deliver the weights from S3, or leave HF_HUB_OFFLINE out"
        )
    return (
        f"{name} cannot be downloaded from {constants.ENDPOINT} and is in no cache ({type(error).__name__}: {error}): "
        "give the endpoint's network a way to it, name a mirror by HF_ENDPOINT, or deliver the weights from S3"
    )


def _read_json(file: Path, name: str) -> dict[str, Any]:
    try:
        return dict(json.loads(file.read_text(encoding="utf-8")))
    except (OSError, ValueError, TypeError) as error:
        raise StartError(f"{file.name} of {name} cannot be read: {error}") from error


def _folder_in(cache: Path, model_id: str) -> Path:
    return cache / f"models--{model_id.replace('/', '--')}"


def _existing(folder: Path) -> Path:
    """The folder, or the nearest above it that is there."""
    return next(above for above in (folder, *folder.parents) if os.path.isdir(above))  # False where one may not look


def _can_be_written(folder: Path) -> bool:
    """Whether this user can make the folder, or files in it."""
    try:
        with tempfile.TemporaryFile(dir=_existing(folder)):
            return True
    except OSError:
        return False


def _bytes_in(folder: Path) -> int:
    """On disk, for a file that is downloaded in pieces has its full length early."""
    total = 0
    for file in folder.rglob("*"):
        with suppress(OSError):  # renamed meanwhile
            total += 0 if file.is_symlink() else file.stat().st_blocks * 512
    return total


def _readable(number: float) -> str:
    return f"{number / 1024**3:.1f} GB" if number >= 1024**3 else f"{number / MEGABYTE:.1f} MB"
