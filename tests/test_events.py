"""What the register says of itself; ``tests/test_layout.py`` compares it with the source."""

from __future__ import annotations

import re

import pytest

from dnsproxy import logs
from dnsproxy.eventfields import FIELDS
from dnsproxy.events import EVENTS, Event


@pytest.mark.parametrize("name", EVENTS)
def test_an_event_is_told_in_full(name: str) -> None:
    event = EVENTS[name]
    assert re.fullmatch(r"[a-z]+\.[a-z]+(_[a-z]+)*", name)
    assert event.level in logs.LEVELS
    assert event.meaning.endswith(".")
    assert set(event.fields) <= set(FIELDS)
    assert len(set(event.fields)) == len(event.fields)
    assert set(event.per or ()) <= set(event.fields)


def test_what_happens_once_for_each_change_is_never_limited() -> None:
    changes = ("started", "stopped", "ended", "swapped", "in_service", "orders", "up", "down", "recovered")
    limited = [name for name, event in EVENTS.items() if event.per is not None]
    assert limited
    assert [name for name in limited if re.split(r"[._]", name)[-1] in changes] == []


def test_an_event_without_a_limit_is_the_default() -> None:
    assert Event("info", "It happened.").per is None
