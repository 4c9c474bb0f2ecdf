"""dnspython decodes every response, without mercy, and makes the same records of it again."""

from __future__ import annotations

import itertools
import random
import socket
import string
import struct
from collections.abc import Iterator

import dns.edns
import dns.flags
import dns.message
import dns.name
import dns.rcode
import dns.rdatatype
import dns.renderer
import dns.rrset
import pytest

from tests.interop.authority import BOGUS, PLAIN, SIGNED, questions
from tests.interop.world import AUTH, BUCKET, DUAL, OWNED, REGISTRY, STORAGE, World

pytestmark = pytest.mark.interop

SEED = 20
RANDOM_QUERIES = 1_500
_TYPES = ["A", "AAAA", "TXT", "MX", "HTTPS", "SVCB", "SOA", "NS", "CNAME", "ANY", "TYPE65280", "DNSKEY", "DS"]


class Wire:
    """One UDP socket and one TCP connection to the proxy; octets only."""

    def __init__(self, port: int) -> None:
        self._udp = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self._udp.connect(("127.0.0.1", port))
        self._tcp = socket.create_connection(("127.0.0.1", port))
        for sock in (self._udp, self._tcp):
            sock.settimeout(20)

    def close(self) -> None:
        self._udp.close()
        self._tcp.close()

    def udp(self, data: bytes) -> bytes:
        self._udp.send(data)
        return self._udp.recv(65_535)

    def tcp(self, data: bytes) -> bytes:
        self._tcp.sendall(struct.pack("!H", len(data)) + data)
        (length,) = struct.unpack("!H", self._exactly(2))
        return self._exactly(length)

    def _exactly(self, count: int) -> bytes:
        data = b""
        while len(data) < count:
            piece = self._tcp.recv(count - len(data))
            assert piece, "the connection was closed"
            data += piece
        return data


@pytest.fixture(scope="module")
def wire(world: World) -> Iterator[Wire]:
    made = Wire(world.dns_port)
    yield made
    made.close()


def judged(query: dns.message.Message, data: bytes) -> dns.message.Message:
    """Return the response that dnspython reads; fail on anything that is not exactly right."""
    # Trailing octets, bad pointers, lengths that do not fit and second OPTs are errors in it.
    response = dns.message.from_wire(data, ignore_trailing=False, raise_on_truncation=False)
    assert query.is_response(response), response
    assert response.question[0].name.labels == query.question[0].name.labels, "the spelling has changed"
    assert (response.edns >= 0) == (query.edns >= 0)
    again = dns.message.from_wire(response.to_wire(max_size=65_535, prefer_truncation=False))
    assert again.sections[1:] == response.sections[1:]
    assert (again.flags, again.rcode(), again.edns) == (response.flags, response.rcode(), response.edns)
    _check_records(response)
    return response


def _check_records(response: dns.message.Message) -> None:
    for section in response.sections[1:]:
        keys = [(rrset.name, rrset.rdtype, rrset.covers) for rrset in section]
        assert len(keys) == len(set(keys)), "an RRset comes twice"
        assert all(0 <= rrset.ttl <= 3600 for rrset in section)
    rcode = response.rcode()
    denies = rcode == dns.rcode.NXDOMAIN or (rcode == dns.rcode.NOERROR and not response.answer)
    if denies and not response.flags & dns.flags.TC:
        assert [rrset for rrset in response.authority if rrset.rdtype == dns.rdatatype.SOA], response


def make(name: str, qtype: str, **options: int) -> dns.message.QueryMessage:
    query = dns.message.make_query(name, qtype, use_edns=False)
    if options.get("edns"):
        query.use_edns(0, dns.flags.DO if options.get("do") else 0, options.get("size", 1232))
    if options.get("cd"):
        query.flags |= dns.flags.CD
    if options.get("ad"):
        query.flags |= dns.flags.AD
    return query


OWNED_QUESTIONS = list(itertools.product([*OWNED, DUAL, f"a.b.{BUCKET}", REGISTRY.upper()], _TYPES))


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"edns": 1},
        {"edns": 1, "do": 1},
        {"edns": 1, "do": 1, "cd": 1, "size": 4096},
        {"ad": 1},
        {"edns": 1, "size": 512},
    ],
    ids=["plain", "edns", "do", "cd", "ad", "512"],
)
def test_every_kind_of_answer_decodes(wire: Wire, options: dict[str, int]) -> None:
    for name, qtype in [*questions(), *OWNED_QUESTIONS]:
        query = make(name, qtype, **options)
        # Twice, so that it comes from upstream and from the cache, or from the table of finished answers.
        first, second = (judged(query, wire.udp(query.to_wire())) for _ in range(2))
        assert first.rcode() == second.rcode()
        limit = options.get("size", 1232) if options.get("edns") else 512
        whole = judged(query, wire.tcp(query.to_wire()))
        assert not whole.flags & dns.flags.TC
        if first.flags & dns.flags.TC:
            assert len(whole.to_wire(max_size=65_535)) > limit - 100
        else:
            assert _records(first) == _records(whole) == _records(second)


def _records(message: dns.message.Message) -> set[tuple[str, ...]]:
    return {
        (str(rrset.name), dns.rdatatype.to_text(rrset.rdtype), rdata.to_text())
        for rrset in message.answer
        for rdata in rrset
    }


def test_no_response_over_udp_is_longer_than_was_asked_for(wire: Wire) -> None:
    for name, qtype in questions():
        for size in (0, 512, 513, 600, 1231, 1232, 1233, 4096, 65_535):
            query = make(name, qtype, edns=1, do=1, size=size)
            data = wire.udp(query.to_wire())
            judged(query, data)
            assert len(data) <= min(max(size, 512), 1232)
        plain = make(name, qtype)
        assert len(wire.udp(plain.to_wire())) <= 512


def _random_query(chance: random.Random) -> dns.message.QueryMessage:
    base = chance.choice([REGISTRY, AUTH, BUCKET, DUAL, PLAIN, SIGNED, BOGUS, f"wild.{PLAIN}"])
    label = "".join(chance.choices(string.ascii_letters + string.digits + "-_", k=chance.randint(1, 20)))
    name = base if chance.random() < 0.3 else f"{label}.{base}"
    name = "".join(chance.choice([letter.upper(), letter]) for letter in name)
    query = make(
        name,
        chance.choice(_TYPES),
        edns=chance.randint(0, 1),
        do=chance.randint(0, 1),
        cd=chance.randint(0, 1),
        ad=chance.randint(0, 1),
        size=chance.choice([0, 512, 1232, 4096]),
    )
    query.id = chance.randrange(65_536)
    if query.edns == 0 and chance.random() < 0.3:
        code = dns.edns.OptionType.make(chance.choice([3, 8, 10, 11, 12, 100, 65_001]))
        option = dns.edns.GenericOption(code, chance.randbytes(8))
        query.use_edns(0, query.ednsflags, query.payload, options=[option])
    return query


def _is_nobodys(name: dns.name.Name) -> bool:
    """Tell whether the authority refuses that name: it is in none of its zones, and not owned."""
    zones = [dns.name.from_text(zone) for zone in (PLAIN, SIGNED, BOGUS, STORAGE)]
    owned = {dns.name.from_text(each) for each in [*OWNED, DUAL]}
    return name not in owned and not any(name.is_subdomain(zone) for zone in zones)


def test_random_queries_are_all_answered_and_decode(wire: Wire) -> None:
    chance = random.Random(SEED)  # noqa: S311 - the same queries each time
    seen = set()
    for _ in range(RANDOM_QUERIES):
        query = _random_query(chance)
        data = query.to_wire()
        response = judged(query, wire.udp(data) if chance.random() < 0.8 else wire.tcp(data))
        rcode = dns.rcode.to_text(response.rcode())
        assert (rcode == "SERVFAIL") == _is_nobodys(query.question[0].name), response
        seen.add(rcode)
        assert dns.flags.RA & response.flags
    assert seen == {"NOERROR", "NXDOMAIN", "SERVFAIL"}
