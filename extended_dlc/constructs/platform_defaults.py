"""`PlatformDefaults`: the rules of a platform team, and its defaults for options that a team leaves out."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from extended_dlc.options._kinds import check_types
from extended_dlc.options._values import OptionError, require_tags, within
from extended_dlc.options.functions import Functions
from extended_dlc.options.monitoring import Monitoring
from extended_dlc.options.network import Network
from extended_dlc.options.proof import Proof

if TYPE_CHECKING:
    from aws_cdk import aws_iam as iam
    from aws_cdk import aws_kms as kms
    from constructs import Construct

RETENTION_DAYS = (
    *(1, 3, 5, 7, 14, 30, 60, 90, 120, 150, 180, 365, 400, 545, 731, 1096, 1827),
    *(2192, 2557, 2922, 3288, 3653),
)
"""Retention values that CloudWatch accepts (CloudWatch Logs API reference, PutRetentionPolicy)."""


@check_types
@dataclass(frozen=True, kw_only=True)
class PlatformDefaults:
    """Rules and defaults of a platform for everything below a construct, such as an app or a stage: `apply(app)`.

    Apply them before the endpoints are defined; ValueError afterwards. A broken rule raises ValueError where the
    construct is defined, and the error ends with `message`. The finished templates are checked too, at synth: types,
    counts, models and proofs that a token, an escape hatch or a construct of another library made.

    If several scopes of an endpoint have rules, none of them may be broken, and a default is the nearest scope's.
    """

    message: str = "ask your platform team"
    """End of each error, such as a contact or the location of the rules. Default: "ask your platform team"."""

    replaceable: bool = False
    """Whether rules of a scope below replace these as a whole, such as those of a stage for research. Default: they
    come on top of these."""

    network: Network | None = None
    """The VPC of endpoints and trainings that name none. ValueError for `Serverless`, which supports no VPC. Default:
    SageMaker's own."""

    encryption_key: kms.IKey | None = None
    """The key of endpoints and trainings that name none. Default: AWS's own keys."""

    monitoring: Monitoring | None = None
    """The monitoring of endpoints that have none. Default: none."""

    proof: Proof | None = None
    """The `Proof` of endpoints that name none; ValueError for `verify=False`, and for an `optional` proof where
    this one is not. Default: the endpoint's `verify`."""

    functions: Functions | None = None
    """How the Lambda functions of the stacks run, as in a VPC. Default: as AWS runs them."""

    permissions_boundary: iam.IManagedPolicy | None = None
    """The permissions boundary of each new role of any construct: endpoints, copies of images, builds, the CDK's custom
    resources. Default: none."""

    role_path: str | None = None
    """Path of each new role that has none, such as `/ml/`. Default: `/`."""

    role_name_prefix: str | None = None
    """Prefix of the names of new roles, at most 20 characters; a name made of the construct's path and the region
    follow. Roles that have a name keep it. Default: CloudFormation names them."""

    log_retention_days: int | None = None
    """Retention of log groups that set none, in days. ValueError for a value that CloudWatch does not accept. Default:
    for ever."""

    tags: Mapping[str, str] = field(default_factory=dict)
    """Tags of all resources. Default: none."""

    instance_types: Sequence[str] = ()
    """The instance types that may be used, with `*` for any text: `ml.g5.*`. A type that only the deployment knows has
    to be a `CfnParameter` with allowed values. Default: all."""

    organisations: Sequence[str] = ()
    """Hub organisations whose models may be served or trained further, such as `mistralai`; for adapters from the Hub
    too. Models in S3 are not checked (`own_models`). Default: all."""

    licences: Sequence[str] = ()
    """Allowed licences of models, such as `apache-2.0`; models with an unknown licence are refused too. What the name
    tells, or `extended-dlc lookup` noted, counts beside what an option says. Models in S3 are not checked
    (`own_models`). Default: all."""

    own_images: bool = True
    """Whether images may be built with `ExtendedDlc` below the scope, an `ImageStack`'s included. Default: they may."""

    images: Sequence[str] = ()
    """The images that endpoints and trainings may use, with `*` for any text: references, such as
    `111111111111.dkr.ecr.*`, and the names or ARNs of parameters that name images, such as `/images/*`. Images that are
    built below the scope match none. Default: all."""

    own_models: bool = True
    """Whether weights may be served that are not from the Hub: `S3Model`, and model classes of others. Trained models
    count as what they were trained from. Default: they may."""

    other_endpoints: bool = False
    """Whether SageMaker Models and endpoints may be made without this library's constructs, although nothing but their
    instance types, prices and the Hub's names in their variables is checked. Default: they are refused where there
    are rules about proofs, models or images."""

    greatest_hourly_price: float | None = None
    """Highest price per hour of an endpoint or a training with all its instances, by `prices`. Default: no limit."""

    prices: Mapping[str, float] = field(default_factory=dict)
    """Instance type -> price per hour, in the currency of the limit. ValueError for endpoints with a type that has none
    here. Default: none."""

    def __post_init__(self) -> None:
        """Refuse values that could not be enforced."""
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
        for option in ("instance_types", "prices"):
            # A pattern may begin with a wildcard; EC2's names would match no type of SageMaker's.
            if wrong := next((each for each in getattr(self, option) if not re.match(r"ml\.|[*?[]", each)), None):
                raise OptionError(option, wrong, f"is no type of SageMaker's: write ml.{wrong}")
        for name, price in self.prices.items():
            within("prices", price, 0, None, f"correct that of {name}")
        if wrong := next((each for each in self.organisations if "/" in each), None):
            raise OptionError("organisations", wrong, f"is a model: write {wrong.partition('/')[0]}")
        require_tags(self.tags)

    @property
    def checks_constructs(self) -> bool:
        """Whether there are rules that only this library's constructs can be checked by."""
        rules = (self.proof, self.organisations, self.licences, not self.own_images, not self.own_models)
        return any(rules)

    @property
    def checks_templates(self) -> bool:
        """Whether there are rules that finished templates are checked by."""
        limits = (self.instance_types, self.images, self.permissions_boundary, self.greatest_hourly_price is not None)
        return self.checks_constructs or any(limits)

    @check_types
    def apply(self, scope: Construct) -> None:
        """Apply the rules to everything that is defined below `scope` from now on; tags and roles are set at synth.

        ValueError where endpoints or trainings are defined there already.
        """
        from extended_dlc.constructs.platform_applied import apply

        apply(self, scope)
