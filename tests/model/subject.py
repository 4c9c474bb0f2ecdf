"""Subjects: what the driver compares with the reference model."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable
from ipaddress import ip_network
from unittest import mock

from dnsproxy.core.addresses import lifecycle as lifecycle_module
from dnsproxy.core.addresses import state_file
from dnsproxy.core.addresses.canary import CanaryPolicy
from dnsproxy.core.addresses.filter import Limits, LimitTable
from dnsproxy.core.addresses.health import Outcome as ProbeOutcome
from dnsproxy.core.addresses.health import Probe, Result
from dnsproxy.core.addresses.lifecycle import AddressLifecycle, OpenedSnapshot
from dnsproxy.core.addresses.name_state import AddressPolicy
from dnsproxy.core.addresses.table import PINNED, Statement
from dnsproxy.core.learned import (
    Accepted,
    LearnedName,
    Scope,
    canonical_addresses,
    in_scope,
    judge,
)
from dnsproxy.core.learned import Snapshot as Published
from dnsproxy.core.names import to_key
from dnsproxy.core.registry import Found, Sought, Wanted
from dnsproxy.errors import OrderError
from tests.model.reference import (
    NOT_OWNED,
    NOT_READY,
    AddressSet,
    Answer,
    Life,
    Model,
    Outcome,
    Snapshot,
)
from tests.model.world import FOUND, INTERVAL, REGISTRIES, ROLE, Clock, Configuration, MakeSubject


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

    def restart(self, configuration: Configuration, at: Clock) -> None:
        self.model.restart(at.wall)
        self.reload(configuration, at)

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


class LifecycleSubject:
    """The state machine of the program. A restart goes through its file, a probe through its queue."""

    def __init__(self, configuration: Configuration, at: Clock) -> None:
        self._configuration = configuration
        self._policy = _policy(configuration)
        self._machine = AddressLifecycle(self._policy)
        self._at = at
        self._ticks = 0
        self._probes: dict[tuple[str, str], Probe] = {}
        self._settle(at)

    def _settle(self, at: Clock) -> None:
        self._at = at
        while not self._machine.settle(3, at.now, at.wall):
            pass
        self._machine.take_changes()

    # --- events

    def snapshot(self, snapshot: Snapshot, at: Clock) -> bool:
        _KEYLESS[snapshot.helper] = snapshot.key
        document = published(snapshot, snapshot.key)
        if snapshot.key not in self._configuration.keys:
            return False
        current = self._machine.snapshots.get(snapshot.helper)
        scope = _scope(self._configuration, snapshot.key)
        verdict = judge(current.snapshot if current else None, document, at.wall, scope)
        if isinstance(verdict, Accepted):
            token = json.dumps(document.to_payload())
            self._machine.accept(OpenedSnapshot(verdict.snapshot, snapshot.key, token))
            self._settle(at)
        return isinstance(verdict, Accepted)

    def probe(self, name: str, address: str, outcome: Outcome, at: Clock) -> None:
        # Results come one after the other, also those of one moment.
        self._ticks += 1
        result = Result(ProbeOutcome(outcome), {443: "ok" if outcome == "answered" else outcome})
        self._machine.record(self._probes.pop((name, address)), result, at.now + self._ticks / 1e6, at.wall)
        self._settle(at)

    def _order(self, at: Clock, command: Callable[[], None]) -> bool:
        try:
            command()
        except OrderError:
            return False
        finally:
            self._settle(at)
        return True

    def pin(self, name: str, addresses: Iterable[str], at: Clock) -> None:
        self._order(at, lambda: self._machine.pin(name, addresses, at.wall))

    def unpin(self, name: str, at: Clock) -> None:
        self._order(at, lambda: self._machine.unpin(name))

    def freeze(self, at: Clock) -> None:
        self._order(at, lambda: self._machine.freeze(at.wall))

    def unfreeze(self, at: Clock) -> None:
        self._order(at, self._machine.unfreeze)

    def rollback(self, serial: int, at: Clock) -> bool:
        return self._order(at, lambda: self._machine.rollback(serial, at.wall))

    def promote(self, name: str, at: Clock) -> bool:
        return self._order(at, lambda: self._machine.promote(name))

    def refuse(self, name: str, at: Clock) -> bool:
        return self._order(at, lambda: self._machine.refuse(name, at.wall))

    def passes(self, at: Clock) -> None:
        self._machine.tick()
        self._settle(at)

    def restart(self, configuration: Configuration, at: Clock) -> None:
        text = "\n".join(state_file.encode(self._machine))
        document = json.loads(text)
        self._configuration, self._policy = configuration, _policy(configuration)
        self._machine = AddressLifecycle(self._policy)
        state_file.restore(self._machine, document, {})
        self._machine.configure(self._policy, self._opened(document["snapshots"]))
        self._probes.clear()
        self._settle(at)

    def reload(self, configuration: Configuration, at: Clock) -> None:
        self._configuration, self._policy = configuration, _policy(configuration)
        tokens = [opened.token for opened in self._machine.snapshots.values()]
        self._machine.configure(self._policy, self._opened(tokens))
        self._settle(at)

    def _opened(self, tokens: Iterable[str]) -> list[OpenedSnapshot]:
        opened = []
        for token in tokens:
            payload = json.loads(token)
            key = payload["names"][0]["resolvers"][0] if payload["names"] else _KEYLESS[payload["iss"]]
            if key in self._configuration.keys:
                snapshot = Published.from_payload(payload)
                ours, _ = in_scope(snapshot, _scope(self._configuration, key))
                opened.append(OpenedSnapshot(ours, key, token))
        return opened

    # --- queries

    def due_probes(self, at: Clock) -> Iterable[tuple[str, str]]:
        with mock.patch.object(lifecycle_module, "MAX_PROBES", 100):
            for probe in self._machine.next_probes(at.now):
                self._probes[probe.name.removesuffix("."), probe.address] = probe
        return list(self._probes)

    def _served(self, name: str) -> Statement | None:
        served = self._machine.table().sets.get(f"{name}.")
        return None if served is None or self._policy.is_gone(served, self._at.wall) else served

    def answer(self, name: str) -> Answer | str:
        if f"{name}." not in {entry.name for entry in self._machine.table().managed}:
            return NOT_OWNED
        served = self._served(name)
        if served is None:
            return NOT_READY
        addresses, cname = _plain(served)
        return Answer(addresses, cname, stale=self._at.wall >= served.snapshot.expires_at)

    def age(self, name: str) -> float | None:
        served = self._served(name)
        if served is None or served.snapshot.issuer == PINNED:
            return None
        return max(0.0, self._at.wall - served.learned.observed_at)

    def owner(self, name: str) -> str | None:
        state = self._machine.names.get(f"{name}.")
        if state is None or not any(
            stated.usable and not self._policy.is_gone(stated.usable, self._at.wall)
            for stated in state.stated.values()
        ):
            return None
        return state.owner

    def trial(self, name: str) -> str | None:
        trial = self._machine.trials().get(f"{name}.")
        return None if trial is None else "trial" if trial.is_running else "refused"

    def alive(self, name: str, address: str) -> Life | None:
        for state in self._machine.states(f"{name}."):
            if state.address == address:
                return "unknown" if state.alive is None else "alive" if state.alive else "dead"
        return None

    def history(self) -> list[tuple[int, dict[str, AddressSet]]]:
        return [
            (record.serial, {name.removesuffix("."): _plain(held) for name, held in record.sets.items()})
            for record in self._machine.overrides.history
        ]

    @property
    def pins(self) -> dict[str, frozenset[str]]:
        pins = self._machine.overrides.pins
        return {name.removesuffix("."): frozenset(pin.addresses) for name, pin in pins.items()}

    @property
    def frozen(self) -> dict[str, AddressSet] | None:
        freeze = self._machine.overrides.freeze
        if freeze is None:
            return None
        return {name.removesuffix("."): _plain(held) for name, held in freeze.sets.items()}


# The keys of snapshots without names, by helper: `resolvers` of a name carries the key in the others.
_KEYLESS: dict[str, str] = {}


def _plain(statement: Statement) -> AddressSet:
    cname = statement.learned.cname
    return AddressSet(frozenset(statement.learned.addresses), cname and cname.removesuffix("."))


def _registry(name: str) -> str:
    return next(registry for registry, names in REGISTRIES.items() if name in names)


def published(snapshot: Snapshot, resolver: str) -> Published:
    """The snapshot as a helper makes it."""
    names = tuple(
        LearnedName(
            name=f"{name}.",
            role="other",
            registry=_registry(name),
            addresses=canonical_addresses(listed.set.addresses),
            cname=listed.set.cname and f"{listed.set.cname}.",
            ttl=60,
            observed_at=int(listed.observed_at),
            resolvers=(resolver,),
            status="ok",
            refused=tuple(canonical_addresses(refused) for refused in listed.refused_sets),
        )
        for name, listed in snapshot.names.items()
    )
    found = tuple(
        Found(_registry(FOUND), role, tuple(f"{name}." for name in sorted(found)), int(snapshot.issued_at))
        for role, found in snapshot.discoveries.items()
    )
    times = int(snapshot.issued_at), int(snapshot.expires_at)
    return Published(snapshot.helper, snapshot.serial, *times, names, found)


def _sought(configuration: Configuration) -> tuple[Sought, ...]:
    return (Sought(_registry(FOUND), ROLE, ("example.",)),) if configuration.discover else ()


def _scope(configuration: Configuration, key: str) -> Scope:
    registries = configuration.keys[key]
    speaks = REGISTRIES if registries is None else registries
    names = frozenset(to_key(f"{name}.") for name in configuration.names if _registry(name) in speaks)
    return Scope(names, tuple(s for s in _sought(configuration) if s.registry in speaks))


def _policy(configuration: Configuration) -> AddressPolicy:
    limits = Limits(conflicts=tuple(ip_network(address) for address in configuration.refused))
    canary = configuration.canary
    share = 1.0 if configuration.group else 0.0
    return AddressPolicy(
        managed=tuple(Wanted(f"{name}.", "other", _registry(name)) for name in configuration.names),
        sought=_sought(configuration),
        keys={key: None if r is None else frozenset(r) for key, r in configuration.keys.items()},
        limits=LimitTable(by_registry=dict.fromkeys(REGISTRIES, limits)),
        ports=(443,) if configuration.ports else (),
        interval=INTERVAL,
        accept=configuration.accept,
        max_stale=float("inf") if configuration.max_stale is None else configuration.max_stale,
        history=configuration.history,
        canary=CanaryPolicy(share, canary[0], canary[1], "proxy") if canary else None,
    )


# The subject of `make test` and `make histories`.
SUBJECT: MakeSubject = LifecycleSubject
