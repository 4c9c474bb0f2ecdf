from __future__ import annotations

import os
from pathlib import Path

import pytest

from dnsproxy.processors import usable_processors


@pytest.fixture
def eight(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(8)))


def made(folder: Path, own: str, **quotas: str) -> tuple[Path, Path]:
    """A ``/proc/self/cgroup`` and a tree with ``cpu.max`` of the root (r), a slice (s) and a service (v)."""
    root = folder / "cgroup"
    places = {"r": root, "s": root / "x.slice", "v": root / "x.slice" / "y.service"}
    places["v"].mkdir(parents=True)
    for place, quota in quotas.items():
        (places[place] / "cpu.max").write_text(f"{quota}\n")
    file = folder / "self"
    file.write_text(own)
    return file, root


@pytest.mark.usefixtures("eight")
@pytest.mark.parametrize(
    ("own", "quotas", "expected"),
    [
        ("0::/x.slice/y.service\n", {}, 8),
        ("0::/x.slice/y.service\n", {"v": "max 100000"}, 8),
        ("0::/x.slice/y.service\n", {"v": "200000 100000"}, 2),
        ("0::/x.slice/y.service\n", {"v": "150000 100000"}, 2),
        ("0::/x.slice/y.service\n", {"v": "10000 100000"}, 1),
        ("0::/x.slice/y.service\n", {"v": "6400000 100000"}, 8),
        ("0::/x.slice/y.service\n", {"v": "max 100000", "s": "300000 100000"}, 3),
        ("0::/\n", {"r": "400000 100000"}, 4),
        ("0::/../..\n", {"r": "400000 100000"}, 4),
        ("12:cpu:/docker/x\n0::/\n", {"r": "400000 100000"}, 4),
        ("12:cpu:/docker/x\n", {"r": "400000 100000"}, 8),
        ("0::/x.slice/y.service\n", {"v": "junk"}, 8),
        ("0::/x.slice/y.service\n", {"v": "100000 0"}, 8),
    ],
)
def test_the_smaller_of_mask_and_quota(
    tmp_path: Path, own: str, quotas: dict[str, str], expected: int
) -> None:
    assert usable_processors(*made(tmp_path, own, **quotas)) == expected


@pytest.mark.usefixtures("eight")
def test_without_cgroups_the_mask_counts(tmp_path: Path) -> None:
    assert usable_processors(tmp_path / "none", tmp_path) == 8


def test_this_machine() -> None:
    assert 1 <= usable_processors() <= (os.cpu_count() or 1)
