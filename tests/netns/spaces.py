"""Network namespaces of one test run: made, joined and removed here, and nothing else of the machine touched.

Every pair of interfaces is born inside two namespaces, so that the machine's
own namespace never sees one. Names hold the id of the process that made them:
runs go in parallel, and a run that was killed is cleared away by the next one.
"""

from __future__ import annotations

import os
import re
import secrets
import shutil
import signal
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Self

from tests.e2e.processes import run_command

# ip-netns(8) shows each file of /etc/netns/NAME in place of its namesake in /etc.
FILES = Path("/etc/netns")
_NAME = re.compile(r"dnsproxy-test-(\d+)-[0-9a-f]{6}-\w+")


class SpaceError(Exception):
    """Namespaces cannot be made here; the text says why."""


def ip(*words: str) -> str:
    """Run ``ip`` in the machine's own namespace. Raises `SpaceError` when it fails."""
    done = run_command("ip", *words)
    if done.returncode != 0:
        raise SpaceError(f"`ip {' '.join(words)}` failed: {done.stderr.strip() or done.stdout.strip()}")
    return done.stdout


class Space:
    """One namespace, with files of its own in place of /etc/hosts, nsswitch.conf and resolv.conf."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.label = name.rpartition("-")[2]
        self._files = FILES / name
        self._files.mkdir(parents=True)
        self.write("hosts", "127.0.0.1 localhost")
        # What the machine asks besides DNS (mdns, resolved) must not answer here.
        self.write("nsswitch.conf", "passwd: files", "group: files", "hosts: files dns")
        # Nobody, until the test says whom to ask.
        self.write("resolv.conf", "nameserver 127.0.0.1")
        ip("netns", "add", name)
        self.ip("link", "set", "lo", "up")

    def write(self, file: str, *lines: str) -> Path:
        """Give ``/etc/FILE`` of this namespace these lines, also for programs that run already."""
        path = self._files / file
        # In place: programs that run have the file itself mounted, not its name.
        path.write_text("".join(f"{line}\n" for line in lines))
        return path

    def read(self, file: str) -> str:
        return (self._files / file).read_text()

    def within(self, *words: str | Path) -> list[str]:
        """Return the argument list that runs ``words`` in this namespace; its process is theirs."""
        return ["ip", "netns", "exec", self.name, *map(str, words)]

    def ip(self, *words: str) -> None:
        """Run ``ip`` on this namespace. Raises `SpaceError` when it fails."""
        ip("-n", self.name, *words)

    def set_address(self, device: str, *addresses: str) -> None:
        for address in addresses:
            self.ip("address", "add", address, "dev", device)

    def set_route(self, gateway: str, *ranges: str) -> None:
        for target in ranges:
            self.ip("route", "replace", target, "via", gateway)

    def drop_route(self, target: str) -> None:
        self.ip("route", "delete", target)

    def lose_packets(self, target: str) -> None:
        """Throw away what goes there, and tell nobody."""
        self.ip("route", "replace", "blackhole", target)

    def listens(self, address: str, port: int) -> bool:
        """Tell whether a program in here takes TCP connections there."""
        return bool(run_command(*self.within("ss", "-Hltn", "src", f"{address}:{port}")).stdout.strip())

    def forward(self) -> None:
        """Let it pass on packets that are not its own: a router."""
        done = run_command(*self.within("sh", "-c", "echo 1 >/proc/sys/net/ipv4/ip_forward"))
        if done.returncode != 0:
            raise SpaceError(f"{self.name} cannot be made a router: {done.stderr.strip()}")


class Spaces:
    """A set of namespaces that ends with its context, together with every process in them."""

    def __init__(self) -> None:
        self._prefix = f"dnsproxy-test-{os.getpid()}-{secrets.token_hex(3)}"
        self._names: list[str] = []

    def __enter__(self) -> Self:
        _clear(_forsaken())
        return self

    def __exit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, trace: TracebackType | None
    ) -> None:
        _clear(self._names)

    def add(self, label: str) -> Space:
        """Make one more. Raises `SpaceError` where that is not possible."""
        name = f"{self._prefix}-{label}"
        self._names.append(name)
        return Space(name)

    @staticmethod
    def join(left: Space, right: Space) -> None:
        """Lay a cable. Each end is named after the other side."""
        left.ip("link", "add", right.label, "type", "veth", "peer", "name", left.label, "netns", right.name)
        left.ip("link", "set", right.label, "up")
        right.ip("link", "set", left.label, "up")


def refusal() -> str | None:
    """Try to make, use and remove a namespace; return why that is not possible, or `None`."""
    try:
        with Spaces() as spaces:
            left, right = spaces.add("left"), spaces.add("right")
            spaces.join(left, right)
            left.forward()
    except (SpaceError, OSError) as error:
        return str(error)
    return None


def _forsaken() -> list[str]:
    """Return the names left behind by test runs whose process is gone."""
    found = {match[0]: int(match[1]) for match in map(_NAME.fullmatch, _known()) if match}
    return [name for name, pid in found.items() if not Path(f"/proc/{pid}").exists()]


def _known() -> set[str]:
    folders = {path.name for path in FILES.iterdir()} if FILES.is_dir() else set()
    return folders | {line.split()[0] for line in ip("netns", "list").splitlines() if line.strip()}


def _clear(names: Sequence[str]) -> None:
    for name in names:
        # By their numbers, and only those that live in this namespace.
        for pid in run_command("ip", "netns", "pids", name).stdout.split():
            with suppress(ProcessLookupError):
                os.kill(int(pid), signal.SIGKILL)
        run_command("ip", "netns", "delete", name)
        shutil.rmtree(FILES / name, ignore_errors=True)
