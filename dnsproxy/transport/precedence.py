"""Which of two snapshots may stand in a place that several helpers write to."""

from __future__ import annotations

import base64
import binascii
import json
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Version:
    """What a snapshot says of itself; nobody has verified it."""

    issuer: str
    serial: int
    issued_at: int


def version_of(token: str) -> Version | None:
    """Return what ``token`` says of itself; None when it is no snapshot.

    The signature is not looked at: whoever may write to a place can spoil it anyhow, and proxies verify.
    """
    try:
        part = token.split(".")[1]
        payload = json.loads(base64.urlsafe_b64decode(part + "=" * (-len(part) % 4)))
        version = Version(payload["iss"], payload["serial"], payload["iat"])
    except (IndexError, KeyError, TypeError, ValueError, binascii.Error, RecursionError):
        return None
    right = isinstance(version.issuer, str) and type(version.serial) is int and type(version.issued_at) is int
    return version if right else None


def obstacle(held: str | None, token: str) -> str | None:
    """Return why ``token`` must not take the place of ``held``; None when it may.

    Serials count per issuer. Another issuer's snapshot, or none at all, is replaced.
    """
    mine = version_of(token)
    there = None if held is None else version_of(held)
    if mine is None or there is None or there.issuer != mine.issuer:
        return None
    if (there.serial, there.issued_at) <= (mine.serial, mine.issued_at):
        return None
    return f"serial {there.serial} of {there.issuer} is there, later than {mine.serial}: not replaced"
