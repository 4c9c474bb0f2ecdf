from __future__ import annotations

from dnsproxy.core.clients import Clients
from dnsproxy.core.pacing import MAX_HELD, MAX_HELD_IN_ALL, PART, RATE, TICK, Late, Pacer

ONE, OTHER = b"\x7f\0\0\1", b"\x7f\0\0\2"
SIZE = 1232


def late(number: int, size: int = SIZE) -> Late:
    return number, bytes(size)


def offer(pacer: Pacer, source: bytes, count: int, now: float) -> int:
    """Offer so many responses; return how many are sent at once."""
    return sum(pacer.offer(source, late(number), now) for number in range(count))


def test_little_passes_without_looking_at_clients() -> None:
    pacer = Pacer(Clients(), 1.0)
    assert [pacer.passes(PART // 2) for _ in range(3)] == [True, True, False]
    assert not pacer.passes(RATE // 1000)
    pacer.refill(1.0011)
    assert pacer.passes(RATE // 1000)
    assert pacer.wake_at is None


def test_a_pulse_to_one_client_is_spread_over_time() -> None:
    pacer, now = Pacer(Clients(), 1.0), 1.0
    assert not pacer.passes(800 * SIZE)
    at_once = offer(pacer, ONE, 800, now)
    assert at_once == -(-PART // SIZE)
    rounds, sent = 0, []
    while pacer.wake_at is not None:
        now = pacer.wake_at
        taken = pacer.due(now)
        assert len(taken) * SIZE <= TICK * RATE + SIZE
        sent += [one[0] for one in taken]
        rounds += 1
    assert sent == list(range(at_once, 800))
    assert 0.1 < now - 1.0 < 0.15
    assert (pacer._by_client, pacer._held, pacer.dropped) == ({}, 0, 0)


def test_another_client_does_not_wait_for_it() -> None:
    pacer = Pacer(Clients(), 1.0)
    offer(pacer, ONE, 800, 1.0)
    assert not pacer.passes(SIZE)  # each is looked at from now on
    assert pacer.offer(OTHER, late(0), 1.0)
    # Nor does what comes later overtake what waits.
    assert not pacer.offer(ONE, late(0), 1.1)


def test_what_waits_is_bounded_for_each_client_and_in_all() -> None:
    pacer = Pacer(Clients(), 1.0)
    offer(pacer, ONE, 2000, 1.0)
    assert MAX_HELD - SIZE < pacer._held <= MAX_HELD
    assert pacer.dropped == 2000 - pacer._held // SIZE - -(-PART // SIZE)
    for number in range(20):
        offer(pacer, bytes((127, 0, 1, number)), 2000, 1.0)
    assert pacer._held <= MAX_HELD_IN_ALL
    assert pacer.offer(OTHER, late(0), 1.0)


def test_addresses_of_one_client_share_its_budget() -> None:
    pacer = Pacer(Clients(24), 1.0)
    assert offer(pacer, ONE, 100, 1.0) < 100
    assert not pacer.offer(OTHER, late(0), 1.0)


def test_all_that_waits_is_taken_at_the_end() -> None:
    pacer = Pacer(Clients(), 1.0)
    at_once = offer(pacer, ONE, 100, 1.0)
    assert len(pacer.take_all()) == 100 - at_once
    assert pacer.wake_at is None
    assert pacer.due(2.0) == []
