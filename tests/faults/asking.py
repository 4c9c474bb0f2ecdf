"""Clients for tests of faults: they ask as stub resolvers do, and keep account of every answer."""

from __future__ import annotations

import selectors
import socket
import threading
import time
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from types import TracebackType
from typing import Self

import dns.edns
import dns.exception
import dns.flags
import dns.message
import dns.query
import dns.rcode
import dns.rdatatype

from tests.e2e.processes import wait_for
from tests.e2e.world import ADDRESSES, REGISTRY, World

# Seconds. What the proxy answers by itself comes at once; a busy machine may need some time for it.
PATIENCE = 10.0
# Seconds after which a stub resolver sends a query again (RES_TIMEOUT of glibc is 5; this one hurries).
RESEND = 2.0


@dataclass(frozen=True)
class Got:
    """One response: its RCODE by name, the data of its answer section, sorted, and its extended errors."""

    rcode: str
    data: tuple[str, ...] = ()
    reasons: frozenset[int] = frozenset()

    @property
    def good(self) -> bool:
        return self.rcode == "NOERROR" and bool(self.data)


def read(message: dns.message.Message) -> Got:
    reasons = (int(option.code) for option in message.options if isinstance(option, dns.edns.EDEOption))
    data = (item.to_text() for rrset in message.answer for item in rrset)
    return Got(dns.rcode.to_text(message.rcode()), tuple(sorted(data)), frozenset(reasons))


def ask(port: int, name: str, qtype: str = "A", *, tcp: bool = False, patience: float = PATIENCE) -> Got:
    """Ask 127.0.0.1 once; the test fails when nothing comes within ``patience`` seconds."""
    query = dns.message.make_query(name, qtype, use_edns=0)
    if tcp:
        return read(dns.query.tcp(query, "127.0.0.1", timeout=patience, port=port))
    # What comes from elsewhere, as in a flood, is no answer; a connected socket would not see it.
    return read(
        dns.query.udp(
            query, "127.0.0.1", timeout=patience, port=port, ignore_unexpected=True, ignore_errors=True
        )
    )


@dataclass
class Asked:
    """What became of a set of questions: the last response to each, and how many there were of each RCODE.

    A response that cannot be decoded counts as ``unreadable``.
    """

    got: dict[str, Got] = field(default_factory=dict)
    rcodes: Counter[str] = field(default_factory=Counter)
    sent: int = 0

    def good(self) -> list[str]:
        return [name for name, got in self.got.items() if got.good]


def ask_all(port: int, names: Iterable[str], *, tries: int = 1, within: float = 60.0) -> Asked:
    """Ask 127.0.0.1 all of ``names`` at once, each up to ``tries`` times until its answer is good.

    A question without an answer is sent again after `RESEND` seconds, one that failed
    after the time for which a failure is remembered. Ends at the latest after ``within`` seconds.
    """
    result = Asked()
    wanted = dict(enumerate(names))
    left = dict.fromkeys(wanted, tries)
    due = dict.fromkeys(wanted, 0.0)
    end = time.monotonic() + within
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock, selectors.DefaultSelector() as selector:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 21)
        sock.connect(("127.0.0.1", port))
        sock.setblocking(False)
        selector.register(sock, selectors.EVENT_READ)
        while due and (now := time.monotonic()) < end:
            for number in [number for number, at in due.items() if at <= now]:
                if not left[number]:
                    del due[number]
                    continue
                left[number] -= 1
                due[number] = now + RESEND
                query = dns.message.make_query(wanted[number], "A", use_edns=0, id=number)
                sock.send(query.to_wire())
                result.sent += 1
            if not selector.select(0.05):
                continue
            data = sock.recv(65_535)
            number = int.from_bytes(data[:2], "big")
            got = result.got[wanted[number]] = _read_any(data)
            result.rcodes[got.rcode] += 1
            if got.good:
                due.pop(number, None)
            elif number in due:
                due[number] = time.monotonic() + RESEND
    return result


def _read_any(data: bytes) -> Got:
    try:
        return read(dns.message.from_wire(data))
    except dns.exception.DNSException:
        return Got("unreadable")


class Steady:
    """Asks for a learned name without a pause while its context lasts; at the end every answer was right.

    ``name`` has ``addresses``, one set or, while it changes, one of several. ``answers`` counts them;
    ``slowest`` is the longest that one took, in seconds.
    """

    def __init__(
        self,
        world: World,
        name: str = REGISTRY,
        *addresses: tuple[str, ...],
        at_least: int = 10,
    ) -> None:
        self._port = world.dns_port
        self._name = name
        self._expected = set(addresses) or {(ADDRESSES[name],)}
        self._at_least = at_least
        self.answers: Counter[tuple[str, ...]] = Counter()
        self.slowest = 0.0
        self.wrong: list[str] = []
        self._end = threading.Event()
        self._thread = threading.Thread(target=self._run, name="steady")

    def _run(self) -> None:
        while not self._end.wait(0.02):
            started = time.monotonic()
            try:
                got = ask(self._port, self._name)
            except (dns.exception.DNSException, OSError) as exc:
                self.wrong.append(f"{type(exc).__name__}: {exc}")
                continue
            self.slowest = max(self.slowest, time.monotonic() - started)
            self.answers[got.data] += 1
            if got.data not in self._expected:
                self.wrong.append(str(got))

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            if kind is None:
                wait_for(
                    lambda: self.wrong or self.answers.total() >= self._at_least, "the learned name is asked"
                )
        finally:
            self._end.set()
            self._thread.join(PATIENCE + 5)
        if kind is None:
            assert self.wrong == [], self.wrong[:5]
