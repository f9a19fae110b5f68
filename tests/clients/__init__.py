"""Unmodified clients from PyPI against the real server: `python -m tests.clients`, and docs/clients.md."""
