"""Writes a mounted ConfigMap or Secret step by step as the kubelet does.

The steps are those of ``AtomicWriter.Write`` in kubernetes' ``pkg/volume/util/atomic_writer.go``: a folder
named by time, the files in it, a new ``..data_tmp`` renamed over ``..data``, links for the visible names,
the folder before removed.
"""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from tempfile import mkdtemp


class AtomicWriter:
    """The volume at ``folder``; ``current`` is the name of the folder in force."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        folder.mkdir()
        self.current = ""

    def write(self, files: dict[str, bytes]) -> None:
        before = self.current
        fresh = Path(mkdtemp(prefix="..2026_11_24_10_00_00.", dir=self._folder))
        fresh.chmod(0o755)
        for name, content in files.items():
            (fresh / name).write_bytes(content)
            (fresh / name).chmod(0o644)
        temporary = self._folder / "..data_tmp"
        temporary.symlink_to(fresh.name)
        temporary.rename(self._folder / "..data")
        self.current = fresh.name
        for name in files:
            if not os.path.lexists(self._folder / name):
                (self._folder / name).symlink_to(Path("..data") / name)
        if before:
            shutil.rmtree(self._folder / before)
