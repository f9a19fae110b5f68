"""Bearer tokens of SageMaker's OpenAI-compatible route, as `sagemaker.core.token_generator` makes them.

A token is `sagemaker-api-key-` followed by a presigned URL of the action `CallWithBearerToken` in base64. SageMaker
decodes it, checks its signature and expiry, and checks that its signer has the permissions (SageMaker developer guide,
"Invoke endpoints with OpenAI-compatible APIs").

The signature is checked only for keys that the embedded IAM created, because it does not know the secrets of others.
The guide does not give the messages of refusals. The messages here are those of AWS's other bearer tokens (Amazon
Bedrock) and of Signature Version 4. All have status 403, which is known for a signed request without a token.
"""

from __future__ import annotations

import base64
import binascii
import functools
import hmac
import re
from dataclasses import dataclass
from datetime import datetime, timedelta, timezone
from urllib.parse import parse_qs

import botocore.session
from botocore.auth import SigV4QueryAuth
from botocore.awsrequest import AWSRequest
from botocore.credentials import Credentials
from moto.iam.models import get_account_id_from

from extended_dlc.rehearsal.embedded.iam import Iam
from extended_dlc.rehearsal.embedded.identities import InvalidKey, Principal, find_principal
from extended_dlc.rehearsal.embedded.shapes import Refusal

_PREFIX = "sagemaker-api-key-"
_HOST = "sagemaker.amazonaws.com"
_SERVICE = "sagemaker"
_LONGEST_SECONDS = 12 * 60 * 60
_SKEW = timedelta(minutes=15)
"""How far a signer's clock may be ahead (IAM user guide, Signature Version 4)."""

_SIGNED = {
    "Action": "CallWithBearerToken",
    "X-Amz-Algorithm": "AWS4-HMAC-SHA256",
    "X-Amz-SignedHeaders": "host",
    "Version": "1",
}
"""The fixed parameters of a token's presigned URL."""

_MALFORMED = "Authentication failed: Please make sure your API Key is valid."
_EXPIRED = "Bearer Token has expired"
_MISMATCH = (
    "The request signature we calculated does not match the signature you provided. Check your AWS Secret Access Key "
    "and signing method. Consult the service documentation for details."
)


class TokenRefused(Exception):
    """The request has no valid token; the message is the response's."""

    def __init__(self, code: str, message: str) -> None:
        super().__init__(message)
        self.code = code


@dataclass(frozen=True, kw_only=True)
class TokenCaller:
    """The account, region and principal of a valid token."""

    account_id: str
    region: str
    principal: Principal | None
    """The user or role that signed the token; None for the account's administrator, who may do everything."""

    def require(self, iam: Iam, action: str, resource: str) -> None:
        """Raise `TokenRefused` unless the principal is allowed the action."""
        if self.principal is None:
            return
        try:
            iam.require(self.principal, action, resource, account_id=self.account_id, region=self.region)
        except Refusal as refusal:
            raise TokenRefused("AccessDenied", refusal.message) from None


def caller_of(authorization: str) -> TokenCaller:
    """The caller of a request with this `Authorization` header. Raises `TokenRefused`."""
    scheme, _, token = authorization.partition(" ")
    if scheme.lower() != "bearer" or not token.strip():
        raise TokenRefused("MissingAuthenticationToken", "Missing Authentication Token")
    query = _query(token.strip())
    try:
        parameters = {key: value for key, [value] in parse_qs(query, strict_parsing=True).items()}
        access_key, day, region, service, end = parameters["X-Amz-Credential"].split("/")
        signed_at = datetime.strptime(parameters["X-Amz-Date"], "%Y%m%dT%H%M%SZ").replace(tzinfo=timezone.utc)
        seconds, signature = int(parameters["X-Amz-Expires"]), parameters["X-Amz-Signature"]
    except (KeyError, ValueError):
        raise TokenRefused("AccessDenied", _MALFORMED) from None
    in_scope = (service, end, day) == (_SERVICE, "aws4_request", parameters["X-Amz-Date"][:8])
    in_form = all(parameters.get(key) == value for key, value in _SIGNED.items()) and region in _regions()
    if not in_scope or not in_form or not 0 < seconds <= _LONGEST_SECONDS:
        raise TokenRefused("AccessDenied", _MALFORMED)
    now = datetime.now(timezone.utc)
    if now >= signed_at + timedelta(seconds=seconds):
        raise TokenRefused("AccessDenied", _EXPIRED)
    if signed_at > now + _SKEW:
        raise TokenRefused("InvalidSignature", f"Signature not yet current: {parameters['X-Amz-Date']}")
    account_id = get_account_id_from(access_key)
    try:
        principal = find_principal(account_id, region, access_key, parameters.get("X-Amz-Security-Token"))
    except InvalidKey:
        raise TokenRefused("UnrecognizedClient", "The security token included in the request is invalid.") from None
    if principal is not None and principal.credentials is not None:
        _check_signature(principal.credentials, query, parameters["X-Amz-Date"], region, signature)
    return TokenCaller(account_id=account_id, region=region, principal=principal)


@functools.cache
def _regions() -> frozenset[str]:
    """SageMaker's regions in every partition."""
    session = botocore.session.get_session()
    partitions = session.get_available_partitions()
    return frozenset(each for name in partitions for each in session.get_available_regions("sagemaker", name))


def _query(token: str) -> str:
    """The query string of the presigned URL in a token."""
    try:
        url = base64.b64decode(token.removeprefix(_PREFIX), validate=True).decode("ascii")
    except (binascii.Error, ValueError):
        raise TokenRefused("AccessDenied", _MALFORMED) from None
    host, _, query = url.partition("?")
    if not token.startswith(_PREFIX) or host.rstrip("/") != _HOST:
        raise TokenRefused("AccessDenied", _MALFORMED)
    return query


def _check_signature(credentials: Credentials, query: str, signed_at: str, region: str, signature: str) -> None:
    """Compare the signature with one computed over the rest of the query; the version is added after signing."""
    signed = re.sub(r"(?:^|&)(?:X-Amz-Signature|Version)=[^&]*", "", query).lstrip("&")
    request = AWSRequest(method="POST", url=f"https://{_HOST}/?{signed}", headers={"host": _HOST})
    request.context["timestamp"] = signed_at
    auth = SigV4QueryAuth(credentials, _SERVICE, region)
    text = auth.string_to_sign(request, auth.canonical_request(request))
    if not hmac.compare_digest(auth.signature(text, request), signature):
        raise TokenRefused("InvalidSignature", _MISMATCH)
