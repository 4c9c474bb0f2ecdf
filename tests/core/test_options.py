from __future__ import annotations

import dns.edns
import dns.message
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from dnsproxy.core import options, wire
from tests.messages import query, read, reply_to

KEEPALIVE = dns.edns.GenericOption(dns.edns.OptionType.make(11), b"")
PADDING = dns.edns.GenericOption(dns.edns.OptionType.make(12), b"\0" * 5)


def asking(*asked: dns.edns.Option) -> bytes:
    return query("www.example.", use_edns=0, options=list(asked))


def response(records: int = 1) -> bytes:
    return reply_to(
        query("www.example.", use_edns=0), [f"www.example. 60 IN A 192.0.2.{n}" for n in range(records)]
    )


def codes(message: bytes) -> list[int]:
    return [int(option.otype) for option in read(message).options]


def test_options_are_read_by_code() -> None:
    assert options.read_options(asking(KEEPALIVE, PADDING)) == {11: b"", 12: b"\0" * 5}
    assert options.read_options(asking()) == {}
    assert options.read_options(query("www.example.")) == {}


@given(st.binary(max_size=300))
@example(asking(KEEPALIVE)[:-1])
@example(asking(KEEPALIVE, PADDING)[:-4])
def test_p10_any_bytes_have_options_or_none(data: bytes) -> None:
    assert isinstance(options.read_options(data), dict)
    assert options.keepalive_told(data) is None or len(data) > 12


@pytest.mark.parametrize("cut", range(1, 20))
def test_p10_a_message_cut_short_has_no_options(cut: int) -> None:
    assert options.read_options(asking(KEEPALIVE, PADDING)[:-cut]) == {}


@pytest.mark.parametrize("records", range(60))
def test_p17_responses_are_padded_to_blocks(records: int) -> None:
    made = options.for_encrypted(asking(PADDING), response(records), None)
    assert len(made) % 468 == 0
    assert codes(made) == [12]
    assert read(made).answer == read(response(records)).answer


def test_p17_queries_are_padded_to_blocks() -> None:
    made = options.padded(asking(), options.QUERY_BLOCK)
    assert (len(made), codes(made)) == (128, [12])
    assert set(options.read_options(made)[12]) == {0}


def test_p17_only_who_asked_for_padding_gets_it() -> None:
    assert options.for_encrypted(asking(), response(), None) == response()
    assert options.for_encrypted(query("www.example."), response(), None) == response()
    # The octets of the option's code elsewhere in the message are no request.
    assert options.for_encrypted(query("a\\000\\012b.example.", use_edns=0), response(), None) == response()


def test_p14_a_response_without_opt_stays_without() -> None:
    plain = reply_to(query("www.example."), edns=False)
    assert options.padded(plain, 468) == plain
    assert options.with_keepalive(plain, 10) == plain


def test_p17_the_idle_time_is_told_to_who_asks_in_tenths_of_a_second() -> None:
    for tell in (options.for_stream, options.for_encrypted):
        made = tell(asking(KEEPALIVE), response(), 10.0)
        assert {option.otype: option.to_wire() for option in read(made).options} == {11: b"\x00\x64"}
        assert options.keepalive_told(made) == 10.0
        assert tell(asking(), response(), 10.0) == response()
    assert options.for_encrypted(asking(KEEPALIVE), response(), None) == response()


def test_p17_both_options_at_once() -> None:
    made = options.for_encrypted(asking(KEEPALIVE, PADDING), response(), 2.5)
    assert (len(made), codes(made)) == (468, [11, 12])
    assert options.keepalive_told(made) == 2.5


def test_a_long_idle_time_is_the_longest_that_fits() -> None:
    assert options.keepalive_told(options.with_keepalive(response(), 1e9)) == 6553.5


def test_an_extended_error_stays() -> None:
    asked = wire.scan_query(asking(KEEPALIVE, PADDING))
    made = wire.respond(asked, 0, wire.SERVFAIL, (0, 0, 0), b"", wire.error_option(22))
    assert codes(options.for_encrypted(asked.data, made, 10.0)) == [15, 11, 12]


def test_no_message_grows_over_what_the_length_can_say() -> None:
    large = dns.message.from_wire(response())
    large.use_edns(0, options=[dns.edns.GenericOption(dns.edns.OptionType.make(65001), bytes(65_465))])
    whole = large.to_wire(max_size=65535)
    assert len(options.padded(whole, 468)) == 65535
    assert options.with_option(whole, bytes(4 + 65535 - len(whole))) == whole


def _with_options(count: int) -> bytes:
    """A query whose OPT has ``count`` options, the last of them KEEPALIVE."""
    plain = asking()
    return plain[:-2] + (4 * count).to_bytes(2, "big") + b"\xfd\xe9\0\0" * (count - 1) + b"\0\x0b\0\0"


def test_p29_options_over_the_bound_are_not_read() -> None:
    most = _with_options(wire.MAX_OPTIONS)
    assert options.for_stream(most, response(), 10.0) != response()
    assert wire.scan_query(most).rcode == wire.NOERROR
    over = _with_options(wire.MAX_OPTIONS + 1)
    assert options.for_stream(over, response(), 10.0) == response()
    assert wire.scan_query(over).rcode == wire.FORMERR


def test_p29_an_opt_is_looked_for_among_the_first_records_of_a_query() -> None:
    plain, extra = query("www.example."), b"\0\xfd\xe9\0\1\0\0\0\0\0\0"
    opt = asking(KEEPALIVE)[len(plain) :]
    for before, found in ((0, {11: b""}), (15, {11: b""}), (16, {})):
        counts = (before + 2).to_bytes(2, "big")
        asked = plain[:10] + counts + plain[12:] + extra * before + opt + extra
        assert options.read_options(asked) == found
        assert wire.scan_query(asked).edns


def test_what_looks_like_an_opt_is_none_without_additional_records() -> None:
    looks = reply_to(
        query("www.example."), [r"www.example. 60 IN TXT \000\000\041abcdef\000\000"], edns=False
    )
    assert looks.endswith(b"\0\0\x29abcdef\0\0")
    assert options.with_keepalive(looks, 10) == looks
