from __future__ import annotations

from ipaddress import ip_address

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dnsproxy.core.proxy_protocol import MAX_HEADER, Header, header_length, read_header
from dnsproxy.errors import DropReason, WireError
from tests.fakes.proxy_header import LOCAL, PROXY, SIGNATURE, header, raw_header

V4, V6 = ip_address("198.51.100.7").packed, ip_address("2001:db8::7").packed
# Each is 16 bytes and two addresses with two ports.
WHOLE = [
    (header("198.51.100.7", 4242), Header(28, V4, 4242)),
    (header("198.51.100.7", 4242, tcp=True), Header(28, V4, 4242)),
    (header("2001:db8::7", 65535), Header(52, V6, 65535)),
    (header("2001:db8::7", 0, tcp=True), Header(52, V6, 0)),
    # A load balancer that listens on IPv6 for both.
    (header("::ffff:198.51.100.7", 1), Header(52, V4, 1)),
    (header(vectors=b"\x03\x00\x04abcd"), Header(35, V4, 4242)),
    (header(vectors=bytes(MAX_HEADER - 28)), Header(MAX_HEADER, V4, 4242)),
    # The peer asks itself, such as for a health check, whatever else the header has.
    (raw_header(LOCAL, 0x00, b""), Header(16)),
    (raw_header(LOCAL, 0x11, bytes(12)), Header(28)),
    (raw_header(LOCAL, 0xFF, b"abc"), Header(19)),
    # UNSPEC: the peer does not know the client.
    (raw_header(PROXY, 0x00, b""), Header(16)),
    (raw_header(PROXY, 0x00, b"abc"), Header(19)),
]


@pytest.mark.parametrize(("data", "expected"), WHOLE)
def test_a_whole_header(data: bytes, expected: Header) -> None:
    assert read_header(data) == expected
    assert read_header(data + b"the query") == expected
    assert header_length(data) == expected.length


@pytest.mark.parametrize("data", [data for data, _ in WHOLE])
def test_a_truncated_header_says_how_much_is_missing(data: bytes) -> None:
    for end in range(len(data)):
        assert header_length(data[:end]) == (16 if end < 16 else len(data))
        with pytest.raises(WireError) as caught:
            read_header(data[:end])
        assert caught.value.reason is DropReason.PROXY_HEADER


@pytest.mark.parametrize(
    "data",
    [
        b"\x12\x34\x01\x00\x00\x01\x00\x00\x00\x00\x00\x00",  # a query
        b"PROXY TCP4 198.51.100.7 198.51.100.8 1 2\r\n",  # version 1
        SIGNATURE[:11] + b"\x0b",
        SIGNATURE[:3] + b"x",
        raw_header(0x11, 0x11, bytes(12)),  # another version
        raw_header(0x31, 0x11, bytes(12)),
        raw_header(0x22, 0x11, bytes(12)),  # another command
        raw_header(LOCAL, 0x00, bytes(MAX_HEADER - 15)),
        raw_header(PROXY, 0x11, bytes(MAX_HEADER - 15)),
        raw_header(PROXY, 0x11, b"", length=0xFFFF),
    ],
)
def test_no_header_is_refused_at_the_first_bytes(data: bytes) -> None:
    for accept in (header_length, read_header):
        with pytest.raises(WireError) as caught:
            accept(data)
        assert caught.value.reason is DropReason.PROXY_HEADER


@pytest.mark.parametrize(
    "data",
    [
        raw_header(PROXY, 0x11, bytes(11)),
        raw_header(PROXY, 0x12, b""),
        raw_header(PROXY, 0x21, bytes(35)),
        raw_header(PROXY, 0x22, bytes(12)),
        raw_header(PROXY, 0x31, bytes(216)),  # Unix sockets
        raw_header(PROXY, 0x32, bytes(216)),
        raw_header(PROXY, 0x10, bytes(12)),  # IPv4 without a transport
        raw_header(PROXY, 0x01, b""),
        raw_header(PROXY, 0x41, bytes(36)),
        raw_header(PROXY, 0x13, bytes(12)),
    ],
)
def test_addresses_that_are_not_known_or_not_there_are_refused(data: bytes) -> None:
    with pytest.raises(WireError) as caught:
        read_header(data)
    assert caught.value.reason is DropReason.PROXY_HEADER


@given(st.binary(max_size=600) | st.binary(max_size=600).map(SIGNATURE.__add__))
def test_any_bytes_are_a_header_or_refused(data: bytes) -> None:
    try:
        found = read_header(data)
    except WireError as exc:
        refused = exc.reason
    else:
        assert 16 <= found.length <= min(len(data), MAX_HEADER)
        assert len(found.address) in {0, 4, 16}
        return
    assert refused is DropReason.PROXY_HEADER
