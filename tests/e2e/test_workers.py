"""``serve.workers: 2`` with real processes: who answers, who is told, and what is left when one is killed."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Self

import dns.message
import dns.query
import pytest

from tests.e2e.processes import dnsproxy_argv, environment, wait_for
from tests.e2e.test_commands import assert_one_line
from tests.e2e.world import ADDRESSES, OTHER, OTHER_ADDRESS, REGISTRY, World

pytestmark = pytest.mark.e2e

# Seconds. An idle machine needs a tenth of one.
END = 10.0
NEW_ADDRESS = "10.94.205.199"


@pytest.fixture
def doubled(world: World) -> World:
    """A world whose proxy has two workers, with every name learned."""
    world.configure(serve={"workers": 2})
    world.start()
    return world


@pytest.fixture
def bare(world: World) -> World:
    """Two workers that learn from nobody and forward to the world's upstream."""
    world.configure(serve={"workers": 2}, learn={"sources": []})
    world.upstream.start()
    world.start_proxy()
    return world


def workers(world: World) -> list[dict[str, Any]]:
    return list(world.admin("/api/v1/status").json()["workers"])


def pids(world: World) -> list[int]:
    return [worker["pid"] for worker in workers(world)]


def ask(world: World, name: str = REGISTRY, timeout: float = 2.0) -> str:
    """Ask once over UDP from a source port of its own; the first address of the answer, empty for none."""
    reply = dns.query.udp(dns.message.make_query(name, "A"), "127.0.0.1", timeout, world.dns_port)
    return str(reply.answer[0][0]) if reply.answer else ""


def family(pid: int) -> set[int]:
    """The process and all below it."""
    found = {pid}
    for entry in Path("/proc").iterdir():
        if entry.name.isdecimal() and _parent(int(entry.name)) in found:
            found |= family(int(entry.name))
    return found


def _parent(pid: int) -> int | None:
    fields = _stat(pid)
    return int(fields[1]) if fields else None


def is_running(pid: int) -> bool:
    fields = _stat(pid)
    return bool(fields) and fields[0] not in {"Z", "X"}


def _stat(pid: int) -> list[str]:
    try:
        return Path(f"/proc/{pid}/stat").read_text(encoding="utf-8").rpartition(")")[2].split()
    except OSError:
        return []


def control(world: World) -> int:
    """The id of the control process: the parent of the workers' parent."""
    nursery = _parent(pids(world)[0])
    assert nursery is not None
    parent = _parent(nursery)
    assert parent is not None
    return parent


class Asking:
    """A client that asks over and over, each time from another port, and once more when nothing comes."""

    def __init__(self, world: World) -> None:
        self._world = world
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run)
        self.answers: list[str] = []
        self.lost = 0
        self.unanswered = 0

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()

    def _run(self) -> None:
        while not self._stop.is_set():
            for _ in range(2):
                try:
                    self.answers.append(ask(self._world, timeout=1.0))
                    break
                except (OSError, dns.exception.Timeout):
                    self.lost += 1
            else:
                self.unanswered += 1
            time.sleep(0.002)


# -- answers ----------------------------------------------------------------------------------


def test_both_workers_answer_and_are_told_of(doubled: World) -> None:
    for _ in range(64):
        assert ask(doubled) == ADDRESSES[REGISTRY]
    # The chance that one of two gets none of 64 ports is 2 in 10 to the 19.
    seen = workers(doubled)
    assert [worker["worker"] for worker in seen] == [1, 2]
    assert all(worker["answers"] and worker["queries"] > 0 for worker in seen)
    assert sum(worker["queries"] for worker in seen) == 64
    assert doubled.metric('dnsproxy_requests_total{proto="udp",type="A"}') == 64
    assert doubled.metric("dnsproxy_workers") == 2
    assert doubled.metric("dnsproxy_worker_restarts_total") == 0
    shown = doubled.command("status").stdout
    assert all(str(pid) in shown for pid in pids(doubled))
    assert doubled.server.short(OTHER, "+tcp") == [OTHER_ADDRESS]


def test_a_learned_change_reaches_both_within_a_second(doubled: World) -> None:
    doubled.source.replace(REGISTRY, f"A {NEW_ADDRESS}")
    wait_for(lambda: ask(doubled) == NEW_ADDRESS, "one worker answers with the new address")
    deadline = time.monotonic() + 1.0
    while {ask(doubled) for _ in range(40)} != {NEW_ADDRESS}:
        assert time.monotonic() < deadline, "the other one does not follow"


def test_flush_and_explain_reach_workers(bare: World) -> None:
    for _ in range(64):
        assert ask(bare, OTHER) == OTHER_ADDRESS
    assert bare.admin("/api/v1/status").json()["cache"]["entries"] == 2
    document = bare.admin(f"/api/v1/explain?name={OTHER}").json()
    assert (document["worker"], document["outcome"]) == (1, "cache")
    assert "2 cached answers forgotten" in bare.command("flush", OTHER).stdout
    assert bare.admin("/api/v1/status").json()["cache"]["entries"] == 0


def test_p23_a_loop_is_known_to_both_and_stays_known(world: World) -> None:
    back = world.add_dnsmasq("back", {}, port_behind=world.server.port)
    world.configure(
        serve={"workers": 2},
        learn={"sources": []},
        forward={"upstreams": [back.endpoint, world.upstream.endpoint], "policy": "sequential"},
    )
    back.start()
    world.upstream.start()
    world.start_proxy()

    def told() -> set[int]:
        return {event["worker"] for event in world.proxy.events("upstream.loop")}

    wait_for(lambda: told() == {1, 2}, "both workers know of the loop")
    returned = f'dnsproxy_upstream_failures_total{{reason="loop",upstream="{back.endpoint}"}}'
    seen = world.metric(returned)
    wait_for(lambda: world.metric(returned) >= seen + 4, "more probes have come back, to whichever worker")
    # To neither has an answered probe that came back to the other one looked like the end of the loop.
    assert len(world.proxy.events("upstream.loop")) == 2
    assert [event for event in world.proxy.events("upstream.up") if event["upstream"] == back.endpoint] == []
    assert ask(world, OTHER) == OTHER_ADDRESS


def test_the_last_hour_is_that_of_both_and_outlives_one(doubled: World) -> None:
    for _ in range(40):
        assert ask(doubled) == ADDRESSES[REGISTRY]

    def learned() -> int:
        return sum(doubled.admin("/api/v1/status").json()["recent"]["answers"]["learned"])

    wait_for(lambda: learned() == 40, "every answer is counted in its minute")
    assert all(worker["queries"] for worker in workers(doubled))
    os.kill(pids(doubled)[0], signal.SIGKILL)
    wait_for(lambda: sum(worker["restarts"] for worker in workers(doubled)) == 1, "it was replaced")
    assert ask(doubled) == ADDRESSES[REGISTRY]
    wait_for(lambda: learned() == 41, "what comes after is added")


def test_auto_is_one_for_each_processor(world: World) -> None:
    world.configure(serve={"workers": "auto"}, learn={"sources": []})
    world.start_proxy()
    processors = len(os.sched_getaffinity(0))
    # A quota of the machine that the tests run on may leave fewer.
    assert len(workers(world)) <= processors
    assert ask(world) == ""


def test_one_worker_is_one_process(world: World) -> None:
    world.configure(learn={"sources": []})
    world.start_proxy()
    assert workers(world) == []
    (own,) = {pid for pid in _named(str(world.config)) if is_running(pid)}
    assert family(own) == {own}
    assert world.metric("dnsproxy_workers") == 1


def _named(word: str) -> Iterator[int]:
    """Processes with ``word`` in their command line."""
    for entry in Path("/proc").iterdir():
        if entry.name.isdecimal():
            try:
                line = (entry / "cmdline").read_bytes()
            except OSError:
                continue
            if word.encode() in line:
                yield int(entry.name)


# -- ends ------------------------------------------------------------------------------------


def test_a_killed_worker_is_missed_by_nobody_for_long(doubled: World) -> None:
    old = pids(doubled)
    sample = 'dnsproxy_requests_total{proto="udp",type="A"}'
    with Asking(doubled) as asking:
        wait_for(lambda: len(asking.answers) > 100, "the client asks")
        counted = doubled.metric(sample)
        doubled.source.replace(REGISTRY, f"A {NEW_ADDRESS}")
        wait_for(lambda: NEW_ADDRESS in asking.answers, "the change is answered")
        os.kill(old[0], signal.SIGKILL)
        seen = []
        until = time.monotonic() + 1.0
        while time.monotonic() < until:
            seen.append(doubled.metric(sample))
        wait_for(lambda: all(worker["answers"] for worker in workers(doubled)), "both answer again")
        first, second = workers(doubled)
        assert first["pid"] not in old
        assert (first["restarts"], second["pid"], second["restarts"]) == (1, old[1], 0)
        asked = len(asking.answers)
        wait_for(lambda: workers(doubled)[0]["queries"] > 20, "the new one gets its share")
        wait_for(lambda: len(asking.answers) > asked + 20, "the client goes on")
        assert set(asking.answers[asked:]) == {NEW_ADDRESS}
    assert seen == sorted(seen)
    assert seen[0] >= counted > 0
    # What lay in the socket of the killed one is lost; whoever asks again is answered.
    assert asking.unanswered == 0
    assert asking.lost <= 3
    assert doubled.metric("dnsproxy_worker_restarts_total") == 1
    (ended,) = doubled.proxy.events("worker.ended")
    assert (ended["how"], ended["restart_in"]) == ("killed by SIGKILL", 0.0)


def test_workers_answer_while_the_control_process_hangs(doubled: World) -> None:
    held = control(doubled)
    os.kill(held, signal.SIGSTOP)
    try:
        for _ in range(40):
            assert ask(doubled) == ADDRESSES[REGISTRY]
    finally:
        os.kill(held, signal.SIGCONT)
    assert doubled.admin("/ready").status == 200


def test_a_worker_that_hangs_holds_up_nobody_and_is_replaced(doubled: World) -> None:
    hung, other = pids(doubled)
    os.kill(hung, signal.SIGSTOP)
    doubled.source.replace(REGISTRY, f"A {NEW_ADDRESS}")
    started = time.monotonic()
    assert doubled.admin("/metrics").status == 200
    assert doubled.admin("/ready").status == 200
    assert time.monotonic() - started < END / 2

    def replaced() -> bool:
        return hung not in pids(doubled) and all(worker["answers"] for worker in workers(doubled))

    wait_for(replaced, "it is replaced")
    assert pids(doubled)[1] == other
    assert not is_running(hung)
    wait_for(lambda: {ask(doubled) for _ in range(20)} == {NEW_ADDRESS}, "both answer from the current book")


def test_sigterm_ends_all_with_exit_code_0(bare: World) -> None:
    everybody = family(control(bare))
    assert len(everybody) == 4
    assert bare.proxy.stop(END) == 0
    assert not any(map(is_running, everybody))
    assert bare.proxy.events("proxy.stopped")
    assert not bare.proxy.events("worker.ended")
    assert not bare.proxy.events("worker.killed")
    assert "Traceback" not in bare.proxy.text()
    # The port is free at once.
    bare.start_proxy()
    assert ask(bare, OTHER) == OTHER_ADDRESS


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_to_the_whole_group_ends_all_cleanly(world: World, number: signal.Signals) -> None:
    world.configure(serve={"workers": 2}, learn={"sources": []})
    with in_its_own_group(world) as process:
        everybody = family(process.pid)
        os.killpg(process.pid, number)
        assert process.wait(END) == 0
    assert not any(map(is_running, everybody))
    text = (world.folder / "group.log").read_text(encoding="utf-8")
    assert "proxy.stopped" in text
    assert "Traceback" not in text
    assert "worker.ended" not in text


@contextmanager
def in_its_own_group(world: World) -> Iterator[subprocess.Popen[bytes]]:
    log = world.folder / "group.log"
    with log.open("wb") as out:
        process = subprocess.Popen(
            dnsproxy_argv("serve", "--config", world.config),
            stdin=subprocess.DEVNULL,
            stdout=out,
            stderr=subprocess.STDOUT,
            env=environment(),
            start_new_session=True,
        )
    try:
        wait_for(lambda: "proxy.started" in log.read_text(encoding="utf-8"), "the proxy is up")
        yield process
    finally:
        process.kill()
        process.wait()


@pytest.mark.parametrize("hung", [False, True], ids=["all-run", "all-stopped"])
def test_nobody_is_left_when_the_control_process_is_killed(bare: World, hung: bool) -> None:
    held = control(bare)
    everybody = family(held)
    if hung:
        for pid in everybody - {held}:
            os.kill(pid, signal.SIGSTOP)
    os.kill(held, signal.SIGKILL)
    bare.proxy.wait(END)
    wait_for(lambda: not any(map(is_running, everybody)), "nobody is left", END)


def test_without_the_process_that_starts_workers_the_program_ends(bare: World) -> None:
    """Nobody could replace a worker: better to be started again as a whole, by a service manager."""
    nursery = _parent(pids(bare)[0])
    assert nursery is not None
    everybody = family(control(bare))
    os.kill(nursery, signal.SIGKILL)
    assert bare.proxy.wait(END) == 1
    wait_for(lambda: not any(map(is_running, everybody)), "nobody is left", END)
    assert bare.proxy.text().splitlines()[-1] == "dnsproxy: the process that starts workers has gone"


# -- starts that must fail -------------------------------------------------------------------


@contextmanager
def taken_udp(*, shared: bool) -> Iterator[int]:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        if shared:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        sock.bind(("127.0.0.1", 0))
        yield sock.getsockname()[1]


@contextmanager
def taken_tcp() -> Iterator[int]:
    with socket.create_server(("127.0.0.1", 0)) as sock:
        yield sock.getsockname()[1]


@pytest.mark.parametrize(
    "taken",
    [lambda: taken_udp(shared=False), lambda: taken_udp(shared=True), taken_tcp],
    ids=["udp", "udp-shared", "tcp"],
)
def test_a_port_in_use_is_one_line(world: World, taken: Callable[[], Any]) -> None:
    with taken() as port:
        world.configure(serve={"workers": 2, "listen": [f"127.0.0.1:{port}"]}, learn={"sources": []})
        assert_one_line(world.command("serve"), str(port), "in use")


def test_a_second_one_is_refused_and_the_first_goes_on(bare: World) -> None:
    assert_one_line(bare.command("serve"), str(bare.dns_port), "in use")
    assert ask(bare, OTHER) == OTHER_ADDRESS


def test_an_admin_port_in_use_leaves_nobody(world: World) -> None:
    with taken_tcp() as port:
        world.configure(serve={"workers": 2}, learn={"sources": []}, admin={"listen": f"127.0.0.1:{port}"})
        assert_one_line(world.command("serve"), "admin.listen", str(port), "in use")
    assert not any(is_running(pid) for pid in _named(str(world.config)))


def test_an_upstream_that_is_this_proxy_is_one_line(world: World) -> None:
    world.configure(
        serve={"workers": 2}, learn={"sources": []}, forward={"upstreams": [f"127.0.0.1:{world.dns_port}"]}
    )
    done = world.command("serve")
    warning, done.stderr = done.stderr.splitlines()
    assert json.loads(warning)["level"] == "warning"
    assert_one_line(done, "own listening address")
