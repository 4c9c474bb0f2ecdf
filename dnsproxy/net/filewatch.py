"""Tells when the file behind a path may be another: inotify(7), by way of asyncinotify.

What is watched are the folders of all steps that lead from the path to the file, symbolic links included,
so these are all seen: the file written in place, replaced by rename, or gone and back; a link turned
elsewhere (the kubelet swaps ``..data`` of a mounted ConfigMap or Secret); a folder above that is
replaced. Not seen is what another host writes to a network file system.
"""

from __future__ import annotations

import asyncio
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from asyncinotify import Event, Inotify

# Seconds without a further change that end one, and until then at the most.
SETTLE = 0.05
SETTLE_AT_MOST = 0.5
# Links on the way to a file; the kernel's own limit (path_resolution(7)).
MAX_LINKS = 40


def steps(path: Path) -> list[tuple[Path, str]]:
    """Return each folder that is passed on the way to the file, and the name that is looked up there.

    Ends where nothing is.

    Raises:
        OSError: a folder cannot be searched, or links go round in a circle.
    """
    found: list[tuple[Path, str]] = []
    folder, rest = Path("/"), list(path.absolute().parts[1:])
    links = 0
    while rest:
        name = rest.pop(0)
        if name == "..":
            folder = folder.parent
            continue
        found.append((folder, name))
        entry = folder / name
        try:
            target = entry.readlink()
        except FileNotFoundError:
            break
        except OSError:  # EINVAL: no link
            folder = entry
            continue
        links += 1
        if links > MAX_LINKS:
            raise OSError(f"{path}: too many symbolic links")
        rest[:0] = target.parts[1:] if target.is_absolute() else target.parts
        folder = Path("/") if target.is_absolute() else folder
    return found


class FileWatch:
    """Watches ``path``. The first `arm` opens it, `close` ends it."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._inotify: Inotify | None = None
        self._names: dict[Path, set[str]] = {}

    def arm(self) -> None:
        """Watch what leads to the file now. What is read after this and before `changed` is not missed.

        Raises:
            OSError: this host has no inotify, or a limit of it is reached; nothing is watched then.
        """
        from asyncinotify import Inotify  # noqa: PLC0415 - few proxies follow a file

        names: dict[Path, set[str]] = {}
        for folder, name in steps(self._path):
            names.setdefault(folder, set()).add(name)
        if self._inotify is not None and names == self._names:
            return
        # Anew rather than by differences: a folder that was replaced is watched under its old name.
        self.close()
        inotify = Inotify()
        try:
            for folder in names:
                _watch(inotify, folder)
        except OSError:
            inotify.close()
            raise
        self._inotify, self._names = inotify, names

    async def changed(self) -> None:
        """Return when a step may lead elsewhere, or the file has been written and closed, since `arm`.

        What happens in quick succession is one change. Never returns where nothing is watched.
        """
        inotify = self._inotify
        if inotify is None:
            await asyncio.Event().wait()
            return
        while not self._concerns(await inotify.get()):
            pass
        # Folders are watched by identity, so these may be of no use any more.
        self._names = {}
        with suppress(TimeoutError):
            async with asyncio.timeout(SETTLE_AT_MOST):
                while await _more(inotify):
                    pass

    def _concerns(self, event: Event) -> bool:
        if event.name is None or event.watch is None:
            # Of a folder itself, or events were lost.
            return True
        return event.name.name in self._names.get(event.watch.path, ())

    def close(self) -> None:
        """Watch nothing; `arm` begins anew."""
        inotify, self._inotify = self._inotify, None
        self._names = {}
        if inotify is not None:
            inotify.close()


def _watch(inotify: Inotify, folder: Path) -> None:
    from asyncinotify import Mask  # noqa: PLC0415 - as above

    mask = Mask.CREATE | Mask.MOVED_TO | Mask.MOVED_FROM | Mask.DELETE | Mask.CLOSE_WRITE
    try:
        inotify.add_watch(folder, mask | Mask.DELETE_SELF | Mask.MOVE_SELF | Mask.ONLYDIR)
    except (FileNotFoundError, NotADirectoryError, PermissionError):
        # Gone since, or for others alone: the steps before it are watched, and time brings the rest.
        return


async def _more(inotify: Inotify) -> bool:
    try:
        async with asyncio.timeout(SETTLE):
            await inotify.get()
    except TimeoutError:
        return False
    return True
