"""Reap processes that lose their parent, where this process is PID 1.

In a container without an init (``docker run`` without ``--init``) the kernel gives them to this one: what a
program of ``learn.on_change`` has started and left behind, and what ``docker exec`` has. Each stays a zombie
until it is waited for, and takes one of the container's tasks.

The exit status of a process that this one has started belongs to its owner: asyncio's child watcher, or the
handle of the process that starts workers. The owner of a process that has ended waits for it within
milliseconds, on this loop or in a thread; one that is still there after `SETTLE_SECONDS` has none. Those of
`OWN` are never reaped here.
"""

from __future__ import annotations

import asyncio
import os
from contextlib import suppress

# Seconds between two looks, and that the owner of a process has to wait for it.
LOOK_SECONDS = 1.0
SETTLE_SECONDS = 0.5

# Processes whose owner may let their status wait.
OWN: set[int] = set()


def adopts_orphans() -> bool:
    """Whether the kernel gives orphans to this process."""
    return os.getpid() == 1


async def reap_orphans() -> None:
    """Reap what has ended and has no owner, until cancelled."""
    while True:
        pid = ended_child()
        if pid is None or pid in OWN:
            await asyncio.sleep(LOOK_SECONDS)
            continue
        # When this continues, the loop has run the callbacks of all that was ready before.
        await asyncio.sleep(SETTLE_SECONDS)
        if ended_child() == pid:
            with suppress(ChildProcessError):
                os.waitpid(pid, os.WNOHANG)  # noqa: ASYNC222 - it has ended, and this does not wait


def ended_child() -> int | None:
    """Return the first child that has ended and was not waited for; it stays so."""
    try:
        found = os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT)
    except ChildProcessError:  # there is no child at all
        return None
    return None if found is None else found.si_pid
