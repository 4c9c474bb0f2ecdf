"""Octets made to break the parsers: those that are kept, and a few seconds of new ones for each target."""

from __future__ import annotations

import importlib.util
import re
import subprocess
import sys

import pytest

from tests.e2e.processes import ROOT, environment
from tests.faults.conftest import FULL
from tests.faults.fuzz import corpus
from tests.faults.fuzz.targets import TARGETS
from tests.needs import give_up

pytestmark = pytest.mark.faults

# Of fuzzing, for each target; `make fuzz` takes as long as it is told.
SECONDS = 60 if FULL else 2


def test_every_target_has_inputs_to_start_from() -> None:
    assert {path.stem for path in corpus.FOLDER.iterdir()} == set(TARGETS)


@pytest.mark.parametrize("target", TARGETS)
def test_what_is_kept_is_survived(target: str) -> None:
    inputs = corpus.read(target)
    assert len(inputs) >= 5
    for data in inputs:
        TARGETS[target](data)


@pytest.mark.timeout(SECONDS + 120)
@pytest.mark.parametrize("target", TARGETS)
def test_what_coverage_leads_to_is_survived(target: str) -> None:
    if importlib.util.find_spec("atheris") is None:
        give_up("NOT FUZZED, atheris is missing; run: pip install -e '.[fuzz]'")
    done = subprocess.run(
        [sys.executable, "-m", "tests.faults.fuzz", "--seconds", str(SECONDS), target],
        capture_output=True,
        text=True,
        errors="replace",
        timeout=SECONDS + 100,
        check=False,
        cwd=ROOT,
        env=environment(),
    )
    assert done.returncode == 0, f"{done.stdout[-2000:]}\n{done.stderr[-4000:]}"
    tried = re.search(r"number_of_executed_units: (\d+)", done.stderr)
    assert tried is not None, done.stderr[-2000:]
    assert int(tried[1]) > 2 * len(corpus.read(target)), "nothing new was tried"
