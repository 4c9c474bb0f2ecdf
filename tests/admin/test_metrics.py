from __future__ import annotations

import platform
from collections import Counter
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client import REGISTRY as GLOBAL
from prometheus_client.parser import text_string_to_metric_families

from dnsproxy.admin.metrics import render
from dnsproxy.admin.status import Facts, NameDetails
from dnsproxy.core.addresses.filter import Refusal
from dnsproxy.core.addresses.health import Outcome, Result
from dnsproxy.core.addresses.name_state import AddressState
from dnsproxy.core.addresses.overrides import Freeze, Overrides, Pin
from dnsproxy.core.registry import Wanted
from dnsproxy.core.stats import DURATION_BOUNDS, Stats, UpstreamStats
from dnsproxy.core.totals import WorkerView
from dnsproxy.errors import DropReason, Rejection
from dnsproxy.version import __version__
from tests.fakes.facts import REGISTRY as CANARY_ENDED
from tests.fakes.facts import STORAGE, bad_canary, facts_of
from tests.strategies import learned, served_table, snapshot

WANTED = [
    Wanted("a.example.", "registry", "hangzhou"),
    Wanted("b.example.", "other", "hangzhou", addresses=("10.1.2.3", "10.1.2.4")),
    Wanted("c.example.", "auth", "hangzhou"),
]
SERIAL = 1_764_000_000_123

Samples = dict[tuple[str, tuple[tuple[str, str], ...]], float]


def facts(**changes: Any) -> Facts:
    values: dict[str, Any] = {
        "wanted": WANTED,
        "table": served_table(snapshot(learned("a.example.", observed_at=1010), serial=SERIAL)),
    }
    return facts_of(**{**values, **changes})


def scrape(given: Facts) -> Samples:
    text = render(lambda: given).decode()
    samples = [sample for family in text_string_to_metric_families(text) for sample in family.samples]
    scraped = {(sample.name, tuple(sorted(sample.labels.items()))): sample.value for sample in samples}
    assert len(scraped) == len(samples), "a sample is there twice"
    return scraped


def one(samples: Samples, sample: str, /, **labels: str) -> float:
    return samples[sample, tuple(sorted(labels.items()))]


def test_every_name_of_the_design_with_its_type() -> None:
    given = facts(upstreams={"10.0.0.2:53": UpstreamStats(rtt=0.01)})
    families = {
        family.name: family.type for family in text_string_to_metric_families(render(lambda: given).decode())
    }
    expected = {
        "dnsproxy_requests": "counter",
        "dnsproxy_encrypted_requests": "counter",
        "dnsproxy_responses": "counter",
        "dnsproxy_request_duration_seconds": "histogram",
        "dnsproxy_drops": "counter",
        "dnsproxy_learned_age_seconds": "gauge",
        "dnsproxy_learned_serial": "gauge",
        "dnsproxy_learned_rejected": "counter",
        "dnsproxy_upstream_up": "gauge",
        "dnsproxy_upstream_rtt_seconds": "gauge",
        "dnsproxy_upstream_failures": "counter",
        "dnsproxy_upstream_ignored": "counter",
        "dnsproxy_cache_entries": "gauge",
        "dnsproxy_cache_hits": "counter",
        "dnsproxy_cache_misses": "counter",
        "dnsproxy_build_info": "gauge",
    }
    assert expected.items() <= families.items()
    assert all(name.startswith("dnsproxy_") for name in families)


def test_traffic() -> None:
    stats = Stats(cache_hits=3, cache_misses=2)
    stats.requests["udp", "A"] = 5
    stats.encrypted["tls"] = 2
    stats.responses["NOERROR", "learned"] = 4
    stats.drops[DropReason.OVERLOADED] = 2
    samples = scrape(facts(stats=stats, cache_entries=8, in_flight=6))
    assert one(samples, "dnsproxy_requests_total", proto="udp", type="A") == 5
    assert one(samples, "dnsproxy_encrypted_requests_total", proto="tls") == 2
    assert one(samples, "dnsproxy_encrypted_requests_total", proto="https") == 0
    assert one(samples, "dnsproxy_responses_total", rcode="NOERROR", source="learned") == 4
    assert one(samples, "dnsproxy_drops_total", reason="overloaded") == 2
    assert one(samples, "dnsproxy_cache_hits_total") == 3
    assert one(samples, "dnsproxy_cache_misses_total") == 2
    assert one(samples, "dnsproxy_cache_entries") == 8
    assert one(samples, "dnsproxy_in_flight") == 6
    assert one(samples, "dnsproxy_build_info", version=__version__, python=platform.python_version()) == 1


def test_reasons_count_from_zero() -> None:
    samples = scrape(facts(rejected={"older": 3}))
    for drop in DropReason:
        assert one(samples, "dnsproxy_drops_total", reason=drop.value) == 0
    for reason in Rejection:
        expected = 3 if reason is Rejection.OLDER else 0
        assert one(samples, "dnsproxy_learned_rejected_total", reason=reason.value) == expected


@given(st.lists(st.floats(0, 5), max_size=30))
def test_the_histogram_is_cumulative_and_counts_each_once(durations: list[float]) -> None:
    stats = Stats()
    for duration in durations:
        stats.record_duration(duration)
    samples = scrape(facts(stats=stats))
    name = "dnsproxy_request_duration_seconds"
    for bound in DURATION_BOUNDS:
        expected = sum(duration <= bound for duration in durations)
        assert one(samples, f"{name}_bucket", le=str(bound)) == expected
    assert one(samples, f"{name}_bucket", le="+Inf") == len(durations)
    assert one(samples, f"{name}_count") == len(durations)
    assert one(samples, f"{name}_sum") == pytest.approx(sum(durations))


def test_learned() -> None:
    samples = scrape(facts())
    assert one(samples, "dnsproxy_learned_age_seconds", name="a.example.") == 40
    assert one(samples, "dnsproxy_learned_serial") == SERIAL
    assert [key for key in samples if key[0] == "dnsproxy_learned_age_seconds"] == [
        ("dnsproxy_learned_age_seconds", (("name", "a.example."),))
    ]
    counts = [one(samples, "dnsproxy_learned_addresses", name=wanted.name) for wanted in WANTED]
    assert counts == [1, 2, 0]
    assert one(samples, "dnsproxy_ready") == 0
    assert one(scrape(facts(wanted=WANTED[:2])), "dnsproxy_ready") == 1


@pytest.mark.parametrize("failure", [None, "No space left on device"])
def test_a_disk_that_cannot_be_written(failure: str | None) -> None:
    samples = scrape(facts(disk_failure=failure))
    assert one(samples, "dnsproxy_state_write_failed") == (failure is not None)


def test_what_is_no_longer_answered_counts_no_address() -> None:
    samples = scrape(facts(wall_now=1e9, max_stale=60.0))
    assert one(samples, "dnsproxy_learned_addresses", name="a.example.") == 0
    assert one(samples, "dnsproxy_learned_age_seconds", name="a.example.") == 1e9 - 1010


def test_upstreams() -> None:
    down = UpstreamStats(sent=9, failures=Counter(timeout=4, refused=1), rtt=0.25, up=False)
    down.ignored["unknown_id"] = 7
    samples = scrape(facts(upstreams={"10.0.0.2:53": down, "[fd00::2]:53": UpstreamStats()}))
    assert one(samples, "dnsproxy_upstream_up", upstream="10.0.0.2:53") == 0
    assert one(samples, "dnsproxy_upstream_up", upstream="[fd00::2]:53") == 1
    assert one(samples, "dnsproxy_upstream_rtt_seconds", upstream="10.0.0.2:53") == 0.25
    assert one(samples, "dnsproxy_upstream_sent_total", upstream="10.0.0.2:53") == 9
    assert one(samples, "dnsproxy_upstream_failures_total", upstream="10.0.0.2:53", reason="timeout") == 4
    assert one(samples, "dnsproxy_upstream_ignored_total", upstream="10.0.0.2:53", reason="unknown_id") == 7
    assert ("dnsproxy_upstream_rtt_seconds", (("upstream", "[fd00::2]:53"),)) not in samples


def test_labels_are_escaped() -> None:
    name = 'a"b\\\\n.example.'
    samples = scrape(facts(wanted=[Wanted(name, "other", "r", addresses=("10.0.0.1",))]))
    assert one(samples, "dnsproxy_learned_addresses", name=name) == 1


def test_each_scrape_reads_anew_and_nothing_is_global() -> None:
    before = {family.name for family in GLOBAL.collect()}
    stats = Stats()
    assert one(scrape(facts(stats=stats)), "dnsproxy_cache_hits_total") == 0
    stats.cache_hits += 1
    assert one(scrape(facts(stats=stats)), "dnsproxy_cache_hits_total") == 1
    assert {family.name for family in GLOBAL.collect()} == before


def test_addresses() -> None:
    dead, well = Result(Outcome.FAILED, {443: "timed out"}), Result(Outcome.ANSWERED, {443: "ok"})
    details = NameDetails(
        (
            AddressState("10.0.0.1", True, True, None, well, 1.0),
            AddressState("10.0.0.2", False, False, "timed out", dead, 1.0),
            AddressState("10.0.0.3", False, None, "not probed yet", None, None),
        ),
        routed={"10.0.0.1": True, "10.0.0.2": False, "10.0.0.3": None},
    )
    samples = scrape(facts(details={"a.example.": details}))
    for sample in ("dnsproxy_learned_unreachable", "dnsproxy_learned_unrouted"):
        found = {
            dict(labels)["address"]: value for (name, labels), value in samples.items() if name == sample
        }
        # Of 10.0.0.3 nothing is known; a 0 would say that it is well.
        assert found == {"10.0.0.1": 0, "10.0.0.2": 1}
        assert one(samples, sample, name="a.example.", address="10.0.0.2") == 1


def test_refusals_are_there_from_the_start() -> None:
    samples = scrape(facts(refused={"conflict": 2}))
    counts = {reason: one(samples, "dnsproxy_learned_refused_total", reason=reason) for reason in Refusal}
    assert counts == {reason: 2 if reason is Refusal.CONFLICT else 0 for reason in Refusal}


def test_orders() -> None:
    orders = Overrides(pins={"a.example.": Pin(("10.0.0.1",), 1)}, freeze=Freeze(1, {}))
    for held, expected in ((Overrides(), 0), (orders, 1)):
        samples = scrape(facts(overrides=held))
        assert one(samples, "dnsproxy_learned_frozen") == expected
        assert one(samples, "dnsproxy_learned_pinned") == expected


def test_trials() -> None:
    samples = scrape(facts(canary=bad_canary()))
    for name, state, served in ((STORAGE, "running", 1), (CANARY_ENDED, "rolled_back", 0)):
        for other in ("running", "rolled_back"):
            assert one(samples, "dnsproxy_canary_trial", name=name, state=other) == (other == state)
        assert one(samples, "dnsproxy_canary_served", name=name) == served
    assert one(samples, "dnsproxy_canary_promotions_total", reason="held") == 2
    assert one(samples, "dnsproxy_canary_rollbacks_total", reason="failed") == 1
    # From the start, or the first one would be no increase for an alert.
    for reason in ("silent", "refused", "fleet"):
        assert one(samples, "dnsproxy_canary_rollbacks_total", reason=reason) == 0


def test_workers() -> None:
    workers = (
        WorkerView(1, 10, 1000.0, 5, 2, answers=True),
        WorkerView(2, 11, 1000.0, 5, 1, answers=True),
        WorkerView(3, None, None, 0, 4, answers=False),
    )
    samples = scrape(facts(workers=workers))
    assert one(samples, "dnsproxy_workers") == 2
    assert one(samples, "dnsproxy_worker_restarts_total") == 7


def test_one_process_is_one_that_answers() -> None:
    samples = scrape(facts())
    assert one(samples, "dnsproxy_workers") == 1
    assert one(samples, "dnsproxy_worker_restarts_total") == 0
