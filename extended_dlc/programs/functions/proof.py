"""The proof's Lambda function: SageMaker can run the image, serves what it was asked to serve, and answers.

`handle` is a custom resource of CloudFormation's, without a provider in between: it proves, and says so at the address
that the event has. The reason of a failure is what CloudFormation shows. It needs boto3 and nothing else; the library
does not import it.
"""

from __future__ import annotations

import base64
import io
import json
import math
import re
import struct
import time
import traceback
import urllib.request
import wave
import zlib
from typing import Any

import boto3
from botocore.config import Config
from botocore.exceptions import ClientError, ReadTimeoutError

LOG_LINES = 15
LOG_CHARACTERS = 1500
ANSWER_CHARACTERS = 500
"""Of the container's log and of its answer, in a failure."""

DOCKER_MANIFEST = "application/vnd.docker.distribution.manifest.v2+json"
_MANIFESTS = (
    DOCKER_MANIFEST,
    "application/vnd.docker.distribution.manifest.list.v2+json",
    "application/vnd.oci.image.manifest.v1+json",
    "application/vnd.oci.image.index.v1+json",
)
_IN_ECR = re.compile(
    r"(?P<account>\d{12})\.dkr\.ecr\.(?P<region>[a-z0-9-]+)\.amazonaws\.com(\.cn)?/"
    r"(?P<repository>[^:@]+)(:(?P<tag>[^@]+))?(@(?P<digest>sha256:[0-9a-f]{64}))?"
)

_BUSY = ("Throttling", "ThrottlingException", "ServiceUnavailable", "InternalFailure")
_COMES = ("ModelNotReadyException", *_BUSY)
"""Errors of a request that a later one need not have: a container that starts, a service that is busy."""


_NO_COPY = "no capacity to process this request"
"""Of the ValidationError that a component without a copy answers with: the request wakes one."""


REASON_BYTES = 2600
"""Of a failure, as JSON: CloudFormation takes 4096 with the names, which may have 2 kB of their own."""

WAIT_SECONDS = 5
"""Between two looks at what is not there yet."""

CALL_SECONDS = 90
"""What a look may take, a request among them: with less of its 15 minutes left, a call hands over to the next."""

RIGHTS_SECONDS = 60
"""How long a refusal may be due to rights that were granted a moment ago, and have not arrived everywhere."""

SETTLING_MINUTES = 12
"""How long an endpoint that is asked nothing may be busy, as with a change of its scaling's."""

_REFUSED = ("AccessDenied", "AccessDeniedException")


class NotProven(Exception):
    """What is wrong, and what to do about it; without its middle where CloudFormation would refuse it."""

    def __init__(self, message: str) -> None:
        """Keep the beginning, which says what is wrong, and the end, which has the newest lines of the log."""
        if _size(message) > REASON_BYTES:
            message = f"{_fitting(message)} […] {_fitting(message[::-1])[::-1]}"
        super().__init__(message)


def handle(event: dict[str, Any], context: Any) -> None:
    """Prove what the event asks for, and tell CloudFormation, whatever comes of it.

    What takes longer than a call may take goes on in another call, which gets the event with all that was found out.
    """
    try:
        if not _prove(event, context):
            boto3.client("lambda").invoke(
                FunctionName=context.invoked_function_arn, InvocationType="Event", Payload=json.dumps(event)
            )
            return
    except NotProven as failure:
        _answer(event, "FAILED", str(failure))
    except Exception as error:  # CloudFormation would wait an hour for an answer
        traceback.print_exc()
        _answer(event, "FAILED", str(NotProven(f"The proof could not be made: {error}")))
    else:
        _answer(event, "SUCCESS", "", measured(event))


def _prove(event: dict[str, Any], context: Any) -> bool:
    """Whether it is proved; False when there is no time left in this call."""
    event.setdefault("Began", time.time())
    while True:
        try:
            if is_proved(event):
                return True
        except ClientError as error:
            code = error.response["Error"]["Code"]
            if code not in (*_REFUSED, *_BUSY):
                raise
            if time.time() - event["Began"] > RIGHTS_SECONDS:
                if code not in _REFUSED or event["ResourceProperties"]["Check"] != "image":
                    raise
                # the policy of another account's repository may let SageMaker in, and nobody else
                print(f"the image was not looked at: {error}")
                return True
        if context.get_remaining_time_in_millis() < 1000 * CALL_SECONDS:
            return False
        time.sleep(WAIT_SECONDS)


def is_proved(event: dict[str, Any]) -> bool:
    """One look: whether all is as it was asked; NotProven if it never will be.

    Nothing is proved on deletion, and nothing on the way back: when CloudFormation rolls an update back, a failure
    would leave the stack stuck.
    """
    properties = event["ResourceProperties"]
    if event["RequestType"] == "Delete" or _rolls_back(event["StackId"]):
        return True
    if properties["Check"] == "image":
        check_image(properties["Image"], properties["Architecture"])
        return True
    asks = "ContentType" in properties
    complete = check_config(properties) and ("Component" not in properties or check_component(properties))
    if complete and "Input" in properties:
        if "Queued" not in event:
            event["Queued"] = ask_later(properties, properties["Input"])
        complete = has_answered(properties, event["Queued"])
    elif complete and asks:
        complete = all(ask(properties, variant) for variant in properties["Variants"])
    minutes = int(properties["TimeoutMinutes"]) if asks else SETTLING_MINUTES
    if complete or time.time() - event["Began"] <= 60 * minutes:
        return complete
    if asks:
        raise NotProven(
            f"{_who(properties)} has not answered within {minutes} min (timeout_minutes)" + _log(properties)
        )
    raise NotProven(f"{_who(properties)} is still not InService after {minutes} min" + _log(properties))


def measured(event: dict[str, Any]) -> dict[str, str]:
    """How long a new endpoint took until it was in service: instances, image, model and the model's first answer.

    The server's log says what of it the server's own start was ("the start took"). Nothing is known of an update, whose
    beginning SageMaker does not keep; and what cannot be measured fails no proof.
    """
    properties = event["ResourceProperties"]
    if properties["Check"] != "endpoint" or event["RequestType"] != "Create":
        return {}
    try:
        endpoint = boto3.client("sagemaker").describe_endpoint(EndpointName=properties["EndpointName"])
        seconds = round((endpoint["LastModifiedTime"] - endpoint["CreationTime"]).total_seconds())
    except (ClientError, KeyError) as error:
        print(f"the start was not measured: {error!r}")
        return {}
    print(f"{properties['EndpointName']} was in service {seconds} s after it was created")
    return {"SecondsToInService": str(seconds)}


def _answer(event: dict[str, Any], status: str, reason: str, data: dict[str, str] | None = None) -> None:
    """Tell CloudFormation, at the address in S3 that it signed for this event."""
    answer = {
        "Status": status,
        "Reason": reason,
        "PhysicalResourceId": event.get("PhysicalResourceId") or f"proof-of-the-{event['ResourceProperties']['Check']}",
        **{key: event[key] for key in ("StackId", "RequestId", "LogicalResourceId")},
        **({"Data": data} if data else {}),
    }
    body = json.dumps(answer, ensure_ascii=False).encode("utf-8", "replace")
    # the address was signed for an empty type
    request = urllib.request.Request(event["ResponseURL"], body, {"Content-Type": ""}, method="PUT")  # noqa: S310
    for seconds in (2, 10, None):
        try:
            with urllib.request.urlopen(request, timeout=30):  # noqa: S310 - CloudFormation's own
                return
        except OSError:
            if seconds is None:
                raise
            time.sleep(seconds)


def check_image(image: str, architecture: str) -> None:
    """NotProven unless the image is in its repository, with a Docker manifest, for this architecture."""
    named = _IN_ECR.fullmatch(image)
    if named is None:
        return  # of another registry, which SageMaker asks on its own
    ecr = boto3.client("ecr", region_name=named["region"])
    repository = {"registryId": named["account"], "repositoryName": named["repository"]}
    identity = {"imageDigest": named["digest"]} if named["digest"] else {"imageTag": named["tag"] or "latest"}
    try:
        found = ecr.batch_get_image(**repository, imageIds=[identity], acceptedMediaTypes=list(_MANIFESTS))
    except ecr.exceptions.RepositoryNotFoundException:
        raise NotProven(
            f"{image} has no repository in {named['region']} of account {named['account']}: publish the image first, "
            "or correct its name"
        ) from None
    if not found["images"]:
        raise NotProven(f"{image} is not in its repository: publish the image first, or name one that is there")
    manifest = json.loads(found["images"][0]["imageManifest"])
    media_type = manifest.get("mediaType") or found["images"][0].get("imageManifestMediaType", "")
    if media_type != DOCKER_MANIFEST:
        raise NotProven(
            f"{image} has a manifest of type {media_type}, and SageMaker takes {DOCKER_MANIFEST} alone: build with "
            "--provenance=false --output type=docker,oci-mediatypes=false (podman: BUILDAH_FORMAT=docker), or copy it "
            "with 'skopeo copy --format v2s2'"
        )
    if zstd := [layer["mediaType"] for layer in manifest["layers"] if "zstd" in layer["mediaType"]]:
        raise NotProven(f"{image} has layers of type {zstd[0]}, and SageMaker unpacks gzip alone: build without zstd")
    url = ecr.get_download_url_for_layer(**repository, layerDigest=manifest["config"]["digest"])["downloadUrl"]
    with urllib.request.urlopen(url, timeout=30) as response:  # noqa: S310 - ECR's own, signed
        built_for = json.load(response)["architecture"]
    if built_for != architecture:
        raise NotProven(
            f"{image} is built for {built_for}, and the instances compute with {architecture}: build it with "
            f"--platform linux/{architecture}, or take another instance type"
        )


def check_config(properties: dict[str, Any]) -> bool:
    """Whether the endpoint is in service, with the configuration that was asked for; NotProven if it never will be."""
    name, wanted = properties["EndpointName"], properties["ConfigName"]
    try:
        endpoint = boto3.client("sagemaker").describe_endpoint(EndpointName=name)
    except ClientError as error:
        if "Could not find" not in error.response["Error"]["Message"]:
            raise
        raise NotProven(f"{name} is not there: something has deleted it behind its stack's back") from None
    status = endpoint["EndpointStatus"]
    if status in ("Failed", "OutOfService", "UpdateRollbackFailed"):
        reason = endpoint.get("FailureReason", "SageMaker gives no reason")
        raise NotProven(f"{name} is {status}: {reason}{_log(properties)}")
    if status != "InService":
        return False
    if endpoint["EndpointConfigName"] != wanted:
        reason = endpoint.get("FailureReason", "an alarm went off, or the new instances did not become healthy")
        raise NotProven(
            f"{name} serves {endpoint['EndpointConfigName']} and not {wanted}: SageMaker has rolled the update back "
            f"({reason}){_log(properties)}"
        )
    return True


def check_component(properties: dict[str, Any]) -> bool:
    """Whether the component is in service, with the model that was asked for; NotProven if it never will be."""
    name, wanted = properties["Component"], properties["Model"]
    component = boto3.client("sagemaker").describe_inference_component(InferenceComponentName=name)
    status = component["InferenceComponentStatus"]
    if status == "Failed":
        reason = component.get("FailureReason", "SageMaker gives no reason")
        raise NotProven(f"{_who(properties)} is Failed: {reason}{_log(properties)}")
    if status != "InService":
        return False
    specification = component["Specification"]
    served = {"model": specification["ModelName"], **specification.get("ComputeResourceRequirements", {})}
    asked = {"model": wanted, **properties.get("Requirements", {})}
    # CloudFormation makes a text of each number
    if other := [key for key, value in asked.items() if not _same(value, served.get(key))]:
        what = "" if other[0] == "model" else f"{other[0]} "
        raise NotProven(
            f"{_who(properties)} serves {what}{served.get(other[0])} and not {asked[other[0]]}: SageMaker has rolled "
            f"the update back (an alarm went off, or the new copies did not become healthy){_log(properties)}"
        )
    return True


def _same(asked: str, served: Any) -> bool:
    return asked == served or (_is_number(served) and float(asked) == served)


def ask(properties: dict[str, Any], variant: str) -> bool:
    """Whether a variant, or the component, has answered; False to ask again later."""
    name = _who(properties)
    # SageMaker gives up after 60 s; a client that has retries of its own would ask three times
    runtime = boto3.client("sagemaker-runtime", config=Config(read_timeout=70, retries={"total_max_attempts": 1}))
    target = {"TargetVariant": variant} if len(properties["Variants"]) > 1 else {}
    if "Component" in properties:
        target = {"InferenceComponentName": properties["Component"]}
    try:
        response = runtime.invoke_endpoint(
            EndpointName=properties["EndpointName"],
            ContentType=properties["ContentType"],
            Accept=properties["Accept"],
            Body=request_body(properties),
            **target,
        )
    except ClientError as error:
        if error.response["Error"]["Code"] in _COMES or _NO_COPY in error.response["Error"]["Message"]:
            return False
        if error.response["Error"]["Code"] in _REFUSED:
            raise
        said = error.response.get("OriginalMessage") or error.response["Error"]["Message"]
        status = error.response.get("OriginalStatusCode")
        raise NotProven(
            f"{name} is in service and cannot answer{f' ({status})' if status else ''}: "
            f"{said[:ANSWER_CHARACTERS]}{_log(properties)}"
        ) from None
    except ReadTimeoutError:
        raise NotProven(
            f"{name} has not answered within 60 s: take a larger instance type, or host it as Async{_log(properties)}"
        ) from None
    expect(properties, response["Body"].read())
    return True


def ask_later(properties: dict[str, Any], location: str) -> dict[str, str]:
    """Queue the request, which wakes an endpoint that is at zero; where its answer will be."""
    bucket, key = _in_s3(location)
    boto3.client("s3").put_object(Bucket=bucket, Key=key, Body=request_body(properties))
    queued = boto3.client("sagemaker-runtime").invoke_endpoint_async(
        EndpointName=properties["EndpointName"],
        ContentType=properties["ContentType"],
        Accept=properties["Accept"],
        InputLocation=location,
    )
    return {"OutputLocation": queued["OutputLocation"], "FailureLocation": queued.get("FailureLocation", "")}


def has_answered(properties: dict[str, Any], data: dict[str, str]) -> bool:
    """Whether the asynchronous request has its answer; NotProven if it failed."""
    if (answer := _read(data["OutputLocation"])) is not None:
        expect(properties, answer)
        return True
    failure = _read(data["FailureLocation"]) if data["FailureLocation"] else None
    if failure is not None:
        said = failure.decode(errors="replace")[:ANSWER_CHARACTERS]
        raise NotProven(f"{properties['EndpointName']} is in service and cannot answer: {said}{_log(properties)}")
    return False


def expect(properties: dict[str, Any], answer: bytes) -> None:
    """NotProven unless the answer holds what it has to, and is what it has to be."""
    said = answer.decode(errors="replace")
    wanted = properties.get("Expect")
    if wanted and wanted not in said:
        raise NotProven(f"{_who(properties)} answers without '{wanted}': {said[:ANSWER_CHARACTERS]}")
    if "Expected" not in properties:
        return
    expected = json.loads(properties["Expected"])
    try:
        found = json.loads(said)
    except ValueError:
        found = said
    if expected == said.strip():  # a text that is no JSON, or looks like some
        return
    if why := difference(expected, found, float(properties["Tolerance"])):
        raise NotProven(f"{_who(properties)} does not answer as expected: {why}; it says {said[:ANSWER_CHARACTERS]}")


def difference(expected: Any, found: Any, tolerance: float, at: str = "the answer") -> str | None:
    """The first thing in which an answer is not the expected one; None if there is nothing.

    A number may differ by the tolerance, or by this part of itself where it is above 1. An object may have more keys
    than are expected, a list may not have more elements.
    """
    if isinstance(expected, dict) and isinstance(found, dict):
        if missing := [key for key in expected if key not in found]:
            return f"{at} has no '{missing[0]}'"
        parts = [(expected[key], found[key], f"{at}.{key}") for key in expected]
    elif isinstance(expected, list) and isinstance(found, list):
        if len(expected) != len(found):
            return f"{at} has {len(found)} elements instead of {len(expected)}"
        parts = [(one, other, f"{at}[{i}]") for i, (one, other) in enumerate(zip(expected, found, strict=True))]
    elif _is_number(expected) and _is_number(found):
        if math.isclose(expected, found, rel_tol=tolerance, abs_tol=tolerance):
            return None
        return f"{at} is {found} instead of {expected}, and may differ by {tolerance:g} (tolerance)"
    elif type(expected) is type(found) and expected == found:
        return None
    else:
        shown = (json.dumps(each, ensure_ascii=False)[:ANSWER_CHARACTERS] for each in (found, expected))
        return "{} is {} instead of {}".format(at, *shown)
    found_out = (difference(one, other, tolerance, path) for one, other, path in parts)
    return next((each for each in found_out if each), None)


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def request_body(properties: dict[str, Any]) -> bytes:
    """The request: the given one, a second of silence, or a small black picture."""
    match properties.get("Sample"):
        case "audio":
            return second_of_silence()
        case "image":
            return small_picture()
        case _:
            return base64.b64decode(properties["Body"])


def second_of_silence() -> bytes:
    """WAV, 16 kHz, one channel."""
    file = io.BytesIO()
    with wave.open(file, "wb") as sound:
        sound.setparams((1, 2, 16000, 0, "NONE", ""))
        sound.writeframes(bytes(2 * 16000))
    return file.getvalue()


def small_picture() -> bytes:
    """PNG, 64 x 64."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", 64, 64, 8, 2, 0, 0, 0)  # 8 bits each of red, green and blue
    rows = zlib.compress(64 * (b"\0" + 64 * b"\0\0\0"))
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", rows) + chunk(b"IEND", b"")


def _who(properties: dict[str, Any]) -> str:
    """What is asked, as the messages call it."""
    component = [f"{properties['Component']} of"] if "Component" in properties else []
    return " ".join([*component, properties["EndpointName"]])


def _log(properties: dict[str, Any]) -> str:
    """The container's last lines, for the end of a message; never a failure of its own."""
    group = f"/aws/sagemaker/Endpoints/{properties['EndpointName']}"
    if "Component" in properties:
        group = f"/aws/sagemaker/InferenceComponents/{properties['Component']}"
    logs = boto3.client("logs")
    try:
        streams = logs.describe_log_streams(logGroupName=group, orderBy="LastEventTime", descending=True, limit=1)
        stream = streams["logStreams"][0]["logStreamName"]
        events = logs.get_log_events(logGroupName=group, logStreamName=stream, limit=LOG_LINES)["events"]
    except (ClientError, IndexError):
        return f"\n(there is no log in {group})"
    lines = "\n".join(event["message"].rstrip() for event in events)
    return f"\nThe container's last lines, of {group}:\n{lines[-LOG_CHARACTERS:]}"


def _size(text: str) -> int:
    """Bytes of a text in JSON, where a quote takes two and a control character six."""
    return len(json.dumps(text, ensure_ascii=False).encode("utf-8", "replace"))


def _fitting(text: str) -> str:
    """The beginning of a text, of nearly half of what a failure may take."""
    room = REASON_BYTES // 2 - 10
    while _size(text) > room:
        text = text[: min(len(text) - 1, len(text) * room // _size(text))]
    return text


def _rolls_back(stack_id: str) -> bool:
    (stack,) = boto3.client("cloudformation").describe_stacks(StackName=stack_id)["Stacks"]
    return "ROLLBACK" in stack["StackStatus"]


def _read(location: str) -> bytes | None:
    bucket, key = _in_s3(location)
    try:
        content: bytes = boto3.client("s3").get_object(Bucket=bucket, Key=key)["Body"].read()
    except ClientError as error:
        # without s3:ListBucket S3 calls what is not there forbidden
        if error.response["Error"]["Code"] in ("NoSuchKey", "AccessDenied"):
            return None
        raise
    return content


def _in_s3(location: str) -> tuple[str, str]:
    bucket, _, key = location.removeprefix("s3://").partition("/")
    return bucket, key
