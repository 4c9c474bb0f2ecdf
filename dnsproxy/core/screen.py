"""Sets of addresses without what must not be answered, and a count of what that was."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from dnsproxy.core.book import Entry
from dnsproxy.core.guard import Finding, LimitTable, refusal
from dnsproxy.core.verify import AddressState


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

    def _without(self, entry: Entry) -> tuple[Entry | None, tuple[Finding, ...]]:
        learned = entry.learned
        limits = self.limits.of(learned.name, learned.registry)
        found = tuple(f for a in learned.addresses if (f := refusal(a, limits)) is not None)
        if not found:
            return entry, ()
        bad = {finding.address for finding in found}
        good = tuple(address for address in learned.addresses if address not in bad)
        return (Entry(replace(learned, addresses=good), entry.snapshot) if good else None), found
