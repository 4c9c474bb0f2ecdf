from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dnsproxy.core.explain import Question, explain
from dnsproxy.core.learned import Snapshot
from dnsproxy.core.totals import Traffic
from dnsproxy.errors import WorkerError
from dnsproxy.workers import messages
from dnsproxy.workers.messages import (
    Ask,
    Explain,
    Flush,
    Inbox,
    NotOpened,
    Opened,
    Reply,
    Stop,
    TakeTable,
    TellTraffic,
    ToControl,
    ToWorker,
    frame,
)
from tests.messages import REGISTRY, engine, hangzhou, query
from tests.strategies import learned, served_table, snapshot, snapshots


def served() -> Traffic:
    """What an engine counts when it is asked for real."""
    made = engine(hangzhou())
    made.receive(query(REGISTRY), b"\x7f\0\0\1", 1.0)
    made.receive(b"junk", b"\x7f\0\0\1", 1.0)
    upstreams = {upstream.name: upstream.stats for upstream in made.upstreams()}
    return Traffic(made.stats_now(), upstreams, len(made.cache), made.in_flight)


EVERY: list[ToWorker | ToControl] = [
    TakeTable(served_table(snapshot(learned(REGISTRY)))),
    Ask(1, TellTraffic()),
    Ask(2, Flush(None)),
    Ask(3, Flush(b"\3www\0")),
    Ask(4, Explain(Question(b"\3www\0", 1, allowed=False))),
    Stop(),
    Opened(4711),
    NotOpened("cannot listen"),
    Reply(1, served()),
    Reply(2, 5),
    Reply(4, explain(engine(hangzhou()), Question(b"\3www\0", 1), 1.0)),
]


@pytest.mark.parametrize("message", EVERY, ids=repr)
def test_every_message_arrives_as_it_was_sent(message: ToWorker | ToControl) -> None:
    assert Inbox().take(frame(message)) == [message]


def test_statistics_that_were_counted_arrive() -> None:
    (reply,) = Inbox().take(frame(Reply(1, served())))
    assert isinstance(reply, Reply)
    assert isinstance(reply.content, Traffic)
    assert reply.content.queries == 1
    assert reply.content.stats.drops == {"short": 1}


@given(st.lists(snapshots, max_size=3), st.lists(st.integers(1, 400), min_size=1))
def test_however_the_octets_are_cut(given_snapshots: list[Snapshot], cuts: list[int]) -> None:
    sent: list[ToWorker] = [Stop(), *(TakeTable(served_table(taken)) for taken in given_snapshots)]
    octets = b"".join(frame(message) for message in sent)
    inbox, seen, at = Inbox(), list[object](), 0
    while at < len(octets):
        step = cuts[at % len(cuts)]
        seen += inbox.take(octets[at : at + step])
        at += step
    assert seen == sent


def test_a_table_keeps_what_it_shares() -> None:
    """20,000 names of one snapshot are not 20,000 snapshots."""
    table = served_table(snapshot(*(learned(f"n{number}.example.") for number in range(50))))
    (message,) = Inbox().take(frame(TakeTable(table)))
    assert isinstance(message, TakeTable)
    assert len({id(entry.snapshot) for entry in message.table.sets.values()}) == 1


def test_too_large_is_said_by_both_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    framed = frame(NotOpened("x" * 200))
    monkeypatch.setattr(messages, "MAX_MESSAGE", 100)
    with pytest.raises(WorkerError, match="too large"):
        frame(NotOpened("x" * 200))
    with pytest.raises(WorkerError, match="octets"):
        Inbox().take(framed[:4])
