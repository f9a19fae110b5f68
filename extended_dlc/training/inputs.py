"""The files below `/opt/ml/input/data/` in a training's container."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, cast

from constructs import IDependable

from extended_dlc.constructs.archive import Uploaded, upload_archive
from extended_dlc.constructs.helpers import require_same
from extended_dlc.decisions.training import CODE_CHANNEL, MODEL_CHANNEL
from extended_dlc.models.model import HubModel, prefix_for
from extended_dlc.options.training import S3Data
from extended_dlc.training.rights import grant_archive

if TYPE_CHECKING:
    from extended_dlc.models.mirrored import MirroredDataset
    from extended_dlc.training.given import TrainingOptions
    from extended_dlc.training.job import TrainingJob


@dataclass(frozen=True)
class _Channel:
    uri: str
    ready: IDependable | None = None


@dataclass(frozen=True, kw_only=True)
class Inputs:
    """The code's archive, and the channels."""

    code: Uploaded
    channels: Mapping[str, str]
    """Each channel's S3 URL."""

    ready: Sequence[IDependable]
    """What must be deployed before a job can start."""


def place_inputs(job: TrainingJob, options: TrainingOptions) -> Inputs:
    """The inputs in S3, with read access for the containers' role."""
    code = upload_archive(job, options.code.files())
    grant_archive(job.role, code)
    channels = dict(_channels(job, options))
    if options.network_isolation:
        channels[CODE_CHANNEL] = _Channel(f"s3://{code.bucket}/{code.key}")
    return Inputs(
        code=code,
        channels={name: channel.uri for name, channel in channels.items()},
        ready=[channel.ready for channel in channels.values() if channel.ready is not None],
    )


def _channels(job: TrainingJob, options: TrainingOptions) -> Iterator[tuple[str, _Channel]]:
    for name, channel in options.channels.items():
        yield name, _grant_channel(f"channels.{name}", channel, job)
    base = options.base_model
    if isinstance(base, HubModel):
        if base.token is not None:
            base.token.grant_read(job.role)
    elif base is not None:
        placed = base.place_for(job, job.role)
        source = cast(Any, placed.data).s3_data_source
        yield MODEL_CHANNEL, _Channel(source.s3_uri, placed.ready)


def _grant_channel(option: str, channel: S3Data | MirroredDataset, job: TrainingJob) -> _Channel:
    """Let the job read a channel, which must be in its region (SageMaker API, S3DataSource)."""
    require_same("region", option, channel.bucket, job, "copy the files to a bucket there, and name that one")
    if isinstance(channel, S3Data):
        uploaded = Uploaded(bucket=channel.bucket.bucket_name, key=channel.prefix)
        prefix_for(job.role, uploaded, channel.bucket.encryption_key)
        return _Channel(f"s3://{uploaded.bucket}/{uploaded.key}")
    channel.grant_read(job.role)
    return _Channel(channel.s3_uri, channel.ready)
