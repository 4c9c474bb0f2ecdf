"""The client against a stand-in on loopback that follows the API's documents (see there)."""

from __future__ import annotations

import asyncio
import base64
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from dnsproxy.errors import StartError, StoreError
from dnsproxy.settings.stores import KubernetesPlace
from dnsproxy.transport import apiserver as module
from dnsproxy.transport.apiserver import MAX_DATA, ApiObject, ConflictError, Entry, GoneError
from tests.fakes.apiserver import ApiServer, Pod

NAME, KEY = "dnsproxy-snapshot", "snapshot.jws"


@pytest.fixture
async def api() -> AsyncIterator[ApiServer]:
    api = ApiServer()
    yield api
    # Whatever a test does, no watch is left behind.
    async with asyncio.timeout(20):
        while api.watching:
            api.hang_up()
            await asyncio.sleep(0.01)


@pytest.fixture
async def url(api: ApiServer) -> AsyncIterator[str]:
    async with api.serve() as server:
        yield str(server.make_url("")).rstrip("/")


@pytest.fixture(params=["ConfigMap", "Secret"])
def kind(request: pytest.FixtureRequest) -> str:
    found: str = request.param
    return found


@pytest.fixture
async def entry(api: ApiServer, url: str, tmp_path: Path, kind: str) -> AsyncIterator[ApiObject]:
    entry = ApiObject(place(api, url, tmp_path, kind=kind))
    yield entry
    await entry.close()


def place(api: ApiServer, url: str, folder: Path, **keys: str) -> KubernetesPlace:
    return KubernetesPlace.model_validate({"kubeconfig": api.kubeconfig(folder, url), **keys})


def put(api: ApiServer, text: str, kind: str = "ConfigMap") -> None:
    if kind == "Secret":
        api.put(NAME, "secrets", **{KEY: base64.b64encode(text.encode()).decode()})
    else:
        api.put(NAME, **{KEY: text})


async def until_watched(api: ApiServer) -> None:
    async with asyncio.timeout(20):
        while not api.watching:
            await asyncio.sleep(0.005)


async def refusal(entry: ApiObject) -> str:
    with pytest.raises(StoreError) as caught:
        await entry.get()
    text = str(caught.value)
    assert "\n" not in text
    assert "first-token" not in text
    return text


# -- reading and writing -----------------------------------------------------------------


async def test_an_entry_comes_and_changes(api: ApiServer, entry: ApiObject, kind: str) -> None:
    with pytest.raises(FileNotFoundError, match=f"there is no {kind} {NAME}"):
        await entry.get()
    first = await entry.put("a.b.c", None)
    assert await entry.get() == first == Entry("a.b.c", first.version)
    second = await entry.put("d.e.f", first)
    assert await entry.get() == Entry("d.e.f", second.version)
    assert second.version != first.version
    assert api.seen == ["get", "create", "get", "patch", "get"]


async def test_other_keys_stay(api: ApiServer, url: str, tmp_path: Path) -> None:
    api.put(NAME, other="kept")
    entry = ApiObject(place(api, url, tmp_path))
    held = await entry.get()
    assert held.text is None
    await entry.put("a.b.c", held)
    assert api.objects["configmaps", NAME]["data"] == {"other": "kept", KEY: "a.b.c"}
    await entry.close()


async def test_nobody_writes_over_what_he_has_not_seen(api: ApiServer, entry: ApiObject, kind: str) -> None:
    held = await entry.put("a.b.c", None)
    put(api, "theirs", kind)
    with pytest.raises(ConflictError):
        await entry.put("d.e.f", held)
    with pytest.raises(ConflictError):
        await entry.put("d.e.f", None)
    assert (await entry.get()).text == "theirs"


async def test_an_object_that_was_deleted_meanwhile(api: ApiServer, entry: ApiObject, kind: str) -> None:
    held = await entry.put("a.b.c", None)
    api.delete(NAME, "secrets" if kind == "Secret" else "configmaps")
    with pytest.raises(FileNotFoundError):
        await entry.put("d.e.f", held)


async def test_the_limit_of_size(api: ApiServer, entry: ApiObject, kind: str) -> None:
    held = await entry.put("x" * MAX_DATA, None)
    with pytest.raises(StoreError, match=r"holds at most 1 MiB, and the snapshot has 1048577 octets"):
        await entry.put("x" * (MAX_DATA + 1), held)
    # With what else is in there it is too much for the server only.
    where = api.objects["secrets" if kind == "Secret" else "configmaps", NAME]
    where["data"]["other"] = "eHh4eA=="
    with pytest.raises(StoreError, match=r"holds at most 1 MiB: .* Too long"):
        await entry.put("x" * MAX_DATA, held)


async def test_a_secret_that_is_not_base64(api: ApiServer, url: str, tmp_path: Path) -> None:
    api.put(NAME, "secrets", **{KEY: "!"})
    entry = ApiObject(place(api, url, tmp_path, kind="Secret"))
    assert "not base64" in await refusal(entry)
    await entry.close()


# -- watching ------------------------------------------------------------------------------


async def test_a_watch_tells_of_the_next_change(api: ApiServer, entry: ApiObject, kind: str) -> None:
    held = await entry.put("a.b.c", None)
    async with asyncio.timeout(20), asyncio.TaskGroup() as tasks:
        watching = tasks.create_task(entry.watch(held.version, 100))
        await until_watched(api)
        api.put("another", **{KEY: "not ours"})
        api.bookmark("secrets" if kind == "Secret" else "configmaps")
        put(api, "d.e.f", kind)
    found = watching.result()
    assert found is not None
    assert found.text == "d.e.f"
    assert int(found.version) > int(held.version)


async def test_what_changed_before_the_watch_is_not_missed(
    api: ApiServer, entry: ApiObject, kind: str
) -> None:
    held = await entry.put("a.b.c", None)
    put(api, "d.e.f", kind)
    async with asyncio.timeout(20):
        found = await entry.watch(held.version, 100)
    assert found is not None
    assert found.text == "d.e.f"


async def test_a_watch_ends_in_time(api: ApiServer, entry: ApiObject) -> None:
    held = await entry.put("a.b.c", None)
    async with asyncio.timeout(20):
        assert await entry.watch(held.version, 0.1) is None
    # A bookmark is no change.
    async with asyncio.timeout(20), asyncio.TaskGroup() as tasks:
        watching = tasks.create_task(entry.watch(held.version, 0.5))
        await until_watched(api)
        api.bookmark()
    assert watching.result() is None


async def test_a_watch_goes_on_when_the_connection_ends(api: ApiServer, entry: ApiObject, kind: str) -> None:
    held = await entry.put("a.b.c", None)
    async with asyncio.timeout(20), asyncio.TaskGroup() as tasks:
        watching = tasks.create_task(entry.watch(held.version, 100))
        for _ in range(3):
            await until_watched(api)
            count = api.seen.count("watch")
            api.hang_up()
            while api.seen.count("watch") == count:
                await asyncio.sleep(0.005)
        put(api, "d.e.f", kind)
    found = watching.result()
    assert found is not None
    assert found.text == "d.e.f"


async def test_a_version_that_is_gone(api: ApiServer, entry: ApiObject) -> None:
    held = await entry.put("a.b.c", None)
    api.compact()
    async with asyncio.timeout(20):
        with pytest.raises(GoneError):
            await entry.watch(held.version, 100)
    assert (await entry.get()).text == "a.b.c"


async def test_an_object_that_is_deleted_while_watched(api: ApiServer, entry: ApiObject, kind: str) -> None:
    held = await entry.put("a.b.c", None)

    async def watch() -> None:
        with pytest.raises(FileNotFoundError):
            await entry.watch(held.version, 100)

    async with asyncio.timeout(20), asyncio.TaskGroup() as tasks:
        tasks.create_task(watch())
        await until_watched(api)
        api.delete(NAME, "secrets" if kind == "Secret" else "configmaps")


# -- who asks ------------------------------------------------------------------------------


async def test_a_pod_uses_its_service_account_and_its_token_as_it_rotates(
    api: ApiServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pod = Pod(tmp_path, api)
    async with api.serve(pod.context) as server:
        monkeypatch.setenv("KUBERNETES_SERVICE_HOST", "127.0.0.1")
        monkeypatch.setenv("KUBERNETES_SERVICE_PORT", str(server.port))
        entry = ApiObject(KubernetesPlace(), pod.account)
        try:
            held = await entry.put("a.b.c", None)
            for turn in ("second-token", "third-token"):
                # The old one is refused from now on; the kubelet has put the new one into the volume.
                pod.write_token(turn)
                api.token = turn
                assert (await entry.get()).text == "a.b.c"
            pod.write_token("fourth-token")
            api.token = "fourth-token"  # noqa: S105 - of a server of the tests
            async with asyncio.timeout(20), asyncio.TaskGroup() as tasks:
                watching = tasks.create_task(entry.watch(held.version, 100))
                await until_watched(api)
                put(api, "d.e.f")
            found = watching.result()
            assert found is not None
            assert found.text == "d.e.f"
            api.token = "of-somebody-else"  # noqa: S105 - the same
            assert await refusal(entry) == "the API server refused the credentials (401)"
        finally:
            await entry.close()


async def test_a_server_that_is_not_of_the_cluster_is_not_trusted(
    api: ApiServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "other").mkdir()
    pod, other = Pod(tmp_path, api), Pod(tmp_path / "other", api)
    async with api.serve(other.context) as server:
        monkeypatch.setenv("KUBERNETES_SERVICE_HOST", "127.0.0.1")
        monkeypatch.setenv("KUBERNETES_SERVICE_PORT", str(server.port))
        assert "certificate" in (await refusal(ApiObject(KubernetesPlace(), pod.account))).lower()
    assert api.seen == []


async def test_rights_that_are_missing_are_named(api: ApiServer, entry: ApiObject) -> None:
    api.allowed = {"get"}
    with pytest.raises(StoreError, match=r"status 403: .* cannot create resource"):
        await entry.put("a.b.c", None)
    api.allowed = set()
    assert "cannot get resource" in await refusal(entry)


async def test_outside_of_a_pod(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("KUBERNETES_SERVICE_HOST", raising=False)
    text = await refusal(ApiObject(KubernetesPlace(), tmp_path / "nothing"))
    assert text.startswith("the service account of this pod cannot be used: ")


@pytest.mark.parametrize("content", ["", "junk: [", "[]", "{}", '{"clusters": 1, "contexts": 2}'])
async def test_files_that_are_no_kubeconfig(tmp_path: Path, content: str) -> None:
    file = tmp_path / "kubeconfig"
    file.write_text(content)
    text = await refusal(ApiObject(KubernetesPlace(kubeconfig=file)))
    assert text.startswith(f"{file} cannot be used: ")


async def test_a_context_that_is_not_there(api: ApiServer, url: str, tmp_path: Path) -> None:
    entry = ApiObject(place(api, url, tmp_path, context="nowhere"))
    assert "cannot be used" in await refusal(entry)


async def test_nobody_listens_and_then_somebody_does(api: ApiServer, tmp_path: Path) -> None:
    entry = ApiObject(place(api, "http://127.0.0.1:9", tmp_path))
    assert await refusal(entry)
    async with api.serve() as server:
        # The kubeconfig has been mended; no restart is needed.
        api.kubeconfig(tmp_path, str(server.make_url("")).rstrip("/"))
        put(api, "a.b.c")
        assert (await entry.get()).text == "a.b.c"
        await entry.close()


def test_without_the_extra_it_does_not_start(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "lightkube.generic_resource", None)
    monkeypatch.setattr(module, "_resource", module._resource.__wrapped__)
    with pytest.raises(StartError, match=r"pip install 'lightkube"):
        ApiObject(KubernetesPlace())
