"""Load on a proxy, and a client that goes on asking for an owned name meanwhile."""

from __future__ import annotations

import re
import socket
import statistics
import subprocess
import sys
import threading
import time
from collections.abc import Iterable
from pathlib import Path
from types import TracebackType
from typing import Self

from tests.e2e.processes import run_command
from tests.e2e.world import ADDRESSES, REGISTRY
from tests.messages import addresses, query

# Seconds after which a stub resolver asks again, and how often it does.
RESEND, TRIES = 1.0, 20
_COMPLETED = re.compile(r"Queries completed: +(\d+)")


class Asker:
    """Asks 127.0.0.1 for an owned name over UDP, one query after the other, while its context lasts.

    ``seconds`` has how long each answer took, from the first query to the answer, with all that
    had to be asked again; ``again`` counts the latter. A wrong answer, or none after all tries, fails
    the test.
    """

    def __init__(self, port: int, name: str = REGISTRY) -> None:
        self.seconds: list[float] = []
        self.again = 0
        self._port = port
        self._name = name
        self._wrong: list[str] = []
        self._end = threading.Event()
        self._thread = threading.Thread(target=self._run)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._end.set()
        self._thread.join()
        if kind is None:
            assert self._wrong == []
            assert len(self.seconds) > 3, "hardly anything was asked"

    def _run(self) -> None:
        ident = 0
        while not self._end.is_set() and not self._wrong:
            ident = ident % 60_000 + 1
            self._ask(ident)
            self._end.wait(0.01)

    def _ask(self, ident: int) -> None:
        asked = query(f"{self._name}.", ident=ident)
        started = time.monotonic()
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
            sock.connect(("127.0.0.1", self._port))
            sock.settimeout(RESEND)
            for _ in range(TRIES):
                sock.send(asked)
                try:
                    data = sock.recv(4096)
                except TimeoutError:
                    self.again += 1
                    continue
                break
            else:
                self._wrong.append(f"no answer to {TRIES} queries")
                return
        if addresses(data) != [ADDRESSES[self._name]]:
            self._wrong.append(repr(data))
        self.seconds.append(time.monotonic() - started)

    def percentile(self, percent: int) -> float:
        """Return how long that part of the answers took at the most, in seconds."""
        return statistics.quantiles(self.seconds, n=100)[percent - 1]


def run_dnsperf(folder: Path, port: int, lines: Iterable[str], *options: str) -> int:
    """Send queries (``name type``) with dnsperf, as ``options`` say; return how many were answered."""
    file = folder / "queries.txt"
    with file.open("w") as out:
        out.writelines(f"{line}\n" for line in lines)
    argv = [
        "dnsperf",
        "-s",
        "127.0.0.1",
        "-p",
        str(port),
        "-d",
        str(file),
        "-O",
        "suppress=timeout",
        *options,
    ]
    # Ten million queries take a while.
    done = run_command(*argv, deadline=7000)
    found = _COMPLETED.search(done.stdout)
    assert found is not None, done.stdout + done.stderr
    return int(found[1])


_SENDER = """
import socket, sys, time
port, seconds = int(sys.argv[1]), float(sys.argv[2])
queries = [bytes.fromhex(line) for line in sys.stdin]
sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
sock.connect(("127.0.0.1", port))
sock.setblocking(False)
end, sent = time.monotonic() + seconds, 0
while time.monotonic() < end:
    for query in queries:
        try:
            sock.send(query)
        except OSError:
            continue
        sent += 1
print(sent)
"""


class Flood:
    """A client that sends queries as fast as one process can, for so many seconds, and reads no answer."""

    def __init__(self, port: int, queries: Iterable[bytes], seconds: float) -> None:
        argv = [sys.executable, "-c", _SENDER, str(port), str(seconds)]
        self._process = subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        assert self._process.stdin is not None
        self._process.stdin.write("".join(f"{data.hex()}\n" for data in queries))
        self._process.stdin.close()
        self._process.stdin = None
        self._deadline = seconds + 120

    def wait(self) -> int:
        """Return how many were sent, once it has ended."""
        out, _ = self._process.communicate(timeout=self._deadline)
        return int(out)


def resident(pid: int) -> int:
    """Return the octets of memory that a process has in use."""
    text = Path(f"/proc/{pid}/status").read_text()
    return int(text.partition("VmRSS:")[2].split()[0]) * 1024


def descriptors(pid: int) -> int:
    """Return how many descriptors a process has open."""
    return sum(1 for _ in Path(f"/proc/{pid}/fd").iterdir())
