"""Reads the options from the library's source: their names, types, defaults and docstrings.

The settings are read into the same options that the constructs take, so the options are described there alone. The
source is read and not imported, because a construct's module loads the CDK, which `extended-dlc login` runs before
every synth without.
"""

from __future__ import annotations

import ast
import functools
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

PACKAGE = Path(__file__).parents[1]


@dataclass(frozen=True, kw_only=True)
class Described:
    """One option."""

    name: str
    annotation: str
    """Its type annotation, as in the source."""

    text: str
    """Its docstring, on one line."""

    required: bool
    default: Any = None
    """None where the default is not a literal."""


@functools.cache
def described(module: str, name: str) -> tuple[Described, ...]:
    """The options of a class of the package: a dataclass's fields with those it inherits, or a constructor's arguments.

    :param module: As `options.hosting`.
    """
    tree = _tree(module)
    (found,) = [node for node in tree.body if isinstance(node, ast.ClassDef) and node.name == name]
    if any(isinstance(each, ast.FunctionDef) and each.name == "__init__" for each in found.body):
        return tuple(_arguments(found))
    options: dict[str, Described] = {}
    classes = {each.name for each in tree.body if isinstance(each, ast.ClassDef)}
    for base in found.bases:
        if isinstance(base, ast.Name) and base.id in classes:
            options |= {each.name: each for each in described(module, base.id)}
    options |= {each.name: each for each in _fields(found, _constants(tree))}
    return tuple(options.values())


def summary(module: str, name: str) -> str:
    """The first paragraph of a class's docstring, on one line."""
    (found,) = [node for node in _tree(module).body if isinstance(node, ast.ClassDef) and node.name == name]
    return _one_line((ast.get_docstring(found) or "").partition("\n\n")[0])


@functools.cache
def _tree(module: str) -> ast.Module:
    return ast.parse((PACKAGE / f"{module.replace('.', '/')}.py").read_text("utf-8"))


def _fields(node: ast.ClassDef, constants: Mapping[str, ast.expr]) -> Iterator[Described]:
    """The annotated names in the body of a class, each with the docstring after it."""
    for at, each in enumerate(node.body):
        if isinstance(each, ast.AnnAssign) and isinstance(each.target, ast.Name):
            after = node.body[at + 1] if at + 1 < len(node.body) else None
            text = ""
            if isinstance(after, ast.Expr) and isinstance(after.value, ast.Constant):
                text = str(after.value.value)
            value = each.value
            factory = isinstance(value, ast.Call)  # field(default=…, kw_only=True)
            if isinstance(value, ast.Call):
                given = {word.arg: word.value for word in value.keywords}
                value = given.get("default")
            yield Described(
                name=each.target.id,
                annotation=ast.unparse(each.annotation),
                text=_one_line(text),
                required=value is None and not factory,
                default=_plain(value, constants),
            )


def _arguments(node: ast.ClassDef) -> Iterator[Described]:
    """The arguments of a constructor after its scope and id, each with its `:param` of the docstring."""
    (init,) = [each for each in node.body if isinstance(each, ast.FunctionDef) and each.name == "__init__"]
    texts = dict(re.findall(r":param (\w+): (.*?)(?=\n\s*:param|\Z)", ast.get_docstring(init) or "", flags=re.DOTALL))
    arguments = init.args
    defaults = [None] * (len(arguments.args) - len(arguments.defaults)) + arguments.defaults
    given = [*zip(arguments.args, defaults, strict=True)]
    given += zip(arguments.kwonlyargs, arguments.kw_defaults, strict=True)
    for argument, default in given:
        if argument.arg not in ("self", "scope", "construct_id") and argument.annotation is not None:
            yield Described(
                name=argument.arg,
                annotation=ast.unparse(argument.annotation),
                text=_one_line(texts.get(argument.arg, "")),
                required=default is None,
                default=_plain(default, {}),
            )


def _constants(tree: ast.Module) -> dict[str, ast.expr]:
    """The constants of a module."""
    return {
        each.targets[0].id: each.value
        for each in tree.body
        if isinstance(each, ast.Assign) and isinstance(each.targets[0], ast.Name)
    }


def _plain(node: ast.expr | None, constants: Mapping[str, ast.expr]) -> Any:
    if isinstance(node, ast.Name):
        node = constants.get(node.id)
    if node is None:
        return None
    try:
        return ast.literal_eval(node)
    except ValueError:
        return None


def _one_line(text: str) -> str:
    return " ".join(text.split())
