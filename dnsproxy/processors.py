"""How many processors this program may use: what ``serve.workers: auto`` means."""

from __future__ import annotations

import math
import os
from pathlib import Path

PROC_CGROUP = Path("/proc/self/cgroup")
CGROUP_ROOT = Path("/sys/fs/cgroup")


def usable_processors(cgroup: Path = PROC_CGROUP, root: Path = CGROUP_ROOT) -> int:
    """Return the processors of this process's affinity mask, or fewer when a quota leaves less time.

    The quota is that of cgroup v2 (``cpu.max``, also of the groups above), rounded up: a container
    that may use two of 64 processors wants two workers. One of cgroup v1 is not read.
    """
    processors = len(os.sched_getaffinity(0))
    quotas = [_quota(folder / "cpu.max") for folder in _groups(cgroup, root)]
    return max(1, min([processors, *(math.ceil(quota) for quota in quotas if quota is not None)]))


def _groups(cgroup: Path, root: Path) -> list[Path]:
    """Return the folder of this process's group and those above it; the root alone within a container."""
    try:
        lines = cgroup.read_text(encoding="utf-8").splitlines()
    except OSError:
        return []
    for line in lines:
        hierarchy, _, path = line.partition("::")
        if hierarchy == "0":
            own = root / path.lstrip("/")
            return [own, *(folder for folder in own.parents if folder.is_relative_to(root))]
    return []


def _quota(file: Path) -> float | None:
    """Return how many processors' time ``cpu.max`` (``QUOTA PERIOD``, microseconds) leaves; None: all."""
    try:
        quota, period = file.read_text(encoding="utf-8").split()
        return int(quota) / int(period)
    except (OSError, ValueError, ZeroDivisionError):
        return None  # not there, or "max"
