"""Worlds for the tests here, and the foreign programs that they need."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.e2e.world import World
from tests.needs import need_programs

PROGRAMS = (
    *("unbound", "unbound-control", "dnsmasq", "dig", "kdig", "curl"),
    *("fstrm_capture", "dnstap-read"),
)


@pytest.fixture(scope="session", autouse=True)
def _programs() -> None:
    need_programs("NOT TESTED END TO END", *PROGRAMS)


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


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    """A world that runs, shared by the module's tests in one worker: they only ask."""
    with World(tmp_path_factory.mktemp("w")) as made:
        made.start()
        yield made
