"""Requests of web pages are refused, for calls run programs on this machine and their keys are known to everybody.

A page of any site can make a browser send requests to a port of this machine. moto would even let it read the answers.
"""

from __future__ import annotations

import ipaddress
from typing import Any

from werkzeug.wrappers import Response

_OF_PAGES = ("cross-site", "same-site")
"""Values of `Sec-Fetch-Site` for a page of another site; an address that a person types has `none`."""


def refuse(environ: dict[str, Any]) -> Response | None:
    """A 403 for a request that a browser makes for a web page; None for any other."""
    if "HTTP_ORIGIN" in environ or environ.get("HTTP_SEC_FETCH_SITE") in _OF_PAGES:
        return _refusal("a web page has asked for this")
    host = str(environ.get("HTTP_HOST", ""))
    if not _is_here(
        host
    ):  # the name may be a page's own, which its name server has changed to this machine (rebinding)
        return _refusal(f"the host {host[:100]!r} is not this machine")
    return None


def _is_here(host: str) -> bool:
    """Whether a `Host` header names an address, or this machine: names that no name server of others answers for."""
    name = host.rpartition("]")[0].lstrip("[") if host.startswith("[") else host.partition(":")[0]
    name = name.lower().rstrip(".")
    if not name or name == "localhost" or name.endswith((".localhost", ".internal")):
        return True
    try:
        ipaddress.ip_address(name)
    except ValueError:
        return False
    return True


def _refusal(reason: str) -> Response:
    text = (
        f"The embedded AWS answers programs on this machine only, and {reason}: use an AWS SDK, the AWS CLI or curl.\n"
    )
    return Response(text, 403, mimetype="text/plain")
