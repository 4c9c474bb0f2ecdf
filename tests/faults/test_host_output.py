"""Standard error that cannot be written: its reader has gone or has stopped, or its disk is full."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import pytest

from tests.e2e.processes import Process, dnsproxy_argv, environment, wait_for
from tests.e2e.world import ADDRESSES, OTHER, OTHER_ADDRESS, REGISTRY, World, fetch
from tests.faults.pressure import Asker

pytestmark = [pytest.mark.faults, pytest.mark.timeout(120)]

GONE, STOPPED, FULL_DISK = "gone", "stopped", "full disk"
# Seconds: a flush of `output.EXIT_SECONDS` for each process, and what a busy machine takes besides.
END_SECONDS = 15.0


class Reader:
    """Reads the standard error and output of a process through a FIFO; `leave` or `stop` end that."""

    def __init__(self, folder: Path, name: str) -> None:
        self.path = folder / f"{name}.fifo"
        os.mkfifo(self.path)
        # Also for writing, so that opening does not wait for the process.
        self._fd = os.open(self.path, os.O_RDWR)
        self._lines = bytearray()
        self._end = threading.Event()
        self._thread: threading.Thread | None = None
        self.resume()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._halt()
        with contextlib.suppress(OSError):
            os.close(self._fd)

    def redirect(self, process: Process) -> None:
        process.run_by("sh", "-c", f'exec "$0" "$@" >{self.path} 2>&1')

    def _run(self) -> None:
        while not self._end.is_set():
            self._lines += os.read(self._fd, 1 << 16)

    def _halt(self) -> None:
        if self._thread is not None:
            self._end.set()
            os.write(self._fd, b"\n")
            self._thread.join(30)
            self._thread = None

    def leave(self) -> None:
        """Close the pipe: writes fail with EPIPE from now on."""
        self._halt()
        os.close(self._fd)

    def stop(self) -> None:
        """Read no more, and fill the pipe: writes wait from now on."""
        self._halt()
        os.set_blocking(self._fd, False)
        with contextlib.suppress(BlockingIOError):
            while True:
                os.write(self._fd, b"\n" * 4096)
        with contextlib.suppress(BlockingIOError):
            while True:
                os.write(self._fd, b"\n")
        os.set_blocking(self._fd, True)

    def come_back(self) -> None:
        """Open the pipe again after `leave`."""
        self._fd = os.open(self.path, os.O_RDWR)
        self.resume()

    def resume(self) -> None:
        """Read."""
        self._end.clear()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def events(self, *names: str) -> list[dict[str, Any]]:
        whole = self._lines.decode().rpartition("\n")[0]
        found = [json.loads(line) for line in whole.splitlines() if line.startswith("{")]
        return [entry for entry in found if entry["event"] in names]


def breaks(reader: Reader, how: str) -> None:
    (reader.leave if how == GONE else reader.stop)()


def lost(world: World) -> float:
    return world.metric('dnsproxy_log_records_lost_total{log="program"}')


@pytest.fixture
def reader(tmp_path: Path) -> Iterator[Reader]:
    with Reader(tmp_path, "stderr") as made:
        yield made


def is_answering(world: World) -> bool:
    return world.server.dig(REGISTRY).data == [ADDRESSES[REGISTRY]]


def failures_that_are_logged(world: World) -> None:
    """Have the proxy log: a reload, one that fails, an upstream whose connections end, a lost helper."""
    reloads = world.metric("dnsproxy_config_last_reload_success_timestamp_seconds")
    world.proxy.signal(signal.SIGHUP)
    wait_for(
        lambda: world.metric("dnsproxy_config_last_reload_success_timestamp_seconds") > reloads, "a reload"
    )
    held = world.config.read_text()
    world.config.write_text("serve: [")
    world.proxy.signal(signal.SIGHUP)
    wait_for(lambda: world.metric("dnsproxy_config_reload_success") == 0, "a reload that fails")
    world.config.write_text(held)
    world.upstream.process.stop()
    assert world.server.dig(f"x1.{OTHER}").rcode == "SERVFAIL"
    world.helper.stop()
    wait_for(
        lambda: any(source["last_error"] for source in world.admin("/api/v1/status").json()["sources"]),
        "the helper's end is noted",
    )


def recovery(world: World) -> None:
    world.upstream.start()
    wait_for(lambda: world.server.dig(OTHER).data == [OTHER_ADDRESS], "the upstream is used again")
    world.start_helper()
    wait_for(
        lambda: not any(source["last_error"] for source in world.admin("/api/v1/status").json()["sources"]),
        "the helper is used again",
    )


@pytest.mark.parametrize("workers", [1, 2])
@pytest.mark.parametrize("how", [GONE, STOPPED, FULL_DISK])
def test_a_proxy_answers_and_ends_whatever_becomes_of_its_log(
    world: World, reader: Reader, how: str, workers: int
) -> None:
    world.configure(forward={"upstreams": [f"tcp://{world.upstream.endpoint}"]}, serve={"workers": workers})
    if how == FULL_DISK:
        world.proxy.run_by("sh", "-c", 'exec "$0" "$@" 2>/dev/full')
    else:
        reader.redirect(world.proxy)
    world.source.start()
    world.upstream.start()
    world.start_helper()
    world.proxy.start(lambda: is_answering(world))
    world.wait_ready()
    assert world.server.dig(OTHER).data == [OTHER_ADDRESS]
    if how != FULL_DISK:
        breaks(reader, how)
    with Asker(world.dns_port) as asker:
        failures_that_are_logged(world)
        recovery(world)
    assert world.proxy.alive
    assert asker.again == 0
    assert max(asker.seconds) < 1
    if how == STOPPED:
        # All of it waits in the queue.
        assert lost(world) == 0
        reader.resume()
        wait_for(lambda: reader.events("learned.source_recovered"), "what waited is written")
        assert reader.events("config.reloaded", "config.not_taken", "upstream.unreachable")
    else:
        assert lost(world) > 3
    if how == GONE:
        reader.come_back()
        world.proxy.signal(signal.SIGHUP)
        (report,) = wait_for(lambda: reader.events("log.records_lost"), "the losses are reported")[:1]
        assert (report["log"], report["level"]) == ("program", "warning")
        assert report["count"] > 3
        breaks(reader, STOPPED)
    assert world.proxy.stop(END_SECONDS) == 0


@pytest.mark.parametrize("how", [GONE, STOPPED, FULL_DISK])
def test_a_helper_publishes_and_ends_whatever_becomes_of_its_log(
    world: World, reader: Reader, how: str
) -> None:
    if how == FULL_DISK:
        world.helper.run_by("sh", "-c", 'exec "$0" "$@" 2>/dev/full')
    else:
        reader.redirect(world.helper)
    world.source.start()
    world.helper.start(lambda: _answers(world))
    wait_for(lambda: world.snapshot().status == 200, "the first snapshot")
    if how != FULL_DISK:
        breaks(reader, how)
    first = _serial(world)
    world.helper.signal(signal.SIGHUP)
    world.source.process.stop()
    wait_for(lambda: not _is_ok(world), "a failed look-up")
    world.source.start()
    world.source.replace(REGISTRY, "A 10.94.205.199")
    wait_for(lambda: _serial(world) != first and _is_ok(world), "names are resolved again")
    assert world.helper.alive
    assert world.helper.stop(END_SECONDS) == 0


def _answers(world: World) -> bool:
    try:
        return bool(_health(world))
    except OSError:
        return False


def _health(world: World) -> Any:
    return fetch(world.helper_port, "/health").json()


def _is_ok(world: World) -> bool:
    return bool(_health(world)["status"] == "ok")


def _serial(world: World) -> int:
    serial: int = _health(world)["serial"]
    return serial


# --- starts that fail, and commands


def full_pipe() -> tuple[int, int]:
    reading, writing = os.pipe()
    os.set_blocking(writing, False)
    with contextlib.suppress(BlockingIOError):
        while True:
            os.write(writing, b"\n")
    os.set_blocking(writing, True)
    return reading, writing


def run(argv: Sequence[str], **streams: int) -> subprocess.CompletedProcess[bytes]:
    return subprocess.run(argv, env=environment(), timeout=60, check=False, **streams)  # type: ignore[call-overload,no-any-return]


@pytest.mark.parametrize("command", ["serve", "helper"])
@pytest.mark.parametrize(("content", "code"), [("serve: [", 2), ("user: nobody-of-that-name", 1)])
def test_a_start_that_fails_says_why_and_ends(tmp_path: Path, command: str, content: str, code: int) -> None:
    config = tmp_path / "config.yaml"
    config.write_text(content)
    argv = dnsproxy_argv(command, "--config", config)
    shown = run(argv, stderr=subprocess.PIPE)
    assert (shown.returncode, shown.stderr.count(b"\n") > 0) == (code, True)
    reading, writing = full_pipe()
    assert run(argv, stderr=writing).returncode == code
    os.close(reading)
    assert run(argv, stderr=writing).returncode == code
    os.close(writing)
    closed = ["sh", "-c", 'exec "$0" "$@" <&- >&- 2>&-', *argv]
    assert run(closed).returncode == code
    full = ["sh", "-c", 'exec "$0" "$@" >/dev/full 2>/dev/full', *argv]
    assert run(full).returncode == code


def test_a_command_whose_output_cannot_be_written_says_so(tmp_path: Path) -> None:
    argv = dnsproxy_argv("schema")
    for variable in ("", "1"):  # buffered by Python, or not
        env = environment() | {"PYTHONUNBUFFERED": variable}
        with Path("/dev/full").open("wb") as full:
            done = subprocess.run(argv, stdout=full, stderr=subprocess.PIPE, env=env, timeout=60, check=False)
        assert done.returncode == 1
        assert done.stderr.decode().splitlines()[-1].endswith("No space left on device")
        assert b"Traceback" not in done.stderr
    config = tmp_path / "config.yaml"
    config.write_text("serve: [")
    checked = ["sh", "-c", 'exec "$0" "$@" 2>/dev/full', *dnsproxy_argv("check", config)]
    assert run(checked).returncode == 2
    assert run(["sh", "-c", f"{sys.executable} -m dnsproxy schema | head -c 10"]).returncode == 0


def test_a_command_prints_all_to_a_slow_reader() -> None:
    process = subprocess.Popen(dnsproxy_argv("schema"), stdout=subprocess.PIPE, env=environment())
    assert process.stdout is not None
    got = bytearray()
    while data := os.read(process.stdout.fileno(), 512):
        got += data
    process.stdout.close()
    assert process.wait(30) == 0
    assert isinstance(json.loads(got), dict)
