"""Types of options: a value of another type than its option's annotation gets an error that says what is wanted."""

from __future__ import annotations

import builtins
import collections.abc
import functools
import inspect
import math
import sys
import types
import typing
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import PurePath
from typing import Any, Literal, TypeVar

from extended_dlc.options._values import OptionError, is_token

Checked = TypeVar("Checked", bound=Callable[..., Any])

_FILES = frozenset({"ca_bundle", "folder", "lock", "pip_config"})
"""Options that name a file or a folder, which may be paths of pathlib too."""

_HIDDEN = frozenset({"environment", "pip_config", "token"})
"""Options whose values may be secrets, so that no error shows them."""


def check_types(checked: Checked) -> Checked:
    """Decorate a dataclass, a constructor or a factory, whose options then refuse values of other types.

    Only what a caller gives is compared. A CDK token passes: what must be known at synth is refused by the options.
    """
    made: Any = checked
    function = made.__init__ if isinstance(checked, type) else made
    names: tuple[str, ...] = function.__code__.co_varnames

    @functools.wraps(function)
    def checking(*given: Any, **options: Any) -> Any:
        kinds = _kinds_of(function, checked.__module__)
        for name, value in (*zip(names, given, strict=False), *options.items()):
            if name in kinds:
                _check(name, value, kinds[name])
        return function(*given, **options)

    if isinstance(checked, type):
        made.__init__ = checking
        return checked
    return typing.cast(Checked, checking)


@functools.cache
def _kinds_of(function: Callable[..., Any], module: str) -> Mapping[str, Any]:
    """The types of a function's options by their names."""
    names = _Names(vars(sys.modules[module]))
    given = {name: each for name, each in function.__annotations__.items() if name not in _NO_OPTIONS}
    return {name: eval(each, {}, names) for name, each in given.items()}  # noqa: S307 - the package's own annotations


_NO_OPTIONS = frozenset({"kwargs", "return"})


class _Names(dict[str, Any]):
    """The names of a module; one that only type checkers import stands for a class of this name."""

    def __missing__(self, name: str) -> Any:
        return getattr(builtins, name, None) or _Named(name, (), {})


class _Named(type):
    """A class that is known by its name; an attribute is a class of the attribute's name, as `IBucket` of `s3`."""

    def __getattr__(cls, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        return _Named(name, (), {})


class _Known(typing.NamedTuple):
    """An interface, which has no class in Python that all its implementations have as a base."""

    member: str
    """A member that tells it from others."""

    text: str


_INTERFACES = {
    "IConstruct": _Known("node", "a construct, as the app or a stack"),
    "IProject": _Known("project_arn", "a codebuild.IProject, as codebuild.Project.from_project_name(…)"),
    "ISecurityGroup": _Known("security_group_id", "an ec2.ISecurityGroup"),
    "ISubnet": _Known("subnet_id", "an ec2.ISubnet"),
    "IVpc": _Known("vpc_id", 'an ec2.IVpc, as ec2.Vpc.from_lookup(self, "Vpc", vpc_id="vpc-…")'),
    "InstanceType": _Known("to_string", "an ec2.InstanceType"),
    "IRepository": _Known(
        "repository_arn", 'an ecr.IRepository, as ecr.Repository.from_repository_name(self, "Images", "name")'
    ),
    "IManagedPolicy": _Known(
        "managed_policy_arn",
        'an iam.IManagedPolicy, as iam.ManagedPolicy.from_managed_policy_arn(self, "Boundary", "arn:…")',
    ),
    "IRole": _Known("role_arn", 'an iam.IRole, as iam.Role.from_role_arn(self, "Role", "arn:…")'),
    "IGrantable": _Known("grant_principal", "an iam.IGrantable, such as a role, a user or a function"),
    "IKey": _Known("key_arn", 'a kms.IKey, as kms.Key.from_key_arn(self, "Key", "arn:…")'),
    "IAlarm": _Known("alarm_name", "a cloudwatch.IAlarm"),
    "IBucket": _Known("bucket_arn", 'an s3.IBucket, as s3.Bucket.from_bucket_name(self, "Bucket", "name")'),
    "ISecret": _Known(
        "secret_arn",
        "a secretsmanager.ISecret, because whoever may read the template could read a text: store the text in Secrets "
        'Manager and pass the secret, as Secret.from_secret_name_v2(self, "Token", "hub-token")',
    ),
    "ITopic": _Known("topic_arn", 'an sns.ITopic, as sns.Topic.from_topic_arn(self, "Topic", "arn:…")'),
    "ServedModel": _Known("place_for", "a HubModel, S3Model, MirroredModel or TrainedModel"),
    "ServingImage": _Known("publish_for", 'an ExtendedDlc, StockDlc or EcrImage, as StockDlc(base="…")'),
}

_TEXTS = {
    "Construct": "a construct, as a stack",
    "Network": "a Network, as Network(vpc=vpc)",
    "Rollout": "an AllAtOnce, Canary, Linear or Rolling",
}
"""Classes whose names say too little in an error."""


def _check(option: str, value: object, kind: Any) -> None:
    choices = _choices(kind)
    if choices and isinstance(value, str) and value not in choices:
        raise OptionError(option, value[:80], f"must be one of {', '.join(choices)}")
    if is_token(value) or _is_of(value, kind) or (option in _FILES and isinstance(value, PurePath)):
        return
    holds = next(_strangers(value, kind), None)
    what = f"is {_what(value)}" if holds is None else f"has {_what(holds[0])} in it"
    rule = f"{what} and must be {_wanted(kind)}"
    if option in _HIDDEN:
        raise OptionError(option, rule=rule)
    raise OptionError(option, repr(value)[:80], rule)


@functools.cache
def _choices(kind: Any) -> tuple[str, ...]:
    """The texts of an option that takes one of several and nothing else, but None."""
    members = [each for each in (typing.get_args(kind) if _is_union(kind) else (kind,)) if each is not type(None)]
    if any(typing.get_origin(each) is not Literal for each in members):
        return ()
    return tuple(each for one in members for each in typing.get_args(one) if isinstance(each, str))


def _is_of(value: object, kind: Any) -> bool:
    """Whether a value is of a type, or a CDK token, which may be any."""
    if kind is Any or is_token(value):
        return True
    if kind is None:
        return value is None
    arguments = typing.get_args(kind)
    if _is_union(kind):
        return any(_is_of(value, each) for each in arguments)
    origin = typing.get_origin(kind)
    if origin is Literal:
        return isinstance(value, tuple({type(each) for each in arguments}))  # which, `_check` or the option says
    if origin is not None:
        return isinstance(value, _COLLECTIONS[origin]) and next(_strangers(value, kind), None) is None
    if kind in (int, float):
        is_number = isinstance(value, (int, float)) and not isinstance(value, bool) and _is_finite(value)
        return is_number and (kind is float or value == int(typing.cast(float, value)))
    if kind in (str, bool):
        return isinstance(value, kind)
    return not isinstance(value, type) and _is_instance(value, kind.__name__)


_COLLECTIONS: Mapping[Any, Any] = {
    collections.abc.Sequence: (list, tuple),
    collections.abc.Mapping: collections.abc.Mapping,
    collections.abc.Iterable: collections.abc.Iterable,
}
"""What a user may give for a type of `collections.abc`; a text is a sequence of texts, and never meant as one."""


def _is_instance(value: object, name: str) -> bool:
    known = _INTERFACES.get(name)
    if known is None:
        return any(each.__name__ == name for each in type(value).__mro__)
    # Reading the member asks the CDK, which is another process; only jsii's proxies show it no other way.
    return inspect.getattr_static(value, known.member, None) is not None or hasattr(value, known.member)


def _strangers(value: object, kind: Any) -> Iterator[tuple[object]]:
    """The elements of a collection that are of another type than the collection's."""
    for one in typing.get_args(kind) if _is_union(kind) else (kind,):
        accepted = _COLLECTIONS.get(typing.get_origin(one))
        if accepted is None or not isinstance(value, accepted):
            continue
        kinds = typing.get_args(one)
        elements: Iterable[Any] = typing.cast(Any, value).items() if isinstance(value, Mapping) else value
        for each in elements:
            pairs = zip(each, kinds, strict=True) if isinstance(value, Mapping) else ((each, kinds[0]),)
            yield from ((element,) for element, its in pairs if not _is_of(element, its))


def _is_finite(value: float) -> bool:
    try:
        return math.isfinite(value)
    except OverflowError:  # a whole number of more digits than a float has
        return False


def _is_union(kind: Any) -> bool:
    return isinstance(kind, types.UnionType) or typing.get_origin(kind) is typing.Union


def _what(value: object) -> str:
    """A value's type in an error."""
    if isinstance(value, type):
        return f"the class {value.__name__} itself, without '()',"
    if isinstance(value, (int, float)) and not _is_finite(value):
        return "no finite number"
    if isinstance(value, float):
        return "a number with a fraction"
    if value is None:
        return "None"
    name = type(value).__name__
    words = {"str": "a text", "int": "a number", "bool": f"{value}", "dict": "a mapping", "list": "a list"}
    return words.get(name, f"of the class {name}")


def _wanted(kind: Any) -> str:
    """A type in an error: what a value must be."""
    if _is_union(kind):
        *texts, last = _texts(kind)
        return f"{', '.join(texts)} or {last}" if texts else last
    origin, arguments = typing.get_origin(kind), typing.get_args(kind)
    if origin is Literal:
        return f"one of {', '.join(map(repr, arguments))}"
    if origin is collections.abc.Mapping:
        return f"a mapping of {_several(arguments[0])} to {_several(arguments[1])}"
    if origin is not None:
        return f"a list of {_several(arguments[0])}"
    if kind in _WORDS:
        return f"a {_WORDS[kind]}" if kind is not bool else _WORDS[kind]
    name = kind.__name__
    if name in _INTERFACES:
        return _INTERFACES[name].text
    article = "an" if name[0] in "AEIO" or name.startswith("S3") else "a"
    return _TEXTS.get(name, f"{article} {name}")


def _texts(kind: Any) -> list[str]:
    """The texts of a union's types, each once."""
    each_kind = [each for each in typing.get_args(kind) if each is not type(None)]
    texts = [text for each in each_kind for text in (("True", "False") if each is bool else (_wanted(each),))]
    return list(dict.fromkeys(texts))


_WORDS: Mapping[Any, str] = {str: "text", int: "whole number", float: "number", bool: "True or False"}


def _several(kind: Any) -> str:
    """A type in an error: what the elements of a collection must be."""
    if _is_union(kind):
        return " or ".join(dict.fromkeys(_several(each) for each in typing.get_args(kind)))
    if kind in _WORDS:
        return f"{_WORDS[kind]}s" if kind is not bool else _WORDS[kind]
    if typing.get_origin(kind) is Literal:
        return ", ".join(map(repr, typing.get_args(kind)))
    return str(kind.__name__)
