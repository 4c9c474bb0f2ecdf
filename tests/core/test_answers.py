from __future__ import annotations

from typing import Any

import dns.edns
import dns.message
import pytest

from dnsproxy.core import answers, wire
from dnsproxy.core.cache import Cache, Entry
from dnsproxy.core.response import scan_response
from dnsproxy.core.wire import Query, scan_query
from tests.messages import query, read, reply_to

DATA = query("www.example.", use_edns=0)


def entry(*records: str, rcode: int = 0, flags: int = 0) -> Entry:
    data = reply_to(b"\0\0" + query("www.example.")[2:], records, rcode=rcode, flags=flags)
    return Cache(10).keep(b"key", scan_response(data, 29), 100.0)


def asked(**options: Any) -> Query:
    return scan_query(query("www.example.", **options))


def ede(response: dns.message.Message) -> list[int]:
    return [int(option.code) for option in response.options if isinstance(option, dns.edns.EDEOption)]


def test_an_error_carries_its_reasons_to_those_who_read_them() -> None:
    response = read(answers.error(asked(use_edns=0), wire.SERVFAIL, 22, 13))
    assert (response.rcode(), ede(response)) == (2, [22, 13])
    assert read(answers.error(asked(use_edns=-1), wire.SERVFAIL, 22)).edns == -1


@pytest.mark.parametrize(("options", "codes"), [(b"", []), (b"\0\x0a\0\x08abcdefgh", [18])])
def test_p26_a_refusal_is_no_larger_than_what_was_asked(options: bytes, codes: list[int]) -> None:
    data = DATA[:-2] + len(options).to_bytes(2, "big") + options
    response = answers.refuse_stranger(scan_query(data))
    assert len(response) <= len(data)
    assert (read(response).rcode(), ede(read(response))) == (5, codes)


def test_p26_told_to_use_tcp() -> None:
    response = read(answers.truncated(asked()))
    assert (response.rcode(), response.answer, response.id) == (0, [], 4711)
    assert response.flags & wire.TC


@pytest.mark.parametrize(("now", "ttl"), [(100.0, 60), (100.9, 60), (101.0, 59), (159.9, 1)])
def test_p18_fresh_answers_age(now: float, ttl: int) -> None:
    held = entry("www.example. 60 IN A 192.0.2.1")
    assert read(answers.from_entry(asked(), held, now)).answer[0].ttl == ttl


def test_p19_stale_answers_have_short_ttls_a_reason_and_no_ad() -> None:
    held = entry("www.example. 3600 IN CNAME x.example.", "x.example. 5 IN A 192.0.2.1", flags=wire.AD)
    assert read(answers.from_entry(asked(use_edns=0, want_dnssec=True), held, 100.0)).flags & wire.AD
    response = read(answers.from_stale(asked(use_edns=0, want_dnssec=True), held))
    assert [rrset.ttl for rrset in response.answer] == [30, 30]
    assert (response.rcode(), ede(response), response.flags & wire.AD) == (0, [3], 0)


def test_p19_a_stale_denial_says_so() -> None:
    response = read(answers.from_stale(asked(use_edns=0), entry(rcode=3)))
    assert (response.rcode(), ede(response)) == (3, [19])


def large() -> Entry:
    return entry(*(f"www.example. {60 + n} IN A 10.0.{n >> 8}.{n & 255}" for n in range(300)))


def test_p29_no_ttl_is_changed_of_what_will_be_truncated() -> None:
    """A short query must not cost the 4,000 TTLs of an answer that is too long for it."""
    held = large()
    held.ttl_offsets = (70_000,)  # to change a TTL there fails
    for made in (answers.from_entry(asked(), held, 107.0), answers.from_stale(asked(), held)):
        assert read(made).flags & wire.TC
        assert len(made) < 100
    over_tcp = asked()
    over_tcp.limit = wire.TCP_LIMIT
    with pytest.raises(IndexError):
        answers.from_entry(over_tcp, held, 107.0)
    with pytest.raises(IndexError):
        answers.from_stale(over_tcp, held)


def test_p29_a_stale_answer_is_made_once_for_all_who_wait() -> None:
    held, waiting = large(), asked()
    waiting.limit = wire.TCP_LIMIT
    first = answers.from_stale(waiting, held)
    assert {rrset.ttl for rrset in read(first).answer} == {30}
    held.ttl_offsets = (70_000,)  # to change a TTL there fails
    assert all(answers.from_stale(waiting, held) == first for _ in range(1000))
