"""dnstap of the real program, taken by fstrm_capture and read by BIND's dnstap-read."""

from __future__ import annotations

import signal
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.e2e.processes import Process, run_command, wait_for
from tests.e2e.world import OTHER, REGISTRY, World

pytestmark = pytest.mark.e2e

CONTENT_TYPE = "protobuf:dnstap.Dnstap"


def read(file: Path) -> list[dict[str, Any]]:
    """The messages of a stream, as BIND prints them."""
    done = run_command("dnstap-read", "-y", file)
    assert done.returncode == 0, done.stderr
    return [document for document in yaml.safe_load_all(done.stdout) if document]


def brief(document: dict[str, Any]) -> tuple[str, str, str, str]:
    message = document["message"]
    response = message.get("response_message_data")
    data = response or message["query_message_data"]
    asked = data["QUESTION_SECTION"][0].split()[0]
    status = data["status"] if response else ""
    return message["type"], message["socket_protocol"], asked, status


class Capture:
    """fstrm_capture on a socket, writing what it takes to ``file``."""

    def __init__(self, world: World, name: str) -> None:
        self.socket = world.folder / "tap.sock"
        self.file = world.folder / name
        argv = ["fstrm_capture", "-t", CONTENT_TYPE, "-u", str(self.socket), "-w", str(self.file), "-dddd"]
        self.process = Process(name, argv, world.folder / f"{name}.log")

    def start(self) -> None:
        self.process.start(self.socket.exists)

    def stop(self) -> list[dict[str, Any]]:
        """End it, and read what it took; SIGTERM has it write everything."""
        self.process.signal(signal.SIGTERM)
        self.process.wait()
        self.socket.unlink(missing_ok=True)
        return read(self.file)


def ask_all(world: World, way: str) -> None:
    world.server.dig(way, REGISTRY)
    world.server.dig(way, OTHER)
    world.server.dig(way, OTHER)
    world.server.dig(way, f"{way[1:]}.example")
    world.server.dig(way, OTHER, "NS", "+norecurse")


def expected(way: str) -> list[tuple[str, str, str, str]]:
    answers = (
        (f"{REGISTRY}.", "NOERROR", False),
        (f"{OTHER}.", "NOERROR", way == "+notcp"),
        (f"{OTHER}.", "NOERROR", False),
        (f"{way[1:]}.example.", "NXDOMAIN", True),
        (f"{OTHER}.", "REFUSED", False),
    )
    protocol = "TCP" if way == "+tcp" else "UDP"
    found = []
    for name, status, forwarded in answers:
        found.append(("CLIENT_QUERY", protocol, name, ""))
        if forwarded:
            found.append(("FORWARDER_RESPONSE", "UDP", name, status))
        found.append(("CLIENT_RESPONSE", protocol, name, status))
    return found


def of_clients(messages: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [document for document in messages if document["message"]["type"].startswith("CLIENT_")]


def test_a_file_of_every_way_a_query_can_go(world: World) -> None:
    file = world.folder / "queries.tap"
    world.configure(log={"dnstap": {"file": str(file), "identity": "proxy-e2e"}})
    world.start()
    for way in ("+notcp", "+tcp"):
        ask_all(world, way)
    assert world.proxy.stop() == 0
    found = read(file)
    assert [brief(document) for document in found] == expected("+notcp") + expected("+tcp")
    for document in found:
        assert document["identity"] == "proxy-e2e"
        assert document["version"].startswith("dnsproxy ")
    for document in of_clients(found):
        message = document["message"]
        assert (message["socket_family"], message["query_address"]) == ("INET", "127.0.0.1")
        assert (message["response_address"], message["response_port"]) == ("127.0.0.1", world.dns_port)
        assert message["query_port"] > 0
    clients = of_clients(found)
    # A time is printed with the message that it is of.
    for query, response in zip(clients[::2], clients[1::2], strict=True):
        assert query["message"]["query_time"] <= response["message"]["response_time"]
    told = next(entry["message"] for entry in found if entry["message"]["type"] == "FORWARDER_RESPONSE")
    assert f"{told['response_address']}:{told['response_port']}" == world.upstream.endpoint
    answered = found[1]["message"]["response_message_data"]["ANSWER_SECTION"]
    assert "10.94.205.198" in answered[0]


def test_a_collector_on_a_socket_and_several_workers(world: World) -> None:
    capture = Capture(world, "captured.tap")
    capture.start()
    try:
        world.configure(
            serve={"workers": 2}, log={"dnstap": {"socket": str(capture.socket), "clients": "prefix"}}
        )
        world.start()
        for _ in range(10):
            world.server.dig(REGISTRY)
        for way in ("+notcp", "+tcp"):
            ask_all(world, way)
        wait_for(lambda: world.metric('dnsproxy_log_records_total{log="dnstap"}') >= 40, "all is written")
        assert world.proxy.stop() == 0
        found = capture.stop()
    finally:
        capture.process.kill()
    # How many of them asked the upstream is as the kernel spreads queries over workers.
    found = of_clients(found)
    # Two streams in one: what one worker sent is in order, and all of it is there.
    assert sorted(map(brief, found)) == sorted(
        message
        for message in expected("+notcp") + expected("+tcp") + expected("+notcp")[:2] * 10
        if message[0] != "FORWARDER_RESPONSE"
    )
    assert {document["message"]["query_address"] for document in found} == {"127.0.0.0"}


def test_a_collector_that_ends_and_comes_again(world: World) -> None:
    first, second = Capture(world, "first.tap"), Capture(world, "second.tap")
    first.start()
    try:
        world.configure(log={"dnstap": {"socket": str(first.socket)}})
        world.start()
        assert world.server.dig(REGISTRY).rcode == "NOERROR"
        wait_for(lambda: world.metric('dnsproxy_log_records_total{log="dnstap"}') == 2, "it is written")
        first.stop()

        def lost() -> bool:
            assert world.server.dig(REGISTRY).rcode == "NOERROR"
            return world.metric('dnsproxy_log_records_lost_total{log="dnstap"}') > 0

        wait_for(lost, "records are counted as lost, queries are answered")
        assert len(world.proxy.events("log.failed")) == 1
        second.start()

        def recovered() -> bool:
            world.server.dig(OTHER)
            return bool(world.proxy.events("log.recovered"))

        wait_for(recovered, "it has connected again")
        wait_for(lambda: world.metric('dnsproxy_log_records_total{log="dnstap"}') > 2, "it writes again")
        assert world.proxy.stop() == 0
        found = second.stop()
    finally:
        first.process.kill()
        second.process.kill()
    assert ("CLIENT_RESPONSE", "UDP", f"{OTHER}.", "NOERROR") in map(brief, found)
