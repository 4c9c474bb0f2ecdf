from __future__ import annotations

from base64 import urlsafe_b64encode

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from dnsproxy.core import doh
from dnsproxy.core.doh import MAX_AGED, MEDIA_TYPE, freshness, get_target, read_reply, read_request
from dnsproxy.errors import WireError
from tests.messages import query, read, reply_to

PATH = "/dns-query"
# RFC 8484 §4.1.1 has this request and the message in it.
RFC_TARGET = "/dns-query?dns=AAABAAABAAAAAAAAA3d3dwdleGFtcGxlA2NvbQAAAQAB"
RFC_MESSAGE = bytes.fromhex("00000100000100000000000003777777076578616d706c6503636f6d0000010001")
ASKED = query("www.example.")
GOOD = reply_to(ASKED, ["www.example. 60 IN A 192.0.2.1", "www.example. 300 IN A 192.0.2.2"])


def post(body: bytes, content_type: str = MEDIA_TYPE) -> bytes | int:
    return read_request(PATH, "POST", PATH, content_type, body)


def get(target: str) -> bytes | int:
    return read_request(PATH, "GET", target, "", b"")


def test_p17_the_example_of_the_rfc() -> None:
    assert get(RFC_TARGET) == RFC_MESSAGE
    assert get_target(PATH, RFC_MESSAGE) == RFC_TARGET
    assert post(RFC_MESSAGE) == RFC_MESSAGE


@given(st.binary(min_size=1, max_size=3000))
def test_p17_any_message_goes_through_by_get(message: bytes) -> None:
    assert get(get_target(PATH, message)) == message


@pytest.mark.parametrize(
    ("target", "status"),
    [
        ("/", 404),
        ("/dns-query/", 404),
        ("/dns-query", 400),
        ("/dns-query?", 400),
        ("/dns-query?dns", 400),
        ("/dns-query?dns=a", 400),
        ("/dns-query?dns=AAA+", 400),
        ("/dns-query?dns=AAAA&dns=AAAA", 400),
        ("/dns-query?dns=AAAA%FF", 400),
        ("/dns-query?" + RFC_TARGET[11:] + "&x=" + "%41" * 65, 400),
        ("/dns-query?" + "&".join(f"a{n}=1" for n in range(20)), 400),
        ("/dns-query?dns=" + "A" * 9000, 414),
        ("https://dns.example/dns-query?dns=AAAA", 404),
    ],
)
def test_p17_a_get_that_is_no_query(target: str, status: int) -> None:
    assert get(target) == status


@pytest.mark.parametrize(
    "target",
    [
        RFC_TARGET + "&x=1",
        "/dns-query?ct=a&" + RFC_TARGET[11:],
        RFC_TARGET + "%3D",
        RFC_TARGET + "&x=" + "%41" * 64,
    ],
)
def test_p17_a_get_with_more_than_needed(target: str) -> None:
    assert get(target) == RFC_MESSAGE


def test_padding_of_base64_is_no_harm() -> None:
    assert get(f"{PATH}?dns={urlsafe_b64encode(b'1234').decode()}") == b"1234"


@pytest.mark.parametrize(
    "content_type", ["", "text/plain", "application/dns-json", "application/dns-message2"]
)
def test_p17_a_post_of_another_type(content_type: str) -> None:
    assert post(RFC_MESSAGE, content_type) == 415


def test_p17_a_post_of_the_type_however_it_is_written() -> None:
    assert post(b"x", "Application/DNS-Message ; charset=x") == b"x"


def test_p17_a_post_that_is_too_long() -> None:
    assert post(bytes(65535)) == bytes(65535)
    assert post(bytes(65536)) == 413


@pytest.mark.parametrize("method", ["PUT", "HEAD", "OPTIONS", "DELETE", "post"])
def test_p17_other_methods(method: str) -> None:
    assert read_request(PATH, method, PATH, MEDIA_TYPE, b"x") == 405


def test_every_status_has_its_text() -> None:
    statuses = {
        value
        for name, value in vars(doh).items()
        if name.isupper() and type(value) is int and 400 <= value < 600
    }
    assert statuses == set(doh.TEXTS)


@given(st.text(max_size=60), st.text(max_size=60), st.text(max_size=30), st.binary(max_size=50))
def test_p10_any_request_is_a_message_or_a_status(method: str, tail: str, kind: str, body: bytes) -> None:
    for asked in (method, "GET", "POST"):
        found = read_request(PATH, asked, PATH + tail, kind, body)
        assert isinstance(found, bytes) or found in doh.TEXTS


# -- replies


def test_p17_caches_may_keep_a_reply_as_long_as_its_shortest_ttl() -> None:
    assert freshness(GOOD) == 60
    negative = reply_to(ASKED, rcode=3, authority=["example. 300 IN SOA a. b. 1 2 3 4 30"])
    assert freshness(negative) == 30
    assert freshness(reply_to(ASKED, rcode=2)) == 0
    assert freshness(GOOD[:-1]) == 0
    assert freshness(b"\0\0\x80\x01" + bytes(8)) == 0


def test_p17_a_reply_that_has_aged_in_a_cache() -> None:
    for edns in (True, False):
        fresh = reply_to(
            ASKED, ["www.example. 60 IN A 192.0.2.1", "www.example. 300 IN A 192.0.2.1"], edns=edns
        )
        aged = read(read_reply(200, MEDIA_TYPE, "100", fresh))
        assert [rrset.ttl for rrset in aged.answer] == [0]
        assert aged.edns == (0 if edns else -1)
        assert read_reply(200, MEDIA_TYPE, "0", fresh) == fresh
    assert read(read_reply(200, MEDIA_TYPE, "9" * 50, GOOD)).answer[0].ttl == 0


@pytest.mark.parametrize("age", ["", "-1", "x", "1.5", "٣"])
def test_an_age_that_is_none_is_not_believed(age: str) -> None:
    assert read_reply(200, MEDIA_TYPE, age, GOOD) == GOOD


@pytest.mark.parametrize(
    ("status", "content_type", "complaint"),
    [
        (404, MEDIA_TYPE, "HTTP status 404"),
        (302, MEDIA_TYPE, "HTTP status 302"),
        (200, "text/html; charset=utf-8", "content of type 'text/html'"),
        (200, "", "content of type 'unknown'"),
    ],
)
def test_p17_a_reply_that_is_no_message(status: int, content_type: str, complaint: str) -> None:
    with pytest.raises(WireError, match=complaint):
        read_reply(status, content_type, "", GOOD)


@given(st.binary(max_size=100))
@example(GOOD[:13])
@example(b"\0\0\x80\0\0\1\0\0\0\0\0\0\xc0")
def test_p10_any_bytes_of_any_age(data: bytes) -> None:
    try:
        assert len(read_reply(200, MEDIA_TYPE, "10", data)) == len(data)
    except WireError:
        assert freshness(data) == 0


def test_p29_a_long_reply_with_an_age_is_refused() -> None:
    """Its TTLs would be changed before anything else of it is known."""
    long = GOOD.ljust(MAX_AGED + 1, b"\0")
    assert read_reply(200, MEDIA_TYPE, "0", long) == long
    with pytest.raises(WireError, match="with an Age"):
        read_reply(200, MEDIA_TYPE, "1", long)
