from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from aiohttp import web

from dnsproxy.errors import StoreError
from dnsproxy.transport import etcd as module
from dnsproxy.transport.etcd import EtcdCluster, parse, refusal, refusal_text
from dnsproxy.transport.etcd_keys import read_key
from tests.fakes.etcd import KEY, Member, Store, hang, refuse, source


@pytest.fixture
async def members() -> AsyncIterator[list[Member]]:
    store = Store()
    store.put(KEY, b"a.b.c")
    async with Member(store) as one, Member(store) as two, Member(store) as three:
        yield [one, two, three]


async def failure(cluster: EtcdCluster) -> str:
    async with asyncio.timeout(20):
        with pytest.raises(StoreError) as caught:
            await read_key(cluster, KEY)
    await cluster.close()
    return str(caught.value)


async def test_one_member_is_asked_until_it_fails(members: list[Member]) -> None:
    cluster = EtcdCluster(source(*members), draw=0.5)
    for _ in range(3):
        assert (await read_key(cluster, KEY)).value == b"a.b.c"
    assert [len(member.asked) for member in members] == [0, 3, 0]
    await members[1].stop()
    assert (await read_key(cluster, KEY)).value == b"a.b.c"
    assert (len(members[0].asked), len(members[2].asked)) == (0, 1)
    await cluster.close()


@pytest.mark.parametrize(
    "fault",
    [
        hang,
        refuse(503, error="etcdserver: no leader", code=14),
        refuse(504, error="etcdserver: request timed out", code=4),
        refuse(404),
        refuse(200, error="no header"),
    ],
    ids=["silent", "no leader", "timeout", "another server", "nonsense"],
)
async def test_another_member_is_asked_when_one_cannot(
    members: list[Member], monkeypatch: pytest.MonkeyPatch, fault: web.Request
) -> None:
    monkeypatch.setattr(module, "ANSWER_DEADLINE", 0.3)
    members[0].fault = fault  # type: ignore[assignment]  # parametrize has no types
    cluster = EtcdCluster(source(*members), draw=0.0)
    assert (await read_key(cluster, KEY)).value == b"a.b.c"
    assert members[1].asked
    await cluster.close()


async def test_a_refusal_is_final(members: list[Member]) -> None:
    members[0].fault = refuse(403, error="etcdserver: permission denied", code=7)
    assert await failure(EtcdCluster(source(*members), draw=0.0)) == "permission denied"
    assert members[1].asked == []


async def test_each_member_that_failed_is_named(members: list[Member]) -> None:
    urls = [member.url for member in members]
    cluster = EtcdCluster(source(*members), draw=0.0)
    for member in members:
        await member.stop()
    assert await failure(cluster) == "; ".join(f"{url}: Connection refused" for url in urls)


async def test_a_user_signs_in_once_and_again_when_the_token_is_forgotten(
    members: list[Member], tmp_path: Path
) -> None:
    store = members[0].store
    store.password = "s3cret"  # noqa: S105 - of a fake
    file = tmp_path / "password"
    file.write_text("s3cret\n")
    cluster = EtcdCluster(source(*members, user="proxy", password_file=file), draw=0.0)
    for _ in range(2):
        await read_key(cluster, KEY)
    assert members[0].tokens == ["token0"] * 2
    store.tokens = {"another"}  # the member was started again
    await read_key(cluster, KEY)
    assert members[0].tokens[2:] == ["token0", "token1"]
    await cluster.close()


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (None, "password_file: .*No such file"),
        ("wrong", "authentication failed, invalid user ID or password"),
    ],
)
async def test_a_password_that_is_missing_or_wrong(
    members: list[Member], tmp_path: Path, content: str | None, reason: str
) -> None:
    members[0].store.password = "s3cret"  # noqa: S105 - of a fake
    file = tmp_path / "password"
    if content is not None:
        file.write_text(content)
    cluster = EtcdCluster(source(*members, user="proxy", password_file=file))
    with pytest.raises(StoreError, match=reason):
        await read_key(cluster, KEY)
    await cluster.close()


async def test_an_answer_without_end_is_cut_off(
    members: list[Member], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "MAX_ANSWER", 1000)
    members[0].fault = refuse(200, kvs="x" * 2000)
    assert "larger than 1000 octets" in await failure(EtcdCluster(source(*members), draw=0.0))


async def test_files_for_tls_that_cannot_be_used(tmp_path: Path) -> None:
    class Nobody(Member):
        url = "https://127.0.0.1:1"

    for name, content in (("none.pem", None), ("junk.pem", "junk")):
        file = tmp_path / name
        if content is not None:
            file.write_text(content)
        told = await failure(EtcdCluster(source(Nobody(Store()), tls={"ca_file": file})))
        assert told.startswith(f"tls: {file}: ")


def test_a_certificate_that_the_gateway_refuses_is_told_in_words() -> None:
    text = b"CommonName of client sending a request against gateway will be ignored and not used as expected"
    assert "no client certificate with a common name" in str(refusal(text, 400))


@pytest.mark.parametrize("content", [b"", b"[]", b"{", b"\xff", b"[" * 100_000])
def test_what_is_no_json_object_is_not_of_etcd(content: bytes) -> None:
    with pytest.raises(StoreError, match="not one of etcd"):
        parse(content)


def test_the_words_of_a_stream_are_those_of_an_answer() -> None:
    told = refusal_text("rpc error: code = PermissionDenied desc = etcdserver: permission denied")
    assert str(told) == "permission denied"
