"""Build queries and read responses with dnspython, which shares no code with the program."""

from __future__ import annotations

import random
import struct
from collections.abc import Callable, Iterable, Sequence
from ipaddress import ip_network

import dns.flags
import dns.message
import dns.rcode
import dns.rdatatype
import dns.rrset

from dnsproxy.core.access import AccessList
from dnsproxy.core.addresses.table import ServedTable
from dnsproxy.core.attempt import Limits
from dnsproxy.core.cache import Cache, CachePolicy
from dnsproxy.core.chance import Chance
from dnsproxy.core.engine import Engine, Forward
from dnsproxy.core.features import Features
from dnsproxy.core.group import Group
from dnsproxy.core.limiter import RateLimiter
from dnsproxy.core.policy import Owned, Ruleset, build_rules
from dnsproxy.core.registry import Wanted
from dnsproxy.core.upstreams import Upstream

CLIENT = b"\x7f\x00\x00\x01"
REGISTRY = "xxxxxx-registry-vpc.cn-hangzhou.cr.aliyuncs.com."
LIMITS = Limits(0.8, 1.8)
OSS = "oss-cn-hangzhou-internal.aliyuncs.com."


def query(name: str, qtype: str = "A", *, ident: int = 4711, **options: object) -> bytes:
    """A query as wire bytes; ``options`` are those of dns.message.make_query."""
    message = dns.message.make_query(name, qtype, **options)  # type: ignore[arg-type]
    message.id = ident
    return message.to_wire()


def read(data: bytes) -> dns.message.Message:
    return dns.message.from_wire(data)


def addresses(data: bytes) -> list[str]:
    """The A and AAAA records of the answer section, in their order on the wire."""
    message = dns.message.from_wire(data, one_rr_per_rrset=True)
    kinds = {dns.rdatatype.A, dns.rdatatype.AAAA}
    return [rrset[0].to_text() for rrset in message.answer if rrset.rdtype in kinds]


def reply_to(
    asked: bytes,
    records: Iterable[str] = (),
    *,
    rcode: int = 0,
    authority: Iterable[str] = (),
    flags: int = 0,
    edns: bool = True,
) -> bytes:
    """An upstream's response to ``asked`` (with its id); records are in presentation form."""
    message = dns.message.make_response(dns.message.from_wire(asked), recursion_available=True)
    message.use_edns(0 if edns else -1)
    message.set_rcode(dns.rcode.Rcode.make(rcode))
    message.flags |= flags
    message.answer = [_rrset(record) for record in records]
    message.authority = [_rrset(record) for record in authority]
    return message.to_wire(max_size=65535)


def _rrset(record: str) -> dns.rrset.RRset:
    name, ttl, _, kind, data = record.split(None, 4)
    return dns.rrset.from_text(name, int(ttl), "IN", kind, data)


def seeded() -> Chance:
    """The same random octets in every run."""
    return Chance(random.Random(1).randbytes)  # noqa: S311 - nothing is protected by them


def engine(
    owned: Sequence[Owned] = (),
    *,
    upstreams: Sequence[Upstream] | None = None,
    zones: dict[bytes, tuple[Upstream, ...]] | None = None,
    allow: Sequence[str] = ("127.0.0.0/8", "::1/128"),
    policy: CachePolicy | None = None,
    max_in_flight: int = 100,
    limits: Limits = LIMITS,
    order: str = "sequential",
    features: Features | None = None,
    limiter: RateLimiter | None = None,
    draw: Callable[[int], bytes] = bytes,
) -> Engine:
    """An engine with one upstream, a small cache and the owned names given; ``draw`` is zeros for chance."""
    groups = {b"\x00": tuple(upstreams or [Upstream("one", ("192.0.2.1", 53))]), **(zones or {})}
    chance = Chance(draw)
    made = Engine(
        AccessList([ip_network(text) for text in allow]),
        {zone: Group(members, order, chance) for zone, members in groups.items()},
        limits=limits,
        max_in_flight=max_in_flight,
        cache=Cache(1000, policy or CachePolicy()),
        chance=chance,
        features=features or Features(),
        limiter=limiter,
    )
    made.swap_rules(Ruleset(owned, (zones or {}).keys()))
    return made


def hangzhou() -> list[Owned]:
    """The names of the example: one registry address, two of OSS, a wildcard below it."""
    pair = ("100.118.28.43", "100.118.28.44")
    return [
        Owned(REGISTRY, addresses=("10.94.205.198",)),
        Owned(OSS, addresses=pair),
        Owned(f"*.{OSS}", addresses=pair),
    ]


def unknown_rules() -> Ruleset:
    """Rules of a name that is configured and not learned yet."""
    return build_rules(
        ServedTable((Wanted(REGISTRY, "registry", "hz"),)),
        [],
        ttl=30,
        max_stale=float("inf"),
        now=0.0,
        wall_now=0.0,
    )


def answer(made: Engine, data: bytes, now: float = 1.0, *, tcp: bool = False) -> bytes:
    """The response to ``data``, which must be made without asking upstream."""
    step = made.receive(data, CLIENT, now, tcp=tcp)
    assert type(step) is bytes, step
    return step


def forward(made: Engine, data: bytes, now: float = 1.0, *, tcp: bool = False) -> Forward:
    """The exchange that ``data`` leads to, with the query waiting on it as the shell does."""
    step = made.receive(data, CLIENT, now, tcp=tcp)
    assert type(step) is Forward, step
    step.exchange.waiters.append((step.query, None, None, now))
    return step


def resolve(
    made: Engine,
    data: bytes,
    records: Iterable[str] = (),
    *,
    now: float = 1.0,
    rcode: int = 0,
    authority: Iterable[str] = (),
    flags: int = 0,
    tcp: bool = False,
) -> bytes:
    """Forward ``data``, let the upstream respond, and return what the client gets."""
    exchange = forward(made, data, now, tcp=tcp).exchange
    attempt = exchange.next_attempt(now)
    assert attempt is not None
    sent = b"\x12\x34" + attempt.payload
    exchange.receive_reply(reply_to(sent, records, rcode=rcode, authority=authority, flags=flags), now)
    return made.complete(exchange, now)[0]


def padded(name: str, size: int) -> bytes:
    """A query of ``size`` bytes."""
    made = query(name, use_edns=0)
    room = size - len(made)
    return made[:-2] + struct.pack(">HHH", room, 12, room - 4) + bytes(room - 4)
