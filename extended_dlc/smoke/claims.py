"""Claims that rest on documentation alone until a test on AWS confirms them: `CLAIMS`, with their checks.

`docs/unconfirmed.md` has a line for each, with the same id; a test compares the two.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime, timezone
from typing import Any

from extended_dlc.facts.names import ENDPOINT_LOGS

DOCKER_MANIFEST = "application/vnd.docker.distribution.manifest.v2+json"
_COPY = "Custom::CDKECRDeployment"
_MIRROR = "Custom::ExtendedDlcMirror"
_COPY_SECONDS, _COPY_GB = 900, 10


@dataclass(frozen=True, kw_only=True)
class Seen:
    """A smoke test whose endpoints have answered and still run."""

    client: Callable[[str], Any]
    """Makes a client of an AWS service."""

    stack: str
    endpoints: tuple[str, ...]
    instance_type: str
    gpu: bool
    """Whether the instances have NVIDIA GPUs."""

    base: str | None
    """The base of the image; None if the test did not build the image."""

    docker: bool
    """Whether Docker on this machine built it."""

    begun: datetime
    """Start of the deployment."""

    until: float
    """Deadline for the first metrics, as a value of `time.monotonic()`."""

    def images(self) -> list[Mapping[str, Any]]:
        """The manifests in ECR of the images that the endpoints run."""
        found = {}
        for endpoint in self.endpoints:
            for variant in self.client("sagemaker").describe_endpoint(EndpointName=endpoint)["ProductionVariants"]:
                for image in variant.get("DeployedImages", ()):
                    path = image["SpecifiedImage"].partition("/")[2]
                    name, at, digest = path.partition("@")
                    repository, _, tag = name.partition(":")
                    which = {"imageDigest": digest} if at else {"imageTag": tag}
                    answer = self.client("ecr").batch_get_image(repositoryName=repository, imageIds=[which])
                    found[path] = json.loads(answer["images"][0]["imageManifest"])
        return list(found.values())


class StillOpen(Exception):
    """The test does not confirm the claim; the message tells why."""


@dataclass(frozen=True, kw_only=True)
class Claim:
    """A behaviour that was never confirmed on AWS."""

    id: str
    """Its id, here and in docs/unconfirmed.md."""

    look: Callable[[Seen], str] | None = None
    """Returns the evidence as a clause, or raises `StillOpen`. None if no smoke test can confirm the claim."""


def _base_image(seen: Seen) -> str:
    return f"{_built(seen)} was extended, and answered"


def _manifest(seen: Seen) -> str:
    _built(seen)
    if not seen.docker:
        raise StillOpen("the image was not built by Docker")
    kinds = sorted({str(image.get("mediaType")) for image in seen.images()})
    if kinds != [DOCKER_MANIFEST]:
        raise StillOpen(f"ECR has {' and '.join(kinds) or 'no manifest'}")
    return f"ECR has {DOCKER_MANIFEST}"


def _image_copy(seen: Seen) -> str:
    _built(seen)
    seconds = _created(seen, _COPY)
    if seconds is None:
        raise StillOpen("the stack copied no image")
    size = max(sum(layer["size"] for layer in image.get("layers", ())) for image in seen.images()) / 1e9
    measured = f"{size:.1f} GB were copied in {seconds:.0f} s"
    if size / seconds * _COPY_SECONDS < _COPY_GB:
        raise StillOpen(f"{measured}, at which rate {_COPY_GB} GB take more than {_COPY_SECONDS} s")
    return measured


def _role_logs(seen: Seen) -> str:
    for endpoint in seen.endpoints:
        group = f"{ENDPOINT_LOGS}/{endpoint}"
        if not seen.client("logs").describe_log_streams(logGroupName=group, limit=1)["logStreams"]:
            raise StillOpen(f"{group} has no stream")
    return "both endpoints pulled their image, answered and wrote to their log groups"


def _role_metrics(seen: Seen) -> str:
    _wait_for_metric(seen, "CPUUtilization", least=0)
    return f"both endpoints have CPUUtilization in {ENDPOINT_LOGS}"


def _wait_for_metric(seen: Seen, name: str, *, least: float) -> None:
    """Wait until each endpoint has the metric with at least this value; raises `StillOpen` at the deadline."""
    while missing := [endpoint for endpoint in seen.endpoints if _most(seen, endpoint, name) < least]:
        if time.monotonic() >= seen.until:
            raise StillOpen(f"{' and '.join(missing)} had no {name} in the minutes that the test waited")
        time.sleep(10)


def _most(seen: Seen, endpoint: str, metric: str) -> float:
    """The maximum of a metric since the deployment began; -1 without data."""
    data = seen.client("cloudwatch").get_metric_statistics(
        Namespace=ENDPOINT_LOGS,
        MetricName=metric,
        Dimensions=[{"Name": "EndpointName", "Value": endpoint}, {"Name": "VariantName", "Value": "AllTraffic"}],
        StartTime=seen.begun,
        EndTime=datetime.now(timezone.utc),
        Period=60,
        Statistics=["Maximum"],
    )
    return max((float(point["Maximum"]) for point in data["Datapoints"]), default=-1.0)


def _startup_timeout(seen: Seen) -> str:
    accepted = set()
    for variant in _variants(seen):
        if "ContainerStartupHealthCheckTimeoutInSeconds" in variant:
            accepted.add(variant["ContainerStartupHealthCheckTimeoutInSeconds"])
    if not accepted:
        raise StillOpen("no variant has a time-out")
    return f"{seen.instance_type} took {' and '.join(map(str, sorted(accepted)))} s"


def _gpu_host(seen: Seen) -> str:
    hosts = {variant["InferenceAmiVersion"] for variant in _variants(seen) if "InferenceAmiVersion" in variant}
    if not hosts:
        raise StillOpen(f"{seen.instance_type} was asked for no host image")
    return f"{seen.instance_type} took {' and '.join(sorted(hosts))}; {_gpu_start(seen)}"


def _gpu_start(seen: Seen) -> str:
    if not seen.gpu:
        raise StillOpen(f"{seen.instance_type} has no GPU")
    _wait_for_metric(seen, "GPUMemoryUtilization", least=0.01)  # without a driver the server would use the CPU
    return f"both models answered on {seen.instance_type} with GPU memory in use"


def _endpoint_arn(seen: Seen) -> str:
    pages = seen.client("sagemaker").get_paginator("list_endpoints").paginate()
    found = [(each["EndpointName"], each["EndpointArn"]) for page in pages for each in page["Endpoints"]]
    with_capitals = [(name, arn.rpartition("/")[2]) for name, arn in found if name != name.lower()]
    if not with_capitals:
        raise StillOpen("no endpoint of the account and region has a capital in its name")
    if any(end != name.lower() for name, end in with_capitals):
        raise StillOpen("an endpoint's ARN has the capitals of its name")
    return f"{len(with_capitals)} endpoints with capitals in their names have none in their ARNs"


def _mirror(seen: Seen) -> str:
    if _created(seen, _MIRROR) is None:
        raise StillOpen("no endpoint of the test has a mirrored model")
    return "a mirrored model was copied, and answered"


def _created(seen: Seen, kind: str) -> float | None:
    """The seconds that CloudFormation took to create the stack's resource of a type; None without one."""
    times: dict[str, datetime] = {}
    for page in seen.client("cloudformation").get_paginator("describe_stack_events").paginate(StackName=seen.stack):
        events = [each for each in page["StackEvents"] if each["ResourceType"] == kind]
        times |= {each["ResourceStatus"]: each["Timestamp"] for each in events}
    if not {"CREATE_IN_PROGRESS", "CREATE_COMPLETE"} <= set(times):
        return None
    return max(1.0, (times["CREATE_COMPLETE"] - times["CREATE_IN_PROGRESS"]).total_seconds())


def _variants(seen: Seen) -> list[Mapping[str, Any]]:
    sagemaker = seen.client("sagemaker")
    configs = [sagemaker.describe_endpoint(EndpointName=name)["EndpointConfigName"] for name in seen.endpoints]
    found = [sagemaker.describe_endpoint_config(EndpointConfigName=name)["ProductionVariants"] for name in configs]
    return [variant for variants in found for variant in variants]


def _built(seen: Seen) -> str:
    if seen.base is None:
        raise StillOpen("the image was not built by this test")
    return seen.base


CLAIMS = (
    Claim(id="base-image", look=_base_image),
    Claim(id="manifest", look=_manifest),
    Claim(id="image-copy", look=_image_copy),
    Claim(id="role-logs", look=_role_logs),
    Claim(id="role-metrics", look=_role_metrics),
    Claim(id="startup-timeout", look=_startup_timeout),
    Claim(id="gpu-host", look=_gpu_host),
    Claim(id="gpu-start", look=_gpu_start),
    Claim(id="endpoint-arn", look=_endpoint_arn),
    Claim(id="mirror", look=_mirror),
    Claim(id="rollback"),
    Claim(id="openai-route"),
    Claim(id="training"),
    Claim(id="model-package"),
)
"""All claims."""


def judge(seen: Seen | None) -> dict[str, tuple[bool, str]]:
    """Whether each claim is confirmed, with the evidence or the reason why not. `seen` is None without answers."""
    return {claim.id: _judge(claim, seen) for claim in CLAIMS}


def _judge(claim: Claim, seen: Seen | None) -> tuple[bool, str]:
    from botocore.exceptions import BotoCoreError, ClientError

    if claim.look is None:
        return False, "no smoke test shows it"
    if seen is None:
        return False, "the endpoints did not both answer"
    try:
        return True, claim.look(seen)
    except StillOpen as reason:
        return False, str(reason)
    except ClientError as error:  # the message may contain names of roles and resources
        return False, f"{error.operation_name} is answered with {error.response.get('Error', {}).get('Code')}"
    except (BotoCoreError, LookupError) as error:
        return False, f"what AWS answers could not be read: {type(error).__name__}"
