from __future__ import annotations

import os

import pytest

from dnsproxy import config
from dnsproxy.errors import StartError
from dnsproxy.settings.values import Endpoint
from dnsproxy.workers.start import MAX_UPSTREAMS, for_one_of, shared_returns, worker_count

RESOLVERS = [Endpoint("192.0.2.1", 53), Endpoint("192.0.2.2", 53)]


def test_a_number_is_that_number() -> None:
    assert [worker_count(number) for number in (1, 2, 64)] == [1, 2, 64]


@pytest.mark.parametrize(("processors", "expected"), [(1, 1), (2, 2), (300, 64)])
def test_auto_is_one_for_each_processor(
    monkeypatch: pytest.MonkeyPatch, processors: int, expected: int
) -> None:
    monkeypatch.setattr("dnsproxy.workers.start.usable_processors", lambda: processors)
    assert worker_count("auto") == expected


def test_what_is_shared_out_and_what_is_not() -> None:
    settings = config.parse(
        "serve: {max_tcp_clients: 512}\nforward: {upstreams: [192.0.2.1], max_in_flight: 1000}\n"
        "cache: {size: 5000}\n"
    )
    shared = for_one_of(settings, 3)
    assert (shared.serve.max_tcp_clients, shared.forward.max_in_flight) == (171, 334)
    assert shared.serve.max_tcp_per_client == 43
    assert shared.cache.size == 5000
    assert for_one_of(settings, 64).serve.max_tcp_clients == 8
    assert shared.model_copy(update={"serve": settings.serve, "forward": settings.forward}) == settings


def test_no_bound_is_shared_out_to_nothing() -> None:
    settings = config.parse(
        "serve: {max_tcp_clients: 1}\nforward: {upstreams: [192.0.2.1], max_in_flight: 1}\n"
    )
    shared = for_one_of(settings, 64)
    assert (shared.serve.max_tcp_clients, shared.forward.max_in_flight) == (1, 1)


def test_the_resolvers_of_the_system_are_looked_up_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("dnsproxy.workers.start.system_resolvers", lambda: RESOLVERS)
    settings = config.parse("forward: {upstreams: [198.51.100.1, system], zones: {corp.example: [system]}}\n")
    forward = for_one_of(settings, 2).forward
    assert forward.upstreams == [Endpoint("198.51.100.1", 53), *RESOLVERS]
    assert forward.zones == {"corp.example.": RESOLVERS}


def test_they_are_not_looked_up_when_nobody_asks_for_them(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def fail() -> None:
        raise StartError("resolv.conf")

    monkeypatch.setattr("dnsproxy.workers.start.system_resolvers", fail)
    for_one_of(config.parse("forward: {upstreams: [192.0.2.1]}\n"), 2)
    with pytest.raises(StartError, match="resolv.conf"):
        for_one_of(config.parse("forward: {upstreams: [system]}\n"), 2)


def test_what_comes_back_is_shared_over_a_fork() -> None:
    returns = shared_returns()
    assert {returns.last[place] for place in range(MAX_UPSTREAMS)} == {0.0}
    pid = os.fork()
    if pid == 0:
        returns.record(MAX_UPSTREAMS - 1, 12.5)
        os._exit(0)
    assert os.waitpid(pid, 0)[1] == 0
    assert [returns.last[MAX_UPSTREAMS - 1], returns.last[0]] == [12.5, 0.0]
