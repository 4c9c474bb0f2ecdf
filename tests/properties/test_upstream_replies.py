"""Whatever an upstream sends, each client gets a message whose every length is true."""

from __future__ import annotations

import struct

from hypothesis import given
from hypothesis import strategies as st

from dnsproxy.core.attempt import Verdict
from tests.messages import CLIENT, OSS, engine, forward, hangzhou, query, reply_to

NAME = "www.example."
RECORDS = [
    f"{NAME} 60 IN A 192.0.2.1",
    f"{NAME} 4294967295 IN A 192.0.2.2",
    f"{NAME} 0 IN CNAME bucket.{OSS}",
    f"bucket.{OSS} 60 IN CNAME {NAME}",
    f"other.example. 60 IN CNAME x.{OSS}",
    f"bucket.{OSS} 60 IN A 203.0.113.9",
    f'{NAME} 60 IN TXT "{"x" * 200}"',
    r"www.example. 60 IN TYPE65280 \# 3 c00cff",
    "example. 900 IN SOA ns.example. host.example. 1 2 3 4 300",
]
OPT = b"\0\0\x29\x04\xd0\0\0\x80\0\0\0"
ADDRESS = b"\xc0\x0c\0\1\0\1\0\0\0\x3c\0\4\1\2\3\4"
MUTATION = st.tuples(st.integers(0, 400), st.sampled_from(["set", "insert", "delete"]), st.binary(max_size=4))
QTYPES = st.sampled_from(["A", "AAAA", "CNAME", "ANY"])


def mutated(data: bytes, mutations: list[tuple[int, str, bytes]]) -> bytes:
    """Change ``data`` anywhere behind the id and, mostly, behind the question."""
    for place, how, octets in mutations:
        at = 2 + place % (len(data) - 2)
        end = at if how == "insert" else at + max(1, len(octets))
        data = data[:at] + (b"" if how == "delete" else octets) + data[end:]
    return data


def additional(data: bytes, extra: list[bytes]) -> bytes:
    """Add records to the additional section of a message that has none."""
    return data[:10] + struct.pack(">H", len(extra)) + data[12:] + b"".join(extra)


def skip_name(data: bytes, at: int) -> int:
    while data[at]:
        if data[at] >= 0xC0:
            return at + 2
        assert data[at] < 64
        at += 1 + data[at]
    return at + 1


def check(asked: bytes, response: bytes, limit: int) -> None:
    """Walk through ``response`` by its lengths and counts alone."""
    assert response[:2] == asked[:2]
    assert response[2] & 0x80
    assert len(response) <= limit
    questions, *sections = struct.unpack_from(">HHHH", response, 4)
    assert questions == 1
    at = skip_name(response, 12) + 4
    assert response[12:at].lower() == asked[12:at].lower()
    opts = 0
    for _ in range(sum(sections)):
        at = skip_name(response, at)
        kind, _, _, length = struct.unpack_from(">HHIH", response, at)
        opts += kind == 41
        at += 10 + length
    assert at == len(response)
    assert opts == (asked[11] == 1)


@given(
    st.lists(st.sampled_from(RECORDS), max_size=6),
    st.lists(st.sampled_from([OPT, ADDRESS]), max_size=3),
    st.lists(MUTATION, max_size=3),
    st.sampled_from([0, 3, 2]),
    QTYPES,
)
def test_p10_any_reply_gives_every_client_a_well_formed_response(
    records: list[str],
    extra: list[bytes],
    mutations: list[tuple[int, str, bytes]],
    rcode: int,
    qtype: str,
) -> None:
    made = engine(hangzhou())
    clients = [
        (query(NAME, qtype, ident=1), False, 512),
        (query(NAME, qtype, ident=2, payload=1232), False, 1232),
        (query(NAME.upper(), qtype, ident=3, use_edns=0, flags=0x0120), True, 65535),
    ]
    steps = [forward(made, data, tcp=tcp) for data, tcp, _ in clients]
    assert [step.is_new for step in steps] == [True, False, False]
    exchange = steps[0].exchange
    attempt = exchange.next_attempt(1.0)
    assert attempt is not None
    reply = reply_to(b"\x12\x34" + attempt.payload, records, rcode=rcode, edns=False)
    verdict = exchange.receive_reply(mutated(additional(reply, extra), mutations), 1.0)
    assert (exchange.response is not None) == (verdict is Verdict.DONE)
    for (data, _, limit), response in zip(clients, made.complete(exchange, 1.0), strict=True):
        check(data, response, limit)
    for now in (1.5, 31.25, 1e9):
        for data, tcp, limit in clients:
            again = made.receive(data, CLIENT, now, tcp=tcp)
            if isinstance(again, bytes):
                check(data, again, limit)
