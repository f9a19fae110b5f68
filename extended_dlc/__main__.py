"""The program `extended-dlc`, and `python -m extended_dlc` where that is not on the path."""

from __future__ import annotations

import os
import sys


def run() -> None:
    """Run the command line; Ctrl-C while its modules are imported ends it as any later one does."""
    _open_closed_streams()
    try:
        from extended_dlc.running import signals_end_as_ctrl_c

        with signals_end_as_ctrl_c():
            from extended_dlc.cli import main

            main(prog_name="extended-dlc")
    except KeyboardInterrupt:
        print("stopped", file=sys.stderr)
        sys.exit(130)  # of `exit_codes`, whose import may be what was interrupted


def _open_closed_streams() -> None:
    """Where a supervisor closed a standard stream, Python has None: nothing is read, and what is said is lost."""
    for name, mode in (("stdin", "r"), ("stdout", "w"), ("stderr", "w")):
        if getattr(sys, name) is None:
            setattr(sys, name, open(os.devnull, mode))  # noqa: SIM115 - until the program ends


if __name__ == "__main__":
    run()
