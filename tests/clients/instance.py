"""What the container of an endpoint is here: the real in-image server as a process, on the model that it is told.

The engine of the embedded AWS's tests runs this program in place of a container, with the container's environment:
CLIENTS_MODEL is the model's folder, CLIENTS_ENDPOINT the endpoint's name, and CLIENTS_PORTS the folder that gets a file
of that name with the port, because a real container's own port is known to who runs it.
"""

from __future__ import annotations

import os
import sys
import tempfile
from pathlib import Path


def main() -> None:
    """Become the server."""
    base = Path(tempfile.mkdtemp(prefix=f"{os.environ['CLIENTS_ENDPOINT']}-", dir=os.environ["CLIENTS_PORTS"]))
    (base / "model").symlink_to(os.environ["CLIENTS_MODEL"])
    port = Path(os.environ["CLIENTS_PORTS"], os.environ["CLIENTS_ENDPOINT"])
    port.write_text(os.environ["SAGEMAKER_BIND_TO_PORT"])
    environment = {
        "PATH": os.environ["CLIENTS_PROGRAMS"],
        "HOME": str(base),
        "SAGEMAKER_BASE_DIR": str(base),
        "OMP_NUM_THREADS": "1",
        **{
            name: os.environ[name] for name in ("HF_TASK", "PYTHONPATH", "SAGEMAKER_BIND_TO_PORT") if name in os.environ
        },
    }
    os.chdir(base)
    os.execve(sys.executable, [sys.executable, "-m", "extended_dlc_server", "serve"], environment)


if __name__ == "__main__":
    main()
