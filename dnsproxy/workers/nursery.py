"""The process that makes workers by fork.

Measured for one idle worker: forked here it has 6.6 MB of its own and is up in 15 ms, as a
new interpreter 29.5 MB and 0.5 s. A fork also runs the code and settings that the program was
started with, whatever an upgrade has done to the files since. It cannot be done in the control
process once that has threads, and so it is done here, where there is never more than one.

Nobody is left behind: the kernel kills a worker when the nursery ends, and the nursery when the
control process ends (PR_SET_PDEATHSIG). That needs no cooperation, so that it holds for a worker that
hangs as well; the end of the socket pair, which each also watches, would not.
"""

from __future__ import annotations

import ctypes
import errno
import gc
import os
import signal
import socket
import struct
import traceback
from collections.abc import Callable
from typing import NoReturn

from dnsproxy import children, output
from dnsproxy.errors import WorkerError

Work = Callable[[int, socket.socket], int]
"""What worker ``number`` does until its end, with its end of the socket pair; returns the exit code."""

# What to do, with which process, and for a start the number of the worker that it is to be.
_MESSAGE = struct.Struct("!iii")
_ENDED = struct.Struct("!ii")
_START, _END = 0, 1
_NO_FORK = -1  # in place of a status
# What this host may be short of; the nursery is still there.
_SHORT = frozenset({errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM, errno.ETOOMANYREFS})
_SET_PDEATHSIG, _SET_NAME = 1, 15  # prctl(2)


class Nursery:
    """The control process's side; makes the process, so no thread and no loop may exist yet."""

    def __init__(self, work: Work, before: Callable[[], None] = lambda: None) -> None:
        """Make the process; it first calls ``before``, to give up what workers must not have."""
        self.sock, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        control = os.getpid()
        # What is buffered would be written by each process that has a copy, and its thread must not be there.
        output.flush()
        self._pid = os.fork()
        if self._pid == 0:
            self.sock.close()
            _in_child("dnsproxy-nurse", control, lambda: _nurse(theirs, work), before)
        children.OWN.add(self._pid)
        theirs.close()

    def start_worker(self, process: int, number: int) -> socket.socket:
        """Have ``process`` made, as worker ``number``; return this process's end of the socket pair to it.

        Raises:
            WorkerError: the nursery has gone.
            OSError: this host has no descriptor or buffer left.
        """
        ours, theirs = socket.socketpair()
        try:
            socket.send_fds(self.sock, [_MESSAGE.pack(_START, process, number)], [theirs.fileno()])
        except OSError as exc:
            ours.close()
            if exc.errno in _SHORT:
                raise
            raise _gone(exc) from exc
        finally:
            theirs.close()
        return ours

    def end_worker(self, process: int) -> None:
        """Kill ``process`` if it still runs; `ended` then tells how it ended.

        Raises:
            WorkerError: the nursery has gone.
        """
        try:
            self.sock.send(_MESSAGE.pack(_END, process, 0))
        except OSError as exc:
            raise _gone(exc) from exc

    def ended(self) -> tuple[int, str]:
        """Read from ``sock`` which process has ended, and how.

        Raises:
            WorkerError: the nursery has gone.
        """
        try:
            message = self.sock.recv(_ENDED.size)
        except OSError as exc:
            raise _gone(exc) from exc
        if not message:
            raise _gone(None)
        process, status = _ENDED.unpack(message)
        return process, _ending(status)

    def close(self) -> None:
        """End the nursery, and with it every worker that still runs."""
        if self._pid:
            self.sock.close()
            pid, self._pid = self._pid, 0
            os.waitpid(pid, 0)
            children.OWN.discard(pid)


def _gone(cause: OSError | None) -> WorkerError:
    detail = f": {cause.strerror}" if cause else ""
    return WorkerError(f"the process that starts workers has gone{detail}")


def _ending(status: int) -> str:
    if status == _NO_FORK:
        return "not started: the system has no memory or process left"
    code = os.waitstatus_to_exitcode(status)
    return f"killed by {signal.Signals(-code).name}" if code < 0 else f"exit code {code}"


def _nurse(requests: socket.socket, work: Work) -> int:
    """Serve requests until the control process closes its end."""
    # What exists now stays: a collector that touches it would unshare its pages with the workers.
    gc.collect()
    gc.freeze()
    nursery = os.getpid()
    pids: dict[int, int] = {}
    while True:
        message, fds, _, _ = socket.recv_fds(requests, _MESSAGE.size, 1)
        if not message:
            return 0
        action, process, number = _MESSAGE.unpack(message)
        if action == _START:
            with socket.socket(fileno=fds[0]) as end:
                try:
                    pid = os.fork()
                except OSError:
                    # The control process tries again later; the other workers must not end for it.
                    requests.send(_ENDED.pack(process, _NO_FORK))
                    continue
                if pid == 0:
                    requests.close()
                    _in_child(f"dnsproxy-w{number}", nursery, lambda: work(number, end))  # noqa: B023 - called at once
            pids[process] = pid
        elif process in pids:
            # Until it is waited for, its id is nobody else's; one that has ended by itself keeps its status.
            pid = pids.pop(process)
            os.kill(pid, signal.SIGKILL)
            _, status = os.waitpid(pid, 0)
            requests.send(_ENDED.pack(process, status))


def _in_child(
    name: str, parent: int, run: Callable[[], int], before: Callable[[], None] = lambda: None
) -> NoReturn:
    """Run the child's part and end; never return to what the parent was doing."""
    code = 1
    try:
        # The control process decides when and in which order all end, also when a terminal or
        # a service manager signals the whole group.
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
            signal.signal(number, signal.SIG_IGN)
        # First of all, for the kernel forgets PR_SET_PDEATHSIG when the user changes.
        before()
        prctl = ctypes.CDLL(None, use_errno=True).prctl
        prctl(_SET_NAME, name.encode())
        prctl(_SET_PDEATHSIG, signal.SIGKILL)
        # The parent may have ended before the kernel was told.
        if os.getppid() == parent:
            code = run()
    except BaseException:  # noqa: BLE001 - nothing may leave: above are the parent's frames
        traceback.print_exc()
    finally:
        output.flush()
        os._exit(code)
