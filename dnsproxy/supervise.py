"""Background tasks: one that fails becomes an event and is started again, and ends nothing besides itself.

Where a `TaskGroup` holds background tasks, each of them is wrapped in `supervise` (`tests/test_layout.py`).
Without that, one exception, such as that no thread can be started, cancels the whole group, then the group
that holds that one, and in the end the service.
"""

from __future__ import annotations

import asyncio

# asyncio loads it with the first thread; no descriptor may be left for that by then.
import concurrent.futures.thread  # noqa: F401
import random
import traceback
from collections import Counter
from collections.abc import Awaitable, Callable
from typing import TypeVar

import structlog

from dnsproxy.core.retry import next_delay

log: structlog.typing.FilteringBoundLogger = structlog.get_logger()

Result = TypeVar("Result")

# Seconds before the first restart, and between restarts at most. One that has run for longer than the latter
# counts as having worked.
FIRST_SECONDS = 1.0
LONGEST_SECONDS = 60.0

# Failures of this process, by the name of the task.
failures: Counter[str] = Counter()


async def supervise(name: str, work: Callable[[], Awaitable[object]], *, detail: str = "") -> None:
    """Await ``work()`` until it returns or this is cancelled; after an exception, again, with a back-off.

    ``name`` is one of a closed set and a label of the metrics; ``detail`` tells tasks of one name apart.
    """
    loop = asyncio.get_running_loop()
    in_a_row = 0
    while True:
        started = loop.time()
        failure = await _run(name, work, detail)
        if failure is None:
            return
        in_a_row = 1 if loop.time() - started >= LONGEST_SECONDS else in_a_row + 1
        # The draw spreads what one fault has ended; it is no secret.
        delay = next_delay(in_a_row, FIRST_SECONDS, LONGEST_SECONDS, random.random())  # noqa: S311
        note_failure(name, failure, detail=detail, restart_in=delay)
        del failure  # its frames hold what the task has left behind
        await asyncio.sleep(delay)


async def _run(name: str, work: Callable[[], Awaitable[object]], detail: str) -> BaseException | None:
    """Return what ``work()`` has raised; None when it has returned.

    It has its own task: before Python 3.13 a `TaskGroup` whose child fails may leave a request to cancel the
    task that it is in, which looks like one from elsewhere. A task that ends by a cancellation from within,
    of a future that it awaits, counts as failed.
    """

    async def run() -> None:
        try:
            await work()
        except asyncio.CancelledError as exc:
            # Until Python 3.13 a `TaskGroup` leaves its exception in its own frame: a reference cycle that
            # holds what the frames saw, such as a whole configuration, until a full garbage collection.
            traceback.clear_frames(exc.__traceback__)
            raise

    task = asyncio.create_task(run(), name=name)
    try:
        await asyncio.wait([task])
    except asyncio.CancelledError:
        task.cancel()
        await asyncio.wait([task])
        if not task.cancelled() and (failure := task.exception()) is not None:
            note_failure(name, failure, detail=detail)
        raise
    return asyncio.CancelledError() if task.cancelled() else task.exception()


async def attempt(name: str, work: Callable[[], Awaitable[object]]) -> bool:
    """Await ``work()`` once; an exception is logged. Return whether there was none."""
    try:
        await work()
    except Exception as exc:  # noqa: BLE001 - as above
        note_failure(name, exc)
        return False
    return True


def note_failure(
    name: str, failure: BaseException, *, detail: str = "", restart_in: float | None = None
) -> None:
    """Log and count that the task ``name`` has failed; it starts again in ``restart_in`` seconds, or not."""
    failures[name] += 1
    seconds = None if restart_in is None else round(restart_in, 1)
    log.error("task.failed", task=name, detail=detail, restart_in=seconds, exc_info=failure)


async def in_thread(work: Callable[..., Result], *arguments: object) -> Result:
    """Return ``work(*arguments)``, called in a thread, or here where no thread can be started.

    For what must be done all the same and holds the event loop up for tens of milliseconds at most.
    """
    try:
        return await asyncio.to_thread(work, *arguments)
    except RuntimeError as exc:
        if "start new thread" not in str(exc):
            raise
    return work(*arguments)
