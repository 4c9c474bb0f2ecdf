"""Whatever comes in, something sensible comes out and nothing is raised."""

from __future__ import annotations

import dns.message
from hypothesis import given
from hypothesis import strategies as st

from dnsproxy.core import wire
from dnsproxy.core.engine import Forward
from dnsproxy.core.wire import scan_query
from dnsproxy.errors import DropReason
from tests.messages import CLIENT, REGISTRY, engine, forward, hangzhou, query, reply_to

LABEL = st.binary(min_size=1, max_size=20).map(lambda octets: bytes((len(octets),)) + octets)
NAME = st.lists(LABEL, max_size=6).map(lambda labels: b"".join(labels) + b"\0")
WELL_FORMED = st.builds(
    lambda ident, flags, name, qtype, opt: (
        ident
        + (flags & 0x7FFF).to_bytes(2, "big")
        + b"\0\1\0\0\0\0\0"
        + (b"\1" if opt else b"\0")
        + name
        + qtype.to_bytes(2, "big")
        + b"\0\1"
        + opt
    ),
    st.binary(min_size=2, max_size=2),
    st.sampled_from([0x0000, 0x0100, 0x0110, 0x0120, 0x7900]),
    NAME,
    st.integers(0, 0xFFFF),
    st.sampled_from([b"", b"\0\0\x29\x04\xd0\0\0\x80\0\0\0", b"\0\0\x29\x00\x00\0\1\0\0\0\0"]),
)
MUTATED = st.builds(
    lambda base, at, octets: base[: at % len(base)] + octets + base[at % len(base) :],
    st.sampled_from(
        [query(REGISTRY, use_edns=0), query("www.example."), query("x.example.", "TXT", use_edns=0)]
    ),
    st.integers(0, 200),
    st.binary(max_size=8),
)


@given(st.one_of(st.binary(max_size=600), WELL_FORMED, MUTATED), st.booleans())
def test_p10_any_query_gives_a_response_a_forward_or_a_named_drop(data: bytes, tcp: bool) -> None:
    made = engine(hangzhou())
    step = made.receive(data, CLIENT, 1.0, tcp=tcp)
    if type(step) is bytes:
        assert step[:2] == data[:2]
        assert step[2] & 0x80
        assert tcp or len(step) <= 1232
        if step[2] & 0x78 == 0:  # dnspython reads other opcodes, such as UPDATE, as other messages
            assert len(dns.message.from_wire(step).question) <= 1
    else:
        assert isinstance(step, Forward | DropReason)


@given(
    st.one_of(st.binary(max_size=600), st.binary(max_size=300).map(lambda tail: b"\x12\x34\x81\x80" + tail)),
    st.binary(max_size=80),
)
def test_p10_any_upstream_bytes_give_at_worst_servfail(junk: bytes, tail: bytes) -> None:
    made = engine(hangzhou())
    waiting = forward(made, query("www.example."))
    exchange = waiting.exchange
    attempt = exchange.next_attempt(1.0)
    assert attempt is not None
    question_only = reply_to(b"\x12\x34" + attempt.payload, edns=False)
    for data in (junk, question_only[:6] + tail[:6].ljust(6, b"\0") + question_only[12:] + tail):
        exchange.receive_reply(data, 1.0)
    (response,) = made.complete(exchange, 1.0)
    scanned = scan_query(response[:2] + b"\1\0" + response[4:6] + b"\0" * 6 + response[12 : 12 + 17])
    assert scanned.key == b"\3www\7example\0"
    assert response[2] & 0x80
    assert len(response) <= 1232


@given(
    st.lists(st.text("abcxyz09-", min_size=1, max_size=12), min_size=1, max_size=5),
    st.integers(1, 0xFF00),
    st.integers(0, 4096),
    st.booleans(),
)
def test_queries_of_another_codec_are_understood(
    labels: list[str], qtype: int, payload: int, do: bool
) -> None:
    data = query(".".join(labels) + ".", f"TYPE{qtype}", use_edns=0, payload=payload, want_dnssec=do)
    scanned = scan_query(data)
    assert scanned.rcode == wire.NOERROR
    assert (scanned.qtype, scanned.do, scanned.edns) == (qtype, do, True)
    assert scanned.key == b"".join(bytes((len(label),)) + label.encode() for label in labels) + b"\0"
    assert scanned.limit == min(max(payload, 512), 1232)
