"""Where snapshots go besides the HTTP endpoint: one loop for each target, with the latest one only."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Protocol

import structlog

from dnsproxy.core.retry import next_delay
from dnsproxy.errors import PublishError
from dnsproxy.settings import etcd
from dnsproxy.settings.publishing import TargetSettings
from dnsproxy.supervise import attempt, note_failure, supervise
from dnsproxy.transport.reasons import os_reason

# Seconds for one write or read.
DEADLINE = 10.0
# Seconds before the first retry, and between retries at the most.
FIRST_RETRY = 1.0
MAX_BACKOFF = 60.0

log: structlog.typing.FilteringBoundLogger = structlog.get_logger()


class Target(Protocol):
    """A place that snapshots are put to."""

    name: str

    async def write(self, token: str) -> None:
        """Put ``token`` in place of what is there. May be cancelled at any time.

        Raises:
            PublishError, OSError: it could not; no secret in the message.
        """

    async def read(self) -> str | None:
        """Return what is there now, unverified; None when there is nothing.

        Raises:
            PublishError, OSError: as `write`.
        """

    async def close(self) -> None:
        """Let go of connections."""


@dataclass(slots=True)
class TargetStatus:
    """How a target is: the serial of the snapshot it was given last, and why it has not a later one."""

    name: str
    serial: int | None = None
    error: str | None = None
    failures: int = 0
    """Writes that failed since the start."""


class _Outlet:
    """One target, and the snapshot that it is to have."""

    def __init__(self, target: Target, draw: Callable[[], float]) -> None:
        self.target = target
        self.status = TargetStatus(target.name)
        self._draw = draw
        self._latest: tuple[str, int] | None = None
        self._offered = asyncio.Event()

    def offer(self, token: str, serial: int) -> None:
        self._latest = token, serial
        self._offered.set()

    def withdraw(self) -> None:
        self._latest = None
        self.status.error = None

    async def run(self) -> None:
        failed = 0
        while True:
            await self._offered.wait()
            self._offered.clear()
            if await self._write():
                failed = 0
                continue
            failed += 1
            # A later snapshot does not shorten the pause: it is the target that is not well.
            await asyncio.sleep(next_delay(failed, FIRST_RETRY, MAX_BACKOFF, self._draw()))
            self._offered.set()

    async def _write(self) -> bool:
        if self._latest is None:
            self.status.error = None
            return True
        token, serial = self._latest
        try:
            async with asyncio.timeout(DEADLINE):
                await self.target.write(token)
        except (PublishError, OSError) as exc:
            self._fail(_reason(exc))
            return False
        except Exception:  # a mistake of ours in one target must not end the others, nor the looks
            log.exception("helper.target_crashed", target=self.target.name)
            self._fail("an error of this program; the log has it")
            return False
        self.status.serial = serial
        if self.status.error is not None:
            log.info("helper.target_recovered", target=self.target.name)
            self.status.error = None
        return True

    def _fail(self, reason: str) -> None:
        self.status.failures += 1
        if self.status.error is None:
            log.warning("helper.target_failed", target=self.target.name, reason=reason)
        self.status.error = reason


class Outlets:
    """Keeps every one of ``targets`` supplied. ``draw`` gives 0 up to 1, to spread retries."""

    def __init__(self, targets: Iterable[Target], draw: Callable[[], float] = random.random) -> None:
        self._outlets = [_Outlet(target, draw) for target in targets]

    @property
    def statuses(self) -> list[TargetStatus]:
        """How each target is, as configured."""
        return [outlet.status for outlet in self._outlets]

    def offer(self, token: str, serial: int) -> None:
        """Have ``token`` put everywhere, in place of one that has not been put yet."""
        for outlet in self._outlets:
            outlet.offer(token, serial)

    def withdraw(self) -> None:
        """Try no more to put what was offered: another helper has put something later."""
        for outlet in self._outlets:
            outlet.withdraw()

    async def read(self) -> list[tuple[str, str]]:
        """Return name and content of each target that has something; who cannot be read is logged."""
        found = await asyncio.gather(*(_read(outlet.target) for outlet in self._outlets))
        return [
            (outlet.target.name, token)
            for outlet, token in zip(self._outlets, found, strict=True)
            if token is not None
        ]

    async def run(self) -> None:
        """Write until cancelled, then close the targets."""
        try:
            async with asyncio.TaskGroup() as group:
                for outlet in self._outlets:
                    group.create_task(supervise("target", outlet.run, detail=outlet.target.name))
        finally:
            for outlet in self._outlets:
                await attempt("target", outlet.target.close)


async def _read(target: Target) -> str | None:
    try:
        async with asyncio.timeout(DEADLINE):
            return await target.read()
    except (PublishError, OSError) as exc:
        log.warning("helper.target_unread", target=target.name, reason=_reason(exc))
        return None
    except Exception as exc:  # noqa: BLE001 - what the other targets have is of use
        note_failure("target", exc, detail=target.name)
        return None


def _reason(exc: Exception) -> str:
    if isinstance(exc, TimeoutError) and not exc.args:
        return f"not done within {DEADLINE:g} s"
    return os_reason(exc)


def make_targets(entries: Sequence[TargetSettings]) -> list[Target]:
    """Return the targets of ``helper.publish``. Nothing is opened yet.

    Raises:
        StartError: what a target takes is not installed, or a file of it cannot be used.
    """
    return [make_target(entry) for entry in entries]


def make_target(entry: TargetSettings) -> Target:
    """As `make_targets`, for one. What it takes is imported for targets that are configured only."""
    # One branch for each kind.
    if entry.type == "s3":
        from dnsproxy.helper.target_s3 import S3Target  # noqa: PLC0415

        return S3Target(entry)
    if isinstance(entry, etcd.EtcdTarget):
        from dnsproxy.helper.target_etcd import EtcdTarget  # noqa: PLC0415

        return EtcdTarget(entry)
    if entry.type == "kubernetes":
        from dnsproxy.helper.target_kubernetes import KubernetesTarget  # noqa: PLC0415

        return KubernetesTarget(entry)
    from dnsproxy.helper.target_file import FileTarget  # noqa: PLC0415

    return FileTarget(entry)
