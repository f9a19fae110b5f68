"""Synth of the app beside a hand-written app that makes the same template from the same libraries.

`python benchmarks/synth.py [--pairs 10] [--json FILE]`: alternating runs of `python app.py`, each a process of its own;
prints the median of the pairs' ratios, with their spread. The target is at most 1.15.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).parents[1]
BY_HAND = Path(__file__).parent / "synth_by_hand.py"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pairs", type=int, default=10)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        ours, by_hand = Path(folder, "ours"), Path(folder, "hand")
        run_synth(ROOT / "app.py", ours)  # the first run unpacks the CDK
        run_synth(BY_HAND, by_hand)
        require_same_template(ours, by_hand)
        pairs = []
        for number in range(options.pairs):
            first, second = (ROOT / "app.py", BY_HAND) if number % 2 else (BY_HAND, ROOT / "app.py")
            seconds = {program: run_synth(program, Path(folder, "timed")) for program in (first, second)}
            pairs.append((seconds[ROOT / "app.py"], seconds[BY_HAND]))
    ratios = sorted(ours / by_hand for ours, by_hand in pairs)
    result = {
        "pairs": len(ratios),
        "median_ratio": round(statistics.median(ratios), 3),
        "lowest": round(ratios[0], 3),
        "highest": round(ratios[-1], 3),
        "ours_seconds": round(statistics.median(ours for ours, _ in pairs), 3),
        "by_hand_seconds": round(statistics.median(by_hand for _, by_hand in pairs), 3),
    }
    print(
        "synth, app / by hand: {median_ratio} (from {lowest} to {highest}, {pairs} pairs; "
        "medians {ours_seconds} s and {by_hand_seconds} s)".format(**result)
    )
    if options.json:
        options.json.write_text(json.dumps(result, indent=2) + "\n")


def run_synth(program: Path, out: Path) -> float:
    context = json.dumps(json.loads((ROOT / "cdk.json").read_text())["context"])
    # without the CDK's own validator, which takes seconds of either and hides the difference
    variables = {
        "CDK_OUTDIR": str(out),
        "CDK_CONTEXT_JSON": context,
        "PYTHONPATH": str(ROOT),
        "CDK_VALIDATION": "false",
    }
    environment = {**os.environ, **variables}
    start = time.perf_counter()
    subprocess.run([sys.executable, str(program)], env=environment, check=True, capture_output=True)
    return time.perf_counter() - start


def require_same_template(ours: Path, by_hand: Path) -> None:
    """The comparison is void unless both make the same resources and outputs."""
    templates = [json.loads((out / "EndpointStack.template.json").read_text()) for out in (ours, by_hand)]
    for template in templates:
        resources = template["Resources"]
        resources.pop("CDKMetadata", None)
        roles = {name for name, each in resources.items() if each["Type"] == "AWS::IAM::Role"}
        for each in resources.values():
            # By hand a resource waits for its role twice: a property names it, and the CDK's dependency on a role.
            if "DependsOn" in each:
                each["DependsOn"] = sorted({*each["DependsOn"]} - roles)
    if templates[0] != templates[1]:
        raise SystemExit("the two apps make different templates: bring benchmarks/synth_by_hand.py up to date")


if __name__ == "__main__":
    main()
