"""What the helper logs of its rounds."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import structlog

from dnsproxy.core.learned import LearnedName
from dnsproxy.helper.observe import Look

log: structlog.typing.FilteringBoundLogger = structlog.get_logger()


class Journal:
    """Logs changes only: what stays broken is said once."""

    def __init__(self) -> None:
        self._failing: set[str] = set()
        self._silent: set[str] = set()
        self._write_failure: str | None = None

    def record(
        self,
        before: dict[str, LearnedName],
        entries: Sequence[LearnedName],
        looks: Sequence[Sequence[Look]],
        serial: int,
    ) -> None:
        """Log what has changed between ``before`` and ``entries``, which ``looks`` led to."""
        for entry, seen in zip(entries, looks, strict=True):
            held = before.get(entry.name)
            old = held.addresses if held else ()
            failed = entry.status != "ok"
            if failed and entry.name not in self._failing:
                reasons = [look.error for look in seen if look.error]
                log.warning("helper.resolve_failed", name=entry.name, status=entry.status, reasons=reasons)
            elif not failed and (old != entry.addresses or entry.name in self._failing):
                log.info("helper.resolved", name=entry.name, old=old, new=entry.addresses, serial=serial)
        self._failing = {entry.name for entry in entries if entry.status != "ok"}
        self._record_resolvers([look for seen in looks for look in seen])

    def _record_resolvers(self, looks: Sequence[Look]) -> None:
        answering = {look.resolver for look in looks if look.error is None}
        silent = {look.resolver: look.error for look in looks if look.resolver not in answering}
        for resolver in sorted(set(silent) - self._silent):
            log.warning("helper.resolver_failed", resolver=resolver, reason=silent[resolver])
        for resolver in sorted(self._silent - set(silent)):
            log.info("helper.resolver_recovered", resolver=resolver)
        self._silent = set(silent)

    def record_write(self, path: Path, failure: str | None) -> None:
        """Log that the publish file cannot be written, or can again."""
        if failure and failure != self._write_failure:
            log.error("helper.publish_file_failed", file=str(path), reason=failure)
        elif self._write_failure and not failure:
            log.info("helper.publish_file_written", file=str(path))
        self._write_failure = failure
