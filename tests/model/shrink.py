"""Makes a failing sequence short: fewer events, then simpler ones (delta debugging)."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import asdict, fields, replace
from typing import Any

from tests.model.sequences import Story
from tests.model.world import Configuration, Event, MakeSubject, MismatchError, World


def failure(story: Story, make: MakeSubject) -> str | None:
    """What differs, or None. An exception in the subject is a failure too."""
    try:
        World(story.configuration, make).run(story.events)
    except MismatchError as error:
        return str(error)
    except Exception as error:  # noqa: BLE001 (whatever the subject raises)
        return f"{type(error).__name__}: {error}"
    return None


def shrink(story: Story, make: MakeSubject) -> Story:
    """The shortest failing sequence that removing and simplifying finds."""

    def fails(events: list[Event], configuration: Configuration | None = None) -> bool:
        return failure(Story(configuration or story.configuration, events), make) is not None

    while True:
        before = (len(story.events), str(story))
        story.events = _fewer(story.events, fails)
        for number in range(len(story.events)):
            story.events = _simpler(story.events, number, fails)
        for key in fields(Configuration):
            plain = replace(story.configuration, **{key.name: getattr(Configuration(), key.name)})
            if plain != story.configuration and fails(story.events, plain):
                story.configuration = plain
        if (len(story.events), str(story)) == before:
            return story


def _fewer(events: list[Event], fails: Callable[[list[Event]], bool]) -> list[Event]:
    size = max(1, len(events) // 2)
    while True:
        start = len(events)
        while start > 0:
            start = max(0, start - size)
            shorter = events[:start] + events[start + size :]
            if len(shorter) < len(events) and fails(shorter):
                events = shorter
        if size == 1:
            return events
        size //= 2


def _simpler(events: list[Event], number: int, fails: Callable[[list[Event]], bool]) -> list[Event]:
    """Take away parts of one event while the sequence fails."""
    found = True
    while found:
        found = False
        for smaller in _parts_less(events[number]):
            changed = [*events[:number], smaller, *events[number + 1 :]]
            if fails(changed):
                events, found = changed, True
                break
    return events


# What an event cannot do without.
REQUIRED = frozenset({"do", "helper", "names", "addresses", "seconds", "address", "outcome", "name", "back"})


def _parts_less(value: Any, key: str = "") -> Iterator[Any]:
    """The value without one of its parts, at any depth."""
    if isinstance(value, dict):
        for each, inner in value.items():
            if each not in REQUIRED:
                yield {k: v for k, v in value.items() if k != each}
            yield from ({**value, each: smaller} for smaller in _parts_less(inner, each))
    elif isinstance(value, list):
        for index, item in enumerate(value):
            if key != "addresses" or len(value) > 1:
                yield value[:index] + value[index + 1 :]
            yield from ([*value[:index], smaller, *value[index + 1 :]] for smaller in _parts_less(item))


def as_json(story: Story, note: str) -> dict[str, Any]:
    """What a file of tests/model/seeds/ holds."""
    default = asdict(Configuration())
    changed = {key: value for key, value in asdict(story.configuration).items() if value != default[key]}
    return {"note": note, "configuration": changed, "events": story.events}
