"""Replace a file whole or not at all; read one that may not be there."""

from __future__ import annotations

import os
import re
import tempfile
from contextlib import suppress
from pathlib import Path

# Seconds. No write takes so long: an older temporary file is of a program that was killed in the middle.
LEFTOVER_AGE = 60.0


def write_atomically(path: Path, content: bytes, mode: int) -> None:
    """Put ``content`` in place of the file at ``path``, on disk when this returns, with permissions ``mode``.

    Raises:
        OSError: the folder cannot be written; the old file is as it was.
    """
    descriptor, temporary = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(content)
            file.flush()
            os.fchmod(file.fileno(), mode)
            os.fsync(file.fileno())
        Path(temporary).replace(path)
    except BaseException:
        with suppress(OSError):
            Path(temporary).unlink()
        raise
    # The rename is on disk only when the folder is.
    folder = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)


def remove_leftovers(path: Path, wall_now: float) -> int:
    """Remove what killed programs left of `write_atomically`, for ``path`` and names that go on from it.

    Never raises: what cannot be removed stays. Returns how many were removed.
    """
    pattern = re.compile(rf"\.{re.escape(path.name)}(?:\.[a-z]+)?\.[a-z0-9_]{{8}}")
    removed = 0
    with suppress(OSError):
        for entry in path.parent.iterdir():
            # The clock may have been set back since.
            if pattern.fullmatch(entry.name) and abs(wall_now - entry.stat().st_mtime) >= LEFTOVER_AGE:
                entry.unlink()
                removed += 1
    return removed


def read_text(path: Path) -> str | None:
    """Return the text of a small file of the system; None when it cannot be read."""
    try:
        return path.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return None
