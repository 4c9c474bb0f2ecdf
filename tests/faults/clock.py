"""A wall clock that is wrong, for one program, until it is set right: libfaketime."""

from __future__ import annotations

from pathlib import Path

# Where Debian keeps it; the directory names the architecture.
_LIBRARIES = sorted(Path("/usr/lib").glob("*/faketime/libfaketimeMT.so.1"))


class Clock:
    """The clock of the programs whose words are put behind `within`; right at first.

    Only the wall clock: deadlines go by the monotonic one, which stays as it is.
    """

    def __init__(self, file: Path) -> None:
        self._file = file
        self.shift(0)

    def shift(self, seconds: int) -> None:
        """Set it ``seconds`` ahead of the right time (behind, when negative), also for programs that run."""
        # Written whole: a program may read it at any moment.
        new = self._file.with_suffix(".new")
        new.write_text(f"{seconds:+d}s\n")
        new.rename(self._file)

    @property
    def within(self) -> list[str]:
        """The words in front of a command that give it this clock."""
        return [
            "env",
            f"LD_PRELOAD={_LIBRARIES[0]}",
            f"FAKETIME_TIMESTAMP_FILE={self._file}",
            "FAKETIME_NO_CACHE=1",
            "FAKETIME_DONT_FAKE_MONOTONIC=1",
        ]
