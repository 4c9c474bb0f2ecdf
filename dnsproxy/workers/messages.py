"""What the control process and its workers say to one another, and its form on the wire.

A message is a length and JSON, made and read by `workers.codec`. Both ends are one program forked from one
image, so there is no version to agree on. Workers parse what clients send. An attacker who controls one must
not get control of another process, so messages hold plain values, and the receiver checks each of them.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Final

from dnsproxy.core.explain import Explanation, Question
from dnsproxy.core.totals import Traffic
from dnsproxy.errors import MessageError
from dnsproxy.net.doors import Door
from dnsproxy.workers import codec

# Bytes of one message, and of the packed settings in one: 10,000 names take 0.1 MiB.
MAX_MESSAGE = 16 * 1024 * 1024
MAX_SETTINGS = 11 * 1024 * 1024
_LENGTH: Final = struct.Struct(">I")


@dataclass(frozen=True, slots=True)
class Begin:
    """The first message: answer by these settings, on the sockets that are sent with it, one per door."""

    settings: bytes
    doors: tuple[Door, ...]


@dataclass(frozen=True, slots=True)
class ServedEntry:
    """What ``name`` is answered from. Without ``is_managed`` it is not owned.

    ``pinned`` are the addresses of the settings. ``serial`` and ``expires_at`` (Unix seconds) are those of
    the snapshot that the learned set comes from; ``serial`` is None where there is no set.
    """

    name: str
    is_managed: bool
    pinned: tuple[str, ...] = ()
    addresses: tuple[str, ...] = ()
    cname: str | None = None
    serial: int | None = None
    expires_at: int = 0


@dataclass(frozen=True, slots=True)
class TakeNames:
    """Answer these names so from now on. A worker serves its sockets after the first that ``is_complete``."""

    entries: tuple[ServedEntry, ...]
    is_complete: bool


@dataclass(frozen=True, slots=True)
class TellTraffic:
    """What have you counted? The reply is `Traffic`."""


@dataclass(frozen=True, slots=True)
class Flush:
    """Forget the cached answers of a name, or all; the reply is how many."""

    key: bytes | None


@dataclass(frozen=True, slots=True)
class Explain:
    """What would you do with this question? The reply is an `Explanation`."""

    question: Question


@dataclass(frozen=True, slots=True)
class Refit:
    """Answer by these settings from now on, on the sockets sent with it, one per door, and no others.

    The reply is why that cannot be, empty when it is done.
    """

    settings: bytes
    doors: tuple[Door, ...]


@dataclass(frozen=True, slots=True)
class Stop:
    """Answer what clients have sent, and end; the sockets of ``held`` are read next by another process.

    With ``gently`` another worker has all sockets: connections are served until they are quiet for a moment.
    """

    gently: bool = False
    held: frozenset[Door] = frozenset()


Request = TellTraffic | Flush | Explain | Refit
Content = Traffic | int | Explanation | str


@dataclass(frozen=True, slots=True)
class Ask:
    """A request; its reply has the same number."""

    number: int
    request: Request


@dataclass(frozen=True, slots=True)
class Reply:
    """The reply to the request of that number."""

    number: int
    content: Content


@dataclass(frozen=True, slots=True)
class Opened:
    """My sockets are served: I answer."""

    pid: int


@dataclass(frozen=True, slots=True)
class NotOpened:
    """I cannot answer, for a reason that the operator can mend, and end."""

    reason: str


ToWorker = Begin | TakeNames | Ask | Stop
ToControl = Opened | NotOpened | Reply
_EVERY: Final[Any] = ToWorker | ToControl


def frame(message: ToWorker | ToControl) -> bytes:
    """Return ``message`` behind its length.

    Raises:
        MessageError: it is larger than `MAX_MESSAGE`.
    """
    return _framed(codec.to_json(_EVERY, message))


def frame_names(entries: Iterable[str], *, is_complete: bool) -> bytes:
    """Return the frame of `TakeNames` with ``entries`` that `encode_entry` has made."""
    return _framed(f'["TakeNames",[[{",".join(entries)}],{"true" if is_complete else "false"}]]')


def encode_entry(entry: ServedEntry) -> str:
    """Return ``entry`` as JSON: it is made once and sent to every worker."""
    return codec.to_json(ServedEntry, entry)


def _framed(text: str) -> bytes:
    content = text.encode("ascii")
    if len(content) > MAX_MESSAGE:
        raise MessageError(f"a message of {len(content)} bytes is too large for a worker")
    return _LENGTH.pack(len(content)) + content


class Inbox:
    """Puts messages of the types in ``kind``, a union, together again from what arrives."""

    def __init__(self, kind: Any) -> None:  # noqa: ANN401 - `ToWorker` or `ToControl`
        self._kind = kind
        self._held = bytearray()

    def add(self, received: bytes) -> None:
        """Take what has arrived."""
        self._held += received

    @property
    def has_message(self) -> bool:
        """Whether `next` returns a message, or raises."""
        held = self._held
        if len(held) < _LENGTH.size:
            return False
        (length,) = _LENGTH.unpack_from(held)
        return bool(length > MAX_MESSAGE or len(held) >= _LENGTH.size + length)

    def next(self) -> object:
        """Return the first message that is complete.

        Raises:
            MessageError: there is none of this kind, or it is larger than `MAX_MESSAGE`.
        """
        held = self._held
        (length,) = _LENGTH.unpack_from(held)
        if length > MAX_MESSAGE:
            raise MessageError(f"a message of {length} bytes")
        end = _LENGTH.size + length
        content = bytes(held[_LENGTH.size : end])
        del held[:end]
        return codec.from_json(self._kind, content)
