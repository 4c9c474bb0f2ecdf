"""What asyncio does, and hot sockets, in one thread: neither keeps the other waiting.

Each test runs on asyncio's own loop too (see conftest.py): what holds there is the measure.
"""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from dnsproxy.net.loop import HotLoop, Readiness
from tests.fakes.upstream import until

ROOT = Path(__file__).resolve().parents[2]


class Busy:
    """A socket that is always readable: it is served in every round, and counts."""

    def __init__(self, ready: Readiness, call: Callable[[], object] | None = None) -> None:
        self.rounds = 0
        self._call = call
        self._ready = ready
        self.ours, self.theirs = socket.socketpair()
        self.ours.setblocking(False)
        self.theirs.send(b"x")
        ready.add(self.ours.fileno(), self._serve)

    def _serve(self) -> None:
        self.rounds += 1
        if self._call is not None:
            self._call()

    def close(self) -> None:
        if self.ours.fileno() >= 0:
            self._ready.remove(self.ours.fileno())
        self.ours.close()
        self.theirs.close()


@contextmanager
def busy(call: Callable[[], object] | None = None) -> Iterator[Busy]:
    made = Busy(Readiness(), call)
    try:
        yield made
    finally:
        made.close()


async def deadline(awaited: Any) -> Any:
    async with asyncio.timeout(20):
        return await awaited


# --- asyncio goes on while hot sockets are busy


async def test_timers_fire_in_their_order_while_a_socket_never_rests() -> None:
    fired: list[int] = []
    loop = asyncio.get_running_loop()
    with busy() as socket_served:
        for delay in (3, 1, 2):
            loop.call_later(delay / 100, fired.append, delay)
        await until(lambda: len(fired) == 3)
        assert fired == [1, 2, 3]
        assert socket_served.rounds > 3


async def test_a_timer_set_by_a_hot_call_is_kept() -> None:
    loop = asyncio.get_running_loop()
    fired = asyncio.Event()
    made: list[Busy] = []

    def once() -> None:
        # Nothing but the timer can end the wait after this.
        made[0].close()
        loop.call_later(0.01, fired.set)

    made.append(Busy(Readiness(), once))
    await deadline(fired.wait())


async def test_a_cancelled_timer_does_not_fire() -> None:
    loop = asyncio.get_running_loop()
    fired: list[str] = []
    cancelled = loop.call_later(0.01, fired.append, "cancelled")
    with busy(cancelled.cancel):
        loop.call_later(0.02, fired.append, "kept")
        await until(lambda: fired)
    assert fired == ["kept"]


async def test_call_soon_of_a_hot_call_is_made_though_nothing_else_happens() -> None:
    loop = asyncio.get_running_loop()
    called = asyncio.Event()
    made: list[Busy] = []

    def once() -> None:
        made[0].close()
        loop.call_soon(called.set)

    made.append(Busy(Readiness(), once))
    await deadline(called.wait())


async def test_a_future_resolved_by_a_hot_call_wakes_its_task() -> None:
    future: asyncio.Future[str] = asyncio.get_running_loop().create_future()

    def resolve() -> None:
        if not future.done():
            future.set_result("from a socket")

    with busy(resolve):
        assert await deadline(future) == "from a socket"


async def test_call_soon_threadsafe_wakes_the_loop() -> None:
    loop = asyncio.get_running_loop()
    for waits in range(2):
        called = asyncio.Event()
        thread = threading.Thread(target=loop.call_soon_threadsafe, args=(called.set,))
        if waits:
            thread.start()
            await deadline(called.wait())
        else:
            with busy():
                thread.start()
                await deadline(called.wait())
        thread.join()


async def test_executors_give_back_their_results() -> None:
    loop = asyncio.get_running_loop()
    with ThreadPoolExecutor(2) as pool, busy():
        results = await deadline(
            asyncio.gather(*(loop.run_in_executor(pool, pow, number, 2) for number in range(50)))
        )
    assert results == [number * number for number in range(50)]


async def test_streams_of_asyncio_work_beside_a_busy_socket() -> None:
    async def echo(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while data := await reader.read(65_536):
            writer.write(data)
        writer.close()

    server = await asyncio.start_server(echo, "127.0.0.1", 0)
    with busy() as socket_served:
        reader, writer = await asyncio.open_connection(*server.sockets[0].getsockname())
        # More than the kernel's buffers take at once: both ends wait for room.
        sent = os.urandom(4 << 20)
        writer.write(sent)
        writer.write_eof()
        assert await deadline(reader.read(-1)) == sent
        assert socket_served.rounds > 10
    writer.close()
    server.close()


async def test_subprocesses_end_beside_a_busy_socket() -> None:
    with busy():
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-c", "print(input())", stdin=subprocess.PIPE, stdout=subprocess.PIPE
        )
        output, _ = await deadline(process.communicate(b"through\n"))
    assert (process.returncode, output) == (0, b"through\n")


async def test_signals_reach_their_handlers() -> None:
    loop = asyncio.get_running_loop()
    for rests in (True, False):
        received = asyncio.Event()
        loop.add_signal_handler(signal.SIGUSR1, received.set)
        with busy() as socket_served:
            if rests:
                socket_served.close()
            loop.call_later(0.01, os.kill, os.getpid(), signal.SIGUSR1)
            await deadline(received.wait())
        loop.remove_signal_handler(signal.SIGUSR1)


async def test_tasks_take_turns_with_a_busy_socket() -> None:
    with busy() as socket_served:
        steps = 0
        while socket_served.rounds < 100:
            # A task that never waits for anything.
            await asyncio.sleep(0)
            steps += 1
        assert steps <= 300


# --- hot sockets are served while asyncio is busy


async def test_a_socket_is_served_while_tasks_never_wait() -> None:
    async def spin() -> None:
        while True:
            await asyncio.sleep(0)

    tasks = [asyncio.create_task(spin()) for _ in range(3)]
    with busy() as socket_served:
        while socket_served.rounds < 10:
            await asyncio.sleep(0)
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)


async def test_sockets_may_come_and_go_at_any_time() -> None:
    ready = Readiness()
    with busy() as socket_served:
        for _ in range(20):
            more = [Busy(ready) for _ in range(20)]
            while not all(one.rounds for one in more):
                await asyncio.sleep(0)
            for one in more:
                one.close()
            counts = [one.rounds for one in more]
            seen = socket_served.rounds
            while socket_served.rounds < seen + 2:
                await asyncio.sleep(0)
            assert [one.rounds for one in more] == counts


async def test_reading_and_writing_are_watched_as_said() -> None:
    with busy() as socket_served:
        number = socket_served.ours.fileno()
        for read, write, served in [
            (False, False, False),
            (False, True, True),
            (True, True, True),
            (True, False, True),
        ]:
            socket_served._ready.watch(number, read=read, write=write)
            seen = socket_served.rounds
            await pass_rounds(5)
            assert (socket_served.rounds > seen) is served


async def pass_rounds(rounds: int) -> None:
    """Let so many rounds of the loop go by, counted by a busy socket of their own."""
    with busy() as counter:
        await until(lambda: counter.rounds >= rounds)


async def test_work_for_afterwards_is_done_whoever_asks() -> None:
    ready = Readiness()
    done: list[str] = []
    # From a task, while nothing else happens.
    ready.after(partial(done.append, "task"))
    await until(lambda: done == ["task"])
    # From a timer.
    asyncio.get_running_loop().call_later(0.01, ready.after, partial(done.append, "timer"))
    await until(lambda: done == ["task", "timer"])
    # From a hot call.
    with busy(lambda: ready.after(partial(done.append, "socket"))):
        await until(lambda: "socket" in done)
    # From such work itself.
    ready.after(lambda: ready.after(partial(done.append, "work")))
    await until(lambda: "work" in done)


# --- what fails


async def test_what_a_hot_call_raises_goes_to_the_exception_handler_and_the_loop_goes_on() -> None:
    contexts: list[dict[str, Any]] = []
    loop = asyncio.get_running_loop()
    loop.set_exception_handler(lambda _, context: contexts.append(context))

    def fail() -> None:
        raise ValueError("wrong")

    with busy(fail) as failing, busy() as other:
        await until(lambda: failing.rounds > 2 and other.rounds > 2)
        await until(lambda: len(contexts) > 2)
    assert {str(context["exception"]) for context in contexts} == {"wrong"}


async def test_work_for_afterwards_that_fails_is_reported_too() -> None:
    contexts: list[dict[str, Any]] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: contexts.append(context))

    def fail() -> None:
        raise ValueError("wrong")

    Readiness().after(fail)
    await until(lambda: contexts)
    assert str(contexts[0]["exception"]) == "wrong"


def test_a_hot_failure_is_logged_with_its_place(caplog: pytest.LogCaptureFixture) -> None:
    async def main() -> None:
        def fail() -> None:
            made.close()
            raise ValueError("wrong")

        made = Busy(Readiness(), fail)
        await until(lambda: made.rounds)

    with asyncio.Runner(loop_factory=HotLoop) as runner:
        runner.run(main())
    (record,) = caplog.records
    assert (record.name, record.levelname) == ("asyncio", "ERROR")
    assert "a hot socket's callback failed" in record.message
    assert record.exc_info is not None
    assert "in fail" in caplog.text


# --- the loop's ends


def test_stop_of_a_hot_call_stops_the_loop() -> None:
    made: list[Busy] = []

    def stop() -> None:
        made[0].close()
        loop.stop()

    def start() -> None:
        made.append(Busy(Readiness(), stop))

    late: list[str] = []
    with asyncio.Runner(loop_factory=HotLoop) as runner:
        loop = runner.get_loop()
        loop.call_soon(start)
        # Ends the wait if nobody hears of `stop`.
        guard = loop.call_later(20, late.append, "late")
        loop.run_forever()
        guard.cancel()
    assert (made[0].rounds, late) == (1, [])


def test_a_closed_loop_keeps_no_descriptor() -> None:
    def count() -> int:
        return len(os.listdir("/proc/self/fd"))  # noqa: PTH208 - names alone are wanted

    HotLoop().close()
    before = count()
    for _ in range(3):
        loop = HotLoop()
        loop.run_until_complete(asyncio.sleep(0))
        loop.close()
        loop.close()
    assert count() == before


def test_a_loop_runs_again_after_it_was_stopped() -> None:
    async def main() -> int:
        with busy() as socket_served:
            await until(lambda: socket_served.rounds > 2)
        return socket_served.rounds

    with asyncio.Runner(loop_factory=HotLoop, debug=True) as runner:
        assert runner.run(main()) > 2
        assert runner.run(main()) > 2


PROGRAM = """
import asyncio, signal, socket
from dnsproxy.net.loop import HotLoop, Readiness

# A shell has its background jobs ignore this one.
signal.signal(signal.SIGINT, signal.default_int_handler)
ours, theirs = socket.socketpair()
if {busy}:
    theirs.send(b"x")
rounds = 0

def serve():
    global rounds
    rounds += 1
    if rounds == 1000:
        print("ready", flush=True)

async def main():
    Readiness().add(ours.fileno(), serve)
    if not {busy}:
        print("ready", flush=True)
    try:
        await asyncio.Event().wait()
    except asyncio.CancelledError:
        print("cancelled", flush=True)
        raise

try:
    with asyncio.Runner(loop_factory=HotLoop) as runner:
        runner.run(main())
except KeyboardInterrupt:
    print("interrupted", flush=True)
"""


@pytest.mark.parametrize("is_busy", [True, False])
def test_an_interrupt_cancels_the_main_task(is_busy: bool) -> None:
    with subprocess.Popen(
        [sys.executable, "-c", PROGRAM.format(busy=is_busy)],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        cwd=ROOT,
        text=True,
    ) as process:
        try:
            assert process.stdout is not None
            assert process.stdout.readline() == "ready\n"
            process.send_signal(signal.SIGINT)
            output, _ = process.communicate(timeout=20)
        finally:
            process.kill()
    assert output == "cancelled\ninterrupted\n"
