"""A fleet over time: sets come, hosts die and return, proxies restart; what works is answered."""

from __future__ import annotations

import tempfile
from pathlib import Path

from hypothesis import given, settings
from hypothesis import strategies as st

from dnsproxy.core.canary import State
from tests.trialling import Clock, TriedProxy

HOSTS = ["10.0.0.1", "10.0.0.2", "10.0.0.3"]
CANARY = "{share: 50%, hold: 5m}"
# After this long without a change every probe has told what is so: two failures of one that lived.
SETTLED = 40.0

sets = st.sets(st.sampled_from(HOSTS), min_size=1).map(lambda found: ("take", tuple(sorted(found))))
hosts = st.tuples(st.sampled_from(["die", "return"]), st.sampled_from(HOSTS))
times = st.tuples(st.just("elapse"), st.sampled_from([5.0, 40.0, 301.0]))
restarts = st.tuples(st.just("restart"), st.integers(0, 1))
steps = st.lists(st.one_of(sets, hosts, times, restarts), min_size=1, max_size=20)


def elapse(clock: Clock, proxies: list[TriedProxy], seconds: float) -> None:
    start = clock.now
    for proxy in proxies:
        clock.now = start
        proxy.elapse(seconds)


def assert_sound(clock: Clock, proxies: list[TriedProxy]) -> None:
    """What is answered is never empty, and works if the newest set does, or the one before."""
    for proxy in proxies:
        verifier = proxy.vetting._verifier
        stable, newest = verifier.stable("a.example."), verifier.newest("a.example.")
        assert stable is not None
        assert newest is not None
        working = {*stable.learned.addresses, *newest.learned.addresses} - clock.dead
        served = proxy.served()
        assert served
        assert not working or set(served) - clock.dead, (served, clock.dead)
        refused = [t for t in proxy.vetting.orders.trials.values() if t.state is State.ROLLED_BACK]
        if refused and set(stable.learned.addresses) - clock.dead:
            # What was rolled back is answered to nobody while the set before works.
            assert set(served) <= set(stable.learned.addresses)


@settings(max_examples=60, deadline=None)
@given(steps)
def test_what_works_is_answered(told: list[tuple[str, object]]) -> None:
    with tempfile.TemporaryDirectory() as folder:
        clock = Clock()
        with clock.in_force():
            fleet = [TriedProxy(clock, Path(folder), CANARY, identity=f"proxy-{n}") for n in range(2)]
            for proxy in fleet:
                proxy.take(HOSTS[0])
            elapse(clock, fleet, SETTLED)
            for verb, what in told:
                if verb == "take":
                    assert isinstance(what, tuple)
                    for proxy in fleet:
                        proxy.take(*what)
                elif verb == "restart":
                    fleet[0 if what == 0 else 1].restart()
                elif verb == "elapse":
                    assert isinstance(what, float)
                    elapse(clock, fleet, what)
                else:
                    assert isinstance(what, str)
                    (clock.dead.add if verb == "die" else clock.dead.discard)(what)
                assert all(proxy.served() for proxy in fleet)
            elapse(clock, fleet, SETTLED)
            assert_sound(clock, fleet)


@settings(max_examples=30, deadline=None)
@given(steps)
def test_the_same_events_lead_to_the_same_answers(told: list[tuple[str, object]]) -> None:
    found = []
    for _ in range(2):
        with tempfile.TemporaryDirectory() as folder:
            clock = Clock()
            with clock.in_force():
                proxy = TriedProxy(clock, Path(folder), CANARY)
                proxy.take(HOSTS[0])
                for verb, what in told:
                    if isinstance(what, tuple):
                        proxy.take(*what)
                    elif isinstance(what, float):
                        proxy.elapse(what)
                    elif verb in {"die", "return"}:
                        (clock.dead.add if verb == "die" else clock.dead.discard)(str(what))
                found.append([book.entries for book in proxy.books])
    assert found[0] == found[1]
