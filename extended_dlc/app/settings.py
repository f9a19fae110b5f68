"""Reads the settings into typed sections and decides on them; all problems are reported at once."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from typing import Any, get_args, get_origin

from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from extended_dlc.app.arns import wrong_arns
from extended_dlc.app.asked import (
    endpoints_asked,
    image_asked,
    is_built_in_cloud,
    unserved_models,
    wrong_names,
)
from extended_dlc.app.aws_names import partition_of
from extended_dlc.app.read import UNREAD, Raw, SettingsError, read_lookups, read_raw
from extended_dlc.app.schema import CHANNELS, IMAGES, SECTIONS, WEIGHTS, Endpoint, Settings, Training
from extended_dlc.app.section import Section, kind_of
from extended_dlc.decisions.asked import ImageAsked
from extended_dlc.decisions.decide import Decision, decide
from extended_dlc.decisions.found import Refusal
from extended_dlc.decisions.sizing import Load
from extended_dlc.facts._tables import did_you_mean
from extended_dlc.images.registry_login import bases_to_pull
from extended_dlc.options._values import OptionError


@dataclass(frozen=True, kw_only=True)
class Read:
    """Settings that were read, with the decision."""

    raw: Raw
    settings: Settings | None
    """The settings; None where they are not valid."""

    decision: Decision
    """The decision for the sections that are valid."""

    problems: tuple[str, ...]
    """All problems, one line each."""

    looked_up: Mapping[str, Any] = field(default_factory=dict)
    """What was known of models by their context keys; the constructs need it in the context too."""

    @property
    def name(self) -> str | None:
        """The name of the stack."""
        return self.settings.name if self.settings else None

    @property
    def region(self) -> str | None:
        """Where it is deployed."""
        return self.settings.region if self.settings else None

    @property
    def bases(self) -> tuple[str, ...]:
        """The base images that this machine pulls to build the images of endpoints and trainings."""
        in_cloud = self.settings is not None and is_built_in_cloud(self.settings.image)
        endpoint_bases = () if in_cloud else bases_to_pull(self.decision)
        if self.settings is None or not self.settings.training:
            return endpoint_bases
        from extended_dlc.app.training import Around, training_bases

        return tuple(dict.fromkeys([*endpoint_bases, *training_bases(self.settings.training, Around.of(self))]))

    @property
    def report(self) -> str:
        """The problems under a heading."""
        return "\n".join([f"{self.raw.origin} is not valid:", *(f"  {problem}" for problem in self.problems)])


def read(
    raw: Raw, *, looked_up: Mapping[str, Any] | None = None, cli_region: str | None = None, load: Load | None = None
) -> Read:
    """The settings with all their problems, and the decision.

    :param looked_up: What `extended-dlc lookup` found, as in `cdk.context.json`.
    :param cli_region: The region of settings that name none.
    """
    content = dict(raw.content)
    if not content.get("region") and cli_region:
        content["region"] = cli_region
    problems = list(raw.problems)
    settings, good, wrong = _validated(content)
    problems += wrong
    decision, undecided = _decide(good, raw.base_region or cli_region, looked_up or {}, load)
    problems += undecided
    # Invalid values were removed, and their defaults were decided on instead.
    problems += [refusal.line for refusal in decision.refusals if settings or _is_right(refusal, content, good)]
    nameless = {f"endpoints.{key}" for key, each in _endpoints(good) if "model" not in each}
    notes = [note for note in decision.notes if note.section not in nameless or note.setting not in _ABOUT_MODEL]
    return Read(
        raw=raw,
        settings=settings,
        decision=replace(decision, notes=tuple(notes)),
        problems=tuple(dict.fromkeys(problems)),
        looked_up=looked_up or {},
    )


def read_settings(
    given: Mapping[str, Any], *, cli_region: str | None = None, in_cdk_json: Any = UNREAD, looked_up: Any = None
) -> Read:
    """The app's settings; `SettingsError` with all their problems.

    :param given: `settings`, the file, and the overrides, by their keys.
    """
    raw = read_raw(given, in_cdk_json=in_cdk_json)
    known = {**read_lookups(raw.file), **(looked_up or {})}
    found = read(raw, looked_up=known, cli_region=cli_region)
    if found.problems or found.settings is None:
        raise SettingsError(found.report)
    return found


_ABOUT_MODEL = ("model", "revision")
"""The settings whose notes say nothing where no model is named, and another is decided on in its place."""


def _endpoints(content: Mapping[str, Any]) -> Iterator[tuple[str, Mapping[str, Any]]]:
    """The sections of endpoints."""
    given = content.get("endpoints")
    for key, value in given.items() if isinstance(given, Mapping) else ():
        if isinstance(value, Mapping):
            yield str(key), value


def _validated(content: Mapping[str, Any]) -> tuple[Settings | None, dict[str, Any], list[str]]:
    """The settings, if all is right; what is right of them; and what is wrong, a line each.

    A section whose fields have wrong types is not checked any further by pydantic. So what is wrong is taken out, and
    the rest looked at again: one fault does not hide another.
    """
    good: dict[str, Any] = json.loads(json.dumps(content))
    settings: Settings | None = None
    wrong: list[str] = []
    for _ in range(_LOOKS):
        try:
            settings = Settings.model_validate(good)
            break
        except ValidationError as error:
            details = error.errors()
        # Problems that only the removal of a value causes are not reported.
        theirs = [
            each
            for each in details
            if _at(good, _setting_keys(each), _ABSENT) == _at(content, _setting_keys(each), _ABSENT)
        ]
        wrong += [line for detail in theirs for line in explain(detail, content)]
        taken = [_take_out(good, detail) for detail in details]
        if not any(taken):
            break
    return (None if wrong else settings), good, list(dict.fromkeys(wrong))


_LOOKS = 4


def _take_out(good: dict[str, Any], detail: ErrorDetails) -> bool:
    """Remove what is wrong, or the section that is wrong as a whole; whether there was anything."""
    keys = _setting_keys(detail)
    # an endpoint goes on without what is wrong in it, and without a model
    shortest = 3 if keys[:1] == ["endpoints"] else 1
    while len(keys) >= shortest:
        above = _at(good, keys[:-1])
        if not isinstance(above, dict):  # Another problem has removed it already.
            return False
        if keys[-1] in above:
            del above[keys[-1]]
            return True
        keys.pop()
    return False


def _is_right(refusal: Refusal, content: Mapping[str, Any], good: Mapping[str, Any]) -> bool:
    """Whether a refusal is about what the settings say, and not about what is decided in the place of what is wrong."""
    path = refusal.path.split(".")
    if _at(good, path) is not None:
        return True
    if path[-1] == "base_region":  # which is the settings' region where they name no other
        return "region" in good
    section = path[:2] if path[0] == "endpoints" else path[:1]
    return bool(_at(good, section) == _at(content, section))


_ABSENT = object()
"""What `_at` can be asked for in the place of what is not there, which null is not."""


def _at(raw: Any, path: Sequence[str], default: Any = None) -> Any:
    """The value at a place; `default` without one."""
    for part in path:
        inside = raw[int(part)] if isinstance(raw, list) and part.isdigit() and int(part) < len(raw) else default
        raw = raw.get(part, default) if isinstance(raw, Mapping) else inside
    return raw


def _decide(
    content: Mapping[str, Any], base_region: str | None, looked_up: Mapping[str, Any], load: Load | None
) -> tuple[Decision, list[str]]:
    """The decision for the sections that are valid, so that one fault does not hide another; and other problems."""
    name = str(content.get("name", "extended-dlc"))
    endpoints: dict[str, Any] = {}
    for key, value in _endpoints(content):
        with suppress(ValidationError):
            # The rest is decided without a valid model, too.
            endpoints[key] = Endpoint.model_validate({"model": "unknown", **value})
    problems = [*unserved_models(endpoints)]
    wrong = wrong_names(name, endpoints)
    problems += [line for lines in wrong.values() for line in lines]
    endpoints = {key: each for key, each in endpoints.items() if key not in wrong}
    section = content.get("image")
    try:
        image = IMAGES[kind_of("extended")(section)].model_validate(section)
    except (KeyError, ValidationError):
        image = None
    region = content.get("region")
    region = region if isinstance(region, str) and region else None
    if region is not None:
        sections = {"image": image, **{f"endpoints.{key}": each for key, each in endpoints.items()}}
        problems += [line for at, each in sections.items() if each for line in wrong_arns(each, at, region)]
    # Nothing is known of an invalid image; what does not depend on it is decided.
    pulled_from = _base_region(base_region, region)
    asked = ImageAsked() if image is None else image_asked(image, base_region=pulled_from)
    decision = decide(asked, endpoints_asked(name, endpoints, asked, looked_up), region=region, load=load)
    wrong_endpoints = {key for key, _ in _endpoints(content)} - set(endpoints)
    if trainings := {k: each for k, each in _trainings(content) if each.endpoint not in wrong_endpoints}:
        # Imported here, because most settings have no trainings.
        from extended_dlc.app.training import Around, training_problems

        around = Around(
            name=name,
            region=region,
            base_region=pulled_from,
            endpoints=endpoints,
            image=asked,
            serving=decision.image,
            looked_up=looked_up,
        )
        problems += training_problems(trainings, around)
    return decision, problems


def _trainings(content: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    """The valid trainings."""
    given = content.get("training")
    for key, value in given.items() if isinstance(given, Mapping) else ():
        with suppress(ValidationError):
            yield str(key), Training.model_validate(value)


def _base_region(seen: str | None, region: str | None) -> str | None:
    """The registry's region: the one that `extended-dlc login` has seen, so that `-c region=` does not part the two.

    Another partition has registries and accounts of its own, and there the region that is deployed to decides.
    """
    if seen is None or region is None or partition_of(seen) != partition_of(region):
        return None
    return seen


# Pydantic's errors in this package's words.


def _kinds() -> dict[str, Mapping[str, type[Section]]]:
    """The sections that a `kind` decides on, by the settings that have them."""
    return {
        "image": IMAGES,
        "weights": WEIGHTS,
        "hosting": SECTIONS.by_kind["Hosting"],
        "rollout": SECTIONS.by_kind["Rollout"],
        "scaling": SECTIONS.by_kind["InstanceScaling"],
        "schedule": SECTIONS.by_kind["Schedule"],
        "build": SECTIONS.by_kind["Build"],
        "channels": CHANNELS,
        "verify": {"proof": Section, "switch": Section},
    }


_BY_NAME = ("channels",)
"""Of these, the sections whose names are the user's: the kind stands after the name."""


def explain(detail: ErrorDetails, raw: Any, root: type[BaseModel] | None = None) -> Iterator[str]:
    """One of pydantic's errors.

    :param root: What the whole of the settings is. Default: the app's `Settings`.
    """
    keys = _setting_keys(detail)
    path = ".".join(keys)
    match detail["type"]:
        case "missing":
            yield f"{path}: field required"
        case "extra_forbidden":
            yield f"{path}: is not a setting{did_you_mean(keys[-1], _siblings(keys[:-1], raw, root or Settings))}"
        case "value_error":
            error = detail["ctx"]["error"]
            if isinstance(error, OptionError):
                section = keys[: len(keys) - len(error.option.split("."))]
                for each in (error, *error.others):
                    value = "" if each.value is None else f" ({each.value})"
                    yield f"{'.'.join([*section, each.option])}{value}: {each.rule}"
            else:
                value = "" if isinstance(detail["input"], dict) or detail["input"] == "" else f" ({detail['input']})"
                yield f"{path}{value}: {error}"
        case "literal_error" if isinstance(detail["input"], Mapping) and str(detail["loc"][-1]).startswith("literal["):
            pass  # a name or an object may stand there, and an object does: its own errors say what is wrong
        case "model_type":
            names = ", ".join(_siblings(keys, raw, root or Settings))
            yield f"{path}: must be an object of settings ({names}), got {_shown(detail['input'])}"
        case "kind":
            kinds = re.findall("'([^']+)'", detail["msg"])
            given = detail["input"].get("kind") if isinstance(detail["input"], Mapping) else detail["input"]
            yield f"{path}: {detail['msg']}, got {_shown(given)}{did_you_mean(str(given), kinds)}"
        case _ if keys[-2:-1] == ["hyperparameters"]:  # pydantic tries each type that a value may have
            yield f"{path}: must be a text, a number, true or false, got {_shown(detail['input'])}"
        case "too_short" if detail["ctx"]["min_length"] == 1:
            yield f"{path}: must not be empty"
        case "literal_error":
            expected = str(detail["ctx"]["expected"])
            near = did_you_mean(str(detail["input"]), expected.replace("'", "").replace(" or ", ", ").split(", "))
            yield f"{path} ({_shown(detail['input'])}): must be {expected}{near}"
        case _:
            message = detail["msg"][0].lower() + detail["msg"][1:]
            yield f"{path}: {message}, got {_shown(detail['input'])}"


def _setting_keys(detail: ErrorDetails) -> list[str]:
    """Where in the settings an error is: pydantic also names the kind, and the member of a union, that it tried."""
    keys = [str(part) for part in detail["loc"]]
    for section, kinds in _kinds().items():
        for after in [index + 1 for index, part in enumerate(keys) if part == section]:
            after += section in _BY_NAME
            if keys[after : after + 1] and keys[after] in kinds:
                del keys[after]
    keys = [part for part in keys if not part.endswith(("Settings", "]")) and part not in ("str", "Network")]
    if keys[-3:-2] == ["hyperparameters"] and keys[-1] in ("int", "float", "bool"):
        keys.pop()
    error = detail.get("ctx", {}).get("error")
    if isinstance(error, OptionError) and (not keys or keys[-1] != error.option):
        keys += error.option.split(".")
    return keys


def _shown(value: Any) -> str:
    text = json.dumps(value, default=str)
    return text if len(text) <= 80 else f"{text[:80]}…"


_DEFAULT_KINDS = {"image": "extended", "hosting": "real-time", "schedule": "office-hours", "build": "local"}
"""Of the settings that default to no section: the kind of a section there that names none."""


def _siblings(keys: list[str], raw: Any, root: type[BaseModel]) -> list[str]:
    """The names of the settings that exist at a place."""
    section = root
    kinds = _kinds()
    for part in keys:
        raw = raw[int(part)] if isinstance(raw, list) and part.isdigit() else raw
        raw = raw.get(part) if isinstance(raw, Mapping) else raw
        field = section.model_fields.get(part)
        if field is None:
            continue  # the id of an endpoint or a component, or a place in a list
        if part in kinds and set(_sections_in(field.annotation)) & set(kinds[part].values()):
            default = getattr(field.default, "kind", None) or _DEFAULT_KINDS.get(part, "")
            section = kinds[part].get(kind_of(default)(raw), section)
        else:
            section = next(_sections_in(field.annotation), section)
    return sorted(section.model_fields)


def _sections_in(annotation: Any) -> Iterator[type[Section]]:
    """The sections that a setting's type names."""
    if isinstance(annotation, type) and get_origin(annotation) is None and issubclass(annotation, Section):
        yield annotation
    for each in get_args(annotation):
        yield from _sections_in(each)
