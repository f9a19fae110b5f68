"""Further accounts of the embedded AWS, each with an administrator whose key it knows the account by."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from extended_dlc.rehearsal.cdk import aws_environment
from extended_dlc.rehearsal.client import Client, connect

EVERYTHING = {"Version": "2012-10-17", "Statement": [{"Effect": "Allow", "Action": "*", "Resource": "*"}]}


@dataclass(frozen=True, kw_only=True)
class Account:
    """An account, and how its administrator signs."""

    number: str
    port: int
    access_key: str
    secret_key: str

    @property
    def environment(self) -> Mapping[str, str]:
        """The environment variables of a client of this account."""
        credentials = {"AWS_ACCESS_KEY_ID": self.access_key, "AWS_SECRET_ACCESS_KEY": self.secret_key}
        return {**aws_environment(self.port), **credentials}

    def service(self, service: str) -> Any:
        """A boto3 client of this account."""
        return connect(service, self.environment)


def open_account(client: Client, number: str) -> Account:
    """An account of this number with a new administrator."""
    iam = client.service("iam", account=number)
    iam.create_user(UserName="administrator")
    iam.put_user_policy(UserName="administrator", PolicyName="Everything", PolicyDocument=json.dumps(EVERYTHING))
    key = iam.create_access_key(UserName="administrator")["AccessKey"]
    return Account(number=number, port=client.port, access_key=key["AccessKeyId"], secret_key=key["SecretAccessKey"])
