from __future__ import annotations

import json
from typing import Any

import pytest
from rich.console import Console

from dnsproxy.core.standings import Judged, Limits, Standing, judge_fleet
from dnsproxy.ops.fleet_tables import fleet_document, fleet_report, lag_text

NOW = 1_764_000_100.0
NEW, OLD = 1_764_000_090_000, 1_764_000_000_000
INF = float("inf")


def proxy(name: str, serial: int = NEW, **facts: Any) -> Standing:
    told = {"ready": True, "serials": {"helper-a": serial}, "age": 3.0, "version": "0.1.0", "proxy": name}
    return Standing(f"http://{name}:9153", **{**told, **facts})


def fleet(*others: Standing) -> Judged:
    many = [proxy(f"p{number}", buckets=[(1.0, 1.0), (2.0, 2.0), (INF, 2.0)]) for number in range(300)]
    return judge_fleet([*many, *others], Limits(lag=5.0), NOW)


def shown(judged: Judged, *, show_all: bool = False, width: int = 150) -> str:
    console = Console(width=width, highlight=False, record=True, file=open("/dev/null", "w"))  # noqa: SIM115, PTH123
    with console.file:
        console.print(fleet_report(judged, show_all=show_all))
        return console.export_text()


def test_those_that_are_well_are_folded() -> None:
    text = shown(fleet())
    assert "p7 " not in text
    assert "300 are well; --all shows all" in text
    assert "300 of 300 proxies have the newest of each helper (100.0%)" in text
    assert f"newest of helper-a: {NEW}" in text
    assert "convergence: p50 1.00 s, p99 1.98 s over 600 changes" in text
    everything = shown(fleet(), show_all=True)
    assert everything.count("0.1.0") == 300
    assert "are well" not in everything


@pytest.mark.parametrize("width", [150, 60])
def test_those_that_are_not_come_first_with_what_is_wrong(width: int) -> None:
    silent = Standing("http://gone:9153", silence="connection refused")
    text = shown(fleet(proxy("slow", OLD, last_error="no answer"), silent), width=width)
    assert text.index("gone:9153") < text.index("slow")
    for part in ("silent", "connection refused", "lagging", "no answer", "300 more are well", "silent: 1"):
        assert part in text
    assert "300 of 302 proxies" in text


def test_an_empty_fleet_is_shown_as_such() -> None:
    assert "0 of 0 proxies" in shown(judge_fleet([], Limits(), NOW))


@pytest.mark.parametrize(
    ("lag", "text"), [(None, "-"), (0.0, "0"), (0.001, "0.0s"), (7.25, "7.2s"), (90.0, "1m"), (INF, "behind")]
)
def test_lags_as_text(lag: float | None, text: str) -> None:
    assert lag_text(lag) == text


def test_the_document_holds_everything_and_is_json() -> None:
    judged = fleet(proxy("no-time", 5), Standing("http://gone:9153", silence="refused"))
    told = json.loads(json.dumps(fleet_document(judged, NOW), allow_nan=False))
    assert (told["total"], told["converged"], told["well"]) == (302, 300, False)
    assert told["newest"] == {"helper-a": NEW}
    assert told["convergence"] == {"changes": 600.0, "p50": 1.0, "p99": pytest.approx(1.98)}
    gone, no_time = told["proxies"][:2]
    assert (gone["state"], gone["last_error"], gone["lag"]) == ("silent", "refused", None)
    assert (no_time["state"], no_time["lag"], no_time["behind"]) == ("lagging", 10.0, ["helper-a"])
    assert len(told["proxies"]) == 302
