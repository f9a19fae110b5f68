"""Failures on request, each of which happens in real accounts without a request of the deployment.

They are options of `extended-dlc rehearse`, and can be changed while the embedded AWS runs: `POST /_embedded/scenarios`
with a JSON object of these fields; `DELETE` resets all of them. `GET` has them with `met`: how often each took effect.
"""

from __future__ import annotations

import copy
import json
import threading
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from typing import Any

from werkzeug.wrappers import Request, Response

ROUTE = "/_embedded/scenarios"


@dataclass(kw_only=True)
class Scenarios:
    """The failures that are switched on."""

    silent_rollbacks: bool = False
    """A failed update ends InService with the previous configuration and without a FailureReason."""

    shortages: list[str] = field(default_factory=list)
    """Instance types without capacity: an endpoint fails unless its variant has an instance pool with another type."""

    quotas: dict[str, int] = field(default_factory=dict)
    """Instance type to the account's quota for endpoints; a type that is missing has no limit."""

    throttled: dict[str, int] = field(default_factory=dict)
    """Operation, such as `sagemaker:DescribeEndpoint`, to the number of its next calls that are throttled."""

    role_seconds: float = 0.0
    """For how many seconds after its creation a role cannot be assumed by services."""

    container_seconds: float = 0.0
    """After how many seconds in service an endpoint's container ends, once each."""

    @classmethod
    def of(cls, asked: Mapping[str, Any]) -> Scenarios:
        """Scenarios with these fields. Raises `ValueError` or `TypeError`."""
        made = cls()
        made._set(asked)
        return made

    def __post_init__(self) -> None:
        """Create the lock and the counts; requests run in threads."""
        self._lock = threading.Lock()
        self._met: Counter[str] = Counter()

    def meet(self, name: str) -> None:
        """Count that a failure took effect; `name` is its field, with a type or an operation after `: `."""
        with self._lock:
            self._met[name] += 1

    def is_short_of(self, instance_type: str | None) -> bool:
        """Whether there is no capacity of an instance type, which counts as met."""
        short = instance_type in self.shortages
        if short:
            self.meet(f"shortages: {instance_type}")
        return short

    def take_throttle(self, operation: str) -> bool:
        """Whether this call is throttled."""
        with self._lock:
            left = self.throttled.get(operation, 0)
            if left > 0:
                self.throttled[operation] = left - 1
                self._met[f"throttled: {operation}"] += 1
        return left > 0

    def respond(self, request: Request) -> Response:
        """Return the scenarios (GET), change them (POST) or reset them (DELETE)."""
        if request.method == "DELETE":
            self._set({each.name: getattr(Scenarios(), each.name) for each in fields(self)})
        elif request.method == "POST":
            try:
                asked = json.loads(request.get_data() or b"{}")
                self._set(asked)
            except (ValueError, TypeError, AttributeError) as error:
                return Response(f"{ROUTE}: {error}\n", 400)
        values = {**{each.name: getattr(self, each.name) for each in fields(self)}, "met": dict(self._met)}
        return Response(json.dumps(values, indent=2), mimetype="application/json")

    def _set(self, asked: Mapping[str, Any]) -> None:
        kinds = {each.name: type(getattr(Scenarios(), each.name)) for each in fields(self)}
        for name, value in asked.items():
            if name not in kinds:
                raise ValueError(f"there is no scenario '{name}': {', '.join(kinds)}")
            wanted = (int, float) if kinds[name] is float else kinds[name]
            if not isinstance(value, wanted):
                raise TypeError(f"'{name}' ({value!r}) must be a {kinds[name].__name__}")
        for name, value in asked.items():
            setattr(self, name, copy.copy(value))  # the counts of throttled calls change
