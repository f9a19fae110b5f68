"""Rules of SageMaker's training jobs."""

from __future__ import annotations

from extended_dlc.facts.instances import find_instance
from extended_dlc.rehearsal.embedded.calls import Parameters
from extended_dlc.rehearsal.embedded.rule import API, Rule, World


def _training_volume(world: World, given: Parameters) -> str | None:
    asked = given.get("ResourceConfig", {})
    try:
        kind = find_instance(asked.get("InstanceType", ""))
    except ValueError:  # the shapes refuse the type, or the group of instances has its own
        return None
    if kind.local_storage_gb and asked.get("VolumeKmsKeyId"):
        return f"VolumeKmsKeyId is not supported for instance type {kind.name}, which has local instance storage."
    if not kind.local_storage_gb and not asked.get("VolumeSizeInGB"):
        return f"VolumeSizeInGB is required for instance type {kind.name}, which has no local instance storage."
    return None


def _algorithm(world: World, given: Parameters) -> str | None:
    asked = given.get("AlgorithmSpecification")
    if asked and bool(asked.get("TrainingImage")) == bool(asked.get("AlgorithmName")):
        return "AlgorithmSpecification must have either a TrainingImage or an AlgorithmName, and not both."
    return None


def _training_time(world: World, given: Parameters) -> str | None:
    longest = given.get("StoppingCondition", {}).get("MaxRuntimeInSeconds", 0)
    if longest <= _LONGEST_TRAINING:
        return None
    return f"MaxRuntimeInSeconds {longest} must be less than or equal to {_LONGEST_TRAINING}, which are 28 days."


_LONGEST_TRAINING = 28 * 86_400

RULES: tuple[Rule, ...] = (
    Rule(
        name="a training job's volume",
        operations=("sagemaker:CreateTrainingJob",),
        refuses="no volume where the instance has no storage of its own, and a key for a volume where it has",
        source=API + "ResourceConfig VolumeSizeInGB, VolumeKmsKeyId",
        check=_training_volume,
        own_words=True,
    ),
    Rule(
        name="a training job's algorithm",
        operations=("sagemaker:CreateTrainingJob",),
        refuses="an algorithm beside an image, and neither",
        source=API + "AlgorithmSpecification TrainingImage, AlgorithmName: mutually exclusive",
        check=_algorithm,
        own_words=True,
    ),
    Rule(
        name="a training job's time",
        operations=("sagemaker:CreateTrainingJob",),
        refuses="MaxRuntimeInSeconds of more than 28 days",
        source=API + "StoppingCondition MaxRuntimeInSeconds",
        check=_training_time,
        own_words=True,
    ),
)
