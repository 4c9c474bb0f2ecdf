"""A fleet over time: sets change, hosts die and return, proxies restart; a set that works is answered."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from dnsproxy.core.addresses.canary import CanaryPolicy
from tests.lifecycles import FAILED, GOOD, H1, NAME, ProxyModel

HOSTS = ["10.0.0.1", "10.0.0.2", "10.0.0.3"]
# Seconds without a change after which the probes have found each host alive or dead.
SETTLED = 40.0

sets = st.sets(st.sampled_from(HOSTS), min_size=1).map(lambda found: ("publish", tuple(sorted(found))))
hosts = st.tuples(st.sampled_from(["die", "return"]), st.sampled_from(HOSTS))
times = st.tuples(st.just("elapse"), st.sampled_from([5.0, 40.0, 301.0]))
restarts = st.tuples(st.just("restart"), st.integers(0, 1))
steps = st.lists(st.one_of(sets, hosts, times, restarts), min_size=1, max_size=20)


def proxy(number: int) -> ProxyModel:
    made = ProxyModel(canary=CanaryPolicy(0.5, 300.0, 3, f"proxy-{number}"))
    made.publish(H1, HOSTS[0])
    made.elapse(SETTLED)
    return made


@dataclass
class Fleet:
    """Two proxies of one helper; the draw may put one of them in the canary group, or both, or none."""

    proxies: list[ProxyModel] = field(default_factory=lambda: [proxy(0), proxy(1)])
    newest: tuple[str, ...] = (HOSTS[0],)
    dead: set[str] = field(default_factory=set)

    def carry_out(self, verb: str, what: Any) -> None:
        if verb == "restart":
            self.proxies[what].restart()
            return
        if verb == "publish":
            self.newest = what
        elif verb in {"die", "return"}:
            (self.dead.add if verb == "die" else self.dead.discard)(what)
        for each in self.proxies:
            if verb == "publish":
                each.publish(H1, *what)
            elif verb == "elapse":
                each.elapse(what)
            else:
                each.hosts[what] = FAILED if verb == "die" else GOOD


@settings(max_examples=60, deadline=None)
@given(steps)
def test_what_works_is_answered(story: list[tuple[str, Any]]) -> None:
    fleet = Fleet()
    for verb, what in story:
        before = [each.served() for each in fleet.proxies]
        fleet.carry_out(verb, what)
        assert all(each.served() for each in fleet.proxies)
        if verb == "restart":
            assert [each.served() for each in fleet.proxies] == before
    fleet.carry_out("elapse", SETTLED)
    for each in fleet.proxies:
        view = each.state.canary()
        stable, served = set(view.stable.get(NAME, fleet.newest)), set(each.served())
        assert not ({*stable, *fleet.newest} - fleet.dead) or served - fleet.dead
        trial = view.trials.get(NAME)
        if trial is not None and not trial.is_running and stable - fleet.dead:
            # While the set before works, a refused one is not answered.
            assert served <= stable


@settings(max_examples=30, deadline=None)
@given(steps)
def test_the_same_events_lead_to_the_same_answers(story: list[tuple[str, Any]]) -> None:
    answers = []
    for _ in range(2):
        made, found = Fleet(), []
        for verb, what in story:
            made.carry_out(verb, what)
            found.append([(each.served(), each.state.trials()) for each in made.proxies])
        answers.append(found)
    assert answers[0] == answers[1]
