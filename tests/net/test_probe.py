from __future__ import annotations

import asyncio
import errno
import os
import socket
import ssl
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any

import pytest
from structlog.testing import capture_logs

from dnsproxy.core.addresses.health import Outcome, Probe, Result
from dnsproxy.core.addresses.lifecycle import MAX_PROBES, AddressLifecycle
from dnsproxy.core.addresses.name_state import AddressPolicy
from dnsproxy.core.registry import Wanted
from dnsproxy.errors import StartError
from dnsproxy.net.probe import ProbeLoop, Prober
from dnsproxy.settings.learning import VerifySettings
from tests.certificates import make_certificate, server_context
from tests.strategies import KEY, learned, lifecycle, opened, snapshot

HOST = "127.0.0.1"
ADDRESS = "10.0.0.1"


@asynccontextmanager
async def server(context: ssl.SSLContext | None = None) -> AsyncIterator[int]:
    """Accept connections on a free port, by TLS when there is a ``context``."""

    async def serve(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.close()
        with suppress(OSError):
            await writer.wait_closed()

    listening = await asyncio.start_server(serve, HOST, 0, ssl=context)
    async with listening:
        yield listening.sockets[0].getsockname()[1]


@asynccontextmanager
async def silent() -> AsyncIterator[int]:
    """A port whose connections the kernel completes and nobody serves."""
    with socket.create_server((HOST, 0)) as listening:
        yield listening.getsockname()[1]


def closed_port() -> int:
    with socket.create_server((HOST, 0)) as listening:
        return int(listening.getsockname()[1])


async def probe(*ports: int, server_name: str | None = None, **facts: Any) -> Result:
    settings = VerifySettings.model_validate({"timeout": "500ms", **facts})
    return await Prober(settings).probe(Probe("a.example.", HOST, ports, server_name))


async def test_a_port_that_accepts_is_well() -> None:
    async with server() as port:
        assert await probe(port) == Result(Outcome.ANSWERED, {port: "ok"})


async def test_a_port_that_refuses_is_not() -> None:
    port = closed_port()
    assert await probe(port) == Result(Outcome.FAILED, {port: "Connection refused"})


async def test_every_port_counts() -> None:
    refusing = closed_port()
    async with server() as one:
        result = await probe(one, refusing)
    assert result == Result(Outcome.FAILED, {one: "ok", refusing: "Connection refused"})


async def test_who_accepts_and_says_nothing_has_no_tls() -> None:
    async with silent() as port:
        assert await probe(port, server_name="a.example") == Result(Outcome.FAILED, {port: "timed out"})
        assert (await probe(port)).outcome is Outcome.ANSWERED


async def test_who_speaks_something_else_has_no_tls() -> None:
    async def greet(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"220 welcome\r\n" * 10)
        with suppress(OSError):
            await writer.drain()
        writer.close()

    listening = await asyncio.start_server(greet, HOST, 0)
    async with listening:
        port = listening.sockets[0].getsockname()[1]
        result = await probe(port, server_name="a.example")
    assert result.outcome is Outcome.FAILED
    assert result.ports[port].startswith("TLS: ")


@pytest.mark.parametrize(("names", "days"), [(("a.example",), 1), (("*.example",), 1), (("a.example",), -1)])
async def test_a_certificate_for_the_name_is_well_whoever_signed_it(
    names: tuple[str, ...], days: int, tmp_path: Path
) -> None:
    context = server_context(make_certificate(tmp_path, *names, days=days))
    async with server(context) as port:
        result = await probe(port, server_name="a.example")
    assert result == Result(Outcome.ANSWERED, {port: "ok"})


async def test_a_certificate_for_another_name_is_not(tmp_path: Path) -> None:
    context = server_context(make_certificate(tmp_path, "b.example"))
    async with server(context) as port:
        result = await probe(port, server_name="a.example")
    assert result == Result(Outcome.FAILED, {port: "its certificate is for b.example"})


@pytest.mark.parametrize(
    ("names", "days", "complaint"),
    [
        (("a.example",), 1, None),
        (("b.example",), 1, "Hostname mismatch"),
        (("a.example",), -1, "certificate has expired"),
    ],
)
async def test_with_a_ca_file_the_certificate_must_hold(
    names: tuple[str, ...], days: int, complaint: str | None, tmp_path: Path
) -> None:
    path = make_certificate(tmp_path, *names, days=days)
    async with server(server_context(path)) as port:
        result = await probe(port, server_name="a.example", ca_file=path)
    assert result.outcome is (Outcome.FAILED if complaint else Outcome.ANSWERED)
    assert (complaint or "ok") in result.ports[port]


async def test_with_a_ca_file_other_authorities_do_not_count(tmp_path: Path) -> None:
    mine = make_certificate(tmp_path, "b.example")
    async with server(server_context(make_certificate(tmp_path, "a.example"))) as port:
        result = await probe(port, server_name="a.example", ca_file=mine)
    assert result.outcome is Outcome.FAILED
    assert result.ports[port].startswith("certificate: self-signed")


async def test_the_right_name_is_asked_for(tmp_path: Path) -> None:
    asked: list[str | None] = []
    context = server_context(make_certificate(tmp_path, "a.example"))
    context.sni_callback = lambda _socket, name, _context: asked.append(name)
    async with server(context) as port:
        await probe(port, server_name="a.example")
    assert asked == ["a.example"]


@pytest.mark.parametrize(
    ("number", "outcome"),
    [
        (errno.EMFILE, Outcome.HOST),
        (errno.ENFILE, Outcome.HOST),
        (errno.ENOBUFS, Outcome.HOST),
        (errno.ENETUNREACH, Outcome.NO_ROUTE),
        (errno.EHOSTUNREACH, Outcome.NO_ROUTE),
        (errno.EADDRNOTAVAIL, Outcome.NO_ROUTE),
        (errno.EPERM, Outcome.NO_ROUTE),
        (errno.ECONNREFUSED, Outcome.FAILED),
        (errno.ECONNRESET, Outcome.FAILED),
    ],
)
async def test_what_the_system_says_tells_whose_fault_it_is(
    number: int, outcome: Outcome, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def fail(*_: Any, **__: Any) -> None:
        raise OSError(number, "Connect call failed")

    monkeypatch.setattr(asyncio, "open_connection", fail)
    assert await probe(443) == Result(outcome, {443: os.strerror(number)})


@pytest.mark.parametrize(
    ("numbers", "outcome"),
    [
        ((errno.ENETUNREACH, errno.ECONNREFUSED), Outcome.FAILED),
        ((errno.EMFILE, errno.ECONNREFUSED), Outcome.FAILED),
        ((errno.ENETUNREACH, errno.EMFILE), Outcome.HOST),
    ],
)
async def test_of_several_ports_what_proves_most_counts(
    numbers: tuple[int, int], outcome: Outcome, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def fail(_: str, port: int, **__: Any) -> None:
        raise OSError(numbers[port - 1], "Connect call failed")

    monkeypatch.setattr(asyncio, "open_connection", fail)
    assert (await probe(1, 2)).outcome is outcome


async def test_the_http_port_is_not_asked_for_a_certificate(monkeypatch: pytest.MonkeyPatch) -> None:
    async with server() as port:
        monkeypatch.setattr("dnsproxy.net.probe.HTTP", port)
        assert await probe(port, server_name="a.example") == Result(Outcome.ANSWERED, {port: "ok"})


async def test_a_name_that_tls_cannot_carry_says_nothing_about_the_address() -> None:
    async with silent() as port:
        result = await probe(port, server_name="a" * 300)
    assert result.outcome is Outcome.HOST
    assert result.ports[port].startswith("no name for TLS")


def test_a_ca_file_that_cannot_be_used_is_said_at_start(tmp_path: Path) -> None:
    with pytest.raises(StartError, match=r"learn.verify.ca_file: .*none.pem: No such file or directory"):
        Prober(VerifySettings(ca_file=tmp_path / "none.pem"))
    (tmp_path / "bad.pem").write_text("nothing")
    with pytest.raises(StartError, match=r"bad.pem: no usable certificate"):
        Prober(VerifySettings(ca_file=tmp_path / "bad.pem"))


# -- the loop -----------------------------------------------------------------------------------


def state_of(*names: str, interval: float = 0.1) -> AddressLifecycle:
    """A state machine that answers each of ``names`` with `ADDRESS`."""
    managed = tuple(Wanted(name, "other", "hz") for name in names)
    policy = AddressPolicy(managed=managed, keys={KEY: None}, interval=interval)
    return lifecycle(snapshot(*(learned(name, (ADDRESS,)) for name in names)), policy=policy)


class FakeProber(Prober):
    """Every probe ends when the test says so."""

    def __init__(self) -> None:
        super().__init__(VerifySettings())
        self.started: list[Probe] = []
        self.go = asyncio.Event()
        self.crash = False
        self.result = Result(Outcome.ANSWERED, {443: "ok"})

    async def probe(self, probe: Probe) -> Result:
        self.started.append(probe)
        if self.crash:
            raise RuntimeError("a mistake")
        await self.go.wait()
        return self.result


@asynccontextmanager
async def running(
    state: AddressLifecycle, prober: Prober, on_result: Callable[[], None] = lambda: None
) -> AsyncIterator[ProbeLoop]:
    loop = ProbeLoop(state, prober, on_result)
    async with asyncio.TaskGroup() as tasks:
        task = tasks.create_task(loop.run())
        yield loop
        task.cancel()


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(10):
        while not condition():
            await asyncio.sleep(0.005)


def alive(state: AddressLifecycle, name: str = "a.example.") -> bool | None:
    return state.names[name].health[ADDRESS].alive


async def test_it_probes_what_comes_and_calls_back_after_each_result() -> None:
    results = 0

    def count() -> None:
        nonlocal results
        results += 1

    state, prober = state_of("a.example."), FakeProber()
    names = state.names
    prober.go.set()
    empty = AddressLifecycle(state.policy)
    async with running(empty, prober, count) as loop:
        empty.accept(opened(snapshot(learned("a.example.", (ADDRESS,)))))
        now = asyncio.get_running_loop().time()
        while not empty.settle(10, now, 1000.0):
            pass
        loop.kick()
        await until(lambda: results >= 3)
    assert {probe.name for probe in prober.started} == set(names)


async def test_probes_at_one_time_are_bounded_and_all_have_their_turn() -> None:
    names = [f"n{number}.example." for number in range(MAX_PROBES * 2)]
    state, prober = state_of(*names, interval=30.0), FakeProber()
    async with running(state, prober):
        await until(lambda: len(prober.started) >= MAX_PROBES)
        assert len(prober.started) == MAX_PROBES
        prober.go.set()
        await until(lambda: len(prober.started) == len(names))
    assert sorted(probe.name for probe in prober.started) == sorted(names)


async def test_an_address_dies_and_returns() -> None:
    state, prober = state_of("a.example."), FakeProber()
    prober.go.set()
    prober.result = Result(Outcome.FAILED, {443: "Connection refused"})
    async with running(state, prober):
        await until(lambda: alive(state) is False)
        prober.result = Result(Outcome.ANSWERED, {443: "ok"})
        await until(lambda: alive(state) is True)


async def test_an_internal_error_is_no_proof_against_an_address() -> None:
    state, prober = state_of("a.example."), FakeProber()
    prober.crash = True
    with capture_logs() as logs:
        async with running(state, prober):
            await until(lambda: len(prober.started) >= 3)
    assert alive(state)
    assert {line["event"] for line in logs} == {"learned.probe_crashed"}


async def test_probes_that_were_cancelled_are_made_again() -> None:
    """15 of 141 reloads left an address unprobed: its probe had been cancelled and counted as running."""
    state, prober = state_of("a.example."), FakeProber()
    for _ in range(5):
        started = len(prober.started)
        async with running(state, prober):
            await until(lambda before=started: len(prober.started) > before)  # type: ignore[misc]
    prober.go.set()
    prober.result = Result(Outcome.FAILED, {443: "Connection refused"})
    async with running(state, prober):
        await until(lambda: alive(state) is False)


async def test_another_prober_makes_the_probes_that_follow() -> None:
    state, before, after = state_of("a.example."), FakeProber(), FakeProber()
    before.go.set()
    after.go.set()
    async with running(state, before) as loop:
        await until(lambda: bool(before.started))
        loop.prober = after
        await until(lambda: len(after.started) >= 2)
