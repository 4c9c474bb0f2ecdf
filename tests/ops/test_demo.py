from __future__ import annotations

import asyncio
import os
import pty
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from typing import IO

import pytest
import structlog

from dnsproxy.errors import ConfigError, StartError
from dnsproxy.ops import demo, demo_screen
from dnsproxy.ops.demo_checks import Check, run_check
from dnsproxy.ops.demo_screen import NEW_ADDRESS
from dnsproxy.ops.demo_world import REGISTRY, SourceRegion
from tests.fakes.nameserver import closed_port

DEADLINE = 30.0
FIRST = f"proxy: {REGISTRY} is 10.94.205.198"
CHANGED = f"proxy: {REGISTRY} is {NEW_ADDRESS} (was 10.94.205.198)"


@pytest.fixture(autouse=True)
def settings_of_the_process(collector: None) -> Iterator[None]:
    """Undo what a start changes for the whole process."""
    yield
    structlog.reset_defaults()


def start(*options: str, stdout: int = subprocess.PIPE) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "dnsproxy", "demo", *options],
        stdin=subprocess.DEVNULL,
        stdout=stdout,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONUNBUFFERED": "1", "TERM": "xterm", "COLUMNS": "120", "LINES": "50"},
    )


def run(*options: str) -> tuple[int, str, str]:
    process = start(*options)
    out, err = process.communicate(timeout=DEADLINE)
    return process.returncode, out, err


def read_until(stream: IO[str], text: str) -> str:
    """Return the output up to the line that holds ``text``; the test's own timeout bounds the wait."""
    seen = ""
    for line in stream:
        seen += line
        if text in line:
            return seen
    raise AssertionError(f"{text!r} never came; got:\n{seen}")


def finish(process: subprocess.Popen[str], number: signal.Signals) -> tuple[int, str]:
    process.send_signal(number)
    _, err = process.communicate(timeout=DEADLINE)
    return process.returncode, err


async def test_once_passes_in_process(capsys: pytest.CaptureFixture[str]) -> None:
    assert await demo.run_demo(str(closed_port()), once=True) == 0
    out, err = capsys.readouterr()
    assert "every check passed" in out
    assert "FAILED" not in out
    assert err == ""


async def test_once_with_a_wrong_answer_returns_1(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    wrong = [Check("right", REGISTRY, ("10.94.205.198",)), Check("wrong", REGISTRY, ("10.0.0.1",))]
    monkeypatch.setattr(demo_screen, "checks", lambda _source: wrong)
    assert await demo.run_demo(str(closed_port()), once=True) == 1
    assert "1 of 2 checks failed" in capsys.readouterr().out


async def test_a_proxy_that_learns_nothing_is_asked_all_the_same(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(demo_screen, "READY_TIMEOUT", 0.2)
    monkeypatch.setattr(SourceRegion, "lookup", lambda _self, _name: None)
    assert await demo.run_demo(str(closed_port()), once=True) == 1
    out = capsys.readouterr().out
    assert "missing" in out
    assert "SERVFAIL" in out


async def test_a_helper_that_cannot_start_ends_the_demo(monkeypatch: pytest.MonkeyPatch) -> None:
    async def fail(*_: object) -> None:
        await asyncio.sleep(0)
        raise StartError("no key")

    monkeypatch.setattr(demo, "serve_helper", fail)
    listen = closed_port()
    for once in (True, False):
        with pytest.raises(StartError, match="no key"):
            await demo.run_demo(str(listen), once=once)
    with socket.create_server((listen.host, listen.port)):
        pass


@pytest.mark.parametrize("listen", ["127.0.0.1", "localhost:5353", "127.0.0.1:0", ""])
async def test_a_listen_that_is_no_address_is_the_users_mistake(listen: str) -> None:
    with pytest.raises(ConfigError, match=r"^--listen: "):
        await demo.run_demo(listen, once=True)


def test_once_as_a_command() -> None:
    code, out, err = run("--once", "--listen", str(closed_port()))
    assert (code, err) == (0, "")
    assert "every check passed" in out
    assert REGISTRY in out


def test_once_sees_the_change() -> None:
    code, out, err = run("--once", "--change-after", "1", "--listen", str(closed_port()))
    assert (code, err) == (0, "")
    line = next(line for line in out.splitlines() if "after the change" in line)
    assert NEW_ADDRESS in line
    assert line.rstrip().endswith("ok")


@pytest.mark.parametrize("kind", [socket.SOCK_DGRAM, socket.SOCK_STREAM])
def test_a_port_in_use_is_one_line(kind: socket.SocketKind) -> None:
    listen = closed_port()
    with socket.socket(socket.AF_INET, kind) as taken:
        taken.bind((listen.host, listen.port))
        if kind == socket.SOCK_STREAM:
            taken.listen()
        code, out, err = run("--listen", str(listen))
    assert (code, out) == (1, "")
    assert len(err.splitlines()) == 1
    assert str(listen.port) in err
    assert "--listen 127.0.0.1:5454" in err


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_live_demo_follows_the_source_until_it_is_stopped(number: signal.Signals) -> None:
    listen = closed_port()
    with start("--listen", str(listen), "--change-after", "0.5") as process:
        assert process.stdout is not None
        shown = read_until(process.stdout, CHANGED)
        assert f"dig @127.0.0.1 -p {listen.port} {REGISTRY}" in shown
        assert FIRST in shown
        result = asyncio.run(run_check(listen, Check("", REGISTRY, (NEW_ADDRESS,))))
        assert result.passed, result.seen
        assert finish(process, number) == (0, "")


def test_a_terminal_shows_the_table() -> None:
    ours, theirs = pty.openpty()
    with start("--listen", str(closed_port()), "--change-after", "0.5", stdout=theirs) as process:
        os.close(theirs)
        shown = b""
        deadline = time.monotonic() + DEADLINE
        # The change is said above the table, and the table has it right after.
        while f"{NEW_ADDRESS} ".encode() not in shown.partition(CHANGED.encode())[2]:
            assert time.monotonic() < deadline, shown.decode()
            shown += os.read(ours, 65_536)
        assert b"An address changes in" in shown
        process.send_signal(signal.SIGINT)
        # A terminal that nobody reads would hold the last lines, and the process with them.
        while process.poll() is None:
            try:
                os.read(ours, 65_536)
            except OSError:
                break
        _, err = process.communicate(timeout=DEADLINE)
    os.close(ours)
    assert (process.returncode, err) == (0, "")


def test_once_that_is_stopped_midway_has_not_passed() -> None:
    with start("--once", "--change-after", "600", "--listen", str(closed_port())) as process:
        assert process.stdout is not None
        read_until(process.stdout, "status page")
        code, err = finish(process, signal.SIGTERM)
    assert (code, len(err.splitlines())) == (1, 1)
    assert "stopped before every check" in err
