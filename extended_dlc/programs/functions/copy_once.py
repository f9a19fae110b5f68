"""A Lambda function in front of cdk-ecr-deployment's: an image that is there under its tag is not copied again.

CloudFormation asks for the copy again on a rollback and on a revert, and ECR refuses a second push to an immutable tag
even of the same digest. The event is handed on to the function that copies, which then answers CloudFormation itself.
It needs boto3 and nothing else; the library does not import it.
"""

from __future__ import annotations

import json
import os
import re
import urllib.request
from typing import Any

import boto3
from botocore.exceptions import ClientError

_MEDIA_TYPES = [
    "application/vnd.docker.distribution.manifest.v2+json",
    "application/vnd.docker.distribution.manifest.list.v2+json",
    "application/vnd.oci.image.manifest.v1+json",
    "application/vnd.oci.image.index.v1+json",
]
_IN_ECR = re.compile(
    r"(?:docker://)?(?P<account>\d{12})\.dkr\.ecr\.(?P<region>[a-z0-9-]+)\.[a-z0-9.]+/(?P<repository>[^:@]+):(?P<tag>.+)"
)


def handle(event: dict[str, Any], context: Any) -> None:
    """Answer CloudFormation where nothing is to be copied, or hand the event on."""
    properties = event["ResourceProperties"]
    if event["RequestType"] == "Delete" or is_copied(properties["SrcImage"], properties["DestImage"]):
        answer(event)
        return
    boto3.client("lambda").invoke(
        FunctionName=os.environ["COPIER"], InvocationType="Event", Payload=json.dumps(event).encode()
    )


def is_copied(source: str, destination: str) -> bool:
    """Whether the destination has the source's digest under its tag, or a tag that nothing can be pushed to again.

    The tag is a hash of what is built: under an immutable one, what was built first stays.
    """
    found, asked = _IN_ECR.fullmatch(destination), _IN_ECR.fullmatch(source)
    existing = _digest(found.groupdict()) if found else None
    if found is None or existing is None:
        return False
    if asked is not None and _digest(asked.groupdict()) == existing:
        print(f"{destination} has {existing} already: nothing is copied")
        return True
    if _is_immutable(found.groupdict()):
        print(f"{destination} is immutable and has {existing}: it is kept")
        return True
    return False


def _digest(image: dict[str, str]) -> str | None:
    answer = boto3.client("ecr", region_name=image["region"]).batch_get_image(
        registryId=image["account"],
        repositoryName=image["repository"],
        imageIds=[{"imageTag": image["tag"]}],
        acceptedMediaTypes=_MEDIA_TYPES,
    )
    return next((str(each["imageId"]["imageDigest"]) for each in answer["images"]), None)


def _is_immutable(image: dict[str, str]) -> bool:
    try:
        answer = boto3.client("ecr", region_name=image["region"]).describe_repositories(
            registryId=image["account"], repositoryNames=[image["repository"]]
        )
    except ClientError as error:  # a repository of another account may not say; the copy then shows
        print(f"whether {image['repository']} is immutable is not known: {error}")
        return False
    return str(answer["repositories"][0]["imageTagMutability"]).startswith("IMMUTABLE")


def answer(event: dict[str, Any]) -> None:
    """Tell CloudFormation that it is done."""
    body = {
        "Status": "SUCCESS",
        "PhysicalResourceId": event.get("PhysicalResourceId") or event["RequestId"],
        **{name: event[name] for name in ("StackId", "RequestId", "LogicalResourceId")},
    }
    request = urllib.request.Request(  # noqa: S310 - CloudFormation's own address, https
        event["ResponseURL"], data=json.dumps(body).encode(), method="PUT", headers={"Content-Type": ""}
    )
    urllib.request.urlopen(request, timeout=30).close()  # noqa: S310
