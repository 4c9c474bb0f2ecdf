"""What a proxy knows goes on under another configuration."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import pytest

from dnsproxy import config
from dnsproxy.core import seal
from dnsproxy.core.book import Book
from dnsproxy.core.learned import Snapshot
from dnsproxy.errors import StartError
from dnsproxy.keys import read_private_key, write_key_pair
from dnsproxy.learning import Learning
from dnsproxy.settings import Settings
from dnsproxy.transport import extras
from tests.strategies import learned

NAME = "abc-registry-vpc.cn-hangzhou.cr.aliyuncs.com."
OTHER = "def-registry-vpc.cn-hangzhou.cr.aliyuncs.com."


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    write_key_pair(tmp_path)
    now = int(time.time())
    entries = tuple(learned(name, ("10.0.0.1", "10.0.0.2"), observed_at=now) for name in (NAME, OTHER))
    document = Snapshot("helper-a", 1, now, now + 86_400, entries)
    token = seal.sign(document, read_private_key(tmp_path / "helper.key"))
    (tmp_path / "state").mkdir()
    (tmp_path / "state" / "learned.jws").write_text(f"{token}\n")
    return tmp_path


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


class Answered:
    """What is answered at last."""

    def __init__(self) -> None:
        self.book = Book()

    def take(self, book: Book) -> None:
        self.book = book

    def addresses(self) -> dict[str, tuple[str, ...]]:
        return {name: entry.learned.addresses for name, entry in self.book.entries.items()}


def changed(before: Settings, after: Settings, *, freeze: bool = False) -> tuple[Learning, Answered]:
    answered = Answered()
    earlier = Learning(before, answered.take)
    earlier.load()
    assert answered.addresses()
    if freeze:
        earlier.vetting.freeze()
    learning = Learning(after, answered.take)
    learning.take_over(earlier)
    return learning, answered


async def test_what_was_learned_goes_on_without_the_disk(folder: Path) -> None:
    before = settings(folder)
    answered = Answered()
    earlier = Learning(before, answered.take)
    earlier.load()
    (folder / "state" / "learned.jws").unlink()
    learning = Learning(settings(folder, learn="ttl: 7"), answered.take)
    learning.take_over(earlier)
    assert answered.addresses() == {NAME: ("10.0.0.1", "10.0.0.2")}
    # It is written anew, as the file may be another one by now.
    await learning.close()
    assert (folder / "state" / "learned.jws").exists()


async def test_a_name_that_is_added_is_known_from_what_was_signed_before(folder: Path) -> None:
    _, answered = changed(settings(folder), settings(folder, "abc def"))
    assert set(answered.addresses()) == {NAME, OTHER}


async def test_a_name_that_is_taken_out_is_forgotten(folder: Path) -> None:
    learning, answered = changed(settings(folder, "abc def"), settings(folder, "def"))
    assert set(answered.addresses()) == {OTHER}
    assert [entry.name for entry in learning.vetting.wanted()] == [OTHER]


async def test_orders_stay(folder: Path) -> None:
    learning, _ = changed(settings(folder), settings(folder, learn="ttl: 7"), freeze=True)
    assert learning.vetting.orders.freeze is not None


async def test_an_address_that_is_refused_now_is_not_answered(folder: Path) -> None:
    _, answered = changed(settings(folder), settings(folder, network="{conflicts: [10.0.0.2/32]}"))
    assert answered.addresses() == {NAME: ("10.0.0.1",)}


async def test_a_key_that_is_not_trusted_any_more_speaks_no_more(folder: Path) -> None:
    write_key_pair(folder / "other")
    after = settings(folder, learn="history: 3")
    keys = after.learn.model_copy(update={"trusted_keys": [folder / "other" / "helper.pub"]})
    learning, _ = changed(settings(folder), after.model_copy(update={"learn": keys}))
    assert learning.learner.book == Book()


async def test_every_reason_is_told(folder: Path, tmp_path: Path) -> None:
    update: dict[str, Any] = {
        "trusted_keys": [tmp_path / "none.pub"],
        "on_change": tmp_path / "none",
        "state_file": folder / "helper.pub" / "learned.jws",
    }
    given = settings(folder)
    with pytest.raises(StartError) as caught:
        Learning(given.model_copy(update={"learn": given.learn.model_copy(update=update)}), lambda _: None)
    starts = [reason.partition(":")[0] for reason in caught.value.reasons]
    assert starts == ["learn.state_file", str(tmp_path / "none.pub"), "learn.on_change"]


def book_of(name: str, address: str, changed_at: float, serial: int) -> Book:
    now = int(changed_at)
    entry = learned(name, (address,), observed_at=now, changed_at=changed_at)
    return Book().merged(Snapshot("helper-a", serial, now, now + 86_400, (entry,)))


def test_a_change_is_measured_and_what_was_on_disk_or_held_by_orders_is_not(folder: Path) -> None:
    answered = Answered()
    learning = Learning(settings(folder), answered.take)
    learning.load()
    assert answered.addresses()[NAME] == ("10.0.0.1", "10.0.0.2")

    def counted() -> int:
        return sum(learning.convergence.counts)

    assert counted() == 0
    learning.vetting.take(book_of(NAME, "10.0.0.3", time.time(), 2))
    assert (answered.addresses()[NAME], counted()) == (("10.0.0.3",), 1)

    learning.vetting.freeze()
    learning.learner.book = book_of(NAME, "10.0.0.4", time.time(), 3)
    learning.vetting.take(learning.learner.book)
    assert answered.addresses()[NAME] == ("10.0.0.3",)
    learning.vetting.unfreeze()
    assert (answered.addresses()[NAME], counted()) == (("10.0.0.4",), 1)


def test_what_was_measured_goes_on_under_another_configuration(folder: Path) -> None:
    earlier = Learning(settings(folder), Answered().take)
    earlier.load()
    earlier.vetting.take(book_of(NAME, "10.0.0.3", time.time(), 2))
    later = Learning(settings(folder, "abc def"), Answered().take)
    later.take_over(earlier)
    assert sum(later.convergence.counts) == 1


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
    Learning(made, lambda _book: None)
    monkeypatch.setattr(extras, "find_spec", lambda _library: None)
    with pytest.raises(StartError) as caught:
        Learning(made, lambda _book: None)
    assert caught.value.reasons == (
        "learn.sources: type s3 needs an extra: pip install 'dnsproxy[s3]'",
        "learn.sources: type kubernetes needs an extra: pip install 'dnsproxy[kubernetes]'",
    )
