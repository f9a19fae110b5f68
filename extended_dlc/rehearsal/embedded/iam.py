"""IAM's authorization: each call with a key of this IAM is evaluated against the owner's policies, and recorded.

Keys that `CreateAccessKey` and `AssumeRole` returned here have an identity. Every other key, such as the rehearsal's
own, belongs to the account's administrator, who may do everything. What AWS's services do with a role (Lambda with a
function's, SageMaker with a model's, CodeBuild with a project's, Scheduler with a schedule's) they do in a session of
that role: its trust policy must allow the service, and each call is evaluated as any other.
"""

from __future__ import annotations

import functools
import json
import re
import threading
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

from moto.awslambda.models import lambda_backends
from moto.cloudformation.models import cloudformation_backends
from moto.ecr.models import ecr_backends
from moto.iam.models import iam_backends
from moto.kms.models import Grant, Key, kms_backends
from moto.s3.models import s3_backends
from moto.sns.models import sns_backends
from moto.utilities.utils import get_partition

from extended_dlc.rehearsal.embedded import iam_actions, lookups
from extended_dlc.rehearsal.embedded.calls import Call, Parameters
from extended_dlc.rehearsal.embedded.identities import (
    ExpiredKey,
    InvalidKey,
    Principal,
    administrator,
    find_principal,
    managed_policy,
    principal_of_role,
    tags_of,
)
from extended_dlc.rehearsal.embedded.policies import Decision, Document, Policies, Request, evaluate
from extended_dlc.rehearsal.embedded.sessions import environment_of_role
from extended_dlc.rehearsal.embedded.shapes import Refusal
from extended_dlc.rehearsal.embedded.trust import assumable, document_of, find_role

Need = tuple[str, str, Mapping[str, Any]]
"""An action, a resource, and the values of the condition keys."""

SESSION = "embedded"

TEMPLATE_POLICY = "policy_of_template"
"""The attribute of moto's bucket with the policy of `AWS::S3::BucketPolicy`, which moto itself does not apply."""


@dataclass(kw_only=True)
class Iam:
    """Evaluates policies, and records each evaluation."""

    record: Path | None = None
    """A JSON Lines file of the evaluated requests."""

    organisation: Sequence[Document] = ()
    """Service control policies of the organization."""

    _lock: threading.Lock = field(default_factory=threading.Lock)

    # calls over HTTP

    def check(self, call: Call) -> None:
        """Raise `Refusal` unless the caller's policies allow the call."""
        if call.caller is None or str(call) == "sts:GetCallerIdentity":
            return
        caller = call.caller
        try:
            principal = find_principal(caller.account_id, caller.region, caller.access_key, caller.session_token)
        except InvalidKey as error:
            raise _refusal_of_key(call.service, is_expired=isinstance(error, ExpiredKey)) from None
        if principal is None and str(call) == "sts:AssumeRole":  # a role need not trust the account
            principal = administrator(call.account_id, call.region)
        if principal is not None:
            self.check_as(principal, call)

    def check_as(self, principal: Principal, call: Call) -> None:
        """Raise `Refusal` unless the principal's policies allow the call."""
        for action, resource, context in needs_of(call):
            self.require(principal, action, resource, context, account_id=call.account_id, region=call.region)

    # calls that services make with a role

    def require(
        self,
        principal: Principal,
        action: str,
        resource: str,
        context: Mapping[str, Any] | None = None,
        *,
        account_id: str,
        region: str,
    ) -> None:
        """Raise `Refusal` unless the principal is allowed the action; both outcomes are recorded."""
        decision = self.decide(principal, action, resource, context or {}, account_id=account_id, region=region)
        if not decision.allowed:
            message = (
                f"User: {principal.session} is not authorized to perform: {action} on resource: {resource} "
                f"{decision.reason}"
            )
            raise Refusal(_denial(action), message, status=403 if action.startswith(("s3:", "lambda:")) else 400)

    def decide(
        self,
        principal: Principal,
        action: str,
        resource: str,
        context: Mapping[str, Any],
        *,
        account_id: str,
        region: str,
    ) -> Decision:
        owner, owner_region = _owner(resource, account_id, region)
        known = {
            "aws:PrincipalArn": principal.arn,
            "aws:PrincipalAccount": account_id,
            "aws:RequestedRegion": region,
            "aws:ResourceAccount": owner,
            "aws:SecureTransport": True,
            "aws:SourceIp": "127.0.0.1",
            "aws:ViaAWSService": False,
            "aws:CurrentTime": datetime.now(timezone.utc).isoformat(),
            "aws:EpochTime": int(time.time()),
            "aws:PrincipalIsAWSService": False,
            "aws:PrincipalType": principal.type,
            "aws:userid": principal.user_id,
            **{f"aws:PrincipalTag/{key}": value for key, value in principal.tags.items()},
        }
        if principal.source:
            known["aws:SourceIdentity"] = principal.source
        if principal.type == "User":
            known["aws:username"] = principal.arn.rpartition("/")[2]
        if action.startswith("kms:"):
            known["kms:CallerAccount"] = account_id
        request = Request(
            action=action,
            resource=resource,
            principal=principal.arn,
            session=principal.session,
            context={**known, **context},
            unknown=_unknown_keys(action),
        )
        decision = evaluate(
            request,
            Policies(
                identity=principal.identity,
                resource=resource_policy(resource, owner, owner_region),
                owner=owner,
                resource_decides=_is_decided_by_resource(action, resource),
                boundary=principal.boundary,
                session=principal.limits,
                organisation=self.organisation,
            ),
        )
        self._note(principal.arn, action, resource, context, decision)
        return decision

    def assume(
        self, role_arn: str, service: str, *, account_id: str, region: str, source: str = "", session: str = SESSION
    ) -> Principal:
        """A service's session of a role. Raises `Refusal` where the role is missing or does not trust the service."""
        role = assumable(role_arn, service, account_id=account_id, region=region, source=source)
        return principal_of_role(role, account_id, region, session=session)

    def environment(self, role_arn: str | None, service: str, *, account_id: str, region: str) -> dict[str, str]:
        """The environment with a role's credentials; without a role they are the administrator's.

        Raises `Refusal` where the role does not trust the service.
        """
        return environment_of_role(role_arn, region, SESSION, service)

    def environment_of_function(self, arn: str, account_id: str, region: str) -> dict[str, str]:
        """The credentials of a Lambda function; the administrator's where the function does not exist here."""
        role = role_of_function(arn, account_id, region)
        return self.environment(role, "lambda.amazonaws.com", account_id=account_id, region=region)

    def require_of_function(self, arn: str, needs: Iterable[tuple[str, str]], *, account_id: str, region: str) -> None:
        """Raise `Refusal` unless a Lambda function's role allows all needs; a function that is not here may."""
        role = role_of_function(arn, account_id, region)
        if role is None:
            return
        principal = self.assume(role, "lambda.amazonaws.com", account_id=account_id, region=region)
        for action, resource in needs:
            self.require(principal, action, resource, account_id=account_id, region=region)

    def _note(self, principal: str, action: str, resource: str, context: Mapping[str, Any], decision: Decision) -> None:
        if self.record is None:
            return
        line = {
            "principal": principal,
            "action": action,
            "resource": resource,
            "context": dict(context),
            "allowed": decision.allowed,
        }
        with self._lock, self.record.open("a") as file:
            file.write(json.dumps(line) + "\n")


def _is_decided_by_resource(action: str, resource: str) -> bool:
    """Whether the resource's own policy has to allow the action, as a role's trust and a key's policy have to.

    Actions of KMS on no key (CreateKey, ListAliases) or on an alias need identity-based policies alone (AWS KMS
    Developer Guide, "Actions, resources, and condition keys" and "Controlling access to aliases").
    """
    return action == "sts:AssumeRole" or (action.startswith("kms:") and ":key/" in resource)


_FOUND = frozenset(
    {
        *("aws:requesttag/", "aws:tagkeys", "cloudwatch:namespace", "iam:passedtoservice", "kms:calleraccount"),
        *("kms:encryptioncontext:", "kms:encryptioncontextkeys", "kms:grantisforawsresource", "kms:viaservice"),
        *("s3:prefix", "sts:externalid", "sts:rolesessionname", "sts:sourceidentity"),
    }
)
"""Actions' keys whose values `_context` and `Iam.decide` know; a key that they do not set is absent at AWS as well."""

_NEVER_FOUND = (
    *("aws:calledvia", "aws:calledviafirst", "aws:calledvialast", "aws:multifactorauthage"),
    *("aws:multifactorauthpresent", "aws:referer", "aws:resourcetag/", "aws:tokenissuetime", "aws:useragent"),
)
"""Global keys that AWS sends and that are not known here."""


@functools.cache
def _unknown_keys(action: str) -> tuple[str, ...]:
    """The keys that AWS may send with an action and whose values are not known here."""
    known = iam_actions.actions().get(action.lower())
    own = {re.sub(r"[$<{].*", "", each).lower() for each in known.keys} if known else set()
    return (*sorted(own - _FOUND), *_NEVER_FOUND)


def attach_policy(account_id: str, region: str, role: str, arn: str) -> None:
    """Attach a managed policy to a role; one that does not exist is refused in moto's words."""
    with suppress(KeyError):
        managed_policy(account_id, region, arn)
    iam_backends[account_id][get_partition(region)].attach_role_policy(arn, role)


def resource_policy(arn: str, account_id: str, region: str) -> Document | None:
    """The resource-based policy of a repository, bucket, KMS key, topic or role; None for any other resource."""
    parts = arn.split(":", 5)
    if len(parts) < 6:
        return None
    service, name = parts[2], parts[5]
    found: Any = None
    if service == "ecr":
        repository = ecr_backends[account_id][region].repositories.get(name.removeprefix("repository/"))
        found = repository.policy if repository else None
    elif service == "s3":
        bucket = s3_backends[account_id][get_partition(region)].buckets.get(name.split("/", 1)[0])
        found = (getattr(bucket, TEMPLATE_POLICY, None) or bucket.policy) if bucket else None
    elif service == "iam" and name.startswith("role/"):
        role = find_role(account_id, region, arn)
        found = role.assume_role_policy_document if role else None
    elif service == "kms":
        key = kms_backends[account_id][region].keys.get(name.removeprefix("key/"))
        found = _policy_with_grants(key) if key else None
    elif service == "sns":
        topic = sns_backends[account_id][region].topics.get(arn)
        found = topic.policy if topic else None
    document = document_of(found) if found else None
    # SNS's default policy allows services that send AWS:SourceOwner, and nobody else
    return None if document is None or document.get("Id") == "__default_policy_ID" else document


def _policy_with_grants(key: Key) -> Document:
    """A key's policy, with a statement for each operation of each grant (KMS developer guide, "Grants in KMS")."""
    policy = document_of(key.policy)
    granted = [
        _statement_of(grant, f"kms:{operation}") for grant in key.grants.values() for operation in grant.operations
    ]
    return {**policy, "Statement": [*policy["Statement"], *granted]} if granted else policy


def _statement_of(grant: Grant, action: str) -> dict[str, Any]:
    """One operation of a grant; its constraints hold only for operations with an encryption context."""
    has_context = any(each.startswith("kms:EncryptionContext:") for each in iam_actions.actions()[action.lower()].keys)
    constraints = (grant.constraints or {}) if has_context else {}
    exactly = constraints.get("EncryptionContextEquals", {})
    wanted = {**constraints.get("EncryptionContextSubset", {}), **exactly}
    condition = {
        **({"StringEquals": {f"kms:EncryptionContext:{key}": each for key, each in wanted.items()}} if wanted else {}),
        **({"ForAllValues:StringEquals": {"kms:EncryptionContextKeys": [*exactly]}} if exactly else {}),
    }
    kind = "Service" if "amazonaws.com" in grant.grantee_principal else "AWS"
    return {
        "Effect": "Allow",
        "Principal": {kind: grant.grantee_principal},
        "Action": action,
        "Resource": "*",
        "Condition": condition,
    }


def _owner(arn: str, account_id: str, region: str) -> tuple[str, str]:
    """The account and the region of a resource: those of the request, or of a repository that another account has here.

    Repositories of accounts that are not here, such as AWS's own, are everybody's.
    """
    parts = arn.split(":", 5)
    if len(parts) == 6 and parts[2] == "ecr" and parts[4] in ecr_backends:
        registry = ecr_backends[parts[4]][parts[3]]
        if parts[5].removeprefix("repository/") in registry.repositories:
            return parts[4], parts[3]
    return account_id, region


def _refusal_of_key(service: str, *, is_expired: bool) -> Refusal:
    """The refusal of a key that is not valid (each API reference, "Common Errors"; S3's and SNS's have other codes)."""
    by_query = service in ("cloudformation", "cloudwatch", "iam", "sns", "sts")
    if is_expired:
        code = "ExpiredToken" if by_query or service == "s3" else "ExpiredTokenException"
        return Refusal(code, "The security token included in the request is expired", status=403)
    if service == "s3":
        return Refusal(
            "InvalidAccessKeyId", "The AWS Access Key Id you provided does not exist in our records.", status=403
        )
    code = "InvalidClientTokenId" if by_query else "UnrecognizedClientException"
    return Refusal(code, "The security token included in the request is invalid.", status=403)


def _denial(action: str) -> str:
    """The service's error code of a refusal (each API reference, "Common Errors")."""
    prefix = action.split(":", 1)[0]
    return "AccessDenied" if prefix in ("s3", "cloudformation", "iam", "sts", "cloudwatch") else "AccessDeniedException"


# the permissions that a call needs

_PREFIXES = {"sagemaker-runtime": "sagemaker", "stepfunctions": "states"}

_OTHER_ACTIONS: Mapping[str, Sequence[str]] = {
    "lambda:Invoke": ("lambda:InvokeFunction",),
    "s3:AbortMultipartUpload": ("s3:AbortMultipartUpload",),
    "s3:CompleteMultipartUpload": ("s3:PutObject",),
    "s3:CopyObject": ("s3:PutObject",),
    "s3:CreateMultipartUpload": ("s3:PutObject",),
    "s3:DeleteObjects": ("s3:DeleteObject",),
    "s3:GetBucketEncryption": ("s3:GetEncryptionConfiguration",),
    "s3:GetBucketLifecycleConfiguration": ("s3:GetLifecycleConfiguration",),
    "s3:GetPublicAccessBlock": ("s3:GetBucketPublicAccessBlock",),
    "s3:HeadBucket": ("s3:ListBucket",),
    "s3:HeadObject": ("s3:GetObject",),
    "s3:ListBuckets": ("s3:ListAllMyBuckets",),
    "s3:ListMultipartUploads": ("s3:ListBucketMultipartUploads",),
    "s3:ListObjects": ("s3:ListBucket",),
    "s3:ListObjectsV2": ("s3:ListBucket",),
    "s3:ListParts": ("s3:ListMultipartUploadParts",),
    "s3:PutBucketEncryption": ("s3:PutEncryptionConfiguration",),
    "s3:PutBucketLifecycleConfiguration": ("s3:PutLifecycleConfiguration",),
    "s3:PutBucketNotificationConfiguration": ("s3:PutBucketNotification",),
    "s3:PutPublicAccessBlock": ("s3:PutBucketPublicAccessBlock",),
    "s3:UploadPart": ("s3:PutObject",),
    "s3:UploadPartCopy": ("s3:PutObject",),
}
"""Operations whose action has another name (Service Authorization Reference; S3 user guide, "Required permissions")."""

_PASSED: Mapping[str, tuple[str, str]] = {
    "cloudformation:CreateChangeSet": ("RoleARN", "cloudformation.amazonaws.com"),
    "cloudformation:CreateStack": ("RoleARN", "cloudformation.amazonaws.com"),
    "cloudformation:DeleteStack": ("RoleARN", "cloudformation.amazonaws.com"),
    "cloudformation:UpdateStack": ("RoleARN", "cloudformation.amazonaws.com"),
    "codebuild:CreateProject": ("serviceRole", "codebuild.amazonaws.com"),
    "codebuild:UpdateProject": ("serviceRole", "codebuild.amazonaws.com"),
    "lambda:CreateFunction": ("Role", "lambda.amazonaws.com"),
    "lambda:UpdateFunctionConfiguration": ("Role", "lambda.amazonaws.com"),
    "sagemaker:CreateEndpointConfig": ("ExecutionRoleArn", "sagemaker.amazonaws.com"),
    "sagemaker:CreateModel": ("ExecutionRoleArn", "sagemaker.amazonaws.com"),
    "sagemaker:CreateProcessingJob": ("RoleArn", "sagemaker.amazonaws.com"),
    "sagemaker:CreateTrainingJob": ("RoleArn", "sagemaker.amazonaws.com"),
    "scheduler:CreateSchedule": ("Target.RoleArn", "scheduler.amazonaws.com"),
    "scheduler:UpdateSchedule": ("Target.RoleArn", "scheduler.amazonaws.com"),
    "stepfunctions:CreateStateMachine": ("roleArn", "states.amazonaws.com"),
    "stepfunctions:UpdateStateMachine": ("roleArn", "states.amazonaws.com"),
}
"""Operations that pass a role to a service: the parameter, and the service that needs `iam:PassRole` for it."""

_ALIASES: Mapping[str, Sequence[str]] = {
    "Alias": ("AliasName",),
    "BucketName": ("Bucket",),
    "FunctionName": ("FunctionName",),
    "KeyId": ("KeyId", "TargetKeyId"),
    "LogGroupName": ("logGroupName", "logGroupIdentifier"),
    "ObjectName": ("Key",),
    "ParameterNameWithoutLeadingSlash": ("Name",),
    "PolicyNameWithPath": ("PolicyName",),
    "ProjectName": ("projectName", "name"),
    "RoleNameWithPath": ("RoleName",),
    "StateMachineName": ("name",),
    "TopicName": ("Name",),
}
"""Variables in the format of an ARN, and the request's parameters with their values where the names differ."""


def needs_of(call: Call) -> Iterator[Need]:
    """The permissions that a call needs."""
    name = f"{_PREFIXES.get(call.service, call.service)}:{call.operation}"
    context = _context(call)
    for action in _OTHER_ACTIONS.get(name, (name,)):
        for resource in resources_of(action, call):
            yield action, resource, context
    if str(call) == "sts:AssumeRole" and call.parameters.get("Tags"):
        yield "sts:TagSession", str(call.parameters["RoleArn"]), context
    if str(call) == "s3:CopyObject" and (source := call.parameters.get("CopySource")):
        yield "s3:GetObject", f"arn:{get_partition(call.region)}:s3:::{str(source).lstrip('/')}", {}
    if str(call) in ("cloudformation:CreateChangeSet", "cloudformation:CreateStack", "cloudformation:UpdateStack"):
        for name in _parameters_of_template(call):
            yield "ssm:GetParameters", lookups.arn_of(name, account_id=call.account_id, region=call.region), {}
    if str(call) in _PASSED:
        member, service = _PASSED[str(call)]
        role: Any = call.parameters
        for part in member.split("."):
            role = role.get(part) if isinstance(role, Mapping) else None
        if role:
            yield "iam:PassRole", str(role), {"iam:PassedToService": service}


def _parameters_of_template(call: Call) -> Iterator[str]:
    """The template's SSM parameters: CloudFormation reads them with the caller's permissions."""
    body = call.parameters.get("TemplateBody")
    if call.parameters.get("UsePreviousTemplate"):
        name = str(call.parameters.get("StackName", ""))
        stacks = cloudformation_backends[call.account_id][call.region].stacks.values()
        body = next((each.template for each in list(stacks) if name in (each.name, each.stack_id)), None)
    try:
        template = json.loads(body) if isinstance(body, str) else body or {}
    except ValueError:  # YAML, which the CDK does not write
        return
    given = {
        str(each.get("ParameterKey")): str(each["ParameterValue"])
        for each in call.parameters.get("Parameters") or ()
        if isinstance(each, Mapping) and each.get("ParameterValue") is not None
    }
    yield from lookups.names_in(template, given)


def resources_of(action: str, call: Call) -> list[str]:
    """The ARNs of the action's resources by the call's parameters; `*` where there are none."""
    known = iam_actions.actions().get(action.lower())
    if known is None or not known.resources:
        return ["*"]
    found: list[str] = []
    for parameters in _one_by_one(call.parameters):
        made = [_arn(kind, parameters, call) for kind in known.resources]
        found += [one for one in made if one is not None]
    return list(dict.fromkeys(found)) or ["*"]


_LISTS = {"Names": "Name", "repositoryNames": "repositoryName", "AlarmNames": "AlarmName"}
"""Parameters that name several resources, and the parameter that names one of them."""


def _one_by_one(parameters: Parameters) -> Iterator[Parameters]:
    """The parameters once for each named resource."""
    for several, one in _LISTS.items():
        if isinstance(named := parameters.get(several), list) and named:
            yield from ({**parameters, one: each} for each in named)
            return
    yield parameters


def _arn(kind: str, parameters: Parameters, call: Call) -> str | None:
    """The ARN of one resource type; None where the parameters do not name such a resource."""
    form = iam_actions.arns()[kind]
    for value in parameters.values():
        if isinstance(value, str) and value.startswith("arn:") and _fits(form, value):
            return value
    if kind == "kms:key" and (alias := str(parameters.get("KeyId", ""))).startswith("alias/"):
        parameters = {**parameters, "KeyId": kms_backends[call.account_id][call.region].get_key_id_from_alias(alias)}
    if kind == "cloudformation:stack":
        return _stack(str(parameters.get("StackName", "")), call)
    # optional resources of an action: an access point, or an object where the request has no key
    if kind in ("s3:accesspoint", "s3:accesspointobject") or (kind.startswith("s3:object") and "Key" not in parameters):
        return None
    given = {key.lower(): value for key, value in parameters.items() if isinstance(value, str)}
    account = str(parameters.get("registryId") or call.account_id)  # ECR's requests name another account's registry
    fixed = {"Partition": get_partition(call.region), "Region": call.region, "Account": account}

    def value_of(found: re.Match[str]) -> str:
        name = found[1]
        if name in fixed:
            return fixed[name]
        for each in (name, *_ALIASES.get(name, ())):
            if each.lower() in given:
                value = given[each.lower()].removeprefix("alias/" if name == "Alias" else "")
                return value.lstrip("/") if "Parameter" in name else value
        raise LookupError(name)

    try:
        made = re.sub(r"\$\{(\w+)\}", value_of, form)
    except LookupError:
        return None
    # SageMaker writes names in ARNs in lower case
    return made.lower() if kind.startswith("sagemaker:") else made


def _fits(form: str, arn: str) -> bool:
    pattern = "".join(
        ".+" if part.startswith("${") else re.escape(part) for part in re.split(r"(\$\{\w+\})", form) if part
    )
    return re.fullmatch(pattern.replace(r"::.+:", r"::[^:]*:"), arn) is not None


def _stack(name: str, call: Call) -> str | None:
    """A stack's ARN by its name; with `*` as the ID where the stack does not exist yet."""
    if name.startswith("arn:"):
        return name
    if not name:
        return None
    for stack in cloudformation_backends[call.account_id][call.region].stacks.values():
        if stack.name == name:
            return str(stack.stack_id)
    return f"arn:{get_partition(call.region)}:cloudformation:{call.region}:{call.account_id}:stack/{name}/*"


def _context(call: Call) -> dict[str, Any]:
    """The condition keys of a call."""
    given = call.parameters
    context: dict[str, Any] = {}
    if call.service == "s3" and "Prefix" in given:
        context["s3:prefix"] = given["Prefix"]
    elif call.service == "s3" and call.operation in ("ListObjects", "ListObjectsV2"):
        context["s3:prefix"] = ""
    if call.service == "cloudwatch" and "Namespace" in given:
        context["cloudwatch:namespace"] = given["Namespace"]
    if call.service == "kms" and "GranteePrincipal" in given:
        context["kms:GrantIsForAWSResource"] = False
    if call.service == "kms" and isinstance(of_data := given.get("EncryptionContext"), Mapping):
        context |= {f"kms:EncryptionContext:{key}": value for key, value in of_data.items()}
        context["kms:EncryptionContextKeys"] = list(of_data)
    if call.service == "sts":
        context |= {
            f"sts:{key}": given[key] for key in ("ExternalId", "RoleSessionName", "SourceIdentity") if key in given
        }
    tags = tags_of(given.get("Tags") or given.get("tags"))
    context |= {f"aws:RequestTag/{key}": value for key, value in tags.items()}
    return {**context, "aws:TagKeys": list(tags)} if tags else context


def role_of_function(arn: str, account_id: str, region: str) -> str | None:
    """The execution role of a Lambda function; None where the function does not exist here."""
    try:
        function = lambda_backends[account_id][region].get_function(arn)
    except Exception:  # moto raises several types of errors
        return None
    return str(function.role)
