"""What the control process and its workers say to one another, and its form on the wire.

Pickle, because both ends are one program forked from one image: there is no version to
agree on and nobody else can write into a socket pair. It keeps what a table shares (every
entry points to its snapshot), takes frozen dataclasses as they are, and needs no codec of
300 lines that would have to follow every change of them.
"""

from __future__ import annotations

import pickle
import struct
from dataclasses import dataclass

from dnsproxy.core.addresses.table import ServedTable
from dnsproxy.core.explain import Explanation, Question
from dnsproxy.core.totals import Traffic
from dnsproxy.errors import WorkerError
from dnsproxy.net.doors import Door
from dnsproxy.settings import Settings

# Octets of one message. As the state file: eight snapshots of the largest size that a source may send.
MAX_MESSAGE = 64 * 1024 * 1024
_LENGTH = struct.Struct(">I")


@dataclass(frozen=True, slots=True)
class Begin:
    """The first message: answer by these settings, on the sockets that come along, one for each door."""

    settings: Settings
    doors: tuple[Door, ...]


@dataclass(frozen=True, slots=True)
class TakeTable:
    """Answer with this from now on. The first one makes a worker serve its sockets."""

    table: ServedTable


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
    """Answer by these settings from now on, on the sockets that come along, one for each door, and no others.

    The reply is why that cannot be, empty when it is done.
    """

    settings: Settings
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


ToWorker = Begin | TakeTable | Ask | Stop
ToControl = Opened | NotOpened | Reply


def frame(message: ToWorker | ToControl) -> bytes:
    """Return ``message`` behind its length.

    Raises:
        WorkerError: it is larger than `MAX_MESSAGE`.
    """
    content = pickle.dumps(message, pickle.HIGHEST_PROTOCOL)
    if len(content) > MAX_MESSAGE:
        raise WorkerError(f"a message of {len(content)} octets is too large for a worker")
    return _LENGTH.pack(len(content)) + content


class Inbox:
    """Puts messages together again from what arrives."""

    def __init__(self) -> None:
        self._octets = bytearray()

    def take(self, octets: bytes) -> list[object]:
        """Return the messages that are complete with these octets.

        Raises:
            WorkerError: a message says that it is larger than `MAX_MESSAGE`.
        """
        held = self._octets
        held += octets
        messages: list[object] = []
        while len(held) >= _LENGTH.size:
            (length,) = _LENGTH.unpack_from(held)
            if length > MAX_MESSAGE:
                raise WorkerError(f"a message of {length} octets from another process of this program")
            end = _LENGTH.size + length
            if len(held) < end:
                break
            messages.append(pickle.loads(held[_LENGTH.size : end]))  # noqa: S301 - see above
            del held[:end]
        return messages
