"""AWS RAM: resource shares of parameters of Systems Manager, the one kind of share that this library makes.

moto's RAM shares no parameters. The accounts of an embedded AWS are those of one organization with sharing turned on:
nobody has to accept a share (RAM user guide, "Enable resource sharing within AWS Organizations").
"""

from __future__ import annotations

from typing import Any

from moto.ssm.models import ssm_backends

from extended_dlc.rehearsal.embedded.resources import Properties, Record, Wish
from extended_dlc.rehearsal.embedded.shapes import Refusal

_shares: dict[str, Properties] = {}
"""The ARN of a share -> its properties."""


def is_shared(arn: str, *, with_account: str, region: str) -> bool:
    """Whether a parameter is shared with an account in a region; shares of it hold in its own region alone."""
    shared = (each for each in _shares.values() if arn in each.get("ResourceArns", ()))
    return arn.split(":")[3] == region and any(with_account in each.get("Principals", ()) for each in shared)


def create_share(wish: Wish) -> Any:
    """CreateResourceShare. Raises `Refusal` for what is no parameter of the account's advanced tier."""
    for arn in wish.properties.get("ResourceArns", ()):
        _check(arn, wish)
    share = f"arn:aws:ram:{wish.region}:{wish.account_id}:resource-share/{wish.name}"
    _shares[share] = wish.properties
    return Record(share, wish.properties, {"Arn": share})


def change_share(wish: Wish, model: Any, old: Properties) -> Any:
    """AssociateResourceShare and DisassociateResourceShare."""
    return create_share(wish)


def delete_share(wish: Wish, model: Any) -> None:
    """DeleteResourceShare."""
    _shares.pop(model.physical_resource_id, None)


def _check(arn: str, wish: Wish) -> None:
    """Parameter Store's rules (Systems Manager user guide, "Working with shared parameters in Parameter Store")."""
    _, _, service, region, account, name = arn.split(":", 5)
    found = None
    if (service, account) == ("ssm", wish.account_id):
        found = ssm_backends[account][region].get_parameter(name.removeprefix("parameter"))
    if found is None or found.tier != "Advanced":
        raise Refusal(
            "InvalidParameterException", f"{arn} cannot be shared: it is no parameter of this account's advanced tier"
        )
