"""CloudFormation's API: CreateStack, UpdateStack, DeleteStack and the change sets, over `stacks`.

`install` changes moto 5.2.5 in this process. Apart from what `stacks` lists, it corrects these differences:

- moto's calls block until the resources exist. Here they return at once, except that each waits up to `GRACE` for its
  operation, because the CDK CLI polls only every 5 s;
- `UsePreviousValue` of a parameter that has only a default is an internal error;
- a change set does not list replacements, is found by its name alone, and an unknown one is an internal error;
- CloudTrail's LookupEvents, with which the CLI looks for the call behind a failure, is not implemented: here it returns
  no events.
"""

from __future__ import annotations

import logging
import re
import threading
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

from moto.cloudformation.exceptions import AlreadyExistsException, CloudFormationError, ValidationError
from moto.cloudformation.models import ChangeSet, CloudFormationBackend, Stack
from moto.cloudformation.responses import CloudFormationResponse
from moto.cloudformation.utils import generate_changeset_id, generate_stack_id
from moto.cloudtrail.responses import CloudTrailResponse
from moto.core.responses import ActionResult, EmptyResult

from extended_dlc.rehearsal.embedded import lookups, nested_stacks, stack_descriptions, stack_outputs
from extended_dlc.rehearsal.embedded.calls import Caller
from extended_dlc.rehearsal.embedded.identities import Principal, find_principal
from extended_dlc.rehearsal.embedded.nested_stacks import NestedStack
from extended_dlc.rehearsal.embedded.resource_table import ResourceTypes
from extended_dlc.rehearsal.embedded.rules.stacks import CAPABILITIES
from extended_dlc.rehearsal.embedded.shapes import Refusal
from extended_dlc.rehearsal.embedded.stacks import (
    PRINCIPAL,
    Operation,
    Resources,
    in_dependency_order,
    new_map,
    references,
)

GRACE = 2.0
"""Seconds for which a call waits for its operation to finish."""

_log = logging.getLogger(__name__)

_SETTLED = re.compile(r"(CREATE|UPDATE|IMPORT|UPDATE_ROLLBACK)_(COMPLETE|FAILED)")


class ChangeSetNotFound(CloudFormationError):
    """The change set does not exist."""

    code = "ChangeSetNotFound"


class Operations:
    """The API operations that create, update and delete stacks."""

    def __init__(self, types: ResourceTypes) -> None:
        nested = NestedStack(load=self._loaded, operate=self._nested)
        self._types = replace(types, defined={**types.defined, nested_stacks.TYPE: nested})

    def _loaded(self, backend: CloudFormationBackend, request: Mapping[str, Any], template: str) -> Stack:
        stack = self._new_stack(backend, request, template)
        self._load(backend, stack, template, _parameters(request, {}))
        return stack

    def _nested(self, backend: CloudFormationBackend, stack: Stack, parent: Stack) -> Operation:
        stack.role_arn = parent.role_arn
        return Operation(backend, stack, self._types, getattr(parent, PRINCIPAL, None))

    def create(
        self, backend: CloudFormationBackend, request: Mapping[str, Any], template: str, caller: Caller | None
    ) -> Stack:
        """CreateStack."""
        name = request["StackName"]
        if any(stack.name == name for stack in backend.stacks.values()):
            raise AlreadyExistsException(f"Stack [{name}] already exists")
        stack = self._loaded(backend, request, template)
        operation = self._operation(backend, stack, caller)
        keep = bool(request.get("DisableRollback")) or request.get("OnFailure") == "DO_NOTHING"
        backend.stacks[stack.stack_id] = stack
        self._run(stack, lambda: operation.create(keep_failed=keep))
        return stack

    def update(
        self, backend: CloudFormationBackend, request: Mapping[str, Any], template: str | None, caller: Caller | None
    ) -> Stack:
        """UpdateStack."""
        stack = backend.get_stack(request["StackName"])
        self._refuse_in_progress(stack)
        template = template or str(stack.template)
        parameters = _parameters(request, stack.parameters)
        tags = _tags(request)
        retagged = "Tags" in request and tags != stack.tags
        wanted = _check(backend, stack, template, parameters)
        if not (retagged or _differs(stack, template, wanted)):
            raise ValidationError(message="No updates are to be performed.")
        stack.role_arn = request.get("RoleARN") or stack.role_arn
        new_tags = tags if "Tags" in request else None
        operation = self._operation(backend, stack, caller)
        self._run(stack, lambda: operation.update(template, parameters, new_tags))
        return stack

    def delete(self, backend: CloudFormationBackend, name: str, role_arn: str | None, caller: Caller | None) -> None:
        """DeleteStack; succeeds where the stack does not exist."""
        stack = next((each for each in backend.stacks.values() if name in (each.name, each.stack_id)), None)
        if stack is None:
            return
        if stack.status.endswith("_IN_PROGRESS") and stack.status != "REVIEW_IN_PROGRESS":
            raise ValidationError(message=f"Stack:{stack.stack_id} is in {stack.status} state and can not be deleted.")
        stack.role_arn = role_arn or stack.role_arn
        operation = self._operation(backend, stack, caller)
        _drop_change_sets(backend, stack)
        self._run(stack, operation.delete)

    def create_change_set(
        self, backend: CloudFormationBackend, request: Mapping[str, Any], template: str | None
    ) -> ChangeSet:
        """CreateChangeSet; the change set is complete when this returns."""
        if role := request.get("RoleARN"):
            self._assume(role, backend)
        name, kind = request["StackName"], request.get("ChangeSetType", "UPDATE")
        stack = next((each for each in backend.stacks.values() if name in (each.name, each.stack_id)), None)
        if kind == "CREATE":
            if stack is not None and stack.status != "REVIEW_IN_PROGRESS":
                raise AlreadyExistsException(f"Stack [{name}] already exists and cannot be created again")
            if stack is None:
                stack = self._new_stack(backend, request, {})
                stack.status = "REVIEW_IN_PROGRESS"
                stack._add_stack_event("REVIEW_IN_PROGRESS", resource_status_reason="User Initiated")
                stack.resource_map = new_map(backend, stack, {}, {}, {})
                backend.stacks[stack.stack_id] = stack
        elif stack is None:
            raise ValidationError(name)
        else:
            self._refuse_in_progress(stack)
        template = template or str(stack.template)
        parameters = _parameters(request, stack.parameters)
        change_set = ChangeSet(
            change_set_type=kind,
            change_set_id=generate_changeset_id(request["ChangeSetName"], backend.region_name, backend.account_id),
            change_set_name=request["ChangeSetName"],
            stack=stack,
            template=template,
            parameters=parameters,
            description=request.get("Description", ""),
            notification_arns=request.get("NotificationARNs", []),
            tags=_tags(request),
            role_arn=request.get("RoleARN"),
        )
        setattr(change_set, CAPABILITIES, tuple(request.get("Capabilities") or ()))
        wanted = _check(backend, stack, template, parameters)
        retagged = "Tags" in request and change_set.tags != stack.tags
        if kind == "UPDATE" and not (retagged or _differs(stack, template, wanted)):
            change_set.status, change_set.execution_status = "FAILED", "UNAVAILABLE"
            change_set.status_reason = (
                "The submitted information didn't contain changes. Submit different information to create a change set."
            )
        else:
            change_set.status, change_set.execution_status = "CREATE_COMPLETE", "AVAILABLE"
            change_set.changes = self._changes(stack, change_set.template_dict, _moved(stack, wanted))
        backend.change_sets[change_set.change_set_id] = change_set
        return change_set

    def execute_change_set(
        self, backend: CloudFormationBackend, name: str, stack_name: str | None, caller: Caller | None
    ) -> None:
        """ExecuteChangeSet."""
        change_set = find_change_set(backend, name, stack_name)
        stack = change_set.stack
        if change_set.execution_status != "AVAILABLE":
            raise ValidationError(message=f"ChangeSet [{name}] cannot be executed in its current status.")
        stack.role_arn = change_set.role_arn or stack.role_arn
        operation = self._operation(backend, stack, caller)
        template, parameters, tags = change_set.template, change_set.parameters, change_set.tags
        if change_set.change_set_type == "CREATE":
            stack.tags = tags or {}
            self._load(backend, stack, template, parameters)
            self._run(stack, lambda: operation.create(keep_failed=False))
        else:
            self._refuse_in_progress(stack)
            self._run(stack, lambda: operation.update(template, parameters, tags))
        change_set.execution_status = "EXECUTE_COMPLETE"
        _drop_change_sets(backend, stack)

    def _changes(self, stack: Stack, template: Mapping[str, Any], moved: set[str]) -> list[Any]:
        """The change set's changes of resources and properties, as DescribeChangeSet returns them.

        `moved` are the parameters with another value.
        """
        resources: Resources = stack.resource_map  # type: ignore[assignment]  # `new_map` made it
        existing, wanted = resources.existing(), template.get("Resources", {})
        replaced: set[str] = set()
        changes = []
        for logical_id in in_dependency_order(wanted):
            new, old = wanted[logical_id], existing.get(logical_id)
            change = {"LogicalResourceId": logical_id, "ResourceType": new["Type"]}
            if old is None:
                changes.append({**change, "Action": "Add"})
                continue
            before, after = old.template.get("Properties", {}), new.get("Properties", {})
            changed = {key for key in {*before, *after} if before.get(key) != after.get(key)}
            by_parameter = {key for key, value in after.items() if references(value, moved)} - changed
            changed |= by_parameter
            carried = {key for key, value in after.items() if references(value, wanted) & replaced} - changed
            kind = self._types[new["Type"]]
            if not changed and not carried:
                continue
            if kind.replaces(changed | carried):
                replaced.add(logical_id)
            details = [
                {
                    "Target": {
                        "Attribute": "Properties",
                        "Name": key,
                        "RequiresRecreation": "Always" if kind.replaces({key}) else "Never",
                    },
                    "Evaluation": "Static" if key in changed else "Dynamic",
                    "ChangeSource": (
                        "ParameterReference"
                        if key in by_parameter
                        else "DirectModification"
                        if key in changed
                        else "ResourceAttribute"
                    ),
                }
                for key in sorted(changed | carried)
            ]
            certainly = "True" if kind.replaces(changed) else "Conditional"
            change |= {
                "Action": "Modify",
                "PhysicalResourceId": old.physical_resource_id,
                "Replacement": certainly if logical_id in replaced else "False",
                "Scope": ["Properties"],
                "Details": details,
            }
            changes.append(change)
        gone = [each for key, each in existing.items() if key not in wanted]
        return [
            *changes,
            *(
                {
                    "Action": "Remove",
                    "LogicalResourceId": each.logical_resource_id,
                    "PhysicalResourceId": each.physical_resource_id,
                    "ResourceType": each.cf_resource_type,
                }
                for each in gone
            ),
        ]

    def _operation(self, backend: CloudFormationBackend, stack: Stack, caller: Caller | None) -> Operation:
        """An operation as the stack's role, or as the caller where it has none."""
        if stack.role_arn:
            principal: Principal | None = self._assume(stack.role_arn, backend)
        else:
            principal = (
                None
                if caller is None
                else find_principal(caller.account_id, caller.region, caller.access_key, caller.session_token)
            )
        return Operation(backend, stack, self._types, principal)

    def _assume(self, role_arn: str, backend: CloudFormationBackend) -> Principal:
        """CloudFormation's session of a role."""
        account_id, region = backend.account_id, backend.region_name
        try:
            return self._types.door.iam.assume(
                role_arn,
                "cloudformation.amazonaws.com",
                account_id=account_id,
                region=region,
                session="AWSCloudFormation",
            )
        except Refusal:
            raise ValidationError(message=f"Role {role_arn} is invalid or cannot be assumed") from None

    @staticmethod
    def _new_stack(backend: CloudFormationBackend, request: Mapping[str, Any], template: str | dict[str, Any]) -> Stack:
        name = request["StackName"]
        if not re.fullmatch(r"[a-zA-Z][-a-zA-Z0-9]{0,127}", name):
            raise ValidationError(
                message=f"1 validation error detected: Value '{name}' at 'stackName' failed to satisfy constraint: "
                "Member must satisfy regular expression pattern: [a-zA-Z][-a-zA-Z0-9]*"
            )
        stack = Stack(  # type: ignore[abstract]  # moto leaves abstract methods in all its models
            stack_id=generate_stack_id(name, backend.region_name, backend.account_id),
            name=name,
            template={},
            parameters={},
            account_id=backend.account_id,
            region_name=backend.region_name,
            notification_arns=request.get("NotificationARNs", []),
            tags=_tags(request),
            role_arn=request.get("RoleARN"),
            enable_termination_protection=request.get("EnableTerminationProtection"),
        )
        stack.timeout_in_minutes = request.get("TimeoutInMinutes")
        stack.policy = request.get("StackPolicyBody") or ""
        stack.drift_information = {"StackDriftStatus": stack_descriptions.NOT_DRIFTED}  # type: ignore[attr-defined]
        return stack

    @staticmethod
    def _load(backend: CloudFormationBackend, stack: Stack, template: str, parameters: dict[str, Any]) -> None:
        _check(backend, stack, template, parameters)
        stack.template, stack.parameters = template, parameters
        stack._parse_template()
        stack.description = stack.template_dict.get("Description")
        in_dependency_order(stack.template_dict.get("Resources", {}))
        stack.resource_map = new_map(backend, stack, stack.template_dict, parameters, stack.tags)

    @staticmethod
    def _refuse_in_progress(stack: Stack) -> None:
        if not _SETTLED.fullmatch(stack.status):
            raise ValidationError(message=f"Stack:{stack.stack_id} is in {stack.status} state and can not be updated.")

    @staticmethod
    def _run(stack: Stack, work: Callable[[], None]) -> None:
        def run() -> None:
            try:
                work()
            except Exception as error:  # an unexpected error must end the operation, or clients would wait forever
                _log.exception("stack %s", stack.name)
                kind = stack.status.split("_", 1)[0]
                stack.status = {"CREATE": "CREATE_FAILED", "DELETE": "DELETE_FAILED"}.get(
                    kind, "UPDATE_ROLLBACK_FAILED"
                )
                stack._add_stack_event(stack.status, resource_status_reason=f"Internal failure: {error!r}")

        stack.status = stack.status.replace("REVIEW_IN_PROGRESS", "CREATE_IN_PROGRESS")
        thread = threading.Thread(target=run, name=f"stack {stack.name}", daemon=True)
        thread.start()
        thread.join(GRACE)


def _differs(stack: Stack, template: str, wanted: Resources) -> bool:
    """Whether a template, a parameter, or what an SSM-typed parameter resolves to, is another than the stack's."""
    return not stack.has_template(template) or bool(_moved(stack, wanted))


def _moved(stack: Stack, wanted: Resources) -> set[str]:
    """The parameters whose resolved value is another than in the stack."""
    before, after = stack.resource_map.resolved_parameters, wanted.resolved_parameters
    return {key for key in {*before, *after} if before.get(key) != after.get(key)}


def _check(backend: CloudFormationBackend, stack: Stack, template: str, parameters: Mapping[str, Any]) -> Resources:
    """The template's map of resources, none of them created.

    Refuses invalid parameters, and references to resources whose condition is false.
    """
    parsed = Stack.parse_template(template)
    declared = parsed.get("Parameters", {})
    if absent := [key for key, each in declared.items() if "Default" not in each and key not in parameters]:
        raise ValidationError(message=f"Parameters: [{', '.join(absent)}] must have values")
    if unknown := [key for key in parameters if key not in declared]:
        raise ValidationError(message=f"Parameters: [{', '.join(unknown)}] do not exist in the template")
    for key, each in declared.items():
        given = parameters.get(key, each.get("Default"))
        if fault := _fault_of_parameter(each, str(given)):
            raise ValidationError(message=f"Parameter '{key}' must {fault}")
    resources = parsed.get("Resources", {})
    known = new_map(backend, stack, parsed, dict(parameters), stack.tags)
    left_out = {key: each for key, each in resources.items() if not known.holds(each.get("Condition"))}
    used = {"Resources": "Properties", "Outputs": "Value"}
    for section, member in used.items():
        for each in parsed.get(section, {}).values():
            value = _taken(each.get(member), known.holds) if known.holds(each.get("Condition")) else None
            if gone := references(value, left_out):
                raise ValidationError(
                    message=f"Unresolved resource dependencies [{', '.join(sorted(gone))}] in the {section} block of "
                    "the template"
                )
    return known


def _fault_of_parameter(declared: Mapping[str, Any], given: str) -> str | None:
    """What a parameter's value must be and is not (CloudFormation template reference, Parameters)."""
    allowed = [str(each).lower() if isinstance(each, bool) else str(each) for each in declared.get("AllowedValues", ())]
    if allowed and given not in allowed:
        return "be one of AllowedValues"
    kind, pattern = declared.get("Type"), declared.get("AllowedPattern")
    if kind == "String":
        if len(given) < int(declared.get("MinLength", 0)):
            return f"contain at least {declared['MinLength']} characters"
        if len(given) > int(declared.get("MaxLength", len(given))):
            return f"contain at most {declared['MaxLength']} characters"
        return f"match pattern {pattern}" if pattern and not re.fullmatch(pattern, given) else None
    return _fault_of_number(declared, given) if kind == "Number" else None


def _fault_of_number(declared: Mapping[str, Any], given: str) -> str | None:
    try:
        number = float(given)
    except ValueError:
        return "be a number"
    if number < float(declared.get("MinValue", number)):
        return f"be a number not less than {declared['MinValue']}"
    if number > float(declared.get("MaxValue", number)):
        return f"be a number not greater than {declared['MaxValue']}"
    return None


def _taken(value: Any, holds: Callable[[str], bool]) -> Any:
    """The value with each `Fn::If` replaced by the branch taken: references in the other branch are no dependencies."""
    if isinstance(value, Mapping):
        if set(value) == {"Fn::If"}:
            condition, yes, no = value["Fn::If"]
            return _taken(yes if holds(condition) else no, holds)
        return {key: _taken(each, holds) for key, each in value.items()}
    return [_taken(each, holds) for each in value] if isinstance(value, list) else value


def find_change_set(backend: CloudFormationBackend, name: str, stack_name: str | None) -> ChangeSet:
    """A change set by its ARN, or by its name and its stack's name or ID."""
    if name in backend.change_sets:
        return backend.change_sets[name]
    for change_set in backend.change_sets.values():
        owner = change_set.stack
        if change_set.change_set_name == name and stack_name in (None, owner.name, owner.stack_id):
            return change_set
    raise ChangeSetNotFound(f"ChangeSet [{name}] does not exist")


def _drop_change_sets(backend: CloudFormationBackend, stack: Stack) -> None:
    """A stack's change sets are deleted with it, and when one is executed: the next stack may reuse their names."""
    for each in [key for key, other in backend.change_sets.items() if other.stack is stack]:
        del backend.change_sets[each]


def _parameters(request: Mapping[str, Any], previous: Mapping[str, Any]) -> dict[str, Any]:
    """The parameters of the request. With UsePreviousValue a parameter keeps its value, or the template's default."""
    given = {}
    for each in request.get("Parameters") or ():
        key = each["ParameterKey"]
        if each.get("UsePreviousValue") and each.get("ParameterValue"):
            raise ValidationError(
                message=f"Invalid input for parameter key {key}. Cannot specify usePreviousValue as true and non empty "
                "value for a parameter"
            )
        if not each.get("UsePreviousValue"):
            given[key] = each.get("ParameterValue", "")
        elif key in previous:
            given[key] = previous[key]
    return given


def _tags(request: Mapping[str, Any]) -> dict[str, str]:
    return {each["Key"]: each["Value"] for each in request.get("Tags") or ()}


def install(operations: Operations) -> None:
    """Change moto's CloudFormation in this process."""
    lookups.install()
    stack_outputs.install()
    stack_descriptions.install()

    def caller_of(self: CloudFormationResponse) -> Caller | None:
        token = self.headers.get("X-Amz-Security-Token")
        signed = {"HTTP_AUTHORIZATION": self.headers.get("Authorization", "")}
        return Caller.of(signed | ({"HTTP_X_AMZ_SECURITY_TOKEN": token} if token else {}))

    def template_of(self: CloudFormationResponse) -> str | None:
        if self._get_param("UsePreviousTemplate"):
            if self._get_param("TemplateBody") or self._get_param("TemplateURL"):
                raise ValidationError(
                    message="You cannot specify both usePreviousTemplate and Template Body/Template URL."
                )
            return None
        if url := self._get_param("TemplateURL"):
            return self._get_stack_from_s3_url(url)
        body: str | None = self._get_param("TemplateBody")
        if not body:
            raise ValidationError(message="Either Template URL or Template Body must be specified.")
        return body

    def create_stack(self: CloudFormationResponse) -> ActionResult:
        template = template_of(self) or ""
        stack = operations.create(self.cloudformation_backend, self._get_params(), template, caller_of(self))
        return ActionResult({"StackId": stack.stack_id})

    def update_stack(self: CloudFormationResponse) -> ActionResult:
        template = template_of(self)
        stack = operations.update(self.cloudformation_backend, self._get_params(), template, caller_of(self))
        return ActionResult({"StackId": stack.stack_id})

    def delete_stack(self: CloudFormationResponse) -> ActionResult:
        name, role = self._get_param("StackName"), self._get_param("RoleARN")
        operations.delete(self.cloudformation_backend, name, role, caller_of(self))
        return EmptyResult()

    def create_change_set(self: CloudFormationResponse) -> ActionResult:
        template = template_of(self)
        change_set = operations.create_change_set(self.cloudformation_backend, self._get_params(), template)
        return ActionResult({"Id": change_set.change_set_id, "StackId": change_set.stack_id})

    def describe_change_set(self: CloudFormationResponse) -> ActionResult:
        name, stack = self._get_param("ChangeSetName"), self._get_param("StackName")
        return ActionResult(find_change_set(self.cloudformation_backend, name, stack))

    def delete_change_set(self: CloudFormationResponse) -> ActionResult:
        backend = self.cloudformation_backend
        try:
            found = find_change_set(backend, self._get_param("ChangeSetName"), self._get_param("StackName"))
        except ChangeSetNotFound:
            return EmptyResult()
        del backend.change_sets[found.change_set_id]
        return EmptyResult()

    def execute_change_set(self: CloudFormationResponse) -> ActionResult:
        name, stack = self._get_param("ChangeSetName"), self._get_param("StackName")
        operations.execute_change_set(self.cloudformation_backend, name, stack, caller_of(self))
        return EmptyResult()

    def lookup_events(self: CloudTrailResponse) -> str:
        return '{"Events": []}'

    setattr(CloudTrailResponse, "lookup_events", lookup_events)  # noqa: B010 - mypy refuses the plain assignment
    for operation in (
        create_stack,
        update_stack,
        delete_stack,
        create_change_set,
        describe_change_set,
        delete_change_set,
        execute_change_set,
    ):
        setattr(CloudFormationResponse, operation.__name__, operation)
