"""What `dnsproxy fleet` shows: a table of those that are not well, a summary, or JSON."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from typing import Any

from rich.box import SIMPLE_HEAD
from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from dnsproxy.core.standings import UNWELL, Judged, Row, State
from dnsproxy.ops.fitting import Fitting, Item
from dnsproxy.ops.tables import age_text

_STYLES = {
    **dict.fromkeys(UNWELL, "bold red"),
    **dict.fromkeys((State.FAILING, State.BEHIND, State.DRAINING), "yellow"),
    State.OK: "green",
}
# Issuers that have columns of their own; more would leave no room.
_ISSUERS = 3
# Columns of a reason that can still be read.
_ERROR_WIDTH = 32


def fleet_report(judged: Judged, *, show_all: bool = False) -> Group:
    """Return the table and the summary; those that are well are counted only, unless ``show_all``."""
    shown = [row for row in judged.rows if show_all or row.state is not State.OK]
    parts: list[RenderableType] = []
    if shown:
        parts.append(_table(judged, shown))
    folded = len(judged.rows) - len(shown)
    if folded:
        more = "more " if shown else ""
        parts.append(
            Text(f"{folded} {more}{'is' if folded == 1 else 'are'} well; --all shows all", style="dim")
        )
    parts.append(Text("\n").join(map(Text, _summary(judged))))
    return Group(*parts)


def _table(judged: Judged, rows: Sequence[Row]) -> Fitting:
    issuers = list(judged.newest)[:_ISSUERS]
    table = Table(header_style="bold", box=SIMPLE_HEAD, padding=(0, 1, 0, 0), pad_edge=False)
    for column in ("proxy", "state", "version"):
        table.add_column(column, no_wrap=True)
    for issuer in issuers:
        table.add_column(f"serial of {issuer}" if len(judged.newest) > 1 else "serial", no_wrap=True)
    for column in ("lag", "age"):
        table.add_column(column, justify="right", no_wrap=True)
    table.add_column("last error", overflow="fold", min_width=_ERROR_WIDTH)
    for row in rows:
        standing = row.standing
        table.add_row(
            _name(row),
            _state(row),
            standing.version or "-",
            *(_serial(row, issuer) for issuer in issuers),
            lag_text(row.lag),
            age_text(standing.age),
            Text(standing.silence or standing.last_error or ""),
        )
    return Fitting(table, map(_item, rows))


def _item(row: Row) -> Item:
    standing = row.standing
    facts = f"{standing.version or '-'}, lag {lag_text(row.lag)}, age {age_text(standing.age)}"
    lines = [Text(text) for text in (facts, standing.silence or standing.last_error) if text]
    return Item(Text.assemble(_name(row), "  ", _state(row)), lines)


def _name(row: Row) -> Text:
    standing = row.standing
    host = standing.endpoint.removeprefix("http://").removeprefix("https://")
    return Text(f"{standing.proxy} ({host})" if standing.proxy else host)


def _state(row: Row) -> Text:
    return Text(_word(row.state), style=_STYLES[row.state])


def _word(state: State) -> str:
    return state.value.replace("_", " ")


def _serial(row: Row, issuer: str) -> Text:
    serial = row.standing.serials.get(issuer)
    return Text("-") if serial is None else Text(str(serial), style="yellow" if issuer in row.behind else "")


def lag_text(seconds: float | None) -> str:
    """Return a lag as `age_text` does; 0 and unknown lags as words."""
    if seconds is None:
        return "-"
    if math.isinf(seconds):
        return "behind"
    return "0" if not seconds else f"{seconds:.1f}s" if seconds < 10 else age_text(seconds)


def _summary(judged: Judged) -> list[str]:
    total = len(judged.rows)
    share = f" ({judged.converged / total:.1%})" if total else ""
    lines = [f"{judged.converged} of {total} proxies have the newest of each helper{share}"]
    for issuer, serial in judged.newest.items():
        lines.append(f"newest of {issuer}: {serial}")
    oldest = judged.oldest
    if oldest is not None:
        lines.append(f"oldest: {oldest.standing.name}, unconfirmed for {age_text(oldest.standing.age)}")
    silent = [row for row in judged.rows if row.state is State.SILENT]
    if silent:
        lines.append(f"silent: {len(silent)}")
    median, slowest = judged.convergence(0.5), judged.convergence(0.99)
    if median is not None and slowest is not None:
        spread = f"p50 {_seconds(median)}, p99 {_seconds(slowest)}"
        lines.append(f"convergence: {spread} over {judged.changes:.0f} changes since the proxies' starts")
    return lines


def shortcoming(judged: Judged) -> str:
    """Return in one line why a fleet is not healthy: how many of its proxies are in which state."""
    total = len(judged.rows)
    counts = Counter(row.state for row in judged.rows)
    states = [f"{counts[state]} {_word(state)}" for state in State if state in UNWELL and counts[state]]
    return f"of {total} proxies: {', '.join(states)}" if states else "there are no proxies"


def _seconds(value: float) -> str:
    return "beyond the last bucket" if math.isinf(value) else f"{value:.2f} s"


def fleet_document(judged: Judged, wall_now: float) -> dict[str, Any]:
    """Return the same for a machine. Times in seconds; what is unbounded or unknown is null."""
    oldest = judged.oldest
    total = len(judged.rows)
    return {
        "now": wall_now,
        "well": judged.is_well,
        "total": total,
        "converged": judged.converged,
        "share": judged.converged / total if total else None,
        "newest": dict(judged.newest),
        "oldest": None if oldest is None else {"proxy": oldest.standing.name, "age": oldest.standing.age},
        "convergence": {
            "changes": judged.changes,
            "p50": _finite(judged.convergence(0.5)),
            "p99": _finite(judged.convergence(0.99)),
        },
        "proxies": [_row_document(row) for row in judged.rows],
    }


def _row_document(row: Row) -> dict[str, Any]:
    standing = row.standing
    return {
        "endpoint": standing.endpoint,
        "proxy": standing.proxy or None,
        "state": row.state.value,
        "version": standing.version or None,
        "ready": standing.ready,
        "draining": standing.draining,
        "serials": dict(standing.serials),
        "behind": list(row.behind),
        "lag": _finite(row.lag),
        "age": standing.age,
        "last_error": standing.silence or standing.last_error,
    }


def _finite(value: float | None) -> float | None:
    return value if value is not None and math.isfinite(value) else None
