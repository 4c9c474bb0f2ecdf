"""What the numbers were taken on: processor, kernel, interpreter and the version of every program."""

from __future__ import annotations

import os
import platform
import re
import shutil
import subprocess
from collections.abc import Iterable, Sequence
from pathlib import Path

from bench.servers import Server
from bench.workloads import LOAD_CORE, SERVER_CORE

# Beside the servers: the load, the backend, and what starts them all.
NEEDED = ("dnsperf", "knotd", "setpriv", "taskset")
_VERSION = re.compile(r"\d+\.\d+[\w.+~-]*")


def missing_programs(*more: str) -> list[str]:
    """Return which programs are not installed, of `NEEDED` and ``more``."""
    return [program for program in (*NEEDED, *more) if not shutil.which(program)]


def lacking(*more: str) -> str:
    """Return what a measurement needs and is not there, programs or cores, as text; nothing when all is."""
    cores = {SERVER_CORE, LOAD_CORE} <= os.sched_getaffinity(0)
    return ", ".join(missing_programs(*more)) or ("" if cores else "two cores")


def version(command: Sequence[str]) -> str:
    """Return the first version number that a command prints, or "unknown"."""
    try:
        done = subprocess.run(  # noqa: S603 - the commands are this package's own
            command, capture_output=True, text=True, timeout=20, check=False
        )
    except (OSError, subprocess.TimeoutExpired):
        return "unknown"
    found = _VERSION.search(done.stdout + done.stderr)
    return found[0] if found else "unknown"


def processor(cpuinfo: str) -> str:
    """Return the model in the text of /proc/cpuinfo."""
    models = [
        line.partition(":")[2].strip() for line in cpuinfo.splitlines() if line.startswith("model name")
    ]
    return models[0] if models else platform.machine()


def facts(servers: Iterable[Server]) -> dict[str, str]:
    """Return the facts in the order in which they are shown."""
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    return {
        "processor": f"{processor(Path('/proc/cpuinfo').read_text())}, {os.cpu_count()} cores",
        "memory": f"{memory:.0f} GiB",
        "kernel": platform.release(),
        "python": platform.python_version(),
        "load average at the start": f"{os.getloadavg()[0]:.2f}",
        "dnsperf": version(["dnsperf", "-h"]),
        "knot (backend)": version(["knotd", "--version"]),
        **{server.name: version(server.version) for server in servers},
    }
