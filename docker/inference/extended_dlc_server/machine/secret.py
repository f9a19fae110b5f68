"""Reads the Hub token from AWS Secrets Manager, so that no environment variable holds it in plain text."""

from __future__ import annotations

import json
import re

from ..errors import StartError

ARN = re.compile(r"arn:aws[\w-]*:secretsmanager:([a-z0-9-]+):\d{12}:secret:[\w/+=.@-]+")

_KEYS = ("HF_TOKEN", "token")


def read_token(arn: str) -> str:
    """Return the secret's string, or `HF_TOKEN` or `token` of its JSON object. Error messages hold none of it."""
    match = ARN.fullmatch(arn)
    region = match.group(1) if match else None
    try:
        import boto3
    except ImportError:
        raise StartError(
            "HF_TOKEN_SECRET_ARN is set and this image has no boto3 to read it with: "
            "build the image from a Deep Learning Container, or add boto3"
        ) from None
    try:
        answer = boto3.client("secretsmanager", region_name=region).get_secret_value(SecretId=arn)
    except Exception as error:
        raise StartError(
            f"HF_TOKEN_SECRET_ARN ({arn}) cannot be read ({type(error).__name__}: {error}): give the endpoint's role "
            "secretsmanager:GetSecretValue on it (and kms:Decrypt on its key), and its network a way to Secrets Manager"
        ) from None
    text = str(answer.get("SecretString") or "").strip()
    if text.startswith("{"):
        try:
            members = json.loads(text)
        except ValueError:
            members = {}
        text = next((members[key] for key in _KEYS if isinstance(members.get(key), str)), "").strip()
    if not text or not text.isascii() or not text.isprintable() or " " in text:
        raise StartError(
            f"the secret HF_TOKEN_SECRET_ARN ({arn}) holds no token: store the token itself, or a JSON object with "
            f"'{_KEYS[0]}'"
        )
    return text
