"""Stacks of the tests, with the region and the account that they are for."""

from __future__ import annotations

from aws_cdk import App, Environment, Stack
from constructs import Construct

ACCOUNT = "111111111111"
REGION = "us-east-1"
ENV = Environment(account=ACCOUNT, region=REGION)


def new_stack(
    scope: Construct | None = None, name: str = "Test", *, account: str | None = None, region: str = REGION
) -> Stack:
    """An empty stack of an app, or of one of its own; its account is not known where none is given."""
    return Stack(scope or App(), name, env=Environment(account=account, region=region))
