"""systemd-resolved in front of the proxy and behind it, on a host of its own without systemd and D-Bus."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.e2e.digging import Reply, parse
from tests.e2e.processes import Process, wait_for
from tests.interop import judges
from tests.interop.authority import BIG, PLAIN, SIGNED
from tests.interop.island import AUTHORITY, PROXY, Island
from tests.interop.world import DUAL, DUAL_ADDRESSES, OWNED, REGISTRY

pytestmark = [pytest.mark.interop, pytest.mark.usefixtures("machine")]

STUB = "127.0.0.53"


def add_resolved(island: Island, server: str) -> Process:
    """Make systemd-resolved, which asks ``server`` alone, as a program of the island."""
    program = judges.find_resolved()
    assert program is not None
    # The user that it becomes; the machine need not have it.
    island.space.write("passwd", "root:x:0:0::/root:/bin/sh", "systemd-resolve:x:991:991::/:/bin/false")
    island.space.write("group", "root:x:0:", "systemd-resolve:x:991:")
    settings = island.folder / "resolved.conf"
    lines = ["[Resolve]", f"DNS={server}", "FallbackDNS=", "Domains=~.", "DNSSEC=no", "DNSOverTLS=no"]
    settings.write_text("\n".join([*lines, "LLMNR=no", "MulticastDNS=no", ""]))
    # A /run of its own: that of the machine has the machine's own resolved, and its bus.
    script = f"""set -e
mount -t tmpfs tmpfs /run
mkdir -p /run/systemd/resolve /run/systemd/resolved.conf.d
chown systemd-resolve:systemd-resolve /run/systemd/resolve
cp {settings} /run/systemd/resolved.conf.d/test.conf
exec env {" ".join(judges.resolved_environment())} SYSTEMD_LOG_TARGET=console {program}
"""
    return island.add_process(island.space, "resolved", "sh", "-c", script)


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
        start(island, add_resolved(island, PROXY))
        island.resolver(f"nameserver {STUB}", "options edns0 trust-ad")
        yield island


@pytest.fixture(scope="module")
def behind(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Island]:
    """client → proxy → resolved → authority"""
    with Island(tmp_path_factory.mktemp("r"), upstream=STUB) as island:
        resolved = add_resolved(island, AUTHORITY)
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
