"""What the register says of itself; ``tests/test_layout.py`` compares it with the source."""

from __future__ import annotations

import re

import pytest

from dnsproxy import logs
from dnsproxy.events import COMMON, EVENTS, FIELDS, Event


@pytest.mark.parametrize("name", EVENTS)
def test_an_event_is_told_in_full(name: str) -> None:
    event = EVENTS[name]
    assert re.fullmatch(r"[a-z]+\.[a-z]+(_[a-z]+)*", name)
    assert event.level in logs.LEVELS
    assert event.meaning.endswith(".")
    assert set(event.fields) <= set(FIELDS)
    assert len(set(event.fields)) == len(event.fields)
    assert set(event.per or ()) <= set(event.fields)


def test_every_field_is_of_some_event() -> None:
    used = {field for event in EVENTS.values() for field in event.fields}
    assert set(FIELDS) - used == set()


def test_no_field_is_taken_for_one_of_every_line() -> None:
    # A worker that logs, and a worker that is told of, are both numbers of workers.
    assert set(FIELDS) & set(COMMON) == {"worker"}


def test_what_happens_once_for_each_change_is_never_limited() -> None:
    changes = ("started", "stopped", "ended", "swapped", "in_service", "orders", "up", "down", "recovered")
    limited = [name for name, event in EVENTS.items() if event.per is not None]
    assert limited
    assert [name for name in limited if re.split(r"[._]", name)[-1] in changes] == []


def test_an_event_without_a_limit_is_the_default() -> None:
    assert Event("info", "It happened.").per is None
