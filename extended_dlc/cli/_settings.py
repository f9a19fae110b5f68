"""The app's settings as they stand, for commands that neither import the app nor judge what is in them."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any


def raw_settings(file: str | None, *, folder: Path = Path()) -> dict[str, Any]:
    """The settings in `folder`'s cdk.json, or in the file that is given or that `EXTENDED_DLC_SETTINGS` names.

    `EXTENDED_DLC_REGION`, `EXTENDED_DLC_TRANSFORMERS` and `EXTENDED_DLC_INSTANCE_TYPE` are in their places, as the app
    puts them, and so is the CDK CLI's region where none is named. `OSError` or `ValueError` when they cannot be read.
    """
    file = file or os.environ.get("EXTENDED_DLC_SETTINGS")
    if file is None:
        raw = json.loads((folder / "cdk.json").read_text()).get("context", {}).get("extended-dlc", {})
    elif file.endswith(".json"):
        raw = json.loads(Path(file).read_text())
    else:
        import yaml

        try:
            raw = yaml.safe_load(Path(file).read_text())
        except yaml.YAMLError as error:
            raise ValueError(str(error)) from None
    if not isinstance(raw, dict):
        raise ValueError("they are no object")
    if region := os.environ.get("EXTENDED_DLC_REGION"):
        raw["region"] = region
    if (release := os.environ.get("EXTENDED_DLC_TRANSFORMERS")) and isinstance(raw.setdefault("image", {}), dict):
        raw["image"]["transformers"] = release
    if instance_type := os.environ.get("EXTENDED_DLC_INSTANCE_TYPE"):
        endpoints = raw.get("endpoints")
        for endpoint in endpoints.values() if isinstance(endpoints, dict) else ():
            if isinstance(endpoint, dict) and isinstance(endpoint.setdefault("hosting", {}), dict):
                endpoint["hosting"]["instance_type"] = instance_type
    if not raw.get("region") and (region := _cli_region()):
        raw["region"] = region
    return raw


def _cli_region() -> str | None:
    """The region that the CDK CLI would deploy to: of the environment, or of the caller's AWS profile."""
    import boto3

    try:
        region: str | None = os.environ.get("AWS_REGION") or boto3.Session().region_name
    except Exception:  # a profile that cannot be read, which others report
        return None
    return region
