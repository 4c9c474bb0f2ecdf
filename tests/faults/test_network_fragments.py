"""Replies larger than a packet: with fragments that arrive, and where every fragment is lost."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator

import dns.message
import dns.rrset
import pytest

from tests.faults.asking import ask
from tests.faults.island import Island
from tests.faults.relay import Datagram
from tests.faults.zones import ADDRESS, Zones

pytestmark = [
    pytest.mark.faults,
    pytest.mark.xdist_group("faults-fragments"),
    pytest.mark.usefixtures("learned_names_are_answered"),
]

ROADS = {"wide": ("udp", "udp"), "big": ("udp",)}
# 30 texts of 100 octets: three packets of 1280.
TEXTS = [f"{number:03}" + "x" * 97 for number in range(30)]


@pytest.fixture(scope="module")
def zones(island: Island, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Zones]:
    forward = {"policy": "sequential", "timeout": {"attempt": "500ms", "total": "1500ms"}}
    records = [f'big.example 60 IN TXT "{text}"' for text in TEXTS]
    with Zones(tmp_path_factory.mktemp("w"), ROADS, forward, records) as made:
        yield made


def widen(datagram: Datagram) -> Iterable[bytes]:
    """Answer with 3 kB, whatever size was asked for."""
    if datagram.up:
        return [datagram.data]
    message = dns.message.from_wire(datagram.data)
    owner = message.question[0].name.to_text()
    message.additional.append(dns.rrset.from_text(owner, 60, "IN", "TXT", *TEXTS))
    return [message.to_wire()]


@pytest.fixture
def lost(island: Island) -> Iterator[None]:
    """Every fragment is lost: the kernel has no memory to put one together."""
    island.set("net.ipv4.ipfrag_low_thresh", 0)
    island.set("net.ipv4.ipfrag_high_thresh", 0)
    yield
    island.set("net.ipv4.ipfrag_high_thresh", 4 * 1024 * 1024)
    island.set("net.ipv4.ipfrag_low_thresh", 3 * 1024 * 1024)


def test_a_reply_in_fragments_is_asked_for_over_tcp(
    zones: Zones, island: Island, note: Callable[[str], None]
) -> None:
    zones.relays["wide"][0].tap = widen
    before = island.counter("Ip", "ReasmOKs")
    assert zones.ask("a.wide").data == (ADDRESS,)
    whole = island.counter("Ip", "ReasmOKs") - before
    assert whole >= 1
    # The kernel has put it together, and it is larger than the 1232 octets that were asked for.
    assert zones.relays["wide"][0].counts["tcp.accepted"] == 1
    assert zones.upstream("wide")["failures"] == {}
    note(f"{whole} put together, then one question over TCP")


@pytest.mark.usefixtures("lost")
def test_where_fragments_are_lost_the_next_upstream_is_asked(
    zones: Zones, island: Island, note: Callable[[str], None]
) -> None:
    first, _ = zones.relays["wide"]
    first.tap = widen
    before = island.counter("Ip", "ReasmFails")
    assert zones.ask("b.wide").data == (ADDRESS,), "the second upstream's"
    lost = island.counter("Ip", "ReasmFails") - before
    assert lost >= 1
    assert zones.upstream("wide")["failures"] == {"timeout": 1}
    first.tap = None
    note(f"{lost} fragments lost, one attempt timed out, answered by the next")


@pytest.mark.usefixtures("lost")
def test_where_fragments_are_lost_large_answers_come_over_tcp(
    zones: Zones, island: Island, note: Callable[[str], None]
) -> None:
    # The proxy asks for no more than 1232 octets, so an upstream that keeps to that sends no fragment.
    before = island.counter("Ip", "ReasmFails")
    got = ask(zones.world.dns_port, "texts.big.example", "TXT", tcp=True)
    assert got.data == tuple(sorted(f'"{text}"' for text in TEXTS))
    assert zones.relays["big"][0].counts["tcp.accepted"] == 1
    assert island.counter("Ip", "ReasmFails") == before
    note("3 kB over TCP, no fragment was sent")
