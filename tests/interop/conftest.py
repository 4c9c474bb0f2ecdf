"""Worlds for the tests here, and the judges that they need."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.interop import judges
from tests.interop.island import Island
from tests.interop.world import World
from tests.needs import give_up
from tests.netns import spaces


def pytest_report_header() -> list[str]:
    return ["judges:", *(f"  {line}" for line in judges.table())]


@pytest.fixture(scope="session", autouse=True)
def _judges() -> None:
    missing = judges.missing()
    if missing:
        give_up(f"NOT JUDGED BY OTHERS, missing: {', '.join(missing)}; run scripts/setup.sh packages")


@pytest.fixture(scope="session")
def machine() -> None:
    """Make sure that hosts of the tests' own can be made."""
    refusal = spaces.refusal()
    if refusal is not None:
        give_up(f"STUB RESOLVERS NOT TESTED, no network namespaces here ({refusal}); run as root")


@pytest.fixture(scope="session")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    """A world that runs, shared by all tests of a worker: they only ask."""
    # A short name: the path of a Unix socket has 107 octets at most.
    with World(tmp_path_factory.mktemp("i")) as made:
        made.start()
        yield made


@pytest.fixture(scope="session")
def island(tmp_path_factory: pytest.TempPathFactory, machine: None) -> Iterator[Island]:
    """A host that runs, shared by all tests of a worker."""
    with Island(tmp_path_factory.mktemp("s")) as made:
        made.start()
        yield made
