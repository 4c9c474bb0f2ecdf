"""Runs a sequence of events on the reference model and on a subject, and compares them each time.

A sequence is JSON: a configuration and a list of events. Times in it are relative, so a sequence without some
of its events is still a sequence, which makes it possible to shrink one.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, NamedTuple, Protocol

from tests.model.reference import (
    AddressSet,
    Answer,
    Canary,
    Life,
    Listed,
    Model,
    Outcome,
    Policy,
    Snapshot,
)

PLAIN, ALIAS, WILD, FOUND = "plain.example", "alias.example", "*.wild.example", "found.example"
REGISTRIES: Mapping[str, frozenset[str]] = {
    "first": frozenset({PLAIN, ALIAS}),
    "second": frozenset({WILD, FOUND}),
}
NAMES = (PLAIN, ALIAS, WILD, FOUND)
ROLE = "storage"  # the role that tells FOUND
TARGETS = ("target.example", "other.example")
HELPERS = ("helper-1", "helper-2", "helper-3")
KEYS = ("key-1", "key-2", "key-3")
PUBLIC = "203.0.113.9"  # always refused by the address filter
ADDRESSES = ("10.0.0.1", "10.0.0.2", "10.0.0.3", "10.0.0.4", "fd00::1", "fd00::2", PUBLIC)
INTERVAL = 30.0  # learn.verify.interval
START = 1_800_000_000.5  # half a second keeps the wall clock off the whole seconds of snapshots

Event = dict[str, Any]


class Clock(NamedTuple):
    """The two clocks of a process: `now` never goes back, `wall` may."""

    now: float
    wall: float


@dataclass(frozen=True)
class Configuration:
    """What the configuration of the proxy says; JSON."""

    names: tuple[str, ...] = (PLAIN, ALIAS, WILD)
    discover: bool = True  # `storage: discover`
    keys: Mapping[str, tuple[str, ...] | None] = field(
        default_factory=lambda: dict.fromkeys(KEYS)
    )  # registries
    refused: tuple[str, ...] = (PUBLIC,)
    max_stale: int | None = None
    history: int = 10
    ports: bool = True
    accept: bool = False
    canary: tuple[int, int] | None = None  # hold, fall
    group: tuple[str, ...] = ()  # names with whose changes this proxy is in the canary group

    def policy(self) -> Policy:
        scopes = {
            key: None if registries is None else frozenset().union(*(REGISTRIES[r] for r in registries))
            for key, registries in self.keys.items()
        }
        return Policy(
            names=frozenset(self.names),
            discoverable=frozenset({ROLE} if self.discover else ()),
            keys=scopes,
            refuses=lambda _name, address: address in self.refused,
            in_group=lambda name, _set: name in self.group,
            max_stale=self.max_stale,
            history=self.history,
            ports=self.ports,
            accept=self.accept,
            canary=None if self.canary is None else Canary(*self.canary),
        )


class Subject(Protocol):
    """What is compared with the model. The bool of an event says whether it had an effect."""

    def snapshot(self, snapshot: Snapshot, at: Clock) -> bool: ...
    def probe(self, name: str, address: str, outcome: Outcome, at: Clock) -> None: ...
    def pin(self, name: str, addresses: Iterable[str], at: Clock) -> None: ...
    def unpin(self, name: str, at: Clock) -> None: ...
    def freeze(self, at: Clock) -> None: ...
    def unfreeze(self, at: Clock) -> None: ...
    def rollback(self, serial: int, at: Clock) -> bool: ...
    def promote(self, name: str, at: Clock) -> bool: ...
    def refuse(self, name: str, at: Clock) -> bool: ...
    def passes(self, at: Clock) -> None: ...
    def restart(self, configuration: Configuration, at: Clock) -> None: ...
    def reload(self, configuration: Configuration, at: Clock) -> None: ...

    def due_probes(self, at: Clock) -> Iterable[tuple[str, str]]: ...
    def answer(self, name: str) -> Answer | str: ...
    def age(self, name: str) -> float | None: ...
    def owner(self, name: str) -> str | None: ...
    def trial(self, name: str) -> str | None: ...
    def alive(self, name: str, address: str) -> Life | None: ...
    def history(self) -> list[tuple[int, dict[str, AddressSet]]]: ...
    @property
    def pins(self) -> dict[str, frozenset[str]]: ...
    @property
    def frozen(self) -> dict[str, AddressSet] | None: ...


MakeSubject = Callable[[Configuration, Clock], Subject]


class MismatchError(AssertionError):
    """The subject differs from the model."""


def observed(side: Subject | Model) -> dict[object, object]:
    """Everything that can be asked."""
    seen: dict[object, object] = {}
    for name in NAMES:
        seen["answer", name] = side.answer(name)
        seen["age", name] = side.age(name)
        seen["owner", name] = side.owner(name)
        seen["trial", name] = side.trial(name)
        for address in ADDRESSES:
            seen["alive", name, address] = side.alive(name, address)
    seen["history"] = side.history()
    seen["pins"] = side.pins
    seen["frozen"] = side.frozen
    return seen


def configuration_of(data: Mapping[str, Any]) -> Configuration:
    """A configuration from JSON, where tuples are lists."""
    plain: dict[str, Any] = {k: tuple(v) if isinstance(v, list) else v for k, v in data.items()}
    if "keys" in plain:
        plain["keys"] = {key: None if r is None else tuple(r) for key, r in plain["keys"].items()}
    return Configuration(**plain)


def _observed_at(used: dict[int, str], helper: str, wanted: int) -> int:
    """No two helpers confirm at one time: the documentation does not say which is the later."""
    while used.setdefault(wanted, helper) != helper:
        wanted -= 1
    return wanted


def make_snapshot(
    helper: str,
    serial: int,
    now: int,
    *,
    used: dict[int, str],
    real: Callable[[Iterable[str]], frozenset[str]],
    names: Mapping[str, Mapping[str, Any]],
    key: str | None = None,
    found: list[str] | None = None,
    lifetime: int = 3600,
) -> Snapshot:
    """The snapshot of an event: ``used`` has the helper that confirms at a time, ``real`` gets addresses."""
    listed = {
        name: Listed(
            AddressSet(real(each["addresses"]), each.get("cname")),
            _observed_at(used, helper, now - each.get("ago", 0)),
            frozenset(real(refused) for refused in each.get("refused", ())),
        )
        for name, each in names.items()
    }
    return Snapshot(
        helper=helper,
        key=key or KEYS[HELPERS.index(helper)],
        serial=serial,
        issued_at=now,
        expires_at=now + lifetime,
        names=listed,
        discoveries={} if found is None else {ROLE: frozenset(found)},
    )


class World:
    """A model, a subject, two clocks, and what each address does when it is probed."""

    def __init__(self, configuration: Configuration, make: MakeSubject) -> None:
        self.configuration = configuration
        self.clock = Clock(1000.0, START)
        self.model = Model(configuration.policy())
        self.subject = make(configuration, self.clock)
        self.reach: dict[str, Outcome] = {}
        self.serials = dict.fromkeys(HELPERS, 0)
        self.used: dict[int, str] = {}  # observed_at → helper
        self.waiting: dict[tuple[str, str], float] = {}  # probed address → since when without a result

    def run(self, events: Iterable[Event]) -> None:
        for number, event in enumerate(events):
            try:
                self.apply(event)
            except MismatchError as error:
                raise MismatchError(f"event {number}, {json.dumps(event)}: {error}") from None

    def apply(self, event: Event) -> None:
        """Apply one event to both sides and compare them."""
        arguments = {key: value for key, value in event.items() if key != "do"}
        getattr(self, f"_do_{event['do']}")(**arguments)
        self._compare()

    def _compare(self) -> None:
        expected, actual = observed(self.model), observed(self.subject)
        if expected != actual:
            differences = [
                f"{key}: expected {expected[key]}, got {actual[key]}"
                for key in expected
                if expected[key] != actual[key]
            ]
            raise MismatchError("; ".join(differences))
        probed = self.model.probed()
        self.waiting = {key: self.waiting.get(key, self.clock.now) for key in probed}

    def _same(self, expected: object, actual: object, what: str) -> None:
        if expected != actual:
            raise MismatchError(f"{what}: expected {expected}, got {actual}")

    # --- events

    def _do_time(self, seconds: int) -> None:
        self.clock = Clock(self.clock.now + seconds, self.clock.wall + seconds)
        self._pass()

    def _do_clock(self, seconds: int) -> None:
        self.clock = self.clock._replace(wall=self.clock.wall + seconds)
        self._pass()

    def _pass(self) -> None:
        self.model.passes(self.clock.wall)
        self.subject.passes(self.clock)

    def _do_reach(self, address: str, outcome: Outcome) -> None:
        self.reach[address] = outcome

    def _do_probes(self) -> None:
        """Run the probes that the subject wants, one after the other."""
        due = sorted(set(self.subject.due_probes(self.clock)))
        unknown = set(due) - self.model.probed()
        self._same(set(), unknown, "probes of addresses in no set")
        # "Within two probe intervals".
        late = {key for key, since in self.waiting.items() if since + 2 * INTERVAL <= self.clock.now}
        self._same(set(), late - set(due), "addresses that are not probed any more")
        for name, address in due:
            outcome = self.reach.get(address, "answered")
            self.model.probe(name, address, outcome, self.clock.wall)
            self.subject.probe(name, address, outcome, self.clock)
            self.waiting.pop((name, address), None)
            self._compare()

    def _do_snapshot(self, helper: str, *, old: bool = False, **stated: Any) -> None:
        self.serials[helper] += not old
        now = int(self.clock.wall)
        snapshot = make_snapshot(
            helper,
            self.serials[helper],
            now,
            used=self.used,
            real=frozenset,
            **stated,
        )
        accepted = self.model.snapshot(snapshot, self.clock.wall)
        self._same(accepted, self.subject.snapshot(snapshot, self.clock), "snapshot accepted")

    def _do_pin(self, name: str, addresses: list[str]) -> None:
        self.model.pin(name, addresses, self.clock.wall)
        self.subject.pin(name, addresses, self.clock)

    def _do_unpin(self, name: str) -> None:
        self.model.unpin(name, self.clock.wall)
        self.subject.unpin(name, self.clock)

    def _do_freeze(self) -> None:
        self.model.freeze(self.clock.wall)
        self.subject.freeze(self.clock)

    def _do_unfreeze(self) -> None:
        self.model.unfreeze(self.clock.wall)
        self.subject.unfreeze(self.clock)

    def _do_rollback(self, back: int) -> None:
        """Roll back to a record, counted from the newest; to one that does not exist without any."""
        serials = [serial for serial, _ in self.model.history()] or [999]
        serial = serials[-1 - back % len(serials)]
        done = self.model.rollback(serial, self.clock.wall)
        self._same(done, self.subject.rollback(serial, self.clock), "rollback")

    def _do_promote(self, name: str) -> None:
        done = self.model.promote(name, self.clock.wall)
        self._same(done, self.subject.promote(name, self.clock), "promote")

    def _do_refuse(self, name: str) -> None:
        done = self.model.refuse(name, self.clock.wall)
        self._same(done, self.subject.refuse(name, self.clock), "refuse")

    def _do_restart(self, **changes: Any) -> None:
        """With ``changes`` another configuration was written meanwhile."""
        other = configuration_of(asdict(self.configuration) | changes)
        # The file does not tell a name that was not managed from one whose set is older than `max_stale`.
        if other.max_stale is self.configuration.max_stale is None:
            self.configuration = other
        self.model.restart(self.clock.wall)
        self.model.reload(self.configuration.policy(), self.clock.wall)
        self.subject.restart(self.configuration, self.clock)

    def _do_reload(self, **changes: Any) -> None:
        self.configuration = configuration_of(asdict(self.configuration) | changes)
        self.model.reload(self.configuration.policy(), self.clock.wall)
        self.subject.reload(self.configuration, self.clock)
