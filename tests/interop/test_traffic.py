"""dnsperf sends mixed traffic, bounded, and loses nothing."""

from __future__ import annotations

import itertools
import re
from pathlib import Path

import pytest

from tests.e2e.processes import run_command
from tests.interop.authority import PLAIN, SIGNED, questions
from tests.interop.world import BUCKET, DUAL, OWNED, World

pytestmark = pytest.mark.interop

QUERIES = 6_000


@pytest.fixture(scope="module")
def traffic(world: World) -> Path:
    """Owned, cached and new names in turn, so that each query meets another path than the one before."""
    owned = itertools.cycle(itertools.product([*OWNED, DUAL, f"x.{BUCKET}"], ["A", "AAAA", "HTTPS"]))
    # dnsperf reads names without escapes, and its input without what the authority refuses.
    kept = itertools.cycle(q for q in questions() if "\\" not in q[0] and "elsewhere" not in q[0])
    lines = []
    for number in range(QUERIES // 3):
        fresh = (f"n{number}.wild.{PLAIN}" if number % 2 else f"n{number}.{SIGNED}", "A")
        lines += [f"{name} {qtype}" for name, qtype in (next(owned), next(kept), fresh)]
    file = world.folder / "traffic"
    file.write_text("\n".join(lines) + "\n")
    return file


@pytest.mark.parametrize("mode", ["udp", "tcp"])
@pytest.mark.parametrize("options", [[], ["-e", "-D"]], ids=["plain", "edns-do"])
def test_mixed_traffic_loses_nothing(world: World, traffic: Path, mode: str, options: list[str]) -> None:
    before = _drops(world)
    done = run_command(
        *("dnsperf", "-s", "127.0.0.1", "-p", str(world.dns_port), "-m", mode, "-d", traffic),
        *("-n", "1", "-c", "8", "-q", "40", "-t", "10", *options),
    )
    said = done.stdout
    assert done.returncode == 0, said + done.stderr
    assert _number(r"Queries sent:\s+(\d+)", said) == QUERIES
    assert _number(r"Queries completed:\s+(\d+)", said) == QUERIES
    assert _number(r"Queries lost:\s+(\d+)", said) == 0
    rcodes = dict(re.findall(r"(\w+) (\d+) \(", said.partition("Response codes:")[2].partition("\n")[0]))
    assert set(rcodes) == {"NOERROR", "NXDOMAIN"}, said
    # Half of the new names exist by the wildcard.
    assert int(rcodes["NXDOMAIN"]) > QUERIES // 6
    assert not re.search(r"unexpected|short|malformed|error|warning", done.stderr, re.IGNORECASE), done.stderr
    assert _drops(world) == before
    assert world.proxy.alive


def _drops(world: World) -> list[str]:
    return [line for line in world.admin("/metrics").body.decode().splitlines() if "dnsproxy_drops_" in line]


def _number(pattern: str, text: str) -> int:
    found = re.search(pattern, text)
    assert found is not None, text
    return int(found[1])
