"""How an endpoint is hosted."""

from __future__ import annotations

from dataclasses import dataclass

from aws_cdk import Token

from extended_dlc._private import require
from extended_dlc.facts.instances import find_instance

DEFAULT_INSTANCE_TYPE = "ml.m5.xlarge"
"""4 vCPU and 16 GiB without a GPU: a type that the quota of a new account allows."""

DEFAULT_STARTUP_TIMEOUT_SECONDS = 900


@dataclass(frozen=True, kw_only=True)
class RealTime:
    """Instances that run all the time and answer each request within 60 s."""

    instance_type: str = DEFAULT_INSTANCE_TYPE
    """SageMaker's name of the instance type. Default: `ml.m5.xlarge`. ValueError for a type it does not host on."""

    instances: int = 1
    """How many instances serve the endpoint, 1 or more. Default: one, no scaling."""

    startup_timeout_seconds: int = DEFAULT_STARTUP_TIMEOUT_SECONDS
    """How long a container may take from its start, model download included, to its first healthy `/ping`; 60 to 3600 s
    (SageMaker API, `ContainerStartupHealthCheckTimeoutInSeconds`). Default: 900 s."""

    def __post_init__(self) -> None:
        """Refuse what SageMaker would refuse."""
        require("instance_type", self.instance_type, find_instance)
        if not Token.is_unresolved(self.instances) and self.instances < 1:
            raise ValueError(f"'instances' ({self.instances}) must be 1 or more: delete the endpoint to run none")
        if not Token.is_unresolved(self.startup_timeout_seconds) and not 60 <= self.startup_timeout_seconds <= 3600:
            raise ValueError(
                f"'startup_timeout_seconds' ({self.startup_timeout_seconds}) must be from 60 to 3600: "
                "a model that needs longer has to come from S3 instead of the Hub"
            )
