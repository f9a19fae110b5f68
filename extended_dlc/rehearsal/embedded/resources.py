"""How CloudFormation handles a resource type: what it asks of one, and types that moto knows or nobody does."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

from moto.core.common_models import CloudFormationModel

from extended_dlc.facts.limits import most

Properties = dict[str, Any]


@dataclass(frozen=True, kw_only=True)
class Wish:
    """What a template asks of one resource."""

    account_id: str
    region: str
    stack_id: str
    logical_id: str
    type: str
    name: str
    """The physical name: the template's, or one made for this resource."""

    properties: Properties
    """With every intrinsic function resolved."""


class ResourceFailed(Exception):
    """A resource could not be made, but something of it exists that a rollback must delete."""

    def __init__(self, message: str, model: Any) -> None:
        super().__init__(message)
        self.message = message
        self.model = model


class ResourceType(Protocol):
    """How CloudFormation handles one type. A model is whatever has `physical_resource_id` and `get_cfn_attribute`."""

    def name_property(self) -> str | None:
        """The property that gives the physical name."""

    def replaces(self, changed: set[str]) -> bool:
        """Whether a change of these properties needs another resource instead of an update."""

    def create(self, wish: Wish) -> Any:
        """Make it and return its model."""

    def update(self, wish: Wish, model: Any, old: Properties) -> Any:
        """Change it in place and return its model."""

    def delete(self, wish: Wish, model: Any) -> None:
        """Delete it."""


@dataclass
class Record:
    """A resource that exists in a stack's record only: moto has no such service, or needs none for the rehearsal."""

    physical_resource_id: str
    properties: Properties
    data: Properties = field(default_factory=dict)

    def get_cfn_attribute(self, name: str) -> Any:
        """An attribute: what a handler returned, a property of that name, or the physical id."""
        return self.data.get(name, self.properties.get(name, self.physical_resource_id))


class Recorded:
    """A type that moto does not know. CloudFormation in moto skips it with its references; here it is remembered.

    `AWS::S3::BucketPolicy` is among them on purpose: moto applies a Deny without its Condition, so that a policy which
    enforces TLS would lock every caller out.
    """

    def name_property(self) -> str | None:
        return None

    def replaces(self, changed: set[str]) -> bool:
        return False

    def create(self, wish: Wish) -> Any:
        return Record(wish.name, wish.properties)

    def update(self, wish: Wish, model: Any, old: Properties) -> Any:
        return Record(model.physical_resource_id, wish.properties)

    def delete(self, wish: Wish, model: Any) -> None:
        """Forget it, which the stack does."""


@dataclass(frozen=True)
class MotoType:
    """A type as moto implements it."""

    model: type[CloudFormationModel]

    def name_property(self) -> str | None:
        return self.model.cloudformation_name_type() or None

    def replaces(self, changed: set[str]) -> bool:
        """A new physical name means a new resource; all else moto updates in its own way."""
        name = self.name_property()
        return name is not None and name in changed

    def create(self, wish: Wish) -> Any:
        template = self._json(wish)
        if name := self.name_property():
            template["Properties"].setdefault(name, wish.name)  # some of moto's models look for it here alone
        identity = {"LogicalId": wish.logical_id, "StackId": wish.stack_id, "ResourceType": wish.type}
        return self.model.create_from_cloudformation_json(wish.name, template, wish.account_id, wish.region, **identity)

    def update(self, wish: Wish, model: Any, old: Properties) -> Any:
        """Update it in moto, or make it anew under its name where moto cannot."""
        if hasattr(self.model.update_from_cloudformation_json, "__isabstractmethod__"):
            self.delete(wish, model)
            return self.create(wish)
        updated = self.model.update_from_cloudformation_json(
            original_resource=model,
            new_resource_name=wish.name,
            cloudformation_json=self._json(wish),
            account_id=wish.account_id,
            region_name=wish.region,
        )
        return updated or model

    def delete(self, wish: Wish, model: Any) -> None:
        """Delete it in moto, which has two ways to say so."""
        if hasattr(model, "delete"):
            try:
                model.delete(wish.account_id, wish.region)
            except TypeError:  # some models have a `delete` of another signature, for another purpose
                pass
            else:
                return
        self.model.delete_from_cloudformation_json(
            getattr(model, "physical_resource_id", wish.name), self._json(wish), wish.account_id, wish.region
        )

    @staticmethod
    def _json(wish: Wish) -> dict[str, Any]:
        return {"Type": wish.type, "Properties": copy.deepcopy(wish.properties)}


@dataclass(frozen=True, kw_only=True)
class Row:
    """A type over a service's own functions: a row of the table in `resource_table.py`."""

    named_by: str | None
    """The property that gives the physical name."""

    replaced_by: Collection[str] = ()
    """The properties whose change needs another resource, beside the name."""

    only_changes: Collection[str] | None = None
    """Where it is given, every other change needs another resource."""

    make: Callable[[Wish], Any]
    change: Callable[[Wish, Any, Properties], Any] | None = None
    """None: made once more, by an operation that puts what there is in place of what there was."""

    remove: Callable[[Wish, Any], object]

    def name_property(self) -> str | None:
        """The property that gives the physical name."""
        return self.named_by

    def replaces(self, changed: set[str]) -> bool:
        """By the table (CloudFormation resource reference, "Update requires: Replacement")."""
        if self.only_changes is not None:
            return bool(changed - set(self.only_changes))
        return self.named_by in changed or not changed.isdisjoint(self.replaced_by)

    def create(self, wish: Wish) -> Any:
        return self.make(wish)

    def update(self, wish: Wish, model: Any, old: Properties) -> Any:
        """Change it, or make it once more."""
        return self.make(wish) if self.change is None else self.change(wish, model, old)

    def delete(self, wish: Wish, model: Any) -> None:
        self.remove(wish, model)


CustomHandler = Callable[[str, Wish], Properties]
"""Does what a custom resource's Lambda function does: `(request type, wish)` to the attributes it returns."""


@dataclass(frozen=True)
class CustomResource:
    """A custom resource, by a handler in this process in place of the Lambda function, or as a record without one."""

    handler: CustomHandler | None

    def name_property(self) -> str | None:
        return None

    def replaces(self, changed: set[str]) -> bool:
        return "ServiceToken" in changed

    def create(self, wish: Wish) -> Any:
        return Record(wish.name, wish.properties, self._run("Create", wish, wish.name))

    def update(self, wish: Wish, model: Any, old: Properties) -> Any:
        known = model.physical_resource_id
        return Record(known, wish.properties, self._run("Update", wish, known))

    def delete(self, wish: Wish, model: Any) -> None:
        self._run("Delete", wish, model.physical_resource_id)

    def _run(self, kind: str, wish: Wish, physical_id: str) -> Properties:
        """The attributes that the handler returns; CustomResourceFailed when it fails or answers too much."""
        if self.handler is None:
            return {}
        try:
            data = self.handler(kind, wish)
        except CustomResourceFailed as error:
            _check_response(wish, physical_id, Status="FAILED", Reason=str(error), Data={})
            raise CustomResourceFailed(
                f"Received response status [FAILED] from custom resource. Message returned: {error}"
            ) from None
        _check_response(wish, physical_id, Status="SUCCESS", Reason="SUCCESS", Data=data)
        return data


class CustomResourceFailed(Exception):
    """A custom resource's handler answered FAILED, or with more than CloudFormation takes."""


def _check_response(wish: Wish, physical_id: str, **answer: Any) -> None:
    """Refuse a response object that CloudFormation refuses, whether it tells a success or a failure."""
    response = {
        "StackId": wish.stack_id,
        "RequestId": "00000000-0000-0000-0000-000000000000",
        "LogicalResourceId": wish.logical_id,
        "PhysicalResourceId": physical_id,
        **answer,
    }
    # as JavaScript writes it, which the CDK's handlers are made of
    written = json.dumps(response, ensure_ascii=False, separators=(",", ":"))
    if len(written.encode()) > most("custom_resource.response_bytes"):
        raise CustomResourceFailed("Response object is too long.")


def answer_of_call(call: Mapping[str, Any], answer: Any) -> Properties:
    """What the CDK's handler of an AwsCustomResource returns of an API's answer: flat, and only the `outputPaths`."""
    flat = dict(_flat(answer))
    paths = call.get("outputPaths")
    return flat if paths is None else {key: each for key, each in flat.items() if key.startswith(tuple(paths))}


def _flat(value: Any, path: str = "") -> Iterator[tuple[str, Any]]:
    if isinstance(value, Mapping | list):
        pairs = value.items() if isinstance(value, Mapping) else enumerate(value)
        for key, each in pairs:
            yield from _flat(each, f"{path}.{key}" if path else str(key))
    else:
        yield path, value
