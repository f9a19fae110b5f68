"""The app's settings as its `app.py` reads them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from extended_dlc.app import settings as app_settings
from extended_dlc.app.read import SettingsError as SettingsError


def read(context: Mapping[str, Any], *, cli_region: str | None = None) -> app_settings.Read:
    """The settings in a CDK context, decided; `SettingsError` with all their problems."""
    given = {key: value for key, value in context.items() if key != "extended-dlc"}
    return app_settings.read_settings(
        given, in_cdk_json=context.get("extended-dlc"), looked_up=context, cli_region=cli_region
    )


def read_settings(context: Mapping[str, Any], *, cli_region: str | None = None) -> Any:
    """The settings alone."""
    return read(context, cli_region=cli_region).settings
