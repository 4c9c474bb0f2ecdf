"""Somebody who wants a false answer in the cache, from every place that such a person can stand in."""

from __future__ import annotations

import random
import socket
from collections.abc import Callable, Iterator
from threading import Thread
from typing import Self

import dns.message
import dns.rrset
import pytest

from tests.e2e.processes import wait_for
from tests.faults.asking import Got, ask
from tests.faults.island import Island
from tests.faults.relay import Address, Datagram, Fault, Relay
from tests.faults.zones import ADDRESS, Zones

pytestmark = [
    pytest.mark.faults,
    pytest.mark.xdist_group("faults-forgeries"),
    pytest.mark.usefixtures("learned_names_are_answered"),
]

EVIL = "203.0.113.66"
FLOOD = 100_000
ROADS = {"seen": ("udp",), "ports": ("udp",), "ids": ("udp",)}


@pytest.fixture(scope="module")
def zones(island: Island, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Zones]:
    # Long enough for a flood while one question is open.
    forward = {"timeout": {"attempt": "30s", "total": "60s"}}
    with Zones(tmp_path_factory.mktemp("w"), ROADS, forward) as made:
        yield made


def forged(query: bytes, ident: int | None = None, name: str | None = None) -> bytes:
    """A false answer to ``query``, which the forger has seen; perhaps with another id or name."""
    asked = dns.message.from_wire(query)
    message = dns.message.make_response(asked, recursion_available=True)
    owner = message.question[0].name.to_text() if name is None else name
    if name is not None:
        message.question[0].name = dns.name.from_text(name)
    message.answer = [dns.rrset.from_text(owner, 86_400, "IN", "A", EVIL)]
    if ident is not None:
        message.id = ident
    return message.to_wire()


class Open:
    """A question that stays open while its context lasts; the true answer comes at its end."""

    def __init__(self, zones: Zones, label: str) -> None:
        self.relay: Relay = zones.relays[label][0]
        self.name = f"bank.{label}.example"
        self.query = b""
        self.proxy: Address = ("", 0)
        self.got: list[Got] = []
        self._port = zones.world.dns_port
        self._thread = Thread(target=self._ask)

    def _ask(self) -> None:
        self.got.append(ask(self._port, self.name, patience=90))

    def _tap(self, datagram: Datagram) -> list[bytes]:
        if datagram.up and self.name.encode().split(b".")[0] in datagram.data:
            self.query, self.proxy = datagram.data, datagram.client
            return []
        return [datagram.data]

    def __enter__(self) -> Self:
        self.relay.tap = self._tap
        self._thread.start()
        wait_for(lambda: self.query, "the question is open")
        return self

    def tell_truth(self) -> Got:
        """Let the true answer come, and return what the client got."""
        self.relay.tap = None
        true = dns.message.make_response(dns.message.from_wire(self.query), recursion_available=True)
        true.answer = [dns.rrset.from_text(f"{self.name}.", 60, "IN", "A", ADDRESS)]
        self.relay.send(true.to_wire(), self.proxy)
        self._thread.join(90)
        return self.got[0]

    def __exit__(self, *exc: object) -> None:
        self.relay.tap = None
        self._thread.join(90)


def in_cache(zones: Zones, name: str) -> tuple[str, ...]:
    """What the proxy answers while it can ask nobody."""
    relay = zones.relays[name.split(".")[1]][0]
    relay.up = Fault(loss=1.0)
    try:
        return ask(zones.world.dns_port, name).data
    finally:
        relay.up = Fault()


def test_whoever_sees_the_question_still_has_to_be_the_upstream(
    zones: Zones, island: Island, note: Callable[[str], None]
) -> None:
    dropped = island.counter("Udp", "NoPorts")
    with Open(zones, "seen") as question:
        evil = forged(question.query)
        port = question.relay.address[1]
        # The right id and question, from another port and from two other addresses.
        for source in (("127.0.0.1", 0), ("127.0.0.9", port), ("127.0.0.9", 0)):
            with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as forger:
                forger.bind(source)
                for _ in range(20):
                    forger.sendto(evil, question.proxy)
        # From the right address and port: another id, another name, a query, a cut one.
        ident = int.from_bytes(evil[:2], "big")
        for data in (
            forged(question.query, (ident + 1) % 65_536),
            forged(question.query, name="bank.other.example."),
            evil[:2] + b"\x01" + evil[3:],
            evil[:-1],
        ):
            question.relay.send(data, question.proxy)
        wait_for(
            lambda: zones.ignored("seen", "not_ours") == 3, "three forgeries with the id are passed over"
        )
        assert zones.ignored("seen", "unknown_id") == 1
        assert question.got == []
        assert question.tell_truth().data == (ADDRESS,)
    assert in_cache(zones, question.name) == (ADDRESS,)
    wait_for(
        lambda: island.counter("Udp", "NoPorts") - dropped >= 60,
        "the kernel has dropped those from elsewhere",
    )
    note("60 from elsewhere dropped by the kernel, 4 passed over by the proxy")


def test_a_flood_of_guesses_at_port_and_id_hits_nothing(
    zones: Zones, island: Island, note: Callable[[str], None]
) -> None:
    # All that somebody off the path does not know is port and id: 1 in 2 ** 31.8 for each guess.
    guess = random.Random(7)  # noqa: S311 - the same guesses in every run
    dropped = island.counter("Udp", "NoPorts")
    with Open(zones, "ports") as question:
        evil = forged(question.query)
        ports = [port for port in range(32_768, 61_000) if port != question.proxy[1]]
        for _ in range(FLOOD):
            ident = guess.randrange(65_536).to_bytes(2, "big")
            question.relay.send(ident + evil[2:], ("127.0.0.1", guess.choice(ports)))
        assert question.got == []
        assert question.tell_truth().data == (ADDRESS,)
    assert in_cache(zones, question.name) == (ADDRESS,)
    drops = island.counter("Udp", "NoPorts") - dropped
    # Those that hit an open port were dropped by whoever had it: none is connected to the forger.
    assert drops > 0.9 * FLOOD
    note(f"{FLOOD} guesses, {drops} dropped by the kernel")


def test_a_flood_of_guesses_at_the_ids_of_a_known_port_hits_nothing(
    zones: Zones, note: Callable[[str], None]
) -> None:
    # Once the port is known, as by a side channel, 65,536 guesses would hit it for certain. The true id comes
    # after the 1000th: within the first some eighty it is hit with 0.1 %, which no proxy can help.
    with Open(zones, "ids") as question:
        evil = forged(question.query)
        true = int.from_bytes(question.query[:2], "big")
        idents = [ident for ident in range(65_536) if ident != true]
        random.Random(7).shuffle(idents)  # noqa: S311 - the same
        idents.insert(1000, true)
        question.relay.tap = None
        for number in range(FLOOD):
            ident = idents[number % len(idents)].to_bytes(2, "big")
            question.relay.send(ident + evil[2:], question.proxy)
        # Over TCP, by itself: nobody but the upstream can answer there.
        wait_for(lambda: question.got, "the question is answered")
        assert question.got[0].data == (ADDRESS,)
    assert in_cache(zones, question.name) == (ADDRESS,)
    assert question.relay.counts["tcp.accepted"] == 1
    passed_over = zones.ignored("ids", "unknown_id")
    assert 10 < passed_over < 1000
    (told,) = zones.world.proxy.events("upstream.replies_guessed")
    assert told["count"] > 10
    assert zones.is_up("ids")
    note(f"{FLOOD} guesses, {passed_over:g} read before the question went over TCP")
