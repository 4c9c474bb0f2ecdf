"""What proxies under test meet in their network namespace: addresses, sources of snapshots, an upstream."""

from __future__ import annotations

import asyncio
import hashlib
import selectors
import socket
import subprocess
import threading
from collections.abc import Coroutine
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Any, Literal, Self

import dns.flags
import dns.message
import dns.rdatatype
import dns.rrset
from aiohttp import web

from tests.fakes.etcd import Member, Store

Kind = Literal["file", "http", "etcd"]
KINDS: tuple[Kind, ...] = ("file", "http", "etcd")
# What the upstream says of every name.
FORWARDED = "192.0.2.77"
PORT = 443
# ip(7), ipv6(7).
_IP_FREEBIND, _IPV6_FREEBIND = 15, 78


class Addresses:
    """Addresses of the loopback interface: each answers, refuses connections, or has no route."""

    def __init__(self) -> None:
        self._selector = selectors.DefaultSelector()
        self._listeners: dict[str, socket.socket] = {}
        self._routed: set[str] = set()
        self._lock = threading.Lock()
        threading.Thread(target=self._accept, name="listeners", daemon=True).start()

    def set(self, address: str, outcome: str) -> None:
        """Have connections to ``address`` end this way from now on, and in no third way in between."""
        with self._lock:
            if outcome == "answered" and address not in self._listeners:
                self._listeners[address] = self._listen(address)
            if (outcome != "no_route") is not (address in self._routed):
                self._route(address, add=outcome != "no_route")
            if outcome != "answered" and address in self._listeners:
                listener = self._listeners.pop(address)
                self._selector.unregister(listener)
                listener.close()

    def _route(self, address: str, *, add: bool) -> None:
        words = ["ip", "address", "add" if add else "delete", f"{address}/{128 if ':' in address else 32}"]
        options = ["nodad"] if ":" in address and add else []
        subprocess.run([*words, "dev", "lo", *options], check=True, capture_output=True)
        (self._routed.add if add else self._routed.remove)(address)

    def _listen(self, address: str) -> socket.socket:
        listener = socket.socket(socket.AF_INET6 if ":" in address else socket.AF_INET)
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        # Also while the interface does not have the address.
        level = (socket.IPPROTO_IPV6, _IPV6_FREEBIND) if ":" in address else (socket.IPPROTO_IP, _IP_FREEBIND)
        listener.setsockopt(*level, 1)
        listener.bind((address, PORT))
        listener.listen(64)
        listener.setblocking(False)
        self._selector.register(listener, selectors.EVENT_READ)
        return listener

    def _accept(self) -> None:
        while True:
            for key, _ in self._selector.select(0.2):
                assert isinstance(key.fileobj, socket.socket)
                # It may have been closed since.
                with suppress(OSError, ValueError):
                    key.fileobj.accept()[0].close()


class Sources:
    """A place for the snapshots of each helper: a file, an HTTP server as a helper has it, a key of etcd."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._tokens: dict[str, str] = {}
        self._serials: dict[str, int] = {}
        self._loop = asyncio.new_event_loop()
        self._store = Store()
        self._member = Member(self._store)
        self._changed = asyncio.Event()
        self._runner = web.AppRunner(self._application(), access_log=None, shutdown_timeout=0.1)
        self._port = 0

    def __enter__(self) -> Self:
        self._thread = threading.Thread(target=self._loop.run_forever, name="sources", daemon=True)
        self._thread.start()
        self._do(self._start())
        return self

    def __exit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._do(self._stop())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    def settings(self, kind: Kind, place: str) -> dict[str, Any]:
        """Return the source for the configuration of a proxy."""
        if kind == "file":
            return {"url": self._path(place).as_uri()}
        if kind == "http":
            return {"url": f"http://127.0.0.1:{self._port}/{place}/v1/snapshot"}
        return {"type": "etcd", "endpoints": [self._member.url], "key": f"/{place}"}

    def publish(self, kind: Kind, place: str, token: str, serial: int) -> None:
        """Replace what the source has."""
        if kind == "file":
            path = self._path(place)
            new = path.with_suffix(".new")
            new.write_text(token)
            new.replace(path)
        else:
            self._do(self._put(kind, place, token, serial))

    def _path(self, place: str) -> Path:
        return self._folder / f"{place.replace('/', '-')}.jws"

    def _do(self, work: Coroutine[Any, Any, None]) -> None:
        asyncio.run_coroutine_threadsafe(work, self._loop).result(30)

    async def _start(self) -> None:
        await self._member.__aenter__()
        await self._runner.setup()
        site = web.TCPSite(self._runner, "127.0.0.1", 0)
        await site.start()
        self._port = self._runner.addresses[0][1]

    async def _stop(self) -> None:
        await self._runner.cleanup()
        await self._member.stop()

    async def _put(self, kind: Kind, place: str, token: str, serial: int) -> None:
        if kind == "etcd":
            self._store.put(f"/{place}", token.encode())
            return
        self._tokens[place], self._serials[place] = token, serial
        changed, self._changed = self._changed, asyncio.Event()
        changed.set()

    def _application(self) -> web.Application:
        app = web.Application()
        app.router.add_get("/{place:.+}/v1/snapshot", self._get)
        return app

    async def _get(self, request: web.Request) -> web.Response:
        place = request.match_info["place"]
        if request.query.get("wait") == str(self._serials.get(place)):
            with suppress(TimeoutError):
                async with asyncio.timeout(float(request.query["timeout"])):
                    while request.query["wait"] == str(self._serials.get(place)):
                        await self._changed.wait()
        token = self._tokens.get(place)
        if token is None:
            return web.Response(status=503)
        etag = f'"{hashlib.sha256(token.encode()).hexdigest()}"'
        if request.headers.get("If-None-Match") == etag:
            return web.Response(status=304, headers={"ETag": etag})
        return web.Response(text=token, content_type="application/jose", headers={"ETag": etag})


class Upstream:
    """Answers every query for A with `FORWARDED`, for no longer than the question."""

    def __init__(self) -> None:
        self._sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self._sock.bind(("127.0.0.1", 0))
        self.endpoint = f"127.0.0.1:{self._sock.getsockname()[1]}"
        threading.Thread(target=self._run, name="upstream", daemon=True).start()

    def _run(self) -> None:
        while True:
            octets, client = self._sock.recvfrom(4096)
            query = dns.message.from_wire(octets)
            response = dns.message.make_response(query, recursion_available=True)
            question = query.question[0]
            if question.rdtype == dns.rdatatype.A:
                response.answer.append(dns.rrset.from_text(question.name, 0, "IN", "A", FORWARDED))
            self._sock.sendto(response.to_wire(), client)
