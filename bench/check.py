"""Ask a server before it is measured: one that answers wrongly is not worth a number."""

from __future__ import annotations

import ipaddress
import secrets
import socket
import struct
import time

from bench.names import BACKEND_ADDRESS, OWNED, ZONE
from bench.queries import Question, message

START_SECONDS = 15.0  # for a server to start, whichever
_TIMEOUT_SECONDS = 0.5
_QR = 0x8000
_RCODE = 0x000F


class WrongAnswerError(Exception):
    """A server does not do the work that is to be measured."""


def problem(query: bytes, response: bytes, address: str) -> str:
    """Return what is wrong with a response that should hold one A record, or an empty string."""
    if len(response) < 12:
        return f"{len(response)} bytes"
    ident, flags, _questions, answers, _authority, _additional = struct.unpack_from("!6H", response)
    if ident != struct.unpack_from("!H", query)[0] or not flags & _QR:
        return "not a response to the query"
    if flags & _RCODE:
        return f"response code {flags & _RCODE}"
    if answers != 1:
        return f"{answers} answer records"
    if b"\0\4" + ipaddress.ip_address(address).packed not in response:
        return f"no address {address}"
    return ""


def ask_udp(port: int, query: bytes, seconds: float = _TIMEOUT_SECONDS) -> bytes:
    """Send a query and return the first datagram back.

    Raises:
        OSError: when none comes within ``seconds``, or nobody listens.
    """
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        sock.settimeout(seconds)
        sock.connect(("127.0.0.1", port))
        sock.send(query)
        return sock.recv(4096)


def ask_tcp(port: int, query: bytes) -> bytes:
    """Send a query over a new connection and return the first message back.

    Raises:
        OSError: when the connection or the answer fails.
    """
    with socket.create_connection(("127.0.0.1", port), timeout=_TIMEOUT_SECONDS) as sock:
        sock.sendall(struct.pack("!H", len(query)) + query)
        with sock.makefile("rb") as stream:
            return stream.read(struct.unpack("!H", stream.read(2).rjust(2, b"\0"))[0])


def wait_for_answer(port: int, seconds: float, address: str = OWNED[0].address) -> float:
    """Ask for an owned name until the answer is ``address``; return the seconds that this took.

    Raises:
        WrongAnswerError: when it is not within ``seconds``.
    """
    began = time.monotonic()
    query = message(Question(OWNED[0].name), None, secrets.randbelow(65536))
    wrong = "no answer"
    while time.monotonic() - began < seconds:
        try:
            wrong = problem(query, ask_udp(port, query, 0.05), address)
        except OSError:
            time.sleep(0.002)
            continue
        if not wrong:
            return time.monotonic() - began
        time.sleep(0.01)
    raise WrongAnswerError(f"{OWNED[0].name}: {wrong} within {seconds:g} s")


def require_right(port: int) -> None:
    """Ask for every owned name and for forwarded ones: over UDP and TCP, with and without a cookie.

    Raises:
        WrongAnswerError: naming the first wrong answer.
    """
    run = secrets.token_hex(8)
    asked = [(entry.name, entry.address) for entry in OWNED]
    asked += [(f"check{number}.{run}.{ZONE}", BACKEND_ADDRESS) for number in range(3)]
    for ask in (ask_udp, ask_tcp):
        for name, address in asked:
            for cookie in (None, secrets.token_bytes(8)):
                query = message(Question(name), cookie, secrets.randbelow(65536))
                try:
                    wrong = problem(query, ask(port, query), address)
                except OSError as exc:
                    wrong = str(exc) or type(exc).__name__
                if wrong:
                    raise WrongAnswerError(f"{name} ({ask.__name__}, cookie: {cookie is not None}): {wrong}")
