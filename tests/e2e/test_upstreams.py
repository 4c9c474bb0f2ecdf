"""Upstreams that are slow, dead or malformed, or close connections; the proxy has default timeouts."""

from __future__ import annotations

import socketserver
import struct
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from typing import Any, NamedTuple

import dns.flags
import dns.message
import dns.query
import dns.rcode
import dns.rrset
import pytest

from tests.e2e.processes import wait_for
from tests.e2e.world import World
from tests.fakes.threaded import Threaded

pytestmark = pytest.mark.e2e

ADDRESS, FORGED = "192.0.2.1", "203.0.113.66"
Hook = Callable[[dns.message.Message], "bytes | None"]


class Asked(NamedTuple):
    """One query that came in; ``at`` is of the monotonic clock."""

    at: float
    query: dns.message.Message

    @property
    def name(self) -> str:
        return str(self.query.question[0].name)


class Upstream:
    """UDP and TCP on one port of 127.0.0.1; ``hook`` returns what to send, None for nothing.

    Each TCP connection is closed after its first response.
    """

    def __init__(self, port: int, hook: Hook) -> None:
        self.endpoint = f"127.0.0.1:{port}"
        self.asked: list[Asked] = []
        self.tcp = 0
        outer = self

        class Datagram(socketserver.BaseRequestHandler):
            def handle(self) -> None:
                reply = outer._take(self.request[0], hook)
                if reply is not None:
                    self.request[1].sendto(reply, self.client_address)

        class Connection(socketserver.StreamRequestHandler):
            def handle(self) -> None:
                outer.tcp += 1
                head = self.rfile.read(2)
                if len(head) == 2:
                    data = self.rfile.read(struct.unpack(">H", head)[0])
                    reply = respond(dns.message.from_wire(data))
                    self.wfile.write(struct.pack(">H", len(reply)) + reply)

        self._servers = (_Udp(("127.0.0.1", port), Datagram), _Tcp(("127.0.0.1", port), Connection))

    @contextmanager
    def serving(self) -> Iterator[Upstream]:
        with ExitStack() as stack:
            for server in self._servers:
                stack.enter_context(Threaded(server))
            yield self

    def of(self, name: str) -> list[dns.message.Message]:
        """Return the queries for ``name``, oldest first."""
        return [asked.query for asked in self.asked if asked.name == name]

    def _take(self, data: bytes, hook: Hook) -> bytes | None:
        query = dns.message.from_wire(data)
        self.asked.append(Asked(time.monotonic(), query))
        return hook(query)


class _Udp(socketserver.ThreadingUDPServer):
    daemon_threads = True
    block_on_close = False


class _Tcp(socketserver.ThreadingTCPServer):
    daemon_threads = True
    block_on_close = False
    allow_reuse_address = True
    request_queue_size = 64


def reply_to(query: dns.message.Message, address: str = ADDRESS, *, edns: bool = True) -> dns.message.Message:
    reply = dns.message.make_response(query)
    if not edns:
        reply.use_edns(False)
    question = query.question[0]
    if question.rdtype == dns.rdatatype.A:
        reply.answer = [dns.rrset.from_text(question.name, 60, "IN", "A", address)]
    return reply


def respond(query: dns.message.Message) -> bytes:
    return reply_to(query).to_wire()


def silence(_query: dns.message.Message) -> None:
    return None


def ask(world: World, name: str, qtype: str = "A", **options: Any) -> dns.message.Message:
    """Ask once over UDP, as a stub that waits for 8 s."""
    query = dns.message.make_query(name, qtype, **options)
    return dns.query.udp(query, "127.0.0.1", timeout=8, port=world.dns_port)


def addresses(reply: dns.message.Message) -> list[str]:
    return [str(record) for rrset in reply.answer for record in rrset]


@pytest.fixture
def proxy(world: World) -> Iterator[Callable[..., list[Upstream]]]:
    """Start upstreams with these hooks, and a proxy that asks them in this order with default timeouts."""
    with ExitStack() as stack:

        def start(*hooks: Hook) -> list[Upstream]:
            made = [stack.enter_context(Upstream(world.take_port(), hook).serving()) for hook in hooks]
            world.configure(
                learn={"sources": []},
                forward={
                    "upstreams": [upstream.endpoint for upstream in made],
                    "policy": "sequential",
                    "timeout": {},
                },
            )
            world.start_proxy()
            return made

        yield start


Start = Callable[..., list[Upstream]]


def is_up(world: World, upstream: Upstream) -> bool:
    return world.metric(f'dnsproxy_upstream_up{{upstream="{upstream.endpoint}"}}') == 1


def test_p21_replies_that_take_up_to_three_and_a_half_seconds_are_used(world: World, proxy: Start) -> None:
    delays = {"d50.example.": 0.05, "d900.example.": 0.9, "d1700.example.": 1.7, "d3500.example.": 3.5}

    def later(query: dns.message.Message) -> bytes:
        time.sleep(delays.get(str(query.question[0].name), 0.0))
        return respond(query)

    (slow,) = proxy(later)

    def timed(name: str) -> tuple[list[str], float]:
        started = time.monotonic()
        return addresses(ask(world, name)), time.monotonic() - started

    with ThreadPoolExecutor(len(delays)) as pool:
        for name, (found, seconds) in zip(delays, pool.map(timed, delays), strict=True):
            assert found == [ADDRESS], name
            assert seconds >= delays[name]
            assert 1 <= len(slow.of(name)) <= 3
    assert is_up(world, slow)


def test_p21_a_dead_first_upstream_costs_a_second_at_most(world: World, proxy: Start) -> None:
    dead, alive = proxy(silence, respond)
    assert addresses(ask(world, "www.example.")) == [ADDRESS]
    (first,) = [asked.at for asked in dead.asked if asked.name == "www.example."]
    (second,) = [asked.at for asked in alive.asked if asked.name == "www.example."]
    assert second - first <= 1.0
    # Once it is known to be down, it costs nothing.
    wait_for(lambda: ask(world, f"n{len(alive.asked)}.example.") and not is_up(world, dead), "it is down")
    assert addresses(ask(world, "next.example.")) == [ADDRESS]
    assert dead.of("next.example.") == []


def test_p30_one_formerr_does_not_cost_others_edns(world: World, proxy: Start) -> None:
    def hook(query: dns.message.Message) -> bytes:
        reply = reply_to(query, edns=query.question[0].rdtype != 65280)
        if query.question[0].rdtype == 65280:
            reply.set_rcode(dns.rcode.FORMERR)
        return reply.to_wire()

    (only,) = proxy(hook)
    assert ask(world, "odd.example.", "TYPE65280").rcode() == dns.rcode.SERVFAIL
    assert [query.edns for query in only.of("odd.example.")] == [0, -1]
    signed = ask(world, "signed.example.", want_dnssec=True)
    assert (signed.edns, bool(signed.ednsflags & dns.flags.DO), addresses(signed)) == (0, True, [ADDRESS])
    assert [query.ednsflags & dns.flags.DO for query in only.of("signed.example.")] == [dns.flags.DO]


@pytest.mark.parametrize("bare", [True, False])
def test_p30_an_upstream_without_edns_is_asked_without(world: World, proxy: Start, bare: bool) -> None:
    def hook(query: dns.message.Message) -> bytes:
        if query.edns < 0:
            return respond(query)
        refused = reply_to(query, edns=False)
        refused.set_rcode(dns.rcode.FORMERR)
        refused.answer = []
        data = refused.to_wire()
        return data[:4] + bytes(8) if bare else data

    (old,) = proxy(hook)
    assert addresses(ask(world, "www.example.")) == [ADDRESS]
    assert addresses(ask(world, "next.example.")) == [ADDRESS]
    assert [query.edns for query in old.of("next.example.")] == [-1]


# The question of every query here has 17 octets; the first record starts behind it.
RECORD = 12 + 17
MALFORMED: dict[str, Callable[[bytes], bytes]] = {
    "a pointer to itself": lambda good: good[:RECORD] + b"\xc0\x1d" + good[RECORD + 2 :],
    "a pointer out of the message": lambda good: good[:RECORD] + b"\xff\xff" + good[RECORD + 2 :],
    "an address of three octets": lambda good: good[:-5] + b"\3" + good[-4:-1],
    "a record too few": lambda good: good[:7] + b"\2" + good[8:],
}


@pytest.mark.parametrize("kind", MALFORMED)
def test_p31_a_malformed_reply_leads_to_the_next_upstream(world: World, proxy: Start, kind: str) -> None:
    def hook(query: dns.message.Message) -> bytes:
        return MALFORMED[kind](reply_to(query, FORGED, edns=False).to_wire())

    bad, good = proxy(hook, respond)
    assert addresses(ask(world, "www.example.")) == [ADDRESS]
    # From the cache.
    assert addresses(ask(world, "www.example.")) == [ADDRESS]
    assert len(good.of("www.example.")) == 1
    assert len(bad.of("www.example.")) == 1
    assert is_up(world, bad)


def test_p31_a_malformed_reply_is_neither_relayed_nor_kept(world: World, proxy: Start) -> None:
    replies: list[Callable[[bytes], bytes]] = [*MALFORMED.values()]

    def hook(query: dns.message.Message) -> bytes:
        good = reply_to(query, FORGED, edns=False).to_wire()
        return replies[0](good) if replies else respond(query)

    (only,) = proxy(hook)
    refused = ask(world, "www.example.")
    assert (refused.rcode(), refused.answer) == (dns.rcode.SERVFAIL, [])
    assert len(only.of("www.example.")) == 3
    replies.clear()
    wait_for(lambda: addresses(ask(world, "www.example.")) == [ADDRESS], "the failure is forgotten")


def test_p31_octets_behind_a_complete_reply_are_ignored(world: World, proxy: Start) -> None:
    (only,) = proxy(lambda query: respond(query) + b"\0")
    assert addresses(ask(world, "www.example.")) == [ADDRESS]
    assert len(only.of("www.example.")) == 1


def test_p32_names_that_are_not_answered_do_not_mark_an_upstream_as_down(world: World, proxy: Start) -> None:
    def hook(query: dns.message.Message) -> bytes | None:
        return None if "silent" in str(query.question[0].name) else respond(query)

    (only,) = proxy(hook)
    for number in range(3):
        names = [f"silent{number}-{other}.example." for other in range(8)]
        with ThreadPoolExecutor(len(names)) as pool:
            replies = list(pool.map(lambda name: ask(world, name), names))
        assert {reply.rcode() for reply in replies} == {dns.rcode.SERVFAIL}
        assert is_up(world, only)
        assert addresses(ask(world, f"www{number}.example.")) == [ADDRESS]
    assert world.proxy.events("upstream.down") == []


def test_p33_an_upstream_that_closes_each_connection_answers_all(world: World, proxy: Start) -> None:
    def truncated(query: dns.message.Message) -> bytes:
        reply = reply_to(query)
        reply.answer = []
        reply.flags |= dns.flags.TC
        return reply.to_wire()

    (closing,) = proxy(truncated)
    for number in range(3):
        names = [f"n{number}-{other}.example." for other in range(8)]
        with ThreadPoolExecutor(len(names)) as pool:
            replies = list(pool.map(lambda name: ask(world, name), names))
        assert [addresses(reply) for reply in replies] == [[ADDRESS]] * len(names)
    assert closing.tcp >= 24
    assert is_up(world, closing)


def test_p38_an_extended_rcode_is_servfail_for_a_client_without_edns(world: World, proxy: Start) -> None:
    def hook(query: dns.message.Message) -> bytes:
        reply = reply_to(query)
        reply.answer = []
        reply.set_rcode(dns.rcode.BADCOOKIE)
        return reply.to_wire()

    proxy(hook)
    assert ask(world, "www.example.", use_edns=0).rcode() == dns.rcode.BADCOOKIE
    assert ask(world, "next.example.").rcode() == dns.rcode.SERVFAIL


def test_p38_notimp_has_neither_ra_nor_cd(world: World, proxy: Start) -> None:
    proxy(respond)
    query = dns.message.make_query("www.example.", "A", flags=dns.flags.RD | dns.flags.CD)
    query.set_opcode(dns.opcode.STATUS)
    reply = dns.query.udp(query, "127.0.0.1", timeout=8, port=world.dns_port)
    assert (reply.rcode(), reply.flags & (dns.flags.RA | dns.flags.CD)) == (dns.rcode.NOTIMP, 0)
