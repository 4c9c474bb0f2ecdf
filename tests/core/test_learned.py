from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dnsproxy.core import names
from dnsproxy.core.learned import (
    CLOCK_SKEW,
    MAX_ADDRESSES,
    MAX_NAMES,
    Accepted,
    Rejected,
    Scope,
    Snapshot,
    Unchanged,
    canonical_addresses,
    judge,
    judge_content,
)
from dnsproxy.core.registry import MAX_FOUND, Found, Sought
from dnsproxy.errors import Rejection, SnapshotError
from tests import strategies
from tests.strategies import learned, snapshot

SCOPE = Scope(frozenset({names.to_key("registry.example"), names.to_key("*.oss.example")}))


def scope_of(*snapshots: Snapshot) -> Scope:
    return Scope(frozenset(names.to_key(entry.name) for each in snapshots for entry in each.names))


# --- the wire format


@given(strategies.snapshots)
def test_payload_round_trip(original: Snapshot) -> None:
    assert Snapshot.from_payload(json.loads(json.dumps(original.to_payload()))) == original


@given(strategies.json_values)
def test_any_json_gives_a_snapshot_or_snapshot_error(value: object) -> None:
    with pytest.raises(SnapshotError) as caught:
        Snapshot.from_payload(value)  # a valid one cannot come out by chance: five keys must be there
    assert caught.value.reason is Rejection.MALFORMED


NAME_KEYS = sorted(learned().__slots__)


@given(st.sampled_from(NAME_KEYS), strategies.json_values)
def test_any_json_in_a_name_gives_a_snapshot_or_snapshot_error(key: str, value: object) -> None:
    payload = snapshot(learned()).to_payload()
    payload["names"][0][key] = value
    try:
        read = Snapshot.from_payload(payload)
    except SnapshotError as exc:
        assert exc.reason is Rejection.MALFORMED  # noqa: PT017 - both outcomes are allowed
        assert f"names[0].{key}" in str(exc)  # noqa: PT017 - the same
    else:
        assert Snapshot.from_payload(read.to_payload()) == read


@pytest.mark.parametrize(
    ("place", "value", "complaint"),
    [
        (["iss"], "", "snapshot.iss: not a text"),
        (["iss"], "\ud800", "snapshot.iss: not a text"),
        (["iat"], 1.5, "snapshot.iat: not a whole number"),
        (["iat"], True, "snapshot.iat: not a whole number"),
        (["exp"], -1, "snapshot.exp: not a whole number"),
        (["serial"], 2**63, "snapshot.serial: not a whole number"),
        (["names"], {}, "snapshot.names: not a list"),
        (["names", 0], [], r"names\[0\]: not an object"),
        (["names", 0, "name"], "a..b", r"names\[0\].name: .*label"),
        (["names", 0, "cname"], "", r"names\[0\].cname: not a text"),
        (["names", 0, "addresses"], ["10.0.0.256"], r"names\[0\].addresses: .*10.0.0.256"),
        (["names", 0, "addresses"], ["fe80::1%eth0"], r"names\[0\].addresses: .*scope id"),
        (["names", 0, "addresses"], [167772161], r"names\[0\].addresses: not a list of texts"),
        (["names", 0, "addresses"], ["10.0.0.1"] * (MAX_ADDRESSES + 1), "more than 256 addresses"),
        (["names", 0, "resolvers"], [["10.0.0.2"]], r"names\[0\].resolvers: not a list of texts"),
        (["names", 0, "ttl"], "60", r"names\[0\].ttl: not a whole number"),
    ],
)
def test_a_wrong_key_is_named(place: list[str | int], value: object, complaint: str) -> None:
    payload: Any = snapshot(learned()).to_payload()
    holder = payload
    for step in place[:-1]:
        holder = holder[step]
    holder[place[-1]] = value
    with pytest.raises(SnapshotError, match=complaint) as caught:
        Snapshot.from_payload(payload)
    assert caught.value.reason is Rejection.MALFORMED


@pytest.mark.parametrize("key", ["iss", "iat", "exp", "serial", "names"])
def test_a_missing_key_is_named(key: str) -> None:
    payload = snapshot(learned()).to_payload()
    del payload[key]
    with pytest.raises(SnapshotError, match=f"snapshot.{key}"):
        Snapshot.from_payload(payload)


def test_one_name_twice_is_malformed() -> None:
    payload = snapshot(learned("a.example."), learned("b.example.")).to_payload()
    payload["names"][1]["name"] = "A.Example"
    with pytest.raises(SnapshotError, match="listed twice"):
        Snapshot.from_payload(payload)


def test_too_many_names_are_refused_before_they_are_read() -> None:
    payload = {**snapshot().to_payload(), "names": [None] * (MAX_NAMES + 1)}
    with pytest.raises(SnapshotError, match="more than 20000"):
        Snapshot.from_payload(payload)


def test_what_a_later_version_adds_is_passed_over() -> None:
    payload = snapshot(learned()).to_payload()
    payload["colour"] = "blue"
    payload["names"][0] |= {"role": "sidecar", "weight": 3}
    assert Snapshot.from_payload(payload).names[0].role == "other"


def test_canonical_addresses() -> None:
    given_addresses = ["2001:DB8::1", "10.0.0.10", "10.0.0.9", "2001:db8:0::1"]
    assert canonical_addresses(given_addresses) == ("10.0.0.9", "10.0.0.10", "2001:db8::1")
    assert canonical_addresses([]) == ()


# --- judging


def test_the_first_snapshot_is_accepted() -> None:
    candidate = snapshot(learned())
    assert judge(None, candidate, 1000.0, SCOPE) == Accepted(candidate, foreign=(), kept=())


@pytest.mark.parametrize(("late", "expected"), [(-0.5, Accepted), (0.0, Rejected)])
def test_expired_counts_from_the_end_of_the_skew(late: float, expected: type) -> None:
    candidate = snapshot(learned())
    verdict = judge(None, candidate, candidate.expires_at + CLOCK_SKEW + late, SCOPE)
    assert isinstance(verdict, expected)
    assert not isinstance(verdict, Rejected) or verdict.reason is Rejection.EXPIRED


@pytest.mark.parametrize(("early", "expected"), [(0.0, Accepted), (0.5, Rejected)])
def test_issued_in_the_future_counts_from_the_end_of_the_skew(early: float, expected: type) -> None:
    candidate = snapshot(learned())
    verdict = judge(None, candidate, candidate.issued_at - CLOCK_SKEW - early, SCOPE)
    assert isinstance(verdict, expected)
    assert not isinstance(verdict, Rejected) or verdict.reason is Rejection.NOT_YET_VALID


def test_content_is_judged_without_the_clock() -> None:
    candidate = snapshot(learned())
    assert isinstance(judge(None, candidate, 1e12, SCOPE), Rejected)
    assert isinstance(judge_content(None, candidate, SCOPE), Accepted)


@pytest.mark.parametrize(
    ("serial", "at", "expected"),
    [
        (4, 1001, Rejected),
        (5, 999, Rejected),
        (5, 1000, Unchanged),
        (5, 1001, Accepted),
        # The serial leads: it grows even when the helper's clock was set back.
        (6, 900, Accepted),
    ],
)
def test_age_is_serial_then_time_of_issue(serial: int, at: int, expected: type) -> None:
    current = snapshot(learned(), serial=5, at=1000)
    verdict = judge(current, snapshot(learned(), serial=serial, at=at), 1000.0, SCOPE)
    assert isinstance(verdict, expected)
    assert not isinstance(verdict, Rejected) or verdict.reason is Rejection.OLDER


# What a helper's clock may have been when it drew the serial, and the proxy's when it took the snapshot.
NOW = 1_000_000
TOMORROW = NOW + 86_400


def issued(serial_at: int, at: int) -> Snapshot:
    """A snapshot whose serial began as the time ``serial_at``."""
    return snapshot(learned(), serial=serial_at * 1000, at=at)


@pytest.mark.parametrize(
    ("current", "candidate", "expected"),
    [
        # The helper's clock was a day ahead, was set right, and then all it knew was lost.
        (issued(TOMORROW, NOW - 60), issued(NOW, NOW), Accepted),
        # That is no way back for a replay.
        (issued(NOW - 30, NOW - 30), issued(TOMORROW, NOW - 60), Rejected),
        (issued(TOMORROW, NOW - 30), issued(TOMORROW + 1, NOW - 60), Rejected),
        # While it is known, it goes on from there.
        (issued(TOMORROW, NOW - 60), issued(TOMORROW, NOW), Accepted),
        (issued(TOMORROW, NOW - 60), issued(TOMORROW + 1, NOW), Accepted),
        (issued(NOW, NOW), issued(TOMORROW, NOW), Accepted),
        (issued(TOMORROW, NOW), issued(NOW, NOW), Rejected),
        # Both clocks were a day ahead when this was taken.
        (issued(TOMORROW, TOMORROW), issued(NOW, NOW), Accepted),
        # A serial that may be a time: it leads.
        (issued(NOW + CLOCK_SKEW, NOW - 60), issued(NOW, NOW), Rejected),
    ],
)
def test_a_serial_from_the_future_locks_no_helper_out(
    current: Snapshot, candidate: Snapshot, expected: type
) -> None:
    verdict = judge(current, candidate, NOW, SCOPE)
    assert isinstance(verdict, expected)
    assert not isinstance(verdict, Rejected) or verdict.reason is Rejection.OLDER


def test_a_refusal_as_older_tells_both_ages() -> None:
    verdict = judge(issued(NOW, NOW), issued(NOW - 5, NOW - 4), NOW, SCOPE)
    assert verdict == Rejected(
        Rejection.OLDER, "serial 999995000 of 999996, in use serial 1000000000 of 1000000"
    )


@given(strategies.snapshots, strategies.snapshots, st.booleans(), strategies.whole_numbers)
def test_nothing_is_accepted_that_is_behind_in_serial_and_time(
    current: Snapshot, candidate: Snapshot, same_serial: bool, ahead: int
) -> None:
    if same_serial:  # or the second part of the comparison would hardly ever matter
        candidate = replace(candidate, serial=current.serial)
    wall_now = max(candidate.issued_at, current.issued_at - ahead)
    verdict = judge(current, candidate, float(wall_now), scope_of(current, candidate))
    if isinstance(verdict, Accepted) and current.issued_at <= wall_now:
        assert candidate.serial > current.serial or candidate.issued_at > current.issued_at


@given(strategies.snapshots, strategies.snapshots)
def test_what_was_accepted_before_is_accepted_again_in_the_same_order(
    first: Snapshot, second: Snapshot
) -> None:
    # Its age was judged then, by a clock that may have been set since.
    scope = scope_of(first, second)
    verdict = judge_content(first, second, scope)
    assert not isinstance(verdict, Rejected) or verdict.reason is not Rejection.OLDER


def test_nothing_was_seen_after_it_was_signed() -> None:
    ahead = replace(
        snapshot(learned(observed_at=TOMORROW), at=NOW), found=(Found("hangzhou", "auth", (), TOMORROW),)
    )
    verdict = judge(None, ahead, NOW, SEEKING)
    assert isinstance(verdict, Accepted)
    assert verdict.snapshot.names[0].observed_at == verdict.snapshot.found[0].observed_at == NOW


def test_names_out_of_scope_are_left_out() -> None:
    candidate = snapshot(learned(), learned("www.bank.example."))
    verdict = judge(None, candidate, 1000.0, SCOPE)
    assert verdict == Accepted(snapshot(learned()), foreign=("www.bank.example.",), kept=())


def test_a_wildcard_in_scope_does_not_let_in_a_name_below_it() -> None:
    candidate = snapshot(learned("*.oss.example."), learned("bucket.oss.example."))
    verdict = judge(None, candidate, 1000.0, SCOPE)
    assert isinstance(verdict, Accepted)
    assert [entry.name for entry in verdict.snapshot.names] == ["*.oss.example."]


def test_only_foreign_names_are_not_ours() -> None:
    verdict = judge(None, snapshot(learned("www.bank.example.")), 1000.0, SCOPE)
    assert isinstance(verdict, Rejected)
    assert verdict.reason is Rejection.NOT_OURS


@pytest.mark.parametrize("entries", [(), (learned(addresses=()),)])
def test_everything_gone_is_not_believed(entries: tuple[Any, ...]) -> None:
    verdict = judge(snapshot(learned()), snapshot(*entries, serial=2), 1000.0, SCOPE)
    assert isinstance(verdict, Rejected)
    assert verdict.reason is Rejection.SHRANK_TO_EMPTY


def test_nothing_yet_is_accepted_while_nothing_is_known() -> None:
    candidate = snapshot(learned(addresses=(), status="failed"), serial=2)
    assert isinstance(judge(None, candidate, 1000.0, SCOPE), Accepted)
    assert isinstance(judge(snapshot(serial=1), candidate, 1000.0, SCOPE), Accepted)


@pytest.mark.parametrize("lost", [(), (learned(addresses=()),)])
def test_a_lost_name_is_reported_as_kept(lost: tuple[Any, ...]) -> None:
    current = snapshot(learned(), learned("*.oss.example."))
    verdict = judge(current, snapshot(*lost, learned("*.oss.example."), serial=2), 1000.0, SCOPE)
    assert isinstance(verdict, Accepted)
    assert verdict.kept == ("registry.example.",)


@given(strategies.snapshots)
def test_identity_and_count(one: Snapshot) -> None:
    assert one.identity == (one.issuer, one.serial, one.issued_at)
    assert one.address_count == len([a for entry in one.names for a in entry.addresses])


# --- what a registry told


AUTH, BUCKET = "auth.cloud.example.", "bucket.cloud.example."
SEEKING = Scope(
    frozenset({names.to_key("registry.example")}),
    (
        Sought("hangzhou", "auth", ("cloud.example.",)),
        Sought("hangzhou", "storage", ("cloud.example.",)),
    ),
)


def found(*listed: str, role: str = "auth", registry: str = "hangzhou") -> Found:
    return Found(registry, role, listed, 1000)


def told(*entries: Found, names_of: tuple[str, ...] = (), serial: int = 1) -> Snapshot:
    listed = [learned(), *(learned(name, role="auth") for name in names_of)]
    return replace(snapshot(*listed, serial=serial), found=entries)


def accepted(current: Snapshot | None, candidate: Snapshot, scope: Scope = SEEKING) -> Accepted:
    verdict = judge_content(current, candidate, scope)
    assert isinstance(verdict, Accepted)
    return verdict


def test_a_snapshot_of_a_version_that_does_not_look_is_read() -> None:
    payload = snapshot(learned()).to_payload()
    del payload["found"]
    assert Snapshot.from_payload(payload).found == ()


@pytest.mark.parametrize(
    ("entries", "complaint"),
    [
        ("auth", "found: not a list"),
        ([1], r"found\[0\]: not an object"),
        ([{}], r"found\[0\].registry: not a text"),
        (
            [{"registry": "r", "role": "auth", "names": ["a..b"], "observed_at": 1}],
            r"found\[0\].names: .*label",
        ),
        ([{"registry": "r", "role": "auth", "names": ["a"], "observed_at": -1}], "observed_at: not a whole"),
        (
            [{"registry": "r", "role": "auth", "names": ["a"] * (MAX_FOUND + 1), "observed_at": 1}],
            "names: more than 8",
        ),
        ([{"registry": "r", "role": "auth", "names": [], "observed_at": 1}] * 2, "listed twice"),
    ],
)
def test_wrong_findings_are_named(entries: object, complaint: str) -> None:
    with pytest.raises(SnapshotError, match=complaint) as caught:
        Snapshot.from_payload(snapshot(learned()).to_payload() | {"found": entries})
    assert caught.value.reason is Rejection.MALFORMED


def test_a_found_name_is_taken_although_it_is_not_configured() -> None:
    verdict = accepted(None, told(found(AUTH), names_of=(AUTH,)))
    assert [entry.name for entry in verdict.snapshot.names] == ["registry.example.", AUTH]
    assert (verdict.snapshot.found, verdict.foreign) == ((found(AUTH),), ())


@pytest.mark.parametrize(
    "entry",
    [
        found("www.bank.example."),
        found("cloud.example."),
        found("auth.cloud.example.attacker.example."),
        found("*.cloud.example."),
        found(AUTH, role="registry"),
        found(AUTH, role="chart"),
        found(AUTH, registry="elsewhere"),
    ],
)
def test_a_found_name_that_was_not_sought_is_foreign(entry: Found) -> None:
    verdict = accepted(None, told(entry, names_of=entry.names))
    assert [each.name for each in verdict.snapshot.names] == ["registry.example."]
    assert verdict.foreign == entry.names
    assert all(not each.names for each in verdict.snapshot.found)


def test_a_helper_cannot_put_a_found_name_under_the_limits_of_another_registry() -> None:
    loose = learned(AUTH, role="auth", registry="public")
    candidate = replace(told(found(AUTH)), names=(learned(), loose))
    assert [entry.registry for entry in accepted(None, candidate).snapshot.names] == ["hangzhou", "hangzhou"]


def test_a_listed_name_that_was_not_found_is_foreign() -> None:
    assert accepted(None, told(found(AUTH), names_of=(AUTH, BUCKET))).foreign == (BUCKET,)


def test_a_name_that_was_given_up_is_not_kept_as_if_its_look_had_failed() -> None:
    current = accepted(None, told(found(AUTH), names_of=(AUTH,))).snapshot
    moved = told(found(BUCKET), names_of=(BUCKET,), serial=2)
    assert accepted(current, moved).kept == ()
    # Silence about the role, in contrast, takes nothing back.
    assert accepted(current, told(serial=2)).kept == (AUTH,)


def test_documents_with_and_without_the_time_of_change_are_read() -> None:
    with_time = snapshot(learned(changed_at=1_764_000_000.123)).to_payload()
    without = snapshot(learned()).to_payload()
    assert Snapshot.from_payload(with_time).names[0].changed_at == 1_764_000_000.123
    assert "changed_at" not in without["names"][0]
    assert Snapshot.from_payload(without).names[0].changed_at is None


def test_refused_sets_are_told_only_where_there_are_some() -> None:
    told = snapshot(learned(addresses=("10.0.0.1", "10.0.0.2"), refused=(("10.0.0.2",),)))
    assert Snapshot.from_payload(told.to_payload()) == told
    assert "refused" not in snapshot(learned()).to_payload()["names"][0]


@pytest.mark.parametrize("refused", ["x", [["x"]], ["10.0.0.1"], [["10.0.0.1"]] * 9, [[None]]])
def test_refused_sets_that_are_none(refused: object) -> None:
    payload = snapshot(learned()).to_payload()
    payload["names"][0]["refused"] = refused
    with pytest.raises(SnapshotError, match=r"names\[0\]\.refused"):
        Snapshot.from_payload(payload)
