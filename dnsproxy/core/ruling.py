"""What the proxies of a fleet say of new sets on trial, and what a helper makes of it: which are refused.

A set is refused when so many proxies as the ``quorum`` says have rolled it back by their own probes. What
an operator has refused on one of them, or a helper before, is not counted: the one is about that proxy, the
other would keep a refusal alive by itself.
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
_BY_PROBES = frozenset({TrialOutcome.FAILED.value, TrialOutcome.SILENT.value})


def refusals_from(document: object) -> frozenset[Refusal]:
    """Return what a proxy has rolled back, from its ``/api/v1/canary``.

    Raises:
        SnapshotError: ``MALFORMED``, naming the first key that is wrong.
    """
    fields = Fields(document, "answer")
    if not fields.has("canary"):
        return frozenset()
    canary = fields.inner("canary")
    listed = canary.sequence("trials")
    if len(listed) > MAX_NAMES:
        raise SnapshotError(Rejection.MALFORMED, f"canary.trials: more than {MAX_NAMES}")
    found = set()
    for index, item in enumerate(listed):
        trial = Fields(item, f"canary.trials[{index}]")
        if trial.text("state") == State.ROLLED_BACK and trial.has("reason"):
            name, addresses = trial.name("name"), trial.texts("new")
            try:
                refused = canonical_addresses(addresses)
            except ValueError as exc:
                raise trial.wrong("new", str(exc)) from exc
            if trial.text("reason") in _BY_PROBES and refused:
                found.add((name, refused))
    return frozenset(found)


class Ruling:
    """Counts what ``proxies`` say. One that does not answer is taken to say what it said last."""

    def __init__(self, proxies: Iterable[str], quorum: int) -> None:
        self._silent = set(proxies)
        self._quorum = quorum
        self._said: dict[str, frozenset[Refusal]] = {}
        self._before: frozenset[Refusal] = frozenset()

    def restore(self, entries: Iterable[LearnedName]) -> None:
        """Go on from what was published before a restart, while proxies not heard yet may decide it."""
        self._before = frozenset((entry.name, refused) for entry in entries for refused in entry.refused)

    def take(self, proxy: str, refusals: frozenset[Refusal]) -> None:
        """Take what ``proxy`` says now."""
        self._silent.discard(proxy)
        self._said[proxy] = refusals

    def refused(self) -> frozenset[Refusal]:
        """Return the sets that are refused."""
        votes = Counter(refusal for refusals in self._said.values() for refusal in refusals)
        decided = frozenset(refusal for refusal, count in votes.items() if count >= self._quorum)
        # A proxy that is gone for good must not keep what all others take back.
        missing = self._quorum - len(self._silent)
        open_still = {refusal for refusal in self._before if self._silent and votes[refusal] >= missing}
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
