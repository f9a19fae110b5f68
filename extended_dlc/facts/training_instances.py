"""Instance types that SageMaker trains on, which differ from those that it hosts on."""

from __future__ import annotations

from extended_dlc.facts._tables import table
from extended_dlc.facts.instances import Instance, find_instance, nearest_type


def find_training_instance(name: str) -> Instance:
    """The instance type of this name; raises `ValueError` with the nearest name if SageMaker does not train on it."""
    rows = table("training_instances")["training_instances"]
    if name not in rows:
        hint = nearest_type(name, rows) or ": ml.g5.xlarge is one"
        raise ValueError(f"is not an instance type that SageMaker trains on{hint}")
    return find_instance(name) if rows[name] is None else Instance(name=name, **rows[name])


def all_training_instances() -> tuple[Instance, ...]:
    """Every type that SageMaker trains on, by name."""
    return tuple(find_training_instance(name) for name in table("training_instances")["training_instances"])
