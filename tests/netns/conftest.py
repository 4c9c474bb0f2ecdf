"""The world of the tests here, and what it needs from the machine."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.needs import give_up, need_programs
from tests.netns import spaces
from tests.netns.world import World

PROGRAMS = ("ip", "ss", "unbound", "unbound-control", "dig", "curl", "docker-registry", "nginx", "skopeo")
UNTESTED = "NOT TESTED WITH A REAL REGISTRY"


@pytest.fixture(scope="session", autouse=True)
def _machine() -> None:
    need_programs(UNTESTED, *PROGRAMS)
    refusal = spaces.refusal()
    if refusal is not None:
        give_up(f"{UNTESTED}, no network namespaces here ({refusal}); run as root with CAP_SYS_ADMIN")


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
