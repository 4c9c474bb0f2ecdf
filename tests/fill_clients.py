"""Clients in a process of their own that fill what a listener keeps for them, and then wait.

``python -m tests.fill_clients KIND PORT COUNT [CERTIFICATE]`` writes a line when all has been sent, and ends
with standard input.
"""

from __future__ import annotations

import contextlib
import signal
import socket
import ssl
import sys
from collections.abc import Callable

import h2.config
import h2.connection
import h2.settings

from tests.messages import REGISTRY, query

NAME = "dns.example"
BODY = 60_000


def connect(port: int, certificate: str = "", *protocols: str) -> socket.socket:
    sock = socket.create_connection(("127.0.0.1", port))
    if not certificate:
        return sock
    context = ssl.create_default_context(cafile=certificate)
    context.set_alpn_protocols(list(protocols))
    return context.wrap_socket(sock, server_hostname=NAME)


def framed(message: bytes) -> bytes:
    return len(message).to_bytes(2, "big") + message


def idle_stream(port: int, certificate: str) -> socket.socket:
    """Ask and read ten times, then wait."""
    sock = connect(port, certificate)
    for _ in range(10):
        sock.sendall(framed(query(REGISTRY)))
        sock.recv(2000)
    return sock


def unfinished_stream(port: int, certificate: str) -> socket.socket:
    """Send all but the last byte of the longest message."""
    sock = connect(port, certificate)
    sock.sendall(framed(bytes(65_535))[:-1])
    return sock


def unread_stream(port: int, certificate: str) -> socket.socket:
    """Ask without end and read nothing."""
    sock = connect(port, certificate)
    sock.settimeout(0.2)
    with contextlib.suppress(OSError):
        while True:
            sock.sendall(framed(query(REGISTRY)) * 500)
    return sock


def unfinished_record(port: int, certificate: str) -> socket.socket:
    """Send part of a TLS record."""
    sock = connect(port, certificate)
    plain = socket.socket(fileno=sock.detach())
    plain.sendall(b"\x17\x03\x03\x40\x00" + bytes(16_000))
    return plain


def http2(sock: socket.socket) -> h2.connection.H2Connection:
    http = h2.connection.H2Connection(h2.config.H2Configuration(header_encoding="utf-8"))
    http.initiate_connection()
    sock.sendall(http.data_to_send())
    sock.settimeout(5)
    http.receive_data(sock.recv(65_536))
    return http


def headers() -> list[tuple[str, str]]:
    return [
        *((":method", "POST"), (":scheme", "https"), (":authority", NAME), (":path", "/dns-query")),
        ("content-type", "application/dns-message"),
    ]


def idle_http2(port: int, certificate: str) -> socket.socket:
    sock = connect(port, certificate, "h2")
    http = http2(sock)
    for number in range(10):
        http.send_headers(1 + 2 * number, headers())
        http.send_data(1 + 2 * number, query(REGISTRY), end_stream=True)
        sock.sendall(http.data_to_send())
        sock.recv(2000)
    return sock


def unfinished_http2(port: int, certificate: str) -> socket.socket:
    """Send as much of as many bodies as the listener's windows allow."""
    sock = connect(port, certificate, "h2")
    http = http2(sock)
    streams = [1 + 2 * number for number in range(24)]
    with contextlib.suppress(OSError):
        for stream in streams:
            http.send_headers(stream, headers())
        left = dict.fromkeys(streams, BODY)
        while left:
            for stream in list(left):
                room = min(http.local_flow_control_window(stream), http.max_outbound_frame_size, left[stream])
                if room:
                    http.send_data(stream, bytes(room))
                    left[stream] -= room
                if not left[stream]:
                    del left[stream]
                if room < 100:
                    break
            sock.sendall(http.data_to_send())
            if left:
                received = sock.recv(65_536)
                if not received:
                    break
                http.receive_data(received)
    return sock


def unfinished_http1(port: int, certificate: str) -> socket.socket:
    sock = connect(port, certificate, "http/1.1")
    head = f"POST /dns-query HTTP/1.1\r\nhost: {NAME}\r\ncontent-length: {BODY}\r\n"
    sock.sendall(f"{head}content-type: application/dns-message\r\n\r\n".encode() + bytes(BODY - 1))
    return sock


KINDS: dict[str, Callable[[int, str], socket.socket]] = {
    "idle": idle_stream,
    "idle-http2": idle_http2,
    "unfinished": unfinished_stream,
    "unread": unread_stream,
    "record": unfinished_record,
    "unfinished-http2": unfinished_http2,
    "unfinished-http1": unfinished_http1,
}


def main() -> None:
    signal.alarm(200)
    kind, port, count = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
    certificate = sys.argv[4] if len(sys.argv) > 4 else ""
    sockets = []
    for _ in range(count):
        # One that is cut has filled what it can.
        with contextlib.suppress(ConnectionError, ssl.SSLError):
            sockets.append(KINDS[kind](port, certificate))
    sys.stdout.write("sent\n")
    sys.stdout.flush()
    sys.stdin.read()


if __name__ == "__main__":
    main()
