"""The names of probes, and when one last came back; shared by all processes of one program.

A query reaches any of several workers, so the one that gets a probe back is often not the one that
sent it. A name therefore says itself whose it is: a label with the upstream's number and the time, and one
that only who has the key can make of it. Nothing is kept of the probes that are under way.
"""

from __future__ import annotations

from hashlib import blake2s
from typing import Final, Protocol

# Seconds for which a probe that comes back is recognised: longer than any server on the way would wait. Later
# it says nothing of now, and whoever saw its name could have an upstream left out.
AWAITED_FOR: Final = 15
# Two labels of 16 hexadecimal digits, and their length octets.
LABEL: Final = 16
PREFIX: Final = 2 * (1 + LABEL)
KEY_SIZE: Final = 16


class Times(Protocol):
    """Numbers by place: a list, or memory that processes share."""

    def __len__(self) -> int: ...

    def __getitem__(self, place: int, /) -> float: ...

    def __setitem__(self, place: int, value: float, /) -> None: ...


class Returns:
    """What the processes with the same ``key`` (`KEY_SIZE` octets) know of probes that came back.

    ``last`` has a place for each upstream, by its number (at most 65,535), that holds 0 or the monotonic
    time in seconds at which one that had been sent to it last came back, to whichever process. A new
    configuration may number them otherwise: what then comes back of an earlier probe counts against another
    upstream, until that one's next probe is answered.
    """

    __slots__ = ("_key", "last")

    def __init__(self, key: bytes, last: Times) -> None:
        self._key = key
        self.last = last

    def prefix(self, number: int, salt: bytes, now: float) -> bytes:
        """Return the first labels of the name of a probe; ``salt``, 2 octets, makes it one of its own."""
        told = number.to_bytes(2, "big") + int(now).to_bytes(4, "big") + salt
        label = told.hex().encode()
        return b"\x10" + label + b"\x10" + self._seal(label)

    def sender(self, key: bytes, now: float) -> int | None:
        """Return the number of the upstream to which the probe ``key`` was sent; None if it is no probe."""
        if len(key) <= PREFIX or key[0] != LABEL or key[1 + LABEL] != LABEL:
            return None
        label = key[1 : 1 + LABEL]
        if key[2 + LABEL : PREFIX] != self._seal(label):
            return None
        told = bytes.fromhex(label.decode())
        age = int(now) - int.from_bytes(told[2:6], "big")
        return int.from_bytes(told[:2], "big") if 0 <= age < AWAITED_FOR else None

    def record(self, number: int, now: float) -> None:
        """Record that a probe which was sent to that upstream has come back."""
        self.last[number] = now

    def _seal(self, label: bytes) -> bytes:
        return blake2s(label, digest_size=LABEL // 2, key=self._key).hexdigest().encode()
