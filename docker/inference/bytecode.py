"""Writes bytecode for chosen modules only: image layers stay small and start fast. Must run on Python 3.8."""

from __future__ import annotations

import ast
import importlib.util
import marshal
import sys
from collections.abc import Iterable
from pathlib import Path

_DOCUMENTED = (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)


def compile_modules(sources: Iterable[Path]) -> None:
    """Write bytecode for each of these files, and print the total size."""
    sizes = [write_bytecode(source) for source in sources]
    print(f"compiled {len(sizes)} modules of start-up, {sum(sizes) / 1e6:.1f} MB of bytecode")


def write_bytecode(source: Path) -> int:
    """Compile one module and return the bytes written.

    With an unchecked hash (PEP 552) no file time can make the bytecode stale, and two builds write the same bytes.
    Docstrings are a sixth of the bytecode. They are left out where no code reads them at run time.
    """
    data = source.read_bytes()
    tree = ast.parse(data)
    # drop_docstrings uses ast.unparse on decorators, which Python 3.8 lacks.
    if b"__doc__" not in data and sys.version_info >= (3, 9):
        drop_docstrings(tree)
    code = compile(tree, str(source), "exec", dont_inherit=True)
    target = Path(importlib.util.cache_from_source(str(source)))
    target.parent.mkdir(exist_ok=True)
    unchecked_hash = (1).to_bytes(4, "little") + importlib.util.source_hash(data)
    return target.write_bytes(importlib.util.MAGIC_NUMBER + unchecked_hash + marshal.dumps(code))


def drop_docstrings(tree: ast.AST) -> None:
    """Remove the docstrings of functions and classes, except where a decorator may read them at import.

    The decorators of transformers 4.52 to 4.57 also read the docstrings of configuration classes.
    """
    for node in ast.iter_child_nodes(tree):
        decorators = " ".join(map(ast.unparse, getattr(node, "decorator_list", ())))
        kept = isinstance(node, ast.ClassDef) and (decorators or node.name.endswith("Config"))
        if kept or "doc" in decorators:
            continue
        drop_docstrings(node)
        if isinstance(node, _DOCUMENTED) and ast.get_docstring(node, False):
            node.body[:1] = [] if len(node.body) > 1 else [ast.copy_location(ast.Pass(), node.body[0])]
