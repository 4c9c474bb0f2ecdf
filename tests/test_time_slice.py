from __future__ import annotations

import asyncio

import pytest

from dnsproxy import time_slice
from dnsproxy.time_slice import SECONDS, TimeSlice


async def test_connections_take_turns_with_all_else(monkeypatch: pytest.MonkeyPatch) -> None:
    """Three connections with three pieces of work each, of which two fit into the time of an iteration."""
    now = 0.0
    monkeypatch.setattr(time_slice, "monotonic", lambda: now)
    turns = TimeSlice()
    done: list[str] = []
    left = {"a": 3, "b": 3, "c": 3}

    def work(name: str) -> None:
        nonlocal now
        while left[name]:
            now += SECONDS / 2
            left[name] -= 1
            done.append(name)
            if left[name] and not turns.has_time():
                turns.wait(lambda: work(name))
                return

    def begin(name: str) -> None:
        if turns.has_time():
            work(name)
        else:
            turns.wait(lambda: work(name))

    for name in left:
        begin(name)
    while any(left.values()):
        done.append("|")
        await asyncio.sleep(0)
    # The first one alone goes on for as long as there is time; then each has a piece in its turn.
    assert "".join(done) == "aa|ab|cb|cb|c"
    # The time of an iteration in which nothing has been taken is whole again.
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    assert turns.has_time()
