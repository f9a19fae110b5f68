"""The last step of the image: `python prove.py 5.23.0 bloom,whisper` proves what it promises, then compiles start-up.

Every failed proof is printed in plain words with what to change; the build then fails.
"""

from __future__ import annotations

import ast
import importlib
import importlib.util
import json
import marshal
import re
import subprocess
import sys
import tempfile
import traceback
from collections.abc import Iterator
from importlib.metadata import PackageNotFoundError, files, version
from pathlib import Path

import install

SERVER = "extended_dlc_server"


def transformers_is_the_promised_one(asked: str) -> Iterator[str]:
    """The release that was asked for is the one that Python finds."""
    import transformers

    if transformers.__version__ != asked:
        yield (
            f"transformers {transformers.__version__} is imported from {transformers.__file__} instead of {asked}: "
            "remove the second copy from the base's PYTHONPATH"
        )


def server_requirements_are_the_pinned_ones() -> Iterator[str]:
    """uvicorn and what it needs have the versions of requirements.txt."""
    for line in (install.HERE / "requirements.txt").read_text().splitlines():
        name, _, wanted = line.partition("==")
        if wanted and version(name) != wanted:
            yield f"{name} is {version(name)} instead of {wanted}: something in the base pins it, choose a newer base"


def the_base_keeps_its_torch(before: dict[str, str]) -> Iterator[str]:
    """Nothing that is compiled against the base's torch and CUDA was replaced, added or removed."""
    for name, had in sorted(before.items()):
        has = _version(name)
        if install.PROTECTED.fullmatch(name) and has != had:
            yield f"{name} was {had} in the base and is {has or 'gone'} now: choose a base whose {name} fits"
    for name in sorted(install.installed().keys() - before.keys()):
        if install.PROTECTED.fullmatch(name):
            yield f"{name} was not in the base and is now: choose a base that has it, or an older transformers"


def pip_has_no_new_complaints(before: list[str]) -> Iterator[str]:
    """Requirements that were met in the base are still met; what the base itself breaks is none of ours."""
    for complaint in sorted(set(install.complaints()) - set(before)):
        yield f"pip check: {complaint}: choose a transformers release that fits, or a newer base"


def neighbours_can_be_imported(before: dict[str, str]) -> Iterator[str]:
    """`pip check` sees no removed function; importing does."""
    for name in (*install.NEIGHBOURS, *install.OTHER_NEIGHBOURS):
        if name in before:
            try:
                importlib.import_module(name.replace("-", "_"))
            except Exception as error:
                yield (
                    f"{name} {_version(name)} of the base breaks with this transformers ({type(error).__name__}: "
                    f"{error}): choose a newer base, or uninstall {name} in it"
                )


def model_types_are_known(asked: str, model_types: str) -> Iterator[str]:
    """AutoConfig maps each promised type to a class."""
    from transformers.models.auto.configuration_auto import CONFIG_MAPPING

    for name in filter(None, (part.strip() for part in model_types.split(","))):
        if name not in CONFIG_MAPPING:
            yield (
                f"transformers {asked} does not know model type '{name}': it needs another release "
                "(usually a newer one), set TRANSFORMERS_VERSION to one that has it"
            )


def tiny_models_answer(folder: Path) -> Iterator[str]:
    """The server loads a tiny random model of each common kind and gets an answer, as it does at start-up."""
    from extended_dlc_server.model import load_model
    from extended_dlc_server.settings import Settings

    # what the process imports besides: the start-up that is compiled below is the whole one
    for module in ("app", "__main__"):
        importlib.import_module(f"{SERVER}.{module}")
    for module in ("uvicorn.protocols.http.h11_impl", "uvicorn.lifespan.off", "uvicorn.loops.asyncio"):
        importlib.import_module(module)
    for made in sorted(folder.iterdir()):
        try:
            load_model(Settings(model_folder=made))
        except Exception as error:
            traceback.print_exc()
            yield f"a tiny {made.name} does not answer ({error}): this pair of base and transformers does not work"


def compile_start_up(before: dict[str, str]) -> None:
    """Bytecode for what start-up imported, of this image's own layers only: the base has its own."""
    own = {Path(__file__).parent.parent / SERVER}
    for name, has in install.installed().items():
        if before.get(name) != has:
            own.update(Path(file.locate()).resolve() for file in files(name) or () if file.suffix == ".py")
    compiled = size = 0
    for module in list(sys.modules.values()):
        source = Path(getattr(module, "__file__", None) or "")
        if source.suffix == ".py" and (source.resolve() in own or source.parent in own):
            size += write_bytecode(source)
            compiled += 1
    print(f"compiled {compiled} modules of start-up, {size / 1e6:.1f} MB of bytecode")


def write_bytecode(source: Path) -> int:
    """Compile one module and return the bytes written.

    With an unchecked hash (PEP 552) no file time can make it stale, and two builds write the same bytes. Docstrings,
    a sixth of it all that no server reads, are left out where nothing at run time can miss them.
    """
    data = source.read_bytes()
    tree = ast.parse(data)
    if b"__doc__" not in data:
        drop_docstrings(tree)
    code = compile(tree, str(source), "exec", dont_inherit=True)
    target = Path(importlib.util.cache_from_source(str(source)))
    target.parent.mkdir(exist_ok=True)
    unchecked_hash = (1).to_bytes(4, "little") + importlib.util.source_hash(data)
    return target.write_bytes(importlib.util.MAGIC_NUMBER + unchecked_hash + marshal.dumps(code))


def drop_docstrings(tree: ast.AST) -> None:
    """Remove the docstrings of functions and classes, except where a decorator may read them while importing."""
    for node in ast.iter_child_nodes(tree):
        decorators = " ".join(map(ast.unparse, getattr(node, "decorator_list", ())))
        if "doc" in decorators or (decorators and isinstance(node, ast.ClassDef)):
            continue
        drop_docstrings(node)
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef) and ast.get_docstring(node, False):
            node.body[:1] = [] if len(node.body) > 1 else [ast.copy_location(ast.Pass(), node.body[0])]


def main(asked: str, model_types: str) -> None:
    """Run the proofs in order; compile if all hold; ask the models again, of the bytecode this time."""
    record = json.loads(install.RECORD.read_text())
    before: dict[str, str] = record["installed"]
    with tempfile.TemporaryDirectory() as folder:
        # Each in a process of its own: what making models and importing neighbours loads is no part of start-up.
        _run(str(install.HERE / "tiny_models.py"), folder)
        problems = [
            *transformers_is_the_promised_one(asked),
            *server_requirements_are_the_pinned_ones(),
            *the_base_keeps_its_torch(before),
            *pip_has_no_new_complaints(record["complaints"]),
            *model_types_are_known(asked, model_types),
            *tiny_models_answer(Path(folder)),
        ]
        if not problems:
            compile_start_up(before)
            _run("-c", f"import prove, pathlib; assert not list(prove.tiny_models_answer(pathlib.Path({folder!r})))")
    problems += neighbours_can_be_imported(before)
    if problems:
        sys.exit("\nthe image does not keep its promises:\n  " + "\n  ".join(problems))
    print(f"proved: transformers {asked} on torch {before['torch']}, model types: {model_types or 'none asked'}")


def _run(*arguments: str) -> None:
    command = [sys.executable, "-B", *arguments]
    subprocess.run(command, check=True, cwd=install.HERE)  # noqa: S603 - no shell, own arguments


def _version(name: str) -> str | None:
    try:
        return version(name)
    except PackageNotFoundError:
        return None


if __name__ == "__main__":
    main(sys.argv[1], re.sub(r"\s", "", sys.argv[2] if len(sys.argv) > 2 else ""))
