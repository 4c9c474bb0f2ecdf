"""From root to an ordinary user, for good, once the sockets are bound.

Of root's capabilities the control process keeps one, to bind ports below 1024 that a later
configuration adds; processes that read what clients send keep none. Nothing that is started from
here gets any (no_new_privs, and ambient ones are not set).
"""

from __future__ import annotations

import ctypes
import grp
import os
import pwd
import struct
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from dnsproxy.errors import StartError

# linux/capability.h, linux/prctl.h.
BIND_SERVICE = 10
_VERSION_3 = 0x20080522
_SET_KEEPCAPS, _SET_NO_NEW_PRIVS = 8, 38


@dataclass(frozen=True, slots=True)
class Account:
    """Who to become."""

    name: str
    uid: int
    gid: int

    @property
    def groups(self) -> list[int]:
        """The groups of the user, ``gid`` among them."""
        return os.getgrouplist(self.name, self.gid)


def find_account(user: str | None, group: str | None) -> Account | None:
    """Return the account of a configuration's ``user`` and ``group``; None when there is nothing to become.

    Raises:
        StartError: there is no such user or group, or this process is not root and is somebody else.
    """
    if user is None:
        return None
    try:
        entry = pwd.getpwnam(user)
    except KeyError:
        raise StartError(f"user: there is no user {user!r} on this host") from None
    try:
        gid = entry.pw_gid if group is None else grp.getgrnam(group).gr_gid
    except KeyError:
        raise StartError(f"group: there is no group {group!r} on this host") from None
    if os.geteuid() == entry.pw_uid:
        return None
    if os.geteuid() != 0:
        raise StartError(f"user: only root can become {user!r}; start as root, or leave user out")
    return Account(entry.pw_name, entry.pw_uid, gid)


def give_folders(account: Account, folders: Iterable[Path]) -> None:
    """Make the folders that are missing, mode 0700, for ``account``; those that are there stay as they are.

    Raises:
        StartError: one cannot be made.
    """
    for folder in folders:
        if folder.exists():
            continue
        try:
            folder.mkdir(mode=0o700, parents=True)
            os.chown(folder, account.uid, account.gid)
        except OSError as exc:
            raise StartError(f"{folder}: {exc.strerror or exc}") from exc


def become(account: Account, *, keep: Iterable[int] = ()) -> None:
    """Become ``account`` with the capabilities ``keep`` and no others. No thread may exist yet.

    Raises:
        StartError: the system does not let us.
    """
    libc = ctypes.CDLL(None, use_errno=True)
    kept = sum(1 << number for number in keep)
    try:
        os.setgroups(account.groups)
        if kept:
            _check(libc.prctl(_SET_KEEPCAPS, 1, 0, 0, 0))
        os.setresgid(account.gid, account.gid, account.gid)
        os.setresuid(account.uid, account.uid, account.uid)
        # Two words each of effective, permitted and inheritable (capset(2)).
        data = struct.pack("=6I", kept, kept, 0, 0, 0, 0)
        _check(libc.capset(struct.pack("=Ii", _VERSION_3, 0), data))
        _check(libc.prctl(_SET_NO_NEW_PRIVS, 1, 0, 0, 0))
    except OSError as exc:
        raise StartError(f"user: cannot become {account.name!r}: {exc.strerror}") from exc


def _check(result: int) -> None:
    if result != 0:
        code = ctypes.get_errno()
        raise OSError(code, os.strerror(code))
