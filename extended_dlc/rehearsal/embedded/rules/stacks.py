"""Rules of CloudFormation: templates, capabilities and the protection of stacks."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from typing import Any

from moto.cloudformation.models import Stack, cloudformation_backends
from moto.cloudformation.utils import get_stack_from_s3_url
from moto.utilities.utils import get_partition

from extended_dlc.rehearsal.embedded import template_forms
from extended_dlc.rehearsal.embedded.calls import Parameters
from extended_dlc.rehearsal.embedded.rule import Check, Rule, World


def _of_template(find: Callable[[Mapping[str, Any]], str | None]) -> Check:
    """A check of the request's template, where it can be read."""

    def check(world: World, given: Parameters) -> str | None:
        template = template_of(world, given)
        return find(template) if template else None

    return check


_TEMPLATES = tuple(
    f"cloudformation:{name}"
    for name in ("CreateStack", "UpdateStack", "CreateChangeSet", "ValidateTemplate", "GetTemplateSummary")
)
"""The operations that read a template."""


_IDENTITIES = frozenset(
    f"AWS::IAM::{each}"
    for each in (
        *("AccessKey", "Group", "InstanceProfile", "ManagedPolicy", "Policy", "Role", "User", "UserToGroupAddition"),
    )
)
"""The types that CreateStack Capabilities lists."""


_NAMES = ("GroupName", "InstanceProfileName", "ManagedPolicyName", "RoleName", "UserName")


_MOST = {"Resources": 500, "Parameters": 200, "Outputs": 200, "Mappings": 200}


_TEMPLATE_BYTES = 51_200


def template_of(world: World, given: Parameters) -> Mapping[str, Any]:
    """The template of a request; empty where it has none or cannot be read, which the operation itself refuses."""
    text: Any = given.get("TemplateBody")
    if given.get("UsePreviousTemplate"):
        text = getattr(_stack(world, given), "template", None)
    try:
        if url := given.get("TemplateURL"):
            text = get_stack_from_s3_url(url, account_id=world.account_id, partition=get_partition(world.region))
        parsed = Stack.parse_template(text) if text else {}
    except Exception:  # moto raises those of two parsers
        return {}
    return parsed if isinstance(parsed, Mapping) else {}


def _stack(world: World, given: Parameters) -> Stack | None:
    stacks = cloudformation_backends[world.account_id][world.region].stacks.values()
    return next((each for each in list(stacks) if given.get("StackName") in (each.name, each.stack_id)), None)


def _capabilities(world: World, given: Parameters) -> str | None:
    return _unacknowledged(template_of(world, given), given.get("Capabilities") or ())


def _capabilities_of_change_set(world: World, given: Parameters) -> str | None:
    # CreateChangeSet takes what its execution refuses (aws/serverless-application-model#51)
    name, stack = given["ChangeSetName"], given.get("StackName")
    for each in list(cloudformation_backends[world.account_id][world.region].change_sets.values()):
        found = name == each.change_set_id or (
            name == each.change_set_name and stack in (None, each.stack.name, each.stack.stack_id)
        )
        if found:
            return _unacknowledged(each.template_dict, getattr(each, CAPABILITIES, ()))
    return None


CAPABILITIES = "extended_dlc_capabilities"
"""The attribute of a change set with the capabilities of its request."""


def capabilities_of(template: Mapping[str, Any]) -> list[str]:
    """The capability that a template needs for its identities, if it has any."""
    resources = template.get("Resources") or {}
    identities = [each for each in resources.values() if isinstance(each, Mapping) and each.get("Type") in _IDENTITIES]
    if any(set(_NAMES) & set(each.get("Properties") or ()) for each in identities):
        return ["CAPABILITY_NAMED_IAM"]
    return ["CAPABILITY_IAM"] if identities else []


def _unacknowledged(template: Mapping[str, Any], acknowledged: Collection[str]) -> str | None:
    needed = capabilities_of(template)
    if not needed or {*needed, "CAPABILITY_NAMED_IAM"} & set(acknowledged):
        return None
    return f"Requires capabilities : [{needed[0]}]"


def _template_size(world: World, given: Parameters) -> str | None:
    body = given.get("TemplateBody")
    if isinstance(body, str) and len(body.encode()) > _TEMPLATE_BYTES:
        return (
            f"1 validation error detected: Value '{body[:40]}...' at 'templateBody' failed to satisfy constraint: "
            f"Member must have length less than or equal to {_TEMPLATE_BYTES}"
        )
    template = template_of(world, given)
    for section, most in _MOST.items():
        count = len(template.get(section) or {})
        if count > most:
            kind = section.lower()
            return f"Template format error: Number of {kind}, {count}, is greater than maximum allowed, {most}"
    return None


def _protected(world: World, given: Parameters) -> str | None:
    stack = _stack(world, given)
    if stack is None or not stack.enable_termination_protection:
        return None
    return f"Stack [{stack.name}] cannot be deleted while TerminationProtection is enabled"


_STACKS = ("cloudformation:CreateStack", "cloudformation:UpdateStack", "cloudformation:CreateChangeSet")

RULES: tuple[Rule, ...] = (
    Rule(
        name="a template's resources",
        operations=_TEMPLATES,
        refuses="sections that there are not, no resource, a resource without a type, with one of another form or with "
        "one of AWS's that CloudFormation has in no region, a logical ID with other "
        "characters than letters and digits, attributes and deletion policies that there are not, and a DependsOn of "
        "what is not there",
        source="CloudFormation user guide, template sections, resource attributes; cfn-lint's copy of the registry: "
        "the types; serverless/serverless#2474, #4745, Versent/cfn-check#3, JulieElkinsAWS/CFtemplates#1, "
        "aws-samples/aws-iot-chat-example#1, aws/aws-cli#7226: the words of most",
        check=_of_template(template_forms.fault_of_sections),
        code="ValidationError",
    ),
    Rule(
        name="a template's parameters and form",
        operations=_TEMPLATES,
        refuses="another version, a description of more than 1,024 characters, a parameter of a type or with an "
        "attribute that there is not, a default that is no string, and null as a value",
        source="CloudFormation user guide, template anatomy, Parameters; CloudFormation template reference",
        check=_of_template(template_forms.fault_of_form),
        code="ValidationError",
    ),
    Rule(
        name="a template's outputs",
        operations=_TEMPLATES,
        refuses="an output without a value or with a list, a name with other characters than letters and digits, and "
        "an export without a name, with one twice, of other characters or of a resource",
        source="CloudFormation user guide, Outputs; aws-samples/startup-kit-templates#45, aws-cloudformation/"
        "cfn-lint#1632, compose-x/ecs_composex#444, aws/aws-cdk#28563: the words of exports",
        check=_of_template(template_forms.fault_of_outputs),
        code="ValidationError",
    ),
    Rule(
        name="a template's functions",
        operations=_TEMPLATES,
        refuses="an intrinsic function that there is not, an Fn::If without three arguments, an Fn::GetAtt or Fn::Join "
        "without two, an Fn::Select behind the end of its list, and a mapping or a key of one that is not there",
        source="CloudFormation template reference, intrinsic functions; aws/aws-cli#2746, cloudtools/troposphere#479, "
        "zalando-stups/senza, docs, awslabs/aws-cfn-template-flip#40: the words of most",
        check=_of_template(template_forms.fault_of_functions),
        code="ValidationError",
    ),
    Rule(
        name="a template's references",
        operations=_TEMPLATES,
        refuses="a reference to a parameter, a resource or a condition that is not there, and to a resource in the "
        "Conditions",
        source="CloudFormation template reference, Ref, Fn::GetAtt, Fn::Sub, Conditions; serverless/serverless#4745, "
        "aws-cloudformation/cfn-lint#99, aws/aws-cdk#26560: the words of most",
        check=_of_template(template_forms.fault_of_references),
        code="ValidationError",
    ),
    Rule(
        name="a stack's capabilities",
        operations=("cloudformation:CreateStack", "cloudformation:UpdateStack"),
        refuses="a template with identities without CAPABILITY_IAM, and with their names without CAPABILITY_NAMED_IAM",
        source="CloudFormation API reference, CreateStack Capabilities; envato/stack_master#138: the words",
        check=_capabilities,
        code="InsufficientCapabilitiesException",
    ),
    Rule(
        name="a change set's capabilities",
        operations=("cloudformation:ExecuteChangeSet",),
        refuses="a change set with identities that was created without the capability for them",
        source="aws/serverless-application-model#51: at ExecuteChangeSet, with the words",
        check=_capabilities_of_change_set,
        code="InsufficientCapabilitiesException",
    ),
    Rule(
        name="a template's size",
        operations=_STACKS,
        refuses="a TemplateBody of more than 51,200 bytes, more than 500 resources, and more than 200 parameters, "
        "outputs or mappings",
        source="CloudFormation API reference, CreateStack TemplateBody; CloudFormation user guide, quotas",
        check=_template_size,
        code="ValidationError",
    ),
    Rule(
        name="a stack's protection",
        operations=("cloudformation:DeleteStack",),
        refuses="the deletion of a stack whose termination protection is on",
        source="CloudFormation user guide, protect stacks from being deleted; ekristen/aws-nuke#821: the words",
        check=_protected,
        code="ValidationError",
    ),
)
