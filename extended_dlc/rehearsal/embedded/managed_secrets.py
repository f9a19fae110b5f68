"""Secrets of Secrets Manager, which moto's CloudFormation skips, built on moto's service."""

from __future__ import annotations

import json
import uuid

from moto.secretsmanager.models import SecretsManagerBackend, secretsmanager_backends

from extended_dlc.rehearsal.embedded.resources import Properties, Record, Wish


def create_secret(wish: Wish) -> Record:
    """CreateSecret, with the given or a generated value. Ref is the secret's ARN."""
    given, backend = wish.properties, _backend(wish)
    made = json.loads(
        backend.create_secret(
            name=wish.name,
            secret_string=_value(backend, given),
            secret_binary=None,
            description=given.get("Description"),
            tags=given.get("Tags") or [],
            kms_key_id=given.get("KmsKeyId"),
            client_request_token=None,
            replica_regions=given.get("ReplicaRegions") or [],
            force_overwrite=False,
        )
    )
    return Record(made["ARN"], given, {"Id": made["ARN"]})


def change_secret(wish: Wish, model: Record, old: Properties) -> Record:
    """UpdateSecret: a generated value stays as long as it is asked for in the same way."""
    given, backend = wish.properties, _backend(wish)
    is_same = all(given.get(key) == old.get(key) for key in ("GenerateSecretString", "SecretString"))
    backend.update_secret(
        model.physical_resource_id,
        secret_string=None if is_same else _value(backend, given),
        client_request_token=str(uuid.uuid4()),
        kms_key_id=given.get("KmsKeyId"),
        description=given.get("Description"),
    )
    return Record(model.physical_resource_id, given, model.data)


def delete_secret(wish: Wish, model: Record) -> None:
    """DeleteSecret without a time of recovery, as CloudFormation calls it."""
    _backend(wish).delete_secret(model.physical_resource_id, None, True)


def _value(backend: SecretsManagerBackend, given: Properties) -> str:
    """The text of a secret: `SecretString`, or a password as `GenerateSecretString` describes it, alone or in JSON."""
    asked = given.get("GenerateSecretString")
    if asked is None:
        return str(given.get("SecretString", ""))
    switches = ("ExcludeNumbers", "ExcludePunctuation", "ExcludeUppercase", "ExcludeLowercase", "IncludeSpace")
    numbers, punctuation, uppercase, lowercase, space = (_is_true(asked.get(each, False)) for each in switches)
    password = json.loads(
        backend.get_random_password(
            password_length=int(asked.get("PasswordLength", 32)),
            exclude_characters=str(asked.get("ExcludeCharacters", "")),
            exclude_numbers=numbers,
            exclude_punctuation=punctuation,
            exclude_uppercase=uppercase,
            exclude_lowercase=lowercase,
            include_space=space,
            require_each_included_type=_is_true(asked.get("RequireEachIncludedType", True)),
        )
    )["RandomPassword"]
    if "SecretStringTemplate" not in asked:
        return str(password)
    return json.dumps({**json.loads(asked["SecretStringTemplate"]), asked["GenerateStringKey"]: password})


def _is_true(value: object) -> bool:
    return str(value).lower() == "true"


def _backend(wish: Wish) -> SecretsManagerBackend:
    return secretsmanager_backends[wish.account_id][wish.region]
