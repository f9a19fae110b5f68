"""`InferenceCode`: the user's inference code and requirements, beside the weights."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from extended_dlc.facts._tables import did_you_mean
from extended_dlc.facts.compat import check_stock_server
from extended_dlc.facts.specifiers import Requirement, read_requirement
from extended_dlc.options._folders import packed_files, parsed
from extended_dlc.options._kinds import check_types
from extended_dlc.options._values import OptionError, require_known

LARGEST_BYTES = 5 * 1024 * 1024
"""The largest archive of code: code takes a few kilobytes, so a larger folder contains weights by mistake."""

_HOOKS = {"model_fn": 1, "input_fn": 2, "predict_fn": 2, "output_fn": 2, "transform_fn": 4}
"""The functions that the servers call (sagemaker-huggingface-inference-toolkit 2.6.0, `handler_service.py`) -> their
arguments without `context`, which may follow."""


@check_types
@dataclass(frozen=True)
class InferenceCode:
    """Python code and requirements that the container loads beside the weights, from an archive of a few kilobytes.

    The weights stay on the Hub: they are neither downloaded nor packed nor uploaded here. Each container installs the
    requirements when it starts, which needs access to a package index.
    """

    folder: str | None = None
    """A folder with `inference.py`, `requirements.txt` or both, and what they need. ValueError when a Python file does
    not compile, a function is nearly one that the servers call, or a requirement cannot be read. Default: none."""

    requirements: Sequence[str] = ()
    """Requirements in pip's words, as `transformers==4.24.0`, besides those in the folder. Default: none."""

    def __post_init__(self) -> None:
        """Find what would otherwise fail in the container."""
        object.__setattr__(self, "requirements", tuple(self.requirements))
        require_known("folder", self.folder, "its files are packed into an archive then")
        require_known("requirements", self.requirements, "they are packed into an archive then")
        if self.folder is None and not self.requirements:
            raise ValueError("InferenceCode has nothing: give a folder with inference.py, requirements=, or both")
        if self.folder is not None:
            self._check_folder(Path(self.folder))
        list(self.read_requirements())

    def files(self) -> dict[str, bytes]:
        """Path in the model archive -> content."""
        found = packed_files(self.folder) if self.folder is not None else ()
        files = {f"code/{path}": file.read_bytes() for path, file in found}
        if self.requirements:
            given = files.get("code/requirements.txt", b"").decode()
            lines = [*given.splitlines(), *self.requirements]
            files["code/requirements.txt"] = "".join(f"{line}\n" for line in lines).encode()
        return files

    def requirement(self, package: str) -> Requirement | None:
        """The requirement of a package; None where the requirements do not name it."""
        return next((found for found in self.read_requirements() if found.name == package), None)

    def release_on_stock(self, image: str) -> str | None:
        """The transformers release that the requirements install on a stock image; None where they keep the image's.

        ValueError where the image's server is known not to run with it, or needs more requirements.
        """
        asked = self.requirement("transformers")
        if asked is None or asked.exact is None:
            return None
        try:
            stock = check_stock_server(image, asked.exact)
        except ValueError as error:
            raise ValueError(f"requirement '{asked.text}' {error}") from None
        missing = [text for text in stock.needs if self.requirement(read_requirement(text).name) is None]
        if missing:
            raise ValueError(
                f"requirement '{asked.text}' runs on the server of {image.rpartition('/')[2]} only with "
                f"{', '.join(missing)}: add that"
            )
        return asked.exact

    def _check_folder(self, folder: Path) -> None:
        if not folder.is_dir():
            raise OptionError("folder", folder, "is not a folder: correct the path")
        files = dict(packed_files(folder))
        if not files.keys() & {"inference.py", "requirements.txt"}:
            raise OptionError(
                "folder", folder, "has neither inference.py nor requirements.txt: nothing in it would be used"
            )
        size = sum(file.stat().st_size for file in files.values())
        if size > LARGEST_BYTES:
            raise OptionError(
                "folder",
                folder,
                f"holds {size / 1e6:.0f} MB and code at most {LARGEST_BYTES / 1e6:.0f}: take the "
                "weights out (HubModel leaves them on the Hub, S3Model takes an archive with both)",
            )
        for path, file in files.items():
            if path.endswith(".py"):
                tree = parsed(file)
                if path == "inference.py":
                    _check_hooks(file, tree)

    def read_requirements(self) -> Iterator[Requirement]:
        """The requirements, those in the folder first, without pip's options."""
        text = self.files().get("code/requirements.txt", b"").decode("utf-8", "replace")
        for line in text.splitlines():
            line = re.sub(r"(^|\s)#.*", "", line).strip()
            if not line or line.startswith("-"):  # an option of pip, which pip checks
                continue
            try:
                yield read_requirement(line)
            except ValueError as error:
                raise ValueError(f"requirement '{line}' {error}") from None


def _check_hooks(file: Path, tree: ast.Module) -> None:
    """Refuse functions that are certainly wrong; a function may also be imported, and imports are not followed."""
    functions = {node.name: node for node in tree.body if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)}
    for name, function in functions.items():
        if name not in _HOOKS:
            near = did_you_mean(name, _HOOKS) if name.endswith("_fn") else ""
            if near:
                raise ValueError(f"{file} defines {name}, which no server calls{near}")
            continue
        if isinstance(function, ast.AsyncFunctionDef):
            raise ValueError(f"{name} of {file} is 'async', and the servers call it as an ordinary function")
        least, arguments = _HOOKS[name], function.args
        takes = len(arguments.posonlyargs) + len(arguments.args)
        if not arguments.vararg and takes not in (least, least + 1):
            raise ValueError(f"{name} of {file} takes {takes} arguments: make it {least}, or {least + 1} with context")
    if "transform_fn" in functions and (others := functions.keys() & {"input_fn", "predict_fn", "output_fn"}):
        raise ValueError(f"{file} defines transform_fn, which replaces {', '.join(sorted(others))}: keep either")
