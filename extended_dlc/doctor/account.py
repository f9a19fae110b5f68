"""The AWS account: credentials, the CDK's bootstrap, the base image's registry, the quota of the instances."""

from __future__ import annotations

import functools
import re
import shutil
import textwrap
from collections.abc import Callable
from typing import Any

from extended_dlc.doctor.findings import Finding, Ok, Problem, Unknown
from extended_dlc.doctor.programs import NoAnswer, ask
from extended_dlc.doctor.target import Target
from extended_dlc.facts import clock
from extended_dlc.images.registry_login import EcrRegistry, ecr_registries

OLDEST_BOOTSTRAP = 6
"""Oldest bootstrap version that supports image assets (aws-cdk-lib 2.275.0, `requiresBootstrapStackVersion`)."""

_BUILDS = "Concurrently running builds for Linux/Small environment"
"""Name in Service Quotas of the quota for the project that `MirroredModel` makes."""

_QUALIFIER = "hnb659fds"
_NO_CREDENTIALS = ("NoCredentialsError", "PartialCredentialsError", "CredentialRetrievalError", "ProfileNotFound")
_NO_SESSION = ("TokenRetrievalError", "UnauthorizedSSOTokenError", "SSOTokenLoadError")
_REFUSED = ("AccessDenied", "AccessDeniedException", "UnauthorizedOperation")
_INVALID = (
    "ExpiredToken",
    "ExpiredTokenException",
    "InvalidClientTokenId",
    "SignatureDoesNotMatch",
    "UnrecognizedClientException",
)
_HAS_NO_LOGIN = re.compile(r"unauthorized|denied|forbidden|no basic auth|\b40[13]\b", re.IGNORECASE)
_IS_ABSENT = re.compile(r"no such manifest|manifest unknown|name unknown|not found|\b404\b", re.IGNORECASE)


def _asking_aws(permission: str) -> Callable[[Callable[[Target], Finding]], Callable[[Target], Finding]]:
    """Turn AWS errors into Unknown with the reason; a check handles the errors that it tests for itself."""

    def decorate(check: Callable[[Target], Finding]) -> Callable[[Target], Finding]:
        @functools.wraps(check)
        def asked(target: Target) -> Finding:
            from botocore.exceptions import BotoCoreError, ClientError

            try:
                return check(target)
            except ClientError as error:
                if _code(error) in _REFUSED:
                    return Unknown(f"your credentials may not ask: they have no {permission}")
                if _code(error) in _INVALID:
                    return Unknown("AWS does not take your credentials: see 'credentials'")
                return Unknown(f"AWS gave no answer: {_short(error)}")
            except BotoCoreError as error:
                if type(error).__name__ in _NO_CREDENTIALS + _NO_SESSION:
                    return Unknown("there are no AWS credentials: see 'credentials'")
                if type(error).__name__ == "NoRegionError":
                    return Unknown("no region is named: set 'region' in the settings, or AWS_REGION")
                return Unknown(f"AWS cannot be reached: {_short(error)}")

        return asked

    return decorate


def _short(error: Exception) -> str:
    """An error on one line, because a proxy's may be a whole page."""
    return textwrap.shorten(str(error), 200)


def _code(error: Any) -> str:
    return str(error.response.get("Error", {}).get("Code", ""))


@_asking_aws("sts:GetCallerIdentity")
def credentials(target: Target) -> Finding:
    """Check that there are AWS credentials and that AWS accepts them."""
    from botocore.exceptions import BotoCoreError, ClientError

    try:
        who = _caller(target)
    except ClientError as error:
        if clock.is_wrong(str(error)):
            return Problem(f"this machine's clock is wrong: {error}", clock.REMEDY)
        if _code(error) in _INVALID:
            return Problem(f"AWS does not take your credentials: {_code(error)}", "aws sso login, or aws configure")
        raise
    except BotoCoreError as error:
        if clock.is_wrong(str(error)):
            return Problem(f"this machine's clock is wrong: {error}", clock.REMEDY)
        if type(error).__name__ in _NO_SESSION:
            return Problem(f"your sign-in has ended: {error}", "aws sso login")
        if type(error).__name__ == "ProfileNotFound":
            return Problem(f"AWS_PROFILE names no profile: {error}", "aws configure list-profiles")
        if type(error).__name__ in _NO_CREDENTIALS:
            return Problem(f"there are no AWS credentials: {error}", "aws configure, or aws sso login")
        raise
    return Ok(f"account {who['Account']}, {who['Arn'].rpartition(':')[2]}")


@_asking_aws("ssm:GetParameter")
def bootstrap(target: Target) -> Finding:
    """Check that the region is bootstrapped, by a CDK that is new enough."""
    from botocore.exceptions import ClientError

    context = target.cdk_json.get("context")
    qualifier = (context if isinstance(context, dict) else {}).get("@aws-cdk/core:bootstrapQualifier", _QUALIFIER)
    region = target.region
    ssm = target.aws.client("ssm", region)
    try:
        found = ssm.get_parameter(Name=f"/cdk-bootstrap/{qualifier}/version")["Parameter"]["Value"]
    except ClientError as error:
        if _code(error) == "ParameterNotFound":
            return Problem(f"the CDK is not bootstrapped in {region}", _bootstrap_command(target))
        raise
    if not found.isdigit():
        return Unknown(f"its version is '{found}', no number")
    if int(found) < OLDEST_BOOTSTRAP:
        return Problem(
            f"the CDK's bootstrap stack in {region} has version {found}: {OLDEST_BOOTSTRAP} is the oldest that works",
            _bootstrap_command(target),
        )
    return Ok(f"version {found} in {region}")


def base_image(target: Target) -> Finding:
    """Check that the base image can be pulled."""
    if not target.builds:
        return Ok("not needed: no image is built on this machine")
    if not target.bases:
        return Unknown("the settings name no base image")
    findings = [_in_ecr(target, base) or _elsewhere(target, base) for base in target.bases]
    return next((found for kind in (Problem, Unknown) for found in findings if isinstance(found, kind)), findings[0])


def _in_ecr(target: Target, base: str) -> Finding | None:
    """The finding on a base in a private ECR registry; None for another registry."""
    registries = ecr_registries([base])
    if not registries:
        return None
    pull = _asking_aws("ecr:GetAuthorizationToken")(
        functools.partial(_pull_from_ecr, registry=registries[0], base=base)
    )
    return pull(target)


def _pull_from_ecr(target: Target, *, registry: EcrRegistry, base: str) -> Finding:
    """Call the API that a pull calls (ECR user guide, "Private registry policies": BatchGetImage)."""
    from botocore.exceptions import ClientError

    ecr = target.aws.client("ecr", registry.region)
    repository, image = _repository_and_id(base.partition("/")[2])
    where = f"registry {registry.account} in {registry.region}"
    try:
        ecr.get_authorization_token()
    except ClientError as error:
        if _code(error) in _REFUSED:
            return Problem(
                "your credentials cannot log in to any ECR registry",
                "have ecr:GetAuthorizationToken allowed to you, then: extended-dlc login",
            )
        raise
    try:
        answer = ecr.batch_get_image(registryId=registry.account, repositoryName=repository, imageIds=[image])
    except ClientError as error:
        if _code(error) in _REFUSED:
            return Problem(
                f"the base image is forbidden: you may not pull {repository} from {where}",
                f"have ecr:BatchGetImage and ecr:GetDownloadUrlForLayer on {repository} allowed to you, or take a "
                "public base (extended-dlc catalog list --repository pytorch)",
            )
        if _code(error) == "RepositoryNotFoundException":
            return Problem(f"there is no repository {repository} in {where}", _other_base(target))
        raise
    if not answer.get("images"):
        return Problem(f"there is no {base.rpartition('/')[2]} in {where}", _other_base(target))
    return Ok(f"{base} can be pulled")


def _elsewhere(target: Target, base: str) -> Finding:
    """The finding on a base in another registry: the engine has the image, or queries it with its own login."""
    program = shutil.which(target.engine)
    if program is None:
        return Unknown("there is no container engine that could ask for it: see 'engine'")
    try:
        if ask([program, "image", "inspect", base]).code == 0:
            return Ok(f"{base} is on this machine")
        answer = ask([program, "manifest", "inspect", base])
    except NoAnswer as error:
        return Unknown(str(error))
    if answer.code == 0:
        return Ok(f"{base} can be pulled")
    host = base.partition("/")[0]
    if _HAS_NO_LOGIN.search(answer.reason):
        return Problem(
            f"the base image is forbidden: {host} refuses {base}: {answer.reason}", f"{target.engine} login {host}"
        )
    if _IS_ABSENT.search(answer.reason):
        return Problem(f"there is no {base}: {answer.reason}", "correct image.base in the settings")
    return Unknown(f"whether {base} can be pulled, this shows: {target.engine} pull {base} ({answer.reason})")


@_asking_aws("servicequotas:ListServiceQuotas")
def quota(target: Target) -> Finding:
    """Check that SageMaker's quotas allow the instances of the endpoints."""
    wanted = target.instances
    if not wanted:
        return Unknown("the settings name no endpoints")
    quotas = _quotas(target, {_quota_name(each) for each in wanted})
    found = {each: quotas[_quota_name(each)] for each in wanted if _quota_name(each) in quotas}
    short = {name: quota for name, quota in found.items() if quota["Value"] < wanted[name]}
    if short:
        return Problem(
            "; ".join(
                f"'{_quota_name(name)}' is {quota['Value']:g} in {target.region} and {wanted[name]} are asked for"
                for name, quota in short.items()
            ),
            "; ".join(_request(quota, wanted[name], target.region) for name, quota in short.items()),
        )
    if missing := sorted(set(wanted) - set(found)):
        return Unknown(f"Service Quotas lists no '{_quota_name(missing[0])}' in {target.region}")
    return Ok(", ".join(f"{quota['Value']:g} of {name}" for name, quota in found.items()))


@_asking_aws("servicequotas:ListServiceQuotas")
def codebuild(target: Target) -> Finding:
    """Check that CodeBuild's quota allows the builds for the image, or for copies of weights from the Hub to S3."""
    if not (target.mirrors or target.builds_in_cloud):
        return Ok("not needed: no weights are mirrored, and no image built, by a project that the deployment makes")
    found = _quotas(target, {_BUILDS}, service="codebuild")
    if _BUILDS not in found:
        return Unknown(f"Service Quotas lists no '{_BUILDS}' in {target.region}")
    quota = found[_BUILDS]
    if quota["Value"] < 1:
        return Problem(
            f"'{_BUILDS}' is {quota['Value']:g} in {target.region}, as in many new accounts: the build would "
            "end with 'Cannot have more than 0 builds in queue for the account'",
            _request(quota, 1, target.region, service="codebuild"),
        )
    return Ok(f"{quota['Value']:g} builds at a time")


@_asking_aws("application-autoscaling:DescribeScalableTargets and sagemaker:DescribeEndpoint")
def scaled_type(target: Target) -> Finding:
    """Check that no scaling endpoint changes its instance type: SageMaker refuses this, but only after the build."""
    wanted = {f"endpoint/{name}/variant/AllTraffic": (name, types) for name, types in target.endpoint_types.items()}
    if not wanted:
        return Unknown("the settings name no endpoints with instances")
    scaling = target.aws.client("application-autoscaling", target.region)
    found = scaling.describe_scalable_targets(ServiceNamespace="sagemaker", ResourceIds=sorted(wanted)[:50])
    for scaled in found["ScalableTargets"]:
        name, types = wanted[scaled["ResourceId"]]
        running = _running_types(target, name)
        if running and running != types:
            return Problem(
                f"{name} scales on {', '.join(running)} and would go over to {', '.join(types)}, which is refused",
                "deploy without 'scaling' and with the old type, then with the new type, then with 'scaling' again",
            )
    return Ok("no endpoint that scales changes its type")


def _running_types(target: Target, endpoint: str) -> list[str]:
    """The instance types of an endpoint's main variant, the preferred one first."""
    sagemaker = target.aws.client("sagemaker", target.region)
    config = sagemaker.describe_endpoint(EndpointName=endpoint)["EndpointConfigName"]
    for variant in sagemaker.describe_endpoint_config(EndpointConfigName=config)["ProductionVariants"]:
        if variant["VariantName"] == "AllTraffic":
            pools = sorted(variant.get("InstancePools", ()), key=lambda pool: pool["Priority"])
            return [pool["InstanceType"] for pool in pools] or [variant["InstanceType"]]
    return []


def _quotas(target: Target, names: set[str], *, service: str = "sagemaker") -> dict[str, Any]:
    """The quotas with these names; Service Quotas has no search, only pages."""
    found: dict[str, Any] = {}
    client = target.aws.client("service-quotas", target.region)
    for page in client.get_paginator("list_service_quotas").paginate(
        ServiceCode=service, PaginationConfig={"PageSize": 100}
    ):
        found |= {each["QuotaName"]: each for each in page["Quotas"] if each["QuotaName"] in names}
        if found.keys() == names:
            break
    return found


def _quota_name(instance_type: str) -> str:
    return f"{instance_type} for endpoint usage"


def _request(quota: Any, number: int, region: str | None, *, service: str = "sagemaker") -> str:
    return (
        f"aws service-quotas request-service-quota-increase --service-code {service} "
        f"--quota-code {quota['QuotaCode']} --desired-value {number} --region {region}"
    )


def _caller(target: Target) -> Any:
    return target.aws.client("sts", target.region).get_caller_identity()


def _bootstrap_command(target: Target) -> str:
    return f"npx cdk bootstrap aws://{_caller(target)['Account']}/{target.region}"


def _other_base(target: Target) -> str:
    return f"pick another: extended-dlc catalog list --region {target.region}"


def _repository_and_id(name: str) -> tuple[str, dict[str, str]]:
    """The repository and the ECR image id of `repository:tag` or `repository@sha256:…`."""
    repository, at, digest = name.partition("@")
    if at:
        return repository.partition(":")[0], {"imageDigest": digest}
    repository, _, tag = name.partition(":")
    return repository, {"imageTag": tag or "latest"}
