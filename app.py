"""The app that `cdk deploy` runs: settings, stack, synth."""

import os
import sys

import aws_cdk as cdk

from stacks.endpoint_stack import EndpointStack
from stacks.settings import CONTEXT_KEY, OVERRIDES, SettingsError, read_settings

# stack traces in the metadata name temporary folders, and two synths would differ by them
app = cdk.App(context={"aws:cdk:disable-stack-trace": True})
try:
    # `-c KEY=VALUE` wins over EXTENDED_DLC_KEY, which `extended-dlc login` sees too
    context = {key: app.node.try_get_context(key) for key in (CONTEXT_KEY, "settings", *OVERRIDES)}
    variables = {key: os.environ.get(f"EXTENDED_DLC_{key.upper()}") for key in ("settings", *OVERRIDES)}
    given = {key: value or variables.get(key) for key, value in context.items()}
    settings = read_settings(given, cli_region=os.environ.get("CDK_DEFAULT_REGION"))
except SettingsError as error:
    sys.exit(str(error))

EndpointStack(
    app,
    "EndpointStack",
    settings=settings,
    stack_name=settings.name,
    env=cdk.Environment(region=settings.region),
    description="A Hugging Face Hub model behind a SageMaker endpoint, on an extended Deep Learning Container",
)
app.synth()
