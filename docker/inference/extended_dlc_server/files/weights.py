"""Finds the model's files: in SageMaker's model folder, or by download from the Hub.

huggingface_hub is imported late: it reads its environment variables at import, and a model from S3 does not need it.
"""

from __future__ import annotations

import json
import logging
import os
import pickle
import shutil
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Mapping, MutableMapping, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from contextlib import contextmanager, nullcontext, suppress
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path, PurePosixPath
from typing import Any

from ..errors import StartError
from ..settings import ADAPTER_NAME, MEGABYTE, MOST_ADAPTERS, Settings
from . import parts
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
    pick,
    why_no_model,
)
from .sentence_modules import MODULES, weights_of
from .verified import FOLLOWED, Following, Listed, Notes, hash_of, listed

log = logging.getLogger(__name__)

WORKERS = 8
"""Files that are downloaded at a time."""

PROGRESS_SECONDS = 10
"""Seconds between two log lines about a download."""

_CACHES = {"HF_HUB_CACHE": "", "HUGGINGFACE_HUB_CACHE": "", "HF_HOME": "hub", "XDG_CACHE_HOME": "huggingface/hub"}
"""Variables that set the Hub's cache, by descending precedence, and the folder below each."""

_NAMED = ("HF_MODEL_ID", "HF_MODEL_REVISION")
_NAMED_ADAPTER = ("an adapter of EXTENDED_DLC_ADAPTERS", "a revision in EXTENDED_DLC_ADAPTERS")
"""What names a repository and its revision."""

_NEVER = frozenset(
    {
        # other frameworks and runtimes
        *(".gguf", ".h5", ".mlmodel", ".msgpack", ".nemo", ".onnx", ".onnx_data", ".ot", ".pb", ".tflite"),
        # documentation and samples
        *(".flac", ".gif", ".ipynb", ".jpeg", ".jpg", ".md", ".mp3", ".mp4", ".pdf", ".png", ".svg", ".wav", ".webp"),
    }
)


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
        return _read_json(self.config_folder / "config.json", self.name)

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
        names = {file.name for file in self.folder.iterdir()}
        picked = pick(names, lambda index: _read_json(self.folder / index, self.name))
        if missing := sorted(set(picked) - names):
            raise StartError(f"{self.name} is not complete: {', '.join(missing[:3])} of {len(picked)} files is missing")
        _check_format(picked, self.name)
        return [self.folder / name for name in picked]

    def check(self) -> None:
        """Raise `StartError` unless the files are a complete model, judged by their names, headers and sizes."""
        if why := why_no_model(names_in(self.folder), self.name):
            raise StartError(why)
        check_contents(self.folder, [file.name for file in self.files()], self.name)

    def described(self) -> str:
        """Return name, folder and size for the log."""
        location = "" if str(self.folder) == self.name else f" in {self.folder}"
        adapter = f" with the adapter {self.adapter.name}" if self.adapter else ""
        return f"{self.name}{location}, {_readable(self.size)} of weights{adapter}"

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
    adapter = Adapter(
        folder=found.folder, name=found.name, config=_read_json(found.folder / ADAPTER_CONFIG, found.name)
    )
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
    adapter = Adapter(folder=found.folder, name=name, config=_read_json(found.folder / ADAPTER_CONFIG, found.name))
    if settings.model_id and adapter.base and adapter.base != settings.model_id:
        log.warning("the adapter %s was trained on %s and is served with %s", name, adapter.base, settings.model_id)
    return adapter


def place_cache(environment: MutableMapping[str, str], model_id: str | None, others: Sequence[Path]) -> None:
    """Set the Hub's cache to the disk with the most free space: SageMaker mounts an instance's local disk below /tmp.

    A folder that an environment variable names takes precedence, and so does the default cache if it has the model. A
    folder without write access (a read-only root, another user's home, a user without a home) counts as full. Call this
    before huggingface_hub is imported, which reads its environment once; `model_id` is None if nothing is downloaded.
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
    # expanduser leaves a relative path for a user without a home.
    default = Path(os.path.expanduser("~/.cache/huggingface"))
    is_usable = default.is_absolute() and _can_be_written(default) and _can_be_written(default / "hub")
    holds_it = default.is_absolute() and model_id and os.path.isdir(_folder_in(default / "hub", model_id))
    if holds_it or (is_usable and named):
        return
    roomiest, most = (default, shutil.disk_usage(_existing(default)).free) if is_usable else (None, -1)
    for folder in filter(_can_be_written, others):
        existing = _existing(folder)
        free = shutil.disk_usage(existing).free
        if free > most and not (is_usable and existing.stat().st_dev == _existing(default).stat().st_dev):
            roomiest, most = folder / "huggingface", free
    if roomiest is not None and roomiest != default:
        environment["HF_HOME"] = str(roomiest)
    elif roomiest is None and model_id and not named:
        tried = ", ".join(map(str, (default, *others)))
        raise StartError(
            f"no folder for the files of {model_id} can be written by user {os.getuid()} (tried: {tried}): mount a "
            "volume that this user can write, and name it by HF_HOME"
        )


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
    if isinstance(error, KeyError) or "does not recognize this architecture" in text:
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


def _from_hub(model_id: str, settings: Settings, every_file: bool, named: tuple[str, str] = _NAMED) -> Weights:
    """Download a repository; `named` is what names it and its revision, for error messages."""
    os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")  # they are for terminals
    from huggingface_hub import HfApi
    from huggingface_hub.errors import HfHubHTTPError

    name = f"{model_id} at {settings.revision}" if settings.revision else model_id
    settings = replace(settings, model_id=model_id)
    try:
        api = HfApi(token=settings.token)
        info = _patiently(lambda: api.model_info(model_id, revision=settings.revision, files_metadata=True, timeout=30))
    except Exception as error:
        if isinstance(error, HfHubHTTPError) and not _is_passing(error):
            raise StartError(_why_refused(error, settings, named)) from error
        # This is also reached with HF_HUB_OFFLINE, where the client raises its own error without a request.
        folder = _cached(model_id, settings, every_file)
        if folder is None:
            raise StartError(_why_out_of_reach(error, name)) from error
        log.info("%s is from the cache (%s)", name, type(error).__name__)
        return Weights(folder=folder, name=name)
    try:
        folder = _download(listed(info.siblings or ()), info.sha, settings, name, every_file)
    except HfHubHTTPError as error:
        raise StartError(_why_refused(error, settings, named)) from error
    found = Weights(folder=folder, name=name)
    if not every_file:
        check_contents(folder, [file.name for file in found.files()], name)
    return found


def _cached(model_id: str, settings: Settings, every_file: bool) -> Path | None:
    """Return the snapshot in the cache, if it is complete as far as can be told without the Hub's list of files."""
    from huggingface_hub import constants, try_to_load_from_cache

    for known in ("config.json", ADAPTER_CONFIG):
        found = try_to_load_from_cache(model_id, known, revision=settings.revision)
        if not isinstance(found, str):
            continue
        folder = Path(found).parent
        missing = Notes(_folder_in(Path(constants.HF_HUB_CACHE), model_id)).missing(folder)
        if not every_file and not missing:
            weights = Weights(folder=folder, name=model_id)
            missing = [] if weights.files() else ["its weights"]
        if missing:
            raise StartError(
                f"the Hub cannot be reached, and the cache in {folder} holds only a part of {model_id}: "
                f"{', '.join(missing[:3])} is missing. Let it be downloaded once, or deliver the model from S3"
            )
        return folder
    return None


@dataclass(frozen=True, kw_only=True)
class _Snapshot:
    """A commit of a repository, while it is downloaded."""

    model_id: str
    commit: str
    token: str | None
    name: str
    """The name in error messages."""

    files: Mapping[str, Listed]
    """What the Hub lists."""

    repository: Path
    """The repository's folder in the cache."""

    def fetched(self, file: str, *, again: bool = False) -> Path:
        """Return a file's path in the cache, after its download if it is not there, or if it is to be repeated."""
        from huggingface_hub import hf_hub_download

        def download() -> str:
            options: dict[str, Any] = {"revision": self.commit, "token": self.token, "force_download": again}
            return str(hf_hub_download(self.model_id, file, **options))

        return Path(_fetched(file, download, self.name))

    def wanted(self, settings: Settings, every_file: bool) -> list[str]:
        """Return the files that the model needs; raise `StartError` if they are none that can be loaded."""
        if not every_file and (why := why_no_model(self.files, self.name)):
            raise StartError(why)
        picked = pick(self.files, lambda index: _read_json(self.fetched(index), self.name))
        if not every_file:
            _check_format(picked, self.model_id)
            if MODULES in self.files:
                picked += weights_of(self.fetched(MODULES), self.files)
        has_weights = bool(picked)
        return [
            file for file in self.files if file in picked or not _dispensable(file, has_weights, settings, every_file)
        ]

    def get(self, file: str, notes: Notes, *, is_absent: bool) -> None:
        """Download a file if it is absent, and compare it with the Hub's hash; raise `StartError` if they differ."""
        listing = self.files[file]
        follow = is_absent and listing.size >= FOLLOWED and bool(listing.kind)
        with Following(self.repository / "blobs", listing) if follow else nullcontext() as following:
            if follow:
                with suppress(Exception):  # the Hub's client meets the same error next, and reports it
                    parts.fetch(self.model_id, file, self.commit, self.token, listing, self.repository / "blobs")
            path = self.fetched(file).resolve()
            if notes.knows(path, listing):
                return
            digest = following.digest() if following else None
        if digest is None or not listing.matches(digest):
            digest = hash_of(path, listing.kind)
        if not listing.matches(digest):
            log.warning("%s of %s is not what the Hub lists: downloading it once more", file, self.name)
            path = self.fetched(file, again=True).resolve()
            digest = hash_of(path, listing.kind)
        if not listing.matches(digest):
            path.unlink(missing_ok=True)
            raise StartError(
                f"{file} of {self.name} is not the file that the Hub lists, and was not at the second try either: its "
                f"{_hash_name(listing)} is {digest} and should be {listing.digest}. Look for a proxy or mirror that "
                "changes it (HF_ENDPOINT, HTTPS_PROXY), or deliver the model from S3"
            )
        notes.add(path, listing)


def _download(files: Mapping[str, Listed], commit: str, settings: Settings, name: str, every_file: bool) -> Path:
    """Download the needed files and verify them; return the snapshot's folder."""
    from huggingface_hub import constants, try_to_load_from_cache

    model_id, cache = settings.model_id or "", Path(constants.HF_HUB_CACHE)
    repository = _folder_in(cache, model_id)
    snapshot = _Snapshot(
        model_id=model_id, commit=commit, token=settings.token, name=name, files=files, repository=repository
    )
    wanted = snapshot.wanted(settings, every_file)
    absent = [file for file in wanted if not isinstance(try_to_load_from_cache(model_id, file, revision=commit), str)]
    needed = sum(files[file].size for file in absent)
    _require_room(cache, needed, model_id)
    notes = Notes(repository)
    if not any(files[file].kind for file in wanted):
        log.warning("%s lists no hashes of its files: what was downloaded cannot be verified", constants.ENDPOINT)
    with _progress(repository, len(absent), needed, model_id):
        _all_at_once(
            lambda file: snapshot.get(file, notes, is_absent=file in absent),
            sorted(wanted, key=lambda file: -files[file].size),
        )
    notes.keep(commit, wanted)
    _remember(repository, settings.revision or constants.DEFAULT_REVISION, commit)
    return repository / "snapshots" / commit


def _hash_name(listing: Listed) -> str:
    return "sha256" if listing.kind == "sha256" else "git blob id"


def _all_at_once(work: Callable[[str], None], files: Sequence[str]) -> None:
    """Process several files in parallel; the first error cancels those that have not started."""
    pool = ThreadPoolExecutor(WORKERS, thread_name_prefix="download")
    try:
        for done in as_completed([pool.submit(work, file) for file in files]):
            done.result()
    finally:
        pool.shutdown(wait=False, cancel_futures=True)


def _fetched(file: str, download: Callable[[], str], name: str) -> str:
    """Download a file with retries; raise `StartError` that names it. Errors about the repository are passed on."""
    from huggingface_hub.errors import GatedRepoError, RepositoryNotFoundError, RevisionNotFoundError

    try:
        return str(_patiently(download, _is_worth_another_try))
    except (GatedRepoError, RepositoryNotFoundError, RevisionNotFoundError):
        raise
    except Exception as error:
        status = _status(error)
        if status == 401:
            raise
        reason = status or f"{type(error).__name__}: {error}"
        raise StartError(
            f"{file} of {name} cannot be downloaded ({reason}): try again later, name a mirror by HF_ENDPOINT, or "
            "deliver the model from S3"
        ) from error


def _remember(repository: Path, revision: str, commit: str) -> None:
    """Write the cache's ref of a branch or tag, which later starts without a network read.

    Call it only when the snapshot is complete.
    """
    if revision == commit:
        return
    with suppress(OSError):  # a read-only cache
        reference = repository / "refs" / revision
        reference.parent.mkdir(parents=True, exist_ok=True)
        reference.write_text(commit, encoding="utf-8")


def _dispensable(name: str, has_weights: bool, settings: Settings, every_file: bool) -> bool:
    """Whether a file that is not among the picked weights need not be downloaded."""
    path = PurePosixPath(name)
    if path.suffix.lower() in _NEVER:
        return True
    if every_file or not has_weights:
        return False
    if settings.trust_remote_code:  # the repository's code may open other files
        return len(path.parts) == 1 and path.suffix in (".safetensors", ".bin")
    return path.suffix in TORCH


def _check_format(picked: Sequence[str], name: str) -> None:
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


def _require_room(cache: Path, needed: int, model_id: str) -> None:
    folder = _existing(cache)
    free = shutil.disk_usage(folder).free
    if needed > free:
        raise StartError(
            f"{model_id} needs {_readable(needed)} of disk and {folder}, the roomiest place or the one that HF_HOME "
            f"names, has {_readable(free)} free: give the endpoint a larger volume or an instance type with a larger "
            "disk of its own, or deliver the weights from S3"
        )


@contextmanager
def _progress(folder: Path, files: int, needed: int, model_id: str) -> Iterator[None]:
    """Log the start, the progress and the end of a download."""
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


def _patiently(work: Callable[[], Any], is_passing: Callable[[Exception], bool] | None = None) -> Any:
    """Retry when the Hub is overloaded: all instances of an endpoint send their requests at once."""
    for pause in (1, 5):
        try:
            return work()
        except Exception as error:
            if not (is_passing or _is_passing)(error):
                raise
            log.info("the Hub is busy, trying again in %d s: %s", pause, error)
            time.sleep(pause)
    return work()


def _is_passing(error: Exception) -> bool:
    status = _status(error)
    return status is not None and (status == 429 or status >= 500)


def _is_worth_another_try(error: Exception) -> bool:
    """Also retry errors without an HTTP status, such as a truncated file: the Hub has just listed the file."""
    return _is_passing(error) or (_status(error) is None and not isinstance(error, PermissionError))


def _status(error: BaseException | None) -> int | None:
    """Return the HTTP status of an error, or of its causes; None if there is none."""
    while error is not None:
        status = getattr(getattr(error, "response", None), "status_code", None)
        if isinstance(status, int):
            return status
        error = error.__cause__
    return None


def _why_refused(error: Exception, settings: Settings, named: tuple[str, str]) -> str:
    from huggingface_hub import constants
    from huggingface_hub.errors import GatedRepoError, RepositoryNotFoundError, RevisionNotFoundError

    model_id = settings.model_id
    give = "give a token by HF_TOKEN or HF_TOKEN_SECRET_ARN"
    if isinstance(error, GatedRepoError):
        rest = "with the account of the token" if settings.token else f"and {give} of that account"
        return f"{model_id} is gated: ask for access on {constants.ENDPOINT}/{model_id} {rest}"
    if isinstance(error, RevisionNotFoundError):
        return (
            f"{named[1]} ('{settings.revision}') is no branch, tag or commit of {model_id}: choose one that "
            f"{constants.ENDPOINT}/{model_id} lists, or leave it out for the main branch"
        )
    if isinstance(error, RepositoryNotFoundError):
        rest = "the token may not read it" if settings.token else f"wants a token: {give}"
        return f"{named[0]} ('{model_id}') is not on the Hub, or it is private and {rest}"
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
        read = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise StartError(f"{file.name} of {name} cannot be read: {error}") from error
    if not isinstance(read, dict):
        raise StartError(f"{file.name} of {name} holds no JSON object: deliver the one that save_pretrained wrote")
    return read


def _folder_in(cache: Path, model_id: str) -> Path:
    return cache / f"models--{model_id.replace('/', '--')}"


def _existing(folder: Path) -> Path:
    """Return the folder, or its nearest parent that exists."""
    # os.path.isdir returns False for folders that this user may not access, where Path.is_dir would raise.
    return next(above for above in (folder, *folder.parents) if os.path.isdir(above))


def _can_be_written(folder: Path) -> bool:
    """Whether this user can create the folder, or files in it."""
    try:
        with tempfile.TemporaryFile(dir=_existing(folder)):
            return True
    except OSError:
        return False


def _bytes_in(folder: Path) -> int:
    """Return the disk blocks in use: a file that is downloaded in parts has its full length from the start."""
    total = 0
    for file in folder.rglob("*"):
        with suppress(OSError):  # the file may be renamed meanwhile
            total += 0 if file.is_symlink() else file.stat().st_blocks * 512
    return total


def _readable(number: float) -> str:
    return f"{number / 1024**3:.1f} GB" if number >= 1024**3 else f"{number / MEGABYTE:.1f} MB"
