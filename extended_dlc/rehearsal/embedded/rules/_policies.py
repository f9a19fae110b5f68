"""What rules of several services read from policies: statements, and principals that do not exist."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import Any

from moto.iam.models import iam_backends
from moto.utilities.utils import get_partition

from extended_dlc.rehearsal.embedded.rule import World


def statements_in(text: Any) -> Iterator[Mapping[str, Any]]:
    """The statements of a policy's text. Raises `ValueError` where it is no policy."""
    document = json.loads(text)
    if not isinstance(document, Mapping):
        raise ValueError(text)
    found = document.get("Statement", [])
    yield from [found] if isinstance(found, Mapping) else found


def roles_of(world: World) -> Mapping[str, Any]:
    """The account's roles by their names."""
    return {each.name: each for each in iam_backends[world.account_id][get_partition(world.region)].roles.values()}


def absent_principal(world: World, principal: Any) -> str | None:
    """A role of the account that a policy names, and that does not exist."""
    named = principal.get("AWS", ()) if isinstance(principal, Mapping) else ()
    known = {each.arn for each in roles_of(world).values()}
    for each in [named] if isinstance(named, str) else named:
        if f":iam::{world.account_id}:role/" in each and each not in known:
            return str(each)
    return None


def readable_statements(text: Any) -> list[Mapping[str, Any]]:
    """The statements of a policy's text; none where it is no policy, which other rows refuse."""
    try:
        found = json.loads(text).get("Statement", [])
    except (AttributeError, TypeError, ValueError):
        return []
    return [each for each in ([found] if isinstance(found, Mapping) else found) if isinstance(each, Mapping)]


def as_list(value: Any) -> list[Any]:
    return list(value) if isinstance(value, (list, tuple)) else [] if value is None else [value]
