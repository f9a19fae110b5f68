"""Copies one commit of a Hub model to S3: the whole program that `MirroredModel` runs in CodeBuild.

One file for any Python from 3.9 with boto3, and nothing else of this package. Bytes go from the Hub to S3 through
memory, in parts and in parallel. Each file is compared with the hash that the Hub lists for it before it has its key:
small ones in memory; large ones, whose parts may come from several runs, as S3 gives them back from `unverified/`, and
S3 copies what is right. `PREFIX.json`, beside the files, notes what was compared and S3's ETag of it: a run that finds
everything there copies nothing, and one that was interrupted goes on with the part it was at.
"""

from __future__ import annotations

import argparse
import fnmatch
import hashlib
import http.client
import json
import os
import re
import sys
import threading
import time
import urllib.error
import urllib.parse
import urllib.request
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor, as_completed
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Any

MIB = 1024 * 1024
MOST_PARTS = 10_000  # of a multipart upload (S3 user guide, multipart upload limits)
ATTEMPTS = 5
ROUNDS = 2
UNVERIFIED = "unverified/"
"""Where large files are until they are compared; what is forgotten there, the bucket's lifecycle rule deletes."""

TOKEN_KEYS = ("HF_TOKEN", "token")
"""The members of a secret's JSON object that hold the token; the server in the image reads the same."""

NEVER = frozenset(
    {
        # other frameworks and runtimes
        *(".gguf", ".h5", ".mlmodel", ".msgpack", ".nemo", ".onnx", ".onnx_data", ".ot", ".pb", ".tflite"),
        # pages and samples
        *(".flac", ".gif", ".ipynb", ".jpeg", ".jpg", ".md", ".mp3", ".mp4", ".pdf", ".png", ".svg", ".wav", ".webp"),
    }
)
"""Files that no model is loaded from, by their endings; the server in the image downloads none of them either."""

_PICKLES = ("*.bin", "*.pt", "*.pth", "*.ckpt")


class CopyError(Exception):
    """Why the model cannot be copied, for the one who deploys."""


@dataclass(frozen=True)
class File:
    """One file, as the Hub lists it."""

    path: str
    size: int
    sha256: str | None
    """Of large files; None: `blob` counts."""

    blob: str
    """Hash of the file as git names it."""

    @property
    def hash(self) -> str:
        """What its content has to have."""
        return f"sha256:{self.sha256}" if self.sha256 else f"git:{self.blob}"

    def hasher(self) -> Any:
        """What `hash` is computed with."""
        if self.sha256:
            return hashlib.sha256()
        return hashlib.sha1(b"blob %d\0" % self.size)  # noqa: S324 - as git does, not for safety

    def is_content(self, hasher: Any) -> bool:
        """Whether the hasher has seen this file."""
        return bool(hasher.hexdigest() == (self.sha256 or self.blob))


class Hub:
    """The Hub, by plain HTTPS."""

    def __init__(self, endpoint: str, model: str, revision: str, token: str | None, kind: str = "model") -> None:
        self._endpoint, self._model, self._revision, self._token = endpoint.rstrip("/"), model, revision, token
        self._kind = kind

    def files(self) -> list[File]:
        """What a server that loads with torch needs of the commit, sorted."""
        url: str | None = f"{self._endpoint}/api/{self._kind}s/{self._model}/tree/{self._revision}?recursive=true"
        found = []
        while url:
            content, headers = self._get(url)
            for entry in json.loads(content):
                if entry["type"] == "file":
                    large = entry.get("lfs") or {}
                    size = large.get("size", entry["size"])
                    found.append(File(entry["path"], size, large.get("oid"), entry["oid"]))
            following = re.search(r'<([^>]+)>;\s*rel="next"', headers.get("Link") or "")
            url = urllib.parse.urljoin(url, following.group(1)) if following else None
        found.sort(key=lambda file: file.path)
        if self._kind == "dataset":  # whose sounds and pictures are what is wanted
            return [file for file in found if not file.path.rpartition("/")[2].startswith(".")]
        return [file for file in found if _is_needed(file.path, found)]

    def read(self, file: File, first: int, length: int) -> bytes:
        """Bytes of a file."""
        if length == 0:
            return b""
        repository = self._model if self._kind == "model" else f"{self._kind}s/{self._model}"
        url = f"{self._endpoint}/{repository}/resolve/{self._revision}/{urllib.parse.quote(file.path)}"
        try:
            return self._get(url, (first, length))[0]
        except CopyError as error:
            raise CopyError(f"{file.path} cannot be had: {error}") from None

    def _get(self, url: str, span: tuple[int, int] | None = None) -> tuple[bytes, Any]:
        """What is there, or `span` of it (first byte and number of bytes), and the headers."""
        for attempt in range(ATTEMPTS):
            wait = 2.0**attempt
            try:
                with self._open(url, span) as answer:
                    # one byte more than was asked for: a server that knows no ranges would send the whole file
                    content: bytes = answer.read(span[1] + 1 if span else None)
                if span is None or len(content) == span[1]:
                    return content, answer.headers
                reason = (
                    f"the Hub sends {'more' if len(content) > span[1] else 'fewer'} than the {span[1]} bytes asked for"
                )
            except urllib.error.HTTPError as error:
                reason = self._reason(error)
                is_of_hub = self._is_of_hub(error.url or url)  # another host's address is signed, and ages
                if is_of_hub and 400 <= error.code < 500 and error.code not in (408, 425, 429):
                    raise CopyError(
                        f"{reason}: check model and commit; a private or gated model needs a token of an account that "
                        "may read it"
                    ) from None
                after = error.headers.get("Retry-After") or ""
                wait = max(wait, min(300, int(after))) if after.isdigit() else wait
            except (OSError, http.client.HTTPException) as error:
                reason = f"{urllib.parse.urlsplit(url).netloc} does not answer ({error or type(error).__name__})"
            if attempt < ATTEMPTS - 1:
                time.sleep(wait)
        raise CopyError(f"{reason}, in {ATTEMPTS} attempts")

    def _reason(self, error: urllib.error.HTTPError) -> str:
        """Who answered what, without the signature that an address of another host carries."""
        where = (error.url or "").partition("?")[0]
        said = error.headers.get("X-Error-Message")  # the Hub's own words
        return f"the Hub answers {error.code} for {where}{f' ({said})' if said else ''}"

    def _is_of_hub(self, url: str) -> bool:
        return url.startswith(f"{self._endpoint}/")  # with its slash, or another host's name could begin like the Hub's

    def _open(self, url: str, span: tuple[int, int] | None) -> Any:
        headers = {"Range": f"bytes={span[0]}-{span[0] + span[1] - 1}"} if span else {}
        request = urllib.request.Request(url, headers=headers)  # noqa: S310 - https, by the caller
        if self._token and self._is_of_hub(url):
            # large files are on other hosts, which must not get the token
            request.add_unredirected_header("Authorization", f"Bearer {self._token}")
        return urllib.request.urlopen(request, timeout=60)  # noqa: S310


def _is_needed(path: str, files: list[File]) -> bool:
    """Neither another framework's weights nor, beside safetensors, the same ones again as a pickle."""
    name = path.rpartition("/")[2]
    if name.startswith(".") or PurePosixPath(name).suffix.lower() in NEVER:
        return False
    folder = path.rpartition("/")[0]
    safe = any(f.path.endswith(".safetensors") and f.path.rpartition("/")[0] == folder for f in files)
    return not (safe and any(fnmatch.fnmatch(name, pattern) for pattern in (*_PICKLES, "*.bin.index.json")))


class Progress:
    """Says how far it is, every ten seconds."""

    def __init__(self, total: int) -> None:
        self._total, self._done, self._copied = total, 0, 0
        self._started = time.monotonic()
        self._lock = threading.Lock()
        self._ended = threading.Event()
        threading.Thread(target=self._tell, daemon=True).start()

    def add(self, size: int, *, copied: bool) -> None:
        """So many bytes more are in S3; `copied`: by this run."""
        with self._lock:
            self._done += size
            self._copied += size if copied else 0

    @property
    def copied(self) -> int:
        """Bytes that this run sent."""
        return self._copied

    def end(self) -> None:
        """Say nothing more."""
        self._ended.set()

    def _tell(self) -> None:
        while not self._ended.wait(10):
            rate = self._copied / (time.monotonic() - self._started)
            left = f", {(self._total - self._done) / rate / 60:.0f} min left" if rate else ""
            say(f"{self._done / 1e9:.1f} of {self._total / 1e9:.1f} GB, {rate / 1e6:.0f} MB/s{left}")


def say(line: str) -> None:
    """One line of the log."""
    print(line, flush=True)


class Copy:
    """One run."""

    def __init__(
        self, s3: Any, hub: Hub, bucket: str, prefix: str, *, threads: int, part_bytes: int, deadline: float
    ) -> None:
        self._s3, self._hub, self._bucket, self._prefix = s3, hub, bucket, prefix
        self._threads, self._part_bytes, self._deadline = threads, part_bytes, deadline
        self._marker = f"{prefix.rstrip('/')}.json"
        self._lock = threading.Lock()
        self._stop = threading.Event()
        self._noted: dict[str, dict[str, Any]] = {}
        self._arrived: dict[str, int] = {}
        """Size of what an earlier run left below `unverified/`, whole and not compared."""

    def run(self) -> int:
        """Copy what is missing; returns how many bytes that were."""
        files = self._hub.files()
        self._noted = self._read_marker()
        existing = self._listed(self._prefix)
        self._arrived = {key: each["Size"] for key, each in self._listed(UNVERIFIED + self._prefix).items()}
        missing = [file for file in files if not self._is_noted(file, existing.get(self._prefix + file.path))]
        total = sum(file.size for file in files)
        say(f"{len(files)} files, {total / 1e9:.1f} GB; {len(missing)} of them to copy")
        progress = Progress(total)
        progress.add(total - sum(file.size for file in missing), copied=False)
        try:
            for _ in range(ROUNDS):
                missing = self._copy(missing, progress)
                if not missing:
                    for key in self._listed(UNVERIFIED + self._prefix):
                        self._s3.delete_object(Bucket=self._bucket, Key=key)
                    return progress.copied
        finally:
            progress.end()
        names = ", ".join(file.path for file in missing)
        raise CopyError(f"{names} arrived {ROUNDS} times with another hash than the Hub lists: nothing of it was kept")

    def _copy(self, files: list[File], progress: Progress) -> list[File]:
        """Copy these; returns those that arrived wrong, and are away again."""
        # readers wait for nobody, so that workers can wait for them
        with ThreadPoolExecutor(self._threads) as workers, ThreadPoolExecutor(self._threads) as readers:
            try:
                checks = dict(self._started(files, progress, workers, readers))
                wrong = [checks[done] for done in as_completed(checks) if not _result(done, checks[done])]
            except BaseException:
                self._stop.set()
                workers.shutdown(cancel_futures=True)
                raise
        return wrong

    def _started(
        self, files: list[File], progress: Progress, workers: ThreadPoolExecutor, readers: ThreadPoolExecutor
    ) -> Iterator[tuple[Future[bool], File]]:
        """Each file under way, by what tells whether it arrived right."""
        for file in files:
            if file.size <= self._part_bytes:
                yield workers.submit(self._copy_small, file, progress), file
            elif self._arrived.pop(self._unverified(file), None) == file.size:
                say(f"{file.path} is there already, and not compared yet")
                progress.add(file.size, copied=False)
                yield workers.submit(self._verify, file, readers), file
            else:
                upload, existing = self._upload_of(file)
                parts = [
                    workers.submit(self._copy_part, file, upload, number, progress)
                    for number in range(1, self._part_count(file) + 1)
                    if number not in existing
                ]
                progress.add(sum(existing.values()), copied=False)
                yield workers.submit(self._complete, file, upload, parts, readers), file

    def _copy_small(self, file: File, progress: Progress) -> bool:
        self._check_stop()
        content = self._hub.read(file, 0, file.size)
        hasher = file.hasher()
        hasher.update(content)
        if not file.is_content(hasher):
            say(f"{file.path} has another hash than the Hub lists")
            return False
        etag = self._s3.put_object(Bucket=self._bucket, Key=self._prefix + file.path, Body=content)["ETag"]
        progress.add(file.size, copied=True)
        self._note(file, etag)
        return True

    def _unverified(self, file: File) -> str:
        """The key of a large file until it is compared."""
        return f"{UNVERIFIED}{self._prefix}{file.path}"

    def _part_size(self, file: File) -> int:
        return max(self._part_bytes, -(-file.size // MOST_PARTS // MIB) * MIB)

    def _part_count(self, file: File) -> int:
        return -(-file.size // self._part_size(file))

    def _span(self, file: File, number: int) -> tuple[int, int]:
        first = (number - 1) * self._part_size(file)
        return first, min(self._part_size(file), file.size - first)

    def _upload_of(self, file: File) -> tuple[str, dict[int, int]]:
        """The file's multipart upload, an earlier run's where there is one, and the parts that it has."""
        key = self._unverified(file)
        pages = self._s3.get_paginator("list_multipart_uploads").paginate(Bucket=self._bucket, Prefix=key)
        for upload in (upload for page in pages for upload in page.get("Uploads", ()) if upload["Key"] == key):
            existing = self._parts(key, upload["UploadId"])
            sizes = {number: part["Size"] for number, part in existing.items()}
            if all(
                number <= self._part_count(file) and self._span(file, number)[1] == n for number, n in sizes.items()
            ):
                say(f"{file.path}: goes on after {len(sizes)} of {self._part_count(file)} parts")
                return upload["UploadId"], sizes
            self._s3.abort_multipart_upload(Bucket=self._bucket, Key=key, UploadId=upload["UploadId"])
        return self._s3.create_multipart_upload(Bucket=self._bucket, Key=key)["UploadId"], {}

    def _parts(self, key: str, upload: str) -> dict[int, dict[str, Any]]:
        pages = self._s3.get_paginator("list_parts").paginate(Bucket=self._bucket, Key=key, UploadId=upload)
        return {part["PartNumber"]: part for page in pages for part in page.get("Parts", ())}

    def _copy_part(self, file: File, upload: str, number: int, progress: Progress) -> None:
        self._check_stop()
        content = self._hub.read(file, *self._span(file, number))
        self._s3.upload_part(
            Bucket=self._bucket, Key=self._unverified(file), UploadId=upload, PartNumber=number, Body=content
        )
        progress.add(len(content), copied=True)

    def _complete(self, file: File, upload: str, parts: list[Future[None]], readers: ThreadPoolExecutor) -> bool:
        # queued behind its parts, so that each of them is running or done
        for part in parts:
            part.result()
        key = self._unverified(file)
        uploaded = [{"PartNumber": n, "ETag": part["ETag"]} for n, part in sorted(self._parts(key, upload).items())]
        self._s3.complete_multipart_upload(
            Bucket=self._bucket, Key=key, UploadId=upload, MultipartUpload={"Parts": uploaded}
        )
        return self._verify(file, readers)

    def _verify(self, file: File, readers: ThreadPoolExecutor) -> bool:
        """Compare what S3 has with the Hub's hash, and give it its key where it is right."""
        unverified, key = self._unverified(file), self._prefix + file.path
        etag = self._s3.head_object(Bucket=self._bucket, Key=unverified)["ETag"]
        hasher = file.hasher()
        for piece in self._read_back(file, etag, readers):
            hasher.update(piece)
        right = file.is_content(hasher)
        if right:
            self._move(unverified, key, etag)
            self._note(file, self._s3.head_object(Bucket=self._bucket, Key=key)["ETag"])
            say(f"{file.path}: {file.size / 1e9:.2f} GB, {file.hash}")
        else:
            say(f"{file.path} has another hash in S3 than the Hub lists: removed")
        self._s3.delete_object(Bucket=self._bucket, Key=unverified)
        return right

    def _move(self, unverified: str, key: str, etag: str) -> None:
        """Let S3 copy what was compared, and nothing that came in its place since: in parts where it is over 5 GB."""
        from boto3.s3.transfer import TransferConfig

        for page in self._s3.get_paginator("list_multipart_uploads").paginate(Bucket=self._bucket, Prefix=key):
            for upload in (each for each in page.get("Uploads", ()) if each["Key"] == key):  # of a run that was killed
                self._s3.abort_multipart_upload(Bucket=self._bucket, Key=key, UploadId=upload["UploadId"])
        self._s3.copy(
            {"Bucket": self._bucket, "Key": unverified},
            self._bucket,
            key,
            ExtraArgs={"CopySourceIfMatch": etag},
            Config=TransferConfig(
                multipart_threshold=self._part_bytes, multipart_chunksize=self._part_bytes, max_concurrency=4
            ),
        )

    def _read_back(self, file: File, etag: str, readers: ThreadPoolExecutor) -> Iterator[bytes]:
        """The object's bytes in their order, read ahead."""
        ahead: deque[Future[bytes]] = deque()
        for number in range(1, self._part_count(file) + 1):
            ahead.append(readers.submit(self._read_object, file, number, etag))
            if len(ahead) >= 4:
                yield ahead.popleft().result()
        while ahead:
            yield ahead.popleft().result()

    def _read_object(self, file: File, number: int, etag: str) -> bytes:
        self._check_stop()
        first, length = self._span(file, number)
        span = f"bytes={first}-{first + length - 1}"
        answer = self._s3.get_object(Bucket=self._bucket, Key=self._unverified(file), Range=span, IfMatch=etag)
        content: bytes = answer["Body"].read()
        return content

    def _check_stop(self) -> None:
        if self._stop.is_set():
            raise CopyError("another part failed")
        if time.monotonic() > self._deadline:
            raise CopyError("the time is up: deploy again, which goes on where this ends, or give it a longer timeout")

    def _listed(self, prefix: str) -> dict[str, dict[str, Any]]:
        pages = self._s3.get_paginator("list_objects_v2").paginate(Bucket=self._bucket, Prefix=prefix)
        return {found["Key"]: found for page in pages for found in page.get("Contents", ())}

    def _is_noted(self, file: File, found: dict[str, Any] | None) -> bool:
        noted = self._noted.get(file.path)
        if noted is None or found is None:
            return False
        return bool(noted == {"hash": file.hash, "etag": found["ETag"]} and found["Size"] == file.size)

    def _note(self, file: File, etag: str) -> None:
        with self._lock:
            self._noted[file.path] = {"hash": file.hash, "etag": etag}
            body = json.dumps(self._noted, indent=1, sort_keys=True).encode()
            self._s3.put_object(Bucket=self._bucket, Key=self._marker, Body=body)

    def _read_marker(self) -> dict[str, dict[str, Any]]:
        try:
            answer = self._s3.get_object(Bucket=self._bucket, Key=self._marker)
        except self._s3.exceptions.NoSuchKey:
            return {}
        noted: dict[str, dict[str, Any]] = json.loads(answer["Body"].read())
        return noted


def _result(done: Future[bool], file: File) -> bool:
    """What came of a file; whatever went wrong names it."""
    try:
        return done.result()
    except CopyError:
        raise
    except Exception as error:
        raise CopyError(f"{file.path} cannot be copied: {type(error).__name__}: {error}") from error


def make_bucket(s3: Any, bucket: str, account: str, region: str) -> None:
    """The bucket of this account, closed and tidy; not one of another account that took its name before."""
    from botocore.exceptions import ClientError

    try:
        s3.head_bucket(Bucket=bucket, ExpectedBucketOwner=account)
    except ClientError as error:
        if error.response["ResponseMetadata"]["HTTPStatusCode"] != 404:
            raise CopyError(
                f"bucket {bucket} is not this account's, or its policy denies this role: give a bucket of your own "
                "(MirroredModel(bucket=…))"
            ) from None
        say(f"makes the bucket {bucket}")
        where = {} if region == "us-east-1" else {"CreateBucketConfiguration": {"LocationConstraint": region}}
        s3.create_bucket(Bucket=bucket, **where)
    # each time: an earlier run may have ended between two of these, or known fewer of them
    nobody = dict.fromkeys(("BlockPublicAcls", "IgnorePublicAcls", "BlockPublicPolicy", "RestrictPublicBuckets"), True)
    s3.put_public_access_block(Bucket=bucket, PublicAccessBlockConfiguration=nobody)
    forgotten = {"ID": "forgotten", "Status": "Enabled", "Filter": {"Prefix": ""}}
    unverified = {"ID": "unverified", "Status": "Enabled", "Filter": {"Prefix": UNVERIFIED}}
    rules: list[dict[str, Any]] = [
        {**forgotten, "AbortIncompleteMultipartUpload": {"DaysAfterInitiation": 7}},
        {**unverified, "Expiration": {"Days": 7}},
    ]
    existing = _unless_missing(lambda: s3.get_bucket_lifecycle_configuration(Bucket=bucket)["Rules"]) or []
    rules += [rule for rule in existing if rule.get("ID") not in ("forgotten", "unverified")]
    s3.put_bucket_lifecycle_configuration(Bucket=bucket, LifecycleConfiguration={"Rules": rules})
    arn = f"arn:{s3.meta.partition}:s3:::{bucket}"
    tls_only = {
        **{"Sid": "TlsOnly", "Effect": "Deny", "Principal": "*", "Action": "s3:*", "Resource": [arn, f"{arn}/*"]},
        "Condition": {"Bool": {"aws:SecureTransport": "false"}},
    }
    text = _unless_missing(lambda: s3.get_bucket_policy(Bucket=bucket)["Policy"])
    policy: dict[str, Any] = json.loads(text) if text else {"Version": "2012-10-17", "Statement": []}
    others = policy["Statement"] if isinstance(policy["Statement"], list) else [policy["Statement"]]
    others = [statement for statement in others if statement.get("Sid") != "TlsOnly"]
    s3.put_bucket_policy(Bucket=bucket, Policy=json.dumps({**policy, "Statement": [tls_only, *others]}))


def _unless_missing(ask: Callable[[], Any]) -> Any:
    """S3's answer; None where there is no such thing yet."""
    from botocore.exceptions import ClientError

    try:
        return ask()
    except ClientError as error:
        if error.response["ResponseMetadata"]["HTTPStatusCode"] == 404:
            return None
        raise


def read_token(secret: str) -> str:
    """The Hub's token from Secrets Manager: the text, or the member `HF_TOKEN` or `token` of a JSON object."""
    import boto3

    text = str(boto3.client("secretsmanager").get_secret_value(SecretId=secret)["SecretString"]).strip()
    if text.startswith("{"):
        try:
            members = json.loads(text)
        except ValueError:
            members = {}
        text = next((members[key] for key in TOKEN_KEYS if isinstance(members.get(key), str)), "").strip()
    if not text or not text.isascii() or not text.isprintable() or " " in text:
        raise CopyError(
            f"the secret {secret} holds no token: store the token itself, or a JSON object with '{TOKEN_KEYS[0]}'"
        )
    return text


def signal(url: str, *, reason: str, ok: bool) -> None:
    """Tell CloudFormation's wait condition."""
    status = "SUCCESS" if ok else "FAILURE"
    body = json.dumps({"Status": status, "UniqueId": "copy", "Reason": reason[:1000], "Data": reason[:1000]})
    # the address is signed for no content type
    request = urllib.request.Request(url, body.encode(), {"Content-Type": ""}, method="PUT")  # noqa: S310
    urllib.request.urlopen(request, timeout=60).close()  # noqa: S310


def main(arguments: list[str] | None = None) -> None:
    """Copy, and tell who waits."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", required=True)
    parser.add_argument("--kind", choices=("model", "dataset"), default="model")
    parser.add_argument("--revision", required=True)
    parser.add_argument("--bucket", required=True)
    parser.add_argument("--prefix", required=True)
    parser.add_argument("--make-bucket-in", metavar="ACCOUNT", help="make the bucket where there is none")
    parser.add_argument("--hub", metavar="URL", default=os.environ.get("HF_ENDPOINT") or "https://huggingface.co")
    parser.add_argument("--token-secret", metavar="ARN")
    parser.add_argument("--signal", metavar="URL")
    parser.add_argument("--seconds", type=int, default=6 * 3600)
    parser.add_argument("--threads", type=int, default=16)
    parser.add_argument("--part-mib", type=int, default=64)
    given = parser.parse_args(arguments)
    started = time.monotonic()
    try:
        import boto3
        from botocore.config import Config

        # S3 may take minutes to join the parts of a large file
        patient = {"read_timeout": 600, "retries": {"max_attempts": 8, "mode": "standard"}}
        # a reader and four parts of S3's own copy for each thread, besides itself
        config = Config(max_pool_connections=6 * given.threads, **patient)
        s3 = boto3.client("s3", config=config)
        if given.make_bucket_in:
            make_bucket(s3, given.bucket, given.make_bucket_in, s3.meta.region_name)
        token = read_token(given.token_secret) if given.token_secret else None
        hub = Hub(given.hub, given.model, given.revision, token, given.kind)
        parts = {"threads": given.threads, "part_bytes": given.part_mib * MIB, "deadline": started + given.seconds}
        copied = Copy(s3, hub, given.bucket, given.prefix, **parts).run()
    except Exception as error:
        reason = str(error) if isinstance(error, CopyError) else f"{type(error).__name__}: {error}"
        if given.signal:
            signal(given.signal, reason=f"{given.model} was not copied: {reason}", ok=False)
        sys.exit(f"{given.model} was not copied: {reason}")
    done = f"copied {copied / 1e9:.2f} GB in {time.monotonic() - started:.0f} s to s3://{given.bucket}/{given.prefix}"
    say(done)
    if given.signal:
        signal(given.signal, reason=done, ok=True)


if __name__ == "__main__":
    main()
