from __future__ import annotations

import asyncio

from dnsproxy.admin.turns import Turns


async def test_each_has_a_turn_of_the_event_loop_of_its_own() -> None:
    loop, turns = asyncio.get_running_loop(), Turns()
    turn = 0
    entered: list[int] = []

    def count() -> None:
        nonlocal turn
        turn += 1
        if len(entered) < 20:
            loop.call_soon(count)

    async def enter() -> None:
        async with turns.next():
            entered.append(turn)

    count()
    tasks = [asyncio.create_task(enter()) for _ in range(20)]
    tasks[3].cancel()
    tasks.append(asyncio.create_task(enter()))
    await asyncio.gather(*tasks, return_exceptions=True)
    assert len(set(entered)) == len(entered) == 20
