"""What a script's parser wants of each argument, from one `add_argument` or one field of a dataclass."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from extended_dlc.facts._tables import did_you_mean

_TRUTHS = ("yes", "true", "t", "y", "1", "no", "false", "f", "n", "0")
"""What HfArgumentParser reads as a bool, in any case (transformers, `hf_argparser.py`)."""

_ONE_VALUE = "a job gives each hyperparameter one value, so let the script take it apart, as with type=json.loads"


class CannotTellError(Exception):
    """The script takes arguments that its source does not show."""


@dataclass(frozen=True, kw_only=True)
class Rule:
    """What a parser wants of one argument's value, as far as it is written out in the source."""

    options: tuple[str, ...]
    """Its names without dashes, or the name of a positional argument."""

    required: bool = False
    positional: bool = False
    takes_no_value: bool = False
    values: int | None = None
    """How many values it takes; None for one, or for any number with `several`."""

    several: bool = False
    choices: tuple[object, ...] = ()
    number: type[int] | type[float] | None = None
    truth: bool = False

    def missing(self, script: str) -> str:
        """What to do about a required argument that is not given."""
        name = self.options[-1]
        if self.positional:
            return (
                f"'{name}' is a positional argument of {script}, and a job gives options alone (--name value): make it "
                f"an option (--{name}), or give it a default with nargs='?'"
            )
        return f"'{name}' is required by {script}: give it, or a default in the parser"

    def wrong(self, name: str, value: str) -> str | None:
        """What is wrong with a value, and what to do."""
        if self.takes_no_value:
            return (
                f"'{name}' takes no value in the script's parser, and a job gives one (--{name} {value}): let it read "
                "one, as with type=json.loads, or leave the hyperparameter out"
            )
        if self.values is not None:
            return f"'{name}' wants {self.values} values in the script's parser: {_ONE_VALUE}"
        split = f"; {_ONE_VALUE}" if self.several else ""
        read: object = value
        if self.number is not None:
            try:
                read = self.number(value)
            except ValueError:
                kind = "a whole number" if self.number is int else "a number"
                return f"'{name}' ({value[:40]}) must be {kind}, which the script's parser reads{split}"
        if self.truth and value.lower() not in _TRUTHS:
            return f"'{name}' ({value[:40]}) must be true or false"
        if self.choices and read not in self.choices:
            known = list(map(str, self.choices))
            return f"'{name}' ({value[:40]}) must be {', '.join(known)}{did_you_mean(value, known)}{split}"
        return None


_NUMBERS: Mapping[str, type[int] | type[float]] = {"int": int, "float": float}


def rules_of_call(call: ast.Call) -> Iterator[Rule]:
    """The rule of one `add_argument`; none where its keywords are not written out."""
    words = {word.arg: word.value for word in call.keywords}
    options = tuple(_options(call))
    if None in words:
        return
    nargs = getattr(words.get("nargs"), "value", None) if "nargs" in words else 1
    if not options:
        if nargs not in ("?", "*") and "nargs" not in words:
            yield Rule(options=(str(getattr(call.args[0], "value", "")),), required=True, positional=True)
        return
    if nargs not in ("+", "*", "?") and not isinstance(nargs, int):
        return
    kind = getattr(words.get("type"), "id", "") if "type" in words else "str"
    action = words.get("action")
    yield Rule(
        options=options,
        required=getattr(words.get("required"), "value", False) is True,
        takes_no_value=getattr(action, "value", "store")
        in ("store_true", "store_false", "store_const", "append_const", "count")
        or (action is not None and ast.unparse(action).endswith("BooleanOptionalAction")),
        values=nargs if isinstance(nargs, int) and nargs > 1 else None,
        several=nargs in ("+", "*"),
        # a type of the script's own may change the value before it is compared
        choices=_constants(words.get("choices")) if kind in ("str", "int", "float") else (),
        number=_NUMBERS.get(kind),
    )


def _constants(node: ast.expr | None) -> tuple[object, ...]:
    """The members of a list that is written out; none where one of them is computed."""
    listed = node.elts if isinstance(node, ast.List | ast.Tuple | ast.Set) else []
    constants = [each.value for each in listed if isinstance(each, ast.Constant)]
    return tuple(constants) if len(constants) == len(listed) else ()


def rule_of_field(node: ast.AnnAssign, name: str) -> Rule:
    """The rule of one field of a dataclass, as HfArgumentParser makes it."""
    words = {word.arg: word.value for word in node.value.keywords} if isinstance(node.value, ast.Call) else {}
    is_field = isinstance(node.value, ast.Call) and ast.unparse(node.value.func).endswith(("field", "HfArg"))
    has_default = bool(words.keys() & {"default", "default_factory", "init"}) if is_field else node.value is not None
    kind = re.sub(r"^(?:typing\.)?Optional\[(.+)\]$", r"\1", ast.unparse(node.annotation).strip("'\""))
    kind = kind.removesuffix(" | None")
    members = re.fullmatch(r"(?:typing\.)?[Ll]ist\[(\w+)\]", kind)
    kind = members[1] if members else kind
    literal = re.fullmatch(r"(?:typing\.)?Literal\[(.+)\]", kind)
    listed = ast.parse(f"[{literal[1]}]", mode="eval").body if literal else None
    return Rule(
        options=tuple(
            dict.fromkeys((*(alias.lstrip("-") for alias in aliases_of_field(node)), name.replace("_", "-"), name))
        ),
        required=not has_default and kind != "bool",
        several=members is not None,
        choices=tuple(map(str, _constants(listed))),
        truth=kind == "bool" and members is None,
        number=_NUMBERS.get(kind),
    )


def aliases_of_field(node: ast.AnnAssign) -> Iterator[str]:
    """The further options of a dataclass's field: `HfArg(aliases=…)`, or `field(metadata={"aliases": …})`."""
    if not isinstance(node.value, ast.Call):
        return
    words = {word.arg: word.value for word in node.value.keywords}
    metadata, given = words.get("metadata"), words.get("aliases")
    if isinstance(metadata, ast.Dict):
        given = next(
            (
                value
                for key, value in zip(metadata.keys, metadata.values, strict=True)
                if written_text(key) == "aliases"
            ),
            given,
        )
    if None in words or (metadata is not None and not isinstance(metadata, ast.Dict)):
        raise CannotTellError
    for each in given.elts if isinstance(given, ast.List | ast.Tuple) else [given] if given is not None else []:
        if (alias := written_text(each)) is None:
            raise CannotTellError
        yield alias


def written_text(node: ast.expr | None) -> str | None:
    """A text that is written out."""
    return node.value if isinstance(node, ast.Constant) and isinstance(node.value, str) else None


def flags_of_call(call: ast.Call) -> Iterator[str]:
    """The options of one `add_argument`, with their dashes."""
    if not call.args:
        raise CannotTellError
    for each in call.args:
        if not isinstance(each, ast.Constant) or not isinstance(each.value, str):
            raise CannotTellError
        if each.value.startswith("-"):
            yield each.value
            action = next((word.value for word in call.keywords if word.arg == "action"), None)
            if each.value.startswith("--") and action and ast.unparse(action).endswith("BooleanOptionalAction"):
                yield f"--no-{each.value[2:]}"


def _options(call: ast.Call) -> Iterator[str]:
    """The options of one `add_argument`, without their dashes."""
    yield from (flag.lstrip("-") for flag in flags_of_call(call))
