"""Installs a transformers release into a vLLM image, replaces nothing that vLLM was compiled against, and tests it.

python3 extend.py 5.24.0 bloom,llama
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from importlib.metadata import distributions
from pathlib import Path

HERE = Path(__file__).parent
SECRETS = Path("/run/secrets")

PROTECTED = re.compile(
    "|".join(each for each in (HERE / "protected.txt").read_text().splitlines() if each and not each.startswith("#"))
)
"""Packages that no install may replace (`protected.txt`)."""


def installed() -> dict[str, str]:
    """Return the canonical names and versions of all installed distributions."""
    return {
        re.sub(r"[-_.]+", "-", found.metadata["Name"]).lower(): found.version
        for found in distributions()
        if found.metadata["Name"]
    }


def constraints(base: dict[str, str]) -> list[str]:
    """Return pip's constraints, which pin the protected packages."""
    return [f"{name}=={version}" for name, version in sorted(base.items()) if PROTECTED.fullmatch(name)]


def replaced(before: dict[str, str], after: dict[str, str]) -> Iterator[str]:
    """Yield the packages that were replaced, added or removed although vLLM is compiled against them."""
    for name in sorted(before.keys() | after.keys()):
        if PROTECTED.fullmatch(name) and before.get(name) != after.get(name):
            had, has = before.get(name, "not there"), after.get(name, "gone")
            yield f"{name} was {had} in the base and is {has} now: choose a newer base, or an older transformers"


def complaints() -> set[str]:
    """Return the output of `pip check`. A base may have unrelated complaints."""
    done = subprocess.run([sys.executable, "-m", "pip", "check"], capture_output=True, text=True, check=False)
    return set() if done.returncode == 0 else set(done.stdout.splitlines())


def pip_environment(secrets: Path = SECRETS) -> dict[str, str]:
    """Return the environment for pip, with the optional build secrets where pip looks for them."""
    # Ubuntu 24.04 marks its Python as externally managed; the image has no other, and vLLM is in it.
    environment = {**os.environ, "PIP_ROOT_USER_ACTION": "ignore", "PIP_BREAK_SYSTEM_PACKAGES": "1"}
    if (secrets / "pip-config").is_file():
        environment["PIP_CONFIG_FILE"] = str(secrets / "pip-config")
    if (secrets / "ca-bundle").is_file():
        for name in ("PIP_CERT", "SSL_CERT_FILE", "REQUESTS_CA_BUNDLE"):
            environment[name] = str(secrets / "ca-bundle")
    return environment


def install(transformers: str, base: dict[str, str]) -> None:
    """Install the release under the constraints, or exit saying what to change."""
    with tempfile.NamedTemporaryFile("w", suffix=".txt") as file:
        file.write("\n".join(constraints(base)))
        file.flush()
        command = [
            *(sys.executable, "-m", "pip", "install", "--no-cache-dir", "--no-input", "--disable-pip-version-check"),
            *("--no-compile", "--progress-bar=off", "--constraint", file.name, f"transformers=={transformers}"),
        ]
        done = subprocess.run(command, env=pip_environment(), check=False)  # noqa: S603 - no shell, own arguments
    if done.returncode != 0:
        sys.exit(
            f"transformers {transformers} does not install beside the base's vLLM {base['vllm']} (pip's last lines say "
            "why): choose a newer base, or an older transformers release"
        )


def prove(transformers: str, model_types: str) -> Iterator[str]:
    """Yield failed checks of the image. Call it in a process that has not imported any of its packages before."""
    import transformers as found
    from transformers.models.auto.configuration_auto import CONFIG_MAPPING

    if found.__version__ != transformers:
        yield f"transformers {found.__version__} is imported from {found.__file__} instead of {transformers}"
    for name in filter(None, (part.strip() for part in model_types.split(","))):
        if name not in CONFIG_MAPPING:
            yield f"transformers {transformers} does not know model type '{name}': choose a release that has it"
    try:
        # The most that can be imported without a GPU: engine options, model registry, and the use of transformers.
        import vllm.engine.arg_utils  # noqa: F401 - the import is the proof
    except Exception as error:
        yield (
            f"vLLM cannot be imported with transformers {transformers} ({type(error).__name__}: {error}): choose a "
            "newer base, or an older transformers release"
        )


def main(transformers: str, model_types: str = "") -> None:
    """Install the release and test the image, or exit saying what to change."""
    if not re.fullmatch(r"[0-9]+\.[0-9]+(\.[0-9]+)*((a|b|rc|\.dev|\.post)[0-9]+)?", transformers):
        sys.exit(f"TRANSFORMERS_VERSION ('{transformers}') must be an exact release such as '5.24.0'")
    before = installed()
    if "vllm" not in before:
        sys.exit("BASE_IMAGE has no vLLM for its 'python3': choose a huggingface-vllm image, or docker/inference")
    known = complaints()
    install(transformers, before)
    problems = list(replaced(before, installed()))
    problems += [f"pip check: {one}: choose a release that fits" for one in sorted(complaints() - known)]
    problems += prove(transformers, model_types)
    if problems:
        sys.exit("\nthe image does not keep its promises:\n  " + "\n  ".join(problems))
    print(f"proved: vLLM {before['vllm']} with transformers {transformers}, model types: {model_types or 'none asked'}")


if __name__ == "__main__":
    main(*sys.argv[1:])
