"""From what was learned to what is answered: guard, verifier and the operator's orders, in this order.

`Vetting.take` is given each new book of the learner; the outlet gets a book that holds
nothing but what is to be answered. Between the two stand `core.guard` (addresses that
cannot be right), `core.verify` (addresses that do not work) and `core.orders` (pins,
freezes, roll-backs). All of it is decided in memory; files, probes and the operator's
program wait their turn in `run`.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterable
from dataclasses import replace

import structlog

from dnsproxy.core.book import Book, Entry
from dnsproxy.core.canary import CanaryView
from dnsproxy.core.health import Probe
from dnsproxy.core.holding import Policy
from dnsproxy.core.orders import Freeze, Orders, Pin, canonical_name, fixed_addresses, pinned_entry
from dnsproxy.core.registry import Wanted, with_found
from dnsproxy.core.screen import Screen, Vetted
from dnsproxy.core.verify import Verifier
from dnsproxy.errors import OrderError
from dnsproxy.net.hook import Hook, check_program
from dnsproxy.net.orderfile import OrderFile
from dnsproxy.net.probe import ProbeLoop, Prober
from dnsproxy.settings import Settings
from dnsproxy.trials import Trials, canary_policy

log: structlog.typing.FilteringBoundLogger = structlog.get_logger()

SHOWN = 20  # names in one line of the log


class Vetting:
    """Owns the verifier and the orders; ``outlet`` gets each book to answer from.

    Raises:
        StartError: ``learn.verify.ca_file`` or ``learn.on_change`` cannot be used.
    """

    def __init__(
        self, settings: Settings, outlet: Callable[[Book], None], *, wall: Callable[[], float] = time.time
    ) -> None:
        learn = settings.learn
        self.book = Book()
        self.served = Book()
        self.orders = Orders()
        self.screen = Screen(settings.limits())
        self._outlet = outlet
        self._wall = wall
        self._wanted = settings.wanted()
        self._pinned = {entry.name: entry.addresses for entry in self._wanted if entry.addresses}
        self._history = learn.history
        self._file = OrderFile(learn.state_file, wall)
        policy = Policy(
            ports=tuple(learn.verify.ports),
            tls=learn.verify.tls,
            accept=learn.verify.on_failure == "accept",
            interval=learn.verify.interval,
            max_stale=learn.max_stale,
            # What the configuration pins is the operator's word: it is probed only where ports are asked for.
            own_ports=dict.fromkeys(self._pinned, ()) | settings.probed_ports(),
        )
        self._verifier = Verifier(policy)
        self._probes = ProbeLoop(self._verifier, Prober(learn.verify), self._note_probe)
        self._trials = Trials(canary_policy(settings), self._verifier, wall)
        self._program = learn.on_change
        self._hook: Hook | None = None
        if learn.on_change is not None:
            check_program(learn.on_change)
            self._hook = Hook(learn.on_change)

    # -- start and end ----------------------------------------------------------------

    def load(self) -> None:
        """Take up the orders on disk, and put in service what was. Never raises."""
        self.orders = self._file.load()
        self._verifier.restore(self.screen.passed(self.orders.in_service), self.orders.held_back)
        self._update()

    def take_over(self, earlier: Vetting) -> None:
        """Go on from what ``earlier`` knows, which ran by another configuration and runs no more."""
        self.orders, self.served = earlier.orders, earlier.served
        if self.screen.limits == earlier.screen.limits:
            self.screen.findings = earlier.screen.findings
            self._verifier.take_over(earlier._verifier, time.monotonic())
        else:
            self._verifier.restore(
                self.screen.passed(earlier._verifier.proven()), earlier._verifier.held_back()
            )
        self.screen.refused = earlier.screen.refused
        self._trials.endings = earlier._trials.endings
        if self._hook is not None and earlier._hook is not None and self._program == earlier._program:
            self._hook = earlier._hook

    async def run(self) -> None:
        """Probe, keep the orders on disk and run the operator's program, until cancelled."""
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self._probes.run())
            tasks.create_task(self._file.run())
            tasks.create_task(self._trials.run(lambda: self.orders.trials, self._update))
            if self._hook is not None:
                tasks.create_task(self._hook.run())

    async def close(self) -> None:
        """Write what has not been written yet."""
        await self._file.flush()

    # -- what was learned -------------------------------------------------------------

    def take(self, book: Book) -> None:
        """Take the next book of the learner."""
        self.book = book
        self.orders = self.orders.recorded(book, self._history, self._wall())
        owned = {entry.name for entry in self.wanted()}
        self._verifier.forget(set(self._verifier.names()) - owned)
        trials = {name: trial for name, trial in self.orders.trials.items() if name in owned}
        self.orders = replace(self.orders, trials=trials)
        self._update()

    def _update(self) -> None:
        """Put everything in force that is known and ordered at this time."""
        self.orders, targets = self.orders.targets(self.book)
        entries, changed = self.screen.take(targets)
        for name in changed:
            self._log_findings(name)
        self._try(entries)
        while self._end_trials():
            self._try(entries)
        self._emit()
        self._probes.kick()

    def _try(self, entries: dict[str, Entry]) -> None:
        """Have the newest set of each name take the place of the one before, or be tried first."""
        fixed = {name: pin.addresses for name, pin in self.orders.pins.items()} | self._pinned
        exempt = fixed.keys() | (self.orders.freeze.entries.keys() if self.orders.freeze else set())
        trials = self._trials.taken(self.orders.trials, entries, exempt)
        tryouts = self._trials.tryouts(trials, exempt)
        self._verifier.take(entries, fixed, time.monotonic(), self._wall(), tryouts)
        self.orders = replace(self.orders, trials=trials)

    def _end_trials(self) -> bool:
        """Take note of how the trials go; return whether one has ended."""
        before = self.orders.trials
        trials, proven = self._trials.judged(before)
        self._verifier.adopt(proven)
        self.orders = replace(self.orders, trials=trials)
        return len(trials) < len(before) or any(t.state is not before[n].state for n, t in trials.items())

    def _log_findings(self, name: str) -> None:
        found = self.screen.findings[name]
        if found:
            reasons = {finding.address: finding.reason.value for finding in found[:SHOWN]}
            log.warning("learned.refused", name=name, count=len(found), addresses=reasons)
        else:
            log.info("learned.refused_no_more", name=name)

    # -- what is answered -------------------------------------------------------------

    def _emit(self) -> None:
        entries = {name: choice.as_entry() for name, choice in self._verifier.choices().items()}
        entries |= {name: pinned_entry(name, pin) for name, pin in self.orders.pins.items()}
        before, self.served = self.served, replace(self.book, entries=entries)
        changes = self.served.changes_since(before)
        if changes:
            shown = [{"name": c.name, "old": list(c.old), "new": list(c.new)} for c in changes[:SHOWN]]
            log.info("learned.in_service", changed=len(changes), changes=shown)
        self._outlet(self.served)
        verifier = self._verifier
        self.orders = replace(self.orders, in_service=verifier.unconfirmed(), held_back=verifier.held_back())
        self._file.offer(self.orders)
        if self._hook is not None:
            frozen = self.orders.freeze is not None
            situations = self.screen.situations(self.wanted(), self.served.entries, self.book.entries)
            self._hook.offer(situations, self.book.serial, frozen=frozen)

    def _note_probe(self, probe: Probe, turned: bool | None, changed: bool) -> None:  # noqa: FBT001 - the callback's signature
        if turned is not None:
            states = {state.address: state for state in self._verifier.states(probe.name)}
            state = states[probe.address]
            facts = {"name": probe.name, "address": probe.address, "serving": state.serving}
            if turned:
                log.info("learned.reachable", **facts, reason=state.reason)
            else:
                log.warning("learned.unreachable", **facts, reason=state.reason)
        before = self.orders.trials
        if probe.name in before and (self._end_trials() or changed or self.orders.trials != before):
            self._update()
        elif changed:
            self._emit()

    def wanted(self) -> list[Wanted]:
        """Return every name that is owned: the configured ones, then those that registries told."""
        return with_found(self._wanted, self.book.found())

    def vetted(self, wanted: Wanted) -> Vetted:
        """Return what is known of the addresses of one name."""
        states = tuple(self._verifier.states(wanted.name))
        refused = self.screen.findings.get(wanted.name, ())
        addresses = [*(state.address for state in states), *(finding.address for finding in refused)]
        return Vetted(states, refused, self.screen.routed(wanted, addresses))

    # -- the operator's orders ---------------------------------------------------------

    def pin(self, name: str, addresses: Iterable[str]) -> None:
        """Answer ``name`` with ``addresses`` and nothing else from now on.

        Raises:
            OrderError: the name is not owned, is pinned in the configuration, or an address is none.
        """
        owned = self._owned_name(name)
        fixed = fixed_addresses(addresses)
        self._order(pins={**self.orders.pins, owned: Pin(fixed, int(self._wall()))})

    def unpin(self, name: str) -> None:
        """Answer ``name`` as it is learned again.

        Raises:
            OrderError: the name is not pinned, or only in the configuration.
        """
        held = {pinned: pin for pinned, pin in self.orders.pins.items() if pinned != canonical_name(name)}
        if len(held) == len(self.orders.pins):
            raise OrderError(f"{canonical_name(name)} is not pinned by an order")
        self._order(pins=held)

    def freeze(self) -> None:
        """Take no other sets than those in service; does nothing when frozen already."""
        if self.orders.freeze is None:
            entries = {name: choice.entry for name, choice in self._verifier.choices().items()}
            self._order(freeze=Freeze(int(self._wall()), entries))

    def unfreeze(self) -> None:
        """Follow what is learned again.

        Raises:
            OrderError: nothing is frozen.
        """
        if self.orders.freeze is None:
            raise OrderError("nothing is frozen")
        # What was frozen works, or nobody knows; it gives way to what is proven.
        self._verifier.adopt(self.screen.passed(self.orders.frozen_entries(self.book)))
        self._order(freeze=None)

    def rollback(self, serial: int) -> None:
        """Go back to what was learned with ``serial`` and freeze it; names that it lacks keep what they have.

        Raises:
            OrderError: the history does not have it.
        """
        record = self.orders.find(serial)
        if record is None:
            raise OrderError(f"serial {serial} is not in the history")
        known = {entry.name for entry in self.wanted()}
        entries = {name: choice.entry for name, choice in self._verifier.choices().items()}
        entries |= {name: entry for name, entry in record.entries.items() if name in known}
        self._verifier.adopt(self.screen.passed(entries))
        self._order(freeze=Freeze(int(self._wall()), entries, serial))

    def promote_canary(self, name: str) -> None:
        """Put the set of ``name`` that is on trial, or was rolled back, into service.

        Raises:
            OrderError: there is none.
        """
        entry = self._trials.accepted(self.orders.trials, name)
        accepted = entry.learned.name
        self._verifier.adopt({accepted: entry})
        self._order(trials={n: trial for n, trial in self.orders.trials.items() if n != accepted})

    def rollback_canary(self, name: str) -> None:
        """Refuse the set of ``name`` that is on trial.

        Raises:
            OrderError: there is none.
        """
        self._order(trials=self._trials.refused(self.orders.trials, name))

    def canary(self) -> CanaryView:
        """Return what there is to tell of trials."""
        return self._trials.view(self.orders.trials)

    @property
    def disk_failure(self) -> str | None:
        """Why the orders could not be written last; None when they could."""
        return self._file.failure

    async def saved(self) -> str | None:
        """Write the orders now; return why that failed, None when they are on disk."""
        return await self._file.flush()

    def _order(self, **changes: object) -> None:
        self.orders = replace(self.orders, **changes)  # type: ignore[arg-type]  # fields of Orders, given above
        freeze = self.orders.freeze
        log.info(
            "learned.orders",
            pinned=sorted(self.orders.pins)[:SHOWN],
            frozen=freeze is not None,
            rolled_back_to=freeze.serial if freeze else None,
        )
        self._update()

    def _owned_name(self, name: str) -> str:
        owned = canonical_name(name)
        if owned in self._pinned:
            raise OrderError(f"{owned} is pinned in the configuration")
        if owned not in {entry.name for entry in self.wanted()}:
            raise OrderError(f"{owned} is no name of a configured registry")
        return owned
