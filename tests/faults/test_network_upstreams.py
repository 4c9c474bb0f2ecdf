"""Upstreams that hang, die one by one, and come back."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from threading import Event, Thread
from typing import Self

import pytest

from tests.e2e.processes import wait_for
from tests.faults.asking import Got, ask, ask_all
from tests.faults.relay import Fault, Streams
from tests.faults.zones import ADDRESS, Zones

pytestmark = [
    pytest.mark.faults,
    pytest.mark.xdist_group("faults-upstreams"),
    pytest.mark.usefixtures("learned_names_are_answered"),
]

ROADS = {
    "three": ("udp", "udp", "udp"),
    "tcp": ("tcp", "udp"),
    "tls": ("tls", "udp"),
    "reset": ("tcp", "udp"),
    "gone": ("udp", "udp"),
}
DEAD = Fault(loss=1.0)
QUIET = Fault()
# Failures in a row after which an upstream is down (core/upstreams.py).
FALL = 3


@pytest.fixture(scope="module")
def zones(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Zones]:
    forward = {
        "policy": "sequential",
        "timeout": {"attempt": "300ms", "total": "1200ms"},
        # An upstream that nobody asks is found dead by a probe, and sooner than by default.
        "probe": {"interval": "1s"},
    }
    with Zones(tmp_path_factory.mktemp("w"), ROADS, forward) as made:
        yield made


class Client:
    """Asks for one new name after the other, and keeps what it gets."""

    def __init__(self, zones: Zones, label: str) -> None:
        self._port, self._label = zones.world.dns_port, label
        self._end = Event()
        self._thread = Thread(target=self._run)
        self.got: list[Got] = []

    def _run(self) -> None:
        while not self._end.wait(0.02):
            self.got.append(ask(self._port, f"n{len(self.got)}.{self._label}.example"))

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *exc: object) -> None:
        self._end.set()
        self._thread.join(30)

    def failed(self) -> int:
        return sum(not got.good for got in self.got)

    def wait_more(self, count: int) -> None:
        """Wait for ``count`` more answers."""
        wanted = len(self.got) + count
        wait_for(lambda: len(self.got) >= wanted, f"{count} more answers")


def test_upstreams_die_one_by_one_and_clients_see_nothing_while_one_lives(
    zones: Zones, note: Callable[[str], None], full: bool
) -> None:
    relays = zones.relays["three"]
    with Client(zones, "three") as client:
        for _ in range(5 if full else 1):
            for survivor in range(3):
                for which, relay in enumerate(relays):
                    relay.up = QUIET if which == survivor else DEAD
                for which in range(3):
                    wait_for(
                        lambda which=which, alive=which == survivor: zones.is_up("three", which) is alive,  # type: ignore[misc]
                        f"upstream {which} is known to be {'up' if which == survivor else 'down'}",
                    )
                before = client.failed()
                client.wait_more(20)
                # Three sends for a question reach each of three upstreams, dead ones too.
                assert client.failed() == before == 0
        for relay in relays:
            relay.up = QUIET
        wait_for(lambda: all(zones.is_up("three", which) for which in range(3)), "all are up again")
        client.wait_more(5)
    assert client.failed() == 0
    note(
        f"{len(client.got)} questions, {client.failed()} SERVFAIL, failures "
        f"{[zones.upstream('three', which)['failures'] for which in range(3)]}"
    )


def test_all_dead_is_servfail_with_the_reason_and_recovery_follows_from_probes(
    zones: Zones, note: Callable[[str], None]
) -> None:
    relays = zones.relays["gone"]
    assert zones.wait_good("kept.gone").data == (ADDRESS,)
    for relay in relays:
        relay.up = DEAD
    for number in range(FALL):
        got = zones.ask(f"n{number}.gone")
        assert (got.rcode, bool(got.reasons & {22, 23})) == ("SERVFAIL", True)
    wait_for(lambda: not zones.is_up("gone") and not zones.is_up("gone", 1), "both are known to be down")
    assert zones.ask("kept.gone").data == (ADDRESS,), "what is cached is answered"
    sent = zones.upstream("gone")["sent"]
    for relay in relays:
        relay.up = QUIET
    # Nobody asks meanwhile: it is the probes that find out.
    wait_for(lambda: zones.is_up("gone") and zones.is_up("gone", 1), "both are up again")
    assert zones.upstream("gone")["sent"] > sent
    assert zones.ask("later.gone").data == (ADDRESS,)
    note(f"down and up again by {zones.upstream('gone')['sent'] - sent} probes and queries")


@pytest.mark.parametrize(
    ("label", "streams"),
    [("tcp", Streams.HOLD), ("tls", Streams.HOLD), ("reset", Streams.RESET)],
)
def test_an_upstream_that_accepts_and_never_answers_gives_way(
    zones: Zones, label: str, streams: Streams, note: Callable[[str], None]
) -> None:
    held = zones.relays[label][0]
    held.streams = streams
    asked = ask_all(zones.world.dns_port, [f"n{number}.{label}.example" for number in range(40)])
    assert asked.rcodes == {"NOERROR": 40}
    assert {got.data for got in asked.got.values()} == {(ADDRESS,)}
    wait_for(lambda: not zones.is_up(label), "it is known to be down")
    # At most four at one time, and new ones for probes only.
    asked = ask_all(zones.world.dns_port, [f"m{number}.{label}.example" for number in range(40)])
    assert asked.rcodes == {"NOERROR": 40}
    connections = held.counts["tcp.accepted"]
    assert connections <= 4 * FALL + 10
    if label != "tls":  # nobody speaks TLS behind that relay
        held.streams = Streams.FORWARD
        wait_for(lambda: zones.is_up(label), "it is up again")
        assert zones.wait_good(f"back.{label}").data == (ADDRESS,)
    note(f"80 questions, no SERVFAIL, {connections} connections, {zones.upstream(label)['failures']}")
