"""The AWS session of commands: a region and credentials, or an error that names what is missing."""

from __future__ import annotations

import os
from typing import Any

import click

from extended_dlc.app.read import SettingsError, read_raw

REGION_HELP = "Region of the endpoint. Default: of the environment, of the profile, or of the settings in this folder."

_LOG_IN = "run 'aws configure' or 'aws sso login', or name a profile with --profile"


def session_in(profile: str | None, region: str | None) -> Any:
    import boto3
    from botocore.exceptions import BotoCoreError

    try:
        session = boto3.Session(profile_name=profile, region_name=region or os.environ.get("AWS_REGION"))
        if session.region_name is None and (of_settings := _region_of_settings()):
            session = boto3.Session(profile_name=profile, region_name=of_settings)
        if session.region_name is None:
            raise click.ClickException(
                "no region: pass --region, set AWS_REGION, or give the profile one (aws configure set region REGION)"
            )
        session.get_partition_for_region(session.region_name)
    except BotoCoreError as error:  # a profile or a region that does not exist
        way_out = "aws configure list-profiles shows the profiles; --region takes a name as us-east-1"
        raise click.ClickException(f"{str(error).rstrip('.')}: {way_out}") from None
    return session


def _region_of_settings() -> str | None:
    """The region that the settings of this folder deploy to."""
    try:
        return read_raw({}).base_region
    except SettingsError:
        return None


def credentials_of(session: Any) -> Any:
    from botocore.exceptions import BotoCoreError

    try:
        credentials = session.get_credentials()
        if credentials is not None:
            credentials.get_frozen_credentials()  # renews expired ones
    except BotoCoreError as error:
        raise click.ClickException(f"the AWS credentials cannot be used ({error}): {_LOG_IN}") from None
    if credentials is None:
        raise click.ClickException(f"no AWS credentials: {_LOG_IN}")
    return credentials
