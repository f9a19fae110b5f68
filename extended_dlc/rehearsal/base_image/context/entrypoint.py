"""The stand-in's entry point: it starts the stock server, or any other command, as the DLC's does.

The DLC's entry point ends in `tail -f /dev/null`, which keeps the container running without its server. This one ends
with the server, so that a rehearsal's containers stop within seconds.
"""

import os
import sys

if sys.argv[1:2] in ([], ["serve"]):
    from sagemaker_huggingface_inference_toolkit import serving

    serving.main()
else:
    os.execvp(sys.argv[1], sys.argv[1:])  # noqa: S606 - the container's own command
