"""What the engine decides over time, with real upstreams that end, come back, and lead back to the proxy."""

from __future__ import annotations

import pytest

from tests.e2e.processes import wait_for
from tests.e2e.world import OTHER, OTHER_ADDRESS, World

pytestmark = pytest.mark.e2e


def upstream_sample(name: str, endpoint: str) -> str:
    return f'dnsproxy_upstream_{name}{{upstream="{endpoint}"}}'


def test_p19_an_expired_answer_is_given_while_the_upstream_is_away(world: World) -> None:
    world.configure(learn={"sources": []}, cache={"max_ttl": "1s"})
    world.upstream.start()
    world.start_proxy()
    assert world.server.dig(OTHER).data == [OTHER_ADDRESS]
    world.upstream.process.kill()

    def stale() -> bool:
        reply = world.server.dig(OTHER)
        return reply.data == [OTHER_ADDRESS] and reply.extended_errors == (3,) and reply.answer[0].ttl == 30

    wait_for(stale, "the answer has expired and is given as stale")
    # Health counts questions (line 32): it takes some.
    wait_for(
        lambda: stale() and world.metric(upstream_sample("up", world.upstream.endpoint)) == 0,
        "it is known to be down",
    )
    assert stale()
    world.upstream.start()
    wait_for(lambda: world.server.dig(OTHER).extended_errors == (), "it is asked anew")
    wait_for(
        lambda: world.metric(upstream_sample("up", world.upstream.endpoint)) == 1, "probes bring it back"
    )
    assert world.metric('dnsproxy_cache_refreshes_total{reason="stale"}') >= 1


def test_p19_a_busy_answer_is_asked_for_anew_before_its_end(world: World) -> None:
    world.configure(learn={"sources": []}, cache={"max_ttl": "2s"})
    world.upstream.start()
    world.start_proxy()

    def prefetched() -> bool:
        assert world.server.dig(OTHER).data == [OTHER_ADDRESS]
        return world.metric('dnsproxy_cache_refreshes_total{reason="prefetch"}') >= 2

    wait_for(prefetched, "it is asked for anew, twice")


def test_p23_an_upstream_that_leads_back_to_the_proxy_is_left_out(world: World) -> None:
    back = world.add_dnsmasq("back", {}, port_behind=world.server.port)
    world.configure(
        learn={"sources": []},
        forward={"upstreams": [back.endpoint, world.upstream.endpoint], "policy": "sequential"},
    )
    back.start()
    world.upstream.start()
    world.start_proxy()
    wait_for(lambda: world.metric(upstream_sample("looped", back.endpoint)) == 1, "the loop is found")
    wait_for(lambda: world.proxy.events("upstream.loop"), "the log says so")
    assert [event["upstream"] for event in world.proxy.events("upstream.loop")] == [back.endpoint]
    assert world.server.dig(OTHER).data == [OTHER_ADDRESS]
    assert "LOOP" in world.command("explain", "www.elsewhere.example").stdout
    assert world.server.dig(OTHER, "AAAA").rcode == "NOERROR"


def test_p26_a_client_over_its_rate_comes_back_over_tcp(world: World) -> None:
    world.configure(learn={"sources": []}, serve={"rate_limit": {"per_client": 1}})
    world.upstream.start()
    world.start_proxy()

    def told() -> bool:
        reply = world.server.dig(OTHER, "+ignore")
        return "tc" in reply.flags and reply.answer == ()

    wait_for(told, "it is told to use TCP")
    assert world.server.dig(OTHER, "+tcp").data == [OTHER_ADDRESS]
    assert world.metric('dnsproxy_drops_total{reason="rate_limited"}') >= 1


def test_p24_special_names_do_not_reach_the_upstream(world: World) -> None:
    world.configure(learn={"sources": []}, serve={"identity": {"version": "dnsproxy e2e"}})
    world.start_proxy()
    assert world.server.dig("localhost").data == ["127.0.0.1"]
    assert world.server.dig("-x", "10.1.2.3").rcode == "NXDOMAIN"
    assert world.server.dig("-x", "127.0.0.1").data == ["localhost."]
    assert world.server.dig("version.bind", "TXT", "CH").data == ['"dnsproxy e2e"']
