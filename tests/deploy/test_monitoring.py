"""Alerts, their runbook and the dashboard: about metrics that there are, and each alert explained."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from prometheus_client.metrics_core import Metric

from dnsproxy.admin.metrics import families
from dnsproxy.core.addresses.filter import Refusal
from dnsproxy.core.addresses.table import ServedTable
from dnsproxy.errors import DropReason, Rejection
from tests.deploy.files import DEPLOY, output, run
from tests.e2e.processes import ROOT
from tests.fakes.facts import facts_of

pytestmark = pytest.mark.deploy

ALERTS = DEPLOY / "prometheus" / "alerts.yaml"
UNIT_TESTS = sorted((DEPLOY / "prometheus").glob("*_test.yaml"))
DASHBOARD = DEPLOY / "grafana" / "dashboard.json"
RUNBOOK = ROOT / "docs" / "runbook.md"

# Labels that Prometheus adds to every series, and the one of a histogram's buckets.
ADDED = frozenset({"job", "instance"})
_SELECTOR = re.compile(r"\b(dnsproxy_[a-z_]+|up)(?:\{([^}]*)\})?")
_MATCHER = re.compile(r"(\w+)\s*(?:=~|!~|!=|=)\s*\"([^\"]*)\"")
_GROUPED = re.compile(r"\b(?:by|without)\s*\(([^)]*)\)")


def exposed() -> dict[str, frozenset[str]]:
    """Every series that a proxy exports, with its labels."""
    found: dict[str, frozenset[str]] = {"up": frozenset()}
    for family in families(facts_of(wanted=(), table=ServedTable())):
        labels = labels_of(family)
        match family.type:
            case "counter":
                found[f"{family.name}_total"] = labels
            case "histogram":
                found |= {f"{family.name}_{part}": labels for part in ("count", "sum")}
                found[f"{family.name}_bucket"] = labels | {"le"}
            case "info":
                found[f"{family.name}_info"] = labels
            case _:
                found[family.name] = labels
    return found


def labels_of(family: Metric) -> frozenset[str]:
    if family.type == "info":
        return frozenset(family.samples[0].labels)
    return frozenset(family._labelnames)  # type: ignore[attr-defined]


def mistakes(expression: str) -> list[str]:
    """What an expression names that no proxy exports."""
    known = exposed()
    used: set[str] = set()
    found: list[str] = []
    for metric, matchers in _SELECTOR.findall(expression):
        if metric not in known:
            found.append(metric)
            continue
        labels = known[metric] | ADDED
        used |= labels
        found += [f"{metric}{{{label}}}" for label, _ in _MATCHER.findall(matchers) if label not in labels]
    for group in _GROUPED.findall(expression):
        found += [f"by {label}" for label in map(str.strip, group.split(",")) if label not in used]
    return found


def rules() -> list[dict[str, Any]]:
    return [rule for group in yaml.safe_load(ALERTS.read_text())["groups"] for rule in group["rules"]]


def test_promtool_takes_the_rules_and_their_unit_tests_pass(tool: Callable[[str], str]) -> None:
    assert f"SUCCESS: {len(rules())} rules found" in output(tool("promtool"), "check", "rules", ALERTS)
    assert output(tool("promtool"), "test", "rules", *UNIT_TESTS).count("SUCCESS") == len(UNIT_TESTS)


@pytest.mark.parametrize(
    ("right", "wrong"),
    [
        ("dnsproxy_ready == 0", "dnsproxy_ready == 1"),
        ("dnsproxy_learned_age_seconds > 600", "dnsproxy_learned_age_seconds > 6000"),
        ('reason!="older"', 'reason!="newer"'),
        ("for: 1d", "for: 1h"),
    ],
)
def test_the_unit_tests_would_notice(
    right: str, wrong: str, tool: Callable[[str], str], tmp_path: Path
) -> None:
    text = ALERTS.read_text()
    assert text.count(right) == 1
    (tmp_path / "alerts.yaml").write_text(text.replace(right, wrong))
    for path in UNIT_TESTS:
        (tmp_path / path.name).write_text(path.read_text())
    files = [tmp_path / path.name for path in UNIT_TESTS]
    assert run(tool("promtool"), "test", "rules", *files).returncode != 0


def test_every_alert_is_in_the_unit_tests() -> None:
    text = "".join(path.read_text() for path in UNIT_TESTS)
    assert [rule["alert"] for rule in rules() if rule["alert"] not in text] == []


def test_the_alerts_are_about_metrics_and_labels_that_there_are() -> None:
    assert {rule["alert"]: found for rule in rules() if (found := mistakes(rule["expr"]))} == {}


def test_a_mistyped_metric_or_label_would_be_noticed() -> None:
    assert mistakes('sum by (names) (dnsproxy_redy) > dnsproxy_learned_addresses{nam="a"}') == [
        "dnsproxy_redy",
        "dnsproxy_learned_addresses{nam}",
        "by names",
    ]


def test_the_alerts_name_only_reasons_that_there_are() -> None:
    known = {
        "dnsproxy_drops_total": {reason.value for reason in DropReason},
        "dnsproxy_learned_rejected_total": {reason.value for reason in Rejection},
        "dnsproxy_learned_refused_total": {reason.value for reason in Refusal},
    }
    named = [
        (metric, value)
        for rule in rules()
        for metric, matchers in _SELECTOR.findall(rule["expr"])
        for label, value in _MATCHER.findall(matchers)
        if label == "reason"
    ]
    assert named
    assert [pair for pair in named if pair[1] not in known[pair[0]]] == []


def test_labels_in_annotations_are_left_by_the_expression() -> None:
    for rule in rules():
        # A comparison with group_left leaves the labels of its left side.
        kept = None if "group_left" in rule["expr"] else _GROUPED.search(rule["expr"])
        series = _SELECTOR.findall(rule["expr"])[0][0]
        left = set(map(str.strip, kept[1].split(","))) if kept else exposed()[series] | ADDED
        used = set(re.findall(r"\$labels\.(\w+)", " ".join(rule["annotations"].values())))
        assert used <= left, rule["alert"]
        assert used, rule["alert"]


def sections() -> dict[str, str]:
    _, *parts = re.split(r"^## ", RUNBOOK.read_text(), flags=re.MULTILINE)
    return {part.partition("\n")[0]: part for part in parts}


def test_alerts_and_runbook_are_in_step() -> None:
    assert list(sections()) == [rule["alert"] for rule in rules()]
    for rule in rules():
        assert rule["annotations"]["runbook_url"] == f"docs/runbook.md#{rule['alert'].lower()}"
        assert rule["labels"]["severity"] in {"critical", "warning"}


@pytest.mark.parametrize("name", list(sections()))
def test_a_section_tells_meaning_commands_and_what_to_do(name: str) -> None:
    part = sections()[name]
    assert [part.count(f"**{word}.**") for word in ("Meaning", "Confirm", "Do")] == [1, 1, 1]
    commands = re.search(r"```sh\n(.+?)```", part, re.DOTALL)
    assert commands
    assert re.search(r"dnsproxy|journalctl|df ", commands[1])
    assert len(part.partition("**Do.**")[2].split()) >= 5


def panels(found: list[dict[str, Any]]) -> Iterator[dict[str, Any]]:
    for panel in found:
        yield panel
        yield from panels(panel.get("panels", []))


def test_the_dashboard_is_about_metrics_and_labels_that_there_are() -> None:
    dashboard = json.loads(DASHBOARD.read_text())
    expressions = [
        target["expr"] for panel in panels(dashboard["panels"]) for target in panel.get("targets", [])
    ]
    assert len(expressions) > 20
    assert {text: found for text in expressions if (found := mistakes(text))} == {}
    legends = {
        label
        for panel in panels(dashboard["panels"])
        for target in panel.get("targets", [])
        for label in re.findall(r"\{\{(\w+)\}\}", target["legendFormat"])
    }
    assert legends <= frozenset().union(*exposed().values()) | ADDED


def test_the_dashboard_holds_together() -> None:
    dashboard = json.loads(DASHBOARD.read_text())
    every = list(panels(dashboard["panels"]))
    assert len({panel["id"] for panel in every}) == len(every)
    squares = [
        (x, y)
        for panel in every
        for x in range(panel["gridPos"]["x"], panel["gridPos"]["x"] + panel["gridPos"]["w"])
        for y in range(panel["gridPos"]["y"], panel["gridPos"]["y"] + panel["gridPos"]["h"])
    ]
    assert len(set(squares)) == len(squares), "panels lie over one another"
    assert max(x for x, _ in squares) < 24
    variables = {entry["name"] for entry in dashboard["templating"]["list"]}
    used = set(re.findall(r"\$\{?(\w+)\}?", DASHBOARD.read_text())) - {"__rate_interval", "__all"}
    assert used == variables
    for entry in dashboard["templating"]["list"]:
        if entry["type"] == "query":
            assert mistakes(entry["query"]["query"]) == []
    assert (dashboard["uid"], dashboard["schemaVersion"] >= 36) == ("dnsproxy", True)


def test_every_panel_of_the_dashboard_is_promql(tool: Callable[[str], str], tmp_path: Path) -> None:
    """promtool reads expressions as recording rules; Grafana's own variables are put in first."""
    dashboard = json.loads(DASHBOARD.read_text())
    made = [
        {
            "record": f"panel:{panel['id']}:{target['refId']}",
            "expr": target["expr"]
            .replace("$__rate_interval", "5m")
            .replace("$job", ".*")
            .replace("$instance", ".*"),
        }
        for panel in panels(dashboard["panels"])
        for target in panel.get("targets", [])
    ]
    path = tmp_path / "panels.yaml"
    path.write_text(yaml.safe_dump({"groups": [{"name": "panels", "rules": made}]}))
    assert f"SUCCESS: {len(made)} rules found" in output(tool("promtool"), "check", "rules", path)
