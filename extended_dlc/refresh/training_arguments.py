"""The fields of TrainingArguments, read from wheels without importing them.

`python -m extended_dlc.refresh.training_arguments 4.46.3 5.23.0` rewrites the table from these releases: the oldest
and newest that the images support. `extended-dlc catalog refresh` skips it, because the releases must be chosen.
"""

from __future__ import annotations

import ast
import sys
import tempfile
import zipfile
from collections.abc import Iterator, Sequence
from pathlib import Path

from extended_dlc.refresh import _pip
from extended_dlc.refresh._pip import Json
from extended_dlc.refresh._write import write

_CLASSES = {"TrainingArguments": "training_args.py", "Seq2SeqTrainingArguments": "training_args_seq2seq.py"}


def training_arguments(wheels: dict[str, Path]) -> Json:
    """The table, from wheels by their releases."""
    rows: dict[tuple[str, str], list[str]] = {}
    for release, wheel in wheels.items():
        with zipfile.ZipFile(wheel) as packed:
            for name, file in _CLASSES.items():
                for argument in _fields(packed.read(f"transformers/{file}").decode(), name):
                    rows.setdefault((argument, name), []).append(release)
    files = " and ".join(_CLASSES.values())
    return {
        "source": f"transformers {' and '.join(wheels)}, {files}, read without importing them",
        "releases": list(wheels),
        "training_arguments": [
            {"argument": argument, "class": name, "releases": releases}
            for (argument, name), releases in sorted(rows.items())
        ],
    }


def _fields(source: str, name: str) -> Iterator[str]:
    (found,) = [each for each in ast.parse(source).body if isinstance(each, ast.ClassDef) and each.name == name]
    for each in found.body:
        if isinstance(each, ast.AnnAssign) and isinstance(each.target, ast.Name) and each.target.id[0] != "_":
            yield each.target.id


def main(releases: Sequence[str]) -> None:
    with tempfile.TemporaryDirectory() as folder:
        wheels = {}
        for release in releases:
            target = Path(folder) / release
            target.mkdir()
            wheels[release] = _pip.download_wheel("transformers", target, release)
        rows, changed = write("training_arguments", training_arguments(wheels))
    print(f"training_arguments: {rows} rows, {'written' if changed else 'nothing new'}")


if __name__ == "__main__":
    main(sys.argv[1:])
