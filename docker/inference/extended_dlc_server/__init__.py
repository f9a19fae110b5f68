"""The native server of extended-dlc: one transformers pipeline behind SageMaker's `/ping` and `/invocations`.

It imports nothing from the rest of the project. It needs Python 3.10 or newer, torch, transformers 4.46 or newer, and
uvicorn. The HTTP contract is in `README.md` beside the Dockerfile.
"""

__version__ = "0.1.0"
