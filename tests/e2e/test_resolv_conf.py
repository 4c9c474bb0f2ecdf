"""``system`` resolvers: a proxy with one and with two workers, and a helper, follow resolv.conf."""

from __future__ import annotations

import os
import socketserver
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import dns.message
import dns.query
import dns.rrset
import pytest

from tests.e2e.processes import Process, run_command, wait_for
from tests.e2e.world import OTHER, REGISTRY, World
from tests.fakes.threaded import Threaded
from tests.needs import give_up

pytestmark = pytest.mark.e2e

# Of this test run alone: the port of resolv.conf's servers is 53.
_FIRST = f"127.53.{os.getpid() >> 8 & 255}.{os.getpid() & 254 or 2}"
_SECOND = f"{_FIRST.rpartition('.')[0]}.{int(_FIRST.rpartition('.')[2]) + 1}"
_ANSWERS = {_FIRST: "10.53.0.1", _SECOND: "10.53.0.2"}


class _Answering(socketserver.BaseRequestHandler):
    """Answers every A query with the address that belongs to the server."""

    def handle(self) -> None:
        data, sock = self.request
        query = dns.message.from_wire(data)
        reply = dns.message.make_response(query, recursion_available=True)
        question = query.question[0]
        if question.rdtype == dns.rdatatype.A:
            address = _ANSWERS[self.server.server_address[0]]  # type: ignore[index]  # a pair, for IPv4
            reply.answer.append(dns.rrset.from_text(question.name, 1, "IN", "A", address))
        sock.sendto(reply.to_wire(), self.client_address)


@pytest.fixture
def conf(world: World) -> Iterator[Path]:
    """The world's own resolv.conf, which names the first of two servers; both run."""
    if run_command("unshare", "-m", "true").returncode != 0:
        give_up("resolv.conf is not followed here: no mount namespaces; run as root with CAP_SYS_ADMIN")
    path = world.folder / "resolv.conf"
    path.write_text(f"nameserver {_FIRST}\n")
    with ExitStack() as stack:
        for address in (_FIRST, _SECOND):
            server = socketserver.ThreadingUDPServer((address, 53), _Answering)
            stack.enter_context(Threaded(server))
        yield path


def isolate(process: Process, conf: Path) -> None:
    """Let ``process`` read ``conf`` as /etc/resolv.conf."""
    script = 'mount --bind "$0" /etc/resolv.conf && exec "$@"'
    process.run_by("unshare", "-m", "sh", "-c", script, conf)


def ask(world: World) -> str:
    reply = dns.query.udp(dns.message.make_query(OTHER, "A"), "127.0.0.1", 5, world.dns_port)
    return str(reply.answer[0][0]) if reply.answer else ""


def followed(process: Process) -> list[Any]:
    return [event["resolvers"] for event in process.events("resolvers.changed")]


@pytest.mark.parametrize("workers", [1, 2])
def test_a_proxy_follows_resolv_conf(world: World, conf: Path, workers: int) -> None:
    world.configure(serve={"workers": workers}, learn={"sources": []}, forward={"upstreams": ["system"]})
    isolate(world.proxy, conf)
    world.start_proxy()
    assert {ask(world) for _ in range(8)} == {_ANSWERS[_FIRST]}
    # A file that names no server, and one that leads back here, change nothing.
    conf.write_text("# nothing\n")
    wait_for(lambda: world.proxy.events("resolvers.not_followed"), "the empty file is reported")
    assert ask(world) == _ANSWERS[_FIRST]
    conf.write_text(f"nameserver {_SECOND}\n")
    wait_for(lambda: followed(world.proxy) == [[f"{_SECOND}:53"]], "the other server is in force")
    # Answers of the first one, cached or not, are gone in every worker.
    wait_for(lambda: {ask(world) for _ in range(16)} == {_ANSWERS[_SECOND]}, "all workers ask the other one")
    assert world.proxy.events("config.reloaded", "task.failed", "worker.ended") == []


def test_a_helper_follows_resolv_conf(world: World, conf: Path) -> None:
    world.configure(helper={"resolvers": ["system"]})
    world.configure_registries(
        {"name": "hangzhou", "provider": "generic", "names": [{"name": REGISTRY, "role": "registry"}]}
    )
    isolate(world.helper, conf)
    world.start_helper()
    world.start_proxy()

    def served() -> object:
        return world.admin("/api/v1/status").json()["names"][0]["addresses"]

    wait_for(lambda: served() == [_ANSWERS[_FIRST]], "the first server's address is learned")
    conf.write_text("")
    wait_for(lambda: world.helper.events("resolvers.not_followed"), "the empty file is reported")
    conf.write_text(f"nameserver {_SECOND}\n")
    wait_for(lambda: served() == [_ANSWERS[_SECOND]], "the other server's address is learned")
    assert followed(world.helper) == [[f"{_SECOND}:53"]]
