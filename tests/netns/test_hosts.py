"""Lines in the data centre's own hosts file, which programs read before they ask any server."""

from __future__ import annotations

import pytest

from tests.netns.region import BUCKET, REGISTRY, STORAGE_ADDRESS
from tests.netns.world import World

pytestmark = [pytest.mark.netns]


def test_audit_finds_the_line_that_shadows(world: World) -> None:
    clean = world.command("hosts", "audit")
    assert clean.returncode == 0, clean.stdout + clean.stderr
    world.use_hosts(f"{STORAGE_ADDRESS} {BUCKET}", f"10.94.205.7 {REGISTRY}", "10.200.0.99 printer.example")
    audit = world.command("hosts", "audit")
    assert audit.returncode == 1
    said = audit.stdout + audit.stderr
    assert BUCKET in said
    assert f"10.94.205.7 {REGISTRY}" in said
    assert "printer" not in said
