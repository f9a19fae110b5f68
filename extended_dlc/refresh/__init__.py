"""Generates the tables of facts from packages on PyPI and AWS's list of images: `extended-dlc catalog refresh`.

The result depends on the sources alone; a refresh refuses to shrink a table, and never runs during synth. Downloads go
through pip with the caller's configuration, so mirrors and proxies work as for an install.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path

from extended_dlc.facts._tables import refreshed
from extended_dlc.refresh import _pip, dlc, images, instances, transformers
from extended_dlc.refresh._pip import Json, RefreshError
from extended_dlc.refresh._write import read, write

__all__ = ["RefreshError", "refresh"]


def refresh(say: Callable[[str], None] = print, dlc_repository: str = dlc.REPOSITORY) -> list[Json]:
    """Refresh every table; each is replaced as a whole or unchanged. The message of `RefreshError` tells what to do.

    :param dlc_repository: URL or folder of a git repository with AWS's list of images. The list stays if git fails.
    Returns for each table its name, its number of rows, whether it changed, and its source.
    """
    tables: list[Json] = []

    def table(name: str, content: Json, may_lose: int = 0) -> None:
        rows, changed = write(name, content, may_lose=may_lose)
        tables.append({"table": name, "rows": rows, "changed": changed, "source": content["source"]})
        say(f"{name}: {rows} rows, {'written' if changed else 'nothing new'} ({content['source']})")

    say(f"the tables are written to {refreshed()}")
    say(f"dlc_images: reading {dlc_repository} …")
    with tempfile.TemporaryDirectory() as folder:
        try:
            listed = dlc.images(dlc.clone(dlc_repository, Path(folder) / "dlc"), read("dlc_images"))
        except RefreshError as error:
            listed = read("dlc_images") or {"source": dlc.SOURCE, "dlc_images": []}
            say(f"dlc_images: left as they are, {error} (--dlc names another clone)")
        else:
            table("dlc_images", listed)
        say("images: reading sagemaker-core …")
        table("images", images.images(_pip.download_wheel("sagemaker-core", Path(folder)), listed))
    if find_spec("moto") is None:
        say("instances: left as they are, moto's dump is not there (pip install -e '.[rehearse]' brings it)")
    else:
        hosting = instances.instances()
        table("instances", hosting)
        table("training_instances", instances.training_instances(hosting))
    say("transformers: asking for its releases …")
    uploads = _pip.uploads("transformers", _pip.index())
    before = {name: read(name) for name in ("releases", "model_types", "tasks")}
    # Single releases are yanked now and then; many missing at once mean an incomplete mirror.
    for name, content in transformers.tables(uploads, before, say):
        table(name, content, may_lose=2 if name == "releases" else 0)
    return tables
