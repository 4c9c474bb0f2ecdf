from __future__ import annotations

from dnsproxy.eventfields import COMMON, FIELDS
from dnsproxy.events import EVENTS


def test_every_field_is_of_some_event() -> None:
    used = {field for event in EVENTS.values() for field in event.fields}
    assert set(FIELDS) - used == set()


def test_no_field_is_taken_for_one_of_every_line() -> None:
    # A worker that logs, and a worker that is told of, are both numbers of workers.
    assert set(FIELDS) & set(COMMON) == {"worker"}
