"""Prometheus metrics, made from `Facts` at the time of the scrape."""

from __future__ import annotations

import platform
from collections.abc import Callable, Iterator

from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    InfoMetricFamily,
)
from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector

from dnsproxy.admin.standing import standing_metrics
from dnsproxy.admin.status import Facts
from dnsproxy.core.addresses.canary import PROMOTIONS, ROLLBACKS, CanaryView, State
from dnsproxy.core.addresses.filter import Refusal
from dnsproxy.core.stats import DURATION_BOUNDS, Stats
from dnsproxy.errors import DropReason, Rejection
from dnsproxy.version import __version__


def render(facts: Callable[[], Facts]) -> bytes:
    """Return the text exposition format (version 0.0.4)."""
    registry = CollectorRegistry(auto_describe=False)
    registry.register(_FactsCollector(facts))
    return generate_latest(registry)


def families(facts: Facts) -> list[Metric]:
    """Return every metric with its type, labels and help; docs/reference/metrics.md is made from it."""
    return list(_FactsCollector(lambda: facts).collect())


class _FactsCollector(Collector):
    def __init__(self, facts: Callable[[], Facts]) -> None:
        self._facts = facts

    def describe(self) -> list[Metric]:
        """Nothing: names are checked when they are collected."""
        return []

    def collect(self) -> Iterator[Metric]:
        facts = self._facts()
        yield from _traffic(facts.stats)
        yield from _learned(facts)
        yield from _upstreams(facts)
        yield _gauge("dnsproxy_cache_entries", "Answers in the cache.", facts.cache_entries)
        yield _gauge("dnsproxy_in_flight", "Exchanges that wait for an upstream.", facts.in_flight)
        yield _gauge("dnsproxy_tasks", "Tasks of the event loop that serves this page.", facts.tasks)
        failed = CounterMetricFamily(
            "dnsproxy_task_failures", "Background tasks that failed and were started again.", labels=["task"]
        )
        for task, count in sorted(facts.task_failures.items()):
            failed.add_metric([task], count)
        yield failed
        yield from _workers(facts)
        yield from _reloads(facts)
        yield _gauge(
            "dnsproxy_sockets_missing",
            "Sockets that the service manager was expected to give at the start; they were bound directly.",
            facts.sockets_missing,
        )
        yield from standing_metrics(facts)
        build = InfoMetricFamily("dnsproxy_build", "Version of the program.")
        build.add_metric([], {"version": __version__, "python": platform.python_version()})
        yield build


def _gauge(name: str, text: str, value: float) -> GaugeMetricFamily:
    return GaugeMetricFamily(name, text, value=value)


def _traffic(stats: Stats) -> Iterator[Metric]:
    requests = CounterMetricFamily("dnsproxy_requests", "Queries received.", labels=["proto", "type"])
    for (proto, qtype), count in stats.requests.items():
        requests.add_metric([proto, qtype], count)
    yield requests
    encrypted = CounterMetricFamily(
        "dnsproxy_encrypted_requests", "Those of proto tcp that came over TLS.", labels=["proto"]
    )
    for proto in ("tls", "https"):
        encrypted.add_metric([proto], stats.encrypted[proto])
    yield encrypted
    responses = CounterMetricFamily("dnsproxy_responses", "Responses sent.", labels=["rcode", "source"])
    for (rcode, source), count in stats.responses.items():
        responses.add_metric([rcode, source], count)
    yield responses
    drops = CounterMetricFamily("dnsproxy_drops", "Messages or responses dropped.", labels=["reason"])
    for drop in DropReason:
        # From the start, or the first one would be no increase for an alert.
        drops.add_metric([drop.value], stats.drops[drop])
    yield drops
    yield CounterMetricFamily(
        "dnsproxy_cache_hits", "Queries answered from the cache.", value=stats.cache_hits
    )
    yield CounterMetricFamily(
        "dnsproxy_cache_misses", "Queries not found in the cache.", value=stats.cache_misses
    )
    refreshes = CounterMetricFamily(
        "dnsproxy_cache_refreshes", "Answers asked for anew with nobody waiting.", labels=["reason"]
    )
    for reason in ("prefetch", "stale"):
        refreshes.add_metric([reason], stats.refreshes[reason])
    yield refreshes
    local = CounterMetricFamily(
        "dnsproxy_local_failures",
        "Sockets that this host had no descriptor, port or memory for, and calls that it refused.",
        labels=["use"],
    )
    for use in ("upstreams", "tcp_clients", "tls_clients"):
        local.add_metric([use], stats.local_failures[use])
    yield local
    yield from _records(stats)
    yield _durations(stats)


def _records(stats: Stats) -> Iterator[Metric]:
    written = CounterMetricFamily(
        "dnsproxy_log_records", "Records that were written, of queries and of events.", labels=["log"]
    )
    lost = CounterMetricFamily(
        "dnsproxy_log_records_lost", "Records that could not be written, or not in time.", labels=["log"]
    )
    for name in ("program", "queries", "dnstap"):
        written.add_metric([name], stats.records[name])
        lost.add_metric([name], stats.records_lost[name])
    yield from (written, lost)


def _durations(stats: Stats) -> HistogramMetricFamily:
    buckets: list[tuple[str, float]] = []
    total = 0
    bounds = [*(str(bound) for bound in DURATION_BOUNDS), "+Inf"]
    for bound, count in zip(bounds, stats.durations, strict=True):
        total += count
        buckets.append((bound, total))
    family = HistogramMetricFamily("dnsproxy_request_duration_seconds", "From arrival to response.")
    family.add_metric([], buckets=buckets, sum_value=stats.duration_sum)
    return family


def _learned(facts: Facts) -> Iterator[Metric]:
    age = GaugeMetricFamily(
        "dnsproxy_learned_age_seconds", "Since a helper confirmed the addresses.", labels=["name"]
    )
    known = GaugeMetricFamily("dnsproxy_learned_addresses", "Addresses in service.", labels=["name"])
    for entry in facts.wanted:
        held = facts.in_service(entry)
        count = len(entry.addresses) or (len(held.learned.addresses) if held else 0)
        known.add_metric([entry.name], count)
        seconds = facts.age(entry)
        if seconds is not None:
            age.add_metric([entry.name], seconds)
    yield age
    yield known
    yield _gauge("dnsproxy_learned_serial", "Highest serial accepted.", facts.table.serial)
    yield _gauge(
        "dnsproxy_state_write_failed",
        "1 while the state file cannot be written: a restart would forget what came last.",
        facts.disk_failure is not None,
    )
    rejected = CounterMetricFamily(
        "dnsproxy_learned_rejected", "Snapshots that were not taken.", labels=["reason"]
    )
    for reason in Rejection:
        rejected.add_metric([reason.value], facts.rejected.get(reason.value, 0))
    yield rejected
    yield from _details(facts)
    yield from _canary(facts.canary)
    yield _gauge("dnsproxy_ready", "1 when every configured name has an address.", not facts.missing())


def _details(facts: Facts) -> Iterator[Metric]:
    label = ["name", "address"]
    unreachable = GaugeMetricFamily(
        "dnsproxy_learned_unreachable", "1 when the address does not answer probes.", labels=label
    )
    unrouted = GaugeMetricFamily(
        "dnsproxy_learned_unrouted", "1 when network.routed does not hold the address.", labels=label
    )
    for name, details in facts.details.items():
        for state in details.states:
            if state.result is not None:
                unreachable.add_metric([name, state.address], state.alive is False)
            routed = details.routed.get(state.address)
            if routed is not None:
                unrouted.add_metric([name, state.address], not routed)
    yield from (unreachable, unrouted)
    refused = CounterMetricFamily(
        "dnsproxy_learned_refused", "Addresses that are not answered.", labels=["reason"]
    )
    for reason in Refusal:
        refused.add_metric([reason.value], facts.refused.get(reason.value, 0))
    yield refused
    yield _gauge(
        "dnsproxy_learned_frozen", "1 while no changes are taken.", facts.overrides.freeze is not None
    )
    yield _gauge("dnsproxy_learned_pinned", "Names pinned by order.", len(facts.overrides.pins))


def _canary(view: CanaryView) -> Iterator[Metric]:
    trials = GaugeMetricFamily(
        "dnsproxy_canary_trial",
        "1 for the state of a new set of addresses that is on trial, or was rolled back.",
        labels=["name", "state"],
    )
    served = GaugeMetricFamily(
        "dnsproxy_canary_served",
        "1 while this proxy answers with a set that is on trial.",
        labels=["name"],
    )
    for name, trial in view.trials.items():
        for state in State:
            trials.add_metric([name, state.value], trial.state is state)
        served.add_metric([name], name in view.leading)
    yield from (trials, served)
    promotions = CounterMetricFamily(
        "dnsproxy_canary_promotions", "Sets on trial that were put into service.", labels=["reason"]
    )
    rollbacks = CounterMetricFamily(
        "dnsproxy_canary_rollbacks", "Sets on trial that were refused.", labels=["reason"]
    )
    for family, endings in ((promotions, PROMOTIONS), (rollbacks, ROLLBACKS)):
        for ending in endings:
            family.add_metric([ending.value], view.outcomes.get(ending, 0))
    yield from (promotions, rollbacks)


def _workers(facts: Facts) -> Iterator[Metric]:
    # Without workers it is this process that answers, as this scrape shows.
    answering = sum(worker.answers for worker in facts.workers) if facts.workers else 1
    yield _gauge("dnsproxy_workers", "Processes that answer queries.", answering)
    restarts = sum(worker.restarts for worker in facts.workers)
    yield CounterMetricFamily(
        "dnsproxy_worker_restarts", "Workers that ended and were replaced.", value=restarts
    )


def _reloads(facts: Facts) -> Iterator[Metric]:
    success = "1 while the last configuration that was read is in force; 0: it was not taken."
    yield _gauge("dnsproxy_config_reload_success", success, facts.reloads.success)
    taken = "When the configuration in force was taken, in Unix seconds."
    name = "dnsproxy_config_last_reload_success_timestamp_seconds"
    yield _gauge(name, taken, facts.reloads.last_success or facts.started_at)


def _upstreams(facts: Facts) -> Iterator[Metric]:
    label = ["upstream"]
    up = GaugeMetricFamily("dnsproxy_upstream_up", "0 after failures in a row.", labels=label)
    rtt = GaugeMetricFamily("dnsproxy_upstream_rtt_seconds", "Decaying mean.", labels=label)
    sent = CounterMetricFamily("dnsproxy_upstream_sent", "Queries sent.", labels=label)
    failures = CounterMetricFamily(
        "dnsproxy_upstream_failures", "Attempts that gave nothing.", labels=["upstream", "reason"]
    )
    ignored = CounterMetricFamily(
        "dnsproxy_upstream_ignored",
        "Datagrams from its address that answer no open question: late, doubled, damaged or forged.",
        labels=["upstream", "reason"],
    )
    looped = GaugeMetricFamily(
        "dnsproxy_upstream_looped", "1 while it leads back to this proxy and is left out.", labels=label
    )
    for name, stats in facts.upstreams.items():
        up.add_metric([name], stats.up)
        looped.add_metric([name], stats.looped)
        sent.add_metric([name], stats.sent)
        if stats.rtt is not None:
            rtt.add_metric([name], stats.rtt)
        for reason, count in stats.failures.items():
            failures.add_metric([name, reason], count)
        for reason, count in stats.ignored.items():
            ignored.add_metric([name, reason], count)
    yield from (up, looped, rtt, sent, failures, ignored)
