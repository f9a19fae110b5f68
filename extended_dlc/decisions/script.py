"""Refuses hyperparameters that a training script's parser would reject."""

from __future__ import annotations

import re
from collections.abc import Mapping

from extended_dlc.decisions.script_source import TRAINER, Arguments, arguments_of, flag_of, spellings
from extended_dlc.facts._tables import did_you_mean, table
from extended_dlc.options._values import is_token
from extended_dlc.options.training import HyperParameter, TrainingCode, as_argument

_NUMBER = re.compile(r"-\d+|-\d*\.\d+")
"""The values with a minus that argparse does not take for an option; without an exponent."""


def check_hyperparameters(
    code: TrainingCode, script: str, hyperparameters: Mapping[str, HyperParameter], *, transformers: str | None
) -> None:
    """Refuse hyperparameters that the script's parser would reject.

    A script passes unchecked if its source does not show the arguments: those of another package, or a parser that
    ignores unknown ones.
    """
    found = arguments_of(code, script)
    if found is None:
        return
    known = found.names | (_fields(found.trainer, transformers) if found.trainer else set())
    for name, value in hyperparameters.items():
        _check_name(found, name, known, transformers)
        text = as_argument(value)
        if not is_token(value) and _looks_like_an_option(text):
            raise ValueError(
                f"'{name}' ({text[:40]}) begins with '-', so that argparse takes it for an option: write a number "
                "without an exponent (-0.00001), and let the script add the sign of anything else"
            )
    _check_values(found, hyperparameters)


def _check_name(found: Arguments, name: str, known: set[str], transformers: str | None) -> None:
    if name in known:
        return
    if meant := found.meant(name):
        raise ValueError(
            f"'{name}' reaches the script as {flag_of(name)}, which is how SageMaker's toolkit writes it, and "
            f"{found.script} reads {meant}: add {flag_of(name)} to that argument"
        )
    begun = {each.replace("-", "_") for each in known if found.abbreviations and _begins(each, name)}
    if len(begun) == 1:
        return
    if begun:
        raise ValueError(f"'{name}' could be {', '.join(sorted(begun)[:4])}: write the one that is meant")
    # an option such as --no_bf16 is near to much, and seldom meant
    nearest = did_you_mean(name, [each for each in known if not re.match("no[_-]", each)] or known)
    if found.trainer and name in _fields(found.trainer, None):
        raise ValueError(
            f"'{name}' is no argument of {found.trainer} in transformers {transformers}, and was one of another "
            f"release: see its migration guide{nearest}"
        )
    raise ValueError(f"'{name}' is no argument of {found.script}{nearest}: remove it, or add it to the parser")


def _begins(option: str, name: str) -> bool:
    """Whether a hyperparameter is the beginning of a long option, which argparse accepts."""
    return len(name) > 1 and len(option) > 1 and option.startswith(name)


def _looks_like_an_option(text: str) -> bool:
    """Whether argparse takes a value for an option (CPython, `argparse.py`, `_parse_optional`)."""
    return len(text) > 1 and text.startswith("-") and " " not in text and not _NUMBER.fullmatch(text)


def _check_values(found: Arguments, hyperparameters: Mapping[str, HyperParameter]) -> None:
    """Refuse values that the parser would reject, and arguments that it misses."""
    given = {_written_out(name, found.names): value for name, value in hyperparameters.items()}
    for rule in found.rules:
        said = [(name, given[name]) for name in rule.options if name in given]
        if rule.required and (rule.positional or not said):
            raise ValueError(rule.missing(found.script))
        for name, value in said:
            if not is_token(value) and (wrong := rule.wrong(name, as_argument(value))):
                raise ValueError(wrong)


def _written_out(name: str, known: set[str]) -> str:
    """The option that an abbreviation stands for."""
    begun = [each for each in known if _begins(each, name)]
    return name if name in known or len(begun) != 1 else begun[0]


def _fields(name: str, transformers: str | None) -> set[str]:
    """The fields of a transformers class: of this release if it is in the table, otherwise of all releases."""
    data = table("training_arguments")
    of_class = TRAINER if name == TRAINER[1] else TRAINER[:1]
    rows = [row for row in data["training_arguments"] if row["class"] in of_class]
    if transformers in data["releases"]:
        rows = [row for row in rows if transformers in row["releases"]]
    return {spelt for row in rows for spelt in spellings(row["argument"])}
