"""What stands around a link to an upstream when no socket is open."""

from __future__ import annotations

from collections import Counter
from typing import Any

from dnsproxy.core.exchange import Exchange, Failure, Limits, Verdict
from dnsproxy.core.upstreams import Upstream
from dnsproxy.core.wire import scan_query
from dnsproxy.net.link import Ends, Link, Waiting
from dnsproxy.net.upstream_tls import ClientContext
from tests.messages import query

UPSTREAM = Upstream("one", ("192.0.2.1", 53), tcp=True)


class Transport:
    """Says that so much is unsent, and whether it was cut."""

    def __init__(self, unsent: int = 0) -> None:
        self.unsent = unsent
        self.written: list[bytes] = []
        self.aborts = 0

    def write(self, data: bytes) -> None:
        self.written.append(data)

    def get_write_buffer_size(self) -> int:
        return self.unsent

    def abort(self) -> None:
        self.aborts += 1

    def is_closing(self) -> bool:
        return self.aborts > 0

    def close(self) -> None:
        self.aborts += 1

    def get_extra_info(self, _name: str) -> Transport:
        return self

    def selected_alpn_protocol(self) -> str:
        return "h2"


class Keeper:
    """Notes what it is told."""

    context: ClientContext | None = None

    def __init__(self) -> None:
        self.ends: Ends = self
        self.told: list[Any] = []
        self.local_failures: Counter[str] = Counter()

    def settle(self, _exchange: Exchange, verdict: Verdict, _now: float) -> None:
        self.told.append(verdict)

    def fail(self, _exchange: Exchange, failure: Failure, _now: float) -> None:
        self.told.append(failure)

    def proven(self, _link: Link) -> None:
        self.told.append("proven")

    def ended(self, _link: Link, _now: float) -> None:
        self.told.append("ended")

    def send_again(self, _waiting: Waiting, _now: float) -> bool:
        self.told.append("again")
        return False

    def lose(self, _link: Link, failure: Failure, text: str) -> None:
        self.told.append((failure, text))


def waiting(name: str = "www.example.", deadline: float = 30.0) -> Waiting:
    asked = scan_query(query(name))
    exchange = Exchange(b"key", asked, (UPSTREAM,), Limits(deadline, deadline), 0.0)
    attempt = exchange.next_attempt(0.0)
    assert attempt is not None
    return Waiting(exchange, attempt)
