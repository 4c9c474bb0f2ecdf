from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from dnsproxy.core.book import Entry
from dnsproxy.core.health import Outcome, Probe, Result
from dnsproxy.core.holding import AddressState, Policy
from dnsproxy.core.verify import MAX_IN_FLIGHT, Verifier
from tests.strategies import learned, snapshot

NAME = "a.example."
OLD, NEW, OTHER = "10.0.0.1", "10.0.0.2", "10.0.0.3"
WALL = 1000.0
GOOD = Result(Outcome.ANSWERED, {443: "ok"})
REFUSED = Result(Outcome.FAILED, {443: "Connection refused"})
UNROUTED = Result(Outcome.NO_ROUTE, {443: "Network is unreachable"})
SHORT = Result(Outcome.HOST, {443: "Too many open files"})


def entry(*addresses: str, name: str = NAME, serial: int = 1, **facts: Any) -> Entry:
    content = learned(name, addresses, **facts)
    return Entry(content, snapshot(content, serial=serial))


class World:
    """A verifier, a clock, and hosts that answer or do not."""

    def __init__(self, **policy: Any) -> None:
        self.verifier = Verifier(Policy(**policy))
        self.now = 0.0
        self.wall = WALL
        self.hosts: dict[str, Result] = {}
        self.fixed: dict[str, tuple[str, ...]] = {}
        self.probes: list[Probe] = []

    def take(self, *entries: Entry) -> tuple[str, ...]:
        self.verifier.take({e.learned.name: e for e in entries}, self.fixed, self.now, self.wall)
        return self.served()

    def probe(self) -> tuple[str, ...]:
        """Carry out what is due."""
        for probe in (due := self.verifier.next_probes(self.now)):
            self.verifier.record(probe, self.hosts.get(probe.address, GOOD), self.now, self.wall)
        self.probes += due
        return self.served()

    def later(self, seconds: float) -> tuple[str, ...]:
        """Carry out what is due in the next ``seconds``, each at its time."""
        end = self.now + seconds
        while (due := self.verifier.next_time()) is not None and due <= end:
            self.now = max(self.now, due)
            self.probe()
        self.now = end
        return self.served()

    def served(self, name: str = NAME) -> tuple[str, ...]:
        choice = self.verifier.choices().get(name)
        return choice.addresses if choice else ()

    def states(self, name: str = NAME) -> dict[str, AddressState]:
        return {state.address: state for state in self.verifier.states(name)}


@pytest.fixture
def world() -> World:
    return World()


# -- the first set -----------------------------------------------------------------------------


def test_the_first_set_is_answered_at_once(world: World) -> None:
    assert world.take(entry(OLD, NEW)) == (OLD, NEW)
    assert world.verifier.next_time() == 0.0


def test_the_first_set_is_answered_even_when_nothing_in_it_answers(world: World) -> None:
    world.hosts = dict.fromkeys((OLD, NEW), REFUSED)
    world.take(entry(OLD, NEW))
    assert world.later(100) == (OLD, NEW)
    assert {state.alive for state in world.states().values()} == {False}


def test_nothing_is_answered_for_a_name_that_nobody_learned(world: World) -> None:
    assert world.take() == ()
    assert world.verifier.next_time() is None
    assert world.states("b.example.") == {}


# -- a changed set ----------------------------------------------------------------------------


def test_a_changed_set_is_answered_once_it_has_answered(world: World) -> None:
    world.take(entry(OLD))
    world.probe()
    assert world.take(entry(NEW, serial=2)) == (OLD,)
    assert world.states()[NEW].reason == "not probed yet"
    assert world.probe() == (NEW,)
    assert OLD not in world.states()


@pytest.mark.parametrize("result", [REFUSED, UNROUTED, SHORT])
def test_a_changed_set_that_does_not_answer_replaces_none_that_does(world: World, result: Result) -> None:
    world.take(entry(OLD))
    world.hosts[NEW] = result
    world.take(entry(NEW, serial=2))
    assert world.later(300) == (OLD,)
    new, old = (world.states()[address] for address in (NEW, OLD))
    assert (new.serving, new.reason) == (False, result.complaint)
    assert (old.serving, old.reason) == (True, None)
    assert world.verifier.unconfirmed() == {NAME: entry(OLD)}


def test_it_is_switched_to_as_soon_as_it_does(world: World) -> None:
    world.take(entry(OLD))
    world.hosts[NEW] = REFUSED
    world.take(entry(NEW, serial=2))
    world.later(100)
    world.hosts[NEW] = GOOD
    assert world.later(30) == (NEW,)
    assert world.verifier.unconfirmed() == {}


def test_on_failure_accept_switches_anyway() -> None:
    world = World(accept=True)
    world.take(entry(OLD))
    world.hosts[NEW] = REFUSED
    assert world.take(entry(NEW, serial=2)) == (NEW,)
    assert world.later(100) == (NEW,)
    assert world.states()[NEW].reason == "port 443: Connection refused"


def test_on_failure_accept_still_holds_dead_members_back() -> None:
    world = World(accept=True)
    world.hosts[NEW] = REFUSED
    world.take(entry(OLD, NEW))
    assert world.later(10) == (OLD,)


def test_without_ports_nothing_is_probed_and_everything_answered() -> None:
    world = World(ports=())
    world.take(entry(OLD))
    assert world.take(entry(NEW, serial=2)) == (NEW,)
    assert world.verifier.next_time() is None
    assert world.verifier.next_probes(1e9) == []


def test_a_set_with_a_member_that_is_known_to_live_is_answered_with_that_member(world: World) -> None:
    world.take(entry(OLD))
    world.probe()
    world.hosts[NEW] = REFUSED
    assert world.take(entry(OLD, NEW, serial=2)) == (OLD,)
    assert world.later(100) == (OLD,)
    world.hosts[NEW] = GOOD
    assert world.later(30) == (OLD, NEW)


def test_a_member_that_is_taken_away_goes_at_once(world: World) -> None:
    world.take(entry(OLD, NEW))
    world.probe()
    assert world.take(entry(NEW, serial=2)) == (NEW,)


def test_back_to_the_old_set_before_the_new_one_ever_answered(world: World) -> None:
    world.take(entry(OLD))
    world.hosts[NEW] = REFUSED
    world.take(entry(NEW, serial=2))
    world.later(10)
    assert world.take(entry(OLD, serial=3)) == (OLD,)
    assert world.verifier.choices()[NAME].entry.snapshot.serial == 3
    assert world.verifier.unconfirmed() == {}


def test_when_the_old_set_dies_too_the_newest_is_answered_whole(world: World) -> None:
    world.take(entry(OLD))
    world.hosts = dict.fromkeys((OLD, NEW, OTHER), REFUSED)
    world.take(entry(NEW, OTHER, serial=2))
    assert world.later(100) == (NEW, OTHER)


def test_and_when_only_the_old_one_comes_back_it_is_answered_again(world: World) -> None:
    world.take(entry(OLD))
    world.hosts = dict.fromkeys((OLD, NEW), REFUSED)
    world.take(entry(NEW, serial=2))
    world.later(100)
    world.hosts[OLD] = GOOD
    assert world.later(30) == (OLD,)


def test_an_old_set_that_is_beyond_max_stale_gives_way() -> None:
    world = World(max_stale=60.0)
    world.take(entry(OLD))
    world.hosts[NEW] = REFUSED
    world.take(entry(NEW, serial=2))
    world.wall = float(entry(OLD).snapshot.expires_at) + 59
    assert world.later(30) == (OLD,)
    world.wall += 1
    assert world.later(30) == (NEW,)


def test_a_name_that_has_no_set_any_more_keeps_the_proven_one(world: World) -> None:
    world.take(entry(OLD))
    world.probe()
    assert world.take() == (OLD,)
    assert world.verifier.unconfirmed() == {NAME: entry(OLD)}


def test_a_later_confirmation_counts_for_the_age(world: World) -> None:
    world.take(entry(OLD))
    world.take(entry(OLD, serial=2, observed_at=2000))
    assert world.verifier.choices()[NAME].entry.learned.observed_at == 2000


def test_what_nobody_confirms_keeps_its_age(world: World) -> None:
    world.take(entry(OLD))
    world.hosts[NEW] = REFUSED
    for serial in (2, 3):
        world.take(entry(NEW, serial=serial, observed_at=1000 + serial))
        world.later(60)
    assert world.verifier.choices()[NAME].entry == entry(OLD)


# -- members of the set in service -------------------------------------------------------------


def test_a_dead_member_is_held_back_and_returns(world: World) -> None:
    world.take(entry(OLD, NEW))
    world.probe()
    world.hosts[NEW] = REFUSED
    assert world.later(40) == (OLD,)
    world.hosts[NEW] = GOOD
    assert world.later(31) == (OLD, NEW)


def test_one_lost_packet_holds_nothing_back(world: World) -> None:
    world.take(entry(OLD, NEW))
    world.hosts[NEW] = REFUSED
    assert world.probe() == (OLD, NEW)
    world.hosts[NEW] = GOOD
    assert world.later(100) == (OLD, NEW)


def test_a_host_that_is_cut_off_changes_nothing(world: World) -> None:
    world.take(entry(OLD, NEW), entry(OTHER, name="b.example."))
    world.later(60)
    world.hosts = dict.fromkeys((OLD, NEW, OTHER), UNROUTED)
    world.later(600)
    assert world.take(entry(OTHER, serial=2), entry(OTHER, name="b.example.")) == (OLD, NEW)
    assert world.later(600) == (OLD, NEW)


def test_no_route_to_one_address_only_is_proof(world: World) -> None:
    world.take(entry(OLD, NEW))
    world.hosts[NEW] = UNROUTED
    assert world.later(120) == (OLD,)


# -- the operator's word ------------------------------------------------------------------------


def test_restored_sets_are_answered_until_something_better_is_proven(world: World) -> None:
    world.verifier.restore({NAME: entry(OLD)}, {})
    world.hosts[NEW] = REFUSED
    assert world.take(entry(NEW, serial=2)) == (OLD,)
    assert world.later(100) == (OLD,)
    world.hosts[NEW] = GOOD
    assert world.later(30) == (NEW,)


def test_what_was_held_back_before_a_restart_is_held_back_until_it_answers(world: World) -> None:
    world.verifier.restore({}, {NAME: (NEW,)})
    assert world.take(entry(OLD, NEW)) == (OLD,)
    assert world.verifier.held_back() == {NAME: (NEW,)}
    assert world.probe() == (OLD, NEW)
    assert world.verifier.held_back() == {}


def test_what_was_held_back_is_answered_where_nothing_is_probed_any_more() -> None:
    world = World(ports=())
    world.verifier.restore({}, {NAME: (NEW,)})
    assert world.take(entry(OLD, NEW)) == (OLD, NEW)


def test_a_set_that_is_confirmed_by_a_probe_alone_is_something_to_keep(world: World) -> None:
    world.take(entry(OLD))
    world.hosts = dict.fromkeys((OLD, NEW), REFUSED)
    world.take(entry(NEW, serial=2))
    assert world.later(100) == (NEW,)
    assert set(world.verifier.unconfirmed()) == {NAME}
    world.now += 60
    (probe,) = [probe for probe in world.verifier.next_probes(world.now) if probe.address == NEW]
    # The same address is answered as before; after a restart it would not have been.
    assert world.verifier.record(probe, GOOD, world.now, WALL)
    assert world.served() == (NEW,)
    assert world.verifier.unconfirmed() == {}


def test_adopted_sets_are_answered_unproven(world: World) -> None:
    world.take(entry(OLD))
    world.later(60)
    world.hosts[NEW] = REFUSED
    world.verifier.adopt({NAME: entry(NEW)})
    assert world.take(entry(NEW)) == (NEW,)
    assert world.later(100) == (NEW,)


def test_fixed_addresses_are_probed_and_their_state_told(world: World) -> None:
    world.fixed = {NAME: (OTHER,)}
    world.hosts[OTHER] = REFUSED
    world.take(entry(OLD))
    world.later(60)
    assert {probe.address for probe in world.probes} == {OTHER}
    (state,) = world.states().values()
    assert (state.address, state.serving, state.alive) == (OTHER, True, False)
    assert state.reason == "port 443: Connection refused"


def test_after_the_fixing_the_name_is_where_it_was(world: World) -> None:
    world.take(entry(OLD))
    world.hosts[NEW] = REFUSED
    world.take(entry(NEW, serial=2))
    world.later(30)
    world.fixed = {NAME: (OTHER,)}
    world.take(entry(NEW, serial=2))
    world.later(30)
    world.fixed = {}
    assert world.take(entry(NEW, serial=2)) == (OLD,)
    assert world.later(60) == (OLD,)


def test_a_name_that_was_only_fixed_is_forgotten(world: World) -> None:
    world.fixed = {NAME: (OTHER,)}
    world.take()
    assert list(world.states()) == [OTHER]
    world.fixed = {}
    world.take()
    assert world.states() == {}
    assert world.verifier.next_probes(1e9) == []


# -- probes --------------------------------------------------------------------------------------


def test_a_probe_says_what_to_connect_to() -> None:
    world = World(ports=(443,), own_ports={"b.example.": (80, 8443)})
    names = (NAME, "*.oss.example.", "b.example.")
    world.take(*(entry(OLD, name=name) for name in names))
    assert {probe.name: probe for probe in world.verifier.next_probes(0.0)} == {
        NAME: Probe(NAME, OLD, (443,), "a.example"),
        "*.oss.example.": Probe("*.oss.example.", OLD, (443,), "dnsproxy-probe.oss.example"),
        "b.example.": Probe("b.example.", OLD, (80, 8443), "b.example"),
    }


def test_a_name_may_ask_for_no_probes() -> None:
    world = World(own_ports={NAME: ()})
    world.take(entry(OLD), entry(OLD, name="b.example."))
    assert world.take(entry(NEW, serial=2), entry(OLD, name="b.example.")) == (NEW,)
    assert {probe.name for probe in world.verifier.next_probes(0.0)} == {"b.example."}


def test_without_tls_no_certificate_is_asked_for() -> None:
    world = World(tls=False)
    world.take(entry(OLD))
    assert [probe.server_name for probe in world.verifier.next_probes(0.0)] == [None]


def test_probes_at_one_time_are_bounded(world: World) -> None:
    world.take(*(entry(OLD, name=f"n{number}.example.") for number in range(MAX_IN_FLIGHT * 3)))
    first = world.verifier.next_probes(0.0)
    assert len(first) == MAX_IN_FLIGHT
    assert world.verifier.next_time() is None
    assert world.verifier.next_probes(0.0) == []
    for probe in first[:3]:
        world.verifier.record(probe, GOOD, 0.0, WALL)
    assert world.verifier.next_time() == 0.0
    assert len(world.verifier.next_probes(0.0)) == 3


def test_a_set_that_has_been_replaced_is_not_probed_any_more(world: World) -> None:
    world.take(entry(OLD))
    world.take(entry(NEW, serial=2))
    world.probe()
    world.probes.clear()
    world.later(300)
    assert {probe.address for probe in world.probes} == {NEW}


def test_forgotten_names_are_not_answered_and_not_probed(world: World) -> None:
    world.take(entry(OLD), entry(OLD, name="b.example."))
    world.verifier.forget(["b.example.", "never.example."])
    assert world.verifier.names() == [NAME]
    assert world.served("b.example.") == ()
    assert {probe.name for probe in world.verifier.next_probes(0.0)} == {NAME}


def test_the_end_of_a_probe_that_nobody_waits_for_is_passed_over(world: World) -> None:
    world.take(entry(OLD))
    (probe,) = world.verifier.next_probes(0.0)
    world.take(entry(OLD))
    world.verifier.adopt({NAME: entry(NEW)})
    world.take(entry(NEW))
    assert world.verifier.record(probe, REFUSED, 1.0, WALL) is False
    assert list(world.states()) == [NEW]


def test_a_probe_from_before_a_name_was_forgotten_does_not_count_after_it_returned(world: World) -> None:
    world.take(entry(OLD))
    (before,) = world.verifier.next_probes(0.0)
    world.verifier.forget([NAME])
    world.take(entry(OLD))
    world.verifier.record(before, REFUSED, 0.0, WALL)
    assert world.states()[OLD].result is None
    assert [probe.address for probe in world.verifier.next_probes(0.0)] == [OLD]


def test_record_tells_whether_something_else_is_answered(world: World) -> None:
    world.take(entry(OLD))
    (probe,) = world.verifier.next_probes(0.0)
    assert world.verifier.record(probe, GOOD, 0.0, WALL) is False
    world.take(entry(NEW, serial=2))
    (probe,) = world.verifier.next_probes(0.0)
    assert world.verifier.record(probe, GOOD, 0.0, WALL) is True


# -- whatever happens ----------------------------------------------------------------------------

NAMES = (NAME, "*.b.example.")
POOL = tuple(f"10.0.0.{octet}" for octet in range(1, 6))
sets = st.sets(st.sampled_from(POOL), min_size=1, max_size=3).map(lambda found: tuple(sorted(found)))


class AnyHistory(RuleBasedStateMachine):
    """Sets change, hosts die and return, probes end late or in another order."""

    accept = False

    def __init__(self) -> None:
        super().__init__()
        self.world = World(accept=self.accept)
        self.sets: dict[str, Entry] = {}
        self.open: list[Probe] = []
        self.serial = 1

    @rule(name=st.sampled_from(NAMES), members=sets)
    def learn(self, name: str, members: tuple[str, ...]) -> None:
        self.serial += 1
        self.sets[name] = entry(*members, name=name, serial=self.serial)
        self.world.take(*self.sets.values())

    @rule(name=st.sampled_from(NAMES))
    def refuse_all_of_the_newest(self, name: str) -> None:
        self.sets.pop(name, None)
        self.world.take(*self.sets.values())

    @rule(name=st.sampled_from(NAMES), members=sets)
    def fix(self, name: str, members: tuple[str, ...]) -> None:
        self.world.fixed = {name: members}
        self.world.take(*self.sets.values())

    @rule()
    def unfix(self) -> None:
        self.world.fixed = {}
        self.world.take(*self.sets.values())

    @rule(address=st.sampled_from(POOL), result=st.sampled_from([GOOD, REFUSED, UNROUTED, SHORT]))
    def turn(self, address: str, result: Result) -> None:
        self.world.hosts[address] = result

    @rule(seconds=st.sampled_from([0.0, 0.5, 1.0, 7.0, 60.0]))
    def wait(self, seconds: float) -> None:
        self.world.now += seconds

    @rule()
    def start_probes(self) -> None:
        self.open += self.world.verifier.next_probes(self.world.now)

    @precondition(lambda self: self.open)
    @rule(data=st.data())
    def end_probe(self, data: st.DataObject) -> None:
        probe = self.open.pop(data.draw(st.integers(0, len(self.open) - 1)))
        before = self.world.verifier.choices()
        result = self.world.hosts.get(probe.address, GOOD)
        changed = self.world.verifier.record(probe, result, self.world.now, WALL)
        after = self.world.verifier.choices()
        assert changed is any(before[name].addresses != after[name].addresses for name in after)

    @invariant()
    def what_is_known_is_answered(self) -> None:
        for name, newest in self.sets.items():
            assert self.world.served(name), newest

    @invariant()
    def what_is_answered_was_learned(self) -> None:
        for name, choice in self.world.verifier.choices().items():
            assert set(choice.addresses) <= set(choice.entry.learned.addresses)
            assert choice.entry in (self.sets.get(name), self.world.verifier.unconfirmed().get(name))

    @invariant()
    def no_dead_member_is_answered_beside_a_living_one(self) -> None:
        for name in set(NAMES) - set(self.world.fixed):
            serving = [state.alive for state in self.world.states(name).values() if state.serving]
            assert not (True in serving and set(serving) != {True}), serving

    @invariant()
    def nothing_better_is_held_back(self) -> None:
        for name in set(NAMES) - set(self.world.fixed):
            states = self.world.states(name).values()
            assert not (
                any(state.alive for state in states)
                and not any(state.alive for state in states if state.serving)
                and not self.accept
            )

    @invariant()
    def probes_are_bounded(self) -> None:
        assert len(self.open) <= MAX_IN_FLIGHT

    @invariant()
    def every_address_has_its_turn(self) -> None:
        under_way = {(probe.name, probe.address) for probe in self.open}
        ahead = {
            (name, state.address)
            for name in NAMES
            for state in self.world.verifier.states(name)
            if (name, state.address) not in under_way
        }
        due = self.world.verifier.next_time()
        if ahead and len(self.open) < MAX_IN_FLIGHT:
            assert due is not None
            assert due <= self.world.now + 30.0

    def teardown(self) -> None:
        """Once every host answers, what was learned last is what is answered."""
        self.unfix()
        self.world.hosts = {}
        for probe in self.open:
            self.world.verifier.record(probe, GOOD, self.world.now, WALL)
        self.world.later(120)
        for name, newest in self.sets.items():
            assert self.world.served(name) == newest.learned.addresses


class AnyHistoryAccepting(AnyHistory):
    accept = True


TestAnyHistory: Callable[..., Any] = AnyHistory.TestCase
TestAnyHistoryAccepting: Callable[..., Any] = AnyHistoryAccepting.TestCase
for case in (AnyHistory, AnyHistoryAccepting):
    case.TestCase.settings = settings(max_examples=60, stateful_step_count=40, deadline=None)


# -- another configuration -----------------------------------------------------------


def successor(world: World, **policy: Any) -> World:
    after = World(**policy)
    after.now, after.hosts = world.now, world.hosts
    after.verifier.take_over(world.verifier, world.now)
    return after


def test_what_is_known_to_be_dead_stays_left_out(world: World) -> None:
    world.take(entry(OLD, OTHER))
    world.hosts[OTHER] = REFUSED
    assert world.later(5.0) == (OLD,)
    after = successor(world, interval=7.0)
    assert after.take(entry(OLD, OTHER)) == (OLD,)
    world.hosts[OTHER] = GOOD
    assert after.later(60.0) == (OLD, OTHER)


def test_a_probe_that_was_under_way_is_made_again(world: World) -> None:
    world.take(entry(OLD))
    assert len(world.verifier.next_probes(world.now)) == 1
    after = successor(world)
    after.take(entry(OLD))
    assert [probe.address for probe in after.verifier.next_probes(after.now)] == [OLD]


def test_where_it_is_tested_otherwise_only_the_verdict_stays(world: World) -> None:
    world.take(entry(OLD))
    world.later(1.0)
    world.hosts[NEW] = REFUSED
    after = successor(world, ports=(80,))
    # What was proven is still no first set, which would give way at once.
    assert after.take(entry(NEW)) == (OLD,)
    after.hosts[NEW] = GOOD
    after.later(60.0)
    assert after.served() == (NEW,)
