"""The last step of the image: `python prove.py 5.23.0 bloom,whisper` proves what it promises, then compiles start-up.

Every failed proof is printed in plain words with what to change; the build then fails.
"""

from __future__ import annotations

import importlib
import json
import os
import py_compile
import re
import sys
import tempfile
import traceback
from collections.abc import Callable, Iterator
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


def tiny_models_answer() -> Iterator[str]:
    """The server loads a tiny random model of each common kind and gets an answer, as it does at start-up."""
    from extended_dlc_server.model import load_model
    from extended_dlc_server.settings import Settings

    import tiny_models

    # what the process imports besides: the start-up that is compiled below is the whole one
    for module in ("app", "__main__"):
        importlib.import_module(f"{SERVER}.{module}")
    for module in ("uvicorn.protocols.http.h11_impl", "uvicorn.lifespan.off", "uvicorn.loops.asyncio"):
        importlib.import_module(module)
    for name, make in tiny_models.MAKERS.items():
        with tempfile.TemporaryDirectory() as folder:
            try:
                make(Path(folder))
                load_model(Settings(model_folder=Path(folder)))
            except Exception as error:
                traceback.print_exc()
                yield f"a tiny {name} does not answer ({error}): this pair of base and transformers does not work"


def compile_start_up(before: dict[str, str]) -> None:
    """Bytecode for what start-up imported, of this image's own layers only: the base has its own.

    Unchecked hashes: no file time can make it stale, and two builds make the same bytes.
    """
    own = {Path(__file__).parent.parent / SERVER}
    for name, has in install.installed().items():
        if before.get(name) != has:
            own.update(Path(file.locate()).resolve() for file in files(name) or () if file.suffix == ".py")
    compiled = size = 0
    for module in list(sys.modules.values()):
        source = Path(getattr(module, "__file__", None) or "")
        if source.suffix == ".py" and (source.resolve() in own or source.parent in own):
            made = py_compile.compile(
                str(source), doraise=True, invalidation_mode=py_compile.PycInvalidationMode.UNCHECKED_HASH
            )
            compiled += 1
            size += os.path.getsize(made or source)
    print(f"compiled {compiled} modules of start-up, {size / 1e6:.1f} MB of bytecode")


def main(asked: str, model_types: str) -> None:
    """Run the proofs in order, and compile if all hold."""
    record = json.loads(install.RECORD.read_text())
    before: dict[str, str] = record["installed"]
    proofs: list[Callable[[], Iterator[str]]] = [
        lambda: transformers_is_the_promised_one(asked),
        server_requirements_are_the_pinned_ones,
        lambda: the_base_keeps_its_torch(before),
        lambda: pip_has_no_new_complaints(record["complaints"]),
        lambda: model_types_are_known(asked, model_types),
        tiny_models_answer,
        lambda: neighbours_can_be_imported(before),
    ]
    # the modules of a start-up are those that the models imported, before the neighbours add theirs
    problems: list[str] = []
    for proof in proofs:
        problems.extend(proof())
        if proof is tiny_models_answer and not problems:
            compile_start_up(before)
    if problems:
        sys.exit("\nthe image does not keep its promises:\n  " + "\n  ".join(problems))
    print(f"proved: transformers {asked} on torch {before['torch']}, model types: {model_types or 'none asked'}")


def _version(name: str) -> str | None:
    try:
        return version(name)
    except PackageNotFoundError:
        return None


if __name__ == "__main__":
    main(sys.argv[1], re.sub(r"\s", "", sys.argv[2] if len(sys.argv) > 2 else ""))
