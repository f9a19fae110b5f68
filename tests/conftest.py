"""What holds for all tests: a call of the CDK's that it will remove fails, and Ctrl-C interrupts programs."""

from __future__ import annotations

import os
import signal
from pathlib import Path
from typing import Any

import pytest

os.environ.setdefault("JSII_DEPRECATED", "fail")
# A shell's background job ignores Ctrl-C, and so would each program that a test starts and then interrupts.
signal.signal(signal.SIGINT, signal.default_int_handler)

ROOT = Path(__file__).parents[1]


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Any:
    """With `-n 2`, the tests of a file run in one process, because they share servers and stacks.

    Files that use the rehearsal's folder of this checkout all run in the same process: it holds one engine's store, and
    a rehearsal refuses to start beside another one.
    """
    from xdist.scheduler import LoadFileScheduling

    class Scheduling(LoadFileScheduling):
        def _split_scope(self, nodeid: str) -> str:
            file = super()._split_scope(nodeid)
            return ".rehearsal" if "\nSTATE = " in (ROOT / file).read_text() else file

    return Scheduling(config, log)
