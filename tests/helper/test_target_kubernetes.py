"""The target against a stand-in for the API server (tests/fakes/apiserver.py)."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from dnsproxy.core import seal
from dnsproxy.core.learned import Snapshot
from dnsproxy.errors import PublishError
from dnsproxy.helper.outlets import make_target
from dnsproxy.helper.target_kubernetes import KubernetesTarget
from dnsproxy.settings import publishing
from dnsproxy.transport.apiserver import ApiObject, Entry
from tests.fakes.apiserver import ApiServer

KEY = Ed25519PrivateKey.generate()
NAME = "dnsproxy-snapshot"
Make = Callable[[], KubernetesTarget]


def token(serial: int, issuer: str = "helper-a") -> str:
    return seal.sign(Snapshot(issuer, serial, 1000 + serial, 2000, ()), KEY)


@pytest.fixture
def api() -> ApiServer:
    return ApiServer()


@pytest.fixture
async def make(api: ApiServer, tmp_path: Path) -> AsyncIterator[Make]:
    made: list[KubernetesTarget] = []
    async with api.serve() as server:
        kubeconfig = api.kubeconfig(tmp_path, str(server.make_url("")).rstrip("/"))

        def target() -> KubernetesTarget:
            entry = publishing.KubernetesTarget(type="kubernetes", kubeconfig=kubeconfig)
            found = make_target(entry)
            assert isinstance(found, KubernetesTarget)
            made.append(found)
            return found

        yield target
        for target_ in made:
            await target_.close()


async def test_what_is_written_is_read(api: ApiServer, make: Make) -> None:
    mine = make()
    assert mine.name.startswith("kubernetes://-/configmap/dnsproxy-snapshot/snapshot.jws")
    assert await mine.read() is None
    for serial in (1, 2, 2, 3):
        await mine.write(token(serial))
        assert await mine.read() == token(serial)
    # Once it has written, it knows the version to write over.
    api.seen.clear()
    await mine.write(token(4))
    assert api.seen == ["patch"]


async def test_of_two_helpers_the_later_snapshot_stays(make: Make) -> None:
    one, two = make(), make()
    await one.write(token(5))
    with pytest.raises(PublishError, match="serial 5 of helper-a is there, later than 4"):
        await two.write(token(4))
    await two.write(token(6))
    with pytest.raises(PublishError, match="serial 6 of helper-a is there"):
        await one.write(token(5))
    await one.write(token(7))
    assert await two.read() == token(7)


async def test_an_empty_object_as_the_manifests_make_it_is_filled(api: ApiServer, make: Make) -> None:
    api.put(NAME)
    api.allowed = {"get", "patch"}
    await make().write(token(1))
    assert api.objects["configmaps", NAME]["data"] == {"snapshot.jws": token(1)}


async def test_without_the_right_to_make_it_the_reason_says_so(api: ApiServer, make: Make) -> None:
    api.allowed = {"get", "patch"}
    with pytest.raises(PublishError, match="cannot create resource"):
        await make().write(token(1))


async def test_a_namespace_that_is_not_there_is_named(api: ApiServer, make: Make) -> None:
    api.has_namespace = False
    with pytest.raises(PublishError, match='it cannot be made there: namespaces "dnsproxy" not found'):
        await make().write(token(1))


async def test_an_object_that_is_deleted_is_made_again(api: ApiServer, make: Make) -> None:
    mine = make()
    await mine.write(token(1))
    api.delete(NAME)
    await mine.write(token(2))
    assert await mine.read() == token(2)


async def test_who_is_always_overtaken_says_so(
    api: ApiServer, make: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    get = ApiObject.get

    async def overtaken(entry: ApiObject) -> Entry:
        found = await get(entry)
        api.put(NAME, other="x")
        return found

    api.put(NAME)
    monkeypatch.setattr(ApiObject, "get", overtaken)
    with pytest.raises(PublishError, match="others keep writing there"):
        await make().write(token(1))


async def test_a_server_that_refuses(api: ApiServer, make: Make) -> None:
    api.allowed = set()
    mine = make()
    for call in (mine.read(), mine.write(token(1))):
        with pytest.raises(PublishError, match="cannot get resource"):
            await call


async def test_a_snapshot_that_is_too_large(make: Make) -> None:
    with pytest.raises(PublishError, match="at most 1 MiB"):
        await make().write("x" * 1_048_577)
