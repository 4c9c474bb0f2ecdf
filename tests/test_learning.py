"""How addresses get here by one configuration, and by the next."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import pytest
from structlog.testing import capture_logs

from dnsproxy import config
from dnsproxy.address_service import AddressService
from dnsproxy.core import seal
from dnsproxy.core.addresses.table import ServedTable
from dnsproxy.core.learned import Snapshot
from dnsproxy.errors import StartError
from dnsproxy.keys import read_private_key, write_key_pair
from dnsproxy.learning import LearningPipeline
from dnsproxy.net.statefile import open_snapshot
from dnsproxy.settings import Settings
from dnsproxy.transport import extras
from tests.strategies import learned

NAME = "abc-registry-vpc.cn-hangzhou.cr.aliyuncs.com."
OTHER = "def-registry-vpc.cn-hangzhou.cr.aliyuncs.com."


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    write_key_pair(tmp_path)
    (tmp_path / "state").mkdir()
    (tmp_path / "state" / "learned.jws").write_text(signed(tmp_path, 1, "10.0.0.1", "10.0.0.2") + "\n")
    return tmp_path


def signed(folder: Path, serial: int, *addresses: str) -> str:
    now = int(time.time())
    entries = tuple(learned(name, addresses, observed_at=now) for name in (NAME, OTHER))
    document = Snapshot("helper-a", serial, now, now + 86_400, entries)
    return seal.sign(document, read_private_key(folder / "helper.key"))


def settings(folder: Path, instances: str = "abc", network: str = "{}", learn: str = "") -> Settings:
    registries = "".join(
        f"- {{name: {one}, region: cn-hangzhou, instance: {one}, auth: none, storage: none,"
        f" network: {network}}}\n"
        for one in instances.split()
    )
    return config.parse(
        f"""
registries:
{registries}
learn:
  sources: [{{url: "file://{folder}/snapshot"}}]
  trusted_keys: [{folder}/helper.pub]
  state_file: {folder}/state/learned.jws
  verify: {{ports: []}}
  {learn}
"""
    )


class Proxy:
    """What `app.Proxy` has of learned addresses."""

    def __init__(self, given: Settings) -> None:
        self.table = ServedTable()
        self.learning = LearningPipeline(given)
        self.service = AddressService(self.learning.addresses, self._take)
        self.service.load(self.learning.trust)
        self.learning.begin(self.service)

    def _take(self, table: ServedTable) -> None:
        self.table = table

    async def reload(self, given: Settings) -> None:
        earlier, self.learning = self.learning, LearningPipeline(given)
        self.learning.verify(self.service)
        self.service.configure(self.learning.addresses, self.learning.reopen(self.service))
        self.learning.begin(self.service, earlier)
        await self.service.order(lambda _state, _wall_now: None)

    def addresses(self) -> dict[str, tuple[str, ...]]:
        return {name: held.learned.addresses for name, held in self.table.sets.items()}


async def test_what_was_learned_is_kept_without_the_disk(folder: Path) -> None:
    proxy = Proxy(settings(folder))
    (folder / "state" / "learned.jws").unlink()
    await proxy.reload(settings(folder, learn="ttl: 7"))
    assert proxy.addresses() == {NAME: ("10.0.0.1", "10.0.0.2")}


async def test_a_name_that_is_added_is_known_from_what_was_signed_before(folder: Path) -> None:
    proxy = Proxy(settings(folder))
    assert set(proxy.addresses()) == {NAME}
    await proxy.reload(settings(folder, "abc def"))
    assert set(proxy.addresses()) == {NAME, OTHER}


async def test_a_name_that_is_removed_is_forgotten(folder: Path) -> None:
    proxy = Proxy(settings(folder, "abc def"))
    await proxy.reload(settings(folder, "def"))
    assert set(proxy.addresses()) == {OTHER}
    assert [entry.name for entry in proxy.table.managed] == [OTHER]


async def test_an_address_that_is_refused_now_is_not_answered(folder: Path) -> None:
    proxy = Proxy(settings(folder))
    await proxy.reload(settings(folder, network="{conflicts: [10.0.0.2/32]}"))
    assert proxy.addresses() == {NAME: ("10.0.0.1",)}


async def test_what_a_key_that_is_removed_signed_is_forgotten(folder: Path) -> None:
    write_key_pair(folder / "other")
    after = settings(folder)
    keys = after.learn.model_copy(update={"trusted_keys": [folder / "other" / "helper.pub"]})
    proxy = Proxy(settings(folder))
    with capture_logs() as logs:
        await proxy.reload(after.model_copy(update={"learn": keys}))
    assert proxy.addresses() == {}
    assert proxy.service.lifecycle.snapshots == {}
    assert [line["reason"] for line in logs if line["event"] == "learned.not_kept"] == ["unknown_key"]


async def test_a_snapshot_that_comes_during_verification_is_verified_too(folder: Path) -> None:
    """Else a reload would go back to the one before, or forget the first snapshot of a helper."""
    proxy = Proxy(settings(folder))
    after = LearningPipeline(settings(folder, "abc def"))
    after.verify(proxy.service)
    later = signed(folder, 2, "10.0.0.3")
    proxy.service.accept(open_snapshot(later, proxy.learning.trust))
    assert after.reopen(proxy.service) is None
    after.verify(proxy.service)
    opened = after.reopen(proxy.service)
    assert opened is not None
    assert [entry.token for entry in opened] == [later]
    assert {entry.name for entry in opened[0].snapshot.names} == {NAME, OTHER}


async def test_counters_and_status_of_sources_continue(folder: Path) -> None:
    proxy = Proxy(settings(folder))
    assert proxy.learning.puller is not None
    proxy.learning.puller.rejected["older"] = 3
    await proxy.reload(settings(folder, learn="ttl: 7"))
    assert proxy.learning.puller.rejected == {"older": 3}


async def test_every_reason_is_told(folder: Path, tmp_path: Path) -> None:
    update: dict[str, Any] = {
        "trusted_keys": [tmp_path / "none.pub"],
        "on_change": tmp_path / "none",
        "state_file": folder / "helper.pub" / "learned.jws",
    }
    given = settings(folder)
    with pytest.raises(StartError) as caught:
        LearningPipeline(given.model_copy(update={"learn": given.learn.model_copy(update=update)}))
    starts = [reason.partition(":")[0] for reason in caught.value.reasons]
    assert starts == ["learn.state_file", str(tmp_path / "none.pub"), "learn.on_change"]


def test_a_source_whose_library_is_missing_is_told_at_the_start(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stores = (
        "{type: s3, endpoint: 'https://s3.example', bucket: names, key: k}, {type: kubernetes, namespace: n}"
    )
    text = f"""
registries: [{{name: hz, region: cn-hangzhou, instance: abc, auth: none, storage: none}}]
learn: {{sources: [{stores}], trusted_keys: [{folder}/helper.pub], state_file: {folder}/state/learned.jws}}
"""
    made = config.parse(text)
    LearningPipeline(made)
    monkeypatch.setattr(extras, "find_spec", lambda _library: None)
    with pytest.raises(StartError) as caught:
        LearningPipeline(made)
    assert caught.value.reasons == (
        "learn.sources: type s3 needs another package: pip install 'obstore>=0.11,<0.13'",
        "learn.sources: type kubernetes needs another package: pip install 'lightkube>=1.0.1,<2'",
    )
