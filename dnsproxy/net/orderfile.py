"""The operator's orders on disk, beside the state file: one JSON document, replaced whole or not at all."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from pathlib import Path

import structlog

from dnsproxy.core.orders import Orders
from dnsproxy.errors import SnapshotError
from dnsproxy.net.statefile import StateWriter, read_state, set_aside

log: structlog.typing.FilteringBoundLogger = structlog.get_logger()


def orders_path(state_file: Path) -> Path:
    """Return where the orders are of the proxy whose state is in ``state_file``."""
    return state_file.with_name(f"{state_file.name}.orders")


def read_orders(path: Path) -> Orders:
    """Return the orders in the file at ``path``; none where there is no such file.

    Raises:
        OSError: the file is there and cannot be read.
        ValueError, RecursionError, SnapshotError: it does not hold orders.
    """
    lines = read_state(path)
    return Orders.from_payload(json.loads("\n".join(lines))) if lines else Orders()


class OrderFile:
    """The file for the proxy whose state is in ``state_file``."""

    def __init__(self, state_file: Path, wall: Callable[[], float] = time.time) -> None:
        self.path = orders_path(state_file)
        self._wall = wall
        self._writer = StateWriter(self.path)
        self._written = Orders()

    def load(self) -> Orders:
        """Return what is on disk; what cannot be used is set aside, and nothing is ordered. Never raises."""
        try:
            self._written = read_orders(self.path)
        except OSError as exc:
            # A traceback would say nothing more than the system's reason.
            log.error("learned.orders_unreadable", file=str(self.path), reason=exc.strerror)  # noqa: TRY400
        except (ValueError, RecursionError, SnapshotError) as exc:
            log.warning("learned.orders_rejected", file=str(self.path), detail=str(exc))
        else:
            return self._written
        # The next write takes its place, and somebody's pins may be in it.
        set_aside(self.path, self._wall())
        return Orders()

    def offer(self, orders: Orders) -> None:
        """Have ``orders`` written soon, if they are others than those on disk."""
        if orders != self._written:
            self._written = orders
            self._writer.offer([json.dumps(orders.to_payload())], urgent=True)

    @property
    def failure(self) -> str | None:
        """Why the file could not be written last; None when it could."""
        return self._writer.failure

    async def run(self) -> None:
        """Write what is offered until cancelled."""
        await self._writer.run()

    async def flush(self) -> str | None:
        """Write what waits to be written; return why the last write failed, None when it did not."""
        await self._writer.flush()
        return self._writer.failure
