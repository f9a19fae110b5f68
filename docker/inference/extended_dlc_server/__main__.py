"""`python -m extended_dlc_server serve`: the log first, then everything else."""

from __future__ import annotations

import os
import signal
import sys
from typing import NoReturn

from .machine.log import end_log, start_log


def leave(code: int) -> NoReturn:
    """The end, with all that was printed in the log.

    Not sys.exit: the model's thread may be deep inside torch, which the end of the interpreter would crash.
    """
    end_log()
    os._exit(code)


if __name__ == "__main__":
    # Process 1 has no default action for SIGTERM; until the server is there to drain, just leave.
    signal.signal(signal.SIGTERM, lambda *_: leave(0))
    # before anything large is imported, for the process that reads what is printed is a copy of this one
    start_log()
    from .serving import main

    leave(main(sys.argv[1:]))
