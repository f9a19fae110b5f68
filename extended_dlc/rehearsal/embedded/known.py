"""The resource types that the embedded CloudFormation supports, so that an app can be checked for others beforehand."""

from __future__ import annotations

import inspect
import re

from moto.cloudformation import parsing

from extended_dlc.rehearsal.embedded import templates
from extended_dlc.rehearsal.embedded.resource_table import ResourceTypes, own_names

RECORDED = (
    "AWS::CloudFormation::WaitConditionHandle",
    "AWS::Lambda::Alias",
    "AWS::Lambda::EventInvokeConfig",
    "AWS::Logs::SubscriptionFilter",
    "AWS::SNS::Subscription",
    "AWS::SQS::QueuePolicy",
    "AWS::SageMaker::ModelPackageGroup",
    "Custom::CDKBucketDeployment",
    "Custom::ExtendedDlcTrainingStart",
    "Custom::LogRetention",
    "Custom::VpcRestrictDefaultSG",
)
"""Types that are only recorded: nothing else in a rehearsal needs them to do anything."""


def known_types(types: ResourceTypes) -> list[str]:
    """All supported types: this project's, moto's, and those that are only recorded."""
    moto = [name for name in parsing.get_model_map() if name.count("::") == 2]
    return sorted({*types.defined, *types.custom, *moto, *RECORDED})


def unchecked_types() -> list[str]:
    """The supported types whose calls are not checked, neither for rights nor against shapes and rules.

    Of moto's types these are those of the services that moto's CloudFormation imports: what else is there depends on
    what a process has imported.
    """
    services = {"ec2", "logs", "secretsmanager", *re.findall(r"^from moto\.(\w+) import models", _SOURCE, re.MULTILINE)}
    moto = [
        name
        for name, model in parsing.get_model_map().items()
        if name.startswith("AWS::") and name != "AWS::SERVICE::RESOURCE" and model.__module__.split(".")[1] in services
    ]
    recorded = [name for name in RECORDED if name.startswith("AWS::")]
    return sorted({*own_names(), *moto, *recorded} - templates.CHECKED)


_SOURCE = inspect.getsource(parsing)
