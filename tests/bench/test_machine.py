from __future__ import annotations

import sys

from bench.machine import processor, version


def test_the_first_version_number_counts() -> None:
    assert version([sys.executable, "-c", "print('Tool 1.9.2-rc1 (lib 3.0)')"]) == "1.9.2-rc1"


def test_a_missing_program_has_an_unknown_version() -> None:
    assert version(["no-such-program-anywhere"]) == "unknown"


def test_processor_model() -> None:
    assert processor("processor : 0\nmodel name\t: AMD EPYC\nmodel name : other\n") == "AMD EPYC"
