"""A seccomp profile that is stricter than usual: another call is used, or the start names what it needs."""

from __future__ import annotations

import errno
import platform
import sys

import pytest

from tests.e2e.processes import dnsproxy_argv, run_command
from tests.e2e.world import ADDRESSES, OTHER, OTHER_ADDRESS, REGISTRY, World
from tests.faults.seccomp import NUMBERS, refusing
from tests.needs import give_up

pytestmark = pytest.mark.faults

EPOLL = ("epoll_create1", "epoll_ctl", "epoll_wait")


@pytest.fixture(autouse=True)
def _seccomp() -> None:
    if sys.platform != "linux" or platform.machine() not in NUMBERS:
        give_up(f"SECCOMP NOT TESTED, no numbers of system calls for {platform.machine()}")
    refused = run_command(*refusing(errno.EPERM, ["timerfd_create"]), "/bin/true")
    if refused.returncode:
        give_up(f"SECCOMP NOT TESTED, no filters here ({refused.stderr.strip()})")


@pytest.mark.parametrize("workers", [1, 2])
@pytest.mark.parametrize(
    ("number", "calls", "logged"),
    [
        *((errno.EPERM, (call,), {call}) for call in EPOLL),
        (errno.ENOSYS, EPOLL, {"epoll_create1"}),
        (errno.EPERM, ("recvmmsg",), {"recvmmsg"}),
        (errno.ENOSYS, ("sendmmsg",), {"sendmmsg"}),
        (errno.ENOSYS, ("recvmmsg", "sendmmsg"), {"recvmmsg"}),
        # Only a compiled build makes this one.
        (errno.EPERM, ("timerfd_create",), set()),
        (errno.EPERM, ("inotify_init1",), set()),
    ],
    ids=lambda value: errno.errorcode[value] if isinstance(value, int) else "+".join(value),
)
def test_another_call_is_used(
    world: World, workers: int, number: int, calls: tuple[str, ...], logged: set[str]
) -> None:
    """Owned and forwarded names are answered over UDP and TCP, and no upstream is to blame."""
    for program in (world.proxy, world.helper):
        program.run_by(*refusing(number, calls))
    world.configure(serve={"workers": workers})
    world.start()
    for options in ((), ("+tcp",)):
        assert world.server.dig(*options, REGISTRY).data == [ADDRESSES[REGISTRY]]
        for name in range(5):
            assert world.server.dig(*options, f"n{name}.{OTHER}").rcode == "NXDOMAIN"
    assert world.server.short(OTHER) == [OTHER_ADDRESS]
    assert not world.proxy.events("upstream.down", "host.refused")
    replaced = {event["call"] for event in world.proxy.events("host.call_replaced")}
    assert replaced - {"timerfd_create"} == logged
    assert "Traceback" not in world.proxy.text() + world.helper.text()
    assert world.proxy.stop() == 0
    assert world.helper.stop() == 0


@pytest.mark.parametrize("number", [errno.EPERM, errno.ENOSYS], ids=["EPERM", "ENOSYS"])
@pytest.mark.parametrize("command", ["serve", "helper"])
def test_a_call_that_nothing_replaces_is_named(world: World, command: str, number: int) -> None:
    program = dnsproxy_argv(command, "--config", world.config)
    done = run_command(*refusing(number, ["socketpair"]), *program)
    assert done.returncode == 3
    assert '"event": "host.call_refused"' in done.stderr
    assert "dnsproxy: this host refuses the system call socketpair" in done.stderr.splitlines()[-1]
    assert "Traceback" not in done.stderr
