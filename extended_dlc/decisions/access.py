"""Checks of options that are each valid but not together."""

from __future__ import annotations

from collections.abc import Iterator

from extended_dlc.facts._tables import table


def check_network(
    *,
    isolated: bool,
    from_hub: bool,
    token: bool = False,
    requirements: bool = False,
    adapters: bool = False,
    way_out: bool | None = None,
) -> tuple[str, ...]:
    """Refuse a container that needs a network which it does not have; otherwise return the notes.

    :param isolated: Whether the container can open no connection at all.
    :param from_hub: Whether it downloads its weights from the Hub when it starts.
    :param token: Whether it reads the Hub's token from a secret.
    :param requirements: Whether it installs requirements when it starts.
    :param adapters: Whether it downloads adapters from the Hub when it starts.
    :param way_out: Whether its subnets have a route to the internet; None if unknown, and outside a VPC.
    """
    wants = list(_wants(from_hub=from_hub, token=token, requirements=requirements, adapters=adapters))
    if isolated and wants:
        raise ValueError(f"leaves the container no way to {_and(wants)}: {_instead(from_hub, requirements, adapters)}")
    outside = [want for want in wants if want != _SECRET]
    if way_out is False and outside:
        return (
            f"the subnets have no way to the internet, and the container needs one for {_and(outside)}: give them a "
            f"NAT gateway, or {_instead(from_hub, requirements, adapters)}",
        )
    return ()


_SECRET = "the secret of the Hub's token"  # noqa: S105 - no secret, but a description


def _wants(*, from_hub: bool, token: bool, requirements: bool, adapters: bool) -> Iterator[str]:
    if from_hub:
        yield "the Hub, where the weights are"
    if adapters:
        yield "the Hub, where the adapters are"
    if token:
        yield _SECRET
    if requirements:
        yield "the package index, where the requirements are"


def _and(parts: list[str]) -> str:
    return " and ".join(parts)


def _instead(from_hub: bool, requirements: bool, adapters: bool) -> str:
    if adapters:
        ways = ["serve weights and adapters from S3 (S3Model, with adapters/NAME/ beside the weights)"]
    else:
        ways = ["serve the weights from S3 (MirroredModel, S3Model)"] if from_hub else []
    ways += ["build the requirements into the image"] if requirements else []
    return " and ".join(ways) or "leave the token out, which weights in S3 do not need"


def check_serverless_data(*, archive: bool) -> None:
    """Refuse model data for a serverless endpoint that is not an archive.

    It takes the archive of `ModelDataUrl` and no `ModelDataSource` (SageMaker API reference, ContainerDefinition).
    """
    if not archive:
        raise ValueError(
            "does not go with Serverless, which takes one archive: pack the files into a .tar.gz and name that with "
            "S3Model(bucket, '….tar.gz'), let the container fetch them with HubModel, or take RealTime or Async"
        )


def check_zero_instances(region: str | None) -> str | None:
    """Refuse a minimum of 0 instances where SageMaker is known to; return a note where that is not known.

    :param region: None if it is not known at synth.
    """
    rows = {row["region"]: row for row in table("zero_instances")["regions"]}
    row = rows.get(region or "")
    if row is None:
        known = ", ".join(f"{name}: {'yes' if each['takes_zero'] else 'no'}" for name, each in sorted(rows.items()))
        return (
            f"whether SageMaker takes 0 as the fewest instances of components in {region or 'its region'} is not known "
            f"({known}): if it says 'Min instance count needs to be greater than 0', take minimum=1"
        )
    if not row["takes_zero"]:
        raise ValueError(f"is refused by SageMaker in {region} ({row['source']}): take minimum=1, or another region")
    return None


def check_copy(*, gated: bool | None, token: bool | None, kept: str) -> None:
    """Refuse the copy of a gated or private model or data set without a token; None where nobody knows.

    :param kept: The class that names what an earlier copy has left in S3.
    """
    if gated and token is False:
        raise ValueError(
            "is private or gated on the Hub, and its copy has no token: agree to its terms on its page, put a token of "
            f"yours into a secret and pass it (token=), or name what was copied before with {kept}(bucket, 'prefix/')"
        )


def copy_notes(*, called: str, licence: str | None, region: str | None) -> Iterator[tuple[str, str]]:
    """The notes on the copy of a model: each one's kind and sentence.

    :param called: What a sentence calls the model.
    :param region: None if it is not known at synth.
    """
    if region is not None and region.startswith("cn-"):
        yield (
            "hub-in-china",
            f"huggingface.co is out of reach in {region} as a rule, and the copy of {called} reads it: upload the "
            "files to S3 where they are in reach, and name them with S3Model(bucket, 'prefix/')",
        )
    if licence is not None:
        yield "licence", f"{called} is under the licence {licence}"


def check_access(*, gated: bool | None, token: bool, from_hub: bool, licence: str | None = None) -> None:
    """Refuse a gated or private Hub model without a token."""
    if gated and from_hub and not token:
        under = f" (licence: {licence})" if licence else ""
        raise ValueError(
            f"is private or gated on the Hub{under}, and the container has no token: agree to its terms on its page, "
            "put a token of yours into a secret and pass it (token=), or serve a copy of yours from S3"
        )
