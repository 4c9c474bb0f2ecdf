from __future__ import annotations

from dataclasses import replace

import pytest

from dnsproxy.core.learned import MAX_ADDRESSES, LearnedName, Snapshot
from dnsproxy.core.registry import Wanted
from dnsproxy.errors import ResolveError
from dnsproxy.helper.observe import Answer, Look, combine, observe

WANTED = Wanted("auth.example.", "auth", "hangzhou")
NOW = 1_764_000_000.9
FIRST, SECOND = "10.0.0.2:53", "10.0.0.3:53"
KNOWN = LearnedName(
    "auth.example.", "auth", "hangzhou", ("192.0.2.1", "2001:db8::1"), None, 60, 1_763_999_000, (FIRST,), "ok"
)


def seen(*addresses: str, resolver: str = FIRST, ttl: int = 60, complete: bool = True) -> Look:
    return Look(resolver, addresses, ttl, complete=complete)


def failed(resolver: str = FIRST) -> Look:
    return Look(resolver, error=f"{resolver}: SERVFAIL")


def test_the_sets_of_all_resolvers_are_united_in_canonical_order() -> None:
    looks = [
        seen("192.0.2.10", "192.0.2.2", ttl=300),
        seen("192.0.2.2", "192.0.2.9", resolver=SECOND, ttl=7),
    ]
    learned = observe(None, WANTED, looks, NOW)
    assert learned == LearnedName(
        name="auth.example.",
        role="auth",
        registry="hangzhou",
        addresses=("192.0.2.2", "192.0.2.9", "192.0.2.10"),
        cname=None,
        ttl=7,
        observed_at=1_764_000_000,
        resolvers=(FIRST, SECOND),
        status="ok",
        changed_at=1_764_000_000.9,
    )


def test_the_time_of_change_is_that_of_the_first_look_at_the_set() -> None:
    first = observe(None, WANTED, [seen("192.0.2.1")], NOW, NOW - 1.5)
    assert first.changed_at == 1_763_999_999.4
    again = observe(first, WANTED, [seen("192.0.2.1", ttl=9)], NOW + 30)
    assert (again.changed_at, again.observed_at) == (first.changed_at, int(NOW + 30))
    lost = observe(again, WANTED, [failed()], NOW + 60)
    assert (lost.status, lost.changed_at) == ("stale", first.changed_at)
    found = observe(lost, WANTED, [seen("192.0.2.1")], NOW + 90)
    assert (found.status, found.changed_at) == ("ok", first.changed_at)
    moved = observe(found, WANTED, [seen("192.0.2.2")], NOW + 120)
    assert moved.changed_at == round(NOW + 120, 3)
    assert observe(None, WANTED, [failed()], NOW).changed_at is None


def test_new_addresses_replace_the_old_ones() -> None:
    learned = observe(KNOWN, WANTED, [seen("192.0.2.7")], NOW)
    assert (learned.addresses, learned.status) == (("192.0.2.7",), "ok")


def test_only_those_that_answered_are_named() -> None:
    learned = observe(KNOWN, WANTED, [failed(), seen("192.0.2.7", resolver=SECOND)], NOW)
    assert (learned.resolvers, learned.status) == ((SECOND,), "ok")


@pytest.mark.parametrize("looks", [[failed(), failed(SECOND)], [seen()], []])
def test_when_all_fail_the_old_addresses_stay_and_keep_their_date(looks: list[Look]) -> None:
    assert observe(KNOWN, WANTED, looks, NOW) == replace(KNOWN, status="stale")


def test_a_date_from_before_the_clock_was_set_back_is_brought_back() -> None:
    earlier = KNOWN.observed_at - 50
    assert observe(KNOWN, WANTED, [failed()], earlier + 0.9).observed_at == earlier


def test_a_stale_name_stays_stale_and_then_recovers() -> None:
    stale = observe(replace(KNOWN, status="stale"), WANTED, [failed()], NOW)
    assert (stale.status, stale.observed_at) == ("stale", KNOWN.observed_at)
    assert observe(stale, WANTED, [seen("192.0.2.7")], NOW).status == "ok"


@pytest.mark.parametrize("previous", [None, replace(KNOWN, addresses=(), status="failed", observed_at=0)])
def test_a_name_that_never_had_addresses_is_failed(previous: LearnedName | None) -> None:
    learned = observe(previous, WANTED, [failed()], NOW)
    assert (learned.addresses, learned.status, learned.observed_at, learned.ttl) == ((), "failed", 0, 0)


def test_role_and_registry_follow_the_configuration() -> None:
    learned = observe(KNOWN, replace(WANTED, role="other", registry="new"), [failed()], NOW)
    assert (learned.role, learned.registry, learned.addresses) == ("other", "new", KNOWN.addresses)


def test_the_cname_published_is_the_configured_one_never_the_chain_seen() -> None:
    look = replace(seen("192.0.2.7"), target="deep.chain.example.")
    assert observe(None, WANTED, [look], NOW).cname is None
    through = replace(WANTED, cname="endpoint.example.")
    assert observe(None, through, [look], NOW).cname == "endpoint.example."


def test_addresses_learned_through_another_target_are_not_kept() -> None:
    through = replace(WANTED, cname="endpoint.example.")
    learned = observe(KNOWN, through, [failed()], NOW)
    assert (learned.addresses, learned.status) == ((), "failed")


def test_ipv6_addresses_stay_while_nobody_answers_for_aaaa() -> None:
    learned = observe(KNOWN, WANTED, [seen("192.0.2.7", complete=False)], NOW)
    assert learned.addresses == ("192.0.2.7", "2001:db8::1")


def test_ipv6_addresses_go_when_one_resolver_says_there_are_none() -> None:
    looks = [seen("192.0.2.7", complete=False), seen("192.0.2.7", resolver=SECOND)]
    assert observe(KNOWN, WANTED, looks, NOW).addresses == ("192.0.2.7",)


def test_a_union_never_gets_larger_than_a_proxy_takes() -> None:
    many = tuple(f"10.0.{n // 256}.{n % 256}" for n in range(MAX_ADDRESSES + 44))
    learned = observe(None, WANTED, [seen(*many[:200]), seen(*many[200:], resolver=SECOND)], NOW)
    assert len(learned.addresses) == MAX_ADDRESSES
    snapshot = Snapshot("helper-a", 1, 2, 3, (learned,))
    assert Snapshot.from_payload(snapshot.to_payload()) == snapshot


def test_both_types_make_one_look_with_the_smaller_ttl() -> None:
    look = combine(FIRST, Answer(("192.0.2.1",), 60, "end.example."), Answer(("2001:db8::1",), 20))
    assert look == Look(FIRST, ("192.0.2.1", "2001:db8::1"), 20, "end.example.")


def test_nodata_for_aaaa_says_nothing_about_the_ttl() -> None:
    look = combine(FIRST, Answer(("192.0.2.1",), 60), Answer((), 5))
    assert (look.ttl, look.complete, look.error) == (60, True, None)


def test_a_failed_aaaa_query_leaves_the_look_incomplete_but_good() -> None:
    look = combine(FIRST, Answer(("192.0.2.1",), 60), ResolveError("silence"))
    assert (look.addresses, look.complete, look.error) == (("192.0.2.1",), False, None)


def test_a_failed_a_query_fails_the_look_even_with_ipv6_addresses() -> None:
    look = combine(FIRST, ResolveError("SERVFAIL"), Answer(("2001:db8::1",), 20))
    assert (look.addresses, look.error) == ((), "SERVFAIL")


def test_an_ipv6_only_name_is_good() -> None:
    look = combine(FIRST, Answer((), 60), Answer(("2001:db8::1",), 20))
    assert (look.addresses, look.ttl, look.error) == (("2001:db8::1",), 20, None)


def test_no_address_of_either_type_is_nodata() -> None:
    assert "NODATA" in str(combine(FIRST, Answer((), 60), Answer((), 60)).error)
    half = str(combine(FIRST, Answer((), 60), ResolveError("silence")).error)
    assert "NODATA" in half
    assert "silence" in half
