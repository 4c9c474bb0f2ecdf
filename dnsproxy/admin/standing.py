"""How this proxy stands in its fleet: who it is, what it has of each helper, how fast changes got here.

`dnsproxy fleet` reads it of many proxies, in the JSON of ``/api/v1/status`` or through Prometheus.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import accumulate
from typing import Any

from prometheus_client.core import GaugeMetricFamily, HistogramMetricFamily, InfoMetricFamily
from prometheus_client.metrics_core import Metric

from dnsproxy.admin.status import Facts
from dnsproxy.core.convergence import BOUNDS

# Issuers in the metrics, those with the newest snapshots: a trusted key can sign under any number of names.
MAX_ISSUERS = 64
CONVERGENCE_HELP = (
    "From the time when the helper saw new addresses to the first answer with them here; one for each name "
    "and change. The start is the helper's clock, the end this host's: what they differ by is in it, and "
    "negative times count as 0. First addresses, and what was read from disk, do not count."
)


def standing_document(facts: Facts) -> dict[str, Any]:
    """Return the keys of the status document that tell it. Times are Unix seconds, ages seconds."""
    bounds = [*BOUNDS, None]
    return {
        "proxy": facts.identity or facts.host,
        "issuers": [
            {
                "issuer": issuer,
                "serial": snapshot.serial,
                "issued_at": snapshot.issued_at,
                "age": max(0.0, facts.wall_now - snapshot.issued_at),
            }
            for issuer, snapshot in sorted(facts.book.latest.items())
        ],
        "convergence": {
            "count": sum(facts.convergence.counts),
            "sum": facts.convergence.sum,
            "buckets": [
                {"le": bound, "count": count}
                for bound, count in zip(bounds, accumulate(facts.convergence.counts), strict=True)
            ],
        },
    }


def standing_metrics(facts: Facts) -> Iterator[Metric]:
    """Yield the same as metrics."""
    info = InfoMetricFamily(
        "dnsproxy_proxy", "What this proxy calls itself (admin.identity), and its host's name."
    )
    info.add_metric([], {"proxy": facts.identity or facts.host, "host": facts.host})
    yield info
    started = "When the program was started, in Unix seconds."
    yield GaugeMetricFamily("dnsproxy_start_time_seconds", started, value=facts.started_at)
    yield GaugeMetricFamily("dnsproxy_draining", "1 while it is being stopped.", value=facts.draining)
    serial = GaugeMetricFamily(
        "dnsproxy_issuer_serial", "Serial of the last snapshot accepted of a helper.", labels=["issuer"]
    )
    issued = GaugeMetricFamily(
        "dnsproxy_issuer_issued_timestamp_seconds",
        "When the helper made that snapshot, by its own clock, in Unix seconds.",
        labels=["issuer"],
    )
    newest = sorted(facts.book.latest.items(), key=lambda item: item[1].issued_at)[-MAX_ISSUERS:]
    for issuer, snapshot in sorted(newest):
        serial.add_metric([issuer], snapshot.serial)
        issued.add_metric([issuer], snapshot.issued_at)
    yield from (serial, issued)
    yield from _sources(facts)
    buckets = zip((*map(str, BOUNDS), "+Inf"), accumulate(facts.convergence.counts), strict=True)
    family = HistogramMetricFamily("dnsproxy_convergence_seconds", CONVERGENCE_HELP)
    family.add_metric([], buckets=list(buckets), sum_value=facts.convergence.sum)
    yield family


def _sources(facts: Facts) -> Iterator[Metric]:
    up = GaugeMetricFamily(
        "dnsproxy_source_up",
        "1 when its last answer was taken, or was nothing new.",
        labels=["source"],
    )
    success = GaugeMetricFamily(
        "dnsproxy_source_last_success_timestamp_seconds", "When that was, in Unix seconds.", labels=["source"]
    )
    # Secrets in queries are left out of what is shown, so two sources may look the same: the better counts.
    tried = [source for source in facts.sources if source.last_attempt is not None]
    for url in dict.fromkeys(source.url for source in tried):
        same = [source for source in tried if source.url == url]
        up.add_metric([url], any(source.last_error is None and source.last_success for source in same))
        times = [source.last_success for source in same if source.last_success is not None]
        if times:
            success.add_metric([url], max(times))
    yield from (up, success)
