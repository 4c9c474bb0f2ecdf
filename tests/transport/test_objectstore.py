"""The client against moto and SeaweedFS, which are real servers, and one with the limits of OSS."""

from __future__ import annotations

import os
import ssl
import sys
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import Any

import obstore.store
import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer

from dnsproxy.errors import StartError, StoreError
from dnsproxy.transport import objectstore as module
from dnsproxy.transport.objectstore import ChangedMeanwhileError, ObjectStore, Stored, read_credentials
from tests.certificates import make_certificate, server_context
from tests.fakes.objectstores import (
    ACCESS_KEY,
    BUCKET,
    SECRET_KEY,
    Oss,
    Store,
    credentials,
    find_seaweedfs,
    seaweedfs,
)
from tests.needs import give_up
from tests.netns.authority import Authority

pytestmark = pytest.mark.xdist_group("moto")

DOMAIN = "objects.example"


@pytest.fixture(scope="module")
def weed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Store]:
    if find_seaweedfs() is None:
        give_up("a real object store is not tried: SeaweedFS is packaged for x86_64 only")
    with seaweedfs(tmp_path_factory.mktemp("weed"), DOMAIN) as store:
        yield store


@pytest.fixture(params=["moto", "weed"])
def store(request: pytest.FixtureRequest) -> Store:
    found: Store = request.getfixturevalue(request.param)
    return found


@pytest.fixture
async def oss() -> AsyncIterator[tuple[Oss, TestServer]]:
    oss = Oss()
    server = await oss.serve()
    yield oss, server
    await server.close()


async def refusal(client: ObjectStore) -> str:
    with pytest.raises(StoreError) as caught:
        await client.get()
    text = str(caught.value)
    assert "\n" not in text
    assert SECRET_KEY not in text
    return text


# -- reading and writing ---------------------------------------------------------------


async def test_an_object_comes_and_changes(store: Store) -> None:
    client = ObjectStore(store.place())
    with pytest.raises(FileNotFoundError, match="no such object"):
        await client.get()
    first = await client.put(b"one", None)
    assert await client.get() == Stored(b"one", first.mark)
    assert await client.get(unless=first.mark) is None
    second = await client.put(b"two", first)
    assert second.mark != first.mark
    assert await client.get(unless=first.mark) == Stored(b"two", second.mark)
    assert client.writes_conditionally


async def test_nobody_writes_over_what_he_has_not_seen(store: Store) -> None:
    mine, theirs = ObjectStore(place := store.place()), ObjectStore(place)
    seen = await mine.put(b"one", None)
    with pytest.raises(ChangedMeanwhileError):
        await theirs.put(b"other", None)
    await theirs.put(b"two", seen)
    with pytest.raises(ChangedMeanwhileError):
        await mine.put(b"three", seen)
    stored = await mine.get()
    assert stored is not None
    assert stored.content == b"two"


async def test_what_is_public_is_served_as_a_snapshot(moto: Store) -> None:
    place = moto.place()
    await ObjectStore(place).put(b"a.b.c", None)
    result = obstore.get(module.make_client(place), place.key)
    assert result.attributes["Content-Type"] == "application/jose"
    assert result.attributes["Cache-Control"] == "no-cache"


async def test_a_large_object_is_not_read(moto: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    client = ObjectStore(moto.place())
    await client.put(b"x" * 1001, None)
    monkeypatch.setattr(module, "MAX_OCTETS", 1000)
    assert await refusal(client) == "larger than 1000 octets"


async def test_keys_are_taken_as_they_are(store: Store) -> None:
    for key in ("plain", "a b/ü%41+&=.jws"):
        client = ObjectStore(store.place(key))
        await client.put(key.encode(), None)
        stored = await client.get()
        assert stored is not None
        assert stored.content == key.encode()


# -- names of buckets in names of hosts ----------------------------------------------------


def through(monkeypatch: pytest.MonkeyPatch, proxy: str) -> None:
    """Have the client go through an HTTP proxy, so that no name of a host is looked up."""
    plain = obstore.store.S3Store

    def make(**options: Any) -> obstore.store.S3Store:
        options["client_options"]["proxy_url"] = proxy
        return plain(**options)

    monkeypatch.setattr(obstore.store, "S3Store", make)


async def test_a_real_store_takes_the_bucket_as_part_of_the_host(
    weed: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    plain = ObjectStore(weed.place("virtual.jws"))
    await plain.put(b"a.b.c", None)
    through(monkeypatch, weed.endpoint)
    place = weed.place("virtual.jws", endpoint=f"http://{DOMAIN}", addressing="virtual")
    stored = await ObjectStore(place).get()
    assert stored is not None
    assert stored.content == b"a.b.c"


async def test_a_store_like_oss(
    oss: tuple[Oss, TestServer], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The bucket is part of the host; conditional writes are refused once, then not asked for again."""
    fake, server = oss
    through(monkeypatch, str(server.make_url("")))
    store = Store("http://oss-cn-hangzhou.example", tmp_path)
    client = ObjectStore(store.place("a.jws", addressing="virtual", region="cn-hangzhou"))
    with pytest.raises(FileNotFoundError):
        await client.get()
    first = await client.put(b"one", None)
    assert not client.writes_conditionally
    await client.put(b"two", first)
    assert fake.objects == {"a.jws": b"two"}
    assert await client.get(unless=first.mark) is not None
    assert {host for _, host in fake.seen} == {f"{BUCKET}.oss-cn-hangzhou.example"}
    assert [method for method, _ in fake.seen].count("PUT") == 3
    wrong = ObjectStore(store.place("a.jws", addressing="path"))
    assert await refusal(wrong) == "the store wants addressing: virtual"


# -- credentials ----------------------------------------------------------------------------


async def test_a_wrong_secret_key_is_refused_until_the_file_is_mended(weed: Store, tmp_path: Path) -> None:
    file = credentials(tmp_path, secret_key="wrong-one")  # noqa: S106 - wrong on purpose
    client = ObjectStore(weed.place(credentials_file=file))
    assert await refusal(client) == ("the signature was refused: a wrong secret key, or a wrong region")
    credentials(tmp_path)
    os.utime(file, ns=(1, 1))  # certainly another time
    await client.put(b"one", None)


async def test_credentials_of_the_environment(weed: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", ACCESS_KEY)
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", SECRET_KEY)
    await ObjectStore(weed.place(credentials_file=None)).put(b"one", None)


async def test_credentials_of_an_instance(weed: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    """The metadata service of EC2, version 2, as AWS documents it."""

    async def token(_request: web.Request) -> web.Response:
        return web.Response(text="session")

    async def role(_request: web.Request) -> web.Response:
        return web.Response(text="helper-role")

    async def keys(request: web.Request) -> web.Response:
        assert request.headers["X-aws-ec2-metadata-token"] == "session"
        return web.json_response(
            {
                "Code": "Success",
                "Type": "AWS-HMAC",
                "AccessKeyId": ACCESS_KEY,
                "SecretAccessKey": SECRET_KEY,
                "Token": "",
                "LastUpdated": "2026-11-24T10:00:00Z",
                "Expiration": "2099-01-01T00:00:00Z",
            }
        )

    app = web.Application()
    app.router.add_put("/latest/api/token", token)
    app.router.add_get("/latest/meta-data/iam/security-credentials/", role)
    app.router.add_get("/latest/meta-data/iam/security-credentials/helper-role", keys)
    server = TestServer(app, host="127.0.0.1")
    await server.start_server()
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("AWS_METADATA_ENDPOINT", str(server.make_url("")))
    try:
        await ObjectStore(weed.place(credentials_file=None)).put(b"one", None)
    finally:
        await server.close()


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", "no section [default]"),
        ("[other]\naws_access_key_id = a\n", "no section [default]"),
        ("[default]\naws_access_key_id = a\n", "[default] has no aws_secret_access_key"),
        (f"{SECRET_KEY}\n", "not a file of keys by section"),
    ],
)
def test_files_that_hold_no_credentials(tmp_path: Path, text: str, expected: str) -> None:
    file = tmp_path / "credentials"
    file.write_text(text)
    with pytest.raises(StoreError) as caught:
        read_credentials(file, "default")
    assert str(caught.value) == f"credentials_file {file}: {expected}"


def test_a_session_token_is_taken_too(tmp_path: Path) -> None:
    file = tmp_path / "credentials"
    file.write_text("[x]\naws_access_key_id=a\naws_secret_access_key=b%c\naws_session_token=d\n")
    assert read_credentials(file, "x") == {
        "access_key_id": "a",
        "secret_access_key": "b%c",
        "session_token": "d",
    }


async def test_a_file_that_is_not_there(moto: Store, tmp_path: Path) -> None:
    missing = tmp_path / "missing"
    assert (
        await refusal(ObjectStore(moto.place(credentials_file=missing)))
        == f"{missing}: No such file or directory"
    )


# -- TLS ----------------------------------------------------------------------------------------


async def serve_tls(context: ssl.SSLContext) -> TestServer:
    async def handle(_request: web.Request) -> web.Response:
        headers = {"ETag": '"1"', "Last-Modified": "Tue, 24 Nov 2026 10:00:00 GMT"}
        return web.Response(body=b"a.b.c", headers=headers)

    app = web.Application()
    app.router.add_get("/{key:.*}", handle)
    server = TestServer(app, host="127.0.0.1", scheme="https")
    await server.start_server(ssl=context)
    return server


def issued(folder: Path, host: str) -> tuple[Path, ssl.SSLContext]:
    authority = Authority(folder / "authority")
    certificate = authority.issue(host)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate.certificate, certificate.key)
    return authority.file, context


def self_signed(folder: Path, days: int) -> tuple[Path, ssl.SSLContext]:
    certificate = make_certificate(folder, "127.0.0.1", days=days)
    return certificate, server_context(certificate)


@pytest.mark.parametrize(
    ("make", "trusted", "expected"),
    [
        (lambda folder: issued(folder, "127.0.0.1"), True, None),
        (lambda folder: issued(folder, "127.0.0.1"), False, "its authority is not known"),
        (lambda folder: issued(folder, "127.0.0.2"), True, "it is for another name"),
        (lambda folder: self_signed(folder, -1), True, "it has expired"),
        (lambda folder: self_signed(folder, 1), True, "it is an authority's own, signed by itself"),
    ],
)
async def test_the_certificate_of_a_store(
    tmp_path: Path,
    make: Callable[[Path], tuple[Path, ssl.SSLContext]],
    *,
    trusted: bool,
    expected: str | None,
) -> None:
    authority, context = make(tmp_path)
    server = await serve_tls(context)
    try:
        endpoint = f"https://127.0.0.1:{server.port}"
        client = ObjectStore(Store(endpoint, tmp_path).place(ca_file=authority if trusted else None))
        if expected is None:
            assert await client.get() == Stored(b"a.b.c", '"1"')
        else:
            assert await refusal(client) == f"certificate not trusted: {expected}"
    finally:
        await server.close()


async def test_an_authority_that_cannot_be_used(tmp_path: Path) -> None:
    file = tmp_path / "ca.pem"
    file.write_text("no certificate")
    store = Store("https://127.0.0.1:9", tmp_path)
    assert (await refusal(ObjectStore(store.place(ca_file=file)))).startswith("not a usable place: ")


# -- what goes wrong ------------------------------------------------------------------------------


async def test_nobody_listens(tmp_path: Path) -> None:
    assert await refusal(ObjectStore(Store("http://127.0.0.1:9", tmp_path).place())) == "Connection refused"


async def test_a_bucket_that_is_not_there(moto: Store) -> None:
    assert await refusal(ObjectStore(moto.place(bucket="no-such-bucket"))) == "there is no such bucket"


@pytest.mark.parametrize(
    ("status", "body", "expected"),
    [
        (403, "<Error><Code>AccessDenied</Code></Error>", "access denied"),
        (403, "<Error><Code>SlowDown</Code></Error>", "SlowDown (status 403 Forbidden)"),
        (503, "busy", "status 503 Service Unavailable"),
    ],
)
async def test_what_a_store_answers_is_said_in_a_line(
    tmp_path: Path, status: int, body: str, expected: str
) -> None:
    async def handle(_request: web.Request) -> web.Response:
        return web.Response(status=status, text=body)

    app = web.Application()
    app.router.add_get("/{key:.*}", handle)
    server = TestServer(app, host="127.0.0.1")
    await server.start_server()
    try:
        shown = await refusal(ObjectStore(Store(str(server.make_url("/")), tmp_path).place()))
    finally:
        await server.close()
    assert shown == expected


def test_without_the_extra_it_does_not_start(moto: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "obstore", None)
    with pytest.raises(StartError, match=r"pip install 'obstore"):
        ObjectStore(moto.place())
