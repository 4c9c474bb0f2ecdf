"""dig, kdig, drill and delv ask the proxy, each with its own decoder and its own idea of what is wrong."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.e2e.digging import Reply, Server
from tests.e2e.processes import run_command
from tests.interop.authority import BIG, BOGUS, MANY, PLAIN, SIGNED, questions
from tests.interop.world import AUTH, BUCKET, DUAL, OWNED, REGISTRY, World

pytestmark = pytest.mark.interop

# What the three say of a message that they do not like.
_COMPLAINT = re.compile(
    r"warning|malformed|extra bytes|bad packet|mismatch|bad label|;; error", re.IGNORECASE
)
_TEXTS = sorted(f'"{text}"' for text in BIG)


class Ask:
    """One of the three programs, asking the world's proxy; the test fails when it complains of a response."""

    def __init__(self, program: str, world: World) -> None:
        self.secure = "-D" if program == "drill" else "+dnssec"
        # drill does not come back by itself.
        self.whole = ["-t"] if program == "drill" else []
        self._run: Callable[..., Reply] = getattr(world.server, program)

    def __call__(self, name: str, qtype: str = "A", *options: str) -> Reply:
        reply = self._run(name, qtype, *options)
        assert _COMPLAINT.search(reply.text) is None, reply.text
        return reply


@pytest.fixture(params=["dig", "kdig", "drill"])
def ask(request: pytest.FixtureRequest, world: World) -> Ask:
    return Ask(request.param, world)


@pytest.mark.parametrize("name", OWNED)
def test_owned_name_has_its_whole_set(ask: Ask, name: str) -> None:
    reply = ask(name)
    assert (reply.rcode, reply.data) == ("NOERROR", OWNED[name])
    assert reply.flags == {"qr", "aa", "rd", "ra"}


@pytest.mark.parametrize("qtype", ["AAAA", "HTTPS", "SVCB", "TXT", "MX", "SOA", "NS", "TYPE65280"])
def test_other_types_of_an_owned_name_are_nodata(ask: Ask, qtype: str) -> None:
    reply = ask(REGISTRY, qtype)
    assert (reply.rcode, reply.answer) == ("NOERROR", ())
    assert [(record.name, record.type) for record in reply.authority] == [(f"{REGISTRY}.", "SOA")]


def test_owned_name_with_both_families(ask: Ask) -> None:
    assert ask(DUAL).data == ["10.94.205.200"]
    assert ask(DUAL, "AAAA").data == ["fd00:94::200"]


# kdig asks in lower case.
@pytest.mark.parametrize("ask", ["dig", "drill"], indirect=True)
def test_case_of_the_question_is_kept(ask: Ask) -> None:
    (record,) = ask("ReGiStRy.OwNeD.eXaMpLe").answer
    assert record.name == "ReGiStRy.OwNeD.eXaMpLe."


@pytest.mark.parametrize("name", [f"www.{PLAIN}", f"chain.{PLAIN}", f"x.wild.{PLAIN}"])
def test_forwarded_name(ask: Ask, name: str) -> None:
    reply = ask(name)
    assert reply.rcode == "NOERROR"
    assert reply.data[0] in {"192.0.2.1", "192.0.2.7"}
    assert "aa" not in reply.flags


@pytest.mark.parametrize(("name", "qtype", "rcode"), [("none", "A", "NXDOMAIN"), ("v4", "AAAA", "NOERROR")])
def test_forwarded_denial(ask: Ask, name: str, qtype: str, rcode: str) -> None:
    reply = ask(f"{name}.{PLAIN}", qtype)
    assert (reply.rcode, reply.answer) == (rcode, ())
    assert [record.type for record in reply.authority] == ["SOA"]


def test_what_does_not_fit_comes_over_tcp(ask: Ask) -> None:
    assert ask(f"big.{PLAIN}", "TXT", *ask.whole).data == _TEXTS
    assert ask(f"many.{PLAIN}", "A", *ask.whole).data == sorted(MANY)


def test_drill_is_told_to_come_over_tcp(world: World) -> None:
    reply = world.server.drill(f"big.{PLAIN}", "TXT")
    assert "tc" in reply.flags
    assert (reply.rcode, reply.answer) == ("NOERROR", ())


def test_dnssec_records_come_to_who_asks_for_them(ask: Ask) -> None:
    signed = ask(f"www.{SIGNED}", "A", ask.secure)
    assert sorted(record.type for record in signed.answer) == ["A", "RRSIG"]
    assert [record.type for record in ask(f"www.{SIGNED}").answer] == ["A"]
    denied = ask(f"none.{SIGNED}", "A", ask.secure)
    assert {"SOA", "NSEC", "RRSIG"} == {record.type for record in denied.authority}


@pytest.mark.parametrize(("name", "qtype"), questions())
def test_dig_and_kdig_read_every_kind_alike(world: World, name: str, qtype: str) -> None:
    by_dig = world.server.dig(name, qtype, "+dnssec")
    by_kdig = world.server.kdig(name, qtype, "+dnssec", "+generic")
    assert _COMPLAINT.search(by_dig.text + by_kdig.text) is None, by_dig.text + by_kdig.text
    assert by_dig.rcode
    assert (by_dig.rcode, len(by_dig.answer), len(by_dig.authority)) == (
        by_kdig.rcode,
        len(by_kdig.answer),
        len(by_kdig.authority),
    )
    # The same as without the proxy.
    straight = Server(world.authority.port).dig(name, qtype, "+dnssec", "+norec")
    if straight.rcode == "REFUSED" or name.startswith("into."):
        return
    assert (by_dig.rcode, by_dig.data) == (straight.rcode, straight.data)


@pytest.mark.parametrize("program", ["dig", "kdig"])
def test_many_questions_on_one_connection(world: World, program: str) -> None:
    names = [*OWNED, f"www.{PLAIN}", f"big.{PLAIN}", f"none.{PLAIN}"]
    keep = ["+tcp", "+keepopen"]
    words = [word for name in names for word in (name, "A", *keep)]
    first = ["-r"] if program == "dig" else []
    done = run_command(program, *first, "@127.0.0.1", "-p", str(world.server.port), *words)
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.count("HEADER") == len(names)
    assert all(address in done.stdout for address in OWNED[AUTH] + OWNED[BUCKET])


@pytest.fixture(scope="module")
def anchors(world: World) -> Path:
    file = world.folder / "anchors"
    file.write_text(f"trust-anchors {{ {' '.join(anchor.bind for anchor in world.authority.anchors)} }};\n")
    return file


def delv(world: World, anchors: Path, zone: str, label: str, qtype: str) -> str:
    done = run_command(
        *("delv", "@127.0.0.1", "-p", str(world.server.port), "-a", anchors, f"+root={zone}"),
        *(f"{label}.{zone}", qtype),
    )
    return done.stdout + done.stderr


@pytest.mark.parametrize(
    ("label", "qtype", "verdict"),
    [
        ("www", "A", "; fully validated"),
        ("www", "AAAA", "; fully validated"),
        ("chain", "A", "; fully validated"),
        ("x.wild", "A", "; fully validated"),
        ("big", "TXT", "; fully validated"),
        ("none", "A", "; negative response, fully validated"),
        ("v4", "AAAA", "; negative response, fully validated"),
    ],
)
def test_delv_validates_through_the_proxy(
    world: World, anchors: Path, label: str, qtype: str, verdict: str
) -> None:
    assert delv(world, anchors, SIGNED, label, qtype).startswith(f"{verdict}\n")


def test_delv_refuses_what_the_proxy_passes_on_of_a_bogus_zone(world: World, anchors: Path) -> None:
    assert world.server.dig(f"www.{BOGUS}").data == ["192.0.2.66"]
    said = delv(world, anchors, BOGUS, "www", "A")
    assert "resolution failed: RRSIG failed to verify" in said
    assert "fully validated" not in said
    # Only that record was changed.
    assert delv(world, anchors, BOGUS, "www", "AAAA").startswith("; fully validated\n")
