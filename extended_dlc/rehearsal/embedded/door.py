"""The checks of every API call, whether it came by HTTP or from a template; calls are refused nowhere else.

In order: throttling (a scenario), the caller's permissions, the shapes of botocore's service model, the table of
rules, and the tokens of pages.
"""

from __future__ import annotations

import json
import re
import time
from collections.abc import Iterable
from dataclasses import dataclass
from xml.sax.saxutils import escape

from werkzeug.wrappers import Response

from extended_dlc.rehearsal.embedded import rules, shapes, templates
from extended_dlc.rehearsal.embedded.calls import Call, Environ, read_call
from extended_dlc.rehearsal.embedded.iam import Iam
from extended_dlc.rehearsal.embedded.identities import Principal
from extended_dlc.rehearsal.embedded.pages import Pages
from extended_dlc.rehearsal.embedded.rule import World
from extended_dlc.rehearsal.embedded.scenarios import Scenarios
from extended_dlc.rehearsal.embedded.shapes import Refusal

_FORM = "application/x-www-form-urlencoded"
_ROLE = re.compile(r"arn:[\w-]+:iam::\d+:role/[\w+=,.@/-]+")
_RETRIES = 10
"""How often CloudFormation repeats a throttled call (CloudFormation CLI user guide, "Resource type handler error
codes": Throttling is retriable)."""

_NOTHING_WRONG = ("/_embedded/", "/v2/", "/moto-api/")


class Throttled(Refusal):
    """A call is refused for now, by the scenario `throttled`."""


@dataclass(frozen=True, kw_only=True)
class Door:
    """Admits or refuses calls."""

    scenarios: Scenarios
    iam: Iam
    pages: Pages

    def refuse(self, environ: Environ) -> Response | Call | None:
        """The error response to an HTTP request in its protocol's form, the call that is admitted, or None for none."""
        if environ.get("PATH_INFO", "").startswith(_NOTHING_WRONG):
            return None
        call = read_call(environ)
        if call is None:
            return None
        try:
            self.admit(call)
            self.pages.check(call)
        except Refusal as refusal:
            return response_of(environ, call, refusal)
        return call

    def admit(self, call: Call) -> None:
        """Return where the call is admitted, else raise `Refusal`."""
        if self.scenarios.take_throttle(str(call)):
            raise Throttled(
                "ThrottlingException" if call.service != "cloudformation" else "Throttling", "Rate exceeded"
            )
        self.iam.check(call)
        shapes.check(call)
        rules.check(call, self.scenarios)

    def create(self, wish: templates.Wanted, principal: Principal | None) -> None:
        """Check the calls that create a resource of a template, as CloudFormation's role or its caller."""
        templates.check_properties(wish)
        self._admit(templates.calls_to_create(wish), principal)

    def update(self, wish: templates.Wanted, principal: Principal | None) -> None:
        """Check the calls that update a resource of a template in place."""
        templates.check_properties(wish)
        self._admit(templates.calls_to_update(wish), principal)

    def delete(self, wish: templates.Wanted, principal: Principal | None) -> None:
        """Check that the call that deletes a resource of a template is allowed."""
        if principal is not None:
            for call in templates.calls_to_delete(wish):
                self.iam.check_as(principal, call)

    def _admit(self, calls: Iterable[Call], principal: Principal | None) -> None:
        for call in calls:
            if principal is not None:
                self.iam.check_as(principal, call)
            self._await_roles(call)
            for attempt in range(_RETRIES + 1):
                try:
                    self.admit(call)
                except Throttled:
                    if attempt == _RETRIES:
                        raise
                else:
                    break

    def _await_roles(self, call: Call) -> None:
        """Wait until the roles that a call names are known: CloudFormation's roles are complete only then.

        CloudFormation user guide, stack events: CONFIGURATION_COMPLETE, "Eventual consistency check initiated".
        """
        if not self.scenarios.role_seconds:
            return
        world = World(account_id=call.account_id, region=call.region, scenarios=self.scenarios)
        for arn in _ROLE.findall(json.dumps(call.parameters, default=str)):
            if world.find_role(arn) is None:
                while world.is_new(arn):
                    time.sleep(0.05)


def response_of(environ: Environ, call: Call, refusal: Refusal) -> Response:
    """The error response in the form of the request's protocol."""
    code, message = refusal.code, refusal.message
    headers = {"x-amzn-errortype": code}
    if call.service == "s3":
        body = f"<Error><Code>{code}</Code><Message>{escape(message)}</Message></Error>"
        return Response(body, refusal.status, headers, mimetype="application/xml")
    if str(environ.get("CONTENT_TYPE", "")).startswith(_FORM):
        headers |= {"x-amzn-query-error": f"{code};Sender"}
        inner = f"<Type>Sender</Type><Code>{code}</Code><Message>{escape(message)}</Message>"
        body = f"<ErrorResponse><Error>{inner}</Error><RequestId>embedded</RequestId></ErrorResponse>"
        return Response(body, refusal.status, headers, mimetype="text/xml")
    written = json.dumps({"__type": code, "message": message, "Message": message})
    return Response(written, refusal.status, headers, mimetype="application/x-amz-json-1.1")
