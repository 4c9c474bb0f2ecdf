"""New sets on trial in a running proxy: what `core.canary` decides, logged, counted, and ordered."""

from __future__ import annotations

import asyncio
import os
from collections import Counter
from collections.abc import Callable, Collection, Mapping

import structlog

from dnsproxy.core.book import Entry
from dnsproxy.core.canary import (
    AddressSet,
    CanaryPolicy,
    CanaryView,
    Ending,
    Trial,
    is_in_group,
    judge,
    next_end,
    rolled_back,
    set_of,
    trial_of,
)
from dnsproxy.core.holding import Tryout
from dnsproxy.core.orders import canonical_name
from dnsproxy.core.verify import Verifier
from dnsproxy.errors import OrderError
from dnsproxy.settings import Settings

log: structlog.typing.FilteringBoundLogger = structlog.get_logger()

ByName = Mapping[str, Trial]


class Trials:
    """The trials of one proxy; they are kept among its orders. Without a ``policy`` there are none."""

    def __init__(self, policy: CanaryPolicy | None, verifier: Verifier, wall: Callable[[], float]) -> None:
        self.policy = policy
        self.endings: Counter[Ending] = Counter()
        self._verifier = verifier
        self._wall = wall
        self._wake = asyncio.Event()

    # -- what is on trial ---------------------------------------------------------------

    def taken(self, trials: ByName, entries: Mapping[str, Entry], exempt: Collection[str]) -> ByName:
        """Return the trials after ``entries`` have come, the newest set of each name.

        Those of names that are ``exempt``, which go by an operator's word, end; what was refused stays so.
        """
        if self.policy is None:
            return {}
        proven, now = self._verifier.proven(), self._wall()
        found: dict[str, Trial] = {}
        for name in dict.fromkeys((*entries, *trials)):
            earlier, newest = trials.get(name), entries.get(name)
            if newest is None or (name in exempt and earlier is not None and not earlier.is_running):
                trial = earlier
            else:
                trial = None if name in exempt else trial_of(proven.get(name), newest, earlier, now)
            if trial is not None:
                found[name] = trial
            if earlier is None or trial is None or trial.candidate != earlier.candidate:
                self._tell(name, earlier, trial, proven.get(name))
        self._wake.set()
        return found

    def tryouts(self, trials: ByName, exempt: Collection[str]) -> dict[str, Tryout]:
        """Return what the verifier is to know of ``trials``."""
        return {
            name: Tryout(trial.is_running and self._is_leading(name, trial), trial.answered)
            for name, trial in trials.items()
            if name not in exempt
        }

    def judged(self, trials: ByName) -> tuple[ByName, dict[str, Entry]]:
        """Return the trials as they are now, and the sets that are proven by the end of theirs."""
        if self.policy is None:
            return trials, {}
        now = self._wall()
        found: dict[str, Trial] = {}
        promoted: dict[str, Entry] = {}
        for name, trial in trials.items():
            newest = self._verifier.newest(name)
            if newest is None or set_of(newest) != trial.candidate:
                found[name] = trial
                continue
            stable = self._verifier.stable(name)
            if stable is not None and set_of(stable) == trial.candidate:
                found[name] = trial  # `taken` tells that the old set has failed
                continue
            signs = self._verifier.signs(name, trial.since)
            outcome = judge(
                trial,
                signs,
                self.policy,
                now,
                stable_works=self._verifier.works(name),
                refused=trial.addresses in newest.learned.refused,
                beyond=self._verifier.beyond(name),
            )
            if isinstance(outcome, Ending):
                promoted[name] = newest
                self._log_promoted(name, trial, outcome)
            else:
                found[name] = outcome
                if trial.is_running and not outcome.is_running:
                    self._log_rolled_back(name, outcome)
        return found, promoted

    def _is_leading(self, name: str, trial: Trial) -> bool:
        return self.policy is not None and is_in_group(self.policy, name, trial.candidate)

    def view(self, trials: ByName) -> CanaryView:
        """Return what there is to tell."""
        tried = self._verifier.tried()
        running = frozenset(name for name, trial in trials.items() if trial.is_running and name in tried)
        leading = frozenset(name for name in running if self._is_leading(name, trials[name]))
        proven = self._verifier.proven()
        stable = {name: proven[name].learned.addresses for name in trials if name in proven}
        return CanaryView(self.policy, trials, stable, leading, dict(self.endings))

    # -- orders --------------------------------------------------------------------------

    def accepted(self, trials: ByName, name: str) -> Entry:
        """Return the candidate of ``name``, which an operator accepts.

        Raises:
            OrderError: it has none.
        """
        owned, trial = self._trial(trials, name)
        newest = self._verifier.newest(owned)
        if newest is None or set_of(newest) != trial.candidate:
            raise OrderError(f"{owned}: what was on trial is not what is learned now")
        self._log_promoted(owned, trial, Ending.ACCEPTED)
        return newest

    def refused(self, trials: ByName, name: str) -> ByName:
        """Return the trials after an operator has refused the candidate of ``name``.

        Raises:
            OrderError: it has none, or it is refused already.
        """
        owned, trial = self._trial(trials, name)
        if not trial.is_running:
            raise OrderError(f"{owned}: the new addresses are refused already")
        ended = rolled_back(trial, Ending.REFUSED, "by an operator", self._wall())
        self._log_rolled_back(owned, ended)
        return {**trials, owned: ended}

    def _trial(self, trials: ByName, name: str) -> tuple[str, Trial]:
        owned = canonical_name(name)
        trial = trials.get(owned)
        if trial is None:
            raise OrderError(f"{owned}: no new addresses are on trial")
        return owned, trial

    # -- the clock ------------------------------------------------------------------------

    async def run(self, trials: Callable[[], ByName], due: Callable[[], None]) -> None:
        """Call ``due`` when a hold is over, until cancelled; before that probes tell when to look."""
        while self.policy is not None:
            self._wake.clear()
            seconds = next_end(trials().values(), self.policy, self._wall())
            try:
                async with asyncio.timeout(seconds):
                    await self._wake.wait()
            except TimeoutError:
                due()

    # -- what is told ---------------------------------------------------------------------

    def _tell(self, name: str, earlier: Trial | None, trial: Trial | None, proven: Entry | None) -> None:
        stable: AddressSet = ((), None) if proven is None else set_of(proven)
        if earlier is not None and earlier.candidate == stable:
            self._log_promoted(name, earlier, Ending.OLD_FAILED)
        elif earlier is not None and trial is None:
            log.info("canary.withdrawn", name=name, new=list(earlier.addresses))
        if trial is not None:
            log.info(
                "canary.started",
                name=name,
                old=list(stable[0]),
                new=list(trial.addresses),
                group=self._is_leading(name, trial),
            )

    def _log_promoted(self, name: str, trial: Trial, ending: Ending) -> None:
        self.endings[ending] += 1
        log.info("canary.promoted", name=name, new=list(trial.addresses), reason=ending.value)

    def _log_rolled_back(self, name: str, trial: Trial) -> None:
        ending = trial.ending or Ending.REFUSED
        self.endings[ending] += 1
        log.warning(
            "canary.rolled_back",
            name=name,
            new=list(trial.addresses),
            reason=ending.value,
            detail=trial.detail,
        )


def canary_policy(settings: Settings) -> CanaryPolicy | None:
    """Return how to try; None where all take a new set at once."""
    canary = settings.learn.canary
    if canary is None:
        return None
    identity = settings.admin.identity or os.uname().nodename
    return CanaryPolicy(canary.share.part, canary.hold, canary.fall, identity)
