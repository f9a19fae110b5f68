"""Checks of the container engine that builds the image: installed, running, its features, platform and disk."""

from __future__ import annotations

import os
import re
import shutil
import sys
from pathlib import Path

from extended_dlc.doctor.findings import Finding, Ok, Problem, Unknown
from extended_dlc.doctor.programs import Answer, NoAnswer, ask
from extended_dlc.doctor.target import Target
from extended_dlc.rehearsal.engine_front import TAKES_BOTH

CPU_DISK_GB, GPU_DISK_GB = 10, 25
"""Disk that a build needs, GB. Estimates: AWS publishes no sizes; images with CUDA are reported at over 10 GB
compressed (aws/aws-cdk#29883), and during a pull an engine stores an image compressed and unpacked."""

_NOTHING_TO_BUILD = Ok("not needed: no image is built on this machine")
_STOPPED = Unknown("the container engine does not answer: see 'engine'")
_TAKE_PODMAN = 'export CDK_DOCKER=podman BUILDAH_FORMAT=docker, and in the settings: image.build.engine "podman"'
_BUILDKIT = re.compile(r"^\s*BuildKit(?: version)?:\s*(\S+)", re.IGNORECASE | re.MULTILINE)
_DOCKER_PLATFORM = re.compile(r"\blinux/amd64\b")


def engine(target: Target) -> Finding:
    """Check that there is a container engine and that it responds."""
    if not target.builds:
        return _NOTHING_TO_BUILD
    program = shutil.which(target.engine)
    if program is None:
        if target.engine == "docker" and shutil.which("podman"):
            return Problem("there is no docker on the path, but podman is", _TAKE_PODMAN)
        return Problem(
            f"there is no container engine '{target.engine}' on the path",
            "install Docker (https://docs.docker.com/engine/install) or podman, or name yours: export CDK_DOCKER=…",
        )
    try:
        podman = _is_podman(program)
        answer = _info(program, podman, "{{.Version.Version}}", "{{.ServerVersion}}")
    except NoAnswer as error:
        return Unknown(str(error))
    if answer.code == 0 and answer.output:
        return Ok(f"{'podman' if podman else 'Docker Engine'} {answer.output.splitlines()[-1]}")
    reason = answer.reason
    if "permission denied" in reason.lower() and not podman:
        return Problem(
            f"docker runs, but you may not use it: {reason}",
            'sudo usermod -aG docker "$USER", then log in again',
        )
    way_out = _start(podman)
    if not podman and shutil.which("podman"):
        way_out += f"; or take podman, which is here, too: {_TAKE_PODMAN}"
    return Problem(f"{target.engine} is installed but does not run: {reason}", way_out)


def engine_setting(target: Target) -> Finding:
    """Check that the engine is the one in `image.build.engine`, because build options differ between engines."""
    if not target.builds:
        return _NOTHING_TO_BUILD
    program = shutil.which(target.engine)
    if program is None:
        return Unknown("there is no container engine: see 'engine'")
    try:
        if TAKES_BOTH in ask([program, "--version"]).output:
            return Ok("a rehearsal's, which takes the options of either")
        podman = _is_podman(program)
    except NoAnswer as error:
        return Unknown(str(error))
    image = target.settings.get("image")
    build = image.get("build") if isinstance(image, dict) else None
    said = (build if isinstance(build, dict) else {}).get("engine", "docker")
    actual = "podman" if podman else "docker"
    if not target.settings:
        return Unknown(f"{target.engine} is {actual}; whether your LocalBuild(engine=…) says so is not in any settings")
    if said != actual:
        return Problem(
            f"image.build.engine is {said} and {target.engine} is {actual}, which does not know the other's options",
            f'"build": {{"engine": "{actual}"}} in image of the settings, or the other program in CDK_DOCKER',
        )
    if podman and os.environ.get("BUILDAH_FORMAT") != "docker":
        return Problem(
            "podman makes OCI manifests, which SageMaker refuses, unless it is told otherwise",
            "export BUILDAH_FORMAT=docker",
        )
    return Ok(actual)


def buildkit(target: Target) -> Finding:
    """Check that Docker has buildx, which the build needs for secrets and media types; reports BuildKit's version.

    The default manifest format depends on the image store and on BuildKit; the build requests Docker's format always.
    """
    if not target.builds:
        return _NOTHING_TO_BUILD
    program = shutil.which(target.engine)
    try:
        if program is None:
            return _STOPPED
        if _is_podman(program):
            return Ok("not needed by podman")  # buildah supports secrets
        if TAKES_BOTH in ask([program, "--version"]).output:
            return Ok("a rehearsal's, which builds with what there is")
        answer = ask([program, "buildx", "version"])
        options = ask([program, "build", "--help"])  # those of buildx, where `docker build` is buildx
        builder = ask([program, "buildx", "inspect"])
        store = ask([program, "info", "--format", "{{json .DriverStatus}}"])
    except NoAnswer as error:
        return Unknown(str(error))
    if answer.code != 0:
        return Problem(
            "docker has no buildx, which the build needs",
            "install the docker-buildx-plugin package (https://docs.docker.com/go/buildx), then: docker buildx version",
        )
    if options.code == 0 and "--load" not in options.output:
        return Problem(
            "docker build does not call buildx, as before Docker 23, and refuses the --output of the build",
            "update Docker to 23 or newer (https://docs.docker.com/engine/install), or: docker buildx install",
        )
    found = _BUILDKIT.search(builder.output)
    version = found[1] if found else "of unknown version"
    kind = "of an unknown kind" if store.code != 0 or not store.output else "the graph driver's"
    if "io.containerd.snapshotter" in store.output:
        kind = "containerd's"
    return Ok(f"{' '.join(answer.output.split()[:2])}, BuildKit {version}, image store {kind}")


def platform(target: Target) -> Finding:
    """Check that the engine can build for linux/amd64, which SageMaker's x86 instances run."""
    if not target.builds:
        return _NOTHING_TO_BUILD
    program = shutil.which(target.engine)
    if program is None:
        return _STOPPED
    try:
        podman = _is_podman(program)
        answer = _info(program, podman, "{{.Host.Arch}}", "{{.Architecture}}")
        if answer.code != 0 or not answer.output:
            return _STOPPED
        # The engine's architecture, not this process's: the engine may be remote, and Python may be emulated.
        architecture = answer.output.splitlines()[-1]
        if architecture in ("amd64", "x86_64"):
            return Ok("amd64, no emulation")
        if podman:
            return _emulation_of_podman(architecture)
        builder = ask([program, "buildx", "inspect"])
    except NoAnswer as error:
        return Unknown(str(error))
    if builder.code != 0:
        return Unknown(f"the engine is {architecture}, and its builder does not say what it emulates: {builder.reason}")
    if not _DOCKER_PLATFORM.search(builder.output):
        return Problem(
            _not_emulated(architecture),
            "in Docker Desktop: Settings, General, 'Use Rosetta for x86_64/amd64 emulation'; on Linux: "
            "docker run --privileged --rm tonistiigi/binfmt --install amd64",
        )
    return Ok(_emulated(architecture))


def disk(target: Target) -> Finding:
    """Check the free disk space in the engine's image folder."""
    if not target.builds:
        return _NOTHING_TO_BUILD
    program = shutil.which(target.engine)
    if program is None:
        return _STOPPED
    try:
        podman = _is_podman(program)
        answer = _info(program, podman, "{{.Store.GraphRoot}}", "{{.DockerRootDir}}")
    except NoAnswer as error:
        return Unknown(str(error))
    if answer.code != 0 or not answer.output:
        return _STOPPED
    folder = Path(answer.output.splitlines()[-1])
    # On macOS and Windows it is a path in the engine's virtual machine, even if this machine has the same path.
    if not sys.platform.startswith("linux") or not folder.exists():
        return Unknown(f"the engine keeps its images in a virtual machine; see there: {target.engine} system df")
    free = shutil.disk_usage(folder).free // 10**9
    needed = GPU_DISK_GB if target.needs_gpu else CPU_DISK_GB
    if free < needed:
        kind = "GPU" if target.needs_gpu else "CPU"
        return Problem(
            f"{free} GB are free in {folder}, and a {kind} image wants about {needed} GB while it is built",
            f"{target.engine} system prune --all",
        )
    return Ok(f"{free} GB are free in {folder}")


def _is_podman(program: str) -> bool:
    """Whether the program is podman, even if its name is docker."""
    return "podman" in ask([program, "--version"]).output.lower()


def _info(program: str, podman: bool, of_podman: str, of_docker: str) -> Answer:
    """Information from the running engine: other commands of the client work without an engine."""
    answer = ask([program, "info", "--format", of_podman if podman else of_docker])
    # Without a running engine `docker info` may exit with 0, with an empty line and the reason on standard error.
    return Answer(answer.code or 1, "", answer.errors) if not answer.output and answer.errors else answer


def _start(podman: bool) -> str:
    if sys.platform == "darwin":
        return "podman machine start" if podman else "open -a Docker, and wait until 'docker info' answers"
    return "podman info" if podman else "sudo systemctl start docker"


def _emulation_of_podman(architecture: str) -> Finding:
    handlers = Path("/proc/sys/fs/binfmt_misc")
    if not sys.platform.startswith("linux") or not handlers.is_dir():
        return Unknown(f"{_emulated(architecture)}. Whether podman's machine emulates it, this shows: {_TRY_PODMAN}")
    if any(handlers.glob("qemu-x86_64*")):
        return Ok(_emulated(architecture))
    return Problem(
        _not_emulated(architecture),
        "install your system's package qemu-user-static, then: ls /proc/sys/fs/binfmt_misc",
    )


_TRY_PODMAN = "podman run --rm --platform linux/amd64 public.ecr.aws/docker/library/alpine uname -m"


def _not_emulated(architecture: str) -> str:
    return f"the engine is {architecture} and cannot build for linux/amd64: it would end in 'exec format error'"


def _emulated(architecture: str) -> str:
    return (
        f"the engine is {architecture}: the image is built for linux/amd64 under emulation, its proof step included. "
        "That takes many times as long, and proves versions and imports but no speed; if it dies with 'Illegal "
        "instruction', 'Segmentation fault' or 'qemu: uncaught target signal', the emulator is to blame and not the "
        "image: build on an amd64 machine"
    )
