from __future__ import annotations

import pytest

from dnsproxy.core.addresses.table import ServedTable
from dnsproxy.core.policy import build_rules
from dnsproxy.core.registry import Wanted
from dnsproxy.workers import table_feed as module
from dnsproxy.workers.messages import Inbox, ServedEntry, TakeNames, ToWorker, encode_entry
from dnsproxy.workers.table_feed import SLICE_BYTES, SharedTable, TableFeed, with_entries
from tests.strategies import learned, served_table, snapshot

NAMES = [f"n{number}.example." for number in range(2000)]


def taken(feed: TableFeed) -> list[TakeNames]:
    """Everything that ``feed`` has at this time."""
    inbox, found = Inbox(ToWorker), []
    while (framed := feed.next()) is not None:
        inbox.add(framed)
        message = inbox.next()
        assert isinstance(message, TakeNames)
        found.append(message)
    return found


def answers(table: ServedTable) -> list[tuple[object, ...]]:
    """What clients would get."""
    rules = build_rules(table, [], ttl=30, max_stale=60.0, now=0.0, wall_now=1000.0)
    return sorted(
        (owned.name, owned.ready, owned.addresses, owned.cname, owned.serial, owned.stale_at, owned.gone_at)
        for owned in rules.owned()
    )


def table(serial: int = 1000, names: list[str] | None = None) -> ServedTable:
    return served_table(snapshot(*map(learned, NAMES if names is None else names), serial=serial))


def test_a_worker_has_the_same_answers() -> None:
    made = served_table(
        snapshot(
            learned("a.example.", ("10.0.0.1", "fd00::1")),
            learned("*.b.example.", cname="c.example."),
            learned("unmanaged.example."),
            serial=5000,
        ),
        managed=[
            Wanted("a.example.", "auth", "hangzhou"),
            Wanted("*.b.example.", "other", "hangzhou", "c.example."),
            Wanted("pinned.example.", "other", "hangzhou", None, ("10.0.0.9",)),
            Wanted("unknown.example.", "other", "hangzhou"),
        ],
    )
    (message,) = taken(TableFeed(SharedTable(made)))
    assert message.is_complete
    assert answers(with_entries(ServedTable(), message.entries)) == answers(made)


def test_an_empty_table_is_a_message_too() -> None:
    feed = TableFeed(SharedTable(ServedTable()))
    assert taken(feed) == [TakeNames((), is_complete=True)]
    assert feed.next() is None


def test_a_large_table_comes_in_slices_and_the_last_one_completes_it() -> None:
    shared = SharedTable(table())
    slices, at = [], 0
    feed = TableFeed(shared)
    while (framed := feed.next()) is not None:
        assert len(framed) < SLICE_BYTES + 1000
        slices.append(framed)
    inbox, worker, completes = Inbox(ToWorker), ServedTable(), []
    for framed in slices:
        inbox.add(framed)
        message = inbox.next()
        assert isinstance(message, TakeNames)
        worker = with_entries(worker, message.entries)
        completes.append(message.is_complete)
        at += len(message.entries)
    assert len(slices) > 3
    assert completes == [False] * (len(slices) - 1) + [True]
    assert at == len(NAMES), "each name once"
    assert answers(worker) == answers(shared.table)


def test_a_name_that_changes_meanwhile_is_sent_once_and_as_it_is_now(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "SLICE_BYTES", 1)
    shared = SharedTable(table(names=NAMES[:3]))
    feed = TableFeed(shared)
    assert feed.next() is not None
    for serial in (2000, 3000):
        feed.want(shared.replace(table(serial, NAMES[:3])))
    worker = ServedTable()
    sent = [entry for message in taken(feed) for entry in message.entries]
    worker = with_entries(worker, sent)
    assert sorted(entry.name for entry in sent) == NAMES[:3]
    assert answers(worker) == answers(shared.table)


def test_an_entry_is_encoded_once_for_all_workers(monkeypatch: pytest.MonkeyPatch) -> None:
    encoded: list[str] = []

    def encode(entry: ServedEntry) -> str:
        encoded.append(entry.name)
        return encode_entry(entry)

    monkeypatch.setattr(module, "encode_entry", encode)
    shared = SharedTable(table(names=NAMES[:5]))
    feeds = [TableFeed(shared) for _ in range(3)]
    assert len({str(taken(feed)) for feed in feeds}) == 1
    assert sorted(encoded) == NAMES[:5]
    for feed in feeds:
        feed.want(shared.update(table(2000, NAMES[:5]), NAMES[1:2]))
    assert [[entry.serial for entry in taken(feed)[0].entries] for feed in feeds] == [[2000]] * 3
    assert encoded[5:] == NAMES[1:2]


def test_only_what_differs_is_replaced_and_what_is_gone_is_sent_as_gone() -> None:
    before = served_table(snapshot(learned("a.example."), learned("b.example."), learned("c.example.")))
    after = ServedTable(
        before.managed[:2], {**before.sets, "b.example.": table(names=["b.example."]).sets["b.example."]}
    )
    shared = SharedTable(before)
    feed = TableFeed(shared)
    worker = with_entries(ServedTable(), taken(feed)[0].entries)
    changed = shared.replace(after)
    assert changed == ["b.example.", "c.example."]
    feed.want(changed)
    worker = with_entries(worker, taken(feed)[0].entries)
    assert answers(worker) == answers(after)
    assert shared.replace(after) == []
