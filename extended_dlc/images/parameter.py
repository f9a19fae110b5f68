"""Images whose references are in parameters of Systems Manager."""

from __future__ import annotations

from dataclasses import dataclass

from aws_cdk import Fn
from aws_cdk import aws_iam as iam
from aws_cdk import aws_ssm as ssm
from constructs import Construct

from extended_dlc.constructs.helpers import any_partition
from extended_dlc.images.places import PULL
from extended_dlc.options._values import OptionError
from extended_dlc.options.sharing import repository_of_parameter


@dataclass(frozen=True)
class NamedImage:
    """An image by a reference with a digest that is known only later; it takes the place of a repository."""

    uri: str
    repository: str
    """Name of its repository, or `*`."""

    @staticmethod
    def of_parameter(scope: Construct, construct_id: str, parameter: str, repository: str | None) -> NamedImage:
        """The image that the parameter names when the stack is deployed."""
        if parameter.startswith("arn:"):
            found = ssm.StringParameter.from_string_parameter_arn(scope, construct_id, parameter).string_value
        else:
            home = Construct(scope, construct_id)
            found = ssm.StringParameter.value_for_string_parameter(home, parameter)
        return NamedImage(found, repository or repository_of_parameter(parameter))

    @staticmethod
    def looked_up(scope: Construct, construct_id: str, parameter: str, repository: str | None) -> NamedImage:
        """The image that the parameter names at the time of the CDK's lookup."""
        if parameter.startswith("arn:"):
            raise OptionError(
                "parameter",
                parameter,
                "is an ARN, and the CDK looks up parameters of the stack's own account: take EcrImage.from_parameter, "
                "which reads it when the stack is deployed",
            )
        # Until the CDK CLI has looked it up, the CDK returns this placeholder.
        found = ssm.StringParameter.value_from_lookup(
            Construct(scope, construct_id), parameter, "000000000000.dkr.ecr.unknown.amazonaws.com/unknown@sha256:0"
        )
        return NamedImage(found, repository or repository_of_parameter(parameter))

    def repository_uri_for_tag_or_digest(self, tag_or_digest: str) -> str:
        """The whole reference; the argument is ignored."""
        return self.uri

    def grant_pull(self, grantee: iam.IGrantable) -> iam.Grant:
        """Let `grantee` pull the image; a repository in another account must allow it in its policy too."""
        parts = Fn.split(".", self.uri)
        region, account = Fn.select(3, parts), Fn.select(0, parts)
        arn = f"arn:{any_partition()}:ecr:{region}:{account}:repository/{self.repository}"
        iam.Grant.add_to_principal(grantee=grantee, actions=["ecr:GetAuthorizationToken"], resource_arns=["*"])
        return iam.Grant.add_to_principal(grantee=grantee, actions=list(PULL), resource_arns=[arn])
