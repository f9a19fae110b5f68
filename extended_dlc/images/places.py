"""The registries of images: the regions that SageMaker pulls from, and AWS's DLC registries in each."""

from __future__ import annotations

from dataclasses import dataclass

from aws_cdk import Aws, CfnMapping, Stack, Stage
from constructs import Construct

from extended_dlc.constructs.helpers import any_partition, require_same, target_of
from extended_dlc.facts.catalog import registry_accounts
from extended_dlc.images.registry_login import ecr_registries
from extended_dlc.options._values import is_token

PULL = ("ecr:BatchCheckLayerAvailability", "ecr:GetDownloadUrlForLayer", "ecr:BatchGetImage")
"""The actions on a repository with which an image is pulled."""


def is_within_reach(image: Construct, endpoint: Construct) -> bool:
    """Whether an image is in the account, region and CDK stage of an endpoint.

    Two tokens count as equal; a token and a name do not, because the CDK refers to nothing between such stacks.
    """
    of_image, of_endpoint = target_of(image), target_of(endpoint)
    if of_image.stack is not of_endpoint.stack and Stage.of(of_image.stack) is not Stage.of(of_endpoint.stack):
        return False
    pairs = ((of_image.region, of_endpoint.region), (of_image.account, of_endpoint.account))
    return all(one == other or (is_token(one) and is_token(other)) for one, other in pairs)


def check_region_of(repository: object, endpoint: Construct) -> None:
    """Refuse a repository of another region (SageMaker API, ContainerDefinition, `Image`)."""
    rule = "SageMaker does not pull it from there, so have ECR replicate the repository, and name the replica"
    require_same("region", "image", repository, endpoint, rule)


@dataclass(frozen=True)
class Registry:
    """A private ECR registry."""

    host: str
    region: str
    account: str

    @staticmethod
    def of(reference: str) -> Registry | None:
        """The ECR registry in a reference; None for another registry."""
        return next((Registry(each.host, each.region, each.account) for each in ecr_registries([reference])), None)

    @staticmethod
    def of_dlcs(scope: Construct) -> Registry:
        """AWS's DLC registry in the region of the deployment: a mapping in the template has its account."""
        stack = Stack.of(scope)
        found = stack.node.try_find_child("ExtendedDlcRegistries")
        if not isinstance(found, CfnMapping):
            accounts = {region: {"account": account} for region, account in registry_accounts().items()}
            found = CfnMapping(stack, "ExtendedDlcRegistries", mapping=accounts)
        account = found.find_in_map(Aws.REGION, "account")
        return Registry(f"{account}.dkr.ecr.{Aws.REGION}.{Aws.URL_SUFFIX}", Aws.REGION, account)

    def repository_arn(self, reference: str) -> str:
        """The ARN of the repository that a reference to this registry names."""
        name = reference.removeprefix(f"{self.host}/").partition("@")[0].partition(":")[0]
        return f"arn:{any_partition()}:ecr:{self.region}:{self.account}:repository/{name}"
