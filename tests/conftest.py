"""Settings that hold for every test, and what some need to put back."""

from __future__ import annotations

import gc
from collections.abc import Iterator

import hypothesis
import pytest

# No deadline, and no complaint about slow drawing: both say more about the machine than about the code.
hypothesis.settings.register_profile(
    "dnsproxy", deadline=None, print_blob=True, suppress_health_check=[hypothesis.HealthCheck.too_slow]
)
hypothesis.settings.load_profile("dnsproxy")


@pytest.fixture
def collector() -> Iterator[None]:
    """Put the collector back, which proxies and workers tune for their process: here, the tests' own."""
    before = gc.get_threshold()
    yield
    gc.set_threshold(*before)
    gc.unfreeze()
