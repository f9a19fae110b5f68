"""One rule of the embedded AWS, and what its check can ask: the account and region of a call."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime, timezone
from typing import Any
from urllib.parse import urlsplit

from moto.cloudwatch.models import cloudwatch_backends
from moto.iam.models import Role
from moto.s3.models import s3_backends
from moto.sagemaker.models import sagemaker_backends
from moto.utilities.utils import get_partition

from extended_dlc.rehearsal.embedded.calls import Parameters
from extended_dlc.rehearsal.embedded.scenarios import Scenarios
from extended_dlc.rehearsal.embedded.trust import find_role, trusts

API = "SageMaker API reference, "
GUIDE = "SageMaker developer guide, "


@dataclass(frozen=True, kw_only=True)
class World:
    """The account and region of a call, with what exists there."""

    account_id: str
    region: str
    scenarios: Scenarios

    @property
    def sagemaker(self) -> Any:
        return sagemaker_backends[self.account_id][self.region]

    def find_role(self, arn: str) -> Role | None:
        """A role of this account; None while the scenario `role_seconds` hides a new one."""
        role = find_role(self.account_id, self.region, arn)
        if role is None or not self.scenarios.role_seconds:
            return role
        created = role.create_date.replace(tzinfo=timezone.utc) if not role.create_date.tzinfo else role.create_date
        age = (datetime.now(timezone.utc) - created).total_seconds()
        return role if age >= self.scenarios.role_seconds else None

    def trusts(self, arn: str, service: str, *, source: str = "") -> bool:
        """Whether the account has the role, and the role lets the service assume it for this source."""
        role = self.find_role(arn)
        return role is not None and trusts(role, service, account_id=self.account_id, region=self.region, source=source)

    def has_bucket(self, url: str) -> bool:
        """Whether the bucket of an S3 URL exists."""
        return urlsplit(url).netloc in s3_backends[self.account_id][get_partition(self.region)].buckets

    def has_object(self, url: str) -> bool:
        """Whether there is an object at an S3 URL, or below it where it ends with a slash."""
        parts = urlsplit(url)
        bucket = s3_backends[self.account_id][get_partition(self.region)].buckets.get(parts.netloc)
        prefix = parts.path.lstrip("/")
        return bucket is not None and any(
            key == prefix or (prefix.endswith("/") and key.startswith(prefix)) for key in list(bucket.keys)
        )

    def has_alarm(self, name: str) -> bool:
        return name in cloudwatch_backends[self.account_id][self.region].alarms

    def variants_of(self, config: str) -> list[Parameters]:
        """The production variants of an endpoint configuration; none where it does not exist."""
        found = self.sagemaker.endpoint_configs.get(config)
        return list(getattr(found, "request", {}).get("ProductionVariants", ())) if found else []

    def model(self, name: str | None) -> Parameters:
        """A model's request of CreateModel; empty where the model does not exist."""
        found = self.sagemaker._models.get(name or "")
        return dict(getattr(found, "request", {})) if found else {}

    def instances_in_use(self, kind: str) -> int:
        """The number of instances of a type in the account's endpoints."""
        count = 0
        for endpoint in list(self.sagemaker.endpoints.values()):
            for variant in self.variants_of(endpoint.endpoint_config_name):
                count += int(variant.get("InitialInstanceCount", 1)) if variant.get("InstanceType") == kind else 0
        return count


Check = Callable[[World, Parameters], str | None]


@dataclass(frozen=True, kw_only=True)
class Rule:
    """One row of the table; `refuses` and `source` are printed in docs/fidelity.md."""

    name: str
    operations: Sequence[str]
    refuses: str
    source: str
    check: Check
    code: str = "ValidationException"
    in_templates: bool = True
    """Whether calls of a template's resources are checked as well."""

    own_words: bool = False
    """Whether the message is this project's, because no source has AWS's."""
