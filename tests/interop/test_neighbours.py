"""unbound, dnsmasq, BIND, dnsdist and the PowerDNS Recursor, each behind the proxy and in front of it."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from typing import NamedTuple

import pytest

from tests.e2e.digging import Server
from tests.interop.authority import BIG, BOGUS, MANY, PLAIN, SIGNED
from tests.interop.servers import KINDS, Neighbour
from tests.interop.world import DUAL, OWNED, REGISTRY, World

pytestmark = pytest.mark.interop


class Chain(NamedTuple):
    """Who is asked, and the neighbour on the way from there to the authority."""

    asked: Server
    neighbour: Neighbour


@pytest.fixture(params=KINDS)
def behind(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Chain]:
    """client → proxy → neighbour → authority"""
    with World(tmp_path_factory.mktemp("i")) as world:
        world.authority.start()
        neighbour = world.add_neighbour(KINDS[request.param], world.authority.port)
        neighbour.start()
        world.forward_to(neighbour.endpoint)
        world.start_proxy()
        yield Chain(world.server, neighbour)


@pytest.fixture(params=KINDS)
def before(request: pytest.FixtureRequest, world: World) -> Iterator[Chain]:
    """client → neighbour → proxy → authority"""
    neighbour = world.add_neighbour(KINDS[request.param], world.dns_port)
    try:
        neighbour.start()
        yield Chain(neighbour.server, neighbour)
    finally:
        neighbour.process.kill()


# One test for each direction: making a chain takes longer than all that is asked of it.


def test_neighbour_behind_the_proxy(behind: Chain) -> None:
    check_all(behind)
    check_owned_names_are_not_asked_for(behind)


def test_neighbour_in_front_of_the_proxy(before: Chain) -> None:
    check_all(before)
    check_owned_names_come_through(before)


def check_all(chain: Chain) -> None:
    check_forwarded_names(chain)
    check_denials(chain)
    check_answers_that_udp_cannot_hold(chain)
    check_dnssec_records(chain)
    check_validation(chain)


def check_forwarded_names(chain: Chain) -> None:
    for name, address in ((f"www.{PLAIN}", "192.0.2.1"), (f"x.wild.{PLAIN}", "192.0.2.7")):
        assert chain.asked.dig(name).data == [address]
    chained = chain.asked.dig(f"chain.{PLAIN}")
    assert [record.type for record in chained.answer] == ["CNAME", "CNAME", "A"]
    assert chain.asked.dig(f"www.{PLAIN}", "AAAA").data == ["2001:db8::1"]


def check_denials(chain: Chain) -> None:
    missing = chain.asked.dig(f"none.{PLAIN}")
    assert (missing.rcode, missing.answer) == ("NXDOMAIN", ())
    assert [record.type for record in missing.authority] == ["SOA"]
    empty = chain.asked.dig(f"v4.{PLAIN}", "AAAA")
    assert (empty.rcode, empty.answer) == ("NOERROR", ())
    assert [record.type for record in empty.authority] == ["SOA"]


def check_answers_that_udp_cannot_hold(chain: Chain) -> None:
    texts = sorted(f'"{text}"' for text in BIG)
    told = chain.asked.dig(f"big.{PLAIN}", "TXT", "+ignore")
    assert "tc" in told.flags
    whole = chain.asked.dig(f"big.{PLAIN}", "TXT")
    assert whole.data == texts
    assert "(TCP)" in whole.text
    assert chain.asked.dig(f"many.{PLAIN}", "+noedns").data == sorted(MANY)


def check_dnssec_records(chain: Chain) -> None:
    signed = chain.asked.dig(f"www.{SIGNED}", "+dnssec")
    assert sorted(record.type for record in signed.answer) == ["A", "RRSIG"]
    denied = chain.asked.dig(f"none.{SIGNED}", "+dnssec")
    assert denied.rcode == "NXDOMAIN"
    assert {"SOA", "NSEC", "RRSIG"} <= {record.type for record in denied.authority}
    assert [record.type for record in chain.asked.dig(f"www.{SIGNED}").answer] == ["A"]


def check_validation(chain: Chain) -> None:
    good = chain.asked.dig(f"www.{SIGNED}", "+dnssec")
    bad = chain.asked.dig(f"www.{BOGUS}", "+dnssec")
    unchecked = chain.asked.dig(f"www.{BOGUS}", "+dnssec", "+cd")
    if chain.neighbour.kind.validates:
        assert "ad" in good.flags
        # Only to who asks for it, by AD or DO (RFC 6840 §5.7).
        assert "ad" in chain.asked.dig(f"www.{SIGNED}", "+adflag").flags
        assert "ad" not in chain.asked.dig(f"www.{SIGNED}", "+noadflag").flags
        assert (bad.rcode, bad.answer) == ("SERVFAIL", ())
    else:
        assert "ad" not in good.flags
        assert bad.rcode == "NOERROR"
    assert "192.0.2.66" in unchecked.data


def check_owned_names_come_through(chain: Chain) -> None:
    for name, addresses in OWNED.items():
        assert chain.asked.dig(name).data == addresses
    assert chain.asked.dig(DUAL, "AAAA").data == ["fd00:94::200"]
    for qtype in ("AAAA", "HTTPS", "MX"):
        empty = chain.asked.dig(REGISTRY, qtype)
        assert (empty.rcode, empty.answer) == ("NOERROR", ())
    assert chain.asked.dig(f"into.{PLAIN}").data == sorted([f"{REGISTRY}.", *OWNED[REGISTRY]])


def check_owned_names_are_not_asked_for(chain: Chain) -> None:
    chain.neighbour.process.signal(signal.SIGSTOP)
    for name, addresses in OWNED.items():
        assert chain.asked.dig(name).data == addresses
    chain.neighbour.process.signal(signal.SIGCONT)
