"""The interface of a CloudFormation resource type, the types that moto implements, and those that are only recorded."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

from moto.awslambda.models import lambda_backends
from moto.core.common_models import CloudFormationModel
from moto.utilities.utils import get_partition

from extended_dlc.facts.limits import most
from extended_dlc.rehearsal.embedded.resource_schemas import attributes_of
from extended_dlc.rehearsal.embedded.shapes import REMEMBERED

Properties = dict[str, Any]


@dataclass(frozen=True, kw_only=True)
class Wish:
    """One resource as its template declares it."""

    account_id: str
    region: str
    stack_id: str
    logical_id: str
    type: str
    name: str
    """The physical name: from the template, or generated."""

    properties: Properties
    """With all intrinsic functions resolved."""


class ResourceFailed(Exception):
    """A resource failed, but exists in part, so that a rollback must delete it."""

    def __init__(self, message: str, model: Any) -> None:
        super().__init__(message)
        self.message = message
        self.model = model


class NestedStackFailed(ResourceFailed):
    """A nested stack failed; CloudFormation says so in words of its own."""


class ResourceType(Protocol):
    """The interface of a resource type. A model is an object with `physical_resource_id` and `get_cfn_attribute`."""

    def name_property(self) -> str | None:
        """The property with the physical name."""

    def replaces(self, changed: set[str]) -> bool:
        """Whether a change of these properties replaces the resource."""

    def create(self, wish: Wish) -> Any:
        """Create the resource and return its model."""

    def update(self, wish: Wish, model: Any, old: Properties) -> Any:
        """Update the resource in place and return its model."""

    def delete(self, wish: Wish, model: Any) -> None:
        """Delete the resource."""


@dataclass
class Record:
    """A resource that is only recorded in its stack: moto lacks its service, or the rehearsal does not need it."""

    physical_resource_id: str
    properties: Properties
    data: Properties = field(default_factory=dict)

    def get_cfn_attribute(self, name: str) -> Any:
        """An attribute: what a handler returned, the property of that name, or the physical ID."""
        return self.data.get(name, self.properties.get(name, self.physical_resource_id))


class Recorded:
    """A type that moto does not implement. moto's CloudFormation skips it and references to it; here it is recorded."""

    def name_property(self) -> str | None:
        return None

    def replaces(self, changed: set[str]) -> bool:
        return False

    def create(self, wish: Wish) -> Any:
        """The record, with an ARN for policies and rules that name the resource; Ref is what identifies its type."""
        name, service = f"{REMEMBERED}{wish.name}", wish.type.split("::")[1].lower()
        arn = f"arn:{get_partition(wish.region)}:{service}:{wish.region}:{wish.account_id}:{name}"
        _, identifiers = attributes_of(wish.type)
        is_arn = len(identifiers) == 1 and identifiers[0].endswith("Arn")
        return Record(arn if is_arn else name, wish.properties, {"Arn": arn})

    def update(self, wish: Wish, model: Any, old: Properties) -> Any:
        return Record(model.physical_resource_id, wish.properties, model.data)

    def delete(self, wish: Wish, model: Any) -> None:
        """The stack drops its record."""


@dataclass(frozen=True)
class MotoType:
    """A type as moto implements it."""

    model: type[CloudFormationModel]
    remove: Callable[[Wish, Any], None] | None = None
    """Deletes a resource of a type that moto's model does not delete. Default: the model's own deletion."""

    def name_property(self) -> str | None:
        return self.model.cloudformation_name_type() or None

    def replaces(self, changed: set[str]) -> bool:
        """Only a new physical name replaces the resource; moto updates every other property in its own way."""
        name = self.name_property()
        return name is not None and name in changed

    def create(self, wish: Wish) -> Any:
        template = self._json(wish)
        if name := self.name_property():
            template["Properties"].setdefault(name, wish.name)  # some of moto's models read the name only here
        identity = {"LogicalId": wish.logical_id, "StackId": wish.stack_id, "ResourceType": wish.type}
        made = self.model.create_from_cloudformation_json(wish.name, template, wish.account_id, wish.region, **identity)
        if wish.type == "AWS::Lambda::Version":  # moto's has no ARN, which Ref is
            function = lambda_backends[wish.account_id][wish.region].get_function(wish.properties["FunctionName"])
            made.physical_resource_id = f"{function.function_arn.removesuffix(':$LATEST')}:{made.version}"
        return made

    def update(self, wish: Wish, model: Any, old: Properties) -> Any:
        """Update the resource in moto; where moto cannot, delete it and create it again under its name."""
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
        """Delete the resource in moto, whose models have either of two methods, or none."""
        if self.remove is not None:
            self.remove(wish, model)
            return
        if hasattr(model, "delete"):
            try:
                model.delete(wish.account_id, wish.region)
            except TypeError:  # some models have a `delete` with another signature and purpose
                pass
            else:
                return
        self.model.delete_from_cloudformation_json(
            getattr(model, "physical_resource_id", wish.name), self._json(wish), wish.account_id, wish.region
        )

    @staticmethod
    def _json(wish: Wish) -> dict[str, Any]:
        properties = copy.deepcopy(wish.properties)
        if wish.type == "AWS::KMS::Key":  # moto reads the policy of a key as text, whoever made the key
            properties["KeyPolicy"] = json.dumps(properties.get("KeyPolicy") or {"Statement": []})
        return {"Type": wish.type, "Properties": properties}


@dataclass(frozen=True, kw_only=True)
class Row:
    """A type implemented by functions of a service: a row of the table in `resource_table.py`."""

    named_by: str | None
    """The property with the physical name."""

    replaced_by: Collection[str] = ()
    """Properties whose change replaces the resource, beside the name."""

    only_changes: Collection[str] | None = None
    """The only properties that are updated in place; a change of any other replaces the resource."""

    make: Callable[[Wish], Any]
    change: Callable[[Wish, Any, Properties], Any] | None = None
    """None: `make` is called again, whose operation overwrites the resource."""

    remove: Callable[[Wish, Any], object]

    def name_property(self) -> str | None:
        return self.named_by

    def replaces(self, changed: set[str]) -> bool:
        """As the row says (CloudFormation resource reference, "Update requires: Replacement")."""
        if self.only_changes is not None:
            return bool(changed - set(self.only_changes))
        return self.named_by in changed or not changed.isdisjoint(self.replaced_by)

    def create(self, wish: Wish) -> Any:
        return self.make(wish)

    def update(self, wish: Wish, model: Any, old: Properties) -> Any:
        return self.make(wish) if self.change is None else self.change(wish, model, old)

    def delete(self, wish: Wish, model: Any) -> None:
        self.remove(wish, model)


CustomHandler = Callable[[str, Wish], Properties]
"""Stands in for a custom resource's Lambda function: `(request type, wish)` to the attributes that it returns."""


@dataclass(frozen=True)
class CustomResource:
    """A custom resource with a handler of this process in place of its Lambda function; only recorded without one."""

    handler: CustomHandler | None

    def name_property(self) -> str | None:
        return None

    def replaces(self, changed: set[str]) -> bool:
        return "ServiceToken" in changed

    def create(self, wish: Wish) -> Any:
        name = wish.name if self.handler is not None else f"{REMEMBERED}{wish.name}"
        return Record(name, wish.properties, self._run("Create", wish, name))

    def update(self, wish: Wish, model: Any, old: Properties) -> Any:
        known = model.physical_resource_id
        return Record(known, wish.properties, self._run("Update", wish, known))

    def delete(self, wish: Wish, model: Any) -> None:
        self._run("Delete", wish, model.physical_resource_id)

    def _run(self, kind: str, wish: Wish, physical_id: str) -> Properties:
        """The attributes that the handler returns. Raises `CustomResourceFailed` where it fails or returns too much."""
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
    """A custom resource's handler responded FAILED, or with a response that is larger than CloudFormation accepts."""


def _check_response(wish: Wish, physical_id: str, **answer: Any) -> None:
    """Raise `CustomResourceFailed` for a response, of success or failure, that is too large for CloudFormation."""
    response = {
        "StackId": wish.stack_id,
        "RequestId": "00000000-0000-0000-0000-000000000000",
        "LogicalResourceId": wish.logical_id,
        "PhysicalResourceId": physical_id,
        **answer,
    }
    # in the form of JavaScript's JSON.stringify, because the CDK's handlers are written in JavaScript
    written = json.dumps(response, ensure_ascii=False, separators=(",", ":"))
    if len(written.encode()) > most("custom_resource.response_bytes"):
        raise CustomResourceFailed("Response object is too long.")


def answer_of_call(call: Mapping[str, Any], answer: Any) -> Properties:
    """What the handler of an AwsCustomResource returns: the API's response, flat, and limited to `outputPaths`."""
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
