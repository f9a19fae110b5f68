"""The image's last build step: tests the image, then compiles the modules of start-up. Must run on Python 3.8.

    python prove.py 5.23.0 bloom,whisper                 tests the native server
    python prove.py --server=stock 4.24.0 bloom,whisper  tests the base's own server
    python3 prove.py --server=vllm 5.24.0 bloom,llama    tests what can be tested of vLLM without a GPU

Every failed check is printed with what to change; the build then fails.
"""

from __future__ import annotations

import importlib
import json
import os
import re
import subprocess
import sys
import tempfile
import traceback
from collections.abc import Iterator
from importlib.metadata import PackageNotFoundError, files, version
from pathlib import Path

import install
from bytecode import compile_modules

SERVER = "extended_dlc_server"
OWN = Path(__file__).parent.parent / SERVER

STOCK_MODELS = {"bert-classifier": ("bert", "text-classification"), "bloom": ("bloom", "text-generation")}
"""Kinds of tiny models to test the stock server with, their model type and task: those that need no ffmpeg."""


def transformers_is_the_promised_one(asked: str) -> Iterator[str]:
    """Check that Python imports the requested release."""
    import transformers

    if transformers.__version__ != asked:
        yield (
            f"transformers {transformers.__version__} is imported from {transformers.__file__} instead of {asked}: "
            "remove the second copy from the base's PYTHONPATH"
        )


def server_requirements_are_the_pinned_ones() -> Iterator[str]:
    """Check that uvicorn and its dependencies have the versions of requirements.txt."""
    for line in (install.HERE / "requirements.txt").read_text().splitlines():
        name, _, wanted = line.partition("#")[0].strip().partition("==")
        if wanted and version(name) != wanted:
            yield f"{name} is {version(name)} instead of {wanted}: something in the base pins it, choose a newer base"


def audio_can_be_decoded() -> Iterator[str]:
    """Check that the base's or the installed ffmpeg runs."""
    ffmpeg = install.find_ffmpeg()
    try:
        if ffmpeg is None:
            raise OSError("it is not there")
        subprocess.run([ffmpeg, "-version"], check=True, capture_output=True)  # noqa: S603 - no shell, own arguments
    except (OSError, subprocess.CalledProcessError) as error:
        yield f"ffmpeg does not run ({error}), and audio other than WAV needs it: choose a base with a working one"


def the_base_keeps_its_torch(before: dict[str, str]) -> Iterator[str]:
    """Check that no package tied to the base's torch and CUDA was replaced, added or removed."""
    for name, had in sorted(before.items()):
        has = _version(name)
        if install.PROTECTED.fullmatch(name) and has != had:
            yield f"{name} was {had} in the base and is {has or 'gone'} now: choose a base whose {name} fits"
    for name in sorted(install.installed().keys() - before.keys()):
        if install.PROTECTED.fullmatch(name):
            yield f"{name} was not in the base and is now: choose a base that has it, or an older transformers"


def pip_has_no_new_complaints(before: list[str]) -> Iterator[str]:
    """Check that requirements met in the base are still met; the base's own conflicts are ignored."""
    way_out = "choose a transformers release that fits, or a newer base"
    if os.environ.get("LOCK"):
        way_out = "the lock does not fit: run 'extended-dlc lock' with this base, or leave 'lock' out"
    for complaint in sorted(set(install.complaints()) - set(before)):
        yield f"pip check: {complaint}: {way_out}"


def neighbours_can_be_imported(before: dict[str, str]) -> Iterator[str]:
    """Check that related packages can be imported: `pip check` does not notice removed functions."""
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
    """Check that AutoConfig knows each requested model type."""
    from transformers.models.auto.configuration_auto import CONFIG_MAPPING

    for name in filter(None, (part.strip() for part in model_types.split(","))):
        if name not in CONFIG_MAPPING:
            yield (
                f"transformers {asked} does not know model type '{name}': it needs another release "
                "(usually a newer one), set TRANSFORMERS_VERSION to one that has it"
            )


def tiny_models_answer(folder: Path) -> Iterator[str]:
    """Check that the server loads a tiny random model of each common kind, with its warm-up request."""
    from extended_dlc_server.model.loading import load_model
    from extended_dlc_server.settings import Settings

    # Import the other modules of the process too, so that they are compiled below.
    for module in ("routes.app", "serving", "__main__"):
        importlib.import_module(f"{SERVER}.{module}")
    for module in ("uvicorn.protocols.http.httptools_impl", "uvicorn.lifespan.off", "uvloop"):
        importlib.import_module(module)
    for made in sorted(folder.iterdir()):
        try:
            load_model(Settings(model_folder=made))
        except Exception as error:
            traceback.print_exc()
            yield f"a tiny {made.name} does not answer ({error}): this pair of base and transformers does not work"


def stock_server_answers(folder: Path) -> Iterator[str]:
    """Check that launcher and worker of the base's own server can be imported and that its handler runs tiny models."""
    package = "sagemaker_huggingface_inference_toolkit"
    try:
        importlib.import_module(f"{package}.serving")
        importlib.import_module("mms.model_service_worker")
        handler = importlib.import_module(f"{package}.handler_service")
    except Exception as error:
        traceback.print_exc()
        yield (
            f"the base's own server ({install.TOOLKIT} {_version(install.TOOLKIT)}) does not start with this "
            f"transformers ({type(error).__name__}: {error}): choose a release that it can run (the project's facts "
            f"say which), or {install.NATIVE}"
        )
        return
    for made in sorted(folder.iterdir()):
        os.environ["HF_TASK"] = STOCK_MODELS[made.name][1]
        try:
            handler.HuggingFaceHandlerService().load(str(made))("hello world")
        except Exception as error:
            traceback.print_exc()
            yield (
                f"a tiny {made.name} does not answer on the base's own server ({error}): choose another transformers "
                f"release, or {install.NATIVE}"
            )


def vllm_can_be_imported(asked: str) -> Iterator[str]:
    """Check the most of vLLM that can be imported without a GPU: engine options, model registry, its transformers."""
    try:
        importlib.import_module("vllm.engine.arg_utils")
    except Exception as error:
        traceback.print_exc()
        yield (
            f"vLLM {_version('vllm')} cannot be imported with transformers {asked} ({type(error).__name__}: {error}): "
            "choose a newer base, or an older transformers release"
        )


def start_up(before: dict[str, str], own: Path = OWN) -> Iterator[Path]:
    """Yield the imported modules that this image adds, those in `own` among them.

    The base's modules have bytecode already.
    """
    added: set[Path] = set()
    for name, has in install.installed().items():
        if before.get(name) != has:
            added.update(Path(str(file.locate())).resolve() for file in files(name) or () if file.suffix == ".py")
    for module in list(sys.modules.values()):
        source = Path(getattr(module, "__file__", None) or "")
        if source.suffix == ".py" and (source.resolve() in added or own in source.parents):
            yield source


def main(asked: str, model_types: str = "", server: str = "native") -> None:
    """Run the checks; if all pass, compile the modules and test the models again with the bytecode."""
    record = json.loads(install.RECORD.read_text())
    before: dict[str, str] = record["installed"]
    problems = [
        *transformers_is_the_promised_one(asked),
        *the_base_keeps_its_torch(before),
        *pip_has_no_new_complaints(record["complaints"]),
        *model_types_are_known(asked, model_types),
    ]
    if server == "vllm":
        problems += vllm_can_be_imported(asked)
    else:
        problems += pipelines_answer(server, before, problems)
    if problems:
        sys.exit("\nthe image does not keep its promises:\n  " + "\n  ".join(problems))
    print(
        f"proved: transformers {asked} on torch {before['torch']} with the {server} server, "
        f"model types: {model_types or 'none asked'}"
    )


def pipelines_answer(server: str, before: dict[str, str], known: list[str]) -> Iterator[str]:
    """Check that tiny models answer; if all checks pass, compile the modules and test the models once more with those.

    :param known: The failed checks so far: with any, no module is compiled.
    """
    native = server == "native"
    answers = tiny_models_answer if native else stock_server_answers
    with tempfile.TemporaryDirectory() as folder:
        # In its own process: modules loaded to create the models are no part of start-up. Neighbours are imported last,
        # for the same reason.
        if not runs(str(install.HERE / "tiny_models.py"), folder, *(() if native else _orders())):
            sys.exit(
                "the tiny models for the proof cannot be made (see above): this pair of base and transformers fails"
            )
        problems = [
            *((*server_requirements_are_the_pinned_ones(), *audio_can_be_decoded()) if native else ()),
            *answers(Path(folder)),
        ]
        yield from problems
        if not problems and not known:
            compile_modules(start_up(before))
            again = f"import prove, pathlib, sys; sys.exit(any(prove.{answers.__name__}(pathlib.Path({folder!r}))))"
            if not runs("-c", again):
                yield "the bytecode written for start-up does not work (see above): report it to the project"
    yield from neighbours_can_be_imported(before)


def _orders() -> list[str]:
    """Return the tiny models for the stock server whose model type this release has."""
    from transformers.models.auto.configuration_auto import CONFIG_MAPPING

    return [f"{kind}:1={kind}" for kind, (model_type, _) in STOCK_MODELS.items() if model_type in CONFIG_MAPPING]


def runs(*arguments: str) -> bool:
    """Run this Python with the arguments; return whether it exits with 0."""
    command = [sys.executable, "-B", *arguments]
    return subprocess.run(command, check=False, cwd=install.HERE).returncode == 0  # noqa: S603 - own arguments


def _version(name: str) -> str | None:
    try:
        return version(name)
    except PackageNotFoundError:
        return None


if __name__ == "__main__":
    parser = install.arguments()
    parser.add_argument("model_types", nargs="?", default="", help="comma separated")
    given = parser.parse_args()
    main(given.transformers, re.sub(r"\s", "", given.model_types), given.server)
