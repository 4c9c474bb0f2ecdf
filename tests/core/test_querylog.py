from __future__ import annotations

import json
from ipaddress import ip_address
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dnsproxy.core.querylog import FIELDS, QueryLines, client_text, truncated, type_text
from dnsproxy.core.seen import DROPPED, Seen
from dnsproxy.core.stats import FORWARD
from tests.messages import query, reply_to

V4, V6 = ip_address("192.0.2.77").packed, ip_address("2001:db8:1:2345::9").packed


def seen(data: bytes = query("WWW.Example.", "AAAA"), client: bytes = V4, **facts: Any) -> Seen:
    made = Seen([], "udp", client, 5353, data, 10.0)
    made.wall, made.duration = 1_764_000_000.25, 0.0123456789
    made.source, made.upstream = FORWARD, "10.0.0.2:53"
    made.response = reply_to(query("www.example.", "AAAA"), rcode=3)
    for name, value in facts.items():
        setattr(made, name, value)
    return made


def line(given: Seen, lines: QueryLines | None = None) -> dict[str, Any]:
    text = (lines or QueryLines()).line(given)
    assert text.endswith(b"\n")
    assert text.count(b"\n") == 1
    return dict(json.loads(text))


def test_a_whole_line() -> None:
    assert line(seen()) == {
        "time": "2025-11-24T16:00:00.250000Z",
        "client": "192.0.2.77",
        "protocol": "udp",
        "name": "www.example.",
        "type": "AAAA",
        "rcode": "NXDOMAIN",
        "source": "forward",
        "upstream": "10.0.0.2:53",
        "duration": 0.012346,
        "size": len(seen().response),
    }


def test_what_does_not_apply_is_left_out() -> None:
    dropped = seen(b"short", response=b"", source=DROPPED, upstream="", reason="short")
    assert set(line(dropped)) == {"time", "client", "protocol", "source", "duration", "reason"}
    assert (line(dropped)["source"], line(dropped)["reason"]) == ("dropped", "short")


def test_a_question_that_cannot_be_read_has_no_name() -> None:
    header_only = query("www.example.")[:12]
    assert {"name", "type"} & set(line(seen(header_only))) == set()


def test_only_the_fields_that_are_wanted_in_one_order() -> None:
    assert list(line(seen(), QueryLines(["rcode", "name"]))) == ["name", "rcode"]


@pytest.mark.parametrize(
    ("clients", "four", "six"),
    [
        ("full", "192.0.2.77", "2001:db8:1:2345::9"),
        ("prefix", "192.0.2.0/24", "2001:db8:1:2300::/56"),
        ("omit", None, None),
    ],
)
def test_how_much_of_a_client_is_told(clients: str, four: str | None, six: str | None) -> None:
    lines = QueryLines(clients=clients)
    assert line(seen(), lines).get("client") == four
    assert line(seen(client=V6), lines).get("client") == six


def test_names_may_be_left_out() -> None:
    found = line(seen(), QueryLines(names="omit"))
    assert "name" not in found
    assert b"xample" not in QueryLines(names="omit").line(seen())


@given(st.one_of(st.binary(min_size=4, max_size=4), st.binary(min_size=16, max_size=16)))
def test_a_truncated_address_tells_only_the_prefix(address: bytes) -> None:
    kept = 3 if len(address) == 4 else 7
    assert truncated(address) == address[:kept] + bytes(len(address) - kept)
    assert client_text(address, "prefix").split("/")[0] == str(ip_address(truncated(address)))


@given(st.binary(max_size=80))
def test_any_query_makes_one_line(data: bytes) -> None:
    assert set(line(seen(data))) <= set(FIELDS)


def test_a_type_without_a_name() -> None:
    assert (type_text(28), type_text(65280)) == ("AAAA", "TYPE65280")
