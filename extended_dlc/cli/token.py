"""`extended-dlc token`."""

from __future__ import annotations

import json
import shlex
from datetime import datetime, timedelta, timezone
from typing import Any

import click

from extended_dlc.cli._aws import REGION_HELP, credentials_of, session_in
from extended_dlc.endpoint.bearer import LONGEST_MINUTES, base_url, make_token
from extended_dlc.facts.checks import check_endpoint_name
from extended_dlc.terminal import Screen


@click.command()
@click.argument("endpoint")
@click.option("--component", metavar="NAME", help="Component that answers, of an endpoint of components.")
@click.option("--region", help=REGION_HELP)
@click.option("--profile", help="AWS profile that signs. Default: that of the environment.")
@click.option(
    "--expires",
    type=click.IntRange(1, LONGEST_MINUTES),
    metavar="MINUTES",
    default=60,
    show_default=True,
    help=f"How long the token is good for, {LONGEST_MINUTES} at most. It ends with the credentials that sign it.",
)
@click.option("--json", "as_json", is_flag=True, help="Print JSON, with the time at which the token ends.")
@click.option("--export", is_flag=True, help="Print what a shell evaluates into OPENAI_BASE_URL and OPENAI_API_KEY.")
def token(
    endpoint: str,
    component: str | None,
    region: str | None,
    profile: str | None,
    expires: int,
    as_json: bool,
    export: bool,
) -> None:
    """Print the base URL and a short-lived token with which OpenAI clients ask ENDPOINT.

    Chat completions only: SageMaker has none of OpenAI's other routes. The token is made on this machine from your AWS
    credentials and has all their permissions, so sign with a role that has little more than
    sagemaker:CallWithBearerToken and sagemaker:InvokeEndpoint.

    With --export: eval "$(extended-dlc token ENDPOINT --export)".
    """
    if as_json and export:
        raise click.UsageError("--json and --export are two forms of the same: leave one out")
    for option, name in (("ENDPOINT", endpoint), *([("--component", component)] if component is not None else [])):
        try:
            check_endpoint_name(name)
        except ValueError as error:
            raise click.ClickException(f"{option} ('{name[:100]}') {error}") from None
    session = session_in(profile, region)
    credentials = credentials_of(session)
    _check(session, endpoint, component)
    url = base_url(endpoint, host=session.client("sagemaker-runtime").meta.endpoint_url, component=component)
    until = datetime.now(timezone.utc) + timedelta(minutes=expires)
    made = make_token(credentials, region=session.region_name, seconds=expires * 60)
    if as_json:
        answer = {"base_url": url, "token": made, "expires_at": until.isoformat(timespec="seconds")}
        click.echo(json.dumps(answer, indent=2))
    elif export:
        click.echo(f"export OPENAI_BASE_URL={shlex.quote(url)}\nexport OPENAI_API_KEY={shlex.quote(made)}")
    else:
        click.echo(f"{url}\n{made}")


_SHOWN = 10
"""Components that an error message names."""


def _components(sagemaker: Any, endpoint: str) -> list[str]:
    """The endpoint's components; none where the credentials may not list them."""
    from botocore.exceptions import BotoCoreError, ClientError

    try:
        pages = sagemaker.get_paginator("list_inference_components").paginate(EndpointNameEquals=endpoint)
        return sorted(each["InferenceComponentName"] for page in pages for each in page["InferenceComponents"])
    except (ClientError, BotoCoreError):
        return []


def _check(session: Any, endpoint: str, component: str | None) -> None:
    """Refuse an endpoint or component that SageMaker does not have or that takes no tokens; warn of other problems."""
    from botocore.config import Config
    from botocore.exceptions import BotoCoreError, ClientError

    quick = Config(connect_timeout=5, read_timeout=10, retries={"total_max_attempts": 2})
    region = session.region_name
    try:
        client = session.client("sagemaker", config=quick)
        found = client.describe_endpoint(EndpointName=endpoint)
        part = client.describe_inference_component(InferenceComponentName=component) if component else None
    except ClientError as error:
        code, message = error.response["Error"]["Code"], error.response["Error"]["Message"]
        if code.startswith("AccessDenied"):
            Screen(err=True).line(f"not checked whether the endpoint is there: {message}", "warning")
            return
        if "Could not find" in message:
            show = f"aws sagemaker list-endpoints --region {region} shows those that are there"
            raise click.ClickException(f"{message} It is looked for in {region}: pass --region, or {show}") from None
        raise click.ClickException(f"SageMaker does not say whether the endpoint is there: {error}") from None
    except BotoCoreError as error:
        raise click.ClickException(f"SageMaker cannot be asked for the endpoint: {error}") from None
    if "AsyncInferenceConfig" in found:
        raise click.ClickException(
            f"the endpoint '{endpoint}' is asynchronous, and no OpenAI client can ask it: send requests to it with "
            "aws sagemaker-runtime invoke-endpoint-async"
        )
    if part is not None and part["EndpointName"] != endpoint:
        whose = part["EndpointName"]
        raise click.ClickException(f"the component '{component}' is one of '{whose}': pass that endpoint")
    if component is None and (names := _components(client, endpoint)):
        shown = ", ".join(names[:_SHOWN]) + (f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else "")
        raise click.ClickException(
            f"the endpoint '{endpoint}' serves components, each at an address of its own ({shown}): say which one "
            f"answers, as in extended-dlc token {endpoint} --component {names[0]}"
        )
    if (status := found["EndpointStatus"]) not in ("InService", "Updating"):
        Screen(err=True).line(f"the endpoint is {status}: it answers when it is InService", "warning")
