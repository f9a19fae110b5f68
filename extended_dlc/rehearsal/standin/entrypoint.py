"""The stand-in's entry point: like the DLC's, it runs any command given to it; unlike the DLC, it has no server."""

import os
import sys

if sys.argv[1:2] in ([], ["serve"]):
    sys.exit(
        "this image stands in for a Hugging Face inference DLC and has no stock server: extend it with the native one"
    )
os.execvp(sys.argv[1], sys.argv[1:])  # noqa: S606
