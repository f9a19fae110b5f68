"""Bearer tokens for SageMaker's OpenAI-compatible route, and its base URL.

A token is the one that `generate_token` of the SageMaker Python SDK makes (sagemaker-core 2.27.0, `token_generator`): a
presigned URL of the action `CallWithBearerToken`, in base64. Making it sends no request. It carries the permissions of
the credentials that sign it, and expires with them at the latest.
"""

from __future__ import annotations

import base64
from typing import Any

LONGEST_MINUTES = 12 * 60
"""Longest lifetime of a token (SageMaker developer guide, "Invoke endpoints with OpenAI-compatible APIs")."""

_HOST = "sagemaker.amazonaws.com"
_PREFIX = "sagemaker-api-key-"


def make_token(credentials: Any, *, region: str, seconds: int) -> str:
    """A token for the endpoints of a region, signed with botocore credentials and valid for `seconds`."""
    from botocore.auth import SigV4QueryAuth
    from botocore.awsrequest import AWSRequest

    url, headers = f"https://{_HOST}/", {"host": _HOST}
    request = AWSRequest(method="POST", url=url, headers=headers, params={"Action": "CallWithBearerToken"})
    # Frozen, because refreshable credentials may be renewed between reading the key and reading the secret.
    SigV4QueryAuth(credentials.get_frozen_credentials(), "sagemaker", region, expires=seconds).add_auth(request)
    signed = f"{request.url.removeprefix('https://')}&Version=1"
    return _PREFIX + base64.b64encode(signed.encode()).decode()


def base_url(endpoint_name: str, *, host: str, component: str | None = None) -> str:
    """The base URL for an OpenAI client, for an endpoint or for one of its inference components.

    :param host: URL of SageMaker's runtime, such as `https://runtime.sagemaker.us-east-1.amazonaws.com`.
    """
    path = f"endpoints/{endpoint_name}" + (f"/inference-components/{component}" if component else "")
    return f"{host.rstrip('/')}/{path}/openai/v1"
