"""The stack of a smoke test in the account, and the check that none of its resources remain."""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import suppress
from typing import Any

from extended_dlc.facts.names import ENDPOINT_LOGS

_BETWEEN = 3
"""Seconds between two calls to CloudFormation."""


class Remains:
    """The stack of a smoke test, with its resources."""

    def __init__(self, name: str, region: str) -> None:
        """Take the stack's name, which is also the prefix of its endpoints' names."""
        self.name = name
        self.region = region
        self.stack: str | None = None
        """The stack's id, because a deleted stack can be described by its id only; None before the stack was seen."""
        self._resources: list[tuple[str, str]] = []

    def client(self, service: str, *, read_timeout: float = 30) -> Any:
        """A client with the AWS configuration of the environment."""
        import boto3
        from botocore.config import Config

        config = Config(retries={"total_max_attempts": 3}, connect_timeout=10, read_timeout=read_timeout)
        return boto3.client(service, region_name=self.region, config=config)

    def describe(self) -> Any:
        """The stack, or None if it does not exist."""
        from botocore.exceptions import ClientError

        try:
            return self.client("cloudformation").describe_stacks(StackName=self.stack or self.name)["Stacks"][0]
        except ClientError as error:
            if "does not exist" in str(error):
                return None
            raise

    def remember(self) -> None:
        """Store the stack's id and resources, to look for them after the deletion."""
        stack = self.describe()
        if stack is None:
            return
        self.stack = stack["StackId"]
        pages = self.client("cloudformation").get_paginator("list_stack_resources").paginate(StackName=self.name)
        self._resources = [
            (each["ResourceType"], _name(each["PhysicalResourceId"]))
            for page in pages
            for each in page["StackResourceSummaries"]
            if each.get("PhysicalResourceId")
        ]

    @property
    def being_created(self) -> bool:
        """Whether CloudFormation is creating the stack or rolling the creation back."""
        stack = self.describe()
        return stack is not None and stack["StackStatus"] in ("CREATE_IN_PROGRESS", "ROLLBACK_IN_PROGRESS")

    def delete(self, *, minutes: float) -> None:
        """Let CloudFormation delete the stack; raises `RuntimeError` with the status if that takes too long.

        CloudFormation may refuse a deletion during another operation; the call is then repeated.
        """
        from botocore.exceptions import ClientError

        deadline = time.monotonic() + minutes * 60
        while True:
            try:
                self.client("cloudformation").delete_stack(StackName=self.stack)
                break
            except ClientError as error:
                if "can not be deleted" not in str(error) or time.monotonic() >= deadline:
                    raise
            time.sleep(_BETWEEN)
        if not self.gone(minutes=(deadline - time.monotonic()) / 60):
            raise RuntimeError(f"the status of stack {self.name} is {self.describe()['StackStatus']}")

    def gone(self, *, minutes: float = 0) -> bool:
        """Whether the stack is deleted, now or within `minutes`."""
        deadline = time.monotonic() + minutes * 60
        while True:
            stack = self.describe()
            status = "DELETE_COMPLETE" if stack is None else str(stack["StackStatus"])
            if status == "DELETE_COMPLETE":
                return True
            if status == "DELETE_FAILED" or time.monotonic() >= deadline:
                return False
            time.sleep(_BETWEEN)

    def prove_gone(self, *, keep_logs: bool) -> str:
        """Look for each resource that the stack had; raises `RuntimeError` with those that still exist."""
        sagemaker, ecr, iam = self.client("sagemaker"), self.client("ecr"), self.client("iam")
        look: dict[str, Callable[[str], Any]] = {
            "AWS::SageMaker::Endpoint": lambda name: sagemaker.describe_endpoint(EndpointName=name),
            "AWS::SageMaker::EndpointConfig": lambda name: sagemaker.describe_endpoint_config(EndpointConfigName=name),
            "AWS::SageMaker::Model": lambda name: sagemaker.describe_model(ModelName=name),
            "AWS::ECR::Repository": lambda name: ecr.describe_repositories(repositoryNames=[name]),
            "AWS::IAM::Role": lambda name: iam.get_role(RoleName=name),
        }
        asked = [(kind, name) for kind, name in self._resources if kind in look]
        left = {f"{kind.rpartition('::')[2]} {name}" for kind, name in asked if _exists(look[kind], name)}
        found = sagemaker.list_endpoints(NameContains=self.name)["Endpoints"]
        left |= {f"Endpoint {each['EndpointName']}" for each in found}
        if not self.gone():
            left.add(f"stack {self.name}")
        if left:
            raise RuntimeError(f"still there: {', '.join(sorted(left))}")
        return (
            f"no stack, and none of the {len(asked)} endpoints, configs, models, repositories and roles that it had; "
            f"{self._logs(keep=keep_logs)}; the CDK's own bootstrap bucket and repository keep what was published"
        )

    def _logs(self, *, keep: bool) -> str:
        """Delete the log groups that AWS created, or keep them for an analysis; returns which, in words."""
        from botocore.exceptions import ClientError

        logs = self.client("logs")
        names: list[str] = []
        with suppress(ClientError):  # without permission for logs the other checks still count
            for prefix in (f"{ENDPOINT_LOGS}/{self.name}-", f"/aws/lambda/{self.name}-"):
                found = logs.describe_log_groups(logGroupNamePrefix=prefix)["logGroups"]
                names += [each["logGroupName"] for each in found]
            for name in () if keep else names:
                logs.delete_log_group(logGroupName=name)
        if keep and names:
            return f"log groups are kept to be read: {', '.join(names)}"
        return f"{len(names)} log groups deleted"


def _name(physical_id: str) -> str:
    """The name in a physical id, which for some resource types is an ARN."""
    return physical_id.rpartition("/")[2] if physical_id.startswith("arn:") else physical_id


def _exists(look: Callable[[str], Any], name: str) -> bool:
    """Whether a resource still exists; an error other than 'not found' is raised."""
    from botocore.exceptions import ClientError

    try:
        look(name)
    except ClientError as error:
        code = error.response.get("Error", {}).get("Code", "")
        # SageMaker has no error code for it: ValidationException, "Could not find …".
        if "NotFound" in code or "NoSuchEntity" in code or "could not find" in str(error).lower():
            return False
        raise
    return True
