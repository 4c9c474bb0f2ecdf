from __future__ import annotations

import ctypes
from math import inf

import pytest

from dnsproxy.core.budget import MemoryBudget
from dnsproxy.net import heap


class Holder:
    def evict(self) -> None:
        raise AssertionError


def test_memory_is_given_back_after_much_was_freed_and_not_often(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(heap, "_trimmed_at", -inf)
    budget, holder = MemoryBudget(10 * heap.ENOUGH), Holder()

    def hold_and_free(size: int) -> None:
        budget.charge(holder, b"", size)
        budget.charge(holder, b"", 0)

    hold_and_free(heap.ENOUGH - 1)
    assert not heap.trim(budget, 1.0)
    assert budget.freed == heap.ENOUGH - 1
    hold_and_free(1)
    assert not heap.trim(budget, 1.0)
    assert budget.freed == 0
    hold_and_free(heap.ENOUGH)
    assert heap.trim(budget, heap.SECONDS), "later"
    assert budget.freed == heap.ENOUGH
    assert not heap.trim(budget, heap.SECONDS + 1.0)
    assert budget.freed == 0


def test_a_c_library_that_cannot_is_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(heap, "_trimmed_at", -inf)
    monkeypatch.setattr(ctypes, "CDLL", lambda _: object())
    budget = MemoryBudget(1)
    budget.freed = heap.ENOUGH
    assert not heap.trim(budget)
    assert budget.freed == 0
