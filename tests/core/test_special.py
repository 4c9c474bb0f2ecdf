from __future__ import annotations

import dns.message
import dns.rdatatype
import pytest

from dnsproxy.core import names, wire
from dnsproxy.core.ddr import designations
from dnsproxy.core.features import Features
from dnsproxy.core.policy import Owned
from dnsproxy.core.question import may_be_special
from dnsproxy.core.special import SpecialZones
from dnsproxy.core.upstreams import Upstream
from tests.messages import answer, engine, forward, query, read

# Straight from RFC 6761, 6303, 7686, 7793, 8375 and 6762.
ZONES = [
    *("localhost.", "invalid.", "onion.", "local.", "home.arpa."),
    *("10.in-addr.arpa.", "16.172.in-addr.arpa.", "31.172.in-addr.arpa.", "168.192.in-addr.arpa."),
    *("0.in-addr.arpa.", "127.in-addr.arpa.", "254.169.in-addr.arpa.", "2.0.192.in-addr.arpa."),
    *("100.51.198.in-addr.arpa.", "113.0.203.in-addr.arpa.", "255.255.255.255.in-addr.arpa."),
    *("64.100.in-addr.arpa.", "127.100.in-addr.arpa."),
    *("d.f.ip6.arpa.", "8.e.f.ip6.arpa.", "b.e.f.ip6.arpa.", "8.b.d.0.1.0.0.2.ip6.arpa."),
    *("0." * 32 + "ip6.arpa.", "1." + "0." * 31 + "ip6.arpa."),
]
OTHERS = [
    *("example.", "test.", "www.local.example.", "notlocal.", "arpa.", "in-addr.arpa.", "8.8.in-addr.arpa."),
    *("15.172.in-addr.arpa.", "32.172.in-addr.arpa.", "63.100.in-addr.arpa.", "128.100.in-addr.arpa."),
    *("7.e.f.ip6.arpa.", "c.e.f.ip6.arpa.", "c.f.ip6.arpa.", "1.0.0.2.ip6.arpa.", "."),
    *("cluster.local.", "x.svc.cluster.local."),
]


@pytest.mark.parametrize("zone", ZONES)
def test_p24_special_zones_are_answered_here(zone: str) -> None:
    made = engine()
    for name in (zone, f"x.{zone}", f"a.b.{zone}".upper()):
        response = read(answer(made, query(name, "TXT")))
        expected = 0 if zone in {name, "localhost."} else 3
        assert (name, response.rcode()) == (name, expected)
        (soa,) = response.authority
        assert (soa.rdtype, soa.name.to_text(), soa.ttl) == (dns.rdatatype.SOA, zone, 10800)
        assert response.flags & wire.AA
    assert made.in_flight == 0


@pytest.mark.parametrize("name", OTHERS)
def test_p24_names_beside_them_are_forwarded(name: str) -> None:
    assert forward(engine(), query(name, "TXT")).is_new


@pytest.mark.parametrize("name", ["localhost.", "a.localhost.", "LocalHost."])
def test_p24_localhost_is_the_loopback_address(name: str) -> None:
    made = engine()
    for _ in range(2):
        (four,) = read(answer(made, query(name))).answer
        (six,) = read(answer(made, query(name, "AAAA"))).answer
        assert (str(four[0]), str(six[0]), four.name.to_text()) == ("127.0.0.1", "::1", name)
    assert made.stats_now().responses == {("NOERROR", "local"): 4}


@pytest.mark.parametrize("name", ["1.0.0.127.in-addr.arpa.", "1." + "0." * 31 + "ip6.arpa."])
def test_p24_the_loopback_addresses_have_a_name(name: str) -> None:
    made = engine()
    (found,) = read(answer(made, query(name, "PTR"))).answer
    assert str(found[0]) == "localhost."
    assert read(answer(made, query(name, "A"))).rcode() == 0


def test_p24_what_lies_above_a_name_exists() -> None:
    made = engine()
    assert read(answer(made, query("0.0.127.in-addr.arpa.", "PTR"))).rcode() == 0
    assert read(answer(made, query("1.0.127.in-addr.arpa.", "PTR"))).rcode() == 3


def test_p24_the_soa_of_a_zone_can_be_asked_for() -> None:
    response = read(answer(engine(), query("10.in-addr.arpa.", "SOA")))
    assert (response.answer[0].rdtype, response.authority) == (dns.rdatatype.SOA, [])


@pytest.mark.parametrize("zone", ["10.in-addr.arpa.", "in-addr.arpa.", "5.10.in-addr.arpa."])
def test_p24_a_configured_zone_overrides_it(zone: str) -> None:
    made = engine(zones={names.to_key(zone): (Upstream("corp", ("192.0.2.9", 53)),)})
    asked = forward(made, query("1.5.10.in-addr.arpa.", "PTR"))
    assert asked.exchange.upstream.name == "corp"
    if zone != "in-addr.arpa.":
        assert read(answer(made, query("1.168.192.in-addr.arpa.", "PTR"))).rcode() == 3
    if zone.startswith("5."):
        assert read(answer(made, query("1.6.10.in-addr.arpa.", "PTR"))).rcode() == 3


def test_p24_an_owned_name_overrides_it_too() -> None:
    made = engine([Owned("registry.local.", addresses=("10.0.0.1",))])
    assert len(read(answer(made, query("registry.local."))).answer) == 1
    assert read(answer(made, query("other.local."))).rcode() == 3


def test_p24_without_recursion_asked_for_as_well() -> None:
    assert read(answer(engine(), query("a.invalid.", flags=0))).rcode() == 3


# -- 36: DS of zones that are answered here or by upstreams of their own


@pytest.mark.parametrize("zone", [*ZONES, "resolver.arpa."])
def test_p36_the_ds_of_a_local_zone_is_asked_of_the_parents_upstreams(zone: str) -> None:
    made = engine()
    assert forward(made, query(zone.upper(), "DS", want_dnssec=True)).exchange.zone == b"\0"
    assert read(answer(made, query(f"a.{zone}", "DS"))).rcode() == (
        0 if zone in {"localhost.", "resolver.arpa."} else 3
    )


def test_p36_the_ds_of_a_configured_zone_is_asked_of_the_parents_upstreams() -> None:
    corp, sub = (Upstream(label, ("192.0.2.9", port)) for port, label in enumerate(("corp", "sub"), 53))
    zones: dict[bytes, tuple[Upstream, ...]] = {
        names.to_key("corp.example."): (corp,),
        names.to_key("a.corp.example."): (sub,),
    }
    made = engine(zones=zones)

    def asked(name: str, qtype: str) -> str:
        return forward(made, query(name, qtype)).exchange.upstream.name

    assert asked("corp.example.", "DS") == "one"
    assert asked("a.corp.example.", "DS") == "corp"
    assert asked("b.a.corp.example.", "DS") == "sub"
    assert asked(".", "DS") == "one"
    assert (asked("corp.example.", "DNSKEY"), asked("a.corp.example.", "SOA")) == ("corp", "sub")


def test_p36_a_zone_below_a_local_one_exists() -> None:
    home = names.to_key("lan.home.arpa.")
    made = engine(zones={home: (Upstream("lan", ("192.0.2.9", 53)),)})
    for name, rcode in (("lan.home.arpa.", 0), ("cluster.local.", 0), ("other.home.arpa.", 3)):
        response = read(answer(made, query(name, "DS")))
        assert (name, response.rcode(), len(response.authority)) == (name, rcode, 1)


# -- 37: resolver.arpa


@pytest.mark.parametrize("zone", [None, "arpa.", "resolver.arpa."])
def test_p37_resolver_arpa_is_never_forwarded(zone: str | None) -> None:
    corp = (Upstream("corp", ("192.0.2.9", 53)),)
    made = engine(zones={names.to_key(zone): corp} if zone else None)
    for name in ("resolver.arpa.", "_dns.resolver.arpa.", "a.b.resolver.arpa.", "_DNS.Resolver.ARPA."):
        for qtype in ("A", "SVCB", "HTTPS", "TXT"):
            response = read(answer(made, query(name, qtype)))
            assert (response.rcode(), response.answer, len(response.authority)) == (0, [], 1)
    assert made.in_flight == 0


def test_p37_svcb_designates_our_own_listeners() -> None:
    given = designations("dns.example", [("10.0.0.1", 853)], "/dns-query")
    made = engine(features=Features(designated=given))
    for _ in range(2):
        (records,) = read(answer(made, query("_dns.resolver.arpa.", "SVCB"))).answer
        assert [record.target.to_text() for record in records] == ["dns.example."] * 2
    assert read(answer(made, query("_dns.resolver.arpa.", "A"))).answer == []
    assert read(answer(made, query("resolver.arpa.", "SVCB"))).answer == []


def test_the_quick_look_misses_none() -> None:
    special = SpecialZones()
    for zone in ZONES:
        for key in (names.to_key(zone), names.to_key(f"a.{zone}")):
            assert may_be_special(key)
            assert special.find(key) == names.to_key(zone)
    assert not may_be_special(b"\0")
    assert not may_be_special(names.to_key("www.example.com"))
    assert special.find(b"\0") is None
