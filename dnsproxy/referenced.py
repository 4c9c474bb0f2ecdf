"""What the settings refer to besides their values: files, and the system's authorities.

A reload with equal settings still has something to do when one of these has changed: an operator reloads to
have a renewed key, certificate or token read.
"""

from __future__ import annotations

import hashlib
import os
import ssl
import stat
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

from pydantic import BaseModel

from dnsproxy.settings import Settings

# Bytes of a file that are compared, besides its size. Keys, certificates and tokens are far smaller.
_MOST = 1 << 20
# What this program writes: model and field. All other paths are read.
WRITTEN = frozenset(
    {
        ("LearnSettings", "state_file"),
        ("HelperSettings", "publish_file"),
        ("QueryLogSettings", "file"),
        ("DnstapSettings", "file"),
        ("DnstapSettings", "socket"),
        ("FileTarget", "path"),
    }
)


def referenced(
    settings: Settings, sections: Iterable[str] = frozenset(Settings.model_fields)
) -> dict[str, str]:
    """Return a fingerprint of each file that ``sections`` of ``settings`` refer to, by its path.

    Never raises: a file that cannot be read has the reason as its fingerprint.
    """
    default = ssl.get_default_verify_paths()
    authorities = (default.cafile, default.capath)
    paths = {
        *_paths([getattr(settings, section) for section in sections]),
        *(Path(path) for path in authorities if path is not None),
    }
    return {str(path): _fingerprint(path) for path in sorted(paths)}


def changed_files(before: Mapping[str, str], now: Mapping[str, str]) -> list[str]:
    """Return the paths that both have and whose fingerprints differ."""
    return [path for path, fingerprint in now.items() if before.get(path, fingerprint) != fingerprint]


def _paths(value: object) -> Iterator[Path]:
    if isinstance(value, BaseModel):
        kind = type(value)
        for field in kind.model_fields:
            if (kind.__name__, field) not in WRITTEN:
                yield from _paths(getattr(value, field))
    elif isinstance(value, Mapping):
        for item in value.values():
            yield from _paths(item)
    elif isinstance(value, list | tuple | set | frozenset):
        for item in value:
            yield from _paths(item)
    elif isinstance(value, Path):
        yield value


def _fingerprint(path: Path) -> str:
    try:
        found = path.stat()
        # Opening a FIFO would wait for its writer; of a folder of authorities the time is enough.
        if not stat.S_ISREG(found.st_mode):
            return f"{found.st_mode:o} {found.st_mtime_ns} {found.st_ino}"
        with path.open("rb") as file:
            found = os.fstat(file.fileno())
            digest = hashlib.sha256(file.read(_MOST)).hexdigest()
    except OSError as exc:
        return exc.strerror or str(exc)
    return f"{found.st_mode:o} {found.st_size} {digest}"
