"""A root file system from this machine's own Debian packages: an image's OS layer without a container registry.

The files are copied from the host (`dpkg -L`), so nothing is downloaded. Files of the machine that belong to no package
are left out: users, host names, certificates, pip's settings, the loader's cache.
"""

from __future__ import annotations

import io
import os
import re
import shutil
import subprocess
import tarfile
from collections.abc import Iterable
from pathlib import Path

PACKAGES = ("python3", "libstdc++6", "libgcc-s1", "libgomp1", "media-types", "netbase", "tzdata")
"""Debian and Ubuntu packages that the stand-in needs beside the essential ones; those not installed are left out."""

# documentation is not needed; EXTERNALLY-MANAGED would stop pip, which a DLC allows; bytecode is the host's
_LEFT_OUT = re.compile(r"^/usr/share/(doc|man|locale|info|lintian|bug)/|/EXTERNALLY-MANAGED$|/__pycache__(/|$)")
_EMPTY_FOLDERS = ("dev", "proc", "sys", "run", "root", "opt", "usr/local/bin", "usr/local/lib", "tmp", "var/tmp")
_TOP_LINKS = ("bin", "sbin", "lib", "lib64")
# files that the packages' install scripts write, from the packages' own masters
_WRITTEN = {
    "etc/passwd": ("/usr/share/base-passwd/passwd.master",),
    "etc/group": ("/usr/share/base-passwd/group.master",),
    "etc/nsswitch.conf": ("/usr/share/libc-bin/nsswitch.conf", "/usr/share/base-files/nsswitch.conf"),
}


def host_python() -> str | None:
    """The `X.Y` of the Python that `write_root_filesystem` would include; None where it cannot work."""
    if shutil.which("dpkg-query") is None:
        return None
    target = os.path.realpath("/usr/bin/python3")
    found = re.fullmatch(r"/usr/bin/python(3\.\d+)", target)
    return found.group(1) if found and "python3" in _installed() else None


def host_system() -> str:
    """The system's name in the form of DLC tags, such as `debian12`."""
    release = dict(
        line.split("=", 1)
        for line in Path("/etc/os-release").read_text("utf-8").splitlines()
        if re.match(r"[A-Z_]+=", line)
    )
    return (release.get("ID", "linux") + release.get("VERSION_ID", "")).replace('"', "")


def write_root_filesystem(archive: Path) -> None:
    """Write the tar of a root file system: the essential packages, `PACKAGES`, and their dependencies."""
    names = _paths(_closure(PACKAGES))
    with tarfile.open(archive, "w") as tar:
        for folder in _EMPTY_FOLDERS:
            entry = tarfile.TarInfo(folder)
            entry.type = tarfile.DIRTYPE
            entry.mode = {"root": 0o700, "tmp": 0o1777, "var/tmp": 0o1777}.get(folder, 0o755)
            tar.addfile(entry)
        for name, masters in _WRITTEN.items():
            content = next((Path(master).read_bytes() for master in masters if os.path.exists(master)), b"")
            entry = tarfile.TarInfo(name)
            entry.size = len(content)
            tar.addfile(entry, io.BytesIO(content))
        for path in sorted(names):
            if path.lstrip("/") not in {*_EMPTY_FOLDERS, *_WRITTEN}:
                tar.add(path, path.lstrip("/"), recursive=False)


def _installed() -> dict[str, tuple[str, bool, str, str]]:
    """Package to (name in dpkg's list, essential, dependencies, what it provides)."""
    fields = ("db:Status-Abbrev", "Package", "binary:Package", "Essential", "Pre-Depends", "Depends", "Provides")
    form = "\t".join(f"${{{field}}}" for field in fields) + "\n"
    packages = {}
    for line in _output("dpkg-query", "--show", f"--showformat={form}").splitlines():
        status, package, listed, essential, before, depends, provides = line.split("\t")
        if status.startswith("ii"):
            packages[package] = (listed, essential == "yes", f"{before}, {depends}", provides)
    return packages


def _closure(wanted: Iterable[str]) -> list[str]:
    installed = _installed()
    provider = {
        _name(virtual): package for package, (_, _, _, provides) in installed.items() for virtual in provides.split(",")
    }
    pending = [package for package in wanted if package in installed]
    pending += [package for package, (_, essential, _, _) in installed.items() if essential]
    chosen: set[str] = set()
    while pending:
        package = pending.pop()
        if package in chosen:
            continue
        chosen.add(package)
        for clause in installed[package][2].split(","):
            alternatives = (_name(one) for one in clause.split("|"))
            met = next((one for one in alternatives if one in installed or one in provider), None)
            if met:
                pending.append(met if met in installed else provider[met])
    return sorted(installed[package][0] for package in chosen)


def _name(clause: str) -> str:
    """The package's name in a dependency: `libc6:any (>= 2.36)` gives `libc6`."""
    return re.split(r"[ (:]", clause.strip(), maxsplit=1)[0]


def _paths(packages: list[str]) -> set[str]:
    """The packages' files at their real paths, with their parent folders and the links to them."""
    found: set[str] = set()
    folders: dict[str, str] = {}

    def add(path: str) -> None:
        folder, base = os.path.split(path)
        if folder not in folders:  # a package's /bin/sh is /usr/bin/sh, because /bin is a link
            folders[folder] = os.path.realpath(folder)
        path = os.path.join(folders[folder], base)
        if path in found or not base or _LEFT_OUT.search(path) or not os.path.lexists(path):
            return
        if folders[folder] != "/":
            add(folders[folder])
        found.add(path)

    for line in _output("dpkg", "--listfiles", *packages).splitlines():
        if line.startswith("/") and line != "/.":
            add(line)
    for name in _TOP_LINKS:
        if os.path.islink(f"/{name}"):
            found.add(f"/{name}")
    for alternative in Path("/etc/alternatives").iterdir():  # awk, which, and others are links made by install scripts
        link = Path("/usr/bin") / alternative.name
        if link.is_symlink() and os.path.realpath(alternative) in found:
            add(str(alternative))
            add(str(link))
    return found


def _output(*command: str) -> str:
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout  # noqa: S603
