from __future__ import annotations

import asyncio
import socket
import struct
from contextlib import suppress

import pytest
from dnslib import CNAME, NS, QTYPE, RR, A, DNSRecord
from hypothesis import given, settings
from hypothesis import strategies as st

from dnsproxy.core import names
from dnsproxy.core.registry import Wanted
from dnsproxy.core.upstreams import Upstream
from dnsproxy.errors import ResolveError
from dnsproxy.helper.observe import Answer
from dnsproxy.helper.resolve import MAX_CHAIN, MAX_RESPONSE, Patience, _Lookup, _Message, look, resolve
from dnsproxy.settings.values import Endpoint
from tests.fakes.nameserver import Handle, Nameserver, Reply, closed_port, zone

A_TYPE, AAAA_TYPE = 1, 28
# Long enough for a loaded machine, short enough that silence does not hold the tests up.
BRISK = Patience(timeout=0.5, attempts=2)
NAME = "a.example."


def answered(query: DNSRecord, *addresses: str, ttl: int = 60) -> DNSRecord:
    reply = query.reply(ra=1, aa=0)
    for address in addresses:
        reply.add_answer(RR(query.q.qname, QTYPE.A, rdata=A(address), ttl=ttl))
    return reply


def rcode(query: DNSRecord, code: int) -> DNSRecord:
    reply = query.reply(ra=1, aa=0)
    reply.header.rcode = code
    return reply


async def ask(handle: Handle, name: str = NAME, qtype: int = A_TYPE) -> tuple[Answer, Nameserver]:
    async with Nameserver(handle) as server:
        return await resolve(name, qtype, server.endpoint, BRISK), server


async def failure(handle: Handle, name: str = NAME) -> str:
    async with Nameserver(handle) as server:
        with pytest.raises(ResolveError) as caught:
            await resolve(name, A_TYPE, server.endpoint, BRISK)
        assert str(caught.value).startswith(f"{server.endpoint}: ")
    return str(caught.value)


async def test_the_whole_address_set_comes_back_sorted() -> None:
    answer, server = await ask(
        zone("a.example. 300 A 192.0.2.20\na.example. 40 A 192.0.2.3\nb.example. 1 A 192.0.2.9")
    )
    assert answer == Answer(("192.0.2.3", "192.0.2.20"), 40, None)
    assert server.queries == {(NAME, "A", "udp"): 1}


async def test_aaaa_records_are_read() -> None:
    answer, _ = await ask(zone("a.example. 60 AAAA 2001:db8:0:0::1"), qtype=AAAA_TYPE)
    assert answer.addresses == ("2001:db8::1",)


async def test_the_query_asks_for_recursion_and_offers_1232_octets() -> None:
    seen: list[DNSRecord] = []

    def handle(query: DNSRecord) -> DNSRecord:
        seen.append(query)
        return answered(query, "192.0.2.1")

    await ask(handle)
    assert seen[0].header.rd == 1
    assert [(rr.rtype, rr.rclass) for rr in seen[0].ar] == [(QTYPE.OPT, 1232)]


async def test_a_chain_inside_one_response_is_followed_and_its_smallest_ttl_counts() -> None:
    answer, server = await ask(
        zone("a.example. 5 CNAME b.example.\nb.example. 90 CNAME c.example.\nc.example. 60 A 192.0.2.1")
    )
    assert answer == Answer(("192.0.2.1",), 5, "c.example.")
    assert server.total == 1


async def test_a_chain_that_leaves_the_response_is_asked_for_again() -> None:
    links = {"a.example.": "b.example.", "b.example.": "c.other."}

    def handle(query: DNSRecord) -> DNSRecord:
        target = links.get(str(query.q.qname))
        if target is None:
            return answered(query, "192.0.2.1", ttl=90)
        reply = query.reply(ra=1, aa=0)
        reply.add_answer(RR(query.q.qname, QTYPE.CNAME, rdata=CNAME(target), ttl=33))
        return reply

    answer, server = await ask(handle)
    assert answer == Answer(("192.0.2.1",), 33, "c.other.")
    assert [name for name, _, _ in server.queries] == ["a.example.", "b.example.", "c.other."]


async def test_records_of_names_outside_the_chain_are_not_taken() -> None:
    def handle(query: DNSRecord) -> DNSRecord:
        reply = answered(query, "192.0.2.1")
        reply.add_answer(RR("other.example.", QTYPE.A, rdata=A("203.0.113.66"), ttl=1))
        reply.add_answer(RR(NAME, QTYPE.A, rclass=3, rdata=A("203.0.113.67"), ttl=1))
        return reply

    answer, _ = await ask(handle)
    assert answer == Answer(("192.0.2.1",), 60)


@pytest.mark.parametrize("within", [True, False])
async def test_a_cname_loop_is_an_error(within: bool) -> None:
    links = {"a.example.": "b.example.", "b.example.": "a.example."}

    def handle(query: DNSRecord) -> DNSRecord:
        reply = query.reply(ra=1, aa=0)
        owners = list(links) if within else [str(query.q.qname)]
        for owner in owners:
            reply.add_answer(RR(owner, QTYPE.CNAME, rdata=CNAME(links[owner]), ttl=60))
        return reply

    assert "CNAME loop at a.example." in await failure(handle)


async def test_a_chain_may_have_as_many_links_as_the_limit_and_no_more() -> None:
    def handle(query: DNSRecord) -> DNSRecord:
        number = int(str(query.q.qname).split(".")[0])
        if number == 0:
            return answered(query, "192.0.2.1")
        reply = query.reply(ra=1, aa=0)
        reply.add_answer(RR(query.q.qname, QTYPE.CNAME, rdata=CNAME(f"{number - 1}.example."), ttl=60))
        return reply

    answer, _ = await ask(handle, f"{MAX_CHAIN}.example.")
    assert answer.target == "0.example."
    assert f"more than {MAX_CHAIN} links" in await failure(handle, f"{MAX_CHAIN + 1}.example.")


async def test_a_truncated_response_is_asked_for_again_over_tcp() -> None:
    addresses = [f"192.0.2.{n}" for n in range(1, 101)]

    def handle(query: DNSRecord) -> DNSRecord:
        if server.over_tcp:
            return answered(query, *addresses)
        reply = answered(query, "192.0.2.1")
        reply.header.tc = 1
        return reply

    async with Nameserver(handle) as server:
        answer = await resolve(NAME, A_TYPE, server.endpoint, BRISK)
    assert len(answer.addresses) == 100
    assert server.queries == {(NAME, "A", "udp"): 1, (NAME, "A", "tcp"): 1}


async def test_a_tcp_endpoint_is_asked_over_tcp_alone() -> None:
    async with Nameserver(zone("a.example. 60 A 192.0.2.1")) as server:
        endpoint = server.endpoint._replace(transport="tcp")
        assert (await resolve(NAME, A_TYPE, endpoint, BRISK)).addresses == ("192.0.2.1",)
    assert server.queries == {(NAME, "A", "tcp"): 1}


def wrong_ones(query: DNSRecord) -> dict[str, bytes]:
    lie = bytes(answered(query, "203.0.113.66").pack())
    (identity,) = struct.unpack_from(">H", lie)
    other = DNSRecord.question("evil.example.")
    other.header.id = identity
    other_type = DNSRecord.question(NAME, "AAAA")
    other_type.header.id = identity
    truncated_lie = struct.pack(">HH", identity ^ 1, 0x8380) + lie[4:]
    return {
        "wrong id": struct.pack(">H", identity ^ 1) + lie[2:],
        "wrong question": bytes(other.reply().pack()),
        "wrong type": bytes(other_type.reply().pack()),
        "not a response": lie[:2] + bytes([lie[2] & 0x7F]) + lie[3:],
        "another opcode": lie[:2] + bytes([lie[2] | 0x20]) + lie[3:],
        "no question": lie[:4] + b"\0\0" + lie[6:],
        "header only": lie[:12],
        "empty": b"",
        "garbage": b"\xff" * 40,
        "cut in the answer": lie[:-2],
        "record data of the wrong length": lie[:-6] + struct.pack(">H", 3) + lie[-4:],
        "false truncation": truncated_lie,
        "self-pointing owner": lie[:7] + b"\x01" + lie[8:27] + b"\xc0\x1b" + lie[29:],
    }


KINDS = list(wrong_ones(DNSRecord.question(NAME)))


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("transport", ["udp", "tcp"])
async def test_a_wrong_reply_never_ends_the_wait_for_the_good_one(kind: str, transport: str) -> None:
    def handle(query: DNSRecord) -> list[Reply]:
        return [wrong_ones(query)[kind], answered(query, "192.0.2.1")]

    async with Nameserver(handle) as server:
        endpoint = server.endpoint._replace(transport=transport)
        answer = await resolve(NAME, A_TYPE, endpoint, BRISK)
    assert answer.addresses == ("192.0.2.1",)
    assert server.total == 1


async def test_the_case_of_the_question_does_not_matter() -> None:
    def handle(query: DNSRecord) -> bytes:
        reply = bytearray(answered(query, "192.0.2.1").pack())
        reply[13:14] = b"A"
        return bytes(reply)

    answer, _ = await ask(handle)
    assert answer.addresses == ("192.0.2.1",)


async def test_silence_is_tried_again_and_then_named() -> None:
    async with Nameserver(lambda _: None) as server:
        with pytest.raises(ResolveError, match=r"no response within 0.2 s \(2 attempts\)"):
            await resolve(NAME, A_TYPE, server.endpoint, Patience(0.2, 2))
        assert server.total == 2


async def test_a_lost_query_is_made_up_for_by_the_second_attempt() -> None:
    def handle(query: DNSRecord) -> DNSRecord | None:
        return answered(query, "192.0.2.1") if server.total > 1 else None

    async with Nameserver(handle) as server:
        assert (await resolve(NAME, A_TYPE, server.endpoint, BRISK)).addresses == ("192.0.2.1",)


async def test_p28_a_flood_of_wrong_replies_ends_at_the_deadline() -> None:
    loop = asyncio.get_running_loop()
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        sock.bind(("127.0.0.1", 0))
        sock.setblocking(False)

        async def flood() -> None:
            _, client = await loop.sock_recvfrom(sock, 512)
            while True:
                # As many as its socket holds, each time that it has had its turn.
                for _ in range(100):
                    sock.sendto(b"\xff" * 40, client)
                await asyncio.sleep(0)

        flooding = loop.create_task(flood())
        with pytest.raises(ResolveError, match=r"no response within 0.3 s"):
            async with asyncio.timeout(20):
                await resolve(NAME, A_TYPE, Endpoint(*sock.getsockname()), Patience(0.3, 1))
        flooding.cancel()
        with suppress(asyncio.CancelledError):
            await flooding


@pytest.mark.parametrize("transport", ["udp", "tcp"])
async def test_p28_a_closed_port_is_told_from_silence(transport: str) -> None:
    endpoint = closed_port()._replace(transport=transport)
    with pytest.raises(ResolveError, match="connection refused"):
        # The deadline is far off: the refusal itself must end the wait.
        async with asyncio.timeout(20):
            await resolve(NAME, A_TYPE, endpoint, Patience(60, 2))


async def test_only_unreadable_responses_are_named_as_such() -> None:
    assert "cannot be decoded" in await failure(lambda query: wrong_ones(query)["cut in the answer"])


async def test_a_response_over_the_size_limit_is_not_decoded() -> None:
    reason = await failure(lambda query: bytes(answered(query, "192.0.2.1").pack()) + bytes(MAX_RESPONSE))
    assert f"limit is {MAX_RESPONSE}" in reason


async def test_a_tcp_connection_that_closes_early_is_named() -> None:
    async def close(_reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.close()

    listener = await asyncio.start_server(close, "127.0.0.1", 0)
    async with listener:
        port = listener.sockets[0].getsockname()[1]
        with pytest.raises(ResolveError, match=r"closed before a response|reset by peer"):
            await resolve(NAME, A_TYPE, Endpoint("127.0.0.1", port, "tcp"), BRISK)


async def test_p22_a_resolver_that_sends_messages_without_end_is_left() -> None:
    async def flood(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readexactly(2)
        writer.write(bytes(200_000))
        with suppress(ConnectionError):
            await writer.drain()
            await reader.read(-1)
        writer.close()

    listener = await asyncio.start_server(flood, "127.0.0.1", 0)
    async with listener:
        port = listener.sockets[0].getsockname()[1]
        with pytest.raises(ResolveError, match="10 messages that are no response"):
            # The deadline is far off.
            async with asyncio.timeout(20):
                await resolve(NAME, A_TYPE, Endpoint("127.0.0.1", port, "tcp"), Patience(60, 2))


@pytest.mark.parametrize(("code", "text"), [(2, "SERVFAIL"), (3, "NXDOMAIN"), (5, "REFUSED"), (9, "RCODE9")])
async def test_an_error_rcode_is_final_and_named(code: int, text: str) -> None:
    async with Nameserver(lambda query: rcode(query, code)) as server:
        with pytest.raises(ResolveError, match=f"{text} for a.example."):
            await resolve(NAME, A_TYPE, server.endpoint, BRISK)
        assert server.total == 1


async def test_a_referral_is_no_answer() -> None:
    def handle(query: DNSRecord) -> DNSRecord:
        reply = query.reply(ra=0, aa=0)
        reply.add_auth(RR("example.", QTYPE.NS, rdata=NS("ns.example."), ttl=60))
        return reply

    assert "a referral to other servers" in await failure(handle)


@pytest.mark.parametrize("bare", [False, True])
@pytest.mark.parametrize("code", [1, 4])
async def test_p30_a_resolver_without_edns_is_asked_without_and_that_is_remembered(
    code: int, bare: bool
) -> None:
    def handle(query: DNSRecord) -> DNSRecord | bytes:
        if not query.ar:
            return answered(query, "192.0.2.1")
        refused = rcode(query, code)
        return bytes(refused.pack())[:4] + bytes(8) if bare else refused

    async with Nameserver(handle) as server:
        for total in (2, 3):
            assert (await resolve(NAME, A_TYPE, server.endpoint, BRISK)).addresses == ("192.0.2.1",)
            assert server.total == total


async def test_p30_an_error_that_the_retry_repeats_is_not_about_edns() -> None:
    async with Nameserver(lambda query: rcode(query, 1)) as server:
        for total in (2, 4):
            with pytest.raises(ResolveError, match="FORMERR for a.example."):
                await resolve(NAME, A_TYPE, server.endpoint, BRISK)
            assert server.total == total


async def test_p31_bytes_behind_a_response_are_ignored() -> None:
    answer, _ = await ask(lambda query: bytes(answered(query, "192.0.2.1").pack()) + b"\0")
    assert answer.addresses == ("192.0.2.1",)


async def test_p21_a_late_response_counts() -> None:
    held: list[DNSRecord] = []

    def handle(query: DNSRecord) -> DNSRecord | None:
        held.append(query)
        if len(held) == 2:
            # The response to the first query, where the second one came from: nothing is to be seen there.
            return answered(held[0], "203.0.113.66")
        return None

    async with Nameserver(handle) as server:
        task = asyncio.create_task(resolve(NAME, A_TYPE, server.endpoint, Patience(0.2, 50)))
        async with asyncio.timeout(10):
            while len(held) < 3:
                await asyncio.sleep(0.01)
        server.answer_first(answered(held[0], "192.0.2.1"))
        assert (await task).addresses == ("192.0.2.1",)


async def test_p33_a_connection_that_is_lost_is_replaced() -> None:
    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        data = await reader.readexactly(int.from_bytes(await reader.readexactly(2), "big"))
        asked.append(data)
        if len(asked) == 3:
            reply = bytes(answered(DNSRecord.parse(data), "192.0.2.1").pack())
            writer.write(len(reply).to_bytes(2, "big") + reply)
        writer.close()

    asked: list[bytes] = []
    listener = await asyncio.start_server(serve, "127.0.0.1", 0)
    async with listener:
        endpoint = Endpoint("127.0.0.1", listener.sockets[0].getsockname()[1], "tcp")
        assert (await resolve(NAME, A_TYPE, endpoint, BRISK)).addresses == ("192.0.2.1",)


async def test_nodata_is_an_answer_without_addresses() -> None:
    answer, _ = await ask(zone("a.example. 60 TXT hello"))
    assert answer.addresses == ()


async def test_a_look_puts_both_types_together() -> None:
    async with Nameserver(zone("a.example. 60 A 192.0.2.1\na.example. 20 AAAA 2001:db8::1")) as server:
        (seen,) = await look(Wanted(NAME, "auth", "r"), [server.endpoint], BRISK)
    assert (seen.addresses, seen.ttl, seen.complete) == (("192.0.2.1", "2001:db8::1"), 20, True)
    assert seen.resolver == str(server.endpoint)


async def test_a_look_survives_a_resolver_that_drops_aaaa() -> None:
    def handle(query: DNSRecord) -> DNSRecord | None:
        return answered(query, "192.0.2.1") if query.q.qtype == QTYPE.A else None

    async with Nameserver(handle) as server:
        (seen,) = await look(Wanted(NAME, "auth", "r"), [server.endpoint], Patience(0.2, 1))
    assert (seen.addresses, seen.complete, seen.error) == (("192.0.2.1",), False, None)


async def test_a_look_asks_all_resolvers_and_a_dead_one_only_says_so() -> None:
    dead = closed_port()
    async with (
        Nameserver(zone("a.example. 60 A 192.0.2.1")) as one,
        Nameserver(zone("a.example. 60 A 192.0.2.2")) as two,
    ):
        looks = await look(Wanted(NAME, "auth", "r"), [one.endpoint, dead, two.endpoint], BRISK)
    assert [entry.addresses for entry in looks] == [("192.0.2.1",), (), ("192.0.2.2",)]
    assert str(looks[1].error).startswith(str(dead))


async def test_a_look_at_a_wildcard_asks_for_its_parent_and_at_a_cname_for_its_target() -> None:
    async with Nameserver(zone("b.example. 60 A 192.0.2.1\nend.example. 60 A 192.0.2.2")) as server:
        (wild,) = await look(Wanted("*.b.example.", "storage", "r"), [server.endpoint], BRISK)
        (through,) = await look(Wanted(NAME, "storage", "r", "end.example."), [server.endpoint], BRISK)
    assert (wild.addresses, through.addresses) == (("192.0.2.1",), ("192.0.2.2",))


class _Expected:
    """A lookup of which the first query has been sent."""

    def __init__(self, key: bytes, qtype: int) -> None:
        upstream = Upstream("one", ("192.0.2.1", 53))
        self.lookup = _Lookup(key, qtype, upstream, BRISK, 0.0)
        sent = self.lookup.next_query(0.0)
        assert sent is not None
        self.sent = sent
        self.query = sent.query

    @property
    def refused(self) -> ResolveError | None:
        return self.lookup.refused

    def receive(self, data: bytes) -> _Message | None:
        self.lookup.receive(self.sent, data, 0.0)
        return self.lookup.message


def response_to(expected: _Expected, answers: int, tail: bytes) -> bytes:
    """Return a response that belongs to the query, its answer section as given."""
    question = expected.query[12 : 12 + len(names.to_key(NAME)) + 4]
    return expected.query[:2] + struct.pack(">HHHHH", 0x8180, 1, answers, 0, 0) + question + tail


@given(st.binary(max_size=300), st.integers(0, 5))
@settings(deadline=None)
def test_any_octets_in_the_answer_section_are_a_response_or_none(tail: bytes, answers: int) -> None:
    expected = _Expected(names.to_key(NAME), A_TYPE)
    message = expected.receive(response_to(expected, answers, tail))
    assert (message is None) == (expected.refused is not None)


@given(st.binary(max_size=300))
def test_any_octets_are_no_response_unless_they_match(data: bytes) -> None:
    expected = _Expected(names.to_key(NAME), A_TYPE)
    assert expected.receive(data) is None
    assert expected.refused is None


def test_p29_an_answer_of_more_cnames_than_are_followed_is_refused() -> None:
    for count, refused in ((16, False), (17, True)):
        expected = _Expected(names.to_key(NAME), A_TYPE)
        record = b"\xc0\x0c" + struct.pack(">HHIH", 5, 1, 0, 2) + b"\xc0\x0c"
        expected.receive(response_to(expected, count, record * count))
        assert (expected.refused is not None) == refused


def test_p29_chains_of_pointers_cost_a_bounded_number_of_steps() -> None:
    # Each of 180 owner names is a chain of 900 compression pointers.
    depth, copies = 900, 180
    expected = _Expected(names.to_key(NAME), A_TYPE)
    start = len(response_to(expected, 0, b""))
    first = start + 11
    pointers = [start, *(first + 2 * n for n in range(depth))]
    chain = b"".join(struct.pack(">H", 0xC000 | pointer) for pointer in pointers)
    holder = b"\0" + struct.pack(">HHIH", 99, 1, 0, len(chain)) + chain
    record = struct.pack(">HHHIH", 0xC000 | first + 2 * depth, 1, 1, 0, 4) + bytes(4)
    data = response_to(expected, copies // 2 + 1, holder + record * (copies // 2))
    assert len(data) <= MAX_RESPONSE
    assert expected.receive(data) is None
    assert "cannot be decoded" in str(expected.refused)
