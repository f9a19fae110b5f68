"""The container of an endpoint in these tests: the real in-image server as a process, on a given model.

The stub engine of the embedded AWS's tests runs this program in place of a container, with the container's environment.
CLIENTS_MODEL is the model's folder, and CLIENTS_ENDPOINT the endpoint's name. CLIENTS_PORTS is the folder in which a
file of that name gets the port, because the user of a real container knows its port too.
"""

from __future__ import annotations

import os
import sys
import tempfile
from pathlib import Path


def main() -> None:
    """Replace this process by the server."""
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
