"""Many proxy engines in one process, each with its own source, state folder, address service and engine.

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
from dnsproxy.address_service import AddressService
from dnsproxy.core.addresses.table import ServedTable
from dnsproxy.learning import LearningPipeline
from dnsproxy.net.fetch import Fetched, Request
from dnsproxy.net.puller import SnapshotPuller
from dnsproxy.plane import tune_interpreter
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
        self.learning = LearningPipeline(settings)
        self.addresses = AddressService(self.learning.addresses, self.swap)
        self._question = query(name)
        self._answered: tuple[str, ...] = ()

    def _counted(
        self, inner: Callable[[Source, Request], Awaitable[Fetched]]
    ) -> Callable[[Source, Request], Awaitable[Fetched]]:
        async def fetch(source: Source, request: Request) -> Fetched:
            self.requests += 1
            return await inner(source, request)

        return fetch

    def load(self) -> None:
        """Answer from disk, and make the puller."""
        self.addresses.load(self.learning.trust)
        self.learning.begin(self.addresses)
        self.puller._fetch = self._counted(self.puller._fetch)

    @property
    def puller(self) -> SnapshotPuller:
        """What pulls from the source."""
        assert self.learning.puller is not None
        return self.learning.puller

    async def run(self) -> None:
        """Learn until cancelled."""
        await asyncio.gather(self.learning.run(), self.addresses.run())

    def swap(self, table: ServedTable) -> None:
        """Answer from ``table``, and tell when the answer is another one."""
        self.server.swap_table(table)
        answer = self.server.engine.receive(self._question, CLIENT, time.monotonic())
        assert isinstance(answer, bytes)
        answered = tuple(sorted(addresses(answer)))
        if answered != self._answered:
            self._answered = answered
            entry = next(iter(table.sets.values()), None)
            tell(
                engine=self.number,
                addresses=answered,
                at=time.time(),
                changed_at=entry.learned.changed_at if entry else None,
                serial=table.serial,
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
    tune_interpreter()
    ended = asyncio.Event()
    asyncio.get_running_loop().add_reader(0, lambda: None if os.read(0, 4096) else ended.set())
    async with asyncio.TaskGroup() as group:
        running = []
        for place, member in enumerate(members):
            member.load()
            running.append(group.create_task(member.run()))
            # A fleet was not started in one moment; its polls are spread over a round.
            await asyncio.sleep(spec["spread"] / max(1, len(members)) if place else 0)
        tell(started=len(members))
        await ended.wait()
        for task in running:
            task.cancel()
    for member in members:
        await member.addresses.close()
    counts = [0] * len(members[0].addresses.convergence.counts)
    for member in members:
        counts = [a + b for a, b in zip(counts, member.addresses.convergence.counts, strict=True)]
    usage = resource.getrusage(resource.RUSAGE_SELF)
    tell(
        requests=sum(member.requests for member in members),
        convergence=counts,
        cpu=usage.ru_utime + usage.ru_stime,
        rss=usage.ru_maxrss * 1024,
        failures=sorted({str(s.last_error) for m in members for s in m.puller.statuses if s.last_error}),
    )


def main() -> None:
    """Read the specification that the first argument names."""
    logs.configure("error", "json")
    asyncio.run(run(json.loads(Path(sys.argv[1]).read_text(encoding="utf-8"))))


if __name__ == "__main__":
    main()
