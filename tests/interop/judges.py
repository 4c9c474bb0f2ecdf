"""The foreign programs that judge the proxy; ``python -m tests.interop.judges`` prints their versions."""

from __future__ import annotations

import re
from importlib.metadata import version
from pathlib import Path
from typing import NamedTuple

from tests.e2e.processes import ROOT, find_program, run_command

# Where scripts/setup.sh unpacks a program that must not be installed: the package of systemd-resolved
# puts itself into /etc/resolv.conf.
UNPACKED = ROOT / "build" / "judges"
_RESOLVED = ("/usr/lib/systemd/systemd-resolved", "/lib/systemd/systemd-resolved")
_VERSION = re.compile(r"\d+(?:\.\d+)+(?:[-+~:.\w]*\w)?")


class Judge(NamedTuple):
    """A program, how it tells its version, and where it differs from its name, what it stands for."""

    program: str
    tells: tuple[str, ...]
    stands_for: str = ""


JUDGES = (
    Judge("dig", ("-v",)),
    Judge("kdig", ("--version",)),
    Judge("drill", ("-v",)),
    Judge("delv", ("-v",)),
    Judge("dnsperf", ("-h",)),
    Judge("getent", ("--version",), "glibc"),
    Judge("musl-gcc", (), "musl"),
    Judge("skopeo", ("--version",), "Go's resolver"),
    Judge("unbound", ("-V",)),
    Judge("dnsmasq", ("--version",)),
    Judge("dnsdist", ("--version",)),
    Judge("named", ("-v",), "BIND"),
    Judge("dnssec-signzone", ("-V",)),
    Judge("pdns_recursor", ("--version",)),
    Judge("systemd-resolved", ("--version",)),
)
LIBRARIES = ("dnspython", "pycares")


def find_resolved() -> Path | None:
    """Return systemd-resolved: the unpacked one, else the machine's."""
    places = [Path(f"{root}{path}") for root in (UNPACKED, "") for path in _RESOLVED]
    return next((place for place in places if place.is_file()), None)


def resolved_environment() -> list[str]:
    """Return the words (``NAME=value``) that let systemd-resolved find the library it was built with."""
    folders = sorted({str(path.parent) for path in UNPACKED.rglob("libsystemd-shared-*.so")})
    return [f"LD_LIBRARY_PATH={':'.join(folders)}"] if folders else []


def _path(judge: Judge) -> str | None:
    if judge.program == "systemd-resolved":
        found = find_resolved()
        return None if found is None else str(found)
    return find_program(judge.program)


def missing() -> list[str]:
    """Return the programs that are not there."""
    return [judge.program for judge in JUDGES if _path(judge) is None]


def _told(judge: Judge) -> str:
    """Return what the program says of its version, ``missing``, or ``unknown``."""
    path = _path(judge)
    if path is None:
        return "missing"
    if judge.stands_for == "musl":
        # The loader alone tells, when it is started as a program without arguments.
        loader = next(Path("/lib").glob("ld-musl-*.so.1"), None)
        done = None if loader is None else run_command(loader)
    elif judge.program == "systemd-resolved":
        done = run_command("env", *resolved_environment(), path, *judge.tells)
    else:
        done = run_command(path, *judge.tells)
    found = None if done is None else _VERSION.search(done.stdout + done.stderr)
    if found is not None:
        return found[0]
    whole = re.search(r"systemd (\d+ \([^)]*\))", "" if done is None else done.stdout)
    return whole[1] if whole else "unknown"


def table() -> list[str]:
    """Return a line for each judge: what it is, and its version."""
    lines = []
    for judge in JUDGES:
        name = f"{judge.stands_for} ({judge.program})" if judge.stands_for else judge.program
        lines.append(f"{name:28} {_told(judge)}")
    return lines + [f"{name:28} {version(name)}" for name in LIBRARIES]


if __name__ == "__main__":
    print("\n".join(["judges of tests/interop:", *table()]))  # noqa: T201
