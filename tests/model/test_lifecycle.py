"""The life cycle of learned addresses is the documented one: random sequences against the reference model.

5,000 sequences here, 100,000 in `make histories`.
"""

from __future__ import annotations

import pytest

from tests.model import machine
from tests.model.reference import Address, Answer, Held, Model, Outcome, Policy
from tests.model.run import failing, report, seeds
from tests.model.sequences import make_story
from tests.model.subject import SUBJECT, ModelSubject

SEQUENCES = 5000
PARTS = 10


@pytest.mark.parametrize("part", range(PARTS))
def test_random_sequences(part: int) -> None:
    size = SEQUENCES // PARTS
    failures = failing(seeds("test", part * size, size), SUBJECT)
    if failures:
        story, note = report(make_story(failures[0]), SUBJECT)
        pytest.fail(f"{len(failures)} of {size}; {note}\n{story}")


def test_sequences_that_hypothesis_draws() -> None:
    story = machine.first_failure(SUBJECT, 300)
    if story is not None:
        story, note = report(story, SUBJECT)
        pytest.fail(f"{note}\n{story}")


# --- the driver finds what it is for, and makes it short


class AdoptsWithoutProof(Model):
    """A changed set becomes the proven set although none of its addresses has answered."""

    def _rule_4_change(self, name: str) -> None:
        candidate = self._candidate(name)
        if candidate is not None and not self._held_back(name, candidate):
            self._prove(name, candidate)


class RestartForgetsTheOwner(Model):
    def restart(self, now: float) -> None:
        for state in self.names.values():
            state.owner = None
        super().restart(now)


class ReloadRevivesTheDead(Model):
    def reload(self, policy: Policy, now: float) -> None:
        for state in self.addresses.values():
            state.life, state.failures = "alive", 0
        super().reload(policy, now)


class OnlyTheOwnerConfirms(Model):
    def _confirmed(self, name: str, held: Held) -> Held:
        owned = self._usable(name).get(self.names[name].owner or "")
        same = [owned.confirmation] if owned and owned.set == held.set else []
        return held._replace(confirmation=max([held.confirmation, *same]))


class UnfreezePromotes(Model):
    """A candidate that a freeze held back becomes the proven set without the rest of its trial."""

    def unfreeze(self, now: float) -> None:
        super().unfreeze(now)
        for name in self.names:
            self.promote(name, now)


class FreezeKeepsNothing(Model):
    """A freeze blocks the first set of a name."""

    def _keep_first(self, name: str, kept: dict[str, Held]) -> None:
        """Keep nothing."""

    def answer(self, name: str) -> Answer | str:
        missing = self.kept is not None and name in self.names and name not in {*self.kept, *self.pinned}
        return "not ready" if missing else super().answer(name)


class TwoRecordsShareASerial(Model):
    def _record(self, serial: int) -> None:
        count = len(self.records)
        super()._record(serial)
        if len(self.records) > count:
            self.records[-1].serial = serial


class NoRouteIsNoFailure(Model):
    def _result(self, state: Address, outcome: Outcome) -> None:
        if outcome != "no_route":
            super()._result(state, outcome)


BUGS: dict[type[Model], int] = {
    AdoptsWithoutProof: 5,
    RestartForgetsTheOwner: 5,
    ReloadRevivesTheDead: 6,
    OnlyTheOwnerConfirms: 5,
    UnfreezePromotes: 6,
    FreezeKeepsNothing: 4,
    TwoRecordsShareASerial: 4,
    NoRouteIsNoFailure: 6,
}


def subject_with(bug: type[Model]) -> type[ModelSubject]:
    return type(bug.__name__, (ModelSubject,), {"model_class": bug})


@pytest.mark.parametrize("bug", BUGS, ids=lambda bug: bug.__name__)
def test_an_injected_bug_is_found_and_made_short(bug: type[Model]) -> None:
    make = subject_with(bug)
    found = failing(seeds("bug", 0, 150), make)
    assert found
    story, note = report(make_story(found[0]), make)
    assert len(story.events) <= BUGS[bug], (note, story)


def test_hypothesis_finds_an_injected_bug() -> None:
    make = subject_with(AdoptsWithoutProof)
    story = machine.first_failure(make, 300)
    assert story is not None
    story, note = report(story, make)
    assert len(story.events) <= BUGS[AdoptsWithoutProof], (note, story)
