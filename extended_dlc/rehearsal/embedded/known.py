"""The resource types that the embedded CloudFormation supports, so that an app can be checked for others beforehand."""

from __future__ import annotations

from moto.cloudformation import parsing

from extended_dlc.rehearsal.embedded.resource_table import ResourceTypes

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
