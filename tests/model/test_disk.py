"""What the model expects of SIGKILL: it loses confirmations that are not on disk, and nothing else."""

from __future__ import annotations

from tests.model.disk import StoredModel, accepted, distinct
from tests.model.reference import AddressSet, Listed, Snapshot
from tests.model.world import ADDRESSES, HELPERS, KEYS, PLAIN, START, Configuration

A, B, *_ = ADDRESSES


def publish(model: StoredModel, serial: int, address: str = A, now: float = START) -> None:
    listed = {PLAIN: Listed(AddressSet(frozenset({address})), int(now))}
    assert model.snapshot(Snapshot(HELPERS[0], KEYS[0], serial, int(now), int(now) + 3600, listed), now)
    model.note()


def restarted(model: StoredModel, serial: int, now: float) -> list[StoredModel]:
    """The states after SIGKILL, and a start at ``now``, beside the snapshot of ``serial``."""
    states = [model, *model.earlier]
    on_disk = next(found for each in states if (found := accepted(each))[HELPERS[0]][0] == serial)
    left = distinct(model.survivors(on_disk))
    for each in left:
        each.restart(now)
    return left


def confirmed() -> StoredModel:
    """A set that is on disk, and two confirmations of it that need not be."""
    model = StoredModel(Configuration().policy())
    publish(model, 1)
    model.is_written()
    assert model.earlier == []
    publish(model, 2, now=START + 10)
    publish(model, 3, now=START + 20)
    model.is_written()
    return model


def test_confirmations_that_are_not_on_disk_are_lost() -> None:
    for serial, age in ((1, 30.5), (2, 20.5), (3, 10.5)):
        (left,) = restarted(confirmed(), serial, START + 30)
        assert left.age(PLAIN) == age


def test_a_change_has_earlier_confirmations_written() -> None:
    model = confirmed()
    model.freeze(START + 25)
    model.note()
    assert {len(each.kept or ()) for each in restarted(model, 3, START + 30)} == {0, 1}
    assert restarted(model, 2, START + 30)[0].kept is None
    model.is_written()
    assert restarted(model, 3, START + 30)[0].kept
    assert model.survivors({HELPERS[0]: (2, int(START) + 10)}) == []


def test_a_file_may_lack_confirmations_but_no_change() -> None:
    model = confirmed()
    at = {serial: {HELPERS[0]: (serial, int(START) + 10 * (serial - 1))} for serial in (1, 2, 3)}
    assert all(map(model.agrees, at.values()))
    publish(model, 4, B, START + 30)
    assert not any(map(model.agrees, at.values()))
    assert model.agrees(accepted(model))


def test_a_stop_has_everything_written() -> None:
    model = confirmed()
    model.is_stopped()
    assert model.survivors({HELPERS[0]: (2, int(START) + 10)}) == []
    assert len(restarted(model, 3, START + 30)) == 1


def test_an_age_that_a_clock_step_changed_may_be_lost() -> None:
    model = confirmed()
    publish(model, 4, B, START + 20)
    model.is_written()
    for now in (START - 1000, START - 990):
        model.passes(now)
        model.note()
    assert model.age(PLAIN) == 10.5
    assert {each.age(PLAIN) for each in restarted(model, 4, START - 980)} == {0.5, 20.5}


def test_a_state_of_before_a_reload_follows_the_new_configuration() -> None:
    model = confirmed()
    model.reload(Configuration(names=()).policy(), START + 25)
    model.note()
    for each in restarted(model, 2, START + 30):
        assert each.managed() == frozenset()


def test_a_fork_has_the_same_earlier_states() -> None:
    model = confirmed()
    forked = model.fork()
    publish(forked, 4, B, START + 25)
    forked.is_written()
    assert forked.earlier == []
    assert len(model.earlier) == 2
    assert restarted(model.fork(), 1, START + 30)[0].age(PLAIN) == 30.5
