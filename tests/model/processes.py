"""The reference model against real processes.

A proxy runs `dnsproxy serve`, learns from signed snapshots by a file, an HTTP server and etcd, and probes
addresses of the network namespace. It is restarted, killed and reloaded, and its clock is set. After each
event everything that it tells must become what the model says. Its wall clock stands still between two
events, so ages are exact.

An event that a kill interrupts may have happened or not, unless it was acknowledged, and what only confirmed
a set may not be on disk (`tests.model.disk`): then there are several models, and the proxy must agree with
one of them.
"""

from __future__ import annotations

import itertools
import json
import math
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from dnsproxy.address_service import CLOCK_STEP
from dnsproxy.core import seal
from tests.model.agreement import other_differences, probe_gaps, status_differences, wrong_reply
from tests.model.disk import StoredModel, accepted, distinct, snapshots_of
from tests.model.proxy import TYPES, Proxy, Starter
from tests.model.reference import SKEW, Answer, Model, Outcome, Snapshot
from tests.model.sequences import Story
from tests.model.subject import published
from tests.model.surroundings import KINDS, Addresses, Kind, Sources, Upstream
from tests.model.world import (
    ADDRESSES,
    HELPERS,
    KEYS,
    NAMES,
    PLAIN,
    PUBLIC,
    START,
    Configuration,
    Event,
    MismatchError,
    configuration_of,
    make_snapshot,
)

# Seconds that a difference may last, on a machine that runs other things as well.
PATIENCE = 20.0
# Seconds that a start may take there.
START_SECONDS = 20.0
# Seconds between two looks.
PAUSE = 0.1
# Seconds between the wall clock and each time at which a set expires: an event takes some seconds, in which
# only the monotonic clock advances.
CLEARANCE = 30
# Probes of each address after an event: more than `fall` of any trial.
ROUNDS = 5


@dataclass
class ProcessStory(Story):
    """A sequence, and the process that it runs on. ``kinds`` are the sources of the helpers."""

    workers: int = 1
    kinds: tuple[Kind, ...] = KINDS


class Place:
    """A part of the namespace that one proxy at a time has: addresses, sources, keys."""

    def __init__(self, number: int, folder: Path) -> None:
        self.number = number
        self.folder = folder
        self.addresses = Addresses()
        self.upstream = Upstream()
        self.starter = Starter()
        self._exit = ExitStack()
        self.sources = self._exit.enter_context(Sources(folder))
        # How often a kill struck: by the step of a write, or `between` writes.
        self.struck: Counter[str] = Counter()
        self._stories = 0
        self.keys = {key: seal.generate_key() for key in KEYS}
        self.key_files = {key: folder / f"{key}.pub" for key in KEYS}
        for key, (_, public) in self.keys.items():
            self.key_files[key].write_bytes(public)
        self.private = {key: seal.load_private_key(pem) for key, (pem, _) in self.keys.items()}

    def next_folder(self) -> Path:
        self._stories += 1
        made = self.folder / str(self._stories)
        made.mkdir()
        return made

    def real(self, address: str) -> str:
        """Return the address of this place that represents one of `world.ADDRESSES`."""
        if address == PUBLIC:
            return f"203.0.113.{self.number + 1}"
        last = address.rpartition(":" if ":" in address else ".")[2]
        return f"fd66:{self.number + 1}::{last}" if ":" in address else f"10.66.{self.number}.{last}"


class ProcessWorld:
    """Runs the events of a story on models and on a process, and compares them."""

    def __init__(self, story: ProcessStory, place: Place) -> None:
        self._story = story
        self._place = place
        self._folder = place.next_folder()
        self._configuration = self._real_configuration(story.configuration)
        self.proxy = Proxy(self._folder, story.workers, place.starter)
        self._wall, self._began = START, time.monotonic()
        self._reach: dict[str, Outcome] = {}
        self._serials = dict.fromkeys(HELPERS, 0)
        self._used: dict[int, str] = {}
        self._published: dict[str, Snapshot] = {}
        self._models = [StoredModel(self._configuration.policy())]
        self._allowed: dict[str, set[Answer | str]] = {}
        self._was_killed = False
        for address in ADDRESSES:
            self._set_reach(place.real(address), "answered")

    def run(self) -> None:
        """Raise `MismatchError` where the process differs."""
        try:
            self._configure()
            self.proxy.set_clock(self._wall)
            self._begin()
            self._start()
            self._settle()
            for number, event in enumerate(self._story.events):
                try:
                    self._apply(event)
                except MismatchError as error:
                    raise MismatchError(f"event {number}, {json.dumps(event)}: {error}") from None
        finally:
            self.proxy.close()

    # --- one event

    def _apply(self, event: Event) -> None:
        arguments = {key: value for key, value in event.items() if key != "do"}
        self._begin()
        now = time.monotonic()
        # As long as it has taken: what counts by the monotonic clock stays with what counts by this one.
        # Without probes only a step of the clock has the time looked at.
        least = 1 if self._configuration.ports else 1 + math.ceil(CLOCK_STEP)
        self._wall, self._began = self._wall + max(least, math.ceil(now - self._began)), now
        self._pass()
        getattr(self, f"_do_{event['do']}")(**arguments)
        self._settle()

    def _pass(self) -> None:
        """Let the models and the process know the time. When it changes something, wait until it has."""
        before = [_outline(model) for model in self._models]
        while any(abs(self._wall - end) < CLEARANCE for model in self._models for end in _ends(model)):
            self._wall += CLEARANCE
        self.proxy.set_clock(self._wall)
        self._each(lambda model: model.passes(self._wall))
        self._offer()
        self._probe()
        if before != [_outline(model) for model in self._models]:
            self._agree()

    def _begin(self) -> None:
        self._allowed = {name: set() for name in NAMES}
        self._note()

    def _note(self) -> None:
        for model in self._models:
            self._note_one(model)

    def _note_one(self, model: StoredModel) -> None:
        model.note()
        for name in NAMES:
            self._allowed[name].add(model.answer(name))

    def _each(self, event: Callable[[Model], object]) -> None:
        for model in self._models:
            event(model)
        self._note()

    def _settle(self) -> None:
        """Have everything happen that follows from the event, and compare."""
        self._offer()
        self._probe()
        self._agree()
        self._is_written()

    def _is_written(self) -> None:
        """Take note that everything but confirmations is on disk."""
        for model in self._models:
            model.is_written()

    def _offer(self) -> None:
        """Sources keep what they have: what was refused before may be accepted now, in any order."""
        current = [s for s in self._published.values() if s.issued_at - SKEW <= self._wall]
        found: list[StoredModel] = []
        for model in self._models:
            new = [snapshot for snapshot in current if model.fork().snapshot(snapshot, self._wall)]
            for order in itertools.permutations(new):
                found.append(model.fork() if len(new) > 1 else model)
                for snapshot in order:
                    found[-1].snapshot(snapshot, self._wall)
                    self._note_one(found[-1])
        self._models = found

    def _probe(self) -> None:
        for _ in range(ROUNDS):
            for model in self._models:
                for name, address in sorted(model.probed()):
                    model.probe(name, address, self._reach[address], self._wall)
                    model.note()
                    self._allowed[name].add(model.answer(name))
        self._note()

    # --- comparison

    def _agree(self) -> None:
        """Wait until the process agrees with a model; forget the other models."""
        end = time.monotonic() + PATIENCE
        while True:
            if not self.proxy.is_running:
                self._revive()
                end = time.monotonic() + PATIENCE
            differences = self._differences()
            if not differences:
                return
            if time.monotonic() > end:
                raise MismatchError("; ".join(differences))
            time.sleep(PAUSE)

    def _differences(self) -> list[str]:
        told = self.proxy.status()
        if told is None:
            return ["no answer"]
        for (name, kind), reply in told.replies.items():
            self._check(name, kind, reply)
        gaps = list(probe_gaps(told.status, self._wall, is_probed=self._configuration.ports))
        if gaps:
            self._refresh()
            return gaps
        differing = [list(status_differences(model, told)) for model in self._models]
        if all(differing):
            return min(differing, key=len)
        if not self.proxy.complete(told):
            return ["no answer"]
        for model, found in zip(self._models, differing, strict=True):
            found.extend(other_differences(model, told))
        if all(differing):
            return min(differing, key=len)
        agreeing = [model for model, found in zip(self._models, differing, strict=True) if not found]
        # What changes no answer is on disk a little later.
        on_disk = snapshots_of(self.proxy.state_file)
        written = [model for model in agreeing if model.agrees(on_disk)]
        if not written:
            return [f"on disk: expected {[accepted(model) for model in agreeing]}, got {on_disk}"]
        self._models = written
        return []

    def _refresh(self) -> None:
        """Have sources read now: one that failed for long is read again much later."""
        found = self.proxy.request("POST", "/api/v1/refresh", {})
        if found is not None and found[0] != 200:
            raise MismatchError(f"refresh: {found}")

    def _check(self, name: str, kind: str, reply: Any) -> None:
        reachable = frozenset(address for address, outcome in self._reach.items() if outcome == "answered")
        wrong = wrong_reply(name, kind, reply, self._allowed[name], reachable)
        if wrong is not None:
            raise MismatchError(f"while it changes: {wrong}")

    # --- process

    def _configure(self) -> None:
        sources = [
            self._place.sources.settings(kind, self._source(helper))
            for helper, kind in zip(HELPERS, self._story.kinds, strict=True)
        ]
        place = self._place
        self.proxy.configure(self._configuration, sources, place.key_files, place.upstream.endpoint)

    def _source(self, helper: str) -> str:
        return f"{self._folder.name}/{helper}"

    def _start(self) -> None:
        """Start the process; its first answers must be right already."""
        self.proxy.disarm()
        self.proxy.start()
        end = time.monotonic() + START_SECONDS
        while self.proxy.ask(PLAIN, "A", 0.2) is None:
            if time.monotonic() > end or not self.proxy.is_running:
                raise MismatchError(f"it does not start: {self.proxy.text()[-2000:]}")
            time.sleep(0.01)
        for name in NAMES:
            for kind in TYPES:
                reply = self.proxy.ask(name, kind)
                if reply is not None:
                    self._check(name, kind, reply)

    def _revive(self) -> None:
        """Start the process that was killed."""
        if not self._was_killed:
            raise MismatchError(f"it has ended: {self.proxy.text()[-2000:]}")
        self._was_killed = False
        self.proxy.wait()
        snapshots = snapshots_of(self.proxy.state_file)
        left = distinct(each for model in self._models for each in model.survivors(snapshots))
        if not left:
            raise MismatchError(f"on disk is no state that there was: {snapshots}")
        self._models = left
        self._each(lambda model: model.restart(self._wall))
        self._start()
        self._offer()
        self._probe()

    # --- events

    def _do_time(self, seconds: int) -> None:
        self._do_clock(seconds)

    def _do_clock(self, seconds: int) -> None:
        self._wall += seconds
        self._pass()

    def _do_reach(self, address: str, outcome: Outcome) -> None:
        self._set_reach(self._place.real(address), outcome)

    def _set_reach(self, address: str, outcome: Outcome) -> None:
        self._reach[address] = outcome
        self._place.addresses.set(address, outcome)

    def _do_probes(self) -> None:
        """Nothing: there are probes after every event."""

    def _do_restart(self) -> None:
        self.proxy.stop()
        for model in self._models:
            model.is_stopped()
        self._each(lambda model: model.restart(self._wall))
        self._start()

    def _do_kill(self, during: Event, after: float) -> None:
        """SIGKILL, some time after an event began."""
        self._was_killed = True
        timer = threading.Timer(after, self.proxy.send_kill)
        timer.start()
        self._inner(during)
        timer.join()
        self._place.struck["between"] += 1
        if self._was_killed:
            self.proxy.wait()

    def _do_kill_at_write(self, during: Event, write: int, step: str) -> None:
        """SIGKILL in one of the writes that an event leads to; at once when there are not so many."""
        self._was_killed = True
        self.proxy.arm(write, step)
        self._inner(during)
        self._offer()
        self._probe()
        self._agree()
        self._place.struck["between" if self._was_killed else step] += 1
        if self._was_killed:
            self._is_written()
            self.proxy.send_kill()
            self.proxy.wait()

    def _inner(self, event: Event) -> None:
        arguments = {key: value for key, value in event.items() if key != "do"}
        getattr(self, f"_do_{event['do']}")(**arguments)

    def _do_reload(self, *, moved: bool = False, others: tuple[str, ...] = (), **changes: Any) -> None:
        """SIGHUP with another configuration; ``others`` are changes that concern no learned address."""
        wanted = configuration_of(asdict(self._wanted) | changes)
        self._configuration = self._real_configuration(wanted)
        variant = self.proxy.variant
        variant["moved"] += moved
        if "forward" in others:
            variant["attempt"] = "400ms" if variant["attempt"] == "500ms" else "500ms"
        if "ttl" in others:
            variant["ttl"] = 50 - variant["ttl"]
        if "admin" in others:
            self.proxy.move_admin()
        self._configure()
        self._each(lambda model: model.reload(self._configuration.policy(), self._wall))
        if not self.proxy.reload() and not self._was_killed:
            raise MismatchError("it ended during a reload")

    # --- snapshots

    def _do_snapshot(self, helper: str, *, old: bool = False, **stated: Any) -> None:
        self._serials[helper] += not old
        now = int(self._wall)
        snapshot = make_snapshot(
            helper,
            self._serials[helper],
            now,
            used=self._used,
            real=self._reals,
            **stated,
        )
        self._published[helper] = snapshot
        kind = self._story.kinds[HELPERS.index(helper)]
        token = seal.sign(published(snapshot, "127.0.0.1"), self._place.private[snapshot.key])
        self._place.sources.publish(kind, self._source(helper), token, snapshot.serial)
        self._refresh()

    def _reals(self, addresses: Iterable[str]) -> frozenset[str]:
        return frozenset(map(self._place.real, addresses))

    def _real_configuration(self, wanted: Configuration) -> Configuration:
        self._wanted = wanted
        return replace(wanted, refused=tuple(map(self._place.real, wanted.refused)))

    # --- commands

    def _command(self, path: str, body: Event, event: Callable[[Model], object]) -> None:
        """Send a command. One that is not acknowledged may have been obeyed."""
        response = self.proxy.request("POST", f"/api/v1/{path}", body)
        if response is None:
            if not self._was_killed:
                raise MismatchError(f"no response to {path}")
            others = [model.fork() for model in self._models]
            self._each(event)
            self._models += others
            return
        status, text = response
        if status == 200 and json.loads(text)["not_saved"] is not None:
            raise MismatchError(f"{path}: {text.decode()}")
        taken = {200: True, 409: False}[status]
        effects = [(model, event(model)) for model in self._models]
        self._note()
        self._models = [model for model, effect in effects if effect is None or effect is taken]
        if not self._models:
            raise MismatchError(f"{path}: {status} {text.decode()}")
        if taken:
            self._is_written()

    def _do_pin(self, name: str, addresses: list[str]) -> None:
        real = self._reals(addresses)
        body = {"name": name, "addresses": sorted(real)}
        self._command("pin", body, lambda model: model.pin(name, real, self._wall))

    def _do_unknown(self, path: str, body: Event) -> None:
        """A command that the models do not learn of, to test this driver."""
        self._command(path, body, lambda _model: None)

    def _do_unpin(self, name: str) -> None:
        self._command("unpin", {"name": name}, lambda model: model.unpin(name, self._wall))

    def _do_freeze(self) -> None:
        self._command("freeze", {}, lambda model: model.freeze(self._wall))

    def _do_unfreeze(self) -> None:
        self._command("unfreeze", {}, lambda model: model.unfreeze(self._wall))

    def _do_rollback(self, back: int) -> None:
        serials = [serial for serial, _ in self._models[0].history()] or [999]
        serial = serials[-1 - back % len(serials)]
        self._command("rollback", {"serial": serial}, lambda model: model.rollback(serial, self._wall))

    def _do_promote(self, name: str) -> None:
        self._command("canary/promote", {"name": name}, lambda model: model.promote(name, self._wall))

    def _do_refuse(self, name: str) -> None:
        self._command("canary/rollback", {"name": name}, lambda model: model.refuse(name, self._wall))


def _ends(model: Model) -> Iterator[float]:
    """When sets become stale, and when they are no longer answered."""
    for name, state in model.names.items():
        held = [statement.held for statement in state.statements.values()]
        held += [each for each in (state.proven, (model.kept or {}).get(name)) if each is not None]
        for each in held:
            yield each.confirmation.expires_at
            yield each.confirmation.expires_at + (model.policy.max_stale or 0.0)


def _outline(model: Model) -> object:
    """What time does not change as a rule."""
    ages = {name: model.age(name) for name in NAMES}
    confirmed = [None if age is None else model.now - age for age in ages.values()]
    seen = [confirmed, *((model.answer(name), model.trial(name), model.owner(name)) for name in NAMES)]
    return seen, dict(model.addresses).keys(), model.history(), model.frozen


def process_failure(story: ProcessStory, place: Place) -> str | None:
    """What differs, or None."""
    try:
        ProcessWorld(story, place).run()
    except MismatchError as error:
        return str(error)
    except Exception as error:  # noqa: BLE001 (whatever goes wrong)
        return f"{type(error).__name__}: {error}"
    return None
