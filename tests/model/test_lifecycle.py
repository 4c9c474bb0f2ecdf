"""The life cycle of learned addresses is the documented one: random sequences against the reference model.

5,000 sequences here, 100,000 in `make histories`.
"""

from __future__ import annotations

import pytest

from dnsproxy.core.addresses.lifecycle import AddressLifecycle
from dnsproxy.core.addresses.state_file import encode
from tests.model import machine
from tests.model.reference import Address, Answer, Held, Model, Outcome, Policy
from tests.model.run import failing, report, seeds
from tests.model.sequences import make_story
from tests.model.subject import SUBJECT, LifecycleSubject, ModelSubject
from tests.model.world import Clock, Configuration

SEQUENCES = 5000
PARTS = 10
WATCHED = 500


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


# --- what has the file written


def without_ages(state: AddressLifecycle) -> object:
    """What a file has, but for confirmations: SIGKILL must lose none of it."""
    overrides = state.overrides
    names = {
        name: (
            {
                issuer: (s.statement.address_set, s.statement.learned.refused)
                for issuer, s in held.stated.items()
            },
            held.owner,
            held.proven and held.proven.address_set,
            held.trial,
            {address: health.alive for address, health in held.health.items()},
        )
        for name, held in state.names.items()
    }
    discovered = {key: discovery.found.names for key, discovery in state.discoveries.items()}
    kept = overrides.freeze and {name: held.address_set for name, held in overrides.freeze.sets.items()}
    history = [
        (record.serial, {name: held.address_set for name, held in record.sets.items()})
        for record in overrides.history
    ]
    return names, discovered, overrides.pins, kept, history


class WatchedSubject(LifecycleSubject):
    """Fails where an event changes what the file would have, and nothing has it written."""

    def __init__(self, configuration: Configuration, at: Clock) -> None:
        self._seen: tuple[AddressLifecycle, str, int, object, int] | None = None
        super().__init__(configuration, at)

    def _settle(self, at: Clock) -> None:
        super()._settle(at)
        state = self._machine
        text = "\n".join(encode(state))
        seen = state, text, state.revision, without_ages(state), state.urgent
        if self._seen is not None and self._seen[0] is state:
            _, old_text, revision, old, urgent = self._seen
            assert text == old_text or state.revision > revision, f"{old_text} → {text}"
            assert seen[3] == old or state.urgent > urgent, f"{old} → {seen[3]}"
        self._seen = seen


def test_whatever_changes_the_state_has_it_written() -> None:
    failures = failing(seeds("watched", 0, WATCHED), WatchedSubject)
    if failures:
        story, note = report(make_story(failures[0]), WatchedSubject)
        pytest.fail(f"{len(failures)} of {WATCHED}; {note}\n{story}")


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
