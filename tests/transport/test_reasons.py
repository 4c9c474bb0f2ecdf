from __future__ import annotations

import errno
import socket
import ssl

import aiohttp
import pytest

from dnsproxy.transport.reasons import client_reason, os_reason


def tls_failure() -> ssl.SSLError:
    failure = ssl.SSLError(1, "[SSL: NO_SHARED_CIPHER] no shared cipher")
    failure.reason = "NO_SHARED_CIPHER"
    return failure


@pytest.mark.parametrize(
    ("exc", "reason"),
    [
        (OSError(errno.ECONNREFUSED, "Connect call failed ('127.0.0.1', 1)"), "Connection refused"),
        (socket.gaierror(-2, "Name or service not known"), "the host name cannot be resolved"),
        (tls_failure(), "TLS: NO_SHARED_CIPHER"),
        (OSError("no number"), "no number"),
        (ValueError(), "ValueError"),
    ],
)
def test_os_reason(exc: Exception, reason: str) -> None:
    assert os_reason(exc) == reason


@pytest.mark.parametrize(
    ("exc", "reason"),
    [
        (aiohttp.InvalidURL("http://h/?sig=s3cret"), "not a usable URL"),
        (aiohttp.ServerDisconnectedError(), "Server disconnected"),
        (aiohttp.ClientPayloadError(), "ClientPayloadError"),
    ],
)
def test_client_reason(exc: aiohttp.ClientError, reason: str) -> None:
    assert client_reason(exc) == reason
