"""What a test needs of its machine, and what becomes of the test where that is missing."""

from __future__ import annotations

import os
from typing import NoReturn

import pytest

from tests.e2e.processes import find_program


def give_up(reason: str) -> NoReturn:
    """Skip with one loud reason; fail where ``CI`` is set, where nothing may be left out unseen."""
    __tracebackhide__ = True
    if os.environ.get("CI"):
        pytest.fail(reason)
    pytest.skip(reason)


def need_programs(untested: str, *programs: str) -> None:
    """Give up unless all are installed; ``untested`` says what is left out then."""
    __tracebackhide__ = True
    missing = [program for program in programs if find_program(program) is None]
    if missing:
        give_up(f"{untested}, missing: {', '.join(missing)}; run scripts/setup.sh packages")
