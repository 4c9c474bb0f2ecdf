"""The resolvers that programs bring along look names up at the proxy: glibc, musl, Go's and c-ares.

Each is a real program on a host whose resolv.conf names the proxy.
"""

from __future__ import annotations

import re
import sys
from pathlib import Path
from typing import Protocol

import pycares
import pytest

from tests.e2e.processes import run_command
from tests.interop.authority import MANY, PLAIN
from tests.interop.island import ADDRESS, PROXY, Island
from tests.interop.world import AUTH, BUCKET, DUAL, DUAL_ADDRESSES, OWNED, REGISTRY, STORAGE

pytestmark = pytest.mark.interop

HERE = Path(__file__).parent
WWW = ["192.0.2.1", "2001:db8::1"]
# What a lookup for any family gives.
NAMES = {
    **OWNED,
    f"a.b.{STORAGE}": OWNED[STORAGE],
    REGISTRY.upper(): OWNED[REGISTRY],
    DUAL: DUAL_ADDRESSES,
    f"www.{PLAIN}": WWW,
    f"v4.{PLAIN}": ["192.0.2.4"],
    f"chain.{PLAIN}": WWW,
    f"into.{PLAIN}": OWNED[REGISTRY],
    f"x.wild.{PLAIN}": ["192.0.2.7"],
}
SEARCH = ("search team.svc.cluster.local svc.cluster.local cluster.local", "options ndots:5")
CONFIGURATIONS = {
    "plain": (f"nameserver {PROXY}",),
    "ipv6": ("nameserver ::1",),
    "three": (f"nameserver {PROXY}", "nameserver ::1", f"nameserver {ADDRESS}", "options rotate"),
    # As in a pod: four names are asked that do not exist before the one that does.
    "pod": (f"nameserver {PROXY}", *SEARCH),
}


class Lookup(Protocol):
    """Looks names up, for any family, ``4`` or ``6``; an empty list where there is nothing."""

    def __call__(self, island: Island, *names: str, family: str = "any") -> dict[str, list[str]]: ...


@pytest.fixture(scope="module")
def musl_program(tmp_path_factory: pytest.TempPathFactory) -> Path:
    program = tmp_path_factory.mktemp("c") / "lookup"
    done = run_command("musl-gcc", "-static", "-Wall", "-Werror", "-o", program, HERE / "musl_lookup.c")
    assert done.returncode == 0, done.stderr
    return program


def _glibc(island: Island, *names: str, family: str = "any") -> dict[str, list[str]]:
    database = {"any": "ahosts", "4": "ahostsv4", "6": "ahostsv6"}[family]
    found = {}
    for name in names:
        done = island.run("getent", database, name)
        # 2: not found.
        assert done.returncode == (0 if done.stdout else 2), done.stderr
        addresses = {line.split()[0] for line in done.stdout.splitlines()}
        # getent maps IPv4 addresses for who asks for IPv6 ones alone.
        found[name] = sorted(address for address in addresses if not address.startswith("::ffff:"))
    return found


def _cares(island: Island, *names: str, family: str = "any") -> dict[str, list[str]]:
    done = island.run(sys.executable, HERE / "cares_lookup.py", family, *names)
    assert done.returncode == 0, done.stderr
    lines = {name: addresses for name, *addresses in map(str.split, done.stdout.splitlines())}
    nothing = {f"!{pycares.errno.ARES_ENOTFOUND}", f"!{pycares.errno.ARES_ENODATA}"}
    assert {word for words in lines.values() for word in words if word.startswith("!")} <= nothing, (
        done.stdout
    )
    return {
        name: sorted({word for word in words if not word.startswith("!")}) for name, words in lines.items()
    }


@pytest.fixture(params=["glibc", "musl", "c-ares"])
def lookup(request: pytest.FixtureRequest) -> Lookup:
    if request.param != "musl":
        return _glibc if request.param == "glibc" else _cares
    program = request.getfixturevalue("musl_program")

    def look(island: Island, *names: str, family: str = "any") -> dict[str, list[str]]:
        found = {}
        for name in names:
            done = island.run(program, family, name)
            # EAI_NODATA and EAI_NONAME; EAI_AGAIN, 3, would be a server that fails.
            assert done.returncode in ({0} if done.stdout else {2, 5}), done.stderr
            found[name] = sorted(set(done.stdout.split()))
        return found

    return look


@pytest.mark.parametrize("configuration", CONFIGURATIONS.values(), ids=CONFIGURATIONS)
def test_p02_every_name_is_found(island: Island, lookup: Lookup, configuration: tuple[str, ...]) -> None:
    island.resolver(*configuration)
    assert lookup(island, *NAMES, f"none.{PLAIN}") == NAMES | {f"none.{PLAIN}": []}


@pytest.mark.parametrize("family", ["4", "6"])
def test_p02_families_one_at_a_time(island: Island, lookup: Lookup, family: str) -> None:
    island.resolver(*CONFIGURATIONS["plain"])
    assert lookup(island, *NAMES, family=family) == {
        name: [address for address in addresses if (":" in address) == (family == "6")]
        for name, addresses in NAMES.items()
    }


@pytest.mark.parametrize(
    "options", ["edns0", "use-vc", "single-request", "single-request-reopen", "trust-ad"]
)
def test_options_of_glibc(island: Island, options: str) -> None:
    island.resolver(*CONFIGURATIONS["plain"], f"options {options}")
    names = (AUTH, DUAL, f"chain.{PLAIN}")
    assert _glibc(island, *names) == {name: NAMES[name] for name in names}


# musl comes over TCP from 1.2.4 on.
@pytest.mark.parametrize("lookup", ["glibc", "c-ares"], indirect=True)
def test_p15_a_set_that_udp_cannot_hold(island: Island, lookup: Lookup) -> None:
    island.resolver(*CONFIGURATIONS["plain"])
    assert lookup(island, f"many.{PLAIN}") == {f"many.{PLAIN}": sorted(MANY)}


# -- Go -------------------------------------------------------------------------

_DIALLED = re.compile(r"dial tcp (?:\[([0-9a-f:]+)\]|([0-9.]+)):\d+: connect:")


def _go(island: Island, name: str) -> str:
    """Return what skopeo, a program in Go, said when it was told to use Go's own resolver."""
    done = island.run(
        *("env", "GODEBUG=netdns=go+2", "HOME=/nonexistent", "skopeo", "--command-timeout", "20s", "inspect"),
        *("--tls-verify=false", f"docker://{name}/team/app:1"),
    )
    assert f"hostLookupOrder({name}) = files,dns" in done.stderr, done.stderr
    return done.stderr


@pytest.mark.parametrize("configuration", CONFIGURATIONS.values(), ids=CONFIGURATIONS)
def test_p02_go_connects_to_what_it_was_told(island: Island, configuration: tuple[str, ...]) -> None:
    island.resolver(*configuration)
    for name, addresses in (
        (REGISTRY, OWNED[REGISTRY]),
        (AUTH, OWNED[AUTH]),
        (BUCKET, OWNED[BUCKET]),
        (f"v4.{PLAIN}", ["192.0.2.4"]),
        (f"into.{PLAIN}", OWNED[REGISTRY]),
        (f"many.{PLAIN}", MANY),
    ):
        said = _go(island, name)
        found = _DIALLED.search(said)
        assert found is not None, said
        assert (found[1] or found[2]) in addresses


def test_go_is_told_that_a_name_does_not_exist(island: Island) -> None:
    island.resolver(*CONFIGURATIONS["plain"])
    assert f"lookup none.{PLAIN} on {PROXY}:53: no such host" in _go(island, f"none.{PLAIN}")
