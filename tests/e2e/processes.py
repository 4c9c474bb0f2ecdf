"""Programs that a test starts, watches and stops, and the ports that they listen on."""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from pathlib import Path
from random import SystemRandom
from typing import Any, TypeVar

from tests.e2e import forkserver

T = TypeVar("T")

ROOT = Path(__file__).resolve().parents[2]
# Debian keeps servers where only root's PATH looks.
PATH = os.pathsep.join([os.environ.get("PATH", os.defpath), "/usr/sbin", "/sbin"])
# Below the range that Linux takes source ports from: nobody is given one of
# these between the moment it is found free and the moment a program binds it.
PORTS = range(12_000, 32_000)
# Seconds. Nothing here takes long; a machine that runs other things besides may.
DEADLINE = 30.0
COMMAND_DEADLINE = 30.0


def wait_for(condition: Callable[[], T | None], what: str, deadline: float = DEADLINE) -> T:
    """Return the first true value of ``condition``; after ``deadline`` seconds the test fails."""
    end = time.monotonic() + deadline
    while True:
        value = condition()
        if value:
            return value
        if time.monotonic() > end:
            raise AssertionError(f"still not after {deadline:g} s: {what}; last: {value!r}")
        time.sleep(0.05)


def find_program(name: str) -> str | None:
    return shutil.which(name, path=PATH)


def has_ipv6() -> bool:
    try:
        with socket.socket(socket.AF_INET6, socket.SOCK_DGRAM) as sock:
            sock.bind(("::1", 0))
    except OSError:
        return False
    return True


class Ports:
    """Ports free for UDP and TCP on every loopback address, kept from other test runs until `release`."""

    def __init__(self) -> None:
        self._reservations = ExitStack()

    def take(self) -> int:
        random = SystemRandom()
        while True:
            port = random.choice(PORTS)
            if self._reserve(port) and _is_free(port):
                return port

    def _reserve(self, port: int) -> bool:
        sock = socket.socket(socket.AF_UNIX)
        self._reservations.callback(sock.close)
        try:
            # An abstract name (unix(7)): exclusive on this machine, and gone with the process.
            sock.bind(f"\0dnsproxy-e2e-{port}")
        except OSError:
            return False
        return True

    def release(self) -> None:
        self._reservations.close()


def _is_free(port: int) -> bool:
    hosts = [(socket.AF_INET, "127.0.0.1")]
    if has_ipv6():
        hosts.append((socket.AF_INET6, "::1"))
    with ExitStack() as stack:
        for family, host in hosts:
            for kind in (socket.SOCK_DGRAM, socket.SOCK_STREAM):
                sock = stack.enter_context(socket.socket(family, kind))
                try:
                    sock.bind((host, port))
                except OSError:
                    return False
    return True


def accepts(port: int) -> bool:
    """Tell whether something on 127.0.0.1 takes TCP connections on ``port``."""
    try:
        socket.create_connection(("127.0.0.1", port), timeout=1).close()
    except OSError:
        return False
    return True


def dnsproxy_argv(*arguments: str | Path) -> list[str]:
    return [*forkserver.DNSPROXY, *map(str, arguments)]


def environment() -> dict[str, str]:
    kept = {key: value for key, value in os.environ.items() if not key.startswith("DNSPROXY_")}
    # Plain text at a fixed width, whatever the terminal that the tests run in.
    return kept | {"PATH": PATH, "PYTHONPATH": str(ROOT), "NO_COLOR": "1", "COLUMNS": "200"}


def run_command(*argv: str | Path, deadline: float = COMMAND_DEADLINE) -> subprocess.CompletedProcess[str]:
    """Run a program to its end; its exit code is for the caller to judge."""
    words = [str(word) for word in argv]
    command = forkserver.Command.from_argv(words)
    if command is not None:
        return forkserver.run(command, ROOT, environment(), deadline)
    return subprocess.run(
        words,
        capture_output=True,
        text=True,
        timeout=deadline,
        check=False,
        cwd=ROOT,
        env=environment(),
        stdin=subprocess.DEVNULL,
    )


class Process:
    """One program; its output of all runs is in ``log``. ``within`` comes before its words."""

    def __init__(self, name: str, argv: Sequence[str | Path], log: Path) -> None:
        self.name = name
        self.log = log
        self.within: Sequence[str] = ()
        self._argv = [str(word) for word in argv]
        self._process: subprocess.Popen[bytes] | forkserver.Forked | None = None

    def run_by(self, *words: str | Path) -> None:
        """Put ``words`` before the program from the next start on, such as ``prlimit --nofile=40``."""
        self._argv[:0] = map(str, words)

    @property
    def pid(self) -> int:
        """Its process id, while it runs and until it is started again."""
        assert self._process is not None
        return self._process.pid

    def start(self, is_up: Callable[[], bool]) -> None:
        """Start and wait until ``is_up``."""
        assert not self.alive, f"{self.name} runs already"
        with self.log.open("ab") as log:
            argv = [*self.within, *self._argv]
            command = forkserver.Command.from_argv(argv)
            if command is not None:
                self._process = forkserver.Forked(command, ROOT, environment(), log.fileno(), log.fileno())
            else:
                self._process = subprocess.Popen(
                    argv,
                    stdin=subprocess.DEVNULL,
                    stdout=log,
                    stderr=subprocess.STDOUT,
                    cwd=ROOT,
                    env=environment(),
                )
        wait_for(lambda: is_up() or not self.alive, f"{self.name} is up")
        assert self.alive, f"{self.name} ended at once:\n{self.text()}"

    @property
    def alive(self) -> bool:
        return self._process is not None and self._process.poll() is None

    def signal(self, number: signal.Signals) -> None:
        assert self._process is not None
        self._process.send_signal(number)

    def stop(self, deadline: float = DEADLINE) -> int:
        """Ask it to end, and return its exit code; the test fails after ``deadline`` seconds."""
        self.signal(signal.SIGTERM)
        return self.wait(deadline)

    def wait(self, deadline: float = DEADLINE) -> int:
        """Return the exit code once it has ended; the test fails after ``deadline`` seconds."""
        assert self._process is not None
        return self._process.wait(deadline)

    def kill(self) -> None:
        """End it without asking, if it runs."""
        if self._process is not None:
            self._process.kill()
            self._process.wait(DEADLINE)

    def text(self) -> str:
        return self.log.read_text(encoding="utf-8", errors="replace") if self.log.exists() else ""

    def events(self, *events: str) -> list[dict[str, Any]]:
        """Return the JSON log lines of those names, oldest first, but for one that is being written."""
        whole = self.text().rpartition("\n")[0]
        lines = [line for line in whole.splitlines() if line.startswith("{")]
        return [entry for entry in map(json.loads, lines) if entry["event"] in events]
