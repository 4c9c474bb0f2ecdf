"""A service manager in miniature, and a load of queries."""

from __future__ import annotations

import os
import re
import select
import signal
import socket
import subprocess
import sys
from collections.abc import Mapping, Sequence
from types import TracebackType
from typing import Self

from tests.e2e.processes import DEADLINE, environment, find_program, wait_for
from tests.e2e.world import OTHER, World

# Puts descriptors where a service manager puts them (sd_listen_fds(3)), and becomes the program.
LAUNCH = """
import fcntl, os, sys
high = [fcntl.fcntl(int(word), fcntl.F_DUPFD, 100) for word in sys.argv[1].split(",") if word]
for index, descriptor in enumerate(high):
    os.dup2(descriptor, 3 + index)
if high:
    os.environ.update(LISTEN_PID=str(os.getpid()), LISTEN_FDS=str(len(high)))
os.execv(sys.argv[2], sys.argv[2:])
"""


class Manager:
    """Starts ``dnsproxy serve`` with ``sockets``, which stay open over restarts, and hears what it says."""

    def __init__(self, world: World, sockets: Sequence[socket.socket] = (), **variables: str) -> None:
        self.log = world.folder / "managed.log"
        self._world = world
        self._sockets = sockets
        self._variables = variables
        self._notices = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        # Abstract, as within containers; and whoever the proxy becomes may not look into the world's folder.
        self._notices.bind(f"\0dnsproxy-e2e-notify-{world.dns_port}")
        self._address = f"@dnsproxy-e2e-notify-{world.dns_port}"
        self._process: subprocess.Popen[bytes] | None = None
        self.heard: list[list[str]] = []

    def start(self, wrapper: Sequence[str] = (), *, wait: bool = True) -> None:
        """Start it, and wait until it says that it is ready."""
        descriptors = [sock.fileno() for sock in self._sockets]
        command = ["-m", "dnsproxy", "serve", "--config", str(self._world.config)]
        listed = ",".join(map(str, descriptors))
        with self.log.open("ab") as log:
            self._process = subprocess.Popen(
                [*wrapper, sys.executable, "-c", LAUNCH, listed, sys.executable, *command],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                env={**environment(), "NOTIFY_SOCKET": self._address, **self._variables},
                pass_fds=descriptors,
            )
        if wait:
            self.wait_for("READY=1")

    def wait_for(self, line: str) -> list[str]:
        """Return the next notice that has ``line``; those before it are in ``heard``."""
        while True:
            ready, _, _ = select.select([self._notices], [], [], DEADLINE)
            assert ready, f"no {line}; heard {self.heard}\n{self.text()}"
            notice = self._notices.recv(4096).decode().split("\n")
            self.heard.append(notice)
            if line in notice:
                return notice

    def forget(self) -> None:
        """Pass over what was said until now."""
        while select.select([self._notices], [], [], 0)[0]:
            self._notices.recv(4096)
        self.heard.clear()

    @property
    def pid(self) -> int:
        assert self._process is not None
        return self._process.pid

    def signal(self, number: signal.Signals) -> None:
        os.kill(self.pid, number)

    def wait(self) -> int:
        assert self._process is not None
        return self._process.wait(DEADLINE)

    def restart(self) -> None:
        """As ``systemctl restart``: the next one starts when the last one has ended."""
        self.signal(signal.SIGTERM)
        assert self.wait() == 0
        self.start()

    def text(self) -> str:
        return self.log.read_text(encoding="utf-8", errors="replace")

    def count(self, event: str) -> int:
        return self.text().count(f'"event": "{event}"')

    def wait_logged(self, event: str, count: int = 1) -> None:
        wait_for(lambda: self.count(event) >= count, f"{event} is logged\n{self.text()}")

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._process is not None:
            self._process.kill()
            self._process.wait(DEADLINE)
        self._notices.close()
        print(f"--- managed\n{self.text()[-8_000:]}")  # noqa: T201 - captured, and shown when a test fails


class Load:
    """dnsperf at a steady rate for some seconds: owned names, cached ones, and many that are not cached."""

    def __init__(self, world: World, owned: str, *, rate: int = 2_000, seconds: int = 5) -> None:
        names = [owned, OTHER, owned, OTHER]
        lines = (f"{name} A\n" for number in range(2_000) for name in (*names, f"n{number}.example"))
        queries = world.folder / "queries"
        queries.write_text("".join(lines))
        self.expected = rate * seconds
        program = find_program("dnsperf")
        assert program is not None
        limits = ["-Q", str(rate), "-l", str(seconds), "-c", "20", "-T", "1", "-t", "10", "-q", "20000"]
        self._process = subprocess.Popen(
            [program, "-s", "127.0.0.1", "-p", str(world.dns_port), "-d", str(queries), *limits],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )

    def result(self) -> Mapping[str, int]:
        """Return ``sent``, ``completed``, ``lost``, and how many there were of each response code."""
        output, _ = self._process.communicate(timeout=60)
        counts = re.findall(r"Queries (sent|completed|lost): +([0-9]+)", output)
        found = {word: int(count) for word, count in counts}
        (codes,) = re.findall(r"Response codes: +(.*)", output)
        found |= {code: int(count) for code, count in re.findall(r"([A-Z]+) ([0-9]+)", codes)}
        return found

    def check(self) -> int:
        """See that every query was answered, and with what is right for it; return how many there were."""
        found = self.result()
        assert found["sent"] == found["completed"], found
        assert found["lost"] == 0, found
        assert found["sent"] >= 0.5 * self.expected, "the load was no load"
        assert set(found) - {"sent", "completed", "lost"} == {"NOERROR", "NXDOMAIN"}, found
        return found["sent"]

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._process.kill()
        self._process.communicate()
