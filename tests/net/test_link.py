from __future__ import annotations

import asyncio
from typing import cast

import pytest

from dnsproxy.core.attempt import Failure, Verdict
from dnsproxy.net import link
from dnsproxy.net.link import Link, Waiting
from tests.fakes.links import Keeper, Transport, waiting
from tests.messages import reply_to


class Numbered(Link):
    """Sends under the numbers 0, 1 ...; has room for two."""

    def send(self, waiting: Waiting) -> None:
        self.waiting[len(self.waiting)] = waiting
        self.write(waiting.attempt.payload)

    def can_send(self) -> bool:
        return len(self.waiting) < 2

    def receive(self, data: bytes, now: float) -> None:
        self.reply(data[0], data[1:], now)


@pytest.fixture
def keeper() -> Keeper:
    return Keeper()


def connected(keeper: Keeper, unsent: int = 0) -> tuple[Numbered, Transport]:
    made, transport = Numbered(keeper), Transport(unsent)
    made.connection_made(cast("asyncio.Transport", transport))
    return made, transport


def test_queries_wait_for_the_connection_and_for_room(keeper: Keeper) -> None:
    made = Numbered(keeper)
    for name in ("a.example.", "b.example.", "c.example."):
        made.take(waiting(name))
    assert (made.load, made.waiting) == (3, {})
    transport = Transport()
    made.connection_made(cast("asyncio.Transport", transport))
    assert (len(transport.written), len(made.queued)) == (2, 1)


def test_a_reply_goes_to_the_query_it_belongs_to_and_once(keeper: Keeper) -> None:
    made, _ = connected(keeper)
    made.take(waiting())
    good = reply_to(b"\0\0" + made.waiting[0].attempt.payload, ["www.example. 60 IN A 192.0.2.1"])
    made.data_received(b"\x05" + good)
    made.data_received(b"\x00" + good[:-1])
    assert keeper.told == []
    made.data_received(b"\x00" + good)
    made.data_received(b"\x00" + good)
    assert keeper.told == ["proven", "ended", Verdict.DONE]


def test_what_is_late_is_taken_out_and_silence_retires_the_link(keeper: Keeper) -> None:
    made, _ = connected(keeper)
    for deadline in (1.0, 5.0, 1.0):
        made.take(waiting(deadline=deadline))
    made.heard_at = made.waiting[0].sent_at + 1
    assert [late.attempt.deadline for late in made.time_out(1.0)] == [1.0, 1.0]
    assert (made.load, made.retired) == (1, False)
    made.heard_at = 0.0
    assert len(made.time_out(5.0)) == 1
    assert made.retired


def test_p21_a_late_reply_is_still_of_use_until_the_question_ends(keeper: Keeper) -> None:
    made, _ = connected(keeper)
    late = waiting()
    late.attempt.deadline = 1.0
    made.take(late)
    assert made.time_out(1.0) == [late]
    assert (made.load, late.exchange.is_waiting) == (1, False)
    made.data_received(b"\0" + reply_to(b"\0\0" + late.attempt.payload, ["www.example. 60 IN A 192.0.2.1"]))
    assert keeper.told == ["proven", "ended", Verdict.DONE]


def test_a_retired_link_sends_nothing_more(keeper: Keeper) -> None:
    made, transport = connected(keeper)
    made.retired = True
    made.take(waiting())
    assert transport.written == []


def test_p17_an_upstream_that_does_not_read_is_cut(keeper: Keeper) -> None:
    made, transport = connected(keeper, link.MAX_UNSENT)
    made.take(waiting())
    assert transport.aborts == 0
    transport.unsent += 1
    made.take(waiting())
    assert transport.aborts == 1
    assert made.retired


@pytest.mark.parametrize(
    ("exc", "told"),
    [
        (None, (Failure.NETWORK, "closed by the server")),
        (ConnectionResetError(104, "x"), (Failure.NETWORK, "Connection reset by peer")),
    ],
)
def test_the_end_is_told_with_its_reason(
    keeper: Keeper, exc: Exception | None, told: tuple[Failure, str]
) -> None:
    made, _ = connected(keeper)
    made.connection_lost(exc)
    assert keeper.told == [told]
