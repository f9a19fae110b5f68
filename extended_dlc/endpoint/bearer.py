"""Bearer tokens for SageMaker's OpenAI-compatible route, and its address.

A token is the one that `generate_token` of the SageMaker Python SDK makes (sagemaker-core 2.27.0, `token_generator`): a
presigned URL of the action `CallWithBearerToken`, in base64. Nothing is sent to make it. It carries the rights of the
credentials that sign it, and ends with them at the latest.
"""

from __future__ import annotations

import base64
from typing import Any

LONGEST_MINUTES = 12 * 60
"""How long a token may be good for (SageMaker developer guide, "Invoke endpoints with OpenAI-compatible APIs")."""

_HOST = "sagemaker.amazonaws.com"
_PREFIX = "sagemaker-api-key-"


def make_token(credentials: Any, *, region: str, seconds: int) -> str:
    """A token of botocore's credentials for the endpoints of a region, good for so many seconds."""
    from botocore.auth import SigV4QueryAuth
    from botocore.awsrequest import AWSRequest

    url, headers = f"https://{_HOST}/", {"host": _HOST}
    request = AWSRequest(method="POST", url=url, headers=headers, params={"Action": "CallWithBearerToken"})
    # frozen, because credentials that renew themselves may do so between the key and the secret
    SigV4QueryAuth(credentials.get_frozen_credentials(), "sagemaker", region, expires=seconds).add_auth(request)
    signed = f"{request.url.removeprefix('https://')}&Version=1"
    return _PREFIX + base64.b64encode(signed.encode()).decode()


def base_url(endpoint_name: str, *, host: str, component: str | None = None) -> str:
    """What a client of OpenAI takes as its base URL, for an endpoint or for one of its components.

    :param host: Address of SageMaker's runtime, as `https://runtime.sagemaker.us-east-1.amazonaws.com`.
    """
    place = f"endpoints/{endpoint_name}" + (f"/inference-components/{component}" if component else "")
    return f"{host.rstrip('/')}/{place}/openai/v1"
