"""Entry point, `python -m extended_dlc_server serve`: starts the log, then the server."""

from __future__ import annotations

import os
import signal
import sys
from typing import NoReturn

from .machine.log import end_log, start_log


def leave(code: int) -> NoReturn:
    """Flush the log and end the process.

    os._exit instead of sys.exit: shutting down the interpreter while a model thread is inside torch would crash.
    """
    end_log()
    os._exit(code)


if __name__ == "__main__":
    # The kernel gives process 1 no default action for SIGTERM. Until the server can drain, exit at once.
    signal.signal(signal.SIGTERM, lambda *_: leave(0))
    # start_log forks, and its child process keeps everything imported so far: import large modules afterwards.
    start_log()
    from .serving import main

    leave(main(sys.argv[1:]))
