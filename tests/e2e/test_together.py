"""Everything that one process does at a time: hot sockets, asyncio's HTTP and timers, pulls and probes."""

from __future__ import annotations

import socket
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from itertools import count

import dns.message
import dns.query
import dns.rdatatype
import pytest

from tests.e2e.processes import wait_for
from tests.e2e.test_trust import ONE, TWO, Trial
from tests.e2e.world import OTHER, OTHER_ADDRESS, REGISTRY, World, fetch

pytestmark = pytest.mark.e2e

# Seconds. An answer takes less than a thousandth of it.
PATIENCE = 5.0
# Rounds of each asker that make a long enough time together.
ROUNDS = 50


@contextmanager
def repeated(ask: Callable[[int], None]) -> Iterator[Callable[[], int]]:
    """Call ``ask`` again and again in a thread; what is yielded tells how often, or raises what it raised."""
    stop = threading.Event()
    failures: list[Exception] = []
    rounds = 0

    def run() -> None:
        nonlocal rounds
        for number in count():
            if stop.is_set() or failures:
                return
            try:
                ask(number)
            except Exception as exc:  # noqa: BLE001 - raised again where the test waits
                failures.append(exc)
            rounds = number + 1

    def done() -> int:
        if failures:
            raise failures[0]
        return rounds

    thread = threading.Thread(target=run)
    thread.start()
    try:
        yield done
    finally:
        stop.set()
        thread.join()


def addresses(reply: dns.message.Message) -> list[str]:
    return [item.to_text() for rrset in reply.answer for item in rrset if rrset.rdtype == dns.rdatatype.A]


class Askers:
    """Ways to ask a proxy whose name has one of these addresses; each checks what it gets."""

    def __init__(self, world: World, allowed: Sequence[str]) -> None:
        self._world = world
        self._allowed = [[address] for address in allowed]

    def over_udp(self, number: int) -> None:
        self._check(lambda query: dns.query.udp(query, "127.0.0.1", PATIENCE, self._world.dns_port), number)

    def over_tcp(self, number: int) -> None:
        with socket.create_connection(("127.0.0.1", self._world.dns_port), PATIENCE) as sock:
            # Several on one connection, then a new one.
            for again in range(5):
                self._check(
                    lambda query: dns.query.tcp(query, "127.0.0.1", PATIENCE, sock=sock), number + again
                )

    def _check(self, ask: Callable[[dns.message.Message], dns.message.Message], number: int) -> None:
        assert addresses(ask(dns.message.make_query(REGISTRY, "A"))) in self._allowed
        assert addresses(ask(dns.message.make_query(OTHER, "A"))) == [OTHER_ADDRESS]
        # New to the proxy: its upstream is asked.
        missing = ask(dns.message.make_query(f"n{number}.{OTHER}", "A"))
        assert (missing.rcode(), missing.answer) == (dns.rcode.NXDOMAIN, [])

    def over_http(self, number: int) -> None:
        path = ("/metrics", "/api/v1/status", f"/api/v1/explain?name=n{number}.{OTHER}&type=A")[number % 3]
        page = fetch(self._world.admin_port, path, {"Authorization": "Bearer a-token"})
        assert (page.status, bool(page.body)) == (200, True)


def test_answers_and_all_else_go_on_together(world: World) -> None:
    with Trial(world) as trial, ExitStack() as stack:
        trial.open(ONE, TWO)
        trial.start(ONE)
        trial.wait_answered(ONE)
        askers = Askers(world, [ONE, TWO])
        ways = (askers.over_udp, askers.over_udp, askers.over_tcp, askers.over_tcp, askers.over_http)
        done = [stack.enter_context(repeated(ask)) for ask in ways]
        probed = trial.wait_detail(ONE, state="serving")["checked_at"]
        wait_for(lambda: min(way() for way in done) >= ROUNDS, "each way of asking had its turns")
        # Pulls and probes went on: what changed was pulled, and probed before it was answered.
        trial.learn(TWO)
        trial.wait_answered(TWO)
        assert trial.wait_detail(TWO, state="serving", probe={str(trial.port): "ok"})["checked_at"] > probed
        before = [way() for way in done]
        wait_for(lambda: all(way() > old for way, old in zip(done, before, strict=True)), "they all go on")
    assert world.proxy.stop() == 0
    # Neither ours nor asyncio's.
    assert "Traceback" not in world.proxy.text()
