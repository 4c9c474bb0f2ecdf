"""A registry with its token service and its storage, on one TLS port of 127.0.0.1."""

from __future__ import annotations

import ssl
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

from tests.fakes.threaded import Threaded
from tests.netns.authority import Authority

REGISTRY, AUTH, STORAGE = "registry.pull.example", "auth.pull.example", "storage.pull.example"


class FakeRegistry(Threaded):
    """Serves all three names while its context lasts; what it does can be changed at any time.

    ``realm`` is where ``/v2/`` sends clients, unless ``challenge`` is what it says;
    ``statuses`` are answered by path in place of the usual ones. ``asked`` are the
    hosts and paths of the requests.
    """

    def __init__(self, folder: Path, *hosts: str) -> None:
        self.authority = Authority(folder / "ca")
        certificate = self.authority.issue(*(hosts or (REGISTRY, AUTH, STORAGE)))
        self.statuses: dict[str, int] = {}
        self.challenge: str | None = None
        self.asked: list[tuple[str, str]] = []
        registry = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                registry.answer(self)

            def log_message(self, *args: object) -> None:
                """Keep the test's output clean."""

        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(certificate.certificate, certificate.key)
        server = _Quiet(("127.0.0.1", 0), Handler)
        # The handshake belongs to the thread of the connection, not to the one that accepts.
        server.socket = context.wrap_socket(server.socket, server_side=True, do_handshake_on_connect=False)
        super().__init__(server)
        self.port = server.server_port
        self.realm = f"https://{AUTH}:{self.port}/auth"

    def answer(self, handler: BaseHTTPRequestHandler) -> None:
        path = handler.path.partition("?")[0]
        self.asked.append((handler.headers.get("Host", "").partition(":")[0], handler.path))
        usual = {"/v2/": 401, "/auth": 200}.get(path, 403)
        status = self.statuses.get(path, usual)
        body = b'{"token": "anonymous"}' if path == "/auth" else b""
        handler.send_response(status)
        if path == "/v2/" and status == 401:
            challenge = self.challenge or f'Bearer realm="{self.realm}",service="pull.example"'
            handler.send_header("WWW-Authenticate", challenge)
        handler.send_header("Content-Length", str(len(body)))
        handler.end_headers()
        handler.wfile.write(body)


class _Quiet(ThreadingHTTPServer):
    daemon_threads = True

    def handle_error(self, request: object, client_address: object) -> None:
        """Say nothing: clients that hang up or do not trust it are part of the tests."""
