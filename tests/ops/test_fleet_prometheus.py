from __future__ import annotations

from typing import Any

import pytest
from aiohttp import web

from dnsproxy.ops.fleet import FleetError
from dnsproxy.ops.fleet_prometheus import SELECTOR, ask_prometheus, check_selector
from tests.ops.test_fleet import Serve, serve

__all__ = ["serve"]

SERIAL = 1_764_000_000_123


def element(name: str, value: float, instance: str = "a:1", **labels: str) -> dict[str, Any]:
    return {
        "metric": {"__name__": name, "job": "dnsproxy", "instance": instance, **labels},
        "value": [1_764_000_000, str(value)],
    }


def answers(told: list[dict[str, Any]], up: dict[str, int]) -> dict[str, list[dict[str, Any]]]:
    return {
        "up{": [element("up", value, instance) for instance, value in up.items()],
        "{__n": told,
        "max ": [element("", 7.5)],
    }


def serving(vectors: dict[str, list[dict[str, Any]]], asked: list[str]) -> Any:
    async def handler(request: web.Request) -> web.Response:
        query = request.query["query"]
        asked.append(query)
        (found,) = (vector for start, vector in vectors.items() if query.startswith(start))
        return web.json_response({"status": "success", "data": {"result": found}})

    return handler


@pytest.mark.parametrize("text", [SELECTOR, 'job="a",region!~"b.*"', ' a = "x\\"y" , b=~"c" ', 'job="a",'])
def test_matchers_are_taken(text: str) -> None:
    assert check_selector(text) == text


@pytest.mark.parametrize("text", ["", "job", '{job="a"}', 'job="a"} or up{', "job=a", 'job="a" b="c"'])
def test_what_is_no_list_of_matchers_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="label matchers"):
        check_selector(text)


async def test_each_target_has_its_standing(serve: Serve) -> None:
    told = [
        element("dnsproxy_build_info", 1, version="0.1.0", python="3.11"),
        element("dnsproxy_proxy_info", 1, proxy="shanghai-3", host="h"),
        element("dnsproxy_ready", 1),
        element("dnsproxy_draining", 0),
        element("dnsproxy_issuer_serial", SERIAL, issuer="helper-a"),
        element("dnsproxy_source_up", 1, source="http://one/"),
        element("dnsproxy_source_up", 0, source="http://two/"),
        element("dnsproxy_convergence_seconds_bucket", 3, le="+Inf"),
        element("dnsproxy_convergence_seconds_bucket", 2, le="0.5"),
        element("dnsproxy_ready", 0, "d:1"),
    ]
    asked: list[str] = []
    url = await serve(serving(answers(told, {"a:1": 1, "b:1": 0, "c:1": 1}), asked))
    good, down, foreign, bare = await ask_prometheus(url, 'job="dnsproxy"')
    assert (good.endpoint, good.proxy, good.version) == ("a:1", "shanghai-3", "0.1.0")
    assert (good.ready, good.draining, good.age) == (True, False, 7.5)
    assert good.serials == {"helper-a": SERIAL}
    assert good.last_error == "http://two/ fails"
    assert good.buckets == [(0.5, 2.0), (float("inf"), 3.0)]
    assert (down.endpoint, down.silence) == ("b:1", "Prometheus cannot scrape it")
    assert (foreign.endpoint, foreign.silence) == (
        "c:1",
        "it is scraped, but has no metrics of dnsproxy serve",
    )
    assert (bare.endpoint, bare.ready, bare.silence) == ("d:1", False, None)
    assert len(asked) == 3
    assert all('job="dnsproxy"' in query for query in asked)


async def test_a_refusal_of_prometheus_is_told(serve: Serve) -> None:
    async def handler(_request: web.Request) -> web.Response:
        return web.json_response({"status": "error", "error": "parse error: here"}, status=400)

    with pytest.raises(FleetError, match="status 400 parse error: here"):
        await ask_prometheus(await serve(handler))


@pytest.mark.parametrize("told", [{}, {"data": {"result": [1]}}, {"data": {"result": [{"metric": {}}]}}])
async def test_what_is_no_vector_is_told(told: dict[str, Any], serve: Serve) -> None:
    async def handler(_request: web.Request) -> web.Response:
        return web.json_response(told)

    with pytest.raises(FleetError, match="not an instant vector"):
        await ask_prometheus(await serve(handler))
