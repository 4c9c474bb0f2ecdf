"""What is searched: each parser takes any bytes, and is measured from its first look at them to its result.

Each is given the most expensive inputs that are known by construction; the search starts from these.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from typing import NamedTuple

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from dnsproxy.core import doh, names, options, seal, wire
from dnsproxy.core.attempt import Verdict
from dnsproxy.core.cache import CachePolicy
from dnsproxy.core.chains import Chains
from dnsproxy.core.challenge import MAX_HEADER, default_bucket, judge_bearer, parse_challenges
from dnsproxy.core.engine import Engine, Forward
from dnsproxy.core.exchange import Exchange
from dnsproxy.core.features import Features
from dnsproxy.core.policy import Owned
from dnsproxy.core.question import cache_key
from dnsproxy.core.response import scan_response
from dnsproxy.core.upstreams import Upstream
from dnsproxy.errors import DiscoverError, SnapshotError, WireError
from dnsproxy.helper.resolve import MAX_RESPONSE, Patience, _Lookup
from dnsproxy.net import doh_reply
from dnsproxy.net.syscalls import LONGEST
from tests.faults.slowest import seeds
from tests.messages import CLIENT, REGISTRY, engine, hangzhou, query, reply_to, seeded
from tests.strategies import learned, snapshot

# Nanoseconds without the compiler.
UDP_GOAL = 300_000
TCP_GOAL = 5_000_000
# Octets of what is no DNS message; what a parser takes for a longer one grows with its length alone.
MAX_TEXT = 65_535

Run = Callable[[], object]


class Parser(NamedTuple):
    """``prepare`` returns what to measure for an input of ``limit`` bytes at most; ``goal`` in nanoseconds.

    A ``compiled`` one takes a tenth of that in a compiled build.
    """

    name: str
    limit: int
    goal: int
    prepare: Callable[[bytes], Run]
    seeds: Callable[[int], Iterator[bytes]]
    compiled: bool = True


NOW = 10_000.0
ASKED = query("www.example.", use_edns=0)
# Names of 256 addresses, which is as many as a snapshot may have for one.
_MANY = tuple(f"10.7.{n >> 8}.{n & 255}" for n in range(256))


def _engine() -> Engine:
    """An engine that owns names, holds the largest answers, fresh and stale, and has all features on."""
    made = engine(
        [*hangzhou(), Owned("own.example.", addresses=_MANY), Owned("*.own.example.", addresses=_MANY)],
        policy=CachePolicy(max_ttl=86_400.0, stale=864_000.0),
        features=Features(minimal_any=True, nxdomain_cut=True, prefetch=True),
        draw=seeded().octets,
    )
    for name, stored in (("fresh.example.", NOW - 7), ("stale.example.", NOW - 5_000)):
        asked = wire.scan_query(query(name))
        body = seeds.records(65_535 - asked.question_end, seeds.SHORTEST, ttl=4_000)
        message = asked.data[:2] + b"\x81\x80\0\1" + body[0].to_bytes(2, "big") + bytes(4)
        message += asked.data[wire.HEADER : asked.question_end] + body[1]
        made.cache.keep(_key(name), scan_response(message, asked.question_end), stored)
    return made


def _key(name: str) -> bytes:
    return cache_key(wire.scan_query(query(name, use_edns=0)))


ENGINE = _engine()


def _settled(made: Engine) -> Engine:
    """Return ``made`` as it was before the last input."""
    for exchange in list(made.exchanges._exchanges.values()):
        made.complete(exchange, NOW)
    made.exchanges.begun.clear()
    made.exchanges.forget(None)
    made.exchanges.chains.forget()
    made.exchanges.failures.remember(_key("stale.example."), 22, NOW)
    made.cache.remove(_key("www.example."))
    denial = reply_to(query("no.example."), rcode=3, authority=["example. 900 IN SOA . . 1 2 3 4 900"])
    if made.exchanges.cuts is not None:
        made.exchanges.cuts.keep(b"\0", names.to_key("no.example."), denial, 900.0, NOW)
    made.prepared.clear()
    return made


def client(*, tcp: bool) -> Callable[[bytes], Run]:
    """A query of a client."""

    def prepare(data: bytes) -> Run:
        made = _settled(ENGINE)

        def run() -> None:
            step = made.receive(data, CLIENT, NOW, tcp=tcp)
            if tcp and isinstance(step, bytes) and data.find(options.KEEPALIVE_ASKED) >= 0:
                options.for_stream(data, step, 10.0)

        return run

    return prepare


def _asked(made: Engine, asked: bytes = ASKED) -> Exchange:
    step = made.receive(asked, CLIENT, NOW, tcp=True)
    assert isinstance(step, Forward)
    step.exchange.waiters.append((step.query, None, None, NOW))
    step.exchange.next_attempt(NOW)
    return step.exchange


def _answering(data: bytes) -> bytes:
    """Return ``data`` with the header and question of a reply to ``ASKED``."""
    end = wire.HEADER + 17
    data = data.ljust(end, b"\0")
    return (
        b"\0\0" + bytes((data[2] & 0x07 | 0x80, data[3])) + b"\0\1" + data[6:12] + ASKED[12:end] + data[end:]
    )


def upstream(*, tcp: bool) -> Callable[[bytes], Run]:
    """A reply of an upstream, from its first byte to the response for the client."""

    def prepare(data: bytes) -> Run:
        made = _settled(ENGINE)
        exchange = _asked(made)
        reply = _answering(data)

        def run() -> None:
            if exchange.receive_reply(reply, NOW) is not Verdict.IGNORED:
                if tcp:
                    options.keepalive_told(reply)
                made.complete(exchange, NOW)

        return run

    return prepare


def chain(data: bytes) -> Run:
    """The rewriting of an answer whose CNAMEs may lead to an owned name."""
    made = _settled(ENGINE)
    exchange = _asked(made)
    chains = Chains(made.cache)
    with contextlib.suppress(WireError):
        exchange.reply = _answering(data)
        response = scan_response(exchange.reply, wire.HEADER + 17)
        return lambda: chains.rewritten(exchange, response, made.rules, NOW)
    return lambda: None


def over_https(data: bytes) -> Run:
    """A request over HTTPS and its reply, or a reply of an upstream over HTTPS; the first byte says which.

    Of a request, method, target, content type and body are parted by NUL; of a reply, Age and body.
    """
    made = _settled(ENGINE)
    if data[:1] == b"R":
        age, _, body = data[1:].partition(b"\0")
        exchange = _asked(made)
        reply = _answering(body)

        def read() -> None:
            with contextlib.suppress(WireError):
                found = doh.read_reply(200, doh.MEDIA_TYPE, age.decode("latin-1"), reply)
                if exchange.receive_reply(found, NOW) is not Verdict.IGNORED:
                    made.complete(exchange, NOW)

        return read
    method, target, kind, body = (data.split(b"\0", 3) + [b""] * 4)[:4]
    texts = [part.decode("latin-1") for part in (method, target, kind)]

    def serve() -> None:
        found = doh.read_request("/dns-query", texts[0], texts[1], texts[2], body)
        if isinstance(found, bytes):
            step = made.receive(found, CLIENT, NOW, tcp=True)
            if isinstance(step, bytes):
                doh_reply.reply_to(options.for_encrypted(found, step, None))

    return serve


def helper(data: bytes) -> Run:
    """A reply to the helper's resolver."""
    key = names.to_key("www.example.")
    lookup = _Lookup(key, wire.A, Upstream("one", ("192.0.2.1", 53)), Patience(), NOW)
    sent = lookup.next_query(NOW)
    assert sent is not None
    reply = sent.query[:2] + _answering(data)[2:]
    return lambda: lookup.receive(sent, reply, NOW)


def challenge(data: bytes) -> Run:
    """``WWW-Authenticate`` fields, one per line."""
    values = data.decode("latin-1").split("\n")

    def run() -> None:
        with contextlib.suppress(DiscoverError):
            bearer = judge_bearer(parse_challenges(values), REGISTRY, 443, ["aliyuncs.com."])
            if bearer is not None:
                default_bucket(bearer.hint)

    return run


_KEY = Ed25519PrivateKey.from_private_bytes(bytes(range(32)))
_TRUSTED = {seal.key_id(_KEY.public_key()): _KEY.public_key()}


def token(data: bytes) -> Run:
    """A snapshot token that no trusted key has signed, but for those of the seeds."""
    text = data.decode("latin-1")

    def run() -> None:
        with contextlib.suppress(SnapshotError):
            seal.verify(text, _TRUSTED)

    return run


def _token_seeds(limit: int) -> Iterator[bytes]:
    good = seal.sign(snapshot(learned(REGISTRY, ("10.94.205.198",))), _KEY).encode()
    head, _, signature = good.split(b".")
    yield good
    yield head + b"." + b"A" * (limit - len(head) - len(signature) - 2) + b"." + signature
    yield from seeds.tokens(limit)


PARSERS = {
    parser.name: parser
    for parser in (
        Parser("client-udp", LONGEST - 1, UDP_GOAL, client(tcp=False), seeds.queries),
        Parser("client-tcp", 65_535, TCP_GOAL, client(tcp=True), seeds.queries),
        Parser("upstream-udp", LONGEST - 1, UDP_GOAL, upstream(tcp=False), seeds.replies),
        Parser("upstream-tcp", 65_535, TCP_GOAL, upstream(tcp=True), seeds.replies),
        Parser("chain", 65_535, TCP_GOAL, chain, seeds.chains),
        Parser("https", 65_535, TCP_GOAL, over_https, seeds.https),
        Parser("helper-udp", 1_500, UDP_GOAL, helper, seeds.replies, compiled=False),
        Parser("helper-tcp", MAX_RESPONSE, TCP_GOAL, helper, seeds.replies, compiled=False),
        Parser("challenge", MAX_HEADER, TCP_GOAL, challenge, seeds.challenges, compiled=False),
        Parser("token", MAX_TEXT, TCP_GOAL, token, _token_seeds, compiled=False),
    )
}
