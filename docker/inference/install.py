"""The image's install step, with constraints from the base image's packages. Must run on Python 3.8.

python install.py 5.24.0                                        with the requirements of the native server
python install.py --server=stock 4.24.0 'huggingface_hub<0.26'  with the requirements of the base's own server
python install.py --server=training 5.24.0                      with packages for training scripts, and no server
python3 install.py --server=vllm 5.24.0                         transformers alone, beside vLLM
python install.py --report 5.24.0                               installs nothing, and prints pip's report

The variable LOCK, with lines of `name==version --hash=…`, sets the exact packages to install.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterable
from importlib.metadata import distributions
from pathlib import Path

HERE = Path(__file__).parent
RECORD = HERE / "base.json"
"""Records the base's packages before the install, which `prove.py` compares with those after it."""

SECRETS = Path("/run/secrets")

TOOLKIT = "sagemaker-huggingface-inference-toolkit"
"""The stock server's distribution."""

TRAINING_TOOLKIT = "sagemaker-training"
"""The distribution of a training image's entry point."""

NATIVE = 'the native server (server="native")'

PROTECTED = re.compile(
    "|".join(each for each in (HERE / "protected.txt").read_text().splitlines() if each and not each.startswith("#"))
)
"""Packages that no install may replace (`protected.txt`)."""

# Packages that import transformers, or that it imports, and that can break when only transformers is upgraded, although
# `pip check` reports nothing. The ranges work with transformers 5; pip installs the newest that the base's Python
# supports.
NEIGHBOURS = {"accelerate": ">=1.15,<2", "diffusers": ">=0.38,<0.43", "peft": ">=0.21.2,<0.22"}
# Below transformers 5, the base's release of these is kept if its own requirements allow.
OTHER_NEIGHBOURS = ("optimum", "sentence-transformers", "trl")

# Packages that the server and many models need besides transformers: Hugging Face's images have them, AWS's PyTorch
# images lack them. The two pinned releases work with every transformers from 4.46 on (facts/data/neighbours.json).
PLAIN_BASE = {"accelerate": "==1.15.0", "peft": "==0.21.2", "pillow": "", "protobuf": "", "sentencepiece": ""}

# A static ffmpeg in a wheel, whose hash pip checks: Amazon Linux 2023, the OS of AWS's PyTorch images, has no package.
# Release 0.6.0 contains ffmpeg 7.0.2 in 29 MB; later releases are twice as large.
FFMPEG = "imageio-ffmpeg==0.6.0"


def installed() -> dict[str, str]:
    """Return the canonical names and versions of all installed distributions."""
    return {
        re.sub(r"[-_.]+", "-", found.metadata["Name"]).lower(): found.version
        for found in distributions()
        if found.metadata["Name"]
    }


def constraints(base: dict[str, str]) -> list[str]:
    """Return pip's constraints, which pin the protected packages."""
    lines = [f"{name}=={version}" for name, version in sorted(base.items()) if PROTECTED.fullmatch(name)]
    if "sagemaker-inference" in base:
        lines.append("setuptools<82")  # sagemaker-inference imports pkg_resources, which setuptools 82 removed
    return lines


def requirements(transformers: str, base: dict[str, str]) -> list[str]:
    """Return the requirements for transformers, and for those neighbours that the base has."""
    five = int(transformers.split(".")[0]) >= 5
    named = [name + (rule if five else "") for name, rule in NEIGHBOURS.items() if name in base]
    return [f"transformers=={transformers}", *named, *(name for name in OTHER_NEIGHBOURS if name in base)]


def lacking(base: dict[str, str]) -> list[str]:
    """Return the packages that every base of Hugging Face's has and this one lacks."""
    return [] if "transformers" in base else [name + rule for name, rule in PLAIN_BASE.items() if name not in base]


def find_ffmpeg() -> str | None:
    """Return the ffmpeg on the PATH, or beside this Python, whose folder is on the image's PATH."""
    beside = str(Path(sys.executable).parent)
    return shutil.which("ffmpeg", path=os.pathsep.join([beside, os.environ.get("PATH", os.defpath)]))


def link_ffmpeg() -> None:
    """Link the wheel's program beside this Python as `ffmpeg`, the name that the server looks for."""
    import imageio_ffmpeg  # installed just before

    (Path(sys.executable).parent / "ffmpeg").symlink_to(imageio_ffmpeg.get_ffmpeg_exe())


def pip_environment(secrets: Path = SECRETS) -> dict[str, str]:
    """Return the environment for pip, with the optional build secrets where pip looks for them."""
    # Variables instead of options: older pips do not know --root-user-action, and ignore the variable.
    # Some systems mark their Python as externally managed (PEP 668); the image has no other, and torch is in it.
    environment = {**os.environ, "PIP_ROOT_USER_ACTION": "ignore", "PIP_BREAK_SYSTEM_PACKAGES": "1"}
    if (secrets / "pip-config").is_file():
        environment["PIP_CONFIG_FILE"] = str(secrets / "pip-config")
    if (secrets / "ca-bundle").is_file():
        for name in ("PIP_CERT", "SSL_CERT_FILE", "REQUESTS_CA_BUNDLE"):
            environment[name] = str(secrets / "ca-bundle")
    return environment


def complaints() -> list[str]:
    """Return the output of `pip check`. A base may have unrelated complaints."""
    command = [sys.executable, "-m", "pip", "check", "--disable-pip-version-check"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)  # noqa: S603 - no shell, own arguments
    return [] if done.returncode == 0 else sorted(done.stdout.splitlines())


def explain(output: str, transformers: str) -> str:
    """Return what to change after pip has failed."""
    python = ".".join(map(str, sys.version_info[:2]))
    if re.search(rf"{re.escape(transformers)} Requires-Python", output) or "requires a different Python" in output:
        return (
            f"transformers {transformers} (or something it needs) does not install on the base's Python {python}: "
            "choose a base with a newer Python, or an older transformers release"
        )
    if "CERTIFICATE_VERIFY_FAILED" in output:
        return "the package index has a certificate that the base does not trust: pass the build secret 'ca-bundle'"
    if f"No matching distribution found for transformers=={transformers}" in output:
        return (
            f"the package index has no transformers {transformers} for Python {python}, or cannot be reached: check "
            "TRANSFORMERS_VERSION, and pass the build secret 'pip-config' where packages come from a mirror"
        )
    if "ResolutionImpossible" in output:
        return (
            f"transformers {transformers} does not fit what the base has and may not be replaced (torch, CUDA, numpy): "
            "choose a newer base, or an older transformers release"
        )
    return "pip failed: its last lines above say why"


def locked(lock: str) -> list[str]:
    """Return the requirements of a lock; exit if it was made for another Python version."""
    lines = [line.strip() for line in lock.splitlines() if line.strip()]
    python = ".".join(map(str, sys.version_info[:2]))
    made_for = next((line.split()[-1] for line in lines if line.startswith("# python ")), python)
    if made_for != python:
        sys.exit(f"LOCK was made for Python {made_for}, and the base has {python}: run 'extended-dlc lock' again")
    return [line for line in lines if not line.startswith("#")]


def main(transformers: str, server: str = "native", along: Iterable[str] = (), report: bool = False) -> None:
    """Install the release with the requirements of `server`, or exit saying what to change.

    :param along: The requirements of the stock server.
    """
    if not re.fullmatch(r"[0-9]+\.[0-9]+(\.[0-9]+)*((a|b|rc|\.dev|\.post)[0-9]+)?", transformers):
        sys.exit(f"TRANSFORMERS_VERSION ('{transformers}') must be an exact release such as '5.24.0'")
    base = installed()
    check_base(base, server)
    if importlib.util.find_spec("pip") is None:  # AWS's images are built with uv, which may leave pip out
        subprocess.run([sys.executable, "-m", "ensurepip"], check=True)
    if not report:
        RECORD.write_text(json.dumps({"installed": base, "complaints": complaints()}, indent=1, sort_keys=True))
    named = packages(transformers, server, base, along)
    lock = locked(os.environ.get("LOCK", ""))
    with tempfile.NamedTemporaryFile("w", suffix=".txt") as file:
        file.write("\n".join(lock or constraints(base)))
        file.flush()
        command = pip_install(named, file.name, is_lock=bool(lock))
        if report:
            command += ["--dry-run", "--quiet", "--report", "-"]
            done = subprocess.run(command, env=pip_environment(), check=False)  # noqa: S603 - no shell, own arguments
            sys.exit(done.returncode)
        if not lock:
            print("not locked: for the same packages in each build, run 'extended-dlc lock' and commit its file")
        code, output = _run(command)
    if code != 0 and lock and "THESE PACKAGES DO NOT MATCH THE HASHES" in output:
        sys.exit(
            "\nwhat the index has under a locked version is not what was locked: find out why before you lock again"
        )
    if code != 0:
        sys.exit(f"\n{explain(output, transformers)}")
    if FFMPEG in named:
        link_ffmpeg()


def check_base(base: dict[str, str], server: str) -> None:
    """Exit where the base image lacks what the server needs of it, saying which image to choose."""
    if server == "vllm" and "vllm" not in base:
        sys.exit(f"BASE_IMAGE has no vLLM for its 'python3': choose a huggingface-vllm image, or {NATIVE}")
    if "torch" not in base:
        sys.exit("BASE_IMAGE has no torch for its 'python': choose a PyTorch image, such as an AWS Deep Learning one")
    if server == "stock" and TOOLKIT not in base:
        sys.exit(f"BASE_IMAGE has no stock server ({TOOLKIT}): choose a Hugging Face inference image, or {NATIVE}")
    if server == "training" and TRAINING_TOOLKIT not in base:
        sys.exit(
            f"BASE_IMAGE has no {TRAINING_TOOLKIT}, which SageMaker's training starts: choose a training image that is "
            "made for SageMaker (huggingface-pytorch-training, or pytorch with a tag that ends in -sagemaker)"
        )


def packages(transformers: str, server: str, base: dict[str, str], along: Iterable[str]) -> list[str]:
    """Return pip's arguments for the packages to install."""
    if server == "vllm":  # the other packages of its image were chosen for vLLM
        return [f"transformers=={transformers}"]
    if server == "stock":
        return [*requirements(transformers, base), *along]
    # Training scripts choose their own audio decoder, so a training image needs no ffmpeg.
    ffmpeg = [FFMPEG] if server == "native" and find_ffmpeg() is None else []
    pinned = ["--requirement", str(HERE / "requirements.txt")]
    return [*requirements(transformers, base), *lacking(base), *ffmpeg, *pinned]


def pip_install(named: Iterable[str], file: str, *, is_lock: bool) -> list[str]:
    """Return the command: what the lock's file says, or the named packages under the constraints of that file."""
    command = [
        *(sys.executable, "-m", "pip", "install", "--no-cache-dir", "--no-input", "--disable-pip-version-check"),
        # Bytecode doubles the layer's size: prove.py compiles only the modules that start-up imports.
        *("--no-compile", "--progress-bar=off"),
    ]
    if is_lock:
        return [*command, "--no-deps", "--require-hashes", "--requirement", file]
    return [*command, "--constraint", file, *named]


def _run(command: Iterable[str]) -> tuple[int, str]:
    """Run a command and print its output as it comes; return the exit code and the output."""
    lines = []
    with subprocess.Popen(  # noqa: S603 - no shell, own arguments
        list(command), env=pip_environment(), stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    ) as process:
        assert process.stdout is not None  # noqa: S101 - for the type checker: PIPE was asked for
        for line in process.stdout:
            print(line, end="", flush=True)
            lines.append(line)
    return process.returncode, "".join(lines)


def arguments() -> argparse.ArgumentParser:
    """Return a parser of the arguments that the Dockerfile passes to both this step and prove.py."""
    parser = argparse.ArgumentParser(allow_abbrev=False)
    parser.add_argument("--server", choices=("native", "stock", "vllm", "training"), default="native")
    parser.add_argument("transformers", help="exact release")
    return parser


if __name__ == "__main__":
    parser = arguments()
    parser.add_argument("along", nargs="?", default="", help="space separated requirements of the stock server")
    parser.add_argument("--report", action="store_true", help="install nothing, and print pip's report")
    given = parser.parse_args()
    main(given.transformers, given.server, given.along.split(), given.report)
