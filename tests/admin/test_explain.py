from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import pytest
from aiohttp.test_utils import make_mocked_request

from dnsproxy.admin.explain import answer, explain_document, steps
from dnsproxy.admin.status import Facts
from dnsproxy.core import names
from dnsproxy.core.addresses.canary import State
from dnsproxy.core.cache import CachePolicy
from dnsproxy.core.engine import Engine
from dnsproxy.core.explain import Explanation, Question, explain, type_code
from dnsproxy.core.registry import Wanted
from dnsproxy.core.upstreams import FALL, Upstream
from dnsproxy.errors import WorkerError
from tests.fakes.facts import bad_canary, facts_of
from tests.messages import REGISTRY, engine, hangzhou, query, resolve
from tests.strategies import learned, served_table, snapshot


def facts(**changes: Any) -> Facts:
    values: dict[str, Any] = {
        "wanted": [Wanted(REGISTRY, "registry", "hz")],
        "table": served_table(snapshot(learned(REGISTRY, ("10.94.205.198",), observed_at=1010), serial=7)),
    }
    return facts_of(**{**values, **changes})


class Operated:
    def __init__(self, made: Engine) -> None:
        self.engine = made
        self.problem: WorkerError | None = None

    def facts(self) -> Facts:
        return facts()

    async def explain(self, key: bytes, qtype: int, client: bytes | None) -> Explanation:
        if self.problem is not None:
            raise self.problem
        allowed = None if client is None else client[:1] == b"\x0a"
        return explain(self.engine, Question(key, qtype, allowed), 11.0)


def path(made: Engine, name: str, qtype: str = "A", **document: Any) -> list[str]:
    found = explain(made, Question(names.to_key(name), type_code(qtype)), 11.0)
    return list(steps({"client": None, **explain_document(found, facts()), **document}))


def test_a_learned_name_with_its_source_serial_and_age() -> None:
    assert path(engine(hangzhou()), REGISTRY) == [
        f"owned: by {REGISTRY.removesuffix('.')}, registry hz (registry)",
        "addresses: 10.94.205.198; TTL 30 s",
        "source: helper-a, serial 7, confirmed 40 s ago; ok",
        "answered from what was learned",
    ]


def test_a_name_on_trial_says_who_gets_it() -> None:
    view = replace(bad_canary(), leading=frozenset())
    refused = replace(view.trials[REGISTRY], detail="it failed")
    new = refused.addresses[0]
    running = replace(refused, state=State.RUNNING)
    led: dict[str, Any] = {"trials": {REGISTRY: running}, "leading": frozenset({REGISTRY})}
    for changes, ending in (
        ({"trials": {REGISTRY: refused}}, "was rolled back (it failed) and is not answered"),
        (led, "is on trial, and this proxy is one of those that answer with it"),
        ({"trials": {REGISTRY: running}}, "is on trial, answered by other proxies first"),
    ):
        found = explain(engine(hangzhou()), Question(names.to_key(REGISTRY), 1), 11.0)
        told = facts(canary=replace(view, **changes))
        document = explain_document(found, told)
        assert f"canary: {new} {ending}" in list(steps({"client": None, **document}))


def test_probe_results_and_what_operators_did() -> None:
    details = [
        {"address": "10.0.0.1", "state": "serving", "reason": None, "routed": True, "probe": {"443": "ok"}},
        {
            "address": "10.0.0.2",
            "state": "held_back",
            "reason": "no answer",
            "routed": False,
            "probe": {"443": "timeout"},
        },
        {"address": "10.0.0.3", "state": "serving", "routed": None, "probe": None},
    ]
    status = {"registry": "hz", "role": "registry", "details": details, "pinned": True, "frozen": True}
    shown = path(engine(hangzhou()), REGISTRY, status=status)
    assert shown[2:-1] == [
        "pinned: by an operator",
        "frozen: by an operator",
        "address 10.0.0.1: serving, routed, port 443 ok",
        "address 10.0.0.2: held_back, no answer, NOT ROUTED, port 443 timeout",
        "address 10.0.0.3: serving",
    ]


def test_a_forwarded_name_with_its_upstreams() -> None:
    one, two = Upstream("one", ("192.0.2.1", 53)), Upstream("two", ("192.0.2.2", 53))
    two.record_response(0.02)
    for _ in range(FALL):
        one.record_failure("timeout", 0.0)
    assert path(engine(zones={names.to_key("corp.example"): (one, two)}), "a.corp.example") == [
        "owned: no rule holds this name",
        "cache: no fresh entry",
        "zone: corp.example",
        "forwarded to the upstreams in this order",
        "policy: sequential",
        "upstream 1: two up, 20.0 ms",
        "upstream 2: one DOWN, 1000.0 ms; failures: 3 timeout",
    ]


def test_cached_answers() -> None:
    made = engine()
    resolve(made, query("www.example."), ["www.example. 60 IN A 192.0.2.1"], now=1.0)
    resolve(made, query("www.example.", want_dnssec=True), ["www.example. 60 IN A 192.0.2.1"], now=2.0)
    assert path(made, "www.example") == [
        "owned: no rule holds this name",
        "cache: NOERROR, 10 s old, fresh for 50 s more",
        "cache: NOERROR for queries with DO, 9 s old, fresh for 51 s more",
        "answered from the cache",
    ]


def test_what_is_known_of_a_failing_name() -> None:
    one = Upstream("one", ("192.0.2.1", 53))
    made = engine(upstreams=[one, Upstream("two", ("192.0.2.2", 53))], policy=CachePolicy(stale=100.0))
    resolve(made, query("www.example."), ["www.example. 5 IN A 192.0.2.1"], now=1.0)
    made.exchanges.failures.remember(names.to_key("www.example") + b"\0\1\0\1\0", 22, 10.0)
    one.record_loop(10.0, looped=True)
    assert path(made, "www.example") == [
        "owned: no rule holds this name",
        "cache: NOERROR, 10 s old, expired, of use for 95 s more when upstreams fail",
        "failure: EDE 22, not asked again for 1.0 s",
        "zone: the default one",
        "answered from the cache, marked stale (EDE 3), and asked for anew",
        "policy: sequential",
        "upstream 1: two up",
        "upstream 2: one LOOP, not asked, 0.0 ms",
    ]


def test_a_name_that_no_upstream_is_asked_for() -> None:
    assert path(engine(), "a.local")[-2:] == [
        "special use: local",
        "answered here: a special-use name that no zone of forward.zones holds",
    ]


async def test_a_request_and_its_answer() -> None:
    request = make_mocked_request("GET", f"/api/v1/explain?name={REGISTRY}&type=aaaa&client=10.0.0.9")
    response = await answer(Operated(engine(hangzhou())), request)
    assert response.status == 200
    assert isinstance(response.text, str)
    document = json.loads(response.text)
    assert (document["name"], document["type"], document["client"]) == (REGISTRY, "AAAA", "10.0.0.9")
    assert document["outcome"] == "nodata"
    assert document["status"]["serial"] == 7
    assert document["steps"][0] == "client 10.0.0.9: may ask"


async def test_a_client_that_may_not_ask() -> None:
    request = make_mocked_request("GET", f"/api/v1/explain?name={REGISTRY}&client=192.0.2.9")
    response = await answer(Operated(engine(hangzhou())), request)
    document = json.loads(response.text or "")
    assert document["outcome"] == "refused_client"
    assert document["steps"][0] == "client 192.0.2.9: may not ask"
    assert len(document["steps"]) == 2


def test_the_worker_that_was_asked_comes_first() -> None:
    found = replace(explain(engine(), Question(names.to_key("a.example"), 1), 11.0), worker=2)
    document = explain_document(found, facts())
    assert document["worker"] == 2
    first, *_ = steps({"client": "10.0.0.9", **document})
    assert first == "worker: 2 was asked; each has its own cache and view of the upstreams"


async def test_no_worker_answers() -> None:
    silent = Operated(engine())
    silent.problem = WorkerError("no worker answers")
    response = await answer(silent, make_mocked_request("GET", "/api/v1/explain?name=a.example"))
    assert (response.status, response.text) == (503, '{"error": "no worker answers"}')


@pytest.mark.parametrize("asked", ["", "name=", "name=a..b", "name=a.example&type=5", "name=a&client=x"])
async def test_a_request_that_is_not_understood(asked: str) -> None:
    response = await answer(Operated(engine()), make_mocked_request("GET", f"/api/v1/explain?{asked}"))
    assert response.status == 400
    assert "error" in (response.text or "")
