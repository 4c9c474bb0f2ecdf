"""The rules of one name (docs/concepts.md, "Names"), each with the state that it decides on."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dnsproxy.core.addresses.canary import CanaryPolicy, TrialOutcome
from dnsproxy.core.addresses.health import UNPROBED, Health, Outcome, Result
from dnsproxy.core.addresses.name_state import TAKEOVER_AFTER, AddressPolicy, EventBuffer, NameState, Stated
from dnsproxy.core.addresses.table import Statement
from dnsproxy.core.registry import Found, Sought
from tests.strategies import KEY, opened, snapshot, statement

NAME = "a.example."
A, B, C, D = "10.0.0.1", "10.0.0.2", "10.0.0.3", "10.0.0.4"
NOW, LIFETIME = 1000, 86_400
H1, H2, H3 = "helper-1", "helper-2", "helper-3"
POLICY = AddressPolicy(keys={KEY: None})
ACCEPT = replace(POLICY, accept=True)
CANARY = replace(POLICY, canary=CanaryPolicy(0.0, 600.0, 3, "proxy-1"))
LEADING = replace(POLICY, canary=CanaryPolicy(1.0, 600.0, 3, "proxy-1"))
Sets = dict[str, tuple[str, ...]]
Life = dict[str, bool | None]


def stated(helper: str, *addresses: str, at: int = NOW) -> Statement:
    return statement(NAME, addresses, issuer=helper, observed_at=at, at=at)


def name_of(
    statements: Sets, proven: tuple[str, ...] = (), life: Life | None = None, owner: str | None = H1
) -> NameState:
    """A name before the rules apply to it; ``proven`` need not be a set that a helper states."""
    state = NameState(NAME, "hangzhou")
    state.owner = owner
    for helper, addresses in statements.items():
        held = stated(helper, *addresses)
        state.stated[helper] = Stated(held, held)
    if proven:
        same = [
            held.statement for held in state.stated.values() if held.statement.learned.addresses == proven
        ]
        state.proven = same[0] if same else stated("gone", *proven)
    state.health = {address: Health(alive, 0.0) for address, alive in (life or {}).items()}
    return state


def evaluate(
    state: NameState,
    policy: AddressPolicy = POLICY,
    *,
    override: tuple[str, ...] | None = None,
    wall_now: float = NOW,
) -> tuple[str, ...]:
    """Apply the rules; return what is answered."""
    state.evaluate(policy, override, 0.0, wall_now, EventBuffer())
    return state.answer.learned.addresses if state.answer is not None else ()


# -- rule 1: owner -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("owner", "ahead", "expected"),
    [
        (H1, 0, H1),
        (H1, TAKEOVER_AFTER, H1),
        (H1, TAKEOVER_AFTER + 1, H2),
        (H2, 0, H2),
        (None, 1, H2),
        (None, 0, H1),  # by name
        ("forgotten", 5, H2),
    ],
)
def test_rule_1_the_owner_changes_when_it_has_missed_two_rounds(
    owner: str | None, ahead: int, expected: str
) -> None:
    state = name_of({H1: (A,), H2: (B,)}, owner=owner)
    later = stated(H2, B, at=NOW + ahead)
    state.stated[H2] = Stated(later, later)
    evaluate(state)
    assert state.owner == expected


def test_rule_1_a_helper_without_a_usable_set_is_not_the_owner() -> None:
    state = name_of({H1: (A,), H2: (B,)})
    state.stated[H1] = replace(state.stated[H1], usable=None)
    assert evaluate(state) == (B,)
    assert state.owner == H2
    state = name_of({})
    assert (evaluate(state), state.owner) == ((), H1)


# -- rule 2: first set -------------------------------------------------------------------------------


@pytest.mark.parametrize("alive", [None, False])
def test_rule_2_the_first_set_is_answered_at_once(alive: bool | None) -> None:
    state = name_of({H1: (A, B)}, life={} if alive is None else {A: alive, B: alive})
    assert evaluate(state) == (A, B)
    assert state.proven is state.stated[H1].statement
    assert [health.alive for health in state.health.values()] == [True if alive is None else alive] * 2


# -- rule 3: confirmation ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("confirmations", "observed_at", "expires_at"),
    [
        ({H1: 0}, NOW, NOW + LIFETIME),
        ({H1: 0, H2: 50}, NOW + 50, NOW + 50 + LIFETIME),
        ({H2: 50}, NOW + 50, NOW + 50 + LIFETIME),
        ({H2: -50}, NOW, NOW + LIFETIME),
        ({}, NOW, NOW + LIFETIME),
    ],
)
def test_rule_3_each_helper_that_states_the_set_confirms_it(
    confirmations: dict[str, int], observed_at: int, expires_at: int
) -> None:
    state = name_of({}, proven=(A,), life={A: True})
    for helper, offset in confirmations.items():
        held = stated(helper, A, at=NOW + offset)
        state.stated[helper] = Stated(held, held)
    assert evaluate(state, wall_now=NOW + 60) == (A,)
    assert state.answer is not None
    assert (state.answer.learned.observed_at, state.answer.snapshot.expires_at) == (observed_at, expires_at)


# -- rules 4 to 6 ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("policy", "statements", "proven", "life", "expected"),
    [
        pytest.param(POLICY, {H1: (B,)}, (A,), {A: True, B: None}, (A,), id="4: unknown"),
        pytest.param(POLICY, {H1: (B,)}, (A,), {A: True, B: False}, (A,), id="4: dead"),
        pytest.param(POLICY, {H1: (B,)}, (A,), {A: True, B: True}, (B,), id="4: alive"),
        pytest.param(POLICY, {H1: (B, C)}, (A,), {A: True, B: True, C: False}, (B,), id="4: one is alive"),
        pytest.param(POLICY, {H1: (A, B)}, (A,), {A: True, B: None}, (A,), id="4: with a member of both"),
        pytest.param(ACCEPT, {H1: (B,)}, (A,), {A: True, B: None}, (B,), id="4: accept, unknown"),
        pytest.param(ACCEPT, {H1: (B,)}, (A,), {A: True, B: False}, (B,), id="4: accept, dead"),
        pytest.param(POLICY, {H1: (B,)}, (A,), {A: False, B: True}, (B,), id="5: the candidate"),
        pytest.param(POLICY, {H1: (A,), H2: (B,)}, (A,), {A: False, B: True}, (B,), id="5: another helper"),
        pytest.param(
            *(POLICY, {H1: (C,), H2: (B,)}, (A,), {A: False, B: True, C: True}, (C,)),
            id="5: the candidate first",
        ),
        pytest.param(
            *(POLICY, {H1: (C,), H2: (B,)}, (A,), {A: True, B: True, C: None}, (A,)),
            id="5: not while the proven set works",
        ),
        pytest.param(CANARY, {H1: (B,)}, (A,), {A: False, B: True}, (B,), id="5: although on trial"),
        pytest.param(ACCEPT, {H1: (A,), H2: (B,)}, (A,), {A: False, B: True}, (A,), id="5: accept"),
        pytest.param(POLICY, {H1: (A, B)}, (A, B), {A: True, B: False}, (A,), id="6: alive members"),
        pytest.param(POLICY, {H1: (B, C)}, (A,), dict.fromkeys((A, B, C), False), (B, C), id="6: whole"),
        pytest.param(POLICY, {}, (A, B), {A: False, B: False}, (A, B), id="6: proven set whole"),
        pytest.param(POLICY, {}, (), {}, (), id="6: nothing is known"),
        pytest.param(CANARY, {H1: (B,)}, (A,), {A: True, B: True}, (A,), id="trial: not in the group"),
        pytest.param(LEADING, {H1: (B,)}, (A,), {A: True, B: True}, (B,), id="trial: in the group"),
        pytest.param(LEADING, {H1: (B,)}, (A,), {A: True, B: False}, (A,), id="trial: it does not work"),
        pytest.param(CANARY, {H1: (A,)}, (A, B), {A: True, B: True}, (A,), id="trial: nothing new"),
    ],
)
def test_rules_4_to_6(
    policy: AddressPolicy, statements: Sets, proven: tuple[str, ...], life: Life, expected: tuple[str, ...]
) -> None:
    state = name_of(statements, proven, life)
    assert evaluate(state, policy) == expected
    # The same state and time give the same answer, and the same objects.
    before = state.answer
    assert evaluate(state, policy) == expected
    assert state.answer is before


def test_rule_5_the_helper_of_the_set_becomes_the_owner() -> None:
    state = name_of({H1: (A,), H2: (B,)}, (A,), {A: False, B: True})
    evaluate(state)
    assert (state.owner, state.proven) == (H2, state.stated[H2].statement)


def test_rule_5_of_several_sets_the_latest_confirmed_one_is_taken() -> None:
    state = name_of({H1: (A,), H2: (B,), H3: (C,)}, (A,), {A: False, B: True, C: True})
    later = stated(H3, C, at=NOW + 10)
    state.stated[H3] = Stated(later, later)
    assert evaluate(state, wall_now=NOW + 10) == (C,)


@pytest.mark.parametrize(
    ("since", "life", "expected"),
    [
        (LIFETIME + 49, {A: True, B: False}, (A,)),
        (LIFETIME + 50, {A: True, B: False}, (B,)),  # the owner's set, whole
        (LIFETIME + 50, {A: True, B: True}, (B,)),
    ],
)
def test_after_max_stale_a_set_does_not_work(since: int, life: Life, expected: tuple[str, ...]) -> None:
    policy = replace(POLICY, max_stale=50.0)
    state = name_of({}, (A,), life)
    later = stated(H1, B, at=NOW + LIFETIME)
    state.stated[H1] = Stated(later, later)
    assert evaluate(state, policy, wall_now=NOW + since) == expected


def test_after_max_stale_a_statement_is_not_usable() -> None:
    policy = replace(POLICY, max_stale=50.0)
    state = name_of({H1: (A,)})
    assert [held.learned.addresses for held in state.usable(policy, NOW + LIFETIME + 49)] == [(A,)]
    assert state.usable(policy, NOW + LIFETIME + 50) == []


# -- trials and overrides ----------------------------------------------------------------------------


def test_a_promotion_is_returned_once() -> None:
    state = name_of({H1: (B,)}, (A,), {A: True, B: None})
    log = EventBuffer()
    assert state.evaluate(CANARY, None, 0.0, NOW, log) is None
    state.health[B].record(Result(Outcome.ANSWERED, {}), 1.0, NOW, answered_at=1.0, interval=30.0)
    assert state.evaluate(CANARY, None, 0.0, NOW + 599, log) is None
    assert state.evaluate(CANARY, None, 0.0, NOW + 600, log) is TrialOutcome.HELD
    assert state.evaluate(CANARY, None, 0.0, NOW + 600, log) is None
    assert [event for _, event, _ in log.events] == ["canary.started", "canary.promoted"]


@pytest.mark.parametrize("policy", [POLICY, CANARY])
def test_an_override_ends_a_trial_and_holds_new_addresses_back(policy: AddressPolicy) -> None:
    state = name_of({H1: (B,)}, (A,), {A: True, B: True})
    if policy is CANARY:
        evaluate(state, policy)
        assert state.trial is not None
    evaluate(state, policy, override=(D,))
    assert state.trial is None
    assert state.proven is not None
    # Without a canary the rules continue below the override.
    assert state.proven.learned.addresses == ((A,) if policy is CANARY else (B,))
    # The addresses of the override count as alive when they are first seen.
    assert state.health[D].alive is True


def test_only_addresses_that_may_be_answered_have_a_state() -> None:
    state = name_of({H1: (B,), H2: (C,)}, (A,), {A: True, B: None, C: None, D: True})
    evaluate(state)
    assert set(state.health) == {A, B, C}
    evaluate(state, override=(D,))
    assert set(state.health) == {A, B, C, D}


@pytest.mark.parametrize("policy", [ACCEPT, replace(POLICY, ports=())])
def test_without_proof_or_probes_a_new_address_is_alive(policy: AddressPolicy) -> None:
    state = name_of({H1: (A,)})
    evaluate(state, policy)
    changed = stated(H1, B)
    state.stated[H1] = Stated(changed, changed)
    assert evaluate(state, policy) == (B,)
    assert state.health[B].alive is True
    assert state.health[B].result is (None if policy is ACCEPT else UNPROBED)


def test_the_fingerprint_is_without_ages() -> None:
    state = name_of({H1: (A,)})
    evaluate(state)
    before = state.fingerprint()
    later = stated(H1, A, at=NOW + 30)
    state.stated[H1] = Stated(later, later)
    evaluate(state, wall_now=NOW + 30)
    assert state.fingerprint() == before
    state.health[A].alive = False
    assert state.fingerprint() != before


# -- whatever the state ------------------------------------------------------------------------------

POOL = (A, B, C)
sets = st.sets(st.sampled_from(POOL), min_size=1).map(lambda found: tuple(sorted(found)))
lives = st.fixed_dictionaries(dict.fromkeys(POOL, st.sampled_from([True, False, None])))
policies = st.sampled_from([POLICY, CANARY, LEADING])


@given(st.dictionaries(st.sampled_from([H1, H2]), sets), st.just(()) | sets, lives, policies)
def test_no_dead_address_is_answered_while_a_known_one_is_alive(
    statements: Sets, proven: tuple[str, ...], life: Life, policy: AddressPolicy
) -> None:
    state = name_of(statements, proven, life)
    answer = evaluate(state, policy)
    known = {address for found in (*statements.values(), proven) for address in found}
    assert bool(answer) == bool(known)
    assert set(answer) <= known
    if any(life[address] for address in known):
        # A proven set, or one that a rule adopts, has an address that is alive.
        assert all(state.health[address].alive for address in answer)
    assert evaluate(state, policy) == answer


# -- the settings that decide ------------------------------------------------------------------------


def test_keys_and_their_registries() -> None:
    origin = opened(snapshot()).origin
    limited = replace(POLICY, keys={KEY: frozenset({"hangzhou"})})
    cases = [(POLICY, "x"), (limited, "hangzhou"), (limited, "beijing"), (AddressPolicy(), "hangzhou")]
    assert [policy.permits(origin, registry) for policy, registry in cases] == [True, True, False, False]


def test_names_that_may_be_discovered() -> None:
    policy = AddressPolicy(sought=(Sought("hz", "auth", ("cloud.example.",)),))
    found = Found("hz", "auth", ("a.cloud.example.", "bank.example.", "*.cloud.example."), NOW)
    assert policy.discoverable(found) == ("a.cloud.example.",)
    assert policy.discoverable(replace(found, role="storage")) is None


def test_ports_of_a_name() -> None:
    policy = AddressPolicy(own_ports={NAME: (80,), "b.example.": ()})
    assert [policy.ports_of(name) for name in (NAME, "b.example.", "c.example.")] == [(80,), (), (443,)]


@pytest.mark.parametrize(
    ("other", "expected"),
    [
        ({"interval": 5.0, "accept": True, "max_stale": 1.0}, True),
        ({"ports": (80,)}, False),
        ({"own_ports": {NAME: (80,)}}, False),
        ({"tls": False}, False),
        ({"authority": "ca.pem"}, False),
    ],
)
def test_whether_two_policies_probe_alike(other: dict[str, object], expected: bool) -> None:
    assert (POLICY.probing == replace(POLICY, **other).probing) is expected  # type: ignore[arg-type]
