"""The checks of docs/protocol.md, one or more per line, octets in and octets out."""

from __future__ import annotations

import struct
from collections.abc import Sequence
from typing import Any

import dns.edns
import dns.flags
import dns.message
import dns.name
import dns.rcode
import dns.rdatatype
import dns.reversename
import dns.rrset
import pytest

from dnsproxy.core import chains, fairness, names, wire
from dnsproxy.core.attempt import Failure, Verdict
from dnsproxy.core.cache import CachePolicy
from dnsproxy.core.engine import Engine, Forward
from dnsproxy.core.features import Features
from dnsproxy.core.limiter import RateLimiter
from dnsproxy.core.policy import Owned, Ruleset, build_rules
from dnsproxy.core.upstreams import Upstream
from dnsproxy.errors import DropReason
from tests.messages import (
    CLIENT,
    OSS,
    REGISTRY,
    addresses,
    answer,
    engine,
    forward,
    hangzhou,
    query,
    read,
    reply_to,
    resolve,
    unknown_rules,
)
from tests.strategies import learned, served_table, snapshot

BUCKET = f"bucket.{OSS}"
PRIVATE_LINK = "ep-1.oss.cn-hangzhou.privatelink.aliyuncs.com."
SOA = "example. 900 IN SOA ns.example. host.example. 1 2 3 4 300"
WWW = "www.example. 60 IN A 192.0.2.1"
# 2 ** 16 + 2 seconds of monotonic time and the wall clock that belongs to it.
NOW, WALL = 65_538.0, 2_000.0


def ede(data: bytes) -> list[int]:
    """The Extended DNS Errors of a response."""
    return [int(option.code) for option in read(data).options if isinstance(option, dns.edns.EDEOption)]


def flags(data: bytes) -> str:
    return dns.flags.to_text(read(data).flags)


def sent(step: Forward, now: float = 1.0) -> bytes:
    """What the exchange sends next, with an id."""
    attempt = step.exchange.next_attempt(now)
    assert attempt is not None
    return b"\x12\x34" + attempt.payload


def aged_rules(*, ttl: int = 30, max_stale: float = float("inf"), cname: str | None = None) -> Ruleset:
    """Rules of one learned name whose snapshot is valid for a day from WALL on; NOW is 1000 s later."""
    table = served_table(snapshot(learned(REGISTRY, ("10.94.205.198",), cname=cname)))
    return build_rules(table, [], ttl=ttl, max_stale=max_stale, now=NOW, wall_now=WALL)


STALE_AT = NOW + 86_400 - 1_000


# -- 1: addresses of owned names


def test_p01_owned_a_has_the_whole_set() -> None:
    response = read(answer(engine(hangzhou()), query(OSS)))
    assert dns.flags.to_text(response.flags) == "QR AA RD RA"
    assert [(rrset.name.to_text(), rrset.ttl, len(rrset)) for rrset in response.answer] == [(OSS, 30, 2)]
    assert (response.id, response.rcode()) == (4711, 0)


def test_p01_sets_are_rotated_per_response_also_when_prepared() -> None:
    made = engine([Owned("a.example.", addresses=("10.0.0.1", "10.0.0.2", "10.0.0.3"))])
    given = [addresses(answer(made, query("a.example.")))[0] for _ in range(6)]
    assert sorted(given) == sorted(["10.0.0.1", "10.0.0.2", "10.0.0.3"] * 2)
    assert given[:3] == given[3:]
    over_tcp = [addresses(answer(made, query("a.example."), tcp=True))[0] for _ in range(3)]
    assert sorted(over_tcp) == ["10.0.0.1", "10.0.0.2", "10.0.0.3"]


def test_p01_rotation_goes_on_in_the_next_second() -> None:
    made = engine([Owned("a.example.", addresses=("10.0.0.1", "10.0.0.2"))])
    given = {addresses(answer(made, query("a.example."), now))[0] for now in (1.0, 2.0)}
    assert given == {"10.0.0.1", "10.0.0.2"}


@pytest.mark.parametrize("rd", [True, False])
@pytest.mark.parametrize("cd", [True, False])
@pytest.mark.parametrize("ad", [True, False])
def test_p01_rd_and_cd_are_copied_and_ad_is_not_set(rd: bool, cd: bool, ad: bool) -> None:
    wanted = wire.RD * rd | wire.CD * cd | wire.AD * ad
    response = read(answer(engine(hangzhou()), query(REGISTRY, flags=wanted)))
    assert response.flags == wire.QR | wire.AA | wire.RA | wanted & ~wire.AD


def test_p01_owner_is_spelled_as_the_client_did() -> None:
    data = query(REGISTRY.replace("registry", "ReGiStRy").upper().replace("VPC", "vpC"))
    response = answer(engine(hangzhou()), data)
    assert response[12 : len(data) - 11] == data[12:-11]
    asked = dns.message.from_wire(data).question[0].name
    assert read(response).answer[0].name.labels == asked.labels


# -- 2: other types of owned names


@pytest.mark.parametrize("qtype", ["AAAA", "HTTPS", "SVCB", "TXT", "MX", "NS", "SOA", "CNAME", "TYPE65280"])
@pytest.mark.parametrize("name", [REGISTRY, OSS, BUCKET])
def test_p02_other_types_get_nodata_with_soa(name: str, qtype: str) -> None:
    response = read(answer(engine(hangzhou()), query(name, qtype)))
    assert (response.rcode(), response.answer) == (0, [])
    assert dns.flags.to_text(response.flags) == "QR AA RD RA"
    (soa,) = response.authority
    assert (soa.rdtype, soa.name.to_text(), soa.ttl) == (dns.rdatatype.SOA, name, 30)
    assert soa[0].minimum == 30


def test_p02_aaaa_gives_learned_ipv6_addresses() -> None:
    made = engine([Owned("a.example.", addresses=("10.0.0.1", "fd00::1", "fd00::2"))])
    assert sorted(addresses(answer(made, query("a.example.", "AAAA")))) == ["fd00::1", "fd00::2"]
    assert addresses(answer(made, query("a.example.", "A"))) == ["10.0.0.1"]


def test_p02_a_of_a_name_with_only_ipv6_is_nodata() -> None:
    response = read(answer(engine([Owned("a.example.", addresses=("fd00::1",))]), query("a.example.")))
    assert (response.rcode(), response.answer, len(response.authority)) == (0, [], 1)


# -- 3: ANY and CH


def test_p03_any_gets_one_rrset() -> None:
    response = read(answer(engine(hangzhou()), query(OSS, "ANY")))
    assert [(rrset.rdtype, len(rrset)) for rrset in response.answer] == [(dns.rdatatype.A, 2)]
    six = engine([Owned("a.example.", addresses=("fd00::1",))])
    assert addresses(answer(six, query("a.example.", "ANY"))) == ["fd00::1"]


@pytest.mark.parametrize("name", ["version.bind.", "id.server.", "hostname.bind."])
def test_p03_chaos_is_refused(name: str) -> None:
    response = read(answer(engine(), query(name, "TXT", rdclass="CH")))
    assert (response.rcode(), response.answer) == (wire.REFUSED, [])


@pytest.mark.parametrize(
    ("name", "text"),
    [
        *(("version.bind.", "dnsproxy"), ("VERSION.SERVER.", "dnsproxy")),
        *(("id.server.", "a-1"), ("hostname.bind.", "a-1")),
    ],
)
def test_p03_chaos_names_are_answered_when_configured(name: str, text: str) -> None:
    made = engine(features=Features(version="dnsproxy", identity="a-1"))
    (found,) = read(answer(made, query(name, "TXT", rdclass="CH"))).answer
    assert (found.name.to_text(), found.rdclass, str(found[0])) == (name, 3, f'"{text}"')
    assert read(answer(made, query("other.bind.", "TXT", rdclass="CH"))).rcode() == wire.REFUSED
    assert read(answer(made, query(name, "A", rdclass="CH"))).rcode() == wire.REFUSED
    half = engine(features=Features(version="dnsproxy"))
    assert read(answer(half, query("id.server.", "TXT", rdclass="CH"))).rcode() == wire.REFUSED


def test_p03_any_of_a_forwarded_name_is_forwarded_unless_answered_here() -> None:
    assert forward(engine(), query("www.example.", "ANY")).is_new
    made = engine(hangzhou(), features=Features(minimal_any=True))
    (found,) = read(answer(made, query("www.example.", "ANY"))).answer
    assert found.to_text() == 'www.example. 3600 IN HINFO "RFC8482" ""'
    assert forward(made, query("www.example.")).is_new
    assert len(addresses(answer(made, query(OSS, "ANY")))) == 2


# -- 4: wildcards


@pytest.mark.parametrize("name", [BUCKET, f"a.b.{OSS}", f"a.b.c.d.{OSS}", f"*.{OSS}"])
def test_p04_wildcard_answers_one_or_more_labels_below(name: str) -> None:
    response = read(answer(engine(hangzhou()), query(name)))
    assert [rrset.name.to_text() for rrset in response.answer] == [name]


def test_p04_the_parent_is_not_matched_unless_listed() -> None:
    made = engine([Owned("*.example.", addresses=("10.0.0.1",))])
    assert forward(made, query("example.")).is_new


def test_p04_exact_beats_wildcard_and_the_longest_suffix_wins() -> None:
    made = engine(
        [
            Owned("*.example.", addresses=("10.0.0.1",)),
            Owned("*.b.example.", addresses=("10.0.0.2",)),
            Owned("a.b.example.", addresses=("10.0.0.3",)),
        ]
    )
    expected = {
        "a.example.": "10.0.0.1",
        "b.example.": "10.0.0.1",
        "x.b.example.": "10.0.0.2",
        "a.b.example.": "10.0.0.3",
        "x.a.b.example.": "10.0.0.2",
    }
    assert {name: addresses(answer(made, query(name)))[0] for name in expected} == expected


def test_p04_a_dot_inside_a_label_matches_nothing() -> None:
    made = engine(
        [Owned("*.example.", addresses=("10.0.0.1",)), Owned("a.example.", addresses=("10.0.0.1",))]
    )
    data = query("x.")
    trick = data[:12] + b"\x09a.example\0" + data[15:]
    assert forward(made, trick).is_new


# -- 5: CNAME of an owned name


def private_link() -> Engine:
    return engine([Owned(BUCKET, addresses=("10.1.2.3", "10.1.2.4"), cname=PRIVATE_LINK)])


def test_p05_cname_and_addresses_in_one_response() -> None:
    response = read(answer(private_link(), query(BUCKET.upper())))
    alias, found = response.answer
    assert (alias.name.to_text(), alias[0].target.to_text()) == (BUCKET.upper(), PRIVATE_LINK)
    assert (found.name.to_text(), len(found)) == (PRIVATE_LINK, 2)
    assert response.flags & wire.AA


def test_p05_the_alias_stands_first_in_every_rotation() -> None:
    made = private_link()
    for _ in range(4):
        first = dns.message.from_wire(answer(made, query(BUCKET)), one_rr_per_rrset=True).answer[0]
        assert first.rdtype == dns.rdatatype.CNAME


def test_p05_other_types_get_the_alias_and_the_soa_of_its_target() -> None:
    response = read(answer(private_link(), query(BUCKET, "AAAA")))
    assert [rrset.rdtype for rrset in response.answer] == [dns.rdatatype.CNAME]
    assert [rrset.name.to_text() for rrset in response.authority] == [PRIVATE_LINK]
    alone = read(answer(private_link(), query(BUCKET, "CNAME")))
    assert ([rrset.rdtype for rrset in alone.answer], alone.authority) == ([dns.rdatatype.CNAME], [])


# -- 6: forwarded chains that end in an owned name

CHAIN = (f"alias.example. 300 IN CNAME {BUCKET}", f"{BUCKET} 300 IN A 203.0.113.9")


def test_p06_addresses_at_the_end_of_a_chain_are_the_learned_ones() -> None:
    response = read(resolve(engine(hangzhou()), query("alias.example."), CHAIN))
    assert [rrset.name.to_text() for rrset in response.answer] == ["alias.example.", BUCKET]
    assert sorted(str(item) for item in response.answer[1]) == ["100.118.28.43", "100.118.28.44"]
    assert response.answer[1].ttl == 30


def test_p06_a_long_chain_is_cut_at_the_owned_name() -> None:
    records = [
        "alias.example. 300 IN CNAME second.example.",
        f"second.example. 300 IN CNAME {REGISTRY}",
        f"{REGISTRY} 300 IN CNAME public.example.",
        "public.example. 300 IN A 203.0.113.9",
    ]
    response = read(resolve(engine(hangzhou()), query("alias.example."), records))
    assert [rrset.name.to_text() for rrset in response.answer] == [
        *("alias.example.", "second.example.", REGISTRY)
    ]
    assert str(response.answer[2][0]) == "10.94.205.198"


def test_p06_the_order_of_records_does_not_matter() -> None:
    given = addresses(resolve(engine(hangzhou()), query("alias.example."), reversed(CHAIN)))
    assert sorted(given) == ["100.118.28.43", "100.118.28.44"]


def test_p06_upstreams_nxdomain_for_the_owned_end_is_overruled() -> None:
    made = engine(hangzhou())
    response = resolve(made, query("alias.example."), CHAIN[:1], rcode=3, authority=[SOA])
    assert read(response).rcode() == 0
    assert sorted(addresses(response)) == ["100.118.28.43", "100.118.28.44"]
    again = answer(made, query("alias.example."), 2.0)
    assert read(again).rcode() == 0
    assert len(addresses(again)) == 2


def test_p06_a_changed_answer_is_not_marked_authentic() -> None:
    made = engine(hangzhou())
    response = resolve(made, query("alias.example.", want_dnssec=True), CHAIN, flags=wire.AD)
    assert len(addresses(response)) == 2
    assert not read(response).flags & wire.AD


def test_p06_other_types_through_a_chain_are_nodata_at_its_end() -> None:
    records = (CHAIN[0], f"{BUCKET} 300 IN AAAA 2001:db8::9")
    response = read(resolve(engine(hangzhou()), query("alias.example.", "AAAA"), records))
    assert (response.rcode(), [rrset.rdtype for rrset in response.answer]) == (0, [dns.rdatatype.CNAME])
    assert [rrset.rdtype for rrset in response.authority] == [dns.rdatatype.SOA]


def test_p06_a_cname_beside_the_chain_changes_nothing() -> None:
    stray = (WWW, f"other.example. 60 IN CNAME {BUCKET}")
    assert addresses(resolve(engine(hangzhou()), query("www.example."), stray)) == ["192.0.2.1"]


def test_p06_a_cname_beside_the_chain_and_an_opt_before_the_last_record() -> None:
    made = engine(hangzhou())
    step = forward(made, query("www.example."))
    plain = reply_to(sent(step), [WWW, f"other.example. 60 IN CNAME {BUCKET}"], edns=False)
    opt, extra = b"\0\0\x29\x04\xd0\0\0\0\0\0\0", b"\x01x\0\0\1\0\1\0\0\0\x3c\0\4\1\2\3\4"
    step.exchange.receive_reply(plain[:10] + b"\0\2" + plain[12:] + opt + extra, 1.0)
    response = made.complete(step.exchange, 1.0)[0]
    assert addresses(response) == ["192.0.2.1"]
    assert [rrset.to_text() for rrset in read(response).additional] == ["x. 60 IN A 1.2.3.4"]
    assert addresses(answer(made, query("www.example."), 11.0)) == ["192.0.2.1"]


@pytest.mark.parametrize("qtype", ["CNAME", "ANY"])
def test_p06_an_alias_that_is_asked_for_is_itself_the_answer(qtype: str) -> None:
    response = read(resolve(engine(hangzhou()), query("alias.example.", qtype), CHAIN[:1], flags=wire.AD))
    assert [rrset.to_text() for rrset in response.answer] == [CHAIN[0]]
    assert response.authority == []


def test_p06_a_chain_that_loops_ends() -> None:
    records = [
        "alias.example. 300 IN CNAME second.example.",
        "second.example. 300 IN CNAME alias.example.",
        f"third.example. 300 IN CNAME {BUCKET}",
    ]
    assert read(resolve(engine(hangzhou()), query("alias.example."), records)).rcode() == 0


def test_p39_a_chain_into_a_name_not_known_yet_is_servfail() -> None:
    made = engine()
    made.swap_rules(unknown_rules())
    records = (f"alias.example. 300 IN CNAME {REGISTRY}", f"{REGISTRY} 300 IN A 203.0.113.9")
    response = resolve(made, query("alias.example.", use_edns=0), records)
    assert (read(response).rcode(), addresses(response), ede(response)) == (wire.SERVFAIL, [], [14])


def test_p06_answers_made_from_learned_addresses_go_with_them() -> None:
    made = engine(hangzhou())
    resolve(made, query("alias.example."), CHAIN)
    assert len(addresses(answer(made, query("alias.example."), 2.0))) == 2
    made.swap_rules(Ruleset([Owned(f"*.{OSS}", addresses=("10.9.9.9",))]))
    assert addresses(resolve(made, query("alias.example."), CHAIN, now=3.0)) == ["10.9.9.9"]


def test_p06_derived_answers_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(chains, "MAX_DERIVED", 2)
    made = engine(hangzhou())
    for name in ("a.example.", "b.example.", "c.example."):
        assert len(addresses(resolve(made, query(name), [f"{name} 300 IN CNAME {BUCKET}"]))) == 2
    assert len(made.cache) == 2
    assert forward(made, query("a.example."), 2.0).is_new
    assert len(addresses(answer(made, query("c.example."), 2.0))) == 2
    made.swap_rules(Ruleset(hangzhou()))
    assert len(made.cache) == 0
    resolve(made, query("a.example."), [f"a.example. 300 IN CNAME {BUCKET}"], now=3.0)
    assert len(made.cache) == 1


def test_p06_an_unreadable_chain_is_servfail_and_not_a_crash() -> None:
    made = engine(hangzhou())
    step = forward(made, query("alias.example.", use_edns=False))
    data = bytearray(reply_to(sent(step), CHAIN[:1], edns=False))
    at = data.rindex(b"\x06bucket")
    data[at : at + 2] = b"\xc0\xff"
    step.exchange.receive_reply(bytes(data), 1.0)
    assert read(made.complete(step.exchange, 1.0)[0]).rcode() in {wire.SERVFAIL, wire.NOERROR}


# -- 7: not known yet, stale, and what is above


def test_p07_nothing_known_yet_is_servfail_not_ready() -> None:
    made = engine()
    made.swap_rules(unknown_rules())
    for qtype in ("A", "AAAA", "HTTPS"):
        response = answer(made, query(REGISTRY, qtype, use_edns=0))
        assert (read(response).rcode(), ede(response)) == (wire.SERVFAIL, [14])
    assert ede(answer(made, query(REGISTRY, use_edns=False))) == []


def test_p07_fresh_until_the_snapshot_expires_then_stale() -> None:
    made = engine()
    made.swap_rules(aged_rules())
    fresh = answer(made, query(REGISTRY, use_edns=0), STALE_AT - 1.5)
    stale = answer(made, query(REGISTRY, use_edns=0), STALE_AT)
    assert (ede(fresh), ede(stale)) == ([], [3])
    assert addresses(stale) == ["10.94.205.198"]


@pytest.mark.parametrize("cname", [None, PRIVATE_LINK])
@pytest.mark.parametrize("qtype", ["A", "AAAA"])
def test_p07_stale_ttls_are_at_most_30(qtype: str, cname: str | None) -> None:
    made = engine()
    made.swap_rules(aged_rules(ttl=300, cname=cname))

    def ttls(now: float) -> set[int]:
        response = read(answer(made, query(REGISTRY, qtype), now))
        return {int(rrset.ttl) for rrset in response.answer + response.authority}

    assert ttls(NOW) == {300}
    assert ttls(STALE_AT) == {30}


@pytest.mark.parametrize("ttl", [30, 300])
def test_p07_a_stale_set_that_is_confirmed_is_fresh_again(ttl: int) -> None:
    """Also where stale responses were prepared: those have no end while `max_stale` is forever."""
    made = engine()
    made.swap_rules(aged_rules(ttl=ttl))
    for _ in range(3):
        assert ede(answer(made, query(REGISTRY, use_edns=0), STALE_AT)) == [3]
    (confirmed,) = build_rules(
        served_table(snapshot(learned(REGISTRY, ("10.94.205.198",)))),
        [],
        ttl=ttl,
        max_stale=float("inf"),
        now=STALE_AT,
        wall_now=WALL,
    ).owned()
    made.update_rules({REGISTRY: confirmed})
    for _ in range(3):
        response = answer(made, query(REGISTRY, use_edns=0), STALE_AT + 1)
        assert ede(response) == []
        assert {rrset.ttl for rrset in read(response).answer} == {ttl}


def test_p07_stale_sets_are_rotated_too() -> None:
    table = served_table(snapshot(learned(REGISTRY, ("10.0.0.1", "10.0.0.2"))))
    made = engine()
    made.swap_rules(build_rules(table, [], ttl=60, max_stale=float("inf"), now=NOW, wall_now=WALL))
    given = {addresses(answer(made, query(REGISTRY), STALE_AT + second))[0] for second in range(4)}
    assert given == {"10.0.0.1", "10.0.0.2"}


def test_p07_a_chain_into_a_stale_name_has_short_ttls_too() -> None:
    made = engine()
    made.swap_rules(aged_rules(ttl=300))
    records = [f"alias.example. 900 IN CNAME {REGISTRY}"]
    response = read(resolve(made, query("alias.example."), records, now=STALE_AT))
    assert [str(rrset[0]) for rrset in response.answer] == [REGISTRY, "10.94.205.198"]
    assert response.answer[1].ttl == 30


def test_p07_beyond_max_stale_is_servfail() -> None:
    made = engine()
    made.swap_rules(aged_rules(max_stale=60))
    assert read(answer(made, query(REGISTRY), STALE_AT + 58)).rcode() == 0
    response = answer(made, query(REGISTRY, use_edns=0), STALE_AT + 60)
    assert (read(response).rcode(), ede(response)) == (wire.SERVFAIL, [14])


def test_p07_a_chain_into_a_name_beyond_max_stale_is_servfail() -> None:
    made = engine()
    made.swap_rules(aged_rules(max_stale=60))
    records = [f"alias.example. 900 IN CNAME {REGISTRY}", f"{REGISTRY} 900 IN A 203.0.113.9"]
    assert read(resolve(made, query("alias.example."), records, now=STALE_AT + 60)).rcode() == wire.SERVFAIL


def test_p07_owned_wins_over_what_is_cached_above() -> None:
    made = engine(hangzhou())
    above = "cn-hangzhou.cr.aliyuncs.com."
    resolve(made, query(above), rcode=3, authority=[SOA])
    assert read(answer(made, query(above), 2.0)).rcode() == 3
    assert addresses(answer(made, query(REGISTRY), 2.0)) == ["10.94.205.198"]


# -- 8: search suffixes


def test_p08_search_suffix_forms_are_forwarded() -> None:
    made = engine(hangzhou())
    assert forward(made, query(f"{REGISTRY}default.svc.cluster.local.")).is_new


# -- 9: headers


@pytest.mark.parametrize("length", range(12))
def test_p09_less_than_a_header_is_dropped_and_counted(length: int) -> None:
    made = engine()
    assert made.receive(query("a.example.")[:length], CLIENT, 1.0) is DropReason.SHORT
    assert made.stats.drops == {DropReason.SHORT: 1}


def test_p09_responses_are_dropped_and_counted() -> None:
    made = engine(hangzhou())
    data = answer(made, query(REGISTRY))
    assert made.receive(data, CLIENT, 1.0) is DropReason.NOT_A_QUERY
    assert made.stats.drops == {DropReason.NOT_A_QUERY: 1}


@pytest.mark.parametrize("count", [0, 2, 3, 65535])
def test_p09_question_count_other_than_one_is_formerr(count: int) -> None:
    data = query("a.example.")
    response = answer(engine(), data[:4] + struct.pack(">H", count) + data[6:])
    assert (read(response).rcode(), response[:2]) == (wire.FORMERR, data[:2])


@pytest.mark.parametrize("opcode", [1, 2, 4, 5, 6])
def test_p09_other_opcodes_are_notimp(opcode: int) -> None:
    data = query(REGISTRY)
    response = answer(engine(hangzhou()), data[:2] + bytes((opcode << 3 | 1,)) + data[3:])
    assert (response[:2], response[2] >> 3 & 0xF, response[3] & 0xF) == (data[:2], opcode, wire.NOTIMP)
    assert response[2] & 1


@pytest.mark.parametrize("rdclass", ["CH", "HS", "ANY", "NONE", "CLASS4242"])
def test_p09_other_classes_are_refused(rdclass: str) -> None:
    assert read(answer(engine(hangzhou()), query(REGISTRY, rdclass=rdclass))).rcode() == wire.REFUSED


@pytest.mark.parametrize("qtype", ["AXFR", "IXFR", "TKEY", "TSIG", "MAILB", "MAILA"])
def test_p09_meta_types_are_refused(qtype: str) -> None:
    data = query("a.example.", "TYPE1")
    at = len(data) - 4
    plain = query("a.example.", use_edns=False)
    at = len(plain) - 4
    made = plain[:at] + struct.pack(">H", dns.rdatatype.from_text(qtype)) + plain[at + 2 :]
    assert read(answer(engine(), made)).rcode() == wire.REFUSED


def test_p09_opt_as_question_type_is_formerr() -> None:
    plain = query("a.example.", use_edns=False)
    assert answer(engine(), plain[:-4] + b"\0\x29\0\1")[3] & 0xF == wire.FORMERR


def test_p09_without_rd_nothing_is_forwarded() -> None:
    made = engine(hangzhou())
    assert read(answer(made, query("a.example.", flags=0))).rcode() == wire.REFUSED
    assert addresses(answer(made, query(REGISTRY, flags=0))) == ["10.94.205.198"]
    assert made.in_flight == 0


# -- 10: malformed messages

PLAIN = query("www.example.", use_edns=False)


@pytest.mark.parametrize(
    "data",
    [
        PLAIN[:12] + b"\xc0\x0c\0\1\0\1",
        PLAIN[:12] + b"\x03www\xc0\x0c\0\1\0\1",
        PLAIN[:12] + b"\x40" + b"a" * 64 + b"\0\0\1\0\1",
        PLAIN[:12] + (b"\x3f" + b"a" * 63) * 4 + b"\0\0\1\0\1",
        PLAIN[:12] + (b"\x3f" + b"a" * 63) * 3 + b"\x3e" + b"a" * 62 + b"\0\0\1\0\1",
        PLAIN[:-3],
        PLAIN[:15],
        PLAIN + b"garbage",
        PLAIN[:6] + b"\0\1" + PLAIN[8:] + b"\xc0\x0c\0\1\0\1\0\0",
        PLAIN[:6] + b"\xff\xff" * 3 + PLAIN[12:],
    ],
    ids=[
        *("pointer to itself", "pointer after a label", "label over 63", "name over 255", "name of 256"),
        *("cut question", "cut name", "trailing garbage", "cut record", "counts that lie"),
    ],
)
@pytest.mark.parametrize("tcp", [False, True])
def test_p10_malformed_is_formerr_and_never_forwarded(data: bytes, tcp: bool) -> None:
    made = engine(hangzhou())
    assert read(answer(made, data, tcp=tcp)).rcode() == wire.FORMERR
    assert made.in_flight == 0


def test_p10_longest_allowed_name_and_label_are_forwarded() -> None:
    longest = (b"\x3f" + b"a" * 63) * 3 + b"\x3d" + b"a" * 61 + b"\0"
    assert len(longest) == 255
    assert forward(engine(), PLAIN[:12] + longest + b"\0\1\0\1").is_new


def test_p10_a_message_of_the_largest_size_takes_no_time_worth_mentioning() -> None:
    records = b"\xc0\x0c\0\1\0\1\0\0\0\0\0\0" * 5000
    data = PLAIN[:6] + b"\0\0" * 2 + struct.pack(">H", 5000) + PLAIN[12:] + records
    refused = engine().receive(data, CLIENT, 1.0, tcp=True)
    assert isinstance(refused, bytes)
    assert read(refused).rcode() == wire.REFUSED, "nothing that waits is longer than 4 KiB"


# -- 11: names of any octets


@pytest.mark.parametrize(
    "name", [b"\x04\xff\xfe\x00.\x00", b"\x0bwww.example\x00", b"\x03\x00\x01\x02\x02\xc0\xc1\x00"]
)
def test_p11_names_with_any_octets_are_forwarded_untouched(name: bytes) -> None:
    step = forward(engine(), PLAIN[:12] + name + b"\0\1\0\1")
    assert sent(step)[12 : 12 + len(name)] == name


def test_p11_names_that_print_alike_are_cached_apart() -> None:
    made = engine()
    resolve(made, PLAIN, [WWW])
    assert addresses(answer(made, PLAIN, 2.0)) == ["192.0.2.1"]
    assert forward(made, PLAIN[:12] + b"\x0bwww.example\0\0\1\0\1", 2.0).is_new


def test_p11_case_is_kept_towards_upstream_and_ignored_by_the_cache() -> None:
    made = engine()
    step = forward(made, query("wWw.EXAMPLE."))
    asked = sent(step)
    assert asked[12:24] == b"\x03wWw\x07EXAMPLE"
    step.exchange.receive_reply(reply_to(asked, [WWW]), 1.0)
    made.complete(step.exchange, 1.0)
    response = read(answer(made, query("WWW.example."), 2.0))
    assert response.question[0].name.to_text() == "WWW.example."


# -- 12: matching replies, sharing exchanges


def test_p12_wrong_replies_do_not_end_the_wait() -> None:
    made = engine()
    step = forward(made, query("www.example."))
    asked = sent(step)
    good = reply_to(asked, [WWW])
    other = b"\x12\x34" + query("vvv.example.")[2:]
    wrong = [
        b"",
        good[:11],
        good[:12],
        asked,
        good[:2] + b"\x01" + good[3:],
        good[:2] + b"\xa9" + good[3:],
        good[:4] + b"\0\0" + good[6:],
        good[:-1],
        good[:12] + b"\xff" * 40,
        reply_to(other, ["vvv.example. 60 IN A 192.0.2.66"]),
        reply_to(b"\x12\x34" + query("www.example.", "AAAA")[2:]),
        reply_to(b"\x12\x34" + query("www.example.", rdclass="CH")[2:]),
    ]
    for data in wrong:
        assert step.exchange.receive_reply(data, 1.0) is Verdict.IGNORED, data.hex()
    assert step.exchange.receive_reply(good, 1.0) is Verdict.DONE
    assert addresses(made.complete(step.exchange, 1.0)[0]) == ["192.0.2.1"]


def test_p09_update_is_notimp() -> None:
    data = query("a.example.")
    response = answer(engine(), data[:2] + b"\x28" + data[3:])
    assert (response[2], response[3] & 0xF, response[12:]) == (0xA8, wire.NOTIMP, data[12:])


def test_p12_identical_questions_share_one_exchange() -> None:
    made = engine()
    first = forward(made, query("www.example.", ident=1))
    second = forward(made, query("WWW.example.", ident=2, use_edns=False))
    assert (first.is_new, second.is_new, first.exchange is second.exchange) == (True, False, True)
    first.exchange.receive_reply(reply_to(sent(first), [WWW]), 1.0)
    responses = made.complete(first.exchange, 1.0)
    assert [read(data).id for data in responses] == [1, 2]
    assert [read(data).question[0].name.to_text() for data in responses] == ["www.example.", "WWW.example."]
    assert [read(data).edns for data in responses] == [-1, -1]
    assert made.in_flight == 0


@pytest.mark.parametrize(
    "options", [{"qtype": "AAAA"}, {"want_dnssec": True}, {"flags": wire.RD | wire.CD}], ids=str
)
def test_p12_questions_with_other_answers_do_not_share(options: dict[str, Any]) -> None:
    made = engine()
    forward(made, query("www.example."))
    assert forward(made, query("www.example.", **options)).is_new
    assert made.in_flight == 2


def test_p12_at_most_three_sends_for_a_failing_question_which_is_remembered() -> None:
    made = engine(upstreams=[Upstream(name, ("192.0.2.1", 53)) for name in "abcde"])
    step = forward(made, query("www.example."))
    sends = 0
    while step.exchange.next_attempt(1.0) is not None:
        sends += 1
        step.exchange.fail_attempt(Failure.NETWORK, 1.0)
    assert sends == 3
    assert read(made.complete(step.exchange, 1.0)[0]).rcode() == wire.SERVFAIL
    assert read(answer(made, query("www.example."), 2.9)).rcode() == wire.SERVFAIL
    assert forward(made, query("www.example."), 4.0).is_new


def test_p12_waiters_of_one_exchange_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fairness, "MAX_WAITERS", 3)
    made = engine()
    for ident in range(3):
        forward(made, query("www.example.", ident=ident))
    assert made.receive(query("www.example.", ident=9), CLIENT, 1.0) is DropReason.TOO_MANY_WAITERS
    assert made.stats.drops == {DropReason.TOO_MANY_WAITERS: 1}


# -- 13: unknown types


def test_p13_unknown_types_go_through_octet_for_octet() -> None:
    made = engine()
    data = query("www.example.", "TYPE65280")
    record = r"www.example. 60 IN TYPE65280 \# 7 c00c00ff00c0ff"
    assert r"\# 7 c00c00ff00c0ff" in read(resolve(made, data, [record])).answer[0].to_text()
    assert r"\# 7 c00c00ff00c0ff" in read(answer(made, data, 2.0)).answer[0].to_text()


# -- 14: EDNS


def some(*options: tuple[int, bytes]) -> Sequence[dns.edns.Option]:
    return [dns.edns.GenericOption(dns.edns.OptionType.make(code), data) for code, data in options]


@pytest.mark.parametrize("name", [REGISTRY, "www.example.", "fails.example."])
def test_p14_opt_in_the_response_if_and_only_if_in_the_query(name: str) -> None:
    for use_edns in (-1, 0):
        data = query(name, use_edns=use_edns)
        made = engine(hangzhou())
        step = made.receive(data, CLIENT, 1.0)
        if type(step) is Forward:
            rcode = 2 if name.startswith("fails") else 0
            step = resolve(engine(hangzhou()), data, rcode=rcode)
        assert type(step) is bytes
        assert read(step).edns == use_edns
        assert read(step).payload == (0 if use_edns else 1232)


def test_p14_unknown_version_is_badvers_with_opt() -> None:
    response = read(answer(engine(hangzhou()), query(REGISTRY, use_edns=1)))
    assert (response.rcode(), response.edns, response.answer) == (wire.BADVERS, 0, [])


def test_p14_two_opts_are_formerr() -> None:
    data = query(REGISTRY, use_edns=0)
    response = read(answer(engine(hangzhou()), data[:10] + b"\0\2" + data[12:] + data[-11:]))
    assert response.rcode() == wire.FORMERR


def test_p14_an_opt_outside_the_additional_section_is_formerr() -> None:
    data = query(REGISTRY, use_edns=0)
    assert read(answer(engine(hangzhou()), data[:6] + b"\0\1\0\0\0\0" + data[12:])).rcode() == wire.FORMERR


def test_p14_options_are_ignored_and_never_echoed_or_passed_on() -> None:
    made = engine(hangzhou())
    options = some((10, b"12345678"), (8, b"\0\1\x18\0\x0a\0\0"), (65001, b"secret"), (12, b"\0" * 50))
    assert read(answer(made, query(REGISTRY, options=options))).options == ()
    step = forward(made, query("www.example.", options=options))
    asked = sent(step)
    assert read(asked).options == ()
    message = dns.message.make_response(dns.message.from_wire(asked))
    message.use_edns(0, options=list(some((10, b"12345678ABCDEFGH"), (65001, b"upstream"))))
    step.exchange.receive_reply(message.to_wire(), 1.0)
    response = read(made.complete(step.exchange, 1.0)[0])
    assert (response.edns, response.options) == (0, ())


def test_p14_our_own_opt_goes_upstream_even_for_plain_clients() -> None:
    asked = read(sent(forward(engine(), query("www.example.", use_edns=False))))
    assert (asked.edns, asked.payload, asked.ednsflags) == (0, 1232, 0)


@pytest.mark.parametrize("do", [False, True])
@pytest.mark.parametrize("cd", [False, True])
def test_p14_do_and_cd_go_up_and_come_back(do: bool, cd: bool) -> None:
    made = engine()
    data = query("www.example.", use_edns=0, want_dnssec=do, flags=wire.RD | wire.CD * cd)
    step = forward(made, data)
    asked = read(sent(step))
    assert (bool(asked.ednsflags & wire.DO), bool(asked.flags & wire.CD)) == (do, cd)
    step.exchange.receive_reply(reply_to(asked.to_wire(), [WWW]), 1.0)
    response = read(made.complete(step.exchange, 1.0)[0])
    assert (bool(response.ednsflags & wire.DO), bool(response.flags & wire.CD)) == (do, cd)


@pytest.mark.parametrize("upstream_ad", [False, True])
@pytest.mark.parametrize(
    ("options", "understands"),
    [({}, False), ({"flags": wire.RD | wire.AD}, True), ({"want_dnssec": True}, True)],
    ids=["neither", "AD", "DO"],
)
def test_p14_ad_only_for_clients_that_set_ad_or_do(
    options: dict[str, Any], understands: bool, upstream_ad: bool
) -> None:
    made = engine()
    data = query("www.example.", **options)
    response = resolve(made, data, [WWW], flags=wire.AD * upstream_ad)
    assert bool(read(response).flags & wire.AD) == (upstream_ad and understands)
    cached = answer(made, data, 2.0)
    assert bool(read(cached).flags & wire.AD) == (upstream_ad and understands)


def test_p14_records_after_upstreams_opt_are_kept_and_the_opt_is_not() -> None:
    made = engine()
    step = forward(made, query("www.example.", use_edns=0))
    plain = reply_to(sent(step), [WWW], edns=False)
    opt, extra = b"\0\0\x29\x04\xd0\0\0\0\0\0\0", b"\x01x\0\0\1\0\1\0\0\0\x3c\0\4\1\2\3\4"
    step.exchange.receive_reply(plain[:10] + b"\0\2" + plain[12:] + opt + extra, 1.0)
    response = read(made.complete(step.exchange, 1.0)[0])
    assert [rrset.to_text() for rrset in response.additional] == ["x. 60 IN A 1.2.3.4"]
    assert response.edns == 0
    assert read(answer(made, query("www.example."), 11.0)).additional[0].ttl == 50


# -- 15: sizes and truncation


def many(count: int) -> list[str]:
    return [f"www.example. 60 IN A 10.0.{index >> 8}.{index & 255}" for index in range(count)]


@pytest.mark.parametrize(
    ("options", "limit"),
    [
        *(({"use_edns": -1}, 512), ({"payload": 0}, 512), ({"payload": 100}, 512)),
        *(({"payload": 900}, 900), ({"payload": 1232}, 1232), ({"payload": 65535}, 1232)),
    ],
    ids=str,
)
@pytest.mark.parametrize("count", [10, 40, 60, 75, 100])
def test_p15_udp_responses_keep_to_the_limit(options: dict[str, Any], limit: int, count: int) -> None:
    made = engine()
    data = query("www.example.", **options)
    whole = 12 + 17 + 16 * count + (0 if "use_edns" in options else 11)
    for response in (resolve(made, data, many(count)), answer(made, data, 2.0), answer(made, data, 2.1)):
        message = read(response)
        assert len(response) <= limit
        if whole <= limit:
            assert not message.flags & wire.TC
            assert len(message.answer[0]) == count
        else:
            assert message.flags & wire.TC
            assert (len(message.question), message.answer, message.authority) == (1, [], [])
            assert message.edns == (-1 if "use_edns" in options else 0)


def test_p15_owned_sets_that_do_not_fit_are_truncated_and_whole_over_tcp() -> None:
    made = engine([Owned("a.example.", addresses=tuple(f"10.0.0.{last}" for last in range(100)))])
    for _ in range(2):
        assert read(answer(made, query("a.example."))).flags & wire.TC
    assert len(addresses(answer(made, query("a.example."), tcp=True))) == 100


def test_p15_tcp_gets_what_udp_did_not_from_the_cache() -> None:
    made = engine()
    assert read(resolve(made, query("www.example."), many(100))).flags & wire.TC
    response = read(answer(made, query("www.example."), 2.0, tcp=True))
    assert (len(response.answer[0]), response.flags & wire.TC) == (100, 0)


def test_p15_upstreams_tc_is_retried_over_tcp_before_the_client_is_told() -> None:
    made = engine()
    step = forward(made, query("www.example.", payload=1232))
    asked = sent(step)
    assert step.exchange.receive_reply(reply_to(asked, flags=wire.TC), 1.0) is Verdict.NEXT
    attempt = step.exchange.next_attempt(1.0)
    assert attempt is not None
    assert attempt.tcp
    step.exchange.receive_reply(reply_to(b"\0\1" + attempt.payload, many(50)), 1.1)
    response = read(made.complete(step.exchange, 1.1)[0])
    assert (len(response.answer[0]), response.flags & wire.TC) == (50, 0)


# -- 16: upstreams without EDNS


@pytest.mark.parametrize("rcode", [wire.FORMERR, wire.NOTIMP])
def test_p16_without_edns_after_formerr_or_notimp_and_remembered(rcode: int) -> None:
    made = engine()
    step = forward(made, query("www.example."))
    first = sent(step)
    assert step.exchange.receive_reply(reply_to(first, rcode=rcode, edns=False), 1.0) is Verdict.NEXT
    second = sent(step)
    assert (read(first).edns, read(second).edns) == (0, -1)
    step.exchange.receive_reply(reply_to(second, [WWW], edns=False), 1.0)
    assert addresses(made.complete(step.exchange, 1.0)[0]) == ["192.0.2.1"]
    assert read(sent(forward(made, query("later.example."), 100.0), 100.0)).edns == -1
    assert read(sent(forward(made, query("much.later.example."), 1000.0), 1000.0)).edns == 0


def test_p16_badvers_is_retried_without_edns() -> None:
    made = engine()
    step = forward(made, query("www.example."))
    assert step.exchange.receive_reply(reply_to(sent(step), rcode=wire.BADVERS), 1.0) is Verdict.NEXT
    second = sent(step)
    assert read(second).edns == -1
    step.exchange.receive_reply(reply_to(second, [WWW], edns=False), 1.0)
    assert addresses(made.complete(step.exchange, 1.0)[0]) == ["192.0.2.1"]


def test_p16_queries_that_were_already_under_way_are_retried_too() -> None:
    made = engine()
    steps = [forward(made, query(f"{label}.example.")) for label in "abc"]
    asked = [sent(step) for step in steps]
    for step, data in zip(steps, asked, strict=True):
        verdict = step.exchange.receive_reply(reply_to(data, rcode=wire.FORMERR, edns=False), 1.0)
        assert verdict is Verdict.NEXT
        assert read(sent(step)).edns == -1


# -- 18: cache


def test_p18_ttl_counts_down_until_the_entry_is_gone() -> None:
    made = engine()
    data = query("www.example.")
    resolve(made, data, [WWW], now=1.5)
    ttls = [read(answer(made, data, now)).answer[0].ttl for now in (1.6, 2.4, 2.5, 3.4, 31.5, 61.4)]
    assert ttls == [60, 60, 59, 59, 30, 1]
    assert forward(made, data, 61.5).is_new


@pytest.mark.parametrize(("given", "expected"), [(1, 10), (0, 10), (50, 50), (1000, 100)])
def test_p18_ttls_are_kept_between_the_bounds(given: int, expected: int) -> None:
    made = engine(policy=CachePolicy(min_ttl=10, max_ttl=100, negative_ttl=60))
    data = query("www.example.")
    response = resolve(made, data, [f"www.example. {given} IN A 192.0.2.1"])
    assert read(response).answer[0].ttl == expected
    assert read(answer(made, data, 2.0)).answer[0].ttl == expected - 1
    assert forward(made, data, 3.0 + expected).is_new


def test_p18_ttl_zero_is_given_and_not_kept() -> None:
    made = engine()
    assert read(resolve(made, query("www.example."), [WWW.replace("60", "0")])).answer[0].ttl == 0
    assert forward(made, query("www.example."), 1.0).is_new


@pytest.mark.parametrize("rcode", [0, 3])
@pytest.mark.parametrize(
    ("soa_ttl", "minimum", "lifetime"), [(900, 300, 60), (900, 20, 20), (15, 300, 15)], ids=str
)
def test_p18_negative_answers_live_as_their_soa_says(
    rcode: int, soa_ttl: int, minimum: int, lifetime: int
) -> None:
    made = engine()
    data = query("no.example.")
    soa = f"example. {soa_ttl} IN SOA ns.example. host.example. 1 2 3 4 {minimum}"
    resolve(made, data, rcode=rcode, authority=[soa])
    response = read(answer(made, data, 1.0 + lifetime - 0.1))
    assert (response.rcode(), len(response.authority)) == (rcode, 1)
    assert forward(made, data, 2.0 + lifetime).is_new


@pytest.mark.parametrize("rcode", [0, 3])
def test_p18_negative_answers_without_soa_are_not_kept(rcode: int) -> None:
    made = engine()
    assert read(resolve(made, query("no.example."), rcode=rcode)).rcode() == rcode
    assert forward(made, query("no.example."), 1.0).is_new


def test_p18_do_and_cd_answers_are_kept_apart() -> None:
    made = engine()
    resolve(made, query("www.example."), [WWW])
    assert forward(made, query("www.example.", want_dnssec=True), 2.0).is_new
    assert forward(made, query("www.example.", flags=wire.RD | wire.CD), 2.0).is_new
    assert addresses(answer(made, query("www.example.", flags=wire.RD | wire.AD), 2.0)) == ["192.0.2.1"]


def test_p18_other_rcodes_pass_and_are_not_kept() -> None:
    made = engine()
    assert read(resolve(made, query("www.example."), rcode=6)).rcode() == 6
    assert forward(made, query("www.example."), 1.0).is_new


def test_p18_a_ttl_of_32_bits_is_sent_as_zero_and_not_kept() -> None:
    made = engine()
    step = forward(made, query("www.example."))
    attempt = step.exchange.next_attempt(1.0)
    assert attempt is not None
    reply = reply_to(b"\x12\x34" + attempt.payload, ["www.example. 2147483647 IN A 192.0.2.1"])
    step.exchange.receive_reply(reply.replace(b"\x7f\xff\xff\xff", b"\xff\xff\xff\xff"), 1.0)
    (response,) = made.complete(step.exchange, 1.0)
    assert read(response).answer[0].ttl == 0
    assert response.count(bytes(4) + b"\0\x04\xc0\0\x02\x01") == 1
    assert forward(made, query("www.example."), 1.0).is_new


# -- 20: bounds


def test_p20_a_flood_of_names_leaves_the_cache_bounded_and_learned_names_alone() -> None:
    made = engine(hangzhou())
    for number in range(3000):
        name = f"{number}.example."
        resolve(made, query(name), [f"{name} 60 IN A 192.0.2.1"])
    assert len(made.cache) == 1000
    assert addresses(answer(made, query(REGISTRY))) == ["10.94.205.198"]


# -- 21: failures


@pytest.mark.parametrize("rcode", [wire.SERVFAIL, wire.REFUSED, wire.NOTIMP, wire.FORMERR])
def test_p21_an_upstream_that_fails_gives_way_to_the_next(rcode: int) -> None:
    pair = [Upstream("one", ("192.0.2.1", 53)), Upstream("two", ("192.0.2.2", 53))]
    made = engine(upstreams=pair)
    step = forward(made, query("www.example."))
    assert step.exchange.receive_reply(reply_to(sent(step), rcode=rcode), 1.0) is Verdict.NEXT
    second = sent(step)
    assert step.exchange.upstream is pair[1]
    assert step.exchange.receive_reply(reply_to(second, [WWW]), 1.0) is Verdict.DONE


@pytest.mark.parametrize("rcode", [0, 3])
def test_p21_nxdomain_and_nodata_are_final(rcode: int) -> None:
    made = engine(upstreams=[Upstream("one", ("192.0.2.1", 53)), Upstream("two", ("192.0.2.2", 53))])
    step = forward(made, query("www.example."))
    reply = reply_to(sent(step), rcode=rcode, authority=[SOA])
    assert step.exchange.receive_reply(reply, 1.0) is Verdict.DONE
    assert read(made.complete(step.exchange, 1.0)[0]).rcode() == rcode


@pytest.mark.parametrize(("reason", "code"), [(Failure.TIMEOUT, 22), (Failure.NETWORK, 23)])
def test_p21_in_the_end_servfail_with_the_reason(reason: Failure, code: int) -> None:
    made = engine()
    step = forward(made, query("www.example.", use_edns=0))
    while step.exchange.next_attempt(1.0) is not None:
        step.exchange.fail_attempt(reason, 1.0)
    response = made.complete(step.exchange, 1.0)[0]
    assert (read(response).rcode(), ede(response)) == (wire.SERVFAIL, [code])


def test_p21_every_upstream_refusing_is_servfail() -> None:
    response = resolve(engine(), query("www.example.", use_edns=0), rcode=wire.REFUSED)
    assert (read(response).rcode(), ede(response)) == (wire.SERVFAIL, [22])


def test_p21_no_attempt_after_the_total_time_and_none_longer() -> None:
    step = forward(engine(), query("www.example."), 10.0)
    deadlines = []
    now = 10.0
    while (attempt := step.exchange.next_attempt(now)) is not None:
        deadlines.append(attempt.deadline)
        now = attempt.deadline
        step.exchange.fail_attempt(Failure.TIMEOUT, now)
    assert deadlines == pytest.approx([10.8, 11.6, 11.8])


# -- 23: zones (what can be met without a socket)


def test_p23_longest_zone_wins() -> None:
    zones: dict[bytes, tuple[Upstream, ...]] = {
        names.to_key(zone): (Upstream(zone, ("192.0.2.9", 53)),)
        for zone in ("corp.example.", "a.corp.example.")
    }
    made = engine(zones=zones)
    expected = {
        "corp.example.": "corp.example.",
        "X.b.CORP.example.": "corp.example.",
        "a.corp.example.": "a.corp.example.",
        "x.a.corp.example.": "a.corp.example.",
        "xcorp.example.": "one",
        "example.": "one",
    }
    found = {name: forward(made, query(name)).exchange.upstream.name for name in expected}
    assert found == expected


# -- 26: clients


@pytest.mark.parametrize("tcp", [False, True])
@pytest.mark.parametrize("options", [{"use_edns": -1}, {"use_edns": 0}, {"want_dnssec": True}], ids=str)
def test_p26_strangers_are_refused_with_no_more_octets_than_they_sent(
    tcp: bool, options: dict[str, Any]
) -> None:
    made = engine(hangzhou(), allow=["10.0.0.0/8"])
    data = query(REGISTRY, **options)
    response = made.receive(data, CLIENT, 1.0, tcp=tcp)
    assert type(response) is bytes
    assert (read(response).rcode(), read(response).answer) == (wire.REFUSED, [])
    assert len(response) <= len(data)
    assert read(response).edns == read(data).edns
    assert made.stats.drops == {DropReason.REFUSED_CLIENT: 1}
    assert type(made.receive(data, bytes((10, 0, 0, 1)), 1.0, tcp=tcp)) is bytes


def test_p26_the_prepared_table_serves_no_stranger() -> None:
    made = engine(hangzhou(), allow=["10.0.0.0/8"])
    for _ in range(2):
        answered = made.receive(query(REGISTRY), bytes((10, 0, 0, 1)), 1.0)
        assert type(answered) is bytes
        assert addresses(answered) == ["10.94.205.198"]
    refused = made.receive(query(REGISTRY), CLIENT, 1.0)
    assert type(refused) is bytes
    assert read(refused).rcode() == wire.REFUSED


@pytest.mark.parametrize(
    "data", [b"", b"\0" * 11, query("a.example.")[:2] + b"\x80" + query("a.example.")[3:]]
)
def test_p26_strangers_junk_is_dropped(data: bytes) -> None:
    made = engine(allow=["10.0.0.0/8"])
    assert made.receive(data, CLIENT, 1.0) is DropReason.REFUSED_CLIENT


def test_p26_beyond_the_rate_half_is_told_to_use_tcp_and_the_rest_dropped() -> None:
    made = engine(hangzhou(), limiter=RateLimiter(2))
    data = query(REGISTRY, use_edns=0)
    steps = made.receive_batch([data] * 6, [CLIENT] * 6, 1.0)
    told = [step for step in steps if type(step) is bytes]
    assert [bool(read(step).flags & wire.TC) for step in told] == [False, False, True, True]
    assert [steps[2], steps[4]] == [DropReason.RATE_LIMITED] * 2
    assert (read(told[2]).answer, read(told[2]).edns, len(told[2]) <= len(data)) == ([], 0, True)
    assert made.stats.drops == {DropReason.RATE_LIMITED: 4}
    assert addresses(answer(made, data, tcp=True)) == ["10.94.205.198"]


def test_p26_junk_beyond_the_rate_is_dropped() -> None:
    made = engine(limiter=RateLimiter(1))
    steps = made.receive_batch([b"", b"", b"", query("a.")[:15], query("a.")[:15]], [CLIENT] * 5, 1.0)
    assert steps[1:] == [DropReason.RATE_LIMITED] * 4


# -- refusals tell why


@pytest.mark.parametrize(
    ("data", "rcode", "code"),
    [
        (query("a.example.", use_edns=0, flags=0), wire.REFUSED, 20),
        (query("a.example.", "AXFR", use_edns=0), wire.REFUSED, 21),
        (query("version.bind.", "TXT", rdclass="CH", use_edns=0), wire.REFUSED, 21),
    ],
    ids=["no recursion wanted", "meta type", "class CH"],
)
def test_p09_refusals_carry_a_reason(data: bytes, rcode: int, code: int) -> None:
    response = answer(engine(), data)
    assert (read(response).rcode(), ede(response)) == (rcode, [code])


# -- 27: overload


def test_p27_a_full_house_sheds_forwarded_names_and_keeps_answering_learned_ones() -> None:
    made = engine(hangzhou(), max_in_flight=2)
    forward(made, query("a.example."))
    forward(made, query("b.example."))
    assert made.receive(query("c.example."), CLIENT, 1.0) is DropReason.OVERLOADED
    assert not forward(made, query("a.example.", ident=2)).is_new
    assert addresses(answer(made, query(REGISTRY))) == ["10.94.205.198"]


# -- batches, statistics, flush


def test_a_batch_is_answered_in_its_order() -> None:
    made = engine(hangzhou())
    batch = [query(REGISTRY, ident=1), b"junk", query("www.example.", ident=3), query(REGISTRY, ident=4)]
    steps = made.receive_batch(batch, [CLIENT] * 4, 1.0)
    assert type(steps[0]) is bytes
    assert steps[1] is DropReason.SHORT
    assert type(steps[2]) is Forward
    assert type(steps[3]) is bytes
    assert [read(steps[0]).id, read(steps[3]).id] == [1, 4]


def test_statistics_count_each_query_once() -> None:
    made = engine(hangzhou())
    for ident in range(5):
        answer(made, query(REGISTRY, ident=ident))
    resolve(made, query("www.example."), [WWW])
    for ident in range(3):
        answer(made, query("www.example.", ident=ident), 1.5)
    answer(made, query(REGISTRY), 1.5, tcp=True)
    stats = made.stats_now()
    assert stats.requests == {("udp", "A"): 9, ("tcp", "A"): 1}
    assert stats.responses == {("NOERROR", "learned"): 6, ("NOERROR", "forward"): 1, ("NOERROR", "cache"): 3}
    assert (stats.cache_hits, stats.cache_misses) == (3, 1)


def test_flush_forgets_one_name_in_any_type_or_all() -> None:
    made = engine()
    for name, qtype in (("www.example.", "A"), ("www.example.", "AAAA"), ("ww.example.", "A")):
        data = "192.0.2.1" if qtype == "A" else "2001:db8::1"
        resolve(made, query(name, qtype), [f"{name} 60 IN {qtype} {data}"])
    assert made.flush(names.to_key("www.example")) == 2
    assert forward(made, query("www.example."), 1.5).is_new
    assert addresses(answer(made, query("ww.example."), 1.5)) == ["192.0.2.1"]
    assert made.flush(None) == 1
    assert forward(made, query("ww.example."), 1.6).is_new


def test_the_upstreams_of_every_zone_are_listed() -> None:
    extra = Upstream("corp", ("192.0.2.9", 53))
    made = engine(zones={names.to_key("corp.example."): (extra,)})
    assert [upstream.name for upstream in made.upstreams()] == ["one", "corp"]


# -- 38: RCODEs that not every client can have


def test_p38_an_extended_rcode_of_an_upstream_is_servfail_for_a_client_without_edns() -> None:
    for edns, expected in ((-1, wire.SERVFAIL), (0, 23)):
        made = engine()
        assert read(resolve(made, query("www.example.", use_edns=edns), rcode=23)).rcode() == expected


def test_p38_other_opcodes_get_notimp_without_ra_and_cd() -> None:
    data = query("www.example.", flags=wire.RD | wire.CD)
    response = answer(engine(), data[:2] + bytes((data[2] | 0x20,)) + data[3:])
    assert (response[3] & 0xF, response[3] & 0x90, response[2] & 0x01) == (wire.NOTIMP, 0, 1)


# -- 24: private reverse names of owned addresses

REVERSE = "198.205.94.10.in-addr.arpa."


def pointers(data: bytes) -> list[str]:
    """The PTR records of the answer section."""
    return [str(record) for rrset in read(data).answer for record in rrset]


def test_p24_a_private_address_of_owned_names_has_their_names() -> None:
    owned = [*hangzhou(), Owned("a.example.", addresses=("10.94.205.198", "fd00::1"), ttl=20)]
    made = engine(owned)
    response = answer(made, query(REVERSE, "PTR"))
    assert pointers(response) == sorted(["a.example.", REGISTRY])
    assert flags(response) == "QR AA RD RA"
    assert min(rrset.ttl for rrset in read(response).answer) == 20
    assert pointers(answer(made, query(REVERSE, "ANY"))) == pointers(response)
    assert pointers(answer(made, query(dns.reversename.from_address("fd00::1").to_text(), "PTR"))) == [
        "a.example."
    ]
    # A wildcard has no name to give; its parent has.
    assert pointers(answer(made, query("43.28.118.100.in-addr.arpa", "PTR"))) == [OSS]
    # Over TCP, and from what was prepared.
    assert pointers(answer(made, query(REVERSE, "PTR"), tcp=True)) == pointers(response)
    assert answer(made, query(REVERSE, "PTR")) == response


@pytest.mark.parametrize(
    ("name", "qtype", "rcode"),
    [
        (REVERSE, "A", "NOERROR"),
        # What lies above a name that exists does too (RFC 8020).
        ("205.94.10.in-addr.arpa.", "PTR", "NOERROR"),
        ("94.10.in-addr.arpa.", "NS", "NOERROR"),
        ("10.in-addr.arpa.", "NS", "NOERROR"),
        ("199.205.94.10.in-addr.arpa.", "PTR", "NXDOMAIN"),
        (f"1.{REVERSE}", "PTR", "NXDOMAIN"),
        ("95.10.in-addr.arpa.", "PTR", "NXDOMAIN"),
        ("x.10.in-addr.arpa.", "PTR", "NXDOMAIN"),
    ],
)
def test_p24_names_around_it_have_no_data(name: str, qtype: str, rcode: str) -> None:
    response = read(answer(engine(hangzhou()), query(name, qtype)))
    assert (dns.rcode.to_text(response.rcode()), response.answer) == (rcode, [])
    assert str(response.authority[0].name).endswith("10.in-addr.arpa.")


def test_p24_public_addresses_and_zones_of_the_operator_are_forwarded() -> None:
    public = Owned("b.example.", addresses=("8.8.8.8",))
    upstream = Upstream("corp", ("192.0.2.53", 53))
    zones: dict[bytes, tuple[Upstream, ...]] = {names.to_key("10.in-addr.arpa"): (upstream,)}
    made = engine([*hangzhou(), public], zones=zones)
    assert forward(made, query("8.8.8.8.in-addr.arpa.", "PTR"))
    made.swap_rules(Ruleset([*hangzhou(), public], zones))
    assert forward(made, query(REVERSE, "PTR"))


def test_p24_it_follows_the_addresses() -> None:
    made = engine(hangzhou())
    assert pointers(answer(made, query(REVERSE, "PTR"))) == [REGISTRY]
    made.update_rules({REGISTRY: Owned(REGISTRY, addresses=("10.0.0.7",))})
    assert pointers(answer(made, query(REVERSE, "PTR"))) == []
    assert pointers(answer(made, query("7.0.0.10.in-addr.arpa.", "PTR"))) == [REGISTRY]
    made.update_rules({REGISTRY: None})
    assert read(answer(made, query("7.0.0.10.in-addr.arpa.", "PTR"))).rcode() == dns.rcode.NXDOMAIN
    made.swap_rules(Ruleset(hangzhou(), earlier=made.rules))
    assert pointers(answer(made, query(REVERSE, "PTR"))) == [REGISTRY]
    made.swap_rules(Ruleset((), earlier=made.rules))
    assert read(answer(made, query(REVERSE, "PTR"))).rcode() == dns.rcode.NXDOMAIN


def test_p24_it_becomes_stale_and_ends_with_them() -> None:
    made = engine()
    made.swap_rules(aged_rules(ttl=60, max_stale=100.0))
    fresh = answer(made, query(REVERSE, "PTR"), NOW)
    assert (read(fresh).answer[0].ttl, ede(fresh)) == (60, [])
    stale = answer(made, query(REVERSE, "PTR", use_edns=True), STALE_AT + 1)
    assert (read(stale).answer[0].ttl, ede(stale)) == (30, [3])
    assert pointers(answer(made, query(REVERSE, "PTR"), STALE_AT + 101)) == []


def test_p24_many_names_of_one_address_are_bounded() -> None:
    made = engine([Owned(f"n{number}.example.", addresses=("10.0.0.1",)) for number in range(1000)])
    reply = read(answer(made, query("1.0.0.10.in-addr.arpa.", "PTR"), tcp=True))
    assert len(reply.answer[0]) == 8
    assert len(answer(made, query("1.0.0.10.in-addr.arpa.", "PTR", use_edns=False))) <= 512


# -- 34: negative answers


@pytest.mark.parametrize("rcode", [0, 3])
@pytest.mark.parametrize(
    ("soa_ttl", "minimum", "lifetime"), [(900, 300, 60), (900, 20, 20), (15, 300, 15), (900, 0, 0)], ids=str
)
def test_p34_the_soa_carries_the_remaining_lifetime(
    rcode: int, soa_ttl: int, minimum: int, lifetime: int
) -> None:
    made = engine()
    data = query("no.example.")
    soa = f"example. {soa_ttl} IN SOA ns.example. host.example. 1 2 3 4 {minimum}"
    assert read(resolve(made, data, rcode=rcode, authority=[soa])).authority[0].ttl == lifetime
    for age in range(1, lifetime, 7):
        assert read(answer(made, data, 1.0 + age)).authority[0].ttl == lifetime - age


def test_p34_the_soa_of_a_denial_that_min_ttl_prolongs() -> None:
    made = engine(policy=CachePolicy(min_ttl=30, negative_ttl=60))
    data = query("no.example.")
    soa = "example. 900 IN SOA ns.example. host.example. 1 2 3 4 5"
    assert read(resolve(made, data, rcode=3, authority=[soa])).authority[0].ttl == 30
    assert read(answer(made, data, 21.0)).authority[0].ttl == 10


@pytest.mark.parametrize("rcode", [0, 3])
def test_p34_an_alias_without_address_is_kept_only_with_an_soa(rcode: int) -> None:
    made = engine()
    alias = "www.example. 3600 IN CNAME no.example."
    resolve(made, query("www.example."), [alias], rcode=rcode)
    assert forward(made, query("www.example."), 1.0).is_new
    made = engine()
    resolve(made, query("www.example."), [alias], rcode=rcode, authority=[SOA])
    response = read(answer(made, query("www.example."), 11.0))
    assert (response.rcode(), len(response.answer), response.authority[0].ttl) == (rcode, 1, 50)


@pytest.mark.parametrize("qtype", ["A", "SOA", "ANY"])
def test_p34_an_answer_of_the_type_is_positive_whatever_its_authority(qtype: str) -> None:
    made = engine(policy=CachePolicy(negative_ttl=10))
    record = "example. 600 IN A 192.0.2.1" if qtype != "SOA" else SOA.replace(" 900 ", " 600 ")
    data = query("example.", qtype)
    resolve(made, data, [record], authority=[SOA])
    response = read(answer(made, data, 501.0))
    assert (response.answer[0].ttl, response.authority[0].ttl) == (100, 400)


# -- 41: rotation of cached answers


def test_p41_cached_sets_rotate_as_owned_ones_also_when_prepared_over_tcp_and_later() -> None:
    made = engine()
    data = query("www.example.")
    given = ["192.0.2.1", "192.0.2.2", "192.0.2.3"]
    resolve(made, data, [f"www.example. 60 IN A {address}" for address in given])
    for now in (1.0, 2.0, 30.0):
        firsts = [addresses(answer(made, data, now))[0] for _ in range(6)]
        assert (sorted(firsts), firsts[:3]) == (sorted(given * 2), firsts[3:])
        over_tcp = [addresses(answer(made, data, now, tcp=True)) for _ in range(3)]
        assert sorted(each[0] for each in over_tcp) == given
        assert all(sorted(each) == given for each in over_tcp)
    assert {rrset.ttl for rrset in read(answer(made, data, 31.0)).answer} == {30}


def test_p41_without_a_prepared_response_they_rotate_too() -> None:
    made = engine()
    resolve(made, query("www.example."), [WWW, WWW.replace("2.1", "2.2")])
    firsts = [addresses(answer(made, query("www.example."), tcp=True))[0] for _ in range(4)]
    assert firsts[0] != firsts[1]
    assert firsts[:2] == firsts[2:]


def test_p41_a_large_set_starts_elsewhere_in_each_second() -> None:
    made = engine()
    data = query("www.example.")
    resolve(made, data, [f"www.example. 60 IN A 192.0.2.{index}" for index in range(64)])
    large = query("www.example.", use_edns=0, payload=1232)
    firsts = [addresses(answer(made, large, 1.0 + second))[0] for second in range(20)]
    assert len(set(firsts)) == 20


def test_p41_what_is_cut_to_fit_stays_cut() -> None:
    made = engine()
    resolve(made, query("www.example."), [f"www.example. 60 IN A 192.0.2.{index}" for index in range(60)])
    data = query("www.example.", use_edns=False)
    for now in (1.0, 2.0):
        assert read(answer(made, data, now)).flags & dns.flags.TC
