"""One rule of the embedded AWS, and what its check can ask: the account and region of a call."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime, timezone
from typing import Any

from moto.cloudwatch.models import cloudwatch_backends
from moto.iam.models import Role
from moto.kms.models import kms_backends
from moto.s3.models import FakeBucket, s3_backends
from moto.sagemaker.models import sagemaker_backends
from moto.utilities.utils import get_partition

from extended_dlc.rehearsal.embedded.calls import Caller, Parameters
from extended_dlc.rehearsal.embedded.scenarios import Scenarios
from extended_dlc.rehearsal.embedded.trust import find_role, trusts

API = "SageMaker API reference, "
GUIDE = "SageMaker developer guide, "

_HTTPS = re.compile(
    r"https://(?:(?P<host>[a-z0-9][a-z0-9.-]*)\.)?s3(?:[.-][a-z0-9-]+)?\.amazonaws\.com(?:\.cn)?/(?P<path>.*)"
)


def place_of(url: str) -> tuple[str, str]:
    """The bucket and the key of an S3 URL, in the form of S3 or of HTTPS."""
    if found := _HTTPS.fullmatch(url):
        if found["host"]:
            return found["host"], found["path"]
        bucket, _, key = found["path"].partition("/")
        return bucket, key
    bucket, _, key = url.partition("://")[2].partition("/")
    return bucket, key


@dataclass(frozen=True, kw_only=True)
class World:
    """The account and region of a call, with what exists there."""

    account_id: str
    region: str
    scenarios: Scenarios
    caller: Caller | None = None
    """The call's signer; None where a service of AWS makes the call."""

    @property
    def sagemaker(self) -> Any:
        return sagemaker_backends[self.account_id][self.region]

    def find_role(self, arn: str) -> Role | None:
        """A role of this account; None while the scenario `role_seconds` hides a new one."""
        if not self.is_new(arn):
            return find_role(self.account_id, self.region, arn)
        self.scenarios.meet("role_seconds")
        return None

    def is_new(self, arn: str) -> bool:
        """Whether the scenario `role_seconds` hides a role that the account has."""
        role = find_role(self.account_id, self.region, arn) if self.scenarios.role_seconds else None
        if role is None:
            return False
        created = role.create_date.replace(tzinfo=timezone.utc) if not role.create_date.tzinfo else role.create_date
        return (datetime.now(timezone.utc) - created).total_seconds() < self.scenarios.role_seconds

    def trusts(self, arn: str, service: str, *, source: str = "") -> bool:
        """Whether the account has the role, and the role lets the service assume it for this source."""
        role = self.find_role(arn)
        return role is not None and trusts(role, service, account_id=self.account_id, region=self.region, source=source)

    def bucket(self, url: str) -> FakeBucket | None:
        """The bucket of an S3 URL; None where the account does not have it."""
        buckets = s3_backends[self.account_id][get_partition(self.region)].buckets
        found: FakeBucket | None = buckets.get(place_of(url)[0])
        return found

    def has_bucket(self, url: str) -> bool:
        """Whether the bucket of an S3 URL exists."""
        return self.bucket(url) is not None

    def has_object(self, url: str) -> bool:
        """Whether there is an object at an S3 URL, or below it where it ends with a slash."""
        bucket, prefix = self.bucket(url), place_of(url)[1]
        return bucket is not None and any(
            key == prefix or (prefix.endswith("/") and key.startswith(prefix)) for key in list(bucket.keys)
        )

    def has_objects(self, url: str) -> bool:
        """Whether the key of any object begins as an S3 URL says."""
        bucket, prefix = self.bucket(url), place_of(url)[1]
        return bucket is not None and any(key.startswith(prefix) for key in list(bucket.keys))

    def fault_of_key(self, key: str) -> str | None:
        """Why KMS cannot use a key of the account, in KMS's words; None for one that it can, and for others' keys."""
        partition = get_partition(self.region)
        arn = key
        if not key.startswith("arn:"):
            name = key if key.startswith("alias/") else f"key/{key}"
            arn = f"arn:{partition}:kms:{self.region}:{self.account_id}:{name}"
        if arn.count(":") != 5:
            return f"Invalid keyId {key}"
        region, account, name = arn.split(":")[3:]
        if account != self.account_id or name.startswith("alias/aws/"):
            return None
        backend = kms_backends[self.account_id][region]
        if name.startswith("alias/"):
            found = backend.get_key_id_from_alias(name)
            if found is None or region != self.region:
                return f"Alias {arn} is not found."
            name = f"key/{found}"
        known = backend.keys.get(name.removeprefix("key/"))
        if known is None or region != self.region:
            return f"Key '{arn}' does not exist"
        if known.key_state == "PendingDeletion":
            return f"{known.arn} is pending deletion."
        return f"{known.arn} is disabled." if known.key_state == "Disabled" else None

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
