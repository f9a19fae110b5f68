"""Reads from a training script's source which arguments it takes."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from extended_dlc.facts._tables import did_you_mean, table
from extended_dlc.options._values import is_token
from extended_dlc.options.training import HyperParameter, TrainingCode, as_argument, parsed

_TRAINER = ("TrainingArguments", "Seq2SeqTrainingArguments")

_TOLERANT = ("parse_known_args", "parse_yaml_file", "parse_json_file")
"""Calls with which a script takes more than the arguments of its parser."""

_PARSING = ("parse_args", "parse_intermixed_args", "parse_args_into_dataclasses")

_GROUPS = ("add_argument_group", "add_mutually_exclusive_group")

_TRUTHS = ("yes", "true", "t", "y", "1", "no", "false", "f", "n", "0")
"""What HfArgumentParser reads as a bool, in any case (transformers, `hf_argparser.py`)."""

_NUMBER = re.compile(r"-\d+|-\d*\.\d+")
"""The values with a minus that argparse does not take for an option; without an exponent."""

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


@dataclass
class Arguments:
    """The arguments that a script's parser takes."""

    flags: set[str] = field(default_factory=set)
    """The options, with their dashes."""

    trainer: str | None = None
    """The transformers class whose fields are arguments too."""

    rules: list[Rule] = field(default_factory=list)

    abbreviations: bool = True
    """Whether the parser accepts the beginning of a long option."""

    @property
    def names(self) -> set[str]:
        """The names of hyperparameters that reach an option."""
        return {flag.lstrip("-") for flag in self.flags if _flag(flag.lstrip("-")) == flag}

    def meant(self, name: str) -> str | None:
        """The option of that name which no hyperparameter reaches."""
        return next((flag for flag in sorted(self.flags) if flag.lstrip("-") == name), None)


def _flag(name: str) -> str:
    """How SageMaker's toolkit writes a hyperparameter's name (sagemaker-training, `mapping.py`)."""
    return f"-{name}" if len(name) == 1 else f"--{name}"


def check_hyperparameters(
    code: TrainingCode, script: str, hyperparameters: Mapping[str, HyperParameter], *, transformers: str | None
) -> None:
    """Refuse hyperparameters that the script's parser would reject.

    A script passes unchecked if its source does not show the arguments: those of another package, or a parser that
    ignores unknown ones.
    """
    found = arguments_of(code, script)
    if found is None:
        return
    known = found.names | (_fields(found.trainer, transformers) if found.trainer else set())
    for name, value in hyperparameters.items():
        _check_name(found, script, name, known, transformers)
        text = as_argument(value)
        if not is_token(value) and _looks_like_an_option(text):
            raise ValueError(
                f"'{name}' ({text[:40]}) begins with '-', so that argparse takes it for an option: write a number "
                "without an exponent (-0.00001), and let the script add the sign of anything else"
            )
    _check_values(found, script, hyperparameters)


def _check_name(found: Arguments, script: str, name: str, known: set[str], transformers: str | None) -> None:
    if name in known:
        return
    if meant := found.meant(name):
        raise ValueError(
            f"'{name}' reaches the script as {_flag(name)}, which is how SageMaker's toolkit writes it, and {script} "
            f"reads {meant}: add {_flag(name)} to that argument"
        )
    begun = {each.replace("-", "_") for each in known if found.abbreviations and _begins(each, name)}
    if len(begun) == 1:
        return
    if begun:
        raise ValueError(f"'{name}' could be {', '.join(sorted(begun)[:4])}: write the one that is meant")
    # an option such as --no_bf16 is near to much, and seldom meant
    nearest = did_you_mean(name, [each for each in known if not re.match("no[_-]", each)] or known)
    if found.trainer and name in _fields(found.trainer, None):
        raise ValueError(
            f"'{name}' is no argument of {found.trainer} in transformers {transformers}, and was one of another "
            f"release: see its migration guide{nearest}"
        )
    raise ValueError(f"'{name}' is no argument of {script}{nearest}: remove it, or add it to the parser")


def _begins(option: str, name: str) -> bool:
    """Whether a hyperparameter is the beginning of a long option, which argparse accepts."""
    return len(name) > 1 and len(option) > 1 and option.startswith(name)


def _looks_like_an_option(text: str) -> bool:
    """Whether argparse takes a value for an option (CPython, `argparse.py`, `_parse_optional`)."""
    return len(text) > 1 and text.startswith("-") and " " not in text and not _NUMBER.fullmatch(text)


def _check_values(found: Arguments, script: str, hyperparameters: Mapping[str, HyperParameter]) -> None:
    """Refuse values that the parser would reject, and arguments that it misses."""
    given = {_written_out(name, found.names): value for name, value in hyperparameters.items()}
    for rule in found.rules:
        said = [(name, given[name]) for name in rule.options if name in given]
        if rule.required and (rule.positional or not said):
            raise ValueError(rule.missing(script))
        for name, value in said:
            if not is_token(value) and (wrong := rule.wrong(name, as_argument(value))):
                raise ValueError(wrong)


def _written_out(name: str, known: set[str]) -> str:
    """The option that an abbreviation stands for."""
    begun = [each for each in known if _begins(each, name)]
    return name if name in known or len(begun) != 1 else begun[0]


def arguments_of(code: TrainingCode, script: str) -> Arguments | None:
    """The arguments that the script's parser takes; None where the source does not show them."""
    file = Path(code.folder) / script
    try:
        found = _Reader(Path(code.folder), parsed(file)).read()
    except (CannotTellError, OSError, ValueError):
        return None
    return found if found.flags or found.trainer or found.rules else None


def _fields(name: str, transformers: str | None) -> set[str]:
    """The fields of a transformers class: of this release if it is in the table, otherwise of all releases."""
    data = table("training_arguments")
    of_class = _TRAINER if name == _TRAINER[1] else _TRAINER[:1]
    rows = [row for row in data["training_arguments"] if row["class"] in of_class]
    if transformers in data["releases"]:
        rows = [row for row in rows if transformers in row["releases"]]
    return {spelt for row in rows for spelt in _spelt(row["argument"])}


def _spelt(name: str) -> Iterator[str]:
    """The spellings of a field that HfArgumentParser accepts."""
    yield from (name, name.replace("_", "-"), f"no_{name}", f"no-{name.replace('_', '-')}")


class _Reader:
    """Reads the arguments of one script."""

    def __init__(self, folder: Path, tree: ast.Module) -> None:
        self._folder, self._tree = folder, tree
        self._found = Arguments()
        self._nodes = list(ast.walk(tree))
        self._classes = {each.name: each for each in tree.body if isinstance(each, ast.ClassDef)}
        self._imported = dict(self._imports())
        self._renamed = {
            alias.asname or alias.name: alias.name
            for each in self._nodes
            if isinstance(each, ast.ImportFrom)
            for alias in each.names
        }
        functions = [each for each in self._nodes if isinstance(each, ast.FunctionDef)]
        self._functions = {each.name for each in functions}
        self._parameters = {arg.arg for each in functions for arg in ast.walk(each.args) if isinstance(arg, ast.arg)}

    def read(self) -> Arguments:
        """The arguments of its parsers; CannotTellError where one takes more than the source shows."""
        calls = [each for each in self._nodes if isinstance(each, ast.Call)]
        made = [
            each for each in calls if self._name(each) == "ArgumentParser" or self._name(each) == "HfArgumentParser"
        ]
        parsers = {name for name, call in self._assigned() if call in made}
        # of another module's parser, the source does not show all arguments
        foreign = {*self._renamed, *(name for name, call in self._assigned() if not self._makes_arguments(call, made))}
        ignored = set(map(id, self._with_one_argument()))
        for each in calls:
            if id(each) not in ignored:
                self._call(each, parsers, foreign)
        if self._found.flags and not made:
            raise CannotTellError
        names = [name for rule in self._found.rules for name in rule.options]
        if len(made) != 1 or len(set(names)) < len(names):  # nobody can tell here which of several rules counts
            self._found.rules.clear()
        return self._found

    def _name(self, call: ast.Call) -> str:
        """The name of the function that is called, as its module has it."""
        if isinstance(call.func, ast.Attribute):
            return call.func.attr
        name = getattr(call.func, "id", "")
        return self._renamed.get(name, name)

    def _assigned(self) -> Iterator[tuple[str, ast.Call]]:
        """The variables to which a call's result is assigned."""
        for each in self._nodes:
            if isinstance(each, ast.Assign | ast.AnnAssign) and isinstance(each.value, ast.Call):
                target = each.targets[0] if isinstance(each, ast.Assign) else each.target
                if isinstance(target, ast.Name):
                    yield target.id, each.value

    def _makes_arguments(self, call: ast.Call, made: list[ast.Call]) -> bool:
        return call in made or self._name(call) in _GROUPS or self._name(call) in self._functions

    def _with_one_argument(self) -> Iterator[ast.AST]:
        """What runs only with a single argument, as the file of Hugging Face's examples: a job gives none or pairs."""
        for each in self._nodes:
            if isinstance(each, ast.If) and "len(sys.argv) == 2" in ast.unparse(each.test):
                for statement in each.body:
                    yield from ast.walk(statement)

    def _call(self, call: ast.Call, parsers: set[str], foreign: set[str]) -> None:
        name = self._name(call)
        words = {word.arg: word.value for word in call.keywords}
        tolerant = getattr(words.get("return_remaining_strings", ast.Constant(False)), "value", True) is not False
        handed_on = any(isinstance(each, ast.Name) and each.id in parsers for each in call.args)
        if name in _TOLERANT or tolerant or (handed_on and name not in self._functions):
            raise CannotTellError
        if name in _PARSING and not self._reads_command_line(call.args[0] if call.args else words.get("args")):
            raise CannotTellError
        if name == "ArgumentParser":
            if words.keys() & {"parents", "fromfile_prefix_chars", "prefix_chars"}:
                raise CannotTellError
            self._found.abbreviations &= getattr(words.get("allow_abbrev"), "value", True) is not False
        elif name.endswith("Parser") and name != "HfArgumentParser":
            raise CannotTellError  # such as trl's TrlParser, whose configurations have further fields
        if name == "add_subparsers":
            if getattr(words.get("required"), "value", False) is not True:
                raise CannotTellError
            called = getattr(words.get("dest"), "value", None) or "the subcommand"
            self._found.rules.append(Rule(options=(str(called),), required=True, positional=True))
        if name == "add_argument":
            if isinstance(call.func, ast.Attribute) and getattr(call.func.value, "id", "") in foreign:
                raise CannotTellError
            self._found.flags |= set(_flags(call))
            self._found.rules += _rules(call)
        if name == "HfArgumentParser":
            given = call.args[0] if call.args else next((w.value for w in call.keywords), None)
            for each in given.elts if isinstance(given, ast.Tuple | ast.List) else [given]:
                self._dataclass(each)

    def _reads_command_line(self, given: ast.expr | None) -> bool:
        """Whether a parser is given the command line: nothing, `sys.argv[1:]`, or what a function is called with."""
        if isinstance(given, ast.Name):
            return given.id in self._parameters
        return given is None or ast.unparse(given) in ("None", "sys.argv[1:]", "argv[1:]")

    def _dataclass(self, node: ast.expr | None) -> None:
        if isinstance(node, ast.Attribute):
            name = node.attr
        elif isinstance(node, ast.Name):
            name = node.id
        else:
            raise CannotTellError
        if name in self._classes:
            self._fields_of(self._classes[name])
        elif name in _TRAINER:
            self._found.trainer = max(filter(None, (name, self._found.trainer)), key=_TRAINER.index)
        elif name in self._imported:
            module = _Reader(self._folder, parsed(self._imported[name]))
            module._dataclass(ast.Name(name))
            self._found.flags |= module._found.flags
            self._found.rules += module._found.rules
            self._found.trainer = self._found.trainer or module._found.trainer
        else:
            raise CannotTellError

    def _fields_of(self, node: ast.ClassDef) -> None:
        for base in node.bases:
            self._dataclass(base)
        for each in node.body:
            if isinstance(each, ast.AnnAssign) and isinstance(each.target, ast.Name):
                if "ClassVar" in ast.unparse(each.annotation):
                    continue
                self._found.flags |= {f"--{name}" for name in _spelt(each.target.id)}
                self._found.rules.append(_rule_of_field(each, each.target.id))

    def _imports(self) -> Iterator[tuple[str, Path]]:
        """The names that are imported from files of the script's folder."""
        for each in self._nodes:
            if isinstance(each, ast.ImportFrom) and each.module:
                file = self._folder / f"{each.module.replace('.', '/')}.py"
                if file.is_file():
                    yield from ((alias.asname or alias.name, file) for alias in each.names)


_NUMBERS: Mapping[str, type[int] | type[float]] = {"int": int, "float": float}


def _rules(call: ast.Call) -> Iterator[Rule]:
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


def _rule_of_field(node: ast.AnnAssign, name: str) -> Rule:
    """The rule of one field of a dataclass, as HfArgumentParser makes it."""
    words = {word.arg: word.value for word in node.value.keywords} if isinstance(node.value, ast.Call) else {}
    is_field = isinstance(node.value, ast.Call) and ast.unparse(node.value.func).endswith("field")
    kind = re.sub(r"^(?:typing\.)?Optional\[(.+)\]$", r"\1", ast.unparse(node.annotation).strip("'\""))
    kind = kind.removesuffix(" | None")
    members = re.fullmatch(r"(?:typing\.)?[Ll]ist\[(\w+)\]", kind)
    kind = members[1] if members else kind
    literal = re.fullmatch(r"(?:typing\.)?Literal\[(.+)\]", kind)
    listed = ast.parse(f"[{literal[1]}]", mode="eval").body if literal else None
    return Rule(
        options=tuple(dict.fromkeys((name.replace("_", "-"), name))),
        required=node.value is None or (is_field and not words.keys() & {"default", "default_factory", "init"}),
        several=members is not None,
        choices=tuple(map(str, _constants(listed))),
        truth=kind == "bool" and members is None,
        number=_NUMBERS.get(kind),
    )


def _flags(call: ast.Call) -> Iterator[str]:
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
    yield from (flag.lstrip("-") for flag in _flags(call))
