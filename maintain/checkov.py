"""Runs checkov over the templates of every example: `make checkov`. What it finds without a reason fails.

checkov is installed into .cache/checkov. `python -m maintain.checkov --page` writes docs/checkov.md.
"""

from __future__ import annotations

import json
import runpy
import subprocess
import sys
import tempfile
import venv
from collections.abc import Iterator
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
ENVIRONMENT = ROOT / ".cache" / "checkov"
VERSION = "3.3.30"
PAGE = ROOT / "docs" / "checkov.md"

REASONS = {
    "CKV_AWS_18": "access logs of buckets: `bucket=` and `records=` take one that logs",
    "CKV_AWS_21": "versions of objects: what is in these buckets expires or can be made again; `bucket=` takes another",
    "CKV_AWS_26": "keys of topics: `encryption_key`, or `Monitoring(topic_key=…)`; alarms have names and figures",
    "CKV_AWS_51": "tags that stay: `immutable_tags=True`; not the default, because a revert pushes the same tag again",
    "CKV_AWS_111": "network interfaces of functions in a VPC, on any resource, as Lambda chooses them",
    "CKV_AWS_115": "concurrency: `Functions(reserved_concurrency=…)`; they run in deployments and trainings alone",
    "CKV_AWS_116": "dead letters: a function's failure is that of the deployment or the run, which shows it",
    "CKV_AWS_117": "functions in a VPC: `Functions(network=…)`; they ask AWS's own interfaces alone",
    "CKV_AWS_136": "key of repositories: `repository=` takes one with a key of yours; an image has no data of yours",
    "CKV_AWS_158": "key of log groups: `encryption_key`, or `Monitoring(log_key=…)`; the others hold names and states",
    "CKV_AWS_173": "key of functions' variables: the variables are the copy function's name, and no secret",
    "CKV_AWS_370": "network isolation: containers download Hub models; `MirroredModel` or `network_isolation` end it",
}
"""Why each finding stays, by the name of the check."""

OWN = ("Words", "Vpc", "Caller", "Errors", "Key")
"""Resources of the examples' own, by the beginning of their names."""


def synthesize(folder: Path) -> None:
    """Write the templates of every example, with the app of each settings file."""
    import aws_cdk as cdk

    from extended_dlc.app.define import define_stacks, read_app
    from extended_dlc.platform.__main__ import define
    from extended_dlc.platform.settings import read_images

    env = cdk.Environment(account="111111111111", region="us-east-1")
    app = cdk.App(outdir=str(folder))
    examples = ROOT / "examples"
    for file in sorted([*examples.glob("hosting/*.py"), *examples.glob("operating/*.py"), examples / "own_stack.py"]):
        for kind in runpy.run_path(str(file), run_name="example").values():
            if isinstance(kind, type) and issubclass(kind, cdk.Stack) and kind is not cdk.Stack:
                kind(app, file.stem.replace("_", "-"), env=env)
    for file in sorted(examples.glob("*.yaml")):
        stage: Any = cdk.Stage(app, file.stem, env=env)
        define_stacks(stage, read_app(cdk.App(context={"settings": str(file)})))
    define(app, read_images(str(examples / "platform" / "images.yaml")))
    app.synth()


def findings(folder: Path) -> Iterator[tuple[str, str, str]]:
    """The check, its name, and the resource of each finding."""
    program = ENVIRONMENT / "bin" / "checkov"
    if not program.exists():
        venv.create(ENVIRONMENT, with_pip=True)
        install = [str(ENVIRONMENT / "bin" / "pip"), "install", "--quiet", f"checkov=={VERSION}"]
        subprocess.run(install, check=True)  # noqa: S603 - own arguments
    command = [str(program), "-d", str(folder), "--framework=cloudformation", "--compact", "--quiet", "--output=json"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)  # noqa: S603 - own arguments
    content = json.loads(done.stdout)
    for report in content if isinstance(content, list) else [content]:
        for each in report["results"]["failed_checks"]:
            yield each["check_id"], each["check_name"], each["resource"]


def page() -> str:
    """docs/checkov.md."""
    rows = [f"| `{name}` | {reason} |" for name, reason in REASONS.items()]
    return "\n".join(
        [
            "# What checkov finds, and why it stays",
            "",
            f"`make checkov` runs checkov {VERSION} over the templates of every example; another finding fails it.",
            f"For your own run: `checkov --skip-check {','.join(REASONS)}`,",
            "without those that you answer with the option.",
            "",
            "| check | what it is about, and the way |",
            "|---|---|",
            *rows,
            "",
        ]
    )


def main() -> None:
    """Check, or write the page with `--page`."""
    if sys.argv[1:] == ["--page"]:
        PAGE.write_text(page())
        return
    with tempfile.TemporaryDirectory() as folder:
        synthesize(Path(folder))
        found = set(findings(Path(folder)))
    wrong = [
        f"{check} ({name}) in {resource}"
        for check, name, resource in sorted(found)
        if check not in REASONS and not resource.partition(".")[2].startswith(OWN)
    ]
    gone = sorted(set(REASONS) - {check for check, _, _ in found})
    if wrong:
        sys.exit("\n".join(["checkov finds, without a reason in maintain/checkov.py:", *wrong]))
    print(f"{len(found)} findings, each with its reason; reasons for nothing: {', '.join(gone) or 'none'}")


if __name__ == "__main__":
    main()
