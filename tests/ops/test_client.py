from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from dnsproxy.ops.client import AdminClient, AdminError, AdminFiles
from dnsproxy.settings.serving import AdminSettings, AdminTlsSettings
from dnsproxy.settings.values import Endpoint
from tests.certificates import make_certificate, server_context


class Recorder(BaseHTTPRequestHandler):
    """Answers every request with ``server.reply`` and keeps what was asked."""

    server: Admin

    def do_GET(self) -> None:
        length = int(self.headers.get("Content-Length", 0))
        body = self.rfile.read(length).decode()
        self.server.asked.append((self.command, self.path, self.headers.get("Authorization"), body))
        status, content_type, content = self.server.reply
        self.send_response(status)
        self.send_header("Content-Type", content_type)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    do_POST = do_GET  # noqa: N815 - the base class looks for this name

    def log_message(self, *args: object) -> None:
        """Keep the test's output clean."""


class Admin(ThreadingHTTPServer):
    reply: tuple[int, str, bytes] = (200, "application/json", b'{"ready": true}')

    def __init__(self) -> None:
        self.asked: list[tuple[str, str, str | None, str]] = []
        super().__init__(("127.0.0.1", 0), Recorder)

    @property
    def endpoint(self) -> Endpoint:
        return Endpoint("127.0.0.1", self.server_port)


@pytest.fixture
def admin() -> Iterator[Admin]:
    with Admin() as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        yield server
        server.shutdown()
        thread.join()


def test_an_answer_comes_back_as_an_object(admin: Admin) -> None:
    client = AdminClient(f"http://{admin.endpoint}/")
    assert client.call("GET", "/api/v1/status") == {"ready": True}
    assert admin.asked == [("GET", "/api/v1/status", None, "")]


def test_a_body_goes_out_as_json(admin: Admin) -> None:
    AdminClient(f"http://{admin.endpoint}").call("POST", "/api/v1/flush", {"name": "a.example"})
    method, path, _, body = admin.asked[0]
    assert (method, path, json.loads(body)) == ("POST", "/api/v1/flush", {"name": "a.example"})


def test_the_token_is_sent_without_the_white_space_of_its_file(admin: Admin, tmp_path: Path) -> None:
    token = tmp_path / "token"
    token.write_text("s3cret\n")
    settings = AdminSettings.model_validate({"listen": str(admin.endpoint), "token_file": str(token)})
    AdminClient.from_settings(settings).call("GET", "/api/v1/status")
    assert admin.asked[0][2] == "Bearer s3cret"


@pytest.mark.parametrize(
    ("reply", "reason"),
    [
        ((401, "application/json", b"{}"), "status 401 Unauthorized"),
        ((500, "text/plain", b"oops"), "status 500"),
        ((200, "text/html", b"<html>"), "no usable answer"),
        ((200, "application/json", b"{"), "no usable answer"),
        ((200, "application/json", b"\xff"), "no usable answer"),
        ((200, "application/json", b"[1]"), "not a JSON object"),
    ],
)
def test_what_is_no_answer_gives_one_line(admin: Admin, reply: tuple[int, str, bytes], reason: str) -> None:
    admin.reply = reply
    with pytest.raises(AdminError, match=reason) as caught:
        AdminClient(f"http://{admin.endpoint}").call("GET", "/api/v1/status")
    assert "\n" not in str(caught.value)


def test_nobody_there_asks_whether_the_proxy_runs() -> None:
    with Admin() as server:
        url = f"http://{server.endpoint}"
    with pytest.raises(AdminError) as caught:
        AdminClient(url).call("GET", "/api/v1/status")
    assert str(caught.value) == (f"{url}: no usable answer (connection refused); is dnsproxy serve running?")


@pytest.mark.parametrize("url", ["127.0.0.1:9153", "http://", "ftp://127.0.0.1"])
def test_a_url_that_is_none_gives_one_line(url: str) -> None:
    with pytest.raises(AdminError):
        AdminClient(url).call("GET", "/")


def test_silence_ends_at_the_deadline(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("dnsproxy.ops.client.TIMEOUT", 0.05)
    # Connections wait in the backlog; nobody accepts them.
    with Admin() as server, pytest.raises(AdminError, match="no usable answer"):
        AdminClient(f"http://{server.endpoint}").call("GET", "/")


@pytest.mark.parametrize("content", [None, b"\xff\xfe", b"two words", b"a\r\nX-Header: b", b""])
def test_a_token_that_cannot_be_read_names_the_file(tmp_path: Path, content: bytes | None) -> None:
    token = tmp_path / "token"
    if content is not None:
        token.write_bytes(content)
    with pytest.raises(AdminError, match="a token is|No such file") as caught:
        AdminClient("http://127.0.0.1:1", AdminFiles(token=token))
    assert str(caught.value).startswith(f"{token}: ")


def test_no_admin_endpoint_means_nothing_to_ask() -> None:
    with pytest.raises(AdminError, match=r"admin\.listen is null"):
        AdminClient.from_settings(AdminSettings(listen=None))


@pytest.mark.parametrize(
    ("host", "url"),
    [
        ("0.0.0.0", "http://127.0.0.1:9153"),
        ("::", "http://[::1]:9153"),
        ("fd00::1", "http://[fd00::1]:9153"),
        ("10.0.0.1", "http://10.0.0.1:9153"),
    ],
)
def test_a_wildcard_is_asked_on_loopback(host: str, url: str) -> None:
    settings = AdminSettings.model_validate({"listen": str(Endpoint(host, 9153))})
    assert AdminClient.from_settings(settings)._url == url


@pytest.mark.parametrize(
    ("status", "content", "told"),
    [
        # What is wrong with an order is said without the way it went.
        (409, b'{"error": "nothing is frozen"}', "nothing is frozen"),
        (400, b'{"error": "serial: must be a whole number"}', "serial: must be a whole number"),
        (401, b'{"error": "a token"}', "{url}/api/v1/unfreeze: status 401 Unauthorized: a token"),
        (409, b'{"error": 3}', "{url}/api/v1/unfreeze: status 409 Conflict"),
        (409, b'["x"]', "{url}/api/v1/unfreeze: status 409 Conflict"),
        (409, b"{", "{url}/api/v1/unfreeze: status 409 Conflict"),
    ],
)
def test_the_reason_of_a_refusal_is_told(admin: Admin, status: int, content: bytes, told: str) -> None:
    admin.reply = (status, "application/json", content)
    url = f"http://{admin.endpoint}"
    with pytest.raises(AdminError) as caught:
        AdminClient(url).call("POST", "/api/v1/unfreeze", {})
    assert str(caught.value) == told.format(url=url)


@pytest.fixture
def secure_admin(tmp_path: Path) -> Iterator[tuple[Admin, Path]]:
    """The same over HTTPS, and the file of its certificate, which is for another name than its address."""
    certificate = make_certificate(tmp_path, "proxy.example")
    with Admin() as server:
        server.socket = server_context(certificate).wrap_socket(server.socket, server_side=True)
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        yield server, certificate
        server.shutdown()
        thread.join()


def test_the_certificate_of_the_configuration_is_believed_whatever_its_name(
    secure_admin: tuple[Admin, Path], tmp_path: Path
) -> None:
    server, certificate = secure_admin
    settings = AdminSettings.model_validate(
        {
            "listen": str(server.endpoint),
            "tls": {"cert_file": str(certificate), "key_file": str(certificate)},
        }
    )
    assert AdminClient.from_settings(settings).call("GET", "/api/v1/status") == {"ready": True}
    other = make_certificate(tmp_path, "other.example")
    settings = settings.model_copy(update={"tls": AdminTlsSettings(cert_file=other, key_file=other)})
    with pytest.raises(AdminError, match="certificate not trusted: .*"):
        AdminClient.from_settings(settings).call("GET", "/api/v1/status")


def test_https_with_an_authority(secure_admin: tuple[Admin, Path]) -> None:
    server, certificate = secure_admin
    with pytest.raises(AdminError, match="not trusted"):
        AdminClient(f"https://127.0.0.1:{server.server_port}").call("GET", "/")
    files = AdminFiles(ca=certificate)
    with pytest.raises(AdminError, match="certificate not trusted: .*mismatch"):
        AdminClient(f"https://127.0.0.1:{server.server_port}", files).call("GET", "/")


def test_https_for_the_name_that_is_asked_for(tmp_path: Path) -> None:
    certificate = make_certificate(tmp_path, "127.0.0.1")
    with Admin() as server:
        server.socket = server_context(certificate).wrap_socket(server.socket, server_side=True)
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        files = AdminFiles(ca=certificate)
        answer = AdminClient(f"https://127.0.0.1:{server.server_port}", files).call("POST", "/x")
        server.shutdown()
        thread.join()
    assert answer == {"ready": True}
    assert server.asked == [("POST", "/x", None, "{}")]


def test_an_authority_that_cannot_be_read(tmp_path: Path) -> None:
    missing = tmp_path / "missing.pem"
    with pytest.raises(AdminError, match=f"{missing}: No such file"):
        AdminClient("https://127.0.0.1:1", AdminFiles(ca=missing))


def test_the_token_goes_to_no_other_host(admin: Admin, tmp_path: Path) -> None:
    token = tmp_path / "token"
    token.write_text("s3cret")
    admin.reply = (302, "text/plain", b"")
    with pytest.raises(AdminError):
        AdminClient(f"http://{admin.endpoint}", AdminFiles(token=token)).call("GET", "/")
    assert len(admin.asked) == 1
