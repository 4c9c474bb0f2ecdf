"""The admin endpoint of a proxy that serves one name, for commands that ask it."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread
from typing import Any, ClassVar

from dnsproxy.admin.registries import registries_document
from dnsproxy.settings import Settings


class AdminEndpoint(BaseHTTPRequestHandler):
    """Answers with ``documents``, which a test may change."""

    documents: ClassVar[dict[str, Any]]

    def do_GET(self) -> None:
        body = json.dumps(self.documents[self.path]).encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        """Nothing."""


@contextmanager
def admin_endpoint(settings: Settings) -> Iterator[str]:
    """Serve ``registry.example`` at 10.1.2.3 while the context lasts; gives the URL."""
    entry = {"source": "helper-a", "serial": 7, "age": 1.0, "ports": [443], "status": "ok"}
    detail = {"address": "10.1.2.3", "state": "serving", "probe": {"443": "ok"}}
    name = {"name": "registry.example.", "role": "registry", "registry": "hz", "addresses": ["10.1.2.3"]}
    AdminEndpoint.documents = {
        "/api/v1/status": {"names": [name | entry | {"details": [detail]}], "serial": 7, "undiscovered": []},
        "/api/v1/registries": registries_document(settings),
    }
    with ThreadingHTTPServer(("127.0.0.1", 0), AdminEndpoint) as server:
        thread = Thread(target=server.serve_forever)
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}"
        finally:
            server.shutdown()
            thread.join()
