"""Makes sequences of events, from a seed or as Hypothesis draws them.

Every sequence enables a random part of the events, names, helpers and addresses ("swarm testing"): a sequence
that can do everything seldom does one thing long enough.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, TypeVar

from hypothesis import strategies as st

from tests.model.world import (
    ADDRESSES,
    ALIAS,
    FOUND,
    HELPERS,
    KEYS,
    NAMES,
    PUBLIC,
    REGISTRIES,
    TARGETS,
    Configuration,
    Event,
)

T = TypeVar("T")

ALWAYS = ("snapshot", "time", "probes")
SOMETIMES = ("reach", "clock", "restart", "reload", "pin", "unpin", "freeze", "unfreeze", "rollback")
TRIALS = ("promote", "refuse")  # with a canary
# How often a kind comes, beside one for each of the others.
WEIGHTS = {"snapshot": 5, "time": 4, "probes": 5, "reach": 3}
# Past intervals, the lead of an owner, the hold of a trial, the expiry of a snapshot, and `max_stale`.
STEPS = (1, 3, 31, 61, 77, 200, 611, 3700, 8000)
OUTCOMES = ("answered", "failed", "failed", "no_route", "host")


class Choice(Protocol):
    """Where choices come from."""

    def pick(self, options: Sequence[T]) -> T: ...


class SeededChoice:
    def __init__(self, seed: str) -> None:
        self._random = random.Random(seed)  # noqa: S311 (reproducible, no secret)

    def pick(self, options: Sequence[T]) -> T:
        return options[int(self._random.random() * len(options))]


class DrawnChoice:
    """Choices that Hypothesis makes, and shrinks towards the first option."""

    def __init__(self, draw: Callable[[Any], Any]) -> None:
        self._draw = draw

    def pick(self, options: Sequence[T]) -> T:
        found: T = self._draw(st.sampled_from(options))
        return found


def chance(choice: Choice, percent: int) -> bool:
    return choice.pick((*[False] * (100 - percent), *[True] * percent))


def part(choice: Choice, options: Sequence[T], percent: int = 50) -> list[T]:
    """Some of the options, at least one."""
    found = [option for option in options if chance(choice, percent)]
    return found or [choice.pick(options)]


@dataclass(frozen=True)
class Features:
    """What one sequence uses."""

    kinds: tuple[str, ...]
    names: tuple[str, ...]
    helpers: tuple[str, ...]
    addresses: tuple[str, ...]
    odd: bool  # odd snapshots too: old serials, other keys, old observations, short lives

    @property
    def weighted(self) -> tuple[str, ...]:
        return tuple(kind for kind in self.kinds for _ in range(WEIGHTS.get(kind, 1)))


def make_features(choice: Choice, configuration: Configuration) -> Features:
    optional = SOMETIMES + (TRIALS if configuration.canary else ())
    return Features(
        kinds=(*ALWAYS, *part(choice, optional, 40)),
        names=tuple(part(choice, NAMES, 40)),
        helpers=tuple(HELPERS[: choice.pick((1, 2, 2, 3))]),
        addresses=tuple(part(choice, ADDRESSES, 60)),
        odd=chance(choice, 30),
    )


def make_configuration(choice: Choice) -> Configuration:
    return Configuration(
        max_stale=choice.pick((None, None, 0, 1800)),
        history=choice.pick((10, 10, 3, 1, 0)),
        ports=not chance(choice, 5),
        accept=chance(choice, 15),
        canary=choice.pick((None, (600, 3), (600, 2))),
        group=choice.pick(((), NAMES)),
    )


# --- one event of each kind


def make_event(kind: str, choice: Choice, features: Features) -> Event:
    parameters = MAKERS[kind](choice, features) if kind in MAKERS else {}
    return {"do": kind, **parameters}


def _snapshot(choice: Choice, features: Features) -> Event:
    names = {name: _listed(choice, features, name) for name in part(choice, features.names, 70)}
    event: Event = {"helper": choice.pick(features.helpers), "names": names}
    if FOUND in features.names and not chance(choice, 20):
        event["found"] = [] if chance(choice, 15) else [FOUND]
    if features.odd:
        event["lifetime"] = choice.pick((3600, 3600, 300, 20))
        if chance(choice, 5):
            event["old"] = True
        if chance(choice, 5):
            event["key"] = choice.pick(KEYS)
    return event


def _listed(choice: Choice, features: Features, name: str) -> Event:
    size = choice.pick((1, 1, 1, 2, 2, 3))
    listed: Event = {"addresses": sorted({choice.pick(features.addresses) for _ in range(size)})}
    if name == ALIAS:
        listed["cname"] = choice.pick((*TARGETS[:1] * 4, *TARGETS, None))
    if features.odd and chance(choice, 10):
        listed["addresses"] = []
    if features.odd and chance(choice, 20):
        listed["ago"] = choice.pick((20, 70, 400))
    if chance(choice, 8):
        listed["refused"] = [listed["addresses"] if chance(choice, 60) else [choice.pick(features.addresses)]]
    return listed


def _reload(choice: Choice, _features: Features) -> Event:
    changes: dict[str, Callable[[], Any]] = {
        "names": lambda: [name for name in Configuration.names if not chance(choice, 30)],
        "discover": lambda: not chance(choice, 30),
        "keys": lambda: {
            key: choice.pick((None, None, None, *([registry] for registry in REGISTRIES)))
            for key in KEYS
            if not chance(choice, 30)
        },
        "refused": lambda: [PUBLIC, *(address for address in ADDRESSES if chance(choice, 15))],
        "max_stale": lambda: choice.pick((None, 0, 1800)),
        "history": lambda: choice.pick((10, 3, 1, 0)),
        "ports": lambda: not chance(choice, 30),
        "accept": lambda: chance(choice, 50),
        "canary": lambda: choice.pick((None, [600, 3], [60, 2])),
        "group": lambda: choice.pick(([], list(NAMES))),
    }
    return {key: changes[key]() for key in part(choice, tuple(changes), 15)}


MAKERS: dict[str, Callable[[Choice, Features], Event]] = {
    "snapshot": _snapshot,
    "time": lambda choice, _: {"seconds": choice.pick((*STEPS[:6], *STEPS))},
    "clock": lambda choice, _: {"seconds": choice.pick((-1, 1)) * choice.pick(STEPS)},
    "reach": lambda choice, features: {
        "address": choice.pick(features.addresses),
        "outcome": choice.pick(OUTCOMES),
    },
    "pin": lambda choice, features: {
        "name": choice.pick(features.names),
        "addresses": part(choice, features.addresses, 30),
    },
    "unpin": lambda choice, features: {"name": choice.pick(features.names)},
    "rollback": lambda choice, _: {"back": choice.pick((0, 1, 1, 2, 3))},
    "promote": lambda choice, features: {"name": choice.pick(features.names)},
    "refuse": lambda choice, features: {"name": choice.pick(features.names)},
    "restart": lambda choice, features: _reload(choice, features) if chance(choice, 30) else {},
    "reload": _reload,
}


# --- whole sequences


@dataclass
class Story:
    """A sequence of events and the configuration that it begins with."""

    configuration: Configuration
    events: list[Event]


def make_story(seed: str) -> Story:
    choice = SeededChoice(seed)
    configuration = make_configuration(choice)
    features = make_features(choice, configuration)
    length = choice.pick((10, 15, 20, 20, 25, 40))
    return Story(
        configuration,
        [make_event(choice.pick(features.weighted), choice, features) for _ in range(length)],
    )
