from __future__ import annotations

import errno
import os
import socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from time import monotonic

import pytest
from structlog.testing import capture_logs

from dnsproxy import host_calls
from dnsproxy.net import hot
from dnsproxy.net.hot import HotSockets

# A wait that does not end by itself while a test runs.
LONG = 60.0


class FakeWaiting:
    """The waits of a compiled build, with a pipe's end as its timer."""

    def __init__(self) -> None:
        self.waits: list[bool] = []
        self.alarms: list[float] = []

    def ready(self, _descriptor: int, _waiting: bool, /) -> list[object]:
        raise NotImplementedError

    def open_timer(self) -> int:
        readable, writable = os.pipe()
        os.close(writable)
        return readable

    def set_timer(self, _descriptor: int, at: float, /) -> None:
        self.alarms.append(at)


@dataclass
class World:
    """Hot sockets, the end of `others` that makes it ready, and what was reported."""

    hot: HotSockets
    wake: socket.socket
    reports: list[str]
    calls: list[str] = field(default_factory=list)

    def end(self) -> None:
        """Make ``others`` ready, so that `serve` ends."""
        self.wake.send(b"x")

    def add(self, name: str, call: Callable[[], object] | None = None) -> tuple[socket.socket, socket.socket]:
        """Serve one end of a new pair; each call of it is noted, then ``call`` made."""
        ours, theirs = socket.socketpair()
        ours.setblocking(False)

        def serve() -> None:
            self.calls.append(name)
            if call is not None:
                call()

        self.hot.add(ours.fileno(), serve)
        return ours, theirs

    def drop(self, sock: socket.socket) -> None:
        self.hot.remove(sock.fileno())
        sock.close()


@pytest.fixture(autouse=True, params=["as loaded", "poll"])
def way(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """The ways to wait: of this build, and of one that is not compiled."""
    if request.param == "poll":
        monkeypatch.setattr(hot, "load_waiting", lambda: None)


@contextmanager
def world() -> Iterator[World]:
    others, wake = socket.socketpair()
    reports: list[str] = []
    made = HotSockets(others.fileno(), lambda exc: reports.append(str(exc)))
    with others, wake:
        yield World(made, wake, reports)
        made.close()


@contextmanager
def closing(*socks: socket.socket) -> Iterator[None]:
    try:
        yield
    finally:
        for sock in socks:
            sock.close()


def test_a_socket_is_served_while_it_is_readable() -> None:
    with world() as made:

        def take() -> None:
            ours.recv(1)
            if len(made.calls) == 3:
                made.end()

        ours, theirs = made.add("one", take)
        with closing(ours, theirs):
            theirs.send(b"abc")
            assert made.hot.serve(LONG) is True
            assert made.calls == ["one"] * 3


def test_others_ready_ends_the_serving_after_one_round_of_what_else_is_ready() -> None:
    with world() as made:
        ours, theirs = made.add("one")
        with closing(ours, theirs):
            theirs.send(b"x")
            made.end()
            assert made.hot.serve(None) is True
            assert made.calls == ["one"]


def test_the_time_is_over_though_a_socket_never_rests() -> None:
    with world() as made:
        ours, theirs = made.add("one")
        with closing(ours, theirs):
            theirs.send(b"x")
            begun = monotonic()
            assert made.hot.serve(0.05) is False
            assert monotonic() - begun >= 0.05
            assert len(made.calls) > 1


def test_the_time_is_over_though_nothing_comes() -> None:
    with world() as made:
        begun = monotonic()
        assert made.hot.serve(0.02) is False
        assert monotonic() - begun >= 0.02


@pytest.mark.parametrize("timeout", [0, 0.0, -1.0])
def test_no_time_is_one_round(timeout: float) -> None:
    with world() as made:
        ours, theirs = made.add("one")
        with closing(ours, theirs):
            theirs.send(b"x")
            assert made.hot.serve(timeout) is False
            assert made.calls == ["one"]


def test_release_ends_the_serving_after_the_round() -> None:
    with world() as made:
        first = made.add("first", made.hot.release)
        second = made.add("second", made.hot.release)
        with closing(*first, *second):
            first[1].send(b"x")
            second[1].send(b"x")
            assert made.hot.serve(None) is False
            assert sorted(made.calls) == ["first", "second"]


def test_a_release_from_before_does_not_count() -> None:
    with world() as made:
        made.hot.release()
        ours, theirs = made.add("one", lambda: made.end() if len(made.calls) == 3 else None)
        with closing(ours, theirs):
            theirs.send(b"x")
            assert made.hot.serve(None) is True
            assert len(made.calls) >= 3


def test_what_fails_is_reported_and_the_rest_goes_on() -> None:
    def fail(text: str) -> None:
        raise RuntimeError(text)

    with world() as made:
        pairs = [made.add(str(number), partial(fail, str(number))) for number in range(3)]
        made.hot.after(partial(fail, "after"))
        with closing(*(sock for pair in pairs for sock in pair)):
            for _, theirs in pairs:
                theirs.send(b"x")
            made.hot.serve(0)
            assert sorted(made.reports) == ["0", "1", "2", "after"]
            made.hot.serve(0)
            assert len(made.calls) == 6


@pytest.mark.parametrize("kind", [KeyboardInterrupt, SystemExit])
def test_what_ends_the_program_is_not_held_up(kind: type[BaseException]) -> None:
    def interrupt() -> None:
        raise kind

    with world() as made:
        ours, theirs = made.add("one", interrupt)
        made.hot.after(partial(made.calls.append, "after"))
        with closing(ours, theirs):
            theirs.send(b"x")
            with pytest.raises(kind):
                made.hot.serve(LONG)
            made.drop(ours)
            made.hot.serve(0)
            assert (made.calls, made.reports) == (["one", "after"], [])


def test_a_call_removed_by_another_of_the_same_round_is_not_made() -> None:
    with world() as made:
        pairs: list[tuple[socket.socket, socket.socket]] = []

        def remove_the_other(index: int) -> None:
            made.drop(pairs[1 - index][0])

        pairs += [
            made.add("first", partial(remove_the_other, 0)),
            made.add("second", partial(remove_the_other, 1)),
        ]
        with closing(*(sock for pair in pairs for sock in pair)):
            for _, theirs in pairs:
                theirs.send(b"x")
            made.hot.serve(0)
            assert len(made.calls) == 1


def test_a_socket_may_remove_itself() -> None:
    with world() as made:
        ours, theirs = made.add("one", lambda: made.drop(ours))
        with closing(ours, theirs):
            theirs.send(b"x")
            made.hot.serve(0)
            made.hot.serve(0)
            assert (made.calls, made.reports) == (["one"], [])


def test_a_number_that_is_used_again_is_the_new_sockets() -> None:
    with world() as made:
        old, old_peer = made.add("old")
        number = old.fileno()
        made.drop(old)
        new, new_peer = made.add("new")
        with closing(old_peer, new, new_peer):
            assert new.fileno() == number
            new_peer.send(b"x")
            made.hot.serve(0)
            assert made.calls == ["new"]


def test_a_socket_that_was_removed_may_come_back() -> None:
    with world() as made:
        ours, theirs = made.add("one")
        with closing(ours, theirs):
            theirs.send(b"x")
            made.hot.remove(ours.fileno())
            made.hot.serve(0)
            made.hot.add(ours.fileno(), partial(made.calls.append, "again"))
            made.hot.serve(0)
            assert made.calls == ["again"]


def test_a_socket_is_watched_for_what_was_said() -> None:
    with world() as made:
        ours, theirs = made.add("one")
        with closing(ours, theirs):
            made.hot.serve(0)
            assert made.calls == []
            made.hot.watch(ours.fileno(), read=False, write=True)
            made.hot.serve(0)
            assert made.calls == ["one"]
            theirs.send(b"x")
            made.hot.watch(ours.fileno(), read=False, write=False)
            made.hot.serve(0)
            assert made.calls == ["one"]
            made.hot.watch(ours.fileno(), read=True, write=False)
            made.hot.serve(0)
            assert made.calls == ["one"] * 2


def test_an_error_is_told_though_a_socket_is_watched_for_nothing() -> None:
    with world() as made:
        ours, theirs = made.add("one")
        with closing(ours, theirs):
            made.hot.watch(ours.fileno(), read=False, write=False)
            theirs.close()
            made.hot.serve(0)
            assert made.calls == ["one"]


def test_work_for_afterwards_comes_once_and_when_all_were_served() -> None:
    with world() as made:

        def serve() -> None:
            made.hot.after(partial(made.calls.append, "after"))

        pairs = [made.add("one", serve), made.add("two", serve)]
        with closing(*(sock for pair in pairs for sock in pair)):
            for _, theirs in pairs:
                theirs.send(b"x")
            made.hot.serve(0)
            assert made.calls[2:] == ["after"] * 2
            for ours, _ in pairs:
                made.drop(ours)
            made.hot.serve(0)
            assert len(made.calls) == 4


def test_work_for_afterwards_may_bring_more_and_a_release() -> None:
    with world() as made:

        def more(left: int) -> None:
            made.calls.append(str(left))
            if left:
                made.hot.after(partial(more, left - 1))
            else:
                made.hot.release()

        ours, theirs = made.add("one", lambda: made.hot.after(partial(more, 2)))
        with closing(ours, theirs):
            theirs.send(b"x")
            assert made.hot.serve(None) is False
            assert made.calls == ["one", "2", "1", "0"]


def test_work_that_waits_from_before_is_done_at_once() -> None:
    with world() as made:
        made.hot.after(partial(made.calls.append, "after"))
        assert made.hot.serve(None) is False
        assert made.calls == ["after"]


def test_more_sockets_than_a_round_takes_are_all_served() -> None:
    with world() as made:
        pairs: list[tuple[socket.socket, socket.socket]] = []

        def take(number: int) -> None:
            pairs[number][0].recv(1)
            if len(made.calls) == 200:
                made.end()

        pairs += [made.add(str(number), partial(take, number)) for number in range(200)]
        with closing(*(sock for pair in pairs for sock in pair)):
            for _, theirs in pairs:
                theirs.send(b"x")
            made.hot.serve(LONG)
            assert sorted(made.calls, key=int) == [str(number) for number in range(200)]


def test_others_are_heard_among_many_that_never_rest() -> None:
    with world() as made:
        pairs = [made.add("one") for _ in range(200)]
        with closing(*(sock for pair in pairs for sock in pair)):
            for _, theirs in pairs:
                theirs.send(b"x")
            made.end()
            assert made.hot.serve(LONG) is True
            assert len(made.calls) <= 3 * 200


def test_a_closed_set_serves_nobody() -> None:
    with world() as made:
        made.hot.close()
        made.hot.close()
        with pytest.raises(ValueError, match="closed"):
            made.hot.serve(0)


def test_what_ends_a_wait_for_good_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    class Failing(FakeWaiting):
        def ready(self, _descriptor: int, _waiting: bool, /) -> list[object]:
            raise OSError(errno.EBADF, os.strerror(errno.EBADF))

    monkeypatch.setattr(hot, "load_waiting", Failing)
    with world() as made, pytest.raises(OSError, match="Bad file descriptor"):
        made.hot.serve(LONG)


@pytest.mark.parametrize("call", ["open_timer", "set_timer"])
def test_a_host_that_refuses_timers_waits_by_epoll(monkeypatch: pytest.MonkeyPatch, call: str) -> None:
    class Refusing(FakeWaiting):
        def open_timer(self) -> int:
            if call == "open_timer":
                raise OSError(errno.ENOSYS, os.strerror(errno.ENOSYS))
            return os.dup(others.fileno())

        def set_timer(self, _descriptor: int, _at: float, /) -> None:
            raise OSError(errno.EPERM, os.strerror(errno.EPERM))

    monkeypatch.setattr(hot, "load_waiting", Refusing)
    monkeypatch.setattr(host_calls, "_noted", set())
    others, wake = socket.socketpair()
    with others, wake, capture_logs() as logs:
        made = HotSockets(others.fileno(), print)
        began = monotonic()
        assert made.serve(0.02) is False
        assert monotonic() - began >= 0.02
        wake.send(b"x")
        assert made.serve(LONG) is True
        made.close()
    (entry,) = logs
    assert (entry["event"], entry["instead"]) == ("host.call_replaced", "epoll_wait")
    assert entry["call"] == {"open_timer": "timerfd_create", "set_timer": "timerfd_settime"}[call]


def test_a_signal_ends_no_wait(monkeypatch: pytest.MonkeyPatch) -> None:
    class Signalled(FakeWaiting):
        def ready(self, _descriptor: int, waiting: bool, /) -> list[object]:
            self.waits.append(waiting)
            return [] if len(self.waits) < 3 else [others.fileno()]

    fake = Signalled()
    monkeypatch.setattr(hot, "load_waiting", lambda: fake)
    others, wake = socket.socketpair()
    with others, wake:
        signalled = HotSockets(others.fileno(), print)
        fake.alarms.clear()  # that of a trial
        began = monotonic()
        assert signalled.serve(LONG) is True
        signalled.close()
    assert fake.waits == [True, True, True]
    assert len(fake.alarms) == 1, "set once for the whole wait"
    assert began + LONG <= fake.alarms[0] <= monotonic() + LONG


def test_an_alarm_is_moved_only_for_a_wait_that_ends_before_it(monkeypatch: pytest.MonkeyPatch) -> None:
    class Waking(FakeWaiting):
        def ready(self, _descriptor: int, _waiting: bool, /) -> list[object]:
            return [others.fileno()]

    fake = Waking()
    monkeypatch.setattr(hot, "load_waiting", lambda: fake)
    others, wake = socket.socketpair()
    with others, wake:
        made = HotSockets(others.fileno(), print)
        fake.alarms.clear()  # that of a trial
        for seconds in (50.0, 60.0, None, 40.0, 0.0, 45.0):
            assert made.serve(seconds) is True
        made.close()
    first, second = fake.alarms
    assert second < first - 5, "of 50 and of 40 seconds"


def test_an_alarm_set_for_an_earlier_wait_does_not_end_a_later_one() -> None:
    with world() as made:
        # The first wait is ended by a socket, and leaves its alarm behind.
        ours, theirs = made.add("ours", made.hot.release)
        theirs.send(b"x")
        with closing(ours, theirs):
            assert made.hot.serve(0.02) is False
            made.drop(ours)
        began = monotonic()
        assert made.hot.serve(0.06) is False
        assert monotonic() - began >= 0.06


def test_a_wait_that_ends_before_the_alarm_of_another_ends_in_its_time() -> None:
    with world() as made:
        ours, theirs = made.add("ours", made.hot.release)
        theirs.send(b"x")
        with closing(ours, theirs):
            assert made.hot.serve(LONG) is False
            made.drop(ours)
        began = monotonic()
        assert made.hot.serve(0.02) is False
        assert 0.02 <= monotonic() - began < LONG / 2
