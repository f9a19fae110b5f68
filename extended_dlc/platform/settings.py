"""The settings of a platform's images, for `python -m extended_dlc.platform`: the options of `ImageStack` in a file."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

from pydantic import Field, ValidationError

from extended_dlc.app.aws_names import check_region, check_stack_name
from extended_dlc.app.read import SettingsError, read_settings_file
from extended_dlc.app.schema import SECTIONS
from extended_dlc.app.section import Section, checked
from extended_dlc.app.settings import explain
from extended_dlc.facts.checks import check_tags

CloudBuild = SECTIONS.made["CloudBuild"]
ImageVersion = SECTIONS.make("options.sharing", "ImageVersion")
Readers = SECTIONS.make("options.sharing", "Readers")
Rebuilds = SECTIONS.make(
    "options.sharing",
    "Rebuilds",
    instead={
        "failure_topic": (
            str | None,
            Field(default=None, description="ARN of the topic that is told of each rebuild that fails. Default: none."),
        )
    },
    found=("failure_topic",),
)


def _account(account: str) -> None:
    if not re.fullmatch(r"\d{12}", account):
        raise ValueError("must be the number of an account, 12 digits as a text")


class ImagesSettings(Section):
    """Everything that the app of a platform's images deploys."""

    name: Annotated[str, checked(check_stack_name)] = "images"
    """Name of the stack. Default: `images`."""

    account: Annotated[str, checked(_account)] | None = None
    """Account that is deployed to, as a text. Default: the one of your credentials."""

    region: Annotated[str, checked(check_region)]
    """Region that is deployed to."""

    prefix: str = "images"
    """What the names of repositories and parameters begin with. Default: `images`."""

    images: Annotated[dict[str, ImageVersion], Field(min_length=1)]  # type: ignore[valid-type]
    """The images by their keys."""

    readers: Readers | None = None  # type: ignore[valid-type]
    """Which other accounts may pull. Default: none."""

    regions: list[str] = Field(default_factory=list)
    """Other regions that ECR copies the images to; `account` has to be said. Default: none."""

    rebuilds: Rebuilds | None = None  # type: ignore[valid-type]
    """When the images are built again. Default: when the settings change them."""

    build: CloudBuild | None = None  # type: ignore[valid-type]
    """How they are built, `{"kind": "cloud", …}`. Default: by CodeBuild as it is."""

    tags: Annotated[dict[str, str], checked(check_tags)] = Field(default_factory=dict)
    """Tags of everything that can have some. Default: none."""


def read_images(file: str) -> Any:
    """The settings in a file; `SettingsError` with all that is wrong with them."""
    content = read_settings_file(Path(file))
    if not isinstance(content, Mapping):
        raise SettingsError(f"{file} holds no settings: write an object with 'region' and 'images'")
    try:
        return ImagesSettings.model_validate(content)
    except ValidationError as error:
        lines = [line for detail in error.errors() for line in explain(detail, content, ImagesSettings)]
        raise SettingsError("\n".join([f"{file} is not valid:", *(f"  {line}" for line in lines)])) from None
