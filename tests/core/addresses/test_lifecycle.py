"""The life cycle of learned addresses (docs/concepts.md). `tests/model` compares it with a model as well."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from ipaddress import ip_network
from itertools import islice
from typing import Any

import pytest

from dnsproxy.core.addresses.canary import CanaryPolicy, TrialOutcome
from dnsproxy.core.addresses.filter import Limits, LimitTable
from dnsproxy.core.addresses.health import Probe
from dnsproxy.core.addresses.lifecycle import DISCOVERY_LIFETIME, MAX_ISSUERS, MAX_PROBES, AddressLifecycle
from dnsproxy.core.addresses.name_state import TAKEOVER_AFTER
from dnsproxy.core.addresses.state_file import encode
from dnsproxy.core.memory import SNAPSHOTS_PER_NAME
from dnsproxy.core.registry import MAX_FOUND, Found, Sought, Wanted
from dnsproxy.errors import OrderError
from tests.lifecycles import (
    DAY,
    FAILED,
    GOOD,
    H1,
    H2,
    H3,
    HOST,
    INTERVAL,
    KEY_IDS,
    NAME,
    NO_ROUTE,
    OTHER,
    REGISTRY,
    ProxyModel,
)
from tests.strategies import learned, lifecycle, opened, snapshot

A, B, C, D = "10.0.0.1", "10.0.0.2", "10.0.0.3", "10.0.0.4"
V6 = "fd00::1"
PUBLIC = "203.0.113.9"  # refused by the address filter
HOLD = 600.0
AUTH, AUTH2 = "auth.cloud.example.", "auth2.cloud.example."
SOUGHT = (Sought(REGISTRY, "auth", ("cloud.example.",)),)
LATER = TAKEOVER_AFTER + 1


def canary(share: float = 0.0, hold: float = HOLD, fall: int = 3) -> CanaryPolicy:
    return CanaryPolicy(share, hold, fall, "proxy-1")


def keys_without(helper: str) -> dict[str, frozenset[str] | None]:
    return {key_id: None for name, key_id in KEY_IDS.items() if name != helper}


def restart(proxy: ProxyModel) -> None:
    proxy.restart()


def reload(proxy: ProxyModel) -> None:
    proxy.reload()


def nothing(proxy: ProxyModel) -> None:
    """Continue without a restart or reload."""


again = pytest.mark.parametrize("again", [restart, reload, nothing])
Again = Callable[[ProxyModel], None]


# -- required behaviour --------------------------------------------------------------------------


@again
@pytest.mark.parametrize("is_reachable", [True, False])
def test_b01_the_owner_of_a_name_survives_restart_and_reload(again: Again, is_reachable: bool) -> None:
    proxy = ProxyModel()
    if not is_reachable:
        proxy.dead(B)
    proxy.publish(H1, A)
    proxy.elapse(10)
    proxy.publish(H2, B)
    proxy.elapse(10)
    proxy.publish(H1, A)
    again(proxy)
    assert proxy.served() == (A,)
    assert proxy.probed() == {A, B}
    assert proxy.served() == (A,)
    again(proxy)
    assert proxy.served() == (A,)


@pytest.mark.parametrize("under_way", [0, 1, 2])
def test_b02_an_address_that_dies_after_a_reload_is_removed_within_two_intervals(under_way: int) -> None:
    proxy = ProxyModel()
    proxy.publish(H1, A, B)
    proxy.elapse(INTERVAL)
    proxy.now += INTERVAL
    # Some probes run while the configuration changes; the loop that waits for them may be cancelled.
    running = proxy.state.next_probes(proxy.now)
    proxy.reload(interval=INTERVAL)
    for probe in running[:under_way]:
        proxy.state.abandon(probe, proxy.now + 0.1)
    for probe in running[under_way:]:
        proxy.state.record(probe, GOOD, proxy.now + 0.1, proxy.wall)
    proxy.dead(B)
    assert proxy.served() == (A, B)
    proxy.elapse(2 * INTERVAL)
    assert proxy.served() == (A,)


def test_b02_a_reload_with_other_probes_ignores_the_results_of_earlier_ones() -> None:
    proxy = ProxyModel()
    proxy.publish(H1, A)
    (probe,) = proxy.state.next_probes(proxy.now)
    proxy.now += 1
    proxy.reload(ports=(8443,))
    proxy.state.record(probe, FAILED, proxy.now, proxy.wall)
    assert proxy.states()[A].result is None
    (again,) = proxy.state.next_probes(proxy.now)
    assert again.ports == (8443,)


def files_of_a_change(proxy: ProxyModel) -> list[Any]:
    """The files that a process may leave that is killed while it takes another set of NAME.

    The file is replaced as a whole; the state may change between two of its lines.
    """
    documents = [proxy.document()]
    count = len(list(encode(proxy.state)))
    for lines in range(count + 1):
        killed = ProxyModel()
        killed.restart(documents[0])
        killed.serials, killed.hosts, killed.wall = dict(proxy.serials), dict(proxy.hosts), proxy.wall
        writing = encode(killed.state)
        text = list(islice(writing, lines))
        killed.publish(H1, B)
        text += writing
        documents.append(_parsed(text))
        documents.append(killed.document())
        killed.probe()
        documents.append(killed.document())
    return documents


def _parsed(lines: list[str]) -> Any:
    return json.loads("\n".join(lines))


def test_b03_a_process_that_is_killed_at_any_time_serves_the_working_set() -> None:
    proxy = ProxyModel()
    proxy.dead(B)
    proxy.publish(H1, A)
    proxy.elapse(2 * INTERVAL)
    for document in files_of_a_change(proxy):
        started = ProxyModel()
        started.dead(B)
        started.restart(document)
        assert started.served() == (A,)
        started.elapse(10 * INTERVAL)
        assert started.served() == (A,)


def test_b03_a_file_has_a_statement_that_returns_while_it_is_written() -> None:
    proxy = ProxyModel(NAME, OTHER)
    proxy.publish_all(H1, [learned(NAME, (A,)), learned(OTHER, (B,))])
    proxy.publish_all(H1, [learned(OTHER, (B,))])
    count = len(list(encode(proxy.state)))
    for lines in range(count + 1):
        killed = ProxyModel(NAME, OTHER)
        killed.restart(proxy.document())
        killed.serials = dict(proxy.serials)
        writing = encode(killed.state)
        text = list(islice(writing, lines))
        killed.publish_all(H1, [learned(NAME, (A,)), learned(OTHER, (B,))])
        killed.restart(_parsed([*text, *writing]))
        assert (killed.served(NAME), killed.served(OTHER)) == ((A,), (B,)), lines


COMMANDS: list[tuple[str, tuple[Any, ...]]] = [
    ("pin", (OTHER, [D])),
    ("unpin", (NAME,)),
    ("freeze", ()),
    ("unfreeze", ()),
    ("rollback", (1,)),
    ("promote", (NAME,)),
    ("refuse", (NAME,)),
]


@pytest.mark.parametrize(("command", "arguments"), COMMANDS, ids=[command for command, _ in COMMANDS])
def test_b04_a_command_makes_the_file_out_of_date_and_is_in_the_next_one(
    command: str, arguments: tuple[Any, ...]
) -> None:
    proxy = ProxyModel(NAME, OTHER, canary=canary())
    proxy.publish_all(H1, [learned(NAME, (A,)), learned(OTHER, (C,))])
    proxy.publish_all(H1, [learned(NAME, (B,)), learned(OTHER, (C,))])
    if command == "unpin":
        proxy.order("pin", NAME, [D])
    if command == "unfreeze":
        proxy.order("freeze")
    before = proxy.state.urgent
    proxy.order(command, *arguments)
    assert proxy.state.urgent > before
    document, served = proxy.document(), proxy.served()
    proxy.restart()
    assert (proxy.document(), proxy.served()) == (document, served)


@again
def test_b05_the_working_set_is_answered_after_pin_and_freeze(again: Again) -> None:
    proxy = ProxyModel()
    proxy.dead(B)
    proxy.publish(H1, A)
    proxy.publish(H1, B)
    proxy.elapse(INTERVAL)
    for command, arguments, expected in [
        ("pin", (NAME, [D]), (D,)),
        ("freeze", (), (D,)),
        ("unpin", (NAME,), (A,)),
        ("unfreeze", (), (A,)),
    ]:
        proxy.order(command, *arguments)
        again(proxy)
        assert proxy.served() == expected, command
        proxy.elapse(3 * INTERVAL)
        assert proxy.served() == expected, command


@again
def test_b06_a_set_that_one_helper_confirms_does_not_become_stale(again: Again) -> None:
    proxy = ProxyModel(max_stale=300.0)
    proxy.dead(B)
    proxy.publish(H1, A, lifetime=120)
    for _ in range(20):
        proxy.elapse(30)
        proxy.publish(H2, B, lifetime=120)
        proxy.elapse(30)
        proxy.publish(H1, A, lifetime=120)
        again(proxy)
        assert (proxy.served(), proxy.age(), proxy.is_stale()) == ((A,), 0.0, False)


@again
@pytest.mark.parametrize("was_served", [False, True])
def test_b07_a_freeze_keeps_the_first_usable_set(again: Again, was_served: bool) -> None:
    """A freeze preserves a working set; it does not block the first one."""
    proxy = ProxyModel()
    if was_served:
        proxy.publish(H1, A)
    proxy.publish(H1, PUBLIC)
    proxy.order("freeze")
    again(proxy)
    assert proxy.served() == ((A,) if was_served else ())
    proxy.publish(H1, B)
    proxy.elapse(INTERVAL)
    expected = (A,) if was_served else (B,)
    assert proxy.served() == expected
    proxy.publish(H1, C)
    proxy.elapse(INTERVAL)
    again(proxy)
    assert proxy.served() == expected


@again
@pytest.mark.parametrize(("command", "end"), [("freeze", "unfreeze"), ("pin", "unpin")])
def test_b08_an_override_during_a_trial_does_not_promote_the_candidate(
    again: Again, command: str, end: str
) -> None:
    proxy = ProxyModel(canary=canary())
    proxy.publish(H1, A)
    proxy.publish(H1, A, B)
    proxy.elapse(HOLD / 2)
    proxy.order(command, *((NAME, [A]) if command == "pin" else ()))
    assert proxy.state.trials() == {}
    proxy.elapse(HOLD)
    again(proxy)
    assert proxy.served() == (A,)
    proxy.order(end, *((NAME,) if command == "pin" else ()))
    assert proxy.served() == (A,)
    # The trial starts again, with its whole time.
    assert proxy.state.trials()[NAME].started_at == int(proxy.wall)
    proxy.elapse(HOLD - 1)
    assert proxy.served() == (A,)
    proxy.elapse(INTERVAL + 1)
    assert proxy.served() == (A, B)


@again
def test_b09_the_last_working_set_is_answered_after_a_rollback_to_a_dead_one(again: Again) -> None:
    proxy = ProxyModel()
    proxy.publish(H1, A)
    proxy.publish(H1, B)
    proxy.elapse(INTERVAL)
    assert proxy.served() == (B,)
    proxy.dead(A, C)
    proxy.publish(H1, C)
    proxy.elapse(2 * INTERVAL)
    assert proxy.served() == (B,)
    proxy.order("rollback", 1)
    again(proxy)
    proxy.elapse(2 * INTERVAL)
    assert proxy.served() == (A,)
    proxy.order("unfreeze")
    assert proxy.served() == (B,)
    again(proxy)
    proxy.elapse(2 * INTERVAL)
    assert proxy.served() == (B,)


def discovering(**policy: Any) -> ProxyModel:
    return ProxyModel(NAME, sought=SOUGHT, **policy)


def report(
    proxy: ProxyModel, *names: str, helper: str = H1, addresses: tuple[str, ...] = (A,), **facts: Any
) -> None:
    """Have a helper discover ``names``, which have ``addresses``; None is stated for the other ones."""
    at = int(proxy.wall)
    entries = [learned(NAME, (D,), observed_at=at)]
    entries += [learned(name, addresses, observed_at=at) for name in names]
    found = Found(REGISTRY, "auth", names, facts.pop("observed_at", at))
    assert proxy.publish_all(helper, entries, found=[found], **facts)


@again
def test_b10_a_name_that_is_discovered_again_while_frozen_gets_its_new_address(again: Again) -> None:
    proxy = discovering()
    report(proxy, AUTH, addresses=(A,))
    proxy.order("freeze")
    assert proxy.served(AUTH) == (A,)
    report(proxy)
    again(proxy)
    assert proxy.served(AUTH) == ()
    proxy.dead(A)
    report(proxy, AUTH, addresses=(B,))
    again(proxy)
    assert proxy.served(AUTH) == (B,)
    assert proxy.served(NAME) == (D,)


@again
@pytest.mark.parametrize("command", [None, "freeze", "pin"])
def test_b11_the_age_is_that_of_the_last_confirmation(again: Again, command: str | None) -> None:
    proxy = ProxyModel()
    proxy.publish(H1, A, PUBLIC)
    if command:
        proxy.order(command, *((NAME, [A]) if command == "pin" else ()))
    for _ in range(3):
        proxy.elapse(40)
        proxy.publish(H1, A, PUBLIC)
        again(proxy)
        # The age of a pin is that of the command.
        assert (proxy.served(), proxy.age()) == ((A,), 0.0) or command == "pin"
    if command == "pin":
        proxy.order("unpin", NAME)
        assert proxy.age() == 0.0


@again
@pytest.mark.parametrize("command", [None, "freeze", "pin"])
def test_b11_the_last_confirmation_counts_after_the_helper_states_another_set(
    again: Again, command: str | None
) -> None:
    proxy = ProxyModel(max_stale=300.0)
    proxy.dead(B)
    proxy.publish(H1, A, lifetime=60)
    proxy.order("freeze") if command else None
    proxy.order("pin", NAME, [D]) if command == "pin" else None
    proxy.elapse(40)
    proxy.publish(H1, A, lifetime=60)
    proxy.elapse(10)
    proxy.publish(H1, B)
    proxy.elapse(10)
    again(proxy)
    proxy.order("unpin", NAME) if command == "pin" else None
    assert (proxy.served(), proxy.age()) == ((A,), 20.0)


@again
def test_b12_every_record_can_be_rolled_back_to(again: Again) -> None:
    proxy = ProxyModel()
    proxy.publish(H1, A, serial=5)
    proxy.elapse(LATER)
    proxy.publish(H2, B, serial=5)
    proxy.elapse(LATER)
    proxy.publish(H3, C, serial=5)
    again(proxy)
    serials = [serial for serial, _ in proxy.history()]
    assert len(set(serials)) == 3
    assert [addresses for _, addresses in proxy.history()] == [(A,), (B,), (C,)]
    for serial, addresses in proxy.history():
        proxy.order("rollback", serial)
        again(proxy)
        assert proxy.served() == addresses


@pytest.mark.parametrize("command", ["pin", "freeze"])
def test_b13_a_file_without_overrides_has_none_after_a_restart(command: str) -> None:
    proxy = ProxyModel(history=0)
    proxy.publish(H1, A)
    proxy.order(command, *((NAME, [D]) if command == "pin" else ()))
    before = proxy.document()
    at = proxy.state.urgent
    proxy.order(f"un{command}", *((NAME,) if command == "pin" else ()))
    assert proxy.state.urgent > at
    # The document replaces any earlier one as a whole, wherever it is.
    after = proxy.document()
    proxy.restart(before)
    assert proxy.state.overrides.pins or proxy.state.overrides.freeze
    proxy.restart(after)
    assert (proxy.state.overrides.pins, proxy.state.overrides.freeze) == ({}, None)
    proxy.publish(H1, B)
    proxy.elapse(INTERVAL)
    assert proxy.served() == (B,)


def test_commands_after_a_reload_act_on_the_current_state() -> None:
    proxy = ProxyModel(canary=canary())
    proxy.publish(H1, A)
    proxy.reload(interval=10.0, history=3)
    proxy.order("pin", NAME, [D])
    assert proxy.served() == (D,)
    proxy.order("unpin", NAME)
    proxy.order("freeze")
    proxy.publish(H1, B)
    proxy.reload(interval=20.0)
    proxy.elapse(60)
    assert proxy.served() == (A,)
    proxy.order("unfreeze")
    assert proxy.state.canary().trials[NAME].addresses == (B,)
    proxy.order("promote", NAME)
    assert proxy.served() == (B,)
    assert proxy.history() == [(1, (A,)), (2, (B,))]


# -- cases that the documentation defines -----------------------------------------------------------


BOTH = {"restart": ProxyModel.restart, "reload": ProxyModel.reload}
by_both = pytest.mark.parametrize("change", BOTH.values(), ids=BOTH)
Changed = Callable[..., None]


@by_both
def test_the_sets_of_a_removed_key_are_dropped(change: Changed) -> None:
    proxy = ProxyModel()
    proxy.publish(H1, A)
    proxy.order("freeze")
    change(proxy, keys=keys_without(H1))
    assert (proxy.served(), proxy.states()) == ((), {})
    assert (A,) not in [addresses for _, addresses in proxy.history()]
    # The name has no kept set now, so it keeps the first one that follows.
    proxy.publish(H2, B)
    assert proxy.served() == (B,)


@by_both
@pytest.mark.parametrize("is_frozen", [True, False])
def test_the_set_of_a_removed_key_stays_when_another_helper_states_it(
    change: Changed, is_frozen: bool
) -> None:
    proxy = ProxyModel()
    proxy.dead(B)
    proxy.publish(H2, A, lifetime=DAY)
    proxy.publish(H1, A, lifetime=2 * DAY)  # lasts longest: its key signed the set
    proxy.elapse(LATER)
    proxy.publish(H3, B)
    proxy.elapse(INTERVAL)
    assert proxy.served() == (A,)
    if is_frozen:
        proxy.order("freeze")
    change(proxy, keys=keys_without(H1))
    assert proxy.served() == (A,)
    assert [addresses for _, addresses in proxy.history()] == [(A,), (B,)]
    proxy.elapse(3 * INTERVAL)
    assert proxy.served() == (A,)


@by_both
def test_a_recorded_set_with_refused_addresses_stays_when_another_helper_states_it(change: Changed) -> None:
    proxy = ProxyModel()
    proxy.publish(H1, A, PUBLIC)
    proxy.publish(H2, A, PUBLIC)
    change(proxy, keys=keys_without(H1))
    assert proxy.served() == (A,)
    assert proxy.history() == [(1, (A, PUBLIC))]


@by_both
def test_a_key_that_no_longer_speaks_for_a_registry_counts_for_the_others(change: Changed) -> None:
    managed = (Wanted(NAME, "registry", REGISTRY), Wanted(OTHER, "registry", "beijing"))
    proxy = ProxyModel(managed=managed)
    proxy.publish_all(H1, [learned(NAME, (A,)), learned(OTHER, (B,), registry="beijing")])
    change(proxy, keys={KEY_IDS[H1]: frozenset({"beijing"})})
    assert proxy.served(NAME) == ()


def test_a_configured_name_that_is_removed_and_added_again() -> None:
    proxy = ProxyModel(NAME, OTHER)
    both = proxy.policy.managed
    proxy.publish_all(H1, [learned(NAME, (A,)), learned(OTHER, (B,))])
    proxy.publish_all(H1, [learned(NAME, (A,)), learned(OTHER, (C,))])
    proxy.dead(C)
    proxy.elapse(INTERVAL)
    proxy.order("pin", OTHER, [D])
    assert proxy.history(OTHER) == [(1, (B,)), (2, (C,))]
    proxy.reload(managed=both[:1])
    assert proxy.served(OTHER) == ()
    assert proxy.history(OTHER) == [(1, (B,)), (2, (C,))]
    proxy.restart(managed=both)
    assert proxy.served(OTHER) == (D,)
    proxy.order("unpin", OTHER)
    # The last snapshot of the helper applies to it; its set is a first set.
    assert proxy.served(OTHER) == (C,)


@by_both
def test_an_address_that_is_refused_now_is_removed_from_every_set(change: Changed) -> None:
    limits = LimitTable(by_registry={REGISTRY: Limits(conflicts=(ip_network(f"{A}/32"),))})
    proxy = ProxyModel()
    proxy.publish(H1, A, B)
    proxy.order("freeze")
    change(proxy, limits=limits)
    assert proxy.served() == (B,)
    proxy.order("unfreeze")
    assert proxy.served() == (B,)
    assert proxy.history() == [(1, (A, B))]
    assert [finding.address for finding in proxy.state.refused_of(NAME)] == [A]
    change(proxy, limits=LimitTable())
    proxy.elapse(INTERVAL)
    assert proxy.served() == (A, B)


@again
def test_a_snapshot_that_omits_a_discovered_role_changes_nothing(again: Again) -> None:
    proxy = discovering()
    report(proxy, AUTH)
    proxy.publish(H1, D)
    again(proxy)
    assert proxy.served(AUTH) == (A,)
    # That its helper has not seen the registry yet (at 0) withdraws no name either.
    report(proxy, observed_at=0)
    again(proxy)
    assert proxy.served(AUTH) == (A,)
    report(proxy)
    again(proxy)
    assert [entry.name for entry in proxy.state.managed()] == [NAME]
    assert proxy.served(AUTH) == ()


@by_both
@pytest.mark.parametrize("policy", [{}, {"canary": canary()}], ids=["plain", "canary"])
def test_an_address_that_is_allowed_now_needs_proof(change: Changed, policy: dict[str, Any]) -> None:
    limits = LimitTable(by_registry={REGISTRY: Limits(conflicts=(ip_network(f"{B}/32"),))})
    proxy = ProxyModel(limits=limits, **policy)
    proxy.publish(H1, A, B)
    change(proxy, limits=LimitTable())
    assert proxy.served() == (A,)
    assert set(proxy.state.trials()) == ({NAME} if policy else set())
    assert proxy.life() == {A: True, B: None}


@by_both
def test_a_record_after_a_key_was_removed_has_no_set_that_it_signed(change: Changed) -> None:
    proxy = ProxyModel(NAME, OTHER)
    proxy.publish(H1, A)
    proxy.publish(H2, B, name=OTHER)
    change(proxy, keys=keys_without(H1))
    assert proxy.state.owned(NAME) is None
    proxy.publish(H2, C, name=OTHER)
    assert proxy.history(OTHER)[-1][1] == (C,)
    assert (A,) not in [addresses for _, addresses in proxy.history(NAME)]


@by_both
def test_a_record_has_the_last_statement_of_an_owner_whose_addresses_are_refused_now(
    change: Changed,
) -> None:
    proxy = ProxyModel(NAME, OTHER)
    proxy.publish(H1, A)
    proxy.publish(H2, B, name=OTHER)
    change(proxy, limits=LimitTable(by_name={NAME: Limits(conflicts=(ip_network(f"{A}/32"),))}))
    assert proxy.served() == ()
    proxy.publish(H2, C, name=OTHER)
    change(proxy)
    proxy.publish(H2, D, name=OTHER)
    assert [addresses for _, addresses in proxy.history(NAME)] == [(A,)] * 4
    assert [addresses for _, addresses in proxy.history(OTHER)] == [(), (B,), (C,), (D,)]


@again
def test_both_sets_dead_across_a_restart(again: Again) -> None:
    proxy = ProxyModel()
    proxy.publish(H1, A)
    proxy.dead(A, B)
    proxy.publish(H1, B, C)
    proxy.dead(C)
    proxy.elapse(2 * INTERVAL)
    # No known set works: the owner's usable set, whole.
    assert proxy.served() == (B, C)
    again(proxy)
    assert proxy.served() == (B, C)
    assert proxy.life() == {A: False, B: False, C: False}
    proxy.alive(A)
    proxy.elapse(INTERVAL)
    assert proxy.served() == (A,)
    again(proxy)
    proxy.alive(C)
    proxy.elapse(INTERVAL)
    assert proxy.served() == (C,)


@again
def test_a_freeze_after_max_stale_keeps_nothing(again: Again) -> None:
    proxy = ProxyModel(max_stale=300.0)
    proxy.publish(H1, A, lifetime=60)
    proxy.elapse(361)
    assert proxy.served() == ()
    proxy.order("freeze")
    again(proxy)
    assert proxy.served() == ()
    proxy.publish(H1, B)
    assert proxy.served() == (B,)


@again
def test_a_kept_set_is_answered_beyond_max_stale(again: Again) -> None:
    proxy = ProxyModel(max_stale=300.0)
    proxy.publish(H1, A, lifetime=60)
    proxy.order("freeze")
    proxy.elapse(10 * DAY)
    again(proxy)
    assert (proxy.served(), proxy.is_stale()) == ((A,), False)
    assert proxy.age() == 10 * DAY
    proxy.order("unfreeze")
    assert proxy.served() == ()


@again
def test_a_set_of_a_second_helper_that_works_is_answered_while_the_owner_confirms_a_dead_one(
    again: Again,
) -> None:
    proxy = ProxyModel()
    proxy.publish(H1, A)
    proxy.elapse(10)
    proxy.publish(H2, B)
    proxy.dead(A)
    for _ in range(5):
        proxy.elapse(INTERVAL)
        proxy.publish(H1, A)
        again(proxy)
    assert proxy.served() == (B,)
    # The owner's set is a candidate again, and replaces the other one when it answers.
    proxy.alive(A)
    proxy.elapse(LATER)
    proxy.publish(H1, A)
    proxy.elapse(INTERVAL)
    again(proxy)
    assert proxy.served() == (A,)


def test_names_below_a_wildcard_are_probed_with_one_of_them() -> None:
    wild, plain = "*.oss.example.", "b.example."
    proxy = ProxyModel(NAME, wild, plain, own_ports={plain: (80, 8443)})
    proxy.publish_all(H1, [learned(name, (A,)) for name in (NAME, wild, plain)])
    assert {probe.name: probe for probe in proxy.probe()} == {
        NAME: Probe(NAME, A, (443,), "a.example"),
        wild: Probe(wild, A, (443,), "dnsproxy-probe.oss.example"),
        plain: Probe(plain, A, (80, 8443), "b.example"),
    }
    proxy.restart(tls=False)
    assert {probe.server_name for probe in proxy.probe()} == {None}


@again
def test_a_changed_cname_is_a_changed_set(again: Again) -> None:
    proxy = ProxyModel(canary=canary())
    proxy.publish(H1, A, cname="one.example.")
    again(proxy)
    proxy.publish(H1, A, cname="two.example.")
    again(proxy)
    served = proxy.state.served(NAME)
    assert served is not None
    # It has no new address, so no trial holds it back.
    assert served.learned.cname == "two.example."
    assert len(proxy.history()) == 2
    proxy.order("rollback", 1)
    again(proxy)
    served = proxy.state.served(NAME)
    assert served is not None
    assert served.learned.cname == "one.example."


@again
def test_ipv6_addresses_are_probed_and_answered_like_ipv4_ones(again: Again) -> None:
    proxy = ProxyModel()
    proxy.publish(H1, A, V6)
    again(proxy)
    assert proxy.served() == (A, V6)
    assert proxy.probed() == {A, V6}
    proxy.dead(A)
    proxy.elapse(2 * INTERVAL)
    again(proxy)
    assert proxy.served() == (V6,)
    proxy.publish(H1, "fd00::2")
    proxy.elapse(INTERVAL)
    assert proxy.served() == ("fd00::2",)


@again
def test_without_any_route_no_address_dies(again: Again) -> None:
    proxy = ProxyModel(NAME, OTHER)
    proxy.publish_all(H1, [learned(NAME, (A, B)), learned(OTHER, (C,))])
    proxy.elapse(2 * INTERVAL)
    proxy.elapse(1)
    proxy.hosts = dict.fromkeys((A, B, C, D), NO_ROUTE)
    proxy.publish_all(H1, [learned(NAME, (D,)), learned(OTHER, (C,))])
    proxy.elapse(600)
    again(proxy)
    assert (proxy.served(NAME), proxy.served(OTHER)) == ((A, B), (C,))
    assert proxy.life() == {D: None, A: True, B: True}


@again
def test_an_address_without_route_dies_while_another_one_answers(again: Again) -> None:
    proxy = ProxyModel(NAME, OTHER)
    proxy.publish_all(H1, [learned(NAME, (A, B)), learned(OTHER, (C,))])
    proxy.hosts[B] = NO_ROUTE
    proxy.elapse(3 * INTERVAL)
    again(proxy)
    assert proxy.served() == (A,)


def test_a_shortage_of_this_host_changes_nothing() -> None:
    proxy = ProxyModel()
    proxy.publish(H1, A)
    proxy.hosts[A] = HOST
    proxy.elapse(300)
    assert (proxy.served(), proxy.life()) == ((A,), {A: True})


def test_a_trial_is_promoted_although_a_family_has_no_route() -> None:
    proxy = ProxyModel(canary=canary())
    proxy.publish(H1, A)
    proxy.hosts[V6] = NO_ROUTE
    proxy.publish(H1, A, B, V6)
    proxy.elapse(HOLD + INTERVAL)
    assert proxy.state.outcomes == {TrialOutcome.HELD: 1}
    assert proxy.served() == (A, B)


# -- snapshots --------------------------------------------------------------------------------------


@again
@pytest.mark.parametrize("second", [[], [learned(NAME, ())]], ids=["omitted", "without address"])
def test_a_snapshot_without_a_set_of_a_name_leaves_its_statement(again: Again, second: list[Any]) -> None:
    proxy = ProxyModel(NAME, OTHER)
    proxy.publish_all(H1, [learned(NAME, (A,)), learned(OTHER, (B,))])
    proxy.publish_all(H1, [*second, learned(OTHER, (C,))])
    again(proxy)
    assert proxy.served(NAME) == (A,)
    proxy.elapse(INTERVAL)
    assert proxy.served(OTHER) == (C,)


def test_only_names_in_scope_are_taken() -> None:
    proxy = ProxyModel()
    proxy.publish_all(H1, [learned(NAME, (A,)), learned("bank.example.", (B,))])
    assert [entry.name for entry in proxy.state.managed()] == [NAME]
    assert proxy.served("bank.example.") == ()


def test_refused_addresses_are_counted_once_and_logged() -> None:
    proxy = ProxyModel()
    for addresses in [(A, PUBLIC), (A, PUBLIC), (A, PUBLIC, "127.0.0.1"), (A,)]:
        proxy.publish(H1, *addresses)
    assert proxy.state.refused == {"public": 1, "loopback": 1}
    events = [event for event in proxy.events() if event.startswith("learned.refused")]
    assert events == ["learned.refused", "learned.refused", "learned.refused_no_more"]
    assert proxy.state.refused_of(NAME) == ()


def test_the_last_helpers_are_kept() -> None:
    state = lifecycle(
        *(snapshot(learned(NAME, observed_at=n), issuer=f"helper-{n}") for n in range(MAX_ISSUERS + 2))
    )
    assert list(state.snapshots) == [f"helper-{n}" for n in range(2, MAX_ISSUERS + 2)]
    document = "\n".join(encode(state))
    assert '"helper-1"' not in document


def test_snapshots_with_very_many_addresses_are_kept_of_few_helpers(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("dnsproxy.core.memory.SNAPSHOTS", 100_000)
    many = tuple(f"10.0.0.{number}" for number in range(256))
    taken = [snapshot(learned(NAME, many), issuer=f"helper-{n}") for n in range(MAX_ISSUERS)]
    state = lifecycle(snapshot(learned(NAME), issuer="small"), *taken)
    assert sum(held.cost for held in state.snapshots.values()) <= 100_000 + SNAPSHOTS_PER_NAME
    # The one that takes little is not among those that are given up.
    assert list(state.snapshots) == ["small", f"helper-{MAX_ISSUERS - 1}"]
    state = lifecycle(*(snapshot(learned(NAME), issuer=f"helper-{n}") for n in range(40)))
    assert len(state.snapshots) == 40


def test_the_serial_is_the_highest_accepted() -> None:
    proxy = ProxyModel()
    assert (proxy.state.serial, proxy.state.table().serial) == (0, 0)
    proxy.publish(H1, A, serial=7)
    proxy.publish(H2, A, serial=3)
    assert proxy.state.table().serial == 7


# -- discovery --------------------------------------------------------------------------------------


def discovered(proxy: ProxyModel) -> tuple[str, ...]:
    return tuple(entry.name for entry in proxy.state.managed() if entry.name != NAME)


@again
def test_the_names_that_helpers_discover_are_united(again: Again) -> None:
    proxy = discovering()
    report(proxy, AUTH)
    report(proxy, AUTH2, helper=H2)
    again(proxy)
    assert discovered(proxy) == (AUTH, AUTH2)
    # A name is withdrawn when no helper reports it.
    report(proxy, AUTH2)
    again(proxy)
    assert discovered(proxy) == (AUTH2,)


def test_a_discovery_that_a_helper_could_not_confirm_for_a_day_ends_when_another_helper_reports() -> None:
    proxy = discovering()
    report(proxy, AUTH)
    first = int(proxy.wall)
    proxy.elapse(DISCOVERY_LIFETIME)
    report(proxy, AUTH2, helper=H2)
    assert discovered(proxy) == (AUTH, AUTH2)
    proxy.elapse(1)
    report(proxy, AUTH2, helper=H2)
    assert discovered(proxy) == (AUTH2,)
    report(proxy, AUTH, observed_at=first)
    proxy.restart()
    assert discovered(proxy) == (AUTH2,)


def test_a_name_outside_the_suffixes_is_not_discovered() -> None:
    proxy = discovering()
    report(proxy, "www.bank.example.", AUTH)
    assert discovered(proxy) == (AUTH,)


def test_discoveries_of_helpers_without_end_are_not_kept() -> None:
    proxy = discovering()
    report(proxy, AUTH)
    for number in range(2 * MAX_ISSUERS):
        report(proxy, AUTH2, helper=f"helper-{number}", signer=H2)
    assert len(proxy.state.discoveries) == MAX_ISSUERS
    # The first one goes on, whatever comes.
    report(proxy, AUTH, helper=H1)
    assert AUTH in discovered(proxy)


def test_helpers_together_cannot_discover_more_names_than_one() -> None:
    sought = (Sought(REGISTRY, "auth", ("cloud.example.",)),)
    proxy = ProxyModel(sought=sought)
    for helper in (H1, H2):
        report(proxy, *(f"{helper}-{n}.cloud.example." for n in range(MAX_FOUND)), helper=helper)
    # Each helper in turn, so that none displaces the names of another one.
    assert {helper: sum(helper in name for name in discovered(proxy)) for helper in (H1, H2)} == {
        H1: MAX_FOUND // 2,
        H2: MAX_FOUND // 2,
    }


@by_both
def test_a_role_that_is_no_longer_discovered_drops_its_names(change: Changed) -> None:
    proxy = discovering()
    report(proxy, AUTH)
    change(proxy, sought=())
    assert discovered(proxy) == ()
    assert proxy.served(AUTH) == ()


# -- probes ----------------------------------------------------------------------------------------


def test_the_number_of_probes_at_one_time_is_limited() -> None:
    names = [f"n{number}.example." for number in range(MAX_PROBES * 3)]
    proxy = ProxyModel(*names)
    proxy.publish_all(H1, [learned(name, (A,)) for name in names])
    first = proxy.state.next_probes(proxy.now)
    assert len(first) == MAX_PROBES
    assert proxy.state.next_time() is None
    assert proxy.state.next_probes(proxy.now) == []
    for probe in first[:3]:
        proxy.state.record(probe, FAILED, proxy.now, proxy.wall)
    assert proxy.state.next_time() is not None
    assert len(proxy.state.next_probes(proxy.now)) == 3


def test_a_cancelled_probe_is_due_again() -> None:
    proxy = ProxyModel()
    proxy.publish(H1, A)
    (probe,) = proxy.state.next_probes(proxy.now)
    assert proxy.state.next_time() is None
    proxy.state.abandon(probe, proxy.now + 1)
    assert proxy.state.next_time() == proxy.now + 1
    assert [again.address for again in proxy.state.next_probes(proxy.now + 1)] == [A]


def test_a_probe_that_is_cancelled_when_it_starts_is_due_again() -> None:
    proxy = ProxyModel()
    proxy.publish(H1, A)
    (probe,) = proxy.state.next_probes(proxy.now)
    proxy.state.abandon(probe, proxy.now)
    assert [again.address for again in proxy.state.next_probes(proxy.now)] == [A]
    # The same when the way to probe changes meanwhile.
    proxy.reload(ports=(8443,))
    assert [again.ports for again in proxy.state.next_probes(proxy.now)] == [(8443,)]


def test_only_addresses_that_may_be_answered_are_probed() -> None:
    proxy = ProxyModel()
    proxy.publish(H1, A)
    proxy.publish(H1, B)
    proxy.elapse(INTERVAL)
    assert proxy.probed() == {B}
    proxy.order("pin", NAME, [D])
    assert proxy.probed() == {B, D}
    proxy.order("unpin", NAME)
    proxy.reload(managed=())
    assert proxy.probed() == set()


def test_a_result_from_before_a_name_was_removed_does_not_count_after_it_returned() -> None:
    proxy = ProxyModel()
    managed = proxy.policy.managed
    proxy.publish(H1, A)
    (before,) = proxy.state.next_probes(proxy.now)
    proxy.reload(managed=())
    proxy.reload(managed=managed)
    proxy.state.record(before, FAILED, proxy.now, proxy.wall)
    assert proxy.states() == {} or proxy.states()[A].result is None
    proxy.publish(H1, A)
    assert [probe.address for probe in proxy.state.next_probes(proxy.now)] == [A]


@pytest.mark.parametrize("managed", [True, False])
def test_a_name_may_have_no_probes(managed: bool) -> None:
    proxy = ProxyModel(own_ports={NAME: ()}) if managed else ProxyModel(ports=())
    proxy.publish(H1, A)
    proxy.publish(H1, B)
    assert proxy.served() == (B,)
    assert (proxy.state.next_time(), proxy.probed(1e6)) == (None, set())


@by_both
def test_without_probes_every_address_is_alive(change: Changed) -> None:
    proxy = ProxyModel()
    proxy.publish(H1, A, B)
    proxy.dead(B)
    proxy.elapse(2 * INTERVAL)
    assert proxy.served() == (A,)
    change(proxy, ports=())
    assert proxy.served() == (A, B)


@by_both
def test_other_probes_keep_the_state_of_addresses(change: Changed) -> None:
    proxy = ProxyModel()
    proxy.publish(H1, A, B)
    proxy.dead(B)
    proxy.elapse(2 * INTERVAL)
    change(proxy, ports=(8443,))
    assert proxy.served() == (A,)
    assert {probe.address for probe in proxy.probe()} == {A, B}
    change(proxy, tls=False)
    assert proxy.served() == (A,)


@again
def test_with_accept_a_changed_set_needs_no_proof_and_dead_members_are_left_out(again: Again) -> None:
    proxy = ProxyModel(accept=True)
    proxy.publish(H1, A)
    proxy.dead(B)
    proxy.publish(H1, B, C)
    again(proxy)
    assert proxy.served() == (B, C)
    proxy.elapse(2 * INTERVAL)
    again(proxy)
    assert proxy.served() == (C,)


@again
def test_a_pin_of_an_unknown_address_does_not_make_it_alive(again: Again) -> None:
    proxy = ProxyModel()
    proxy.publish(H1, A)
    proxy.publish(H1, B)
    proxy.order("pin", NAME, [B])
    again(proxy)
    # It was first seen in a statement, so a probe has to decide.
    assert proxy.life() == {B: None, A: True}
    proxy.order("unpin", NAME)
    assert proxy.served() == (A,)


# -- trials -----------------------------------------------------------------------------------------


@again
def test_the_canary_group_answers_with_the_candidate_while_it_works(again: Again) -> None:
    proxy = ProxyModel(canary=canary(share=1.0))
    proxy.publish(H1, A)
    proxy.publish(H1, B)
    assert proxy.served() == (A,)
    proxy.elapse(1)
    again(proxy)
    assert proxy.served() == (B,)
    view = proxy.state.canary()
    assert set(view.leading) == {NAME}
    assert dict(view.stable) == {NAME: (A,)}
    proxy.dead(B)
    proxy.elapse(2 * INTERVAL)
    again(proxy)
    assert proxy.served() == (A,)
    assert proxy.state.canary().leading == frozenset()


@again
def test_a_trial_continues_over_a_restart_and_is_not_promoted_before_it_answers_again(again: Again) -> None:
    proxy = ProxyModel(canary=canary())
    proxy.publish(H1, A)
    proxy.publish(H1, B)
    started = int(proxy.wall)
    proxy.elapse(HOLD - 1)
    proxy.wall += 2  # the hold is over while the process does not run
    again(proxy)
    if again is restart:
        assert proxy.state.trials()[NAME].started_at == started
        assert proxy.served() == (A,)
    proxy.elapse(INTERVAL)
    assert proxy.served() == (B,)


@again
@pytest.mark.parametrize(
    ("dies", "expected"),
    [("never answered", TrialOutcome.SILENT), ("answered", TrialOutcome.FAILED)],
)
def test_a_candidate_that_fails_is_refused_until_another_one_follows(
    again: Again, dies: str, expected: TrialOutcome
) -> None:
    proxy = ProxyModel(canary=canary())
    proxy.publish(H1, A)
    proxy.publish(H1, B)
    if dies == "answered":
        proxy.elapse(1)
    proxy.dead(B)
    proxy.elapse(HOLD + INTERVAL)
    again(proxy)
    trial = proxy.state.trials()[NAME]
    assert (trial.is_running, trial.outcome) == (False, expected)
    proxy.alive(B)
    proxy.publish(H1, B)
    proxy.elapse(2 * HOLD)
    again(proxy)
    assert proxy.served() == (A,)
    # A set that works is better than none.
    proxy.dead(A)
    proxy.elapse(2 * INTERVAL)
    assert proxy.served() == (B,)


def test_a_candidate_that_the_fleet_refused_is_rolled_back() -> None:
    proxy = ProxyModel(canary=canary())
    proxy.publish(H1, A)
    proxy.publish(H1, B)
    proxy.publish(H1, B, refused=((B,),))
    assert proxy.state.trials()[NAME].outcome is TrialOutcome.FLEET
    assert proxy.state.outcomes == {TrialOutcome.FLEET: 1}
    assert proxy.events().count("canary.rolled_back") == 1


def test_a_candidate_that_the_fleet_refuses_no_more_is_tried_again() -> None:
    """Else a refusal that ends after a day would keep the set out for good."""
    proxy = ProxyModel(canary=canary())
    proxy.publish(H1, A)
    proxy.publish(H1, B)
    proxy.publish(H1, B, refused=((B,),))
    assert not proxy.state.trials()[NAME].is_running
    proxy.publish(H1, B)
    assert proxy.state.trials()[NAME].is_running
    assert proxy.events().count("canary.started") == 2
    proxy.alive(B)
    proxy.elapse(HOLD + INTERVAL)
    assert proxy.served() == (B,)


@by_both
def test_trials_end_with_the_canary(change: Changed) -> None:
    proxy = ProxyModel(canary=canary())
    proxy.publish(H1, A)
    proxy.publish(H1, B)
    proxy.elapse(1)
    change(proxy, canary=None)
    assert (proxy.state.trials(), proxy.served()) == ({}, (B,))


# -- commands ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("command", "arguments", "problem"),
    [
        ("pin", ("bank.example.", [A]), "no name of a configured registry"),
        ("pin", (OTHER, [A]), "pinned in the configuration"),
        ("pin", (NAME, []), "no address"),
        ("pin", (NAME, ["x"]), "x"),
        ("pin", ("a..b", [A]), "a..b"),
        ("unpin", (NAME,), "not pinned"),
        ("unfreeze", (), "nothing is frozen"),
        ("rollback", (99,), "serial 99"),
        ("promote", (NAME,), "no new addresses are on trial"),
        ("refuse", (NAME,), "no new addresses are on trial"),
        ("refuse", ("bank.example.",), "no new addresses are on trial"),
    ],
)
def test_a_command_that_cannot_be_carried_out_changes_nothing(
    command: str, arguments: tuple[Any, ...], problem: str
) -> None:
    managed = (Wanted(NAME, "registry", REGISTRY), Wanted(OTHER, "auth", REGISTRY, addresses=(D,)))
    proxy = ProxyModel(managed=managed)
    proxy.publish(H1, A)
    before, revision = proxy.document(), proxy.state.revision
    with pytest.raises(OrderError, match=problem):
        proxy.order(command, *arguments)
    assert (proxy.document(), proxy.state.revision) == (before, revision)


def test_a_refused_candidate_can_be_promoted_but_not_refused_again() -> None:
    proxy = ProxyModel(canary=canary())
    proxy.publish(H1, A)
    proxy.publish(H1, B)
    proxy.order("refuse", NAME)
    assert proxy.served() == (A,)
    with pytest.raises(OrderError, match="refused already"):
        proxy.order("refuse", NAME)
    proxy.order("promote", NAME)
    assert proxy.served() == (B,)
    assert proxy.state.outcomes == {TrialOutcome.REFUSED: 1, TrialOutcome.ACCEPTED: 1}


@pytest.mark.parametrize("change", ["reload", "restart"])
def test_after_a_pin_of_the_configuration_the_last_snapshot_applies(change: str) -> None:
    proxy = ProxyModel(NAME, OTHER)
    proxy.publish(H1, A)
    plain = proxy.policy.managed
    pinned = (replace(plain[0], addresses=(D,)), plain[1])
    getattr(proxy, change)(managed=pinned, own_ports={NAME: ()})
    proxy.publish(H1, B)
    proxy.publish(H1, C, name=OTHER)  # the snapshot that lists the name is not the last one any more
    getattr(proxy, change)(managed=plain, own_ports={})
    assert (proxy.served(), proxy.life()) == ((A,), {A: True})
    getattr(proxy, change)(managed=pinned, own_ports={NAME: ()})
    proxy.publish(H1, B)
    proxy.dead(A)
    getattr(proxy, change)(managed=plain, own_ports={})
    assert (proxy.served(), proxy.life()) == ((A,), {A: True, B: None})
    proxy.elapse(INTERVAL)
    assert proxy.served() == (B,)


def test_a_second_freeze_changes_nothing() -> None:
    proxy = ProxyModel()
    proxy.publish(H1, A)
    proxy.order("freeze")
    first = proxy.state.overrides
    proxy.elapse(10)
    proxy.order("freeze")
    assert proxy.state.overrides is first


@again
def test_a_rollback_keeps_the_usable_part_and_what_the_record_lacks(again: Again) -> None:
    proxy = ProxyModel(NAME, OTHER)
    proxy.publish(H1, A, PUBLIC)
    proxy.publish_all(H1, [learned(NAME, (B,)), learned(OTHER, (C,))])
    proxy.elapse(INTERVAL)
    proxy.order("rollback", 1)
    again(proxy)
    assert (proxy.served(NAME), proxy.served(OTHER)) == ((A,), (C,))


def test_a_pin_wins_over_a_freeze() -> None:
    proxy = ProxyModel()
    proxy.publish(H1, A)
    proxy.order("pin", NAME, [D])
    proxy.order("freeze")
    proxy.dead(D)
    proxy.elapse(2 * INTERVAL)
    assert proxy.served() == (D,)
    proxy.order("unpin", NAME)
    assert proxy.served() == (A,)


# -- output -----------------------------------------------------------------------------------------


def test_only_changed_names_are_reported_and_unchanged_statements_stay_the_same_objects() -> None:
    proxy = ProxyModel(NAME, OTHER)
    proxy.publish_all(H1, [learned(NAME, (A,)), learned(OTHER, (B,))])
    assert proxy.state.take_changes() == [NAME, OTHER]
    before = proxy.state.table()
    proxy.publish_all(H2, [learned(NAME, (C,))])
    assert proxy.state.take_changes() == []
    proxy.reload(interval=5.0)
    after = proxy.state.table()
    assert after.sets[OTHER] is before.sets[OTHER]
    assert "learned.in_service" in proxy.events()
    assert proxy.events() == []


def test_a_confirmation_changes_the_file_but_is_not_urgent() -> None:
    proxy = ProxyModel()
    proxy.publish(H1, A)
    proxy.elapse(1)
    revision, urgent = proxy.state.revision, proxy.state.urgent
    proxy.publish(H1, A)
    assert (proxy.state.revision > revision, proxy.state.urgent) == (True, urgent)
    proxy.publish(H1, A, B)
    assert proxy.state.urgent > urgent


def test_events_of_reachability_are_logged_once() -> None:
    proxy = ProxyModel()
    proxy.publish(H1, A, B)
    proxy.dead(B)
    proxy.elapse(4 * INTERVAL)
    proxy.alive(B)
    proxy.elapse(2 * INTERVAL)
    events = [event for event in proxy.events() if event.endswith("reachable")]
    assert events == ["learned.unreachable", "learned.reachable"]


def test_the_state_of_each_address() -> None:
    proxy = ProxyModel()
    proxy.dead(B)
    proxy.publish(H1, A)
    proxy.probe()
    proxy.publish(H1, B)
    assert proxy.states()[B].reason == "not probed yet"
    proxy.probe()
    new, old = proxy.states()[B], proxy.states()[A]
    assert (new.serving, new.alive, new.reason) == (False, False, FAILED.problem)
    assert (old.serving, old.alive, old.reason) == (True, True, None)
    assert old.checked_at == proxy.wall
    entry = proxy.state.managed()[0]
    assert proxy.state.routed(entry, [A]) == {A: None}
    routed = LimitTable(by_registry={REGISTRY: Limits(routed=(ip_network("10.0.0.0/31"),))})
    proxy.reload(limits=routed)
    assert proxy.state.routed(entry, [A, B]) == {A: True, B: False}


def test_the_owners_statement_has_refused_addresses() -> None:
    state: AddressLifecycle = ProxyModel().state
    assert state.owned(NAME) is None
    proxy = ProxyModel()
    proxy.publish(H1, A, PUBLIC)
    owned = proxy.state.owned(NAME)
    assert owned is not None
    assert owned.learned.addresses == (A, PUBLIC)
    # A statement of another helper does not count.
    proxy.publish(H2, B)
    assert proxy.state.owned(NAME) is owned


def test_work_is_done_in_slices() -> None:
    names = [f"n{number}.example." for number in range(10)]
    proxy = ProxyModel(*names)
    state = AddressLifecycle(proxy.policy)
    taken = replace(snapshot(*(learned(name) for name in names)), expires_at=2**40)
    state.accept(replace(opened(taken), key_id=KEY_IDS[H1]))
    slices = 1
    while not state.settle(3, 0.0, 1000.0):
        slices += 1
    # Ten statements and ten names, three at a time; the record of all; nothing is left.
    assert slices == 9
    assert len(state.table().sets) == 10
