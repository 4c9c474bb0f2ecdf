"""What is measured on dnsproxy by itself: its start, its memory, and the bound of its cache."""

from __future__ import annotations

import json
import secrets
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from bench import backend, check, load, queries, rounds
from bench.check import WrongAnswerError
from bench.load import Order
from bench.names import unique
from bench.process import Child
from bench.rounds import Say
from bench.servers import SERVERS, Site
from bench.workloads import LOAD_CORE, Bench

STARTS = 5
MANY_NAMES = 1_000_000
FLOOD_BOUND = 100_000
FLOOD_STEPS = 5  # each of as many new names as the cache holds
FLOOD_SETTLED = 3  # by then the allocator has seen every entry replaced twice
_FILL_SECONDS = 240.0
_SETTLE_SECONDS = 10.0


@dataclass(frozen=True)
class Alone:
    """Seconds and bytes; a figure that could not be taken is None and ``problems`` says why.

    ``bytes_per_name`` is memory over that of the empty cache. ``flood_bytes``
    is the memory after three times as many names as the cache may hold, and
    ``flood_growth`` what twice as many more add.
    """

    start_seconds: float | None = None
    idle_bytes: int | None = None
    names_held: int | None = None
    bytes_per_name: float | None = None
    flood_entries: int | None = None
    flood_bytes: int | None = None
    flood_growth: int | None = None
    problems: tuple[str, ...] = ()


@contextmanager
def _running(bench: Bench, upstream: int, entries: int) -> Iterator[tuple[Child, Site]]:
    child, site = rounds.start(bench, SERVERS[0], upstream, entries)
    with child:
        try:
            check.wait_for_answer(site.port, check.START_SECONDS)
        except WrongAnswerError as exc:
            raise WrongAnswerError(f"{exc}\n{child.said()}") from exc
        yield child, site


def start_seconds(bench: Bench, upstream: int) -> float:
    """Return the median time from exec to the first right answer for an owned name."""
    taken = []
    for _ in range(STARTS):
        began = time.monotonic()
        with _running(bench, upstream, FLOOD_BOUND):
            taken.append(time.monotonic() - began)
    return sorted(taken)[STARTS // 2]


def quiet(child: Child) -> None:
    """Wait until a server uses no processor time for half a second, at most ten seconds."""
    deadline = time.monotonic() + _SETTLE_SECONDS
    before = -1.0
    while time.monotonic() < deadline and before != (now := child.cpu_seconds()):
        before = now
        time.sleep(0.5)


def cache_entries(site: Site) -> int:
    """Return the number of entries that the status endpoint tells.

    Raises:
        OSError: when it does not answer.
        KeyError: when it does not tell.
    """
    url = f"http://127.0.0.1:{site.admin_port}/api/v1/status"
    with urllib.request.urlopen(url, timeout=10) as response:
        return int(json.load(response)["cache"]["entries"])


def fill(bench: Bench, site: Site, count: int) -> None:
    """Ask for ``count`` names that were not asked before."""
    path = queries.write_text(bench.directory / "fill.txt", unique(count, secrets.token_hex(4)))
    order = Order(site.port, path, _FILL_SECONDS, outstanding=50, once=True)
    load.run(order, LOAD_CORE, bench.directory / "fill.log")


def million(bench: Bench, upstream: int) -> tuple[int, int, float]:
    """Return idle memory, the names held after a million were asked, and the bytes that each costs."""
    with _running(bench, upstream, MANY_NAMES) as (child, site):
        quiet(child)
        idle = child.memory()
        fill(bench, site, 1_000)
        base, known = child.memory(), cache_entries(site)
        fill(bench, site, MANY_NAMES)
        quiet(child)
        held = cache_entries(site)
        return idle, held, (child.memory() - base) / (held - known)


def flood(bench: Bench, upstream: int) -> tuple[int, int, int]:
    """Return the most entries seen, the memory when it has settled, and its growth from there."""
    seen, memory = [], []
    with _running(bench, upstream, FLOOD_BOUND) as (child, site):
        for _ in range(FLOOD_STEPS):
            fill(bench, site, FLOOD_BOUND)
            seen.append(cache_entries(site))
            memory.append(child.memory())
    settled = memory[FLOOD_SETTLED - 1]
    return max(seen), settled, memory[-1] - settled


def run(bench: Bench, say: Say) -> Alone:
    """Take every figure; one that fails leaves the others."""
    figures: dict[str, float] = {}
    problems: list[str] = []

    def start(upstream: int) -> None:
        figures["start_seconds"] = start_seconds(bench, upstream)

    def memory(upstream: int) -> None:
        idle, held, each = million(bench, upstream)
        figures.update(idle_bytes=idle, names_held=held, bytes_per_name=each)

    def bound(upstream: int) -> None:
        entries, settled, growth = flood(bench, upstream)
        figures.update(flood_entries=entries, flood_bytes=settled, flood_growth=growth)

    port = rounds.free_port()
    with backend.start(Path(bench.directory) / "backend", port, LOAD_CORE):
        for take in (start, memory, bound):
            say(f"dnsproxy alone: {take.__name__} ...")
            try:
                take(port)
            except (WrongAnswerError, OSError, ValueError, KeyError, ZeroDivisionError) as exc:
                problems.append(f"{take.__name__}: {type(exc).__name__}: {exc}")
                say(problems[-1])
    return Alone(problems=tuple(problems), **figures)  # type: ignore[arg-type]
