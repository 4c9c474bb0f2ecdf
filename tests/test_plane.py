from __future__ import annotations

import gc
from collections.abc import Iterator

import pytest

from dnsproxy.plane import GC_THRESHOLDS, tune_collector


@pytest.fixture(autouse=True)
def collector() -> Iterator[None]:
    before = gc.get_threshold()
    yield
    gc.set_threshold(*before)
    gc.unfreeze()


def test_what_the_start_made_is_not_walked_again() -> None:
    gc.unfreeze()
    tune_collector()
    assert gc.get_freeze_count() > 0
    assert gc.get_threshold() == GC_THRESHOLDS
