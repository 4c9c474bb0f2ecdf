"""The world of the tests here, and what it needs from the machine."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest

from tests.e2e.processes import find_program
from tests.netns import spaces
from tests.netns.world import World

PROGRAMS = ("ip", "ss", "unbound", "unbound-control", "dig", "curl", "docker-registry", "nginx", "skopeo")


def _reason() -> str | None:
    missing = [program for program in PROGRAMS if find_program(program) is None]
    if missing:
        return f"missing: {', '.join(missing)}; run scripts/setup.sh packages"
    refusal = spaces.refusal()
    return f"no network namespaces here ({refusal}); run as root with CAP_SYS_ADMIN" if refusal else None


@pytest.fixture(scope="session", autouse=True)
def _machine() -> None:
    reason = _reason()
    if reason is None:
        return
    reason = f"NOT TESTED WITH A REAL REGISTRY, {reason}"
    if os.environ.get("CI"):
        pytest.fail(reason)
    pytest.skip(reason)


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    """A world of the module's own: making one takes seconds."""
    # A short name: the path of a Unix socket has 107 octets at most.
    with World(tmp_path_factory.mktemp("n")) as made:
        yield made


@pytest.fixture
def world(shared: World) -> World:
    """The module's world, in order whatever the test before has done to it."""
    shared.heal()
    return shared
