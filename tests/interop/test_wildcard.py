"""Wildcard listeners on a host of several addresses: a response leaves from the one that the query came to.

dig and kdig take no response from any other.
"""

from __future__ import annotations

import json
from collections.abc import Iterator

import pytest

from tests.e2e.digging import parse
from tests.interop.authority import PLAIN
from tests.interop.island import ADDRESS, ADDRESS6, SECOND, SECOND6, Island
from tests.interop.world import OWNED, REGISTRY

pytestmark = [pytest.mark.interop, pytest.mark.usefixtures("machine")]

# 127.0.0.9 is no interface's own address, only in the range of loopback.
LOCAL = ["127.0.0.1", "127.0.0.9", ADDRESS, SECOND, "::1", ADDRESS6, SECOND6]
REMOTE = [ADDRESS, SECOND, ADDRESS6, SECOND6]
ASKED = [(REGISTRY, OWNED[REGISTRY]), (f"www.{PLAIN}", ["192.0.2.1"])]
DIG = ("dig", "-r", "+time=5", "+tries=1")
KDIG = ("kdig", "+timeout=5", "+retry=0")


@pytest.fixture(scope="module", params=[1, 2], ids=["one process", "two workers"])
def wildcard(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory, machine: None
) -> Iterator[Island]:
    # The authority has another port: on 53 every address is the proxy's.
    serve = {"listen": ["0.0.0.0:53", "[::]:53"], "workers": request.param}
    with Island(tmp_path_factory.mktemp("s"), authority_port=5353, serve=serve) as made:
        made.start()
        yield made


@pytest.mark.parametrize("program", [DIG, KDIG], ids=["dig", "kdig"])
@pytest.mark.parametrize("transport", ["+notcp", "+tcp"])
def test_p25_the_response_comes_from_the_address_asked(
    wildcard: Island, program: tuple[str, ...], transport: str
) -> None:
    for run, asked in ((wildcard.run, LOCAL), (wildcard.run_at_sea, REMOTE)):
        for address in asked:
            # Twice: the second answer of a forwarded name comes from the cache, not by way of an upstream.
            for name, expected in ASKED * 2:
                said = run(*program, f"@{address}", transport, name)
                assert parse(said.stdout).data == expected, said.stdout + said.stderr
                assert "unexpected source" not in said.stdout + said.stderr


def test_p25_large_responses_too(wildcard: Island) -> None:
    for address in REMOTE:
        reply = parse(wildcard.run_at_sea(*DIG, f"@{address}", f"big.{PLAIN}", "TXT").stdout)
        assert len(reply.answer) == 20


@pytest.mark.parametrize("transport", ["+notcp", "+tcp"])
def test_p25_link_local_addresses_too(wildcard: Island, transport: str) -> None:
    found = json.loads(
        wildcard.run("ip", "-6", "-j", "address", "show", "dev", "sea", "scope", "link").stdout
    )
    # What the filter leaves out stays in its output as an empty object.
    (asked,) = (entry["local"] for device in found for entry in device.get("addr_info", ()) if entry)
    # From a link-local address, as clients choose by themselves, and from a global one.
    for source in ((), ("-b", "fd77::1")):
        for name, expected in ASKED * 2:
            said = wildcard.run_at_sea(*DIG, f"@{asked}%island", *source, transport, name)
            assert parse(said.stdout).data == expected, said.stdout + said.stderr
