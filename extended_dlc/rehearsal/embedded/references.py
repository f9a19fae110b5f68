"""Image references in the forms of templates and container engines."""

from __future__ import annotations

import re
from dataclasses import dataclass

NAME = r"[a-z0-9]+(?:(?:\.|_|__|-+)[a-z0-9]+)*(?:/[a-z0-9]+(?:(?:\.|_|__|-+)[a-z0-9]+)*)*"
"""A repository name of the OCI Distribution specification."""

TAG = r"[a-zA-Z0-9_][a-zA-Z0-9._-]{0,127}"
DIGEST = r"sha256:[0-9a-f]{64}"

_ECR = re.compile(
    r"(?:docker://)?(?P<account>\d{12})\.dkr[.-]ecr(?:-fips)?\.(?P<region>[a-z0-9-]+)\.(?:amazonaws\.com(?:\.cn)?|on\.aws)"
    rf"/(?P<repository>{NAME})(?::(?P<tag>{TAG}))?(?:@(?P<digest>{DIGEST}))?"
)
_LOOPBACK = re.compile(
    r"(?:docker://)?(?:127\.0\.0\.1|localhost):(?P<port>\d+)"
    rf"/(?P<repository>{NAME})(?::(?P<tag>{TAG}))?(?:@(?P<digest>{DIGEST}))?"
)


@dataclass(frozen=True, kw_only=True)
class EcrReference:
    """An image in ECR by tag, digest or both; the digest takes precedence."""

    account: str | None
    """None where the reference has the embedded registry's own address."""

    region: str | None
    repository: str
    tag: str | None
    digest: str | None

    @staticmethod
    def parse(reference: str, *, port: int) -> EcrReference | None:
        """An ECR reference with AWS's host name or the embedded registry's; None for any other registry."""
        if found := _ECR.fullmatch(reference):
            account, region = found["account"], found["region"]
        elif (found := _LOOPBACK.fullmatch(reference)) and int(found["port"]) == port:
            account = region = None
        else:
            return None
        digest: str | None = found["digest"]
        tag: str | None = found["tag"] or (None if digest else "latest")
        return EcrReference(account=account, region=region, repository=found["repository"], tag=tag, digest=digest)
