"""Stacks: the resources of a template, and the operations that create, update and delete them.

moto 5.2.5 creates resources while resolving references, deletes an update's removed resources before it creates the new
ones, never replaces, never rolls back, and returns an HTTP error for a failed resource. Here, as in CloudFormation:

- events report each resource in the order of dependencies;
- a replacement is created first, its dependents are updated, and the old resource is deleted in the clean-up;
- a failure rolls back: a new stack's resources are deleted, and an existing stack returns to its old template;
- `DeletionPolicy` and `UpdateReplacePolicy` retain resources.
"""

from __future__ import annotations

import logging
import re
import secrets
import string
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any

from moto.cloudformation.exceptions import (
    CloudFormationError,
    ExportNotFound,
    UnformattedGetAttTemplateException,
    ValidationError,
)
from moto.cloudformation.models import CloudFormationBackend, Event, Stack
from moto.cloudformation.parsing import Export, OutputMap, ResourceMap
from moto.core.utils import camelcase_to_underscores

from extended_dlc.rehearsal.embedded import lookups, resource_schemas
from extended_dlc.rehearsal.embedded.identities import Principal
from extended_dlc.rehearsal.embedded.resource_table import ResourceTypes
from extended_dlc.rehearsal.embedded.resources import CustomResourceFailed, NestedStackFailed, ResourceFailed, Wish
from extended_dlc.rehearsal.embedded.shapes import REMEMBERED, Refusal, TemplateFault
from extended_dlc.rehearsal.embedded.stack_outputs import clean_json
from extended_dlc.rehearsal.embedded.template_forms import references_of

_log = logging.getLogger(__name__)

_NAME_LIMITS = {"AWS::IAM::Role": 64, "AWS::IAM::InstanceProfile": 128, "AWS::Logs::LogGroup": 255}
_NAME_LIMIT = 63

_KEPT = ("Retain", "RetainExceptOnCreate")

PRINCIPAL = "extended_dlc_principal"
"""The attribute of a stack with who makes the calls of its present operation, and of those of its nested stacks."""


@dataclass(kw_only=True)
class Resource:
    """A resource of a stack: its declaration and its model."""

    wish: Wish
    template: Mapping[str, Any]
    model: Any

    @property
    def logical_resource_id(self) -> str:
        return self.wish.logical_id

    @property
    def cf_resource_type(self) -> str:
        return self.wish.type

    @property
    def physical_resource_id(self) -> str:
        return str(getattr(self.model, "physical_resource_id", None) or self.wish.name)

    def get_cfn_attribute(self, name: str) -> Any:
        """The value of `Fn::GetAtt`: the model's attribute, or what else is known of it where moto lacks it.

        Raises `ValidationError` for an attribute that CloudFormation has not, either.
        """
        try:
            return self.model.get_cfn_attribute(name)
        except (AttributeError, NotImplementedError, UnformattedGetAttTemplateException):
            pass
        if name in self.wish.properties:
            return self.wish.properties[name]
        given, identifiers = resource_schemas.attributes_of(self.wish.type)
        if name not in given:
            message = f"Template error: resource {self.logical_resource_id} does not support attribute type {name}"
            raise ValidationError(message=f"{message} in Fn::GetAtt")
        if identifiers == (name,):
            return self.physical_resource_id
        known = getattr(self.model, camelcase_to_underscores(name), None)
        if isinstance(known, (str, int)):
            return str(known)
        _log.warning("%s.%s is not known: moto's model lacks it", self.logical_resource_id, name)
        return f"{REMEMBERED}{self.physical_resource_id}-{name}"


class Outputs(OutputMap):
    """The outputs of one template, as they were when its resources were made: in a deletion these go one by one."""

    @property
    def exports(self) -> list[Export]:
        """The exported outputs."""
        if self._exports is None:
            self._exports = super().exports
        return self._exports

    _exports: list[Export] | None = None


class Resources(ResourceMap):
    """The resources of one template. Unlike moto's map, reading a resource does not create it."""

    def __getitem__(self, key: str) -> Any:
        """An existing parameter, mapping, pseudo parameter or resource."""
        return self._parsed_resources[key]

    @property
    def resources(self) -> Iterable[str]:
        """The existing resources' logical IDs in the order of creation."""
        return [key for key, value in self._parsed_resources.items() if isinstance(value, Resource)]

    def __len__(self) -> int:
        return len(list(self.resources))

    def validate_outputs(self) -> None:
        """Disabled before the resources exist: moto looks up attributes of types that it does not know."""

    def parse_ssm_parameter(self, value: str, value_type: str) -> str:
        """The present value of the SSM parameter with this name."""
        found = lookups.read(value, account_id=self._account_id, region=self._region_name)
        return found.split(",") if "<List<" in value_type or "CommaDelimited" in value_type else found  # type: ignore[return-value]

    def put(self, resource: Resource) -> None:
        """Make a resource visible to the template's functions."""
        self._parsed_resources[resource.logical_resource_id] = resource

    def drop(self, logical_id: str) -> None:
        self._parsed_resources.pop(logical_id, None)

    def existing(self) -> dict[str, Resource]:
        """The resources by logical ID in the order of creation."""
        return {key: self._parsed_resources[key] for key in self.resources}

    def holds(self, condition: str | None) -> bool:
        """Whether a condition is true; no condition is true."""
        return condition is None or bool(self.lazy_condition_map[condition])


@dataclass
class _Failure(Exception):
    """A resource failed."""

    logical_id: str
    reason: str


@dataclass
class _Journal:
    """The changes of an update so far, for its rollback and its clean-up."""

    created: list[Resource] = field(default_factory=list)
    replaced: list[Resource] = field(default_factory=list)
    """The replaced resources."""

    updated: list[tuple[Resource, Resource]] = field(default_factory=list)
    """Pairs of the old and the new resource."""


class Operation:
    """One create, update or delete of a stack, in its own thread."""

    def __init__(
        self, backend: CloudFormationBackend, stack: Stack, types: ResourceTypes, principal: Principal | None
    ) -> None:
        self._backend = backend
        self._stack = stack
        self._types = types
        setattr(stack, PRINCIPAL, principal)
        self._principal = principal
        """Who makes the resources' calls: CloudFormation's role, or the caller; None for the administrator."""

    # the three operations

    def create(self, *, keep_failed: bool) -> None:
        """Create every resource of a new stack, or roll back."""
        self._set("CREATE_IN_PROGRESS", "User Initiated")
        resources: Resources = self._stack.resource_map  # type: ignore[assignment]  # `_new_map` made it
        journal = _Journal()
        try:
            self._apply(resources, {}, journal)
            self._publish(resources)
        except _Failure as failure:
            reason = self._whats_wrong(failure, "create")
            if keep_failed:
                self._set("CREATE_FAILED", reason)
                return
            self._set("ROLLBACK_IN_PROGRESS", f"{reason} Rollback requested by user.")
            failed = self._delete(reversed(journal.created), resources, rollback=True)
            self._set("ROLLBACK_FAILED" if failed else "ROLLBACK_COMPLETE", _failed_to_delete(failed))
            return
        self._set("CREATE_COMPLETE")

    def update(self, template: str, parameters: dict[str, Any], tags: dict[str, str] | None) -> None:
        """Update the stack to another template, or roll back."""
        self._set("UPDATE_IN_PROGRESS", "User Initiated")
        stack = self._stack
        before: Resources = stack.resource_map  # type: ignore[assignment]
        journal = _Journal()
        try:
            try:
                after = new_map(
                    self._backend,
                    stack,
                    Stack.parse_template(template),
                    parameters,
                    stack.tags if tags is None else tags,
                )
            except Exception as error:
                raise _Failure(stack.name, _message(error)) from error
            self._apply(after, before.existing(), journal)
            self._publish(after)
        except _Failure as failure:
            reason = self._whats_wrong(failure, "update")
            self._set("UPDATE_ROLLBACK_IN_PROGRESS", reason)
            self._roll_back(before, journal)
            return
        stack.resource_map, stack.template, stack.parameters = after, template, parameters
        stack._parse_template()
        stack.description = stack.template_dict.get("Description")
        stack.output_map = stack._create_output_map()
        if tags is not None:
            stack.tags = tags
        kept = after.existing()
        gone = [each for key, each in before.existing().items() if key not in kept]
        if journal.replaced or gone:
            self._set("UPDATE_COMPLETE_CLEANUP_IN_PROGRESS")
            obsolete = sorted([*gone, *journal.replaced], key=list(before.existing().values()).index, reverse=True)
            self._delete(
                obsolete, None, rollback=False, replaced={each.logical_resource_id for each in journal.replaced}
            )
        self._set("UPDATE_COMPLETE")

    def delete(self) -> None:
        """Delete every resource, and the stack."""
        stack = self._stack
        self._set("DELETE_IN_PROGRESS", "User Initiated")
        resources: Resources = stack.resource_map  # type: ignore[assignment]
        if used := self._exports_in_use(kept=()):
            self._set("DELETE_FAILED", used)
            return
        failed = self._delete(reversed(list(resources.existing().values())), resources, rollback=False)
        if failed:
            self._set("DELETE_FAILED", _failed_to_delete(failed))
            return
        for name in [each.name for each in self._backend.exports.values() if each.exporting_stack_id == stack.stack_id]:
            self._backend.exports.pop(name)
        # outputs of deleted resources cannot be resolved any more
        stack.output_map = OutputMap(resources, {}, stack.stack_id)
        stack.resource_map = new_map(self._backend, stack, {}, {}, {})
        self._set("DELETE_COMPLETE")
        self._backend.stacks.pop(stack.stack_id, None)
        self._backend.deleted_stacks[stack.stack_id] = stack

    # parts of the operations

    def _whats_wrong(self, failure: _Failure, verb: str) -> str:
        """The stack's status reason: the failed resource, or the error of the template as a whole."""
        if failure.logical_id == self._stack.name:
            return failure.reason
        return f"The following resource(s) failed to {verb}: [{failure.logical_id}]."

    def _apply(self, resources: Resources, before: Mapping[str, Resource], journal: _Journal) -> None:
        for logical_id in in_dependency_order(resources._resource_json_map):
            template = resources._resource_json_map[logical_id]
            if resources.holds(template.get("Condition")):
                resources.put(self._apply_one(resources, logical_id, template, before.get(logical_id), journal))

    def _apply_one(
        self,
        resources: Resources,
        logical_id: str,
        template: Mapping[str, Any],
        old: Resource | None,
        journal: _Journal,
    ) -> Resource:
        kind = self._types[template["Type"]]
        action, known = "CREATE", ""
        try:
            properties = self._properties(template, resources)
            name_property = kind.name_property()
            given = properties.get(name_property) if name_property else None
            if old is not None and old.wish.type == template["Type"]:
                action, known = "UPDATE", old.physical_resource_id
                changed = _changed(old.wish.properties, properties)
                if not changed:
                    return Resource(wish=old.wish, template=template, model=old.model)
                if not kind.replaces(changed):
                    wish = self._wish(logical_id, template, str(given or old.wish.name), properties)
                    self._event(logical_id, template, known, "UPDATE_IN_PROGRESS")
                    # recorded first, because a failed update may have changed something
                    journal.updated.append((old, old))
                    self._types.door.update(wish, self._principal)
                    new = Resource(
                        wish=wish, template=template, model=kind.update(wish, old.model, old.wish.properties)
                    )
                    journal.updated[-1] = (old, new)
                    self._event(logical_id, template, new.physical_resource_id, "UPDATE_COMPLETE")
                    return new
                if given is not None and given == old.wish.properties.get(name_property or ""):
                    raise ValidationError(
                        message="CloudFormation cannot update a stack when a custom-named resource requires replacing. "
                        f"Rename {given} and update the stack again."
                    )
                reason = "Requested update requires the creation of a new physical resource; hence creating one."
                self._event(logical_id, template, known, "UPDATE_IN_PROGRESS", reason)
            else:
                self._event(logical_id, template, "", "CREATE_IN_PROGRESS")
            name = str(given or self._new_name(logical_id, template["Type"], properties))
            wish = self._wish(logical_id, template, name, properties)
            self._types.door.create(wish, self._principal)
            try:
                new = Resource(wish=wish, template=template, model=kind.create(wish))
            except ResourceFailed as failure:
                journal.created.append(Resource(wish=wish, template=template, model=failure.model))
                raise
            journal.created.append(new)
            if old is not None:
                journal.replaced.append(old)
            self._event(logical_id, template, new.physical_resource_id, f"{action}_COMPLETE")
            return new
        except Exception as error:
            reason = _message(error)
            _log.info("%s %s: %s", logical_id, action, reason, exc_info=not isinstance(error, CloudFormationError))
            self._event(logical_id, template, known, f"{action}_FAILED", reason)
            raise _Failure(logical_id, reason) from error

    def _properties(self, template: Mapping[str, Any], resources: Resources) -> dict[str, Any]:
        """A resource's properties with all functions and dynamic references resolved."""
        cleaned = _without_no_value(clean_json(template.get("Properties", {}), resources)) or {}
        stack = self._stack
        found: dict[str, Any] = lookups.with_references_read(
            cleaned, account_id=stack.account_id, region=stack.region_name
        )
        return found

    def _roll_back(self, before: Resources, journal: _Journal) -> None:
        """Return to the previous template: revert updated resources, then delete created ones."""
        stack = self._stack
        for old, new in journal.updated:
            logical_id, template = old.logical_resource_id, old.template
            self._event(logical_id, template, old.physical_resource_id, "UPDATE_IN_PROGRESS")
            try:
                old.model = self._types[old.wish.type].update(old.wish, new.model, new.wish.properties)
            except Exception as error:
                self._event(logical_id, template, old.physical_resource_id, "UPDATE_FAILED", _message(error))
                reason = f"The following resource(s) failed to update: [{logical_id}]."
                self._set("UPDATE_ROLLBACK_FAILED", reason)
                return
            self._event(logical_id, template, old.physical_resource_id, "UPDATE_COMPLETE")
        self._set("UPDATE_ROLLBACK_COMPLETE_CLEANUP_IN_PROGRESS")
        self._delete(reversed(journal.created), None, rollback=True)
        stack.resource_map = before
        self._set("UPDATE_ROLLBACK_COMPLETE")

    def _delete(
        self,
        obsolete: Iterable[Resource],
        resources: Resources | None,
        *,
        rollback: bool,
        replaced: Iterable[str] = (),
    ) -> list[str]:
        """Delete resources in this order, and return the logical IDs of those that could not be deleted."""
        failed = []
        for each in obsolete:
            logical_id, template, known = each.logical_resource_id, each.template, each.physical_resource_id
            policy = template.get("UpdateReplacePolicy" if logical_id in replaced else "DeletionPolicy", "Delete")
            if policy in _KEPT and not (rollback and policy == "RetainExceptOnCreate"):
                self._event(logical_id, template, known, "DELETE_SKIPPED")
            else:
                self._event(logical_id, template, known, "DELETE_IN_PROGRESS")
                try:
                    self._types.door.delete(each.wish, self._principal)
                    self._types[each.wish.type].delete(each.wish, each.model)
                except Exception as error:
                    _log.info("%s DELETE: %s", logical_id, _message(error), exc_info=True)
                    if not _is_gone(error):
                        self._event(logical_id, template, known, "DELETE_FAILED", _message(error))
                        failed.append(logical_id)
                        continue
                self._event(logical_id, template, known, "DELETE_COMPLETE")
            if resources is not None:
                resources.drop(logical_id)
        return failed

    def _publish(self, resources: Resources) -> None:
        """Set the stack's exports; an output that cannot be resolved fails the operation."""
        stack = self._stack
        try:
            outputs = Outputs(resources, resources._template, stack.stack_id)
            for output in outputs:
                if resources.holds(resources._template["Outputs"][output].get("Condition")):
                    _ = outputs[output]
            exports = outputs.exports
            for export in exports:
                held = self._backend.exports.get(export.name)
                if held and held.exporting_stack_id != stack.stack_id:
                    raise ValidationError(message=f"Export with name {export.name} is already exported by stack")
            if used := self._exports_in_use(kept=[(export.name, export.value) for export in exports]):
                raise ValidationError(message=used)
        except Exception as error:
            raise _Failure(stack.name, _message(error)) from error
        stack.output_map = outputs
        for name in [each.name for each in self._backend.exports.values() if each.exporting_stack_id == stack.stack_id]:
            self._backend.exports.pop(name)
        for export in exports:
            self._backend.exports[export.name] = export

    def _exports_in_use(self, kept: Iterable[tuple[str, Any]]) -> str | None:
        """Why an export cannot be removed or changed: another stack imports it."""
        stack = self._stack
        going = {
            each.name
            for each in self._backend.exports.values()
            if each.exporting_stack_id == stack.stack_id and (each.name, each.value) not in kept
        }
        for other in self._backend.stacks.values():
            if other is not stack and (used := going & _imports(other.template_dict, other.resource_map)):
                return f"Export {sorted(used)[0]} cannot be deleted as it is in use by {other.name}"
        return None

    def _wish(self, logical_id: str, template: Mapping[str, Any], name: str, properties: dict[str, Any]) -> Wish:
        return Wish(
            account_id=self._stack.account_id,
            region=self._stack.region_name,
            stack_id=self._stack.stack_id,
            logical_id=logical_id,
            type=template["Type"],
            name=name,
            properties=properties,
        )

    def _new_name(self, logical_id: str, kind: str, properties: Mapping[str, Any]) -> str:
        """A physical name in CloudFormation's form, `Stack-Logical-RANDOM`, within the type's limit.

        A FIFO queue or topic has one that ends in `.fifo` (Amazon SQS API, CreateQueue; Amazon SNS API, CreateTopic).
        """
        alphabet = string.ascii_letters + string.digits
        suffix = "".join(secrets.choice(alphabet) for _ in range(12))
        if any(str(properties.get(each)).lower() == "true" for each in ("FifoQueue", "FifoTopic")):
            suffix += ".fifo"
        room = _NAME_LIMITS.get(kind, _NAME_LIMIT) - len(suffix) - 1
        stack = self._stack.name[: max(room - len(logical_id) - 1, room // 2)]
        name = f"{stack}-{logical_id}"[:room].rstrip("-") + f"-{suffix}"
        return name.lower() if kind in ("AWS::S3::Bucket", "AWS::ECR::Repository") else name

    def _set(self, status: str, reason: str | None = None) -> None:
        self._stack._add_stack_event(status, resource_status_reason=reason)
        self._append(self._stack.events.pop())
        self._stack.status = status
        self._stack.stack_status_reason = reason  # type: ignore[attr-defined]  # moto includes it in responses

    def _append(self, event: Event) -> None:
        """Add an event with a timestamp at least 1 ms after the previous one, because clients sort by it."""
        if self._stack.events:
            event.timestamp = max(event.timestamp, self._stack.events[-1].timestamp + timedelta(milliseconds=1))
        self._stack.events.append(event)

    def _event(
        self, logical_id: str, template: Mapping[str, Any], known: str, status: str, reason: str | None = None
    ) -> None:
        event = Event(
            stack_id=self._stack.stack_id,
            stack_name=self._stack.name,
            logical_resource_id=logical_id,
            physical_resource_id=known,
            resource_type=template["Type"],
            resource_status=status,
            resource_status_reason=reason,
            resource_properties=None,
        )
        self._append(event)


def new_map(
    backend: CloudFormationBackend,
    stack: Stack,
    template: dict[str, Any],
    parameters: dict[str, Any],
    tags: dict[str, str],
) -> Resources:
    """An empty map of a template's resources, with its parameters and conditions resolved."""
    resources = Resources(
        stack.stack_id,
        stack.name,
        parameters,
        tags,
        account_id=stack.account_id,
        region_name=stack.region_name,
        template=template,
        cross_stack_resources=backend.exports,
    )
    resources.load()
    return resources


def in_dependency_order(resources: Mapping[str, Any]) -> list[str]:
    """The logical IDs, each after everything that it refers to or depends on."""
    needs = {key: references(value, resources) for key, value in resources.items()}
    order: list[str] = []
    visiting: set[str] = set()

    def visit(key: str) -> None:
        if key in order:
            return
        if key in visiting:
            raise ValidationError(message=f"Circular dependency between resources: [{', '.join(sorted(visiting))}]")
        visiting.add(key)
        for each in sorted(needs[key]):
            visit(each)
        visiting.discard(key)
        order.append(key)

    for key in resources:
        visit(key)
    return order


def references(value: Any, resources: Collection[str]) -> set[str]:
    """Which of these logical IDs a part of a template, such as a resource, refers to or depends on."""
    depends = value.get("DependsOn", ()) if isinstance(value, Mapping) else ()
    named = {name for name, _ in references_of(value)} | {*([depends] if isinstance(depends, str) else depends)}
    return named & set(resources)


def _imports(value: Any, resources: ResourceMap) -> set[str]:
    """The names of the exports that a template imports."""
    if isinstance(value, Mapping):
        names = {str(clean_json(value["Fn::ImportValue"], resources))} if "Fn::ImportValue" in value else set()
        return names.union(*(_imports(each, resources) for each in value.values()))
    if isinstance(value, list):
        return set().union(*(_imports(each, resources) for each in value))
    return set()


def _without_no_value(value: Any) -> Any:
    """Drop values that refer to `AWS::NoValue`, which moto leaves in lists as None."""
    if isinstance(value, Mapping):
        return {key: _without_no_value(each) for key, each in value.items() if each is not None}
    return [_without_no_value(each) for each in value if each is not None] if isinstance(value, list) else value


def _changed(old: Mapping[str, Any], new: Mapping[str, Any]) -> set[str]:
    return {key for key in {*old, *new} if old.get(key) != new.get(key)}


def _failed_to_delete(failed: list[str]) -> str | None:
    return f"The following resource(s) failed to delete: [{', '.join(failed)}]." if failed else None


_GONE = re.compile(r"NotFound|NoSuch|MissingBucket|Could not find|does not exist|No [a-z ]+ found")
"""The error code or message of a service for a resource that does not exist."""


def _is_gone(error: Exception) -> bool:
    """Whether a deletion failed because the resource does not exist, which CloudFormation's contract allows."""
    code = getattr(error, "code", None) or getattr(error, "error_type", None) or type(error).__name__
    return bool(_GONE.search(f"{code} {_message(error)}")) and not isinstance(error, CustomResourceFailed)


def _message(error: BaseException) -> str:
    """An error as the status reason of a stack event."""
    if isinstance(error, KeyError):
        return f"Template error: {error} is not known"
    if isinstance(error, (CloudFormationError, ExportNotFound)):
        return error.message
    if isinstance(error, (CustomResourceFailed, NestedStackFailed, TemplateFault)):
        return str(error)
    text = getattr(error, "message", None) or str(error) or repr(error)
    denied = isinstance(error, Refusal) and error.code.startswith("AccessDenied")
    kind = "AccessDenied" if denied else "GeneralServiceException"
    return f'Resource handler returned message: "{text}" (HandlerErrorCode: {kind})'
