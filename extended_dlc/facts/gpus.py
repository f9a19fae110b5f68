"""Which GPUs an image can drive: what its CUDA and torch are built for, and which driver its host has.

The text of a `ValueError` completes "`<option>` (<value>) …", where the option is the instance type. What the tables do
not know passes, and is said in a note.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from extended_dlc.facts._tables import table
from extended_dlc.facts.catalog import DlcImage, Version, version
from extended_dlc.facts.instances import Instance, all_instances

_PREVIOUS = ("ml.p2.", "ml.p3.")
"""Types of previous generations are not proposed."""


@dataclass(frozen=True, kw_only=True)
class Gpu:
    """A kind of GPU."""

    gpu: str
    """As `NVIDIA T4`."""

    compute_capability: str
    first_driver: int | None
    """The first branch of the driver that knows it, where some host image of SageMaker's is older."""

    last_driver: int | None
    """The last branch that still does, where some host image is newer."""

    source: str
    checked: str


@dataclass(frozen=True, kw_only=True)
class HostImage:
    """A host image (`InferenceAmiVersion`) and the CUDA of the images that it is for."""

    cuda: str
    """The major release."""

    inference_ami_version: str
    driver: int
    """Branch of its NVIDIA driver: AWS patches within it, so this is the least that a host has."""

    system: str
    supported_until: str
    """When the support of that system ends, or ended."""

    withdrawn: str | None
    """The day from which SageMaker takes the host image no more; the next row is taken then."""

    source: str
    checked: str


@functools.cache
def _gpus() -> dict[str, Gpu]:
    return {row["gpu"]: Gpu(**row) for row in table("gpus")["gpus"]}


@functools.cache
def host_images() -> tuple[HostImage, ...]:
    """Every row, the preferred one of each CUDA first."""
    return tuple(HostImage(**row) for row in table("host_images")["host_images"])


def gpu_of(instance: Instance) -> Gpu | None:
    """The GPU of an instance type; None without one, and where the table does not have it."""
    return _gpus().get(instance.accelerator_name or "") if instance.gpus else None


def cuda_version(text: str) -> Version:
    """A CUDA as a tag or a person writes it, `cu124` or `12.4`, as numbers."""
    digits = text.removeprefix("cu")
    return version(digits if "." in digits else f"{digits[:-1]}.{digits[-1]}")


def pick_host_image(cuda: str | None, instances: Iterable[Instance] = ()) -> HostImage | None:
    """The host image for an image's CUDA on these types of instance.

    None, which leaves SageMaker's default, for a CPU image, for CUDA 11 and older, which run there, for a CUDA newer
    than the table, and for GPUs that the driver of no row drives.
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
    """Refuse an instance type whose GPUs the image is known not to drive; otherwise what to annotate.

    :param cuda: The image's CUDA, as `cu124`; None where nobody knows.
    :param torch: Its torch; None where nobody knows, and where another program computes (vLLM).
    :param bases: Images that would do as well, oldest first, of which the error names the newest that drives the GPUs.
    :param region: Where the instance is to be; types that are not offered there are not proposed.
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
    """Whether nothing known speaks against an image on the GPUs of an instance type, its host's driver included."""
    gpu = gpu_of(instance)
    if gpu is None or image.cuda is None:
        return True
    return _cannot_drive(gpu, image.cuda, image.torch) is None and not _lacks_driver(instance, image.cuda)


def built_for(cuda: str | None, torch: str | None) -> str | None:
    """The GPUs that an image has code for, in words; None where the tables do not have it."""
    if cuda is None:
        return None
    if build := _build_of(cuda, torch):
        later = f", and later ones by PTX {build.ptx}" if build.ptx else ""
        return f"compute capability {build.architectures[0]} to {build.architectures[-1]}{later}"
    toolkit = _toolkit_of(cuda)
    return f"compute capability {toolkit['oldest']} or newer, as its CUDA" if toolkit else None


@dataclass(frozen=True, kw_only=True)
class _Build:
    """For which GPUs a torch has code."""

    architectures: Sequence[str]
    ptx: str | None

    def has_code_for(self, capability: Version) -> bool:
        """Machine code runs on later GPUs of its major release, PTX on all later ones."""
        own = [version(each) for each in self.architectures]
        compiled = any(each[0] == capability[0] and each[1] <= capability[1] for each in own)
        return compiled or (self.ptx is not None and version(self.ptx) <= capability)


def _build_of(cuda: str, torch: str | None) -> _Build | None:
    """What PyTorch publishes of a torch for a CUDA; None where the table does not have the pair."""
    if torch is None:
        return None
    asked, minor = cuda_version(cuda), version(torch)[:2]
    for row in table("cuda_builds")["cuda_builds"]:
        fits_torch = version(row["first_torch"]) <= minor <= version(row["last_torch"])
        if fits_torch and version(row["first_cuda"]) <= asked <= version(row["last_cuda"]):
            return _Build(architectures=row["architectures"], ptx=row["ptx"])
    return None


def _toolkit_of(cuda: str) -> dict[str, object] | None:
    """What the toolkit can compile for; None for one that is older than the table, or of a newer major release."""
    asked = cuda_version(cuda)
    rows = [row for row in table("cuda_builds")["cuda_toolkits"] if version(row["cuda"]) <= asked]
    return rows[-1] if rows and version(rows[-1]["cuda"])[0] == asked[0] else None


def _cannot_drive(gpu: Gpu, cuda: str, torch: str | None) -> str | None:
    """Why not; None where it can, or nobody knows."""
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
    """Whether there are host images for a CUDA, and none with a driver for the GPUs of a type."""
    return pick_host_image(cuda) is not None and pick_host_image(cuda, [instance]) is None


def _near_types(instance: Instance, cuda: str, torch: str | None, region: str | None) -> list[str]:
    """The type that is most like this one, of those that the image drives."""

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
    """The newest of the bases that drives the GPU, as an option."""
    fitting = [image for image in bases if image.cuda and _cannot_drive(gpu, image.cuda, image.torch) is None]
    published = [image for image in fitting if region is None or region in image.regions]
    if not published:
        return []
    newest = published[-1]
    return [f'base="{newest.uri(region) if region else newest.name}"']
