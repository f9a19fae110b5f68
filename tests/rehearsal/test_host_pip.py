"""The pip settings of this machine that are passed into a build."""

from __future__ import annotations

import configparser
import os
from pathlib import Path

import pytest

from extended_dlc.rehearsal.host_pip import host_pip


@pytest.fixture(autouse=True)
def _plain(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Hide the real machine's settings."""
    for name in [*os.environ]:
        if name.startswith("PIP_") or name in ("SSL_CERT_FILE", "REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE"):
            monkeypatch.delenv(name)
    monkeypatch.setenv("PIP_CONFIG_FILE", str(tmp_path / "host.conf"))


def test_a_mirror_is_passed_on_and_folders_of_this_machine_are_not(tmp_path: Path) -> None:
    (tmp_path / "host.conf").write_text(
        "[global]\nindex-url = https://pip.example.com/simple\nextra-index-url = file:///opt/x https://b.example.com/s\n"
        "find-links = /opt/wheels\n"
    )
    found = host_pip(tmp_path / "out")
    assert found.pip_config is not None
    config = configparser.ConfigParser()
    config.read(found.pip_config)
    assert config["global"]["index-url"] == "https://pip.example.com/simple"
    assert config["global"]["extra-index-url"] == "https://b.example.com/s"
    assert "find-links" not in config["global"]


def test_the_environment_wins_over_the_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "host.conf").write_text("[global]\nindex-url = https://pip.example.com/simple\n")
    monkeypatch.setenv("PIP_INDEX_URL", "https://other.example.com/simple")
    found = host_pip(tmp_path / "out")
    assert found.pip_config is not None
    assert "other.example.com" in Path(found.pip_config).read_text()


def test_certificates_are_taken_from_the_environment_or_pips_own_option(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    bundle = tmp_path / "ca.pem"
    bundle.write_text("x")
    (tmp_path / "host.conf").write_text(f"[global]\ncert = {bundle}\n")
    assert host_pip(tmp_path / "out").ca_bundle == str(bundle)
    (tmp_path / "host.conf").write_text("")
    monkeypatch.setenv("SSL_CERT_FILE", str(bundle))
    assert host_pip(tmp_path / "out").ca_bundle == str(bundle)
    monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "gone.pem"))
    assert host_pip(tmp_path / "out").ca_bundle is None


def test_an_ordinary_machine_needs_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PIP_CONFIG_FILE", os.devnull)  # pip then reads no configuration file, not even the machine's
    found = host_pip(tmp_path / "out")
    assert (found.pip_config, found.ca_bundle) == (None, None)
    assert not (tmp_path / "out").exists()
