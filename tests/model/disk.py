"""Which states a process may start with after SIGKILL: "What only confirms a set is written once a minute".

A `StoredModel` remembers its earlier states until it is certain that a later one is on disk. All else than
confirmations is on disk before it is answered or acknowledged, and each write has the whole state.
"""

from __future__ import annotations

import base64
import copy
import itertools
import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from tests.model.reference import Held, Model, Policy

# Serial and time of the last snapshot of each helper.
Snapshots = dict[str, tuple[int, int]]
# What is no part of the state of a model.
_NO_STATE = frozenset({"policy", "now", "answers", "earlier", "_last"})


class StoredModel(Model):
    """A model whose last state may not be on disk yet: ``earlier`` are those that may be in its place."""

    def __init__(self, policy: Policy) -> None:
        super().__init__(policy)
        self.earlier: list[StoredModel] = []
        self._last: StoredModel | None = None
        self.note()

    def _alone(self) -> StoredModel:
        """Return a copy without earlier states."""
        alone = copy.copy(self)
        vars(alone).update(copy.deepcopy({k: v for k, v in vars(self).items() if k not in _NO_STATE}))
        alone.earlier, alone._last = [], None
        return alone

    def fork(self) -> StoredModel:
        """Return a copy, which has the same earlier states."""
        copied = self._alone()
        copied.earlier, copied._last = list(self.earlier), self._last
        return copied

    def note(self) -> None:
        """Remember the state before an event that has changed it."""
        if self._last is None:
            self._last = self._alone()
        elif whole(self) != whole(self._last):
            self.earlier.append(self._last)
            self._last = self._alone()

    def _same(self) -> list[StoredModel]:
        """Return the earlier states that lack nothing but confirmations."""
        now = lasting(self)
        same = itertools.takewhile(lambda each: lasting(each) == now, reversed(self.earlier))
        return [*same][::-1]

    def agrees(self, snapshots: Snapshots) -> bool:
        """Whether a file with ``snapshots`` lacks nothing but confirmations."""
        return any(accepted(each) == snapshots for each in (self, *self._same()))

    def is_written(self) -> None:
        """Forget the states that lack more than confirmations: a later one is on disk."""
        self.earlier = self._same()

    def is_stopped(self) -> None:
        """Forget all earlier states: a process that ends by itself has written the last one."""
        self.earlier = []

    def survivors(self, snapshots: Snapshots) -> list[StoredModel]:
        """Return the states that may be on disk beside ``snapshots``, by the policy of this one."""
        found: list[StoredModel] = []
        for each in (self._alone(), *(state._alone() for state in self.earlier)):
            if accepted(each) != snapshots:
                continue
            each.note()
            if each.policy is not self.policy:
                each.reload(self.policy, self.now)
            found.append(each)
        return found


def distinct(models: Iterable[StoredModel]) -> list[StoredModel]:
    """Those of the models that have different states."""
    found: list[StoredModel] = []
    for model in models:
        if all(whole(model) != whole(other) for other in found):
            found.append(model)
    return found


def accepted(model: Model) -> Snapshots:
    """The last snapshots of a model, as `snapshots_of` has those of a file."""
    return {helper: (each.serial, int(each.issued_at)) for helper, each in model.latest.items()}


def snapshots_of(file: Path) -> Snapshots:
    """The last snapshots in the state of a proxy."""
    if not file.exists():
        return {}
    payloads = [_payload(token) for token in json.loads(file.read_bytes())["snapshots"]]
    return {each["iss"]: (each["serial"], each["iat"]) for each in payloads}


def _payload(token: str) -> Any:
    middle = token.split(".")[1]
    return json.loads(base64.urlsafe_b64decode(middle + "=" * (-len(middle) % 4)))


def lasting(model: Model) -> object:
    """Everything that outlasts SIGKILL: the state without confirmations."""
    names = {
        name: (
            {helper: (s.held.set, s.refused_sets) for helper, s in state.statements.items()},
            state.owner,
            state.proven and state.proven.set,
            state.refused,
            state.tried_since,
            state.answered,
        )
        for name, state in model.names.items()
    }
    records = [(record.serial, _sets(record.sets.items())) for record in model.records]
    kept = None if model.kept is None else _sets(model.kept.items())
    reports = {key: names for key, (_, names, _) in model.reports.items()}
    return names, records, kept, reports, model.pinned, _lives(model)


def whole(model: Model) -> object:
    """The state: everything that a model has but times, and results of probes, which no file has."""
    state = {key: value for key, value in vars(model).items() if key not in _NO_STATE}
    return {**state, "addresses": _lives(model)}


def _lives(model: Model) -> object:
    return {key: address.life for key, address in model.addresses.items()}


def _sets(held: Iterable[tuple[str, Held]]) -> object:
    return {name: each.set for name, each in held}
