from __future__ import annotations

from bench.pauses import measure


def test_every_phase_is_answered_all_the_time() -> None:
    found = measure(names=20, workers=1, seconds=0.5)
    assert len(found) == 6
    # A query that was lost counts as a second.
    assert all(0.0 < longest[0] < 1.0 for longest in found.values()), found
