"""Sources of snapshots that fail in every way in which an HTTP server can, and documents to put there."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from dnsproxy.core import seal
from dnsproxy.core.learned import LearnedName, Snapshot
from tests.fakes.threaded import Threaded

Reply = Callable[["Exchange"], None]
_CHUNK = b"x" * 65_536


class Exchange:
    """One request that a hook answers, in whatever way it likes."""

    def __init__(self, handler: BaseHTTPRequestHandler, source: Source) -> None:
        self._handler = handler
        self.source = source

    def start(self, length: int, status: int = 200) -> None:
        """Send status and header of a body of ``length`` octets."""
        self._handler.send_response(status)
        self._handler.send_header("Content-Type", "application/jose")
        self._handler.send_header("Content-Length", str(length))
        self._handler.send_header("Connection", "close")
        self._handler.end_headers()

    def write(self, data: bytes) -> None:
        self._handler.wfile.write(data)
        self.source.octets += len(data)

    @property
    def over(self) -> bool:
        """Whether the source has been closed, or given another hook."""
        return self.source.closing.is_set()


def body(data: bytes, status: int = 200) -> Reply:
    """Answer with ``data``."""

    def reply(exchange: Exchange) -> None:
        exchange.start(len(data), status)
        exchange.write(data)

    return reply


def silence(exchange: Exchange) -> None:
    """Answer nothing, and keep the connection."""
    exchange.source.closing.wait()


def giant(length: int) -> Reply:
    """Answer with a body of ``length`` octets, as fast as it is read."""

    def reply(exchange: Exchange) -> None:
        exchange.start(length)
        for _ in range(length // len(_CHUNK)):
            if exchange.over:
                return
            exchange.write(_CHUNK)

    return reply


def drip(data: bytes, pause: float) -> Reply:
    """Answer with ``data``, one octet each ``pause`` seconds."""

    def reply(exchange: Exchange) -> None:
        exchange.start(len(data))
        for octet in data:
            if exchange.source.closing.wait(pause):
                return
            exchange.write(bytes([octet]))

    return reply


class Source(Threaded):
    """Listens on 127.0.0.1 at ``port`` while its context lasts; ``reply`` answers every GET.

    ``requests`` and ``octets`` count what was asked for and what was sent of bodies; ``cut`` counts
    responses whose reader went away before their end.
    """

    def __init__(self, port: int, reply: Reply) -> None:
        self.reply = reply
        self.requests = 0
        self.octets = 0
        self.cut = 0
        self.closing = threading.Event()
        source = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                source.requests += 1
                try:
                    source.reply(Exchange(self, source))
                except OSError:
                    source.cut += 1

            def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - its base's name
                """Say nothing: the proxy's log is what counts."""

            def finish(self) -> None:
                try:
                    super().finish()
                except OSError:
                    """The reader has gone."""

        class Server(ThreadingHTTPServer):
            allow_reuse_address = True
            daemon_threads = True

            def handle_error(self, request: Any, client_address: Any) -> None:
                """Say nothing of readers that have gone."""

        super().__init__(Server(("127.0.0.1", port), Handler))

    def __exit__(self, *exc: object) -> None:
        self.closing.set()
        super().__exit__(None, None, None)


class Signer:
    """Signs whatever it is told to, as ``issuer`` and with ``key``."""

    def __init__(self, issuer: str, key: Ed25519PrivateKey) -> None:
        self.issuer = issuer
        self._key = key

    def snapshot(
        self, addresses: Mapping[str, tuple[str, ...]], *, serial: int | None = None, **facts: Any
    ) -> Snapshot:
        """A snapshot issued now, or as ``facts`` say: fields of `Snapshot`, and ``observed_at`` of names."""
        now = int(time.time())
        observed_at = facts.pop("observed_at", now)
        names = tuple(
            LearnedName(f"{name}.", "other", "any", held, None, 5, observed_at, ("10.0.0.2:53",), "ok")
            for name, held in addresses.items()
        )
        made = Snapshot(self.issuer, serial or int(time.time() * 1000), now, now + 86_400, names)
        return replace(made, **facts)

    def sign(self, snapshot: Snapshot) -> bytes:
        return seal.sign(snapshot, self._key).encode()

    def body(self, addresses: Mapping[str, tuple[str, ...]], **facts: Any) -> Reply:
        """Answer with the signed snapshot of `snapshot`."""
        return body(self.sign(self.snapshot(addresses, **facts)))


def resident(pid: int) -> int:
    """Octets of memory that process ``pid`` has in use (VmRSS of proc(5))."""
    lines = Path(f"/proc/{pid}/status").read_text(encoding="ascii").splitlines()
    (kilobytes,) = (line.split()[1] for line in lines if line.startswith("VmRSS:"))
    return int(kilobytes) * 1024
