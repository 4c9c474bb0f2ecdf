from __future__ import annotations

import json
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import pytest

from dnsproxy.ops import health
from dnsproxy.ops.health import HealthError, helper_health, proxy_health
from dnsproxy.settings import Settings
from tests.certificates import make_certificate, server_context

Answers = dict[str, tuple[int, Any]]


@contextmanager
def answering(answers: Answers, certificate: Path | None = None) -> Iterator[int]:
    """A server on 127.0.0.1 that answers each path with a status and a body."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            status, told = answers[self.path]
            body = told if isinstance(told, bytes) else json.dumps(told).encode()
            self.send_response(status)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 - the base class names it so
            pass

    with HTTPServer(("127.0.0.1", 0), Handler) as server:
        if certificate is not None:
            context = server_context(certificate)
            server.socket = context.wrap_socket(server.socket, server_side=True)
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        try:
            yield server.server_port
        finally:
            server.shutdown()
            thread.join()


def proxy(port: int) -> Settings:
    return Settings.model_validate({"admin": {"listen": f"127.0.0.1:{port}"}})


def helper(port: int, **more: Any) -> Settings:
    return Settings.model_validate({"helper": {"listen": f"127.0.0.1:{port}", **more}})


READY = {"ready": True, "draining": False, "missing": []}
MISSING = {"ready": False, "draining": False, "missing": ["a.example.", "b.example."]}


def test_a_proxy_that_is_well() -> None:
    with answering({"/health": (200, {"status": "ok"}), "/ready": (200, READY)}) as port:
        assert proxy_health(proxy(port), ready=False) == "ok"
        assert proxy_health(proxy(port), ready=True) == "ready"


@pytest.mark.parametrize(
    ("status", "told", "text"),
    [
        (503, MISSING, "not ready: no address for a.example., b.example."),
        (503, MISSING | {"missing": list("abcde")}, "not ready: no address for a, b, c and 2 more"),
        (503, READY | {"draining": True}, "not ready: it is being stopped"),
        (500, {}, "/ready: status 500"),
        (500, [1], "/ready: status 500"),
    ],
)
def test_a_proxy_that_is_not_ready(status: int, told: Any, text: str) -> None:
    with answering({"/ready": (status, told)}) as port, pytest.raises(HealthError) as failure:
        proxy_health(proxy(port), ready=True)
    assert str(failure.value) == text


def test_a_proxy_over_https(tmp_path: Path) -> None:
    certificate = make_certificate(tmp_path, "proxy.example")
    with answering({"/health": (200, {"status": "ok"})}, certificate) as port:
        tls = {"cert_file": str(certificate), "key_file": str(certificate)}
        settings = Settings.model_validate({"admin": {"listen": f"127.0.0.1:{port}", "tls": tls}})
        assert proxy_health(settings, ready=False) == "ok"


def test_no_endpoint_to_ask() -> None:
    settings = Settings.model_validate({"admin": {"listen": None}})
    with pytest.raises(HealthError, match="admin.listen is null"):
        proxy_health(settings, ready=False)


@pytest.mark.parametrize("ask", [proxy_health, helper_health])
def test_nobody_listens(ask: Callable[..., str]) -> None:
    with closing(socket.socket()) as sock:
        sock.bind(("127.0.0.1", 0))
        port = sock.getsockname()[1]
        settings = proxy(port) if ask is proxy_health else helper(port)
        with pytest.raises(HealthError, match=f"127.0.0.1 port {port}: connection refused"):
            ask(settings, ready=False)


def test_one_that_hangs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(health, "TIMEOUT", 0.1)
    with closing(socket.create_server(("127.0.0.1", 0))) as sock:
        port = sock.getsockname()[1]
        with pytest.raises(HealthError, match="no answer within 0.1 s"):
            proxy_health(proxy(port), ready=False)


def test_something_else_on_the_port() -> None:
    with (
        answering({"/health": (200, b"<html>")}) as port,
        pytest.raises(HealthError, match="not one of dnsproxy's answers"),
    ):
        proxy_health(proxy(port), ready=False)


@pytest.mark.parametrize("wildcard", ["0.0.0.0", "[::]"])
def test_a_wildcard_is_asked_on_loopback(wildcard: str) -> None:
    settings = Settings.model_validate({"admin": {"listen": f"{wildcard}:1"}})
    with pytest.raises(HealthError, match=r"^(127\.0\.0\.1|::1) port 1: "):
        proxy_health(settings, ready=False)


STARTING = {"status": "starting", "serial": None, "names": 0, "age": None}
DEGRADED = {"status": "degraded", "serial": 7, "names": 3, "age": 1}


def test_a_helper() -> None:
    answers: Answers = {"/health": (200, STARTING)}
    with answering(answers) as port:
        assert helper_health(helper(port), ready=False) == "starting"
        with pytest.raises(HealthError, match="not ready: no snapshot yet"):
            helper_health(helper(port), ready=True)
        answers["/health"] = (200, DEGRADED)
        assert helper_health(helper(port), ready=True) == "degraded"
        answers["/health"] = (404, {})
        with pytest.raises(HealthError, match="/health: status 404"):
            helper_health(helper(port), ready=True)


def test_a_helper_over_tls_whatever_its_certificate_is_for(tmp_path: Path) -> None:
    certificate = make_certificate(tmp_path, "helper.example")
    tls = {"cert_file": certificate, "key_file": certificate}
    with answering({"/health": (200, DEGRADED)}, certificate) as port:
        assert helper_health(helper(port, tls=tls), ready=True) == "degraded"


def test_a_helper_that_asks_for_certificates_is_only_connected_to(tmp_path: Path) -> None:
    certificate = make_certificate(tmp_path, "helper.example")
    tls = {"cert_file": certificate, "key_file": certificate, "client_ca_file": certificate}
    with closing(socket.create_server(("127.0.0.1", 0))) as sock:
        port = sock.getsockname()[1]
        assert helper_health(helper(port, tls=tls), ready=True) == "takes connections"
    with pytest.raises(HealthError, match="connection refused"):
        helper_health(helper(port, tls=tls), ready=True)
