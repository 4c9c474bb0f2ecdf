from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from dnsproxy.core.learned import LearnedName
from dnsproxy.helper.issue import next_snapshot, order

ENTRY = LearnedName("a.example.", "other", "r", ("10.0.0.1",), None, 60, 0, (), "ok")
CLOCK = st.floats(0, 4e9)


@given(CLOCK, st.lists(st.tuples(CLOCK, st.booleans()), max_size=5))
def test_whatever_the_clocks_say_each_document_follows_the_one_before(
    first: float, others: list[tuple[float, bool]]
) -> None:
    last = next_snapshot(None, "helper-a", (ENTRY,), first)
    for wall_now, begins in others:
        following = next_snapshot(last, "helper-a", (ENTRY,), wall_now, restarted=begins)
        assert order(following) >= order(last)
        assert following.serial > last.serial or not begins
        last = following
