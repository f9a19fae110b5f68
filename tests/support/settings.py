"""The app's settings as its `app.py` reads them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from extended_dlc.app import settings as app_settings
from extended_dlc.app.read import Raw
from extended_dlc.app.read import SettingsError as SettingsError
from extended_dlc.cli.plan import as_data


def read(context: Mapping[str, Any], *, cli_region: str | None = None) -> app_settings.Read:
    """The settings in a CDK context, decided; `SettingsError` with all their problems."""
    given = {key: value for key, value in context.items() if key != "extended-dlc"}
    return app_settings.read_settings(
        given, in_cdk_json=context.get("extended-dlc"), looked_up=context, cli_region=cli_region
    )


def read_settings(context: Mapping[str, Any], *, cli_region: str | None = None) -> Any:
    """The settings alone."""
    return read(context, cli_region=cli_region).settings


def decided(content: Any, looked_up: Mapping[str, Any] | None = None) -> app_settings.Read:
    """Settings as a file has them, right or wrong, decided."""
    return app_settings.read(Raw(origin="the settings", content=content), looked_up=looked_up)


def plan_of(content: Any, looked_up: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """What `extended-dlc plan --json` prints of them."""
    return as_data(decided(content, looked_up))
