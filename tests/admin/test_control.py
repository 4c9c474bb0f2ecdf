from __future__ import annotations

import json
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from types import SimpleNamespace
from typing import Any, ClassVar, cast

import pytest
from aiohttp import web
from aiohttp.test_utils import TestClient, TestServer
from hypothesis import given
from hypothesis import strategies as st

from dnsproxy.admin.control import Command, ControlApi, current_history
from dnsproxy.core.addresses.canary import CanaryPolicy, CanaryView
from dnsproxy.core.addresses.lifecycle import AddressLifecycle
from dnsproxy.core.addresses.name_state import AddressPolicy
from dnsproxy.core.addresses.overrides import Freeze, Overrides, Pin, Record, canonical_name
from dnsproxy.core.registry import Wanted
from dnsproxy.errors import OrderError
from tests.lifecycles import H1, INTERVAL, NAME, ProxyModel
from tests.strategies import json_values, statement


class RecordedState:
    """Takes the place of the state machine and records the commands."""

    def __init__(self) -> None:
        self.overrides = Overrides()
        self.told: list[tuple[Any, ...]] = []
        self.refuses = False

    def _note(self, *order: Any) -> None:
        if self.refuses:
            raise OrderError("it cannot be")
        self.told.append(order)

    def pin(self, name: str, addresses: Iterable[str], wall_now: float) -> None:
        managed = canonical_name(name)
        self._note("pin", name, list(addresses))
        self.overrides = Overrides(pins={managed: Pin(tuple(addresses), int(wall_now))})

    def unpin(self, name: str) -> None:
        self._note("unpin", name)

    def freeze(self, wall_now: float) -> None:
        self._note("freeze", wall_now)

    def unfreeze(self) -> None:
        self._note("unfreeze")

    def rollback(self, serial: int, wall_now: float) -> None:
        self._note("rollback", serial)
        self.overrides = Overrides(freeze=Freeze(int(wall_now), {}, serial))

    def promote(self, name: str) -> None:
        self._note("promote", name)

    def refuse(self, name: str, wall_now: float) -> None:
        self._note("refuse", name, wall_now)

    def canary(self) -> CanaryView:
        return CanaryView()

    # No name is configured, so every change is held.
    managed_by_name: ClassVar[dict[str, Wanted]] = {}

    def served(self, _name: str) -> None:
        return None


class Control:
    """Runs each command at Unix time 1000; ``failure`` is why nothing is on disk."""

    def __init__(self) -> None:
        self.state = RecordedState()
        self.failure: str | None = None

    @property
    def lifecycle(self) -> AddressLifecycle:
        return cast("AddressLifecycle", self.state)

    @property
    def told(self) -> list[tuple[Any, ...]]:
        return self.state.told

    async def order(self, command: Command) -> str | None:
        command(self.lifecycle, 1000.0)
        return self.failure


Ask = Callable[..., Awaitable[tuple[int, Any]]]


@pytest.fixture
def control() -> Control:
    return Control()


async def asking(control: Control) -> AsyncIterator[Ask]:
    app = web.Application()
    ControlApi(SimpleNamespace(addresses=control)).add_to(app)
    async with TestClient(TestServer(app)) as client:

        async def ask(path: str, **options: Any) -> tuple[int, Any]:
            async with client.post(f"/api/v1/{path}", **options) as response:
                return response.status, await response.json()

        yield ask


@pytest.fixture
async def ask(control: Control) -> AsyncIterator[Ask]:
    async for asked in asking(control):
        yield asked


@pytest.mark.parametrize(
    ("order", "body", "told"),
    [
        ("pin", {"name": "a.example", "addresses": ["10.0.0.1"]}, ("pin", "a.example", ["10.0.0.1"])),
        ("unpin", {"name": "a.example"}, ("unpin", "a.example")),
        ("freeze", {}, ("freeze", 1000.0)),
        ("unfreeze", {}, ("unfreeze",)),
        ("rollback", {"serial": 7}, ("rollback", 7)),
        ("canary/promote", {"name": "a.example"}, ("promote", "a.example")),
        ("canary/rollback", {"name": "a.example"}, ("refuse", "a.example", 1000.0)),
    ],
)
async def test_orders_are_passed_on(
    order: str, body: dict[str, Any], told: tuple[Any, ...], control: Control, ask: Ask
) -> None:
    status, _ = await ask(order, json=body)
    assert status == 200
    assert control.told == [told]


async def test_the_canary_is_told(control: Control) -> None:
    app = web.Application()
    ControlApi(SimpleNamespace(addresses=control)).add_to(app)
    async with TestClient(TestServer(app)) as client, client.get("/api/v1/canary") as response:
        assert (response.status, await response.json()) == (200, {"canary": None})


async def test_the_answer_says_what_holds_now(control: Control, ask: Ask) -> None:
    assert await ask("pin", json={"name": "a.example.", "addresses": ["10.0.0.1"]}) == (
        200,
        {
            "result": {"name": "a.example.", "addresses": ["10.0.0.1"]},
            "pinned": [{"name": "a.example.", "addresses": ["10.0.0.1"], "since": 1000}],
            "frozen": None,
            "not_saved": None,
        },
    )
    control.failure = "No space left on device"
    assert await ask("rollback", json={"serial": 7}) == (
        200,
        {
            "result": {"names": 0, "rolled_back_to": 7},
            "pinned": [],
            "frozen": {"since": 1000, "rolled_back_to": 7, "names": 0},
            "not_saved": "No space left on device",
        },
    )


async def test_what_cannot_be_is_a_conflict(control: Control, ask: Ask) -> None:
    control.state.refuses = True
    assert await ask("freeze", json={}) == (409, {"error": "it cannot be"})


@pytest.mark.parametrize(
    ("order", "body"),
    [
        ("pin", {"name": "a.example"}),
        ("pin", {"name": "a.example", "addresses": "10.0.0.1"}),
        ("pin", {"name": 1, "addresses": []}),
        ("unpin", {}),
        ("rollback", {"serial": "7"}),
        ("rollback", {"serial": True}),
        ("freeze", []),
    ],
)
async def test_bodies_that_make_no_sense(order: str, body: Any, control: Control, ask: Ask) -> None:
    status, document = await ask(order, json=body)
    assert (status, list(document)) == (400, ["error"])
    assert control.told == []


async def test_a_charset_that_nobody_knows(control: Control, ask: Ask) -> None:
    headers = {"Content-Type": "application/json; charset=nonsense"}
    assert await ask("freeze", data=b"{}", headers=headers) == (
        400,
        {"error": "the body: unknown encoding: nonsense"},
    )
    assert control.told == []


@pytest.mark.parametrize("content", [b"", b"{", b"\xff", b"[" * 100_000])
async def test_bodies_that_are_no_json(content: bytes, control: Control, ask: Ask) -> None:
    status, _ = await ask("freeze", data=content, headers={"Content-Type": "application/json"})
    assert (status, control.told) == (400, [])


def test_history_shows_what_each_serial_changed_newest_first() -> None:
    state = AddressLifecycle(AddressPolicy((Wanted("a.example.", "registry", "hangzhou"),)))
    state.overrides = Overrides(
        history=(
            Record(1, "helper-a", 900, {"a.example.": statement("a.example.", ("10.0.0.1",))}),
            Record(2, "helper-a", 950, {"a.example.": statement("a.example.", ("10.0.0.2",))}),
            Record(3, "helper-b", 990, {}),
        )
    )
    document = current_history(state)
    assert [(r["serial"], r["issuer"], r["taken_at"], r["names"]) for r in document["history"]] == [
        (3, "helper-b", 990, 0),
        (2, "helper-a", 950, 1),
        (1, "helper-a", 900, 1),
    ]
    assert [r["changes"] for r in document["history"]] == [
        [{"name": "a.example.", "old": ["10.0.0.2"], "new": [], "held": None}],
        [{"name": "a.example.", "old": ["10.0.0.1"], "new": ["10.0.0.2"], "held": None}],
        [{"name": "a.example.", "old": [], "new": ["10.0.0.1"], "held": None}],
    ]
    assert (document["pinned"], document["frozen"]) == ([], None)


def test_history_says_which_changes_are_held() -> None:
    proxy = ProxyModel()
    proxy.publish(H1, "10.0.0.1")
    proxy.elapse(INTERVAL)
    proxy.order("freeze")
    proxy.publish(H1, "10.0.0.2")
    proxy.publish(H1, "10.0.0.3")
    proxy.elapse(INTERVAL)

    def held() -> list[str | None]:
        return [r["changes"][0]["held"] for r in current_history(proxy.state)["history"]]

    assert held() == ["frozen", "frozen", None]
    proxy.order("unfreeze")
    proxy.elapse(INTERVAL)
    assert held() == [None, None, None]


async def act(proxy: ProxyModel, path: str, **body: Any) -> Any:
    """Give ``proxy`` an order over HTTP; return the result."""

    class Service:
        lifecycle = proxy.state

        async def order(self, command: Command) -> str | None:
            command(proxy.state, proxy.wall)
            proxy.elapse(INTERVAL)
            return None

    results = []
    async for ask in asking(cast("Control", Service())):
        status, document = await ask(path, json=body)
        assert status == 200, document
        results.append(document["result"])
    return results[0]


async def test_the_result_is_what_the_order_changed() -> None:
    """Also when a later look at the state shows nothing of it."""
    proxy = ProxyModel(canary=CanaryPolicy(0, 3600.0, 3, "b"))
    proxy.publish(H1, "10.0.0.1")
    proxy.elapse(INTERVAL)
    proxy.publish(H1, "10.0.0.2")
    proxy.elapse(INTERVAL)
    ended = {"name": NAME, "old": ["10.0.0.1"], "new": ["10.0.0.2"]}
    assert await act(proxy, "canary/rollback", name="a.example") == ended
    assert await act(proxy, "canary/promote", name="a.example") == ended
    assert proxy.state.trials() == {}
    assert await act(proxy, "pin", name="A.example", addresses=["10.9.9.9"]) == {
        "name": NAME,
        "addresses": ["10.9.9.9"],
    }
    assert await act(proxy, "unpin", name="a.example") == {"name": NAME, "addresses": ["10.9.9.9"]}
    serial = proxy.state.overrides.history[0].serial
    assert await act(proxy, "rollback", serial=serial) == {"names": 1, "rolled_back_to": serial}
    assert await act(proxy, "unfreeze") == {"names": 1, "rolled_back_to": serial}
    assert await act(proxy, "freeze") == {"names": 1, "rolled_back_to": None}


async def test_history_over_http(control: Control) -> None:
    app = web.Application()
    ControlApi(SimpleNamespace(addresses=control)).add_to(app)
    async with TestClient(TestServer(app)) as client, client.get("/api/v1/history") as response:
        assert (response.status, (await response.json())["history"]) == (200, [])


@given(st.sampled_from(["pin", "unpin", "rollback"]), json_values)
async def test_any_json_is_an_order_or_a_mistake(order: str, body: Any) -> None:
    control = Control()
    async for ask in asking(control):
        headers = {"Content-Type": "application/json"}
        status, _ = await ask(order, data=json.dumps(body), headers=headers)
        assert status in {200, 400, 409}
        assert bool(control.told) is (status == 200)
