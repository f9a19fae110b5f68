"""The app of a platform's images.

cdk deploy --app "python3 -m extended_dlc.platform" -c settings=images.yaml
"""

from __future__ import annotations

import os
import sys
from typing import Any

os.environ.setdefault("JSII_SILENCE_WARNING_END_OF_LIFE_NODE_VERSION", "18,20")

from aws_cdk import App, Environment, Stack, Tags
from aws_cdk import aws_sns as sns

from extended_dlc.app.read import SettingsError
from extended_dlc.app.stacks.lookups import Lookups
from extended_dlc.images.image_stack import ImageStack
from extended_dlc.platform.settings import read_images


def define(app: App, settings: Any) -> ImageStack:
    """The stack of settings that were read; `SettingsError` for what only the constructs find wrong with them."""
    account = settings.account or os.environ.get("CDK_DEFAULT_ACCOUNT")
    if account is None and (settings.build is not None or settings.rebuilds is not None):
        raise SettingsError("account: has to be said where your credentials do not say it")
    env = Environment(account=account, region=settings.region)
    home = Stack(app, "Given", env=env)  # of what is named and not made; nothing of it is deployed
    lookups = Lookups(home, "Images", settings.name)

    def find(section: Any, path: str) -> dict[str, Any]:
        """What a section names in AWS."""
        if section.made == "Rebuilds" and section.failure_topic is not None:
            return {"failure_topic": sns.Topic.from_topic_arn(home, "Topic", section.failure_topic)}
        return {**lookups.find(section, path)}

    try:
        stack = ImageStack(
            app,
            "Images",
            stack_name=settings.name,
            env=env,
            description="Extended Deep Learning Containers for the accounts of other teams",
            images={key: each.into_option() for key, each in settings.images.items()},
            prefix=settings.prefix,
            readers=settings.readers.into_option() if settings.readers else None,
            regions=settings.regions,
            rebuilds=settings.rebuilds.into_option(find) if settings.rebuilds else None,
            build=settings.build.into_option(find) if settings.build else None,
        )
    except ValueError as error:
        raise SettingsError(f"the settings are not valid:\n  {error}") from error
    for key, value in settings.tags.items():
        Tags.of(stack).add(key, value)
    app.node.try_remove_child("Given")
    return stack


def main() -> None:
    """Synthesise."""
    app = App(context={"aws:cdk:disable-stack-trace": True})
    file = app.node.try_get_context("settings")
    try:
        if not file:
            raise SettingsError("say where the settings are: -c settings=images.yaml")
        define(app, read_images(str(file)))
    except SettingsError as error:
        sys.exit(str(error))
    app.synth()


if __name__ == "__main__":
    main()
