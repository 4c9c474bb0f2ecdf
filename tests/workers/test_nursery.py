"""The nursery in a process of its own: forking is nothing for a test runner with threads."""

from __future__ import annotations

import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

from tests.e2e.processes import run_command, wait_for

HEAD = """
import os, signal, socket, sys, time
from dnsproxy.errors import WorkerError
from dnsproxy.workers.nursery import Nursery

def work(number, sock):
    sock.send(str(os.getpid()).encode())
    while word := sock.recv(100):
        if word == b"hang":
            signal.pause()
        elif word == b"fail":
            raise RuntimeError("no such luck")
        else:
            return int(word)
    return 0

def started(number):
    sock = nursery.start_worker(number, number)
    return sock, int(sock.recv(100))

def ended():
    nursery.sock.setblocking(True)
    return nursery.ended()

nursery = Nursery(work)
"""


def run(body: str) -> subprocess.CompletedProcess[str]:
    program = HEAD + textwrap.dedent(body)
    return run_command(sys.executable, "-c", program, deadline=60)


def is_running(pid: int) -> bool:
    try:
        state = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8").rpartition(")")[2].split()[0]
    except OSError:
        return False
    return state not in {"Z", "X"}


def test_how_a_worker_ended_is_told() -> None:
    done = run(
        """
        for word in ("0", "3", "fail"):
            sock, pid = started(1)
            sock.send(word.encode())
            assert sock.recv(1) == b"", "its end is the end of the socket pair"
            nursery.end_worker(1)
            print(*ended())
        nursery.close()
        """
    )
    assert done.stdout.splitlines() == ["1 exit code 0", "1 exit code 3", "1 exit code 1"]
    assert "RuntimeError: no such luck" in done.stderr


def test_a_worker_that_hangs_is_killed_and_the_others_are_not() -> None:
    done = run(
        """
        (one, pid), (two, other) = started(1), started(2)
        one.send(b"hang")
        os.kill(pid, signal.SIGTERM)
        os.kill(pid, signal.SIGINT)
        nursery.end_worker(1)
        print(*ended())
        nursery.end_worker(1)
        two.send(b"7")
        nursery.end_worker(2) if two.recv(1) == b"" else None
        print(*ended())
        nursery.close()
        """
    )
    assert done.stdout.splitlines() == ["1 killed by SIGKILL", "2 exit code 7"], done.stderr


def test_closing_the_nursery_ends_every_worker() -> None:
    done = run(
        """
        (one, pid), (two, other) = started(1), started(2)
        one.send(b"hang")
        nursery.close()
        nursery.close()
        print(pid, other)
        """
    )
    assert done.returncode == 0, done.stderr
    pids = [int(word) for word in done.stdout.split()]
    assert len(pids) == 2
    wait_for(lambda: not any(map(is_running, pids)), "no worker runs", deadline=20)


@pytest.mark.parametrize("stopped", [False, True], ids=["running", "stopped"])
def test_nobody_is_left_when_the_control_process_is_killed(stopped: bool) -> None:
    done = run(
        f"""
        (one, pid), (two, other) = started(1), started(2)
        one.send(b"hang")
        nurse = int(open(f"/proc/{{pid}}/stat").read().rpartition(")")[2].split()[1])
        print(pid, other, nurse, flush=True)
        for number in (pid, nurse) if {stopped} else ():
            os.kill(number, signal.SIGSTOP)
        os.kill(os.getpid(), signal.SIGKILL)
        """
    )
    pids = [int(word) for word in done.stdout.split()]
    assert len(pids) == 3, done.stderr
    wait_for(lambda: not any(map(is_running, pids)), "no worker runs", deadline=20)


def test_a_nursery_that_has_gone_is_said() -> None:
    done = run(
        """
        one, pid = started(1)
        nurse = int(open(f"/proc/{pid}/stat").read().rpartition(")")[2].split()[1])
        os.kill(nurse, signal.SIGKILL)
        assert one.recv(1) == b"", "its workers end with it"
        for act in (lambda: nursery.start_worker(2, 2), lambda: nursery.end_worker(1), ended):
            try:
                act()
            except WorkerError as exc:
                print(str(exc).partition(":")[0])
        nursery.close()
        """
    )
    assert done.stdout.splitlines() == ["the process that starts workers has gone"] * 3, done.stderr


def test_what_was_printed_before_is_printed_once() -> None:
    done = run(
        """
        import io
        print("before", end=" ")
        nursery2 = Nursery(work)
        sock = nursery2.start_worker(1, 1)
        sock.recv(100)
        sock.send(b"0")
        sock.recv(1)
        nursery2.close()
        nursery.close()
        """
    )
    assert done.stdout == "before ", done.stderr


def test_processes_are_named() -> None:
    done = run(
        """
        one, pid = started(12)
        nurse = open(f"/proc/{pid}/stat").read().rpartition(")")[2].split()[1]
        print(open(f"/proc/{pid}/comm").read().strip(), open(f"/proc/{nurse}/comm").read().strip())
        nursery.close()
        """
    )
    assert done.stdout.split() == ["dnsproxy-w12", "dnsproxy-nurse"], done.stderr


def test_a_fork_that_fails_ends_nobody() -> None:
    done = run(
        """
        nursery.close()
        fork, calls = os.fork, []

        def seldom():
            calls.append(1)
            if len(calls) == 3:
                raise OSError(11, "Resource temporarily unavailable")
            return fork()

        os.fork = seldom
        nursery = Nursery(work)
        one, pid = started(1)
        failed = nursery.start_worker(2, 2)
        assert failed.recv(1) == b""
        nursery.end_worker(2)
        print(*ended())
        two, other = started(2)
        one.send(b"5")
        assert one.recv(1) == b""
        nursery.end_worker(1)
        print(*ended())
        nursery.close()
        """
    )
    assert done.stdout.splitlines() == [
        "2 not started: the system has no memory or process left",
        "1 exit code 5",
    ], done.stderr


def test_two_processes_of_one_worker_are_told_apart() -> None:
    done = run(
        """
        one, two = nursery.start_worker(7, 1), nursery.start_worker(8, 1)
        pids = [int(sock.recv(100)) for sock in (one, two)]
        print(*(open(f"/proc/{pid}/comm").read().strip() for pid in pids))
        one.send(b"5")
        assert one.recv(1) == b""
        nursery.end_worker(7)
        print(*ended())
        two.send(b"6")
        assert two.recv(1) == b""
        nursery.end_worker(8)
        print(*ended())
        nursery.close()
        """
    )
    expected = ["dnsproxy-w1 dnsproxy-w1", "7 exit code 5", "8 exit code 6"]
    assert done.stdout.splitlines() == expected, done.stderr


def test_what_is_given_up_is_given_up_before_the_first_worker() -> None:
    done = run(
        """
        nursery.close()
        given_up = []
        nursery = Nursery(lambda number, sock: 5 + len(given_up), lambda: given_up.append(1))
        sock = nursery.start_worker(1, 1)
        sock.recv(1)
        nursery.end_worker(1)
        print(*ended(), given_up)
        nursery.close()
        """
    )
    assert done.stdout.splitlines() == ["1 exit code 6 []"], done.stderr
