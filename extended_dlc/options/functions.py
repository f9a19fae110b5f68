"""`Functions`: where and how the Lambda functions of a stack run."""

from __future__ import annotations

from dataclasses import dataclass

from extended_dlc.options._kinds import check_types
from extended_dlc.options._values import within
from extended_dlc.options.network import Network


@check_types
@dataclass(frozen=True, kw_only=True)
class Functions:
    """How the Lambda functions run that a stack has for proofs, copies of images, builds and trainings.

    It is for all of them, also for the CDK's function for calls to AWS, which a stack has once. They run in deployments
    and trainings, and read and write no request.
    """

    network: Network | None = None
    """The VPC of the functions, which call AWS's interfaces and answer CloudFormation through S3: it needs a way to the
    internet, or `PrivateAccess(functions=True)`. Default: Lambda's own, with access to the internet."""

    reserved_concurrency: int | None = None
    """How many invocations of each function the account keeps free, which is also the most that run at once, 1 or more;
    Lambda leaves at least 100 of an account's concurrency unreserved. Default: none are reserved."""

    tracing: bool = False
    """Whether X-Ray traces each invocation, and each run of a training's state machine. Default: it does not."""

    def __post_init__(self) -> None:
        """Refuse a number that would stop the functions."""
        within("reserved_concurrency", self.reserved_concurrency, 1, None, "0 would stop the function")
