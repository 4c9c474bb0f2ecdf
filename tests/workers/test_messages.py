from __future__ import annotations

import contextlib
import itertools
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dnsproxy.core.explain import Question, explain
from dnsproxy.core.totals import Traffic
from dnsproxy.errors import MessageError, WorkerError
from dnsproxy.net.doors import Door
from dnsproxy.workers import messages
from dnsproxy.workers.messages import (
    MAX_MESSAGE,
    MAX_SETTINGS,
    Ask,
    Begin,
    Explain,
    Flush,
    Inbox,
    NotOpened,
    Opened,
    Refit,
    Reply,
    ServedEntry,
    Stop,
    TakeNames,
    TellTraffic,
    ToControl,
    ToWorker,
    encode_entry,
    frame,
    frame_names,
)
from tests.messages import REGISTRY, engine, hangzhou, query

EITHER: Any = ToWorker | ToControl


def served() -> Traffic:
    """What an engine counts when it is asked for real."""
    made = engine(hangzhou())
    made.receive(query(REGISTRY), b"\x7f\0\0\1", 1.0)
    made.receive(b"junk", b"\x7f\0\0\1", 1.0)
    upstreams = {upstream.name: upstream.stats for upstream in made.upstreams()}
    return Traffic(made.stats_now(), upstreams, len(made.cache), made.in_flight)


DOORS = (Door("udp", "::", 53), Door("tls", "10.0.0.1", 853, 2))
ENTRIES = (
    ServedEntry("a.example.", True, (), ("10.0.0.1", "fd00::1"), "b.example.", 1000, 2**62),
    ServedEntry("*.b\\200.example.", True, ("10.0.0.1",)),
    ServedEntry("c.example.", False),
)
EVERY: list[ToWorker | ToControl] = [
    Begin(b'{"serve": {}}', DOORS),
    TakeNames(ENTRIES, is_complete=True),
    TakeNames((), is_complete=False),
    Ask(1, TellTraffic()),
    Ask(2, Flush(None)),
    Ask(3, Flush(b"\3www\0\xff")),
    Ask(4, Explain(Question(b"\3www\0", 1, allowed=False, client=b"\x7f\0\0\1"))),
    Ask(5, Refit(b"{}", DOORS)),
    Stop(gently=True),
    Opened(4711),
    NotOpened("cannot listen: \udcff \0 ü"),
    Reply(1, served()),
    Reply(2, 5),
    Reply(3, "a reason"),
    Reply(4, explain(engine(hangzhou()), Question(b"\3www\0", 1), 1.0)),
]


def received(framed: bytes, kind: Any = EITHER) -> list[object]:
    inbox = Inbox(kind)
    inbox.add(framed)
    found = []
    while inbox.has_message:
        found.append(inbox.next())
    return found


@pytest.mark.parametrize("message", EVERY, ids=repr)
def test_every_message_arrives_as_it_was_sent(message: ToWorker | ToControl) -> None:
    assert received(frame(message)) == [message]


def test_every_kind_of_message_is_in_that_test() -> None:
    kinds = {type(message) for message in EVERY}
    assert kinds == set((ToWorker | ToControl).__args__)
    asked = {type(message.request) for message in EVERY if isinstance(message, Ask)}
    assert asked == set(messages.Request.__args__)
    replied = {type(message.content) for message in EVERY if isinstance(message, Reply)}
    assert replied == set(messages.Content.__args__)


def test_statistics_that_were_counted_arrive() -> None:
    (reply,) = received(frame(Reply(1, served())))
    assert isinstance(reply, Reply)
    assert isinstance(reply.content, Traffic)
    assert reply.content.queries == 1
    assert reply.content.stats.drops == {"short": 1}
    reply.content.stats.drops["other"] += 1  # a Counter, as `Totals` adds them up


def test_names_that_are_encoded_one_by_one_are_the_same_message() -> None:
    for is_complete in (False, True):
        assert frame_names(map(encode_entry, ENTRIES), is_complete=is_complete) == frame(
            TakeNames(ENTRIES, is_complete)
        )


@given(st.lists(st.sampled_from(EVERY), max_size=5), st.lists(st.integers(1, 400), min_size=1))
def test_however_the_bytes_are_cut(sent: list[ToWorker | ToControl], cuts: list[int]) -> None:
    whole = b"".join(map(frame, sent))
    inbox, seen, at = Inbox(EITHER), list[object](), 0
    for step in itertools.cycle(cuts):
        inbox.add(whole[at : at + step])
        while inbox.has_message:
            seen.append(inbox.next())
        at += step
        if at >= len(whole):
            break
    assert seen == sent


@given(st.binary(max_size=200))
def test_any_bytes_are_a_message_or_an_error(content: bytes) -> None:
    with contextlib.suppress(MessageError):
        received(len(content).to_bytes(4, "big") + content)


@given(st.data(), st.sampled_from(EVERY))
def test_a_message_with_a_change_is_a_message_or_an_error(data: st.DataObject, message: Any) -> None:
    framed = bytearray(frame(message))
    for _ in range(data.draw(st.integers(1, 4))):
        at = data.draw(st.integers(4, len(framed) - 1))
        framed[at] = data.draw(st.sampled_from(b'[]{},:"0aNn-1tf\\u\xff'))
    try:
        found: Any
        (found,) = received(bytes(framed))
    except MessageError:
        return
    # What was accepted is what it claims to be: it can be sent again.
    assert received(frame(found)) == [found] or found != found  # noqa: PLR0124 - NaN is not equal to itself


@pytest.mark.parametrize(("kind", "message"), [(ToWorker, Opened(1)), (ToControl, Stop())], ids=repr)
def test_each_end_takes_only_what_is_for_it(kind: Any, message: ToWorker | ToControl) -> None:
    with pytest.raises(MessageError, match="in place of one of"):
        received(frame(message), kind)


def test_too_large_is_said_by_both_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    framed = frame(NotOpened("x" * 200))
    monkeypatch.setattr(messages, "MAX_MESSAGE", 100)
    with pytest.raises(WorkerError, match="too large"):
        frame(NotOpened("x" * 200))
    with pytest.raises(MessageError, match="bytes"):
        received(framed[:4])


def test_the_largest_settings_fit_into_a_message() -> None:
    doors = tuple(Door("udp", "f" * 39, 65_535, 64) for _ in range(253))
    assert len(frame(Ask(2**63, Refit(bytes(MAX_SETTINGS), doors)))) <= MAX_MESSAGE
