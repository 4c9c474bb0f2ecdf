from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from bench import interleaved
from bench.interleaved import chosen, compare, report
from bench.servers import Site
from bench.stats import Sample
from dnsproxy import config


def sample(server: str, number: int, cpu_us: float, lost: int = 0) -> Sample:
    return Sample(server, "mix", number, 100, lost, 1.0, cpu_us, 0.5, 0.5)


SAMPLES = [
    *(sample("one", 0, 10.0), sample("two", 0, 9.0)),
    *(sample("two", 1, 22.0, lost=3), sample("one", 1, 20.0)),
    *(sample("one", 2, 10.0), sample("two", 2, 10.0)),
]


def test_ratios_are_of_the_same_round() -> None:
    found = compare(SAMPLES, "two", "one")
    assert (found.median, found.mean) == pytest.approx((1.0, 1.0))
    # The standard deviation of 0.9, 1.1 and 1.0 is 0.1.
    assert found.error == pytest.approx(0.1 / 3**0.5)


def test_the_report_has_each_server_beside_those_before_it() -> None:
    assert report(SAMPLES, ["one", "two"]).splitlines() == [
        "one           13.33 µs/query, lost 0",
        "two           13.67 µs/query, lost 3",
        "    / one          1.000 (mean 1.000 ± 0.058)",
    ]


def test_a_build_is_taken_from_its_folder(tmp_path: Path) -> None:
    (tmp_path / "dnsproxy").mkdir()
    server = chosen(f"old={tmp_path}")
    command = server.command(Site(tmp_path, 1, 2, 3))
    assert server.name == "old"
    assert command[:2] == ["env", f"PYTHONPATH={tmp_path}"]
    assert "dnsproxy" in command
    assert chosen("unbound").command(Site(tmp_path, 1, 2, 3))[0] == "unbound"


def test_negative_answers_last_as_long_as_the_others(tmp_path: Path) -> None:
    (text,) = chosen("dnsproxy").files(Site(tmp_path, 1, 2, 3)).values()
    (tmp_path / "config.yaml").write_text(text)
    cache = config.load(tmp_path / "config.yaml").cache
    assert cache.negative_ttl == cache.max_ttl == 3600


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        (["mix", "bind10"], "bind10: not one of dnsproxy, unbound"),
        (["mix", "old=/nowhere"], "/nowhere: there is no package dnsproxy in it"),
        (["mix", "/old=/new"], "/old: not a label"),
        (["mix", "..=/new"], "..: not a label"),
        (["mix", "=/new"], ": not a label"),
        (["mix", "backend=/new"], "backend: not a label"),
        (["mix", "unbound", "unbound"], "another name for each server"),
        (["mix", "--rounds", "1"], "at least 2 rounds"),
        (["latency20"], "invalid choice"),
    ],
)
def test_mistakes_are_told(arguments: list[str], complaint: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as exit_:
        interleaved.main(arguments)
    assert exit_.value.code == 2
    assert complaint in capsys.readouterr().err


def test_what_is_missing_is_told(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(shutil, "which", lambda name: None if name == "unbound" else name)
    assert interleaved.main(["mix"]) == 2
    assert capsys.readouterr().err == "missing: unbound\n"
