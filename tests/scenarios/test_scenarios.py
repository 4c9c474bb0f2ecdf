from __future__ import annotations

from pathlib import Path

import pytest

from dnsproxy.core import fairness
from tests.scenarios.replay import Replay, parse

SCENARIOS = sorted(Path(__file__).parent.glob("*.scenario"))


def test_there_are_scenarios() -> None:
    assert len(SCENARIOS) >= 8


@pytest.mark.parametrize("path", SCENARIOS, ids=lambda path: path.stem)
def test_scenario(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    Replay().run(parse(path), lambda count: monkeypatch.setattr(fairness, "MAX_WAITERS", count))


@pytest.mark.parametrize(
    "text",
    [
        "# x\nQUERY 1 www.example. A\n",
        "# x\nQUERY 1 www.example. A\nSENT one udp www.example. AAAA edns\n",
        "# x\nQUERY 1 www.example. A\nSENT nothing\n",
        "# x\nQUERY 1 www.example. A\nSENT one udp www.example. A edns\nELAPSE 0.9\n",
        "# x\nSWAP\n    www.example. 10.0.0.1\nQUERY 1 www.example. A\n",
        "# x\nSWAP\n    a. 10.0.0.1\nQUERY 1 a. A\nANSWER 1 NOERROR aa\n    a. 30 IN A 10.0.0.2\n",
    ],
    ids=["not named", "other type", "nothing", "past a deadline", "answer not named", "other answer"],
)
def test_a_scenario_that_does_not_come_true_fails(text: str, tmp_path: Path) -> None:
    path = tmp_path / "wrong.scenario"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(AssertionError, match="wrong.scenario:"):
        Replay().run(parse(path), lambda _count: None)
