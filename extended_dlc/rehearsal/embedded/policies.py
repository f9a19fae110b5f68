"""IAM's evaluation of policies, for the parts of the policy language that this project's policies use.

A request is allowed where an identity-based or resource-based statement allows it, the permissions boundary and the
session policy allow it as well, and no statement denies it (IAM user guide, "Policy evaluation logic"). For a resource
of another account both kinds must allow it ("Cross-account policy evaluation logic"). Whatever is not understood (an
element, an operator, an action that does not exist, a condition key that no service sends with the action) is an error
and never a guess: a misspelled permission grants nothing.
"""

from __future__ import annotations

import fnmatch
import functools
import ipaddress
import json
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timezone
from typing import Any

from extended_dlc.rehearsal.embedded import iam_actions

Document = Mapping[str, Any]


class NotUnderstood(Exception):
    """A policy has something that this evaluator does not know."""


class UnknownValue(NotUnderstood):
    """A condition depends on a value of the request that is not known here."""


@dataclass(frozen=True, kw_only=True)
class Request:
    """One action on one resource."""

    action: str
    """For example `s3:GetObject`."""

    resource: str
    """The ARN, or `*` for an action without resources."""

    principal: str = ""
    """The ARN of the role, the user or the session's role; empty for a service."""

    session: str = ""
    """The ARN of the role's session, which resource-based policies may name."""

    service: str = ""
    """The service principal that makes the request itself, such as `cloudwatch.amazonaws.com`."""

    context: Mapping[str, Any] = field(default_factory=dict)
    """The condition keys and their values: a string, or a list of strings."""

    unknown: Sequence[str] = ()
    """Keys in lower case that AWS may send with the request and that are not known here; one that ends in a slash is of
    tags. A condition that depends on one is `NotUnderstood`."""

    @property
    def account(self) -> str:
        return self.principal.split(":")[4] if self.principal else ""

    def is_unknown(self, key: str) -> bool:
        """Whether AWS may send a key that is not known here."""
        small = key.lower()
        return any(small == each or (each.endswith("/") and small.startswith(each)) for each in self.unknown)

    def value(self, key: str) -> list[str] | None:
        """The values of a condition key; None where the request lacks the key."""
        known = {name.lower(): each for name, each in self.context.items()}
        found = known.get(key.lower())
        if found is None:
            return None
        return [str(each) for each in found] if isinstance(found, (list, tuple)) else [_text(found)]


@dataclass(frozen=True, kw_only=True)
class Decision:
    """Whether a request is allowed, and the reason where it is not."""

    allowed: bool
    reason: str
    """The end of AWS's message, from `because` or `with`."""


@dataclass(frozen=True, kw_only=True)
class Policies:
    """All policies that apply to a request."""

    identity: Sequence[Document] = ()
    resource: Document | None = None
    resource_decides: bool = False
    """Whether the resource's policy must allow the request or delegate to the account's policies, as for a KMS key."""

    owner: str = ""
    """The account that owns the resource. Default: the principal's."""

    boundary: Document | None = None
    session: Sequence[Document] = ()
    """Session policies of AssumeRole; an empty sequence limits nothing."""

    organisation: Sequence[Document] = ()
    """Service control policies; an empty sequence limits nothing."""


def evaluate(request: Request, policies: Policies) -> Decision:
    """Whether the request is allowed. Raises `NotUnderstood`."""
    kinds: list[tuple[str, Sequence[Document]]] = [
        ("identity-based", policies.identity),
        ("resource-based", [policies.resource] if policies.resource else []),
        ("permissions boundary", [policies.boundary] if policies.boundary else []),
        ("session", policies.session),
        ("service control", policies.organisation),
    ]
    effects = {kind: _effects(documents, request, kind) for kind, documents in kinds}
    is_foreign = bool(policies.owner and request.account and policies.owner != request.account)
    for kind, found in effects.items():
        if "Deny" in found:
            article = "an" if kind.startswith("i") else "a"
            return Decision(allowed=False, reason=f"with an explicit deny in {article} {kind} policy")
    # what a resource's policy gives to a user or to a session itself, their boundary and session policy do not limit
    # (IAM user guide, "Evaluating identity-based policies with permissions boundaries")
    is_direct = "Direct" in effects["resource-based"] and not is_foreign
    for kind, documents in kinds[4:] if is_direct else kinds[2:]:
        if documents and "Allow" not in effects[kind]:
            name = kind if kind.endswith("boundary") else f"{kind} policy"
            return Decision(allowed=False, reason=f"because no {name} allows the {request.action} action")
    if is_foreign and "Allow" not in effects["identity-based"]:
        return Decision(allowed=False, reason=f"because no identity-based policy allows the {request.action} action")
    if (policies.resource_decides or is_foreign) and not effects["resource-based"]:
        return Decision(allowed=False, reason=f"because no resource-based policy allows the {request.action} action")
    if "Allow" in effects["identity-based"] or "Allow" in effects["resource-based"]:
        return Decision(allowed=True, reason="")
    kind = "identity-based" if request.principal else "resource-based"
    return Decision(allowed=False, reason=f"because no {kind} policy allows the {request.action} action")


def _effects(documents: Iterable[Document], request: Request, kind: str) -> set[str]:
    """The effects of the matching statements: Allow or Deny; of a resource's policy also Delegated, where the account's
    own policies decide, and Direct, where it allows a user or a session by its ARN."""
    found = set()
    unknown: UnknownValue | None = None
    for document in documents:
        for statement in statements_of(document):
            try:
                if not matches(statement, request, with_principal=kind == "resource-based"):
                    continue
            except UnknownValue as error:
                if statement["Effect"] == "Deny":
                    raise
                unknown = error
                continue
            delegated = kind == "resource-based" and statement["Effect"] == "Allow" and _to_account(statement, request)
            found.add("Delegated" if delegated else statement["Effect"])
            if kind == "resource-based" and statement["Effect"] == "Allow" and _to_itself(statement, request):
                found.add("Direct")
    if unknown is not None and "Allow" not in found:
        raise unknown
    return found


def _to_itself(statement: Mapping[str, Any], request: Request) -> bool:
    """Whether a resource-based statement names the session or the user that makes the request."""
    principal = statement.get("Principal")
    names = _list(principal.get("AWS")) if isinstance(principal, Mapping) else []
    return bool({request.session, request.principal if ":user/" in request.principal else ""} & {*names} - {""})


def _to_account(statement: Mapping[str, Any], request: Request) -> bool:
    """Whether a resource-based statement allows the whole account, whose identities then need policies of their own."""
    principal = statement.get("Principal")
    if not request.principal or not isinstance(principal, Mapping):
        return False
    return not any(each and each in ("*", request.principal, request.session) for each in _list(principal.get("AWS")))


def statements_of(document: Document) -> list[dict[str, Any]]:
    """The statements of a policy. Raises `NotUnderstood`."""
    if unknown := set(document) - {"Version", "Id", "Statement"}:
        raise NotUnderstood(f"the policy's element {sorted(unknown)[0]}")
    if "Statement" not in document:
        raise NotUnderstood("a policy without the element Statement")
    statements: list[dict[str, Any]] = _list(document["Statement"])
    for each in statements:
        _check_once(json.dumps(each, sort_keys=True), document.get("Version") == _WITH_VARIABLES)
    return statements


def known_part(document: Document) -> Document:
    """A policy of AWS's own without the actions that are not known here: it names each service there is or was."""
    statements = _list(document["Statement"])
    kept = [
        {**each, "Action": actions}
        for each in statements
        if (actions := [action for action in _list(each.get("Action")) if _is_known(action)])
    ]
    return {**document, "Statement": [*kept, *(each for each in statements if "NotAction" in each)]}


@functools.cache
def _is_known(action: str) -> bool:
    try:
        _check_action(action)
    except NotUnderstood:
        return False
    return True


_ELEMENTS = {
    "Sid",
    "Effect",
    "Principal",
    "NotPrincipal",
    "Action",
    "NotAction",
    "Resource",
    "NotResource",
    "Condition",
}


_WITH_VARIABLES = "2012-10-17"
"""The version of the policy language that has variables; in another, or without a version, they are plain text."""


@functools.lru_cache(maxsize=4096)
def _check_once(written: str, with_variables: bool) -> None:
    if not with_variables and (found := _VARIABLE.search(written)):
        raise NotUnderstood(f'{found[0]} in a policy without "Version": "{_WITH_VARIABLES}", where it is no variable')
    check_statement(json.loads(written))


def check_statement(statement: Mapping[str, Any]) -> None:
    """Raise `NotUnderstood` for a statement that has no effect or is not known here."""
    if unknown := set(statement) - _ELEMENTS:
        raise NotUnderstood(f"the statement's element {sorted(unknown)[0]}")
    if statement.get("Effect") not in ("Allow", "Deny"):
        raise NotUnderstood(f"the effect {statement.get('Effect')!r}")
    named = [each for key in ("Action", "NotAction") for each in _list(statement.get(key))]
    if not named:
        raise NotUnderstood("a statement without Action or NotAction")
    for each in named:
        _check_action(each)
    for operator, pairs in statement.get("Condition", {}).items():
        _operator(operator)
        for key in pairs:
            _check_key(key, named if "Action" in statement else [], statement["Effect"])


def _check_action(name: str) -> None:
    prefix = name.split(":", 1)[0].lower()
    if name == "*":
        return
    if prefix in iam_actions.other_services() and ":" in name:  # no call here is of that service
        return
    if prefix not in iam_actions.services():
        raise NotUnderstood(f"the action {name}: no such service is known")
    if not any(fnmatch.fnmatchcase(each, name.lower()) for each in iam_actions.actions()):
        raise NotUnderstood(f"the action {name}: IAM has none that is called so")


_GLOBAL = frozenset(
    f"aws:{each}"
    for each in (
        *("assumedroot", "calledvia", "calledviafirst", "calledvialast", "currenttime", "epochtime"),
        *("ec2instancesourceprivateipv4", "ec2instancesourcevpc", "federatedprovider", "multifactorauthage"),
        *("multifactorauthpresent", "principalaccount", "principalarn", "principalisawsservice", "principalorgid"),
        *("principalorgpaths", "principalservicename", "principalservicenameslist", "principaltype", "referer"),
        *("requestedregion", "resourceaccount", "resourceorgid", "resourceorgpaths", "securetransport"),
        *("sourceaccount", "sourcearn", "sourceidentity", "sourceip", "sourceorgid", "sourceorgpaths", "sourceowner"),
        *("sourcevpc", "sourcevpcarn", "sourcevpce", "tagkeys", "tokenissuetime", "useragent", "userid", "username"),
        *("viaawsservice", "vpceaccount", "vpceorgid", "vpceorgpaths", "vpcsourceip"),
    )
)
"""Keys that may be in any request (IAM user guide, "AWS global condition context keys")."""

_GLOBAL_TAGS = ("aws:principaltag/", "aws:requesttag/", "aws:resourcetag/")
"""Global keys that end with a tag's name."""


def _check_key(key: str, actions: Sequence[str], effect: str) -> None:
    """Refuse a condition key that no service sends, or that none of the statement's actions has."""
    small = key.lower()
    if small in _GLOBAL or small.startswith(_GLOBAL_TAGS) or small == "iam:passedtoservice":
        return
    if small.split(":", 1)[0] in iam_actions.other_services():
        return
    known_keys = iam_actions.condition_keys()
    if not any(small == each or (each.endswith(("/", ":")) and small.startswith(each)) for each in known_keys):
        raise NotUnderstood(f"the condition's key {key}: no service sends it")
    known = [
        action
        for name in actions
        for each, action in iam_actions.actions().items()
        if name != "*" and fnmatch.fnmatchcase(each, name.lower())
    ]
    has = {re.sub(r"[$<{].*", "", each).lower() for action in known for each in action.keys}
    of_own_service = any(action.action.split(":")[0] == small.split(":", 1)[0] for action in known)
    if effect == "Allow" and known and of_own_service and not any(small.startswith(each) for each in has):
        raise NotUnderstood(f"the condition's key {key}: {', '.join(sorted(set(actions)))} never has it")


def matches(statement: Mapping[str, Any], request: Request, *, with_principal: bool) -> bool:
    """Whether a statement applies to the request."""
    if with_principal and not _principal_matches(statement, request):
        return False
    if not _named(statement, "Action", request.action, small=True):
        return False
    # resource-based policies of some services, such as ECR, have no Resource: they apply to their own resource
    of_itself = with_principal and "Resource" not in statement and "NotResource" not in statement
    if not of_itself and not _resource_matches(statement, request):
        return False
    return _condition_holds(statement.get("Condition", {}), request)


def _resource_matches(statement: Mapping[str, Any], request: Request) -> bool:
    if "Resource" not in statement and "NotResource" not in statement:
        return False
    return _named(statement, "Resource", request.resource, request=request)


def _named(
    statement: Mapping[str, Any], element: str, value: str, *, small: bool = False, request: Request | None = None
) -> bool:
    """Whether an element such as Action, or its opposite NotAction, includes the value."""
    positive = element in statement
    patterns = _list(statement.get(element if positive else f"Not{element}"))
    given = value.lower() if small else value
    found = any(
        _like(each.lower() if small else _substituted(each, request), given, arn=element == "Resource")
        for each in patterns
    )
    return found if positive else bool(patterns) and not found


def _like(pattern: str, value: str, *, arn: bool = False) -> bool:
    """Whether the value matches the pattern; IAM has only the wildcards `*` and `?`."""
    if not arn or pattern == "*" or not pattern.startswith("arn:") or not value.startswith("arn:"):
        return _compiled(pattern).fullmatch(value) is not None
    # a wildcard does not match across the parts of an ARN, except within the last part, and a part that is left out
    # is a wildcard (IAM user guide, policy elements, Resource: "incomplete ARN")
    wanted, got = pattern.split(":", 5), value.split(":", 5)
    wanted += ["*"] * (6 - len(wanted))
    return len(wanted) == len(got) == 6 and all(
        _compiled(one).fullmatch(other) is not None for one, other in zip(wanted, got, strict=True)
    )


@functools.lru_cache(maxsize=4096)
def _compiled(pattern: str) -> re.Pattern[str]:
    meanings = {"*": ".*", "?": ".", _STAR: r"\*", _QUESTION: r"\?"}
    return re.compile("".join(meanings.get(each) or re.escape(each) for each in pattern), re.DOTALL)


_STAR, _QUESTION = "\ue000", "\ue001"
"""A star and a question mark of a variable's value in a pattern, where they are no wildcards."""

_LITERAL = str.maketrans({"*": _STAR, "?": _QUESTION})
_PLAIN = str.maketrans({_STAR: "*", _QUESTION: "?"})
_VARIABLE = re.compile(r"\$\{([^},]+?)(?:\s*,\s*'([^']*)')?\s*\}")


def _substituted(text: str, request: Request | None) -> str:
    """The text with its policy variables replaced, such as `${aws:PrincipalAccount}` or `${aws:username, 'none'}`."""

    def value(found: re.Match[str]) -> str:
        name, default = found[1], found[2]
        if name in ("*", "?", "$"):
            return name.translate(_LITERAL)
        known = request.value(name) if request else None
        if known is None and default is not None and request and not request.is_unknown(name):
            return str(default)
        if known is None or len(known) != 1:
            raise NotUnderstood(f"the variable ${{{name}}}: the request has not exactly one value of it")
        return known[0].translate(_LITERAL)

    return _VARIABLE.sub(value, text) if "${" in text else text


def _principal_matches(statement: Mapping[str, Any], request: Request) -> bool:
    positive = "Principal" in statement
    if not positive and "NotPrincipal" not in statement:
        raise NotUnderstood("a statement of a resource without a principal")
    if not positive and request.principal:
        # for a role it depends on which of its session, itself and its account are named (IAM user guide, NotPrincipal)
        raise NotUnderstood("NotPrincipal: use a condition on aws:PrincipalArn")
    found = _is_among(statement["Principal" if positive else "NotPrincipal"], request)
    return found if positive else not found


def _is_among(given: Any, request: Request) -> bool:
    if given == "*":
        return True
    for kind, names in given.items():
        if kind == "Service":
            if request.service and any(request.service == each for each in _list(names)):
                return True
        elif kind == "AWS":
            for each in _list(names):
                if each == "*" or (request.principal and each in (request.principal, request.session)):
                    return True
                if request.principal and each in (request.account, _root(request.principal)):
                    return True
        elif kind not in ("Federated", "CanonicalUser"):
            raise NotUnderstood(f"the principal {kind}")
    return False


def _root(principal: str) -> str:
    parts = principal.split(":")
    return f"arn:{parts[1]}:iam::{parts[4]}:root"


# conditions


def _condition_holds(condition: Mapping[str, Any], request: Request) -> bool:
    unknown = []
    for operator, pairs in condition.items():
        for key, wanted in pairs.items():
            if request.value(key) is None and request.is_unknown(key):
                unknown.append(key)
            elif not _holds(operator, key, _list(wanted), request):
                return False
    if unknown:
        raise UnknownValue(f"the condition's key {unknown[0]}: its value at {request.action} is not known here")
    return True


@dataclass(frozen=True, kw_only=True)
class _Operator:
    compare: Callable[[str, str], bool]
    """Of the wanted text, whose variables' wildcards are marked, and the present one."""

    negated: bool = False


def _same_bool(wanted: str, got: str) -> bool:
    return wanted.lower() == got.lower()


def _in_network(wanted: str, got: str) -> bool:
    try:
        return ipaddress.ip_address(got) in ipaddress.ip_network(wanted, strict=False)
    except ValueError as error:
        raise NotUnderstood(f"an address of a condition: {error}") from None


def _number(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        raise NotUnderstood(f"the number {text} of a condition") from None


def _seconds(text: str) -> float:
    """A date in one of the forms of ISO 8601, or in seconds since 1970."""
    if re.fullmatch(r"\d+", text):
        return float(text)
    try:
        moment = datetime.fromisoformat(re.sub(r"Z$", "+00:00", text))
    except ValueError:
        raise NotUnderstood(f"the date {text} of a condition") from None
    return (moment if moment.tzinfo else moment.replace(tzinfo=timezone.utc)).timestamp()


def _ordered(kind: str, read: Callable[[str], float]) -> Iterator[tuple[str, _Operator]]:
    """The six operators of numbers or of dates."""
    yield f"{kind}Equals", _Operator(compare=lambda wanted, got: read(got) == read(wanted))
    yield f"{kind}NotEquals", _Operator(compare=lambda wanted, got: read(got) == read(wanted), negated=True)
    yield f"{kind}LessThan", _Operator(compare=lambda wanted, got: read(got) < read(wanted))
    yield f"{kind}LessThanEquals", _Operator(compare=lambda wanted, got: read(got) <= read(wanted))
    yield f"{kind}GreaterThan", _Operator(compare=lambda wanted, got: read(got) > read(wanted))
    yield f"{kind}GreaterThanEquals", _Operator(compare=lambda wanted, got: read(got) >= read(wanted))


def _arn_like(wanted: str, got: str) -> bool:
    if wanted != "*" and wanted.count(":") < 5:
        raise NotUnderstood(f"the ARN {wanted} of a condition: it needs six parts")
    return _like(wanted, got, arn=True)


def _same(wanted: str, got: str) -> bool:
    return wanted.translate(_PLAIN) == got


def _same_but_case(wanted: str, got: str) -> bool:
    return wanted.translate(_PLAIN).lower() == got.lower()


_OPERATORS: Mapping[str, _Operator] = {
    "StringEquals": _Operator(compare=_same),
    "StringNotEquals": _Operator(compare=_same, negated=True),
    "StringEqualsIgnoreCase": _Operator(compare=_same_but_case),
    "StringNotEqualsIgnoreCase": _Operator(compare=_same_but_case, negated=True),
    "StringLike": _Operator(compare=_like),
    "StringNotLike": _Operator(compare=_like, negated=True),
    "ArnEquals": _Operator(compare=_arn_like),
    "ArnLike": _Operator(compare=_arn_like),
    "ArnNotEquals": _Operator(compare=_arn_like, negated=True),
    "ArnNotLike": _Operator(compare=_arn_like, negated=True),
    "Bool": _Operator(compare=_same_bool),
    "IpAddress": _Operator(compare=_in_network),
    "NotIpAddress": _Operator(compare=_in_network, negated=True),
    **dict(_ordered("Numeric", _number)),
    **dict(_ordered("Date", _seconds)),
}


def _operator(name: str) -> tuple[str, _Operator | None, bool]:
    """The set quantifier, the operator (None for `Null`), and whether it also holds where the key is absent."""
    quantifier, _, rest = name.rpartition(":")
    if_exists = rest.endswith("IfExists")
    rest = rest.removesuffix("IfExists")
    if quantifier not in ("", "ForAllValues", "ForAnyValue"):
        raise NotUnderstood(f"the condition's operator {name}")
    if rest == "Null" and not if_exists and not quantifier:
        return quantifier, None, False
    if rest not in _OPERATORS:
        raise NotUnderstood(f"the condition's operator {name}")
    return quantifier, _OPERATORS[rest], if_exists


def _holds(name: str, key: str, wanted: Sequence[Any], request: Request) -> bool:
    quantifier, operator, if_exists = _operator(name)
    got = request.value(key)
    if operator is None:
        return any((got is None) == (_text(each).lower() == "true") for each in wanted)
    if got is None:
        # an absent key does not match, and a negated operator holds for it; of no values all match, and none does
        return if_exists or quantifier == "ForAllValues" or (operator.negated and not quantifier)
    expected = [_substituted(_text(each), request) for each in wanted]
    results = [any(operator.compare(each, value) for each in expected) != operator.negated for value in got]
    return all(results) if quantifier == "ForAllValues" else any(results)


def _text(value: Any) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)


def _list(value: Any) -> list[Any]:
    if value is None:
        return []
    return list(value) if isinstance(value, (list, tuple)) else [value]


def rights_of(document: Document) -> Iterator[tuple[int, str, Mapping[str, Any]]]:
    """Each statement's number, one of its actions, and the statement with that action alone."""
    for number, statement in enumerate(statements_of(document)):
        for action in _list(statement.get("Action")):
            yield number, action, {**statement, "Action": action}
