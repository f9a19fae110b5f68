"""Makes the documentation site of the pages that there are: `make site`, into .cache/site/html.

MkDocs builds it in strict mode from a copy of the pages and of the files that they link to, with search and without
any other host. MkDocs is installed into .cache/site.
"""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
import venv
from pathlib import Path

ROOT = Path(__file__).parents[1]
HOME = ROOT / ".cache" / "site"
REQUIREMENT = "mkdocs==1.6.1"
COPIED = ("README.md", "CHANGELOG.md", "CONTRIBUTING.md", "LICENSE", "SECURITY.md", "docs", "examples", "docker")
MORE = ("tests/clients/programs/through_sagemaker.py", "benchmarks/README.md", "extended_dlc/app/settings.schema.json")

CONFIGURATION = """\
site_name: extended-dlc
docs_dir: pages
site_dir: html
use_directory_urls: false
theme: {name: mkdocs, highlightjs: false}
plugins: [search]
markdown_extensions: [tables, fenced_code, {toc: {permalink: true}}]
validation: {nav: {omitted_files: ignore}, links: {not_found: warn, anchors: warn, unrecognized_links: warn}}
"""

_EXTERNAL = re.compile(r'<(?:script|link|img)[^>]+(?:src|href)="(?:https?:)?//[^"]+"')


def copy_pages(target: Path) -> None:
    """Copy the pages and what they link to, in the folders of the repository, so that their links hold."""
    shutil.rmtree(target, ignore_errors=True)
    ignored = shutil.ignore_patterns("__pycache__", "*.pyc")
    for name in (*COPIED, *MORE):
        source, copy = ROOT / name, target / name
        copy.parent.mkdir(parents=True, exist_ok=True)
        if source.is_dir():
            shutil.copytree(source, copy, ignore=ignored)
        else:
            shutil.copy(source, copy)


def main() -> None:
    """Build the site; exits with MkDocs' status, or with the tags that name another host."""
    program = HOME / "venv" / "bin" / "mkdocs"
    if not program.exists():
        venv.create(HOME / "venv", with_pip=True)
        install = [str(program.with_name("pip")), "install", "--quiet", "--disable-pip-version-check", REQUIREMENT]
        subprocess.run(install, check=True)  # noqa: S603 - own arguments
    copy_pages(HOME / "pages")
    (HOME / "mkdocs.yml").write_text(CONFIGURATION)
    built = subprocess.run([str(program), "build", "--strict", "--quiet"], cwd=HOME, check=False)  # noqa: S603 - as above
    if built.returncode:
        sys.exit(built.returncode)
    pages = sorted((HOME / "html").rglob("*.html"))
    external = [f"{page.name}: {tag}" for page in pages for tag in _EXTERNAL.findall(page.read_text())]
    if external:
        sys.exit("\n".join(["the site asks other hosts:", *external]))
    print(f"{len(pages)} pages in {HOME / 'html'}")


if __name__ == "__main__":
    main()
