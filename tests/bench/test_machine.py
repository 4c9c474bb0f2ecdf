from __future__ import annotations

import os
import shutil
import sys

import pytest

from bench import machine
from bench.machine import processor, version


def test_the_first_version_number_counts() -> None:
    assert version([sys.executable, "-c", "print('Tool 1.9.2-rc1 (lib 3.0)')"]) == "1.9.2-rc1"


def test_a_missing_program_has_an_unknown_version() -> None:
    assert version(["no-such-program-anywhere"]) == "unknown"


def test_processor_model() -> None:
    assert processor("processor : 0\nmodel name\t: AMD EPYC\nmodel name : other\n") == "AMD EPYC"


def test_what_a_measurement_lacks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shutil, "which", lambda name: None if name in {"knotd", "named"} else name)
    assert machine.missing_programs("unbound", "named") == ["knotd", "named"]
    assert machine.lacking("named") == "knotd, named"
    monkeypatch.setattr(shutil, "which", lambda name: name)
    monkeypatch.setattr(os, "sched_getaffinity", lambda _pid: {0})
    assert machine.lacking() == "two cores"
    monkeypatch.setattr(os, "sched_getaffinity", lambda _pid: {0, 1, 2})
    assert machine.lacking("unbound") == ""
