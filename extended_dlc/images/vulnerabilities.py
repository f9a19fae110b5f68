"""Known vulnerabilities of the packages in a bill of materials, by the API of OSV (https://google.github.io/osv.dev/api/).

OSV joins the advisories of PyPA and GitHub; pip-audit and uv ask it too. Nothing here decides whether an image may be
used: what is found is told, and so is a database that cannot be reached.
"""

from __future__ import annotations

import http.client
import json
import re
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any
from urllib.parse import quote, unquote

OSV = "https://api.osv.dev"
PAGE = "https://osv.dev/vulnerability/"
BATCH = 1000
"""The most queries of a request (OSV API, POST /v1/querybatch)."""

_PAGES = 20
_MOST_BYTES = 64_000_000
"""Of one answer. OSV's are below 32 MiB (its documentation, "Limits")."""

_SEVERITIES = {"LOW": "low", "MODERATE": "medium", "MEDIUM": "medium", "HIGH": "high", "CRITICAL": "critical"}
"""The words of GitHub's advisories -> CycloneDX's."""

_METHODS = {"CVSS_V2": "CVSSv2", "CVSS_V4": "CVSSv4"}


class Unreachable(Exception):
    """The database gave no usable response; the message says which and why."""


def look_up(bill: Mapping[str, Any], *, database: str = OSV, timeout: float = 30) -> list[dict[str, Any]]:
    """The known vulnerabilities of a bill's packages, as `vulnerabilities` of CycloneDX; raises `Unreachable`.

    :param database: Address of a service with OSV's API.
    :param timeout: Seconds for each request.
    """
    try:
        return _looked_up(bill, _Database(database.rstrip("/"), timeout))
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise Unreachable(f"{database} answered something that is not OSV's API ({error})") from error


def _looked_up(bill: Mapping[str, Any], ask: _Database) -> list[dict[str, Any]]:
    affected: dict[str, list[str]] = {}
    purls = [each["purl"] for each in bill["components"]]
    for start in range(0, len(purls), BATCH):
        for purl, name in ask.affecting(purls[start : start + BATCH]):
            affected.setdefault(name, []).append(purl)
    names = sorted(affected)
    with ThreadPoolExecutor(max_workers=8) as several:
        advisories = several.map(ask.advisory, names)
        known = list(zip(names, advisories, strict=True))
    reported = _each_once([(name, advisory) for name, advisory in known if not advisory.get("withdrawn")])
    return [_described(name, advisory, affected[name]) for name, advisory in reported]


def _each_once(known: Sequence[tuple[str, Mapping[str, Any]]]) -> list[tuple[str, Mapping[str, Any]]]:
    """The advisories without those that repeat another's: PyPA's and GitHub's of one vulnerability name each other."""
    kept: list[tuple[str, Mapping[str, Any]]] = []
    seen: set[str] = set()
    for name, advisory in sorted(known, key=lambda one: (not one[0].startswith("GHSA-"), one[0])):
        names = {name, *map(str, advisory.get("aliases") or ())}
        if not names & seen:
            kept.append((name, advisory))
        seen |= names
    return kept


def lines(found: Sequence[Mapping[str, Any]]) -> Iterator[str]:
    """The vulnerabilities for a person, a line each, the worst first."""
    order = ["critical", "high", "medium", "low"]
    rank = {name: number for number, name in enumerate(order)}

    def severity(each: Mapping[str, Any]) -> str:
        return str((each.get("ratings") or [{}])[0].get("severity") or "unknown")

    for each in sorted(found, key=lambda one: (rank.get(severity(one), len(order)), one["id"])):
        packages = ", ".join(unquote(ref["ref"].rpartition("/")[2]).replace("@", " ") for ref in each["affects"])
        also = "".join(f" ({one['id']})" for one in each.get("references", ())[:1])
        what = f": {each['description']}" if each.get("description") else ""
        fix = f"; {each['recommendation']}" if each.get("recommendation") else ""
        yield f"{severity(each)} {each['id']}{also} in {packages}{what}{fix}"


class _Database:
    """Requests to the database."""

    def __init__(self, address: str, timeout: float) -> None:
        self._address, self._timeout = address, timeout

    def affecting(self, purls: Sequence[str]) -> Iterator[tuple[str, str]]:
        """Each package with the ID of each vulnerability of its version."""
        pending: list[tuple[str, str | None]] = [(purl, None) for purl in purls]
        for _ in range(_PAGES):
            if not pending:
                return
            queries = [
                {"package": {"purl": public(purl)}} | ({"page_token": token} if token else {})
                for purl, token in pending
            ]
            results = self._json("/v1/querybatch", {"queries": queries}).get("results")
            if not isinstance(results, list) or len(results) != len(pending):
                raise Unreachable(f"{self._address} answered something that is not OSV's API")
            # The order of the results is that of the queries.
            answered = [(purl, result or {}) for (purl, _), result in zip(pending, results, strict=True)]
            yield from ((purl, str(one["id"])) for purl, result in answered for one in result.get("vulns") or ())
            pending = [(purl, token) for purl, result in answered if (token := result.get("next_page_token"))]

    def advisory(self, name: str) -> Mapping[str, Any]:
        """What is known of a vulnerability; nothing where the database has its ID alone."""
        try:
            return self._json(f"/v1/vulns/{quote(name, safe='')}")
        except Unreachable as error:
            if isinstance(error.__cause__, urllib.error.HTTPError) and error.__cause__.code == 404:
                return {}
            raise

    def _json(self, path: str, body: Any = None) -> dict[str, Any]:
        data = None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(  # noqa: S310 - the user's own address, or OSV's
            self._address + path, data=data, headers={"Content-Type": "application/json", "User-Agent": "extended-dlc"}
        )
        try:
            with urllib.request.urlopen(request, timeout=self._timeout) as response:  # noqa: S310
                answer = json.loads(response.read(_MOST_BYTES))
        except urllib.error.HTTPError as error:
            raise Unreachable(f"{self._address} answered {error.code} {error.reason}") from error
        except (OSError, http.client.HTTPException) as error:
            raise Unreachable(f"{self._address} cannot be reached ({getattr(error, 'reason', error)})") from error
        except ValueError as error:
            raise Unreachable(f"{self._address} answered something that is not JSON") from error
        if not isinstance(answer, dict):
            raise Unreachable(f"{self._address} answered something that is not OSV's API")
        return answer


def public(purl: str) -> str:
    """A package as PyPI numbers it: what follows `+` in a version is a build's own, as CUDA's in `2.6.0+cu124`."""
    return re.sub(r"(?:\+|%2B).*", "", purl, flags=re.IGNORECASE)


def _described(name: str, advisory: Mapping[str, Any], purls: Sequence[str]) -> dict[str, Any]:
    """A vulnerability as CycloneDX has it."""
    details = str(advisory.get("details") or "").strip()
    fixed = sorted({each for purl in purls for each in _fixes(advisory, public(purl))})
    aliases = sorted(map(str, advisory.get("aliases") or ()), key=lambda each: (not each.startswith("CVE-"), each))
    described = {
        "id": name,
        "source": {"name": "OSV", "url": PAGE + quote(name, safe="")},
        "references": [{"id": each, "source": {"name": "OSV", "url": PAGE + quote(each, safe="")}} for each in aliases],
        "ratings": list(_ratings(advisory)),
        "description": str(advisory.get("summary") or details.partition("\n")[0])[:200],
        "recommendation": f"fixed in {', '.join(fixed)}" if fixed else "",
        "affects": [{"ref": purl} for purl in purls],
    }
    return {key: value for key, value in described.items() if value}


def _ratings(advisory: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    said = _SEVERITIES.get(str((advisory.get("database_specific") or {}).get("severity")).upper())
    vectors = [each for each in advisory.get("severity") or () if each.get("score")]
    if said and not vectors:
        yield {"severity": said}
    for each in vectors:
        vector = str(each["score"])
        is_newest_of_three = vector.startswith("CVSS:3.1")
        method = _METHODS.get(str(each.get("type")), "CVSSv31" if is_newest_of_three else "CVSSv3")
        yield {"method": method, "vector": vector} | ({"severity": said} if said else {})


def _fixes(advisory: Mapping[str, Any], purl: str) -> Iterator[str]:
    """The releases of a package that a vulnerability is fixed in; a commit is none."""
    package = purl.rpartition("@")[0]
    for affected in advisory.get("affected") or ():
        if (affected.get("package") or {}).get("purl", package) != package:
            continue
        ranges = [each for each in affected.get("ranges") or () if each.get("type") != "GIT"]
        for event in (event for each in ranges for event in each.get("events") or ()):
            if event.get("fixed"):
                yield str(event["fixed"])
