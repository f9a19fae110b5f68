"""Roles and names in chats, which are not any text: templates join them into control tokens (`'<|' + role + '|>'`)."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

from ..errors import RequestError, shown

ROLES = ("system", "developer", "user", "assistant", "tool")
"""The roles of OpenAI's API."""

KNOWN: frozenset[str] = frozenset({*ROLES, "function"})
"""The roles that are accepted for every model: templates that have no rule for one write it as it is."""

_ROLE = re.compile(r"\w[\w -]{0,40}", re.ASCII)
_SPEAKER = re.compile(r"\d{1,3}", re.ASCII)
_NAME = re.compile(r"[\w .,:/@+=#'-]*")


def roles_of(template: str | None) -> frozenset[str]:
    """Return the roles that are accepted: the known ones, and those for which a chat template has a rule of its own."""
    from jinja2 import TemplateError, nodes

    if not template:
        return KNOWN
    try:
        parsed = parsed_template(template)
    except TemplateError:
        return KNOWN
    kinds = (nodes.Compare, nodes.Filter, nodes.Test, nodes.Call, nodes.Getitem, nodes.Assign)
    about_roles = (node for node in parsed.find_all(kinds) if _is_about_roles(node))
    members = {id(node.arg) for node in parsed.find_all(nodes.Getitem)}  # such as 'role' in message['role']
    texts = {one.value for node in about_roles for one in node.find_all(nodes.Const) if id(one) not in members}
    return KNOWN | {text for text in texts if isinstance(text, str) and _ROLE.fullmatch(text)} - {"role"}


def parsed_template(template: str) -> Any:
    """Return Jinja's syntax tree of a chat template."""
    from jinja2.ext import Extension
    from jinja2.sandbox import ImmutableSandboxedEnvironment

    class Generation(Extension):
        """The `generation` tag, by which templates mark the assistant's text."""

        tags = {"generation"}  # noqa: RUF012 - as in jinja2's own extensions

        def parse(self, parser: Any) -> Any:
            next(parser.stream)
            return parser.parse_statements(("name:endgeneration",), drop_needle=True)

    return ImmutableSandboxedEnvironment(extensions=[Generation, "jinja2.ext.loopcontrols"]).parse(template)


def check_message(message: dict[str, Any], roles: frozenset[str], *, speaks: bool = False) -> None:
    """400 for a role that is not one of the list, and for a name or an id with other characters than names have.

    :param speaks: Whether numbers are roles: the speakers of models that speak.
    """
    role = message["role"]
    if role not in roles and not (speaks and _SPEAKER.fullmatch(role)):
        known = "the number of a speaker" if speaks else ", ".join(sorted(roles))
        raise _bad(f"has a message whose 'role' is {shown(role)}, and this model takes: {known}")
    for where in ("name", "tool_call_id"):
        _check_name(message.get(where), f"a message whose '{where}'")
    for call in _objects(message.get("tool_calls")):
        _check_name(call.get("id"), "a tool call whose 'id'")
        for one in (call, call.get("function")):
            _check_name(one.get("name") if isinstance(one, dict) else None, "a tool call whose 'name'")


def check_tools(tools: Any) -> None:
    """400 for a tool whose name has other characters than names have."""
    for tool in _objects(tools):
        for one in (tool, tool.get("function")):
            _check_name(one.get("name") if isinstance(one, dict) else None, "a tool whose 'name'")


def _objects(value: Any) -> Iterator[dict[str, Any]]:
    """Yield the objects of a list, or the one that stands in its place."""
    for one in value if isinstance(value, list) else [value]:
        if isinstance(one, dict):
            yield one


def _check_name(value: Any, what: str) -> None:
    if isinstance(value, str) and not _NAME.fullmatch(value):
        raise _bad(f"has {what} is {shown(value)}: it may have letters, digits, spaces and _ . , : / @ + = # ' - only")


def _is_about_roles(node: Any) -> bool:
    from jinja2 import nodes

    return (
        (isinstance(node, nodes.Assign) and isinstance(node.target, nodes.Name) and "role" in node.target.name)
        or any(name.attr == "role" for name in node.find_all(nodes.Getattr))
        or any(constant.value == "role" for constant in node.find_all(nodes.Const))
        or any("role" in name.name for name in node.find_all(nodes.Name))
    )


def _bad(problem: str) -> RequestError:
    return RequestError(400, "bad-inputs", f"'inputs' {problem}")
