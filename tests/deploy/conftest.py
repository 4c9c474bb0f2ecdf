"""What the tests here need of the machine: each file of deploy/ is judged by its own tool."""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.e2e.processes import PATH, ROOT
from tests.needs import give_up

# Where scripts/setup.sh puts helm and kubectl, where pip puts hadolint and docker-compose, then Debian's.
PLACES = os.pathsep.join([str(ROOT / ".tools"), str(Path(sys.executable).parent), PATH])


@pytest.fixture(scope="session")
def tool() -> Callable[[str], str]:
    """Find a program; without it the test is skipped with one loud reason, and fails where CI is set."""

    def find(name: str) -> str:
        found = shutil.which(name, path=PLACES)
        if found is None:
            give_up(f"DEPLOYMENT NOT TESTED, missing: {name}; run scripts/setup.sh packages and tools")
        return found

    return find
