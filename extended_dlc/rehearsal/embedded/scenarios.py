"""What goes wrong on request: `POST /_embedded/scenarios` with a JSON object of these, `DELETE` for a quiet day.

Each is a thing that happens in accounts and that no request of the deployment causes.
"""

from __future__ import annotations

import json
import threading
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from typing import Any

from werkzeug.wrappers import Request, Response

ROUTE = "/_embedded/scenarios"


@dataclass(kw_only=True)
class Scenarios:
    """What goes wrong now."""

    silent_rollbacks: bool = False
    """An update that fails ends in service with what was there before, and without a reason."""

    shortages: list[str] = field(default_factory=list)
    """Instance types that there are none of: an endpoint on one fails, unless a pool of its variant has another."""

    quotas: dict[str, int] = field(default_factory=dict)
    """Instance type -> how many the account may have for endpoints; a type that is not here has no limit."""

    throttled: dict[str, int] = field(default_factory=dict)
    """Operation, as `sagemaker:DescribeEndpoint` -> how many of its next calls are refused as too many."""

    role_seconds: float = 0
    """How long after its creation a role is not known to the services that are to assume it."""

    def __post_init__(self) -> None:
        """Make what several requests change."""
        self._lock = threading.Lock()

    def take_throttle(self, operation: str) -> bool:
        """Whether this call is one too many."""
        with self._lock:
            left = self.throttled.get(operation, 0)
            if left > 0:
                self.throttled[operation] = left - 1
        return left > 0

    def respond(self, request: Request) -> Response:
        """Tell them, change them, or end them all."""
        if request.method == "DELETE":
            self._set({each.name: getattr(Scenarios(), each.name) for each in fields(self)})
        elif request.method == "POST":
            try:
                asked = json.loads(request.get_data() or b"{}")
                self._set(asked)
            except (ValueError, TypeError, AttributeError) as error:
                return Response(f"{ROUTE}: {error}\n", 400)
        told = {each.name: getattr(self, each.name) for each in fields(self)}
        return Response(json.dumps(told, indent=2), mimetype="application/json")

    def _set(self, asked: Mapping[str, Any]) -> None:
        kinds = {each.name: type(getattr(Scenarios(), each.name)) for each in fields(self)}
        for name, value in asked.items():
            if name not in kinds:
                raise ValueError(f"there is no scenario '{name}': {', '.join(kinds)}")
            wanted = (int, float) if kinds[name] is float else kinds[name]
            if not isinstance(value, wanted):
                raise TypeError(f"'{name}' ({value!r}) must be a {kinds[name].__name__}")
        for name, value in asked.items():
            setattr(self, name, value)
