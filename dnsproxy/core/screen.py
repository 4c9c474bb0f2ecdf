"""Sets of addresses without what must not be answered, and a count of what that was."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace

from dnsproxy.core.book import Entry
from dnsproxy.core.guard import Finding, LimitTable, is_routed, refusal
from dnsproxy.core.holding import AddressState
from dnsproxy.core.notice import Situation
from dnsproxy.core.registry import Wanted


@dataclass(frozen=True, slots=True)
class Vetted:
    """All that is known of the addresses of one name: ``routed`` as `guard.is_routed`, by address."""

    states: tuple[AddressState, ...] = ()
    refused: tuple[Finding, ...] = ()
    routed: Mapping[str, bool | None] = field(default_factory=dict)


@dataclass(slots=True)
class Screen:
    """Looks at sets under ``limits``.

    ``findings`` are by name what was refused last; ``refused`` counts by reason how often an
    address that was not refused before was.
    """

    limits: LimitTable
    findings: dict[str, tuple[Finding, ...]] = field(default_factory=dict)
    refused: Counter[str] = field(default_factory=Counter)

    def passed(self, entries: Mapping[str, Entry]) -> dict[str, Entry]:
        """Return the sets without their refused addresses; those with no other are left out."""
        return {
            name: good for name, entry in entries.items() if (good := self._without(entry)[0]) is not None
        }

    def take(self, entries: Mapping[str, Entry]) -> tuple[dict[str, Entry], list[str]]:
        """As `passed`, for the newest set of every name; also return the names whose findings changed."""
        passed: dict[str, Entry] = {}
        changed = []
        for name, entry in entries.items():
            good, found = self._without(entry)
            if good is not None:
                passed[name] = good
            before = self.findings.get(name, ())
            if found != before:
                changed.append(name)
                self.refused.update(finding.reason.value for finding in found if finding not in before)
                self.findings[name] = found
        for name in set(self.findings) - set(entries):
            del self.findings[name]
        return passed, changed

    def routed(self, wanted: Wanted, addresses: Iterable[str]) -> dict[str, bool | None]:
        """Tell of each of ``addresses`` of a name whether this side has a route; None where nobody said."""
        limits = self.limits.of(wanted.name, wanted.registry)
        return {address: is_routed(address, limits.routed) for address in addresses}

    def situations(
        self, wanted: Iterable[Wanted], served: Mapping[str, Entry], learned: Mapping[str, Entry]
    ) -> dict[str, Situation]:
        """Return what `core.notice` tells of each name that has an address."""
        found = {}
        for entry in wanted:
            held, newest = served.get(entry.name), learned.get(entry.name)
            answered = entry.addresses or (held.learned.addresses if held else ())
            refused = {finding.address for finding in self.findings.get(entry.name, ())}
            known = tuple(a for a in (newest.learned.addresses if newest else ()) if a not in refused)
            if answered or known:
                reached = self.routed(entry, {*answered, *known})
                unrouted = tuple(sorted(address for address in reached if reached[address] is False))
                found[entry.name] = Situation(entry.role, entry.registry, answered, known, unrouted)
        return found

    def _without(self, entry: Entry) -> tuple[Entry | None, tuple[Finding, ...]]:
        learned = entry.learned
        limits = self.limits.of(learned.name, learned.registry)
        found = tuple(f for a in learned.addresses if (f := refusal(a, limits)) is not None)
        if not found:
            return entry, ()
        bad = {finding.address for finding in found}
        good = tuple(address for address in learned.addresses if address not in bad)
        return (Entry(replace(learned, addresses=good), entry.snapshot) if good else None), found
