"""Makes sequences for real processes, from a seed, and keeps them as JSON."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from tests.model.child import STEPS
from tests.model.processes import ProcessStory
from tests.model.sequences import (
    TRIALS,
    Choice,
    Features,
    SeededChoice,
    chance,
    make_configuration,
    make_event,
    make_features,
    part,
)
from tests.model.shrink import as_json
from tests.model.surroundings import KINDS
from tests.model.world import KEYS, Configuration, Event, configuration_of

ALWAYS = ("snapshot", "reach")
SOMETIMES = ("time", "clock", "restart", "reload", "pin", "unpin", "freeze", "unfreeze", "rollback")
KILLS = ("kill", "kill_at_write")
WEIGHTS = {"snapshot": 4, "reach": 4, "time": 2, "kill_at_write": 3, "kill": 2}
# What a kill may interrupt; more often what changes the state.
INTERRUPTED = ("snapshot", "snapshot", "reach", "pin", "unpin", "freeze", "unfreeze", "rollback", "reload")
OTHER_SECTIONS = ("forward", "ttl", "admin")
# Seconds that a snapshot lasts at least: longer than an event takes.
SHORTEST = 120
# What a test can have addresses do.
OUTCOMES = ("answered", "answered", "failed", "failed", "no_route")


def make_process_story(seed: str) -> ProcessStory:
    choice = SeededChoice(seed)
    configuration = make_configuration(choice)
    features = make_features(choice, configuration)
    optional = SOMETIMES + (TRIALS if configuration.canary else ())
    kinds = (*ALWAYS, *part(choice, optional, 50), *part(choice, KILLS, 60))
    weighted = tuple(kind for kind in kinds for _ in range(WEIGHTS.get(kind, 1)))
    events = [_event("snapshot", choice, features)]
    events += [_event(choice.pick(weighted), choice, features) for _ in range(choice.pick((5, 7, 9, 11)))]
    return ProcessStory(
        configuration,
        one_key_at_a_time(configuration, events),
        workers=choice.pick((1, 2)),
        kinds=choice.pick((KINDS, (KINDS[1], KINDS[2], KINDS[0]), (KINDS[2], KINDS[0], KINDS[1]))),
    )


def _event(kind: str, choice: Choice, features: Features, *, within: bool = False) -> Event:
    if kind == "kill":
        during = _event(choice.pick(INTERRUPTED), choice, features, within=True)
        return {"do": kind, "during": during, "after": choice.pick((0.0, 0.005, 0.03, 0.1, 0.4))}
    if kind == "kill_at_write":
        during = _event(choice.pick(INTERRUPTED), choice, features, within=True)
        return {
            "do": kind,
            "during": during,
            "write": choice.pick((1, 1, 1, 2, 3)),
            "step": choice.pick(STEPS),
        }
    if kind == "restart":
        return {"do": kind}  # another configuration is taken by a reload
    event = make_event(kind, choice, features)
    if kind == "snapshot" and "lifetime" in event:
        event["lifetime"] = max(SHORTEST, event["lifetime"])
    elif kind == "reach":
        event["outcome"] = choice.pick(OUTCOMES)
    elif kind == "reload":
        event["others"] = [each for each in OTHER_SECTIONS if chance(choice, 30)]
        if not within and chance(choice, 30):
            event["moved"] = True
    return event


def one_key_at_a_time(configuration: Configuration, events: list[Event]) -> list[Event]:
    """Let no reload trust several keys at once, or none: the order of what follows would not be defined."""
    keys = dict(configuration.keys)
    for event in events:
        reload = event.get("during", event)
        if reload["do"] == "reload" and "keys" in reload:
            wanted = reload["keys"] or {KEYS[0]: None}
            new = [key for key in wanted if key not in keys]
            keys = {key: scope for key, scope in wanted.items() if key not in new[1:]}
            reload["keys"] = keys
    return events


def to_json(story: ProcessStory, note: str) -> dict[str, Any]:
    data = as_json(story, note)
    return {**data, "workers": story.workers, "kinds": list(story.kinds)}


def from_json(data: dict[str, Any]) -> ProcessStory:
    """Return a sequence, also one for the state machine."""
    kinds: Any = tuple(data.get("kinds", KINDS))
    return ProcessStory(
        configuration_of(data["configuration"]), data["events"], data.get("workers", 1), kinds
    )


def save(story: ProcessStory, note: str, path: Path) -> None:
    path.write_text(json.dumps(to_json(story, note), indent=2) + "\n", encoding="utf-8")


def load(path: Path) -> ProcessStory:
    return from_json(json.loads(path.read_text(encoding="utf-8")))
