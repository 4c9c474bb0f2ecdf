"""Orders over HTTP: pin, unpin, freeze, unfreeze, roll back, end a canary, and what there is to choose from.

An order changes where names lead; `access` says from whom it is taken.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable
from functools import partial
from typing import Any, Protocol

from aiohttp import web

from dnsproxy.admin.status import canary_document, overrides_document
from dnsproxy.admin.turns import Turns
from dnsproxy.core.addresses.held import held_reason
from dnsproxy.core.addresses.lifecycle import AddressLifecycle
from dnsproxy.core.addresses.overrides import Freeze, Overrides, Record, canonical_name
from dnsproxy.errors import OrderError

Command = Callable[[AddressLifecycle, float], None]
Result = dict[str, Any]
# Changes the state at a Unix time and returns the result: what was changed, read in the same step.
Change = Callable[[AddressLifecycle, float], Result]
# Why a change of a name from one set to another is not answered; None when it is.
Held = Callable[[str, Iterable[str], Iterable[str]], str | None]
Order = Callable[[dict[str, Any]], Change]


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
        self._turns = Turns()

    def add_to(self, app: web.Application) -> None:
        """Add the routes."""
        orders: dict[str, Order] = {
            "pin": _pin,
            "unpin": _unpin,
            "freeze": lambda _: _freeze,
            "unfreeze": lambda _: _unfreeze,
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
            result: Result = {}
            try:
                change = order(await _body(request))
                failure = await self._controlled.addresses.order(
                    lambda state, now: result.update(change(state, now))
                )
            except ValueError as exc:
                return _error(str(exc), 400)
            except OrderError as exc:
                return _error(str(exc), 409)
            return web.json_response(
                {
                    "result": result,
                    **overrides_document(self._controlled.addresses.lifecycle.overrides),
                    "not_saved": failure,
                }
            )

        return handle

    async def history(self, _request: web.Request) -> web.Response:
        """Tell the sets that a roll-back can choose from, the newest first."""
        async with self._turns.next():
            return web.json_response(current_history(self._controlled.addresses.lifecycle))

    async def canary(self, _request: web.Request) -> web.Response:
        """Tell which new sets of addresses are on trial."""
        async with self._turns.next():
            canary = self._controlled.addresses.lifecycle.canary()
            return web.json_response({"canary": canary_document(canary)})


def _pin(body: dict[str, Any]) -> Change:
    name, addresses = _text(body, "name"), _texts(body, "addresses")

    def change(state: AddressLifecycle, wall_now: float) -> Result:
        state.pin(name, addresses, wall_now)
        managed = canonical_name(name)
        return {"name": managed, "addresses": list(state.overrides.pins[managed].addresses)}

    return change


def _unpin(body: dict[str, Any]) -> Change:
    name = _text(body, "name")

    def change(state: AddressLifecycle, _: float) -> Result:
        managed = canonical_name(name)
        before = state.overrides.pins.get(managed)
        state.unpin(name)
        return {"name": managed, "addresses": list(before.addresses) if before is not None else []}

    return change


def _freeze(state: AddressLifecycle, wall_now: float) -> Result:
    state.freeze(wall_now)
    return _frozen(state.overrides.freeze)


def _unfreeze(state: AddressLifecycle, _: float) -> Result:
    before = state.overrides.freeze
    state.unfreeze()
    return _frozen(before)


def _rollback(body: dict[str, Any]) -> Change:
    serial = _whole(body, "serial")

    def change(state: AddressLifecycle, wall_now: float) -> Result:
        state.rollback(serial, wall_now)
        return _frozen(state.overrides.freeze)

    return change


def _frozen(freeze: Freeze | None) -> Result:
    return {
        "names": len(freeze.sets) if freeze is not None else 0,
        "rolled_back_to": freeze.serial if freeze is not None else None,
    }


def _promote(body: dict[str, Any]) -> Change:
    name = _text(body, "name")
    return lambda state, _: _ended(state, name, lambda: state.promote(name))


def _refuse(body: dict[str, Any]) -> Change:
    name = _text(body, "name")
    return lambda state, wall_now: _ended(state, name, lambda: state.refuse(name, wall_now))


def _ended(state: AddressLifecycle, name: str, end: Callable[[], None]) -> Result:
    managed, view = canonical_name(name), state.canary()
    end()
    trial = view.trials.get(managed)
    new = list(trial.addresses) if trial is not None else []
    return {"name": managed, "old": list(view.stable.get(managed, ())), "new": new}


def current_history(state: AddressLifecycle) -> dict[str, Any]:
    """Return `history_document` of what is in force."""
    return history_document(state.overrides, partial(held_reason, state))


def history_document(overrides: Overrides, held: Held) -> dict[str, Any]:
    """Return each record with what it changed, as JSON.

    ``held`` of a change says why it is not what clients are answered; it is null for those before the last
    change of the name that is.
    """
    records, earlier = [], [None, *overrides.history]
    answered: set[str] = set()  # names of which a later change is
    for record, before in zip(overrides.history[::-1], earlier[-2::-1], strict=True):
        records.append(_record(held, record, before, answered))
    return {**overrides_document(overrides), "history": records}


def _record(held: Held, record: Record, earlier: Record | None, answered: set[str]) -> dict[str, Any]:
    before = {name: entry.learned.addresses for name, entry in earlier.sets.items()} if earlier else {}
    after = {name: entry.learned.addresses for name, entry in record.sets.items()}
    changes = []
    for name in sorted({*before, *after}):
        old, new = before.get(name, ()), after.get(name, ())
        if old == new:
            continue
        reason = None if name in answered else held(name, old, new)
        if reason is None:
            answered.add(name)
        changes.append({"name": name, "old": list(old), "new": list(new), "held": reason})
    return {
        "serial": record.serial,
        "issuer": record.issuer,
        "taken_at": record.taken_at,
        "names": len(after),
        "changes": changes,
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
