"""Synth of an app with many endpoints: what each costs above the first. The target is at most 15 ms.

`python benchmarks/many_endpoints.py [--endpoints 100]`
"""

from __future__ import annotations

import argparse
import time

import aws_cdk as cdk

from extended_dlc import HubModel, HuggingFaceEndpoint, InvocationScaling, RealTime, StockDlc

MODEL = HubModel("bigscience/bloom-560m", revision="ac2ae5fab2ce3f9f40dc79b5ca9f637430d24971")

PER_STACK = 50
"""An app with endpoints of at most 7 resources each: CloudFormation takes 500 in a stack."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--endpoints", type=int, default=100)
    parser.add_argument("--runs", type=int, default=3)
    options = parser.parse_args()
    _seconds(1, None)  # the first synth of a process loads the CDK
    scaling = InvocationScaling(maximum=4, requests_per_second=2)
    for name, hosting in (("plain", RealTime()), ("scaled", RealTime(scaling=scaling))):
        _seconds(1, hosting)
        one = min(_seconds(1, hosting) for _ in range(options.runs))
        many = min(_seconds(options.endpoints, hosting) for _ in range(options.runs))
        each = (many - one) / (options.endpoints - 1)
        print(f"{name}: {one * 1000:.0f} ms for one, {each * 1000:.1f} ms for each of {options.endpoints - 1} more")


def _seconds(endpoints: int, hosting: RealTime | None) -> float:
    start = time.perf_counter()
    app = cdk.App()
    image = StockDlc(transformers="4.51.3")
    for number in range(endpoints):
        if number % PER_STACK == 0:
            stack = cdk.Stack(app, f"Stack{number}", env=cdk.Environment(region="us-east-1"))
        HuggingFaceEndpoint(stack, f"Endpoint{number}", model=MODEL, image=image, hosting=hosting)
    app.synth()
    return time.perf_counter() - start


if __name__ == "__main__":
    main()
