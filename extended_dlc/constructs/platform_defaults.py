"""What a platform team allows, and what it gives where a team says nothing: `PlatformDefaults`."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from extended_dlc.options._values import OptionError, within
from extended_dlc.options.monitoring import Monitoring
from extended_dlc.options.network import Network
from extended_dlc.options.proof import Proof

if TYPE_CHECKING:
    from aws_cdk import aws_iam as iam
    from aws_cdk import aws_kms as kms

RETENTION_DAYS = (
    *(1, 3, 5, 7, 14, 30, 60, 90, 120, 150, 180, 365, 400, 545, 731, 1096, 1827),
    *(2192, 2557, 2922, 3288, 3653),
)
"""What CloudWatch takes (CloudWatch Logs API reference, PutRetentionPolicy)."""


@dataclass(frozen=True, kw_only=True)
class PlatformDefaults:
    """Rules and defaults of a platform for everything below a construct, as an app or a stage: `apply(app)`.

    Apply them before the endpoints are defined. What a rule refuses raises ValueError at synth, and the error ends with
    `message`. Rules of a construct nearer to the endpoint win as a whole.
    """

    message: str = "ask your platform team"
    """What a refusal ends with: whom to ask, where the rules are. Default: "ask your platform team"."""

    network: Network | None = None
    """The VPC of endpoints and trainings that name none. ValueError for `Serverless`, which can be in none. Default:
    SageMaker's own."""

    encryption_key: kms.IKey | None = None
    """The key of endpoints and trainings that name none. Default: AWS's own keys."""

    monitoring: Monitoring | None = None
    """The monitoring of endpoints that have none. Default: none."""

    proof: Proof | None = None
    """What proves endpoints that name no `Proof`; ValueError for `verify=False`. Default: what the endpoint says."""

    permissions_boundary: iam.IManagedPolicy | None = None
    """What no new role can exceed, whichever construct makes it: endpoints, copies of images, builds, the CDK's own
    custom resources. Default: none."""

    role_path: str | None = None
    """Path of each new role that has none, as `/ml/`. Default: `/`."""

    role_name_prefix: str | None = None
    """What the names of new roles begin with, at most 20 characters; a name made of the construct's path and the region
    follow. Roles that have a name keep it. Default: CloudFormation names them."""

    log_retention_days: int | None = None
    """How long log groups are kept that say nothing themselves. ValueError for what CloudWatch does not know. Default:
    for ever."""

    tags: Mapping[str, str] = field(default_factory=dict)
    """Tags of everything. Default: none."""

    instance_types: Sequence[str] = ()
    """The instance types that may be used, with `*` for any text: `ml.g5.*`. Default: all."""

    organisations: Sequence[str] = ()
    """The Hub's organisations whose models may be served, as `mistralai`. Models in S3 are not asked. Default: all."""

    licences: Sequence[str] = ()
    """The licences that models may be under, as `apache-2.0`; one that nobody knows is refused, too. Models in S3 are
    not asked. Default: all."""

    own_images: bool = True
    """Whether teams may build images of their own with `ExtendedDlc`. Default: they may."""

    greatest_hourly_price: float | None = None
    """The most that an endpoint may cost an hour with all its instances, by `prices`. Default: no limit."""

    prices: Mapping[str, float] = field(default_factory=dict)
    """What an instance costs an hour, by its type, in the currency of the limit. Types without a price are not asked.
    Default: none."""

    def __post_init__(self) -> None:
        """Refuse what could not be enforced."""
        if self.role_path is not None and not re.fullmatch(r"/([\w+=,.@-]+/)*", self.role_path):
            raise OptionError("role_path", self.role_path, "must begin and end with a slash, as /ml/")
        prefix = self.role_name_prefix
        if prefix is not None and not re.fullmatch(r"[\w+=,.@-]{1,20}", prefix):
            raise OptionError("role_name_prefix", prefix, "must be 1 to 20 letters, digits and of '+=,.@-_'")
        if self.log_retention_days is not None and self.log_retention_days not in RETENTION_DAYS:
            known = ", ".join(map(str, RETENTION_DAYS))
            raise OptionError("log_retention_days", self.log_retention_days, f"must be one of {known}")
        within("greatest_hourly_price", self.greatest_hourly_price, 0, None, "leave it out where there is no limit")
        if self.greatest_hourly_price is not None and not self.prices:
            raise OptionError("greatest_hourly_price", self.greatest_hourly_price, "needs 'prices': give them")

    def apply(self, scope: object) -> None:
        """Have these rules for everything that is defined below `scope` from now on, and tags and roles at synth."""
        from extended_dlc.constructs.platform_rules import apply

        apply(self, scope)
