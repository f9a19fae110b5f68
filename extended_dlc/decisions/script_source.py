"""Reads from a training script's source which arguments its parser takes.

Only what is certain counts: a source that could take more arguments than it shows is not read at all.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

from extended_dlc.decisions.script_rules import (
    CannotTellError,
    Rule,
    aliases_of_field,
    flags_of_call,
    rule_of_field,
    rules_of_call,
    written_text,
)
from extended_dlc.options._folders import parsed
from extended_dlc.options.training import TrainingCode

TRAINER = ("TrainingArguments", "Seq2SeqTrainingArguments")

_ARGPARSE = ("argparse.ArgumentParser",)
_OF_DATACLASSES = ("transformers.HfArgumentParser", "transformers.hf_argparser.HfArgumentParser")

_OTHER_READERS = {
    *("absl", "cappa", "chz", "click", "clize", "configargparse", "cyclopts", "docopt", "draccus", "fire", "hydra"),
    *("jsonargparse", "optparse", "pydantic_settings", "rich_click", "simple_parsing", "tap", "typer", "tyro"),
}
"""Packages that read the command line in ways of their own, most from a function's signature or a class."""

_TOLERANT = ("parse_known_args", "parse_known_intermixed_args", "parse_yaml_file", "parse_json_file", "parse_dict")
"""Calls with which a script takes more than the arguments of its parser."""

_INSIDES = ("_add_action", "_add_container_actions", "_actions", "_option_string_actions")
"""Parts of argparse by which a parser gets arguments without `add_argument`."""

_PARSING = ("parse_args", "parse_intermixed_args", "parse_args_into_dataclasses")

_GROUPS = ("add_argument_group", "add_mutually_exclusive_group")


@dataclass
class Arguments:
    """The arguments that a script's parser takes."""

    script: str
    """The script whose parser it is: another one where the script hands its command line on."""

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
        return {flag.lstrip("-") for flag in self.flags if flag_of(flag.lstrip("-")) == flag}

    def meant(self, name: str) -> str | None:
        """The option of that name which no hyperparameter reaches."""
        return next((flag for flag in sorted(self.flags) if flag.lstrip("-") == name), None)


def flag_of(name: str) -> str:
    """How SageMaker's toolkit writes a hyperparameter's name (sagemaker-training, `mapping.py`)."""
    return f"-{name}" if len(name) == 1 else f"--{name}"


def spellings(name: str) -> Iterator[str]:
    """The spellings of a field that HfArgumentParser accepts."""
    yield from (name, name.replace("_", "-"), f"no_{name}", f"no-{name.replace('_', '-')}")


def arguments_of(code: TrainingCode, script: str) -> Arguments | None:
    """The arguments that the script's parser takes; None where the source does not show them.

    A script that only starts another with its command line, as with accelerate's launcher, has that one's arguments.
    """
    try:
        found = _Reader(_Source(Path(code.folder), launched_by(code, script) or script)).read()
    except (CannotTellError, OSError, ValueError):
        return None
    return found if found.flags or found.trainer or found.rules else None


def launched_by(code: TrainingCode, script: str) -> str | None:
    """The script of the code that this one only starts, with its own command line; None where it is not certain."""
    try:
        return _Source(Path(code.folder), script).launched
    except (OSError, ValueError):
        return None


class _Source:
    """One file of the code, and what the names in it stand for."""

    def __init__(self, folder: Path, script: str) -> None:
        self.folder, self.script = folder, script
        self.tree = parsed(folder / script)
        self.nodes = list(ast.walk(self.tree))
        self.calls = [each for each in self.nodes if isinstance(each, ast.Call)]
        self.classes = {each.name: each for each in self.tree.body if isinstance(each, ast.ClassDef)}
        self.functions = [each for each in self.nodes if isinstance(each, ast.FunctionDef | ast.AsyncFunctionDef)]
        self.parameters = {
            each.name: {arg.arg for arg in ast.walk(each.args) if isinstance(arg, ast.arg)} for each in self.functions
        }
        """Function -> names of its parameters."""

    @cached_property
    def origins(self) -> dict[str, str]:
        """Imported name -> what it is in its module, as `argparse.ArgumentParser`."""
        found: dict[str, str] = {}
        for each in self.nodes:
            if isinstance(each, ast.Import):
                found |= {name.asname or name.name.partition(".")[0]: name.name for name in each.names if name.asname}
                found |= {name.name.partition(".")[0]: name.name.partition(".")[0] for name in each.names}
            if isinstance(each, ast.ImportFrom):
                module = "." * each.level + (each.module or "")
                found |= {name.asname or name.name: f"{module}.{name.name}" for name in each.names}
        return found

    def origin(self, node: ast.AST) -> str:
        """The dotted name of an expression, by its module where that is imported; empty where it has none."""
        if isinstance(node, ast.Name):
            return self.origins.get(node.id, node.id)
        if isinstance(node, ast.Attribute) and (owner := self.origin(node.value)):
            return f"{owner}.{node.attr}"
        return ""

    def is_command_line(self, node: ast.expr) -> bool:
        """Whether it is `sys.argv[1:]`, or the same of a function's parameter."""
        if not isinstance(node, ast.Subscript) or ast.unparse(node.slice) != "1:":
            return False
        given = {name for parameters in self.parameters.values() for name in parameters}
        return self.origin(node.value) == "sys.argv" or (isinstance(node.value, ast.Name) and node.value.id in given)

    @property
    def packages(self) -> set[str]:
        """The packages that it imports."""
        return {origin.partition(".")[0] for origin in self.origins.values()}

    def file_of(self, name: str) -> str | None:
        """The file of the code from which a name is imported: beside the script, or in the code's folder."""
        module = self.origins.get(name, "").rpartition(".")[0].replace(".", "/")
        beside = (self.folder / self.script).parent
        files = (each / path for each in (beside, self.folder) for path in (f"{module}.py", f"{module}/__init__.py"))
        return next((each.relative_to(self.folder).as_posix() for each in files if module and each.is_file()), None)

    @property
    def launched(self) -> str | None:
        """The script that gets this one's command line, as in `["accelerate", "launch", "loop.py", *sys.argv[1:]]`."""
        scripts = {
            script
            for before in self._before_command_line()
            if before
            and (script := written_text(before[-1]))
            and script.endswith(".py")
            and (self.folder / script).is_file()
        }
        reads = any(self.origin(call.func) in (*_ARGPARSE, *_OF_DATACLASSES) for call in self.calls)
        return None if reads or len(scripts) != 1 else scripts.pop()

    def _before_command_line(self) -> Iterator[list[ast.expr]]:
        """What stands before the command line in the lists that end with it: `[…, *sys.argv[1:]]`, `[…] + …`."""
        for each in self.nodes:
            before, end = [], None
            if isinstance(each, ast.List | ast.Tuple) and each.elts and isinstance(each.elts[-1], ast.Starred):
                before, end = each.elts[:-1], each.elts[-1].value
            elif isinstance(each, ast.BinOp) and isinstance(each.left, ast.List):
                before, end = each.left.elts, each.right
            if end is not None and self.is_command_line(end):
                yield before


class _Reader:
    """Reads the arguments of the parsers in one source."""

    def __init__(self, source: _Source) -> None:
        self._source = source
        self._found = Arguments(script=source.script)
        self._made = [each for each in source.calls if source.origin(each.func) in (*_ARGPARSE, *_OF_DATACLASSES)]

    def read(self) -> Arguments:
        """The arguments of its parsers; CannotTellError where one takes more than the source shows."""
        self._refuse_other_ways()
        source, found = self._source, self._found
        # of another module's parser, the source does not show all arguments
        foreign = {*source.origins, *(text for text, call in self._assigned() if not self._makes_arguments(call))}
        handed = self._parsers()
        ignored = set(map(id, self._with_one_argument()))
        for each in source.calls:
            if id(each) not in ignored:
                self._call(each, handed, foreign)
        if found.flags and not self._made:
            raise CannotTellError
        names = [name for rule in found.rules for name in rule.options]
        # nobody can tell here which of several rules counts, or what a changed one is
        if len(self._made) != 1 or len(set(names)) < len(names) or self._rules_may_differ():
            found.rules.clear()
        return found

    def _refuse_other_ways(self) -> None:
        """Raise where arguments come and go by other ways than a parser's `add_argument`."""
        source = self._source
        called = {id(each.func) for each in source.calls}
        if source.packages & _OTHER_READERS:
            raise CannotTellError
        for each in source.nodes:
            if isinstance(each, ast.Attribute):
                handed_on = each.attr == "add_argument" and id(each) not in called
                if handed_on or each.attr in _INSIDES or source.origin(each.value) == "sys.argv":
                    raise CannotTellError
            is_changed = not isinstance(getattr(each, "ctx", ast.Load()), ast.Load)
            if is_changed and source.origin(each.value if isinstance(each, ast.Subscript) else each) == "sys.argv":
                raise CannotTellError

    def _rules_may_differ(self) -> bool:
        """Whether a rule that is written out may not be the one that counts when the script runs."""
        source = self._source
        stored = {
            each.attr for each in source.nodes if isinstance(each, ast.Attribute) and isinstance(each.ctx, ast.Store)
        }
        named = {*source.parameters, *source.classes, *source.origins}
        # HfArgumentParser reads more arguments from a file beside the script
        beside = (source.folder / source.script).with_suffix(".args").is_file()
        return bool(stored & {"required", "choices", "nargs", "type"} or named & {"int", "float", "str"} or beside)

    def _name(self, call: ast.Call) -> str:
        """The name of the function that is called, as its module has it."""
        if isinstance(call.func, ast.Attribute):
            return call.func.attr
        return self._source.origin(call.func).rpartition(".")[2]

    def _assigned(self) -> Iterator[tuple[str, ast.Call]]:
        """The variables and attributes to which a call's result is assigned."""
        for each in self._source.nodes:
            if isinstance(each, ast.Assign | ast.AnnAssign | ast.NamedExpr) and isinstance(each.value, ast.Call):
                target = each.targets[0] if isinstance(each, ast.Assign) else each.target
                if isinstance(target, ast.Name | ast.Attribute):
                    yield ast.unparse(target), each.value

    def _makes_arguments(self, call: ast.Call) -> bool:
        return call in self._made or self._name(call) in (*_GROUPS, *self._source.parameters)

    def _parsers(self) -> set[str]:
        """What holds a parser or a group of one: variables, attributes, the functions' parameters, calls of those."""
        source = self._source
        found = {text for text, call in self._assigned() if call in self._made or self._name(call) in _GROUPS}
        found |= {ast.unparse(call) for call in self._made}
        found |= {
            ast.unparse(call.func.value)
            for call in source.calls
            if isinstance(call.func, ast.Attribute) and call.func.attr == "add_argument"
        }
        while True:
            called = {self._name(call) for call in source.calls if _is_given(call, found)}
            more = set().union(*(source.parameters.get(name, set()) for name in called))
            making = {each.name for each in source.functions if _returns(each, found)}
            more |= {ast.unparse(call) for call in source.calls if self._name(call) in making}
            more |= {text for text, call in self._assigned() if self._name(call) in making}
            if more <= found:
                return found
            found |= more

    def _with_one_argument(self) -> Iterator[ast.AST]:
        """What runs only with a single argument, as the file of Hugging Face's examples: a job gives none or pairs."""
        for each in self._source.nodes:
            if isinstance(each, ast.If) and "len(sys.argv) == 2" in ast.unparse(each.test):
                for statement in each.body:
                    yield from ast.walk(statement)

    @cached_property
    def _under_conditions(self) -> set[int]:
        """What does not run each time."""
        conditions = [
            each
            for each in self._source.nodes
            if isinstance(each, ast.Try | ast.For | ast.While | ast.Match)
            or (isinstance(each, ast.If) and "__name__" not in ast.unparse(each.test))
        ]
        return {id(node) for each in conditions for node in ast.walk(each)}

    def _call(self, call: ast.Call, parsers: set[str], foreign: set[str]) -> None:
        name = self._name(call)
        words = {word.arg: word.value for word in call.keywords}
        tolerant = getattr(words.get("return_remaining_strings", ast.Constant(False)), "value", True) is not False
        handed_on = _is_given(call, parsers) and name not in self._source.parameters
        if name in _TOLERANT or tolerant or handed_on:
            raise CannotTellError
        if name in _PARSING and not self._reads_command_line(call.args[0] if call.args else words.get("args")):
            raise CannotTellError
        if call in self._made:
            self._parser(call, words)
        elif name.endswith("Parser"):
            raise CannotTellError  # such as trl's TrlParser, whose configurations have further fields
        if name == "add_subparsers":
            if getattr(words.get("required"), "value", False) is not True:
                raise CannotTellError
            called = getattr(words.get("dest"), "value", None) or "the subcommand"
            self._found.rules.append(Rule(options=(str(called),), required=True, positional=True))
        if name == "add_argument":
            if isinstance(call.func, ast.Attribute) and ast.unparse(call.func.value) in foreign:
                raise CannotTellError
            self._found.flags |= set(flags_of_call(call))
            if id(call) not in self._under_conditions:
                self._found.rules += rules_of_call(call)

    def _parser(self, call: ast.Call, words: Mapping[str | None, ast.expr]) -> None:
        """Read how a parser is made."""
        if words.keys() & {None, "parents", "fromfile_prefix_chars", "prefix_chars"}:
            raise CannotTellError
        self._found.abbreviations &= getattr(words.get("allow_abbrev"), "value", True) is not False
        if self._source.origin(call.func) in _OF_DATACLASSES:
            given = call.args[0] if call.args else words.get("dataclass_types")
            for each in given.elts if isinstance(given, ast.Tuple | ast.List) else [given]:
                self._dataclass(each)

    def _reads_command_line(self, given: ast.expr | None) -> bool:
        """Whether a parser is given the command line: nothing, `sys.argv[1:]`, or what a function is called with."""
        if isinstance(given, ast.Name):
            return any(given.id in parameters for parameters in self._source.parameters.values())
        return given is None or ast.unparse(given) == "None" or self._source.is_command_line(given)

    def _dataclass(self, node: ast.expr | None) -> None:
        origin = self._source.origin(node) if node is not None else ""
        name = origin.rpartition(".")[2]
        if isinstance(node, ast.Name) and node.id in self._source.classes:
            self._fields_of(self._source.classes[node.id])
        elif isinstance(node, ast.Name) and (file := self._source.file_of(node.id)):
            module = _Reader(_Source(self._source.folder, file))
            module._dataclass(ast.Name(name))
            self._found.flags |= module._found.flags
            self._found.rules += module._found.rules
            self._found.trainer = self._found.trainer or module._found.trainer
        elif name in TRAINER and origin.startswith("transformers."):
            self._found.trainer = max(filter(None, (name, self._found.trainer)), key=TRAINER.index)
        else:
            raise CannotTellError

    def _fields_of(self, node: ast.ClassDef) -> None:
        for base in node.bases:
            self._dataclass(base)
        for each in node.body:
            if isinstance(each, ast.AnnAssign) and isinstance(each.target, ast.Name):
                if re.search(r"\b(ClassVar|InitVar|KW_ONLY)\b", ast.unparse(each.annotation)):
                    continue
                self._found.flags |= {f"--{name}" for name in spellings(each.target.id)} | set(aliases_of_field(each))
                self._found.rules.append(rule_of_field(each, each.target.id))


def _is_given(call: ast.Call, texts: set[str]) -> bool:
    """Whether one of these expressions is an argument of a call, also in a list."""
    given = [*call.args, *(word.value for word in call.keywords)]
    given += [each for listed in given if isinstance(listed, ast.List | ast.Tuple) for each in listed.elts]
    return any(ast.unparse(each) in texts for each in given if isinstance(each, ast.Name | ast.Attribute | ast.Call))


def _returns(function: ast.FunctionDef | ast.AsyncFunctionDef, texts: set[str]) -> bool:
    """Whether a function returns one of these expressions."""
    returned = (each.value for each in ast.walk(function) if isinstance(each, ast.Return) and each.value is not None)
    return any(ast.unparse(each) in texts for each in returned)
