"""A small disk of a program's own: a tmpfs in a mount namespace that fills up, turns read-only or goes."""

from __future__ import annotations

import errno
import shutil
import subprocess
from io import FileIO
from pathlib import Path
from types import TracebackType
from typing import Self

from tests.e2e.processes import run_command, wait_for

# KiB. Room for a state and its replacement, and soon full.
SIZE = 128


class Disk:
    """Is mounted at ``folder`` for the programs that run behind `within`, while its context lasts."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._holder: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Self:
        self._folder.mkdir(exist_ok=True)
        # Nothing but this process keeps the namespace. It ends with its standard input.
        script = f'mount -t tmpfs -o size={SIZE}k,mode=700 tmpfs "$1" && touch "$1/mounted" && exec cat'
        self._holder = subprocess.Popen(
            ["unshare", "--mount", "--propagation", "private", "sh", "-c", script, "sh", str(self._folder)],
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
        )
        wait_for(lambda: self._ended or (self.path / "mounted").exists(), "the disk is mounted")
        assert not self._ended, "no mount namespace"
        (self.path / "mounted").unlink()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, trace: TracebackType | None
    ) -> None:
        assert self._holder is not None
        self._holder.kill()
        self._holder.communicate()

    @property
    def _ended(self) -> bool:
        return self._holder is None or self._holder.poll() is not None

    @property
    def within(self) -> list[str]:
        """The words in front of a command that give it this disk; its process is the command's."""
        assert self._holder is not None
        return ["nsenter", f"--mount=/proc/{self._holder.pid}/ns/mnt", f"--wd={self._folder}", "--"]

    @property
    def path(self) -> Path:
        """Where the disk is for this process, which is not in the namespace."""
        assert self._holder is not None
        return Path(f"/proc/{self._holder.pid}/root{self._folder}")

    def fill(self) -> None:
        """Leave no octet free."""
        filler = self.path / "filler"
        with filler.open("ab", buffering=0) as file:
            for size in (4096, 1):
                while _appended(file, size):
                    pass

    def clear(self) -> None:
        """Undo `fill`."""
        (self.path / "filler").unlink()

    def remount(self, how: str) -> None:
        """Make it ``ro`` or ``rw``."""
        done = run_command(*self.within, "mount", "-o", f"remount,{how}", str(self._folder))
        assert done.returncode == 0, done.stderr

    def remove_folder(self) -> None:
        """Unmount it and remove its folder, under the program that uses it."""
        done = run_command(*self.within[:-2], "--", "umount", "--lazy", str(self._folder))
        assert done.returncode == 0, done.stderr
        shutil.rmtree(self.path)


def refusal() -> str | None:
    """Return why there can be no such disk here, or None."""
    done = run_command("unshare", "--mount", "--propagation", "private", "true")
    return None if done.returncode == 0 else f"no mount namespaces here ({done.stderr.strip()}); run as root"


def _appended(file: FileIO, size: int) -> bool:
    try:
        file.write(b"x" * size)
    except OSError as exc:
        if exc.errno != errno.ENOSPC:
            raise
        return False
    return True
