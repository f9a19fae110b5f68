"""`ImageStack`: images that are built and published once, for the accounts of other teams."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from typing import Any

from aws_cdk import CfnOutput, Environment, RemovalPolicy, Stack, region_info
from aws_cdk import aws_ecr as ecr
from aws_cdk import aws_iam as iam
from aws_cdk import aws_s3 as s3
from constructs import Construct

from extended_dlc.decisions.asked import ImageAsked
from extended_dlc.decisions.decide import decide
from extended_dlc.decisions.image import ImageDecision
from extended_dlc.facts.limits import most
from extended_dlc.images.decided import refuse, region_of
from extended_dlc.images.image import ExtendedDlc
from extended_dlc.images.places import PULL
from extended_dlc.images.rebuild import build_again
from extended_dlc.options._kinds import check_types
from extended_dlc.options._values import OptionError, is_token, require_known
from extended_dlc.options.build import CloudBuild, require_unreserved
from extended_dlc.options.sharing import ImageVersion, Readers, Rebuilds, parameter_name

_PART = re.compile(r"[a-z0-9]+(?:[._-][a-z0-9]+)*")


def _home_of(key: str) -> str:
    """The id of the construct that an image's resources are in."""
    return f"Of{''.join(part.capitalize() for part in re.split('[^a-z0-9]', key))}"


class ImageStack(Stack):
    """Repositories of extended images that other accounts may pull from, each image named by an SSM parameter.

    The parameter `/PREFIX/KEY/FAMILY/RELEASE/CUDA`, such as `/images/text/inference/5.24.0/cu124`, holds the image's
    reference with its digest; `EcrImage.from_parameter` takes it. A bucket keeps the bill of materials of each image.
    Repositories, parameters and bucket stay when the stack is deleted, because endpoints of other stacks may need them.
    """

    @check_types
    def __init__(
        self,
        scope: Construct,
        construct_id: str,
        *,
        images: Mapping[str, ImageVersion],
        prefix: str = "images",
        readers: Readers | None = None,
        regions: Sequence[str] = (),
        rebuilds: Rebuilds | None = None,
        build: CloudBuild | None = None,
        **kwargs: Any,
    ) -> None:
        """Define the images.

        :param images: The images to publish, by the keys in the names of their repositories and parameters.
        :param prefix: Prefix of the names of repositories and parameters. Default: `images`.
        :param readers: Which other accounts may pull. Default: none.
        :param regions: Other regions that ECR copies the images to; parameters there name them too. The registry has
            one configuration of this, which becomes this stack's. ValueError where the stack's own region or account is
            not known at synth. Default: none.
        :param rebuilds: When the images are built again. Default: when the stack changes them.
        :param build: How they are built; its `gate` decides which are published. Default: `CloudBuild()`.
        :param kwargs: The options of `Stack`.
        """
        super().__init__(scope, construct_id, **kwargs)
        if not images:
            raise OptionError("images", rule="is empty: name one ImageVersion, or leave the stack out")
        for option, value in (("prefix", prefix), *(("images", key) for key in images)):
            if not all(_PART.fullmatch(part) for part in value.split("/")):
                raise OptionError(option, value, "must be small letters, digits and single '.', '_', '-' between them")
            if len(f"{prefix}/{value}") > (characters := most("repository.name_characters")):
                rule = f"makes a name of over {characters} characters, which no repository has: shorten it"
                raise OptionError(option, f"{value[:40]}…", rule)
        require_unreserved("prefix", prefix)
        homes: dict[str, str] = {}
        for key in images:
            if (other := homes.setdefault(_home_of(key), key)) != key:
                raise OptionError("images", key, f"and '{other}' differ in signs alone: rename one")
        self._prefix, self._readers, self._rebuilds = prefix, readers, rebuilds
        self._regions = _checked(self, regions)
        self._build = build or CloudBuild()
        self.records: s3.IBucket = self._build.records or self._new_records()
        """The bucket of bills of materials, which the readers may read."""
        self.images: dict[str, ExtendedDlc] = {}
        """The images by their keys."""
        self.parameters: dict[str, str] = {}
        """The names of their parameters by their keys."""
        for region in self._regions:
            self._replica(scope, construct_id, region)
        for key, version in images.items():
            self.images[key] = self._publish(key, version)
        if self._regions:
            self._replicate()

    def _publish(self, key: str, version: ImageVersion) -> ExtendedDlc:
        home = Construct(self, _home_of(key))
        repository = self._repository(home, f"{self._prefix}/{key}")
        options = {name: value for name, value in asdict(version).items() if value not in (None, ())}
        draft = _decided(version, home)
        name = parameter_name(
            f"{self._prefix}/{key}",
            family=draft.family or "inference",
            transformers=version.transformers,
            accelerator=draft.accelerator or "cpu",
            cuda=draft.cuda,
        )
        shared = self._readers is not None and bool(self._readers.accounts)
        build = replace(
            self._build,
            parameters=(*self._build.parameters, name, *(f"{region}:{name}" for region in self._regions)),
            advanced_parameters=shared or self._build.advanced_parameters,
            records=self.records,
        )
        image = ExtendedDlc(home, "Image", repository=repository, build=build, **options)
        self.parameters[key] = name
        if shared:
            self._share(home, name, image)
        if self._rebuilds is not None:
            build_again(home, image, self._rebuilds, self._build)
        CfnOutput(self, f"{home.node.id}Parameter", value=name, description=f"Names the image '{key}' by its digest")
        return image

    def _repository(self, home: Construct, name: str) -> ecr.Repository:
        repository = ecr.Repository(
            home,
            "Repository",
            repository_name=name,
            image_scan_on_push=True,
            # Each build has its own tag, and a revert pushes the same tag again.
            image_tag_mutability=ecr.TagMutability.MUTABLE,
            removal_policy=RemovalPolicy.RETAIN,
        )
        # No image expires: ECR does not know which are in use, and SageMaker pulls them again when it scales out.
        for statement in _allows(self._readers, sorted(PULL)):
            repository.add_to_resource_policy(statement)
        return repository

    def _new_records(self) -> s3.Bucket:
        bucket = s3.Bucket(
            self,
            "Records",
            encryption=s3.BucketEncryption.S3_MANAGED,
            block_public_access=s3.BlockPublicAccess.BLOCK_ALL,
            enforce_ssl=True,
            versioned=True,
            removal_policy=RemovalPolicy.RETAIN,
        )
        for statement in _allows(self._readers, ["s3:GetObject"], resources=[bucket.arn_for_objects("*")]):
            bucket.add_to_resource_policy(statement)
        CfnOutput(self, "RecordsBucket", value=bucket.bucket_name, description="Keeps the images' bills of materials")
        return bucket

    def _share(self, home: Construct, name: str, image: ExtendedDlc) -> None:
        """Share the parameter with the accounts through AWS RAM; their templates name it by its ARN."""
        from aws_cdk import aws_ram as ram

        assert self._readers is not None  # noqa: S101 - by the caller
        share = ram.CfnResourceShare(
            home,
            "Share",
            name=name.strip("/").replace("/", "-"),
            principals=list(self._readers.accounts),
            resource_arns=[self.format_arn(service="ssm", resource="parameter", resource_name=name.lstrip("/"))],
            permission_arns=[f"arn:{self.partition}:ram::aws:permission/AWSRAMDefaultPermissionSSMParameterReadOnly"],
        )
        if image.ready is not None:
            share.node.add_dependency(image.ready)

    def _replicate(self) -> None:
        rule = ecr.CfnReplicationConfiguration.ReplicationRuleProperty(
            destinations=[
                ecr.CfnReplicationConfiguration.ReplicationDestinationProperty(region=each, registry_id=self.account)
                for each in self._regions
            ],
            repository_filters=[
                ecr.CfnReplicationConfiguration.RepositoryFilterProperty(
                    filter=f"{self._prefix}/", filter_type="PREFIX_MATCH"
                )
            ],
        )
        replication = ecr.CfnReplicationConfiguration(
            self,
            "Replication",
            replication_configuration=ecr.CfnReplicationConfiguration.ReplicationConfigurationProperty(rules=[rule]),
        )
        for image in self.images.values():  # ECR replicates only images pushed afterwards
            built = image.cloud_build
            assert built is not None  # noqa: S101 - built by CloudBuild
            built.ready.node.add_dependency(replication)

    def _replica(self, scope: Construct, construct_id: str, region: str) -> None:
        """Define the stack with the template for ECR's replica repositories in a region, which else have no policy."""
        stack = Stack(
            scope,
            f"{construct_id}-{region}",
            env=Environment(account=self.account, region=region),
            description="How ECR makes the copies of extended images in this region",
        )
        statements = [statement.to_statement_json() for statement in _allows(self._readers, sorted(PULL))]
        policy = {"Version": "2012-10-17", "Statement": statements}
        ecr.CfnRepositoryCreationTemplate(
            stack,
            "Template",
            applied_for=["REPLICATION"],
            prefix=self._prefix,
            description="Extended images that are copied from another region",
            image_tag_mutability="MUTABLE",
            repository_policy=stack.to_json_string(policy) if statements else None,
        )
        self.node.add_dependency(stack)


def _decided(version: ImageVersion, scope: Construct) -> ImageDecision:
    """The decision for the image of a version."""
    options = {name: value for name, value in asdict(version).items() if name != "model_types"}
    asked = ImageAsked(kind="extended", key=scope.node.path, model_types=tuple(version.model_types), **options)
    decision = decide(asked, [], region=region_of(scope))
    refuse(decision)
    if decision.image.base is None or decision.image.accelerator is None:
        raise OptionError("accelerator", rule="is not known, and no endpoint decides on it here: say 'cpu' or 'gpu'")
    return decision.image


def _checked(stack: Stack, regions: Sequence[str]) -> Sequence[str]:
    """The regions that ECR copies to, each once; `OptionError` for those that it cannot copy to."""
    require_known("regions", regions, "there is a stack for each")
    if regions and (is_token(stack.region) or is_token(stack.account)):
        raise OptionError(
            "regions", ", ".join(regions), "needs a stack whose account and region are known: give it an env"
        )
    if wrong := next((each for each in regions if not re.fullmatch(r"[a-z]{2}(-[a-z]+)+-\d", each)), None):
        raise OptionError("regions", wrong, "is no region: write it as eu-west-1")
    if stack.region in regions:
        raise OptionError("regions", stack.region, "is the stack's own region: leave it out")
    if len(set(regions)) > (destinations := most("registry.replication_destinations")):
        rule = f"are more than the {destinations} destinations that ECR replicates a registry to: name fewer"
        raise OptionError("regions", f"{len(set(regions))} regions", rule)
    here = region_info.RegionInfo.get(stack.region).partition
    for each in regions:
        there = region_info.RegionInfo.get(each).partition
        if None not in (here, there) and there != here:
            rule = f"is of the partition {there}, and ECR replicates within one, which is {here}: take other regions"
            raise OptionError("regions", each, rule)
    return tuple(dict.fromkeys(regions))


def _allows(
    readers: Readers | None, actions: Sequence[str], *, resources: Sequence[str] | None = None
) -> list[iam.PolicyStatement]:
    """The statements of a resource's policy that allow the readers these actions.

    :param resources: Default: none, as in a repository's policy.
    """
    found = []
    on: dict[str, Any] = {"actions": list(actions), "resources": list(resources) if resources else None}
    if readers is not None and readers.accounts:
        principals: list[iam.IPrincipal] = [iam.AccountPrincipal(account) for account in readers.accounts]
        found.append(iam.PolicyStatement(sid="Accounts", principals=principals, **on))
    if readers is not None and readers.organisation is not None:
        found.append(
            iam.PolicyStatement(
                sid="Organisation",
                principals=[iam.AnyPrincipal()],
                conditions={"StringEquals": {"aws:PrincipalOrgID": readers.organisation}},
                **on,
            )
        )
    return found
