"""Reads the model types and tasks of a transformers release from its source, parsed and not imported."""

from __future__ import annotations

import ast
from collections.abc import Iterable, Iterator

from extended_dlc.refresh._pip import RefreshError

_NAMES = ("CONFIG_MAPPING_NAMES", "CONFIG_MAPPING")


def types_in_source(sources: Iterable[str]) -> set[str]:
    """The keys of the config mapping: assigned as a literal, and extended by `.update(…)` or keyword unpacking."""
    types: set[str] = set()
    for source in sources:
        for statement in ast.parse(source).body:
            value: ast.expr | None = None
            if isinstance(statement, ast.Assign):
                named = any(isinstance(target, ast.Name) and target.id in _NAMES for target in statement.targets)
                value = statement.value if named else None
            elif isinstance(statement, ast.AnnAssign):
                named = isinstance(statement.target, ast.Name) and statement.target.id in _NAMES
                value = statement.value if named else None
            elif isinstance(statement, ast.Expr) and isinstance(statement.value, ast.Call):
                function = statement.value.func
                named = (
                    isinstance(function, ast.Attribute)
                    and function.attr == "update"
                    and isinstance(function.value, ast.Name)
                    and function.value.id in _NAMES
                )
                value = statement.value if named else None
            if value is not None:
                types |= set(_keys(value))
    if len(types) < 30:  # 4.0.0 has 37; fewer means that the mapping has an unknown form
        raise RefreshError(
            f"only {len(types)} model types found in models/auto: the mapping has a new form; report it, "
            "and refresh with an older transformers until this is mended"
        )
    return types


def tasks_in_source(source: str) -> dict[str, str | None]:
    """The pipeline tasks of `pipelines/__init__.py` -> the task that each is an alias of, or None."""
    tasks: dict[str, str | None] = {}
    for statement in ast.parse(source).body:
        if isinstance(statement, ast.Assign) and isinstance(statement.targets[0], ast.Name):
            name = statement.targets[0].id
            if name == "SUPPORTED_TASKS":
                tasks |= dict.fromkeys(_keys(statement.value))
            elif name == "TASK_ALIASES":
                tasks |= ast.literal_eval(statement.value)
        elif isinstance(statement, ast.FunctionDef) and statement.name == "_resolve_deprecated_task":
            tasks |= dict(_redirects(statement))
    if len(tasks) < 15:  # 4.17.0 has 22; fewer means that they have an unknown form
        raise RefreshError(
            f"only {len(tasks)} tasks found in pipelines/__init__.py: they have a new form; report it, and refresh "
            "with an older transformers until this is mended"
        )
    return tasks


def _redirects(function: ast.FunctionDef) -> Iterator[tuple[str, str]]:
    """The pairs of a body with `if task == "old": return "new"`."""
    for statement in function.body:
        match statement:
            case ast.If(
                test=ast.Compare(ops=[ast.Eq()], comparators=[ast.Constant(value=str(old))]),
                body=[*_, ast.Return(value=ast.Constant(value=str(new)))],
            ):
                yield old, new


def _keys(value: ast.expr) -> Iterator[str]:
    """The string keys of a dict, of pairs in a list, and of `OrderedDict(…)` of either."""
    match value:
        case ast.Dict(keys=keys, values=values):
            for key, inner in zip(keys, values, strict=True):
                if key is None:
                    yield from _keys(inner)
                elif isinstance(key, ast.Constant) and isinstance(key.value, str):
                    yield key.value
        case ast.List(elts=pairs) | ast.Tuple(elts=pairs):
            for pair in pairs:
                if isinstance(pair, ast.Tuple) and isinstance(pair.elts[0], ast.Constant):
                    yield str(pair.elts[0].value)
        case ast.Call(args=arguments, keywords=keywords):
            for argument in arguments:
                yield from _keys(argument)
            for keyword in keywords:
                if keyword.arg is None:
                    yield from _keys(keyword.value)
                else:
                    yield keyword.arg
