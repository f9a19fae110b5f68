"""Compatibility of images with GPUs: the architectures of its CUDA and torch builds, and the driver of the host.

The text of a `ValueError` completes "`<option>` (<value>) …", where the option is the instance type. What the tables do
not have passes with a note.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from datetime import date

from extended_dlc.facts._tables import table
from extended_dlc.facts.catalog import DlcImage, Version, version
from extended_dlc.facts.instances import Instance, all_instances

_PREVIOUS = ("ml.p2.", "ml.p3.")
"""Previous generations, which are not proposed."""


@dataclass(frozen=True, kw_only=True)
class Gpu:
    """A GPU model."""

    gpu: str
    """Such as `NVIDIA T4`."""

    compute_capability: str
    first_driver: int | None
    """The first driver branch that supports it; given if some host image of SageMaker has an older one."""

    last_driver: int | None
    """The last driver branch that supports it; given if some host image has a newer one."""

    source: str
    checked: str


@dataclass(frozen=True, kw_only=True)
class HostImage:
    """A host image (`InferenceAmiVersion`) and the CUDA of the container images that it is for."""

    cuda: str
    """Major release of CUDA."""

    inference_ami_version: str
    driver: int
    """Branch of its NVIDIA driver, which is the minimum, because AWS patches within it."""

    system: str
    supported_until: str
    """End of the support of that system."""

    withdrawn: str | None
    """The day from which SageMaker no longer accepts the host image; the next row then applies."""

    source: str
    checked: str

    def support(self, today: date) -> str:
        """Until when its system is supported, or since when no longer, with the way out."""
        if today <= date.fromisoformat(self.supported_until):
            return f"supported until {self.supported_until}"
        newer = next((row for row in reversed(host_images()) if row.supported_until > self.supported_until), None)
        way = f": images with CUDA {newer.cuda} run on {newer.system}" if newer else ""
        return f"its support ended on {self.supported_until}{way}"


@functools.cache
def _gpus() -> dict[str, Gpu]:
    return {row["gpu"]: Gpu(**row) for row in table("gpus")["gpus"]}


@functools.cache
def host_images() -> tuple[HostImage, ...]:
    """All host images, the preferred one of each CUDA first."""
    return tuple(HostImage(**row) for row in table("host_images")["host_images"])


def gpu_of(instance: Instance) -> Gpu | None:
    """The GPU of an instance type; None without one, and if the table does not have it."""
    return _gpus().get(instance.accelerator_name or "") if instance.gpus else None


def cuda_version(text: str) -> Version:
    """A CUDA release, written as `cu124` or `12.4`, as numbers. ValueError for anything else."""
    if re.fullmatch(r"cu\d{3}", text):
        return version(f"{text[2:-1]}.{text[-1]}")
    if not re.fullmatch(r"\d+\.\d+(\.\d+)?", text):
        raise ValueError("is not a release of CUDA: write it as in the tags of AWS's images, as cu124, or as 12.4")
    return version(text)


def pick_host_image(cuda: str | None, instances: Iterable[Instance] = ()) -> HostImage | None:
    """The host image for an image's CUDA on these instance types.

    None, which leaves SageMaker's default, for a CPU image, for CUDA 11 and older, which the default supports, for a
    CUDA newer than the table, and for GPUs that no row's driver supports.
    """
    if cuda is None:
        return None
    gpus = [gpu for gpu in map(gpu_of, instances) if gpu is not None]
    major = str(cuda_version(cuda)[0])
    rows = [row for row in host_images() if row.cuda == major and row.withdrawn is None]
    return next((row for row in rows if all(_runs_with(gpu, row.driver) for gpu in gpus)), None)


def _runs_with(gpu: Gpu, driver: int) -> bool:
    return (gpu.first_driver or 0) <= driver <= (gpu.last_driver or driver)


def check_gpu(
    instance: Instance,
    *,
    cuda: str | None,
    torch: str | None,
    bases: Callable[[], Iterable[DlcImage]] = tuple,
    region: str | None = None,
) -> tuple[str, ...]:
    """Refuse an instance type whose GPUs the image is known not to support; otherwise return notes.

    :param cuda: The image's CUDA, such as `cu124`; None if unknown.
    :param torch: Its torch; None if unknown, and for vLLM images.
    :param bases: Alternative images, oldest first; the error names the newest that supports the GPUs.
    :param region: Region of the instance; types that are not offered there are not proposed.
    """
    if not instance.gpus or cuda is None:
        return ()
    gpu = gpu_of(instance)
    if gpu is None:
        return (f"nothing is known here of the GPU of {instance.name} ({instance.accelerator_name})",)
    if reason := _cannot_drive(gpu, cuda, torch):
        ways = [*_near_types(instance, cuda, torch, region), *_near_bases(gpu, bases(), region)]
        raise ValueError(
            f"has GPUs ({gpu.gpu}, compute capability {gpu.compute_capability}) that the image cannot drive: {reason}"
            f": {', or '.join(ways) or 'take another type or another image'}"
        )
    return tuple(_notes(instance, gpu, cuda, torch))


def drives(instance: Instance, image: DlcImage) -> bool:
    """Whether an image supports the GPUs of an instance type, and a host image has the driver, as far as known."""
    gpu = gpu_of(instance)
    if gpu is None or image.cuda is None:
        return True
    return _cannot_drive(gpu, image.cuda, image.torch) is None and not _lacks_driver(instance, image.cuda)


def built_for(cuda: str | None, torch: str | None) -> str | None:
    """The GPU architectures that an image has code for, in words; None if the tables do not have it."""
    if cuda is None:
        return None
    if build := _build_of(cuda, torch):
        later = f", and later ones by PTX {build.ptx}" if build.ptx else ""
        return f"compute capability {build.architectures[0]} to {build.architectures[-1]}{later}"
    toolkit = _toolkit_of(cuda)
    return f"compute capability {toolkit['oldest']} or newer, as its CUDA" if toolkit else None


@dataclass(frozen=True, kw_only=True)
class _Build:
    """The GPU architectures that a torch build has code for."""

    architectures: Sequence[str]
    ptx: str | None

    def has_code_for(self, capability: Version) -> bool:
        """Whether it runs: machine code runs on later GPUs of the same major capability, PTX on all later ones."""
        built_for = [version(each) for each in self.architectures]
        compiled = any(each[0] == capability[0] and each[1] <= capability[1] for each in built_for)
        return compiled or (self.ptx is not None and version(self.ptx) <= capability)


def _build_of(cuda: str, torch: str | None) -> _Build | None:
    """PyTorch's published build of a torch for a CUDA; None if the table does not have the pair."""
    if torch is None:
        return None
    asked, minor = cuda_version(cuda), version(torch)[:2]
    for row in table("cuda_builds")["cuda_builds"]:
        fits_torch = version(row["first_torch"]) <= minor <= version(row["last_torch"])
        if fits_torch and version(row["first_cuda"]) <= asked <= version(row["last_cuda"]):
            return _Build(architectures=row["architectures"], ptx=row["ptx"])
    return None


def _toolkit_of(cuda: str) -> dict[str, object] | None:
    """The architectures of a CUDA toolkit; None for one older than the table, or of a newer major release."""
    asked = cuda_version(cuda)
    rows = [row for row in table("cuda_builds")["cuda_toolkits"] if version(row["cuda"]) <= asked]
    return rows[-1] if rows and version(rows[-1]["cuda"])[0] == asked[0] else None


def _cannot_drive(gpu: Gpu, cuda: str, torch: str | None) -> str | None:
    """Why an image does not support a GPU; None if it does, or if that is unknown."""
    capability = version(gpu.compute_capability)
    name = ".".join(map(str, cuda_version(cuda)))
    build, toolkit = _build_of(cuda, torch), _toolkit_of(cuda)
    if build is not None and not build.has_code_for(capability):
        span = f"{build.architectures[0]} to {build.architectures[-1]}"
        return f"its torch {torch} for CUDA {name} is built for {span}"
    if toolkit is None:
        return None
    if capability < version(str(toolkit["oldest"])):
        return f"its CUDA {name} begins at {toolkit['oldest']}"
    if gpu.last_driver is not None and gpu.last_driver < int(str(toolkit["driver"])):
        return (
            f"its CUDA {name} needs driver {toolkit['driver']} or newer, and {gpu.last_driver} is the last one for them"
        )
    return None


def _notes(instance: Instance, gpu: Gpu, cuda: str, torch: str | None) -> Iterable[str]:
    toolkit = _toolkit_of(cuda)
    name = ".".join(map(str, cuda_version(cuda)))
    beyond = toolkit is not None and version(gpu.compute_capability) > version(str(toolkit["newest"]))
    if _build_of(cuda, torch) is None and (toolkit is None or beyond):
        yield (
            f"whether an image for CUDA {name} drives the GPUs of {instance.name} ({gpu.gpu}, compute capability "
            f"{gpu.compute_capability}) is not known here: if it says 'no kernel image is available', take another type"
        )
    if _lacks_driver(instance, cuda):
        needs = f"{gpu.first_driver} or newer" if gpu.first_driver else f"{gpu.last_driver} or older"
        yield (
            f"the GPUs of {instance.name} ({gpu.gpu}) need driver {needs}, and no host image known here has one: "
            "SageMaker's default is left"
        )


def _lacks_driver(instance: Instance, cuda: str) -> bool:
    """Whether the table has host images for a CUDA, but none whose driver supports the GPUs of a type."""
    return pick_host_image(cuda) is not None and pick_host_image(cuda, [instance]) is None


def _near_types(instance: Instance, cuda: str, torch: str | None, region: str | None) -> list[str]:
    """The most similar instance type whose GPUs the image supports, as an alternative in an error."""

    def distance(other: Instance) -> tuple[int, float, float]:
        memory = abs(other.gpus * other.gpu_memory_mib - instance.gpus * instance.gpu_memory_mib)
        return abs(other.gpus - instance.gpus), memory, abs((other.vcpu or 0) - (instance.vcpu or 0))

    def fits(other: Instance) -> bool:
        gpu = gpu_of(other)
        usable = gpu is not None and other.architecture == "x86_64" and not other.name.startswith(_PREVIOUS)
        offered = region is None or other.is_offered(region) is not False
        return usable and offered and gpu is not None and _cannot_drive(gpu, cuda, torch) is None

    fitting = [other for other in all_instances() if fits(other)]
    return [f"take {min(fitting, key=distance).name}"] if fitting else []


def _near_bases(gpu: Gpu, bases: Iterable[DlcImage], region: str | None) -> list[str]:
    """The newest base that supports the GPU, as an option in an error."""
    fitting = [image for image in bases if image.cuda and _cannot_drive(gpu, image.cuda, image.torch) is None]
    published = [image for image in fitting if region is None or region in image.regions]
    if not published:
        return []
    newest = published[-1]
    return [f'base="{newest.uri(region) if region else newest.name}"']
