from __future__ import annotations

import json

from prometheus_client.parser import text_string_to_metric_families

from dnsproxy.admin.metrics import render
from dnsproxy.admin.standing import standing_document
from dnsproxy.admin.status import Facts, SourceView
from dnsproxy.core.convergence import BOUNDS, Convergence
from tests.fakes.facts import facts_of
from tests.strategies import learned, served_table, snapshot, statements

SERIAL = 1_764_000_000_123
GOOD = SourceView("http://10.0.0.1/v1/snapshot", 1049.0, 1049.0, None, "helper-a", SERIAL)
BAD = SourceView("http://10.0.0.2/v1/snapshot", 1049.0, 1001.0, "no answer", None, None)


def converged() -> Convergence:
    convergence = Convergence(0.0)
    for address, seen, at in (("10.0.0.1", 1.0, 1.0), ("10.0.0.2", 10.0, 10.2), ("10.0.0.3", 20.0, 9000.0)):
        entry = learned("a.example.", (address,), changed_at=seen, observed_at=0)
        convergence.record(statements(snapshot(entry)), at)
    return convergence


def facts(*sources: SourceView, identity: str | None = None) -> Facts:
    taken = (
        snapshot(learned("a.example."), serial=SERIAL, at=1000),
        snapshot(learned("b.example."), serial=7, at=1040, issuer="helper-b"),
    )
    return facts_of(
        wanted=[],
        table=served_table(*taken),
        snapshots={each.issuer: each for each in taken},
        host="h1",
        identity=identity,
        sources=sources,
        convergence=converged(),
    )


def scrape(given: Facts) -> dict[tuple[str, str], float]:
    families = text_string_to_metric_families(render(lambda: given).decode())
    return {
        (sample.name, ",".join(sample.labels.values())): sample.value
        for family in families
        for sample in family.samples
    }


def test_the_document_says_what_it_has_of_each_helper() -> None:
    document = json.loads(json.dumps(standing_document(facts())))
    assert document["proxy"] == "h1"
    assert document["issuers"] == [
        {"issuer": "helper-a", "serial": SERIAL, "issued_at": 1000, "age": 50.0},
        {"issuer": "helper-b", "serial": 7, "issued_at": 1040, "age": 10.0},
    ]
    convergence = document["convergence"]
    assert (convergence["count"], round(convergence["sum"], 6)) == (2, 8980.2)
    counts = {bucket["le"]: bucket["count"] for bucket in convergence["buckets"]}
    assert list(counts) == [*BOUNDS, None]
    assert (counts[0.1], counts[0.25], counts[3600.0], counts[None]) == (0, 1, 1, 2)


def test_it_calls_itself_as_it_is_configured() -> None:
    assert standing_document(facts(identity="shanghai-3"))["proxy"] == "shanghai-3"
    samples = scrape(facts(identity="shanghai-3"))
    assert samples["dnsproxy_proxy_info", "h1,shanghai-3"] == 1


def test_the_metrics_say_the_same() -> None:
    samples = scrape(facts(GOOD, BAD))
    assert samples["dnsproxy_issuer_serial", "helper-a"] == SERIAL
    assert samples["dnsproxy_issuer_serial", "helper-b"] == 7
    assert samples["dnsproxy_issuer_issued_timestamp_seconds", "helper-b"] == 1040
    assert samples["dnsproxy_start_time_seconds", ""] == 1000
    assert samples["dnsproxy_draining", ""] == 0
    assert samples["dnsproxy_source_up", GOOD.url] == 1
    assert samples["dnsproxy_source_up", BAD.url] == 0
    assert samples["dnsproxy_source_last_success_timestamp_seconds", BAD.url] == 1001
    assert samples["dnsproxy_convergence_seconds_bucket", "0.25"] == 1
    assert samples["dnsproxy_convergence_seconds_bucket", "+Inf"] == 2
    assert samples["dnsproxy_convergence_seconds_count", ""] == 2
    assert round(samples["dnsproxy_convergence_seconds_sum", ""], 6) == 8980.2


def test_sources_that_look_alike_are_one_and_one_never_tried_is_none() -> None:
    twin = SourceView(GOOD.url, 1049.0, None, "status 403", None, None)
    untried = SourceView("http://10.0.0.9/", None, None, None, None, None)
    samples = scrape(facts(twin, GOOD, untried))
    assert samples["dnsproxy_source_up", GOOD.url] == 1
    assert samples["dnsproxy_source_last_success_timestamp_seconds", GOOD.url] == 1049
    assert ("dnsproxy_source_up", "http://10.0.0.9/") not in samples
