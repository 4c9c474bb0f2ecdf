"""Write the pages of docs/reference/ that are made from the source: log events and metrics.

    python -m scripts.reference           write them
    python -m scripts.reference --check   exit code 1 when one is not up to date

Each table is made from what the program itself goes by, so a page can be behind, never wrong.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path

from prometheus_client.metrics_core import Metric

from dnsproxy.admin.metrics import families
from dnsproxy.admin.status import Facts
from dnsproxy.core.addresses.table import ServedTable
from dnsproxy.core.querylog import FIELDS as QUERY_FIELDS
from dnsproxy.core.stats import Stats
from dnsproxy.eventfields import COMMON, FIELDS
from dnsproxy.events import EVENTS, Event

FOLDER = Path(__file__).resolve().parents[1] / "docs" / "reference"
# What the text format of Prometheus puts behind a name.
_SUFFIXES = {"counter": "_total", "info": "_info"}
_MADE = "<!-- Made by `python -m scripts.reference`; do not edit. -->"

_EVENTS_INTRO = """\
With `log.format: json`, or `auto` when standard error is no terminal, each event is one line: a JSON
object. `event` is a stable name; what varies is in the other fields, never in the name.
"""
_LIMITED = """\
What goes wrong again and again is logged once a minute: an event that is *limited* is logged at once unless
it was within the last minute with the same values of the fields in brackets. Those left out are counted, and
told in `repeated` when the minute is over.
"""
_QUERIES_INTRO = """\
With `log.queries`, which is off by default, each query is one line, a JSON object with these fields; those
that do not apply are left out. A query that gave way to newer ones while it waited for an upstream is
counted in `dnsproxy_drops_total` and not logged. Lines that could not be written in time are counted in
`dnsproxy_log_records_lost_total{log="queries"}`.
"""
_METRICS_INTRO = """\
`GET /metrics` of the admin endpoint gives them in the text format of Prometheus. With several workers
each is that of all of them together. A histogram has `_bucket`, `_sum` and `_count`.
"""
_PARTS = {
    "program": "Both daemons",
    "task": "Background tasks",
    "config": "Reload",
    "resolvers": "Resolvers of the system",
    "host": "The host",
    "service": "Root, and the service manager",
    "proxy": "The proxy",
    "admin": "The admin endpoint",
    "http": "HTTP endpoints",
    "learned": "Learned addresses",
    "canary": "New addresses on trial",
    "upstream": "Upstreams",
    "tls": "Encrypted DNS",
    "log": "Logs",
    "workers": "Workers",
    "worker": "Workers, each",
    "helper": "The helper",
}


def table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Return a Markdown table."""
    lines = [head, ["---"] * len(head), *rows]
    return "".join(f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in line)} |\n" for line in lines)


def code(words: Iterable[str]) -> str:
    """Return ``words`` as code, one beside the other."""
    return ", ".join(f"`{word}`" for word in words)


def log_events() -> str:
    """Return the page of log events."""
    parts = [
        f"# Log events\n\n{_MADE}\n",
        _EVENTS_INTRO,
        table(["field of every line", "meaning"], ([code([key]), text] for key, text in COMMON.items())),
        _LIMITED,
    ]
    for part in dict.fromkeys([*_PARTS, *map(_part, EVENTS)]):
        rows = [_row(name) for name in EVENTS if _part(name) == part]
        parts.append(f"## {_PARTS.get(part, part.capitalize())}\n")
        parts.append(table(["event", "level", "meaning", "fields"], rows))
    parts.append("## Fields\n")
    parts.append(table(["field", "meaning"], ([code([key]), FIELDS[key]] for key in sorted(FIELDS))))
    parts.append(f"## The query log\n\n{_QUERIES_INTRO}")
    parts.append(table(["field", "meaning"], ([code([key]), text] for key, text in QUERY_FIELDS.items())))
    return "\n".join(parts)


def _part(name: str) -> str:
    return name.partition(".")[0]


def _row(name: str) -> list[str]:
    event: Event = EVENTS[name]
    limited = "" if event.per is None else f" Limited ({code(event.per) or 'as a whole'})."
    return [code([name]), event.level, event.meaning + limited, code(event.fields)]


def metrics() -> str:
    """Return the page of metrics."""
    nothing = Facts(
        wanted=(),
        table=ServedTable(),
        sources=(),
        rejected={},
        stats=Stats(),
        upstreams={},
        cache_entries=0,
        in_flight=0,
        wall_now=0.0,
        started_at=0.0,
        draining=False,
    )
    rows = (
        [code([_exposed(one)]), one.type, code(_labels(one)), one.documentation] for one in families(nothing)
    )
    return "\n".join(
        [
            f"# Metrics\n\n{_MADE}\n",
            _METRICS_INTRO,
            table(["metric", "type", "labels", "meaning"], rows),
        ]
    )


def _exposed(metric: Metric) -> str:
    return metric.name + _SUFFIXES.get(metric.type, "")


def _labels(metric: Metric) -> tuple[str, ...]:
    if metric.type == "info":
        return tuple(sorted(metric.samples[0].labels))
    return tuple(metric._labelnames)  # type: ignore[attr-defined]  # noqa: SLF001 - a family without samples tells them nowhere else


PAGES = {"log-events.md": log_events, "metrics.md": metrics}


def main(arguments: Sequence[str]) -> int:
    """Write or check the pages; return the exit code."""
    parser = argparse.ArgumentParser(prog="python -m scripts.reference", description=__doc__)
    parser.add_argument("--check", action="store_true", help="write nothing; tell what is not up to date")
    options = parser.parse_args(arguments)
    FOLDER.mkdir(parents=True, exist_ok=True)
    stale = False
    for name, make in PAGES.items():
        path, text = FOLDER / name, make()
        if path.is_file() and path.read_text(encoding="utf-8") == text:
            continue
        stale = True
        if options.check:
            sys.stderr.write(f"{path}: not up to date; run: python -m scripts.reference\n")
        else:
            path.write_text(text, encoding="utf-8")
    return int(stale and options.check)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
