from __future__ import annotations

import itertools

import pytest

from dnsproxy.core import wire
from dnsproxy.core.question import cache_key, is_refused_type, refusal
from dnsproxy.core.wire import scan_query
from tests.messages import query


@pytest.mark.parametrize(
    ("qtype", "rcode"),
    [
        *(("A", 0), ("TXT", 0), ("ANY", 0), ("TYPE248", 0), ("TYPE65280", 0)),
        *(("TKEY", wire.REFUSED), ("TSIG", wire.REFUSED), ("AXFR", wire.REFUSED), ("IXFR", wire.REFUSED)),
        *(("MAILA", wire.REFUSED), ("OPT", wire.FORMERR)),
    ],
)
def test_types_that_are_not_data_are_refused(qtype: str, rcode: int) -> None:
    scanned = scan_query(query("www.example.", qtype))
    assert refusal(scanned) == rcode
    assert is_refused_type(scanned.qtype) is bool(rcode)


def test_only_the_internet_class_is_served() -> None:
    assert refusal(scan_query(query("www.example.", rdclass="CH"))) == wire.REFUSED


def test_what_changes_an_answer_makes_another_key_and_nothing_else_does() -> None:
    variants = [
        query(name, qtype, flags=flags, want_dnssec=do)
        for name, qtype, flags, do in itertools.product(
            ("www.example.", "ww.example."), ("A", "HTTPS"), (wire.RD, wire.RD | wire.CD), (False, True)
        )
    ]
    keys = [cache_key(scan_query(data)) for data in variants]
    assert len(set(keys)) == len(variants)
    same = query("WWW.Example.", "A", ident=99, flags=wire.RD | wire.AD, use_edns=0)
    assert cache_key(scan_query(same)) == keys[0]
