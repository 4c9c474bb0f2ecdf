from __future__ import annotations

import dns.flags
import dns.rcode
import pytest

from dnsproxy.core.gate import limit_client, refuse_client
from dnsproxy.core.limiter import DROP, SLIPS
from dnsproxy.core.stats import Stats
from dnsproxy.errors import DropReason
from tests.messages import REGISTRY, query, read

NOTIFY = bytearray(query(REGISTRY))
NOTIFY[2] |= 0x20


def test_a_query_from_outside_the_allowed_ranges_gets_refused() -> None:
    stats = Stats()
    response = refuse_client(stats, query(REGISTRY))
    assert type(response) is bytes
    got = read(response)
    assert (got.id, got.rcode(), got.answer) == (4711, dns.rcode.REFUSED, [])
    assert stats.drops == {DropReason.REFUSED_CLIENT: 1}
    stats.settle()
    assert stats.responses == {("REFUSED", "error"): 1}


def test_what_is_no_query_gets_nothing_from_there() -> None:
    stats = Stats()
    assert refuse_client(stats, b"\0\1") is DropReason.REFUSED_CLIENT
    assert stats.drops == {DropReason.REFUSED_CLIENT: 1}
    stats.settle()
    assert not stats.responses


def test_a_query_over_the_rate_is_sent_to_tcp() -> None:
    stats = Stats()
    response = limit_client(stats, query(REGISTRY), SLIPS)
    assert type(response) is bytes
    got = read(response)
    assert (got.id, got.rcode(), got.answer) == (4711, dns.rcode.NOERROR, [])
    assert got.flags & dns.flags.TC
    assert stats.drops == {DropReason.RATE_LIMITED: 1}
    stats.settle()
    assert stats.responses == {("NOERROR", "error"): 1}


@pytest.mark.parametrize(
    ("data", "verdict"),
    [(query(REGISTRY), DROP), (b"\0\1", SLIPS), (bytes(NOTIFY), SLIPS)],
    ids=["verdict", "short", "opcode"],
)
def test_the_rest_over_the_rate_is_dropped(data: bytes, verdict: int) -> None:
    stats = Stats()
    assert limit_client(stats, data, verdict) is DropReason.RATE_LIMITED
    assert stats.drops == {DropReason.RATE_LIMITED: 1}
    stats.settle()
    assert not stats.responses
