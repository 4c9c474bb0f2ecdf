"""An HTTP server that hands out whatever bytes it is given: a helper's place taken by somebody else."""

from __future__ import annotations

from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from tests.fakes.threaded import Threaded


class Channel(Threaded):
    """Listens on 127.0.0.1 at ``port`` while its context lasts.

    Every GET is answered with ``body``; after a promise of ``missing`` octets
    more the connection is closed. ``requests`` counts.
    """

    def __init__(self, port: int, body: bytes) -> None:
        self.body = body
        self.missing = 0
        self.requests = 0
        channel = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                channel.requests += 1
                body = channel.body
                self.send_response(200)
                self.send_header("Content-Type", "application/jose")
                self.send_header("Content-Length", str(len(body) + channel.missing))
                self.send_header("Connection", "close")
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - its base's name
                """Say nothing: the proxy's log is what counts."""

        super().__init__(ThreadingHTTPServer(("127.0.0.1", port), Handler))
