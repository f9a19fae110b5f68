"""A boto3 client of the embedded AWS, used as any program would use it."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from extended_dlc.rehearsal.cdk import REGION, aws_environment, only_this_machine

PUBLIC_ACTIONS = (
    *("ecr:BatchCheckLayerAvailability", "ecr:BatchGetImage", "ecr:DescribeImages", "ecr:GetDownloadUrlForLayer"),
)
"""What every account may do with AWS's images."""


def connect(service: str, environment: Mapping[str, str], region: str = REGION) -> Any:
    """A boto3 client of the embedded AWS that these environment variables name, with their key."""
    import boto3
    from botocore.config import Config

    with only_this_machine():
        return boto3.client(
            service,
            endpoint_url=environment["AWS_ENDPOINT_URL"],
            region_name=region,
            aws_access_key_id=environment["AWS_ACCESS_KEY_ID"],
            aws_secret_access_key=environment["AWS_SECRET_ACCESS_KEY"],
            config=Config(retries={"total_max_attempts": 1}, read_timeout=70, proxies={}),
        )


@dataclass(frozen=True, kw_only=True)
class Answer:
    """An endpoint's response, and what served it."""

    text: str
    model: str
    """Name of the SageMaker Model behind the endpoint."""

    digest: str
    """The digest of the running image, as in `DescribeEndpoint`."""

    def shown(self, request: object) -> str:
        """A step's proof: the request, the response and what served it."""
        return f"{request}\n→ {self.text!r}\nfrom {self.model}, image {self.digest[:19]}…"


@dataclass(frozen=True, kw_only=True)
class Client:
    """Calls the embedded AWS on a port, for the endpoints of the app's stack."""

    port: int
    name: str
    """The stack's name; its endpoints are named `<name>-<key>`."""

    def service(self, service: str, *, account: str | None = None, region: str = REGION) -> Any:
        """A boto3 client, optionally of another account such as AWS's own."""
        client = connect(service, aws_environment(self.port), region)
        if account is not None:
            client.meta.events.register("before-send", _as_account(account))
        return client

    def make_public_repository(self, name: str, *, account: str, region: str = REGION) -> None:
        """Create a repository of another account, from which every account may pull, as from AWS's own."""
        ecr = self.service("ecr", account=account, region=region)
        with suppress(ecr.exceptions.RepositoryAlreadyExistsException):
            ecr.create_repository(repositoryName=name)
        statement = {"Effect": "Allow", "Principal": "*", "Action": PUBLIC_ACTIONS}
        policy = json.dumps({"Version": "2012-10-17", "Statement": [statement]})
        ecr.set_repository_policy(repositoryName=name, policyText=policy)

    def invoke(self, endpoint: str, body: bytes, content_type: str) -> Any:
        """Invoke an endpoint and parse its JSON response."""
        runtime = self.service("sagemaker-runtime")
        answer = runtime.invoke_endpoint(EndpointName=f"{self.name}-{endpoint}", Body=body, ContentType=content_type)
        return json.loads(answer["Body"].read())

    def generate(self, endpoint: str, request: dict[str, Any]) -> Answer:
        """Generate text. Raises `RuntimeError` where none was generated."""
        reply = self.invoke(endpoint, json.dumps(request).encode(), "application/json")
        answer = self.who_answered(endpoint, reply[0]["generated_text"])
        prompt = request["inputs"]
        if not answer.text.startswith(prompt) or answer.text == prompt:
            raise RuntimeError(f"no text was generated: {reply}")
        return answer

    def status(self, endpoint: str) -> str:
        """An endpoint's status, such as `InService`."""
        described = self.service("sagemaker").describe_endpoint(EndpointName=f"{self.name}-{endpoint}")
        return str(described["EndpointStatus"])

    def who_answered(self, endpoint: str, text: str) -> Answer:
        """The Model and image behind an endpoint. Raises `RuntimeError` where the registry has another digest."""
        sagemaker = self.service("sagemaker")
        described = sagemaker.describe_endpoint(EndpointName=f"{self.name}-{endpoint}")
        (deployed,) = described["ProductionVariants"][0]["DeployedImages"]
        config = sagemaker.describe_endpoint_config(EndpointConfigName=described["EndpointConfigName"])
        digest = deployed["ResolvedImage"].rpartition("@")[2]
        repository, _, tag = deployed["SpecifiedImage"].partition("/")[2].partition(":")
        (in_registry,) = self.service("ecr").describe_images(repositoryName=repository, imageIds=[{"imageTag": tag}])[
            "imageDetails"
        ]
        if in_registry["imageDigest"] != digest:
            raise RuntimeError(f"{endpoint} runs {digest}, but its tag stands for {in_registry['imageDigest']}")
        return Answer(text=text, model=config["ProductionVariants"][0]["ModelName"], digest=digest)


def _as_account(account: str) -> Callable[..., None]:
    """Adds the header with which moto serves a request for another account; AWS does not know it."""

    def add_header(request: Any, **_: object) -> None:
        request.headers["x-moto-account-id"] = account

    return add_header
