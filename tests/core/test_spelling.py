"""The spelling of a question that was asked in random case."""

from __future__ import annotations

import pytest

from dnsproxy.core.spelling import restored
from dnsproxy.errors import WireError
from tests.messages import query, read, reply_to

ASKED = query("wWw.eXAMple.")[12:]
SPELLED = query("WWW.example.")[12:]


def test_p35_names_are_restored_wherever_the_upstream_writes_them_out() -> None:
    data = reply_to(
        query("wWw.eXAMple.", "A"),
        [
            "other.eXAMple. 60 IN MX 5 wWw.eXAMple.net.",
            r"o.test. 60 IN TXT wWw",
            "o.test. 60 IN A 3.87.119.119",
        ],
        authority=["eXAMple. 60 IN SOA ns.eXAMple. wWw.test. 1 2 3 4 5"],
    )
    made = restored(data, ASKED, SPELLED)
    assert len(made) == len(data)
    texts = [rrset.to_text() for rrset in (*read(made).answer, *read(made).authority)]
    assert texts == [
        "other.example. 60 IN MX 5 WWW.example.net.",
        'o.test. 60 IN TXT "wWw"',
        "o.test. 60 IN A 3.87.119.119",
        "example. 60 IN SOA ns.example. WWW.test. 1 2 3 4 5",
    ]
    assert read(made).question[0].name.to_text() == "WWW.example."


def test_p35_a_reply_that_repeats_nothing_is_only_given_the_question() -> None:
    data = reply_to(query("wWw.eXAMple."), ["wWw.eXAMple. 60 IN A 192.0.2.1"])
    assert restored(data, ASKED, SPELLED) == data[:12] + SPELLED + data[12 + len(SPELLED) :]


def test_a_name_that_leaves_its_record_is_an_error() -> None:
    head = reply_to(query("wWw.eXAMple."), edns=False)
    data = head[:7] + b"\1" + head[8:] + bytes.fromhex("c00c000500010000003c0004") + b"\3wWw"
    with pytest.raises(WireError):
        restored(data, ASKED, SPELLED)
