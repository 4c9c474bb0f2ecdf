"""Starts `dnsproxy` commands by a fork of a process that has imported the program already.

Python imports the program in about 1 s of processor time, and the tests start some thousand processes.
Whatever starts `dnsproxy` by another program than ``ip netns exec`` and ``env``, or from a thread in another
namespace, imports it again.
"""

from __future__ import annotations

import atexit
import ctypes
import gc
import importlib
import json
import os
import pkgutil
import runpy
import select
import signal
import socket
import struct
import subprocess
import sys
import threading
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final, NamedTuple, Self

# Longer than any configuration path and environment.
_MESSAGE: Final = 1 << 17
_NUMBER: Final = struct.Struct("i")
_CLONE_NEWNET: Final = 0x40000000
_CLONE_NEWNS: Final = 0x20000
_MS_BIND, _MS_REC, _MS_SLAVE, _MNT_DETACH = 1 << 12, 1 << 14, 1 << 19, 2

_ARGUMENTS: Final = 4096
_NETWORK: Final = Path("/proc/thread-self/ns/net")
# The network namespace of the fork server: that of this process, where a thread may have left it.
_network = Path("/proc/self/ns/net").readlink()

DNSPROXY = [sys.executable, "-m", "dnsproxy"]
_lock = threading.Lock()
_servers: list[tuple[int, socket.socket]] = []


class Command(NamedTuple):
    """``python -m dnsproxy`` with ``arguments`` and more of an environment, perhaps in a namespace."""

    arguments: list[str]
    environment: dict[str, str]
    namespace: str | None

    @classmethod
    def from_argv(cls, argv: Sequence[str]) -> Self | None:
        """Return what ``argv`` runs if the fork server can, or None."""
        words, environment, namespace = list(argv), {}, None
        if words[:3] == ["ip", "netns", "exec"]:
            namespace, words = words[3], words[4:]
        if words[:1] == ["env"]:
            words = words[1:]
            while "=" in words[0]:
                name, _, environment[name] = words.pop(0).partition("=")
        # The dynamic linker reads its variables when a program starts.
        is_linked_anew = any(name.startswith("LD_") for name in environment)
        if words[: len(DNSPROXY)] != DNSPROXY or is_linked_anew or _NETWORK.readlink() != _network:
            return None
        return cls(words[len(DNSPROXY) :], environment, namespace)


class Forked:
    """A process with the methods of `subprocess.Popen` that the tests use. Its parent is the fork server."""

    def __init__(
        self, command: Command, folder: Path, env: Mapping[str, str], stdout: int, stderr: int
    ) -> None:
        self.args = command.arguments
        self.returncode: int | None = None
        self._exit, theirs = os.pipe()
        order = json.dumps([*command, str(folder), dict(env)]).encode()
        with open(os.devnull, "rb") as nothing:  # noqa: PTH123 - not a file
            descriptors = [nothing.fileno(), stdout, stderr, theirs]
            socket.send_fds(_connection(), [order], descriptors)
        os.close(theirs)
        self.pid = self._read()

    def poll(self) -> int | None:
        """Return its exit code, the negative number of a signal, or None while it runs."""
        if self.returncode is None and select.select([self._exit], [], [], 0)[0]:
            self._end()
        return self.returncode

    def wait(self, timeout: float | None = None) -> int:
        """Return its exit code once it has ended.

        Raises:
            subprocess.TimeoutExpired: it still runs after ``timeout`` seconds.
        """
        if self.returncode is None:
            if not select.select([self._exit], [], [], timeout)[0]:
                raise subprocess.TimeoutExpired(self.args, timeout or 0.0)
            self._end()
        assert self.returncode is not None
        return self.returncode

    def _end(self) -> None:
        self.returncode = self._read()
        os.close(self._exit)

    def _read(self) -> int:
        (number,) = _NUMBER.unpack(os.read(self._exit, _NUMBER.size))
        return int(number)

    def send_signal(self, number: signal.Signals) -> None:
        """Send it a signal, if it runs."""
        if self.poll() is None:
            os.kill(self.pid, number)

    def kill(self) -> None:
        """End it without asking, if it runs."""
        self.send_signal(signal.SIGKILL)


def run(
    command: Command, folder: Path, env: Mapping[str, str], deadline: float
) -> subprocess.CompletedProcess[str]:
    """Run a command to its end.

    Raises:
        subprocess.TimeoutExpired: it still ran after ``deadline`` seconds, and has been killed.
    """
    with (
        os.fdopen(os.memfd_create("stdout"), "rb") as stdout,
        os.fdopen(os.memfd_create("stderr"), "rb") as stderr,
    ):
        forked = Forked(command, folder, env, stdout.fileno(), stderr.fileno())
        try:
            code = forked.wait(deadline)
        finally:
            forked.kill()
        texts = []
        for file in (stdout, stderr):
            file.seek(0)
            texts.append(file.read().decode())
    return subprocess.CompletedProcess(command.arguments, code, *texts)


def _connection() -> socket.socket:
    """Return the socket of this process's fork server, which is started at the first call."""
    with _lock:
        if not _servers or _servers[0][0] != os.getpid():
            ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
            from tests.e2e.processes import ROOT, environment  # noqa: PLC0415 - it imports this module

            with theirs:
                server = subprocess.Popen(
                    # With room for the arguments of the forks.
                    [sys.executable, "-m", "tests.e2e.forkserver", str(theirs.fileno()), "-" * _ARGUMENTS],
                    stdin=subprocess.DEVNULL,
                    cwd=ROOT,
                    env=environment(),
                    pass_fds=[theirs.fileno()],
                )
            _servers[:] = [(os.getpid(), ours)]
            atexit.register(_stop, os.getpid(), server)
        return _servers[0][1]


def _stop(owner: int, server: subprocess.Popen[bytes]) -> None:
    if owner == os.getpid():
        _servers[0][1].close()
        server.wait(10)


# --- the server -------------------------------------------------------------------


def _import_all() -> None:
    import dnsproxy  # noqa: PLC0415 - of the server alone

    for module in pkgutil.walk_packages(dnsproxy.__path__, "dnsproxy."):
        if not module.name.endswith(("__main__", "_syscalls")):
            importlib.import_module(module.name)


def _serve(connection: socket.socket) -> None:
    """Fork for each message, and write pid and exit code to its fourth descriptor, until EOF.

    It returns in the forks, with the arguments of the command in ``sys.argv``.
    """
    running: dict[int, tuple[int, int]] = {}
    while True:
        ready = select.select([connection.fileno(), *running], [], [])[0]
        for pidfd in ready:
            if pidfd in running:
                pid, report = running.pop(pidfd)
                _, status = os.waitpid(pid, 0)
                os.write(report, _NUMBER.pack(os.waitstatus_to_exitcode(status)))
                os.close(report)
                os.close(pidfd)
        if connection.fileno() not in ready:
            continue
        message, descriptors, _, _ = socket.recv_fds(connection, _MESSAGE, 4)
        if not message:
            os._exit(0)
        pid = os.fork()
        if pid == 0:
            for pidfd, (_, report) in running.items():
                os.close(pidfd)
                os.close(report)
            connection.close()
            _become(json.loads(message), descriptors)
            return
        for descriptor in descriptors[:3]:
            os.close(descriptor)
        running[os.pidfd_open(pid)] = pid, descriptors[3]
        os.write(descriptors[3], _NUMBER.pack(pid))


def _become(order: list[Any], descriptors: Sequence[int]) -> None:
    arguments, environment, namespace, folder, env = order
    for target, descriptor in enumerate(descriptors[:3]):
        os.dup2(descriptor, target)
    for descriptor in descriptors:
        os.close(descriptor)
    os.environ.clear()
    os.environ.update(env | environment)
    time.tzset()
    os.chdir(folder)
    if namespace is not None:
        _enter(namespace)
    sys.argv = ["dnsproxy", *arguments]
    _show([*DNSPROXY, *arguments])


def _show(argv: Sequence[str]) -> None:
    """Let ``argv`` be the command line that ps(1) shows of this process."""
    fields = Path("/proc/self/stat").read_text(encoding="utf-8").rpartition(")")[2].split()
    start, end = map(int, fields[45:47])  # arg_start and arg_end of proc(5)
    ctypes.memmove(start, "\0".join(argv).encode()[: end - start - 1].ljust(end - start, b"\0"), end - start)


def _enter(namespace: str) -> None:
    """Do what ``ip netns exec`` does (ip-netns(8)): the namespace has its own /sys and files of /etc."""
    with Path("/run/netns", namespace).open("rb") as file:
        _call("setns", file.fileno(), _CLONE_NEWNET)
    _call("unshare", _CLONE_NEWNS)
    _call("mount", b"", b"/", b"none", _MS_SLAVE | _MS_REC, None)
    _call("umount2", b"/sys", _MNT_DETACH)
    _call("mount", namespace.encode(), b"/sys", b"sysfs", 0, None)
    files = Path("/etc/netns", namespace)
    for path in files.iterdir() if files.is_dir() else ():
        _call("mount", bytes(path), bytes(Path("/etc", path.name)), b"none", _MS_BIND, None)


def _call(name: str, *arguments: object) -> None:
    if ctypes.CDLL(None, use_errno=True)[name](*arguments):
        raise OSError(ctypes.get_errno(), f"{name}: {os.strerror(ctypes.get_errno())}")


def _main() -> None:
    connection = socket.socket(fileno=int(sys.argv[1]))
    _import_all()
    gc.collect()
    gc.freeze()
    _serve(connection)
    # As `python -m dnsproxy` does.
    runpy.run_module("dnsproxy", run_name="__main__", alter_sys=True)


if __name__ == "__main__":
    _main()
