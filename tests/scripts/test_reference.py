from __future__ import annotations

from pathlib import Path

import pytest

from dnsproxy.events import EVENTS
from scripts import reference


@pytest.mark.parametrize("name", reference.PAGES)
def test_the_page_is_up_to_date(name: str) -> None:
    held = (reference.FOLDER / name).read_text(encoding="utf-8")
    assert held == reference.PAGES[name](), "run: python -m scripts.reference"


def test_every_event_is_on_the_page_once() -> None:
    page = reference.log_events()
    assert [name for name in EVENTS if page.count(f"| `{name}` |") != 1] == []


def test_every_part_has_one_heading() -> None:
    headings = [line for line in reference.log_events().splitlines() if line.startswith("## ")]
    assert len(set(headings)) == len(headings)
    assert {name.partition(".")[0] for name in EVENTS} == set(reference._PARTS)


def test_a_limited_event_says_by_what() -> None:
    (line,) = [
        line for line in reference.log_events().splitlines() if line.startswith("| `learned.rejected` ")
    ]
    assert "Limited (`source`, `reason`)." in line


def test_a_metric_has_the_name_that_is_scraped_its_type_and_labels() -> None:
    page = reference.metrics()
    assert "| `dnsproxy_responses_total` | counter | `rcode`, `source` | Responses sent. |" in page
    assert "| `dnsproxy_request_duration_seconds` | histogram |  |" in page
    assert "| `dnsproxy_build_info` | info | `python`, `version` |" in page


def test_a_cell_keeps_its_bars() -> None:
    assert reference.table(["a"], [["x | y"]]) == "| a |\n| --- |\n| x \\| y |\n"


def test_check_tells_of_a_stale_page_and_writes_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(reference, "FOLDER", tmp_path)
    assert reference.main([]) == 0
    assert reference.main(["--check"]) == 0
    (tmp_path / "metrics.md").write_text("old", encoding="utf-8")
    assert reference.main(["--check"]) == 1
    assert "metrics.md: not up to date" in capsys.readouterr().err
    assert (tmp_path / "metrics.md").read_text(encoding="utf-8") == "old"
