"""The app of the settings, for any program: its settings, and its stacks."""

from __future__ import annotations

from dataclasses import dataclass

from extended_dlc.app import start  # noqa: F401 - first: it loads the CDK and the settings at once

# isort: split
import aws_cdk as cdk

from extended_dlc.app.read import CONTEXT_KEY, OVERRIDES, check_context, keys_of_context_files
from extended_dlc.app.settings import Read, read_settings
from extended_dlc.app.stacks.endpoint_stack import EndpointStack


@dataclass(frozen=True, kw_only=True)
class Stacks:
    """The stacks that were made of the settings."""

    endpoints: EndpointStack
    training: cdk.Stack | None
    """The stack of the trainings; None without trainings."""


def new_app() -> cdk.App:
    """An app with a reproducible synth: it has no stack traces in the metadata, which would name temporary folders."""
    return cdk.App(context={"aws:cdk:disable-stack-trace": True})


def read_app(app: cdk.App, *, cli_region: str | None = None) -> Read:
    """The settings that the app's context names or holds; `SettingsError` with all that is wrong with them.

    :param cli_region: The region of settings that name none. Default: they must name one.
    """
    context = app.node.get_all_context()
    check_context(context, known=keys_of_context_files())
    return read_settings(
        {key: context.get(key) for key in ("settings", *OVERRIDES)},
        in_cdk_json=context.get(CONTEXT_KEY),
        looked_up=context,
        cli_region=cli_region,
    )


def define_stacks(app: cdk.App, read: Read) -> Stacks:
    """The stacks of settings that were read; `SettingsError` for what only the constructs find wrong with them."""
    env = cdk.Environment(region=read.region)
    endpoints = EndpointStack(
        app,
        "EndpointStack",
        read=read,
        stack_name=read.name,
        env=env,
        description="A Hugging Face Hub model behind a SageMaker endpoint, on an extended Deep Learning Container",
    )
    for shown_by_plan in ("extended-dlc:base", "extended-dlc:licence"):
        cdk.Annotations.of(endpoints).acknowledge_info(shown_by_plan)
    if read.settings is None or not read.settings.training:
        return Stacks(endpoints=endpoints, training=None)
    # Imported here, because most settings have no trainings and the import takes time.
    from extended_dlc.app.stacks.training_stack import TrainingStack

    training = TrainingStack(
        app,
        "TrainingStack",
        read=read,
        endpoints=endpoints,
        stack_name=f"{read.name}-training",
        env=env,
        description="Trainings of the endpoints' models, and the way of their results to the endpoints",
    )
    return Stacks(endpoints=endpoints, training=training)
