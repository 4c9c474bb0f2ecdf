from __future__ import annotations

import asyncio
import ipaddress
import socket
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from aiohttp.test_utils import TestClient, TestServer
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.x509.oid import NameOID
from structlog.testing import capture_logs

from dnsproxy import supervise
from dnsproxy.certificate import http_certificate
from dnsproxy.core import seal
from dnsproxy.core.registry import Wanted
from dnsproxy.errors import StartError
from dnsproxy.helper import publish
from dnsproxy.helper import server as helper_server
from dnsproxy.helper.observe import Look
from dnsproxy.helper.outlets import Outlets, make_targets
from dnsproxy.helper.publish import create_app
from dnsproxy.helper.server import serve_helper
from dnsproxy.helper.service import Helper
from dnsproxy.keys import write_key_pair
from dnsproxy.settings import Settings
from dnsproxy.settings.learning import HelperSettings, TlsSettings
from dnsproxy.settings.publishing import FileTarget
from dnsproxy.settings.registries import NameSettings, RegistrySettings
from dnsproxy.settings.values import Endpoint
from tests.fakes.nameserver import Nameserver, closed_port, zone

KEY = Ed25519PrivateKey.generate()
TRUSTED = {seal.key_id(KEY.public_key()): KEY.public_key()}
WALL = 1_764_000_000.0
Client = TestClient[aiohttp.web.Request, aiohttp.web.Application]
Connect = Callable[..., Awaitable[Client]]


class Source:
    """A helper's resolver and clock."""

    def __init__(self) -> None:
        self.addresses: tuple[str, ...] = ("192.0.2.1",)
        self.wall = WALL
        wanted = [Wanted("auth.example.", "auth", "r")]
        self.helper = Helper("helper-a", wanted, self.look, KEY, interval=30, wall=lambda: self.wall)

    async def look(self, _wanted: Wanted) -> Sequence[Look]:
        return (Look("10.0.0.2:53", self.addresses, 60),)

    async def change(self) -> int:
        self.addresses = (f"192.0.2.{int(self.addresses[0].rpartition('.')[2]) + 1}",)
        self.wall += 1
        return (await self.helper.round()).serial


@pytest.fixture
def source() -> Source:
    return Source()


@pytest.fixture
async def connect(source: Source) -> AsyncIterator[Connect]:
    clients: list[Client] = []

    async def start(token: str | None = None, most: int = 100, first_wait: float = 0) -> Client:
        app = create_app(source.helper, token, lambda: source.wall, most=most, first_wait=first_wait)
        client = TestClient(TestServer(app))
        await client.start_server()
        clients.append(client)
        return client

    yield start
    source.helper.release()
    for client in clients:
        await client.close()


async def test_the_snapshot_is_served_as_a_jws_with_its_tag(source: Source, connect: Connect) -> None:
    snapshot = await source.helper.round()
    response = await (await connect()).get("/v1/snapshot")
    assert response.status == 200
    assert response.content_type == "application/jose"
    assert response.headers["ETag"] == f'"{snapshot.serial}-{snapshot.issued_at}"'
    assert response.headers["Cache-Control"] == "public, max-age=5, stale-if-error=86400"
    assert "Vary" not in response.headers
    assert seal.verify(await response.text(), TRUSTED) == snapshot


async def test_a_known_tag_gets_304_until_there_is_a_new_issue(source: Source, connect: Connect) -> None:
    await source.helper.round()
    client = await connect()
    tag = (await client.get("/v1/snapshot")).headers["ETag"]
    for offered in (tag, f'"other", {tag}', f"W/{tag}", "*"):
        response = await client.get("/v1/snapshot", headers={"If-None-Match": offered})
        assert (response.status, await response.read()) == (304, b"")
        assert response.headers["ETag"] == tag
    source.wall += 30
    await source.helper.round()
    assert (await client.get("/v1/snapshot", headers={"If-None-Match": tag})).status == 200


@pytest.mark.parametrize("offered", ['"1-1"', "junk", '"', ""])
async def test_another_tag_gets_the_document(source: Source, connect: Connect, offered: str) -> None:
    await source.helper.round()
    response = await (await connect()).get("/v1/snapshot", headers={"If-None-Match": offered})
    assert response.status == 200


async def test_head_is_get_without_the_document(source: Source, connect: Connect) -> None:
    await source.helper.round()
    client = await connect()
    whole, head = await client.get("/v1/snapshot"), await client.head("/v1/snapshot")
    assert (head.status, await head.read()) == (200, b"")
    for name in ("ETag", "Cache-Control", "Content-Length", "Content-Type"):
        assert head.headers[name] == whole.headers[name]
    again = await client.head("/v1/snapshot", headers={"If-None-Match": head.headers["ETag"]})
    assert again.status == 304


async def test_what_a_cache_may_keep(source: Source, connect: Connect) -> None:
    """The plain document and that it is unmodified, until the snapshot expires; nothing else at all."""
    client, closed = await connect(), await connect("secret-token")
    assert (await client.get("/v1/snapshot")).headers["Cache-Control"] == "no-store"  # 503
    snapshot = await source.helper.round()
    tag = {"If-None-Match": f'"{snapshot.serial}-{snapshot.issued_at}"'}
    source.wall += 1000
    for headers, status in (({}, 200), (tag, 304)):
        response = await client.get("/v1/snapshot", headers=headers)
        assert response.status == status
        assert response.headers["Cache-Control"] == "public, max-age=5, stale-if-error=85400"
    for path in ("/v1/snapshot?wait=0", "/v1/snapshot?wait=x", "/health", "/nothing"):
        assert (await client.get(path)).headers["Cache-Control"] == "no-store", path
    assert (await closed.get("/v1/snapshot")).headers["Cache-Control"] == "no-store"  # 401
    response = await closed.get("/v1/snapshot", headers={"Authorization": "Bearer secret-token"})
    assert response.headers["Cache-Control"] == "private, max-age=5, stale-if-error=85400"
    assert response.headers["Vary"] == "Authorization"
    source.wall += 86400
    assert (await client.get("/v1/snapshot")).headers["Cache-Control"] == "no-store"


async def test_while_the_helper_starts_a_request_waits_for_the_first_snapshot(
    source: Source, connect: Connect, monkeypatch: pytest.MonkeyPatch
) -> None:
    waiting, wait_first = asyncio.Event(), source.helper.wait_first

    async def noted() -> None:
        waiting.set()
        await wait_first()

    monkeypatch.setattr(source.helper, "wait_first", noted)
    client = await connect(first_wait=20)
    early = asyncio.ensure_future(client.get("/v1/snapshot"))
    async with asyncio.timeout(10):
        await waiting.wait()
        assert not early.done()
        await source.helper.round()
        assert (await early).status == 200


async def test_before_the_first_snapshot_it_is_503_with_a_time(connect: Connect) -> None:
    client = await connect()
    for path in ("/v1/snapshot", "/v1/snapshot?wait=0"):
        response = await client.get(path)
        assert response.status == 503
        assert int(response.headers["Retry-After"]) > 0
        assert "error" in await response.json()


async def until_waiting(source: Source) -> None:
    """Return when a request waits for the next serial."""
    async with asyncio.timeout(20):
        while not source.helper._changed._waiters:
            await asyncio.sleep(0.005)


async def test_a_blocking_query_returns_with_the_next_serial(source: Source, connect: Connect) -> None:
    serial = (await source.helper.round()).serial
    client = await connect()
    waiting = asyncio.create_task(client.get(f"/v1/snapshot?wait={serial}&timeout=100"))
    await until_waiting(source)
    assert not waiting.done()
    new = await source.change()
    async with asyncio.timeout(20):
        response = await waiting
    assert response.status == 200
    assert seal.verify(await response.text(), TRUSTED).serial == new


async def test_a_blocking_query_for_another_serial_returns_at_once(source: Source, connect: Connect) -> None:
    serial = (await source.helper.round()).serial
    async with asyncio.timeout(20):
        response = await (await connect()).get(f"/v1/snapshot?wait={serial - 1}&timeout=100")
    assert response.status == 200


async def test_at_the_timeout_the_answer_is_as_without_waiting(source: Source, connect: Connect) -> None:
    serial = (await source.helper.round()).serial
    client = await connect()
    plain = await client.get(f"/v1/snapshot?wait={serial}&timeout=0.01")
    assert plain.status == 200
    tag = plain.headers["ETag"]
    same = await client.get(f"/v1/snapshot?wait={serial}&timeout=0", headers={"If-None-Match": tag})
    assert same.status == 304


async def test_release_answers_those_who_wait(source: Source, connect: Connect) -> None:
    serial = (await source.helper.round()).serial
    client = await connect()
    waiting = asyncio.create_task(client.get(f"/v1/snapshot?wait={serial}&timeout=100"))
    await until_waiting(source)
    source.helper.release()
    async with asyncio.timeout(20):
        assert (await waiting).status == 200


@pytest.mark.parametrize(
    "query",
    ["wait=", "wait=x", "wait=-1", "wait=1.5", "wait=" + "9" * 5000, "wait=1&timeout=x", "wait=1&timeout=-1",
     "wait=1&timeout=nan", "wait=%D9%A1"],
)  # fmt: skip
async def test_a_bad_wait_is_400_with_a_reason(source: Source, connect: Connect, query: str) -> None:
    await source.helper.round()
    response = await (await connect()).get(f"/v1/snapshot?{query}")
    assert response.status == 400
    assert "must be" in (await response.json())["error"]


async def test_those_beyond_the_bound_of_waiting_queries_are_answered_at_once(
    source: Source, connect: Connect
) -> None:
    serial = (await source.helper.round()).serial
    client = await connect(most=1)
    path = f"/v1/snapshot?wait={serial}&timeout=100"
    waiting = asyncio.create_task(client.get(path))
    await until_waiting(source)
    async with asyncio.timeout(20):
        answered = await client.get(path)
        assert answered.status == 200
        again = await client.get(path, headers={"If-None-Match": answered.headers["ETag"]})
        assert again.status == 304
    assert not waiting.done()
    await source.change()
    async with asyncio.timeout(20):
        assert (await waiting).status == 200


@pytest.mark.parametrize("header", [None, "", "Bearer", "Bearer wrong", "Basic s3cret", "Bearer s3crét"])
async def test_without_the_token_it_is_401(source: Source, connect: Connect, header: str | None) -> None:
    await source.helper.round()
    headers = {} if header is None else {"Authorization": header}
    response = await (await connect("s3cret")).get("/v1/snapshot", headers=headers)
    assert response.status == 401
    assert response.headers["WWW-Authenticate"] == "Bearer"


async def test_with_the_token_it_is_served_and_health_needs_none(source: Source, connect: Connect) -> None:
    await source.helper.round()
    client = await connect("s3cret")
    headers = {"Authorization": "bearer s3cret"}
    assert (await client.get("/v1/snapshot", headers=headers)).status == 200
    assert (await client.get("/health")).status == 200


async def test_health_tells_serial_names_and_age(source: Source, connect: Connect) -> None:
    client = await connect()
    nothing: dict[str, Any] = {"serial": None, "names": 0, "age": None, "targets": [], "election": None}
    starting = {"status": "starting", **nothing}
    assert await (await client.get("/health")).json() == starting
    serial = (await source.helper.round()).serial
    source.wall += 12
    health = {"status": "ok", "serial": serial, "names": 1, "age": 12, "targets": [], "election": None}
    assert await (await client.get("/health")).json() == health
    source.addresses = ()
    await source.helper.round()
    assert (await (await client.get("/health")).json())["status"] == "degraded"


async def test_health_tells_of_each_target_and_keeps_reasons_in_the_log(
    source: Source, connect: Connect, tmp_path: Path
) -> None:
    good, bad = tmp_path / "snapshot.jws", tmp_path / "nowhere" / "snapshot.jws"
    entries = [FileTarget(type="file", path=path) for path in (good, bad)]
    source.helper.outlets = Outlets(make_targets(entries))
    client = await connect()
    waiting = [(entry["status"], entry["serial"]) for entry in (await health(client))["targets"]]
    assert waiting == [("waiting", None)] * 2
    async with asyncio.TaskGroup() as group:
        running = group.create_task(source.helper.run())
        async with asyncio.timeout(20):
            while {entry["status"] for entry in (await health(client))["targets"]} != {"ok", "failing"}:
                await asyncio.sleep(0.01)
        running.cancel()
    told = await health(client)
    assert told["status"] == "degraded"
    assert told["targets"][0] == {
        "name": f"file://{good}",
        "status": "ok",
        "serial": told["serial"],
        "failures": 0,
    }
    assert told["targets"][1]["failures"] >= 1
    assert "No such file" not in str(told)


async def health(client: Client) -> dict[str, Any]:
    document: dict[str, Any] = await (await client.get("/health")).json()
    return document


async def test_health_is_degraded_when_a_registry_does_not_tell(
    source: Source, connect: Connect, monkeypatch: pytest.MonkeyPatch
) -> None:
    await source.helper.round()
    client = await connect()
    assert (await (await client.get("/health")).json())["status"] == "ok"
    monkeypatch.setattr(Helper, "failing", True)
    assert (await (await client.get("/health")).json())["status"] == "degraded"


def write_certificate(folder: Path) -> tuple[Path, Path]:
    """Write a self-signed certificate for 127.0.0.1, and its key."""
    folder.mkdir(exist_ok=True)
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "test")])
    address = x509.IPAddress(ipaddress.ip_address("127.0.0.1"))
    now = datetime.now(UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(hours=1))
        .not_valid_after(now + timedelta(hours=1))
        .add_extension(x509.SubjectAlternativeName([address]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    cert_file, key_file = folder / "cert.pem", folder / "key.pem"
    cert_file.write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
    key_file.write_bytes(
        key.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )
    )
    return cert_file, key_file


def test_bad_tls_files_are_named(tmp_path: Path) -> None:
    cert, key = write_certificate(tmp_path)
    _, other_key = write_certificate(tmp_path / "other")
    junk = tmp_path / "junk.pem"
    junk.write_bytes(b"junk")
    locked = tmp_path / "locked.pem"
    loaded = serialization.load_pem_private_key(key.read_bytes(), None)
    locked.write_bytes(
        loaded.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.BestAvailableEncryption(b"secret"),
        )
    )
    for bad in (
        TlsSettings(cert_file=tmp_path / "absent", key_file=key),
        TlsSettings(cert_file=cert, key_file=other_key),
        TlsSettings(cert_file=cert, key_file=locked),
        TlsSettings(cert_file=junk, key_file=key),
        TlsSettings(cert_file=cert, key_file=key, client_ca_file=junk),
        TlsSettings(cert_file=cert, key_file=key, client_ca_file=tmp_path / "absent"),
    ):
        with pytest.raises(StartError, match=r"^helper\.tls: /") as caught:
            http_certificate("helper.tls", bad.cert_file, bad.key_file, bad.client_ca_file)
        assert "\n" not in str(caught.value)


def settings_for(folder: Path, resolver: Endpoint, **helper: object) -> Settings:
    if not (folder / "helper.key").exists():
        write_key_pair(folder)
    name = NameSettings(name="auth.example.", role="auth")
    options = HelperSettings(signing_key_file=folder / "helper.key")
    # Port 0 is for tests, so the check of the configuration is passed by.
    update = {"listen": Endpoint("127.0.0.1", 0), "resolvers": [resolver], **helper}
    return Settings(
        registries=[RegistrySettings(name="r", provider="generic", names=[name])],
    ).model_copy(update={"helper": options.model_copy(update=update)})


@asynccontextmanager
async def running(settings: Settings) -> AsyncIterator[int]:
    """Serve while the context lasts; gives the port."""
    stop = asyncio.Event()
    port: asyncio.Future[int] = asyncio.get_running_loop().create_future()
    async with asyncio.timeout(60), asyncio.TaskGroup() as group:
        group.create_task(serve_helper(settings, stop, lambda endpoint: port.set_result(endpoint.port)))
        try:
            yield await port
        finally:
            stop.set()


async def first_snapshot(
    session: aiohttp.ClientSession, url: str, context: ssl.SSLContext | None = None
) -> str:
    while True:
        async with session.get(f"{url}/v1/snapshot", ssl=context or True) as response:
            if response.status == 200:
                return await response.text()
            assert response.status == 503
        await asyncio.sleep(0.01)


async def test_the_whole_helper_serves_what_a_resolver_says(tmp_path: Path) -> None:
    async with Nameserver(zone("auth.example. 60 A 192.0.2.1")) as server:
        settings = settings_for(tmp_path, server.endpoint, publish_file=tmp_path / "out.jws")
        with capture_logs() as logs:
            async with running(settings) as port, aiohttp.ClientSession() as session:
                token = await first_snapshot(session, f"http://127.0.0.1:{port}")
    key = seal.load_public_key((tmp_path / "helper.pub").read_bytes())
    snapshot = seal.verify(token, {seal.key_id(key): key})
    assert [(entry.name, entry.addresses) for entry in snapshot.names] == [("auth.example.", ("192.0.2.1",))]
    listening = next(entry for entry in logs if entry["event"] == "helper.listening")
    assert listening["port"] == port
    assert {"helper.started", "helper.stopped"} <= {entry["event"] for entry in logs}
    assert "helper.open" not in {entry["event"] for entry in logs}


async def test_stopping_answers_blocking_queries(tmp_path: Path) -> None:
    sent = asyncio.Event()

    async def note(*_: object) -> None:
        sent.set()

    trace = aiohttp.TraceConfig()
    trace.on_request_headers_sent.append(note)
    async with (
        Nameserver(zone("auth.example. 60 A 192.0.2.1")) as server,
        aiohttp.ClientSession(trace_configs=[trace]) as session,
    ):
        async with running(settings_for(tmp_path, server.endpoint)) as port:
            url = f"http://127.0.0.1:{port}"
            await first_snapshot(session, url)
            async with session.get(f"{url}/health") as response:
                serial = (await response.json())["serial"]
            sent.clear()
            waiting = asyncio.create_task(session.get(f"{url}/v1/snapshot?wait={serial}&timeout=100"))
            await sent.wait()
            # It went out on the connection that was open; when a response comes over a
            # newer connection, the server has read it.
            async with session.get(f"{url}/health") as response:
                assert response.status == 200
            assert not waiting.done()
        assert (await waiting).status == 200


async def test_tls_and_client_certificates_are_asked_for(tmp_path: Path) -> None:
    cert, key = write_certificate(tmp_path / "server")
    client_cert, client_key = write_certificate(tmp_path / "client")
    tls = TlsSettings(cert_file=cert, key_file=key, client_ca_file=client_cert)
    stranger = ssl.create_default_context(cafile=str(cert))
    friend = ssl.create_default_context(cafile=str(cert))
    friend.load_cert_chain(client_cert, client_key)
    async with (
        Nameserver(zone("auth.example. 60 A 192.0.2.1")) as server,
        running(settings_for(tmp_path, server.endpoint, tls=tls)) as port,
        aiohttp.ClientSession() as session,
    ):
        url = f"https://127.0.0.1:{port}"
        assert await first_snapshot(session, url, friend)
        with pytest.raises(aiohttp.ClientError):
            await first_snapshot(session, url, stranger)


async def test_a_changed_certificate_is_shown_to_the_next_connection(tmp_path: Path) -> None:
    cert, key = write_certificate(tmp_path / "server")
    tls = TlsSettings(cert_file=cert, key_file=key)
    async with (
        Nameserver(zone("auth.example. 60 A 192.0.2.1")) as server,
        running(settings_for(tmp_path, server.endpoint, tls=tls)) as port,
    ):
        for _ in range(2):
            context = ssl.create_default_context(cafile=str(cert))
            async with aiohttp.ClientSession() as session:
                assert await first_snapshot(session, f"https://127.0.0.1:{port}", context)
            for new, old in zip(write_certificate(tmp_path / "next"), (cert, key), strict=True):
                new.replace(old)


async def test_half_sent_requests_keep_no_proxy_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each client has half of the connections; those without a request are closed first."""
    monkeypatch.setattr(publish, "MAX_WAITERS", 100)
    monkeypatch.setattr(helper_server, "_OTHER_CONNECTIONS", 20)
    async with (
        Nameserver(zone("auth.example. 60 A 192.0.2.1")) as server,
        running(settings_for(tmp_path, server.endpoint)) as port,
        AsyncExitStack() as stack,
    ):
        loop = asyncio.get_running_loop()
        socks: list[socket.socket] = []
        for _ in range(300):
            sock = stack.enter_context(socket.socket())
            sock.setblocking(False)
            await loop.sock_connect(sock, ("127.0.0.1", port))
            sock.send(b"GET /v1/snapshot HTTP/1.1\r\nHost: a\r\nX-")
            socks.append(sock)
        async with aiohttp.ClientSession() as session:
            assert await first_snapshot(session, f"http://127.0.0.1:{port}")
        # The first 240 have been closed.
        for sock in socks[:240]:
            with suppress(ConnectionError):
                assert await asyncio.wait_for(loop.sock_recv(sock, 1), 10) == b""


async def test_a_port_in_use_is_one_clear_line(tmp_path: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        settings = settings_for(tmp_path, closed_port(), listen=Endpoint("127.0.0.1", port))
        with pytest.raises(StartError) as caught:
            await serve_helper(settings, asyncio.Event())
    assert str(caught.value) == f"helper.listen: 127.0.0.1 port {port}: Address already in use"


async def test_nothing_to_learn_is_a_start_error(tmp_path: Path) -> None:
    settings = settings_for(tmp_path, closed_port()).model_copy(update={"registries": []})
    with pytest.raises(StartError, match="no name to learn"):
        await serve_helper(settings, asyncio.Event())


@pytest.mark.parametrize(("host", "guarded", "warned"), [
    ("0.0.0.0", False, True), ("10.0.0.1", False, True), ("10.0.0.1", True, False), ("::1", False, False),
])  # fmt: skip
def test_an_open_port_is_warned_of(host: str, guarded: bool, warned: bool) -> None:
    with capture_logs() as logs:
        helper_server._warn_when_open(Endpoint(host, 8953), guarded=guarded)
    assert [entry["event"] for entry in logs] == ["helper.open"] * warned


async def test_a_helper_that_fails_is_started_again_and_its_endpoint_stays(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(supervise, "FIRST_SECONDS", 0.001)
    failures = 2
    really = Helper.restore

    async def restore(helper: Helper) -> None:
        nonlocal failures
        if failures:
            failures -= 1
            raise RuntimeError("can't start new thread")
        await really(helper)

    monkeypatch.setattr(Helper, "restore", restore)
    async with Nameserver(zone("auth.example. 60 A 192.0.2.1")) as server:
        with capture_logs() as logs:
            async with (
                running(settings_for(tmp_path, server.endpoint)) as port,
                aiohttp.ClientSession() as session,
            ):
                assert await first_snapshot(session, f"http://127.0.0.1:{port}")
    failed = [entry["task"] for entry in logs if entry["event"] == "task.failed"]
    assert failed == ["helper", "helper"]
