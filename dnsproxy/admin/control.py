"""Orders over HTTP: pin, unpin, freeze, unfreeze, roll back, end a canary, and what there is to choose from.

An order changes where names lead; `access` says from whom it is taken.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable
from typing import Any, Protocol

from aiohttp import web

from dnsproxy.admin.status import canary_document, orders_document
from dnsproxy.core.canary import CanaryView
from dnsproxy.core.orders import Orders, Record
from dnsproxy.errors import OrderError

Order = Callable[[dict[str, Any]], None]


class Control(Protocol):
    """Who takes the orders."""

    @property
    def orders(self) -> Orders:
        """What is ordered at this time."""

    def pin(self, name: str, addresses: Iterable[str]) -> None:
        """Answer ``name`` with ``addresses`` only."""

    def unpin(self, name: str) -> None:
        """Undo a pin."""

    def freeze(self) -> None:
        """Take no other sets."""

    def unfreeze(self) -> None:
        """Undo a freeze or a roll-back."""

    def rollback(self, serial: int) -> None:
        """Go back to what was learned with ``serial``."""

    def promote_canary(self, name: str) -> None:
        """Put the set of a name that is on trial, or was rolled back, into service."""

    def rollback_canary(self, name: str) -> None:
        """Refuse the set of a name that is on trial."""

    def canary(self) -> CanaryView:
        """What is on trial."""

    async def saved(self) -> str | None:
        """Write the orders; return why that failed."""


class ControlApi:
    """The handlers. `access` has checked each request before."""

    def __init__(self, control: Control) -> None:
        self._control = control

    def add_to(self, app: web.Application) -> None:
        """Add the routes."""
        control = self._control
        orders: dict[str, Order] = {
            "pin": lambda body: control.pin(_text(body, "name"), _texts(body, "addresses")),
            "unpin": lambda body: control.unpin(_text(body, "name")),
            "freeze": lambda _: control.freeze(),
            "unfreeze": lambda _: control.unfreeze(),
            "rollback": lambda body: control.rollback(_whole(body, "serial")),
            "canary/promote": lambda body: control.promote_canary(_text(body, "name")),
            "canary/rollback": lambda body: control.rollback_canary(_text(body, "name")),
        }
        for name, order in orders.items():
            app.router.add_post(f"/api/v1/{name}", self._handler(order))
        app.router.add_get("/api/v1/history", self.history)
        app.router.add_get("/api/v1/canary", self.canary)

    def _handler(self, order: Order) -> Callable[[web.Request], Awaitable[web.Response]]:
        async def handle(request: web.Request) -> web.Response:
            try:
                order(await _body(request))
            except ValueError as exc:
                return _error(str(exc), 400)
            except OrderError as exc:
                return _error(str(exc), 409)
            failure = await self._control.saved()
            return web.json_response({**orders_document(self._control.orders), "not_saved": failure})

        return handle

    async def history(self, _request: web.Request) -> web.Response:
        """Tell the sets that a roll-back can choose from, the newest first."""
        return web.json_response(history_document(self._control.orders))

    async def canary(self, _request: web.Request) -> web.Response:
        """Tell which new sets of addresses are on trial."""
        return web.json_response({"canary": canary_document(self._control.canary())})


def history_document(orders: Orders) -> dict[str, Any]:
    """Return each record with what it changed, as JSON."""
    records = []
    earlier: Record | None = None
    for record in orders.history:
        records.append(_record(record, earlier))
        earlier = record
    return {**orders_document(orders), "history": records[::-1]}


def _record(record: Record, earlier: Record | None) -> dict[str, Any]:
    before = {name: entry.learned.addresses for name, entry in earlier.entries.items()} if earlier else {}
    after = {name: entry.learned.addresses for name, entry in record.entries.items()}
    return {
        "serial": record.serial,
        "issuer": record.issuer,
        "taken_at": record.taken_at,
        "names": len(after),
        "changes": [
            {"name": name, "old": list(before.get(name, ())), "new": list(after.get(name, ()))}
            for name in sorted({*before, *after})
            if before.get(name) != after.get(name)
        ],
    }


async def _body(request: web.Request) -> dict[str, Any]:
    try:
        body: Any = await request.json()
    except RecursionError as exc:
        raise ValueError("the body is nested too deeply") from exc
    except LookupError as exc:
        raise ValueError(f"the body: {exc}") from exc  # a charset that nobody knows
    if not isinstance(body, dict):
        raise ValueError("the body must be a JSON object")  # noqa: TRY004 - the caller answers 400 to ValueError
    return body


def _text(body: dict[str, Any], key: str) -> str:
    value = body.get(key)
    if not isinstance(value, str):
        raise ValueError(f"{key}: must be a text")  # noqa: TRY004 - the same
    return value


def _texts(body: dict[str, Any], key: str) -> list[str]:
    value = body.get(key)
    if not isinstance(value, list) or not all(isinstance(item, str) for item in value):
        raise ValueError(f"{key}: must be a list of texts")
    return value


def _whole(body: dict[str, Any], key: str) -> int:
    value = body.get(key)
    if not isinstance(value, int) or isinstance(value, bool):
        raise ValueError(f"{key}: must be a whole number")  # noqa: TRY004 - the same
    return value


def _error(text: str, status: int) -> web.Response:
    return web.json_response({"error": text}, status=status)
