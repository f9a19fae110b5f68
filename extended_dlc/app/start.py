"""Imports the CDK and the settings at the same time, for a program that uses both.

The CDK runs in Node, which takes half a second to start; Python would wait for it and only then import the settings.
Imported before `aws_cdk`; the modules that the two imports load are not the same, so that neither waits for the other.
"""

from __future__ import annotations

import gc
import os
from concurrent.futures import ThreadPoolExecutor
from importlib import import_module

# jsii prints eleven lines about an old Node at each start; `extended-dlc prepare`, which runs before, prints one
os.environ.setdefault("JSII_SILENCE_WARNING_END_OF_LIFE_NODE_VERSION", "18,20")
os.environ.setdefault("JSII_SILENCE_WARNING_DEPRECATED_NODE_VERSION", "1")

import jsii  # noqa: F401 - with what both imports need


def _import_both() -> None:
    with ThreadPoolExecutor(max_workers=1) as beside:
        cdk = beside.submit(import_module, "aws_cdk")
        import_module("extended_dlc.app.settings")
    cdk.result()


# What is imported stays until the end: the garbage collector would look through it again and again for nothing.
collects = gc.isenabled()
gc.disable()
_import_both()
gc.freeze()
if collects:
    gc.enable()
