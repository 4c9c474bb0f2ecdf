from __future__ import annotations

from pathlib import Path

from structlog.testing import capture_logs

from dnsproxy.core.learned import LearnedName
from dnsproxy.helper.journal import Journal
from dnsproxy.helper.observe import Look


def entry(status: str, *addresses: str) -> LearnedName:
    return LearnedName("a.example.", "other", "r", addresses, None, 60, 0, (), status)


def test_what_stays_broken_is_said_once() -> None:
    journal, good = Journal(), entry("ok", "10.0.0.1")
    failed = [Look("10.0.0.2:53", error="no answer")]
    with capture_logs() as logs:
        for _ in range(2):
            journal.record({"a.example.": good}, [entry("stale", "10.0.0.1")], [failed], 7)
        journal.record({"a.example.": good}, [good], [[Look("10.0.0.2:53", ("10.0.0.1",), 60)]], 8)
    assert [line["event"] for line in logs] == [
        "helper.resolve_failed",
        "helper.resolver_failed",
        "helper.resolved",
        "helper.resolver_recovered",
    ]


def test_the_publish_file() -> None:
    journal, path = Journal(), Path("/x")
    with capture_logs() as logs:
        for failure in ("full", "full", None, None):
            journal.record_write(path, failure)
    assert [line["event"] for line in logs] == ["helper.publish_file_failed", "helper.publish_file_written"]
