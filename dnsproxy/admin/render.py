"""The status page as HTML, made from the documents of the JSON API.

Imported when the page is first asked for: jinja2 takes 5 MB and 60 ms, which a proxy that
nobody looks at need not spend.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined

from dnsproxy.admin import wording
from dnsproxy.admin.charts import HEIGHT, Chart
from dnsproxy.admin.findings import Tone, addresses, concerns, problem
from dnsproxy.core.trend import MINUTES

Document = Mapping[str, Any]

# What does not fit is told by number: a page that lists a thousand troubles shows none.
MAX_CONCERNS = 12
MAX_CHANGES = 20

# What each source of an answer means, in the order in which a query meets them.
SOURCE_WORDS = {
    "learned": "names of the registries",
    "local": "special-use names",
    "cache": "cached, still fresh",
    "stale": "expired, upstreams failed",
    "forward": "asked of an upstream",
    "error": "SERVFAIL, REFUSED …",
}
_SIGNS = {Tone.BAD: "✕", Tone.WARN: "!", Tone.OK: "✓", Tone.NONE: "○"}


class Page:
    """The compiled template; ``build`` stands for the version of the files that go with it."""

    def __init__(self, build: str) -> None:
        self._build = build
        environment = Environment(
            loader=PackageLoader("dnsproxy.admin"),
            autoescape=True,
            undefined=StrictUndefined,
            trim_blocks=True,
            lstrip_blocks=True,
        )
        environment.filters |= {
            "span": wording.span,
            "count": wording.count,
            "counts": wording.counts,
            "rate": wording.rate,
            "ms": wording.milliseconds,
            "iso": wording.iso,
            "plain": wording.plain,
            "problem": problem,
        }
        environment.globals |= {
            "addresses": addresses,
            "share": wording.share,
            "clock": wording.clock,
            "signs": _SIGNS,
            "minutes": MINUTES,
            "height": HEIGHT,
            "dash": wording.DASH,
        }
        self._template = environment.get_template("page.html.jinja")

    def render(self, document: Document, history: Document) -> str:
        """Return the page for the documents of ``/api/v1/status`` and ``/api/v1/history``."""
        recent = document["recent"]
        found = concerns(document)
        changes = list(_changes(history))
        return self._template.render(
            build=self._build,
            s=document,
            now=document["now"],
            concerns=found[:MAX_CONCERNS],
            more_concerns=len(found) - len(found[:MAX_CONCERNS]),
            changes=changes[:MAX_CHANGES],
            more_changes=len(changes) - len(changes[:MAX_CHANGES]),
            queries=Chart.of("queries", recent["queries"]),
            answers=[
                (source, SOURCE_WORDS[source], Chart.of(f"answers from {source}", minutes))
                for source, minutes in recent["answers"].items()
            ],
            hits=sum(recent["cache_hits"]),
            misses=sum(recent["cache_misses"]),
            dropped=sum(recent["drops"]),
        )


def _changes(history: Document) -> Iterator[Document]:
    """Yield each change of a name, the newest first."""
    for record in history["history"]:
        for change in record["changes"]:
            yield {**change, "at": record["taken_at"], "serial": record["serial"], "issuer": record["issuer"]}
