"""The limit: a bare process with nothing but `pipeline()`. Asked once at its start, then by orders on standard input.

    python direct.py TASK MODEL INPUT PARAMETERS PRECISION     INPUT and PARAMETERS as JSON, PRECISION by torch's name

Writes one line of JSON for its first answer, and one for each order.
"""

from __future__ import annotations

import json
import os
import sys
import time
from typing import Any

import torch
from transformers import pipeline


def run(
    ask: Any, inputs: list[Any], parameters: dict[str, Any], *, batch: int, seconds: float, least: int, warm: int
) -> dict[str, Any]:
    """Ask until `seconds` have passed and `least` inputs were answered, `batch` at a time."""
    latencies: list[float] = []
    groups = [inputs[start : start + batch] for start in range(0, len(inputs), batch)]
    number, began = 0, time.perf_counter()
    while True:
        group = groups[number % len(groups)]
        sent = time.perf_counter()
        ask(group, batch_size=batch, **parameters) if batch > 1 else ask(group[0], **parameters)
        now = time.perf_counter()
        number += 1
        if number * batch <= warm:
            began = now
            continue
        latencies.append(now - sent)
        counted = len(latencies) * batch
        if counted >= least and now - began >= seconds:
            return {"rate": counted / (now - began), "latencies": latencies}


def main(task: str, model: str, first: str, parameters: str, precision: str) -> None:
    """Load the model, answer once, then carry out each order."""
    ask = pipeline(task, model=model, torch_dtype=getattr(torch, precision))
    _say(ask(json.loads(first), **json.loads(parameters)))
    for line in sys.stdin:
        order = json.loads(line)
        if order.pop("answers", False):
            _say([ask(one, **order["parameters"]) for one in order["inputs"]])
        else:
            _say(run(ask, **order))


def _say(answer: Any) -> None:
    print(json.dumps(answer, default=lambda value: value.tolist()), file=_OUT, flush=True)


if __name__ == "__main__":
    # what libraries print must not mix with the answers
    _OUT = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    main(*sys.argv[1:])
