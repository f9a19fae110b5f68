"""The files below `/opt/ml` in a training job's container, and the outputs that are uploaded to S3.

Files and their contents: SageMaker developer guide, "How Amazon SageMaker AI Provides Training Information" and "How
Amazon SageMaker AI Processes Training Output".
"""

from __future__ import annotations

import io
import json
import shutil
import tarfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from moto.s3.models import S3Backend, s3_backends

Parameters = dict[str, Any]


class BadInput(Exception):
    """The job's input is not available; the message is its `FailureReason`, which begins with `ClientError`."""


@dataclass(frozen=True)
class Bucket:
    """One account's S3, addressed by URLs such as `s3://bucket/prefix`."""

    account_id: str
    partition: str = "aws"

    @property
    def _backend(self) -> S3Backend:
        return s3_backends[self.account_id][self.partition]

    def keys(self, url: str) -> dict[str, str]:
        """The keys that begin with a URL's prefix, with their paths below it; without keys that end with a slash."""
        bucket, prefix = _split(url)
        if bucket not in self._backend.buckets:
            return {}
        found = {}
        for key in list(self._backend.buckets[bucket].keys):
            if key.startswith(prefix) and not key.endswith("/"):
                rest = key[len(prefix) :]
                inside = prefix == "" or prefix.endswith("/") or rest.startswith("/")
                found[key] = rest.lstrip("/") if inside else key.rsplit("/", 1)[-1]
        return found

    def has_folder(self, url: str) -> bool:
        """Whether an object marks the URL's prefix as a folder, as the console makes one."""
        bucket, prefix = _split(url)
        return prefix.endswith("/") and bucket in self._backend.buckets and prefix in self._backend.buckets[bucket].keys

    def read(self, url: str, key: str) -> bytes:
        """The content of a key in the URL's bucket."""
        return bytes(self._backend.buckets[_split(url)[0]].keys[key].value)

    def write(self, url: str, content: bytes) -> None:
        bucket, key = _split(url)
        if bucket not in self._backend.buckets:
            raise BadInput(f"ClientError: Failed to upload to {url}: the bucket '{bucket}' does not exist")
        self._backend.put_object(bucket, key, content)

    def remove(self, url: str) -> None:
        bucket, key = _split(url)
        self._backend.delete_object(bucket, key)


def _split(url: str) -> tuple[str, str]:
    parts = urlsplit(url)
    return parts.netloc, parts.path.lstrip("/")


# -- inputs ------------------------------------------------------------------------------------------------------------


def write_configuration(folder: Path, request: Parameters, hosts: list[str], current: str, interface: str) -> None:
    resources = request["ResourceConfig"]
    instance_type = resources.get("InstanceType", "local")
    channels = {
        channel["ChannelName"]: {
            "TrainingInputMode": _input_mode(channel, request),
            "S3DistributionType": _s3_source(channel).get("S3DataDistributionType", "FullyReplicated"),
            "RecordWrapperType": channel.get("RecordWrapperType", "None"),
            **({"ContentType": channel["ContentType"]} if channel.get("ContentType") else {}),
        }
        for channel in request.get("InputDataConfig") or ()
    }
    contents = {
        "hyperparameters": request.get("HyperParameters") or {},
        "inputdataconfig": channels,
        "resourceconfig": {
            "current_host": current,
            "current_instance_type": instance_type,
            "current_group_name": "homogeneousCluster",
            "hosts": hosts,
            "instance_groups": [
                {"instance_group_name": "homogeneousCluster", "instance_type": instance_type, "hosts": hosts}
            ],
            "network_interface_name": interface,
        },
    }
    folder.mkdir(parents=True, exist_ok=True)
    for name, content in contents.items():
        (folder / f"{name}.json").write_text(json.dumps(content))


def download_channels(folder: Path, request: Parameters, s3: Bucket, *, host: int, hosts: int, region: str) -> None:
    """Download each channel to `/opt/ml/input/data/<channel>`. Raises `BadInput`."""
    for channel in request.get("InputDataConfig") or ():
        name, source = channel["ChannelName"], _s3_source(channel)
        mode = _input_mode(channel, request)
        if mode == "Pipe" or channel.get("CompressionType", "None") != "None" or not source:
            raise BadInput(
                f"ClientError: channel '{name}': the embedded SageMaker brings files from S3 as they are, and no "
                "pipes, compressed channels or file systems"
            )
        url = source["S3Uri"]
        keys = _manifest(s3, url) if source["S3DataType"] == "ManifestFile" else s3.keys(url)
        if not keys and not s3.has_folder(url):
            bucket = urlsplit(url).netloc
            raise BadInput(
                f'ClientError: Data download failed:No S3 objects found under S3 URL "{url}" given in input data '
                f"source. Please ensure that the bucket exists in the selected region ({region}), that objects exist "
                f'under that S3 prefix, and that the role "{request["RoleArn"]}" has "s3:ListBucket" permissions '
                f'on bucket "{bucket}".'
            )
        if source.get("S3DataDistributionType") == "ShardedByS3Key":
            keys = dict(list(keys.items())[host::hosts])
        for key, path in keys.items():
            _put(folder / name, path, s3.read(url, key))
        (folder / name).mkdir(parents=True, exist_ok=True)


def _manifest(s3: Bucket, url: str) -> dict[str, str]:
    """The objects of a manifest, which has a prefix and the keys' rests below it."""
    key = _split(url)[1]
    try:
        first, *names = json.loads(s3.read(url, key))
        prefix = _split(first["prefix"])[1]
    except (KeyError, TypeError, ValueError) as error:
        raise BadInput(f"ClientError: Data download failed: the manifest {url} cannot be read: {error}") from None
    return {f"{prefix}{name}": name for name in names}


def _s3_source(channel: Parameters) -> Parameters:
    return dict(channel.get("DataSource", {}).get("S3DataSource") or {})


def _input_mode(channel: Parameters, request: Parameters) -> str:
    return str(channel.get("InputMode") or request["AlgorithmSpecification"].get("TrainingInputMode", "File"))


def _put(folder: Path, path: str, content: bytes) -> None:
    target = (folder / path).resolve()
    if not target.is_relative_to(folder.resolve()):
        raise BadInput(f"ClientError: Data download failed: the key '{path}' leaves the channel's folder")
    target.parent.mkdir(parents=True, exist_ok=True)
    target.write_bytes(content)


# -- checkpoints -------------------------------------------------------------------------------------------------------


class Checkpoints:
    """A folder that is synchronized with an S3 prefix: downloaded at the start, then uploaded with each change."""

    def __init__(self, folder: Path, url: str, s3: Bucket) -> None:
        self._folder, self._url, self._s3 = folder, url.rstrip("/"), s3
        self._sent: dict[str, tuple[int, int]] = {}

    def restore(self) -> None:
        """Download the checkpoints before the container starts."""
        shutil.rmtree(self._folder, ignore_errors=True)
        self._folder.mkdir(parents=True)
        for key, path in self._s3.keys(f"{self._url}/").items():
            _put(self._folder, path, self._s3.read(self._url, key))
        self._sent = dict(self._files())

    def send(self) -> None:
        """Upload new and changed files, and delete from S3 what the script deleted."""
        existing = dict(self._files())
        for path, state in existing.items():
            if self._sent.get(path) != state:
                try:
                    self._s3.write(f"{self._url}/{path}", (self._folder / path).read_bytes())
                except FileNotFoundError:  # the script has replaced the file in the meantime
                    continue
                self._sent[path] = state
        for path in self._sent.keys() - existing.keys():
            self._s3.remove(f"{self._url}/{path}")
            del self._sent[path]

    def _files(self) -> Iterator[tuple[str, tuple[int, int]]]:
        for file in sorted(self._folder.rglob("*")):
            try:
                state = file.stat()
            except FileNotFoundError:
                continue
            if file.is_file():
                yield str(file.relative_to(self._folder)), (state.st_size, state.st_mtime_ns)


# -- outputs -----------------------------------------------------------------------------------------------------------


def upload_outputs(request: Parameters, folders: Mapping[str, list[Path]], s3: Bucket, *, model: bool) -> str:
    """Upload `/opt/ml/model` and `/opt/ml/output/data` of all hosts, and return the model's S3 URL.

    Only the model can be uploaded uncompressed (API reference, OutputDataConfig). A failed job has no model.
    """
    output = request["OutputDataConfig"]
    base = f"{output['S3OutputPath'].rstrip('/')}/{request['TrainingJobName']}/output"
    if any(any(folder.rglob("*")) for folder in folders["data"]):
        s3.write(f"{base}/output.tar.gz", _packed(folders["data"]))
    if output.get("CompressionType", "GZIP") == "NONE":
        if model:
            for folder in folders["model"]:
                for file in sorted(each for each in folder.rglob("*") if each.is_file()):
                    s3.write(f"{base}/model/{file.relative_to(folder)}", file.read_bytes())
        return f"{base}/model/"
    if model:
        s3.write(f"{base}/model.tar.gz", _packed(folders["model"]))
    return f"{base}/model.tar.gz"


def _packed(folders: list[Path]) -> bytes:
    """The contents of several folders in one archive, with their paths below each folder."""
    archive = io.BytesIO()
    with tarfile.open(fileobj=archive, mode="w:gz") as tar:
        for folder in folders:
            for each in sorted(folder.iterdir()):
                tar.add(each, each.name)
    return archive.getvalue()
