"""The model itself: what the sequences of seeds/ that have a required result end with."""

from __future__ import annotations

import pytest

from tests.model.replays import FOLDER, load
from tests.model.subject import ModelSubject
from tests.model.world import ADDRESSES, FOUND, PLAIN, World

A, B, *_ = ADDRESSES


def end_of(name: str) -> World:
    story = load(FOLDER / f"{name}.json")
    world = World(story.configuration, ModelSubject)
    world.run(story.events)
    return world


@pytest.mark.parametrize(
    ("sequence", "name", "addresses"),
    [
        ("required-01-owner-survives-restart", PLAIN, {A}),
        ("required-02-probes-after-reload", PLAIN, {B}),
        ("required-03-restart-with-dead-candidate", PLAIN, {A}),
        ("required-05-pin-freeze-unpin-unfreeze", PLAIN, {A}),
        ("required-06-confirmed-by-one", PLAIN, {A}),
        ("required-07-freeze-before-first-set", PLAIN, {A}),
        ("required-08-freeze-during-trial", PLAIN, {A, B}),
        ("required-09-rollback-to-dead", PLAIN, {B}),
        ("required-10-withdrawn-while-frozen", FOUND, {B}),
        ("required-11-age-while-frozen", PLAIN, {A}),
        ("required-12-two-records-one-serial", PLAIN, {A}),
        ("defined-key-removed", PLAIN, {B}),
        ("defined-both-dead-across-restart", PLAIN, {A}),
        ("defined-freeze-after-max-stale", PLAIN, {B}),
        ("defined-working-second-helper", PLAIN, {B}),
        ("defined-no-route", PLAIN, {A}),
    ],
)
def test_what_is_answered_in_the_end(sequence: str, name: str, addresses: set[str]) -> None:
    answer = end_of(sequence).model.answer(name)
    assert not isinstance(answer, str)
    assert answer.addresses == addresses
    assert not answer.stale


def test_the_age_while_frozen_is_that_of_the_last_confirmation() -> None:
    assert end_of("required-11-age-while-frozen").model.age(PLAIN) == pytest.approx(62, abs=1)


def test_a_trial_begins_again_after_a_freeze() -> None:
    story = load(FOLDER / "required-08-freeze-during-trial.json")
    world = World(story.configuration, ModelSubject)
    thawed = story.events.index({"do": "unfreeze"})
    world.run(story.events[: thawed + 4])
    assert world.model.trial(PLAIN) == "trial"
    world.run(story.events[thawed + 4 :])
    assert world.model.trial(PLAIN) is None


def test_no_two_records_share_a_serial() -> None:
    serials = [serial for serial, _ in end_of("required-12-two-records-one-serial").model.history()]
    assert len(serials) == len(set(serials)) == 2
