from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from bench import plot
from bench.alone import Alone
from bench.goals import MIB, judge
from bench.report import Run, to_json, to_markdown
from bench.rounds import Outcome, order
from bench.servers import SERVERS
from bench.stats import Sample
from bench.workloads import complete

OWN = Sample("dnsproxy", "hits", 0, 300_000, 0, 100_000.0, 6.0, 0.6, 0.9)
UNBOUND = Sample("unbound", "hits", 0, 300_000, 0, 90_000.0, 8.0, 0.8, 0.9)
DNSDIST = Sample("dnsdist", "hits", 0, 300_000, 2, 80_000.0, 12.0, 0.8, 0.9)
LATENCY = Sample("dnsproxy", "latency20", 0, 60_000, 3, 20_000.0, 9.0, 0.2, 0.2, 100.0, 250.0)


def run(*samples: Sample, alone: Alone | None = None) -> Run:
    outcome = Outcome(list(samples), {"dnsproxy": [50 * MIB, 60 * MIB]}, {"bind9": "no answer\nlong log"})
    setting = {
        "server_core": 0, "load_core": 1, "rounds": 1, "seconds": 3.0, "outstanding": 100, "mix_rate": 20_000,
    }  # fmt: skip
    return Run("python -m bench", "2026-01-01", {"kernel": "6.1"}, setting, outcome, alone)


def verdict(text: str, *samples: Sample, alone: Alone | None = None) -> tuple[float | None, bool | None]:
    found = next(one for one in judge(samples, alone) if one.text.startswith(text))
    return found.value, found.met


def test_the_table_ranks_the_servers_and_tells_the_ratio() -> None:
    page = to_markdown(run(DNSDIST, UNBOUND, OWN), None)
    rows = [
        line
        for line in page.splitlines()
        if line.startswith(("| dnsproxy | 6.0", "| unbound | 8", "| dnsdist | 12"))
    ]

    assert [row.split(" | ")[0] for row in rows] == ["| dnsproxy", "| unbound", "| dnsdist"]
    assert "| 0.75 (0.75–0.75) | 90,000 |" in rows[1]  # noqa: RUF001 - a range
    assert "(a) Owned" not in page


def test_the_page_tells_what_was_not_measured_and_the_peak() -> None:
    page = to_markdown(run(OWN, alone=Alone(problems=("start: OSError: gone",))), "results.svg")

    assert "- bind9: no answer\n- dnsproxy alone, start: OSError: gone" in page
    assert "| dnsproxy | 60 |" in page
    assert "](results.svg)" in page


@pytest.mark.parametrize(("others", "said"), [(0.02, "Other"), (0.3, "**The machine was not quiet.** Other")])
def test_the_page_tells_when_the_machine_was_not_quiet(others: float, said: str) -> None:
    lines = to_markdown(run(replace(OWN, others_busy=others)), None).splitlines()

    assert f"{said} processes used {others:.0%} of a core (median; at most {others:.0%})." in lines


def test_json_holds_the_samples_and_the_verdicts() -> None:
    data = json.loads(to_json(run(OWN, UNBOUND)))

    assert data["outcome"]["samples"][0]["cpu_us"] == 6.0
    assert {"cache hits: CPU per query / best peer": True}.items() <= {
        goal["text"]: goal["met"] for goal in data["goals"]
    }.items()


def test_a_goal_is_met_missed_or_unknown() -> None:
    assert verdict("cache hits: CPU", OWN, UNBOUND, DNSDIST) == (0.75, True)
    assert verdict("cache hits: CPU", replace(OWN, cpu_us=8.0), UNBOUND) == (1.0, False)
    assert verdict("cache hits: CPU", OWN) == (None, None)
    assert verdict("misses: CPU per query / dnsdist", OWN, UNBOUND) == (None, None)


def test_a_loss_at_saturation_is_no_loss_below_capacity() -> None:
    assert verdict("lost", replace(OWN, lost=9)) == (None, None)
    assert verdict("lost", replace(OWN, lost=9), LATENCY) == (3, False)


def test_goals_of_the_program_alone() -> None:
    alone = Alone(0.5, 60 * MIB, 1_000_000, 701.0, 100_000, 116 * MIB, 6 * MIB)

    assert verdict("start", alone=alone) == (0.5, True)
    assert verdict("idle", alone=alone) == (60.0, True)
    assert verdict("1,000,000", alone=alone) == (701.0, False)
    assert verdict("flood of unique names: cache", alone=alone) == (100_000, True)
    assert verdict("flood of unique names: growth", alone=alone) == (6.0, False)


def test_each_round_starts_with_another_server() -> None:
    firsts = [order(SERVERS, number)[0].name for number in range(len(SERVERS))]

    assert sorted(firsts) == sorted(server.name for server in SERVERS)
    assert order(SERVERS[:2], 2) == list(SERVERS[:2])


@pytest.mark.parametrize(
    ("chosen", "expected"),
    [(["misses", "owned"], ["owned", "misses"]), (["latency80"], ["hits", "latency80"]), (["alone"], [])],
)
def test_a_latency_brings_the_capacity_that_it_needs(chosen: list[str], expected: list[str]) -> None:
    assert complete(chosen) == expected


def test_the_picture_is_drawn_where_matplotlib_is(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")

    assert plot.draw([OWN, UNBOUND], tmp_path / "results.svg")
    assert (
        "cache hits" in (tmp_path / "results.svg").read_text()
        or (tmp_path / "results.svg").stat().st_size > 1000
    )
