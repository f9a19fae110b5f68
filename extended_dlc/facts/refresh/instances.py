"""Hosting types with what they have."""

from __future__ import annotations

import gzip
import json
from importlib import metadata, resources

from extended_dlc.facts.refresh._pip import Json


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
