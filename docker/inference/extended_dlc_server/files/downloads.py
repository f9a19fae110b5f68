"""Downloads a model's files from the Hub, in parallel and verified.

huggingface_hub is imported late: it reads its environment variables at import, and a model from S3 does not need it.
"""

from __future__ import annotations

import logging
import os
import shutil
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from contextlib import contextmanager, nullcontext, suppress
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath
from typing import Any

from ..errors import StartError
from ..settings import MEGABYTE, Settings
from . import parts
from .cache import existing, folder_in
from .complete import ADAPTER_CONFIG, TORCH, check_contents, check_pickles, pick, read_json, weight_files, why_no_model
from .sentence_modules import MODULES, weights_of
from .verified import FOLLOWED, Following, Listed, Notes, hash_of, listed

log = logging.getLogger(__name__)

WORKERS = 8
"""Files that are downloaded at a time."""


PROGRESS_SECONDS = 10
"""Seconds between two log lines about a download."""


_NEVER = frozenset(
    {
        # other frameworks and runtimes
        *(".gguf", ".h5", ".mlmodel", ".msgpack", ".nemo", ".onnx", ".onnx_data", ".ot", ".pb", ".tflite"),
        # documentation and samples
        *(".flac", ".gif", ".ipynb", ".jpeg", ".jpg", ".md", ".mp3", ".mp4", ".pdf", ".png", ".svg", ".wav", ".webp"),
    }
)


def snapshot_of(model_id: str, settings: Settings, every_file: bool, named: tuple[str, str]) -> tuple[Path, str]:
    """Download what a repository has of a model; return its folder, and its name with the revision.

    `named` is what names the repository and its revision, for error messages.
    """
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
        kept = _cached(model_id, settings, every_file)
        if kept is None:
            raise StartError(_why_out_of_reach(error, name)) from error
        log.info("%s is from the cache (%s)", name, type(error).__name__)
        return kept, name
    try:
        folder = _download(listed(info.siblings or ()), info.sha, settings, name, every_file)
    except HfHubHTTPError as error:
        raise StartError(_why_refused(error, settings, named)) from error
    if not every_file:
        check_contents(folder, [file.name for file in weight_files(folder, name)], name)
    return folder, name


def _cached(model_id: str, settings: Settings, every_file: bool) -> Path | None:
    """Return the snapshot in the cache, if it is complete as far as can be told without the Hub's list of files."""
    from huggingface_hub import constants, try_to_load_from_cache

    for known in ("config.json", ADAPTER_CONFIG):
        found = try_to_load_from_cache(model_id, known, revision=settings.revision)
        if not isinstance(found, str):
            continue
        folder = Path(found).parent
        missing = Notes(folder_in(Path(constants.HF_HUB_CACHE), model_id)).missing(folder)
        if not every_file and not missing:
            missing = [] if weight_files(folder, model_id) else ["its weights"]
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
        picked = pick(self.files, lambda index: read_json(self.fetched(index), self.name))
        if not every_file:
            check_pickles(picked, self.model_id)
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
    repository = folder_in(cache, model_id)
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
    # Newer releases of huggingface_hub keep files of Xet once for all repositories, in the cache's "blobs".
    with _progress((repository, cache / "blobs"), len(absent), needed, model_id):
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
        # hf_xet raises RuntimeError. Its storage has other hosts than the Hub, which a network may not reach.
        by_hub = " have it from the Hub itself by HF_HUB_DISABLE_XET=1," if "CAS Client" in str(error) else ""
        raise StartError(
            f"{file} of {name} cannot be downloaded ({reason}): try again later,{by_hub} name a mirror by "
            "HF_ENDPOINT, or deliver the model from S3"
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


def _require_room(cache: Path, needed: int, model_id: str) -> None:
    folder = existing(cache)
    free = shutil.disk_usage(folder).free
    if needed > free:
        raise StartError(
            f"{model_id} needs {readable(needed)} of disk and {folder}, the roomiest place or the one that HF_HOME "
            f"names, has {readable(free)} free: give the endpoint a larger volume or an instance type with a larger "
            "disk of its own, or deliver the weights from S3"
        )


@contextmanager
def _progress(folders: Sequence[Path], files: int, needed: int, model_id: str) -> Iterator[None]:
    """Log the start, the progress and the end of a download."""
    if not files:
        log.info("%s is in the cache: %s", model_id, folders[0])
        yield
        return
    log.info("downloading %d files of %s, %s, to %s", files, model_id, readable(needed), folders[0])
    began, before, over = time.monotonic(), sum(map(_bytes_in, folders)), threading.Event()

    def watch() -> None:
        while not over.wait(PROGRESS_SECONDS):
            got = max(0, sum(map(_bytes_in, folders)) - before)
            rate = readable(got / (time.monotonic() - began))
            log.info("downloaded %s of %s, %s a second", readable(got), readable(needed), rate)

    threading.Thread(target=watch, name="progress", daemon=True).start()
    try:
        yield
    finally:
        over.set()
    seconds = time.monotonic() - began
    log.info("downloaded %s in %.1f s, %s a second", readable(needed), seconds, readable(needed / seconds))


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


def _bytes_in(folder: Path) -> int:
    """Return the disk blocks in use: a file that is downloaded in parts has its full length from the start."""
    total = 0
    for file in folder.rglob("*"):
        with suppress(OSError):  # the file may be renamed meanwhile
            total += 0 if file.is_symlink() else file.stat().st_blocks * 512
    return total


def readable(number: float) -> str:
    return f"{number / 1024**3:.1f} GB" if number >= 1024**3 else f"{number / MEGABYTE:.1f} MB"
