"""After a reload of everything each holder uses the new configuration, and nothing of the earlier is left.

The whole daemon runs in this process, with its workers, so that the collector sees all.
"""

from __future__ import annotations

import asyncio
import contextlib
import gc
import os
import signal
import socket
import ssl
import struct
import time
import weakref
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import aiohttp
import dns.asyncquery
import dns.message
import pytest

from dnsproxy import children, config, logs
from dnsproxy.core import seal
from dnsproxy.core.learned import Snapshot
from dnsproxy.daemon import Service, run_proxy
from dnsproxy.keys import read_private_key, write_key_pair
from dnsproxy.net.doors import proxy_doors
from dnsproxy.workers.fleet import Fleet
from dnsproxy.workers.start import for_one_of, shared_returns
from dnsproxy.workers.worker import Worker
from tests.certificates import make_certificate
from tests.fakes.nameserver import Nameserver, zone
from tests.strategies import learned
from tests.test_server import free_port

pytestmark = pytest.mark.usefixtures("collector")

# Classes whose objects live as long as the process; each takes other settings. Everything else must go.
LIVES_ON = frozenset(
    f"dnsproxy.{name}"
    for name in (
        *("app.Proxy", "reload.Reloader", "daemon.Service", "notify.Notifier", "lifecycle.Stop"),
        "system.ResolvConf",
        *("net.doors.Doorkeeper", "server.Server", "core.places.Places", "core.budget.MemoryBudget"),
        *("address_service.AddressService", "net.probe.ProbeLoop", "net.hook.Hook"),
        *("core.addresses.lifecycle.AddressLifecycle", "core.addresses.name_state.EventBuffer"),
        "core.convergence.Convergence",
        *(
            "settings.logging.QueryLogSettings",
            "settings.logging.DnstapSettings",
        ),  # until a restart: `reload.PROXY.fixed`
        *("workers.worker.Worker", "workers.channel.Channel", "workers.messages.Inbox", "workers.crew.Crew"),
        *("workers.fleet.Fleet", "workers.seat.Seat", "workers.table_feed.SharedTable"),
        *(
            "workers.table_feed.TableFeed",
            "core.totals.Totals",
            "core.restarts.Restarts",
            "core.restarts.Pulse",
        ),
    )
)
# How many are of the address that both configurations have, in each process that answers.
OF_KEPT_ADDRESS = {
    "dnsproxy.net.udp.UdpListener": 1,
    "dnsproxy.core.pacing.Pacer": 1,
    "dnsproxy.net.tcp.TcpListener": 1,
    "dnsproxy.net.connection.Connection": 1,
    "dnsproxy.net.loop.Readiness": 2,
    "dnsproxy.net.mmsg.BatchSocket": 1,
    "dnsproxy.net.syscalls._ThroughCtypes": 1,
    "dnsproxy.net.msghdr.Slots": 1,
    "dnsproxy.net.msghdr.Headers": 3,
    "dnsproxy.net.msghdr._Iovec_Array_64": 3,
    "dnsproxy.net.msghdr._Mmsghdr_Array_64": 3,
}


class InProcess:
    """A `crew.Starter` whose workers are tasks of this loop."""

    def __init__(self) -> None:
        self.sock, self._ended = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self.sock.setblocking(False)
        self._returns = shared_returns()
        self._tasks: dict[int, asyncio.Task[int]] = {}

    def start_worker(self, process: int, number: int) -> socket.socket:
        ours, theirs = socket.socketpair()
        task = asyncio.ensure_future(Worker(number, self._returns).run(theirs))
        self._tasks[process] = task
        task.add_done_callback(lambda _: self._end(process))
        return ours

    def _end(self, process: int) -> None:
        del self._tasks[process]
        with contextlib.suppress(OSError):
            self._ended.send(struct.pack("!i", process))

    def end_worker(self, process: int) -> None:
        if process in self._tasks:
            self._tasks[process].cancel()

    def ended(self) -> tuple[int, str]:
        (process,) = struct.unpack("!i", self.sock.recv(4))
        return process, "ended"

    def close(self) -> None:
        self.sock.close()
        self._ended.close()


@dataclass
class Ports:
    dns: int
    tls: int
    admin: int


class World:
    """Files, upstreams and two configurations that differ in every section."""

    def __init__(self, folder: Path, upstreams: tuple[Nameserver, Nameserver], workers: int) -> None:
        self.folder = folder
        self.file = folder / "config.yaml"
        self.workers = workers
        self._upstreams = upstreams
        self._serial = 0
        self.ports = tuple(Ports(free_port(), free_port(), free_port()) for _ in range(2))
        self.kept = free_port()
        for version in (0, 1):
            own = self.of(version)
            own.mkdir()
            write_key_pair(own)
            make_certificate(own, f"proxy{version}.example")
            (own / "hook").write_text(f"#!/bin/sh\ncat >/dev/null; touch {own}/hooked\n")
            (own / "hook").chmod(0o755)
            (own / "token").write_text(f"{version}" * 32)
            (own / "token").chmod(0o600)

    def of(self, version: int) -> Path:
        return self.folder / str(version)

    def name(self, version: int) -> str:
        return f"owned{version}.example."

    def publish(self, version: int, address: str) -> None:
        self._serial += 1000
        now = int(time.time())
        entry = learned(self.name(version), (address,), observed_at=now, registry=f"r{version}")
        document = Snapshot(f"helper-{version}", self._serial, now, now + 86_400, (entry,))
        own = self.of(version)
        (own / "new").write_text(seal.sign(document, read_private_key(own / "helper.key")))
        (own / "new").replace(own / "snapshot")

    def write(self, version: int) -> None:
        own, ports = self.of(version), self.ports[version]
        upstream, resolver = (
            str(server.endpoint) for server in self._upstreams[:: 1 if version == 0 else -1]
        )
        pem = own / f"proxy{version}.example1.pem"
        text = f"""
registries:
  - name: r{version}
    provider: generic
    names: [{{name: {self.name(version)}}}, {{name: looked{version}.example}},
            {{name: pinned{version}.example, addresses: [10.9.9.{version}]}}]
helper: {{id: h{version}, interval: {30 + version}s, resolvers: ["{resolver}"]}}
learn:
  sources: [{{url: "file://{own}/snapshot"}}, {{url: "dns://{resolver}"}}]
  trusted_keys: [{own}/helper.pub]
  state_file: {own}/learned.jws
  refresh: {2 + version}s
  ttl: {5 + version}
  max_stale: {1 + version}h
  verify: {{ports: [], interval: {20 + version}s}}
  canary: {{share: 100%, hold: {1 + version}h}}
  on_change: {own}/hook
  history: {3 + version}
serve:
  listen: ["127.0.0.1:{ports.dns}", "127.0.0.1:{self.kept}"]
  allow: [127.0.0.0/8, 192.0.2.{version}/32]
  max_tcp_clients: {100 + version}
  max_tcp_per_client: {50 + version}
  lameduck: {version}s
  workers: {self.workers}
  tls: {{listen: ["127.0.0.1:{ports.tls}"], cert_file: {pem}, key_file: {pem}, path: /q{version}}}
  rate_limit: {{per_client: {1000 + version}}}
  identity: {{version: v{version}}}
forward:
  upstreams: ["{upstream}"]
  zones: {{zone{version}.example: ["{resolver}"]}}
  bootstrap: ["{resolver}"]
  timeout: {{attempt: {100 + version}ms, total: {200 + version}ms}}
  max_in_flight: {200 + version}
  policy: {("fastest", "sequential")[version]}
  probe: {{interval: {60 + version}s}}
  case_randomization: {str(bool(version)).lower()}
cache: {{size: {1000 + version}, max_ttl: {100 + version}s, nxdomain_cut: {str(bool(version)).lower()}}}
admin:
  listen: 127.0.0.1:{ports.admin}
  token_file: {own}/token
  identity: proxy{version}
log: {{level: {("info", "warning")[version]}}}
reload: {("signal", "watch")[version]}
"""
        (self.folder / "new.yaml").write_text(text)
        (self.folder / "new.yaml").replace(self.file)


@pytest.fixture(autouse=True)
def process(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Put back what a daemon takes of its process."""
    before = {number: signal.getsignal(number) for number in (signal.SIGHUP, signal.SIGUSR2)}
    monkeypatch.setattr(logs, "configure", lambda *_: None)
    monkeypatch.setattr(logs, "reporting", contextlib.nullcontext)
    monkeypatch.setattr(children, "adopts_orphans", lambda: False)
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


async def until(condition: Callable[[], Any], seconds: float = 15.0) -> None:
    async with asyncio.timeout(seconds):
        while not condition():
            await asyncio.sleep(0.02)


class Running:
    """The daemon as `dnsproxy serve` runs it."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.starter = InProcess()

    async def run(self) -> None:
        # As `cli.serve` and `workers.start.serve_in_workers`: their frames stay for the whole life, too.
        settings = config.load(self.world.file)
        service = Service(settings, self.world.file)
        doors = proxy_doors(settings)
        if self.world.workers == 1:
            keeper = service.open(doors)
            del settings
            await run_proxy(service, keeper)
        else:
            shared = for_one_of(settings, self.world.workers)
            keeper = service.open(doors, shares=self.world.workers)
            fleet = Fleet(self.starter, shared, self.world.workers, keeper, beat_seconds=0.05)
            del settings, shared
            await run_proxy(service, keeper, fleet)


async def request(world: World, version: int, method: str, path: str, **more: Any) -> Any:
    url = f"http://127.0.0.1:{world.ports[version].admin}{path}"
    headers = {"Authorization": "Bearer " + f"{version}" * 32, "Content-Type": "application/json"}
    async with (
        aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(10)) as session,
        session.request(method, url, headers=headers, **more) as response,
    ):
        text = await response.text()
        assert response.status < 300, (response.status, text)
        return await response.json() if "json" in response.content_type else text


@contextlib.asynccontextmanager
async def started(folder: Path, workers: int) -> AsyncIterator[World]:
    records = (
        "looked0.example. 60 IN A 10.2.2.2\nlooked1.example. 60 IN A 10.3.3.3\nwww.example. 60 IN A 192.0.2."
    )
    async with Nameserver(zone(records + "1")) as first, Nameserver(zone(records + "2")) as second:
        world = World(folder, (first, second), workers)
        world.write(0)
        for version in (0, 1):
            world.publish(version, f"10.0.0.{version + 1}")
        running = Running(world)
        task = asyncio.ensure_future(running.run())
        try:
            await until(lambda: task.done() or (world.of(0) / "hooked").exists())
            if task.done():
                task.result()
            yield world
        finally:
            os.kill(os.getpid(), signal.SIGINT)
            await asyncio.wait_for(task, 20)
            running.starter.close()


async def ask(port: int, name: str) -> list[str]:
    message = await dns.asyncquery.udp(dns.message.make_query(name, "A"), "127.0.0.1", port=port, timeout=5)
    return [str(item) for rrset in message.answer for item in rrset]


class Client:
    """A connection that stays open."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer

    @classmethod
    async def connect(cls, port: int, *, tls: bool = False) -> Client:
        context = None
        if tls:
            context = ssl.create_default_context()
            context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
        return cls(*await asyncio.open_connection("127.0.0.1", port, ssl=context))

    async def ask(self, name: str) -> list[str]:
        query = dns.message.make_query(name, "A").to_wire()
        self._writer.write(struct.pack("!H", len(query)) + query)
        (length,) = struct.unpack("!H", await self._reader.readexactly(2))
        message = dns.message.from_wire(await self._reader.readexactly(length))
        return [str(item) for rrset in message.answer for item in rrset]

    async def close(self) -> None:
        self._writer.close()
        with contextlib.suppress(OSError, ssl.SSLError):
            await self._writer.wait_closed()


def kind_of(value: object) -> str:
    return f"{type(value).__module__}.{type(value).__qualname__}"


def ours() -> list[object]:
    """Every object of a class of this program that the collector knows."""
    gc.collect()
    gc.unfreeze()
    return [value for value in gc.get_objects() if str(type(value).__module__).startswith("dnsproxy.")]


class Marks:
    """Objects that come into being between its making and `stop`, by weak references."""

    def __init__(self, workers: int) -> None:
        # Kept, so that no other object gets their ids.
        self._earlier = {id(value): value for value in ours()}
        self._marked: list[weakref.ref[object]] = []
        self._kept = Counter({kind: count * workers for kind, count in OF_KEPT_ADDRESS.items()})

    def stop(self) -> None:
        self._marked.clear()
        for value in ours():
            if id(value) not in self._earlier:
                with contextlib.suppress(TypeError):  # it has slots, and none for weak references
                    self._marked.append(weakref.ref(value))

    def left(self) -> Counter[str]:
        """What of it is still referenced, by class, beyond what may live on."""
        gc.collect()
        found = Counter(kind_of(value) for held in self._marked if (value := held()) is not None)
        for kind in LIVES_ON:
            del found[kind]
        return found - self._kept

    def holders(self, kinds: Iterable[str]) -> str:
        """Return what refers to one object of each class, for the message of a failure."""
        lines = []
        for kind in kinds:
            value = next(v for held in self._marked if (v := held()) is not None and kind_of(v) == kind)
            lines += [f"{kind} <- {type(held)}: {str(held)[:200]}" for held in gc.get_referrers(value)]
        return "\n".join(lines)


# What the state of learned addresses keeps of the past, and requests that are under way.
STATE = ("dnsproxy.core.addresses.", "dnsproxy.core.learned.", "dnsproxy.net.fetch.")


def counted() -> Counter[str]:
    """Count, by class, the objects that have no weak references, but for values."""
    found: Counter[str] = Counter()
    for value in ours():
        kind = kind_of(value)
        if not isinstance(value, tuple) and not kind.startswith(STATE):
            try:
                weakref.ref(value)
            except TypeError:
                found[kind] += 1
    return found


@pytest.mark.parametrize("workers", [1, 2])
async def test_after_a_reload_of_everything_nothing_uses_the_earlier_configuration(
    tmp_path: Path, workers: int
) -> None:
    marks = Marks(workers)
    async with started(tmp_path, workers) as world:
        clients = [
            await Client.connect(world.kept),
            await Client.connect(world.ports[0].dns),
            await Client.connect(world.ports[0].tls, tls=True),
        ]
        await check(world, 0, clients)
        marks.stop()

        world.write(1)
        os.kill(os.getpid(), signal.SIGHUP)
        await until((world.of(1) / "hooked").exists)
        await check(world, 1, clients)
        # The addresses of two of them are left. Until they go they are served, after the next reload too.
        await request(world, 1, "POST", "/api/v1/reload")
        await check(world, 1, clients)
        for client in clients[1:]:
            await client.close()
        await gone(marks)
        marks.stop()

        # Back, as `reload: watch` says now, and once more by an order.
        (world.of(0) / "hooked").unlink()
        world.write(0)
        await until((world.of(0) / "hooked").exists)
        await check(world, 0, clients[:1])
        await gone(marks)
        before = counted()
        (world.of(1) / "hooked").unlink()
        for version in (1, 0):
            world.write(version)
            # The socket of an address that was left is closed once its last query can have been answered.
            await until(partial(is_free, world.ports[version].dns))
            outcome = await request(world, 1 - version, "POST", "/api/v1/reload")
            assert "admin.listen" in outcome["changed"]
            await check(world, version, clients[:1])
        await clients[0].close()
        with contextlib.suppress(TimeoutError):
            await until(lambda: not grown(before))
        assert grown(before) == {}


def is_free(port: int) -> bool:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        try:
            sock.bind(("127.0.0.1", port))
        except OSError:
            return False
        return True


def grown(before: Counter[str]) -> Counter[str]:
    return counted() - before


async def gone(marks: Marks) -> None:
    with contextlib.suppress(TimeoutError):
        await until(lambda: not marks.left())
    assert marks.left() == {}, marks.holders(marks.left())


async def check(world: World, version: int, clients: Sequence[Client]) -> None:
    """See that each part that outlives a reload goes by configuration ``version``."""
    mine, other = world.name(version), world.name(1 - version)
    address = f"10.0.0.{version + 1}"
    expected = [f"192.0.2.{version + 1}"]

    # Listeners, and connections that were open before.
    for port in (world.kept, world.ports[version].dns):
        await eventually(partial(ask, port), mine, [address])
        assert await ask(port, "www.example") == expected
        assert await ask(port, other) == []
    for client in clients:
        await eventually(client.ask, mine, [address])
        assert await client.ask("www.example") == expected
        assert await client.ask(other) == []
    message = await dns.asyncquery.udp(dns.message.make_query(mine, "A"), "127.0.0.1", port=world.kept)
    assert message.answer[0].ttl == 5 + version

    # The endpoint, what it reads, and whom it orders.
    with pytest.raises(aiohttp.ClientConnectorError):
        await request(world, 1 - version, "GET", "/health")
    status = await request(world, version, "GET", "/api/v1/status")
    assert {entry["name"] for entry in status["names"]} == {
        mine,
        *(f"{kind}{version}.example." for kind in ("looked", "pinned")),
    }
    assert {source["url"] for source in status["sources"]} >= {f"file://{world.of(version)}/snapshot"}
    assert f'proxy="proxy{version}"' in await request(world, version, "GET", "/metrics")
    for client_version, outcome in ((version, "learned"), (1 - version, "refused_client")):
        explained = await request(
            world,
            version,
            "GET",
            "/api/v1/explain",
            params={"name": mine, "client": f"192.0.2.{client_version}"},
        )
        assert explained["outcome"] == outcome
    assert (await request(world, version, "POST", "/api/v1/flush", json={}))["flushed"] >= 1
    for order, body, now in (
        ("pin", {"name": mine, "addresses": ["10.8.8.8"]}, "10.8.8.8"),
        ("unpin", {"name": mine}, address),
    ):
        await request(world, version, "POST", f"/api/v1/{order}", json=body)
        for client in clients:
            await eventually(client.ask, mine, [now])
        await eventually(partial(ask, world.kept), mine, [now])

    # Sources, also when one is asked to pull at once.
    world.publish(version, f"10.7.7.{version + 1}")
    await request(world, version, "POST", "/api/v1/refresh", json={})
    for client in clients:
        await eventually(client.ask, mine, [f"10.7.7.{version + 1}"])
    world.publish(version, address)
    await request(world, version, "POST", "/api/v1/refresh", json={})
    await eventually(partial(ask, world.kept), mine, [address])


async def eventually(asked: Callable[[str], Awaitable[list[str]]], name: str, expected: list[str]) -> None:
    async with asyncio.timeout(10):
        while await asked(name) != expected:
            await asyncio.sleep(0.02)
