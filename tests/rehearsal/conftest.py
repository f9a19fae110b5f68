"""What the tests of the rehearsal share."""

from __future__ import annotations

import pytest


def pytest_configure(config: pytest.Config) -> None:
    """Name the tests that take long."""
    config.addinivalue_line("markers", "slow: takes 10 s or more; leave them out with -m 'not slow'")
