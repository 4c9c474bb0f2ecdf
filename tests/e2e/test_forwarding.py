"""Every other name: upstreams that die or truncate, and what the cache keeps."""

from __future__ import annotations

import signal

import pytest

from tests.e2e.digging import Reply
from tests.e2e.processes import wait_for
from tests.e2e.world import ADDRESSES, OTHER, OTHER_ADDRESS, REGISTRY, World

pytestmark = pytest.mark.e2e

SECOND_ADDRESS = "192.0.2.2"
# 8 texts of 100 octets: more than fits a UDP response of 512, less than one of 1232.
BIG = "big.example"
TEXTS = [f"{number}" * 100 for number in range(8)]


def ask(world: World) -> Reply:
    return world.server.dig(OTHER)


@pytest.fixture
def two_upstreams(world: World) -> World:
    """Unbound first, dnsmasq second, each with an address of its own for the name; nothing is cached."""
    second = world.add_dnsmasq("second", {OTHER: SECOND_ADDRESS})
    world.configure(
        forward={"upstreams": [world.upstream.endpoint, second.endpoint], "policy": "sequential"},
        cache={"size": 0},
        learn={"sources": []},
    )
    world.upstream.start()
    second.start()
    world.start_proxy()
    return world


def test_killed_upstream_is_replaced_by_the_next(two_upstreams: World) -> None:
    world = two_upstreams
    assert ask(world).data == [OTHER_ADDRESS]
    world.upstream.process.kill()
    for _ in range(5):
        assert ask(world).data == [SECOND_ADDRESS]
    world.upstream.start()
    wait_for(lambda: ask(world).data == [OTHER_ADDRESS], "the first upstream is used again")


def test_hung_upstream_is_replaced_by_the_next(two_upstreams: World) -> None:
    world = two_upstreams
    world.upstream.process.signal(signal.SIGSTOP)
    # Each of the first queries waits one attempt (0.3 s) for it, and still gets its answer.
    for _ in range(5):
        assert ask(world).data == [SECOND_ADDRESS]
    world.upstream.process.signal(signal.SIGCONT)
    wait_for(lambda: ask(world).data == [OTHER_ADDRESS], "the first upstream is used again")


def test_no_upstream_at_all_gives_servfail_with_the_reason(world: World) -> None:
    world.configure(learn={"sources": []})
    world.start_proxy()
    reply = ask(world)
    assert reply.rcode == "SERVFAIL"
    assert set(reply.extended_errors) & {22, 23}
    world.upstream.start()
    wait_for(lambda: ask(world).data == [OTHER_ADDRESS], "the failure is forgotten")


@pytest.fixture
def truncating(world: World) -> World:
    """An upstream whose UDP responses never exceed 512 octets."""
    big = world.add_unbound(
        "truncating",
        ["example"],
        [f'{BIG} 60 IN TXT "{text}"' for text in TEXTS],
        ["max-udp-size: 512"],
    )
    world.configure(forward={"upstreams": [big.endpoint]}, learn={"sources": []})
    big.start()
    world.start_proxy()
    return world


def test_truncated_response_is_asked_for_again_over_tcp(truncating: World) -> None:
    expected = sorted(f'"{text}"' for text in TEXTS)
    # The upstream itself would have set TC here; +ignore keeps dig from asking again.
    reply = truncating.server.dig(BIG, "TXT", "+bufsize=1232", "+ignore")
    assert reply.data == expected
    assert "tc" not in reply.flags
    assert truncating.server.dig(BIG, "TXT", "+tcp").data == expected


def test_client_with_a_small_buffer_is_told_to_come_over_tcp(truncating: World) -> None:
    small = truncating.server.dig(BIG, "TXT", "+noedns", "+ignore")
    assert "tc" in small.flags
    # Header, question of 17 octets and nothing that does not fit.
    assert small.answer == ()
    whole = truncating.server.dig(BIG, "TXT", "+noedns")
    assert whole.data == sorted(f'"{text}"' for text in TEXTS)
    assert "(TCP)" in whole.text


@pytest.fixture
def forwarding(world: World) -> World:
    """A proxy that learns nothing, in front of one upstream."""
    world.configure(learn={"sources": []})
    world.upstream.start()
    world.start_proxy()
    return world


def test_ttl_of_a_cached_answer_counts_down(forwarding: World) -> None:
    # The upstream gives 60 each time it is asked, so less than that comes from the cache.
    (first,) = ask(forwarding).answer
    assert 59 <= first.ttl <= 60
    wait_for(lambda: ask(forwarding).answer[0].ttl < first.ttl, "the TTL has counted down")
    assert forwarding.metric('dnsproxy_responses_total{rcode="NOERROR",source="cache"}') >= 1


def test_cached_answer_outlives_the_upstream_until_it_is_flushed(forwarding: World) -> None:
    assert ask(forwarding).data == [OTHER_ADDRESS]
    forwarding.upstream.replace(OTHER, f"A {SECOND_ADDRESS}")
    assert ask(forwarding).data == [OTHER_ADDRESS]
    flushed = forwarding.command("flush", OTHER)
    assert (flushed.returncode, flushed.stdout.split()[0]) == (0, "1")
    assert ask(forwarding).data == [SECOND_ADDRESS]


@pytest.mark.parametrize(
    ("name", "qtype", "rcode"), [("new.example", "A", "NXDOMAIN"), (OTHER, "MX", "NOERROR")]
)
def test_negative_answer_is_cached(forwarding: World, name: str, qtype: str, rcode: str) -> None:
    missing = forwarding.server.dig(name, qtype)
    assert (missing.rcode, missing.answer) == (rcode, ())
    assert [record.type for record in missing.authority] == ["SOA"]
    forwarding.upstream.replace(name, "A 192.0.2.3", "MX 10 mail.example.")

    def counted_down() -> Reply | None:
        reply = forwarding.server.dig(name, qtype)
        return reply if reply.authority[0].ttl < 60 else None

    again = wait_for(counted_down, "the SOA's TTL has counted down")
    assert (again.rcode, again.answer) == (rcode, ())
    assert forwarding.command("flush").returncode == 0
    assert len(forwarding.server.dig(name, qtype).answer) == 1


def test_zone_with_its_own_upstream(world: World) -> None:
    corp = world.add_dnsmasq("corp", {"host.corp.example": "192.0.2.77"})
    world.configure(
        forward={"zones": {"corp.example": [corp.endpoint]}},
        learn={"sources": []},
    )
    world.upstream.start()
    corp.start()
    world.start_proxy()
    assert world.server.short("host.corp.example") == ["192.0.2.77"]
    assert ask(world).data == [OTHER_ADDRESS]


def test_owned_names_do_not_need_upstreams(world: World) -> None:
    world.source.start()
    world.start_helper()
    world.start_proxy()
    world.wait_ready()
    assert ask(world).rcode == "SERVFAIL"
    assert world.server.short(REGISTRY) == [ADDRESSES[REGISTRY]]
