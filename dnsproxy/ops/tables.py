"""The tables that `status` and `demo` show."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from rich.table import Table
from rich.text import Text

_STYLES = {"ok": "green", "pinned": "cyan", "stale": "yellow", "missing": "bold red"}
_STEPS = ((86_400.0, "d"), (3_600.0, "h"), (60.0, "m"))


def age_text(seconds: float | None) -> str:
    """Return ``8s``, ``3m``, ``5h`` or ``2d``; a dash when there is no age."""
    if seconds is None:
        return "-"
    for length, unit in _STEPS:
        if seconds >= length:
            return f"{seconds / length:.0f}{unit}"
    return f"{max(seconds, 0):.0f}s"


def names_table(status: Mapping[str, Any]) -> Table:
    """Return names, addresses, age and source of the status document of `/api/v1/status`."""
    table = Table(title=None, header_style="bold", expand=False)
    table.add_column("name", overflow="fold")
    table.add_column("role")
    table.add_column("addresses", overflow="fold")
    table.add_column("age", justify="right")
    table.add_column("source")
    table.add_column("status")
    for entry in status["names"]:
        state = str(entry["status"])
        addresses = ", ".join(entry["addresses"]) or "-"
        if entry.get("cname"):
            addresses = f"{entry['cname']} → {addresses}"
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
    table = Table(header_style="bold")
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
