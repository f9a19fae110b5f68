"""Writes the generated parts of docs/architecture.md, from the code: `python -m maintain.architecture`.

The folders with their first sentence, what imports what, and the order in which a synth enters the library.
"""

from __future__ import annotations

import ast
import json
import re
import subprocess
import sys
import textwrap
from collections.abc import Iterable, Iterator
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

ROOT = Path(__file__).parents[1]
PAGE = ROOT / "docs" / "architecture.md"
PACKAGES = {"library": ROOT / "extended_dlc", "server": ROOT / "docker" / "inference" / "extended_dlc_server"}
"""What the page draws: the package that is installed, and the server in the image."""

LIBRARY = (
    *("cli", "smoke", "doctor", "rehearsal", "asking", "platform", "app", "training", "endpoint", "images", "models"),
    *("constructs", "decisions", "options", "refresh", "facts", "programs"),
)
SERVER = ("routes", "http", "model", "answering", "reading", "writing", "files", "machine")
ORDER = {"library": LIBRARY, "server": SERVER}
"""Imports run down these lists only."""


def folders(package: str) -> dict[str, str]:
    """Each folder of a package with the first sentence of its docstring, from top to bottom."""
    found = {}
    for file in PACKAGES[package].glob("*/__init__.py"):
        text = ast.get_docstring(ast.parse(file.read_text())) or ""
        found[file.parent.name] = " ".join(text.split("\n\n")[0].split())
    return {name: found[name] for name in sorted(found, key=lambda name: _level(package, name))}


def arrows(package: str) -> set[tuple[str, str]]:
    """Which folder imports something of which other one, where it runs; imports for types alone do not count."""
    found: set[tuple[str, str]] = set()
    for folder in folders(package):
        for file in (PACKAGES[package] / folder).rglob("*.py"):
            tops = {other.split(".")[0] for other in _imported(file, package)}
            found |= {(folder, other) for other in tops & set(ORDER[package]) if other != folder}
    return found


def upward(package: str) -> list[str]:
    """Arrows that run up, which there should not be."""
    return [
        f"{one} -> {other}" for one, other in sorted(arrows(package)) if _level(package, one) > _level(package, other)
    ]


def circle(package: str) -> list[str]:
    """Modules that import each other in a circle, in functions or not; empty without any."""
    root = PACKAGES[package]
    modules = {".".join(file.relative_to(root).with_suffix("").parts): file for file in root.rglob("*.py")}
    graph = {name: set(_imported(file, package)) - {name} for name, file in modules.items()}
    try:
        TopologicalSorter(graph).prepare()
    except CycleError as error:
        return list(error.args[1])
    return []


def _level(package: str, folder: str) -> int:
    order = ORDER[package]
    return order.index(folder) if folder in order else -1


def _imported(file: Path, package: str) -> Iterator[str]:
    """The package's modules that a module imports where it runs."""
    tree = ast.parse(file.read_text())
    typing = {
        id(inner)
        for node in ast.walk(tree)
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test)
        for inner in ast.walk(node)
    }
    here = file.relative_to(PACKAGES[package].parent).with_suffix("").parts
    for node in ast.walk(tree):
        named: list[tuple[str, ...]] = []
        if isinstance(node, ast.ImportFrom):
            base = here[: len(here) - node.level] if node.level else ()
            named = [(*base, *filter(None, (node.module or "").split(".")), alias.name) for alias in node.names]
        elif isinstance(node, ast.Import):
            named = [tuple(alias.name.split(".")) for alias in node.names]
        for parts in named if id(node) not in typing else ():
            if parts[0] == PACKAGES[package].name and (module := _module(parts[1:], PACKAGES[package])):
                yield module


def _module(parts: tuple[str, ...], root: Path) -> str:
    """The module of an imported name, below the package; empty for the package itself."""
    for end in range(len(parts), 0, -1):
        for found in (parts[:end], (*parts[:end], "__init__")):
            if root.joinpath(*found).with_suffix(".py").is_file():
                return ".".join(found)
    return ""


_WALK = """
import json, os, runpy, sys, tempfile
package, entered, handed = sys.argv[1], [], []
settings = json.load(open("cdk.json"))["context"]
model = next(iter(settings["extended-dlc"]["endpoints"].values()))["model"]
def look(frame, event, _):
    code = frame.f_code
    if event == "call" and code.co_filename.startswith(package) and not code.co_name.startswith("<"):
        module = os.path.relpath(code.co_filename, package)[:-3]
        if module not in entered and not imports(frame):
            entered.append(module)
        arguments = code.co_varnames[: code.co_argcount + code.co_kwonlyargcount]
        if module not in handed and any(has(frame.f_locals.get(name)) for name in arguments):
            handed.append(module)
def has(value, within=2):
    if isinstance(value, str):
        return value == model
    if isinstance(value, (list, tuple)):
        return any(has(each, within) for each in value)
    if type(value).__module__.startswith("extended_dlc"):
        value = getattr(value, "__dict__", {})
    return within > 0 and isinstance(value, dict) and any(has(each, within - 1) for each in list(value.values()))
def imports(frame):
    while frame := frame.f_back:
        if frame.f_code.co_name == "<module>" and frame.f_code.co_filename.startswith(package):
            return True
os.environ["CDK_CONTEXT_JSON"] = json.dumps(settings)
os.environ["CDK_OUTDIR"] = tempfile.mkdtemp()
sys.setprofile(look)
runpy.run_path("app.py", run_name="__main__")
sys.setprofile(None)
print(json.dumps([entered, handed]))
"""


def walk() -> tuple[list[str], list[str]]:
    """The modules that a synth of the shipped settings enters, in order, and those of them that are handed the model:
    by a call with its id as an argument, or with an object of this library, or a dict, that holds it.
    """
    made = subprocess.run(  # noqa: S603 - this Python and the program above
        [sys.executable, "-c", _WALK, PACKAGES["library"]], cwd=ROOT, capture_output=True, text=True, check=True
    )
    entered, handed = json.loads(made.stdout.splitlines()[-1])
    return entered, handed


def _table(package: str) -> Iterator[str]:
    yield "| Folder | What it holds |"
    yield "|---|---|"
    for name, what in folders(package).items():
        yield f"| `{name}/` | {what.replace('|', '/')} |"


def _picture(package: str) -> Iterator[str]:
    yield "```mermaid"
    yield "graph TD"
    for one, other in sorted(arrows(package)):
        yield f"  {one} --> {other}"
    yield "```"


def _walked(modules: Iterable[str]) -> Iterator[str]:
    yield "```mermaid"
    yield "graph LR"
    last = ""
    for number, module in enumerate(modules):
        yield f"  n{number}[{module}]" if not last else f"  {last} --> n{number}[{module}]"
        last = f"n{number}"
    yield "```"


def page(*, with_walk: bool = True) -> str:
    """The page with its generated parts made again; the walk, which takes a synth, only if asked."""
    text = PAGE.read_text()
    for package in PACKAGES:
        text = _between(text, f"{package} folders", _table(package))
        text = _between(text, f"{package} imports", _picture(package))
    if not with_walk:
        return text
    entered, handed = walk()
    text = _between(text, "synth", _walked(entered))
    return _between(text, "model", (textwrap.fill(", ".join(f"`{module}`" for module in handed) + ".", 120),))


def _between(text: str, name: str, lines: Iterable[str]) -> str:
    made = "\n".join(lines)
    pattern = re.compile(rf"(<!-- {name} -->\n).*?(\n<!-- end -->)", re.DOTALL)
    if not pattern.search(text):
        raise ValueError(f"docs/architecture.md lacks the mark '<!-- {name} -->'")
    return pattern.sub(lambda marks: f"{marks[1]}{made}{marks[2]}", text)


if __name__ == "__main__":
    PAGE.write_text(page())
    print(f"{PAGE.relative_to(ROOT)} is written")
