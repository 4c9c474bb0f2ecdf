"""The tables that `status`, `routes`, `doctor` and `demo` show."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table
from rich.text import Text

from dnsproxy.ops.doctor_findings import Finding, Result
from dnsproxy.ops.fitting import Fitting, Item
from dnsproxy.ops.routes import Plan, Route

_STYLES = {"ok": "green", "pinned": "cyan", "frozen": "cyan", "stale": "yellow", "missing": "bold red"}
_RESULTS = {Result.OK: "green", Result.FAIL: "bold red", Result.SKIP: "dim"}
# Columns of an IPv4 address at its longest: it is not folded on a narrow terminal.
_IPV4_WIDTH = 15
# Columns of a sentence that can still be read.
_SEEN_WIDTH = 40
# Columns of output that goes to no terminal: the longest names of a registry fit on one line.
_WIDTH = 150
# Columns from which serials have room beside them.
WIDE = 120
_PROBE_WIDTH = 22
_STEPS = ((86_400, "d"), (3_600, "h"), (60, "m"))


def open_console() -> Console:
    """Return a console on standard output, wide enough for the tables when that is no terminal."""
    # No markup and no emoji: cells hold text of others.
    console = Console(highlight=False, markup=False, emoji=False)
    if not console.is_terminal:
        console = Console(highlight=False, markup=False, emoji=False, width=_WIDTH)
    return console


def age_text(seconds: float | None) -> str:
    """Return ``8s``, ``3m``, ``5h`` or ``2d``; a dash when there is no age."""
    if seconds is None:
        return "-"
    whole = max(int(seconds), 0)
    for length, unit in _STEPS:
        if whole >= length:
            return f"{whole // length}{unit}"
    return f"{whole}s"


def names_table(status: Mapping[str, Any], *, wide: bool = False) -> Fitting:
    """Return what the status document of `/api/v1/status` tells of the names; the serials when ``wide``.

    What a proxy tells about single addresses (probe, route) stands beside each of them.
    """
    detailed = any(entry.get("details") for entry in status["names"])
    table = Table(header_style="bold", box=SIMPLE_HEAD, padding=(0, 1, 0, 0), pad_edge=False)
    table.add_column("name", no_wrap=True)
    table.add_column("role", no_wrap=True)
    table.add_column("addresses", overflow="fold", no_wrap=detailed, min_width=_IPV4_WIDTH)
    if detailed:
        table.add_column("probe", no_wrap=True)
        table.add_column("routed", no_wrap=True)
    table.add_column("age", justify="right", no_wrap=True)
    if wide:
        table.add_column("serial", no_wrap=True)
    table.add_column("source", no_wrap=True)
    table.add_column("status", no_wrap=True)
    for entry in status["names"]:
        table.add_row(
            str(entry["name"]).removesuffix("."),
            str(entry["role"]),
            *(_columns(entry) if detailed else [_addresses(entry)]),
            age_text(entry["age"]),
            *([str(entry["serial"] or "-")] if wide else []),
            str(entry["source"] or "-"),
            _state(entry),
        )
    return Fitting(table, (_name_item(entry) for entry in status["names"]))


def _state(entry: Mapping[str, Any]) -> Text:
    state = str(entry["status"])
    shown = "frozen" if entry.get("frozen") is True and state == "ok" else state
    return Text(shown, style=_STYLES.get(shown, ""))


def _name_item(entry: Mapping[str, Any]) -> Item:
    facts = Text(", ").join([Text(str(entry["role"])), _state(entry)])
    if entry["age"] is not None:
        facts.append(f", confirmed {age_text(entry['age'])} ago by {entry['source']}")
    lines = [
        Text.assemble(address, "  probe ", probe, ", routed ", routed) if probe.plain else address
        for address, probe, routed in _lines(entry)
    ]
    return Item(Text(str(entry["name"]).removesuffix("."), style="bold"), [facts, *lines])


def _addresses(entry: Mapping[str, Any]) -> str:
    return _with_alias(entry, ", ".join(entry["addresses"]) or "-")


def _with_alias(entry: Mapping[str, Any], addresses: str) -> str:
    return f"{str(entry['cname']).removesuffix('.')} → {addresses}" if entry.get("cname") else addresses


def _columns(entry: Mapping[str, Any]) -> list[Text]:
    """Return addresses, probe results and routes, a line for each address."""
    return [Text("\n").join(column) for column in zip(*_lines(entry), strict=True)]


def _lines(entry: Mapping[str, Any]) -> list[tuple[Text, Text, Text]]:
    details = list(entry.get("details") or ())
    told = {detail["address"] for detail in details}
    details += [{"address": address} for address in entry["addresses"] if address not in told]
    lines = [_detail(detail) for detail in details] or [(Text("-"), Text("-"), Text("-"))]
    if entry.get("cname"):
        lines.insert(0, (Text(_with_alias(entry, "").rstrip()), Text(), Text()))
    return lines


def _detail(detail: Mapping[str, Any]) -> tuple[Text, Text, Text]:
    serving = detail.get("state", "serving") == "serving"
    address = Text(str(detail["address"]), style="" if serving else "dim")
    results = detail.get("probe") or {}
    bad = [f"{port} {text}" for port, text in results.items() if text != "ok"]
    if detail.get("state") == "refused":
        probe = Text(f"refused: {str(detail.get('reason') or '').partition(':')[0]}", style="bold red")
    elif bad or not serving:
        probe = Text(("" if serving else "held: ") + (", ".join(bad) or "not probed"), style="yellow")
    else:
        probe = Text("ok" if results else "-", style="green" if results else "")
    # The whole text is in the document; here the names must keep their room.
    probe.truncate(_PROBE_WIDTH, overflow="ellipsis")
    routed = detail.get("routed")
    if routed is None:
        return address, probe, Text("-")
    return address, probe, Text("yes", style="green") if routed else Text("NO", style="bold red")


def sources_table(status: Mapping[str, Any]) -> Table:
    """Return the state of each source of snapshots."""
    table = Table(header_style="bold", box=SIMPLE_HEAD, padding=(0, 1, 0, 0), pad_edge=False)
    for column in ("source", "issuer", "serial", "last success", "problem"):
        table.add_column(column, overflow="fold")
    for source in status["sources"]:
        table.add_row(
            str(source["url"]),
            str(source["issuer"] or "-"),
            str(source["serial"] or "-"),
            age_text(source["age"]),
            str(source["last_error"] or ""),
        )
    return table


def workers_table(status: Mapping[str, Any]) -> Table:
    """Return what each process that answers queries did."""
    table = Table(header_style="bold", box=SIMPLE_HEAD, padding=(0, 1, 0, 0), pad_edge=False)
    for column in ("worker", "pid", "up for", "queries", "restarts", "answers"):
        table.add_column(column, no_wrap=True)
    for worker in status["workers"]:
        table.add_row(
            str(worker["worker"]),
            str(worker["pid"] or "-"),
            age_text(worker["uptime"]),
            str(worker["queries"]),
            str(worker["restarts"]),
            Text("yes", style="green") if worker["answers"] else Text("NO", style="bold red"),
        )
    return table


def routes_table(plan: Plan) -> Fitting:
    """Return the entries of a route plan, with what each is for."""
    table = Table(header_style="bold", box=SIMPLE_HEAD, padding=(0, 1, 0, 0), pad_edge=False)
    table.add_column("destination", no_wrap=True)
    table.add_column("role", overflow="fold")
    table.add_column("names", no_wrap=True)
    table.add_column("addresses", overflow="fold", min_width=_IPV4_WIDTH)
    table.add_column("routed", no_wrap=True)
    for route in plan.routes:
        table.add_row(
            str(route.destination),
            ", ".join(route.roles),
            "\n".join(name.removesuffix(".") for name in route.names),
            ", ".join(route.addresses) or "-",
            _coverage(route),
        )
    return Fitting(table, map(_route_item, plan.routes))


def _coverage(route: Route) -> Text:
    return Text("yes", style="green") if route.covered else Text("MISSING", style="bold red")


def _route_item(route: Route) -> Item:
    destination = Text(str(route.destination), style="bold")
    facts = Text(f"  {', '.join((*route.roles, *route.addresses))}")
    names = [Text(name.removesuffix(".")) for name in route.names]
    covered = Text("routed", style="green") if route.covered else _coverage(route)
    return Item(Text.assemble(destination, "  ", covered, facts), names)


def findings_table(findings: Sequence[Finding]) -> Fitting:
    """Return the hops of an examination in order; what to do stands below what was seen."""
    table = Table(header_style="bold", box=SIMPLE_HEAD, padding=(0, 1, 0, 0), pad_edge=False)
    table.add_column("hop", no_wrap=True)
    table.add_column("subject", no_wrap=True)
    table.add_column("result", no_wrap=True)
    table.add_column("seen", overflow="fold", min_width=_SEEN_WIDTH)
    for finding in findings:
        seen = Text("\n").join(_seen(finding))
        table.add_row(finding.hop, Text(finding.subject), _result(finding), seen)
    return Fitting(table, map(_finding_item, findings))


def _result(finding: Finding) -> Text:
    return Text(finding.result.value, style=_RESULTS[finding.result])


def _seen(finding: Finding) -> list[Text]:
    """Return the fact, and below it what to do about a broken hop."""
    advice = [Text(f"→ {finding.advice}", style="bold")] if finding.failed and finding.advice else []
    return [Text(finding.seen), *advice]


def _finding_item(finding: Finding) -> Item:
    return Item(Text.assemble(_result(finding), f"  {finding.hop}  {finding.subject}"), _seen(finding))
