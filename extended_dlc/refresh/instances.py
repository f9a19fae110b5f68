"""Instance types for hosting and training, with their hardware and regions, from botocore, moto and corrections."""

from __future__ import annotations

import gzip
import json
from importlib import metadata, resources
from pathlib import Path
from typing import Any

from extended_dlc.facts._tables import DATA
from extended_dlc.refresh._groups import group
from extended_dlc.refresh._pip import Json, RefreshError


def instances() -> Json:
    """The hosting types in botocore's service model, with the hardware and regions in moto's dumps of EC2."""
    import botocore.session

    model = botocore.session.get_session().get_service_model("sagemaker")
    dumps = Path(str(resources.files("moto"))) / "ec2/resources"
    specifications = _read(dumps / "instance_types.json.gz")
    by_hand = {
        row["instance"]: row["set"]
        for row in json.loads((DATA / "instance_corrections.json").read_text("utf-8"))["instance_corrections"]
    }
    offered: dict[str, list[str]] = {}
    offerings = sorted((dumps / "instance_type_offerings/region").iterdir())
    for file in offerings:
        for offering in _read(file):
            offered.setdefault(f"ml.{offering['InstanceType']}", []).append(offering["Location"])
    groups: dict[str, list[str]] = {}
    rows = {}
    for name in sorted(model.shape_for("ProductionVariantInstanceType").enum):
        specification = specifications.get(name.removeprefix("ml."))
        row = _instance(specification) if specification else by_hand.get(name)
        if row is None:
            raise RefreshError(
                f"SageMaker hosts on {name}, which the dump of EC2 does not have: add it to instance_corrections.json "
                "with its source, or refresh with a newer moto"
            )
        rows[name] = row | {"regions": group(groups, name, offered[name]) if name in offered else None}
    return {
        "source": f"botocore {metadata.version('botocore')}, sagemaker ProductionVariantInstanceType; moto "
        f"{metadata.version('moto')}, ec2/resources/{{instance_types.json.gz,instance_type_offerings/region}}; "
        "instance_corrections.json",
        "covered": [file.name.split(".")[0] for file in offerings],
        "offered": dict(sorted(groups.items())),
        "instances": rows,
    }


def _network(network: Json) -> float | None:
    """The baseline of the default network card, which containers use; the peak lasts only minutes and is ignored."""
    default = network.get("DefaultNetworkCardIndex", 0)
    cards = {card["NetworkCardIndex"]: card for card in network.get("NetworkCards", ())}
    found = cards.get(default, {}).get("BaselineBandwidthInGbps")
    return None if found is None else float(found)


def _read(file: Path) -> Any:
    return json.loads(gzip.decompress(file.read_bytes()))


def _instance(specification: Json) -> Json:
    gpus = [gpu for gpu in specification.get("GpuInfo", {}).get("Gpus", []) if gpu["Manufacturer"] == "NVIDIA"]
    neurons = specification.get("NeuronInfo", {}).get("NeuronDevices", [])
    device = next(iter(gpus + neurons), None)
    architectures = specification["ProcessorInfo"]["SupportedArchitectures"]
    return {
        "accelerator": "gpu" if gpus else "neuron" if neurons else "cpu",
        "architecture": "arm64" if "arm64" in architectures else "x86_64",
        "vcpu": specification["VCpuInfo"]["DefaultVCpus"],
        "memory_mib": specification["MemoryInfo"]["SizeInMiB"],
        "accelerator_name": f"{device.get('Manufacturer', 'AWS')} {device['Name']}" if device else None,
        "accelerators": device["Count"] if device else 0,
        "accelerator_memory_mib": device["MemoryInfo"]["SizeInMiB"] if device else 0,
        "local_storage_gb": specification.get("InstanceStorageInfo", {}).get("TotalSizeInGB", 0),
        "network_gbps": _network(specification["NetworkInfo"]),
    }


def training_instances(hosting: Json) -> Json:
    """The training types in botocore's service model; the row is None for types that are in `hosting` too."""
    import botocore.session

    model = botocore.session.get_session().get_service_model("sagemaker")
    specifications = _read(Path(str(resources.files("moto"))) / "ec2/resources/instance_types.json.gz")
    rows: dict[str, Json | None] = {}
    for name in sorted(model.shape_for("TrainingInstanceType").enum):
        specification = specifications.get(name.removeprefix("ml."))
        if name in hosting["instances"]:
            rows[name] = None
        elif specification is None:
            raise RefreshError(
                f"SageMaker trains on {name}, which the dump of EC2 does not have: refresh with a newer moto"
            )
        else:
            rows[name] = _instance(specification)
    return {
        "source": f"botocore {metadata.version('botocore')}, sagemaker TrainingInstanceType; moto "
        f"{metadata.version('moto')}, ec2/resources/instance_types.json.gz; null: as in instances.json",
        "training_instances": rows,
    }
