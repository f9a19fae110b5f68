"""The app that `cdk deploy` runs: settings, stacks, synth."""

import os
import sys

import aws_cdk as cdk

from extended_dlc.app.read import CONTEXT_KEY, OVERRIDES, SettingsError, check_context, keys_of_context_files
from extended_dlc.app.settings import read_settings
from stacks.endpoint_stack import EndpointStack

# stack traces in the metadata name temporary folders, and two synths would differ by them
app = cdk.App(context={"aws:cdk:disable-stack-trace": True})
try:
    context = app.node.get_all_context()
    check_context(context, known=keys_of_context_files())
    read = read_settings(
        {key: context.get(key) for key in ("settings", *OVERRIDES)},
        in_cdk_json=context.get(CONTEXT_KEY),
        looked_up=context,
        cli_region=os.environ.get("CDK_DEFAULT_REGION"),
    )
    endpoints = EndpointStack(
        app,
        "EndpointStack",
        read=read,
        stack_name=read.name,
        env=cdk.Environment(region=read.region),
        description="A Hugging Face Hub model behind a SageMaker endpoint, on an extended Deep Learning Container",
    )
    if read.settings is not None and read.settings.training:
        from stacks.training_stack import TrainingStack

        TrainingStack(
            app,
            "TrainingStack",
            read=read,
            endpoints=endpoints,
            stack_name=f"{read.name}-training",
            env=cdk.Environment(region=read.region),
            description="Trainings of the endpoints' models, and the way of their results to the endpoints",
        )
except SettingsError as error:
    sys.exit(str(error))
app.synth()
