"""What AWS refuses beyond the shapes of botocore's service models: a table with one row for each rule.

Each module has the rows of one or a few services, and `existing.py` those about what a request names elsewhere. A row
has a name, its operations, what it refuses as a phrase for `docs/fidelity.md`, the source, and a check that returns
AWS's error message or None. Where no source has AWS's message, it is this project's, and the row says so with
`own_words`. `tests/rehearsal/embedded/rule_cases.py` has two requests for each row: one is refused, one is not.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from extended_dlc.rehearsal.embedded.calls import Call
from extended_dlc.rehearsal.embedded.rule import Rule, World
from extended_dlc.rehearsal.embedded.rules import (
    existing,
    identities,
    logs,
    messages,
    monitoring,
    programs,
    sagemaker,
    sagemaker_components,
    sagemaker_endpoint_configs,
    sagemaker_endpoints,
    sagemaker_models,
    sagemaker_training,
    scaling,
    schedules,
    secrets,
    stacks,
    state_machines,
    storage,
)
from extended_dlc.rehearsal.embedded.scenarios import Scenarios
from extended_dlc.rehearsal.embedded.shapes import Refusal

RULES: tuple[Rule, ...] = (
    *sagemaker.RULES,
    *sagemaker_models.RULES,
    *sagemaker_endpoint_configs.RULES,
    *sagemaker_endpoints.RULES,
    *sagemaker_components.RULES,
    *sagemaker_training.RULES,
    *scaling.RULES,
    *monitoring.RULES,
    *logs.RULES,
    *identities.RULES,
    *secrets.RULES,
    *storage.RULES,
    *messages.RULES,
    *schedules.RULES,
    *state_machines.RULES,
    *programs.RULES,
    *stacks.RULES,
    *existing.RULES,
)
"""All rules. Where several refuse a call, the first one's message is the answer."""


def check(call: Call, scenarios: Scenarios, rules: Sequence[Rule] = RULES) -> None:
    """Raise `Refusal` where a rule refuses the call."""
    name = str(call)
    world = World(account_id=call.account_id, region=call.region, scenarios=scenarios, caller=call.caller)
    for rule in _by_operation(rules).get(name, ()):
        if (rule.in_templates or not call.template) and (message := rule.check(world, call.parameters)):
            raise Refusal(rule.code, message)


def _by_operation(rules: Sequence[Rule]) -> Mapping[str, list[Rule]]:
    found: dict[str, list[Rule]] = {}
    for rule in rules:
        for operation in rule.operations:
            found.setdefault(operation, []).append(rule)
    return found
