"""What must hold of the model whatever its parameters are worth."""

from __future__ import annotations

from dataclasses import replace

import pytest

from tests.fleet.model import Model, Outcome, Params, Transport
from tests.fleet.world import quantiles

BASE = Params(100, Transport.BLOCKING, changes=3)
EVERY = [
    BASE,
    replace(BASE, transport=Transport.PULL),
    replace(BASE, transport=Transport.WATCH),
    replace(BASE, max_waiters=10),
    replace(BASE, max_waiters=10, refuses=True),
    replace(BASE, loss=0.02),
    replace(BASE, transport=Transport.WATCH, loss=0.02),
    replace(BASE, outage=20.0),
    replace(BASE, transport=Transport.WATCH, outage=20.0),
    replace(BASE, shared_cores=2),
]


def run(params: Params) -> Outcome:
    return Model(params).run()


def p99(params: Params) -> float:
    return quantiles(run(params).delays, [0.99])[0]


@pytest.mark.parametrize("params", EVERY)
def test_the_same_seed_gives_the_same_and_another_one_does_not(params: Params) -> None:
    assert run(params) == run(params)
    assert run(params).delays != run(replace(params, seed=2)).delays


@pytest.mark.parametrize("params", EVERY)
def test_everyone_hears_of_every_change_once_and_never_before_it(params: Params) -> None:
    delays = run(params).delays
    assert len(delays) == params.proxies * params.changes
    assert min(delays) >= params.take


def test_a_pull_is_late_by_a_refresh_at_the_most_and_by_half_of_one_in_the_mean() -> None:
    params = replace(BASE, transport=Transport.PULL, proxies=1000)
    delays = run(params).delays
    assert max(delays) <= params.refresh + 1
    assert sum(delays) / len(delays) == pytest.approx(params.refresh / 2, rel=0.1)


@pytest.mark.parametrize("transport", [Transport.PULL, Transport.BLOCKING])
def test_requests_are_one_for_each_proxy_and_refresh(transport: Transport) -> None:
    params = replace(BASE, transport=transport, proxies=500)
    # A blocking query pauses a little after each, and asks twice in the refresh in which something changed.
    assert run(params).rate == pytest.approx(params.proxies / params.refresh, rel=0.25)


def test_a_watch_asks_once() -> None:
    assert run(replace(BASE, transport=Transport.WATCH)).requests == BASE.proxies


def test_the_last_answer_of_a_queue_is_served_after_all_others() -> None:
    params = replace(BASE, proxies=1000, serve=0.001, take=0.0, delay=1e-9, delay_sigma=0.0, changes=1)
    assert max(run(params).delays) == pytest.approx(params.proxies * params.serve, rel=0.05)
    watch = replace(params, transport=Transport.WATCH, serve_watch=0.001, members=5)
    assert max(run(watch).delays) == pytest.approx(params.proxies * 0.001 / 5, rel=0.05)


def test_shared_cores_are_what_many_engines_on_one_machine_wait_for() -> None:
    params = replace(BASE, proxies=200, take=0.01, shared_cores=2, delay=1e-6)
    assert max(run(params).delays) >= params.proxies * params.take / params.shared_cores


def test_more_proxies_are_never_faster() -> None:
    for transport in Transport:
        sizes = [replace(BASE, transport=transport, proxies=size, serve=0.001) for size in (20, 200, 2000)]
        slowest = [p99(params) for params in sizes]
        if transport is not Transport.PULL:  # whose lateness is that of its round
            assert slowest == sorted(slowest)


def test_waiting_beats_pulling_and_an_answer_beats_a_refusal() -> None:
    params = replace(BASE, proxies=300)
    crowded = replace(params, max_waiters=30)
    refused = replace(crowded, refuses=True)
    assert run(refused).refused > 0
    assert run(crowded).refused == 0
    # A refused proxy retries within seconds and is refused again: as fast, for more requests.
    assert p99(params) < p99(crowded)
    assert run(refused).refused > refused.proxies


def test_losses_and_outages_make_the_slowest_slower() -> None:
    assert p99(replace(BASE, loss=0.05)) > p99(BASE)
    assert p99(replace(BASE, outage=30.0)) > p99(BASE)
