"""What SageMaker does with an endpoint's role: it reads and writes objects in S3, and publishes to topics of SNS.

Each call is evaluated against the role's policies and those of the bucket, the key and the topic.
"""

from __future__ import annotations

from dataclasses import dataclass
from urllib.parse import urlsplit

from moto.kms.models import kms_backends
from moto.s3.models import FakeBucket, s3_backends
from moto.sagemaker.models import sagemaker_backends
from moto.sns.models import sns_backends
from moto.utilities.utils import get_partition

from extended_dlc.rehearsal.embedded.iam import Iam
from extended_dlc.rehearsal.embedded.identities import Principal
from extended_dlc.rehearsal.embedded.sagemaker import Endpoint


@dataclass(frozen=True, kw_only=True)
class AsRole:
    """A role's session of SageMaker. Each method raises `Refusal` where the role lacks a right."""

    iam: Iam
    account_id: str
    region: str
    principal: Principal

    @staticmethod
    def of(endpoint: Endpoint, iam: Iam) -> AsRole:
        """As the role of an endpoint's model, or of its configuration. Raises `Refusal`."""
        backend = sagemaker_backends[endpoint.account_id][endpoint.region_name]
        names = [each.configuration.get("ModelName") for each in endpoint.variants]
        of_models = (getattr(backend._models.get(name or ""), "request", {}) for name in names)
        requests = (*of_models, endpoint.config_request)
        arns = [each["ExecutionRoleArn"] for each in requests if each.get("ExecutionRoleArn")]
        target = {"account_id": endpoint.account_id, "region": endpoint.region_name}
        principal = iam.assume(arns[0] if arns else "", "sagemaker.amazonaws.com", **target)
        return AsRole(iam=iam, principal=principal, **target)

    def read(self, location: str) -> bytes | None:
        """The object at an S3 URL; None where there is none."""
        name, path = _parts(location)
        self._require("s3:GetObject", f"arn:{get_partition(self.region)}:s3:::{name}/{path}")
        bucket = self._buckets().get(name)
        key = bucket.keys.get(path) if bucket is not None else None
        if bucket is None or key is None:
            return None
        self._use_key(_key_of(bucket), "kms:Decrypt", "s3")
        return bytes(key.value)

    def write(self, location: str, content: bytes, kind: str, key: str | None = None) -> None:
        """Put an object at an S3 URL, encrypted with the key or the bucket's."""
        name, path = _parts(location)
        self._require("s3:PutObject", f"arn:{get_partition(self.region)}:s3:::{name}/{path}")
        bucket = self._buckets().get(name)
        self._use_key(key or (_key_of(bucket) if bucket is not None else None), "kms:GenerateDataKey", "s3")
        backend = s3_backends[self.account_id][get_partition(self.region)]
        backend.put_object(name, path, content).set_metadata({"content-type": kind})

    def publish(self, topic: str, message: str) -> None:
        """Publish to a topic, which may be encrypted."""
        self._require("sns:Publish", topic)
        backend = sns_backends[self.account_id][topic.split(":")[3]]
        key = backend.get_topic(topic).kms_master_key_id or None
        for action in ("kms:GenerateDataKey", "kms:Decrypt"):
            self._use_key(key, action, "sns")
        backend.publish(message, arn=topic)

    def _buckets(self) -> dict[str, FakeBucket]:
        buckets: dict[str, FakeBucket] = s3_backends[self.account_id][get_partition(self.region)].buckets
        return buckets

    def _use_key(self, key: str | None, action: str, via: str) -> None:
        """Require an action on a key of the account; AWS's own keys let everybody of the account use them."""
        if key is None or "alias/aws/" in key:
            return
        name = key.rpartition(":")[2].removeprefix("key/")
        backend = kms_backends[self.account_id][self.region]
        if name.startswith("alias/"):
            name = backend.get_key_id_from_alias(name) or name
        arn = backend.keys[name].arn if name in backend.keys else key
        self._require(action, arn, {"kms:ViaService": f"{via}.{self.region}.amazonaws.com"})

    def _require(self, action: str, resource: str, context: dict[str, str] | None = None) -> None:
        self.iam.require(self.principal, action, resource, context, account_id=self.account_id, region=self.region)


def _parts(location: str) -> tuple[str, str]:
    """The bucket and the key of an S3 URL."""
    parts = urlsplit(location)
    return parts.netloc, parts.path.lstrip("/")


def _key_of(bucket: FakeBucket) -> str | None:
    """The KMS key of a bucket's default encryption."""
    rule = (bucket.encryption or {}).get("Rule") or {}
    chosen = (rule[0] if isinstance(rule, list) else rule).get("ApplyServerSideEncryptionByDefault", {})
    key = chosen.get("KMSMasterKeyID")
    return str(key) if key and chosen.get("SSEAlgorithm") == "aws:kms" else None
