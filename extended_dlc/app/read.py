"""Reading the app's settings: from `cdk.json`, a file or `-c` values, or one report of everything that is wrong."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from extended_dlc.facts._tables import did_you_mean

CONTEXT_KEY = "extended-dlc"

UNREAD: Any = object()
"""Stands for a `cdk.json` that was not read yet."""


class SettingsError(Exception):
    """Everything that is wrong with the settings, one problem a line."""


@dataclass(frozen=True, kw_only=True)
class Override:
    """A single value that overrides the settings: `-c KEY=…`, `EXTENDED_DLC_KEY`, or an option of the command line."""

    key: str
    what: str
    """Its description, for the reference and `--help`."""

    put: Callable[[dict[str, Any], str], str | None]
    """Puts the value into raw settings, and returns the problem, if there is one."""

    @property
    def variable(self) -> str:
        """The name of its environment variable."""
        return f"EXTENDED_DLC_{self.key.upper()}"


def _endpoints(raw: dict[str, Any]) -> list[dict[str, Any]]:
    endpoints = raw.get("endpoints")
    return [each for each in endpoints.values() if isinstance(each, dict)] if isinstance(endpoints, dict) else []


def _put_region(raw: dict[str, Any], value: str) -> None:
    raw["region"] = value


def _put_transformers(raw: dict[str, Any], value: str) -> None:
    if isinstance(raw.setdefault("image", {}), dict):
        raw["image"]["transformers"] = value


def _put_instance_type(raw: dict[str, Any], value: str) -> None:
    for endpoint in _endpoints(raw):
        if isinstance(endpoint.get("hosting") or {}, dict):
            hosting = endpoint["hosting"] = dict(endpoint.get("hosting") or {})
            if hosting.get("kind") != "serverless":
                hosting["instance_type"] = value


def _put_model(raw: dict[str, Any], value: str) -> str | None:
    endpoints = _endpoints(raw)
    if len(endpoints) != 1:
        return f"goes to the one endpoint there is, and the settings have {len(endpoints)}: change 'endpoints' instead"
    # The other settings of the model describe the one that this value replaces.
    for name in ("revision", "model_type", "parameters", "task", "weights", "trust_remote_code"):
        endpoints[0].pop(name, None)
    endpoints[0]["model"] = value
    return None


OVERRIDES: Mapping[str, Override] = {
    each.key: each
    for each in (
        Override(
            key="model",
            what="the model of the one endpoint there is, without the revision and weights of the one that it replaces",
            put=_put_model,
        ),
        Override(key="transformers", what="the release in the image", put=_put_transformers),
        Override(key="instance_type", what="the instance type of all endpoints with instances", put=_put_instance_type),
        Override(key="region", what="the region", put=_put_region),
    )
}
"""The overrides, by their keys."""

SETTINGS_VARIABLE = "EXTENDED_DLC_SETTINGS"


@dataclass(frozen=True, kw_only=True)
class Raw:
    """Unchecked settings, with the overrides applied."""

    origin: str
    """Their source and the overrides, as a clause for messages."""

    content: dict[str, Any]
    problems: tuple[str, ...] = ()
    """The problems with the overrides."""

    file: Path | None = None
    """The file of the settings; None where they are in `cdk.json`."""

    base_region: str | None = None
    """The region that `extended-dlc login` sees: without `-c` values, which the CDK CLI does not hand to it."""


def read_raw(
    given: Mapping[str, Any],
    *,
    folder: Path = Path(),
    in_cdk_json: Any = UNREAD,
    environment: Mapping[str, str] | None = None,
) -> Raw:
    """The settings in the file that `given["settings"]`, `EXTENDED_DLC_SETTINGS` or `cdk.json` names, or in `cdk.json`.

    :param given: The overrides by their keys, as `-c` or options give them. They win over the environment.
    :param in_cdk_json: What the context has under `extended-dlc`. Default: read from the folder's `cdk.json`.

    `SettingsError` for what cannot be read.
    """
    environment = os.environ if environment is None else environment
    chosen = given.get("settings") or environment.get(SETTINGS_VARIABLE)
    file = Path(str(chosen)) if chosen else None
    if file is None and in_cdk_json is UNREAD:
        file = _file_of_cdk_json(folder)
    if file is not None:
        origin, raw = str(file), read_settings_file(file)
    else:
        origin = f"context.{CONTEXT_KEY} of cdk.json"
        raw = _read_cdk_json(folder) if in_cdk_json is UNREAD else in_cdk_json
    if file is None and in_cdk_json is None:
        raise SettingsError(
            "the app's context has no settings: run it by the CDK CLI (npx cdk synth), which hands it the context of "
            f"cdk.json; there, '{CONTEXT_KEY}' is an object of settings or 'settings' names their file"
        )
    if not isinstance(raw, Mapping):
        raise SettingsError(f"{origin} holds no settings: write an object with 'region', 'image' and 'endpoints'")
    content: dict[str, Any] = json.loads(json.dumps(raw, default=str))
    content.pop("$schema", None)  # for the editor
    problems = []
    base_region = environment.get(OVERRIDES["region"].variable) or content.get("region")
    for key, override in OVERRIDES.items():
        value = given.get(key)
        if value is None or value == "":
            name, value = override.variable, environment.get(override.variable)
        else:
            name, origin = f"-c {key}", f"{origin} with -c {key}={value}"
        if value and (wrong := override.put(content, str(value))):
            problems.append(f"{name}={value}: {wrong}")
    return Raw(
        origin=origin,
        content=content,
        problems=tuple(problems),
        file=file,
        base_region=base_region if isinstance(base_region, str) else None,
    )


def lookups_file(settings_file: Path | None, folder: Path = Path()) -> Path:
    """Where `extended-dlc prepare` notes what the Hub said of the models in the settings: beside them."""
    if settings_file is None:
        return folder / "cdk.lookups.json"
    return settings_file.with_name(f"{settings_file.stem}.lookups.json")


def read_lookups(settings_file: Path | None, folder: Path = Path()) -> dict[str, Any]:
    """The content of that file; empty without the file. `SettingsError` where it is no JSON object."""
    file = lookups_file(settings_file, folder)
    try:
        content = json.loads(file.read_text("utf-8-sig"))
    except FileNotFoundError:
        return {}
    except (OSError, ValueError) as error:
        raise SettingsError(
            f"{file} cannot be read: {error}; delete it, and 'extended-dlc prepare' asks anew"
        ) from None
    return content if isinstance(content, dict) else {}


BOUNDARY_KEY = "@aws-cdk/core:permissionsBoundary"


def read_context_file(folder: Path = Path()) -> dict[str, Any]:
    """The content of `cdk.context.json`; empty without the file. `SettingsError` where it cannot be read."""
    try:
        content = json.loads((folder / "cdk.context.json").read_text("utf-8-sig"))
    except FileNotFoundError:
        return {}
    except (OSError, ValueError) as error:
        raise SettingsError(f"cdk.context.json cannot be read: {error}") from None
    return content if isinstance(content, dict) else {}


def known_models(settings_file: Path | None, folder: Path = Path()) -> dict[str, Any]:
    """What the Hub said of models, as the app has it: `extended-dlc lookup`'s answers win over `prepare`'s."""
    return {**read_lookups(settings_file, folder), **read_context_file(folder)}


def check_context(context: Mapping[str, Any], *, known: Iterable[str]) -> None:
    """Refuse `-c` keys that nothing reads, with the nearest that exists, and what the CDK refuses by a traceback.

    :param known: The keys of the files that hold context, which are other people's business.
    """
    boundary = context.get(BOUNDARY_KEY)
    if "${AWS::" in str(boundary):
        raise SettingsError(
            f"the context is not valid:\n  {BOUNDARY_KEY} ({json.dumps(boundary)}): has a placeholder, which the CDK "
            "fills in only where the stack's account is written down: write the account's number, or give the policy's "
            'name, {"name": "…"}'
        )
    ours = [CONTEXT_KEY, "settings", *OVERRIDES]
    strange = [key for key in context if key not in ours and key not in set(known) and not set(key) & set(":/@")]
    if strange:
        all_of_them = f"; there are {', '.join(ours[1:])}"
        lines = [f"  -c {key}: is not a setting{did_you_mean(key, ours) or all_of_them}" for key in sorted(strange)]
        raise SettingsError("\n".join(["the command line is not valid:", *lines]))


def keys_of_context_files(folder: Path = Path()) -> set[str]:
    """The keys that cdk.json, cdk.context.json and the user's ~/.cdk.json have."""
    keys: set[str] = set()
    for file, inside in (
        (folder / "cdk.json", True),
        (folder / "cdk.context.json", False),
        (Path.home() / ".cdk.json", True),
    ):
        try:
            content = json.loads(file.read_text("utf-8-sig"))
            keys |= set(content.get("context", {}) if inside else content)
        except (OSError, ValueError, AttributeError):
            continue
    return keys


def _read_cdk_json(folder: Path) -> Any:
    file = folder / "cdk.json"
    try:
        return json.loads(file.read_text("utf-8-sig")).get("context", {}).get(CONTEXT_KEY)
    except FileNotFoundError:
        raise SettingsError(f"there is no {file}: go to the folder of the app (cd), or name the settings") from None
    except OSError as error:
        raise SettingsError(f"{file} cannot be read: {error.strerror}") from None
    except (ValueError, AttributeError) as error:
        raise SettingsError(f"{file} is not valid: {error}; write a JSON object") from None


def _file_of_cdk_json(folder: Path) -> Path | None:
    """The settings' own file, where the context of `cdk.json` names one, as a new project's does."""
    try:
        named = json.loads((folder / "cdk.json").read_text("utf-8-sig"))["context"]["settings"]
    except (OSError, ValueError, KeyError, TypeError):  # Its problems are reported where it is read.
        return None
    return folder / named if isinstance(named, str) and named else None


def read_settings_file(path: Path) -> Any:
    """What a file of settings holds, JSON or YAML; `SettingsError` for one that cannot be read."""
    try:
        text = path.read_text("utf-8-sig")
    except OSError as error:
        reason = (error.strerror or str(error)).lower()
        raise SettingsError(f"settings file {path} cannot be read: {reason}; correct its path or its rights") from None
    except UnicodeDecodeError:
        raise SettingsError(f"settings file {path} is not text in UTF-8: save it in UTF-8") from None
    try:
        return json.loads(text, object_pairs_hook=_once) if path.suffix == ".json" else _read_yaml(text)
    except SettingsError as error:
        raise SettingsError(f"settings file {path} {error}") from None
    except ValueError as error:
        raise SettingsError(f"settings file {path} is not valid: {error}; write JSON (.json) or YAML") from None


def _once(pairs: Iterable[tuple[str, Any]]) -> dict[str, Any]:
    """An object of JSON; SettingsError for a key that is there twice, of which JSON and YAML would take the last."""
    found: dict[str, Any] = {}
    for key, value in pairs:
        if key in found:
            raise SettingsError(f"has '{key}' twice in one place, and the first would be lost: keep one")
        found[key] = value
    return found


def _read_yaml(text: str) -> Any:
    import yaml  # Imported here, because only YAML files need it.

    class Loader(yaml.SafeLoader):
        def compose_mapping_node(self, anchor: Any) -> Any:
            node = super().compose_mapping_node(anchor)
            _once((str(key.value), None) for key, _ in node.value)
            return node

    try:
        return yaml.load(text, Loader)  # noqa: S506 - it is a SafeLoader
    except yaml.YAMLError as error:
        raise ValueError(str(error)) from None
