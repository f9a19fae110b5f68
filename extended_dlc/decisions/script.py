"""Reads from a training script's source which arguments it takes."""

from __future__ import annotations

import ast
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from extended_dlc.facts._tables import did_you_mean, table
from extended_dlc.options._values import is_token
from extended_dlc.options.training import TrainingCode, parsed

_TRAINER = ("TrainingArguments", "Seq2SeqTrainingArguments")

_TOLERANT = ("parse_known_args", "add_subparsers", "parse_yaml_file", "parse_json_file")
"""Calls with which a script takes more than the arguments of its parser."""


class CannotTellError(Exception):
    """The script takes arguments that its source does not show."""


@dataclass(frozen=True, kw_only=True)
class Rule:
    """What one `add_argument` of argparse wants of the value, as far as it is written out."""

    options: tuple[str, ...]
    required: bool = False
    takes_no_value: bool = False
    choices: tuple[str, ...] = ()
    number: type[int] | type[float] | None = None

    def wrong(self, name: str, value: str) -> str | None:
        """What is wrong with a value, and what to do."""
        if self.takes_no_value:
            return (
                f"'{name}' takes no value in the script's parser, and a job gives one (--{name} {value}): let it read "
                "one, as with type=json.loads, or leave the hyperparameter out"
            )
        if self.choices and value not in self.choices:
            return f"'{name}' ({value[:40]}) must be {', '.join(self.choices)}{did_you_mean(value, self.choices)}"
        if self.number is not None:
            try:
                self.number(value)
            except ValueError:
                kind = "a whole number" if self.number is int else "a number"
                return f"'{name}' ({value[:40]}) must be {kind}, which the script's parser reads"
        return None


@dataclass
class Arguments:
    """The arguments that a script's parser takes."""

    names: set[str] = field(default_factory=set)
    """Option names without dashes."""

    trainer: str | None = None
    """The transformers class whose fields are arguments too."""

    rules: list[Rule] = field(default_factory=list)


def check_hyperparameters(
    code: TrainingCode, script: str, hyperparameters: Mapping[str, object], *, transformers: str | None
) -> None:
    """Refuse hyperparameters that the script's parser would reject.

    A script passes unchecked if its source does not show the arguments: those of another package, or a parser that
    ignores unknown ones.
    """
    found = arguments_of(code, script)
    if found is None:
        return
    known = found.names | (_fields(found.trainer, transformers) if found.trainer else set())
    for name in hyperparameters:
        begun = {each.replace("-", "_") for each in known if each.startswith(name)}
        if name in known or len(begun) == 1:  # argparse accepts unique abbreviations
            continue
        if begun:
            raise ValueError(f"'{name}' could be {', '.join(sorted(begun)[:4])}: write the one that is meant")
        if found.trainer and name in _fields(found.trainer, None):
            raise ValueError(
                f"'{name}' is no argument of {found.trainer} in transformers {transformers}, and was one of another "
                f"release: see its migration guide{did_you_mean(name, known)}"
            )
        raise ValueError(
            f"'{name}' is no argument of {script}{did_you_mean(name, known)}: remove it, or add it to the parser"
        )
    _check_values(found, script, hyperparameters)


def _check_values(found: Arguments, script: str, hyperparameters: Mapping[str, object]) -> None:
    """Refuse values that the parser would reject, and arguments that it misses."""
    given = {_written_out(name, found.names): value for name, value in hyperparameters.items()}
    for rule in found.rules:
        said = [(name, given[name]) for name in rule.options if name in given]
        if rule.required and not said:
            raise ValueError(f"'{rule.options[-1]}' is required by {script}: give it, or a default in the parser")
        for name, value in said:
            text = str(value).lower() if isinstance(value, bool) else str(value)
            if not is_token(value) and (wrong := rule.wrong(name, text)):
                raise ValueError(wrong)


def _written_out(name: str, known: set[str]) -> str:
    """The option that an abbreviation stands for."""
    begun = [each for each in known if each.startswith(name)]
    return name if name in known or len(begun) != 1 else begun[0]


def arguments_of(code: TrainingCode, script: str) -> Arguments | None:
    """The arguments that the script's parser takes; None where the source does not show them."""
    file = Path(code.folder) / script
    try:
        found = _Reader(Path(code.folder), parsed(file)).read()
    except (CannotTellError, OSError, ValueError):
        return None
    return found if found.names or found.trainer else None


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
        self._classes = {each.name: each for each in tree.body if isinstance(each, ast.ClassDef)}
        self._imported = dict(self._imports())

    def read(self) -> Arguments:
        """The arguments of its parsers; CannotTellError where one takes more than the source shows."""
        parsers = {name for each in ast.walk(self._tree) if (name := _parser_made(each))}
        for each in ast.walk(self._tree):
            if isinstance(each, ast.Call):
                self._call(each, parsers)
        if len(parsers) != 1:  # nobody can tell here which of several parsers reads the arguments
            self._found.rules.clear()
        return self._found

    def _call(self, call: ast.Call, parsers: set[str]) -> None:
        name = call.func.attr if isinstance(call.func, ast.Attribute) else getattr(call.func, "id", "")
        tolerant = any(
            word.arg == "return_remaining_strings" and getattr(word.value, "value", True) is not False
            for word in call.keywords
        )
        handed_on = any(isinstance(each, ast.Name) and each.id in parsers for each in call.args)
        if name in _TOLERANT or tolerant or handed_on:
            raise CannotTellError
        if name == "ArgumentParser" and any(word.arg in ("parents", "fromfile_prefix_chars") for word in call.keywords):
            raise CannotTellError
        if name != "ArgumentParser" and name.endswith("Parser") and name not in ("HfArgumentParser", "add_parser"):
            raise CannotTellError  # such as trl's TrlParser, whose configurations have further fields
        if name == "add_argument":
            options = tuple(_options(call))
            self._found.names |= set(options)
            self._found.rules += _rules(call, options)
        if name == "HfArgumentParser":
            given = call.args[0] if call.args else next((w.value for w in call.keywords), None)
            for each in given.elts if isinstance(given, ast.Tuple | ast.List) else [given]:
                self._dataclass(each)

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
            self._found.names |= module._found.names
            self._found.trainer = self._found.trainer or module._found.trainer
        else:
            raise CannotTellError

    def _fields_of(self, node: ast.ClassDef) -> None:
        for base in node.bases:
            self._dataclass(base)
        for each in node.body:
            if isinstance(each, ast.AnnAssign) and isinstance(each.target, ast.Name):
                self._found.names |= set(_spelt(each.target.id))

    def _imports(self) -> Iterator[tuple[str, Path]]:
        """The names that are imported from files of the script's folder."""
        for each in ast.walk(self._tree):
            if isinstance(each, ast.ImportFrom) and each.module:
                file = self._folder / f"{each.module.replace('.', '/')}.py"
                if file.is_file():
                    yield from ((alias.asname or alias.name, file) for alias in each.names)


def _parser_made(node: ast.AST) -> str | None:
    """The variable that a new parser is assigned to."""
    if isinstance(node, ast.Assign) and isinstance(node.value, ast.Call) and isinstance(node.targets[0], ast.Name):
        func = node.value.func
        made = func.attr if isinstance(func, ast.Attribute) else getattr(func, "id", "")
        return node.targets[0].id if made.endswith("Parser") else None
    return None


def _rules(call: ast.Call, options: tuple[str, ...]) -> Iterator[Rule]:
    """The rule of one `add_argument`; none for a positional argument, and for one that takes several values."""
    words = {word.arg: word.value for word in call.keywords}
    if not options or None in words or "nargs" in words:
        return
    action = getattr(words.get("action"), "value", "store")
    choices = words.get("choices")
    listed = choices.elts if isinstance(choices, (ast.List, ast.Tuple, ast.Set)) else []
    constants = [each.value for each in listed if isinstance(each, ast.Constant)]
    yield Rule(
        options=options,
        required=getattr(words.get("required"), "value", False) is True,
        takes_no_value=action in ("store_true", "store_false", "store_const", "append_const", "count"),
        choices=tuple(map(str, constants)) if len(constants) == len(listed) else (),
        number={"int": int, "float": float}.get(getattr(words.get("type"), "id", "")),
    )


def _options(call: ast.Call) -> Iterator[str]:
    """The options of one `add_argument`, without their dashes."""
    if not call.args:
        raise CannotTellError
    for each in call.args:
        if not isinstance(each, ast.Constant) or not isinstance(each.value, str):
            raise CannotTellError
        if each.value.startswith("-"):
            yield each.value.lstrip("-")
