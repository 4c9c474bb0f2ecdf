"""What the proxies of a fleet say of new sets on trial, and what a helper makes of it: which are refused.

A set is refused when so many proxies as the ``quorum`` says have rolled it back by their own probes, for 24
hours: a vote is good for so long, and repeating it makes it no younger. So no proxy keeps a set out for good.
What an operator has refused on one of them, or a helper before, is not counted: the one is about that proxy,
the other would keep a refusal alive by itself.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import replace

from dnsproxy.core.addresses.canary import State, TrialOutcome
from dnsproxy.core.fields import Fields
from dnsproxy.core.learned import MAX_NAMES, MAX_REFUSED, LearnedName, canonical_addresses
from dnsproxy.errors import Rejection, SnapshotError

# A name, and the addresses of a set that is refused.
Refusal = tuple[str, tuple[str, ...]]
# Seconds that a vote counts for, and what was refused before a restart.
LIFETIME = 86_400.0
_BY_PROBES = frozenset({TrialOutcome.FAILED.value, TrialOutcome.SILENT.value})


def refusals_from(document: object) -> dict[Refusal, float | None]:
    """Return what a proxy has rolled back, and when (Unix seconds, or None), from its ``/api/v1/canary``.

    Raises:
        SnapshotError: ``MALFORMED``, naming the first key that is wrong.
    """
    fields = Fields(document, "answer")
    if not fields.has("canary"):
        return {}
    canary = fields.inner("canary")
    listed = canary.sequence("trials")
    if len(listed) > MAX_NAMES:
        raise SnapshotError(Rejection.MALFORMED, f"canary.trials: more than {MAX_NAMES}")
    found: dict[Refusal, float | None] = {}
    for index, item in enumerate(listed):
        trial = Fields(item, f"canary.trials[{index}]")
        if trial.text("state") == State.ROLLED_BACK and trial.has("reason"):
            name, addresses = trial.name("name"), trial.texts("new")
            try:
                refused = canonical_addresses(addresses)
            except ValueError as exc:
                raise trial.wrong("new", str(exc)) from exc
            if trial.text("reason") in _BY_PROBES and refused:
                found[name, refused] = trial.optional_moment("ended_at")
    return found


class Ruling:
    """Counts what ``proxies`` say. One that does not answer is taken to say what it said last.

    ``wall_now`` is Unix seconds.
    """

    def __init__(self, proxies: Iterable[str], quorum: int) -> None:
        self._silent = set(proxies)
        self._quorum = quorum
        # Since when each proxy says it.
        self._said: dict[str, dict[Refusal, float]] = {}
        self._before: frozenset[Refusal] = frozenset()
        self._restored_at = 0.0

    def restore(self, entries: Iterable[LearnedName], wall_now: float) -> None:
        """Continue what was published before a restart, while proxies not heard yet may decide it."""
        self._restored_at = wall_now
        self._before = frozenset((entry.name, refused) for entry in entries for refused in entry.refused)

    def take(self, proxy: str, refusals: Mapping[Refusal, float | None], wall_now: float) -> None:
        """Take what ``proxy`` says now: which sets it has rolled back, and when."""
        self._silent.discard(proxy)
        before = self._said.get(proxy, {})
        self._said[proxy] = {
            refusal: min(before.get(refusal, wall_now), wall_now, wall_now if ended_at is None else ended_at)
            for refusal, ended_at in refusals.items()
        }

    def refused(self, wall_now: float) -> frozenset[Refusal]:
        """Return the sets that are refused."""
        oldest = wall_now - LIFETIME
        votes = Counter(
            refusal for said in self._said.values() for refusal, since in said.items() if since > oldest
        )
        decided = frozenset(refusal for refusal, count in votes.items() if count >= self._quorum)
        # A proxy that is gone for good must not keep what all others take back.
        missing = self._quorum - len(self._silent)
        may_decide = bool(self._silent) and self._restored_at > oldest
        open_still = {refusal for refusal in self._before if may_decide and votes[refusal] >= missing}
        return decided | open_still


def with_refusals(entries: Iterable[LearnedName], refused: Iterable[Refusal]) -> tuple[LearnedName, ...]:
    """Return what to publish: each name with the refused sets that it still has the addresses of."""
    by_name: dict[str, list[tuple[str, ...]]] = {}
    for name, addresses in sorted(refused):
        by_name.setdefault(name, []).append(addresses)
    return tuple(_with(entry, by_name) for entry in entries)


def _with(entry: LearnedName, by_name: Mapping[str, list[tuple[str, ...]]]) -> LearnedName:
    # Proxies try a set without the addresses that they may not answer, so theirs may be smaller.
    current = [found for found in by_name.get(entry.name, ()) if set(found) <= set(entry.addresses)]
    return replace(entry, refused=tuple(current[:MAX_REFUSED]))
