"""The queries of ISC's DNS compliance testing tool (ednscomp), asked by dig, with what it expects.

The tool asks servers for a zone of their own without RD. Here each query goes to an owned name and, with
RD, to the apex of a forwarded zone.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

import pytest

from tests.e2e.digging import Reply
from tests.interop.authority import PLAIN, SIGNED
from tests.interop.world import REGISTRY, World

pytestmark = pytest.mark.interop

_EDNS = re.compile(
    r"^; EDNS: version: (\d+), flags:([a-z ]*);(?: MBZ: (0x[0-9a-f]+),)? udp: (\d+)$", re.MULTILINE
)
_OPTION = re.compile(r"^; (COOKIE|NSID|CLIENT-SUBNET|EXPIRE|OPT=\d+|TCP KEEPALIVE|PAD)", re.MULTILINE)
_SIZE = re.compile(r"^;; MSG SIZE  rcvd: (\d+)$", re.MULTILINE)
NEW_VERSION = ("+edns=1", "+noednsneg")


@dataclass(frozen=True)
class Edns:
    """What dig saw of the OPT of a response."""

    version: int
    flags: frozenset[str]
    unknown_flags: str | None
    size: int

    @classmethod
    def of(cls, reply: Reply) -> Edns | None:
        found = _EDNS.search(reply.text)
        if found is None:
            assert "OPT PSEUDOSECTION" not in reply.text, reply.text
            return None
        return cls(int(found[1]), frozenset(found[2].split()), found[3], int(found[4]))


def size(reply: Reply) -> int:
    found = _SIZE.search(reply.text)
    assert found is not None, reply.text
    return int(found[1])


@pytest.fixture(params=["owned", "forwarded"])
def target(request: pytest.FixtureRequest) -> tuple[str, str]:
    """A name, and the option for RD: its SOA comes as authority of an owned one, as answer of another."""
    return (REGISTRY, "+norec") if request.param == "owned" else (PLAIN, "+rec")


def soa(reply: Reply) -> bool:
    return any(record.type == "SOA" for record in reply.answer + reply.authority)


# Each name is the tool's own.
GOOD = {
    "dns": ("+noedns",),
    "edns": ("+edns=0", "+nocookie"),
    "ednsopt": ("+edns=0", "+ednsopt=100", "+nocookie"),
    "do": ("+edns=0", "+dnssec", "+nocookie"),
    "ednsflags": ("+edns=0", "+ednsflags=0x80", "+nocookie"),
    "optlist": ("+edns=0", "+nsid", "+subnet=0.0.0.0/0", "+expire", "+cookie=0102030405060708"),
    "docookie": ("+dnssec", "+cookie=0102030405060708"),
    "edns4096": ("+bufsize=4096", "+nocookie"),
    "edns512": ("+bufsize=512", "+nocookie"),
    "edns0": ("+bufsize=0", "+nocookie"),
    "padding": ("+padding=128", "+nocookie"),
    "keepalive": ("+keepalive", "+nocookie"),
    "tcp": ("+noedns", "+tcp"),
    "ednstcp": ("+edns=0", "+dnssec", "+tcp", "+nocookie"),
}
VERSION_1 = {
    "edns1": NEW_VERSION,
    "edns1opt": (*NEW_VERSION, "+ednsopt=100"),
    "edns1do": (*NEW_VERSION, "+dnssec"),
    "edns1flags": (*NEW_VERSION, "+ednsflags=0x80"),
    "edns1tcp": (*NEW_VERSION, "+tcp"),
}


@pytest.mark.parametrize("options", GOOD.values(), ids=GOOD)
def test_p14_edns_is_understood(world: World, target: tuple[str, str], options: tuple[str, ...]) -> None:
    name, recursion = target
    reply = world.server.dig(name, "SOA", recursion, *options)
    assert (reply.rcode, soa(reply)) == ("NOERROR", True)
    edns = Edns.of(reply)
    if "+noedns" in options:
        assert edns is None
        return
    assert edns is not None
    assert (edns.version, edns.unknown_flags, edns.size) == (0, None, 1232)
    assert edns.flags == ({"do"} if "+dnssec" in options else set())
    assert _OPTION.search(reply.text) is None, reply.text


@pytest.mark.parametrize("options", VERSION_1.values(), ids=VERSION_1)
def test_p14_version_1_is_badvers(world: World, target: tuple[str, str], options: tuple[str, ...]) -> None:
    name, recursion = target
    reply = world.server.dig(name, "SOA", recursion, "+nocookie", *options)
    assert (reply.rcode, reply.answer, reply.authority) == ("BADVERS", (), ())
    edns = Edns.of(reply)
    assert edns is not None
    assert (edns.version, edns.unknown_flags) == (0, None)
    assert edns.flags == ({"do"} if "+dnssec" in options else set())
    assert _OPTION.search(reply.text) is None, reply.text


def test_p14_dig_finds_version_0_by_itself(world: World) -> None:
    # Without +noednsneg it comes back with the version that BADVERS told.
    reply = world.server.dig(REGISTRY, "+edns=1")
    assert (reply.rcode, reply.data) == ("NOERROR", ["10.94.205.198"])


@pytest.mark.parametrize("bufsize", [512, 1232, 4096])
def test_p15_signed_answers_fit_or_are_truncated(world: World, bufsize: int) -> None:
    for name, qtype in ((SIGNED, "DNSKEY"), (f"none.{SIGNED}", "A"), (f"big.{SIGNED}", "TXT")):
        told = world.server.dig(name, qtype, "+dnssec", f"+bufsize={bufsize}", "+ignore")
        assert size(told) <= min(bufsize, 1232)
        edns = Edns.of(told)
        assert edns is not None
        assert edns.flags == {"do"}
        whole = world.server.dig(name, qtype, "+dnssec", f"+bufsize={bufsize}", "+tcp")
        assert any(record.type == "RRSIG" for record in whole.answer + whole.authority)
        assert "tc" not in whole.flags
        if "tc" in told.flags:
            assert told.answer == ()
        else:
            assert told.data == whole.data


@pytest.mark.parametrize(
    ("flag", "kept"),
    [
        ("+aaflag", False),
        ("+tcflag", False),
        ("+raflag", False),
        ("+zflag", False),
        ("+adflag", False),
        ("+cdflag", True),
    ],
)
def test_p14_header_flags_of_a_query(world: World, target: tuple[str, str], flag: str, *, kept: bool) -> None:
    # genreport's aa, tc, ra, zflag, ad and cd: what means nothing in a query is neither obeyed nor sent back.
    name, recursion = target
    plain = world.server.dig(name, "SOA", recursion, "+noedns")
    reply = world.server.dig(name, "SOA", recursion, "+noedns", flag)
    assert (reply.rcode, soa(reply)) == ("NOERROR", True)
    assert reply.flags - plain.flags == ({"cd"} if kept else set())
    assert "MBZ" not in reply.text


@pytest.mark.parametrize(
    ("opcode", "name"), [(1, "IQUERY"), (2, "STATUS"), (6, "RESERVED6"), (15, "RESERVED15")]
)
@pytest.mark.parametrize(
    "flags", [(), ("+tcflag", "+cdflag", "+adflag", "+raflag")], ids=["opcode", "opcodeflg"]
)
@pytest.mark.parametrize("edns", ["+noedns", "+edns=0"])
def test_p09_unknown_opcodes(world: World, opcode: int, name: str, flags: tuple[str, ...], edns: str) -> None:
    for question in ("+header-only", "+noheader-only"):
        reply = world.server.dig(REGISTRY, f"+opcode={opcode}", edns, "+nocookie", question, *flags)
        assert (reply.rcode, reply.answer) == ("NOTIMP", ())
        assert f"opcode: {name}," in reply.text
        assert reply.flags <= {"qr", "rd", "ra", "cd"}
        assert (Edns.of(reply) is None) == (edns == "+noedns")


def test_p13_unknown_type(world: World, target: tuple[str, str]) -> None:
    name, recursion = target
    reply = world.server.dig(name, "TYPE666", recursion)
    assert (reply.rcode, reply.answer, soa(reply)) == ("NOERROR", (), True)


@pytest.mark.parametrize("edns", ["+noedns", "+edns=0"])
def test_p09_no_question(world: World, edns: str) -> None:
    reply = world.server.dig(REGISTRY, "+header-only", edns, "+nocookie")
    assert reply.rcode == "FORMERR"
    assert (Edns.of(reply) is None) == (edns == "+noedns")
