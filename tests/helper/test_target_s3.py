"""The target against moto's server and against a store with the limits of OSS."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import obstore.store
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from structlog.testing import capture_logs

from dnsproxy.core import seal
from dnsproxy.core.learned import Snapshot
from dnsproxy.errors import PublishError
from dnsproxy.helper.outlets import make_target
from dnsproxy.helper.target_s3 import S3Target
from dnsproxy.settings import publishing
from dnsproxy.transport.objectstore import ObjectStore, Stored
from tests.fakes.objectstores import Oss, Store

pytestmark = pytest.mark.xdist_group("moto")

KEY = Ed25519PrivateKey.generate()


def token(serial: int, issuer: str = "helper-a") -> str:
    return seal.sign(Snapshot(issuer, serial, 1000 + serial, 2000, ()), KEY)


def target(store: Store, key: str | None = None, **keys: Any) -> S3Target:
    entry = publishing.S3Target.model_validate({"type": "s3", **store.keys(key, **keys)})
    made = make_target(entry)
    assert isinstance(made, S3Target)
    return made


async def test_what_is_written_is_read(moto: Store) -> None:
    mine = target(moto)
    assert mine.name.startswith("s3://127.0.0.1:")
    assert await mine.read() is None
    for serial in (1, 2, 2, 3):
        await mine.write(token(serial))
        assert await mine.read() == token(serial)
    await mine.close()


async def test_of_two_helpers_the_later_snapshot_stays(moto: Store) -> None:
    one, two = target(moto, "shared.jws"), target(moto, "shared.jws")
    await one.write(token(5))
    # The other has another serial in mind, as a helper that was cut off has.
    with pytest.raises(PublishError, match="serial 5 of helper-a is there, later than 4"):
        await two.write(token(4))
    await two.write(token(6))
    # What the first has last written is not what is there any more: it looks, and gives way.
    with pytest.raises(PublishError, match="serial 6 of helper-a is there"):
        await one.write(token(5))
    await one.write(token(7))
    assert await two.read() == token(7)


async def test_a_restart_does_not_go_back(moto: Store) -> None:
    await target(moto, "again.jws").write(token(9))
    restarted = target(moto, "again.jws")
    with pytest.raises(PublishError, match="serial 9"):
        await restarted.write(token(8))
    assert await restarted.read() == token(9)


async def test_junk_and_another_issuer_are_replaced(moto: Store) -> None:
    mine = target(moto, "junk.jws")
    await target(moto, "junk.jws").write(token(9, "helper-b"))
    await mine.write(token(1))
    assert await mine.read() == token(1)


async def test_who_is_always_overtaken_says_so(moto: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    mine = target(moto, "busy.jws")
    get = ObjectStore.get
    count = 0

    async def overtaken(store: ObjectStore, unless: str | None = None) -> Stored | None:
        nonlocal count
        count += 1
        try:
            found = await get(store, unless)
        except FileNotFoundError:
            found = None
        await ObjectStore(store._place).put(b"junk %d" % count, found)
        return found

    monkeypatch.setattr(ObjectStore, "get", overtaken)
    with pytest.raises(PublishError, match="others keep writing there"):
        await mine.write(token(1))


async def test_a_store_that_refuses(moto: Store) -> None:
    mine = target(moto, bucket="no-such-bucket")
    for call in (mine.read(), mine.write(token(1))):
        with pytest.raises(PublishError, match=r"^there is no such bucket$"):
            await call


async def test_without_conditional_writes_it_reads_before_each(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    oss = Oss()
    server = await oss.serve()
    plain = obstore.store.S3Store

    def make(**options: Any) -> obstore.store.S3Store:
        options["client_options"]["proxy_url"] = str(server.make_url(""))  # no name is looked up
        return plain(**options)

    monkeypatch.setattr(obstore.store, "S3Store", make)
    store = Store("http://oss-cn-hangzhou.example", tmp_path)
    one = target(store, "a.jws", addressing="virtual")
    two = target(store, "a.jws", addressing="virtual")
    try:
        with capture_logs() as logs:
            for serial in (1, 2):
                await one.write(token(serial))
            await two.write(token(3))
            with pytest.raises(PublishError, match="serial 3 of helper-a is there"):
                await one.write(token(2))
    finally:
        await server.close()
    assert [entry["event"] for entry in logs] == ["helper.target_unguarded"] * 2
    assert oss.objects == {"a.jws": token(3).encode()}
