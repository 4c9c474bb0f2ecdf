"""A writer of queries that keeps them."""

from __future__ import annotations

from dnsproxy.core.seen import Seen
from dnsproxy.core.stats import SOURCES, Stats
from dnsproxy.net.watch import Watch


class Kept:
    """Wants each query of which ``wants`` says so; all by default."""

    def __init__(self, wants: list[bool] | None = None) -> None:
        self.seen: list[Seen] = []
        self.closed = False
        self._wants = wants

    def picks(self) -> bool:
        return True if self._wants is None else self._wants.pop(0)

    def open(self, stats: Stats) -> None:
        """Nothing: there is no loop that it needs."""

    def write(self, seen: Seen) -> None:
        self.seen.append(seen)

    async def close(self) -> None:
        self.closed = True

    @property
    def brief(self) -> list[tuple[str, str, str]]:
        """Protocol, what the answer was made from, and the upstream or the reason, of each query."""
        return [
            (
                seen.protocol,
                "dropped" if seen.source < 0 else SOURCES[seen.source],
                seen.upstream or seen.reason,
            )
            for seen in self.seen
        ]


def watched() -> tuple[Watch, Kept]:
    kept = Kept()
    return Watch([kept]), kept
