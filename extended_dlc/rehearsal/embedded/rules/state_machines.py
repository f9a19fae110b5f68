"""Rules of Step Functions: definitions and roles of state machines."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import Any

from moto.utilities.utils import get_partition

from extended_dlc.rehearsal.embedded.calls import Parameters
from extended_dlc.rehearsal.embedded.rule import Rule, World


def _machine_role(world: World, given: Parameters) -> str | None:
    arn = given.get("roleArn")
    # aws:SourceArn is the state machine (Step Functions developer guide, "Cross-service confused deputy prevention")
    prefix = f"arn:{get_partition(world.region)}:states:{world.region}:{world.account_id}"
    source = given.get("stateMachineArn") or f"{prefix}:stateMachine:{given.get('name', 'embedded')}"
    if arn is None or world.trusts(arn, "states.amazonaws.com", source=source):
        return None
    return (
        "Neither the global service principal states.amazonaws.com, nor the regional one is authorized to assume the "
        "provided role."
    )


_STATES = ("Choice", "Fail", "Map", "Parallel", "Pass", "Succeed", "Task", "Wait")


def _states(world: World, given: Parameters) -> str | None:
    try:
        faults = list(_faults_of_states(json.loads(given.get("definition") or "{}"), ""))
    except (AttributeError, ValueError):  # the row of definitions refuses what is no machine
        return None
    return f"Invalid State Machine Definition: 'SCHEMA_VALIDATION_FAILED: {', '.join(faults)}'" if faults else None


def _faults_of_states(machine: Mapping[str, Any], path: str) -> Iterator[str]:
    for name, state in machine.get("States", {}).items():
        here, kind = f"{path}/States/{name}", state.get("Type")
        if kind not in _STATES:
            yield f"Value is not one of {', '.join(_STATES)} at {here}/Type"
        elif kind == "Choice" and not state.get("Choices"):
            yield f"These fields are required: [Choices] at {here}"
        elif kind not in ("Choice", "Fail", "Succeed") and bool(state.get("Next")) == bool(state.get("End")):
            yield f"These fields are required: [Next] or [End], and not both, at {here}"
        inner = [*state.get("Branches", ()), *(state[each] for each in ("ItemProcessor", "Iterator") if each in state)]
        for each in inner:
            yield from _faults_of_states(each, here)


_BROKEN = "Invalid State Machine Definition: '"


def _definition(world: World, given: Parameters) -> str | None:
    text = given.get("definition")
    if text is None:  # an update of the role alone
        return None
    try:
        machine = json.loads(text)
    except ValueError:
        return f"{_BROKEN}INVALID_JSON_DESCRIPTION: the definition is no JSON'"
    if not isinstance(machine, Mapping):
        return f"{_BROKEN}SCHEMA_VALIDATION_FAILED: the definition is no JSON object'"
    faults = list(_faults_of_machine(machine, ""))
    return f"{_BROKEN}{', '.join(faults)}'" if faults else None


def _faults_of_machine(machine: Mapping[str, Any], path: str) -> Iterator[str]:
    """What is wrong with a machine's transitions, and with those of the machines inside its states."""
    states, first = machine.get("States"), machine.get("StartAt")
    if not isinstance(states, Mapping) or not states or not isinstance(first, str):
        yield f"SCHEMA_VALIDATION_FAILED: These fields are required: [StartAt, States] at {path or '/'}"
        return
    targets = {f"{path}/StartAt": first}
    for name, state in states.items():
        here = f"{path}/States/{name}"
        targets.update((f"{here}/{member}", target) for member, target in _targets(state))
        for below, inner in _inside(state):
            yield from _faults_of_machine(inner, f"{here}/{below}")
    for below, target in targets.items():
        if target not in states:
            yield f"MISSING_TRANSITION_TARGET: Missing 'Next' target: {target} at {below}"
    for name in states:
        if name not in targets.values():
            yield f'MISSING_TRANSITION_TARGET: State "{name}" is not reachable. at {path}/States/{name}'


def _targets(state: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """The places in a state that name the next one, and the names."""
    for member in ("Next", "Default"):
        if member in state:
            yield member, state[member]
    for several in ("Catch", "Choices"):
        for number, each in enumerate(state.get(several, ())):
            if "Next" in each:
                yield f"{several}[{number}]/Next", each["Next"]


def _inside(state: Mapping[str, Any]) -> Iterator[tuple[str, Mapping[str, Any]]]:
    """The machines inside a state, with their places."""
    for number, branch in enumerate(state.get("Branches", ())):
        yield f"Branches[{number}]", branch
    for member in ("ItemProcessor", "Iterator"):
        if isinstance(state.get(member), Mapping):
            yield member, state[member]


_MACHINES = ("stepfunctions:CreateStateMachine", "stepfunctions:UpdateStateMachine")

RULES: tuple[Rule, ...] = (
    Rule(
        name="a state machine's role",
        operations=("stepfunctions:CreateStateMachine", "stepfunctions:UpdateStateMachine"),
        refuses="a role that is not there, or does not let Step Functions assume it for this account",
        source="the words stand in many public reports, such as aws/aws-cdk, issues",
        check=_machine_role,
        code="AccessDeniedException",
    ),
    Rule(
        name="a state machine's states",
        operations=("stepfunctions:CreateStateMachine", "stepfunctions:UpdateStateMachine"),
        refuses="a state of a type that there is not, without a Next or an End, and a Choice without Choices",
        source="Amazon States Language, states; Step Functions API reference, InvalidDefinition",
        check=_states,
        code="InvalidDefinition",
        own_words=True,
    ),
    Rule(
        name="a state machine's definition",
        operations=_MACHINES,
        refuses="a definition that is no JSON, a transition to a state that is not there, a state that none leads to",
        source="Step Functions API reference, InvalidDefinition; localstack/localstack#11978, floci-io/floci#2786: the "
        "words, measured in accounts",
        check=_definition,
        code="InvalidDefinition",
    ),
)
