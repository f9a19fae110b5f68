"""`extended-dlc catalog`: the published images in the tables of the checkout or the installed package."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from contextlib import suppress
from typing import Any, NoReturn

import click

from extended_dlc.cli._groups import Group
from extended_dlc.cli.exit_codes import FAILED
from extended_dlc.facts._tables import did_you_mean
from extended_dlc.facts.catalog import DlcImage, dlc_images, find_image, search_images
from extended_dlc.facts.gpus import built_for, pick_host_image
from extended_dlc.terminal import Screen, Waiting

_JSON = click.option("--json", "as_json", is_flag=True, help="Print JSON.")
_LISTED_BY = {
    "sdk": "sagemaker-core",
    "dlc": "AWS's own list (docs/src/data of aws/deep-learning-containers)",
    "hand": "image_corrections.json, which says why",
}
_COLUMNS = ("REPOSITORY", "TAG", "TORCH", "TRANSFORMERS", "PYTHON", "CUDA", "LOGIN")


@click.group(cls=Group)
def catalog() -> None:
    """List, show and search the Deep Learning Container images that can be extended."""


@catalog.command("list", short_help="List the images, oldest first in each repository.")
@click.option("--repository", help="Only this repository, as huggingface-pytorch-inference.")
@click.option("--accelerator", type=click.Choice(["cpu", "gpu"]), help="Only images for it.")
@click.option("--region", help="Only images that can be pulled in this region.")
@_JSON
def list_images(repository: str | None, accelerator: str | None, region: str | None, as_json: bool) -> None:
    """List the images, oldest first in each repository."""
    known = dlc_images()
    _require("--repository", repository, {image.repository for image in known})
    _require("--region", region, {name for image in known for name in image.regions})
    found = dlc_images(repository, accelerator=accelerator, region=region)
    if not found and not as_json:
        asked = " and ".join(filter(None, (repository, accelerator, region)))
        _fail(f"no image is of {asked}: leave an option out")
    _print_images(found, region, as_json)
    if not found:
        raise SystemExit(FAILED)


@catalog.command(short_help="Find images whose name has every word of TEXT.")
@click.argument("text", nargs=-1, required=True)
@_JSON
def search(text: tuple[str, ...], as_json: bool) -> None:
    """Find images whose name has every word of TEXT, as: search 4.51 gpu."""
    found = search_images(" ".join(text))
    if not found and not as_json:
        _fail(f"no image has '{' '.join(text)}' in its name: search for less, or list them (extended-dlc catalog list)")
    _print_images(found, None, as_json)
    if not found:
        raise SystemExit(FAILED)


@catalog.command(short_help="Show an image in a region, and what is inside.")
@click.argument("image", metavar="REPOSITORY:TAG")
@click.option("--region", help="Where it is pulled. Default: the region of the settings, or that of AWS's tools.")
@_JSON
def show(image: str, region: str | None, as_json: bool) -> None:
    """Show the full reference of an image in a region and what is inside, or why it is not there."""
    region = region or _region()
    try:
        found = find_image(image)
        uri = found.uri(region)
    except ValueError as error:
        if as_json:
            click.echo(json.dumps({"image": image, "region": region, "uri": None, "error": str(error)}, indent=2))
            raise SystemExit(FAILED) from None
        _fail(str(error))
    if as_json:
        click.echo(json.dumps({**_as_json(found), "region": region, "uri": uri}, indent=2))
        return
    account = uri.split(".", 1)[0]
    facts = {
        "reference": uri,
        **({"vLLM": found.vllm} if found.vllm else {}),
        "torch": found.torch or "not told by the tag",
        "transformers": found.transformers or "none",
        "Python": _python(found) or "not told by the tag",
        "CUDA": _cuda(found) or ("not told by the tag" if found.accelerator == "gpu" else "none"),
        "accelerator": found.accelerator,
        **_gpus(found),
        "login": f"needed, to account {account} in {region}" if found.login else "not needed",
        "patched": f"by AWS until {found.patched_until}" if found.patched_until else "nobody says until when",
        "listed by": " and ".join(_LISTED_BY[source] for source in found.source.split("+")),
        "regions": str(len(found.regions)) if found.login else "all: one public registry",
    }
    Screen().facts(facts, width=13)


@catalog.command(short_help="Generate the tables again from their sources.")
@click.option(
    "--dlc", metavar="ADDRESS", help="Where git clones aws/deep-learning-containers from. Default: its place on GitHub."
)
@click.option("--json", "as_json", is_flag=True, help="Print the tables as JSON, and the progress on standard error.")
def refresh(dlc: str | None, as_json: bool) -> None:
    """Generate the tables again from PyPI and AWS's list of images; what is there is kept when that fails."""
    from extended_dlc.refresh import RefreshError, refresh

    where = {} if dlc is None else {"dlc_repository": dlc}
    try:
        with Waiting("reading", out=sys.stderr if as_json else sys.stdout) as waiting:
            tables = refresh(waiting.say, **where)
    except RefreshError as error:
        _fail(str(error))
    if as_json:
        click.echo(json.dumps(tables, indent=2))


def _region() -> str:
    """The region that the CDK would deploy this folder's app to."""
    from extended_dlc.app.read import SettingsError
    from extended_dlc.cli._settings import cli_region, raw_settings

    region: object = None
    with suppress(SettingsError):
        region = raw_settings(None).content.get("region")
    found = region if isinstance(region, str) and region else cli_region()
    if not found:
        _fail("no region: pass --region, or set AWS_REGION")
    return found


def _print_images(images: Sequence[DlcImage], region: str | None, as_json: bool) -> None:
    if as_json:
        uris = [{"uri": image.uri(region)} if region else {} for image in images]
        rows = [{**_as_json(image), **uri} for image, uri in zip(images, uris, strict=True)]
        click.echo(json.dumps(rows, indent=2))
        return
    lines = [
        (
            image.repository,
            image.tag,
            image.torch or "-",
            image.transformers or "-",
            _python(image) or "-",
            _cuda(image) or "-",
            "needed" if image.login else "public",
        )
        for image in images
    ]
    Screen().table(_COLUMNS, lines, lead=1)


def _gpus(image: DlcImage) -> dict[str, str]:
    """For a GPU image, the GPUs that it supports and the host image."""
    if image.accelerator != "gpu":
        return {}
    host = pick_host_image(image.cuda)
    driver = f"{host.inference_ami_version} (driver {host.driver})" if host else "SageMaker's default"
    return {"GPUs": built_for(image.cuda, image.torch) or "not known", "host image": driver}


def _as_json(image: DlcImage) -> dict[str, Any]:
    return {
        "repository": image.repository,
        "tag": image.tag,
        "name": image.name,
        "accelerator": image.accelerator,
        "torch": image.torch,
        "vllm": image.vllm,
        "transformers": image.transformers,
        "python": _python(image),
        "cuda": _cuda(image),
        "gpus": built_for(image.cuda, image.torch),
        "login": image.login,
        "regions": list(image.regions),
        "patched_until": image.patched_until,
        "listed_by": image.source.split("+"),
    }


def _python(image: DlcImage) -> str | None:
    """The Python release: 3.12 for `py312`."""
    return f"{image.python[2]}.{image.python[3:]}" if image.python else None


def _cuda(image: DlcImage) -> str | None:
    """The CUDA release: 12.4 for `cu124`."""
    return f"{image.cuda[2:-1]}.{image.cuda[-1]}" if image.cuda else None


def _require(option: str, given: str | None, known: set[str]) -> None:
    if given is not None and given not in known:
        _fail(
            f"'{option}' ({given}) is not in the catalogue{did_you_mean(given, known)}: take one of "
            f"{', '.join(sorted(known))}"
        )


def _fail(text: str) -> NoReturn:
    raise click.ClickException(text)
