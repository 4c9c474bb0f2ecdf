"""What a process holds: memory, descriptors, threads and tasks, read from outside."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Holding:
    """``memory`` is resident octets; ``tasks`` are those of the event loop, by the proxy's own metric."""

    memory: int
    descriptors: int
    threads: int
    tasks: int
    cache_entries: int
    in_flight: int


def look(pid: int, metric: dict[str, float]) -> Holding:
    """Return what process ``pid`` holds now; ``metric`` is what it says of itself."""
    status = dict(
        line.split(":", 1) for line in Path(f"/proc/{pid}/status").read_text().splitlines() if ":" in line
    )
    return Holding(
        memory=int(status["VmRSS"].split()[0]) * 1024,
        descriptors=sum(1 for _ in Path(f"/proc/{pid}/fd").iterdir()),
        threads=int(status["Threads"]),
        tasks=int(metric["dnsproxy_tasks"]),
        cache_entries=int(metric["dnsproxy_cache_entries"]),
        in_flight=int(metric["dnsproxy_in_flight"]),
    )


def read_metrics(text: str) -> dict[str, float]:
    """Return the samples of a metrics page by their name and labels."""
    pairs = (line.rsplit(" ", 1) for line in text.splitlines() if line and not line.startswith("#"))
    return {name: float(value) for name, value in pairs}
