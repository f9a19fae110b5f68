"""The resource types that the embedded CloudFormation knows, so that an app can be told of the others beforehand."""

from __future__ import annotations

from moto.cloudformation import parsing

from extended_dlc.rehearsal.embedded.resource_table import ResourceTypes

RECORDED = (
    "AWS::CloudFormation::WaitConditionHandle",
    "AWS::Lambda::Alias",
    "AWS::Lambda::EventInvokeConfig",
    "AWS::Logs::SubscriptionFilter",
    "AWS::SNS::Subscription",
    "AWS::SNS::TopicPolicy",
    "AWS::SQS::QueuePolicy",
    "AWS::SageMaker::ModelPackageGroup",
    "Custom::CDKBucketDeployment",
    "Custom::ExtendedDlcTrainingStart",
    "Custom::LogRetention",
    "Custom::VpcRestrictDefaultSG",
)
"""Types that are remembered and do nothing, of which nothing else in a rehearsal needs that they do something."""


def known_types(types: ResourceTypes) -> list[str]:
    """All of them: ours, moto's, and those that are remembered only."""
    moto = [name for name in parsing.get_model_map() if name.count("::") == 2]
    return sorted({*types.own, *types.custom, *moto, *RECORDED})
