from __future__ import annotations

import copy
import json
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dnsproxy.core import seal
from dnsproxy.core.addresses.canary import CanaryPolicy, TrialOutcome
from dnsproxy.core.addresses.lifecycle import AddressLifecycle
from dnsproxy.core.addresses.state_file import encode, restore
from dnsproxy.core.addresses.table import Statement
from dnsproxy.core.registry import Found, Sought
from dnsproxy.errors import OrderError, Rejection, SnapshotError
from tests.lifecycles import (
    FAILED,
    GOOD,
    H1,
    H2,
    HOST,
    INTERVAL,
    KEY_IDS,
    NAME,
    NO_ROUTE,
    OTHER,
    REGISTRY,
    ProxyModel,
    policy_for,
)
from tests.strategies import json_values, learned

DATA = Path(__file__).with_name("data")
A, B, C, D = "10.0.0.1", "10.0.0.2", "10.0.0.3", "10.0.0.4"
V6, PUBLIC = "fd00::1", "203.0.113.9"
POOL = (A, B, C, V6, PUBLIC)
WILD, AUTH = "*.oss.example.", "auth.cloud.example."
NAMES = (NAME, WILD)
HOLD = 600.0
CANARY = CanaryPolicy(0.5, HOLD, 3, "proxy-1")


# -- a file is the state ----------------------------------------------------------------------------

names = st.sampled_from(NAMES)
sets = st.sets(st.sampled_from(POOL), min_size=1, max_size=3).map(sorted)
stated = st.dictionaries(names, st.tuples(sets, st.sampled_from([None, "c.example."])), max_size=2)
steps = st.one_of(
    st.tuples(st.just("publish"), st.sampled_from([H1, H2]), stated, st.sampled_from([None, (), (AUTH,)])),
    st.tuples(st.just("host"), st.sampled_from(POOL), st.sampled_from([GOOD, FAILED, NO_ROUTE, HOST])),
    st.tuples(st.just("elapse"), st.sampled_from([0.0, 1.0, 5.0, 40.0, 301.0])),
    st.tuples(st.just("pin"), names, sets),
    st.tuples(st.sampled_from(["unpin", "promote", "refuse"]), names),
    st.tuples(st.sampled_from(["freeze", "unfreeze"])),
    st.tuples(st.just("rollback"), st.integers(1, 4)),
    st.tuples(st.just("restart")),
)


def carry_out(proxy: ProxyModel, verb: str, *arguments: Any) -> None:
    if verb == "publish":
        helper, found, roles = arguments
        at = int(proxy.wall)
        entries = [learned(n, tuple(a), cname=cname, observed_at=at) for n, (a, cname) in found.items()]
        if roles:
            entries.append(learned(AUTH, (D,), observed_at=at))
        discovered = () if roles is None else [Found(REGISTRY, "auth", roles, at)]
        proxy.publish_all(helper, entries, found=discovered, lifetime=300)
    elif verb == "host":
        proxy.hosts[arguments[0]] = arguments[1]
    elif verb in {"elapse", "restart"}:
        getattr(proxy, verb)(*arguments)
    else:
        try:
            proxy.order(verb, *arguments)
        except OrderError:
            proxy.settle()


def recorded(held: Statement) -> tuple[Any, ...]:
    return held.address_set, held.learned.observed_at, held.snapshot


def observed(proxy: ProxyModel) -> dict[str, Any]:
    """What the documentation says is kept: not failures in a row, not results of probes."""
    state, found = proxy.state, {}
    for name in (*NAMES, AUTH):
        served, owned = state.served(name), state.owned(name)
        found[name] = {
            "answer": served and served.address_set,
            "age": served and served.learned.observed_at,
            "expires": served and served.snapshot.expires_at,
            "alive": dict(sorted(proxy.life(name).items())),
            "owned": owned and owned.address_set,
        }
    freeze = state.overrides.freeze
    return {
        "names": found,
        "managed": state.managed(),
        "serial": state.serial,
        "helpers": list(state.snapshots),
        "trials": {name: (t.candidate, t.since, t.outcome) for name, t in state.trials().items()},
        "leading": state.canary().leading,
        "pins": state.overrides.pins,
        "frozen": freeze and {name: held.address_set for name, held in freeze.sets.items()},
        "history": [
            (r.serial, r.issuer, r.taken_at, {n: recorded(held) for n, held in r.sets.items()})
            for r in state.overrides.history
        ],
    }


@settings(max_examples=200, deadline=None)
@given(st.lists(steps, max_size=14), st.sampled_from([None, CANARY]), st.sampled_from([200.0, float("inf")]))
def test_what_is_read_is_what_was_written(
    story: list[tuple[Any, ...]], canary: CanaryPolicy | None, max_stale: float
) -> None:
    sought = (Sought(REGISTRY, "auth", ("cloud.example.",)),)
    proxy = ProxyModel(*NAMES, sought=sought, canary=canary, max_stale=max_stale)
    for step in story:
        carry_out(proxy, *step)
    before = observed(proxy)
    proxy.restart()
    assert observed(proxy) == before


def test_statements_that_the_last_snapshots_lack_keep_what_decides() -> None:
    """All but what only reports: who was asked, and since when the helper has seen the set."""
    proxy = ProxyModel(NAME, OTHER)
    told = learned(NAME, (A, B), cname="alias.example.", ttl=77, status="stale", refused=((A, B), (C,)))
    proxy.publish_all(H1, [told])
    before = proxy.state.names[NAME].stated[H1].statement
    proxy.publish_all(H1, [learned(OTHER, (A,))])
    proxy.restart()
    after = proxy.state.names[NAME].stated[H1].statement
    assert after.snapshot == before.snapshot
    assert after.learned == replace(before.learned, resolvers=(), changed_at=None)
    assert before.learned.refused == ((A, B), (C,))


def test_a_state_without_anything() -> None:
    proxy = ProxyModel()
    assert proxy.document() == {
        "version": 2,
        "snapshots": [],
        "discoveries": [],
        "names": [],
        "pins": [],
        "history": [],
    }
    proxy.restart()
    assert (proxy.state.table().sets, proxy.state.overrides.history) == ({}, ())


def test_names_that_follow_from_the_snapshots_have_no_line_of_their_own() -> None:
    many = [f"n{number}.example." for number in range(50)]
    proxy = ProxyModel(*many, history=0)
    proxy.publish_all(H1, [learned(name, (A,)) for name in many])
    proxy.elapse(1)
    assert proxy.document()["names"] == []
    proxy.dead(A)
    proxy.publish_all(H1, [learned(name, (A, B) if name == many[7] else (A,)) for name in many])
    assert [item["name"] for item in proxy.document()["names"]] == [many[7]]


def test_snapshots_are_stored_as_they_were_signed() -> None:
    proxy = ProxyModel()
    proxy.publish(H1, A)
    proxy.publish(H2, A)
    assert [seal.signer(token) for token in proxy.document()["snapshots"]] == [KEY_IDS[H1], KEY_IDS[H2]]


def test_records_hold_what_changed() -> None:
    proxy = ProxyModel(NAME, OTHER)
    for first, second in [(A, B), (A, C), (D, C)]:
        proxy.publish_all(H1, [learned(NAME, (first,)), learned(OTHER, (second,))])
    changes = [[item["name"] for item in record["names"]] for record in proxy.document()["history"]]
    assert changes == [[NAME, OTHER], [OTHER], [NAME]]
    before = observed(proxy)["history"]
    proxy.restart()
    assert observed(proxy)["history"] == before


# -- a file that is wrong ---------------------------------------------------------------------------


def full() -> ProxyModel:
    """A state in which no part is empty."""
    sought = (Sought(REGISTRY, "auth", ("cloud.example.",)),)
    proxy = ProxyModel(NAME, OTHER, sought=sought, canary=CANARY)
    carry_out(proxy, "publish", H1, {NAME: ((A,), None), OTHER: ((A,), None)}, (AUTH,))
    proxy.publish_all(H2, [learned(NAME, (A,))])
    proxy.publish(H2, B, name=OTHER)
    proxy.publish_all(H1, [learned(NAME, (B,)), learned(OTHER, (A,))])
    proxy.dead(B)
    proxy.elapse(INTERVAL)
    proxy.order("refuse", NAME)
    proxy.order("pin", OTHER, [D])
    proxy.order("freeze")
    return proxy


FULL: dict[str, Any] = full().document()


def wrong(path: list[str | int], value: object) -> Any:
    document: Any = copy.deepcopy(FULL)
    inner = document
    for step in path[:-1]:
        inner = inner[step]
    inner[path[-1]] = value
    return document


@pytest.mark.parametrize(
    ("path", "value", "problem"),
    [
        (["version"], 3, "state.version: not 2"),
        (["version"], None, "state.version"),
        (["discoveries", 0, "names"], ["a..b"], "discoveries[0].names"),
        (["discoveries", 0, "observed_at"], -1, "discoveries[0].observed_at"),
        (["names", 0, "name"], "a..b", "names[0].name"),
        (["names", 0, "proven"], 3, "names[0].proven"),
        (["names", 0, "alive"], [], "names[0].alive"),
        (["names", 0, "owner"], 5, "names[0].owner"),
        (["pins", 0, "addresses"], [], "pins[0].addresses: none"),
        (["pins", 0, "addresses"], ["10.0.0.300"], "pins[0].addresses"),
        (["freeze", "since"], -1, "state.freeze.since"),
        (["freeze"], 3, "state.freeze: not an object"),
        (["freeze", "names", 0, "expires_at"], "soon", "names[0].expires_at"),
        (["history", 0, "names", 0, "cname"], "a b", "names[0].cname"),
        (["history"], {}, "state.history: not a list"),
    ],
)
def test_what_is_wrong_is_named(path: list[str | int], value: object, problem: str) -> None:
    state = AddressLifecycle(policy_for(NAME))
    with pytest.raises(SnapshotError) as caught:
        restore(state, wrong(path, value), {})
    assert str(caught.value).startswith(problem)
    assert caught.value.reason is Rejection.MALFORMED
    assert "\n".join(encode(state)) == "\n".join(encode(AddressLifecycle(policy_for(NAME))))


def reads_or_rejects(document: object) -> None:
    """A file is used as a whole or not at all, and then it is one that can be written again."""
    proxy = ProxyModel(NAME, OTHER)
    try:
        restore(proxy.state, document, {})
    except SnapshotError:
        assert (proxy.state.names, proxy.state.discoveries, proxy.state.overrides.pins) == ({}, {}, {})
        return
    proxy.state.configure(proxy.policy, ())
    proxy.settle()
    proxy.elapse(INTERVAL)
    proxy.restart()


@given(json_values)
def test_any_json_is_a_state_or_malformed(document: object) -> None:
    reads_or_rejects(document)


def places(value: object, path: tuple[str | int, ...] = ()) -> Iterable[list[str | int]]:
    """Every place in a JSON value."""
    if path:
        yield list(path)
    inner = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, item in inner:
        yield from places(item, (*path, key))


@given(st.sampled_from(list(places(FULL))), json_values)
def test_any_json_in_any_place_is_a_state_or_malformed(path: list[str | int], value: object) -> None:
    reads_or_rejects(wrong(path, value))


# -- files of commit 50001c5; see data/README.md ------------------------------------------------------


def converted(label: str, *managed: str, **policy: Any) -> ProxyModel:
    """A proxy that starts from the files of that commit."""
    proxy = ProxyModel(*managed, **policy)
    tokens = DATA.joinpath(f"50001c5-{label}.jws").read_text().split()
    overrides = json.loads(DATA.joinpath(f"50001c5-{label}.jws.orders").read_text())
    proxy.wall += 300
    proxy.restart({**overrides, "snapshots": tokens})
    return proxy


def both(proxy: ProxyModel) -> Iterable[ProxyModel]:
    """The converted state, and the same after it was written and read in the present form."""
    yield proxy
    assert proxy.document()["version"] == 2
    proxy.restart()
    yield proxy


def test_pins_freeze_history_and_dead_addresses_are_converted() -> None:
    for proxy in both(converted("frozen", NAME, OTHER, "p.example.")):
        assert proxy.served("p.example.") == ("10.9.9.9", "fd00::9")
        assert (proxy.served(NAME), proxy.served(OTHER)) == ((A,), (C,))
        assert proxy.life(OTHER)[D] is False
        # Two helpers used serial 1; each record can be rolled back to.
        assert proxy.history(NAME) == [(1, (A,)), (2, (A,)), (3, (B,))]
        assert proxy.history(OTHER) == [(1, (A, B)), (2, (C, D)), (3, (C, D))]
        freeze = proxy.state.overrides.freeze
        assert freeze is not None
        assert {held.snapshot.key_id for held in freeze.sets.values()} == {KEY_IDS[H2]}
    proxy.order("unpin", "p.example.")
    proxy.order("unfreeze")
    proxy.elapse(INTERVAL)
    assert (proxy.served(NAME), proxy.served("p.example.")) == ((B,), ())
    proxy.order("rollback", 1)
    assert proxy.served(OTHER) == (A, B)


def test_kept_sets_of_a_key_that_is_not_trusted_are_not_converted() -> None:
    keys = {KEY_IDS[H1]: None}
    for proxy in both(converted("frozen", NAME, OTHER, keys=keys)):
        # The freeze continues with the first set of each name that a trusted helper states.
        assert (proxy.served(NAME), proxy.served(OTHER)) == ((A,), (A, B))
        assert proxy.history(OTHER)[0] == (1, (A, B))


def test_trials_and_the_sets_that_are_answered_meanwhile_are_converted() -> None:
    for proxy in both(converted("trial", NAME, OTHER, "c.example.", canary=CanaryPolicy(0.0, HOLD, 3, "x"))):
        assert (proxy.served(NAME), proxy.served(OTHER)) == ((A,), (A,))
        # The last snapshot omits this name; an earlier one in the file has it.
        assert proxy.served("c.example.") == (A,)
        assert proxy.life("c.example.") == {A: True, D: False}
        trials = proxy.state.trials()
        assert (trials[NAME].is_running, trials[NAME].started_at) == (True, 1_800_000_011)
        assert trials[OTHER].outcome is TrialOutcome.REFUSED
    proxy.elapse(HOLD)
    assert (proxy.served(NAME), proxy.served(OTHER)) == ((A, B), (A,))


def test_snapshots_of_the_version_before_are_enough() -> None:
    proxy = ProxyModel(NAME, OTHER)
    tokens = DATA.joinpath("50001c5-frozen.jws").read_text().split()
    proxy.restart({"version": 1, "snapshots": tokens})
    assert (proxy.served(NAME), proxy.served(OTHER)) == ((B,), (C, D))
