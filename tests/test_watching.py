from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from dnsproxy.core.stats import LEARNED, Stats
from dnsproxy.errors import StartError
from dnsproxy.settings import Settings
from dnsproxy.watching import open_watch
from tests.messages import CLIENT, REGISTRY, query, reply_to


def settings(**log: Any) -> Settings:
    return Settings.model_validate({"log": log})


async def write_one(given: Settings, worker: int | None = None) -> Stats:
    watch = open_watch(given, worker)
    assert watch is not None
    stats = Stats()
    watch.open(stats)
    seen = watch.begin("udp", CLIENT, 5353, query(REGISTRY), 1.0, 1000.0)
    assert seen is not None
    watch.end(seen, reply_to(query(REGISTRY)), LEARNED, 1.5)
    await watch.close()
    return stats


def test_nobody_is_told_by_default() -> None:
    assert open_watch(Settings()) is None
    assert open_watch(settings(queries=False)) is None


async def test_the_query_log_goes_by_its_settings(tmp_path: Path) -> None:
    file = tmp_path / "q"
    given = settings(queries={"file": str(file), "fields": ["client", "source"], "clients": "prefix"})
    stats = await write_one(given)
    assert file.read_text() == '{"client":"127.0.0.0/24","source":"learned"}\n'
    assert stats.records == {"queries": 1}


async def test_both_at_a_time_and_a_file_for_each_worker(tmp_path: Path) -> None:
    given = settings(
        queries={"file": str(tmp_path / "q")}, dnstap={"file": str(tmp_path / "tap"), "identity": "me"}
    )
    stats = await write_one(given, worker=2)
    assert stats.records == {"queries": 1, "dnstap": 2}
    # Lines of several workers may go to one file, streams may not.
    assert (tmp_path / "q").exists()
    assert not (tmp_path / "tap").exists()
    assert b"\x0a\x02me" in (tmp_path / "tap.2").read_bytes()


async def test_standard_output(capfdbinary: pytest.CaptureFixture[bytes]) -> None:
    await write_one(settings(queries=True))
    assert REGISTRY.encode() in capfdbinary.readouterr().out


def test_a_file_that_cannot_be_written(tmp_path: Path) -> None:
    for log in ("queries", "dnstap"):
        with pytest.raises(StartError, match=rf"log\.{log}\.file: cannot write"):
            open_watch(settings(**{log: {"file": str(tmp_path / "missing" / "x")}}))
