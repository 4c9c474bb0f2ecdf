"""Subjects: what the driver compares with the reference model."""

from __future__ import annotations

from collections.abc import Iterable

from tests.model.reference import AddressSet, Answer, Life, Model, Outcome, Snapshot
from tests.model.world import INTERVAL, Clock, Configuration, MakeSubject


class ModelSubject:
    """The model as a subject: with an injected bug, a test of the driver; without one, a test of itself."""

    model_class: type[Model] = Model

    def __init__(self, configuration: Configuration, at: Clock) -> None:
        self.model = self.model_class(configuration.policy())
        self.model.now = at.wall
        self._probed_at: dict[tuple[str, str], float] = {}

    def snapshot(self, snapshot: Snapshot, at: Clock) -> bool:
        return self.model.snapshot(snapshot, at.wall)

    def probe(self, name: str, address: str, outcome: Outcome, at: Clock) -> None:
        self._probed_at[name, address] = at.now
        self.model.probe(name, address, outcome, at.wall)

    def pin(self, name: str, addresses: Iterable[str], at: Clock) -> None:
        self.model.pin(name, addresses, at.wall)

    def unpin(self, name: str, at: Clock) -> None:
        self.model.unpin(name, at.wall)

    def freeze(self, at: Clock) -> None:
        self.model.freeze(at.wall)

    def unfreeze(self, at: Clock) -> None:
        self.model.unfreeze(at.wall)

    def rollback(self, serial: int, at: Clock) -> bool:
        return self.model.rollback(serial, at.wall)

    def promote(self, name: str, at: Clock) -> bool:
        return self.model.promote(name, at.wall)

    def refuse(self, name: str, at: Clock) -> bool:
        return self.model.refuse(name, at.wall)

    def passes(self, at: Clock) -> None:
        self.model.passes(at.wall)

    def restart(self, at: Clock) -> None:
        self._probed_at.clear()
        self.model.restart(at.wall)

    def reload(self, configuration: Configuration, at: Clock) -> None:
        self._probed_at.clear()
        self.model.reload(configuration.policy(), at.wall)

    def due_probes(self, at: Clock) -> Iterable[tuple[str, str]]:
        """Every interval, and again after one second while an address is not alive."""
        self._probed_at = {key: since for key, since in self._probed_at.items() if key in self.model.probed()}
        for key in self.model.probed():
            wait = INTERVAL if self.model.alive(*key) == "alive" else 1
            if key not in self._probed_at or self._probed_at[key] + wait <= at.now:
                yield key

    def answer(self, name: str) -> Answer | str:
        return self.model.answer(name)

    def age(self, name: str) -> float | None:
        return self.model.age(name)

    def owner(self, name: str) -> str | None:
        return self.model.owner(name)

    def trial(self, name: str) -> str | None:
        return self.model.trial(name)

    def alive(self, name: str, address: str) -> Life | None:
        return self.model.alive(name, address)

    def history(self) -> list[tuple[int, dict[str, AddressSet]]]:
        return self.model.history()

    @property
    def pins(self) -> dict[str, frozenset[str]]:
        return self.model.pins

    @property
    def frozen(self) -> dict[str, AddressSet] | None:
        return self.model.frozen


# The subject of `make test` and `make histories`.
SUBJECT: MakeSubject = ModelSubject
