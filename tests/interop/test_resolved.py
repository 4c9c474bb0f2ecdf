"""systemd-resolved in front of the proxy and behind it, on a host of its own without systemd and D-Bus."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.e2e.digging import Reply, parse
from tests.e2e.processes import Process, wait_for
from tests.interop.authority import BIG, PLAIN, SIGNED
from tests.interop.island import AUTHORITY, PROXY, Island
from tests.interop.resolved import add_resolved
from tests.interop.world import DUAL, DUAL_ADDRESSES, OWNED, REGISTRY

pytestmark = [pytest.mark.interop, pytest.mark.usefixtures("machine")]

STUB = "127.0.0.53"


def asking(server: str) -> str:
    """Return settings by which it asks ``server`` alone."""
    lines = ["[Resolve]", f"DNS={server}", "FallbackDNS=", "Domains=~.", "DNSSEC=no", "DNSOverTLS=no"]
    return "\n".join([*lines, "LLMNR=no", "MulticastDNS=no", ""])


def dig(island: Island, server: str, *words: str) -> Reply:
    return parse(island.run("dig", "-r", f"@{server}", "+time=5", "+tries=1", *words).stdout)


def start(island: Island, resolved: Process) -> None:
    resolved.start(lambda: dig(island, STUB, "localhost").rcode == "NOERROR")
    # It learns by and by that the host has addresses, and answers nothing before.
    wait_for(lambda: dig(island, STUB, f"www.{PLAIN}").rcode == "NOERROR", "resolved has found its server")


@pytest.fixture(scope="module")
def before(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Island]:
    """client → resolved → proxy → authority"""
    with Island(tmp_path_factory.mktemp("r")) as island:
        island.start()
        start(island, add_resolved(island, island.space, asking(PROXY)))
        island.resolver(f"nameserver {STUB}", "options edns0 trust-ad")
        yield island


@pytest.fixture(scope="module")
def behind(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Island]:
    """client → proxy → resolved → authority"""
    with Island(tmp_path_factory.mktemp("r"), upstream=STUB) as island:
        resolved = add_resolved(island, island.space, asking(AUTHORITY))
        island.authority.start()
        start(island, resolved)
        island.start_proxy()
        yield island


def check_forwarded(island: Island, server: str) -> None:
    assert dig(island, server, f"www.{PLAIN}").data == ["192.0.2.1"]
    chained = dig(island, server, f"chain.{PLAIN}", "AAAA")
    assert [record.type for record in chained.answer] == ["CNAME", "CNAME", "AAAA"]
    missing, empty = dig(island, server, f"none.{PLAIN}"), dig(island, server, f"v4.{PLAIN}", "AAAA")
    assert [(reply.rcode, reply.answer) for reply in (missing, empty)] == [("NXDOMAIN", ()), ("NOERROR", ())]
    texts = sorted(f'"{text}"' for text in BIG)
    whole = dig(island, server, f"big.{PLAIN}", "TXT")
    assert whole.data == texts
    assert "(TCP)" in whole.text
    # With CD it passes queries on as they are.
    signed = dig(island, server, f"www.{SIGNED}", "+dnssec", "+cd")
    assert sorted(record.type for record in signed.answer) == ["A", "RRSIG"]


def test_resolved_behind_the_proxy(behind: Island) -> None:
    check_forwarded(behind, PROXY)
    for name, addresses in OWNED.items():
        assert dig(behind, PROXY, name).data == addresses


def test_resolved_in_front_of_the_proxy(before: Island) -> None:
    check_forwarded(before, STUB)
    for name, addresses in OWNED.items():
        assert dig(before, STUB, name).data == addresses
    for qtype in ("AAAA", "HTTPS", "MX"):
        empty = dig(before, STUB, REGISTRY, qtype)
        assert (empty.rcode, empty.answer) == ("NOERROR", ())


def test_programs_ask_through_resolved(before: Island) -> None:
    for name, addresses in {**OWNED, DUAL: DUAL_ADDRESSES}.items():
        said = before.run("getent", "ahosts", name).stdout
        assert sorted({line.split()[0] for line in said.splitlines()}) == addresses
    assert before.run("getent", "ahosts", f"none.{PLAIN}").returncode == 2
