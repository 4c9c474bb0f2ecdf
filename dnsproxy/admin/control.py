"""Orders over HTTP: pin, unpin, freeze, unfreeze, roll back, end a canary, and what there is to choose from.

An order changes where names lead; `access` says from whom it is taken.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any, Protocol

from aiohttp import web

from dnsproxy.admin.status import canary_document, overrides_document
from dnsproxy.core.addresses.lifecycle import AddressLifecycle
from dnsproxy.core.addresses.overrides import Overrides, Record
from dnsproxy.errors import OrderError

Command = Callable[[AddressLifecycle, float], None]
Order = Callable[[dict[str, Any]], Command]


class Control(Protocol):
    """Takes the commands: an `AddressService`."""

    @property
    def lifecycle(self) -> AddressLifecycle:
        """The state that the commands change."""

    async def order(self, command: Command) -> str | None:
        """Run ``command``; return why the state is not on disk, None when it is. Raises `OrderError`."""


class Controlled(Protocol):
    """Has what takes the commands, at each time: an `app.Proxy`."""

    @property
    def addresses(self) -> Control:
        """What takes the commands."""


class ControlApi:
    """The handlers. `access` has checked each request before."""

    def __init__(self, controlled: Controlled) -> None:
        self._controlled = controlled

    def add_to(self, app: web.Application) -> None:
        """Add the routes."""
        orders: dict[str, Order] = {
            "pin": _pin,
            "unpin": _unpin,
            "freeze": lambda _: lambda state, wall_now: state.freeze(wall_now),
            "unfreeze": lambda _: lambda state, _: state.unfreeze(),
            "rollback": _rollback,
            "canary/promote": _promote,
            "canary/rollback": _refuse,
        }
        for name, order in orders.items():
            app.router.add_post(f"/api/v1/{name}", self._handler(order))
        app.router.add_get("/api/v1/history", self.history)
        app.router.add_get("/api/v1/canary", self.canary)

    def _handler(self, order: Order) -> Callable[[web.Request], Awaitable[web.Response]]:
        async def handle(request: web.Request) -> web.Response:
            try:
                failure = await self._controlled.addresses.order(order(await _body(request)))
            except ValueError as exc:
                return _error(str(exc), 400)
            except OrderError as exc:
                return _error(str(exc), 409)
            return web.json_response(
                {**overrides_document(self._controlled.addresses.lifecycle.overrides), "not_saved": failure}
            )

        return handle

    async def history(self, _request: web.Request) -> web.Response:
        """Tell the sets that a roll-back can choose from, the newest first."""
        return web.json_response(history_document(self._controlled.addresses.lifecycle.overrides))

    async def canary(self, _request: web.Request) -> web.Response:
        """Tell which new sets of addresses are on trial."""
        return web.json_response({"canary": canary_document(self._controlled.addresses.lifecycle.canary())})


def _pin(body: dict[str, Any]) -> Command:
    name, addresses = _text(body, "name"), _texts(body, "addresses")
    return lambda state, wall_now: state.pin(name, addresses, wall_now)


def _unpin(body: dict[str, Any]) -> Command:
    name = _text(body, "name")
    return lambda state, _: state.unpin(name)


def _rollback(body: dict[str, Any]) -> Command:
    serial = _whole(body, "serial")
    return lambda state, wall_now: state.rollback(serial, wall_now)


def _promote(body: dict[str, Any]) -> Command:
    name = _text(body, "name")
    return lambda state, _: state.promote(name)


def _refuse(body: dict[str, Any]) -> Command:
    name = _text(body, "name")
    return lambda state, wall_now: state.refuse(name, wall_now)


def history_document(overrides: Overrides) -> dict[str, Any]:
    """Return each record with what it changed, as JSON."""
    records = []
    earlier: Record | None = None
    for record in overrides.history:
        records.append(_record(record, earlier))
        earlier = record
    return {**overrides_document(overrides), "history": records[::-1]}


def _record(record: Record, earlier: Record | None) -> dict[str, Any]:
    before = {name: entry.learned.addresses for name, entry in earlier.sets.items()} if earlier else {}
    after = {name: entry.learned.addresses for name, entry in record.sets.items()}
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
