"""Settings that hold for every test, and what some need to put back."""

from __future__ import annotations

import gc
from collections.abc import Iterator
from typing import TYPE_CHECKING

import hypothesis
import pytest

if TYPE_CHECKING:
    from tests.fakes.objectstores import Store

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


@pytest.fixture(scope="session")
def moto(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Store]:
    """An object store that speaks S3. Tests that use it share a worker by ``xdist_group("moto")``."""
    from tests.fakes import objectstores  # noqa: PLC0415 - few tests need it

    with objectstores.moto(tmp_path_factory.mktemp("moto")) as store:
        yield store
