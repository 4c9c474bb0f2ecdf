from __future__ import annotations

from typing import Any

import dns.message
import dns.rrset
import pytest

from dnsproxy.core import chains, names, wire
from dnsproxy.core.attempt import Failure, Limits, Verdict
from dnsproxy.core.cache import Cache, CachePolicy
from dnsproxy.core.chains import Chains
from dnsproxy.core.engine import Engine
from dnsproxy.core.exchange import Exchange
from dnsproxy.core.policy import Owned, Ruleset
from dnsproxy.core.question import cache_key
from dnsproxy.core.response import MAX_CNAMES, Response
from dnsproxy.core.upstreams import Upstream
from dnsproxy.core.wire import scan_query
from tests.messages import addresses, answer, engine, forward, query, read, reply_to, resolve

RULES = Ruleset([Owned("owned.example.", addresses=("10.0.0.1",))])
CHAIN = "alias.example. 300 IN CNAME owned.example."


def answered(*records: str, key: bytes = b"key") -> tuple[Exchange, Response]:
    asked = scan_query(query("alias.example."))
    exchange = Exchange(key, asked, (Upstream("one", ("192.0.2.1", 53)),), Limits(1, 2), 0.0)
    attempt = exchange.next_attempt(0.0)
    assert attempt is not None
    exchange.receive_reply(reply_to(b"\0\0" + attempt.payload, records, edns=False), 0.0)
    assert exchange.response is not None
    return exchange, exchange.response


def test_p06_the_owned_end_of_a_chain_is_put_in_and_goes_when_it_changes() -> None:
    cache = Cache(10)
    made = Chains(cache)
    exchange, response = answered(CHAIN, "owned.example. 300 IN A 203.0.113.9")
    taken = made.rewritten(exchange, response, RULES, 0.0)
    assert isinstance(taken, Response)
    assert addresses(
        query("alias.example.")[:2] + b"\x81\x80\0\1\0\2\0\0\0\0" + exchange.question + taken.sections
    )
    cache.keep(b"key", taken, 0.0)
    assert len(cache) == 1
    made.forget()
    assert len(cache) == 0


def test_p06_a_chain_elsewhere_is_left_as_it_is() -> None:
    exchange, response = answered("alias.example. 300 IN CNAME www.example.", "www.example. 9 IN A 192.0.2.1")
    assert Chains(Cache(10)).rewritten(exchange, response, RULES, 0.0) is response


def test_p06_beyond_the_bound_the_oldest_answer_is_evicted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(chains, "MAX_DERIVED", 2)
    cache = Cache(10)
    made = Chains(cache)
    for key in (b"one", b"two", b"one", b"three"):
        exchange, response = answered(CHAIN, key=key)
        taken = made.rewritten(exchange, response, RULES, 0.0)
        assert isinstance(taken, Response)
        assert taken.ttl == 30
        cache.keep(key, taken, 0.0)
    assert sorted(cache.keys()) == [b"one", b"three"]


@pytest.mark.parametrize("qtype", ["CNAME", "ANY"])
def test_p06_a_client_that_asks_for_the_alias_gets_it(qtype: str) -> None:
    made = engine([Owned("owned.example.", addresses=("10.0.0.1",))])
    response = read(resolve(made, query("alias.example.", qtype), [CHAIN]))
    assert [rrset.to_text() for rrset in response.answer] == [CHAIN]


# -- 39: aliases that lead out of the zone that was asked

CORP = names.to_key("corp.example.")
LAB = names.to_key("lab.example.")
INTO = "alias.example. 300 IN CNAME host.corp.example."
HOST = "host.corp.example. 60 IN A 10.1.2.3"
PUBLIC = "host.corp.example. 60 IN A 203.0.113.9"
SOA = "corp.example. 900 IN SOA ns.corp.example. h.corp.example. 1 2 3 4 20"


def split(*owned: Owned, **options: Any) -> Engine:
    upstreams = {CORP: "corp", LAB: "lab"}
    zones: dict[bytes, tuple[Upstream, ...]] = {
        zone: (Upstream(label, ("192.0.2.9", 53)),) for zone, label in upstreams.items()
    }
    return engine(owned, zones=zones, **options)


def feed(made: Engine, exchange: Exchange, *records: str, now: float = 1.0, **options: Any) -> list[bytes]:
    """Let the upstream that is asked respond; return the responses to clients."""
    attempt = exchange.next_attempt(now)
    assert attempt is not None
    reply = reply_to(b"\x12\x34" + attempt.payload, records, **options)
    verdict = exchange.receive_reply(reply, now)
    if verdict is Verdict.NEXT:
        assert exchange.next_attempt(now) is None
    return made.complete(exchange, now)


def begun(made: Engine) -> Exchange:
    """The exchange that asks on."""
    (exchange,) = made.exchanges.begun
    made.exchanges.begun.clear()
    return exchange


def asks(exchange: Exchange) -> tuple[str, str]:
    """The upstream and the name that are asked."""
    return exchange.upstream.name, names.to_text(exchange.question[:-4])


@pytest.mark.parametrize("rcode", [0, 2, 3], ids=["NOERROR", "SERVFAIL", "NXDOMAIN"])
def test_p39_an_alias_into_another_zone_is_asked_of_its_upstreams(rcode: int) -> None:
    made = split()
    exchange = forward(made, query("Alias.example.")).exchange
    forward(made, query("aliaS.example."))
    public = [INTO, PUBLIC] if rcode == 0 else [INTO]
    assert feed(made, exchange, *public, rcode=rcode) == []
    exchange = begun(made)
    assert asks(exchange) == ("corp", "host.corp.example.")
    responses = feed(made, exchange, HOST)
    assert [addresses(response) for response in responses] == [["10.1.2.3"]] * 2
    first = read(responses[0])
    assert [rrset.to_text() for rrset in first.answer] == [f"A{INTO[1:]}", HOST]
    assert (first.rcode(), made.in_flight) == (0, 0)
    # It is cached as one answer, until the rules change.
    assert addresses(answer(made, query("alias.example."))) == ["10.1.2.3"]
    made.swap_rules(made.rules)
    assert forward(made, query("alias.example.")).is_new


def test_p39_what_the_other_zone_denies_is_denied_for_its_lifetime() -> None:
    made = split()
    exchange = forward(made, query("alias.example.")).exchange
    assert feed(made, exchange, INTO, PUBLIC) == []
    exchange = begun(made)
    (response,) = feed(made, exchange, rcode=3, authority=[SOA])
    denial = read(response)
    assert (denial.rcode(), len(denial.answer), denial.authority[0].ttl) == (3, 1, 20)
    assert denial.authority[0].name.to_text() == "corp.example."
    assert read(answer(made, query("alias.example."), 11.0)).authority[0].ttl == 10


def test_p39_zones_and_owned_names_follow_each_other() -> None:
    made = split(Owned("owned.example.", addresses=("10.0.0.1",)))
    exchange = forward(made, query("alias.example.")).exchange
    assert feed(made, exchange, INTO) == []
    exchange = begun(made)
    assert asks(exchange) == ("corp", "host.corp.example.")
    assert feed(made, exchange, "host.corp.example. 60 IN CNAME x.lab.example.") == []
    exchange = begun(made)
    assert asks(exchange) == ("lab", "x.lab.example.")
    (response,) = feed(made, exchange, "x.lab.example. 60 IN CNAME OWNED.example.", rcode=2)
    assert addresses(response) == ["10.0.0.1"]
    assert [rrset.name.to_text() for rrset in read(response).answer] == [
        *("alias.example.", "host.corp.example.", "x.lab.example.", "OWNED.example.")
    ]


@pytest.mark.parametrize(("number", "most"), [("", 2), ("{}", MAX_CNAMES)], ids=["round", "without end"])
def test_p39_aliases_that_do_not_end_are_servfail(number: str, most: int) -> None:
    made = split()
    exchange = forward(made, query("alias.example.")).exchange
    step = feed(made, exchange, INTO)
    hops = 0
    while not step:
        hops += 1
        exchange = begun(made)
        _, name = asks(exchange)
        other = f"x{number}.lab.example." if "corp" in name else f"host{number}.corp.example."
        other = other.format(hops)
        step = feed(made, exchange, f"{name} 60 IN CNAME {other}")
    assert hops == most
    assert read(step[0]).rcode() == wire.SERVFAIL


@pytest.mark.parametrize("rcode", [0, 2, 3, 5])
def test_p39_an_alias_out_of_a_zone_is_asked_where_all_other_names_are(rcode: int) -> None:
    made = split()
    exchange = forward(made, query("x.corp.example.")).exchange
    alias = "x.corp.example. 300 IN CNAME www.example."
    assert feed(made, exchange, alias, rcode=rcode, authority=["example. 60 IN NS ns.example."]) == []
    exchange = begun(made)
    assert asks(exchange) == ("one", "www.example.")
    (response,) = feed(made, exchange, "www.example. 60 IN A 192.0.2.1")
    assert [rrset.to_text() for rrset in read(response).answer] == [alias, "www.example. 60 IN A 192.0.2.1"]
    assert addresses(answer(made, query("x.corp.example."))) == ["192.0.2.1"]


@pytest.mark.parametrize(
    ("target", "more"),
    [
        ("www.example.", {"records": ["www.example. 60 IN A 192.0.2.1"]}),
        ("www.example.", {"authority": ["example. 60 IN SOA ns.example. h.example. 1 2 3 4 5"]}),
        ("printer.local.", {}),
        ("1.0.0.10.in-addr.arpa.", {}),
        ("y.corp.example.", {}),
    ],
    ids=["address", "denial", "local", "private", "same zone"],
)
def test_p39_an_alias_out_of_a_zone_that_ends_or_is_nobodys_is_not_asked(
    target: str, more: dict[str, Any]
) -> None:
    made = split()
    exchange = forward(made, query("x.corp.example.")).exchange
    alias = f"x.corp.example. 300 IN CNAME {target}"
    (response,) = feed(made, exchange, alias, *more.pop("records", ()), **more)
    assert read(response).rcode() == 0
    assert made.exchanges.begun == []


def test_p39_when_the_other_zone_fails_so_does_the_alias() -> None:
    made = split()
    exchange = forward(made, query("alias.example.")).exchange
    assert feed(made, exchange, INTO, PUBLIC) == []
    exchange = begun(made)
    (response,) = feed(made, exchange, rcode=2)
    assert (read(response).rcode(), addresses(response)) == (wire.SERVFAIL, [])


def test_p39_a_failure_with_an_alias_that_leads_nowhere_remains_one() -> None:
    made = split()
    exchange = forward(made, query("alias.example.")).exchange
    (response,) = feed(made, exchange, "alias.example. 60 IN CNAME www.example.", rcode=2)
    assert (read(response).rcode(), read(response).answer) == (wire.SERVFAIL, [])


@pytest.mark.parametrize("rcode", [0, 2, 3])
def test_p39_an_alias_of_an_owned_name_whatever_the_rcode(rcode: int) -> None:
    made = engine([Owned("owned.example.", addresses=("10.0.0.1",))])
    exchange = forward(made, query("alias.example.")).exchange
    (response,) = feed(made, exchange, CHAIN, rcode=rcode)
    assert (read(response).rcode(), addresses(response)) == (0, ["10.0.0.1"])


@pytest.mark.parametrize("target", ["owned.example.", "host.corp.example."])
@pytest.mark.parametrize("how", ["tcp", "cut", "TC"])
def test_p39_an_alias_in_an_answer_that_is_larger_than_a_datagram(target: str, how: str) -> None:
    made = split(Owned("owned.example.", addresses=("10.0.0.1",)))
    exchange = forward(made, query("alias.example.")).exchange
    records = [f"alias.example. 60 IN CNAME {target}"]
    records += [f"{target} 60 IN A 203.0.{index // 250}.{index % 250}" for index in range(300)]
    attempt = exchange.next_attempt(1.0)
    assert attempt is not None
    whole = reply_to(b"\x12\x34" + attempt.payload, records)
    assert len(whole) > 4096
    if how == "tcp":
        assert exchange.receive_reply(whole, 1.0) is Verdict.DONE
    elif how == "cut":
        assert exchange.receive_cut(whole[:1976], 1.0) is Verdict.NEXT
    else:
        assert exchange.receive_reply(whole[:2] + b"\x83" + whole[3:1200], 1.0) is Verdict.NEXT
    while exchange.response is None and exchange.next_attempt(1.0) is not None:
        exchange.fail_attempt(Failure.NETWORK, 1.0)  # it has no TCP
    step = made.complete(exchange, 1.0)
    if not step:
        exchange = begun(made)
        step = feed(made, exchange, HOST)
    assert addresses(step[0]) == (["10.0.0.1"] if "owned" in target else ["10.1.2.3"])


def test_p39_labels_of_any_bytes() -> None:
    made = split(Owned(r"\255\000.example.", addresses=("10.0.0.1",)))
    name = r"a\.b\200\001.example."
    exchange = forward(made, query(name)).exchange
    assert feed(made, exchange, rf"{name} 60 IN CNAME \195\040.Corp.example.") == []
    exchange = begun(made)
    assert asks(exchange) == ("corp", r"\195\(.Corp.example.")
    (response,) = feed(made, exchange, r"\195\040.corp.example. 60 IN CNAME \255\000.Example.")
    assert addresses(response) == ["10.0.0.1"]
    assert read(response).answer[0].name.to_text() == name


def test_p39_a_refresh_follows_too_and_is_counted_once() -> None:
    made = split(policy=CachePolicy(stale=3600))
    scanned = scan_query(query("alias.example."))
    key = cache_key(scanned)
    made.exchanges.refresh(scanned, key, b"\0", "stale", 1.0)
    (exchange,) = made.exchanges.begun
    made.exchanges.begun.clear()
    assert feed(made, exchange, INTO) == []
    exchange = begun(made)
    assert feed(made, exchange, HOST) == []
    assert addresses(answer(made, query("alias.example."))) == ["10.1.2.3"]
    assert (made.in_flight, made.exchanges._refreshing) == (0, 0)


def test_p39_the_faster_of_two_that_race_follows() -> None:
    upstreams = [Upstream(label, ("192.0.2.1", port)) for port, label in enumerate(("one", "two"), 53)]
    made = split(upstreams=upstreams, order="race")
    first = forward(made, query("alias.example.")).exchange
    (second,) = made.exchanges.begun
    made.exchanges.begun.clear()
    assert first.next_attempt(1.0) is not None
    assert feed(made, second, INTO, PUBLIC) == []
    second = begun(made)
    assert asks(second) == ("corp", "host.corp.example.")
    (response,) = feed(made, second, HOST)
    assert addresses(response) == ["10.1.2.3"]
    assert made.in_flight == 0


# -- 40: records of owned names elsewhere

FORGED = "owned.example. 300 IN A 203.0.113.9"
FORGED6 = "OWNED.example. 300 IN AAAA 2001:db9::9"
HINTS = "owned.example. 300 IN HTTPS 1 . ipv4hint=203.0.113.9"


@pytest.mark.parametrize(
    ("qtype", "records"),
    [
        ("A", ["www.example. 60 IN A 192.0.2.1"]),
        ("A", ["www.example. 60 IN CNAME web.example.", "web.example. 60 IN A 192.0.2.1"]),
        ("MX", ["www.example. 60 IN MX 5 owned.example."]),
        ("NS", ["www.example. 60 IN NS owned.example."]),
        ("SRV", ["www.example. 60 IN SRV 1 2 3 owned.example."]),
        ("HTTPS", ["www.example. 60 IN HTTPS 1 owned.example. alpn=h2"]),
        ("SOA", ["www.example. 60 IN SOA owned.example. h.www.example. 1 2 3 4 5"]),
        ("TXT", ['www.example. 60 IN TXT "a"']),
        ("TYPE65280", [r"www.example. 60 IN TYPE65280 \# 2 c00c"]),
        ("ANY", ["www.example. 60 IN A 192.0.2.1"]),
    ],
    ids=str,
)
@pytest.mark.parametrize("section", ["answer", "first", "authority", "additional"])
def test_p40_addresses_of_owned_names_elsewhere_are_removed(
    qtype: str, records: list[str], section: str
) -> None:
    made = engine([Owned("owned.example.", addresses=("10.0.0.1",))])
    step = forward(made, query("www.example.", qtype))
    attempt = step.exchange.next_attempt(1.0)
    assert attempt is not None
    forged, glue = [FORGED, FORGED6, HINTS], ["b.example. 60 IN A 192.0.2.2"]
    answers = {"answer": [*records, *forged], "first": [*forged, *records]}.get(section, records)
    plain = dns.message.from_wire(reply_to(b"\x12\x34" + attempt.payload, answers))
    plain.authority = from_text("example. 60 IN NS ns.example.", *(forged if section == "authority" else ()))
    plain.additional = from_text(*(forged if section == "additional" else ()), *glue)
    expected = from_text(*records)
    assert step.exchange.receive_reply(plain.to_wire(), 1.0) is Verdict.DONE
    for response in (made.complete(step.exchange, 1.0)[0], answer(made, query("www.example.", qtype))):
        got = read(response)
        assert got.answer == expected
        assert got.authority == from_text("example. 60 IN NS ns.example.")
        assert got.additional == from_text(*glue)
        assert b"\xcb\x00\x71\x09" not in response


HINTED = "ipv4hint=203.0.113.9 ipv6hint=2001:db9::9"


@pytest.mark.parametrize(
    ("qtype", "given", "left"),
    [
        ("HTTPS", f"1 OWNED.example. alpn=h2 port=8443 {HINTED}", "1 OWNED.example. alpn=h2 port=8443"),
        (
            "SVCB",
            f"1 owned.example. mandatory=alpn,ipv4hint alpn=h2 {HINTED}",
            "1 owned.example. mandatory=alpn alpn=h2",
        ),
        ("HTTPS", "1 owned.example. mandatory=ipv4hint ipv4hint=203.0.113.9", "1 owned.example."),
        ("HTTPS", f"1 b.example. alpn=h2 {HINTED}", None),
        ("HTTPS", f"1 . alpn=h2 {HINTED}", None),
        ("HTTPS", "0 owned.example.", None),
    ],
    ids=["https", "svcb", "mandatory", "other", "owner", "alias"],
)
def test_p40_hints_of_an_owned_target_are_removed(qtype: str, given: str, left: str | None) -> None:
    made = engine([Owned("owned.example.", addresses=("10.0.0.1",))])
    response = resolve(made, query("www.example.", qtype), [f"www.example. 60 IN {qtype} {given}"])
    assert read(response).answer == from_text(f"www.example. 60 IN {qtype} {left or given}")


@pytest.mark.parametrize("end", [-1, -5, -7])
def test_p40_parameters_that_do_not_end_in_their_record_are_not_used(end: int) -> None:
    made = engine([Owned("owned.example.", addresses=("10.0.0.1",))])
    data = b"\0\1\5owned\7example\0\0\1\0\3\2h2\0\4\0\4\xcb\0\x71\x09"[:end]
    record = rf"www.example. 60 IN TYPE65 \# {len(data)} {data.hex()}"
    step = forward(made, query("www.example.", "HTTPS"))
    attempt = step.exchange.next_attempt(1.0)
    assert attempt is not None
    reply = reply_to(b"\x12\x34" + attempt.payload, [record.replace("TYPE65 ", "TYPE65280 ")])
    step.exchange.receive_reply(reply.replace(b"\xff\0\0\1", b"\0\x41\0\1"), 1.0)
    assert read(made.complete(step.exchange, 1.0)[0]).rcode() == wire.SERVFAIL


def test_p40_of_too_many_names_only_the_answer_is_kept() -> None:
    made = engine([Owned("owned.example.", addresses=("10.0.0.1",))])
    step = forward(made, query("www.example.", "SRV"), tcp=True)
    attempt = step.exchange.next_attempt(1.0)
    assert attempt is not None
    plain = dns.message.from_wire(
        reply_to(b"\x12\x34" + attempt.payload, ["www.example. 60 IN SRV 1 2 3 a.example."])
    )
    plain.additional = from_text(*(f"h{index}.example. 60 IN A 192.0.2.1" for index in range(200)), FORGED)
    assert step.exchange.receive_reply(plain.to_wire(), 1.0) is Verdict.DONE
    got = read(made.complete(step.exchange, 1.0)[0])
    assert (len(got.answer), got.additional, got.rcode()) == (1, [], 0)


def test_p40_an_answer_of_too_many_names_is_not_used() -> None:
    made = engine([Owned("owned.example.", addresses=("10.0.0.1",))])
    records = [
        "www.example. 60 IN A 192.0.2.1",
        *(f"h{index}.example. 60 IN A 192.0.2.1" for index in range(200)),
    ]
    assert read(resolve(made, query("www.example."), records)).rcode() == wire.SERVFAIL


def from_text(*records: str) -> list[dns.rrset.RRset]:
    found = []
    for record in records:
        name, ttl, _, kind, data = record.split(None, 4)
        found.append(dns.rrset.from_text(name, int(ttl), "IN", kind, data))
    return found
