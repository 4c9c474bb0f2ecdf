from __future__ import annotations

import gc

import pytest

from dnsproxy.plane import GC_THRESHOLDS, tune_interpreter

pytestmark = pytest.mark.usefixtures("collector")


def test_what_the_start_made_is_not_walked_again() -> None:
    gc.unfreeze()
    tune_interpreter()
    assert gc.get_freeze_count() > 0
    assert gc.get_threshold() == GC_THRESHOLDS
