"""One target under atheris: ``python -m tests.faults.fuzz.child TARGET [libFuzzer options] FOLDER``.

A process of its own, since libFuzzer ends the process that it runs in.
"""

from __future__ import annotations

import sys

import atheris

# Before anything of the program is imported: only what is imported in here reports its coverage. The
# program's own code alone: the ways through pydantic or dnslib are others' matter and cost speed.
with atheris.instrument_imports(include=["dnsproxy"]):
    from tests.faults.fuzz.targets import TARGETS, silence


def main() -> None:
    """Fuzz; does not return."""
    target = TARGETS[sys.argv[1]]
    silence()
    atheris.Setup([sys.argv[0], *sys.argv[2:]], target)
    atheris.Fuzz()


if __name__ == "__main__":
    main()
