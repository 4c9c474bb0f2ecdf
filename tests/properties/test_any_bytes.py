"""Whatever comes in, something sensible comes out and nothing is raised."""

from __future__ import annotations

import dns.message
from hypothesis import given
from hypothesis import strategies as st

from dnsproxy.core import wire
from dnsproxy.core.attempt import Failure, Limits
from dnsproxy.core.cache import CachePolicy
from dnsproxy.core.engine import Engine, Forward
from dnsproxy.core.exchange import Exchange
from dnsproxy.core.features import Features
from dnsproxy.core.limiter import RateLimiter
from dnsproxy.core.wire import scan_query
from dnsproxy.errors import DropReason
from tests.messages import CLIENT, REGISTRY, engine, forward, hangzhou, query, reply_to, seeded

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


EVERYTHING = Features(
    prefetch=True,
    nxdomain_cut=True,
    minimal_any=True,
    mix_case=True,
    version="dnsproxy",
    identity="one",
    probe_interval=60.0,
)


def with_everything() -> Engine:
    """An engine that has every feature on, and a probe on its way."""
    made = engine(
        hangzhou(),
        order="race",
        features=EVERYTHING,
        limiter=RateLimiter(1000),
        policy=CachePolicy(stale=3600.0),
        limits=Limits(2.0, 4.0),
        max_in_flight=3,
        draw=seeded().octets,
    )
    made.exchanges.tick(0.0)
    return made


SPECIAL = st.sampled_from(
    [
        *(
            query(name, qtype)
            for name in ("localhost.", "x.local.", "1.0.0.127.in-addr.arpa.")
            for qtype in ("A", "PTR")
        ),
        *(query(name, "TXT", rdclass="CH") for name in ("version.bind.", "id.server.", "other.bind.")),
        query("www.example.", "ANY"),
    ]
)


@given(
    st.lists(
        st.tuples(
            st.one_of(st.binary(max_size=300), WELL_FORMED, MUTATED, SPECIAL),
            st.booleans(),
            st.floats(0, 100),
        ),
        max_size=12,
    ),
    st.lists(st.sampled_from(["answer", "deny", "fail", "junk", "silence"]), min_size=1, max_size=12),
)
def test_p10_with_every_feature_on_nothing_is_raised(
    queries: list[tuple[bytes, bool, float]], fates: list[str]
) -> None:
    made = with_everything()
    now, waiting = 1.0, 0
    for place, (data, tcp, wait) in enumerate(queries):
        now += wait
        made.exchanges.tick(now)
        step = made.receive(data, CLIENT, now, tcp=tcp)
        assert isinstance(step, bytes | Forward | DropReason)
        begun = made.exchanges.begun
        if isinstance(step, Forward):
            step.exchange.waiters.append((step.query, None, None, now))
            waiting += 1
            begun += [step.exchange] if step.is_new else []
        while begun:
            exchange = begun.pop()
            carry_out(exchange, fates[place % len(fates)], now)
            responses = made.complete(exchange, now)
            assert len(responses) == len(exchange.waiters)
            waiting -= len(responses)
            for response in responses:
                assert response[2] & 0x80
    made.exchanges.late.clear()
    assert waiting >= 0


def carry_out(exchange: Exchange, fate: str, now: float) -> None:
    """Do with every attempt of ``exchange`` what ``fate`` says, until there is none."""
    while exchange.response is None and (attempt := exchange.next_attempt(now)) is not None:
        asked = b"\x12\x34" + attempt.payload
        if fate == "silence":
            exchange.fail_attempt(Failure.TIMEOUT, now)
        elif fate == "junk":
            exchange.receive_reply(asked + b"\xff" * 9, now)
            exchange.fail_attempt(Failure.NETWORK, now)
        else:
            rcode = {"answer": 0, "deny": 3, "fail": 2}[fate]
            soa = b"\0\0\x06\0\1\0\0\0\x3c\0\x16\0\0" + b"\0\0\0\x3c" * 5
            end = wire.HEADER + len(exchange.question)
            flags = bytes((0x81, 0x80 | rcode))
            exchange.receive_reply(asked[:2] + flags + b"\0\1\0\0\0\1\0\0" + asked[12:end] + soa, now)


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
