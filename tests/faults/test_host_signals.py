"""Signals while queries come without a pause: nothing is lost by a reload, good or bad, nor by the end."""

from __future__ import annotations

import json
import signal
import threading

import pytest

from tests.e2e.processes import wait_for
from tests.e2e.world import OTHER, REGISTRY, World
from tests.faults.conftest import FULL
from tests.faults.pressure import Asker, run_dnsperf

pytestmark = pytest.mark.faults

QUERIES = 50_000 if FULL else 6000
# Queries per second: a load that even a machine with other work carries.
RATE = 1000
NEW = "10.94.205.199"


class Load:
    """dnsperf beside the test; every query of it is to be answered."""

    def __init__(self, world: World) -> None:
        self.answered = 0
        self._world = world
        self._thread = threading.Thread(target=self._run)

    def _run(self) -> None:
        lines = [f"{REGISTRY} A", f"{OTHER} A", f"{REGISTRY} AAAA"]
        options = ("-n", str(QUERIES // len(lines)), "-Q", str(RATE), "-q", "50", "-t", "15")
        self.answered = run_dnsperf(self._world.folder, self._world.dns_port, lines, *options)

    def start(self) -> None:
        self._thread.start()

    def wait(self) -> None:
        self._thread.join()


@pytest.mark.timeout(300)
@pytest.mark.parametrize("workers", [1, 2])
def test_reloads_lose_no_query(world: World, workers: int) -> None:
    world.configure(serve={"workers": workers})
    world.start()
    good = world.config.read_text()
    settings = world.configuration()
    settings["cache"] = {"size": 5000}
    broken = [good[: len(good) // 2], "serve: {listen: nowhere}", "learn: {sources: [{url: 'ftp://x'}]}"]
    load = Load(world)
    load.start()
    with Asker(world.dns_port) as asker:
        for text in broken:
            send(world, text, "config.not_taken")
        for text in (json.dumps(settings), good):
            send(world, text, "config.reloaded")
        load.wait()
    assert load.answered == QUERIES // 3 * 3
    assert asker.again == 0
    assert len(world.proxy.events("proxy.started")) == 1
    assert world.metric("dnsproxy_config_reload_success") == 1


def send(world: World, text: str, event: str) -> None:
    """Give the proxy another file, and wait until it has said what became of that."""
    before = len(world.proxy.events(event))
    world.config.write_text(text)
    world.proxy.signal(signal.SIGHUP)
    wait_for(lambda: len(world.proxy.events(event)) > before, event)


@pytest.mark.timeout(300)
@pytest.mark.parametrize("workers", [1, 2])
def test_the_end_loses_no_query_of_who_turns_elsewhere_in_time(world: World, workers: int) -> None:
    world.configure(serve={"workers": workers, "lameduck": "30s"})
    world.start()
    load = Load(world)
    load.start()
    wait_for(lambda: world.metric('dnsproxy_requests_total{proto="udp",type="A"}') > 100, "the load runs")
    world.proxy.signal(signal.SIGTERM)
    wait_for(lambda: world.admin("/ready").status == 503, "load balancers are told")
    # They take it out, and meanwhile everything is answered.
    load.wait()
    assert load.answered == QUERIES // 3 * 3
    assert world.proxy.alive
    # A second one hurries.
    world.proxy.signal(signal.SIGTERM)
    assert world.proxy.wait() == 0
