"""This machine's pip settings, for pip inside an image build."""

from __future__ import annotations

import ast
import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

_PASSED_ON = ("index-url", "extra-index-url", "trusted-host", "proxy", "timeout", "default-timeout", "retries")
_CA_VARIABLES = ("PIP_CERT", "SSL_CERT_FILE", "REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE")


@dataclass(frozen=True, kw_only=True)
class HostPip:
    """Files for the build secrets of `LocalBuild`; None where pip needs none."""

    pip_config: str | None
    ca_bundle: str | None


def host_pip(folder: Path) -> HostPip:
    """Write those of this machine's pip settings to `folder` that are valid inside a build."""
    options = _options()
    ca_bundle = next((found for name in _CA_VARIABLES if (found := os.environ.get(name))), options.get("cert"))
    lines = [f"{key} = {value}" for key in _PASSED_ON if (value := _remote(options.get(key, "")))]
    config = folder / "pip.conf"
    if lines:
        folder.mkdir(parents=True, exist_ok=True)
        config.write_text("\n".join(["[global]", *lines, ""]))
    return HostPip(
        pip_config=str(config) if lines else None,
        ca_bundle=ca_bundle if ca_bundle and Path(ca_bundle).is_file() else None,
    )


def _options() -> dict[str, str]:
    """pip's options from its files and environment; the environment comes last, because it has precedence."""
    listing = subprocess.run(
        [sys.executable, "-m", "pip", "config", "list"], capture_output=True, text=True, check=False
    ).stdout
    options = {}
    for line in sorted(listing.splitlines(), key=lambda line: line.startswith(":env:")):
        name, _, value = line.partition("=")
        if value:
            options[name.rpartition(".")[2]] = str(ast.literal_eval(value))
    return options


def _remote(value: str) -> str:
    """The parts of an option's value that are not files of this machine."""
    return " ".join(part for part in value.split() if not part.startswith(("file:", "/", ".")))
