from __future__ import annotations

import subprocess
import sys

import pytest

from tests.fills import FILLS

# What the allocator may need beyond what is counted.
OVERHEAD = 1.25


@pytest.mark.parametrize("name", FILLS)
def test_p20_what_a_remote_party_can_fill_stays_within_its_limit(name: str) -> None:
    """Filled well beyond its limit in a process of its own; the growth of resident memory counts."""
    done = subprocess.run(
        [sys.executable, "-m", "tests.fills", name], check=True, capture_output=True, text=True, timeout=300
    )
    limit, _ = FILLS[name]
    assert 0 < int(done.stdout) <= OVERHEAD * limit
