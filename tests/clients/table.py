"""Writes docs/clients.md from the last runs' results (`results.json`): `python -m tests.clients.table`."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator
from pathlib import Path

from tests.runtime.conftest import NEWEST, OLDEST

DATA = Path(__file__).with_name("results.json")
LOCKS = Path(__file__).with_name("requirements")
PAGE = Path(__file__).parents[2] / "docs" / "clients.md"
WAYS = ("port", "invoke", "route", "openai")
SHOWN = {"right": "right", "refused": "refused", "none": "–"}
PACKAGES = {
    **{"openai": ("openai", "openai"), "huggingface_hub": ("openai", "huggingface-hub")},
    **{name: ("agents", name) for name in ("litellm", "langchain-aws", "langchain-openai", "strands-agents")},
    "llama-index": ("agents", "llama-index-core"),
    "haystack": ("agents", "haystack-ai"),
    "sagemaker 2": ("sagemaker2", "sagemaker"),
    "sagemaker 3": ("sagemaker3", "sagemaker-core"),
    "AWS CLI 1": ("sagemaker3", "awscli"),
}
"""Client to the lock and package with its release, in the page's order."""

HEAD = """# Clients, and what works

Unmodified clients against the real server on tiny models, by each way that reaches the container; their own types
check the answers. `make clients` asks them and says where an answer is not as it is written here, and with
`ARGS=--write` it writes this page anew (`ARGS="--write --transformers 4.46.3"` for another release).

- **Port**: the container's own, `/v1/…` or `/invocations` as the client names it.
- **InvokeEndpoint**: and InvokeEndpointWithResponseStream, through the rehearsal's AWS, told by the body's shape.
- **`route=`**: the same, with `CustomAttributes="route=/v1/…"`.
- **OpenAI path**: `…/endpoints/NAME/openai/v1`, with a bearer token.

openai and huggingface_hub sign nothing: through InvokeEndpoint their requests go by a transport of httpx
([through_sagemaker.py](../tests/clients/programs/through_sagemaker.py)), which both clients take as an option.
`–`: the client or the call does not go this way. What is refused says why.
"""
_CALL = re.compile(r"`(\w+)\((.*)\)`( of .*)?")
Row = dict[str, str]
Kept = dict[str, list[Row]]


def read() -> Kept:
    """The calls of each transformers release."""
    found: Kept = json.loads(DATA.read_text()) if DATA.is_file() else {}
    return found


def keep(release: str, rows: list[Row], *, instead: bool) -> None:
    """Write a run's results: they replace all results of its clients, or only those of its calls.

    Releases other than the newest and the oldest of the tests are dropped.
    """
    kept = {name: rows for name, rows in read().items() if name in (NEWEST, OLDEST)}
    clients = {row["client"] for row in rows} if instead else set()
    known = {_key(row): row for row in kept.get(release, []) if row["client"] not in clients}
    known.update({_key(row): row for row in rows})
    kept[release] = [known[key] for key in sorted(known, key=_order)]
    lines = [f'"{name}": [\n{_lines(kept[name])}\n]' for name in sorted(kept, key=_version, reverse=True)]
    DATA.write_text("{\n" + ",\n".join(lines) + "\n}\n")
    PAGE.write_text(page(kept))


def differing(release: str, rows: Iterable[Row]) -> Iterator[str]:
    """The results that differ from the written ones."""
    known = {_key(row): row for row in read().get(release, [])}
    for row in rows:
        if row["outcome"] != "wrong" and known.get(_key(row)) != row:
            yield f"{row['client']}: {row['call']} by {row['way']}: {row['outcome']} {row['reason']}"


def page(kept: Kept) -> str:
    """The page: a table for the newest release, and the differences for the others."""
    newest, *others = sorted(kept, key=_version, reverse=True)
    parts = [HEAD, f"## With transformers {newest}\n", *_table(kept[newest])]
    for release in others:
        known = {_key(row): row for row in kept[newest]}
        rows = [row for row in kept[release] if known.get(_key(row)) != row]
        same = len(kept[release]) - len(rows)
        parts += [f"\n## With transformers {release}\n", f"{same} calls as above, and otherwise:\n", *_table(rows)]
    return "\n".join([*parts, ""])


def _table(rows: list[Row]) -> Iterator[str]:
    yield "| Client | Call | Port | InvokeEndpoint | `route=` | OpenAI path | Why not |"
    yield "|---|---|---|---|---|---|---|"
    calls: dict[tuple[str, str], dict[str, Row]] = {}
    for row in sorted(rows, key=lambda row: _order(_key(row))):
        calls.setdefault((row["client"], row["call"]), {})[row["way"]] = row
    alike: dict[tuple[str, ...], list[str]] = {}
    for (client, call), ways in calls.items():
        alike.setdefault((client, _method(client, call), *_cells(ways)), []).append(call)
    for (client, _, *cells), joined in alike.items():
        yield f"| {_named(client)} | {_joined(joined)} | {' | '.join(cells)} |"


def _cells(ways: dict[str, Row]) -> tuple[str, ...]:
    cells = [SHOWN[ways[way]["outcome"]] if way in ways else SHOWN["none"] for way in WAYS]
    reasons = dict.fromkeys(row["reason"] for row in ways.values() if row["reason"])
    return (*cells, "; ".join(reasons))


def _method(client: str, call: str) -> str:
    """What a row is about: for `huggingface_hub`, whose every argument is called, a method; else the call."""
    found = _CALL.fullmatch(call)
    return found[1] + (found[3] or "") if found and client == "huggingface_hub" else call


def _joined(calls: list[str]) -> str:
    """Several calls of one method in one row."""
    if len(calls) == 1:
        return calls[0]
    found = [one for call in calls if (one := _CALL.fullmatch(call))]
    arguments = dict.fromkeys(one[2].partition("=")[0] for one in found)
    shown = ", ".join(f"`{name}`" if name else "plain" for name in arguments)
    return f"`{found[0][1]}`{found[0][3] or ''}: {shown}"


def _named(client: str) -> str:
    """A client with its release."""
    if client not in PACKAGES:
        return client
    lock, package = PACKAGES[client]
    versions = re.findall(rf"^{package}==(\S+)", (LOCKS / f"{lock}.txt").read_text(), re.MULTILINE)
    return f"{package} {versions[-1]}"


def _key(row: Row) -> tuple[str, str, str]:
    return row["client"], row["call"], row["way"]


def _order(key: tuple[str, str, str]) -> tuple[int, str, str, int]:
    clients = [*PACKAGES, key[0]]
    return clients.index(key[0]), key[0], key[1], WAYS.index(key[2])


def _lines(rows: Iterable[Row]) -> str:
    return ",\n".join(json.dumps(row, ensure_ascii=False) for row in rows)


def _version(release: str) -> tuple[int, ...]:
    return tuple(int(part) for part in release.split("."))


if __name__ == "__main__":
    PAGE.write_text(page(read()))
