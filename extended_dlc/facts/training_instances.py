"""Instance types that SageMaker trains on, which differ from those that it hosts on."""

from __future__ import annotations

from extended_dlc.facts._tables import did_you_mean, table
from extended_dlc.facts.instances import Instance, find_instance


def find_training_instance(name: str) -> Instance:
    """The instance type of this name; raises `ValueError` with the nearest name if SageMaker does not train on it."""
    rows = table("training_instances")["training_instances"]
    if name not in rows:
        hint = did_you_mean(name if name.startswith("ml.") else f"ml.{name}", rows)
        raise ValueError(f"is not an instance type that SageMaker trains on{hint or ': ml.g5.xlarge is one'}")
    return find_instance(name) if rows[name] is None else Instance(name=name, **rows[name])


def all_training_instances() -> tuple[Instance, ...]:
    """Every type that SageMaker trains on, by name."""
    return tuple(find_training_instance(name) for name in table("training_instances")["training_instances"])
