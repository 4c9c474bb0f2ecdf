"""The messages are read back with the same packages; tests/e2e/test_dnstap.py has readers of other people."""

from __future__ import annotations

import contextlib
import errno
import os
import socket
import struct
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import fstrm
import pytest
from dnstap_pb import Dnstap, Message
from structlog.testing import capture_logs

from dnsproxy.core.attempt import Limits
from dnsproxy.core.exchange import Exchange
from dnsproxy.core.seen import Seen
from dnsproxy.core.stats import LEARNED
from dnsproxy.core.upstreams import Secure, Upstream
from dnsproxy.core.wire import TC, scan_query
from dnsproxy.errors import StartError
from dnsproxy.net import dnstap
from dnsproxy.net.dnstap import CONTENT_TYPE, DnstapMessages, FrameFile, FrameSocket
from dnsproxy.output import write_all
from tests.messages import query as question
from tests.messages import reply_to

CONTROLS = {
    fstrm.FSTRM_CONTROL_START: "start",
    fstrm.FSTRM_CONTROL_STOP: "stop",
    fstrm.FSTRM_CONTROL_READY: "ready",
}
FRAMES = [struct.pack(">I", 5) + b"first", struct.pack(">I", 6) + b"second"]


def seen(client: bytes = b"\xc0\0\2\x4d", protocol: str = "udp", response: bytes = b"response") -> Seen:
    made = Seen([], protocol, client, 5353, b"query", 10.0)
    made.server, made.server_port = b"\x7f\0\0\1", 53
    made.wall, made.duration = 1_764_000_000.25, 0.5
    made.response, made.source = response, LEARNED
    return made


def parsed(frame: bytes) -> Any:
    (length,) = struct.unpack(">I", frame[:4])
    assert length == len(frame) - 4
    found = Dnstap()
    found.ParseFromString(frame[4:])
    return found


def frames(data: bytes) -> list[bytes | str]:
    """What a stream holds: the names of control frames, the octets of the others."""
    codec, found = fstrm.FstrmCodec(), []
    codec.append(data)
    while codec.process():
        kind, types, payload = codec.decode()
        if kind == fstrm.FSTRM_DATA_FRAME:
            found.append(payload)
        else:
            assert types in ([], [CONTENT_TYPE])
            found.append(CONTROLS[kind])
    assert codec.buf == b""
    return found


# --- messages


def test_a_query_and_its_response() -> None:
    query, response = map(parsed, DnstapMessages("host", "dnsproxy 1", "full").of(seen()))
    for made in (query, response):
        assert (made.identity, made.version, made.type) == (b"host", b"dnsproxy 1", Dnstap.MESSAGE)
        message = made.message
        assert (message.query_address, message.query_port) == (b"\xc0\0\2\x4d", 5353)
        assert (message.response_address, message.response_port) == (b"\x7f\0\0\1", 53)
        assert (message.query_time_sec, message.query_time_nsec) == (1_764_000_000, 250_000_000)
        assert (message.socket_family, message.socket_protocol) == (1, 1)
    assert query.message.type == query.message.CLIENT_QUERY
    assert query.message.query_message == b"query"
    assert not query.message.HasField("response_message")
    assert response.message.type == response.message.CLIENT_RESPONSE
    assert response.message.response_message == b"response"
    assert (response.message.response_time_sec, response.message.response_time_nsec) == (
        1_764_000_000,
        750_000_000,
    )


def test_a_query_without_a_response_is_one_message() -> None:
    (query,) = map(parsed, DnstapMessages("host", "v", "full").of(seen(response=b"")))
    assert query.message.type == query.message.CLIENT_QUERY


@pytest.mark.parametrize(("protocol", "number"), [("udp", 1), ("tcp", 2), ("tls", 3), ("https", 4)])
def test_protocols(protocol: str, number: int) -> None:
    message = parsed(DnstapMessages("h", "v", "full").of(seen(b"\x20\1" + bytes(14), protocol))[0]).message
    assert (message.socket_protocol, message.socket_family) == (number, 2)


def test_how_much_of_a_client_is_told() -> None:
    prefix = parsed(DnstapMessages("h", "v", "prefix").of(seen())[0]).message
    assert (prefix.query_address, prefix.query_port) == (b"\xc0\0\2\0", 0)
    none = parsed(DnstapMessages("h", "v", "omit").of(seen())[0]).message
    assert not none.HasField("query_address")
    assert not none.HasField("query_port")


def told(upstream: Upstream, *, truncated: bool = False) -> Exchange:
    """An exchange that has its reply, after one over UDP that was truncated if so."""
    data = question("www.example.")
    exchange = Exchange(b"key", scan_query(data), (upstream,), Limits(1, 2), 10.25)
    for over_tcp in (False, True) if truncated else (False,):
        attempt = exchange.next_attempt(10.25)
        assert attempt is not None
        flags = TC if truncated and not over_tcp else 0
        reply = reply_to(b"\x12\x34" + attempt.payload, ["www.example. 60 IN A 192.0.2.1"], flags=flags)
        exchange.receive_reply(reply, 10.5)
    assert exchange.response is not None
    return exchange


def test_what_an_upstream_told_stands_between_the_two() -> None:
    given = seen()
    given.told = told(Upstream("one", ("10.0.0.2", 5300)))
    kinds = [parsed(frame).message for frame in DnstapMessages("h", "v", "full").of(given)]
    assert [kind.type for kind in kinds] == [
        Message.CLIENT_QUERY,
        Message.FORWARDER_RESPONSE,
        Message.CLIENT_RESPONSE,
    ]
    message = kinds[1]
    assert message.response_message == given.told.reply
    assert (message.response_address, message.response_port) == (b"\x0a\0\0\2", 5300)
    assert (message.socket_family, message.socket_protocol) == (1, 1)
    # It was asked a quarter of a second after the query had come.
    assert (message.query_time_sec, message.query_time_nsec) == (1_764_000_000, 500_000_000)
    assert not message.HasField("query_address")


@pytest.mark.parametrize(
    ("upstream", "truncated", "family", "protocol"),
    [
        (Upstream("a", ("fd00::2", 53)), False, 2, 1),
        (Upstream("b", ("10.0.0.2", 53)), True, 1, 2),
        (Upstream("c", ("10.0.0.2", 53), tcp=True), False, 1, 2),
        (Upstream("d", ("dns.example", 853), secure=Secure("dns.example", None)), False, 1, 3),
        (Upstream("e", ("10.0.0.2", 443), secure=Secure("dns.example", "/dns-query")), False, 1, 4),
    ],
    ids=lambda value: value.name if isinstance(value, Upstream) else None,
)
def test_how_an_upstream_was_asked(upstream: Upstream, truncated: bool, family: int, protocol: int) -> None:
    given = seen()
    given.told = told(upstream, truncated=truncated)
    message = parsed(DnstapMessages("h", "v", "full").of(given)[1]).message
    assert (message.socket_family, message.socket_protocol) == (family, protocol)
    # A name is not an address.
    assert message.HasField("response_address") == (upstream.name != "d")


# --- a file


def test_a_file_is_one_whole_stream(tmp_path: Path) -> None:
    path = tmp_path / "tap"
    path.write_bytes(b"of an earlier run")
    outlet = FrameFile(path)
    outlet.open()
    assert outlet.write(FRAMES) == 0
    outlet.close()
    assert frames(path.read_bytes()) == ["start", b"first", b"second", "stop"]


def test_a_file_that_is_renamed_is_ended_and_another_begun(tmp_path: Path) -> None:
    path, old = tmp_path / "tap", tmp_path / "tap.1"
    outlet = FrameFile(path)
    outlet.write(FRAMES[:1])
    path.rename(old)
    outlet.write(FRAMES[1:])
    outlet.close()
    assert frames(old.read_bytes()) == ["start", b"first", "stop"]
    assert frames(path.read_bytes()) == ["start", b"second", "stop"]


def test_half_a_frame_is_taken_back(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "tap"
    outlet = FrameFile(path)
    really = write_all

    def fill(fd: int, data: bytes) -> None:
        really(fd, data[:3])
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(dnstap, "write_all", fill)
    with capture_logs() as logs:
        assert outlet.write(FRAMES) == 2
    assert logs[0]["event"] == "log.failed"
    monkeypatch.setattr(dnstap, "write_all", really)
    assert outlet.write(FRAMES) == 0
    outlet.close()
    assert frames(path.read_bytes()) == ["start", b"first", b"second", "stop"]


def test_a_file_that_cannot_be_written(tmp_path: Path) -> None:
    with pytest.raises(StartError, match=r"log\.dnstap\.file: cannot write .*: Is a directory"):
        FrameFile(tmp_path)
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(StartError, match="No such device or address"):
        FrameFile(tmp_path / "pipe")


# --- a socket


class Collector:
    """Takes one connection, answers its handshake with ``reply``, and reads to its end."""

    def __init__(self, path: Path, reply: bytes | None = None) -> None:
        self._listening = socket.socket(socket.AF_UNIX)
        self._listening.bind(str(path))
        self._listening.listen()
        self._reply = fstrm.FstrmCodec().encode_ctrlaccept(CONTENT_TYPE) if reply is None else reply
        self.data = b""
        self._thread = threading.Thread(target=self._run)
        self._thread.start()

    def _run(self) -> None:
        with self._listening, self._listening.accept()[0] as sock:
            sock.settimeout(30)
            self.data += sock.recv(4096)
            sock.sendall(self._reply)
            with contextlib.suppress(ConnectionError):
                while more := sock.recv(65536):
                    self.data += more
                    if self.data.endswith(fstrm.FstrmCodec().encode(fstrm.FSTRM_CONTROL_STOP)):
                        sock.sendall(fstrm.FstrmCodec().encode(fstrm.FSTRM_CONTROL_FINISH))

    def wait(self) -> None:
        self._thread.join(30)
        assert not self._thread.is_alive()


@pytest.fixture
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    # Short: the path of a socket has 107 octets at most.
    return tmp_path_factory.mktemp("t") / "s"


def test_a_collector_gets_a_whole_stream(path: Path) -> None:
    collector = Collector(path)
    outlet = FrameSocket(path)
    outlet.open()
    assert outlet.write(FRAMES) == 0
    outlet.close()
    collector.wait()
    assert frames(collector.data) == ["ready", "start", b"first", b"second", "stop"]


def test_a_collector_that_comes_later(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dnstap, "RETRY_SECONDS", 0.0)
    outlet = FrameSocket(path)
    with capture_logs() as logs:
        outlet.open()
        assert outlet.write(FRAMES) == 2
        collector = Collector(path)
        assert outlet.write(FRAMES) == 0
    outlet.close()
    collector.wait()
    assert [entry["event"] for entry in logs] == ["log.failed", "log.recovered"]
    assert logs[0]["reason"] == "No such file or directory"
    assert frames(collector.data) == ["ready", "start", b"first", b"second", "stop"]


def test_without_a_descriptor_the_next_attempt_connects(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dnstap, "RETRY_SECONDS", 0.0)
    collector = Collector(path)
    outlet = FrameSocket(path)
    really = socket.socket
    with capture_logs() as logs:
        monkeypatch.setattr(socket, "socket", raising(OSError(errno.EMFILE, os.strerror(errno.EMFILE))))
        outlet.open()
        assert outlet.write(FRAMES) == 2
        monkeypatch.setattr(socket, "socket", really)
        assert outlet.write(FRAMES) == 0
    outlet.close()
    collector.wait()
    assert [(entry["event"], entry.get("reason")) for entry in logs] == [
        ("log.failed", "Too many open files"),
        ("log.recovered", None),
    ]


def raising(failure: OSError) -> Callable[..., None]:
    def fail(*_: object) -> None:
        raise failure

    return fail


def test_between_attempts_nothing_is_tried(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dnstap, "RETRY_SECONDS", 1000.0)
    outlet = FrameSocket(path)
    with capture_logs():
        outlet.open()
    collector = Collector(path)
    assert outlet.write(FRAMES) == 2
    outlet.close()
    other = FrameSocket(path)
    other.open()
    other.close()
    collector.wait()


@pytest.mark.parametrize(
    ("reply", "reason"),
    [
        (b"HTTP/1.1 400 Bad Request\r\n\r\n", "does not speak Frame Streams"),
        (b"", "has closed the connection"),
        (fstrm.FstrmCodec().encode_ctrlready(CONTENT_TYPE), "does not take dnstap"),
        (fstrm.FstrmCodec().encode_ctrlaccept(b"text/plain"), "does not take dnstap"),
        (struct.pack(">IIII", 0, 16, 1, 1) + struct.pack(">II", 99, 0), "does not speak Frame Streams"),
        (struct.pack(">II", 0, 1 << 30), "does not speak Frame Streams"),
    ],
)
def test_somebody_else_at_the_socket(path: Path, reply: bytes, reason: str) -> None:
    collector = Collector(path, reply) if reply else Hanging(path)
    outlet = FrameSocket(path)
    with capture_logs() as logs:
        outlet.open()
        assert outlet.write(FRAMES) == 2
    outlet.close()
    collector.wait()
    assert reason in logs[0]["reason"]


class Hanging(Collector):
    """Closes instead of an answer."""

    def _run(self) -> None:
        with self._listening, self._listening.accept()[0] as sock:
            sock.recv(4096)


def test_a_collector_that_stops_reading_costs_its_batch(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dnstap, "WRITE_SECONDS", 0.05)
    monkeypatch.setattr(dnstap, "HANDSHAKE_SECONDS", 30.0)
    released = threading.Event()

    class Stopped(Collector):
        def _run(self) -> None:
            with self._listening, self._listening.accept()[0] as sock:
                sock.recv(4096)
                sock.sendall(self._reply)
                released.wait(60)

    collector = Stopped(path)
    outlet = FrameSocket(path)
    outlet.open()
    with capture_logs() as logs:
        assert outlet.write([struct.pack(">I", 1 << 20) + bytes(1 << 20)] * 4) == 4
    assert logs[0]["reason"] == "timed out"
    released.set()
    outlet.close()
    collector.wait()
