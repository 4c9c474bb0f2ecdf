"""What a bad network does to datagrams on the way to upstreams, and what clients get then."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator

import dns.flags
import dns.message
import dns.name
import pytest

from tests.e2e.processes import wait_for
from tests.faults.asking import Steady, ask_all
from tests.faults.relay import Datagram, Fault, Relay, Streams
from tests.faults.zones import ADDRESS, Zones

pytestmark = [
    pytest.mark.faults,
    pytest.mark.xdist_group("faults-datagrams"),
    pytest.mark.usefixtures("learned_names_are_answered"),
]

ROADS = {
    "lossy": ("udp", "udp"),
    "slow": ("udp",),
    "twice": ("udp",),
    "damaged": ("udp",),
    "other": ("udp", "udp"),
    "empty": ("udp", "udp"),
    "short": ("udp", "udp"),
    "stuck": ("udp",),
    "closed": ("closed", "udp"),
}
QUIET = Fault()


@pytest.fixture(scope="module")
def zones(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Zones]:
    forward = {"policy": "sequential", "timeout": {"attempt": "300ms", "total": "1200ms"}}
    with Zones(tmp_path_factory.mktemp("w"), ROADS, forward) as made:
        yield made


def counted(relays: Iterable[Relay]) -> dict[str, int]:
    total: dict[str, int] = {}
    for relay in relays:
        for key, count in relay.counts.items():
            total[key] = total.get(key, 0) + count
    return dict(sorted(total.items()))


def names(label: str, count: int, prefix: str = "n") -> list[str]:
    return [f"{prefix}{number}.{label}.example" for number in range(count)]


def test_thirty_percent_loss_each_way_costs_time_and_no_answer(
    zones: Zones, note: Callable[[str], None], full: bool
) -> None:
    relays = zones.relays["lossy"]
    for relay in relays:
        relay.up = relay.down = Fault(loss=0.3)
    asked = ask_all(zones.world.dns_port, names("lossy", 2000 if full else 60), tries=15)
    lost = counted(relays)
    assert {got.data for got in asked.got.values()} == {(ADDRESS,)}
    assert set(asked.rcodes) <= {"NOERROR", "SERVFAIL"}
    assert lost["up.lost"] > 0
    assert lost["down.lost"] > 0
    for relay in relays:
        relay.up = relay.down = QUIET
    wait_for(lambda: zones.is_up("lossy") and zones.is_up("lossy", 1), "both upstreams count as up again")
    note(f"{asked.sent} client queries for {len(asked.got)} names, {dict(asked.rcodes)}; relay {lost}")


def test_replies_after_the_total_time_are_servfail_and_come_to_nothing(
    zones: Zones, note: Callable[[str], None]
) -> None:
    (relay,) = zones.relays["slow"]
    before = zones.wait_good("early.slow")
    assert before.data == (ADDRESS,)
    passed = relay.counts["down.passed"]
    relay.down = Fault(delay=2.0)
    got = zones.ask("late.slow")
    assert (got.rcode, bool(got.reasons & {22, 23})) == ("SERVFAIL", True)
    # What was sent comes back when nobody waits any more, and is never cached.
    wait_for(lambda: relay.counts["down.passed"] >= passed + 3, "the late replies are on their way")
    assert zones.ask("early.slow").data == (ADDRESS,)
    relay.down = QUIET
    assert zones.wait_good("late.slow").data == (ADDRESS,)
    wait_for(lambda: zones.is_up("slow"), "the upstream counts as up again")
    note(f"relay {counted([relay])}, late replies {zones.ignored('slow', 'unknown_id'):g}")


def test_doubled_and_reordered_datagrams_change_nothing(
    zones: Zones, note: Callable[[str], None], full: bool
) -> None:
    (relay,) = zones.relays["twice"]
    relay.up = relay.down = Fault(duplicate=0.5, reorder=0.5)
    asked = ask_all(zones.world.dns_port, names("twice", 2000 if full else 100))
    assert (asked.rcodes, asked.sent) == ({"NOERROR": len(asked.got)}, len(asked.got))
    assert {got.data for got in asked.got.values()} == {(ADDRESS,)}
    relay.up = relay.down = QUIET
    stray = zones.ignored("twice", "unknown_id")
    assert 0 < stray <= relay.counts["up.duplicated"] * 2 + relay.counts["down.duplicated"]
    assert zones.upstream("twice")["failures"] == {}
    note(f"{asked.sent} questions, relay {counted([relay])}, strays {stray:g}")


def test_damaged_replies_are_passed_over_or_asked_for_again(
    zones: Zones, note: Callable[[str], None], full: bool
) -> None:
    # UDP's checksum would drop these. Records are passed on as they came, so a turned bit in an address or a
    # name is for the client to find; what is asserted is that each gets some response, and nothing stays.
    (relay,) = zones.relays["damaged"]
    relay.down = Fault(corrupt=0.5)
    asked = ask_all(zones.world.dns_port, names("damaged", 2000 if full else 100), tries=3)
    assert len(asked.got) == (2000 if full else 100)
    passed_over = zones.ignored("damaged", "not_ours")
    assert relay.counts["down.corrupted"] >= passed_over > 0
    relay.down = QUIET
    assert zones.world.command("flush").returncode == 0
    again = ask_all(zones.world.dns_port, names("damaged", 100), tries=15)
    assert {got.data for got in again.got.values()} == {(ADDRESS,)}
    note(f"{dict(asked.rcodes)}, relay {counted([relay])}, passed over {passed_over:g}")


def test_an_upstream_that_answers_another_question_is_not_believed(
    zones: Zones, note: Callable[[str], None]
) -> None:
    bad, _ = zones.relays["other"]
    evil = dns.name.from_text("evil.other.example.")

    def tap(datagram: Datagram) -> Iterable[bytes]:
        if datagram.up:
            return [datagram.data]
        message = dns.message.from_wire(datagram.data)
        message.question[0].name = evil
        for rrset in message.answer:
            rrset.name = evil
        return [message.to_wire()]

    bad.tap = tap
    assert zones.ask("true.other").data == (ADDRESS,), "the second upstream's"
    assert zones.ignored("other", "not_ours") >= 1
    bad.tap = None
    explained = zones.world.command("explain", "evil.other.example", "A").stdout
    assert "cache" in explained
    assert "192.0.2.1" not in explained, "what nobody had asked for is not cached"
    note(f"passed over {zones.ignored('other', 'not_ours'):g}, relay {counted([bad])}")


def test_empty_and_cut_replies_are_no_replies(zones: Zones, note: Callable[[str], None]) -> None:
    bad, _ = zones.relays["empty"]
    cuts = [0, 1, 11, 12, 20, -1]
    bad.tap = lambda datagram: [datagram.data] if datagram.up else [datagram.data[:cut] for cut in cuts]
    assert zones.ask("a.empty").data == (ADDRESS,), "the second upstream's"
    # Those of less than two octets have no id at all.
    assert zones.ignored("empty", "not_ours") >= len(cuts) - 2
    assert zones.ignored("empty", "unknown_id") >= 2
    bad.tap = None
    note(f"relay {counted([bad])}")


def test_truncated_replies_are_asked_for_over_tcp_and_half_open_tcp_gives_way(
    zones: Zones, note: Callable[[str], None]
) -> None:
    def truncate(datagram: Datagram) -> Iterable[bytes]:
        if datagram.up:
            return [datagram.data]
        message = dns.message.from_wire(datagram.data)
        message.flags |= dns.flags.TC
        message.answer.clear()
        return [message.to_wire()]

    first, _ = zones.relays["short"]
    first.tap = truncate
    assert zones.ask("a.short").data == (ADDRESS,)
    assert first.counts["tcp.accepted"] == 1
    first.streams = Streams.HOLD
    # Its connection that is kept open still works; no new one does.
    zones.world.wait_ready()
    got = [zones.ask(f"b{number}.short") for number in range(3)]
    assert {each.data for each in got} == {(ADDRESS,)}
    note(f"relay {counted([first])}")


def test_a_closed_port_gives_way_at_once(zones: Zones, note: Callable[[str], None]) -> None:
    asked = ask_all(zones.world.dns_port, names("closed", 50))
    assert asked.rcodes == {"NOERROR": 50}
    # Not all of them: a kernel sends some 50 ICMP errors at once and then fewer (icmp_msgs_per_sec of ip(7)).
    assert zones.upstream("closed")["failures"]["network"] > 0
    assert not zones.is_up("closed")
    note(f"50 questions, no SERVFAIL, failures {zones.upstream('closed')['failures']}")


def test_a_forward_path_that_is_stuck_holds_nothing_else_up(
    zones: Zones, note: Callable[[str], None]
) -> None:
    (relay,) = zones.relays["stuck"]
    relay.up = Fault(loss=1.0)
    with Steady(zones.world) as steady:
        asked = ask_all(zones.world.dns_port, names("stuck", 1200), within=60)
    assert set(asked.rcodes) == {"SERVFAIL"}
    drops = zones.world.metric('dnsproxy_drops_total{reason="overloaded"}')
    # Each of them got its answer, or was dropped for a newer one and counted.
    assert asked.rcodes["SERVFAIL"] + drops >= 1200
    relay.up = QUIET
    assert zones.wait_good("after.stuck").data == (ADDRESS,)
    note(f"{dict(asked.rcodes)}, overloaded {drops:g}, learned answers meanwhile {steady.answers.total()}")
