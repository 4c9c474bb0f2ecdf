"""What the tests of faults have in common: worlds of processes, and the foreign programs that they need."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.e2e.world import World
from tests.faults.asking import Steady
from tests.faults.island import Island, IslandError
from tests.faults.zones import Zones
from tests.needs import give_up, need_programs

PROGRAMS = ("unbound", "unbound-control", "dig", "faketime")
# Cases take their longer form where this is set: `make faults FULL=1`, `make soak`.
FULL = bool(os.environ.get("DNSPROXY_FAULTS_FULL"))


@pytest.fixture(scope="session", autouse=True)
def _programs() -> None:
    need_programs("FAULTS NOT TESTED", *PROGRAMS)


@pytest.fixture(scope="session")
def full() -> bool:
    """Whether the longer form of each case was asked for."""
    return FULL


@pytest.fixture(scope="module")
def island() -> Iterator[Island]:
    """A loopback interface of the module's own; its MTU is the smallest of IPv6 (RFC 8200 §5)."""
    try:
        with Island(1280) as made:
            yield made
    except IslandError as exc:
        give_up(f"FAULTS NOT TESTED, no network namespace here ({exc}); run as root with CAP_SYS_ADMIN")


@pytest.fixture
def note(request: pytest.FixtureRequest) -> Callable[..., None]:
    """Keep a figure of the test, for docs/reliability.md: printed, and in the file that is named here."""
    path = os.environ.get("DNSPROXY_FAULTS_FIGURES")

    def keep(text: str) -> None:
        line = f"{request.node.nodeid.rpartition('/')[2]}: {text}"
        print(line)  # noqa: T201 - captured, and shown with a failure
        if path:
            with Path(path).open("a") as file:
                file.write(f"{line}\n")

    return keep


@pytest.fixture
def learned_names_are_answered(zones: Zones, note: Callable[..., None]) -> Iterator[None]:
    """The promise that holds in every case, asserted in every case; modules that use this have ``zones``."""
    with Steady(zones.world) as steady:
        yield
    note(f"learned name answered {steady.answers.total()} times meanwhile")


@pytest.fixture
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    """A world of the test's own in which nothing runs yet."""
    # A short name: the path of a Unix socket has 107 octets at most.
    with World(tmp_path_factory.mktemp("w")) as made:
        yield made


@pytest.fixture
def started(world: World) -> World:
    """A world of the test's own, in which every name is learned."""
    world.start()
    return world
