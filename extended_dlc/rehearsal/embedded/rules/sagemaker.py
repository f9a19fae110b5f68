"""Rules of several of SageMaker's operations: the execution role and the tags of what is created."""

from __future__ import annotations

from extended_dlc.rehearsal.embedded.calls import Parameters
from extended_dlc.rehearsal.embedded.rule import API, Rule, World


def _role(world: World, given: Parameters) -> str | None:
    arn = given.get("ExecutionRoleArn") or given.get("RoleArn")
    if not arn or world.trusts(arn, "sagemaker.amazonaws.com"):
        return None
    return (
        f"Could not assume role {arn}. Please ensure that the role exists and allows principal "
        "'sagemaker.amazonaws.com' to assume the role."
    )


def _tags(world: World, given: Parameters) -> str | None:
    keys = [each["Key"] for each in given.get("Tags", ())]
    if twice := sorted({each for each in keys if keys.count(each) > 1}):
        return f"Tag keys must be unique per resource: {', '.join(twice)}."
    if reserved := [each for each in keys if each.lower().startswith("aws:")]:
        return f"The tag key {reserved[0]} is invalid: keys that begin with aws: are reserved."
    return None


_TAGGED = (
    "AddTags",
    "CreateEndpoint",
    "CreateEndpointConfig",
    "CreateInferenceComponent",
    "CreateModel",
    "CreateTrainingJob",
)

RULES: tuple[Rule, ...] = (
    Rule(
        name="role exists",
        operations=("sagemaker:CreateModel", "sagemaker:CreateEndpointConfig", "sagemaker:CreateTrainingJob"),
        refuses="an execution role that the account does not have (yet), or that does not trust SageMaker",
        source="hashicorp/terraform-provider-aws, internal/service/sagemaker: it repeats on 'Could not assume role'",
        check=_role,
    ),
    Rule(
        name="tags",
        operations=tuple(f"sagemaker:{each}" for each in _TAGGED),
        refuses="a tag's key twice, and one that begins with aws:",
        source=API + "Tag Key; AWS General Reference, tag naming limits and requirements",
        check=_tags,
        own_words=True,
    ),
)
