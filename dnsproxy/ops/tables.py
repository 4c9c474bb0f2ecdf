"""The tables that `status`, `routes`, `doctor` and `demo` show."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table
from rich.text import Text

from dnsproxy.ops.doctor_findings import Finding, Result
from dnsproxy.ops.routes import Plan

_STYLES = {"ok": "green", "pinned": "cyan", "stale": "yellow", "missing": "bold red"}
_RESULTS = {Result.OK: "green", Result.FAIL: "bold red", Result.SKIP: "dim"}
# Columns of an IPv4 address at its longest: it is not folded on a narrow terminal.
_IPV4_WIDTH = 15
# Columns of output that goes to no terminal: the longest names of a registry fit on one line.
_WIDTH = 120
_STEPS = ((86_400, "d"), (3_600, "h"), (60, "m"))


def open_console() -> Console:
    """Return a console on standard output, wide enough for the tables when that is no terminal."""
    console = Console(highlight=False)
    return console if console.is_terminal else Console(highlight=False, width=_WIDTH)


def age_text(seconds: float | None) -> str:
    """Return ``8s``, ``3m``, ``5h`` or ``2d``; a dash when there is no age."""
    if seconds is None:
        return "-"
    whole = max(int(seconds), 0)
    for length, unit in _STEPS:
        if whole >= length:
            return f"{whole // length}{unit}"
    return f"{whole}s"


def names_table(status: Mapping[str, Any]) -> Table:
    """Return names, addresses, age and source of the status document of `/api/v1/status`."""
    table = Table(header_style="bold", box=SIMPLE_HEAD, padding=(0, 1, 0, 0), pad_edge=False)
    table.add_column("name", overflow="fold")
    table.add_column("role", no_wrap=True)
    table.add_column("addresses", overflow="fold", min_width=_IPV4_WIDTH)
    table.add_column("age", justify="right", no_wrap=True)
    table.add_column("source", no_wrap=True)
    table.add_column("status", no_wrap=True)
    for entry in status["names"]:
        state = str(entry["status"])
        addresses = ", ".join(entry["addresses"]) or "-"
        if entry.get("cname"):
            addresses = f"{str(entry['cname']).removesuffix('.')} → {addresses}"
        table.add_row(
            str(entry["name"]).removesuffix("."),
            str(entry["role"]),
            addresses,
            age_text(entry["age"]),
            str(entry["source"] or "-"),
            Text(state, style=_STYLES.get(state, "")),
        )
    return table


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


def routes_table(plan: Plan) -> Table:
    """Return the entries of a route plan, with what each is for."""
    table = Table(header_style="bold", box=SIMPLE_HEAD, padding=(0, 1, 0, 0), pad_edge=False)
    table.add_column("destination", no_wrap=True)
    table.add_column("role", overflow="fold")
    table.add_column("names", overflow="fold")
    table.add_column("addresses", overflow="fold", min_width=_IPV4_WIDTH)
    table.add_column("routed", no_wrap=True)
    for route in plan.routes:
        table.add_row(
            str(route.destination),
            ", ".join(route.roles),
            ", ".join(name.removesuffix(".") for name in route.names),
            ", ".join(route.addresses) or "-",
            Text("yes", style="green") if route.covered else Text("MISSING", style="bold red"),
        )
    return table


def findings_table(findings: Iterable[Finding]) -> Table:
    """Return the hops of an examination in order; what to do stands below what was seen."""
    table = Table(header_style="bold", box=SIMPLE_HEAD, padding=(0, 1, 0, 0), pad_edge=False)
    table.add_column("hop", no_wrap=True)
    table.add_column("subject", overflow="fold")
    table.add_column("result", no_wrap=True)
    table.add_column("seen", overflow="fold")
    for finding in findings:
        seen = Text(finding.seen)
        if finding.failed and finding.advice:
            seen.append(f"\n→ {finding.advice}", style="bold")
        table.add_row(
            finding.hop,
            Text(finding.subject),
            Text(finding.result.value, style=_RESULTS[finding.result]),
            seen,
        )
    return table
