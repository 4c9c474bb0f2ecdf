"""Many proxy engines in one process, each with its own source, state folder, learner, vetting and engine.

    python -m tests.fleet.engines SPEC

Only the listeners are left out. Each engine is asked whenever its addresses may have changed, and what it
answers is told on standard output, a JSON object a line. The process ends when its standard input does.
"""

from __future__ import annotations

import asyncio
import json
import os
import resource
import sys
import time
from collections.abc import Awaitable, Callable
from ipaddress import ip_address
from pathlib import Path
from typing import Any

from dnsproxy import config, logs
from dnsproxy.core.book import Book
from dnsproxy.learning import Learning
from dnsproxy.net.fetch import Fetched, Request
from dnsproxy.plane import tune_collector
from dnsproxy.server import Server
from dnsproxy.settings.sources import Source
from tests.messages import addresses, query

CLIENT = ip_address("127.0.0.1").packed


class Member:
    """One proxy: what `app.Proxy` has, without sockets to clients."""

    def __init__(self, number: int, text: str, name: str) -> None:
        self.number = number
        self.requests = 0
        settings = config.parse(text)
        self.server = Server(settings)
        self.learning = Learning(settings, self.swap)
        self._question = query(name)
        self._answered: tuple[str, ...] = ()
        inner = self.learning.learner._fetch
        self.learning.learner._fetch = self._counted(inner)

    def _counted(
        self, inner: Callable[[Source, Request], Awaitable[Fetched]]
    ) -> Callable[[Source, Request], Awaitable[Fetched]]:
        async def fetch(source: Source, request: Request) -> Fetched:
            self.requests += 1
            return await inner(source, request)

        return fetch

    def swap(self, book: Book) -> None:
        """Answer from ``book``, and tell when the answer is another one."""
        self.server.swap_book(book)
        answer = self.server.engine.receive(self._question, CLIENT, time.monotonic())
        assert isinstance(answer, bytes)
        answered = tuple(sorted(addresses(answer)))
        if answered != self._answered:
            self._answered = answered
            entry = next(iter(book.entries.values()), None)
            tell(
                engine=self.number,
                addresses=answered,
                at=time.time(),
                changed_at=entry.learned.changed_at if entry else None,
                serial=book.serial,
            )


def tell(**facts: Any) -> None:
    """Write one line for the process that measures."""
    sys.stdout.write(json.dumps(facts) + "\n")
    sys.stdout.flush()


async def run(spec: dict[str, Any]) -> None:
    """Run the members until standard input ends."""
    folder = Path(spec["folder"])
    members = []
    for number in spec["numbers"]:
        state = folder / f"{number}"
        state.mkdir()
        text = json.dumps(spec["settings"]).replace("@STATE@", str(state / "learned.jws"))
        members.append(Member(number, text, spec["name"]))
    tune_collector()
    ended = asyncio.Event()
    asyncio.get_running_loop().add_reader(0, lambda: None if os.read(0, 4096) else ended.set())
    async with asyncio.TaskGroup() as group:
        running = []
        for place, member in enumerate(members):
            member.learning.load()
            running.append(group.create_task(member.learning.run()))
            # A fleet was not started in one moment; its polls are spread over a round.
            await asyncio.sleep(spec["spread"] / max(1, len(members)) if place else 0)
        tell(started=len(members))
        await ended.wait()
        for task in running:
            task.cancel()
    for member in members:
        await member.learning.close()
    counts = [0] * len(members[0].learning.convergence.counts)
    for member in members:
        counts = [a + b for a, b in zip(counts, member.learning.convergence.counts, strict=True)]
    usage = resource.getrusage(resource.RUSAGE_SELF)
    tell(
        requests=sum(member.requests for member in members),
        convergence=counts,
        cpu=usage.ru_utime + usage.ru_stime,
        rss=usage.ru_maxrss * 1024,
        failures=sorted(
            {str(s.last_error) for m in members for s in m.learning.learner.statuses if s.last_error}
        ),
    )


def main() -> None:
    """Read the specification that the first argument names."""
    logs.configure("error", "json")
    asyncio.run(run(json.loads(Path(sys.argv[1]).read_text(encoding="utf-8"))))


if __name__ == "__main__":
    main()
