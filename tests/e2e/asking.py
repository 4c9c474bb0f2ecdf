"""A client that asks one name again and again, and remembers what it was told and when."""

from __future__ import annotations

import socket
import threading
import time
from types import TracebackType
from typing import NamedTuple, Self

import dns.message
import dns.rcode
import dns.rdatatype


class Told(NamedTuple):
    """One answer. ``at`` is of the monotonic clock; ``failure`` is a response code or `no answer`."""

    at: float
    addresses: tuple[str, ...]
    failure: str | None


class Client:
    """Asks for the A records of ``name`` at 127.0.0.1 ``port``, in a thread, until the end of the block."""

    def __init__(self, port: int, name: str, pause: float = 0.005) -> None:
        self.told: list[Told] = []
        self._port = port
        self._name = name
        self._pause = pause
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name=f"client of {port}", daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stop.set()
        self._thread.join(10)

    @property
    def last(self) -> tuple[str, ...]:
        return self.told[-1].addresses if self.told else ()

    @property
    def failures(self) -> list[str]:
        return [told.failure for told in self.told if told.failure is not None]

    def changes(self) -> list[Told]:
        """Return the first answer of each run of equal ones."""
        found: list[Told] = []
        for told in self.told:
            if not found or found[-1].addresses != told.addresses:
                found.append(told)
        return found

    def _run(self) -> None:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
            sock.connect(("127.0.0.1", self._port))
            sock.settimeout(5)
            while not self._stop.wait(self._pause):
                self.told.append(self._ask(sock))

    def _ask(self, sock: socket.socket) -> Told:
        query = dns.message.make_query(self._name, "A")
        try:
            sock.send(query.to_wire())
            response = dns.message.from_wire(sock.recv(4096))
        except OSError:
            return Told(time.monotonic(), (), "no answer")
        at = time.monotonic()
        records = [rrset for rrset in response.answer if rrset.rdtype == dns.rdatatype.A]
        addresses = tuple(sorted(str(record) for rrset in records for record in rrset))
        rcode = response.rcode()
        if rcode != dns.rcode.NOERROR or not addresses:
            return Told(at, addresses, dns.rcode.to_text(rcode) if rcode else "no address")
        return Told(at, addresses, None)
